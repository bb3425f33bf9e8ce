"""Slots of the inode table, which grows by chunks and never moves."""

from libc.stdint cimport uint32_t, uint64_t

from .atomics cimport store_pointer, store_release32
from .inode_table cimport (
    CHUNK_BITS, CHUNK_INODES, CHUNKS_MAX, NONE, Inode, InodeTable, Shard, at_slot, key_hash, shard_of)
from .linux cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, memset, mmap
from .mutex cimport lock, unlock


cdef bint more_slots(InodeTable *table, Shard *shard) noexcept nogil:
    cdef Inode *chunk
    cdef uint32_t number
    lock(&table.growth_lock)
    number = table.chunk_count
    if number == CHUNKS_MAX:
        unlock(&table.growth_lock)
        return False
    chunk = <Inode *> mmap(NULL, CHUNK_INODES * sizeof(Inode), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if chunk == MAP_FAILED:
        unlock(&table.growth_lock)
        return False
    store_pointer(<void **> (table.chunks + number), chunk)
    store_release32(&table.chunk_count, number + 1)
    unlock(&table.growth_lock)
    shard.fresh = number << CHUNK_BITS
    shard.fresh_end = shard.fresh + CHUNK_INODES - 1   # inclusive: the last slot of all is 2^32 - 1
    return True


cdef Inode *take_slot(InodeTable *table, Shard *shard) noexcept nogil:
    """A free record with its next generation, not yet valid. NULL: no memory. The shard is locked."""
    cdef Inode *inode
    cdef uint64_t generation
    cdef uint32_t slot
    while True:
        slot = shard.free_first
        if slot != NONE:
            inode = at_slot(table, slot)
            shard.free_first = inode.hash_next
        else:
            if shard.fresh == NONE and not more_slots(table, shard):
                return NULL
            slot = shard.fresh
            shard.fresh = NONE if slot == shard.fresh_end else slot + 1
            inode = at_slot(table, slot)
        generation = (inode.state >> 32) + 1
        if generation >> 32 == 0:
            break  # else all its generations are used up: it stays out of use
    memset(&inode.lookups, 0, sizeof(Inode) - sizeof(uint64_t))
    inode.slot = slot
    inode.fd = -1
    inode.state = generation << 32
    return inode


cdef void free_slot(InodeTable *table, Inode *inode) noexcept nogil:
    cdef Shard *shard = shard_of(table, key_hash(inode.mount, inode.ino))
    lock(&shard.lock)
    inode.hash_next = shard.free_first
    shard.free_first = inode.slot
    unlock(&shard.lock)
