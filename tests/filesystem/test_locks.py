"""GETLK, SETLK and SETLKW: locks of the guest that hold on the host."""

import errno
import fcntl
import itertools
import os
import pathlib
import random
from collections.abc import Callable

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient, Ticket
from frontend.fuse_abi import FUSE_RELEASE_FLOCK_UNLOCK, FUSE_RELEASE_FLUSH, Opcode
from tests.conftest import StartDaemon
from tests.daemon.hanging import HangingMount
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, Guest, error_of, needs_root, opened, refused, settle

READ, WRITE, FREE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
END = (1 << 63) - 1
ONE, OTHER = 0x1111, 0x2222         # owners


@pytest.fixture
def guest(connect: Connect) -> Guest:
    guest = connect("--posix-lock", "--flock", num_queues=2)
    (guest.share / "file").write_bytes(b"x" * 1000)
    return guest


@pytest.fixture
def file(guest: Guest) -> tuple[int, int]:
    node = guest.fuse.lookup(ROOT, "file").nodeid
    return node, guest.fuse.open(node, os.O_RDWR).fh


def host_lock(path: pathlib.Path, kind: int, start: int = 0, length: int = 0) -> bool:
    """Whether the host could have this lock now; it does not keep it."""
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, (fcntl.LOCK_EX if kind == WRITE else fcntl.LOCK_SH) | fcntl.LOCK_NB, length, start)
        except BlockingIOError:
            return False
        return True


def waiting(fuse: FuseClient, file: tuple[int, int], owner: int, kind: int = WRITE, start: int = 0, end: int = END,
            flock: bool = False) -> Ticket:
    """A SETLKW on the second queue, on its way."""
    return fuse.submit(Opcode.SETLKW, file[0], fuse.lock_body(file[1], owner, kind, start, end, 1, flock), queue=2)


# POSIX locks

def test_owners_exclude_each_other_and_the_host(guest: Guest, file: tuple[int, int]) -> None:
    fuse, path = guest.fuse, guest.share / "file"
    fuse.setlk(*file, ONE, WRITE, 100, 199)
    for kind in (READ, WRITE):
        with refused(errno.EAGAIN):
            fuse.setlk(*file, OTHER, kind, 150, 300)
        assert not host_lock(path, kind, 199, 1)
    fuse.setlk(*file, OTHER, WRITE, 200, 300)
    fuse.setlk(*file, OTHER, WRITE, 0, 99)
    assert host_lock(path, WRITE, 301, 10)
    fuse.setlk(*file, ONE, FREE, 150, 199)
    fuse.setlk(*file, OTHER, READ, 150, 199)
    with refused(errno.EAGAIN):
        fuse.setlk(*file, OTHER, READ, 149, 149)


def test_readers_share_and_the_hosts_locks_hold_in_the_guest(guest: Guest, file: tuple[int, int]) -> None:
    fuse, path = guest.fuse, guest.share / "file"
    fuse.setlk(*file, ONE, READ)
    fuse.setlk(*file, OTHER, READ)
    assert host_lock(path, READ) and not host_lock(path, WRITE)
    fuse.setlk(*file, ONE, FREE)
    fuse.setlk(*file, OTHER, FREE)
    with path.open("r+b") as host:
        fcntl.lockf(host, fcntl.LOCK_EX, 10, 20)
        with refused(errno.EAGAIN):
            fuse.setlk(*file, ONE, READ, 29, 29)
        fuse.setlk(*file, ONE, READ, 30, END)
    fuse.setlk(*file, ONE, WRITE)


