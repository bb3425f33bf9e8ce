"""FUSE requests over a device's queues: how they are framed, sent, awaited, and how every reply is checked."""

import errno
import os
import struct
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TypedDict, Unpack

from frontend.device import HIPRIO, REQUEST, VirtioFs
from frontend.fuse_abi import EXT_HEADER, FUSE_EXT_GROUPS, IN_HEADER, OUT_HEADER, SECCTX, Opcode
from frontend.memory import PAGE

MAX_ERRNO = 511
U32 = struct.Struct("=I")


class How(TypedDict, total=False):
    """How a request is sent. Sizes in `framing` and `reply_framing` cut the bytes into descriptors; the rest follows.

    `secctx` is a list of (xattr name, label), `groups` of group ids: blocks of a creation; `ext` is their raw bytes.
    `header` overrides fields of the header.
    """

    uid: int
    gid: int
    pid: int
    queue: int
    timeout: float
    framing: Sequence[int]
    reply_framing: Sequence[int]
    indirect: bool
    ext: bytes
    secctx: Sequence[tuple[str, bytes]]
    groups: Sequence[int]
    header: dict[str, int]


class FuseError(OSError):
    """The server answered with an error."""

    def __init__(self, number: int, opcode: int, nodeid: int) -> None:
        name = errno.errorcode.get(number, str(number))
        super().__init__(number, f"{opcode_name(opcode)} of node {nodeid:#x}: {name}, {os.strerror(number)}")
        self.opcode, self.nodeid = opcode, nodeid


class ReplyError(Exception):
    """A reply that a new Linux kernel would not accept."""


def opcode_name(opcode: int) -> str:
    """The operation's name, or its number where it has none."""
    try:
        return Opcode(opcode).name
    except ValueError:
        return f"opcode {opcode}"


@dataclass
class Reply:
    """What came back: the header's fields, the bytes after it, and the length that the ring gave."""

    length: int
    error: int
    unique: int
    data: bytes
    used_len: int


@dataclass
class Ticket:
    """A request in flight."""

    opcode: int
    nodeid: int
    unique: int
    queue: int
    head: int
    readable: list[tuple[int, int]]
    writable: list[tuple[int, int]]
    taken: list[int] = field(default_factory=list)
    used_len: int | None = None

    @property
    def room(self) -> int:
        """Bytes that the reply may have."""
        return sum(length for _, length in self.writable)


def pad8(data: bytes) -> bytes:
    """Padded with zeros to a multiple of 8 bytes."""
    return data + bytes(-len(data) % 8)


def secctx_block(contexts: Sequence[tuple[str, bytes]]) -> bytes:
    """The security context block of a creation; without contexts it is the empty one that Linux sends."""
    records = b"".join(pad8(SECCTX.pack(size=len(label)) + name.encode() + b"\0" + label) for name, label in contexts)
    return EXT_HEADER.pack(size=EXT_HEADER.size + len(records), type=len(contexts)) + records


def groups_block(groups: Sequence[int]) -> bytes:
    """The supplementary groups of a creation (FUSE_EXT_GROUPS)."""
    body = pad8(U32.pack(len(groups)) + b"".join(map(U32.pack, groups)))
    return EXT_HEADER.pack(size=EXT_HEADER.size + len(body), type=FUSE_EXT_GROUPS) + body


