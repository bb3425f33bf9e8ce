"""Processes that end with the one that started them: guests, and the daemons they are connected to."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


class Process:
    """A program in a session of its own, which is ended as a whole. What it says is in `log`.

    The kernel kills it when the thread that made it ends, so make it in a thread that lives as long.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        inherit: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.command = [str(word) for word in command]
        self.log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                pass_fds=inherit,
                env={**os.environ, **(environment or {})},
                cwd=folder,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """None while it runs; afterwards its exit status, negative for the signal that ended it."""
        return self._process.poll()

    def wait(self, timeout: float) -> int | None:
        """Like `status`, after it had that many seconds to end by itself."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def end(self, grace: float = 0) -> int | None:
        """Ends it and all of its session: by SIGTERM, then, after `grace` seconds, by SIGKILL. Returns `status`."""
        for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 10)):
            if seconds:
                try:
                    os.killpg(self.pid, number)
                except ProcessLookupError:
                    break
                self.wait(seconds)
        return self.status

    def state(self) -> str:
        """What each of its threads, and those of the processes that it has started, is doing: for somebody who has
        to find out why it does not end.
        """
        lines = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.getsid(int(process.name)) == self.pid:
                    for thread in process.glob("task/*"):
                        words = [(thread / name).read_text().split(")")[-1].split()[:3] for name in ("stat", "syscall")]
                        stack = (thread / "stack").read_text().split() if os.geteuid() == 0 else []
                        lines.append(" ".join([process.name, thread.name, *words[0], *words[1], *stack[1::2]]))
        return "\n".join(lines)

    def text(self) -> str:
        """What it has said so far."""
        return self.log.read_text(errors="replace")


def wait_for_socket(path: Path, process: Process, timeout: float = 30) -> None:
    """Waits until `process` listens at a socket. Connecting to find out would use up a daemon's one connection."""
    deadline = time.monotonic() + timeout
    while not _listening(path):
        if process.status is not None:
            raise RuntimeError(f"{process.command[0]} ended before it listened at {path}:\n{process.text()}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{process.command[0]} doesn't listen at {path} after {timeout:g} s:\n{process.text()}")
        time.sleep(0.01)


def _listening(path: Path) -> bool:
    """Whether the system's table of sockets has one that listens at the path."""
    for line in Path("/proc/net/unix").read_text(errors="surrogateescape").splitlines():
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7] == str(path) and int(fields[3], 16) & 0x10000:
            return True
    # A daemon that has bound it in another network namespace is not in our table: allow it the time to listen too.
    return path.exists() and time.time() - path.stat().st_mtime > 0.5
