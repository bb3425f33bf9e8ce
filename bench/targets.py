"""What was aimed at, and whether a result reaches it.

    python -m bench.targets RESULT.json

Every bound is checked by itself: reached, missed or not measured. The exit status is 1 where one was missed, 2 where
nothing was measured. Ratios are of medians to the reference daemon in the same run.
"""

import json
import math
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from bench.measure import APART, CROWDED, FREE, SLEEPING, SPINNING, Variant
from bench.plan import SMALL
from bench.report import WIDTH, busy
from bench.sessions import HOST, OURS, REFERENCE, UNPOLLED

Row = dict[str, Any]


class Bound(NamedTuple):
    """A value that must be at least, or at most, so much. `value` is None where it was not measured."""

    what: str
    value: float | None
    limit: float
    at_least: bool
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        reached = self.value >= self.limit if self.at_least else self.value <= self.limit
        return "reached" if reached else "missed"


@dataclass(frozen=True)
class Target:
    """One line of the table, for rows in a variant. The bounds are None where there is none."""

    rows: Sequence[str]
    variant: Variant
    rate: float | None = None
    cpu: float | None = None
    to: str = REFERENCE
    of_host: float | None = None        # the rate's part of the host's own
    syscalls: float | None = None
    interrupts: float | None = None


def at(depth: int, guest: str = SPINNING, placement: str = APART) -> Variant:
    return Variant(depth, 1, guest, placement)


DATA = ("read-4k", "write-4k")
BULK = ("read-128k", "write-128k", "read-1m", "write-1m")
TARGETS = (
    Target(("getattr", "lookup", "enoent"), at(16), rate=5, cpu=0.20, syscalls=1.3),
    Target(("setattr", "open"), at(16), rate=1.8, cpu=0.50),
    Target(SMALL, at(1, placement=FREE), rate=3, cpu=0.50),
    Target(SMALL, at(1, placement=CROWDED), rate=0.8, to=UNPOLLED),
    Target(("lookup-cold",), at(16), rate=2, cpu=0.50),
    Target(("readdirplus",), at(16), rate=4, cpu=0.27, of_host=0.50),
    Target(DATA, at(32), rate=2.2, cpu=0.45),
    Target(BULK, at(16), rate=1.2, cpu=0.85),
    Target(("read-128k", "write-128k"), at(1), of_host=0.75),
    Target(("read-1m", "write-1m"), at(1), of_host=0.90),
    Target(("create", "untar"), at(16), rate=1.6, cpu=0.60),
    Target(("git-status",), at(16), rate=4, cpu=0.25),
)
SLEEPING_RATE, SLEEPING_INTERRUPTS = 1.5, 0.2
HELD_US = 20.0          # the longest that a published reply may wait for others to share an interrupt with
MEDIAN_BESIDE, TAIL_BESIDE, TAIL_US = 1.3, 3.0, 200.0
BYTES_EACH, MANY_INODES = 128.0, 1_000_000
MEAN_RATE, MEAN_CPU, WORST_RATE = 3.0, 0.35, 1.0


class Result:
    """Finds what was measured."""

    def __init__(self, result: dict[str, Any]) -> None:
        self.result = result
        self.rows = [row for row in result.get("rows", []) if "contestants" in row]

    def row(self, name: str, variant: Variant) -> Row | None:
        wanted = variant._asdict()
        return next((row for row in self.rows if row["row"] == name
                     and all(row[key] == value for key, value in wanted.items())), None)

    def compared(self) -> list[Row]:
        """Every row that both daemons have."""
        return [row for row in self.rows if REFERENCE in row["ratios"]]


def bare_host(result: Result, row: Row, value: str) -> float | None:
    """What the host's own system calls would reach, without guest and daemon: nothing gets there."""
    alone = result.row(row["row"], at(row["depth"]))
    host = alone["contestants"].get(HOST) if alone else None
    return host[value] / row["contestants"][REFERENCE][value] if host else None


def bare_host_note(found: float | None) -> str:
    return f"the bare host: {found:.3g}" if found else ""


def target_bounds(result: Result, target: Target) -> Iterator[Bound]:
    for name in target.rows:
        row = result.row(name, target.variant)
        what = f"{name}, {target.variant}"
        busy_note = f"busy {busy(row)}" if row and busy(row) else ""
        ratio = row["ratios"].get(target.to, {}) if row else {}
        mine = row["contestants"][OURS] if row else {}
        host = row["ratios"].get(HOST, {}) if row else {}
        against = "" if target.to == REFERENCE else f" to {target.to}"
        for label, value, limit, at_least in (
                (f"rate{against}", ratio.get("rate"), target.rate, True), ("CPU", ratio.get("cpu"), target.cpu, False),
                ("of the host's rate", host.get("rate"), target.of_host, True),
                ("system calls", mine.get("syscalls"), target.syscalls, False),
                ("interrupts", mine.get("interrupts"), target.interrupts, False)):
            if limit is None:
                continue
            bound = Bound(f"{what}: {label}", value, limit, at_least, busy_note)
            if row and bound.verdict == "missed" and target.to == REFERENCE and label in ("rate", "CPU"):
                notes = [busy_note, bare_host_note(bare_host(result, row, "rate" if label == "rate" else "cpu_us"))]
                bound = bound._replace(note=", ".join(filter(None, notes)))
            yield bound


