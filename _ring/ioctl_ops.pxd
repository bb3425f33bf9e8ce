# IOCTL, for a list of commands.

from .request cimport Request
from .share cimport Context


cdef int op_ioctl(Context *ctx, Request *request) noexcept nogil
