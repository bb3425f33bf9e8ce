"""FUSE requests that no kernel should send: cut short, lying about lengths, about what does not exist, or absurd."""

import errno
import os
import random
import stat
import struct
from collections.abc import Callable

from frontend import fuse_abi as abi
from frontend.fuse import LINUX_FLAGS, NO_FH, ROOT
from frontend.fuse_abi import Opcode
from frontend.fuse_transport import name, pad8
from frontend.hostile_bench import (
    BAD_HANDLE,
    BAD_NAME,
    BAD_NODE,
    BAD_REQUEST,
    BROKEN,
    EMPTY,
    OK,
    UNSUPPORTED,
    Allowed,
    Bench,
    Desc,
    Outcome,
    entry,
)

KIND = "request"
MAX64 = (1 << 64) - 1
BIG = 1 << 63
HEADER = abi.IN_HEADER.size
NO_REPLY = {Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.NOTIFY_REPLY}
READ_ONLY: Allowed = frozenset({errno.EROFS})
DENIED: Allowed = UNSUPPORTED | READ_ONLY | {errno.EPERM, errno.EACCES, errno.ELOOP}
WRONG_TYPE: Allowed = UNSUPPORTED | {errno.EISDIR, errno.ENOTDIR, errno.EBADF, errno.ELOOP, errno.EPERM, errno.EACCES,
                                     errno.ENXIO, errno.EIO, errno.ENOENT}
LARGE: Allowed = UNSUPPORTED | {errno.EFBIG, errno.EOVERFLOW, errno.ENOSPC, errno.ENXIO, errno.EBADF}

# The arguments of each operation when all is well: what is cut, and what is sent to nodes that do not exist.
BODIES: dict[Opcode, Callable[[Bench], bytes]] = {
    Opcode.LOOKUP: lambda _: name("absent"),
    Opcode.GETATTR: lambda _: abi.GETATTR_IN.pack(),
    Opcode.SETATTR: lambda _: abi.SETATTR_IN.pack(valid=abi.FATTR_ATIME | abi.FATTR_ATIME_NOW),
    Opcode.SYMLINK: lambda _: name("new") + name("target"),
    Opcode.MKNOD: lambda _: abi.MKNOD_IN.pack(mode=stat.S_IFREG | 0o600) + name("new"),
    Opcode.MKDIR: lambda _: abi.MKDIR_IN.pack(mode=0o700) + name("new"),
    Opcode.UNLINK: lambda _: name("absent"),
    Opcode.RMDIR: lambda _: name("absent"),
    Opcode.RENAME: lambda _: abi.RENAME_IN.pack(newdir=ROOT) + name("absent") + name("other"),
    Opcode.RENAME2: lambda _: abi.RENAME2_IN.pack(newdir=ROOT) + name("absent") + name("other"),
    Opcode.LINK: lambda b: abi.LINK_IN.pack(oldnodeid=b.file) + name("new"),
    Opcode.OPEN: lambda _: abi.OPEN_IN.pack(),
    Opcode.READ: lambda b: abi.READ_IN.pack(fh=b.fh, size=128),
    Opcode.WRITE: lambda b: abi.WRITE_IN.pack(fh=b.fh, size=4) + b"data",
    Opcode.RELEASE: lambda _: abi.RELEASE_IN.pack(fh=NO_FH),
    Opcode.FSYNC: lambda b: abi.FSYNC_IN.pack(fh=b.fh),
    Opcode.SETXATTR: lambda _: abi.SETXATTR_IN.pack(size=1) + name("user.a") + b"v",
    Opcode.GETXATTR: lambda _: abi.GETXATTR_IN.pack(size=64) + name("user.absent"),
    Opcode.LISTXATTR: lambda _: abi.GETXATTR_IN.pack(size=64),
    Opcode.REMOVEXATTR: lambda _: name("user.absent"),
    Opcode.FLUSH: lambda b: abi.FLUSH_IN.pack(fh=b.fh),
    Opcode.INIT: lambda _: abi.INIT_IN.pack(major=7, minor=45),
    Opcode.OPENDIR: lambda _: abi.OPEN_IN.pack(),
    Opcode.READDIR: lambda b: abi.READ_IN.pack(fh=b.dir_fh, size=256),
    Opcode.READDIRPLUS: lambda b: abi.READ_IN.pack(fh=b.dir_fh, size=256),
    Opcode.RELEASEDIR: lambda _: abi.RELEASE_IN.pack(fh=NO_FH),
    Opcode.FSYNCDIR: lambda b: abi.FSYNC_IN.pack(fh=b.dir_fh),
    Opcode.GETLK: lambda b: abi.LK_IN.pack(fh=b.fh, owner=1, lk_end=9),
    Opcode.SETLK: lambda b: abi.LK_IN.pack(fh=b.fh, owner=1, lk_end=9, lk_type=2),
    Opcode.SETLKW: lambda b: abi.LK_IN.pack(fh=b.fh, owner=1, lk_end=9, lk_type=2),
    Opcode.ACCESS: lambda _: abi.ACCESS_IN.pack(mask=4),
    Opcode.CREATE: lambda _: abi.CREATE_IN.pack(flags=os.O_RDWR | os.O_CREAT, mode=0o100600) + name("new"),
    Opcode.TMPFILE: lambda _: abi.CREATE_IN.pack(flags=os.O_RDWR, mode=0o100600) + name("/"),
    Opcode.IOCTL: lambda b: abi.IOCTL_IN.pack(fh=b.fh, cmd=0x5401),
    Opcode.POLL: lambda b: abi.POLL_IN.pack(fh=b.fh, events=1),
    Opcode.BMAP: lambda _: abi.BMAP_IN.pack(blocksize=512),
    Opcode.FALLOCATE: lambda b: abi.FALLOCATE_IN.pack(fh=b.fh, length=4096),
    Opcode.LSEEK: lambda b: abi.LSEEK_IN.pack(fh=b.fh, whence=os.SEEK_DATA),
    Opcode.COPY_FILE_RANGE: lambda b: abi.COPY_FILE_RANGE_IN.pack(
        fh_in=b.fh, nodeid_out=b.file, fh_out=b.fh, off_out=4096, len=8),
    Opcode.COPY_FILE_RANGE_64: lambda b: abi.COPY_FILE_RANGE_IN.pack(
        fh_in=b.fh, nodeid_out=b.file, fh_out=b.fh, off_out=4096, len=8),
    Opcode.SETUPMAPPING: lambda _: abi.SETUPMAPPING_IN.pack(fh=NO_FH, len=2 << 20, flags=2),
    Opcode.REMOVEMAPPING: lambda _: abi.REMOVEMAPPING_IN.pack(count=1) + abi.REMOVEMAPPING_ONE.pack(len=2 << 20),
    Opcode.SYNCFS: lambda _: abi.SYNCFS_IN.pack(),
    Opcode.STATX: lambda _: abi.STATX_IN.pack(sx_mask=0x7ff),
}
NAMED = (Opcode.LOOKUP, Opcode.SYMLINK, Opcode.MKNOD, Opcode.MKDIR, Opcode.UNLINK, Opcode.RMDIR, Opcode.LINK,
         Opcode.CREATE, Opcode.RENAME, Opcode.RENAME2)
