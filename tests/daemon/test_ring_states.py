"""Rings: started or not, enabled or not, in every order. Requests are answered exactly while a ring is both."""

import fcntl
import os
import threading

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from frontend.fuse_abi import FSYNC_IN, OUT_HEADER, READ_IN, Opcode
from frontend.fuse_transport import Ticket
from frontend.load import Generator
from frontend.operations import getattr_op
from frontend.vhost_user import ClosedError, RefusedError
from frontend.virtqueue import Virtqueue
from tests.conftest import StartDaemon
from tests.daemon.hanging import HangingMount
from tests.daemon.support import (
    CLOSED,
    answered,
    ask,
    closed,
    closing_lines,
    dismissed,
    not_answered,
    submit_fsync,
    wait_for_line,
    wait_until,
    was_read,
)
from tests.running import SECONDS, Daemon
from virtiofsd import vhost_user_abi as abi
from virtiofsd.vhost_user_abi import FrontRequest

HIPRIO, QUEUE = 0, 1


def set_up(device: VirtioFs, index: int = QUEUE) -> None:
    """All that a ring needs before KICK."""
    device.ring_num(index)
    device.ring_base(index)
    device.ring_addr(index)
    device.ring_call(index)


@pytest.fixture
def stopped(daemon: Daemon) -> VirtioFs:
    """A device with a session whose request queue is neither started nor enabled, but set up."""
    with VirtioFs(daemon.socket) as device:
        FuseClient(device).init()
        device.stop()
        set_up(device)
        yield device


@pytest.fixture
def client(stopped: VirtioFs) -> FuseClient:
    return FuseClient(stopped)


# When requests are served

def test_requests_that_wait_when_the_ring_is_kicked_into_life_are_served(stopped: VirtioFs, client: FuseClient) -> None:
    stopped.ring_enable(QUEUE, True)
    tickets = [ask(client, kick=False) for _ in range(5)]
    not_answered(client)
    stopped.ring_kick(QUEUE)
    answered(client, tickets)


def test_requests_that_wait_when_the_ring_is_enabled_are_served(stopped: VirtioFs, client: FuseClient) -> None:
    stopped.ring_kick(QUEUE)
    tickets = [ask(client, kick=False) for _ in range(5)]
    not_answered(client)
    stopped.ring_enable(QUEUE, True)
    answered(client, tickets)


def test_a_kick_that_came_before_the_ring_was_enabled_is_not_lost(stopped: VirtioFs, client: FuseClient) -> None:
    stopped.ring_kick(QUEUE)
    ticket = ask(client)
    stopped.queues[QUEUE].kick(True)
    not_answered(client)
    stopped.ring_enable(QUEUE, True)
    answered(client, [ticket])


def test_a_disabled_ring_keeps_its_requests(device: VirtioFs) -> None:
    fuse = FuseClient(device)
    fuse.init()
    for _ in range(3):
        device.ring_enable(QUEUE, False)
        ticket = ask(fuse)
        not_answered(fuse)
        device.ring_enable(QUEUE, True)
        answered(fuse, [ticket])


def test_the_other_ring_is_served_meanwhile(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket, num_queues=2) as device:
        fuse = FuseClient(device)
        fuse.init()
        device.ring_enable(QUEUE, False)
        answered(fuse, [ask(fuse, queue=2)])
        device.ring_stop(QUEUE)
        answered(fuse, [ask(fuse, queue=2)])


def test_a_stopped_ring_is_not_touched(stopped: VirtioFs, client: FuseClient) -> None:
    stopped.ring_enable(QUEUE, True)
    queue = stopped.queues[QUEUE]
    before = stopped.memory.read(queue.used_gpa, 6 + 8 * queue.size)
    ask(client)
    queue.kick(True)
    not_answered(client)
    assert stopped.memory.read(queue.used_gpa, 6 + 8 * queue.size) == before


