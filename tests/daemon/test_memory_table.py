"""The guest's memory: regions that come and go while rings run, bad ones, and memory that vanishes."""

import contextlib
import fcntl
import mmap
import os
import pathlib
import random
import socket
import threading
from collections.abc import Iterator

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from frontend.fuse_abi import FSYNC_IN, IN_HEADER, OUT_HEADER, WRITE_IN, Opcode
from frontend.load import Generator
from frontend.memory import GuestMemory, Region, RegionSpec
from frontend.operations import Result, getattr_op
from frontend.vhost_user import Connection, RefusedError
from tests.conftest import StartDaemon
from tests.daemon.hanging import HangingMount
from tests.daemon.support import (
    CLOSED,
    MOMENT,
    answered,
    ask,
    closed,
    closing_lines,
    dismissed,
    mapped_files,
    memory_file,
    not_answered,
    region,
    talking_to,
    wait_for_line,
    wait_until,
)
from tests.running import SECONDS, Daemon
from virtiofsd import vhost_user_abi as abi
from virtiofsd.vhost_user_abi import FrontRequest

QUEUE = 1
PAGE = mmap.PAGESIZE
MIB = 1 << 20
MAIN = RegionSpec(0, 64 * MIB)


def request_in(device: VirtioFs, gpa: int, opcode: Opcode, message_body: bytes, nodeid: int, room: int) -> int:
    """Puts a request into the ring whose buffers all lie at `gpa`. Its head."""
    fuse = FuseClient(device)
    message = fuse.message(opcode, nodeid, message_body, {})
    device.memory.write(gpa, message)
    queue = device.queues[QUEUE]
    head = queue.add([(gpa, len(message), False), (gpa + 1024, OUT_HEADER.size + room, True)])
    queue.publish()
    queue.kick(True)
    return head


def getattr_in(device: VirtioFs, gpa: int) -> bool:
    """Whether a GETATTR with its buffers at `gpa` is answered, and not returned empty."""
    head = request_in(device, gpa, Opcode.GETATTR, bytes(16), 1, 104)
    assert device.wait(QUEUE) in ([(head, 0)], [(head, 120)])
    return device.memory.read(gpa + 1024, 4) == (120).to_bytes(4, "little")


@contextlib.contextmanager
def load(device: VirtioFs) -> Iterator[list[Result]]:
    """Requests all the time, each checked, until the end of the block; then the result is there."""
    op = getattr_op(1, FuseClient(device).getattr(1).attr_ino)
    generator = Generator(device.queues[QUEUE], [op], depth=8)
    results: list[Result] = []
    runner = threading.Thread(target=lambda: results.append(generator.run(seconds=60, timeout=SECONDS)))
    runner.start()
    try:
        yield results
    finally:
        generator.stop()
        runner.join()
    assert results[0].good, results[0]
    assert results[0].operations > 100


# Regions

def test_there_is_room_for_509_regions(daemon: Daemon) -> None:
    specs = [MAIN, *(RegionSpec((1 << 32) + 2 * PAGE * number, PAGE, allocatable=False) for number in range(508))]
    with VirtioFs(daemon.socket, memory=specs) as device:
        FuseClient(device).init()
        assert len(mapped_files(daemon)) == 509
        for number in random.Random(1).sample(range(508), 50):
            assert getattr_in(device, specs[1 + number].guest_addr)


def test_a_table_has_as_many_regions_as_one_message_can_carry(daemon: Daemon) -> None:
    with talking_to(daemon) as connection, memory_file(253 * PAGE) as fd:
        connection.set_mem_table([region(2 * PAGE * number, PAGE, fd, offset=PAGE * number) for number in range(253)])
        assert connection.get_features()


