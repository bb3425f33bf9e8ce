"""The socket and the file beside it: who may connect, who holds the place, who comes next; and service managers."""

import contextlib
import errno
import fcntl
import grp
import os
import pathlib
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from frontend.fuse_abi import Opcode
from frontend.vhost_user import Connection, readable
from tests.conftest import StartDaemon, program
from tests.daemon.hanging import HangingMount
from tests.daemon.support import (
    CLOSED,
    answered,
    ask,
    dismissed,
    idle_files,
    submit_fsync,
    talking_to,
    wait_for_line,
    wait_until,
)
from tests.running import SECONDS, Daemon
from virtiofsd import vhost_user_abi as abi
from virtiofsd.vhost_user_abi import FrontRequest

ROOT = os.geteuid() == 0
SANDBOXES = ["none", "namespace", "chroot"] if ROOT else ["none"]


@pytest.fixture
def place(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "share").mkdir()
    return tmp_path / "socket"


def words(place: pathlib.Path, *more: str) -> list[str]:
    return [*program(), "--socket-path", str(place), "--shared-dir", str(place.parent / "share"), "--sandbox", "none",
            *more]


def refused(place: pathlib.Path, *more: str) -> str:
    """The reason why a daemon does not start there."""
    result = subprocess.run(words(place, *more), capture_output=True, text=True, timeout=20)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    return result.stderr.removeprefix("virtiofsd: ").removesuffix("\n")


def pid_file(daemon: Daemon) -> pathlib.Path:
    return daemon.socket.with_suffix(".pid")


def is_locked(path: pathlib.Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def some_group() -> grp.struct_group:
    """One that this process may give a file to, another than its own if there is one."""
    usable = [entry for entry in grp.getgrall() if entry.gr_gid != os.getegid()
              and (ROOT or entry.gr_gid in os.getgroups())]
    return usable[0] if usable else grp.getgrgid(os.getegid())


# Who may connect

def test_without_a_group_the_socket_is_its_owner_s_alone(daemon: Daemon) -> None:
    info = daemon.socket.stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o700, os.geteuid(), os.getegid())


def test_a_group_may_connect_to_a_socket_that_is_given_to_it(start_daemon: StartDaemon) -> None:
    group = some_group()
    daemon = start_daemon("--socket-group", group.gr_name)
    wait_until(lambda: stat.S_IMODE(daemon.socket.stat().st_mode) == 0o770, "the mode")
    assert daemon.socket.stat().st_gid == group.gr_gid
    assert stat.S_IMODE(pid_file(daemon).stat().st_mode) == 0o600


def test_a_group_that_is_not_there_is_named_before_there_is_a_socket(place: pathlib.Path) -> None:
    for name in ("no-such-group", "12345678"):
        assert refused(place, "--socket-group", name) == f"--socket-group {name}: there is no such group"
    assert [path.name for path in place.parent.iterdir()] == ["share"]


@pytest.mark.skipif(ROOT, reason="root may give files to any group")
def test_a_group_that_may_not_be_given_the_socket_leaves_none(place: pathlib.Path) -> None:
    other = next(entry for entry in grp.getgrall() if entry.gr_gid not in (*os.getgroups(), os.getegid()))
    assert refused(place, "--socket-group", other.gr_name) == \
        f"--socket-group {other.gr_name}: giving it {place}: Operation not permitted"
    assert [path.name for path in place.parent.iterdir()] == ["share"]


# Who holds the place

@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_the_file_beside_the_socket_names_the_process_and_is_locked_while_it_lives(
        start_daemon: StartDaemon, sandbox: str) -> None:
    daemon = start_daemon("--sandbox", sandbox)
    path = pid_file(daemon)
    assert path.read_text() == f"{daemon.process.pid}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert is_locked(path)
    with VirtioFs(daemon.socket) as device:
        FuseClient(device).init()
        assert is_locked(path)
    assert daemon.process.wait(SECONDS) == 0
    assert not path.exists()


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_whoever_finds_the_id_in_the_file_ends_the_daemon_by_it(start_daemon: StartDaemon, sandbox: str) -> None:
    daemon = start_daemon("--sandbox", sandbox)
    with VirtioFs(daemon.socket) as device:
        FuseClient(device).init()
        os.kill(int(pid_file(daemon).read_text()), signal.SIGTERM)
        assert daemon.process.wait(SECONDS) == 0
    assert not daemon.socket.exists()


def test_what_a_killed_daemon_left_is_taken_over(place: pathlib.Path) -> None:
    path = place.with_suffix(".pid")
    path.write_text("1234567890123\n")
    for _ in range(2):
        daemon = subprocess.Popen(words(place), stderr=subprocess.DEVNULL)
        wait_until(lambda: place.exists() and path.exists() and is_locked(path), "the daemon's start")
        with Connection.connect(place) as connection:
            connection.get_features()
            assert path.read_text() == f"{daemon.pid}\n"
        daemon.kill()
        daemon.wait()


