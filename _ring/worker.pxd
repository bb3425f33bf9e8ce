# What serves queues: from the kick to the call. Threads come and go; one at a time leads the worker, and one may help.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from .engine cimport Engine
from .helping cimport Helping
from .polling cimport Polling
from .pool cimport Pool, Role, Thread
from .virtqueue cimport Virtqueue
from .watched cimport Watched

cdef enum:
    QUEUES_MAX = 256      # vring indices have 8 bits


cdef struct Worker:
    Role lead_role
    Role help_role
    Helping helping
    Watched watched
    Polling polling
    Engine *engine
    Pool *pool
    int epoll_fd          # kicks of its queues, and wake_fd
    int wake_fd
    uint32_t number
    uint32_t stopping
    uint32_t lock         # of the list of queues, and of the descriptor that tells of waits for a CPU
    uint32_t version      # of that list
    uint32_t queue_count
    Virtqueue *queues[QUEUES_MAX]
    uint64_t waited_ns    # for a CPU, by the thread that leads, when that was last asked, after a slow request
    uint64_t waited_at    # ticks: when that was
    uint64_t wakeups
    uint64_t takeovers    # times another thread had to take over


cdef Worker *worker_create(Engine *engine, Pool *pool, uint32_t number) noexcept nogil
cdef void worker_start(Worker *worker) noexcept nogil
cdef void worker_wake(Worker *worker) noexcept nogil
cdef void worker_stop(Worker *worker) noexcept nogil
cdef void worker_free(Worker *worker) noexcept nogil
cdef int worker_attach(Worker *worker, Virtqueue *queue) noexcept nogil
cdef void worker_detach(Worker *worker, Virtqueue *queue) noexcept nogil
cdef void lead(Worker *worker, Thread *thread) noexcept nogil
cdef void help(Worker *worker, Thread *thread) noexcept nogil
