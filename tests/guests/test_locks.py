"""Locks that reach the host exclude two guests and the host's processes; without the options they stay in a guest."""

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest.boot import Kernel
from tests.guests.conftest import GetPlace
from tests.guests.support import INSIDE, SLOW, Place, Scene, Session, python

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]

FLOCK, POSIX = "fcntl.flock", "fcntl.lockf"
EXCLUSIVE, SHARED, UNLOCK = "fcntl.LOCK_EX", "fcntl.LOCK_SH", "fcntl.LOCK_UN"
NOW = "fcntl.LOCK_NB"
KINDS = pytest.mark.parametrize("kind", [FLOCK, POSIX])
REFUSED = "EAGAIN"


def opened(place: Place, tag: str = "locks") -> Session:
    """A process that has the file open, as `file`."""
    path = place.host(tag) / "file"
    if not path.exists():
        path.write_bytes(bytes(100))
    session = place.session(tag)
    session.do("file = os.open('file', os.O_RDWR)")
    return session


@contextlib.contextmanager
def host_lock(path: Path, kind: str, operation: int) -> Iterator[None]:
    """A process of the host's holds this lock."""
    program = f"import fcntl, sys; file = open(sys.argv[1], 'r+'); {kind}(file, {operation}); print(flush=1); input()"
    command = [sys.executable, "-c", program, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin
        assert holder.stdout
        holder.stdout.readline()
        yield
        holder.stdin.write(b"\n")


def host_can(path: Path, kind: str) -> bool:
    """Whether the host gets an exclusive lock at once."""
    with path.open("r+") as file:
        try:
            (fcntl.flock if kind == FLOCK else fcntl.lockf)(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


@KINDS
def test_two_guests_and_the_host_exclude_each_other(places: GetPlace, kind: str) -> None:
    path = places("qemu").host("locks") / "file"
    one, two = opened(places("qemu")), opened(places("uml"))
    one.do(f"{kind}(file, {EXCLUSIVE})")
    assert two.do(f"{kind}(file, {EXCLUSIVE} | {NOW})") == REFUSED
    assert two.do(f"{kind}(file, {SHARED} | {NOW})") == REFUSED
    assert not host_can(path, kind)
    one.do(f"{kind}(file, {SHARED})")
    two.do(f"{kind}(file, {SHARED} | {NOW})")
    assert not host_can(path, kind)
    assert one.do(f"{kind}(file, {EXCLUSIVE} | {NOW})") == REFUSED
    for session in (one, two):
        session.do(f"{kind}(file, {UNLOCK})")
    with host_lock(path, kind, fcntl.LOCK_EX):
        assert one.do(f"{kind}(file, {EXCLUSIVE} | {NOW})") == REFUSED
        assert two.do(f"{kind}(file, {SHARED} | {NOW})") == REFUSED
    two.do(f"{kind}(file, {EXCLUSIVE} | {NOW})")


@KINDS
def test_a_lock_is_waited_for(places: GetPlace, kind: str) -> None:
    one, two = opened(places("qemu")), opened(places("uml"))
    one.do(f"{kind}(file, {EXCLUSIVE})")
    two.begin(f"{kind}(file, {EXCLUSIVE})")
    assert two.waits()
    # Who waits holds up nobody else, not in its own guest either.
    assert places("uml").run("echo text >other; cat other", "locks") == "text\n"
    one.do(f"{kind}(file, {UNLOCK})")
    assert two.answer() is None
    one.begin(f"{kind}(file, {SHARED})")
    assert one.waits()
    two.kill()
    assert one.answer() is None


@KINDS
def test_a_killed_process_has_no_locks(places: GetPlace, kind: str) -> None:
    one, two = opened(places("qemu")), opened(places("uml"))
    one.do(f"{kind}(file, {EXCLUSIVE})")
    one.kill()
    two.begin(f"{kind}(file, {EXCLUSIVE})")
    assert two.answer() is None


def test_ranges_are_locked_one_by_one(places: GetPlace) -> None:
    path = places("qemu").host("locks") / "file"
    one, two = opened(places("qemu")), opened(places("uml"))
    one.do(f"{POSIX}(file, {EXCLUSIVE}, 10, 0)")
    two.do(f"{POSIX}(file, {EXCLUSIVE} | {NOW}, 10, 10)")
    assert two.do(f"{POSIX}(file, {EXCLUSIVE} | {NOW}, 10, 9)") == REFUSED
    one.do(f"{POSIX}(file, {UNLOCK}, 5, 0)")
    two.do(f"{POSIX}(file, {EXCLUSIVE} | {NOW}, 5, 0)")
    with path.open("r+") as file:
        for start in (0, 6, 19):
            with pytest.raises(BlockingIOError):
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, start)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 0, 20)


def test_who_asks_is_told_what_is_locked(places: GetPlace) -> None:
    one, two = opened(places("qemu")), opened(places("uml"))
    ask = "__import__('struct').unpack('hhqqi', fcntl.fcntl(file, fcntl.F_GETLK, " \
          "__import__('struct').pack('hhqqi', fcntl.F_WRLCK, 0, 0, 0, 0) + bytes(4))[:28])"
    assert two.do(ask)[0] == fcntl.F_UNLCK
    one.do(f"{POSIX}(file, {SHARED}, 10, 20)")
    kind, _, start, length, _ = two.do(ask)
    assert (kind, start, length) == (fcntl.F_RDLCK, 20, 10)


