"""What sleeps on a file system is carried out beside the queue, for as long as it does."""

import contextlib
import fcntl
import os
import pathlib
import time
from collections.abc import Iterator

import pytest

from frontend import fuse_abi as abi
from frontend.fuse_abi import Opcode
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, Guest, Mounts, during, needs_root

pytestmark = needs_root         # only root may freeze a file system

FREEZE, THAW = 0xC0045877, 0xC0045878       # ioctls FIFREEZE and FITHAW
WRITES, SIZE = 100, 1 << 19                # that many in flight all wait for the file's lock
SECONDS = 60


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


def write_all(guest: Guest, node: int, fh: int) -> None:
    """As many WRITEs as there are, at once."""
    data = bytes(SIZE)
    tickets = [guest.fuse.submit(Opcode.WRITE, node, abi.WRITE_IN.pack(fh=fh, offset=number * SIZE, size=SIZE),
                                 data=data, out_size=abi.WRITE_OUT.size, publish=number == WRITES - 1)
               for number in range(WRITES)]
    for ticket in tickets:
        assert not guest.fuse.complete(ticket).error


def test_writes_that_wait_for_each_other_in_the_pool_go_back_to_the_worker(guest: Guest) -> None:
    """Twice the file system sleeps, so they go to the pool; there each waits for those before it."""
    entry, opened = guest.fuse.create(ROOT, "file")
    node, fh = entry.nodeid, opened.fh
    write_all(guest, node, fh)
    for attempt in range(10):
        with during(f"attempt {attempt}"):
            body = abi.WRITE_IN.pack(fh=fh, size=4096)
            with frozen(guest.share):
                ticket = guest.fuse.submit(Opcode.WRITE, node, body, data=bytes(4096), out_size=abi.WRITE_OUT.size)
                time.sleep(0.01)
            assert not guest.fuse.complete(ticket).error
        if slow_classes(guest):
            break
    assert slow_classes(guest) == 1
    deadline = time.monotonic() + SECONDS
    while slow_classes(guest):
        assert time.monotonic() < deadline, "they are still the pool's"
        write_all(guest, node, fh)
    write_all(guest, node, fh)
    guest.fuse.release(node, fh)
