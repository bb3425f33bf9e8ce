# Pins of inodes, and the list of those with a descriptor.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from .inode_table cimport Inode, InodeTable, Shard


cdef void cache_insert(InodeTable *table, Shard *shard, Inode *inode) noexcept nogil
cdef void cache_remove(InodeTable *table, Shard *shard, Inode *inode) noexcept nogil
cdef void cache_renew(InodeTable *table, Shard *shard, Inode *inode) noexcept nogil
cdef void let_evict(uint32_t *looks) noexcept nogil
cdef Inode *inode_acquire(InodeTable *table, uint64_t nodeid) noexcept nogil
cdef void inode_release(InodeTable *table, Inode *inode) noexcept nogil
cdef Inode *pin_parent(InodeTable *table, Inode *inode, char *name) noexcept nogil
cdef void inode_add_child(InodeTable *table, Inode *parent) noexcept nogil
cdef void inode_drop_child(InodeTable *table, Inode *parent) noexcept nogil
cdef void inode_recall(InodeTable *table, Inode *inode) noexcept nogil
cdef bint inode_lose(InodeTable *table, Shard *shard, Inode *inode) noexcept nogil
cdef void inode_gone(InodeTable *table, Inode *inode) noexcept nogil
cdef bint inodes_close_few(InodeTable *table) noexcept nogil
cdef void inodes_close_pending(InodeTable *table) noexcept nogil
cdef void inodes_removed(InodeTable *table) noexcept nogil
cdef bint inodes_free_space(InodeTable *table, int64_t result) noexcept nogil
