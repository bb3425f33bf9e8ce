"""LOOKUP, FORGET and BATCH_FORGET: which node a name is, and for how long the guest has it."""

import errno
import os
import pathlib
import stat
from collections.abc import Callable

import pytest

from frontend import fuse_abi as abi
from frontend.fuse import FuseClient
from frontend.fuse_abi import Opcode
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, Mounts, as_guest, as_host, during, error_of, needs_root, refused
from tests.running import Daemon

SLOT = 0xffffffff
FIRST_GENERATION = 1 << 32


def inodes(daemon: Daemon) -> int:
    return daemon.statistics()["inodes"]


# Counting

def test_lookup_tells_the_attributes_and_counts_one(fuse: FuseClient, share: pathlib.Path, daemon: Daemon) -> None:
    (share / "file").write_bytes(b"content")
    entry = fuse.lookup(ROOT, "file")
    assert as_guest(entry) == as_host(share / "file")
    assert (entry.generation, entry.entry_valid, entry.entry_valid_nsec) == (0, 1, 0)
    assert (entry.attr_valid, entry.attr_valid_nsec, entry.attr_flags) == (1, 0, 0)
    assert inodes(daemon) == 1
    fuse.forget(entry.nodeid)
    daemon.wait_for(inodes=0, inodes_closing=0, descriptors_cached=0)


def test_every_lookup_has_to_be_forgotten(fuse: FuseClient, share: pathlib.Path, daemon: Daemon) -> None:
    (share / "file").touch()
    nodeid = fuse.lookup(ROOT, "file").nodeid
    assert {fuse.lookup(ROOT, "file").nodeid for _ in range(2)} == {nodeid}
    fuse.forget(nodeid, 2)
    assert fuse.getattr(nodeid).attr_size == 0
    assert inodes(daemon) == 1
    fuse.forget(nodeid)
    with refused(errno.ESTALE):
        fuse.getattr(nodeid)
    assert inodes(daemon) == 0


def test_forget_of_nothing_changes_nothing(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "file").touch()
    nodeid = fuse.lookup(ROOT, "file").nodeid
    fuse.forget(nodeid, 0)
    fuse.getattr(nodeid)


@pytest.mark.parametrize("count", [2, 1 << 32, (1 << 64) - 1])
def test_forget_of_more_than_was_looked_up_forgets_all(fuse: FuseClient, share: pathlib.Path, daemon: Daemon,
                                                      count: int) -> None:
    (share / "file").touch()
    first = fuse.lookup(ROOT, "file").nodeid
    fuse.forget(first, count)
    assert inodes(daemon) == 0
    second = fuse.lookup(ROOT, "file").nodeid
    assert second != first
    fuse.getattr(second)
    fuse.forget(first, count)       # of the one that is gone: not of the new one in its place
    fuse.getattr(second)
    assert inodes(daemon) == 1


def test_forget_of_unknown_nodes_is_ignored(fuse: FuseClient, share: pathlib.Path, daemon: Daemon) -> None:
    (share / "file").touch()
    nodeid = fuse.lookup(ROOT, "file").nodeid
    slot = nodeid & SLOT
    for unknown in (0, 2, slot, nodeid + FIRST_GENERATION, nodeid | 1 << 63, nodeid + 1, 0xffffffff, (1 << 64) - 1,
                    FIRST_GENERATION, FIRST_GENERATION + 1):
        fuse.forget(unknown, 1 << 40)
    fuse.getattr(nodeid)
    fuse.getattr(ROOT)
    assert inodes(daemon) == 1


def test_the_root_cannot_be_forgotten(fuse: FuseClient, share: pathlib.Path) -> None:
    for count in (1, (1 << 64) - 1, (1 << 64) - 1):
        fuse.forget(ROOT, count)
        fuse.batch_forget([(ROOT, count)])
    assert as_guest(fuse.getattr(ROOT)) == as_host(share)


def test_forget_is_served_on_a_request_queue_too(fuse: FuseClient, share: pathlib.Path, daemon: Daemon) -> None:
    (share / "file").touch()
    fuse.forget(fuse.lookup(ROOT, "file").nodeid, queue=1)
    assert inodes(daemon) == 0


