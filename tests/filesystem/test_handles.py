"""Handles of open files: OPEN and RELEASE, and which handle is good for what."""

import errno
import os
import pathlib
import stat
import subprocess
from collections.abc import Callable

import pytest

from frontend import fuse_abi as abi
from frontend.fuse import FuseClient
from frontend.fuse_abi import Opcode
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, during, error_of, needs_root, opened, refused
from tests.running import Daemon

MIB = 1 << 20


def handle_operations(fuse: FuseClient, nodeid: int, fh: int) -> dict[str, Callable[[], object]]:
    """Everything that is done by the handle of a file."""
    good = opened(fuse, "good")
    return {
        "READ": lambda: fuse.read(nodeid, fh, 0, 4),
        "WRITE": lambda: fuse.write(nodeid, fh, 0, b"xxxx"),
        "FLUSH": lambda: fuse.flush(nodeid, fh),
        "FSYNC": lambda: fuse.fsync(nodeid, fh),
        "FDATASYNC": lambda: fuse.fsync(nodeid, fh, datasync=True),
        "LSEEK": lambda: fuse.lseek(nodeid, fh, 0, os.SEEK_DATA),
        "FALLOCATE": lambda: fuse.fallocate(nodeid, fh, 0, 10_000),
        "COPY_FILE_RANGE from": lambda: fuse.copy_file_range(nodeid, fh, 0, *good, 0, 4),
        "COPY_FILE_RANGE to": lambda: fuse.copy_file_range(*good, 0, nodeid, fh, 0, 4),
        "RELEASE": lambda: fuse.release(nodeid, fh),
    }


@pytest.fixture
def two_files(share: pathlib.Path) -> None:
    for name in ("file", "other", "good"):
        (share / name).write_bytes(b"data of " + name.encode())
    (share / "folder").mkdir()


def refused_by_all(fuse: FuseClient, share: pathlib.Path, nodeid: int, fh: int) -> None:
    before = {path.name: path.read_bytes() for path in share.iterdir() if path.is_file()}
    for operation, run in handle_operations(fuse, nodeid, fh).items():
        with during(operation), refused(errno.EBADF):
            run()
    assert {path.name: path.read_bytes() for path in share.iterdir() if path.is_file()} == before


@pytest.mark.usefixtures("two_files")
def test_invented_handles_are_refused(fuse: FuseClient, share: pathlib.Path) -> None:
    nodeid, fh = opened(fuse, "file")
    for invented in (0, 1, fh + 1, fh + (1 << 32), fh & 0xffffffff, fh | 1 << 63, 0xffffffff, (1 << 64) - 1, 1 << 40):
        refused_by_all(fuse, share, nodeid, invented)
    assert fuse.read(nodeid, fh, 0, 4) == b"data"


@pytest.mark.usefixtures("two_files")
def test_released_handles_are_refused(fuse: FuseClient, share: pathlib.Path) -> None:
    nodeid, fh = opened(fuse, "file")
    fuse.release(nodeid, fh)
    refused_by_all(fuse, share, nodeid, fh)
    again = fuse.open(nodeid, os.O_RDWR).fh
    assert again != fh
    refused_by_all(fuse, share, nodeid, fh)
    assert fuse.read(nodeid, again, 0, 4) == b"data"


@pytest.mark.usefixtures("two_files")
def test_handles_of_another_node_are_refused(fuse: FuseClient, share: pathlib.Path) -> None:
    (nodeid, fh), (other, other_fh) = opened(fuse, "file"), opened(fuse, "other")
    refused_by_all(fuse, share, nodeid, other_fh)
    refused_by_all(fuse, share, other, fh)
    refused_by_all(fuse, share, ROOT, fh)
    assert fuse.read(nodeid, fh, 0, 100) == b"data of file"


@pytest.mark.usefixtures("two_files")
def test_handles_of_directories_are_none_of_files_and_the_other_way_round(fuse: FuseClient,
                                                                         share: pathlib.Path) -> None:
    folder = fuse.lookup(ROOT, "folder").nodeid
    folder_fh = fuse.opendir(folder).fh
    refused_by_all(fuse, share, folder, folder_fh)
    nodeid, fh = opened(fuse, "file")
    for run in (lambda: fuse.readdir(nodeid, fh), lambda: fuse.readdirplus(nodeid, fh),
                lambda: fuse.releasedir(nodeid, fh), lambda: fuse.fsyncdir(nodeid, fh)):
        with refused(errno.EBADF):
            run()
    assert fuse.read(nodeid, fh, 0, 4) == b"data"
    assert fuse.readdir(folder, folder_fh)


@pytest.mark.usefixtures("two_files")
def test_each_open_has_a_handle_of_its_own(fuse: FuseClient, daemon: Daemon) -> None:
    nodeid, first = opened(fuse, "file")
    second = fuse.open(nodeid, os.O_RDWR).fh
    assert first != second and daemon.statistics()["files_open"] == 2
    fuse.release(nodeid, first)
    assert fuse.read(nodeid, second, 0, 4) == b"data"
    assert daemon.statistics()["files_open"] == 1
    fuse.release(nodeid, second)
    assert daemon.statistics()["files_open"] == 0


@pytest.mark.usefixtures("two_files")
def test_release_closes_the_file_and_a_second_one_is_refused(fuse: FuseClient, share: pathlib.Path,
                                                            daemon: Daemon) -> None:
    nodeid, fh = opened(fuse, "file")
    # Besides the descriptor by which the node is known.
    assert daemon.open_files().count(str(share / "file")) == 2
    fuse.release(nodeid, fh)
    assert daemon.open_files().count(str(share / "file")) == 1
    with refused(errno.EBADF):
        fuse.release(nodeid, fh)
    assert daemon.statistics()["files_open"] == 0


