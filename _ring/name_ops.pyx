"""Creating, removing and renaming: one system call in a directory, and for what is new its entry."""

from libc.stdint cimport uint32_t, uint64_t

from .caller cimport caller_enter, caller_leave
from .entries cimport check_name, enter_file, lookup_name, open_inode
from .file_ops cimport add_handle, host_flags, may_open
from .fuse_abi cimport (
    fuse_create_in, fuse_entry_out, fuse_link_in, fuse_mkdir_in, fuse_mknod_in, fuse_open_out, fuse_rename2_in,
    fuse_rename_in)
from .inode_cache cimport inode_fd
from .inode_table cimport Inode
from .inodes cimport inode_acquire, inode_forget, inode_release
from .linux cimport (
    AT_REMOVEDIR, AT_SYMLINK_FOLLOW, EEXIST, EINVAL, ENOENT, ESTALE, O_CREAT, O_EXCL, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK,
    O_TRUNC, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, S_IFMT, S_IFREG, decimal, memset, sys_close,
    sys_linkat, sys_mkdirat, sys_mknodat, sys_openat, sys_renameat2, sys_symlinkat, sys_unlinkat)
from .request cimport Request, next_bytes, next_name, reply
from .share cimport Context

# What CREATE answers.
cdef struct Created:
    fuse_entry_out entry
    fuse_open_out open


cdef enum:
    RENAME_FLAGS = RENAME_EXCHANGE | RENAME_NOREPLACE | RENAME_WHITEOUT
    EXISTING_TRIES = 4


cdef Inode *parent_of(Context *ctx, const Request *request, int *fd) noexcept nogil:
    """The directory that the request names, pinned, and its descriptor; NULL and -errno."""
    cdef Inode *parent = inode_acquire(&ctx.share.inodes, request.header.nodeid)
    if parent == NULL:
        fd[0] = -ESTALE
        return NULL
    fd[0] = inode_fd(&ctx.share.inodes, parent)
    if fd[0] < 0:
        inode_release(&ctx.share.inodes, parent)
        return NULL
    return parent


cdef int reply_created(Context *ctx, Request *request, Inode *parent, int parent_fd, const char *name,
                       int error) noexcept nogil:
    """Answers with the entry of what was just created, unless that failed; lets go of the parent."""
    cdef fuse_entry_out out
    if error == 0:
        error = lookup_name(ctx, parent_fd, name, &out)
    inode_release(&ctx.share.inodes, parent)
    return error if error < 0 else reply(request, &out, sizeof(out))


