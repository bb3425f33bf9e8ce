"""SOCKET.pid: says which process serves at a socket, and locks the place against a second one."""

import contextlib
import fcntl
import os
from typing import Self

from virtiofsd.errors import StartError, reason, shown


class PidFile:
    """The file, with its lock, which this process and its children hold."""

    def __init__(self, path: str, fd: int) -> None:
        self.path, self.fd = os.path.abspath(path), fd  # the working directory may change

    @classmethod
    def beside(cls, socket_path: str) -> Self:
        """That of the socket, locked and with this process's id in it. StartError where another holds it."""
        path = f"{socket_path}.pid"
        try:
            while True:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK,
                             0o600)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if is_file_at(path, fd):
                        try:
                            os.ftruncate(fd, 0)
                            os.write(fd, f"{os.getpid()}\n".encode())
                        except OSError:
                            os.unlink(path)
                            raise
                        return cls(path, fd)
                except OSError:
                    os.close(fd)
                    raise
                os.close(fd)  # it was removed by who held it until now
        except BlockingIOError:
            raise StartError(f"--socket-path {shown(socket_path)}: another process serves there, "
                             f"which holds {shown(path)}") from None
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StartError(f"--socket-path {shown(socket_path)}: {reason(error)}") from error
        except OSError as error:
            raise StartError(f"--socket-path {shown(socket_path)}: {shown(path)}: {reason(error)}") from error

    def remove(self) -> None:
        """Unless another has taken its place. The lock is given up, and what comes in between finds a file without."""
        with contextlib.suppress(OSError):
            if is_file_at(self.path, self.fd):
                os.unlink(self.path)
        os.close(self.fd)


def is_file_at(path: str, fd: int) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
