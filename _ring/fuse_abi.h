/* The FUSE protocol 7.45 (Linux include/uapi/linux/fuse.h): opcodes, flags and wire structs.
   Written by tools/generate_abi.py from tools/abi/fuse.toml. */
#ifndef FUSE_ABI_H
#define FUSE_ABI_H

#include <stddef.h>
#include <stdint.h>

#define FUSE_KERNEL_VERSION 7
#define FUSE_KERNEL_MINOR_VERSION 45
#define FUSE_ROOT_ID 1

#define FUSE_COMPAT_INIT_OUT_SIZE 8
#define FUSE_COMPAT_22_INIT_OUT_SIZE 24

#define FUSE_LOOKUP 1
#define FUSE_FORGET 2
#define FUSE_GETATTR 3
#define FUSE_SETATTR 4
#define FUSE_READLINK 5
#define FUSE_SYMLINK 6
#define FUSE_MKNOD 8
#define FUSE_MKDIR 9
#define FUSE_UNLINK 10
#define FUSE_RMDIR 11
#define FUSE_RENAME 12
#define FUSE_LINK 13
#define FUSE_OPEN 14
#define FUSE_READ 15
#define FUSE_WRITE 16
#define FUSE_STATFS 17
#define FUSE_RELEASE 18
#define FUSE_FSYNC 20
#define FUSE_SETXATTR 21
#define FUSE_GETXATTR 22
#define FUSE_LISTXATTR 23
#define FUSE_REMOVEXATTR 24
#define FUSE_FLUSH 25
#define FUSE_INIT 26
#define FUSE_OPENDIR 27
#define FUSE_READDIR 28
#define FUSE_RELEASEDIR 29
#define FUSE_FSYNCDIR 30
#define FUSE_GETLK 31
#define FUSE_SETLK 32
#define FUSE_SETLKW 33
#define FUSE_ACCESS 34
#define FUSE_CREATE 35
#define FUSE_INTERRUPT 36
#define FUSE_BMAP 37
#define FUSE_DESTROY 38
#define FUSE_IOCTL 39
#define FUSE_POLL 40
#define FUSE_NOTIFY_REPLY 41
#define FUSE_BATCH_FORGET 42
#define FUSE_FALLOCATE 43
#define FUSE_READDIRPLUS 44
#define FUSE_RENAME2 45
#define FUSE_LSEEK 46
#define FUSE_COPY_FILE_RANGE 47
#define FUSE_SETUPMAPPING 48
#define FUSE_REMOVEMAPPING 49
#define FUSE_SYNCFS 50
#define FUSE_TMPFILE 51
#define FUSE_STATX 52
#define FUSE_COPY_FILE_RANGE_64 53

#define FUSE_INIT_BSWAP_RESERVED 0x1a000000

#define FUSE_MAX_NR_SECCTX 31
#define FUSE_EXT_GROUPS 32

#define FUSE_ASYNC_READ 1
#define FUSE_POSIX_LOCKS 2
#define FUSE_FILE_OPS 4
#define FUSE_ATOMIC_O_TRUNC 8
#define FUSE_EXPORT_SUPPORT 16
#define FUSE_BIG_WRITES 32
#define FUSE_DONT_MASK 64
#define FUSE_SPLICE_WRITE 128
#define FUSE_SPLICE_MOVE 0x100
#define FUSE_SPLICE_READ 0x200
#define FUSE_FLOCK_LOCKS 0x400
#define FUSE_HAS_IOCTL_DIR 0x800
#define FUSE_AUTO_INVAL_DATA 0x1000
#define FUSE_DO_READDIRPLUS 0x2000
#define FUSE_READDIRPLUS_AUTO 0x4000
#define FUSE_ASYNC_DIO 0x8000
#define FUSE_WRITEBACK_CACHE 0x10000
#define FUSE_NO_OPEN_SUPPORT 0x20000
#define FUSE_PARALLEL_DIROPS 0x40000
#define FUSE_HANDLE_KILLPRIV 0x80000
#define FUSE_POSIX_ACL 0x100000
#define FUSE_ABORT_ERROR 0x200000
#define FUSE_MAX_PAGES 0x400000
#define FUSE_CACHE_SYMLINKS 0x800000
#define FUSE_NO_OPENDIR_SUPPORT 0x1000000
#define FUSE_EXPLICIT_INVAL_DATA 0x2000000
#define FUSE_MAP_ALIGNMENT 0x4000000
#define FUSE_SUBMOUNTS 0x8000000
#define FUSE_HANDLE_KILLPRIV_V2 0x10000000
#define FUSE_SETXATTR_EXT 0x20000000
#define FUSE_INIT_EXT 0x40000000
#define FUSE_INIT_RESERVED 0x80000000U
#define FUSE_SECURITY_CTX 0x100000000ULL
#define FUSE_HAS_INODE_DAX 0x200000000ULL
#define FUSE_CREATE_SUPP_GROUP 0x400000000ULL
#define FUSE_HAS_EXPIRE_ONLY 0x800000000ULL
#define FUSE_DIRECT_IO_ALLOW_MMAP 0x1000000000ULL
#define FUSE_PASSTHROUGH 0x2000000000ULL
#define FUSE_NO_EXPORT_SUPPORT 0x4000000000ULL
#define FUSE_HAS_RESEND 0x8000000000ULL
#define FUSE_ALLOW_IDMAP 0x10000000000ULL
#define FUSE_OVER_IO_URING 0x20000000000ULL
#define FUSE_REQUEST_TIMEOUT 0x40000000000ULL

#define FUSE_ATTR_SUBMOUNT 1
#define FUSE_ATTR_DAX 2

#define FUSE_GETATTR_FH 1

#define FUSE_RELEASE_FLUSH 1
#define FUSE_RELEASE_FLOCK_UNLOCK 2

#define FUSE_LK_FLOCK 1

#define FUSE_WRITE_CACHE 1
#define FUSE_WRITE_LOCKOWNER 2
#define FUSE_WRITE_KILL_SUIDGID 4

#define FUSE_READ_LOCKOWNER 2

#define FUSE_FSYNC_FDATASYNC 1

#define FUSE_IOCTL_COMPAT 1
#define FUSE_IOCTL_UNRESTRICTED 2
#define FUSE_IOCTL_RETRY 4
#define FUSE_IOCTL_32BIT 8
#define FUSE_IOCTL_DIR 16
#define FUSE_IOCTL_COMPAT_X32 32

#define FUSE_OPEN_KILL_SUIDGID 1

#define FUSE_SETXATTR_ACL_KILL_SGID 1

