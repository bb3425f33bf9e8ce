"""The driver's side of split and packed virtqueues, without Python."""

from libc.errno cimport EAGAIN, EINTR, EINVAL, EMSGSIZE, EPROTO, errno
from libc.string cimport memset
from posix.unistd cimport read, write

from virtiofsd._ring.atomics cimport (
    fence_full, le16, le32, le64, load_acquire16, load_relaxed16, store_relaxed16, store_release16,
)
from virtiofsd._ring.virtio_abi cimport (
    VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, VRING_PACKED_DESC_F_AVAIL,
    VRING_PACKED_DESC_F_USED, VRING_PACKED_EVENT_F_DESC, VRING_PACKED_EVENT_F_DISABLE, VRING_PACKED_EVENT_F_ENABLE,
    VRING_USED_F_NO_NOTIFY, virtio_desc,
)

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    enum:
        POLLIN
    int poll(pollfd *fds, unsigned long nfds, int timeout)


cdef inline bint need_event(uint16_t event, uint16_t new, uint16_t old) noexcept nogil:
    """Virtio 1.3, 2.7.10: whether `event` lies in what was added between old and new."""
    return <uint16_t>(new - event - 1) < <uint16_t>(new - old)


cdef inline void write_desc(virtio_desc *desc, const piece_t *piece, uint16_t flags, uint16_t next) noexcept nogil:
    desc.addr = le64(piece.gpa)
    desc.len = le32(piece.length)
    desc.flags = le16(flags | (VRING_DESC_F_WRITE if piece.writable else 0))
    desc.next = le16(next)


cdef void fill_table(ring_t *ring, uint16_t head, const piece_t *pieces, uint32_t count) noexcept nogil:
    """The head's indirect table. `next` is written for packed too, where it is a reserved id."""
    cdef virtio_desc *table = ring.tables + <size_t>head * ring.table_length
    cdef uint32_t i
    for i in range(count):
        if ring.packed:
            write_desc(table + i, pieces + i, 0, 0)
            table[i].next = table[i].flags      # packed: the id stands before the flags
            table[i].flags = 0
        elif i + 1 < count:
            write_desc(table + i, pieces + i, VRING_DESC_F_NEXT, <uint16_t>(i + 1))
        else:
            write_desc(table + i, pieces + i, 0, 0)


cdef inline uint64_t table_gpa(ring_t *ring, uint16_t head) noexcept nogil:
    return ring.tables_gpa + <uint64_t>head * ring.table_length * sizeof(virtio_desc)


# Split

cdef int split_add(ring_t *ring, const piece_t *pieces, uint32_t count, bint indirect) noexcept nogil:
    cdef uint16_t head = ring.free_head, index = head, following
    cdef uint32_t slots = 1 if indirect else count, i
    cdef virtio_desc *desc
    if ring.num_free < slots:
        return -EAGAIN
    if indirect:
        desc = ring.desc + head
        fill_table(ring, head, pieces, count)
        desc.addr = le64(table_gpa(ring, head))
        desc.len = le32(<uint32_t>(count * sizeof(virtio_desc)))
        desc.flags = le16(VRING_DESC_F_INDIRECT)
        ring.free_head = ring.next[head]
    else:
        for i in range(count):
            following = ring.next[index]
            if i + 1 < count:
                write_desc(ring.desc + index, pieces + i, VRING_DESC_F_NEXT, following)
            else:
                write_desc(ring.desc + index, pieces + i, 0, 0)
                ring.free_head = following
                break
            index = following
    ring.num_free -= slots
    ring.count[head] = <uint16_t>slots
    ring.avail[2 + (ring.avail_idx & (ring.size - 1))] = le16(head)
    ring.avail_idx += 1
    return head


cdef void split_publish(ring_t *ring) noexcept nogil:
    # Release: descriptors and ring entries before the index (virtio 1.3, 2.7.13.3.1).
    store_release16(ring.avail + 1, le16(ring.avail_idx))
    ring.published_idx = ring.avail_idx


cdef bint split_wants_kick(ring_t *ring) noexcept nogil:
    cdef uint16_t old = ring.kicked_idx, new = ring.published_idx
    ring.kicked_idx = new
    # Full: our index before their suppression fields (2.7.13.4.1); the device does the reverse.
    fence_full()
    if ring.event_idx:
        return need_event(le16(load_relaxed16(ring.avail_event)), new, old)
    return not le16(load_relaxed16(ring.used_head)) & VRING_USED_F_NO_NOTIFY


cdef void give_back(ring_t *ring, uint16_t head) noexcept nogil:
    """Puts a split chain on the free list, by the driver's own record."""
    cdef uint16_t last = head
    cdef uint32_t left = ring.count[head] - 1
    while left:
        last = ring.next[last]
        left -= 1
    ring.next[last] = ring.free_head
    ring.free_head = head
    ring.num_free += ring.count[head]
    ring.count[head] = 0