def test_a_place_that_another_holds_is_left_alone(place: pathlib.Path) -> None:
    """Also while that one has no socket yet."""
    path = place.with_suffix(".pid")
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert refused(place) == f"--socket-path {place}: another process serves there, which holds {path}"
    assert path.read_text() == ""
    assert not place.exists()


def test_two_daemons_that_start_at_once_do_not_both_serve(place: pathlib.Path) -> None:
    daemons = [subprocess.Popen(words(place), stderr=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        wait_until(lambda: sum(daemon.poll() is None for daemon in daemons) == 1, "one winner")
        [winner] = [daemon for daemon in daemons if daemon.poll() is None]
        wait_until(place.exists, "the socket")
        with VirtioFs(place) as device:
            FuseClient(device).init()
        assert winner.wait(SECONDS) == 0
        assert all(daemon.returncode == 1 for daemon in daemons if daemon is not winner)
    finally:
        for daemon in daemons:
            daemon.kill()
            daemon.communicate()


def test_a_link_in_place_of_the_file_is_not_followed(place: pathlib.Path) -> None:
    target = place.parent / "precious"
    target.write_text("data")
    path = place.with_suffix(".pid")
    path.symlink_to(target)
    assert refused(place) == f"--socket-path {place}: {path}: {os.strerror(errno.ELOOP)}"
    assert target.read_text() == "data"


def test_a_start_that_fails_leaves_no_file(place: pathlib.Path) -> None:
    place.touch()
    assert refused(place) == f"--socket-path {place}: what is there is no socket, and left alone"
    assert sorted(path.name for path in place.parent.iterdir()) == ["share", "socket"]


def test_a_file_that_cannot_be_written_is_not_left(place: pathlib.Path) -> None:
    result = subprocess.run(["prlimit", "--fsize=0", *program(), "--socket-path", place, "--shared-dir",
                             place.parent / "share"], capture_output=True, text=True, timeout=20)
    assert (result.returncode, result.stderr) == (
        1, f"virtiofsd: --socket-path {place}: {place}.pid: File too large\n")
    assert sorted(path.name for path in place.parent.iterdir()) == ["share"]


def test_the_file_of_another_is_not_removed_at_the_end(daemon: Daemon) -> None:
    idle_files(daemon)
    path = pid_file(daemon)
    path.unlink()
    path.write_text("1\n")
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(SECONDS) == 0
    assert path.read_text() == "1\n"


# Who comes next

def test_a_daemon_that_keeps_listening_serves_one_front_end_after_the_other(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--keep-listening")
    daemon.expected = [CLOSED]
    files = None
    for number in range(3):
        with VirtioFs(daemon.socket) as device:
            fuse = FuseClient(device)
            fuse.init()
            fuse.mkdir(1, f"directory{number}")
            assert len(list(daemon.share.iterdir())) == number + 1
        now = idle_files(daemon)
        assert files in (None, now)
        files = now
    with talking_to(daemon) as connection:
        dismissed(connection)
    with VirtioFs(daemon.socket) as device:
        FuseClient(device).init()
    assert daemon.log.count("the front-end has disconnected") >= 3
    idle_files(daemon)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(SECONDS) == 0
    assert not daemon.socket.exists()


@contextlib.contextmanager
def hanging_fsync(hanging: HangingMount, daemon: Daemon) -> Iterator[VirtioFs]:
    """A front-end whose request hangs, until it leaves."""
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        submit_fsync(fuse)
        hanging.wait_for_held()
        yield device


def test_requests_that_hang_do_not_keep_the_next_front_end_out(
        hanging: HangingMount, start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--keep-listening", "--drain-timeout", "0.5", share=hanging.path)
    daemon.expected = ["ending the device"]
    with VirtioFs(daemon.socket) as device:
        FuseClient(device).init()
    before = idle_files(daemon)
    with hanging.hang(Opcode.FSYNC):
        with hanging_fsync(hanging, daemon):
            pass
        with VirtioFs(daemon.socket) as device:
            fuse = FuseClient(device)
            fuse.init()
            answered(fuse, [ask(fuse)])
    wait_for_line(daemon, "ending the device: FSYNC .* not ended after")
    wait_for_line(daemon, "what hung .* has come to its end")
    assert idle_files(daemon) == before, "what the front-end had is freed"


def test_signals_find_no_thread_but_the_first(hanging: HangingMount, start_daemon: StartDaemon) -> None:
    """It holds them back when it ends, and another that took one then would end the process at once."""
    daemon = start_daemon("--sandbox", "none", "--keep-listening", "--drain-timeout", "0.5", share=hanging.path)
    daemon.exit_status = 1
    daemon.expected = ["requests hang", "ending the device"]
    sent = sum(1 << number - 1 for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1))
    with hanging.hang(Opcode.FLUSH):
        with VirtioFs(daemon.socket) as device:
            fuse = FuseClient(device)
            fuse.init()
            fuse.open(fuse.lookup(1, "file").nodeid)
            with_guest = daemon.blocked_signals()
        hanging.wait_for_held()
        for threads in (with_guest, daemon.blocked_signals()):
            assert threads.pop(daemon.process.pid) & sent == 0
            assert threads
            assert all(blocked & sent == sent for blocked in threads.values())
        daemon.process.send_signal(signal.SIGTERM)
        wait_for_line(daemon, "the process ends without them")


@pytest.mark.parametrize("when", ["it is opened", "its last file is closed"])
def test_a_share_that_hangs_does_not_keep_a_signal_from_ending_the_daemon(
        hanging: HangingMount, start_daemon: StartDaemon, when: str) -> None:
    daemon = start_daemon("--keep-listening", "--drain-timeout", "0.5", share=hanging.path)
    daemon.exit_status = 1
    daemon.expected = ["requests hang", "ending the device"]
    if when == "it is opened":
        with hanging.hang(Opcode.GETATTR, Opcode.LOOKUP, Opcode.STATFS), Connection.connect(daemon.socket):
            hanging.wait_for_held()
            daemon.process.send_signal(signal.SIGTERM)
            wait_for_line(daemon, "the process ends without them")
    else:
        with hanging.hang(Opcode.FLUSH):
            with VirtioFs(daemon.socket) as device:
                fuse = FuseClient(device)
                fuse.init()
                fuse.open(fuse.lookup(1, "file").nodeid)
            hanging.wait_for_held()
            daemon.process.send_signal(signal.SIGTERM)
            wait_for_line(daemon, "the process ends without them")
    assert daemon.process.wait(SECONDS) == 1     # the kernel does not end what a FUSE server has yet to answer


def test_a_front_end_that_leaves_while_a_request_hangs_is_noticed_though_more_was_sent(
        hanging: HangingMount, start_daemon: StartDaemon) -> None:
    """Nobody reads what it has sent last."""
    daemon = start_daemon("--keep-listening", share=hanging.path)
    daemon.expected = ["ending the device"]
    with hanging.hang(Opcode.FSYNC):
        with hanging_fsync(hanging, daemon) as device:
            for request in (FrontRequest.GET_VRING_BASE, FrontRequest.GET_VRING_BASE):
                device.connection.send(request, abi.VRING_STATE.pack(index=1))
        wait_for_line(daemon, "the front-end has disconnected")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_standard_descriptors_that_are_closed_are_no_trouble(place: pathlib.Path, closed: tuple[int, ...],
                                                            sandbox: str) -> None:
    redirections = " ".join(f"{fd}>&-" for fd in closed)
    daemon = subprocess.Popen(["sh", "-c", f'exec "$@" {redirections}', "sh", *words(place, "--sandbox", sandbox)])
    try:
        with VirtioFs(place) as device:
            FuseClient(device).init()
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(SECONDS) == 0
    finally:
        daemon.kill()
        daemon.wait()


def test_requests_in_flight_are_answered_before_the_daemon_ends(
        hanging: HangingMount, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(share=hanging.path)
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        with hanging.hang(Opcode.FSYNC):
            ticket = submit_fsync(fuse)
            hanging.wait_for_held()
            daemon.process.send_signal(signal.SIGTERM)
            assert not device.connection.readable(0.3), "it is gone, or its connection"
        assert daemon.process.wait(SECONDS) == 0
        assert fuse.complete(ticket).error == 0


# Service managers

class Manager:
    """Listens as systemd does where services are to notify it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(address.replace("@", "\0", 1))
        self.socket.settimeout(SECONDS)

    def next(self) -> tuple[str, int]:
        """A message, and the process that sent it."""
        data, controls, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(12))
        return data.decode(), int.from_bytes(controls[0][2][:4], sys.byteorder)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify") if request.param == "path" else f"@virtiofsd-test-{os.getpid()}")
    with made.socket:
        yield made


def start_notifying(manager: Manager, place: pathlib.Path, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(words(place, *more), stderr=subprocess.DEVNULL,
                            env={**os.environ, "NOTIFY_SOCKET": manager.address})


@pytest.mark.parametrize("sandbox", SANDBOXES)
@pytest.mark.parametrize("signalled", [True, False], ids=["SIGTERM", "disconnected"])
def test_a_service_manager_hears_of_ready_and_of_the_end(
        manager: Manager, place: pathlib.Path, sandbox: str, signalled: bool) -> None:
    """From the process that it started, as NotifyAccess=main wants it, in every sandbox."""
    daemon = start_notifying(manager, place, "--sandbox", sandbox)
    try:
        assert manager.next() == (f"READY=1\nMAINPID={daemon.pid}", daemon.pid)
        with VirtioFs(place) as device:
            FuseClient(device).init()
            for harmless in (signal.SIGUSR1, signal.SIGHUP):
                daemon.send_signal(harmless)
            assert not readable([manager.socket.fileno()], 0.1)
            if signalled:
                daemon.send_signal(signal.SIGTERM)
                assert daemon.wait(SECONDS) == 0
        assert daemon.wait(SECONDS) == 0
        assert manager.next() == ("STOPPING=1", daemon.pid)
        manager.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.next()
    finally:
        daemon.kill()
        daemon.wait()


@pytest.mark.skipif(not ROOT, reason="the sandbox takes root")
@pytest.mark.parametrize("moment", [0.0, 0.3], ids=["", "before its parent waits"])
def test_a_daemon_that_ends_in_its_sandbox_was_never_ready(
        manager: Manager, place: pathlib.Path, moment: float) -> None:
    code = f"""
import os, sys, time
from virtiofsd import cli, sandbox, service_manager
class Manager(service_manager.ServiceManager):
    def wait_for_child(self):
        time.sleep({moment})
        super().wait_for_child()
service_manager.ServiceManager = Manager
sandbox.enter_new_root = lambda *_: sys.exit(5)
sys.exit(cli.main())
"""
    daemon = subprocess.run([sys.executable, "-c", code, *words(place, "--sandbox", "namespace")[len(program()):]],
                            env={**os.environ, "NOTIFY_SOCKET": manager.address}, timeout=20)
    assert daemon.returncode == 5
    assert manager.next()[0] == "STOPPING=1"
    assert not place.exists()


def test_a_service_manager_that_is_not_there_is_no_trouble(place: pathlib.Path) -> None:
    for address in ("/no/such/socket", "vsock:2:1234", "@nobody-listens-here", ""):
        daemon = subprocess.Popen(words(place), stderr=subprocess.DEVNULL,
                                  env={**os.environ, "NOTIFY_SOCKET": address})
        with VirtioFs(place) as device:
            FuseClient(device).init()
        assert daemon.wait(SECONDS) == 0


ACTIVATED = """
import os, sys
fd, pid, count = (int(sys.argv.pop(1)) for _ in range(3))
os.dup2(fd, 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(pid or os.getpid()), LISTEN_FDS=str(count))
os.execv(sys.argv[1], sys.argv[1:])
"""


def activate(fd: int, pid: int, count: int, *more: str) -> subprocess.Popen[str]:
    """As systemd starts the service of a socket: the process that it makes is the daemon itself. 0: its own pid."""
    return subprocess.Popen([sys.executable, "-c", ACTIVATED, str(fd), str(pid), str(count), *program(), *more],
                            pass_fds=[fd], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("more", [[], ["--fd", "3"]], ids=["", "--fd"])
def test_a_socket_of_socket_activation_is_served(place: pathlib.Path, more: list[str]) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        daemon = activate(listener.fileno(), 0, 1, "--shared-dir", str(place.parent / "share"), "--sandbox", "none",
                          *more)
        with VirtioFs(place) as device:
            FuseClient(device).init()
        daemon.communicate(timeout=SECONDS)
        assert daemon.returncode == 0
        assert place.exists()


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="there is no systemd")
@pytest.mark.parametrize("more", [[], ["--fd", "3", "--no-announce-submounts"]], ids=["", "as vmspawn has it"])
def test_systemd_starts_a_daemon_for_the_front_end_that_connects(place: pathlib.Path, more: list[str]) -> None:
    command = [*program(), "--shared-dir", str(place.parent / "share"), "--xattr", "--sandbox", "none", *more]
    activator = subprocess.Popen(["systemd-socket-activate", "--listen", str(place), "--setenv=PATH",
                                  shutil.which(command[0]) or command[0], *command[1:]], stderr=subprocess.DEVNULL)
    try:
        wait_until(place.exists, "the socket")
        with VirtioFs(place) as device:
            FuseClient(device).init()
        assert activator.wait(SECONDS) == 0
    finally:
        activator.kill()
        activator.wait()


def test_sockets_that_are_somebody_else_s_or_too_many_are_not_taken(place: pathlib.Path) -> None:
    share = ["--shared-dir", str(place.parent / "share")]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        for pid, count, why in ((os.getpid(), 1, "one of --socket-path and --fd is needed"),
                                (0, 0, "one of --socket-path and --fd is needed"),
                                (0, 2, "2 sockets were handed over (LISTEN_FDS), and one share has one")):
            daemon = activate(listener.fileno(), pid, count, *share)
            _, complaint = daemon.communicate(timeout=SECONDS)
            assert (daemon.returncode, complaint) == (2, f"virtiofsd: {why}\n")
