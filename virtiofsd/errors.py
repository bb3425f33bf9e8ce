"""What is told to the user in one line when the daemon does not start."""

import os
import re
from collections.abc import Iterable

# As the reference daemon has them; the last one is EX_SOFTWARE of sysexits(3).
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERNAL = 70

ALIKE = 0.7  # of a word, for difflib


class OptionError(Exception):
    """A user's mistake in the options: one line that names the option and the value."""


class StartError(Exception):
    """Why the daemon cannot start, though its options make sense: one line."""


def reason(error: OSError) -> str:
    """What the kernel says of it, without number and path."""
    return os.strerror(error.errno) if error.errno else str(error)


def shown(word: str) -> str:
    """A word of the user's as one line can show it."""
    return word if word.isprintable() and word else repr(word)


def suggestion(word: str, names: Iterable[str]) -> str:
    """What was perhaps meant, in a half sentence."""
    import difflib

    known = {name.lstrip("-"): name for name in names}
    found = difflib.get_close_matches(re.split("[ =]", word)[0].lstrip("-").replace("_", "-"), known, 1, ALIKE)
    return f"; {known[found[0]]} is perhaps meant" if found else ""
