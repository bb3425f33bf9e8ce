"""Opening and reading directories."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from .entries cimport is_dot, is_dotdot, lookup_name, open_inode
from .file_ops cimport MAY_HAVE_CHANGED, add_handle, release
from .fuse_abi cimport (
    FUSE_FSYNC_FDATASYNC, fuse_dirent, fuse_direntplus, fuse_entry_out, fuse_fsync_in, fuse_open_out, fuse_read_in)
from .handles cimport Handle, handle_release
from .inode_eviction cimport open_counted
from .inode_lifetime cimport inode_acquire, inode_release
from .inode_table cimport INODE_ROOT, Inode
from .linux cimport (
    EINVAL, ENOENT, ENOSYS, ENOTDIR, ESTALE, O_RDONLY, S_IFDIR, SEEK_SET, linux_dirent, memcpy, memset, strlen,
    sys_fdatasync, sys_fsync, sys_getdents64, sys_lseek)
from .mutex cimport lock, unlock
from .opened cimport handle_of, opens_nothing
from .request cimport Request, next_bytes, reply
from .share cimport SCRATCH, Context

cdef enum:
    HALF = SCRATCH / 2           # host entries in one half of the scratch, the guest's in the other
    HOST_RECORD_MIN = 24         # of a getdents64 record
    HOST_RECORD_MAX = 280        # with a name of 255 bytes
    NAME_OFFSET = 19
    DT_UNKNOWN = 0
    DT_REG = 8


cdef int op_opendir(Context *ctx, Request *request) noexcept nogil:
    cdef Inode *inode
    cdef fuse_open_out out
    cdef int error
    if opens_nothing(ctx, True):
        return -ENOSYS
    inode = inode_acquire(&ctx.share.inodes, request.header.nodeid)
    if inode == NULL:
        return -ESTALE
    error = open_counted(&ctx.share.inodes) if inode.kind == S_IFDIR else -ENOTDIR
    if error < 0:
        inode_release(&ctx.share.inodes, inode)
        return error
    error = open_inode(ctx, inode, O_RDONLY)
    inode_release(&ctx.share.inodes, inode)
    error = add_handle(ctx, error, request.header.nodeid, 0, True, MAY_HAVE_CHANGED, &out)
    return error if error < 0 else reply(request, &out, sizeof(out))


cdef inline uint32_t padded(uint32_t size) noexcept nogil:
    return (size + 7) & ~<uint32_t> 7


cdef void fill_dirent(const Context *ctx, const linux_dirent *host, uint32_t name_size, uint64_t ino,
                      fuse_dirent *out) noexcept nogil:
    out.ino = ino
    out.off = <uint64_t> host.d_off
    out.namelen = name_size
    out.type = host.d_type
    if ctx.share.options.override_stat and out.type == DT_REG:
        out.type = DT_UNKNOWN   # a stand-in for a device, perhaps


cdef inline uint32_t record_size(uint32_t name_size, bint plus) noexcept nogil:
    """With the padding."""
    return padded(<uint32_t> (sizeof(fuse_direntplus) if plus else sizeof(fuse_dirent)) + name_size)


cdef uint32_t add_entry(Context *ctx, Inode *directory, Handle *handle, const linux_dirent *host, uint32_t name_size,
                        bint plus, uint8_t *out) noexcept nogil:
    """Writes one record and returns its size; 0 for an entry that is gone by now."""
    cdef const char *name = <const char *> host + NAME_OFFSET
    cdef uint32_t size = record_size(name_size, plus)
    cdef bint dots = is_dot(name) or is_dotdot(name)
    cdef fuse_direntplus *record = <fuse_direntplus *> out
    cdef uint64_t ino = host.d_ino
    cdef int error
    if dots and directory.flags & INODE_ROOT:
        ino = ctx.share.inodes.root_ino   # what lies above the share concerns nobody in the guest
    if plus:
        memset(&record.entry_out, 0, sizeof(fuse_entry_out))
        if not dots:
            error = lookup_name(ctx, directory, handle.fd, name, &record.entry_out)
            if error == -ENOENT:
                return 0
            if error < 0:
                # A nodeid of 0 is no lookup: the guest makes its own, and sees the error there.
                memset(&record.entry_out, 0, sizeof(fuse_entry_out))
        fill_dirent(ctx, host, name_size, ino, &record.dirent)
    else:
        fill_dirent(ctx, host, name_size, ino, <fuse_dirent *> out)
    (<uint64_t *> (out + size - sizeof(uint64_t)))[0] = 0     # the padding
    memcpy(out + (sizeof(fuse_direntplus) if plus else sizeof(fuse_dirent)), name, name_size)
    return size


cdef int64_t fill_reply(Context *ctx, Inode *directory, Handle *handle, uint64_t offset, uint32_t room, bint plus,
                        uint8_t *out) noexcept nogil:
    """Entries from the cookie `offset` on, as many whole ones as fit into `room` bytes. The bytes, or -errno.

    So few host entries are asked for at a time that all of them fit: the descriptor then stands where the guest will
    go on, and nothing is read twice.
    """
    cdef uint8_t *host = ctx.scratch
    cdef uint32_t smallest = record_size(1, plus)
    cdef uint32_t filled = 0
    cdef uint32_t want, name_size
    cdef int64_t got, at
    cdef const linux_dirent *entry
    if handle.position != <int64_t> offset:
        got = sys_lseek(handle.fd, <int64_t> offset, SEEK_SET)
        if got < 0:
            return got
        handle.position = <int64_t> offset
    while True:
        want = (room - filled) / smallest * HOST_RECORD_MIN
        if want < HOST_RECORD_MAX:
            if filled:
                return filled
            want = HOST_RECORD_MAX
        got = sys_getdents64(handle.fd, host, want if want < HALF else HALF)
        if got <= 0:
            return filled if filled or got == 0 else got
        at = 0
        while at < got:
            entry = <const linux_dirent *> (host + at)
            name_size = <uint32_t> strlen(<const char *> entry + NAME_OFFSET)
            if record_size(name_size, plus) > room - filled:
                # Only where the guest's buffer is tiny: the rest is read again, from where this one begins.
                if sys_lseek(handle.fd, handle.position, SEEK_SET) < 0:
                    handle.position = -1
                return filled if filled else -EINVAL
            filled += add_entry(ctx, directory, handle, entry, name_size, plus, out + filled)
            handle.position = entry.d_off
            at += entry.d_reclen


cdef int read_directory(Context *ctx, Request *request, bint plus) noexcept nogil:
    cdef const fuse_read_in *args = <const fuse_read_in *> next_bytes(request, sizeof(fuse_read_in))
    cdef uint8_t *out = ctx.scratch + HALF
    cdef uint64_t room = args.size
    cdef Inode *directory
    cdef Handle *handle
    cdef int64_t filled
    cdef int error
    if room > request.chain.writable_bytes:
        room = request.chain.writable_bytes
    if room > HALF:
        room = HALF
    directory = inode_acquire(&ctx.share.inodes, request.header.nodeid)
    if directory == NULL:
        return -ESTALE
    handle = handle_of(ctx, args.fh, request.header.nodeid, True, &error)
    filled = error
    if handle != NULL:
        lock(&handle.lock)
        filled = fill_reply(ctx, directory, handle, args.offset, <uint32_t> room, plus, out)
        unlock(&handle.lock)
        handle_release(&ctx.share.handles, handle)
    inode_release(&ctx.share.inodes, directory)
    return <int> filled if filled < 0 else reply(request, out, <uint32_t> filled)


cdef int op_readdir(Context *ctx, Request *request) noexcept nogil:
    return read_directory(ctx, request, False)


cdef int op_readdirplus(Context *ctx, Request *request) noexcept nogil:
    return read_directory(ctx, request, True)


cdef int op_releasedir(Context *ctx, Request *request) noexcept nogil:
    return release(ctx, request, True)


cdef int op_fsyncdir(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_fsync_in *args = <const fuse_fsync_in *> next_bytes(request, sizeof(fuse_fsync_in))
    cdef int error
    cdef Handle *handle = handle_of(ctx, args.fh, request.header.nodeid, True, &error)
    if handle == NULL:
        return error
    error = sys_fdatasync(handle.fd) if args.fsync_flags & FUSE_FSYNC_FDATASYNC else sys_fsync(handle.fd)
    handle_release(&ctx.share.handles, handle)
    return error if error < 0 else reply(request, NULL, 0)
