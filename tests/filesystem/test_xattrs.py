"""SETXATTR, GETXATTR, LISTXATTR and REMOVEXATTR."""

import errno
import os
import pathlib
from collections.abc import Callable

import pytest

from frontend import fuse_abi as abi
from frontend.fuse import LINUX_FLAGS, FuseClient
from frontend.fuse_abi import Opcode
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, Guest, Mounts, access_list, error_of, needs_root, refused


@pytest.fixture(autouse=True)
def attributes_exist(tmp_path: pathlib.Path) -> None:
    try:
        os.setxattr(tmp_path, "user.test", b"")
    except OSError as error:
        pytest.skip(f"this file system has no extended attributes: {error}")


@pytest.fixture(params=["file", "folder"])
def node(request: pytest.FixtureRequest, fuse: FuseClient, share: pathlib.Path) -> int:
    """A file, and a directory."""
    (share / "file").touch()
    (share / "folder").mkdir()
    return int(fuse.lookup(ROOT, request.param).nodeid)


def path_of(fuse: FuseClient, share: pathlib.Path, node: int) -> pathlib.Path:
    """Where the node is on the host."""
    number = fuse.getattr(node).attr_ino
    return next(path for path in share.iterdir() if path.lstat().st_ino == number)


def user_names(names: list[bytes]) -> list[bytes]:
    """Without what a security module of the host has added."""
    return sorted(name for name in names if name.startswith((b"user.", b"trusted.")))


@pytest.mark.parametrize("value", [b"value", b"", b"\0\xff" * 100, b"x" * 2000])
def test_a_value_is_set_got_listed_and_removed(fuse: FuseClient, share: pathlib.Path, node: int, value: bytes) -> None:
    fuse.setxattr(node, "user.name", value)
    assert os.getxattr(path_of(fuse, share, node), "user.name") == value
    assert fuse.getxattr(node, "user.name") == value
    assert fuse.getxattr_size(node, "user.name") == len(value)
    assert user_names(fuse.listxattr(node)) == [b"user.name"]
    fuse.removexattr(node, "user.name")
    with refused(errno.ENODATA):
        fuse.getxattr(node, "user.name")
    assert user_names(fuse.listxattr(node)) == []


def test_what_the_host_sets_is_seen(fuse: FuseClient, share: pathlib.Path, node: int) -> None:
    path = path_of(fuse, share, node)
    for number in range(20):
        os.setxattr(path, f"user.number {number}", str(number).encode())
    assert user_names(fuse.listxattr(node)) == sorted(f"user.number {number}".encode() for number in range(20))
    assert fuse.getxattr(node, "user.number 7") == b"7"


def test_what_is_not_there_is_no_data(fuse: FuseClient, node: int) -> None:
    for run in (lambda: fuse.getxattr(node, "user.missing"), lambda: fuse.getxattr_size(node, "user.missing"),
                lambda: fuse.removexattr(node, "user.missing"),
                lambda: fuse.setxattr(node, "user.missing", b"value", os.XATTR_REPLACE)):
        with refused(errno.ENODATA):
            run()
    assert user_names(fuse.listxattr(node)) == []


def test_create_and_replace(fuse: FuseClient, node: int) -> None:
    fuse.setxattr(node, "user.name", b"one", os.XATTR_CREATE)
    with refused(errno.EEXIST):
        fuse.setxattr(node, "user.name", b"two", os.XATTR_CREATE)
    assert fuse.getxattr(node, "user.name") == b"one"
    fuse.setxattr(node, "user.name", b"three", os.XATTR_REPLACE)
    fuse.setxattr(node, "user.name", b"four")
    assert fuse.getxattr(node, "user.name") == b"four"


@pytest.mark.parametrize("flags", [4, 8, 0x80000000, 0xffffffff, os.XATTR_CREATE | 4])
def test_unknown_flags_are_refused(fuse: FuseClient, node: int, flags: int) -> None:
    with refused(errno.EINVAL):
        fuse.setxattr(node, "user.name", b"value", flags)
    assert user_names(fuse.listxattr(node)) == []


# Sizes

def test_too_little_room_for_a_value_is_said(fuse: FuseClient, node: int) -> None:
    fuse.setxattr(node, "user.name", b"0123456789")
    for size in (1, 9):
        with refused(errno.ERANGE):
            fuse.getxattr(node, "user.name", size)
    assert fuse.getxattr(node, "user.name", 10) == b"0123456789"
    assert fuse.getxattr(node, "user.name", 11) == b"0123456789"


