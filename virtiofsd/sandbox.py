"""The sandbox: what the daemon cannot reach any more when the first byte of a front-end is read.

namespace: a process of its own, PID 1 of a pid namespace, whose root is an empty tmpfs with the shared directory in it,
without network. chroot: a process of its own, whose root is the shared directory. none: neither. In each of them
capabilities, new privileges and core dumps are given up, and seccomp filters are installed.
"""

import argparse
import contextlib
import errno
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

from virtiofsd import capabilities, seccomp
from virtiofsd._ring import process
from virtiofsd.errors import StartError, reason, shown
from virtiofsd.idmap import maps_root
from virtiofsd.signals import SENT

log = logging.getLogger(__name__)

SHARE, PROC = "share", "proc"  # in the new root; the latter until it is sealed
FD, TASK = "fd", "task"  # all that stays of /proc/self


class Outside(NamedTuple):
    """What the process that started the daemon does while its child serves, and descriptors that both go on using."""

    begin: Callable[[], None]  # gives up what is the child's alone, and waits until that is ready
    ending: Callable[[], None]  # a signal to end was passed on
    kept: frozenset[int] = frozenset()


class Inside(NamedTuple):
    """What the daemon has in its sandbox: descriptors of the share and of /proc/self/fd, and the threads' filter."""

    root_fd: int
    proc_fd: int
    filter: bytes
    own_umask: bool  # whether each thread can have one


# Ids of a user namespace.

def map_ids(options: argparse.Namespace) -> Callable[[], None]:
    """Prepares the ids of a user namespace for this process; what is returned sets them, from inside it. StartError."""
    if not options.uid_map and not options.gid_map:
        uid, gid = os.geteuid(), os.getegid()
        return lambda: write_maps(f"{uid} {uid} 1\n", f"{gid} {gid} 1\n")
    return helpers(options)


def write_maps(uids: str, gids: str) -> None:
    """The process's own id, by itself: what a plain user may do without help."""
    for name, text in (("setgroups", "deny\n"), ("uid_map", uids), ("gid_map", gids)):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def helpers(options: argparse.Namespace) -> Callable[[], None]:
    """newuidmap and newgidmap set the ranges that /etc/subuid and /etc/subgid allow; they must run outside."""
    go_read, go_write = os.pipe()
    done_read, done_write = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(go_write)  # its end is how the other process's end is noticed
            os.close(done_read)
            run_helpers(options, parent, go_read, done_write)
        finally:
            os._exit(1)
    os.close(go_read)
    os.close(done_write)

    def finish() -> None:
        os.write(go_write, b"1")
        os.close(go_write)
        with open(done_read, encoding="utf-8") as answer:
            trouble = answer.read()
        _, status = os.waitpid(pid, 0)
        if trouble or status:
            raise StartError(trouble or "setting --uid-map and --gid-map has failed")

    return finish


def run_helpers(options: argparse.Namespace, parent: int, go: int, done: int) -> NoReturn:
    import subprocess

    trouble = ""
    if os.read(go, 1):
        for program, ranges, own in (("newuidmap", options.uid_map, os.geteuid()),
                                     ("newgidmap", options.gid_map, os.getegid())):
            words = [str(number) for entry in ranges for number in entry] or [str(own), str(own), "1"]
            try:
                result = subprocess.run([program, str(parent), *words], capture_output=True, text=True, check=False)
            except FileNotFoundError:
                trouble = f"{program} is needed for --uid-map and --gid-map (package uidmap)"
                break
            except OSError as error:
                trouble = f"{program}, which --uid-map and --gid-map need: {reason(error)}"
                break
            if result.returncode:
                trouble = f"{program} {' '.join(words)}: {result.stderr.strip() or result.returncode}"
                break
    os.write(done, trouble.encode())
    os._exit(0)


# A process that serves, and one outside that waits for it.

def new_namespaces(options: argparse.Namespace) -> None:
    """The namespaces that begin with a process: pid; and user, by which a plain user may make others.

    OSError, StartError.
    """
    privileged = process.capabilities()[0] & capabilities.bit("sys_admin")
    if privileged and (options.uid_map or options.gid_map):
        raise StartError("--uid-map and --gid-map are for a daemon without privileges, which makes a user namespace")
    if privileged:
        process.enter_namespaces("pid")
        return
    if os.geteuid() == 0 and not options.uid_map and not options.gid_map:
        # In a user namespace of one id it would serve a guest in which all files are root's, or nobody's.
        raise StartError("--sandbox namespace: root needs the capability CAP_SYS_ADMIN for it; "
                         "--sandbox chroot and --sandbox none do without")
    finish = map_ids(options)
    process.enter_namespaces("user", "pid")
    finish()