class FuseTransport:
    """Requests on a device. `uid`, `gid` and `pid` are the caller's where a request does not say otherwise."""

    def __init__(self, device: VirtioFs, uid: int = 0, gid: int = 0, pid: int = 1) -> None:
        self.device = device
        self.uid, self.gid, self.pid = uid, gid, pid
        self.queue = REQUEST
        self.unique = 0
        self._flying: dict[int, dict[int, Ticket]] = defaultdict(dict)      # by queue and head

    # Sending

    def message(self, opcode: int, nodeid: int, body: bytes, how: How) -> bytes:
        """Header, body and extensions; takes the next unique."""
        ext = how.get("ext", b"")
        if "secctx" in how:
            ext += secctx_block(how["secctx"])
        if "groups" in how:
            ext += groups_block(how["groups"])
        self.unique += 2
        fields = {"len": IN_HEADER.size + len(body) + len(ext), "opcode": opcode, "unique": self.unique,
                  "nodeid": nodeid, "uid": how.get("uid", self.uid), "gid": how.get("gid", self.gid),
                  "pid": how.get("pid", self.pid), "total_extlen": len(ext) // 8}
        return IN_HEADER.pack(**{**fields, **how.get("header", {})}) + body + ext

    def submit(self, opcode: int, nodeid: int, *parts: bytes, data: bytes = b"", out_size: int = 0, out_pages: int = 0,
               no_reply: bool = False, publish: bool = True, **how: Unpack[How]) -> Ticket:
        """Sends a request and returns at once. Framed as Linux does unless told otherwise.

        `parts` are the small arguments, `data` what Linux sends in pages; the reply has room for the header,
        `out_size` small bytes and `out_pages` bytes in scattered pages.
        """
        body = b"".join(parts)
        message = self.message(opcode, nodeid, body + data, how)
        unique = self.unique
        small = len(message) - IN_HEADER.size - len(data)
        taken: list[int] = []
        readable = self._place(how.get("framing"), len(message), [IN_HEADER.size, small], taken)
        done = 0
        for gpa, length in readable:
            self.device.memory.write(gpa, message[done:done + length])
            done += length
        writable = [] if no_reply else self._place(
            how.get("reply_framing"), OUT_HEADER.size + out_size + out_pages, [OUT_HEADER.size, out_size], taken)
        index = how.get("queue", self.queue)
        queue = self.device.queues[index]
        chain = [(gpa, length, False) for gpa, length in readable] + [(gpa, length, True) for gpa, length in writable]
        try:
            head = queue.add(chain, how.get("indirect"))
        except OSError:
            self.device.memory.free(taken)
            raise
        ticket = Ticket(opcode, nodeid, unique, index, head, readable, writable, taken)
        self._flying[index][head] = ticket
        if publish:
            queue.publish()
            self.device.kick(index)
        return ticket

    def _place(self, framing: Sequence[int] | None, total: int, small: Sequence[int],
               taken: list[int]) -> list[tuple[int, int]]:
        """Guest memory for `total` bytes, cut by the framing, or into the small parts and then pages."""
        memory = self.device.memory
        placed = []
        for size in framing if framing is not None else small:
            length = min(size, total)
            if length or (framing is not None and not size):
                taken.append(memory.alloc(length + 16))
                placed.append((taken[-1], length))
                total -= length
        if framing is not None and total:
            taken.append(memory.alloc(total))
            return [*placed, (taken[-1], total)]
        pages = memory.alloc_pages(-(-total // PAGE), scattered=True)
        taken += pages
        for page in pages:
            placed.append((page, min(PAGE, total)))
            total -= PAGE
        return placed

    # Receiving

    def returned(self, queue: int, timeout: float | None = None) -> list[Ticket]:
        """The requests that a queue has returned, in its order, after waiting for one; empty when the time is over."""
        tickets = []
        for head, used_len in self.device.wait(queue, timeout):
            ticket = self._flying[queue].pop(head)
            ticket.used_len = used_len
            tickets.append(ticket)
        return tickets

    def reply(self, ticket: Ticket, exact: int | None = None) -> Reply:
        """The checked reply of a returned request. Raises ReplyError, also where a success has not `exact` bytes.

        The request's memory is free after this.
        """
        if ticket.used_len is None:
            raise ValueError("the request has not been returned")
        data = b"".join(self.device.memory.read(gpa, length) for gpa, length in ticket.writable)
        self.device.memory.free(ticket.taken)
        ticket.taken = []
        what, used = opcode_name(ticket.opcode), ticket.used_len
        if not ticket.writable:
            if used:
                raise ReplyError(f"{what} without reply buffers came back with used length {used}")
            return Reply(0, 0, 0, b"", 0)
        if used < OUT_HEADER.size:
            raise ReplyError(f"{what} was answered with {used} bytes, less than a header")
        header = OUT_HEADER.unpack(data)
        if header.len != used or used > len(data):
            raise ReplyError(f"{what}: header length {header.len}, used length {used}, room {len(data)}")
        if header.unique != ticket.unique:
            raise ReplyError(f"{what}: unique {header.unique}, not {ticket.unique}")
        if not -MAX_ERRNO <= header.error <= 0:
            raise ReplyError(f"{what}: error {header.error}")
        if header.error and used != OUT_HEADER.size:
            raise ReplyError(f"{what}: error {header.error} with {used - OUT_HEADER.size} bytes of data")
        if not header.error and exact is not None and used - OUT_HEADER.size != exact:
            raise ReplyError(f"{what}: {used - OUT_HEADER.size} bytes of data, not {exact}")
        return Reply(header.len, header.error, header.unique, data[OUT_HEADER.size:used], used)

    def abandon(self) -> None:
        """Forgets what is in flight: the queues have been reset."""
        for flying in self._flying.values():
            for ticket in flying.values():
                self.device.memory.free(ticket.taken)
        self._flying.clear()

    def complete(self, ticket: Ticket, timeout: float | None = None, exact: int | None = None) -> Reply:
        """Waits for a request and checks its reply. Raises TimeoutError; an error in the reply is not raised."""
        while ticket.used_len is None:
            if not self.returned(ticket.queue, timeout):
                raise TimeoutError(f"no reply to {opcode_name(ticket.opcode)} of node {ticket.nodeid:#x}")
        return self.reply(ticket, exact)

    def call(self, opcode: int, nodeid: int, *parts: bytes, data: bytes = b"", out_size: int = 0, out_pages: int = 0,
             no_reply: bool = False, exact: bool = False, check: bool = True, **how: Unpack[How]) -> Reply:
        """Sends a request and waits for the reply. Raises FuseError for an error, unless `check` is False."""
        ticket = self.submit(opcode, nodeid, *parts, data=data, out_size=out_size, out_pages=out_pages,
                             no_reply=no_reply, **how)
        reply = self.complete(ticket, how.get("timeout"), out_size if exact else None)
        if reply.error and check:
            raise FuseError(-reply.error, opcode, nodeid)
        return reply

    def ask(self, opcode: int, nodeid: int, layout_size: int, *parts: bytes, **how: Unpack[How]) -> bytes:
        """A call whose successful reply has exactly `layout_size` bytes."""
        return self.call(opcode, nodeid, *parts, out_size=layout_size, exact=True, **how).data

    def tell(self, opcode: int, nodeid: int, *parts: bytes, **how: Unpack[How]) -> None:
        """A call whose reply is only a header."""
        self.call(opcode, nodeid, *parts, exact=True, **how)

    def drop(self, opcode: int, nodeid: int, *parts: bytes, **how: Unpack[How]) -> None:
        """A request that has no reply, on hiprio unless told otherwise."""
        how.setdefault("queue", HIPRIO)
        self.call(opcode, nodeid, *parts, no_reply=True, **how)


def name(text: str | bytes) -> bytes:
    """A name as it travels, with its NUL."""
    return os.fsencode(text) + b"\0"


Fields = SimpleNamespace
