"""The process: how it starts, what it refuses to start with, and how it ends, whatever it is doing."""

import errno
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient, FuseError
from frontend.fuse_abi import Opcode
from frontend.load import Generator
from frontend.memory import RegionSpec
from frontend.operations import getattr_op
from frontend.vhost_user import Connection
from tests.conftest import StartDaemon, program
from tests.daemon.hanging import HangingMount
from tests.daemon.support import (
    CLOSED,
    MOMENT,
    answered,
    ask,
    closed,
    dismissed,
    idle_files,
    resident_bytes,
    submit_fsync,
    talking_to,
    visiting,
    wait_until,
)
from tests.running import SECONDS, Daemon
from virtiofsd import vhost_user_abi as abi
from virtiofsd.vhost_user_abi import FrontRequest


def run(*words: str | pathlib.Path, **how: object) -> subprocess.CompletedProcess[str]:
    """A daemon that is expected not to start."""
    return subprocess.run([*program(), *map(str, words)], capture_output=True, text=True, timeout=20, **how)


def refuses(result: subprocess.CompletedProcess[str], option: object, why: str) -> None:
    """One line that names the option and its value, and the status of a failure."""
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"virtiofsd: {option}: {why}\n"


def ended(daemon: Daemon, status: int = 0) -> None:
    assert daemon.process.wait(SECONDS) == status
    assert not daemon.socket.exists()


# Starting

@pytest.fixture
def place(tmp_path: pathlib.Path) -> Callable[[], pathlib.Path]:
    """The socket's path; a daemon that did not start must have left nothing there."""
    (tmp_path / "share").mkdir()
    return tmp_path / "socket"


def test_a_share_that_cannot_be_used_is_named_before_there_is_a_socket(place: pathlib.Path) -> None:
    file = place.parent / "file"
    file.touch()
    for share, why in ((place.parent / "absent", "No such file or directory"), (file, "Not a directory"),
                       ("/" + "x" * 300, "File name too long"), (f"{file}/below", "Not a directory")):
        refuses(run("--socket-path", place, "--shared-dir", share), f"--shared-dir {share}", why)
        assert not place.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make every sandbox")
@pytest.mark.parametrize("mode", ["namespace", "chroot", "none"])
def test_a_share_may_be_named_from_the_working_directory(place: pathlib.Path, mode: str) -> None:
    share = place.parent / "share"
    (share / "file").touch()
    for name in (".", "../share/."):
        daemon = subprocess.Popen([*program(), "--socket-path", place, "--shared-dir", name, "--sandbox", mode],
                                  cwd=share)
        with VirtioFs(place) as device:
            fuse = FuseClient(device)
            fuse.init()
            fuse.lookup(1, "file")
        assert daemon.wait(SECONDS) == 0


def test_a_share_without_file_handles_is_refused_where_they_must_be_used(place: pathlib.Path) -> None:
    result = run("--socket-path", place, "--shared-dir", "/proc", "--inode-file-handles", "mandatory")
    refuses(result, "--inode-file-handles mandatory",
            "files of the share cannot be opened by handle: Operation not supported")
    assert not place.exists()


def test_a_kernel_that_is_too_old_is_refused(place: pathlib.Path) -> None:
    disguise = ["setarch", "--uname-2.6"]
    release = subprocess.run([*disguise, "uname", "-r"], capture_output=True, text=True, check=True).stdout.strip()
    result = subprocess.run([*disguise, *program(), "--socket-path", place, "--shared-dir", place.parent / "share"],
                            capture_output=True, text=True, timeout=20)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"virtiofsd: Linux 5.10 or newer is needed; this is {release}\n"
    assert not place.exists()


def test_errors_of_the_start_are_told_whatever_the_log_level(place: pathlib.Path) -> None:
    refuses(run("--socket-path", place, "--shared-dir", "/absent", "--log-level", "off"),
            "--shared-dir /absent", "No such file or directory")


