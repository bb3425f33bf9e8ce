"""Malformed chains and requests by name, and a runner that says what became of one without ever hanging.

    with VirtioFs(socket, memory=layout()) as device:
        bench = Bench(device)                       # INIT, and a few files through FUSE
        outcome = bench.run("self_loop", seed=1)
        assert outcome in CATALOGUE["self_loop"], outcome.detail

`names(kind, packed)` lists the entries that fit. They stand in hostile_chains (what the rings allow), hostile_requests
(cut short, about what does not exist, or out of place), hostile_names, and hostile_values (sizes, modes, flags).
"""

from frontend import hostile_chains, hostile_names, hostile_requests, hostile_values
from frontend.hostile_bench import (
    BROKEN,
    CATALOGUE,
    CLOSED,
    EMPTY,
    FAILED,
    MALFORMED,
    OK,
    SILENT,
    Bench,
    Entry,
    Outcome,
    layout,
)

__all__ = ["BROKEN", "CATALOGUE", "CLOSED", "EMPTY", "FAILED", "MALFORMED", "OK", "SILENT", "Bench", "Entry", "Outcome",
           "layout", "names"]
KINDS = tuple(module.KIND for module in (hostile_chains, hostile_requests, hostile_names, hostile_values))


def names(kind: str | None = None, packed: bool = False) -> list[str]:
    """The names of the entries of a kind that fit a ring layout."""
    ring = "packed" if packed else "split"
    return [name for name, entry in CATALOGUE.items() if kind in (None, entry.kind) and entry.ring in ("both", ring)]
