"""A daemon under test: started, asked for its numbers, and looked at when it has ended."""

import contextlib
import json
import os
import pathlib
import re
import signal
import time
from collections.abc import Iterator, Sequence

from frontend.back_end import BackEnd

SECONDS = 10.0
LONG = bool(os.environ.get("LONG"))     # what can be tried in two sizes is tried in the large one: for an hour or so
# What most tests want; a test's own options come behind and win.
USUAL = ("--sandbox", "none", "--modcaps", "+sys_admin", "--xattr", "--negative-timeout", "0")
BAD_LINE = re.compile(r" (WARN|ERROR) |Traceback|ERROR: AddressSanitizer|runtime error|LeakSanitizer")


class Daemon(BackEnd):
    """`expected` lists patterns of warnings and errors that the test means to provoke."""

    def __init__(self, program: Sequence[str | pathlib.Path], folder: pathlib.Path, options: Sequence[str] = (),
                 share: pathlib.Path | None = None) -> None:
        super().__init__(program, folder, [*USUAL, *options], share)
        self.expected: list[str] = []
        self.exit_status = 0

    def wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + SECONDS
        while not self.socket.exists():
            if not self.alive or time.monotonic() > deadline:
                raise RuntimeError(f"the daemon does not listen:\n{self.log}")
            time.sleep(0.005)

    def statistics(self) -> dict[str, int]:
        """The daemon's own numbers now."""
        before = self.log.count("statistics: ")
        self.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + SECONDS
        while self.log.count("statistics: ") == before or not self.log.endswith("\n"):
            if not self.alive or time.monotonic() > deadline:
                raise RuntimeError(f"the daemon tells no statistics:\n{self.log}")
            time.sleep(0.005)
        numbers: dict[str, int] = json.loads(self.log.rpartition("statistics: ")[2].splitlines()[0])
        return numbers

    def wait_for(self, **wanted: int) -> dict[str, int]:
        """Waits until the statistics have these values, and fails where they never get them."""
        deadline = time.monotonic() + SECONDS
        while True:
            numbers = self.statistics()
            if all(numbers[name] == value for name, value in wanted.items()):
                return numbers
            assert time.monotonic() < deadline, f"{wanted} was not reached: {numbers}"
            time.sleep(0.02)

    def open_files(self) -> list[str]:
        """What each of the process's descriptors is."""
        folder = pathlib.Path(f"/proc/{self.process.pid}/fd")
        found = []
        for entry in folder.iterdir():
            try:
                found.append(os.readlink(entry))
            except FileNotFoundError:
                continue
        return sorted(found)

    def _threads(self) -> Iterator[tuple[int, str]]:
        """The id of each thread, and what /proc says of its status."""
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                yield int(task.name), (task / "status").read_text()

    def children_of(self, part: str) -> list[int]:
        """The ids of the daemon's threads whose names have the part in them."""
        return [tid for tid, status in self._threads() if part in status.partition("\n")[0]]

    def blocked_signals(self) -> dict[int, int]:
        """The mask of each thread (SigBlk of /proc), by its id."""
        return {tid: int(status.partition("SigBlk:")[2].split()[0], 16) for tid, status in self._threads()}

    def switches(self) -> dict[str, tuple[str, ...]]:
        """How often each thread has slept and was woken, by its name and number."""
        return {f"{status.split()[1]} {tid}": tuple(re.findall(r"ctxt_switches:\s*(\d+)", status))
                for tid, status in self._threads()}

    def finish(self) -> list[str]:
        """Ends the daemon. What was wrong with it, a line each."""
        died = not self.alive and self.process.returncode != self.exit_status
        status = self.stop()
        problems = []
        if died or status != self.exit_status:
            problems.append(f"the daemon ended with status {status}")
        problems += [f"the daemon logged: {line}" for line in self.log.splitlines()
                     if BAD_LINE.search(line) and not any(re.search(pattern, line) for pattern in self.expected)]
        if problems:
            problems.append(f"its whole log:\n{self.log}")
        return problems
