"""Compares two results as ratios: what this daemon did then, and what it does now.

    python -m bench.compare OLD.json [NEW.json]     NEW is bench/results/latest.json unless given

Beside the plain ratio stands the one of the ratios to the reference daemon, in which a faster or busier machine cancels
out. The exit status is 1 where a row has become slower than by a tenth on both counts.
"""

import json
import pathlib
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.report import WIDTH, busy, number, variant
from bench.sessions import OURS, REFERENCE

LATEST = pathlib.Path(__file__).with_name("results") / "latest.json"
SLOWER = 0.9
Key = tuple[str, int, int, str, str]


def rows_of(result: dict[str, Any]) -> dict[Key, dict[str, Any]]:
    return {(row["row"], row["depth"], row["queues"], row["guest"], row["placement"]): row
            for row in result.get("rows", []) if "contestants" in row}


def ratio_of_ratios(old: dict[str, Any], new: dict[str, Any], key: str) -> float | None:
    if REFERENCE not in old["ratios"] or REFERENCE not in new["ratios"]:
        return None
    return float(new["ratios"][REFERENCE][key] / old["ratios"][REFERENCE][key])


def compare(old: dict[str, Any], new: dict[str, Any]) -> int:
    """Prints the comparison; how many rows are slower."""
    table = Table(title=f"{old['commit']} ({old['machine']['started']}) -> {new['commit']} "
                        f"({new['machine']['started']})")
    for heading in ("row", "depth, guest", "rate/s then", "now", "ratio", "to the reference's", "CPU us then", "now",
                    "ratio", "to the reference's", "p99 us then", "now", "busy then", "now", ""):
        table.add_column(heading, justify="left" if heading in ("row", "depth, guest", "") else "right", no_wrap=True)
    before, slower = rows_of(old), 0
    for key, row in rows_of(new).items():
        if key not in before:
            continue
        then, now = before[key]["contestants"][OURS], row["contestants"][OURS]
        rate, relative = now["rate"] / then["rate"], ratio_of_ratios(before[key], row, "rate")
        is_slower = rate < SLOWER and (relative is None or relative < SLOWER)
        slower += is_slower
        table.add_row(
            row["row"], variant(row), number(then["rate"]), number(now["rate"]), f"{rate:.2f}",
            "-" if relative is None else f"{relative:.2f}", number(then["cpu_us"]), number(now["cpu_us"]),
            f"{now['cpu_us'] / (then['cpu_us'] or 1e-9):.2f}", number(ratio_of_ratios(before[key], row, "cpu")),
            number(then["p99_us"]), number(now["p99_us"]), busy(before[key]), busy(row), "slower" if is_slower else "")
    console = Console(width=WIDTH)
    console.print(table)
    if old["machine"]["cpu"] != new["machine"]["cpu"]:
        console.print("Different machines: only the ratios to the reference's say something.")
    return slower


def main() -> int:
    if not 2 <= len(sys.argv) <= 3:
        print(__doc__, file=sys.stderr)
        return 2
    old, new = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else LATEST
    return 1 if compare(json.loads(old.read_text()), json.loads(new.read_text())) else 0


if __name__ == "__main__":
    sys.exit(main())
