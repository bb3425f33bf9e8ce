# Starting and ending the threads of the data plane.

from .pool cimport Pool


cdef int threads_start(Pool *pool) noexcept nogil
cdef void threads_reap(Pool *pool) noexcept nogil
