# Which bytes of a file an owner has locked, and how.

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    RANGES_NEW = 2       # the most that a change takes


cdef struct LockRange:
    LockRange *next      # sorted, and none overlaps another
    uint64_t start
    uint64_t end         # the last byte
    uint32_t kind        # F_RDLCK or F_WRLCK


cdef LockRange *ranges_change(LockRange **ranges, uint64_t start, uint64_t end, uint32_t kind,
                              LockRange *spare) noexcept nogil
cdef const LockRange *ranges_conflict(const LockRange *ranges, uint64_t start, uint64_t end,
                                      uint32_t kind) noexcept nogil
cdef bint ranges_adds(const LockRange *ranges, uint64_t start, uint64_t end, uint32_t kind) noexcept nogil
cdef LockRange *ranges_spare(uint32_t *count) noexcept nogil
cdef uint32_t ranges_free(LockRange *ranges) noexcept nogil
