"""Creating, removing and renaming: one system call in a directory, and for what is new its entry."""

from libc.stdint cimport uint32_t, uint64_t

from .caller cimport caller_enter, caller_ids, caller_leave
from .entries cimport check_name, enter_created, enter_linked, fill_attr_out, lookup_name
from .extensions cimport SecurityContext, contexts_of
from .file_ops cimport CREATED, MAY_HAVE_CHANGED, Opened, add_handle, host_flags, open_file
from .fuse_abi cimport (
    FUSE_DONT_MASK, FUSE_SECURITY_CTX, fuse_attr_out, fuse_create_in, fuse_entry_out, fuse_link_in,
    fuse_mkdir_in, fuse_mknod_in, fuse_open_out, fuse_rename2_in, fuse_rename_in)
from .inode_cache cimport inode_fd
from .inode_eviction cimport RESERVE_FOR_NEW, has_room, open_counted
from .inode_lifetime cimport inode_acquire, inode_gone, inode_release, inodes_removed
from .inode_places cimport inode_seen_at
from .inode_table cimport INODE_BY_CTIME, MOUNT_HANDLES, Inode
from .inodes cimport inode_find, inode_forget, is_deleted, mount_of
from .linux cimport (
    AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, EEXIST, EINVAL, EISDIR,
    ENFILE, ENOENT, EOPNOTSUPP, ESTALE, O_CREAT, O_EXCL, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_TMPFILE, O_TRUNC,
    RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISGID,
    STATX_BASIC_STATS, STATX_INO, STATX_MNT_ID, decimal, linux_statx, memset, sys_close, sys_fchownat, sys_linkat,
    sys_mkdirat, sys_mknodat, sys_openat, sys_renameat2, sys_statx, sys_symlinkat, sys_unlinkat)
from .override cimport override_host_mode, override_set
from .request cimport Request, next_bytes, next_name, reply
from .share cimport Context
from .xattr_ops cimport set_label


# What CREATE answers.
cdef struct Created:
    fuse_entry_out entry
    fuse_open_out open


cdef enum:
    RENAME_FLAGS = RENAME_EXCHANGE | RENAME_NOREPLACE | RENAME_WHITEOUT
    EXISTING_TRIES = 4
    CONTEXTS_MAX = 4


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


cdef Inode *parent_for_new(Context *ctx, const Request *request, int *fd) noexcept nogil:
    """parent_of(), for a request that makes something: nothing is made that could not be shown to the guest."""
    if not has_room(&ctx.share.inodes, RESERVE_FOR_NEW):
        fd[0] = -ENFILE
        return NULL
    return parent_of(ctx, request, fd)


cdef inline uint32_t shown_mode(const Context *ctx, uint32_t mode, uint32_t umask) noexcept nogil:
    """The mode of a new file under fake root, which the host's umask has no part in."""
    return mode & ~umask if ctx.share.flags & FUSE_DONT_MASK else mode


cdef int describe(Context *ctx, Request *request, const Inode *parent, int fd, uint32_t mode, uint32_t umask,
                  uint32_t rdev) noexcept nogil:
    """Notes what the host does not know of a new file: owner and mode (fake root), security contexts. 1, or 0 where
    there was nothing to note, or -errno.
    """
    cdef SecurityContext contexts[CONTEXTS_MAX]
    cdef fuse_attr_out above
    cdef uint32_t gid = request.header.gid
    cdef int count, i
    cdef int error = 0
    cdef bint noted = False
    if ctx.share.options.override_stat:
        noted = True
        mode = shown_mode(ctx, mode, umask)
        if mode & S_IFMT != S_IFLNK and fill_attr_out(ctx, parent.fd, &above) == 0 and above.attr.mode & S_ISGID:
            gid = above.attr.gid
            if mode & S_IFMT == S_IFDIR:
                mode |= S_ISGID
        error = override_set(ctx, fd, request.header.uid, gid, mode, rdev)
    if error == 0 and ctx.share.flags & FUSE_SECURITY_CTX:
        count = contexts_of(request, contexts, CONTEXTS_MAX)
        if count < 0:
            return count
        for i in range(count):
            noted = True
            error = set_label(ctx, fd, contexts[i].name, contexts[i].label, contexts[i].size)
            if error < 0:
                return error
    return error if error < 0 else noted


