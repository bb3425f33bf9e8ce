"""Where less is allowed than on a host: in containers, and below managers that have given up rights."""

import fcntl
import os
import pathlib
import stat
import subprocess
import sys

import pytest

from frontend import fuse_abi
from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from tests.conftest import program
from tests.daemon.sandboxed import NO_ADMIN, needs_root
from tests.daemon.support import wait_until
from tests.running import SECONDS

ROOT = 1
# Forbids unshare(2), as container runtimes do by default to who has no CAP_SYS_ADMIN, and becomes the daemon.
WITHOUT_UNSHARE = """
import errno, os, sys
from virtiofsd import seccomp
from virtiofsd._ring import process
number = seccomp.NUMBERS["unshare"][seccomp.ARCHITECTURES[os.uname().machine][0]]
process.no_new_privileges()
process.seccomp(seccomp.instruction(seccomp.LOAD, seccomp.OFFSET_NUMBER)
                + seccomp.choice(seccomp.JUMP_EQUAL, number, seccomp.ERRNO | errno.EPERM, seccomp.ALLOW))
os.execvp(sys.argv[1], sys.argv[1:])
"""


def without_unshare(folder: pathlib.Path, *words: str) -> subprocess.Popen[str]:
    (folder / "share").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", WITHOUT_UNSHARE, *(NO_ADMIN if os.geteuid() == 0 else ()), *program(),
         "--socket-path", "socket", "--shared-dir", "share", *words],
        cwd=folder, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(pathlib.Path.cwd())})


@needs_root
@pytest.mark.parametrize("mode", ["chroot", "none"])
def test_where_unshare_is_forbidden_guests_apply_the_umask(mode: str, tmp_path: pathlib.Path) -> None:
    """Threads have one umask together then, so that it must not be set for each caller; nor is an ACL to replace it."""
    daemon = without_unshare(tmp_path, "--sandbox", mode, "--posix-acl=auto")
    with VirtioFs(tmp_path / "socket") as device:
        fuse = FuseClient(device)
        fuse.init()
        assert not fuse.flags & (fuse_abi.FUSE_DONT_MASK | fuse_abi.FUSE_POSIX_ACL)
        for number in range(20):
            fuse.mkdir(ROOT, f"folder{number}", 0o770, umask=0o777, uid=1000, gid=1000)
        fuse.setxattr(fuse.lookup(ROOT, "folder0").nodeid, "user.name", b"value")
    assert daemon.wait(SECONDS) == 0
    assert daemon.stderr
    with daemon.stderr as log:
        assert "unshare(2) is forbidden here" in log.read()
    made = [folder.stat() for folder in (tmp_path / "share").iterdir()]
    assert {(stat.S_IMODE(info.st_mode), info.st_uid) for info in made} == {(0o770, 1000)}
    assert os.listdir(tmp_path) == ["share"], "the socket is removed, by whatever name it was given"


def test_where_unshare_is_forbidden_acls_that_must_be_are_refused(tmp_path: pathlib.Path) -> None:
    daemon = without_unshare(tmp_path, "--sandbox", "none", "--posix-acl=always")
    assert daemon.wait(SECONDS) == 1
    assert daemon.stderr
    with daemon.stderr as log:
        assert log.read().splitlines()[-1].startswith("virtiofsd: --posix-acl always: unshare(2) is forbidden here")
    assert os.listdir(tmp_path) == ["share"]


@needs_root
def test_root_that_may_make_no_namespaces_is_told_what_does_without(tmp_path: pathlib.Path) -> None:
    """In a user namespace of its own it would have one id, and serve files that seem to be nobody's."""
    (tmp_path / "share").mkdir()
    result = subprocess.run([*NO_ADMIN, *program(), "--socket-path",
                             tmp_path / "socket", "--shared-dir", tmp_path / "share"],
                            capture_output=True, text=True, timeout=20)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "virtiofsd: --sandbox namespace: root needs the capability CAP_SYS_ADMIN for it; --sandbox chroot and "
        "--sandbox none do without")
    assert os.listdir(tmp_path) == ["share"]


@needs_root
@pytest.mark.parametrize("mode", ["namespace", "chroot"])
def test_the_process_outside_keeps_a_lock_that_it_was_given_and_the_one_that_serves_does_not(
        mode: str, tmp_path: pathlib.Path) -> None:
    """Some callers have a lock go with the daemon, so that nobody starts a second one."""
    (tmp_path / "share").mkdir()
    path = tmp_path / "lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        daemon = subprocess.Popen([*program(), "--socket-path", tmp_path / "socket", "--shared-dir",
                                   tmp_path / "share", "--sandbox", mode], pass_fds=[lock.fileno()])
    with VirtioFs(tmp_path / "socket") as device, path.open() as again:
        FuseClient(device).init()
        with pytest.raises(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        children = pathlib.Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children")
        wait_until(lambda: bool(children.read_text().split()), "the process that serves")
        for child in children.read_text().split():
            assert str(path) not in {os.readlink(fd) for fd in pathlib.Path(f"/proc/{child}/fd").iterdir()}
    assert daemon.wait(SECONDS) == 0
    with path.open() as again:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
