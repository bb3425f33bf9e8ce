"""The log: one line per event, on standard error, in the journal and by syslog; and not too many of the same."""

import contextlib
import fcntl
import logging
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from tests.conftest import StartDaemon, program
from tests.daemon.support import CLOSED, idle_files, talking_to, visiting, wait_for_line, wait_until
from tests.running import SECONDS, Daemon
from virtiofsd import __version__, log
from virtiofsd import vhost_user_abi as abi
from virtiofsd.vhost_user_abi import FrontRequest

SANDBOXES = ["none", "namespace", "chroot"] if os.geteuid() == 0 else ["none"]
LINE = re.compile(r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (ERROR|WARN|INFO|DEBUG|TRACE) (virtiofsd(?:\.\w+)?)\] .+")


def meet(daemon: Daemon) -> None:
    """A front-end comes and goes, and the daemon with it."""
    with VirtioFs(daemon.socket) as device:
        FuseClient(device).init()
    assert daemon.process.wait(SECONDS) == 0


# Standard error

def test_every_line_has_time_level_and_module(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--log-level", "trace")
    meet(daemon)
    found = [LINE.fullmatch(line) for line in daemon.log.splitlines()]
    assert all(found)
    assert {("INFO", "virtiofsd.serve"), ("TRACE", "virtiofsd.backend")} <= {match.groups() for match in found if match}


def test_a_module_can_have_a_level_of_its_own(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--log-level", "OFF,virtiofsd.backend=Trace")
    meet(daemon)
    lines = daemon.log.splitlines()
    assert len(lines) > 10
    assert all(" TRACE virtiofsd.backend] " in line for line in lines)


@pytest.mark.parametrize("level", ["off", "error", "warn"])
def test_a_quiet_daemon_says_nothing_where_nothing_is_wrong(start_daemon: StartDaemon, level: str) -> None:
    daemon = start_daemon("--log-level", level)
    meet(daemon)
    assert daemon.log == ""


def test_mistakes_are_told_at_the_level_of_errors_and_not_below(start_daemon: StartDaemon) -> None:
    for level, lines in (("error", 1), ("off", 0)):
        daemon = start_daemon("--log-level", level)
        daemon.expected = [CLOSED]
        with visiting(daemon) as connection:
            connection.get_features()
        wait_until(lambda daemon=daemon, lines=lines: len(daemon.log.splitlines()) == lines, "the line")


def formatted(message: str, *args: object, **how: object) -> str:
    made = logging.LogRecord("virtiofsd", logging.ERROR, "file.py", 1, message, args, None, **how)
    return log.for_people().format(made)


def test_an_event_is_one_line_whatever_is_in_it() -> None:
    assert formatted("a name: %s", "two\nlines\x1b[31m\u2028käse").endswith(r"] a name: two\nlines\x1b[31m\u2028käse")
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        record = logging.LogRecord("virtiofsd", logging.ERROR, "file.py", 1, "failed", (), sys.exc_info())
    text = log.for_people().format(record)
    assert text.isprintable()
    assert r"failed\nTraceback" in text
    assert r"ValueError: first\nsecond" in text


def test_an_error_of_the_daemon_itself_is_one_line_and_has_a_status_of_its_own(tmp_path: pathlib.Path) -> None:
    code = """
import sys
from virtiofsd import cli, daemon
daemon.raise_descriptor_limit = lambda wanted: 1 // 0
sys.exit(cli.main())
"""
    result = subprocess.run([sys.executable, "-c", code, "--socket-path", tmp_path / "socket", "--shared-dir",
                             tmp_path], capture_output=True, text=True, timeout=20)
    assert (result.returncode, result.stderr.count("\n")) == (70, 1)
    assert "an error of the daemon itself" in result.stderr
    assert "ZeroDivisionError" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("level", "lines"), [("off", 0), ("error", 1), ("trace", 2)])
def test_the_event_loop_logs_as_the_daemon_does(level: str, lines: int) -> None:
    code = f"""
import logging
from virtiofsd import log
log.set_up((("virtiofsd", "{level}"),))
loop = logging.getLogger("asyncio")
loop.error("an error of\\nthe loop")
loop.warning("a warning")
loop.info("nothing of interest")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert len(result.stderr.splitlines()) == lines
    assert lines == 0 or r" ERROR asyncio] an error of\nthe loop" in result.stderr


def test_who_does_not_read_standard_error_stops_nothing_and_hears_of_it(tmp_path: pathlib.Path) -> None:
    reads, writes = os.pipe()
    daemon = subprocess.Popen([*program(), "--socket-path", tmp_path / "socket", "--shared-dir", tmp_path, "--sandbox",
                               "none", "--log-level", "trace"], stderr=writes)
    os.close(writes)
    with VirtioFs(tmp_path / "socket") as device, open(reads, encoding="utf-8") as log:
        talk(device)
        lines = [log.readline() for _ in range(100)]
        assert all(LINE.fullmatch(line.rstrip("\n")) for line in lines)
        fcntl.fcntl(reads, fcntl.F_SETPIPE_SZ, 1 << 20)
        device.connection.get_features()
        told = re.compile(r"\((\d+) lines before it were left out, as nobody read the log\)$")
        left_out = next(int(match[1]) for line in log if (match := told.search(line)))
        assert left_out > 1000
    assert daemon.wait(SECONDS) == 0


def talk(device: VirtioFs) -> None:
    """So much that a pipe has no room for the lines of it. Each message is answered before the next one goes."""
    for _ in range(2000):
        device.connection.get_features()


# The journal

def run_with_journal(tmp_path: pathlib.Path, *, truly: bool) -> str:
    """What a daemon writes whose standard error systemd says is a stream of the journal."""
    socket_path, share = tmp_path / "socket", tmp_path / "share"
    share.mkdir()
    with (tmp_path / "journal").open("w+b") as stream:
        info = os.fstat(stream.fileno())
        where = f"{info.st_dev}:{info.st_ino + (not truly)}"
        daemon = subprocess.Popen([*program(), "--socket-path", socket_path, "--shared-dir", share, "--sandbox", "none",
                                   "-f"], stderr=stream, env={**os.environ, "JOURNAL_STREAM": where})
        with VirtioFs(socket_path) as device:
            FuseClient(device).init()
        assert daemon.wait(SECONDS) == 0
        stream.seek(0)
        return stream.read().decode()


def test_the_journal_gets_severities_and_neither_time_nor_level(tmp_path: pathlib.Path) -> None:
    lines = run_with_journal(tmp_path, truly=True).splitlines()
    assert lines[0].startswith("<4>virtiofsd: -f is deprecated")
    assert "<6>virtiofsd.serve: Waiting for vhost-user socket connection..." in lines
    assert all(re.match(r"<[3-7]>virtiofsd", line) for line in lines)


def test_a_stream_that_only_a_parent_had_from_the_journal_is_none(tmp_path: pathlib.Path) -> None:
    assert all(map(LINE.fullmatch, run_with_journal(tmp_path, truly=False).splitlines()))


# Syslog

SYSLOG = """
import sys
from virtiofsd import cli, syslog
syslog.SYSLOG = sys.argv.pop(1)
sys.exit(cli.main())
"""


class Syslog:
    """A syslog daemon, at a place of its own."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.path = folder / "log"
        self.socket_path, self.share, self.errors = folder / "socket", folder / "share", folder / "stderr"
        self.share.mkdir()
        self.open()

    def open(self) -> None:
        self.path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.settimeout(SECONDS)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with self.errors.open("wb") as stream:
            return subprocess.Popen(
                [sys.executable, "-c", SYSLOG, str(self.path), "--syslog", "--socket-path", str(self.socket_path),
                 "--shared-dir", str(self.share), *words], stderr=stream)

    def next(self) -> str:
        return self.socket.recv(65536).decode()

    def read_until(self, words: str) -> None:
        while words not in self.next():
            pass


@pytest.fixture
def syslog(tmp_path: pathlib.Path) -> Iterator[Syslog]:
    made = Syslog(tmp_path)
    with contextlib.closing(made.socket):
        yield made


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_syslog_gets_every_event_also_from_inside_the_sandbox(syslog: Syslog, sandbox: str) -> None:
    daemon = syslog.start("--sandbox", sandbox)
    head = rf"<14>[A-Z][a-z]{{2}} [ 123]\d \d\d:\d\d:\d\d virtiofsd\[{daemon.pid}\]: "
    place = re.escape(f"shares {syslog.share} at {syslog.socket_path}")
    assert re.fullmatch(head + rf"virtiofsd\.serve: virtiofsd {__version__} {place}", syslog.next())
    assert re.fullmatch(head + r"virtiofsd\.serve: Waiting for vhost-user socket connection\.\.\.", syslog.next())
    with VirtioFs(syslog.socket_path) as device:
        FuseClient(device).init()
        assert re.fullmatch(head + r"virtiofsd\.serve: a front-end has connected", syslog.next())
    assert re.fullmatch(head + r"virtiofsd\.serve: the front-end has disconnected", syslog.next())
    assert daemon.wait(SECONDS) == 0
    assert syslog.errors.read_text() == ""


def test_syslog_hears_why_a_daemon_does_not_start(syslog: Syslog) -> None:
    """Callers that want syslog may throw away what is on standard error."""
    daemon = syslog.start("--shared-dir", "/no/such/directory")
    assert daemon.wait(SECONDS) == 1
    reason = "--shared-dir /no/such/directory: No such file or directory"
    assert re.fullmatch(r"<11>.{15} virtiofsd\[\d+\]: virtiofsd: " + reason, syslog.next())
    assert syslog.errors.read_text() == f"virtiofsd: {reason}\n"


@pytest.mark.parametrize("hang_up", [True, False], ids=["SIGHUP", "unasked"])
def test_a_syslog_daemon_that_was_started_anew_gets_what_follows(syslog: Syslog, hang_up: bool) -> None:
    daemon = syslog.start("--sandbox", "none")
    syslog.read_until("Waiting")
    syslog.socket.close()
    syslog.open()
    if hang_up:
        daemon.send_signal(signal.SIGHUP)
        assert syslog.next().endswith("virtiofsd.serve: the log goes on")
    with VirtioFs(syslog.socket_path) as device:
        FuseClient(device).init()
        assert syslog.next().endswith("a front-end has connected")
    assert daemon.wait(SECONDS) == 0


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_syslog_daemon_that_is_gone_ends_nothing(syslog: Syslog, sandbox: str) -> None:
    daemon = syslog.start("--sandbox", sandbox)
    syslog.read_until("Waiting")
    syslog.socket.close()
    syslog.path.unlink()
    daemon.send_signal(signal.SIGHUP)
    with VirtioFs(syslog.socket_path) as device:
        FuseClient(device).init()
    assert daemon.wait(SECONDS) == 0
    assert "the log goes on" in syslog.errors.read_text()


def test_a_syslog_daemon_that_stands_still_stops_nothing_and_hears_of_it(syslog: Syslog) -> None:
    daemon = syslog.start("--sandbox", "none", "--log-level", "trace")
    with VirtioFs(syslog.socket_path) as device:
        talk(device)
        syslog.next()
        device.connection.get_features()
        while "as nobody read the log" not in (line := syslog.next()):
            assert " lines" not in line
    assert daemon.wait(SECONDS) == 0


def test_without_a_syslog_daemon_standard_error_has_the_log(syslog: Syslog) -> None:
    syslog.path.unlink()
    daemon = syslog.start("--sandbox", "none")
    with VirtioFs(syslog.socket_path) as device:
        FuseClient(device).init()
    assert daemon.wait(SECONDS) == 0
    first, *rest = syslog.errors.read_text().splitlines()
    assert first.endswith(f"WARN virtiofsd] --syslog: {syslog.path}: No such file or directory; standard error is used")
    assert any("Waiting" in line for line in rest)


# Signals

@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_a_hang_up_reopens_the_log_and_ends_nothing(start_daemon: StartDaemon, sandbox: str) -> None:
    daemon = start_daemon("--sandbox", sandbox)
    wait_for_line(daemon, "Waiting")
    for number in range(3):
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda number=number: daemon.log.count("the log goes on") == number + 1, "the line")
    meet(daemon)


