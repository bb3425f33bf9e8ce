"""vhost-user messages over a UNIX socket, with the file descriptors that come with them.

A descriptor is owned from the moment it is received: a Message closes those that nobody took, whatever happens.
"""

import array
import asyncio
import contextlib
import fcntl
import functools
import os
import select
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from virtiofsd.background import in_background
from virtiofsd.vhost_user_abi import (
    FLAG_NEED_REPLY,
    FLAG_REPLY,
    FLAG_VERSION_MASK,
    HEADER,
    VHOST_USER_VERSION,
)

CLOSING_SECONDS = 1.0
FDS_MAX = 253  # of one message: the kernel's own bound (SCM_MAX_FD)
PAYLOAD_MAX = 1 << 14  # bytes; the largest that makes sense is a memory table with FDS_MAX regions, half of this


class ProtocolError(Exception):
    """What a front-end said makes no sense: the message is refused, or the connection cannot go on."""


class Message:
    """One message. An asynchronous context manager: descriptors that were not taken are closed at its end."""

    def __init__(self, request: int, flags: int, payload: bytes, fds: list[int]) -> None:
        self.request, self.flags, self.payload, self.fds = request, flags, payload, fds

    @property
    def needs_reply(self) -> bool:
        """The flag NEED_REPLY, which counts only where REPLY_ACK is negotiated."""
        return bool(self.flags & FLAG_NEED_REPLY)

    def take_fd(self) -> int:
        """The first descriptor that was not taken; the caller owns it from now on. -1: there is none."""
        return self.fds.pop(0) if self.fds else -1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None,
                        traceback: TracebackType | None) -> None:
        await close_all(self.fds)


def is_local(fd: int) -> bool:
    """Whether a descriptor is of a UNIX socket."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return False
    sock.detach()
    return sock.family == socket.AF_UNIX


def is_memory(fd: int) -> bool:
    """Whether a descriptor is of shared memory, with pages of whatever size."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) >= 0
    except OSError:
        return False


async def close_all(fds: list[int]) -> None:
    """Closes and removes every descriptor of the list.

    What is no memory and no UNIX socket may be anything: a file whose file system does not answer, a connection that
    lingers. It is not waited for longer than CLOSING_SECONDS.
    """
    others = [fd for fd in fds if not is_memory(fd) and not is_local(fd)]
    close_each(set(fds).difference(others))
    fds.clear()
    if not others:
        return
    try:
        closing = in_background(functools.partial(close_each, others))
    except OSError:  # no thread is to be had
        close_each(others)
    else:
        await asyncio.wait([closing], timeout=CLOSING_SECONDS)


def close_each(fds: Iterable[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):  # it is closed all the same
            os.close(fd)


def wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


class Channel:
    """The front-end's socket, non-blocking. Messages are read and answered one at a time."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self._waiting: asyncio.Future[None] | None = None
        self._failure: Exception | None = None

    def fail(self, error: Exception) -> None:
        """Nothing more is read or sent: whoever waits for the peer, now or later, gets the error."""
        self._failure = self._failure or error
        if self._waiting is not None:
            wake(self._waiting)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _ready(self, *, writing: bool) -> None:
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        fd = self.socket.fileno()
        add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
        add(fd, wake, self._waiting)
        try:
            await self._waiting
        finally:
            remove(fd)
            self._waiting = None
        self._check()

    def _receive_part(self, size: int, fds: list[int]) -> bytes:
        """What has come of `size` bytes; its descriptors are added to `fds`. Empty at the end of the connection."""
        room = socket.CMSG_SPACE(FDS_MAX * array.array("i").itemsize)
        try:
            part, controls, flags, _ = self.socket.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return b""
        for level, kind, control in controls:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(control[: len(control) - len(control) % received.itemsize])
                fds.extend(received)
        if flags & socket.MSG_CTRUNC:
            raise ProtocolError("a message's file descriptors could not all be received")
        if len(fds) > FDS_MAX:  # a peer that sends it in pieces could send as many with each
            raise ProtocolError(f"a message has more than {FDS_MAX} file descriptors")
        return part

    async def _read(self, size: int, fds: list[int]) -> bytes:
        """Exactly `size` bytes, or fewer where the peer has closed."""
        data = bytearray()
        while len(data) < size:
            try:
                part = self._receive_part(size - len(data), fds)
            except BlockingIOError:
                await self._ready(writing=False)
                continue
            if not part:
                break
            data += part
        return bytes(data)

    async def receive(self) -> Message | None:
        """The next message, or None at the end of the connection. Raises ProtocolError, with nothing left open."""
        self._check()
        fds: list[int] = []
        try:
            header = await self._read(HEADER.size, fds)
            if not header:
                return None
            if len(header) < HEADER.size:
                raise ProtocolError(f"it ended inside a message's header, after {len(header)} bytes")
            fields = HEADER.unpack(header)
            if fields.flags & FLAG_VERSION_MASK != VHOST_USER_VERSION or fields.flags & FLAG_REPLY:
                raise ProtocolError(f"message {fields.request} has flags {fields.flags:#x}")
            if fields.size > PAYLOAD_MAX:
                raise ProtocolError(f"message {fields.request} claims {fields.size} bytes")
            payload = await self._read(fields.size, fds)
            if len(payload) < fields.size:
                raise ProtocolError(f"it ended inside message {fields.request}, {len(payload)} of {fields.size} bytes")
            message = Message(fields.request, fields.flags, payload, fds)
            fds = []
            return message
        finally:
            await close_all(fds)

    async def reply(self, request: int, payload: bytes) -> None:
        """Answers a message; waits as long as the peer does not read, and keeps nothing but this one answer."""
        data = memoryview(
            HEADER.pack(request=request, flags=VHOST_USER_VERSION | FLAG_REPLY, size=len(payload)) + payload)
        while data:
            try:
                data = data[self.socket.send(data, socket.MSG_NOSIGNAL):]
            except BlockingIOError:
                await self._ready(writing=True)
            except (BrokenPipeError, ConnectionResetError):
                return  # the next receive says so

    def peer_has_left(self) -> bool:
        """Whether the connection has ended, whatever has come before: to be asked while nobody reads."""
        poll = select.poll()
        poll.register(self.socket, 0)
        if poll.poll(0):  # for POLLHUP or POLLERR
            return True
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.socket.close()
