"""Daemons and guests of a test: started together, watched together, and judged together when the test is over."""

import ast
import contextlib
import functools
import os
import re
import shlex
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from frontend.back_end import BackEnd
from guest import boot, root
from guest.boot import Guest, GuestError, Kernel, Result
from guest.fetch import FetchError
from tests.conftest import program
from tests.running import BAD_LINE, Daemon

INSIDE = Path(__file__).with_name("inside")
SLOW = 30.0  # seconds for what takes one on an idle machine: emulated guests share theirs with much else
TAIL = 40  # lines of each log that a failure shows


@functools.cache
def sandbox() -> Sequence[str]:
    """The usual sandbox, unless this machine lets nobody have one."""
    allowed = subprocess.run(["unshare", "--mount", "--pid", "--net", "--fork", "true"], stderr=subprocess.DEVNULL)
    return () if allowed.returncode == 0 else ("--sandbox", "none")


class PlainDaemon(Daemon):
    """A daemon with the options that a test gives it, and no others. That of a user finds its program by a capability.
    """

    def __init__(self, folder: Path, options: Sequence[str], share: Path | None, user: int = 0) -> None:
        prefix: list[str] = []
        if user:
            prefix = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups",
                      "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
            folder.mkdir(parents=True)
            os.chown(folder, user, user)
        BackEnd.__init__(self, [*prefix, *program()], folder, [*sandbox(), *options], share)
        self.expected = []
        self.exit_status = 0


class Scene:
    """The daemons and guests of one test, or of several tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, PlainDaemon] = {}
        self.guests: list[Guest] = []
        self.may_end: set[str] = set()
        self._seen: dict[str, int] = {}

    def share(self, tag: str, *options: str, folder: Path | None = None, mount: str | None = "/mnt",
              name: str | None = None, tell_tag: bool = True, user: int = 0, **how: Any) -> boot.Share:
        """A share with a daemon of its own. `how` is of boot.Share; `name` tells two of the same tag apart; `user` is
        whose process the daemon is.
        """
        name = name or tag
        words = ["--tag", tag] if tell_tag and not any(option.startswith("--tag") for option in options) else []
        daemon = PlainDaemon(self.folder / f"daemon-{name}", [*words, *options], folder, user)
        self.daemons[name] = daemon
        daemon.wait_until_it_listens()
        return boot.Share(tag, daemon.socket, mount=mount, **how)

    def debian(self) -> boot.Share:
        """A Debian root that nobody can change."""
        return self.share("root", "--readonly", "--cache", "always", folder=debian(), mount="/", options="ro")

    def guest(self, *shares: boot.Share, **how: Any) -> Guest:
        """A guest that has booted. It is powered off when the scene ends; a test may do so itself."""
        guest = Guest(*shares, watch=self.complaint, boot_timeout=4 * SLOW,
                      folder=self.folder / f"guest{len(self.guests)}", **how)
        self.guests.append(guest)
        return guest.__enter__()

    def complaint(self) -> str | None:
        """Why no guest can go on: a daemon has ended that should not."""
        for name, daemon in self.daemons.items():
            if not daemon.alive and name not in self.may_end:
                return f"the daemon of {name} has ended (status {daemon.process.returncode})"
        return None

    def problems(self) -> list[str]:
        """What has gone wrong with daemons since this was last asked."""
        return [*self.news(), *filter(None, [self.complaint()])]

    def news(self) -> list[str]:
        """The warnings and errors that daemons have logged since this was last asked."""
        found = []
        for name, daemon in self.daemons.items():
            lines = daemon.log.splitlines()
            found += [f"the daemon of {name} logged: {line}" for line in lines[self._seen.get(name, 0):]
                      if BAD_LINE.search(line) and not any(re.search(pattern, line) for pattern in daemon.expected)]
            self._seen[name] = len(lines)
        return found

    def power_off(self, guest: Guest) -> None:
        """Powers a guest off in good order; its daemons may end, and must with status 0."""
        sockets = {share.socket for share in guest.shares}
        theirs = [name for name, daemon in self.daemons.items() if daemon.socket in sockets]
        self.may_end.update(theirs)
        guest.poweroff(2 * SLOW)
        for name in theirs:
            daemon = self.daemons[name]
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.process.wait(SLOW)
            assert daemon.process.returncode == daemon.exit_status, \
                f"the daemon of {name} is {daemon.process.returncode} when its guest has powered off"

    def end(self) -> list[str]:
        """Ends everything, and says what was wrong with it."""
        problems = []
        for guest in self.guests:
            if guest.alive:
                try:
                    self.power_off(guest)
                except (GuestError, AssertionError) as error:
                    problems.append(str(error))
            guest.kill()
        problems += self.news()
        for name, daemon in self.daemons.items():
            status = daemon.stop()
            if status != daemon.exit_status:
                problems.append(f"the daemon of {name} ended with status {status}")
        return problems

    def kill(self) -> None:
        """Ends everything at once, and asks no questions."""
        for guest in self.guests:
            guest.kill()
        for daemon in self.daemons.values():
            daemon.process.kill()
            daemon.process.wait()

    def report(self, names: Container[str] | None = None) -> str:
        """What helps to find out why a test has failed; of the daemons, those of these names and those that ended."""
        parts = []
        for name, daemon in self.daemons.items():
            if daemon.alive and names is not None and name not in names:
                continue
            state = "runs" if daemon.alive else f"has ended with status {daemon.process.returncode}"
            parts += [f"--- the daemon of {name} {state}", f"$ {shlex.join(daemon.command)}", *tail(daemon.log)]
        for number, guest in enumerate(self.guests):
            parts += [f"--- guest {number} {'runs' if guest.alive else 'has ended'}", f"$ {shlex.join(guest.command)}",
                      *tail(guest.console)]
        return "\n".join(parts)


def tail(text: str) -> list[str]:
    return text.replace("\r", "").splitlines()[-TAIL:]


def children(pid: int) -> list[int]:
    """A process and all below it: in its sandbox a daemon is two."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += children(int(child))
    return found


