"""The log: one line per event, on standard error, in the journal, or by syslog.

Each module logs under its own name, and its level can be set by that name.
"""

import abc
import contextlib
import logging
import os
import select
import sys
import time
from collections.abc import Callable, Sequence

LEVELS = {
    "off": logging.CRITICAL + 10,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG - 5,
}
TRACE = LEVELS["trace"]
ROOT = "virtiofsd"
LOGGERS = tuple(f"{ROOT}.{module}" for module in ("backend", "placement", "sandbox", "serve", "vrings", "waiting"))
SEVERITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))  # syslog(3); all below is 7
# How many lines alike are logged: what a front-end does wrong it can do a million times a second.
BURST, PER_SECOND = 100, 1.0
WAIT_MS = 100  # for who reads the log, before lines are left out
ASKED_FOR = {"asked_for": True}  # `extra` of a line that somebody waits for

log = logging.getLogger(ROOT)


def severity(level: int) -> int:
    return next((number for least, number in SEVERITIES if level >= least), 7)


def one_line(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class Lines(logging.Formatter):
    """Makes one line of every event, whatever is in its names or its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


def for_people() -> logging.Formatter:
    formatter = Lines("[%(asctime)s %(levelname)s %(name)s] %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    return formatter


class ForJournal(Lines):
    """The journal notes time and process itself, and takes the severity from the beginning of the line."""

    def format(self, record: logging.LogRecord) -> str:
        return f"<{severity(record.levelno)}>{super().format(record)}"


class Alike:
    """What is known of lines that are alike: how many more may be logged, and how many were not."""

    __slots__ = ("left", "left_out", "since")

    def __init__(self, now: float) -> None:
        self.left, self.since, self.left_out = float(BURST), now, 0


class Moderation(logging.Filter):
    """Leaves out lines of which there are too many alike, and says so in the last before and the first after."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.clock = clock
        self.known: dict[tuple[str, str], Alike] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.INFO or hasattr(record, "asked_for"):
            return True
        now = self.clock()
        alike = self.known.setdefault((record.name, str(record.msg)), Alike(now))
        alike.left = min(BURST, alike.left + (now - alike.since) * PER_SECOND)
        alike.since = now
        if alike.left < 1:
            alike.left_out += 1
            return False
        alike.left -= 1
        if alike.left_out:
            record.msg, record.args = f"{record.getMessage()} ({alike.left_out} more like it were left out)", ()
            alike.left_out = 0
        elif alike.left < 1:
            record.msg, record.args = f"{record.getMessage()} (more like it are left out)", ()
        return True


class Lossy(logging.Handler, abc.ABC):
    """Writes lines for somebody who may stand still, and must not stop the daemon by that: once it has waited for him
    in vain, lines are left out until he reads on. The first one then says how many.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.lost = True, 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
            if self.lost:
                line += f" ({self.lost} lines before it were left out, as nobody read the log)"
            self.lost = 0 if self.write(line) else self.lost + 1
        except Exception:
            self.handleError(record)

    @abc.abstractmethod
    def write(self, line: str) -> bool:
        """Whether the line could be written."""

    def takes_more(self, fd: int) -> bool:
        """Whether something can be written into it without waiting, now or in a moment."""
        poller = select.poll()
        poller.register(fd, select.POLLOUT)
        self.waits = bool(poller.poll(WAIT_MS if self.waits else 0))
        return self.waits


class StandardError(Lossy):
    """By pieces for which a pipe has room where it has any."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = False

    def write(self, line: str) -> bool:
        data = ("\n" * self.cut + line + "\n").encode(errors="backslashreplace")
        fd = sys.stderr.fileno()
        for start in range(0, len(data), select.PIPE_BUF):
            if not self.takes_more(fd):
                self.cut |= start > 0
                return False
            os.write(fd, data[start : start + select.PIPE_BUF])
        self.cut = False
        return True


def goes_to_journal() -> bool:
    """Whether standard error is a stream of the journal (systemd.exec(5), JOURNAL_STREAM)."""
    with contextlib.suppress(OSError, AttributeError):
        info = os.fstat(sys.stderr.fileno())
        return os.environ.get("JOURNAL_STREAM") == f"{info.st_dev}:{info.st_ino}"
    return False


def set_up(levels: Sequence[tuple[str, str]], *, syslog: bool = False) -> None:
    """Logs events of `levels`: pairs of a logger's name and a key of LEVELS, the first for all others.

    Without a syslog daemon standard error has to do.
    """
    logging.addLevelName(logging.WARNING, "WARN")
    logging.addLevelName(TRACE, "TRACE")
    logging.raiseExceptions = False  # whom could one tell that the log cannot be written?
    handler: Lossy = StandardError()
    handler.setFormatter(ForJournal("%(name)s: %(message)s") if goes_to_journal() else for_people())
    missing: OSError | None = None
    if syslog:
        from virtiofsd.syslog import Syslog

        try:
            handler = Syslog()
            handler.setFormatter(Lines("%(name)s: %(message)s"))
        except OSError as error:
            missing = error
    handler.addFilter(Moderation())
    loop = logging.getLogger("asyncio")  # the event loop's, which tells of errors that nobody awaited
    loop.setLevel(max(LEVELS[levels[0][1]], logging.WARNING))
    for logger in (log, loop):
        logger.handlers[:] = [handler]
        logger.propagate = False
    for name, level in levels:
        logging.getLogger(name).setLevel(LEVELS[level])
    if missing:
        log.warning("--syslog: %s: %s; standard error is used", missing.filename, missing.strerror)


def descriptors() -> frozenset[int]:
    """What the log needs besides standard error."""
    return frozenset(handler.fileno() for handler in log.handlers if hasattr(handler, "fileno"))


def reopen() -> None:
    for handler in log.handlers:
        if hasattr(handler, "reopen"):
            handler.reopen()
