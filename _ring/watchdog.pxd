# Notices a worker whose thread does not come back from a system call, and has another thread take over.

from libc.stdint cimport int64_t, uint32_t

from .linux cimport pthread_t
from .pool cimport Pool
from .worker cimport QUEUES_MAX, Worker


cdef struct Watchdog:
    Pool *pool
    uint32_t stopping
    uint32_t running
    pthread_t thread
    Worker **workers       # QUEUES_MAX of them, NULL where there is none
    uint32_t count         # of workers at the last look
    int64_t idle_closing_at    # by clock_ns()
    int64_t kept_round_at


cdef int watchdog_start(Watchdog *watchdog, Pool *pool, Worker **workers) noexcept nogil
cdef void watchdog_stop(Watchdog *watchdog) noexcept nogil
