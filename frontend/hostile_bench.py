"""The bench on which a device is mistreated: what an entry of the catalogue is, and the helpers that make one short.

An outcome is an errno, OK, EMPTY (returned with used length 0), SILENT (kept, while the queue goes on), BROKEN (the
queue does not go on until it is reset), MALFORMED (a reply that no kernel would accept), FAILED (something that has to
work did not, while the entry was made) or CLOSED.
"""

import errno
import os
import random
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from frontend import fuse_abi as abi
from frontend.device import REQUEST, VirtioFs
from frontend.fuse import LINUX_FLAGS, ROOT, FuseClient, FuseError
from frontend.fuse_abi import Opcode
from frontend.fuse_transport import Fields, Reply, ReplyError, Ticket
from frontend.memory import RegionSpec
from frontend.virtqueue import RingError
from virtiofsd import virtio_abi as virtio

OK, EMPTY, SILENT, BROKEN = "ok", "empty", "silent", "broken"
MALFORMED, FAILED, CLOSED = "malformed", "failed", "closed"
NEXT, WRITE, INDIRECT = virtio.VRING_DESC_F_NEXT, virtio.VRING_DESC_F_WRITE, virtio.VRING_DESC_F_INDIRECT

Allowed: TypeAlias = frozenset[str | int]

# What a device may do with a chain that it cannot follow: return it unused, answer an error, or break the queue.
BAD_CHAIN: Allowed = frozenset({EMPTY, BROKEN, errno.EIO, errno.EINVAL, errno.EFAULT})
# With a request that it cannot read.
BAD_REQUEST: Allowed = frozenset({EMPTY, errno.EIO, errno.EINVAL, errno.EPROTO, errno.EBADMSG})
BAD_NODE: Allowed = frozenset({errno.EINVAL, errno.ENOENT, errno.EBADF, errno.ESTALE, errno.EIO})
BAD_HANDLE: Allowed = frozenset({errno.EBADF, errno.EINVAL, errno.ESTALE})
BAD_NAME: Allowed = frozenset({errno.EINVAL, errno.ENOENT, errno.ENAMETOOLONG, errno.EIO, errno.EEXIST, errno.EISDIR,
                      errno.EBUSY, errno.ENOTEMPTY, errno.EPERM})
UNSUPPORTED: Allowed = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY})
READ_ONLY: Allowed = frozenset({errno.EROFS})
DENIED: Allowed = UNSUPPORTED | READ_ONLY | {errno.EPERM, errno.EACCES, errno.ELOOP}
WRONG_TYPE: Allowed = UNSUPPORTED | {errno.EISDIR, errno.ENOTDIR, errno.EBADF, errno.ELOOP, errno.EPERM, errno.EACCES,
                                     errno.ENXIO, errno.EIO, errno.ENOENT}
LARGE: Allowed = UNSUPPORTED | {errno.EFBIG, errno.EOVERFLOW, errno.ENOSPC, errno.ENXIO, errno.EBADF}


class Outcome(str):
    """What became of an attempt: one of the words above, or an errno's name. Equal to its word, or to its number."""

    errno: int
    detail: str

    def __new__(cls, kind: str | int, detail: str = "") -> Self:
        number = kind if isinstance(kind, int) else 0
        made = super().__new__(cls, errno.errorcode.get(number, str(number)) if number else str(kind))
        made.errno, made.detail = number, detail
        return made


@dataclass(frozen=True)
class Entry:
    """One kind of misbehaviour. `ring` is the layout it is made for, `fresh` wants a session of its own."""

    name: str
    attempt: "Callable[[Bench, random.Random], Outcome]"
    allowed: frozenset[str | int]
    kind: str
    ring: str = "both"
    fresh: bool = False

    def __contains__(self, outcome: object) -> bool:
        """Whether the outcome is one of those allowed."""
        return isinstance(outcome, Outcome) and (outcome.errno or str(outcome)) in self.allowed

    @property
    def meaning(self) -> str:
        return (self.attempt.__doc__ or "").strip()


Attempt: TypeAlias = "Callable[[Bench, random.Random], Outcome]"
CATALOGUE: dict[str, Entry] = {}


def entry(kind: str, *allowed: Iterable[str | int] | str | int, ring: str = "both", fresh: bool = False,
          name: str = "") -> "Callable[[Attempt], Attempt]":
    """Registers a function under its name, with the outcomes that are allowed."""
    words: set[str | int] = set()
    for item in allowed:
        words |= {item} if isinstance(item, (str, int)) else set(item)

    def register(function: Attempt) -> Attempt:
        called = name or function.__name__
        if called in CATALOGUE:
            raise ValueError(f"two entries are called {called}")
        CATALOGUE[called] = Entry(called, function, frozenset(words), kind, ring, fresh)
        return function

    return register