def test_buffers_may_cross_from_one_region_into_the_next_but_not_into_a_hole(daemon: Daemon) -> None:
    daemon.expected = ["vring 1: a request came back empty, its chain had an address outside guest memory"]
    first = 1 << 32
    specs = [MAIN, RegionSpec(first, PAGE, allocatable=False), RegionSpec(first + PAGE, PAGE, allocatable=False),
             RegionSpec(first + 3 * PAGE, PAGE, allocatable=False)]
    with VirtioFs(daemon.socket, memory=specs) as device:
        fuse = FuseClient(device)
        fuse.init()
        for start in (first + PAGE - 20, first + PAGE - 1024 - 30):    # the request, and the reply
            assert getattr_in(device, start)
        message = fuse.message(Opcode.GETATTR, 1, bytes(16), {})
        device.memory.write(first, message)
        head = device.queues[QUEUE].add([(first, len(message), False), (first + 2 * PAGE - 30, 120, True)])
        device.queues[QUEUE].publish()
        device.queues[QUEUE].kick(True)
        assert device.wait(QUEUE) == [(head, 0)]
        answered(fuse, [ask(fuse)])


def test_a_chain_over_very_many_small_regions_is_refused(daemon: Daemon) -> None:
    """It would have more pieces than its ring allows descriptors, and each takes time and memory."""
    daemon.expected = ["vring 1: a request came back empty, its chain had a loop, or too many descriptors"]
    first, each, count = 1 << 33, 16, 8
    with VirtioFs(daemon.socket, queue_size=1024) as device, memory_file(PAGE) as fd:
        fuse = FuseClient(device)
        fuse.init()
        for number in range(count):
            device.connection.add_mem_reg(region(first + each * number, each, fd, offset=each * number))
        for pieces, length in ((100, 120), (400, 0)):
            message = fuse.message(Opcode.GETATTR, 1, bytes(16), {})
            gpa = device.memory.alloc(PAGE)
            device.memory.write(gpa, message)
            chain = [(gpa, len(message), False), (gpa + 1024, 120, True), *[(first, each * count, True)] * pieces]
            head = device.queues[QUEUE].add(chain, indirect=False)
            device.queues[QUEUE].publish()
            device.queues[QUEUE].kick(True)
            assert device.wait(QUEUE) == [(head, length)]
        answered(fuse, [ask(fuse)])


def test_memory_of_a_fuse_file_system_is_refused(hanging: HangingMount, daemon: Daemon) -> None:
    """The front-end could serve it itself, and let whoever touches it wait for ever."""
    daemon.expected = ["ADD_MEM_REG.*Operation not supported"]
    with VirtioFs(daemon.socket) as device, (hanging.path / "file").open("r+b") as file:
        fuse = FuseClient(device)
        fuse.init()
        with pytest.raises(RefusedError):
            device.connection.add_mem_reg(region(1 << 33, PAGE, file.fileno()))
        answered(fuse, [ask(fuse)])


def test_a_region_may_begin_anywhere_in_its_file(daemon: Daemon) -> None:
    """Also where no page does: what is mapped begins earlier."""
    with VirtioFs(daemon.socket) as device, memory_file(4 * MIB) as fd:
        FuseClient(device).init()
        content = mmap.mmap(fd, 4 * MIB)
        for offset in (0x800, 0x1234, MIB + 16):
            gpa = 1 << 33
            odd = region(gpa, 0x3000, fd, user_addr=1 << 44, offset=offset)
            device.connection.add_mem_reg(odd)
            message = FuseClient(device).message(Opcode.GETATTR, 1, bytes(16), {})
            content[offset:offset + len(message)] = message
            head = device.queues[QUEUE].add([(gpa, len(message), False), (gpa + 0x2000, 120, True)])
            device.queues[QUEUE].publish()
            device.queues[QUEUE].kick(True)
            assert device.wait(QUEUE) == [(head, 120)]
            assert content[offset + 0x2000] == 120
            device.connection.rem_mem_reg(odd)
        content.close()


def test_regions_that_overlap_are_refused_and_change_nothing(daemon: Daemon) -> None:
    daemon.expected = ["guest memory regions overlap", "there is a region of", "has the same region twice"]
    with VirtioFs(daemon.socket) as device, memory_file(64 * MIB) as fd:
        fuse = FuseClient(device)
        fuse.init()
        connection = device.connection
        mapped = mapped_files(daemon)
        for gpa, size in ((0, PAGE), (63 * MIB, 2 * MIB), (32 * MIB, PAGE), (PAGE, 64 * MIB)):
            with pytest.raises(RefusedError):
                connection.add_mem_reg(region(gpa, size, fd, user_addr=1 << 44))
        with pytest.raises(RefusedError):
            connection.add_mem_reg(device.memory.regions[0])
        one = region(1 << 32, MIB, fd)
        for others in ([one], [region((1 << 32) + MIB - 1, MIB, fd)]):
            with pytest.raises(RefusedError):
                connection.set_mem_table([*device.memory.regions, one, *others])
        assert mapped_files(daemon) == mapped
        answered(fuse, [ask(fuse)])


