"""IOCTL: inode flags and fs-verity. `run()` knows what is passed on; everything else is ENOTTY.

A command's argument is data of a fixed size, copied both ways; a pointer of the guest's is never followed.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from .entries cimport fill_attr_out
from .fuse_abi cimport (
    FUSE_IOCTL_32BIT, FUSE_IOCTL_COMPAT, FUSE_IOCTL_UNRESTRICTED, fuse_attr_out, fuse_ioctl_in, fuse_ioctl_out)
from .handles cimport Handle, handle_release
from .ids cimport ID_NONE
from .opened cimport any_handle_of
from .linux cimport (
    EACCES, EINVAL, ENOTTY, EPERM, EROFS, FS_IOC32_GETFLAGS, FS_IOC32_SETFLAGS, FS_IOC_ENABLE_VERITY, FS_IOC_FSGETXATTR,
    FS_IOC_FSSETXATTR, FS_IOC_GETFLAGS, FS_IOC_MEASURE_VERITY, FS_IOC_SETFLAGS, FS_PROJINHERIT_FL, FS_XFLAG_PROJINHERIT,
    fsverity_digest, fsverity_enable_arg, fsxattr, S_IRWXG, S_IRWXO, S_IWGRP, S_IWOTH, S_IWUSR, memcpy, memset,
    sys_ioctl)
from .request cimport Request, next_bytes, reply
from .share cimport Context

cdef enum:
    VERITY_SALT_MAX = 32
    VERITY_SIGNATURE_MAX = 16128
    DIGEST_MAX = 64


cdef uint32_t command_of(const fuse_ioctl_in *args) noexcept nogil:
    """The command, by the number that it has here. 0 for one that the guest's kernel cannot have sent for itself.

    Before it sends one of those that set flags it has checked that the caller may do that. But it knows them by its own
    number alone: the number of the other word size is passed on as it came, unchecked.
    """
    if (args.flags & FUSE_IOCTL_32BIT) == 0:
        return 0 if args.cmd == FS_IOC32_GETFLAGS or args.cmd == FS_IOC32_SETFLAGS else args.cmd
    if args.flags & FUSE_IOCTL_COMPAT or args.cmd == FS_IOC_GETFLAGS or args.cmd == FS_IOC_SETFLAGS:
        return 0
    if args.cmd == FS_IOC32_GETFLAGS:
        return FS_IOC_GETFLAGS
    return FS_IOC_SETFLAGS if args.cmd == FS_IOC32_SETFLAGS else args.cmd


cdef bint may_write(Context *ctx, const Request *request, int fd) noexcept nogil:
    """Whether the caller may write the file: the guest's kernel has only checked that it may read it.

    With idmapped mounts the guest does not say who asks; then it must be a file that nobody but its owner may read.
    """
    cdef fuse_attr_out file
    if fill_attr_out(ctx, fd, &file) < 0:
        return False
    if request.header.uid == 0:
        return True
    if request.header.uid == ID_NONE:
        return not file.attr.mode & (S_IRWXG | S_IRWXO)
    if request.header.uid == file.attr.uid:
        return (file.attr.mode & S_IWUSR) != 0
    return (file.attr.mode & (S_IWGRP if request.header.gid == file.attr.gid else S_IWOTH)) != 0


cdef bint modifies(uint32_t command) noexcept nogil:
    return command == FS_IOC_SETFLAGS or command == FS_IOC_FSSETXATTR or command == FS_IOC_ENABLE_VERITY


cdef int get_flags(int fd, uint8_t *data) noexcept nogil:
    # The kernel moves an int, whatever size the command's name claims.
    cdef int flags = 0
    cdef int error = sys_ioctl(fd, FS_IOC_GETFLAGS, &flags)
    memcpy(data, &flags, sizeof(int))
    return error if error < 0 else <int> sizeof(int)


# Whose quota a file counts for is the host's business. Its kernel lets only the first user namespace change that, which
# is what the daemon is mostly in, and the guest is not.

cdef int set_flags(int fd, const uint8_t *data, uint32_t size) noexcept nogil:
    cdef int flags
    cdef int before = 0
    cdef int error
    if size < sizeof(int):
        return -EINVAL
    memcpy(&flags, data, sizeof(int))
    error = sys_ioctl(fd, FS_IOC_GETFLAGS, &before)
    if error < 0:
        return error
    if (flags ^ before) & FS_PROJINHERIT_FL:
        return -EPERM
    return sys_ioctl(fd, FS_IOC_SETFLAGS, &flags)


cdef int set_fsxattr(int fd, const uint8_t *data, uint32_t size) noexcept nogil:
    cdef fsxattr attributes, before
    cdef int error
    if size < sizeof(fsxattr):
        return -EINVAL
    memcpy(&attributes, data, sizeof(fsxattr))
    memset(&before, 0, sizeof(fsxattr))
    error = sys_ioctl(fd, FS_IOC_FSGETXATTR, &before)
    if error < 0:
        return error
    if attributes.fsx_projid != before.fsx_projid or \
            (attributes.fsx_xflags ^ before.fsx_xflags) & <uint32_t> FS_XFLAG_PROJINHERIT:
        return -EPERM
    return sys_ioctl(fd, FS_IOC_FSSETXATTR, &attributes)


cdef int enable_verity(int fd, uint8_t *data, uint32_t size) noexcept nogil:
    """The argument, then salt and signature: the guest's kernel has put what its pointers lead to behind it."""
    cdef fsverity_enable_arg argument
    cdef uint32_t at = sizeof(fsverity_enable_arg)
    if size < at:
        return -EINVAL
    memcpy(&argument, data, sizeof(fsverity_enable_arg))
    if argument.salt_size > VERITY_SALT_MAX or argument.sig_size > VERITY_SIGNATURE_MAX or \
            argument.salt_size + argument.sig_size > size - at:
        return -EINVAL
    argument.salt_ptr = <uint64_t> <size_t> (data + at) if argument.salt_size else 0
    argument.sig_ptr = <uint64_t> <size_t> (data + at + argument.salt_size) if argument.sig_size else 0
    return sys_ioctl(fd, FS_IOC_ENABLE_VERITY, &argument)


