# Opening regular files, and reading, writing and changing their data.

from libc.stdint cimport uint32_t, uint64_t

from .fuse_abi cimport fuse_open_out
from .inode_table cimport Inode
from .request cimport Request
from .share cimport Context


# What is known of a file that is opened.
cdef enum Opened:
    MAY_HAVE_CHANGED
    UNCHANGED           # since an earlier open
    CREATED             # by this request


cdef int host_flags(const Context *ctx, uint32_t flags) noexcept nogil
cdef int may_open(const Context *ctx, uint32_t flags) noexcept nogil
cdef int open_file(Context *ctx, Inode *inode, uint32_t flags, uint32_t open_flags) noexcept nogil
cdef int release(Context *ctx, Request *request, bint directory) noexcept nogil
cdef int add_handle(Context *ctx, int fd, uint64_t nodeid, uint32_t flags, bint directory, Opened how,
                    fuse_open_out *out) noexcept nogil
cdef int op_open(Context *ctx, Request *request) noexcept nogil
cdef int op_read(Context *ctx, Request *request) noexcept nogil
cdef bint writes_alone(Context *ctx, const Request *request) noexcept nogil
cdef int op_write(Context *ctx, Request *request) noexcept nogil
cdef int op_release(Context *ctx, Request *request) noexcept nogil
cdef int op_flush(Context *ctx, Request *request) noexcept nogil
cdef int op_fsync(Context *ctx, Request *request) noexcept nogil
cdef int op_lseek(Context *ctx, Request *request) noexcept nogil
cdef int op_fallocate(Context *ctx, Request *request) noexcept nogil
cdef int op_copy_file_range(Context *ctx, Request *request) noexcept nogil
cdef int op_copy_file_range_64(Context *ctx, Request *request) noexcept nogil
