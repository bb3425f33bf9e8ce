"""Looking names up, and filling in what LOOKUP, the creating operations and READDIRPLUS answer."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from .atomics cimport load_relaxed32, store_relaxed32
from .fuse_abi cimport (
    FUSE_ATTR_SUBMOUNT, FUSE_HANDLE_KILLPRIV_V2, FUSE_SUBMOUNTS, FUSE_WRITEBACK_CACHE, fuse_attr, fuse_attr_out,
    fuse_entry_out)
from .ids cimport id_translate
from .inode_cache cimport inode_fd, open_by_handle, open_with_room
from .inode_eviction cimport RESERVE_FOR_KNOWN, has_room
from .inode_identity cimport IDENTITY, mount_how
from .inode_lifetime cimport inode_acquire, inode_release
from .inode_places cimport inode_seen_at
from .inode_table cimport MOUNT_HANDLES, MUCH, Inode, InodeTable, Mount
from .inodes cimport inode_add, inode_count_lookup, inode_forget, mount_of
from .linux cimport (
    AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_STATX_DONT_SYNC, AT_SYMLINK_NOFOLLOW, EACCES, EINVAL, ENFILE, ENOSYS, ENXIO,
    EPERM, ESTALE, OWNER_LOCAL, O_DIRECTORY, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_PATH, STATX_BASIC_STATS, STATX_BTIME,
    STATX_CTIME, STATX_MTIME, STATX_SIZE, S_IFDIR, S_IFMT, S_IFREG, S_ISGID, S_ISUID, S_IXGRP, decimal, device_encode,
    linux_statx, sys_close, sys_fchmodat, sys_fchmodat2, sys_statx)
from .override cimport override_show
from .share cimport Context

cdef enum:
    TIMES = STATX_MTIME | STATX_CTIME
    SECOND = 1000000000
    UNKNOWN_LIKELY = 8   # lookups in a row that found an inode unknown: the next one will, too


cdef bint is_dot(const char *name) noexcept nogil:
    return name[0] == c'.' and name[1] == 0


cdef bint is_dotdot(const char *name) noexcept nogil:
    return name[0] == c'.' and name[1] == c'.' and name[2] == 0


cdef int check_name(const char *name) noexcept nogil:
    """0 for one component that is not "." or "..", else -EINVAL. NULL, a name that does not end, is none."""
    cdef const char *at = name
    if name == NULL or name[0] == 0 or is_dot(name) or is_dotdot(name):
        return -EINVAL
    while at[0]:
        if at[0] == c'/':
            return -EINVAL
        at += 1
    return 0


cdef void fill_attr(Context *ctx, int fd, const linux_statx *stat, fuse_attr *attr) noexcept nogil:
    """What the guest sees of the file behind `fd`, whose attributes are `stat`."""
    attr.ino = stat.stx_ino
    attr.size = stat.stx_size
    attr.blocks = stat.stx_blocks
    attr.atime = <uint64_t> stat.stx_atime.tv_sec
    attr.mtime = <uint64_t> stat.stx_mtime.tv_sec
    attr.ctime = <uint64_t> stat.stx_ctime.tv_sec
    attr.atimensec = stat.stx_atime.tv_nsec
    attr.mtimensec = stat.stx_mtime.tv_nsec
    attr.ctimensec = stat.stx_ctime.tv_nsec
    attr.mode = stat.stx_mode
    if stat.stx_mode & (S_IFMT | S_ISGID | S_IXGRP) == S_IFREG | S_ISGID and not ctx.share.lone_sgid:
        store_relaxed32(&ctx.share.lone_sgid, 1)
    attr.nlink = stat.stx_nlink
    attr.uid = stat.stx_uid
    attr.gid = stat.stx_gid
    attr.rdev = device_encode(stat.stx_rdev_major, stat.stx_rdev_minor)
    attr.blksize = stat.stx_blksize
    attr.flags = 0
    if ctx.share.options.override_stat:
        override_show(ctx, fd, attr)
    if ctx.share.uids_to_guest.count:
        id_translate(&ctx.share.uids_to_guest, &attr.uid)
    if ctx.share.gids_to_guest.count:
        id_translate(&ctx.share.gids_to_guest, &attr.gid)


cdef void fill_attr_valid(const Context *ctx, uint32_t mode, uint64_t *seconds, uint32_t *nanoseconds) noexcept nogil:
    """How long the guest may know attributes with this mode.

    With HANDLE_KILLPRIV_V2 it does not notice that a write has cleared set-id bits. It must not execute the file by
    what it knew before.
    """
    cdef int64_t timeout = ctx.share.options.attr_timeout
    if mode & (S_ISUID | S_ISGID) and mode & S_IFMT == S_IFREG and ctx.share.flags & FUSE_HANDLE_KILLPRIV_V2:
        timeout = 0
    seconds[0] = <uint64_t> (timeout / SECOND)
    nanoseconds[0] = <uint32_t> (timeout % SECOND)


cdef int fill_attr_out(Context *ctx, int fd, fuse_attr_out *out) noexcept nogil:
    """The attributes of the file, with how long they are valid. 0 or -errno."""
    cdef linux_statx stat
    cdef int error = sys_statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_BASIC_STATS, &stat)
    if error < 0:
        return error
    fill_attr(ctx, fd, &stat, &out.attr)
    fill_attr_valid(ctx, out.attr.mode, &out.attr_valid, &out.attr_valid_nsec)
    out.dummy = 0
    return 0


cdef void fill_entry(Context *ctx, uint64_t nodeid, int fd, const Inode *parent, uint32_t mount,
                     const linux_statx *stat,
                     fuse_entry_out *out) noexcept nogil:
    fill_attr(ctx, fd, stat, &out.attr)
    fill_attr_valid(ctx, out.attr.mode, &out.attr_valid, &out.attr_valid_nsec)
    out.nodeid = nodeid
    out.generation = 0   # the nodeid has its own
    out.entry_valid = <uint64_t> (ctx.share.options.entry_timeout / SECOND)
    out.entry_valid_nsec = <uint32_t> (ctx.share.options.entry_timeout % SECOND)
    # A directory on another mount than its parent: the guest mounts it too, with a device number of its own.
    if parent != NULL and parent.mount != mount and ctx.share.flags & FUSE_SUBMOUNTS and \
            stat.stx_mode & S_IFMT == S_IFDIR:
        out.attr.flags = FUSE_ATTR_SUBMOUNT


cdef int identify(Context *ctx, int fd, uint32_t mask, linux_statx *stat) noexcept nogil:
    """What tells the file from all others. Its mount's number, or -errno."""
    cdef int error = sys_statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, mask, stat)
    return error if error < 0 else mount_of(&ctx.share.inodes, stat)


