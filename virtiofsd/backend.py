"""The vhost-user back-end: what each message of a front-end does to the device."""

import argparse
import asyncio
import contextlib
import functools
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from virtiofsd import vhost_user_abi as abi
from virtiofsd import virtio_abi as virtio
from virtiofsd._ring.device import Device
from virtiofsd.back_channel import BackChannel
from virtiofsd.background import in_background
from virtiofsd.channel import FDS_MAX, Channel, Message, ProtocolError, is_local
from virtiofsd.guest_memory import SLOTS_MAX, GuestMemory, Region
from virtiofsd.log import TRACE
from virtiofsd.options import VRINGS_MAX
from virtiofsd.placement import Placement, helpers, pollers
from virtiofsd.sandbox import Inside
from virtiofsd.settings import settings_of
from virtiofsd.vhost_user_abi import FrontRequest
from virtiofsd.vrings import Vring
from virtiofsd.waiting import DrainTimeoutError, PeerLeftError, Waiter

log = logging.getLogger(__name__)

FEATURES = (
    virtio.VIRTIO_F_VERSION_1 | virtio.VIRTIO_F_INDIRECT_DESC | virtio.VIRTIO_F_EVENT_IDX
    | abi.VHOST_USER_F_PROTOCOL_FEATURES
)
PROTOCOL_FEATURES = (
    abi.VHOST_USER_PROTOCOL_F_MQ | abi.VHOST_USER_PROTOCOL_F_REPLY_ACK | abi.VHOST_USER_PROTOCOL_F_BACKEND_REQ
    | abi.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS | abi.VHOST_USER_PROTOCOL_F_RESET_DEVICE
    | abi.VHOST_USER_PROTOCOL_F_STATUS | abi.VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS
)
POOL_THREADS, POOL_THREADS_LEAST = 64, 4
POLL_US = 50
CLOSE_SECONDS = 5.0  # for requests in flight when the front-end is gone
U64 = 8
SINGLE_REGION_AT = abi.SINGLE_REGION.size - abi.MEMORY_REGION.size
FAILED = 1


class DeviceError(Exception):
    """The device cannot serve anybody on this machine."""


class Rule(NamedTuple):
    """What a message must be like, and who handles it."""

    handle: Callable[["Backend", Message], Awaitable[bytes | None]]
    size: int  # bytes of payload
    more: bool = False  # the size is only that of a header; the handler knows the rest
    fds: int = 0  # the most descriptors
    needs: int = 0  # the protocol feature that must be negotiated
    replies: bool = False  # it has an answer of its own

    def check(self, message: Message, protocol_features: int) -> None:
        """Raises ProtocolError where the message is not like this."""
        if len(message.payload) < self.size or (len(message.payload) > self.size and not self.more):
            raise ProtocolError(f"it has {len(message.payload)} bytes, not {self.size}")
        if len(message.fds) > self.fds:
            raise ProtocolError(f"it has {len(message.fds)} descriptors, at most {self.fds} belong to it")
        if self.needs & ~protocol_features:
            raise ProtocolError("its protocol feature was not negotiated")


def pool_threads(options: argparse.Namespace) -> int:
    """How many threads there may be for requests that sleep."""
    wanted = options.thread_pool_size or POOL_THREADS
    if wanted < POOL_THREADS_LEAST:
        log.info("--thread-pool-size %d: %d are taken, so that small requests need not wait for slow ones", wanted,
                 POOL_THREADS_LEAST)
    return max(wanted, POOL_THREADS_LEAST)


def new_device(options: argparse.Namespace, inside: Inside, descriptors: int) -> asyncio.Future[Device]:
    """Its file system may hang. OSError, also of the future, where the machine has no room for another device."""
    make = functools.partial(
        Device, inside.root_fd, inside.proc_fd, settings_of(options, inside.own_umask), queues=vring_count(options),
        descriptors=descriptors, pool_threads=pool_threads(options), requests=options.max_requests,
        poll_us=POLL_US if options.poll_us is None else options.poll_us, pollers=pollers(),
        helpers=helpers() if options.helpers is None else options.helpers,
        idle_seconds=options.descriptor_timeout, close_delay=options.close_delay, seccomp=inside.filter)
    return in_background(make)


def vring_count(options: argparse.Namespace) -> int:
    return 1 + options.num_request_queues if options.num_request_queues else VRINGS_MAX


