# What tells a file from all others, and how the files of a mount are found again.

from libc.stdint cimport uint32_t

from .inode_table cimport Inode, InodeTable
from .linux cimport STATX_BASIC_STATS, STATX_BTIME, STATX_MNT_ID, linux_file_handle, linux_statx

cdef enum:
    IDENTITY = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID   # what is asked of a file to tell it from all others


cdef int file_handle(int fd, linux_file_handle *handle) noexcept nogil
cdef void note_handle(Inode *inode, const linux_file_handle *handle) noexcept nogil
cdef bint same_birth(const Inode *inode, const linux_statx *stat) noexcept nogil
cdef bint same_file(InodeTable *table, const Inode *inode, const linux_statx *stat) noexcept nogil
cdef void mount_enter(InodeTable *table, uint32_t number) noexcept nogil
cdef void mount_leave(InodeTable *table, uint32_t number) noexcept nogil
cdef void mounts_close(InodeTable *table) noexcept nogil
cdef int mount_how(InodeTable *table, uint32_t number, int fd, uint32_t kind) noexcept nogil