cdef int enter(Context *ctx, int fd, bint opened, uint32_t mount, const linux_statx *stat, Inode *parent,
               const char *name, fuse_entry_out *out) noexcept nogil:
    """The entry of a descriptor that becomes the table's, or that a guest has `opened`: as inode_add() has it."""
    cdef uint64_t nodeid = 0
    cdef bint known = False
    cdef int error
    # What is shown is read before the table may close the descriptor.
    fill_entry(ctx, 0, fd, parent, mount, stat, out)
    error = inode_add(&ctx.share.inodes, mount, stat, fd, opened, parent, name, &nodeid, &known)
    out.nodeid = nodeid
    if known:
        ctx.unknown = 0
    return error


cdef int enter_opened(Context *ctx, int fd, Inode *parent, const char *name, fuse_entry_out *out) noexcept nogil:
    """The entry of an O_PATH descriptor, which becomes the inode table's."""
    cdef linux_statx stat
    cdef int mount = identify(ctx, fd, IDENTITY, &stat)
    if mount < 0:
        sys_close(fd)
        return mount
    return enter(ctx, fd, False, <uint32_t> mount, &stat, parent, name, out)


cdef int enter_known(Context *ctx, uint64_t nodeid, Inode *parent, const char *name, uint32_t mount,
                     const linux_statx *stat, fuse_entry_out *out) noexcept nogil:
    """The entry of an inode that has a descriptor, and has had its reference counted."""
    cdef InodeTable *table = &ctx.share.inodes
    cdef Inode *inode
    cdef int fd = -1
    if not ctx.share.options.override_stat and table.mounts[mount].how == MOUNT_HANDLES:
        fill_entry(ctx, nodeid, -1, parent, mount, stat, out)
        return 0
    inode = inode_acquire(table, nodeid)
    if inode == NULL:
        return -ESTALE   # another request has forgotten it meanwhile
    if table.mounts[mount].how != MOUNT_HANDLES:
        inode_seen_at(table, inode, parent, name)
    fd = inode_fd(table, inode)
    if fd >= 0:
        fill_entry(ctx, nodeid, fd, parent, mount, stat, out)
    inode_release(table, inode)
    return fd if fd < 0 else 0