#define FUSE_SETUPMAPPING_FLAG_WRITE 1
#define FUSE_SETUPMAPPING_FLAG_READ 2

#define FATTR_MODE 1
#define FATTR_UID 2
#define FATTR_GID 4
#define FATTR_SIZE 8
#define FATTR_ATIME 16
#define FATTR_MTIME 32
#define FATTR_FH 64
#define FATTR_ATIME_NOW 128
#define FATTR_MTIME_NOW 0x100
#define FATTR_LOCKOWNER 0x200
#define FATTR_CTIME 0x400
#define FATTR_KILL_SUIDGID 0x800

#define FOPEN_DIRECT_IO 1
#define FOPEN_KEEP_CACHE 2
#define FOPEN_NONSEEKABLE 4
#define FOPEN_CACHE_DIR 8
#define FOPEN_STREAM 16
#define FOPEN_NOFLUSH 32
#define FOPEN_PARALLEL_DIRECT_WRITES 64
#define FOPEN_PASSTHROUGH 128

struct fuse_in_header {
    uint32_t len;
    uint32_t opcode;
    uint64_t unique;
    uint64_t nodeid;
    uint32_t uid;
    uint32_t gid;
    uint32_t pid;
    uint16_t total_extlen;
    uint16_t padding;
};
_Static_assert(sizeof(struct fuse_in_header) == 40, "fuse_in_header");
_Static_assert(offsetof(struct fuse_in_header, len) == 0, "fuse_in_header.len");
_Static_assert(offsetof(struct fuse_in_header, opcode) == 4, "fuse_in_header.opcode");
_Static_assert(offsetof(struct fuse_in_header, unique) == 8, "fuse_in_header.unique");
_Static_assert(offsetof(struct fuse_in_header, nodeid) == 16, "fuse_in_header.nodeid");
_Static_assert(offsetof(struct fuse_in_header, uid) == 24, "fuse_in_header.uid");
_Static_assert(offsetof(struct fuse_in_header, gid) == 28, "fuse_in_header.gid");
_Static_assert(offsetof(struct fuse_in_header, pid) == 32, "fuse_in_header.pid");
_Static_assert(offsetof(struct fuse_in_header, total_extlen) == 36, "fuse_in_header.total_extlen");
_Static_assert(offsetof(struct fuse_in_header, padding) == 38, "fuse_in_header.padding");

struct fuse_out_header {
    uint32_t len;
    int32_t error;
    uint64_t unique;
};
_Static_assert(sizeof(struct fuse_out_header) == 16, "fuse_out_header");
_Static_assert(offsetof(struct fuse_out_header, len) == 0, "fuse_out_header.len");
_Static_assert(offsetof(struct fuse_out_header, error) == 4, "fuse_out_header.error");
_Static_assert(offsetof(struct fuse_out_header, unique) == 8, "fuse_out_header.unique");

struct fuse_attr {
    uint64_t ino;
    uint64_t size;
    uint64_t blocks;
    uint64_t atime;
    uint64_t mtime;
    uint64_t ctime;
    uint32_t atimensec;
    uint32_t mtimensec;
    uint32_t ctimensec;
    uint32_t mode;
    uint32_t nlink;
    uint32_t uid;
    uint32_t gid;
    uint32_t rdev;
    uint32_t blksize;
    uint32_t flags;
};
_Static_assert(sizeof(struct fuse_attr) == 88, "fuse_attr");
_Static_assert(offsetof(struct fuse_attr, ino) == 0, "fuse_attr.ino");
_Static_assert(offsetof(struct fuse_attr, size) == 8, "fuse_attr.size");
_Static_assert(offsetof(struct fuse_attr, blocks) == 16, "fuse_attr.blocks");
_Static_assert(offsetof(struct fuse_attr, atime) == 24, "fuse_attr.atime");
_Static_assert(offsetof(struct fuse_attr, mtime) == 32, "fuse_attr.mtime");
_Static_assert(offsetof(struct fuse_attr, ctime) == 40, "fuse_attr.ctime");
_Static_assert(offsetof(struct fuse_attr, atimensec) == 48, "fuse_attr.atimensec");
_Static_assert(offsetof(struct fuse_attr, mtimensec) == 52, "fuse_attr.mtimensec");
_Static_assert(offsetof(struct fuse_attr, ctimensec) == 56, "fuse_attr.ctimensec");
_Static_assert(offsetof(struct fuse_attr, mode) == 60, "fuse_attr.mode");
_Static_assert(offsetof(struct fuse_attr, nlink) == 64, "fuse_attr.nlink");
_Static_assert(offsetof(struct fuse_attr, uid) == 68, "fuse_attr.uid");
_Static_assert(offsetof(struct fuse_attr, gid) == 72, "fuse_attr.gid");
_Static_assert(offsetof(struct fuse_attr, rdev) == 76, "fuse_attr.rdev");
_Static_assert(offsetof(struct fuse_attr, blksize) == 80, "fuse_attr.blksize");
_Static_assert(offsetof(struct fuse_attr, flags) == 84, "fuse_attr.flags");

struct fuse_sx_time {
    int64_t tv_sec;
    uint32_t tv_nsec;
    int32_t reserved;
};
_Static_assert(sizeof(struct fuse_sx_time) == 16, "fuse_sx_time");
_Static_assert(offsetof(struct fuse_sx_time, tv_sec) == 0, "fuse_sx_time.tv_sec");
_Static_assert(offsetof(struct fuse_sx_time, tv_nsec) == 8, "fuse_sx_time.tv_nsec");
_Static_assert(offsetof(struct fuse_sx_time, reserved) == 12, "fuse_sx_time.reserved");

