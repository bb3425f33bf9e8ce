"""Finding the record of a file: linear hashing, which grows by one bucket at a time; nothing waits for a rehash."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from .atomics cimport leading_zeros32
from .inode_table cimport FIRST_SEGMENT, INODE_INDEXED, NONE, SEGMENTS, Inode, InodeTable, Shard, at_slot, key_hash
from .linux cimport calloc


cdef inline uint32_t bucket_number(const Shard *shard, uint64_t hash) noexcept nogil:
    cdef uint32_t mask = <uint32_t> (((<uint64_t> 1) << (32 - leading_zeros32(shard.buckets - 1))) - 1)
    cdef uint32_t bucket = <uint32_t> hash & mask
    return bucket if bucket < shard.buckets else bucket & (mask >> 1)


cdef inline uint32_t *bucket_at(const Shard *shard, uint32_t bucket) noexcept nogil:
    # Segments begin at 0, 16, 32, 64, ...
    cdef uint32_t segment
    if bucket < FIRST_SEGMENT:
        return shard.segments[0] + bucket
    segment = 28 - leading_zeros32(bucket)
    return shard.segments[segment] + (bucket - (FIRST_SEGMENT << (segment - 1)))


cdef Inode *index_find(InodeTable *table, const Shard *shard, uint64_t hash, uint32_t mount,
                       uint64_t ino) noexcept nogil:
    cdef uint32_t slot = bucket_at(shard, bucket_number(shard, hash))[0]
    cdef Inode *inode
    while slot != NONE:
        inode = at_slot(table, slot)
        if inode.ino == ino and inode.mount == mount:
            return inode
        slot = inode.hash_next
    return NULL


cdef void index_grow(InodeTable *table, Shard *shard) noexcept nogil:
    """One more bucket, which takes its part of an older one. Without memory for it the buckets get longer instead."""
    cdef uint32_t added = shard.buckets
    cdef uint32_t power = <uint32_t> 1 << (31 - leading_zeros32(added))
    cdef uint32_t segment = 28 - leading_zeros32(added)
    cdef uint32_t *old
    cdef uint32_t *new
    cdef uint32_t slot, following, kept, moved
    cdef Inode *inode
    if segment >= SEGMENTS:
        return
    if shard.segments[segment] == NULL:
        shard.segments[segment] = <uint32_t *> calloc(<size_t> FIRST_SEGMENT << (segment - 1), sizeof(uint32_t))
        if shard.segments[segment] == NULL:
            return
    shard.buckets += 1
    old = bucket_at(shard, added - power)
    new = bucket_at(shard, added)
    slot = old[0]
    kept = NONE
    moved = NONE
    while slot != NONE:
        inode = at_slot(table, slot)
        following = inode.hash_next
        if <uint32_t> key_hash(inode.mount, inode.ino) & (2 * power - 1) == added:
            inode.hash_next = moved
            moved = slot
        else:
            inode.hash_next = kept
            kept = slot
        slot = following
    old[0] = kept
    new[0] = moved


cdef void index_insert(InodeTable *table, Shard *shard, uint64_t hash, Inode *inode) noexcept nogil:
    cdef uint32_t *bucket
    if shard.indexed >= shard.buckets:
        index_grow(table, shard)
    bucket = bucket_at(shard, bucket_number(shard, hash))
    inode.hash_next = bucket[0]
    bucket[0] = inode.slot
    inode.flags |= INODE_INDEXED
    shard.indexed += 1


cdef void index_remove(InodeTable *table, Shard *shard, Inode *inode) noexcept nogil:
    cdef uint32_t *link
    if not inode.flags & INODE_INDEXED:
        return
    link = bucket_at(shard, bucket_number(shard, key_hash(inode.mount, inode.ino)))
    while link[0] != inode.slot:
        link = &at_slot(table, link[0]).hash_next
    link[0] = inode.hash_next
    inode.flags &= <uint8_t> ~INODE_INDEXED
    shard.indexed -= 1