cdef int lookup_name(Context *ctx, Inode *parent, int parent_fd, const char *name, fuse_entry_out *out) noexcept nogil:
    """The entry of a name in a directory, with one more reference to it. The name has been checked. 0 or -errno.

    One statx where the inode is known and has a descriptor; else it is opened, and what was opened counts: the name
    may be another file's by then. Where the last lookups found nothing known, opening comes first and saves the statx.
    """
    cdef linux_statx stat
    cdef uint64_t nodeid
    cdef int mount, fd, error
    if ctx.unknown < UNKNOWN_LIKELY:
        error = sys_statx(parent_fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, IDENTITY, &stat)
        if error < 0:
            return error
        mount = mount_of(&ctx.share.inodes, &stat)
        if mount < 0:
            return mount
        nodeid = inode_count_lookup(&ctx.share.inodes, <uint32_t> mount, &stat)
        if nodeid:
            ctx.unknown = 0
            error = enter_known(ctx, nodeid, parent, name, <uint32_t> mount, &stat, out)
            if error < 0:
                inode_forget(&ctx.share.inodes, nodeid, 1)
            return error
    ctx.unknown += 1
    if not has_room(&ctx.share.inodes, RESERVE_FOR_KNOWN):
        return -ENFILE
    fd = open_with_room(&ctx.share.inodes, parent_fd, name, O_PATH | O_NOFOLLOW, 0)
    if fd < 0:
        return fd
    return enter_opened(ctx, fd, parent, name, out)


cdef int enter_file(Context *ctx, int fd, Inode *parent, const char *name, fuse_entry_out *out) noexcept nogil:
    """The entry of a file that was just opened or created; `fd` stays open. Its name (NULL: none) is what it was
    created by. 0 or -errno.
    """
    cdef char number[16]
    cdef int path_fd = -ENFILE
    if has_room(&ctx.share.inodes, RESERVE_FOR_KNOWN):
        path_fd = open_with_room(&ctx.share.inodes, ctx.share.proc_fd, decimal(number, fd), O_PATH, 0)
    if path_fd < 0:
        return path_fd
    return enter_opened(ctx, path_fd, parent, name, out)


cdef int enter_linked(Context *ctx, int fd, Inode *parent, const char *name, fuse_entry_out *out) noexcept nogil:
    """enter_file(), for an inode that has one more name: it is known, and `fd` is its descriptor."""
    cdef linux_statx stat
    cdef uint64_t nodeid
    cdef int mount = identify(ctx, fd, IDENTITY, &stat)
    cdef int error
    if mount < 0:
        return mount
    nodeid = inode_count_lookup(&ctx.share.inodes, <uint32_t> mount, &stat)
    if nodeid == 0:
        return enter_file(ctx, fd, parent, name, out)
    error = enter_known(ctx, nodeid, parent, name, <uint32_t> mount, &stat, out)
    if error < 0:
        inode_forget(&ctx.share.inodes, nodeid, 1)
    return error


cdef inline bint by_handle_alone(const Context *ctx) noexcept nogil:
    """Whether a file that the guest has closed needs no descriptor. A guest with a write-back cache has yet to tell the
    times of what it has closed, and maybe removed by then: what has no name is found by a descriptor only.
    """
    return not ctx.share.flags & FUSE_WRITEBACK_CACHE


