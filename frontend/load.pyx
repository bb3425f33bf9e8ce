"""The load generator: prepared requests through one queue at native speed, every reply checked, every latency taken."""

import os
import threading
from array import array

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, CLOCK_THREAD_CPUTIME_ID, clock_gettime, nanosleep, timespec
from posix.unistd cimport read

from frontend import operations
from frontend.ring cimport (
    ring_add, ring_arm, ring_disarm, ring_kick, ring_pop, ring_publish, ring_quiet, ring_sleep,
)
from virtiofsd._ring.atomics cimport cpu_relax, load_relaxed32, store_relaxed32
from virtiofsd._ring.fuse_abi cimport fuse_in_header, fuse_out_header

cdef extern from "<time.h>" nogil:   # where the names of posix.time are; not each Python.h includes it
    pass

cdef enum:
    PAGE = 4096
    NO_CHECK = 0
    CHECK_WORD = 1
    CHECK_PATTERN = 2
    CHECK_DATA = 3
    MAX_PAGES = 4096
    SPINS_A_CLOCK = 64
    EDGE_PAGES = 8      # of a transfer: the data is the device's to move, and the time for it not ours to use up

cdef uint64_t PATTERN_FACTOR = 0x9e3779b97f4a7c15ULL
cdef uint64_t PATTERN_ADDEND = 0x2545f4914f6cdd1dULL
cdef uint64_t FIRST_UNIQUE = <uint64_t>1 << 40      # far from those of a client on the same queue


cdef inline uint64_t clock_now(int clock) noexcept nogil:
    cdef timespec time
    clock_gettime(clock, &time)
    return <uint64_t>time.tv_sec * 1000000000 + <uint64_t>time.tv_nsec


cdef inline uint64_t now() noexcept nogil:
    return clock_now(CLOCK_MONOTONIC)


cdef inline uint64_t pattern_word(uint64_t offset) noexcept nogil:
    return offset * PATTERN_FACTOR + PATTERN_ADDEND


cdef inline uint64_t load_word(const uint8_t *at) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, at, sizeof(word))
    return word


cdef inline void store_word(uint8_t *at, uint64_t word) noexcept nogil:
    memcpy(at, &word, sizeof(word))


cdef inline uint32_t pages_of(uint32_t length) noexcept nogil:
    return (length + PAGE - 1) / PAGE


cdef inline uint32_t page_step(uint32_t length) noexcept nogil:
    """One page of so many has its edges written and checked."""
    return (pages_of(length) + EDGE_PAGES - 1) / EDGE_PAGES


cdef inline uint32_t first_page(uint32_t length, uint64_t offset) noexcept nogil:
    """A transfer further on in the file begins with another page, and the same one with the same."""
    return <uint32_t>(offset / length % page_step(length)) if length else 0


cdef void edge_words(slot_t *slot, uint32_t length, uint64_t offset, bint poison) noexcept nogil:
    """Writes the first and last word of some pages: the pattern, or its complement, which no good reply has."""
    cdef uint32_t done = first_page(length, offset) * PAGE, step = page_step(length) * PAGE, piece, last
    cdef uint8_t *page
    cdef uint64_t flip = ~<uint64_t>0 if poison else 0
    while done + 8 <= length:
        piece = min(length - done, <uint32_t>PAGE)
        page = slot.pages[done / PAGE]
        last = (piece - 8) & ~<uint32_t>7
        store_word(page, pattern_word(offset + done) ^ flip)
        store_word(page + last, pattern_word(offset + done + last) ^ flip)
        done += step


cdef bint edges_match(slot_t *slot, uint32_t length, uint64_t offset) noexcept nogil:
    cdef uint32_t done = first_page(length, offset) * PAGE, step = page_step(length) * PAGE, piece, last
    cdef uint8_t *page
    while done + 8 <= length:
        piece = min(length - done, <uint32_t>PAGE)
        page = slot.pages[done / PAGE]
        last = (piece - 8) & ~<uint32_t>7
        if load_word(page) != pattern_word(offset + done):
            return False
        if load_word(page + last) != pattern_word(offset + done + last):
            return False
        done += step
    return True


