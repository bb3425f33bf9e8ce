# Whether the guest's page cache of a file is still what the file has.

from libc.stdint cimport int64_t

from .inode_table cimport Inode
from .linux cimport linux_statx_time


cdef int64_t settles_in(const linux_statx_time *time, bint fine) noexcept nogil
cdef bint still_fresh(Inode *inode, int fd) noexcept nogil
cdef bint unchanged(const Inode *inode, int fd) noexcept nogil
