"""The signals that somebody sends to the daemon."""

import signal

SENT = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1})
