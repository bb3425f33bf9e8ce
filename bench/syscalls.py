"""How many system calls a process makes: counted by the kernel for perf, or else by strace, in a pass of its own."""

import contextlib
import functools
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator


class Count:
    """Filled in when the counting is over."""

    calls: int = 0


@functools.cache
def method() -> str | None:
    """"perf", which hardly disturbs, "strace", under which a daemon takes more at a time, or None."""
    if shutil.which("perf"):
        tried = subprocess.run(["perf", "stat", "-e", "raw_syscalls:sys_enter", "true"], capture_output=True, text=True,
                               check=False)
        if not tried.returncode and "not supported" not in tried.stderr:
            return "perf"
    return "strace" if shutil.which("strace") else None


@contextlib.contextmanager
def counted(pid: int) -> Iterator[Count]:
    """Counts all threads of a process from here to the end of the block."""
    count = Count()
    with tempfile.NamedTemporaryFile("r") as output:
        with _perf(pid, output.name) if method() == "perf" else _strace(pid, output.name):
            yield count
        text = pathlib.Path(output.name).read_text()
    if method() == "perf":
        count.calls = int(text.rpartition("raw_syscalls:sys_enter")[0].splitlines()[-1].split(",")[0])
    elif total := re.search(r"^\s*100\.00\s+\S+\s+(?:\S+\s+)??(\d+)\s+(?:\d+\s+)?total", text, re.MULTILINE):
        count.calls = int(total[1])


@contextlib.contextmanager
def _perf(pid: int, output: str) -> Iterator[None]:
    orders, give_orders = os.pipe()
    hear, acknowledge = os.pipe()
    command = ["perf", "stat", "-x,", "-o", output, "-e", "raw_syscalls:sys_enter", "-p", str(pid), "--delay=-1",
               f"--control=fd:{orders},{acknowledge}"]
    with subprocess.Popen(command, pass_fds=(orders, acknowledge), stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        os.close(orders)
        os.close(acknowledge)
        try:
            os.write(give_orders, b"enable\n")
            os.read(hear, 16)
            yield
            os.write(give_orders, b"disable\n")
            os.read(hear, 16)
        finally:
            process.send_signal(signal.SIGINT)
            os.close(give_orders)
            os.close(hear)


@contextlib.contextmanager
def _strace(pid: int, output: str) -> Iterator[None]:
    command = ["strace", "-c", "-f", "-o", output, "-p", str(pid)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr
        try:
            process.stderr.readline()       # "strace: Process 1 attached", with all its threads
            time.sleep(0.05)
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.stderr.read()
