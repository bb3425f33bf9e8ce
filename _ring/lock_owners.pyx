"""The table of lock owners, and the list of requests that wait for a lock, by which they are cancelled."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from .atomics cimport fetch_add32, fetch_sub32, load_acquire32, load_relaxed32, store_release32
from .descriptors cimport descriptors_close
from .linux cimport (
    EDEADLK, EINTR, ENOLCK, F_OFD_SETLK, F_UNLCK, calloc, clock_ns, flock, free, memset, mix64, sys_close,
    sys_fcntl_lock, sys_interrupt)
from .lock_ranges cimport LockRange, ranges_adds, ranges_change, ranges_conflict, ranges_free, ranges_spare
from .mutex cimport lock, unlock


cdef enum:
    # What a search for a deadlock looks at, while the table is locked:
    SEARCH_WAITS = 64
    SEARCH_OWNERS = 16384
    SEARCH_RIVALS = 256     # owners in the way, for each of which it goes through all waits
    SIGNAL_AGAIN = 5000000  # ns after which a thread that has been signalled must have lost it


cdef inline LockOwner **bucket_of(LockTable *table, uint64_t nodeid) noexcept nogil:
    """Where all the owners of an inode's locks are."""
    return &table.owners[mix64(nodeid) & (OWNER_BUCKETS - 1)]


cdef LockOwner *find_locked(LockTable *table, uint64_t nodeid, uint64_t owner) noexcept nogil:
    cdef LockOwner *found = bucket_of(table, nodeid)[0]
    while found != NULL and (found.nodeid != nodeid or found.owner != owner):
        found = found.next
    return found


cdef LockOwner *owner_find(LockTable *table, uint64_t nodeid, uint64_t owner) noexcept nogil:
    """Pins the record of the owner's locks on the inode. NULL: it has had none."""
    cdef LockOwner *found
    lock(&table.lock)
    found = find_locked(table, nodeid, owner)
    if found != NULL:
        found.pins += 1
    unlock(&table.lock)
    return found


cdef LockOwner *owner_add(LockTable *table, uint64_t nodeid, uint64_t owner, uint64_t fh, int fd) noexcept nogil:
    """A record with the description `fd`, which is the table's from now on; pinned. One that is there already is taken
    instead. NULL: no memory.
    """
    cdef LockOwner *new = <LockOwner *> calloc(1, sizeof(LockOwner))
    cdef LockOwner *found = NULL
    cdef LockOwner **bucket = bucket_of(table, nodeid)
    lock(&table.lock)
    if new != NULL:
        found = find_locked(table, nodeid, owner)
        if found == NULL:
            found = new
            found.nodeid = nodeid
            found.owner = owner
            found.fh = fh
            found.fd = fd
            found.pins = 1
            found.next = bucket[0]
            bucket[0] = found
            table.owner_count += 1
        found.pins += 1
    unlock(&table.lock)
    if found != new or new == NULL:
        free(new)
        sys_close(fd)
        descriptors_close(table.account)
    return found


cdef void owner_release(LockTable *table, LockOwner *owner) noexcept nogil:
    """Gives a pin back; the last one closes the description, and with it ends its locks."""
    cdef bint last
    lock(&table.lock)
    owner.pins -= 1
    last = owner.pins == 0
    unlock(&table.lock)
    if last:
        sys_close(owner.fd)
        descriptors_close(table.account)
        fetch_sub32(&table.ranges, ranges_free(owner.ranges))
        free(owner)


cdef bint owner_may_lock(LockTable *table, const LockOwner *owner, uint64_t start, uint64_t end,
                         uint32_t kind) noexcept nogil:
    """Whether there is room for what this makes of the ranges of a pinned owner. Each takes memory here and in the
    host's kernel, and a guest may ask for one after the other. Some more are taken by who asks at the same time.
    """
    cdef bint adds
    if load_relaxed32(&table.ranges) < table.ranges_max:
        return True
    lock(&table.lock)
    adds = ranges_adds(owner.ranges, start, end, kind)
    unlock(&table.lock)
    return not adds


cdef void owner_locked(LockTable *table, LockOwner *owner, uint64_t start, uint64_t end, uint32_t kind,
                       uint32_t pid) noexcept nogil:
    """Notes what the host has locked, or unlocked, for a pinned owner: before the guest hears of it, so that nobody can
    wait for what is not known here.
    """
    cdef uint32_t before
    cdef LockRange *spare = ranges_spare(&before)
    lock(&table.lock)
    spare = ranges_change(&owner.ranges, start, end, kind, spare)
    owner.pid = pid
    unlock(&table.lock)
    fetch_add32(&table.ranges, before - ranges_free(spare))


cdef uint32_t owner_in_the_way(LockTable *table, uint64_t nodeid, uint64_t owner, uint64_t start, uint64_t end,
                               uint32_t kind) noexcept nogil:
    """The process of the guest that has locked what is in another owner's way; 0: it is none of this guest's."""
    cdef uint32_t pid = 0
    cdef LockOwner *found
    lock(&table.lock)
    found = bucket_of(table, nodeid)[0]
    while found != NULL and not pid:
        if is_in_the_way(found, nodeid, owner, start, end, kind):
            pid = found.pid
        found = found.next
    unlock(&table.lock)
    return pid