cdef int describe_entry(Context *ctx, Request *request, const Inode *parent, uint32_t mode, uint32_t umask,
                        uint32_t rdev,
                        fuse_entry_out *out) noexcept nogil:
    """describe(), for a file that has been looked up already; its attributes are told anew."""
    cdef Inode *inode
    cdef fuse_attr_out attributes
    cdef int error
    if not ctx.share.options.override_stat and not ctx.share.flags & FUSE_SECURITY_CTX:
        return 0
    inode = inode_acquire(&ctx.share.inodes, out.nodeid)
    if inode == NULL:
        return -ESTALE
    error = inode_fd(&ctx.share.inodes, inode)
    if error >= 0:
        error = describe(ctx, request, parent, inode.fd, mode, umask, rdev)
        if error > 0:
            error = fill_attr_out(ctx, inode.fd, &attributes)
            if error == 0:
                out.attr = attributes.attr
    inode_release(&ctx.share.inodes, inode)
    return error


cdef void undo(int parent_fd, const char *name, uint64_t ino, int flags) noexcept nogil:
    """Removes what was just created, unless the host has put something else in its place."""
    cdef linux_statx stat
    if sys_statx(parent_fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_INO, &stat) == 0 and stat.stx_ino == ino:
        sys_unlinkat(parent_fd, name, flags)


cdef int reply_created(Context *ctx, Request *request, Inode *parent, int parent_fd, const char *name, uint32_t mode,
                       uint32_t umask, uint32_t rdev, int error) noexcept nogil:
    """Answers with the entry of what was just created, unless that failed; lets go of the parent."""
    cdef fuse_entry_out out
    if error == 0:
        error = lookup_name(ctx, parent, parent_fd, name, &out)
        if error == 0:
            error = describe_entry(ctx, request, parent, mode, umask, rdev, &out)
            if error < 0:
                inode_forget(&ctx.share.inodes, out.nodeid, 1)
                undo(parent_fd, name, out.attr.ino, AT_REMOVEDIR if mode & S_IFMT == S_IFDIR else 0)
    inode_release(&ctx.share.inodes, parent)
    return error if error < 0 else reply(request, &out, sizeof(out))


cdef inline uint32_t host_mode(const Context *ctx, uint32_t mode, uint32_t umask) noexcept nogil:
    """The mode that a new file gets on the host; there umask and default ACLs see to the rest."""
    if ctx.share.options.override_stat:
        return override_host_mode(shown_mode(ctx, mode, umask))
    return mode & 0o7777


