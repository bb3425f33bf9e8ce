"""Translating user and group ids between guest and host."""

from libc.stdint cimport uint32_t

from .linux cimport EPERM


cdef int id_translate(const IdMap *map, uint32_t *id) noexcept nogil:
    """Replaces the id by what it is on the other side. 0, or -EPERM for one that may not be used."""
    cdef const IdSpan *span
    cdef uint32_t i
    if id[0] == ID_NONE:
        return 0
    for i in range(map.count):
        span = map.spans + i
        if span.source <= id[0] <= span.last:
            if span.kind == ID_FORBID:
                return -EPERM
            id[0] = span.target if span.kind == ID_SQUASH else span.target + (id[0] - span.source)
            return 0
    return 0
