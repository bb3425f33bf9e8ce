"""Kicks, calls and errors: by eventfds, by sockets, in messages, or by looking."""

import contextlib
import fcntl
import os
import pathlib
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from frontend.fuse_abi import FORGET_IN, GETATTR_IN, READ_IN, Opcode
from frontend.fuse_transport import Ticket
from frontend.vhost_user import RefusedError
from tests.conftest import StartDaemon
from tests.daemon.support import (
    MOMENT,
    answered,
    ask,
    ask_for_call,
    called,
    eventfds,
    idle_files,
    mapped_files,
    not_answered,
    queue_addresses,
    talking_to,
    wait_for_line,
    wait_until,
)
from tests.running import SECONDS, Daemon
from virtiofsd import vhost_user_abi as abi
from virtiofsd.vhost_user_abi import FrontRequest

QUEUE = 1
BULK = 32768
REPLY_ACK, BACKEND_REQ, INBAND = (1 << bit for bit in (3, 5, 14))


# Calls

def test_no_call_is_lost_while_its_descriptor_changes(daemon: Daemon) -> None:
    """QEMU exchanges it whenever a guest masks the interrupt. Once that is acknowledged, only the new one counts."""
    with VirtioFs(daemon.socket) as device, eventfds(2) as fds:
        fuse = FuseClient(device)
        fuse.init()
        for number in range(2000):
            fd = fds[number % 2]
            called([fd], 0)
            ticket = ask_for_call(fuse)
            device.connection.set_vring_call(QUEUE, fd, ack=True)
            assert called([fd]) == [fd], f"no call for request {number}"
            device.queues[QUEUE].call_fd = fd
            answered(fuse, [ticket])


def test_a_call_descriptor_that_is_set_late_hears_of_what_came_back_before(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket) as device, eventfds() as fds:
        fuse = FuseClient(device)
        fuse.init()
        device.connection.set_vring_call(QUEUE, None, ack=True)
        ticket = ask(fuse)
        wait_until(lambda: device.queues[QUEUE].used_idx == 2, "the answer")
        device.connection.set_vring_call(QUEUE, fds[0], ack=True)
        assert called(fds) == fds
        answered(fuse, [ticket])


def test_a_call_descriptor_belongs_to_its_ring_alone(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket, num_queues=2) as device:
        fuse = FuseClient(device)
        fuse.init()
        answered(fuse, [ask(fuse, queue=2)])
        other = device.queues[QUEUE].call_fd
        called([other], 0)
        answered(fuse, [ask(fuse, queue=2) for _ in range(10)])
        assert called([other], 0) == []


def test_calls_may_go_into_a_socket(daemon: Daemon) -> None:
    """User-Mode Linux: 8 bytes into one end of a pair."""
    ours, theirs = socket.socketpair()
    with VirtioFs(daemon.socket) as device, ours, theirs:
        fuse = FuseClient(device)
        fuse.init()
        device.connection.set_vring_call(QUEUE, theirs.fileno(), ack=True)
        ours.settimeout(SECONDS)
        # The first one is for what may have been signalled where nobody looks any more.
        assert ours.recv(8) == (1).to_bytes(8, "little")
        for _ in range(3):
            ticket = ask_for_call(fuse)
            assert ours.recv(100) == (1).to_bytes(8, "little")
            answered(fuse, [ticket])


def test_a_socket_that_nobody_reads_holds_up_no_request(daemon: Daemon) -> None:
    ours, theirs = socket.socketpair()
    with VirtioFs(daemon.socket, event_idx=False) as device, ours, theirs:
        fuse = FuseClient(device)
        fuse.init()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        device.connection.set_vring_call(QUEUE, theirs.fileno(), ack=True)
        device.queues[QUEUE].call_fd = -1
        for _ in range(300):
            ticket = ask(fuse)
            wait_until(lambda: device.queues[QUEUE].used_idx == device.queues[QUEUE].avail_idx, "the answer")
            fuse.complete(ticket)


def bulk_reads(fuse: FuseClient, share: pathlib.Path) -> Callable[[], Ticket]:
    """What puts a READ of BULK bytes into the ring, that the host has in memory; the driver is not told of it yet."""
    (share / "file").write_bytes(bytes(BULK))
    node = fuse.lookup(1, "file").nodeid
    body = READ_IN.pack(fh=fuse.open(node).fh, size=BULK)
    return lambda: fuse.submit(Opcode.READ, node, body, out_pages=BULK, publish=False)


def calls_for(fuse: FuseClient, tickets: Sequence[Ticket]) -> int:
    """How many calls come for requests that are made available all at once, by a driver that masks none."""
    queue = fuse.device.queues[QUEUE]
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(queue.call_fd)
    queue.set_avail_flags(0)
    queue.publish()
    fuse.device.kick(QUEUE)
    wait_until(lambda: queue.used_idx == queue.avail_idx, "the answers")
    time.sleep(MOMENT)
    calls = os.eventfd_read(queue.call_fd)
    for ticket in tickets:
        assert fuse.complete(ticket).error == 0
    return calls


