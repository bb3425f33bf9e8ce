"""What a data-plane thread sets up for itself before its first request."""

from libc.stdint cimport uint16_t

from .linux cimport (
    CAP_FSETID, CLONE_FS, ENOMEM, free, malloc, memset, sys_capget, sys_fchdir, sys_keep_capabilities, sys_seccomp,
    sys_capset, sys_setgroups, sys_umask, sys_unshare)

cdef extern from *:
    """
    static __thread int thread_filtered; /* by share.filter, and with it each thread that this one starts */
    """
    bint thread_filtered


cdef int context_init(Context *ctx, Share *share) noexcept nogil:
    memset(ctx, 0, sizeof(Context))
    ctx.share = share
    ctx.may_sleep = 1
    ctx.filtered = thread_filtered
    ctx.scratch = <unsigned char *> malloc(SCRATCH)
    return 0 if ctx.scratch != NULL else -ENOMEM


cdef int context_enter_thread(Context *ctx) noexcept nogil:
    """Called by the thread itself: a umask and working directory of its own, if that may be; no groups. 0 or -errno.

    The working directory is /proc/self/fd, so that "17" names the file behind descriptor 17 to the calls that take
    only paths.
    """
    global thread_filtered
    cdef int error = 0
    if ctx.share.options.own_umask:
        error = sys_unshare(CLONE_FS)
    if error < 0:
        return error
    error = sys_fchdir(ctx.share.proc_fd)
    if error < 0:
        return error
    sys_umask(0)
    ctx.umask = 0
    if ctx.share.switches_ids:
        error = sys_setgroups(0, NULL)
        if error < 0:
            return error
    if ctx.share.own_uid != 0:
        # A plain user with capabilities would lose them for good on the way back from acting as root.
        error = sys_keep_capabilities()
        if error < 0:
            return error
    # Whoever has started this thread may just have done without a capability (keep_suid).
    error = sys_capget(&ctx.capabilities, &ctx.permitted, &ctx.inheritable)
    ctx.capabilities = ctx.share.capabilities
    if error == 0:
        error = sys_capset(ctx.capabilities, ctx.permitted, ctx.inheritable)
    if error == 0 and ctx.share.filter != NULL and not ctx.filtered:
        # A second copy would be run besides, and the kernel takes a hundred of them at most.
        error = sys_seccomp(ctx.share.filter, <uint16_t> ctx.share.filter_size)
    thread_filtered = ctx.share.filter != NULL and error == 0
    ctx.keeps_suid = ctx.capabilities >> CAP_FSETID & 1
    return error


cdef void context_destroy(Context *ctx) noexcept nogil:
    free(ctx.scratch)
    ctx.scratch = NULL