def test_release_while_requests_use_the_file_closes_it_after_them(connect: Connect) -> None:
    guest = connect(num_queues=2, queue_size=512)
    fuse = guest.fuse
    (guest.share / "file").write_bytes(b"x" * MIB)
    for _ in range(30):
        nodeid, fh = opened(fuse, "file")
        tickets = [fuse.submit(Opcode.FSYNC, nodeid, abi.FSYNC_IN.pack(fh=fh), queue=2) for _ in range(4)]
        tickets += [fuse.submit(Opcode.READ, nodeid, abi.READ_IN.pack(fh=fh, size=MIB), out_pages=MIB, queue=2)
                    for _ in range(4)]
        fuse.release(nodeid, fh)
        for ticket in tickets:
            reply = fuse.complete(ticket)
            assert error_of(reply) in ("", "EBADF")
            assert reply.error or ticket.opcode != Opcode.READ or reply.data == b"x" * MIB
    guest.daemon.wait_for(files_open=0)
    assert guest.daemon.open_files().count(str(guest.share / "file")) == 1


@pytest.mark.usefixtures("two_files")
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_handles_read_and_write_as_they_were_opened(fuse: FuseClient, flags: int) -> None:
    nodeid, fh = opened(fuse, "file", flags)
    if flags == os.O_WRONLY:
        with refused(errno.EBADF):
            fuse.read(nodeid, fh, 0, 4)
    else:
        assert fuse.read(nodeid, fh, 0, 4) == b"data"
    if flags == os.O_RDONLY:
        for run in (lambda: fuse.write(nodeid, fh, 0, b"x"), lambda: fuse.fallocate(nodeid, fh, 0, 100)):
            with refused(errno.EBADF):
                run()
    else:
        assert fuse.write(nodeid, fh, 0, b"x") == 1


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_open_with_o_trunc_cuts_the_file(fuse: FuseClient, share: pathlib.Path, flags: int) -> None:
    (share / "file").write_bytes(b"data")
    opened(fuse, "file", flags | os.O_TRUNC)
    assert (share / "file").read_bytes() == b""


@needs_root
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC])
def test_nothing_but_files_is_ever_opened(fuse: FuseClient, share: pathlib.Path, daemon: Daemon, flags: int) -> None:
    """To open a fifo could wait for ever, and a device is the host's."""
    (share / "folder").mkdir()
    (share / "target").write_bytes(b"data")
    (share / "link").symlink_to("target")
    os.mkfifo(share / "fifo")
    os.mknod(share / "socket", stat.S_IFSOCK | 0o666)
    os.mknod(share / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(share / "loop", stat.S_IFBLK | 0o666, os.makedev(7, 0))
    for name in ("folder", "link", "fifo", "socket", "null", "loop"):
        with refused(errno.EISDIR if name == "folder" else errno.ENXIO):
            fuse.open(fuse.lookup(ROOT, name).nodeid, flags)
        if name != "folder":
            with refused(errno.ENOTDIR):
                fuse.opendir(fuse.lookup(ROOT, name).nodeid)
            with refused(errno.ENXIO):
                fuse.syncfs(fuse.lookup(ROOT, name).nodeid)     # which opens what it syncs
    assert (share / "target").read_bytes() == b"data"
    assert daemon.statistics()["files_open"] == 0


def test_a_deleted_file_lives_as_long_as_it_is_open(fuse: FuseClient, share: pathlib.Path, file: tuple[int, int],
                                                   data: bytes, daemon: Daemon) -> None:
    fuse.unlink(ROOT, "file")
    assert fuse.read(*file, 0, 100) == data[:100]
    assert fuse.write(*file, 0, b"new") == 3
    again = fuse.open(file[0]).fh       # by node, the name is not needed
    assert fuse.read(file[0], again, 0, 5) == b"new" + data[3:5]
    fuse.release(*file)
    fuse.release(file[0], again)
    fuse.forget(file[0])
    daemon.wait_for(inodes=0, inodes_closing=0)
    assert not any(str(share / "file") in name for name in daemon.open_files())


def test_a_handle_keeps_its_file_when_the_host_replaces_the_name(fuse: FuseClient, share: pathlib.Path,
                                                                file: tuple[int, int], data: bytes) -> None:
    (share / "new").write_bytes(b"new")
    (share / "new").rename(share / "file")
    fuse.write(*file, 0, b"old")
    assert fuse.read(*file, 0, 10) == b"old" + data[3:10]
    assert (share / "file").read_bytes() == b"new"


@needs_root
def test_an_append_only_file_is_appended_to_and_no_more(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "file").write_text("x")
    if subprocess.run(["chattr", "+a", share / "file"], check=False).returncode:
        pytest.skip("the file system has no flags")
    try:
        entry = fuse.lookup(ROOT, "file")
        with refused(errno.EPERM):
            fuse.open(entry.nodeid, os.O_WRONLY)
        with refused(errno.EPERM):
            fuse.setattr(entry.nodeid, size=0)
        handle = fuse.open(entry.nodeid, os.O_WRONLY | os.O_APPEND)
        assert fuse.write(entry.nodeid, handle.fh, 1, b"y") == 1
        assert (share / "file").read_text() == "xy"
        # From the page cache comes the whole page, of which the host has the beginning already.
        assert fuse.write(entry.nodeid, handle.fh, 0, b"xyz", write_flags=abi.FUSE_WRITE_CACHE) == 3
        assert fuse.write(entry.nodeid, handle.fh, 0, b"xy", write_flags=abi.FUSE_WRITE_CACHE) == 2
        assert (share / "file").read_text() == "xyz"
    finally:
        subprocess.run(["chattr", "-a", share / "file"], check=True)
