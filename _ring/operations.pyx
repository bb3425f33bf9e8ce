"""The one table of operations, and the dispatch by it: adding one is a function and a row.

The dispatcher has checked before a handler runs: there is a session, the fixed arguments are there, the fixed reply
fits, and a read-only share is not modified. A handler replies and returns 0, or returns a negative errno, or
WOULD_SLEEP, WAITS or NO_REPLY.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from .atomics cimport load_acquire32
from .attr_ops cimport op_access, op_getattr, op_lookup, op_readlink, op_setattr, op_statx
from .chain cimport chain_take, chain_trim_readable
from .dir_ops cimport op_fsyncdir, op_opendir, op_readdir, op_readdirplus, op_releasedir
from .file_ops cimport (
    op_copy_file_range, op_copy_file_range_64, op_fallocate, op_flush, op_fsync, op_lseek, op_open, op_read, op_release,
    op_write)
from .fuse_abi cimport *
from .inode_lifetime cimport inodes_free_space
from .ioctl_ops cimport op_ioctl
from .linux cimport EINVAL, EIO, ENOSYS, EROFS
from .lock_ops cimport op_getlk, op_setlk, op_setlkw
from .name_ops cimport (
    op_create, op_link, op_mkdir, op_mknod, op_rename, op_rename2, op_rmdir, op_symlink, op_tmpfile, op_unlink)
from .request cimport ARGS_MAX, NO_REPLY, Request, reply_error, request_open
from .session_ops cimport op_batch_forget, op_destroy, op_forget, op_init, op_interrupt, op_statfs, op_syncfs
from .share cimport OPCODES, Context
from .slowness cimport CLASS_DATA, CLASS_METADATA, CLASS_NAMES, CLASS_NONE, CLASS_OPEN
from .xattr_ops cimport op_getxattr, op_listxattr, op_removexattr, op_setxattr

cdef enum:
    IN_HEADER = sizeof(fuse_in_header)

cdef Operation table[OPCODES]


cdef void row(uint32_t opcode, const char *name, Handler handler, size_t args, size_t reply, uint32_t slow_class,
              uint32_t flags) noexcept:
    table[opcode] = Operation(name, handler, <uint16_t> args, <uint16_t> reply, flags, slow_class)


cdef void fill_table() noexcept:
    row(FUSE_LOOKUP, "LOOKUP", op_lookup, 0, sizeof(fuse_entry_out), CLASS_METADATA, 0)
    row(FUSE_FORGET, "FORGET", op_forget, sizeof(fuse_forget_in), 0, CLASS_NONE, SILENT)
    row(FUSE_GETATTR, "GETATTR", op_getattr, sizeof(fuse_getattr_in), sizeof(fuse_attr_out), CLASS_METADATA, 0)
    row(FUSE_SETATTR, "SETATTR", op_setattr, sizeof(fuse_setattr_in), sizeof(fuse_attr_out), CLASS_METADATA, MODIFIES)
    row(FUSE_READLINK, "READLINK", op_readlink, 0, 0, CLASS_METADATA, 0)
    row(FUSE_SYMLINK, "SYMLINK", op_symlink, 0, sizeof(fuse_entry_out), CLASS_NAMES, MODIFIES | AS_CALLER)
    row(FUSE_MKNOD, "MKNOD", op_mknod, sizeof(fuse_mknod_in), sizeof(fuse_entry_out), CLASS_NAMES, MODIFIES | AS_CALLER)
    row(FUSE_MKDIR, "MKDIR", op_mkdir, sizeof(fuse_mkdir_in), sizeof(fuse_entry_out), CLASS_NAMES, MODIFIES | AS_CALLER)
    row(FUSE_UNLINK, "UNLINK", op_unlink, 0, 0, CLASS_NAMES, MODIFIES)
    row(FUSE_RMDIR, "RMDIR", op_rmdir, 0, 0, CLASS_NAMES, MODIFIES)
    row(FUSE_RENAME, "RENAME", op_rename, sizeof(fuse_rename_in), 0, CLASS_NAMES, MODIFIES)
    row(FUSE_LINK, "LINK", op_link, sizeof(fuse_link_in), sizeof(fuse_entry_out), CLASS_NAMES, MODIFIES)
    row(FUSE_OPEN, "OPEN", op_open, sizeof(fuse_open_in), sizeof(fuse_open_out), CLASS_OPEN, 0)
    row(FUSE_READ, "READ", op_read, sizeof(fuse_read_in), 0, CLASS_DATA, 0)
    row(FUSE_WRITE, "WRITE", op_write, sizeof(fuse_write_in), sizeof(fuse_write_out), CLASS_DATA, MODIFIES | STREAMS)
    row(FUSE_STATFS, "STATFS", op_statfs, 0, sizeof(fuse_kstatfs), CLASS_METADATA, 0)
    row(FUSE_RELEASE, "RELEASE", op_release, sizeof(fuse_release_in), 0, CLASS_OPEN, 0)
    row(FUSE_FSYNC, "FSYNC", op_fsync, sizeof(fuse_fsync_in), 0, CLASS_NONE, SLEEPS)
    row(FUSE_SETXATTR, "SETXATTR", op_setxattr, sizeof(fuse_setxattr_in_compat), 0, CLASS_METADATA, MODIFIES)
    row(FUSE_GETXATTR, "GETXATTR", op_getxattr, sizeof(fuse_getxattr_in), 0, CLASS_METADATA, 0)
    row(FUSE_LISTXATTR, "LISTXATTR", op_listxattr, sizeof(fuse_getxattr_in), 0, CLASS_METADATA, 0)
    row(FUSE_REMOVEXATTR, "REMOVEXATTR", op_removexattr, 0, 0, CLASS_METADATA, MODIFIES)
    row(FUSE_FLUSH, "FLUSH", op_flush, sizeof(fuse_flush_in), 0, CLASS_OPEN, 0)
    row(FUSE_INIT, "INIT", op_init, sizeof(fuse_init_in_compat), sizeof(fuse_init_out),
        CLASS_NONE, SLEEPS | SESSIONLESS)
    row(FUSE_OPENDIR, "OPENDIR", op_opendir, sizeof(fuse_open_in), sizeof(fuse_open_out), CLASS_OPEN, 0)
    row(FUSE_READDIR, "READDIR", op_readdir, sizeof(fuse_read_in), 0, CLASS_METADATA, 0)
    row(FUSE_RELEASEDIR, "RELEASEDIR", op_releasedir, sizeof(fuse_release_in), 0, CLASS_OPEN, 0)
    row(FUSE_FSYNCDIR, "FSYNCDIR", op_fsyncdir, sizeof(fuse_fsync_in), 0, CLASS_NONE, SLEEPS)
    row(FUSE_GETLK, "GETLK", op_getlk, sizeof(fuse_lk_in), sizeof(fuse_lk_out), CLASS_DATA, 0)
    row(FUSE_SETLK, "SETLK", op_setlk, sizeof(fuse_lk_in), 0, CLASS_DATA, 0)
    row(FUSE_SETLKW, "SETLKW", op_setlkw, sizeof(fuse_lk_in), 0, CLASS_NONE, SLEEPS)
    row(FUSE_ACCESS, "ACCESS", op_access, sizeof(fuse_access_in), 0, CLASS_METADATA, 0)
    row(FUSE_CREATE, "CREATE", op_create, sizeof(fuse_create_in), sizeof(fuse_entry_out) + sizeof(fuse_open_out),
        CLASS_NAMES, MODIFIES | AS_CALLER)
    row(FUSE_INTERRUPT, "INTERRUPT", op_interrupt, sizeof(fuse_interrupt_in), 0, CLASS_NONE, SILENT)
    row(FUSE_DESTROY, "DESTROY", op_destroy, 0, 0, CLASS_NONE, SLEEPS | SESSIONLESS)
    row(FUSE_IOCTL, "IOCTL", op_ioctl, sizeof(fuse_ioctl_in), sizeof(fuse_ioctl_out), CLASS_NONE, SLEEPS)
    row(FUSE_BATCH_FORGET, "BATCH_FORGET", op_batch_forget, sizeof(fuse_batch_forget_in), 0,
        CLASS_NONE, SILENT | STREAMS)
    row(FUSE_FALLOCATE, "FALLOCATE", op_fallocate, sizeof(fuse_fallocate_in), 0, CLASS_NONE, MODIFIES | SLEEPS)
    row(FUSE_READDIRPLUS, "READDIRPLUS", op_readdirplus, sizeof(fuse_read_in), 0, CLASS_METADATA, 0)
    row(FUSE_RENAME2, "RENAME2", op_rename2, sizeof(fuse_rename2_in), 0, CLASS_NAMES, MODIFIES)
    row(FUSE_LSEEK, "LSEEK", op_lseek, sizeof(fuse_lseek_in), sizeof(fuse_lseek_out), CLASS_DATA, 0)
    row(FUSE_COPY_FILE_RANGE, "COPY_FILE_RANGE", op_copy_file_range, sizeof(fuse_copy_file_range_in),
        sizeof(fuse_write_out),
        CLASS_NONE, MODIFIES | SLEEPS)
    row(FUSE_SYNCFS, "SYNCFS", op_syncfs, sizeof(fuse_syncfs_in), 0, CLASS_NONE, SLEEPS)
    row(FUSE_TMPFILE, "TMPFILE", op_tmpfile, sizeof(fuse_create_in), sizeof(fuse_entry_out) + sizeof(fuse_open_out),
        CLASS_NAMES, MODIFIES | AS_CALLER)
    row(FUSE_STATX, "STATX", op_statx, sizeof(fuse_statx_in), sizeof(fuse_statx_out), CLASS_METADATA, 0)
    row(FUSE_COPY_FILE_RANGE_64, "COPY_FILE_RANGE_64", op_copy_file_range_64, sizeof(fuse_copy_file_range_in),
        sizeof(fuse_copy_file_range_out),
        CLASS_NONE, MODIFIES | SLEEPS)


fill_table()


def operations() -> list[tuple[int, str, frozenset[str]]]:
    """The table's rows as (opcode, name, names of the flags), in order of opcodes."""
    names = (("modifies", MODIFIES), ("as-caller", AS_CALLER), ("sleeps", SLEEPS), ("silent", SILENT),
             ("sessionless", SESSIONLESS), ("streams", STREAMS))
    return [(opcode, (<bytes> table[opcode].name).decode(),
             frozenset([name for name, flag in names if table[opcode].flags & flag]))
            for opcode in range(OPCODES) if table[opcode].name != NULL]


