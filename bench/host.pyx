"""What the host itself does: a program of system calls on the bare directory, by one thread without Python.

Data goes to and from scattered pages of shared memory like a guest's, so that only the daemon's own work is missing.
"""

import os
from array import array

from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from posix.time cimport CLOCK_MONOTONIC, CLOCK_THREAD_CPUTIME_ID, clock_gettime, timespec

from frontend import operations

cdef extern from "<time.h>" nogil:   # where the names of posix.time are; not each Python.h includes it
    pass

cdef extern from "<fcntl.h>" nogil:
    enum:
        AT_EMPTY_PATH
        AT_SYMLINK_NOFOLLOW
        O_CLOEXEC
    int openat(int fd, const char *name, int flags, ...)
    int unlinkat(int fd, const char *name, int flags)

cdef extern from "<sys/stat.h>" nogil:
    struct statx_t "statx":
        pass
    enum:
        STATX_BASIC_STATS
    int statx(int fd, const char *name, int flags, unsigned int mask, statx_t *found)
    int mkdirat(int fd, const char *name, int mode)
    int fchmodat(int fd, const char *name, int mode, int flags)
    int futimens(int fd, const timespec *times)

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t preadv(int fd, const iovec *pieces, int count, int64_t offset)
    ssize_t pwritev(int fd, const iovec *pieces, int count, int64_t offset)

cdef extern from "<dirent.h>" nogil:
    struct dirent64:
        unsigned short d_reclen
        char d_name[256]
    ssize_t getdents64(int fd, void *buffer, size_t size)

cdef extern from "<unistd.h>" nogil:
    int close(int fd)
    int syncfs(int fd)
    ssize_t pwrite(int fd, const void *data, size_t size, int64_t at)

cdef enum:
    PAGE = 4096
    MAX_PAGES = 256
    LISTING = 32768
    SAMPLES = 1 << 18
    QUICK_NS = 10000        # of cycles shorter than that one in 16 is timed
    SKIPPED = 16

# As in bench/calls.py.
cdef enum Kind:
    STAT
    OPEN
    CLOSE
    READ
    WRITE
    LIST
    LIST_STAT
    MKDIR
    UNLINK
    CHMOD
    TIMES

cdef struct call_t:
    Kind kind
    int fd                  # from 0: that one; -1: the last that OPEN gave
    const char *name
    uint32_t size
    uint64_t offset
    int flags
    int error               # that it must give

cdef struct host_t:
    call_t *calls
    uint64_t count
    uint64_t cycle
    uint64_t position
    iovec *pages            # MAX_PAGES for each buffer
    uint32_t buffers
    uint32_t turn           # whose turn it is
    uint8_t *listing
    int opened
    uint64_t done
    uint64_t wrong
    uint64_t bytes
    uint64_t num_samples
    uint32_t *samples


cdef inline uint64_t clock_now(int clock) noexcept nogil:
    cdef timespec time
    clock_gettime(clock, &time)
    return <uint64_t>time.tv_sec * 1000000000 + <uint64_t>time.tv_nsec


cdef int64_t transfer(host_t *host, const call_t *call, int fd) noexcept nogil:
    """READ or WRITE of `size` bytes in scattered pages; the next one is in the next buffer's."""
    cdef iovec *pages = host.pages + <size_t>host.turn * MAX_PAGES
    cdef int count = <int>((call.size + PAGE - 1) / PAGE)
    cdef size_t last = call.size - <size_t>(count - 1) * PAGE
    cdef ssize_t moved
    host.turn = (host.turn + 1) % host.buffers
    pages[count - 1].iov_len = last
    if call.kind == READ:
        moved = preadv(fd, pages, count, <int64_t>call.offset)
    else:
        moved = pwritev(fd, pages, count, <int64_t>call.offset)
    pages[count - 1].iov_len = PAGE
    if moved >= 0:
        host.bytes += <uint64_t>moved
        return 0 if moved == call.size else -1
    return -1


