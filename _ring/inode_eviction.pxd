# Closing the descriptors that the inode table caches.

from libc.stdint cimport uint32_t

from .inode_table cimport InodeTable


cdef void make_room(InodeTable *table) noexcept nogil
cdef void inodes_close_idle(InodeTable *table, bint opens_counted) noexcept nogil
cdef uint32_t inodes_evict(InodeTable *table, uint32_t count) noexcept nogil
