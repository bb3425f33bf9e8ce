"""Guest memory and its allocator."""

import os

import pytest

from frontend.memory import PAGE, GuestMemory, RegionSpec


def test_reads_and_writes_cross_adjacent_regions() -> None:
    with GuestMemory([RegionSpec(PAGE, PAGE), RegionSpec(2 * PAGE, PAGE, mmap_offset=3 * PAGE)]) as memory:
        memory.write(2 * PAGE - 2, b"abcd")
        assert memory.read(2 * PAGE - 2, 4) == b"abcd"
        assert os.pread(memory.regions[1].fd, 2, 3 * PAGE) == b"cd"
        with pytest.raises(ValueError, match="not in one region"):
            memory.host(2 * PAGE - 2, 4)
        with pytest.raises(ValueError, match="no guest memory"):
            memory.read(3 * PAGE - 1, 2)


def test_regions_may_not_overlap() -> None:
    with GuestMemory([RegionSpec(0, 2 * PAGE)]) as memory, pytest.raises(ValueError, match="overlaps"):
        memory.add(RegionSpec(PAGE, PAGE))


def test_scattered_pages_are_not_adjacent_and_all_comes_back() -> None:
    with GuestMemory([RegionSpec(0, 64 * PAGE)]) as memory:
        pages = memory.alloc_pages(20, scattered=True)
        assert len(set(pages)) == 20 and all(page % PAGE == 0 for page in pages)
        assert not {page + PAGE for page in pages} & set(pages)
        other = [memory.alloc(100, 64) for _ in range(50)]
        assert len({address // 64 for address in other}) == 50
        memory.free(other)
        memory.free(pages)
        assert memory.free_bytes == 64 * PAGE
        assert memory.alloc(64 * PAGE) == 0
        with pytest.raises(MemoryError):
            memory.alloc(1)
        memory.reset()
        assert memory.free_bytes == 64 * PAGE


def test_nothing_is_allocated_across_regions_or_where_it_must_not_be() -> None:
    by_hand = RegionSpec(1 << 30, PAGE, allocatable=False)
    with GuestMemory([RegionSpec(0, PAGE), RegionSpec(PAGE, PAGE), by_hand]) as mem:
        with pytest.raises(MemoryError):
            mem.alloc(PAGE + 1)
        assert {mem.alloc(PAGE), mem.alloc(PAGE)} == {0, PAGE}
        with pytest.raises(MemoryError):
            mem.alloc(1)
        mem.free([PAGE, 0])
        assert mem.free_bytes == 2 * PAGE


def test_user_addresses() -> None:
    specs = [RegionSpec(0x100000, PAGE, "gpa"), RegionSpec(0x200000, PAGE), RegionSpec(0x300000, PAGE, 77)]
    with GuestMemory(specs) as memory:
        assert memory.user(0x100010) == 0x100010
        assert memory.user(0x200010) == memory.host(0x200010, 1)
        assert memory.user(0x300001) == 78


def test_memory_that_vanished_is_not_touched() -> None:
    with GuestMemory([RegionSpec(0, 4 * PAGE)]) as memory:
        memory.regions[0].truncate(PAGE)
        memory.write(0, b"x")
        with pytest.raises(ValueError, match="past the end"):
            memory.read(PAGE, 1)
