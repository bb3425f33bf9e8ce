"""A second thread copies large reads of which several wait in one queue."""

import itertools
import random
import time
from collections.abc import Iterator

from frontend import fuse_abi as abi
from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from frontend.fuse_abi import Opcode
from frontend.fuse_transport import Ticket
from tests.conftest import StartDaemon
from tests.filesystem.conftest import Connect
from tests.filesystem.support import Guest, opened

SIZE = 1 << 18
BATCH = 32
SECONDS = 60                # until there was help
QUEUE = 1


def guest_with(connect: Connect, *options: str) -> tuple[Guest, tuple[int, int], bytes]:
    """A guest, a file that it has open, and what is in that."""
    guest = connect(*options, queue_size=512, memory_mib=256)
    content = random.Random(5).randbytes(BATCH * SIZE)
    (guest.share / "file").write_bytes(content)
    return guest, opened(guest.fuse, "file"), content


def submit(guest: Guest, file: tuple[int, int], small: int = 0) -> list[Ticket]:
    """READs of the whole file, published together, with `small` GETATTRs between each two."""
    node, fh = file
    fuse = guest.fuse
    tickets: list[Ticket] = []
    for number in range(BATCH):
        tickets += [fuse.submit(Opcode.GETATTR, node, abi.GETATTR_IN.pack(), out_size=abi.ATTR_OUT.size, publish=False)
                    for _ in range(small)]
        tickets.append(fuse.submit(Opcode.READ, node, abi.READ_IN.pack(fh=fh, offset=number * SIZE, size=SIZE),
                                   out_pages=SIZE, publish=number == BATCH - 1))
    return tickets


def check(guest: Guest, tickets: list[Ticket], content: bytes) -> None:
    offset = 0
    for ticket in tickets:
        reply = guest.fuse.complete(ticket)
        assert not reply.error
        if ticket.opcode == Opcode.READ:
            assert reply.data == content[offset:offset + SIZE]
            offset += SIZE


def times_helped(guest: Guest) -> int:
    return guest.daemon.statistics()["helped"]


def until_helped(guest: Guest) -> Iterator[int]:
    """Numbers of rounds, until there was help often enough. Fails where there was not: a busy machine allows little."""
    deadline = time.monotonic() + SECONDS
    for number in itertools.count():
        yield number
        if number > 20 and times_helped(guest) > 10:
            break
        assert time.monotonic() < deadline, "too little help"


def test_large_reads_that_wait_are_helped_with_and_none_goes_wrong(connect: Connect) -> None:
    """Also where others are between them."""
    guest, file, content = guest_with(connect, "--helpers", "1")
    for number in until_helped(guest):
        check(guest, submit(guest, file, number % 3), content)


def test_nobody_helps_where_that_is_switched_off(connect: Connect) -> None:
    guest, file, content = guest_with(connect, "--helpers", "0")
    for _ in range(5):
        check(guest, submit(guest, file), content)
    assert times_helped(guest) == 0


def test_small_requests_and_single_reads_are_not_helped_with(connect: Connect) -> None:
    """To wake a thread takes longer."""
    guest, (node, fh), content = guest_with(connect, "--helpers", "1")
    for number in range(BATCH):
        assert guest.fuse.read(node, fh, number * SIZE, SIZE) == content[number * SIZE:(number + 1) * SIZE]
    tickets = [guest.fuse.submit(Opcode.READ, node, abi.READ_IN.pack(fh=fh, offset=number * 4096, size=4096),
                                 out_pages=4096, publish=number == 39) for number in range(40)]
    for number, ticket in enumerate(tickets):
        assert guest.fuse.complete(ticket).data == content[number * 4096:(number + 1) * 4096]
    assert times_helped(guest) == 0


def test_a_ring_stops_and_goes_on_in_the_middle_of_help(connect: Connect) -> None:
    """What was taken is answered before the ring stands still, and what was not stays in it."""
    guest, file, content = guest_with(connect, "--helpers", "1")
    for number in until_helped(guest):
        tickets = submit(guest, file)
        if number % 2:
            guest.device.ring_enable(QUEUE, False)
            guest.device.ring_enable(QUEUE, True)
        else:
            guest.device.stop()
            guest.device.start()
        check(guest, tickets, content)


def test_a_guest_may_reset_the_device_in_the_middle_of_help(connect: Connect) -> None:
    guest, file, content = guest_with(connect, "--helpers", "1")
    for _ in range(8):
        check(guest, submit(guest, file), content)
        submit(guest, file)
        guest.device.reset()
        guest.device.start()
        guest.fuse.init()
        guest.fuse.lookups.clear()
        file = opened(guest.fuse, "file")


def test_a_front_end_may_leave_in_the_middle_of_help(start_daemon: StartDaemon) -> None:
    content = random.Random(5).randbytes(BATCH * SIZE)
    for _ in range(4):
        daemon = start_daemon("--helpers", "1")
        (daemon.share / "file").write_bytes(content)
        with VirtioFs(daemon.socket, queue_size=512, memory_mib=256) as device:
            fuse = FuseClient(device)
            fuse.init()
            guest = Guest(daemon, device, fuse)
            file = opened(fuse, "file")
            check(guest, submit(guest, file), content)
            submit(guest, file)
