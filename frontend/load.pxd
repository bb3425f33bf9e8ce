# The load generator's state. One thread runs it; everything it touches is allocated before.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from frontend.ring cimport piece_t, ring_t
from frontend.virtqueue cimport Virtqueue

cdef enum:
    REGISTERS = 4

cdef struct transfer_t:
    uint32_t at
    uint32_t register_

cdef struct op_t:
    uint64_t request_at
    uint32_t request_length
    uint32_t data
    uint32_t out_args
    uint32_t out_data
    uint32_t least
    uint32_t most
    int32_t error
    bint no_reply
    int check
    uint32_t check_at
    uint64_t check_value
    uint64_t offset
    uint32_t num_saves
    uint32_t num_patches
    transfer_t saves[REGISTERS]
    transfer_t patches[REGISTERS]

cdef struct load_t

cdef struct slot_t:
    load_t *load
    uint8_t *request
    uint64_t request_gpa
    uint8_t *reply
    uint64_t reply_gpa
    uint8_t **pages
    uint64_t *pages_gpa
    uint64_t registers[REGISTERS]
    const op_t *op
    uint64_t next               # index of the cycle's next operation
    uint32_t left               # operations of the cycle after this one
    uint64_t unique
    uint64_t started

cdef struct load_t:
    ring_t *ring
    const op_t *ops
    uint64_t num_ops
    uint32_t cycle
    const uint8_t *program
    slot_t *slots
    slot_t **heads              # by the ring's heads
    slot_t **by_head            # the same, or those of the load that shares its ring with this one
    uint32_t depth
    piece_t *pieces
    bint indirect
    bint sleeping
    bint publish_each
    uint64_t gap
    # The run
    load_t *follower            # which ends `linger` after this one
    uint64_t linger
    uint64_t deadline
    uint64_t limit              # operations, rounded up to whole cycles
    uint64_t timeout
    uint64_t position           # next cycle's first operation
    uint64_t promised           # operations of the cycles begun
    uint64_t done
    uint64_t unique
    uint32_t in_flight
    bint unpublished
    uint32_t stop
    bint stalled
    int ring_error
    uint64_t wrong_header
    uint64_t wrong_length
    uint64_t wrong_error
    uint64_t wrong_data
    uint64_t data_bytes
    # Latencies
    uint32_t *samples
    uint64_t capacity
    uint64_t num_samples
    uint64_t stride
    uint64_t until_sample

cdef class Generator:
    cdef load_t load
    cdef Virtqueue queue
    cdef object memory
    cdef list taken
    cdef tuple counted           # the ring's counters when the run began
    cdef bytes program
    cdef bint running

    cdef _read_ops(self, ops)
    cdef _place_slots(self, ops)
    cdef _begin(self, uint64_t limit, double timeout, slot_t **heads)
    cdef _result(self, uint64_t nanoseconds, uint64_t used_cpu)
