# Translating user and group ids between guest and host.

from libc.stdint cimport uint32_t

cdef enum:
    ID_NONE = 0xffffffffU    # no id: left as it is


cdef enum IdKind:
    ID_SHIFT
    ID_SQUASH
    ID_FORBID


cdef struct IdSpan:
    uint32_t source
    uint32_t last        # inclusive
    uint32_t target
    uint32_t kind        # an IdKind


# Spans do not overlap; ids in none stay as they are.
cdef struct IdMap:
    IdSpan *spans
    uint32_t count


cdef int id_translate(const IdMap *map, uint32_t *id) noexcept nogil
