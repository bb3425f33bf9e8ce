# What threads do: serve the queues of a worker, or help another with it, or carry out requests that may sleep.

from libc.stdint cimport uint32_t, uint64_t

from .engine cimport Engine
from .linux cimport pthread_t
from .request cimport Request
from .share cimport OPCODES, Context


# A thread of the data plane. Which worker it leads, if any, changes in its life.
cdef struct Thread:
    Thread *next           # among the living, or the ended
    Thread *previous
    Pool *pool
    Request *spare         # for the next request of a queue
    pthread_t handle
    Context ctx


# What a thread may be to a worker: the one that leads it, or one that helps.
cdef struct Role:
    Role *next
    void *worker           # a Worker
    uint32_t helps
    uint32_t wanted        # it is in the list


cdef struct Pool:
    Engine *engine
    uint32_t lock
    uint32_t sequence      # changes with everything that an idle thread should see: a futex
    uint32_t limit         # threads besides those that lead a worker, or help
    uint32_t threads
    uint32_t serving
    uint32_t idle
    uint32_t stopping
    uint32_t chores        # descriptors are to be closed, or cancelled waits to be seen to
    Request *first         # that wait for a thread
    Request *last
    Request *alone         # that are carried out, and no other of their kind beside them for the same file
    Role *roles
    Thread *living
    Thread *ended          # to be joined and freed
    uint64_t calls[OPCODES]   # of threads that have ended
    uint64_t errors[OPCODES]


cdef void pool_init(Pool *pool, Engine *engine, uint32_t limit) noexcept nogil
cdef void pool_submit(Pool *pool, Request *request) noexcept nogil
cdef void pool_offer(Pool *pool, Role *role) noexcept nogil
cdef bint pool_invite(Pool *pool, Role *role) noexcept nogil
cdef void pool_nudge(Pool *pool) noexcept nogil
cdef Request *pool_done(Pool *pool, Request *request) noexcept nogil
cdef bint pool_wait(Pool *pool, Request **request, Role **role) noexcept nogil
cdef bint pool_needs_thread(Pool *pool) noexcept nogil
cdef void pool_join(Pool *pool, Thread *thread) noexcept nogil
cdef void pool_leave(Pool *pool, Thread *thread) noexcept nogil
cdef void pool_count(Pool *pool, uint64_t *calls, uint64_t *errors) noexcept nogil
cdef void pool_stop(Pool *pool) noexcept nogil
