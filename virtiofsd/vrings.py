"""The state of each vring as the front-end sets it up: started or not, enabled or not, independent of each other."""

import os
import stat

from virtiofsd._ring.device import Device
from virtiofsd.channel import ProtocolError
from virtiofsd.virtio_abi import VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC, VIRTIO_QUEUE_SIZE_MAX
from virtiofsd.waiting import Waiter


class Vring:
    """One vring. The data plane serves it while it is started and enabled (vhost-user, "Ring states")."""

    def __init__(self, device: Device, waiter: Waiter, index: int) -> None:
        self.device, self.waiter, self.index = device, waiter, index
        self.features = 0  # acked ones
        self.size = 0
        self.addresses: tuple[int, int, int] | None = None  # desc, avail, used: the front-end's
        self.base = 0
        self.started = False
        self.enabled = False

    def _place(self, base: int | None) -> None:
        if not self.size or self.addresses is None:
            raise ProtocolError(f"vring {self.index} is started before it has a size and addresses")
        try:
            self.device.place_queue(
                self.index, self.size, *self.addresses, base,
                event_idx=bool(self.features & VIRTIO_F_EVENT_IDX),
                indirect=bool(self.features & VIRTIO_F_INDIRECT_DESC))
        except ValueError as error:
            raise ProtocolError(str(error)) from error

    def _run(self) -> None:
        self.device.run_queue(self.index, self.started and self.enabled)

    async def set_size(self, size: int) -> None:
        if not 1 <= size <= VIRTIO_QUEUE_SIZE_MAX or size & (size - 1):
            raise ProtocolError(f"vring {self.index}: a size of {size} is no power of 2 up to {VIRTIO_QUEUE_SIZE_MAX}")
        await self._rest("size")
        self.size = size

    async def set_base(self, base: int) -> None:
        await self._rest("base")
        self.base = base & 0xFFFF

    async def _rest(self, what: str) -> None:
        """A front-end that never asks for the base (User-Mode Linux) disables a ring and then sets it up anew."""
        if self.started and self.enabled:
            raise ProtocolError(f"the {what} of vring {self.index} is set while it runs")
        if self.started:
            await self.stop()

    def set_addresses(self, desc: int, avail: int, used: int) -> None:
        """Also while it runs: the parts go on where they are now."""
        self.addresses = (desc, avail, used)
        if self.started:
            self._place(None)
            self._run()

    def set_kick(self, fd: int, worker: int) -> None:
        """Starts the ring, with its kicks on the descriptor; -1: it is polled."""
        if fd >= 0 and stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ProtocolError(f"vring {self.index}: its kick descriptor is a file, which never wakes anybody")
        try:
            self.device.set_kick(self.index, fd)
        except OSError as error:
            raise ProtocolError(str(error)) from error
        self._start(worker)

    def kick(self, worker: int) -> None:
        """An in-band kick, which starts the ring too."""
        if not self.started:
            self.device.set_kick(self.index, -1, inband=True)
            self._start(worker)
        self.device.kick(self.index)

    def _start(self, worker: int) -> None:
        if not self.started:
            self._place(self.base)
            self.started = True
        try:
            self.device.attach(self.index, worker)
        except OSError as error:
            raise ProtocolError(str(error)) from error
        self._run()

    def enable(self, enabled: bool) -> None:
        self.enabled = enabled
        self._run()

    async def stop(self) -> int:
        """Takes no more requests, waits for those in flight, and returns the next available index."""
        if self.started:
            self.started = False
            self._run()
            await self.waiter.until(lambda: self.device.in_flight(self.index) == 0, f"stopping vring {self.index}")
            self.base = self.device.release_queue(self.index)
            self.device.detach(self.index)
            self.device.set_kick(self.index, -1)
        return self.base
