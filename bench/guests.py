"""What Linux guests feel: fio and work on a source tree, in QEMU, on both daemons in turn.

One guest with two CPUs has both shares mounted, and its root on a third, which is not measured. It is emulated, as not
every machine has /dev/kvm: the guest's own kernel and programs take most of the time, and ratios are nearer to 1 than
anybody's will be. The daemon's CPU time is what it is.
"""

import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench import sessions
from bench.folders import MIB, SetupError, make_pattern_files, read_whole
from bench.plan import Plan
from bench.rows import WrongError
from bench.sessions import OURS, REFERENCE, Contestant
from frontend.back_end import BackEnd
from guest import root
from guest.boot import Guest, GuestError, Share
from guest.fetch import FetchError

Say = Callable[[str], None]

ROUNDS, QUICK_ROUNDS = 3, 1
FIO_SECONDS = 3
DATA_MIB = 256
CPUS, MEMORY_MIB = 2, 2048
LIMIT = 300.0               # seconds for one job of an emulated guest
SOURCE = "usr/include"      # of the guest's root tree: some thousand headers
ARCHIVE = "source.tar"


@dataclass(frozen=True)
class Job:
    """A script that runs in a contestant's own folder of its share.

    With `fio` it is fio's arguments, and what counts is its rate in I/Os; otherwise the time that the script takes.
    `cold` has the share mounted anew before, so that the guest knows nothing of it.
    """

    name: str
    title: str
    script: str
    fio: bool = False
    cold: bool = False


def fio(title: str, kind: str, size: str, depth: int, direct: int = 1) -> Job:
    """Depth counts only past the guest's page cache."""
    arguments = (f"--rw={kind} --bs={size} --iodepth={depth} --direct={direct} "
                 f"--ioengine={'libaio' if direct else 'psync'}")
    return Job(f"fio-{kind}-{size}-{depth}{'' if direct else '-cached'}", title, arguments, fio=True, cold=not direct)


JOBS = (
    fio("fio: random reads, 4k, depth 1", "randread", "4k", 1),
    fio("fio: random reads, 4k, depth 16", "randread", "4k", 16),
    fio("fio: random writes, 4k, depth 16", "randwrite", "4k", 16),
    fio("fio: reads in sequence, 1M, depth 4", "read", "1m", 4),
    fio("fio: writes in sequence, 1M, depth 4", "write", "1m", 4),
    fio("fio: reads in sequence, 128k, by the guest's page cache", "read", "128k", 1, direct=0),
    Job("unpack", "tar -x of a source tree", f"tar -xf /{ARCHIVE}"),
    Job("find", "find -ls, nothing cached", "find source -ls", cold=True),
    Job("grep", "grep -r, nothing cached", "grep -r virtiofs source || true", cold=True),
    Job("git-add", "git init, git add", "cd source && git init -q && git add ."),
    Job("git-status-cold", "git status, nothing cached", "git -C source status", cold=True),
    Job("git-status", "git status, once more", "git -C source status"),
    Job("copy", "cp -a of the tree", "cp -a source copy"),
    Job("remove", "rm -r of both", "rm -r source copy"),
)
GIT = "export HOME=/tmp GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'\n"


def measure_all(plan: Plan, work: pathlib.Path, share: pathlib.Path, say: Say) -> dict[str, Any]:
    """Each job's rate or seconds, CPU time, and ratios of medians: above 1 this daemon is faster."""
    if os.geteuid():
        return {"skipped": "a root tree for guests is made by root"}
    contestants = [sessions.ours(), sessions.reference()]
    rounds = QUICK_ROUNDS if plan.quick else ROUNDS
    measured: dict[str, dict[str, list[dict[str, float]]]] = {
        job.name: {each.name: [] for each in contestants} for job in JOBS}
    try:
        with started(contestants, work, share) as (guest, back_ends):
            for turn in range(rounds):
                for contestant in contestants if turn % 2 == 0 else reversed(contestants):
                    for job in JOBS:
                        found = run(job, guest, contestant.name, share, back_ends[contestant.name])
                        measured[job.name][contestant.name].append(found)
                        check(job, share, contestant.name)
            kernel = guest.run("uname -r", check=True).stdout.strip()
    except (FetchError, GuestError) as error:
        raise SetupError(str(error)) from error
    jobs = [summary(job, measured[job.name]) for job in JOBS]
    for each in jobs:
        say(f"    {each['title']}: {each['ratio']:.2f} x reference (CPU {each['cpu_ratio']:.2f})")
    return {"kernel": kernel, "cpus": CPUS, "accelerator": "tcg", "jobs": jobs}


