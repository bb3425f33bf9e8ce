"""The seccomp filters, run as the kernel runs them: what becomes of each system call, on each machine."""

import errno
import pathlib
import re
import struct
from typing import NamedTuple

import pytest

from virtiofsd import seccomp
from virtiofsd.seccomp import ACTIONS, ALLOW, ERRNO
from virtiofsd.syscalls_abi import NUMBERS

KILL = ACTIONS["kill"]
MISSING = ERRNO | errno.ENOSYS
MACHINES = sorted(seccomp.ARCHITECTURES)
LINUX_H = pathlib.Path(__file__).parents[2] / "_ring" / "linux.h"
PID = 4711

# What an intruder would want: other programs and processes, other roots, namespaces, networks, and the kernel's inside.
DANGEROUS = """
    execve execveat fork vfork ptrace process_vm_readv process_vm_writev process_mrelease pidfd_getfd pidfd_send_signal
    kcmp chroot pivot_root mount umount2 open_tree move_mount fsopen fsmount fsconfig fspick mount_setattr
    open_tree_attr setns bind listen init_module finit_module delete_module kexec_load kexec_file_load bpf keyctl
    add_key request_key reboot swapon swapoff acct quotactl quotactl_fd settimeofday clock_settime adjtimex
    clock_adjtime sethostname setdomainname iopl ioperm modify_ldt personality syslog vhangup fanotify_init
    setuid setgid setreuid setregid setfsuid setfsgid setsid setpgid shmget shmat semget msgget mq_open vmsplice tee
    io_setup io_submit move_pages migrate_pages lookup_dcookie nfsservctl
"""


class Verdict(NamedTuple):
    value: int
    by_arguments: bool


