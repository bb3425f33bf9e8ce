"""The guest's memory: regions of shared memory files at any guest addresses, and a page allocator over them."""

import bisect
import ctypes
import mmap
import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

PAGE = mmap.PAGESIZE


@dataclass(frozen=True)
class RegionSpec:
    """Where a region lies.

    `user_addr` None is the address of its mapping here, as QEMU does; "gpa" is the guest address, as UML.
    `allocatable` False keeps the allocator away from it: a region for what a test places by hand.
    """

    guest_addr: int
    size: int
    user_addr: int | str | None = None
    mmap_offset: int = 0
    allocatable: bool = True


class Region:
    """One region: its memory file, its mapping in this process, and its addresses on the wire."""

    def __init__(self, spec: RegionSpec) -> None:
        if spec.size <= 0 or spec.size % PAGE or spec.mmap_offset % PAGE:
            raise ValueError(f"region at {spec.guest_addr:#x}: size and offset must be whole pages")
        self.guest_addr, self.size, self.mmap_offset = spec.guest_addr, spec.size, spec.mmap_offset
        self.fd = os.memfd_create("guest-memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, spec.mmap_offset + spec.size)
        self.map = mmap.mmap(self.fd, spec.size, offset=spec.mmap_offset)
        self.host_addr = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.user_addr: int
        if isinstance(spec.user_addr, int):
            self.user_addr = spec.user_addr
        else:
            self.user_addr = spec.guest_addr if spec.user_addr == "gpa" else self.host_addr
        self.backed = spec.size

    @property
    def end(self) -> int:
        """The first guest address behind it."""
        return self.guest_addr + self.size

    def truncate(self, size: int) -> None:
        """Cuts the memory file down to the region's first `size` bytes; the mappings stay, and fault past it."""
        os.ftruncate(self.fd, self.mmap_offset + size)
        self.backed = size

    def close(self) -> None:
        self.map.close()
        os.close(self.fd)


class GuestMemory:
    """Regions sorted by guest address; reads and writes by guest address, across adjacent regions too."""

    def __init__(self, specs: Iterable[RegionSpec], seed: int = 0) -> None:
        self.regions: list[Region] = []
        self._random = random.Random(seed)
        self._free: list[tuple[int, int]] = []      # sorted, disjoint (start, end); never across two regions
        self._taken: dict[int, int] = {}            # address: length
        self._unallocatable: set[int] = set()
        for spec in specs:
            self.add(spec)

    @classmethod
    def simple(cls, mib: int, guest_addr: int = 0) -> Self:
        """One region."""
        return cls([RegionSpec(guest_addr, mib << 20)])

    @classmethod
    def pc(cls, mib: int, hole: int = 64 << 20) -> Self:
        """Two regions as a PC has them, below and above a hole."""
        low = (mib << 20) // 2
        return cls([RegionSpec(0, low), RegionSpec(low + hole, (mib << 20) - low)])

    def add(self, spec: RegionSpec) -> Region:
        """A further region. Raises ValueError where it would overlap one that exists."""
        for other in self.regions:
            if spec.guest_addr < other.end and other.guest_addr < spec.guest_addr + spec.size:
                raise ValueError(f"region at {spec.guest_addr:#x} overlaps the one at {other.guest_addr:#x}")
        region = Region(spec)
        bisect.insort(self.regions, region, key=lambda r: r.guest_addr)
        if spec.allocatable:
            bisect.insort(self._free, (region.guest_addr, region.end))
        else:
            self._unallocatable.add(region.guest_addr)
        return region

    def remove(self, region: Region) -> None:
        """Takes the region out and unmaps it; what was allocated in it is gone."""
        self.regions.remove(region)
        self._free = [piece for piece in self._free if not region.guest_addr <= piece[0] < region.end]
        self._taken = {a: n for a, n in self._taken.items() if not region.guest_addr <= a < region.end}
        self._unallocatable.discard(region.guest_addr)
        region.close()

    def close(self) -> None:
        for region in self.regions:
            region.close()
        self.regions.clear()
        self._free.clear()
        self._taken.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    # Access

    def region_of(self, gpa: int) -> Region:
        """The region with this address. Raises ValueError in a hole."""
        index = bisect.bisect_right(self.regions, gpa, key=lambda r: r.guest_addr) - 1
        if index < 0 or gpa >= self.regions[index].end:
            raise ValueError(f"no guest memory at {gpa:#x}")
        return self.regions[index]

    def host(self, gpa: int, length: int) -> int:
        """The address in this process of bytes that lie in one region. Raises ValueError where they do not."""
        region = self.region_of(gpa)
        if gpa + length > region.guest_addr + region.backed:
            raise ValueError(f"{length} bytes at {gpa:#x} are not in one region")
        return region.host_addr + gpa - region.guest_addr

    def user(self, gpa: int) -> int:
        """The address that vhost-user messages give for a guest address."""
        region = self.region_of(gpa)
        return region.user_addr + gpa - region.guest_addr

    def _pieces(self, gpa: int, length: int) -> Iterable[tuple[Region, int, int]]:
        while length:
            region = self.region_of(gpa)
            start = gpa - region.guest_addr
            piece = min(length, region.size - start)
            if start + piece > region.backed:
                raise ValueError(f"{piece} bytes at {gpa:#x} are past the end of the memory file")
            yield region, start, piece
            gpa, length = gpa + piece, length - piece

    def read(self, gpa: int, length: int) -> bytes:
        """Bytes at a guest address, over regions that follow each other. ValueError: not in memory."""
        return b"".join(region.map[start:start + piece] for region, start, piece in self._pieces(gpa, length))

    def write(self, gpa: int, data: bytes | bytearray | memoryview) -> None:
        """Writes at a guest address, over regions that follow each other. ValueError: not in memory."""
        done = 0
        for region, start, piece in self._pieces(gpa, len(data)):
            region.map[start:start + piece] = bytes(data[done:done + piece])
            done += piece

    def fill(self, gpa: int, length: int, byte: int = 0) -> None:
        self.write(gpa, bytes([byte]) * length)

    # Allocation

    def alloc(self, length: int, align: int = 16) -> int:
        """The guest address of `length` bytes in one region, the lowest that fits. Raises MemoryError."""
        length = max(length, 1)
        for index, (start, end) in enumerate(self._free):
            address = -(-start // align) * align
            if address + length <= end:
                rest = [(start, address), (address + length, end)]
                self._free[index:index + 1] = [piece for piece in rest if piece[0] < piece[1]]
                self._taken[address] = length
                return address
        raise MemoryError(f"no {length} free bytes in guest memory")

    def alloc_pages(self, count: int, scattered: bool = False) -> list[int]:
        """`count` pages, whole and aligned. Scattered: no two of them adjacent, in a random order."""
        if not count:
            return []
        step = 2 if scattered else 1
        try:
            base = self.alloc(count * step * PAGE, PAGE)
        except MemoryError:
            if count == 1:
                raise
            half = count // 2           # fragmented memory: in parts
            return self.alloc_pages(half, scattered) + self.alloc_pages(count - half, scattered)
        del self._taken[base]
        pages = [base + i * step * PAGE for i in range(count)]
        for page in pages:
            self._taken[page] = PAGE
            if scattered:
                self._release(page + PAGE, PAGE)
        if scattered:
            self._random.shuffle(pages)
        return pages

    def free(self, addresses: int | Sequence[int]) -> None:
        """Gives back what alloc or alloc_pages returned. Raises KeyError for anything else."""
        for address in [addresses] if isinstance(addresses, int) else addresses:
            self._release(address, self._taken.pop(address))

    def _release(self, start: int, length: int) -> None:
        end, region = start + length, self.region_of(start)
        index = bisect.bisect_left(self._free, (start, end))
        if index < len(self._free) and self._free[index][0] == end and end < region.end:
            end = self._free.pop(index)[1]
        if index and self._free[index - 1][1] == start and start > region.guest_addr:
            index -= 1
            start = self._free.pop(index)[0]
        self._free.insert(index, (start, end))

    def reset(self) -> None:
        """Frees everything."""
        self._taken.clear()
        self._free = [(r.guest_addr, r.end) for r in self.regions if r.guest_addr not in self._unallocatable]

    @property
    def free_bytes(self) -> int:
        """Bytes that alloc() has left, in however many pieces."""
        return sum(end - start for start, end in self._free)
