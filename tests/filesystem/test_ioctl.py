"""IOCTL: the flags of inodes and fs-verity, for who may change them; other commands are none."""

import errno
import os
import pathlib
import struct
import subprocess

import pytest

from frontend import fuse_abi as abi
from frontend.fuse import FuseError
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, Guest, Mounts, needs_root, refused

GETFLAGS, SETFLAGS = 0x80086601, 0x40086602
GETFLAGS32, SETFLAGS32 = 0x80046601, 0x40046602
FSGETXATTR, FSSETXATTR = 0x801c581f, 0x401c5820
ENABLE_VERITY, MEASURE_VERITY = 0x40806685, 0xc0046686
NODUMP, NODUMP_X = 0x40, 0x80
PROJECT_INHERITED, PROJECT_INHERITED_X = 0x20000000, 0x200
SHA256, BLOCK = 1, 4096
NOBODY = (1 << 32) - 1

pytestmark = needs_root


def flags(value: int) -> bytes:
    return struct.pack("=i", value)


def verity() -> bytes:
    return struct.pack("=IIII IIQIIQ88x", 1, SHA256, BLOCK, 0, 0, 0, 0, 0, 0, 0)[:128].ljust(128, b"\0")


@pytest.fixture
def guest(connect: Connect, mounts: Mounts) -> Guest:
    """With blocks of a page: before Linux 6.3 ext4 has fs-verity for these alone."""
    return connect(share=mounts.ext4(64, "-b", str(os.sysconf("SC_PAGE_SIZE")), "-O", "verity"))


def created(guest: Guest, name: str, mode: int, uid: int = 0) -> tuple[int, int]:
    """A file with something in it that is open for reading alone, as fs-verity wants it."""
    path = guest.share / name
    path.write_bytes(b"data" * 5000)
    os.chown(path, uid, uid)
    path.chmod(mode)
    node = guest.fuse.lookup(ROOT, name).nodeid
    return node, guest.fuse.open(node).fh


def test_flags_are_the_hosts(guest: Guest) -> None:
    file = created(guest, "file", 0o644)
    result, data = guest.fuse.ioctl(*file, GETFLAGS, flags(0), 8)
    usual = struct.unpack("=i", data[:4])[0]
    assert result == 0 and not usual & NODUMP
    guest.fuse.ioctl(*file, SETFLAGS, flags(usual | NODUMP))
    assert struct.unpack("=i", guest.fuse.ioctl(*file, GETFLAGS, flags(0), 8)[1][:4])[0] == usual | NODUMP
    attributes = bytearray(guest.fuse.ioctl(*file, FSGETXATTR, bytes(28), 28)[1])
    assert struct.unpack_from("=I", attributes)[0] & NODUMP_X
    struct.pack_into("=I", attributes, 0, 0)
    guest.fuse.ioctl(*file, FSSETXATTR, bytes(attributes))
    assert not struct.unpack("=i", guest.fuse.ioctl(*file, GETFLAGS, flags(0), 8)[1][:4])[0] & NODUMP


def test_flags_of_a_directory_too(guest: Guest) -> None:
    opened = guest.fuse.opendir(ROOT)
    assert guest.fuse.ioctl(ROOT, opened.fh, GETFLAGS, flags(0), 8)[0] == 0
    guest.fuse.releasedir(ROOT, opened.fh)


def test_the_project_whose_quota_a_file_counts_for_is_the_hosts_alone(connect: Connect, mounts: Mounts) -> None:
    share = mounts.xfs() / "share"
    share.mkdir()
    subprocess.run(["xfs_io", "-c", "chproj 42", "-c", "chattr +P", share], check=True)
    guest = connect(share=share)
    entry, opened = guest.fuse.create(ROOT, "file")
    (guest.share / "folder").mkdir()
    folder = guest.fuse.lookup(ROOT, "folder").nodeid
    for file in ((entry.nodeid, opened.fh), (ROOT, guest.fuse.opendir(ROOT).fh),
                 (folder, guest.fuse.opendir(folder).fh)):
        before = guest.fuse.ioctl(*file, FSGETXATTR, bytes(28), 28)[1]
        xflags, extent, extents, project, *rest = struct.unpack("=5I8s", before)
        assert project == 42
        for other in ((xflags ^ PROJECT_INHERITED_X, 42), (xflags, 0), (xflags, 7)):
            with refused(errno.EPERM):
                guest.fuse.ioctl(*file, FSSETXATTR, struct.pack("=5I8s", other[0], extent, extents, other[1], *rest))
        usual = struct.unpack("=i", guest.fuse.ioctl(*file, GETFLAGS, flags(0), 8)[1][:4])[0]
        with refused(errno.EPERM):
            guest.fuse.ioctl(*file, SETFLAGS, flags(usual ^ PROJECT_INHERITED))
        guest.fuse.ioctl(*file, SETFLAGS, flags(usual | NODUMP))
        guest.fuse.ioctl(*file, FSSETXATTR, before)
        assert guest.fuse.ioctl(*file, FSGETXATTR, bytes(28), 28)[1] == before


