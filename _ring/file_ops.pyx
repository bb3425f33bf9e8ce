"""Opening regular files, and reading, writing and changing their data, which goes straight between file and guest."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from .atomics cimport compare_exchange32, fetch_add32, load_relaxed32
from .caller cimport join_group, keep_suid, keep_suid_as_caller, leave_group
from .chain cimport Chain, chain_trim_readable, chain_trim_writable, iovec_advance
from .descriptors cimport descriptors_close
from .entries cimport cuts_much, open_inode
from .freshness cimport still_fresh, unchanged
from .fuse_abi cimport (
    FOPEN_CACHE_DIR, FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE, FOPEN_NOFLUSH, FOPEN_PARALLEL_DIRECT_WRITES,
    FUSE_DIRECT_IO_ALLOW_MMAP, FUSE_FLOCK_LOCKS, FUSE_FSYNC_FDATASYNC, FUSE_OPEN_KILL_SUIDGID, FUSE_POSIX_LOCKS,
    FUSE_RELEASE_FLOCK_UNLOCK, FUSE_RELEASE_FLUSH, FUSE_WRITEBACK_CACHE, FUSE_WRITE_CACHE, FUSE_WRITE_KILL_SUIDGID,
    fuse_copy_file_range_in, fuse_copy_file_range_out, fuse_fallocate_in, fuse_flush_in, fuse_fsync_in, fuse_lseek_in,
    fuse_lseek_out, fuse_open_in, fuse_open_out, fuse_read_in, fuse_release_in, fuse_write_in, fuse_write_out)
from .handles cimport Handle, handle_acquire, handle_close, handle_new, handle_publish, handle_release
from .inode_cache cimport inode_fd, inode_outlive, inode_reach_by
from .inode_eviction cimport make_room, open_counted
from .inode_lifetime cimport inode_acquire, inode_release, inodes_free_space
from .inode_table cimport MOUNT_HANDLES, Inode, Mount
from .kept cimport kept_take
from .linux cimport (
    AT_EMPTY_PATH, AT_STATX_DONT_SYNC, EAGAIN, EBADF, EFBIG, EINVAL, EIO, EISDIR, ENOMEM, ENOSYS, ENXIO, EOPNOTSUPP,
    EPERM, EROFS, ESTALE, IOV_MAX, OWNER_LOCAL, LOCK_UN, O_ACCMODE, O_APPEND, O_DIRECT, O_DSYNC, O_NOATIME,
    O_RDONLY, O_RDWR, O_SYNC, O_TRUNC, O_WRONLY, S_IFDIR, S_IFREG, SEEK_DATA, SEEK_HOLE, RWF_NOWAIT, STATX_SIZE, iovec,
    linux_statx, memset, sys_appends, sys_close, sys_copy_file_range, sys_dup, sys_fallocate, sys_fdatasync, sys_flock,
    sys_fsync, sys_lseek, sys_preadv, sys_preadv2, sys_pwritev, sys_statx)
from .lock_owners cimport cancel_handle, owner_drop, owners_drop_handle
from .opened cimport handle_of, opens_nothing
from .request cimport WOULD_SLEEP, Request, next_bytes, reply, reply_in_place
from .share cimport CACHE_ALWAYS, CACHE_AUTO, CACHE_METADATA, CACHE_NEVER, Context
from .xattr_ops cimport drop_capabilities

cdef enum:
    OPEN_FLAGS = O_ACCMODE | O_SYNC | O_DSYNC | O_TRUNC
    PAGE = 4096
    COPY_MAX = 0x7ffff000   # what fits into a 32-bit reply, in whole pages

cdef uint64_t COPY_64_MAX = 1 << 40

cdef enum Direction:
    READING
    WRITING
    WRITING_CACHE     # what the guest has in its page cache


cdef int host_flags(const Context *ctx, uint32_t flags) noexcept nogil:
    """The guest's open flags as far as they matter here: O_APPEND does not, as every WRITE says where it goes."""
    cdef uint32_t kept = OPEN_FLAGS
    if ctx.share.options.allow_direct_io:
        kept |= O_DIRECT
    if ctx.share.options.preserve_noatime:
        kept |= O_NOATIME
    flags &= kept
    if ctx.share.flags & FUSE_WRITEBACK_CACHE and flags & O_ACCMODE == O_WRONLY:
        flags = flags & ~<uint32_t> O_ACCMODE | O_RDWR   # the guest reads the pages that it writes in part
    return <int> flags