cdef inline piece_t *put(piece_t *piece, uint64_t gpa, uint32_t length, bint writable) noexcept nogil:
    piece.gpa = gpa
    piece.length = length
    piece.writable = writable
    return piece + 1


cdef uint32_t frame(load_t *load, slot_t *slot, const op_t *op) noexcept nogil:
    """The chain as Linux builds it: headers apart, small arguments together, then pages; a FORGET is one piece."""
    cdef piece_t *piece = load.pieces
    cdef uint32_t header = sizeof(fuse_in_header), left, i
    if op.no_reply:
        piece = put(piece, slot.request_gpa, op.request_length, False)
        return <uint32_t>(piece - load.pieces)
    piece = put(piece, slot.request_gpa, header, False)
    if op.request_length > header:
        piece = put(piece, slot.request_gpa + header, op.request_length - header, False)
    for i in range(pages_of(op.data)):
        left = op.data - i * PAGE
        piece = put(piece, slot.pages_gpa[i], min(left, <uint32_t>PAGE), False)
    piece = put(piece, slot.reply_gpa, sizeof(fuse_out_header), True)
    if op.out_args:
        piece = put(piece, slot.reply_gpa + sizeof(fuse_out_header), op.out_args, True)
    for i in range(pages_of(op.out_data)):
        left = op.out_data - i * PAGE
        piece = put(piece, slot.pages_gpa[i], min(left, <uint32_t>PAGE), True)
    return <uint32_t>(piece - load.pieces)


cdef int show(load_t *load) noexcept nogil:
    cdef int result
    ring_publish(load.ring)
    load.unpublished = False
    result = ring_kick(load.ring, False)
    return result if result < 0 else 0


cdef int begin(load_t *load, slot_t *slot) noexcept nogil:
    """Sends the slot's next operation."""
    cdef const op_t *op = load.ops + slot.next
    cdef uint32_t i, count
    cdef int head
    slot.op = op
    slot.next += 1
    load.unique += 2
    slot.unique = load.unique
    memcpy(slot.request, load.program + op.request_at, op.request_length)
    (<fuse_in_header *>slot.request).unique = slot.unique
    for i in range(op.num_patches):
        store_word(slot.request + op.patches[i].at, slot.registers[op.patches[i].register_])
    if op.data:
        edge_words(slot, op.data, op.offset, False)
    elif op.check == CHECK_PATTERN:
        edge_words(slot, op.out_data, op.offset, True)
    elif op.check == CHECK_DATA:
        store_word(slot.pages[0], ~op.check_value)
    if op.check == CHECK_WORD:      # what was there before is no answer
        store_word(slot.reply + sizeof(fuse_out_header) + op.check_at, ~op.check_value)
    count = frame(load, slot, op)
    slot.started = now()
    head = ring_add(load.ring, load.pieces, count, load.indirect and count > 1)
    if head < 0:
        return head
    load.by_head[head] = slot
    load.in_flight += 1
    load.unpublished = True
    return show(load) if load.publish_each else 0


cdef void check(load_t *load, slot_t *slot, uint32_t used) noexcept nogil:
    """Counts what is wrong with a reply, and keeps what later requests of the cycle need."""
    cdef const op_t *op = slot.op
    cdef fuse_out_header header
    cdef uint32_t length, i
    if op.no_reply:
        if used:
            load.wrong_length += 1
        return
    # The generator's own copy: the device has returned the buffer, and nothing decides twice.
    memcpy(&header, slot.reply, sizeof(header))
    if header.unique != slot.unique or header.len != used:
        load.wrong_header += 1
        return
    if header.error != op.error:
        load.wrong_error += 1
        return
    length = used - <uint32_t>sizeof(header)
    if used < sizeof(header) or (header.error and length) or (
            not header.error and (length < op.least or length > op.most)):
        load.wrong_length += 1
        return
    if header.error:
        return
    load.data_bytes += op.data + (length - min(length, op.out_args))
    if op.check == CHECK_WORD:
        # A u32 size and a zero in WRITE's reply read as one word.
        if load_word(slot.reply + sizeof(header) + op.check_at) != op.check_value:
            load.wrong_data += 1
    elif op.check == CHECK_PATTERN and not edges_match(slot, length - op.out_args, op.offset):
        load.wrong_data += 1
    elif op.check == CHECK_DATA and load_word(slot.pages[0]) != op.check_value:
        load.wrong_data += 1
    for i in range(op.num_saves):
        slot.registers[op.saves[i].register_] = load_word(slot.reply + sizeof(header) + op.saves[i].at)