def test_forget_with_room_for_a_reply_gets_none(fuse: FuseClient, share: pathlib.Path, daemon: Daemon) -> None:
    (share / "file").touch()
    nodeid = fuse.lookup(ROOT, "file").nodeid
    ticket = fuse.submit(Opcode.FORGET, nodeid, abi.FORGET_IN.pack(nlookup=1))
    fuse.returned(ticket.queue)
    assert ticket.used_len == 0
    assert inodes(daemon) == 0


def test_batch_forget_forgets_many(fuse: FuseClient, share: pathlib.Path, daemon: Daemon) -> None:
    nodes = []
    for number in range(700):       # more than are taken from the message at once
        (share / str(number)).touch()
        nodes.append(fuse.lookup(ROOT, str(number)).nodeid)
    kept = nodes.pop()
    fuse.batch_forget([(nodeid, 1) for nodeid in nodes])
    assert inodes(daemon) == 1
    fuse.getattr(kept)


def test_batch_forget_ignores_unknown_nodes_among_the_known(fuse: FuseClient, share: pathlib.Path,
                                                           daemon: Daemon) -> None:
    for name in ("one", "other"):
        (share / name).touch()
    one, other = fuse.lookup(ROOT, "one").nodeid, fuse.lookup(ROOT, "other").nodeid
    fuse.batch_forget([(0, 1), (one + FIRST_GENERATION, 1), (one, (1 << 64) - 1), (ROOT, 7), (one, 1), (1 << 40, 1)])
    with refused(errno.ESTALE):
        fuse.getattr(one)
    fuse.getattr(other)
    assert inodes(daemon) == 1


@pytest.mark.parametrize("count", [0, 1, 3, 1000, 0xffffffff])
def test_batch_forget_believes_neither_more_than_it_says_nor_more_than_it_has(
        fuse: FuseClient, share: pathlib.Path, daemon: Daemon, count: int) -> None:
    nodes = []
    for name in ("one", "other"):
        (share / name).touch()
        nodes.append(fuse.lookup(ROOT, name).nodeid)
    body = abi.BATCH_FORGET_IN.pack(count=count)
    body += b"".join(abi.FORGET_ONE.pack(nodeid=nodeid, nlookup=1) for nodeid in nodes)
    fuse.drop(Opcode.BATCH_FORGET, 0, body)
    assert inodes(daemon) == max(0, 2 - count)


def test_batch_forget_ignores_half_an_entry(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "file").touch()
    nodeid = fuse.lookup(ROOT, "file").nodeid
    entry = abi.FORGET_ONE.pack(nodeid=nodeid, nlookup=1)
    for size in (0, 8, 15):
        fuse.drop(Opcode.BATCH_FORGET, 0, abi.BATCH_FORGET_IN.pack(count=1), entry[:size])
    fuse.getattr(nodeid)


def test_a_failed_lookup_counts_nothing(fuse: FuseClient, daemon: Daemon) -> None:
    for _ in range(3):
        with refused(errno.ENOENT):
            fuse.lookup(ROOT, "missing")
    assert inodes(daemon) == 0


# Identity

def operations_on(fuse: FuseClient, nodeid: int) -> dict[str, Callable[[], object]]:
    """One request of every kind on a node."""
    return {
        "LOOKUP": lambda: fuse.lookup(nodeid, "name"),
        "LOOKUP of .": lambda: fuse.lookup(nodeid, "."),
        "LOOKUP of ..": lambda: fuse.lookup(nodeid, ".."),
        "GETATTR": lambda: fuse.getattr(nodeid),
        "SETATTR": lambda: fuse.setattr(nodeid, mode=0o600),
        "READLINK": lambda: fuse.readlink(nodeid),
        "SYMLINK": lambda: fuse.symlink(nodeid, "name", "target"),
        "MKNOD": lambda: fuse.mknod(nodeid, "name", stat.S_IFREG | 0o644),
        "MKDIR": lambda: fuse.mkdir(nodeid, "name"),
        "UNLINK": lambda: fuse.unlink(nodeid, "name"),
        "RMDIR": lambda: fuse.rmdir(nodeid, "name"),
        "RENAME from": lambda: fuse.rename(nodeid, "name", ROOT, "name"),
        "RENAME to": lambda: fuse.rename(ROOT, "other", nodeid, "name"),
        "RENAME2": lambda: fuse.rename2(nodeid, "name", ROOT, "name"),
        "LINK of": lambda: fuse.link(nodeid, ROOT, "new"),
        "LINK in": lambda: fuse.link(ROOT, nodeid, "new"),
        "OPEN": lambda: fuse.open(nodeid),
        "STATFS": lambda: fuse.statfs(nodeid),
        "SETXATTR": lambda: fuse.setxattr(nodeid, "user.a", b"value"),
        "GETXATTR": lambda: fuse.getxattr(nodeid, "user.a"),
        "LISTXATTR": lambda: fuse.listxattr(nodeid),
        "REMOVEXATTR": lambda: fuse.removexattr(nodeid, "user.a"),
        "OPENDIR": lambda: fuse.opendir(nodeid),
        "ACCESS": lambda: fuse.access(nodeid, os.R_OK),
        "CREATE": lambda: fuse.create(nodeid, "name"),
        "SYNCFS": lambda: fuse.syncfs(nodeid),
    }


