"""Start-up, main loop and end of the process.

The order of start-up is fixed: whatever can be a user's mistake comes before the socket exists, and what takes time
after it, since whoever starts the daemon waits for the socket.
"""

import argparse
import contextlib
import os
import resource
import socket
import stat

from virtiofsd import log as logging
from virtiofsd.log import log

EXIT_FAILURE = 1
NOFILE_WANTED = 1_000_000


class StartError(Exception):
    """Why the daemon cannot start: one line."""


def reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def raise_descriptor_limit(wanted: int | None) -> int:
    """Sets RLIMIT_NOFILE and returns it. By default it becomes what is allowed, with nothing said; StartError else."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted == 0:
        return soft
    try:
        with open("/proc/sys/fs/nr_open", encoding="ascii") as file:
            most = int(file.read())
    except OSError:
        most = NOFILE_WANTED
    target = min(NOFILE_WANTED, most) if wanted is None else wanted
    for limit in ((target, max(target, hard)), (min(target, hard), hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        except (OSError, ValueError):
            continue
        if wanted is not None and limit[0] < wanted:
            break
        return limit[0]
    raise StartError(f"--rlimit-nofile {wanted}: the limit is {hard}, and may not be raised")


def open_share(path: str) -> tuple[int, int]:
    """The shared directory (O_PATH) and /proc/self/fd. StartError."""
    try:
        root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StartError(f"--shared-dir {path}: {reason(error)}") from error
    try:
        return root, os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StartError(f"/proc/self/fd: {reason(error)}; the daemon needs /proc") from error


def listen(path: str) -> socket.socket:
    """A socket at the path; a stale one is replaced, one that somebody listens on is not. StartError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
                try:
                    probe.connect(path)
                except ConnectionRefusedError:
                    os.unlink(path)
                else:
                    raise StartError(f"--socket-path {path}: another process listens there")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StartError(f"--socket-path {path}: {reason(error)}") from error
    old = os.umask(0o077)
    try:
        listener.bind(path)
        listener.listen(1)
    except OSError as error:
        raise StartError(f"--socket-path {path}: {reason(error)}") from error
    finally:
        os.umask(old)
    return listener


def take_listener(fd: int) -> socket.socket:
    """The socket that was handed over. StartError where it is none that listens."""
    try:
        listener = socket.socket(fileno=fd)
        listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise StartError(f"--fd {fd}: {reason(error)}") from error
    if listener.family != socket.AF_UNIX or not listening:
        raise StartError(f"--fd {fd}: it is not a listening UNIX socket")
    os.set_inheritable(fd, False)
    return listener


def run(options: argparse.Namespace) -> int:
    """The daemon, from its options to its exit status."""
    logging.set_up(options.log_level)
    try:
        descriptors = raise_descriptor_limit(options.rlimit_nofile)
        root_fd, proc_fd = open_share(options.shared_dir)
        listener = listen(options.socket_path) if options.fd is None else take_listener(options.fd)
    except StartError as error:
        log.error("%s", error)
        return EXIT_FAILURE
    os.umask(0)

    from virtiofsd.serve import serve_until_done

    try:
        return serve_until_done(options, listener, root_fd, proc_fd, descriptors)
    finally:
        if options.fd is None:
            with contextlib.suppress(OSError):
                os.unlink(options.socket_path)
