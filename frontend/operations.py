"""What a load generator does: prepared requests, and the streams of them that benchmarks use.

File contents follow a pattern, so that a reply can be checked by its offset alone: the 8 bytes at an offset that is a
multiple of 8 are a function of it.
"""

import os
import random
import stat
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from frontend import fuse_abi as abi
from frontend.fuse_abi import Opcode
from frontend.fuse_transport import name

PATTERN_FACTOR = 0x9e3779b97f4a7c15
PATTERN_ADDEND = 0x2545f4914f6cdd1d
NO_CHECK, CHECK_WORD, CHECK_PATTERN, CHECK_DATA = 0, 1, 2, 3
SLOT, SLOT_DIGITS = 3, "00000000"       # a register that begins as the slot's number, and what it takes the place of


def pattern(offset: int, length: int) -> bytes:
    """The bytes of a pattern file at an offset that is a multiple of 8."""
    words = array("Q", ((at * PATTERN_FACTOR + PATTERN_ADDEND) % (1 << 64)
                        for at in range(offset, offset + length + 7, 8)))
    return words.tobytes()[:length]


@dataclass(frozen=True)
class Op:
    """One request and what its reply must be.

    `request` is header and small arguments; the generator fills in `unique`. `data` bytes follow from pages, with the
    pattern of `offset`. The reply has `out_args` small bytes and room for `out_data` in pages; a good one has between
    `least` and `most` bytes and the error `error`. CHECK_WORD compares 8 bytes of the small reply, CHECK_DATA the first
    8 of the data, CHECK_PATTERN the edges of at most 8 of its pages, and a WRITE fills in no more. `saves` are (offset
    in the small reply, register): 8 bytes kept for the rest of the cycle, and put into a later request by its
    `patches`, (offset in the request, register). Register SLOT holds eight digits for names that only one of the
    generator's slots uses.
    """

    request: bytes
    data: int = 0
    out_args: int = 0
    out_data: int = 0
    least: int = -1
    most: int = -1
    error: int = 0
    no_reply: bool = False
    check: int = NO_CHECK
    check_at: int = 0
    check_value: int = 0
    offset: int = 0
    saves: tuple[tuple[int, int], ...] = ()
    patches: tuple[tuple[int, int], ...] = ()


@dataclass
class Result:
    """What a run did. `latencies` are nanoseconds of evenly chosen operations, `sampled` one in how many."""

    operations: int
    seconds: float
    cpu_seconds: float
    wrong_header: int
    wrong_length: int
    wrong_error: int
    wrong_data: int
    data_bytes: int
    kicks: int
    kicks_saved: int
    calls: int
    wake_ups: int
    stalled: bool
    ring_error: int
    sampled: int
    latencies: "array[int]" = field(repr=False)

    @property
    def wrong(self) -> int:
        """Replies that were not right, of each kind."""
        return self.wrong_header + self.wrong_length + self.wrong_error + self.wrong_data

    @property
    def good(self) -> bool:
        """Everything was answered, and answered right."""
        return not (self.wrong or self.stalled or self.ring_error)

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.operations / self.seconds if self.seconds else 0.0

    def percentile(self, percent: float) -> float:
        """Microseconds."""
        ordered = sorted(self.latencies)
        return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)] / 1000 if ordered else 0.0

    @property
    def mean(self) -> float:
        """Microseconds."""
        return sum(self.latencies) / len(self.latencies) / 1000 if self.latencies else 0.0


# Requests

HEADER = abi.IN_HEADER.size
REQUEST_FH = HEADER         # where fh stands in requests that begin with it
REQUEST_NODEID = 16


def request(opcode: int, nodeid: int, *parts: bytes, uid: int = 0, gid: int = 0, pid: int = 1,
            extensions: int = 0) -> bytes:
    """A whole request without its unique; `extensions` are units of 8 bytes at the end of `parts`."""
    body = b"".join(parts)
    return abi.IN_HEADER.pack(len=HEADER + len(body), opcode=opcode, nodeid=nodeid, uid=uid, gid=gid, pid=pid,
                              total_extlen=extensions) + body


def getattr_op(nodeid: int, ino: int | None = None) -> Op:
    """A GETATTR, whose inode number is checked where one is given."""
    return Op(request(Opcode.GETATTR, nodeid, abi.GETATTR_IN.pack()), out_args=abi.ATTR_OUT.size,
              check=NO_CHECK if ino is None else CHECK_WORD, check_at=16, check_value=ino or 0)


