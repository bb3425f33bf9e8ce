"""The boundary to the control plane: memory regions in, queues started and stopped, statistics and events out."""

import os

cimport cython
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from .atomics cimport (
    exchange32, fence_full, le16, load_acquire16, load_acquire32, load_acquire64, load_relaxed64, store_pointer,
    store_release32)
from .chain cimport (
    CHAIN_BAD_INDIRECT, CHAIN_BAD_NEXT, CHAIN_LOOP_OR_TOO_LONG, CHAIN_NO_MEMORY, CHAIN_OUT_OF_RANGE,
    CHAIN_READ_AFTER_WRITE, CHAIN_TOO_LARGE, chain_uses)
from .descriptors cimport descriptors_for_queues, descriptors_init
from .engine cimport (
    EVENT_BAD_CHAIN, EVENT_QUEUE_BROKEN, EVENT_THREAD_FAILED, EVENTS_KEPT, Engine, Event, engine_destroy, engine_init,
    notify)
from .failures cimport failed
from .handles cimport handles_create, handles_destroy
from .inodes cimport inodes_create, inodes_destroy, inodes_have_handles
from .kept cimport kept_create, kept_destroy
from .linux cimport (
    CAP_SETGID, CAP_SETUID, EINVAL, EMFILE, ENOMEM, EOPNOTSUPP, calloc, free, memset, realloc, sys_capget, sys_close,
    sys_drain, sys_dup, sys_dup3, sys_eventfd, sys_getegid, sys_geteuid, sys_nonblocking, sys_writable,
    sys_write_briefly)
from .lock_owners cimport cancel_all, cancel_queue, owners_drop_all
from .memory cimport MemoryMap, Region, map_create, map_free, map_user, region_map, region_unmap
from .mutex cimport lock, unlock
from .operations cimport Operation, operation_of
from .pool cimport Pool, pool_count, pool_init, pool_stop
from .request cimport Request
from .session_ops cimport end_session
from .share cimport OPCODES
from .share_settings cimport share_configure, share_free_settings
from .threads cimport threads_reap, threads_start
from .virtio_abi cimport virtio_desc, virtio_used_elem
from .virtqueue cimport (
    CALL_BLOCKING, CALL_EVENTFD, CALL_MESSAGE, CALL_SOCKET, QUEUE_BAD_HEAD, QUEUE_BAD_INDEX, QUEUE_MEMORY_GONE,
    QUEUE_OK, QUEUE_OVERCOMMITTED, Virtqueue, ring_begin, ring_place, ring_wants_signal, send_call)
from .watchdog cimport Watchdog, watchdog_start, watchdog_stop
from .worker cimport (
    QUEUES_MAX, Worker, worker_attach, worker_create, worker_detach, worker_free, worker_start, worker_stop,
    worker_wake)

cdef enum:
    REPLACED_MAX = 64       # call descriptors that threads may still hang in

CALLS = {"eventfd": CALL_EVENTFD, "socket": CALL_SOCKET, "message": CALL_MESSAGE}
EVENTS = {EVENT_QUEUE_BROKEN: "queue-broken", EVENT_BAD_CHAIN: "bad-chain", EVENT_THREAD_FAILED: "thread-failed"}
QUEUE_ERRORS = {
    QUEUE_BAD_INDEX: "its available index is more than a ring ahead",
    QUEUE_BAD_HEAD: "an available entry is no descriptor",
    QUEUE_OVERCOMMITTED: "more requests are in flight than it has descriptors",
    QUEUE_MEMORY_GONE: "the memory behind it is gone",
}
CHAIN_ERRORS = {
    CHAIN_LOOP_OR_TOO_LONG: "a loop, or too many descriptors",
    CHAIN_OUT_OF_RANGE: "an address outside guest memory",
    CHAIN_BAD_INDIRECT: "a bad indirect table",
    CHAIN_BAD_NEXT: "a next descriptor that is none",
    CHAIN_READ_AFTER_WRITE: "a device-readable descriptor behind a device-writable one",
    CHAIN_TOO_LARGE: "more bytes than a request can have",
    CHAIN_NO_MEMORY: "no memory for it",
}


