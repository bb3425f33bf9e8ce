"""MKNOD, MKDIR, SYMLINK, LINK and CREATE."""

import errno
import os
import pathlib
import stat
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from frontend import fuse_abi as abi
from frontend.fuse import LINUX_FLAGS, FuseClient
from frontend.fuse_abi import Opcode
from tests.filesystem.conftest import Connect
from tests.filesystem.support import (
    ROOT,
    Mounts,
    access_list,
    as_guest,
    as_host,
    error_of,
    give_back,
    guest_device,
    needs_root,
    refused,
)
from tests.running import Daemon

# Tags of an access control list's entries.
USER_OBJ, USER, GROUP_OBJ, MASK, OTHER = 1, 2, 4, 0x10, 0x20
NO_ID = 0xffffffff

Creator = Callable[..., SimpleNamespace]


def create(fuse: FuseClient, parent: int, name: str, mode: int = 0o644, umask: int = 0,
           **how: Any) -> SimpleNamespace:
    """CREATE, and RELEASE of what it opened."""
    entry, opened = fuse.create(parent, name, mode, umask=umask, **how)
    fuse.release(entry.nodeid, opened.fh)
    return entry


def mknod(fuse: FuseClient, parent: int, name: str, mode: int = 0o644, umask: int = 0,
          **how: Any) -> SimpleNamespace:
    return fuse.mknod(parent, name, stat.S_IFREG | mode, umask=umask, **how)


def mkdir(fuse: FuseClient, parent: int, name: str, mode: int = 0o755, umask: int = 0,
          **how: Any) -> SimpleNamespace:
    return fuse.mkdir(parent, name, mode, umask, **how)


def symlink(fuse: FuseClient, parent: int, name: str, mode: int = 0, umask: int = 0,  # noqa: ARG001 - links have none
            **how: Any) -> SimpleNamespace:
    return fuse.symlink(parent, name, "target", **how)


CREATORS: list[Creator] = [create, mknod, mkdir, symlink]
WITH_MODE = [create, mknod, mkdir]


# The entry

@pytest.mark.parametrize("creator", CREATORS)
def test_the_reply_is_the_new_files_entry(fuse: FuseClient, share: pathlib.Path, daemon: Daemon,
                                          creator: Creator) -> None:
    entry = creator(fuse, ROOT, "new")
    assert as_guest(entry) == as_host(share / "new")
    assert daemon.statistics()["inodes"] == 1
    assert fuse.lookup(ROOT, "new").nodeid == entry.nodeid
    fuse.forget(entry.nodeid, 2)
    assert daemon.statistics()["inodes"] == 0       # creating counted one


@pytest.mark.parametrize("creator", CREATORS)
def test_files_are_created_in_any_directory(fuse: FuseClient, share: pathlib.Path, creator: Creator) -> None:
    (share / "a/b").mkdir(parents=True)
    creator(fuse, fuse.walk("a/b").nodeid, "new")
    assert os.listdir(share / "a/b") == ["new"]


@pytest.mark.parametrize("creator", [mknod, mkdir, symlink])
@pytest.mark.parametrize("existing", ["file", "folder", "link", "dangling"])
def test_what_exists_is_not_created_again(fuse: FuseClient, share: pathlib.Path, creator: Creator,
                                          existing: str) -> None:
    (share / "file").write_bytes(b"data")
    (share / "folder").mkdir()
    (share / "link").symlink_to("file")
    (share / "dangling").symlink_to("nowhere")
    before = sorted(os.listdir(share))
    with refused(errno.EEXIST):
        creator(fuse, ROOT, existing)
    assert sorted(os.listdir(share)) == before


@pytest.mark.parametrize("creator", CREATORS)
def test_nothing_is_created_where_there_is_no_directory(fuse: FuseClient, share: pathlib.Path,
                                                        creator: Creator) -> None:
    (share / "file").touch()
    (share / "link").symlink_to(".")
    for parent in ("file", "link"):
        with refused(errno.ENOTDIR):
            creator(fuse, fuse.lookup(ROOT, parent).nodeid, "new")
    (share / "gone").mkdir()
    gone = fuse.lookup(ROOT, "gone").nodeid
    (share / "gone").rmdir()
    with refused(errno.ENOENT):
        creator(fuse, gone, "new")
    assert sorted(os.listdir(share)) == ["file", "link"]


