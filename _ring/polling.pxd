# When a worker looks for requests before it sleeps, and for how long.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from .engine cimport Engine


cdef struct Polling:
    uint64_t limit         # ticks: the longest that a poll may last; 0: never
    uint64_t budget        # ticks that a poll may last now
    uint64_t empty_since   # when the queues were found empty
    uint64_t banned_until  # CPUs are short
    uint64_t ban           # ticks of the last ban
    uint64_t checked_at    # when waits for a CPU were last looked at
    uint64_t waited        # nanoseconds that the thread had waited for a CPU then
    uint64_t sleeps        # that have ended since then
    uint32_t polling       # it is counted in engine.pollers
    int schedstat_fd       # of the thread that leads; -1: not open
    uint64_t polls
    uint64_t hits


cdef uint64_t poll_begin(Polling *polling, Engine *engine, uint64_t now) noexcept nogil
cdef void poll_end(Polling *polling, Engine *engine, uint64_t now, bint hit) noexcept nogil
cdef void poll_learn(Polling *polling, Engine *engine, uint64_t now) noexcept nogil