class Backend:
    """One connection: the negotiated features, guest memory, vrings, and the device that serves them."""

    def __init__(self, options: argparse.Namespace, channel: Channel, device: Device, proc_fd: int) -> None:
        self.options, self.channel, self.device, self.proc_fd = options, channel, device, proc_fd
        self.queue_count = vring_count(options)
        self.waiter = Waiter(self.device, options.drain_timeout, channel.peer_has_left)
        self.placement = Placement(self.device, options.workers or len(os.sched_getaffinity(0)))
        self.vrings = [Vring(self.device, self.placement, self.waiter, index) for index in range(self.queue_count)]
        self.memory = GuestMemory(self.device, self.waiter, self.vrings)
        self.offered = PROTOCOL_FEATURES | (abi.VHOST_USER_PROTOCOL_F_CONFIG if options.tag else 0)
        self.protocol_features = 0
        self.status = 0
        self.back_channel = BackChannel(self.device)
        self.ending_session: asyncio.Future[None] | None = None
        self.freeing: asyncio.Future[None] | None = None
        asyncio.get_running_loop().add_reader(self.device.event_fd, self._on_event)

    # The main loop.

    async def run(self) -> bool:
        """Answers messages until the front-end disconnects. Whether it said anything at all.

        Raises ProtocolError where it is the front-end's fault that the connection cannot go on, else DeviceError.
        """
        spoken = False
        while (message := await self.channel.receive()) is not None:
            spoken = True
            async with message:
                try:
                    answer = await self._answer(message)
                except PeerLeftError:
                    break
            if answer is not None:
                await self.channel.reply(message.request, answer)
            await asyncio.sleep(0)  # signals and the device are heard also while the peer never pauses
        return spoken

    async def _answer(self, message: Message) -> bytes | None:
        """Does what the message says. The payload of the reply, None: it has none."""
        rule = RULES.get(message.request)  # by number, which is what the keys are
        name = FrontRequest(message.request).name if rule else f"message {message.request}"
        log.log(TRACE, "%s, %d bytes, %d descriptors", name, len(message.payload), len(message.fds))
        try:
            if rule is None:
                raise ProtocolError("it is unknown")
            rule.check(message, self.protocol_features)
            answer = await rule.handle(self, message)
        except (ProtocolError, OSError) as error:
            if (rule and rule.replies) or not self._acks(message):
                raise ProtocolError(f"{name}: {error}") from error
            log.error("%s failed: %s", name, error)
            answer = u64(FAILED)
        except DrainTimeoutError as error:
            raise ProtocolError(f"{name}: {error}") from error
        if self.device.memory_gone:
            self._memory_gone()
        return u64(0) if answer is None and self._acks(message) else answer

    def _acks(self, message: Message) -> bool:
        """Whether the front-end waits for a 0 or an error: User-Mode Linux from SET_PROTOCOL_FEATURES itself on."""
        return message.needs_reply and bool(self.protocol_features & abi.VHOST_USER_PROTOCOL_F_REPLY_ACK)

    # News from the device.

    def _on_event(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.device.event_fd, U64)
        for kind, queue, what in self.device.events():
            if kind == "queue-broken":
                log.error("vring %d is broken and not served any more: %s", queue, what)
                if self._inband and not self.vrings[queue].has_error:
                    self.back_channel.send_error(queue)
            elif kind == "bad-chain":
                log.warning("vring %d: a request came back empty, its chain had %s", queue, what)
            elif kind == "thread-failed":
                self.channel.fail(DeviceError(f"a thread cannot serve: {what}"))
            else:
                log.warning("%s more events of vrings", what)
        self.device.signal_errors()
        if self.device.memory_gone:
            self._memory_gone()
        if self.device.load_is_due():
            self.placement.look()
        self.back_channel.send_lost_calls()
        self.waiter.heard()

    def _memory_gone(self) -> None:
        self.channel.fail(ProtocolError("guest memory is gone: its file was truncated"))

    # The end.

    async def close(self) -> bool:
        """Ends the device. False where requests hang so that it cannot be freed."""
        for vring in self.vrings:
            self.device.run_queue(vring.index, False)
        self.device.stop()
        self.waiter.timeout = min(CLOSE_SECONDS, self.options.drain_timeout)
        self.waiter.peer_has_left = lambda: False  # whom nobody answers any more anyway
        try:
            await self.waiter.until(lambda: self._ended, "ending the device")
        except DrainTimeoutError as error:
            log.error("%s", error)
        finally:
            asyncio.get_running_loop().remove_reader(self.device.event_fd)
            self.back_channel.close()
        if not self.free() and self.freeing is not None:
            await asyncio.wait([self.freeing], timeout=self.waiter.timeout)
        return self.free()

    def free(self) -> bool:
        """Has a closed device freed, in a thread, as its last files may hang in being closed. Whether that is done.

        Not while requests still hang: what their threads use must stay.
        """
        if self.freeing is None and self._ended:
            with contextlib.suppress(OSError):
                self.freeing = in_background(self.device.close)
        return self.freeing is not None and self.freeing.done()

    @property
    def _ended(self) -> bool:
        return self.device.stopped and (self.ending_session is None or self.ending_session.done())

    async def _end_session(self) -> None:
        """In a thread, as closing many files takes long; close() waits for it too, whatever comes in between."""
        ended = self.ending_session = in_background(self.device.end_session)
        ended.add_done_callback(lambda _: self.waiter.heard())
        await self.waiter.until(ended.done, "ending the session")

    # Features.

    async def get_features(self, message: Message) -> bytes:
        return u64(FEATURES)

    async def set_features(self, message: Message) -> None:
        """Without PROTOCOL_FEATURES among them all rings are enabled at once (vhost-user, "Ring states")."""
        features = int.from_bytes(message.payload, sys.byteorder)
        if features & ~FEATURES:
            raise ProtocolError(f"features {features & ~FEATURES:#x} were not offered")
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
        """All vrings, that of the hiprio queue too."""
        return u64(self.queue_count)

    async def get_max_mem_slots(self, message: Message) -> bytes:
        return u64(SLOTS_MAX)

    async def get_status(self, message: Message) -> bytes:
        """What was set last: nothing is made to depend on it, as QEMU never sets DRIVER_OK."""
        return u64(self.status)

    async def set_status(self, message: Message) -> None:
        self.status = int.from_bytes(message.payload, sys.byteorder) & 0xFF

    async def get_config(self, message: Message) -> bytes:
        """struct virtio_fs_config (virtio 1.3, 5.11.4) in part; empty where it has not those bytes."""
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
        if [self._kind(fd) for fd in message.fds] != ["socket"]:
            raise ProtocolError("it comes with one socket")
        self.back_channel.open(message.take_fd())
        for vring in self.vrings:
            if vring.started and not vring.has_call:
                if not self._inband:
                    vring.set_call(-1)  # nor by the old one, which nobody looks after any more
                self._find_call(vring)

    def _kind(self, fd: int) -> str:
        """What can be done with a descriptor of the front-end's: "eventfd", "socket", or "neither"."""
        name = os.readlink(str(fd), dir_fd=self.proc_fd)  # which asks no file system, as fstat does
        if name == "anon_inode:[eventfd]":
            return "eventfd"
        return "socket" if name.startswith("socket:") and is_local(fd) else "neither"

    # Memory.

    async def set_mem_table(self, message: Message) -> None:
        """All of guest memory, replaced; answered when nothing that is in flight uses what is gone."""
        count = abi.MEMORY_HEADER.unpack(message.payload).count
        if len(message.payload) != abi.MEMORY_HEADER.size + count * abi.MEMORY_REGION.size:
            raise ProtocolError(f"it has {len(message.payload)} bytes for {count} regions")
        if len(message.fds) != count:
            raise ProtocolError(f"it has {len(message.fds)} descriptors for {count} regions")
        regions = [region_at(message.payload, abi.MEMORY_HEADER.size + i * abi.MEMORY_REGION.size)
                   for i in range(count)]
        await self.memory.replace(list(zip(regions, message.fds, strict=True)))

    async def add_mem_reg(self, message: Message) -> None:
        """One region more, in a slot of its own."""
        if not message.fds:
            raise ProtocolError("it has no descriptor")
        await self.memory.add(region_at(message.payload, SINGLE_REGION_AT), message.fds[0])

    async def rem_mem_reg(self, message: Message) -> None:
        """One region less; answered when nothing that is in flight uses it."""
        await self.memory.remove(region_at(message.payload, SINGLE_REGION_AT))

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
        """Stops the ring; answered with the next available index, when nothing is in flight."""
        state = abi.VRING_STATE.unpack(message.payload)
        return abi.VRING_STATE.pack(index=state.index, num=await self._vring(state.index).stop())

    async def set_vring_enable(self, message: Message) -> None:
        """A disabled ring keeps its requests."""
        state = abi.VRING_STATE.unpack(message.payload)
        if state.num > 1:
            raise ProtocolError(f"vring {state.index} is to be {state.num}, neither enabled nor disabled")
        self._vring(state.index).enable(state.num == 1)

    def _vring_fd(self, message: Message, *kinds: str) -> tuple[Vring, str]:
        """The vring of KICK, CALL or ERR, and the kind of its descriptor; "" where the message says there is none."""
        word = int.from_bytes(message.payload, sys.byteorder)
        vring = self._vring(word & abi.VHOST_USER_VRING_INDEX_MASK)
        if bool(word & abi.VHOST_USER_VRING_NOFD_MASK) == bool(message.fds):
            raise ProtocolError(f"{vring}: it has {len(message.fds)} descriptors and says otherwise")
        if not message.fds:
            return vring, ""
        kind = self._kind(message.fds[0])
        if kind not in kinds:
            raise ProtocolError(f"{vring}: its descriptor is no {' or '.join(kinds)}")
        return vring, kind

    async def set_vring_kick(self, message: Message) -> None:
        """Starts the ring; without a descriptor it is polled."""
        vring, _ = self._vring_fd(message, "eventfd")
        self._find_call(vring)
        vring.start(message.take_fd())

    async def set_vring_call(self, message: Message) -> None:
        # A socket is what User-Mode Linux signals itself by.
        vring, kind = self._vring_fd(message, "eventfd", "socket")
        if kind:
            vring.set_call(message.take_fd(), kind)
        else:
            vring.set_call(-1)
            self._find_call(vring)

    async def set_vring_err(self, message: Message) -> None:
        vring, kind = self._vring_fd(message, "eventfd")
        vring.set_error(message.take_fd() if kind else -1)

    async def vring_kick(self, message: Message) -> None:
        """A kick in-band, which starts the ring too."""
        vring = self._vring(abi.VRING_STATE.unpack(message.payload).index)
        if not vring.started:
            self._find_call(vring)
            vring.start(-1, inband=True)
        self.device.kick(vring.index)

    @property
    def _inband(self) -> bool:
        """Whether what concerns a ring without a descriptor for it travels as messages to the front-end."""
        return bool(self.back_channel) and bool(
            self.protocol_features & abi.VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS)

    def _find_call(self, vring: Vring) -> None:
        """A ring without a descriptor to signal the driver by does it in-band, if that is agreed on: else it polls."""
        if self._inband and not vring.has_call:
            self.device.set_call(vring.index, self.back_channel.descriptor(), "message")

    async def reset_device(self, message: Message) -> None:
        """Everything as after the connection, but for memory, features and the session with the front-end."""
        for vring in self.vrings:
            vring.enable(False)
            await vring.stop()
        await self._end_session()
        self.status = 0

    async def reset_owner(self, message: Message) -> None:
        """Deprecated: the rings are disabled, and nothing else."""
        for vring in self.vrings:
            vring.enable(False)