def summary(job: Job, measured: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    medians = {name: {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
               for name, rounds in measured.items()}
    mine, other = medians[OURS], medians[REFERENCE]
    ratio = mine["rate"] / other["rate"] if job.fio else other["seconds"] / mine["seconds"]
    return {"name": job.name, "title": job.title, "contestants": medians, "rounds": measured, "ratio": ratio,
            "cpu_ratio": mine["cpu_us"] / other["cpu_us"]}


@contextlib.contextmanager
def started(contestants: Sequence[Contestant], work: pathlib.Path,
            share: pathlib.Path) -> Iterator[tuple[Guest, dict[str, BackEnd]]]:
    """A guest with each contestant's share at /mnt/<name>, and the daemons that serve them."""
    tree = root.tree()
    folder = work / "guest"
    with contextlib.ExitStack() as stack:
        def back_end(contestant: Contestant, name: str, shared: pathlib.Path, *options: str) -> BackEnd:
            daemon = stack.enter_context(BackEnd(contestant.program, folder / name,
                                                 ["--sandbox", "none", *options], shared))
            sessions.wait_until_it_listens(daemon, name)
            return daemon

        below = back_end(sessions.ours(), "root", tree, "--readonly")
        back_ends = {each.name: back_end(each, each.name, share) for each in contestants}
        for each in contestants:
            own = share / "guests" / each.name
            own.mkdir(parents=True)
            stack.callback(shutil.rmtree, own, ignore_errors=True)
        make_pattern_files([share / "guests" / each.name / "data" for each in contestants], DATA_MIB * MIB)
        shares = [Share(name, daemon.socket, mount=f"/mnt/{name}") for name, daemon in back_ends.items()]
        guest = stack.enter_context(Guest(Share("root", below.socket, mount="/"), *shares, overlay="tmpfs", cpus=CPUS,
                                          memory_mib=MEMORY_MIB))
        guest.run(f"cd /usr && tar -cf /{ARCHIVE} --transform s/^include/source/ include && cat /{ARCHIVE} >/dev/null",
                  timeout=LIMIT, check=True)
        yield guest, back_ends


def run(job: Job, guest: Guest, name: str, share: pathlib.Path, back_end: BackEnd) -> dict[str, float]:
    """One round: seconds or rate (with latencies in the guest), and microseconds of the daemon's CPU for each unit."""
    if job.cold:
        guest.run(f"umount /mnt/{name} && mount -t virtiofs {name} /mnt/{name}", check=True)
    script = job.script
    if job.fio:
        read_whole(share / "guests" / name / "data")
        script = (f"fio --name=job --filename=data --size={DATA_MIB}m --runtime={FIO_SECONDS} --time_based --thread "
                  f"--output-format=json {job.script}")
    else:
        script = f"{GIT}began=$(date +%s%N)\n({script}) >/dev/null\necho $(($(date +%s%N) - began))"
    before = back_end.cpu_seconds()
    output = guest.run(f"set -e\n{script}", timeout=LIMIT, folder=f"/mnt/{name}/guests/{name}", check=True).stdout
    cpu = (back_end.cpu_seconds() - before) * 1e6
    if not job.fio:
        return {"seconds": int(output) / 1e9, "cpu_us": cpu}
    found = json.loads(output)["jobs"][0]
    side = max((found["read"], found["write"]), key=lambda each: int(each["total_ios"]))
    percentiles = side["clat_ns"]["percentile"]
    return {"rate": side["iops"], "p50_us": percentiles["50.000000"] / 1000, "p99_us": percentiles["99.000000"] / 1000,
            "cpu_us": cpu / side["total_ios"]}


def check(job: Job, share: pathlib.Path, name: str) -> None:
    """What a guest has unpacked or copied is compared with the original."""
    made = {"unpack": "source", "copy": "copy"}.get(job.name)
    if made:
        original = root.tree() / SOURCE
        differ = subprocess.run(["diff", "-r", "--no-dereference", "-x", ".git", original,
                                 share / "guests" / name / made], capture_output=True, text=True, check=False)
        if differ.returncode:
            raise WrongError(f"{name}: {job.title} left something else:\n{differ.stdout[:1000]}{differ.stderr}")
