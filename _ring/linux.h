/* System calls as the data plane makes them: each returns its result or -errno, and none goes through a wrapper of the
   C library that would act on the whole process (setresuid) or be missing from an older C library. The frequent ones
   go past those wrappers, too, which are cancellation points and cost two atomic operations.
   A call that a signal interrupted is made again; a handler never sees EINTR. */
#ifndef VIRTIOFSD_LINUX_H
#define VIRTIOFSD_LINUX_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/fsverity.h>
#include <linux/futex.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#ifndef FUSE_SUPER_MAGIC
#define FUSE_SUPER_MAGIC 0x65735546
#endif

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#ifndef RWF_NOWAIT
#define RWF_NOWAIT 0x8
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif
#ifndef AT_STATX_DONT_SYNC
#define AT_STATX_DONT_SYNC 0x4000
#endif
#ifndef F_OFD_GETLK
#define F_OFD_GETLK 36
#define F_OFD_SETLK 37
#define F_OFD_SETLKW 38
#endif
#ifndef AT_STATX_FORCE_SYNC
#define AT_STATX_FORCE_SYNC 0x2000
#endif
#ifndef STATX_MNT_ID
#define STATX_MNT_ID 0x1000U
#endif

/* struct statx with the fields up to the mount id, whatever the C library's headers know. */
struct linux_statx_time {
    int64_t tv_sec;
    uint32_t tv_nsec;
    int32_t reserved;
};

struct linux_statx {
    uint32_t stx_mask;
    uint32_t stx_blksize;
    uint64_t stx_attributes;
    uint32_t stx_nlink;
    uint32_t stx_uid;
    uint32_t stx_gid;
    uint16_t stx_mode;
    uint16_t spare0;
    uint64_t stx_ino;
    uint64_t stx_size;
    uint64_t stx_blocks;
    uint64_t stx_attributes_mask;
    struct linux_statx_time stx_atime;
    struct linux_statx_time stx_btime;
    struct linux_statx_time stx_ctime;
    struct linux_statx_time stx_mtime;
    uint32_t stx_rdev_major;
    uint32_t stx_rdev_minor;
    uint32_t stx_dev_major;
    uint32_t stx_dev_minor;
    uint64_t stx_mnt_id;
    uint64_t spare[13];
};
_Static_assert(sizeof(struct linux_statx) == 256, "statx");

struct linux_dirent {
    uint64_t d_ino;
    int64_t d_off;
    uint16_t d_reclen;
    uint8_t d_type;
    char d_name[5];
};
_Static_assert(offsetof(struct linux_dirent, d_name) == 19, "linux_dirent64");

/* struct file_handle with room for the largest one. */
struct linux_file_handle {
    uint32_t handle_bytes;
    int32_t handle_type;
    uint8_t f_handle[128];
};

static inline int64_t sys_result(long result) { return result < 0 ? -(int64_t)errno : result; }

/* What requests are made of goes to the kernel directly: the C library's functions for it are points at which a thread
 * may be cancelled, and note that with two atomic operations each. */
#define SYS_RETRIED(call) \
    long result; \
    do { result = (call); } while (result < 0 && errno == EINTR); \
    return sys_result(result)

