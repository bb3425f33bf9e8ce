"""Which rows are measured in which variants."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.measure import APART, CROWDED, FREE, SLEEPING, SPINNING, Variant
from bench.rows import ROWS, Row
from bench.sessions import Contestant

SMALL = ("getattr", "lookup", "enoent", "setattr", "open", "read-4k", "write-4k")
MANY_QUEUES = ("getattr", "lookup", "read-4k", "write-4k")


@dataclass(frozen=True)
class Plan:
    """How much is measured. `cases` are the slow neighbours."""

    rows: Sequence[str]
    parts: Sequence[str]
    cases: Sequence[str]
    rounds: int
    seconds: float
    quick: bool

    @property
    def data_mib(self) -> int:
        return 64 if self.quick else 256


CASES = ("fsync", "uncached", "lock", "hung", "removal", "dirty")
PARTS = ("rows", "neighbours", "start", "inodes", "guests")


@dataclass(frozen=True)
class Group:
    """Variants of a row that the same processes can serve, and who takes part."""

    row: Row
    variants: Sequence[Variant]
    contestants: Sequence[Contestant]
    with_host: bool = False


def groups(plan: Plan, ours: Contestant, reference: Contestant, unpolled: Contestant | None) -> Iterator[Group]:
    for name in plan.rows:
        row = ROWS[name]
        if plan.quick:
            apart = [Variant(1), Variant(16), Variant(16, guest=SLEEPING)]
        else:
            apart = [Variant(depth, guest=guest) for depth in (1, 16, 32) for guest in (SPINNING, SLEEPING)]
        yield Group(row, apart, [ours, reference], with_host=True)
        if plan.quick:
            if row.name in SMALL:
                yield Group(row, [Variant(1, placement=FREE)], [ours, reference])
            continue
        depths = {32 if row.name in ("read-4k", "write-4k") else 16, *([1] if row.name in SMALL else [])}
        free = [*(Variant(depth, placement=FREE) for depth in sorted(depths)), Variant(16, 1, SLEEPING, FREE)]
        yield Group(row, free, [ours, reference])
        if row.name in SMALL and unpolled:
            yield Group(row, [Variant(1, placement=CROWDED)], [ours, unpolled])
        if row.name in MANY_QUEUES:
            for queues in (2, 4):
                variants = [Variant(16, queues, guest, APART) for guest in (SPINNING, SLEEPING)]
                yield Group(row, variants, [each for each in (ours, reference) if each.queues >= queues])
