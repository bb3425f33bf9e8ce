"""--readonly: the guest reads everything and changes nothing."""

import errno
import os
import pathlib
import stat
from collections.abc import Callable

import pytest

from frontend.fuse import FuseClient
from tests.filesystem.conftest import Connect
from tests.filesystem.support import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    ROOT,
    Guest,
    as_guest,
    as_host,
    during,
    refused,
    tree,
)


@pytest.fixture
def guest(connect: Connect, tmp_path: pathlib.Path) -> Guest:
    """A guest of a read-only share with files of every kind."""
    share = tmp_path / "share"
    (share / "folder/sub").mkdir(parents=True)
    (share / "file").write_bytes(b"data of file")
    (share / "other").write_bytes(b"data of other")
    (share / "folder/inner").write_bytes(b"data of inner")
    (share / "empty").mkdir()
    (share / "link").symlink_to("file")
    os.mkfifo(share / "fifo")
    return connect("--readonly", share=share)


def changes(fuse: FuseClient, node: int, fh: int) -> dict[str, Callable[[], object]]:
    """Every way to change something, by the node and a handle of `file`."""
    return {
        "SETATTR of a mode": lambda: fuse.setattr(node, mode=0o777),
        "SETATTR of an owner": lambda: fuse.setattr(node, owner=5, group=5),
        "SETATTR of a size": lambda: fuse.setattr(node, size=0),
        "SETATTR of a size by handle": lambda: fuse.setattr(node, size=0, fh=fh),
        "SETATTR of times": lambda: fuse.setattr(node, atime=1.0, mtime="now"),
        "SETATTR of nothing": lambda: fuse.setattr(node),
        "SETATTR of the root": lambda: fuse.setattr(ROOT, mode=0o700),
        "SYMLINK": lambda: fuse.symlink(ROOT, "new", "target"),
        "SYMLINK over something": lambda: fuse.symlink(ROOT, "file", "target"),
        "MKNOD": lambda: fuse.mknod(ROOT, "new", stat.S_IFREG | 0o644),
        "MKNOD of a fifo": lambda: fuse.mknod(ROOT, "new", stat.S_IFIFO | 0o644),
        "MKDIR": lambda: fuse.mkdir(ROOT, "new"),
        "MKDIR as a user": lambda: fuse.mkdir(ROOT, "new", uid=1000, gid=1000),
        "UNLINK": lambda: fuse.unlink(ROOT, "file"),
        "UNLINK of what is not there": lambda: fuse.unlink(ROOT, "missing"),
        "RMDIR": lambda: fuse.rmdir(ROOT, "empty"),
        "RENAME": lambda: fuse.rename(ROOT, "file", ROOT, "new"),
        "RENAME over something": lambda: fuse.rename(ROOT, "file", ROOT, "other"),
        "RENAME2": lambda: fuse.rename2(ROOT, "file", ROOT, "new"),
        "RENAME2, NOREPLACE": lambda: fuse.rename2(ROOT, "file", ROOT, "new", RENAME_NOREPLACE),
        "RENAME2, EXCHANGE": lambda: fuse.rename2(ROOT, "file", ROOT, "other", RENAME_EXCHANGE),
        "RENAME2, WHITEOUT": lambda: fuse.rename2(ROOT, "file", ROOT, "new", RENAME_WHITEOUT),
        "LINK": lambda: fuse.link(node, ROOT, "new"),
        "OPEN to write": lambda: fuse.open(node, os.O_WRONLY),
        "OPEN to read and write": lambda: fuse.open(node, os.O_RDWR),
        "OPEN with O_TRUNC": lambda: fuse.open(node, os.O_RDONLY | os.O_TRUNC),
        "OPEN in the fourth way": lambda: fuse.open(node, os.O_ACCMODE),
        "WRITE": lambda: fuse.write(node, fh, 0, b"new"),
        "WRITE of nothing": lambda: fuse.write(node, fh, 0, b""),
        "SETXATTR": lambda: fuse.setxattr(node, "user.new", b"value"),
        "REMOVEXATTR": lambda: fuse.removexattr(node, "user.name"),
        "CREATE": lambda: fuse.create(ROOT, "new"),
        "CREATE of what exists": lambda: fuse.create(ROOT, "file"),
        "CREATE of what exists, to read": lambda: fuse.create(ROOT, "file", flags=os.O_RDONLY),
        "CREATE of what exists, cutting it": lambda: fuse.create(ROOT, "file", flags=os.O_TRUNC),
        "FALLOCATE": lambda: fuse.fallocate(node, fh, 0, 100_000),
        "FALLOCATE of a hole": lambda: fuse.fallocate(node, fh, 0, 4096, 3),
        "COPY_FILE_RANGE": lambda: fuse.copy_file_range(node, fh, 0, node, fh, 5, 4),
    }


