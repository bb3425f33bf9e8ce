"""The UNIX socket that front-ends connect to: made at a path, or handed over by who starts the daemon."""

import contextlib
import os
import select
import socket
import stat
from typing import NamedTuple, Self

from virtiofsd.errors import StartError, reason, shown
from virtiofsd.pid_file import PidFile


class Group(NamedTuple):
    name: str
    id: int


class Listener:
    """A listening socket. What it was given in the file system goes with it."""

    def __init__(self, sock: socket.socket, path: str | None = None, pid_file: PidFile | None = None) -> None:
        self.socket, self.pid_file = sock, pid_file
        self.path = None if path is None else os.path.abspath(path)  # the working directory may change
        self._file = None if self.path is None else file_at(self.path)

    @classmethod
    def at(cls, path: str, group: Group | None = None) -> Self:
        """A socket at the path, for its owner, or for a group too. StartError.

        A stale one is replaced, one that somebody listens on is not.
        """
        pid_file = PidFile.beside(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        bound = False
        option = f"--socket-path {shown(path)}"
        old = os.umask(0o077)
        try:
            remove_stale(path)
            sock.bind(path)
            bound = True
            if group is not None:
                option = f"--socket-group {shown(group.name)}: giving it {shown(path)}"
                os.chown(path, -1, group.id)
                os.chmod(path, 0o770)
            sock.listen()
        except OSError as error:
            pid_file.remove()
            if bound:
                os.unlink(path)
            raise StartError(f"{option}: {reason(error)}") from error
        except StartError:
            pid_file.remove()
            raise
        finally:
            os.umask(old)
        return cls(sock, path, pid_file)

    @classmethod
    def on(cls, fd: int) -> Self:
        """The socket that was handed over. StartError where it is none that listens."""
        try:
            sock = socket.socket(fileno=fd)
            listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise StartError(f"--fd {fd}: {reason(error)}") from error
        if (sock.family, sock.type) != (socket.AF_UNIX, socket.SOCK_STREAM) or not listening:
            raise StartError(f"--fd {fd}: it is not a listening UNIX stream socket")
        os.set_inheritable(fd, False)
        return cls(sock)

    @property
    def shut(self) -> bool:
        """Whether somebody who has the socket, too, has shut it down, so that nobody can connect."""
        poll = select.poll()
        poll.register(self.socket, 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    def descriptors(self) -> frozenset[int]:
        """What a child needs that goes on with it, besides the socket."""
        return frozenset() if self.pid_file is None else frozenset({self.pid_file.fd})

    def close(self) -> None:
        """Removes the files too, unless others have taken their places."""
        self.socket.close()
        if self.path is not None and file_at(self.path) == self._file:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        if self.pid_file is not None:
            self.pid_file.remove()
            self.pid_file = None


def group_of(name: str) -> Group:
    """StartError where there is no such group. Whom the system asks for it may take long."""
    import grp

    try:
        return Group(name, grp.getgrnam(name).gr_gid)
    except KeyError:
        raise StartError(f"--socket-group {shown(name)}: there is no such group") from None


def file_at(path: str) -> tuple[int, int] | None:
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def remove_stale(path: str) -> None:
    """Removes a socket that nobody listens on. Raises OSError, StartError where somebody does."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise StartError(f"--socket-path {shown(path)}: what is there is no socket, and left alone")
    except FileNotFoundError:
        return
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.setblocking(False)  # whose queue is full must not be waited for
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise StartError(f"--socket-path {shown(path)}: another process listens there")