def setattr_op(nodeid: int, valid: int, **values: int) -> Op:
    """Sets the fields of setattr_in that FATTR bits in `valid` name. A mode, of a file with one name, is checked."""
    links = 1 << 32     # in the word that begins with the mode
    return Op(request(Opcode.SETATTR, nodeid, abi.SETATTR_IN.pack(valid=valid, **values)), out_args=abi.ATTR_OUT.size,
              check=CHECK_WORD if valid & abi.FATTR_MODE else NO_CHECK, check_at=76,
              check_value=values.get("mode", 0) | links)


def lookup_op(parent: int, child: str, ino: int | None = None, missing: bool = False) -> Op:
    """A LOOKUP, whose inode number is checked where one is given; `missing`: it must be ENOENT."""
    return Op(request(Opcode.LOOKUP, parent, name(child)), out_args=abi.ENTRY_OUT.size, error=-2 if missing else 0,
              check=NO_CHECK if ino is None else CHECK_WORD, check_at=40, check_value=ino or 0)


def negative_lookup_op(parent: int, child: str) -> Op:
    """A LOOKUP of a missing name that is answered with an entry of node 0, which the guest may keep."""
    return Op(request(Opcode.LOOKUP, parent, name(child)), out_args=abi.ENTRY_OUT.size, check=CHECK_WORD)


def unlink_op(parent: int, child: str) -> Op:
    return Op(request(Opcode.UNLINK, parent, name(child)))


def forget_op(nodeid: int, count: int = 1) -> Op:
    return Op(request(Opcode.FORGET, nodeid, abi.FORGET_IN.pack(nlookup=count)), no_reply=True)


def batch_forget_op(nodes: Iterable[tuple[int, int]]) -> Op:
    """A BATCH_FORGET of (nodeid, lookups)."""
    pairs = list(nodes)
    ones = [abi.FORGET_ONE.pack(nodeid=nodeid, nlookup=count) for nodeid, count in pairs]
    return Op(request(Opcode.BATCH_FORGET, 0, abi.BATCH_FORGET_IN.pack(count=len(pairs)), *ones), no_reply=True)


def fsync_op(nodeid: int, fh: int) -> Op:
    return Op(request(Opcode.FSYNC, nodeid, abi.FSYNC_IN.pack(fh=fh)))


def setlkw_op(nodeid: int, fh: int, owner: int, kind: int) -> Op:
    """Waits for a lock of the whole file."""
    body = abi.LK_IN.pack(fh=fh, owner=owner, lk_end=(1 << 63) - 1, lk_type=kind, lk_pid=1)
    return Op(request(Opcode.SETLKW, nodeid, body))


def read_op(nodeid: int, fh: int, offset: int, size: int, check: bool = True) -> Op:
    """A READ that must return all it asks for."""
    body = abi.READ_IN.pack(fh=fh, offset=offset, size=size)
    return Op(request(Opcode.READ, nodeid, body), out_data=size, least=size, most=size, offset=offset,
              check=CHECK_PATTERN if check else NO_CHECK)


def write_op(nodeid: int, fh: int, offset: int, size: int, write_flags: int = 0) -> Op:
    """A WRITE with pattern bytes at the edges of some pages; the reply's size is checked."""
    body = abi.WRITE_IN.pack(fh=fh, offset=offset, size=size, write_flags=write_flags, flags=os.O_RDWR)
    head = abi.IN_HEADER.pack(len=HEADER + len(body) + size, opcode=Opcode.WRITE, nodeid=nodeid, pid=1)
    return Op(head + body, data=size, out_args=abi.WRITE_OUT.size, offset=offset, check=CHECK_WORD, check_value=size)


def open_release_cycle(nodeid: int, flags: int = os.O_RDONLY) -> list[Op]:
    """OPEN and RELEASE of what was opened."""
    body = abi.OPEN_IN.pack(flags=flags)
    return [
        Op(request(Opcode.OPEN, nodeid, body), out_args=abi.OPEN_OUT.size, saves=((0, 0),)),
        Op(request(Opcode.RELEASE, nodeid, abi.RELEASE_IN.pack(flags=flags)), patches=((REQUEST_FH, 0),)),
    ]


def open_read_release_cycle(nodeid: int, size: int, file_size: int) -> list[Op]:
    """Reads a whole pattern file of `file_size` bytes at most `size` at a time, as cat does."""
    opened, released = open_release_cycle(nodeid)
    reads = [Op(read.request, out_data=read.out_data, least=read.least, most=read.most, offset=read.offset,
                check=read.check, patches=((REQUEST_FH, 0),))
             for offset in range(0, file_size, size)
             for read in [read_op(nodeid, 0, offset, min(size, file_size - offset))]]
    return [opened, *reads, released]


