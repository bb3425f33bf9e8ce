"""Files that a guest has created: until they are closed they need no descriptor but the open one, and afterwards none.

Files have handles here.
"""

import errno
import os
import pathlib
import threading

import pytest

from frontend.fuse import FuseError
from tests.filesystem.conftest import Connect
from tests.filesystem.support import (
    ROOT,
    Guest,
    LockedMemory,
    access_list,
    as_guest,
    as_host,
    at_once,
    client,
    forget,
    needs_root,
    refused,
)

pytestmark = needs_root         # only root may open files by handle

SEAL = "user.seal"
LARGE = (1 << 20) + 1


@pytest.fixture
def guest(connect: Connect, file_system: pathlib.Path) -> Guest:
    return connect(share=file_system)


def descriptors(guest: Guest, name: str) -> int:
    """How many of the daemon's are of the file."""
    path = str(guest.share / name)
    return sum(found in (path, f"{path} (deleted)") for found in guest.daemon.open_files())


def create(guest: Guest, name: str = "file", data: bytes = b"data") -> tuple[int, int]:
    """Node and handle of a new file with some data."""
    entry, opened = guest.fuse.create(ROOT, name)
    if data:
        guest.fuse.write(entry.nodeid, opened.fh, 0, data)
    return entry.nodeid, opened.fh


# Descriptors

def test_a_created_file_has_one_descriptor_while_it_is_open_and_then_none(guest: Guest) -> None:
    node, fh = create(guest)
    assert descriptors(guest, "file") == 1
    guest.fuse.release(node, fh)
    assert descriptors(guest, "file") == 0 and guest.daemon.statistics()["descriptors_cached"] == 0
    assert guest.fuse.getattr(node).attr_size == 4
    assert descriptors(guest, "file") == 1


def test_a_large_file_keeps_a_descriptor_by_which_the_pool_frees_it(guest: Guest) -> None:
    node, fh = create(guest, data=b"")
    guest.fuse.setattr(node, size=LARGE, fh=fh)
    guest.fuse.release(node, fh)
    assert descriptors(guest, "file") == 1
    guest.fuse.unlink(ROOT, "file")
    assert descriptors(guest, "file") == 1
    guest.fuse.forget(node)
    guest.daemon.wait_for(inodes_closing=0, descriptors_cached=0)
    assert descriptors(guest, "file") == 0


@pytest.mark.parametrize("deleted", [False, True], ids=["grown", "deleted"])
def test_what_is_opened_again_leaves_its_end_to_the_pool_as_well(guest: Guest, deleted: bool) -> None:
    """By then it is found by its handle; what it gets when it is closed depends on what it is by then."""
    node, fh = create(guest)
    guest.fuse.release(node, fh)
    fh = guest.fuse.open(node, os.O_RDWR).fh
    assert descriptors(guest, "file") == 1
    if deleted:
        guest.fuse.unlink(ROOT, "file")
    else:
        guest.fuse.write(node, fh, LARGE, b"x")
    guest.fuse.release(node, fh)
    assert descriptors(guest, "file") == 1
    assert guest.fuse.getattr(node).attr_nlink == (0 if deleted else 1)
    guest.fuse.forget(node)
    guest.daemon.wait_for(inodes_closing=0, descriptors_cached=0)


def test_what_was_created_to_be_read_may_stay_open_for_a_moment(guest: Guest) -> None:
    """As others that were open to read."""
    entry, opened = guest.fuse.create(ROOT, "file", flags=os.O_RDONLY)
    guest.fuse.release(entry.nodeid, opened.fh)
    assert guest.fuse.getattr(entry.nodeid).attr_size == 0
    fh = guest.fuse.open(entry.nodeid).fh
    assert guest.fuse.read(entry.nodeid, fh, 0, 10) == b""
    guest.fuse.release(entry.nodeid, fh)


def test_what_was_deleted_while_it_was_open_stays_until_it_is_forgotten(guest: Guest) -> None:
    node, fh = create(guest)
    guest.fuse.unlink(ROOT, "file")
    guest.fuse.release(node, fh)
    attr = guest.fuse.getattr(node)
    assert (attr.attr_nlink, attr.attr_size) == (0, 4)
    assert descriptors(guest, "file") == 1
    guest.fuse.forget(node)
    guest.daemon.wait_for(inodes_closing=0, descriptors_cached=0)


def test_what_is_deleted_when_it_is_closed_is_gone(guest: Guest) -> None:
    node, fh = create(guest)
    guest.fuse.release(node, fh)
    guest.fuse.unlink(ROOT, "file")
    with refused(errno.ESTALE):
        guest.fuse.getattr(node)


