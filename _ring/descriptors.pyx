"""Who may have how many file descriptors. The cache of inodes shrinks first, the guest's open files have a bound."""

from libc.stdint cimport uint32_t

from .atomics cimport fetch_add32, fetch_sub32, load_relaxed32
from .linux cimport ENFILE

cdef enum:
    RESERVE_MIN = 64
    RESERVE_MAX = 4096   # three eventfds for each of 256 queues, 509 memory regions, and room


cdef void descriptors_init(Descriptors *account, uint32_t limit) noexcept nogil:
    """Shares `limit` descriptors out: an eighth in reserve; three quarters of the others at most for open files."""
    cdef uint32_t reserve = limit / 8
    if reserve < RESERVE_MIN:
        reserve = RESERVE_MIN
    if reserve > RESERVE_MAX:
        reserve = RESERVE_MAX
    account.limit = limit
    account.reserve = reserve
    account.open_max = (limit - reserve) / 4 * 3 if limit > reserve else 0
    account.opened = 0
    account.cached = 0


cdef int descriptors_open(Descriptors *account) noexcept nogil:
    """One more open file. 0, or -ENFILE at the bound; descriptors_close gives it back."""
    if fetch_add32(&account.opened, 1) >= account.open_max:
        fetch_sub32(&account.opened, 1)
        return -ENFILE
    return 0


cdef void descriptors_close(Descriptors *account) noexcept nogil:
    fetch_sub32(&account.opened, 1)


cdef uint32_t descriptors_over_budget(const Descriptors *account) noexcept nogil:
    """How many cached descriptors should be closed now, for what is open to have room."""
    cdef uint32_t used = account.reserve + load_relaxed32(&account.opened) + load_relaxed32(&account.cached)
    return used - account.limit if used > account.limit else 0
