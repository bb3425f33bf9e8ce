"""The command: reads the options and starts the daemon. Nothing heavy is imported before the socket is bound."""

import sys

from virtiofsd.options import OptionError, parse

EXIT_USAGE = 2


def main() -> int:
    try:
        options = parse(sys.argv[1:])
    except OptionError as error:
        print(f"virtiofsd: {error}", file=sys.stderr)
        return EXIT_USAGE
    if isinstance(options, str):
        sys.stdout.write(options)
        return 0
    from virtiofsd.daemon import run

    return run(options)