def test_bad_regions_are_refused_and_change_nothing(daemon: Daemon) -> None:
    daemon.expected = ["(ADD_MEM_REG|SET_MEM_TABLE) failed"]
    ours, theirs = socket.socketpair()
    with VirtioFs(daemon.socket) as device, memory_file(MIB) as fd, ours, theirs, open(os.devnull) as null:
        fuse = FuseClient(device)
        fuse.init()
        read_only = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
        folder = os.open("/", os.O_RDONLY)
        event = os.eventfd(0)
        mapped, files = mapped_files(daemon), daemon.open_files()
        gpa = 1 << 32
        bad = [region(gpa, size, fd, offset=offset) for size, offset in (
            (0, 0), (MIB + 1, 0), (2 * MIB, 0), (MIB, 1), (PAGE, MIB), (1 << 40, 0), (PAGE, (1 << 64) - PAGE),
            (PAGE, 1 << 63), ((1 << 64) - PAGE, 0), ((1 << 64) - 1, 0), ((1 << 64) - 1, 1))]
        bad += [region((1 << 64) - PAGE, 2 * PAGE, fd), region(gpa, 2 * PAGE, fd, user_addr=(1 << 64) - PAGE)]
        bad += [region(gpa, PAGE, other) for other in (read_only, folder, event, theirs.fileno(), null.fileno())]
        for one in bad:
            with pytest.raises(RefusedError):
                device.connection.add_mem_reg(one)
            with pytest.raises(RefusedError):
                device.connection.set_mem_table([*device.memory.regions, one])
        assert mapped_files(daemon) == mapped
        assert daemon.open_files() == files
        answered(fuse, [ask(fuse)])
        for other in (read_only, folder, event):
            os.close(other)


def test_a_table_must_have_a_descriptor_for_each_region(daemon: Daemon) -> None:
    daemon.expected = ["SET_MEM_TABLE failed", "ADD_MEM_REG failed"]
    with talking_to(daemon) as connection, memory_file(MIB) as fd:
        for count, regions, descriptors in ((1, 1, 0), (1, 1, 2), (2, 1, 1), (1, 2, 2), ((1 << 32) - 1, 1, 1)):
            table = abi.MEMORY_HEADER.pack(count=count) + connection.region(region(0, PAGE, fd)) * regions
            with pytest.raises(RefusedError):
                connection.order(FrontRequest.SET_MEM_TABLE, table, [fd] * descriptors, ack=True)
        with pytest.raises(RefusedError):
            connection.order(FrontRequest.ADD_MEM_REG, bytes(8) + connection.region(region(0, PAGE, fd)), ack=True)
        connection.set_mem_table([])


def test_a_region_is_removed_by_its_addresses_whatever_the_offset(daemon: Daemon) -> None:
    daemon.expected = ["REM_MEM_REG failed: there is no region of"]
    with talking_to(daemon) as connection, memory_file(2 * MIB) as fd:
        given = region(MIB, MIB, fd, user_addr=1 << 44, offset=MIB)
        for with_fd in (False, True):
            connection.add_mem_reg(given)
            for other in (region(0, MIB, fd, user_addr=1 << 44), region(MIB, PAGE, fd, user_addr=1 << 44),
                          region(MIB, MIB, fd, user_addr=1 << 45)):
                with pytest.raises(RefusedError):
                    connection.order(FrontRequest.REM_MEM_REG, bytes(8) + connection.region(other), ack=True)
            files = daemon.open_files()
            unsaid = bytes(8) + connection.region(region(MIB, MIB, fd, user_addr=1 << 44))
            connection.order(FrontRequest.REM_MEM_REG, unsaid, [fd] if with_fd else [], ack=True)
            assert mapped_files(daemon) == []
            assert daemon.open_files() == files


