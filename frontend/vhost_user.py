"""The front-end's side of the vhost-user protocol: the connection, every message a virtio-fs front-end sends, and the
channel on which the back-end asks. Nothing here runs by itself: no threads, and every wait has a time-out.
"""

import itertools
import os
import pathlib
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from frontend.memory import Region
from virtiofsd import vhost_user_abi as abi
from virtiofsd.vhost_user_abi import BackRequest, FrontRequest

MAX_FDS = 32
U64 = struct.Struct("=Q")
EVERY_REQUEST = frozenset(FrontRequest)


class ProtocolError(Exception):
    """The back-end's answer is not what the protocol allows."""


class RefusedError(Exception):
    """The back-end acknowledged a request with an error."""

    def __init__(self, request: int, value: int) -> None:
        super().__init__(f"{request_name(request)} was refused with {value}")
        self.request, self.value = request, value


class ClosedError(ConnectionError):
    """The back-end closed the connection."""


def request_name(request: int) -> str:
    try:
        return FrontRequest(request).name
    except ValueError:
        return f"request {request}"


@dataclass
class Message:
    """One message as it came: who takes a descriptor out of `fds` owns it, close() closes the rest."""

    request: int
    flags: int
    payload: bytes
    fds: list[int] = field(default_factory=list)

    @property
    def value(self) -> int:
        """The payload as u64."""
        if len(self.payload) != U64.size:
            raise ProtocolError(f"answer to {request_name(self.request)} has {len(self.payload)} bytes, not 8")
        return int(U64.unpack(self.payload)[0])

    def close(self) -> None:
        while self.fds:
            os.close(self.fds.pop())


