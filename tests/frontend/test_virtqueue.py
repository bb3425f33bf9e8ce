"""The drivers of both rings against a slow, obvious device that returns chains in any order."""

import random
from collections.abc import Iterator

import pytest

from frontend.memory import GuestMemory
from frontend.virtqueue import RingError, Virtqueue
from virtiofsd import virtio_abi as abi

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


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory.simple(8) as memory:
        yield memory


def make(memory: GuestMemory, packed: bool, size: int = 16,
         **how: bool) -> tuple[Virtqueue, SplitDevice | PackedDevice]:
    queue = Virtqueue(memory, size, packed=packed, **how)
    return queue, PackedDevice(queue) if packed else SplitDevice(queue)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("indirect", [False, True])
def test_chains_arrive_as_they_were_and_come_back_in_any_order(
        memory: GuestMemory, packed: bool, indirect: bool) -> None:
    queue, device = make(memory, packed, indirect=indirect)
    rng = random.Random(1)
    with_driver: dict[int, list[Piece]] = {}
    with_device: list[int] = []
    total = 0
    while total < 70_000:          # past the end of the 16-bit indices
        chain = [(rng.randrange(1 << 40), rng.randrange(1 << 20), bool(rng.getrandbits(1)))
                 for _ in range(rng.randint(1, 4))]
        try:
            with_driver[queue.add(chain)] = chain
            total += 1
        except BlockingIOError:
            pass
        if rng.random() < 0.5:
            queue.publish()
            while popped := device.pop():
                assert with_driver[popped[0]] == popped[1]
                with_device.append(popped[0])
            rng.shuffle(with_device)
            for _ in range(rng.randint(0, len(with_device))):
                head = with_device.pop()
                device.push(head, head + 100)
            for head, length in queue.poll():
                assert length == head + 100
                del with_driver[head]
    assert sorted(queue.in_flight) == sorted(with_driver)


@pytest.mark.parametrize("packed", [False, True])
def test_kicks_are_saved_until_the_device_wants_one(memory: GuestMemory, packed: bool) -> None:
    queue, device = make(memory, packed)
    device.want_kick()
    kicks = []
    for _ in range(3):
        queue.add([(0, 1, False)])
        queue.publish()
        kicks.append(queue.kick())
    assert kicks == [True, False, False]
    while device.pop():
        pass
    device.want_kick()
    queue.add([(0, 1, False)])
    queue.publish()
    assert queue.kick()
    assert queue.counters[:2] == (2, 2)


@pytest.mark.parametrize("packed", [False, True])
def test_arm_sees_what_was_returned_meanwhile(memory: GuestMemory, packed: bool) -> None:
    queue, device = make(memory, packed)
    assert queue.arm()
    queue.add([(0, 1, True)])
    queue.publish()
    popped = device.pop()
    assert popped and queue.arm()
    device.push(popped[0], 1)
    assert not queue.arm()
    assert queue.wait(0.1) == [(popped[0], 1)]
    assert queue.wait(0.01) == []


def test_a_full_ring_says_so(memory: GuestMemory) -> None:
    queue, _ = make(memory, False, 4, indirect=False)
    queue.add([(0, 1, False)] * 3)
    with pytest.raises(BlockingIOError):
        queue.add([(0, 1, False)] * 2)
    queue.add([(0, 1, False)])
    assert queue.num_free == 0


def test_nonsense_from_the_device_is_reported(memory: GuestMemory) -> None:
    queue, device = make(memory, False)
    device.push(3, 0)
    with pytest.raises(RingError):
        queue.poll()
    queue.reset()
    queue.used_idx = 17
    with pytest.raises(RingError):
        queue.poll()


@pytest.mark.parametrize("packed", [False, True])
def test_a_ring_goes_on_from_its_base(memory: GuestMemory, packed: bool) -> None:
    queue, device = make(memory, packed)
    assert queue.base == (0x80008000 if packed else 0)
    for _ in range(21):
        queue.add([(0, 1, True)])
        queue.publish()
        popped = device.pop()
        assert popped
        device.push(popped[0], 0)
        assert len(queue.poll()) == 1
    base = queue.base
    assert base == (0x00050005 if packed else 21)
    queue.reset()
    queue.restore(base)
    assert queue.base == base
    if packed:
        return                     # the descriptors of the old round would have to be restored with it
    queue.add([(1, 1, True)])
    queue.publish()
    popped = device.pop()
    assert popped and popped[1] == [(1, 1, True)]


def test_raw_entries_reach_the_device_and_free_nothing(memory: GuestMemory) -> None:
    queue, device = make(memory, False)
    index = queue.take()
    queue.write_desc(index, 0x1000, 8, abi.VRING_DESC_F_WRITE, 0)
    queue.push(index)
    queue.publish()
    assert device.pop() == (index, [(0x1000, 8, True)])
    device.push(index, 3)
    assert queue.poll() == [(index, 3)]
    assert queue.num_free == 15
    queue.give(index)
    assert queue.num_free == 16
