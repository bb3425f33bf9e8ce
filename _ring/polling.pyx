"""When a worker looks for requests before it sleeps, and for how long.

The budget follows the gaps between the queues being empty and the next request, as a guest's halt polling does: it
grows when a sleep was so short that a poll would have caught its end, and shrinks when a poll was in vain. It is 0
for a while where the thread has had to wait for a CPU: polling would only take away what the guest needs.
"""

from libc.stdint cimport uint64_t

from .atomics cimport fetch_add32, fetch_sub32
from .engine cimport Engine
from .linux cimport run_delay

cdef enum:
    CHECK_US = 2000          # between looks at the waits for a CPU
    SHORT_PERCENT = 10       # of the time spent waiting for a CPU: they are short
    WAKE_NS = 10000          # of such a wait are the wake-up's own, on an idle CPU
    BAN_US = 4000            # the first; each further one is four times as long
    BAN_MAX_US = 1000000
    FIRST_US = 6             # the budget that a short gap begins with


cdef bint cpus_short(Polling *polling, Engine *engine, uint64_t now) noexcept nogil:
    """Looks now and then whether the thread waits for a CPU, and bans polling for a while where it does."""
    cdef uint64_t us = engine.ticks_per_us
    cdef uint64_t passed = now - polling.checked_at
    cdef uint64_t waited, before, wake_ups
    if passed < CHECK_US * us:
        return False
    before = polling.waited
    waited = run_delay(polling.schedstat_fd)
    wake_ups = polling.sleeps * WAKE_NS
    polling.waited = waited
    polling.checked_at = now
    polling.sleeps = 0
    if passed > 50 * CHECK_US * us or waited < before:
        return False   # it slept in between, or another thread leads: the figure says nothing
    if waited - before < wake_ups or (waited - before - wake_ups) * 100 < passed / us * 1000 * SHORT_PERCENT:
        if polling.ban > BAN_US * us:
            polling.ban -= polling.ban / 4
        return False
    polling.ban = BAN_US * us if polling.ban == 0 else 4 * polling.ban
    if polling.ban > BAN_MAX_US * us:
        polling.ban = BAN_MAX_US * us
    polling.banned_until = now + polling.ban
    polling.budget = 0
    return True


cdef uint64_t poll_begin(Polling *polling, Engine *engine, uint64_t now) noexcept nogil:
    """The queues are empty now. Until when to look on, in ticks; 0: not at all."""
    polling.empty_since = now
    if polling.budget == 0 or now < polling.banned_until or cpus_short(polling, engine, now):
        return 0
    # A poll takes a CPU whole: one must be left for the guest, whatever the workers wish.
    if fetch_add32(&engine.pollers, 1) >= engine.pollers_max:
        fetch_sub32(&engine.pollers, 1)
        return 0
    polling.polls += 1
    return now + polling.budget


cdef void poll_end(Polling *polling, Engine *engine, uint64_t now, bint hit) noexcept nogil:
    """The poll that began is over; `hit`: there is a request."""
    fetch_sub32(&engine.pollers, 1)
    if hit:
        polling.hits += 1
        # A gap that took most of the budget: the next one may be a little longer.
        if (now - polling.empty_since) * 2 > polling.budget:
            polling.budget += polling.budget / 2
            if polling.budget > polling.limit:
                polling.budget = polling.limit
    else:
        polling.budget /= 2
        if polling.budget < engine.ticks_per_us:
            polling.budget = 0


cdef void poll_learn(Polling *polling, Engine *engine, uint64_t now) noexcept nogil:
    """A kick has ended a sleep."""
    cdef uint64_t gap = now - polling.empty_since
    polling.sleeps += 1
    if gap < polling.limit and now >= polling.banned_until:
        polling.budget = FIRST_US * engine.ticks_per_us if polling.budget == 0 else 2 * polling.budget
        if polling.budget < gap + gap / 4:
            polling.budget = gap + gap / 4
        if polling.budget > polling.limit:
            polling.budget = polling.limit
