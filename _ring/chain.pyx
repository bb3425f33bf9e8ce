"""Walking a descriptor chain: every descriptor is read once, every address is translated and checked once."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from .atomics cimport (
    le64, load_acquire32, load_pointer, load_relaxed64, prefetch, prefetch_to_write, store_pointer,
    store_release32)
from .fuse_abi cimport fuse_out_header
from .invariants cimport invariant
from .linux cimport free, iovec, malloc, memcpy
from .memory cimport MemoryMap, Region, map_find, map_guest
from .virtio_abi cimport VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, virtio_desc
from .virtqueue cimport PLACES, Virtqueue, announced

cdef enum:
    DESC_SIZE = sizeof(virtio_desc)
    LARGEST_PAGE = 65536     # of a guest: a descriptor has one on average, at most
    LINE = 4                 # descriptors in a line of the cache
    FETCHED = 16 * LINE      # of a table, ahead of the one that is read
    SMALL_REPLY = 256        # bytes, behind the header: attributes and the like, and no data
    KEPT = 8 * CHAIN_INLINE  # iovecs: more than the chain of a Linux guest has


cdef void chain_init(Chain *chain) noexcept nogil:
    chain.iov = chain.iov_inline
    chain.capacity = CHAIN_INLINE
    chain.regions = chain.regions_inline
    chain.regions_capacity = CHAIN_REGIONS
    chain.regions_used = 0


cdef void chain_destroy(Chain *chain) noexcept nogil:
    cdef Region **regions = chain.regions
    cdef Region **older
    if chain.iov != chain.iov_inline:
        free(chain.iov)
    while regions != chain.regions_inline:
        older = <Region **> (regions - 1)[0]
        free(regions - 1)
        regions = older


cdef void chain_shrink(Chain *chain) noexcept nogil:
    """Gives memory back that hardly any chain takes. It has been let go."""
    if chain.capacity > KEPT:
        free(chain.iov)
        chain.iov = chain.iov_inline
        chain.capacity = CHAIN_INLINE


cdef bint use_region(Chain *chain, Region *region) noexcept nogil:
    cdef uint32_t i
    cdef Region **grown
    for i in range(chain.regions_used):
        if chain.regions[i] == region:
            return True
    if chain.regions_used == chain.regions_capacity:
        # The control plane may be reading the list: the old one is kept, behind the new one's first entry.
        grown = <Region **> malloc((2 * chain.regions_capacity + 1) * sizeof(Region *))
        if grown == NULL:
            return False
        grown[0] = <Region *> chain.regions
        memcpy(grown + 1, chain.regions, chain.regions_used * sizeof(Region *))
        store_pointer(<void **> &chain.regions, grown + 1)
        chain.regions_capacity *= 2
    chain.regions[chain.regions_used] = region
    store_release32(&chain.regions_used, chain.regions_used + 1)
    return True


cdef bint chain_uses(const Chain *chain, const Region *region) noexcept nogil:
    """Whether the chain keeps the region mapped. Any thread, while the chain changes."""
    cdef uint32_t count = load_acquire32(&chain.regions_used)
    cdef Region **regions = <Region **> load_pointer(<void **> &chain.regions)
    cdef uint32_t i
    for i in range(count):
        if regions[i] == region:
            return True
    return False


cdef bint grow(Chain *chain) noexcept nogil:
    cdef iovec *grown = <iovec *> malloc(2 * chain.capacity * sizeof(iovec))
    if grown == NULL:
        return False
    memcpy(grown, chain.iov, chain.write_end * sizeof(iovec))
    if chain.iov != chain.iov_inline:
        free(chain.iov)
    chain.iov = grown
    chain.capacity *= 2
    return True


cdef int add_piece(Chain *chain, const MemoryMap *map, Region **last, uint64_t address, uint64_t size,
                   bint mergeable, uint32_t most) noexcept nogil:
    """Adds a buffer, which may go over from one region into the next, unless the chain has so many pieces then."""
    cdef Region *region
    cdef uint64_t offset, here
    cdef uint8_t *host
    cdef iovec *piece
    while size:
        region = last[0]
        # Neighbours mostly lie in the same region; unsigned, so an address below it is far above.
        if region == NULL or address - region.guest_addr >= region.size:
            region = map_find(map, address)
            if region == NULL:
                return CHAIN_OUT_OF_RANGE
            if not use_region(chain, region):
                return CHAIN_NO_MEMORY
            last[0] = region
        offset = address - region.guest_addr
        here = region.size - offset
        if here > size:
            here = size
        host = region.host + offset
        piece = chain.iov + chain.write_end - 1
        if mergeable and <uint8_t *> piece.iov_base + piece.iov_len == host:
            piece.iov_len += here
        else:
            if chain.write_end >= most:
                return CHAIN_LOOP_OR_TOO_LONG
            if chain.write_end == chain.capacity and not grow(chain):
                return CHAIN_NO_MEMORY
            piece = chain.iov + chain.write_end
            piece.iov_base = host
            piece.iov_len = here
            chain.write_end += 1
            mergeable = True
        address += here
        size -= here
    return CHAIN_OK


cdef inline void fetch_table(const virtio_desc *table, uint32_t entries) noexcept nogil:
    """Has the beginning of a table fetched from the guest's CPU: each descriptor says which is the next one, so that
    the lines of a long table would else be waited for one after the other.
    """
    cdef uint32_t index = 0
    if entries > FETCHED:
        entries = FETCHED
    while index < entries:
        prefetch(table + index)
        index += LINE
    prefetch(table + entries - 1)   # it need not begin where a line does


cdef int chain_collect(Chain *chain, const Virtqueue *queue, const MemoryMap *map,
                       const virtio_desc *first) noexcept nogil:
    """Turns the chain that `first` is the beginning of into iovecs. CHAIN_OK, or a ChainError and an empty chain.

    Virtio 1.3, 2.7.4 to 2.7.7: direct descriptors, of which the last may be an indirect table; no nesting; readable
    before writable. Descriptors are guest memory: each of its two words is read once.
    """
    cdef uint64_t word
    cdef const virtio_desc *table = queue.desc
    cdef uint32_t entries = queue.size
    cdef const virtio_desc *desc = first
    cdef uint32_t index = 0     # of no account for the first
    cdef uint32_t limit = queue.size if queue.size > CHAIN_LIMIT else CHAIN_LIMIT
    cdef uint32_t most = 2 * limit      # pieces
    cdef uint64_t most_bytes = <uint64_t> limit * LARGEST_PAGE
    cdef uint32_t seen = 0
    cdef uint64_t total = 0
    cdef uint64_t address
    cdef uint32_t size
    cdef uint16_t flags
    cdef bint indirect = False
    cdef bint writing = False
    cdef Region *last = NULL
    cdef int error
    empty(chain)
    while True:
        address = le64(load_relaxed64(<const uint64_t *> desc))
        word = le64(load_relaxed64(<const uint64_t *> desc + 1))
        size = <uint32_t> word
        flags = <uint16_t> (word >> 32)
        if flags & VRING_DESC_F_INDIRECT:
            if indirect or not queue.indirect or flags & VRING_DESC_F_NEXT or size == 0 or size % DESC_SIZE:
                return abandon(chain, CHAIN_BAD_INDIRECT)
            # A table over two regions has no single host address; no driver makes one, as it is one allocation.
            table = <const virtio_desc *> map_guest(map, address, size)
            if table == NULL:
                return abandon(chain, CHAIN_OUT_OF_RANGE)
            entries = size / DESC_SIZE
            desc = table
            index = 0
            indirect = True
            fetch_table(table, entries)
            continue
        if index % LINE == 0 and indirect and index + FETCHED < entries:
            prefetch(table + index + FETCHED)
        seen += 1
        if seen > limit:
            return abandon(chain, CHAIN_LOOP_OR_TOO_LONG)
        total += size
        if total > most_bytes:
            return abandon(chain, CHAIN_TOO_LARGE)
        if flags & VRING_DESC_F_WRITE:
            if not writing:
                writing = True
                chain.read_end = chain.write_end
            error = add_piece(chain, map, &last, address, size, chain.write_end > chain.read_end, most)
            chain.writable_bytes += size
        elif writing:
            error = CHAIN_READ_AFTER_WRITE
        else:
            error = add_piece(chain, map, &last, address, size, chain.write_end > 0, most)
            chain.readable_bytes += size
        if error:
            return abandon(chain, error)
        if not flags & VRING_DESC_F_NEXT:
            break
        index = <uint32_t> (word >> 48)
        if index >= entries:
            return abandon(chain, CHAIN_BAD_NEXT)
        desc = table + index
    if not writing:
        chain.read_end = chain.write_end
    chain.write_first = chain.read_end
    chain.table = table
    invariant(chain.write_end <= chain.capacity, "a chain has no more pieces than there is room for")
    set_header_apart(chain)
    return CHAIN_OK


cdef inline const virtio_desc *behind(const virtio_desc *desc, const MemoryMap *map) noexcept nogil:
    """Where the descriptor leads: a table, or the beginning of a request. NULL: nowhere."""
    return <const virtio_desc *> map_guest(map, le64(load_relaxed64(<const uint64_t *> desc)), DESC_SIZE)


cdef inline const virtio_desc *fetch_behind(const virtio_desc *desc, const MemoryMap *map) noexcept nogil:
    """Has a table, or the beginning of a request, fetched. The table, or NULL."""
    cdef uint64_t word = le64(load_relaxed64(<const uint64_t *> desc + 1))
    cdef const virtio_desc *there = behind(desc, map)
    if there == NULL or not word >> 32 & VRING_DESC_F_INDIRECT or <uint32_t> word < DESC_SIZE:
        prefetch(there)
        return NULL
    fetch_table(there, <uint32_t> word / DESC_SIZE)
    return there


cdef void chain_look_ahead(const Virtqueue *queue, const MemoryMap *map) noexcept nogil:
    """Has what the next chains' walks will read fetched from the guest's CPU: the table that the second's leads to, and
    the request that is first in the next one's.

    Each of these would else be a cache miss of its own, one waiting for the other. What is read here is used for
    nothing else.
    """
    cdef uint16_t known = <uint16_t> (queue.read_avail - queue.next_avail)
    cdef const virtio_desc *table
    if known > 1:
        fetch_behind(&announced(queue, 1).first, map)
    if known > 0:
        table = fetch_behind(&announced(queue, 0).first, map)
        if table != NULL:
            prefetch(behind(table, map))


cdef void chain_remember(Virtqueue *queue, const Chain *chain, uint16_t head) noexcept nogil:
    """Notes where the chain was found, behind which there is none yet."""
    queue.places[0] = queue.desc + head
    queue.places[1] = chain.table
    queue.places[2] = chain.iov[0].iov_base


cdef void chain_look_back(const Virtqueue *queue) noexcept nogil:
    """Has the places of the last chain fetched from the guest's CPU, all at once: a driver that sends one request after
    the other mostly takes for the next what has just become free. The memory may be gone by now; a hint is no access.
    """
    cdef int i
    for i in range(PLACES):
        prefetch(queue.places[i])


cdef void empty(Chain *chain) noexcept nogil:
    chain.read_first = 0
    chain.read_end = 0
    chain.write_first = 0
    chain.write_end = 0
    chain.header_pieces = 0
    chain.readable_bytes = 0
    chain.writable_bytes = 0


cdef int abandon(Chain *chain, int error) noexcept nogil:
    empty(chain)
    chain_let_go(chain)
    return error


cdef inline void fetch_reply(const Chain *chain) noexcept nogil:
    """Has the place of a small reply, which the guest's CPU has read or written last, ready to be written."""
    cdef const iovec *piece = chain.iov + chain.write_first
    prefetch_to_write(chain.header[0].iov_base)
    if chain.write_first < chain.write_end and chain.writable_bytes <= SMALL_REPLY:
        prefetch_to_write(piece.iov_base)
        prefetch_to_write(<const uint8_t *> piece.iov_base + piece.iov_len - 1)


