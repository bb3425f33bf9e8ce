"""Runs a back-end program, any that takes --socket-path and --shared-dir, while a test or benchmark needs it."""

import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import BinaryIO, Self

CPUCLOCK_SCHED = 2


class BackEnd:
    """A started program. Its socket, share and log are in `folder`, unless a share is given; `cpus` are all it gets."""

    def __init__(self, program: Sequence[str | pathlib.Path], folder: pathlib.Path, options: Sequence[str] = (),
                 share: pathlib.Path | None = None, stop_timeout: float = 10.0,
                 cpus: Collection[int] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.socket, self.log_path = folder / "socket", folder / "log"
        self.share = share or folder / "share"
        self.share.mkdir(exist_ok=True)
        self.stop_timeout = stop_timeout
        self.command = [*map(str, program), "--socket-path", str(self.socket), "--shared-dir", str(self.share),
                        *options]
        with self.log_path.open("wb") as log:
            self.process = self._start(log, cpus)

    def _start(self, log: BinaryIO, cpus: Collection[int] | None) -> subprocess.Popen[bytes]:
        mine = os.sched_getaffinity(0)
        try:
            if cpus is not None:
                os.sched_setaffinity(0, cpus)       # the child inherits it
            return subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        finally:
            os.sched_setaffinity(0, mine)

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def cpu_seconds(self) -> float:
        """User and system time that the process has used, to the nanosecond; of threads that have ended, too."""
        return time.clock_gettime(~self.process.pid << 3 | CPUCLOCK_SCHED)      # as clock_getcpuclockid(3) makes it

    def stop(self) -> int:
        """Ends it with SIGTERM, with SIGKILL where that does not help; the exit status."""
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(self.stop_timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(self.stop_timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.stop()
