"""Reads that sleep, by a pool of threads as the daemon's and by io_uring: what the hand-over itself costs.

A thread keeps some reads in flight, as a worker does for its guest. Either each goes to a list from which pool threads
take it (_ring/pool.pyx), and what is done is signalled by a futex; or all go into an io_uring's submission queue, and
the same thread waits for completions and signals an eventfd once for those that it finds.
"""

import errno
import os

from libc.errno cimport errno as c_errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, clock_gettime, timespec

cdef extern from "<time.h>" nogil:   # where the names of posix.time are; not each Python.h includes it
    pass

cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    int pthread_create(pthread_t *thread, void *attributes, void *(*main)(void *) noexcept nogil, void *argument)
    int pthread_join(pthread_t thread, void **result)

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)
    ssize_t pread(int fd, void *buffer, size_t size, int64_t offset)
    ssize_t write(int fd, const void *data, size_t size)
    int close(int fd)

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int value, int flags)

cdef extern from "<sys/mman.h>" nogil:
    enum:
        PROT_READ
        PROT_WRITE
        MAP_SHARED
        MAP_POPULATE
    void *MAP_FAILED
    void *mmap(void *address, size_t size, int protection, int flags, int fd, int64_t offset)
    int munmap(void *address, size_t size)

cdef extern from "<sys/syscall.h>" nogil:
    long SYS_futex
    long SYS_io_uring_setup
    long SYS_io_uring_enter

cdef extern from "<linux/futex.h>" nogil:
    enum:
        FUTEX_WAIT_PRIVATE
        FUTEX_WAKE_PRIVATE

cdef extern from "<linux/io_uring.h>" nogil:
    enum:
        IORING_OP_READ
        IORING_ENTER_GETEVENTS
        IORING_OFF_SQ_RING
        IORING_OFF_CQ_RING
        IORING_OFF_SQES
    struct io_sqring_offsets:
        uint32_t head, tail, ring_mask, array
    struct io_cqring_offsets:
        uint32_t head, tail, ring_mask, cqes
    struct io_uring_params:
        uint32_t sq_entries, cq_entries
        io_sqring_offsets sq_off
        io_cqring_offsets cq_off
    struct io_uring_sqe:
        uint8_t opcode
        int fd
        uint64_t off, addr
        uint32_t len
        uint64_t user_data
    struct io_uring_cqe:
        uint64_t user_data
        int res

cdef extern from "atomics.h" nogil:
    uint32_t load_acquire32(const uint32_t *p)
    void store_release32(uint32_t *p, uint32_t value)
    uint32_t exchange32(uint32_t *p, uint32_t value)
    uint32_t fetch_add32(uint32_t *p, uint32_t value)
    int compare_exchange32(uint32_t *p, uint32_t *expected, uint32_t value)
    void cpu_relax()

cdef enum:
    DEPTH_MAX = 64
    THREADS_MAX = 64
    PAGE = 4096
    ALL = 0x7fffffff


cdef struct Reads:
    int fd
    uint32_t size
    uint32_t depth
    uint64_t places          # of the file, of `size` bytes each
    uint64_t state           # of the random numbers
    uint8_t *buffers[DEPTH_MAX]
    uint64_t at[DEPTH_MAX]
    uint64_t done
    int error
    # The pool.
    uint32_t lock
    uint32_t sequence        # a futex: changes when something is handed over and somebody is idle
    uint32_t idle
    uint32_t stopping
    uint32_t waiting[DEPTH_MAX]    # slots that are handed over, as a ring
    uint32_t first, last
    uint32_t free[DEPTH_MAX]       # slots that are done
    uint32_t free_count            # a futex too
    int failed


