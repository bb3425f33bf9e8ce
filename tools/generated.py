"""Files that a tool writes, and its --check that they are what it would write."""

import pathlib
import sys
from collections.abc import Mapping

ROOT = pathlib.Path(__file__).resolve().parent.parent


def write_or_check(tool: str, source: str, texts: Mapping[str, str]) -> int:
    """The exit status. `texts` by path below ROOT; `tool` and `source` are named where files differ from them."""
    wrong = []
    for name, text in texts.items():
        path = ROOT / name
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text() != text:
                wrong.append(name)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if wrong:
        print(f"{tool}: not as the {source} say, run tools/{tool}.py: {' '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0
