"""POSIX and BSD locks on the host's files, so that guests and host processes exclude each other.

A lock that is not free is waited for by a thread of its own (waits.pyx): neither queue nor pool stands still.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from .atomics cimport store_relaxed32
from .descriptors cimport descriptors_close
from .entries cimport open_inode
from .fuse_abi cimport FUSE_FLOCK_LOCKS, FUSE_LK_FLOCK, FUSE_POSIX_LOCKS, fuse_lk_in, fuse_lk_out
from .inode_eviction cimport open_counted
from .handles cimport Handle, handle_acquire, handle_release
from .inode_lifetime cimport inode_acquire, inode_release
from .inode_table cimport Inode
from .linux cimport (
    EACCES, EAGAIN, EBADF, EINVAL, ENOLCK, ENOMEM, ENOSYS, EPERM, EROFS, ESTALE, ETXTBSY, F_OFD_GETLK, F_OFD_SETLK,
    F_RDLCK, F_UNLCK, F_WRLCK, LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, O_RDONLY, O_RDWR, flock, memset, sys_fcntl_lock,
    sys_flock)
from .lock_owners cimport (
    LockOwner, owner_add, owner_find, owner_in_the_way, owner_locked, owner_may_lock, owner_release)
from .request cimport WAITS, Request, next_bytes, reply
from .share cimport Context

cdef enum:
    SEEK_FROM_START = 0

cdef uint64_t END_OF_FILE = 0x7fffffffffffffffULL


cdef bint is_open(Context *ctx, const Request *request, const fuse_lk_in *args) noexcept nogil:
    """Whether the guest has the file open as it says; its locks end with that."""
    cdef Handle *handle = handle_acquire(&ctx.share.handles, args.fh, request.header.nodeid, False)
    if handle == NULL:
        return False
    if not handle.locked:
        store_relaxed32(&handle.locked, 1)
    handle_release(&ctx.share.handles, handle)
    return True


cdef int to_flock(Context *ctx, const Request *request, const fuse_lk_in *args, flock *out) noexcept nogil:
    """The range as fcntl takes it. 0 or -EINVAL; -EBADF where the file is not open."""
    if args.lk.type > F_UNLCK or args.lk.start > args.lk.end or args.lk.end > END_OF_FILE:
        return -EINVAL
    memset(out, 0, sizeof(flock))
    out.l_type = <short> args.lk.type
    out.l_whence = SEEK_FROM_START
    out.l_start = <int64_t> args.lk.start
    # A length of 0 is up to the end, however far that moves.
    out.l_len = 0 if args.lk.end == END_OF_FILE else <int64_t> (args.lk.end - args.lk.start + 1)
    return 0 if is_open(ctx, request, args) else -EBADF


cdef int open_for_locks(Context *ctx, uint64_t nodeid) noexcept nogil:
    """A description of its own, counted; for reading alone where the file may not be written. fd or -errno."""
    cdef Inode *inode = inode_acquire(&ctx.share.inodes, nodeid)
    cdef int fd
    if inode == NULL:
        return -ESTALE
    if open_counted(&ctx.share.inodes) < 0:
        inode_release(&ctx.share.inodes, inode)
        return -ENOLCK
    fd = -EROFS if ctx.share.options.readonly else open_inode(ctx, inode, O_RDWR)
    if fd == -EACCES or fd == -EPERM or fd == -EROFS or fd == -ETXTBSY:
        fd = open_inode(ctx, inode, O_RDONLY)
    inode_release(&ctx.share.inodes, inode)
    if fd < 0:
        descriptors_close(&ctx.share.descriptors)
    return fd


cdef LockOwner *owner_of(Context *ctx, const Request *request, const fuse_lk_in *args, bint create,
                         int *error) noexcept nogil:
    """The owner's record for the inode, pinned; made where there is none and one is needed. NULL and -errno, or 0."""
    cdef LockOwner *owner = owner_find(&ctx.share.locks, request.header.nodeid, args.owner)
    cdef int fd
    error[0] = 0
    if owner != NULL or not create:
        return owner
    fd = open_for_locks(ctx, request.header.nodeid)
    if fd < 0:
        error[0] = fd
        return NULL
    owner = owner_add(&ctx.share.locks, request.header.nodeid, args.owner, args.fh, fd)
    if owner == NULL:
        error[0] = -ENOMEM
    return owner


