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
from frontend.fuse_transport import name
from frontend.hostile_bench import (
    BAD_HANDLE,
    BAD_NAME,
    BAD_NODE,
    BAD_REQUEST,
    BROKEN,
    EMPTY,
    OK,
    READ_ONLY,
    UNSUPPORTED,
    WRONG_TYPE,
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
    # What is left of INIT and SETXATTR can be one of an older kernel; and the name of a TMPFILE means nothing.
    _also: set[str | int] = {OK} if _opcode in (Opcode.INIT, Opcode.SETXATTR, Opcode.TMPFILE) else set()
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
