"""The seccomp filters: one for the threads of the data plane, a wider one for the Python thread.

A filter says of each system call's number what becomes of it, by the tables below. What is needed is allowed, some of
it only with certain arguments. What C libraries, Python and event loops are known to try, and to do without where a
kernel lacks it, gets ENOSYS, and so does each number that was free when the tables were written: an update of any of
them must not kill somebody's root file system. All else is refused as --seccomp says.
"""

import errno
import os
import platform
import struct

from virtiofsd.syscalls_abi import NUMBERS

ACTIONS = {"kill": 0x80000000, "trap": 0x00030000, "log": 0x7FFC0000}
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of NUMBERS, AUDIT_ARCH
X32 = 0x40000000  # a second set of numbers on x86-64

# What a thread needs to live, and questions about itself that any library may ask.
THREAD = """
    arch_prctl brk clone exit exit_group futex futex_requeue futex_wait futex_waitv futex_wake get_robust_list getrandom
    madvise membarrier mincore mlock mmap mprotect mremap msync munlock munmap restart_syscall rseq rt_sigaction
    rt_sigpending rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait sched_yield set_robust_list set_tid_address
    sigaltstack tgkill uprobe uretprobe

    clock_getres clock_gettime clock_nanosleep getcpu getegid geteuid getgid getgroups getitimer getpgid getpgrp getpid
    getppid getpriority getresgid getresuid getrlimit getrusage getsid gettid gettimeofday getuid nanosleep prlimit64
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getparam sched_getscheduler
    sched_rr_get_interval sysinfo time times uname
"""

# What a request needs (_ring/linux.h), and how a thread sets itself up for requests.
DATA_PLANE = THREAD + """
    close close_range copy_file_range dup fallocate fchdir fchmodat fchmodat2 fchownat fcntl fdatasync flock fstat
    fstatfs fsync ftruncate getdents64 getxattr ioctl linkat listxattr lseek mkdirat mknodat name_to_handle_at
    newfstatat open_by_handle_at openat pread64 preadv preadv2 pwritev pwritev2 read readlinkat readv removexattr
    renameat2 setxattr statx symlinkat syncfs truncate unlinkat utimensat write writev

    capget capset prctl seccomp setgroups setresgid setresuid umask unshare

    epoll_pwait epoll_pwait2 epoll_wait poll ppoll sendto
"""

# What the Python thread needs besides: it accepts connections, receives descriptors, logs, and runs an event loop.
CONTROL_PLANE = DATA_PLANE + """
    accept accept4 connect getpeername getsockname getsockopt recvfrom recvmmsg recvmsg sendmmsg sendmsg setsockopt
    shutdown socket socketpair

    dup2 dup3 epoll_create epoll_create1 epoll_ctl eventfd eventfd2 pause pipe pipe2 pselect6 select setitimer signalfd
    signalfd4 timerfd_create timerfd_gettime timerfd_settime

    access chdir faccessat faccessat2 fadvise64 getcwd getdents kill lstat open pwrite64 readlink stat
    statfs unlink wait4 waitid
"""

# Allowed for the sake of musl, which has no other way to signal one of its own threads.
MUSL = "tkill"

# Tried, and done without where there is no such thing. Of clone3 a filter cannot see what is to be made.
OPTIONAL = """
    alarm cachestat clone3 get_mempolicy getxattrat inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_uring_enter io_uring_register io_uring_setup ioprio_get ioprio_set landlock_add_rule
    landlock_create_ruleset landlock_restrict_self listmount listxattrat lsm_get_self_attr map_shadow_stack mbind
    memfd_create memfd_secret mlock2 mlockall mseal munlockall openat2 perf_event_open pidfd_open pkey_alloc pkey_free
    pkey_mprotect process_madvise readahead removexattrat sched_getattr sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sendfile set_mempolicy set_mempolicy_home_node setpriority setrlimit setxattrat splice statmount
    sync_file_range timer_create timer_delete timer_getoverrun timer_gettime timer_settime userfaultfd
"""

# Instructions of classic BPF.
LOAD, JUMP, JUMP_EQUAL, JUMP_GREATER_EQUAL, JUMP_ANY_BIT, RETURN = 0x20, 0x05, 0x15, 0x35, 0x45, 0x06
OFFSET_NUMBER, OFFSET_ARCHITECTURE, OFFSET_ARGUMENTS, ARGUMENT = 0, 4, 16, 8
LONGEST_JUMP = 255

