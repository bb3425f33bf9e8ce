"""What requests cost: how many system calls strace sees, what they are given, and that idle threads make none."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from frontend.fuse_abi import FUSE_ROOT_ID
from frontend.load import Generator
from frontend.operations import Op, getattr_op, lookup_op, read_op, write_op
from tests.running import LONG, Daemon

PAGE, MIB = 4096, 1 << 20
TIMES, TRIES = 100, 5
DEEP = 256
IDLE = 10.0 if LONG else 3.0
LINGER = 6.0        # for so long threads that are not needed any more wait for work, and then end
TRANSFERS = ("read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2")
IOVEC = struct.Struct("=QQ")


class Call(NamedTuple):
    thread: int
    name: str
    arguments: list[str]
    result: str


def ahead_of_all_else(process: int) -> None:
    """Has a process wait for no CPU that others are busy on, where we may."""
    for task in pathlib.Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.sched_setscheduler(int(task.name), os.SCHED_RR, os.sched_param(1))


@contextlib.contextmanager
def traced(daemon: Daemon, folder: pathlib.Path, *words: str) -> Iterator[list[Call]]:
    """Fills in the system calls that the daemon makes in the block. Arguments are numbers, as they were given."""
    if not shutil.which("strace"):
        pytest.skip("there is no strace to see system calls with")
    output = folder / "calls"
    command = ["strace", "-f", "-e", "signal=none", "-e", "raw=all", *words, "-o", str(output),
               "-p", str(daemon.process.pid)]
    calls: list[Call] = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr
        for process in (daemon.process.pid, strace.pid):
            ahead_of_all_else(process)
        said = strace.stderr.readline()
        if "attached" not in said:
            pytest.skip(f"strace may not look at the daemon: {said.strip()}")
        try:
            yield calls
        finally:
            strace.send_signal(signal.SIGINT)
            strace.stderr.read()
    begun: dict[int, tuple[str, str]] = {}
    for line in output.read_text().splitlines():
        if start := re.match(r"(\d+) +(\w+)\((.*?) <unfinished", line):
            begun[int(start[1])] = start[2], start[3]
        elif end := re.match(r"(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (.*)", line):
            name, first = begun.pop(int(end[1]), (end[2], ""))
            calls.append(Call(int(end[1]), name, (first + end[3]).split(", "), end[4]))
        elif whole := re.match(r"(\d+) +(\w+)\((.*)\) += (.*)", line):
            calls.append(Call(int(whole[1]), whole[2], whole[3].split(", "), whole[4]))


class Scene(NamedTuple):
    daemon: Daemon
    device: VirtioFs
    fuse: FuseClient
    node: int
    fh: int


@pytest.fixture
def scene(daemon: Daemon) -> Iterator[Scene]:
    """A file of 1 MiB, known to the guest and open, and all of it in the host's memory."""
    (daemon.share / "file").write_bytes(os.urandom(MIB))
    with VirtioFs(daemon.socket, queue_size=512) as device:
        fuse = FuseClient(device)
        fuse.init()
        node = fuse.lookup(FUSE_ROOT_ID, "file").nodeid
        fh = fuse.open(node, os.O_RDWR).fh
        fuse.read(node, fh, 0, MIB)
        yield Scene(daemon, device, fuse, node, fh)


# What is asked for, and the system call that it is all about.
OPERATIONS: dict[str, tuple[Callable[[Scene], Op], str]] = {
    "GETATTR": (lambda scene: getattr_op(scene.node), "statx"),
    "LOOKUP": (lambda _: lookup_op(FUSE_ROOT_ID, "file"), "statx"),
    "READ": (lambda scene: read_op(scene.node, scene.fh, 8192, PAGE, check=False), "preadv2"),
    "WRITE": (lambda scene: write_op(scene.node, scene.fh, 8192, PAGE), "pwritev"),
}


def cost(scene: Scene, folder: pathlib.Path, generator: Generator, count: int, name: str) -> float:
    """System calls a request, with one of this name in each: the least of some tries.

    What is traced takes so long where strace has to wait for a CPU nevertheless that the daemon takes it for stuck,
    and has others do the rest. What it learned of that is forgotten in the untraced requests between.
    """
    found = []
    for _ in range(TRIES):
        assert generator.run(count=4 * count).good
        with traced(scene.daemon, folder) as calls:
            assert generator.run(count=count).good
        if Counter(call.name for call in calls)[name] == count:
            found.append(len(calls) / count)
    assert found, f"no try had one {name} for each request"
    return min(found)


