"""Pins: a record stays as long as somebody holds one. What the last one leaves behind is closed where it may sleep."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from .atomics cimport (
    compare_exchange32, compare_exchange64, exchange32, fetch_add32, fetch_add64, fetch_sub32, fetch_sub64,
    load_acquire32, load_acquire64, load_relaxed32, load_relaxed64, store_relaxed32, store_relaxed64)
from .inode_identity cimport mount_leave
from .inode_index cimport index_remove
from .inode_slots cimport free_slot
from .inode_table cimport (
    CHUNK_BITS, EVICTING, INODE_BY_FILE, INODE_CACHED, INODE_NEW, INODE_REMEMBERED, NONE, PINS, Inode, InodeTable,
    Shard, at_slot, fetch_slot, inode_nodeid, key_hash, shard_of)
from .invariants cimport invariant
from .kept cimport kept_forget, kept_has
from .linux cimport EDQUOT, ENOSPC, sched_yield, sys_close, sys_close_range, sys_futex_wait
from .mutex cimport lock, unlock
from .names cimport NAME_NONE, name_copy, name_drop
from .ticks cimport ticks_now

cdef enum:
    TOGETHER = 256       # descriptors that are closed in one go
    AT_ONCE = 4096       # inodes
    FEW_US = 50          # a worker closes itself as many as usually take no longer than that
    LEARNING = 8         # the part that one time has of what is usual
    YIELDS = 64
    CLOSING_LOOKS = 1000
    FORGET_LOOKS = 5
    FORGET_US = 20000    # after a removal its FORGET may be yet to come, from another queue

cdef int64_t PAUSE_NS = 1000000


# The cached descriptors of a shard, most recent first. The shard is locked.

cdef void cache_insert(InodeTable *table, Shard *shard, Inode *inode) noexcept nogil:
    inode.lru_previous = NONE
    inode.lru_next = shard.lru_first
    if shard.lru_first != NONE:
        at_slot(table, shard.lru_first).lru_previous = inode.slot
    else:
        shard.lru_last = inode.slot
    shard.lru_first = inode.slot
    inode.flags = <uint8_t> (inode.flags & ~(INODE_BY_FILE | INODE_NEW) | INODE_CACHED)


cdef void unlink(InodeTable *table, Shard *shard, Inode *inode) noexcept nogil:
    if inode.lru_previous != NONE:
        at_slot(table, inode.lru_previous).lru_next = inode.lru_next
    else:
        shard.lru_first = inode.lru_next
    if inode.lru_next != NONE:
        at_slot(table, inode.lru_next).lru_previous = inode.lru_previous
    else:
        shard.lru_last = inode.lru_previous


cdef void cache_remove(InodeTable *table, Shard *shard, Inode *inode) noexcept nogil:
    if inode.flags & INODE_CACHED:
        unlink(table, shard, inode)
        inode.flags &= <uint8_t> ~INODE_CACHED


cdef void cache_renew(InodeTable *table, Shard *shard, Inode *inode) noexcept nogil:
    """Makes it the most recent one. It is INODE_CACHED all the while: whoever gives back the last pin looks at that
    without the lock, and would leave a free slot in the list.
    """
    unlink(table, shard, inode)
    cache_insert(table, shard, inode)


# Pins.

cdef void let_evict(uint32_t *looks) noexcept nogil:
    """Before one more look at an inode that somebody evicts. That takes a few system calls, or as long as its file
    system hangs.
    """
    cdef uint32_t pause = 0
    looks[0] += 1
    if looks[0] < YIELDS:
        sched_yield()
    else:
        sys_futex_wait(&pause, 0, PAUSE_NS)


cdef Inode *inode_acquire(InodeTable *table, uint64_t nodeid) noexcept nogil:
    """Pins the inode for the caller. NULL for an id that the guest does not know, or knew once."""
    cdef uint32_t slot = <uint32_t> nodeid
    cdef Inode *inode
    cdef uint64_t state
    cdef uint32_t looks = 0
    if slot == NONE or slot >> CHUNK_BITS >= load_acquire32(&table.chunk_count):
        return NULL
    inode = at_slot(table, slot)
    state = load_acquire64(&inode.state)
    while True:
        if state >> 32 != nodeid >> 32 or not state & PINS:
            return NULL
        if state & EVICTING:
            let_evict(&looks)
            state = load_acquire64(&inode.state)
        elif compare_exchange64(&inode.state, &state, state + 1):
            return inode


cdef void inode_release(InodeTable *table, Inode *inode) noexcept nogil:
    """Gives a pin back. The last frees the slot; the descriptor is left to inodes_close_pending, which may sleep."""
    invariant(load_acquire64(&inode.state) & PINS > 0, "a released inode was pinned")
    if fetch_sub64(&inode.state, 1) & PINS == 1:
        let_go(table, inode)


cdef void let_go(InodeTable *table, Inode *inode) noexcept nogil:
    cdef Shard *shard
    cdef uint32_t first
    if inode.flags & INODE_CACHED:
        # The guest forgot it while it was kept for its children.
        shard = shard_of(table, key_hash(inode.mount, inode.ino))
        lock(&shard.lock)
        cache_remove(table, shard, inode)
        unlock(&shard.lock)
    if inode.fd < 0 and not kept_has(table.kept, inode_nodeid(inode)):
        discard(table, inode)
        return
    fetch_add32(&table.to_close_count, 1)
    first = load_relaxed32(&table.to_close)
    while True:
        inode.hash_next = first
        if compare_exchange32(&table.to_close, &first, inode.slot):
            return


cdef Inode *pin_parent(InodeTable *table, Inode *inode, char *name) noexcept nogil:
    """The directory that a pinned inode was last seen in, pinned as well, and its name there ("": none is known). NULL:
    nobody knows. The directory's descriptor stays as it is while it is pinned.
    """
    cdef Shard *shard = shard_of(table, key_hash(inode.mount, inode.ino))
    cdef Inode *parent = NULL
    cdef uint32_t looks = 0
    name[0] = 0
    lock(&shard.lock)
    if inode.parent != NONE:
        parent = at_slot(table, inode.parent)
        fetch_add64(&parent.state, 1)
        if inode.name != NAME_NONE:
            name_copy(&table.names, inode.name, name)
    unlock(&shard.lock)
    # Whoever evicts it waits for nobody but those who evict what is above it.
    while parent != NULL and load_acquire64(&parent.state) & EVICTING:
        let_evict(&looks)
    return parent


# Children are counted twice, as such and as pins; both change under the lock by which an inode is claimed for eviction.

cdef void inode_add_child(InodeTable *table, Inode *parent) noexcept nogil:
    """One more inode that is found in the directory by its name."""
    cdef Shard *shard = shard_of(table, key_hash(parent.mount, parent.ino))
    lock(&shard.lock)
    fetch_add64(&parent.state, 1)
    fetch_add32(&parent.children, 1)
    unlock(&shard.lock)


cdef bint drop_child(InodeTable *table, Inode *parent) noexcept nogil:
    """One less. Whether that was the last pin."""
    cdef Shard *shard = shard_of(table, key_hash(parent.mount, parent.ino))
    cdef bint last
    lock(&shard.lock)
    fetch_sub32(&parent.children, 1)
    last = fetch_sub64(&parent.state, 1) & PINS == 1
    unlock(&shard.lock)
    return last


cdef void inode_drop_child(InodeTable *table, Inode *parent) noexcept nogil:
    if drop_child(table, parent):
        let_go(table, parent)


cdef void discard(InodeTable *table, Inode *inode) noexcept nogil:
    """Frees the slot of an inode that has no descriptor, and those of parents that were only kept for it."""
    cdef Inode *parent
    cdef uint32_t mount
    while True:
        name_drop(&table.names, inode.name)
        parent = at_slot(table, inode.parent) if inode.parent != NONE else NULL
        mount = inode.mount
        free_slot(table, inode)
        mount_leave(table, mount)
        if parent == NULL or not drop_child(table, parent):
            return
        if parent.fd >= 0 or parent.flags & INODE_CACHED:
            let_go(table, parent)
            return
        inode = parent


# What the guest has forgotten, and may come back to (--nfs-export).

cdef void inode_recall(InodeTable *table, Inode *inode) noexcept nogil:
    """The guest has a reference again. The inode's shard is locked."""
    if inode.flags & INODE_REMEMBERED:
        inode.flags &= <uint8_t> ~INODE_REMEMBERED
        fetch_sub32(&table.remembered, 1)
        fetch_add32(&table.known, 1)


