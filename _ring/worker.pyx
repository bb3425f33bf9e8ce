"""The worker's loop: drain the queues, publish each reply, one signal for a batch, ask for kicks, look again, sleep."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from .atomics cimport load_acquire32, load_relaxed32, store_release32
from .engine cimport EVENT_THREAD_FAILED, Engine, complete, notify, pop_request, post_event, take_request
from .linux cimport (
    EPOLLET, EPOLLIN, calloc, epoll_event, free, pthread_join, sys_close, sys_epoll_add, sys_epoll_create,
    sys_epoll_remove, sys_epoll_wait, sys_eventfd, sys_write, thread_start)
from .mutex cimport lock, unlock
from .operations cimport SLEEPS, Operation, perform, prepare
from .pool cimport Pool, pool_nudge, pool_submit
from .request cimport WOULD_SLEEP, Request
from .share cimport context_destroy, context_enter_thread, context_init
from .virtqueue cimport Virtqueue, ring_kicks_off, ring_kicks_on, ring_signal

cdef enum:
    BATCH = 8             # replies that may wait for one signal
    TURN = 64             # requests of one queue before the worker's next one has its turn
    WAKE = 0xffffffffU    # in an epoll event: not a queue's kick
    EVENTS = 16
    STACK = 1 << 19

cdef int64_t POLL_NS = 200000   # between looks at a queue that has no kick descriptor


cdef Worker *worker_create(Engine *engine, Pool *pool, uint32_t number) noexcept nogil:
    """A worker with no queue and no thread yet. NULL: no memory, or no descriptors."""
    cdef Worker *worker = <Worker *> calloc(1, sizeof(Worker))
    if worker == NULL:
        return NULL
    worker.engine = engine
    worker.pool = pool
    worker.number = number
    worker.epoll_fd = sys_epoll_create()
    worker.wake_fd = sys_eventfd()
    if context_init(&worker.ctx, &engine.share, False) < 0 or worker.epoll_fd < 0 or worker.wake_fd < 0 or \
            sys_epoll_add(worker.epoll_fd, worker.wake_fd, EPOLLIN | EPOLLET, WAKE) < 0:
        worker_free(worker)
        return NULL
    return worker


cdef int worker_start(Worker *worker) noexcept nogil:
    return thread_start(&worker.thread, worker_main, worker, "worker", STACK)


cdef void worker_wake(Worker *worker) noexcept nogil:
    """It looks at its queues, and at what has changed for it. Descriptors are watched by edge: none is ever read."""
    cdef uint64_t one = 1
    sys_write(worker.wake_fd, &one, sizeof(one))


cdef void worker_stop(Worker *worker) noexcept nogil:
    """Asks the thread to end; worker.ended says when it has."""
    store_release32(&worker.stopping, 1)
    worker_wake(worker)


cdef void worker_free(Worker *worker) noexcept nogil:
    """The thread has ended or never began."""
    if worker.thread:
        pthread_join(worker.thread, NULL)
    context_destroy(&worker.ctx)
    if worker.epoll_fd >= 0:
        sys_close(worker.epoll_fd)
    if worker.wake_fd >= 0:
        sys_close(worker.wake_fd)
    free(worker)


cdef int worker_attach(Worker *worker, Virtqueue *queue) noexcept nogil:
    """Gives it a queue. 0 or -errno of a kick descriptor that cannot be watched."""
    cdef int error
    if queue.kick_fd >= 0:
        error = sys_epoll_add(worker.epoll_fd, queue.kick_fd, EPOLLIN | EPOLLET, queue.index)
        if error < 0:
            return error
    lock(&worker.lock)
    worker.queues[worker.queue_count] = queue
    worker.queue_count += 1
    store_release32(&worker.version, worker.version + 1)
    unlock(&worker.lock)
    worker_wake(worker)
    return 0


cdef void worker_detach(Worker *worker, Virtqueue *queue) noexcept nogil:
    """Takes a queue away. The worker may still be at it: what it does there is safe, under the queue's locks."""
    cdef uint32_t i
    if queue.kick_fd >= 0:
        sys_epoll_remove(worker.epoll_fd, queue.kick_fd)
    lock(&worker.lock)
    for i in range(worker.queue_count):
        if worker.queues[i] == queue:
            worker.queue_count -= 1
            worker.queues[i] = worker.queues[worker.queue_count]
            break
    store_release32(&worker.version, worker.version + 1)
    unlock(&worker.lock)
    worker_wake(worker)


