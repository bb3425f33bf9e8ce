"""Measures this daemon, the reference daemon and the bare host in turn, and writes what came of it.

    python -m bench [--quick] [--rows getattr,lookup] [--parts rows] [--rounds 5] [--seconds 0.25]

Results go to bench/results: JSON for comparisons, a table, and pictures. The exit status is 1 where a daemon has
answered wrong.
"""

import argparse
import contextlib
import json
import pathlib
import shutil
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from bench import folders, footprint, guests, machine, measure, neighbours, pictures, plan, report, sessions, syscalls
from bench.folders import SetupError
from bench.plan import CASES, PARTS, Plan
from bench.rows import ROWS, WrongError
from bench.sessions import HOST, OURS, REFERENCE
from frontend.fuse import ReplyError

RESULTS = pathlib.Path(__file__).with_name("results")
FAILURES = (WrongError, ReplyError, SetupError, RuntimeError, OSError)      # of one part; the others are measured


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse() -> tuple[Plan, pathlib.Path]:
    def names(known: tuple[str, ...]) -> Any:
        def split(text: str) -> list[str]:
            found = [word for word in text.split(",") if word]
            unknown = [word for word in found if word not in known]
            if unknown:
                raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: they are {', '.join(known)}")
            return found
        return split

    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=names(tuple(ROWS)), default=list(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--parts", type=names(PARTS), help=f"of {', '.join(PARTS)} (default: all; with --rows: rows)")
    parser.add_argument("--cases", type=names(CASES), default=list(CASES), help=f"slow neighbours: {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, help="alternating rounds of each row (default: 5, quick: 3)")
    parser.add_argument("--seconds", type=float, help="of one contestant in one round (default: 0.25, quick: 0.1)")
    parser.add_argument("--quick", action="store_true", help="fewer variants and smaller files: some minutes")
    parser.add_argument("--output", type=pathlib.Path, default=RESULTS, help="folder of the results")
    given = parser.parse_args()
    parts = given.parts or (["rows"] if len(given.rows) < len(ROWS) else list(PARTS))
    return Plan(given.rows, parts, given.cases, given.rounds or (3 if given.quick else 5),
                given.seconds or (0.1 if given.quick else 0.25), given.quick), given.output


def ratios(found: dict[str, measure.Measured]) -> dict[str, dict[str, float]]:
    """Of the medians: this daemon to each other contestant."""
    mine = found[OURS]
    return {name: {"rate": mine.median("rate") / other.median("rate"),
                   "cpu": mine.median("cpu_us") / (other.median("cpu_us") or 1e-9)}
            for name, other in found.items() if name != OURS}


def measure_rows(what: Plan, work: pathlib.Path, share: pathlib.Path, cpus: machine.Cpus) -> list[dict[str, Any]]:
    ours, reference = sessions.ours(), sessions.reference()
    unpolled = sessions.unpolled() if ours.knows("--poll-us") else None
    rows: list[dict[str, Any]] = []
    for group in plan.groups(what, ours, reference, unpolled):
        say(f"{group.row.title} ({group.row.name})")
        base = {"row": group.row.name, "title": group.row.title, "unit": group.row.unit}
        try:
            for variant, found in measure.measure(group.row, group.variants, group.contestants, work, share, cpus,
                                                  what.rounds, what.seconds, group.with_host):
                row = {**base, **variant._asdict(), "ratios": ratios(found),
                       "contestants": {name: each.summary() for name, each in found.items()}}
                say(f"    {report.one_line(row)}")
                rows.append(row)
        except FAILURES as error:
            say(f"    ERROR: {error}")
            rows.append({**base, **group.variants[0]._asdict(), "error": str(error)})
    return rows


def main() -> int:
    what, output = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))       # mounts and daemons must not stay behind
    cpus = machine.split_cpus()
    result: dict[str, Any] = {"machine": machine.facts(), "commit": machine.commit(), "options": {
        "rows": what.rows, "parts": what.parts, "rounds": what.rounds, "seconds": what.seconds, "quick": what.quick,
        "daemon_cpus": cpus.daemon, "guest_cpus": cpus.guest, "syscalls_by": syscalls.method()}, "errors": []}
    began, errors = time.monotonic(), result["errors"]
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(folders.work_folder())
        share, result["file_system"] = stack.enter_context(folders.share(work))
        say(f"the share is on {result['file_system']}; daemon on CPUs {cpus.daemon}, guest on {cpus.guest}")
        if "rows" in what.parts:
            folders.make_tree(share, [OURS, REFERENCE, HOST], what.data_mib)
        measurements: dict[str, Callable[[], Any]] = {
            "rows": lambda: measure_rows(what, work, share, cpus),
            "neighbours": lambda: neighbours.measure_all(what, work, say),
            "start": lambda: footprint.start(what, work, say),
            "inodes": lambda: footprint.inodes(what, work, share, say),
            "guests": lambda: guests.measure_all(what, work, share, say)}
        for part in what.parts:
            try:
                result[part] = measurements[part]()
            except FAILURES as error:
                errors.append(f"{part}: {error}")
                say(f"ERROR: {error}")
    result["seconds"] = round(time.monotonic() - began)
    errors += [f"{row['title']}: {row['error']}" for part in ("rows", "neighbours") for row in result.get(part, [])
               if "error" in row]
    write(result, output)
    for each in errors:
        say(f"ERROR: {each}")
    return 1 if errors else 0


def write(result: dict[str, Any], output: pathlib.Path) -> None:
    folder = output / f"{time.strftime('%Y%m%d-%H%M%S')}-{result['commit'].strip('+')}"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    report.write(result, folder / "table.txt")
    pictures.draw(result, folder)
    shutil.copy(folder / "result.json", output / "latest.json")
    say(f"\nresults are in {folder}; python -m bench.targets {folder}/result.json compares them with what was aimed at")


if __name__ == "__main__":
    sys.exit(main())
