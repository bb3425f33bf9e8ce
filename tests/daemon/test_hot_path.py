"""No request needs Python: while something else in the process holds the GIL all are answered, as fast as ever."""

import contextlib
import fcntl
import os
import pathlib
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from frontend.device import HIPRIO, REQUEST, VirtioFs
from frontend.fuse import FuseClient, FuseError, Ticket
from frontend.fuse_abi import FSYNC_IN, FUSE_ROOT_ID, Opcode
from tests.running import LONG, SECONDS, Daemon
from virtiofsd._ring.operations import operations

HELD = 10.0 if LONG else 3.0
SLACK = 10                  # how much longer than usual what is done meanwhile may take
QUEUES = (HIPRIO, REQUEST, REQUEST + 1)
SIZE = 1 << 18
FS_IOC_GETFLAGS = 0x80086601
NOT_EVERYWHERE = contextlib.suppress(FuseError)     # not every file system has it; a refusal is an answer, too


class Holder:
    """The other end of what tells the daemon to hold the GIL."""

    def __init__(self, path: pathlib.Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.listener.settimeout(6 * SECONDS)      # a daemon starts

    def accept(self) -> None:
        self.orders = self.listener.accept()[0]
        self.orders.settimeout(SECONDS)

    @contextlib.contextmanager
    def holding(self, device: VirtioFs, seconds: float) -> Iterator[None]:
        """No Python runs in the daemon from the first to the last line of the block: or it fails."""
        self.orders.send(str(seconds).encode())
        assert self.orders.recv(1) == b"<"
        device.connection.send(1)       # GET_FEATURES, for the control plane
        yield
        self.orders.setblocking(False)
        with pytest.raises(BlockingIOError):
            self.orders.recv(1)
        assert not device.connection.readable(), "Python has answered: this test has not tried anything"
        self.orders.settimeout(seconds + SECONDS)
        assert self.orders.recv(1) == b">"
        device.connection.answer(1).close()


@pytest.fixture
def holder(tmp_path: pathlib.Path) -> Iterator[Holder]:
    holder = Holder(tmp_path / "orders")
    with holder.listener:
        yield holder
        holder.orders.close()


@pytest.fixture
def daemon(tmp_path: pathlib.Path, holder: Holder) -> Iterator[Daemon]:
    """A daemon that can be made to hold its GIL. The kernel's list of what it may do does not know of that."""
    if os.environ.get("VIRTIOFSD"):
        pytest.skip("it is this build's own Python that is made to hold its GIL")
    daemon = Daemon([sys.executable, "-m", "tests.daemon.gil_holder", tmp_path / "orders"], tmp_path / "daemon",
                    ["--posix-lock", "--seccomp", "none"])
    daemon.wait_until_it_listens()
    holder.accept()
    yield daemon
    if problems := daemon.finish():
        pytest.fail("\n".join(problems))


class Client(FuseClient):
    """On one queue; it knows which operations it has asked for."""

    def __init__(self, device: VirtioFs, queue: int) -> None:
        super().__init__(device)
        self.queue = queue
        self.asked: set[int] = set()

    def submit(self, opcode: int, nodeid: int, *parts: bytes, **how: Any) -> Ticket:
        self.asked.add(opcode)
        return super().submit(opcode, nodeid, *parts, **how)

    def drop(self, opcode: int, nodeid: int, *parts: bytes, **how: Any) -> None:
        super().drop(opcode, nodeid, *parts, **{"queue": self.queue, **how})


def a_session(fuse: Client, share: pathlib.Path) -> None:
    """Every operation there is, and all are answered as they should be."""
    fuse.init()
    file = fuse.lookup(FUSE_ROOT_ID, "file").nodeid
    fuse.getattr(file)
    fuse.statx(file)
    fuse.setattr(file, mode=0o640)
    fuse.access(file, os.R_OK)
    fuse.statfs()
    use_names(fuse)
    use_a_file(fuse, file, share)
    use_locks(fuse, file)
    fuse.setxattr(file, "user.name", b"value")
    assert fuse.getxattr(file, "user.name", 100) == b"value"
    assert b"user.name" in fuse.listxattr(file, 1000)
    fuse.removexattr(file, "user.name")
    folder = fuse.opendir(FUSE_ROOT_ID).fh
    assert b"file" in [entry.name for entry in fuse.readdir(FUSE_ROOT_ID, folder)]
    assert b"file" in [entry.name for entry in fuse.readdirplus(FUSE_ROOT_ID, folder)]
    fuse.fsyncdir(FUSE_ROOT_ID, folder)
    fuse.releasedir(FUSE_ROOT_ID, folder)
    fuse.syncfs()
    fuse.forget(file)
    fuse.batch_forget([(file, 1)])
    fuse.destroy()


def use_names(fuse: Client) -> None:
    mine = f"queue{fuse.queue}"
    folder = fuse.mkdir(FUSE_ROOT_ID, mine).nodeid
    entry, opened = fuse.create(folder, "created")
    fuse.release(entry.nodeid, opened.fh)
    assert fuse.readlink(fuse.symlink(folder, "symlink", "target").nodeid) == b"target"
    fuse.mknod(folder, "node", 0o100600)
    fuse.link(entry.nodeid, folder, "link")
    fuse.rename(folder, "link", folder, "renamed")
    fuse.rename2(folder, "renamed", folder, "moved", 1)
    with NOT_EVERYWHERE:
        entry, opened = fuse.tmpfile(folder)
        fuse.release(entry.nodeid, opened.fh)
    for name in ("created", "symlink", "node", "moved"):
        fuse.unlink(folder, name)
    fuse.rmdir(FUSE_ROOT_ID, mine)


def use_a_file(fuse: Client, node: int, share: pathlib.Path) -> None:
    """What sleeps too, more of it at once than there are threads that wait for work."""
    fh = fuse.open(node, os.O_RDWR).fh
    assert fuse.write(node, fh, 0, b"data" * 1024) == 4096
    several = [fuse.submit(Opcode.FSYNC, node, FSYNC_IN.pack(fh=fh)) for _ in range(8)]
    for ticket in several:
        assert fuse.complete(ticket).error == 0
    with (share / "file").open("rb") as host:
        os.posix_fadvise(host.fileno(), 0, SIZE, os.POSIX_FADV_DONTNEED)
    assert fuse.read(node, fh, 4096, SIZE) == b"\x07" * (SIZE - 4096)
    assert fuse.lseek(node, fh, 0, os.SEEK_DATA) == 0
    fuse.fallocate(node, fh, 0, 4096)
    fuse.copy_file_range(node, fh, 8192, node, fh, 16384, 4096)
    fuse.copy_file_range(node, fh, 8192, node, fh, 16384, 4096, wide=True)
    with NOT_EVERYWHERE:
        fuse.ioctl(node, fh, FS_IOC_GETFLAGS, out_size=8)
    fuse.flush(node, fh)
    fuse.release(node, fh)


def use_locks(fuse: Client, node: int) -> None:
    """One waits for the other, and a third one waits until it is interrupted."""
    fh = fuse.open(node, os.O_RDWR).fh
    fuse.setlk(node, fh, 1, fcntl.F_WRLCK)
    assert fuse.getlk(node, fh, 2, fcntl.F_RDLCK).type == fcntl.F_WRLCK
    waits, cut_short = (
        fuse.submit(Opcode.SETLKW, node, fuse.lock_body(fh, owner, fcntl.F_WRLCK, 0, 9, 1, False)) for owner in (2, 3))
    while cut_short.used_len is None:
        fuse.interrupt(cut_short.unique)    # which only finds who waits already
        fuse.returned(fuse.queue, 0.01)
    fuse.reply(cut_short)
    fuse.setlk(node, fh, 1, fcntl.F_UNLCK)
    assert fuse.complete(waits).error == 0
    fuse.release(node, fh)


def test_every_operation_is_served_on_every_queue_while_python_stands_still(daemon: Daemon, holder: Holder) -> None:
    (daemon.share / "file").write_bytes(b"\x07" * SIZE)
    with VirtioFs(daemon.socket, num_queues=2) as device:
        clients = [Client(device, queue) for queue in QUEUES]
        rounds, begin = 0, time.monotonic()
        while time.monotonic() - begin < HELD / SLACK:
            for fuse in clients:
                a_session(fuse, daemon.share)
            rounds += 1
        usual = time.monotonic() - begin        # long, where the disk is busy with something else
        for fuse in clients:
            assert fuse.asked == {opcode for opcode, _, _ in operations()}
        with holder.holding(device, max(HELD, SLACK * usual)):
            for _ in range(rounds):
                for fuse in clients:
                    a_session(fuse, daemon.share)
        daemon.wait_for(inodes=0, files_open=0, lock_waits=0)
