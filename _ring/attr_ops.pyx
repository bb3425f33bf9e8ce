"""LOOKUP, and reading and changing attributes."""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from .caller cimport join_group, keep_suid, leave_group
from .entries cimport (
    change_host_mode, check_name, cuts_much, enter_file, fill_attr, fill_attr_out, fill_attr_valid, is_dot, is_dotdot,
    lookup_name)
from .fuse_abi cimport (
    FATTR_ATIME, FATTR_ATIME_NOW, FATTR_FH, FATTR_GID, FATTR_KILL_SUIDGID, FATTR_MODE, FATTR_MTIME, FATTR_MTIME_NOW,
    FATTR_SIZE, FATTR_UID, FUSE_ATOMIC_O_TRUNC, fuse_access_in, fuse_attr, fuse_attr_out, fuse_entry_out,
    fuse_setattr_in, fuse_statx_in, fuse_statx_out, fuse_sx_time)
from .handles cimport Handle, handle_acquire, handle_release
from .ids cimport ID_NONE, id_translate
from .inode_cache cimport Borrowed, inode_borrow, inode_fd, inode_give_back, open_with_room
from .inode_lifetime cimport inode_acquire, inode_gone, inode_release
from .inode_table cimport INODE_ROOT, Inode
from .inodes cimport inode_forget
from .linux cimport (
    AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_STATX_DONT_SYNC, AT_STATX_FORCE_SYNC, EACCES, EBADF, EINVAL, EISDIR, ENOENT,
    EOPNOTSUPP, ESTALE, O_NOFOLLOW, O_PATH, O_TRUNC, O_WRONLY, S_IFDIR, S_IFLNK, S_IFREG, S_ISGID,
    S_ISUID, S_IXGRP, STATX_BASIC_STATS, STATX_BTIME, STATX_MNT_ID, UTIME_NOW, UTIME_OMIT, decimal, device_major,
    device_minor, linux_statx, linux_statx_time, memset, sys_close, sys_fchownat, sys_ftruncate,
    sys_openat, sys_readlinkat, sys_statx, sys_truncate, sys_utimensat, timespec)
from .mutex cimport lock, unlock
from .override cimport override_change, override_host_mode, override_show
from .request cimport WOULD_SLEEP, Request, next_bytes, next_name, reply
from .share cimport Context
from .xattr_ops cimport drop_capabilities

cdef enum:
    PARENTS_MAX = 4096   # directories between a directory and the share's root
    TARGET_MAX = 4096
    SECOND = 1000000000
    SYNC_FLAGS = AT_STATX_DONT_SYNC | AT_STATX_FORCE_SYNC
    CHANGES = FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE | FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | \
        FATTR_MTIME_NOW


cdef bint same_folder(int one, int other) noexcept nogil:
    """Whether two O_PATH descriptors are of one directory on one mount."""
    cdef linux_statx first, second
    if sys_statx(one, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_BASIC_STATS | STATX_MNT_ID, &first) < 0:
        return False
    if sys_statx(other, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_BASIC_STATS | STATX_MNT_ID, &second) < 0:
        return False
    return (first.stx_ino == second.stx_ino and first.stx_mnt_id == second.stx_mnt_id
            and first.stx_dev_major == second.stx_dev_major and first.stx_dev_minor == second.stx_dev_minor)


cdef bint inside_share(Context *ctx, int directory) noexcept nogil:
    """Whether the share's root is among the directory and its parents: it may have been moved out by the host."""
    cdef int root = ctx.share.inodes.root_fd
    cdef int at = sys_openat(directory, ".", O_PATH, 0)
    cdef int parent, _i
    cdef bint inside = False
    for _i in range(PARENTS_MAX):
        if at < 0:
            return False
        inside = same_folder(at, root)
        if inside:
            break
        parent = sys_openat(at, "..", O_PATH | O_NOFOLLOW, 0)
        if parent >= 0 and same_folder(parent, at):
            sys_close(parent)
            break  # the root of everything, and not ours
        sys_close(at)
        at = parent
    if at >= 0:
        sys_close(at)
    return inside


cdef int lookup_parent(Context *ctx, Inode *inode, int fd, fuse_entry_out *out) noexcept nogil:
    """LOOKUP of "..", by guests that export the file system. The root's parent is the root; outside is nothing."""
    cdef int parent
    cdef int error
    if inode.flags & INODE_ROOT:
        return enter_file(ctx, fd, NULL, NULL, out)
    parent = open_with_room(&ctx.share.inodes, fd, "..", O_PATH | O_NOFOLLOW, 0)
    if parent < 0:
        return parent
    error = enter_file(ctx, parent, NULL, NULL, out) if inside_share(ctx, parent) else -ESTALE
    sys_close(parent)
    return error


