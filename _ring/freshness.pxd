# Whether the guest's page cache of a file is still what the file has.

from .inode_table cimport Inode


cdef bint still_fresh(Inode *inode, int fd) noexcept nogil
cdef bint unchanged(const Inode *inode, int fd) noexcept nogil
