"""Extended attributes, by the name that the inode's descriptor has in /proc/self/fd, the thread's working directory."""

from libc.stdint cimport int64_t, uint32_t

from .fuse_abi cimport (
    FUSE_SETXATTR_EXT, fuse_getxattr_in, fuse_getxattr_out, fuse_setxattr_in, fuse_setxattr_in_compat)
from .inode_cache cimport inode_fd
from .inode_table cimport Inode
from .inodes cimport inode_acquire, inode_release
from .linux cimport (
    E2BIG, EINVAL, ERANGE, ESTALE, XATTR_CREATE, XATTR_REPLACE, decimal, sys_getxattr, sys_listxattr, sys_removexattr,
    sys_setxattr)
from .request cimport Request, next_bytes, next_name, reply
from .share cimport Context

cdef enum:
    VALUE_MAX = 65536   # of a value, and of a list of names


cdef Inode *inode_of(Context *ctx, const Request *request, char *path) noexcept nogil:
    """The request's inode, pinned, and the path of its descriptor; NULL where it is unknown or gone."""
    cdef Inode *inode = inode_acquire(&ctx.share.inodes, request.header.nodeid)
    cdef int fd
    if inode == NULL:
        return NULL
    fd = inode_fd(&ctx.share.inodes, inode)
    if fd < 0:
        inode_release(&ctx.share.inodes, inode)
        return NULL
    decimal(path, fd)
    return inode


cdef int op_setxattr(Context *ctx, Request *request) noexcept nogil:
    # The shorter struct begins like the longer one; which it is was settled by INIT.
    cdef const fuse_setxattr_in_compat *args = <const fuse_setxattr_in_compat *> next_bytes(
        request, sizeof(fuse_setxattr_in) if ctx.share.flags & FUSE_SETXATTR_EXT else sizeof(fuse_setxattr_in_compat))
    cdef const char *name = next_name(request)
    cdef const void *value
    cdef char path[16]
    cdef Inode *inode
    cdef int error
    if args == NULL or name == NULL or name[0] == 0:
        return -EINVAL
    if args.size > VALUE_MAX:
        return -E2BIG
    value = next_bytes(request, args.size)
    if value == NULL or args.flags & ~<uint32_t> (XATTR_CREATE | XATTR_REPLACE):
        return -EINVAL
    inode = inode_of(ctx, request, path)
    if inode == NULL:
        return -ESTALE
    error = sys_setxattr(path, name, value, args.size, <int> args.flags)
    inode_release(&ctx.share.inodes, inode)
    return error if error < 0 else reply(request, NULL, 0)


cdef int reply_sized(Context *ctx, Request *request, int64_t size, uint32_t room) noexcept nogil:
    """Answers with the value in the scratch, or only with its size where the guest gave no room."""
    cdef fuse_getxattr_out out
    if size < 0:
        return <int> size
    if room == 0:
        out.size = <uint32_t> size
        out.padding = 0
        return reply(request, &out, sizeof(out))
    if size > room:
        return -ERANGE
    return reply(request, ctx.scratch, <uint32_t> size)


cdef int op_getxattr(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_getxattr_in *args = <const fuse_getxattr_in *> next_bytes(request, sizeof(fuse_getxattr_in))
    cdef const char *name = next_name(request)
    cdef char path[16]
    cdef Inode *inode
    cdef int64_t size
    if name == NULL or name[0] == 0:
        return -EINVAL
    inode = inode_of(ctx, request, path)
    if inode == NULL:
        return -ESTALE
    size = sys_getxattr(path, name, ctx.scratch, VALUE_MAX)
    inode_release(&ctx.share.inodes, inode)
    return reply_sized(ctx, request, size, args.size)


cdef int op_listxattr(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_getxattr_in *args = <const fuse_getxattr_in *> next_bytes(request, sizeof(fuse_getxattr_in))
    cdef char path[16]
    cdef Inode *inode = inode_of(ctx, request, path)
    cdef int64_t size
    if inode == NULL:
        return -ESTALE
    size = sys_listxattr(path, <char *> ctx.scratch, VALUE_MAX)
    inode_release(&ctx.share.inodes, inode)
    return reply_sized(ctx, request, size, args.size)


cdef int op_removexattr(Context *ctx, Request *request) noexcept nogil:
    cdef const char *name = next_name(request)
    cdef char path[16]
    cdef Inode *inode
    cdef int error
    if name == NULL or name[0] == 0:
        return -EINVAL
    inode = inode_of(ctx, request, path)
    if inode == NULL:
        return -ESTALE
    error = sys_removexattr(path, name)
    inode_release(&ctx.share.inodes, inode)
    return error if error < 0 else reply(request, NULL, 0)
