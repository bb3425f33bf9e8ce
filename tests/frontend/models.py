"""Slow, obvious devices: the other side of the driver's rings, and a back-end that answers STATFS and maps files."""

import os
import select
import socket
import threading
from types import SimpleNamespace

from frontend.fuse_abi import IN_HEADER, OUT_HEADER, SETUPMAPPING_IN, STATFS_OUT, Opcode
from frontend.vhost_user import U64, Channel, ClosedError, Message
from frontend.virtqueue import Virtqueue
from virtiofsd import vhost_user_abi as vhost
from virtiofsd import virtio_abi as abi
from virtiofsd.vhost_user_abi import BackRequest, FrontRequest

AVAIL, USED = abi.VRING_PACKED_DESC_F_AVAIL, abi.VRING_PACKED_DESC_F_USED
Piece = tuple[int, int, bool]


class SplitDevice:
    def __init__(self, queue: Virtqueue) -> None:
        self.queue, self.memory, self.size = queue, queue.memory, queue.size
        self.next_avail = self.next_used = 0

    def u16(self, gpa: int) -> int:
        return int.from_bytes(self.memory.read(gpa, 2), "little")

    def put16(self, gpa: int, value: int) -> None:
        self.memory.write(gpa, (value % 65536).to_bytes(2, "little"))

    def chain(self, table: int, index: int) -> list[Piece]:
        found: list[Piece] = []
        while True:
            desc = abi.DESC.unpack(self.memory.read(table + 16 * index, 16))
            if desc.flags & abi.VRING_DESC_F_INDIRECT:
                assert desc.len % 16 == 0
                return found + self.chain(desc.addr, 0)
            found.append((desc.addr, desc.len, bool(desc.flags & abi.VRING_DESC_F_WRITE)))
            if not desc.flags & abi.VRING_DESC_F_NEXT:
                return found
            index = desc.next

    def pop(self) -> tuple[int, list[Piece]] | None:
        if self.u16(self.queue.avail_gpa + 2) == self.next_avail:
            return None
        head = self.u16(self.queue.avail_gpa + 4 + 2 * (self.next_avail % self.size))
        self.next_avail = (self.next_avail + 1) % 65536
        return head, self.chain(self.queue.desc_gpa, head)

    def push(self, head: int, length: int) -> None:
        at = self.queue.used_gpa + 4 + 8 * (self.next_used % self.size)
        self.memory.write(at, abi.USED_ELEM.pack(id=head, len=length))
        self.next_used = (self.next_used + 1) % 65536
        self.put16(self.queue.used_gpa + 2, self.next_used)

    def want_kick(self) -> None:
        self.put16(self.queue.used_gpa + 4 + 8 * self.size, self.next_avail)


