# GETLK, SETLK and SETLKW.

from .request cimport Request
from .share cimport Context


cdef int op_getlk(Context *ctx, Request *request) noexcept nogil
cdef int op_setlk(Context *ctx, Request *request) noexcept nogil
cdef int op_setlkw(Context *ctx, Request *request) noexcept nogil
