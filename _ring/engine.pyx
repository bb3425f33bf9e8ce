"""Requests between ring and handlers: taken from a queue, given back to it, exactly once and from any thread."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from .atomics cimport load_acquire32, load_pointer, load_relaxed32, load_relaxed64, store_relaxed32, store_release32
from .chain cimport CHAIN_OK, chain_collect, chain_let_go, chain_look_ahead, chain_remember, chain_shrink
from .invariants cimport invariant
from .linux cimport sys_close, sys_eventfd, sys_write
from .mutex cimport lock, unlock
from .memory cimport MemoryMap
from .slowness cimport SLOW_US
from .ticks cimport ticks_per_us
from .request cimport Request, request_create, request_destroy
from .virtqueue cimport (
    BAD_CHAINS, QUEUE_MEMORY_GONE, QUEUE_OK, Announced, Virtqueue, ring_break, ring_fetch_used, ring_next, ring_push,
    ring_wants_signal, send_call)


cdef int engine_init(Engine *engine, uint32_t requests) noexcept nogil:
    engine.ticks_per_us = ticks_per_us()
    engine.slow_ticks = SLOW_US * engine.ticks_per_us
    engine.requests_max = requests
    engine.event_fd = sys_eventfd()
    return engine.event_fd if engine.event_fd < 0 else 0


cdef void engine_destroy(Engine *engine) noexcept nogil:
    cdef Request *request = engine.all_requests
    cdef Request *following
    while request != NULL:
        following = request.all_next
        request_destroy(request)
        request = following
    engine.all_requests = NULL
    engine.spare_requests = NULL
    if engine.event_fd >= 0:
        sys_close(engine.event_fd)
    engine.event_fd = -1


cdef void notify(Engine *engine) noexcept nogil:
    """Wakes the control plane."""
    cdef uint64_t one = 1
    sys_write(engine.event_fd, &one, sizeof(one))


cdef void post_event(Engine *engine, uint32_t kind, uint32_t queue, int64_t detail) noexcept nogil:
    """News for the log. Where the control plane does not keep up, only their number is kept."""
    lock(&engine.events_lock)
    if engine.event_count < EVENTS_KEPT:
        engine.events[engine.event_count].kind = kind
        engine.events[engine.event_count].queue = queue
        engine.events[engine.event_count].detail = detail
        engine.event_count += 1
    else:
        engine.events_lost += 1
    unlock(&engine.events_lock)
    notify(engine)


cdef bint may_take(Engine *engine, const Virtqueue *queue, bint answered) noexcept nogil:
    """Whether the queue may have one more request in flight: one that was taken for it already, and is counted. Each
    may always have one, whatever hangs in the others. `answered`: as pop_request() has it.
    """
    return (load_relaxed32(&engine.requests_taken) <= engine.requests_max
            or load_relaxed64(&queue.popped) - load_relaxed64(&queue.pushed) == <uint64_t> answered)


cdef Request *take_request(Engine *engine) noexcept nogil:
    """A request to fill; may_take() bounds their number. NULL: no memory. Those that were ever made are kept."""
    cdef Request *request
    lock(&engine.requests_lock)
    request = engine.spare_requests
    if request != NULL:
        engine.spare_requests = request.next
    else:
        request = request_create()
        if request != NULL:
            request.all_next = engine.all_requests
            engine.all_requests = request
    if request != NULL:
        store_relaxed32(&engine.requests_taken, engine.requests_taken + 1)
    unlock(&engine.requests_lock)
    return request


cdef void give_request(Engine *engine, Request *request) noexcept nogil:
    invariant(not request.busy, "a spare request is in no queue")
    chain_shrink(&request.chain)
    lock(&engine.requests_lock)
    request.next = engine.spare_requests
    engine.spare_requests = request
    store_relaxed32(&engine.requests_taken, engine.requests_taken - 1)
    unlock(&engine.requests_lock)


cdef void break_queue(Engine *engine, Virtqueue *queue, uint32_t error) noexcept nogil:
    ring_break(queue, error)
    post_event(engine, EVENT_QUEUE_BROKEN, queue.index, error)


cdef inline void push(Request *request) noexcept nogil:
    """Returns the chain to its queue, whose lock is held."""
    chain_let_go(&request.chain)
    store_release32(&request.busy, 0)
    ring_push(request.queue, request.head, request.written)


cdef inline void after_push(Engine *engine, Virtqueue *queue) noexcept nogil:
    """What there is to see to once a chain has been returned, and the lock let go."""
    if load_acquire32(&engine.memory_gone) and queue.error == QUEUE_OK:
        break_queue(engine, queue, QUEUE_MEMORY_GONE)
    if load_acquire32(&engine.waiting):
        notify(engine)


cdef int pop_request(Engine *engine, Virtqueue *queue, Request *request, bint answered) noexcept nogil:
    """Takes the next chain. 1: there is one; 0: there is none, or the queue is not to be served; -1: it was a bad one,
    and has been returned with nothing in it. `answered`: the request is the queue's last one still, and goes back first
    as complete() has it do; in one go, as a lock is a good part of a short request.

    All that the driver's memory says is read under the queue's lock, so that the control plane, which holds it while it
    changes ring or map, knows that nobody still reads the old ones.
    """
    cdef MemoryMap *map
    cdef int got = 0
    cdef int error = CHAIN_OK
    cdef bint first = False
    cdef const Announced *announced = NULL
    lock(&queue.lock)
    if answered:
        push(request)
    # Without memory the queue is about to be broken: a chain that was taken now would say what never was written.
    if queue.running and not queue.error and not (answered and load_acquire32(&engine.memory_gone)):
        got = ring_next(queue, &announced)
    if got > 0:
        request.queue = queue
        request.head = announced.head
        request.written = 0
        request.header.opcode = 0
        store_release32(&request.busy, 1)
        map = <MemoryMap *> load_pointer(<void **> &engine.map)
        error = chain_collect(&request.chain, queue, map, &announced.first)
        ring_fetch_used(queue)
        if queue.seen_avail != queue.next_avail:
            chain_look_ahead(queue, map)
        elif error == CHAIN_OK:
            chain_remember(queue, &request.chain, request.head)
        if error != CHAIN_OK:
            invariant(error < BAD_CHAINS, "the kinds of bad chains are counted")
            queue.bad_chains[error] += 1
            first = queue.bad_chains[error] == 1
    unlock(&queue.lock)
    if answered:
        after_push(engine, queue)
    if got < 0:
        break_queue(engine, queue, <uint32_t> -got)
        return 0
    if first:
        post_event(engine, EVENT_BAD_CHAIN, queue.index, error)
    if error != CHAIN_OK:
        complete(engine, request)
        return -1
    return got


cdef void recollect(Engine *engine, Request *request) noexcept nogil:
    """Translates the chain of a request that had let it go, for its reply. Only where it is is read again."""
    cdef Virtqueue *queue = request.queue
    lock(&queue.lock)
    if queue.placed and not queue.error:
        chain_collect(&request.chain, queue, <MemoryMap *> load_pointer(<void **> &engine.map),
                      queue.desc + request.head)
    else:
        request.chain.header_pieces = 0
    unlock(&queue.lock)


cdef void complete(Engine *engine, Request *request) noexcept nogil:
    """Returns the chain to its queue with what was written. The caller signals. Any thread."""
    cdef Virtqueue *queue = request.queue
    lock(&queue.lock)
    push(request)
    unlock(&queue.lock)
    after_push(engine, queue)


cdef void signal(Engine *engine, Virtqueue *queue) noexcept nogil:
    """Tells the driver what was published. A call that cannot be sent now is the control plane's to send."""
    if ring_wants_signal(queue) and not send_call(queue, False):
        notify(engine)
