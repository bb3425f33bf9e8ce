"""What the share lies on: file systems with and without file handles, with coarse times, and with fewer abilities."""

import contextlib
import ctypes
import errno
import fcntl
import os
import pathlib
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from frontend.fuse import FuseError
from tests.filesystem.conftest import Connect
from tests.filesystem.support import (
    FILE_SYSTEMS,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    ROOT,
    Guest,
    Mounts,
    as_guest,
    as_host,
    during,
    needs_root,
    refused,
)

pytestmark = needs_root

WAYS = ("prefer", "never")          # --inode-file-handles
VICTIMS, CROWD = 40, 500
SETTLED = 4.0                       # seconds, after which no clock gives a new file the times of an old one
ON_DISK = ("ext4", "old_ext4", "xfs", "btrfs")
FS_IOC_GETFLAGS, FS_IOC_FSGETXATTR = 0x80086601, 0x801c581f
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 0x10

libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, pathlib.Path]]:
    """All kinds, as far as they can be mounted, each with a share of old files for each way to find them again."""
    mounts, found = Mounts(tmp_path_factory.mktemp("kinds")), {}
    try:
        for kind in FILE_SYSTEMS:
            with contextlib.suppress(pytest.skip.Exception):
                found[kind] = mounts.of(kind)
        for root in found.values():
            for way in WAYS:
                for folder, count in (("victims", VICTIMS), ("crowd", CROWD)):
                    (root / way / folder).mkdir(parents=True)
                    for number in range(count):
                        (root / way / folder / str(number)).write_text(str(number))
        time.sleep(SETTLED)
        yield found
    finally:
        mounts.close()


@pytest.fixture(params=FILE_SYSTEMS)
def kind(request: pytest.FixtureRequest, shares: dict[str, pathlib.Path]) -> str:
    if request.param not in shares:
        pytest.skip(f"there is no {request.param} to be had here")
    return str(request.param)


@pytest.fixture
def guest(connect: Connect, shares: dict[str, pathlib.Path], kind: str) -> Guest:
    folder = shares[kind] / secrets.token_hex(4)
    folder.mkdir()
    return connect(share=folder)


# What every file system can

def test_the_share_is_as_the_host_sees_it(guest: Guest) -> None:
    fuse, share = guest.fuse, guest.share
    folder = fuse.mkdir(ROOT, "folder").nodeid
    entry, opened = fuse.create(folder, "file", 0o640, uid=1000, gid=1000)
    content = os.urandom(300_000)
    for offset in range(0, len(content), 100_000):
        fuse.write(entry.nodeid, opened.fh, offset, content[offset:offset + 100_000])
    fuse.fsync(entry.nodeid, opened.fh)
    assert (share / "folder/file").read_bytes() == content
    assert b"".join(fuse.read(entry.nodeid, opened.fh, at, 100_000) for at in range(0, 400_000, 100_000)) == content
    fuse.setattr(entry.nodeid, size=1000, mtime=1_000_000_000.0)
    fuse.release(entry.nodeid, opened.fh)
    fuse.symlink(folder, "symlink", "target")
    fuse.mknod(folder, "fifo", stat.S_IFIFO | 0o600)
    fuse.link(entry.nodeid, ROOT, "link")
    fuse.rename(folder, "file", ROOT, "moved")
    fuse.mkdir(folder, "removed")
    fuse.rmdir(folder, "removed")
    for path in ("folder", "folder/symlink", "folder/fifo", "link", "moved"):
        with during(path):
            found = fuse.walk(path)
            assert as_guest(found, access=False) == as_host(share / path, access=False)
            assert as_guest(fuse.getattr(found.nodeid), access=False) == as_host(share / path, access=False)
    assert fuse.walk("link").nodeid == fuse.walk("moved").nodeid == entry.nodeid
    for plus in (False, True):
        assert sorted(found.name for found in fuse.listdir(folder, plus=plus)) == [b".", b"..", b"fifo", b"symlink"]
    for name in ("link", "moved"):
        fuse.unlink(ROOT, name)
    with refused(errno.ENOENT):
        fuse.lookup(ROOT, "moved")
    assert guest.daemon.statistics()["errors"] == 1


# What not every one can

def checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "the host refuses")


def host_rename(folder: pathlib.Path, one: str, other: str, flags: int) -> None:
    checked(libc.renameat2(-100, os.fsencode(folder / one), -100, os.fsencode(folder / other), flags))


def host_fallocate(path: pathlib.Path, mode: int) -> None:
    with path.open("r+b") as file:
        checked(libc.fallocate(file.fileno(), mode, ctypes.c_long(4096), ctypes.c_long(8192)))


def host_ioctl(path: pathlib.Path, command: int) -> None:
    with path.open("rb") as file:
        fcntl.ioctl(file, command, bytes(28))


