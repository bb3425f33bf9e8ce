"""The inode table as the file system uses it: nodeids in, records out, and the guest's references counted."""

from libc.stdint cimport uint32_t, uint64_t

from .atomics cimport (
    compare_exchange64, fetch_add32, fetch_add64, fetch_sub32, load_acquire32, load_acquire64, load_relaxed32,
    store_relaxed32, store_release32, store_release64)
from .descriptors cimport Descriptors
from .inode_eviction cimport make_room
from .inode_identity cimport IDENTITY, file_handle, mount_enter, mount_how, mount_leave, same_birth
from .inode_index cimport index_find, index_insert, index_remove
from .inode_lifetime cimport (
    cache_insert, cache_remove, inode_acquire, inode_gone, inode_lose, inode_recall, inode_release,
    let_evict)
from .inode_places cimport inode_seen_at
from .inode_slots cimport more_slots, take_slot
from .inode_table cimport (
    CHUNK_BITS, CHUNK_INODES, CHUNKS_MAX, EVICTING, FIRST_SEGMENT, INODE_BY_CTIME, INODE_BY_FILE, INODE_INDEXED,
    INODE_KEEP, INODE_NEW, INODE_REMEMBERED, INODE_ROOT, MOUNT_HANDLES, MOUNTS_MAX, NONE, PINS, ROOT_SLOT, SEGMENTS,
    SHARDS, Chunk, Inode, InodeTable, Mount, Shard, at_slot, inode_nodeid, key_hash, shard_of, store_fd)
from .handles cimport HandleTable
from .kept cimport KeptFiles
from .linux cimport (
    AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_STATX_FORCE_SYNC, ENOMEM, EOVERFLOW, OWNER_ELSEWHERE, MAP_ANONYMOUS, MAP_FAILED,
    MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, STATX_BASIC_STATS, STATX_BTIME, S_IFDIR, S_IFMT, calloc, free,
    linux_file_handle, linux_statx, memcmp, memset, mmap, munmap, sys_close, sys_statx)
from .mutex cimport lock, unlock
from .names cimport names_create, names_destroy


