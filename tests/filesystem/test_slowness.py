"""What sleeps on a file system is carried out beside the queue, for as long as it does."""

import contextlib
import fcntl
import os
import pathlib
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from frontend import fuse_abi as abi
from frontend.fuse_abi import Opcode
from frontend.fuse_transport import Ticket
from tests.daemon.hanging import hanging_mount
from tests.daemon.support import wait_until
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, Guest, Mounts, during, needs_root, opened

pytestmark = needs_root         # only root may freeze a file system

FREEZE, THAW = 0xC0045877, 0xC0045878       # ioctls FIFREEZE and FITHAW
WRITES, SIZE = 100, 1 << 19                # that many are in flight at once
QUICK_SIZE = 1 << 17        # far from slow, also where caches and CPUs are crowded
QUEUES = 2                  # each has a thread
SECONDS = 180               # until the pool has not stood still for five, which a busy disk makes it do


@contextlib.contextmanager
def frozen(folder: pathlib.Path) -> Iterator[None]:
    """Inside, whoever changes the file system waits."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, FREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(fd, THAW, 0)
    finally:
        os.close(fd)


@pytest.fixture(params=["ext4", "xfs"])
def guest(request: pytest.FixtureRequest, connect: Connect, mounts: Mounts) -> Guest:
    folder = mounts.of(request.param) / "share"
    folder.mkdir()
    return connect(share=folder, queue_size=512, memory_mib=128)


def slow_classes(guest: Guest) -> int:
    return guest.daemon.statistics()["classes_slow"]


def busy_threads(guest: Guest) -> int:
    numbers = guest.daemon.statistics()
    return numbers["threads"] - numbers["threads_idle"]


def write_all(guest: Guest, node: int, fh: int, size: int = SIZE) -> None:
    """As many WRITEs as there are, at once."""
    data = bytes(size)
    tickets = [guest.fuse.submit(Opcode.WRITE, node, abi.WRITE_IN.pack(fh=fh, offset=number * size, size=size),
                                 data=data, out_size=abi.WRITE_OUT.size, publish=number == WRITES - 1)
               for number in range(WRITES)]
    for ticket in tickets:
        assert not guest.fuse.complete(ticket).error


def make_writes_slow(guest: Guest, node: int, fh: int) -> None:
    """Twice the file system sleeps."""
    body = abi.WRITE_IN.pack(fh=fh, size=4096)
    for attempt in range(10):
        with during(f"attempt {attempt}"):
            with frozen(guest.share):
                tickets = [guest.fuse.submit(Opcode.WRITE, node, body, data=bytes(4096), out_size=abi.WRITE_OUT.size)
                           for _ in range(2)]
                time.sleep(0.02)
            for ticket in tickets:
                assert not guest.fuse.complete(ticket).error
        if slow_classes(guest):
            break
    assert slow_classes(guest) == 1


@pytest.mark.timeout(300)
def test_writes_that_slept_go_to_the_pool_and_back_to_the_worker(guest: Guest) -> None:
    entry, opened = guest.fuse.create(ROOT, "file")
    node, fh = entry.nodeid, opened.fh
    write_all(guest, node, fh)
    make_writes_slow(guest, node, fh)
    deadline = time.monotonic() + SECONDS
    while slow_classes(guest):
        assert time.monotonic() < deadline, "they are still the pool's"
        write_all(guest, node, fh)
    write_all(guest, node, fh)
    guest.fuse.release(node, fh)


def test_writes_to_one_file_that_hang_take_one_thread_and_none_is_lost(guest: Guest) -> None:
    """The file system would have all but one wait for the file's lock. Another file's writes have a thread, too."""
    fuse = guest.fuse
    files = [(entry.nodeid, opened.fh) for entry, opened in (fuse.create(ROOT, "one"), fuse.create(ROOT, "other"))]
    make_writes_slow(guest, *files[0])
    blocks = [bytes([number]) * 4096 for number in range(WRITES)]
    with frozen(guest.share):
        tickets = [fuse.submit(Opcode.WRITE, node, abi.WRITE_IN.pack(fh=fh, offset=number * 4096, size=4096),
                               data=blocks[number], out_size=abi.WRITE_OUT.size)
                   for number in range(WRITES) for node, fh in files]
        time.sleep(0.1)
        wait_until(lambda: busy_threads(guest) == QUEUES + len(files), "one thread for each file")
    for ticket in tickets:
        assert not fuse.complete(ticket).error
    for name, file in zip(("one", "other"), files, strict=True):
        assert (guest.share / name).read_bytes() == b"".join(blocks)
        fuse.release(*file)


LEAST = 4           # threads that a pool has at least
GETFLAGS = 0x80086601       # an ioctl that waits for nothing, but may be one that does, and so is the pool's


def test_writes_to_as_many_files_as_there_are_threads_let_others_pass(connect: Connect, mounts: Mounts) -> None:
    """A thread goes on with the next WRITE to the same file only as long as nothing else has waited."""
    folder = mounts.of("ext4") / "share"
    folder.mkdir()
    guest = connect("--thread-pool-size", str(LEAST), share=folder, queue_size=512, memory_mib=64)
    fuse = guest.fuse
    created = [fuse.create(ROOT, f"file{number}") for number in range(LEAST)]
    files = [(entry.nodeid, opened.fh) for entry, opened in created]
    make_writes_slow(guest, *files[0])
    wait_until(lambda: guest.daemon.statistics()["threads"] == QUEUES + 1, "the end of those that were needed", 30)
    before = guest.daemon.statistics()["queue1_requests"]
    with frozen(folder):
        tickets = [fuse.submit(Opcode.WRITE, node, abi.WRITE_IN.pack(fh=fh, size=4096), data=bytes(4096),
                               out_size=abi.WRITE_OUT.size)
                   for _ in range(WRITES // LEAST) for node, fh in files]
        wait_until(lambda: busy_threads(guest) == QUEUES + LEAST, "a thread for each file")
        other = fuse.submit(Opcode.IOCTL, files[0][0], abi.IOCTL_IN.pack(fh=files[0][1], cmd=GETFLAGS, out_size=8),
                            out_size=abi.IOCTL_OUT.size, out_pages=4096)
        wait_until(lambda: guest.daemon.statistics()["queue1_requests"] == before + len(tickets) + 1, "the other")
        time.sleep(0.02)
    order: list[Ticket] = []
    while len(order) <= len(tickets):
        order += fuse.returned(other.queue)
    assert order.index(other) < WRITES // LEAST, "all of one file were before it"
    for ticket in order:
        assert not fuse.reply(ticket).error
    for node, fh in files:
        fuse.release(node, fh)


TAKEN = """
import os, time
parent = os.getppid()
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
print(flush=True)
while os.getppid() == parent:
    until = time.monotonic() + 0.005
    while time.monotonic() < until:
        pass
    time.sleep(0.005)