@dataclass(frozen=True)
class Desc:
    """A descriptor by hand. `next_` None: the following one of the chain, with NEXT set, unless it is the last."""

    addr: int
    length: int
    flags: int = 0
    next_: int | None = None


def layout(mib: int = 32) -> list[RegionSpec]:
    """Guest memory with what the chains want: two adjacent regions, a hole, and a third above it."""
    size = mib << 20
    return [RegionSpec(0, size), RegionSpec(size, 1 << 20), RegionSpec(size + (64 << 20), 1 << 20)]


class Bench:
    """A device that gets mistreated: its session, its files, and the helpers of the entries.

    `patience` bounds every wait; a queue that does not go on by then counts as broken.
    """

    def __init__(self, device: VirtioFs, patience: float = 1.0) -> None:
        self.device, self.patience = device, patience
        self.queue_index = REQUEST
        self.queue = device.queues[REQUEST]
        self.memory = device.memory
        self.fuse = FuseClient(device)
        self.taken: list[int] = []
        self.dirty = False
        self.file = self.folder = self.link = self.fifo = 0
        self.fh = self.read_fh = self.dir_fh = 0
        self.prepare()

    def prepare(self) -> None:
        """A new session with a file, a directory, a symlink and a FIFO, and handles on the first two."""
        fuse = self.fuse
        fuse.init(LINUX_FLAGS)
        self.file = self._make("hostile-file", lambda child: fuse.mknod(ROOT, child, stat.S_IFREG | 0o666))
        self.fifo = self._make("hostile-fifo", lambda child: fuse.mknod(ROOT, child, stat.S_IFIFO | 0o666))
        self.folder = self._make("hostile-folder", lambda child: fuse.mkdir(ROOT, child, 0o777))
        self.link = self._make("hostile-link", lambda child: fuse.symlink(ROOT, child, "hostile-file"))
        self.fh = fuse.open(self.file, os.O_RDWR).fh
        self.read_fh = fuse.open(self.file, os.O_RDONLY).fh
        self.dir_fh = fuse.opendir(self.folder).fh
        fuse.write(self.file, self.fh, 0, bytes(range(256)) * 64)

    def _make(self, child: str, make: Callable[[str], Fields]) -> int:
        try:
            return int(make(child).nodeid)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
            return int(self.fuse.lookup(ROOT, child).nodeid)

    # Running

    def run(self, name: str, seed: int = 0) -> Outcome:
        """Makes one attempt, then sees that the device still answers: a queue that broke is reset for the next.

        Raises AssertionError where a device that broke does not come back after a reset.
        """
        made = CATALOGUE[name]
        try:
            outcome = made.attempt(self, random.Random(f"{name} {seed}"))
            if not (self.dirty or self.goes_on()):
                outcome = Outcome(BROKEN, f"first {outcome}")
                self.dirty = True
            if self.dirty:
                self.reset()
            elif made.fresh:
                self.prepare()
        except ConnectionError as error:
            return Outcome(CLOSED, str(error))
        except ReplyError as error:
            outcome = Outcome(MALFORMED, str(error))
        except FuseError as error:
            outcome = Outcome(FAILED, str(error))
        return outcome

    def reset(self) -> None:
        """Resets the device, empties its queues, frees what was left with it, and opens a new session."""
        self.device.reset()
        for index in self.device.configured:
            self.device.error_signalled(index)
        self.fuse.abandon()
        self.free()
        self.device.start()
        self.dirty = False
        self.prepare()

    # Requests

    def send(self, opcode: int, nodeid: int, *parts: bytes, data: bytes = b"", out_size: int = 256, out_pages: int = 0,
             no_reply: bool = False, **how: Any) -> Outcome:
        """A request whose reply room is generous unless told otherwise."""
        ticket = self.fuse.submit(opcode, nodeid, *parts, data=data, out_size=out_size, out_pages=out_pages,
                                  no_reply=no_reply, **how)
        return self.settle(ticket)

    def settle(self, ticket: Ticket) -> Outcome:
        """What becomes of a request in flight."""
        try:
            reply: Reply = self.fuse.complete(ticket, self.patience)
        except TimeoutError:
            self.dirty = True
            return Outcome(BROKEN if not self.goes_on() else SILENT)
        except (ReplyError, RingError) as error:
            if ticket.used_len == 0:
                return Outcome(EMPTY)
            return Outcome(MALFORMED, str(error))
        if not ticket.writable:
            return Outcome(EMPTY)
        return Outcome(-reply.error) if reply.error else Outcome(OK, f"{len(reply.data)} bytes")

    def goes_on(self) -> bool:
        """Whether the queue answers a further request while one is stuck."""
        try:
            ticket = self.fuse.submit(Opcode.STATFS, ROOT, out_size=abi.STATFS_OUT.size, queue=self.queue_index)
            self.fuse.complete(ticket, self.patience)
        except (TimeoutError, ReplyError, RingError, BlockingIOError, KeyError):
            return False
        return True

    # Chains by hand

    def alloc(self, length: int, align: int = 16) -> int:
        """Guest memory until the entry is over."""
        self.taken.append(self.memory.alloc(length, align))
        return self.taken[-1]

    def free(self) -> None:
        self.memory.free(self.taken)
        self.taken.clear()

    def put(self, data: bytes) -> int:
        address = self.alloc(len(data))
        self.memory.write(address, data)
        return address

    def room(self, length: int = 512) -> int:
        """Zeroed memory for a reply."""
        return self.put(bytes(length))

    def getattr_request(self) -> bytes:
        return self.fuse.message(Opcode.GETATTR, ROOT, abi.GETATTR_IN.pack(), {})

    def table(self, descs: Iterable[Desc], pad: int = 0) -> tuple[int, int]:
        """An indirect table in this ring's layout: its address and length."""
        entries = list(descs)
        data = bytes(pad)
        for index, desc in enumerate(entries):
            last = index + 1 == len(entries)
            if self.queue.packed:
                data += virtio.PACKED_DESC.pack(addr=desc.addr, len=desc.length, flags=desc.flags)
            else:
                linked = desc.flags if desc.next_ is None and last else desc.flags | NEXT
                following = (0 if last else index + 1) if desc.next_ is None else desc.next_
                data += virtio.DESC.pack(addr=desc.addr, len=desc.length, flags=linked, next=following)
        return self.put(data) + pad, len(data) - pad

    def place(self, descs: Iterable[Desc]) -> tuple[int, list[int]]:
        """Writes a direct chain and makes it available, not yet published: its head and the indices it takes."""
        chain = list(descs)
        if self.queue.packed:
            slots = self.queue.packed_place(len(chain))
            for index in reversed(range(len(chain))):
                slot, bits, id_ = slots[index]
                flags = chain[index].flags | (NEXT if index + 1 < len(chain) else 0) | bits
                self.queue.write_desc(slot, chain[index].addr, chain[index].length, flags, id_)
            return slots[0][2], []
        indices = [self.queue.take() for _ in chain]
        for index, desc in enumerate(chain):
            last = index + 1 == len(chain)
            flags = desc.flags if desc.next_ is None and last else desc.flags | NEXT
            following = (0 if last else indices[index + 1]) if desc.next_ is None else desc.next_
            self.queue.write_desc(indices[index], desc.addr, desc.length, flags, following)
        self.queue.push(indices[0])
        return indices[0], indices

    def chain(self, *descs: Desc, reply: int = 0) -> Outcome:
        """Sends a direct chain; `reply` is where its reply begins, to be read for the errno."""
        head, indices = self.place(descs)
        return self.show(head, indices, reply)

    def indirect(self, *descs: Desc, reply: int = 0) -> Outcome:
        """Sends a chain in an indirect table."""
        address, length = self.table(descs)
        return self.chain(Desc(address, length, INDIRECT), reply=reply)

    def show(self, head: int, indices: Iterable[int] = (), reply: int = 0) -> Outcome:
        """Publishes what was placed, kicks, and waits for the head; else a further request shows if the queue lives."""
        self.queue.publish()
        self.queue.kick(force=True)
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            try:
                found = dict(self.device.wait(self.queue_index, 0.05))
            except RingError as error:
                self.dirty = True
                return Outcome(BROKEN, str(error))
            if head in found:
                for index in indices:
                    self.queue.give(index)
                outcome = self.outcome_of(found[head], reply)
                if not self.dirty:      # else the queue may still have the chain, until it is reset
                    self.free()
                return outcome
            if self.device.error_signalled(self.queue_index):
                break
        self.dirty = True
        return Outcome(SILENT if self.goes_on() else BROKEN)

    def outcome_of(self, used: int, reply: int) -> Outcome:
        if not used:
            return Outcome(EMPTY)
        if used < abi.OUT_HEADER.size:
            return Outcome(MALFORMED, f"used length {used}")
        if not reply:
            return Outcome(OK, f"used length {used}")
        header = abi.OUT_HEADER.unpack(self.memory.read(reply, abi.OUT_HEADER.size))
        if header.len != used or header.unique != self.fuse.unique or not -512 < header.error <= 0:
            return Outcome(MALFORMED, f"{header}, used length {used}")
        return Outcome(-header.error) if header.error else Outcome(OK)