cdef int may_open(const Context *ctx, uint32_t flags) noexcept nogil:
    """0, or -EROFS for an open that could change a share that is read-only."""
    if ctx.share.options.readonly and (flags & O_ACCMODE != O_RDONLY or flags & O_TRUNC):
        return -EROFS
    return 0


cdef int open_file(Context *ctx, Inode *inode, uint32_t flags, uint32_t open_flags) noexcept nogil:
    """Opens a pinned regular file as the guest wants it. fd or -errno."""
    cdef bint joined = False
    cdef int fd
    if flags & O_TRUNC:
        keep_suid(ctx, not open_flags & FUSE_OPEN_KILL_SUIDGID)
        fd = inode_fd(&ctx.share.inodes, inode)
        joined = fd >= 0 and join_group(ctx, fd)
    fd = open_inode(ctx, inode, host_flags(ctx, flags))
    if joined:
        leave_group(ctx)
    if fd == -EPERM and flags & O_APPEND:
        fd = open_inode(ctx, inode, host_flags(ctx, flags) | O_APPEND)   # a file that can only be appended to
    if fd >= 0 and flags & O_TRUNC:
        drop_capabilities(ctx, fd)
    return fd


cdef bint may_keep(const Context *ctx, const Inode *inode, uint32_t flags) noexcept nogil:
    """Whether a file that is opened so may stay open after RELEASE, for the next OPEN.

    Only of file systems that have no part in an OPEN (a network's asks its server), and not with flock, which the
    descriptor would keep.
    """
    cdef const Mount *mount = ctx.share.inodes.mounts + inode.mount
    return (ctx.share.kept.slots != NULL and ctx.share.options.cache == CACHE_AUTO and inode.kind == S_IFREG
            and host_flags(ctx, flags) == O_RDONLY and not ctx.share.flags & FUSE_FLOCK_LOCKS
            and load_relaxed32(&mount.how) == MOUNT_HANDLES and load_relaxed32(&mount.owner) == OWNER_LOCAL)


cdef bint no_flush(const Context *ctx, const Inode *inode, uint32_t flags) noexcept nogil:
    """Whether nobody needs to hear of a close() of a file that is opened so: there are no locks to give up, and nothing
    to write. What is open for writing alone has no mapping, whose pages a guest writes then; and its file system must
    have nothing to say.
    """
    if ctx.share.flags & FUSE_POSIX_LOCKS:
        return False
    return flags & O_ACCMODE == O_RDONLY or (
        flags & O_ACCMODE == O_WRONLY and not ctx.share.flags & FUSE_WRITEBACK_CACHE
        and load_relaxed32(&ctx.share.inodes.mounts[inode.mount].owner) == OWNER_LOCAL)


cdef uint32_t cache_flags(Context *ctx, Inode *inode, int fd, uint32_t flags, bint directory,
                          Opened how) noexcept nogil:
    """What the guest may keep in its page cache of a file that it opens: FOPEN flags."""
    cdef uint32_t cache = ctx.share.options.cache
    cdef uint32_t keep = FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR if directory else FOPEN_KEEP_CACHE
    if cache == CACHE_ALWAYS or (cache == CACHE_METADATA and directory):
        return keep
    if cache == CACHE_NEVER or cache == CACHE_METADATA:
        return 0 if directory else FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES
    # Writes side by side; a guest that could not map the file then goes without, and past its cache all the same.
    if flags & O_DIRECT and ctx.share.options.allow_direct_io and ctx.share.flags & FUSE_DIRECT_IO_ALLOW_MMAP:
        return FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES
    # What was changed just now is no basis for a record: nothing need be asked of what was created.
    if how == UNCHANGED or how != CREATED and still_fresh(inode, fd):
        return keep
    # A listing may be kept from now on, whether or not an older one is dropped.
    return FOPEN_CACHE_DIR if directory else 0


