"""Who may have how many file descriptors. The cache of inodes shrinks first, the guest's open files have a bound."""

from libc.stdint cimport uint32_t

from .atomics cimport fetch_add32, fetch_sub32, load_relaxed32
from .invariants cimport invariant
from .linux cimport ENFILE

cdef enum:
    RESERVE_MIN = 64
    RESERVE_MAX = 4096
    QUEUE_HAS = 6        # kick, call and error; its worker's epoll, eventfd and schedstat


cdef void descriptors_init(Descriptors *account, uint32_t limit) noexcept nogil:
    """Shares `limit` descriptors out: an eighth in reserve; three quarters of the others at most for open files."""
    cdef uint32_t reserve = limit / 8
    if reserve < RESERVE_MIN:
        reserve = RESERVE_MIN
    if reserve > RESERVE_MAX:
        reserve = RESERVE_MAX
    account.limit = limit
    account.reserve = reserve
    account.opened = 0
    account.cached = 0
    account.kept = 0
    descriptors_for_queues(account, 0)


cdef void descriptors_for_queues(Descriptors *account, uint32_t queues) noexcept nogil:
    """Sets aside what so many queues take. Called by the control plane alone."""
    cdef uint32_t taken = account.reserve + queues * QUEUE_HAS
    account.queues = queues * QUEUE_HAS
    account.open_max = (account.limit - taken) / 4 * 3 if account.limit > taken else 0


cdef int descriptors_open(Descriptors *account) noexcept nogil:
    """One more open file. 0, or -ENFILE at the bound; descriptors_close gives it back."""
    if fetch_add32(&account.opened, 1) >= account.open_max:
        fetch_sub32(&account.opened, 1)
        return -ENFILE
    return 0


cdef void descriptors_close(Descriptors *account) noexcept nogil:
    invariant(load_relaxed32(&account.opened) > 0, "a closed file was counted as open")
    fetch_sub32(&account.opened, 1)


cdef uint32_t descriptors_over_budget(const Descriptors *account) noexcept nogil:
    """How many cached descriptors should be closed now, for what is open to have room."""
    cdef uint32_t used = account.reserve + account.queues + load_relaxed32(&account.opened) + \
        load_relaxed32(&account.cached) + load_relaxed32(&account.kept)
    return used - account.limit if used > account.limit else 0
