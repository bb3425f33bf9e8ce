"""The host's kernel knows what is locked, but not by whom of the guest's: this is kept to tell who waits for whom."""

from libc.stdint cimport uint32_t, uint64_t

from .linux cimport F_UNLCK, F_WRLCK, calloc, free


cdef LockRange *ranges_spare(uint32_t *count) noexcept nogil:
    """A list of RANGES_NEW unused ranges, and their number; fewer where there is no memory."""
    cdef LockRange *spare = NULL
    cdef LockRange *added
    cdef int _i
    count[0] = 0
    for _i in range(RANGES_NEW):
        added = <LockRange *> calloc(1, sizeof(LockRange))
        if added == NULL:
            break
        added.next = spare
        spare = added
        count[0] += 1
    return spare


cdef uint32_t ranges_free(LockRange *ranges) noexcept nogil:
    """Returns how many there were."""
    cdef LockRange *following
    cdef uint32_t count = 0
    while ranges != NULL:
        following = ranges.next
        free(ranges)
        ranges = following
        count += 1
    return count


cdef inline LockRange *put(LockRange **link, LockRange **spare, uint64_t start, uint64_t end,
                           uint32_t kind) noexcept nogil:
    cdef LockRange *added = spare[0]
    if added == NULL:
        return NULL   # without memory a deadlock may go unnoticed
    spare[0] = added.next
    added.start = start
    added.end = end
    added.kind = kind
    added.next = link[0]
    link[0] = added
    return added


cdef LockRange *ranges_change(LockRange **ranges, uint64_t start, uint64_t end, uint32_t kind,
                              LockRange *spare) noexcept nogil:
    """Bytes `start` to `end` are locked as `kind` says from now on: F_UNLCK, not any more. Takes from `spare`, and
    returns what is left of it and what is not needed any more, for ranges_free().
    """
    cdef LockRange **link = ranges
    cdef LockRange *before = NULL
    cdef LockRange *here
    while link[0] != NULL and link[0].end < start:
        before = link[0]
        link = &before.next
    here = link[0]
    if here != NULL and here.start < start:
        if here.end > end:
            put(&here.next, &spare, end + 1, here.end, here.kind)
        here.end = start - 1
        before = here
        link = &here.next
    while link[0] != NULL and link[0].start <= end:
        here = link[0]
        if here.end > end:
            here.start = end + 1
            break
        link[0] = here.next
        here.next = spare
        spare = here
    if kind == F_UNLCK:
        return spare
    # One with its neighbours of the same kind.
    here = link[0]
    if here != NULL and here.kind == kind and here.start == end + 1:
        here.start = start
    else:
        here = put(link, &spare, start, end, kind)
    if here != NULL and before != NULL and before.kind == kind and before.end + 1 == start:
        before.end = here.end
        before.next = here.next
        here.next = spare
        spare = here
    return spare


cdef bint ranges_adds(const LockRange *ranges, uint64_t start, uint64_t end, uint32_t kind) noexcept nogil:
    """Whether there may be more ranges than before where these bytes are locked; or unlocked: in the middle of one."""
    if kind != F_UNLCK:
        return True
    while ranges != NULL and ranges.end < start:
        ranges = ranges.next
    return ranges != NULL and ranges.start < start and ranges.end > end


cdef const LockRange *ranges_conflict(const LockRange *ranges, uint64_t start, uint64_t end,
                                      uint32_t kind) noexcept nogil:
    """The first range that is in the way of a lock; NULL: none is."""
    while ranges != NULL and ranges.start <= end:
        if ranges.end >= start and (kind == F_WRLCK or ranges.kind == F_WRLCK):
            return ranges
        ranges = ranges.next
    return NULL