class States(RuleBasedStateMachine):
    """A ring in every order of messages, against two flags and a list of what was asked."""

    daemon: Daemon

    def __init__(self) -> None:
        super().__init__()
        self.device = VirtioFs(self.daemon.socket, num_queues=2)
        self.fuse = FuseClient(self.device)
        self.fuse.init(queue=2)
        self.started = self.enabled = True
        self.waiting: list[Ticket] = []

    @property
    def runs(self) -> bool:
        return self.started and self.enabled

    @rule()
    def start(self) -> None:
        if not self.started:
            set_up(self.device)
        self.device.ring_kick(QUEUE)
        self.started = True

    @rule()
    def stop(self) -> None:
        base = self.device.ring_stop(QUEUE)
        self.started = False
        assert base == (self.device.queues[QUEUE].avail_idx - len(self.waiting)) & 0xffff

    @rule(enabled=st.booleans())
    def enable(self, enabled: bool) -> None:
        self.device.ring_enable(QUEUE, enabled)
        self.enabled = enabled

    @rule(count=st.integers(1, 4), kick=st.booleans())
    def submit(self, count: int, kick: bool) -> None:
        self.waiting += [ask(self.fuse, kick=kick or self.runs) for _ in range(count)]

    @rule()
    def place_again(self) -> None:
        self.device.ring_addr(QUEUE)

    @rule()
    def give_it_another_call(self) -> None:
        self.device.ring_call(QUEUE)

    @rule()
    def set_up_while_disabled(self) -> None:
        """As User-Mode Linux, which never asks for the base."""
        if self.started and not self.enabled:
            self.device.ring_num(QUEUE)
            self.started = False
            self.device.bases[QUEUE] = (self.device.queues[QUEUE].avail_idx - len(self.waiting)) & 0xffff

    @rule()
    def send_the_memory_again(self) -> None:
        self.device.set_memory()

    @invariant()
    def requests_are_answered_exactly_while_the_ring_is_started_and_enabled(self) -> None:
        if self.runs:
            answered(self.fuse, self.waiting)
            self.waiting = []
        else:
            self.device.get_features()
            assert self.device.queues[QUEUE].poll() == []

    def teardown(self) -> None:
        dismissed(self.device.connection)
        self.device.close()


def test_any_order_of_starting_stopping_enabling_and_asking(daemon: Daemon) -> None:
    daemon.expected = [CLOSED]

    class StatesOfThisDaemon(States):
        pass

    StatesOfThisDaemon.daemon = daemon
    run_state_machine_as_test(StatesOfThisDaemon, settings=settings(
        max_examples=40, stateful_step_count=25, deadline=None, database=None,
        suppress_health_check=[HealthCheck.too_slow]))


# Where a ring goes on

def test_a_ring_goes_on_where_it_stopped(device: VirtioFs) -> None:
    fuse = FuseClient(device)
    fuse.init()
    for round_ in range(1, 4):
        answered(fuse, [ask(fuse) for _ in range(10)])
        device.ring_enable(QUEUE, False)
        assert device.ring_stop(QUEUE) == round_ * 10 + 1
        set_up(device)
        device.ring_kick(QUEUE)
        device.ring_enable(QUEUE, True)


@pytest.mark.parametrize("base", [0x7fff, 0xfffe, 0xffff])
def test_a_ring_may_begin_anywhere_and_its_indices_wrap(daemon: Daemon, base: int) -> None:
    """As after a migration: used.idx is read from the ring."""
    with VirtioFs(daemon.socket, start=False) as device:
        for index in range(2):
            device.queues[index].restore(base)
            device.bases[index] = base
        device.negotiate()
        device.start()
        fuse = FuseClient(device)
        fuse.init()
        for _ in range(3):
            answered(fuse, [ask(fuse) for _ in range(50)])
        device.stop()
        assert device.bases[QUEUE] == (base + 151) & 0xffff


def test_a_ring_that_is_asked_for_its_base_twice_says_the_same(device: VirtioFs) -> None:
    FuseClient(device).init()
    device.ring_enable(QUEUE, False)
    assert [device.ring_stop(QUEUE) for _ in range(3)] == [1, 1, 1]


def test_a_ring_may_move_while_it_runs(device: VirtioFs) -> None:
    """What is available in its old place is in the new one too: the driver has copied it."""
    fuse = FuseClient(device)
    fuse.init()
    queue = device.queues[QUEUE]
    places = []
    for gpa, length, align in ((queue.desc_gpa, 16 * queue.size, 16), (queue.avail_gpa, 6 + 2 * queue.size, 2),
                               (queue.used_gpa, 6 + 8 * queue.size, 4)):
        new = device.memory.alloc(length, align)
        device.memory.write(new, device.memory.read(gpa, length))
        places.append(device.memory.user(new))
    used = device.memory.read(queue.used_gpa, 4)
    device.connection.set_vring_addr(QUEUE, *places, ack=True)
    ticket = ask(fuse)
    not_answered(fuse)
    assert device.memory.read(queue.used_gpa, 4) == used    # it is not written any more
    device.ring_addr(QUEUE)
    answered(fuse, [ticket])


def test_a_bad_address_for_a_ring_that_runs_leaves_it_where_it_is(daemon: Daemon) -> None:
    daemon.expected = ["SET_VRING_ADDR failed"]
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        good = [device.memory.user(gpa) for gpa in (
            device.queues[QUEUE].desc_gpa, device.queues[QUEUE].avail_gpa, device.queues[QUEUE].used_gpa)]
        end = device.memory.regions[0].user_addr + device.memory.regions[0].size
        for bad in (0, 1, end - 16, end, (1 << 64) - 16):
            for part in range(3):
                with pytest.raises(RefusedError):
                    device.connection.set_vring_addr(QUEUE, *good[:part], bad, *good[part + 1:], ack=True)
                answered(fuse, [ask(fuse)])