@pytest.mark.parametrize("again", [False, True], ids=["created", "opened again"])
def test_a_guest_with_a_write_back_cache_may_come_back_to_what_it_has_closed_and_deleted(
        connect: Connect, file_system: pathlib.Path, again: bool) -> None:
    """It has its times to tell."""
    guest = connect("--writeback", "--descriptor-timeout", "1", share=file_system)
    node, fh = create(guest)
    guest.fuse.release(node, fh)
    if again:
        guest.daemon.wait_for(descriptors_cached=0)
        fh = guest.fuse.open(node, os.O_WRONLY).fh
        guest.fuse.release(node, fh)
    guest.fuse.unlink(ROOT, "file")
    assert guest.fuse.setattr(node, mtime=5).attr_mtime == 5


def test_a_session_may_end_while_a_created_file_is_open(guest: Guest) -> None:
    create(guest)
    guest.fuse.destroy()
    guest.daemon.wait_for(inodes=0, files_open=0, descriptors_cached=0)
    guest.fuse.lookups.clear()
    guest.fuse.init()
    assert guest.fuse.lookup(ROOT, "file").attr_size == 4


def test_a_created_file_may_be_forgotten_before_it_is_closed(guest: Guest) -> None:
    node, fh = create(guest)
    guest.fuse.forget(node)
    with refused(errno.ESTALE):
        guest.fuse.getattr(node)
    assert guest.fuse.read(node, fh, 0, 10) == b"data"
    again = guest.fuse.lookup(ROOT, "file")
    assert again.nodeid != node
    guest.fuse.release(node, fh)
    assert guest.fuse.getattr(again.nodeid).attr_size == 4


# It is like every other file

def has_attributes(folder: pathlib.Path) -> bool:
    """Whether files there have attributes of users: those of tmpfs do from Linux 6.6 on."""
    try:
        os.setxattr(folder, SEAL, b"value")
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return False
    return True


def test_its_attributes_are_the_hosts(guest: Guest) -> None:
    """At once, after a write, and when it is closed."""
    entry, opened = guest.fuse.create(ROOT, "file")
    assert as_guest(entry) == as_host(guest.share / "file")
    guest.fuse.write(entry.nodeid, opened.fh, 0, b"data")
    assert as_guest(guest.fuse.getattr(entry.nodeid)) == as_host(guest.share / "file")
    guest.fuse.release(entry.nodeid, opened.fh)
    assert as_guest(guest.fuse.getattr(entry.nodeid)) == as_host(guest.share / "file")
    assert as_guest(guest.fuse.lookup(ROOT, "file")) == as_host(guest.share / "file")


def test_its_attributes_are_the_hosts_where_its_folder_has_something_to_say(guest: Guest) -> None:
    """Default access lists and a group of its own."""
    folder = guest.share / "folder"
    folder.mkdir()
    os.setxattr(folder, "system.posix_acl_default", access_list((1, 7, 0xffffffff), (2, 6, 1234), (4, 5, 0xffffffff),
                                                                (16, 7, 0xffffffff), (32, 5, 0xffffffff)))
    os.chown(folder, 0, 1234)
    folder.chmod(0o2775)
    parent = guest.fuse.lookup(ROOT, "folder").nodeid
    entry, opened = guest.fuse.create(parent, "file")
    assert as_guest(entry) == as_host(folder / "file")
    guest.fuse.release(entry.nodeid, opened.fh)


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
def test_everything_works_on_it(guest: Guest, closed: bool) -> None:
    fuse = guest.fuse
    names = iter(range(100))

    def new() -> int:
        node, fh = create(guest, f"file{next(names)}")
        if closed:
            fuse.release(node, fh)
        return node

    assert fuse.getattr(new()).attr_size == 4
    assert fuse.setattr(new(), mode=0o100600).attr_mode == 0o100600
    assert fuse.setattr(new(), owner=7, group=8).attr_uid == 7
    assert fuse.setattr(new(), size=2).attr_size == 2
    assert fuse.setattr(new(), mtime=5).attr_mtime == 5
    assert fuse.statx(new()).stat_size == 4
    fuse.access(new(), os.R_OK)
    node = new()
    if has_attributes(guest.share):
        fuse.setxattr(node, SEAL, b"value")
        assert fuse.getxattr(node, SEAL) == b"value"
    node = new()
    assert fuse.link(node, ROOT, "other").nodeid == node
    node = new()
    fh = fuse.open(node, os.O_RDWR).fh
    fuse.write(node, fh, 4, b" more")
    assert fuse.read(node, fh, 0, 100) == b"data more"
    fuse.release(node, fh)
    assert fuse.lookup(ROOT, "file0").nodeid == fuse.lookup(ROOT, "file0").nodeid


