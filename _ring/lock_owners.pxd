# Locks that reach the host: who holds them by which open file description, and which requests wait for one.
#
# POSIX locks have a description for each inode and owner, taken with F_OFD_SETLK; flock uses the handle's own.

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from .descriptors cimport Descriptors
from .linux cimport flock, pthread_t
from .lock_ranges cimport LockRange

cdef enum:
    OWNER_BUCKETS = 1024
    EARLY = 256


cdef struct LockOwner:
    LockOwner *next
    uint64_t nodeid
    uint64_t owner
    uint64_t fh          # the guest's open file that its first lock was asked for through
    LockRange *ranges    # what it has locked
    uint32_t pid         # the process in the guest that has locked last
    int32_t fd
    uint32_t pins        # one while it is in the table, one for each request that uses it
    uint32_t dropped     # it is in the table no more


# A request whose lock is not free. It sleeps in a thread of its own; it has no guest memory meanwhile.
cdef struct LockWait:
    LockWait *next
    LockWait *previous
    uint64_t unique
    uint64_t nodeid
    uint64_t owner
    uint64_t fh          # of a flock
    uint32_t is_flock
    const uint32_t *over  # a word of what it hangs on, a LockOwner or a Handle: not 0 once that has ended
    uint32_t queue
    int32_t fd
    uint32_t tid         # 0: the thread has not come to it yet, or is through with it
    uint32_t cancelled
    int64_t signalled_at
    uint32_t searched    # the search for a deadlock that was here last
    LockWait *search_next
    uint64_t start       # of a POSIX lock
    uint64_t end         # the last byte
    uint32_t kind
    uint32_t pid
    int32_t operation    # of flock(2)
    flock lock


cdef struct LockTable:
    uint32_t lock
    uint32_t limit       # waits
    uint32_t waits
    uint32_t cancelling  # waits that were cancelled and have not ended
    LockWait *first
    LockOwner *owners[OWNER_BUCKETS]
    uint32_t owner_count
    uint32_t ranges      # that all the owners have locked
    uint32_t ranges_max
    uint32_t searches
    uint32_t next_early
    uint64_t early[EARLY]   # interrupts of the session that found nothing that waits: they may have overtaken it
    Descriptors *account


cdef LockOwner *owner_find(LockTable *table, uint64_t nodeid, uint64_t owner) noexcept nogil
cdef LockOwner *owner_add(LockTable *table, uint64_t nodeid, uint64_t owner, uint64_t fh, int fd) noexcept nogil
cdef bint owner_may_lock(LockTable *table, const LockOwner *owner, uint64_t start, uint64_t end,
                         uint32_t kind) noexcept nogil
cdef void owner_locked(LockTable *table, LockOwner *owner, uint64_t start, uint64_t end, uint32_t kind,
                       uint32_t pid) noexcept nogil
cdef uint32_t owner_in_the_way(LockTable *table, uint64_t nodeid, uint64_t owner, uint64_t start, uint64_t end,
                               uint32_t kind) noexcept nogil
cdef void owner_release(LockTable *table, LockOwner *owner) noexcept nogil
cdef void owner_drop(LockTable *table, uint64_t nodeid, uint64_t owner) noexcept nogil
cdef void owners_drop_handle(LockTable *table, uint64_t nodeid, uint64_t fh) noexcept nogil
cdef void owners_drop_all(LockTable *table) noexcept nogil
cdef int wait_enter(LockTable *table, LockWait *wait) noexcept nogil
cdef bint wait_begins(LockTable *table, LockWait *wait, uint32_t tid) noexcept nogil
cdef void wait_leave(LockTable *table, LockWait *wait) noexcept nogil
cdef void cancel_request(LockTable *table, uint64_t unique) noexcept nogil
cdef void cancel_owner(LockTable *table, uint64_t nodeid, uint64_t owner) noexcept nogil
cdef void cancel_handle(LockTable *table, uint64_t fh) noexcept nogil
cdef void cancel_queue(LockTable *table, uint32_t queue) noexcept nogil
cdef void cancel_all(LockTable *table) noexcept nogil
cdef uint32_t cancel_again(LockTable *table) noexcept nogil
