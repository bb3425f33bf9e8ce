"""What an open says of the guest's page cache: it may keep what it has of a file that has not changed since."""

import os
import pathlib
from collections.abc import Callable

import pytest

from frontend import fuse_abi as abi
from frontend.fuse import FuseClient
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, settle

KEEP, DIRECTORY, DIRECT = abi.FOPEN_KEEP_CACHE, abi.FOPEN_CACHE_DIR, abi.FOPEN_DIRECT_IO
PARALLEL = abi.FOPEN_PARALLEL_DIRECT_WRITES


def flags_of(fuse: FuseClient, node: int, flags: int = os.O_RDONLY) -> int:
    opened = fuse.open(node, flags)
    fuse.release(node, opened.fh)
    return int(opened.open_flags) & ~abi.FOPEN_NOFLUSH


@pytest.fixture
def node(fuse: FuseClient, share: pathlib.Path) -> int:
    """A file that the guest has opened, and whose cache it may keep."""
    (share / "file").write_bytes(b"data")
    settle()
    node = fuse.lookup(ROOT, "file").nodeid
    assert flags_of(fuse, node) == 0        # whatever the guest had of it is dropped
    assert flags_of(fuse, node) == KEEP
    return int(node)


def test_a_cache_is_kept_over_opens_of_a_file_that_does_not_change(fuse: FuseClient, node: int) -> None:
    for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY):
        assert flags_of(fuse, node, flags) == KEEP
    fuse.getattr(node)
    fuse.lookup(ROOT, "file")
    assert flags_of(fuse, node) == KEEP


CHANGES: dict[str, Callable[[pathlib.Path], object]] = {
    "contents": lambda path: path.write_bytes(b"DATA"),
    "size": lambda path: os.truncate(path, 2),
    "time": lambda path: os.utime(path, (1, 1)),
    "mode": lambda path: path.chmod(0o600),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_by_the_host_drops_the_cache_once(fuse: FuseClient, share: pathlib.Path, node: int,
                                                  change: Callable[[pathlib.Path], object]) -> None:
    change(share / "file")
    fuse.getattr(node)      # to have seen the change is not to have read it
    fuse.lookup(ROOT, "file")
    assert flags_of(fuse, node) == 0
    settle()
    assert flags_of(fuse, node) == 0        # the one before was too soon to tell
    assert flags_of(fuse, node) == KEEP


def test_a_file_that_the_guest_writes_counts_as_changed(fuse: FuseClient, node: int) -> None:
    """Another writer may have come between two writes."""
    fh = fuse.open(node, os.O_RDWR).fh
    fuse.write(node, fh, 0, b"DATA")
    settle()
    assert flags_of(fuse, node) == 0
    assert flags_of(fuse, node) == KEEP


def test_a_change_that_hides_in_the_same_moment_is_not_missed(fuse: FuseClient, share: pathlib.Path) -> None:
    """Again and again: written by the host, opened at once, written with the same size, opened again."""
    node = fuse.create(ROOT, "file")[0].nodeid
    for _ in range(200):
        (share / "file").write_bytes(b"one")
        flags_of(fuse, node)
        (share / "file").write_bytes(b"two")
        assert not flags_of(fuse, node) & KEEP


def test_a_new_file_in_the_place_of_another_has_no_cache(fuse: FuseClient, share: pathlib.Path, node: int) -> None:
    (share / "new").write_bytes(b"data")
    settle()
    (share / "new").rename(share / "file")
    new = fuse.lookup(ROOT, "file").nodeid
    assert new != node and flags_of(fuse, new) == 0


def test_a_listing_is_kept_over_opens_of_a_directory_that_does_not_change(fuse: FuseClient,
                                                                         share: pathlib.Path) -> None:
    def flags() -> int:
        opened = fuse.opendir(ROOT)
        fuse.releasedir(ROOT, opened.fh)
        return int(opened.open_flags) & ~abi.FOPEN_NOFLUSH

    settle()
    assert flags() in (DIRECTORY, DIRECTORY | KEEP)
    assert flags() == DIRECTORY | KEEP
    (share / "new").touch()
    assert flags() == DIRECTORY
    settle()
    assert flags() == DIRECTORY
    assert flags() == DIRECTORY | KEEP


@pytest.mark.parametrize("policy, file_flags, directory_flags", [
    ("never", DIRECT | PARALLEL, 0), ("metadata", DIRECT | PARALLEL, KEEP | DIRECTORY),
    ("always", KEEP, KEEP | DIRECTORY)])
def test_other_policies_do_not_look(connect: Connect, policy: str, file_flags: int, directory_flags: int) -> None:
    guest = connect("--cache", policy)
    (guest.share / "file").write_bytes(b"data")
    node = guest.fuse.lookup(ROOT, "file").nodeid
    for _ in range(3):
        assert flags_of(guest.fuse, node) == file_flags
        assert guest.fuse.opendir(ROOT).open_flags == directory_flags
        (guest.share / "file").write_bytes(b"changed")


@pytest.mark.parametrize("options, entry, attributes", [
    (("--cache", "never"), 0.0, 0.0), (("--cache", "auto"), 1.0, 1.0), (("--cache", "always"), 86400.0, 86400.0),
    (("--entry-timeout", "2.5", "--attr-timeout", "0.25"), 2.5, 0.25)])
def test_timeouts_are_those_of_the_options(connect: Connect, options: tuple[str, ...], entry: float,
                                           attributes: float) -> None:
    guest = connect(*options)
    (guest.share / "file").touch()
    found = guest.fuse.lookup(ROOT, "file")
    assert found.entry_valid + found.entry_valid_nsec / 1e9 == entry
    assert found.attr_valid + found.attr_valid_nsec / 1e9 == attributes
    attr = guest.fuse.getattr(found.nodeid)
    assert attr.attr_valid + attr.attr_valid_nsec / 1e9 == attributes


def test_that_a_name_does_not_exist_can_be_known_for_a_while(connect: Connect) -> None:
    guest = connect("--negative-timeout", "3.5")
    found = guest.fuse.lookup(ROOT, "missing")
    assert (found.nodeid, found.entry_valid, found.entry_valid_nsec) == (0, 3, 500_000_000)
    assert guest.daemon.statistics()["inodes"] == 0
    (guest.share / "missing").touch()
    assert guest.fuse.lookup(ROOT, "missing").nodeid