def test_too_little_room_for_a_list_is_said(fuse: FuseClient, node: int) -> None:
    fuse.setxattr(node, "user.one", b"")
    fuse.setxattr(node, "user.other", b"")
    size = fuse.listxattr_size(node)
    assert size >= len(b"user.one\0user.other\0")
    for less in (1, size - 1):
        with refused(errno.ERANGE):
            fuse.listxattr(node, less)
    assert user_names(fuse.listxattr(node, size)) == [b"user.one", b"user.other"]


def test_an_empty_list_has_no_size(fuse: FuseClient, node: int) -> None:
    if not fuse.listxattr(node):
        assert fuse.listxattr_size(node) == 0
        assert fuse.listxattr(node, 1) == []


@pytest.mark.parametrize("opcode, body", [
    (Opcode.GETXATTR, abi.GETXATTR_IN.pack(size=65_536) + b"user.name\0"),
    (Opcode.LISTXATTR, abi.GETXATTR_IN.pack(size=65_536))], ids=["GETXATTR", "LISTXATTR"])
def test_a_size_larger_than_the_room_for_the_reply_is_not_believed(fuse: FuseClient, node: int, opcode: Opcode,
                                                                  body: bytes) -> None:
    fuse.setxattr(node, "user.name", b"0123456789" * 10)
    assert error_of(fuse.call(opcode, node, body, out_pages=5, check=False)) in ("EINVAL", "ERANGE")
    assert error_of(fuse.call(opcode, node, body, check=False)) in ("EINVAL", "ERANGE")


def test_a_size_query_with_too_little_room_for_the_size_is_refused(fuse: FuseClient, node: int) -> None:
    body = abi.GETXATTR_IN.pack(size=0)
    assert error_of(fuse.call(Opcode.LISTXATTR, node, body, out_size=7, check=False)) == "EINVAL"


@pytest.mark.parametrize("size", [6, 100, 65_536])
def test_a_value_longer_than_what_was_sent_is_refused(fuse: FuseClient, node: int, size: int) -> None:
    with refused(errno.EINVAL):
        fuse.setxattr(node, "user.name", b"value", size=size)
    assert user_names(fuse.listxattr(node)) == []


@pytest.mark.parametrize("size", [65_537, 1 << 20, 0x80000000, 0xffffffff])
def test_a_value_longer_than_any_is_refused(fuse: FuseClient, node: int, size: int) -> None:
    with refused(errno.E2BIG):
        fuse.setxattr(node, "user.name", b"value", size=size)
    assert user_names(fuse.listxattr(node)) == []


def test_a_value_shorter_than_what_was_sent_is_what_is_set(fuse: FuseClient, node: int) -> None:
    fuse.setxattr(node, "user.name", b"value and more", size=5)
    assert fuse.getxattr(node, "user.name") == b"value"
    fuse.setxattr(node, "user.name", b"value and more", size=0)
    assert fuse.getxattr(node, "user.name") == b""


# Names

@pytest.mark.parametrize("name", ["", "user", "user.", "unknown.name", "name", "/", "user/name"])
def test_names_that_are_none_are_refused(fuse: FuseClient, node: int, name: str) -> None:
    errors = (errno.EINVAL,) if not name else (errno.EOPNOTSUPP, errno.EINVAL)
    for run in (lambda: fuse.setxattr(node, name, b"value"), lambda: fuse.getxattr(node, name),
                lambda: fuse.getxattr_size(node, name), lambda: fuse.removexattr(node, name)):
        with refused(*errors):
            run()


def test_long_names(fuse: FuseClient, node: int) -> None:
    longest = "user." + "n" * 250
    fuse.setxattr(node, longest, b"value")
    assert user_names(fuse.listxattr(node)) == [longest.encode()]
    assert fuse.getxattr(node, longest) == b"value"
    for run in (lambda: fuse.setxattr(node, longest + "n", b"value"), lambda: fuse.getxattr(node, longest + "n"),
                lambda: fuse.removexattr(node, longest + "n"), lambda: fuse.getxattr(node, "user." + "n" * 60_000)):
        with refused(errno.ERANGE):
            run()


