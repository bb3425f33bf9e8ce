"""The table of open files. A file that is released while another queue still reads it is closed when that is done."""

from libc.stdint cimport uint32_t, uint64_t

from .atomics cimport (
    compare_exchange32, compare_exchange64, fetch_sub64, load_acquire32, load_acquire64, load_pointer, store_pointer,
    store_release32, store_release64)
from .descriptors cimport Descriptors, descriptors_close
from .invariants cimport invariant
from .kept cimport KeptFiles, kept_put
from .linux cimport (
    ENOMEM, MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap, sys_close)
from .mutex cimport lock, unlock

cdef enum:
    PINS = 0x7fffffff
    NONE = 0xffffffffU


cdef inline Handle *at_slot(HandleTable *table, uint32_t slot) noexcept nogil:
    return <Handle *> load_pointer(<void **> (table.chunks + (slot >> HANDLE_CHUNK_BITS))) + (slot & (HANDLE_CHUNK - 1))


cdef int handles_create(HandleTable *table, Descriptors *account, KeptFiles *kept) noexcept nogil:
    table.account = account
    table.kept = kept
    table.free_first = NONE
    table.fresh = 0
    table.chunk_count = 0
    table.lock = 0
    table.chunks = <Handle **> mmap(NULL, HANDLE_CHUNKS_MAX * sizeof(Handle *), PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if table.chunks == MAP_FAILED:
        table.chunks = NULL
        return -ENOMEM
    return 0


cdef void handles_destroy(HandleTable *table) noexcept nogil:
    """Closes every file and frees everything. No other thread uses the table any more."""
    cdef uint32_t i
    if table.chunks == NULL:
        return
    handles_close_all(table)
    for i in range(table.chunk_count):
        munmap(table.chunks[i], HANDLE_CHUNK * sizeof(Handle))
    munmap(table.chunks, HANDLE_CHUNKS_MAX * sizeof(Handle *))
    table.chunks = NULL
    table.chunk_count = 0


cdef Handle *take_slot(HandleTable *table) noexcept nogil:
    cdef Handle *chunk
    cdef Handle *handle
    cdef uint32_t slot
    if table.free_first != NONE:
        handle = at_slot(table, table.free_first)
        table.free_first = handle.next_free
        return handle
    slot = table.fresh
    if slot >> HANDLE_CHUNK_BITS == table.chunk_count:
        if table.chunk_count == HANDLE_CHUNKS_MAX:
            return NULL
        chunk = <Handle *> mmap(NULL, HANDLE_CHUNK * sizeof(Handle), PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if chunk == MAP_FAILED:
            return NULL
        store_pointer(<void **> (table.chunks + table.chunk_count), chunk)
        store_release32(&table.chunk_count, table.chunk_count + 1)
    table.fresh += 1
    handle = at_slot(table, slot)
    handle.slot = slot
    return handle


cdef int handle_add(HandleTable *table, int fd, uint64_t nodeid, uint32_t mount, uint32_t flags, bint directory,
                    bint keep, uint64_t *fh) noexcept nogil:
    """A handle for the descriptor, which is the table's from now on. 0 or -ENOMEM, which closes it.

    `keep`: it may stay open for a moment when it is released.
    """
    cdef Handle *handle
    cdef uint64_t generation
    lock(&table.lock)
    handle = take_slot(table)
    unlock(&table.lock)
    if handle == NULL:
        sys_close(fd)
        descriptors_close(table.account)
        return -ENOMEM
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
    store_release64(&handle.state, generation << 32 | 1)
    return 0


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
        lock(&table.lock)
        handle.next_free = table.free_first
        table.free_first = handle.slot
        unlock(&table.lock)
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