@pytest.mark.parametrize(("command", "how"), [
    (SETFLAGS32, 0), (SETFLAGS32, abi.FUSE_IOCTL_COMPAT | abi.FUSE_IOCTL_32BIT), (SETFLAGS, abi.FUSE_IOCTL_32BIT),
    (GETFLAGS32, 0), (0x5401, 0), (0, 0), (0xffffffff, 0)])
def test_a_number_that_the_guests_kernel_would_pass_on_unchecked_is_no_command(guest: Guest, command: int,
                                                                              how: int) -> None:
    """A kernel checks who sets flags where it knows the command, and it knows only the number of its own word size."""
    file = created(guest, "file", 0o644)
    with refused(errno.ENOTTY):
        guest.fuse.ioctl(*file, command, flags(0x10), 8, how)


def test_a_32_bit_guests_kernel_has_numbers_of_its_own(guest: Guest) -> None:
    file = created(guest, "file", 0o644)
    usual = struct.unpack("=i", guest.fuse.ioctl(*file, GETFLAGS32, flags(0), 4, abi.FUSE_IOCTL_32BIT)[1][:4])[0]
    guest.fuse.ioctl(*file, SETFLAGS32, flags(usual | NODUMP), 0, abi.FUSE_IOCTL_32BIT)
    assert struct.unpack("=i", guest.fuse.ioctl(*file, GETFLAGS, flags(0), 8)[1][:4])[0] & NODUMP


def test_a_file_with_verity_is_measured_and_never_written_again(guest: Guest) -> None:
    node, handle = created(guest, "file", 0o644)
    try:
        guest.fuse.ioctl(node, handle, ENABLE_VERITY, verity())
    except FuseError as error:
        assert error.errno == errno.EOPNOTSUPP
        pytest.skip("the host's kernel has no fs-verity")
    algorithm, size = struct.unpack_from("=HH", guest.fuse.ioctl(
        node, handle, MEASURE_VERITY, struct.pack("=HH", 0, 64), 68)[1])
    assert (algorithm, size) == (SHA256, 32)
    with refused(errno.EPERM):
        guest.fuse.open(node, os.O_RDWR)


@pytest.mark.parametrize(("mode", "caller", "allowed"), [
    (0o644, 1000, True), (0o444, 1000, False), (0o644, 2000, False), (0o646, 2000, True), (0o600, 2000, False),
    (0o444, 0, True), (0o644, NOBODY, False), (0o600, NOBODY, True), (0o640, NOBODY, False)])
def test_verity_is_for_who_may_write_the_file(guest: Guest, mode: int, caller: int, allowed: bool) -> None:
    """The guest's kernel only checks that it was opened. NOBODY: it does not say who asks (idmapped mounts)."""
    file = created(guest, "file", mode, 1000)
    if allowed:
        try:
            guest.fuse.ioctl(*file, ENABLE_VERITY, verity(), uid=caller, gid=caller)
        except FuseError as error:
            assert error.errno == errno.EOPNOTSUPP      # the host's kernel has none, and was asked
    else:
        with refused(errno.EACCES):
            guest.fuse.ioctl(*file, ENABLE_VERITY, verity(), uid=caller, gid=caller)


@pytest.mark.parametrize("command", [SETFLAGS, FSSETXATTR, ENABLE_VERITY])
def test_a_readonly_share_changes_no_flags(connect: Connect, tmp_path: pathlib.Path, command: int) -> None:
    share = tmp_path / "kept"
    share.mkdir()
    (share / "file").write_bytes(b"data")
    guest = connect("--readonly", share=share)
    node = guest.fuse.lookup(ROOT, "file").nodeid
    with refused(errno.EROFS):
        guest.fuse.ioctl(node, guest.fuse.open(node).fh, command, bytes(128))


@pytest.mark.parametrize("changes", [{"salt": 33}, {"signature": 20_000}, {"salt": 8}, {"signature": 8}])
def test_lengths_that_lie_are_refused(guest: Guest, changes: dict[str, int]) -> None:
    """The salt and the signature stand behind the argument: none of them is there."""
    argument = bytearray(verity())
    struct.pack_into("=I", argument, 12, changes.get("salt", 0))
    struct.pack_into("=I", argument, 24, changes.get("signature", 0))
    with refused(errno.EINVAL):
        guest.fuse.ioctl(*created(guest, "file", 0o644), ENABLE_VERITY, bytes(argument))
