# Acting as the guest's caller: for what it creates, and for nothing else.

from .request cimport Request
from .share cimport Context


cdef int caller_enter(Context *ctx, const Request *request, unsigned int umask) noexcept nogil
cdef void caller_leave(Context *ctx, const Request *request) noexcept nogil
