"""The state of each vring as the front-end sets it up: started or not, enabled or not, independent of each other."""

import logging
from collections.abc import Iterable

from virtiofsd._ring.device import Device
from virtiofsd.channel import ProtocolError
from virtiofsd.placement import Placement
from virtiofsd.virtio_abi import (
    DESC,
    USED_ELEM,
    VIRTIO_F_EVENT_IDX,
    VIRTIO_F_INDIRECT_DESC,
    VIRTIO_QUEUE_SIZE_MAX,
)
from virtiofsd.waiting import Waiter

log = logging.getLogger(__name__)

RING_HEADER = 6  # of the available and the used ring: flags, index, and the event index behind the entries
AVAIL_ELEM = 2


class Vring:
    """One vring. The data plane serves it while it is started and enabled (vhost-user, "Ring states").

    `placed`: the data plane has found it in guest memory. A started ring rests while it is not, since front-ends that
    change their memory piece by piece take a region away and give its parts back one by one.
    """

    def __init__(self, device: Device, placement: Placement, waiter: Waiter, index: int) -> None:
        self.device, self.placement, self.waiter, self.index = device, placement, waiter, index
        self.features = 0  # acked ones
        self.size = 0
        self.addresses: tuple[int, int, int] | None = None  # desc, avail, used: the front-end's
        self.base = 0
        self.started = False
        self.enabled = False
        self.placed = False
        self.has_call = False  # a descriptor of the front-end's to signal the driver by
        self.has_error = False

    def __str__(self) -> str:
        return f"vring {self.index}"

    def _serve(self) -> None:
        self.device.run_queue(self.index, self.started and self.enabled and self.placed)

    def _place(self, base: int | None) -> None:
        """Tells the data plane where the ring is, and the next available index (None: as it was).

        ProtocolError: it stays where it was.
        """
        if not self.size or self.addresses is None:
            raise ProtocolError(f"{self} has no size or no addresses yet")
        try:
            self.device.place_queue(
                self.index, self.size, *self.addresses, base,
                event_idx=bool(self.features & VIRTIO_F_EVENT_IDX),
                indirect=bool(self.features & VIRTIO_F_INDIRECT_DESC))
        except ValueError as error:
            raise ProtocolError(str(error)) from error
        self.placed = True

    # Set-up, in any order.

    async def set_size(self, size: int) -> None:
        """Descriptors, a power of 2 up to 32768. ProtocolError."""
        if not 1 <= size <= VIRTIO_QUEUE_SIZE_MAX or size & (size - 1):
            raise ProtocolError(f"{self}: a size of {size} is no power of 2 up to {VIRTIO_QUEUE_SIZE_MAX}")
        await self._rest("size")
        self.size = size

    async def set_base(self, base: int) -> None:
        """The next available index from which the ring will start. ProtocolError while it runs."""
        await self._rest("base")
        self.base = base & 0xFFFF

    async def _rest(self, what: str) -> None:
        """A front-end that never asks for the base (User-Mode Linux) disables a ring and then sets it up anew."""
        if self.started and self.enabled:
            raise ProtocolError(f"the {what} of {self} is set while it runs")
        await self.stop()

    def set_addresses(self, desc: int, avail: int, used: int) -> None:
        """Also while it runs: the parts go on where they are now. ProtocolError: where they were."""
        before, self.addresses = self.addresses, (desc, avail, used)
        if not self.started:
            return
        try:
            self._place(None)
        except ProtocolError:
            self.addresses = before
            raise
        self._serve()

    def set_call(self, fd: int, kind: str = "eventfd") -> None:
        """Where the driver is signalled; the descriptor becomes the ring's. -1: nowhere, it polls."""
        self.has_call = fd >= 0
        self.device.set_call(self.index, fd, kind)

    def set_error(self, fd: int) -> None:
        """The eventfd that says that the ring is broken, which becomes the ring's; -1: none."""
        self.has_error = fd >= 0
        self.device.set_error(self.index, fd)

    # Running.

    def start(self, kick_fd: int, *, inband: bool = False) -> None:
        """Starts it, with its kicks on the descriptor, which becomes the ring's; -1: in-band, or else it is polled.

        A ring that has been started only gets the descriptor.
        """
        self.device.set_kick(self.index, kick_fd, inband=inband)
        if self.started:
            return
        try:
            self._place(self.base)
            self.placement.add(self.index)
            if not self.device.files_most:
                log.warning("%s: with so many queues the limit of open files (--rlimit-nofile) leaves the guest none",
                            self)
        except (ProtocolError, OSError):
            self._leave()
            raise
        self.started = True
        self._serve()

    def enable(self, enabled: bool) -> None:
        """Lets it be served once it is started, or not; what is in flight goes on."""
        self.enabled = enabled
        self._serve()

    async def stop(self) -> int:
        """Takes no more requests, waits for those in flight, and returns the next available index."""
        if self.started:
            self.started = False
            await self._drain("stopping")
            self.base = self._leave()
        return self.base

    async def _drain(self, doing: str) -> None:
        self.device.run_queue(self.index, False)
        await self.waiter.until(self._drained, f"{doing} {self}", self.index)

    def _drained(self) -> bool:
        if self.device.in_flight(self.index) == 0:
            return True
        self.device.cancel_waits(self.index)
        return False

    def _leave(self) -> int:
        """Nothing of the ring is touched any more. Returns the next available index."""
        base = self.device.release_queue(self.index)
        self.placed = False
        self.placement.remove(self.index)
        self.device.set_kick(self.index, -1)
        return base

    # Memory that changes.

    def _lies_in(self, regions: Iterable[tuple[int, int]]) -> bool:
        if self.addresses is None:
            return False
        sizes = (self.size * DESC.size, RING_HEADER + self.size * AVAIL_ELEM, RING_HEADER + self.size * USED_ELEM.size)
        return all(any(start <= address and address + size <= start + length for start, length in regions)
                   for address, size in zip(self.addresses, sizes, strict=True))

    async def leave_memory(self, regions: Iterable[tuple[int, int]]) -> None:
        """Has the ring rest, with nothing in flight, where it is not in the regions (user address, size) to come."""
        if self.placed and not self._lies_in(regions):
            await self._drain("resting")

    def find_memory(self, lost: bool) -> None:
        """The memory has changed. `lost`: the data plane has not found the ring in it."""
        if not self.started:
            return
        if self.placed:
            if lost:
                self.placed = False
                log.info("%s rests: the memory that it is in was taken away", self)
        else:
            try:
                self._place(None)
            except ProtocolError:
                return
            log.info("%s goes on: its memory is back", self)
        self._serve()