cdef void refresh(Worker *worker) noexcept nogil:
    cdef uint32_t i
    lock(&worker.lock)
    worker.seen = worker.version
    worker.serving_count = worker.queue_count
    for i in range(worker.queue_count):
        worker.serving[i] = worker.queues[i]
    unlock(&worker.lock)


cdef void serve_request(Worker *worker, Request *request) noexcept nogil:
    """One request: answered here, or handed to the pool."""
    cdef const Operation *operation = prepare(&worker.ctx, request)
    cdef int result = 0
    if operation != NULL:
        if operation.flags & SLEEPS:
            result = WOULD_SLEEP
        else:
            result = perform(&worker.ctx, request, operation)
    if result == 0:
        complete(worker.engine, request)
        return
    worker.spare = NULL
    if result == WOULD_SLEEP:
        pool_submit(worker.pool, request)


cdef bint serve_queue(Worker *worker, Virtqueue *queue) noexcept nogil:
    """Serves what is available, a turn of it at most. True: there may be more."""
    cdef uint32_t unsignalled = 0
    cdef int got, _turn
    for _turn in range(TURN):
        if worker.spare == NULL:
            worker.spare = take_request(worker.engine)
            if worker.spare == NULL:
                break   # no memory: what is in flight will give some back
        got = pop_request(worker.engine, queue, worker.spare)
        if got == 0:
            if unsignalled:
                ring_signal(queue)
            return False
        if got > 0:
            serve_request(worker, worker.spare)
        unsignalled += 1
        if unsignalled == BATCH:
            ring_signal(queue)
            unsignalled = 0
    ring_signal(queue)
    return True


cdef bint serve(Worker *worker) noexcept nogil:
    """A turn for every queue. True: there may be more to do."""
    cdef bint more = False
    cdef uint32_t i
    for i in range(worker.serving_count):
        more |= serve_queue(worker, worker.serving[i])
    if load_relaxed32(&worker.engine.share.inodes.to_close) or load_relaxed32(&worker.engine.share.locks.cancelling):
        pool_nudge(worker.pool)
    return more


cdef bint ask_for_kicks(Worker *worker, bint *polled) noexcept nogil:
    """True: something has come in between, and the worker must not sleep."""
    cdef Virtqueue *queue
    cdef bint more = False
    cdef uint32_t i
    polled[0] = False
    for i in range(worker.serving_count):
        queue = worker.serving[i]
        lock(&queue.avail_lock)
        if queue.running and not queue.error:
            more |= ring_kicks_on(queue)
            if queue.kick_fd < 0 and not queue.inband_kicks:
                polled[0] = True
        unlock(&queue.avail_lock)
    return more


cdef void ask_for_none(Worker *worker) noexcept nogil:
    cdef Virtqueue *queue
    cdef uint32_t i
    for i in range(worker.serving_count):
        queue = worker.serving[i]
        lock(&queue.avail_lock)
        if queue.running and not queue.error:
            ring_kicks_off(queue)
        unlock(&queue.avail_lock)


cdef void *worker_main(void *argument) noexcept nogil:
    cdef Worker *worker = <Worker *> argument
    cdef epoll_event events[EVENTS]
    cdef bint polled = False
    cdef int error = context_enter_thread(&worker.ctx)
    if error < 0:
        post_event(worker.engine, EVENT_THREAD_FAILED, worker.number, error)   # the control plane ends the daemon
    while error == 0 and not load_acquire32(&worker.stopping):
        if load_acquire32(&worker.version) != worker.seen:
            refresh(worker)
        if serve(worker):
            continue
        if ask_for_kicks(worker, &polled):
            ask_for_none(worker)
            continue
        sys_epoll_wait(worker.epoll_fd, events, EVENTS, POLL_NS if polled else -1)
        worker.wakeups += 1
        ask_for_none(worker)
    store_release32(&worker.ended, 1)
    notify(worker.engine)
    return NULL