def test_getlk_tells_what_is_in_the_way(guest: Guest, file: tuple[int, int]) -> None:
    fuse = guest.fuse
    assert fuse.getlk(*file, OTHER, WRITE).type == FREE
    fuse.setlk(*file, ONE, WRITE, 100, 199)
    found = fuse.getlk(*file, OTHER, READ, 0, 150)
    assert (found.type, found.start, found.end) == (WRITE, 100, 199)
    assert fuse.getlk(*file, OTHER, WRITE, 200, END).type == FREE
    assert fuse.getlk(*file, ONE, WRITE, 0, END).type == FREE      # its own locks are in nobody's way
    fuse.setlk(*file, ONE, READ, 500, END)
    found = fuse.getlk(*file, OTHER, WRITE, 600, 700)
    assert (found.type, found.start, found.end) == (READ, 500, END)


@pytest.mark.parametrize("how", ["flush", "release", "destroy", "disconnect"])
def test_locks_end_with_their_owner(guest: Guest, file: tuple[int, int], how: str) -> None:
    fuse, path = guest.fuse, guest.share / "file"
    second = fuse.open(file[0], os.O_RDWR).fh
    fuse.setlk(*file, ONE, WRITE, 0, 99)
    fuse.setlk(file[0], second, OTHER, WRITE, 100, END)
    if how == "flush":
        fuse.flush(file[0], second, lock_owner=ONE)     # of any of its descriptors
        assert host_lock(path, WRITE, 0, 100) and not host_lock(path, WRITE, 100)
    elif how == "release":
        fuse.release(*file, release_flags=FUSE_RELEASE_FLUSH, lock_owner=ONE)
        assert host_lock(path, WRITE, 0, 100) and not host_lock(path, WRITE, 100)
    elif how == "destroy":
        fuse.destroy()
        assert host_lock(path, WRITE)
    else:
        fuse.init()
        assert host_lock(path, WRITE)
    if how in ("flush", "release"):
        fuse.flush(file[0], second, lock_owner=OTHER)
    assert guest.daemon.statistics()["lock_owners"] == 0


def test_the_locks_of_an_open_file_description_end_with_its_release(guest: Guest, file: tuple[int, int]) -> None:
    """A guest sends neither an unlock nor a FLUSH of their owner; those of others stay."""
    fuse, path = guest.fuse, guest.share / "file"
    second = fuse.open(file[0], os.O_RDWR).fh
    fuse.setlk(file[0], second, ONE, WRITE, 0, 99)
    fuse.setlk(*file, OTHER, WRITE, 100, END)
    fuse.flush(file[0], second, lock_owner=OTHER + 1)
    assert not host_lock(path, WRITE, 0, 100)
    fuse.release(file[0], second)
    assert host_lock(path, WRITE, 0, 100) and not host_lock(path, WRITE, 100)
    fuse.release(*file)
    assert host_lock(path, WRITE)
    assert guest.daemon.statistics()["lock_owners"] == 0


def test_a_wait_ends_when_the_lock_is_free_and_holds_nobody_up(guest: Guest, file: tuple[int, int]) -> None:
    fuse = guest.fuse
    fuse.setlk(*file, ONE, WRITE)
    tickets = [waiting(fuse, file, OTHER + number, WRITE) for number in range(10)]
    for queue in (1, 2):
        fuse.getattr(file[0], queue=queue)
    guest.daemon.wait_for(lock_waits=10)
    assert all(ticket.used_len is None for ticket in tickets)
    fuse.setlk(*file, ONE, FREE)
    left = list(range(10))
    while left:
        done = [number for number in left if tickets[number].used_len is not None]
        if not done:
            assert fuse.returned(2), "nobody got the lock"
        for number in done:     # one at a time, as the next one waits for this one
            assert error_of(fuse.reply(tickets[number])) == ""
            fuse.setlk(*file, OTHER + number, FREE)
            left.remove(number)
    guest.daemon.wait_for(lock_waits=0)


def test_a_wait_for_a_host_process_ends_when_that_lets_go(guest: Guest, file: tuple[int, int]) -> None:
    with (guest.share / "file").open("r+b") as host:
        fcntl.lockf(host, fcntl.LOCK_EX)
        ticket = waiting(guest.fuse, file, ONE)
        guest.daemon.wait_for(lock_waits=1)
    assert error_of(guest.fuse.complete(ticket)) == ""