def test_a_stale_node_is_refused_by_every_operation_when_its_slot_is_another_ones(
        fuse: FuseClient, share: pathlib.Path, daemon: Daemon) -> None:
    (share / "file").touch()
    (share / "other").touch()
    stale = fuse.lookup(ROOT, "file").nodeid
    fuse.forget(stale)
    daemon.wait_for(inodes_closing=0)       # until then its slot is not free
    current = fuse.lookup(ROOT, "file").nodeid
    assert current & SLOT == stale & SLOT and current != stale
    names = sorted(os.listdir(share))
    for operation, run in operations_on(fuse, stale).items():
        with during(operation), refused(errno.ESTALE):
            run()
    assert sorted(os.listdir(share)) == names
    fuse.getattr(current)


@pytest.mark.parametrize("nodeid", [0, 2, 0xffffffff, 1 << 32, (1 << 32) + 1, (1 << 64) - 1, 1 << 63])
def test_invented_nodes_are_refused(fuse: FuseClient, nodeid: int) -> None:
    for operation, run in operations_on(fuse, nodeid).items():
        with during(operation), refused(errno.ESTALE):
            run()


def test_open_files_of_a_node_are_not_those_of_its_successor(fuse: FuseClient, share: pathlib.Path,
                                                            daemon: Daemon) -> None:
    (share / "file").write_bytes(b"data")
    stale = fuse.lookup(ROOT, "file").nodeid
    fh = fuse.open(stale).fh
    fuse.forget(stale)
    daemon.wait_for(inodes_closing=0)
    current = fuse.lookup(ROOT, "file").nodeid
    assert current != stale
    with refused(errno.EBADF):
        fuse.read(current, fh, 0, 4)
    fuse.release(stale, fh)


def test_hard_links_are_one_node(fuse: FuseClient, share: pathlib.Path, daemon: Daemon) -> None:
    (share / "folder").mkdir()
    (share / "one").write_bytes(b"data")
    (share / "folder/other").hardlink_to(share / "one")
    one, other = fuse.walk("one"), fuse.walk("folder/other")
    assert one.nodeid == other.nodeid and one.attr_nlink == 2
    assert inodes(daemon) == 2
    fuse.forget(one.nodeid)
    fuse.getattr(one.nodeid)        # the other name's lookup still counts
    fuse.forget(one.nodeid)
    assert inodes(daemon) == 1


def test_a_renamed_file_stays_the_same_node(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "old").touch()
    nodeid = fuse.lookup(ROOT, "old").nodeid
    (share / "old").rename(share / "new")
    assert fuse.lookup(ROOT, "new").nodeid == nodeid
    with refused(errno.ENOENT):
        fuse.lookup(ROOT, "old")


def test_a_file_that_the_host_puts_in_the_place_of_another_is_a_new_node(fuse: FuseClient,
                                                                        share: pathlib.Path) -> None:
    (share / "file").write_bytes(b"old")
    (share / "new").write_bytes(b"new!")
    old = fuse.lookup(ROOT, "file")
    fh = fuse.open(old.nodeid).fh
    (share / "new").rename(share / "file")
    new = fuse.lookup(ROOT, "file")
    assert new.nodeid != old.nodeid and new.attr_size == 4
    still = fuse.getattr(old.nodeid)
    assert (still.attr_ino, still.attr_size, still.attr_nlink) == (old.attr_ino, 3, 0)
    assert fuse.read(old.nodeid, fh, 0, 10) == b"old"
    fuse.release(old.nodeid, fh)