cdef int op_mknod(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_mknod_in *args = <const fuse_mknod_in *> next_bytes(request, sizeof(fuse_mknod_in))
    cdef const char *name = next_name(request)
    cdef uint32_t kind = args.mode & S_IFMT
    cdef Inode *parent
    cdef int fd, error
    if check_name(name) < 0:
        return -EINVAL
    parent = parent_for_new(ctx, request, &fd)
    if parent == NULL:
        return fd
    error = caller_enter(ctx, request, args.umask)
    if error == 0:
        # A regular file stands in for what a plain user may not make, or give an attribute to.
        error = sys_mknodat(fd, name, (<uint32_t> S_IFREG if ctx.share.options.override_stat else kind)
                            | host_mode(ctx, args.mode, args.umask), args.rdev)
        caller_leave(ctx, request)
    return reply_created(ctx, request, parent, fd, name, args.mode if kind else args.mode | S_IFREG, args.umask,
                         args.rdev, error)


cdef int op_mkdir(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_mkdir_in *args = <const fuse_mkdir_in *> next_bytes(request, sizeof(fuse_mkdir_in))
    cdef const char *name = next_name(request)
    cdef uint32_t mode = S_IFDIR | args.mode & 0o7777
    cdef Inode *parent
    cdef int fd, error
    if check_name(name) < 0:
        return -EINVAL
    parent = parent_for_new(ctx, request, &fd)
    if parent == NULL:
        return fd
    error = caller_enter(ctx, request, args.umask)
    if error == 0:
        error = sys_mkdirat(fd, name, host_mode(ctx, mode, args.umask))
        caller_leave(ctx, request)
    return reply_created(ctx, request, parent, fd, name, mode, args.umask, 0, error)


cdef int op_symlink(Context *ctx, Request *request) noexcept nogil:
    cdef const char *name = next_name(request)
    cdef const char *target = next_name(request)
    cdef Inode *parent
    cdef int fd, error
    if check_name(name) < 0 or target == NULL:
        return -EINVAL
    parent = parent_for_new(ctx, request, &fd)
    if parent == NULL:
        return fd
    error = caller_enter(ctx, request, 0)
    if error == 0:
        error = sys_symlinkat(target, fd, name)
        caller_leave(ctx, request)
    return reply_created(ctx, request, parent, fd, name, S_IFLNK | 0o777, 0, 0, error)


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
    parent = parent_for_new(ctx, request, &fd)
    if parent == NULL:
        return fd
    error = -ESTALE
    old = inode_acquire(&ctx.share.inodes, args.oldnodeid)
    if old != NULL:
        old_fd = inode_fd(&ctx.share.inodes, old)
        error = old_fd
        if old_fd >= 0:
            error = sys_linkat(old_fd, "", fd, name, AT_EMPTY_PATH)
            if error == -ENOENT:
                # Without CAP_DAC_READ_SEARCH: through /proc, which takes longer.
                error = sys_linkat(ctx.share.proc_fd, decimal(old_name, old_fd), fd, name, AT_SYMLINK_FOLLOW)
            if error == 0:
                error = enter_linked(ctx, old_fd, parent, name, &out)
        inode_release(&ctx.share.inodes, old)
    inode_release(&ctx.share.inodes, parent)
    return error if error < 0 else reply(request, &out, sizeof(out))


cdef int open_existing(Context *ctx, Inode *parent, int parent_fd, const char *name, uint32_t flags,
                       uint32_t open_flags,
                       fuse_entry_out *out) noexcept nogil:
    """Opens what has the name already, for a CREATE without O_EXCL. fd or -errno."""
    cdef Inode *inode
    cdef int fd
    cdef int error = lookup_name(ctx, parent, parent_fd, name, out)
    if error < 0:
        return error
    inode = inode_acquire(&ctx.share.inodes, out.nodeid)
    # Anything but a regular file is not what the guest saw when it sent CREATE: it looks the name up again.
    fd = -ESTALE
    if inode != NULL:
        if inode.kind == S_IFREG:
            fd = open_file(ctx, inode, flags, open_flags)
        inode_release(&ctx.share.inodes, inode)
    if fd < 0:
        inode_forget(&ctx.share.inodes, out.nodeid, 1)
    return fd


cdef int enter_new(Context *ctx, Request *request, Inode *parent, int parent_fd, const char *name, int fd,
                   const fuse_create_in *args, fuse_entry_out *out) noexcept nogil:
    """The entry of a file that was created and opened; removed again where that fails (NULL name: it has none)."""
    cdef linux_statx stat
    cdef uint32_t mode = S_IFREG | args.mode & 0o7777
    cdef int error = describe(ctx, request, parent, fd, mode, args.umask, 0)
    if error >= 0:
        error = enter_created(ctx, fd, error > 0, parent, name, out)
    if error < 0:
        if name != NULL and sys_statx(fd, "", AT_EMPTY_PATH, STATX_INO, &stat) == 0:
            undo(parent_fd, name, stat.stx_ino, 0)
        sys_close(fd)
        return error
    return fd


cdef int open_new(Context *ctx, Request *request, Inode *parent, int parent_fd, const char *name,
                  const fuse_create_in *args, Opened *how, fuse_entry_out *out) noexcept nogil:
    """Creates and opens the file as the caller; for root, opens the one that is there. fd or -errno."""
    cdef int flags = host_flags(ctx, args.flags) & ~O_TRUNC | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK
    cdef int fd, error, _i
    for _i in range(EXISTING_TRIES):
        error = caller_enter(ctx, request, args.umask)
        if error < 0:
            return error
        fd = sys_openat(parent_fd, name, flags, host_mode(ctx, args.mode & 0o7777, args.umask))
        caller_leave(ctx, request)
        how[0] = CREATED
        if fd >= 0:
            return enter_new(ctx, request, parent, parent_fd, name, fd, args, out)
        if fd != -EEXIST or args.flags & O_EXCL:
            return fd
        # The guest's kernel takes the file for a new one, and does not ask whether the caller may open it. Told that
        # what it knew is stale it looks the name up again, and asks.
        if request.header.uid != 0:
            return -ESTALE
        how[0] = MAY_HAVE_CHANGED
        fd = open_existing(ctx, parent, parent_fd, name, args.flags, args.open_flags, out)
        if fd != -ENOENT:
            return fd
        # It was removed in between: once more.
    return -ESTALE


cdef int reply_opened(Context *ctx, Request *request, Inode *parent, int fd, uint32_t flags,
                      Opened how, Created *out) noexcept nogil:
    """Answers CREATE and TMPFILE, whose file is open, or with the -errno that `fd` is; lets go of the parent."""
    # add_handle also gives the place back that was reserved, where nothing was opened.
    cdef int error = add_handle(ctx, fd, out.entry.nodeid, flags, False, how, &out.open)
    if error < 0 and fd >= 0:
        inode_forget(&ctx.share.inodes, out.entry.nodeid, 1)
    inode_release(&ctx.share.inodes, parent)
    return error if error < 0 else reply(request, out, sizeof(Created))


cdef int op_create(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_create_in *args = <const fuse_create_in *> next_bytes(request, sizeof(fuse_create_in))
    cdef const char *name = next_name(request)
    cdef Inode *parent
    cdef int parent_fd, fd
    cdef Opened how = MAY_HAVE_CHANGED
    cdef Created out
    if check_name(name) < 0:
        return -EINVAL
    parent = parent_of(ctx, request, &parent_fd)
    if parent == NULL:
        return parent_fd
    memset(&out, 0, sizeof(out))
    fd = open_counted(&ctx.share.inodes)
    if fd < 0:
        inode_release(&ctx.share.inodes, parent)
        return fd
    fd = open_new(ctx, request, parent, parent_fd, name, args, &how, &out.entry)
    return reply_opened(ctx, request, parent, fd, args.flags, how, &out)


cdef int op_tmpfile(Context *ctx, Request *request) noexcept nogil:
    """A file without a name, which LINK may give it later. The request's name means nothing."""
    cdef const fuse_create_in *args = <const fuse_create_in *> next_bytes(request, sizeof(fuse_create_in))
    cdef Inode *parent
    cdef int parent_fd, fd
    cdef char path[16]
    cdef Created out
    parent = parent_of(ctx, request, &parent_fd)
    if parent == NULL:
        return parent_fd
    memset(&out, 0, sizeof(out))
    fd = open_counted(&ctx.share.inodes)
    if fd < 0:
        inode_release(&ctx.share.inodes, parent)
        return fd
    fd = caller_enter(ctx, request, args.umask)
    if fd == 0:
        fd = sys_openat(ctx.share.proc_fd, decimal(path, parent_fd),
                        host_flags(ctx, args.flags) & ~(O_TRUNC | O_EXCL) | O_TMPFILE | args.flags & O_EXCL,
                        host_mode(ctx, args.mode & 0o7777, args.umask))
        caller_leave(ctx, request)
        if fd == -EISDIR or fd == -ENOENT:
            fd = -EOPNOTSUPP   # how a file system says that it cannot
        if fd >= 0:
            fd = enter_new(ctx, request, parent, parent_fd, NULL, fd, args, &out.entry)
    return reply_opened(ctx, request, parent, fd, args.flags, CREATED, &out)


cdef Inode *known_at(Context *ctx, int parent_fd, const char *name, linux_statx *stat) noexcept nogil:
    """The inode of the name, pinned, if the guest knows it; else NULL."""
    cdef int mount
    if sys_statx(parent_fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS | STATX_MNT_ID, stat) < 0:
        return NULL
    mount = mount_of(&ctx.share.inodes, stat)
    return inode_find(&ctx.share.inodes, <uint32_t> mount, stat.stx_ino) if mount >= 0 else NULL


cdef Inode *keep_found(Context *ctx, const Inode *parent, int parent_fd, const char *name,
                       bint moves) noexcept nogil:
    """Pins what has the name, if it is known and there is more to do than the host does: let_found_go() has to follow.

    It gets its descriptor if it could not be found again by name afterwards: it `moves`, or has other names; where
    there are no birth times its ctime changes.
    """
    cdef linux_statx stat
    cdef Inode *inode
    cdef bint by_name = ctx.share.inodes.mounts[parent.mount].how != MOUNT_HANDLES
    if not by_name and (moves or not ctx.share.inodes.remembers):
        return NULL
    inode = known_at(ctx, parent_fd, name, &stat)
    if inode != NULL and by_name and (moves or stat.stx_nlink > 1 or inode.flags & INODE_BY_CTIME):
        inode_fd(&ctx.share.inodes, inode)
    return inode


cdef void let_found_go(Context *ctx, Inode *inode, int error) noexcept nogil:
    """After the name was removed, or not (`error`). What has none any more need not be remembered."""
    cdef int fd
    if inode == NULL:
        return
    if error == 0 and ctx.share.inodes.remembers:
        fd = inode_fd(&ctx.share.inodes, inode)
        if fd == -ESTALE or fd >= 0 and is_deleted(fd):
            inode_gone(&ctx.share.inodes, inode)
    inode_release(&ctx.share.inodes, inode)


cdef int remove_name(Context *ctx, Request *request, int flags) noexcept nogil:
    cdef const char *name = next_name(request)
    cdef Inode *parent
    cdef Inode *kept
    cdef int fd, error
    if check_name(name) < 0:
        return -EINVAL
    parent = parent_of(ctx, request, &fd)
    if parent == NULL:
        return fd
    kept = keep_found(ctx, parent, fd, name, False)
    error = sys_unlinkat(fd, name, flags)
    if error == 0:
        inodes_removed(&ctx.share.inodes)
    let_found_go(ctx, kept, error)
    inode_release(&ctx.share.inodes, parent)
    return error if error < 0 else reply(request, NULL, 0)


cdef int op_unlink(Context *ctx, Request *request) noexcept nogil:
    return remove_name(ctx, request, 0)


cdef int op_rmdir(Context *ctx, Request *request) noexcept nogil:
    return remove_name(ctx, request, AT_REMOVEDIR)


cdef void seen_at(Context *ctx, Inode *parent, int parent_fd, const char *name) noexcept nogil:
    """Where there are no file handles, the new name of what was renamed is how it will be found again."""
    cdef linux_statx stat
    cdef Inode *inode
    if ctx.share.inodes.mounts[parent.mount].how == MOUNT_HANDLES:
        return
    inode = known_at(ctx, parent_fd, name, &stat)
    if inode != NULL:
        inode_seen_at(&ctx.share.inodes, inode, parent, name)
        inode_release(&ctx.share.inodes, inode)


cdef void own_whiteout(Context *ctx, const Request *request, int parent_fd, const char *name) noexcept nogil:
    """The whiteout that a rename has left is its caller's, as on a local file system."""
    cdef linux_statx stat
    cdef uint32_t uid, gid
    cdef int fd
    if caller_ids(ctx, request, &uid, &gid) < 0 or (uid == ctx.share.own_uid and gid == ctx.share.own_gid):
        return
    # By a descriptor: the host may put another file there at any time.
    fd = sys_openat(parent_fd, name, O_PATH | O_NOFOLLOW, 0)
    if fd < 0:
        return
    if sys_statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_BASIC_STATS, &stat) == 0 and \
            stat.stx_mode & S_IFMT == S_IFCHR and stat.stx_rdev_major == 0 and stat.stx_rdev_minor == 0:
        sys_fchownat(fd, "", uid, gid, AT_EMPTY_PATH)
    sys_close(fd)


cdef int rename(Context *ctx, Request *request, uint64_t new_parent, uint32_t flags) noexcept nogil:
    cdef const char *old_name = next_name(request)
    cdef const char *new_name = next_name(request)
    cdef Inode *source
    cdef Inode *target
    cdef Inode *moved
    cdef Inode *other
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
            moved = keep_found(ctx, source, source_fd, old_name, True)
            other = keep_found(ctx, target, target_fd, new_name, flags & RENAME_EXCHANGE)
            error = sys_renameat2(source_fd, old_name, target_fd, new_name, flags)
            if error == 0:
                inodes_removed(&ctx.share.inodes)   # what had the new name, perhaps
                seen_at(ctx, target, target_fd, new_name)
                if flags & RENAME_EXCHANGE:
                    seen_at(ctx, source, source_fd, old_name)
                if flags & RENAME_WHITEOUT:
                    own_whiteout(ctx, request, source_fd, old_name)
            if moved != NULL:
                inode_release(&ctx.share.inodes, moved)
            let_found_go(ctx, other, error)
        inode_release(&ctx.share.inodes, target)
    inode_release(&ctx.share.inodes, source)
    return error if error < 0 else reply(request, NULL, 0)


cdef int op_rename(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_rename_in *args = <const fuse_rename_in *> next_bytes(request, sizeof(fuse_rename_in))
    return rename(ctx, request, args.newdir, 0)


cdef int op_rename2(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_rename2_in *args = <const fuse_rename2_in *> next_bytes(request, sizeof(fuse_rename2_in))
    return rename(ctx, request, args.newdir, args.flags)