def test_regions_that_stay_keep_their_mapping_and_the_others_are_unmapped(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket) as device, memory_file(MIB) as one, memory_file(MIB) as other:
        fuse = FuseClient(device)
        fuse.init()
        main = device.memory.regions
        kept = mapped_files(daemon)
        for table in ([region(1 << 32, MIB, one)], [region(1 << 32, MIB, one), region(1 << 33, MIB, other)], []):
            device.connection.set_mem_table([*main, *table])
            assert set(kept) <= set(mapped_files(daemon))
            assert len(mapped_files(daemon)) == 1 + len(table)
            answered(fuse, [ask(fuse)])
        device.connection.set_mem_table([*main, region(1 << 32, MIB, one)])
        before = set(mapped_files(daemon)) - set(kept)
        device.connection.set_mem_table([*main, region(1 << 32, MIB, other)])     # the same place, another file
        assert not before & set(mapped_files(daemon))
        assert len(mapped_files(daemon)) == 2


def test_huge_pages_can_be_guest_memory(daemon: Daemon) -> None:
    try:
        fd = os.memfd_create("guest-memory", os.MFD_CLOEXEC | os.MFD_HUGETLB | os.MFD_HUGE_2MB)
        os.ftruncate(fd, 4 * MIB)
        content = mmap.mmap(fd, 4 * MIB)
        content[0] = content[2 * MIB] = 1
    except OSError as error:
        pytest.skip(f"there are no huge pages to have (vm.nr_hugepages): {error}")
    with VirtioFs(daemon.socket) as device, content:
        FuseClient(device).init()
        gpa = 1 << 33
        huge = region(gpa, 2 * MIB, fd, offset=MIB)
        device.connection.add_mem_reg(huge)
        message = FuseClient(device).message(Opcode.GETATTR, 1, bytes(16), {})
        content[MIB:MIB + len(message)] = message
        head = device.queues[QUEUE].add([(gpa, len(message), False), (gpa + MIB, 120, True)])
        device.queues[QUEUE].publish()
        device.queues[QUEUE].kick(True)
        assert device.wait(QUEUE) == [(head, 120)]
        device.connection.rem_mem_reg(huge)
    os.close(fd)


# Changes while rings run

def test_no_request_fails_while_regions_come_and_go(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket, num_queues=2) as device:
        fuse = FuseClient(device)
        fuse.init()
        fuse.queue = 2
        with load(device):
            for number in range(100):
                added = device.add_memory(RegionSpec((1 << 32) + number * MIB, MIB))
                answered(fuse, [ask(fuse, queue=2)])
                device.remove_memory(added)
        assert len(mapped_files(daemon)) == 1


def test_no_request_fails_while_the_whole_table_is_exchanged(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket, profile="qemu-7.2", protocol_features=0xffffffff & ~(1 << 15)) as device:
        FuseClient(device).init()
        with load(device), memory_file(64 * MIB) as fd:
            main = device.memory.regions[0]
            for number in range(100):
                extra = [region((1 << 32) + place * MIB, MIB, fd, offset=place * MIB) for place in range(number % 5)]
                device.connection.set_mem_table([*extra, main] if number % 2 else [main, *extra])
        assert len(mapped_files(daemon)) == 5


def test_memory_that_is_split_piece_by_piece_is_not_missed(daemon: Daemon) -> None:
    """QEMU takes a region away and gives its parts back one by one, with rings in it that run: they rest meanwhile."""
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        whole = device.memory.regions[0]
        half = whole.size // 2

        def part(start: int, size: int) -> Region:
            return region(whole.guest_addr + start, size, whole.fd, user_addr=whole.user_addr + start, offset=start)

        device.connection.rem_mem_reg(whole)
        ticket = ask(fuse)
        not_answered(fuse)
        assert mapped_files(daemon) == []
        device.connection.add_mem_reg(part(half, whole.size - half))
        not_answered(fuse)
        device.connection.add_mem_reg(part(0, half))
        answered(fuse, [ticket])
        with load(device):
            for _ in range(30):
                device.connection.rem_mem_reg(part(0, half))
                device.connection.add_mem_reg(part(0, half))


