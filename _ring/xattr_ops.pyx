"""Extended attributes, by the name that the inode's descriptor has in /proc/self/fd, the thread's working directory."""

from libc.stdint cimport int64_t, uint32_t

from .caller cimport keep_suid
from .entries cimport change_host_mode
from .fuse_abi cimport (
    FUSE_SETXATTR_ACL_KILL_SGID, FUSE_SETXATTR_EXT, fuse_getxattr_in, fuse_getxattr_out, fuse_setxattr_in,
    fuse_setxattr_in_compat)
from .inode_cache cimport Borrowed, inode_borrow, inode_give_back
from .linux cimport (
    AT_EMPTY_PATH, E2BIG, EINVAL, ENODATA, ENOSYS, EOPNOTSUPP, EPERM, ERANGE, STATX_MODE, S_ISGID, XATTR_CREATE,
    XATTR_REPLACE, decimal, linux_statx, memmove, strcmp, strlen, sys_getxattr, sys_listxattr, sys_removexattr,
    sys_setxattr, sys_statx)
from .request cimport Request, next_bytes, next_name, reply
from .share cimport Context
from .xattr_names cimport XATTR_NAME_MAX, xattr_to_guest, xattr_to_host

cdef enum:
    VALUE_MAX = 65536   # of a value, and of a list of names


cdef int to_host(const Context *ctx, const char *name, char *out) noexcept nogil:
    """The host's name of an attribute. 0 or -errno: -ENOSYS where this guest has none, so that it stops asking."""
    if not ctx.share.options.xattr:
        return -ENOSYS
    return xattr_to_host(&ctx.share.xattrs, name, out)


cdef int drop_capabilities(Context *ctx, int fd) noexcept nogil:
    """After a change of data, size or owner: of security.capability the host knows only its own name. 0 or -errno,
    which is told where nothing else is: not that of a WRITE, whose reply says how much was written.
    """
    cdef char path[16]
    cdef int error
    if not ctx.share.xattrs.capability[0]:
        return 0
    error = sys_removexattr(decimal(path, fd), ctx.share.xattrs.capability)
    return 0 if error == -ENODATA or error == -EOPNOTSUPP else error


cdef int set_label(Context *ctx, int fd, const char *name, const void *label, uint32_t size) noexcept nogil:
    """The security context of a file that was just created. 0 or -errno."""
    cdef char host_name[XATTR_NAME_MAX + 1]
    cdef char path[16]
    cdef int error = xattr_to_host(&ctx.share.xattrs, name, host_name)
    return error if error < 0 else sys_setxattr(decimal(path, fd), host_name, label, size, 0)


cdef int drop_sgid(Context *ctx, int fd) noexcept nogil:
    """After an access ACL by somebody who is not in the file's group: the host looks at the daemon's own instead."""
    cdef linux_statx stat
    cdef int error = sys_statx(fd, "", AT_EMPTY_PATH, STATX_MODE, &stat)
    if error < 0 or not stat.stx_mode & S_ISGID:
        return error
    return change_host_mode(ctx, fd, stat.stx_mode & 0o7777 & ~<uint32_t> S_ISGID)


cdef int op_setxattr(Context *ctx, Request *request) noexcept nogil:
    # The shorter struct begins like the longer one; which it is was settled by INIT.
    cdef const fuse_setxattr_in_compat *args = <const fuse_setxattr_in_compat *> next_bytes(
        request, sizeof(fuse_setxattr_in) if ctx.share.flags & FUSE_SETXATTR_EXT else sizeof(fuse_setxattr_in_compat))
    cdef const char *name = next_name(request)
    cdef const void *value
    cdef char host_name[XATTR_NAME_MAX + 1]
    cdef Borrowed borrowed
    cdef char path[16]
    cdef bint keep
    cdef int error
    if args == NULL or name == NULL or name[0] == 0:
        return -EINVAL
    if args.size > VALUE_MAX:
        return -E2BIG
    value = next_bytes(request, args.size)
    if value == NULL or args.flags & ~<uint32_t> (XATTR_CREATE | XATTR_REPLACE):
        return -EINVAL
    error = to_host(ctx, name, host_name)
    if error < 0:
        return error
    error = inode_borrow(&ctx.share.inodes, request.header.nodeid, &borrowed)
    if error < 0:
        return error
    keep = not (ctx.share.flags & FUSE_SETXATTR_EXT
                and (<const fuse_setxattr_in *> args).setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID)
    keep_suid(ctx, keep)
    error = sys_setxattr(decimal(path, borrowed.fd), host_name, value, args.size, <int> args.flags)
    if error == 0 and not keep and strcmp(name, "system.posix_acl_access") == 0:
        error = drop_sgid(ctx, borrowed.fd)
    inode_give_back(&ctx.share.inodes, &borrowed)
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
    cdef char host_name[XATTR_NAME_MAX + 1]
    cdef Borrowed borrowed
    cdef char path[16]
    cdef int error
    cdef int64_t size
    if name == NULL or name[0] == 0:
        return -EINVAL
    size = to_host(ctx, name, host_name)
    if size < 0:
        return -ENODATA if size == -EPERM else <int> size   # what may not be seen is not there
    error = inode_borrow(&ctx.share.inodes, request.header.nodeid, &borrowed)
    if error < 0:
        return error
    size = sys_getxattr(decimal(path, borrowed.fd), host_name, ctx.scratch, VALUE_MAX)
    inode_give_back(&ctx.share.inodes, &borrowed)
    return reply_sized(ctx, request, size, args.size)


cdef int op_listxattr(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_getxattr_in *args = <const fuse_getxattr_in *> next_bytes(request, sizeof(fuse_getxattr_in))
    cdef Borrowed borrowed
    cdef char path[16]
    cdef int error
    cdef int64_t size
    if not ctx.share.options.xattr:
        return -ENOSYS
    error = inode_borrow(&ctx.share.inodes, request.header.nodeid, &borrowed)
    if error < 0:
        return error
    size = sys_listxattr(decimal(path, borrowed.fd), <char *> ctx.scratch, VALUE_MAX)
    inode_give_back(&ctx.share.inodes, &borrowed)
    if size > 0:
        size = names_for_guest(ctx, <char *> ctx.scratch, size)
    return reply_sized(ctx, request, size, args.size)


cdef int64_t names_for_guest(Context *ctx, char *names, int64_t size) noexcept nogil:
    """Leaves of a list of names those that the guest may see, as it knows them. Bytes.

    `trusted.*` too: a local file system shows it to root alone, but who asks, newer guests do not say.
    """
    cdef int64_t at = 0
    cdef int64_t kept = 0
    cdef const char *name
    cdef size_t length
    while at < size:
        name = names + at
        at += strlen(name) + 1
        name = xattr_to_guest(&ctx.share.xattrs, name)
        if name != NULL:
            length = strlen(name) + 1
            memmove(names + kept, name, length)
            kept += length
    return kept


cdef int op_removexattr(Context *ctx, Request *request) noexcept nogil:
    cdef const char *name = next_name(request)
    cdef char host_name[XATTR_NAME_MAX + 1]
    cdef Borrowed borrowed
    cdef char path[16]
    cdef int error
    if name == NULL or name[0] == 0:
        return -EINVAL
    error = to_host(ctx, name, host_name)
    if error < 0:
        return error
    error = inode_borrow(&ctx.share.inodes, request.header.nodeid, &borrowed)
    if error < 0:
        return error
    error = sys_removexattr(decimal(path, borrowed.fd), host_name)
    inode_give_back(&ctx.share.inodes, &borrowed)
    return error if error < 0 else reply(request, NULL, 0)