# Floods

class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def passed(moderation: log.Moderation, count: int, message: str = "%d", level: int = logging.ERROR,
           **extra: object) -> list[str]:
    lines = []
    for number in range(count):
        record = logging.makeLogRecord({"name": "virtiofsd.x", "levelno": level, "msg": message, "args": (number,),
                                        **extra})
        if moderation.filter(record):
            lines.append(record.getMessage())
    return lines


def test_of_lines_alike_the_first_hundred_are_logged_and_then_one_a_second() -> None:
    clock = Clock()
    moderation = log.Moderation(clock)
    lines = passed(moderation, 1000)
    assert len(lines) == log.BURST
    assert lines[:2] == ["0", "1"]
    assert lines[-1] == "99 (more like it are left out)"
    clock.now = 1.0
    assert passed(moderation, 10) == ["0 (900 more like it were left out)"]
    clock.now = 1e6
    assert passed(moderation, 2) == ["0 (9 more like it were left out)", "1"]


def test_lines_of_another_kind_are_logged_meanwhile() -> None:
    moderation = log.Moderation(Clock())
    passed(moderation, 1000)
    assert passed(moderation, 1, "other %d") == ["other 0"]


def test_what_somebody_asked_for_is_never_left_out() -> None:
    moderation = log.Moderation(Clock())
    assert len(passed(moderation, 1000, level=logging.DEBUG)) == 1000
    assert len(passed(moderation, 1000, level=logging.INFO, **log.ASKED_FOR)) == 1000


