"""One line per event, on standard error."""

import logging

LEVELS = {
    "off": logging.CRITICAL + 10,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG - 5,
}
TRACE = LEVELS["trace"]

log = logging.getLogger("virtiofsd")


def set_up(level: str) -> None:
    """Logs events of `level` (a key of LEVELS) and above."""
    logging.addLevelName(logging.WARNING, "WARN")
    logging.addLevelName(TRACE, "TRACE")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("[%(asctime)s %(levelname)s %(name)s] %(message)s", "%Y-%m-%dT%H:%M:%S"))
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(LEVELS[level])