def test_no_reply_is_lost_while_bad_addresses_are_refused(daemon: Daemon) -> None:
    daemon.expected = ["SET_VRING_ADDR failed: vring 1: its addresses are not aligned or not in guest memory"]
    (daemon.share / "file").touch()
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        node = fuse.lookup(1, "file").nodeid
        fh = fuse.open(node).fh
        for _ in range(100):
            tickets = [fuse.submit(Opcode.FSYNC, node, FSYNC_IN.pack(fh=fh)) for _ in range(20)]
            with pytest.raises(RefusedError):
                device.connection.set_vring_addr(QUEUE, 1 << 43, 1 << 43, 1 << 43, ack=True)
            for ticket in tickets:
                assert not fuse.complete(ticket).error


# Sizes

@pytest.mark.parametrize("size", [1, 2, 4, 256, 1024, 32768])
def test_queues_of_every_size(daemon: Daemon, size: int) -> None:
    with VirtioFs(daemon.socket, start=False) as device:
        for index in range(2):
            device.queues[index].close()
            device.queues[index] = Virtqueue(device.memory, size, table_length=8)
        device.negotiate()
        device.start()
        fuse = FuseClient(device)
        fuse.init()
        for _ in range(3):
            answered(fuse, [ask(fuse) for _ in range(min(size, 300))])
        device.stop()


def test_a_full_ring_is_emptied_whole(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket, queue_size=64) as device:
        fuse = FuseClient(device)
        fuse.init()
        device.ring_enable(QUEUE, False)
        tickets = [ask(fuse) for _ in range(64)]
        device.ring_enable(QUEUE, True)
        answered(fuse, tickets)


# Stopping while requests are in flight

@pytest.fixture
def slow(hanging: HangingMount, start_daemon: StartDaemon) -> Daemon:
    """A daemon on a file system that hangs."""
    daemon = start_daemon("--drain-timeout", "0.5", share=hanging.path)
    daemon.expected = [CLOSED]
    return daemon