def sleeping_targets(result: Result) -> Iterator[Target]:
    """Every row with a sleeping guest, at depths at which it has something to gain by being woken seldom."""
    for row in result.compared():
        if row["guest"] == SLEEPING and row["depth"] in (16, 32):
            # With requests that take long, few are answered in the time that a reply may be held back.
            between_replies = row["contestants"][OURS]["p50_us"] / row["depth"]
            yield Target((row["row"],), at(row["depth"], SLEEPING, row["placement"]), rate=SLEEPING_RATE,
                         interrupts=max(SLEEPING_INTERRUPTS, min(1.0, between_replies / HELD_US)))


def neighbour_bounds(result: Result) -> Iterator[Bound]:
    for case in result.result.get("neighbours", []):
        what = f"GETATTR beside {case['title']}"
        found = case.get("contestants", {}).get(OURS)
        if not found:
            yield Bound(f"{what}: median", None, MEDIAN_BESIDE, False)
            continue
        alone, beside = found["alone"], found["beside"]
        note = f"busy {found['busy']}" if found["busy"] else ""
        yield Bound(f"{what}: median to alone", beside["p50_us"] / alone["p50_us"], MEDIAN_BESIDE, False, note)
        if beside["p99_us"] <= TAIL_US:
            yield Bound(f"{what}: p99, us", beside["p99_us"], TAIL_US, False, note)
        else:
            yield Bound(f"{what}: p99 to alone", beside["p99_us"] / alone["p99_us"], TAIL_BESIDE, False, note)


def inode_bounds(result: Result) -> Iterator[Bound]:
    steps = result.result.get("inodes", {}).get(OURS, [])
    step = next((step for step in steps if step["inodes"] == MANY_INODES), None)
    yield Bound(f"{MANY_INODES:,} inodes: bytes each", step["bytes_each"] if step else None, BYTES_EACH, False)
    yield Bound(f"{MANY_INODES:,} inodes: descriptors", step["descriptors"] if step else None,
                step["descriptor_limit"] if step else 0, False)


def geometric_mean(values: Iterable[float]) -> float | None:
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else None


def overall_bounds(result: Result) -> Iterator[Bound]:
    ratios = [(row["ratios"][REFERENCE], row) for row in result.compared() if row["placement"] == APART]
    for key, of_host, limit in (("rate", "rate", MEAN_RATE), ("cpu", "cpu_us", MEAN_CPU)):
        hosts = [found for _, row in ratios if (found := bare_host(result, row, of_host))]
        note = ", ".join(filter(None, [f"{len(ratios)} rows", bare_host_note(geometric_mean(hosts))]))
        yield Bound(f"geometric mean of all rows: {key.replace('cpu', 'CPU')}",
                    geometric_mean(ratio[key] for ratio, _ in ratios), limit, key == "rate", note)
    worst = min(ratios, key=lambda each: each[0]["rate"], default=None)
    note = f"{worst[1]['row']}, depth {worst[1]['depth']}, {worst[1]['guest']}" if worst else ""
    yield Bound("the worst row: rate", worst[0]["rate"] if worst else None, WORST_RATE, True, note)


PARTS: Sequence[Callable[[Result], Iterable[Bound]]] = (
    lambda result: (bound for target in TARGETS for bound in target_bounds(result, target)),
    lambda result: (bound for target in sleeping_targets(result) for bound in target_bounds(result, target)),
    neighbour_bounds, inode_bounds, overall_bounds)


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    result = Result(json.loads(pathlib.Path(sys.argv[1]).read_text()))
    table = Table(title=f"virtiofsd {result.result['commit']}, {result.result['machine']['started']}")
    for heading in ("what", "measured", "aim", "", "note"):
        table.add_column(heading, justify="right" if heading in ("measured", "aim") else "left")
    verdicts: list[str] = []
    for part in PARTS:
        table.add_section()
        for bound in part(result):
            verdicts.append(bound.verdict)
            colour = {"reached": "green", "missed": "red"}.get(bound.verdict, "yellow")
            table.add_row(bound.what, "-" if bound.value is None else f"{bound.value:,.3g}",
                          f"{'>=' if bound.at_least else '<='} {bound.limit:,.3g}", f"[{colour}]{bound.verdict}",
                          bound.note)
    console = Console(width=WIDTH)
    console.print(table)
    counts = [verdicts.count(each) for each in ("reached", "missed", "not measured")]
    console.print(f"{counts[0]} reached, {counts[1]} missed, {counts[2]} not measured")
    return 1 if counts[1] else 0 if counts[0] else 2


if __name__ == "__main__":
    sys.exit(main())