static inline int sys_statx(int dir, const char *path, int flags, unsigned mask, struct linux_statx *stat) {
    SYS_RETRIED(syscall(SYS_statx, dir, path, flags, mask, stat));
}
static inline int sys_openat(int dir, const char *path, int flags, unsigned mode) {
    SYS_RETRIED(syscall(SYS_openat, dir, path, flags | O_CLOEXEC, mode));
}
static inline int sys_close(int fd) { return sys_result(syscall(SYS_close, fd)); }
static inline int sys_close_range(int first, int last) {
    return sys_result(syscall(SYS_close_range, first, last, 0));
}
static inline int sys_dup(int fd) { return sys_result(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }
static inline int sys_dup3(int from, int to) { SYS_RETRIED(dup3(from, to, O_CLOEXEC)); }
/* A position is two words, of which the high one counts only where a word has 32 bits. */
#define OFFSET(offset) (long)(offset), (long)((uint64_t)(offset) >> 32)

static inline int64_t sys_preadv(int fd, const struct iovec *iov, int count, int64_t offset) {
    SYS_RETRIED(syscall(SYS_preadv, fd, iov, count, OFFSET(offset)));
}
static inline int64_t sys_preadv2(int fd, const struct iovec *iov, int count, int64_t offset, int flags) {
    SYS_RETRIED(syscall(SYS_preadv2, fd, iov, count, OFFSET(offset), flags));
}
static inline int64_t sys_pwritev(int fd, const struct iovec *iov, int count, int64_t offset) {
    SYS_RETRIED(syscall(SYS_pwritev, fd, iov, count, OFFSET(offset)));
}
static inline int64_t sys_write(int fd, const void *data, size_t size) {
    SYS_RETRIED(syscall(SYS_write, fd, data, size));
}
/* Whether a write would not block. */
static inline int sys_writable(int fd) {
    struct pollfd wanted = {.fd = fd, .events = POLLOUT};
    return poll(&wanted, 1, 0) == 1;
}
static inline int sys_has_flag(int fd, int flag) {
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & flag);
}
static inline int sys_appends(int fd) { return sys_has_flag(fd, O_APPEND); }
static inline int sys_nonblocking(int fd) { return sys_has_flag(fd, O_NONBLOCK); }
static inline int64_t sys_send(int fd, const void *data, size_t size, int flags) {
    SYS_RETRIED(send(fd, data, size, flags));
}
static inline int64_t sys_getdents64(int fd, void *buffer, size_t size) {
    SYS_RETRIED(syscall(SYS_getdents64, fd, buffer, size));
}
static inline int64_t sys_lseek(int fd, int64_t offset, int whence) { SYS_RETRIED(lseek(fd, offset, whence)); }
static inline int64_t sys_readlinkat(int dir, const char *path, char *buffer, size_t size) {
    SYS_RETRIED(readlinkat(dir, path, buffer, size));
}
static inline int sys_symlinkat(const char *target, int dir, const char *path) {
    SYS_RETRIED(symlinkat(target, dir, path));
}
static inline int sys_mknodat(int dir, const char *path, unsigned mode, unsigned device) {
    SYS_RETRIED(syscall(SYS_mknodat, dir, path, mode, device));
}
static inline int sys_mkdirat(int dir, const char *path, unsigned mode) { SYS_RETRIED(mkdirat(dir, path, mode)); }
static inline int sys_unlinkat(int dir, const char *path, int flags) { SYS_RETRIED(unlinkat(dir, path, flags)); }
static inline int sys_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    SYS_RETRIED(syscall(SYS_renameat2, from_dir, from, to_dir, to, flags));
}
static inline int sys_linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    SYS_RETRIED(linkat(from_dir, from, to_dir, to, flags));
}
static inline int sys_fchmodat(int dir, const char *path, unsigned mode) {
    SYS_RETRIED(syscall(SYS_fchmodat, dir, path, mode));
}
static inline int sys_fchmodat2(int dir, const char *path, unsigned mode, int flags) {
    SYS_RETRIED(syscall(SYS_fchmodat2, dir, path, mode, flags));
}
static inline int sys_fchownat(int dir, const char *path, unsigned uid, unsigned gid, int flags) {
    SYS_RETRIED(fchownat(dir, path, uid, gid, flags));
}
static inline int sys_utimensat(int dir, const char *path, const struct timespec times[2], int flags) {
    SYS_RETRIED(syscall(SYS_utimensat, dir, path, times, flags));
}
static inline int sys_truncate(const char *path, int64_t size) { SYS_RETRIED(truncate(path, size)); }
static inline int sys_ftruncate(int fd, int64_t size) { SYS_RETRIED(ftruncate(fd, size)); }
static inline int sys_fallocate(int fd, int mode, int64_t offset, int64_t length) {
    SYS_RETRIED(fallocate(fd, mode, offset, length));
}
static inline int64_t sys_copy_file_range(int from, int64_t *from_offset, int to, int64_t *to_offset, size_t length,
                                          unsigned flags) {
    SYS_RETRIED(syscall(SYS_copy_file_range, from, from_offset, to, to_offset, length, flags));
}
static inline int sys_fsync(int fd) { SYS_RETRIED(fsync(fd)); }
static inline int sys_fdatasync(int fd) { SYS_RETRIED(fdatasync(fd)); }
static inline int sys_syncfs(int fd) { SYS_RETRIED(syncfs(fd)); }
static inline int sys_fstatfs(int fd, struct statfs *stat) { SYS_RETRIED(fstatfs(fd, stat)); }
/* Which file system the descriptor is on, by its magic number; 0: nobody knows. */
static inline uint32_t file_system_type(int fd) {
    struct statfs stat;
    return sys_fstatfs(fd, &stat) < 0 ? 0 : (uint32_t)stat.f_type;
}
/* Whose a file system is. ELSEWHERE, another program or machine numbers the files, which may give a number away though
   we hold a descriptor. Of a LOCAL one it is known that it has no part in opening and closing (no flush operation). */
