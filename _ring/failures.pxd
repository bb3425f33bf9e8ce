# The one place where a -errno becomes an exception.

from libc.stdint cimport int64_t


cdef int failed(int64_t error, str what) except -1
cdef int checked(int result, str what) except -1