cdef int identify_new(Context *ctx, int fd, linux_statx *stat) noexcept nogil:
    """identify(), for what was created just now.

    Who asks for its times makes the first write store a finer one, even within the same tick of the clock. They are
    those of its birth, as long as nothing is in it; and with its first byte the size changes, too.
    """
    cdef int mount = identify(ctx, fd, IDENTITY & ~<uint32_t> TIMES, stat)
    if mount < 0 or stat.stx_mask & TIMES == TIMES:
        return mount    # an older kernel, that tells them unasked
    if not stat.stx_mask & STATX_BTIME or stat.stx_size:
        return identify(ctx, fd, IDENTITY, stat)
    stat.stx_mtime = stat.stx_btime
    stat.stx_ctime = stat.stx_btime
    return mount


cdef bint needs_descriptor(Context *ctx, const Inode *parent) noexcept nogil:
    """Whether what is created in the directory has to have a descriptor of its own at once."""
    cdef InodeTable *table = &ctx.share.inodes
    cdef Mount *mount = table.mounts + parent.mount
    # mount_how() also finds out whose the file system is.
    return (table.remembers or not by_handle_alone(ctx)
            or mount_how(table, parent.mount, parent.fd, S_IFDIR) != MOUNT_HANDLES
            or load_relaxed32(&mount.owner) != OWNER_LOCAL)


cdef int enter_created(Context *ctx, int fd, bint described, Inode *parent, const char *name,
                       fuse_entry_out *out) noexcept nogil:
    """enter_file(), for what CREATE or TMPFILE (NULL name) has made in a directory, whose descriptor is open.

    Where its handle will find the file later, its inode has no descriptor but `fd` until the guest closes that:
    add_handle() has to follow. `described`: it was changed already.
    """
    cdef Inode *found_in = parent if name != NULL else NULL
    cdef linux_statx stat
    cdef int mount
    if needs_descriptor(ctx, parent):
        return enter_file(ctx, fd, found_in, name, out)
    if described or not load_relaxed32(&ctx.share.inodes.mounts[parent.mount].born_whole):
        mount = identify(ctx, fd, IDENTITY, &stat)
    else:
        mount = identify_new(ctx, fd, &stat)
    if mount < 0:
        return mount
    if <uint32_t> mount != parent.mount:
        return enter_file(ctx, fd, found_in, name, out)
    return enter(ctx, fd, True, <uint32_t> mount, &stat, found_in, name, out)


cdef bint cuts_much(int fd, uint64_t size) noexcept nogil:
    """Whether to cut the file to `size` bytes means to free so much of it that this takes long."""
    cdef linux_statx stat
    return sys_statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &stat) == 0 and \
        stat.stx_size > size and stat.stx_size - size > MUCH


cdef int change_host_mode(Context *ctx, int fd, uint32_t mode) noexcept nogil:
    """By the descriptor itself, or where that is not to be had (before Linux 6.6) through /proc, which takes longer."""
    cdef char name[16]
    cdef int error = -ENOSYS
    if not load_relaxed32(&ctx.share.no_fchmodat2):
        error = sys_fchmodat2(fd, "", mode, AT_EMPTY_PATH)
        if error == -ENOSYS:
            store_relaxed32(&ctx.share.no_fchmodat2, 1)
    if error == -ENOSYS or error == -EPERM:     # which container run-times say of what they do not know
        error = sys_fchmodat(ctx.share.proc_fd, decimal(name, fd), mode)
    return error


cdef int open_inode(Context *ctx, Inode *inode, int flags) noexcept nogil:
    """Opens a pinned inode for I/O: a regular file or a directory, never a FIFO or a device of the host. fd or -errno.

    Where there is another way it does not go through /proc, which takes longer than all the rest.
    """
    cdef char name[16]
    cdef int fd, found
    flags |= O_NOCTTY | O_NONBLOCK
    if inode.kind == S_IFDIR:
        flags |= O_DIRECTORY
    elif inode.kind != S_IFREG:
        return -ENXIO
    elif by_handle_alone(ctx):
        found = open_by_handle(&ctx.share.inodes, inode, flags)
        if found >= 0:
            return found
    fd = inode_fd(&ctx.share.inodes, inode)
    if fd < 0:
        return fd
    if inode.kind == S_IFDIR:
        found = open_with_room(&ctx.share.inodes, fd, ".", flags, 0)
        if found != -EACCES:
            return found    # else it may not be searched, which to open it need not
    return open_with_room(&ctx.share.inodes, ctx.share.proc_fd, decimal(name, fd), flags, 0)
