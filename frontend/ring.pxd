# The driver's side of one virtqueue as C code sees it: the state, and the same few functions for either layout.
#
# The driver keeps its own record of what is free and in flight; what the device or a misbehaving test writes into the
# ring can confuse the device, never the driver. Functions return >= 0 or -errno.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from virtiofsd._ring.virtio_abi cimport virtio_desc, virtio_packed_desc, virtio_packed_event, virtio_used_elem

# A buffer of a chain, by guest address.
cdef struct piece_t:
    uint64_t gpa
    uint32_t length
    uint32_t writable

cdef struct ring_t:
    uint32_t size
    bint packed
    bint event_idx
    # Split: descriptors, the driver's area, the device's area
    virtio_desc *desc
    uint16_t *avail             # flags, idx, ring[size], used_event
    uint16_t *used_head         # flags, idx
    virtio_used_elem *used
    uint16_t *avail_event
    # Packed: the same descriptors, the two event areas
    virtio_packed_desc *packed_desc
    virtio_packed_event *driver_event
    virtio_packed_event *device_event
    # The driver's own record, by descriptor index (split) or buffer id (packed)
    uint16_t *next              # free list and, in flight, the chain
    uint16_t *count             # descriptors in flight under this head; 0 is none
    uint8_t *raw                # pushed by hand: returned, but nothing to free
    uint16_t *pending_slot      # packed: heads added and not yet published, and their flags
    uint16_t *pending_flags
    uint32_t pending
    uint16_t free_head
    uint32_t num_free
    uint16_t avail_idx          # split: free-running; packed: next slot
    uint16_t published_idx      # split: the index that the device sees
    uint16_t kicked_idx         # split: the index at the last decision to kick
    uint32_t unkicked           # packed: slots published since the last decision
    uint16_t last_used          # split: free-running; packed: next slot
    bint avail_wrap
    bint used_wrap
    # One indirect table for each head
    virtio_desc *tables
    uint64_t tables_gpa
    uint32_t table_length
    # Notifications
    int kick_fd
    int call_fd
    uint64_t kicks_written
    uint64_t kicks_saved
    uint64_t calls_received     # what the eventfd counted
    uint64_t wake_ups

# Takes descriptors for a chain, which the device does not see yet; the head, or -EAGAIN, -EMSGSIZE, -EINVAL.
cdef int ring_add(ring_t *ring, const piece_t *pieces, uint32_t count, bint indirect) noexcept nogil

# Shows everything added to the device.
cdef void ring_publish(ring_t *ring) noexcept nogil

# Whether the device wants to hear of what was published since the last call.
cdef bint ring_wants_kick(ring_t *ring) noexcept nogil

# Kicks if the device wants it; 1 written, 0 saved, -errno.
cdef int ring_kick(ring_t *ring, bint force) noexcept nogil

# Takes one returned chain: 1 and its head and length, 0 there is none, -EPROTO the device wrote nonsense.
cdef int ring_pop(ring_t *ring, uint32_t *head, uint32_t *length) noexcept nogil

# Asks for a call at the next return; False when something has been returned already.
cdef bint ring_arm(ring_t *ring) noexcept nogil

# After a call: wants none until armed again. As Linux does, nothing to write with EVENT_IDX.
cdef void ring_disarm(ring_t *ring) noexcept nogil

# Wants no calls for a long while: a driver that spins.
cdef void ring_quiet(ring_t *ring) noexcept nogil

# Waits for a call and takes it: 1 called, 0 time out, -errno.
cdef int ring_sleep(ring_t *ring, int timeout_ms) noexcept nogil

# Empties the driver's record and the ring's memory.
cdef void ring_reset(ring_t *ring) noexcept nogil