cdef int add_handle(Context *ctx, int fd, uint64_t nodeid, uint32_t flags, bint directory, Opened how,
                    fuse_open_out *out) noexcept nogil:
    """A handle for `fd`, which may be a -errno and then is the answer. 0 or -errno.

    The descriptor is taken care of, and has been counted with open_counted before anything was opened or cut.
    """
    cdef Inode *inode = NULL
    cdef Handle *handle
    cdef int error = fd
    if fd >= 0:
        memset(out, 0, sizeof(fuse_open_out))
        inode = inode_acquire(&ctx.share.inodes, nodeid)
        error = 0 if inode != NULL else -ESTALE
        if error < 0:
            sys_close(fd)
    if error < 0:
        descriptors_close(&ctx.share.descriptors)
    else:
        out.open_flags = cache_flags(ctx, inode, fd, flags, directory, how)
        if not directory and no_flush(ctx, inode, flags):
            out.open_flags |= FOPEN_NOFLUSH
        handle = handle_new(&ctx.share.handles, fd, nodeid, inode.mount, flags, directory,
                            may_keep(ctx, inode, flags), &out.fh)
        if how == CREATED:
            inode_reach_by(&ctx.share.inodes, inode, handle)
        if handle == NULL:
            error = -ENOMEM
        else:
            fetch_add32(&inode.opens, 1)
            handle_publish(handle, out.fh)
    if inode != NULL:
        inode_release(&ctx.share.inodes, inode)
    if error == 0:
        make_room(&ctx.share.inodes)
    return error


