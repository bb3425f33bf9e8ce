"""GETATTR and SETATTR, and what else is asked of a file without opening it: READLINK, ACCESS, STATFS."""

import errno
import os
import pathlib
import socket
import stat
import time
from collections.abc import Callable

import pytest

from frontend import fuse_abi as abi
from frontend.fuse import FuseClient
from frontend.fuse_abi import Opcode
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, Mounts, as_guest, as_host, error_of, needs_root, refused, settle

NANOSECOND = 10**9
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2


def make_socket(path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def make_sparse(path: pathlib.Path) -> None:
    with path.open("wb") as file:
        file.seek(5 << 30)
        file.write(b"end")


KINDS: dict[str, Callable[[pathlib.Path], object]] = {
    "empty file": lambda path: path.touch(),
    "file": lambda path: path.write_bytes(b"x" * 10_000),
    "file of more than 4 GiB, most of it a hole": make_sparse,
    "directory": lambda path: path.mkdir(),
    "directory with others in it": lambda path: (path / "sub").mkdir(parents=True),
    "symbolic link": lambda path: path.symlink_to("/nowhere"),
    "fifo": lambda path: os.mkfifo(path, 0o600),
    "socket": make_socket,
}
DEVICES: dict[str, Callable[[pathlib.Path], object]] = {
    "character device": lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3)),
    "block device": lambda path: os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(7, 200)),
    "device of large numbers": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(0xabc, 0xfedcb)),
}


@pytest.mark.parametrize("kind", [*KINDS, *(pytest.param(kind, marks=needs_root) for kind in DEVICES)])
def test_attributes_are_those_of_the_host(fuse: FuseClient, share: pathlib.Path, kind: str) -> None:
    path = share / "name"
    (KINDS | DEVICES)[kind](path)
    os.utime(path, ns=(1_234_567_890_123_456_789, 987_654_321_000_000_001), follow_symlinks=False)
    if os.geteuid() == 0:
        os.chown(path, 123_456, 4_000_000_000, follow_symlinks=False)
    entry = fuse.lookup(ROOT, "name")
    assert as_guest(entry) == as_host(path)
    attr = fuse.getattr(entry.nodeid)
    assert as_guest(attr) == as_host(path)
    assert (attr.attr_valid, attr.attr_valid_nsec, attr.dummy, attr.attr_flags) == (1, 0, 0, 0)


def test_attributes_of_the_root_are_those_of_the_shared_directory(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "sub").mkdir()
    share.chmod(0o1751)
    assert as_guest(fuse.getattr(ROOT)) == as_host(share)


def test_changes_by_the_host_are_seen_at_once(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "file").touch()
    nodeid = fuse.lookup(ROOT, "file").nodeid
    (share / "file").write_bytes(b"more")
    (share / "file").chmod(0o604)
    (share / "link").hardlink_to(share / "file")
    assert as_guest(fuse.getattr(nodeid)) == as_host(share / "file")


def test_attributes_by_an_open_file_are_the_same(fuse: FuseClient, share: pathlib.Path) -> None:
    entry, opened = fuse.create(ROOT, "file")
    fuse.write(entry.nodeid, opened.fh, 0, b"abc")
    assert as_guest(fuse.getattr(entry.nodeid, opened.fh)) == as_host(share / "file")
    (share / "file").unlink()
    attr = fuse.getattr(entry.nodeid, opened.fh)
    assert (attr.attr_nlink, attr.attr_size, attr.attr_ino) == (0, 3, entry.attr_ino)


# Modes

@pytest.mark.parametrize("mode", [0, 0o644, 0o777, 0o4755, 0o2755, 0o1777, 0o7777])
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_chmod_sets_all_twelve_bits(fuse: FuseClient, share: pathlib.Path, kind: str, mode: int) -> None:
    KINDS[kind](share / "name")
    nodeid = fuse.lookup(ROOT, "name").nodeid
    # Linux sends the type of the file too.
    attr = fuse.setattr(nodeid, mode=stat.S_IFMT((share / "name").stat().st_mode) | mode)
    assert stat.S_IMODE((share / "name").stat().st_mode) == mode
    assert as_guest(attr) == as_host(share / "name")


def test_chmod_never_changes_the_kind_of_file(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "file").touch()
    fuse.setattr(fuse.lookup(ROOT, "file").nodeid, mode=stat.S_IFDIR | 0o751)
    assert (share / "file").stat().st_mode == stat.S_IFREG | 0o751


