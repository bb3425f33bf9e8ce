# What a request's file handle stands for, also where the guest does without OPEN and OPENDIR.

from libc.stdint cimport uint64_t

from .handles cimport Handle
from .share cimport Context


cdef bint opens_nothing(const Context *ctx, bint directory) noexcept nogil
cdef Handle *handle_of(Context *ctx, uint64_t fh, uint64_t nodeid, bint directory, int *error) noexcept nogil
cdef Handle *any_handle_of(Context *ctx, uint64_t fh, uint64_t nodeid, int *error) noexcept nogil