def test_replies_with_much_data_share_calls_while_others_wait(daemon: Daemon, share: pathlib.Path) -> None:
    """As long as they come within 20 us, which one try of many may show on a busy machine."""
    with VirtioFs(daemon.socket, event_idx=False) as device:
        fuse = FuseClient(device)
        fuse.init()
        read = bulk_reads(fuse, share)
        wait_until(lambda: calls_for(fuse, [read() for _ in range(24)]) <= 16, "a call for several of them")


def test_a_short_reply_is_not_held_back_while_much_data_is_copied(daemon: Daemon, share: pathlib.Path) -> None:
    with VirtioFs(daemon.socket, event_idx=False) as device:
        fuse = FuseClient(device)
        fuse.init()
        read = bulk_reads(fuse, share)
        for _ in range(20):
            tickets = []
            for _ in range(12):
                tickets += [fuse.submit(Opcode.GETATTR, 1, GETATTR_IN.pack(), out_size=104, publish=False), read()]
            assert calls_for(fuse, tickets) >= 12


# Descriptors that are not what they should be

@contextlib.contextmanager
def all_kinds(folder: pathlib.Path) -> Iterator[dict[str, int]]:
    pipe = os.pipe()
    pair = socket.socketpair()
    fds = {"pipe": pipe[1], "file": os.open(folder / "file", os.O_RDWR | os.O_CREAT), "null": os.open("/dev/null", 2),
           "folder": os.open(folder, os.O_RDONLY), "path": os.open(folder, os.O_PATH), "epoll": pair[0].fileno(),
           "memfd": os.memfd_create("memfd")}
    try:
        yield fds
    finally:
        for fd in (pipe[0], *(fd for name, fd in fds.items() if name != "epoll")):
            os.close(fd)
        for end in pair:
            end.close()


def test_kicks_calls_and_errors_come_by_what_can_carry_them(daemon: Daemon, tmp_path: pathlib.Path) -> None:
    """A pipe would take 8,192 kicks and then hold up the VMM: what is no eventfd is refused, not used half."""
    daemon.expected = ["failed: vring 1: its descriptor is no eventfd"]
    with VirtioFs(daemon.socket) as device, all_kinds(tmp_path) as fds:
        fuse = FuseClient(device)
        fuse.init()
        device.ring_enable(QUEUE, True)
        before = daemon.open_files()
        for name, fd in fds.items():
            for request in (FrontRequest.SET_VRING_KICK, FrontRequest.SET_VRING_CALL, FrontRequest.SET_VRING_ERR):
                if (name, request) == ("epoll", FrontRequest.SET_VRING_CALL):
                    continue
                with pytest.raises(RefusedError):
                    device.connection.order(request, QUEUE.to_bytes(8, "little"), [fd], ack=True)
        assert daemon.open_files() == before
        answered(fuse, [ask(fuse)])


def test_a_kick_descriptor_may_be_exchanged_while_the_ring_runs(device: VirtioFs) -> None:
    fuse = FuseClient(device)
    fuse.init()
    with eventfds(3) as fds:
        for fd in fds:
            device.connection.set_vring_kick(QUEUE, fd, ack=True)
            device.queues[QUEUE].kick_fd = fd
            for _ in range(20):
                answered(fuse, [ask(fuse)])


def test_a_ring_without_a_kick_descriptor_is_polled_until_it_gets_one(device: VirtioFs) -> None:
    fuse = FuseClient(device)
    fuse.init()
    kick_fd = device.queues[QUEUE].kick_fd
    for fd in (None, kick_fd, None):
        device.connection.set_vring_kick(QUEUE, fd, ack=True)
        device.queues[QUEUE].kick_fd = -1 if fd is None else fd
        for _ in range(5):
            answered(fuse, [ask(fuse)])


def test_a_call_descriptor_that_blocks_does_not_block_the_daemon(daemon: Daemon) -> None:
    """A blocking eventfd whose counter is full: who writes to it waits until the front-end likes to read."""
    full = os.eventfd(0, os.EFD_CLOEXEC)
    os.eventfd_write(full, (1 << 64) - 2)
    try:
        with talking_to(daemon) as connection:
            connection.timeout = 1
            connection.set_vring_call(QUEUE, full, ack=True)
            assert connection.get_features()
    finally:
        empty(full)
        os.close(full)


def empty(fd: int) -> None:
    """Lets go who hangs in writing to the eventfd; a daemon whose threads hang empties it, too."""
    if select.select([fd], [], [], 0)[0]:
        os.eventfd_read(fd)