def test_every_change_is_refused_and_nothing_changes(guest: Guest) -> None:
    fuse = guest.fuse
    node = fuse.lookup(ROOT, "file").nodeid
    fh = fuse.open(node).fh
    before, root = tree(guest.share), as_host(guest.share, access=False)
    for change, run in changes(fuse, node, fh).items():
        with during(change):
            with refused(errno.EROFS):
                run()
            assert tree(guest.share) == before
            assert as_host(guest.share, access=False) == root


def test_everything_is_read(guest: Guest) -> None:
    fuse, share = guest.fuse, guest.share
    names = {entry.name.decode() for entry in fuse.listdir(plus=True)} - {".", ".."}
    assert names == set(os.listdir(share))
    for name in names:
        entry = fuse.lookup(ROOT, name)
        assert as_guest(entry, access=False) == as_host(share / name, access=False)
        assert as_guest(fuse.getattr(entry.nodeid), access=False) == as_host(share / name, access=False)
    node = fuse.lookup(ROOT, "file").nodeid
    fh = fuse.open(node).fh
    assert fuse.read(node, fh, 0, 100) == b"data of file"
    assert fuse.lseek(node, fh, 0, os.SEEK_HOLE) == 12
    for run in (lambda: fuse.flush(node, fh), lambda: fuse.fsync(node, fh), lambda: fuse.release(node, fh),
                lambda: fuse.access(node, os.R_OK), fuse.statfs, fuse.syncfs):
        run()
    assert fuse.readlink(fuse.lookup(ROOT, "link").nodeid) == b"file"
    assert fuse.lookup(fuse.walk("folder/sub").nodeid, "..").nodeid == fuse.walk("folder").nodeid


def test_attributes_that_are_there_are_read(guest: Guest) -> None:
    try:
        os.setxattr(guest.share / "file", "user.name", b"value")
    except OSError as error:
        pytest.skip(f"this file system has no extended attributes: {error}")
    node = guest.fuse.lookup(ROOT, "file").nodeid
    assert guest.fuse.getxattr(node, "user.name") == b"value"
    assert b"user.name" in guest.fuse.listxattr(node)


def test_changes_by_the_host_are_seen(guest: Guest) -> None:
    node = guest.fuse.lookup(ROOT, "file").nodeid
    fh = guest.fuse.open(node).fh
    (guest.share / "file").write_bytes(b"changed")
    (guest.share / "new").touch()
    assert guest.fuse.read(node, fh, 0, 100) == b"changed"
    assert guest.fuse.lookup(ROOT, "new").attr_size == 0


@pytest.mark.parametrize("name", ["missing", "file", "folder"])
def test_a_bad_request_on_a_read_only_share_is_still_refused(guest: Guest, name: str) -> None:
    before = tree(guest.share)
    for run in (lambda: guest.fuse.rename2(ROOT, name, ROOT, "new", 0xffffffff),
                lambda: guest.fuse.rename(ROOT, name, ROOT, "a/b"), lambda: guest.fuse.unlink(ROOT, "..")):
        with refused(errno.EROFS, errno.EINVAL):
            run()
    assert tree(guest.share) == before
