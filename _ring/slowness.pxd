# Which operations sleep on which file system: learnt from how long they took, and unlearnt.

from libc.stdint cimport uint32_t, uint64_t

from .inode_table cimport InodeTable

cdef enum:
    SLOW_US = 1000       # long, for a request that holds up the queue behind it
    TWICE_WITHIN_US = 200000    # two of them teach something


cdef enum SlowClass:
    CLASS_NONE           # always in the pool, or never slow
    CLASS_METADATA
    CLASS_NAMES
    CLASS_OPEN
    CLASS_DATA


cdef void slowness_note(InodeTable *table, uint64_t nodeid, uint32_t which, uint64_t took_us,
                        uint64_t now_us) noexcept nogil
cdef void slowness_hangs(InodeTable *table, uint64_t nodeid, uint32_t which, uint64_t now_us) noexcept nogil
cdef void slowness_forgive(InodeTable *table, uint64_t nodeid, uint32_t which, uint64_t took_us,
                           uint64_t now_us) noexcept nogil
cdef bint slowness_expected(InodeTable *table, uint64_t nodeid, uint32_t which) noexcept nogil
