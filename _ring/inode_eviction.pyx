"""Closing the descriptors that the inode table caches: least recently used first, and never one that nothing could open
again. See "Inodes" in ARCHITECTURE.md.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from .atomics cimport (
    compare_exchange32, compare_exchange64, fetch_add32, fetch_sub32, fetch_sub64, load_acquire32, load_acquire64,
    load_relaxed32, store_release32)
from .descriptors cimport descriptors_close, descriptors_open, descriptors_over_budget
from .freshness cimport settles_in
from .inode_identity cimport IDENTITY, file_handle, mount_how, note_handle
from .inode_lifetime cimport (
    cache_insert, cache_remove, cache_renew, inode_lose, inode_release, inodes_close_pending, pin_parent)
from .inode_places cimport inode_is_at, inode_was_renamed
from .inode_table cimport (
    EVICTING, INODE_BY_CTIME, INODE_KEEP, INODE_REMEMBERED, MOUNT_HANDLES, NONE, PINS, ROOT_SLOT, SHARDS, Inode,
    InodeTable, Mount, Shard, at_slot, is_guests, key_hash, shard_of, store_fd)
from .linux cimport (
    AT_EMPTY_PATH, AT_NO_AUTOMOUNT, ENFILE, OWNER_LOCAL, S_IFREG, clock_ns, linux_file_handle, linux_statx,
    linux_statx_time, sys_close, sys_futex_wait, sys_statx)
from .mutex cimport lock, unlock
from .names cimport NAME_MAX

cdef enum:
    EVICT_TRIES = 64            # records that one search for a victim looks at
    EVICT_MISSES = 2 * SHARDS   # searches without one, until it seems that there is none,
    EVICT_FAILURES = 8192       # or until somebody is told so: tens of milliseconds

# What may become of a cached descriptor.
cdef enum Closable:
    STAYS                       # nothing could find the file again, now at least
    SETTLES                     # it may be closed in a moment
    CLOSES
    GONE                        # the guest has forgotten it, and there is nothing to come back to

cdef int64_t SETTLING_NS = 2500000000
cdef int64_t SETTLING_LOOK_NS = 5000000


cdef void make_room(InodeTable *table) noexcept nogil:
    """Closes what the budget does not allow any more. Where that can be done in a moment only, it waits: whoever asks
    for many new files shall have them slowly rather than not at all.
    """
    cdef uint32_t over = descriptors_over_budget(table.account)
    cdef uint32_t allowed = table.account.reserve / 8 * RESERVE_FOR_NEW
    cdef uint32_t pause = 0
    cdef int looks = 0
    cdef bint settles = False
    # A part of the reserve may be used meanwhile: by what is open, which nothing can be done about.
    while over and evict(table, over if over < EVICT_TRIES else EVICT_TRIES, EVICT_MISSES, &settles) == 0 and \
            settles and over > allowed and looks * SETTLING_LOOK_NS < SETTLING_NS:
        sys_futex_wait(&pause, 0, SETTLING_LOOK_NS)
        settles = False
        looks += 1
        over = descriptors_over_budget(table.account)


cdef bint has_room(InodeTable *table, Reserve most) noexcept nogil:
    """Whether there may be one more descriptor; what has to be closed for it has been. May sleep, as make_room()."""
    cdef uint32_t allowed = table.account.reserve / 8 * most
    cdef uint32_t over = descriptors_over_budget(table.account)
    cdef uint32_t pause = 0
    cdef int64_t until
    cdef bint settles
    if over <= allowed:
        return True
    make_room(table)
    until = clock_ns() + SETTLING_NS
    while True:
        over = descriptors_over_budget(table.account)
        if over <= allowed:
            return True
        if clock_ns() >= until:
            return False
        settles = False
        # What the guest has forgotten counts until it is closed, which another thread may be at.
        if load_acquire32(&table.to_close_count):
            inodes_close_pending(table)
            if not load_acquire32(&table.to_close_count):
                continue
        elif evict(table, over - allowed, EVICT_FAILURES, &settles):
            continue
        elif not settles:
            return False
        sys_futex_wait(&pause, 0, SETTLING_LOOK_NS)


cdef int open_counted(InodeTable *table) noexcept nogil:
    """One more open file, for which there is room. 0, or -ENFILE; descriptors_close() gives it back."""
    cdef int error = descriptors_open(table.account)
    if error == 0 and not has_room(table, RESERVE_FOR_NEW):
        descriptors_close(table.account)
        return -ENFILE
    return error


cdef Closable found_by_name(InodeTable *table, Inode *inode, const linux_statx *stat) noexcept nogil:
    """Whether the inode would be found again by parent and name, and nothing else taken for it. It is EVICTING.

    A file that was born just now could be replaced by one with the same number and birth time, within one tick of the
    file system's clock; so its descriptor is kept until it is older than that.
    """
    cdef const linux_statx_time *born = &stat.stx_ctime if inode.flags & INODE_BY_CTIME else &stat.stx_btime
    cdef char name[NAME_MAX + 1]
    cdef Inode *parent
    cdef Closable how = STAYS
    cdef int64_t left
    if load_relaxed32(&inode.opens):
        return STAYS
    inode.born_sec = born.tv_sec     # where it is the time of the last change, that of now
    inode.born_nsec = born.tv_nsec
    left = settles_in(born, table.mounts[inode.mount].owner == OWNER_LOCAL)
    if left > 0:
        return SETTLES if left < SETTLING_NS else STAYS   # it is of times to come, where the clock was set back
    parent = pin_parent(table, inode, name)
    # A parent that has no descriptor now was found by name itself, so the names above still held not long ago.
    if parent != NULL and name[0] and (parent.fd < 0 or inode_is_at(table, inode, parent.fd, name)
                                       or inode_was_renamed(table, inode, parent)):
        how = CLOSES
    if parent != NULL:
        inode_release(table, parent)
    return how


cdef bint learn_handle(InodeTable *table, Inode *inode) noexcept nogil:
    """Keeps the file's handle in the record of an inode that is EVICTING. False: it has none."""
    cdef linux_file_handle handle
    cdef Shard *shard
    if inode.handle_size:
        return True
    if file_handle(inode.fd, &handle) < 0:
        shard = shard_of(table, key_hash(inode.mount, inode.ino))
        lock(&shard.lock)
        inode.flags |= INODE_KEEP
        unlock(&shard.lock)
        return False
    note_handle(inode, &handle)
    return True


