# The FUSE protocol 7.45 (Linux include/uapi/linux/fuse.h): opcodes, flags and wire structs.
# Written by tools/generate_abi.py from tools/abi/fuse.toml.

from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t

cdef extern from "fuse_abi.h" nogil:
    enum:
        FUSE_KERNEL_VERSION
        FUSE_KERNEL_MINOR_VERSION
        FUSE_ROOT_ID
    enum:
        FUSE_COMPAT_INIT_OUT_SIZE
        FUSE_COMPAT_22_INIT_OUT_SIZE
    enum:
        FUSE_LOOKUP
        FUSE_FORGET
        FUSE_GETATTR
        FUSE_SETATTR
        FUSE_READLINK
        FUSE_SYMLINK
        FUSE_MKNOD
        FUSE_MKDIR
        FUSE_UNLINK
        FUSE_RMDIR
        FUSE_RENAME
        FUSE_LINK
        FUSE_OPEN
        FUSE_READ
        FUSE_WRITE
        FUSE_STATFS
        FUSE_RELEASE
        FUSE_FSYNC
        FUSE_SETXATTR
        FUSE_GETXATTR
        FUSE_LISTXATTR
        FUSE_REMOVEXATTR
        FUSE_FLUSH
        FUSE_INIT
        FUSE_OPENDIR
        FUSE_READDIR
        FUSE_RELEASEDIR
        FUSE_FSYNCDIR
        FUSE_GETLK
        FUSE_SETLK
        FUSE_SETLKW
        FUSE_ACCESS
        FUSE_CREATE
        FUSE_INTERRUPT
        FUSE_BMAP
        FUSE_DESTROY
        FUSE_IOCTL
        FUSE_POLL
        FUSE_NOTIFY_REPLY
        FUSE_BATCH_FORGET
        FUSE_FALLOCATE
        FUSE_READDIRPLUS
        FUSE_RENAME2
        FUSE_LSEEK
        FUSE_COPY_FILE_RANGE
        FUSE_SETUPMAPPING
        FUSE_REMOVEMAPPING
        FUSE_SYNCFS
        FUSE_TMPFILE
        FUSE_STATX
        FUSE_COPY_FILE_RANGE_64
    enum:
        FUSE_INIT_BSWAP_RESERVED
    enum:
        FUSE_MAX_NR_SECCTX
        FUSE_EXT_GROUPS
    enum:
        FUSE_ASYNC_READ
        FUSE_POSIX_LOCKS
        FUSE_FILE_OPS
        FUSE_ATOMIC_O_TRUNC
        FUSE_EXPORT_SUPPORT
        FUSE_BIG_WRITES
        FUSE_DONT_MASK
        FUSE_SPLICE_WRITE
        FUSE_SPLICE_MOVE
        FUSE_SPLICE_READ
        FUSE_FLOCK_LOCKS
        FUSE_HAS_IOCTL_DIR
        FUSE_AUTO_INVAL_DATA
        FUSE_DO_READDIRPLUS
        FUSE_READDIRPLUS_AUTO
        FUSE_ASYNC_DIO
        FUSE_WRITEBACK_CACHE
        FUSE_NO_OPEN_SUPPORT
        FUSE_PARALLEL_DIROPS
        FUSE_HANDLE_KILLPRIV
        FUSE_POSIX_ACL
        FUSE_ABORT_ERROR
        FUSE_MAX_PAGES
        FUSE_CACHE_SYMLINKS
        FUSE_NO_OPENDIR_SUPPORT
        FUSE_EXPLICIT_INVAL_DATA
        FUSE_MAP_ALIGNMENT
        FUSE_SUBMOUNTS
        FUSE_HANDLE_KILLPRIV_V2
        FUSE_SETXATTR_EXT
        FUSE_INIT_EXT
    # wider than an enum's member
    const uint64_t FUSE_INIT_RESERVED
    const uint64_t FUSE_SECURITY_CTX
    const uint64_t FUSE_HAS_INODE_DAX
    const uint64_t FUSE_CREATE_SUPP_GROUP
    const uint64_t FUSE_HAS_EXPIRE_ONLY
    const uint64_t FUSE_DIRECT_IO_ALLOW_MMAP
    const uint64_t FUSE_PASSTHROUGH
    const uint64_t FUSE_NO_EXPORT_SUPPORT
    const uint64_t FUSE_HAS_RESEND
    const uint64_t FUSE_ALLOW_IDMAP
    const uint64_t FUSE_OVER_IO_URING
    const uint64_t FUSE_REQUEST_TIMEOUT
    enum:
        FUSE_ATTR_SUBMOUNT
        FUSE_ATTR_DAX
    enum:
        FUSE_GETATTR_FH
    enum:
        FUSE_RELEASE_FLUSH
        FUSE_RELEASE_FLOCK_UNLOCK
    enum:
        FUSE_LK_FLOCK
    enum:
        FUSE_WRITE_CACHE
        FUSE_WRITE_LOCKOWNER
        FUSE_WRITE_KILL_SUIDGID
    enum:
        FUSE_READ_LOCKOWNER
    enum:
        FUSE_FSYNC_FDATASYNC
    enum:
        FUSE_IOCTL_COMPAT
        FUSE_IOCTL_UNRESTRICTED
        FUSE_IOCTL_RETRY
        FUSE_IOCTL_32BIT
        FUSE_IOCTL_DIR
        FUSE_IOCTL_COMPAT_X32
    enum:
        FUSE_OPEN_KILL_SUIDGID
    enum:
        FUSE_SETXATTR_ACL_KILL_SGID
    enum:
        FUSE_SETUPMAPPING_FLAG_WRITE
        FUSE_SETUPMAPPING_FLAG_READ
    enum:
        FATTR_MODE
        FATTR_UID
        FATTR_GID
        FATTR_SIZE
        FATTR_ATIME
        FATTR_MTIME
        FATTR_FH
        FATTR_ATIME_NOW
        FATTR_MTIME_NOW
        FATTR_LOCKOWNER
        FATTR_CTIME
        FATTR_KILL_SUIDGID
    enum:
        FOPEN_DIRECT_IO
        FOPEN_KEEP_CACHE
        FOPEN_NONSEEKABLE
        FOPEN_CACHE_DIR
        FOPEN_STREAM
        FOPEN_NOFLUSH
        FOPEN_PARALLEL_DIRECT_WRITES
        FOPEN_PASSTHROUGH

    struct fuse_in_header:
        uint32_t len
        uint32_t opcode
        uint64_t unique
        uint64_t nodeid
        uint32_t uid
        uint32_t gid
        uint32_t pid
        uint16_t total_extlen
        uint16_t padding

    struct fuse_out_header:
        uint32_t len
        int32_t error
        uint64_t unique

    struct fuse_attr:
        uint64_t ino
        uint64_t size
        uint64_t blocks
        uint64_t atime
        uint64_t mtime
        uint64_t ctime
        uint32_t atimensec
        uint32_t mtimensec
        uint32_t ctimensec
        uint32_t mode
        uint32_t nlink
        uint32_t uid
        uint32_t gid
        uint32_t rdev
        uint32_t blksize
        uint32_t flags

    struct fuse_sx_time:
        int64_t tv_sec
        uint32_t tv_nsec
        int32_t reserved

    struct fuse_statx:
        uint32_t mask
        uint32_t blksize
        uint64_t attributes
        uint32_t nlink
        uint32_t uid
        uint32_t gid
        uint16_t mode
        uint16_t spare0
        uint64_t ino
        uint64_t size
        uint64_t blocks
        uint64_t attributes_mask
        fuse_sx_time atime
        fuse_sx_time btime
        fuse_sx_time ctime
        fuse_sx_time mtime
        uint32_t rdev_major
        uint32_t rdev_minor
        uint32_t dev_major
        uint32_t dev_minor
        uint64_t spare2[14]

    struct fuse_kstatfs:
        uint64_t blocks
        uint64_t bfree
        uint64_t bavail
        uint64_t files
        uint64_t ffree
        uint32_t bsize
        uint32_t namelen
        uint32_t frsize
        uint32_t padding
        uint32_t spare[6]

    struct fuse_file_lock:
        uint64_t start
        uint64_t end
        uint32_t type
        uint32_t pid

    struct fuse_entry_out:
        uint64_t nodeid
        uint64_t generation
        uint64_t entry_valid
        uint64_t attr_valid
        uint32_t entry_valid_nsec
        uint32_t attr_valid_nsec
        fuse_attr attr

    struct fuse_forget_in:
        uint64_t nlookup

    struct fuse_forget_one:
        uint64_t nodeid
        uint64_t nlookup

    struct fuse_batch_forget_in:
        uint32_t count
        uint32_t dummy

    struct fuse_getattr_in:
        uint32_t getattr_flags
        uint32_t dummy
        uint64_t fh

    struct fuse_attr_out:
        uint64_t attr_valid
        uint32_t attr_valid_nsec
        uint32_t dummy
        fuse_attr attr

    struct fuse_statx_in:
        uint32_t getattr_flags
        uint32_t reserved
        uint64_t fh
        uint32_t sx_flags
        uint32_t sx_mask

    struct fuse_statx_out:
        uint64_t attr_valid
        uint32_t attr_valid_nsec
        uint32_t flags
        uint64_t spare[2]
        fuse_statx stat

    struct fuse_mknod_in:
        uint32_t mode
        uint32_t rdev
        uint32_t umask
        uint32_t padding

    struct fuse_mkdir_in:
        uint32_t mode
        uint32_t umask

    struct fuse_rename_in:
        uint64_t newdir

    struct fuse_rename2_in:
        uint64_t newdir
        uint32_t flags
        uint32_t padding

    struct fuse_link_in:
        uint64_t oldnodeid

    struct fuse_setattr_in:
        uint32_t valid
        uint32_t padding
        uint64_t fh
        uint64_t size
        uint64_t lock_owner
        uint64_t atime
        uint64_t mtime
        uint64_t ctime
        uint32_t atimensec
        uint32_t mtimensec
        uint32_t ctimensec
        uint32_t mode
        uint32_t unused4
        uint32_t uid
        uint32_t gid
        uint32_t unused5

    struct fuse_open_in:
        uint32_t flags
        uint32_t open_flags

    struct fuse_create_in:
        uint32_t flags
        uint32_t mode
        uint32_t umask
        uint32_t open_flags

    struct fuse_open_out:
        uint64_t fh
        uint32_t open_flags
        int32_t backing_id

    struct fuse_release_in:
        uint64_t fh
        uint32_t flags
        uint32_t release_flags
        uint64_t lock_owner

    struct fuse_flush_in:
        uint64_t fh
        uint32_t unused
        uint32_t padding
        uint64_t lock_owner

    struct fuse_read_in:
        uint64_t fh
        uint64_t offset
        uint32_t size
        uint32_t read_flags
        uint64_t lock_owner
        uint32_t flags
        uint32_t padding

    struct fuse_write_in:
        uint64_t fh
        uint64_t offset
        uint32_t size
        uint32_t write_flags
        uint64_t lock_owner
        uint32_t flags
        uint32_t padding

    struct fuse_write_out:
        uint32_t size
        uint32_t padding

    struct fuse_statfs_out:
        fuse_kstatfs st

    struct fuse_fsync_in:
        uint64_t fh
        uint32_t fsync_flags
        uint32_t padding

    struct fuse_setxattr_in:
        uint32_t size
        uint32_t flags
        uint32_t setxattr_flags
        uint32_t padding

    struct fuse_setxattr_in_compat:
        uint32_t size
        uint32_t flags

    struct fuse_getxattr_in:
        uint32_t size
        uint32_t padding

    struct fuse_getxattr_out:
        uint32_t size
        uint32_t padding

    struct fuse_lk_in:
        uint64_t fh
        uint64_t owner
        fuse_file_lock lk
        uint32_t lk_flags
        uint32_t padding

    struct fuse_lk_out:
        fuse_file_lock lk

    struct fuse_access_in:
        uint32_t mask
        uint32_t padding

    struct fuse_init_in:
        uint32_t major
        uint32_t minor
        uint32_t max_readahead
        uint32_t flags
        uint32_t flags2
        uint32_t unused[11]

    struct fuse_init_in_compat:
        uint32_t major
        uint32_t minor
        uint32_t max_readahead
        uint32_t flags

    struct fuse_init_out:
        uint32_t major
        uint32_t minor
        uint32_t max_readahead
        uint32_t flags
        uint16_t max_background
        uint16_t congestion_threshold
        uint32_t max_write
        uint32_t time_gran
        uint16_t max_pages
        uint16_t map_alignment
        uint32_t flags2
        uint32_t max_stack_depth
        uint16_t request_timeout
        uint16_t unused[11]

    struct fuse_interrupt_in:
        uint64_t unique

    struct fuse_bmap_in:
        uint64_t block
        uint32_t blocksize
        uint32_t padding

    struct fuse_bmap_out:
        uint64_t block

    struct fuse_ioctl_in:
        uint64_t fh
        uint32_t flags
        uint32_t cmd
        uint64_t arg
        uint32_t in_size
        uint32_t out_size

    struct fuse_ioctl_out:
        int32_t result
        uint32_t flags
        uint32_t in_iovs
        uint32_t out_iovs

    struct fuse_poll_in:
        uint64_t fh
        uint64_t kh
        uint32_t flags
        uint32_t events

    struct fuse_poll_out:
        uint32_t revents
        uint32_t padding

    struct fuse_fallocate_in:
        uint64_t fh
        uint64_t offset
        uint64_t length
        uint32_t mode
        uint32_t padding

    struct fuse_lseek_in:
        uint64_t fh
        uint64_t offset
        uint32_t whence
        uint32_t padding

    struct fuse_lseek_out:
        uint64_t offset

    struct fuse_copy_file_range_in:
        uint64_t fh_in
        uint64_t off_in
        uint64_t nodeid_out
        uint64_t fh_out
        uint64_t off_out
        uint64_t len
        uint64_t flags

    struct fuse_copy_file_range_out:
        uint64_t bytes_copied

    struct fuse_setupmapping_in:
        uint64_t fh
        uint64_t foffset
        uint64_t len
        uint64_t flags
        uint64_t moffset

    struct fuse_removemapping_in:
        uint32_t count

    struct fuse_removemapping_one:
        uint64_t moffset
        uint64_t len

    struct fuse_syncfs_in:
        uint64_t padding

    struct fuse_dirent:
        uint64_t ino
        uint64_t off
        uint32_t namelen
        uint32_t type

    struct fuse_direntplus:
        fuse_entry_out entry_out
        fuse_dirent dirent

    struct fuse_ext_header:
        uint32_t size
        uint32_t type

    struct fuse_secctx:
        uint32_t size
        uint32_t padding
