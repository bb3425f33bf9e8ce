"""The descriptors that the inode table caches within the process's budget. See "Inodes" in ARCHITECTURE.md."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from .atomics cimport (
    compare_exchange64, exchange32, fetch_add32, fetch_sub32, fetch_sub64, load_acquire32, load_relaxed64,
    store_release32)
from .descriptors cimport descriptors_over_budget
from .inode_slots cimport free_slot
from .inode_table cimport (
    EVICTING, HANDLE_MAX, INODE_CACHED, INODE_NO_HANDLE, NONE, PINS, ROOT_SLOT, SHARDS, Inode, InodeTable, Mount,
    Shard, at_slot, key_hash, shard_of, store_fd)
from .linux cimport (
    AT_EMPTY_PATH, EINVAL, EMFILE, ENFILE, EOVERFLOW, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY, S_IFDIR, S_IFREG,
    decimal, linux_file_handle, memcpy, sys_close, sys_name_to_handle_at, sys_open_by_handle_at, sys_openat)
from .locks cimport lock, unlock

cdef enum:
    EVICT_TRIES = 64            # records that one search for a victim looks at


cdef void cache_insert(InodeTable *table, Shard *shard, Inode *inode) noexcept nogil:
    inode.lru_previous = NONE
    inode.lru_next = shard.lru_first
    if shard.lru_first != NONE:
        at_slot(table, shard.lru_first).lru_previous = inode.slot
    else:
        shard.lru_last = inode.slot
    shard.lru_first = inode.slot
    inode.flags |= INODE_CACHED


cdef void cache_remove(InodeTable *table, Shard *shard, Inode *inode) noexcept nogil:
    if not inode.flags & INODE_CACHED:
        return
    if inode.lru_previous != NONE:
        at_slot(table, inode.lru_previous).lru_next = inode.lru_next
    else:
        shard.lru_first = inode.lru_next
    if inode.lru_next != NONE:
        at_slot(table, inode.lru_next).lru_previous = inode.lru_previous
    else:
        shard.lru_last = inode.lru_previous
    inode.flags &= <uint8_t> ~INODE_CACHED


cdef int file_handle(int fd, linux_file_handle *handle) noexcept nogil:
    cdef int mount_id = 0
    cdef int error
    handle.handle_bytes = HANDLE_MAX
    error = sys_name_to_handle_at(fd, "", handle, &mount_id, AT_EMPTY_PATH)
    if error == 0 and (handle.handle_type < 0 or handle.handle_type > 0xff):
        return -EOVERFLOW
    return error


cdef int inode_fd(InodeTable *table, Inode *inode) noexcept nogil:
    """The O_PATH descriptor of a pinned inode, valid as long as the pin. -ESTALE: the file is gone."""
    cdef int fd = <int> load_acquire32(<uint32_t *> &inode.fd)
    if fd >= 0:
        if not inode.recent:
            inode.recent = 1
        return fd
    return reopen(table, inode)


cdef int reopen(InodeTable *table, Inode *inode) noexcept nogil:
    cdef Shard *shard = shard_of(table, key_hash(inode.mount, inode.ino))
    cdef linux_file_handle handle
    cdef int fd, other
    handle.handle_bytes = inode.handle_size
    handle.handle_type = inode.handle_type
    memcpy(handle.f_handle, inode.handle, inode.handle_size)
    fd = sys_open_by_handle_at(table.mounts[inode.mount].fd, &handle, O_PATH | O_NOFOLLOW)
    if fd == -EMFILE or fd == -ENFILE:
        inodes_close_pending(table)
        inodes_evict(table, EVICT_TRIES)
        fd = sys_open_by_handle_at(table.mounts[inode.mount].fd, &handle, O_PATH | O_NOFOLLOW)
    if fd < 0:
        return fd
    fetch_add32(&table.account.cached, 1)
    lock(&shard.lock)
    other = inode.fd
    if other < 0:
        store_fd(inode, fd)
        # Where the guest let go of it in the meantime, its last pin closes it; it is not in the cache.
        if inode.lookups:
            cache_insert(table, shard, inode)
        inode.recent = 1
    unlock(&shard.lock)
    if other >= 0:
        sys_close(fd)
        fetch_sub32(&table.account.cached, 1)
        return other
    make_room(table)
    return fd


cdef void make_room(InodeTable *table) noexcept nogil:
    cdef uint32_t over = descriptors_over_budget(table.account)
    if over:
        inodes_evict(table, over if over < EVICT_TRIES else EVICT_TRIES)


cdef int handle_fd(InodeTable *table, Inode *inode) noexcept nogil:
    """A descriptor of the inode's mount, not O_PATH, by which handles can be opened. -errno: none can be had now."""
    cdef Mount *mount = table.mounts + inode.mount
    cdef char name[16]
    cdef int fd = <int> load_acquire32(<uint32_t *> &mount.fd)
    cdef Inode *root = at_slot(table, ROOT_SLOT)
    cdef Inode *through = root if root.mount == inode.mount else inode
    if fd >= 0:
        return fd
    if through.kind != S_IFDIR and through.kind != S_IFREG:
        return -EINVAL
    fd = sys_openat(table.proc_fd, decimal(name, through.fd), O_RDONLY | O_NONBLOCK, 0)
    if fd < 0:
        return fd
    lock(&table.mount_lock)
    if mount.fd < 0:
        store_release32(<uint32_t *> &mount.fd, <uint32_t> fd)
        fd = -1
    unlock(&table.mount_lock)
    if fd >= 0:
        sys_close(fd)
    return mount.fd


