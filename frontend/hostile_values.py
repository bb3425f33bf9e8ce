"""Sizes, offsets, modes and flags that make no sense, or lie."""

import errno
import os
import random
import stat

from frontend import fuse_abi as abi
from frontend.fuse import ROOT
from frontend.fuse_abi import Opcode
from frontend.fuse_transport import name
from frontend.hostile_bench import (
    BAD_REQUEST,
    DENIED,
    LARGE,
    OK,
    READ_ONLY,
    UNSUPPORTED,
    WRONG_TYPE,
    Bench,
    Outcome,
    entry,
)
from frontend.hostile_requests import BIG, HEADER, MAX64, home, strange_handle

KIND = "value"


# Sizes and offsets

@entry(KIND, LARGE, OK)
def offset_past_everything(bench: Bench, rng: random.Random) -> Outcome:
    """Offsets of 2^63 and up, as READ, WRITE, LSEEK and FALLOCATE."""
    offset = rng.choice([BIG - 1, BIG, BIG + 4096, MAX64, MAX64 - 4095])
    opcode, body = rng.choice([
        (Opcode.READ, abi.READ_IN.pack(fh=bench.fh, offset=offset, size=128)),
        (Opcode.WRITE, abi.WRITE_IN.pack(fh=bench.fh, offset=offset, size=4) + b"data"),
        (Opcode.LSEEK, abi.LSEEK_IN.pack(fh=bench.fh, offset=offset, whence=os.SEEK_DATA)),
        (Opcode.FALLOCATE, abi.FALLOCATE_IN.pack(fh=bench.fh, offset=offset, length=4096)),
        (Opcode.READDIR, abi.READ_IN.pack(fh=bench.dir_fh, offset=offset, size=256))])
    return bench.send(opcode, home(bench, opcode), body)


@entry(KIND, BAD_REQUEST, OK, errno.ENOMEM)
def read_of_more_than_there_is_room(bench: Bench, rng: random.Random) -> Outcome:
    """A READ whose size is larger than the reply's room."""
    size = rng.choice([4097, 1 << 20, 0x7fffffff, 0x80000000, 0xffffffff])
    return bench.send(Opcode.READ, bench.file, abi.READ_IN.pack(fh=bench.fh, size=size), out_size=0, out_pages=4096)


@entry(KIND, OK)
def read_of_nothing(bench: Bench, _: random.Random) -> Outcome:
    """A READ of 0 bytes."""
    return bench.send(Opcode.READ, bench.file, abi.READ_IN.pack(fh=bench.fh, size=0))


@entry(KIND, BAD_REQUEST, OK)
def write_size_lies(bench: Bench, rng: random.Random) -> Outcome:
    """A WRITE whose size is not the length of its data."""
    size = rng.choice([0, 1, 99, 101, 4096, 1 << 20, 0x7fffffff, 0xffffffff])
    return bench.send(Opcode.WRITE, bench.file, abi.WRITE_IN.pack(fh=bench.fh, size=size), data=bytes(100))


@entry(KIND, OK, BAD_REQUEST, errno.EFBIG)
def write_larger_than_agreed(bench: Bench, _: random.Random) -> Outcome:
    """A WRITE of more than max_write."""
    data = bytes(bench.fuse.max_write + 4096)
    body = abi.WRITE_IN.pack(fh=bench.fh, size=len(data))
    return bench.send(Opcode.WRITE, bench.file, body, data=data, framing=[HEADER, len(body), len(data)])


@entry(KIND, errno.EBADF, errno.EPERM, errno.EACCES, READ_ONLY)
def write_to_a_read_only_handle(bench: Bench, _: random.Random) -> Outcome:
    """WRITE with a handle opened O_RDONLY."""
    return bench.send(Opcode.WRITE, bench.file, abi.WRITE_IN.pack(fh=bench.read_fh, size=1), b"x")


