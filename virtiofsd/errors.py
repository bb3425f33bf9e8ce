"""What is told to the user in one line when the daemon does not start."""

import os

# As the reference daemon has them; the last one is EX_SOFTWARE of sysexits(3).
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERNAL = 70


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