cdef int inodes_create(InodeTable *table, Descriptors *account, HandleTable *handles, KeptFiles *kept,
                       int root_fd, int proc_fd, uint64_t ticks_per_us) noexcept nogil:
    """An empty table whose root is the O_PATH descriptor `root_fd`, which it owns. 0 or -errno."""
    cdef linux_statx stat
    cdef Inode *root
    cdef int error, i
    cdef int mount
    memset(table, 0, sizeof(InodeTable))
    table.account = account
    table.handles = handles
    table.kept = kept
    table.root_fd = root_fd
    table.proc_fd = proc_fd
    table.ticks_per_us = ticks_per_us
    table.close_ticks = <uint32_t> ticks_per_us
    table.chunks = <Chunk *> mmap(NULL, <size_t> CHUNKS_MAX * sizeof(Chunk), PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    table.mounts = <Mount *> mmap(NULL, <size_t> MOUNTS_MAX * sizeof(Mount), PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    table.shards = <Shard *> calloc(SHARDS, sizeof(Shard))
    error = names_create(&table.names)
    if error < 0:
        return error
    if table.chunks == MAP_FAILED or table.mounts == MAP_FAILED or table.shards == NULL:
        return -ENOMEM
    for i in range(SHARDS):
        table.shards[i].buckets = FIRST_SEGMENT
        table.shards[i].segments[0] = <uint32_t *> calloc(FIRST_SEGMENT, sizeof(uint32_t))
        if table.shards[i].segments[0] == NULL:
            return -ENOMEM
    error = sys_statx(root_fd, "", AT_EMPTY_PATH, IDENTITY, &stat)
    if error < 0:
        return error
    mount = mount_of(table, &stat)
    if mount < 0:
        return mount
    # The first chunk is the first shard's, but for slot 0, which is none, and 1, the root.
    if not more_slots(table, table.shards):
        return -ENOMEM
    table.chunks[0].fresh = ROOT_SLOT + 1
    table.chunks[0].used = 1   # for good: the root's slot
    root = at_slot(table, ROOT_SLOT)
    root.slot = ROOT_SLOT
    root.fd = root_fd
    root.flags = INODE_ROOT
    root.lookups = 1
    fill(root, mount, &stat)
    table.root_ino = root.ino
    store_release64(&root.state, 1)
    lock(&shard_of(table, key_hash(mount, root.ino)).lock)
    index_insert(table, shard_of(table, key_hash(mount, root.ino)), key_hash(mount, root.ino), root)
    unlock(&shard_of(table, key_hash(mount, root.ino)).lock)
    return 0


cdef bint inodes_have_handles(InodeTable *table) noexcept nogil:
    """Whether files on the root's mount can be opened by handle."""
    return mount_how(table, at_slot(table, ROOT_SLOT).mount, table.root_fd, S_IFDIR) == MOUNT_HANDLES


cdef void note_birth(Inode *inode, const linux_statx *stat) noexcept nogil:
    if not inode.flags & INODE_BY_CTIME:
        inode.born_sec = stat.stx_btime.tv_sec
        inode.born_nsec = stat.stx_btime.tv_nsec


cdef void fill(Inode *inode, uint32_t mount, const linux_statx *stat) noexcept nogil:
    inode.mount = mount
    inode.ino = stat.stx_ino
    inode.kind = stat.stx_mode & S_IFMT
    if not stat.stx_mask & STATX_BTIME:
        inode.flags |= INODE_BY_CTIME
    note_birth(inode, stat)


cdef void inodes_destroy(InodeTable *table) noexcept nogil:
    """Closes every descriptor and frees everything. No other thread uses the table any more."""
    cdef uint32_t chunk, i
    cdef Inode *inode
    cdef int segment
    if table.chunks != NULL and table.chunks != MAP_FAILED:
        for chunk in range(table.chunk_count):
            for i in range(<uint32_t> CHUNK_INODES):
                inode = table.chunks[chunk].records + i
                # Slots that were never used are zero throughout.
                if inode.slot != NONE and inode.fd >= 0:
                    sys_close(inode.fd)
            munmap(table.chunks[chunk].records, CHUNK_INODES * sizeof(Inode))
        munmap(table.chunks, <size_t> CHUNKS_MAX * sizeof(Chunk))
    if table.mounts != NULL and table.mounts != MAP_FAILED:
        for i in range(table.mount_count):
            if table.mounts[i].fd >= 0:
                sys_close(table.mounts[i].fd)
            if table.mounts[i].loose >= 0:
                sys_close(table.mounts[i].loose)
        munmap(table.mounts, <size_t> MOUNTS_MAX * sizeof(Mount))
    if table.shards != NULL:
        for i in range(<uint32_t> SHARDS):
            for segment in range(SEGMENTS):
                free(table.shards[i].segments[segment])
        free(table.shards)
    names_destroy(&table.names)
    memset(table, 0, sizeof(InodeTable))


cdef int mount_of(InodeTable *table, const linux_statx *stat) noexcept nogil:
    """The number of the mount that the file lies on: an index into table.mounts, or -EOVERFLOW."""
    cdef uint64_t device = (<uint64_t> stat.stx_dev_major << 32) | stat.stx_dev_minor
    cdef uint64_t id = stat.stx_mnt_id
    cdef uint32_t count = load_acquire32(&table.mount_count)
    cdef uint32_t i
    for i in range(count):
        if table.mounts[i].device == device and table.mounts[i].id == id:
            return i
    lock(&table.mount_lock)
    for i in range(count, table.mount_count):
        if table.mounts[i].device == device and table.mounts[i].id == id:
            unlock(&table.mount_lock)
            return i
    i = table.mount_count
    if i == MOUNTS_MAX:
        unlock(&table.mount_lock)
        return -EOVERFLOW
    table.mounts[i].device = device
    table.mounts[i].id = id
    table.mounts[i].fd = table.mounts[i].loose = -1
    store_release32(&table.mount_count, i + 1)
    unlock(&table.mount_lock)
    return i


cdef void drop_if_gone(InodeTable *table, uint32_t mount, uint64_t ino) noexcept nogil:
    """Sees to it that the number does not stand for a file that is gone, where a descriptor does not do so. May sleep.

    The guest's node stays, for what it has open; only this number finds it no more.
    """
    cdef Inode *inode = inode_find(table, mount, ino)
    cdef Shard *shard
    cdef bint lost
    cdef linux_statx stat
    if inode == NULL:
        return
    if inode.fd >= 0 and not inode.flags & INODE_ROOT and (
            sys_statx(inode.fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &stat) < 0
            or stat.stx_nlink == 0 or stat.stx_ino != ino):
        shard = shard_of(table, key_hash(mount, ino))
        lock(&shard.lock)
        lost = inode_lose(table, shard, inode)
        unlock(&shard.lock)
        if lost:
            inode_release(table, inode)
    inode_release(table, inode)


cdef uint64_t inode_count_lookup(InodeTable *table, uint32_t mount, const linux_statx *stat) noexcept nogil:
    """One more reference of the guest to a known inode that a descriptor pins. Its nodeid, or 0: no such inode.

    The file that `stat` is of may be gone since, and its number another one's by now. Its birth tells; a change of what
    stands in for it is none of identity.
    """
    cdef uint64_t hash = key_hash(mount, stat.stx_ino)
    cdef Shard *shard = shard_of(table, hash)
    cdef uint64_t nodeid = 0
    cdef Inode *inode
    if table.mounts[mount].owner == OWNER_ELSEWHERE:
        drop_if_gone(table, mount, stat.stx_ino)
    lock(&shard.lock)
    inode = index_find(table, shard, hash, mount, stat.stx_ino)
    if inode != NULL and (inode.fd >= 0 or inode.flags & INODE_BY_FILE) and \
            inode.kind == stat.stx_mode & S_IFMT and (inode.flags & INODE_BY_CTIME or same_birth(inode, stat)):
        inode_recall(table, inode)
        inode.lookups += 1
        if not inode.recent:
            inode.recent = 1
        nodeid = inode_nodeid(inode)
    unlock(&shard.lock)
    return nodeid


cdef bint was_evicted(const Inode *inode, const linux_statx *stat, const linux_file_handle *handle) noexcept nogil:
    """Whether a file with this stat and handle (of no bytes: it has none) is that of a record without descriptor."""
    # Where there are no times of birth, a change is none of identity: then the handle alone decides.
    return ((same_birth(inode, stat) or inode.handle_size and inode.flags & INODE_BY_CTIME)
            and inode.kind == stat.stx_mode & S_IFMT and inode.handle_size == handle.handle_bytes
            and (not inode.handle_size or inode.handle_type == handle.handle_type
                 and memcmp(inode.handle, handle.f_handle, inode.handle_size) == 0))


cdef Inode *find_record(InodeTable *table, Shard *shard, uint32_t mount, const linux_statx *stat, int fd, bint opened,
                        Inode **lost) noexcept nogil:
    """The record of the file that `fd` and `stat` are of. It has the descriptor then, unless it had one or the guest
    has `opened` it. NULL: there is none. `lost` is NULL, or to be released: its number has become another file's.

    The shard is locked; while a handle is asked for it is not.
    """
    cdef uint64_t hash = key_hash(mount, stat.stx_ino)
    cdef linux_file_handle handle
    cdef bint have_handle = False
    cdef bint same = False
    cdef Inode *inode
    handle.handle_bytes = 0
    lost[0] = NULL
    while True:
        inode = index_find(table, shard, hash, mount, stat.stx_ino)
        if inode == NULL:
            return NULL
        if inode.fd >= 0:
            # The descriptor pins the number, unless the file system gives one number to several files.
            if inode.kind == stat.stx_mode & S_IFMT:
                note_birth(inode, stat)     # overlayfs tells another one when it has copied the file up
                return inode
            break
        # An open file pins it just as well.
        same = inode.flags & (INODE_BY_FILE | INODE_NEW) and inode.kind == stat.stx_mode & S_IFMT
        # Evicted: the same number may be another file by now. Its handle tells, which is not asked for under the lock.
        if not same and inode.handle_size and not have_handle and (
                same_birth(inode, stat) or inode.flags & INODE_BY_CTIME):
            unlock(&shard.lock)
            have_handle = True
            if file_handle(fd, &handle) < 0:
                handle.handle_bytes = 0
            lock(&shard.lock)
            continue
        same = same or was_evicted(inode, stat, &handle)
        break
    if same:
        if not opened:
            store_fd(inode, fd)
            cache_insert(table, shard, inode)
        return inode
    lost[0] = inode if inode_lose(table, shard, inode) else NULL
    return NULL


cdef Inode *new_record(InodeTable *table, Shard *shard, uint32_t mount, const linux_statx *stat, int fd,
                       bint opened) noexcept nogil:
    """NULL: no memory. The shard is locked."""
    cdef Inode *inode = take_slot(table, shard)
    if inode == NULL:
        return NULL
    fill(inode, mount, stat)
    index_insert(table, shard, key_hash(mount, stat.stx_ino), inode)
    if opened:
        inode.flags |= INODE_NEW
    else:
        inode.fd = fd
        cache_insert(table, shard, inode)
    fetch_add32(&table.known, 1)
    # Release: whoever finds the generation valid sees the record whole. One pin: the guest's.
    store_release64(&inode.state, inode.state | 1)
    return inode


cdef int inode_add(InodeTable *table, uint32_t mount, const linux_statx *stat, int fd, bint opened, Inode *parent,
                   const char *name, uint64_t *nodeid, bint *known) noexcept nogil:
    """A reference of the guest to the file that `fd` and `stat` are of: to its record, or to a new one. 0 or -ENOMEM.

    `parent` and `name` are where it was found (NULL: not by name). `fd` is O_PATH and the table's from now on, or
    `opened` by a guest, which it stays: inode_reach_by() has to follow then, and the mount has file handles.
    """
    cdef Shard *shard = shard_of(table, key_hash(mount, stat.stx_ino))
    cdef bint by_name, added
    cdef uint32_t looks = 0
    cdef Inode *lost
    cdef Inode *inode
    mount_enter(table, mount)
    by_name = mount_how(table, mount, fd, stat.stx_mode & S_IFMT) != MOUNT_HANDLES
    if table.mounts[mount].owner == OWNER_ELSEWHERE:
        drop_if_gone(table, mount, stat.stx_ino)
    if not opened:
        fetch_add32(&table.account.cached, 1)
    lock(&shard.lock)
    inode = find_record(table, shard, mount, stat, fd, opened, &lost)
    added = inode == NULL
    if added:
        inode = new_record(table, shard, mount, stat, fd, opened)
    known[0] = not opened and inode != NULL and inode.fd != fd
    if inode != NULL:
        inode_recall(table, inode)
        inode.lookups += 1
        inode.recent = 1
        nodeid[0] = inode_nodeid(inode)
        if by_name:
            fetch_add64(&inode.state, 1)
    unlock(&shard.lock)
    if lost != NULL:
        inode_release(table, lost)
    if known[0] or inode == NULL and not opened:
        sys_close(fd)
        fetch_sub32(&table.account.cached, 1)
    if inode == NULL or not added:
        mount_leave(table, mount)
    if inode == NULL:
        return -ENOMEM
    if by_name:
        # Who evicts an inode waits for its parent, which therefore stays the same meanwhile.
        while load_acquire64(&inode.state) & EVICTING:
            let_evict(&looks)
        if parent != NULL:
            inode_seen_at(table, inode, parent, name)
        inode_release(table, inode)
    make_room(table)
    return 0


cdef Inode *inode_find(InodeTable *table, uint32_t mount, uint64_t ino) noexcept nogil:
    """The known inode of this number, pinned; NULL: there is none."""
    cdef uint64_t hash = key_hash(mount, ino)
    cdef Shard *shard = shard_of(table, hash)
    cdef Inode *inode
    cdef uint64_t state
    cdef uint32_t looks = 0
    lock(&shard.lock)
    while True:
        inode = index_find(table, shard, hash, mount, ino)
        if inode == NULL:
            break
        state = load_acquire64(&inode.state)
        if state & EVICTING:
            unlock(&shard.lock)
            let_evict(&looks)
            lock(&shard.lock)
        elif compare_exchange64(&inode.state, &state, state + 1):
            break
    unlock(&shard.lock)
    return inode


cdef bint is_deleted(int fd) noexcept nogil:
    """Whether it is known that the file has no name any more."""
    cdef linux_statx stat
    return sys_statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_BASIC_STATS, &stat) == 0 and stat.stx_nlink == 0


cdef void inode_forget(InodeTable *table, uint64_t nodeid, uint64_t count) noexcept nogil:
    """The guest lets go of `count` references; never of more than it has. The root stays.

    It may come back to what it has forgotten (--nfs-export), but not to what has no handle where others have, or is
    known to be deleted. That is asked last: whoever deletes it meanwhile finds it remembered.
    """
    cdef Inode *inode = inode_acquire(table, nodeid)
    cdef Shard *shard
    cdef bint last = False
    cdef bint stays = False
    if inode == NULL:
        return
    if not inode.flags & INODE_ROOT:
        shard = shard_of(table, key_hash(inode.mount, inode.ino))
        lock(&shard.lock)
        if inode.lookups:
            inode.lookups = inode.lookups - count if inode.lookups > count else 0
            stays = (not inode.lookups and table.remembers
                     and inode.flags & (INODE_INDEXED | INODE_KEEP) == INODE_INDEXED)
            if stays:
                inode.flags |= INODE_REMEMBERED
                fetch_add32(&table.remembered, 1)
                fetch_sub32(&table.known, 1)
            elif not inode.lookups:
                last = True
                index_remove(table, shard, inode)
                if not load_relaxed32(&inode.children):
                    cache_remove(table, shard, inode)
        unlock(&shard.lock)
    if last:
        fetch_sub32(&table.known, 1)
        inode_release(table, inode)
    if stays and inode.fd >= 0 and is_deleted(inode.fd):
        inode_gone(table, inode)
    inode_release(table, inode)


cdef Inode *inodes_next(InodeTable *table, uint32_t *slot) noexcept nogil:
    """The next inode that somebody keeps, from this slot on, pinned; `slot` is the one behind it then. NULL: none."""
    cdef Inode *inode
    cdef uint64_t state
    while slot[0] >> CHUNK_BITS < load_acquire32(&table.chunk_count):
        inode = at_slot(table, slot[0])
        state = load_acquire64(&inode.state)
        slot[0] += 1
        if state & PINS:
            inode = inode_acquire(table, state >> 32 << 32 | (slot[0] - 1))
            if inode != NULL:
                return inode
    return NULL


cdef void inodes_forget_all(InodeTable *table) noexcept nogil:
    """The end of a session: the guest knows nothing but the root any more, and has nothing open. May take long."""
    cdef uint32_t slot = 0
    cdef Inode *inode = inodes_next(table, &slot)
    while inode != NULL:
        store_relaxed32(&inode.opens, 0)
        inode_forget(table, inode_nodeid(inode), ~(<uint64_t> 0))
        inode_release(table, inode)
        inode = inodes_next(table, &slot)