Cancel = Callable[[FuseClient, tuple[int, int], Ticket], object]

CANCELS: dict[str, Cancel] = {
    "INTERRUPT": lambda fuse, _, ticket: fuse.interrupt(ticket.unique),
    "FLUSH of its owner": lambda fuse, file, _: fuse.flush(*file, lock_owner=OTHER),
    "DESTROY": lambda fuse, *_: fuse.destroy(),
    "INIT": lambda fuse, *_: fuse.init(),
}


@pytest.mark.parametrize("cancel", CANCELS.values(), ids=CANCELS)
def test_a_wait_is_cut_short(guest: Guest, cancel: Cancel) -> None:
    fuse = guest.fuse
    for _ in range(5):
        node = fuse.lookup(ROOT, "file").nodeid
        file = node, fuse.open(node, os.O_RDWR).fh
        fuse.setlk(*file, ONE, WRITE)
        ticket = waiting(fuse, file, OTHER)
        guest.daemon.wait_for(lock_waits=1)
        cancel(fuse, file, ticket)
        assert error_of(fuse.complete(ticket)) in ("EINTR", "")     # "": the other lock was gone first
        guest.daemon.wait_for(lock_waits=0)
        fuse.init()
        assert host_lock(guest.share / "file", WRITE)


@pytest.mark.parametrize("end", ["FLUSH", "RELEASE"])
def test_the_locks_of_an_owner_end_at_once_though_it_waits_for_more(guest: Guest, end: str) -> None:
    """Each wait has the owner's description open until its thread is through."""
    fuse = guest.fuse
    fuse.setlk(*opened(fuse, "file"), OTHER, WRITE, 20, 29)
    for _ in range(5):
        file = opened(fuse, "file")
        fuse.setlk(*file, ONE, WRITE, 0, 9)
        tickets = [waiting(fuse, file, ONE, WRITE, 20, 29) for _ in range(50)]
        guest.daemon.wait_for(lock_waits=50)
        if end == "FLUSH":
            fuse.flush(*file, lock_owner=ONE)
        else:
            fuse.release(*file)
        assert host_lock(guest.share / "file", WRITE, 0, 10)
        assert {error_of(fuse.complete(ticket)) for ticket in tickets} == {"EINTR"}


def test_an_interrupt_may_overtake_what_it_is_meant_for(guest: Guest, file: tuple[int, int]) -> None:
    fuse = guest.fuse
    fuse.setlk(*file, ONE, WRITE)
    for _ in range(20):
        ticket = waiting(fuse, file, OTHER)
        fuse.interrupt(ticket.unique)
        assert error_of(fuse.complete(ticket)) == "EINTR"
    coming = fuse.unique + 4    # the INTERRUPT has one, too
    fuse.interrupt(coming)
    ticket = waiting(fuse, file, OTHER)
    assert (ticket.unique, error_of(fuse.complete(ticket))) == (coming, "EINTR")


@pytest.mark.parametrize("end", ["INIT", "DESTROY"])
def test_no_wait_outlives_its_session_however_new_it_is(guest: Guest, end: str) -> None:
    fuse = guest.fuse
    for _ in range(30):
        node = fuse.lookup(ROOT, "file").nodeid
        file = node, fuse.open(node, os.O_RDWR).fh
        fuse.setlk(*file, ONE, WRITE)
        ticket = waiting(fuse, file, OTHER)
        CANCELS[end](fuse, file, ticket)
        # "": it came when all was over
        assert error_of(fuse.complete(ticket)) in ("EINTR", "EIO", "EBADF", "ESTALE", "")
        fuse.init()


