# Extended attributes.

from .request cimport Request
from .share cimport Context


cdef int op_setxattr(Context *ctx, Request *request) noexcept nogil
cdef int op_getxattr(Context *ctx, Request *request) noexcept nogil
cdef int op_listxattr(Context *ctx, Request *request) noexcept nogil
cdef int op_removexattr(Context *ctx, Request *request) noexcept nogil
