"""What a service manager such as systemd is told, and what it hands over (sd_notify(3), sd_listen_fds(3))."""

import contextlib
import os
import socket

FIRST_FD = 3


def socket_handed_over() -> int | None:
    """The listening socket that the daemon was started for; None: it was not. ValueError where there are several."""
    pid, count = os.environ.get("LISTEN_PID", ""), os.environ.get("LISTEN_FDS", "")
    if pid != str(os.getpid()) or not count.isdigit() or count == "0":
        return None
    if count != "1":
        raise ValueError(f"{count} sockets were handed over (LISTEN_FDS), and one share has one")
    return FIRST_FD


class ServiceManager:
    """Hears that the daemon is ready, and that it ends. Where there is none nothing is sent.

    With a sandbox of its own process the daemon is two: the one that was started, whose words count, and its child,
    which knows when it is ready. A pipe brings that from the one to the other.
    """

    def __init__(self) -> None:
        path = os.environ.pop("NOTIFY_SOCKET", "")
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            os.environ.pop(name, None)
        self.pid = os.getpid()
        self._socket: socket.socket | None = None
        self._pipe: tuple[int, int] | None = None
        self._stopping = False
        if path.startswith(("/", "@")):
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                made.connect(path.replace("@", "\0", 1) if path.startswith("@") else path)
            except OSError:
                made.close()
            else:
                self._socket, self._pipe = made, os.pipe()

    def descriptors(self) -> frozenset[int]:
        if self._socket is None or self._pipe is None:
            return frozenset()
        return frozenset((self._socket.fileno(), *self._pipe))

    @property
    def _is_child(self) -> bool:
        return os.getpid() != self.pid

    def begin(self) -> None:
        """In the process that serves. In a child only the pipe is left."""
        if self._is_child and self._socket is not None and self._pipe is not None:
            self._socket.close()
            self._socket = None
            os.close(self._pipe[0])

    def wait_for_child(self) -> None:
        """In the parent: passes on that the child is ready. It may end before it is, which others notice."""
        if self._pipe is not None:
            reading, writing = self._pipe
            os.close(writing)
            if os.read(reading, 1):
                self.ready()
            os.close(reading)
            self._pipe = None

    def ready(self) -> None:
        """The first front-end is waited for."""
        if self._is_child:
            if self._pipe is not None:
                os.write(self._pipe[1], b"1")
                os.close(self._pipe[1])
                self._pipe = None
        else:
            self._tell(f"READY=1\nMAINPID={self.pid}")

    def stopping(self) -> None:
        if not self._stopping and not self._is_child:
            self._stopping = True
            self._tell("STOPPING=1")

    def _tell(self, text: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send(text.encode())