cdef int op_getlk(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_lk_in *args = <const fuse_lk_in *> next_bytes(request, sizeof(fuse_lk_in))
    cdef fuse_lk_out out
    cdef LockOwner *owner
    cdef flock found
    cdef int error
    if not ctx.share.flags & FUSE_POSIX_LOCKS:
        return -ENOSYS
    error = to_flock(ctx, request, args, &found)
    if error < 0:
        return error
    owner = owner_of(ctx, request, args, True, &error)
    if owner == NULL:
        return error
    error = sys_fcntl_lock(owner.fd, F_OFD_GETLK, &found)
    owner_release(&ctx.share.locks, owner)
    if error < 0:
        return error
    memset(&out, 0, sizeof(out))
    out.lk.type = <uint32_t> found.l_type
    if found.l_type != F_UNLCK:
        out.lk.start = <uint64_t> found.l_start
        out.lk.end = <uint64_t> (found.l_start + found.l_len - 1) if found.l_len else END_OF_FILE
        out.lk.pid = owner_in_the_way(&ctx.share.locks, request.header.nodeid, args.owner, out.lk.start, out.lk.end,
                                      <uint32_t> F_WRLCK)
    return reply(request, &out, sizeof(out))


cdef int set_posix(Context *ctx, Request *request, const fuse_lk_in *args, bint waits) noexcept nogil:
    cdef LockOwner *owner
    cdef flock wanted
    cdef int error = to_flock(ctx, request, args, &wanted)
    if error < 0:
        return error
    owner = owner_of(ctx, request, args, args.lk.type != F_UNLCK, &error)
    if owner == NULL:
        return error if error < 0 else reply(request, NULL, 0)   # nothing to unlock
    if owner_may_lock(&ctx.share.locks, owner, args.lk.start, args.lk.end, args.lk.type):
        error = sys_fcntl_lock(owner.fd, F_OFD_SETLK, &wanted)
    else:
        error = -ENOLCK
    if error == -EAGAIN and waits:
        request.wait.is_flock = 0
        request.wait.over = &owner.dropped
        request.wait.nodeid = request.header.nodeid
        request.wait.owner = args.owner
        request.wait.fd = owner.fd
        request.wait.lock = wanted
        request.wait.start = args.lk.start
        request.wait.end = args.lk.end
        request.wait.kind = args.lk.type
        request.wait.pid = args.lk.pid
        request.wait_owner = owner
        return WAITS
    if error == 0:
        owner_locked(&ctx.share.locks, owner, args.lk.start, args.lk.end, args.lk.type, args.lk.pid)
    owner_release(&ctx.share.locks, owner)
    return error if error < 0 else reply(request, NULL, 0)


cdef int set_flock(Context *ctx, Request *request, const fuse_lk_in *args, bint waits) noexcept nogil:
    cdef Handle *handle
    cdef int operation, error
    if args.lk.type == F_UNLCK:
        operation = LOCK_UN
    elif args.lk.type == F_WRLCK:
        operation = LOCK_EX
    elif args.lk.type == F_RDLCK:
        operation = LOCK_SH
    else:
        return -EINVAL
    handle = handle_acquire(&ctx.share.handles, args.fh, request.header.nodeid, False)
    if handle == NULL:
        handle = handle_acquire(&ctx.share.handles, args.fh, request.header.nodeid, True)
    if handle == NULL:
        return -EBADF
    error = sys_flock(handle.fd, operation | LOCK_NB)
    if error == -EAGAIN and waits:
        request.wait.is_flock = 1
        request.wait.over = &handle.killed
        request.wait.fh = args.fh
        request.wait.fd = handle.fd
        request.wait.operation = operation
        request.wait_handle = handle
        return WAITS
    handle_release(&ctx.share.handles, handle)
    return error if error < 0 else reply(request, NULL, 0)


cdef int set_lock(Context *ctx, Request *request, bint waits) noexcept nogil:
    cdef const fuse_lk_in *args = <const fuse_lk_in *> next_bytes(request, sizeof(fuse_lk_in))
    if args.lk_flags & FUSE_LK_FLOCK:
        return set_flock(ctx, request, args, waits) if ctx.share.flags & FUSE_FLOCK_LOCKS else -ENOSYS
    return set_posix(ctx, request, args, waits) if ctx.share.flags & FUSE_POSIX_LOCKS else -ENOSYS


cdef int op_setlk(Context *ctx, Request *request) noexcept nogil:
    return set_lock(ctx, request, False)


cdef int op_setlkw(Context *ctx, Request *request) noexcept nogil:
    return set_lock(ctx, request, True)
