"""An arena of names, in blocks of whole units with a free list for each number of units; it never moves a name."""

from libc.stdint cimport uint8_t, uint32_t

from .linux cimport (
    ENOMEM, MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, memcmp, memcpy, mmap,
    munmap, strlen)
from .mutex cimport lock, unlock

cdef enum:
    CHUNK_UNITS = 1 << NAME_CHUNK_BITS
    CHUNK_BYTES = CHUNK_UNITS * NAME_UNIT


cdef inline uint8_t *at(const NameArena *arena, uint32_t index) noexcept nogil:
    return arena.chunks[index >> NAME_CHUNK_BITS] + (index & (CHUNK_UNITS - 1)) * NAME_UNIT


cdef inline uint32_t units_of(uint32_t size) noexcept nogil:
    # A byte of length, then the name.
    return (size + NAME_UNIT) / NAME_UNIT


cdef int names_create(NameArena *arena) noexcept nogil:
    arena.chunks = <uint8_t **> mmap(NULL, NAME_CHUNKS_MAX * sizeof(uint8_t *), PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if arena.chunks == MAP_FAILED:
        arena.chunks = NULL
        return -ENOMEM
    return 0


cdef void names_destroy(NameArena *arena) noexcept nogil:
    cdef uint32_t chunk
    if arena.chunks == NULL:
        return
    for chunk in range(<uint32_t> NAME_CHUNKS_MAX):
        if arena.chunks[chunk] == NULL:
            break
        munmap(arena.chunks[chunk], CHUNK_BYTES)
    munmap(arena.chunks, NAME_CHUNKS_MAX * sizeof(uint8_t *))
    arena.chunks = NULL


cdef uint32_t take(NameArena *arena, uint32_t units) noexcept nogil:
    """The index of a free block. NAME_NONE: no memory. The arena is locked."""
    cdef uint32_t index = arena.free[units]
    cdef uint32_t chunk
    cdef void *memory
    if index != NAME_NONE:
        memcpy(&arena.free[units], at(arena, index), sizeof(uint32_t))
        return index
    index = arena.used if arena.used else 1   # index 0 is no name
    if (index & (CHUNK_UNITS - 1)) + units > CHUNK_UNITS:
        index = (index | (CHUNK_UNITS - 1)) + 1
        if index == 0:
            return NAME_NONE
    chunk = index >> NAME_CHUNK_BITS
    if arena.chunks[chunk] == NULL:
        memory = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if memory == MAP_FAILED:
            return NAME_NONE
        arena.chunks[chunk] = <uint8_t *> memory
    arena.used = index + units
    return index


cdef uint32_t name_keep(NameArena *arena, const char *name) noexcept nogil:
    """Keeps a copy. Its index, or NAME_NONE: no memory, or no name of 1 to 255 bytes."""
    cdef size_t size = strlen(name)
    cdef uint32_t index
    if not 1 <= size <= NAME_MAX:
        return NAME_NONE
    lock(&arena.lock)
    index = take(arena, units_of(<uint32_t> size))
    if index != NAME_NONE:
        arena.bytes += units_of(<uint32_t> size) * NAME_UNIT
        at(arena, index)[0] = <uint8_t> size
        memcpy(at(arena, index) + 1, name, size)
    unlock(&arena.lock)
    return index


cdef void name_drop(NameArena *arena, uint32_t index) noexcept nogil:
    cdef uint32_t units
    if index == NAME_NONE:
        return
    lock(&arena.lock)
    units = units_of(at(arena, index)[0])
    arena.bytes -= units * NAME_UNIT
    memcpy(at(arena, index), &arena.free[units], sizeof(uint32_t))
    arena.free[units] = index
    unlock(&arena.lock)


cdef void name_copy(const NameArena *arena, uint32_t index, char *out) noexcept nogil:
    """Into NAME_MAX + 1 bytes. Who calls sees to it that the name is not dropped meanwhile."""
    cdef const uint8_t *kept = at(arena, index)
    memcpy(out, kept + 1, kept[0])
    out[kept[0]] = 0


cdef bint name_equals(const NameArena *arena, uint32_t index, const char *name) noexcept nogil:
    cdef const uint8_t *kept
    if index == NAME_NONE:
        return False
    kept = at(arena, index)
    return strlen(name) == kept[0] and memcmp(kept + 1, name, kept[0]) == 0