cdef void sample(load_t *load, uint64_t nanoseconds) noexcept nogil:
    """Keeps a latency; when the room is full every second one goes, and from then on half as many come."""
    cdef uint64_t i
    load.until_sample -= 1
    if load.until_sample:
        return
    load.until_sample = load.stride
    if load.num_samples == load.capacity:
        for i in range(load.capacity / 2):
            load.samples[i] = load.samples[2 * i + 1]
        load.num_samples = load.capacity / 2
        load.stride *= 2
        load.until_sample = load.stride
    load.samples[load.num_samples] = <uint32_t>min(nanoseconds, <uint64_t>0xffffffff)
    load.num_samples += 1


cdef bint take_cycle(load_t *load, slot_t *slot, uint64_t time) noexcept nogil:
    """Gives the slot the stream's next cycle; False when the run is over."""
    if load.promised >= load.limit or time >= load.deadline or load_relaxed32(&load.stop):
        return False
    slot.next = load.position
    slot.left = load.cycle
    load.promised += load.cycle
    load.position += load.cycle
    if load.position + load.cycle > load.num_ops:
        load.position = 0
    return True


cdef void pause_between(load_t *load, uint64_t since) noexcept nogil:
    cdef uint64_t until = since + load.gap, time = now()
    cdef timespec request
    while time < until:
        if load.sleeping:
            request.tv_sec = <int64_t>((until - time) / 1000000000)
            request.tv_nsec = <int64_t>((until - time) % 1000000000)
            nanosleep(&request, NULL)
        else:
            cpu_relax()
        time = now()


cdef int finish(load_t *load, slot_t *slot, uint32_t used, uint64_t time) noexcept nogil:
    """One returned request: checked, counted, and the slot's next one sent."""
    load.in_flight -= 1
    load.done += 1
    sample(load, time - slot.started)
    check(load, slot, used)
    if load.gap:
        pause_between(load, time)
    slot.left -= 1
    if slot.left or take_cycle(load, slot, time):
        return begin(load, slot)
    if load.follower and not load.in_flight:
        load.follower.deadline = min(load.follower.deadline, time + load.linger)
    return 0


cdef int idle(load_t *load, uint64_t progress, uint32_t spins) noexcept nogil:
    """Waits for a call, or spins a little, for the `spins`th time. 0, or -errno; sets `stalled` when nothing has come
    for too long.
    """
    cdef int result
    if load.sleeping:
        if not ring_arm(load.ring):
            return 0
        result = ring_sleep(load.ring, 100)
        ring_disarm(load.ring)
        if result:
            return result if result < 0 else 0
    else:
        # A pause is a few nanoseconds on one CPU and 40 on another: a reply is looked for after each.
        cpu_relax()
        if spins % SPINS_A_CLOCK:
            return 0
    if now() - progress > load.timeout:
        load.stalled = True
    return 0


cdef int run(load_t **loads, uint32_t count) noexcept nogil:
    """Everything from the first request to the last reply, of loads that share this thread."""
    cdef load_t *load
    cdef slot_t *slot
    cdef uint32_t head = 0, used = 0, spins = 0, i, j
    cdef uint64_t time = now(), progress = time
    cdef bint moved, flying
    cdef int result
    for i in range(count):
        load = loads[i]
        if not load.sleeping:
            ring_quiet(load.ring)
        for j in range(load.depth):
            if take_cycle(load, load.slots + j, time):
                result = begin(load, load.slots + j)
                if result < 0:
                    return result
    while True:
        moved = flying = False
        for i in range(count):
            load = loads[i]
            result = ring_pop(load.ring, &head, &used)
            if result > 0:
                time = progress = now()
                slot = load.by_head[head]
                result = finish(slot.load, slot, used, time)
                moved = True
            elif result == 0 and load.unpublished:
                result = show(load)
                moved = True
            if result < 0:
                return result
            flying |= load.in_flight > 0
        if moved:
            continue
        if not flying:
            return 0
        spins += 1
        result = idle(loads[0], progress, spins)
        if result < 0 or loads[0].stalled:
            return result