# Modes

@pytest.mark.parametrize("creator", WITH_MODE)
@pytest.mark.parametrize("mode, umask, expected", [
    (0o777, 0, 0o777), (0o777, 0o022, 0o755), (0o666, 0o077, 0o600), (0o640, 0o777, 0), (0o000, 0o022, 0)])
def test_the_server_applies_the_callers_umask(fuse: FuseClient, share: pathlib.Path, creator: Creator, mode: int,
                                              umask: int, expected: int) -> None:
    entry = creator(fuse, ROOT, "new", mode, umask)
    assert stat.S_IMODE(entry.attr_mode) == stat.S_IMODE((share / "new").stat().st_mode) == expected


@pytest.mark.parametrize("creator", WITH_MODE)
def test_a_umask_is_for_its_own_request_only(fuse: FuseClient, share: pathlib.Path, creator: Creator) -> None:
    for number, (umask, expected) in enumerate([(0o077, 0o700), (0, 0o777), (0o027, 0o750), (0o077, 0o700)]):
        creator(fuse, ROOT, str(number), 0o777, umask)
        assert stat.S_IMODE((share / str(number)).stat().st_mode) == expected
    creator(fuse, ROOT, "failing", 0o777, 0o777)
    with refused(errno.ENOENT, errno.EINVAL):
        creator(fuse, ROOT, "", 0o777, 0o777)
    creator(fuse, ROOT, "after", 0o777)
    assert stat.S_IMODE((share / "after").stat().st_mode) == 0o777


@pytest.mark.parametrize("creator", WITH_MODE)
def test_a_guest_that_masks_itself_is_believed(daemon: Daemon, fuse: FuseClient, creator: Creator) -> None:
    fuse.init(LINUX_FLAGS & ~abi.FUSE_DONT_MASK)
    creator(fuse, ROOT, "new", 0o777, 0o077)
    assert stat.S_IMODE((daemon.share / "new").stat().st_mode) == 0o777


@pytest.mark.parametrize("creator", WITH_MODE)
def test_set_id_and_sticky_bits_are_created(fuse: FuseClient, share: pathlib.Path, creator: Creator) -> None:
    wanted = 0o1755 if creator is mkdir else 0o7755     # mkdir(2) has no set-id bits
    creator(fuse, ROOT, "new", wanted)
    assert stat.S_IMODE((share / "new").stat().st_mode) == wanted


@pytest.mark.parametrize("creator", WITH_MODE)
def test_a_default_access_control_list_rules_in_place_of_the_umask(fuse: FuseClient, share: pathlib.Path,
                                                                  creator: Creator) -> None:
    (share / "folder").mkdir()
    default = access_list((USER_OBJ, 7, NO_ID), (USER, 6, 1234), (GROUP_OBJ, 7, NO_ID), (MASK, 7, NO_ID),
                          (OTHER, 5, NO_ID))
    try:
        os.setxattr(share / "folder", "system.posix_acl_default", default)
    except OSError as error:
        pytest.skip(f"this file system has no access control lists: {error}")
    parent = fuse.lookup(ROOT, "folder").nodeid
    creator(fuse, parent, "new", 0o777, umask=0o077)
    assert stat.S_IMODE((share / "folder/new").stat().st_mode) == 0o775
    creator(fuse, parent, "less", 0o750, umask=0o077)       # the list takes what the mode has not
    assert stat.S_IMODE((share / "folder/less").stat().st_mode) == 0o750
    assert b"system.posix_acl_access" in [os.fsencode(name) for name in os.listxattr(share / "folder/new")]
    if creator is mkdir:
        assert os.getxattr(share / "folder/new", "system.posix_acl_default") == default
    creator(fuse, ROOT, "elsewhere", 0o777, umask=0o077)
    assert stat.S_IMODE((share / "elsewhere").stat().st_mode) == 0o700