cdef void set_header_apart(Chain *chain) noexcept nogil:
    """Takes the first 16 writable bytes off the iovecs, so that data can go straight into the rest."""
    cdef uint64_t left = CHAIN_HEADER
    cdef iovec *piece = chain.iov + chain.write_first
    if chain.writable_bytes < CHAIN_HEADER:
        return
    while left:
        chain.header[chain.header_pieces] = piece[0]
        chain.header_pieces += 1
        if piece.iov_len > left:
            chain.header[chain.header_pieces - 1].iov_len = left
            piece.iov_base = <uint8_t *> piece.iov_base + left
            piece.iov_len -= left
            break
        left -= piece.iov_len
        piece += 1
        chain.write_first += 1
    chain.writable_bytes -= CHAIN_HEADER
    fetch_reply(chain)


cdef void chain_let_go(Chain *chain) noexcept nogil:
    """Nothing of this chain's memory is used any more."""
    # Release: who sees no regions here may unmap them, and all our accesses lie before.
    store_release32(&chain.regions_used, 0)


cdef uint64_t chain_take(Chain *chain, void *data, uint64_t size) noexcept nogil:
    """Copies the next bytes of the readable part out and takes them off it. Returns how many there were.

    What is copied is read once and never again; what follows stays for pwritev.
    """
    cdef uint64_t done = 0
    cdef uint64_t here
    cdef iovec *piece = chain.iov + chain.read_first
    cdef iovec *end = chain.iov + chain.read_end
    while done < size and piece < end:
        here = piece.iov_len
        if here > size - done:
            here = size - done
        memcpy(<uint8_t *> data + done, piece.iov_base, here)
        done += here
        if here == piece.iov_len:
            piece += 1
            chain.read_first += 1
        else:
            piece.iov_base = <uint8_t *> piece.iov_base + here
            piece.iov_len -= here
    chain.readable_bytes -= done
    return done


