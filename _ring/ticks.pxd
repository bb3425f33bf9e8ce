# A clock for measuring microseconds without system calls (ticks.h); for heuristics alone.

from libc.stdint cimport uint64_t

cdef extern from "ticks.h" nogil:
    uint64_t ticks_now()
    uint64_t ticks_per_us()
