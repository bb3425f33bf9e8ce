"""Results as text: a line while it is measured, and tables at the end."""

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.sessions import HOST, OURS, REFERENCE, UNPOLLED

WIDTH = 200


def number(value: float | None, digits: int = 3) -> str:
    """With so many digits that count, and thousands as k."""
    if value is None:
        return "-"
    if abs(value) < 0.01:
        return "0"
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= 10 * size or (unit == "M" and abs(value) >= size):
            return f"{value / size:.{digits}g}{unit}"
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"


def variant(row: dict[str, Any]) -> str:
    queues = f" x{row['queues']}" if row["queues"] > 1 else ""
    return f"{row['depth']}{queues} {row['guest']}" + ("" if row["placement"] == "apart" else f" {row['placement']}")


def busy(row: dict[str, Any]) -> str:
    """How many of the rounds were disturbed."""
    rounds = [each for found in row["contestants"].values() for each in found["rounds"]]
    disturbed = sum(each["busy"] for each in rounds)
    return f"{disturbed}/{len(rounds)}" if disturbed else ""


def one_line(row: dict[str, Any]) -> str:
    mine = row["contestants"][OURS]
    parts = [f"{variant(row):20} {number(mine['rate']):>6}/s, {number(mine['cpu_us'])} us CPU, p50 "
             f"{number(mine['p50_us'])} p99 {number(mine['p99_us'])} us"]
    parts += [f"{number(ratio['rate'])} x {name} (CPU {number(ratio['cpu'])})" for name, ratio in row["ratios"].items()]
    if disturbed := busy(row):
        parts.append(f"busy {disturbed}")
    return "; ".join(parts)


def pair(mine: float | None, other: float | None, digits: int = 3) -> str:
    return f"{number(mine, digits)} / {number(other, digits)}"


def rows_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Medians over the rounds: this daemon / the reference (in crowded rows: this one without "
                        "polling). Rate and CPU are for the row's unit, all else for a request; max, kicks and sleeps "
                        "are this daemon's.", padding=(0, 1))
    for index, heading in enumerate(("row", "depth, guest", "rate/s", "ratio", "CPU us", "ratio", "of host", "p50 us",
                                     "p99 us", "max us", "kicks", "interrupts", "sleeps", "syscalls", "busy")):
        table.add_column(heading, justify="right" if index > 1 else "left", no_wrap=True, overflow="fold")
    last = None
    for row in rows:
        if row["row"] != last:
            table.add_section()
        name, last = (row["row"] if row["row"] != last else ""), row["row"]
        if "error" in row:
            table.add_row(name, variant(row), "error")
            continue
        found = row["contestants"]
        mine = found[OURS]
        peer = next((each for each in (REFERENCE, UNPOLLED) if each in found), None)
        other: dict[str, Any] = found[peer] if peer else {}
        ratio = row["ratios"][peer] if peer else {}
        host = row["ratios"].get(HOST, {}).get("rate")
        table.add_row(
            name, variant(row), pair(mine["rate"], other.get("rate")), number(ratio.get("rate")),
            pair(mine["cpu_us"], other.get("cpu_us")), number(ratio.get("cpu")),
            "-" if host is None else f"{host:.0%}", pair(mine["p50_us"], other.get("p50_us")),
            pair(mine["p99_us"], other.get("p99_us")), number(mine["max_us"]), number(mine["kicks"], 2),
            pair(mine["interrupts"], other.get("interrupts"), 2), number(mine["wake_ups"], 2),
            pair(mine["syscalls"], other.get("syscalls")), busy(row))
    return table


def plain_table(title: str, headings: Sequence[str], lines: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index > 0 and heading != "daemon" else "left", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table


def neighbours_table(cases: Sequence[dict[str, Any]]) -> Table:
    def lines() -> Iterable[Sequence[str]]:
        for case in cases:
            if "contestants" not in case:
                yield case["title"], case.get("error") or case["skipped"]
                continue
            for name, found in case["contestants"].items():
                alone, beside = found["alone"], found["beside"]
                yield (case["title"], name, *(number(part[key]) for key in ("p50_us", "p99_us", "max_us")
                                              for part in (alone, beside)),
                       number(beside["p50_us"] / alone["p50_us"]), number(beside["p99_us"] / alone["p99_us"]),
                       number(beside["delay_us"]), number(found["neighbour_seconds"] * 1000), found["busy"])

    return plain_table(
        "Slow neighbours: a GETATTR at a time, sleeping guest, alone and beside a slow request on the same queue.",
        ("beside", "daemon", "p50 us", "beside", "p99 us", "beside", "max us", "beside", "p50 ratio", "p99 ratio",
         "CPU waits us", "neighbour ms", "busy"), lines())


def start_table(found: dict[str, Any]) -> Table:
    return plain_table(
        "Start and rest, medians. Milliseconds from exec.",
        ("daemon", "listening", "GET_FEATURES", "CPU ms", "--help", "--version", "sleeps while idle", "CPU ms"),
        ((name, *(number(each[key] * 1000) if key in each else "-" for key in
                      ("listening", "features", "cpu", "help", "version")),
          *((f"{each['idle_sleeps']} in {each['idle_seconds']} s", number(each["idle_cpu"] * 1000))
            if "idle_sleeps" in each else ("-", "-")))
         for name, each in found.items()))


def inodes_table(found: dict[str, Any]) -> Table:
    return plain_table(
        "Memory for inodes that the guest knows.",
        ("daemon", "inodes", "RSS MiB", "bytes an inode", "descriptors", "lookups/s"),
        ((name, f"{step['inodes']:,}", number(step["rss"] / (1 << 20)), number(step["bytes_each"]),
          f"{step['descriptors']:,}", number(step["rate"])) for name, steps in found.items() for step in steps))


def guests_table(found: dict[str, Any]) -> Table:
    def lines() -> Iterable[Sequence[str]]:
        for job in found["jobs"]:
            mine, other = job["contestants"][OURS], job["contestants"][REFERENCE]
            what = "rate" if "rate" in mine else "seconds"
            latencies = [pair(mine[key], other[key]) if key in mine else "-" for key in ("p50_us", "p99_us")]
            yield (job["title"], f"{pair(mine[what], other[what])} {'/s' if what == 'rate' else 's '}",
                   number(job["ratio"]), pair(mine["cpu_us"], other["cpu_us"]), number(job["cpu_ratio"]), *latencies)

    return plain_table(
        f"In a Linux guest ({found['kernel']}, {found['cpus']} CPUs, {found['accelerator']}), medians: this daemon / "
        "the reference.",
        ("what the guest does", "I/Os or time", "times as fast", "CPU us", "ratio", "p50 us", "p99 us"), lines())


def write(result: dict[str, Any], path: pathlib.Path) -> None:
    """Prints the tables, and writes them to a file."""
    facts = result["machine"]
    title = (f"virtiofsd {result['commit']} on {facts['cpu']}, {facts['cpus']} CPUs, Linux {facts['kernel']}, "
             f"{facts['clocksource']}; share on {result['file_system']}; {facts['started']}")
    with path.open("w") as file:
        for console in (Console(width=WIDTH), Console(file=file, width=WIDTH)):
            console.print(title)
            if "rows" in result:
                console.print(rows_table(result["rows"]))
            if "neighbours" in result:
                console.print(neighbours_table(result["neighbours"]))
            if "start" in result:
                console.print(start_table(result["start"]))
            if "inodes" in result:
                console.print(inodes_table(result["inodes"]))
            if "jobs" in result.get("guests", {}):
                console.print(guests_table(result["guests"]))
