"""A file that was open for reading stays open for a moment after its last close, for the next OPEN of it."""

import ctypes
import errno
import os
import pathlib
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from frontend.fuse_abi import FUSE_FLOCK_LOCKS
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, Guest, Mounts, give_back, needs_root, refused, settle

pytestmark = needs_root         # only root may open files by handle, and so find them again

FOR_LONG = "60"
COARSE = 2.1                    # seconds until a change has settled where times are whole seconds
IN_OPEN = 0x20


class Opens:
    """Counts how often a file is opened on the host (inotify(7)); O_PATH does not count."""

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)

    def watch(self, path: pathlib.Path) -> None:
        if self.libc.inotify_add_watch(self.fd, os.fsencode(path), IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), str(path))

    def seen(self) -> int:
        """Since the last time. Equal events next to each other are one, so it is asked after each OPEN."""
        try:
            events = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return 0
        count = at = 0
        while at < len(events):
            count += 1
            at += 16 + struct.unpack_from("I", events, at + 12)[0]
        return count


@pytest.fixture
def opens() -> Iterator[Opens]:
    counter = Opens()
    yield counter
    os.close(counter.fd)


@pytest.fixture
def share(mounts: Mounts) -> pathlib.Path:
    return mounts.tmpfs()


@pytest.fixture
def guest(connect: Connect, share: pathlib.Path) -> Guest:
    return connect("--close-delay", FOR_LONG, share=share)


def known(guest: Guest, name: str, content: bytes = b"data") -> int:
    """A file that has been open for reading once. Its nodeid."""
    (guest.share / name).write_bytes(content)
    settle()
    node = guest.fuse.lookup(ROOT, name).nodeid
    guest.fuse.release(node, guest.fuse.open(node).fh)
    return node


def read_again(guest: Guest, node: int) -> bytes:
    fh = guest.fuse.open(node).fh
    found = guest.fuse.read(node, fh, 0, 100)
    guest.fuse.release(node, fh)
    return found


def test_a_file_is_not_opened_on_the_host_for_each_open_of_the_guest(
        connect: Connect, file_system: pathlib.Path, opens: Opens) -> None:
    guest = connect("--close-delay", FOR_LONG, share=file_system)
    (guest.share / "file").write_bytes(b"data")
    settle(COARSE)
    node = guest.fuse.lookup(ROOT, "file").nodeid
    assert read_again(guest, node) == b"data"
    opens.watch(guest.share / "file")
    for _ in range(5):
        assert read_again(guest, node) == b"data"
        assert opens.seen() == 0
    assert guest.daemon.statistics()["files_kept"] == 1


def test_two_opens_at_once_are_two_files(guest: Guest, opens: Opens) -> None:
    node = known(guest, "file")
    opens.watch(guest.share / "file")
    first, second = (guest.fuse.open(node).fh for _ in range(2))
    assert opens.seen() == 1
    guest.fuse.release(node, first)
    assert guest.fuse.read(node, second, 0, 100) == b"data"
    with refused(errno.EBADF):
        guest.fuse.read(node, first, 0, 100)
    guest.fuse.release(node, second)
    guest.daemon.wait_for(files_open=0)


CHANGES: dict[str, Callable[[pathlib.Path], object]] = {
    "written": lambda path: path.write_bytes(b"DATA"),
    "made private": lambda path: path.chmod(0o600),
    "given away": lambda path: os.chown(path, 7, 8),
    "linked": lambda path: os.link(path, path.with_name("link")),
    "renamed": lambda path: path.rename(path.with_name("renamed")),
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_file_that_has_changed_is_opened_anew(guest: Guest, opens: Opens, how: str) -> None:
    """What the host decides by a file's mode, label or contents, it decides again."""
    node = known(guest, "file")
    opens.watch(guest.share / "file")
    CHANGES[how](guest.share / "file")
    opens.seen()
    assert read_again(guest, node).lower() == b"data"
    assert opens.seen() == 1


def test_a_file_that_is_replaced_is_another_one(guest: Guest) -> None:
    node = known(guest, "file")
    (guest.share / "new").write_bytes(b"new")
    (guest.share / "new").rename(guest.share / "file")
    other = guest.fuse.lookup(ROOT, "file").nodeid
    assert other != node
    assert read_again(guest, other) == b"new"
    assert read_again(guest, node) == b"data"


def test_what_the_guest_writes_is_read_after_the_next_open(guest: Guest) -> None:
    node = known(guest, "file")
    for number in range(10):
        fh = guest.fuse.open(node, os.O_RDWR).fh
        guest.fuse.write(node, fh, 0, str(number).encode())
        guest.fuse.release(node, fh)
        assert read_again(guest, node) == f"{number}ata".encode()


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY, os.O_RDONLY | os.O_TRUNC, os.O_SYNC],
                         ids=["O_RDWR", "O_WRONLY", "O_TRUNC", "O_SYNC"])