DIRECTORY = {*NAMED, Opcode.OPENDIR, Opcode.READDIR, Opcode.READDIRPLUS, Opcode.RELEASEDIR, Opcode.FSYNCDIR,
             Opcode.SYNCFS, Opcode.TMPFILE, Opcode.ACCESS}


def home(bench: Bench, opcode: Opcode) -> int:
    """The node that the operation is meant for."""
    if opcode in (Opcode.READDIR, Opcode.READDIRPLUS, Opcode.RELEASEDIR, Opcode.FSYNCDIR):
        return bench.folder
    return ROOT if opcode in DIRECTORY else bench.file


def cut_body(opcode: Opcode) -> Callable[[Bench, random.Random], Outcome]:
    def attempt(bench: Bench, rng: random.Random) -> Outcome:
        body = BODIES[opcode](bench)
        return bench.send(opcode, home(bench, opcode), body[:rng.randrange(len(body))], out_size=512)
    attempt.__doc__ = f"{opcode.name} with its arguments cut short."
    return attempt


def strange_node(opcode: Opcode) -> Callable[[Bench, random.Random], Outcome]:
    def attempt(bench: Bench, rng: random.Random) -> Outcome:
        node = rng.choice([0, MAX64, 2 << 40, BIG, bench.file ^ (1 << 32), bench.file + (1 << 48), rng.getrandbits(64)])
        return bench.send(opcode, node, BODIES[opcode](bench), out_size=512)
    attempt.__doc__ = f"{opcode.name} of a node that does not exist, or existed in another generation."
    return attempt


# By name or by handle: some servers find what they need without the node.
BY_HANDLE = {Opcode.READ, Opcode.WRITE, Opcode.FSYNC, Opcode.FLUSH, Opcode.READDIR, Opcode.READDIRPLUS,
             Opcode.FSYNCDIR, Opcode.RELEASE, Opcode.RELEASEDIR, Opcode.FALLOCATE, Opcode.LSEEK, Opcode.GETLK,
             Opcode.SETLK, Opcode.SETLKW, Opcode.COPY_FILE_RANGE, Opcode.COPY_FILE_RANGE_64, Opcode.IOCTL, Opcode.POLL,
             Opcode.REMOVEMAPPING, Opcode.SYNCFS}
for _opcode in BODIES:
    _also: set[str | int] = {OK} if _opcode in (Opcode.INIT, Opcode.SETXATTR) else set()
    entry(KIND, BAD_REQUEST, UNSUPPORTED, BAD_NAME, READ_ONLY, _also, name=f"short_{_opcode.name.lower()}",
          fresh=_opcode == Opcode.INIT)(cut_body(_opcode))
    if _opcode != Opcode.INIT:
        _lenient: set[str | int] = {OK} if _opcode in BY_HANDLE else set()
        entry(KIND, BAD_NODE, UNSUPPORTED, READ_ONLY, _lenient, {errno.ENODATA} if "XATTR" in _opcode.name else (),
              name=f"strange_node_{_opcode.name.lower()}")(strange_node(_opcode))


# Headers

