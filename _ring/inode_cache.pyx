"""The descriptors that the inode table caches within the process's budget. See "Inodes" in ARCHITECTURE.md."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from .atomics cimport (
    compare_exchange64, fetch_add32, fetch_add64, fetch_sub32, fetch_sub64, load_acquire8, load_acquire32,
    load_acquire64, load_relaxed32, store_release32, store_release8)
from .descriptors cimport descriptors_over_budget
from .freshness cimport settles_in
from .handles cimport Handle, handle_in, handle_release
from .inode_lifetime cimport cache_insert, cache_remove, inode_lose, inode_release, inodes_close_pending
from .inode_table cimport (
    EVICTING, HANDLE_MAX, INODE_BY_CTIME, INODE_BY_FILE, INODE_KEEP, INODE_NEW, INODE_REMEMBERED, MOUNT_HANDLES,
    MOUNT_NAMES, MOUNT_UNKNOWN, MUCH, NONE, PINS, ROOT_SLOT, SHARDS, Inode, InodeTable, Mount, Shard, at_slot,
    inode_nodeid, key_hash, shard_of, store_fd)
from .linux cimport (
    AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW, EMFILE, ENFILE, ENODATA, ENOENT, EOVERFLOW, ESTALE,
    O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY, OWNER_LOCAL, STATX_BASIC_STATS, STATX_BTIME, STATX_MNT_ID,
    STATX_NLINK, STATX_SIZE, S_IFDIR, S_IFMT, S_IFREG, decimal, file_system_born_whole, file_system_owner,
    file_system_type, linux_dirent,
    linux_file_handle, linux_statx, linux_statx_time, memcpy, sched_yield, sys_close, sys_futex_wait, sys_getdents64,
    sys_name_to_handle_at, sys_open_by_handle_at, sys_openat, sys_statx)
from .mutex cimport lock, unlock
from .names cimport NAME_MAX, NAME_NONE, name_copy

cdef enum:
    EVICT_TRIES = 64            # records that one search for a victim looks at
    IDENTITY = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID
    LISTING = 4096
    MAKE_ROOM = 32              # cached descriptors closed when the process has run out of them
    REOPEN_TRIES = 64           # parents that are opened on the way to one file, beyond its depth

# What may become of a cached descriptor.
cdef enum Closable:
    STAYS                       # nothing could find the file again, now at least
    SETTLES                     # it may be closed in a moment
    CLOSES
    GONE                        # the guest has forgotten it, and there is nothing to come back to

cdef int64_t SETTLING_NS = 2500000000
cdef int64_t SETTLING_LOOK_NS = 5000000


# Identity.

cdef int file_handle(int fd, linux_file_handle *handle) noexcept nogil:
    """The file's handle, if it is small enough for the record. 0 or -errno."""
    cdef int mount_id = 0
    cdef int error
    handle.handle_bytes = HANDLE_MAX
    error = sys_name_to_handle_at(fd, "", handle, &mount_id, AT_EMPTY_PATH)
    if error == 0 and (handle.handle_type < 0 or handle.handle_type > 0xff):
        return -EOVERFLOW
    return error


cdef void note_handle(Inode *inode, const linux_file_handle *handle) noexcept nogil:
    """Once; it stays the same."""
    inode.handle_type = <uint8_t> handle.handle_type
    memcpy(inode.handle, handle.f_handle, handle.handle_bytes)
    store_release8(&inode.handle_size, <uint8_t> handle.handle_bytes)


cdef bint same_birth(const Inode *inode, const linux_statx *stat) noexcept nogil:
    """Whether the birth time, or what serves as one, is the record's."""
    cdef const linux_statx_time *born = &stat.stx_ctime if inode.flags & INODE_BY_CTIME else &stat.stx_btime
    return inode.born_sec == born.tv_sec and inode.born_nsec == born.tv_nsec


cdef bint same_file(InodeTable *table, const Inode *inode, const linux_statx *stat) noexcept nogil:
    """Whether `stat` is of the record's file, by all that is known without a handle."""
    cdef const Mount *mount = table.mounts + inode.mount
    return (stat.stx_ino == inode.ino and stat.stx_mnt_id == mount.id and stat.stx_mode & S_IFMT == inode.kind
            and ((<uint64_t> stat.stx_dev_major << 32) | stat.stx_dev_minor) == mount.device
            and same_birth(inode, stat))


# How a mount's files are found again.

