"""Where an inode was seen last, by which it is found again where there are no handles: a directory and a name in it."""

from libc.stdint cimport int64_t, uint32_t

from .atomics cimport load_relaxed32
from .inode_identity cimport IDENTITY, same_file
from .inode_lifetime cimport inode_add_child, inode_drop_child
from .inode_table cimport INODE_ROOT, NONE, ROOT_SLOT, Inode, InodeTable, Shard, at_slot, key_hash, shard_of
from .linux cimport (
    AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW, decimal, linux_statx, memcpy, sys_readlinkat, sys_statx)
from .mutex cimport lock, unlock
from .names cimport NAME_MAX, name_drop, name_equals, name_keep

cdef enum:
    PATH_SPACE = 4096
    SLASH = 47


cdef bint is_ancestor(InodeTable *table, const Inode *inode, const Inode *of) noexcept nogil:
    while of.slot != ROOT_SLOT and of.parent != NONE:
        if of == inode:
            return True
        of = at_slot(table, of.parent)
    return of == inode


cdef void inode_seen_at(InodeTable *table, Inode *inode, Inode *parent, const char *name) noexcept nogil:
    """Remembers where the file is, by which it is found again where there are no handles. Both are pinned."""
    cdef Shard *shard = shard_of(table, key_hash(inode.mount, inode.ino))
    cdef uint32_t kept, old_name
    cdef Inode *other = NULL     # the parent that has one child too many in the end
    cdef bint known
    if inode.flags & INODE_ROOT:
        return
    lock(&shard.lock)
    known = inode.parent == parent.slot and name_equals(&table.names, inode.name, name)
    unlock(&shard.lock)
    if known:
        return  # as nearly always: the lock of all is for those that are not where they were
    lock(&table.tree_lock)
    if inode.parent != parent.slot:
        inode_add_child(table, parent)
        other = parent
    lock(&shard.lock)
    kept = name_keep(&table.names, name)
    # A file that the host moves about while it is looked up must not end as its own ancestor.
    if kept != NONE and (other == NULL or not load_relaxed32(&inode.children)
                         or not is_ancestor(table, inode, parent)):
        old_name = inode.name
        inode.name = kept
        if other != NULL:
            other = at_slot(table, inode.parent) if inode.parent != NONE else NULL
            inode.parent = parent.slot
    else:
        old_name = kept
    unlock(&shard.lock)
    unlock(&table.tree_lock)
    name_drop(&table.names, old_name)
    if other != NULL:
        inode_drop_child(table, other)


cdef bint inode_is_at(InodeTable *table, const Inode *inode, int directory, const char *name) noexcept nogil:
    """Whether the name in the directory is the file's."""
    cdef linux_statx there
    return (sys_statx(directory, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, IDENTITY, &there) == 0
            and same_file(table, inode, &there))


cdef bint inode_was_renamed(InodeTable *table, Inode *inode, Inode *parent) noexcept nogil:
    """Whether the file is in the directory by another name now, as the host has renamed it; remembers that. Both are
    pinned and have descriptors.
    """
    cdef char path[PATH_SPACE]
    cdef char number[16]
    cdef char name[NAME_MAX + 1]
    cdef int64_t end = sys_readlinkat(table.proc_fd, decimal(number, inode.fd), path, PATH_SPACE)
    cdef int64_t start = end
    if end < 0 or end == PATH_SPACE:
        return False
    while start > 0 and path[start - 1] != SLASH:
        start -= 1
    if end == start or end - start > NAME_MAX:
        return False
    memcpy(name, path + start, <size_t> (end - start))
    name[end - start] = 0
    if not inode_is_at(table, inode, parent.fd, name):
        return False
    inode_seen_at(table, inode, parent, name)
    return True
