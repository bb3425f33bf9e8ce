"""The vhost-user back-end: what each message of a front-end does to the device."""

import argparse
import asyncio
import os
import stat
import sys
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from virtiofsd import vhost_user_abi as abi
from virtiofsd import virtio_abi as virtio
from virtiofsd._ring.device import Device
from virtiofsd.channel import Channel, Message, ProtocolError
from virtiofsd.guest_memory import SLOTS_MAX, GuestMemory, Region
from virtiofsd.log import TRACE, log
from virtiofsd.options import VRINGS_MAX
from virtiofsd.vhost_user_abi import FrontRequest
from virtiofsd.vrings import Vring
from virtiofsd.waiting import DrainTimeoutError, Waiter

FEATURES = (
    virtio.VIRTIO_F_VERSION_1 | virtio.VIRTIO_F_INDIRECT_DESC | virtio.VIRTIO_F_EVENT_IDX
    | abi.VHOST_USER_F_PROTOCOL_FEATURES
)
PROTOCOL_FEATURES = (
    abi.VHOST_USER_PROTOCOL_F_MQ | abi.VHOST_USER_PROTOCOL_F_REPLY_ACK | abi.VHOST_USER_PROTOCOL_F_BACKEND_REQ
    | abi.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS | abi.VHOST_USER_PROTOCOL_F_RESET_DEVICE
    | abi.VHOST_USER_PROTOCOL_F_STATUS | abi.VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS
)
POOL_THREADS = 64
CLOSE_SECONDS = 5.0  # for requests in flight when the front-end is gone
U64 = 8
FAILED = 1


class Rule(NamedTuple):
    """What a message must be like, and who handles it."""

    handle: Callable[["Backend", Message], Awaitable[bytes | None]]
    size: int | None  # bytes of payload; None: the handler knows
    fds: int = 0  # the most descriptors
    needs: int = 0  # the protocol feature that must be negotiated
    replies: bool = False  # it has an answer of its own