cdef int split_pop(ring_t *ring, uint32_t *head, uint32_t *length) noexcept nogil:
    # Acquire: the index before the entries (2.7.14).
    cdef uint16_t waiting = <uint16_t>(le16(load_acquire16(ring.used_head + 1)) - ring.last_used)
    cdef uint32_t entry
    if not waiting:
        return 0
    entry = ring.last_used & (ring.size - 1)
    head[0] = le32(ring.used[entry].id)
    length[0] = le32(ring.used[entry].len)
    if waiting > ring.size or head[0] >= ring.size or not (ring.count[head[0]] or ring.raw[head[0]]):
        return -EPROTO
    ring.last_used += 1
    if ring.raw[head[0]]:
        ring.raw[head[0]] -= 1
    else:
        give_back(ring, <uint16_t>head[0])
    return 1


cdef bint split_arm(ring_t *ring) noexcept nogil:
    if ring.event_idx:
        store_relaxed16(ring.avail + 2 + ring.size, le16(ring.last_used))
    else:
        store_relaxed16(ring.avail, 0)
    # Full: our wish before their index is read again (2.7.7.1).
    fence_full()
    return le16(load_relaxed16(ring.used_head + 1)) == ring.last_used


# Packed

cdef inline uint16_t available_bits(bint wrap) noexcept nogil:
    return <uint16_t>(VRING_PACKED_DESC_F_AVAIL if wrap else VRING_PACKED_DESC_F_USED)


cdef int packed_add(ring_t *ring, const piece_t *pieces, uint32_t count, bint indirect) noexcept nogil:
    cdef uint16_t id = ring.free_head, slot = ring.avail_idx, flags
    cdef uint32_t slots = 1 if indirect else count, i
    if ring.num_free < slots:
        return -EAGAIN
    for i in range(slots):
        if indirect:
            fill_table(ring, id, pieces, count)
            ring.packed_desc[slot].addr = le64(table_gpa(ring, id))
            ring.packed_desc[slot].len = le32(<uint32_t>(count * sizeof(virtio_desc)))
            flags = VRING_DESC_F_INDIRECT
        else:
            ring.packed_desc[slot].addr = le64(pieces[i].gpa)
            ring.packed_desc[slot].len = le32(pieces[i].length)
            flags = <uint16_t>((VRING_DESC_F_WRITE if pieces[i].writable else 0)
                               | (VRING_DESC_F_NEXT if i + 1 < count else 0))
        ring.packed_desc[slot].id = le16(id)
        flags |= available_bits(ring.avail_wrap)
        if i:
            ring.packed_desc[slot].flags = le16(flags)
        else:
            ring.pending_slot[ring.pending] = slot
            ring.pending_flags[ring.pending] = flags
        slot += 1
        if slot == ring.size:
            slot = 0
            ring.avail_wrap = not ring.avail_wrap
    ring.pending += 1
    ring.avail_idx = slot
    ring.free_head = ring.next[id]
    ring.num_free -= slots
    ring.count[id] = <uint16_t>slots
    ring.unkicked += slots
    return id


cdef void packed_publish(ring_t *ring) noexcept nogil:
    cdef uint32_t i
    for i in range(ring.pending):
        # Release: the rest of the chain before its head's flags (2.8.21.1).
        store_release16(&ring.packed_desc[ring.pending_slot[i]].flags, le16(ring.pending_flags[i]))
    ring.pending = 0


cdef bint packed_wants_kick(ring_t *ring) noexcept nogil:
    cdef uint16_t new = ring.avail_idx, old = <uint16_t>(new - ring.unkicked), flags, event
    ring.unkicked = 0
    # Full: our descriptors before their suppression fields (2.8.21.3.1).
    fence_full()
    flags = le16(load_relaxed16(&ring.device_event.flags)) & 3
    if flags != VRING_PACKED_EVENT_F_DESC:
        return flags != VRING_PACKED_EVENT_F_DISABLE
    event = le16(load_relaxed16(&ring.device_event.off_wrap))
    if event >> 15 != ring.avail_wrap:
        return need_event(<uint16_t>((event & 0x7fff) - ring.size), new, old)
    return need_event(event & 0x7fff, new, old)


cdef bint packed_is_used(ring_t *ring) noexcept nogil:
    # Acquire: the flags before the rest of the descriptor.
    cdef uint16_t flags = le16(load_acquire16(&ring.packed_desc[ring.last_used].flags))
    cdef bint avail = flags & VRING_PACKED_DESC_F_AVAIL != 0, used = flags & VRING_PACKED_DESC_F_USED != 0
    return avail == used and used == ring.used_wrap


