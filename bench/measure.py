"""One row in one variant: alternating rounds of every contestant, and what each of them did."""

import contextlib
import itertools
import os
import pathlib
import statistics
import subprocess
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from bench import syscalls
from bench.folders import MIB
from bench.host import HostLoop
from bench.machine import Cpus, Load, Threads
from bench.rows import HostProgram, Place, Row, Stream, WrongError
from bench.sessions import HOST, Contestant, Session
from frontend.load import Generator, run_in_one_thread, run_together
from frontend.memory import GuestMemory
from frontend.operations import Result

APART, FREE, CROWDED = "apart", "free", "crowded"
CROWDED_LONGER = 4      # a scheduler needs its time slices, of milliseconds, to be fair
SPINNING, SLEEPING = "spinning", "sleeping"
LEAD_IN = 0.02          # seconds of the same before what is timed
COUNT_SECONDS = 0.1     # of the pass that counts system calls
HOST_MIB = 4            # for each request in flight: the pages are scattered over twice their size


class Variant(NamedTuple):
    """How the guest behaves, and where the two sides run.

    apart: on CPUs of their own; free: where the scheduler likes; crowded: so too, beside a busy process on each CPU.
    """

    depth: int = 1
    queues: int = 1
    guest: str = SPINNING
    placement: str = APART

    def __str__(self) -> str:
        return f"depth {self.depth}, {self.queues} queue{'s' * (self.queues > 1)}, {self.guest}, {self.placement}"


@dataclass
class Round:
    """What one contestant did in one round. Rate and `cpu_us` are for the row's unit, the rest is for a request."""

    rate: float
    cpu_us: float
    p50_us: float
    p99_us: float
    max_us: float
    bytes_per_second: float
    kicks: float = 0.0
    wake_ups: float = 0.0
    interrupts: float = 0.0
    delay_us: float = 0.0       # the daemon's threads waited for a CPU
    busy: bool = False          # others used the machine


@dataclass
class Measured:
    """A contestant's rounds. `syscalls` a request are None where they were not counted."""

    rounds: list[Round] = field(default_factory=list)
    syscalls: float | None = None

    def median(self, name: str) -> float:
        return float(statistics.median(getattr(each, name) for each in self.rounds))

    def summary(self) -> dict[str, Any]:
        names = [name for name in asdict(self.rounds[0]) if name != "busy"]
        return {**{name: self.median(name) for name in names}, "syscalls": self.syscalls,
                "busy_rounds": sum(each.busy for each in self.rounds), "rounds": [asdict(each) for each in self.rounds]}


def joined(results: Sequence[Result]) -> Result:
    """Several queues' results as one."""
    if len(results) == 1:
        return results[0]
    total = {name: sum(getattr(each, name) for each in results)
             for name in ("operations", "cpu_seconds", "wrong_header", "wrong_length", "wrong_error", "wrong_data",
                          "data_bytes", "kicks", "kicks_saved", "calls", "wake_ups")}
    return Result(**total, seconds=max(each.seconds for each in results), sampled=1,
                  stalled=any(each.stalled for each in results), ring_error=min(each.ring_error for each in results),
                  latencies=array("I", itertools.chain.from_iterable(each.latencies for each in results)))


def insist(result: Result) -> Result:
    """Raises WrongError where a reply was wrong or missing."""
    if not result.good:
        counts = {name: getattr(result, name) for name in
                  ("wrong_header", "wrong_length", "wrong_error", "wrong_data", "stalled", "ring_error")}
        raise WrongError(f"of {result.operations} replies: {({name: n for name, n in counts.items() if n})}")
    return result