def test_only_a_file_that_is_open_to_read_is_kept(guest: Guest, opens: Opens, flags: int) -> None:
    node = known(guest, "file")
    opens.watch(guest.share / "file")
    for _ in range(2):
        guest.fuse.release(node, guest.fuse.open(node, flags).fh)
        assert opens.seen() == 1


@pytest.mark.parametrize("options", [("--close-delay", "0"), ("--cache", "never"), ("--cache", "always"),
                                     ("--inode-file-handles", "never")], ids=" ".join)
def test_nothing_is_kept(connect: Connect, share: pathlib.Path, options: tuple[str, ...]) -> None:
    guest = connect("--close-delay", FOR_LONG, *options, share=share)
    node = known(guest, "file")
    assert read_again(guest, node) == b"data"
    assert guest.daemon.statistics()["files_kept"] == 0


def test_nothing_is_kept_that_could_keep_a_lock(connect: Connect, share: pathlib.Path) -> None:
    guest = connect("--close-delay", FOR_LONG, "--flock", share=share)
    assert guest.fuse.flags & FUSE_FLOCK_LOCKS
    known(guest, "file")
    assert guest.daemon.statistics()["files_kept"] == 0


def test_nothing_is_kept_of_a_file_system_whose_server_wants_to_see_each_open(connect: Connect,
                                                                              mounts: Mounts) -> None:
    guest = connect("--close-delay", FOR_LONG, share=mounts.fuse())
    known(guest, "file")
    assert guest.daemon.statistics()["files_kept"] == 0


def test_a_file_is_closed_when_no_open_has_come_and_an_idle_guest_wakes_nobody(
        connect: Connect, share: pathlib.Path) -> None:
    guest = connect("--close-delay", "0.3", "--descriptor-timeout", "0", share=share)
    known(guest, "file")
    assert guest.daemon.statistics()["files_kept"] == 1
    guest.daemon.wait_for(files_kept=0)
    assert guest.daemon.open_files().count(str(guest.share / "file")) == 1
    time.sleep(0.7)
    before = guest.daemon.switches()
    time.sleep(1)
    assert guest.daemon.switches() == before


def test_a_file_that_the_guest_removes_gives_its_space_back_at_once(guest: Guest) -> None:
    node = known(guest, "file", bytes(1 << 20))
    guest.fuse.unlink(ROOT, "file")
    guest.fuse.forget(node)
    guest.daemon.wait_for(inodes=0, inodes_closing=0, files_kept=0)
    assert not any("(deleted)" in name for name in guest.daemon.open_files())


@pytest.mark.parametrize("first", ["RELEASE", "FORGET"])
def test_what_the_guest_forgets_is_not_kept_whichever_comes_first(guest: Guest, first: str) -> None:
    """FORGET has a queue of its own, and may overtake the RELEASE."""
    node = known(guest, "file")
    fh = guest.fuse.open(node).fh
    guest.fuse.unlink(ROOT, "file")
    if first == "RELEASE":
        guest.fuse.release(node, fh)
    guest.fuse.forget(node)
    guest.daemon.wait_for(inodes=0)
    if first == "FORGET":
        guest.fuse.release(node, fh)
    guest.daemon.wait_for(inodes_closing=0, files_open=0, files_kept=0)
    assert not any("(deleted)" in name for name in guest.daemon.open_files())


def test_the_end_of_a_session_closes_what_is_kept(guest: Guest) -> None:
    for number in range(10):
        known(guest, f"file{number}")
    assert guest.daemon.statistics()["files_kept"] > 5
    guest.fuse.destroy()
    guest.daemon.wait_for(files_kept=0, files_open=0, descriptors_cached=0)


def test_many_files_are_kept_as_far_as_there_is_room(connect: Connect, share: pathlib.Path) -> None:
    guest = connect("--close-delay", FOR_LONG, "--rlimit-nofile", "512", share=share)
    names = [f"file{number}" for number in range(300)]
    for name in names:
        (guest.share / name).write_text(name)
    settle()
    nodes = [guest.fuse.lookup(ROOT, name).nodeid for name in names]
    for _ in range(3):
        for name, node in zip(names, nodes, strict=True):
            assert read_again(guest, node) == name.encode()
    assert 0 < guest.daemon.statistics()["files_kept"] <= 512 // 16
    handles = []
    with refused(errno.ENFILE):
        while True:
            handles.append(guest.fuse.open(nodes[0], os.O_RDWR).fh)
    assert len(handles) > 256
    for fh in handles:
        guest.fuse.release(nodes[0], fh)
    give_back(guest.fuse)
    guest.daemon.wait_for(inodes=0, inodes_closing=0, files_open=0, files_kept=0, descriptors_cached=0)