cdef bint can_reopen(InodeTable *table, Inode *inode) noexcept nogil:
    """Gets the inode's handle, and makes sure once for each mount that handles can be opened. The inode is EVICTING."""
    cdef Mount *mount = table.mounts + inode.mount
    cdef linux_file_handle handle
    cdef int fd
    if inode.flags & INODE_NO_HANDLE or mount.no_handles or not table.handles_open:
        return False
    if inode.handle_size:
        return True
    if file_handle(inode.fd, &handle) < 0:
        inode.flags |= INODE_NO_HANDLE
        return False
    fd = handle_fd(table, inode)
    if fd < 0:
        return False
    if mount.handles_work == 0:
        fd = sys_open_by_handle_at(fd, &handle, O_PATH | O_NOFOLLOW)
        if fd < 0:
            mount.no_handles = 1
            return False
        sys_close(fd)
        mount.handles_work = 1
    inode.handle_type = <uint8_t> handle.handle_type
    inode.handle_size = <uint8_t> handle.handle_bytes
    memcpy(inode.handle, handle.f_handle, handle.handle_bytes)
    return True


cdef Inode *choose_victim(InodeTable *table, Shard *shard) noexcept nogil:
    """The least recently used inode of the shard that nobody uses now, taken out of the list and marked EVICTING."""
    cdef int tries = 0
    cdef Inode *inode
    cdef uint64_t state
    while shard.lru_last != NONE and tries < EVICT_TRIES:
        tries += 1
        inode = at_slot(table, shard.lru_last)
        cache_remove(table, shard, inode)
        state = load_relaxed64(&inode.state)
        # A second chance for what was used since; and what is pinned now is used now.
        if not inode.recent and state & PINS == 1 and not inode.flags & INODE_NO_HANDLE and \
                compare_exchange64(&inode.state, &state, state | EVICTING):
            return inode
        inode.recent = 0
        cache_insert(table, shard, inode)
    return NULL


cdef bint evict_one(InodeTable *table, Shard *shard) noexcept nogil:
    cdef Inode *inode
    cdef int fd = -1
    cdef bint reopens
    lock(&shard.lock)
    inode = choose_victim(table, shard)
    unlock(&shard.lock)
    if inode == NULL:
        return False
    reopens = can_reopen(table, inode)
    lock(&shard.lock)
    if reopens:
        fd = inode.fd
        store_fd(inode, -1)
    else:
        cache_insert(table, shard, inode)
    unlock(&shard.lock)
    fetch_sub64(&inode.state, EVICTING)
    if fd < 0:
        return False
    sys_close(fd)
    fetch_sub32(&table.account.cached, 1)
    return True


cdef uint32_t inodes_evict(InodeTable *table, uint32_t count) noexcept nogil:
    """Closes up to `count` cached descriptors, least recently used first as far as shards can tell. How many."""
    cdef uint32_t evicted = 0
    cdef uint32_t misses = 0
    cdef uint32_t shard
    while evicted < count and misses < SHARDS:
        shard = fetch_add32(&table.next_victim, 1) & (SHARDS - 1)
        if evict_one(table, table.shards + shard):
            evicted += 1
            misses = 0
        else:
            misses += 1
    return evicted


cdef uint32_t inodes_close_pending(InodeTable *table) noexcept nogil:
    """Closes the descriptors of inodes that were let go. Returns how many. May sleep."""
    cdef uint32_t slot = exchange32(&table.to_close, NONE)
    cdef uint32_t closed = 0
    cdef Inode *inode
    cdef int fd
    while slot != NONE:
        inode = at_slot(table, slot)
        slot = inode.hash_next
        fd = inode.fd
        inode.fd = -1
        free_slot(table, inode)
        sys_close(fd)
        fetch_sub32(&table.account.cached, 1)
        fetch_sub32(&table.to_close_count, 1)
        closed += 1
    return closed