def test_a_ring_without_memory_can_be_stopped(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket) as device:
        FuseClient(device).init()
        device.connection.rem_mem_reg(device.memory.regions[0])
        device.ring_enable(QUEUE, False)
        device.ring_enable(QUEUE, True)
        assert device.ring_stop(QUEUE) == 1
        assert mapped_files(daemon) == []


# Requests in flight

@pytest.fixture
def slow(hanging: HangingMount, start_daemon: StartDaemon) -> Daemon:
    return start_daemon("--drain-timeout", "0.5", share=hanging.path)


@contextlib.contextmanager
def hanging_in_a_region(daemon: Daemon, hanging: HangingMount) -> Iterator[tuple[VirtioFs, FuseClient, Region, int]]:
    """A device with a region in which an FSYNC is in flight, which hangs until the end of the block, and its head."""
    with VirtioFs(daemon.socket, num_queues=2) as device:
        fuse = FuseClient(device)
        fuse.init()
        node = fuse.lookup(1, "file").nodeid
        body = FSYNC_IN.pack(fh=fuse.open(node).fh)
        used = device.add_memory(RegionSpec(1 << 32, MIB, allocatable=False))
        with hanging.hang(Opcode.FSYNC):
            head = request_in(device, used.guest_addr, Opcode.FSYNC, body, node, 0)
            hanging.wait_for_held()
            yield device, fuse, used, head


