"""Malformed chains and requests by name, and a runner that says what became of one without ever hanging.

    with VirtioFs(socket, memory=layout()) as device:
        bench = Bench(device)                       # INIT, and a few files through FUSE
        outcome = bench.run("self_loop", seed=1)
        assert outcome in CATALOGUE["self_loop"], outcome.detail

`names(kind, packed)` lists the entries that fit. The entries stand in hostile_chains (what the rings allow) and
hostile_requests (what FUSE allows).
"""

from frontend import hostile_chains, hostile_requests
from frontend.hostile_bench import (
    BROKEN,
    CATALOGUE,
    CLOSED,
    EMPTY,
    MALFORMED,
    OK,
    SILENT,
    Bench,
    Entry,
    Outcome,
    layout,
)

__all__ = ["BROKEN", "CATALOGUE", "CLOSED", "EMPTY", "MALFORMED", "OK", "SILENT", "Bench", "Entry", "Outcome", "layout",
           "names"]
KINDS = (hostile_chains.KIND, hostile_requests.KIND)


def names(kind: str | None = None, packed: bool = False) -> list[str]:
    """The names of the entries of a kind that fit a ring layout."""
    ring = "packed" if packed else "split"
    return [name for name, entry in CATALOGUE.items() if kind in (None, entry.kind) and entry.ring in ("both", ring)]
