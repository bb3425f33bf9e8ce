"""The list of jobs, and who waits for one. What is always so: a thread that takes a job and leaves none idle starts
another.

Threads above one that have had nothing to do for a while end; an idle pool is one thread that sleeps for good.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from .atomics cimport fence_full, load_relaxed32
from .engine cimport Engine
from .linux cimport ETIMEDOUT, sys_futex_wait, sys_futex_wake
from .mutex cimport lock, unlock
from .request cimport Request
from .watched cimport watchdog_arm

cdef enum:
    WAKE_ALL = 0x7fffffff

cdef int64_t LINGER_NS = 5000000000


cdef void pool_init(Pool *pool, Engine *engine, uint32_t limit) noexcept nogil:
    pool.engine = engine
    pool.limit = limit


cdef inline bint wakes(Pool *pool) noexcept nogil:
    # The lock is held. Who is not idle looks at the list before it goes to sleep.
    if pool.idle:
        pool.sequence += 1
    return pool.idle > 0


cdef inline void append(Request **first, Request **last, Request *request) noexcept nogil:
    request.next = NULL
    if first[0] == NULL:
        first[0] = request
    else:
        last[0].next = request
    last[0] = request


cdef bint put_behind(Pool *pool, Request *request) noexcept nogil:
    """Where one is carried out that it may not be beside, has it wait for that, with those that wait for it. The lock
    is held.
    """
    cdef Request *other = pool.alone if request.alone else NULL
    while other != NULL and other.header.nodeid != request.header.nodeid:
        other = other.next
    if other == NULL:
        return False
    request.next = request.behind
    if other.behind == NULL:
        other.behind = request
    else:
        other.behind_last.next = request
    other.behind_last = request if request.behind == NULL else request.behind_last
    request.behind = NULL
    return True


cdef void pool_submit(Pool *pool, Request *request) noexcept nogil:
    """Hands a prepared request over; it will be completed. Wakes a thread only where one is idle."""
    cdef bint wake = False
    request.behind = NULL
    lock(&pool.lock)
    if not put_behind(pool, request):
        append(&pool.first, &pool.last, request)
        wake = wakes(pool)
    unlock(&pool.lock)
    if wake:
        sys_futex_wake(&pool.sequence, 1)


cdef inline Request *begun(Pool *pool, Request *request) noexcept nogil:
    """The request, which a thread is to carry out now. The lock is held."""
    if request.alone:
        request.next = pool.alone
        pool.alone = request
    return request


cdef Request *take(Pool *pool) noexcept nogil:
    """The next request that can be carried out now, or NULL. The lock is held."""
    cdef Request *request
    while pool.first != NULL:
        request = pool.first
        pool.first = request.next
        if not put_behind(pool, request):
            return begun(pool, request)
    return NULL


cdef Request *pool_done(Pool *pool, Request *request) noexcept nogil:
    """A request was carried out. The next one for the calling thread, if it has waited for this; else NULL, and the
    thread looks for a job as all do.
    """
    cdef Request **at = &pool.alone
    cdef Request *following
    cdef bint wake = False
    if not request.alone:
        return NULL
    lock(&pool.lock)
    while at[0] != request:
        at = &at[0].next
    at[0] = request.next
    following = request.behind
    if following != NULL:
        following.behind = following.next
        following.behind_last = request.behind_last
        if pool.first == NULL and pool.roles == NULL and not pool.chores:
            begun(pool, following)
        else:
            # Others have waited as well, perhaps for longer.
            append(&pool.first, &pool.last, following)
            following = NULL
            wake = wakes(pool)
            watchdog_arm(&pool.engine.watchdog_armed)   # it sees to it that there is a thread
    unlock(&pool.lock)
    if wake:
        sys_futex_wake(&pool.sequence, 1)
    return following


cdef void pool_offer(Pool *pool, Role *role) noexcept nogil:
    """A worker has no thread that leads it, or one that does not come back from a call."""
    cdef bint wake = False
    lock(&pool.lock)
    if not role.wanted:
        role.wanted = 1
        role.next = pool.roles
        pool.roles = role
        wake = wakes(pool)
    unlock(&pool.lock)
    if wake:
        sys_futex_wake(&pool.sequence, 1)


cdef bint pool_invite(Pool *pool, Role *role) noexcept nogil:
    """A worker has enough to do for two. False: nobody is idle; who comes late is no help."""
    cdef bint idle
    lock(&pool.lock)
    idle = wakes(pool)
    if idle:
        role.next = pool.roles
        pool.roles = role
    unlock(&pool.lock)
    if idle:
        sys_futex_wake(&pool.sequence, 1)
    return idle


cdef void pool_nudge(Pool *pool) noexcept nogil:
    """There are descriptors to close, or waits that were cancelled."""
    cdef bint wake
    # Full: what is to be done must be visible before the word is read; who takes the chores does the reverse.
    fence_full()
    if load_relaxed32(&pool.chores):
        return
    lock(&pool.lock)
    pool.chores = 1
    wake = wakes(pool)
    unlock(&pool.lock)
    if wake:
        sys_futex_wake(&pool.sequence, 1)


cdef bint pool_wait(Pool *pool, Request **request, Role **role) noexcept nogil:
    """Waits for a job: a worker to lead or to help, a request, or only chores. False: the thread is to end."""
    cdef uint32_t sequence
    cdef bint last
    cdef bint go_on = True
    cdef bint expired = False
    request[0] = NULL
    role[0] = NULL
    lock(&pool.lock)
    while True:
        if pool.roles != NULL and not pool.stopping:
            role[0] = pool.roles
            pool.roles = role[0].next
            role[0].wanted = 0
            pool.serving += 1
            break
        request[0] = take(pool)
        if request[0] != NULL:
            break
        if pool.chores:
            pool.chores = 0
            break
        if pool.stopping or (expired and pool.idle > 0):
            go_on = False
            break
        sequence = pool.sequence
        last = pool.idle == 0
        pool.idle += 1
        unlock(&pool.lock)
        expired = sys_futex_wait(&pool.sequence, sequence, -1 if last else LINGER_NS) == -ETIMEDOUT
        lock(&pool.lock)
        pool.idle -= 1
    unlock(&pool.lock)
    return go_on


cdef bint pool_needs_thread(Pool *pool) noexcept nogil:
    """Whether one more thread is to be started, which is counted already then."""
    cdef bint needed
    lock(&pool.lock)
    needed = pool.idle == 0 and not pool.stopping and \
        (pool.threads - pool.serving < pool.limit or pool.roles != NULL)
    if needed:
        pool.threads += 1
    unlock(&pool.lock)
    return needed


cdef void pool_join(Pool *pool, Thread *thread) noexcept nogil:
    """A thread begins."""
    lock(&pool.lock)
    thread.previous = NULL
    thread.next = pool.living
    if thread.next != NULL:
        thread.next.previous = thread
    pool.living = thread
    unlock(&pool.lock)


cdef void pool_leave(Pool *pool, Thread *thread) noexcept nogil:
    """A thread ends: what it has counted stays, and it waits to be joined."""
    cdef int opcode
    lock(&pool.lock)
    if thread.previous != NULL:
        thread.previous.next = thread.next
    else:
        pool.living = thread.next
    if thread.next != NULL:
        thread.next.previous = thread.previous
    for opcode in range(OPCODES):
        pool.calls[opcode] += thread.ctx.calls[opcode]
        pool.errors[opcode] += thread.ctx.errors[opcode]
    pool.threads -= 1
    thread.next = pool.ended
    pool.ended = thread
    unlock(&pool.lock)


cdef void pool_count(Pool *pool, uint64_t *calls, uint64_t *errors) noexcept nogil:
    """How often each operation was carried out, and failed; OPCODES numbers each. Living threads go on counting."""
    cdef Thread *thread
    cdef int opcode
    lock(&pool.lock)
    for opcode in range(OPCODES):
        calls[opcode] = pool.calls[opcode]
        errors[opcode] = pool.errors[opcode]
    thread = pool.living
    while thread != NULL:
        for opcode in range(OPCODES):
            calls[opcode] += thread.ctx.calls[opcode]
            errors[opcode] += thread.ctx.errors[opcode]
        thread = thread.next
    unlock(&pool.lock)


cdef void pool_stop(Pool *pool) noexcept nogil:
    """Asks every thread to end when all requests are done; pool.threads says how many have not yet."""
    lock(&pool.lock)
    pool.stopping = 1
    pool.sequence += 1
    unlock(&pool.lock)
    sys_futex_wake(&pool.sequence, WAKE_ALL)