def test_a_name_that_becomes_another_kind_of_file_is_a_new_node(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "name").touch()
    old = fuse.lookup(ROOT, "name")
    (share / "name").unlink()
    (share / "name").mkdir()
    new = fuse.lookup(ROOT, "name")
    assert new.nodeid != old.nodeid and stat.S_ISDIR(new.attr_mode)
    assert stat.S_ISREG(fuse.getattr(old.nodeid).attr_mode)


@needs_root
def test_a_recycled_inode_number_is_a_new_node(connect: Connect, file_system: pathlib.Path) -> None:
    """ext4 gives the number of a deleted file to the next new one at once, as soon as nobody has the file any more."""
    guest = connect(share=file_system)
    fuse = guest.fuse
    seen = set()
    numbers = []
    for round_number in range(20):
        (guest.share / "file").write_bytes(b"x" * round_number)
        entry = fuse.lookup(ROOT, "file")
        assert entry.nodeid not in seen and entry.attr_size == round_number
        seen.add(entry.nodeid)
        numbers.append(entry.attr_ino)
        fuse.forget(entry.nodeid)
        guest.daemon.wait_for(inodes=0, inodes_closing=0)
        (guest.share / "file").unlink()
    if "ext4" in str(file_system):
        assert len(set(numbers)) < 20, "no inode number was used twice: this test has not tried anything"


@needs_root
def test_an_inode_number_is_not_recycled_while_the_guest_knows_the_file(connect: Connect,
                                                                       file_system: pathlib.Path) -> None:
    guest = connect(share=file_system)
    entries = []
    for round_number in range(20):
        (guest.share / "file").write_bytes(b"x" * round_number)
        entries.append(guest.fuse.lookup(ROOT, "file"))
        (guest.share / "file").unlink()
    assert len({entry.nodeid for entry in entries}) == 20
    for size, entry in enumerate(entries):
        attr = guest.fuse.getattr(entry.nodeid)
        assert (attr.attr_ino, attr.attr_size, attr.attr_nlink) == (entry.attr_ino, size, 0)


# Directories above

def test_lookup_of_dot_and_dotdot_at_the_root_stays_in_the_share(fuse: FuseClient, share: pathlib.Path) -> None:
    for name in (".", ".."):
        entry = fuse.lookup(ROOT, name)
        assert entry.nodeid == ROOT
        assert as_guest(entry) == as_host(share)


def test_lookup_of_dot_is_the_node_itself(fuse: FuseClient, share: pathlib.Path, daemon: Daemon) -> None:
    (share / "file").touch()
    (share / "folder").mkdir()
    (share / "link").symlink_to("folder")
    for name in ("file", "folder", "link"):
        entry = fuse.lookup(ROOT, name)
        again = fuse.lookup(entry.nodeid, ".")
        assert (again.nodeid, as_guest(again)) == (entry.nodeid, as_host(share / name))
        fuse.forget(entry.nodeid)
        fuse.getattr(entry.nodeid)      # the second one counts
    assert inodes(daemon) == 3


def test_lookup_of_dot_finds_nothing_that_is_gone(fuse: FuseClient, share: pathlib.Path, daemon: Daemon) -> None:
    """Linux asks so when a program opens a file by its handle, while a FORGET of it may be under way."""
    (share / "file").touch()
    (share / "folder").mkdir()
    file, folder = (fuse.lookup(ROOT, name).nodeid for name in ("file", "folder"))
    fuse.unlink(ROOT, "file")
    fuse.rmdir(ROOT, "folder")
    for node in (file, folder):
        with refused(errno.ESTALE):
            fuse.lookup(node, ".")
        fuse.forget(node)
    assert inodes(daemon) == 0


def test_lookup_of_dotdot_is_the_parent(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "a/b/c").mkdir(parents=True)
    a, b, c = (fuse.walk(path).nodeid for path in ("a", "a/b", "a/b/c"))
    assert fuse.lookup(c, "..").nodeid == b
    assert fuse.lookup(b, "..").nodeid == a
    assert fuse.lookup(a, "..").nodeid == ROOT


