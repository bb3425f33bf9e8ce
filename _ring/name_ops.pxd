# Creating, removing and renaming.

from .request cimport Request
from .share cimport Context


cdef int op_mknod(Context *ctx, Request *request) noexcept nogil
cdef int op_mkdir(Context *ctx, Request *request) noexcept nogil
cdef int op_symlink(Context *ctx, Request *request) noexcept nogil
cdef int op_link(Context *ctx, Request *request) noexcept nogil
cdef int op_create(Context *ctx, Request *request) noexcept nogil
cdef int op_tmpfile(Context *ctx, Request *request) noexcept nogil
cdef int op_unlink(Context *ctx, Request *request) noexcept nogil
cdef int op_rmdir(Context *ctx, Request *request) noexcept nogil
cdef int op_rename(Context *ctx, Request *request) noexcept nogil
cdef int op_rename2(Context *ctx, Request *request) noexcept nogil