def test_stopping_the_device_cuts_waits_short(guest: Guest, file: tuple[int, int]) -> None:
    fuse = guest.fuse
    fuse.setlk(*file, ONE, WRITE)
    tickets = [waiting(fuse, file, OTHER + number) for number in range(3)]
    guest.daemon.wait_for(lock_waits=3)
    guest.device.stop()
    guest.device.start()
    for ticket in tickets:
        assert error_of(fuse.complete(ticket)) == "EINTR"
    with refused(errno.EAGAIN):
        fuse.setlk(*file, OTHER, WRITE)     # the locks themselves are still there


# Who is in the way

def test_getlk_names_the_process_of_the_same_guest(guest: Guest, file: tuple[int, int]) -> None:
    fuse = guest.fuse
    fuse.setlk(*file, ONE, WRITE, 0, 99, lock_pid=111)
    fuse.setlk(*file, OTHER, READ, 200, 299, lock_pid=222)
    assert fuse.getlk(*file, OTHER, WRITE, 50, 60).pid == 111
    assert fuse.getlk(*file, ONE, WRITE, 250, END).pid == 222
    with (guest.share / "file").open("r+b") as host:
        fcntl.lockf(host, fcntl.LOCK_EX, 10, 500)
        assert fuse.getlk(*file, ONE, WRITE, 505, 505).pid == 0
    fuse.setlk(*file, ONE, FREE, 50, 69, lock_pid=111)
    assert fuse.getlk(*file, OTHER, WRITE, 50, 69).type == FREE
    assert fuse.getlk(*file, OTHER, WRITE, 69, 70).pid == 111


def test_what_an_owner_has_locked_is_known_to_the_byte(guest: Guest, file: tuple[int, int]) -> None:
    """Compared with what the host says of random locks, which overlap, split and join others."""
    chosen = random.Random(11)
    fuse, size = guest.fuse, 40
    held = {owner: [FREE] * size for owner in (ONE, OTHER)}
    for _ in range(1500):
        owner, kind = chosen.choice((ONE, OTHER)), chosen.choice((READ, WRITE, FREE))
        start, end = sorted((chosen.randrange(size), chosen.randrange(size)))
        against = held[OTHER if owner == ONE else ONE][start:end + 1]
        if kind != FREE and any(other == WRITE or (other == READ and kind == WRITE) for other in against):
            with refused(errno.EAGAIN):
                fuse.setlk(*file, owner, kind, start, end, lock_pid=owner)
        else:
            fuse.setlk(*file, owner, kind, start, end, lock_pid=owner)
            held[owner][start:end + 1] = [kind] * (end + 1 - start)
        place = chosen.randrange(size)
        found = fuse.getlk(*file, OTHER, WRITE, place, place)
        assert found.type == held[ONE][place]
        assert found.pid == (ONE if found.type != FREE else 0)
    runs = [kind for owner in held for kind, _ in itertools.groupby(held[owner]) if kind != FREE]
    assert guest.daemon.statistics()["lock_ranges"] == len(runs)


@pytest.mark.parametrize("processes", [2, 3, 10])
def test_a_wait_that_would_never_end_is_refused(guest: Guest, file: tuple[int, int], processes: int) -> None:
    """Each of some processes waits for the next one; the last would close the circle."""
    fuse = guest.fuse
    owners = range(ONE, ONE + processes)
    for number, owner in enumerate(owners):
        fuse.setlk(*file, owner, WRITE, number, number)
    waits = []
    for number, owner in enumerate(owners[:-1]):
        waits.append(waiting(fuse, file, owner, WRITE, number + 1, number + 1))
        guest.daemon.wait_for(lock_waits=number + 1)
    with refused(errno.EDEADLK):
        fuse.setlk(*file, owners[-1], WRITE, 0, 0, wait=True)
    fuse.setlk(*file, owners[-1], FREE, processes - 1, processes - 1)
    for number, ticket in reversed(list(enumerate(waits))):     # and it goes on, one after the other
        assert error_of(fuse.complete(ticket)) == ""
        fuse.setlk(*file, owners[number], FREE)
    guest.daemon.wait_for(lock_waits=0)


