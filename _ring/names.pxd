# Names of files, kept only for file systems without handles: an index stands for a string of 1 to 255 bytes.

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    NAME_MAX = 255
    NAME_NONE = 0
    NAME_UNIT = 16               # bytes: what an index counts
    NAME_CHUNK_BITS = 16         # units in a chunk: 1 MiB
    NAME_CHUNKS_MAX = 1 << (32 - NAME_CHUNK_BITS)
    NAME_CLASSES = 16


cdef struct NameArena:
    uint8_t **chunks
    uint32_t lock
    uint32_t used                # units handed out so far, from the start of the arena
    uint32_t bytes               # of the strings kept now
    uint32_t free[NAME_CLASSES + 1]


cdef int names_create(NameArena *arena) noexcept nogil
cdef void names_destroy(NameArena *arena) noexcept nogil
cdef uint32_t name_keep(NameArena *arena, const char *name) noexcept nogil
cdef void name_drop(NameArena *arena, uint32_t index) noexcept nogil
cdef void name_copy(const NameArena *arena, uint32_t index, char *out) noexcept nogil
cdef bint name_equals(const NameArena *arena, uint32_t index, const char *name) noexcept nogil