# MKNOD

@pytest.mark.parametrize("kind, mode", [(stat.S_IFREG, 0o640), (0, 0o640), (stat.S_IFIFO, 0o622),
                                        (stat.S_IFSOCK, 0o777)])
def test_mknod_of_files_fifos_and_sockets(fuse: FuseClient, share: pathlib.Path, kind: int, mode: int) -> None:
    entry = fuse.mknod(ROOT, "new", kind | mode)
    assert (share / "new").lstat().st_mode == (kind or stat.S_IFREG) | mode
    assert as_guest(entry) == as_host(share / "new")


@needs_root
@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
@pytest.mark.parametrize("number", [os.makedev(1, 3), os.makedev(0, 0), os.makedev(259, 70_000),
                                    os.makedev(0xfff, 0xfffff)])
def test_mknod_of_devices(fuse: FuseClient, share: pathlib.Path, kind: int, number: int) -> None:
    entry = fuse.mknod(ROOT, "new", kind | 0o600, guest_device(number))
    found = (share / "new").stat()
    assert (found.st_mode, found.st_rdev) == (kind | 0o600, number)
    assert entry.attr_rdev == guest_device(number)


@pytest.mark.parametrize("kind", [stat.S_IFDIR, stat.S_IFLNK, 0o170000, 0o030000])
def test_mknod_of_other_kinds_is_refused(fuse: FuseClient, share: pathlib.Path, kind: int) -> None:
    with refused(errno.EPERM, errno.EINVAL):
        fuse.mknod(ROOT, "new", kind | 0o644)
    assert os.listdir(share) == []


# SYMLINK

@pytest.mark.parametrize("target", [b"target", b"/", b"../../outside", b"x" * 255, b"a/" * 400, b" \n\xff"])
def test_symlink_keeps_its_target_as_it_is(fuse: FuseClient, share: pathlib.Path, target: bytes) -> None:
    entry = fuse.symlink(ROOT, "link", target)
    assert as_guest(entry) == as_host(share / "link")
    assert os.readlink(os.fsencode(share / "link")) == target
    assert fuse.readlink(entry.nodeid) == target


@pytest.mark.parametrize("length", [1024, 4095])
def test_long_targets(fuse: FuseClient, share: pathlib.Path, length: int) -> None:
    target = b"t" * length
    try:
        os.symlink(target, os.fsencode(share / "model"))
    except OSError as error:
        pytest.skip(f"this file system has no link so long: {error}")
    assert fuse.readlink(fuse.symlink(ROOT, "link", target).nodeid) == target


def test_impossible_targets_are_refused(fuse: FuseClient, share: pathlib.Path) -> None:
    for length in (4096, 60_000):
        with refused(errno.ENAMETOOLONG):
            fuse.symlink(ROOT, "link", "t" * length)
    with refused(errno.ENOENT):
        fuse.symlink(ROOT, "link", "")
    assert os.listdir(share) == []


# LINK

def test_link_is_another_name_of_the_same_node(fuse: FuseClient, share: pathlib.Path, daemon: Daemon) -> None:
    (share / "file").write_bytes(b"data")
    (share / "folder").mkdir()
    file, folder = fuse.lookup(ROOT, "file"), fuse.lookup(ROOT, "folder")
    entry = fuse.link(file.nodeid, folder.nodeid, "name")
    assert entry.nodeid == file.nodeid and entry.attr_nlink == 2
    assert as_guest(entry) == as_host(share / "folder/name")
    assert (share / "folder/name").samefile(share / "file")
    fuse.forget(file.nodeid)
    fuse.getattr(file.nodeid)       # the new name counts
    assert daemon.statistics()["inodes"] == 2


def test_link_of_a_symbolic_link_is_the_link_itself(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "target").touch()
    (share / "link").symlink_to("target")
    fuse.link(fuse.lookup(ROOT, "link").nodeid, ROOT, "new")
    assert (share / "new").is_symlink() and (share / "new").lstat().st_ino == (share / "link").lstat().st_ino
    assert (share / "target").stat().st_nlink == 1


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK])
def test_link_of_special_files(fuse: FuseClient, share: pathlib.Path, kind: int) -> None:
    fuse.link(fuse.mknod(ROOT, "one", kind | 0o600).nodeid, ROOT, "other")
    assert (share / "one").stat().st_nlink == 2