@pytest.mark.parametrize("readers, found", [(200, True), (300, False)])
def test_the_search_for_a_deadlock_has_an_end(guest: Guest, file: tuple[int, int], readers: int, found: bool) -> None:
    """It is made while all locks stand still. What it has not found in so many owners waits, as where the host sees to
    it alone.
    """
    fuse = guest.fuse
    fuse.setlk(*file, ONE, WRITE, 1, 1)
    for number in range(readers):
        fuse.setlk(*file, OTHER + number, READ, 0, 0)
    tickets = [waiting(fuse, file, OTHER, WRITE, 1, 1)]
    guest.daemon.wait_for(lock_waits=1)
    tickets.append(waiting(fuse, file, ONE, WRITE, 0, 0))
    if found:
        assert error_of(fuse.complete(tickets.pop())) == errno.errorcode[errno.EDEADLK]
    else:
        guest.daemon.wait_for(lock_waits=2)
    guest.fuse.init()
    ended(guest, tickets)


def test_two_readers_that_both_want_to_write_do_not_wait_for_each_other(guest: Guest, file: tuple[int, int]) -> None:
    fuse = guest.fuse
    fuse.setlk(*file, ONE, READ)
    fuse.setlk(*file, OTHER, READ)
    ticket = waiting(fuse, file, ONE)
    guest.daemon.wait_for(lock_waits=1)
    with refused(errno.EDEADLK):
        fuse.setlk(*file, OTHER, WRITE, wait=True)
    fuse.flush(*file, lock_owner=OTHER)
    assert error_of(fuse.complete(ticket)) == ""


def test_a_wait_is_no_deadlock_as_long_as_somebody_goes_on(guest: Guest, file: tuple[int, int]) -> None:
    """Waits for an owner that waits for none of them, over two files, and one that was cancelled."""
    fuse = guest.fuse
    (guest.share / "second").touch()
    node = fuse.lookup(ROOT, "second").nodeid
    second = node, fuse.open(node, os.O_RDWR).fh
    fuse.setlk(*file, ONE, WRITE)
    fuse.setlk(*second, OTHER, WRITE)
    cancelled = waiting(fuse, second, ONE)
    guest.daemon.wait_for(lock_waits=1)
    with refused(errno.EDEADLK):
        fuse.setlk(*file, OTHER, WRITE, wait=True)
    fuse.interrupt(cancelled.unique)
    assert error_of(fuse.complete(cancelled)) == "EINTR"
    tickets = [waiting(fuse, file, owner) for owner in (OTHER, OTHER + 1, OTHER + 2)]
    guest.daemon.wait_for(lock_waits=3)
    fuse.flush(*file, lock_owner=ONE)
    left = list(tickets)
    while left:
        done = next((ticket for ticket in left if ticket.used_len is not None), None)
        if done is None:
            assert fuse.returned(2)
            continue
        assert error_of(fuse.reply(done)) == ""
        left.remove(done)
        fuse.flush(*file, lock_owner=OTHER + tickets.index(done))


# Waits on a file system that takes its time

@pytest.fixture
def slow(hanging: HangingMount, connect: Connect) -> tuple[Guest, tuple[int, int]]:
    guest = connect("--posix-lock", "--thread-pool-size", "4", share=hanging.path, num_queues=2)
    hanging.locked = True
    return guest, opened(guest.fuse, "file")


@needs_root
def test_a_flush_ends_a_wait_that_has_yet_to_begin(slow: tuple[Guest, tuple[int, int]], hanging: HangingMount) -> None:
    """It would get a lock that ends with it, and the guest be told that it has it."""
    guest, file = slow
    with hanging.hang(Opcode.SETLK):
        ticket = waiting(guest.fuse, file, OTHER)
        hanging.wait_for_held()
        guest.fuse.flush(*file, lock_owner=OTHER)
    assert error_of(guest.fuse.complete(ticket)) == "EINTR"
    guest.daemon.wait_for(lock_waits=0, lock_owners=0)


