"""The rows of the benchmark: what requests each one sends, and the system calls that the bare host makes instead.

A row is prepared once for a daemon, or, where what it does can be done only once (`fresh`), again before each round.
"""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bench import calls
from bench.calls import Call, Kind
from bench.folders import COLD_FOLDERS, SOURCE_FOLDERS, dirty, read_whole, wrong_edges
from bench.host import sync
from bench.sessions import HOST, Session
from frontend import fuse_abi as abi
from frontend.device import HIPRIO, REQUEST
from frontend.fuse import FuseError
from frontend.fuse_abi import Opcode
from frontend.fuse_transport import name
from frontend.operations import (
    CHECK_WORD,
    REQUEST_FH,
    REQUEST_NODEID,
    SLOT_DIGITS,
    Op,
    batch_forget_op,
    create_unlink_cycle,
    cycles,
    forget_op,
    getattr_op,
    listing_cycle,
    lookup_op,
    negative_lookup_op,
    open_release_cycle,
    reads,
    request,
    setattr_op,
    write_op,
    writes,
)

KIB, MIB = 1 << 10, 1 << 20
FORGET_BATCH = 100
UNTARRED = (300, 900, 2_000, 3_500, 4_096, 9_000, 30_000, 120_000)     # bytes: a folder of a source archive
UNTAR_FOLDERS = 120
UNTAR_TIME = 1_000_000_000


class WrongError(Exception):
    """A daemon has answered wrong, or left wrong data behind."""


def nothing() -> None:
    pass


class Stream(NamedTuple):
    """What a generator sends, in cycles; `units` are counted for each cycle. `check` looks at what came of it all:
    where `whole`, once every operation has been sent.
    """

    ops: Sequence[Op]
    cycle: int = 1
    units: int = 1
    queue: int = REQUEST
    check: Callable[[], None] = nothing
    whole: bool = False


class HostProgram(NamedTuple):
    """The same of the bare host."""

    calls: Sequence[Call]
    cycle: int = 1


class Place:
    """The share as the bare host sees it; descriptors that a program uses stay open until the row is over."""

    def __init__(self, share: pathlib.Path) -> None:
        self.share, self.own = share, share / HOST
        self._files = contextlib.ExitStack()

    def open(self, path: pathlib.Path, flags: int = os.O_PATH) -> int:
        fd = os.open(path, flags | os.O_CLOEXEC)
        self._files.callback(os.close, fd)
        return fd

    def close(self) -> None:
        self._files.close()


@dataclass(frozen=True)
class Row:
    """`unit` is what rate and CPU time are for, where that is not one request. `renew` is called before each variant
    with the folders of those who take part.
    """

    name: str
    title: str
    prepare: Callable[[Session], Stream]
    host: Callable[[Place], HostProgram] | None = None
    unit: str = "request"
    fresh: bool = False
    renew: Callable[[Sequence[pathlib.Path]], None] | None = None


# Attributes and names


def known(session: Session, folder: str) -> list[tuple[str, int, int]]:
    """Name, node and inode number of each file in a folder, looked up."""
    parent = session.fuse.walk(folder).nodeid
    return [(entry.name.decode(), entry.entry.nodeid, entry.ino) for entry in session.fuse.listdir(parent, plus=True)
            if entry.entry and not entry.name.startswith(b".")]


def getattrs(session: Session) -> Stream:
    return Stream([getattr_op(node, ino) for _, node, ino in known(session, "known")])


def host_getattrs(place: Place) -> HostProgram:
    return HostProgram([calls.stat_fd(place.open(path)) for path in sorted((place.share / "known").iterdir())])


def lookups(session: Session) -> Stream:
    parent = session.fuse.walk("known").nodeid
    return Stream([lookup_op(parent, child, ino) for child, _, ino in known(session, "known")])


def host_lookups(place: Place) -> HostProgram:
    parent = place.open(place.share / "known")
    return HostProgram([calls.stat_name(parent, child) for child in sorted(os.listdir(place.share / "known"))])


def cold_lookups(session: Session) -> Stream:
    """Every file for the first time in this session."""
    session.forget_everything()
    ops = []
    for number in range(COLD_FOLDERS):
        folder = f"cold/{number:02}"
        parent = session.fuse.walk(folder).nodeid
        ops += [lookup_op(parent, entry.name, entry.inode()) for entry in os.scandir(session.share / folder)]
    return Stream(ops)


def host_cold_lookups(place: Place) -> HostProgram:
    program = []
    for number in range(COLD_FOLDERS):
        folder = place.share / f"cold/{number:02}"
        parent = place.open(folder)
        for child in os.listdir(folder):
            program += [calls.stat_name(parent, child), calls.open_file(parent, child, os.O_PATH), calls.close_file()]
    return HostProgram(program, 3)


