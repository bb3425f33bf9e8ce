# Threads that wait for a lock, one for each request.

from .engine cimport Engine
from .request cimport Request


cdef void wait_for_lock(Engine *engine, Request *request) noexcept nogil
