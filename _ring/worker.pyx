"""The worker's loop: drain the queues, publish each reply, one signal for a batch, poll, ask for kicks, look again,
sleep.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from .atomics cimport (
    fetch_add32, le16, load_acquire16, load_acquire32, load_relaxed16, load_relaxed32, store_relaxed32, store_relaxed64,
    store_release32)
from .chain cimport chain_look_back
from .engine cimport Engine, complete, may_take, pop_request, signal, take_request
from .file_ops cimport writes_alone
from .fuse_abi cimport FUSE_READ, FUSE_WRITE
from .helping cimport help_begin, help_end, help_over, help_pays, help_waited, help_wanted
from .linux cimport (
    EPOLLET, EPOLLIN, calloc, epoll_event, free, memset, open_schedstat, run_delay, sys_close, sys_epoll_add,
    sys_epoll_create, sys_epoll_remove, sys_epoll_wait, sys_eventfd, sys_gettid, sys_write)
from .inode_lifetime cimport inodes_close_few
from .inode_table cimport InodeTable
from .mutex cimport lock, unlock
from .operations cimport SLEEPS, Operation, perform, prepare
from .polling cimport poll_begin, poll_end, poll_learn
from .pool cimport Pool, Thread, pool_invite, pool_nudge, pool_offer, pool_submit
from .request cimport WOULD_SLEEP, Request
from .share cimport Context
from .slowness cimport TWICE_WITHIN_US, slowness_expected, slowness_note
from .ticks cimport ticks_now
from .virtqueue cimport Virtqueue, ring_kicks_off, ring_kicks_on, ring_unsignalled
from .watched cimport watchdog_arm

cdef enum:
    TURN = 64             # requests of one queue before the worker's next one has its turn
    HOLD_REPLIES = 6      # that share a signal
    HOLD_US = 20          # that a reply may be held back for others, at most
    UNIT_BYTES = 16384    # a transfer of as much or more takes as long as there are bytes in it
    BEHIND = 3            # requests that wait, so that a driver woken later finds the worker busy still
    BULK = 65536          # a READ of so much is one that another thread may help with
    LEARNING = 8          # the part that one request has of what is usual
    HIPRIO = 0            # the index of its vring (virtio 1.3, 5.11.2)
    WAKE = 0xffffffffU    # in an epoll event: not a queue's kick
    EVENTS = 16

# Between looks at a queue that has no kick descriptor, while it is busy and when it is not.
cdef int64_t POLLED_NS = 20000
cdef int64_t POLLED_IDLE_NS = 2000000


# The replies of a queue that were published since the driver was last signalled.
cdef struct Held:
    uint64_t since        # ticks: when the first of them was
    bint any_small        # one of them took no large transfer


# What the thread that leads the worker has of it, or the one that helps.
cdef struct Lead:
    Worker *worker
    Watched *watched      # where it shows what it is at: one who helps is not watched
    Thread *thread
    uint32_t token
    uint32_t version      # of the list of queues below
    uint32_t count
    bint polled           # a queue without a kick descriptor is among them
    bint starved          # there was no request to be had
    bint hiprio           # it has that queue alone
    bint helps
    Virtqueue *queues[QUEUES_MAX]


cdef Worker *worker_create(Engine *engine, Pool *pool, uint32_t number) noexcept nogil:
    """A worker with no queue and no thread yet. NULL: no memory, or no descriptors."""
    cdef Worker *worker = <Worker *> calloc(1, sizeof(Worker))
    if worker == NULL:
        return NULL
    worker.engine = engine
    worker.pool = pool
    worker.number = number
    worker.lead_role.worker = worker.help_role.worker = worker
    worker.help_role.helps = 1
    worker.polling.limit = engine.poll_limit
    worker.polling.schedstat_fd = -1
    worker.epoll_fd = sys_epoll_create()
    worker.wake_fd = sys_eventfd()
    if worker.epoll_fd < 0 or worker.wake_fd < 0 or \
            sys_epoll_add(worker.epoll_fd, worker.wake_fd, EPOLLIN | EPOLLET, WAKE) < 0:
        worker_free(worker)
        return NULL
    return worker


cdef void worker_start(Worker *worker) noexcept nogil:
    """Asks for a thread to lead it."""
    pool_offer(worker.pool, &worker.lead_role)


cdef void worker_wake(Worker *worker) noexcept nogil:
    """It looks at its queues, and at what has changed for it. Descriptors are watched by edge: none is ever read."""
    cdef uint64_t one = 1
    sys_write(worker.wake_fd, &one, sizeof(one))


cdef void worker_stop(Worker *worker) noexcept nogil:
    """Has no thread lead it any more."""
    store_release32(&worker.stopping, 1)
    worker_wake(worker)


cdef void worker_free(Worker *worker) noexcept nogil:
    """No thread leads it."""
    if worker.epoll_fd >= 0:
        sys_close(worker.epoll_fd)
    if worker.wake_fd >= 0:
        sys_close(worker.wake_fd)
    if worker.polling.schedstat_fd >= 0:
        sys_close(worker.polling.schedstat_fd)
    free(worker)


cdef int worker_attach(Worker *worker, Virtqueue *queue) noexcept nogil:
    """Gives it a queue. 0 or -errno of a kick descriptor that cannot be watched."""
    cdef int error
    if queue.kick_fd >= 0:
        error = sys_epoll_add(worker.epoll_fd, queue.kick_fd, EPOLLIN | EPOLLET, queue.index)
        if error < 0:
            return error
    lock(&queue.lock)
    queue.served_by = worker.number
    unlock(&queue.lock)
    lock(&worker.lock)
    worker.queues[worker.queue_count] = queue
    worker.queue_count += 1
    store_release32(&worker.version, worker.version + 1)
    unlock(&worker.lock)
    worker_wake(worker)
    return 0


cdef void worker_detach(Worker *worker, Virtqueue *queue) noexcept nogil:
    """Takes a queue away. The worker may still be at it: what it does there is safe, under the queue's lock."""
    cdef uint32_t i
    if queue.kick_fd >= 0:
        sys_epoll_remove(worker.epoll_fd, queue.kick_fd)
    lock(&worker.lock)
    for i in range(worker.queue_count):
        if worker.queues[i] == queue:
            worker.queue_count -= 1
            worker.queues[i] = worker.queues[worker.queue_count]
            break
    store_release32(&worker.version, worker.version + 1)
    unlock(&worker.lock)
    worker_wake(worker)