def test_a_setxattr_without_a_name_is_refused(fuse: FuseClient, node: int) -> None:
    for body in (b"", b"user.name", abi.SETXATTR_IN.pack(size=0) + b"user.name", abi.SETXATTR_IN.pack(size=0)[:15]):
        assert error_of(fuse.call(Opcode.SETXATTR, node, body, check=False)) == "EINVAL"


# Both forms of SETXATTR

@pytest.mark.parametrize("flags", [LINUX_FLAGS, LINUX_FLAGS & ~abi.FUSE_SETXATTR_EXT], ids=["long", "short"])
def test_both_forms_of_the_request(fuse: FuseClient, share: pathlib.Path, flags: int) -> None:
    fuse.init(flags)
    (share / "file").touch()
    node = fuse.lookup(ROOT, "file").nodeid
    fuse.setxattr(node, "user.name", b"value")
    with refused(errno.EEXIST):
        fuse.setxattr(node, "user.name", b"other", os.XATTR_CREATE)
    assert os.getxattr(share / "file", "user.name") == b"value"
    assert user_names(fuse.listxattr(node)) == [b"user.name"]


# What attributes are of

@needs_root
def test_attributes_of_a_link_are_its_own(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "target").touch()
    (share / "link").symlink_to("target")
    node = fuse.lookup(ROOT, "link").nodeid
    fuse.setxattr(node, "trusted.name", b"of the link")
    assert os.getxattr(share / "link", "trusted.name", follow_symlinks=False) == b"of the link"
    assert "trusted.name" not in os.listxattr(share / "target")
    os.setxattr(share / "target", "trusted.name", b"of the target")
    assert fuse.getxattr(node, "trusted.name") == b"of the link"
    assert user_names(fuse.listxattr(node)) == [b"trusted.name"]
    fuse.removexattr(node, "trusted.name")
    assert os.getxattr(share / "target", "trusted.name") == b"of the target"
    with refused(errno.EPERM):
        fuse.setxattr(node, "user.name", b"value")      # Linux has none of these on links


@needs_root
def test_attributes_of_a_fifo(fuse: FuseClient, share: pathlib.Path) -> None:
    os.mkfifo(share / "fifo")
    node = fuse.lookup(ROOT, "fifo").nodeid
    fuse.setxattr(node, "trusted.name", b"value")
    assert fuse.getxattr(node, "trusted.name") == b"value"


def test_attributes_of_the_root(fuse: FuseClient, share: pathlib.Path) -> None:
    fuse.setxattr(ROOT, "user.name", b"value")
    assert os.getxattr(share, "user.name") == b"value"


def test_attributes_of_a_deleted_file(fuse: FuseClient) -> None:
    entry, opened = fuse.create(ROOT, "file")
    fuse.unlink(ROOT, "file")
    fuse.setxattr(entry.nodeid, "user.name", b"value")
    assert fuse.getxattr(entry.nodeid, "user.name") == b"value"
    fuse.release(entry.nodeid, opened.fh)