class PackedDevice:
    def __init__(self, queue: Virtqueue) -> None:
        self.queue, self.memory, self.size = queue, queue.memory, queue.size
        self.avail, self.avail_wrap, self.used, self.used_wrap = 0, True, 0, True
        self.slots: dict[int, int] = {}

    def desc(self, table: int, index: int) -> tuple[int, int, int, int]:
        desc = abi.PACKED_DESC.unpack(self.memory.read(table + 16 * index, 16))
        return desc.addr, desc.len, desc.id, desc.flags

    def pop(self) -> tuple[int, list[Piece]] | None:
        flags = self.desc(self.queue.desc_gpa, self.avail)[3]
        if bool(flags & AVAIL) != self.avail_wrap or bool(flags & USED) == self.avail_wrap:
            return None
        found: list[Piece] = []
        slots = 0
        while True:
            addr, length, id_, flags = self.desc(self.queue.desc_gpa, self.avail)
            self.avail, slots = self.avail + 1, slots + 1
            if self.avail == self.size:
                self.avail, self.avail_wrap = 0, not self.avail_wrap
            if flags & abi.VRING_DESC_F_INDIRECT:
                for index in range(length // 16):
                    entry = self.desc(addr, index)
                    found.append((entry[0], entry[1], bool(entry[3] & abi.VRING_DESC_F_WRITE)))
                break
            found.append((addr, length, bool(flags & abi.VRING_DESC_F_WRITE)))
            if not flags & abi.VRING_DESC_F_NEXT:
                break
        self.slots[id_] = slots
        return id_, found

    def push(self, head: int, length: int) -> None:
        flags = (AVAIL | USED if self.used_wrap else 0) | abi.VRING_DESC_F_WRITE
        self.memory.write(self.queue.desc_gpa + 16 * self.used, abi.PACKED_DESC.pack(len=length, id=head, flags=flags))
        self.used += self.slots.pop(head)
        if self.used >= self.size:
            self.used, self.used_wrap = self.used - self.size, not self.used_wrap

    def want_kick(self) -> None:
        event = abi.PACKED_EVENT.pack(off_wrap=self.avail | self.avail_wrap << 15, flags=abi.VRING_PACKED_EVENT_F_DESC)
        self.memory.write(self.queue.used_gpa, event)


class FakeBackEnd(threading.Thread):
    """A back-end in this process, over the test's own queue object and memory: only the messages come by socket.

    It answers STATFS with zeros and SETUPMAPPING by a SHMEM_MAP of `file`, whose answer it passes on as the error.
    """

    def __init__(self, packed: bool, protocol: int, file: int = -1) -> None:
        super().__init__(daemon=True)
        ours, self.theirs = socket.socketpair()
        self.channel = Channel(ours, 5)
        self.back: Channel | None = None
        self.model: SplitDevice | PackedDevice | None = None
        self.features = abi.VIRTIO_F_VERSION_1 | abi.VIRTIO_F_EVENT_IDX | abi.VIRTIO_F_INDIRECT_DESC
        self.features |= vhost.VHOST_USER_F_PROTOCOL_FEATURES | (abi.VIRTIO_F_RING_PACKED if packed else 0)
        self.packed, self.protocol, self.file = packed, protocol, file
        self.queue: Virtqueue | None = None
        self.requests: list[int] = []
        self.failure: BaseException | None = None
        self.kick = self.call = -1

    def run(self) -> None:
        try:
            while True:
                watched = [self.channel.socket.fileno()] + [self.kick] * (self.kick >= 0)
                ready = select.select(watched, [], [], 5)[0]
                if self.kick in ready:
                    os.eventfd_read(self.kick)
                    self.serve_ring()
                if watched[0] in ready:
                    self.serve_message(self.channel.recv())
        except ClosedError:
            pass
        except BaseException as error:
            self.failure = error
            self.channel.close()

    def value(self, message: Message) -> bytes | None:
        """The payload of the reply that a request always has."""
        numbers = {FrontRequest.GET_FEATURES: self.features, FrontRequest.GET_PROTOCOL_FEATURES: self.protocol,
                   FrontRequest.GET_QUEUE_NUM: 2, FrontRequest.GET_MAX_MEM_SLOTS: 32, FrontRequest.GET_STATUS: 0}
        if message.request in numbers:
            return U64.pack(numbers[FrontRequest(message.request)])
        if message.request == FrontRequest.GET_SHMEM_CONFIG:
            return vhost.SHMEM_CONFIG.pack(count=1, sizes=U64.pack(1 << 30) + bytes(255 * 8))
        if message.request == FrontRequest.GET_CONFIG:
            return message.payload
        if message.request == FrontRequest.GET_VRING_BASE:
            index = vhost.VRING_STATE.unpack(message.payload).index
            return vhost.VRING_STATE.pack(index=index, num=self.queue.base if self.queue and index else 0)
        return None

    def serve_message(self, message: Message) -> None:
        self.requests.append(message.request)
        ring_one = len(message.payload) == 8 and message.payload[0] == 1
        if message.request == FrontRequest.SET_BACKEND_REQ_FD:
            self.back = Channel(socket.socket(fileno=message.fds.pop()), 5)
        elif message.request == FrontRequest.SET_VRING_KICK and ring_one:
            self.kick = message.fds.pop()
        elif message.request == FrontRequest.SET_VRING_CALL and ring_one:
            self.call = message.fds.pop()
        message.close()
        payload = self.value(message)
        if payload is None and message.flags & vhost.FLAG_NEED_REPLY:
            payload = U64.pack(0)
        if payload is not None:
            self.channel.send(message.request, payload, flags=vhost.VHOST_USER_VERSION | vhost.FLAG_REPLY)
        if message.request == FrontRequest.VRING_KICK and ring_one:
            self.serve_ring()

    def serve_ring(self) -> None:
        if self.queue is None:
            return
        if self.model is None:
            self.model = PackedDevice(self.queue) if self.packed else SplitDevice(self.queue)
        while popped := self.model.pop():
            self.model.push(popped[0], self.answer(popped[1]))
        self.model.want_kick()
        if self.call >= 0:
            os.eventfd_write(self.call, 1)
        elif self.back:
            self.back.send(BackRequest.VRING_CALL, vhost.VRING_STATE.pack(index=1))

    def answer(self, chain: list[Piece]) -> int:
        assert self.queue
        memory = self.queue.memory
        request = b"".join(memory.read(gpa, length) for gpa, length, writable in chain if not writable)
        header = IN_HEADER.unpack(request)
        body, error = b"", 0
        if header.opcode == Opcode.STATFS:
            body = bytes(STATFS_OUT.size)
        elif header.opcode == Opcode.SETUPMAPPING:
            error = -22 if self.map_file(SETUPMAPPING_IN.unpack(request, IN_HEADER.size)) else 0
        else:
            error = -38
        reply = OUT_HEADER.pack(len=OUT_HEADER.size + len(body), error=error, unique=header.unique) + body
        left = reply
        for gpa, length, writable in chain:
            if writable:
                memory.write(gpa, left[:length])
                left = left[length:]
        return len(reply)

    def map_file(self, asked: SimpleNamespace) -> int:
        assert self.back
        payload = vhost.MMAP.pack(fd_offset=asked.foffset, shm_offset=asked.moffset, len=asked.len, flags=1)
        self.back.send(BackRequest.SHMEM_MAP, payload, [self.file],
                       flags=vhost.VHOST_USER_VERSION | vhost.FLAG_NEED_REPLY)
        return self.back.recv().value