@needs_root
def test_a_wait_that_cannot_be_cut_short_takes_no_thread_of_the_pool(slow: tuple[Guest, tuple[int, int]],
                                                                    hanging: HangingMount) -> None:
    guest, file = slow
    with hanging.hang(Opcode.SETLKW):
        ticket = waiting(guest.fuse, file, OTHER)
        hanging.wait_for_held()
        guest.fuse.interrupt(ticket.unique)
        for _ in range(30):
            guest.fuse.fsync(*file)
            settle(0.01)
        assert ticket.used_len is None
    guest.fuse.complete(ticket)
    guest.daemon.wait_for(lock_waits=0)


# Very many waits

MANY = 1000


@pytest.fixture
def crowded(connect: Connect) -> tuple[Guest, tuple[int, int], list[Ticket]]:
    """A guest whose one owner has a lock, and a thousand others wait for it."""
    guest = connect("--posix-lock", "--flock", num_queues=2, queue_size=1024, memory_mib=128)
    (guest.share / "file").write_bytes(b"x" * 1000)
    node = guest.fuse.lookup(ROOT, "file").nodeid
    file = node, guest.fuse.open(node, os.O_RDWR).fh
    guest.fuse.setlk(*file, ONE, WRITE)
    return guest, file, [waiting(guest.fuse, file, OTHER + number) for number in range(MANY)]


def test_a_thousand_waits_hold_nobody_up(crowded: tuple[Guest, tuple[int, int], list[Ticket]]) -> None:
    """Their own queue goes on, too, and none of them is answered meanwhile."""
    guest, file, tickets = crowded
    guest.daemon.wait_for(lock_waits=MANY)
    for queue in (1, 2):
        for _ in range(100):
            assert guest.fuse.read(*file, 0, 4096, queue=queue) == b"x" * 1000
            assert guest.fuse.getattr(file[0], queue=queue).attr_size == 1000
            guest.fuse.lookup(ROOT, "file", queue=queue)
    assert guest.daemon.statistics()["lock_waits"] == MANY
    assert all(ticket.used_len is None for ticket in tickets)
    guest.fuse.init()
    ended(guest, tickets)


def ended(guest: Guest, tickets: list[Ticket]) -> None:
    """All waits are answered and over, and so are the locks."""
    assert {error_of(guest.fuse.complete(ticket)) for ticket in tickets} <= {"EINTR", ""}
    assert all(ticket.used_len for ticket in tickets)
    guest.daemon.wait_for(lock_waits=0)


def each_flushes(guest: Guest, file: tuple[int, int]) -> None:
    for number in range(MANY):
        guest.fuse.flush(*file, lock_owner=OTHER + number)


def each_releases(guest: Guest, file: tuple[int, int]) -> None:
    """Another handle each time, as they all came by one that stays open."""
    for number in range(MANY):
        fh = guest.fuse.open(file[0], os.O_RDWR).fh
        guest.fuse.release(file[0], fh, release_flags=FUSE_RELEASE_FLUSH, lock_owner=OTHER + number)


def rings_stop(guest: Guest, _: tuple[int, int]) -> None:
    guest.device.stop()
    guest.device.start()


CROWD_ENDS: dict[str, Callable[[Guest, tuple[int, int]], object]] = {
    "FLUSH": each_flushes,
    "RELEASE": each_releases,
    "DESTROY": lambda guest, _: guest.fuse.destroy(),
    "INIT": lambda guest, _: guest.fuse.init(),
    "the stop of their ring": rings_stop,
}


@pytest.mark.parametrize("end", CROWD_ENDS.values(), ids=CROWD_ENDS)
def test_a_thousand_waits_end_with_what_they_hang_on(crowded: tuple[Guest, tuple[int, int], list[Ticket]],
                                                     end: Callable[[Guest, tuple[int, int]], object]) -> None:
    guest, file, tickets = crowded
    guest.daemon.wait_for(lock_waits=MANY)
    end(guest, file)
    ended(guest, tickets)
    guest.fuse.init()
    guest.daemon.wait_for(lock_owners=0)
    assert host_lock(guest.share / "file", WRITE)


