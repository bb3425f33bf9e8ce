# Opening and reading directories.

from .request cimport Request
from .share cimport Context


cdef int op_opendir(Context *ctx, Request *request) noexcept nogil
cdef int op_readdir(Context *ctx, Request *request) noexcept nogil
cdef int op_readdirplus(Context *ctx, Request *request) noexcept nogil
cdef int op_releasedir(Context *ctx, Request *request) noexcept nogil
cdef int op_fsyncdir(Context *ctx, Request *request) noexcept nogil