def create_unlink_cycle(parent: int, child: str, size: int = 0, secctx: bytes = b"") -> list[Op]:
    """CREATE, WRITE of `size` bytes, RELEASE, UNLINK, FORGET of one file. `secctx` is an extension block.

    SLOT_DIGITS in the name become those of the slot.
    """
    create = abi.CREATE_IN.pack(flags=os.O_RDWR | os.O_CREAT | os.O_EXCL, mode=stat.S_IFREG | 0o644)
    release = Op(request(Opcode.RELEASE, 0, abi.RELEASE_IN.pack()), patches=((REQUEST_NODEID, 1), (REQUEST_FH, 0)))

    def digits(name_at: int) -> tuple[tuple[int, int], ...]:
        return ((name_at + child.index(SLOT_DIGITS), SLOT),) if SLOT_DIGITS in child else ()

    ops = [Op(request(Opcode.CREATE, parent, create, name(child), secctx, extensions=len(secctx) // 8),
              out_args=abi.ENTRY_OUT.size + abi.OPEN_OUT.size, saves=((abi.ENTRY_OUT.size, 0), (0, 1)),
              patches=digits(HEADER + abi.CREATE_IN.size))]
    if size:
        write = write_op(0, 0, 0, size)
        ops.append(Op(write.request, data=size, out_args=write.out_args, check=CHECK_WORD, check_value=size,
                      patches=((REQUEST_NODEID, 1), (REQUEST_FH, 0))))
    forget = Op(request(Opcode.FORGET, 0, abi.FORGET_IN.pack(nlookup=1)), no_reply=True,
                patches=((REQUEST_NODEID, 1),))
    unlink = Op(request(Opcode.UNLINK, parent, name(child)), patches=digits(HEADER))
    return [*ops, release, unlink, forget]


def readdir_cycle(nodeid: int, size: int = 32768, plus: bool = False) -> list[Op]:
    """OPENDIR, the first READDIR or READDIRPLUS, RELEASEDIR."""
    opened = Op(request(Opcode.OPENDIR, nodeid, abi.OPEN_IN.pack(flags=os.O_RDONLY | os.O_DIRECTORY)),
                out_args=abi.OPEN_OUT.size, saves=((0, 0),))
    listed = Op(request(Opcode.READDIRPLUS if plus else Opcode.READDIR, nodeid, abi.READ_IN.pack(size=size)),
                out_data=size, least=1, most=size, patches=((REQUEST_FH, 0),))
    released = Op(request(Opcode.RELEASEDIR, nodeid, abi.RELEASE_IN.pack()), patches=((REQUEST_FH, 0),))
    return [opened, listed, released]


def listing_cycle(nodeid: int, replies: Sequence[tuple[int, int, int]], size: int = 32768,
                  plus: bool = False) -> list[Op]:
    """A whole directory: OPENDIR, as many READDIR or READDIRPLUS as it takes, RELEASEDIR.

    `replies` has for each its offset, the length of what must come, and its first 8 bytes; the last one is empty.
    """
    opened, _, released = readdir_cycle(nodeid, size, plus)
    opcode = Opcode.READDIRPLUS if plus else Opcode.READDIR
    return [opened, *(Op(request(opcode, nodeid, abi.READ_IN.pack(offset=offset, size=size)), out_data=size,
                         least=length, most=length, check=CHECK_DATA if length else NO_CHECK, check_value=word,
                         patches=((REQUEST_FH, 0),))
                      for offset, length, word in replies), released]


# Streams

def reads(nodeid: int, fh: int, size: int, file_size: int, shuffle: bool = False, seed: int = 0) -> list[Op]:
    """READs over a whole pattern file, in order or at random."""
    offsets = list(range(0, file_size - size + 1, size))
    if shuffle:
        random.Random(seed).shuffle(offsets)
    return [read_op(nodeid, fh, offset, size) for offset in offsets]


def writes(nodeid: int, fh: int, size: int, file_size: int, shuffle: bool = False, seed: int = 0) -> list[Op]:
    """WRITEs over a whole pattern file, in order or at random."""
    offsets = list(range(0, file_size - size + 1, size))
    if shuffle:
        random.Random(seed).shuffle(offsets)
    return [write_op(nodeid, fh, offset, size) for offset in offsets]


def cycles(parts: Iterable[Sequence[Op]]) -> tuple[list[Op], int]:
    """Cycles of one length behind each other: the operations, and that length."""
    all_parts = list(parts)
    lengths = {len(part) for part in all_parts}
    if len(lengths) != 1:
        raise ValueError(f"cycles of different lengths {sorted(lengths)} cannot be one stream")
    return [op for part in all_parts for op in part], lengths.pop()