@entry(KIND, BAD_REQUEST, BROKEN)
def short_header(bench: Bench, rng: random.Random) -> Outcome:
    """A request of 1 to 39 bytes."""
    data = bench.getattr_request()[:rng.randrange(1, HEADER)]
    out = bench.room()
    return bench.chain(Desc(bench.put(data), len(data)), Desc(out, 512, 2))


@entry(KIND, BAD_REQUEST, OK)
def header_says_more(bench: Bench, rng: random.Random) -> Outcome:
    """A length in the header larger than the message."""
    return bench.send(Opcode.GETATTR, ROOT, abi.GETATTR_IN.pack(),
                      header={"len": rng.choice([57, 64, 4096, 1 << 20, 0x7fffffff, 0xffffffff])})


@entry(KIND, BAD_REQUEST, OK)
def header_says_less(bench: Bench, rng: random.Random) -> Outcome:
    """A length in the header smaller than the message."""
    return bench.send(Opcode.GETATTR, ROOT, abi.GETATTR_IN.pack(), header={"len": rng.randrange(56)})


@entry(KIND, OK)
def header_padding(bench: Bench, _: random.Random) -> Outcome:
    """Bits where the header has padding."""
    return bench.send(Opcode.GETATTR, ROOT, abi.GETATTR_IN.pack(), header={"padding": 0xffff})


@entry(KIND, OK, BAD_REQUEST)
def strange_unique(bench: Bench, rng: random.Random) -> Outcome:
    """A unique of 0, odd, or with its top bit."""
    unique = rng.choice([0, 1, MAX64, BIG])
    ticket = bench.fuse.submit(Opcode.GETATTR, ROOT, abi.GETATTR_IN.pack(), out_size=256, header={"unique": unique})
    ticket.unique = unique
    return bench.settle(ticket)


@entry(KIND, OK)
def same_unique_twice(bench: Bench, _: random.Random) -> Outcome:
    """Two requests in flight with one unique."""
    fuse = bench.fuse
    first = fuse.submit(Opcode.GETATTR, ROOT, abi.GETATTR_IN.pack(), out_size=256)
    second = fuse.submit(Opcode.GETATTR, ROOT, abi.GETATTR_IN.pack(), out_size=256, header={"unique": first.unique})
    second.unique = first.unique
    bench.settle(second)
    return bench.settle(first)


@entry(KIND, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO, EMPTY)
def unknown_opcode(bench: Bench, rng: random.Random) -> Outcome:
    """Opcodes that are not in use."""
    return bench.send(rng.choice([0, 7, 19, 54, 63, 64, 255, 4096, 0x7fffffff, 0xffffffff]), ROOT,
                      bytes(rng.randrange(200)))


@entry(KIND, OK)
def more_arguments_than_needed(bench: Bench, rng: random.Random) -> Outcome:
    """Bytes behind the arguments."""
    return bench.send(Opcode.GETATTR, ROOT, abi.GETATTR_IN.pack(), bytes(rng.randrange(1, 5000)))


@entry(KIND, OK)
def request_on_hiprio(bench: Bench, _: random.Random) -> Outcome:
    """A request with a reply on the queue for those without."""
    return bench.send(Opcode.GETATTR, ROOT, abi.GETATTR_IN.pack(), queue=0)


# Names

def named(bench: Bench, rng: random.Random, raw: bytes, *opcodes: Opcode) -> Outcome:
    """The bytes as the name of some operation that takes one."""
    opcode = rng.choice(opcodes or NAMED)
    head: dict[Opcode, bytes] = {
        Opcode.MKNOD: abi.MKNOD_IN.pack(mode=stat.S_IFREG | 0o600), Opcode.MKDIR: abi.MKDIR_IN.pack(mode=0o700),
        Opcode.LINK: abi.LINK_IN.pack(oldnodeid=bench.file), Opcode.RENAME: abi.RENAME_IN.pack(newdir=ROOT),
        Opcode.RENAME2: abi.RENAME2_IN.pack(newdir=ROOT),
        Opcode.CREATE: abi.CREATE_IN.pack(flags=os.O_RDWR | os.O_CREAT, mode=0o100600)}
    tail = {Opcode.SYMLINK: name("target"), Opcode.RENAME: name("hostile-other"), Opcode.RENAME2: name("hostile-other")}
    return bench.send(opcode, ROOT, head.get(opcode, b"") + raw + tail.get(opcode, b""))


@entry(KIND, BAD_NAME, READ_ONLY)
def name_with_a_slash(bench: Bench, rng: random.Random) -> Outcome:
    """Paths instead of a component."""
    return named(bench, rng, rng.choice([b"a/b\0", b"/\0", b"/etc/passwd\0", b"../x\0", b"hostile-folder/x\0",
                                         b"hostile-folder/\0"]))


@entry(KIND, BAD_NAME, READ_ONLY)
def empty_name(bench: Bench, rng: random.Random) -> Outcome:
    """A name that is only its NUL."""
    return named(bench, rng, b"\0", *(op for op in NAMED if op not in (Opcode.RENAME, Opcode.RENAME2)))


