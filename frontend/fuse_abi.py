"""The FUSE protocol 7.45 (Linux include/uapi/linux/fuse.h): opcodes, flags and wire structs.

Written by tools/generate_abi.py from tools/abi/fuse.toml.
"""

from enum import IntEnum

from virtiofsd.layout import Layout

FUSE_KERNEL_VERSION = 7
FUSE_KERNEL_MINOR_VERSION = 45
FUSE_ROOT_ID = 1

FUSE_COMPAT_INIT_OUT_SIZE = 8
FUSE_COMPAT_22_INIT_OUT_SIZE = 24


class Opcode(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


FUSE_INIT_BSWAP_RESERVED = 0x1a000000

FUSE_MAX_NR_SECCTX = 31
FUSE_EXT_GROUPS = 32

FUSE_ASYNC_READ = 1
FUSE_POSIX_LOCKS = 2
FUSE_FILE_OPS = 4
FUSE_ATOMIC_O_TRUNC = 8
FUSE_EXPORT_SUPPORT = 16
FUSE_BIG_WRITES = 32
FUSE_DONT_MASK = 64
FUSE_SPLICE_WRITE = 128
FUSE_SPLICE_MOVE = 0x100
FUSE_SPLICE_READ = 0x200
FUSE_FLOCK_LOCKS = 0x400
FUSE_HAS_IOCTL_DIR = 0x800
FUSE_AUTO_INVAL_DATA = 0x1000
FUSE_DO_READDIRPLUS = 0x2000
FUSE_READDIRPLUS_AUTO = 0x4000
FUSE_ASYNC_DIO = 0x8000
FUSE_WRITEBACK_CACHE = 0x10000
FUSE_NO_OPEN_SUPPORT = 0x20000
FUSE_PARALLEL_DIROPS = 0x40000
FUSE_HANDLE_KILLPRIV = 0x80000
FUSE_POSIX_ACL = 0x100000
FUSE_ABORT_ERROR = 0x200000
FUSE_MAX_PAGES = 0x400000
FUSE_CACHE_SYMLINKS = 0x800000
FUSE_NO_OPENDIR_SUPPORT = 0x1000000
FUSE_EXPLICIT_INVAL_DATA = 0x2000000
FUSE_MAP_ALIGNMENT = 0x4000000
FUSE_SUBMOUNTS = 0x8000000
FUSE_HANDLE_KILLPRIV_V2 = 0x10000000
FUSE_SETXATTR_EXT = 0x20000000
FUSE_INIT_EXT = 0x40000000
FUSE_INIT_RESERVED = 0x80000000
FUSE_SECURITY_CTX = 0x100000000
FUSE_HAS_INODE_DAX = 0x200000000
FUSE_CREATE_SUPP_GROUP = 0x400000000
FUSE_HAS_EXPIRE_ONLY = 0x800000000
FUSE_DIRECT_IO_ALLOW_MMAP = 0x1000000000
FUSE_PASSTHROUGH = 0x2000000000
FUSE_NO_EXPORT_SUPPORT = 0x4000000000
FUSE_HAS_RESEND = 0x8000000000
FUSE_ALLOW_IDMAP = 0x10000000000
FUSE_OVER_IO_URING = 0x20000000000
FUSE_REQUEST_TIMEOUT = 0x40000000000

FUSE_ATTR_SUBMOUNT = 1
FUSE_ATTR_DAX = 2

FUSE_GETATTR_FH = 1

FUSE_RELEASE_FLUSH = 1
FUSE_RELEASE_FLOCK_UNLOCK = 2

FUSE_LK_FLOCK = 1

FUSE_WRITE_CACHE = 1
FUSE_WRITE_LOCKOWNER = 2
FUSE_WRITE_KILL_SUIDGID = 4

FUSE_READ_LOCKOWNER = 2

FUSE_FSYNC_FDATASYNC = 1

FUSE_IOCTL_COMPAT = 1
FUSE_IOCTL_UNRESTRICTED = 2
FUSE_IOCTL_RETRY = 4
FUSE_IOCTL_32BIT = 8
FUSE_IOCTL_DIR = 16
FUSE_IOCTL_COMPAT_X32 = 32

FUSE_OPEN_KILL_SUIDGID = 1

FUSE_SETXATTR_ACL_KILL_SGID = 1

FUSE_SETUPMAPPING_FLAG_WRITE = 1
FUSE_SETUPMAPPING_FLAG_READ = 2

FATTR_MODE = 1
FATTR_UID = 2
FATTR_GID = 4
FATTR_SIZE = 8
FATTR_ATIME = 16
FATTR_MTIME = 32
FATTR_FH = 64
FATTR_ATIME_NOW = 128
FATTR_MTIME_NOW = 0x100
FATTR_LOCKOWNER = 0x200
FATTR_CTIME = 0x400
FATTR_KILL_SUIDGID = 0x800

FOPEN_DIRECT_IO = 1
FOPEN_KEEP_CACHE = 2
FOPEN_NONSEEKABLE = 4
FOPEN_CACHE_DIR = 8
FOPEN_STREAM = 16
FOPEN_NOFLUSH = 32
FOPEN_PARALLEL_DIRECT_WRITES = 64
FOPEN_PASSTHROUGH = 128

IN_HEADER = Layout("in_header", "=IIQQIIIHH", "len opcode unique nodeid uid gid pid total_extlen padding")
OUT_HEADER = Layout("out_header", "=IiQ", "len error unique")
ATTR = Layout("attr", "=QQQQQQIIIIIIIIII", "ino size blocks atime mtime ctime atimensec mtimensec ctimensec mode "
              "nlink uid gid rdev blksize flags")
SX_TIME = Layout("sx_time", "=qIi", "tv_sec tv_nsec reserved")
STATX = Layout("statx", "=IIQIIIHHQQQQqIiqIiqIiqIiIIII112s", "mask blksize attributes nlink uid gid mode spare0 "
               "ino size blocks attributes_mask atime_tv_sec atime_tv_nsec atime_reserved btime_tv_sec "
               "btime_tv_nsec btime_reserved ctime_tv_sec ctime_tv_nsec ctime_reserved mtime_tv_sec mtime_tv_nsec "
               "mtime_reserved rdev_major rdev_minor dev_major dev_minor spare2")
KSTATFS = Layout("kstatfs", "=QQQQQIIII24s", "blocks bfree bavail files ffree bsize namelen frsize padding spare")
FILE_LOCK = Layout("file_lock", "=QQII", "start end type pid")
ENTRY_OUT = Layout("entry_out", "=QQQQIIQQQQQQIIIIIIIIII", "nodeid generation entry_valid attr_valid "
                   "entry_valid_nsec attr_valid_nsec attr_ino attr_size attr_blocks attr_atime attr_mtime "
                   "attr_ctime attr_atimensec attr_mtimensec attr_ctimensec attr_mode attr_nlink attr_uid "
                   "attr_gid attr_rdev attr_blksize attr_flags")
FORGET_IN = Layout("forget_in", "=Q", "nlookup")
FORGET_ONE = Layout("forget_one", "=QQ", "nodeid nlookup")
BATCH_FORGET_IN = Layout("batch_forget_in", "=II", "count dummy")
GETATTR_IN = Layout("getattr_in", "=IIQ", "getattr_flags dummy fh")
ATTR_OUT = Layout("attr_out", "=QIIQQQQQQIIIIIIIIII", "attr_valid attr_valid_nsec dummy attr_ino attr_size "
                  "attr_blocks attr_atime attr_mtime attr_ctime attr_atimensec attr_mtimensec attr_ctimensec "
                  "attr_mode attr_nlink attr_uid attr_gid attr_rdev attr_blksize attr_flags")
STATX_IN = Layout("statx_in", "=IIQII", "getattr_flags reserved fh sx_flags sx_mask")
STATX_OUT = Layout("statx_out", "=QII16sIIQIIIHHQQQQqIiqIiqIiqIiIIII112s", "attr_valid attr_valid_nsec flags "
                   "spare stat_mask stat_blksize stat_attributes stat_nlink stat_uid stat_gid stat_mode "
                   "stat_spare0 stat_ino stat_size stat_blocks stat_attributes_mask stat_atime_tv_sec "
                   "stat_atime_tv_nsec stat_atime_reserved stat_btime_tv_sec stat_btime_tv_nsec "
                   "stat_btime_reserved stat_ctime_tv_sec stat_ctime_tv_nsec stat_ctime_reserved "
                   "stat_mtime_tv_sec stat_mtime_tv_nsec stat_mtime_reserved stat_rdev_major stat_rdev_minor "
                   "stat_dev_major stat_dev_minor stat_spare2")
MKNOD_IN = Layout("mknod_in", "=IIII", "mode rdev umask padding")
MKDIR_IN = Layout("mkdir_in", "=II", "mode umask")
RENAME_IN = Layout("rename_in", "=Q", "newdir")
RENAME2_IN = Layout("rename2_in", "=QII", "newdir flags padding")
LINK_IN = Layout("link_in", "=Q", "oldnodeid")
SETATTR_IN = Layout("setattr_in", "=IIQQQQQQIIIIIIII", "valid padding fh size lock_owner atime mtime ctime "
                    "atimensec mtimensec ctimensec mode unused4 uid gid unused5")
OPEN_IN = Layout("open_in", "=II", "flags open_flags")
CREATE_IN = Layout("create_in", "=IIII", "flags mode umask open_flags")
OPEN_OUT = Layout("open_out", "=QIi", "fh open_flags backing_id")
RELEASE_IN = Layout("release_in", "=QIIQ", "fh flags release_flags lock_owner")
FLUSH_IN = Layout("flush_in", "=QIIQ", "fh unused padding lock_owner")
READ_IN = Layout("read_in", "=QQIIQII", "fh offset size read_flags lock_owner flags padding")
WRITE_IN = Layout("write_in", "=QQIIQII", "fh offset size write_flags lock_owner flags padding")
WRITE_OUT = Layout("write_out", "=II", "size padding")
STATFS_OUT = Layout("statfs_out", "=QQQQQIIII24s", "st_blocks st_bfree st_bavail st_files st_ffree st_bsize "
                    "st_namelen st_frsize st_padding st_spare")
FSYNC_IN = Layout("fsync_in", "=QII", "fh fsync_flags padding")
SETXATTR_IN = Layout("setxattr_in", "=IIII", "size flags setxattr_flags padding")
SETXATTR_IN_COMPAT = Layout("setxattr_in_compat", "=II", "size flags")
GETXATTR_IN = Layout("getxattr_in", "=II", "size padding")
GETXATTR_OUT = Layout("getxattr_out", "=II", "size padding")
LK_IN = Layout("lk_in", "=QQQQIIII", "fh owner lk_start lk_end lk_type lk_pid lk_flags padding")
LK_OUT = Layout("lk_out", "=QQII", "lk_start lk_end lk_type lk_pid")
ACCESS_IN = Layout("access_in", "=II", "mask padding")
INIT_IN = Layout("init_in", "=IIIII44s", "major minor max_readahead flags flags2 unused")
INIT_IN_COMPAT = Layout("init_in_compat", "=IIII", "major minor max_readahead flags")
INIT_OUT = Layout("init_out", "=IIIIHHIIHHIIH22s", "major minor max_readahead flags max_background "
                  "congestion_threshold max_write time_gran max_pages map_alignment flags2 max_stack_depth "
                  "request_timeout unused")
INTERRUPT_IN = Layout("interrupt_in", "=Q", "unique")
BMAP_IN = Layout("bmap_in", "=QII", "block blocksize padding")
BMAP_OUT = Layout("bmap_out", "=Q", "block")
IOCTL_IN = Layout("ioctl_in", "=QIIQII", "fh flags cmd arg in_size out_size")
IOCTL_OUT = Layout("ioctl_out", "=iIII", "result flags in_iovs out_iovs")
POLL_IN = Layout("poll_in", "=QQII", "fh kh flags events")
POLL_OUT = Layout("poll_out", "=II", "revents padding")
FALLOCATE_IN = Layout("fallocate_in", "=QQQII", "fh offset length mode padding")
LSEEK_IN = Layout("lseek_in", "=QQII", "fh offset whence padding")
LSEEK_OUT = Layout("lseek_out", "=Q", "offset")
COPY_FILE_RANGE_IN = Layout("copy_file_range_in", "=QQQQQQQ", "fh_in off_in nodeid_out fh_out off_out len flags")
COPY_FILE_RANGE_OUT = Layout("copy_file_range_out", "=Q", "bytes_copied")
SETUPMAPPING_IN = Layout("setupmapping_in", "=QQQQQ", "fh foffset len flags moffset")
REMOVEMAPPING_IN = Layout("removemapping_in", "=I", "count")
REMOVEMAPPING_ONE = Layout("removemapping_one", "=QQ", "moffset len")
SYNCFS_IN = Layout("syncfs_in", "=Q", "padding")
DIRENT = Layout("dirent", "=QQII", "ino off namelen type")
DIRENTPLUS = Layout("direntplus", "=QQQQIIQQQQQQIIIIIIIIIIQQII", "entry_out_nodeid entry_out_generation "
                    "entry_out_entry_valid entry_out_attr_valid entry_out_entry_valid_nsec "
                    "entry_out_attr_valid_nsec entry_out_attr_ino entry_out_attr_size entry_out_attr_blocks "
                    "entry_out_attr_atime entry_out_attr_mtime entry_out_attr_ctime entry_out_attr_atimensec "
                    "entry_out_attr_mtimensec entry_out_attr_ctimensec entry_out_attr_mode entry_out_attr_nlink "
                    "entry_out_attr_uid entry_out_attr_gid entry_out_attr_rdev entry_out_attr_blksize "
                    "entry_out_attr_flags dirent_ino dirent_off dirent_namelen dirent_type")
EXT_HEADER = Layout("ext_header", "=II", "size type")
SECCTX = Layout("secctx", "=II", "size padding")
