"""The memory regions of the front-end, mapped into the data plane and taken out of it while queues run."""

import contextlib
import os
from collections.abc import Sequence
from typing import NamedTuple

from virtiofsd._ring.device import Device
from virtiofsd.channel import ProtocolError
from virtiofsd.vrings import Vring
from virtiofsd.waiting import Waiter

SLOTS_MAX = 32768  # half of what a process may map by default (vm.max_map_count)


class Region(NamedTuple):
    """As the front-end describes it; addresses and sizes in bytes."""

    guest_addr: int
    size: int
    user_addr: int
    offset: int

    def __str__(self) -> str:
        return f"{self.size:#x} bytes at guest address {self.guest_addr:#x}"


class Slot(NamedTuple):
    """A region that is mapped."""

    number: int  # the data plane's name for it
    file: tuple[int, int]  # device and inode of what is mapped


def identity(fd: int) -> tuple[int, int]:
    """By which a file is known again, whatever descriptor it comes with."""
    info = os.fstat(fd)
    return info.st_dev, info.st_ino


class GuestMemory:
    """The current table. A change is complete when its method returns: what is gone is used by no request any more."""

    def __init__(self, device: Device, waiter: Waiter, vrings: Sequence[Vring]) -> None:
        self.device, self.waiter, self.vrings = device, waiter, vrings
        self.slots: dict[Region, Slot] = {}

    def _map(self, region: Region, fd: int) -> Slot:
        try:
            number = self.device.add_region(region.guest_addr, region.size, region.user_addr, region.offset, fd)
        except OSError as error:
            raise ProtocolError(str(error)) from error
        return Slot(number, identity(fd))

    async def _use(self, slots: dict[Region, Slot]) -> None:
        """Makes these the table; rings that it has no place for rest until another one has."""
        ranges = [(region.user_addr, region.size) for region in slots]
        for vring in self.vrings:
            await vring.leave_memory(ranges)
        lost: list[int] = []
        try:
            lost = self.device.use_regions([slot.number for slot in slots.values()])
            self.slots = slots
        except OSError as error:
            raise ProtocolError(str(error)) from error
        finally:
            for vring in self.vrings:
                vring.find_memory(vring.index in lost)

    async def _discard(self, region: Region, slot: Slot) -> None:
        await self.waiter.until(lambda: not self.device.region_busy(slot.number), f"removing memory, {region}")
        self.device.remove_region(slot.number)

    async def replace(self, regions: list[tuple[Region, int]]) -> None:
        """SET_MEM_TABLE: this and nothing else, from now on. What stays the same stays mapped."""
        if len({region for region, _ in regions}) < len(regions):
            raise ProtocolError("the memory table has the same region twice")
        old, new = self.slots, dict[Region, Slot]()
        with contextlib.ExitStack() as undo:
            for region, fd in regions:
                slot = old.get(region)
                if slot is None or slot.file != identity(fd):
                    slot = self._map(region, fd)
                    undo.callback(self.device.remove_region, slot.number)
                new[region] = slot
            await self._use(new)
            undo.pop_all()
        for region, slot in old.items():
            if new.get(region) != slot:
                await self._discard(region, slot)

    async def add(self, region: Region, fd: int) -> None:
        """ADD_MEM_REG."""
        if region in self.slots:
            raise ProtocolError(f"there is a region of {region} already")
        if len(self.slots) >= SLOTS_MAX:
            raise ProtocolError(f"there are {SLOTS_MAX} memory regions, and no slot for another")
        slot = self._map(region, fd)
        try:
            await self._use({**self.slots, region: slot})
        except ProtocolError:
            self.device.remove_region(slot.number)
            raise

    async def remove(self, region: Region) -> None:
        """REM_MEM_REG: the offset does not matter, front-ends leave it out."""
        known = next((known for known in self.slots if known[:3] == region[:3]), None)
        if known is None:
            raise ProtocolError(f"there is no region of {region}")
        slot = self.slots[known]
        await self._use({other: held for other, held in self.slots.items() if other != known})
        await self._discard(known, slot)