struct fuse_statx {
    uint32_t mask;
    uint32_t blksize;
    uint64_t attributes;
    uint32_t nlink;
    uint32_t uid;
    uint32_t gid;
    uint16_t mode;
    uint16_t spare0;
    uint64_t ino;
    uint64_t size;
    uint64_t blocks;
    uint64_t attributes_mask;
    struct fuse_sx_time atime;
    struct fuse_sx_time btime;
    struct fuse_sx_time ctime;
    struct fuse_sx_time mtime;
    uint32_t rdev_major;
    uint32_t rdev_minor;
    uint32_t dev_major;
    uint32_t dev_minor;
    uint64_t spare2[14];
};
_Static_assert(sizeof(struct fuse_statx) == 256, "fuse_statx");
_Static_assert(offsetof(struct fuse_statx, mask) == 0, "fuse_statx.mask");
_Static_assert(offsetof(struct fuse_statx, blksize) == 4, "fuse_statx.blksize");
_Static_assert(offsetof(struct fuse_statx, attributes) == 8, "fuse_statx.attributes");
_Static_assert(offsetof(struct fuse_statx, nlink) == 16, "fuse_statx.nlink");
_Static_assert(offsetof(struct fuse_statx, uid) == 20, "fuse_statx.uid");
_Static_assert(offsetof(struct fuse_statx, gid) == 24, "fuse_statx.gid");
_Static_assert(offsetof(struct fuse_statx, mode) == 28, "fuse_statx.mode");
_Static_assert(offsetof(struct fuse_statx, spare0) == 30, "fuse_statx.spare0");
_Static_assert(offsetof(struct fuse_statx, ino) == 32, "fuse_statx.ino");
_Static_assert(offsetof(struct fuse_statx, size) == 40, "fuse_statx.size");
_Static_assert(offsetof(struct fuse_statx, blocks) == 48, "fuse_statx.blocks");
_Static_assert(offsetof(struct fuse_statx, attributes_mask) == 56, "fuse_statx.attributes_mask");
_Static_assert(offsetof(struct fuse_statx, atime) == 64, "fuse_statx.atime");
_Static_assert(offsetof(struct fuse_statx, btime) == 80, "fuse_statx.btime");
_Static_assert(offsetof(struct fuse_statx, ctime) == 96, "fuse_statx.ctime");
_Static_assert(offsetof(struct fuse_statx, mtime) == 112, "fuse_statx.mtime");
_Static_assert(offsetof(struct fuse_statx, rdev_major) == 128, "fuse_statx.rdev_major");
_Static_assert(offsetof(struct fuse_statx, rdev_minor) == 132, "fuse_statx.rdev_minor");
_Static_assert(offsetof(struct fuse_statx, dev_major) == 136, "fuse_statx.dev_major");
_Static_assert(offsetof(struct fuse_statx, dev_minor) == 140, "fuse_statx.dev_minor");
_Static_assert(offsetof(struct fuse_statx, spare2) == 144, "fuse_statx.spare2");

struct fuse_kstatfs {
    uint64_t blocks;
    uint64_t bfree;
    uint64_t bavail;
    uint64_t files;
    uint64_t ffree;
    uint32_t bsize;
    uint32_t namelen;
    uint32_t frsize;
    uint32_t padding;
    uint32_t spare[6];
};
_Static_assert(sizeof(struct fuse_kstatfs) == 80, "fuse_kstatfs");
_Static_assert(offsetof(struct fuse_kstatfs, blocks) == 0, "fuse_kstatfs.blocks");
_Static_assert(offsetof(struct fuse_kstatfs, bfree) == 8, "fuse_kstatfs.bfree");
_Static_assert(offsetof(struct fuse_kstatfs, bavail) == 16, "fuse_kstatfs.bavail");
_Static_assert(offsetof(struct fuse_kstatfs, files) == 24, "fuse_kstatfs.files");
_Static_assert(offsetof(struct fuse_kstatfs, ffree) == 32, "fuse_kstatfs.ffree");
_Static_assert(offsetof(struct fuse_kstatfs, bsize) == 40, "fuse_kstatfs.bsize");
_Static_assert(offsetof(struct fuse_kstatfs, namelen) == 44, "fuse_kstatfs.namelen");
_Static_assert(offsetof(struct fuse_kstatfs, frsize) == 48, "fuse_kstatfs.frsize");
_Static_assert(offsetof(struct fuse_kstatfs, padding) == 52, "fuse_kstatfs.padding");
_Static_assert(offsetof(struct fuse_kstatfs, spare) == 56, "fuse_kstatfs.spare");

struct fuse_file_lock {
    uint64_t start;
    uint64_t end;
    uint32_t type;
    uint32_t pid;
};
_Static_assert(sizeof(struct fuse_file_lock) == 24, "fuse_file_lock");
_Static_assert(offsetof(struct fuse_file_lock, start) == 0, "fuse_file_lock.start");
_Static_assert(offsetof(struct fuse_file_lock, end) == 8, "fuse_file_lock.end");
_Static_assert(offsetof(struct fuse_file_lock, type) == 16, "fuse_file_lock.type");
_Static_assert(offsetof(struct fuse_file_lock, pid) == 20, "fuse_file_lock.pid");

struct fuse_entry_out {
    uint64_t nodeid;
    uint64_t generation;
    uint64_t entry_valid;
    uint64_t attr_valid;
    uint32_t entry_valid_nsec;
    uint32_t attr_valid_nsec;
    struct fuse_attr attr;
};
_Static_assert(sizeof(struct fuse_entry_out) == 128, "fuse_entry_out");
_Static_assert(offsetof(struct fuse_entry_out, nodeid) == 0, "fuse_entry_out.nodeid");
_Static_assert(offsetof(struct fuse_entry_out, generation) == 8, "fuse_entry_out.generation");
_Static_assert(offsetof(struct fuse_entry_out, entry_valid) == 16, "fuse_entry_out.entry_valid");
_Static_assert(offsetof(struct fuse_entry_out, attr_valid) == 24, "fuse_entry_out.attr_valid");
_Static_assert(offsetof(struct fuse_entry_out, entry_valid_nsec) == 32, "fuse_entry_out.entry_valid_nsec");
_Static_assert(offsetof(struct fuse_entry_out, attr_valid_nsec) == 36, "fuse_entry_out.attr_valid_nsec");
_Static_assert(offsetof(struct fuse_entry_out, attr) == 40, "fuse_entry_out.attr");

struct fuse_forget_in {
    uint64_t nlookup;
};
_Static_assert(sizeof(struct fuse_forget_in) == 8, "fuse_forget_in");
_Static_assert(offsetof(struct fuse_forget_in, nlookup) == 0, "fuse_forget_in.nlookup");

struct fuse_forget_one {
    uint64_t nodeid;
    uint64_t nlookup;
};
_Static_assert(sizeof(struct fuse_forget_one) == 16, "fuse_forget_one");
_Static_assert(offsetof(struct fuse_forget_one, nodeid) == 0, "fuse_forget_one.nodeid");
_Static_assert(offsetof(struct fuse_forget_one, nlookup) == 8, "fuse_forget_one.nlookup");

struct fuse_batch_forget_in {
    uint32_t count;
    uint32_t dummy;
};
_Static_assert(sizeof(struct fuse_batch_forget_in) == 8, "fuse_batch_forget_in");
_Static_assert(offsetof(struct fuse_batch_forget_in, count) == 0, "fuse_batch_forget_in.count");
_Static_assert(offsetof(struct fuse_batch_forget_in, dummy) == 4, "fuse_batch_forget_in.dummy");

