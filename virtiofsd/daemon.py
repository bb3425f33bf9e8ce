"""Start-up, main loop and end of the process.

The order of start-up is fixed: whatever can be a user's mistake comes before the socket exists, and what takes time
after it, since whoever starts the daemon waits for the socket.
"""

import argparse
import os
import re
import resource
import signal

from virtiofsd import log
from virtiofsd.errors import StartError, reason, shown
from virtiofsd.listener import Listener, group_of
from virtiofsd.options import NOFILE_LEAST
from virtiofsd.service_manager import ServiceManager
from virtiofsd.signals import SENT

KERNEL_LEAST = (5, 10)  # whose statx(2) tells mounts apart, and without that one file may be taken for another
NOFILE_WANTED = 1_000_000
HANDLE_BYTES = 128  # the most that a file handle has (MAX_HANDLE_SZ)
AT_EMPTY_PATH = 0x1000


def check_kernel() -> None:
    """Raises StartError where the kernel is too old."""
    release = os.uname().release
    version = re.match(r"(\d+)\.(\d+)", release)
    if version and tuple(map(int, version.groups())) < KERNEL_LEAST:
        least = ".".join(map(str, KERNEL_LEAST))
        raise StartError(f"Linux {least} or newer is needed; this is {release}")


def raise_descriptor_limit(wanted: int | None) -> int:
    """Sets RLIMIT_NOFILE and returns it: None becomes what is allowed, 0 what there is. StartError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = min(NOFILE_WANTED, most_descriptors()) if wanted is None else wanted or soft
    for limit in ((target, max(target, hard)), (min(target, hard), hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        except (OSError, ValueError):
            continue
        got = limit[0]
        break
    else:
        got = soft
    if wanted and got < wanted:
        raise StartError(f"--rlimit-nofile {wanted}: the limit is {hard}, and may not be raised")
    if got < NOFILE_LEAST:
        raise StartError(f"the limit of open files (RLIMIT_NOFILE) is {got}: fewer than {NOFILE_LEAST} serve no guest")
    return got


def most_descriptors() -> int:
    try:
        with open("/proc/sys/fs/nr_open", encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return NOFILE_WANTED


def open_share(path: str) -> tuple[int, int]:
    """The shared directory (O_PATH) and /proc/self/fd. StartError."""
    try:
        root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StartError(f"--shared-dir {shown(path)}: {reason(error)}") from error
    try:
        return root, os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StartError(f"/proc/self/fd: {reason(error)}; the daemon needs /proc") from error


def check_file_handles(share: str) -> None:
    """Raises StartError where files of the share cannot be opened by handle, and --inode-file-handles wants it."""
    import ctypes  # which takes a while, and nobody else needs

    libc = ctypes.CDLL(None, use_errno=True)
    handle = (ctypes.c_uint32 * (2 + HANDLE_BYTES // 4))(HANDLE_BYTES)  # struct file_handle: size, type, bytes
    mount_id = ctypes.c_int()
    try:
        folder = os.open(share, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StartError(f"--inode-file-handles mandatory: --shared-dir {shown(share)}: {reason(error)}") from error
    try:
        found = libc.name_to_handle_at(folder, b"", handle, ctypes.byref(mount_id), AT_EMPTY_PATH)
        opened = -1 if found < 0 else libc.open_by_handle_at(folder, handle, os.O_PATH | os.O_CLOEXEC)
        if opened < 0:
            raise StartError("--inode-file-handles mandatory: files of the share cannot be opened by handle: "
                             + os.strerror(ctypes.get_errno()))
        os.close(opened)
    finally:
        os.close(folder)


def run(options: argparse.Namespace) -> int:
    """The daemon, from its options to its exit status. StartError where it cannot begin."""
    log.set_up(options.log_level, syslog=options.syslog)
    for note in options.notes:
        log.log.warning("%s", note)
    try:
        return start(options)
    except StartError as error:
        if log.descriptors():  # nobody may read standard error
            log.log.error("%s", error)
        raise


def start(options: argparse.Namespace) -> int:
    check_kernel()
    manager = ServiceManager()
    descriptors = raise_descriptor_limit(options.rlimit_nofile)
    root_fd, proc_fd = open_share(options.shared_dir)
    options.shared_dir = os.path.realpath(options.shared_dir)  # the sandbox goes there by name, from elsewhere
    if not options.uid_map and not os.access(f"/proc/self/fd/{root_fd}", os.R_OK | os.X_OK, effective_ids=True):
        log.log.warning("--shared-dir %s: user %d may not list it", shown(options.shared_dir), os.geteuid())
    if options.inode_file_handles == "mandatory":
        check_file_handles(options.shared_dir)
    group = None if options.socket_group is None else group_of(options.socket_group)
    # From here on there is something to clean up: signals wait for who handles them. So does that of a child's end.
    signal.pthread_sigmask(signal.SIG_BLOCK, SENT | {signal.SIGCHLD})
    listener = Listener.at(options.socket_path, group) if options.fd is None else Listener.on(options.fd)
    os.umask(0)
    try:
        from virtiofsd import sandbox
        from virtiofsd.serve import serve_until_done

        def begin_as_parent() -> None:
            listener.socket.close()
            manager.wait_for_child()

        kept = listener.descriptors() | manager.descriptors() | log.descriptors()
        inside = sandbox.enter(options, root_fd, proc_fd, listener.socket,
                               sandbox.Outside(begin_as_parent, manager.stopping, kept))
        manager.begin()
        return serve_until_done(options, listener, inside, descriptors, manager)
    finally:
        manager.stopping()
        listener.close()