cdef inline bint is_in_the_way(const LockOwner *other, uint64_t nodeid, uint64_t owner, uint64_t start, uint64_t end,
                               uint32_t kind) noexcept nogil:
    return (other.nodeid == nodeid and other.owner != owner
            and ranges_conflict(other.ranges, start, end, kind) != NULL)


cdef LockOwner *unlink(LockTable *table, uint64_t nodeid, uint64_t owner) noexcept nogil:
    cdef LockOwner **link = bucket_of(table, nodeid)
    cdef LockOwner *found
    while link[0] != NULL:
        found = link[0]
        if found.nodeid == nodeid and found.owner == owner:
            link[0] = found.next
            table.owner_count -= 1
            found.dropped = 1
            return found
        link = &found.next
    return NULL


cdef void end_locks(LockTable *table, LockOwner *dropped) noexcept nogil:
    """Gives back the pin of the table, which the owner is not in any more. Its requests that are still on their way
    would keep the description open, and with it what is locked.
    """
    cdef flock everything
    cdef bint stays_open
    lock(&table.lock)
    stays_open = dropped.pins > 1 and dropped.ranges != NULL
    unlock(&table.lock)
    if stays_open:
        memset(&everything, 0, sizeof(flock))
        everything.l_type = F_UNLCK
        sys_fcntl_lock(dropped.fd, F_OFD_SETLK, &everything)
    owner_release(table, dropped)


cdef void owner_drop(LockTable *table, uint64_t nodeid, uint64_t owner) noexcept nogil:
    """All locks of the owner on the inode end, and what waits for one."""
    cdef LockOwner *found
    lock(&table.lock)
    found = unlink(table, nodeid, owner)
    unlock(&table.lock)
    cancel_owner(table, nodeid, owner)
    if found != NULL:
        end_locks(table, found)


cdef void owners_drop_handle(LockTable *table, uint64_t nodeid, uint64_t fh) noexcept nogil:
    """The guest has closed the file for the last time. What is locked by its open file description (F_OFD_SETLK) ends
    with that, without an unlock or a FLUSH of this owner; the locks of processes have ended by their own FLUSH.
    """
    cdef LockOwner **link
    cdef LockOwner *found
    cdef LockOwner *dropped = NULL
    lock(&table.lock)
    link = bucket_of(table, nodeid)
    while link[0] != NULL:
        found = link[0]
        if found.nodeid == nodeid and found.fh == fh:
            link[0] = found.next
            table.owner_count -= 1
            found.dropped = 1
            found.next = dropped
            dropped = found
        else:
            link = &found.next
    unlock(&table.lock)
    while dropped != NULL:
        found = dropped
        dropped = found.next
        cancel_owner(table, nodeid, found.owner)
        end_locks(table, found)


cdef void owners_drop_all(LockTable *table) noexcept nogil:
    """The end of a session. What waits is still to be cancelled."""
    cdef LockOwner *found
    cdef int bucket
    lock(&table.lock)
    memset(table.early, 0, sizeof(table.early))
    unlock(&table.lock)
    for bucket in range(OWNER_BUCKETS):
        while True:
            lock(&table.lock)
            found = table.owners[bucket]
            if found != NULL:
                table.owners[bucket] = found.next
                table.owner_count -= 1
                found.dropped = 1
            unlock(&table.lock)
            if found == NULL:
                break
            owner_release(table, found)


# Waits. A thread that is cancelled just before it goes to sleep would not hear the signal, so whoever cancels sees to
# it that cancel_again is called until nothing that was cancelled is left.

cdef bint add_waits_of(LockTable *table, uint64_t owner, uint64_t of, LockWait **last) noexcept nogil:
    """Whether `owner` is the one that the search for a deadlock is about; else its waits are to be searched, too."""
    cdef LockWait *wait = table.first
    if owner == of:
        return True
    while wait != NULL:
        if wait.owner == owner and not wait.is_flock and not wait.cancelled and wait.searched != table.searches:
            wait.searched = table.searches
            wait.search_next = NULL
            last[0].search_next = wait
            last[0] = wait
        wait = wait.next
    return False


cdef bint would_deadlock(LockTable *table, LockWait *wait) noexcept nogil:
    """Whether those that the wait is for wait themselves, in the end, for its owner. The table is locked.

    As far as the guest's own owners go: who else has a lock, the host does not tell. Where there is too much to look
    at, the wait begins.
    """
    cdef LockWait *at = wait
    cdef LockWait *last = wait
    cdef LockOwner *other
    cdef int waits = 0
    cdef int owners = 0
    cdef int rivals = 0
    table.searches += 1
    wait.searched = table.searches
    wait.search_next = NULL
    while at != NULL and waits < SEARCH_WAITS:
        other = bucket_of(table, at.nodeid)[0]
        while other != NULL:
            owners += 1
            if owners > SEARCH_OWNERS or rivals == SEARCH_RIVALS:
                return False
            if is_in_the_way(other, at.nodeid, at.owner, at.start, at.end, at.kind):
                rivals += 1
                if add_waits_of(table, other.owner, wait.owner, &last):
                    return True
            other = other.next
        at = at.search_next
        waits += 1
    return False