struct fuse_getattr_in {
    uint32_t getattr_flags;
    uint32_t dummy;
    uint64_t fh;
};
_Static_assert(sizeof(struct fuse_getattr_in) == 16, "fuse_getattr_in");
_Static_assert(offsetof(struct fuse_getattr_in, getattr_flags) == 0, "fuse_getattr_in.getattr_flags");
_Static_assert(offsetof(struct fuse_getattr_in, dummy) == 4, "fuse_getattr_in.dummy");
_Static_assert(offsetof(struct fuse_getattr_in, fh) == 8, "fuse_getattr_in.fh");

struct fuse_attr_out {
    uint64_t attr_valid;
    uint32_t attr_valid_nsec;
    uint32_t dummy;
    struct fuse_attr attr;
};
_Static_assert(sizeof(struct fuse_attr_out) == 104, "fuse_attr_out");
_Static_assert(offsetof(struct fuse_attr_out, attr_valid) == 0, "fuse_attr_out.attr_valid");
_Static_assert(offsetof(struct fuse_attr_out, attr_valid_nsec) == 8, "fuse_attr_out.attr_valid_nsec");
_Static_assert(offsetof(struct fuse_attr_out, dummy) == 12, "fuse_attr_out.dummy");
_Static_assert(offsetof(struct fuse_attr_out, attr) == 16, "fuse_attr_out.attr");

struct fuse_statx_in {
    uint32_t getattr_flags;
    uint32_t reserved;
    uint64_t fh;
    uint32_t sx_flags;
    uint32_t sx_mask;
};
_Static_assert(sizeof(struct fuse_statx_in) == 24, "fuse_statx_in");
_Static_assert(offsetof(struct fuse_statx_in, getattr_flags) == 0, "fuse_statx_in.getattr_flags");
_Static_assert(offsetof(struct fuse_statx_in, reserved) == 4, "fuse_statx_in.reserved");
_Static_assert(offsetof(struct fuse_statx_in, fh) == 8, "fuse_statx_in.fh");
_Static_assert(offsetof(struct fuse_statx_in, sx_flags) == 16, "fuse_statx_in.sx_flags");
_Static_assert(offsetof(struct fuse_statx_in, sx_mask) == 20, "fuse_statx_in.sx_mask");

struct fuse_statx_out {
    uint64_t attr_valid;
    uint32_t attr_valid_nsec;
    uint32_t flags;
    uint64_t spare[2];
    struct fuse_statx stat;
};
_Static_assert(sizeof(struct fuse_statx_out) == 288, "fuse_statx_out");
_Static_assert(offsetof(struct fuse_statx_out, attr_valid) == 0, "fuse_statx_out.attr_valid");
_Static_assert(offsetof(struct fuse_statx_out, attr_valid_nsec) == 8, "fuse_statx_out.attr_valid_nsec");
_Static_assert(offsetof(struct fuse_statx_out, flags) == 12, "fuse_statx_out.flags");
_Static_assert(offsetof(struct fuse_statx_out, spare) == 16, "fuse_statx_out.spare");
_Static_assert(offsetof(struct fuse_statx_out, stat) == 32, "fuse_statx_out.stat");

struct fuse_mknod_in {
    uint32_t mode;
    uint32_t rdev;
    uint32_t umask;
    uint32_t padding;
};
_Static_assert(sizeof(struct fuse_mknod_in) == 16, "fuse_mknod_in");
_Static_assert(offsetof(struct fuse_mknod_in, mode) == 0, "fuse_mknod_in.mode");
_Static_assert(offsetof(struct fuse_mknod_in, rdev) == 4, "fuse_mknod_in.rdev");
_Static_assert(offsetof(struct fuse_mknod_in, umask) == 8, "fuse_mknod_in.umask");
_Static_assert(offsetof(struct fuse_mknod_in, padding) == 12, "fuse_mknod_in.padding");

struct fuse_mkdir_in {
    uint32_t mode;
    uint32_t umask;
};
_Static_assert(sizeof(struct fuse_mkdir_in) == 8, "fuse_mkdir_in");
_Static_assert(offsetof(struct fuse_mkdir_in, mode) == 0, "fuse_mkdir_in.mode");
_Static_assert(offsetof(struct fuse_mkdir_in, umask) == 4, "fuse_mkdir_in.umask");

struct fuse_rename_in {
    uint64_t newdir;
};
_Static_assert(sizeof(struct fuse_rename_in) == 8, "fuse_rename_in");
_Static_assert(offsetof(struct fuse_rename_in, newdir) == 0, "fuse_rename_in.newdir");

struct fuse_rename2_in {
    uint64_t newdir;
    uint32_t flags;
    uint32_t padding;
};
_Static_assert(sizeof(struct fuse_rename2_in) == 16, "fuse_rename2_in");
_Static_assert(offsetof(struct fuse_rename2_in, newdir) == 0, "fuse_rename2_in.newdir");
_Static_assert(offsetof(struct fuse_rename2_in, flags) == 8, "fuse_rename2_in.flags");
_Static_assert(offsetof(struct fuse_rename2_in, padding) == 12, "fuse_rename2_in.padding");

struct fuse_link_in {
    uint64_t oldnodeid;
};
_Static_assert(sizeof(struct fuse_link_in) == 8, "fuse_link_in");
_Static_assert(offsetof(struct fuse_link_in, oldnodeid) == 0, "fuse_link_in.oldnodeid");

