"""Daemons in sandboxes, which a test looks at from outside and, by sandbox_probe.py, from inside."""

import contextlib
import functools
import json
import os
import pathlib
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from frontend.back_end import BackEnd
from tests.running import SECONDS, Daemon

REPOSITORY = pathlib.Path(__file__).parents[2]
PROBE = REPOSITORY / "tests" / "daemon" / "sandbox_probe.py"
NOBODY = 65534
SUB_IDS = (200_000, 65_536)     # the first, and how many

NO_ADMIN = ("setpriv", "--bounding-set", "-sys_admin")     # before a program: root, as it is in a container
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make this sandbox, or become another user")


class Sandboxed(Daemon):
    """A daemon with the default options, and those of the test; the usual ones of tests open its sandbox."""

    def __init__(self, program: Sequence[str | pathlib.Path], folder: pathlib.Path, options: Sequence[str] = (),
                 share: pathlib.Path | None = None) -> None:
        BackEnd.__init__(self, program, folder, options, share)
        self.expected = []
        self.exit_status = 0
        self.wait_until_it_listens()

    @property
    def pid(self) -> int:
        """The process that serves: in a sandbox a child of the one that was started."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        deadline = time.monotonic() + SECONDS
        while not (pids := children.read_text().split()):
            assert self.alive and time.monotonic() < deadline, f"the daemon has no child:\n{self.log}"
            time.sleep(0.005)
        return int(pids[0])

    def status(self, tid: int | None = None) -> dict[str, str]:
        """What /proc says of the process that serves, or of one of its threads."""
        path = pathlib.Path(f"/proc/{self.pid}/task/{tid or self.pid}/status")
        return dict(line.split(":\t", 1) for line in path.read_text().splitlines() if ":\t" in line)

    def wait_until_it_serves(self) -> None:
        """The socket is there before the sandbox is."""
        deadline = time.monotonic() + SECONDS
        while "aiting for" not in self.log:
            assert self.alive and time.monotonic() < deadline, f"the daemon does not serve:\n{self.log}"
            time.sleep(0.005)

    def ask(self, probe: str, *, thread: bool = False, **arguments: Any) -> Any:
        """What a probe found inside. None: the daemon has ended instead of answering."""
        self.wait_until_it_serves()
        asked, answer = self.share / "probe", self.share / "answer"
        asked.write_text(json.dumps({"probe": probe, "thread": thread, "arguments": arguments}))
        self.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 3 * SECONDS
        try:
            while not answer.exists() or not (text := answer.read_text()).endswith("\n"):
                assert time.monotonic() < deadline, f"no answer from the probe:\n{self.log}"
                if not self.alive:
                    return None
                time.sleep(0.005)
        finally:
            asked.unlink()
            answer.unlink(missing_ok=True)
        found = json.loads(text)
        assert not (isinstance(found, str) and "Traceback" in found), found
        return found


def probing() -> list[str]:
    return ["env", f"PYTHONPATH={REPOSITORY}", sys.executable, str(PROBE)]


@functools.cache
def nobodys_python(bounded: bool = True) -> tuple[str, ...]:
    """An interpreter that a user without rights can run, with what the daemon needs; such a user's words before it.

    That of the tests may lie where only root can read it. Unless it is `bounded`, programs with more rights can be
    started.
    """
    if not shutil.which("setpriv"):
        pytest.skip("there is no setpriv to start a daemon as another user with")
    paths = os.pathsep.join((str(REPOSITORY), *site.getsitepackages()))
    other_user = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--inh-caps", "-all",
                  "--ambient-caps", "-all", *(("--bounding-set", "-all") if bounded else ()))
    for interpreter in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        words = (*other_user, "env", "HOME=/", f"PYTHONPATH={paths}", interpreter)
        check = subprocess.run([*words, "-c", "import uvloop, virtiofsd._ring.device"], capture_output=True)
        if check.returncode == 0:
            return words
    pytest.skip("a user without rights cannot run the daemon here: it lies where only others can read it")


def given_ids(folder: pathlib.Path) -> list[str]:
    """Words before those of a program, for which the user without rights may use SUB_IDS (subuid(5)), too."""
    if not shutil.which("newuidmap"):
        pytest.skip("there is no newuidmap (Debian: uidmap)")
    file = folder / "sub-ids"
    file.write_text("nobody:{}:{}\n".format(*SUB_IDS))
    in_its_place = 'mount --bind "$0" /etc/subuid && mount --bind "$0" /etc/subgid && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", in_its_place, str(file)]


@contextlib.contextmanager
def public_folder() -> Iterator[pathlib.Path]:
    """One that others can enter: the usual ones are closed to them by each run of tests that begins."""
    with tempfile.TemporaryDirectory() as name:
        pathlib.Path(name).chmod(0o711)
        yield pathlib.Path(name)


def nobodys_folder(parent: pathlib.Path) -> pathlib.Path:
    """A folder of that user's, with a share."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=parent))
    (folder / "share").mkdir()
    for path in (folder, folder / "share"):
        os.chown(path, NOBODY, NOBODY)
    return folder


def user_namespaces() -> bool:
    """Whether a user without rights may make them, and in them what the sandbox needs."""
    words = [*nobodys_python()[:nobodys_python().index("env")], "unshare", "-r", "--mount", "--pid", "--net", "--fork",
             "mount", "-t", "proc", "proc", "/proc"]
    return subprocess.run(words, capture_output=True).returncode == 0