cdef void refresh(Lead *lead) noexcept nogil:
    cdef Worker *worker = lead.worker
    cdef uint32_t i
    lock(&worker.lock)
    lead.version = worker.version
    lead.count = worker.queue_count
    for i in range(worker.queue_count):
        lead.queues[i] = worker.queues[i]
    lead.hiprio = worker.queue_count == 1 and worker.queues[0].index == HIPRIO
    unlock(&worker.lock)


cdef inline bint leads(const Lead *lead) noexcept nogil:
    return load_relaxed32(&lead.watched.leader) == lead.token and not load_relaxed32(&lead.worker.stopping)


cdef inline uint32_t units_of(const Request *request) noexcept nogil:
    """How many UNIT_BYTES it transfers. 0: fewer bytes, and it takes as long as others of its kind."""
    return <uint32_t> ((request.chain.readable_bytes + request.chain.writable_bytes) / UNIT_BYTES)


cdef inline uint64_t expected(const Context *ctx, uint32_t opcode, uint32_t units) noexcept nogil:
    """The ticks that a request of this kind usually takes."""
    return <uint64_t> ctx.usual_unit[opcode] * units if units else ctx.usual[opcode]


cdef inline void learn(Context *ctx, uint32_t opcode, uint32_t units, uint64_t took) noexcept nogil:
    """Half a second is as long as anything."""
    cdef uint32_t *usual = &ctx.usual[opcode]
    cdef int64_t difference
    if units:
        usual = &ctx.usual_unit[opcode]
        took /= units
    difference = <int64_t> (took if took < 1 << 30 else 1 << 30) - usual[0]
    usual[0] = <uint32_t> (usual[0] + difference / LEARNING)


cdef inline uint32_t waiting(const Virtqueue *queue) noexcept nogil:
    """How many requests are behind the one that was taken last, as far as is known."""
    return <uint16_t> (load_relaxed16(&queue.seen_avail) - load_relaxed16(&queue.next_avail))


cdef inline bint may_wait(const Lead *lead, const Virtqueue *queue, const Held *held, uint32_t opcode, uint32_t units,
                          uint64_t now) noexcept nogil:
    """Whether what was published already may wait until such a request is answered, too.

    A driver that has little else to do at once had better be busy while much data is copied; and what is short is
    not to wait for what is long.
    """
    if units and (held.any_small or waiting(queue) < BEHIND):
        return False
    return now - held.since + expected(&lead.thread.ctx, opcode, units) <= HOLD_US * lead.worker.engine.ticks_per_us