cdef int mount_fd(InodeTable *table, uint32_t number, int fd, uint32_t kind) noexcept nogil:
    """A descriptor on the mount by which handles can be opened (O_PATH will not do); -errno, -ENOENT: not by this file.

    It stays open, so it is a directory: a file could be unlinked and would take its space until the end.
    """
    cdef Mount *mount = table.mounts + number
    cdef char name[16]
    cdef int found = <int> load_acquire32(<uint32_t *> &mount.fd)
    if found >= 0:
        return found
    if at_slot(table, ROOT_SLOT).mount == number:
        fd = table.root_fd
    elif kind != S_IFDIR:
        return -ENOENT
    found = sys_openat(table.proc_fd, decimal(name, fd), O_RDONLY | O_NONBLOCK, 0)
    if found < 0:
        return found
    lock(&table.mount_lock)
    if mount.fd < 0:
        store_release32(<uint32_t *> &mount.fd, <uint32_t> found)
        found = -1
    unlock(&table.mount_lock)
    if found >= 0:
        sys_close(found)
    return mount.fd


cdef int mount_how(InodeTable *table, uint32_t number, int fd, uint32_t kind) noexcept nogil:
    """How files of the mount are found again once their descriptor is closed: tried out with the first of them."""
    cdef Mount *mount = table.mounts + number
    cdef linux_file_handle handle
    cdef int how = <int> load_acquire32(&mount.how)   # acquire: the mount's owner and descriptor are there, too
    cdef int through
    cdef uint32_t type
    if how != MOUNT_UNKNOWN:
        return how
    type = file_system_type(fd)
    store_release32(&mount.owner, <uint32_t> file_system_owner(type))
    store_release32(&mount.born_whole, <uint32_t> file_system_born_whole(type))
    if table.no_handles or file_handle(fd, &handle) < 0:
        how = MOUNT_NAMES
    else:
        through = mount_fd(table, number, fd, kind)
        if through == -ENOENT:
            return MOUNT_UNKNOWN   # nothing to try it with: the next file of this mount may do
        how = MOUNT_NAMES
        if through >= 0:
            through = sys_open_by_handle_at(through, &handle, O_PATH | O_NOFOLLOW)
            if through >= 0:
                sys_close(through)
                how = MOUNT_HANDLES
    store_release32(&mount.how, <uint32_t> how)
    return how


# Opening an evicted inode again.

cdef int inode_fd(InodeTable *table, Inode *inode) noexcept nogil:
    """The O_PATH descriptor of a pinned inode, valid as long as the pin. -ESTALE: the file is gone."""
    cdef int fd = <int> load_acquire32(<uint32_t *> &inode.fd)
    if fd >= 0:
        if not inode.recent:
            inode.recent = 1
        return fd
    return reopen(table, inode)


cdef int reopen(InodeTable *table, Inode *inode) noexcept nogil:
    cdef Handle *file = pin_file(table, inode)
    cdef int fd
    if file != NULL:
        fd = open_again(table, file.fd)
        handle_release(table.handles, file)
        return adopt(table, inode, fd)
    # Another thread may have given it one, and the file been closed.
    fd = <int> load_acquire32(<uint32_t *> &inode.fd)
    if fd >= 0:
        return fd
    fd = open_by_handle(table, inode, O_PATH | O_NOFOLLOW)
    return reopen_by_name(table, inode) if fd == -ENODATA else adopt(table, inode, fd)


cdef bint room_was_made(InodeTable *table, int error) noexcept nogil:
    """Whether it is worth trying again: it failed as the process has no descriptor left, and some were closed now."""
    if error != -EMFILE and error != -ENFILE:
        return False
    inodes_close_pending(table)
    return inodes_evict(table, MAKE_ROOM) != 0


cdef int open_with_room(InodeTable *table, int directory, const char *path, int flags,
                        unsigned int mode) noexcept nogil:
    """openat; where the process has no descriptor left, some of the cached ones are closed first. fd or -errno."""
    cdef int fd = sys_openat(directory, path, flags, mode)
    return sys_openat(directory, path, flags, mode) if room_was_made(table, fd) else fd


cdef int open_again(InodeTable *table, int fd) noexcept nogil:
    """An O_PATH descriptor of what is open. fd or -errno."""
    cdef char name[16]
    return open_with_room(table, table.proc_fd, decimal(name, fd), O_PATH, 0)


