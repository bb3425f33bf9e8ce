# The one table of operations, and the dispatch by it.

from libc.stdint cimport uint16_t, uint32_t

from .request cimport Request
from .share cimport Context

cdef enum OperationFlags:
    MODIFIES = 1         # refused on a read-only share
    AS_CALLER = 2        # may carry creation extensions; acts with the caller's ids
    SLEEPS = 4           # always leaves the queue's worker
    SILENT = 8           # has no reply
    SESSIONLESS = 16     # allowed without INIT
    STREAMS = 32         # only the fixed arguments are copied; the data stays in the chain


ctypedef int (*Handler)(Context *ctx, Request *request) noexcept nogil


cdef struct Operation:
    const char *name     # NULL: no such operation
    Handler handler
    uint16_t args        # bytes of fixed arguments
    uint16_t reply       # bytes of fixed reply behind the header
    uint32_t flags
    uint32_t slow_class  # which others are slow where it is


cdef const Operation *prepare(Context *ctx, Request *request) noexcept nogil
cdef int perform(Context *ctx, Request *request, const Operation *operation) noexcept nogil
cdef const Operation *operation_of(uint32_t opcode) noexcept nogil
