# The inodes that the guest knows: nodeid -> record by array access, (mount, inode number) -> record by a hash index.
#
# A nodeid is a slot and its generation; the root is 1. Records never move and hold no pointers. The state word counts
# pins: one for all of the guest's references together, one for each request that uses the record now.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from .atomics cimport load_acquire32, load_pointer, load_relaxed64, prefetch_to_write, store_release32
from .descriptors cimport Descriptors
from .handles cimport HandleTable
from .kept cimport KeptFiles
from .linux cimport mix64
from .names cimport NameArena

cdef enum:
    EVICTING = 0x40000000       # in the state word: its descriptor is being closed
    PINS = 0x3fffffff
    NONE = 0                    # slot 0 is never used: it ends every list
    ROOT_SLOT = 1
    CHUNK_BITS = 10
    CHUNK_INODES = 1 << CHUNK_BITS
    CHUNKS_MAX = 1 << (32 - CHUNK_BITS)
    SHARD_BITS = 6
    SHARDS = 1 << SHARD_BITS
    SEGMENTS = 27               # of a shard's buckets, each twice as large as the one before
    FIRST_SEGMENT = 16
    HANDLE_MAX = 24             # bytes of a file handle that fit into the record
    MOUNTS_MAX = 1 << 16
    SLOW_CLASSES = 8
    MUCH = 1 << 20              # bytes of a file that take long to be freed


cdef enum InodeFlags:
    INODE_INDEXED = 1
    INODE_CACHED = 2            # in the list of those with a descriptor
    INODE_KEEP = 4              # its descriptor cannot be closed: nothing could find the file again
    INODE_ROOT = 8
    INODE_BY_CTIME = 16         # the file system knows no birth times: `born` is the last change
    INODE_REMEMBERED = 32       # the guest has forgotten it, and may come back to it by a file handle
    INODE_BY_FILE = 64          # it has no descriptor, and is reached by the open file in slot `lru_next`
    INODE_NEW = 128             # it is about to be, but the guest has not been given the open file yet


# Of descriptors that the guest did not use lately.
cdef enum IdleClosing:
    IDLE_CLOSING_NONE
    IDLE_CLOSING_DUE
    IDLE_CLOSING_RUNS


cdef enum MountHow:
    MOUNT_UNKNOWN
    MOUNT_HANDLES               # a closed descriptor is opened again by file handle
    MOUNT_NAMES                 # by parent and name


cdef struct Inode:
    # The first 64 bytes are what most requests need: they lie on two lines of the cache at most.
    uint64_t state              # generation << 32 | EVICTING | pins
    uint64_t lookups            # the guest's references; under the shard's lock, as all that follows and is not atomic
    uint64_t ino
    uint32_t mount              # index into the table of mounts
    uint32_t slot               # its own number
    uint32_t hash_next          # in its bucket, in the free list, or among those to be closed
    int32_t fd                  # O_PATH; -1 while evicted, or reached by an open file
    uint32_t lru_previous
    uint32_t lru_next           # or the slot of the open file that it is reached by
    uint32_t parent             # where it was last seen, kept where there are no handles: a slot that is pinned for it
    uint32_t name               # in that directory
    uint32_t children           # pins of its children
    uint16_t kind               # S_IFMT bits of its mode
    uint8_t flags
    uint8_t recent              # used since the eviction looked last
    uint64_t freshness          # what an open compares to keep the guest's page cache
    int64_t born_sec            # birth time, which tells it from a later file of the same number
    uint32_t born_nsec
    uint32_t opens              # files the guest has open
    uint8_t handle_type
    uint8_t handle_size
    uint8_t handle[HANDLE_MAX]


cdef struct Shard:
    uint32_t lock
    uint32_t indexed            # inodes in the index
    uint32_t buckets            # of the index, grown one by one (linear hashing)
    uint32_t room_first         # chunks with free slots, by number + 1
    uint32_t room_last
    uint32_t lru_first          # most recent
    uint32_t lru_last
    uint32_t *segments[SEGMENTS]
    uint64_t apart[4]           # shards are locked by different threads