def test_link_of_a_file_that_was_deleted_is_refused(fuse: FuseClient, share: pathlib.Path) -> None:
    entry, opened = fuse.create(ROOT, "file")
    fuse.unlink(ROOT, "file")
    with refused(errno.ENOENT):
        fuse.link(entry.nodeid, ROOT, "again")
    fuse.release(entry.nodeid, opened.fh)
    assert os.listdir(share) == []


def test_link_of_a_directory_or_over_something_is_refused(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "folder").mkdir()
    (share / "file").touch()
    (share / "dangling").symlink_to("nowhere")
    with refused(errno.EPERM):
        fuse.link(fuse.lookup(ROOT, "folder").nodeid, ROOT, "new")
    for existing in ("folder", "file", "dangling"):
        with refused(errno.EEXIST):
            fuse.link(fuse.lookup(ROOT, "file").nodeid, ROOT, existing)
    assert (share / "file").stat().st_nlink == 1


@needs_root
def test_link_does_not_cross_mounts(fuse: FuseClient, share: pathlib.Path, mounts: Mounts) -> None:
    (share / "real").mkdir()
    mounts.tmpfs(share / "other")
    mounts.bind(share / "real", share / "same")
    (share / "file").touch()
    file = fuse.lookup(ROOT, "file").nodeid
    for parent in ("other", "same"):
        with refused(errno.EXDEV):
            fuse.link(file, fuse.lookup(ROOT, parent).nodeid, "new")


# CREATE

def test_create_opens_what_it_creates(fuse: FuseClient, share: pathlib.Path) -> None:
    entry, opened = fuse.create(ROOT, "file", 0o000, os.O_RDWR | os.O_EXCL)     # a mode that nobody else could open
    assert fuse.write(entry.nodeid, opened.fh, 0, b"data") == 4
    assert fuse.read(entry.nodeid, opened.fh, 0, 10) == b"data"
    fuse.release(entry.nodeid, opened.fh)
    assert (share / "file").read_bytes() == b"data"


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY])
def test_create_opens_for_no_more_than_was_asked(fuse: FuseClient, flags: int) -> None:
    entry, opened = fuse.create(ROOT, "file", flags=flags)
    with refused(errno.EBADF):
        if flags == os.O_RDONLY:
            fuse.write(entry.nodeid, opened.fh, 0, b"data")
        else:
            fuse.read(entry.nodeid, opened.fh, 0, 10)


@pytest.mark.parametrize("name", ["file", "folder", "link", "dangling", "fifo"])
def test_create_with_o_excl_refuses_what_exists(fuse: FuseClient, share: pathlib.Path, daemon: Daemon,
                                               name: str) -> None:
    (share / "file").write_bytes(b"data")
    (share / "folder").mkdir()
    (share / "link").symlink_to("file")
    (share / "dangling").symlink_to("nowhere")
    os.mkfifo(share / "fifo")
    with refused(errno.EEXIST):
        fuse.create(ROOT, name, flags=os.O_RDWR | os.O_EXCL | os.O_TRUNC)
    assert (share / "file").read_bytes() == b"data" and not (share / "nowhere").exists()
    assert daemon.statistics()["inodes"] == 0


@needs_root
def test_create_without_o_excl_opens_a_file_that_exists_as_it_is(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "file").write_bytes(b"data")
    (share / "file").chmod(0o600)
    os.chown(share / "file", 5, 6)
    entry, opened = fuse.create(ROOT, "file", 0o777, os.O_RDWR)
    assert as_guest(entry) == as_host(share / "file")
    assert (entry.attr_uid, entry.attr_gid, entry.attr_mode, entry.attr_size) == (5, 6, stat.S_IFREG | 0o600, 4)
    assert fuse.read(entry.nodeid, opened.fh, 0, 10) == b"data"