@cython.final
cdef class Device:
    """The data plane of one share. Every method is called by the control plane's one thread.

    `root_fd`: the shared directory, opened with O_PATH; `proc_fd`: /proc/self/fd. Both stay the caller's. `settings` is
    a Settings; `descriptors` is RLIMIT_NOFILE, `pool_threads` the most there may be, `requests` the most that are in
    flight (more wait in their queues), `poll_us` how long a worker looks for requests before it sleeps, at most,
    `pollers` how many workers do so at once, `helpers` how many threads may help a worker with large READs at once,
    `idle_seconds` how long a descriptor that the guest does not use stays open (0: as long as there is room),
    `close_delay` seconds that a file stays open after its last close, `seccomp` the seccomp filter of the threads.
    Raises OSError.
    """

    cdef Engine engine
    cdef Pool pool
    cdef Virtqueue *queues
    cdef uint32_t queue_count
    cdef Watchdog watchdog
    cdef Worker *workers[QUEUES_MAX]
    cdef int served_by[QUEUES_MAX]     # the worker's number, -1: none
    cdef Region **regions
    cdef uint32_t region_count
    cdef bytes seccomp
    cdef list replaced                 # (queue, descriptor): somebody may still write to it
    cdef bint made                     # there is something to free
    cdef bint open                     # threads have been started, and use it

    def __cinit__(self, int root_fd, int proc_fd, settings, *, int queues, int descriptors, int pool_threads,
                  int requests=16384, int poll_us=50, int pollers=1, int helpers=0, double idle_seconds=0.0,
                  double close_delay=0.0, bytes seccomp=b""):
        cdef uint64_t effective = 0, permitted = 0, inheritable = 0
        cdef int error, i, root
        if not 1 <= queues <= QUEUES_MAX:
            raise ValueError(f"{queues} queues: there can be 1 to {QUEUES_MAX}")
        self.queue_count = queues
        self.replaced = []
        for i in range(QUEUES_MAX):
            self.served_by[i] = -1
        self.queues = <Virtqueue *> calloc(queues, sizeof(Virtqueue))
        if self.queues == NULL:
            failed(-ENOMEM, f"cannot make {queues} queues")
        self.engine.event_fd = -1
        self.made = True
        for i in range(queues):
            self.queues[i].index = i
            self.queues[i].kick_fd = -1
            self.queues[i].call_fd = -1
            self.queues[i].message_fd = -1
            self.queues[i].err_fd = -1
        share = &self.engine.share
        share.proc_fd = proc_fd
        self.seccomp = seccomp
        share.filter = <const char *> seccomp if seccomp else NULL
        share.filter_size = <uint32_t> (len(seccomp) / 8)
        share.own_uid = sys_geteuid()
        share.own_gid = sys_getegid()
        error = sys_capget(&effective, &permitted, &inheritable)
        if error < 0:
            failed(error, "cannot read the thread's capabilities")
        share.capabilities = effective
        share.switches_ids = bool(effective >> CAP_SETUID & 1 and effective >> CAP_SETGID & 1)
        descriptors_init(&share.descriptors, descriptors)
        error = engine_init(&self.engine, requests)
        if error == 0:
            error = kept_create(&share.kept, &share.descriptors, <int64_t> (close_delay * 1e9),
                                &self.engine.watchdog_armed)
        if error == 0:
            error = handles_create(&share.handles, &share.descriptors, &share.kept)
        if error == 0:
            error = map_create(NULL, 0, &self.engine.map)
        if error < 0:
            failed(error, "cannot set the data plane up")
        self.engine.poll_limit = poll_us * self.engine.ticks_per_us
        self.engine.pollers_max = pollers
        self.engine.helpers_max = helpers
        self.engine.idle_ns = <int64_t> (idle_seconds * 1e9)
        root = sys_dup(root_fd)
        with nogil:     # the file system may hang
            error = root if root < 0 else inodes_create(
                &share.inodes, &share.descriptors, &share.handles, &share.kept, root, proc_fd, self.engine.ticks_per_us)
        if error < 0:
            if root >= 0:
                sys_close(root)
            failed(error, "cannot use the shared directory")
        share_configure(share, settings)
        if settings.file_handles == "mandatory" and not inodes_have_handles(&share.inodes):
            failed(-EOPNOTSUPP, "--inode-file-handles mandatory: the shared directory has none that may be opened")
        self.open = True
        Py_INCREF(self)     # threads use what is in this object
        pool_init(&self.pool, &self.engine, pool_threads)
        error = watchdog_start(&self.watchdog, &self.pool, self.workers)
        if error == 0:
            error = threads_start(&self.pool)
        if error < 0:
            self.close()
            failed(error, "cannot start a thread")

    def __dealloc__(self):
        self.free_all()

    # Events.

    @property
    def event_fd(self) -> int:
        """Readable when there are events, or when something that is waited for may have come true."""
        return self.engine.event_fd

    def events(self) -> list[tuple[str, int, str]]:
        """The news since the last call: (kind, queue, what it was); kind "lost": so many more were not kept."""
        cdef Event kept[EVENTS_KEPT]
        cdef uint32_t count, lost, i
        with nogil:
            lock(&self.engine.events_lock)
            count = self.engine.event_count
            lost = self.engine.events_lost
            for i in range(count):
                kept[i] = self.engine.events[i]
            self.engine.event_count = 0
            self.engine.events_lost = 0
            unlock(&self.engine.events_lock)
        found = []
        for i in range(count):
            texts = {EVENT_QUEUE_BROKEN: QUEUE_ERRORS, EVENT_BAD_CHAIN: CHAIN_ERRORS}.get(kept[i].kind)
            detail = kept[i].detail
            found.append((EVENTS[kept[i].kind], kept[i].queue, texts[detail] if texts else os.strerror(-detail)))
        if lost:
            found.append(("lost", 0, str(lost)))
        return found

    def watch_requests(self, bint watching) -> None:
        """While watched, the event descriptor is signalled for each request that ends."""
        store_release32(&self.engine.waiting, watching)

    @property
    def memory_gone(self) -> bool:
        """Whether the front-end has taken guest memory away under us: the device is broken."""
        return load_acquire32(&self.engine.memory_gone) != 0

    # Memory.

    def add_region(self, uint64_t guest_addr, uint64_t size, uint64_t user_addr, uint64_t offset, int fd) -> int:
        """Maps `size` bytes at `offset` of the file; the descriptor stays the caller's. Its number. OSError."""
        cdef Region *region
        cdef Region **grown
        cdef uint32_t number = 0
        cdef int error
        if guest_addr + size < guest_addr or user_addr + size < user_addr:
            failed(-EINVAL, f"memory region of {size:#x} bytes at {guest_addr:#x}")
        while number < self.region_count and self.regions[number] != NULL:
            number += 1
        if number == self.region_count:
            grown = <Region **> realloc(self.regions, (number + 1) * sizeof(Region *))
            if grown == NULL:
                failed(-ENOMEM, f"{number + 1} memory regions")
            self.regions = grown
            self.regions[number] = NULL
            self.region_count += 1
        region = <Region *> calloc(1, sizeof(Region))
        if region == NULL:
            failed(-ENOMEM, f"{number + 1} memory regions")
        region.guest_addr = guest_addr
        region.size = size
        region.user_addr = user_addr
        error = region_map(region, fd, offset, &self.engine.memory_gone)
        if error < 0:
            free(region)
            failed(error, f"cannot map {size:#x} bytes of guest memory at {guest_addr:#x}")
        self.regions[number] = region
        return number

    def use_regions(self, numbers: list[int]) -> list[int]:
        """The memory map from now on. The queues whose rings are not in it: they rest. OSError, EINVAL: overlapping."""
        cdef Region **regions = <Region **> calloc(len(numbers) + 1, sizeof(Region *))
        cdef MemoryMap *map = NULL
        cdef MemoryMap *old
        cdef Virtqueue *queue
        cdef uint32_t count = len(numbers)
        cdef uint32_t i
        cdef int error
        if regions == NULL:
            failed(-ENOMEM, f"{count} memory regions")
        for i in range(count):
            regions[i] = self.regions[<uint32_t> numbers[i]]
        with nogil:
            error = map_create(regions, count, &map)
            free(regions)
        if error < 0:
            failed(error, "guest memory regions overlap" if error == -EINVAL else f"{count} memory regions")
        lost = []
        old = self.engine.map
        store_pointer(<void **> &self.engine.map, map)
        for i in range(self.queue_count):
            queue = &self.queues[i]
            with nogil:
                lock(&queue.lock)
            # From here on nobody reads this ring, and nobody is collecting a chain by the old map.
            if queue.placed and not self.find_ring(queue):
                lost.append(i)
            unlock(&queue.lock)
        map_free(old)
        return lost

    cdef bint find_ring(self, Virtqueue *queue):
        """Finds the ring in the current map; its lock is held. False: it is not there; the queue is not placed."""
        queue.placed = self.find_parts(queue, queue.size, queue.desc_user, queue.avail_user, queue.used_user)
        queue.running = queue.running and queue.placed
        return queue.placed

    cdef bint find_parts(self, Virtqueue *queue, uint64_t size, uint64_t desc_user, uint64_t avail_user,
                         uint64_t used_user):
        """Puts the queue where these are; its lock is held. False: they are not there; all is as it was."""
        cdef MemoryMap *map = self.engine.map
        cdef uint8_t *desc = map_user(map, desc_user, size * sizeof(virtio_desc))
        cdef uint8_t *avail = map_user(map, avail_user, 6 + 2 * size)
        cdef uint8_t *used = map_user(map, used_user, 6 + size * sizeof(virtio_used_elem))
        return desc != NULL and avail != NULL and used != NULL and ring_place(
            queue, <virtio_desc *> desc, <uint16_t *> avail, <uint16_t *> used)

    def region_busy(self, uint32_t number) -> bool:
        """Whether requests in flight have buffers in the region. It is not in the map any more: no new one gets any."""
        cdef Region *region = self.regions[number]
        cdef Request *request
        cdef bint busy = False
        with nogil:
            lock(&self.engine.requests_lock)
            request = self.engine.all_requests
            while request != NULL and not busy:
                busy = chain_uses(&request.chain, region)
                request = request.all_next
            unlock(&self.engine.requests_lock)
        return busy

    def remove_region(self, uint32_t number) -> None:
        """Unmaps a region that is neither in the map nor busy."""
        cdef Region *region = self.regions[number]
        self.regions[number] = NULL
        with nogil:
            region_unmap(region)
            free(region)

    # Queues.

    cdef Virtqueue *queue_at(self, int index) except NULL:
        if not 0 <= index < <int> self.queue_count:
            raise ValueError(f"vring {index}: there are {self.queue_count}")
        return &self.queues[index]

    def place_queue(self, int index, uint32_t size, uint64_t desc, uint64_t avail, uint64_t used, base: int | None, *,
                    bint event_idx, bint indirect) -> None:
        """Where the ring is, as the front-end's addresses, and the next available index (None: go on as it was).

        ValueError where a part is not aligned, or not in guest memory: all is as it was then.
        """
        cdef Virtqueue *queue = self.queue_at(index)
        cdef int next_avail = -1 if base is None else base & 0xffff
        cdef bint found
        with nogil:
            lock(&queue.lock)
        found = self.find_parts(queue, size, desc, avail, used)
        if found:
            queue.placed = 1
            queue.size = size
            queue.desc_user = desc
            queue.avail_user = avail
            queue.used_user = used
            queue.event_idx = event_idx
            queue.indirect = indirect
            ring_begin(queue, queue.next_avail if next_avail < 0 else <uint16_t> next_avail)
        if found and next_avail >= 0:
            # The driver reads used.idx from the ring, so it goes on from what stands there.
            queue.next_used = queue.signalled_used = le16(load_acquire16(queue.used + 1))
            queue.signal_always = 1
            queue.error = QUEUE_OK
            memset(queue.bad_chains, 0, sizeof(queue.bad_chains))
        unlock(&queue.lock)
        if not found:
            raise ValueError(f"vring {index}: its addresses are not aligned or not in guest memory")

    def run_queue(self, int index, bint running) -> None:
        """Lets workers take requests from the queue, or not. Those in flight are not touched."""
        cdef Virtqueue *queue = self.queue_at(index)
        with nogil:
            lock(&queue.lock)
            queue.running = running and queue.placed
            unlock(&queue.lock)
        if running:
            self.wake_worker(index)

    cdef void wake_worker(self, int index):
        cdef int number = self.served_by[index]
        if number >= 0:
            worker_wake(self.workers[number])

    def in_flight(self, int index) -> int:
        """How many requests were taken from the queue and not returned."""
        cdef Virtqueue *queue = self.queue_at(index)
        return queue.popped - load_acquire64(&queue.pushed)

    def busy_requests(self) -> list[tuple[int, str]]:
        """What is in flight now: (queue, operation)."""
        cdef Request *request
        cdef const Operation *operation
        found = []
        lock(&self.engine.requests_lock)
        request = self.engine.all_requests
        while request != NULL:
            if load_acquire32(&request.busy):
                operation = operation_of(request.header.opcode)
                found.append((request.queue.index, operation.name.decode() if operation != NULL else "?"))
            request = request.all_next
        unlock(&self.engine.requests_lock)
        return found

    def release_queue(self, int index) -> int:
        """The ring's memory is left alone from now on. Returns the next available index. Nothing is in flight."""
        cdef Virtqueue *queue = self.queue_at(index)
        with nogil:
            # A reply may have been published by a thread that had not come to this yet.
            if ring_wants_signal(queue):
                send_call(queue, True)
            lock(&queue.lock)
            queue.running = 0
            queue.placed = 0
            unlock(&queue.lock)
            store_release32(&queue.call_lost, 0)    # nobody looks at this ring any more
        return queue.next_avail

    def set_kick(self, int index, int fd, *, bint inband=False) -> None:
        """The kick descriptor, which becomes the device's (-1: none, and the ring is polled unless they are in-band).

        OSError where it cannot be watched: it is closed then.
        """
        cdef Virtqueue *queue = self.queue_at(index)
        cdef int number = self.served_by[index]
        self.detach(index)
        if queue.kick_fd >= 0:
            sys_close(queue.kick_fd)
        queue.kick_fd = fd
        queue.inband_kicks = inband
        if number >= 0:
            self.attach(index, number)

    def set_call(self, int index, int fd, str kind) -> None:
        """Where the driver is signalled, by `kind`: eventfd, socket, message. The fd becomes the device's (-1: none).

        It takes the place of the earlier one under the same number, so that nobody who signals now meets a stranger.
        """
        cdef Virtqueue *queue = self.queue_at(index)
        cdef int new = fd if fd >= 0 else sys_eventfd()
        cdef int *place = &queue.message_fd if kind == "message" else &queue.call_fd
        cdef int error = 0
        cdef int old
        if new < 0:
            failed(new, "cannot make an eventfd")
        self.let_callers_go()
        if place[0] < 0:
            place[0] = new
        else:
            # Who hangs in writing to the old one goes on when that is emptied, for which it has to be there.
            old = sys_dup(place[0]) if len(self.replaced) < REPLACED_MAX else -EMFILE
            error = old if old < 0 else sys_dup3(new, place[0])
            sys_close(new)
            if old >= 0:
                self.replaced.append((index, old))
                self.let_callers_go()
        if error < 0:
            failed(error, "cannot take the call descriptor")
        if kind == "eventfd" and not sys_nonblocking(queue.call_fd):
            store_release32(&queue.call_kind, CALL_BLOCKING)
        else:
            store_release32(&queue.call_kind, CALLS[kind])
        if fd >= 0 and queue.placed and not send_call(queue, True):
            # What was signalled on the old one may have been lost in the exchange.
            notify(&self.engine)

    def send_lost_calls(self) -> bool:
        """Sends the in-band calls that found the channel full. False: it is full still."""
        cdef uint32_t i
        cdef bint sent = True
        for i in range(self.queue_count):
            if exchange32(&self.queues[i].call_lost, 0) and not send_call(&self.queues[i], True):
                sent = False
        return sent

    def set_error(self, int index, int fd) -> None:
        """The eventfd that says that the queue is broken; the device's from now on (-1: none)."""
        cdef Virtqueue *queue = self.queue_at(index)
        if queue.err_fd >= 0:
            sys_close(queue.err_fd)
        queue.err_fd = fd

    def signal_errors(self) -> None:
        """Tells the front-end of the queues that have broken, where it gave them an eventfd."""
        cdef uint64_t one = 1
        for i in range(self.queue_count):
            if exchange32(&self.queues[i].error_due, 0) and self.queues[i].err_fd >= 0:
                sys_write_briefly(self.queues[i].err_fd, &one, sizeof(one))

    # Workers.

    def attach(self, int index, int number) -> None:
        """Has worker `number` serve the queue; the worker is started where there is none. OSError: all is as it was,
        but that a kick descriptor which no worker can watch is closed.
        """
        cdef Virtqueue *queue = self.queue_at(index)
        cdef int before = self.served_by[index]
        cdef Worker *worker
        cdef int error
        if not 0 <= number < QUEUES_MAX:
            raise ValueError(f"worker {number}")
        if before == number:
            return
        worker = self.workers[number]
        if worker == NULL:
            worker = worker_create(&self.engine, &self.pool, number)
            if worker == NULL:
                failed(-ENOMEM, "cannot make a worker")
            store_pointer(<void **> &self.workers[number], worker)
            worker_start(worker)
        error = threads_start(&self.pool)
        if error < 0:
            failed(error, "cannot start a thread")
        error = worker_attach(worker, queue)
        if error < 0:
            if before < 0:
                sys_close(queue.kick_fd)
                queue.kick_fd = -1
            failed(error, f"vring {index}: its kick descriptor cannot be watched")
        if before >= 0:
            worker_detach(self.workers[before], queue)   # for a moment both serve it, which does no harm
        self.served_by[index] = number
        self.count_queues()

    def detach(self, int index) -> None:
        """No worker serves the queue any more."""
        cdef Virtqueue *queue = self.queue_at(index)
        cdef int number = self.served_by[index]
        if number >= 0:
            worker_detach(self.workers[number], queue)
            self.served_by[index] = -1
            self.count_queues()

    def watch_load(self, bint watching) -> None:
        """While watched, and while requests come, load_is_due() becomes true now and then, with an event."""
        store_release32(&self.engine.load_watched, watching)

    def load_is_due(self) -> bool:
        return exchange32(&self.engine.load_due, 0) != 0

    def requests_taken(self, int index) -> int:
        """How many requests were taken from the queue, ever."""
        return load_relaxed64(&self.queue_at(index).popped)

    cdef void count_queues(self):
        descriptors_for_queues(&self.engine.share.descriptors, sum([number >= 0 for number in self.served_by]))

    @property
    def files_most(self) -> int:
        """How many files guests may have open at once."""
        return self.engine.share.descriptors.open_max

    def kick(self, int index) -> None:
        """An in-band kick."""
        self.queue_at(index)
        self.wake_worker(index)

    # The session, the end, and numbers.

    def end_session(self) -> None:
        """The guest is gone: it knows no inode and has no file open. May take long; call it in a thread of its own."""
        with nogil:
            end_session(&self.engine.share)

    def cancel_waits(self, int index) -> None:
        """Cuts short what waits for a lock, of one queue. To be called again until nothing is in flight."""
        self.queue_at(index)
        with nogil:
            cancel_queue(&self.engine.share.locks, index)

    def stop(self) -> None:
        """Asks every thread to end; each does after the request that it is at, the pool after all that it was given."""
        cdef int i
        for i in range(QUEUES_MAX):
            if self.workers[i] != NULL:
                worker_stop(self.workers[i])
        pool_stop(&self.pool)
        with nogil:
            cancel_all(&self.engine.share.locks)

    @property
    def stopped(self) -> bool:
        """Whether every thread has ended after stop()."""
        # What the pool came to after stop() may be waiting for a lock by now; once it has ended, nothing new can.
        cdef bint pool_ended = load_acquire32(&self.pool.threads) == 0
        cancel_all(&self.engine.share.locks)
        if pool_ended and load_acquire32(&self.engine.waiting_threads) == 0:
            return True
        self.let_callers_go()
        for i in range(self.queue_count):
            if self.queues[i].call_fd >= 0 and not sys_writable(self.queues[i].call_fd):
                sys_drain(self.queues[i].call_fd)
        return False

    cdef int let_callers_go(self) except -1:
        """A front-end may have a full eventfd block, so that who signals by it hangs; those that it has replaced."""
        cdef int index, fd
        left = []
        fence_full()    # who is counted after this writes to what is in the place now
        for index, fd in self.replaced:
            if load_acquire32(&self.queues[index].callers) == 0:
                sys_close(fd)
                continue
            if not sys_writable(fd):
                sys_drain(fd)
            left.append((index, fd))
        self.replaced = left
        return 0

    def close(self) -> None:
        """Frees everything. RuntimeError while a thread still runs: what it uses must stay."""
        if not self.open:
            return
        if not self.stopped:
            raise RuntimeError("the device's threads have not ended")
        self.open = False
        self.free_all()
        Py_DECREF(self)

    cdef void free_all(self):
        """No thread uses it, or there never was one: whatever of it has been made."""
        cdef uint32_t i
        cdef int number
        if not self.made:
            return
        self.made = False
        with nogil:
            watchdog_stop(&self.watchdog)
            threads_reap(&self.pool)    # those that are counted no more may still be at their last steps
        for number in range(QUEUES_MAX):
            if self.workers[number] != NULL:
                worker_free(self.workers[number])
                self.workers[number] = NULL
        for _, old in self.replaced:
            sys_close(old)
        for i in range(self.queue_count):
            queue = self.queues + i
            for fd in (queue.kick_fd, queue.call_fd, queue.message_fd, queue.err_fd):
                if fd >= 0:
                    sys_close(fd)
        with nogil:     # the file system may hang
            owners_drop_all(&self.engine.share.locks)
            handles_destroy(&self.engine.share.handles)
            kept_destroy(&self.engine.share.kept)
            inodes_destroy(&self.engine.share.inodes)
        for i in range(self.region_count):
            if self.regions[i] != NULL:
                region_unmap(self.regions[i])
                free(self.regions[i])
        free(self.regions)
        map_free(self.engine.map)
        share_free_settings(&self.engine.share)
        engine_destroy(&self.engine)
        free(self.queues)
        self.queues = NULL
        self.queue_count = 0

    def statistics(self) -> dict[str, int]:
        """Numbers as they are now, for tests and metrics; those of running threads may be a little old."""
        cdef uint64_t calls[OPCODES]
        cdef uint64_t errors[OPCODES]
        cdef uint64_t wakeups = 0, takeovers = 0, polls = 0, hits = 0, helped = 0
        cdef int number
        pool_count(&self.pool, calls, errors)
        numbers = {
            "inodes": load_acquire32(&self.engine.share.inodes.known),
            "inodes_remembered": load_acquire32(&self.engine.share.inodes.remembered),
            "inodes_closing": (load_acquire32(&self.engine.share.inodes.to_close_count)
                               + load_acquire32(&self.engine.share.inodes.loose_mounts)),
            "descriptors_cached": load_acquire32(&self.engine.share.descriptors.cached),
            "files_open": load_acquire32(&self.engine.share.descriptors.opened),
            "files_kept": load_acquire32(&self.engine.share.descriptors.kept),
            "threads": load_acquire32(&self.pool.threads),
            "threads_idle": load_acquire32(&self.pool.idle),
            "classes_slow": load_acquire32(&self.engine.share.inodes.slow_classes),
            "session": load_acquire32(&self.engine.share.session),
            "name_bytes": load_acquire32(&self.engine.share.inodes.names.bytes),
            "lock_owners": load_acquire32(&self.engine.share.locks.owner_count),
            "lock_ranges": load_acquire32(&self.engine.share.locks.ranges),
            "lock_waits": load_acquire32(&self.engine.share.locks.waits),
        }
        for number in range(QUEUES_MAX):
            if self.workers[number] != NULL:
                wakeups += self.workers[number].wakeups
                takeovers += self.workers[number].takeovers
                helped += self.workers[number].helping.times
                polls += self.workers[number].polling.polls
                hits += self.workers[number].polling.hits
        numbers["wakeups"] = wakeups
        numbers["requests"] = sum([calls[number] for number in range(OPCODES)])
        numbers["errors"] = sum([errors[number] for number in range(OPCODES)])
        numbers["takeovers"] = takeovers
        numbers["polls"] = polls
        numbers["helped"] = helped
        numbers["poll_hits"] = hits
        for number in range(<int> self.queue_count):
            if self.queues[number].popped:
                numbers[f"queue{number}_requests"] = self.queues[number].popped
                numbers[f"queue{number}_signals"] = self.queues[number].signals
                numbers[f"queue{number}_worker"] = self.served_by[number]
        return numbers
