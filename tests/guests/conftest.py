"""Guests for tests: one of each kernel, booted once and used by all tests of a module; laboratories, used by all."""

import re
import shutil
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
def mounts(tmp_path: Path) -> Iterator[Mounts]:
    """File systems to mount on the host; they are unmounted when the test's daemons have ended."""
    mounts = Mounts(tmp_path / "mounts")
    mounts.folder.mkdir()
    try:
        yield mounts
    finally:
        mounts.close()


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
def laboratories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Kernel], Laboratory]]:
    """Gives out the laboratories; one that has broken is replaced."""
    standing: dict[Kernel, Laboratory] = {}
    folder = tmp_path_factory.mktemp("laboratories") / "shares"
    folder.mkdir()

    def get(kernel: Kernel) -> Laboratory:
        needs(kernel)
        current = standing.get(kernel)
        if current and not (current.guest.alive and current.scene.complaint() is None):
            standing.pop(kernel).scene.kill()
        if kernel not in standing:
            standing[kernel] = Laboratory(kernel, folder)
        return standing[kernel]

    yield get
    problems = [problem for laboratory in standing.values() for problem in laboratory.scene.end()]
    if problems:
        pytest.fail("\n".join(problems))


GetPlace = Callable[[Kernel], Place]


@pytest.fixture
def places(request: pytest.FixtureRequest, laboratories: Callable[[Kernel], Laboratory]) -> Iterator[GetPlace]:
    """This test's place in the laboratory of either kernel: the same folders of the host."""
    name = re.sub(r"\W+", "-", request.node.name).strip("-")[:100]
    used: dict[Kernel, Place] = {}

    def get(kernel: Kernel) -> Place:
        if kernel not in used:
            used[kernel] = Place(laboratories(kernel), name)
            request.node.stash.setdefault(REPORTERS, []).append(used[kernel].report)
        return used[kernel]

    yield get
    problems = [problem for place in used.values() for problem in place.scene.problems()]
    if problems:
        pytest.fail("\n".join(problems))


@pytest.fixture
def place(places: GetPlace, kernel: Kernel) -> Place:
    """This test's place in a laboratory."""
    return places(kernel)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:  # noqa: ARG001
    """A test that fails shows its daemons' logs, its guests' consoles, and all command lines."""
    report: pytest.TestReport = yield  # type: ignore[misc, assignment]
    if report.failed:
        for reporter in item.stash.get(REPORTERS, []):
            report.sections.append(("daemons and guests", reporter()))
    return report  # type: ignore[return-value]
