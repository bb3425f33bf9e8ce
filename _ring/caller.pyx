"""Switching one thread's effective ids to the caller's and back (see "Credentials" in ARCHITECTURE.md).

The guest's kernel has checked the permissions, with groups and capabilities that we are not told. So CAP_DAC_OVERRIDE
stays effective as the caller: a second check with less knowledge could only refuse what the guest's kernel allowed.
"""

from libc.stdint cimport uint32_t, uint64_t

from .atomics cimport load_relaxed32
from .extensions cimport GROUPS_MAX, groups_of
from .fuse_abi cimport FUSE_DONT_MASK
from .ids cimport ID_NONE, id_translate
from .linux cimport (
    AT_EMPTY_PATH, CAP_DAC_OVERRIDE, CAP_FSETID, EINVAL, EPERM, STATX_GID, STATX_MODE, S_ISGID, S_IXGRP, abort,
    linux_statx, sys_capset, sys_setgroups, sys_setresgid, sys_setresuid, sys_statx, sys_umask)
from .request cimport Request
from .share cimport Context


cdef void keep_suid(Context *ctx, bint keep) noexcept nogil:
    """Whether the thread's writes, truncates and changes leave set-id bits alone, as root's do (CAP_FSETID)."""
    cdef uint64_t fsetid = <uint64_t> 1 << CAP_FSETID
    if ctx.keeps_suid == <uint32_t> keep or not ctx.capabilities & fsetid:
        return
    if sys_capset(ctx.capabilities if keep else ctx.capabilities & ~fsetid, ctx.permitted, ctx.inheritable) == 0:
        ctx.keeps_suid = keep


cdef bint join_group(Context *ctx, int fd) noexcept nogil:
    """Makes the thread a member of the file's group, where the host takes a set-group-id bit from all others that FUSE
    wants kept: one that the group's members may not execute by, which only members may keep locally, and the guest does
    not say who is one. For changes after keep_suid(False); True: leave_group() has to follow.
    """
    cdef linux_statx stat
    return (not ctx.keeps_suid and load_relaxed32(&ctx.share.lone_sgid) and ctx.share.switches_ids
            and sys_statx(fd, "", AT_EMPTY_PATH, STATX_MODE | STATX_GID, &stat) == 0
            and stat.stx_mode & (S_ISGID | S_IXGRP) == S_ISGID and stat.stx_gid != ctx.share.own_gid
            and sys_setresgid(ID_NONE, stat.stx_gid, ID_NONE) == 0)


cdef void leave_group(Context *ctx) noexcept nogil:
    if sys_setresgid(ID_NONE, ctx.share.own_gid, ID_NONE) < 0:
        abort()


cdef void keep_suid_as_caller(Context *ctx, const Request *request) noexcept nogil:
    """For changes that come without a flag: HANDLE_KILLPRIV_V2 leaves them all to the daemon."""
    keep_suid(ctx, request.header.uid == 0)


cdef int caller_ids(const Context *ctx, const Request *request, uint32_t *uid, uint32_t *gid) noexcept nogil:
    """The caller's ids on the host. 0, or -EPERM for one that may not be used."""
    cdef int error
    uid[0] = request.header.uid
    gid[0] = request.header.gid
    error = id_translate(&ctx.share.uids_to_host, uid)
    return error if error < 0 else id_translate(&ctx.share.gids_to_host, gid)


cdef int caller_enter(Context *ctx, const Request *request, unsigned int umask) noexcept nogil:
    """The caller's umask, ids and groups for this thread. 0, or -errno and nothing has changed but the umask."""
    cdef uint32_t groups[GROUPS_MAX]
    cdef uint32_t uid, gid
    cdef int count, error, i
    # Without DONT_MASK the guest has applied it; fake root applies it to what it notes.
    if not ctx.share.flags & FUSE_DONT_MASK or ctx.share.options.override_stat:
        umask = 0
    umask &= 0o777
    if umask != ctx.umask:
        sys_umask(umask)
        ctx.umask = umask
    count = groups_of(request, groups)
    if count < 0:
        return count
    error = caller_ids(ctx, request, &uid, &gid)
    if error < 0:
        return error
    if uid == ID_NONE or gid == ID_NONE:
        return -EINVAL
    keep_suid(ctx, True)
    if ctx.share.options.override_stat:
        return 0   # what is created is the daemon's own, and says whose it is by itself
    for i in range(count):
        error = id_translate(&ctx.share.gids_to_host, groups + i)
        if error < 0:
            return error
    if uid == ctx.share.own_uid and gid == ctx.share.own_gid:
        return 0
    if not ctx.share.switches_ids and uid == 0:
        return 0  # the guest's root, served by an unprivileged daemon: what it creates is the daemon's own
    if count:
        error = sys_setgroups(count, groups)
        if error < 0:
            return error
    error = sys_setresgid(ID_NONE, gid, ID_NONE)
    if error == 0 and uid != ctx.share.own_uid:
        error = sys_setresuid(ID_NONE, uid, ID_NONE)
        if error == 0:
            # The switch took every effective capability; this one comes back.
            error = sys_capset(ctx.capabilities & <uint64_t> 1 << CAP_DAC_OVERRIDE, ctx.permitted, ctx.inheritable)
    if error < 0:
        caller_leave(ctx, request)
    return -EPERM if error == -EINVAL else error  # an id that the daemon's user namespace does not have


cdef void caller_leave(Context *ctx, const Request *request) noexcept nogil:
    """The thread is itself again; a process that could not be would act as a stranger for everybody, and ends."""
    cdef uint32_t uid, gid
    caller_ids(ctx, request, &uid, &gid)
    if uid == ctx.share.own_uid and gid == ctx.share.own_gid:
        return
    if not ctx.share.switches_ids or ctx.share.options.override_stat:
        return
    if uid != ctx.share.own_uid:
        if sys_setresuid(ID_NONE, ctx.share.own_uid, ID_NONE) < 0:
            abort()
        # The groups below are changed with a capability that is only now effective again.
        if sys_capset(ctx.capabilities, ctx.permitted, ctx.inheritable) < 0:
            abort()
    if gid != ctx.share.own_gid and sys_setresgid(ID_NONE, ctx.share.own_gid, ID_NONE) < 0:
        abort()
    if request.header.total_extlen and sys_setgroups(0, NULL) < 0:
        abort()