def missing(session: Session) -> Stream:
    """Names that are not there. A daemon may say so by an error, or by an entry that the guest may keep."""
    parent = session.fuse.walk("known").nodeid
    names = [f"missing-{number:04}.h" for number in range(1000)]
    try:
        session.fuse.lookup(parent, names[0])
        return Stream([negative_lookup_op(parent, child) for child in names])
    except FuseError:
        return Stream([lookup_op(parent, child, missing=True) for child in names])


def host_missing(place: Place) -> HostProgram:
    parent = place.open(place.share / "known")
    return HostProgram([calls.stat_name(parent, f"missing-{number:04}.h", 2) for number in range(1000)])


def opens(session: Session) -> Stream:
    return Stream(*cycles(open_release_cycle(node) for _, node, _ in known(session, "known")))


def host_opens(place: Place) -> HostProgram:
    parent = place.open(place.share / "known")
    program: list[Call] = []
    for child in sorted(os.listdir(place.share / "known")):
        program += [calls.open_file(parent, child), calls.close_file()]
    return HostProgram(program, 2)


def setattrs(session: Session) -> Stream:
    nodes = [node for _, node, _ in known(session, f"{session.own.name}/known")]
    return Stream([setattr_op(node, abi.FATTR_MODE, mode=0o100000 | mode) for mode in (0o600, 0o644)
                   for node in nodes])


def host_setattrs(place: Place) -> HostProgram:
    parent = place.open(place.own / "known")
    return HostProgram([calls.change_mode(parent, child, mode) for mode in (0o600, 0o644)
                        for child in sorted(os.listdir(place.own / "known"))])


# Data


def opened(session: Session, path: pathlib.Path, flags: int) -> tuple[int, int, int]:
    """Node, handle and size of a file."""
    node = session.fuse.walk(str(path.relative_to(session.share))).nodeid
    return node, session.fuse.open(node, flags).fh, path.stat().st_size


def reading(size: int, shuffle: bool = False) -> Callable[[Session], Stream]:
    def prepare(session: Session) -> Stream:
        node, fh, length = opened(session, session.share / "data", os.O_RDONLY)
        return Stream(reads(node, fh, size, length, shuffle))

    return prepare


def writing(size: int, shuffle: bool = False) -> Callable[[Session], Stream]:
    def prepare(session: Session) -> Stream:
        path = session.own / "data"
        node, fh, length = opened(session, path, os.O_RDWR)

        def check() -> None:
            wrong = wrong_edges(path, length, size)
            if wrong:
                raise WrongError(f"{wrong} words of {path.name} are not what was written")

        return Stream(writes(node, fh, size, length, shuffle), check=check, whole=True)

    return prepare


def host_data(kind: Kind, size: int, shuffle: bool = False) -> Callable[[Place], HostProgram]:
    def prepare(place: Place) -> HostProgram:
        path = place.share / "data" if kind == Kind.READ else place.own / "data"
        fd = place.open(path, os.O_RDONLY if kind == Kind.READ else os.O_RDWR)
        stream = reads(0, 0, size, path.stat().st_size, shuffle)
        return HostProgram([Call(kind, fd, size=size, offset=op.offset) for op in stream])

    return prepare


# Directories


def listing(plus: bool) -> Callable[[Session], Stream]:
    """The whole directory. What each reply must be is learned from a first pass, whose names are compared."""

    def prepare(session: Session) -> Stream:
        node = session.fuse.walk("listed").nodeid
        fh = session.fuse.opendir(node).fh
        replies: list[tuple[int, int, int]] = []
        names: list[str] = []
        offset = 0
        while True:
            reply = session.fuse.call(Opcode.READDIRPLUS if plus else Opcode.READDIR, node,
                                      abi.READ_IN.pack(fh=fh, offset=offset, size=32768), out_pages=32768)
            replies.append((offset, len(reply.data), int.from_bytes(reply.data[:8], "little")))
            if not reply.data:
                break
            entries = session.fuse.dirents(reply.data, plus)
            names += [entry.name.decode() for entry in entries]
            offset = entries[-1].offset
        session.fuse.releasedir(node, fh)
        if sorted(names) != sorted([".", "..", *os.listdir(session.share / "listed")]):
            raise WrongError("the names of a directory are not those that are in it")
        ops = listing_cycle(node, replies, plus=plus)
        return Stream(ops, len(ops))

    return prepare


def host_listing(plus: bool) -> Callable[[Place], HostProgram]:
    def prepare(place: Place) -> HostProgram:
        folder = place.share / "listed"
        program = calls.list_folder(place.open(folder), len(os.listdir(folder)), plus)
        return HostProgram(program, len(program))

    return prepare


# Files that come and go


