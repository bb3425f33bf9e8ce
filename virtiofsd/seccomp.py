"""The seccomp filters: one for the threads of the data plane, a wider one for the Python thread.

Each is an allow-list, from the tables below. What a list does not name is refused as --seccomp says; but a call that
was unknown when the lists were written, or that C libraries and event loops are known to try and to do without, gets
ENOSYS: an update of either must not kill somebody's root file system.
"""

import errno
import platform
import struct

from virtiofsd.syscalls_abi import NUMBERS

ACTIONS = {"kill": 0x80000000, "trap": 0x00030000, "log": 0x7FFC0000}
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of NUMBERS, AUDIT_ARCH
X32 = 0x40000000  # a second set of numbers on x86-64
LOAD, JUMP, JUMP_EQUAL, JUMP_GREATER_EQUAL, RETURN = 0x20, 0x05, 0x15, 0x35, 0x06
OFFSET_NUMBER, OFFSET_ARCHITECTURE = 0, 4
LONGEST_JUMP = 255

# What a request needs: the file system calls of _ring/linux.h, and what a thread needs to live.
DATA_PLANE = """
    capget capset
    close copy_file_range dup
    epoll_pwait epoll_pwait2 epoll_wait
    fallocate fchdir fchmodat fchownat fcntl fdatasync flock fstat fstatfs fsync ftruncate
    getdents64 getegid geteuid getpid gettid getxattr
    ioctl
    lgetxattr linkat listxattr lseek
    mkdirat mknodat
    name_to_handle_at newfstatat
    open_by_handle_at openat openat2
    poll ppoll pread64 preadv preadv2 prctl pwritev pwritev2
    read readlinkat removexattr renameat2
    sendto setgroups setresgid setresuid setxattr statx symlinkat syncfs
    truncate
    umask unlinkat unshare utimensat
    write

    brk clone clone3 exit exit_group futex madvise mmap mprotect mremap munmap rseq rt_sigaction rt_sigprocmask
    rt_sigreturn sched_getaffinity sched_yield seccomp set_robust_list sigaltstack tgkill clock_gettime clock_nanosleep
    nanosleep gettimeofday time restart_syscall getrandom membarrier
"""

# What the Python thread needs besides: it accepts connections, receives descriptors, logs, and runs an event loop.
CONTROL_PLANE = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg
    setsockopt shutdown socket socketpair
    dup2 dup3 epoll_create epoll_create1 epoll_ctl eventfd eventfd2 pipe pipe2 pselect6 select signalfd signalfd4
    timerfd_create timerfd_gettime timerfd_settime
    access faccessat faccessat2 fadvise64 fchmod fchown getcwd getdents lstat mkdir open pwrite64 readlink readv rename
    renameat rmdir stat statfs unlink writev chdir
    clock_getres getegid geteuid getgid getgroups getpgid getpgrp getppid getpriority getresgid getresuid getrlimit
    getrusage getsid getuid prlimit64 sched_getparam sched_getscheduler setrlimit sysinfo times uname
    kill mincore mlock munlock msync memfd_create set_tid_address setitimer getitimer alarm pause rt_sigpending
    rt_sigsuspend rt_sigtimedwait rt_sigqueueinfo tkill wait4 waitid close_range arch_prctl
    futex_waitv futex_wake futex_wait futex_requeue get_robust_list sched_setaffinity getcpu
"""

# Tried by C libraries and event loops that do without where they are refused.
OPTIONAL = """
    io_uring_setup io_uring_enter io_uring_register map_shadow_stack mseal statmount listmount cachestat
    setxattrat getxattrat listxattrat removexattrat lsm_get_self_attr fchmodat2 userfaultfd perf_event_open
"""


def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def program(names: str, action: str, machine: str) -> bytes:
    """A filter that allows the calls named, as classic BPF. KeyError for a machine or a name in none of the tables."""
    column, architecture = ARCHITECTURES[machine]

    def numbers(words: str) -> list[int]:
        return sorted({NUMBERS[word][column] for word in words.split()} - {-1})

    allowed, optional = numbers(names), numbers(OPTIONAL)
    unknown = 1 + max(entry[column] for entry in NUMBERS.values())
    code = [
        instruction(LOAD, OFFSET_ARCHITECTURE),
        instruction(JUMP_EQUAL, architecture, 1, 0),
        instruction(RETURN, ACTIONS["kill"]),
        instruction(LOAD, OFFSET_NUMBER),
    ]
    # Allowed calls first, in blocks that a jump can cross.
    block = LONGEST_JUMP - 1
    for start in range(0, len(allowed), block):
        part = allowed[start:start + block]
        code += [instruction(JUMP_EQUAL, number, len(part) - index) for index, number in enumerate(part)]
        code += [instruction(JUMP, 1), instruction(RETURN, ALLOW)]
    # Then what is harmless to lack, and then the action.
    code += [instruction(JUMP_GREATER_EQUAL, X32, len(optional) + 1),
             instruction(JUMP_GREATER_EQUAL, unknown, len(optional) + 1)]
    code += [instruction(JUMP_EQUAL, number, len(optional) - index) for index, number in enumerate(optional)]
    code += [instruction(RETURN, ACTIONS[action]), instruction(RETURN, ERRNO | errno.ENOSYS)]
    return b"".join(code)


def filters(action: str, machine: str | None = None) -> tuple[bytes, bytes]:
    """The filters of the data plane's threads and of the Python thread. ValueError for a machine without tables."""
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        raise ValueError(f"there are no seccomp filters for {machine}, only for {', '.join(ARCHITECTURES)}")
    return program(DATA_PLANE, action, machine), program(DATA_PLANE + CONTROL_PLANE, action, machine)