cdef struct Chunk:
    Inode *records
    uint32_t next               # in its shard's list of those with free slots
    uint32_t previous
    uint32_t free_first         # slots that were used before
    uint32_t fresh              # slots from here on never were, since the memory was last given back
    uint32_t used
    uint32_t full               # it is in no list
    uint64_t generation         # that unused slots go on from
    uint64_t highest


# What is known of a class of operations on a mount: see slowness.pyx.
cdef struct Slowness:
    uint32_t slow               # it is the pool's
    uint32_t quick              # in a row, since then
    uint32_t flowing            # in a row, that were quick or done soon after another
    uint32_t relapses           # it was slow again soon after it had been taken for quick
    uint64_t slow_at_us         # when one was slow last
    uint64_t done_at_us         # when the pool was last done with one
    uint64_t forgiven_at_us


cdef struct Mount:
    uint64_t device
    uint64_t id
    int32_t fd                  # by which handles are opened; -1: none yet
    int32_t loose               # a descriptor that is yet to be closed; -1: none
    uint32_t inodes             # records of files on it, and some to be: while there are any the descriptor stays
    uint32_t how                # a MountHow
    uint32_t no_nowait          # RWF_NOWAIT is not supported
    uint32_t owner              # whose file system it is: see file_system_owner
    uint32_t born_whole         # a new file's times are those of its birth: see file_system_born_whole
    uint32_t evicting           # somebody is at one of its inodes, and may hang
    Slowness slowness[SLOW_CLASSES]


cdef struct InodeTable:
    Chunk *chunks
    uint32_t chunk_count
    uint32_t growth_lock
    Shard *shards
    Mount *mounts
    uint32_t mount_count
    uint32_t mount_lock
    uint32_t tree_lock          # of parents and names
    uint32_t to_close           # slots whose descriptor is yet to be closed, linked by hash_next
    uint32_t to_close_count
    uint64_t removed_at         # in ticks: when the guest has removed something last
    uint32_t loose_mounts       # that have such a descriptor
    uint32_t close_ticks        # that closing one usually takes
    uint32_t closing            # threads that are at it
    uint32_t idle_closing       # an IdleClosing
    uint32_t known              # inodes that the guest knows, the root not counted
    uint32_t remembered         # inodes that it has forgotten and may come back to
    uint32_t no_handles         # file handles are not to be used
    uint32_t remembers          # what the guest forgets is kept, for its file handles
    uint32_t slow_classes       # of all mounts
    NameArena names
    uint32_t next_victim        # shard in which eviction looks next
    int root_fd
    uint64_t root_ino
    int proc_fd                 # /proc/self/fd
    uint64_t ticks_per_us
    Descriptors *account
    HandleTable *handles
    KeptFiles *kept


cdef inline Inode *at_slot(InodeTable *table, uint32_t slot) noexcept nogil:
    return <Inode *> load_pointer(<void **> &table.chunks[slot >> CHUNK_BITS].records) + (slot & (CHUNK_INODES - 1))


cdef inline void fetch_slot(InodeTable *table, uint32_t slot) noexcept nogil:
    """A hint that the record, if there is one, is to be used soon."""
    cdef Inode *inode
    if slot != NONE and slot >> CHUNK_BITS < load_acquire32(&table.chunk_count):
        inode = at_slot(table, slot)
        prefetch_to_write(inode)
        prefetch_to_write(&inode.flags)     # the last byte that matters, maybe on a line of its own


cdef inline uint64_t key_hash(uint32_t mount, uint64_t ino) noexcept nogil:
    return mix64(ino + (<uint64_t> mount << 48))


cdef inline Shard *shard_of(InodeTable *table, uint64_t hash) noexcept nogil:
    return table.shards + (hash >> (64 - SHARD_BITS))


cdef inline uint64_t inode_nodeid(const Inode *inode) noexcept nogil:
    return load_relaxed64(&inode.state) >> 32 << 32 | inode.slot


cdef inline void store_fd(Inode *inode, int fd) noexcept nogil:
    store_release32(<uint32_t *> &inode.fd, <uint32_t> fd)


cdef inline bint is_guests(const Inode *inode) noexcept nogil:
    """Whether one of the pins is the guest's. The shard is locked."""
    return inode.lookups != 0 or (inode.flags & INODE_REMEMBERED) != 0
