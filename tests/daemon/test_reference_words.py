"""Command lines and what the reference daemon (Rust virtiofsd 1.14) makes of them: this one does the same.

With VIRTIOFSD_REFERENCE, the command of the reference daemon, it is asked itself.
"""

import contextlib
import os
import pathlib
import shlex
import subprocess
import time

import pytest

from tests.conftest import program
from tests.running import SECONDS

STARTS, FAILS, USAGE = None, 1, 2  # exit statuses; None: it goes on to listen

# What stands behind the share, the socket and --sandbox none.
SAME: dict[int | None, list[str]] = {
    STARTS: [
        "", "--cache=never", "--cache=metadata", "--cache always", "--cache=NEVER", "--cache=Auto",
        "--cache=never --cache=always", "--xattr", "--xattr --xattr", "--xattrmap :map::user.virtiofs.:",
        "--posix-acl", "--posix-acl=never", "--posix-acl=auto", "--posix-acl=always", "--security-label",
        "--security-label=auto", "--security-label --security-label=never", "--inode-file-handles=never",
        "--inode-file-handles=prefer", "--inode-file-handles=fallback", "--killpriv-v2", "--no-killpriv-v2",
        "--killpriv-v2 --no-killpriv-v2", "--announce-submounts", "--no-announce-submounts",
        "--announce-submounts --no-announce-submounts", "--readonly", "--writeback", "--writeback --cache=never",
        "--allow-direct-io", "--allow-mmap", "--no-readdirplus", "--preserve-noatime", "--tag myfs", "--tag=käse",
        "--thread-pool-size=0", "--thread-pool-size 1", "--thread-pool-size=64", "--rlimit-nofile=0",
        "--rlimit-nofile=4096", "--log-level=INFO", "--log-level off", "--log-level=trace", "--syslog",
        "--seccomp=none", "--seccomp=log", "--seccomp=trap", "--seccomp=kill", "--translate-uid guest:0:1000:1",
        "--translate-uid=map:0:1000:10 --translate-gid=squash-guest:0:0:1000 --translate-gid=forbid-guest:2000:1",
        "--translate-uid=forbid-guest:0:0", "-f", "-d", "-fd", "-o xattr", "-oxattr", "-o=xattr",
        "-o cache=none,no_posix_lock,no_flock", "-o xattr,no_xattr -o announce_submounts", "-o modcaps=-mknod",
        "--sandbox=NONE", "--modcaps=-mknod", "--migration-mode=find-paths", "--migration-on-error=guest-error",
        "--migration-verify-handles", "--migration-confirm-paths",
    ],
    USAGE: [
        "--bogus", "extra", "--h", "--cach=auto", "--cache", "--cache=none", "--cache=sometimes", "--readonly=yes",
        "--posix-acl=sometimes", "--security-label=1", "--inode-file-handles=always",
        "--log-level=loud", "--tag ''", f"--tag={'x' * 37}", "--thread-pool-size=-1", "--thread-pool-size=many",
        "--rlimit-nofile=-1", "--fd 9", "--fd=9", "--seccomp=maybe", "--sandbox=jail", "--uid-map=0:0:1",
        "--translate-uid=guest:0:1", "--xattrmap=:bogus:", "-o ''", "-o bogus", "-o xattr,,", "-o cache=never",
        "-o cache=bogus", "-o sandbox=none", "-o loglevel=trace", "-o xattr=on", "--print-capabilities --bogus",
        "--migration-mode=sometimes",
    ],
    FAILS: ["--shared-dir /no/such/directory", "--socket-path /no/such/directory/socket",
            "--socket-group no-such-group", "-o source=/no/such/directory"],
}
# Where the reference daemon and this one differ: its status, this one's, and why.
DIFFERENT = {
    "--posix-acl --translate-uid=guest:0:1000:1": (FAILS, USAGE, "all mistakes of a command line are"),
    "--modcaps=+bogus": (FAILS, USAGE, "the same"),
    "--modcaps=mknod": (FAILS, USAGE, "the same"),
    "--uid-map=:0:0:1:": (FAILS, USAGE, "the same"),
    "--rlimit-nofile=100": (FAILS, USAGE, "the same"),
    "--translate-uid=map:0:0:2 --translate-uid=map:1:5:2": (FAILS, USAGE, "the same"),
    "--inode-file-handles prefer": (USAGE, STARTS, "Kata Containers' runtime-rs says it so"),
    "--posix-acl always": (USAGE, STARTS, "a word that stands alone can be nothing else"),
    "-o flock,posix_lock": (USAGE, STARTS, "locks can reach the host"),
    "-o xattrmap==map==user.=": (USAGE, STARTS, "a rule's separator can be any character"),
}


def outcome(command: list[str], folder: pathlib.Path, words: str) -> int | None:
    socket, share = folder / "socket", folder / "share"
    share.mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen([*command, "--shared-dir", share, "--socket-path", socket, "--sandbox", "none",
                                   *shlex.split(words)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if (status := daemon.poll()) is not None:
                return status
            if socket.exists():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return daemon.wait(0.1)  # some mistakes are found after that
                return STARTS
            time.sleep(0.005)
        raise TimeoutError((folder / "log").read_text())
    finally:
        daemon.kill()
        daemon.wait()


OURS = [*((words, status) for status, lines in SAME.items() for words in lines),
        *((words, ours) for words, (_, ours, _) in DIFFERENT.items())]
THEIRS = [*((words, status) for status, lines in SAME.items() for words in lines),
          *((words, theirs) for words, (theirs, _, _) in DIFFERENT.items())]


@pytest.mark.parametrize(("words", "status"), OURS)
def test_words_of_the_reference_daemon(words: str, status: int | None, tmp_path: pathlib.Path) -> None:
    assert outcome(program(), tmp_path, words) == status
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    if status is not STARTS:
        assert log.splitlines()[-1].startswith("virtiofsd: ")


@pytest.mark.skipif(not os.environ.get("VIRTIOFSD_REFERENCE"), reason="VIRTIOFSD_REFERENCE names no reference daemon")
@pytest.mark.parametrize(("words", "status"), THEIRS)
def test_the_reference_daemon_itself(words: str, status: int | None, tmp_path: pathlib.Path) -> None:
    assert outcome(shlex.split(os.environ["VIRTIOFSD_REFERENCE"]), tmp_path, words) == status