cdef int open_by_handle(InodeTable *table, const Inode *inode, int flags) noexcept nogil:
    """fd, -errno; -ENODATA: the record has no handle."""
    cdef linux_file_handle handle
    cdef int through = table.mounts[inode.mount].fd
    cdef int fd
    handle.handle_bytes = load_acquire8(&inode.handle_size)     # acquire: with the handle
    if handle.handle_bytes == 0:
        return -ENODATA
    handle.handle_type = inode.handle_type
    memcpy(handle.f_handle, inode.handle, inode.handle_size)
    fd = sys_open_by_handle_at(through, &handle, flags)
    return sys_open_by_handle_at(through, &handle, flags) if room_was_made(table, fd) else fd


cdef int open_named(InodeTable *table, Inode *inode, int parent_fd, const char *name) noexcept nogil:
    """Opens the name, and makes sure that it is the file that it was. fd, -ESTALE or -errno."""
    cdef linux_statx stat
    cdef int fd = open_with_room(table, parent_fd, name, O_PATH | O_NOFOLLOW, 0)
    cdef int error
    if fd < 0:
        return -ESTALE if fd == -ENOENT else fd
    error = sys_statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, IDENTITY, &stat)
    if error < 0 or not same_file(table, inode, &stat):
        sys_close(fd)
        return error if error < 0 else -ESTALE
    return fd


cdef int open_renamed(InodeTable *table, Inode *inode, int parent_fd) noexcept nogil:
    """Looks for the file under another name in its directory: the host may have renamed it. fd or -ESTALE."""
    cdef uint64_t listing[LISTING / 8]
    cdef const linux_dirent *entry
    cdef char name[16]
    cdef int fd = -ESTALE
    cdef int64_t got, at
    cdef int directory = sys_openat(table.proc_fd, decimal(name, parent_fd), O_RDONLY | O_DIRECTORY, 0)
    if directory < 0:
        return -ESTALE
    while fd == -ESTALE:
        got = sys_getdents64(directory, listing, LISTING)
        if got <= 0:
            break
        at = 0
        while at < got and fd == -ESTALE:
            entry = <const linux_dirent *> (<uint8_t *> listing + at)
            if entry.d_ino == inode.ino:
                fd = open_named(table, inode, parent_fd, entry.d_name)
            at += entry.d_reclen
    sys_close(directory)
    return fd


cdef Inode *pin_parent(InodeTable *table, Inode *inode, char *name) noexcept nogil:
    """The directory that a pinned inode was last seen in, pinned as well, and its name there ("": none is known). NULL:
    nobody knows. The directory's descriptor stays as it is while it is pinned.
    """
    cdef Shard *shard = shard_of(table, key_hash(inode.mount, inode.ino))
    cdef Inode *parent = NULL
    name[0] = 0
    lock(&shard.lock)
    if inode.parent != NONE:
        parent = at_slot(table, inode.parent)
        fetch_add64(&parent.state, 1)
        if inode.name != NAME_NONE:
            name_copy(&table.names, inode.name, name)
    unlock(&shard.lock)
    # Whoever evicts it waits for nobody but those who evict what is above it.
    while parent != NULL and load_acquire64(&parent.state) & EVICTING:
        sched_yield()
    return parent


cdef Inode *first_to_open(InodeTable *table, Inode *inode, Inode **parent, char *name, int *depth) noexcept nogil:
    """The topmost of the inode and its ancestors that has no descriptor, pinned; `parent`: the next one above, pinned.
    NULL: an ancestor is not in the share any more.
    """
    cdef Inode *target = inode
    fetch_add64(&target.state, 1)
    depth[0] = 0
    while True:
        parent[0] = pin_parent(table, target, name)
        if parent[0] != NULL and parent[0].fd >= 0:
            return target
        inode_release(table, target)
        if parent[0] == NULL:
            return NULL
        target = parent[0]
        depth[0] += 1


cdef int reopen_by_name(InodeTable *table, Inode *inode) noexcept nogil:
    """Opens the topmost ancestor that has no descriptor, then the next one below it, down to the inode itself.

    A descriptor of an ancestor may be evicted again on the way, which is why the search starts over from below each
    time, and is bounded.
    """
    cdef Inode *target
    cdef Inode *parent
    cdef char name[NAME_MAX + 1]
    cdef bint done
    cdef int tries = 0
    cdef int deepest = 0
    cdef int depth, fd
    while True:
        target = first_to_open(table, inode, &parent, name, &depth)
        if target == NULL:
            return -ESTALE
        if depth > deepest:
            deepest = depth
        tries += 1
        parent.recent = 1
        fd = open_named(table, target, parent.fd, name) if name[0] else -ESTALE
        if fd == -ESTALE:
            fd = open_renamed(table, target, parent.fd)
        fd = adopt(table, target, fd)
        done = fd < 0 or target == inode
        inode_release(table, parent)
        inode_release(table, target)
        if done:
            return fd
        if tries > deepest + REOPEN_TRIES:
            return -ENFILE