struct fuse_setattr_in {
    uint32_t valid;
    uint32_t padding;
    uint64_t fh;
    uint64_t size;
    uint64_t lock_owner;
    uint64_t atime;
    uint64_t mtime;
    uint64_t ctime;
    uint32_t atimensec;
    uint32_t mtimensec;
    uint32_t ctimensec;
    uint32_t mode;
    uint32_t unused4;
    uint32_t uid;
    uint32_t gid;
    uint32_t unused5;
};
_Static_assert(sizeof(struct fuse_setattr_in) == 88, "fuse_setattr_in");
_Static_assert(offsetof(struct fuse_setattr_in, valid) == 0, "fuse_setattr_in.valid");
_Static_assert(offsetof(struct fuse_setattr_in, padding) == 4, "fuse_setattr_in.padding");
_Static_assert(offsetof(struct fuse_setattr_in, fh) == 8, "fuse_setattr_in.fh");
_Static_assert(offsetof(struct fuse_setattr_in, size) == 16, "fuse_setattr_in.size");
_Static_assert(offsetof(struct fuse_setattr_in, lock_owner) == 24, "fuse_setattr_in.lock_owner");
_Static_assert(offsetof(struct fuse_setattr_in, atime) == 32, "fuse_setattr_in.atime");
_Static_assert(offsetof(struct fuse_setattr_in, mtime) == 40, "fuse_setattr_in.mtime");
_Static_assert(offsetof(struct fuse_setattr_in, ctime) == 48, "fuse_setattr_in.ctime");
_Static_assert(offsetof(struct fuse_setattr_in, atimensec) == 56, "fuse_setattr_in.atimensec");
_Static_assert(offsetof(struct fuse_setattr_in, mtimensec) == 60, "fuse_setattr_in.mtimensec");
_Static_assert(offsetof(struct fuse_setattr_in, ctimensec) == 64, "fuse_setattr_in.ctimensec");
_Static_assert(offsetof(struct fuse_setattr_in, mode) == 68, "fuse_setattr_in.mode");
_Static_assert(offsetof(struct fuse_setattr_in, unused4) == 72, "fuse_setattr_in.unused4");
_Static_assert(offsetof(struct fuse_setattr_in, uid) == 76, "fuse_setattr_in.uid");
_Static_assert(offsetof(struct fuse_setattr_in, gid) == 80, "fuse_setattr_in.gid");
_Static_assert(offsetof(struct fuse_setattr_in, unused5) == 84, "fuse_setattr_in.unused5");

struct fuse_open_in {
    uint32_t flags;
    uint32_t open_flags;
};
_Static_assert(sizeof(struct fuse_open_in) == 8, "fuse_open_in");
_Static_assert(offsetof(struct fuse_open_in, flags) == 0, "fuse_open_in.flags");
_Static_assert(offsetof(struct fuse_open_in, open_flags) == 4, "fuse_open_in.open_flags");

struct fuse_create_in {
    uint32_t flags;
    uint32_t mode;
    uint32_t umask;
    uint32_t open_flags;
};
_Static_assert(sizeof(struct fuse_create_in) == 16, "fuse_create_in");
_Static_assert(offsetof(struct fuse_create_in, flags) == 0, "fuse_create_in.flags");
_Static_assert(offsetof(struct fuse_create_in, mode) == 4, "fuse_create_in.mode");
_Static_assert(offsetof(struct fuse_create_in, umask) == 8, "fuse_create_in.umask");
_Static_assert(offsetof(struct fuse_create_in, open_flags) == 12, "fuse_create_in.open_flags");

struct fuse_open_out {
    uint64_t fh;
    uint32_t open_flags;
    int32_t backing_id;
};
_Static_assert(sizeof(struct fuse_open_out) == 16, "fuse_open_out");
_Static_assert(offsetof(struct fuse_open_out, fh) == 0, "fuse_open_out.fh");
_Static_assert(offsetof(struct fuse_open_out, open_flags) == 8, "fuse_open_out.open_flags");
_Static_assert(offsetof(struct fuse_open_out, backing_id) == 12, "fuse_open_out.backing_id");

struct fuse_release_in {
    uint64_t fh;
    uint32_t flags;
    uint32_t release_flags;
    uint64_t lock_owner;
};
_Static_assert(sizeof(struct fuse_release_in) == 24, "fuse_release_in");
_Static_assert(offsetof(struct fuse_release_in, fh) == 0, "fuse_release_in.fh");
_Static_assert(offsetof(struct fuse_release_in, flags) == 8, "fuse_release_in.flags");
_Static_assert(offsetof(struct fuse_release_in, release_flags) == 12, "fuse_release_in.release_flags");
_Static_assert(offsetof(struct fuse_release_in, lock_owner) == 16, "fuse_release_in.lock_owner");

struct fuse_flush_in {
    uint64_t fh;
    uint32_t unused;
    uint32_t padding;
    uint64_t lock_owner;
};
_Static_assert(sizeof(struct fuse_flush_in) == 24, "fuse_flush_in");
_Static_assert(offsetof(struct fuse_flush_in, fh) == 0, "fuse_flush_in.fh");
_Static_assert(offsetof(struct fuse_flush_in, unused) == 8, "fuse_flush_in.unused");
_Static_assert(offsetof(struct fuse_flush_in, padding) == 12, "fuse_flush_in.padding");
_Static_assert(offsetof(struct fuse_flush_in, lock_owner) == 16, "fuse_flush_in.lock_owner");

struct fuse_read_in {
    uint64_t fh;
    uint64_t offset;
    uint32_t size;
    uint32_t read_flags;
    uint64_t lock_owner;
    uint32_t flags;
    uint32_t padding;
};
_Static_assert(sizeof(struct fuse_read_in) == 40, "fuse_read_in");
_Static_assert(offsetof(struct fuse_read_in, fh) == 0, "fuse_read_in.fh");
_Static_assert(offsetof(struct fuse_read_in, offset) == 8, "fuse_read_in.offset");
_Static_assert(offsetof(struct fuse_read_in, size) == 16, "fuse_read_in.size");
_Static_assert(offsetof(struct fuse_read_in, read_flags) == 20, "fuse_read_in.read_flags");
_Static_assert(offsetof(struct fuse_read_in, lock_owner) == 24, "fuse_read_in.lock_owner");
_Static_assert(offsetof(struct fuse_read_in, flags) == 32, "fuse_read_in.flags");
_Static_assert(offsetof(struct fuse_read_in, padding) == 36, "fuse_read_in.padding");

struct fuse_write_in {
    uint64_t fh;
    uint64_t offset;
    uint32_t size;
    uint32_t write_flags;
    uint64_t lock_owner;
    uint32_t flags;
    uint32_t padding;
};
_Static_assert(sizeof(struct fuse_write_in) == 40, "fuse_write_in");
_Static_assert(offsetof(struct fuse_write_in, fh) == 0, "fuse_write_in.fh");
_Static_assert(offsetof(struct fuse_write_in, offset) == 8, "fuse_write_in.offset");
_Static_assert(offsetof(struct fuse_write_in, size) == 16, "fuse_write_in.size");
_Static_assert(offsetof(struct fuse_write_in, write_flags) == 20, "fuse_write_in.write_flags");
_Static_assert(offsetof(struct fuse_write_in, lock_owner) == 24, "fuse_write_in.lock_owner");
_Static_assert(offsetof(struct fuse_write_in, flags) == 32, "fuse_write_in.flags");
_Static_assert(offsetof(struct fuse_write_in, padding) == 36, "fuse_write_in.padding");