def test_closing_any_descriptor_gives_posix_locks_up(places: GetPlace) -> None:
    one, two = opened(places("qemu")), opened(places("uml"))
    one.do(f"{POSIX}(file, {EXCLUSIVE})")
    one.do("os.close(os.open('file', os.O_RDONLY))")
    two.do(f"{POSIX}(file, {EXCLUSIVE} | {NOW})")


def test_flock_belongs_to_the_open_file(places: GetPlace) -> None:
    one, two = opened(places("qemu")), opened(places("uml"))
    one.do("copy = os.dup(file)")
    one.do("second = os.open('file', os.O_RDWR)")
    one.do(f"{FLOCK}(file, {EXCLUSIVE})")
    assert one.do(f"{FLOCK}(second, {EXCLUSIVE} | {NOW})") == REFUSED
    one.do("os.close(file)")
    assert two.do(f"{FLOCK}(file, {EXCLUSIVE} | {NOW})") == REFUSED
    one.do("os.close(copy)")
    two.do(f"{FLOCK}(file, {EXCLUSIVE} | {NOW})")


@KINDS
def test_without_the_options_locks_stay_in_the_guest(places: GetPlace, kind: str) -> None:
    path = places("qemu").host() / "file"
    one, two = opened(places("qemu"), "plain"), opened(places("uml"), "plain")
    one.do(f"{kind}(file, {EXCLUSIVE} | {NOW})")
    two.do(f"{kind}(file, {EXCLUSIVE} | {NOW})")
    assert host_can(path, kind)
    third = places("qemu").session()
    assert third.do(f"{kind}(os.open('file', os.O_RDWR), {EXCLUSIVE} | {NOW})") == REFUSED


COUNT = """
import fcntl
for turn in range(TURNS):
    with open("lock", "r+") as lock:
        LOCK(lock, fcntl.LOCK_EX)
        with open("counter", "r+") as file:
            value = int(file.read())
            file.seek(0)
            file.write(f"{value + 1:08d}")
"""


@KINDS
def test_counting_in_two_guests_and_the_host_loses_nothing(places: GetPlace, kind: str) -> None:
    """Under the lock each opens the counter anew: with --attr-timeout 0 it must find what the last one wrote."""
    host = places("qemu").host("locks")
    (host / "lock").write_text("")
    (host / "counter").write_text("00000000")
    turns = {"qemu": 60, "uml": 100, "host": 300}
    program = COUNT.replace("LOCK(lock", f"{kind}(lock")
    failures: list[BaseException] = []

    def in_guest(name: str) -> None:
        try:
            places(name).run(python(program.replace("TURNS", str(turns[name]))), "locks", timeout=4 * SLOW)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=in_guest, args=(name,)) for name in ("qemu", "uml")]
    for thread in threads:
        thread.start()
    subprocess.run([sys.executable, "-c", program.replace("TURNS", str(turns["host"]))], cwd=host, check=True,
                   timeout=4 * SLOW)
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert int((host / "counter").read_text()) == sum(turns.values())


@KINDS
def test_two_guests_and_the_host_hammer_the_same_files(places: GetPlace, kind: str) -> None:
    """No change is lost, and whoever opens a file has the last one's contents, size and name."""
    host = places("qemu").host("locks")
    places("uml")
    lock = kind.removeprefix("fcntl.")
    subprocess.run([sys.executable, "-Bc", "import hammer; hammer.begin()"], cwd=host, check=True,
                   env={**os.environ, "PYTHONPATH": str(INSIDE)})
    turns = {"qemu": 25, "uml": 50, "host": 100}
    failures: list[BaseException] = []

    def in_guest(name: Kernel) -> None:
        script = "".join(f"python3 /run/inside/hammer.py {lock} {turns[name]} {name}{number} & pids=\"$pids $!\"\n"
                         for number in range(2))
        try:
            places(name).run(f"{script}for pid in $pids; do wait $pid || exit 1; done", "locks", timeout=8 * SLOW)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=in_guest, args=(name,)) for name in ("qemu", "uml")]
    for thread in threads:
        thread.start()
    command = [sys.executable, "-B", INSIDE / "hammer.py", lock, str(turns["host"]), "host"]
    on_host = subprocess.run(command, cwd=host, timeout=8 * SLOW)
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert on_host.returncode == 0
    versions = [int((host / f"file{number}").read_bytes().split()[0]) for number in range(4)]
    assert sum(versions) == 2 * turns["qemu"] + 2 * turns["uml"] + turns["host"]


@KINDS
def test_a_guest_whose_plug_is_pulled_has_no_locks(scene: Scene, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    path = folder / "file"
    path.touch()
    share = scene.share("myfs", "--posix-lock", "--flock", folder=folder, mount="/run/myfs")
    guest = scene.guest(scene.debian(), share, kernel="uml")
    program = (f"import fcntl, time; file = open('/run/myfs/file', 'r+'); {kind}(file, {EXCLUSIVE}); "
               "open('/tmp/locked', 'w'); time.sleep(1000)")
    guest.run(f'python3 -c "{program}" >/dev/null 2>&1 & until [ -e /tmp/locked ]; do sleep 0.1; done', check=True)
    assert not host_can(path, kind)
    scene.may_end.update(scene.daemons)
    guest.kill()
    deadline = time.monotonic() + SLOW
    while not host_can(path, kind):
        assert time.monotonic() < deadline
        time.sleep(0.05)