def host_tmpfile(folder: pathlib.Path) -> None:
    os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600))


def outcome(run: Callable[[], object]) -> str:
    """The name of its error, "" for none."""
    try:
        run()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def test_what_the_file_system_lacks_is_refused_as_on_the_host(guest: Guest) -> None:
    """But never by ENOSYS, which would tell a guest that no file of the share can do it."""
    fuse, share = guest.fuse, guest.share
    for side in ("guest", "host"):
        (share / side).mkdir()
        for name in ("file", "other", "white"):
            (share / side / name).write_bytes(bytes(20_000))
    folder, beside = fuse.lookup(ROOT, "guest").nodeid, share / "host"
    node, path = fuse.lookup(folder, "file").nodeid, beside / "file"
    fh = fuse.open(node, os.O_RDWR).fh
    both: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "RENAME_EXCHANGE": (lambda: fuse.rename2(folder, "file", folder, "other", RENAME_EXCHANGE),
                            lambda: host_rename(beside, "file", "other", RENAME_EXCHANGE)),
        "RENAME_NOREPLACE": (lambda: fuse.rename2(folder, "file", folder, "other", RENAME_NOREPLACE),
                             lambda: host_rename(beside, "file", "other", RENAME_NOREPLACE)),
        "RENAME_WHITEOUT": (lambda: fuse.rename2(folder, "white", folder, "gone", RENAME_WHITEOUT),
                            lambda: host_rename(beside, "white", "gone", RENAME_WHITEOUT)),
        "TMPFILE": (lambda: fuse.tmpfile(folder), lambda: host_tmpfile(beside)),
        "FSGETXATTR": (lambda: fuse.ioctl(node, fh, FS_IOC_FSGETXATTR, out_size=28),
                       lambda: host_ioctl(path, FS_IOC_FSGETXATTR)),
        "GETFLAGS": (lambda: fuse.ioctl(node, fh, FS_IOC_GETFLAGS, out_size=8),
                     lambda: host_ioctl(path, FS_IOC_GETFLAGS)),
        "user xattr": (lambda: fuse.setxattr(node, "user.name", b"value"),
                       lambda: os.setxattr(path, "user.name", b"value")),
        "trusted xattr": (lambda: fuse.setxattr(node, "trusted.name", b"value"),
                          lambda: os.setxattr(path, "trusted.name", b"value")),
        "device": (lambda: fuse.mknod(folder, "device", stat.S_IFCHR | 0o600, os.makedev(1, 3)),
                   lambda: os.mknod(beside / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))),
    }
    for mode in (0, KEEP_SIZE, KEEP_SIZE | PUNCH_HOLE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE):
        both[f"FALLOCATE {mode}"] = (partial(fuse.fallocate, node, fh, 4096, 8192, mode),
                                     partial(host_fallocate, path, mode))
    for what, (of_guest, of_host) in both.items():
        with during(what):
            expected = outcome(of_host)
            assert outcome(of_guest) == ("EOPNOTSUPP" if expected == "ENOSYS" else expected)


# Who is who

@pytest.mark.parametrize("way", WAYS)
def test_a_recycled_inode_number_is_never_taken_for_the_file_that_had_it(connect: Connect, kind: str, way: str,
                                                                        shares: dict[str, pathlib.Path]) -> None:
    """The guest knows more old files than the daemon can have open when the host replaces some of them."""
    guest = connect("--rlimit-nofile", "256", "--inode-file-handles", way, share=shares[kind] / way)
    fuse, folder = guest.fuse, guest.share / "victims"
    parent, crowd = (fuse.lookup(ROOT, name).nodeid for name in ("victims", "crowd"))
    old = [fuse.lookup(parent, str(number)) for number in range(VICTIMS)]
    for _ in range(2):
        for number in range(CROWD):
            fuse.lookup(crowd, str(number))
    assert guest.daemon.statistics()["descriptors_cached"] < VICTIMS + CROWD
    for number in range(VICTIMS):
        (folder / str(number)).unlink()
    for number in range(VICTIMS):
        (folder / str(number)).write_text(f"new {number}")
    recycled = {entry.attr_ino for entry in old} & {path.stat().st_ino for path in folder.iterdir()}
    assert recycled or "ext4" not in kind, "no number was used twice: nothing was tried"
    # A folder that has changed may be stale where nothing else tells it from another one: guests look again then.
    parent = fuse.lookup(ROOT, "victims").nodeid
    for number, entry in enumerate(old):
        with during(f"file {number}"):
            with contextlib.suppress(FuseError):        # stale; or it is still open, and the file that it was
                attr = fuse.getattr(entry.nodeid)
                assert (attr.attr_nlink, attr.attr_size) == (0, len(str(number)))
            new = fuse.lookup(parent, str(number))
            assert new.nodeid not in {entry.nodeid for entry in old}
            fh = fuse.open(new.nodeid).fh
            assert fuse.read(new.nodeid, fh, 0, 100) == f"new {number}".encode()
            fuse.release(new.nodeid, fh)


