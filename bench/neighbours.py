"""Slow neighbours: what a stream of GETATTRs, one at a time, feels of something slow on the same queue.

Both sides run where the scheduler likes. The stream alone, in the same round, is what it is compared with. Beside the
neighbour it lasts as long as that does, so that its percentiles are of requests that had one.
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
import statistics
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bench import sessions
from bench.folders import MIB, SetupError, bdi, drop_caches, loop_mount, make_pattern_files, run
from bench.machine import Load, Threads
from bench.measure import insist
from bench.plan import Plan
from bench.rows import WrongError
from bench.sessions import Contestant, Session
from frontend import fuse_abi as abi
from frontend.fuse import ROOT, ReplyError
from frontend.load import Generator, run_in_one_thread
from frontend.operations import Op, Result, forget_op, fsync_op, getattr_op, reads, setattr_op, setlkw_op, unlink_op
from frontend.operations import writes as write_ops

Say = Callable[[str], None]

ROUNDS, QUICK_ROUNDS = 3, 1
ALONE_SECONDS = 0.5
HELD_SECONDS = 0.5          # a lock, or a frozen file system
CLOSING_SECONDS = 2.0       # an unlinked file may be closed after the reply
LOOK_SECONDS = 0.001
TIMEOUT = 60.0
DIRTY_MIB, UNCACHED_MIB, THROTTLED_MIB, THROTTLE_MIB = 256, 512, 256, 32
BIG_MIB, BIG_CACHED_MIB = 10240, 2048
MOUNT_MIB = 1024
LOCK_OWNER = 7


class Neighbour(NamedTuple):
    """One slow thing: its requests, each sent once, `depth` at a time; `release` ends it when it has been held. What
    goes on behind the last reply takes until it is `over`.
    """

    ops: Sequence[Op]
    cycle: int = 1
    depth: int = 1
    release: Callable[[], None] | None = None
    over: Callable[[], bool] | None = None


@dataclass(frozen=True)
class Case:
    """`prepare` is called for each round, and what it yields is over when it goes on."""

    name: str
    title: str
    prepare: Callable[[Session], "contextlib.AbstractContextManager[Neighbour]"]
    options: Sequence[str] = ()     # of this daemon, which the reference has not: it does not take part
    mount: str = ""                 # a file system of its own, mounted in the share under this name


@dataclass
class Stream:
    """Latencies of GETATTRs in all rounds, and nanoseconds that the daemon's threads waited for a CPU meanwhile."""

    latencies: "array[int]" = field(default_factory=lambda: array("I"))
    operations: int = 0
    delay: int = 0

    def add(self, result: Result, delay: int) -> None:
        self.latencies += result.latencies
        self.operations += result.operations
        self.delay += delay

    def summary(self) -> dict[str, float]:
        ordered = sorted(self.latencies)
        return {"operations": self.operations, "p50_us": ordered[len(ordered) // 2] / 1000,
                "p99_us": ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)] / 1000,
                "max_us": ordered[-1] / 1000, "delay_us": self.delay / self.operations / 1000}


# The neighbours


def opened(session: Session, path: pathlib.Path, flags: int = os.O_RDWR) -> tuple[int, int]:
    """Node and handle of a file in the share."""
    node = session.fuse.walk(str(path.relative_to(session.share))).nodeid
    return node, session.fuse.open(node, flags).fh


def removed(session: Session, path: pathlib.Path, node: int, fh: int) -> None:
    """Closes the file and takes it off the disk, which a guest that remembers it might prevent."""
    session.fuse.release(node, fh)
    path.unlink()
    session.fuse.forget(node)


@contextlib.contextmanager
def fsync(session: Session) -> Iterator[Neighbour]:
    path = session.share / f"dirty-{session.contestant.name}"
    with path.open("wb") as file:
        for _ in range(DIRTY_MIB):
            file.write(bytes(MIB))
    node, fh = opened(session, path)
    yield Neighbour([fsync_op(node, fh)])
    removed(session, path, node, fh)


