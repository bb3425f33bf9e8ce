"""When a second thread serves a worker's queues for a while: large READs wait there, which take their time in copying,
and a CPU is free for it.

Whether one is, its own waits say: who copies hardly ever sleeps, so what it has not run it has waited. Where that is
much, for a CPU or for what the file system has locked, nobody helps for a while.
"""

from libc.stdint cimport uint32_t, uint64_t

from .atomics cimport compare_exchange32, fetch_add32, fetch_sub32, load_relaxed32, store_release32
from .engine cimport Engine
from .linux cimport clock_thread_cpu_ns
from .ticks cimport ticks_now

cdef enum:
    WORTH_WHILE = 1 << 18    # bytes that wait: to wake a thread takes as long as copying a tenth of that
    JUDGE_NS = 4000000       # so much help is judged together:
    SHORT_PERCENT = 45       # of it without a CPU: more threads want to run than there are CPUs, by far
    BAN_US = 10000           # the first; each further one is twice as long
    BAN_MAX_US = 250000
    LINGER_US = 50           # that who helps looks for more, where it has been called again so soon
    IDLE_BAN_US = 2000       # after a call that came too late


cdef bint help_wanted(Helping *helping, Engine *engine, uint64_t waiting_bytes) noexcept nogil:
    """Whether to ask a thread for help, for READs of so many bytes that wait. It is counted then, until help_end() or
    help_over().
    """
    cdef uint32_t nobody = 0
    cdef uint64_t now
    if waiting_bytes < WORTH_WHILE or not engine.helpers_max or load_relaxed32(&helping.busy):
        return False
    now = ticks_now()
    if now < helping.banned_until or not compare_exchange32(&helping.busy, &nobody, 1):
        return False
    if fetch_add32(&engine.helpers, 1) >= engine.helpers_max:
        help_over(helping, engine)
        return False
    if now - helping.left_at < LINGER_US * engine.ticks_per_us:
        helping.linger = LINGER_US * engine.ticks_per_us
    return True


cdef void help_over(Helping *helping, Engine *engine) noexcept nogil:
    """Nobody helps any more, or no thread comes."""
    fetch_sub32(&engine.helpers, 1)
    store_release32(&helping.busy, 0)


cdef void help_begin(Helping *helping) noexcept nogil:
    helping.seen_at = ticks_now()
    helping.seen_cpu_ns = clock_thread_cpu_ns()


cdef bint help_pays(Helping *helping, Engine *engine) noexcept nogil:
    """Whether the calling thread, which helps, has the CPU that it needs for that."""
    cdef uint64_t us = engine.ticks_per_us
    cdef uint64_t now = ticks_now()
    cdef uint64_t cpu_ns = clock_thread_cpu_ns()
    cdef uint64_t passed = (now - helping.seen_at) * 1000 / us
    cdef uint64_t ran = cpu_ns - helping.seen_cpu_ns
    cdef bint short_of_cpus
    helping.seen_at = now
    helping.seen_cpu_ns = cpu_ns
    helping.passed_ns += passed
    helping.waited_ns += passed - ran if passed > ran else 0
    if helping.passed_ns < JUDGE_NS:
        return True
    short_of_cpus = helping.waited_ns * 100 > helping.passed_ns * SHORT_PERCENT
    helping.passed_ns = helping.waited_ns = 0
    if not short_of_cpus:
        helping.ban /= 2
        return True
    helping.ban = 2 * helping.ban if helping.ban > BAN_US / 2 * us else BAN_US * us
    if helping.ban > BAN_MAX_US * us:
        helping.ban = BAN_MAX_US * us
    helping.banned_until = now + helping.ban
    return False


cdef void help_waited(Helping *helping) noexcept nogil:
    """It has looked for more in vain."""
    helping.linger /= 4


cdef void help_end(Helping *helping, Engine *engine, uint32_t served) noexcept nogil:
    """The thread has helped with so many requests, and leaves."""
    cdef uint64_t now = ticks_now()
    cdef uint64_t until = now + IDLE_BAN_US * engine.ticks_per_us
    if served:
        helping.times += 1
    elif helping.banned_until < until:
        helping.banned_until = until
    helping.left_at = now
    help_over(helping, engine)