def u64(value: int) -> bytes:
    """8 bytes in host order, the payload of most messages."""
    return value.to_bytes(U64, sys.byteorder)


def region_at(payload: bytes, offset: int) -> Region:
    """The memory region in a message."""
    region = abi.MEMORY_REGION.unpack(payload, offset)
    return Region(region.guest_addr, region.size, region.user_addr, region.mmap_offset)


RULES: dict[int, Rule] = {
    FrontRequest.GET_FEATURES: Rule(Backend.get_features, 0, replies=True),
    FrontRequest.SET_FEATURES: Rule(Backend.set_features, U64),
    FrontRequest.SET_OWNER: Rule(Backend.set_owner, 0),
    FrontRequest.RESET_OWNER: Rule(Backend.reset_owner, 0),
    FrontRequest.SET_MEM_TABLE: Rule(Backend.set_mem_table, abi.MEMORY_HEADER.size, more=True, fds=FDS_MAX),
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
    FrontRequest.GET_CONFIG: Rule(Backend.get_config, abi.CONFIG_HEADER.size, more=True,
                                  needs=abi.VHOST_USER_PROTOCOL_F_CONFIG, replies=True),
    FrontRequest.SET_CONFIG: Rule(Backend.set_config, abi.CONFIG_HEADER.size, more=True,
                                  needs=abi.VHOST_USER_PROTOCOL_F_CONFIG),
    FrontRequest.RESET_DEVICE: Rule(Backend.reset_device, 0, needs=abi.VHOST_USER_PROTOCOL_F_RESET_DEVICE),
    FrontRequest.VRING_KICK: Rule(Backend.vring_kick, abi.VRING_STATE.size,
                                  needs=abi.VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS),
    FrontRequest.GET_MAX_MEM_SLOTS: Rule(Backend.get_max_mem_slots, 0,
                                         needs=abi.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS, replies=True),
    FrontRequest.ADD_MEM_REG: Rule(Backend.add_mem_reg, abi.SINGLE_REGION.size, fds=1,
                                   needs=abi.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS),
    FrontRequest.REM_MEM_REG: Rule(Backend.rem_mem_reg, abi.SINGLE_REGION.size, fds=1,
                                   needs=abi.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS),
    FrontRequest.SET_STATUS: Rule(Backend.set_status, U64, needs=abi.VHOST_USER_PROTOCOL_F_STATUS),
    FrontRequest.GET_STATUS: Rule(Backend.get_status, 0, needs=abi.VHOST_USER_PROTOCOL_F_STATUS, replies=True),
}