cdef uint64_t waited_for_cpu_us(Lead *lead, uint64_t now) noexcept nogil:
    """How long the calling thread has waited for a CPU since this was last asked, after the slow request before: all of
    that is taken for part of this one. 0 where they are too far apart to teach anything together, or the thread does
    not lead any more.
    """
    cdef Worker *worker = lead.worker
    cdef uint64_t waited, before
    cdef bint lately
    if lead.helps:
        return 0
    # So that the descriptor stays open, which is the leader's, whoever that is.
    lock(&worker.lock)
    if not leads(lead):
        unlock(&worker.lock)
        return 0
    before = worker.waited_ns
    waited = run_delay(worker.polling.schedstat_fd)
    lately = now - worker.waited_at < TWICE_WITHIN_US * worker.engine.ticks_per_us
    worker.waited_ns = waited
    worker.waited_at = now
    unlock(&worker.lock)
    return (waited - before) / 1000 if lately and waited > before else 0


cdef void note_if_slow(Lead *lead, const Request *request, const Operation *operation, uint64_t took,
                       uint64_t now) noexcept nogil:
    """What a request teaches of its kind that took so many ticks."""
    cdef Worker *worker = lead.worker
    cdef uint64_t us = worker.engine.ticks_per_us
    cdef uint64_t waited_us
    if took <= worker.engine.slow_ticks:
        return
    # A thread that had no CPU would have none in the pool.
    waited_us = waited_for_cpu_us(lead, now)
    if waited_us < took / us:
        slowness_note(&worker.engine.share.inodes, request.header.nodeid, operation.slow_class, took / us - waited_us,
                      now / us)


cdef bint serve_request(Lead *lead, Request *request, const Operation *operation, uint32_t units) noexcept nogil:
    """One request that has been prepared. True: it is answered, and to be returned; else it has gone to the pool."""
    cdef Worker *worker = lead.worker
    cdef InodeTable *inodes = &worker.engine.share.inodes
    cdef int result = WOULD_SLEEP
    cdef uint64_t start, now
    if not operation.flags & SLEEPS and not slowness_expected(inodes, request.header.nodeid, operation.slow_class):
        store_relaxed64(&lead.watched.nodeid, request.header.nodeid)
        store_relaxed32(&lead.watched.slow_class, operation.slow_class)
        store_relaxed32(&lead.watched.progress, lead.watched.progress + 1)
        start = ticks_now()
        result = perform(&lead.thread.ctx, request, operation)
        now = ticks_now()
        learn(&lead.thread.ctx, request.header.opcode, units, now - start)
        note_if_slow(lead, request, operation, now - start, now)
    if result == WOULD_SLEEP:
        lead.thread.spare = NULL
        request.args_at = 0
        request.alone = request.header.opcode == FUSE_WRITE and writes_alone(&lead.thread.ctx, request)
        pool_submit(worker.pool, request)
    return result != WOULD_SLEEP


cdef inline void ask_for_help(Lead *lead, const Virtqueue *queue, const Request *request) noexcept nogil:
    """Where large READs wait behind this one, and a thread has nothing to do."""
    cdef uint64_t size = request.chain.writable_bytes
    if lead.helps or request.header.opcode != FUSE_READ or size < BULK:
        return
    if help_wanted(&lead.worker.helping, lead.worker.engine, waiting(queue) * size) and \
            not pool_invite(lead.worker.pool, &lead.worker.help_role):
        help_over(&lead.worker.helping, lead.worker.engine)