cdef class Generator:
    """Runs a stream of operations through a queue that nothing else uses meanwhile, `depth` at a time.

    A stream is a sequence of cycles of `cycle` operations; each slot works on one cycle, its operations in order.
    `sleeping` guests wait for calls, others spin and want none. With `publish_each` every request is shown and
    kicked by itself, as Linux does; otherwise all that follow a batch of replies together. `gap` is a pause of
    seconds before each next request (for depth 1).
    """

    def __init__(self, Virtqueue queue, ops, *, int depth=1, int cycle=1, bint sleeping=True, bint publish_each=True,
                 double gap=0.0, samples=1 << 20):
        if not ops or cycle < 1 or len(ops) % cycle or depth < 1:
            raise ValueError(f"{len(ops)} operations are no whole number of cycles of {cycle}, at depth {depth}")
        if queue.on_kick is not None or (sleeping and queue.ring.call_fd < 0):
            raise ValueError("the generator needs eventfds, or to spin")
        self.queue, self.memory, self.taken = queue, queue.memory, []
        self.load.ring = &queue.ring
        self.load.indirect = queue.indirect
        self.load.depth, self.load.cycle = depth, cycle
        self.load.sleeping, self.load.publish_each = sleeping, publish_each
        self.load.gap = <uint64_t>(gap * 1e9)
        self.load.num_ops = len(ops)
        self.load.unique = FIRST_UNIQUE
        self.load.ops = <op_t *>calloc(len(ops), sizeof(op_t))
        self.load.slots = <slot_t *>calloc(depth, sizeof(slot_t))
        self.load.heads = <slot_t **>calloc(queue.ring.size, sizeof(slot_t *))
        self.load.pieces = <piece_t *>calloc(MAX_PAGES + 4, sizeof(piece_t))
        self.load.capacity = samples
        self.load.samples = <uint32_t *>calloc(samples, sizeof(uint32_t))
        if not (self.load.ops and self.load.slots and self.load.heads and self.load.pieces and self.load.samples):
            raise MemoryError
        self._read_ops(ops)
        self._place_slots(ops)

    def __dealloc__(self):
        cdef uint32_t i
        if self.load.slots:
            for i in range(self.load.depth):
                free(self.load.slots[i].pages)
                free(self.load.slots[i].pages_gpa)
        free(self.load.slots)
        free(<void *>self.load.ops)
        free(self.load.heads)
        free(self.load.pieces)
        free(self.load.samples)

    cdef _read_ops(self, ops):
        cdef op_t *op = <op_t *>self.load.ops
        cdef uint64_t at = 0
        cdef int i
        program = bytearray()
        known = {}          # equal requests share their bytes
        for source in ops:
            if not operations.HEADER <= len(source.request) <= 65536:
                raise ValueError(f"a request of {len(source.request)} bytes")
            if len(source.saves) > REGISTERS or len(source.patches) > REGISTERS:
                raise ValueError(f"an operation saves or patches at most {REGISTERS} registers")
            if max(source.data, source.out_data) > MAX_PAGES * PAGE:
                raise ValueError(f"an operation moves at most {MAX_PAGES * PAGE} bytes")
            where = known.get(source.request)
            if where is None:
                where = known[source.request] = len(program)
                program += source.request
            at = where
            op.request_at = at
            op.request_length = len(source.request)
            op.data, op.out_args, op.out_data = source.data, source.out_args, source.out_data
            op.least = source.out_args if source.least < 0 else source.least
            op.most = source.out_args if source.most < 0 else source.most
            op.error, op.no_reply = source.error, source.no_reply
            op.check, op.check_at, op.check_value = source.check, source.check_at, source.check_value
            op.offset = source.offset
            op.num_saves, op.num_patches = len(source.saves), len(source.patches)
            for i, (offset, register) in enumerate(source.saves):
                if register >= REGISTERS or offset + 8 > source.out_args:
                    raise ValueError(f"register {register} cannot be saved from offset {offset}")
                op.saves[i].at, op.saves[i].register_ = offset, register
            for i, (offset, register) in enumerate(source.patches):
                if register >= REGISTERS or offset + 8 > len(source.request):
                    raise ValueError(f"register {register} cannot be put at offset {offset}")
                op.patches[i].at, op.patches[i].register_ = offset, register
            if source.check == CHECK_DATA and source.out_data < 8:
                raise ValueError("no data to check a word of")
            if source.check == CHECK_WORD and source.check_at + 8 > source.out_args:
                raise ValueError(f"no word to check at offset {source.check_at}")
            op += 1
        self.program = bytes(program)
        self.load.program = self.program

    cdef _place_slots(self, ops):
        """Guest memory of each slot: request, reply, and scattered pages."""
        cdef slot_t *slot
        cdef uint32_t i
        cdef int j, count
        largest = max(len(op.request) for op in ops)
        reply = max(op.out_args for op in ops) + sizeof(fuse_out_header)
        count = -(-max(max(op.data, op.out_data) for op in ops) // 4096)
        for i in range(self.load.depth):
            slot = self.load.slots + i
            slot.load = &self.load
            digits = b"%08d" % i
            memcpy(&slot.registers[operations.SLOT], <const char *>digits, 8)
            slot.request_gpa = self.memory.alloc(largest, 64)
            self.taken.append(slot.request_gpa)
            slot.request = <uint8_t *><uintptr_t>self.memory.host(slot.request_gpa, largest)
            slot.reply_gpa = self.memory.alloc(reply, 64)
            self.taken.append(slot.reply_gpa)
            slot.reply = <uint8_t *><uintptr_t>self.memory.host(slot.reply_gpa, reply)
            slot.pages = <uint8_t **>calloc(count + 1, sizeof(uint8_t *))
            slot.pages_gpa = <uint64_t *>calloc(count + 1, sizeof(uint64_t))
            if not (slot.pages and slot.pages_gpa):
                raise MemoryError
            for j, page in enumerate(self.memory.alloc_pages(count, True)):
                self.taken.append(page)
                slot.pages_gpa[j] = page
                slot.pages[j] = <uint8_t *><uintptr_t>self.memory.host(page, PAGE)

    def run(self, *, count=0, seconds=0.0, timeout=10.0, cpu=None):
        """Runs `count` operations, `seconds`, or whichever ends first; returns a Result. Releases the GIL.

        A reply that does not come in `timeout` ends the run, `stalled`; the queue is then not fit for further use.
        `cpu` is where the calling thread runs meanwhile: wake-ups within a CPU and across cost very different times.
        """
        return run_in_one_thread([self], counts=[count], seconds=seconds, timeout=timeout, cpu=cpu)[0]

    cdef _begin(self, uint64_t limit, double timeout, slot_t **heads):
        cdef load_t *load = &self.load
        cdef uint64_t pending = 0
        load.by_head = heads
        load.follower = NULL
        load.linger = 0
        load.limit = limit
        load.timeout = <uint64_t>(timeout * 1e9)
        load.promised = load.done = load.data_bytes = load.num_samples = 0
        load.wrong_header = load.wrong_length = load.wrong_error = load.wrong_data = 0
        load.stride = load.until_sample = 1
        if load.ring.call_fd >= 0:      # calls for what was before do not count
            read(load.ring.call_fd, &pending, sizeof(pending))
        self.counted = load.ring.kicks_written, load.ring.kicks_saved, load.ring.calls_received, load.ring.wake_ups

    cdef _result(self, uint64_t nanoseconds, uint64_t used_cpu):
        cdef load_t *load = &self.load
        cdef uint64_t pending = 0
        if load.ring.call_fd >= 0 and read(load.ring.call_fd, &pending, sizeof(pending)) > 0:
            load.ring.calls_received += pending
        kicks, saved, calls, wake_ups = self.counted
        latencies = array("I")
        latencies.frombytes((<char *>load.samples)[:load.num_samples * sizeof(uint32_t)])
        return operations.Result(
            operations=load.done, seconds=nanoseconds / 1e9, cpu_seconds=used_cpu / 1e9,
            wrong_header=load.wrong_header, wrong_length=load.wrong_length, wrong_error=load.wrong_error,
            wrong_data=load.wrong_data, data_bytes=load.data_bytes, kicks=load.ring.kicks_written - kicks,
            kicks_saved=load.ring.kicks_saved - saved, calls=load.ring.calls_received - calls,
            wake_ups=load.ring.wake_ups - wake_ups, stalled=bool(load.stalled), ring_error=load.ring_error,
            sampled=load.stride, latencies=latencies)

    def stop(self):
        """Ends a run from another thread, after what is in flight."""
        store_relaxed32(&self.load.stop, 1)

    def close(self):
        """Gives the guest memory back."""
        if self.running:
            raise RuntimeError("the generator is running")
        while self.taken:
            self.memory.free(self.taken.pop())
        self.load.limit = 0
        self.load.ring_error = -1


def run_in_one_thread(generators, *, counts=None, double seconds=0.0, linger=None, double timeout=10.0, cpu=None):
    """Runs several generators in the calling thread, from one moment; their Results in order. Releases the GIL.

    They share a queue, or spin. `counts` has one for each, 0 for no limit. With `linger` the first generator stops
    that many seconds after the second has nothing left to do: it shows how others fare beside something slow.
    """
    cdef Generator generator
    cdef uint32_t count = <uint32_t>len(generators), i
    cdef load_t **loads
    cdef uint64_t begun, ended, used_cpu
    cdef int error
    limits = [0] * count if counts is None else list(counts)
    first_of = {}       # of each queue
    for i, generator in enumerate(generators):
        if limits[i] <= 0 and seconds <= 0 and (i or linger is None):
            raise ValueError("a run needs a count or a time")
        if generator.running:
            raise RuntimeError("the generator is running")
        if generator.load.stalled or generator.load.ring_error or generator.queue.in_flight:
            raise RuntimeError("the queue has requests in flight")
        first_of.setdefault(generator.queue, generator)
    if len(first_of) > 1 and any((<Generator>each).load.sleeping for each in generators):
        raise ValueError("generators of several queues in one thread cannot sleep")
    if linger is not None and count != 2:
        raise ValueError("one generator lingers after one other")
    affinity = os.sched_getaffinity(0)
    loads = <load_t **>calloc(count, sizeof(load_t *))
    if not loads:
        raise MemoryError
    try:
        for i, generator in enumerate(generators):
            generator.running = True
            loads[i] = &generator.load
            generator._begin(limits[i] if limits[i] > 0 else ~<uint64_t>0, timeout,
                             (<Generator>first_of[generator.queue]).load.heads)
        if linger is not None:
            loads[1].follower = loads[0]
            loads[1].linger = <uint64_t>(linger * 1e9)
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        with nogil:
            used_cpu = clock_now(CLOCK_THREAD_CPUTIME_ID)
            begun = now()
            for i in range(count):
                loads[i].deadline = begun + <uint64_t>(seconds * 1e9) if seconds > 0 else ~<uint64_t>0
            error = run(loads, count)
            ended = now()
            used_cpu = clock_now(CLOCK_THREAD_CPUTIME_ID) - used_cpu
        for i in range(count):
            loads[i].ring_error = error
            loads[i].stalled = loads[i].in_flight > 0
        return [(<Generator>each)._result(ended - begun, used_cpu) for each in generators]
    finally:
        os.sched_setaffinity(0, affinity)
        for generator in generators:
            generator.running = False
            store_relaxed32(&generator.load.stop, 0)
        free(loads)


def run_together(generators, *, cpus=None, **how):
    """Runs several generators, each in a thread of its own, from one moment; their Results in order.

    `cpus` has one for each generator.
    """
    results = [None] * len(generators)
    barrier = threading.Barrier(len(generators))

    def work(index):
        barrier.wait(10)
        try:
            results[index] = generators[index].run(cpu=cpus[index] if cpus else None, **how)
        except BaseException as error:
            results[index] = error

    threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(len(generators))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