cdef int packed_pop(ring_t *ring, uint32_t *head, uint32_t *length) noexcept nogil:
    cdef uint32_t slot
    if not packed_is_used(ring):
        return 0
    head[0] = le16(ring.packed_desc[ring.last_used].id)
    length[0] = le32(ring.packed_desc[ring.last_used].len)
    if head[0] >= ring.size or not ring.count[head[0]]:
        return -EPROTO
    slot = ring.last_used + ring.count[head[0]]
    if slot >= ring.size:
        slot -= ring.size
        ring.used_wrap = not ring.used_wrap
    ring.last_used = <uint16_t>slot
    ring.num_free += ring.count[head[0]]
    ring.count[head[0]] = 0
    ring.raw[head[0]] = 0
    ring.next[head[0]] = ring.free_head
    ring.free_head = <uint16_t>head[0]
    return 1


cdef bint packed_arm(ring_t *ring) noexcept nogil:
    if ring.event_idx:
        store_relaxed16(&ring.driver_event.off_wrap, le16(<uint16_t>(ring.last_used | ring.used_wrap << 15)))
        # Release: the offset before the flags that make it count.
        store_release16(&ring.driver_event.flags, le16(VRING_PACKED_EVENT_F_DESC))
    else:
        store_relaxed16(&ring.driver_event.flags, le16(VRING_PACKED_EVENT_F_ENABLE))
    # Full: our wish before their flags are read again.
    fence_full()
    return not packed_is_used(ring)


# Both

cdef int ring_add(ring_t *ring, const piece_t *pieces, uint32_t count, bint indirect) noexcept nogil:
    if not count:
        return -EINVAL
    if indirect and count > ring.table_length:
        return -EMSGSIZE
    if ring.packed:
        return packed_add(ring, pieces, count, indirect)
    return split_add(ring, pieces, count, indirect)


cdef void ring_publish(ring_t *ring) noexcept nogil:
    if ring.packed:
        packed_publish(ring)
    else:
        split_publish(ring)


cdef bint ring_wants_kick(ring_t *ring) noexcept nogil:
    return packed_wants_kick(ring) if ring.packed else split_wants_kick(ring)


cdef int ring_kick(ring_t *ring, bint force) noexcept nogil:
    cdef uint64_t one = 1
    if not ring_wants_kick(ring) and not force:
        ring.kicks_saved += 1
        return 0
    ring.kicks_written += 1
    while ring.kick_fd >= 0 and write(ring.kick_fd, &one, sizeof(one)) < 0:
        if errno == EAGAIN:         # the counter is full: it is readable
            break
        if errno != EINTR:
            return -errno
    return 1


cdef int ring_pop(ring_t *ring, uint32_t *head, uint32_t *length) noexcept nogil:
    return packed_pop(ring, head, length) if ring.packed else split_pop(ring, head, length)


cdef bint ring_arm(ring_t *ring) noexcept nogil:
    return packed_arm(ring) if ring.packed else split_arm(ring)


cdef void ring_disarm(ring_t *ring) noexcept nogil:
    if ring.packed:
        store_relaxed16(&ring.driver_event.flags, le16(VRING_PACKED_EVENT_F_DISABLE))
    elif not ring.event_idx:
        store_relaxed16(ring.avail, le16(VRING_AVAIL_F_NO_INTERRUPT))


cdef void ring_quiet(ring_t *ring) noexcept nogil:
    ring_disarm(ring)
    if ring.event_idx and not ring.packed:
        store_relaxed16(ring.avail + 2 + ring.size, le16(<uint16_t>(ring.last_used + 0x8000)))


cdef int ring_sleep(ring_t *ring, int timeout_ms) noexcept nogil:
    cdef pollfd waited
    cdef uint64_t count = 0
    cdef int ready
    waited.fd = ring.call_fd
    waited.events = POLLIN
    waited.revents = 0
    ready = poll(&waited, 1, timeout_ms)
    if ready < 0:
        return 0 if errno == EINTR else -errno
    if not ready:
        return 0
    if read(ring.call_fd, &count, sizeof(count)) != sizeof(count):
        return 0 if errno == EAGAIN else -errno
    ring.calls_received += count
    ring.wake_ups += 1
    return 1


cdef void ring_reset(ring_t *ring) noexcept nogil:
    cdef uint32_t i
    memset(ring.desc, 0, ring.size * sizeof(virtio_desc))
    if ring.packed:
        memset(ring.driver_event, 0, sizeof(ring.driver_event[0]))
        memset(ring.device_event, 0, sizeof(ring.device_event[0]))
    else:
        memset(ring.avail, 0, 6 + 2 * ring.size)
        memset(ring.used_head, 0, 6 + 8 * ring.size)
    for i in range(ring.size):
        ring.next[i] = <uint16_t>(i + 1)
        ring.count[i] = 0
        ring.raw[i] = 0
    ring.pending = 0
    ring.free_head = 0
    ring.num_free = ring.size
    ring.avail_idx = ring.published_idx = ring.kicked_idx = ring.last_used = 0
    ring.unkicked = 0
    ring.avail_wrap = ring.used_wrap = True
