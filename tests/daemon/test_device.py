"""The device, where it cannot be made: there is nothing left of it."""

import errno
import os
import pathlib
import resource
import socket
from collections.abc import Callable

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from tests.conftest import StartDaemon
from tests.daemon.support import idle_files, talking_to, wait_for_line
from virtiofsd._ring.device import Device
from virtiofsd._ring.settings import Settings, XattrRule

TRIES = 20
NO_RULE = XattrRule("nothing", True, True, b"", b"")


def make(share: str, settings: Settings) -> None:
    proc_fd = os.open("/proc/self/fd", os.O_PATH)
    root_fd = os.open(share, os.O_PATH)
    try:
        Device(root_fd, proc_fd, settings, queues=4, descriptors=100, pool_threads=4).close()
    finally:
        os.close(root_fd)
        os.close(proc_fd)


def left() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), len(pathlib.Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.parametrize(("share", "settings", "error"), [
    ("/proc", Settings(file_handles="mandatory"), OSError),
    ("/", Settings(xattr_rules=(NO_RULE,)), KeyError),
    ("/", Settings(uids_to_host=(("?", 0, 1, False),)), TypeError),     # type: ignore[arg-type]
], ids=["no file handles", "a rule that is none", "an id that is none"])
def test_a_device_that_cannot_be_made_leaves_no_descriptor_and_no_mapping(
        share: str, settings: Settings, error: type[Exception]) -> None:
    def fail() -> None:
        with pytest.raises(error):
            make(share, settings)

    fail()
    files, mappings = left()
    for _ in range(TRIES):
        fail()
    more_files, more_mappings = left()
    assert more_files == files
    assert more_mappings < mappings + TRIES     # Python may have taken one for itself


def exhausted_memory(pid: int) -> Callable[[], None]:
    """Leaves the process no more memory than it has. What gives it back."""
    usual = resource.prlimit(pid, resource.RLIMIT_AS)
    size = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (size + (1 << 20), usual[1]))

    def give_back() -> None:
        resource.prlimit(pid, resource.RLIMIT_AS, usual)

    return give_back


def test_a_front_end_for_whom_there_is_no_memory_is_refused_and_the_next_one_is_served(
        start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--sandbox", "none", "--keep-listening")
    daemon.expected = ["a front-end cannot be served: "]
    with talking_to(daemon):
        pass
    before = idle_files(daemon)
    give_back = exhausted_memory(daemon.process.pid)
    with socket.socket(socket.AF_UNIX) as visitor:
        visitor.connect(str(daemon.socket))
        assert visitor.recv(1) == b""
    wait_for_line(daemon, "a front-end cannot be served")
    assert idle_files(daemon) == before
    give_back()
    with VirtioFs(daemon.socket) as device:
        FuseClient(device).init()


def test_a_front_end_for_whom_there_is_no_descriptor_waits_until_there_is_one(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--sandbox", "none", "--keep-listening")
    daemon.expected = ["a front-end cannot be accepted: .*"]
    idle_files(daemon)
    pid = daemon.process.pid
    before = max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 1
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (before, usual[1]))
    with socket.socket(socket.AF_UNIX) as visitor:
        visitor.connect(str(daemon.socket))
        assert os.strerror(errno.EMFILE) in wait_for_line(daemon, "a front-end cannot be accepted")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
        wait_for_line(daemon, "a front-end has connected")
    with VirtioFs(daemon.socket) as device:
        FuseClient(device).init()
