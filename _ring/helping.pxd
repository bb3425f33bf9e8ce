# When a second thread serves a worker's queues for a while.

from libc.stdint cimport uint32_t, uint64_t

from .engine cimport Engine


cdef struct Helping:
    uint32_t busy          # a thread was asked to help, and has not left yet
    uint64_t banned_until  # ticks: it has not paid
    uint64_t ban           # ticks of the last ban
    uint64_t linger        # ticks that who helps looks for more requests
    uint64_t left_at       # ticks: when help last ended
    # written by the thread that helps
    uint64_t times         # that it has taken a request
    uint64_t seen_at       # ticks: when it last looked at its clocks
    uint64_t seen_cpu_ns   # its CPU time then
    uint64_t passed_ns     # so long it has helped since that was last judged,
    uint64_t waited_ns     # and so much of it without a CPU


cdef bint help_wanted(Helping *helping, Engine *engine, uint64_t waiting_bytes) noexcept nogil
cdef void help_over(Helping *helping, Engine *engine) noexcept nogil
cdef void help_begin(Helping *helping) noexcept nogil
cdef bint help_pays(Helping *helping, Engine *engine) noexcept nogil
cdef void help_waited(Helping *helping) noexcept nogil
cdef void help_end(Helping *helping, Engine *engine, uint32_t served) noexcept nogil