@entry(KIND, BAD_NAME, READ_ONLY)
def dots_where_they_make_no_sense(bench: Bench, rng: random.Random) -> Outcome:
    """"." and ".." to operations that change names."""
    return named(bench, rng, rng.choice([b".\0", b"..\0"]), *(op for op in NAMED if op != Opcode.LOOKUP))


@entry(KIND, BAD_NAME, BAD_NODE, READ_ONLY, OK)
def dotdot_at_the_root(bench: Bench, _: random.Random) -> Outcome:
    """LOOKUP of ".." in the root: the root itself, or an error; never the host's directory above it."""
    ticket = bench.fuse.submit(Opcode.LOOKUP, ROOT, name(".."), out_size=abi.ENTRY_OUT.size)
    reply = bench.fuse.complete(ticket, bench.patience)
    if reply.error:
        return Outcome(-reply.error)
    inode = abi.ENTRY_OUT.unpack(reply.data).attr_ino
    return Outcome(OK) if inode == bench.fuse.getattr(ROOT).attr_ino else Outcome("escaped", f"inode {inode}")


@entry(KIND, BAD_REQUEST, BAD_NAME, READ_ONLY)
def name_without_end(bench: Bench, rng: random.Random) -> Outcome:
    """No NUL before the message ends."""
    return named(bench, rng, b"hostile-open-ended", Opcode.LOOKUP, Opcode.MKNOD, Opcode.MKDIR, Opcode.UNLINK,
                 Opcode.RMDIR, Opcode.LINK, Opcode.CREATE)


@entry(KIND, BAD_REQUEST, BAD_NAME, READ_ONLY)
def no_second_name(bench: Bench, rng: random.Random) -> Outcome:
    """Operations on two names with only one."""
    opcode = rng.choice([Opcode.SYMLINK, Opcode.RENAME, Opcode.RENAME2])
    head = {Opcode.RENAME: abi.RENAME_IN.pack(newdir=ROOT), Opcode.RENAME2: abi.RENAME2_IN.pack(newdir=ROOT)}
    return bench.send(opcode, ROOT, head.get(opcode, b"") + name("hostile-one"))


@entry(KIND, errno.ENAMETOOLONG, errno.EINVAL, errno.ENOENT, READ_ONLY)
def name_too_long(bench: Bench, rng: random.Random) -> Outcome:
    """Names of 256 bytes to 64 KiB."""
    return named(bench, rng, b"x" * rng.choice([256, 1024, 4095, 4096, 5000, 65535]) + b"\0",
                 *(op for op in NAMED if op != Opcode.SYMLINK))


@entry(KIND, OK, BAD_NAME, READ_ONLY, errno.EILSEQ)
def name_of_any_bytes(bench: Bench, rng: random.Random) -> Outcome:
    """Random bytes that are no UTF-8."""
    raw = bytes(rng.choice(range(0x80, 0x100)) for _ in range(20))
    return named(bench, rng, raw + b"\0", Opcode.LOOKUP, Opcode.UNLINK, Opcode.RMDIR)


@entry(KIND, OK, errno.ENOENT, errno.EINVAL)
def two_names_for_one(bench: Bench, _: random.Random) -> Outcome:
    """LOOKUP with a NUL inside: the rest must not count."""
    return bench.send(Opcode.LOOKUP, ROOT, b"hostile-file\0/etc/passwd\0")


@entry(KIND, errno.ENAMETOOLONG, errno.EINVAL, errno.ENOENT, READ_ONLY)
def symlink_target_too_long(bench: Bench, rng: random.Random) -> Outcome:
    """A target longer than any path, or empty."""
    return bench.send(Opcode.SYMLINK, ROOT, name("hostile-long") + b"t" * rng.choice([0, 4096, 65000]) + b"\0")


@entry(KIND, OK, DENIED, BAD_NAME, errno.ENODATA, errno.ERANGE)
def xattr_name_nonsense(bench: Bench, rng: random.Random) -> Outcome:
    """Attribute names without a namespace, too long, or of the host's business."""
    raw = rng.choice([b"\0", b"nonamespace\0", b"user.\0", b"user." + b"x" * 300 + b"\0", b"trusted.overlay.opaque\0"])
    return bench.send(Opcode.GETXATTR, bench.file, abi.GETXATTR_IN.pack(size=64) + raw)


# Extensions of creations

def creation(bench: Bench, rng: random.Random, ext: bytes, extlen: int | None = None) -> Outcome:
    child = f"hostile-{rng.getrandbits(60):x}"
    outcome = bench.send(Opcode.MKDIR, ROOT, abi.MKDIR_IN.pack(mode=0o700), name(child), ext=ext,
                         header={} if extlen is None else {"total_extlen": extlen})
    bench.send(Opcode.RMDIR, ROOT, name(child))
    return outcome


@entry(KIND, BAD_REQUEST, OK, READ_ONLY)
def extensions_longer_than_the_message(bench: Bench, rng: random.Random) -> Outcome:
    """total_extlen reaches before the arguments."""
    return creation(bench, rng, b"", rng.choice([3, 8, 100, 0xffff]))


@entry(KIND, BAD_REQUEST, OK, READ_ONLY)
def extension_block_without_size(bench: Bench, rng: random.Random) -> Outcome:
    """A block of 0 to 7 bytes, which a careless parser never leaves."""
    return creation(bench, rng, abi.EXT_HEADER.pack(size=rng.randrange(8), type=abi.FUSE_EXT_GROUPS) + bytes(8))