def test_its_name_leads_to_the_same_node_at_all_times(guest: Guest) -> None:
    fuse = guest.fuse
    node, fh = create(guest)
    for _ in range(2):
        assert fuse.lookup(ROOT, "file").nodeid == node
        found = [entry.entry for entry in fuse.listdir(plus=True) if entry.name == b"file"]
        assert [entry and entry.nodeid for entry in found] == [node]
    fuse.release(node, fh)
    assert fuse.lookup(ROOT, "file").nodeid == node
    second, fh = create(guest, "second")
    fuse.release(second, fh)
    fuse.rename(ROOT, "second", ROOT, "third")
    assert fuse.lookup(ROOT, "third").nodeid == second
    assert fuse.getattr(second).attr_size == 4


def test_who_opened_it_besides_has_it_when_its_creator_has_closed_it(guest: Guest) -> None:
    fuse = guest.fuse
    node, fh = create(guest)
    other = fuse.open(node).fh
    fuse.release(node, fh)
    fuse.unlink(ROOT, "file")
    assert fuse.read(node, other, 0, 10) == b"data"
    assert fuse.getattr(node).attr_nlink == 0
    fuse.release(node, other)


def test_a_file_without_a_name_gets_one_after_its_creator_has_closed_it(guest: Guest) -> None:
    fuse = guest.fuse
    try:
        entry, opened = fuse.tmpfile(ROOT)
    except FuseError as error:
        assert error.errno == errno.EOPNOTSUPP
        return
    fuse.write(entry.nodeid, opened.fh, 0, b"data")
    fuse.release(entry.nodeid, opened.fh)
    assert fuse.link(entry.nodeid, ROOT, "file").nodeid == entry.nodeid
    assert (guest.share / "file").read_bytes() == b"data"


def test_what_the_host_puts_in_its_place_is_another_file(guest: Guest) -> None:
    """While it is open, and afterwards, when its number may be another file's."""
    fuse = guest.fuse
    for attempt in range(20):
        name = f"file{attempt}"
        node, fh = create(guest, name)
        if attempt % 2:
            fuse.release(node, fh)
        (guest.share / name).unlink()
        (guest.share / name).write_bytes(b"of the host")
        entry = fuse.lookup(ROOT, name)
        assert entry.nodeid != node and entry.attr_size == 11
        if attempt % 2:
            with refused(errno.ESTALE):
                fuse.getattr(node)
        else:
            assert fuse.getattr(node).attr_size == 4
            fuse.release(node, fh)


def test_a_new_file_with_the_number_of_a_removed_one_is_another_node(guest: Guest) -> None:
    """That its guest has not forgotten yet."""
    fuse = guest.fuse
    nodes: set[int] = set()
    for attempt in range(50):
        node, fh = create(guest, "file", str(attempt).encode())
        assert node not in nodes
        nodes.add(node)
        fuse.release(node, fh)
        fuse.unlink(ROOT, "file")
    node, fh = create(guest, "file", b"the last one")
    for old in nodes:
        with refused(errno.ESTALE):
            fuse.getattr(old)
    assert fuse.read(node, fh, 0, 100) == b"the last one"
    fuse.release(node, fh)


def test_what_is_found_while_it_is_created_is_the_same_node(connect: Connect) -> None:
    """Other queues look it up, ask for it and open it, from before it is there until after it is gone."""
    guest = connect(num_queues=3, memory=LockedMemory(64))
    rounds = 400
    seen: list[dict[str, int]] = [{}, {}]
    done = threading.Event()

    def maker() -> None:
        fuse = client(guest, 1)
        try:
            for number in range(rounds):
                name = f"file{number}"
                entry, opened = fuse.create(ROOT, name)
                fuse.write(entry.nodeid, opened.fh, 0, name.encode())
                seen[0][name] = entry.nodeid
                fuse.release(entry.nodeid, opened.fh)
                assert fuse.getattr(entry.nodeid).attr_size == len(name)
        finally:
            done.set()

    def looker(queue: int) -> None:
        fuse = client(guest, queue)
        number = 0
        while number < rounds and not done.is_set():
            name = f"file{number}"
            try:
                entry = fuse.lookup(ROOT, name)
            except FuseError as error:
                assert error.errno == errno.ENOENT
                continue
            assert fuse.getattr(entry.nodeid).attr_ino == entry.attr_ino
            fh = fuse.open(entry.nodeid).fh
            assert name.encode().startswith(fuse.read(entry.nodeid, fh, 0, 100))
            fuse.release(entry.nodeid, fh)
            if number % 2:
                forget(fuse, entry.nodeid)      # if that was before its creator was told of it, it is another node now
            else:
                seen[1][name] = entry.nodeid
            number += 1

    at_once([maker, lambda: looker(2), lambda: looker(3)])
    common = seen[0].keys() & seen[1].keys()
    assert common and {name: seen[0][name] for name in common} == {name: seen[1][name] for name in common}
    for node in seen[0].values():
        forget(client(guest, 1), node, 3)
