# A shared directory with what its guest has of it, and the state of one thread that serves it.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from .descriptors cimport Descriptors
from .handles cimport HandleTable
from .inode_table cimport InodeTable

cdef enum:
    SCRATCH = 1 << 17        # bytes: xattrs, directory entries, symlink targets
    OPCODES = 64             # counters; opcode 0 counts unknown ones


# What the command line decides. Times are nanoseconds.
cdef struct Options:
    uint32_t readonly
    uint32_t keep_cache          # every open keeps the guest's page cache
    uint32_t direct_io           # no open uses the guest's page cache
    uint32_t readdirplus
    int64_t entry_timeout
    int64_t attr_timeout
    int64_t negative_timeout


cdef struct Share:
    InodeTable inodes
    HandleTable handles
    Descriptors descriptors
    Options options
    int proc_fd                  # /proc/self/fd, which is every data-plane thread's working directory too
    uint32_t session             # INIT was answered
    uint32_t minor               # of the protocol
    uint64_t flags               # negotiated by INIT
    uint32_t own_uid
    uint32_t own_gid
    uint32_t switches_ids        # it may act as other users


# Nobody but its thread writes a Context.
cdef struct Context:
    Share *share
    uint32_t may_sleep           # it is no queue's worker
    uint32_t umask               # the thread's own
    uint64_t capabilities        # effective ones while it acts for itself
    uint64_t permitted
    uint64_t inheritable
    uint64_t calls[OPCODES]
    uint64_t errors[OPCODES]
    uint8_t *scratch


cdef int context_init(Context *ctx, Share *share, bint may_sleep) noexcept nogil
cdef int context_enter_thread(Context *ctx) noexcept nogil
cdef void context_destroy(Context *ctx) noexcept nogil