cdef inline bint is_open_elsewhere(InodeTable *table, const Inode *inode) noexcept nogil:
    """Whether the guest has it open, on a file system of which nobody knows whether a handle finds an open file that
    has lost its last name (with OpenZFS it does not).
    """
    return load_relaxed32(&inode.opens) != 0 and table.mounts[inode.mount].owner != OWNER_LOCAL


cdef Closable can_reopen(InodeTable *table, Inode *inode) noexcept nogil:
    """Whether the file will be found again without its descriptor: it is not unlinked, and has a handle or a name.

    The inode is EVICTING. What is learnt is kept in the record.
    """
    cdef linux_statx stat
    # A file without a name lives by its descriptors alone.
    if sys_statx(inode.fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, IDENTITY, &stat) < 0:
        return STAYS
    if stat.stx_nlink == 0:
        return GONE if inode.flags & INODE_REMEMBERED else STAYS
    if mount_how(table, inode.mount, inode.fd, inode.kind) != MOUNT_HANDLES:
        return found_by_name(table, inode, &stat)
    if is_open_elsewhere(table, inode):
        return STAYS
    return CLOSES if learn_handle(table, inode) else STAYS


cdef Closable can_rest(InodeTable *table, Inode *inode, bint opens_counted) noexcept nogil:
    """Whether the descriptor of an inode that was not used lately need not stay open: the file has a handle.

    That of a regular file that somebody has unlinked is all that keeps its data on the disk, where the guest has not
    opened it: nobody will ask for it. `opens_counted`: the guest says what it opens. The inode is EVICTING.
    """
    cdef linux_statx stat
    cdef bint remembered = (inode.flags & INODE_REMEMBERED) != 0
    cdef bint by_handle = mount_how(table, inode.mount, inode.fd, inode.kind) == MOUNT_HANDLES and \
        learn_handle(table, inode)
    if is_open_elsewhere(table, inode) or not by_handle and not remembered or \
            sys_statx(inode.fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, IDENTITY, &stat) < 0:
        return STAYS
    if stat.stx_nlink == 0 and remembered:
        return GONE
    if by_handle and (stat.stx_nlink > 0 or (inode.kind == S_IFREG and opens_counted
                                             and not load_relaxed32(&inode.opens))):
        return CLOSES
    return STAYS


# Who needs room for a descriptor asks the host about a file of whatever mount, and one that does not answer must not
# take all with it that goes on elsewhere. So of a mount that may hang one inode at a time is looked at, and meanwhile
# its others are passed over. The root's mount is no such one: where that hangs nothing goes on.

cdef bint mount_begin(InodeTable *table, uint32_t number) noexcept nogil:
    """Whether an inode of the mount may be looked at now; mount_end() has to follow."""
    cdef Mount *mount = table.mounts + number
    cdef uint32_t nobody = 0
    return (load_relaxed32(&mount.owner) == OWNER_LOCAL or number == at_slot(table, ROOT_SLOT).mount
            or compare_exchange32(&mount.evicting, &nobody, 1))