class Guest:
    """The load of one variant on a session's queues."""

    def __init__(self, session: Session, stream: Stream, variant: Variant, cpus: Cpus) -> None:
        self.stream, self.variant = stream, variant
        sleeping = variant.guest == SLEEPING
        indices = [stream.queue] if variant.queues == 1 else range(1, variant.queues + 1)
        self.generators = []
        for number, index in enumerate(indices):
            # Each queue begins elsewhere in the stream.
            start = len(stream.ops) // stream.cycle * number // variant.queues * stream.cycle
            ops = [*stream.ops[start:], *stream.ops[:start]]
            self.generators.append(Generator(session.device.queues[index], ops, depth=variant.depth,
                                             cycle=stream.cycle, sleeping=sleeping))
        self.cpus = [cpus.guest[number % len(cpus.guest)] for number in range(variant.queues)]
        self.one_thread = not sleeping and variant.queues > len(cpus.guest)

    def run(self, seconds: float = 0.0, count: int = 0) -> Result:
        pinned = self.variant.placement == APART
        if self.variant.queues == 1 or self.one_thread:
            results = run_in_one_thread(self.generators, counts=[count] * len(self.generators), seconds=seconds,
                                        cpu=self.cpus[0] if pinned else None)
        else:
            results = run_together(self.generators, cpus=self.cpus if pinned else None, count=count, seconds=seconds)
        return insist(joined(results))

    def close(self) -> None:
        for generator in self.generators:
            generator.close()


def daemon_round(session: Session, guest: Guest, seconds: float, fresh: bool, own: Sequence[int]) -> Round:
    stream = guest.stream
    if not fresh:
        guest.run(LEAD_IN)
    cpu, threads, load = session.settled_cpu_seconds(), Threads.of(session.pid), Load.now(own)
    result = guest.run(count=len(stream.ops)) if fresh else guest.run(seconds)
    busy = guest.variant.placement != CROWDED and Load.now(own).busy_since(load)
    after = Threads.of(session.pid)
    units = result.operations / stream.cycle * stream.units
    cpu = session.settled_cpu_seconds() - cpu
    return Round(
        rate=units / result.seconds, cpu_us=cpu / units * 1e6, p50_us=result.percentile(50),
        p99_us=result.percentile(99), max_us=max(result.latencies) / 1000,
        bytes_per_second=result.data_bytes / result.seconds, kicks=result.kicks / result.operations,
        wake_ups=(after.sleeps - threads.sleeps) / result.operations, interrupts=result.calls / result.operations,
        delay_us=(after.delay - threads.delay) / result.operations / 1000, busy=busy)


def count_calls(session: Session, guest: Guest, fresh: bool) -> float | None:
    """System calls a request, outside of what is timed."""
    if syscalls.method() is None:
        return None
    with syscalls.counted(session.pid) as count:
        result = guest.run(count=len(guest.stream.ops)) if fresh else guest.run(COUNT_SECONDS)
    return count.calls / result.operations


def spread(memories: Sequence[GuestMemory]) -> None:
    """Has memories of guests taken by turns, so that none has the best of it (as bench.folders.write_patterns)."""
    regions = [region for memory in memories for region in memory.regions]
    for at in range(0, max(region.size for region in regions), MIB):
        for region in regions:
            if at < region.size:
                os.posix_fallocate(region.fd, region.mmap_offset + at, min(MIB, region.size - at))


def host_round(program: HostProgram, memory: GuestMemory, seconds: float, fresh: bool, cpus: Cpus, variant: Variant,
               own: Sequence[int]) -> Round:
    memory.reset()
    loop = HostLoop(program.calls, memory, cycle=program.cycle, buffers=variant.depth)
    cpu = cpus.daemon[0] if variant.placement == APART else None
    if not fresh:
        loop.run(seconds=LEAD_IN, cpu=cpu)
    load = Load.now(own)
    result = loop.run(count=len(program.calls), cpu=cpu) if fresh else loop.run(seconds=seconds, cpu=cpu)
    busy = Load.now(own).busy_since(load)
    if not result.good:
        raise WrongError(f"{HOST}: {result.wrong_error} system calls have failed")
    cycles = result.operations / program.cycle
    return Round(rate=cycles / result.seconds, cpu_us=result.cpu_seconds / cycles * 1e6,
                 p50_us=result.percentile(50), p99_us=result.percentile(99), max_us=max(result.latencies) / 1000,
                 bytes_per_second=result.data_bytes / result.seconds, busy=busy)