def test_what_is_made_after_something_was_removed_works(guest: Guest) -> None:
    """While the guest still knows that."""
    fuse = guest.fuse
    for number in range(20):
        entry, opened = fuse.create(ROOT, f"file{number}")
        assert fuse.write(entry.nodeid, opened.fh, 0, b"data") == 4
        assert fuse.getattr(entry.nodeid).attr_size == fuse.getattr(entry.nodeid, opened.fh).attr_size == 4
        fuse.release(entry.nodeid, opened.fh)
        again = fuse.open(entry.nodeid).fh
        assert fuse.read(entry.nodeid, again, 0, 10) == b"data"
        fuse.release(entry.nodeid, again)
        fuse.unlink(ROOT, f"file{number}")


def test_a_file_that_is_replaced_at_once_is_another_one(guest: Guest) -> None:
    """Within one tick of the coarsest clock, with the guest knowing the old ones, and having forgotten them."""
    seen = {}
    for number in range(60):
        (guest.share / "file").write_text("x" * number)
        entry = guest.fuse.lookup(ROOT, "file")
        assert entry.nodeid not in seen and entry.attr_size == number
        seen[entry.nodeid] = number
        (guest.share / "file").unlink()
        if number % 2:
            guest.fuse.forget(entry.nodeid)
        else:
            with contextlib.suppress(FuseError):
                assert guest.fuse.getattr(entry.nodeid).attr_size == number


# What reaches the disk

def on_disk(image: pathlib.Path, content: bytes) -> bool:
    """Whether it is in one piece in the file that serves as the disk."""
    with image.open("rb") as file:
        end = 0
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:         # only a hole follows
                return False
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            if content in os.pread(file.fileno(), end - start, start):
                return True


@pytest.mark.parametrize("way", ["FSYNC", "FSYNC of the data", "SYNCFS"])
@pytest.mark.parametrize("kind", ON_DISK, indirect=True)
def test_data_is_on_the_disk_when_the_answer_is_there(guest: Guest, kind: str, shares: dict[str, pathlib.Path],
                                                      way: str) -> None:
    fuse, image = guest.fuse, shares[kind].with_suffix(".img")
    entry, opened = fuse.create(ROOT, "file")
    content = os.urandom(4096)
    fuse.write(entry.nodeid, opened.fh, 0, content)
    assert not on_disk(image, content), "it was written by itself: nothing was tried"
    if way == "SYNCFS":
        fuse.syncfs()
    else:
        fuse.fsync(entry.nodeid, opened.fh, datasync="data" in way)
    assert on_disk(image, content)


@pytest.mark.parametrize("option", ["--announce-submounts", "--no-announce-submounts"])
def test_to_sync_the_share_reaches_every_file_system_in_it(connect: Connect, mounts: Mounts, tmp_path: pathlib.Path,
                                                           option: str) -> None:
    """By a directory with a mount, and by a file that is mounted alone, which is no file system to any guest."""
    share, images = tmp_path / "several", []
    share.mkdir()
    for name in ("folder", "behind"):
        made = mounts.image("ext4", 32, name=name)
        (made / "file").touch()
        os.sync()
        images.append(mounts.folder / f"{name}.img")
        mounts.bind(made if name == "folder" else made / "file", share / name)
    guest = connect(option, share=share)
    fuse = guest.fuse
    nodes = (fuse.lookup(fuse.lookup(ROOT, "folder").nodeid, "file").nodeid, fuse.lookup(ROOT, "behind").nodeid)
    content = os.urandom(4096)
    for node in nodes:
        fh = fuse.open(node, os.O_RDWR).fh
        fuse.write(node, fh, 0, content)
        fuse.release(node, fh)
    assert not any(on_disk(image, content) for image in images), "it was written by itself: nothing was tried"
    fuse.syncfs()
    assert all(on_disk(image, content) for image in images)


@pytest.mark.parametrize("kind", ON_DISK, indirect=True)
def test_names_are_on_the_disk_when_the_answer_is_there(guest: Guest, kind: str,
                                                        shares: dict[str, pathlib.Path]) -> None:
    """A journal may cut a name at the edge of a sector: so it has the same in it several times."""
    fuse, image, piece = guest.fuse, shares[kind].with_suffix(".img"), secrets.token_hex(8)
    fh = fuse.opendir(ROOT).fh
    fuse.mkdir(ROOT, piece * 4)
    assert not on_disk(image, piece.encode()), "it was written by itself: nothing was tried"
    fuse.fsyncdir(ROOT, fh)
    assert on_disk(image, piece.encode())
    fuse.releasedir(ROOT, fh)