@pytest.mark.parametrize("make, name", OPERATIONS.values(), ids=OPERATIONS)
def test_a_request_by_itself_costs_three_system_calls(scene: Scene, tmp_path: pathlib.Path,
                                                      make: Callable[[Scene], Op], name: str) -> None:
    """At most: one for the guest's kick, the one that it is all about, and one for the guest's interrupt."""
    generator = Generator(scene.device.queues[1], [make(scene)])
    assert 1 < cost(scene, tmp_path, generator, TIMES, name) < 3.1      # and a few of other threads, that go to sleep


@pytest.mark.parametrize("make, name", OPERATIONS.values(), ids=OPERATIONS)
def test_in_a_full_queue_a_request_costs_hardly_more_than_one(scene: Scene, tmp_path: pathlib.Path,
                                                              make: Callable[[Scene], Op], name: str) -> None:
    """The guest shows very many at once and looks for the replies by itself, so that kicks and interrupts are few."""
    generator = Generator(scene.device.queues[1], [make(scene)], depth=DEEP, publish_each=False, sleeping=False)
    assert 1 <= cost(scene, tmp_path, generator, DEEP, name) < 1.5


# No copies

def memory_of(daemon: Daemon) -> list[tuple[int, int]]:
    """Where the guest's memory is in the daemon."""
    lines = pathlib.Path(f"/proc/{daemon.process.pid}/maps").read_text().splitlines()
    found = [line.split()[0].split("-") for line in lines if "memfd:guest-memory" in line]
    return [(int(start, 16), int(end, 16)) for start, end in found]


def pieces_of(daemon: Daemon, call: Call) -> list[tuple[int, int]]:
    """The iovecs of a call, which are still where they were: nothing has come since."""
    address, count = int(call.arguments[1], 16), int(call.arguments[2], 16)
    with pathlib.Path(f"/proc/{daemon.process.pid}/mem").open("rb") as memory:
        memory.seek(address)
        return list(IOVEC.iter_unpack(memory.read(count * IOVEC.size)))


@pytest.mark.parametrize("way", ["READ", "WRITE"])
def test_data_goes_straight_between_the_file_and_the_guests_memory(scene: Scene, tmp_path: pathlib.Path,
                                                                   way: str) -> None:
    """1 MiB in 256 scattered pages by one call: each page goes where it is in the guest."""
    daemon, _, fuse, node, fh = scene
    content = os.urandom(MIB)
    (daemon.share / "file").write_bytes(content if way == "READ" else bytes(MIB))
    with traced(daemon, tmp_path, "-e", f"trace={','.join(TRANSFERS)}") as calls:
        if way == "READ":
            assert fuse.read(node, fh, 0, MIB) == content
        else:
            assert fuse.write(node, fh, 0, content) == MIB
    assert way == "READ" or (daemon.share / "file").read_bytes() == content
    large = [call for call in calls if int(call.result.split()[0], 16) > 512]
    assert [call.name for call in large] == ["preadv2" if way == "READ" else "pwritev"], calls
    assert int(large[0].result, 16) == MIB
    pieces = pieces_of(daemon, large[0])
    assert [length for _, length in pieces] == [PAGE] * 256
    regions = memory_of(daemon)
    assert regions and len({address for address, _ in pieces}) == 256
    for address, length in pieces:
        assert any(start <= address and address + length <= end for start, end in regions)


# Nothing to do

def switches(daemon: Daemon) -> dict[str, tuple[str, ...]]:
    """How often each thread has slept and was woken."""
    found = {}
    for task in pathlib.Path(f"/proc/{daemon.process.pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            status = (task / "status").read_text()
            found[f"{task.name} {status.split()[1]}"] = tuple(re.findall(r"ctxt_switches:\s*(\d+)", status))
    return found


def test_an_idle_guest_wakes_nobody(daemon: Daemon) -> None:
    """After much of all kinds, and once the threads that were for that have gone, no thread runs at all."""
    (daemon.share / "file").write_bytes(bytes(MIB))
    with VirtioFs(daemon.socket, num_queues=4) as device:
        fuse = FuseClient(device)
        fuse.init()
        node = fuse.lookup(FUSE_ROOT_ID, "file").nodeid
        fh = fuse.open(node, os.O_RDWR).fh
        for queue in range(5):
            for _ in range(100):
                fuse.getattr(node, queue=queue)
            fuse.write(node, fh, 0, bytes(PAGE), queue=queue)
            fuse.fsync(node, fh, queue=queue)
        time.sleep(LINGER)
        before = switches(daemon)
        time.sleep(IDLE)
        assert switches(daemon) == before