@entry(KIND, OK, BAD_REQUEST)
def readdir_of_hardly_anything(bench: Bench, rng: random.Random) -> Outcome:
    """READDIR with room for less than an entry, or with a size larger than its room."""
    size = rng.choice([0, 1, 23, 24, 31, 0xffffffff])
    return bench.send(rng.choice([Opcode.READDIR, Opcode.READDIRPLUS]), bench.folder,
                      abi.READ_IN.pack(fh=bench.dir_fh, size=size), out_size=0, out_pages=min(size, 4096))


@entry(KIND, OK, BAD_REQUEST, errno.ENOENT)
def readdir_from_nowhere(bench: Bench, rng: random.Random) -> Outcome:
    """READDIR from a cookie that was never given."""
    body = abi.READ_IN.pack(fh=bench.dir_fh, offset=rng.getrandbits(62), size=4096)
    return bench.send(Opcode.READDIR, bench.folder, body, out_size=0, out_pages=4096)


@entry(KIND, BAD_REQUEST, DENIED, OK, errno.E2BIG, errno.ERANGE, errno.ENOSPC)
def setxattr_size_lies(bench: Bench, rng: random.Random) -> Outcome:
    """SETXATTR whose size is not the length of its value."""
    size = rng.choice([0, 4, 6, 4096, 65537, 0x7fffffff, 0xffffffff])
    return bench.send(Opcode.SETXATTR, bench.file, abi.SETXATTR_IN.pack(size=size), name("user.lie"), b"value")


@entry(KIND, BAD_REQUEST, DENIED, OK, errno.E2BIG, errno.ERANGE, errno.ENODATA, errno.ENOMEM)
def getxattr_of_everything(bench: Bench, rng: random.Random) -> Outcome:
    """GETXATTR and LISTXATTR with a size far above their room."""
    body = abi.GETXATTR_IN.pack(size=rng.choice([65537, 1 << 24, 0xffffffff]))
    if rng.getrandbits(1):
        return bench.send(Opcode.LISTXATTR, bench.file, body)
    return bench.send(Opcode.GETXATTR, bench.file, body, name("user.absent"))


@entry(KIND, LARGE, READ_ONLY, errno.EINTR)
def fallocate_of_negative_ranges(bench: Bench, rng: random.Random) -> Outcome:
    """Offsets and lengths that are negative, zero, or overflow together."""
    offset, length = rng.choice([(MAX64, 1), (0, 0), (0, MAX64), (BIG - 1, BIG - 1), (BIG, BIG)])
    return bench.send(Opcode.FALLOCATE, bench.file, abi.FALLOCATE_IN.pack(fh=bench.fh, offset=offset, length=length))


@entry(KIND, LARGE, READ_ONLY)
def fallocate_mode_nonsense(bench: Bench, rng: random.Random) -> Outcome:
    """Modes that do not exist, or not together."""
    mode = rng.choice([2, 0x13, 0x80, 1 << 30, 0xffffffff])
    return bench.send(Opcode.FALLOCATE, bench.file, abi.FALLOCATE_IN.pack(fh=bench.fh, length=4096, mode=mode))


@entry(KIND, errno.EINVAL, errno.ENXIO, UNSUPPORTED)
def lseek_whence_nonsense(bench: Bench, rng: random.Random) -> Outcome:
    """A whence that does not exist."""
    body = abi.LSEEK_IN.pack(fh=bench.fh, whence=rng.choice([5, 100, 0x7fffffff, 0xffffffff]))
    return bench.send(Opcode.LSEEK, bench.file, body)


@entry(KIND, LARGE, OK, READ_ONLY)
def copy_file_range_nonsense(bench: Bench, rng: random.Random) -> Outcome:
    """Overlapping ranges, flags, offsets and lengths without sense."""
    off_in, off_out, length, flags = rng.choice([(0, 1, 100, 0), (0, 8192, 8, MAX64), (MAX64, 0, 8, 0), (0, BIG, 8, 0),
                                                 (0, 1 << 20, MAX64, 0)])
    body = abi.COPY_FILE_RANGE_IN.pack(fh_in=bench.fh, off_in=off_in, nodeid_out=bench.file, fh_out=bench.fh,
                                       off_out=off_out, len=length, flags=flags)
    return bench.send(rng.choice([Opcode.COPY_FILE_RANGE, Opcode.COPY_FILE_RANGE_64]), bench.file, body)


