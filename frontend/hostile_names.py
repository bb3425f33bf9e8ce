"""Names that are none, and extension blocks of creations that lie."""

import errno
import os
import random
import stat
import struct

from frontend import fuse_abi as abi
from frontend.fuse import ROOT
from frontend.fuse_abi import Opcode
from frontend.fuse_transport import name, pad8
from frontend.hostile_bench import (
    BAD_NAME,
    BAD_NODE,
    BAD_REQUEST,
    DENIED,
    OK,
    READ_ONLY,
    UNSUPPORTED,
    Bench,
    Outcome,
    entry,
)
from frontend.hostile_requests import NAMED

KIND = "name"


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
