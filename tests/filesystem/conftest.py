"""Sessions on a share, on file systems of the test's own where it needs one.

Most tests take one after the other the same daemon and device, which stand as long as nothing is wrong with them: each
test must leave them as it found them. A test that needs options, or a daemon of its own, asks for `connect`.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from tests.conftest import StartDaemon, program
from tests.daemon.hanging import hanging
from tests.filesystem.support import WITH_HANDLES, Guest, Mounts, connected, opened, session
from tests.running import BAD_LINE, SECONDS, Daemon

__all__ = ["hanging"]

Connect = Callable[..., Guest]


class Standing:
    """A daemon and a device on it, without a session, that serve test after test."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.daemon = Daemon(program(), folder)
        self.daemon.wait_until_it_listens()
        self.device = VirtioFs(self.daemon.socket, queue_size=512)
        self.kept = {path.name for path in folder.iterdir()}
        self.seen = 0

    def restored(self) -> list[str]:
        """Empties the share for the next test. What the last one left behind, and what the daemon has warned of."""
        self.daemon.wait_for(inodes=0, inodes_closing=0, files_open=0, files_kept=0, descriptors_cached=0, session=0)
        problems = [f"queue {number} has requests in flight" for number, queue in enumerate(self.device.queues)
                    if queue.in_flight]
        share = self.daemon.share
        for name in os.listxattr(share):
            os.removexattr(share, name)
        share.chmod(0o755)
        for folder in (share, share.parent):
            for path in folder.iterdir():
                if folder == share or path.name not in self.kept:
                    shutil.rmtree(path) if not path.is_symlink() and path.is_dir() else path.unlink()
        lines = self.daemon.log.splitlines()
        problems += [f"the daemon logged: {line}" for line in lines[self.seen:] if BAD_LINE.search(line)]
        self.seen = len(lines)
        return problems

    def end(self) -> list[str]:
        """What was wrong with the daemon at its end."""
        self.device.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.daemon.process.wait(SECONDS)
        return self.daemon.finish()


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bool], Standing]]:
    """Gives the standing daemon out, or a new one in its place."""
    current: list[Standing] = []

    def get(replace: bool = False) -> Standing:
        if current and replace:
            current.pop().end()
        if not current:
            current.append(Standing(tmp_path_factory.mktemp("standing")))
        return current[0]

    yield get
    problems = current[0].end() if current else []
    if problems:
        pytest.fail("\n".join(problems))


@pytest.fixture
def daemon(standing: Callable[..., Standing]) -> Iterator[Daemon]:
    """The daemon that stands. Where the test leaves anything behind it fails, and the next one gets another daemon."""
    yield standing().daemon
    try:
        problems = standing().restored()
    except BaseException:
        standing(replace=True)
        raise
    if problems:
        standing(replace=True)
        pytest.fail("\n".join(problems))


@pytest.fixture
def device(standing: Callable[..., Standing], daemon: Daemon) -> Iterator[VirtioFs]:  # noqa: ARG001 - restores it
    """The device on it, without a session. Its queues take requests of a whole MiB."""
    yield standing().device
    FuseClient(standing().device).destroy()


@pytest.fixture
def fuse(daemon: Daemon, device: VirtioFs) -> Iterator[FuseClient]:
    """A session on the share, that must leave nothing behind."""
    with session(daemon, device) as fuse:
        yield fuse


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
def connect(start_daemon: StartDaemon) -> Iterator[Connect]:
    """Starts daemons with further options, and opens a session on each, that must leave nothing behind."""
    with contextlib.ExitStack() as stack:
        def connect(*options: str, share: pathlib.Path | None = None, **device: Any) -> Guest:
            return stack.enter_context(connected(start_daemon(*options, share=share), **device))

        yield connect


@pytest.fixture(params=WITH_HANDLES)
def file_system(request: pytest.FixtureRequest, mounts: Mounts) -> pathlib.Path:
    """An empty directory on a file system of its own, of one kind after the other."""
    folder = mounts.of(request.param) / "share"
    folder.mkdir()
    return folder


@pytest.fixture
def data() -> bytes:
    return os.urandom(3 * 4096 + 123)


@pytest.fixture
def file(fuse: FuseClient, share: pathlib.Path, data: bytes) -> tuple[int, int]:
    """Node and handle of a file with the data, open for reading and writing."""
    (share / "file").write_bytes(data)
    return opened(fuse, "file")