@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_chmod_of_special_files(fuse: FuseClient, share: pathlib.Path, kind: str) -> None:
    KINDS[kind](share / "name")
    fuse.setattr(fuse.lookup(ROOT, "name").nodeid, mode=0o741)
    assert stat.S_IMODE((share / "name").stat().st_mode) == 0o741


def test_chmod_of_a_symbolic_link_is_refused_and_its_target_left_alone(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "target").touch(mode=0o644)
    (share / "link").symlink_to("target")
    with refused(errno.EOPNOTSUPP):
        fuse.setattr(fuse.lookup(ROOT, "link").nodeid, mode=0o777)
    assert stat.S_IMODE((share / "target").stat().st_mode) == 0o644


# Owners

@needs_root
def test_chown_of_user_or_group_alone_leaves_the_other(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "file").touch()
    nodeid = fuse.lookup(ROOT, "file").nodeid
    fuse.setattr(nodeid, owner=1000)
    assert ((share / "file").stat().st_uid, (share / "file").stat().st_gid) == (1000, 0)
    fuse.setattr(nodeid, group=2000)
    assert ((share / "file").stat().st_uid, (share / "file").stat().st_gid) == (1000, 2000)
    attr = fuse.setattr(nodeid, owner=0, group=3000)
    assert as_guest(attr) == as_host(share / "file")
    assert ((share / "file").stat().st_uid, (share / "file").stat().st_gid) == (0, 3000)


@needs_root
def test_chown_acts_on_a_symbolic_link_itself(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "target").touch()
    (share / "link").symlink_to("target")
    fuse.setattr(fuse.lookup(ROOT, "link").nodeid, owner=7, group=8)
    assert ((share / "link").lstat().st_uid, (share / "link").lstat().st_gid) == (7, 8)
    assert ((share / "target").stat().st_uid, (share / "target").stat().st_gid) == (0, 0)


@needs_root
def test_chown_takes_the_set_id_bits_away_as_on_the_host(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "file").touch()
    (share / "file").chmod(0o6755)
    nodeid = fuse.lookup(ROOT, "file").nodeid
    assert stat.S_IMODE(fuse.setattr(nodeid, owner=1000).attr_mode) == 0o755
    # Asked for both at once, the mode that was asked for is what comes out.
    assert stat.S_IMODE(fuse.setattr(nodeid, owner=1001, mode=0o4711).attr_mode) == 0o4711


def test_a_guest_does_not_keep_what_it_knows_of_a_file_with_set_id_bits(connect: Connect) -> None:
    """With HANDLE_KILLPRIV_V2 it does not notice that a write has cleared them, and would execute by what it knew."""
    for options, validity in (("--cache=always",), 0), (("--cache=always", "--no-killpriv-v2"), 86400):
        guest = connect(*options)
        for name, mode, valid in ("suid", 0o4755, validity), ("sgid", 0o2755, validity), ("plain", 0o755, 86400):
            entry, _ = guest.fuse.create(ROOT, name)
            assert entry.attr_valid == 86400
            changed = guest.fuse.setattr(entry.nodeid, mode=mode)
            assert (changed.attr_valid, changed.attr_valid_nsec) == (valid, 0)
            again = guest.fuse.lookup(ROOT, name)
            assert (again.entry_valid, again.attr_valid, again.attr_valid_nsec) == (86400, valid, 0)
            assert guest.fuse.getattr(entry.nodeid).attr_valid == valid
            assert guest.fuse.statx(entry.nodeid).attr_valid == valid


@needs_root
def test_a_chown_to_nobody_takes_the_set_id_bits_away_too(fuse: FuseClient, share: pathlib.Path) -> None:
    """It comes as a SETATTR of nothing: with HANDLE_KILLPRIV_V2 the bits are the daemon's business."""
    (share / "file").touch()
    (share / "folder").mkdir()
    for name in ("file", "folder"):
        (share / name).chmod(0o6755)
        nodeid = fuse.lookup(ROOT, name).nodeid
        before = (share / name).stat()
        time.sleep(0.03)
        mode = 0o755 if name == "file" else 0o6755
        assert stat.S_IMODE(fuse.setattr(nodeid).attr_mode) == mode
        after = (share / name).stat()
        assert after.st_ctime_ns > before.st_ctime_ns
        assert (after.st_uid, after.st_gid, after.st_mtime_ns) == (before.st_uid, before.st_gid, before.st_mtime_ns)


