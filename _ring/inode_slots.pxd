# Slots of the inode table: taken, and given back for the next generation.

from libc.stdint cimport uint32_t

from .inode_table cimport Inode, InodeTable, Shard


cdef bint more_slots(InodeTable *table, Shard *shard) noexcept nogil
cdef Inode *take_slot(InodeTable *table, Shard *shard) noexcept nogil
cdef void free_slot(InodeTable *table, Inode *inode) noexcept nogil
