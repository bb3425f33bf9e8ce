#!/usr/bin/env python3
"""Proves that no request can meet Python: reads the C that Cython generated and follows every call from the threads'
entry functions and the operation table's handlers.

Each function on the way must be one of this project's own nogil functions, whose body is followed in turn, or one that
a foreign declaration file (FOREIGN below) names. Anything else fails, and so does any name of Python's C-API. Needs no
compiler: build/cython must be what the sources give (make build).

  check_hot_path.py [--verbose]     0: pure; 1: not, with the way from an entry to the offence; 2: nothing to look at
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
GENERATED = ROOT / "build/cython/virtiofsd/_ring"
FOREIGN = ("linux.pxd", "atomics.pxd", "invariants.pxd", "ticks.pxd", "memory.pyx")
ENTRIES = ("thread_main", "wait_main", "watchdog_main")
TABLE = "fill_table"
THROUGH_TABLE = "handler"  # the one call by pointer; what it can reach are the handlers below

DEFINITION = re.compile(r"^static (?!const )[^;={}]*?\b(__pyx_f_\w+)\([^;{}]*\) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
STRING = re.compile(r'"(?:\\.|[^"\\])*"')
CALL = re.compile(r"\b([A-Za-z_]\w*)\s*\(")
NAME = re.compile(r"\b[A-Za-z_]\w*\b")
PYTHON = re.compile(r"^(Py|_Py|__Pyx_|__pyx_(?!f_|t_|v_|r\b|L\d|e_|k_|n_|s_|u_))")
C_WORDS = {"if", "while", "for", "switch", "return", "sizeof", "likely", "unlikely", "do", "else", "case"}
MACROS = {"CYTHON_UNUSED", "Py_ssize_t"}  # a type, for differences of pointers


def functions_of(path: pathlib.Path) -> dict[str, str]:
    """The bodies of the module's own functions, without comments and strings."""
    text = STRING.sub('""', COMMENT.sub("", path.read_text()))
    return {match[1]: match[2] for match in DEFINITION.finditer(text)}


def foreign_names() -> set[str]:
    names = set()
    for file in FOREIGN:
        text = (ROOT / "_ring" / file).read_text()
        for block in re.findall(r"^cdef extern from .*?:\n((?:    .*\n|\n)+)", text, re.MULTILINE):
            names |= set(CALL.findall(block))
    return names


def main() -> int:
    sources = sorted(GENERATED.glob("*.c"))
    if not sources:
        print(f"check_hot_path: no generated C in {GENERATED}: run make build", file=sys.stderr)
        return 2
    # An inline function of a .pxd stands in each module that uses it; one body is as good as another.
    bodies: dict[str, str] = {}
    for path in sources:
        bodies.update(functions_of(path))
    foreign = foreign_names()
    entries = [name for name in bodies if name.endswith(ENTRIES)]
    table = next((name for name in bodies if name.endswith(TABLE)), None)
    if len(entries) != len(ENTRIES) or table is None:
        print("check_hot_path: the threads' entries or the operation table were not found", file=sys.stderr)
        return 2
    handlers = [name for name in NAME.findall(bodies[table]) if "_op_" in name and name.startswith("__pyx_f_")]
    if len(handlers) < 30:
        print(f"check_hot_path: only {len(handlers)} handlers in the operation table", file=sys.stderr)
        return 2

    came_from: dict[str, str | None] = dict.fromkeys([*entries, *handlers])
    waiting = list(came_from)
    offences = []
    while waiting:
        function = waiting.pop()
        body = bodies.get(function)
        if body is None:
            offences.append((function, "has no body among the generated functions"))
            continue
        offences += [(function, f"uses {name}") for name in set(NAME.findall(body))
                     if PYTHON.match(name) and name not in MACROS]
        for name in set(CALL.findall(body)) - C_WORDS - MACROS:
            if name.startswith("__pyx_f_"):
                if name not in came_from:
                    came_from[name] = function
                    waiting.append(name)
            elif name not in foreign | {THROUGH_TABLE} and not PYTHON.match(name) and not name.startswith("__pyx_v_"):
                offences.append((function, f"calls {name}, which no foreign declaration names"))

    for function, why in offences:
        way: list[str] = []
        at: str | None = function
        while at is not None:
            way.append(at.split("_ring_", 1)[-1])
            at = came_from.get(at)
        print(f"check_hot_path: {' <- '.join(way)}: {why}", file=sys.stderr)
    if "--verbose" in sys.argv[1:]:
        print("\n".join(sorted(name.split("_ring_", 1)[-1] for name in came_from)))
    if not offences:
        print(f"check_hot_path: {len(came_from)} functions from {len(entries)} threads and {len(set(handlers))} "
              "handlers, none meets Python")
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