def fill_and_block(fd: int) -> None:
    """Has who writes to the eventfd wait: its flags are of all who have it."""
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_NONBLOCK)
    empty(fd)
    os.eventfd_write(fd, (1 << 64) - 2)


def test_a_call_descriptor_that_blocks_later_on_keeps_nothing_of_a_front_end_that_has_left(
        start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--keep-listening")
    with VirtioFs(daemon.socket) as device:
        FuseClient(device).init()
    usual = idle_files(daemon), mapped_files(daemon), len(daemon.children_of(""))
    call, other = (os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(2))
    with VirtioFs(daemon.socket, event_idx=False) as device:
        fuse = FuseClient(device)
        fuse.init()
        device.connection.set_vring_call(QUEUE, call, ack=True)
        fill_and_block(call)
        for _ in range(5):
            ask_for_call(fuse)
            time.sleep(MOMENT)
        # Another in its place: whoever hangs keeps the old one.
        device.connection.set_vring_call(QUEUE, other, ack=True)
        fill_and_block(call)
    wait_until(lambda: (idle_files(daemon), mapped_files(daemon), len(daemon.children_of(""))) == usual,
               "the state before")
    os.close(call)
    os.close(other)


# Errors

def break_ring(device: VirtioFs, index: int = QUEUE) -> None:
    """An available index further ahead than the ring is long."""
    queue = device.queues[index]
    queue.avail_idx = queue.avail_idx + queue.size + 1
    queue.kick(True)


@pytest.fixture
def two_rings(daemon: Daemon) -> Iterator[tuple[VirtioFs, FuseClient]]:
    """A device whose first request ring a test may break, and a session on the second."""
    daemon.expected = ["vring 1 is broken and not served any more: its available index"]
    with VirtioFs(daemon.socket, num_queues=2) as device:
        fuse = FuseClient(device)
        fuse.init(queue=2)
        yield device, fuse


def test_a_broken_ring_is_told_by_its_error_descriptor_and_the_others_go_on(
        two_rings: tuple[VirtioFs, FuseClient]) -> None:
    device, fuse = two_rings
    break_ring(device)
    wait_until(lambda: device.error_signalled(QUEUE), "the error")
    assert not device.error_signalled(2)
    answered(fuse, [ask(fuse, queue=2) for _ in range(10)])


def test_an_error_descriptor_that_blocks_does_not_block_the_daemon(
        daemon: Daemon, two_rings: tuple[VirtioFs, FuseClient]) -> None:
    device, fuse = two_rings
    full = os.eventfd(0, os.EFD_CLOEXEC)
    device.connection.set_vring_err(QUEUE, full, ack=True)
    fill_and_block(full)
    break_ring(device)
    wait_for_line(daemon, "is broken")
    assert device.connection.get_features()
    answered(fuse, [ask(fuse, queue=2) for _ in range(10)])
    os.eventfd_read(full)
    os.close(full)


def test_a_broken_ring_works_again_when_it_is_started_anew(daemon: Daemon) -> None:
    daemon.expected = ["vring 1 is broken"]
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        break_ring(device)
        wait_until(lambda: device.error_signalled(QUEUE), "the error")
        device.reset()
        device.start()
        fuse.init()
        answered(fuse, [ask(fuse)])


# In-band

@pytest.fixture
def inband(daemon: Daemon) -> Iterator[VirtioFs]:
    with VirtioFs(daemon.socket, profile="uml", num_queues=2) as device:
        assert device.has("INBAND_NOTIFICATIONS")
        yield device


def test_kicks_and_calls_travel_as_messages_where_that_is_agreed_on(inband: VirtioFs) -> None:
    fuse = FuseClient(inband)
    fuse.init()
    assert inband.channel
    channel = inband.channel
    for number in range(20):
        channel.serve(MOMENT)    # what still comes of the request before
        channel.calls.clear()
        ticket = ask_for_call(fuse, queue=1 + number % 2)
        while not channel.calls[1 + number % 2]:
            assert channel.serve(SECONDS), "no call"
        answered(fuse, [ticket])
    assert channel.calls[0] == 0


def test_errors_travel_as_messages_where_that_is_agreed_on(daemon: Daemon, inband: VirtioFs) -> None:
    daemon.expected = ["vring 1 is broken"]
    fuse = FuseClient(inband)
    fuse.init(queue=2)
    answered(fuse, [ask(fuse)])
    break_ring(inband)
    assert inband.channel
    channel = inband.channel
    wait_until(lambda: bool(channel.serve()) and channel.errors[QUEUE] == 1, "the error's message")
    answered(fuse, [ask(fuse, queue=2)])


def test_a_call_descriptor_is_used_also_where_in_band_calls_are_agreed_on(inband: VirtioFs) -> None:
    fuse = FuseClient(inband)
    fuse.init(queue=2)
    with eventfds() as fds:
        inband.connection.set_vring_call(QUEUE, fds[0], ack=True)
        called(fds, MOMENT)    # there may be one lest it was lost in the exchange
        ticket = ask_for_call(fuse)
        assert called(fds) == fds
        answered(fuse, [ticket])
        assert inband.channel
        assert inband.channel.calls[QUEUE] == 0


def test_a_channel_that_is_given_late_or_again_carries_the_calls(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket, profile="uml", start=False) as device:
        device.negotiate()
        assert device.channel
        device.start()
        fuse = FuseClient(device)
        fuse.init()
        device.channel.close()
        device.offer_channel()
        ticket = ask_for_call(fuse)
        wait_until(lambda: bool(device.channel and device.channel.serve() and device.channel.calls[QUEUE]), "the call")
        answered(fuse, [ticket])


def test_the_ends_of_rings_started_in_band_are_the_same(inband: VirtioFs) -> None:
    fuse = FuseClient(inband)
    fuse.init()
    answered(fuse, [ask(fuse)])
    assert inband.ring_stop(QUEUE) == 2
    ticket = ask(fuse, kick=False)
    not_answered(fuse)
    inband.ring_base(QUEUE)
    inband.connection.set_vring_addr(QUEUE, *queue_addresses(inband, QUEUE))
    inband.connection.vring_kick(QUEUE)
    answered(fuse, [ticket])


def fill_channel(fuse: FuseClient) -> None:
    """With calls of the hiprio ring."""
    ring = fuse.device.queues[0]
    ring.set_used_event(0)
    for _ in range(600):
        forget = fuse.submit(Opcode.FORGET, 1, FORGET_IN.pack(nlookup=0), queue=0, no_reply=True)
        wait_until(lambda: ring.used_idx == ring.avail_idx, "the forgetting")
        ring.set_used_event(ring.used_idx)      # so that each is called for
        fuse.complete(forget)


def hears_and_rests(daemon: Daemon, device: VirtioFs, kick: Callable[[], None]) -> None:
    """The control plane is woken, by a bad chain of ring 2, and has nothing to do after that."""
    device.queues[2].add([(1 << 50, 64, False)])
    device.queues[2].publish()
    kick()
    wait_for_line(daemon, daemon.expected[0])
    before = daemon.cpu_seconds()
    time.sleep(0.5)
    assert daemon.cpu_seconds() - before < 0.2


def test_calls_of_a_ring_that_is_over_are_not_tried_for_ever(daemon: Daemon, inband: VirtioFs) -> None:
    daemon.expected = ["vring 2: a request came back empty"]
    fuse = FuseClient(inband)
    fuse.init(queue=2)
    fill_channel(fuse)
    inband.ring_stop(0)
    full = inband.channel
    inband.offer_channel()
    hears_and_rests(daemon, inband, lambda: inband.kick(2))
    assert full
    full.close()


def test_a_channel_that_is_replaced_is_full_no_more(daemon: Daemon, inband: VirtioFs) -> None:
    """Also where calls in it are not agreed on any more, so that its rings have no other way to call."""
    daemon.expected = ["vring 2: a request came back empty"]
    fuse = FuseClient(inband)
    fuse.init(queue=2)
    fill_channel(fuse)
    with eventfds() as fds:
        inband.connection.set_vring_kick(2, fds[0], ack=True)
        inband.connection.set_protocol_features(inband.connection.protocol_features & ~INBAND)
        full = inband.channel
        inband.offer_channel()
        hears_and_rests(daemon, inband, lambda: os.eventfd_write(fds[0], 1))
    assert full
    full.close()


def test_a_channel_full_of_calls_loses_none_of_another_ring(inband: VirtioFs) -> None:
    fuse = FuseClient(inband)
    fuse.init(queue=2)
    fill_channel(fuse)
    ticket = ask(fuse)
    wait_until(lambda: inband.queues[QUEUE].used_idx == 1, "the answer")
    assert inband.channel
    while not inband.channel.calls[QUEUE]:
        assert inband.channel.serve(SECONDS), "no call"
    answered(fuse, [ticket])


def test_in_band_messages_need_all_that_they_travel_by(daemon: Daemon) -> None:
    """Negotiated without a channel there is nobody to call: the driver looks for itself."""
    with VirtioFs(daemon.socket, profile="uml", protocol_features=REPLY_ACK | INBAND) as device:
        fuse = FuseClient(device)
        ticket = fuse.submit(Opcode.INIT, 0, bytes(64), out_size=64)
        wait_until(lambda: device.queues[QUEUE].used_idx == 1, "the answer")
        fuse.complete(ticket)
        assert device.connection.protocol_features == REPLY_ACK | INBAND
        assert not abi.VHOST_USER_PROTOCOL_F_BACKEND_REQ & device.connection.protocol_features