class Backend:
    """One connection: the negotiated features, guest memory, vrings, and the device that serves them."""

    def __init__(self, options: argparse.Namespace, channel: Channel, root_fd: int, proc_fd: int,
                 descriptors: int) -> None:
        self.options, self.channel = options, channel
        self.queue_count = 1 + options.num_request_queues if options.num_request_queues else VRINGS_MAX
        self.device = Device(root_fd, proc_fd, queues=self.queue_count, descriptors=descriptors,
                             pool_threads=POOL_THREADS, readonly=options.readonly)
        self.waiter = Waiter(self.device, options.drain_timeout)
        self.memory = GuestMemory(self.device, self.waiter)
        self.vrings = [Vring(self.device, self.waiter, index) for index in range(self.queue_count)]
        self.offered = PROTOCOL_FEATURES | (abi.VHOST_USER_PROTOCOL_F_CONFIG if options.tag else 0)
        self.features = 0
        self.protocol_features = 0
        self.status = 0
        self.backend_fd = -1
        asyncio.get_running_loop().add_reader(self.device.event_fd, self._on_event)

    # The main loop.

    async def run(self) -> None:
        """Answers messages until the front-end disconnects. Raises ProtocolError where it cannot go on."""
        while (message := await self.channel.receive()) is not None:
            with message:
                await self._serve(message)

    async def _serve(self, message: Message) -> None:
        rule = RULES.get(message.request)  # by number, which is what the keys are
        name = FrontRequest(message.request).name if rule else f"message {message.request}"
        log.log(TRACE, "%s, %d bytes, %d descriptors", name, len(message.payload), len(message.fds))
        try:
            if rule is None:
                raise ProtocolError("it is unknown")
            self._check(rule, message)
            answer = await rule.handle(self, message)
        except ProtocolError as error:
            if (rule and rule.replies) or not self._acks(message):
                raise ProtocolError(f"{name}: {error}") from error
            log.error("%s failed: %s", name, error)
            await self.channel.reply(message.request, u64(FAILED))
        except DrainTimeoutError as error:
            raise ProtocolError(f"{name}: {error}") from error
        else:
            if answer is not None:
                await self.channel.reply(message.request, answer)
            elif self._acks(message):
                await self.channel.reply(message.request, u64(0))

    def _acks(self, message: Message) -> bool:
        """Whether the front-end waits for a 0 or an error: User-Mode Linux from SET_PROTOCOL_FEATURES itself on."""
        return message.needs_reply and bool(self.protocol_features & abi.VHOST_USER_PROTOCOL_F_REPLY_ACK)

    def _check(self, rule: Rule, message: Message) -> None:
        if rule.size is not None and len(message.payload) != rule.size:
            raise ProtocolError(f"it has {len(message.payload)} bytes, not {rule.size}")
        if len(message.fds) > rule.fds:
            raise ProtocolError(f"it has {len(message.fds)} descriptors, at most {rule.fds} belong to it")
        if rule.needs & ~self.protocol_features:
            raise ProtocolError("its protocol feature was not negotiated")

    def _on_event(self) -> None:
        os.read(self.device.event_fd, 8)
        for kind, queue, what in self.device.events():
            if kind == "queue-broken":
                log.error("vring %d is broken and not served any more: %s", queue, what)
            elif kind == "bad-chain":
                log.warning("vring %d: a request came back empty, its chain had %s", queue, what)
            elif kind == "thread-failed":
                log.error("a thread cannot serve: %s", what)
                os._exit(FAILED)
            else:
                log.warning("%s more events of vrings", what)
        self.waiter.heard()

    async def close(self) -> bool:
        """Ends the device. False where requests hang so that it cannot be."""
        for vring in self.vrings:
            self.device.run_queue(vring.index, False)
        self.device.stop()
        self.waiter.timeout = CLOSE_SECONDS
        try:
            await self.waiter.until(lambda: self.device.stopped, "ending the device")
        except DrainTimeoutError as error:
            log.error("%s", error)
            return False
        finally:
            asyncio.get_running_loop().remove_reader(self.device.event_fd)
            if self.backend_fd >= 0:
                os.close(self.backend_fd)
                self.backend_fd = -1
        self.device.close()
        return True

    # Features.

    async def get_features(self, message: Message) -> bytes:
        return u64(FEATURES)

    async def set_features(self, message: Message) -> None:
        features = int.from_bytes(message.payload, sys.byteorder)
        if features & ~FEATURES:
            raise ProtocolError(f"features {features & ~FEATURES:#x} were not offered")
        self.features = features
        for vring in self.vrings:
            vring.features = features
            if not features & abi.VHOST_USER_F_PROTOCOL_FEATURES:
                vring.enable(True)

    async def get_protocol_features(self, message: Message) -> bytes:
        return u64(self.offered)

    async def set_protocol_features(self, message: Message) -> None:
        features = int.from_bytes(message.payload, sys.byteorder)
        if features & ~self.offered:
            raise ProtocolError(f"protocol features {features & ~self.offered:#x} were not offered")
        self.protocol_features = features

    async def set_owner(self, message: Message) -> None:
        pass  # one connection, one owner

    async def get_queue_num(self, message: Message) -> bytes:
        return u64(self.queue_count)

    async def get_max_mem_slots(self, message: Message) -> bytes:
        return u64(SLOTS_MAX)

    async def get_status(self, message: Message) -> bytes:
        return u64(self.status)

    async def set_status(self, message: Message) -> None:
        self.status = int.from_bytes(message.payload, sys.byteorder) & 0xFF

    async def get_config(self, message: Message) -> bytes:
        if len(message.payload) < abi.CONFIG_HEADER.size:
            raise ProtocolError(f"it has {len(message.payload)} bytes")
        wanted = abi.CONFIG_HEADER.unpack(message.payload)
        queues = self.options.num_request_queues or min(os.cpu_count() or 1, VRINGS_MAX - 1)
        config = virtio.FS_CONFIG.pack(tag=self.options.tag.encode(), num_request_queues=queues)
        if wanted.offset + wanted.size > len(config) or wanted.size != len(message.payload) - abi.CONFIG_HEADER.size:
            log.warning("GET_CONFIG of %d bytes at %d: there are %d", wanted.size, wanted.offset, len(config))
            return b""  # how this message says no
        return message.payload[:abi.CONFIG_HEADER.size] + config[wanted.offset:wanted.offset + wanted.size]

    async def set_config(self, message: Message) -> None:
        raise ProtocolError("a virtio-fs device's configuration is read-only")

    async def set_backend_req_fd(self, message: Message) -> None:
        fd = message.take_fd()
        if fd < 0 or not stat.S_ISSOCK(os.fstat(fd).st_mode):
            if fd >= 0:
                os.close(fd)
            raise ProtocolError("it comes with one socket")
        if self.backend_fd >= 0:
            os.close(self.backend_fd)
        self.backend_fd = fd

    # Memory.

    async def set_mem_table(self, message: Message) -> None:
        if len(message.payload) < abi.MEMORY_HEADER.size:
            raise ProtocolError(f"it has {len(message.payload)} bytes")
        count = abi.MEMORY_HEADER.unpack(message.payload).count
        if len(message.payload) != abi.MEMORY_HEADER.size + count * abi.MEMORY_REGION.size:
            raise ProtocolError(f"it has {len(message.payload)} bytes for {count} regions")
        if len(message.fds) != count:
            raise ProtocolError(f"it has {len(message.fds)} descriptors for {count} regions")
        regions = [region_at(message.payload, abi.MEMORY_HEADER.size + i * abi.MEMORY_REGION.size)
                   for i in range(count)]
        await self.memory.replace(list(zip(regions, message.fds, strict=True)))

    async def add_mem_reg(self, message: Message) -> None:
        if len(message.fds) != 1:
            raise ProtocolError(f"it has {len(message.fds)} descriptors, not 1")
        await self.memory.add(region_at(message.payload, abi.MEMORY_HEADER.size), message.fds[0])

    async def rem_mem_reg(self, message: Message) -> None:
        await self.memory.remove(region_at(message.payload, abi.MEMORY_HEADER.size))

    # Vrings.

    def _vring(self, index: int) -> Vring:
        if index >= self.queue_count:
            raise ProtocolError(f"vring {index} of {self.queue_count}")
        return self.vrings[index]

    async def set_vring_num(self, message: Message) -> None:
        state = abi.VRING_STATE.unpack(message.payload)
        await self._vring(state.index).set_size(state.num)

    async def set_vring_addr(self, message: Message) -> None:
        addr = abi.VRING_ADDR.unpack(message.payload)
        self._vring(addr.index).set_addresses(addr.desc, addr.avail, addr.used)

    async def set_vring_base(self, message: Message) -> None:
        state = abi.VRING_STATE.unpack(message.payload)
        await self._vring(state.index).set_base(state.num)

    async def get_vring_base(self, message: Message) -> bytes:
        state = abi.VRING_STATE.unpack(message.payload)
        return abi.VRING_STATE.pack(index=state.index, num=await self._vring(state.index).stop())

    async def set_vring_enable(self, message: Message) -> None:
        state = abi.VRING_STATE.unpack(message.payload)
        if state.num > 1:
            raise ProtocolError(f"vring {state.index} is to be {state.num}, neither enabled nor disabled")
        self._vring(state.index).enable(state.num == 1)

    def _vring_fd(self, message: Message) -> tuple[Vring, int]:
        """The vring and the descriptor of KICK, CALL and ERR; -1 where the message says that there is none."""
        word = int.from_bytes(message.payload, sys.byteorder)
        vring = self._vring(word & abi.VHOST_USER_VRING_INDEX_MASK)
        if bool(word & abi.VHOST_USER_VRING_NOFD_MASK) == bool(message.fds):
            raise ProtocolError(f"vring {vring.index}: it has {len(message.fds)} descriptors and says otherwise")
        return vring, message.take_fd()

    async def set_vring_kick(self, message: Message) -> None:
        vring, fd = self._vring_fd(message)
        vring.set_kick(fd, vring.index)

    async def set_vring_call(self, message: Message) -> None:
        vring, fd = self._vring_fd(message)
        kind = "socket" if fd >= 0 and stat.S_ISSOCK(os.fstat(fd).st_mode) else "eventfd"
        if fd < 0:
            kind, fd = self._inband_call()
        self.device.set_call(vring.index, fd, kind)

    def _inband_call(self) -> tuple[str, int]:
        """Where calls go without a descriptor: to the back-end channel as messages, or nowhere: the driver polls."""
        if self.backend_fd >= 0 and self.protocol_features & abi.VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS:
            return "message", os.dup(self.backend_fd)
        return "eventfd", -1

    async def set_vring_err(self, message: Message) -> None:
        vring, fd = self._vring_fd(message)
        self.device.set_error(vring.index, fd)

    async def vring_kick(self, message: Message) -> None:
        vring = self._vring(abi.VRING_STATE.unpack(message.payload).index)
        if not vring.started:
            kind, fd = self._inband_call()
            self.device.set_call(vring.index, fd, kind)
        vring.kick(vring.index)

    async def reset_device(self, message: Message) -> None:
        """Everything as after the connection, but for memory, features and the session with the front-end."""
        for vring in self.vrings:
            vring.enable(False)
            await vring.stop()
        await asyncio.get_running_loop().run_in_executor(None, self.device.end_session)
        self.status = 0

    async def reset_owner(self, message: Message) -> None:
        for vring in self.vrings:
            vring.enable(False)


