"""Which operations sleep on which file system ("Request scheduling" in ARCHITECTURE.md).

A class of operations that has taken long twice within a short time, on a worker, is carried out by the pool from then
on, for files of that mount; when it has been quick in the pool often enough in a row, workers do it themselves again.
A single slow one says little: the thread may only have waited for a CPU.
"""

from libc.stdint cimport uint32_t, uint64_t

from .atomics cimport fetch_add32, fetch_sub32, load_relaxed32, store_relaxed32
from .inode_lifetime cimport inode_acquire, inode_release
from .inode_table cimport Inode, InodeTable, Mount

cdef enum:
    TWICE_WITHIN_US = 200000
    QUICK_US = 200
    FORGIVEN = 64            # quick ones in a row


cdef Mount *mount_of_node(InodeTable *table, uint64_t nodeid) noexcept nogil:
    cdef Inode *inode = inode_acquire(table, nodeid)
    cdef Mount *mount
    if inode == NULL:
        return NULL
    mount = table.mounts + inode.mount
    inode_release(table, inode)
    return mount


cdef void slowness_note(InodeTable *table, uint64_t nodeid, uint32_t which, uint64_t took_us,
                        uint64_t now_us) noexcept nogil:
    """A worker has carried out an operation of the class."""
    cdef Mount *mount
    if took_us < SLOW_US or which == CLASS_NONE:
        return
    mount = mount_of_node(table, nodeid)
    if mount == NULL:
        return
    if now_us - mount.slow_at_us[which] > TWICE_WITHIN_US:
        mount.slow_at_us[which] = now_us
        return
    store_relaxed32(&mount.quick[which], 0)
    if not load_relaxed32(&mount.slow[which]):
        store_relaxed32(&mount.slow[which], 1)
        fetch_add32(&table.slow_classes, 1)


cdef void slowness_forgive(InodeTable *table, uint64_t nodeid, uint32_t which, uint64_t took_us) noexcept nogil:
    """The pool has carried out an operation of the class."""
    cdef Mount *mount
    if not load_relaxed32(&table.slow_classes) or which == CLASS_NONE:
        return
    mount = mount_of_node(table, nodeid)
    if mount == NULL or not load_relaxed32(&mount.slow[which]):
        return
    if took_us > QUICK_US:
        store_relaxed32(&mount.quick[which], 0)
    elif fetch_add32(&mount.quick[which], 1) == FORGIVEN:
        store_relaxed32(&mount.slow[which], 0)
        fetch_sub32(&table.slow_classes, 1)


cdef bint slowness_expected(InodeTable *table, uint64_t nodeid, uint32_t which) noexcept nogil:
    """Whether the operation belongs into the pool."""
    cdef Mount *mount
    if not load_relaxed32(&table.slow_classes) or which == CLASS_NONE:
        return False
    mount = mount_of_node(table, nodeid)
    return mount != NULL and load_relaxed32(&mount.slow[which]) != 0
