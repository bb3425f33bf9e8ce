"""Who takes part: daemons, each a process with a guest connected, and the bare host."""

import contextlib
import os
import pathlib
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self

from bench.machine import running
from frontend.back_end import BackEnd
from frontend.device import VirtioFs
from frontend.fuse import FuseClient, ReplyError
from guest import fetch

OURS, REFERENCE, HOST = "virtiofsd", "reference", "host"
UNPOLLED = "virtiofsd --poll-us 0"
MEMORY_MIB = 256
QUEUE_SIZE = 1024       # so that a guest can ask for 1 MiB at a time
LISTEN_SECONDS = 10.0


class Contestant(NamedTuple):
    """A daemon and how it is started. `queues` is the most request queues that it has."""

    name: str
    program: Sequence[str]
    options: Sequence[str] = ()
    queues: int = 1

    def knows(self, option: str) -> bool:
        """Whether its help names the option."""
        text = subprocess.run([*self.program, "--help"], capture_output=True, text=True, check=False).stdout
        return f"{option} " in text or f"{option}\n" in text


def ours() -> Contestant:
    """This checkout's daemon, or the one that VIRTIOFSD names."""
    script = pathlib.Path(sys.executable).with_name("virtiofsd")
    program = shlex.split(os.environ.get("VIRTIOFSD", "")) or (
        [str(script)] if script.exists() else [sys.executable, "-m", "virtiofsd"])
    return Contestant(OURS, program, queues=255)


def unpolled() -> Contestant:
    """The same without polling."""
    return ours()._replace(name=UNPOLLED, options=["--poll-us", "0"])


def reference() -> Contestant:
    """The reference daemon, fetched unless VIRTIOFSD_REFERENCE names one."""
    program = shlex.split(os.environ.get("VIRTIOFSD_REFERENCE", ""))
    return Contestant(REFERENCE, program or [str(fetch.reference_daemon())])


def wait_until_it_listens(back_end: BackEnd, name: str) -> None:
    deadline = time.monotonic() + LISTEN_SECONDS
    while not back_end.socket.exists():
        if not back_end.alive or time.monotonic() > deadline:
            raise RuntimeError(f"{name} does not listen:\n{back_end.log}")
        time.sleep(0.002)


class Session:
    """A daemon that serves the share to one guest. `own` is the folder in it that this contestant may change."""

    def __init__(self, contestant: Contestant, work: pathlib.Path, share: pathlib.Path, *, queues: int = 1,
                 cpus: Sequence[int] | None = None, options: Sequence[str] = ()) -> None:
        self.contestant, self.share = contestant, share
        self.own = share / contestant.name.split()[0]
        self.back_end = BackEnd(contestant.program, work / "daemon" / contestant.name.replace(" ", ""),
                                ["--sandbox", "none", *contestant.options, *options], share, cpus=cpus)
        try:
            wait_until_it_listens(self.back_end, contestant.name)
            self.device = VirtioFs(self.back_end.socket, memory_mib=MEMORY_MIB, queue_size=QUEUE_SIZE,
                                   num_queues=queues)
            self.fuse = FuseClient(self.device)
            self.fuse.init()
        except BaseException:
            self.back_end.stop()
            raise

    @property
    def pid(self) -> int:
        return self.back_end.process.pid

    def forget_everything(self) -> None:
        """A new FUSE session: the daemon knows no inode any more."""
        with contextlib.suppress(ReplyError):       # the reference daemon does as it is told, but does not say so
            self.fuse.destroy()
        self.fuse.init()

    def settled_cpu_seconds(self) -> float:
        """CPU time used so far, once what the last requests have left to do is done."""
        # The clock of a thread that runs is only brought up to date now and then.
        idle = 0
        for _ in range(200):
            idle = 0 if running(self.pid) else idle + 1
            if idle == 2:
                break
            time.sleep(0.001)
        return self.back_end.cpu_seconds()

    def close(self) -> None:
        self.device.close()
        self.back_end.stop()
        self.back_end.socket.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
