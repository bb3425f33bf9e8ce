"""The watchdog: a queue's requests wait no longer than a few milliseconds for one that hangs.

What is known to sleep does not run on a worker in the first place. What sleeps unexpectedly (a lookup on a disk that
does not answer, anything on a network file system that is gone) keeps its thread; the worker's queues get another
one.

It also knows when it is time to close descriptors and files that the guest does not use.
"""

from libc.stdint cimport int64_t, uint32_t

from .atomics cimport (
    compare_exchange32, fence_full, fetch_add32, load_acquire32, load_pointer, load_relaxed32, load_relaxed64,
    store_release32)
from .engine cimport Engine, notify
from .inode_table cimport IDLE_CLOSING_DUE, IDLE_CLOSING_NONE, InodeTable
from .linux cimport clock_ns, pthread_join, sys_futex_wait, sys_futex_wake, thread_runnable, thread_name, thread_start
from .pool cimport Pool, pool_nudge, pool_offer
from .slowness cimport slowness_hangs
from .threads cimport threads_start
from .ticks cimport ticks_now
from .watched cimport Watched
from .worker cimport QUEUES_MAX, Worker

cdef enum:
    STUCK_LOOKS = 2
    SPINNING_LOOKS = 100  # for one that runs and comes no further: a call that has very much to do
    LOAD_LOOKS = 100      # ticks between looks at how the load is spread
    CANCEL_LOOKS = 4      # and between tries to have waits for locks end that were cancelled
    IDLE_ROUNDS = 2
    BEYOND = 64           # threads that may hang besides the pool's, in whatever
    STACK = 1 << 17

cdef int64_t TICK_NS = 1000000
cdef int64_t FOR_GOOD = 0x7fffffffffffffff


cdef inline bint asleep(const Watched *watched) noexcept nogil:
    return load_relaxed32(&watched.asleep) == load_relaxed32(&watched.leader)


cdef bint stuck(const Watchdog *watchdog, Watched *watched) noexcept nogil:
    """Whether the thread has been at one request for some looks now, and does not just wait for a CPU."""
    cdef uint32_t progress = load_relaxed32(&watched.progress)
    cdef uint32_t tid = load_acquire32(&watched.tid)
    if not tid or asleep(watched) or progress != watched.seen_progress:
        watched.seen_progress = progress
        watched.stuck = 0
        return False
    watched.stuck += 1
    return watched.stuck >= SPINNING_LOOKS or (
        watched.stuck >= STUCK_LOOKS and not thread_runnable(watchdog.pool.engine.share.proc_fd, <int> tid))


cdef void take_over(Watchdog *watchdog, Worker *worker) noexcept nogil:
    """The worker gets another thread. Where as many hang as may sleep in the pool, what this one has been at goes there
    from now on, and waits for its turn. Where that helps no more, it is no request that they hang in but memory of the
    front-end's, and its queues stand still.
    """
    cdef Pool *pool = watchdog.pool
    cdef Watched *watched = &worker.watched
    cdef uint32_t most = watchdog.count + pool.limit + load_relaxed32(&pool.engine.helpers)
    watched.stuck = 0
    if load_relaxed32(&pool.serving) > most + BEYOND:
        return
    worker.takeovers += 1
    if load_relaxed32(&pool.serving) > most:
        slowness_hangs(&pool.engine.share.inodes, load_relaxed64(&watched.nodeid), load_relaxed32(&watched.slow_class),
                       ticks_now() / pool.engine.ticks_per_us)
    store_release32(&watched.tid, 0)
    fetch_add32(&watched.leader, 1)
    pool_offer(pool, &worker.lead_role)


cdef bint look(Watchdog *watchdog) noexcept nogil:
    """One look at every worker. False: all of them sleep, no cancelled wait is left, and no request waits for a thread.
    """
    cdef Pool *pool = watchdog.pool
    cdef Worker *worker
    cdef bint busy = load_relaxed32(&pool.engine.share.locks.cancelling) != 0
    cdef uint32_t count = 0
    cdef int i
    for i in range(QUEUES_MAX):
        worker = <Worker *> load_pointer(<void **> (watchdog.workers + i))
        if worker == NULL:
            continue
        count += 1
        if not asleep(&worker.watched):
            busy = True
        if stuck(watchdog, &worker.watched):
            take_over(watchdog, worker)
        if load_relaxed32(&worker.lead_role.wanted):
            threads_start(pool)     # again, where there was no room for one
    if load_pointer(<void **> &pool.first) != NULL:
        threads_start(pool)         # the same
        busy = True
    watchdog.count = count
    return busy


