"""The log by way of syslog (syslog(3), RFC 3164), for those who ask for it."""

import contextlib
import logging
import os
import socket
import time

from virtiofsd.log import ROOT, Lossy, StandardError, severity

SYSLOG = "/dev/log"
FACILITY_USER = 1


class Syslog(Lossy):
    """The socket of the syslog daemon. Opened before there is a sandbox, in which it could not be found."""

    def __init__(self) -> None:
        """OSError where there is no syslog daemon."""
        super().__init__()
        self.pid = os.getpid()  # as others see it: in a sandbox it has another
        self.socket = self._connected()
        self.instead = StandardError()

    @staticmethod
    def _connected() -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            made.connect(SYSLOG)
        except OSError as error:
            made.close()
            raise OSError(error.errno, error.strerror, SYSLOG) from None
        return made

    def fileno(self) -> int:
        return self.socket.fileno()

    def reopen(self) -> None:
        """After the syslog daemon was started anew; the old connection is kept where there is no other."""
        with contextlib.suppress(OSError):
            made = self._connected()
            self.socket.close()
            self.socket = made

    def format(self, record: logging.LogRecord) -> str:
        priority = FACILITY_USER << 3 | severity(record.levelno)
        return f"<{priority}>{time.strftime('%b %e %H:%M:%S')} {ROOT}[{self.pid}]: {super().format(record)}"

    def write(self, line: str) -> bool:
        data = line.encode(errors="backslashreplace")
        if not self.takes_more(self.socket.fileno()):
            return False
        try:
            self.socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            self.reopen()
            try:
                self.socket.send(data, socket.MSG_DONTWAIT)
            except OSError:  # in the sandbox there is no way to a new one
                return self.instead.write(line)
        return True

    def close(self) -> None:
        self.socket.close()
        super().close()
