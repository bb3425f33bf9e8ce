"""Taking chains from a split virtqueue, returning them, and notifications both ways (virtio 1.3, 2.7)."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from .atomics cimport (
    fence_full, fetch_add32, fetch_sub32, le16, le32, load_acquire16, load_relaxed16, load_relaxed64, store_relaxed16,
    store_release16, store_release32, store_release64)
from .invariants cimport invariant
from .linux cimport EAGAIN, ENOTSOCK, MSG_DONTWAIT, MSG_NOSIGNAL, sys_send, sys_writable, sys_write, sys_write_briefly
from .mutex cimport lock, unlock
from .vhost_user_abi cimport (
    VHOST_USER_BACKEND_VRING_CALL, VHOST_USER_VERSION, vhost_user_header, vhost_user_vring_state)
from .virtio_abi cimport VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY, virtio_desc, virtio_used_elem


cdef struct CallMessage:
    vhost_user_header header
    vhost_user_vring_state state


cdef inline uint16_t *used_event(Virtqueue *queue) noexcept nogil:
    return queue.avail + 2 + queue.size


cdef inline uint16_t *avail_event(Virtqueue *queue) noexcept nogil:
    return <uint16_t *> (queue.used_ring + queue.size)


cdef inline bint needs_event(uint16_t event, uint16_t new, uint16_t old) noexcept nogil:
    """Whether `event` lies in old..new-1 (virtio 1.3, 2.7.10)."""
    return <uint16_t> (new - event - 1) < <uint16_t> (new - old)


cdef bint ring_place(Virtqueue *queue, virtio_desc *desc, uint16_t *avail, uint16_t *used) noexcept nogil:
    """Where the parts of the ring are, as host addresses. False where one is not aligned (virtio 1.3, 2.7)."""
    if <size_t> desc & 15 or <size_t> avail & 1 or <size_t> used & 3:
        return False
    queue.desc = desc
    queue.avail = avail
    queue.used = used
    queue.used_ring = <virtio_used_elem *> (used + 2)
    return True


cdef void ring_begin(Virtqueue *queue, uint16_t next_avail) noexcept nogil:
    """The next available index, from now on; nothing is known of what is there. The queue's lock is held."""
    queue.next_avail = queue.seen_avail = queue.read_avail = next_avail


cdef void read_announced(Virtqueue *queue) noexcept nogil:
    """Reads where the available chains begin, several at once: the driver writes to the same lines with each new one,
    so that they would else be fetched from its CPU again for each.
    """
    cdef Announced *chain
    cdef const uint64_t *desc
    while queue.read_avail != queue.seen_avail and <uint16_t> (queue.read_avail - queue.next_avail) < ANNOUNCED:
        chain = &queue.announced[queue.read_avail & (ANNOUNCED - 1)]
        chain.head = le16(load_relaxed16(queue.avail + 2 + (queue.read_avail & (queue.size - 1))))
        if chain.head < queue.size:
            desc = <const uint64_t *> (queue.desc + chain.head)
            (<uint64_t *> &chain.first)[0] = load_relaxed64(desc)
            (<uint64_t *> &chain.first)[1] = load_relaxed64(desc + 1)
        queue.read_avail += 1


cdef int ring_next(Virtqueue *queue, const Announced **chain) noexcept nogil:
    """The next available chain, until the next call: 1, or 0 where there is none, or -QueueError. The queue's lock is
    held.
    """
    cdef uint16_t index
    if queue.next_avail == queue.seen_avail:
        # Acquire: the entries and descriptors are read after the index that announces them.
        index = le16(load_acquire16(queue.avail + 1))
        if <uint16_t> (index - queue.next_avail) > queue.size:
            return -<int> QUEUE_BAD_INDEX
        queue.seen_avail = index
        if index == queue.next_avail:
            return 0
    if queue.next_avail == queue.read_avail:
        read_announced(queue)
    chain[0] = announced(queue, 0)
    if chain[0].head >= queue.size:
        return -<int> QUEUE_BAD_HEAD
    # A driver cannot have more chains in flight than descriptors: who sends the same one twice is stopped here.
    if queue.popped - load_relaxed64(&queue.pushed) >= queue.size:
        return -<int> QUEUE_OVERCOMMITTED
    queue.next_avail += 1
    queue.popped += 1
    return 1