cdef int adopt(InodeTable *table, Inode *inode, int fd) noexcept nogil:
    """Gives the record the descriptor, unless another thread was faster. What it has then; a -errno goes through."""
    cdef Shard *shard = shard_of(table, key_hash(inode.mount, inode.ino))
    cdef int other
    if fd < 0:
        return fd
    fetch_add32(&table.account.cached, 1)
    lock(&shard.lock)
    other = inode.fd
    if other < 0:
        store_fd(inode, fd)
        inode.flags &= <uint8_t> ~(INODE_BY_FILE | INODE_NEW)
        # Where the guest let go of it in the meantime, its last pin closes it; it is not in the cache.
        if is_guests(inode) or inode.children:
            cache_insert(table, shard, inode)
        inode.recent = 1
    unlock(&shard.lock)
    if other >= 0:
        sys_close(fd)
        fetch_sub32(&table.account.cached, 1)
        return other
    make_room(table)
    return fd


# A file that a guest has created needs no descriptor but the open one, until that is closed: many are only written,
# and never asked for again.

cdef Handle *pin_file(InodeTable *table, Inode *inode) noexcept nogil:
    """The open file that a pinned inode is reached by, pinned as well; NULL: there is none, or not any more."""
    cdef Shard *shard = shard_of(table, key_hash(inode.mount, inode.ino))
    cdef bint by_file
    cdef uint32_t slot
    lock(&shard.lock)
    by_file = inode.flags & INODE_BY_FILE
    slot = inode.lru_next
    unlock(&shard.lock)
    return handle_in(table.handles, slot, inode_nodeid(inode)) if by_file else NULL


cdef int inode_borrow_fd(InodeTable *table, Inode *inode, Handle **file) noexcept nogil:
    """inode_fd(), or the open file's descriptor where that is all there is: for calls to which either will do.
    inode_return_fd() has to follow.
    """
    file[0] = NULL
    if <int> load_acquire32(<uint32_t *> &inode.fd) < 0:
        file[0] = pin_file(table, inode)
        if file[0] != NULL:
            return file[0].fd
    return inode_fd(table, inode)


cdef void inode_return_fd(InodeTable *table, Handle *file) noexcept nogil:
    if file != NULL:
        handle_release(table.handles, file)


cdef void inode_reach_by(InodeTable *table, Inode *inode, uint64_t fh) noexcept nogil:
    """A pinned inode that was added as `opened` is reached by this open file from now on, if by nothing else yet."""
    cdef Shard *shard = shard_of(table, key_hash(inode.mount, inode.ino))
    lock(&shard.lock)
    if inode.flags & INODE_NEW:
        inode.lru_next = <uint32_t> fh
        inode.flags = <uint8_t> (inode.flags & ~INODE_NEW | INODE_BY_FILE)
    unlock(&shard.lock)


cdef bint wants_descriptor(const Handle *file, bint *linked) noexcept nogil:
    """Whether the file has no name any more, by which its handle would still find it (not `linked`); or so much in it
    that its last descriptor has to be left to the pool: whoever closes that frees it all.
    """
    cdef linux_statx stat
    linked[0] = sys_statx(file.fd, "", AT_EMPTY_PATH, STATX_NLINK | STATX_SIZE, &stat) == 0 and stat.stx_nlink != 0
    return not linked[0] or stat.stx_size > MUCH


cdef void inode_outlive(InodeTable *table, Inode *inode, const Handle *file) noexcept nogil:
    """The guest closes a file of the pinned inode, which has no descriptor and may be reached by this file alone: its
    handle will find it, or it gets a descriptor.
    """
    cdef Shard *shard = shard_of(table, key_hash(inode.mount, inode.ino))
    cdef bint by_file = inode.flags & INODE_BY_FILE and inode.lru_next == file.slot
    cdef bint linked
    cdef linux_file_handle handle
    if <int> load_acquire32(<uint32_t *> &inode.fd) >= 0:
        return
    if not by_file and (inode.kind != S_IFREG or file.keep or not load_acquire8(&inode.handle_size)):
        return
    if wants_descriptor(file, &linked) and adopt(table, inode, open_again(table, file.fd)) >= 0:
        return
    if not by_file:
        return
    if not linked or file_handle(file.fd, &handle) < 0:
        handle.handle_bytes = 0
    lock(&shard.lock)
    if inode.flags & INODE_BY_FILE:
        inode.flags &= <uint8_t> ~INODE_BY_FILE
        if handle.handle_bytes:
            note_handle(inode, &handle)
        else:
            inode_lose(table, shard, inode)     # nothing finds it, and its number may be another file's soon
    unlock(&shard.lock)


