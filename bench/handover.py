"""What hands reads that sleep over best: a pool of threads, or io_uring.

    python -m bench.handover [FOLDER]

Random reads of a file in FOLDER (default: the current one), by a thread that keeps 16 in flight: from the page cache,
where only the hand-over costs; and from the disk, for which the file is dropped from the cache before each round.
Medians of alternating rounds.
"""

import os
import statistics
import sys
import tempfile

from rich.console import Console
from rich.table import Table

from bench.reader import Reader

FILE = 512 << 20
DEPTH, THREADS = 16, 16
SIZES = (4096, 131072)
ROUNDS, SECONDS = 5, 0.5


def drop_cache(fd: int) -> None:
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def fill_cache(fd: int) -> None:
    for offset in range(0, FILE, 1 << 20):
        os.pread(fd, 1 << 20, offset)


def measure(fd: int, size: int, cached: bool) -> dict[str, tuple[float, float]]:
    """By way of reading: reads a second, and microseconds of CPU for each."""
    reader = Reader(fd, size, DEPTH, THREADS)
    rounds: dict[str, list[tuple[float, float]]] = {"pool": [], "io_uring": []}
    for turn in range(ROUNDS):
        for name, results in sorted(rounds.items(), reverse=turn % 2 == 1):
            (fill_cache if cached else drop_cache)(fd)
            results.append(getattr(reader, name)(SECONDS, seed=turn + 1))
    return {name: (statistics.median(rate for rate, _ in results), statistics.median(cpu for _, cpu in results))
            for name, results in rounds.items()}


def main() -> None:
    table = Table(title=f"Random reads, {DEPTH} in flight, {THREADS} threads in the pool")
    for column in ("reads of", "from", "pool, reads/s", "CPU us", "io_uring, reads/s", "CPU us", "pool to io_uring"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryFile(dir=sys.argv[1] if len(sys.argv) > 1 else ".") as file:
        for _ in range(FILE >> 20):
            file.write(os.urandom(1 << 20))
        file.flush()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for cached in (True, False):
            for size in SIZES:
                found = measure(file.fileno(), size, cached)
                (pool, pool_cpu), (ring, ring_cpu) = found["pool"], found["io_uring"]
                table.add_row(f"{size >> 10} KiB", "cache" if cached else "disk", f"{pool:,.0f}", f"{pool_cpu:.1f}",
                              f"{ring:,.0f}", f"{ring_cpu:.1f}", f"{pool / ring:.2f} (CPU {pool_cpu / ring_cpu:.2f})")
    Console().print(table)


if __name__ == "__main__":
    main()