cdef bint ring_kicks_on(Virtqueue *queue) noexcept nogil:
    """Asks for a kick with the next chain. True: there is one already. The queue's lock is held."""
    if queue.event_idx:
        store_relaxed16(avail_event(queue), le16(queue.next_avail))
    else:
        store_relaxed16(queue.used, 0)
    # Full: the driver must see the wish before we look whether it has published something without a kick.
    fence_full()
    return le16(load_acquire16(queue.avail + 1)) != queue.next_avail


cdef void ring_kicks_off(Virtqueue *queue) noexcept nogil:
    """Asks for no kicks while the ring is looked at anyway; a stale avail_event says it too. The queue's lock is held.
    """
    if not queue.event_idx:
        store_relaxed16(queue.used, le16(VRING_USED_F_NO_NOTIFY))


cdef void ring_push(Virtqueue *queue, uint16_t head, uint32_t written) noexcept nogil:
    """Returns a chain with `written` bytes in its device-writable part, and publishes it. The queue's lock is held."""
    cdef virtio_used_elem *element
    # Counted before it is published: the driver may send its next chain at once, and ring_next() counts both.
    store_release64(&queue.pushed, queue.pushed + 1)
    if queue.placed and not queue.error:
        invariant(head < queue.size and queue.pushed <= load_relaxed64(&queue.popped),
                  "a returned chain was taken from its queue")
        element = queue.used_ring + (queue.next_used & (queue.size - 1))
        element.id = le32(head)
        element.len = le32(written)
        queue.next_used += 1
        # Release: the entry, and all that was written into the chain, before the index that publishes it.
        store_release16(queue.used + 1, le16(queue.next_used))


cdef bint ring_wants_signal(Virtqueue *queue) noexcept nogil:
    """Whether the driver wants to be told of what was pushed since this was last asked. Any thread."""
    cdef uint16_t old
    cdef uint16_t new
    cdef bint wanted
    lock(&queue.lock)
    old = queue.signalled_used
    new = queue.next_used
    if old == new or not queue.placed or queue.error:
        unlock(&queue.lock)
        return False
    queue.signalled_used = new
    # Full: used.idx must be visible before the driver's wish is read, or both sides could wait for each other.
    fence_full()
    if queue.event_idx:
        wanted = needs_event(le16(load_relaxed16(used_event(queue))), new, old)
    else:
        wanted = not le16(load_relaxed16(queue.avail)) & VRING_AVAIL_F_NO_INTERRUPT
    if queue.signal_always:
        queue.signal_always = 0
        wanted = True
    if wanted:
        queue.signals += 1
    unlock(&queue.lock)
    return wanted


cdef bint send_call(Virtqueue *queue, bint briefly) noexcept nogil:
    """Signals the driver. False where it went as a message and the channel is full: it is to be sent again. `briefly`:
    without hanging, where the front-end has the descriptor block.

    call_fd keeps its number: another descriptor is put in its place by dup3, so no lock is needed to use it; and what
    is sent to a channel of messages has a number of its own. An eventfd or a socket that is full says all that one more
    signal could.
    """
    cdef uint64_t one = 1
    cdef CallMessage message
    if queue.call_kind == CALL_MESSAGE:
        message.header.request = VHOST_USER_BACKEND_VRING_CALL
        message.header.flags = VHOST_USER_VERSION
        message.header.size = sizeof(vhost_user_vring_state)
        message.state.index = queue.index
        message.state.num = 0
        if sys_send(queue.message_fd, &message, sizeof(message), MSG_DONTWAIT | MSG_NOSIGNAL) == -EAGAIN:
            store_release32(&queue.call_lost, 1)
            return False
        return True
    if queue.call_kind == CALL_SOCKET:
        if sys_send(queue.call_fd, &one, sizeof(one), MSG_DONTWAIT | MSG_NOSIGNAL) != -ENOTSOCK:
            return True
    if queue.call_kind == CALL_EVENTFD or sys_writable(queue.call_fd):
        if briefly:
            sys_write_briefly(queue.call_fd, &one, sizeof(one))
        else:
            fetch_add32(&queue.callers, 1)
            sys_write(queue.call_fd, &one, sizeof(one))
            fetch_sub32(&queue.callers, 1)
    return True


cdef void ring_break(Virtqueue *queue, uint32_t error) noexcept nogil:
    """Declares the queue broken: it is not read or written any more. The control plane tells the front-end."""
    lock(&queue.lock)
    if queue.error == QUEUE_OK:
        queue.error = error
        store_release32(&queue.error_due, 1)
    unlock(&queue.lock)