@needs_root
def test_a_change_acts_with_the_daemons_rights_whoever_asks(fuse: FuseClient, share: pathlib.Path) -> None:
    """The guest's kernel has decided: the daemon does not know the caller's groups and capabilities."""
    (share / "file").write_bytes(b"data")
    (share / "file").chmod(0o600)
    nodeid = fuse.lookup(ROOT, "file", uid=1000, gid=1000).nodeid
    fuse.setattr(nodeid, mode=0o640, owner=5, size=2, mtime=1.0, uid=1000, gid=1000)
    found = (share / "file").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_size, found.st_mtime) == (0o640, 5, 2, 1.0)


# Sizes

@pytest.mark.parametrize("size", [0, 1, 4096, 5000, 10_000, 20_000, 1 << 40])
@pytest.mark.parametrize("by", ["name", "handle"])
def test_truncation_cuts_and_extends(fuse: FuseClient, share: pathlib.Path, by: str, size: int) -> None:
    data = os.urandom(10_000)
    (share / "file").write_bytes(data)
    nodeid = fuse.lookup(ROOT, "file").nodeid
    fh = fuse.open(nodeid, os.O_RDWR).fh
    attr = fuse.setattr(nodeid, size=size, fh=fh if by == "handle" else None)
    assert as_guest(attr) == as_host(share / "file") and attr.attr_size == size
    with (share / "file").open("rb") as file:
        assert file.read(30_000) == data[:size].ljust(min(size, 30_000), b"\0")
    fuse.release(nodeid, fh)


@needs_root
@pytest.mark.parametrize("option", ["--no-killpriv-v2", "--override-stat"])
def test_an_open_that_truncates_sets_the_times_of_an_empty_file(connect: Connect, mounts: Mounts, option: str) -> None:
    """Without ATOMIC_O_TRUNC it is a SETATTR of nothing but the size. One to another size is truncate(2), which sets no
    times on tmpfs where the file has it already, and no data.
    """
    guest = connect(option, share=mounts.tmpfs())
    for name, size in (("empty", 0), ("hole", 10)):
        path = guest.share / name
        path.touch()
        os.truncate(path, size)
        os.utime(path, (1, 1))
        changed = path.stat().st_ctime_ns
        settle()
        guest.fuse.setattr(guest.fuse.lookup(ROOT, name).nodeid, size=size, lock_owner=1)
        stamps = path.stat()
        assert (stamps.st_mtime > 1, stamps.st_ctime_ns > changed) == (size == 0, size == 0)
        assert (stamps.st_size, stamps.st_atime) == (size, 1)


def test_truncation_by_a_handle_that_cannot_write_is_refused(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "file").write_bytes(b"data")
    nodeid = fuse.lookup(ROOT, "file").nodeid
    fh = fuse.open(nodeid, os.O_RDONLY).fh
    with refused(errno.EINVAL, errno.EBADF):
        fuse.setattr(nodeid, size=0, fh=fh)
    assert (share / "file").read_bytes() == b"data"


def test_truncation_by_the_handle_of_another_file_is_refused(fuse: FuseClient, share: pathlib.Path) -> None:
    for name in ("file", "other"):
        (share / name).write_bytes(b"data")
    (share / "folder").mkdir()
    nodeid, other, folder = (fuse.lookup(ROOT, name).nodeid for name in ("file", "other", "folder"))
    released = fuse.open(nodeid, os.O_RDWR).fh
    fuse.release(nodeid, released)
    for fh in (fuse.open(other, os.O_RDWR).fh, fuse.opendir(folder).fh, released, 0, (1 << 64) - 1):
        with refused(errno.EBADF):
            fuse.setattr(nodeid, size=0, fh=fh)
    assert (share / "file").read_bytes() == (share / "other").read_bytes() == b"data"


