"""Guests that need not open what they read: with --cache always --readonly nobody changes it (NO_OPEN, NO_OPENDIR)."""

import errno
import os
import pathlib

import pytest

from frontend import fuse_abi as abi
from frontend.fuse import LINUX_FLAGS
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, Guest, Mounts, needs_root, refused

ALWAYS = ("--cache", "always")


@pytest.fixture
def guest(connect: Connect, tmp_path: pathlib.Path) -> Guest:
    """On a share that nobody changes, with a file and a directory of 100 names."""
    share = tmp_path / "kept"
    share.mkdir()
    (share / "file").write_bytes(os.urandom(100_000))
    for number in range(100):
        (share / "directory" / f"{number:03}").mkdir(parents=True)
    return connect(*ALWAYS, "--readonly", share=share)


def test_a_file_is_read_without_an_open(guest: Guest) -> None:
    node = guest.fuse.lookup(ROOT, "file").nodeid
    with refused(errno.ENOSYS):
        guest.fuse.open(node)
    content = (guest.share / "file").read_bytes()
    assert guest.fuse.read(node, 0, 0, 65536) == content[:65536]
    assert guest.fuse.read(node, 0, 99_990, 65536) == content[99_990:]
    assert guest.fuse.lseek(node, 0, 10, os.SEEK_HOLE) == 100_000
    guest.fuse.fsync(node, 0)
    with refused(errno.ENOSYS):
        guest.fuse.flush(node, 0)
    assert guest.daemon.statistics()["files_open"] == 0


def test_a_directory_is_read_without_an_open(guest: Guest) -> None:
    node = guest.fuse.lookup(ROOT, "directory").nodeid
    with refused(errno.ENOSYS):
        guest.fuse.opendir(node)
    names, offset = set(), 0
    while entries := guest.fuse.readdir(node, 0, offset, 1024):
        names |= {entry.name for entry in entries}
        offset = entries[-1].offset
    assert names == {b".", b"..", *(b"%03d" % number for number in range(100))}
    guest.fuse.fsyncdir(node, 0)
    assert guest.daemon.statistics()["files_open"] == 0


def test_what_is_neither_file_nor_known_is_refused(guest: Guest) -> None:
    directory = guest.fuse.lookup(ROOT, "directory").nodeid
    for node in (directory, 12345 << 32 | 77):
        with refused(errno.EBADF):
            guest.fuse.read(node, 0, 0, 100)
    with refused(errno.EBADF):
        guest.fuse.read(guest.fuse.lookup(ROOT, "file").nodeid, 1, 0, 100)


def test_where_the_guest_writes_everything_is_opened(connect: Connect) -> None:
    guest = connect(*ALWAYS)
    entry, opened = guest.fuse.create(ROOT, "file")
    guest.fuse.release(entry.nodeid, opened.fh)
    guest.fuse.release(entry.nodeid, guest.fuse.open(entry.nodeid).fh)
    guest.fuse.releasedir(ROOT, guest.fuse.opendir(ROOT).fh)


@needs_root
def test_a_guest_that_removes_what_it_lists_misses_no_name_where_cookies_are_positions(connect: Connect,
                                                                                       mounts: Mounts) -> None:
    share = mounts.mount(mounts.folder / "ramfs", "-t", "ramfs", "ramfs")
    for number in range(300):
        (share / f"{number:03}").touch()
    guest = connect(*ALWAYS, share=share)
    fh, offset = guest.fuse.opendir(ROOT).fh, 0
    while entries := guest.fuse.readdir(ROOT, fh, offset, 1024):
        for entry in entries:
            if not entry.name.startswith(b"."):
                guest.fuse.unlink(ROOT, entry.name)
        offset = entries[-1].offset
    guest.fuse.releasedir(ROOT, fh)
    assert os.listdir(share) == []


@pytest.mark.parametrize("options", [
    ("--readonly",), ("--cache", "metadata", "--readonly"), (*ALWAYS, "--readonly", "--flock"),
    (*ALWAYS, "--readonly", "--posix-lock")])
def test_with_other_caches_and_with_locks_files_are_opened(connect: Connect, tmp_path: pathlib.Path,
                                                          options: tuple[str, ...]) -> None:
    share = tmp_path / "kept"
    share.mkdir()
    (share / "file").write_bytes(b"data")
    guest = connect(*options, share=share)
    node = guest.fuse.lookup(ROOT, "file").nodeid
    guest.fuse.release(node, guest.fuse.open(node).fh)
    with refused(errno.EBADF):
        guest.fuse.read(node, 0, 0, 4)


def test_a_guest_that_does_not_know_of_it_opens_everything(guest: Guest) -> None:
    guest.fuse.destroy()
    guest.fuse.init(LINUX_FLAGS & ~(abi.FUSE_NO_OPEN_SUPPORT | abi.FUSE_NO_OPENDIR_SUPPORT))
    node = guest.fuse.lookup(ROOT, "file").nodeid
    guest.fuse.release(node, guest.fuse.open(node).fh)
    guest.fuse.releasedir(ROOT, guest.fuse.opendir(ROOT).fh)


def flushes(guest: Guest, flags: int) -> bool:
    entry, opened = guest.fuse.create(ROOT, "file", flags=flags)
    guest.fuse.flush(entry.nodeid, opened.fh)
    guest.fuse.release(entry.nodeid, opened.fh)
    guest.fuse.unlink(ROOT, "file")
    return not opened.open_flags & abi.FOPEN_NOFLUSH


@pytest.mark.parametrize(("flags", "expected"), [(os.O_RDONLY, False), (os.O_RDWR, True), (os.O_WRONLY, False)])
def test_who_only_reads_or_only_writes_need_not_flush(connect: Connect, mounts: Mounts, flags: int,
                                                      expected: bool) -> None:
    """What is written is with the host before the close; only pages of a mapping are not."""
    share = mounts.tmpfs()
    assert flushes(connect(share=share), flags) == expected
    assert flushes(connect("--posix-lock", share=share), flags)
    assert flushes(connect("--writeback", share=share), flags) == (flags != os.O_RDONLY)


def test_a_close_is_told_to_a_file_system_that_may_fail_only_then(connect: Connect, mounts: Mounts) -> None:
    guest = connect(share=mounts.fuse())
    assert not flushes(guest, os.O_RDONLY)
    assert flushes(guest, os.O_WRONLY)