def test_lookup_of_dotdot_makes_known_a_parent_that_was_forgotten(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "a/b").mkdir(parents=True)
    a = fuse.lookup(ROOT, "a").nodeid
    b = fuse.lookup(a, "b").nodeid
    fuse.forget(a)
    parent = fuse.lookup(b, "..")
    assert parent.nodeid != a and as_guest(parent) == as_host(share / "a")


def test_lookup_of_dotdot_follows_a_directory_that_was_moved(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "a/moved").mkdir(parents=True)
    (share / "b").mkdir()
    moved = fuse.walk("a/moved").nodeid
    (share / "a/moved").rename(share / "b/moved")
    assert fuse.lookup(moved, "..").nodeid == fuse.lookup(ROOT, "b").nodeid


def test_lookup_of_dotdot_in_a_file_is_refused(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "file").touch()
    (share / "link").symlink_to("..")
    for name in ("file", "link"):
        with refused(errno.EINVAL):
            fuse.lookup(fuse.lookup(ROOT, name).nodeid, "..")


def test_lookup_of_dotdot_never_leaves_the_share(fuse: FuseClient, share: pathlib.Path, tmp_path: pathlib.Path,
                                                 daemon: Daemon) -> None:
    """The host moves a directory out: the parents that it has then are no business of the guest's."""
    (share / "a/b/c").mkdir(parents=True)
    a, b, c = (fuse.walk(path).nodeid for path in ("a", "a/b", "a/b/c"))
    outside = tmp_path / "outside"
    outside.mkdir()
    (share / "a").rename(outside / "a")
    known = inodes(daemon)
    for nodeid in (a, b, c):
        with refused(errno.ESTALE):
            fuse.lookup(nodeid, "..")
    assert inodes(daemon) == known
    (outside / "a").rename(share / "back")
    assert fuse.lookup(a, "..").nodeid == ROOT
    assert fuse.lookup(b, "..").nodeid == a


# Names

BAD_NAMES = ["", "/", "a/b", "a/", "/etc/passwd", "../outside", "..", "."]


def name_operations(fuse: FuseClient, name: str | bytes) -> dict[str, Callable[[], object]]:
    """Every operation that takes a name."""
    return {
        "SYMLINK": lambda: fuse.symlink(ROOT, name, "target"),
        "MKNOD": lambda: fuse.mknod(ROOT, name, stat.S_IFREG | 0o644),
        "MKDIR": lambda: fuse.mkdir(ROOT, name),
        "UNLINK": lambda: fuse.unlink(ROOT, name),
        "RMDIR": lambda: fuse.rmdir(ROOT, name),
        "RENAME from": lambda: fuse.rename(ROOT, name, ROOT, "new"),
        "RENAME to": lambda: fuse.rename(ROOT, "file", ROOT, name),
        "RENAME2 from": lambda: fuse.rename2(ROOT, name, ROOT, "new", 1),
        "RENAME2 to": lambda: fuse.rename2(ROOT, "file", ROOT, name, 1),
        "LINK": lambda: fuse.link(fuse.walk("file").nodeid, ROOT, name),
        "CREATE": lambda: fuse.create(ROOT, name),
        "LOOKUP": lambda: fuse.lookup(ROOT, name),
    }


@pytest.mark.parametrize("name", BAD_NAMES)
def test_what_is_no_single_name_is_refused_by_every_operation(fuse: FuseClient, share: pathlib.Path,
                                                             name: str) -> None:
    (share / "a").mkdir()
    (share / "a/b").mkdir()
    (share / "file").touch()
    before = sorted(share.rglob("*"))
    for operation, run in name_operations(fuse, name).items():
        if operation == "LOOKUP" and name in (".", ".."):
            continue
        with during(operation), refused(errno.EINVAL):
            run()
    assert sorted(share.rglob("*")) == before


@pytest.mark.parametrize("length", [256, 257, 1000, 4095, 4096, 60000])
def test_a_name_that_is_too_long_is_refused_by_every_operation(fuse: FuseClient, share: pathlib.Path,
                                                              length: int) -> None:
    (share / "file").touch()
    for operation, run in name_operations(fuse, "n" * length).items():
        with during(operation), refused(errno.ENAMETOOLONG):
            run()
    assert os.listdir(share) == ["file"]


@pytest.mark.parametrize("name", [b"n" * 255, b" ", b"...", b".hidden", b"new\nline", b"\xff\xfe\x01", "Ä€😀".encode(),
                                  b"\\", b"%s%n", b"*", b"-rf"])
