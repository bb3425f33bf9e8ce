"""The pool: a thread that takes a job and leaves none idle starts another, so that one is always free for the next.

Threads above one that have had nothing to do for a while end; an idle pool is one thread that sleeps for good.
"""

from libc.stdint cimport int64_t, uint32_t

from .atomics cimport load_acquire32, load_relaxed32
from .engine cimport EVENT_THREAD_FAILED, Engine, complete, give_request, post_event
from .inode_lifetime cimport inodes_close_pending
from .linux cimport (
    ENOMEM, calloc, free, pthread_join, sys_futex_wait, sys_futex_wake, thread_start)
from .lock_owners cimport cancel_again
from .mutex cimport lock, unlock
from .operations cimport operation_of, perform
from .request cimport WAITS, Request
from .share cimport context_destroy, context_enter_thread, context_init
from .virtqueue cimport ring_signal
from .waits cimport wait_for_lock

cdef enum:
    WAKE_ALL = 0x7fffffff
    STACK = 1 << 19

cdef int64_t LINGER_NS = 5000000000
cdef int64_t CANCEL_NS = 1000000


cdef void pool_init(Pool *pool, Engine *engine, uint32_t limit) noexcept nogil:
    pool.engine = engine
    pool.limit = limit


cdef int start_thread(Pool *pool) noexcept nogil:
    """One more thread, which the caller has counted already. 0 or -errno."""
    cdef PoolThread *thread = <PoolThread *> calloc(1, sizeof(PoolThread))
    cdef int error
    if thread == NULL:
        return -ENOMEM
    thread.pool = pool
    error = context_init(&thread.ctx, &pool.engine.share, True)
    if error == 0:
        error = thread_start(&thread.thread, pool_main, thread, "pool", STACK)
    if error < 0:
        context_destroy(&thread.ctx)
        free(thread)
    return error


cdef int pool_start(Pool *pool) noexcept nogil:
    """The first thread. 0 or -errno."""
    cdef int error
    pool.threads = 1
    error = start_thread(pool)
    if error < 0:
        pool.threads = 0
    return error


cdef void pool_submit(Pool *pool, Request *request) noexcept nogil:
    """Hands a prepared request over; it will be completed. Wakes a thread only where one is idle."""
    cdef bint wake
    request.next = NULL
    lock(&pool.lock)
    if pool.last != NULL:
        pool.last.next = request
    else:
        pool.first = request
    pool.last = request
    wake = pool.idle > 0
    if wake:
        pool.sequence += 1
    unlock(&pool.lock)
    if wake:
        sys_futex_wake(&pool.sequence, 1)


cdef void pool_nudge(Pool *pool) noexcept nogil:
    """There are descriptors to close, or waits that were cancelled."""
    cdef bint wake
    if load_relaxed32(&pool.chores):
        return
    lock(&pool.lock)
    pool.chores = 1
    wake = pool.idle > 0
    if wake:
        pool.sequence += 1
    unlock(&pool.lock)
    if wake:
        sys_futex_wake(&pool.sequence, 1)


cdef Request *next_job(Pool *pool, bint *leave) noexcept nogil:
    """Waits for work. A request; or NULL: only chores, or with `leave` set, to end."""
    cdef Request *request = NULL
    cdef uint32_t sequence
    cdef bint alone, expired = False
    lock(&pool.lock)
    while True:
        request = pool.first
        if request != NULL:
            pool.first = request.next
            if pool.first == NULL:
                pool.last = NULL
            break
        if pool.chores:
            pool.chores = 0
            break
        if pool.stopping or (expired and pool.idle > 0):
            leave[0] = True
            break
        sequence = pool.sequence
        alone = pool.idle == 0
        pool.idle += 1
        unlock(&pool.lock)
        expired = sys_futex_wait(&pool.sequence, sequence, -1 if alone else LINGER_NS) < 0 and \
            load_acquire32(&pool.sequence) == sequence
        lock(&pool.lock)
        pool.idle -= 1
    unlock(&pool.lock)
    return request


cdef void keep_one_idle(Pool *pool) noexcept nogil:
    cdef bint more
    lock(&pool.lock)
    more = pool.idle == 0 and pool.threads < pool.limit and not pool.stopping
    if more:
        pool.threads += 1
    unlock(&pool.lock)
    if more and start_thread(pool) < 0:
        lock(&pool.lock)
        pool.threads -= 1
        unlock(&pool.lock)


cdef void *pool_main(void *argument) noexcept nogil:
    cdef PoolThread *thread = <PoolThread *> argument
    cdef Pool *pool = thread.pool
    cdef Request *request
    cdef bint leave = False
    cdef uint32_t pause = 0
    cdef int result
    cdef int error = context_enter_thread(&thread.ctx)
    if error < 0:
        post_event(pool.engine, EVENT_THREAD_FAILED, 0, error)   # the control plane ends the daemon
    while error == 0 and not leave:
        request = next_job(pool, &leave)
        if request != NULL:
            keep_one_idle(pool)
            result = perform(&thread.ctx, request, operation_of(request.header.opcode))
            if result == WAITS:
                wait_for_lock(pool.engine, request)
            else:
                complete(pool.engine, request)
                ring_signal(request.queue)
                give_request(pool.engine, request)
        if load_relaxed32(&pool.engine.share.inodes.to_close):
            inodes_close_pending(&pool.engine.share.inodes)
        while load_relaxed32(&pool.engine.share.locks.cancelling) and cancel_again(&pool.engine.share.locks):
            sys_futex_wait(&pause, 0, CANCEL_NS)
    lock(&pool.lock)
    pool.threads -= 1
    thread.next = pool.ended
    pool.ended = thread
    unlock(&pool.lock)
    return NULL


cdef void pool_stop(Pool *pool) noexcept nogil:
    """Asks every thread to end when all requests are done; pool.threads says how many have not yet."""
    lock(&pool.lock)
    pool.stopping = 1
    pool.sequence += 1
    unlock(&pool.lock)
    sys_futex_wake(&pool.sequence, WAKE_ALL)


cdef void pool_reap(Pool *pool) noexcept nogil:
    """Joins the threads that have ended."""
    cdef PoolThread *thread
    cdef PoolThread *following
    lock(&pool.lock)
    thread = pool.ended
    pool.ended = NULL
    unlock(&pool.lock)
    while thread != NULL:
        following = thread.next
        pthread_join(thread.thread, NULL)
        context_destroy(&thread.ctx)
        free(thread)
        thread = following
