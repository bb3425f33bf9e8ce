# The O_PATH descriptors of known inodes: cached, and opened again.

from libc.stdint cimport uint64_t

from .handles cimport Handle
from .inode_table cimport Inode, InodeTable


# A pinned inode and a descriptor of it.
cdef struct Borrowed:
    Inode *inode
    Handle *file        # whose descriptor it is; NULL: the inode's own
    int fd


cdef int inode_fd(InodeTable *table, Inode *inode) noexcept nogil
cdef int open_with_room(InodeTable *table, int directory, const char *path, int flags,
                        unsigned int mode) noexcept nogil
cdef int open_by_handle(InodeTable *table, const Inode *inode, int flags) noexcept nogil
cdef int inode_borrow(InodeTable *table, uint64_t nodeid, Borrowed *out) noexcept nogil
cdef void inode_give_back(InodeTable *table, Borrowed *borrowed) noexcept nogil
cdef void inode_reach_by(InodeTable *table, Inode *inode, const Handle *file) noexcept nogil
cdef void inode_outlive(InodeTable *table, Inode *inode, const Handle *file) noexcept nogil
