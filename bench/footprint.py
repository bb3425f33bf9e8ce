"""What a daemon costs apart from requests: its start, its rest, and memory for what the guest knows."""

import os
import pathlib
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench import sessions
from bench.folders import make_files
from bench.machine import Threads, read
from bench.measure import insist
from bench.plan import Plan
from bench.sessions import Contestant, Session
from frontend.back_end import BackEnd
from frontend.load import Generator
from frontend.operations import lookup_op
from frontend.vhost_user import Connection

Say = Callable[[str], None]

STARTS, QUICK_STARTS = 15, 5
IDLE_SECONDS, QUICK_IDLE_SECONDS = 10, 2
SETTLE_SECONDS, ENDING_SECONDS = 0.5, 7.0      # until memory is given back, until surplus threads have ended
FOLDER_FILES = 10_000
INODES, QUICK_INODES = (20_000, 1_000_000), (20_000,)


def start(plan: Plan, work: pathlib.Path, say: Say) -> dict[str, Any]:
    """Start-up times in turn, medians; and what an idle daemon with a guest does."""
    contestants = [sessions.ours(), sessions.reference()]
    # As after an installation: not with modules that were never compiled, or not kept.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    start_once(contestants[0], work / "start")
    times: dict[str, list[dict[str, float]]] = {each.name: [] for each in contestants}
    bare: list[float] = []
    for _ in range(QUICK_STARTS if plan.quick else STARTS):
        for contestant in contestants:
            times[contestant.name].append(start_once(contestant, work / "start"))
        bare.append(run_time([sys.executable, "-I", "-c", "pass"]))
    found: dict[str, Any] = {
        name: {key: statistics.median(each[key] for each in measured) for key in measured[0]}
        for name, measured in times.items()}
    for contestant in contestants:
        found[contestant.name].update(rest(contestant, work, QUICK_IDLE_SECONDS if plan.quick else IDLE_SECONDS))
    found["python -c pass"] = {"help": statistics.median(bare)}
    for name, each in found.items():
        say(f"{name}: {', '.join(f'{key} {value * 1000:.1f} ms' for key, value in each.items() if 'idle' not in key)}")
    return found


def run_time(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def start_once(contestant: Contestant, folder: pathlib.Path) -> dict[str, float]:
    began = time.perf_counter()
    with BackEnd(contestant.program, folder, ["--sandbox", "none"]) as back_end:
        with connected(str(back_end.socket)) as connection:
            listening = time.perf_counter() - began
            Connection(connection, 10).get_features()
            features = time.perf_counter() - began
            cpu = back_end.cpu_seconds()
        back_end.stop()
        back_end.socket.unlink(missing_ok=True)
    return {"listening": listening, "features": features, "cpu": cpu,
            "help": run_time([*contestant.program, "--help"]), "version": run_time([*contestant.program, "--version"])}


def connected(path: str) -> socket.socket:
    """Tries until somebody listens."""
    deadline = time.monotonic() + 10
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(path)
            return connection
        except OSError:
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.0002)


def rest(contestant: Contestant, work: pathlib.Path, seconds: int) -> dict[str, float]:
    """How often its threads wake up, and what CPU they use, while the guest is idle."""
    (work / "rest").mkdir(exist_ok=True)
    with Session(contestant, work, work / "rest") as session:
        for _ in range(1000):
            session.fuse.getattr(1)
        time.sleep(ENDING_SECONDS)
        sleeps, cpu = Threads.of(session.pid).sleeps, session.back_end.cpu_seconds()
        time.sleep(seconds)
        return {"idle_seconds": seconds, "idle_sleeps": Threads.of(session.pid).sleeps - sleeps,
                "idle_cpu": session.back_end.cpu_seconds() - cpu}


def resident(pid: int) -> int:
    """Bytes of anonymous memory that are there: what files are mapped does not grow with inodes."""
    line = next(line for line in read(f"/proc/{pid}/status").splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def inodes(plan: Plan, work: pathlib.Path, share: pathlib.Path, say: Say) -> dict[str, Any]:
    """Each daemon gets so many files looked up, one after the other."""
    steps = QUICK_INODES if plan.quick else INODES
    folders = [share / f"many/{number:03}" for number in range(max(steps) // FOLDER_FILES)]
    say(f"making {max(steps):,} files")
    for folder in folders:
        make_files(folder, FOLDER_FILES, 0)
    found: dict[str, Any] = {}
    for contestant in (sessions.ours(), sessions.reference()):
        with Session(contestant, work, share) as session:
            session.fuse.getattr(1)
            before = resident(session.pid)
            found[contestant.name] = [{"inodes": 0, "rss": before, "bytes_each": None, "rate": None,
                                       "descriptors": len(os.listdir(f"/proc/{session.pid}/fd"))}]
            known, seconds = 0, 0.0
            for folder in folders:
                parent = session.fuse.walk(str(folder.relative_to(share))).nodeid
                ops = [lookup_op(parent, entry.name, entry.inode()) for entry in os.scandir(folder)]
                generator = Generator(session.device.queues[1], ops, depth=16)
                seconds += insist(generator.run(count=len(ops))).seconds
                generator.close()
                known += len(ops)
                if known in steps:
                    time.sleep(SETTLE_SECONDS)
                    rss = resident(session.pid)
                    step = {"inodes": known, "rss": rss, "bytes_each": (rss - before) / known, "rate": known / seconds,
                            "descriptors": len(os.listdir(f"/proc/{session.pid}/fd")),
                            "descriptor_limit": resource.prlimit(session.pid, resource.RLIMIT_NOFILE)[0]}
                    found[contestant.name].append(step)
                    say(f"{contestant.name}: {known:,} inodes, {step['bytes_each']:.0f} bytes each, "
                        f"{step['descriptors']:,} descriptors")
    return found
