"""Sessions on a share, on file systems of the test's own where it needs one."""

import contextlib
import pathlib
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from tests.conftest import StartDaemon
from tests.filesystem.support import Guest, Mounts, connected, session
from tests.running import SECONDS, Daemon

Connect = Callable[..., Guest]


@pytest.fixture
def mounts(tmp_path: pathlib.Path) -> Iterator[Mounts]:
    """File systems to mount; they are unmounted when the test's daemons have ended."""
    mounts = Mounts(tmp_path / "mounts")
    mounts.folder.mkdir()
    try:
        yield mounts
    finally:
        mounts.close()


@pytest.fixture
def start_daemon(mounts: Mounts, start_daemon: StartDaemon) -> Iterator[StartDaemon]:  # noqa: ARG001 - it outlives them
    """As everywhere; and a daemon whose front-end has gone is waited for, as it ends by itself."""
    started: list[Daemon] = []

    def start(*options: str, share: pathlib.Path | None = None) -> Daemon:
        started.append(start_daemon(*options, share=share))
        return started[-1]

    yield start
    for daemon in started:
        if "a front-end has connected" in daemon.log:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.process.wait(SECONDS)


@pytest.fixture
def fuse(daemon: Daemon, device: VirtioFs) -> Iterator[FuseClient]:
    """A session on the share, that must leave nothing behind."""
    with session(daemon, device) as fuse:
        yield fuse


@pytest.fixture
def connect(start_daemon: StartDaemon) -> Iterator[Connect]:
    """Starts daemons with further options, and opens a session on each, that must leave nothing behind."""
    with contextlib.ExitStack() as stack:
        def connect(*options: str, share: pathlib.Path | None = None, **device: Any) -> Guest:
            return stack.enter_context(connected(start_daemon(*options, share=share), **device))

        yield connect


@pytest.fixture(params=["ext4", "tmpfs"])
def file_system(request: pytest.FixtureRequest, mounts: Mounts) -> pathlib.Path:
    """An empty directory on a file system of its own, of one kind after the other."""
    folder = (mounts.ext4() if request.param == "ext4" else mounts.tmpfs()) / "share"
    folder.mkdir()
    return folder