enum { OWNER_UNKNOWN, OWNER_LOCAL, OWNER_ELSEWHERE };
static inline int file_system_owner(uint32_t type) {
    static const uint32_t elsewhere[] = {
        0x65735546 /* FUSE */, NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, 0xff534d42 /* CIFS */, 0xfe534d42 /* SMB2 */,
        V9FS_MAGIC, 0x00c36400 /* Ceph */, AFS_SUPER_MAGIC, CODA_SUPER_MAGIC, 0x786f4256 /* VirtualBox */};
    static const uint32_t local[] = {
        EXT4_SUPER_MAGIC, 0x58465342 /* XFS */, BTRFS_SUPER_MAGIC, TMPFS_MAGIC, 0xf2f52010 /* F2FS */,
        0xca451a4e /* bcachefs */};
    for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++)
        if (type == elsewhere[i])
            return OWNER_ELSEWHERE;
    for (size_t i = 0; i < sizeof local / sizeof *local; i++)
        if (type == local[i])
            return OWNER_LOCAL;
    return OWNER_UNKNOWN;
}
/* Whether it is known that a new file has, until it is changed, the times of its birth. XFS gives it the access list of
 * its directory later. */
static inline int file_system_born_whole(uint32_t type) {
    return type == EXT4_SUPER_MAGIC || type == BTRFS_SUPER_MAGIC || type == TMPFS_MAGIC;
}
static inline int64_t sys_getxattr(const char *path, const char *name, void *value, size_t size) {
    SYS_RETRIED(getxattr(path, name, value, size));
}
static inline int64_t sys_listxattr(const char *path, char *list, size_t size) {
    SYS_RETRIED(listxattr(path, list, size));
}
static inline int sys_setxattr(const char *path, const char *name, const void *value, size_t size, int flags) {
    SYS_RETRIED(setxattr(path, name, value, size, flags));
}
static inline int sys_removexattr(const char *path, const char *name) { SYS_RETRIED(removexattr(path, name)); }
static inline int sys_name_to_handle_at(int dir, const char *path, struct linux_file_handle *handle, int *mount_id,
                                        int flags) {
    SYS_RETRIED(syscall(SYS_name_to_handle_at, dir, path, handle, mount_id, flags));
}
static inline int sys_open_by_handle_at(int mount_fd, struct linux_file_handle *handle, int flags) {
    SYS_RETRIED(syscall(SYS_open_by_handle_at, mount_fd, handle, flags | O_CLOEXEC));
}

static inline int sys_ioctl(int fd, unsigned long request, void *argument) {
    SYS_RETRIED(ioctl(fd, request, argument));
}
static inline int sys_flock(int fd, int operation) { return sys_result(flock(fd, operation)); }
static inline int sys_fcntl_lock(int fd, int command, struct flock *lock) {
    return sys_result(fcntl(fd, command, lock));
}

/* The signal that makes a blocking lock return: directed at one thread, which alone does not block it. */
static inline int sys_interrupt(int tid) { return sys_result(syscall(SYS_tgkill, getpid(), tid, SIGRTMIN + 1)); }
static inline void interrupt_handler(int number) { (void)number; }
static inline int interrupt_allow(void) {
    struct sigaction action;
    sigset_t set;
    memset(&action, 0, sizeof action);
    action.sa_handler = interrupt_handler;
    sigemptyset(&action.sa_mask);
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 1);
    if (sigaction(SIGRTMIN + 1, &action, NULL) < 0)
        return -errno;
    return -pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* What is written to or read from may be the peer's as well, who can have it block at any time. The control plane does
   not wait for it: a timer cuts its write short. */
static inline int64_t sys_write_briefly(int fd, const void *data, size_t size) {
    const struct itimerval soon = {{0, 5000}, {0, 5000}}, never = {{0, 0}, {0, 0}};
    struct sigaction action, action_before;
    sigset_t alarm, blocked_before;
    memset(&action, 0, sizeof action);
    action.sa_handler = interrupt_handler;
    sigemptyset(&action.sa_mask);
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    if (sigaction(SIGALRM, &action, &action_before) < 0)
        return -errno;
    pthread_sigmask(SIG_UNBLOCK, &alarm, &blocked_before);
    setitimer(ITIMER_REAL, &soon, NULL);
    int64_t result = sys_result(syscall(SYS_write, fd, data, size));
    setitimer(ITIMER_REAL, &never, NULL);
    pthread_sigmask(SIG_SETMASK, &blocked_before, NULL);
    sigaction(SIGALRM, &action_before, NULL);
    return result;
}
/* Empties an eventfd, without waiting for something in it. Who hung in writing to it goes on. */
static inline int64_t sys_drain(int fd) {
    uint64_t count;
    struct iovec room = {&count, sizeof count};
    return sys_result(syscall(SYS_preadv2, fd, &room, 1, -1L, -1L, RWF_NOWAIT));
}