def run(program: bytes, number: int, *arguments: int, architecture: int) -> Verdict:
    """Interprets a filter. Anything that the kernel would refuse to load fails."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, *(*arguments, *[0] * 6)[:6])
    code = list(struct.iter_unpack("=HBBI", program))
    assert len(code) <= 4096
    accumulator, at, by_arguments = 0, 0, False
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        match operation:
            case seccomp.LOAD:
                assert value % 4 == 0
                accumulator = struct.unpack_from("=I", data, value)[0]
                by_arguments |= value >= seccomp.OFFSET_ARGUMENTS
            case seccomp.JUMP:
                at += value
            case seccomp.JUMP_EQUAL:
                at += if_true if accumulator == value else if_false
            case seccomp.JUMP_GREATER_EQUAL:
                at += if_true if accumulator >= value else if_false
            case seccomp.JUMP_ANY_BIT:
                at += if_true if accumulator & value else if_false
            case seccomp.RETURN:
                return Verdict(value, by_arguments)
            case _:
                pytest.fail(f"instruction {operation:#x}")


class Filter:
    def __init__(self, machine: str, names: str, action: str = "kill") -> None:
        self.machine, self.names = machine, set(names.split())
        self.column, self.architecture = seccomp.ARCHITECTURES[machine]
        self.program = seccomp.program(names, action, machine, PID)

    def has(self, name: str) -> bool:
        return NUMBERS[name][self.column] >= 0

    def number(self, number: int, *arguments: int) -> Verdict:
        return run(self.program, number, *arguments, architecture=self.architecture)

    def call(self, name: str, *arguments: int) -> int:
        assert self.has(name), f"{self.machine} has no {name}"
        return self.number(NUMBERS[name][self.column], *arguments).value


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def threads(machine: str) -> Filter:
    return Filter(machine, seccomp.DATA_PLANE)


@pytest.fixture
def python(machine: str) -> Filter:
    return Filter(machine, seccomp.CONTROL_PLANE)


@pytest.fixture(params=["threads", "python"])
def either(request: pytest.FixtureRequest, threads: Filter, python: Filter) -> Filter:
    return threads if request.param == "threads" else python


def test_a_call_in_the_table_is_allowed_and_without_a_look_at_its_arguments(either: Filter) -> None:
    """The kernel remembers such calls and does not run the filter for them again."""
    for name in either.names - set(seccomp.conditions(KILL, PID)):
        if either.has(name):
            assert either.number(NUMBERS[name][either.column]) == (ALLOW, False), name


def test_what_an_intruder_would_want_is_refused(either: Filter) -> None:
    for name in DANGEROUS.split():
        if either.has(name):
            assert either.call(name) == KILL, name


def test_every_call_is_in_one_list_or_is_refused(either: Filter) -> None:
    optional = set(seccomp.OPTIONAL.split())
    assert not optional & set(seccomp.CONTROL_PLANE.split())
    for name in set(NUMBERS) - either.names:
        if either.has(name):
            assert either.call(name) == (MISSING if name in optional else KILL), name


def test_threads_may_do_less_than_python(threads: Filter, python: Filter) -> None:
    assert threads.names < python.names
    for name in ("socket", "connect", "accept4", "recvmsg", "sendmsg", "kill", "open", "unlink", "epoll_ctl", "pipe2"):
        if threads.has(name):
            assert threads.call(name) == KILL, name
            assert python.call(name, 1 if name == "socket" else PID) == ALLOW, name


def test_numbers_that_were_free_are_calls_that_the_kernel_lacks(either: Filter) -> None:
    known = {entry[either.column] for entry in NUMBERS.values()}
    free = set(range(1024)) - known | {0xFFFF, seccomp.X32 - 1}
    assert {either.number(number).value for number in free} == {MISSING}


def test_other_sets_of_numbers_are_refused(either: Filter) -> None:
    """Those of x32, and of 32-bit programs, with which a filter would look at the wrong calls."""
    assert either.number(seccomp.X32 | 1).value == KILL
    assert either.number(-1).value == KILL
    for architecture in (0x40000003, 0x40000028, 0xC000003E ^ 1, 0):
        for number in (1, 39, 172):
            assert run(either.program, number, architecture=architecture).value == KILL


def test_threads_are_made_and_no_processes_or_namespaces(either: Filter) -> None:
    pthread_create = 0x3D0F00
    assert either.call("clone", pthread_create) == ALLOW
    assert either.call("clone", 0x1200011) == KILL      # fork
    assert either.call("clone", 0x4111) == KILL         # vfork
    for namespace in (1 << 7, 1 << 17, 1 << 25, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30):
        assert either.call("clone", pthread_create | namespace) == KILL
        assert either.call("unshare", namespace) == KILL
        assert either.call("unshare", 0x200 | namespace) == KILL
    assert either.call("unshare", 0x200) == ALLOW       # the working directory and umask
    assert either.call("clone3") == MISSING             # whose arguments cannot be seen: clone takes its place


def test_signals_go_to_the_daemon_itself_alone(either: Filter, python: Filter) -> None:
    for name, which in (("tgkill", either), ("kill", python)):
        assert which.call(name, PID, 9) == ALLOW
        for pid in (1, PID + 1, 0, 0xFFFFFFFF, -1 & 0xFFFFFFFFFFFFFFFF):
            assert which.call(name, pid, 9) == KILL


def test_sockets_are_of_this_machine(python: Filter) -> None:
    assert python.call("socket", 1) == ALLOW
    for family in (2, 10, 16, 17, 40, 0):
        assert python.call("socket", family) == ERRNO | errno.EAFNOSUPPORT


def test_no_input_is_faked_on_a_terminal(either: Filter) -> None:
    assert either.call("ioctl", 0, 0x80086601) == ALLOW     # FS_IOC_GETFLAGS
    for command in (0x5412, 0x541C, 0x5412 | 1 << 32):      # the kernel looks at 32 bits
        assert either.call("ioctl", 0, command) == ERRNO | errno.EPERM


def test_limits_of_others_are_left_alone(either: Filter) -> None:
    assert either.call("prlimit64", 0) == ALLOW
    assert either.call("prlimit64", PID + 1) == ERRNO | errno.EPERM


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_what_is_refused_is_refused_as_asked_for(machine: str, action: str) -> None:
    for names in (seccomp.DATA_PLANE, seccomp.CONTROL_PLANE):
        refusing = Filter(machine, names, action)
        assert refusing.call("execve") == refusing.call("unshare", 1 << 28) == ACTIONS[action]
        assert refusing.number(seccomp.X32).value == ACTIONS[action]
        assert run(refusing.program, 1, architecture=0).value == ACTIONS[action]
        assert refusing.call("read") == ALLOW
        assert refusing.call("clone3") == MISSING


def test_a_machine_without_tables_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="--seccomp kill: there are no filters for vax, only for x86_64, aarch64"):
        seccomp.filters("kill", "vax")


def test_musl_signals_its_threads_in_its_own_way(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tkill = NUMBERS["tkill"][seccomp.ARCHITECTURES[machine][0]]
    architecture = seccomp.ARCHITECTURES[machine][1]

    def verdicts() -> set[int]:
        return {run(program, tkill, architecture=architecture).value for program in seccomp.filters("kill", machine)}

    monkeypatch.setattr("os.confstr_names", {"CS_GNU_LIBC_VERSION": 2})
    assert verdicts() == {KILL}
    monkeypatch.setattr("os.confstr_names", {})
    assert verdicts() == {ALLOW}


# The tables

def test_every_system_call_of_the_data_plane_is_allowed() -> None:
    """By number in _ring/linux.h; what goes through the C library there is seen where all operations are run."""
    calls = set(re.findall(r"syscall\(SYS_(\w+)", LINUX_H.read_text()))
    made_by_python = {"faccessat"}
    assert len(calls) > 20
    assert calls - made_by_python <= set(seccomp.DATA_PLANE.split())
    assert calls <= set(seccomp.CONTROL_PLANE.split())


def header_numbers(path: str, pattern: str) -> dict[str, int]:
    try:
        text = pathlib.Path(path).read_text()
    except FileNotFoundError:
        pytest.skip(f"{path} is not installed (linux-libc-dev)")
    return {name: int(number) for name, number in re.findall(pattern, text)}


def test_numbers_of_x86_64_are_those_of_the_kernels_header() -> None:
    found = header_numbers("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"#define __NR_(\w+)\s+(\d+)\n")
    assert len(found) > 350
    assert {name: NUMBERS[name][0] for name in found} == found
    known = max(found.values())
    assert {name for name, (number, _) in NUMBERS.items() if 0 <= number <= known} - set(found) <= {
        "uprobe", "uretprobe"}     # newer than numbers that come behind them


def test_numbers_of_aarch64_are_those_of_the_kernels_header() -> None:
    """It has the generic ones, and of the names that only some machines have these."""
    found = header_numbers("/usr/include/asm-generic/unistd.h", r"#define __NR(?:3264)?_(\w+)\s+(\d+)\n")
    wide = {"fstatat": "newfstatat"}
    of_32_bits = {name for name in found if name.endswith("time64")}
    generic = {wide.get(name, name): number for name, number in found.items()
               if name not in of_32_bits and name not in ("arch_specific_syscall", "syscalls", "sync_file_range2")}
    assert len(generic) > 290
    assert {name: NUMBERS[name][1] for name in generic} == generic
    known = max(generic.values())
    assert {name for name, (_, number) in NUMBERS.items() if 0 <= number <= known} <= set(generic)