def debian() -> Path:
    """The Debian tree that guests have as their root, or the test is skipped."""
    if os.geteuid():
        pytest.skip("a Debian tree for guests is made by root")
    try:
        return root.tree()
    except FetchError as error:
        pytest.skip(str(error))


def python(program: str) -> str:
    """A shell script that runs a Python program."""
    return f"python3 - <<'END OF PROGRAM'\n{textwrap.dedent(program)}\nEND OF PROGRAM\n"


# A laboratory: a guest that many tests use one after the other, with a share for every set of options.

RICH = ("--xattr", "--posix-acl", "--modcaps=+sys_admin:+linux_immutable")
USER = 4321
"""Whose the daemons are that have no privileges."""

LABORATORIES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "usual": {
        "plain": (),
        "rich": RICH,
        "exact": ("--attr-timeout", "0", "--entry-timeout", "0", "--negative-timeout", "0"),
        "never": ("--cache", "never"),
        "never-mmap": ("--cache", "never", "--allow-mmap"),
        "metadata": ("--cache", "metadata"),
        "always": ("--cache", "always"),
        "writeback": ("--writeback",),
        "direct": ("--allow-direct-io",),
        "locks": ("--posix-lock", "--flock", "--attr-timeout", "0", "--entry-timeout", "0"),
        "readonly": ("--readonly",),
        "exported": ("--nfs-export",),
        "spare": (),
    },
    "special": {
        "mapped": ("--xattrmap=:map::user.guest.:",),
        "translated": ("--xattr", "--translate-uid=map:0:100000:65536", "--translate-gid=map:0:200000:65536"),
        "squashed": ("--translate-uid=squash-host:0:7:4294967295", "--translate-uid=squash-guest:0:0:4294967295",
                     "--translate-gid=squash-host:0:8:4294967295", "--translate-gid=squash-guest:0:0:4294967295"),
        "faked": ("--override-stat", "--xattr", "--sandbox", "none"),
        "confined": (),
        "access": ("--preserve-noatime",),
        "bare": ("--no-readdirplus", "--no-killpriv-v2", "--descriptor-timeout=0.5", "--sandbox", "none"),
        "nameless": ("--inode-file-handles=mandatory", "--rlimit-nofile=300"),
        "named": ("--inode-file-handles=never", "--rlimit-nofile=300"),
        "unhandled": ("--inode-file-handles=never",),
    },
    "backing": dict.fromkeys(("ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuse"), RICH),
}
"""The shares of each laboratory's guest, mounted at /run/TAG, but for `spare`, and the options of their daemons.

Of the last, each share lies on a file system of its kind.
"""

UNPRIVILEGED = ("faked", "confined")


def let_through(path: Path) -> None:
    """Lets everybody reach what is in a temporary folder."""
    for parent in path.parents:
        if parent == Path(tempfile.gettempdir()):
            break
        parent.chmod(parent.stat().st_mode | 0o011)


