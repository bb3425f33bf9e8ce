"""The daemon, with code in it that tries what an intruder would try: run in place of `python -m virtiofsd`.

At SIGUSR1 the share's file `probe` says in JSON which of PROBES to call, with which arguments and in which kind of
thread; the file `answer` then has what it returned. Without such a file the signal has its usual meaning.
"""

import _thread
import contextlib
import ctypes
import errno
import itertools
import json
import os
import socket
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from virtiofsd import cli, seccomp, serve
from virtiofsd._ring import process
from virtiofsd.log import log
from virtiofsd.sandbox import Inside
from virtiofsd.syscalls_abi import NUMBERS

LIBC = ctypes.CDLL(None, use_errno=True)
MACHINE = seccomp.ARCHITECTURES[os.uname().machine][0]
PR_GET_PDEATHSIG, PR_GET_DUMPABLE, PR_CAPBSET_READ, PR_GET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 2, 3, 23, 39, 47
PR_CAP_AMBIENT_IS_SET = 1
PTRACE_ATTACH = 16
CAPABILITIES = 64
DEEP = 12
FDS = range(200)


def call(name: str, *arguments: int | bytes | None) -> int:
    """A system call by name; raises OSError."""
    words = [ctypes.c_long(word) if isinstance(word, int) else ctypes.c_char_p(word) for word in arguments]
    result = int(LIBC.syscall(ctypes.c_long(NUMBERS[name][MACHINE]), *words))
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def outcome(run: Callable[[], Any]) -> Any:
    """What it returns, or the name of the error."""
    try:
        return run()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


# Ways out

def directories() -> Iterator[int | None]:
    """All that a path can be relative to."""
    yield None
    for fd in FDS:
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                yield fd


def opened(path: str, dir_fd: int | None, flags: int) -> str | None:
    """Where the path leads; None: nowhere."""
    try:
        fd = os.open(path, flags, dir_fd=dir_fd)
    except OSError:
        return None
    info = os.fstat(fd)
    os.close(fd)
    return f"{info.st_dev}:{info.st_ino}"


def ways_out(inside: Inside, targets: list[str]) -> dict[str, str | None]:
    """Tries to open each file by every path that may lead to it. What could be opened: the path, and what it is."""
    tids = [str(task.native_id) for task in threading.enumerate()]
    folders = ("/proc/self", "/proc/1", "/proc/thread-self", "/proc/self/task/1", "..", ".", "../self", "../1",
               "../../self", "../../1", "1", "../..", *(f"../task/{tid}" for tid in tids))
    within_proc = [f"{folder}/{name}" for name in ("root", "cwd", "exe", "ns/mnt", "map_files") for folder in folders]
    ups = ["", *("/".join([".."] * depth) for depth in range(1, DEEP))]
    own = opened(".", inside.proc_fd, os.O_PATH)
    found: dict[str, str | None] = {}
    for directory, flags in itertools.product(directories(), (os.O_RDONLY, os.O_PATH)):
        links = [] if directory is None else [str(fd) for fd in FDS]
        for target in targets:
            relative = target.lstrip("/")
            paths = [target, *(f"{up}/{relative}" for up in ups if up)]
            paths += [f"{way}/{up}/{relative}" for way in within_proc for up in ups[:4]]
            paths += [f"{link}/{up}/{relative}" for link in links for up in ups[:6]]
            for path in paths:
                if (what := opened(path, directory, flags)) is not None:
                    found[f"{path} from {directory}"] = what
        for path in (*within_proc, "../../../../../../../../etc", "../sys/kernel", "../../sys/kernel",
                     "/proc/sys/kernel", "/proc", "/dev", "/sys", "/etc", "/usr"):
            if (what := opened(path, directory, flags)) not in (None, own):
                found[f"{path} from {directory}"] = what
    return found


def by_handle(inside: Inside, kind: int, handle: str) -> Any:
    """Opens a file of the share's file system by its handle."""
    data = bytes.fromhex(handle)
    text = len(data).to_bytes(4, sys.byteorder) + kind.to_bytes(4, sys.byteorder) + data
    root = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=inside.root_fd)
    return outcome(lambda: os.close(call("open_by_handle_at", root, text, os.O_RDONLY)))


def device(inside: Inside, major: int, minor: int) -> dict[str, Any]:
    """Makes a block device in the share and opens it."""
    number = os.makedev(major, minor)
    made = outcome(lambda: os.mknod("disk", stat.S_IFBLK | 0o600, number, dir_fd=inside.root_fd))
    return {"made": made, "opened": outcome(lambda: os.close(os.open("disk", os.O_RDONLY, dir_fd=inside.root_fd)))}


def listing(inside: Inside) -> dict[str, list[str]]:
    """The root, and what is around /proc/self/fd."""
    return {"/": sorted(os.listdir("/")),
            "proc_fd/..": sorted(os.listdir(os.open("..", os.O_RDONLY, dir_fd=inside.proc_fd))),
            "proc_fd/../..": sorted(os.listdir(os.open("../..", os.O_RDONLY, dir_fd=inside.proc_fd)))}


def descriptors(inside: Inside) -> dict[str, str]:
    found = {}
    for fd in FDS:
        with contextlib.suppress(OSError):
            kind = stat.S_IFMT(os.fstat(fd).st_mode)
            found[str(fd)] = f"{kind:o} {os.readlink(str(fd), dir_fd=inside.proc_fd)}"
    return found


