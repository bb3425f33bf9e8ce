# Extended attributes.

from libc.stdint cimport uint32_t

from .request cimport Request
from .share cimport Context


cdef int drop_capabilities(Context *ctx, int fd) noexcept nogil
cdef int set_label(Context *ctx, int fd, const char *name, const void *label, uint32_t size) noexcept nogil
cdef int op_setxattr(Context *ctx, Request *request) noexcept nogil
cdef int op_getxattr(Context *ctx, Request *request) noexcept nogil
cdef int op_listxattr(Context *ctx, Request *request) noexcept nogil
cdef int op_removexattr(Context *ctx, Request *request) noexcept nogil