struct fuse_write_out {
    uint32_t size;
    uint32_t padding;
};
_Static_assert(sizeof(struct fuse_write_out) == 8, "fuse_write_out");
_Static_assert(offsetof(struct fuse_write_out, size) == 0, "fuse_write_out.size");
_Static_assert(offsetof(struct fuse_write_out, padding) == 4, "fuse_write_out.padding");

struct fuse_statfs_out {
    struct fuse_kstatfs st;
};
_Static_assert(sizeof(struct fuse_statfs_out) == 80, "fuse_statfs_out");
_Static_assert(offsetof(struct fuse_statfs_out, st) == 0, "fuse_statfs_out.st");

struct fuse_fsync_in {
    uint64_t fh;
    uint32_t fsync_flags;
    uint32_t padding;
};
_Static_assert(sizeof(struct fuse_fsync_in) == 16, "fuse_fsync_in");
_Static_assert(offsetof(struct fuse_fsync_in, fh) == 0, "fuse_fsync_in.fh");
_Static_assert(offsetof(struct fuse_fsync_in, fsync_flags) == 8, "fuse_fsync_in.fsync_flags");
_Static_assert(offsetof(struct fuse_fsync_in, padding) == 12, "fuse_fsync_in.padding");

struct fuse_setxattr_in {
    uint32_t size;
    uint32_t flags;
    uint32_t setxattr_flags;
    uint32_t padding;
};
_Static_assert(sizeof(struct fuse_setxattr_in) == 16, "fuse_setxattr_in");
_Static_assert(offsetof(struct fuse_setxattr_in, size) == 0, "fuse_setxattr_in.size");
_Static_assert(offsetof(struct fuse_setxattr_in, flags) == 4, "fuse_setxattr_in.flags");
_Static_assert(offsetof(struct fuse_setxattr_in, setxattr_flags) == 8, "fuse_setxattr_in.setxattr_flags");
_Static_assert(offsetof(struct fuse_setxattr_in, padding) == 12, "fuse_setxattr_in.padding");

struct fuse_setxattr_in_compat {
    uint32_t size;
    uint32_t flags;
};
_Static_assert(sizeof(struct fuse_setxattr_in_compat) == 8, "fuse_setxattr_in_compat");
_Static_assert(offsetof(struct fuse_setxattr_in_compat, size) == 0, "fuse_setxattr_in_compat.size");
_Static_assert(offsetof(struct fuse_setxattr_in_compat, flags) == 4, "fuse_setxattr_in_compat.flags");

struct fuse_getxattr_in {
    uint32_t size;
    uint32_t padding;
};
_Static_assert(sizeof(struct fuse_getxattr_in) == 8, "fuse_getxattr_in");
_Static_assert(offsetof(struct fuse_getxattr_in, size) == 0, "fuse_getxattr_in.size");
_Static_assert(offsetof(struct fuse_getxattr_in, padding) == 4, "fuse_getxattr_in.padding");

struct fuse_getxattr_out {
    uint32_t size;
    uint32_t padding;
};
_Static_assert(sizeof(struct fuse_getxattr_out) == 8, "fuse_getxattr_out");
_Static_assert(offsetof(struct fuse_getxattr_out, size) == 0, "fuse_getxattr_out.size");
_Static_assert(offsetof(struct fuse_getxattr_out, padding) == 4, "fuse_getxattr_out.padding");

struct fuse_lk_in {
    uint64_t fh;
    uint64_t owner;
    struct fuse_file_lock lk;
    uint32_t lk_flags;
    uint32_t padding;
};
_Static_assert(sizeof(struct fuse_lk_in) == 48, "fuse_lk_in");
_Static_assert(offsetof(struct fuse_lk_in, fh) == 0, "fuse_lk_in.fh");
_Static_assert(offsetof(struct fuse_lk_in, owner) == 8, "fuse_lk_in.owner");
_Static_assert(offsetof(struct fuse_lk_in, lk) == 16, "fuse_lk_in.lk");
_Static_assert(offsetof(struct fuse_lk_in, lk_flags) == 40, "fuse_lk_in.lk_flags");
_Static_assert(offsetof(struct fuse_lk_in, padding) == 44, "fuse_lk_in.padding");

struct fuse_lk_out {
    struct fuse_file_lock lk;
};
_Static_assert(sizeof(struct fuse_lk_out) == 24, "fuse_lk_out");
_Static_assert(offsetof(struct fuse_lk_out, lk) == 0, "fuse_lk_out.lk");

struct fuse_access_in {
    uint32_t mask;
    uint32_t padding;
};
_Static_assert(sizeof(struct fuse_access_in) == 8, "fuse_access_in");
_Static_assert(offsetof(struct fuse_access_in, mask) == 0, "fuse_access_in.mask");
_Static_assert(offsetof(struct fuse_access_in, padding) == 4, "fuse_access_in.padding");

struct fuse_init_in {
    uint32_t major;
    uint32_t minor;
    uint32_t max_readahead;
    uint32_t flags;
    uint32_t flags2;
    uint32_t unused[11];
};
_Static_assert(sizeof(struct fuse_init_in) == 64, "fuse_init_in");
_Static_assert(offsetof(struct fuse_init_in, major) == 0, "fuse_init_in.major");
_Static_assert(offsetof(struct fuse_init_in, minor) == 4, "fuse_init_in.minor");
_Static_assert(offsetof(struct fuse_init_in, max_readahead) == 8, "fuse_init_in.max_readahead");
_Static_assert(offsetof(struct fuse_init_in, flags) == 12, "fuse_init_in.flags");
_Static_assert(offsetof(struct fuse_init_in, flags2) == 16, "fuse_init_in.flags2");
_Static_assert(offsetof(struct fuse_init_in, unused) == 20, "fuse_init_in.unused");

struct fuse_init_in_compat {
    uint32_t major;
    uint32_t minor;
    uint32_t max_readahead;
    uint32_t flags;
};
_Static_assert(sizeof(struct fuse_init_in_compat) == 16, "fuse_init_in_compat");
_Static_assert(offsetof(struct fuse_init_in_compat, major) == 0, "fuse_init_in_compat.major");
_Static_assert(offsetof(struct fuse_init_in_compat, minor) == 4, "fuse_init_in_compat.minor");
_Static_assert(offsetof(struct fuse_init_in_compat, max_readahead) == 8, "fuse_init_in_compat.max_readahead");
_Static_assert(offsetof(struct fuse_init_in_compat, flags) == 12, "fuse_init_in_compat.flags");

