# The device's side of a split virtqueue (virtio 1.3, 2.7). Both sides of the ring have one lock: who returns a chain
# and takes the next one holds it once.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from .atomics cimport load_relaxed16, prefetch_to_write
from .virtio_abi cimport virtio_desc, virtio_used_elem

cdef enum QueueError:
    QUEUE_OK = 0
    QUEUE_BAD_INDEX = 1     # avail.idx is more than a ring ahead
    QUEUE_BAD_HEAD = 2      # an entry of the available ring that is no descriptor
    QUEUE_OVERCOMMITTED = 3  # more chains in flight than the ring has descriptors
    QUEUE_MEMORY_GONE = 4

cdef enum CallKind:
    CALL_EVENTFD
    CALL_BLOCKING   # an eventfd that would block where it is full
    CALL_SOCKET     # 8 bytes into one end of a socket pair (User-Mode Linux)
    CALL_MESSAGE    # VHOST_USER_BACKEND_VRING_CALL on the back-end channel

cdef enum:
    BAD_CHAINS = 8  # kinds of them: more than chain.pxd knows
    PLACES = 3
    ANNOUNCED = 16  # chains whose beginning is read at once, a power of 2

# The beginning of an available chain.
cdef struct Announced:
    uint16_t head
    virtio_desc first       # nothing, where the head is no descriptor


cdef struct Virtqueue:
    uint32_t index
    uint32_t size           # descriptors, a power of 2
    uint32_t event_idx      # VIRTIO_F_EVENT_IDX is negotiated
    uint32_t indirect       # VIRTIO_F_INDIRECT_DESC is negotiated
    uint32_t error          # a QueueError: broken, and left alone
    uint32_t placed         # the addresses below are valid

    uint64_t desc_user      # where the front-end has the parts: found again whenever the memory map changes
    uint64_t avail_user
    uint64_t used_user
    virtio_desc *desc
    uint16_t *avail         # flags, idx, ring[size], used_event
    uint16_t *used          # flags, idx, ring of virtio_used_elem, avail_event
    virtio_used_elem *used_ring

    uint32_t lock

    # available side
    uint32_t running        # started and enabled
    uint32_t served_by      # the worker that asks for kicks, or not: one that has just lost the queue must not
    uint16_t next_avail     # free-running
    uint16_t seen_avail     # avail.idx as last read
    uint16_t read_avail     # the chains from next_avail up to this one were read, into:
    Announced announced[ANNOUNCED]
    const void *places[PLACES]  # of a chain's descriptor, table and request: to be fetched, and for nothing else
    uint64_t popped         # chains taken, ever
    uint64_t bad_chains[BAD_CHAINS]     # by ChainError

    # used side
    uint16_t next_used      # free-running
    uint16_t signalled_used  # next_used when the driver was last asked whether it wants a signal
    uint32_t signal_always  # the first after a start is unconditional
    uint64_t pushed         # chains returned, ever
    uint64_t signals
    uint64_t looked_at      # ticks: when the worker last saw whether the driver wants a signal
    uint32_t call_lost      # a message found the channel full: the control plane sends it

    int kick_fd             # -1: none, the ring is polled
    int message_fd          # the back-end channel, for CALL_MESSAGE; or -1
    int call_fd             # always open: where there is none, an eventfd that nobody reads
    int err_fd              # the control plane's, which signals it
    uint32_t callers        # threads that are writing to call_fd, or hang in that
    uint32_t error_due      # the front-end has yet to be told that the queue is broken
    uint32_t inband_kicks   # they are messages to the control plane, which wakes the worker
    uint32_t call_kind      # a CallKind


cdef inline const Announced *announced(const Virtqueue *queue, uint16_t ahead) noexcept nogil:
    """The next chain but so many, of those that were read."""
    return &queue.announced[<uint16_t> (queue.next_avail + ahead) & (ANNOUNCED - 1)]


cdef inline void ring_fetch_used(const Virtqueue *queue) noexcept nogil:
    """Has the next used entry ready to be written: the driver's CPU has read its neighbour."""
    prefetch_to_write(queue.used_ring + (load_relaxed16(&queue.next_used) & (queue.size - 1)))


cdef inline uint16_t ring_unsignalled(const Virtqueue *queue) noexcept nogil:
    """How many chains were returned since ring_wants_signal(). Without the lock: others may do either just now."""
    return <uint16_t> (load_relaxed16(&queue.next_used) - load_relaxed16(&queue.signalled_used))


cdef bint ring_place(Virtqueue *queue, virtio_desc *desc, uint16_t *avail, uint16_t *used) noexcept nogil
cdef int ring_next(Virtqueue *queue, const Announced **chain) noexcept nogil
cdef void ring_begin(Virtqueue *queue, uint16_t next_avail) noexcept nogil
cdef bint ring_kicks_on(Virtqueue *queue) noexcept nogil
cdef void ring_kicks_off(Virtqueue *queue) noexcept nogil
cdef void ring_push(Virtqueue *queue, uint16_t head, uint32_t written) noexcept nogil
cdef bint ring_wants_signal(Virtqueue *queue) noexcept nogil
cdef bint send_call(Virtqueue *queue, bint briefly) noexcept nogil
cdef void ring_break(Virtqueue *queue, uint32_t error) noexcept nogil