cdef bint idle_closing_begins(Watchdog *watchdog, int64_t now) noexcept nogil:
    """Has a thread of the pool close descriptors that were not used lately, if it is time to."""
    cdef Engine *engine = watchdog.pool.engine
    cdef InodeTable *inodes = &engine.share.inodes
    cdef uint32_t none = IDLE_CLOSING_NONE
    if not engine.idle_ns or now < watchdog.idle_closing_at:
        return False
    watchdog.idle_closing_at = now + engine.idle_ns
    if load_relaxed32(&engine.share.descriptors.cached) and \
            compare_exchange32(&inodes.idle_closing, &none, IDLE_CLOSING_DUE):
        pool_nudge(watchdog.pool)
    return True


cdef void kept_round_begins(Watchdog *watchdog, int64_t now) noexcept nogil:
    """Has a thread of the pool close files that were kept for an OPEN that has not come, if it is time to."""
    cdef Engine *engine = watchdog.pool.engine
    if now < watchdog.kept_round_at:
        return
    watchdog.kept_round_at = now + engine.share.kept.delay_ns
    if load_relaxed32(&engine.share.descriptors.kept):
        store_release32(&engine.share.kept.round_due, 1)
        pool_nudge(watchdog.pool)


cdef void sleep_until_armed(Watchdog *watchdog, uint32_t *armed) noexcept nogil:
    """While the guest is idle, descriptors are closed twice: the second time finds none that was used."""
    cdef Engine *engine = watchdog.pool.engine
    cdef int64_t now, until
    cdef int rounds = 0
    while not load_acquire32(armed) and not load_acquire32(&watchdog.stopping):
        now = clock_ns()
        until = FOR_GOOD
        if engine.idle_ns and rounds < IDLE_ROUNDS:
            until = watchdog.idle_closing_at
        if load_relaxed32(&engine.share.descriptors.kept) and watchdog.kept_round_at < until:
            until = watchdog.kept_round_at
        if until > now:
            sys_futex_wait(armed, 0, until - now if until < FOR_GOOD else -1)
        now = clock_ns()
        rounds += idle_closing_begins(watchdog, now)
        kept_round_begins(watchdog, now)


cdef void *watchdog_main(void *argument) noexcept nogil:
    cdef Watchdog *watchdog = <Watchdog *> argument
    cdef Engine *engine = watchdog.pool.engine
    cdef uint32_t *armed = &engine.watchdog_armed
    cdef uint32_t pause = 0
    cdef uint32_t looks = 0
    cdef int64_t now
    thread_name("watchdog")
    watchdog.idle_closing_at = clock_ns() + engine.idle_ns
    while not load_acquire32(&watchdog.stopping):
        sleep_until_armed(watchdog, armed)
        while not load_acquire32(&watchdog.stopping):
            sys_futex_wait(&pause, 0, TICK_NS)
            now = clock_ns()
            idle_closing_begins(watchdog, now)
            kept_round_begins(watchdog, now)
            looks += 1
            if looks % LOAD_LOOKS == 0 and load_relaxed32(&engine.load_watched):
                store_release32(&engine.load_due, 1)
                notify(engine)
            if looks % CANCEL_LOOKS == 0 and load_relaxed32(&engine.share.locks.cancelling):
                pool_nudge(watchdog.pool)
            if not look(watchdog):
                # Whoever wakes after this arms it anew; whoever woke before is seen by the second look.
                store_release32(armed, 0)
                fence_full()
                if not look(watchdog):
                    break
                store_release32(armed, 1)
    return NULL


cdef int watchdog_start(Watchdog *watchdog, Pool *pool, Worker **workers) noexcept nogil:
    cdef int error
    watchdog.pool = pool
    watchdog.workers = workers
    error = thread_start(&watchdog.thread, watchdog_main, watchdog, STACK)
    watchdog.running = error == 0
    return error


cdef void watchdog_stop(Watchdog *watchdog) noexcept nogil:
    """Ends and joins it."""
    if not watchdog.running:
        return
    store_release32(&watchdog.stopping, 1)
    store_release32(&watchdog.pool.engine.watchdog_armed, 1)
    sys_futex_wake(&watchdog.pool.engine.watchdog_armed, 1)
    pthread_join(watchdog.thread, NULL)
    watchdog.running = 0
