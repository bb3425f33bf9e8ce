# LOOKUP, and reading and changing attributes.

from .request cimport Request
from .share cimport Context


cdef int op_lookup(Context *ctx, Request *request) noexcept nogil
cdef int op_getattr(Context *ctx, Request *request) noexcept nogil
cdef int op_setattr(Context *ctx, Request *request) noexcept nogil
cdef int op_statx(Context *ctx, Request *request) noexcept nogil
cdef int op_readlink(Context *ctx, Request *request) noexcept nogil
cdef int op_access(Context *ctx, Request *request) noexcept nogil