def test_every_other_name_is_a_name(fuse: FuseClient, share: pathlib.Path, name: bytes) -> None:
    entry, opened = fuse.create(ROOT, name)
    fuse.release(entry.nodeid, opened.fh)
    assert os.listdir(os.fsencode(share)) == [name]
    assert fuse.lookup(ROOT, name).nodeid == entry.nodeid
    assert [found.name for found in fuse.listdir() if found.name not in (b".", b"..")] == [name]
    fuse.rename(ROOT, name, ROOT, "plain")
    fuse.rename(ROOT, "plain", ROOT, name)
    fuse.unlink(ROOT, name)
    assert os.listdir(share) == []


@pytest.mark.parametrize("opcode, body", [
    (Opcode.LOOKUP, b""), (Opcode.LOOKUP, b"file"), (Opcode.UNLINK, b"file"), (Opcode.RMDIR, b"folder"),
    (Opcode.MKDIR, abi.MKDIR_IN.pack(mode=0o755) + b"new"), (Opcode.MKNOD, abi.MKNOD_IN.pack(mode=0o644) + b"new"),
    (Opcode.CREATE, abi.CREATE_IN.pack(mode=0o644) + b"new"), (Opcode.SYMLINK, b"new"), (Opcode.SYMLINK, b"new\0"),
    (Opcode.SYMLINK, b"new\0target"), (Opcode.LINK, abi.LINK_IN.pack(oldnodeid=ROOT) + b"new"),
    (Opcode.RENAME, abi.RENAME_IN.pack(newdir=ROOT) + b"file"), (Opcode.RENAME, abi.RENAME_IN.pack(newdir=ROOT)),
    (Opcode.RENAME, abi.RENAME_IN.pack(newdir=ROOT) + b"file\0"),
    (Opcode.RENAME, abi.RENAME_IN.pack(newdir=ROOT) + b"file\0new"),
    (Opcode.RENAME2, abi.RENAME2_IN.pack(newdir=ROOT) + b"file\0new"),
    (Opcode.GETXATTR, abi.GETXATTR_IN.pack(size=0) + b"user.a"), (Opcode.REMOVEXATTR, b"user.a"),
], ids=lambda value: value.name if isinstance(value, Opcode) else "")
def test_a_name_without_an_end_is_refused(fuse: FuseClient, share: pathlib.Path, opcode: Opcode, body: bytes) -> None:
    (share / "file").touch()
    (share / "folder").mkdir()
    assert error_of(fuse.call(opcode, ROOT, body, out_size=256, check=False)) == "EINVAL"
    assert sorted(os.listdir(share)) == ["file", "folder"]


def test_a_name_ends_at_its_first_nul(fuse: FuseClient, share: pathlib.Path) -> None:
    """Whatever stands behind it is no part of the name, and never makes another file of it."""
    (share / "a").touch()
    (share / "ab").touch()
    found = fuse.lookup(ROOT, b"a\0b")
    assert found.attr_ino == (share / "a").stat().st_ino
    fuse.unlink(ROOT, b"a\0b")
    assert os.listdir(share) == ["ab"]


def test_only_directories_have_names_in_them(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "folder").mkdir()
    (share / "folder/name").touch()
    (share / "file").touch()
    (share / "link").symlink_to("folder")
    os.mkfifo(share / "fifo")
    for parent in ("file", "link", "fifo"):
        with refused(errno.ENOTDIR):
            fuse.lookup(fuse.lookup(ROOT, parent).nodeid, "name")


def test_nothing_is_found_in_a_removed_directory(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "folder").mkdir()
    nodeid = fuse.lookup(ROOT, "folder").nodeid
    (share / "folder").rmdir()
    with refused(errno.ENOENT):
        fuse.lookup(nodeid, "name")
    with refused(errno.ENOENT):
        fuse.create(nodeid, "name")
    assert fuse.getattr(nodeid).attr_nlink == 0


# Mounts in the share