cdef int op_lookup(Context *ctx, Request *request) noexcept nogil:
    cdef const char *name = next_name(request)
    cdef fuse_entry_out out
    cdef Inode *parent
    cdef int error, fd
    if name == NULL:
        return -EINVAL
    parent = inode_acquire(&ctx.share.inodes, request.header.nodeid)
    if parent == NULL:
        return -ESTALE
    fd = inode_fd(&ctx.share.inodes, parent)
    if fd < 0:
        error = fd
    elif check_name(name) == 0:
        error = lookup_name(ctx, parent, fd, name, &out)
    elif is_dot(name):
        error = enter_file(ctx, fd, NULL, NULL, &out)
        if error == 0 and out.attr.nlink == 0:
            # Locally it would be gone; a FORGET may be under way.
            inode_forget(&ctx.share.inodes, out.nodeid, 1)
            error = -ESTALE
    elif is_dotdot(name) and parent.kind == S_IFDIR:
        error = lookup_parent(ctx, parent, fd, &out)
    else:
        error = -EINVAL
    if error == -ESTALE and (fd < 0 or is_dot(name)):
        inode_gone(&ctx.share.inodes, parent)   # asked for by a file handle of the guest's, and there is none
    inode_release(&ctx.share.inodes, parent)
    if error == -ENOENT and ctx.share.options.negative_timeout:
        # A nodeid of 0 is an ENOENT that the guest may keep for a while.
        memset(&out, 0, sizeof(out))
        out.entry_valid = <uint64_t> (ctx.share.options.negative_timeout / SECOND)
        out.entry_valid_nsec = <uint32_t> (ctx.share.options.negative_timeout % SECOND)
        error = 0
    return error if error < 0 else reply(request, &out, sizeof(out))


cdef int op_getattr(Context *ctx, Request *request) noexcept nogil:
    cdef Borrowed borrowed
    cdef fuse_attr_out out
    cdef int error = inode_borrow(&ctx.share.inodes, request.header.nodeid, &borrowed)
    if error < 0:
        return error
    error = fill_attr_out(ctx, borrowed.fd, &out)
    inode_give_back(&ctx.share.inodes, &borrowed)
    return error if error < 0 else reply(request, &out, sizeof(out))


cdef int truncate_by_open(Context *ctx, int fd) noexcept nogil:
    cdef char name[16]
    fd = sys_openat(ctx.share.proc_fd, decimal(name, fd), O_WRONLY | O_TRUNC, 0)
    if fd < 0:
        return fd
    sys_close(fd)
    return 0


cdef int change_size(Context *ctx, Request *request, const fuse_setattr_in *args, Inode *inode, int fd) noexcept nogil:
    cdef char name[16]
    cdef Handle *handle
    cdef bint joined
    cdef int error
    if <int64_t> args.size < 0:
        return -EINVAL
    if inode.kind != S_IFREG:
        return -EISDIR if inode.kind == S_IFDIR else -EINVAL
    keep_suid(ctx, not args.valid & FATTR_KILL_SUIDGID)
    joined = join_group(ctx, fd)
    if args.size == 0 and not args.valid & (FATTR_FH | FATTR_MTIME) and not ctx.share.flags & FUSE_ATOMIC_O_TRUNC:
        # For an open with O_TRUNC, which sets the times of an empty file, too; or for truncate(2), which need not, but
        # may. Linux sends the same for both; with another size, or with ATOMIC_O_TRUNC, it would be the latter.
        error = truncate_by_open(ctx, fd)
    elif not args.valid & FATTR_FH:
        error = sys_truncate(decimal(name, fd), <int64_t> args.size)
    else:
        handle = handle_acquire(&ctx.share.handles, args.fh, request.header.nodeid, False)
        error = -EBADF
        if handle != NULL:
            error = sys_ftruncate(handle.fd, <int64_t> args.size)
            handle_release(&ctx.share.handles, handle)
    if joined:
        leave_group(ctx)
    return error


cdef int change_times(const fuse_setattr_in *args, int fd) noexcept nogil:
    cdef timespec times[2]
    times[0].tv_sec = <int64_t> args.atime
    times[0].tv_nsec = args.atimensec
    times[1].tv_sec = <int64_t> args.mtime
    times[1].tv_nsec = args.mtimensec
    if args.valid & FATTR_ATIME_NOW:
        times[0].tv_nsec = UTIME_NOW
    elif not args.valid & FATTR_ATIME:
        times[0].tv_nsec = UTIME_OMIT
    elif args.atimensec >= SECOND:
        return -EINVAL
    if args.valid & FATTR_MTIME_NOW:
        times[1].tv_nsec = UTIME_NOW
    elif not args.valid & FATTR_MTIME:
        times[1].tv_nsec = UTIME_OMIT
    elif args.mtimensec >= SECOND:
        return -EINVAL
    return sys_utimensat(fd, "", times, AT_EMPTY_PATH)