@contextlib.contextmanager
def crowd() -> Iterator[None]:
    """A busy process on every CPU."""
    with contextlib.ExitStack() as stack:
        for cpu in os.sched_getaffinity(0):
            code = f"import os\nos.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", code]))
            stack.callback(process.kill)
        yield


def measure(row: Row, variants: Sequence[Variant], contestants: Sequence[Contestant], work: pathlib.Path,
            share: pathlib.Path, cpus: Cpus, rounds: int, seconds: float,
            with_host: bool) -> Iterator[tuple[Variant, dict[str, Measured]]]:
    """Measures variants that differ in depth and guest only, with the same processes. Raises WrongError."""
    first = variants[0]
    with contextlib.ExitStack() as stack:
        if first.placement == CROWDED:
            stack.enter_context(crowd())
            seconds *= CROWDED_LONGER
        sessions = [stack.enter_context(Session(contestant, work, share, queues=first.queues,
                                                cpus=cpus.daemon if first.placement == APART else None))
                    for contestant in contestants]
        memories = [session.device.memory for session in sessions]
        host_memory = None
        if with_host and row.host:
            host_memory = stack.enter_context(GuestMemory.simple(HOST_MIB * max(each.depth for each in variants)))
            memories.append(host_memory)
        spread(memories)
        streams = {} if row.fresh else {session.contestant.name: row.prepare(session) for session in sessions}
        own = [session.pid for session in sessions]
        for variant in variants:
            yield variant, measure_variant(row, variant, sessions, streams, share, cpus, rounds, seconds, own,
                                           host_memory if variant.guest == SPINNING else None)


def measure_variant(row: Row, variant: Variant, sessions: Sequence[Session], streams: dict[str, Stream],
                    share: pathlib.Path, cpus: Cpus, rounds: int, seconds: float, own: Sequence[int],
                    host_memory: GuestMemory | None) -> dict[str, Measured]:
    """`host_memory`: of the bare host, which takes part then."""
    found = {session.contestant.name: Measured() for session in sessions}
    guests: dict[str, Guest] = {}

    def guest_of(session: Session) -> Guest:
        """Made once, or for each round where that changes what there is."""
        name = session.contestant.name
        if row.fresh:
            return Guest(session, row.prepare(session), variant, cpus)
        if name not in guests:
            guests[name] = Guest(session, streams[name], variant, cpus)
        return guests[name]

    def host() -> None:
        assert host_memory and row.host
        place = Place(share)
        try:
            measured = host_round(row.host(place), host_memory, seconds, row.fresh, cpus, variant, own)
            found.setdefault(HOST, Measured()).rounds.append(measured)
        finally:
            place.close()

    if row.renew:
        row.renew([*(session.own for session in sessions), *([share / HOST] if host_memory else [])])
    for number in range(rounds):
        turn: list[Session | None] = [*sessions]
        if host_memory:
            turn.append(None)
        for session in turn if number % 2 == 0 else reversed(turn):
            if session is None:
                host()
                continue
            guest = guest_of(session)
            with named(session):
                found[session.contestant.name].rounds.append(daemon_round(session, guest, seconds, row.fresh, own))
                if row.fresh:
                    guest.stream.check()
                    guest.close()
    for session in sessions:
        if row.fresh and variant.placement != APART:
            continue
        guest = guest_of(session)
        with named(session):
            if variant.placement == APART:
                found[session.contestant.name].syscalls = count_calls(session, guest, row.fresh)
            if guest.stream.whole:
                guest.run(count=len(guest.stream.ops))
            guest.stream.check()
        guest.close()
    return found


@contextlib.contextmanager
def named(session: Session) -> Iterator[None]:
    """Says whose a wrong reply was."""
    try:
        yield
    except WrongError as error:
        raise WrongError(f"{session.contestant.name}: {error}") from None
