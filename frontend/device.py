"""A virtio-fs device as its VMM and driver see it: start-up, rings, memory and notifications over one back-end."""

import mmap
import os
import pathlib
import socket
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from frontend.memory import GuestMemory, Region, RegionSpec
from frontend.profiles import PROFILES, QEMU, Profile
from frontend.shmem import ShmemWindow
from frontend.vhost_user import BackendChannel, ClosedError, Connection, ProtocolError, readable
from frontend.virtqueue import Virtqueue
from virtiofsd import vhost_user_abi as abi
from virtiofsd import virtio_abi as virtio

HIPRIO = 0
REQUEST = 1
EVENTFD, POLLING = "eventfd", "polling"


class VirtioFs:
    """The device, started unless `start` is False. Queue 0 is hiprio, 1 and up are request queues.

    `protocol_features` None takes what the profile takes; a mask narrows it. `driver_queues` is how many queues the
    driver sets up of those that exist. `notify` POLLING gives the back-end no descriptors, so that both sides poll.
    `shmem` is a window for SHMEM_MAP, served as QEMU serves it.
    """

    def __init__(self, back_end: str | pathlib.Path | socket.socket, *, memory_mib: int = 64, num_queues: int = 1,
                 queue_size: int = 128, event_idx: bool = True, indirect: bool = True, packed: bool = False,
                 profile: str | Profile = QEMU, protocol_features: int | None = None, extra_features: int = 0,
                 memory: GuestMemory | Sequence[RegionSpec] | None = None, driver_queues: int | None = None,
                 notify: str = EVENTFD, shmem: ShmemWindow | None = None, start: bool = True,
                 timeout: float = 10.0) -> None:
        self.profile = PROFILES[profile] if isinstance(profile, str) else profile
        self.timeout, self.notify, self.shmem = timeout, notify, shmem
        self.max_queues = num_queues + 1
        self.wanted_protocol = self.profile.protocol_features
        if protocol_features is not None:
            self.wanted_protocol &= protocol_features
        self.wanted_features = (virtio.VIRTIO_F_VERSION_1 | extra_features
                                | (virtio.VIRTIO_F_EVENT_IDX if event_idx else 0)
                                | (virtio.VIRTIO_F_INDIRECT_DESC if indirect else 0)
                                | (virtio.VIRTIO_F_RING_PACKED if packed else 0))
        self.offered_features = self.features = self.offered_protocol = 0
        self.max_mem_slots = self.status = 0
        self.config = b""
        self.keep: list[socket.socket] = []
        self.inflight: tuple[int, int, int] | None = None
        self.log: mmap.mmap | None = None
        self.memory = self._memory(memory, memory_mib)
        self.channel: BackendChannel | None = None
        self.queues = [Virtqueue(self.memory, queue_size, packed=packed, event_idx=event_idx, indirect=indirect)
                       for _ in range(self.max_queues)]
        self.configured = list(range(self.max_queues if driver_queues is None else driver_queues + 1))
        self.bases = [queue.base for queue in self.queues]
        self.err_fds = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in self.queues]
        self.connection: Connection
        try:
            self._connect(back_end)
            if start:
                self.negotiate()
                self.start()
        except BaseException:
            self.close()
            raise

    def _memory(self, memory: GuestMemory | Sequence[RegionSpec] | None, mib: int) -> GuestMemory:
        if isinstance(memory, GuestMemory):
            return memory
        return GuestMemory(memory or [RegionSpec(0, mib << 20, self.profile.user_addr)])

    def _connect(self, back_end: str | pathlib.Path | socket.socket) -> None:
        if isinstance(back_end, socket.socket):
            self.connection = Connection(back_end, self.timeout)
        else:
            self.connection = Connection.connect(back_end, self.timeout)
        self.announced: list[Region] = []
        self.connection.acknowledged = self.profile.acknowledged

    def close(self) -> None:
        """Closes everything; the back-end sees the connection end."""
        if hasattr(self, "connection"):
            self.connection.close()
        if self.channel:
            self.channel.close()
        for queue in self.queues:
            queue.close()
        for sock in self.keep:
            sock.close()
        for fd in self.err_fds:
            os.close(fd)
        self.err_fds.clear()
        if self.inflight:
            os.close(self.inflight[2])
            self.inflight = None
        if self.shmem:
            self.shmem.close()
        if self.log:
            self.log.close()
        self.memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    # The life of the device, in the profile's order

    def negotiate(self) -> None:
        """Features, protocol features and what else the profile does before the driver is ready."""
        self.profile.negotiate(self)

    def start(self) -> None:
        """Memory and rings, in the profile's order."""
        self.profile.start(self)

    def stop(self) -> None:
        """Stops the rings as the VMM does when the guest pauses; start() goes on where they stopped."""
        self.profile.stop(self)

    def reset(self) -> None:
        """The guest resets the device: rings stopped and emptied, RESET_DEVICE where negotiated."""
        self.stop()
        if self.has("RESET_DEVICE"):
            self.connection.reset_device()
        for index in self.configured:
            self.queues[index].reset()
            self.bases[index] = self.queues[index].base

    def reconnect(self, back_end: str | pathlib.Path | socket.socket, state: bytes | None = None,
                  bases: Sequence[int] | None = None) -> None:
        """A new connection, to a back-end that was restarted or migrated to: memory and rings are what they were.

        `state` is given to it before the start. `bases` is where the rings go on, if not where stop() left them:
        lost_bases() after a back-end that went away.
        """
        self.connection.close()
        if self.channel:
            self.channel.close()
            self.channel = None
        if bases is not None:
            self.bases = list(bases)
        self._connect(back_end)
        self.negotiate()
        if state is not None:
            self.load_state(state)
        self.start()

    def lost_bases(self) -> list[int]:
        """The bases of split rings whose back-end went away: all that was available counts as taken.

        With an in-flight buffer the back-end finds out what of it was not returned; without one that is lost.
        """
        return [queue.avail_idx for queue in self.queues]

    # Steps

    def has(self, name: str) -> bool:
        """Whether a protocol feature is negotiated, by name."""
        return bool(self.connection.protocol_features & getattr(abi, f"VHOST_USER_PROTOCOL_F_{name}"))

    def get_features(self) -> None:
        """Notes what the back-end offers. ProtocolError where VERSION_1 is not among it."""
        self.offered_features = self.connection.get_features()
        if not self.offered_features & virtio.VIRTIO_F_VERSION_1:
            raise ProtocolError(f"the back-end offers no VERSION_1: {self.offered_features:#x}")

    def negotiate_protocol(self) -> None:
        """Takes of the protocol features offered those that are wanted."""
        if not self.offered_features & abi.VHOST_USER_F_PROTOCOL_FEATURES:
            return
        self.offered_protocol = self.connection.get_protocol_features()
        self.connection.set_protocol_features(self.offered_protocol & self.wanted_protocol)

    def set_features(self, extra: int = 0) -> None:
        """Raises ProtocolError where the back-end lacks what the rings here are made with."""
        missing = self.wanted_features & ~self.offered_features
        if missing:
            raise ProtocolError(f"the back-end does not offer the features {missing:#x}")
        self.features = self.wanted_features | extra | (self.offered_features & abi.VHOST_USER_F_PROTOCOL_FEATURES)
        self.connection.set_features(self.features)

    def check_queue_num(self) -> None:
        """Raises ProtocolError where the back-end has fewer queues than this device."""
        most = self.connection.get_queue_num() if self.has("MQ") else 2
        if most < self.max_queues:
            raise ProtocolError(f"the back-end has {most} queues, the device {self.max_queues}")

    def offer_channel(self) -> None:
        """SET_BACKEND_REQ_FD, where BACKEND_REQ is negotiated."""
        if self.has("BACKEND_REQ"):
            self.channel = BackendChannel(self.timeout)
            if self.shmem:
                self.shmem.attach(self)
            self.channel.offer(self.connection)

    def read_config(self, size: int, flags: int = 0) -> bytes:
        """The first `size` bytes of the configuration space, which are kept in `config`."""
        self.config = self.connection.get_config(0, size, flags)
        return self.config

    @property
    def tag(self) -> str:
        """The tag in the configuration that was read."""
        return self.config[:virtio.VIRTIO_FS_TAG_SIZE].rstrip(b"\0").decode()

    def set_memory(self, slots: bool = False) -> None:
        """The whole memory: one table, or, region by region, what the back-end does not know yet."""
        if not slots:
            self.connection.set_mem_table(self._table())
            return
        for region in self._table():
            if region not in self.announced:
                self.announce(region, True)

    def announce(self, region: Region, added: bool) -> None:
        """ADD_MEM_REG or REM_MEM_REG."""
        if added:
            self.connection.add_mem_reg(region)
            self.announced.append(region)
        else:
            self.connection.rem_mem_reg(region)
            self.announced.remove(region)

    def _table(self) -> list[Region]:
        return self.memory.regions + (list(self.shmem.regions) if self.shmem else [])

    def add_memory(self, spec: RegionSpec) -> Region:
        """Hot-plugs a region."""
        region = self.memory.add(spec)
        if self.has("CONFIGURE_MEM_SLOTS"):
            self.announce(region, True)
        else:
            self.connection.set_mem_table(self._table())
        return region

    def remove_memory(self, region: Region) -> None:
        """Unplugs it: told to the back-end first, unmapped here after the answer."""
        if self.has("CONFIGURE_MEM_SLOTS"):
            self.announce(region, False)
        else:
            self.connection.set_mem_table([other for other in self._table() if other is not region])
        self.memory.remove(region)

    def ring_num(self, index: int) -> None:
        self.connection.set_vring_num(index, self.queues[index].size)

    def ring_base(self, index: int) -> None:
        self.connection.set_vring_base(index, self.bases[index])

    def ring_addr(self, index: int, *, log: int = 0, flags: int = 0) -> None:
        """SET_VRING_ADDR with the parts' user addresses."""
        queue = self.queues[index]
        self.connection.set_vring_addr(
            index, self.memory.user(queue.desc_gpa), self.memory.user(queue.avail_gpa),
            self.memory.user(queue.used_gpa), log=log, flags=flags)

    def ring_call(self, index: int) -> None:
        self.connection.set_vring_call(index, None if self.notify == POLLING else self.queues[index].call_fd)

    def ring_err(self, index: int) -> None:
        self.connection.set_vring_err(index, self.err_fds[index])

    def ring_kick(self, index: int) -> None:
        """SET_VRING_KICK: starts the ring."""
        self.connection.set_vring_kick(index, None if self.notify == POLLING else self.queues[index].kick_fd)

    def ring_enable(self, index: int, enable: bool) -> None:
        self.connection.set_vring_enable(index, enable)

    def ring_stop(self, index: int, timeout: float | None = None) -> int:
        """GET_VRING_BASE; the ring starts again from there."""
        self.bases[index] = self.connection.get_vring_base(index, timeout)
        return self.bases[index]

    def use_inband(self, index: int) -> None:
        """Kicks and calls of this ring travel in the sockets."""
        queue = self.queues[index]
        queue.call_fd = -1
        queue.on_kick = lambda: self.connection.vring_kick(index)

    def share_inflight(self) -> None:
        """Fetches the in-flight buffer once, and hands it (back) to the back-end."""
        size = self.queues[0].size
        if not self.inflight:
            length, offset, fd = self.connection.get_inflight_fd(self.max_queues, size)
            if fd is None:
                return
            self.inflight = length, offset, fd
        length, offset, fd = self.inflight
        self.connection.set_inflight_fd(length, offset, self.max_queues, size, fd)

    # Dirty log, in QEMU's order at the start of a migration

    def start_log(self) -> None:
        """Has the back-end log what it writes; `log` is the bitmap, a bit for 4 KiB."""
        pages = max(region.end for region in self.memory.regions) // 4096
        size = -(-pages // 8 // mmap.PAGESIZE) * mmap.PAGESIZE or mmap.PAGESIZE
        fd = os.memfd_create("dirty-log", os.MFD_CLOEXEC)
        os.ftruncate(fd, size)
        self.log = mmap.mmap(fd, size)
        self.connection.set_log_base(fd, size).close()
        os.close(fd)
        self.set_features(abi.VHOST_F_LOG_ALL)
        for index in self.configured:
            self.ring_addr(index, log=self.queues[index].used_gpa, flags=abi.VHOST_USER_VRING_ADDR_F_LOG)

    def stop_log(self) -> None:
        self.set_features()
        for index in self.configured:
            self.ring_addr(index)

    def dirty_pages(self) -> set[int]:
        """Numbers of the 4 KiB pages marked since the last call."""
        if self.log is None:
            raise ValueError("no dirty log was started")
        found = {8 * i + bit for i, byte in enumerate(self.log[:]) if byte for bit in range(8) if byte >> bit & 1}
        self.log[:] = bytes(len(self.log))
        return found

    # Device state, as QEMU moves it

    def save_state(self) -> bytes:
        """What the back-end writes for a migration; the rings must be stopped."""
        reader, writer = os.pipe()
        try:
            other = self.connection.set_device_state_fd(abi.VHOST_USER_DEVICE_STATE_SAVE, writer)
        finally:
            os.close(writer)
        if other is not None:
            os.close(reader)
            reader = other
        with os.fdopen(reader, "rb") as pipe:
            state = pipe.read()
        if self.connection.check_device_state():
            raise ProtocolError("the back-end could not save its state")
        return state

    def load_state(self, state: bytes) -> None:
        """Gives a saved state back, before start()."""
        reader, writer = os.pipe()
        try:
            other = self.connection.set_device_state_fd(abi.VHOST_USER_DEVICE_STATE_LOAD, reader)
        finally:
            os.close(reader)
        if other is not None:
            os.close(writer)
            writer = other
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(state)
        if self.connection.check_device_state():
            raise ProtocolError("the back-end could not load the state")

    # Requests

    def kick(self, index: int, force: bool = False) -> bool:
        return self.queues[index].kick(force)

    def wait(self, index: int, timeout: float | None = None) -> list[tuple[int, int]]:
        """Returned chains of a queue, after waiting where there are none; empty when the time is over.

        Serves the back-end's channel meanwhile. Raises ClosedError as soon as the back-end closes the connection.
        """
        queue = self.queues[index]
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        watched = [self.connection.socket.fileno()]
        if self.channel:
            watched.append(self.channel.socket.fileno())
        if queue.call_fd >= 0 and self.notify != POLLING:
            watched.append(queue.call_fd)
        while True:
            found = queue.poll()
            left = deadline - time.monotonic()
            if found or left <= 0:
                queue.disarm()
                return found
            if self.notify == POLLING:
                left = min(left, 0.0001)
            elif not queue.arm():
                continue
            ready = readable(watched, left)
            if queue.call_fd in ready:
                queue.take_call(0)
            if self.channel and self.channel.socket.fileno() in ready:
                self.channel.serve()
            if watched[0] in ready:
                self._lost()

    def _lost(self) -> None:
        if self.connection.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
            raise ProtocolError("the back-end sent a message that nobody asked for")
        raise ClosedError("the back-end closed the connection")

    def error_signalled(self, index: int) -> bool:
        """Whether the back-end has signalled an error of the ring since the last call."""
        if self.channel and self.channel.errors.pop(index, 0):
            return True
        try:
            return bool(os.eventfd_read(self.err_fds[index]))
        except BlockingIOError:
            return False
