"""--nfs-export: a guest comes back by nodeid to what it has forgotten, as it does for a handle that it made of it."""

import contextlib
import errno
import os
import pathlib

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from frontend.fuse_transport import FuseError
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, Guest, as_guest, as_host, needs_root, push_out, refused

pytestmark = needs_root         # only root may open files by handle

NAMES = ("file", "folder", "folder/inner", "link")


@pytest.fixture(params=["prefer", "never"], ids=["handles", "names"])
def guest(connect: Connect, file_system: pathlib.Path, request: pytest.FixtureRequest) -> Guest:
    """One that has few descriptors."""
    (file_system / "folder").mkdir()
    for name in ("file", "folder/inner"):
        (file_system / name).write_text(name)
    (file_system / "link").symlink_to("file")
    return connect("--nfs-export", "--rlimit-nofile", "256", "--inode-file-handles", request.param, share=file_system)


def known_once(guest: Guest) -> dict[str, int]:
    """The nodes of all files; the guest knows them no longer."""
    nodes = {name: guest.fuse.walk(name).nodeid for name in NAMES}
    for node, count in guest.fuse.lookups.copy().items():
        guest.fuse.forget(node, count)
    assert guest.daemon.statistics()["inodes"] == 0
    return nodes


def are_found(guest: Guest, nodes: dict[str, int]) -> None:
    for name, node in nodes.items():
        entry = guest.fuse.lookup(node, ".")
        assert (entry.nodeid, as_guest(entry)) == (node, as_host(guest.share / name))
    assert guest.fuse.lookup(nodes["folder/inner"], ".").nodeid == guest.fuse.walk("folder/inner").nodeid
    assert guest.fuse.lookup(nodes["folder"], "..").nodeid == ROOT
    assert guest.daemon.statistics()["inodes"] == len(nodes)


def test_what_was_forgotten_is_found_by_its_nodeid(guest: Guest) -> None:
    nodes = known_once(guest)
    assert guest.daemon.statistics()["inodes_remembered"] == len(nodes)
    are_found(guest, nodes)
    assert guest.daemon.statistics()["inodes_remembered"] == 0
    fh = guest.fuse.open(nodes["file"]).fh
    assert guest.fuse.read(nodes["file"], fh, 0, 10) == b"file"


def test_what_was_forgotten_keeps_its_nodeid(guest: Guest) -> None:
    for _ in range(3):
        nodes = known_once(guest)
        assert {name: guest.fuse.walk(name).nodeid for name in NAMES} == nodes


def test_what_was_forgotten_is_found_though_its_descriptor_is_closed(guest: Guest) -> None:
    nodes = known_once(guest)
    push_out(guest, *(guest.share / name for name in NAMES))
    for node, count in guest.fuse.lookups.copy().items():
        guest.fuse.forget(node, count)
    are_found(guest, nodes)


@pytest.mark.parametrize("end", ["DESTROY", "INIT", "a new start of the device"])
def test_what_was_forgotten_is_found_in_the_next_session(guest: Guest, end: str) -> None:
    """A guest mounts again, or boots again: its NFS clients have their handles from before."""
    nodes = known_once(guest)
    guest.fuse.walk("folder/inner")     # DESTROY forgets as well
    if end == "DESTROY":
        guest.fuse.destroy()
    elif end != "INIT":
        guest.device.stop()
        guest.device.start()
    guest.fuse.init()
    are_found(guest, nodes)


def test_what_was_open_in_an_earlier_session_is_not_taken_for_open_in_this_one(connect: Connect,
                                                                             file_system: pathlib.Path) -> None:
    """So that its space comes back once the host has deleted it, although the guest knows it."""
    guest = connect("--nfs-export", "--descriptor-timeout", "0.2", share=file_system)
    (guest.share / "file").write_text("file")
    guest.fuse.open(guest.fuse.lookup(ROOT, "file").nodeid)
    guest.fuse.destroy()
    guest.fuse.init()
    guest.fuse.lookup(ROOT, "file")
    (guest.share / "file").unlink()
    guest.daemon.wait_for(descriptors_cached=0)


def test_what_was_deleted_is_not_remembered(guest: Guest) -> None:
    nodes = {name: guest.fuse.lookup(ROOT, name).nodeid for name in ("file", "link")}
    guest.fuse.unlink(ROOT, "file")
    (guest.share / "link").unlink()
    for node in nodes.values():
        guest.fuse.forget(node)
    guest.daemon.wait_for(inodes=0, inodes_remembered=0, inodes_closing=0, descriptors_cached=0)
    for node in nodes.values():
        with refused(errno.ESTALE):
            guest.fuse.lookup(node, ".")


def test_what_others_delete_later_takes_no_descriptors(guest: Guest) -> None:
    """More of it than there are descriptors, of every kind; and when others need them its records go as well."""
    for number in range(600):
        path = guest.share / f"many{number}"
        if number % 3 == 0:
            path.touch()
        elif number % 3 == 1:
            path.mkdir()
        else:
            path.symlink_to("target")
        guest.fuse.forget(guest.fuse.lookup(ROOT, path.name).nodeid)
        path.rmdir() if number % 3 == 1 else path.unlink()
    assert guest.daemon.statistics()["inodes_remembered"] < 300
    assert guest.fuse.walk("folder/inner").nodeid