AF_UNIX = 1
CLONE_FS, CLONE_FILES, CLONE_THREAD = 0x200, 0x400, 0x10000
CLONE_NEW = 0x7E020080  # all namespaces
TIOCSTI, TIOCLINUX = 0x5412, 0x541C  # input that a terminal takes for the user's


def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """struct sock_filter (classic BPF): 8 bytes."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def load_argument(index: int) -> bytes:
    """Its lower half, which is all that the calls below look at."""
    return instruction(LOAD, OFFSET_ARGUMENTS + index * ARGUMENT)


def choice(test: int, value: int, if_true: int, if_false: int) -> bytes:
    return instruction(test, value, 0, 1) + instruction(RETURN, if_true) + instruction(RETURN, if_false)


def conditions(refused: int, pid: int) -> dict[str, bytes]:
    """What decides by arguments, and ends with a verdict: `refused` for what nobody but an intruder would do."""
    own = load_argument(0) + choice(JUMP_EQUAL, pid, ALLOW, refused)
    return {
        "clone": load_argument(0) + instruction(JUMP_ANY_BIT, CLONE_NEW, 0, 1) + instruction(RETURN, refused)
        + choice(JUMP_ANY_BIT, CLONE_THREAD, ALLOW, refused),
        "ioctl": load_argument(1) + instruction(JUMP_EQUAL, TIOCSTI, 1, 0)
        + choice(JUMP_EQUAL, TIOCLINUX, ERRNO | errno.EPERM, ALLOW),
        "kill": own,
        "prlimit64": load_argument(0) + choice(JUMP_EQUAL, 0, ALLOW, ERRNO | errno.EPERM),
        "socket": load_argument(0) + choice(JUMP_EQUAL, AF_UNIX, ALLOW, ERRNO | errno.EAFNOSUPPORT),
        "tgkill": own,
        "unshare": load_argument(0) + choice(JUMP_ANY_BIT, 0xFFFFFFFF & ~(CLONE_FS | CLONE_FILES), refused, ALLOW),
    }


def program(names: str, action: str, machine: str, pid: int) -> bytes:
    """A filter for a process that allows the calls named, as classic BPF.

    KeyError for a machine or a name in none of the tables.
    """
    column, architecture = ARCHITECTURES[machine]
    refused = ACTIONS[action]
    deciding = conditions(refused, pid)
    missing = instruction(RETURN, ERRNO | errno.ENOSYS)
    verdicts = {entry[column]: instruction(RETURN, refused) for entry in NUMBERS.values()}
    verdicts |= {NUMBERS[name][column]: missing for name in OPTIONAL.split()}
    verdicts |= {NUMBERS[name][column]: deciding.get(name, instruction(RETURN, ALLOW)) for name in names.split()}
    verdicts.pop(-1, None)
    # From each of these numbers on there is another verdict.
    table: list[tuple[int, bytes]] = []
    for number in range(max(verdicts) + 2):
        verdict = verdicts.get(number, missing)
        if not table or table[-1][1] != verdict:
            table.append((number, verdict))
    table.append((X32, instruction(RETURN, refused)))
    return b"".join((
        instruction(LOAD, OFFSET_ARCHITECTURE),
        instruction(JUMP_EQUAL, architecture, 1, 0),
        instruction(RETURN, refused),
        instruction(LOAD, OFFSET_NUMBER),
        search(table),
    ))


def search(table: list[tuple[int, bytes]]) -> bytes:
    """The verdict for the number that was loaded, found by halves."""
    if len(table) == 1:
        return table[0][1]
    middle = len(table) // 2
    below, above = search(table[:middle]), search(table[middle:])
    length = len(below) // len(instruction(RETURN, 0))
    first = table[middle][0]
    if length <= LONGEST_JUMP:
        return instruction(JUMP_GREATER_EQUAL, first, length, 0) + below + above
    return instruction(JUMP_GREATER_EQUAL, first, 0, 1) + instruction(JUMP, length) + below + above


def filters(action: str, machine: str | None = None) -> tuple[bytes, bytes]:
    """The filters of this process: of the data plane's threads, and of the Python thread.

    ValueError for a machine without tables.
    """
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        raise ValueError(f"--seccomp {action}: there are no filters for {machine}, only for {', '.join(ARCHITECTURES)}")
    for_libc = "" if "CS_GNU_LIBC_VERSION" in os.confstr_names else MUSL
    return (program(f"{DATA_PLANE} {for_libc}", action, machine, os.getpid()),
            program(f"{CONTROL_PLANE} {for_libc}", action, machine, os.getpid()))
