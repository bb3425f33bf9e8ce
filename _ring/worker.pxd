# A thread that serves queues: from the kick to the call.

from libc.stdint cimport uint32_t, uint64_t

from .engine cimport Engine
from .linux cimport pthread_t
from .pool cimport Pool
from .request cimport Request
from .share cimport Context
from .virtqueue cimport Virtqueue

cdef enum:
    QUEUES_MAX = 256      # vring indices have 8 bits


cdef struct Worker:
    Engine *engine
    Pool *pool
    Context ctx
    pthread_t thread
    int epoll_fd          # kicks of its queues, and wake_fd
    int wake_fd
    uint32_t number
    uint32_t stopping
    uint32_t ended
    uint32_t lock         # of the list of queues
    uint32_t version      # of that list, as the control plane has it
    uint32_t seen         # as the worker has it
    uint32_t queue_count
    Virtqueue *queues[QUEUES_MAX]
    uint32_t serving_count
    Virtqueue *serving[QUEUES_MAX]
    Request *spare
    uint64_t wakeups


cdef Worker *worker_create(Engine *engine, Pool *pool, uint32_t number) noexcept nogil
cdef int worker_start(Worker *worker) noexcept nogil
cdef void worker_wake(Worker *worker) noexcept nogil
cdef void worker_stop(Worker *worker) noexcept nogil
cdef void worker_free(Worker *worker) noexcept nogil
cdef int worker_attach(Worker *worker, Virtqueue *queue) noexcept nogil
cdef void worker_detach(Worker *worker, Virtqueue *queue) noexcept nogil