@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1, (1 << 63) - 1])
def test_truncation_to_impossible_sizes_is_refused(fuse: FuseClient, share: pathlib.Path, size: int) -> None:
    (share / "file").write_bytes(b"data")
    nodeid = fuse.lookup(ROOT, "file").nodeid
    fh = fuse.open(nodeid, os.O_RDWR).fh
    if size < 1 << 63:
        try:
            os.truncate(share / "file", size)
        except OSError:
            pass
        else:
            pytest.skip("this file system has files as large as can be said")
    for by in (None, fh):
        with refused(errno.EFBIG if size < 1 << 63 else errno.EINVAL):
            fuse.setattr(nodeid, size=size, fh=by)
    assert (share / "file").read_bytes() == b"data"


@pytest.mark.parametrize("kind, error", [("directory", errno.EISDIR), ("symbolic link", errno.EINVAL),
                                         ("fifo", errno.EINVAL), ("socket", errno.EINVAL)])
def test_only_files_are_truncated(fuse: FuseClient, share: pathlib.Path, kind: str, error: int) -> None:
    KINDS[kind](share / "name")
    with refused(error):
        fuse.setattr(fuse.lookup(ROOT, "name").nodeid, size=0)


def test_truncation_of_a_symbolic_link_leaves_its_target_alone(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "target").write_bytes(b"data")
    (share / "link").symlink_to(share / "target")
    with refused(errno.EINVAL):
        fuse.setattr(fuse.lookup(ROOT, "link").nodeid, size=0)
    assert (share / "target").read_bytes() == b"data"


# Times

def host_time(share: pathlib.Path) -> int:
    """What the file system's clock says: what a file is stamped with now."""
    (share / "clock").touch()
    os.utime(share / "clock")
    return (share / "clock").stat().st_mtime_ns


