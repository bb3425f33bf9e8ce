# The elastic pool of threads for requests that may sleep, so that no queue waits behind one.

from libc.stdint cimport uint32_t

from .engine cimport Engine
from .linux cimport pthread_t
from .request cimport Request
from .share cimport Context


cdef struct PoolThread:
    PoolThread *next
    Pool *pool
    pthread_t thread
    Context ctx


cdef struct Pool:
    Engine *engine
    uint32_t lock
    uint32_t sequence      # changes with everything that an idle thread should see: a futex
    uint32_t limit         # threads
    uint32_t threads
    uint32_t idle
    uint32_t stopping
    uint32_t chores        # descriptors are to be closed, or cancelled waits to be seen to
    Request *first
    Request *last
    PoolThread *ended      # to be joined and freed


cdef void pool_init(Pool *pool, Engine *engine, uint32_t limit) noexcept nogil
cdef int pool_start(Pool *pool) noexcept nogil
cdef void pool_submit(Pool *pool, Request *request) noexcept nogil
cdef void pool_nudge(Pool *pool) noexcept nogil
cdef void pool_stop(Pool *pool) noexcept nogil
cdef void pool_reap(Pool *pool) noexcept nogil
