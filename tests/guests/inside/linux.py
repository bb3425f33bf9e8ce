"""Of Linux, what Python's os module has not."""

import contextlib
import ctypes
import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_FOLLOW = 0x400
AT_SYMLINK_NOFOLLOW = 0x100
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_COLLAPSE_RANGE, FALLOC_ZERO_RANGE, FALLOC_INSERT_RANGE = 1, 2, 8, 16, 32
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE, FS_APPEND, FS_NODUMP = 0x80086601, 0x40086602, 0x10, 0x20, 0x40
FS_IOC_FSGETXATTR = 0x801C581F
STATX_BTIME, STATX_MNT_ID, STATX_BASIC = 0x800, 0x1000, 0x7FF
NOBODY, GROUP, OTHER_GROUP = 12345, 23456, 23457

_libc = ctypes.CDLL(None, use_errno=True)


class Skipped(Exception):  # noqa: N818
    """The file system below, or this machine, has not what the behaviour is about."""


def call(name: str, *arguments: object) -> int:
    """A function of the C library, whose failure is an OSError."""
    result = int(getattr(_libc, name)(*arguments))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def rename(old: str, new: str, flags: int) -> None:
    call("renameat2", AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)


def link_open(descriptor: int, new: str) -> None:
    """Gives an open file a name."""
    call("linkat", AT_FDCWD, f"/proc/self/fd/{descriptor}".encode(), AT_FDCWD, new.encode(), AT_SYMLINK_FOLLOW)


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    call("fallocate", descriptor, mode, ctypes.c_long(offset), ctypes.c_long(length))


def syncfs(descriptor: int) -> None:
    call("syncfs", descriptor)


def resident(descriptor: int, size: int) -> int:
    """How many pages of a file are in the page cache."""
    _libc.mmap.restype = ctypes.c_void_p
    address = _libc.mmap(None, ctypes.c_size_t(size), 1, 2, descriptor, ctypes.c_long(0))
    pages = ctypes.create_string_buffer(size // 4096)
    call("mincore", ctypes.c_void_p(address), ctypes.c_size_t(size), pages)
    _libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))
    return sum(page & 1 for page in pages.raw)


class Statx:
    """What statx(2) says about a path or (path "") a descriptor."""

    def __init__(self, path: str | bytes, mask: int = STATX_BASIC | STATX_BTIME, descriptor: int = AT_FDCWD) -> None:
        buffer = ctypes.create_string_buffer(256)
        flags = AT_SYMLINK_NOFOLLOW | (0 if path else AT_EMPTY_PATH)
        call("statx", descriptor, os.fsencode(path), flags, mask, buffer)
        self.mask, self.blksize, self.attributes = struct.unpack_from("=IIQ", buffer, 0)
        self.nlink, self.uid, self.gid, self.mode = struct.unpack_from("=IIIH", buffer, 16)
        self.ino, self.size, self.blocks = struct.unpack_from("=QQQ", buffer, 32)
        times = [struct.unpack_from("=qI", buffer, 64 + 16 * number) for number in range(4)]
        self.atime, self.btime, self.ctime, self.mtime = (seconds * 10**9 + nanos for seconds, nanos in times)


@contextlib.contextmanager
def fails(*numbers: int) -> Iterator[None]:
    """What is done inside must fail with (one of) these errors."""
    names = "/".join(errno.errorcode[number] for number in numbers)
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            found = errno.errorcode.get(error.errno or 0, str(error))
            raise AssertionError(f"{found}, not {names}") from error
    else:
        raise AssertionError(f"this did not fail with {names}")


def child(what: Callable[[], None], uid: int = 0, gid: int = 0, groups: tuple[int, ...] = ()) -> int:
    """Starts a process, of somebody else perhaps, that does this; see `done`."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            if uid or gid:
                os.setgroups(groups)
                os.setgid(gid)
                os.setuid(uid)
            what()
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(status)
    return process


def done(*processes: int) -> None:
    """Waits for processes, which must end well."""
    statuses = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    assert not any(statuses), f"exit statuses {statuses}"


def as_nobody(what: Callable[[], None], groups: tuple[int, ...] = ()) -> None:
    """Does this as a user without any privilege."""
    done(child(what, NOBODY, GROUP, groups))


def write(path: str | bytes, data: bytes | str = b"", mode: int | None = None) -> None:
    with open(path, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
    if mode is not None:
        os.chmod(path, mode)


def read(path: str | bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def mode_of(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


@contextlib.contextmanager
def opened(path: str | bytes, flags: int = os.O_RDWR, mode: int = 0o666) -> Iterator[int]:
    descriptor = os.open(path, flags, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