def fork_inside(outside: Outside, root: bool = False) -> None:
    """Forks; returns in the child, which becomes `root` of its namespace. The parent waits for it and exits as it does.

    OSError.
    """
    read_end, write_end = os.pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SENT)
    pid = os.fork()
    if pid:
        os.close(read_end)
        outside.begin()
        supervise(pid, outside.ending)
    os.close(write_end)
    if root:
        process.set_ids(0, 0)  # before the next, which is undone by it
    process.parent_death_signal(signal.SIGKILL)
    if select.select([read_end], [], [], 0)[0]:  # the parent has died before that
        os._exit(128 + signal.SIGKILL)
    os.close(read_end)
    os.setsid()  # no terminal is left that input could be faked on
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whose parent ends in the namespace is a child of its first process
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def supervise(pid: int, ending: Callable[[], None]) -> NoReturn:
    """The parent's life: signals go on to the child, and its end is the parent's.

    It keeps what it takes to signal the child, whose user id may be another one, and to remove the socket at the end.
    """
    with contextlib.suppress(OSError):
        process.keep_capabilities(capabilities.bit("kill") | capabilities.bit("dac_override"))
    process.not_dumpable()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        number = signal.sigwait(SENT | {signal.SIGCHLD})
        if number != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            if number in (signal.SIGTERM, signal.SIGINT):
                ending()
            continue
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                log.error("the daemon was ended by signal %d%s", -code,
                          ": it made a system call that --seccomp forbids" if -code == signal.SIGSYS else "")
                code = 128 - code
            raise SystemExit(code)


# The root.

@contextlib.contextmanager
def empty_root(path: str) -> Iterator[None]:
    """A new root, which is the working directory and can be filled inside the context. Nothing is left of the old."""
    process.stop_propagation()
    # The tmpfs covers the shared directory, since that is one path that is there for sure.
    old = os.stat(path)
    process.mount_tmpfs(path)
    # What covers the root is met on the way up only; what covers a bind mount of it, by its own path.
    os.chdir("/.." if os.path.samestat(os.stat(path), os.stat("/")) else path)
    if os.path.samestat(os.stat("."), old):
        raise StartError(f"--shared-dir {shown(path)}: it cannot be covered by the new root")
    yield
    process.pivot_root_here()
    os.chdir("/")
    process.remount_readonly("/")