cdef int64_t listing(host_t *host, const call_t *call, int fd) noexcept nogil:
    """A directory to its end, with the attributes of each entry where asked; -1 where it has not call.size entries."""
    cdef ssize_t got, at
    cdef dirent64 *entry
    cdef statx_t found
    cdef uint32_t entries = 0
    while True:
        got = getdents64(fd, host.listing, LISTING)
        if got <= 0:
            return 0 if got == 0 and entries == call.size else -1
        at = 0
        while at < got:
            entry = <dirent64 *>(host.listing + at)
            at += entry.d_reclen
            if entry.d_name[0] == c'.':
                continue
            entries += 1
            if call.kind == LIST_STAT and statx(fd, entry.d_name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &found) < 0:
                return -1


cdef int64_t perform(host_t *host, const call_t *call) noexcept nogil:
    cdef int fd = call.fd if call.fd >= 0 else host.opened
    cdef statx_t found
    cdef timespec times[2]
    if call.kind == STAT:
        return statx(fd, call.name, call.flags, STATX_BASIC_STATS, &found)
    if call.kind == OPEN:
        host.opened = openat(fd, call.name, call.flags | O_CLOEXEC, 0o644)
        return host.opened
    if call.kind == CLOSE:
        return close(fd)
    if call.kind == READ or call.kind == WRITE:
        return transfer(host, call, fd)
    if call.kind == LIST or call.kind == LIST_STAT:
        return listing(host, call, fd)
    if call.kind == MKDIR:
        return mkdirat(fd, call.name, 0o755)
    if call.kind == UNLINK:
        return unlinkat(fd, call.name, call.flags)
    if call.kind == CHMOD:
        return fchmodat(fd, call.name, call.flags, 0)
    times[0].tv_sec = times[1].tv_sec = <int64_t>call.offset
    times[0].tv_nsec = times[1].tv_nsec = 0
    return futimens(fd, times)


cdef void run_cycle(host_t *host) noexcept nogil:
    cdef const call_t *call = host.calls + host.position
    cdef int64_t result
    cdef uint64_t _i
    for _i in range(host.cycle):
        result = perform(host, call)
        if call.error != (errno if result < 0 else 0):
            host.wrong += 1
        call += 1
    host.done += host.cycle
    host.position += host.cycle
    if host.position == host.count:
        host.position = 0


cdef void run(host_t *host, uint64_t limit, uint64_t deadline) noexcept nogil:
    cdef uint64_t begun = clock_now(CLOCK_MONOTONIC), ended, skip = 0
    while host.done < limit:
        run_cycle(host)
        if skip:
            skip -= 1
            if skip == 0:
                begun = clock_now(CLOCK_MONOTONIC)
            continue
        ended = clock_now(CLOCK_MONOTONIC)
        if host.num_samples < SAMPLES:
            host.samples[host.num_samples] = <uint32_t>min(ended - begun, <uint64_t>0xffffffff)
            host.num_samples += 1
        if ended >= deadline:
            break
        skip = SKIPPED if ended - begun < QUICK_NS else 0
        begun = ended