def created(session: Session) -> Stream:
    folder = session.own / "created"
    parent = session.fuse.walk(f"{session.own.name}/created").nodeid

    def check() -> None:
        if os.listdir(folder):
            raise WrongError("files are left that were removed")

    return Stream(*cycles([create_unlink_cycle(parent, f"new-{SLOT_DIGITS}.o", 4096)]), check=check)


def host_created(place: Place) -> HostProgram:
    parent, child = place.open(place.own / "created"), f"new-{SLOT_DIGITS}.o"
    return HostProgram([calls.open_file(parent, child, os.O_RDWR | os.O_CREAT | os.O_EXCL),
                        Call(Kind.WRITE, size=4096), calls.close_file(), Call(Kind.UNLINK, parent, child)], 4)


def forgotten(session: Session) -> list[int]:
    """Nodes that the daemon knows by one lookup each."""
    session.forget_everything()
    return [node for number in range(COLD_FOLDERS) for _, node, _ in known(session, f"cold/{number:02}")]


def check_forgotten(session: Session, nodes: Sequence[int]) -> None:
    for node in nodes[::1000]:
        with contextlib.suppress(FuseError):
            session.fuse.getattr(node)
            raise WrongError(f"node {node} is known though it was forgotten")


def forgets(session: Session) -> Stream:
    nodes = forgotten(session)
    return Stream([forget_op(node) for node in nodes], queue=HIPRIO, check=lambda: check_forgotten(session, nodes))


def batch_forgets(session: Session) -> Stream:
    nodes = forgotten(session)
    batches = [nodes[at:at + FORGET_BATCH] for at in range(0, len(nodes), FORGET_BATCH)]
    return Stream([batch_forget_op((node, 1) for node in batch) for batch in batches], units=FORGET_BATCH,
                  queue=HIPRIO, check=lambda: check_forgotten(session, nodes))


# Mixes


def git_status(session: Session) -> Stream:
    """A pass over a source tree: each folder looked up and listed, half of its files looked up, half only stat'ed."""
    parent = session.fuse.walk("source").nodeid
    parts = []
    for number in range(SOURCE_FOLDERS):
        folder = f"part-{number:02}"
        node = session.fuse.lookup(parent, folder).nodeid
        fh = session.fuse.opendir(node).fh
        reply = session.fuse.call(Opcode.READDIRPLUS, node, abi.READ_IN.pack(fh=fh, size=32768), out_pages=32768).data
        entries = session.fuse.dirents(reply, True)
        replies = [(0, len(reply), int.from_bytes(reply[:8], "little")), (entries[-1].offset, 0, 0)]
        session.fuse.releasedir(node, fh)
        files = sorted((entry.name.decode(), entry.entry.nodeid, entry.ino) for entry in entries
                       if entry.entry and not entry.name.startswith(b"."))
        half = len(files) // 2
        parts.append([lookup_op(parent, folder), *listing_cycle(node, replies, plus=True),
                      *(lookup_op(node, child, ino) for child, _, ino in files[:half]),
                      *(getattr_op(child, ino) for _, child, ino in files[half:])])
    return Stream(*cycles(parts))


def host_git_status(place: Place) -> HostProgram:
    parent = place.open(place.share / "source")
    program: list[Call] = []
    cycle = 0
    for number in range(SOURCE_FOLDERS):
        folder = place.share / f"source/part-{number:02}"
        fd, children = place.open(folder), sorted(os.listdir(folder))
        part = [calls.stat_name(parent, folder.name), *calls.list_folder(fd, len(children), True),
                *(calls.stat_name(fd, child) for child in children)]
        program += part
        cycle = len(part)
    return HostProgram(program, cycle)