cdef bint serve_queue(Lead *lead, Virtqueue *queue) noexcept nogil:
    """Serves what is available, a turn of it at most. True: there may be more.

    A driver that waits is woken by the first reply, so that it is awake when the next ones are there; those share a
    signal: a few of them, and none waits for longer than HOLD_US, as far as can be foreseen.
    """
    cdef Engine *engine = lead.worker.engine
    cdef const Operation *operation
    cdef Request *request
    cdef uint64_t now = queue.looked_at
    cdef uint32_t units
    cdef Held held
    cdef bint any_held
    cdef bint answered = False      # the request has to go back yet: with the next one's coming, mostly
    cdef int got, _turn
    # Of what another thread may have left unsignalled here nothing is known.
    held.since = now
    held.any_small = True
    for _turn in range(TURN):
        if lead.thread.spare == NULL:
            lead.thread.spare = take_request(engine)
        if lead.thread.spare == NULL or not may_take(engine, queue, answered):
            lead.starved = True         # what is in flight will give some back
            break
        request = lead.thread.spare
        any_held = answered or ring_unsignalled(queue) != 0
        got = pop_request(engine, queue, request, answered)
        answered = False
        if got == 0:
            # Also what another thread has left behind, that hangs now in a request which it took for a quick one.
            if ring_unsignalled(queue):
                signal(engine, queue)
            return False
        units = 0
        if got > 0:
            operation = prepare(&lead.thread.ctx, request)
            answered = operation == NULL
            if not answered:
                units = units_of(request)
                if any_held and not may_wait(lead, queue, &held, request.header.opcode, units, now):
                    queue.looked_at = now
                    signal(engine, queue)
                    any_held = False
                ask_for_help(lead, queue, request)
                answered = serve_request(lead, request, operation, units)
                if not leads(lead):
                    break
        now = ticks_now()
        if not any_held:
            held.since = now
            held.any_small = False
        held.any_small |= not units
        if now - queue.looked_at > HOLD_US * engine.ticks_per_us or ring_unsignalled(queue) + answered >= HOLD_REPLIES:
            queue.looked_at = now
            if answered:
                complete(engine, request)
                answered = False
            signal(engine, queue)
    if answered:
        complete(engine, request)
    signal(engine, queue)
    return not lead.starved and leads(lead)


cdef bint serve(Lead *lead) noexcept nogil:
    """A turn for every queue. True: there may be more to do."""
    cdef Engine *engine = lead.worker.engine
    cdef bint more = False
    cdef uint32_t i
    lead.starved = False
    for i in range(lead.count):
        more |= serve_queue(lead, lead.queues[i])
    # On the hiprio queue nobody waits for what closing a descriptor may take.
    if (load_relaxed32(&engine.share.inodes.to_close) and not (
            lead.hiprio and inodes_close_few(&engine.share.inodes))) or \
            load_relaxed32(&engine.share.inodes.loose_mounts):
        pool_nudge(lead.worker.pool)
    return more


cdef bint available(Virtqueue *queue) noexcept nogil:
    cdef bint found
    lock(&queue.lock)
    found = queue.running and not queue.error and le16(load_acquire16(queue.avail + 1)) != queue.next_avail
    if found:
        chain_look_back(queue)
    unlock(&queue.lock)
    return found


cdef bint any_available(const Lead *lead) noexcept nogil:
    cdef uint32_t i
    for i in range(lead.count):
        if available(lead.queues[i]):
            return True
    return False


cdef bint poll(Lead *lead) noexcept nogil:
    """Looks on for a while. True: there is something to do."""
    cdef Worker *worker = lead.worker
    cdef uint64_t until = poll_begin(&worker.polling, worker.engine, ticks_now())
    cdef uint64_t now
    if not until:
        return False
    while True:
        if any_available(lead):
            poll_end(&worker.polling, worker.engine, ticks_now(), True)
            return True
        now = ticks_now()
        if now >= until or load_relaxed32(&worker.version) != lead.version or not leads(lead):
            poll_end(&worker.polling, worker.engine, now, False)
            return False


cdef bint ask_for_kicks(Lead *lead) noexcept nogil:
    """True: something has come in between, and the worker must not sleep."""
    cdef Virtqueue *queue
    cdef bint more = False
    cdef uint32_t i
    lead.polled = False
    for i in range(lead.count):
        queue = lead.queues[i]
        lock(&queue.lock)
        if queue.running and not queue.error and queue.served_by == lead.worker.number:
            more |= ring_kicks_on(queue)
            lead.polled |= queue.kick_fd < 0 and not queue.inband_kicks
        unlock(&queue.lock)
        # What one who helps has left behind, and hangs now: nobody else looks after it.
        if ring_unsignalled(queue):
            signal(lead.worker.engine, queue)
    return more


cdef void ask_for_none(Lead *lead) noexcept nogil:
    cdef Virtqueue *queue
    cdef uint32_t i
    for i in range(lead.count):
        queue = lead.queues[i]
        if queue.event_idx:
            continue
        lock(&queue.lock)
        if queue.running and not queue.error and queue.served_by == lead.worker.number:
            ring_kicks_off(queue)
        unlock(&queue.lock)


