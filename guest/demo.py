"""What `make demo` shows: a Linux guest and this machine, working in one directory.

    python -m guest.demo [DIRECTORY]        default: a temporary one with a few files

The daemon is .venv/bin/virtiofsd, or $VIRTIOFSD. In the directory nothing is touched but `virtiofsd-demo`, which is
made and removed.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from guest.boot import Guest, GuestError, Share
from guest.fetch import FetchError, busybox, kernel
from guest.process import Process, wait_for_socket

TERMINAL = sys.stdout.isatty()
BOLD, PLAIN = ("\033[1m", "\033[0m") if TERMINAL else ("", "")
PLAY = "virtiofsd-demo"


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """One line, with the time it took; on a terminal the time runs."""
    started, done = time.monotonic(), threading.Event()

    def show(end: str) -> None:
        print(f"\r{time.monotonic() - started:6.1f} s  {text}", end=end, flush=True)

    def tick() -> None:
        while not done.wait(0.1):
            show("")

    ticker = threading.Thread(target=tick, daemon=True)
    if TERMINAL:
        ticker.start()
    try:
        yield
    finally:
        done.set()
        if TERMINAL:
            ticker.join()
        show("\n")


def said(where: str, command: str, output: str) -> None:
    """A command line and what it said."""
    print(f"{where:>8} {BOLD}$ {command}{PLAIN}")
    for line in output.splitlines():
        print(f"         {line}")


def sample(folder: Path) -> Path:
    """A directory to share, where none was given."""
    share = folder / "share"
    (share / "music").mkdir(parents=True)
    (share / "hello.txt").write_text("This file is on the host.\n")
    (share / "music/scale.txt").write_text("do re mi fa sol la si do\n")
    (share / "numbers.txt").write_text("".join(f"{number}\n" for number in range(100_000)))
    return share


def show(guest: Guest, share: Path) -> None:
    """The guest lists, reads and writes, and the host sees it; then the other way round."""

    def in_guest(command: str) -> None:
        result = guest.run(command, folder="/mnt", check=True)
        said("guest", command, result.stdout)

    def on_host(command: str) -> None:
        done = subprocess.run(["sh", "-c", command], cwd=share, stdout=subprocess.PIPE, text=True, check=True)
        said("host", command, done.stdout)

    (share / PLAY).mkdir()
    try:
        in_guest("uname -sr; grep virtiofs /proc/mounts")
        in_guest("ls -l")
        in_guest(f"echo 'Written in the guest.' > {PLAY}/note")
        on_host(f"cat {PLAY}/note")
        on_host(f"echo 'Added on the host.' >> {PLAY}/note")
        in_guest(f"cat {PLAY}/note")
        in_guest(f"time -p dd if=/dev/zero of={PLAY}/zeros bs=1M count=64 2>&1 | grep real")
        on_host(f"ls -l {PLAY}")
    finally:
        shutil.rmtree(share / PLAY)


def main() -> None:
    daemon = os.environ.get("VIRTIOFSD", ".venv/bin/virtiofsd")
    if not shutil.which(daemon):
        sys.exit(f"demo: there is no {daemon}: run tools/setup demo")
    if not shutil.which("qemu-system-x86_64"):
        sys.exit("demo: there is no qemu-system-x86_64: run tools/setup demo")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="virtiofsd-demo-")))
        share = Path(sys.argv[1]).resolve() if sys.argv[1:] else sample(folder)
        if not share.is_dir() or (share / PLAY).exists():
            sys.exit(f"demo: {share} must be a directory, without {PLAY}")
        kernel(), busybox()  # which tell what they download, the first time
        socket = folder / "socket"
        # The guest is to see at once what this machine changes, and the machine may be a container without namespaces.
        options: list[str | Path] = ["--socket-path", socket, "--shared-dir", share, "--tag", "myfs",
                                     "--attr-timeout", "0", "--sandbox", "none"]
        with step(f"{daemon} shares {share}"):
            process = Process([daemon, *options], folder / "log")
            stack.callback(process.end, 5)
            wait_for_socket(socket, process)
        ended = lambda: None if process.status is None else f"{daemon} has ended:\n{process.text()}"  # noqa: E731
        guest = Guest(Share("myfs", socket, mount="/mnt"), watch=ended)
        with step("Linux boots in QEMU, emulated, and mounts it"):
            stack.enter_context(guest)
        show(guest, share)
        if TERMINAL and sys.stdin.isatty():
            print(f"\nNow it's yours: a shell in the guest, with {share} of this machine at /mnt.")
            print(f"To leave: {BOLD}exit{PLAIN}, or Ctrl-] to pull the plug.\n", flush=True)
            guest.shell(folder="/mnt")
        if guest.alive:
            with step("the guest unmounts it and powers off"):
                guest.poweroff()


if __name__ == "__main__":
    try:
        main()
    except (GuestError, FetchError, RuntimeError) as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