def readable(fds: Collection[int], timeout: float) -> list[int]:
    """Which of the descriptors are readable, after a wait for one. select(2) stops at descriptor 1023."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll(timeout * 1000)]


class Channel:
    """Messages over a stream socket."""

    def __init__(self, sock: socket.socket, timeout: float = 10.0) -> None:
        self.socket, self.timeout = sock, timeout

    def send_bytes(self, data: bytes, fds: Sequence[int] = (), cuts: Sequence[int] = ()) -> None:
        """The bytes as they are, cut into several writes at the offsets given; descriptors go with the first."""
        self.socket.settimeout(self.timeout)
        edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(data)), len(data)]
        try:
            for start, end in itertools.pairwise(edges):
                piece = memoryview(data)[start:end]
                if fds and start == 0:
                    piece = piece[socket.send_fds(self.socket, [piece], list(fds)):]
                if piece:
                    self.socket.sendall(piece)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ClosedError("the back-end closed the connection") from error

    def send(self, request: int, payload: bytes = b"", fds: Sequence[int] = (), *, flags: int = abi.VHOST_USER_VERSION,
             size: int | None = None, cuts: Sequence[int] = ()) -> None:
        """One message; `size` lies about the payload's length, `cuts` splits the writes."""
        header = abi.HEADER.pack(request=request, flags=flags, size=len(payload) if size is None else size)
        self.send_bytes(header + payload, fds, cuts)

    def recv(self, timeout: float | None = None) -> Message:
        """The next message. Raises TimeoutError, or ClosedError at the end of the stream."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        fds: list[int] = []
        try:
            header = abi.HEADER.unpack(self._exactly(abi.HEADER.size, deadline, fds))
            payload = self._exactly(header.size, deadline, fds)
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return Message(header.request, header.flags, payload, fds)

    def _exactly(self, count: int, deadline: float, fds: list[int]) -> bytes:
        data = b""
        while len(data) < count:
            self.socket.settimeout(max(deadline - time.monotonic(), 0.000001))
            try:
                piece, new, _, _ = socket.recv_fds(self.socket, count - len(data), MAX_FDS)
            except BlockingIOError as error:
                raise TimeoutError("no message from the back-end in time") from error
            except ConnectionResetError:
                piece, new = b"", []
            fds += new
            if not piece:
                raise ClosedError("the back-end closed the connection")
            data += piece
        return data

    def readable(self, timeout: float = 0.0) -> bool:
        """True when a message waits, or the end of the stream."""
        return bool(readable([self.socket.fileno()], timeout))

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


class Connection(Channel):
    """The main socket. `acknowledged` are the requests that ask for an acknowledgement once REPLY_ACK is negotiated."""

    def __init__(self, sock: socket.socket, timeout: float = 10.0) -> None:
        super().__init__(sock, timeout)
        self.protocol_features = 0
        self.acknowledged: Collection[int] = frozenset()

    @classmethod
    def connect(cls, path: str | pathlib.Path, timeout: float = 10.0, patience: float = 5.0) -> Self:
        """Connects; a socket that is not there yet is waited for, `patience` seconds."""
        deadline = time.monotonic() + patience
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                sock.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return cls(sock, timeout)

    def _flags(self, request: int) -> int:
        asked = request in self.acknowledged and self.protocol_features & abi.VHOST_USER_PROTOCOL_F_REPLY_ACK
        return abi.VHOST_USER_VERSION | (abi.FLAG_NEED_REPLY if asked else 0)

    def answer(self, request: int, timeout: float | None = None) -> Message:
        """The reply to a request sent before. Raises ProtocolError for any other message."""
        reply = self.recv(timeout)
        if reply.request != request or reply.flags != abi.VHOST_USER_VERSION | abi.FLAG_REPLY:
            reply.close()
            raise ProtocolError(f"{request_name(request)} was answered by {request_name(reply.request)}, "
                                f"flags {reply.flags:#x}")
        return reply

    def ask(self, request: int, payload: bytes = b"", fds: Sequence[int] = (), timeout: float | None = None) -> Message:
        """Sends a request that always has a reply, and returns it."""
        self.send(request, payload, fds, flags=self._flags(request))
        return self.answer(request, timeout)

    def value(self, request: int, payload: bytes = b"", fds: Sequence[int] = ()) -> int:
        """Sends a request whose reply is a u64, and returns that."""
        reply = self.ask(request, payload, fds)
        reply.close()
        return reply.value

    def order(self, request: int, payload: bytes = b"", fds: Sequence[int] = (), *, ack: bool | None = None) -> None:
        """Sends a request without a reply of its own; waits for the acknowledgement where one was asked for.

        Raises RefusedError where it is not 0.
        """
        flags = self._flags(request)
        if ack is not None:
            flags = abi.VHOST_USER_VERSION | (abi.FLAG_NEED_REPLY if ack else 0)
        self.send(request, payload, fds, flags=flags)
        if flags & abi.FLAG_NEED_REPLY:
            value = self.answer(request).value
            if value:
                raise RefusedError(request, value)

    # Negotiation

    def get_features(self) -> int:
        return self.value(FrontRequest.GET_FEATURES)

    def set_features(self, features: int, *, ack: bool | None = None) -> None:
        self.order(FrontRequest.SET_FEATURES, U64.pack(features), ack=ack)

    def get_protocol_features(self) -> int:
        return self.value(FrontRequest.GET_PROTOCOL_FEATURES)

    def set_protocol_features(self, features: int) -> None:
        self.order(FrontRequest.SET_PROTOCOL_FEATURES, U64.pack(features))
        self.protocol_features = features

    def set_owner(self) -> None:
        self.order(FrontRequest.SET_OWNER)

    def reset_owner(self) -> None:
        self.order(FrontRequest.RESET_OWNER)

    def reset_device(self) -> None:
        self.order(FrontRequest.RESET_DEVICE)

    def get_queue_num(self) -> int:
        return self.value(FrontRequest.GET_QUEUE_NUM)

    def get_status(self) -> int:
        return self.value(FrontRequest.GET_STATUS)

    def set_status(self, status: int) -> None:
        self.order(FrontRequest.SET_STATUS, U64.pack(status))

    def get_config(self, offset: int, size: int, flags: int = 0) -> bytes:
        """The bytes of the configuration space. Raises ProtocolError where the back-end refuses."""
        header = abi.CONFIG_HEADER.pack(offset=offset, size=size, flags=flags)
        reply = self.ask(FrontRequest.GET_CONFIG, header + bytes(size))
        if len(reply.payload) != abi.CONFIG_HEADER.size + size:
            raise ProtocolError(f"GET_CONFIG of {size} bytes was answered with {len(reply.payload)}")
        answered = abi.CONFIG_HEADER.unpack(reply.payload)
        if (answered.offset, answered.size) != (offset, size):
            raise ProtocolError(f"GET_CONFIG at {offset} of {size} was answered for {answered.offset}, {answered.size}")
        return reply.payload[abi.CONFIG_HEADER.size:]

    def set_config(self, offset: int, data: bytes, flags: int = 0, *, ack: bool | None = None) -> None:
        """`flags` 0 is a write by the guest, 1 a migration."""
        header = abi.CONFIG_HEADER.pack(offset=offset, size=len(data), flags=flags)
        self.order(FrontRequest.SET_CONFIG, header + data, ack=ack)

    # Memory

    @staticmethod
    def region(region: Region) -> bytes:
        """The region as SET_MEM_TABLE has it; addresses and sizes in bytes."""
        return abi.MEMORY_REGION.pack(guest_addr=region.guest_addr, size=region.size, user_addr=region.user_addr,
                                      mmap_offset=region.mmap_offset)

    def set_mem_table(self, regions: Sequence[Region]) -> None:
        """Replaces all regions; each comes with its descriptor, which stays the caller's."""
        table = abi.MEMORY_HEADER.pack(count=len(regions)) + b"".join(map(self.region, regions))
        self.order(FrontRequest.SET_MEM_TABLE, table, [region.fd for region in regions])

    def get_max_mem_slots(self) -> int:
        return self.value(FrontRequest.GET_MAX_MEM_SLOTS)

    def add_mem_reg(self, region: Region) -> None:
        self.order(FrontRequest.ADD_MEM_REG, U64.pack(0) + self.region(region), [region.fd])

    def rem_mem_reg(self, region: Region, with_fd: bool = False) -> None:
        self.order(FrontRequest.REM_MEM_REG, U64.pack(0) + self.region(region), [region.fd] if with_fd else [])

    def set_log_base(self, fd: int, size: int, offset: int = 0) -> Message:
        """The reply, whatever its payload. Without LOG_SHMFD there is none: use order."""
        return self.ask(FrontRequest.SET_LOG_BASE, abi.LOG.pack(size=size, offset=offset), [fd])

    # Rings

    def _vring(self, request: int, index: int, num: int, *, ack: bool | None = None) -> None:
        self.order(request, abi.VRING_STATE.pack(index=index, num=num), ack=ack)

    def set_vring_num(self, index: int, num: int, *, ack: bool | None = None) -> None:
        self._vring(FrontRequest.SET_VRING_NUM, index, num, ack=ack)

    def set_vring_base(self, index: int, base: int, ack: bool | None = None) -> None:
        self._vring(FrontRequest.SET_VRING_BASE, index, base, ack=ack)

    def set_vring_enable(self, index: int, enable: bool, *, ack: bool | None = None) -> None:
        self._vring(FrontRequest.SET_VRING_ENABLE, index, int(enable), ack=ack)

    def vring_kick(self, index: int, *, ack: bool | None = None) -> None:
        """A kick in-band, which also starts the ring (INBAND_NOTIFICATIONS)."""
        self._vring(FrontRequest.VRING_KICK, index, 0, ack=ack)

    def get_vring_base(self, index: int, timeout: float | None = None) -> int:
        """Stops the ring. The next available index; TimeoutError while requests are in flight."""
        reply = self.ask(FrontRequest.GET_VRING_BASE, abi.VRING_STATE.pack(index=index), timeout=timeout)
        state = abi.VRING_STATE.unpack(reply.payload)
        if state.index != index:
            raise ProtocolError(f"GET_VRING_BASE of ring {index} was answered for {state.index}")
        return int(state.num)

    def set_vring_addr(self, index: int, desc: int, avail: int, used: int, *, log: int = 0, flags: int = 0,
                       ack: bool | None = None) -> None:
        """User addresses."""
        payload = abi.VRING_ADDR.pack(index=index, flags=flags, desc=desc, used=used, avail=avail, log=log)
        self.order(FrontRequest.SET_VRING_ADDR, payload, ack=ack)

    def _vring_fd(self, request: int, index: int, fd: int | None, *, ack: bool | None = None) -> None:
        if fd is None:
            self.order(request, U64.pack(index | abi.VHOST_USER_VRING_NOFD_MASK), ack=ack)
        else:
            self.order(request, U64.pack(index), [fd], ack=ack)

    def set_vring_kick(self, index: int, fd: int | None, *, ack: bool | None = None) -> None:
        """An eventfd that stays the caller's; None: no descriptor, the ring is polled."""
        self._vring_fd(FrontRequest.SET_VRING_KICK, index, fd, ack=ack)

    def set_vring_call(self, index: int, fd: int | None, *, ack: bool | None = None) -> None:
        """An eventfd or socket that stays the caller's; None: no descriptor, the driver polls."""
        self._vring_fd(FrontRequest.SET_VRING_CALL, index, fd, ack=ack)

    def set_vring_err(self, index: int, fd: int | None, *, ack: bool | None = None) -> None:
        """An eventfd that stays the caller's, or None."""
        self._vring_fd(FrontRequest.SET_VRING_ERR, index, fd, ack=ack)

    # State

    def get_inflight_fd(self, num_queues: int, queue_size: int) -> tuple[int, int, int | None]:
        """mmap size, mmap offset and the descriptor, or None."""
        payload = abi.INFLIGHT.pack(num_queues=num_queues, queue_size=queue_size)
        reply = self.ask(FrontRequest.GET_INFLIGHT_FD, payload)
        answer = abi.INFLIGHT.unpack(reply.payload)
        fd = reply.fds.pop(0) if reply.fds else None
        reply.close()
        return answer.mmap_size, answer.mmap_offset, fd

    def set_inflight_fd(self, mmap_size: int, mmap_offset: int, num_queues: int, queue_size: int, fd: int) -> None:
        payload = abi.INFLIGHT.pack(mmap_size=mmap_size, mmap_offset=mmap_offset, num_queues=num_queues,
                                    queue_size=queue_size)
        self.order(FrontRequest.SET_INFLIGHT_FD, payload, [fd])

    def set_device_state_fd(self, direction: int, fd: int) -> int | None:
        """The descriptor that the back-end gives instead, or None. Raises RefusedError."""
        payload = abi.DEVICE_STATE.pack(direction=direction, phase=abi.VHOST_USER_DEVICE_STATE_PHASE_STOPPED)
        reply = self.ask(FrontRequest.SET_DEVICE_STATE_FD, payload, [fd])
        other = reply.fds.pop(0) if reply.fds else None
        reply.close()
        if reply.value & 0xff or (other is None) != bool(reply.value & abi.VHOST_USER_DEVICE_STATE_NOFD):
            raise RefusedError(FrontRequest.SET_DEVICE_STATE_FD, reply.value)
        return other

    def check_device_state(self) -> int:
        return self.value(FrontRequest.CHECK_DEVICE_STATE)

    def get_shmem_config(self) -> list[int]:
        """The sizes of the shared memory regions, by shmid."""
        reply = self.ask(FrontRequest.GET_SHMEM_CONFIG)
        header = abi.MEMORY_HEADER.unpack(reply.payload)
        sizes = [size for (size,) in U64.iter_unpack(reply.payload[abi.MEMORY_HEADER.size:])]
        if sum(1 for size in sizes if size) != header.count:
            raise ProtocolError(f"GET_SHMEM_CONFIG counts {header.count} regions and has {sizes}")
        return sizes

    def set_backend_req_fd(self, sock: socket.socket) -> None:
        self.order(FrontRequest.SET_BACKEND_REQ_FD, b"", [sock.fileno()])


