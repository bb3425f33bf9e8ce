# A shared directory with what its guest has of it, and the state of one thread that serves it.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from .descriptors cimport Descriptors
from .handles cimport Handle, HandleTable
from .ids cimport IdMap
from .inode_table cimport InodeTable
from .kept cimport KeptFiles
from .lock_owners cimport LockTable
from .xattr_names cimport XattrNames

cdef enum:
    SCRATCH = 1 << 17        # bytes: xattrs, directory entries, symlink targets
    OPCODES = 64             # counters; opcode 0 counts unknown ones


cdef enum Cache:
    CACHE_NEVER
    CACHE_METADATA
    CACHE_AUTO
    CACHE_ALWAYS


cdef enum Wanted:
    NEVER
    AUTO
    ALWAYS


# What the command line decides (settings.py). Times are nanoseconds.
cdef struct Options:
    uint32_t readonly
    uint32_t cache               # a Cache
    uint32_t readdirplus
    uint32_t writeback
    uint32_t allow_direct_io
    uint32_t allow_mmap
    uint32_t announce_submounts
    uint32_t xattr
    uint32_t posix_acl           # a Wanted
    uint32_t security_label      # a Wanted
    uint32_t killpriv_v2
    uint32_t idmapped_mounts
    uint32_t own_umask
    uint32_t posix_lock
    uint32_t flock
    uint32_t preserve_noatime
    uint32_t override_stat
    int64_t entry_timeout
    int64_t attr_timeout
    int64_t negative_timeout


cdef struct Share:
    InodeTable inodes
    HandleTable handles
    LockTable locks
    Descriptors descriptors
    KeptFiles kept
    Options options
    XattrNames xattrs
    IdMap uids_to_host
    IdMap uids_to_guest
    IdMap gids_to_host
    IdMap gids_to_guest
    int proc_fd                  # /proc/self/fd, which is every data-plane thread's working directory too
    uint32_t session             # INIT was answered
    uint64_t flags               # negotiated by INIT
    uint32_t own_uid
    uint32_t own_gid
    uint32_t switches_ids        # it may act as other users
    uint32_t no_fchmodat2        # the host's kernel has none
    uint64_t capabilities        # effective ones of the process
    const void *filter           # seccomp, of each thread of the data plane; NULL: none
    uint32_t filter_size         # instructions
    uint32_t lone_sgid           # a file with a set-group-id bit that its group may not execute has been seen
    uint32_t override_lock       # of the attribute in which ownership is kept, while it is changed


# Nobody but its thread writes a Context.
cdef struct Context:
    Share *share
    uint32_t may_sleep           # it is no queue's worker
    uint32_t umask               # the thread's own
    uint32_t unknown             # lookups in a row that found an inode that was not known
    uint32_t keeps_suid          # CAP_FSETID is effective: writes do not clear set-id bits
    uint32_t filtered            # its thread has the filter from the one that starts it
    uint64_t capabilities        # effective ones while it acts for itself
    uint64_t permitted
    uint64_t inheritable
    uint64_t calls[OPCODES]
    uint64_t errors[OPCODES]
    uint32_t usual[OPCODES]      # ticks that a request takes, lately and on a queue's worker
    uint32_t usual_unit[OPCODES]    # and one with much data, for each UNIT_BYTES of that
    Handle handle                # of a request that comes without one, while it is served
    uint8_t *scratch


cdef int context_init(Context *ctx, Share *share) noexcept nogil     # by the thread that starts it
cdef int context_enter_thread(Context *ctx) noexcept nogil
cdef void context_destroy(Context *ctx) noexcept nogil
