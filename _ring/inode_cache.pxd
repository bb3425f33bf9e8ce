# The O_PATH descriptors of known inodes: cached, closed least recently used first, opened again by file handle.

from libc.stdint cimport uint32_t

from .inode_table cimport Inode, InodeTable, Shard
from .linux cimport linux_file_handle


cdef void cache_insert(InodeTable *table, Shard *shard, Inode *inode) noexcept nogil
cdef void cache_remove(InodeTable *table, Shard *shard, Inode *inode) noexcept nogil
cdef int file_handle(int fd, linux_file_handle *handle) noexcept nogil
cdef int inode_fd(InodeTable *table, Inode *inode) noexcept nogil
cdef void make_room(InodeTable *table) noexcept nogil
cdef uint32_t inodes_evict(InodeTable *table, uint32_t count) noexcept nogil
cdef uint32_t inodes_close_pending(InodeTable *table) noexcept nogil