@entry(KIND, BAD_REQUEST, OK, READ_ONLY)
def extension_block_too_large(bench: Bench, rng: random.Random) -> Outcome:
    """A block that says it is larger than all of them."""
    return creation(bench, rng, abi.EXT_HEADER.pack(size=rng.choice([24, 4096, 0xfffffff8, 0xffffffff]),
                                                    type=rng.choice([1, abi.FUSE_EXT_GROUPS])) + bytes(8))


@entry(KIND, BAD_REQUEST, OK, UNSUPPORTED, READ_ONLY)
def unknown_extension(bench: Bench, rng: random.Random) -> Outcome:
    """A block of a type that nobody knows."""
    return creation(bench, rng, abi.EXT_HEADER.pack(size=16, type=rng.choice([33, 64, 0xffffffff])) + bytes(8))


@entry(KIND, BAD_REQUEST, OK, UNSUPPORTED, READ_ONLY)
def lying_security_context(bench: Bench, rng: random.Random) -> Outcome:
    """More contexts than there are, labels longer than the block, names without an end."""
    count, size, text = rng.choice([(31, 4, b"a\0"), (1, 0xffffffff, b"security.x\0"), (1, 4096, b"security.x\0"),
                                    (1, 2, b"security.xxxxxxxxxxxxxxxxxxxx"), (2, 1, b"\0")])
    body = pad8(abi.SECCTX.pack(size=size) + text)
    return creation(bench, rng, abi.EXT_HEADER.pack(size=8 + len(body), type=count) + body)


@entry(KIND, BAD_REQUEST, OK, UNSUPPORTED, READ_ONLY, errno.EPERM)
def lying_group_count(bench: Bench, rng: random.Random) -> Outcome:
    """More supplementary groups than the block holds."""
    count = rng.choice([2, 3, 32, 65536, 0x40000000, 0xffffffff])
    body = struct.pack("=II", count, 0)
    return creation(bench, rng, abi.EXT_HEADER.pack(size=16, type=abi.FUSE_EXT_GROUPS) + body)


@entry(KIND, BAD_REQUEST, OK, READ_ONLY)
def extensions_where_none_belong(bench: Bench, _: random.Random) -> Outcome:
    """A block behind a GETATTR."""
    return bench.send(Opcode.GETATTR, ROOT, abi.GETATTR_IN.pack(), groups=[0])


# Handles

def strange_handle(rng: random.Random) -> int:
    return rng.choice([1000, 1 << 20, 1 << 31, 1 << 32, BIG, MAX64, rng.getrandbits(64)])


HANDLED: dict[Opcode, Callable[[int], bytes]] = {
    Opcode.READ: lambda fh: abi.READ_IN.pack(fh=fh, size=64),
    Opcode.WRITE: lambda fh: abi.WRITE_IN.pack(fh=fh, size=1) + b"x",
    Opcode.FSYNC: lambda fh: abi.FSYNC_IN.pack(fh=fh),
    Opcode.FLUSH: lambda fh: abi.FLUSH_IN.pack(fh=fh),
    Opcode.RELEASE: lambda fh: abi.RELEASE_IN.pack(fh=fh),
    Opcode.READDIR: lambda fh: abi.READ_IN.pack(fh=fh, size=256),
    Opcode.READDIRPLUS: lambda fh: abi.READ_IN.pack(fh=fh, size=512),
    Opcode.RELEASEDIR: lambda fh: abi.RELEASE_IN.pack(fh=fh),
    Opcode.FSYNCDIR: lambda fh: abi.FSYNC_IN.pack(fh=fh),
    Opcode.FALLOCATE: lambda fh: abi.FALLOCATE_IN.pack(fh=fh, length=1),
    Opcode.LSEEK: lambda fh: abi.LSEEK_IN.pack(fh=fh, whence=os.SEEK_HOLE),
    Opcode.GETLK: lambda fh: abi.LK_IN.pack(fh=fh, owner=1),
    Opcode.SETLK: lambda fh: abi.LK_IN.pack(fh=fh, owner=1, lk_type=1),
    Opcode.SETLKW: lambda fh: abi.LK_IN.pack(fh=fh, owner=1, lk_type=1),
    Opcode.IOCTL: lambda fh: abi.IOCTL_IN.pack(fh=fh, cmd=0x80086601, out_size=8),
    Opcode.POLL: lambda fh: abi.POLL_IN.pack(fh=fh, events=1),
    Opcode.GETATTR: lambda fh: abi.GETATTR_IN.pack(getattr_flags=abi.FUSE_GETATTR_FH, fh=fh),
    Opcode.SETATTR: lambda fh: abi.SETATTR_IN.pack(valid=abi.FATTR_FH | abi.FATTR_SIZE, fh=fh, size=100),
}


def unknown_handle(opcode: Opcode) -> Callable[[Bench, random.Random], Outcome]:
    def attempt(bench: Bench, rng: random.Random) -> Outcome:
        return bench.send(opcode, home(bench, opcode), HANDLED[opcode](strange_handle(rng)), out_size=512)
    attempt.__doc__ = f"{opcode.name} of a handle that was never given."
    return attempt