@pytest.mark.parametrize("kind, start, end", [(3, 0, END), (0xffffffff, 0, END), (WRITE, 10, 9), (WRITE, 0, 1 << 63),
                                              (WRITE, (1 << 64) - 1, (1 << 64) - 1), (WRITE, 1 << 63, (1 << 64) - 1)])
def test_locks_that_are_none_are_refused(guest: Guest, file: tuple[int, int], kind: int, start: int, end: int) -> None:
    for wait in (False, True):
        with refused(errno.EINVAL):
            guest.fuse.setlk(*file, ONE, kind, start, end, wait=wait)
    with refused(errno.EINVAL):
        guest.fuse.getlk(*file, ONE, kind, start, end)
    assert host_lock(guest.share / "file", WRITE)


def test_there_is_a_bound_on_waits(connect: Connect) -> None:
    guest = connect("--posix-lock", "--max-blocked-locks", "5")
    (guest.share / "file").touch()
    node = guest.fuse.lookup(ROOT, "file").nodeid
    file = node, guest.fuse.open(node, os.O_RDWR).fh
    guest.fuse.setlk(*file, ONE, WRITE)
    body = [guest.fuse.lock_body(file[1], OTHER + number, WRITE, 0, END, 1, False) for number in range(8)]
    tickets = [guest.fuse.submit(Opcode.SETLKW, node, body[number]) for number in range(8)]
    failed: list[Ticket] = []
    while len(failed) < 3:
        failed += guest.fuse.returned(1)
    assert {error_of(guest.fuse.reply(ticket)) for ticket in failed} == {"ENOLCK"}
    guest.fuse.init()
    for ticket in tickets:
        if ticket not in failed:
            guest.fuse.complete(ticket)


def test_there_is_a_bound_on_locked_ranges(connect: Connect) -> None:
    """Each takes memory of the host's. Whatever leaves no more of them than there were is allowed."""
    guest = connect("--posix-lock", "--max-locks", "5", num_queues=2)
    (guest.share / "file").touch()
    node = guest.fuse.lookup(ROOT, "file").nodeid
    file = node, guest.fuse.open(node, os.O_RDWR).fh
    for number in range(5):
        guest.fuse.setlk(*file, ONE + number % 2, WRITE, 100 * number, 100 * number + 9)
    for owner in (ONE, OTHER):
        with refused(errno.ENOLCK):
            guest.fuse.setlk(*file, owner, WRITE, 1000, 1000)
    assert error_of(guest.fuse.complete(waiting(guest.fuse, file, OTHER, WRITE, 1000, 1000))) == "ENOLCK"
    with refused(errno.ENOLCK):
        guest.fuse.setlk(*file, ONE, FREE, 5, 5)
    assert not host_lock(guest.share / "file", WRITE, 5, 1)
    assert host_lock(guest.share / "file", WRITE, 1000, 1)
    guest.fuse.setlk(*file, ONE, FREE, 5, 9)
    guest.fuse.setlk(*file, ONE, FREE, 0, 4)
    guest.fuse.setlk(*file, OTHER, WRITE, 1000, 1000)
    for owner in (ONE, ONE + 1, OTHER):
        guest.fuse.flush(*file, lock_owner=owner)
    guest.daemon.wait_for(lock_owners=0, lock_ranges=0)


