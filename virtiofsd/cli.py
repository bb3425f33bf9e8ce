"""The command: reads the options and starts the daemon. Nothing heavy is imported before the socket is bound."""

import os
import sys

from virtiofsd.command_line import parse
from virtiofsd.errors import EXIT_FAILURE, EXIT_INTERNAL, EXIT_USAGE, OptionError, StartError, reason
from virtiofsd.log import log


def open_standard_descriptors() -> None:
    """Whoever starts the daemon may have closed some, and their numbers must not be given to anything else."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def print_out(text: str) -> None:
    """StartError where it cannot be written."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python tries once more at its end
        raise StartError(f"standard output: {reason(error)}") from error


def main() -> int:
    open_standard_descriptors()
    try:
        options = parse(sys.argv[1:])
        if isinstance(options, str):
            print_out(options)
            return 0
        from virtiofsd.daemon import run

        return run(options)
    except (OptionError, StartError) as error:
        print(f"virtiofsd: {error}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, OptionError) else EXIT_FAILURE
    except Exception:
        log.exception("an error of the daemon itself")
        return EXIT_INTERNAL