cdef bint inode_lose(InodeTable *table, Shard *shard, Inode *inode) noexcept nogil:
    """The inode is not found by its number any more, and not remembered either: its file is gone. The shard is locked.
    True: the pin that kept it is to be released.
    """
    index_remove(table, shard, inode)
    if not inode.flags & INODE_REMEMBERED:
        return False
    inode.flags &= <uint8_t> ~INODE_REMEMBERED
    fetch_sub32(&table.remembered, 1)
    if not load_relaxed32(&inode.children):
        cache_remove(table, shard, inode)
    return True


cdef void inode_gone(InodeTable *table, Inode *inode) noexcept nogil:
    """The file of a pinned inode turns out to be gone: it is not remembered any more, nor will it be."""
    cdef Shard *shard = shard_of(table, key_hash(inode.mount, inode.ino))
    cdef bint lost
    lock(&shard.lock)
    lost = inode_lose(table, shard, inode)
    unlock(&shard.lock)
    if lost:
        inode_release(table, inode)


cdef void close_together(const int *fds, uint32_t count) noexcept nogil:
    """Closes descriptors; by one call those that are in sequence, upwards or downwards: what was looked up one after
    the other is mostly forgotten so.
    """
    cdef uint32_t first = 0
    cdef uint32_t last
    cdef int step, i
    while first < count:
        last = first
        step = fds[first + 1] - fds[first] if first + 1 < count else 0
        if step == 1 or step == -1:
            while last + 1 < count and fds[last + 1] - fds[last] == step:
                last += 1
        if last == first or sys_close_range(fds[first if step > 0 else last], fds[last if step > 0 else first]) < 0:
            for i in range(first, last + 1):
                sys_close(fds[i])
        first = last + 1