cdef int change_owner(Context *ctx, const fuse_setattr_in *args, int fd) noexcept nogil:
    cdef uint32_t uid = args.uid if args.valid & FATTR_UID else <uint32_t> ID_NONE
    cdef uint32_t gid = args.gid if args.valid & FATTR_GID else <uint32_t> ID_NONE
    cdef int error = id_translate(&ctx.share.uids_to_host, &uid)
    if error == 0:
        error = id_translate(&ctx.share.gids_to_host, &gid)
    if error == 0:
        keep_suid(ctx, True)   # a set-group-id bit that nobody executes by; the others go whoever does this
        error = sys_fchownat(fd, "", uid, gid, AT_EMPTY_PATH)
    return error if error < 0 else drop_capabilities(ctx, fd)


cdef int change_noted(Context *ctx, const fuse_setattr_in *args, const Inode *inode, int fd) noexcept nogil:
    """Owner and mode, kept in an attribute; the host's mode follows as far as the daemon can live with it."""
    cdef fuse_attr attr
    cdef linux_statx stat
    cdef uint32_t mode = args.mode if args.valid & FATTR_MODE else <uint32_t> ID_NONE
    cdef int error = sys_statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stat)
    if error < 0 or inode.kind == S_IFLNK:
        return error
    memset(&attr, 0, sizeof(attr))
    attr.mode = stat.stx_mode
    attr.uid = stat.stx_uid
    attr.gid = stat.stx_gid
    lock(&ctx.share.override_lock)
    override_show(ctx, fd, &attr)
    if args.valid & (FATTR_UID | FATTR_GID) and not args.valid & FATTR_MODE and inode.kind != S_IFDIR:
        mode = attr.mode & ~<uint32_t> (S_ISUID | (S_ISGID if attr.mode & S_IXGRP else 0))
    attr.mode = stat.stx_mode
    attr.uid = stat.stx_uid
    attr.gid = stat.stx_gid
    error = override_change(ctx, fd, &attr, args.uid if args.valid & FATTR_UID else <uint32_t> ID_NONE,
                            args.gid if args.valid & FATTR_GID else <uint32_t> ID_NONE, mode)
    unlock(&ctx.share.override_lock)
    if error == 0 and args.valid & FATTR_MODE:
        error = change_host_mode(ctx, fd, override_host_mode(inode.kind | args.mode & 0o7777))
    return error


cdef int change_mode(Context *ctx, const fuse_setattr_in *args, const Inode *inode, int fd) noexcept nogil:
    if inode.kind == S_IFLNK:
        return -EOPNOTSUPP
    keep_suid(ctx, True)
    return change_host_mode(ctx, fd, args.mode & 0o7777)


cdef int change(Context *ctx, Request *request, const fuse_setattr_in *args, Inode *inode, int fd) noexcept nogil:
    """The changes in the order in which a chown cannot undo a chmod's set-id bits unasked, and a write sets no time."""
    cdef int error = 0
    if ctx.share.options.override_stat:
        if args.valid & (FATTR_UID | FATTR_GID | FATTR_MODE):
            error = change_noted(ctx, args, inode, fd)
    else:
        # A chown to nobody, and a write of whoever may not keep set-id bits, come with nothing to change: bits go.
        if args.valid & (FATTR_UID | FATTR_GID) or not args.valid & CHANGES:
            error = change_owner(ctx, args, fd)
        if error == 0 and args.valid & FATTR_MODE:
            error = change_mode(ctx, args, inode, fd)
    if error == 0 and args.valid & FATTR_SIZE:
        error = change_size(ctx, request, args, inode, fd)
        if error == 0:
            error = drop_capabilities(ctx, fd)
    if error == 0 and args.valid & (FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW):
        error = change_times(args, fd)
    return error