for _opcode in HANDLED:
    _lenient = {OK} if _opcode in (Opcode.GETATTR, Opcode.SETATTR, Opcode.RELEASE, Opcode.RELEASEDIR) else set()
    entry(KIND, BAD_HANDLE, UNSUPPORTED, READ_ONLY, _lenient,
          name=f"unknown_handle_{_opcode.name.lower()}")(unknown_handle(_opcode))


@entry(KIND, BAD_HANDLE, READ_ONLY, UNSUPPORTED, errno.EXDEV)
def copy_between_bad_handles(bench: Bench, rng: random.Random) -> Outcome:
    """COPY_FILE_RANGE from or to a handle that was never given."""
    pair = rng.choice([(bench.fh, strange_handle(rng)), (strange_handle(rng), bench.fh)])
    body = abi.COPY_FILE_RANGE_IN.pack(fh_in=pair[0], nodeid_out=bench.file, fh_out=pair[1], len=4096)
    return bench.send(rng.choice([Opcode.COPY_FILE_RANGE, Opcode.COPY_FILE_RANGE_64]), bench.file, body)


@entry(KIND, BAD_HANDLE, errno.EIO, UNSUPPORTED, OK)
def handle_of_another_node(bench: Bench, _: random.Random) -> Outcome:
    """READ of a directory's node with a file's handle."""
    return bench.send(Opcode.READ, bench.folder, abi.READ_IN.pack(fh=bench.fh, size=64))


@entry(KIND, BAD_HANDLE, OK)
def release_twice(bench: Bench, _: random.Random) -> Outcome:
    """The second RELEASE of a handle."""
    fh = bench.fuse.open(bench.file).fh
    bench.fuse.release(bench.file, fh)
    return bench.send(Opcode.RELEASE, bench.file, abi.RELEASE_IN.pack(fh=fh))


@entry(KIND, BAD_HANDLE)
def read_after_release(bench: Bench, _: random.Random) -> Outcome:
    """READ of a handle that was given back."""
    fh = bench.fuse.open(bench.file).fh
    bench.fuse.release(bench.file, fh)
    return bench.send(Opcode.READ, bench.file, abi.READ_IN.pack(fh=fh, size=64))


# Wrong types

@entry(KIND, WRONG_TYPE)
def read_of_a_directory(bench: Bench, _: random.Random) -> Outcome:
    """READ with the handle of a directory."""
    return bench.send(Opcode.READ, bench.folder, abi.READ_IN.pack(fh=bench.dir_fh, size=64))


@entry(KIND, WRONG_TYPE)
def write_of_a_directory(bench: Bench, _: random.Random) -> Outcome:
    """WRITE with the handle of a directory."""
    return bench.send(Opcode.WRITE, bench.folder, abi.WRITE_IN.pack(fh=bench.dir_fh, size=1), b"x")


@entry(KIND, WRONG_TYPE)
def readdir_of_a_file(bench: Bench, rng: random.Random) -> Outcome:
    """READDIR with the handle of a file."""
    return bench.send(rng.choice([Opcode.READDIR, Opcode.READDIRPLUS]), bench.file,
                      abi.READ_IN.pack(fh=bench.fh, size=256))


@entry(KIND, WRONG_TYPE)
def names_in_a_file(bench: Bench, rng: random.Random) -> Outcome:
    """An operation on a name, with a regular file as the directory."""
    opcode = rng.choice(NAMED)
    return bench.send(opcode, bench.file, BODIES[opcode](bench))


@entry(KIND, WRONG_TYPE)
def opendir_of_a_file(bench: Bench, _: random.Random) -> Outcome:
    """OPENDIR of a regular file."""
    return bench.send(Opcode.OPENDIR, bench.file, abi.OPEN_IN.pack(flags=os.O_RDONLY))


@entry(KIND, WRONG_TYPE, READ_ONLY)
def open_of_a_directory_for_writing(bench: Bench, _: random.Random) -> Outcome:
    """OPEN of a directory with O_RDWR."""
    return bench.send(Opcode.OPEN, bench.folder, abi.OPEN_IN.pack(flags=os.O_RDWR))


@entry(KIND, WRONG_TYPE)
def open_of_a_symlink(bench: Bench, rng: random.Random) -> Outcome:
    """OPEN of a symlink: the guest follows links, never the host."""
    return bench.send(Opcode.OPEN, bench.link, abi.OPEN_IN.pack(flags=rng.choice([os.O_RDONLY, os.O_RDWR])))


@entry(KIND, WRONG_TYPE)
def open_of_a_fifo(bench: Bench, rng: random.Random) -> Outcome:
    """OPEN of a FIFO, on which a careless server blocks."""
    return bench.send(Opcode.OPEN, bench.fifo, abi.OPEN_IN.pack(flags=rng.choice([os.O_RDONLY, os.O_WRONLY])))


@entry(KIND, WRONG_TYPE, READ_ONLY)
def truncate_of_a_fifo(bench: Bench, _: random.Random) -> Outcome:
    """SETATTR of a FIFO's or a directory's size."""
    return bench.send(Opcode.SETATTR, bench.fifo, abi.SETATTR_IN.pack(valid=abi.FATTR_SIZE, size=10))