cdef void mount_end(InodeTable *table, uint32_t number) noexcept nogil:
    cdef Mount *mount = table.mounts + number
    if load_relaxed32(&mount.evicting):
        store_release32(&mount.evicting, 0)


cdef Inode *claim_last(InodeTable *table, Shard *shard, bint *settles) noexcept nogil:
    """Claims the least recently used inode of the shard: out of the list, pinned and marked EVICTING. NULL: there is
    none, or it gets a second chance since it was used. `settles` becomes true where it may be claimed in a moment. The
    shard is locked.
    """
    cdef Inode *inode
    cdef uint64_t state
    if shard.lru_last == NONE:
        return NULL
    inode = at_slot(table, shard.lru_last)
    # What is pinned now, but by its children, is used now. Their number does not change meanwhile: the shard is locked.
    state = load_acquire64(&inode.state)
    if not inode.recent and not inode.flags & INODE_KEEP and state & PINS and \
            state & PINS == load_relaxed32(&inode.children) + <uint64_t> is_guests(inode):
        if not mount_begin(table, inode.mount):
            settles[0] = True
        elif compare_exchange64(&inode.state, &state, (state | EVICTING) + 1):
            cache_remove(table, shard, inode)
            return inode
        else:
            mount_end(table, inode.mount)
    inode.recent = 0
    cache_renew(table, shard, inode)
    return NULL


cdef bint settle(InodeTable *table, Shard *shard, Inode *inode, Closable how) noexcept nogil:
    """Closes the descriptor of a claimed inode, or puts it back. Whether it was closed."""
    cdef int fd = -1
    cdef bint lost = False
    lock(&shard.lock)
    if how == GONE:
        # Not where the guest has come back meanwhile.
        lost = inode.flags & INODE_REMEMBERED and inode_lose(table, shard, inode)
    if how == CLOSES or lost:
        fd = inode.fd
        store_fd(inode, -1)
    else:
        cache_insert(table, shard, inode)
    unlock(&shard.lock)
    mount_end(table, inode.mount)
    fetch_sub64(&inode.state, EVICTING)
    if lost:
        inode_release(table, inode)
    inode_release(table, inode)
    if fd < 0:
        return False
    sys_close(fd)
    fetch_sub32(&table.account.cached, 1)
    return True


cdef bint evict_one(InodeTable *table, Shard *shard, bint *settles) noexcept nogil:
    cdef Inode *inode = NULL
    cdef Closable how
    cdef int tries = 0
    lock(&shard.lock)
    while inode == NULL and shard.lru_last != NONE and tries < EVICT_TRIES:
        tries += 1
        inode = claim_last(table, shard, settles)
    unlock(&shard.lock)
    if inode == NULL:
        return False
    how = can_reopen(table, inode)
    if how == SETTLES:
        settles[0] = True
    return settle(table, shard, inode, how)


cdef void close_idle(InodeTable *table, Shard *shard, bint opens_counted) noexcept nogil:
    """Goes once through the shard's cached descriptors."""
    cdef Inode *inode
    cdef uint32_t left = 0
    cdef uint32_t slot
    cdef bint settles = False   # what is passed over now has its turn the next time
    lock(&shard.lock)
    slot = shard.lru_first
    while slot != NONE:
        left += 1
        slot = at_slot(table, slot).lru_next
    unlock(&shard.lock)
    while left:
        left -= 1
        lock(&shard.lock)
        inode = claim_last(table, shard, &settles)
        unlock(&shard.lock)
        if inode != NULL:
            settle(table, shard, inode, can_rest(table, inode, opens_counted))


cdef void inodes_close_idle(InodeTable *table, bint opens_counted) noexcept nogil:
    """Closes the cached descriptors of inodes that were not used since the last time, where they are opened again by
    handle: what the host deletes then is gone from its disk at once, and what the guest only looked at takes no memory
    of the host's. May sleep; only one thread is at it.
    """
    cdef int shard
    for shard in range(SHARDS):
        close_idle(table, table.shards + shard, opens_counted)


cdef uint32_t evict(InodeTable *table, uint32_t count, uint32_t most, bint *settles) noexcept nogil:
    """inodes_evict(), until `most` searches in a row find none. `settles` becomes true where one of those that were
    left could be closed in a moment.
    """
    cdef uint32_t evicted = 0
    cdef uint32_t misses = 0
    cdef uint32_t shard
    while evicted < count and misses < most:
        shard = fetch_add32(&table.next_victim, 1) & (SHARDS - 1)
        if evict_one(table, table.shards + shard, settles):
            evicted += 1
            misses = 0
        else:
            misses += 1
    return evicted


cdef uint32_t inodes_evict(InodeTable *table, uint32_t count) noexcept nogil:
    """Closes up to `count` cached descriptors, least recently used first as far as shards can tell. How many."""
    cdef bint settles = False
    return evict(table, count, EVICT_MISSES, &settles)
