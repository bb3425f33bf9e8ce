"""vhost-user messages over a UNIX socket, with the file descriptors that come with them.

A descriptor is owned from the moment it is received: a Message closes those that nobody took, whatever happens.
"""

import array
import asyncio
import os
import socket
from types import TracebackType
from typing import Self

from virtiofsd.vhost_user_abi import (
    FLAG_NEED_REPLY,
    FLAG_REPLY,
    FLAG_VERSION_MASK,
    HEADER,
    VHOST_USER_VERSION,
)

PAYLOAD_MAX = 1 << 16  # bytes: a table of 2,000 memory regions
FDS_MAX = 253  # the kernel's own bound (SCM_MAX_FD)


class ProtocolError(Exception):
    """What a front-end said makes no sense; the connection cannot go on."""


class Message:
    """One message. A context manager: descriptors that were not taken are closed at its end."""

    def __init__(self, request: int, flags: int, payload: bytes, fds: list[int]) -> None:
        self.request, self.flags, self.payload, self.fds = request, flags, payload, fds

    @property
    def needs_reply(self) -> bool:
        return bool(self.flags & FLAG_NEED_REPLY)

    def take_fd(self) -> int:
        """The first descriptor that was not taken; the caller owns it from now on. -1: there is none."""
        return self.fds.pop(0) if self.fds else -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        close_all(self.fds)


def close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


def wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


class Channel:
    """The front-end's socket, non-blocking. Messages are read and answered one at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection

    async def _ready(self, writing: bool) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        fd = self.socket.fileno()
        add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
        add(fd, wake, ready)
        try:
            await ready
        finally:
            remove(fd)

    async def _read(self, size: int, fds: list[int]) -> bytes:
        """Exactly `size` bytes, or fewer where the peer has closed; what descriptors come are added to `fds`."""
        data = bytearray()
        room = socket.CMSG_SPACE(FDS_MAX * array.array("i").itemsize)
        while len(data) < size:
            try:
                part, controls, flags, _ = self.socket.recvmsg(size - len(data), room, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                await self._ready(writing=False)
                continue
            except ConnectionResetError:
                break
            for level, kind, control in controls:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    received = array.array("i")
                    received.frombytes(control[: len(control) - len(control) % received.itemsize])
                    fds.extend(received)
            if flags & socket.MSG_CTRUNC:
                raise ProtocolError("a message's file descriptors could not all be received")
            if not part:
                break
            data += part
        return bytes(data)

    async def receive(self) -> Message | None:
        """The next message, or None at the end of the connection. Raises ProtocolError, with nothing left open."""
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
            close_all(fds)

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

    def close(self) -> None:
        self.socket.close()