cdef void sleep_until_kicked(Lead *lead, int64_t *pause) noexcept nogil:
    cdef Worker *worker = lead.worker
    cdef epoll_event events[EVENTS]
    cdef int kicked
    store_relaxed32(&worker.watched.asleep, lead.token)
    kicked = sys_epoll_wait(worker.epoll_fd, events, EVENTS, pause[0] if lead.polled or lead.starved else -1)
    if kicked > 0:
        pause[0] = POLLED_NS
        poll_learn(&worker.polling, worker.engine, ticks_now())
    elif pause[0] < POLLED_IDLE_NS:
        pause[0] *= 2
    store_relaxed32(&worker.watched.asleep, 0)    # no thread's token
    watchdog_arm(&worker.engine.watchdog_armed)
    worker.wakeups += 1


cdef void watch_waits(Worker *worker) noexcept nogil:
    """Has the calling thread's waits for a CPU known, in place of those of the thread that led the worker before."""
    cdef int schedstat_fd = open_schedstat(worker.engine.share.proc_fd)
    cdef int before
    lock(&worker.lock)
    before = worker.polling.schedstat_fd
    worker.polling.schedstat_fd = schedstat_fd
    worker.waited_at = 0
    unlock(&worker.lock)
    if before >= 0:
        sys_close(before)


cdef void lead(Worker *worker, Thread *thread) noexcept nogil:
    """Serves the worker's queues until it is stopped, or another thread has taken over."""
    cdef Lead lead
    cdef int64_t pause = POLLED_NS
    lead.worker = worker
    lead.watched = &worker.watched
    lead.thread = thread
    lead.token = fetch_add32(&worker.watched.leader, 1) + 1
    lead.polled = False
    lead.starved = False
    lead.helps = False
    watch_waits(worker)
    thread.ctx.may_sleep = 0
    store_release32(&worker.watched.tid, <uint32_t> sys_gettid())   # the watchdog takes nobody's place before
    watchdog_arm(&worker.engine.watchdog_armed)
    refresh(&lead)
    while leads(&lead):
        if load_acquire32(&worker.version) != lead.version:
            refresh(&lead)
        if serve(&lead) or not leads(&lead) or (not lead.starved and poll(&lead)):
            continue
        if ask_for_kicks(&lead) and not lead.starved:
            ask_for_none(&lead)
            continue
        sleep_until_kicked(&lead, &pause)
        ask_for_none(&lead)
    if load_relaxed32(&worker.watched.leader) == lead.token:
        store_relaxed32(&worker.watched.asleep, lead.token)
    # A kick that woke this thread though another leads by now, or a wish to stop that it heard first, goes on to that
    # one.
    worker_wake(worker)
    thread.ctx.may_sleep = 1


cdef bint more_to_help(Lead *lead) noexcept nogil:
    """Looks on for a moment: True where there is another request."""
    cdef uint64_t now = ticks_now()
    cdef uint64_t until = now + lead.worker.helping.linger
    while now < until and load_relaxed32(&lead.worker.version) == lead.version and leads(lead):
        if any_available(lead):
            return True
        now = ticks_now()
    help_waited(&lead.worker.helping)
    return False


cdef void help(Worker *worker, Thread *thread) noexcept nogil:
    """Serves the worker's queues beside the thread that leads it, as long as there is something to do and a CPU for
    it. Who leads answers for all: it asks for kicks, and is watched. This thread may leave, or hang, at any time.
    """
    cdef Lead lead
    cdef Watched watched
    cdef bint more = True
    memset(&watched, 0, sizeof(Watched))
    lead.worker = worker
    lead.watched = &watched
    lead.thread = thread
    lead.token = watched.leader
    lead.polled = False
    lead.helps = True
    thread.ctx.may_sleep = 0
    refresh(&lead)
    help_begin(&worker.helping)
    while more and load_acquire32(&worker.version) == lead.version and leads(&lead):
        more = serve(&lead) or (not lead.starved and more_to_help(&lead))
        # Also of the last turn: most help is over after a single one.
        more &= help_pays(&worker.helping, worker.engine)
    help_end(&worker.helping, worker.engine, watched.progress)
    thread.ctx.may_sleep = 1
