"""The command: reads the options and starts the daemon. Nothing heavy is imported before the socket is bound."""

import sys

from virtiofsd.command_line import parse
from virtiofsd.errors import OptionError, StartError
from virtiofsd.log import log

# As the reference daemon has them; the last one is EX_SOFTWARE of sysexits(3).
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERNAL = 70


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
    except Exception:
        log.exception("an error of the daemon itself")
        return EXIT_INTERNAL