struct fuse_init_out {
    uint32_t major;
    uint32_t minor;
    uint32_t max_readahead;
    uint32_t flags;
    uint16_t max_background;
    uint16_t congestion_threshold;
    uint32_t max_write;
    uint32_t time_gran;
    uint16_t max_pages;
    uint16_t map_alignment;
    uint32_t flags2;
    uint32_t max_stack_depth;
    uint16_t request_timeout;
    uint16_t unused[11];
};
_Static_assert(sizeof(struct fuse_init_out) == 64, "fuse_init_out");
_Static_assert(offsetof(struct fuse_init_out, major) == 0, "fuse_init_out.major");
_Static_assert(offsetof(struct fuse_init_out, minor) == 4, "fuse_init_out.minor");
_Static_assert(offsetof(struct fuse_init_out, max_readahead) == 8, "fuse_init_out.max_readahead");
_Static_assert(offsetof(struct fuse_init_out, flags) == 12, "fuse_init_out.flags");
_Static_assert(offsetof(struct fuse_init_out, max_background) == 16, "fuse_init_out.max_background");
_Static_assert(offsetof(struct fuse_init_out, congestion_threshold) == 18, "fuse_init_out.congestion_threshold");
_Static_assert(offsetof(struct fuse_init_out, max_write) == 20, "fuse_init_out.max_write");
_Static_assert(offsetof(struct fuse_init_out, time_gran) == 24, "fuse_init_out.time_gran");
_Static_assert(offsetof(struct fuse_init_out, max_pages) == 28, "fuse_init_out.max_pages");
_Static_assert(offsetof(struct fuse_init_out, map_alignment) == 30, "fuse_init_out.map_alignment");
_Static_assert(offsetof(struct fuse_init_out, flags2) == 32, "fuse_init_out.flags2");
_Static_assert(offsetof(struct fuse_init_out, max_stack_depth) == 36, "fuse_init_out.max_stack_depth");
_Static_assert(offsetof(struct fuse_init_out, request_timeout) == 40, "fuse_init_out.request_timeout");
_Static_assert(offsetof(struct fuse_init_out, unused) == 42, "fuse_init_out.unused");

struct fuse_interrupt_in {
    uint64_t unique;
};
_Static_assert(sizeof(struct fuse_interrupt_in) == 8, "fuse_interrupt_in");
_Static_assert(offsetof(struct fuse_interrupt_in, unique) == 0, "fuse_interrupt_in.unique");

struct fuse_bmap_in {
    uint64_t block;
    uint32_t blocksize;
    uint32_t padding;
};
_Static_assert(sizeof(struct fuse_bmap_in) == 16, "fuse_bmap_in");
_Static_assert(offsetof(struct fuse_bmap_in, block) == 0, "fuse_bmap_in.block");
_Static_assert(offsetof(struct fuse_bmap_in, blocksize) == 8, "fuse_bmap_in.blocksize");
_Static_assert(offsetof(struct fuse_bmap_in, padding) == 12, "fuse_bmap_in.padding");

struct fuse_bmap_out {
    uint64_t block;
};
_Static_assert(sizeof(struct fuse_bmap_out) == 8, "fuse_bmap_out");
_Static_assert(offsetof(struct fuse_bmap_out, block) == 0, "fuse_bmap_out.block");

struct fuse_ioctl_in {
    uint64_t fh;
    uint32_t flags;
    uint32_t cmd;
    uint64_t arg;
    uint32_t in_size;
    uint32_t out_size;
};
_Static_assert(sizeof(struct fuse_ioctl_in) == 32, "fuse_ioctl_in");
_Static_assert(offsetof(struct fuse_ioctl_in, fh) == 0, "fuse_ioctl_in.fh");
_Static_assert(offsetof(struct fuse_ioctl_in, flags) == 8, "fuse_ioctl_in.flags");
_Static_assert(offsetof(struct fuse_ioctl_in, cmd) == 12, "fuse_ioctl_in.cmd");
_Static_assert(offsetof(struct fuse_ioctl_in, arg) == 16, "fuse_ioctl_in.arg");
_Static_assert(offsetof(struct fuse_ioctl_in, in_size) == 24, "fuse_ioctl_in.in_size");
_Static_assert(offsetof(struct fuse_ioctl_in, out_size) == 28, "fuse_ioctl_in.out_size");

struct fuse_ioctl_out {
    int32_t result;
    uint32_t flags;
    uint32_t in_iovs;
    uint32_t out_iovs;
};
_Static_assert(sizeof(struct fuse_ioctl_out) == 16, "fuse_ioctl_out");
_Static_assert(offsetof(struct fuse_ioctl_out, result) == 0, "fuse_ioctl_out.result");
_Static_assert(offsetof(struct fuse_ioctl_out, flags) == 4, "fuse_ioctl_out.flags");
_Static_assert(offsetof(struct fuse_ioctl_out, in_iovs) == 8, "fuse_ioctl_out.in_iovs");
_Static_assert(offsetof(struct fuse_ioctl_out, out_iovs) == 12, "fuse_ioctl_out.out_iovs");

struct fuse_poll_in {
    uint64_t fh;
    uint64_t kh;
    uint32_t flags;
    uint32_t events;
};
_Static_assert(sizeof(struct fuse_poll_in) == 24, "fuse_poll_in");
_Static_assert(offsetof(struct fuse_poll_in, fh) == 0, "fuse_poll_in.fh");
_Static_assert(offsetof(struct fuse_poll_in, kh) == 8, "fuse_poll_in.kh");
_Static_assert(offsetof(struct fuse_poll_in, flags) == 16, "fuse_poll_in.flags");
_Static_assert(offsetof(struct fuse_poll_in, events) == 20, "fuse_poll_in.events");

struct fuse_poll_out {
    uint32_t revents;
    uint32_t padding;
};
_Static_assert(sizeof(struct fuse_poll_out) == 8, "fuse_poll_out");
_Static_assert(offsetof(struct fuse_poll_out, revents) == 0, "fuse_poll_out.revents");
_Static_assert(offsetof(struct fuse_poll_out, padding) == 4, "fuse_poll_out.padding");

struct fuse_fallocate_in {
    uint64_t fh;
    uint64_t offset;
    uint64_t length;
    uint32_t mode;
    uint32_t padding;
};
_Static_assert(sizeof(struct fuse_fallocate_in) == 32, "fuse_fallocate_in");
_Static_assert(offsetof(struct fuse_fallocate_in, fh) == 0, "fuse_fallocate_in.fh");
_Static_assert(offsetof(struct fuse_fallocate_in, offset) == 8, "fuse_fallocate_in.offset");
_Static_assert(offsetof(struct fuse_fallocate_in, length) == 16, "fuse_fallocate_in.length");
_Static_assert(offsetof(struct fuse_fallocate_in, mode) == 24, "fuse_fallocate_in.mode");
_Static_assert(offsetof(struct fuse_fallocate_in, padding) == 28, "fuse_fallocate_in.padding");