@needs_root
def test_lookups_cross_mounts_there_and_back(fuse: FuseClient, share: pathlib.Path, mounts: Mounts) -> None:
    inner = mounts.tmpfs(share / "folder/mounted")
    (inner / "below/file").mkdir(parents=True)
    folder, mounted, below = (fuse.walk(path) for path in ("folder", "folder/mounted", "folder/mounted/below"))
    assert as_guest(mounted) == as_host(inner)
    assert as_guest(below) == as_host(inner / "below")
    assert fuse.lookup(below.nodeid, "..").nodeid == mounted.nodeid
    assert fuse.lookup(mounted.nodeid, "..").nodeid == folder.nodeid
    fuse.mkdir(mounted.nodeid, "new")
    assert (inner / "new").is_dir()


@needs_root
def test_one_inode_number_on_two_mounts_is_two_nodes(fuse: FuseClient, share: pathlib.Path, mounts: Mounts) -> None:
    for name in ("one", "other"):
        mounts.tmpfs(share / name)
        (share / name / "file").write_text(name)
    entries = {name: fuse.walk(f"{name}/file") for name in ("one", "other")}
    assert entries["one"].attr_ino == entries["other"].attr_ino, "tmpfs numbers its files from the start"
    assert entries["one"].nodeid != entries["other"].nodeid
    for name, entry in entries.items():
        fh = fuse.open(entry.nodeid).fh
        assert fuse.read(entry.nodeid, fh, 0, 100) == name.encode()
        fuse.release(entry.nodeid, fh)


@needs_root
def test_a_directory_and_its_bind_mount_are_two_nodes_of_one_file(fuse: FuseClient, share: pathlib.Path,
                                                                 mounts: Mounts) -> None:
    (share / "real/sub").mkdir(parents=True)
    mounts.bind(share / "real", share / "bound")
    real, bound = fuse.lookup(ROOT, "real"), fuse.lookup(ROOT, "bound")
    assert as_guest(real) == as_guest(bound) and real.nodeid != bound.nodeid
    fuse.mkdir(bound.nodeid, "new")
    assert fuse.lookup(real.nodeid, "new").nodeid != fuse.lookup(bound.nodeid, "new").nodeid
    sub = fuse.lookup(bound.nodeid, "sub")
    assert fuse.lookup(sub.nodeid, "..").nodeid == bound.nodeid
    assert fuse.lookup(bound.nodeid, "..").nodeid == ROOT
    assert fuse.lookup(fuse.lookup(real.nodeid, "sub").nodeid, "..").nodeid == real.nodeid


@needs_root
def test_dotdot_of_a_bind_mount_from_outside_is_in_the_share(fuse: FuseClient, share: pathlib.Path, mounts: Mounts,
                                                            tmp_path: pathlib.Path) -> None:
    (tmp_path / "outside/shown/sub").mkdir(parents=True)
    mounts.bind(tmp_path / "outside/shown", share / "shown")
    shown = fuse.walk("shown")
    sub = fuse.lookup(shown.nodeid, "sub")
    assert fuse.lookup(sub.nodeid, "..").nodeid == shown.nodeid
    assert fuse.lookup(shown.nodeid, "..").nodeid == ROOT
    (tmp_path / "outside/shown/sub").rename(tmp_path / "outside/moved")
    with refused(errno.ESTALE, errno.ENOENT):
        fuse.lookup(sub.nodeid, "..")


@needs_root
def test_a_single_file_can_be_a_mount(fuse: FuseClient, share: pathlib.Path, mounts: Mounts,
                                      tmp_path: pathlib.Path) -> None:
    (tmp_path / "outside").write_bytes(b"from outside")
    mounts.bind(tmp_path / "outside", share / "file")
    entry = fuse.lookup(ROOT, "file")
    fh = fuse.open(entry.nodeid).fh
    assert fuse.read(entry.nodeid, fh, 0, 100) == b"from outside"
    fuse.release(entry.nodeid, fh)


@needs_root
def test_what_a_mount_hid_is_back_when_it_is_gone(fuse: FuseClient, share: pathlib.Path, mounts: Mounts) -> None:
    (share / "folder").mkdir()
    (share / "folder/below").touch()
    before = fuse.lookup(ROOT, "folder")
    mounts.tmpfs(share / "folder")
    during = fuse.lookup(ROOT, "folder")
    assert during.nodeid != before.nodeid
    with refused(errno.ENOENT):
        fuse.lookup(during.nodeid, "below")
    mounts.unmount(share / "folder")
    assert fuse.lookup(ROOT, "folder").nodeid == before.nodeid
    assert fuse.walk("folder/below").attr_ino == (share / "folder/below").stat().st_ino