def clear(folder: pathlib.Path) -> None:
    """An empty folder, written back: what was in it before costs nothing any more."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    fd = os.open(folder, os.O_RDONLY)
    try:
        sync(fd)
    finally:
        os.close(fd)


def untar_file(parent_register: int, child: str, size: int) -> list[Op]:
    """What tar does for one file: it looks whether it is there, makes, writes, dates, and closes it."""
    fh, node = 0, 1         # registers
    of_file = ((REQUEST_NODEID, node), (REQUEST_FH, fh))
    in_folder = ((REQUEST_NODEID, parent_register),)
    create = abi.CREATE_IN.pack(flags=os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode=0o100644)
    write = write_op(0, 0, 0, size)
    times = setattr_op(0, abi.FATTR_ATIME | abi.FATTR_MTIME, atime=UNTAR_TIME, mtime=UNTAR_TIME)
    return [
        Op(request(Opcode.CREATE, 0, create, name(child)), out_args=abi.ENTRY_OUT.size + abi.OPEN_OUT.size,
           saves=((abi.ENTRY_OUT.size, fh), (0, node)), patches=in_folder),
        Op(write.request, data=size, out_args=write.out_args, check=CHECK_WORD, check_value=size, patches=of_file),
        Op(times.request, out_args=times.out_args, patches=((REQUEST_NODEID, node),)),
        Op(request(Opcode.FLUSH, 0, abi.FLUSH_IN.pack()), patches=of_file),
        Op(request(Opcode.RELEASE, 0, abi.RELEASE_IN.pack()), patches=of_file),
        Op(request(Opcode.FORGET, 0, abi.FORGET_IN.pack(nlookup=1)), no_reply=True,
           patches=((REQUEST_NODEID, node),)),
    ]


def untar(session: Session) -> Stream:
    folder = session.own / "untarred"
    clear(folder)
    session.forget_everything()
    parent = session.fuse.walk(f"{session.own.name}/untarred").nodeid
    made = 2                # the register of the new folder's node
    forget = Op(request(Opcode.FORGET, 0, abi.FORGET_IN.pack(nlookup=1)), no_reply=True,
                patches=((REQUEST_NODEID, made),))
    parts = []
    for number in range(UNTAR_FOLDERS):
        make = Op(request(Opcode.MKDIR, parent, abi.MKDIR_IN.pack(mode=0o755), name(f"part-{number:03}")),
                  out_args=abi.ENTRY_OUT.size, saves=((0, made),))
        files = [op for index, size in enumerate(UNTARRED) for op in untar_file(made, f"file-{index}.c", size)]
        parts.append([make, *files, forget])
    return Stream(*cycles(parts), check=lambda: check_untarred(folder))


def check_untarred(folder: pathlib.Path) -> None:
    parts = list(folder.iterdir())
    if len(parts) != UNTAR_FOLDERS:
        raise WrongError(f"of {UNTAR_FOLDERS} folders {len(parts)} are there")
    for part in parts:
        for index, size in enumerate(UNTARRED):
            path = part / f"file-{index}.c"
            found = path.stat()
            if found.st_size != size or found.st_mtime != UNTAR_TIME or wrong_edges(path, size, size):
                raise WrongError(f"{part.name}/{path.name} is {found}, or has other data")


def host_untar(place: Place) -> HostProgram:
    """Folders are made before: a program has one register."""
    folder = place.own / "untarred"
    clear(folder)
    program: list[Call] = []
    cycle = 0
    for number in range(UNTAR_FOLDERS):
        part = folder / f"part-{number:03}"
        part.mkdir()
        fd = place.open(part)
        steps = []
        for index, size in enumerate(UNTARRED):
            steps += [calls.open_file(fd, f"file-{index}.c", os.O_WRONLY | os.O_CREAT | os.O_EXCL),
                      Call(Kind.WRITE, size=size), Call(Kind.TIMES, offset=UNTAR_TIME), calls.close_file()]
        program += steps
        cycle = len(steps)
    return HostProgram(program, cycle)


def every_row() -> Iterator[Row]:
    yield Row("getattr", "GETATTR", getattrs, host_getattrs)
    yield Row("lookup", "LOOKUP, known", lookups, host_lookups)
    yield Row("lookup-cold", "LOOKUP, cold, 20,000 files", cold_lookups, host_cold_lookups, fresh=True)
    yield Row("enoent", "LOOKUP, ENOENT", missing, host_missing)
    yield Row("open", "OPEN + RELEASE, repeated", opens, host_opens, "pair")
    yield Row("setattr", "SETATTR of the mode", setattrs, host_setattrs)
    for size, shuffle in ((4 * KIB, True), (128 * KIB, False), (MIB, False)):
        label = "1m" if size == MIB else f"{size // KIB}k"
        order = "random" if shuffle else "sequential"
        yield Row(f"read-{label}", f"READ {label}, {order}", reading(size, shuffle),
                  host_data(Kind.READ, size, shuffle),
                  renew=lambda owns: read_whole(owns[0].parent / "data"))
        yield Row(f"write-{label}", f"WRITE {label}, {order}", writing(size, shuffle),
                  host_data(Kind.WRITE, size, shuffle), renew=lambda owns: dirty(own / "data" for own in owns))
    yield Row("readdir", "READDIR of 1,000 names", listing(False), host_listing(False), "listing")
    yield Row("readdirplus", "READDIRPLUS of 1,000 names", listing(True), host_listing(True), "listing")
    yield Row("create", "CREATE, WRITE 4k, RELEASE, UNLINK, FORGET", created, host_created, "file")
    yield Row("forget", "FORGET, the last of each", forgets, unit="inode", fresh=True)
    yield Row("batch-forget", "BATCH_FORGET of 100", batch_forgets, unit="inode", fresh=True)
    yield Row("git-status", "git status", git_status, host_git_status, "folder of 24")
    yield Row("untar", "untar", untar, host_untar, "folder of 8", fresh=True)


ROWS = {row.name: row for row in every_row()}
