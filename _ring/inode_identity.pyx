"""What tells a file from all others, and how the files of a mount are found again."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from .atomics cimport fence_full, fetch_add32, fetch_sub32, load_acquire32, store_release8, store_release32
from .inode_table cimport (
    HANDLE_MAX, INODE_BY_CTIME, MOUNT_HANDLES, MOUNT_NAMES, MOUNT_UNKNOWN, ROOT_SLOT, Inode, InodeTable, Mount, at_slot)
from .linux cimport (
    AT_EMPTY_PATH, ENOENT, EOVERFLOW, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY, S_IFDIR, S_IFMT, decimal,
    file_system_born_whole, file_system_owner, file_system_type, linux_file_handle, linux_statx, linux_statx_time,
    memcpy, sys_close, sys_name_to_handle_at, sys_open_by_handle_at, sys_openat)
from .mutex cimport lock, unlock


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

cdef void mount_enter(InodeTable *table, uint32_t number) noexcept nogil:
    """There is a record of one of its files, or will be: how they are found again stays as it is. Of the root's mount
    nobody counts them: it has the root.
    """
    if number != at_slot(table, ROOT_SLOT).mount:
        fetch_add32(&table.mounts[number].inodes, 1)
        fence_full()    # who leaves last sees this, or mount_how() what that one has undone


cdef void mount_leave(InodeTable *table, uint32_t number) noexcept nogil:
    """After the last record nothing keeps the host from unmounting it, once mounts_close() was called. Somebody who has
    entered may find MOUNT_UNKNOWN for a moment: then names are noted in vain.
    """
    cdef Mount *mount = table.mounts + number
    cdef uint32_t how
    cdef int fd = -1
    if number == at_slot(table, ROOT_SLOT).mount or fetch_sub32(&mount.inodes, 1) != 1:
        return
    lock(&table.mount_lock)
    how = mount.how
    store_release32(&mount.how, MOUNT_UNKNOWN)
    fence_full()
    if load_acquire32(&mount.inodes) == 0:
        fd = mount.fd
        store_release32(<uint32_t *> &mount.fd, <uint32_t> -1)
        if fd >= 0 and mount.loose < 0:
            mount.loose = fd
            fd = -1
            fetch_add32(&table.loose_mounts, 1)
    elif how != MOUNT_UNKNOWN:
        store_release32(&mount.how, how)
    unlock(&table.mount_lock)
    if fd >= 0:
        sys_close(fd)


cdef void mounts_close(InodeTable *table) noexcept nogil:
    """Closes what mount_leave() has left behind. May sleep: it may be all that keeps the file system."""
    cdef Mount *mount
    cdef uint32_t i
    cdef int fd
    for i in range(load_acquire32(&table.mount_count)):
        mount = table.mounts + i
        if mount.loose < 0:
            continue
        lock(&table.mount_lock)
        fd = mount.loose
        mount.loose = -1
        unlock(&table.mount_lock)
        if fd >= 0:
            sys_close(fd)
            fetch_sub32(&table.loose_mounts, 1)


cdef int mount_fd(InodeTable *table, uint32_t number, int fd, uint32_t kind) noexcept nogil:
    """A descriptor on the mount by which handles can be opened (O_PATH will not do); -errno, -ENOENT: not by this file.

    It stays open, so it is a directory: a file could be unlinked and would take its space until the end. Who calls has
    entered the mount.
    """
    cdef Mount *mount = table.mounts + number
    cdef char name[16]
    cdef int found
    lock(&table.mount_lock)
    found = mount.fd
    unlock(&table.mount_lock)
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
    lock(&table.mount_lock)
    store_release32(&mount.how, <uint32_t> how)
    unlock(&table.mount_lock)
    return how