def test_locks_of_what_cannot_be_opened_count_no_descriptor(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--posix-lock")
    (daemon.share / "file").touch()
    os.mkfifo(daemon.share / "fifo")
    (daemon.share / "link").symlink_to("file")
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        nodes = [fuse.lookup(ROOT, name).nodeid for name in ("fifo", "link")]
        for node in (*nodes, ROOT):
            for _ in range(3):
                with refused(errno.ENXIO, errno.EISDIR, errno.EBADF, errno.EINVAL):
                    fuse.setlk(node, 0, ONE, WRITE)
        numbers = daemon.statistics()
    assert (numbers["files_open"], numbers["lock_owners"]) == (0, 0)


def test_locks_on_a_read_only_share_read(connect: Connect) -> None:
    guest = connect("--posix-lock", "--readonly")
    (guest.share / "file").write_bytes(b"data")
    node = guest.fuse.lookup(ROOT, "file").nodeid
    fh = guest.fuse.open(node).fh
    guest.fuse.setlk(node, fh, ONE, READ)
    assert not host_lock(guest.share / "file", WRITE)
    with refused(errno.EBADF, errno.EROFS):
        guest.fuse.setlk(node, fh, ONE, WRITE)


# flock

def test_flock_excludes_by_open_file(guest: Guest, file: tuple[int, int]) -> None:
    fuse, path = guest.fuse, guest.share / "file"
    second = fuse.open(file[0], os.O_RDWR).fh
    fuse.setlk(*file, ONE, WRITE, flock=True)
    with refused(errno.EAGAIN):
        fuse.setlk(file[0], second, ONE, READ, flock=True)
    with path.open() as host, pytest.raises(BlockingIOError):
        fcntl.flock(host, fcntl.LOCK_SH | fcntl.LOCK_NB)
    fuse.setlk(*file, ONE, READ, flock=True)
    fuse.setlk(file[0], second, ONE, READ, flock=True)
    fuse.release(*file, release_flags=FUSE_RELEASE_FLOCK_UNLOCK)
    with path.open() as host:
        fcntl.flock(host, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            fcntl.flock(host, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fuse.setlk(file[0], second, ONE, FREE, flock=True)
    with path.open() as host:
        fcntl.flock(host, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_wait_for_a_flock_ends_when_it_is_free(guest: Guest, file: tuple[int, int]) -> None:
    fuse = guest.fuse
    second = fuse.open(file[0], os.O_RDWR).fh
    fuse.setlk(*file, ONE, WRITE, flock=True)
    ticket = waiting(fuse, (file[0], second), OTHER, flock=True)
    guest.daemon.wait_for(lock_waits=1)
    fuse.setlk(*file, ONE, FREE, flock=True)
    assert error_of(fuse.complete(ticket)) == ""


def test_a_release_cuts_a_wait_for_a_flock_short(guest: Guest, file: tuple[int, int]) -> None:
    fuse = guest.fuse
    second = fuse.open(file[0], os.O_RDWR).fh
    fuse.setlk(*file, ONE, WRITE, flock=True)
    ticket = waiting(fuse, (file[0], second), OTHER, flock=True)
    guest.daemon.wait_for(lock_waits=1)
    fuse.release(file[0], second)
    assert error_of(fuse.complete(ticket)) == "EINTR"
    fuse.release(*file)
    guest.daemon.wait_for(files_open=0)


def test_flock_with_a_bad_handle_or_kind_is_refused(guest: Guest, file: tuple[int, int]) -> None:
    for fh in (0, file[1] + 1, END):
        with refused(errno.EBADF):
            guest.fuse.setlk(file[0], fh, ONE, WRITE, flock=True)
    with refused(errno.EINVAL):
        guest.fuse.setlk(*file, ONE, 3, flock=True)


@pytest.mark.parametrize("option, flock", [("--posix-lock", True), ("--flock", False)])
def test_only_the_kind_that_was_asked_for_reaches_the_host(connect: Connect, option: str, flock: bool) -> None:
    guest = connect(option)
    (guest.share / "file").touch()
    node = guest.fuse.lookup(ROOT, "file").nodeid
    fh = guest.fuse.open(node, os.O_RDWR).fh
    with refused(errno.ENOSYS):
        guest.fuse.setlk(node, fh, ONE, WRITE, flock=flock)
    guest.fuse.setlk(node, fh, ONE, WRITE, flock=not flock)
