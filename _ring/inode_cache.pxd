# The O_PATH descriptors of known inodes: cached, and opened again.

from libc.stdint cimport uint64_t

from .handles cimport Handle
from .inode_table cimport Inode, InodeTable


cdef int inode_fd(InodeTable *table, Inode *inode) noexcept nogil
cdef int open_with_room(InodeTable *table, int directory, const char *path, int flags,
                        unsigned int mode) noexcept nogil
cdef int open_by_handle(InodeTable *table, const Inode *inode, int flags) noexcept nogil
cdef int inode_borrow_fd(InodeTable *table, Inode *inode, Handle **file) noexcept nogil
cdef void inode_return_fd(InodeTable *table, Handle *file) noexcept nogil
cdef void inode_reach_by(InodeTable *table, Inode *inode, uint64_t fh) noexcept nogil
cdef void inode_outlive(InodeTable *table, Inode *inode, const Handle *file) noexcept nogil
