# The hash index of the inode table: (mount, inode number) -> record. Every function is called with the shard locked.

from libc.stdint cimport uint32_t, uint64_t

from .inode_table cimport Inode, InodeTable, Shard


cdef Inode *index_find(InodeTable *table, const Shard *shard, uint64_t hash, uint32_t mount,
                       uint64_t ino) noexcept nogil
cdef void index_insert(InodeTable *table, Shard *shard, uint64_t hash, Inode *inode) noexcept nogil
cdef void index_remove(InodeTable *table, Shard *shard, Inode *inode) noexcept nogil