cdef int64_t now_ns(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return now.tv_sec * <int64_t> 1000000000 + now.tv_nsec


cdef uint64_t place(Reads *reads) noexcept nogil:
    reads.state = reads.state * 6364136223846793005U + 1442695040888963407U
    return (reads.state >> 33) % reads.places * reads.size


cdef void lock(uint32_t *word) noexcept nogil:
    cdef uint32_t expected = 0
    while not compare_exchange32(word, &expected, 1):
        expected = 0
        cpu_relax()


cdef void *pool_main(void *argument) noexcept nogil:
    cdef Reads *reads = <Reads *> argument
    cdef uint32_t slot, sequence
    while True:
        lock(&reads.lock)
        while reads.first == reads.last and not reads.stopping:
            sequence = reads.sequence
            reads.idle += 1
            store_release32(&reads.lock, 0)
            syscall(SYS_futex, &reads.sequence, FUTEX_WAIT_PRIVATE, sequence, NULL)
            lock(&reads.lock)
            reads.idle -= 1
        if reads.first == reads.last:
            store_release32(&reads.lock, 0)
            return NULL
        slot = reads.waiting[reads.first % DEPTH_MAX]
        reads.first += 1
        store_release32(&reads.lock, 0)
        if pread(reads.fd, reads.buffers[slot], reads.size, reads.at[slot]) != <ssize_t> reads.size:
            store_release32(<uint32_t *> &reads.failed, 1)
        lock(&reads.lock)
        reads.free[reads.free_count] = slot
        store_release32(&reads.free_count, reads.free_count + 1)
        store_release32(&reads.lock, 0)
        syscall(SYS_futex, &reads.free_count, FUTEX_WAKE_PRIVATE, 1)


cdef void run_pool(Reads *reads, int64_t until) noexcept nogil:
    cdef uint32_t slots[DEPTH_MAX]
    cdef uint32_t count, i
    cdef bint wake
    for i in range(reads.depth):
        reads.free[i] = i
    reads.free_count = reads.depth
    while True:
        if load_acquire32(&reads.free_count) == 0:
            syscall(SYS_futex, &reads.free_count, FUTEX_WAIT_PRIVATE, 0, NULL)
            continue
        lock(&reads.lock)
        count = reads.free_count
        for i in range(count):
            slots[i] = reads.free[i]
        store_release32(&reads.free_count, 0)
        store_release32(&reads.lock, 0)
        reads.done += count
        if now_ns(CLOCK_MONOTONIC) >= until:
            break
        for i in range(count):
            reads.at[slots[i]] = place(reads)
            lock(&reads.lock)
            reads.waiting[reads.last % DEPTH_MAX] = slots[i]
            reads.last += 1
            wake = reads.idle > 0
            reads.sequence += wake
            store_release32(&reads.lock, 0)
            if wake:
                syscall(SYS_futex, &reads.sequence, FUTEX_WAKE_PRIVATE, 1)
    reads.done -= reads.depth
    lock(&reads.lock)
    reads.stopping = 1
    reads.sequence += 1
    store_release32(&reads.lock, 0)
    syscall(SYS_futex, &reads.sequence, FUTEX_WAKE_PRIVATE, ALL)


cdef void run_uring(Reads *reads, int ring, io_uring_params *params, uint8_t *sq, uint8_t *cq, io_uring_sqe *sqes,
                    int call_fd, int64_t until) noexcept nogil:
    cdef uint32_t *sq_tail = <uint32_t *> (sq + params.sq_off.tail)
    cdef uint32_t *sq_array = <uint32_t *> (sq + params.sq_off.array)
    cdef uint32_t sq_mask = (<uint32_t *> (sq + params.sq_off.ring_mask))[0]
    cdef uint32_t *cq_head = <uint32_t *> (cq + params.cq_off.head)
    cdef uint32_t *cq_tail = <uint32_t *> (cq + params.cq_off.tail)
    cdef uint32_t cq_mask = (<uint32_t *> (cq + params.cq_off.ring_mask))[0]
    cdef io_uring_cqe *cqes = <io_uring_cqe *> (cq + params.cq_off.cqes)
    cdef uint32_t slots[DEPTH_MAX]
    cdef uint32_t count = reads.depth
    cdef uint32_t in_flight = 0
    cdef uint32_t i, at, head
    cdef uint64_t one = 1
    cdef bint ending = False
    for i in range(count):
        slots[i] = i
    while True:
        at = sq_tail[0]
        for i in range(count):
            memset(&sqes[at & sq_mask], 0, sizeof(io_uring_sqe))
            sqes[at & sq_mask].opcode = IORING_OP_READ
            sqes[at & sq_mask].fd = reads.fd
            sqes[at & sq_mask].addr = <uint64_t> reads.buffers[slots[i]]
            sqes[at & sq_mask].len = reads.size
            sqes[at & sq_mask].off = place(reads)
            sqes[at & sq_mask].user_data = slots[i]
            sq_array[at & sq_mask] = at & sq_mask
            at += 1
        store_release32(sq_tail, at)
        in_flight += count
        if syscall(SYS_io_uring_enter, ring, count, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0:
            reads.error = c_errno
            return
        count = 0
        head = cq_head[0]
        while head != load_acquire32(cq_tail):
            if cqes[head & cq_mask].res != <int> reads.size:
                reads.failed = 1
            slots[count] = <uint32_t> cqes[head & cq_mask].user_data
            count += 1
            head += 1
        store_release32(cq_head, head)
        in_flight -= count
        reads.done += count
        write(call_fd, &one, sizeof(one))
        if now_ns(CLOCK_MONOTONIC) >= until:
            ending = True
        if ending:
            if in_flight == 0:
                return
            count = 0


cdef class Reader:
    """Random reads of `size` bytes of the file, `depth` at a time (at most 64)."""

    cdef Reads reads
    cdef int threads

    def __cinit__(self, int fd, int size, int depth, int threads):
        cdef int i
        if not 1 <= depth <= DEPTH_MAX or not 1 <= threads <= THREADS_MAX:
            raise ValueError(f"depth {depth}, {threads} threads")
        self.reads.fd, self.reads.size, self.reads.depth, self.threads = fd, size, depth, threads
        self.reads.places = os.fstat(fd).st_size // size
        for i in range(depth):
            self.reads.buffers[i] = <uint8_t *> aligned_alloc(PAGE, size)
            if self.reads.buffers[i] == NULL:
                raise MemoryError
            memset(self.reads.buffers[i], 1, size)

    def __dealloc__(self):
        cdef int i
        for i in range(DEPTH_MAX):
            free(self.reads.buffers[i])

    cdef void begin(self, int seed):
        self.reads.state = seed
        self.reads.done = 0
        self.reads.failed = self.reads.error = 0
        self.reads.first = self.reads.last = self.reads.idle = self.reads.stopping = 0

    def _result(self, int64_t wall, int64_t cpu) -> tuple[float, float]:
        if self.reads.error or self.reads.failed:
            raise OSError(self.reads.error or errno.EIO, "a read came back short")
        return self.reads.done / (wall / 1e9), cpu / 1e3 / (self.reads.done or 1)

    def pool(self, double seconds, int seed=1) -> tuple[float, float]:
        """Reads a second, and microseconds of CPU for each."""
        cdef pthread_t threads[THREADS_MAX]
        cdef int64_t wall, cpu
        cdef int i
        self.begin(seed)
        for i in range(self.threads):
            if pthread_create(&threads[i], NULL, pool_main, &self.reads):
                raise OSError(errno.EAGAIN, "cannot start a thread")
        with nogil:
            wall, cpu = now_ns(CLOCK_MONOTONIC), now_ns(CLOCK_PROCESS_CPUTIME_ID)
            run_pool(&self.reads, wall + <int64_t> (seconds * 1e9))
            for i in range(self.threads):
                pthread_join(threads[i], NULL)
            wall, cpu = now_ns(CLOCK_MONOTONIC) - wall, now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu
        return self._result(wall, cpu)

    def io_uring(self, double seconds, int seed=1) -> tuple[float, float]:
        """The same by one thread with an io_uring. OSError where the kernel gives none."""
        cdef io_uring_params params
        cdef int64_t wall, cpu
        cdef void *sq
        cdef void *cq
        cdef void *sqes
        cdef size_t sq_size, cq_size
        cdef int call_fd
        self.begin(seed)
        memset(&params, 0, sizeof(params))
        cdef int ring = <int> syscall(SYS_io_uring_setup, DEPTH_MAX, &params)
        if ring < 0:
            raise OSError(c_errno, os.strerror(c_errno))
        call_fd = eventfd(0, 0)
        sq_size = params.sq_off.array + params.sq_entries * sizeof(uint32_t)
        cq_size = params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe)
        sq = mmap(NULL, sq_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING)
        cq = mmap(NULL, cq_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_CQ_RING)
        sqes = mmap(NULL, DEPTH_MAX * sizeof(io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring,
                    IORING_OFF_SQES)
        try:
            if sq == MAP_FAILED or cq == MAP_FAILED or sqes == MAP_FAILED or call_fd < 0:
                raise OSError(errno.ENOMEM, "cannot map an io_uring")
            with nogil:
                wall, cpu = now_ns(CLOCK_MONOTONIC), now_ns(CLOCK_PROCESS_CPUTIME_ID)
                run_uring(&self.reads, ring, &params, <uint8_t *> sq, <uint8_t *> cq, <io_uring_sqe *> sqes, call_fd,
                          wall + <int64_t> (seconds * 1e9))
                wall, cpu = now_ns(CLOCK_MONOTONIC) - wall, now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu
            return self._result(wall, cpu)
        finally:
            munmap(sq, sq_size)
            munmap(cq, cq_size)
            munmap(sqes, DEPTH_MAX * sizeof(io_uring_sqe))
            close(call_fd)
            close(ring)