def u64(value: int) -> bytes:
    return value.to_bytes(U64, sys.byteorder)


def region_at(payload: bytes, offset: int) -> Region:
    region = abi.MEMORY_REGION.unpack(payload, offset)
    return Region(region.guest_addr, region.size, region.user_addr, region.mmap_offset)


RULES: dict[int, Rule] = {
    FrontRequest.GET_FEATURES: Rule(Backend.get_features, 0, replies=True),
    FrontRequest.SET_FEATURES: Rule(Backend.set_features, U64),
    FrontRequest.SET_OWNER: Rule(Backend.set_owner, 0),
    FrontRequest.RESET_OWNER: Rule(Backend.reset_owner, 0),
    FrontRequest.SET_MEM_TABLE: Rule(Backend.set_mem_table, None, fds=253),
    FrontRequest.SET_VRING_NUM: Rule(Backend.set_vring_num, abi.VRING_STATE.size),
    FrontRequest.SET_VRING_ADDR: Rule(Backend.set_vring_addr, abi.VRING_ADDR.size),
    FrontRequest.SET_VRING_BASE: Rule(Backend.set_vring_base, abi.VRING_STATE.size),
    FrontRequest.GET_VRING_BASE: Rule(Backend.get_vring_base, abi.VRING_STATE.size, replies=True),
    FrontRequest.SET_VRING_KICK: Rule(Backend.set_vring_kick, U64, fds=1),
    FrontRequest.SET_VRING_CALL: Rule(Backend.set_vring_call, U64, fds=1),
    FrontRequest.SET_VRING_ERR: Rule(Backend.set_vring_err, U64, fds=1),
    FrontRequest.GET_PROTOCOL_FEATURES: Rule(Backend.get_protocol_features, 0, replies=True),
    FrontRequest.SET_PROTOCOL_FEATURES: Rule(Backend.set_protocol_features, U64),
    FrontRequest.GET_QUEUE_NUM: Rule(Backend.get_queue_num, 0, needs=abi.VHOST_USER_PROTOCOL_F_MQ, replies=True),
    FrontRequest.SET_VRING_ENABLE: Rule(Backend.set_vring_enable, abi.VRING_STATE.size),
    FrontRequest.SET_BACKEND_REQ_FD: Rule(Backend.set_backend_req_fd, 0, fds=1,
                                          needs=abi.VHOST_USER_PROTOCOL_F_BACKEND_REQ),
    FrontRequest.GET_CONFIG: Rule(Backend.get_config, None, needs=abi.VHOST_USER_PROTOCOL_F_CONFIG, replies=True),
    FrontRequest.SET_CONFIG: Rule(Backend.set_config, None, needs=abi.VHOST_USER_PROTOCOL_F_CONFIG),
    FrontRequest.RESET_DEVICE: Rule(Backend.reset_device, 0, needs=abi.VHOST_USER_PROTOCOL_F_RESET_DEVICE),
    FrontRequest.VRING_KICK: Rule(Backend.vring_kick, abi.VRING_STATE.size,
                                  needs=abi.VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS),
    FrontRequest.GET_MAX_MEM_SLOTS: Rule(Backend.get_max_mem_slots, 0,
                                         needs=abi.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS, replies=True),
    FrontRequest.ADD_MEM_REG: Rule(Backend.add_mem_reg, abi.MEMORY_HEADER.size + abi.MEMORY_REGION.size, fds=1,
                                   needs=abi.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS),
    FrontRequest.REM_MEM_REG: Rule(Backend.rem_mem_reg, abi.MEMORY_HEADER.size + abi.MEMORY_REGION.size, fds=1,
                                   needs=abi.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS),
    FrontRequest.SET_STATUS: Rule(Backend.set_status, U64, needs=abi.VHOST_USER_PROTOCOL_F_STATUS),
    FrontRequest.GET_STATUS: Rule(Backend.get_status, 0, needs=abi.VHOST_USER_PROTOCOL_F_STATUS, replies=True),
}
