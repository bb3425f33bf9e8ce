"""What the control plane needs of the kernel for its sandbox and Python 3.11 does not have: namespaces, mounts,
capabilities, seccomp. Each function acts on the calling thread or process, and raises OSError.
"""

import os

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from .failures cimport checked
from .linux cimport (
    CLONE_FS, EPERM, sys_capget, sys_capset, sys_seccomp, sys_setgroups, sys_setresgid, sys_setresuid, sys_unshare)

cdef extern from "process.h" nogil:
    enum:
        CLONE_NEWIPC
        CLONE_NEWNET
        CLONE_NEWNS
        CLONE_NEWPID
        CLONE_NEWUSER
        MNT_DETACH
        MS_BIND
        MS_NODEV
        MS_NOEXEC
        MS_NOSUID
        MS_NOSYMFOLLOW
        MS_RDONLY
        MS_REC
        MS_RELATIME
        MS_REMOUNT
        MS_SLAVE
    int sys_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)
    int sys_umount(const char *target, int flags)
    int sys_pivot_root(const char *new_root, const char *put_old)
    int sys_clone_mounts(int fd)
    int sys_attach_mounts(int fd, const char *target)
    int sys_disarm_mounts(int fd)
    int sys_no_new_privileges()
    int sys_not_dumpable()
    int sys_parent_death_signal(int number)
    int sys_bound_capabilities(uint64_t kept)
    int sys_seccomp_available(uint32_t action)

NAMESPACES = {"user": CLONE_NEWUSER, "pid": CLONE_NEWPID, "mount": CLONE_NEWNS, "net": CLONE_NEWNET,
              "ipc": CLONE_NEWIPC}


def enter_namespaces(*names: str) -> None:
    """New namespaces of the process (pid: of its children), by NAMESPACES."""
    cdef int flags = 0
    for name in names:
        flags |= NAMESPACES[name]
    checked(sys_unshare(flags), f"new namespaces {', '.join(names)}")


def may_unshare_fs() -> bool:
    """Whether a thread may have a umask and a working directory of its own; the calling one has afterwards. OSError."""
    cdef int error = sys_unshare(CLONE_FS)
    return error != -EPERM and checked(error, "a working directory of its own") == 0


def stop_propagation() -> None:
    """What is mounted in this namespace is not seen outside; what is mounted outside is seen here."""
    checked(sys_mount(NULL, b"/", NULL, MS_SLAVE | MS_REC, NULL), "making all mounts slaves")


def mount_tmpfs(str target) -> None:
    """An empty tmpfs with room for a few directories."""
    checked(sys_mount(b"tmpfs", os.fsencode(target), b"tmpfs", MS_NODEV | MS_NOEXEC | MS_NOSUID, b"size=64k,mode=755"),
            f"mounting a tmpfs on {target}")


def remount_readonly(str target, *, bint symlinks=True) -> None:
    """Without `symlinks` none is followed there, nor what /proc has of the kind (exe, root, cwd)."""
    cdef unsigned long flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV | MS_NOEXEC | MS_NOSUID | MS_RELATIME
    checked(sys_mount(NULL, os.fsencode(target), NULL, flags if symlinks else flags | MS_NOSYMFOLLOW, NULL),
            f"remounting {target} read-only")


def mount_proc(str target) -> None:
    """The process's own /proc, by its pid namespace."""
    checked(sys_mount(b"proc", os.fsencode(target), b"proc", MS_NODEV | MS_NOEXEC | MS_NOSUID | MS_RELATIME, NULL),
            f"mounting proc on {target}")


def unmount(str target) -> None:
    """Takes a mount out of the tree; what is open on it stays open."""
    checked(sys_umount(os.fsencode(target), MNT_DETACH), f"unmounting {target}")


def clone_mounts(int fd) -> int:
    """A detached copy of the mounts from the directory down; it is attached with attach_mounts."""
    return checked(sys_clone_mounts(fd), "copying the shared directory's mounts")


def attach_mounts(int fd, str target) -> None:
    checked(sys_attach_mounts(fd, os.fsencode(target)), f"mounting the shared directory on {target}")


def disarm_mounts(int fd) -> None:
    """Device nodes cannot be opened there, and set-id bits have no effect. `fd` is of clone_mounts."""
    checked(sys_disarm_mounts(fd), "making the shared directory's mounts nodev and nosuid")


def pivot_root_here() -> None:
    """The working directory, a mount point, becomes the root, and nothing is left of the old one."""
    checked(sys_pivot_root(b".", b"."), "changing the root")
    checked(sys_umount(b".", MNT_DETACH), "letting go of the old root")


def set_ids(uint32_t uid, uint32_t gid) -> None:
    checked(sys_setresgid(gid, gid, gid), f"becoming group {gid}")
    checked(sys_setresuid(uid, uid, uid), f"becoming user {uid}")


def drop_groups() -> None:
    """No supplementary groups."""
    checked(sys_setgroups(0, NULL), "dropping supplementary groups")


def capabilities() -> tuple[int, int]:
    """The effective and the permitted capabilities, a bit each."""
    cdef uint64_t effective = 0, permitted = 0, inheritable = 0
    checked(sys_capget(&effective, &permitted, &inheritable), "reading capabilities")
    return effective, permitted


def keep_capabilities(uint64_t kept) -> None:
    """Drops all capabilities but these, from the bounding set too where that is allowed."""
    cdef uint64_t effective = 0, permitted = 0, inheritable = 0
    checked(sys_capget(&effective, &permitted, &inheritable), "reading capabilities")
    if effective >> 8 & 1:   # CAP_SETPCAP
        checked(sys_bound_capabilities(kept), "dropping capabilities from the bounding set")
    checked(sys_capset(permitted & kept, permitted & kept, 0), "dropping capabilities")


def no_new_privileges() -> None:
    checked(sys_no_new_privileges(), "giving up new privileges")


def not_dumpable() -> None:
    """No core dumps, and no tracing by others of the same user."""
    checked(sys_not_dumpable(), "giving up core dumps")


def parent_death_signal(int number) -> None:
    """The signal that the process gets when its parent has died."""
    checked(sys_parent_death_signal(number), "asking for the parent's death")


def seccomp_available(uint32_t action) -> bool:
    """Whether the kernel knows what a filter is to do."""
    return sys_seccomp_available(action) == 0


def seccomp(bytes program) -> None:
    """Restricts the calling thread, and those that it starts, to what the filter allows: 8 bytes an instruction."""
    checked(sys_seccomp(<const char *> program, <uint16_t> (len(program) / 8)), "installing a seccomp filter")