def test_what_the_guest_deletes_by_a_name_that_it_has_forgotten_is_not_remembered(guest: Guest) -> None:
    for number in range(600):
        entry, opened = guest.fuse.create(ROOT, f"new{number}")
        guest.fuse.release(entry.nodeid, opened.fh)
        if number >= 300:
            guest.fuse.rename(ROOT, f"new{number}", ROOT, "target")
        guest.fuse.forget(entry.nodeid)
        if number < 300:
            guest.fuse.unlink(ROOT, f"new{number}")
    guest.daemon.wait_for(inodes=0, inodes_remembered=1, inodes_closing=0)
    node = guest.fuse.lookup(ROOT, "target").nodeid
    (guest.share / "second").hardlink_to(guest.share / "target")
    guest.fuse.forget(node)
    guest.fuse.unlink(ROOT, "target")
    assert guest.fuse.lookup(ROOT, "second").nodeid == node      # it has another name


def test_what_is_forgotten_with_no_descriptor_left_is_remembered(guest: Guest) -> None:
    nodes = {name: guest.fuse.walk(name).nodeid for name in NAMES}
    opened = []
    push_out(guest, *(guest.share / name for name in NAMES))
    with contextlib.suppress(FuseError):
        opened.extend(guest.fuse.create(ROOT, f"new{number}") for number in range(600))
    for node in nodes.values():
        guest.fuse.forget(node)
    for entry, file in opened:
        guest.fuse.release(entry.nodeid, file.fh)
    for name, node in nodes.items():
        assert as_guest(guest.fuse.lookup(node, ".")) == as_host(guest.share / name)


def test_what_is_deleted_later_is_found_to_be_gone(guest: Guest) -> None:
    nodes = known_once(guest)
    (guest.share / "file").unlink()
    (guest.share / "folder/inner").unlink()
    (guest.share / "folder").rmdir()
    for name in ("file", "folder", "folder/inner"):
        with refused(errno.ESTALE):
            guest.fuse.lookup(nodes[name], ".")
    guest.daemon.wait_for(inodes=0, inodes_remembered=1, inodes_closing=0)


def test_another_file_of_the_same_number_is_another_node(guest: Guest) -> None:
    """Also where the first one's descriptor is closed, so that its number is free."""
    nodes = known_once(guest)
    push_out(guest, *(guest.share / name for name in NAMES))
    number = (guest.share / "file").stat().st_ino
    (guest.share / "file").unlink()
    for attempt in range(200):
        path = guest.share / f"new{attempt}"
        path.touch()
        if path.stat().st_ino == number:
            break
    else:
        pytest.skip("the file system did not use the number again")
    assert guest.fuse.lookup(ROOT, path.name).nodeid != nodes["file"]
    with refused(errno.ESTALE):
        guest.fuse.lookup(nodes["file"], ".")


def test_a_nodeid_that_never_was_is_stale(guest: Guest) -> None:
    nodes = known_once(guest)
    for node in (nodes["file"] + (1 << 32), nodes["file"] - (1 << 32), 7, 1 << 63):
        with refused(errno.ESTALE):
            guest.fuse.lookup(node, ".")


def test_far_more_files_are_remembered_than_there_are_descriptors(guest: Guest) -> None:
    numbers = {}
    for number in range(2000):
        (guest.share / f"many{number}").touch()
    for number in range(2000):
        entry = guest.fuse.lookup(ROOT, f"many{number}")
        numbers[entry.nodeid] = entry.attr_ino
        guest.fuse.forget(entry.nodeid)
    assert guest.daemon.statistics()["inodes_remembered"] == 2000
    for node, ino in numbers.items():
        assert guest.fuse.lookup(node, ".").attr_ino == ino
        guest.fuse.forget(node)
    for number in range(2000):
        node = guest.fuse.lookup(ROOT, f"many{number}").nodeid
        guest.fuse.unlink(ROOT, f"many{number}")
        guest.fuse.forget(node)
    guest.daemon.wait_for(inodes=0, inodes_remembered=0, inodes_closing=0)


def test_without_the_option_what_was_forgotten_is_gone(device: VirtioFs, share: pathlib.Path) -> None:
    fuse = FuseClient(device)
    fuse.init()
    (share / "file").touch()
    node = fuse.lookup(ROOT, "file").nodeid
    fuse.forget(node)
    with refused(errno.ESTALE):
        fuse.lookup(node, ".")
    assert os.listdir(share) == ["file"]


def test_the_nodeids_of_an_earlier_daemon_lead_to_no_file_instead_of_another(connect: Connect,
                                                                            tmp_path: pathlib.Path) -> None:
    """File handles have them in, and clients of an NFS server keep these."""
    share = tmp_path / "files"
    share.mkdir()
    names = [f"file{number}" for number in range(100)]
    for name in names:
        (share / name).touch()
    before = connect("--nfs-export", share=share)
    nodes = [before.fuse.lookup(ROOT, name).nodeid for name in names]
    after = connect("--nfs-export", share=share)
    for name in reversed(names):
        after.fuse.lookup(ROOT, name)
    for node in nodes:
        with refused(errno.ESTALE):
            after.fuse.lookup(node, ".")
