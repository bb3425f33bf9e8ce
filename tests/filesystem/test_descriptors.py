"""Few file descriptors: a guest may know far more files than the daemon may have open. Files have handles here."""

import errno
import os
import pathlib
import random
import stat
from collections.abc import Callable

import pytest

from frontend.device import REQUEST
from frontend.memory import RegionSpec
from tests.filesystem.conftest import Connect
from tests.filesystem.support import (
    CROWD,
    ROOT,
    Guest,
    Mounts,
    as_guest,
    as_host,
    cached,
    during,
    give_back,
    needs_root,
    push_out,
    refused,
)

pytestmark = needs_root         # only root may open files by handle

LIMIT = 512
RESERVE = 64
MANY = 5000


@pytest.fixture
def few(connect: Connect, file_system: pathlib.Path) -> Guest:
    """A guest of a daemon with few descriptors."""
    return connect("--rlimit-nofile", str(LIMIT), share=file_system)


@pytest.fixture
def fewest(connect: Connect, file_system: pathlib.Path) -> Guest:
    """A guest of a daemon with as few descriptors as it can be given."""
    return connect("--rlimit-nofile", "256", share=file_system)


# Many files

def test_a_guest_may_look_at_far_more_files_than_there_are_descriptors(few: Guest) -> None:
    for number in range(MANY):
        (few.share / f"file{number}").write_text(str(number))
    entries = [few.fuse.lookup(ROOT, f"file{number}") for number in range(MANY)]
    assert len({entry.nodeid for entry in entries}) == MANY
    numbers = few.daemon.statistics()
    assert numbers["inodes"] == MANY and numbers["errors"] == 0
    assert numbers["descriptors_cached"] <= LIMIT - RESERVE
    assert len(few.daemon.open_files()) <= LIMIT
    for number in range(0, MANY, 7):        # all are what they were
        node = entries[number].nodeid
        attr = few.fuse.getattr(node)
        assert (attr.attr_ino, attr.attr_size) == (entries[number].attr_ino, len(str(number)))
        fh = few.fuse.open(node).fh
        assert few.fuse.read(node, fh, 0, 10) == str(number).encode()
        few.fuse.release(node, fh)
    for number in range(MANY):
        assert few.fuse.lookup(ROOT, f"file{number}").nodeid == entries[number].nodeid
    numbers = few.daemon.statistics()
    assert numbers["inodes"] == MANY and numbers["errors"] == 0 and numbers["descriptors_cached"] <= LIMIT - RESERVE
    few.daemon.statistics()
    assert len(few.daemon.open_files()) <= LIMIT


def test_readdirplus_of_far_more_files_than_there_are_descriptors(few: Guest) -> None:
    for number in range(MANY):
        (few.share / f"file{number}").touch()
    for _ in range(2):
        entries = [entry for entry in few.fuse.listdir(plus=True) if entry.name not in (b".", b"..")]
        assert len(entries) == MANY
        assert all(entry.entry and entry.entry.nodeid for entry in entries)
    numbers = few.daemon.statistics()
    assert numbers["inodes"] == MANY and numbers["errors"] == 0
    assert numbers["descriptors_cached"] <= LIMIT - RESERVE


def test_creating_far_more_files_than_there_are_descriptors(few: Guest) -> None:
    for number in range(1000):
        entry, opened = few.fuse.create(ROOT, f"file{number}")
        few.fuse.release(entry.nodeid, opened.fh)
        few.fuse.mkdir(ROOT, f"folder{number}")
    numbers = few.daemon.statistics()
    assert numbers["inodes"] == 2000 and numbers["errors"] == 0
    assert numbers["descriptors_cached"] <= LIMIT - RESERVE


def test_what_is_forgotten_while_it_has_no_descriptor_is_gone(fewest: Guest) -> None:
    (fewest.share / "file").touch()
    entry = fewest.fuse.lookup(ROOT, "file")
    push_out(fewest, fewest.share / "file")
    fewest.fuse.forget(entry.nodeid)
    with refused(errno.ESTALE):
        fewest.fuse.getattr(entry.nodeid)
    again = fewest.fuse.lookup(ROOT, "file")
    assert again.nodeid != entry.nodeid and again.attr_ino == entry.attr_ino


# Everything works on what has no descriptor any more