cdef void chain_put_header(const Chain *chain, uint32_t length, int error, uint64_t unique) noexcept nogil:
    """Writes a reply's header. There is room for it: header_pieces says so."""
    cdef fuse_out_header header
    cdef const uint8_t *source = <const uint8_t *> &header
    cdef uint8_t *there = <uint8_t *> chain.header[0].iov_base
    cdef uint32_t i
    if chain.header_pieces == 1:
        # Field by field: what was just written in parts and is read as a whole has to reach the cache first, behind all
        # of the reply.
        memcpy(there, &length, sizeof(length))
        memcpy(there + sizeof(length), &error, sizeof(error))
        memcpy(there + sizeof(length) + sizeof(error), &unique, sizeof(unique))
        return
    header.len = length
    header.error = error
    header.unique = unique
    for i in range(chain.header_pieces):
        memcpy(chain.header[i].iov_base, source, chain.header[i].iov_len)
        source += chain.header[i].iov_len


cdef uint64_t chain_put(const Chain *chain, uint64_t offset, const void *data, uint64_t size) noexcept nogil:
    """Copies the data to `offset` bytes behind the reply's header. Returns how many there was room for."""
    cdef uint64_t done = 0
    cdef uint64_t here
    cdef const iovec *piece = chain.iov + chain.write_first
    cdef const iovec *end = chain.iov + chain.write_end
    while done < size and piece < end:
        if offset >= piece.iov_len:
            offset -= piece.iov_len
        else:
            here = piece.iov_len - offset
            if here > size - done:
                here = size - done
            memcpy(<uint8_t *> piece.iov_base + offset, <const uint8_t *> data + done, here)
            done += here
            offset = 0
        piece += 1
    return done


