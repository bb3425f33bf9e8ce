# What a worker shows of itself, by which the watchdog notices that its thread does not come back from a system call.

from libc.stdint cimport uint32_t, uint64_t

from .atomics cimport exchange32, fence_full, load_relaxed32
from .linux cimport sys_futex_wake

# Written by the thread that leads the worker. One that has just ceased to may still write what it was about to, and
# nothing of that can hide that its successor hangs.
cdef struct Watched:
    uint32_t leader        # changes with every thread that begins or ceases to lead: its token
    uint32_t asleep        # the token of the thread that waits for kicks, if that leads
    uint32_t progress      # changes with every request
    uint32_t seen_progress  # the watchdog's own note
    uint32_t stuck         # looks in a row that found no progress
    uint32_t tid           # of the thread; 0 until one leads
    uint32_t slow_class    # of the last request, and what it is about
    uint64_t nodeid


cdef inline void watchdog_arm(uint32_t *armed) noexcept nogil:
    """A worker has something to do. The watchdog sleeps without a time-out while none has."""
    # Full: what the caller has just said must be visible before the word is read; the watchdog does the reverse.
    fence_full()
    if not load_relaxed32(armed) and exchange32(armed, 1) == 0:
        sys_futex_wake(armed, 1)