cdef int op_mknod(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_mknod_in *args = <const fuse_mknod_in *> next_bytes(request, sizeof(fuse_mknod_in))
    cdef const char *name = next_name(request)
    cdef Inode *parent
    cdef int fd, error
    if check_name(name) < 0:
        return -EINVAL
    parent = parent_of(ctx, request, &fd)
    if parent == NULL:
        return fd
    error = caller_enter(ctx, request, args.umask)
    if error == 0:
        error = sys_mknodat(fd, name, args.mode & (S_IFMT | 0o7777), args.rdev)
        caller_leave(ctx, request)
    return reply_created(ctx, request, parent, fd, name, error)


cdef int op_mkdir(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_mkdir_in *args = <const fuse_mkdir_in *> next_bytes(request, sizeof(fuse_mkdir_in))
    cdef const char *name = next_name(request)
    cdef Inode *parent
    cdef int fd, error
    if check_name(name) < 0:
        return -EINVAL
    parent = parent_of(ctx, request, &fd)
    if parent == NULL:
        return fd
    error = caller_enter(ctx, request, args.umask)
    if error == 0:
        error = sys_mkdirat(fd, name, args.mode & 0o7777)
        caller_leave(ctx, request)
    return reply_created(ctx, request, parent, fd, name, error)


cdef int op_symlink(Context *ctx, Request *request) noexcept nogil:
    cdef const char *name = next_name(request)
    cdef const char *target = next_name(request)
    cdef Inode *parent
    cdef int fd, error
    if check_name(name) < 0 or target == NULL:
        return -EINVAL
    parent = parent_of(ctx, request, &fd)
    if parent == NULL:
        return fd
    error = caller_enter(ctx, request, 0)
    if error == 0:
        error = sys_symlinkat(target, fd, name)
        caller_leave(ctx, request)
    return reply_created(ctx, request, parent, fd, name, error)


cdef int op_link(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_link_in *args = <const fuse_link_in *> next_bytes(request, sizeof(fuse_link_in))
    cdef const char *name = next_name(request)
    cdef char old_name[16]
    cdef fuse_entry_out out
    cdef Inode *parent
    cdef Inode *old
    cdef int fd, old_fd, error
    if check_name(name) < 0:
        return -EINVAL
    parent = parent_of(ctx, request, &fd)
    if parent == NULL:
        return fd
    error = -ESTALE
    old = inode_acquire(&ctx.share.inodes, args.oldnodeid)
    if old != NULL:
        old_fd = inode_fd(&ctx.share.inodes, old)
        error = old_fd
        if old_fd >= 0:
            # Through /proc, since a link of the descriptor itself would need CAP_DAC_READ_SEARCH.
            error = sys_linkat(ctx.share.proc_fd, decimal(old_name, old_fd), fd, name, AT_SYMLINK_FOLLOW)
            if error == 0:
                error = enter_file(ctx, old_fd, &out)
        inode_release(&ctx.share.inodes, old)
    inode_release(&ctx.share.inodes, parent)
    return error if error < 0 else reply(request, &out, sizeof(out))


cdef int open_existing(Context *ctx, int parent_fd, const char *name, uint32_t flags,
                       fuse_entry_out *out) noexcept nogil:
    """Opens what has the name already, for a CREATE without O_EXCL. fd or -errno."""
    cdef Inode *inode
    cdef int fd
    cdef int error = lookup_name(ctx, parent_fd, name, out)
    if error < 0:
        return error
    inode = inode_acquire(&ctx.share.inodes, out.nodeid)
    # Anything but a regular file is not what the guest saw when it sent CREATE: it looks the name up again.
    fd = -ESTALE
    if inode != NULL:
        if inode.kind == S_IFREG:
            fd = open_inode(ctx, inode, host_flags(ctx, flags))
        inode_release(&ctx.share.inodes, inode)
    if fd < 0:
        inode_forget(&ctx.share.inodes, out.nodeid, 1)
    return fd


cdef int open_new(Context *ctx, Request *request, int parent_fd, const char *name, const fuse_create_in *args,
                  fuse_entry_out *out) noexcept nogil:
    """Creates and opens the file as the caller, or opens the one that is there. fd or -errno."""
    cdef int flags = host_flags(ctx, args.flags) & ~O_TRUNC | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK
    cdef int fd, error, _i
    for _i in range(EXISTING_TRIES):
        error = caller_enter(ctx, request, args.umask)
        if error < 0:
            return error
        fd = sys_openat(parent_fd, name, flags, args.mode & 0o7777)
        caller_leave(ctx, request)
        if fd >= 0:
            error = enter_file(ctx, fd, out)
            if error < 0:
                sys_close(fd)
            return error if error < 0 else fd
        if fd != -EEXIST or args.flags & O_EXCL:
            return fd
        fd = open_existing(ctx, parent_fd, name, args.flags, out)
        if fd != -ENOENT:
            return fd
        # It was removed in between: once more.
    return -ESTALE


cdef int op_create(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_create_in *args = <const fuse_create_in *> next_bytes(request, sizeof(fuse_create_in))
    cdef const char *name = next_name(request)
    cdef Inode *parent
    cdef int parent_fd, fd, error
    cdef Created out
    if check_name(name) < 0:
        return -EINVAL
    parent = parent_of(ctx, request, &parent_fd)
    if parent == NULL:
        return parent_fd
    memset(&out, 0, sizeof(out))
    error = may_open(ctx, args.flags)
    if error == 0:
        fd = open_new(ctx, request, parent_fd, name, args, &out.entry)
        error = add_handle(ctx, fd, out.entry.nodeid, args.flags, False, &out.open)
        if error < 0 and fd >= 0:
            inode_forget(&ctx.share.inodes, out.entry.nodeid, 1)
    inode_release(&ctx.share.inodes, parent)
    return error if error < 0 else reply(request, &out, sizeof(out))


cdef int remove_name(Context *ctx, Request *request, int flags) noexcept nogil:
    cdef const char *name = next_name(request)
    cdef Inode *parent
    cdef int fd, error
    if check_name(name) < 0:
        return -EINVAL
    parent = parent_of(ctx, request, &fd)
    if parent == NULL:
        return fd
    error = sys_unlinkat(fd, name, flags)
    inode_release(&ctx.share.inodes, parent)
    return error if error < 0 else reply(request, NULL, 0)


cdef int op_unlink(Context *ctx, Request *request) noexcept nogil:
    return remove_name(ctx, request, 0)


cdef int op_rmdir(Context *ctx, Request *request) noexcept nogil:
    return remove_name(ctx, request, AT_REMOVEDIR)


cdef int rename(Context *ctx, Request *request, uint64_t new_parent, uint32_t flags) noexcept nogil:
    cdef const char *old_name = next_name(request)
    cdef const char *new_name = next_name(request)
    cdef Inode *source
    cdef Inode *target
    cdef int source_fd, target_fd, error
    if check_name(old_name) < 0 or check_name(new_name) < 0 or flags & ~<uint32_t> RENAME_FLAGS:
        return -EINVAL
    source = parent_of(ctx, request, &source_fd)
    if source == NULL:
        return source_fd
    error = -ESTALE
    target = inode_acquire(&ctx.share.inodes, new_parent)
    if target != NULL:
        target_fd = inode_fd(&ctx.share.inodes, target)
        error = target_fd
        if target_fd >= 0:
            error = sys_renameat2(source_fd, old_name, target_fd, new_name, flags)
        inode_release(&ctx.share.inodes, target)
    inode_release(&ctx.share.inodes, source)
    return error if error < 0 else reply(request, NULL, 0)


cdef int op_rename(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_rename_in *args = <const fuse_rename_in *> next_bytes(request, sizeof(fuse_rename_in))
    return rename(ctx, request, args.newdir, 0)


cdef int op_rename2(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_rename2_in *args = <const fuse_rename2_in *> next_bytes(request, sizeof(fuse_rename2_in))
    return rename(ctx, request, args.newdir, args.flags)