# Attributes, modes and flags

@entry(KIND, LARGE, READ_ONLY, errno.EPERM)
def setattr_of_a_negative_size(bench: Bench, rng: random.Random) -> Outcome:
    """A size of 2^63 and up."""
    return bench.send(Opcode.SETATTR, bench.file,
                      abi.SETATTR_IN.pack(valid=abi.FATTR_SIZE, size=rng.choice([BIG, MAX64, BIG + 4096])))


@entry(KIND, OK, errno.EINVAL, READ_ONLY, errno.EOVERFLOW)
def setattr_of_impossible_times(bench: Bench, rng: random.Random) -> Outcome:
    """Nanoseconds past a second, UTIME_NOW and UTIME_OMIT as numbers, seconds that are negative or enormous."""
    body = abi.SETATTR_IN.pack(valid=abi.FATTR_ATIME | abi.FATTR_MTIME, atime=rng.choice([0, MAX64, BIG, BIG - 1]),
                               atimensec=rng.choice([0, 10**9, 0x3fffffff, 0x3ffffffe, 0xffffffff]),
                               mtimensec=rng.choice([10**9, 0xffffffff, 5]))
    return bench.send(Opcode.SETATTR, bench.file, body)


@entry(KIND, OK, errno.EINVAL, errno.EBADF, errno.EPERM, READ_ONLY, LARGE)
def setattr_of_everything(bench: Bench, rng: random.Random) -> Outcome:
    """Every valid bit, with random values."""
    values = {field: rng.getrandbits(31) for field in ("mode", "uid", "gid", "atimensec", "mtimensec")}
    body = abi.SETATTR_IN.pack(valid=0xffffffff, fh=strange_handle(rng), size=rng.getrandbits(64), **values)
    outcome = bench.send(Opcode.SETATTR, bench.file, body)
    restore = abi.SETATTR_IN.pack(valid=abi.FATTR_UID | abi.FATTR_GID | abi.FATTR_MODE, mode=0o666)
    bench.send(Opcode.SETATTR, bench.file, restore)
    return outcome


@entry(KIND, OK, errno.EINVAL, errno.EPERM, READ_ONLY)
def setattr_of_another_type(bench: Bench, rng: random.Random) -> Outcome:
    """A mode with the bits of another file type: the type must stay."""
    kind = rng.choice([stat.S_IFDIR, stat.S_IFBLK, stat.S_IFLNK, 0xf000])
    outcome = bench.send(Opcode.SETATTR, bench.file, abi.SETATTR_IN.pack(valid=abi.FATTR_MODE, mode=kind | 0o666))
    if not stat.S_ISREG(bench.fuse.getattr(bench.file).attr_mode):
        return Outcome("changed", "the file is no regular file any more")
    return outcome


@entry(KIND, OK, DENIED, errno.EINVAL, errno.EEXIST, errno.ENXIO)
def mknod_mode_nonsense(bench: Bench, rng: random.Random) -> Outcome:
    """MKNOD of directories, links, unknown types, and devices of impossible numbers."""
    child = f"hostile-{rng.getrandbits(60):x}"
    mode = rng.choice([stat.S_IFDIR, stat.S_IFLNK, 0xf000, 0x3000, 0xffffffff, stat.S_IFBLK, 0])
    outcome = bench.send(Opcode.MKNOD, ROOT, abi.MKNOD_IN.pack(mode=mode, rdev=0xffffffff), name(child))
    bench.send(Opcode.UNLINK, ROOT, name(child))
    return outcome


@entry(KIND, OK, WRONG_TYPE, READ_ONLY, errno.EEXIST)
def create_mode_and_flag_nonsense(bench: Bench, rng: random.Random) -> Outcome:
    """CREATE with the mode of another type, and with flags that make no sense."""
    child = f"hostile-{rng.getrandbits(60):x}"
    flags = rng.choice([0xffffffff, os.O_PATH, os.O_DIRECTORY, 3, os.O_TMPFILE | os.O_RDWR, os.O_TRUNC])
    body = abi.CREATE_IN.pack(flags=flags, mode=rng.choice([0o40600, 0o60600, 0, 0xffffffff]))
    outcome = bench.send(Opcode.CREATE, ROOT, body, name(child))
    bench.send(Opcode.UNLINK, ROOT, name(child))
    return outcome


