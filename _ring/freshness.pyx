"""Whether the guest may keep its page cache of a file over an open (FOPEN_KEEP_CACHE; "Freshness" in ARCHITECTURE.md).

The record is a digest of size, mtime and ctime, taken just before the answer to an open that drops the cache; so what
the guest fills its cache with afterwards is at least as new as the record. Nothing else moves it: neither GETATTR nor
LOOKUP, and not the guest's own writes, since another writer may have come between two of them.
"""

from libc.stdint cimport int64_t, uint64_t

from .atomics cimport load_relaxed64, store_relaxed64
from .inode_table cimport Inode
from .linux cimport (
    AT_EMPTY_PATH, STATX_CTIME, STATX_INO, STATX_MTIME, STATX_SIZE, clock_realtime_ns, linux_statx,
    linux_statx_time, mix64, sys_statx)

cdef enum:
    STAMPS = STATX_SIZE | STATX_MTIME | STATX_CTIME

cdef int64_t SECOND = 1000000000
# Within one tick of the file system's clock a second change leaves the same time. Kernels tick each 10 ms at least;
# some file systems store whole seconds, or two.
cdef int64_t TICK = 20000000
cdef int64_t COARSE_TICK = 2 * 1000000000


cdef inline int64_t nanoseconds(const linux_statx_time *time) noexcept nogil:
    return time.tv_sec * SECOND + time.tv_nsec


cdef int64_t settles_in(const linux_statx_time *time, bint fine) noexcept nogil:
    """How many nanoseconds it takes until what happens has a later time than this; 0 or less: all that happens now.

    `fine`: the file system is known to store more than seconds.
    """
    return nanoseconds(time) + (TICK if fine and time.tv_nsec else COARSE_TICK) - clock_realtime_ns()


cdef uint64_t digest_of(const linux_statx *stat) noexcept nogil:
    """Size and times as one number; 0 where another change could hide behind the last one."""
    cdef int64_t changed = nanoseconds(&stat.stx_ctime)
    cdef int64_t tick = TICK if stat.stx_ctime.tv_nsec or stat.stx_mtime.tv_nsec else COARSE_TICK
    if nanoseconds(&stat.stx_mtime) > changed:
        changed = nanoseconds(&stat.stx_mtime)
    if changed + tick > clock_realtime_ns():
        return 0
    return mix64(stat.stx_size ^ mix64(<uint64_t> nanoseconds(&stat.stx_mtime)
                                       ^ mix64(<uint64_t> nanoseconds(&stat.stx_ctime)))) | 1


cdef bint still_fresh(Inode *inode, int fd) noexcept nogil:
    """Whether the file has not changed since the record was taken. Where it has, or may have, a new one is taken."""
    cdef linux_statx stat
    cdef uint64_t digest = 0
    if sys_statx(fd, "", AT_EMPTY_PATH, STAMPS, &stat) == 0:
        digest = digest_of(&stat)
    if digest and load_relaxed64(&inode.freshness) == digest:
        return True
    store_relaxed64(&inode.freshness, digest)
    return False


cdef bint unchanged(const Inode *inode, int fd) noexcept nogil:
    """Whether the descriptor is of the inode's file, which has not changed since the record was taken. It stays."""
    cdef linux_statx stat
    cdef uint64_t digest = load_relaxed64(&inode.freshness)
    return (digest != 0 and sys_statx(fd, "", AT_EMPTY_PATH, STAMPS | STATX_INO, &stat) == 0
            and stat.stx_ino == inode.ino and digest_of(&stat) == digest)