@contextlib.contextmanager
def uncached_reads(session: Session) -> Iterator[Neighbour]:
    path = session.share / "uncached"
    if not path.exists():
        make_pattern_files([path], UNCACHED_MIB * MIB)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    drop_caches()
    session.fuse.getattr(ROOT)
    node, fh = opened(session, path, os.O_RDONLY)
    yield Neighbour(reads(node, fh, MIB, UNCACHED_MIB * MIB), depth=4)
    session.fuse.release(node, fh)


@contextlib.contextmanager
def blocked_lock(session: Session) -> Iterator[Neighbour]:
    path = session.share / "locked"
    path.touch()
    node, fh = opened(session, path)
    with path.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield Neighbour([setlkw_op(node, fh, LOCK_OWNER, fcntl.F_WRLCK)],
                        release=lambda: fcntl.lockf(file, fcntl.LOCK_UN))
    session.fuse.setlk(node, fh, LOCK_OWNER, fcntl.F_UNLCK)
    session.fuse.release(node, fh)


@contextlib.contextmanager
def hung_file_system(session: Session) -> Iterator[Neighbour]:
    """A frozen file system: whoever changes something on it sleeps."""
    mount = session.share / "hung"
    (mount / "file").touch()
    node, fh = opened(session, mount / "file")
    ops = [setattr_op(node, abi.FATTR_MODE, mode=0o100600), *write_ops(node, fh, 4096, 4096)]
    run("fsfreeze", "--freeze", mount)
    frozen = True

    def thaw() -> None:
        nonlocal frozen
        if frozen:
            frozen = False
            run("fsfreeze", "--unfreeze", mount)

    try:
        yield Neighbour(ops, depth=2, release=thaw)
    finally:
        thaw()
    session.fuse.release(node, fh)


