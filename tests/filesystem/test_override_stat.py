"""Fake root: what guests see of owners, modes and device nodes, and what the host has of them."""

import errno
import os
import stat

from frontend import fuse_abi as abi
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, refused

NOTE = "user.containers.override_stat"  # of podman and libkrun: uid:gid:mode:kind


def test_owner_and_mode_are_noted_and_shown(connect: Connect) -> None:
    guest = connect("--override-stat")
    entry, _ = guest.fuse.create(ROOT, "file", 0o644, uid=1000, gid=1001)
    assert (entry.attr_uid, entry.attr_gid, entry.attr_mode) == (1000, 1001, stat.S_IFREG | 0o644)
    attr = guest.fuse.setattr(entry.nodeid, owner=5, group=6)
    attr = guest.fuse.setattr(entry.nodeid, mode=0o4755)
    assert (attr.attr_uid, attr.attr_gid, attr.attr_mode) == (5, 6, stat.S_IFREG | 0o4755)
    on_host = (guest.share / "file").stat()
    assert (on_host.st_uid, on_host.st_gid) == (os.geteuid(), os.getegid())
    assert stat.S_IMODE(on_host.st_mode) == 0o755, "no set-id bit on the host"
    assert os.getxattr(guest.share / "file", NOTE).startswith(b"5:6:4755")


def test_devices_and_sockets_are_regular_files_of_the_host(connect: Connect) -> None:
    guest = connect("--override-stat")
    for name, mode, rdev in (("null", stat.S_IFCHR | 0o666, 0x103), ("disk", stat.S_IFBLK | 0o660, 0x811),
                             ("pipe", stat.S_IFIFO | 0o600, 0), ("socket", stat.S_IFSOCK | 0o600, 0)):
        entry = guest.fuse.mknod(ROOT, name, mode, rdev)
        assert (entry.attr_mode, entry.attr_rdev) == (mode, rdev)
        assert guest.fuse.lookup(ROOT, name).attr_mode == mode
        assert (guest.share / name).is_file()


def test_what_files_had_from_the_start_is_roots(connect: Connect) -> None:
    guest = connect("--override-stat")
    (guest.share / "file").touch(0o640)
    entry = guest.fuse.lookup(ROOT, "file")
    assert (entry.attr_uid, entry.attr_gid, entry.attr_mode) == (0, 0, stat.S_IFREG | 0o640)


def test_the_note_is_not_shown(connect: Connect) -> None:
    guest = connect("--override-stat")
    entry, _ = guest.fuse.create(ROOT, "file", 0o644)
    assert NOTE.encode() in [name.encode() for name in os.listxattr(guest.share / "file")]
    assert guest.fuse.listxattr(entry.nodeid) == []


def test_no_name_of_the_guests_is_mapped_to_the_note(connect: Connect) -> None:
    """Whoever may write to a file may set an attribute of a name that the guest's kernel does not know."""
    guest = connect("--override-stat", "--xattrmap", ":map::user.:")
    entry, _ = guest.fuse.create(ROOT, "file", 0o755, uid=1000, gid=1000)
    with refused(errno.EOPNOTSUPP):
        guest.fuse.setxattr(entry.nodeid, "containers.override_stat", b"0:0:4755:file", uid=1000, gid=1000)
    with refused(errno.EOPNOTSUPP):
        guest.fuse.removexattr(entry.nodeid, "containers.override_stat")
    attr = guest.fuse.getattr(entry.nodeid)
    assert (attr.attr_uid, attr.attr_mode) == (1000, stat.S_IFREG | 0o755)
    guest.fuse.setxattr(entry.nodeid, "other", b"value")
    assert guest.fuse.listxattr(entry.nodeid) == [b"other"]


def test_the_umask_counts_on_the_host_too(connect: Connect) -> None:
    guest = connect("--override-stat")
    assert guest.fuse.flags & abi.FUSE_DONT_MASK
    entry, _ = guest.fuse.create(ROOT, "secret", 0o666, umask=0o077)
    assert entry.attr_mode == stat.S_IFREG | 0o600
    guest.fuse.mkdir(ROOT, "folder", 0o777, umask=0o077)
    assert stat.S_IMODE((guest.share / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((guest.share / "folder").stat().st_mode) == 0o700