/* Credentials of the calling thread alone; the C library's functions would change every thread. */
static inline int sys_setresuid(uint32_t real, uint32_t effective, uint32_t saved) {
    return sys_result(syscall(SYS_setresuid, real, effective, saved));
}
static inline int sys_setresgid(uint32_t real, uint32_t effective, uint32_t saved) {
    return sys_result(syscall(SYS_setresgid, real, effective, saved));
}
static inline int sys_setgroups(int count, const uint32_t *groups) {
    return sys_result(syscall(SYS_setgroups, count, groups));
}
static inline int sys_capset(uint64_t effective, uint64_t permitted, uint64_t inheritable) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[2] = {
        {(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
        {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)}};
    return sys_result(syscall(SYS_capset, &header, data));
}
static inline int sys_capget(uint64_t *effective, uint64_t *permitted, uint64_t *inheritable) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[2] = {{0, 0, 0}, {0, 0, 0}};
    int result = sys_result(syscall(SYS_capget, &header, data));
    *effective = data[0].effective | (uint64_t)data[1].effective << 32;
    *permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
    *inheritable = data[0].inheritable | (uint64_t)data[1].inheritable << 32;
    return result;
}
static inline int sys_keep_capabilities(void) { return sys_result(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)); }
/* Restricts the calling thread, and those that it starts, to what the filter allows. */
static inline int sys_seccomp(const void *program, uint16_t instructions) {
    struct sock_fprog filter = {.len = instructions, .filter = (struct sock_filter *)program};
    return sys_result(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter));
}
static inline int sys_unshare(int flags) { return sys_result(unshare(flags)); }
static inline int sys_fchdir(int fd) { return sys_result(fchdir(fd)); }
static inline unsigned sys_umask(unsigned mask) { return umask(mask); }
static inline uint32_t sys_geteuid(void) { return (uint32_t)syscall(SYS_geteuid); }
static inline uint32_t sys_getegid(void) { return (uint32_t)syscall(SYS_getegid); }
static inline int sys_gettid(void) { return (int)syscall(SYS_gettid); }

static inline int sys_eventfd(void) { return sys_result(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }
static inline int sys_epoll_create(void) { return sys_result(epoll_create1(EPOLL_CLOEXEC)); }
static inline int sys_epoll_add(int epoll, int fd, uint32_t events, uint64_t data) {
    struct epoll_event event = {.events = events, .data = {.u64 = data}};
    return sys_result(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
}
static inline int sys_epoll_remove(int epoll, int fd) {
    return sys_result(epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL));
}
/* Not made again after a signal: the caller looks at everything anyway. A negative timeout waits for ever. */
static inline int sys_epoll_wait(int epoll, struct epoll_event *events, int count, int64_t timeout_ns) {
    if (timeout_ns < 0)
        return sys_result(epoll_wait(epoll, events, count, -1));
    struct timespec timeout = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    long result = syscall(SYS_epoll_pwait2, epoll, events, count, &timeout, NULL, 0);
    if (result < 0 && errno == ENOSYS)
        result = epoll_wait(epoll, events, count, (int)((timeout_ns + 999999) / 1000000));
    return sys_result(result);
}
static inline int sys_futex_wait(uint32_t *word, uint32_t expected, int64_t timeout_ns) {
    struct timespec timeout = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    return sys_result(syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout_ns < 0 ? NULL : &timeout));
}
static inline int sys_futex_wake(uint32_t *word, int count) {
    return sys_result(syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count));
}

/* Nanoseconds of the time of day, as exact as a tick. */
static inline int64_t clock_realtime_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline int64_t sys_getrandom(void *buffer, size_t size) {
    return sys_result(syscall(SYS_getrandom, buffer, size, 0));
}
static inline int64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Nanoseconds for which the calling thread has run. */
static inline uint64_t clock_thread_cpu_ns(void) {
    struct timespec ran;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ran);
    return (uint64_t)ran.tv_sec * 1000000000 + (uint64_t)ran.tv_nsec;
}