@needs_root
@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_RDONLY, os.O_WRONLY | os.O_TRUNC])
def test_create_opens_no_file_that_exists_for_a_caller_other_than_root(fuse: FuseClient, share: pathlib.Path,
                                                                     daemon: Daemon, flags: int) -> None:
    """The guest took it for new and has not asked whether the caller may: it does so after ESTALE."""
    (share / "file").write_bytes(b"data")
    (share / "file").chmod(0o600)
    with refused(errno.ESTALE):
        fuse.create(ROOT, "file", 0o777, flags, uid=1000, gid=1000)
    assert (share / "file").read_bytes() == b"data"
    assert daemon.statistics()["inodes"] == 0 and daemon.statistics()["files_open"] == 0


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY, os.O_RDONLY])
def test_create_with_o_trunc_cuts_a_file_that_exists(fuse: FuseClient, share: pathlib.Path, flags: int) -> None:
    (share / "file").write_bytes(b"data")
    fuse.create(ROOT, "file", flags=flags | os.O_TRUNC)
    assert (share / "file").read_bytes() == b""


@pytest.mark.parametrize("kind", ["link", "dangling", "absolute", "folder", "fifo"])
@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDONLY])
def test_create_never_opens_what_is_no_file(fuse: FuseClient, share: pathlib.Path, tmp_path: pathlib.Path,
                                           daemon: Daemon, kind: str, flags: int) -> None:
    """A symbolic link least of all, whose target may be anything of the host's."""
    canary = tmp_path / "canary"
    canary.write_bytes(b"alive")
    (share / "file").write_bytes(b"data")
    (share / "link").symlink_to("file")
    (share / "dangling").symlink_to("nowhere")
    (share / "absolute").symlink_to(canary)
    (share / "folder").mkdir()
    os.mkfifo(share / "fifo")
    with refused(errno.ESTALE, errno.EEXIST, errno.ELOOP, errno.EISDIR):
        fuse.create(ROOT, kind, flags=flags)
    assert (share / "file").read_bytes() == b"data" and canary.read_bytes() == b"alive"
    assert not (share / "nowhere").exists()
    numbers = daemon.statistics()
    assert (numbers["inodes"], numbers["files_open"]) == (0, 0)


def test_create_ignores_o_append_as_every_write_says_where_it_goes(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "file").write_bytes(b"0123456789")
    entry, opened = fuse.create(ROOT, "file", flags=os.O_WRONLY | os.O_APPEND)
    fuse.write(entry.nodeid, opened.fh, 2, b"ab")
    assert (share / "file").read_bytes() == b"01ab456789"


# TMPFILE

def test_tmpfile_is_a_file_without_a_name(fuse: FuseClient, share: pathlib.Path, daemon: Daemon) -> None:
    entry, opened = fuse.tmpfile(ROOT, 0o640)
    assert (entry.attr_nlink, entry.attr_size, entry.attr_mode) == (0, 0, stat.S_IFREG | 0o640)
    assert os.listdir(share) == []
    assert fuse.write(entry.nodeid, opened.fh, 0, b"data") == 4
    assert fuse.read(entry.nodeid, opened.fh, 0, 10) == b"data"
    assert fuse.getattr(entry.nodeid).attr_size == 4
    fuse.release(entry.nodeid, opened.fh)
    fuse.forget(entry.nodeid)
    daemon.wait_for(inodes=0, inodes_closing=0, files_open=0, descriptors_cached=0)


def test_tmpfile_can_be_given_a_name_unless_it_is_exclusive(fuse: FuseClient, share: pathlib.Path) -> None:
    entry, opened = fuse.tmpfile(ROOT)
    fuse.write(entry.nodeid, opened.fh, 0, b"data")
    linked = fuse.link(entry.nodeid, ROOT, "file")
    assert linked.nodeid == entry.nodeid and linked.attr_nlink == 1
    assert (share / "file").read_bytes() == b"data"
    entry, opened = fuse.tmpfile(ROOT, flags=os.O_RDWR | os.O_EXCL)
    with refused(errno.ENOENT):
        fuse.link(entry.nodeid, ROOT, "other")
    assert os.listdir(share) == ["file"]


