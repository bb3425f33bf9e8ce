"""What the tests of the vhost-user side have in common."""

import contextlib
import fcntl
import os
import pathlib
import re
import struct
import termios
import time
from collections.abc import Callable, Iterator, Sequence

from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from frontend.fuse_abi import FSYNC_IN, GETATTR_IN, Opcode
from frontend.fuse_transport import Ticket
from frontend.memory import Region
from frontend.vhost_user import ClosedError, Connection, readable
from tests.running import SECONDS, Daemon
from virtiofsd import vhost_user_abi as abi

MOMENT = 0.02    # long enough for what must not happen to happen nearly always; what must happen is waited for
ALL = abi.VHOST_USER_F_PROTOCOL_FEATURES | 1 << 32 | 1 << 29 | 1 << 28
CLOSED = "the connection is closed: "
GOODBYE = "message 0 has flags 0x0"    # why the daemon ends a connection that is dismissed


def wait_until(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.002)


@contextlib.contextmanager
def talking_to(daemon: Daemon, *, acks: bool = True, protocol_features: int | None = None) -> Iterator[Connection]:
    """A connection that has negotiated all that is offered, with REPLY_ACK or without."""
    with Connection.connect(daemon.socket) as connection:
        connection.get_features()
        offered = connection.get_protocol_features() if protocol_features is None else protocol_features
        connection.set_protocol_features(offered if acks else offered & ~abi.VHOST_USER_PROTOCOL_F_REPLY_ACK)
        connection.set_features(ALL)
        yield connection


@contextlib.contextmanager
def visiting(daemon: Daemon, *, acks: bool = True) -> Iterator[Connection]:
    """As talking_to, but it is the daemon that ends the connection at last, for a reason: it waits for the next one."""
    with talking_to(daemon, acks=acks) as connection:
        yield connection
        dismissed(connection)


def dismissed(connection: Connection) -> None:
    """Has the daemon end the connection, unless it has."""
    with contextlib.suppress(ClosedError):
        connection.send_bytes(bytes(abi.HEADER.size))
        while True:
            connection.recv().close()


def closed(connection: Connection) -> bool:
    """Whether the daemon ends the connection without another word. It has time to."""
    try:
        message = connection.recv()
    except ClosedError:
        return True
    message.close()
    return False


def was_read(connection: Connection) -> None:
    """Waits until the daemon has read all that was sent: what comes next is another piece for it."""
    unread = bytearray(4)

    def all_read() -> bool:
        fcntl.ioctl(connection.socket, termios.TIOCOUTQ, unread)
        return struct.unpack("i", unread)[0] == 0

    wait_until(all_read, "the daemon's reading")


def closing_lines(daemon: Daemon) -> list[str]:
    """Why connections were closed, the lines of the log in order."""
    return [line.partition(CLOSED)[2] for line in daemon.log.splitlines() if CLOSED in line and GOODBYE not in line]


def wait_for_line(daemon: Daemon, pattern: str) -> str:
    """The first line of the log that matches, which is waited for."""
    found: list[str] = []

    def look() -> bool:
        found.extend(line for line in daemon.log.splitlines() if re.search(pattern, line))
        return bool(found)

    wait_until(look, f"a line like {pattern!r}")
    return found[0]


def idle_files(daemon: Daemon) -> list[str]:
    """The daemon's descriptors while it waits for a front-end, once it does."""
    wait_until(lambda: daemon.statistics() == {}, "an idle daemon")
    return daemon.open_files()


def mapped_files(daemon: Daemon) -> list[str]:
    """The daemon's mappings of guest memory: address range and inode of each."""
    maps = pathlib.Path(f"/proc/{daemon.process.pid}/maps").read_text().splitlines()
    fields = [line.split() for line in maps if "memfd:" in line or "guest" in line]
    return [f"{field[0]} {field[4]}" for field in fields]


def resident_bytes(daemon: Daemon) -> int:
    status = pathlib.Path(f"/proc/{daemon.process.pid}/statm").read_text()
    return int(status.split()[1]) * os.sysconf("SC_PAGESIZE")


def region(guest_addr: int, size: int, fd: int, *, user_addr: int | None = None, offset: int = 0) -> Region:
    """A region as a message has it, with nothing mapped here."""
    made = Region.__new__(Region)
    made.guest_addr, made.size, made.mmap_offset, made.fd = guest_addr, size, offset, fd
    made.user_addr = guest_addr if user_addr is None else user_addr
    return made


@contextlib.contextmanager
def memory_file(size: int) -> Iterator[int]:
    fd = os.memfd_create("guest-memory", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def eventfds(count: int = 1) -> Iterator[list[int]]:
    fds = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(count)]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


# Requests

def ask(fuse: FuseClient, *, queue: int = 1, kick: bool = True) -> Ticket:
    """A GETATTR of the root, put into the ring, where it may or may not be served."""
    ticket = fuse.submit(Opcode.GETATTR, 1, GETATTR_IN.pack(), out_size=104, queue=queue, publish=kick)
    if not kick:
        fuse.device.queues[queue].publish()
    return ticket


def ask_for_call(fuse: FuseClient, *, queue: int = 1) -> Ticket:
    """The same, by a driver that waits for a call."""
    fuse.device.queues[queue].arm()
    return ask(fuse, queue=queue)


def submit_fsync(fuse: FuseClient, queue: int = 1, file: str = "file") -> Ticket:
    """Of a file of the root, which is opened for it."""
    node = fuse.lookup(1, file, queue=queue).nodeid
    fh = fuse.open(node, queue=queue).fh
    return fuse.submit(Opcode.FSYNC, node, FSYNC_IN.pack(fh=fh), queue=queue)


def answered(fuse: FuseClient, tickets: Sequence[Ticket]) -> None:
    """Each comes back, and once."""
    for ticket in tickets:
        assert fuse.complete(ticket, exact=104).error == 0


def not_answered(fuse: FuseClient, queue: int = 1) -> None:
    """Nothing comes back, in a moment after the daemon has done all that it was told."""
    fuse.device.connection.get_features()
    time.sleep(MOMENT)
    assert fuse.device.queues[queue].poll() == []


def called(fds: Sequence[int], timeout: float = SECONDS) -> list[int]:
    """Which eventfds are signalled, after waiting for the first; their counts are taken."""
    ready = readable(fds, timeout)
    for fd in ready:
        os.read(fd, 8)
    return ready


def queue_addresses(device: VirtioFs, index: int) -> tuple[int, int, int]:
    """desc, avail, used as user addresses."""
    queue = device.queues[index]
    return tuple(device.memory.user(gpa) for gpa in (queue.desc_gpa, queue.avail_gpa, queue.used_gpa))

