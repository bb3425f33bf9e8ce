# What the file system does with the inode table.

from libc.stdint cimport uint32_t, uint64_t

from .descriptors cimport Descriptors
from .inode_table cimport Inode, InodeTable
from .handles cimport HandleTable
from .kept cimport KeptFiles
from .linux cimport linux_statx


cdef int inodes_create(InodeTable *table, Descriptors *account, HandleTable *handles, KeptFiles *kept,
                       int root_fd, int proc_fd, uint64_t ticks_per_us) noexcept nogil
cdef void inodes_destroy(InodeTable *table) noexcept nogil
cdef bint inodes_have_handles(InodeTable *table) noexcept nogil
cdef int mount_of(InodeTable *table, const linux_statx *stat) noexcept nogil
cdef uint64_t inode_count_lookup(InodeTable *table, uint32_t mount, const linux_statx *stat) noexcept nogil
cdef int inode_add(InodeTable *table, uint32_t mount, const linux_statx *stat, int fd, bint opened, Inode *parent,
                   const char *name, uint64_t *nodeid, bint *known) noexcept nogil
cdef Inode *inode_find(InodeTable *table, uint32_t mount, uint64_t ino) noexcept nogil
cdef bint is_deleted(int fd) noexcept nogil
cdef void inode_forget(InodeTable *table, uint64_t nodeid, uint64_t count) noexcept nogil
cdef Inode *inodes_next(InodeTable *table, uint32_t *slot) noexcept nogil
cdef void inodes_forget_all(InodeTable *table) noexcept nogil