cdef int measure_verity(int fd, uint8_t *data, uint32_t size, uint32_t room) noexcept nogil:
    """The digest behind its header. Bytes of both."""
    cdef fsverity_digest *digest = <fsverity_digest *> data
    cdef int error
    if size < sizeof(fsverity_digest) or room < sizeof(fsverity_digest):
        return -EINVAL
    if digest.digest_size > room - sizeof(fsverity_digest):
        digest.digest_size = <unsigned short> (room - sizeof(fsverity_digest))
    if digest.digest_size > DIGEST_MAX:
        digest.digest_size = DIGEST_MAX
    error = sys_ioctl(fd, FS_IOC_MEASURE_VERITY, digest)
    return error if error < 0 else <int> (sizeof(fsverity_digest) + digest.digest_size)


cdef int run(int fd, uint32_t command, uint8_t *data, uint32_t size, uint32_t room) noexcept nogil:
    """Does one command. Bytes of the answer, which stand in `data` (`size` of them are the argument), or -errno."""
    cdef int error
    if command == FS_IOC_GETFLAGS:
        return get_flags(fd, data)
    if command == FS_IOC_SETFLAGS:
        return set_flags(fd, data, size)
    if command == FS_IOC_FSGETXATTR:
        memset(data, 0, sizeof(fsxattr))
        error = sys_ioctl(fd, FS_IOC_FSGETXATTR, data)
        return error if error < 0 else <int> sizeof(fsxattr)
    if command == FS_IOC_FSSETXATTR:
        return set_fsxattr(fd, data, size)
    if command == FS_IOC_ENABLE_VERITY:
        return enable_verity(fd, data, size)
    if command == FS_IOC_MEASURE_VERITY:
        return measure_verity(fd, data, size, room)
    return -ENOTTY


cdef int op_ioctl(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_ioctl_in *args = <const fuse_ioctl_in *> next_bytes(request, sizeof(fuse_ioctl_in))
    cdef const void *argument = next_bytes(request, args.in_size)
    cdef uint8_t *answer = ctx.scratch
    cdef uint8_t *data = ctx.scratch + sizeof(fuse_ioctl_out)
    cdef fuse_ioctl_out *out = <fuse_ioctl_out *> answer
    cdef uint32_t command = command_of(args)
    cdef Handle *handle
    cdef int size
    if argument == NULL or args.in_size > VERITY_SIGNATURE_MAX + 256:
        return -EINVAL
    if args.flags & FUSE_IOCTL_UNRESTRICTED:
        return -ENOTTY
    if ctx.share.options.readonly and modifies(command):
        return -EROFS
    handle = any_handle_of(ctx, args.fh, request.header.nodeid, &size)
    if handle == NULL:
        return size
    memcpy(data, argument, args.in_size)
    if command == FS_IOC_ENABLE_VERITY and not may_write(ctx, request, handle.fd):
        size = -EACCES
    else:
        size = run(handle.fd, command, data, args.in_size, args.out_size)
    handle_release(&ctx.share.handles, handle)
    if size < 0:
        return size
    if <uint32_t> size > args.out_size:
        size = <int> args.out_size
    memset(out, 0, sizeof(fuse_ioctl_out))
    return reply(request, answer, <uint32_t> sizeof(fuse_ioctl_out) + <uint32_t> size)