CAPABILITY = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
CHANGES: dict[str, Callable[[FuseClient, int, int], object]] = {
    "write": lambda fuse, node, fh: fuse.write(node, fh, 0, b"changed"),
    "fallocate": lambda fuse, node, fh: fuse.fallocate(node, fh, 0, 10),
    "copy": lambda fuse, node, fh: fuse.copy_file_range(node, fh, 0, node, fh, 4096, 10),
    "truncate": lambda fuse, node, _: fuse.setattr(node, size=5),
    "open": lambda fuse, node, _: fuse.release(node, fuse.open(node, os.O_RDWR | os.O_TRUNC).fh),
    "chown": lambda fuse, node, _: fuse.setattr(node, owner=os.getuid(), group=os.getgid()),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("options", [(), ("--xattrmap", ":map::user.guest.:")], ids=["", "mapped"])
def test_changes_take_file_capabilities_away(connect: Connect, options: tuple[str, ...], change: str) -> None:
    """As on the host, which does so only where it knows them by their name: the guest's kernel counts on it."""
    guest = connect(*options)
    fuse = guest.fuse
    entry, opened = fuse.create(ROOT, "program", 0o755)
    fuse.write(entry.nodeid, opened.fh, 0, b"unchanged" * 1000)
    try:
        fuse.setxattr(entry.nodeid, "security.capability", CAPABILITY)
    except OSError as error:
        pytest.skip(f"no file capabilities here: {error}")
    assert fuse.getxattr(entry.nodeid, "security.capability") == CAPABILITY
    CHANGES[change](fuse, entry.nodeid, opened.fh)
    with refused(errno.ENODATA):
        fuse.getxattr(entry.nodeid, "security.capability")
    assert not [name for name in os.listxattr(guest.share / "program") if name.endswith("capability")]


# Large ones

@pytest.fixture(params=["tmpfs", "xfs"])
def roomy(request: pytest.FixtureRequest, mounts: Mounts, connect: Connect) -> Guest:
    """A guest on a file system that has attributes of 64 KiB."""
    share = mounts.tmpfs() if request.param == "tmpfs" else mounts.image("xfs", 320)
    (share / "file").touch()
    try:
        os.setxattr(share / "file", "user.model", b"x" * 65_536)
    except OSError as error:
        pytest.skip(f"this {request.param} has no such attributes: {error}")
    os.removexattr(share / "file", "user.model")
    return connect(share=share)


@needs_root
def test_the_largest_value(roomy: Guest) -> None:
    fuse = roomy.fuse
    node = fuse.lookup(ROOT, "file").nodeid
    value = os.urandom(65_536)
    fuse.setxattr(node, "user." + "n" * 250, value)
    assert os.getxattr(roomy.share / "file", "user." + "n" * 250) == value
    assert fuse.getxattr(node, "user." + "n" * 250) == value
    assert fuse.getxattr_size(node, "user." + "n" * 250) == 65_536
    with refused(errno.ERANGE):
        fuse.getxattr(node, "user." + "n" * 250, 65_535)
    with refused(errno.E2BIG):
        fuse.setxattr(node, "user.more", value + b"x")


@needs_root
def test_the_longest_list(roomy: Guest) -> None:
    fuse = roomy.fuse
    node = fuse.lookup(ROOT, "file").nodeid
    names = [f"user.{number:03}{'n' * 247}" for number in range(240)]
    for name in names:
        fuse.setxattr(node, name, b"v")
    assert user_names(fuse.listxattr(node)) == [name.encode() for name in names]
    assert fuse.listxattr_size(node) == sum(len(name) + 1 for name in names)


@needs_root
def test_a_value_too_large_for_the_file_system_is_refused(connect: Connect, mounts: Mounts) -> None:
    guest = connect(share=mounts.ext4())
    (guest.share / "file").touch()
    node = guest.fuse.lookup(ROOT, "file").nodeid
    with refused(errno.ENOSPC):
        guest.fuse.setxattr(node, "user.name", b"x" * 60_000)
    assert user_names(guest.fuse.listxattr(node)) == []


@needs_root
@pytest.mark.parametrize("group", [0, 1234], ids=["the daemon's group", "another group"])
@pytest.mark.parametrize(("kind", "bits"), [("file", 0o2755), ("file", 0o2744), ("folder", 0o2755)])
def test_an_access_list_by_a_stranger_to_the_group_takes_set_group_id_away(connect: Connect, mounts: Mounts, kind: str,
                                                                           bits: int, group: int) -> None:
    """The guest says so; a list that new files inherit changes nothing."""
    guest = connect("--posix-acl", share=mounts.ext4())
    path = guest.share / kind
    path.mkdir() if kind == "folder" else path.touch()
    os.chown(path, 1000, group)
    path.chmod(bits)
    node = guest.fuse.lookup(ROOT, kind).nodeid
    entries = access_list((1, 7, 0xffffffff), (2, 4, 77), (4, bits >> 3 & 7, 0xffffffff), (16, 5, 0xffffffff),
                          (32, 5, 0xffffffff))
    if kind == "folder":
        guest.fuse.setxattr(node, "system.posix_acl_default", entries, setxattr_flags=abi.FUSE_SETXATTR_ACL_KILL_SGID)
    guest.fuse.setxattr(node, "system.posix_acl_access", entries)
    assert path.stat().st_mode & 0o7777 == 0o2755
    guest.fuse.setxattr(node, "system.posix_acl_access", entries, setxattr_flags=abi.FUSE_SETXATTR_ACL_KILL_SGID)
    assert path.stat().st_mode & 0o7777 == 0o755
    assert os.getxattr(path, "system.posix_acl_access") == entries