def test_a_region_goes_when_the_requests_in_it_have_ended_and_no_later(
        hanging: HangingMount, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(share=hanging.path)
    with hanging_in_a_region(daemon, hanging) as (device, fuse, used, head):
        other = device.add_memory(RegionSpec(1 << 33, MIB, allocatable=False))
        device.remove_memory(other)    # at once: nothing is in flight there
        mapped = mapped_files(daemon)
        device.connection.send(FrontRequest.REM_MEM_REG, bytes(8) + Connection.region(used),
                               flags=abi.VHOST_USER_VERSION | abi.FLAG_NEED_REPLY)
        answered_early = device.connection.readable(0.1)
        for _ in range(3):
            answered(fuse, [ask(fuse, queue=2), ask(fuse)])     # on the same queue, too
        assert not answered_early
        assert not device.connection.readable()
        assert mapped_files(daemon) == mapped
        hanging.let_go()
        assert device.connection.answer(FrontRequest.REM_MEM_REG).value == 0
        assert len(mapped_files(daemon)) == len(mapped) - 1
        assert device.wait(QUEUE) == [(head, OUT_HEADER.size)]


def test_no_answer_is_lost_of_a_ring_whose_memory_goes(hanging: HangingMount, start_daemon: StartDaemon) -> None:
    """It rests when what is in flight has been returned, though that has its buffers elsewhere."""
    with hanging_in_a_region(start_daemon(share=hanging.path), hanging) as (device, fuse, _, head):
        main = device.memory.regions[0]
        device.connection.send(FrontRequest.REM_MEM_REG, bytes(8) + Connection.region(main),
                               flags=abi.VHOST_USER_VERSION | abi.FLAG_NEED_REPLY)
        assert not device.connection.readable(MOMENT)
        hanging.let_go()
        assert device.connection.answer(FrontRequest.REM_MEM_REG).value == 0
        device.connection.add_mem_reg(main)
        assert device.wait(QUEUE) == [(head, OUT_HEADER.size)]
        answered(fuse, [ask(fuse)])


def test_a_region_whose_requests_hang_is_never_said_to_be_gone(hanging: HangingMount, slow: Daemon) -> None:
    slow.expected = [CLOSED, "ending the device: FSYNC on vring 1"]
    with hanging_in_a_region(slow, hanging) as (device, _, used, _):
        device.connection.send(FrontRequest.REM_MEM_REG, bytes(8) + Connection.region(used),
                               flags=abi.VHOST_USER_VERSION | abi.FLAG_NEED_REPLY)
        assert closed(device.connection)
        assert len(mapped_files(slow)) >= 1
    assert closing_lines(slow) == [
        "REM_MEM_REG: removing memory, 0x100000 bytes at guest address 0x100000000: "
        "FSYNC on vring 1 has not ended after 0.5 s"]


def test_a_wait_for_a_lock_keeps_no_memory(start_daemon: StartDaemon) -> None:
    """It may last for ever."""
    daemon = start_daemon("--posix-lock")
    (daemon.share / "file").touch()
    with VirtioFs(daemon.socket, num_queues=2) as device:
        fuse = FuseClient(device)
        fuse.init()
        node = fuse.lookup(1, "file").nodeid
        fh = fuse.open(node, os.O_RDWR).fh
        fuse.setlk(node, fh, 1, fcntl.F_WRLCK)
        used = device.add_memory(RegionSpec(1 << 32, MIB, allocatable=False))
        head = request_in(device, used.guest_addr, Opcode.SETLKW,
                          fuse.lock_body(fh, 2, fcntl.F_WRLCK, 0, 100, 1, False), node, 0)
        daemon.wait_for(lock_waits=1)
        device.remove_memory(used)
        assert len(mapped_files(daemon)) == 1
        fuse.setlk(node, fh, 1, fcntl.F_UNLCK, queue=2)
        assert device.wait(QUEUE) == [(head, 0)]    # there is nowhere to put an answer


# Memory that vanishes

@pytest.mark.parametrize("further", [1, 0])
def test_memory_that_is_cut_off_breaks_the_device_and_not_the_daemon(daemon: Daemon, further: int) -> None:
    daemon.expected = ["vring 1 is broken and not served any more: the memory behind it is gone",
                       "the connection is closed: guest memory is gone: its file was truncated"]
    with VirtioFs(daemon.socket, memory=[MAIN, RegionSpec(1 << 32, MIB, allocatable=False)]) as device:
        fuse = FuseClient(device)
        fuse.init()
        gone = device.memory.regions[1]
        assert getattr_in(device, gone.guest_addr)
        gone.truncate(0)
        queue = device.queues[QUEUE]
        queue.add([(gone.guest_addr, 56, False), (gone.guest_addr + 1024, 120, True)])
        queue.publish()
        queue.kick(True)
        if further:
            wait_until(lambda: queue.used_idx == queue.avail_idx, "the answer to the request without memory")
            ask(fuse)
        wait_until(lambda: device.error_signalled(QUEUE), "the error of the ring")
        assert closed(device.connection)
    wait_for_line(daemon, "guest memory is gone")
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        answered(fuse, [ask(fuse)])


def test_no_write_follows_a_request_that_finds_its_memory_cut_off(daemon: Daemon) -> None:
    """They are in the ring at once, behind one that the guest is told of right away. What the last is to write is gone
    as well, and reads as zeros.
    """
    daemon.expected = ["is broken and not served any more", "guest memory is gone"]
    file = daemon.share / "file"
    file.write_bytes(b"x" * PAGE)
    with VirtioFs(daemon.socket, memory=[MAIN, RegionSpec(1 << 32, MIB, allocatable=False)]) as device:
        fuse = FuseClient(device)
        fuse.init()
        node = fuse.lookup(1, "file").nodeid
        fh = fuse.open(node, os.O_RDWR).fh
        body = WRITE_IN.pack(fh=fh, offset=0, size=PAGE)
        message = fuse.message(Opcode.WRITE, node, body + bytes(PAGE), {})[:IN_HEADER.size + len(body)]
        gpa = device.memory.alloc(PAGE)
        device.memory.write(gpa, message)
        sound = device.memory.alloc(PAGE)
        device.memory.write(sound, fuse.message(Opcode.GETATTR, 1, bytes(16), {}))
        gone = device.memory.regions[1]
        gone.truncate(0)
        queue = device.queues[QUEUE]
        queue.add([(sound, 56, False), (sound + 1024, 120, True)])
        queue.add([(gone.guest_addr, 56, False), (gone.guest_addr + 1024, 120, True)])
        queue.add([(gpa, len(message), False), (gone.guest_addr + PAGE, PAGE, False), (gpa + 1024, 24, True)])
        queue.publish()
        queue.kick(True)
        wait_until(lambda: device.error_signalled(QUEUE), "the error of the ring")
    assert file.read_bytes() == b"x" * PAGE


def test_memory_that_is_cut_off_takes_no_mapping_for_each_of_its_pages(daemon: Daemon) -> None:
    """A process may have only so many, and one that cannot have another ends."""
    daemon.expected = ["is broken and not served any more", "guest memory is gone"]
    count = 400
    memory = [MAIN, RegionSpec(1 << 32, 2 * count * PAGE, allocatable=False)]
    with VirtioFs(daemon.socket, memory=memory, queue_size=1024) as device:
        fuse = FuseClient(device)
        fuse.init()
        gone = device.memory.regions[1]
        message = fuse.message(Opcode.SETXATTR, 1, bytes(2 * count), {})[:IN_HEADER.size]
        gpa = device.memory.alloc(PAGE)
        device.memory.write(gpa, message)
        before = mappings(daemon)
        gone.truncate(0)
        pieces = [(gone.guest_addr + 2 * number * PAGE, 2, False) for number in range(count)]
        device.queues[QUEUE].add([(gpa, len(message), False), *pieces, (gpa + 1024, 120, True)],
                                 indirect=False)
        device.queues[QUEUE].publish()
        device.queues[QUEUE].kick(True)
        wait_until(lambda: device.error_signalled(QUEUE), "the error of the ring")
        assert mappings(daemon) < before + count / 10


def mappings(daemon: Daemon) -> int:
    return len(pathlib.Path(f"/proc/{daemon.process.pid}/maps").read_text().splitlines())


def test_a_ring_whose_memory_is_cut_off_breaks_the_device_and_not_the_daemon(daemon: Daemon) -> None:
    daemon.expected = ["is broken and not served any more", "guest memory is gone"]
    for _ in range(2):
        with VirtioFs(daemon.socket) as device:
            FuseClient(device).init()
            device.memory.regions[0].truncate(0)
            os.eventfd_write(device.queues[QUEUE].kick_fd, 1)
            with contextlib.suppress(ConnectionError, RefusedError):
                device.ring_addr(QUEUE)
                device.get_features()
            assert closed(device.connection)


def test_a_ring_cannot_be_started_in_memory_that_is_cut_off(daemon: Daemon) -> None:
    daemon.expected = ["guest memory is gone"]
    with VirtioFs(daemon.socket) as device:
        FuseClient(device).init()
        device.stop()
        device.ring_base(QUEUE)
        device.memory.regions[0].truncate(0)
        with contextlib.suppress(ConnectionError):
            device.ring_kick(QUEUE)
        assert closed(device.connection)


def test_memory_given_by_a_file_of_the_host_works_too(daemon: Daemon, tmp_path: pathlib.Path) -> None:
    """As of QEMU's memory-backend-file."""
    file = tmp_path / "guest"
    file.write_bytes(bytes(MIB))
    with VirtioFs(daemon.socket) as device, file.open("r+b") as opened:
        FuseClient(device).init()
        gpa = 1 << 32
        device.connection.add_mem_reg(region(gpa, MIB, opened.fileno()))
        message = FuseClient(device).message(Opcode.GETATTR, 1, bytes(16), {})
        opened.write(message)
        opened.flush()
        head = device.queues[QUEUE].add([(gpa, len(message), False), (gpa + PAGE, 120, True)])
        device.queues[QUEUE].publish()
        device.queues[QUEUE].kick(True)
        assert device.wait(QUEUE) == [(head, 120)]
        dismissed(device.connection)
    daemon.expected = [CLOSED]


def test_all_memory_is_unmapped_when_the_front_end_leaves(daemon: Daemon) -> None:
    daemon.expected = [CLOSED]
    for _ in range(3):
        with VirtioFs(daemon.socket, memory=GuestMemory.pc(64)) as device:
            FuseClient(device).init()
            assert len(mapped_files(daemon)) == 2
            dismissed(device.connection)
        wait_until(lambda: mapped_files(daemon) == [], "the end of the mappings")