def test_help_that_cannot_be_written_is_told() -> None:
    with open("/dev/full", "w", encoding="ascii") as full:
        result = subprocess.run([*program(), "--help"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=SECONDS)
    assert (result.returncode, result.stderr) == (1, "virtiofsd: standard output: No space left on device\n")


def test_a_place_where_no_socket_can_be_is_named(place: pathlib.Path) -> None:
    share = place.parent / "share"
    file = place.parent / "file"
    file.touch()
    for path, why in ((place.parent / "absent" / "socket", "No such file or directory"),
                      (file, "what is there is no socket, and left alone"),
                      (share, "what is there is no socket, and left alone"),
                      (file / "socket", "Not a directory")):
        refuses(run("--socket-path", path, "--shared-dir", share), f"--socket-path {path}", why)
    assert file.is_file()
    assert share.is_dir()


def test_a_socket_that_somebody_listens_on_is_left_alone(daemon: Daemon) -> None:
    """Nor is the daemon there disturbed, which a look at the socket must not take for a front-end."""
    there = f"another process serves there, which holds {daemon.socket}.pid"
    for _ in range(3):
        refuses(run("--socket-path", daemon.socket, "--shared-dir", daemon.share), f"--socket-path {daemon.socket}",
                there)
    with VirtioFs(daemon.socket) as device:
        refuses(run("--socket-path", daemon.socket, "--shared-dir", daemon.share), f"--socket-path {daemon.socket}",
                there)
        fuse = FuseClient(device)
        fuse.init()
        answered(fuse, [ask(fuse)])


def test_a_busy_socket_whose_queue_is_full_is_not_waited_for(place: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(place))
        busy.listen(0)
        first.connect(str(place))
        refuses(run("--socket-path", place, "--shared-dir", place.parent), f"--socket-path {place}",
                "another process listens there")


def test_a_socket_that_nobody_listens_on_any_more_is_replaced(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    daemon.process.kill()
    daemon.process.wait()
    daemon.exit_status = -signal.SIGKILL
    assert daemon.socket.is_socket()
    second = subprocess.Popen([*program(), "--socket-path", str(daemon.socket), "--shared-dir", str(daemon.share)])
    try:
        with Connection.connect(daemon.socket) as connection:
            assert connection.get_features()
        assert second.wait(SECONDS) == 0
    finally:
        second.kill()
        second.wait()


def test_a_socket_of_another_is_not_removed_at_the_end(daemon: Daemon) -> None:
    idle_files(daemon)    # by now it knows its own
    daemon.socket.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(daemon.socket))
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(SECONDS) == 0
        assert daemon.socket.is_socket()


def test_only_who_runs_the_daemon_may_connect(daemon: Daemon) -> None:
    assert daemon.socket.stat().st_mode & 0o077 == 0


# A socket that is handed over

def test_a_listening_socket_that_is_handed_over_is_served_and_left(place: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        fd = listener.fileno()
        daemon = subprocess.Popen([*program(), "--fd", str(fd), "--shared-dir", str(place.parent)], pass_fds=[fd])
        with VirtioFs(place) as device:
            FuseClient(device).init()
        assert daemon.wait(SECONDS) == 0
        assert place.is_socket()


def test_a_listening_socket_that_is_shut_down_ends_the_daemon(place: pathlib.Path) -> None:
    """As somebody does who has handed it over and does not start the virtual machine after all."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        fd = listener.fileno()
        daemon = subprocess.Popen([*program(), "--fd", str(fd), "--shared-dir", str(place.parent), "--sandbox", "none"],
                                  pass_fds=[fd], stderr=subprocess.PIPE, text=True)
        assert daemon.stderr
        with daemon.stderr as log:
            assert any("Waiting for vhost-user socket connection..." in line for line in log)
            listener.shutdown(socket.SHUT_RDWR)
            assert daemon.wait(SECONDS) == 1
            assert log.read().splitlines()[-1].endswith(
                "the listening socket was shut down: nobody can connect any more")


def test_what_is_no_listening_socket_is_refused_by_number(place: pathlib.Path) -> None:
    stream, packets = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    tcp, (ours, theirs) = socket.socket(), socket.socketpair()
    with stream, packets, tcp, ours, theirs, open(os.devnull) as null:
        packets.bind(str(place))
        packets.listen()
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        no_listener = "it is not a listening UNIX stream socket"
        for fd, why in ((stream.fileno(), no_listener), (packets.fileno(), no_listener), (tcp.fileno(), no_listener),
                        (ours.fileno(), no_listener), (null.fileno(), "Socket operation on non-socket")):
            refuses(run("--fd", str(fd), "--shared-dir", place.parent, pass_fds=[fd]), f"--fd {fd}", why)
        refuses(run("--fd", "99", "--shared-dir", place.parent), "--fd 99", "Bad file descriptor")


# The limit of open files

def limit_of(daemon: Daemon) -> tuple[int, int]:
    line = next(line for line in pathlib.Path(f"/proc/{daemon.process.pid}/limits").read_text().splitlines()
                if line.startswith("Max open files"))
    soft, hard = line.split()[3:5]
    return int(soft), int(hard)


def test_the_limit_of_open_files_becomes_what_is_asked_for(start_daemon: StartDaemon) -> None:
    assert limit_of(start_daemon("--rlimit-nofile", "500"))[0] == 500


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be(start_daemon: StartDaemon) -> None:
    soft, hard = limit_of(start_daemon())
    assert soft == 1_000_000 or soft == hard


def test_the_limit_of_open_files_may_be_left_alone(start_daemon: StartDaemon) -> None:
    assert limit_of(start_daemon("--rlimit-nofile", "0")) == resource.getrlimit(resource.RLIMIT_NOFILE)


def test_a_limit_of_open_files_that_cannot_be_is_named(place: pathlib.Path) -> None:
    share = ["--socket-path", place, "--shared-dir", place.parent]
    refuses(run(*share, "--rlimit-nofile", str(1 << 30)), f"--rlimit-nofile {1 << 30}",
            f"the limit is {resource.getrlimit(resource.RLIMIT_NOFILE)[1]}, and may not be raised")
    result = run(*share, "--rlimit-nofile", "0",
                 preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)))
    assert result.returncode == 1
    assert "RLIMIT_NOFILE" in result.stderr
    assert not place.exists()


def test_a_guest_with_all_its_files_open_holds_up_no_message(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--rlimit-nofile", "256")
    (daemon.share / "file").touch()
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        node = fuse.lookup(1, "file").nodeid
        with pytest.raises(FuseError) as caught:
            for _ in range(256):
                fuse.open(node)
        assert caught.value.errno == errno.ENFILE
        for number in range(10):
            device.remove_memory(device.add_memory(RegionSpec((1 << 32) + (number << 20), 1 << 20)))
            device.ring_call(1)
            device.stop()
            device.start()
        answered(fuse, [ask(fuse)])


# The order

def test_the_socket_listens_before_anything_heavy_is_imported(place: pathlib.Path) -> None:
    code = """
import socket, sys
class Listening(socket.socket):
    __slots__ = ()
    def listen(self, *backlog):
        super().listen(*backlog)
        print([name for name in sys.modules if name.startswith(("uvloop", "asyncio", "virtiofsd._ring."))
               and name != "virtiofsd._ring.settings"])    # plain Python, and short
        raise SystemExit(0)
socket.socket = Listening
from virtiofsd.cli import main
main()
"""
    result = subprocess.run([sys.executable, "-c", code, "--socket-path", place, "--shared-dir", place.parent],
                            capture_output=True, text=True, timeout=20)
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_a_signal_that_comes_while_the_daemon_starts_is_not_lost(place: pathlib.Path) -> None:
    """Sent at the moment when the socket is there and nobody handles signals yet."""
    code = """
import os, signal, socket, sys
class Listening(socket.socket):
    __slots__ = ()
    def listen(self, *backlog):
        super().listen(*backlog)
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIG{name})
socket.socket = Listening
from virtiofsd.cli import main
sys.exit(main())
"""
    for name in ("TERM", "INT"):
        result = subprocess.run(
            [sys.executable, "-c", code.replace("{name}", name), "--socket-path", place, "--shared-dir", place.parent],
            capture_output=True, text=True, timeout=20)
        assert result.returncode == 0
        assert "asked to end" in result.stderr
        assert "Traceback" not in result.stderr
        assert not place.exists()


# Ending

@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make every sandbox")
@pytest.mark.parametrize("mode", ["namespace", "chroot"])
def test_a_daemon_in_a_sandbox_ends_as_one_without(start_daemon: StartDaemon, mode: str) -> None:
    for signalled in (True, False):
        daemon = start_daemon("--sandbox", mode)
        (daemon.share / "file").touch()
        with VirtioFs(daemon.socket, profile="uml" if signalled else "qemu") as device:
            fuse = FuseClient(device)
            fuse.init()
            fuse.lookup(1, "file")
            device.stop()
            device.start()
            answered(fuse, [ask(fuse)])
            if signalled:
                daemon.process.send_signal(signal.SIGTERM)
                ended(daemon)
        ended(daemon)


@pytest.fixture(params=[signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def ending(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    return request.param


def test_an_idle_daemon_ends_when_it_is_told_to(daemon: Daemon, ending: signal.Signals) -> None:
    daemon.process.send_signal(ending)
    ended(daemon)


def test_a_connected_daemon_ends_when_it_is_told_to(daemon: Daemon, ending: signal.Signals) -> None:
    with VirtioFs(daemon.socket) as device:
        FuseClient(device).init()
        daemon.process.send_signal(ending)
        ended(daemon)
        assert closed(device.connection)


def test_a_daemon_under_load_ends_when_it_is_told_to(daemon: Daemon, ending: signal.Signals) -> None:
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        generator = Generator(device.queues[1], [getattr_op(1)], depth=16)
        runner = threading.Thread(target=generator.run, kwargs={"seconds": 60.0, "timeout": 0.1})
        runner.start()
        wait_until(lambda: device.queues[1].used_idx > 100, "some load")
        daemon.process.send_signal(ending)
        ended(daemon)
        generator.stop()
        runner.join()


def test_a_daemon_that_is_told_to_end_twice_ends_once(hanging: HangingMount, start_daemon: StartDaemon) -> None:
    """The second signal meets it while it waits for the last requests, which then end."""
    daemon = start_daemon(share=hanging.path)
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        with hanging.hang(Opcode.FSYNC):
            submit_fsync(fuse)
            hanging.wait_for_held()
            for _ in range(2):
                daemon.process.send_signal(signal.SIGTERM)
                assert not device.connection.readable(0.1) or closed(device.connection)
        ended(daemon)


def test_a_daemon_ends_with_its_front_end(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket) as device:
        FuseClient(device).init()
    ended(daemon)


def test_a_front_end_that_leaves_in_the_middle_of_its_set_up_ends_the_daemon_too(daemon: Daemon) -> None:
    with talking_to(daemon) as connection:
        connection.get_features()
    ended(daemon)


def test_a_connection_without_a_word_is_no_front_end(daemon: Daemon) -> None:
    for _ in range(3):
        with Connection.connect(daemon.socket):
            pass
    with VirtioFs(daemon.socket) as device:
        FuseClient(device).init()


def test_the_next_front_end_waits_for_its_turn(daemon: Daemon) -> None:
    daemon.expected = [CLOSED]
    with visiting(daemon) as first, Connection.connect(daemon.socket) as second:
        second.send(FrontRequest.GET_FEATURES)
        first.get_features()
        assert not second.readable(MOMENT)
        dismissed(first)
        assert second.answer(FrontRequest.GET_FEATURES).value


def test_a_front_end_that_reads_no_answers_costs_no_memory_and_stops_no_signal(daemon: Daemon) -> None:
    with Connection.connect(daemon.socket) as connection:
        connection.get_features()
        before = resident_bytes(daemon)
        message = abi.HEADER.pack(request=FrontRequest.GET_FEATURES, flags=abi.VHOST_USER_VERSION) * 1000
        connection.socket.setblocking(False)
        full = 0
        while full < 20:
            try:
                connection.socket.send(message)
                full = 0
            except BlockingIOError:
                full += 1
                threading.Event().wait(0.01)
        assert resident_bytes(daemon) - before < 4 << 20
        daemon.process.send_signal(signal.SIGTERM)
        ended(daemon)


def test_a_front_end_that_never_pauses_stops_no_signal(daemon: Daemon) -> None:
    with Connection.connect(daemon.socket) as connection:
        connection.get_features()
        message = abi.HEADER.pack(request=FrontRequest.SET_OWNER, flags=abi.VHOST_USER_VERSION) * 1000

        def flood() -> None:
            try:
                while True:
                    connection.socket.sendall(message)
            except OSError:
                pass

        connection.socket.settimeout(SECONDS)
        flooders = [threading.Thread(target=flood) for _ in range(2)]
        for flooder in flooders:
            flooder.start()
        daemon.process.send_signal(signal.SIGTERM)
        ended(daemon)
        for flooder in flooders:
            flooder.join()


def test_statistics_can_be_asked_for_at_any_time(daemon: Daemon) -> None:
    assert daemon.statistics() == {}
    with VirtioFs(daemon.socket) as device:
        FuseClient(device).init()
        assert daemon.statistics()["session"] == 1


def test_nothing_is_left_of_a_front_end(daemon: Daemon) -> None:
    """Neither threads nor descriptors nor memory, however many come and go."""
    daemon.expected = [CLOSED]

    def visit() -> None:
        with VirtioFs(daemon.socket, num_queues=3) as device:
            fuse = FuseClient(device)
            fuse.init()
            fh = fuse.opendir(1).fh
            fuse.readdir(1, fh)
            device.connection.send_bytes(bytes(abi.HEADER.size))
            assert closed(device.connection)

    def left() -> tuple[list[str], int]:
        return idle_files(daemon), len(daemon.children_of(""))

    visit()
    before, memory = left(), resident_bytes(daemon)
    for _ in range(30):
        visit()
    assert left() == before
    assert resident_bytes(daemon) - memory < 4 << 20


def test_a_user_namespace_without_setgroups_is_no_hindrance(tmp_path: pathlib.Path) -> None:
    """`unshare -r virtiofsd`: ids may be switched there, groups may not."""
    if subprocess.run(["unshare", "-r", "true"], capture_output=True).returncode:
        pytest.skip("user namespaces are not to be had here")
    (tmp_path / "share").mkdir()
    path = tmp_path / "socket"
    daemon = subprocess.Popen(["unshare", "-r", *program(), "--socket-path", path, "--shared-dir", tmp_path / "share"],
                              stderr=subprocess.DEVNULL)
    try:
        with VirtioFs(path, timeout=2) as device:
            FuseClient(device).init()
    finally:
        daemon.kill()
        daemon.wait()