cdef const Operation *operation_of(uint32_t opcode) noexcept nogil:
    """The operation, or NULL where there is none of this number."""
    return &table[opcode] if opcode < OPCODES and table[opcode].name != NULL else NULL


cdef const Operation *refuse(Context *ctx, Request *request, int error) noexcept nogil:
    cdef const Operation *operation = operation_of(request.header.opcode)
    ctx.errors[request.header.opcode if operation != NULL else 0] += 1
    if operation == NULL or not operation.flags & SILENT:
        reply_error(request, error)
    return NULL


cdef const Operation *prepare(Context *ctx, Request *request) noexcept nogil:
    """Copies header and arguments, and checks what the table says. NULL: it is refused, and its reply written."""
    cdef const Operation *operation
    cdef uint64_t length
    cdef uint32_t extensions
    if not request_open(request):
        return NULL   # not even a header: there is no unique to reply to
    length = request.header.len
    if length < IN_HEADER or length - IN_HEADER > request.chain.readable_bytes:
        return refuse(ctx, request, -EINVAL)
    length -= IN_HEADER
    operation = operation_of(request.header.opcode)
    if operation == NULL:
        return refuse(ctx, request, -ENOSYS)
    if not operation.flags & SILENT and not request.chain.header_pieces:
        return refuse(ctx, request, -EINVAL)   # nothing is done that nobody could be told of
    if not operation.flags & SESSIONLESS and not load_acquire32(&ctx.share.session):
        return refuse(ctx, request, -EIO)
    if operation.flags & STREAMS:
        # The data stays where it is, as much as there is by the header's word.
        chain_trim_readable(&request.chain, length)
        if length > operation.args:
            length = operation.args
    if length < operation.args or length > ARGS_MAX:
        return refuse(ctx, request, -EINVAL)
    request.args_size = <uint32_t> chain_take(&request.chain, request.args, length)
    extensions = <uint32_t> request.header.total_extlen * 8
    if extensions:
        if not operation.flags & AS_CALLER or extensions > request.args_size - operation.args:
            return refuse(ctx, request, -EINVAL)
        # They stay behind the arguments; caller.pyx reads them.
        request.args_size -= extensions
    if operation.reply > request.chain.writable_bytes:
        return refuse(ctx, request, -EINVAL)
    if operation.flags & MODIFIES and ctx.share.options.readonly:
        return refuse(ctx, request, -EROFS)
    return operation


cdef int perform(Context *ctx, Request *request, const Operation *operation) noexcept nogil:
    """Runs the handler. 0: the request is done and its reply written; WOULD_SLEEP or WAITS: it is not."""
    cdef int result = operation.handler(ctx, request)
    # A handler whose data streams has begun with that, and asks for room by itself.
    if result < 0 and operation.flags & (MODIFIES | STREAMS) == MODIFIES and \
            inodes_free_space(&ctx.share.inodes, result):
        request.args_at = 0
        result = operation.handler(ctx, request)
    if result == 0 or result == NO_REPLY:
        ctx.calls[request.header.opcode] += 1
        return 0
    if result < 0:
        ctx.calls[request.header.opcode] += 1
        ctx.errors[request.header.opcode] += 1
        reply_error(request, result)
        return 0
    return result