cdef class HostLoop:
    """Runs a program of calls (bench/calls.py) in cycles of `cycle`, as a Generator runs its operations.

    Data goes to and from `buffers` of 1 MiB in turn: as many as a guest has requests in flight, since fewer would stay
    in the CPU's cache.
    """

    cdef host_t host
    cdef object memory
    cdef list names

    def __init__(self, calls, memory, *, int cycle=1, uint32_t buffers=1):
        cdef uint32_t i
        cdef call_t *call
        if not calls or cycle < 1 or len(calls) % cycle:
            raise ValueError(f"{len(calls)} calls are no whole number of cycles of {cycle}")
        self.memory, self.names = memory, []
        self.host.count, self.host.cycle = len(calls), cycle
        self.host.calls = <call_t *>calloc(len(calls), sizeof(call_t))
        self.host.listing = <uint8_t *>calloc(1, LISTING)
        self.host.samples = <uint32_t *>calloc(SAMPLES, sizeof(uint32_t))
        self.host.buffers = buffers
        self.host.pages = <iovec *>calloc(<size_t>buffers * MAX_PAGES, sizeof(iovec))
        if not (self.host.calls and self.host.listing and self.host.samples and self.host.pages):
            raise MemoryError
        for i, page in enumerate(memory.alloc_pages(buffers * MAX_PAGES, True)):
            self.host.pages[i].iov_base = <void *><uintptr_t>memory.host(page, PAGE)
            self.host.pages[i].iov_len = PAGE
        call = self.host.calls
        for source in calls:
            if source.size > MAX_PAGES * PAGE:
                raise ValueError(f"a call moves at most {MAX_PAGES * PAGE} bytes")
            name = os.fsencode(source.name)
            self.names.append(name)
            call.kind, call.fd, call.name = source.kind, source.fd, <const char *>name
            call.size, call.offset, call.flags, call.error = source.size, source.offset, source.flags, source.error
            call += 1

    def __dealloc__(self):
        free(self.host.calls)
        free(self.host.listing)
        free(self.host.samples)
        free(self.host.pages)

    def run(self, *, int64_t count=0, double seconds=0.0, cpu=None):
        """As Generator.run. Latencies are those of cycles."""
        cdef uint64_t begun, ended, used_cpu, limit, deadline
        if count <= 0 and seconds <= 0:
            raise ValueError("a run needs a count or a time")
        self.host.done = self.host.wrong = self.host.bytes = self.host.num_samples = 0
        affinity = os.sched_getaffinity(0)
        try:
            if cpu is not None:
                os.sched_setaffinity(0, {cpu})
            with nogil:
                used_cpu = clock_now(CLOCK_THREAD_CPUTIME_ID)
                begun = clock_now(CLOCK_MONOTONIC)
                limit = <uint64_t>count if count > 0 else ~<uint64_t>0
                deadline = begun + <uint64_t>(seconds * 1e9) if seconds > 0 else ~<uint64_t>0
                run(&self.host, limit, deadline)
                ended = clock_now(CLOCK_MONOTONIC)
                used_cpu = clock_now(CLOCK_THREAD_CPUTIME_ID) - used_cpu
        finally:
            os.sched_setaffinity(0, affinity)
        latencies = array("I")
        latencies.frombytes((<char *>self.host.samples)[:self.host.num_samples * sizeof(uint32_t)])
        return operations.Result(
            operations=self.host.done, seconds=(ended - begun) / 1e9, cpu_seconds=used_cpu / 1e9, wrong_header=0,
            wrong_length=0, wrong_error=self.host.wrong, wrong_data=0, data_bytes=self.host.bytes, kicks=0,
            kicks_saved=0, calls=0, wake_ups=0, stalled=False, ring_error=0, sampled=1, latencies=latencies)


def write_pattern(int fd, uint64_t at, uint64_t size, bint inverted=False):
    """Writes `size` bytes at `at` of the pattern that the generator expects of a file; `inverted`: of what it never
    writes.
    """
    cdef uint64_t flip = ~<uint64_t>0 if inverted else 0
    cdef uint64_t buffer[PAGE]
    cdef uint64_t end = at + size
    cdef int error = 0, i
    with nogil:
        while at < end and not error:
            for i in range(PAGE):
                buffer[i] = (at + 8 * <uint64_t>i) * <uint64_t>0x9e3779b97f4a7c15 + <uint64_t>0x2545f4914f6cdd1d ^ flip
            if pwrite(fd, buffer, sizeof(buffer), <int64_t>at) != sizeof(buffer):
                error = errno
            at += sizeof(buffer)
    if error:
        raise OSError(error, os.strerror(error))


def sync(int fd):
    """Writes back everything of the file system that the descriptor is on."""
    cdef int result
    with nogil:
        result = syncfs(fd)
    if result < 0:
        raise OSError(errno, os.strerror(errno))
