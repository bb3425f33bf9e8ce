# The O_PATH descriptors of known inodes: cached, closed least recently used first, and opened again.

from libc.stdint cimport uint32_t, uint64_t

from .handles cimport Handle
from .inode_table cimport Inode, InodeTable
from .linux cimport linux_file_handle, linux_statx


cdef int file_handle(int fd, linux_file_handle *handle) noexcept nogil
cdef bint same_birth(const Inode *inode, const linux_statx *stat) noexcept nogil
cdef int mount_how(InodeTable *table, uint32_t mount, int fd, uint32_t kind) noexcept nogil
cdef int inode_fd(InodeTable *table, Inode *inode) noexcept nogil
cdef int open_with_room(InodeTable *table, int directory, const char *path, int flags,
                        unsigned int mode) noexcept nogil
cdef int open_by_handle(InodeTable *table, const Inode *inode, int flags) noexcept nogil
cdef int inode_borrow_fd(InodeTable *table, Inode *inode, Handle **file) noexcept nogil
cdef void inode_return_fd(InodeTable *table, Handle *file) noexcept nogil
cdef void inode_reach_by(InodeTable *table, Inode *inode, uint64_t fh) noexcept nogil
cdef void inode_outlive(InodeTable *table, Inode *inode, const Handle *file) noexcept nogil
cdef void make_room(InodeTable *table) noexcept nogil
cdef void inodes_close_idle(InodeTable *table, bint opens_counted) noexcept nogil
cdef uint32_t inodes_evict(InodeTable *table, uint32_t count) noexcept nogil
