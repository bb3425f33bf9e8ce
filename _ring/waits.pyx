"""Threads that wait for a lock, one for each request.

A wait may last for ever, so it holds no guest memory: the chain is let go, and collected anew for the reply, by the
memory map of then.
"""

from .atomics cimport fetch_add32, fetch_sub32
from .chain cimport chain_let_go
from .engine cimport Engine, complete, give_request, recollect, signal
from .handles cimport handle_release
from .linux cimport (
    EINTR, ENOMEM, F_OFD_SETLKW, calloc, free, interrupt_allow, pthread_detach, pthread_t, sys_fcntl_lock, sys_flock,
    sys_gettid, thread_name, thread_start)
from .lock_owners cimport LockTable, owner_locked, owner_release, wait_begins, wait_enter, wait_leave
from .request cimport Request, reply, reply_error

cdef enum:
    STACK = 1 << 18      # bytes


cdef struct Waiting:
    Engine *engine
    Request *request


cdef void finish(Engine *engine, Request *request, int error) noexcept nogil:
    if request.wait.is_flock:
        handle_release(&engine.share.handles, request.wait_handle)
    else:
        owner_release(&engine.share.locks, request.wait_owner)
    if error < 0:
        reply_error(request, error)
    else:
        reply(request, NULL, 0)
    complete(engine, request)
    signal(engine, request.queue)
    give_request(engine, request)


cdef void *wait_main(void *argument) noexcept nogil:
    cdef Waiting *waiting = <Waiting *> argument
    cdef Engine *engine = waiting.engine
    cdef Request *request = waiting.request
    cdef LockTable *table = &engine.share.locks
    cdef int error = interrupt_allow()
    thread_name("lock")
    free(waiting)
    if error == 0 and not wait_begins(table, &request.wait, sys_gettid()):
        error = -EINTR
    if error == 0:
        if request.wait.is_flock:
            error = sys_flock(request.wait.fd, request.wait.operation)
        else:
            error = sys_fcntl_lock(request.wait.fd, F_OFD_SETLKW, &request.wait.lock)
    wait_leave(table, &request.wait)
    if error == 0 and not request.wait.is_flock:
        owner_locked(table, request.wait_owner, request.wait.start, request.wait.end, request.wait.kind,
                     request.wait.pid)
    recollect(engine, request)
    finish(engine, request, error)
    fetch_sub32(&engine.waiting_threads, 1)
    return NULL


cdef void wait_for_lock(Engine *engine, Request *request) noexcept nogil:
    """Has the request wait for the lock that its handler could not get; it is completed later, or now with an error."""
    cdef Waiting *waiting
    cdef pthread_t thread = 0
    cdef int error
    request.wait.unique = request.header.unique
    request.wait.queue = request.queue.index
    error = wait_enter(&engine.share.locks, &request.wait)
    if error < 0:
        finish(engine, request, error)
        return
    chain_let_go(&request.chain)
    waiting = <Waiting *> calloc(1, sizeof(Waiting))
    error = -ENOMEM
    if waiting != NULL:
        waiting.engine = engine
        waiting.request = request
        fetch_add32(&engine.waiting_threads, 1)
        error = thread_start(&thread, wait_main, waiting, STACK)
    if error < 0:
        if waiting != NULL:
            fetch_sub32(&engine.waiting_threads, 1)
        free(waiting)
        wait_leave(&engine.share.locks, &request.wait)
        recollect(engine, request)
        finish(engine, request, error)
        return
    pthread_detach(thread)