class Laboratory:
    """A guest with a Debian root and the shares of one laboratory; the host's side of share TAG is folder/TAG.

    The guests of two laboratories on one folder share what they write.
    """

    def __init__(self, kernel: Kernel, name: str, folder: Path) -> None:
        self.kernel = kernel
        self.folder = folder
        logs = Path(tempfile.mkdtemp(prefix=f"{name}-{kernel}-", dir=folder.parent))
        self.scene = Scene(logs)
        try:
            shares = [self.scene.debian(),
                      self.scene.share("inside", "--readonly", "--cache", "always", folder=INSIDE, mount="/run/inside")]
            for tag, options in LABORATORIES[name].items():
                if name == "backing" and not (folder / tag).is_dir():
                    continue
                (folder / tag).mkdir(exist_ok=True)
                user = USER if tag in UNPRIVILEGED else 0
                if user:
                    os.chown(folder / tag, user, user)
                    let_through(folder / tag)
                mount = None if tag == "spare" else f"/run/{tag}"
                shares.append(self.scene.share(tag, *options, folder=folder / tag, mount=mount, user=user))
            self.guest = self.scene.guest(*shares, kernel=kernel)
            self.guest.run("mkdir /tmp/home", check=True)
        except BaseException:
            self.scene.kill()
            raise

    def run(self, script: str, folder: str, timeout: float = 2 * SLOW, check: bool = True) -> Result:
        """Runs a shell script in a folder below /run."""
        settings = "export HOME=/tmp/home PYTHONDONTWRITEBYTECODE=1\n"
        return self.guest.run(settings + script, folder=f"/run/{folder}", timeout=timeout, check=check)


class Place:
    """One test's place in a laboratory: a folder of its own on each share."""

    def __init__(self, laboratory: Laboratory, name: str) -> None:
        self.laboratory = laboratory
        self.name = name
        self.scene, self.guest, self.kernel = laboratory.scene, laboratory.guest, laboratory.kernel
        self.tags: set[str] = set()

    def host(self, tag: str = "plain") -> Path:
        """The folder as the host sees it."""
        self.tags.add(tag)
        folder = self.laboratory.folder / tag / self.name
        folder.mkdir(exist_ok=True)
        return folder

    def run(self, script: str, tag: str = "plain", **how: Any) -> str:
        """Runs a shell script in the test's folder of a share, and returns what it has written."""
        self.host(tag)
        return self.laboratory.run(script, f"{tag}/{self.name}", **how).stdout

    def python(self, program: str, tag: str = "plain", **how: Any) -> str:
        """Runs a Python program there."""
        return self.run(python(program), tag, **how)

    def fails(self, script: str, tag: str = "plain") -> str:
        """What a script says that must fail."""
        self.host(tag)
        result = self.laboratory.run(script, f"{tag}/{self.name}", check=False)
        assert result.status, f"this did not fail:\n{script}\n{result.stdout}"
        return result.stderr

    def report(self) -> str:
        return self.scene.report(self.tags)

    def session(self, tag: str = "plain") -> "Session":
        """A Python process in the test's folder of a share."""
        self.host(tag)
        return Session(self.laboratory, f"{tag}/{self.name}")


class Session:
    """A Python process in a guest that stays, with what it has open, until the test is over."""

    def __init__(self, laboratory: Laboratory, folder: str) -> None:
        self.laboratory = laboratory
        script = ("place=$(mktemp -d) && mkfifo $place/in && echo $place\n"
                  "python3 /run/inside/session.py $place 2>&1 >/dev/null </dev/null & echo $!")
        self.place, self.pid = laboratory.run(script, folder).stdout.split()

    def do(self, text: str, timeout: float = SLOW) -> Any:
        """Evaluates an expression or runs statements; an OSError is the name of its errno."""
        return self._run(f"{self._tell(text)}\n{self._take()}", timeout)

    def begin(self, text: str) -> None:
        """Begins what may not end before something else is done."""
        self.laboratory.run(self._tell(text), ".")

    def answer(self, timeout: float = SLOW) -> Any:
        """Waits for the answer to what was begun."""
        return self._run(self._take(), timeout)

    def _tell(self, text: str) -> str:
        return f"cat >{self.place}/in <<'END OF TEXT'\n{text}\nEND OF TEXT\n"

    def _take(self) -> str:
        return f"until [ -e {self.place}/out ]; do sleep 0.01; done; cat {self.place}/out; rm {self.place}/out"

    def _run(self, script: str, timeout: float) -> Any:
        return ast.literal_eval(self.laboratory.run(script, ".", timeout=timeout).stdout)

    def waits(self, seconds: float = 0.7) -> bool:
        """Whether what was begun is still not done, after a while."""
        time.sleep(seconds)
        return not self.laboratory.run(f"ls {self.place}", ".").stdout.count("out")

    def kill(self) -> None:
        self.laboratory.run(f"kill -KILL {self.pid}", ".")