def test_a_front_end_cannot_flood_the_log_with_what_it_does_wrong(daemon: Daemon) -> None:
    daemon.expected = ["SET_VRING_NUM failed", CLOSED]
    begin = time.monotonic()
    with visiting(daemon) as connection:
        body = abi.VRING_STATE.pack(index=0, num=3)
        message = abi.HEADER.pack(request=FrontRequest.SET_VRING_NUM, size=len(body),
                                  flags=abi.VHOST_USER_VERSION | abi.FLAG_NEED_REPLY) + body
        for _ in range(20):
            connection.send_bytes(message * 100)
            for _ in range(100):
                assert connection.recv().payload != bytes(8)
    lines = [line for line in daemon.log.splitlines() if "SET_VRING_NUM failed" in line]
    assert log.BURST <= len(lines) <= log.BURST + 2 + time.monotonic() - begin
    assert any(line.endswith("(more like it are left out)") for line in lines)


def test_front_ends_that_come_and_go_cannot_flood_the_log_either(daemon: Daemon) -> None:
    daemon.expected = [CLOSED]
    begin = time.monotonic()
    count = log.BURST + 100
    for _ in range(count):
        with talking_to(daemon) as connection:
            connection.send_bytes(bytes(abi.HEADER.size))
    idle_files(daemon)
    for line in (CLOSED, "a front-end has connected", "Waiting for"):
        assert daemon.log.count(line) <= log.BURST + 2 + time.monotonic() - begin
    assert daemon.statistics() == {}
