"""The command lines of those who start a virtiofsd: each gives a share that a front-end can use."""

import json
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

from frontend.device import VirtioFs
from frontend.fuse import LINUX_FLAGS, FuseClient
from frontend.fuse_abi import FUSE_NO_OPEN_SUPPORT, FUSE_NO_OPENDIR_SUPPORT, FUSE_ROOT_ID
from tests.conftest import program
from tests.daemon.callers import CALLERS, MAY_WARN, ROOT, WAITS, Place, started_by
from tests.daemon.support import wait_until
from tests.running import BAD_LINE, SECONDS


@pytest.fixture
def folder() -> Iterator[pathlib.Path]:
    """A folder that every user reaches, which those of tests are not."""
    made = pathlib.Path(tempfile.mkdtemp(prefix="virtiofsd-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.mark.skipif(not ROOT, reason="these callers run as root, or become somebody else")
@pytest.mark.parametrize("name", CALLERS)
def test_a_caller_gets_a_share(name: str, folder: pathlib.Path) -> None:
    caller = CALLERS[name]
    with started_by(caller, folder) as (place, daemon):
        log = folder / "log"
        if "--syslog" not in caller.words(place):
            wait_until(lambda: WAITS in log.read_text() or daemon.poll() is not None, "the daemon's start")
        if not caller.hands_over:
            wait_until(lambda: place.socket.exists() or daemon.poll() is not None, "the socket")
        assert daemon.poll() is None, log.read_text()
        with VirtioFs(place.socket) as device:
            use(FuseClient(device), place)
        assert daemon.wait(SECONDS) == 0, log.read_text()
        assert place.socket.exists() == caller.hands_over
        assert not place.socket.with_suffix(".pid").exists()
    bad = [line for line in log.read_text().splitlines()
           if BAD_LINE.search(line) and not any(word in line for word in MAY_WARN)]
    assert bad == []


def use(fuse: FuseClient, place: Place) -> None:
    fuse.init(LINUX_FLAGS & ~(FUSE_NO_OPEN_SUPPORT | FUSE_NO_OPENDIR_SUPPORT))
    file = fuse.lookup(FUSE_ROOT_ID, "file")
    handle = fuse.open(file.nodeid)
    assert fuse.read(file.nodeid, handle.fh, 0, 100) == b"hello"
    fuse.release(file.nodeid, handle.fh)
    entry, created = fuse.create(FUSE_ROOT_ID, "new")
    fuse.write(entry.nodeid, created.fh, 0, b"from the guest")
    fuse.flush(entry.nodeid, created.fh)
    fuse.release(entry.nodeid, created.fh)
    assert (place.share / "new").read_bytes() == b"from the guest"
    assert {entry.name for entry in fuse.listdir()} >= {b"file", b"new"}


def test_callers_that_ask_for_capabilities_hear_what_is_true(tmp_path: pathlib.Path) -> None:
    """The form is the reference daemon's: libvirt takes features from it, and from separate-options its dialect."""
    result = subprocess.run([*program(), "--print-capabilities"], capture_output=True, text=True, timeout=20)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == """{
  "type": "fs",
  "features": [
    "posix-acl-negotiation-mode",
    "security-label-negotiation-mode",
    "separate-options"
  ]
}
"""
    assert json.loads(result.stdout)["type"] == "fs"
    # Whatever else is said, nothing is started.
    more = subprocess.run([*program(), "--print-capabilities", "--socket-path", str(tmp_path / "socket")],
                          capture_output=True, text=True, timeout=20)
    assert more.stdout == result.stdout
    assert list(tmp_path.iterdir()) == []