@pytest.fixture
def evicted(fewest: Guest) -> tuple[Guest, dict[str, int]]:
    """The nodes of files of every kind, whose descriptors are closed."""
    share = fewest.share
    (share / "file").write_bytes(b"data of file")
    (share / "folder/sub").mkdir(parents=True)
    (share / "folder/inner").write_bytes(b"data of inner")
    (share / "link").symlink_to("target")
    os.mkfifo(share / "fifo")
    os.mknod(share / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    nodes = {path: fewest.fuse.walk(path).nodeid for path in ("file", "folder", "folder/sub", "link", "fifo", "device")}
    push_out(fewest, *(share / path for path in nodes))
    return fewest, nodes


def test_every_kind_of_file_is_found_again(evicted: tuple[Guest, dict[str, int]]) -> None:
    guest, nodes = evicted
    for path, node in nodes.items():
        assert as_guest(guest.fuse.getattr(node)) == as_host(guest.share / path), path
        assert guest.fuse.walk(path).nodeid == node
    assert guest.daemon.statistics()["errors"] == 0


def test_every_operation_finds_it_again(evicted: tuple[Guest, dict[str, int]]) -> None:
    guest, nodes = evicted
    fuse, share = guest.fuse, guest.share
    file, folder, link = nodes["file"], nodes["folder"], nodes["link"]
    operations: dict[str, Callable[[], object]] = {
        "LOOKUP": lambda: fuse.lookup(folder, "inner"),
        "LOOKUP of ..": lambda: fuse.lookup(nodes["folder/sub"], ".."),
        "SETATTR": lambda: fuse.setattr(file, mode=0o640, size=5, mtime=7.0),
        "READLINK": lambda: fuse.readlink(link),
        "OPEN": lambda: fuse.release(file, fuse.open(file).fh),
        "OPENDIR": lambda: fuse.listdir(folder, plus=True),
        "STATFS": lambda: fuse.statfs(file),
        "SETXATTR": lambda: fuse.setxattr(file, "trusted.name", b"value"),
        "GETXATTR": lambda: fuse.getxattr(file, "trusted.name"),
        "LISTXATTR": lambda: fuse.listxattr(file),
        "MKDIR": lambda: fuse.mkdir(folder, "new"),
        "LINK": lambda: fuse.link(file, folder, "linked"),
        "RENAME": lambda: fuse.rename(folder, "new", nodes["folder/sub"], "moved"),
        "RMDIR": lambda: fuse.rmdir(nodes["folder/sub"], "moved"),
        "UNLINK": lambda: fuse.unlink(folder, "linked"),
        "ACCESS": lambda: fuse.access(file, os.R_OK),
        "SYNCFS": lambda: fuse.syncfs(folder),
    }
    for operation, run in operations.items():
        with during(operation):
            push_out(guest, share / "file", share / "folder", share / "folder/sub", share / "link")
            run()
    assert stat.S_IMODE((share / "file").stat().st_mode) == 0o640
    assert sorted(os.listdir(share / "folder")) == ["inner", "sub"]
    assert guest.daemon.statistics()["errors"] == 0


@pytest.mark.parametrize("by", ["guest", "host"])
def test_what_was_renamed_meanwhile_is_found_again(evicted: tuple[Guest, dict[str, int]], by: str) -> None:
    guest, nodes = evicted
    if by == "guest":
        guest.fuse.rename(ROOT, "file", nodes["folder"], "moved")
        guest.fuse.rename(nodes["folder"], "sub", ROOT, "up")
    else:
        (guest.share / "file").rename(guest.share / "folder/moved")
        (guest.share / "folder/sub").rename(guest.share / "up")
    (guest.share / "file").write_bytes(b"another")
    assert as_guest(guest.fuse.getattr(nodes["file"])) == as_host(guest.share / "folder/moved")
    assert guest.fuse.lookup(nodes["folder"], "moved").nodeid == nodes["file"]
    assert guest.fuse.lookup(ROOT, "file").nodeid != nodes["file"]
    assert guest.fuse.lookup(nodes["folder/sub"], "..").nodeid == ROOT


def test_what_was_deleted_meanwhile_is_stale(evicted: tuple[Guest, dict[str, int]]) -> None:
    guest, nodes = evicted
    for name in ("file", "link", "fifo", "device"):
        (guest.share / name).unlink()
        with refused(errno.ESTALE):
            guest.fuse.getattr(nodes[name])
        (guest.share / name).touch()
        assert guest.fuse.lookup(ROOT, name).nodeid != nodes[name]
        with refused(errno.ESTALE):
            guest.fuse.getattr(nodes[name])


def test_an_inode_number_that_was_recycled_meanwhile_is_a_new_node(evicted: tuple[Guest, dict[str, int]]) -> None:
    """The old node is stale then; it never becomes the file that has its number now."""
    guest, nodes = evicted
    number = (guest.share / "file").stat().st_ino
    (guest.share / "file").unlink()
    for attempt in range(200):
        path = guest.share / f"new{attempt}"
        path.write_bytes(b"another file")
        if path.stat().st_ino == number:
            break
    else:
        pytest.skip("the file system did not use the number again")
    entry = guest.fuse.lookup(ROOT, path.name)
    assert entry.attr_ino == number and entry.nodeid != nodes["file"]
    with refused(errno.ESTALE):
        guest.fuse.getattr(nodes["file"])
    guest.fuse.forget(nodes["file"])
    assert guest.fuse.getattr(entry.nodeid).attr_size == len(b"another file")
    assert guest.fuse.lookup(ROOT, path.name).nodeid == entry.nodeid


def test_a_deleted_file_that_is_open_is_found_again(fewest: Guest) -> None:
    fuse = fewest.fuse
    entry, opened = fuse.create(ROOT, "file")
    fuse.write(entry.nodeid, opened.fh, 0, b"data")
    fuse.unlink(ROOT, "file")
    push_out(fewest)
    attr = fuse.getattr(entry.nodeid)
    assert (attr.attr_ino, attr.attr_nlink, attr.attr_size) == (entry.attr_ino, 0, 4)
    assert fuse.setattr(entry.nodeid, size=2).attr_size == 2
    again = fuse.open(entry.nodeid).fh
    assert fuse.read(entry.nodeid, again, 0, 10) == b"da"


def test_a_directory_that_left_the_share_meanwhile_tells_nothing_of_where_it_is(
        evicted: tuple[Guest, dict[str, int]]) -> None:
    guest, nodes = evicted
    outside = guest.share.parent / "outside"
    outside.mkdir()
    (guest.share / "folder").rename(outside / "folder")
    for path in ("folder", "folder/sub"):
        with refused(errno.ESTALE):
            guest.fuse.lookup(nodes[path], "..")


def test_files_on_mounts_inside_the_share_are_found_again(fewest: Guest, mounts: Mounts) -> None:
    inner = mounts.tmpfs(fewest.share / "mounted")
    (inner / "folder").mkdir()
    (inner / "folder/file").write_bytes(b"data")
    mounted, folder, file = (fewest.fuse.walk(path).nodeid
                             for path in ("mounted", "mounted/folder", "mounted/folder/file"))
    push_out(fewest)
    # One of them is what handles are opened by on this mount.
    assert sum(cached(fewest.daemon, path) for path in (inner, inner / "folder", inner / "folder/file")) <= 1
    assert as_guest(fewest.fuse.getattr(file)) == as_host(inner / "folder/file")
    assert as_guest(fewest.fuse.getattr(mounted)) == as_host(inner)
    assert fewest.fuse.lookup(folder, "..").nodeid == mounted
    assert fewest.fuse.lookup(mounted, "..").nodeid == ROOT
    assert fewest.daemon.statistics()["errors"] == 0


def test_a_mount_in_the_share_keeps_no_deleted_file_of_the_host_alive(fewest: Guest, mounts: Mounts) -> None:
    """Handles of a mount are opened by some file of it, which must not be one that the host then cannot be rid of."""
    inner = mounts.tmpfs(fewest.share / "mounted")
    for number in range(CROWD):
        (inner / str(number)).write_bytes(b"data")
    parent = fewest.fuse.lookup(ROOT, "mounted").nodeid
    for number in range(CROWD):
        fewest.fuse.lookup(parent, str(number))
    push_out(fewest)
    for path in inner.iterdir():
        path.unlink()
    give_back(fewest.fuse)
    fewest.daemon.wait_for(inodes=0, inodes_closing=0)
    assert not [name for name in fewest.daemon.open_files() if name.endswith("(deleted)") and "/mounted/" in name]


def test_a_mount_of_which_the_guest_has_forgotten_all_can_be_unmounted(connect: Connect, mounts: Mounts) -> None:
    """And mounted anew, time and again: nothing is left of any."""
    guest = connect()
    at = guest.share / "mounted"
    at.mkdir()
    files = 0
    for number in range(20):
        inner = mounts.tmpfs(at)
        (inner / "folder").mkdir()
        (inner / "folder/file").write_text(str(number))
        entry = guest.fuse.walk("mounted/folder/file")
        opened = guest.fuse.open(entry.nodeid)
        assert guest.fuse.read(entry.nodeid, opened.fh, 0, 10) == str(number).encode()
        guest.fuse.release(entry.nodeid, opened.fh)
        give_back(guest.fuse)
        guest.daemon.wait_for(inodes=0, inodes_closing=0, files_kept=0)
        mounts.unmount_unused(at)
        files = files or len(guest.daemon.open_files())
        assert len(guest.daemon.open_files()) <= files


# Open files have a bound

@pytest.fixture
def full(connect: Connect) -> tuple[Guest, int, list[int]]:
    """A guest with as many files open as it may have; a node of a file, and its handles."""
    guest = connect("--rlimit-nofile", str(LIMIT))
    (guest.share / "file").write_bytes(b"data")
    (guest.share / "other").write_bytes(b"other data")
    node = guest.fuse.lookup(ROOT, "file").nodeid
    handles = []
    with refused(errno.ENFILE):
        while len(handles) < LIMIT:
            handles.append(guest.fuse.open(node, os.O_RDWR).fh)
    assert guest.daemon.statistics()["files_open"] == len(handles) > LIMIT // 2
    return guest, node, handles


def test_open_files_have_a_bound_and_everything_else_goes_on(full: tuple[Guest, int, list[int]]) -> None:
    guest, node, handles = full
    fuse = guest.fuse
    for number in range(1000):
        (guest.share / f"file{number}").touch()
    for run in (lambda: fuse.open(node), lambda: fuse.opendir(ROOT)):
        with refused(errno.ENFILE):
            run()
    for number in range(1000):
        fuse.getattr(fuse.lookup(ROOT, f"file{number}").nodeid)
    for fh in handles:
        assert fuse.read(node, fh, 0, 10) == b"data"
    fuse.write(node, handles[0], 0, b"DATA")
    fuse.flush(node, handles[0])
    fuse.fsync(node, handles[0])
    fuse.statfs()
    fuse.mkdir(ROOT, "new")
    fuse.rename(ROOT, "new", ROOT, "renamed")
    fuse.rmdir(ROOT, "renamed")
    assert len(guest.daemon.open_files()) <= LIMIT
    numbers = guest.daemon.statistics()
    assert numbers["files_open"] == len(handles)
    assert numbers["descriptors_cached"] <= LIMIT - RESERVE - len(handles) + 1


def test_a_release_makes_room_for_an_open(full: tuple[Guest, int, list[int]]) -> None:
    guest, node, handles = full
    for _ in range(3):
        guest.fuse.release(node, handles.pop())
        handles.append(guest.fuse.open(node).fh)
        with refused(errno.ENFILE):
            guest.fuse.open(node)


def test_the_control_plane_has_its_descriptors(full: tuple[Guest, int, list[int]]) -> None:
    """However much the guest has open: its memory can grow, and its queues stop and start."""
    guest, node, handles = full
    region = guest.device.add_memory(RegionSpec(1 << 33, 2 << 20))
    assert guest.fuse.read(node, handles[0], 0, 10) == b"data"
    guest.device.remove_memory(region)
    guest.device.stop()
    guest.device.start()
    assert guest.fuse.read(node, handles[-1], 0, 10) == b"data"
    assert guest.device.queues[REQUEST].in_flight == []


def test_an_open_beyond_the_bound_cuts_no_file(full: tuple[Guest, int, list[int]]) -> None:
    guest, node, _ = full
    with refused(errno.ENFILE):
        guest.fuse.open(node, os.O_WRONLY | os.O_TRUNC)
    assert (guest.share / "file").read_bytes() == b"data"


@pytest.mark.parametrize("name", ["new", "other"])
def test_a_create_beyond_the_bound_changes_nothing(full: tuple[Guest, int, list[int]], name: str) -> None:
    guest, _, _ = full
    before = guest.daemon.statistics()["inodes"]
    with refused(errno.ENFILE):
        guest.fuse.create(ROOT, name, flags=os.O_RDWR | os.O_TRUNC)
    assert guest.daemon.statistics()["inodes"] == before
    assert (guest.share / "other").read_bytes() == b"other data"
    assert not (guest.share / "new").exists()


def test_a_create_beyond_the_bound_keeps_no_node(full: tuple[Guest, int, list[int]]) -> None:
    guest, _, handles = full
    before = guest.daemon.statistics()["inodes"]
    for _ in range(20):
        with refused(errno.ENFILE):
            guest.fuse.create(ROOT, "other")
    numbers = guest.daemon.wait_for(inodes=before, inodes_closing=0)
    assert numbers["files_open"] == len(handles)


def test_no_descriptor_is_lost_by_all_this(full: tuple[Guest, int, list[int]]) -> None:
    guest, node, handles = full
    for fh in handles:
        guest.fuse.release(node, fh)
    push_out(guest)
    give_back(guest.fuse)
    guest.daemon.wait_for(inodes=0, inodes_closing=0, files_open=0, descriptors_cached=0)
    in_share = [name for name in guest.daemon.open_files() if name.startswith(str(guest.share))]
    # The shared directory itself, and what handles are opened by.
    assert set(in_share) == {str(guest.share)} and len(in_share) <= 3


@pytest.mark.parametrize("order", ["as looked up", "backwards", "shuffled"])
def test_what_is_forgotten_together_takes_no_other_descriptor_with_it(connect: Connect, order: str) -> None:
    """Descriptors in sequence are closed by one call; files that are open lie between them."""
    guest = connect()
    names = [f"file{number}" for number in range(600)]
    for name in names:
        (guest.share / name).write_text(name)
    nodes, opened = [], {}
    for number, name in enumerate(names):
        nodes.append(guest.fuse.lookup(ROOT, name).nodeid)
        if number % 97 == 50:
            opened[nodes[-1]] = guest.fuse.open(nodes[-1], os.O_RDWR).fh, name
    forgotten = [node for node in nodes if node not in opened]
    if order != "as looked up":
        forgotten.reverse()
    if order == "shuffled":
        random.Random(7).shuffle(forgotten)
    for at in range(0, len(forgotten), 100):
        guest.fuse.batch_forget([(node, 1) for node in forgotten[at:at + 100]])
    guest.daemon.wait_for(inodes=len(opened), inodes_closing=0, descriptors_cached=len(opened))
    for node, (fh, name) in opened.items():
        assert guest.fuse.read(node, fh, 0, 100) == name.encode()
        assert guest.fuse.getattr(node).attr_size == len(name)
    assert sum(name.startswith(str(guest.share / "file")) for name in guest.daemon.open_files()) == 2 * len(opened)


# What is deleted, and known

@pytest.mark.parametrize("opened", [False, True], ids=["", "and open"])
def test_deleted_files_take_all_descriptors_but_those_of_the_daemon_itself(connect: Connect, file_system: pathlib.Path,
                                                                         opened: bool) -> None:
    """They have nothing but their descriptors, so these cannot be closed; then no more are made."""
    guest = connect("--rlimit-nofile", str(LIMIT), share=file_system)
    fuse = guest.fuse
    nodes: list[int] = []
    handles: list[tuple[int, int]] = []
    with refused(errno.ENFILE):
        while len(nodes) < LIMIT:
            nodes.append(fuse.mknod(ROOT, "new", stat.S_IFREG | 0o600).nodeid)
            if opened:
                handles.append((nodes[-1], fuse.open(nodes[-1]).fh))
            fuse.unlink(ROOT, "new")
    assert len(nodes) > LIMIT // (3 if opened else 2)
    if opened:
        fuse.unlink(ROOT, "new")        # of which the OPEN was refused
    assert os.listdir(file_system) == []
    assert len(guest.daemon.open_files()) < LIMIT - RESERVE // 4
    region = guest.device.add_memory(RegionSpec(1 << 33, 2 << 20))
    guest.device.remove_memory(region)
    guest.device.stop()
    guest.device.start()
    for node in nodes:
        assert fuse.getattr(node).attr_nlink == 0
    for node, fh in handles:
        fuse.release(node, fh)
    give_back(fuse)
    guest.daemon.wait_for(inodes=0, inodes_closing=0)
    fuse.mkdir(ROOT, "folder")
    fuse.create(ROOT, "file")
