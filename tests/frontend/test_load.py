"""The load generator against a reference back-end: what it counts, and that it notices wrong answers."""

from collections.abc import Iterator

import pytest

from frontend.back_end import BackEnd
from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from frontend.load import Generator, run_in_one_thread, run_together
from frontend.operations import (
    CHECK_DATA,
    SLOT_DIGITS,
    Op,
    create_unlink_cycle,
    cycles,
    forget_op,
    getattr_op,
    lookup_op,
    open_read_release_cycle,
    pattern,
    read_op,
    reads,
    writes,
)


@pytest.fixture
def client(reference: BackEnd) -> Iterator[FuseClient]:
    (reference.share / "f").write_bytes(pattern(0, 1 << 20))
    with VirtioFs(reference.socket, num_queues=1) as device:
        fuse = FuseClient(device)
        fuse.init()
        yield fuse


@pytest.mark.parametrize("depth", [1, 16])
@pytest.mark.parametrize("sleeping", [True, False])
def test_getattr(client: FuseClient, depth: int, sleeping: bool) -> None:
    op = getattr_op(1, client.getattr(1).attr_ino)
    generator = Generator(client.device.queues[1], [op], depth=depth, sleeping=sleeping)
    result = generator.run(count=2000)
    assert result.good and result.operations == 2000 == len(result.latencies)
    assert result.kicks + result.kicks_saved == 2000
    assert (result.wake_ups > 0) == sleeping
    generator.close()
    assert client.getattr(1).attr_nlink >= 2


def test_data_is_checked(client: FuseClient) -> None:
    node = client.lookup(1, "f").nodeid
    fh = client.open(node, 2).fh
    queue = client.device.queues[1]
    assert Generator(queue, reads(node, fh, 128 << 10, 1 << 20), depth=4).run(count=100).good
    assert Generator(queue, writes(node, fh, 8192, 1 << 20, shuffle=True), depth=4).run(count=100).good
    assert Generator(queue, reads(node, fh, 128 << 10, 1 << 20), depth=4).run(count=100).good
    client.write(node, fh, 4096, b"not the pattern")
    assert Generator(queue, [read_op(node, fh, 0, 8192)]).run(count=10).wrong_data == 10


def test_wrong_answers_are_counted(client: FuseClient) -> None:
    queue = client.device.queues[1]
    assert Generator(queue, [getattr_op(1, ino=12345)]).run(count=5).wrong_data == 5
    assert Generator(queue, [getattr_op(0xdead)]).run(count=5).wrong_error == 5
    assert Generator(queue, [lookup_op(1, "absent", missing=True)]).run(count=5).good
    node = client.lookup(1, "f").nodeid
    fh = client.open(node).fh
    assert Generator(queue, [read_op(node, fh, (1 << 20) - 100, 4096)]).run(count=5).wrong_length == 5


def test_cycles_carry_handles_from_reply_to_request(client: FuseClient) -> None:
    queue = client.device.queues[1]
    node = client.lookup(1, "f").nodeid
    ops, cycle = cycles([open_read_release_cycle(node, 100_000, 1 << 20)])
    assert Generator(queue, ops, cycle=cycle, depth=3).run(count=cycle * 10).good
    ops, cycle = cycles(create_unlink_cycle(1, f"n{index}", 5000) for index in range(50))
    result = Generator(queue, ops, cycle=cycle, depth=8).run(count=1000)
    assert result.good and result.operations == 1000
    assert [entry.name for entry in client.listdir() if entry.name.startswith(b"n")] == []


def test_slots_have_names_of_their_own(client: FuseClient) -> None:
    ops, cycle = cycles([create_unlink_cycle(1, f"n-{SLOT_DIGITS}.o", 5000)])
    assert Generator(client.device.queues[1], ops, cycle=cycle, depth=8).run(count=1000).good
    assert [entry.name for entry in client.listdir() if entry.name.startswith(b"n")] == []


def test_generators_run_together_on_their_queues(client: FuseClient) -> None:
    node = client.lookup(1, "f").nodeid
    forgets = Generator(client.device.queues[0], [forget_op(node, 0)], depth=2)
    stats = Generator(client.device.queues[1], [getattr_op(1)], depth=2)
    results = run_together([forgets, stats], count=500)
    assert all(result.good and result.operations == 500 for result in results)


def test_one_thread_drives_several_generators(client: FuseClient) -> None:
    node = client.lookup(1, "f").nodeid
    forgets = Generator(client.device.queues[0], [forget_op(node, 0)], sleeping=False)
    stats = Generator(client.device.queues[1], [getattr_op(1)], depth=2, sleeping=False)
    results = run_in_one_thread([forgets, stats], counts=[300, 500])
    assert [result.operations for result in results] == [300, 500] and all(result.good for result in results)


@pytest.mark.parametrize("sleeping", [True, False])
def test_one_generator_goes_on_as_long_as_another_on_its_queue(client: FuseClient, sleeping: bool) -> None:
    queue = client.device.queues[1]
    node = client.lookup(1, "f").nodeid
    fh = client.open(node).fh
    stats = Generator(queue, [getattr_op(1, client.getattr(1).attr_ino)], sleeping=sleeping)
    beside = Generator(queue, reads(node, fh, 4096, 1 << 20), depth=3, sleeping=sleeping)
    result, others = run_in_one_thread([stats, beside], counts=[0, 256], linger=0.05)
    assert result.good and others.good and others.operations == 256
    assert result.operations > 0 and result.seconds > 0.05
    assert beside.run(count=10).good and stats.run(count=10).good


def test_the_first_word_of_data_is_checked(client: FuseClient) -> None:
    node = client.lookup(1, "f").nodeid
    fh = client.open(node).fh
    plain = read_op(node, fh, 4096, 4096, check=False)
    word = int.from_bytes(pattern(4096, 8), "little")

    def checked(value: int) -> Op:
        return Op(plain.request, out_data=4096, least=4096, most=4096, check=CHECK_DATA, check_value=value)

    queue = client.device.queues[1]
    assert Generator(queue, [checked(word)]).run(count=10).good
    assert Generator(queue, [checked(word + 1)]).run(count=10).wrong_data == 10


def test_a_dead_back_end_stalls_the_run(client: FuseClient, reference: BackEnd) -> None:
    reference.process.kill()
    result = Generator(client.device.queues[1], [getattr_op(1)]).run(count=10, timeout=0.2)
    assert result.stalled and not result.good
