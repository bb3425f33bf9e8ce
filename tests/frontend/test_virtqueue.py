"""The drivers of both rings against a slow, obvious device that returns chains in any order."""

import random
from collections.abc import Iterator

import pytest

from frontend.memory import GuestMemory
from frontend.virtqueue import RingError, Virtqueue
from tests.frontend.models import PackedDevice, Piece, SplitDevice
from virtiofsd import virtio_abi as abi


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
