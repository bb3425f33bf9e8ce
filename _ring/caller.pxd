# Acting as the guest's caller: for what it creates, and for nothing else.

from libc.stdint cimport uint32_t

from .request cimport Request
from .share cimport Context


cdef void keep_suid(Context *ctx, bint keep) noexcept nogil
cdef bint join_group(Context *ctx, int fd) noexcept nogil
cdef void leave_group(Context *ctx) noexcept nogil
cdef void keep_suid_as_caller(Context *ctx, const Request *request) noexcept nogil
cdef int caller_ids(const Context *ctx, const Request *request, uint32_t *uid, uint32_t *gid) noexcept nogil
cdef int caller_enter(Context *ctx, const Request *request, unsigned int umask) noexcept nogil
cdef void caller_leave(Context *ctx, const Request *request) noexcept nogil