def enter_new_root(root_fd: int, path: str) -> tuple[int, int]:
    """The mounts and the root of the child. Descriptors of the share and of its own /proc/self/fd."""
    process.enter_namespaces("mount", "net", "ipc")
    process.stop_propagation()
    # Mounts can only be copied by a descriptor of this namespace.
    try:
        here = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        # The user namespace's root is another user than the one who started the daemon.
        raise StartError(f"--shared-dir {shown(path)}: {reason(error)}, for the daemon in its sandbox") from error
    if not os.path.sameopenfile(here, root_fd):
        raise StartError(f"--shared-dir {shown(path)}: it was exchanged while the daemon started")
    mounts = process.clone_mounts(here)
    os.close(here)
    disarm(mounts)
    with empty_root(path):
        os.mkdir(SHARE)
        process.attach_mounts(mounts, SHARE)
        os.close(mounts)
        proc_fd = own_proc()
    return os.open(f"/{SHARE}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), proc_fd


def disarm(mounts: int) -> None:
    """Who makes a device node in the share must not open it: that would be any disk of the host."""
    try:
        process.disarm_mounts(mounts)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        log.warning("--sandbox namespace: device nodes of the share are not barred, which takes Linux 5.12")


def own_proc() -> int:
    """Mounts in the working directory what the threads use of /proc, and nothing that leads further.

    That is /proc/self/fd, whose descriptor is returned, and beside it /proc/self/task, where no link is followed:
    `exe` would lead to Python's own file.
    """
    os.mkdir(PROC)
    # A container that hides parts of /proc forbids another one. In its own, threads have other numbers than they know
    # themselves by, so that nothing is learnt of how busy they are.
    mounted = False
    with contextlib.suppress(PermissionError):
        process.mount_proc(PROC)
        mounted = True
    for name in (FD, TASK):
        os.mkdir(name)
        folder = os.open(f"{PROC if mounted else '/proc'}/self/{name}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mounts = process.clone_mounts(folder)
        os.close(folder)
        process.attach_mounts(mounts, name)
        os.close(mounts)
    process.remount_readonly(TASK, symlinks=False)
    if mounted:
        process.unmount(PROC)
    os.rmdir(PROC)
    return os.open(FD, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def enter_chroot(root_fd: int, path: str) -> tuple[int, int]:
    """The shared directory becomes the root. Descriptors as of enter_new_root."""
    proc_fd = -1
    if process.capabilities()[0] & capabilities.bit("sys_admin"):
        # From the usual /proc/self/fd a way leads up and out. But root of a user namespace without processes of its
        # own, as mkosi makes one, may not mount /proc.
        process.enter_namespaces("mount")
        with contextlib.suppress(PermissionError), empty_root(path):
            proc_fd = own_proc()
    if proc_fd < 0:
        proc_fd = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # and not that of the parent
    os.fchdir(root_fd)
    os.chroot(".")
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), proc_fd


# Privileges.

def threads_have_umasks(options: argparse.Namespace) -> bool:
    """Whether threads may leave the umask and working directory that they share. StartError where they have to.

    The seccomp profiles of container runtimes forbid unshare(2) altogether to who has no CAP_SYS_ADMIN.
    """
    if process.may_unshare_fs():
        return True
    if options.posix_acl == "always":
        raise StartError("--posix-acl always: unshare(2) is forbidden here, by which threads have a umask each, so "
                         "that default ACLs could not be applied")
    log.info("unshare(2) is forbidden here: guests apply the umask themselves, and POSIX ACLs are not offered to them")
    return False


def give_up_privileges(options: argparse.Namespace) -> bytes:
    """Capabilities, new privileges, core dumps; then the filters. Returns that of the data plane's threads."""
    effective, permitted = process.capabilities()
    kept = capabilities.kept(options.modcaps, options.inode_file_handles)
    if effective & capabilities.bit("setgid"):
        try:
            process.drop_groups()
        except PermissionError:  # a user namespace with one id: there is nobody to act for
            kept &= ~(capabilities.bit("setuid") | capabilities.bit("setgid"))
    for name, added in options.modcaps:
        if added and not permitted & capabilities.bit(name):
            log.info("--modcaps +%s: this process has not got it to keep", name)
    if permitted:
        process.keep_capabilities(kept)
    process.no_new_privileges()
    process.not_dumpable()
    if options.seccomp == "none":
        return b""
    threads, python = seccomp.filters(options.seccomp)
    if not process.seccomp_available(seccomp.ACTIONS[options.seccomp]):
        raise StartError(f"--seccomp {options.seccomp}: this kernel cannot do that")
    process.seccomp(python)
    return threads


def close_all_but(kept: set[int]) -> None:
    """Whatever else the process was started with: a directory among it would be a way out."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):  # what listed them is gone by now
                os.close(int(name))


def forget_input() -> None:
    """Nothing is ever read from standard input."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    if null:
        os.dup2(null, 0)
        os.close(null)


def load_what_comes_later() -> None:
    """Modules, libraries and data that are looked for when they are needed, and not found in the sandbox."""
    import encodings.idna
    import time
    import traceback

    time.localtime()
    with contextlib.suppress(Exception):
        "".join(traceback.format_exception(ValueError("nothing")))
    encodings.idna.nameprep("a")
    # glibc wants it to end a thread (pthread_exit), as Python does with those that still run when it ends itself.
    with contextlib.suppress(ImportError, OSError):
        import ctypes

        ctypes.CDLL("libgcc_s.so.1")
    sys.stderr.flush()


def enter(options: argparse.Namespace, root_fd: int, proc_fd: int, listener: socket.socket,
          outside: Outside) -> Inside:
    """Enters the sandbox that the options name. Raises StartError where that cannot be.

    But for `none` only a child returns, and the parent has no listener any more. The descriptors given are
    replaced, and all others closed where it serves, but for the standard ones.
    """
    load_what_comes_later()
    plain = os.geteuid() != 0  # and not root of a user namespace, which it may become
    try:
        needed = {root_fd, proc_fd, listener.fileno(), *outside.kept}
        before = {root_fd, proc_fd}
        # The process outside keeps what it was given, which may be a lock of who has started it.
        if options.sandbox == "namespace":
            new_namespaces(options)
            fork_inside(outside, root=maps_root(options.uid_map, options.gid_map))
        elif options.sandbox == "chroot":
            fork_inside(outside)
        close_all_but({0, 1, 2} | needed)
        if 0 not in needed:
            forget_input()
        if options.sandbox == "namespace":
            root_fd, proc_fd = enter_new_root(root_fd, options.shared_dir)
        elif options.sandbox == "chroot":
            root_fd, proc_fd = enter_chroot(root_fd, options.shared_dir)
        for fd in before - {root_fd, proc_fd}:
            os.close(fd)
        own_umask = threads_have_umasks(options)
        return Inside(root_fd, proc_fd, give_up_privileges(options), own_umask)
    except ValueError as error:
        raise StartError(str(error)) from error
    except OSError as error:
        hint = ""
        if options.sandbox == "namespace" and plain:
            hint = " (user namespaces may be forbidden here; --sandbox none does without)"
        raise StartError(f"--sandbox {options.sandbox}: {reason(error)}{hint}") from error