@entry(KIND, WRONG_TYPE)
def readlink_of_a_file(bench: Bench, _: random.Random) -> Outcome:
    """READLINK of a regular file."""
    return bench.send(Opcode.READLINK, bench.file, out_size=4095)


@entry(KIND, WRONG_TYPE, READ_ONLY)
def unlink_of_a_directory(bench: Bench, _: random.Random) -> Outcome:
    """UNLINK of a directory."""
    return bench.send(Opcode.UNLINK, ROOT, name("hostile-folder"))


@entry(KIND, WRONG_TYPE, READ_ONLY)
def rmdir_of_a_file(bench: Bench, _: random.Random) -> Outcome:
    """RMDIR of a regular file."""
    return bench.send(Opcode.RMDIR, ROOT, name("hostile-file"))


@entry(KIND, WRONG_TYPE, READ_ONLY)
def link_of_a_directory(bench: Bench, _: random.Random) -> Outcome:
    """LINK of a directory."""
    return bench.send(Opcode.LINK, ROOT, abi.LINK_IN.pack(oldnodeid=bench.folder), name("hostile-hard"))


@entry(KIND, WRONG_TYPE, READ_ONLY)
def rename_into_itself(bench: Bench, _: random.Random) -> Outcome:
    """A directory renamed to below itself."""
    return bench.send(Opcode.RENAME, ROOT, abi.RENAME_IN.pack(newdir=bench.folder), name("hostile-folder"), name("in"))


@entry(KIND, BAD_NODE, READ_ONLY)
def rename_to_nowhere(bench: Bench, rng: random.Random) -> Outcome:
    """RENAME to a directory that does not exist."""
    return bench.send(Opcode.RENAME, ROOT, abi.RENAME_IN.pack(newdir=rng.choice([0, MAX64, rng.getrandbits(64)])),
                      name("hostile-file"), name("gone"))


@entry(KIND, errno.EINVAL, READ_ONLY, UNSUPPORTED)
def rename_flags_nonsense(bench: Bench, rng: random.Random) -> Outcome:
    """Flags of RENAME2 that do not exist, or not together."""
    body = abi.RENAME2_IN.pack(newdir=ROOT, flags=rng.choice([3, 6, 7, 8, 1 << 31, 0xffffffff]))
    return bench.send(Opcode.RENAME2, ROOT, body, name("hostile-file"), name("hostile-file-2"))


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


# Forgetting and interrupting

@entry(KIND, EMPTY, OK, BAD_NODE)
def forget_too_much(bench: Bench, rng: random.Random) -> Outcome:
    """More lookups given back than were taken; the node may go, the device may not."""
    node = bench.fuse.mkdir(ROOT, child := f"hostile-{rng.getrandbits(60):x}").nodeid
    outcome = bench.send(Opcode.FORGET, node, abi.FORGET_IN.pack(nlookup=rng.choice([2, 1 << 32, MAX64])),
                         no_reply=True, queue=0)
    bench.send(Opcode.GETATTR, node, abi.GETATTR_IN.pack())
    bench.send(Opcode.RMDIR, ROOT, name(child))
    return outcome


@entry(KIND, EMPTY)
def forget_of_the_root(bench: Bench, rng: random.Random) -> Outcome:
    """The root forgotten: it stays."""
    outcome = bench.send(Opcode.FORGET, ROOT, abi.FORGET_IN.pack(nlookup=rng.choice([1, 100, MAX64])), no_reply=True,
                         queue=rng.choice([0, 1]))
    bench.fuse.getattr(ROOT)
    return outcome


@entry(KIND, EMPTY)
def forget_of_nothing(bench: Bench, rng: random.Random) -> Outcome:
    """A node that was never looked up, or none."""
    return bench.send(Opcode.FORGET, rng.choice([0, MAX64, rng.getrandbits(64)]), abi.FORGET_IN.pack(nlookup=1),
                      no_reply=True, queue=rng.choice([0, 1]))


@entry(KIND, EMPTY, OK, BAD_REQUEST)
def forget_with_reply_room(bench: Bench, rng: random.Random) -> Outcome:
    """FORGET, BATCH_FORGET and INTERRUPT with buffers for a reply that they have not."""
    opcode = rng.choice([Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT])
    return bench.send(opcode, bench.file, bytes(16))


@entry(KIND, EMPTY, BAD_REQUEST)
def batch_forget_count_lies(bench: Bench, rng: random.Random) -> Outcome:
    """BATCH_FORGET with another count than entries."""
    one = abi.FORGET_ONE.pack(nodeid=rng.getrandbits(64), nlookup=1)
    body = abi.BATCH_FORGET_IN.pack(count=rng.choice([0, 1, 3, 1000, 0x10000000, 0xffffffff]))
    return bench.send(Opcode.BATCH_FORGET, 0, body, one * 2, no_reply=True, queue=0)