def test_a_ring_is_stopped_when_its_last_request_has_ended(hanging: HangingMount, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(share=hanging.path)
    with VirtioFs(daemon.socket, num_queues=2) as device:
        fuse = FuseClient(device)
        fuse.init()
        with hanging.hang(Opcode.FSYNC):
            ticket = submit_fsync(fuse)
            hanging.wait_for_held()
            device.ring_enable(QUEUE, False)
            device.connection.send(FrontRequest.GET_VRING_BASE, abi.VRING_STATE.pack(index=QUEUE))
            answered_early = device.connection.readable(0.1)
            answered(fuse, [ask(fuse, queue=2), ask(fuse, queue=2)])
            assert not answered_early
            assert not device.connection.readable()
            assert device.queues[QUEUE].poll() == []
        state = abi.VRING_STATE.unpack(device.connection.answer(FrontRequest.GET_VRING_BASE).payload)
        assert (state.index, state.num) == (QUEUE, device.queues[QUEUE].avail_idx)
        # The answer means that all is in the ring already.
        assert [head for head, _ in device.queues[QUEUE].poll()] == [ticket.head]


def test_rings_without_slow_requests_are_stopped_at_once(hanging: HangingMount, slow: Daemon) -> None:
    with VirtioFs(slow.socket, num_queues=2) as device:
        fuse = FuseClient(device)
        fuse.init()
        with hanging.hang(Opcode.FSYNC):
            ticket = submit_fsync(fuse, queue=2)
            hanging.wait_for_held()
            device.ring_stop(QUEUE)
            device.ring_stop(HIPRIO)
        fuse.complete(ticket)


def test_a_ring_whose_requests_hang_is_never_said_to_be_stopped(hanging: HangingMount, slow: Daemon) -> None:
    with VirtioFs(slow.socket, num_queues=2) as device:
        fuse = FuseClient(device)
        fuse.init()
        with hanging.hang(Opcode.FSYNC):
            submit_fsync(fuse)
            submit_fsync(fuse, queue=2, file="other")    # two of one file wait for each other in the kernel
            hanging.wait_for_held(2)
            device.connection.send(FrontRequest.GET_VRING_BASE, abi.VRING_STATE.pack(index=QUEUE))
            assert closed(device.connection)
            # The next front-end has the daemon to itself, while the request still hangs.
            with VirtioFs(slow.socket, timeout=SECONDS) as other:
                second = FuseClient(other)
                second.init()
                answered(second, [ask(second)])
                dismissed(other.connection)
    slow.expected.append("ending the device: FSYNC on vring 1, FSYNC on vring 2 have not ended")
    assert closing_lines(slow)[0].startswith(
        "GET_VRING_BASE: stopping vring 1: FSYNC on vring 1 has not ended after 0.5 s")
    wait_until(lambda: not slow.children_of("data-plane"), "the end of the thread that hung")


def test_a_front_end_that_dies_while_a_ring_is_being_stopped_is_not_waited_for(
        hanging: HangingMount, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(share=hanging.path)
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        with hanging.hang(Opcode.FSYNC):
            submit_fsync(fuse)
            hanging.wait_for_held()
            device.connection.send(FrontRequest.GET_VRING_BASE, abi.VRING_STATE.pack(index=QUEUE))
            was_read(device.connection)
            before = daemon.open_files()
            device.connection.close()
            wait_until(lambda: len(daemon.open_files()) < len(before), "the end of the connection")
    assert daemon.process.wait(SECONDS) == 0


def test_a_daemon_ends_though_requests_hang(hanging: HangingMount, slow: Daemon) -> None:
    slow.expected = ["ending the device: FSYNC on vring 1 has not ended", "requests hang in the host's file system"]
    with VirtioFs(slow.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        with hanging.hang(Opcode.FSYNC):
            submit_fsync(fuse)
            hanging.wait_for_held()
            device.connection.close()
            wait_for_line(slow, "the process ends without them")
            assert not slow.socket.exists()
    slow.exit_status = 1    # the thread that hung has to come back before the kernel lets the process go


def test_no_request_is_lost_while_its_ring_stops_and_starts(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        op = getattr_op(1, device.memory and os.stat(daemon.share).st_ino)
        generator = Generator(device.queues[QUEUE], [op], depth=16)
        results = []
        runner = threading.Thread(target=lambda: results.append(generator.run(count=40_000, timeout=SECONDS)))
        runner.start()
        while runner.is_alive():
            device.ring_enable(QUEUE, False)
            device.ring_stop(QUEUE)
            set_up(device)
            device.ring_kick(QUEUE)
            device.ring_enable(QUEUE, True)
        runner.join()
        assert results[0].good and results[0].operations >= 40_000


def test_waits_for_locks_are_cut_short_when_their_ring_is_stopped(start_daemon: StartDaemon) -> None:
    """They could last for ever, and hold up neither the ring nor the memory that they came in."""
    daemon = start_daemon("--posix-lock")
    (daemon.share / "file").touch()
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        node = fuse.lookup(1, "file").nodeid
        fh = fuse.open(node, os.O_RDWR).fh
        fuse.setlk(node, fh, 1, fcntl.F_WRLCK)
        body = fuse.lock_body(fh, 2, fcntl.F_WRLCK, 0, (1 << 63) - 1, 1, False)
        ticket = fuse.submit(Opcode.SETLKW, node, body)
        daemon.wait_for(lock_waits=1)
        not_answered(fuse)
        device.ring_enable(QUEUE, False)
        device.ring_stop(QUEUE)
        [(head, used)] = device.queues[QUEUE].poll()
        assert (head, used) == (ticket.head, OUT_HEADER.size)
        daemon.wait_for(lock_waits=0)


# Reset

def test_a_reset_ends_the_session_and_keeps_memory_and_connection(daemon: Daemon) -> None:
    (daemon.share / "file").write_bytes(b"content")
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        old = fuse.lookup(1, "file").nodeid
        fh = fuse.open(old).fh
        device.connection.set_status(15)
        device.stop()
        device.connection.reset_device()
        assert device.connection.get_status() == 0
        daemon.wait_for(session=0, inodes=0, files_open=0)
        device.set_memory(slots=True)    # which sends nothing: the daemon has it
        device.start()
        for opcode, body in ((Opcode.GETATTR, bytes(16)), (Opcode.READ, READ_IN.pack(fh=fh, size=10))):
            assert fuse.call(opcode, old, body, out_size=104, check=False).error != 0    # no session
        fuse.init()
        for opcode, body in ((Opcode.GETATTR, bytes(16)), (Opcode.READ, READ_IN.pack(fh=fh, size=10))):
            assert fuse.call(opcode, old, body, out_size=104, check=False).error != 0    # of another session
        assert fuse.lookup(1, "file").attr_size == 7


def test_a_reset_stops_rings_that_run(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        device.connection.order(FrontRequest.RESET_DEVICE, ack=True)
        ask(fuse)
        device.queues[QUEUE].kick(True)
        not_answered(fuse)


def test_a_reset_waits_for_requests_in_flight(hanging: HangingMount, slow: Daemon) -> None:
    with VirtioFs(slow.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        with hanging.hang(Opcode.FSYNC):
            submit_fsync(fuse)
            hanging.wait_for_held()
            with pytest.raises(ClosedError):
                device.connection.order(FrontRequest.RESET_DEVICE, ack=True)
    assert closing_lines(slow)[0].startswith("RESET_DEVICE: stopping vring 1: FSYNC on vring 1 has not ended")
