"""Fake root: `user.containers.override_stat` holds what the guest sees of a file's owner, group, mode and kind.

The format is that of containers/storage, podman and libkrun: "uid:gid:mode:kind", mode in octal with the set-id bits,
kind one of file, dir, symlink, pipe, socket, char-MAJOR-MINOR and block-MAJOR-MINOR. Devices, pipes and sockets are
regular files of the host. A file without the attribute is root's where it is the daemon's own user's.
"""

from libc.stdint cimport int64_t, uint32_t

from .fuse_abi cimport fuse_attr
from .ids cimport ID_NONE
from .linux cimport (
    S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK, decimal, device_encode, format_override,
    strlen, strncmp, sys_getxattr, sys_setxattr)
from .share cimport Context
from .xattr_names cimport OVERRIDE_XATTR

cdef enum:
    TEXT_MAX = 128
    MODE_BITS = 0o7777


cdef const char *number(const char *text, uint32_t base, uint32_t *value) noexcept nogil:
    """Reads digits up to a separator, and steps over one. NULL where there are none."""
    cdef const char *start = text
    cdef uint32_t digit
    value[0] = 0
    while True:
        digit = <uint32_t> (text[0] - c'0')
        if digit >= base:
            break
        value[0] = value[0] * base + digit
        text += 1
    if text == start or (text[0] != 0 and text[0] != c':' and text[0] != c'-'):
        return NULL
    return text + 1 if text[0] else text


cdef uint32_t kind_of(const char *text, uint32_t *rdev) noexcept nogil:
    """The S_IFMT bits of the kind, for those that stand in a regular file's place; 0 for the others."""
    cdef uint32_t major, minor
    cdef const char *after
    rdev[0] = 0
    if strncmp(text, "pipe", 4) == 0:
        return S_IFIFO
    if strncmp(text, "socket", 6) == 0:
        return S_IFSOCK
    if strncmp(text, "char-", 5) != 0 and strncmp(text, "block-", 6) != 0:
        return 0
    after = number(text + (5 if text[0] == c'c' else 6), 10, &major)
    if after == NULL or number(after, 10, &minor) == NULL:
        return 0
    rdev[0] = device_encode(major, minor)
    return S_IFCHR if text[0] == c'c' else S_IFBLK


cdef bint parse(const char *text, fuse_attr *attr) noexcept nogil:
    cdef uint32_t uid, gid, mode, kind
    cdef uint32_t rdev = 0
    text = number(text, 10, &uid)
    if text == NULL:
        return False
    text = number(text, 10, &gid)
    if text == NULL:
        return False
    text = number(text, 8, &mode)
    if text == NULL or mode & ~<uint32_t> MODE_BITS:
        return False
    attr.uid = uid
    attr.gid = gid
    kind = attr.mode & S_IFMT
    if kind == S_IFREG:
        mode |= kind_of(text, &rdev)
        if mode & S_IFMT:
            kind = mode & S_IFMT
            attr.rdev = rdev
    attr.mode = kind | (mode & MODE_BITS)
    return True


cdef void override_show(Context *ctx, int fd, fuse_attr *attr) noexcept nogil:
    """Puts in place of the host's owner, group and mode what the guest has set."""
    cdef char text[TEXT_MAX]
    cdef char path[16]
    cdef int64_t size = sys_getxattr(decimal(path, fd), OVERRIDE_XATTR, text, TEXT_MAX - 1)
    if size > 0:
        text[size] = 0
        if parse(text, attr):
            return
    if attr.uid == ctx.share.own_uid:
        attr.uid = 0
    if attr.gid == ctx.share.own_gid:
        attr.gid = 0


cdef int override_set(Context *ctx, int fd, uint32_t uid, uint32_t gid, uint32_t mode, uint32_t rdev) noexcept nogil:
    """Notes owner, group, mode and kind of a file. 0 or -errno; symlinks cannot have them noted, which is no error."""
    cdef char text[TEXT_MAX]
    cdef char path[16]
    if mode & S_IFMT == S_IFLNK:
        return 0
    format_override(text, TEXT_MAX, uid, gid, mode, rdev)
    return sys_setxattr(decimal(path, fd), OVERRIDE_XATTR, text, strlen(text), 0)


cdef int override_change(Context *ctx, int fd, fuse_attr *attr, uint32_t uid, uint32_t gid,
                         uint32_t mode) noexcept nogil:
    """Changes what is not ID_NONE of a file whose attributes are the host's in `attr`. 0 or -errno."""
    override_show(ctx, fd, attr)
    return override_set(ctx, fd, attr.uid if uid == ID_NONE else uid, attr.gid if gid == ID_NONE else gid,
                        attr.mode if mode == ID_NONE else attr.mode & S_IFMT | mode & MODE_BITS, attr.rdev)


cdef uint32_t override_host_mode(uint32_t mode) noexcept nogil:
    """The mode on the host: what the guest sets, but never without what the daemon needs, and without set-id bits."""
    return mode & 0o777 | (0o700 if mode & S_IFMT == S_IFDIR else 0o600)