struct fuse_lseek_in {
    uint64_t fh;
    uint64_t offset;
    uint32_t whence;
    uint32_t padding;
};
_Static_assert(sizeof(struct fuse_lseek_in) == 24, "fuse_lseek_in");
_Static_assert(offsetof(struct fuse_lseek_in, fh) == 0, "fuse_lseek_in.fh");
_Static_assert(offsetof(struct fuse_lseek_in, offset) == 8, "fuse_lseek_in.offset");
_Static_assert(offsetof(struct fuse_lseek_in, whence) == 16, "fuse_lseek_in.whence");
_Static_assert(offsetof(struct fuse_lseek_in, padding) == 20, "fuse_lseek_in.padding");

struct fuse_lseek_out {
    uint64_t offset;
};
_Static_assert(sizeof(struct fuse_lseek_out) == 8, "fuse_lseek_out");
_Static_assert(offsetof(struct fuse_lseek_out, offset) == 0, "fuse_lseek_out.offset");

struct fuse_copy_file_range_in {
    uint64_t fh_in;
    uint64_t off_in;
    uint64_t nodeid_out;
    uint64_t fh_out;
    uint64_t off_out;
    uint64_t len;
    uint64_t flags;
};
_Static_assert(sizeof(struct fuse_copy_file_range_in) == 56, "fuse_copy_file_range_in");
_Static_assert(offsetof(struct fuse_copy_file_range_in, fh_in) == 0, "fuse_copy_file_range_in.fh_in");
_Static_assert(offsetof(struct fuse_copy_file_range_in, off_in) == 8, "fuse_copy_file_range_in.off_in");
_Static_assert(offsetof(struct fuse_copy_file_range_in, nodeid_out) == 16, "fuse_copy_file_range_in.nodeid_out");
_Static_assert(offsetof(struct fuse_copy_file_range_in, fh_out) == 24, "fuse_copy_file_range_in.fh_out");
_Static_assert(offsetof(struct fuse_copy_file_range_in, off_out) == 32, "fuse_copy_file_range_in.off_out");
_Static_assert(offsetof(struct fuse_copy_file_range_in, len) == 40, "fuse_copy_file_range_in.len");
_Static_assert(offsetof(struct fuse_copy_file_range_in, flags) == 48, "fuse_copy_file_range_in.flags");

struct fuse_copy_file_range_out {
    uint64_t bytes_copied;
};
_Static_assert(sizeof(struct fuse_copy_file_range_out) == 8, "fuse_copy_file_range_out");
_Static_assert(offsetof(struct fuse_copy_file_range_out, bytes_copied) == 0, "fuse_copy_file_range_out.bytes_copied");

struct fuse_setupmapping_in {
    uint64_t fh;
    uint64_t foffset;
    uint64_t len;
    uint64_t flags;
    uint64_t moffset;
};
_Static_assert(sizeof(struct fuse_setupmapping_in) == 40, "fuse_setupmapping_in");
_Static_assert(offsetof(struct fuse_setupmapping_in, fh) == 0, "fuse_setupmapping_in.fh");
_Static_assert(offsetof(struct fuse_setupmapping_in, foffset) == 8, "fuse_setupmapping_in.foffset");
_Static_assert(offsetof(struct fuse_setupmapping_in, len) == 16, "fuse_setupmapping_in.len");
_Static_assert(offsetof(struct fuse_setupmapping_in, flags) == 24, "fuse_setupmapping_in.flags");
_Static_assert(offsetof(struct fuse_setupmapping_in, moffset) == 32, "fuse_setupmapping_in.moffset");

struct fuse_removemapping_in {
    uint32_t count;
};
_Static_assert(sizeof(struct fuse_removemapping_in) == 4, "fuse_removemapping_in");
_Static_assert(offsetof(struct fuse_removemapping_in, count) == 0, "fuse_removemapping_in.count");

struct fuse_removemapping_one {
    uint64_t moffset;
    uint64_t len;
};
_Static_assert(sizeof(struct fuse_removemapping_one) == 16, "fuse_removemapping_one");
_Static_assert(offsetof(struct fuse_removemapping_one, moffset) == 0, "fuse_removemapping_one.moffset");
_Static_assert(offsetof(struct fuse_removemapping_one, len) == 8, "fuse_removemapping_one.len");

struct fuse_syncfs_in {
    uint64_t padding;
};
_Static_assert(sizeof(struct fuse_syncfs_in) == 8, "fuse_syncfs_in");
_Static_assert(offsetof(struct fuse_syncfs_in, padding) == 0, "fuse_syncfs_in.padding");

struct fuse_dirent {
    uint64_t ino;
    uint64_t off;
    uint32_t namelen;
    uint32_t type;
};
_Static_assert(sizeof(struct fuse_dirent) == 24, "fuse_dirent");
_Static_assert(offsetof(struct fuse_dirent, ino) == 0, "fuse_dirent.ino");
_Static_assert(offsetof(struct fuse_dirent, off) == 8, "fuse_dirent.off");
_Static_assert(offsetof(struct fuse_dirent, namelen) == 16, "fuse_dirent.namelen");
_Static_assert(offsetof(struct fuse_dirent, type) == 20, "fuse_dirent.type");

struct fuse_direntplus {
    struct fuse_entry_out entry_out;
    struct fuse_dirent dirent;
};
_Static_assert(sizeof(struct fuse_direntplus) == 152, "fuse_direntplus");
_Static_assert(offsetof(struct fuse_direntplus, entry_out) == 0, "fuse_direntplus.entry_out");
_Static_assert(offsetof(struct fuse_direntplus, dirent) == 128, "fuse_direntplus.dirent");

struct fuse_ext_header {
    uint32_t size;
    uint32_t type;
};
_Static_assert(sizeof(struct fuse_ext_header) == 8, "fuse_ext_header");
_Static_assert(offsetof(struct fuse_ext_header, size) == 0, "fuse_ext_header.size");
_Static_assert(offsetof(struct fuse_ext_header, type) == 4, "fuse_ext_header.type");

struct fuse_secctx {
    uint32_t size;
    uint32_t padding;
};
_Static_assert(sizeof(struct fuse_secctx) == 8, "fuse_secctx");
_Static_assert(offsetof(struct fuse_secctx, size) == 0, "fuse_secctx.size");
_Static_assert(offsetof(struct fuse_secctx, padding) == 4, "fuse_secctx.padding");

#endif