class BackendChannel(Channel):
    """The back-end's own requests. Whoever waits calls serve(); calls and errors of rings are counted by index.

    `handlers` answer other requests with the value to acknowledge (0 is success); they may take descriptors out of the
    message. Without one the answer is `default`.
    """

    def __init__(self, timeout: float = 10.0) -> None:
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        super().__init__(ours, timeout)
        self.calls: Counter[int] = Counter()
        self.errors: Counter[int] = Counter()
        self.log: list[Message] = []
        self.handlers: dict[int, Callable[[Message], int]] = {}
        self.default = 1
        self.after: list[Callable[[], None]] = []    # done once the answer is out: what a VMM does after committing

    def offer(self, connection: Connection) -> None:
        """Hands the other end to the back-end."""
        connection.set_backend_req_fd(self.theirs)
        self.theirs.close()

    def serve(self, timeout: float = 0.0) -> list[Message]:
        """Answers the messages that wait, or the first that comes in time; returns them, their descriptors closed."""
        served: list[Message] = []
        while self.readable(0.0 if served else timeout):
            message = self.recv()
            if message.request in (BackRequest.VRING_CALL, BackRequest.VRING_ERR):
                index = abi.VRING_STATE.unpack(message.payload).index
                (self.calls if message.request == BackRequest.VRING_CALL else self.errors)[index] += 1
                value = 0
            else:
                handler = self.handlers.get(message.request)
                value = handler(message) if handler else self.default
                self.log.append(message)
            message.close()
            if message.flags & abi.FLAG_NEED_REPLY:
                self.send(message.request, U64.pack(value), flags=abi.VHOST_USER_VERSION | abi.FLAG_REPLY)
            while self.after:
                self.after.pop(0)()
            served.append(message)
        return served

    def close(self) -> None:
        super().close()
        self.theirs.close()