cdef int wait_enter(LockTable *table, LockWait *wait) noexcept nogil:
    """One more wait. 0; -ENOLCK where there are as many as there may be, -EDEADLK where it would never end, -EINTR
    where what would have cancelled it came first.
    """
    cdef int error = 0
    cdef int i
    lock(&table.lock)
    if load_acquire32(wait.over):
        error = -EINTR
    elif table.waits >= table.limit:
        error = -ENOLCK
    elif not wait.is_flock and would_deadlock(table, wait):
        error = -EDEADLK
    if error == 0:
        table.waits += 1
        wait.tid = 0
        wait.cancelled = 0
        wait.signalled_at = 0
        wait.previous = NULL
        wait.next = table.first
        if wait.next != NULL:
            wait.next.previous = wait
        table.first = wait
        for i in range(EARLY):
            if wait.unique and table.early[i] == wait.unique:
                cancel(table, wait, 0)
    unlock(&table.lock)
    return error


cdef bint wait_begins(LockTable *table, LockWait *wait, uint32_t tid) noexcept nogil:
    """The thread is about to sleep. False: it was cancelled already."""
    cdef bint go
    lock(&table.lock)
    wait.tid = tid
    go = not wait.cancelled
    unlock(&table.lock)
    return go


cdef void wait_leave(LockTable *table, LockWait *wait) noexcept nogil:
    # It may have to wait for those that cancel, and is not to be signalled any more.
    store_release32(&wait.tid, 0)
    lock(&table.lock)
    if wait.previous != NULL:
        wait.previous.next = wait.next
    else:
        table.first = wait.next
    if wait.next != NULL:
        wait.next.previous = wait.previous
    table.waits -= 1
    if wait.cancelled:
        table.cancelling -= 1
    unlock(&table.lock)


cdef void cancel(LockTable *table, LockWait *wait, int64_t now) noexcept nogil:
    # The table is locked, so that the thread is there while it is signalled. Each signal would be delivered: with very
    # many waits, those who cancel them again would keep them from ending.
    cdef uint32_t tid = load_relaxed32(&wait.tid)
    if not wait.cancelled:
        wait.cancelled = 1
        table.cancelling += 1
    if tid and now - wait.signalled_at >= SIGNAL_AGAIN:
        wait.signalled_at = now
        sys_interrupt(<int> tid)


cdef void cancel_request(LockTable *table, uint64_t unique) noexcept nogil:
    """FUSE_INTERRUPT. It may come before the request waits, or even before it has been looked at."""
    cdef LockWait *wait
    lock(&table.lock)
    wait = table.first
    while wait != NULL and wait.unique != unique:
        wait = wait.next
    if wait != NULL:
        cancel(table, wait, clock_ns())
    else:
        table.early[table.next_early % EARLY] = unique
        table.next_early += 1
    unlock(&table.lock)


cdef enum Those:
    ALL
    CANCELLED       # signalled once more
    OF_OWNER        # a nodeid and the guest's number for who has it open
    OF_HANDLE       # those of flock
    OF_QUEUE


cdef bint is_one(const LockWait *wait, Those those, uint64_t which, uint64_t owner) noexcept nogil:
    if those == CANCELLED:
        return wait.cancelled
    if those == OF_OWNER:
        return not wait.is_flock and wait.nodeid == which and wait.owner == owner
    if those == OF_HANDLE:
        return wait.is_flock and wait.fh == which
    return those == ALL or wait.queue == which


cdef uint32_t cancel_those(LockTable *table, Those those, uint64_t which, uint64_t owner) noexcept nogil:
    """How many there are that were cancelled and have not ended."""
    cdef LockWait *wait
    cdef int64_t now = clock_ns()
    cdef uint32_t left
    lock(&table.lock)
    wait = table.first
    while wait != NULL:
        if is_one(wait, those, which, owner):
            cancel(table, wait, now)
        wait = wait.next
    left = table.cancelling
    unlock(&table.lock)
    return left


cdef void cancel_owner(LockTable *table, uint64_t nodeid, uint64_t owner) noexcept nogil:
    cancel_those(table, OF_OWNER, nodeid, owner)


cdef void cancel_handle(LockTable *table, uint64_t fh) noexcept nogil:
    cancel_those(table, OF_HANDLE, fh, 0)


cdef void cancel_queue(LockTable *table, uint32_t queue) noexcept nogil:
    cancel_those(table, OF_QUEUE, queue, 0)


cdef void cancel_all(LockTable *table) noexcept nogil:
    cancel_those(table, ALL, 0, 0)


cdef uint32_t cancel_again(LockTable *table) noexcept nogil:
    """Signals every thread whose wait was cancelled a while ago once more. How many there are."""
    return cancel_those(table, CANCELLED, 0, 0)