cdef uint32_t trim(iovec *iov, uint32_t count, uint64_t size) noexcept nogil:
    """How many of the iovecs hold `size` bytes; the last of these is cut to fit."""
    cdef uint32_t i
    for i in range(count):
        if iov[i].iov_len >= size:
            iov[i].iov_len = size
            return i + 1 if size else i
        size -= iov[i].iov_len
    return count


cdef void chain_trim_readable(Chain *chain, uint64_t size) noexcept nogil:
    """Leaves no more than `size` bytes to read."""
    chain.read_end = chain.read_first + trim(chain.iov + chain.read_first, chain.read_end - chain.read_first, size)
    if chain.readable_bytes > size:
        chain.readable_bytes = size


cdef void chain_trim_writable(Chain *chain, uint64_t size) noexcept nogil:
    """Leaves no more than `size` bytes to write, behind the header."""
    chain.write_end = chain.write_first + trim(chain.iov + chain.write_first, chain.write_end - chain.write_first, size)
    if chain.writable_bytes > size:
        chain.writable_bytes = size


cdef uint32_t iovec_advance(iovec *iov, uint32_t count, uint64_t size) noexcept nogil:
    """Takes `size` bytes off the front. Returns how many iovecs are used up; the next one begins later."""
    cdef uint32_t i
    for i in range(count):
        if iov[i].iov_len > size:
            iov[i].iov_base = <uint8_t *> iov[i].iov_base + size
            iov[i].iov_len -= size
            return i
        size -= iov[i].iov_len
    return count
