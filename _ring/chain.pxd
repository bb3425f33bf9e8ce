# A descriptor chain as host memory: iovecs of what the device may read, then of what it may write.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from .linux cimport iovec
from .memory cimport MemoryMap, Region
from .virtio_abi cimport virtio_desc
from .virtqueue cimport Virtqueue

cdef enum:
    CHAIN_INLINE = 272        # iovecs that every chain has room for: 1 MiB of scattered pages and the headers
    CHAIN_REGIONS = 6
    CHAIN_HEADER = 16         # bytes of a reply's header, and so the most pieces that it can be in
    CHAIN_LIMIT = 1056        # descriptors of one chain, unless its ring has more


cdef enum ChainError:
    CHAIN_OK = 0
    CHAIN_LOOP_OR_TOO_LONG = 1
    CHAIN_OUT_OF_RANGE = 2      # an address in no region
    CHAIN_BAD_INDIRECT = 3      # table of odd length, nested, or not negotiated
    CHAIN_BAD_NEXT = 4          # a next beyond the table
    CHAIN_READ_AFTER_WRITE = 5  # a device-readable descriptor after a device-writable one
    CHAIN_TOO_LARGE = 6         # more than 64 KiB for each descriptor that there may be
    CHAIN_NO_MEMORY = 7


# iov[read_first:read_end] is left to read, iov[write_first:write_end] to write; the reply's header has its own place.
cdef struct Chain:
    iovec *iov
    uint32_t capacity
    uint32_t read_first
    uint32_t read_end
    uint32_t write_first
    uint32_t write_end
    uint32_t header_pieces   # 0: no room for a header
    uint32_t regions_used
    uint32_t regions_capacity
    const virtio_desc *table    # that it was last read from
    uint64_t readable_bytes
    uint64_t writable_bytes  # after the header
    Region **regions         # that the iovecs lie in: they stay mapped until the chain is let go
    iovec header[CHAIN_HEADER]
    iovec iov_inline[CHAIN_INLINE]
    Region *regions_inline[CHAIN_REGIONS]


cdef void chain_init(Chain *chain) noexcept nogil
cdef void chain_destroy(Chain *chain) noexcept nogil
cdef void chain_shrink(Chain *chain) noexcept nogil
cdef int chain_collect(Chain *chain, const Virtqueue *queue, const MemoryMap *map,
                       const virtio_desc *first) noexcept nogil
cdef void chain_look_ahead(const Virtqueue *queue, const MemoryMap *map) noexcept nogil
cdef void chain_remember(Virtqueue *queue, const Chain *chain, uint16_t head) noexcept nogil
cdef void chain_look_back(const Virtqueue *queue) noexcept nogil
cdef void chain_let_go(Chain *chain) noexcept nogil
cdef bint chain_uses(const Chain *chain, const Region *region) noexcept nogil
cdef uint64_t chain_take(Chain *chain, void *data, uint64_t size) noexcept nogil
cdef void chain_put_header(const Chain *chain, uint32_t length, int error, uint64_t unique) noexcept nogil
cdef uint64_t chain_put(const Chain *chain, uint64_t offset, const void *data, uint64_t size) noexcept nogil
cdef void chain_trim_readable(Chain *chain, uint64_t size) noexcept nogil
cdef void chain_trim_writable(Chain *chain, uint64_t size) noexcept nogil
cdef uint32_t iovec_advance(iovec *iov, uint32_t count, uint64_t size) noexcept nogil