cdef void learn(InodeTable *table, uint64_t ticks) noexcept nogil:
    """How long it took to free one inode. A single time says little: the thread may have waited for a CPU."""
    cdef int64_t most = 2 * FEW_US * table.ticks_per_us
    cdef int64_t usual = load_relaxed32(&table.close_ticks)
    usual += ((<int64_t> ticks if ticks < <uint64_t> most else most) - usual) / LEARNING
    store_relaxed32(&table.close_ticks, <uint32_t> usual)


cdef void close_list(InodeTable *table, uint32_t most) noexcept nogil:
    """Closes so many, or what is in the list already."""
    cdef uint64_t began = ticks_now()
    cdef uint64_t now
    cdef uint32_t slot = NONE
    cdef uint32_t closed = 0
    cdef int fds[TOGETHER]
    cdef uint32_t count, inodes
    cdef Inode *inode
    while True:
        count = 0
        inodes = 0
        while count < TOGETHER:
            if slot == NONE:
                # With the last file of a folder the folder itself may go: it is in the list then. Others may add to it
                # without end.
                if closed + inodes >= most:
                    break
                slot = exchange32(&table.to_close, NONE)
                if slot == NONE:
                    break
            inode = at_slot(table, slot)
            slot = inode.hash_next
            fetch_slot(table, slot)
            if inode.fd >= 0:
                fds[count] = inode.fd
                count += 1
                inode.fd = -1
            kept_forget(table.kept, inode_nodeid(inode))
            discard(table, inode)
            inodes += 1
        if inodes == 0:
            return
        close_together(fds, count)
        now = ticks_now()
        learn(table, (now - began) / inodes)
        began = now
        fetch_sub32(&table.account.cached, count)
        fetch_sub32(&table.to_close_count, inodes)
        closed += inodes


cdef bint inodes_close_few(InodeTable *table) noexcept nogil:
    """inodes_close_pending(), by a worker: to wake a thread of the pool takes longer than to close a few descriptors.
    False: the pool has to. They are many, or have not been quick lately, or somebody is at it already, and may hang.
    """
    cdef uint32_t nobody = 0
    cdef uint32_t few = <uint32_t> (FEW_US * table.ticks_per_us / (load_relaxed32(&table.close_ticks) + 1))
    if load_relaxed32(&table.to_close_count) > few or not compare_exchange32(&table.closing, &nobody, 1):
        return False
    close_list(table, few)
    fetch_sub32(&table.closing, 1)
    return load_relaxed32(&table.to_close) == NONE


cdef void inodes_close_pending(InodeTable *table) noexcept nogil:
    """Closes the descriptors of inodes that were let go. May sleep."""
    fetch_add32(&table.closing, 1)
    close_list(table, AT_ONCE)
    fetch_sub32(&table.closing, 1)


cdef void inodes_removed(InodeTable *table) noexcept nogil:
    """The guest has removed something; it will forget it, if nobody has it open."""
    store_relaxed64(&table.removed_at, ticks_now())


cdef bint inodes_free_space(InodeTable *table, int64_t result) noexcept nogil:
    """Whether a call that found the disk full is worth another try: what the guest has just removed takes its space
    until it is forgotten and its descriptor closed, which this waits for, but not for ever.
    """
    cdef uint32_t pause = 0
    cdef int least = 1
    cdef int look
    if result != -ENOSPC and result != -EDQUOT:
        return False
    if not load_relaxed32(&table.to_close_count):
        if ticks_now() - load_relaxed64(&table.removed_at) > FORGET_US * table.ticks_per_us:
            return False
        least = FORGET_LOOKS    # a worker may have closed it between two looks
    for look in range(CLOSING_LOOKS):
        if look >= least and not load_relaxed32(&table.to_close_count):
            break
        sys_futex_wait(&pause, 0, PAUSE_NS)
    return True
