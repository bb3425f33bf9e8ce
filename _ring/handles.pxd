# The files and directories that the guest has open: fh -> record by array access, as nodeids are.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from .descriptors cimport Descriptors
from .kept cimport KeptFiles

cdef enum:
    HANDLE_CHUNK_BITS = 9
    HANDLE_CHUNK = 1 << HANDLE_CHUNK_BITS
    HANDLE_CHUNKS_MAX = 1 << 20
    HANDLE_SHARD_BITS = 4
    HANDLE_SHARDS = 1 << HANDLE_SHARD_BITS


cdef struct Handle:
    uint64_t state       # generation << 32 | pins: one until RELEASE, one for each request that uses it now
    uint64_t nodeid
    int64_t position     # of a directory: the cookie that its descriptor stands at
    uint32_t slot
    uint32_t next_free
    int32_t fd
    uint32_t flags       # as it was opened: O_ACCMODE, O_DIRECT, ...
    uint32_t directory
    uint32_t lock        # of a directory's position
    uint32_t killed      # a RELEASE was here
    uint32_t locked      # POSIX locks were asked for through it
    uint32_t keep        # for the next OPEN of the file
    uint32_t mount       # of its inode


# Slots for the files of one part of all nodeids, so that those who open different files do not wait for each other. It
# takes whole chunks, and has a cache line to itself.
cdef struct HandleShard:
    uint32_t lock
    uint32_t free_first
    uint32_t fresh       # the next one of its last chunk that was never used, and where that chunk ends
    uint32_t fresh_end
    uint8_t padding[48]


cdef struct HandleTable:
    Handle **chunks
    uint32_t chunk_count
    uint32_t growth_lock
    HandleShard *shards
    Descriptors *account
    KeptFiles *kept


cdef int handles_create(HandleTable *table, Descriptors *account, KeptFiles *kept) noexcept nogil
cdef void handles_destroy(HandleTable *table) noexcept nogil
cdef Handle *handle_new(HandleTable *table, int fd, uint64_t nodeid, uint32_t mount, uint32_t flags, bint directory,
                        bint keep, uint64_t *fh) noexcept nogil
cdef void handle_publish(Handle *handle, uint64_t fh) noexcept nogil
cdef Handle *handle_acquire(HandleTable *table, uint64_t fh, uint64_t nodeid, bint directory) noexcept nogil
cdef Handle *handle_in(HandleTable *table, uint32_t slot, uint64_t nodeid) noexcept nogil
cdef Handle *handle_borrow(Handle *handle, int fd, uint64_t nodeid, uint32_t mount, bint directory) noexcept nogil
cdef void handle_release(HandleTable *table, Handle *handle) noexcept nogil
cdef bint handle_close(HandleTable *table, Handle *handle) noexcept nogil
cdef void handles_close_all(HandleTable *table) noexcept nogil
