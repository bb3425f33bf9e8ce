"""The table of open files. A file that is released while another queue still reads it is closed when that is done."""

from libc.stdint cimport uint32_t, uint64_t

from .atomics cimport (
    compare_exchange32, compare_exchange64, fetch_sub64, load_acquire32, load_acquire64, load_pointer, store_pointer,
    store_release32, store_release64)
from .descriptors cimport Descriptors, descriptors_close
from .invariants cimport invariant
from .kept cimport KeptFiles, kept_put
from .linux cimport (
    ENOMEM, MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, aligned_alloc, free, memset,
    mix64, mmap, munmap, sys_close)
from .mutex cimport lock, unlock

cdef enum:
    PINS = 0x7fffffff
    NONE = 0xffffffffU


cdef inline Handle *at_slot(HandleTable *table, uint32_t slot) noexcept nogil:
    return <Handle *> load_pointer(<void **> (table.chunks + (slot >> HANDLE_CHUNK_BITS))) + (slot & (HANDLE_CHUNK - 1))


cdef inline HandleShard *shard_of(HandleTable *table, uint64_t nodeid) noexcept nogil:
    return table.shards + (mix64(nodeid) >> (64 - HANDLE_SHARD_BITS))


cdef int handles_create(HandleTable *table, Descriptors *account, KeptFiles *kept) noexcept nogil:
    """An empty table. 0 or -ENOMEM."""
    cdef uint32_t i
    table.account = account
    table.kept = kept
    table.chunk_count = 0
    table.growth_lock = 0
    table.shards = <HandleShard *> aligned_alloc(sizeof(HandleShard), HANDLE_SHARDS * sizeof(HandleShard))
    table.chunks = <Handle **> mmap(NULL, HANDLE_CHUNKS_MAX * sizeof(Handle *), PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if table.chunks == MAP_FAILED:
        table.chunks = NULL
    if table.shards == NULL or table.chunks == NULL:
        return -ENOMEM
    memset(table.shards, 0, HANDLE_SHARDS * sizeof(HandleShard))
    for i in range(HANDLE_SHARDS):
        table.shards[i].free_first = NONE
    return 0


cdef void handles_destroy(HandleTable *table) noexcept nogil:
    """Closes every file and frees everything. No other thread uses the table any more."""
    cdef uint32_t i
    if table.chunks != NULL:
        handles_close_all(table)
        for i in range(table.chunk_count):
            munmap(table.chunks[i], HANDLE_CHUNK * sizeof(Handle))
        munmap(table.chunks, HANDLE_CHUNKS_MAX * sizeof(Handle *))
    free(table.shards)
    table.shards = NULL
    table.chunks = NULL
    table.chunk_count = 0


cdef bint more_slots(HandleTable *table, HandleShard *shard) noexcept nogil:
    """One more chunk for the shard, which is locked. False: no memory, or no numbers."""
    cdef void *chunk = NULL
    lock(&table.growth_lock)
    if table.chunk_count < HANDLE_CHUNKS_MAX:
        chunk = mmap(NULL, HANDLE_CHUNK * sizeof(Handle), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if chunk == MAP_FAILED:
            chunk = NULL
    if chunk != NULL:
        shard.fresh = table.chunk_count << HANDLE_CHUNK_BITS
        shard.fresh_end = shard.fresh + HANDLE_CHUNK
        store_pointer(<void **> (table.chunks + table.chunk_count), chunk)
        store_release32(&table.chunk_count, table.chunk_count + 1)
    unlock(&table.growth_lock)
    return chunk != NULL


cdef Handle *take_slot(HandleTable *table, HandleShard *shard) noexcept nogil:
    """A free one. NULL: no memory."""
    cdef Handle *handle = NULL
    lock(&shard.lock)
    if shard.free_first != NONE:
        handle = at_slot(table, shard.free_first)
        shard.free_first = handle.next_free
    elif shard.fresh < shard.fresh_end or more_slots(table, shard):
        handle = at_slot(table, shard.fresh)
        handle.slot = shard.fresh
        shard.fresh += 1
    unlock(&shard.lock)
    return handle


cdef void free_slot(HandleShard *shard, Handle *handle) noexcept nogil:
    lock(&shard.lock)
    handle.next_free = shard.free_first
    shard.free_first = handle.slot
    unlock(&shard.lock)


cdef Handle *handle_new(HandleTable *table, int fd, uint64_t nodeid, uint32_t mount, uint32_t flags, bint directory,
                        bint keep, uint64_t *fh) noexcept nogil:
    """A handle for the descriptor, which is the table's from now on. NULL: no memory, and the descriptor is closed.

    It is found once it is published, which has to follow. `keep`: it may stay open for a moment when it is released.
    """
    cdef Handle *handle = take_slot(table, shard_of(table, nodeid))
    cdef uint64_t generation
    if handle == NULL:
        sys_close(fd)
        descriptors_close(table.account)
        return NULL
    # A wrapped generation is harmless here: a handle is only ever found together with the nodeid it was opened for.
    generation = (handle.state >> 32) + 1
    handle.nodeid = nodeid
    handle.mount = mount
    handle.position = 0
    handle.fd = fd
    handle.flags = flags
    handle.directory = directory
    handle.lock = 0
    handle.killed = 0
    handle.locked = 0
    handle.keep = keep
    fh[0] = generation << 32 | handle.slot
    return handle


cdef void handle_publish(Handle *handle, uint64_t fh) noexcept nogil:
    """The guest's from now on, which may guess what it has not been told yet."""
    store_release64(&handle.state, fh >> 32 << 32 | 1)


cdef Handle *handle_acquire(HandleTable *table, uint64_t fh, uint64_t nodeid, bint directory) noexcept nogil:
    """Pins the handle. NULL where the guest has no such handle, or has it for another inode or another kind of file."""
    cdef uint32_t slot = <uint32_t> fh
    cdef Handle *handle
    cdef uint64_t state
    if slot >> HANDLE_CHUNK_BITS >= load_acquire32(&table.chunk_count):
        return NULL
    handle = at_slot(table, slot)
    state = load_acquire64(&handle.state)
    while True:
        if state >> 32 != fh >> 32 or not state & PINS:
            return NULL
        if compare_exchange64(&handle.state, &state, state + 1):
            break
    if handle.nodeid != nodeid or handle.directory != <uint32_t> directory or load_acquire32(&handle.killed):
        handle_release(table, handle)
        return NULL
    return handle


cdef Handle *handle_in(HandleTable *table, uint32_t slot, uint64_t nodeid) noexcept nogil:
    """Pins what is in the slot, if it is an open file of the inode's; else NULL."""
    cdef uint64_t state = load_acquire64(&at_slot(table, slot).state)
    return handle_acquire(table, state >> 32 << 32 | slot, nodeid, False)


cdef Handle *handle_borrow(Handle *handle, int fd, uint64_t nodeid, uint32_t mount, bint directory) noexcept nogil:
    """Makes `handle`, which is in no table, one that is pinned once: for a file that is open for one request."""
    handle.slot = NONE
    handle.nodeid = nodeid
    handle.mount = mount
    handle.position = 0
    handle.fd = fd
    handle.flags = 0
    handle.directory = directory
    handle.lock = 0
    handle.killed = 0
    handle.locked = 0
    handle.keep = 0
    store_release64(&handle.state, 1)
    return handle


cdef void handle_release(HandleTable *table, Handle *handle) noexcept nogil:
    """Gives a pin back. The last one closes the file, or keeps it for the next OPEN."""
    cdef uint64_t nodeid
    cdef bint keep
    cdef int fd
    invariant(load_acquire64(&handle.state) & PINS > 0, "a released handle was pinned")
    if fetch_sub64(&handle.state, 1) & PINS != 1:
        return
    fd = handle.fd
    nodeid = handle.nodeid
    keep = handle.keep
    handle.fd = -1
    if handle.slot != NONE:
        free_slot(shard_of(table, nodeid), handle)
    if not keep or not kept_put(table.kept, nodeid, fd):
        sys_close(fd)
    descriptors_close(table.account)


cdef bint handle_close(HandleTable *table, Handle *handle) noexcept nogil:
    """The guest's RELEASE of a handle that the caller has pinned. False: it had been released before."""
    cdef uint32_t alive = 0
    if not compare_exchange32(&handle.killed, &alive, 1):
        return False
    handle_release(table, handle)
    return True


cdef void handles_close_all(HandleTable *table) noexcept nogil:
    """The end of a session: every handle is released. Those in use are closed by who uses them."""
    cdef uint32_t slot
    cdef Handle *handle
    cdef uint64_t state
    for slot in range(load_acquire32(&table.chunk_count) << HANDLE_CHUNK_BITS):
        handle = at_slot(table, slot)
        state = load_acquire64(&handle.state)
        while state & PINS:
            if compare_exchange64(&handle.state, &state, state + 1):
                handle.keep = 0
                handle_close(table, handle)
                handle_release(table, handle)
                break
