"""Guests for tests: one of each kernel, booted once and used by all tests of a module."""

import shutil
from collections.abc import Iterator

import pytest

from guest.boot import Guest, Kernel


@pytest.fixture(scope="session", params=["qemu", "uml"])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """Each test runs with both: the kernel that most people have, and the newest FUSE client."""
    name: Kernel = request.param
    needed = "patchelf" if name == "uml" else "qemu-system-x86_64"
    if not shutil.which(needed):
        pytest.skip(f"there is no {needed}, which tools/setup test installs")
    return name


@pytest.fixture(scope="module")
def guest(kernel: Kernel) -> Iterator[Guest]:
    """A guest without any share, for all tests of a module; they must leave it as they found it."""
    with Guest(kernel=kernel) as guest:
        yield guest
