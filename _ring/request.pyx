"""A request's arguments, by a cursor that checks the bounds, and its reply, by the only functions that write one."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from .chain cimport chain_destroy, chain_init, chain_put, chain_put_header, chain_take
from .fuse_abi cimport fuse_in_header, fuse_out_header
from .linux cimport EINVAL, EMFILE, ENFILE, free, malloc, memchr, memset

cdef enum:
    IN_HEADER = sizeof(fuse_in_header)
    OUT_HEADER = sizeof(fuse_out_header)


cdef Request *request_create() noexcept nogil:
    """A request with room for every argument; its memory is touched as it is used. NULL: no memory."""
    cdef Request *request = <Request *> malloc(sizeof(Request))
    if request != NULL:
        memset(request, 0, sizeof(Request) - ARGS_MAX)
        chain_init(&request.chain)
    return request


cdef void request_destroy(Request *request) noexcept nogil:
    chain_destroy(&request.chain)
    free(request)


cdef bint request_open(Request *request) noexcept nogil:
    """Copies the header out. False where there is none. The length that it claims is cut to what is there."""
    request.written = 0
    request.done = 0
    request.args_size = 0
    request.args_at = 0
    return chain_take(&request.chain, &request.header, IN_HEADER) == IN_HEADER


cdef const void *next_bytes(Request *request, uint32_t size) noexcept nogil:
    """The next `size` bytes of the arguments (not aligned behind a name). NULL where there are fewer."""
    cdef uint32_t at = request.args_at
    if size > request.args_size - at:
        return NULL
    request.args_at = at + size
    return request.args + at


cdef const char *next_name(Request *request) noexcept nogil:
    """The next string of the arguments, which ends in a NUL. NULL where none ends."""
    cdef uint32_t at = request.args_at
    cdef const uint8_t *end = <const uint8_t *> memchr(request.args + at, 0, request.args_size - at)
    if end == NULL:
        return NULL
    request.args_at = <uint32_t> (end + 1 - request.args)
    return <const char *> request.args + at


cdef int put_header(Request *request, uint32_t size, int error) noexcept nogil:
    if not request.chain.header_pieces:
        return 0  # it asked for a reply and gave no room for one: the chain goes back with nothing written
    chain_put_header(&request.chain, OUT_HEADER + size, error, request.header.unique)
    request.written = OUT_HEADER + size
    return 0


cdef int reply_error(Request *request, int error) noexcept nogil:
    """A reply with an error, which is negative, and no data."""
    if error == -EMFILE:
        error = -ENFILE   # which process has too many files open is not the guest's business
    return put_header(request, 0, error)


cdef int reply(Request *request, const void *data, uint32_t size) noexcept nogil:
    """A reply with a copy of the data. 0, or -EINVAL where the guest gave too little room."""
    if size and chain_put(&request.chain, 0, data, size) != size:
        return -EINVAL
    return put_header(request, size, 0)


cdef int reply_in_place(Request *request, uint64_t size) noexcept nogil:
    """A reply whose `size` bytes of data are already where they belong."""
    return put_header(request, <uint32_t> size, 0)