@needs_root
def test_tmpfile_belongs_to_the_caller_and_has_the_mode_that_is_left_by_the_umask(fuse: FuseClient) -> None:
    entry, _ = fuse.tmpfile(ROOT, 0o666, umask=0o027, uid=1000, gid=2000)
    assert (entry.attr_uid, entry.attr_gid, entry.attr_mode) == (1000, 2000, stat.S_IFREG | 0o640)
    fuse.setattr(entry.nodeid, owner=5)     # the daemon is itself again


def test_tmpfile_is_made_in_directories_and_to_be_written(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "file").touch()
    with refused(errno.ENOTDIR):
        fuse.tmpfile(fuse.lookup(ROOT, "file").nodeid)
    with refused(errno.EINVAL):
        fuse.tmpfile(ROOT, flags=os.O_RDONLY)


# Limits

def test_names_of_255_bytes_are_created_and_longer_ones_refused(fuse: FuseClient, share: pathlib.Path) -> None:
    for creator in CREATORS:
        creator(fuse, ROOT, creator.__name__.ljust(255, "n"))
        with refused(errno.ENAMETOOLONG):
            creator(fuse, ROOT, creator.__name__.ljust(256, "n"))
    assert sorted(os.listdir(share)) == sorted(creator.__name__.ljust(255, "n") for creator in CREATORS)


@needs_root
def test_a_full_file_system_says_so_and_leaves_nothing(connect: Connect, mounts: Mounts) -> None:
    guest = connect(share=mounts.tmpfs(options="size=1m,nr_inodes=4"))
    created = 0
    with refused(errno.ENOSPC):
        for created in range(10):
            create(guest.fuse, ROOT, f"file{created}")
    for creator in (mknod, mkdir, symlink):
        with refused(errno.ENOSPC):
            creator(guest.fuse, ROOT, "more")
    assert len(os.listdir(guest.share)) == created
    assert guest.daemon.statistics()["inodes"] == created
    guest.fuse.unlink(ROOT, "file0")
    give_back(guest.fuse)       # until then the guest could still use the file
    guest.daemon.wait_for(inodes=0, inodes_closing=0)
    create(guest.fuse, ROOT, "more")


@needs_root
@pytest.mark.parametrize("creator", CREATORS)
def test_what_the_guest_has_just_forgotten_makes_room_for_what_it_creates(connect: Connect, mounts: Mounts,
                                                                         creator: Creator) -> None:
    """It has its inode until its descriptor is closed, which comes after the FORGET and may take a while."""
    guest = connect(share=mounts.tmpfs(options="size=256m,nr_inodes=2"))
    (guest.share / "big").write_bytes(bytes(200 << 20))
    node = guest.fuse.lookup(ROOT, "big").nodeid
    guest.fuse.unlink(ROOT, "big")
    guest.fuse.forget(node)
    creator(guest.fuse, ROOT, "new")


@needs_root
def test_what_the_guest_is_about_to_forget_makes_room_for_what_it_creates(connect: Connect, mounts: Mounts) -> None:
    """The FORGET comes by another queue and a moment later, on a busy machine much later: so there are some tries."""
    guest = connect(share=mounts.tmpfs(options="size=1m,nr_inodes=2"))
    fuse = guest.fuse
    for _ in range(20):
        old = mkdir(fuse, ROOT, "old")
        fuse.rmdir(ROOT, "old")
        asked = fuse.submit(Opcode.MKDIR, ROOT, abi.MKDIR_IN.pack(mode=0o755), b"new\0", out_size=abi.ENTRY_OUT.size)
        time.sleep(0.001)
        fuse.forget(old.nodeid)
        reply = fuse.complete(asked)
        guest.daemon.wait_for(inodes_closing=0)
        if not reply.error:
            fuse.lookups[abi.ENTRY_OUT.unpack(reply.data).nodeid] += 1
            return
        assert error_of(reply) == "ENOSPC"
    pytest.fail("the disk was full, each time")
