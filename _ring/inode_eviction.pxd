# Closing the descriptors that the inode table caches.

from libc.stdint cimport uint32_t

from .inode_table cimport InodeTable


# How much of the reserve files of the guest may take whose descriptors cannot be closed: it has deleted them, and
# knows them still. What is left is the control plane's, and for what is open for a moment.
cdef enum Reserve:
    RESERVE_FOR_NEW = 2         # eighths: then nothing is made or opened any more
    RESERVE_FOR_KNOWN = 4       # and then not even found again


cdef void make_room(InodeTable *table) noexcept nogil
cdef bint has_room(InodeTable *table, Reserve most) noexcept nogil
cdef int open_counted(InodeTable *table) noexcept nogil
cdef void inodes_close_idle(InodeTable *table, bint opens_counted) noexcept nogil
cdef uint32_t inodes_evict(InodeTable *table, uint32_t count) noexcept nogil
