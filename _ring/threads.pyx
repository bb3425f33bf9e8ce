"""A thread's life: it takes jobs, and while it leads a worker it serves that one's queues."""

from libc.stdint cimport uint32_t, uint64_t

from .atomics cimport compare_exchange32, exchange32, fence_full, load_relaxed32, store_release32
from .engine cimport EVENT_THREAD_FAILED, Engine, complete, give_request, notify, post_event, signal
from .fuse_abi cimport FUSE_NO_OPEN_SUPPORT
from .inode_eviction cimport inodes_close_idle
from .inode_identity cimport mounts_close
from .inode_lifetime cimport inodes_close_pending
from .inode_table cimport IDLE_CLOSING_DUE, IDLE_CLOSING_NONE, IDLE_CLOSING_RUNS
from .linux cimport ENOMEM, calloc, free, pthread_join, thread_name, thread_start
from .kept cimport kept_close
from .lock_owners cimport cancel_again
from .mutex cimport lock, unlock
from .operations cimport Operation, operation_of, perform
from .pool cimport Pool, Role, Thread, pool_done, pool_join, pool_leave, pool_needs_thread, pool_wait
from .request cimport WAITS, Request
from .share cimport Share, context_destroy, context_enter_thread, context_init
from .slowness cimport slowness_forgive
from .ticks cimport ticks_now
from .waits cimport wait_for_lock
from .watched cimport watchdog_arm
from .worker cimport Worker, help, lead

cdef enum:
    STACK = 1 << 19


cdef int start_thread(Pool *pool) noexcept nogil:
    """One more thread, which has been counted already. 0 or -errno."""
    cdef Thread *thread = <Thread *> calloc(1, sizeof(Thread))
    cdef int error = -ENOMEM
    if thread != NULL:
        thread.pool = pool
        error = context_init(&thread.ctx, &pool.engine.share)
        if error == 0:
            error = thread_start(&thread.handle, thread_main, thread, STACK)
        if error < 0:
            context_destroy(&thread.ctx)
            free(thread)
    if error < 0:
        lock(&pool.lock)
        pool.threads -= 1
        unlock(&pool.lock)
    return error


cdef int threads_start(Pool *pool) noexcept nogil:
    """Sees to it that there is an idle thread. 0 or -errno."""
    return start_thread(pool) if pool_needs_thread(pool) else 0


cdef Request *run_request(Thread *thread, Request *request) noexcept nogil:
    """Carries a request out. The next one for this thread, or NULL."""
    cdef Engine *engine = thread.pool.engine
    cdef const Operation *operation = operation_of(request.header.opcode)
    cdef Request *following
    cdef uint64_t start = ticks_now()
    cdef uint64_t now
    if perform(&thread.ctx, request, operation) == WAITS:
        wait_for_lock(engine, request)
        return NULL
    now = ticks_now()
    slowness_forgive(&engine.share.inodes, request.header.nodeid, operation.slow_class,
                     (now - start) / engine.ticks_per_us, now / engine.ticks_per_us)
    complete(engine, request)
    signal(engine, request.queue)
    following = pool_done(thread.pool, request)
    give_request(engine, request)
    return following


cdef void do_chores(Pool *pool) noexcept nogil:
    cdef Share *share = &pool.engine.share
    cdef uint32_t due = IDLE_CLOSING_DUE
    # Full: pool.chores was cleared before this is read, or pool_nudge() could take it for yet to be seen.
    fence_full()
    while load_relaxed32(&share.inodes.to_close):
        inodes_close_pending(&share.inodes)
    if load_relaxed32(&share.inodes.loose_mounts):
        mounts_close(&share.inodes)
    if load_relaxed32(&share.kept.round_due) and exchange32(&share.kept.round_due, 0):
        kept_close(&share.kept, False)
    if load_relaxed32(&share.inodes.idle_closing) == due and \
            compare_exchange32(&share.inodes.idle_closing, &due, IDLE_CLOSING_RUNS):
        inodes_close_idle(&share.inodes, not share.flags & FUSE_NO_OPEN_SUPPORT)
        store_release32(&share.inodes.idle_closing, IDLE_CLOSING_NONE)
    if load_relaxed32(&share.locks.cancelling) and cancel_again(&share.locks):
        watchdog_arm(&pool.engine.watchdog_armed)   # it has this done once more


cdef void *thread_main(void *argument) noexcept nogil:
    cdef Thread *thread = <Thread *> argument
    cdef Pool *pool = thread.pool
    cdef Request *request = NULL
    cdef Role *role = NULL
    cdef int error = context_enter_thread(&thread.ctx)
    thread_name("data-plane")
    pool_join(pool, thread)
    if error < 0:
        post_event(pool.engine, EVENT_THREAD_FAILED, 0, error)   # the control plane ends the daemon
    while error == 0 and pool_wait(pool, &request, &role):
        if role != NULL or request != NULL:
            threads_start(pool)
        if role != NULL:
            if role.helps:
                help(<Worker *> role.worker, thread)
            else:
                lead(<Worker *> role.worker, thread)
            # Who leads now may need it.
            if thread.spare != NULL:
                give_request(pool.engine, thread.spare)
                thread.spare = NULL
            lock(&pool.lock)
            pool.serving -= 1
            unlock(&pool.lock)
        while request != NULL:
            request = run_request(thread, request)
        do_chores(pool)
    threads_reap(pool)
    pool_leave(pool, thread)
    if load_relaxed32(&pool.stopping):
        notify(pool.engine)   # which stays until this thread is joined
    return NULL


cdef void threads_reap(Pool *pool) noexcept nogil:
    """Joins the threads that have ended; each that ends does so for those before it."""
    cdef Thread *thread
    cdef Thread *following
    lock(&pool.lock)
    thread = pool.ended
    pool.ended = NULL
    unlock(&pool.lock)
    while thread != NULL:
        following = thread.next
        pthread_join(thread.handle, NULL)
        context_destroy(&thread.ctx)
        free(thread)
        thread = following
