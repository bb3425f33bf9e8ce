# What the threads of one device have in common: the share, the memory map, requests, and news for the control plane.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from .memory cimport MemoryMap
from .operations cimport Operation
from .request cimport Request
from .share cimport Context, Share
from .virtqueue cimport Virtqueue

cdef enum EventKind:
    EVENT_QUEUE_BROKEN = 1     # detail: a QueueError
    EVENT_BAD_CHAIN = 2        # detail: a ChainError; the first of its kind since the queue was started
    EVENT_THREAD_FAILED = 3    # detail: an errno; a thread could not set itself up

cdef enum:
    EVENTS_KEPT = 64


cdef struct Event:
    uint32_t kind
    uint32_t queue
    int64_t detail


cdef struct Engine:
    Share share
    MemoryMap *map
    uint32_t memory_gone       # set by the SIGBUS handler
    int event_fd               # readable: there are events, or something that was waited for has come true
    uint32_t waiting           # the control plane waits for requests to end
    uint32_t waiting_threads   # of locks
    uint32_t load_watched      # there are more queues than workers
    uint32_t load_due          # and it is time to see how the load is spread
    uint64_t ticks_per_us
    uint64_t slow_ticks        # a request that took longer is slow
    uint64_t poll_limit        # ticks: the longest that a worker looks for requests before it sleeps
    int64_t idle_ns            # a cached descriptor that was not used for so long is closed; 0: none
    uint32_t watchdog_armed    # a futex: 0 while all workers sleep
    uint32_t pollers           # workers that look for requests without sleeping, now
    uint32_t pollers_max       # as many as there may be at once
    uint32_t helpers           # threads that help a worker, now
    uint32_t helpers_max
    Request *spare_requests
    Request *all_requests
    uint32_t requests_lock
    uint32_t requests_taken   # and not given back yet
    uint32_t requests_max
    uint32_t events_lock
    uint32_t event_count
    uint32_t events_lost
    Event events[EVENTS_KEPT]


cdef int engine_init(Engine *engine, uint32_t requests) noexcept nogil
cdef void engine_destroy(Engine *engine) noexcept nogil
cdef void notify(Engine *engine) noexcept nogil
cdef void post_event(Engine *engine, uint32_t kind, uint32_t queue, int64_t detail) noexcept nogil
cdef bint may_take(Engine *engine, const Virtqueue *queue, bint answered) noexcept nogil
cdef Request *take_request(Engine *engine) noexcept nogil
cdef void give_request(Engine *engine, Request *request) noexcept nogil
cdef int pop_request(Engine *engine, Virtqueue *queue, Request *request, bint answered) noexcept nogil
cdef void recollect(Engine *engine, Request *request) noexcept nogil
cdef void complete(Engine *engine, Request *request) noexcept nogil
cdef void signal(Engine *engine, Virtqueue *queue) noexcept nogil
