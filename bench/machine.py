"""The machine: what it is, which CPUs the two sides get, and whether something else used it meanwhile."""

import os
import pathlib
import resource
import subprocess
import time
from collections.abc import Iterable
from typing import Any, NamedTuple, Self

PF_KTHREAD = 0x200000
TICKS = os.sysconf("SC_CLK_TCK")
CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
# More than so much of one CPU, of the time measured, taken by others: busy.
OTHERS, STOLEN, DELAYED = 0.05, 0.02, 0.10


def read(path: str) -> str:
    return pathlib.Path(path).read_text().strip()


def facts() -> dict[str, Any]:
    """What a result must say about where it comes from."""
    cpu = next((line.partition(":")[2].strip() for line in read("/proc/cpuinfo").splitlines()
                if line.startswith(("model name", "Model"))), "unknown")
    memory = next(line.split()[1] for line in read("/proc/meminfo").splitlines() if line.startswith("MemTotal"))
    return {"cpu": cpu, "cpus": len(os.sched_getaffinity(0)), "memory_mib": int(memory) // 1024,
            "kernel": os.uname().release, "architecture": os.uname().machine,
            "clocksource": read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[1], "root": os.geteuid() == 0,
            "load_at_start": os.getloadavg()[0],
            "started": time.strftime("%Y-%m-%d %H:%M:%S %z")}


def commit() -> str:
    """The checkout's commit, with a + where the source differs from it."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", CHECKOUT, *arguments], capture_output=True, text=True, check=True).stdout

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "_ring", "virtiofsd", "frontend", "bench")
        return git("rev-parse", "--short=12", "HEAD").strip() + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


class Cpus(NamedTuple):
    """Which CPUs the daemon and the guest get when they are kept apart."""

    daemon: list[int]
    guest: list[int]


def split_cpus() -> Cpus:
    """The first half for the daemon, the last for the guest; what shares a core stays together."""
    def place(cpu: int) -> tuple[int, int, int]:
        topology = f"/sys/devices/system/cpu/cpu{cpu}/topology"
        try:
            return int(read(f"{topology}/physical_package_id")), int(read(f"{topology}/core_id")), cpu
        except OSError:
            return 0, cpu, cpu

    cpus = sorted(os.sched_getaffinity(0), key=place)
    if len(cpus) == 1:
        return Cpus(cpus, cpus)
    half = len(cpus) // 2
    return Cpus(cpus[:half], cpus[half:])


class Load(NamedTuple):
    """What has been used up to a moment. Ticks of others and of the hypervisor, nanoseconds of waits for a CPU."""

    others: int
    stolen: int
    guest_delay: int
    seconds: float

    @classmethod
    def now(cls, own: Iterable[int]) -> Self:
        return cls(others_ticks({os.getpid(), *own}), int(read("/proc/stat").split(maxsplit=9)[8]),
                   int(read("/proc/thread-self/schedstat").split()[1]), time.monotonic())

    def busy_since(self, before: "Load") -> bool:
        """Whether others took so much that what was measured in between may be wrong."""
        seconds = self.seconds - before.seconds
        others, stolen = self.others - before.others, self.stolen - before.stolen
        return (others > max(OTHERS * seconds * TICKS, 1) or stolen > max(STOLEN * seconds * TICKS, 1)
                or self.guest_delay - before.guest_delay > DELAYED * seconds * 1e9)


def others_ticks(own: set[int]) -> int:
    """CPU time of all processes but `own`, with that of their children that have ended; kernel threads not counted."""
    total = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) not in own:
            try:
                fields = read(f"/proc/{entry.name}/stat").rpartition(")")[2].split()
            except OSError:
                continue
            if not int(fields[6]) & PF_KTHREAD:
                total += sum(map(int, fields[11:15]))
    return total


class Threads(NamedTuple):
    """Of all threads of a process: nanoseconds they have waited for a CPU, and how often they went to sleep."""

    delay: int
    sleeps: int

    @classmethod
    def of(cls, pid: int) -> Self:
        delay = sleeps = 0
        for task in os.scandir(f"/proc/{pid}/task"):
            try:
                delay += int(read(f"{task.path}/schedstat").split()[1])
                status = read(f"{task.path}/status")
            except OSError:
                continue
            sleeps += int(status.rpartition("\nvoluntary_ctxt_switches:")[2].split()[0])
        return cls(delay, sleeps)


def running(pid: int) -> bool:
    """Whether one of the process's threads uses a CPU, or waits for one."""
    for task in os.scandir(f"/proc/{pid}/task"):
        try:
            if read(f"{task.path}/stat").rpartition(") ")[2].startswith("R"):
                return True
        except OSError:
            continue
    return False
