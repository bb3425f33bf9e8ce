"""The descriptors of inodes: cached within the process's budget, and opened again. See "Inodes" in ARCHITECTURE.md."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from .atomics cimport fetch_add32, fetch_add64, fetch_sub32, load_acquire8, load_acquire32
from .handles cimport Handle, handle_in, handle_release
from .inode_eviction cimport RESERVE_FOR_KNOWN, has_room, inodes_evict, make_room
from .inode_identity cimport IDENTITY, file_handle, note_handle, same_file
from .inode_lifetime cimport cache_insert, inode_acquire, inode_lose, inode_release, inodes_close_pending, pin_parent
from .inode_places cimport inode_seen_at
from .inode_table cimport (
    INODE_BY_FILE, INODE_NEW, MUCH, Inode, InodeTable, Shard, inode_nodeid, is_guests, key_hash, shard_of, store_fd)
from .linux cimport (
    AT_EMPTY_PATH, AT_NO_AUTOMOUNT, EMFILE, ENFILE, ENODATA, ENOENT, ESTALE, O_DIRECTORY, O_NOFOLLOW, O_PATH, O_RDONLY,
    STATX_NLINK, STATX_SIZE, S_IFREG, decimal, linux_dirent, linux_file_handle, linux_statx, memcpy, sys_close,
    sys_getdents64, sys_open_by_handle_at, sys_openat, sys_statx)
from .mutex cimport lock, unlock
from .names cimport NAME_MAX

cdef enum:
    WAY = 512                   # ancestors that are opened one below the other, between two looks from below
    LISTING = 4096
    MAKE_ROOM = 32              # cached descriptors closed when the process has run out of them
    START_OVER = -4096          # no errno is as large
    REOPEN_TRIES = 64           # parents that are opened on the way to one file, beyond its depth


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
        fd = open_again(table, file.fd) if has_room(table, RESERVE_FOR_KNOWN) else -ENFILE
        handle_release(table.handles, file)
        return adopt(table, inode, fd)
    # Another thread may have given it one, and the file been closed.
    fd = <int> load_acquire32(<uint32_t *> &inode.fd)
    if fd >= 0:
        return fd
    if not has_room(table, RESERVE_FOR_KNOWN):
        return -ENFILE
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


cdef int open_renamed(InodeTable *table, Inode *inode, Inode *parent) noexcept nogil:
    """Looks for the file under another name in its directory: the host may have renamed it. fd or -ESTALE. Both are
    pinned; the name is remembered.
    """
    cdef uint64_t listing[LISTING / 8]
    cdef const linux_dirent *entry
    cdef char name[16]
    cdef int fd = -ESTALE
    cdef int64_t got, at
    cdef int directory = sys_openat(table.proc_fd, decimal(name, parent.fd), O_RDONLY | O_DIRECTORY, 0)
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
                fd = open_named(table, inode, parent.fd, entry.d_name)
                if fd >= 0:
                    inode_seen_at(table, inode, parent, entry.d_name)
            at += entry.d_reclen
    sys_close(directory)
    return fd


cdef void let_way_go(InodeTable *table, Inode **way, uint32_t first, uint32_t end) noexcept nogil:
    cdef uint32_t number
    for number in range(first, end):
        inode_release(table, way[number % WAY])


cdef inline uint32_t first_held(uint32_t count) noexcept nogil:
    """The lowest number that still stands in the way of so many."""
    return count - WAY if count > WAY else 0


cdef uint32_t climb(InodeTable *table, Inode *inode, Inode **way) noexcept nogil:
    """The inode and its ancestors, pinned, up to the first whose parent has a descriptor. How many there are: number n
    stands in way[n % WAY], and of a long way its upper end. 0: an ancestor is not in the share any more.
    """
    cdef Inode *at = inode
    cdef Inode *parent
    cdef char name[NAME_MAX + 1]
    cdef uint32_t count = 0
    fetch_add64(&at.state, 1)
    while True:
        if count >= WAY:
            inode_release(table, way[count % WAY])
        way[count % WAY] = at
        count += 1
        parent = pin_parent(table, at, name)
        if parent == NULL:
            let_way_go(table, way, first_held(count), count)
            return 0
        if parent.fd >= 0:
            inode_release(table, parent)
            return count
        at = parent


cdef int open_below(InodeTable *table, Inode *inode) noexcept nogil:
    """Opens it by its name in its parent. fd, -errno; START_OVER: the parent has no descriptor any more."""
    cdef char name[NAME_MAX + 1]
    cdef Inode *parent = pin_parent(table, inode, name)
    cdef int fd = START_OVER
    if parent == NULL:
        return -ESTALE
    if parent.fd >= 0:
        parent.recent = 1
        fd = open_named(table, inode, parent.fd, name) if name[0] else -ESTALE
        if fd == -ESTALE:
            fd = open_renamed(table, inode, parent)
        fd = adopt(table, inode, fd)
    inode_release(table, parent)
    return fd


cdef int reopen_by_name(InodeTable *table, Inode *inode) noexcept nogil:
    """Opens the topmost ancestor that has no descriptor, then the next one below it, down to the inode itself.

    What the host or the guest moves on the way makes the search start over, which is why it is bounded.
    """
    cdef Inode *way[WAY]
    cdef uint32_t count, left, first
    cdef uint32_t tries = 0
    cdef uint32_t deepest = 0
    cdef int fd
    while True:
        count = climb(table, inode, way)
        if count == 0:
            return -ESTALE
        deepest = count if count > deepest else deepest
        first = first_held(count)
        left = count
        fd = 0
        while left > first and fd >= 0:
            left -= 1
            fd = open_below(table, way[left % WAY])
            # Pinned as long as the one below it is being opened, it keeps its descriptor.
            if left + 1 < count:
                inode_release(table, way[(left + 1) % WAY])
        let_way_go(table, way, first, left + 1)
        if fd != START_OVER and (fd < 0 or left == 0):
            return fd
        tries += 1
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


cdef int inode_borrow(InodeTable *table, uint64_t nodeid, Borrowed *out) noexcept nogil:
    """Pins the inode, with a descriptor for calls to which O_PATH and an open file's will both do: its own, or that of
    the open file that it is reached by. 0, and inode_give_back() has to follow; or -ESTALE, -errno.
    """
    cdef Inode *inode = inode_acquire(table, nodeid)
    if inode == NULL:
        return -ESTALE
    out.inode = inode
    out.file = pin_file(table, inode) if <int> load_acquire32(<uint32_t *> &inode.fd) < 0 else NULL
    out.fd = out.file.fd if out.file != NULL else inode_fd(table, inode)
    if out.fd >= 0:
        return 0
    inode_release(table, inode)
    return out.fd


cdef void inode_give_back(InodeTable *table, Borrowed *borrowed) noexcept nogil:
    if borrowed.file != NULL:
        handle_release(table.handles, borrowed.file)
    inode_release(table, borrowed.inode)


cdef void inode_reach_by(InodeTable *table, Inode *inode, const Handle *file) noexcept nogil:
    """A pinned inode that was added as `opened` is reached by this open file from now on, if by nothing else yet. NULL:
    it could not be opened after all.
    """
    cdef Shard *shard = shard_of(table, key_hash(inode.mount, inode.ino))
    lock(&shard.lock)
    if inode.flags & INODE_NEW:
        inode.flags &= <uint8_t> ~INODE_NEW
        if file != NULL:
            inode.lru_next = file.slot
            inode.flags |= INODE_BY_FILE
        else:
            inode_lose(table, shard, inode)     # nothing finds it, and its number may be another file's soon
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
