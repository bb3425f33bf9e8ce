"""Daemons for tests. A daemon's log is part of a test's result: warnings that the test did not announce fail it."""

import os
import pathlib
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from tests.filesystem.support import Mounts
from tests.running import Daemon

StartDaemon = Callable[..., Daemon]

LONGEST = "tests/packaging/"    # one file builds all, twice


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, else those of most tests: where several processes take them in this
    order, no one has a long one left at the end.
    """
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (not item.nodeid.startswith(LONGEST), -tests[item.path], item.path))


def program() -> list[str]:
    """VIRTIOFSD names another build of the daemon, with a sanitizer for example."""
    return shlex.split(os.environ.get("VIRTIOFSD", "")) or [sys.executable, "-m", "virtiofsd"]


@pytest.fixture
def start_daemon(tmp_path: pathlib.Path) -> Iterator[StartDaemon]:
    """Starts daemons with further options. Each is ended and checked when the test is over."""
    started: list[Daemon] = []

    def start(*options: str, share: pathlib.Path | None = None) -> Daemon:
        started.append(Daemon(program(), tmp_path / f"daemon{len(started)}", options, share))
        started[-1].wait_until_it_listens()
        return started[-1]

    yield start
    problems = [problem for daemon in started for problem in daemon.finish()]
    if problems:
        pytest.fail("\n".join(problems))


@pytest.fixture
def daemon(start_daemon: StartDaemon) -> Daemon:
    return start_daemon()


@pytest.fixture
def share(daemon: Daemon) -> pathlib.Path:
    """The shared directory, as the host sees it."""
    return daemon.share


@pytest.fixture
def device(daemon: Daemon) -> Iterator[VirtioFs]:
    with VirtioFs(daemon.socket) as device:
        yield device


@pytest.fixture
def fuse(device: VirtioFs) -> FuseClient:
    """A session on the share. What it looked up it gives back at the end of the test."""
    client = FuseClient(device)
    client.init()
    return client


@pytest.fixture
def mounts(tmp_path: pathlib.Path) -> Iterator[Mounts]:
    """File systems to mount; they are unmounted when the test's daemons have ended."""
    mounts = Mounts(tmp_path / "mounts")
    mounts.folder.mkdir()
    try:
        yield mounts
    finally:
        mounts.close()