"""


def may_take_a_cpu() -> bool:
    """Whether a process here may have a CPU before all others."""
    return not subprocess.run([sys.executable, "-c", TAKEN.partition("print")[0]], check=False,
                              stderr=subprocess.DEVNULL).returncode


def test_a_request_that_took_long_as_its_thread_had_no_cpu_teaches_nothing(connect: Connect, mounts: Mounts) -> None:
    if not may_take_a_cpu():
        pytest.skip("needs a process with a real-time priority")
    guest = connect(share=mounts.tmpfs(), queue_size=512, memory_mib=128)
    cpu = max(os.sched_getaffinity(0))
    for task in pathlib.Path(f"/proc/{guest.daemon.process.pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), {cpu})
    entry, opened = guest.fuse.create(ROOT, "file")
    with subprocess.Popen([sys.executable, "-c", TAKEN], stdout=subprocess.PIPE) as taker:
        os.sched_setaffinity(taker.pid, {cpu})
        try:
            assert taker.stdout is not None
            taker.stdout.readline()
            for _ in range(40):
                write_all(guest, entry.nodeid, opened.fh, QUICK_SIZE)
                assert not slow_classes(guest)
        finally:
            taker.kill()
    guest.fuse.release(entry.nodeid, opened.fh)


# What hangs

HUNG = 300
POOL = 8
LINGER = 5.0        # seconds that a thread of the pool has nothing to do before it ends


def make_all(guest: Guest) -> list[Ticket]:
    """As many MKNODs as there are, at once."""
    body = abi.MKNOD_IN.pack(mode=stat.S_IFREG | 0o600)
    return [guest.fuse.submit(Opcode.MKNOD, ROOT, body, f"new{number}\0".encode(), out_size=abi.ENTRY_OUT.size)
            for number in range(HUNG)]


def finish_all(guest: Guest, tickets: list[Ticket]) -> None:
    for ticket in tickets:
        reply = guest.fuse.complete(ticket)
        assert not reply.error
        guest.fuse.lookups[abi.ENTRY_OUT.unpack(reply.data).nodeid] = 1
    assert len(os.listdir(guest.share)) == HUNG + 1


@pytest.fixture(params=["ext4", "xfs"])
def hangs(request: pytest.FixtureRequest, mounts: Mounts) -> pathlib.Path:
    """A share that can be frozen, with one file."""
    folder = mounts.of(request.param) / "share"
    folder.mkdir()
    (folder / "file").touch()
    return folder


def test_what_hangs_takes_no_more_threads_than_it_may_and_nobody_else_waits(connect: Connect,
                                                                          hangs: pathlib.Path) -> None:
    """Some that hang are needed to find out, and as many again have the pool to themselves."""
    guest = connect("--thread-pool-size", str(POOL), share=hangs, queue_size=1024, memory_mib=64)
    guest.fuse.lookup(ROOT, "file")
    with frozen(hangs):
        tickets = make_all(guest)
        for _ in range(100):
            guest.fuse.getattr(guest.fuse.lookup(ROOT, "file").nodeid)
            time.sleep(0.005)
        numbers = guest.daemon.statistics()
        assert numbers["classes_slow"] == 1
        assert numbers["threads"] <= 2 * POOL + 8
        assert len(guest.daemon.open_files()) < 100
    finish_all(guest, tickets)


def test_threads_that_come_back_from_what_hung_keep_nothing_that_others_wait_for(connect: Connect,
                                                                               hangs: pathlib.Path) -> None:
    """Each has the place of a request to itself while it serves a queue; there are few here."""
    guest = connect("--max-requests", "64", share=hangs, queue_size=1024, memory_mib=64)
    with frozen(hangs):
        tickets = make_all(guest)
        time.sleep(0.5)
    began = time.monotonic()
    finish_all(guest, tickets)
    assert time.monotonic() - began < LINGER - 1


def test_a_file_system_that_hangs_takes_no_lookups_elsewhere_with_it(connect: Connect, mounts: Mounts) -> None:
    """Each needs a descriptor, for which that of a file of the hanging one would be closed: it was not used lately.
    Whoever looks first finds out that it hangs.
    """
    share = mounts.tmpfs()
    for number in range(HUNG):
        (share / f"file{number}").touch()
    with hanging_mount(share / "hanging", {f"file{number}": b"" for number in range(HUNG)}) as hanging:
        guest = connect("--rlimit-nofile", "512", "--descriptor-timeout", "0", share=share, queue_size=1024,
                        memory_mib=64)
        fuse = guest.fuse
        folder = fuse.lookup(ROOT, "hanging").nodeid
        for number in range(HUNG):
            fuse.lookup(folder, f"file{number}")
        with hanging.hang(Opcode.GETATTR, Opcode.LOOKUP):
            tickets = [fuse.submit(Opcode.LOOKUP, ROOT, f"file{number}\0".encode(), out_size=abi.ENTRY_OUT.size)
                       for number in range(HUNG)]
            hanging.wait_for_held()
            while sum(ticket.used_len is None for ticket in tickets) > 1:
                assert fuse.returned(tickets[0].queue), "they wait"
        for ticket in tickets:
            reply = fuse.complete(ticket)
            assert not reply.error
            fuse.lookups[abi.ENTRY_OUT.unpack(reply.data).nodeid] += 1


LITTLE = 1 << 16    # memory that is no room for a thread's stack


def test_a_thread_that_could_not_be_had_is_asked_for_again(connect: Connect, tmp_path: pathlib.Path) -> None:
    """All that there are hang when the next request comes."""
    with hanging_mount(tmp_path / "hanging", {f"file{number}": b"" for number in range(POOL)}) as hanging:
        guest = connect(share=hanging.path)
        fuse, process = guest.fuse, guest.daemon.process.pid
        files = [opened(fuse, f"file{number}") for number in range(POOL)]
        tickets: list[Ticket] = []

        def sync_next() -> None:
            node, fh = files[len(tickets)]
            tickets.append(fuse.submit(Opcode.FSYNC, node, abi.FSYNC_IN.pack(fh=fh)))

        usual = resource.prlimit(process, resource.RLIMIT_AS)
        status = pathlib.Path(f"/proc/{process}/status").read_text()
        size = int(status.partition("VmSize:")[2].split()[0]) << 10
        with hanging.hang(Opcode.FSYNC):
            resource.prlimit(process, resource.RLIMIT_AS, (size + LITTLE, usual[1]))
            while guest.daemon.statistics()["threads_idle"]:    # some may have the stack of one that has ended
                sync_next()
                hanging.wait_for_held(len(tickets))
            sync_next()
            resource.prlimit(process, resource.RLIMIT_AS, usual)
            hanging.wait_for_held(len(tickets))
        for ticket in tickets:
            assert not fuse.complete(ticket).error


def threads_of(guest: Guest) -> int:
    return len(guest.daemon.children_of(""))


def mappings(guest: Guest) -> int:
    return len(pathlib.Path(f"/proc/{guest.daemon.process.pid}/maps").read_text().splitlines())


def test_the_threads_of_bursts_of_slow_requests_leave_nothing(connect: Connect, hangs: pathlib.Path) -> None:
    """The C library keeps the stacks of some for those that come next: what each burst adds must not be left. How many
    there are above those of the pool depends on how soon the file system is found out.
    """
    guest = connect("--thread-pool-size", str(POOL), share=hangs, queue_size=1024, memory_mib=64)
    node = guest.fuse.lookup(ROOT, "file").nodeid
    body = abi.SETATTR_IN.pack(valid=abi.FATTR_MODE, mode=0o600)
    usual, peaks, left = threads_of(guest), [], []
    for _ in range(3):
        with frozen(hangs):
            tickets = [guest.fuse.submit(Opcode.SETATTR, node, body, out_size=abi.ATTR_OUT.size)
                       for _ in range(HUNG)]
            wait_until(lambda: threads_of(guest) >= usual + POOL - 1, "a burst", 30)
            time.sleep(0.1)
            peaks.append(threads_of(guest))
        for ticket in tickets:
            assert not guest.fuse.complete(ticket).error
        # They end when they have had nothing to do for a while.
        wait_until(lambda: threads_of(guest) <= usual, "the end of the threads", 30)
        left.append(mappings(guest))
    # Each thread has a stack and a guard.
    assert left[-1] < left[0] + 2 * (max(peaks) - peaks[0]) + POOL
