# System calls and constants of Linux, as linux.h has them: results are >= 0 or -errno. Declarations only.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "linux.h" nogil:
    # errors
    enum:
        E2BIG
        EACCES
        EAGAIN
        EBADF
        EDEADLK
        EEXIST
        EDQUOT
        EFBIG
        EINTR
        EINVAL
        EIO
        EISDIR
        EMFILE
        ENFILE
        ENODATA
        ENOENT
        ENOLCK
        ENOMEM
        ENOSPC
        ENOSYS
        ENOTDIR
        ENOTSOCK
        ENOTTY
        ENXIO
        EOPNOTSUPP
        EOVERFLOW
        EPERM
        EPROTO
        ERANGE
        EROFS
        ESTALE
        ETIMEDOUT
        ETXTBSY

    # open and the *at calls
    enum:
        O_RDONLY
        O_WRONLY
        O_RDWR
        O_ACCMODE
        O_APPEND
        O_CREAT
        O_DIRECT
        O_DIRECTORY
        O_EXCL
        O_NOATIME
        O_NOCTTY
        O_NOFOLLOW
        O_NONBLOCK
        O_PATH
        O_SYNC
        O_DSYNC
        O_TMPFILE
        O_TRUNC
        AT_EMPTY_PATH
        AT_NO_AUTOMOUNT
        AT_REMOVEDIR
        AT_STATX_DONT_SYNC
        AT_STATX_FORCE_SYNC
        AT_SYMLINK_FOLLOW
        AT_SYMLINK_NOFOLLOW
        RENAME_EXCHANGE
        RENAME_NOREPLACE
        RENAME_WHITEOUT
        RWF_NOWAIT
        SEEK_SET
        SEEK_DATA
        SEEK_HOLE
        XATTR_CREATE
        XATTR_REPLACE
        IOV_MAX
        UTIME_NOW
        UTIME_OMIT
        FS_IOC_ENABLE_VERITY
        FS_IOC_FSGETXATTR
        FS_IOC_FSSETXATTR
        FS_IOC_GETFLAGS
        FS_IOC_MEASURE_VERITY
        FS_IOC_SETFLAGS
        FS_IOC32_GETFLAGS
        FS_IOC32_SETFLAGS
        FS_PROJINHERIT_FL
        FS_XFLAG_PROJINHERIT

    enum:
        S_IFMT
        S_IFBLK
        S_IFCHR
        S_IFDIR
        S_IFIFO
        S_IFLNK
        S_IFREG
        S_IFSOCK
        S_ISGID
        S_IWUSR
        S_IRWXG
        S_IWGRP
        S_IRWXO
        S_IWOTH
        S_ISUID
        S_IXGRP

    enum:
        STATX_BASIC_STATS
        STATX_BTIME
        STATX_CTIME
        STATX_GID
        STATX_MNT_ID
        STATX_MODE
        STATX_MTIME
        STATX_NLINK
        STATX_SIZE
        STATX_INO

    enum:
        CLONE_FS
        EPOLLET
        EPOLLIN
        MADV_DONTNEED
        MAP_ANONYMOUS
        MAP_NORESERVE
        MAP_PRIVATE
        MAP_SHARED
        MSG_DONTWAIT
        MSG_NOSIGNAL
        PROT_READ
        PROT_WRITE
        CAP_DAC_OVERRIDE
        CAP_FSETID
        CAP_SETGID
        CAP_SETUID

    void *MAP_FAILED

    ctypedef unsigned long pthread_t

    struct iovec:
        void *iov_base
        size_t iov_len

    enum:
        F_OFD_GETLK
        F_OFD_SETLK
        F_OFD_SETLKW
        F_RDLCK
        F_UNLCK
        F_WRLCK
        LOCK_EX
        LOCK_NB
        LOCK_SH
        LOCK_UN

    struct fsxattr:
        uint32_t fsx_xflags
        uint32_t fsx_projid

    struct fsverity_enable_arg:
        uint32_t salt_size
        uint64_t salt_ptr
        uint32_t sig_size
        uint64_t sig_ptr

    struct fsverity_digest:
        uint16_t digest_algorithm
        uint16_t digest_size

    struct flock:
        short l_type
        short l_whence
        int64_t l_start
        int64_t l_len
        int l_pid

    struct timespec:
        int64_t tv_sec
        int64_t tv_nsec

    union epoll_data:
        uint64_t u64

    struct epoll_event:
        uint32_t events
        epoll_data data

    struct statfs:
        int64_t f_type
        int64_t f_bsize
        uint64_t f_blocks
        uint64_t f_bfree
        uint64_t f_bavail
        uint64_t f_files
        uint64_t f_ffree
        int64_t f_namelen
        int64_t f_frsize

    struct linux_statx_time:
        int64_t tv_sec
        uint32_t tv_nsec

    struct linux_statx:
        uint32_t stx_mask
        uint32_t stx_blksize
        uint64_t stx_attributes
        uint32_t stx_nlink
        uint32_t stx_uid
        uint32_t stx_gid
        uint16_t stx_mode
        uint64_t stx_ino
        uint64_t stx_size
        uint64_t stx_blocks
        uint64_t stx_attributes_mask
        linux_statx_time stx_atime
        linux_statx_time stx_btime
        linux_statx_time stx_ctime
        linux_statx_time stx_mtime
        uint32_t stx_rdev_major
        uint32_t stx_rdev_minor
        uint32_t stx_dev_major
        uint32_t stx_dev_minor
        uint64_t stx_mnt_id

    struct linux_dirent:
        uint64_t d_ino
        int64_t d_off
        uint16_t d_reclen
        uint8_t d_type
        char d_name[5]

    struct linux_file_handle:
        uint32_t handle_bytes
        int32_t handle_type
        uint8_t f_handle[128]

    ctypedef void *(*thread_main)(void *) noexcept nogil

    void *mmap(void *address, size_t length, int protection, int flags, int fd, int64_t offset)
    int madvise(void *address, size_t length, int advice)
    int munmap(void *address, size_t length)
    void *malloc(size_t size)
    void *calloc(size_t count, size_t size)
    void *aligned_alloc(size_t alignment, size_t size)
    void *realloc(void *memory, size_t size)
    void free(void *memory)
    void *memcpy(void *to, const void *source, size_t size)
    void *memmove(void *to, const void *source, size_t size)
    void *memset(void *to, int value, size_t size)
    void *memchr(const void *memory, int value, size_t size)
    int memcmp(const void *one, const void *other, size_t size)
    size_t strlen(const char *text)
    int strcmp(const char *one, const char *other)
    int strncmp(const char *one, const char *other, size_t size)
    int pthread_join(pthread_t thread, void **result)
    int pthread_detach(pthread_t thread)
    int sched_yield()
    void abort()

    int sys_statx(int dir, const char *path, int flags, unsigned int mask, linux_statx *stat)
    int sys_openat(int dir, const char *path, int flags, unsigned int mode)
    int sys_close(int fd)
    int sys_close_range(int first, int last)
    int sys_dup(int fd)
    int sys_dup3(int source, int to)
    int64_t sys_preadv(int fd, const iovec *iov, int count, int64_t offset)
    int64_t sys_preadv2(int fd, const iovec *iov, int count, int64_t offset, int flags)
    int64_t sys_pwritev(int fd, const iovec *iov, int count, int64_t offset)
    int64_t sys_write(int fd, const void *data, size_t size)
    int64_t sys_write_briefly(int fd, const void *data, size_t size)
    int64_t sys_drain(int fd)
    int sys_writable(int fd)
    bint sys_appends(int fd)
    bint sys_nonblocking(int fd)
    int64_t sys_send(int fd, const void *data, size_t size, int flags)
    int64_t sys_getdents64(int fd, void *buffer, size_t size)
    int64_t sys_lseek(int fd, int64_t offset, int whence)
    int64_t sys_readlinkat(int dir, const char *path, char *buffer, size_t size)
    int sys_symlinkat(const char *target, int dir, const char *path)
    int sys_mknodat(int dir, const char *path, unsigned int mode, unsigned int device)
    int sys_mkdirat(int dir, const char *path, unsigned int mode)
    int sys_unlinkat(int dir, const char *path, int flags)
    int sys_renameat2(int source_dir, const char *source, int to_dir, const char *to, unsigned int flags)
    int sys_linkat(int source_dir, const char *source, int to_dir, const char *to, int flags)
    int sys_fchmodat(int dir, const char *path, unsigned int mode)
    int sys_fchmodat2(int dir, const char *path, unsigned int mode, int flags)
    int sys_fchownat(int dir, const char *path, unsigned int uid, unsigned int gid, int flags)
    int sys_utimensat(int dir, const char *path, const timespec *times, int flags)
    int sys_truncate(const char *path, int64_t size)
    int sys_ftruncate(int fd, int64_t size)
    int sys_fallocate(int fd, int mode, int64_t offset, int64_t length)
    int64_t sys_copy_file_range(int source, int64_t *source_offset, int to, int64_t *to_offset, size_t length,
                                unsigned int flags)
    int sys_fsync(int fd)
    int sys_fdatasync(int fd)
    int sys_syncfs(int fd)
    int sys_fstatfs(int fd, statfs *stat)
    enum: OWNER_UNKNOWN, OWNER_LOCAL, OWNER_ELSEWHERE
    uint32_t file_system_type(int fd)
    int file_system_owner(uint32_t type)
    int file_system_born_whole(uint32_t type)
    int64_t sys_getxattr(const char *path, const char *name, void *value, size_t size)
    int64_t sys_listxattr(const char *path, char *list, size_t size)
    int sys_setxattr(const char *path, const char *name, const void *value, size_t size, int flags)
    int sys_removexattr(const char *path, const char *name)
    int sys_name_to_handle_at(int dir, const char *path, linux_file_handle *handle, int *mount_id, int flags)
    int sys_open_by_handle_at(int mount_fd, linux_file_handle *handle, int flags)
    int sys_ioctl(int fd, unsigned long request, void *argument)
    int sys_flock(int fd, int operation)
    int sys_fcntl_lock(int fd, int command, flock *lock)
    int sys_interrupt(int tid)
    int interrupt_allow()
    int sys_setresuid(uint32_t real, uint32_t effective, uint32_t saved)
    int sys_setresgid(uint32_t real, uint32_t effective, uint32_t saved)
    int sys_setgroups(int count, const uint32_t *groups)
    int sys_capset(uint64_t effective, uint64_t permitted, uint64_t inheritable)
    int sys_capget(uint64_t *effective, uint64_t *permitted, uint64_t *inheritable)
    int sys_keep_capabilities()
    int sys_seccomp(const void *program, uint16_t instructions)
    int sys_unshare(int flags)
    int sys_fchdir(int fd)
    unsigned int sys_umask(unsigned int mask)
    uint32_t sys_geteuid()
    uint32_t sys_getegid()
    int sys_gettid()
    int sys_eventfd()
    int sys_epoll_create()
    int sys_epoll_add(int epoll, int fd, uint32_t events, uint64_t data)
    int sys_epoll_remove(int epoll, int fd)
    int sys_epoll_wait(int epoll, epoll_event *events, int count, int64_t timeout_ns)
    int sys_futex_wait(uint32_t *word, uint32_t expected, int64_t timeout_ns)
    int sys_futex_wake(uint32_t *word, int count)
    int sys_errno()
    int sys_mappable(int fd, uint64_t end, uint64_t *page)
    int64_t clock_realtime_ns()
    int64_t clock_ns()
    int64_t sys_getrandom(void *buffer, size_t size)
    uint64_t clock_thread_cpu_ns()
    int open_schedstat(int proc_self_fd)
    int thread_runnable(int proc_self_fd, int tid)
    uint64_t run_delay(int fd)
    char *decimal(char *buffer, int number)
    void format_override(char *text, size_t size, uint32_t uid, uint32_t gid, uint32_t mode, uint32_t rdev)
    uint32_t device_encode(uint32_t major, uint32_t minor)
    uint32_t device_major(uint32_t rdev)
    uint32_t device_minor(uint32_t rdev)
    uint64_t mix64(uint64_t value)
    int thread_start(pthread_t *thread, thread_main entry, void *argument, size_t stack)
    void thread_name(const char *name)