# Others

def network(_: Inside, port: int, name: str) -> dict[str, Any]:
    """Connects to who listens outside, at a port of this machine and at an abstract address."""
    def connect(family: int, address: Any) -> str:
        with socket.socket(family, socket.SOCK_STREAM) as made:
            made.settimeout(2)
            made.connect(address)
        return "connected"

    return {"inet": outcome(lambda: connect(socket.AF_INET, ("127.0.0.1", port))),
            "inet6": outcome(lambda: connect(socket.AF_INET6, ("::1", port))),
            "packet": outcome(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()),
            "netlink": outcome(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()),
            "abstract": outcome(lambda: connect(socket.AF_UNIX, f"\0{name}"))}


def processes(inside: Inside, pids: list[int]) -> dict[str, Any]:
    """Which of these there are, and what ptrace says of them. All below 1000 are looked for, too."""
    def there(pid: int) -> Any:
        return outcome(lambda: os.kill(pid, 0))

    def attached(pid: int) -> Any:
        return outcome(lambda: call("ptrace", PTRACE_ATTACH, pid, 0, 0))

    ours = {int(tid) for tid in os.listdir(os.open("../task", os.O_RDONLY, dir_fd=inside.proc_fd))}
    return {"pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0),
            "others": [pid for pid in range(1, 1000) if pid not in ours and there(pid) != "ESRCH"],
            "asked": [there(pid) for pid in pids], "traced": [attached(pid) for pid in pids]}


# What it may

def privileges(_: Inside) -> dict[str, Any]:
    effective, permitted = process.capabilities()
    status = {"effective": effective, "permitted": permitted, "bounding": 0, "ambient": 0}
    for number in range(CAPABILITIES):
        if LIBC.prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            status["bounding"] |= 1 << number
        if LIBC.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, number, 0, 0) == 1:
            status["ambient"] |= 1 << number
    signal = ctypes.c_int()
    LIBC.prctl(PR_GET_PDEATHSIG, ctypes.byref(signal), 0, 0, 0)
    umask = os.umask(0)
    os.umask(umask)
    return status | {"no_new_privs": LIBC.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0),
                     "dumpable": LIBC.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), "umask": umask, "groups": os.getgroups(),
                     "ids": [*os.getresuid(), *os.getresgid()], "death_signal": signal.value}


def forbidden(_: Inside, name: str, arguments: list[int]) -> Any:
    """A system call that may end the process."""
    return outcome(lambda: call(name, *arguments))


def abort(_: Inside) -> None:
    os.abort()


def end_thread(_: Inside) -> bool:
    """Ends a thread as Python ends those that still run when it ends itself."""
    began = _thread.allocate_lock()
    began.acquire()

    def run() -> None:
        began.release()
        LIBC.pthread_exit(None)

    _thread.start_new_thread(run, ())
    began.acquire()
    time.sleep(0.2)
    return True


# What comes late

def modules(_: Inside) -> list[str]:
    return sorted(sys.modules)


def broken(_: Inside) -> None:
    """Logs exceptions as a fault in the daemon would, with all that Python shows of them."""
    def inner(size: int) -> None:
        raise ValueError(f"groß wie {size}") if size else KeyError("∅")

    try:
        try:
            inner(0)
        except KeyError as error:
            error.add_note("a note")
            inner(1)
    except ValueError as error:
        log.error("a fault: %s", traceback.format_exc(), exc_info=True)
        group = ExceptionGroup("several", [error, OSError(errno.ENOENT, "absent")])
        log.error("faults", exc_info=group)
    log.error("%s", b"\xff".decode(errors="surrogateescape"))
    sys.excepthook(RuntimeError, RuntimeError("unexpected"), None)


PROBES: dict[str, Callable[..., Any]] = {probe.__name__: probe for probe in (
    ways_out, by_handle, device, listing, descriptors, network, processes, privileges, forbidden, abort, end_thread,
    modules, broken)}


def run_probe(inside: Inside) -> bool:
    """Whether there was one to be run."""
    try:
        with open(os.open("probe", os.O_RDONLY, dir_fd=inside.root_fd), encoding="utf-8") as file:
            asked = json.load(file)
    except FileNotFoundError:
        return False
    answers: list[Any] = []

    def answer() -> None:
        try:
            answers.append(PROBES[asked["probe"]](inside, **asked["arguments"]))
        except Exception:
            answers.append(traceback.format_exc())

    def in_thread() -> None:
        """As a thread of the data plane, whose filter is the narrower one."""
        if inside.filter:
            process.seccomp(inside.filter)
        answer()

    if asked["thread"]:
        # The answer is waited for here: a thread with the narrow filter does nothing else that Python would.
        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
    else:
        answer()
    fd = os.open("answer", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666, dir_fd=inside.root_fd)
    os.write(fd, json.dumps(answers[0]).encode() + b"\n")
    os.close(fd)
    return True


def main() -> int:
    statistics = serve.Server._log_statistics

    def at_signal(server: serve.Server) -> None:
        if not run_probe(server.inside):
            statistics(server)

    setattr(serve.Server, "_log_statistics", at_signal)  # noqa: B010 - a method is no attribute to be assigned
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
