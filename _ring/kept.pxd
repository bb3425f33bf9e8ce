# Files that the guest has closed and that stay open for a moment, for its next OPEN of them: nodeid -> descriptor.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from .descriptors cimport Descriptors

cdef enum:
    KEPT_BITS = 12
    KEPT_SLOTS = 1 << KEPT_BITS
    KEPT_WAYS = 2            # slots that a file may be in


cdef struct KeptFile:
    uint64_t nodeid      # 0: none
    int32_t fd
    uint32_t recent      # kept since the last round
    uint32_t lock


cdef struct KeptFiles:
    KeptFile *slots      # NULL: nothing is kept
    uint32_t most        # of them may be in use
    uint32_t round_due   # it is time to close those that were not opened again
    int64_t delay_ns     # for how long they are kept; twice that at most
    uint32_t *armed      # the watchdog's, who says when it is time
    Descriptors *account


cdef int kept_create(KeptFiles *kept, Descriptors *account, int64_t delay_ns, uint32_t *armed) noexcept nogil
cdef void kept_destroy(KeptFiles *kept) noexcept nogil
cdef bint kept_put(KeptFiles *kept, uint64_t nodeid, int fd) noexcept nogil
cdef int kept_take(KeptFiles *kept, uint64_t nodeid) noexcept nogil
cdef bint kept_has(KeptFiles *kept, uint64_t nodeid) noexcept nogil
cdef void kept_forget(KeptFiles *kept, uint64_t nodeid) noexcept nogil
cdef void kept_close(KeptFiles *kept, bint recent_too) noexcept nogil
