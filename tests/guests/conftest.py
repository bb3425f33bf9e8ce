"""Guests for tests: one of each kernel, booted once and used by all tests of a module; laboratories, used by all."""

import contextlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guest.boot import Guest, Kernel
from tests.filesystem.support import Mounts
from tests.guests.support import Laboratory, Place, Scene

REPORTERS = pytest.StashKey[list[Callable[[], str]]]()
"""What tells more about a test that has failed."""


def needs(kernel: Kernel) -> None:
    """Skips the test where the machine has not what this kernel runs in."""
    needed = "patchelf" if kernel == "uml" else "qemu-system-x86_64"
    if not shutil.which(needed):
        pytest.skip(f"there is no {needed}, which tools/setup test installs")


@pytest.fixture(scope="session", params=["qemu", "uml"])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """Each test runs with both: the kernel that most people have, and the newest FUSE client."""
    name: Kernel = request.param
    needs(name)
    return name


@pytest.fixture(scope="module")
def guest(kernel: Kernel) -> Iterator[Guest]:
    """A guest without any share, for all tests of a module; they must leave it as they found it."""
    with Guest(kernel=kernel) as guest:
        yield guest


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """The daemons and guests of one test."""
    scene = Scene(tmp_path)
    request.node.stash.setdefault(REPORTERS, []).append(scene.report)
    try:
        yield scene
        problems = scene.end()
        if problems:
            pytest.fail("\n".join(problems))
    finally:
        scene.kill()


@pytest.fixture(scope="session")
def file_systems(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a new file system of each kind, in a folder of its name; what this machine has not is not there."""
    folder = tmp_path_factory.mktemp("backing")
    mounts = Mounts(folder)

    def fuse() -> Path:
        below = folder / "below"
        below.mkdir()
        at = folder / "fuse"
        at.mkdir()
        options = "allow_other,dev,suid,attr_timeout=0,entry_timeout=0"
        if not shutil.which("bindfs") or subprocess.run(["bindfs", "-o", options, below, at]).returncode:
            at.rmdir()
            pytest.skip("there is no bindfs")
        mounts.mounted.append(at)
        return at

    try:
        for make in (lambda: mounts.ext4(512), lambda: mounts.image("xfs", 512), lambda: mounts.image("btrfs", 512),
                     mounts.tmpfs, mounts.overlay, fuse):
            with contextlib.suppress(pytest.skip.Exception):
                make().chmod(0o755)
        yield folder
    finally:
        mounts.close()


GetLaboratory = Callable[..., Laboratory]


@pytest.fixture(scope="session")
def laboratories(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[GetLaboratory]:
    """Gives out the laboratories of either kernel; one that has broken is replaced, one that did not start is not."""
    standing: dict[tuple[Kernel, str], Laboratory] = {}
    refused: dict[tuple[Kernel, str], Exception] = {}
    folders: dict[str, Path] = {}

    def folder_of(name: str) -> Path:
        if name not in folders:
            if name == "backing":
                folders[name] = request.getfixturevalue("file_systems")
            else:
                folders[name] = tmp_path_factory.mktemp("lab") / "shares"
                folders[name].mkdir()
        return folders[name]

    def get(kernel: Kernel, name: str = "usual") -> Laboratory:
        needs(kernel)
        current = standing.get((kernel, name))
        if current and not (current.guest.alive and current.scene.complaint() is None):
            standing.pop((kernel, name)).scene.kill()
        if (kernel, name) in refused:
            raise refused[kernel, name]
        if (kernel, name) not in standing:
            try:
                standing[kernel, name] = Laboratory(kernel, name, folder_of(name))
            except Exception as error:
                refused[kernel, name] = error
                raise
        return standing[kernel, name]

    yield get
    problems = [problem for laboratory in standing.values() for problem in laboratory.scene.end()]
    if problems:
        pytest.fail("\n".join(problems))


GetPlace = Callable[..., Place]


@pytest.fixture
def places(request: pytest.FixtureRequest, laboratories: GetLaboratory) -> Iterator[GetPlace]:
    """This test's place in a laboratory of either kernel: the same folders of the host."""
    name = re.sub(r"\W+", "-", request.node.name).strip("-")[:100]
    used: dict[tuple[Kernel, str], Place] = {}

    def get(kernel: Kernel, laboratory: str = "usual") -> Place:
        if (kernel, laboratory) not in used:
            used[kernel, laboratory] = Place(laboratories(kernel, laboratory), name)
            request.node.stash.setdefault(REPORTERS, []).append(used[kernel, laboratory].report)
        return used[kernel, laboratory]

    yield get
    problems = [problem for place in used.values() for problem in place.scene.problems()]
    if problems:
        pytest.fail("\n".join(problems))


@pytest.fixture
def place(places: GetPlace, kernel: Kernel) -> Place:
    """This test's place in the usual laboratory."""
    return places(kernel)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:  # noqa: ARG001
    """A test that fails shows its daemons' logs, its guests' consoles, and all command lines."""
    report: pytest.TestReport = yield  # type: ignore[misc, assignment]
    if report.failed:
        for reporter in item.stash.get(REPORTERS, []):
            report.sections.append(("daemons and guests", reporter()))
    return report  # type: ignore[return-value]