@entry(KIND, EMPTY)
def interrupt_of_nothing(bench: Bench, rng: random.Random) -> Outcome:
    """INTERRUPT of a request that does not exist, or of itself."""
    unique = rng.choice([0, MAX64, bench.fuse.unique + 2])
    body = abi.INTERRUPT_IN.pack(unique=unique)
    return bench.send(Opcode.INTERRUPT, 0, body, no_reply=True, queue=rng.choice([0, 1]))


@entry(KIND, EMPTY)
def short_forget(bench: Bench, rng: random.Random) -> Outcome:
    """FORGET, BATCH_FORGET and INTERRUPT cut short, without room for an error."""
    opcode = rng.choice([Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT])
    return bench.send(opcode, bench.file, bytes(rng.randrange(8)), no_reply=True, queue=0)


@entry(KIND, EMPTY, UNSUPPORTED, BAD_REQUEST)
def notify_reply_unasked(bench: Bench, rng: random.Random) -> Outcome:
    """An answer to a notification that nobody sent."""
    return bench.send(Opcode.NOTIFY_REPLY, bench.file, bytes(rng.randrange(64)), no_reply=bool(rng.getrandbits(1)))


# Sessions

@entry(KIND, OK, BAD_REQUEST, errno.EPERM, fresh=True)
def second_init(bench: Bench, _: random.Random) -> Outcome:
    """INIT in the middle of a session: a new one begins."""
    return bench.send(Opcode.INIT, 0, abi.INIT_IN.pack(major=7, minor=45, flags=LINUX_FLAGS & 0xffffffff))


@entry(KIND, OK, BAD_REQUEST, errno.EPERM, fresh=True)
def init_of_other_versions(bench: Bench, rng: random.Random) -> Outcome:
    """INIT of older and newer majors and minors, with every flag."""
    major, minor = rng.choice([(8, 0), (6, 1), (0, 0), (7, 0), (7, 4), (7, 22), (7, 0xffffffff), (0xffffffff, 0)])
    return bench.send(Opcode.INIT, 0, abi.INIT_IN.pack(major=major, minor=minor, flags=0xffffffff, flags2=0xffffffff,
                                                       max_readahead=0xffffffff))


@entry(KIND, BAD_REQUEST, UNSUPPORTED, errno.EPERM, OK, fresh=True)
def init_of_the_other_byte_order(bench: Bench, _: random.Random) -> Outcome:
    """A guest of the opposite byte order."""
    body = struct.pack(">IIII", 7, 45, 0, 0) + bytes(48)
    return bench.send(abi.FUSE_INIT_BSWAP_RESERVED, 0, body)


@entry(KIND, OK, BAD_NODE, errno.EPERM, errno.EPROTO, EMPTY, fresh=True)
def request_after_destroy(bench: Bench, rng: random.Random) -> Outcome:
    """A request of the old session after DESTROY: what it knew is gone."""
    bench.fuse.destroy()
    return bench.send(Opcode.GETATTR, rng.choice([ROOT, bench.file]), abi.GETATTR_IN.pack())


@entry(KIND, BAD_HANDLE, BAD_NODE, errno.EPERM, errno.EPROTO, EMPTY, fresh=True)
def handle_after_destroy(bench: Bench, _: random.Random) -> Outcome:
    """READ with a handle of the old session."""
    bench.fuse.destroy()
    return bench.send(Opcode.READ, bench.file, abi.READ_IN.pack(fh=bench.fh, size=64))


@entry(KIND, OK, errno.EPERM, errno.EINVAL, errno.EPROTO, errno.EIO, EMPTY, fresh=True)
def destroy_twice(bench: Bench, _: random.Random) -> Outcome:
    """DESTROY of a session that is over."""
    bench.fuse.destroy()
    return bench.send(Opcode.DESTROY, 0)


@entry(KIND, BAD_REQUEST, errno.EPERM, OK, errno.ENOSYS, fresh=True)
def request_before_init(bench: Bench, _: random.Random) -> Outcome:
    """A request to a device that was reset and has no session."""
    bench.device.reset()
    bench.device.start()
    return bench.send(Opcode.GETATTR, ROOT, abi.GETATTR_IN.pack())


@entry(KIND, UNSUPPORTED, BAD_REQUEST, errno.EBADF, errno.ENODEV, errno.EPERM)
def mapping_without_a_window(bench: Bench, rng: random.Random) -> Outcome:
    """SETUPMAPPING where there is no window, past its end, or of lengths without sense."""
    body = abi.SETUPMAPPING_IN.pack(fh=NO_FH, foffset=rng.choice([0, 1, BIG]), len=rng.choice([0, 1, MAX64, 2 << 20]),
                                    flags=rng.choice([0, 3, MAX64]), moffset=rng.choice([MAX64, BIG, 1 << 40]))
    return bench.send(Opcode.SETUPMAPPING, bench.file, body)


@entry(KIND, UNSUPPORTED, BAD_REQUEST, OK)
def removemapping_count_lies(bench: Bench, rng: random.Random) -> Outcome:
    """REMOVEMAPPING with another count than ranges."""
    body = abi.REMOVEMAPPING_IN.pack(count=rng.choice([0, 2, 257, 0x10000000, 0xffffffff]))
    return bench.send(Opcode.REMOVEMAPPING, bench.file, body, abi.REMOVEMAPPING_ONE.pack(len=2 << 20))
