"""A reference back-end for the front-end's own tests: VIRTIOFSD_REFERENCE is the start of its command line.

For example "/usr/libexec/virtiofsd --sandbox none --xattr".
"""

import os
import pathlib
import shlex
from collections.abc import Callable, Iterator

import pytest

from frontend.back_end import BackEnd


@pytest.fixture
def start_reference(tmp_path: pathlib.Path) -> Iterator[Callable[..., BackEnd]]:
    """Starts back-ends with further options; they are stopped at the end."""
    program = os.environ.get("VIRTIOFSD_REFERENCE")
    if not program:
        pytest.skip("VIRTIOFSD_REFERENCE does not name a back-end to try the front-end on")
    started: list[BackEnd] = []

    def start(*options: str) -> BackEnd:
        started.append(BackEnd(shlex.split(program), tmp_path / str(len(started)), options))
        return started[-1]

    yield start
    for back_end in started:
        back_end.stop()


@pytest.fixture
def reference(start_reference: Callable[..., BackEnd]) -> BackEnd:
    return start_reference()