@entry(KIND, OK, WRONG_TYPE, READ_ONLY, errno.EEXIST)
def open_flag_nonsense(bench: Bench, rng: random.Random) -> Outcome:
    """OPEN with O_PATH, O_DIRECTORY, O_CREAT, O_TMPFILE and more that a guest never passes on."""
    flags = rng.choice([0xffffffff, os.O_PATH, os.O_DIRECTORY, os.O_CREAT | os.O_EXCL, os.O_TMPFILE | os.O_RDWR, 3,
                        os.O_ASYNC, 0x80000000])
    return bench.send(Opcode.OPEN, bench.file, abi.OPEN_IN.pack(flags=flags, open_flags=rng.choice([0, 0xffffffff])))


@entry(KIND, OK, DENIED, errno.EINVAL, errno.EEXIST, errno.EIO)
def creation_by_nobody(bench: Bench, rng: random.Random) -> Outcome:
    """CREATE as uid or gid -1, which setresuid takes for "leave it"."""
    child = f"hostile-{rng.getrandbits(60):x}"
    body = abi.CREATE_IN.pack(flags=os.O_RDWR | os.O_CREAT, mode=0o100600)
    outcome = bench.send(Opcode.CREATE, ROOT, body, name(child), uid=rng.choice([0, 0xffffffff]), gid=0xffffffff)
    bench.send(Opcode.UNLINK, ROOT, name(child))
    return outcome


@entry(KIND, OK, errno.EINVAL, UNSUPPORTED)
def statx_mask_nonsense(bench: Bench, _: random.Random) -> Outcome:
    """STATX with every bit, the reserved one too."""
    body = abi.STATX_IN.pack(sx_mask=0xffffffff, sx_flags=0xffffffff)
    return bench.send(Opcode.STATX, bench.file, body, out_size=512)


@entry(KIND, OK, errno.EINVAL, errno.EACCES, UNSUPPORTED)
def access_mask_nonsense(bench: Bench, _: random.Random) -> Outcome:
    """ACCESS with bits beyond rwx."""
    return bench.send(Opcode.ACCESS, bench.file, abi.ACCESS_IN.pack(mask=0xffffffff))


@entry(KIND, BAD_REQUEST, UNSUPPORTED, errno.EPERM, errno.EACCES, READ_ONLY, errno.EFAULT)
def ioctl_nonsense(bench: Bench, rng: random.Random) -> Outcome:
    """Commands that no guest should reach, pointers, and sizes that lie."""
    body = abi.IOCTL_IN.pack(fh=bench.fh, cmd=rng.choice([0, 0x5412, 0xc0045877, 0xffffffff, 0x40086602]),
                             flags=rng.choice([0, 2, 4, 0xffffffff]), arg=rng.getrandbits(64),
                             in_size=rng.choice([5, 4096, 0xffffffff]), out_size=rng.choice([0, 8, 0xffffffff]))
    return bench.send(Opcode.IOCTL, bench.file, body, out_size=4096)


@entry(KIND, errno.EINVAL, errno.EBADF, UNSUPPORTED, OK, errno.EOVERFLOW)
def lock_nonsense(bench: Bench, rng: random.Random) -> Outcome:
    """Lock types that do not exist, ranges that end before they start, flags, and the unlocking of nothing."""
    kind, start, end, flags = rng.choice([(9, 0, 1, 0), (1, 10, 5, 0), (1, BIG, MAX64, 0), (2, 0, 9, 0xffffffff),
                                          (0xffffffff, 0, 0, 0)])
    body = abi.LK_IN.pack(fh=bench.fh, owner=5, lk_start=start, lk_end=end, lk_type=kind, lk_flags=flags)
    return bench.send(rng.choice([Opcode.GETLK, Opcode.SETLK, Opcode.SETLKW]), bench.file, body)
