"""Results as pictures, for the documentation."""

import pathlib
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from bench.sessions import OURS, REFERENCE

COLOURS = {"spinning": "#1f6f8b", "sleeping": "#e08e45", OURS: "#1f6f8b", REFERENCE: "#9a9a9a"}
BAR = 0.38


def draw(result: dict[str, Any], folder: pathlib.Path) -> None:
    """Writes each picture as SVG and PNG."""
    facts = result["machine"]
    note = f"{facts['cpu']}, {facts['cpus']} CPUs, Linux {facts['kernel']}; {result['commit']}"
    rows = [row for row in result.get("rows", []) if REFERENCE in row.get("ratios", {})
            and row["queues"] == 1 and row["placement"] == "apart" and row["depth"] == 16]
    if rows:
        save(ratios(rows, "rate", "Rate, times the reference daemon's, depth 16 (more is better)", note),
             folder / "rate")
        save(ratios(rows, "cpu", "CPU time for the same, parts of the reference daemon's, depth 16 (less is better)",
                    note), folder / "cpu")
    cases = [case for case in result.get("neighbours", []) if "contestants" in case]
    if cases:
        save(latencies(cases, note), folder / "neighbours")


def save(figure: Figure, path: pathlib.Path) -> None:
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(path.with_suffix(".png"), dpi=150)


def canvas(lines: int, title: str, note: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, 1.4 + 0.36 * lines), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xscale("log")
    axes.grid(axis="x", which="both", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter(LogFormatter())
    axes.xaxis.set_minor_formatter(LogFormatter())
    axes.tick_params(axis="x", which="both", labelsize=7)
    axes.set_xlabel(note, loc="right", fontsize=7, color="#666666")
    return figure, axes


def ratios(rows: Sequence[dict[str, Any]], key: str, title: str, note: str) -> Figure:
    names = list(dict.fromkeys(row["title"] for row in rows))
    figure, axes = canvas(len(names), title, note)
    for shift, guest in ((-BAR / 2, "spinning"), (BAR / 2, "sleeping")):
        found = {row["title"]: row["ratios"][REFERENCE][key] for row in rows if row["guest"] == guest}
        places = [index + shift for index, name in enumerate(names) if name in found]
        values = [found[name] for name in names if name in found]
        # On a logarithmic axis a bar is drawn from 1, where both daemons are the same.
        axes.barh(places, [value - 1 for value in values], BAR, left=1, color=COLOURS[guest], label=f"{guest} guest")
        for place, value in zip(places, values, strict=True):
            axes.annotate(f"{value:.2g}", (value, place), textcoords="offset points",
                          xytext=(3 if value >= 1 else -3, 0), va="center", ha="left" if value >= 1 else "right",
                          fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.legend(fontsize=8, frameon=False)
    return figure


def latencies(cases: Sequence[dict[str, Any]], note: str) -> Figure:
    """Median, 99th percentile and slowest, alone and beside the neighbour."""
    lines = [(f"{case['title']}: {name}", name, found) for case in cases for name, found in case["contestants"].items()]
    figure, axes = canvas(len(lines), "GETATTR beside a slow neighbour: p50, p99, slowest (hollow: alone)",
                          f"microseconds; {note}")
    for index, (_, name, found) in enumerate(lines):
        for part, shift, width in (("alone", 0.15, 1.0), ("beside", -0.15, 3.0)):
            values = [found[part][key] for key in ("p50_us", "p99_us", "max_us")]
            axes.plot(values, [index + shift] * 3, color=COLOURS[name], linewidth=width, marker="o", markersize=4,
                      markerfacecolor="white" if part == "alone" else COLOURS[name])
    axes.set_yticks(range(len(lines)), [label for label, _, _ in lines], fontsize=8)
    axes.invert_yaxis()
    return figure
