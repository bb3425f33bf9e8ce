"""Slots of the inode table, which grows by chunks and never moves.

A chunk belongs to one shard. When all its slots are free its memory goes back to the system, unless it is the shard's
last one with room; the generation that its slots go on with is kept, so that no nodeid is ever given out twice.
"""

from libc.stdint cimport uint32_t, uint64_t

from .atomics cimport store_pointer, store_release32
from .inode_table cimport (
    CHUNK_BITS, CHUNK_INODES, CHUNKS_MAX, NONE, Chunk, Inode, InodeTable, Shard, at_slot, key_hash, shard_of)
from .linux cimport (
    MADV_DONTNEED, MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, clock_ns, madvise, memset, mmap,
    sys_getrandom)
from .mutex cimport lock, unlock

cdef enum:
    CHUNK_BYTES = CHUNK_INODES * sizeof(Inode)
    FIRST_GENERATIONS = 0x3fffffff  # which leaves three quarters of all to count on in


# Chunks of a shard that have free slots, in a list by their numbers; 0 ends it, as chunk 0 is in no list but its own
# shard's, where it is entered by number + 1.

cdef void enter(InodeTable *table, Shard *shard, uint32_t number, bint first) noexcept nogil:
    cdef Chunk *chunk = table.chunks + number
    if first or shard.room_last == NONE:
        chunk.previous = NONE
        chunk.next = shard.room_first
        if chunk.next != NONE:
            table.chunks[chunk.next - 1].previous = number + 1
        else:
            shard.room_last = number + 1
        shard.room_first = number + 1
    else:
        chunk.next = NONE
        chunk.previous = shard.room_last
        table.chunks[shard.room_last - 1].next = number + 1
        shard.room_last = number + 1


cdef void leave(InodeTable *table, Shard *shard, uint32_t number) noexcept nogil:
    cdef Chunk *chunk = table.chunks + number
    if chunk.previous != NONE:
        table.chunks[chunk.previous - 1].next = chunk.next
    else:
        shard.room_first = chunk.next
    if chunk.next != NONE:
        table.chunks[chunk.next - 1].previous = chunk.previous
    else:
        shard.room_last = chunk.previous


cdef bint more_slots(InodeTable *table, Shard *shard) noexcept nogil:
    """One more chunk for the shard, which is locked. False: no memory, or no numbers."""
    cdef void *records
    cdef uint32_t number
    cdef uint32_t first = <uint32_t> clock_ns()
    # File handles of guests, which NFS clients keep, have nodeids in them. Where those of an earlier daemon began
    # elsewhere, an old handle leads to no file instead of another one.
    sys_getrandom(&first, sizeof(first))
    lock(&table.growth_lock)
    number = table.chunk_count
    if number == CHUNKS_MAX:
        unlock(&table.growth_lock)
        return False
    records = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if records == MAP_FAILED:
        unlock(&table.growth_lock)
        return False
    table.chunks[number].generation = first & FIRST_GENERATIONS
    table.chunks[number].highest = first & FIRST_GENERATIONS
    store_pointer(<void **> &table.chunks[number].records, records)
    store_release32(&table.chunk_count, number + 1)
    unlock(&table.growth_lock)
    enter(table, shard, number, True)
    return True


cdef Inode *take_slot(InodeTable *table, Shard *shard) noexcept nogil:
    """A free record with its next generation, not yet valid. NULL: no memory. The shard is locked."""
    cdef Chunk *chunk
    cdef Inode *inode
    cdef uint64_t generation
    cdef uint32_t number, slot
    while True:
        if shard.room_first == NONE and not more_slots(table, shard):
            return NULL
        number = shard.room_first - 1
        chunk = table.chunks + number
        slot = chunk.free_first
        if slot != NONE:
            inode = at_slot(table, slot)
            chunk.free_first = inode.hash_next
            generation = (inode.state >> 32) + 1
        else:
            slot = (number << CHUNK_BITS) + chunk.fresh
            inode = at_slot(table, slot)
            chunk.fresh += 1
            generation = chunk.generation + 1
        chunk.used += 1
        if chunk.free_first == NONE and chunk.fresh == CHUNK_INODES:
            leave(table, shard, number)
            chunk.full = 1
        if generation >> 32 == 0:
            break  # else all its generations are used up: it stays out of use
    memset(&inode.lookups, 0, sizeof(Inode) - sizeof(uint64_t))
    inode.slot = slot
    inode.fd = -1
    inode.state = generation << 32
    if generation > chunk.highest:
        chunk.highest = generation
    return inode


cdef void free_slot(InodeTable *table, Inode *inode) noexcept nogil:
    cdef Shard *shard = shard_of(table, key_hash(inode.mount, inode.ino))
    cdef uint32_t number = inode.slot >> CHUNK_BITS
    cdef Chunk *chunk = table.chunks + number
    lock(&shard.lock)
    inode.hash_next = chunk.free_first
    chunk.free_first = inode.slot
    chunk.used -= 1
    if chunk.full:
        chunk.full = 0
        enter(table, shard, number, True)
    if chunk.used == 0 and shard.room_first != shard.room_last and \
            madvise(chunk.records, CHUNK_BYTES, MADV_DONTNEED) == 0:
        # Zeros from here on, which no nodeid fits to.
        chunk.free_first = NONE
        chunk.fresh = 0
        chunk.generation = chunk.highest
        leave(table, shard, number)
        enter(table, shard, number, False)
    unlock(&shard.lock)
