"""The shared memory window of the device (shmid 0) as QEMU serves it: what is mapped becomes part of guest memory."""

import mmap
import os
from typing import TYPE_CHECKING

from frontend.memory import Region
from frontend.vhost_user import Message
from virtiofsd import vhost_user_abi as abi
from virtiofsd.vhost_user_abi import BackRequest

if TYPE_CHECKING:
    from frontend.device import VirtioFs


class MappedFile(Region):
    """A file of the back-end's, mapped into the window; a region of guest memory for everyone else."""

    def __init__(self, guest_addr: int, fd: int, offset: int, size: int, writable: bool) -> None:
        self.guest_addr, self.size, self.mmap_offset, self.fd = guest_addr, size, offset, fd
        self.writable, self.backed = writable, size
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self.map = mmap.mmap(fd, size, mmap.MAP_SHARED, access, offset=offset)
        self.host_addr = self.user_addr = guest_addr      # nothing here reads it by address


class ShmemWindow:
    """Answers 0 or 1; overlaps, partial unmaps, ranges past the file's end and files not open for writing are refused.

    As QEMU does, it sends the changed memory to the back-end after it has answered.
    """

    def __init__(self, guest_addr: int = 1 << 40, size: int = 1 << 30, announce: bool = True) -> None:
        self.guest_addr, self.size, self.announce = guest_addr, size, announce
        self.sizes: list[int] = []
        self.regions: list[MappedFile] = []
        self.refused = 0
        self._device: VirtioFs | None = None

    def attach(self, device: "VirtioFs") -> None:
        if device.channel is None:
            raise ValueError("the window needs the back-end's channel")
        self._device = device
        device.channel.handlers[BackRequest.SHMEM_MAP] = self._map
        device.channel.handlers[BackRequest.SHMEM_UNMAP] = self._unmap

    def close(self) -> None:
        for region in self.regions:
            region.close()
        self.regions.clear()

    def read(self, offset: int, length: int) -> bytes:
        """What the guest reads through the window; ranges without a mapping are zeros."""
        data = bytearray(length)
        for region in self.regions:
            start = region.guest_addr - self.guest_addr
            low, high = max(start, offset), min(start + region.size, offset + length)
            if low < high:
                data[low - offset:high - offset] = region.map[low - start:high - start]
        return bytes(data)

    def write(self, offset: int, data: bytes) -> None:
        """What the guest writes through the window. Raises ValueError outside one writable mapping."""
        for region in self.regions:
            start = region.guest_addr - self.guest_addr
            if start <= offset and offset + len(data) <= start + region.size and region.writable:
                region.map[offset - start:offset - start + len(data)] = data
                return
        raise ValueError(f"no writable mapping at {offset:#x}")

    def _map(self, message: Message) -> int:
        asked = abi.MMAP.unpack(message.payload)
        page = mmap.PAGESIZE
        length = -(-asked.len // page) * page
        low = self.guest_addr + asked.shm_offset
        good = (asked.shmid == 0 and len(message.fds) == 1 and length and asked.shm_offset + asked.len <= self.size
                and not (asked.shm_offset | asked.fd_offset) % page
                and not any(low < r.guest_addr + r.size and r.guest_addr < low + length for r in self.regions)
                and os.fstat(message.fds[0]).st_size >= asked.fd_offset + length)
        if not good:
            self.refused += 1
            return 1
        try:
            region = MappedFile(low, message.fds[0], asked.fd_offset, length,
                                bool(asked.flags & abi.VHOST_USER_SHMEM_F_MAP_RW))
        except OSError:
            self.refused += 1
            return 1
        message.fds.clear()
        self.regions.append(region)
        self._tell(region, True)
        return 0

    def _unmap(self, message: Message) -> int:
        asked = abi.MMAP.unpack(message.payload)
        for region in self.regions:
            if region.guest_addr == self.guest_addr + asked.shm_offset and region.size == asked.len:
                self.regions.remove(region)
                self._tell(region, False)
                return 0
        self.refused += 1
        return 1

    def _tell(self, region: MappedFile, added: bool) -> None:
        device = self._device
        if device is None or device.channel is None:
            return

        def commit() -> None:
            if self.announce:
                if not device.has("CONFIGURE_MEM_SLOTS"):
                    device.connection.set_mem_table([*device.memory.regions, *self.regions])
                else:
                    device.announce(region, added)
            if not added:
                region.close()

        device.channel.after.append(commit)