@contextlib.contextmanager
def removal(session: Session) -> Iterator[Neighbour]:
    """The last of a big file that is in the page cache in part: its blocks and pages are freed by whoever closes it."""
    name = f"big-{session.contestant.name}"
    path = session.share / name
    size = min(BIG_MIB * MIB, shutil.disk_usage(session.share).free // 2)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
        os.fsync(file.fileno())
    with path.open("rb", buffering=0) as cached:
        buffer = bytearray(MIB)
        for _ in range(min(BIG_CACHED_MIB, size // MIB)):
            cached.readinto(buffer)
    node = session.fuse.lookup(ROOT, name).nodeid
    free = shutil.disk_usage(session.share).free

    def over() -> bool:
        return shutil.disk_usage(session.share).free - free > size * 0.99

    yield Neighbour([unlink_op(ROOT, name), forget_op(node)], cycle=2, over=over)
    if path.exists():
        raise WrongError(f"{name} is still there")


@contextlib.contextmanager
def throttled_writes(session: Session) -> Iterator[Neighbour]:
    """Buffered writes to a disk that may have only so much of dirty data: the kernel lets who writes sleep."""
    path = session.share / "throttled" / f"data-{session.contestant.name}"
    path.touch()
    node, fh = opened(session, path)
    yield Neighbour(write_ops(node, fh, MIB, THROTTLED_MIB * MIB), depth=4)
    removed(session, path, node, fh)


CASES = (
    Case("fsync", f"FSYNC of {DIRTY_MIB} MiB", fsync),
    Case("uncached", "uncached READs of 1 MiB", uncached_reads),
    Case("lock", "a blocked SETLKW", blocked_lock, options=("--posix-lock",)),
    Case("hung", "a frozen file system", hung_file_system, mount="hung"),
    Case("removal", f"UNLINK and FORGET of {BIG_MIB // 1024} GiB", removal),
    Case("dirty", "WRITEs past the dirty limit", throttled_writes, mount="throttled"),
)


# Measuring


@contextlib.contextmanager
def stopped_when(over: Callable[[], bool], main: Generator) -> Iterator[None]:
    """Has a thread stop the stream when something is over."""
    ended = threading.Event()

    def watch() -> None:
        while not over():
            if ended.wait(LOOK_SECONDS):
                return
        main.stop()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def beside(main: Generator, session: Session, neighbour: Neighbour) -> tuple[Result, float]:
    """The stream's result, and how long the neighbour took."""
    other = Generator(session.device.queues[1], neighbour.ops, depth=neighbour.depth, cycle=neighbour.cycle)
    timer = threading.Timer(HELD_SECONDS, neighbour.release) if neighbour.release else None
    if timer:
        timer.start()
    with stopped_when(neighbour.over, main) if neighbour.over else contextlib.nullcontext():
        try:
            result, others = run_in_one_thread([main, other], counts=[0, len(neighbour.ops)],
                                               linger=CLOSING_SECONDS if neighbour.over else 0.0, timeout=TIMEOUT)
        finally:
            if timer:
                timer.join()
    insist(others)
    other.close()
    return insist(result), result.seconds


def measure(case: Case, contestants: Sequence[Contestant], work: pathlib.Path, share: pathlib.Path,
            rounds: int) -> dict[str, Any]:
    alone = {each.name: Stream() for each in contestants}
    together = {each.name: Stream() for each in contestants}
    seconds: dict[str, list[float]] = {each.name: [] for each in contestants}
    busy = 0
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(Session(contestant, work, share, options=case.options))
                   for contestant in contestants]
        own = [session.pid for session in started]
        for number in range(rounds):
            for session in started if number % 2 == 0 else reversed(started):
                name = session.contestant.name
                stat = session.fuse.walk("watched")
                main = Generator(session.device.queues[1], [getattr_op(stat.nodeid, stat.attr_ino)])
                before, load = Threads.of(session.pid), Load.now(own)
                result = insist(main.run(seconds=ALONE_SECONDS))
                busy += Load.now(own).busy_since(load)
                alone[name].add(result, Threads.of(session.pid).delay - before.delay)
                with case.prepare(session) as neighbour:
                    before, load = Threads.of(session.pid), Load.now(own)
                    result, took = beside(main, session, neighbour)
                    busy += Load.now(own).busy_since(load)
                    together[name].add(result, Threads.of(session.pid).delay - before.delay)
                seconds[name].append(took)
                main.close()
    return {name: {"alone": alone[name].summary(), "beside": together[name].summary(),
                   "neighbour_seconds": statistics.median(seconds[name]), "busy": f"{busy}" if busy else ""}
            for name in alone}


@contextlib.contextmanager
def own_mount(work: pathlib.Path, share: pathlib.Path, name: str) -> Iterator[None]:
    with loop_mount(work / f"{name}.img", MOUNT_MIB, share / name, direct=True) as device:
        if name == "throttled":
            settings = bdi(device)
            try:
                (settings / "strict_limit").write_text("1")
                (settings / "max_bytes").write_text(str(THROTTLE_MIB * MIB))
            except OSError as error:
                raise SetupError(f"the kernel cannot limit dirty data of one disk: {error}") from None
        yield


def measure_all(plan: Plan, work: pathlib.Path, say: Say) -> list[dict[str, Any]]:
    share = work / "neighbours"
    share.mkdir()
    (share / "watched").touch()
    ours, reference = sessions.ours(), sessions.reference()
    results: list[dict[str, Any]] = []
    for case in CASES:
        if case.name not in plan.cases:
            continue
        found: dict[str, Any] = {"name": case.name, "title": case.title}
        say(f"GETATTR beside {case.title}")
        try:
            if not all(ours.knows(option) for option in case.options):
                raise SetupError(f"the daemon has no {' '.join(case.options)}")
            with own_mount(work, share, case.mount) if case.mount else contextlib.nullcontext():
                found["contestants"] = measure(case, [ours] if case.options else [ours, reference], work, share,
                                               QUICK_ROUNDS if plan.quick else ROUNDS)
            for name, each in found["contestants"].items():
                say(f"    {name}: " + ", ".join(
                    f"{key[:-3]} {each['alone'][key]:.0f} -> {each['beside'][key]:.0f} us"
                    for key in ("p50_us", "p99_us", "max_us")) + f" for {each['neighbour_seconds'] * 1000:.0f} ms")
        except SetupError as error:
            found["skipped"] = f"not measured: {error}"
            say(f"    {found['skipped']}")
        except (WrongError, ReplyError, RuntimeError, OSError) as error:
            found["error"] = str(error)
            say(f"    ERROR: {error}")
        results.append(found)
    return results
