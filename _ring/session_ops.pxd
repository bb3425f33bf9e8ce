# INIT and DESTROY, FORGET, and what concerns the file system as a whole.

from .request cimport Request
from .share cimport Context, Share


cdef void end_session(Share *share) noexcept nogil
cdef int op_init(Context *ctx, Request *request) noexcept nogil
cdef int op_destroy(Context *ctx, Request *request) noexcept nogil
cdef int op_forget(Context *ctx, Request *request) noexcept nogil
cdef int op_batch_forget(Context *ctx, Request *request) noexcept nogil
cdef int op_interrupt(Context *ctx, Request *request) noexcept nogil
cdef int op_statfs(Context *ctx, Request *request) noexcept nogil
cdef int op_syncfs(Context *ctx, Request *request) noexcept nogil
