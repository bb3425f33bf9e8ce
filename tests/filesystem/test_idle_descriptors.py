"""Descriptors that the guest does not use are closed after a while."""

import errno
import os
import pathlib
import time

import pytest

from tests.daemon.support import wait_until
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, Guest, cached, needs_root, refused

pytestmark = needs_root         # only root may open files by handle

SHORTLY = 0.2


@pytest.fixture
def tidy(connect: Connect, file_system: pathlib.Path) -> Guest:
    """A guest of a daemon that soon closes the descriptors of what nobody has asked for."""
    return connect("--descriptor-timeout", str(SHORTLY), share=file_system)


def test_a_guest_that_asks_for_nothing_costs_no_descriptors_and_finds_everything_again(tidy: Guest) -> None:
    names = [f"file{number}" for number in range(100)]
    for name in names:
        (tidy.share / name).write_text(name)
    (tidy.share / "folder/below").mkdir(parents=True)
    nodes = {name: tidy.fuse.lookup(ROOT, name) for name in names}
    below = tidy.fuse.walk("folder/below").nodeid
    assert tidy.daemon.statistics()["descriptors_cached"] > len(names)
    tidy.daemon.wait_for(descriptors_cached=0)
    (tidy.share / "folder").rename(tidy.share / "moved")
    for name, entry in nodes.items():
        assert tidy.fuse.getattr(entry.nodeid).attr_ino == entry.attr_ino
        assert tidy.fuse.lookup(ROOT, name).nodeid == entry.nodeid
        fh = tidy.fuse.open(entry.nodeid).fh
        assert tidy.fuse.read(entry.nodeid, fh, 0, 10) == name.encode()
        tidy.fuse.release(entry.nodeid, fh)
    tidy.fuse.create(below, "new")
    assert (tidy.share / "moved/below/new").exists()


def test_what_a_guest_uses_keeps_its_descriptor(tidy: Guest) -> None:
    for name in ("used", "unused"):
        (tidy.share / name).touch()
    node = tidy.fuse.lookup(ROOT, "used").nodeid
    tidy.fuse.lookup(ROOT, "unused")
    closed: list[str] = []

    def unused_is_closed() -> bool:
        tidy.fuse.getattr(node)
        closed.extend(name for name in ("used", "unused") if not cached(tidy.daemon, tidy.share / name))
        return "unused" in closed

    wait_until(unused_is_closed, "the end of an unused descriptor")
    assert "used" not in closed


def test_a_file_that_the_host_deletes_gives_its_space_back_although_the_guest_knows_it(tidy: Guest) -> None:
    (tidy.share / "large").write_bytes(bytes(1 << 20))
    node = tidy.fuse.lookup(ROOT, "large").nodeid
    (tidy.share / "large").unlink()
    tidy.daemon.wait_for(descriptors_cached=0)
    assert not any("(deleted)" in name for name in tidy.daemon.open_files())
    with refused(errno.ESTALE):
        tidy.fuse.getattr(node)
    (tidy.share / "large").touch()      # maybe with the same inode number
    assert tidy.fuse.lookup(ROOT, "large").nodeid != node


@pytest.mark.parametrize("options", [(), ("--cache", "always", "--readonly")], ids=["opened", "without OPEN"])
def test_a_deleted_file_that_the_guest_may_have_open_stays(connect: Connect, file_system: pathlib.Path,
                                                           options: tuple[str, ...]) -> None:
    """Where the guest does not say what it opens, it may have any file open."""
    guest = connect("--descriptor-timeout", str(SHORTLY), *options, share=file_system)
    (guest.share / "open").write_text("still there")
    (guest.share / "other").touch()
    node = guest.fuse.lookup(ROOT, "open").nodeid
    if not options:
        fh = guest.fuse.open(node, os.O_RDWR).fh
        again = guest.fuse.open(node).fh
        guest.fuse.release(node, again)
    guest.fuse.lookup(ROOT, "other")
    (guest.share / "open").unlink()
    wait_until(lambda: not cached(guest.daemon, guest.share / "other"), "the end of another file's descriptor")
    guest.daemon.wait_for(files_kept=0)
    time.sleep(3 * SHORTLY)
    deleted = f"{guest.share / 'open'} (deleted)"
    assert guest.daemon.open_files().count(deleted) == (1 if options else 2)
    assert guest.fuse.getattr(node).attr_nlink == 0
    assert guest.fuse.read(node, 0 if options else fh, 0, 100) == b"still there"
    if not options:
        guest.fuse.release(node, fh)
        guest.daemon.wait_for(descriptors_cached=0)


def test_a_removed_directory_that_a_guest_may_be_in_stays(tidy: Guest) -> None:
    (tidy.share / "folder").mkdir()
    (tidy.share / "other").touch()
    node = tidy.fuse.lookup(ROOT, "folder").nodeid
    tidy.fuse.lookup(ROOT, "other")
    tidy.fuse.rmdir(ROOT, "folder")
    wait_until(lambda: not cached(tidy.daemon, tidy.share / "other"), "the end of another file's descriptor")
    time.sleep(3 * SHORTLY)
    assert tidy.fuse.getattr(node).attr_nlink == 0


def test_without_handles_descriptors_stay_open(connect: Connect, file_system: pathlib.Path) -> None:
    """To find a file again by its name is less sure."""
    guest = connect("--descriptor-timeout", str(SHORTLY), "--inode-file-handles", "never", share=file_system)
    (guest.share / "file").touch()
    guest.fuse.lookup(ROOT, "file")
    time.sleep(4 * SHORTLY)
    assert cached(guest.daemon, guest.share / "file")


def test_closing_ends_when_there_is_nothing_left_to_close(tidy: Guest) -> None:
    """An idle guest wakes nobody for long."""
    (tidy.share / "file").touch()
    tidy.fuse.lookup(ROOT, "file")
    wait_until(lambda: not cached(tidy.daemon, tidy.share / "file"), "the end of the descriptor")
    time.sleep(2 * SHORTLY)
    before = tidy.daemon.switches()
    time.sleep(5 * SHORTLY)
    assert tidy.daemon.switches() == before
