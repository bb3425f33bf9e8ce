"""Which operations sleep on which file system ("Request scheduling" in ARCHITECTURE.md).

A class of operations that has taken long twice within a short time, on a worker, is carried out by the pool from then
on, for files of that mount; when it has been quick in the pool for a while, workers do it themselves again.
A single slow one says little: the thread may only have waited for a CPU.

In the pool several run at once, and those that wait for the same lock all take long; and what is large takes long by
itself. So it is enough, too, that one is done just after the other, for some seconds. Where that was a mistake, as they
slept side by side, it takes longer each time until the next one.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from .atomics cimport (
    exchange32, fetch_add32, fetch_sub32, load_acquire32, load_acquire64, load_relaxed32, load_relaxed64,
    store_relaxed32, store_relaxed64)
from .inode_table cimport CHUNK_BITS, NONE, Inode, InodeTable, Mount, Slowness, at_slot

cdef enum:
    QUICK_US = 200
    FLOWING_US = 500
    FORGIVEN = 64            # quick ones in a row
    FORGIVEN_US = 5000000    # flowing ones; so long since all stood still: a slow disk's are quick in between
    STILL_US = 10000         # longer than threads that share a CPU keep each other from it
    GRACE_US = 20000         # after that: some are still in the pool, and a worker may wait for them
    RELAPSE_US = 10000000    # of being slow again: forgiven too early
    RELAPSES_MAX = 10        # each doubles the number that it takes


cdef inline int64_t since(uint64_t now_us, uint64_t then_us) noexcept nogil:
    """Threads note their times one after the other, not in the order of these: it may be negative."""
    return <int64_t> (now_us - then_us)


cdef Mount *mount_of_node(InodeTable *table, uint64_t nodeid) noexcept nogil:
    """Without a pin, which who evicts the inode may hold up: should it go, another's mount does no harm here."""
    cdef uint32_t slot = <uint32_t> nodeid
    cdef Inode *inode
    if slot == NONE or slot >> CHUNK_BITS >= load_acquire32(&table.chunk_count):
        return NULL
    inode = at_slot(table, slot)
    return table.mounts + inode.mount if load_acquire64(&inode.state) >> 32 == nodeid >> 32 else NULL


cdef void mark_slow(InodeTable *table, Slowness *known, uint64_t now_us) noexcept nogil:
    """The class is the pool's from now on."""
    store_relaxed32(&known.quick, 0)
    store_relaxed32(&known.flowing, 0)
    if load_relaxed32(&known.slow) or exchange32(&known.slow, 1):
        return
    if since(now_us, known.forgiven_at_us) > RELAPSE_US:
        known.relapses = 0
    elif known.relapses < RELAPSES_MAX:
        known.relapses += 1
    fetch_add32(&table.slow_classes, 1)


cdef void slowness_note(InodeTable *table, uint64_t nodeid, uint32_t which, uint64_t took_us,
                        uint64_t now_us) noexcept nogil:
    """A worker has carried out an operation of the class."""
    cdef Mount *mount
    cdef Slowness *known
    cdef bint once
    if took_us < SLOW_US or which == CLASS_NONE:
        return
    mount = mount_of_node(table, nodeid)
    if mount == NULL:
        return
    known = mount.slowness + which
    if since(now_us, known.forgiven_at_us) < GRACE_US:
        return
    once = since(now_us, known.slow_at_us) > TWICE_WITHIN_US
    known.slow_at_us = now_us
    if once:
        return
    mark_slow(table, known, now_us)


cdef void slowness_hangs(InodeTable *table, uint64_t nodeid, uint32_t which, uint64_t now_us) noexcept nogil:
    """A worker does not come back from an operation of the class, and there had better not be another."""
    cdef Mount *mount = mount_of_node(table, nodeid)
    if mount == NULL or which == CLASS_NONE:
        return
    mount.slowness[which].slow_at_us = now_us
    mark_slow(table, mount.slowness + which, now_us)


cdef bint quick_enough(Slowness *known, uint64_t took_us, int64_t done_before, int64_t slow_before) noexcept nogil:
    """Counts one more that the pool has done. Whether that was the last that it takes."""
    cdef bint enough = False
    if took_us > QUICK_US:
        store_relaxed32(&known.quick, 0)
    else:
        enough = fetch_add32(&known.quick, 1) + 1 >= FORGIVEN
    if took_us > FLOWING_US and done_before > FLOWING_US:
        store_relaxed32(&known.flowing, 0)
    elif fetch_add32(&known.flowing, 1) + 1 >= <uint32_t> FORGIVEN << known.relapses:
        enough |= slow_before > FORGIVEN_US
    return enough


cdef void slowness_forgive(InodeTable *table, uint64_t nodeid, uint32_t which, uint64_t took_us,
                           uint64_t now_us) noexcept nogil:
    """The pool has carried out an operation of the class."""
    cdef Mount *mount
    cdef Slowness *known
    cdef int64_t done_before
    if not load_relaxed32(&table.slow_classes) or which == CLASS_NONE:
        return
    mount = mount_of_node(table, nodeid)
    if mount == NULL or not load_relaxed32(&mount.slowness[which].slow):
        return
    known = mount.slowness + which
    done_before = since(now_us, load_relaxed64(&known.done_at_us))
    if done_before > 0:
        store_relaxed64(&known.done_at_us, now_us)
    if took_us > STILL_US and done_before > STILL_US:
        known.slow_at_us = now_us
    if quick_enough(known, took_us, done_before, since(now_us, known.slow_at_us)):
        known.forgiven_at_us = now_us
        if exchange32(&known.slow, 0):
            fetch_sub32(&table.slow_classes, 1)


cdef bint slowness_expected(InodeTable *table, uint64_t nodeid, uint32_t which) noexcept nogil:
    """Whether the operation belongs into the pool."""
    cdef Mount *mount
    if not load_relaxed32(&table.slow_classes) or which == CLASS_NONE:
        return False
    mount = mount_of_node(table, nodeid)
    return mount != NULL and load_relaxed32(&mount.slowness[which].slow) != 0