cdef int op_setattr(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_setattr_in *args = <const fuse_setattr_in *> next_bytes(request, sizeof(fuse_setattr_in))
    cdef Borrowed borrowed
    cdef fuse_attr_out out
    cdef int error = inode_borrow(&ctx.share.inodes, request.header.nodeid, &borrowed)
    if error < 0:
        return error
    if args.valid & FATTR_SIZE and not ctx.may_sleep and cuts_much(borrowed.fd, args.size):
        error = WOULD_SLEEP
    else:
        error = change(ctx, request, args, borrowed.inode, borrowed.fd)
    if error == 0:
        error = fill_attr_out(ctx, borrowed.fd, &out)
    inode_give_back(&ctx.share.inodes, &borrowed)
    return error if error != 0 else reply(request, &out, sizeof(out))


cdef void copy_time(const linux_statx_time *source, fuse_sx_time *out) noexcept nogil:
    out.tv_sec = source.tv_sec
    out.tv_nsec = source.tv_nsec
    out.reserved = 0


cdef int op_statx(Context *ctx, Request *request) noexcept nogil:
    """What GETATTR has not: birth time and the host's attribute bits."""
    cdef const fuse_statx_in *args = <const fuse_statx_in *> next_bytes(request, sizeof(fuse_statx_in))
    cdef Borrowed borrowed
    cdef fuse_statx_out out
    cdef fuse_attr attr
    cdef linux_statx stat
    cdef int error = inode_borrow(&ctx.share.inodes, request.header.nodeid, &borrowed)
    if error < 0:
        return error
    error = sys_statx(borrowed.fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT | <int> (args.sx_flags & SYNC_FLAGS),
                      STATX_BASIC_STATS | STATX_BTIME, &stat)
    if error == 0:
        fill_attr(ctx, borrowed.fd, &stat, &attr)
    inode_give_back(&ctx.share.inodes, &borrowed)
    if error < 0:
        return error
    memset(&out, 0, sizeof(out))
    fill_attr_valid(ctx, attr.mode, &out.attr_valid, &out.attr_valid_nsec)
    out.stat.mask = stat.stx_mask & (STATX_BASIC_STATS | STATX_BTIME)
    out.stat.blksize = stat.stx_blksize
    out.stat.attributes = stat.stx_attributes
    out.stat.attributes_mask = stat.stx_attributes_mask
    out.stat.nlink = stat.stx_nlink
    out.stat.uid = attr.uid
    out.stat.gid = attr.gid
    out.stat.mode = <uint16_t> attr.mode
    out.stat.ino = stat.stx_ino
    out.stat.size = stat.stx_size
    out.stat.blocks = stat.stx_blocks
    copy_time(&stat.stx_atime, &out.stat.atime)
    copy_time(&stat.stx_btime, &out.stat.btime)
    copy_time(&stat.stx_ctime, &out.stat.ctime)
    copy_time(&stat.stx_mtime, &out.stat.mtime)
    out.stat.rdev_major = device_major(attr.rdev)
    out.stat.rdev_minor = device_minor(attr.rdev)
    out.stat.dev_major = stat.stx_dev_major
    out.stat.dev_minor = stat.stx_dev_minor
    return reply(request, &out, sizeof(out))


cdef int op_readlink(Context *ctx, Request *request) noexcept nogil:
    cdef Inode *inode = inode_acquire(&ctx.share.inodes, request.header.nodeid)
    cdef int64_t size
    if inode == NULL:
        return -ESTALE
    size = inode_fd(&ctx.share.inodes, inode)
    if size >= 0:
        size = sys_readlinkat(<int> size, "", <char *> ctx.scratch, TARGET_MAX) if inode.kind == S_IFLNK else -EINVAL
    inode_release(&ctx.share.inodes, inode)
    return <int> size if size < 0 else reply(request, ctx.scratch, <uint32_t> size)


cdef int op_access(Context *ctx, Request *request) noexcept nogil:
    """By mode bits, for the ids in the header: Linux guests check for themselves and never ask."""
    cdef const fuse_access_in *args = <const fuse_access_in *> next_bytes(request, sizeof(fuse_access_in))
    cdef Borrowed borrowed
    cdef fuse_attr_out out
    cdef uint32_t allowed
    cdef int error = inode_borrow(&ctx.share.inodes, request.header.nodeid, &borrowed)
    if error < 0:
        return error
    error = fill_attr_out(ctx, borrowed.fd, &out)
    inode_give_back(&ctx.share.inodes, &borrowed)
    if error < 0:
        return error
    if args.mask > 7:
        return -EINVAL
    if request.header.uid == 0:
        allowed = 7 if out.attr.mode & S_IFDIR or out.attr.mode & 0o111 else 6
    elif request.header.uid == out.attr.uid:
        allowed = out.attr.mode >> 6 & 7
    elif request.header.gid == out.attr.gid:
        allowed = out.attr.mode >> 3 & 7
    else:
        allowed = out.attr.mode & 7
    return -EACCES if args.mask & ~allowed else reply(request, NULL, 0)
