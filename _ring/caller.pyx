"""Switching one thread's effective ids to the caller's and back (see "Credentials" in ARCHITECTURE.md).

The guest's kernel has checked the permissions, with groups and capabilities that we are not told. So CAP_DAC_OVERRIDE
stays effective as the caller: a second check with less knowledge could only refuse what the guest's kernel allowed.
"""

from libc.stdint cimport uint32_t, uint64_t

from .fuse_abi cimport FUSE_DONT_MASK, FUSE_EXT_GROUPS, FUSE_MAX_NR_SECCTX, fuse_ext_header
from .linux cimport (
    CAP_DAC_OVERRIDE, EINVAL, abort, memcpy, sys_capset, sys_setgroups, sys_setresgid, sys_setresuid, sys_umask)
from .request cimport Request
from .share cimport Context

cdef enum:
    GROUPS_MAX = 32
    EXT_HEADER = sizeof(fuse_ext_header)
    NOBODY = 0xffffffffU


cdef inline uint32_t caller_uid(const Context *ctx, const Request *request) noexcept nogil:
    return request.header.uid


cdef int groups_of(const Request *request, uint32_t *groups) noexcept nogil:
    """The supplementary groups among the request's creation extensions. How many, or -EINVAL for a block that is none.

    Blocks follow each other at any alignment: {size of the whole block, type or number of security contexts}.
    """
    cdef uint32_t at = request.args_size
    cdef uint32_t end = at + <uint32_t> request.header.total_extlen * 8
    cdef uint32_t count = 0
    cdef fuse_ext_header block
    while at < end:
        if end - at < EXT_HEADER:
            return -EINVAL
        memcpy(&block, request.args + at, EXT_HEADER)
        if block.size < EXT_HEADER or block.size > end - at:
            return -EINVAL
        if block.type == FUSE_EXT_GROUPS:
            if block.size < EXT_HEADER + 4:
                return -EINVAL
            memcpy(&count, request.args + at + EXT_HEADER, 4)
            if count > GROUPS_MAX or count > (block.size - EXT_HEADER - 4) / 4:
                return -EINVAL
            memcpy(groups, request.args + at + EXT_HEADER + 4, count * 4)
        elif block.type > FUSE_MAX_NR_SECCTX:
            return -EINVAL
        at += block.size
    return <int> count


cdef int caller_enter(Context *ctx, const Request *request, unsigned int umask) noexcept nogil:
    """The caller's umask, ids and groups for this thread. 0, or -errno and nothing has changed but the umask."""
    cdef uint32_t groups[GROUPS_MAX]
    cdef uint32_t uid = request.header.uid
    cdef uint32_t gid = request.header.gid
    cdef int count, error
    umask = umask & 0o777 if ctx.share.flags & FUSE_DONT_MASK else 0
    if umask != ctx.umask:
        sys_umask(umask)
        ctx.umask = umask
    count = groups_of(request, groups)
    if count < 0:
        return count
    if (uid == ctx.share.own_uid and gid == ctx.share.own_gid) or uid == NOBODY or gid == NOBODY:
        return 0
    if not ctx.share.switches_ids and uid == 0:
        return 0  # the guest's root, served by an unprivileged daemon: what it creates is the daemon's own
    if count:
        error = sys_setgroups(count, groups)
        if error < 0:
            return error
    error = sys_setresgid(NOBODY, gid, NOBODY)
    if error == 0 and uid != ctx.share.own_uid:
        error = sys_setresuid(NOBODY, uid, NOBODY)
        if error == 0:
            # The switch took every effective capability; this one comes back.
            error = sys_capset(ctx.capabilities & <uint64_t> 1 << CAP_DAC_OVERRIDE, ctx.permitted, ctx.inheritable)
    if error < 0:
        caller_leave(ctx, request)
    return error


cdef void caller_leave(Context *ctx, const Request *request) noexcept nogil:
    """The thread is itself again; a process that could not be would act as a stranger for everybody, and ends."""
    cdef uint32_t uid = request.header.uid
    cdef uint32_t gid = request.header.gid
    if (uid == ctx.share.own_uid and gid == ctx.share.own_gid) or uid == NOBODY or gid == NOBODY:
        return
    if not ctx.share.switches_ids:
        return
    if uid != ctx.share.own_uid and sys_setresuid(NOBODY, ctx.share.own_uid, NOBODY) < 0:
        abort()
    if sys_setresgid(NOBODY, ctx.share.own_gid, NOBODY) < 0:
        abort()
    if request.header.total_extlen and sys_setgroups(0, NULL) < 0:
        abort()
    if sys_capset(ctx.capabilities, ctx.permitted, ctx.inheritable) < 0:
        abort()
