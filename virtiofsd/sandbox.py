"""The sandbox: what the daemon cannot reach any more when the first byte of a front-end is read.

namespace: a process of its own, PID 1 of a pid namespace, whose root is an empty tmpfs with the shared directory in it,
without network. chroot: the shared directory is the root. none: neither. In each of them capabilities, new privileges
and core dumps are given up, and seccomp filters are installed.
"""

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from virtiofsd import capabilities, seccomp
from virtiofsd._ring import process
from virtiofsd.errors import StartError, shown

log = logging.getLogger(__name__)

SHARE, PROC = "share", "proc"  # in the new root, before it is sealed


class Outside(NamedTuple):
    """What the process that started the daemon does while its child serves, and descriptors that both go on using."""

    begin: Callable[[], None]  # gives up what is the child's alone, and waits until that is ready
    signalled: Callable[[], None]  # a signal was passed on
    kept: frozenset[int] = frozenset()


class Inside(NamedTuple):
    """What the daemon has in its sandbox: descriptors of the share and of /proc/self/fd, and the threads' filter."""

    root_fd: int
    proc_fd: int
    filter: bytes


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
        run_helpers(options, parent, go_read, done_write)
    os.close(go_read)
    os.close(done_write)

    def finish() -> None:
        os.write(go_write, b"1")
        os.close(go_write)
        with open(done_read, encoding="utf-8") as answer:
            trouble = answer.read()
        os.waitpid(pid, 0)
        if trouble:
            raise StartError(trouble)

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
            if result.returncode:
                trouble = f"{program} {' '.join(words)}: {result.stderr.strip() or result.returncode}"
                break
    os.write(done, trouble.encode())
    os._exit(0)


# The namespace sandbox.

def fork_inside(options: argparse.Namespace, outside: Outside) -> None:
    """Forks; returns in the child, which is PID 1 of a namespace of its own. The parent waits for it and exits as it
    does. OSError, StartError.
    """
    privileged = process.capabilities()[0] & capabilities.bit("sys_admin")
    if privileged and (options.uid_map or options.gid_map):
        raise StartError("--uid-map and --gid-map are for a daemon without privileges, which makes a user namespace")
    if privileged:
        process.enter_namespaces("pid")
    else:
        finish = map_ids(options)
        process.enter_namespaces("user", "pid")
        finish()
        if maps_root(options):
            process.set_ids(0, 0)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    pid = os.fork()
    if pid:
        outside.begin()
        supervise(pid, outside.signalled)
    process.parent_death_signal(signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


FORWARDED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}


def maps_root(options: argparse.Namespace) -> bool:
    return any(inside == 0 for inside, _, _ in options.uid_map) and any(inside == 0 for inside, _, _ in options.gid_map)


def supervise(pid: int, signalled: Callable[[], None]) -> NoReturn:
    """The parent's life: signals go on to the child, and its end is the parent's. Nothing is left of its privileges."""
    with contextlib.suppress(OSError):
        process.keep_capabilities(0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        number = signal.sigwait(FORWARDED | {signal.SIGCHLD})
        if number != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            signalled()
            continue
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                log.error("the daemon was ended by signal %d", -code)
                code = 128 - code
            raise SystemExit(code)


def enter_new_root(root_fd: int, path: str) -> tuple[int, int]:
    """The mounts and the root of the child. Descriptors of the share and of its own /proc/self/fd."""
    process.enter_namespaces("mount", "net", "ipc")
    process.stop_propagation()
    # Mounts can only be copied by a descriptor of this namespace.
    here = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if not os.path.sameopenfile(here, root_fd):
        raise StartError(f"--shared-dir {shown(path)}: it was exchanged while the daemon started")
    mounts = process.clone_mounts(here)
    os.close(here)
    # The tmpfs covers the shared directory, since that is one path that is there for sure.
    process.mount_tmpfs(path)
    os.chdir(path)
    os.mkdir(SHARE)
    os.mkdir(PROC)
    process.attach_mounts(mounts, SHARE)
    os.close(mounts)
    process.mount_proc(PROC)
    proc_fd = os.open(f"{PROC}/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    process.unmount(PROC)
    os.rmdir(PROC)
    process.pivot_root_here()
    os.chdir("/")
    process.remount_readonly("/")
    return os.open(f"/{SHARE}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), proc_fd


def enter_chroot(root_fd: int) -> int:
    os.fchdir(root_fd)
    os.chroot(".")
    os.close(root_fd)
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


# Privileges.

def give_up_privileges(options: argparse.Namespace) -> bytes:
    """Capabilities, new privileges, core dumps; then the filters. Returns that of the data plane's threads."""
    effective, permitted = process.capabilities()
    kept = capabilities.kept(options.modcaps, options.inode_file_handles)
    if effective & capabilities.bit("setgid"):
        try:
            process.drop_groups()
        except PermissionError:  # a user namespace with one id: there is nobody to act for
            kept &= ~(capabilities.bit("setuid") | capabilities.bit("setgid"))
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


def load_what_comes_later() -> None:
    """Modules and data that Python would look for when it needs them, and not find in the sandbox."""
    import encodings.idna
    import time
    import traceback

    time.localtime()
    with contextlib.suppress(Exception):
        "".join(traceback.format_exception(ValueError("nothing")))
    encodings.idna.nameprep("a")
    sys.stderr.flush()


def enter(options: argparse.Namespace, root_fd: int, proc_fd: int, listener: socket.socket,
          outside: Outside) -> Inside:
    """Enters the sandbox that the options name. Raises StartError where that cannot be.

    With `namespace` only the child returns, and the parent has no listener any more. The descriptors given are
    replaced, and all others closed, but for the standard ones.
    """
    load_what_comes_later()
    try:
        close_all_but({0, 1, 2, root_fd, proc_fd, listener.fileno(), *outside.kept})
        if options.sandbox == "namespace":
            fork_inside(options, outside)
            replaced = (root_fd, proc_fd)
            root_fd, proc_fd = enter_new_root(root_fd, options.shared_dir)
            for fd in replaced:
                os.close(fd)
        elif options.sandbox == "chroot":
            root_fd = enter_chroot(root_fd)
        return Inside(root_fd, proc_fd, give_up_privileges(options))
    except ValueError as error:
        raise StartError(str(error)) from error
    except OSError as error:
        hint = ""
        if options.sandbox == "namespace" and os.geteuid() != 0:
            hint = " (user namespaces may be forbidden here; --sandbox none does without)"
        raise StartError(f"--sandbox {options.sandbox}: {error if error.strerror is None else error.strerror}{hint}"
                         ) from error
