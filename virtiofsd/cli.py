"""The command: reads the options and starts the daemon. Nothing heavy is imported before the socket is bound."""

import sys

from virtiofsd.errors import OptionError, StartError
from virtiofsd.options import parse

EXIT_FAILURE = 1
EXIT_USAGE = 2


def main() -> int:
    try:
        options = parse(sys.argv[1:])
        if isinstance(options, str):
            sys.stdout.write(options)
            return 0
        from virtiofsd.daemon import run

        return run(options)
    except (OptionError, StartError) as error:
        print(f"virtiofsd: {error}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, OptionError) else EXIT_FAILURE