/* Opens the calling thread's scheduler statistics, and reads from them how many nanoseconds it has waited for a CPU. */
static inline int open_schedstat(int proc_self_fd) {
    char path[48];
    snprintf(path, sizeof path, "../task/%d/schedstat", (int)syscall(SYS_gettid));
    return sys_openat(proc_self_fd, path, O_RDONLY, 0);
}
/* Whether a thread of this process runs or could run, by the state in its stat line. */
static inline int thread_runnable(int proc_self_fd, int tid) {
    char path[40], text[256];
    snprintf(path, sizeof path, "../task/%d/stat", tid);
    int fd = sys_openat(proc_self_fd, path, O_RDONLY, 0);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    if (size <= 0)
        return 0;
    text[size] = 0;
    char *name_end = strrchr(text, ')');
    return name_end && name_end[1] && name_end[2] == 'R';
}
static inline uint64_t run_delay(int fd) {
    char text[96];
    ssize_t size = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);
    if (size <= 0)
        return 0;
    text[size] = 0;
    char *second = strchr(text, ' ');
    return second ? strtoull(second, NULL, 10) : 0;
}

/* "1234" of 1234, in a buffer of at least 12 bytes. */
static inline char *decimal(char *buffer, int number) {
    char digits[12];
    int count = 0, at = 0;
    unsigned rest = (unsigned)number;
    do { digits[count++] = (char)('0' + rest % 10); } while (rest /= 10);
    while (count) buffer[at++] = digits[--count];
    buffer[at] = 0;
    return buffer;
}

static inline int sys_errno(void) { return -errno; }

/* Whether `end` bytes of the file can be mapped, and the size of its pages: a shorter file would raise SIGBUS, and one
   that the front-end serves itself, by FUSE, could have whoever touches it wait for ever. */
static inline int sys_mappable(int fd, uint64_t end, uint64_t *page) {
    struct statfs file_system;
    struct stat file;
    *page = (uint64_t)sysconf(_SC_PAGESIZE);
    if (fstat(fd, &file) < 0)
        return -errno;
    if (S_ISREG(file.st_mode) && end > (uint64_t)file.st_size)
        return -EINVAL;
    if (fstatfs(fd, &file_system) < 0)
        return 0;
    if ((uint64_t)file_system.f_type == FUSE_SUPER_MAGIC)
        return -EOPNOTSUPP;
    if ((uint64_t)file_system.f_type == HUGETLBFS_MAGIC)
        *page = (uint64_t)file_system.f_bsize;
    return 0;
}

/* Device numbers as FUSE has them in 32 bits. */
static inline uint32_t device_encode(uint32_t major, uint32_t minor) {
    return (minor & 0xff) | (major << 8) | ((minor & ~0xffU) << 12);
}
static inline uint32_t device_major(uint32_t rdev) { return rdev >> 8 & 0xfff; }
static inline uint32_t device_minor(uint32_t rdev) { return (rdev & 0xff) | (rdev >> 12 & ~0xffU); }

/* "uid:gid:mode:kind" as containers/storage writes it; rdev in the encoding of device_encode. */
static inline void format_override(char *text, size_t size, uint32_t uid, uint32_t gid, uint32_t mode, uint32_t rdev) {
    uint32_t major = device_major(rdev), minor = device_minor(rdev);
    int at = snprintf(text, size, "%u:%u:%04o:", uid, gid, mode & 07777);
    switch (mode & S_IFMT) {
    case S_IFDIR: snprintf(text + at, size - at, "dir"); break;
    case S_IFLNK: snprintf(text + at, size - at, "symlink"); break;
    case S_IFIFO: snprintf(text + at, size - at, "pipe"); break;
    case S_IFSOCK: snprintf(text + at, size - at, "socket"); break;
    case S_IFCHR: snprintf(text + at, size - at, "char-%u-%u", major, minor); break;
    case S_IFBLK: snprintf(text + at, size - at, "block-%u-%u", major, minor); break;
    default: snprintf(text + at, size - at, "file");
    }
}

static inline uint64_t mix64(uint64_t value) {
    value ^= value >> 33;
    value *= 0xff51afd7ed558ccdULL;
    value ^= value >> 33;
    value *= 0xc4ceb9fe1a85ec53ULL;
    return value ^ value >> 33;
}

/* A thread with every signal blocked but those that a fault raises in it. */
typedef void *(*thread_main)(void *);
static inline int thread_start(pthread_t *thread, thread_main entry, void *argument, size_t stack) {
    sigset_t all, before;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, stack);
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGABRT);
    sigdelset(&all, SIGSYS);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, &attributes, entry, argument);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -error;
}
/* By the thread itself: another one would need /proc, of which a sandbox has little. */
static inline void thread_name(const char *name) { prctl(PR_SET_NAME, name); }

#endif