def times(path: pathlib.Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_atime_ns, found.st_mtime_ns


@pytest.fixture
def dated(fuse: FuseClient, share: pathlib.Path) -> int:
    """The node of a file with times of long ago."""
    (share / "file").touch()
    os.utime(share / "file", ns=(1 * NANOSECOND + 11, 2 * NANOSECOND + 22))
    return int(fuse.lookup(ROOT, "file").nodeid)


def set_times(fuse: FuseClient, nodeid: int, valid: int, **values: int) -> None:
    fuse.ask(Opcode.SETATTR, nodeid, abi.ATTR_OUT.size, abi.SETATTR_IN.pack(valid=valid, **values))


def test_each_time_is_set_alone(fuse: FuseClient, share: pathlib.Path, dated: int) -> None:
    set_times(fuse, dated, abi.FATTR_ATIME, atime=1000, atimensec=999_999_999, mtime=5, mtimensec=5)
    assert times(share / "file") == (1000 * NANOSECOND + 999_999_999, 2 * NANOSECOND + 22)
    set_times(fuse, dated, abi.FATTR_MTIME, mtime=3000, mtimensec=1, atime=5, atimensec=5)
    assert times(share / "file") == (1000 * NANOSECOND + 999_999_999, 3000 * NANOSECOND + 1)
    set_times(fuse, dated, abi.FATTR_ATIME | abi.FATTR_MTIME, atime=7, mtime=8)
    assert times(share / "file") == (7 * NANOSECOND, 8 * NANOSECOND)


@pytest.mark.parametrize("bits", [0, abi.FATTR_ATIME | abi.FATTR_MTIME], ids=["alone", "as Linux sends it"])
def test_now_is_the_hosts_time(fuse: FuseClient, share: pathlib.Path, dated: int, bits: int) -> None:
    before = host_time(share)
    set_times(fuse, dated, bits & abi.FATTR_MTIME | abi.FATTR_MTIME_NOW)
    atime, mtime = times(share / "file")
    assert before <= mtime <= host_time(share) and atime == 1 * NANOSECOND + 11
    set_times(fuse, dated, bits & abi.FATTR_ATIME | abi.FATTR_ATIME_NOW, atime=1, atimensec=1)
    assert before <= times(share / "file")[0] <= host_time(share)
    assert times(share / "file")[1] == mtime


def test_one_time_now_and_the_other_given(fuse: FuseClient, share: pathlib.Path, dated: int) -> None:
    before = host_time(share)
    fuse.setattr(dated, atime="now", mtime=3.5)
    assert times(share / "file")[0] >= before
    assert times(share / "file")[1] == 3.5 * NANOSECOND


@pytest.mark.parametrize("seconds", [-1, -86_400 * 365, -(1 << 31), 1 << 31, (1 << 32) + 5])
def test_times_before_1970_and_after_2038(fuse: FuseClient, share: pathlib.Path, dated: int, seconds: int) -> None:
    os.utime(share / "file", ns=(seconds * NANOSECOND + 5, seconds * NANOSECOND + 6))
    expected = times(share / "file")        # what the file system makes of it
    os.utime(share / "file", ns=(0, 0))
    set_times(fuse, dated, abi.FATTR_ATIME | abi.FATTR_MTIME, atime=seconds % (1 << 64), atimensec=5,
              mtime=seconds % (1 << 64), mtimensec=6)
    assert times(share / "file") == expected
    assert as_guest(fuse.getattr(dated)) == as_host(share / "file")


@pytest.mark.parametrize("nanoseconds", [NANOSECOND, UTIME_NOW, UTIME_OMIT, 0xffffffff])
@pytest.mark.parametrize("time", ["atime", "mtime"])
def test_more_nanoseconds_than_a_second_has_are_refused(fuse: FuseClient, share: pathlib.Path, dated: int, time: str,
                                                       nanoseconds: int) -> None:
    with refused(errno.EINVAL):
        set_times(fuse, dated, abi.FATTR_ATIME | abi.FATTR_MTIME, **{f"{time}nsec": nanoseconds})
    assert times(share / "file") == (1 * NANOSECOND + 11, 2 * NANOSECOND + 22)


def test_nanoseconds_of_a_time_that_is_not_set_do_not_matter(fuse: FuseClient, share: pathlib.Path,
                                                            dated: int) -> None:
    set_times(fuse, dated, abi.FATTR_ATIME, atime=9, mtimensec=0xffffffff)
    assert times(share / "file") == (9 * NANOSECOND, 2 * NANOSECOND + 22)
    set_times(fuse, dated, abi.FATTR_MTIME | abi.FATTR_ATIME_NOW, mtime=9, atimensec=0xffffffff)
    assert times(share / "file")[1] == 9 * NANOSECOND


@pytest.mark.usefixtures("dated")
def test_times_of_a_symbolic_link_are_its_own(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "link").symlink_to("file")
    set_times(fuse, fuse.lookup(ROOT, "link").nodeid, abi.FATTR_ATIME | abi.FATTR_MTIME, atime=100, mtime=200)
    assert times(share / "link") == (100 * NANOSECOND, 200 * NANOSECOND)
    assert times(share / "file") == (1 * NANOSECOND + 11, 2 * NANOSECOND + 22)


@pytest.mark.parametrize("kind", ["directory", "fifo", "socket"])
def test_times_of_other_kinds(fuse: FuseClient, share: pathlib.Path, kind: str) -> None:
    KINDS[kind](share / "name")
    set_times(fuse, fuse.lookup(ROOT, "name").nodeid, abi.FATTR_ATIME | abi.FATTR_MTIME, atime=100, mtime=200)
    assert times(share / "name") == (100 * NANOSECOND, 200 * NANOSECOND)


# Set-id bits and data

KILL = abi.FATTR_KILL_SUIDGID


@needs_root
@pytest.mark.parametrize("by", ["name", "handle"])
@pytest.mark.parametrize("valid, mode, expected", [
    (0, 0o6755, 0o6755), (KILL, 0o6755, 0o755), (KILL, 0o4700, 0o700), (KILL, 0o2745, 0o2745), (KILL, 0o644, 0o644)])
def test_truncation_clears_set_id_bits_where_the_guest_asks_for_it(
        fuse: FuseClient, share: pathlib.Path, by: str, valid: int, mode: int, expected: int) -> None:
    """A set-group-id bit without the group's execute bit is no set-id bit."""
    (share / "file").write_bytes(b"data")
    (share / "file").chmod(mode)
    nodeid = fuse.lookup(ROOT, "file").nodeid
    fh = fuse.open(nodeid, os.O_RDWR).fh if by == "handle" else None
    for _ in range(2):      # the thread that serves it does not remember
        attr = fuse.setattr(nodeid, size=2, fh=fh, valid=valid)
        assert stat.S_IMODE(attr.attr_mode) == stat.S_IMODE((share / "file").stat().st_mode) == expected
        (share / "file").chmod(0o6755)
        assert stat.S_IMODE(fuse.setattr(nodeid, size=2, fh=fh).attr_mode) == 0o6755
        (share / "file").chmod(mode)


# STATX

@pytest.mark.parametrize("kind", [*KINDS, *(pytest.param(kind, marks=needs_root) for kind in DEVICES)])
def test_statx_tells_what_getattr_does_and_the_time_of_birth(fuse: FuseClient, share: pathlib.Path, kind: str) -> None:
    path = share / "name"
    (KINDS | DEVICES)[kind](path)
    os.utime(path, ns=(1_234_567_890_123_456_789, 987_654_321_000_000_001), follow_symlinks=False)
    nodeid = fuse.lookup(ROOT, "name").nodeid
    found, host = fuse.statx(nodeid), path.lstat()
    assert (found.stat_ino, found.stat_size, found.stat_blocks, found.stat_mode, found.stat_nlink) == (
        host.st_ino, host.st_size, host.st_blocks, host.st_mode, host.st_nlink)
    assert (found.stat_uid, found.stat_gid, found.stat_blksize) == (host.st_uid, host.st_gid, host.st_blksize)
    assert os.makedev(found.stat_rdev_major, found.stat_rdev_minor) == host.st_rdev
    assert os.makedev(found.stat_dev_major, found.stat_dev_minor) == host.st_dev
    for kind in ("atime", "mtime", "ctime"):
        nanoseconds = getattr(found, f"stat_{kind}_tv_sec") * NANOSECOND + getattr(found, f"stat_{kind}_tv_nsec")
        assert nanoseconds == getattr(host, f"st_{kind}_ns")
    basic, birth = 0x7ff, 0x800
    assert found.stat_mask & basic == basic
    if found.stat_mask & birth:
        assert abs(found.stat_btime_tv_sec - host.st_ctime) < 60
    assert (found.attr_valid, found.attr_valid_nsec, found.flags) == (1, 0, 0)
    assert found.stat_spare2 == bytes(112)


def test_statx_with_other_masks_and_flags(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "file").write_bytes(b"data")
    nodeid = fuse.lookup(ROOT, "file").nodeid
    for mask, flags in ((0, 0), (0xffffffff, 0), (0xfff, 0x2000), (0xfff, 0x4000), (0xfff, 0x1f)):
        assert fuse.statx(nodeid, mask, flags).stat_size == 4
    (share / "file").unlink()
    assert fuse.statx(nodeid).stat_nlink == 0


# What belongs together

def test_nothing_asked_for_changes_nothing_but_ctime(fuse: FuseClient, share: pathlib.Path, dated: int) -> None:
    """It is what a chown to nobody comes as."""
    before = as_host(share / "file")
    attr = fuse.ask(Opcode.SETATTR, dated, abi.ATTR_OUT.size,
                    abi.SETATTR_IN.pack(valid=0, mode=0o7777, uid=5, gid=5, size=100, atime=5, mtime=5, ctime=5))
    assert as_guest(abi.ATTR_OUT.unpack(attr)) == as_host(share / "file")
    assert as_host(share / "file") | {"ctime": before["ctime"]} == before


def test_a_ctime_cannot_be_set(fuse: FuseClient, share: pathlib.Path, dated: int) -> None:
    before = host_time(share)
    fuse.setattr(dated, mode=0o600, ctime=5.0)
    assert (share / "file").stat().st_ctime_ns >= before


def test_size_and_times_together_end_with_the_times_that_were_asked_for(fuse: FuseClient, share: pathlib.Path,
                                                                       dated: int) -> None:
    attr = fuse.setattr(dated, size=100, mtime=12.0, atime=13.0, mode=0o640)
    assert (attr.attr_size, attr.attr_mtime, attr.attr_atime, stat.S_IMODE(attr.attr_mode)) == (100, 12, 13, 0o640)
    assert as_guest(attr) == as_host(share / "file")


def test_a_file_that_is_deleted_but_open_still_changes(fuse: FuseClient) -> None:
    entry, opened = fuse.create(ROOT, "file")
    fuse.unlink(ROOT, "file")
    fuse.setattr(entry.nodeid, size=100)
    fuse.setattr(entry.nodeid, size=200, fh=opened.fh)
    attr = fuse.setattr(entry.nodeid, mode=0o600, mtime=5.0)
    assert (attr.attr_size, attr.attr_nlink, stat.S_IMODE(attr.attr_mode), attr.attr_mtime) == (200, 0, 0o600, 5)
    assert fuse.read(entry.nodeid, opened.fh, 0, 1000) == bytes(200)


def test_a_file_that_is_deleted_and_not_open_still_has_attributes(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "file").write_bytes(b"data")
    nodeid = fuse.lookup(ROOT, "file").nodeid
    (share / "file").unlink()
    assert fuse.setattr(nodeid, mode=0o640).attr_nlink == 0
    assert fuse.getattr(nodeid).attr_size == 4


# Symbolic links

@pytest.mark.parametrize("target", [b"x", b"/absolute/target", b"..", b"a b\n\xff", b"t" * 255, b"d/" * 500])
def test_readlink_gives_the_target_as_it_is(fuse: FuseClient, share: pathlib.Path, target: bytes) -> None:
    os.symlink(target, os.fsencode(share / "link"))
    entry = fuse.lookup(ROOT, "link")
    assert entry.attr_size == len(target)
    assert fuse.readlink(entry.nodeid) == target


def test_readlink_of_the_longest_target(fuse: FuseClient, share: pathlib.Path) -> None:
    target = b"t" * 4095
    try:
        os.symlink(target, os.fsencode(share / "link"))
    except OSError as error:
        pytest.skip(f"this file system has no link so long: {error}")
    assert fuse.readlink(fuse.lookup(ROOT, "link").nodeid) == target


@pytest.mark.parametrize("kind", ["file", "directory", "fifo"])
def test_readlink_of_what_is_no_link_is_refused(fuse: FuseClient, share: pathlib.Path, kind: str) -> None:
    KINDS[kind](share / "name")
    with refused(errno.EINVAL):
        fuse.readlink(fuse.lookup(ROOT, "name").nodeid)


def test_readlink_with_too_little_room_is_refused(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "link").symlink_to("t" * 100)
    nodeid = fuse.lookup(ROOT, "link").nodeid
    assert error_of(fuse.call(Opcode.READLINK, nodeid, out_pages=99, check=False)) == "EINVAL"
    assert fuse.call(Opcode.READLINK, nodeid, out_pages=100).data == b"t" * 100


# ACCESS

@needs_root
@pytest.mark.parametrize("mode, uid, gid, allowed", [
    (0o640, 1000, 1000, os.R_OK | os.W_OK), (0o640, 1001, 1000, os.R_OK), (0o640, 1001, 1001, 0),
    (0o705, 1001, 1001, os.R_OK | os.X_OK), (0o070, 1000, 1000, 0), (0o000, 0, 0, os.R_OK | os.W_OK),
    (0o100, 0, 0, os.R_OK | os.W_OK | os.X_OK)])
def test_access_goes_by_the_mode(fuse: FuseClient, share: pathlib.Path, mode: int, uid: int, gid: int,
                                 allowed: int) -> None:
    (share / "file").touch()
    (share / "file").chmod(mode)
    os.chown(share / "file", 1000, 1000)
    nodeid = fuse.lookup(ROOT, "file").nodeid
    for mask in range(8):
        if mask & ~allowed:
            with refused(errno.EACCES):
                fuse.access(nodeid, mask, uid=uid, gid=gid)
        else:
            fuse.access(nodeid, mask, uid=uid, gid=gid)


def test_access_of_unknown_kinds_is_refused(fuse: FuseClient) -> None:
    with refused(errno.EINVAL):
        fuse.access(ROOT, 8)


# STATFS

@needs_root
def test_statfs_is_that_of_the_host(connect: Connect, file_system: pathlib.Path) -> None:
    (file_system / "file").write_bytes(b"x" * 100_000)
    guest = connect(share=file_system)
    found, expected = guest.fuse.statfs(), os.statvfs(file_system)
    assert (found.blocks, found.bfree, found.bavail, found.files, found.ffree) == (
        expected.f_blocks, expected.f_bfree, expected.f_bavail, expected.f_files, expected.f_ffree)
    assert (found.bsize, found.frsize, found.namelen) == (
        expected.f_bsize, expected.f_frsize, expected.f_namemax)


@needs_root
def test_statfs_is_that_of_the_file_systems_own_node(fuse: FuseClient, share: pathlib.Path, mounts: Mounts) -> None:
    mounts.tmpfs(share / "inner", "size=8m")
    assert fuse.statfs(fuse.lookup(ROOT, "inner").nodeid).blocks == (8 << 20) // 4096
    assert fuse.statfs().blocks == os.statvfs(share).f_blocks