# Closing descriptors.

cdef inline bint is_guests(const Inode *inode) noexcept nogil:
    """Whether one of the pins is the guest's. The shard is locked."""
    return inode.lookups != 0 or (inode.flags & INODE_REMEMBERED) != 0


cdef void make_room(InodeTable *table) noexcept nogil:
    """Closes what the budget does not allow any more. Where that can be done in a moment only, it waits: whoever asks
    for many new files shall have them slowly rather than not at all.
    """
    cdef uint32_t over = descriptors_over_budget(table.account)
    cdef uint32_t pause = 0
    cdef int looks = 0
    cdef bint settles = False
    # Half the reserve may be used meanwhile: by what is open, which nothing can be done about.
    while over and evict(table, over if over < EVICT_TRIES else EVICT_TRIES, &settles) == 0 and settles and \
            over > table.account.reserve / 2 and looks * SETTLING_LOOK_NS < SETTLING_NS:
        sys_futex_wait(&pause, 0, SETTLING_LOOK_NS)
        settles = False
        looks += 1
        over = descriptors_over_budget(table.account)


cdef Closable found_by_name(InodeTable *table, Inode *inode, const linux_statx *stat) noexcept nogil:
    """Whether the inode would be found again by parent and name, and nothing else taken for it. It is EVICTING.

    A file that was born just now could be replaced by one with the same number and birth time, within one tick of the
    file system's clock; so its descriptor is kept until it is older than that.
    """
    cdef const linux_statx_time *born = &stat.stx_ctime if inode.flags & INODE_BY_CTIME else &stat.stx_btime
    cdef char name[NAME_MAX + 1]
    cdef linux_statx there
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
    if parent != NULL and name[0] and (parent.fd < 0 or (
            sys_statx(parent.fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, IDENTITY, &there) == 0
            and same_file(table, inode, &there))):
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
    if not by_handle and not remembered or \
            sys_statx(inode.fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, IDENTITY, &stat) < 0:
        return STAYS
    if stat.stx_nlink == 0 and remembered:
        return GONE
    if by_handle and (stat.stx_nlink > 0 or (inode.kind == S_IFREG and opens_counted
                                             and not load_relaxed32(&inode.opens))):
        return CLOSES
    return STAYS


cdef Inode *claim_last(InodeTable *table, Shard *shard) noexcept nogil:
    """Claims the least recently used inode of the shard: out of the list, pinned and marked EVICTING. NULL: there is
    none, or it gets a second chance since it was used. The shard is locked.
    """
    cdef Inode *inode
    cdef uint64_t state
    if shard.lru_last == NONE:
        return NULL
    inode = at_slot(table, shard.lru_last)
    cache_remove(table, shard, inode)
    # What is pinned now, but by its children, is used now. Their number does not change meanwhile: the shard is locked.
    state = load_acquire64(&inode.state)
    if not inode.recent and not inode.flags & INODE_KEEP and state & PINS and \
            state & PINS == load_relaxed32(&inode.children) + <uint64_t> is_guests(inode) and \
            compare_exchange64(&inode.state, &state, (state | EVICTING) + 1):
        return inode
    inode.recent = 0
    cache_insert(table, shard, inode)
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
        inode = claim_last(table, shard)
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
    lock(&shard.lock)
    slot = shard.lru_first
    while slot != NONE:
        left += 1
        slot = at_slot(table, slot).lru_next
    unlock(&shard.lock)
    while left:
        left -= 1
        lock(&shard.lock)
        inode = claim_last(table, shard)
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


cdef uint32_t evict(InodeTable *table, uint32_t count, bint *settles) noexcept nogil:
    """inodes_evict(); `settles` becomes true where one of those that it left could be closed in a moment."""
    cdef uint32_t evicted = 0
    cdef uint32_t misses = 0
    cdef uint32_t shard
    while evicted < count and misses < 2 * SHARDS:
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
    return evict(table, count, &settles)
