"""Files that were open for reading alone stay open for a moment after their RELEASE: compilers, shells and loaders open
the same ones over and over, and an OPEN costs more than all else that is done with a small file.

Who takes one makes sure that the file is the same and has not changed since (`unchanged()`), so that whatever the host
decides by the file's own state (its mode, its label, its contents) is decided anew. Nobody is pushed out: a file whose
place is taken is closed. So nothing is closed on a worker that was not closed there anyway.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from .atomics cimport fetch_add32, fetch_sub32, load_relaxed32, load_relaxed64, store_relaxed32, store_relaxed64
from .descriptors cimport Descriptors, descriptors_over_budget
from .linux cimport ENOMEM, calloc, free, mix64, sys_close
from .mutex cimport lock, unlock
from .watched cimport watchdog_arm

cdef enum:
    SHARE_OF_BUDGET = 16    # the part of all descriptors that may be kept


cdef int kept_create(KeptFiles *kept, Descriptors *account, int64_t delay_ns, uint32_t *armed) noexcept nogil:
    """0 or -ENOMEM. Nothing is kept with a delay of 0."""
    kept.account = account
    kept.delay_ns = delay_ns
    kept.armed = armed
    kept.most = account.limit / SHARE_OF_BUDGET
    if not delay_ns:
        return 0
    kept.slots = <KeptFile *> calloc(KEPT_SLOTS, sizeof(KeptFile))
    return 0 if kept.slots != NULL else -ENOMEM


cdef void kept_destroy(KeptFiles *kept) noexcept nogil:
    kept_close(kept, True)
    free(kept.slots)
    kept.slots = NULL


cdef inline KeptFile *slots_of(KeptFiles *kept, uint64_t nodeid) noexcept nogil:
    """The KEPT_WAYS slots that the file may be in."""
    return kept.slots + (mix64(nodeid) >> (64 - KEPT_BITS) & ~<uint64_t> (KEPT_WAYS - 1))


cdef bint put(KeptFile *slot, uint64_t nodeid, int fd) noexcept nogil:
    """Whether the slot was free, and has the descriptor now."""
    cdef bint free_slot
    if load_relaxed64(&slot.nodeid):
        return False
    lock(&slot.lock)
    free_slot = slot.nodeid == 0
    if free_slot:
        slot.fd = fd
        slot.recent = 1
        store_relaxed64(&slot.nodeid, nodeid)
    unlock(&slot.lock)
    return free_slot


cdef bint kept_put(KeptFiles *kept, uint64_t nodeid, int fd) noexcept nogil:
    """Keeps the descriptor of a file that was released. False: it does not, the caller closes it."""
    cdef KeptFile *slots
    cdef int way
    if kept.slots == NULL:
        return False
    slots = slots_of(kept, nodeid)
    if fetch_add32(&kept.account.kept, 1) < kept.most and not descriptors_over_budget(kept.account):
        for way in range(KEPT_WAYS):
            if put(slots + way, nodeid, fd):
                watchdog_arm(kept.armed)
                return True
    fetch_sub32(&kept.account.kept, 1)
    return False


cdef int take(KeptFiles *kept, KeptFile *slot, uint64_t nodeid) noexcept nogil:
    """What the slot has of the inode, or of any if `nodeid` is 0, which is the caller's from now on. -1: nothing."""
    cdef int fd = -1
    lock(&slot.lock)
    if slot.nodeid and (slot.nodeid == nodeid or not nodeid):
        fd = slot.fd
        store_relaxed64(&slot.nodeid, 0)
    unlock(&slot.lock)
    if fd >= 0:
        fetch_sub32(&kept.account.kept, 1)
    return fd


cdef KeptFile *find(KeptFiles *kept, uint64_t nodeid) noexcept nogil:
    cdef KeptFile *slots
    cdef int way
    if kept.slots != NULL:
        slots = slots_of(kept, nodeid)
        for way in range(KEPT_WAYS):
            if load_relaxed64(&slots[way].nodeid) == nodeid:
                return slots + way
    return NULL


cdef int kept_take(KeptFiles *kept, uint64_t nodeid) noexcept nogil:
    """The descriptor of a file that is to be opened again, which is the caller's from now on. -1: none."""
    cdef KeptFile *slot = find(kept, nodeid)
    return take(kept, slot, nodeid) if slot != NULL else -1


cdef bint kept_has(KeptFiles *kept, uint64_t nodeid) noexcept nogil:
    return find(kept, nodeid) != NULL


cdef void kept_forget(KeptFiles *kept, uint64_t nodeid) noexcept nogil:
    """The guest does not know the file any more: if it was deleted, its space is wanted. May sleep."""
    cdef int fd = kept_take(kept, nodeid)
    while fd >= 0:
        sys_close(fd)
        fd = kept_take(kept, nodeid)


cdef void kept_close(KeptFiles *kept, bint recent_too) noexcept nogil:
    """Closes what has been there since the last time, or everything (the end of a session). May sleep."""
    cdef KeptFile *slot
    cdef int i, fd
    for i in range(KEPT_SLOTS if kept.slots != NULL else 0):
        slot = kept.slots + i
        if not load_relaxed64(&slot.nodeid):
            continue
        if load_relaxed32(&slot.recent) and not recent_too:
            store_relaxed32(&slot.recent, 0)
            continue
        fd = take(kept, slot, 0)
        if fd >= 0:
            sys_close(fd)
