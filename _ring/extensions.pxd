# The blocks that may follow the arguments of a creation: supplementary groups and security contexts.

from libc.stdint cimport uint32_t

from .request cimport Request

cdef enum:
    GROUPS_MAX = 32


cdef struct SecurityContext:
    const char *name     # of the extended attribute
    const void *label
    uint32_t size        # bytes of the label


cdef int groups_of(const Request *request, uint32_t *groups) noexcept nogil
cdef int contexts_of(const Request *request, SecurityContext *contexts, uint32_t most) noexcept nogil
