# One FUSE request: its chain, its header and arguments (copied once), and its reply.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from .chain cimport Chain
from .fuse_abi cimport fuse_in_header
from .handles cimport Handle
from .lock_owners cimport LockOwner, LockWait
from .virtqueue cimport Virtqueue

cdef enum:
    ARGS_MAX = 65536 + 4096 + 512   # the largest xattr with its name; two names; a target

# What a handler returns besides 0 (replied) and a negative errno.
cdef enum:
    WOULD_SLEEP = 1     # it cannot go on here without sleeping: to the pool with it
    NO_REPLY = 2
    WAITS = 3           # for a lock (request.wait): to a thread of its own with it


cdef struct Request:
    Chain chain
    Virtqueue *queue
    Request *next            # in the one list that it is in
    Request *all_next        # in the list of all, which only grows
    uint32_t busy            # between being taken from the ring and being returned to it
    uint32_t alone           # while it is carried out in the pool, no other like it is there for the same file
    Request *behind          # those that wait for this
    Request *behind_last
    uint16_t head
    uint32_t written         # bytes of the reply: the used length
    uint64_t done            # bytes of a READ or WRITE that was begun by another thread
    fuse_in_header header
    uint32_t args_size       # bytes copied
    uint32_t args_at         # where the next argument begins
    LockWait wait
    LockOwner *wait_owner    # pinned while it waits
    Handle *wait_handle
    uint64_t aligned[1]
    uint8_t args[ARGS_MAX]


cdef Request *request_create() noexcept nogil
cdef void request_destroy(Request *request) noexcept nogil
cdef bint request_open(Request *request) noexcept nogil
cdef const void *next_bytes(Request *request, uint32_t size) noexcept nogil
cdef const char *next_name(Request *request) noexcept nogil
cdef int reply_error(Request *request, int error) noexcept nogil
cdef int reply(Request *request, const void *data, uint32_t size) noexcept nogil
cdef int reply_in_place(Request *request, uint64_t size) noexcept nogil