cdef int op_open(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_open_in *args = <const fuse_open_in *> next_bytes(request, sizeof(fuse_open_in))
    cdef fuse_open_out out
    cdef Inode *inode
    cdef int fd
    cdef int kept = -1
    cdef bint fresh = False
    cdef int error = may_open(ctx, args.flags)
    if error == 0 and opens_nothing(ctx, False):
        error = -ENOSYS
    if error < 0:
        return error
    inode = inode_acquire(&ctx.share.inodes, request.header.nodeid)
    if inode == NULL:
        return -ESTALE
    if inode.kind != S_IFREG:
        error = -EISDIR if inode.kind == S_IFDIR else -ENXIO
    elif args.flags & O_TRUNC and not ctx.may_sleep:
        fd = inode_fd(&ctx.share.inodes, inode)
        if fd >= 0 and cuts_much(fd, 0):
            error = WOULD_SLEEP
    if error == 0:
        error = open_counted(&ctx.share.inodes)
    if error != 0:
        inode_release(&ctx.share.inodes, inode)
        return error
    if may_keep(ctx, inode, args.flags):
        kept = kept_take(&ctx.share.kept, request.header.nodeid)
        fresh = kept >= 0 and unchanged(inode, kept)
    if fresh:
        error = kept
    else:
        error = open_file(ctx, inode, args.flags, args.open_flags)
        if kept >= 0:
            sys_close(kept)
    inode_release(&ctx.share.inodes, inode)
    error = add_handle(ctx, error, request.header.nodeid, args.flags, False,
                       UNCHANGED if fresh else MAY_HAVE_CHANGED, &out)
    return error if error < 0 else reply(request, &out, sizeof(out))


cdef inline Handle *file_of(Context *ctx, const Request *request, uint64_t fh, int *error) noexcept nogil:
    return handle_of(ctx, fh, request.header.nodeid, False, error)


cdef uint64_t bytes_of(const iovec *iov, uint32_t count) noexcept nogil:
    cdef uint64_t size = 0
    cdef uint32_t i
    for i in range(count):
        size += iov[i].iov_len
    return size


cdef int64_t transfer(Context *ctx, int fd, iovec *iov, uint32_t count, uint64_t size, uint64_t offset,
                      Direction direction) noexcept nogil:
    """Reads or writes `size` bytes by as many calls as it takes. The bytes done, at least one if any; or -errno.

    A short read is the end of the file only where that cannot be the edge of something unreadable, else the next call
    says what it is: a guest takes a short reply for the end, and would cut the file there. A short write is a success
    with so many bytes to a program's write(), but not to a guest that writes its page cache: it looks at the error
    alone.
    """
    cdef bint writing = direction != READING
    cdef uint64_t done = 0
    cdef uint64_t asked = size
    cdef uint32_t here, used
    cdef int64_t moved
    while done < size:
        here = count
        asked = size - done
        if count > IOV_MAX:
            here = IOV_MAX
            asked = bytes_of(iov, here)
        if writing:
            moved = sys_pwritev(fd, iov, <int> here, <int64_t> (offset + done))
            if moved < 0 and inodes_free_space(&ctx.share.inodes, moved):
                moved = sys_pwritev(fd, iov, <int> here, <int64_t> (offset + done))
        else:
            moved = sys_preadv(fd, iov, <int> here, <int64_t> (offset + done))
        if moved < 0:
            # A read that failed has no data, lest it be taken for the file's end.
            return moved if not done or direction != WRITING else <int64_t> done
        if moved == 0 and direction == WRITING_CACHE:
            return -EIO
        done += <uint64_t> moved
        if moved == 0 or done == size or not writing and <uint64_t> moved < asked and (offset + done) % PAGE:
            break
        used = iovec_advance(iov, count, <uint64_t> moved)
        iov += used
        count -= used
    return <int64_t> done


cdef int64_t read_cached(Context *ctx, Request *request, Handle *handle, uint64_t size, uint64_t offset) noexcept nogil:
    """Reads what is there without waiting for a disk. The bytes, if that is all there is to read; or WOULD_SLEEP, with
    what was read noted in the request.

    A short result is not the end of the file: the next page may not be cached. The size tells.
    """
    cdef Mount *mount = ctx.share.inodes.mounts + handle.mount
    cdef Chain *chain = &request.chain
    cdef uint32_t count = chain.write_end - chain.write_first
    cdef linux_statx stat
    cdef int64_t got = sys_preadv2(
        handle.fd, chain.iov + chain.write_first, <int> (count if count < IOV_MAX else IOV_MAX), <int64_t> offset,
        RWF_NOWAIT)
    if got == <int64_t> size:
        return got
    if got == -EOPNOTSUPP:
        mount.no_nowait = 1   # a file system in memory, or an old one: it is read at once
        return transfer(ctx, handle.fd, chain.iov + chain.write_first, count, size, offset, READING)
    if got >= 0 and count <= IOV_MAX and sys_statx(
            handle.fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &stat) == 0 and \
            offset + <uint64_t> got >= stat.stx_size:
        return got
    if got > 0:
        chain.write_first += iovec_advance(chain.iov + chain.write_first, count, <uint64_t> got)
        chain.writable_bytes -= <uint64_t> got
        request.done = <uint64_t> got
    return -EAGAIN


cdef inline bint wants_no_direct(const Context *ctx, const Handle *handle, uint32_t flags, bint cached) noexcept nogil:
    """Whether the host's O_DIRECT, that wants whole blocks, is none of the request's, whose open flags are `flags` now:
    the guest's page cache (`cached`) is written through any handle, and a program may take the flag back.
    """
    return (handle.flags & O_DIRECT and ctx.share.options.allow_direct_io) and (cached or not flags & O_DIRECT)


cdef int64_t transfer_buffered(Context *ctx, Request *request, iovec *iov, uint32_t count, uint64_t size,
                               uint64_t offset, Direction direction) noexcept nogil:
    """transfer(), by a descriptor that was opened without O_DIRECT for this once."""
    cdef Inode *inode = inode_acquire(&ctx.share.inodes, request.header.nodeid)
    cdef int64_t moved
    cdef int fd
    if inode == NULL:
        return -ESTALE
    fd = open_inode(ctx, inode, O_RDONLY if direction == READING else O_WRONLY)
    inode_release(&ctx.share.inodes, inode)
    if fd < 0:
        return fd
    moved = transfer(ctx, fd, iov, count, size, offset, direction)
    sys_close(fd)
    return moved


cdef int op_read(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_read_in *args = <const fuse_read_in *> next_bytes(request, sizeof(fuse_read_in))
    cdef Handle *handle
    cdef int error
    cdef uint64_t offset = args.offset + request.done
    cdef uint64_t size = args.size - request.done
    cdef int64_t got
    if <int64_t> args.offset < 0 or <int64_t> (args.offset + args.size) < 0:
        return -EINVAL
    if request.chain.writable_bytes < size:
        return -EINVAL
    handle = file_of(ctx, request, args.fh, &error)
    if handle == NULL:
        return error
    chain_trim_writable(&request.chain, size)
    if wants_no_direct(ctx, handle, args.flags, False):
        got = -EAGAIN if not ctx.may_sleep else transfer_buffered(
            ctx, request, request.chain.iov + request.chain.write_first,
            request.chain.write_end - request.chain.write_first, size, offset, READING)
    elif ctx.may_sleep or ctx.share.inodes.mounts[handle.mount].no_nowait:
        got = transfer(ctx, handle.fd, request.chain.iov + request.chain.write_first,
                       request.chain.write_end - request.chain.write_first, size, offset, READING)
    else:
        got = read_cached(ctx, request, handle, size, offset)
    handle_release(&ctx.share.handles, handle)
    if got == -EAGAIN and not ctx.may_sleep:
        return WOULD_SLEEP
    return <int> got if got < 0 else reply_in_place(request, request.done + <uint64_t> got)


cdef uint64_t appended_already(const Handle *handle, uint64_t offset, uint64_t size) noexcept nogil:
    """How many bytes at the front of a write from the guest's page cache an open file has that can only be appended to:
    wherever a write goes, its bytes go to the end. Such a page begins with what was there before.
    """
    cdef linux_statx stat
    if not handle.flags & O_APPEND or not sys_appends(handle.fd) or \
            sys_statx(handle.fd, "", AT_EMPTY_PATH, STATX_SIZE, &stat) < 0 or stat.stx_size <= offset:
        return 0
    return size if stat.stx_size - offset > size else stat.stx_size - offset


cdef bint writes_alone(Context *ctx, const Request *request) noexcept nogil:
    """Whether the file system is taken to have a WRITE wait for others to its file, all in all: what goes to the page
    cache. Several threads would only be in each other's way there. What goes to the disk itself, or waits for that,
    does so side by side.
    """
    cdef const fuse_write_in *args = <const fuse_write_in *> request.args
    cdef uint32_t flags = args.flags
    cdef Handle *handle = handle_acquire(&ctx.share.handles, args.fh, request.header.nodeid, False)
    if handle != NULL:
        flags |= handle.flags
        handle_release(&ctx.share.handles, handle)
    return not flags & O_SYNC and not (flags & O_DIRECT and ctx.share.options.allow_direct_io)


cdef int op_write(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_write_in *args = <const fuse_write_in *> next_bytes(request, sizeof(fuse_write_in))
    cdef fuse_write_out out
    cdef Handle *handle
    cdef Direction direction = WRITING_CACHE if args.write_flags & FUSE_WRITE_CACHE else WRITING
    cdef bint buffered, joined
    cdef int error
    cdef uint32_t sync
    cdef int64_t written
    cdef uint64_t there = 0
    cdef iovec *iov
    cdef uint32_t count
    if <int64_t> args.offset < 0 or <int64_t> (args.offset + args.size) < 0:
        return -EFBIG
    if request.chain.readable_bytes < args.size:
        return -EINVAL
    handle = file_of(ctx, request, args.fh, &error)
    if handle == NULL:
        return error
    buffered = wants_no_direct(ctx, handle, args.flags, direction == WRITING_CACHE)
    # A single write (RWF_DSYNC) or a whole mount may want what the descriptor does not do. O_SYNC has O_DSYNC in it.
    sync = args.flags & O_SYNC & ~(0 if buffered else handle.flags)
    if sync and not ctx.may_sleep:
        handle_release(&ctx.share.handles, handle)
        return WOULD_SLEEP
    chain_trim_readable(&request.chain, args.size)
    if direction == WRITING_CACHE:
        there = appended_already(handle, args.offset, args.size)
        request.chain.read_first += iovec_advance(
            request.chain.iov + request.chain.read_first, request.chain.read_end - request.chain.read_first, there)
    iov = request.chain.iov + request.chain.read_first
    count = request.chain.read_end - request.chain.read_first
    keep_suid(ctx, not args.write_flags & FUSE_WRITE_KILL_SUIDGID)
    joined = join_group(ctx, handle.fd)
    if buffered:
        written = transfer_buffered(ctx, request, iov, count, args.size - there, args.offset + there, direction)
    else:
        written = transfer(ctx, handle.fd, iov, count, args.size - there, args.offset + there, direction)
    if joined:
        leave_group(ctx)
    if written != 0:    # one that has failed may have got somewhere before
        drop_capabilities(ctx, handle.fd)
    if sync and written > 0:
        error = sys_fdatasync(handle.fd) if sync == O_DSYNC else sys_fsync(handle.fd)
        written = error if error < 0 else written
    handle_release(&ctx.share.handles, handle)
    if written < 0:
        return <int> written
    out.size = <uint32_t> (there + <uint64_t> written)
    out.padding = 0
    return reply(request, &out, sizeof(out))


cdef void one_less_open(Inode *inode) noexcept nogil:
    # None, where the session has ended meanwhile.
    cdef uint32_t opens = load_relaxed32(&inode.opens)
    while opens and not compare_exchange32(&inode.opens, &opens, opens - 1):
        pass


cdef int release(Context *ctx, Request *request, bint directory) noexcept nogil:
    """RELEASE and RELEASEDIR: the guest's last close. What waits for a flock of the handle is cut short."""
    cdef const fuse_release_in *args = <const fuse_release_in *> next_bytes(request, sizeof(fuse_release_in))
    cdef Handle *handle = handle_acquire(&ctx.share.handles, args.fh, request.header.nodeid, directory)
    cdef Inode *inode
    cdef bint closed
    if handle == NULL:
        return -EBADF
    if ctx.share.flags & FUSE_FLOCK_LOCKS and args.release_flags & FUSE_RELEASE_FLOCK_UNLOCK:
        sys_flock(handle.fd, LOCK_UN)
    if ctx.share.flags & FUSE_POSIX_LOCKS and args.release_flags & FUSE_RELEASE_FLUSH:
        owner_drop(&ctx.share.locks, request.header.nodeid, args.lock_owner)
    if load_relaxed32(&handle.locked):
        owners_drop_handle(&ctx.share.locks, request.header.nodeid, args.fh)
    inode = inode_acquire(&ctx.share.inodes, request.header.nodeid)
    if inode != NULL:
        inode_outlive(&ctx.share.inodes, inode, handle)
    else:
        handle.keep = 0     # the guest has forgotten it already, and nobody would close it soon
    closed = handle_close(&ctx.share.handles, handle)
    if ctx.share.flags & FUSE_FLOCK_LOCKS:
        cancel_handle(&ctx.share.locks, args.fh)
    handle_release(&ctx.share.handles, handle)
    if inode != NULL:
        if closed:
            one_less_open(inode)
        inode_release(&ctx.share.inodes, inode)
    return reply(request, NULL, 0) if closed else -EBADF


cdef int op_release(Context *ctx, Request *request) noexcept nogil:
    return release(ctx, request, False)


cdef int op_flush(Context *ctx, Request *request) noexcept nogil:
    """A close() in the guest: errors that a file system reports only then (NFS) are had by closing a copy."""
    cdef const fuse_flush_in *args = <const fuse_flush_in *> next_bytes(request, sizeof(fuse_flush_in))
    cdef Handle *handle
    cdef int error
    if opens_nothing(ctx, False):
        return -ENOSYS
    handle = file_of(ctx, request, args.fh, &error)
    if handle == NULL:
        return error
    if ctx.share.flags & FUSE_POSIX_LOCKS:
        owner_drop(&ctx.share.locks, request.header.nodeid, args.lock_owner)
    error = 0
    if load_relaxed32(&ctx.share.inodes.mounts[handle.mount].owner) != OWNER_LOCAL:
        error = sys_dup(handle.fd)
        if error >= 0:
            error = sys_close(error)
    handle_release(&ctx.share.handles, handle)
    return error if error < 0 else reply(request, NULL, 0)


cdef int op_fsync(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_fsync_in *args = <const fuse_fsync_in *> next_bytes(request, sizeof(fuse_fsync_in))
    cdef int error
    cdef Handle *handle = file_of(ctx, request, args.fh, &error)
    if handle == NULL:
        return error
    error = sys_fdatasync(handle.fd) if args.fsync_flags & FUSE_FSYNC_FDATASYNC else sys_fsync(handle.fd)
    handle_release(&ctx.share.handles, handle)
    return error if error < 0 else reply(request, NULL, 0)


cdef int op_lseek(Context *ctx, Request *request) noexcept nogil:
    """SEEK_DATA and SEEK_HOLE; positions are the guest's own business."""
    cdef const fuse_lseek_in *args = <const fuse_lseek_in *> next_bytes(request, sizeof(fuse_lseek_in))
    cdef fuse_lseek_out out
    cdef Handle *handle
    cdef int error
    cdef int64_t found
    if ctx.share.flags & FUSE_WRITEBACK_CACHE:
        return -ENOSYS   # the guest does not write back before it asks: what it has yet to write would be a hole
    if args.whence != SEEK_DATA and args.whence != SEEK_HOLE:
        return -EINVAL
    if <int64_t> args.offset < 0:
        return -ENXIO
    handle = file_of(ctx, request, args.fh, &error)
    if handle == NULL:
        return error
    found = sys_lseek(handle.fd, <int64_t> args.offset, <int> args.whence)
    handle_release(&ctx.share.handles, handle)
    if found < 0:
        return <int> found
    out.offset = <uint64_t> found
    return reply(request, &out, sizeof(out))


cdef int op_fallocate(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_fallocate_in *args = <const fuse_fallocate_in *> next_bytes(request, sizeof(fuse_fallocate_in))
    cdef Handle *handle
    cdef bint joined
    cdef int error
    if <int64_t> args.offset < 0 or <int64_t> args.length <= 0:
        return -EINVAL
    if <int64_t> (args.offset + args.length) < 0:
        return -EFBIG
    handle = file_of(ctx, request, args.fh, &error)
    if handle == NULL:
        return error
    keep_suid_as_caller(ctx, request)
    joined = join_group(ctx, handle.fd)
    error = sys_fallocate(handle.fd, <int> args.mode, <int64_t> args.offset, <int64_t> args.length)
    if joined:
        leave_group(ctx)
    if error == 0:
        error = drop_capabilities(ctx, handle.fd)
    handle_release(&ctx.share.handles, handle)
    return error if error < 0 else reply(request, NULL, 0)


cdef int64_t copy_range(Context *ctx, Request *request, uint64_t most) noexcept nogil:
    """Copies between two files of the guest. The bytes copied, or -errno."""
    cdef const fuse_copy_file_range_in *args = <const fuse_copy_file_range_in *> next_bytes(
        request, sizeof(fuse_copy_file_range_in))
    cdef int64_t source_offset = <int64_t> args.off_in
    cdef int64_t target_offset = <int64_t> args.off_out
    cdef Handle *source
    cdef Handle *target
    cdef bint joined
    cdef int64_t copied = -EBADF
    if source_offset < 0 or target_offset < 0 or args.flags:
        return -EINVAL
    source = handle_acquire(&ctx.share.handles, args.fh_in, request.header.nodeid, False)
    target = handle_acquire(&ctx.share.handles, args.fh_out, args.nodeid_out, False)
    if source != NULL and target != NULL:
        keep_suid_as_caller(ctx, request)
        joined = join_group(ctx, target.fd)
        most = args.len if args.len < most else most
        copied = sys_copy_file_range(source.fd, &source_offset, target.fd, &target_offset, most, 0)
        if joined:
            leave_group(ctx)
        if copied != 0:     # as of a WRITE
            drop_capabilities(ctx, target.fd)
    if source != NULL:
        handle_release(&ctx.share.handles, source)
    if target != NULL:
        handle_release(&ctx.share.handles, target)
    return copied


cdef int op_copy_file_range(Context *ctx, Request *request) noexcept nogil:
    cdef fuse_write_out out
    cdef int64_t copied = copy_range(ctx, request, COPY_MAX)
    if copied < 0:
        return <int> copied
    out.size = <uint32_t> copied
    out.padding = 0
    return reply(request, &out, sizeof(out))


cdef int op_copy_file_range_64(Context *ctx, Request *request) noexcept nogil:
    cdef fuse_copy_file_range_out out
    cdef int64_t copied = copy_range(ctx, request, COPY_64_MAX)
    if copied < 0:
        return <int> copied
    out.bytes_copied = <uint64_t> copied
    return reply(request, &out, sizeof(out))
