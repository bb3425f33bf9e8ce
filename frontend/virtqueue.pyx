"""The driver's side of a virtqueue, split or packed, as tests use it: well behaved, or not."""

import os
import time

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free

from frontend.ring cimport (
    piece_t, ring_add, ring_arm, ring_disarm, ring_kick, ring_pop, ring_publish, ring_reset, ring_sleep,
)
from virtiofsd._ring.atomics cimport le16, le32, le64, load_acquire16, store_release16
from virtiofsd._ring.virtio_abi cimport (
    VIRTIO_QUEUE_SIZE_MAX, VRING_PACKED_DESC_F_AVAIL, VRING_PACKED_DESC_F_USED, virtio_desc, virtio_packed_desc,
    virtio_packed_event, virtio_used_elem,
)


class RingError(Exception):
    """The device wrote into the ring what no device may write."""


cdef class Virtqueue:
    """One queue in guest memory, with its two eventfds. Not for two threads at a time.

    `on_kick` is called instead of a write to the eventfd where notifications travel in the socket.
    """

    def __init__(self, memory, int size, *, bint packed=False, bint event_idx=True, bint indirect=True,
                 int table_length=0):
        if not 0 < size <= VIRTIO_QUEUE_SIZE_MAX or (not packed and size & (size - 1)):
            raise ValueError(f"a queue cannot have {size} entries")
        self.memory = memory
        self.indirect = indirect
        self.ring.size = size
        self.ring.packed = packed
        self.ring.event_idx = event_idx
        self.ring.table_length = table_length or min(size, 264)
        self.max_pieces = max(self.ring.table_length, self.ring.size)
        self._map()
        self.ring.next = <uint16_t *>calloc(size + 1, sizeof(uint16_t))
        self.ring.count = <uint16_t *>calloc(size, sizeof(uint16_t))
        self.ring.raw = <uint8_t *>calloc(size, sizeof(uint8_t))
        self.ring.pending_slot = <uint16_t *>calloc(size, sizeof(uint16_t))
        self.ring.pending_flags = <uint16_t *>calloc(size, sizeof(uint16_t))
        self.pieces = <piece_t *>calloc(self.max_pieces, sizeof(piece_t))
        if not (self.ring.next and self.ring.count and self.ring.raw and self.ring.pending_slot
                and self.ring.pending_flags and self.pieces):
            raise MemoryError
        self.eventfds = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(2)]
        self.ring.kick_fd, self.ring.call_fd = self.eventfds
        ring_reset(&self.ring)

    def __cinit__(self, *_, **__):
        self.ring.kick_fd = self.ring.call_fd = -1

    def __dealloc__(self):
        free(self.ring.next)
        free(self.ring.count)
        free(self.ring.raw)
        free(self.ring.pending_slot)
        free(self.ring.pending_flags)
        free(self.pieces)

    def close(self):
        """Closes the eventfds."""
        self.ring.kick_fd = self.ring.call_fd = -1
        while self.eventfds:
            os.close(self.eventfds.pop())

    cdef _map(self):
        """Places the three areas and the indirect tables, and keeps their addresses here."""
        cdef uint32_t size = self.ring.size
        cdef uintptr_t avail, used
        self.desc_gpa = self.memory.alloc(16 * size, 4096)
        if self.ring.packed:
            self.avail_gpa = self.memory.alloc(sizeof(virtio_packed_event), 4)
            self.used_gpa = self.memory.alloc(sizeof(virtio_packed_event), 4)
        else:
            self.avail_gpa = self.memory.alloc(6 + 2 * size, 2)
            self.used_gpa = self.memory.alloc(6 + 8 * size, 4096)
        # Where a line of the CPU's cache begins, as Linux's allocator does.
        self.tables_gpa = self.memory.alloc(16 * size * self.ring.table_length, 64)
        self.ring.tables_gpa = self.tables_gpa
        self.ring.tables = <virtio_desc *><uintptr_t>self.memory.host(self.tables_gpa, 16 * size)
        self.ring.desc = <virtio_desc *><uintptr_t>self.memory.host(self.desc_gpa, 16 * size)
        avail = self.memory.host(self.avail_gpa, 4)
        used = self.memory.host(self.used_gpa, 4)
        if self.ring.packed:
            self.ring.packed_desc = <virtio_packed_desc *>self.ring.desc
            self.ring.driver_event = <virtio_packed_event *>avail
            self.ring.device_event = <virtio_packed_event *>used
        else:
            self.ring.avail = <uint16_t *>avail
            self.ring.used_head = <uint16_t *>used
            self.ring.used = <virtio_used_elem *>(used + 4)
            self.ring.avail_event = <uint16_t *>(used + 4 + 8 * size)

    # The driver

    def add(self, chain, indirect=None):
        """Takes descriptors for a chain of (guest address, length, device may write); the device does not see it yet.

        Returns its head, by which poll() will name it. Raises BlockingIOError where the ring is full.
        """
        cdef uint32_t count = 0
        cdef int head
        if len(chain) > self.max_pieces:
            raise ValueError(f"a chain of {len(chain)} pieces, of which there is room for {self.max_pieces}")
        for gpa, length, writable in chain:
            self.pieces[count].gpa = gpa
            self.pieces[count].length = length
            self.pieces[count].writable = bool(writable)
            count += 1
        head = ring_add(&self.ring, self.pieces, count, self.indirect and count > 1 if indirect is None else indirect)
        if head < 0:
            raise OSError(-head, f"cannot add a chain of {count} pieces: {os.strerror(-head)}")
        return head

    def publish(self):
        """Shows the device what was added."""
        ring_publish(&self.ring)

    def kick(self, bint force=False):
        """Notifies the device, if it wants to know; True when it was notified."""
        cdef int kick_fd = self.ring.kick_fd
        if self.on_kick is not None:
            self.ring.kick_fd = -1
        result = ring_kick(&self.ring, force)
        self.ring.kick_fd = kick_fd
        if result < 0:
            raise OSError(-result, "cannot kick")
        if result and self.on_kick is not None:
            self.on_kick()
        return result == 1

    def poll(self):
        """What the device has returned: a list of (head, length). Raises RingError where it wrote nonsense."""
        cdef uint32_t head = 0, length = 0
        cdef int result
        found = []
        while True:
            result = ring_pop(&self.ring, &head, &length)
            if not result:
                return found
            if result < 0:
                raise RingError(f"the device returned head {head}, length {length}, at used {self.ring.last_used}")
            found.append((head, length))

    def wait(self, double timeout):
        """As poll(), after waiting for a call, `timeout` seconds; without an eventfd it looks every 50 µs."""
        cdef double deadline = time.monotonic() + timeout, left
        cdef int result
        while True:
            found = self.poll()
            if found:
                ring_disarm(&self.ring)
                return found
            left = deadline - time.monotonic()
            if left <= 0:
                return found
            if not ring_arm(&self.ring):
                continue
            if self.ring.call_fd < 0:
                time.sleep(0.00005)
                continue
            milliseconds = min(int(left * 1000) + 1, 1000)
            result = milliseconds
            with nogil:
                result = ring_sleep(&self.ring, result)
            if result < 0:
                raise OSError(-result, "cannot wait for a call")

    def arm(self):
        """Asks for a call at the next return; False when something has been returned already."""
        return ring_arm(&self.ring)

    def disarm(self):
        """Wants no calls (with EVENT_IDX on a split ring: writes nothing, as Linux does)."""
        ring_disarm(&self.ring)

    def take_call(self, double timeout):
        """Waits for a call and takes it; True when it came."""
        cdef int milliseconds = int(timeout * 1000), result
        with nogil:
            result = ring_sleep(&self.ring, milliseconds)
        if result < 0:
            raise OSError(-result, "cannot wait for a call")
        return result == 1

    def reset(self):
        """Empties the ring and forgets what is in flight: only while the device has stopped it."""
        ring_reset(&self.ring)

    def restore(self, int base):
        """Sets the indices of an empty ring to what GET_VRING_BASE gave, as after a migration."""
        if self.ring.packed:
            self.ring.avail_idx = base & 0x7fff
            self.ring.avail_wrap = base >> 15 & 1
            self.ring.last_used = base >> 16 & 0x7fff
            self.ring.used_wrap = base >> 31 & 1
        else:
            self.ring.avail_idx = self.ring.published_idx = self.ring.kicked_idx = self.ring.last_used = <uint16_t>base
            self.ring.avail[1] = self.ring.used_head[1] = le16(<uint16_t>base)

    @property
    def base(self):
        """What SET_VRING_BASE says of this ring when nothing is in flight."""
        if self.ring.packed:
            half = self.ring.last_used | self.ring.used_wrap << 15
            return half << 16 | self.ring.avail_idx | self.ring.avail_wrap << 15
        return self.ring.last_used

    @property
    def size(self):
        return self.ring.size

    @property
    def packed(self):
        return bool(self.ring.packed)

    @property
    def event_idx(self):
        return bool(self.ring.event_idx)

    @property
    def num_free(self):
        return self.ring.num_free

    @property
    def in_flight(self):
        """Heads that the device has."""
        return [head for head in range(self.ring.size) if self.ring.count[head] or self.ring.raw[head]]

    @property
    def kick_fd(self):
        return self.ring.kick_fd

    @kick_fd.setter
    def kick_fd(self, int fd):
        self.ring.kick_fd = fd

    @property
    def call_fd(self):
        return self.ring.call_fd

    @call_fd.setter
    def call_fd(self, int fd):
        self.ring.call_fd = fd

    @property
    def counters(self):
        """Kicks written, kicks saved, calls received."""
        return self.ring.kicks_written, self.ring.kicks_saved, self.ring.calls_received

    # Misbehaviour, and looking

    def take(self):
        """An index off the free list, to be written by hand."""
        if not self.ring.num_free:
            raise BlockingIOError("the ring is full")
        index = self.ring.free_head
        self.ring.free_head = self.ring.next[index]
        self.ring.num_free -= 1
        return index

    def give(self, int index):
        """Puts an index from take() back."""
        self.ring.next[index] = self.ring.free_head
        self.ring.free_head = index
        self.ring.num_free += 1

    def write_desc(self, int index, uint64_t addr, uint32_t length, int flags, int last=0):
        """Any descriptor; `last` is the split ring's `next` or the packed ring's buffer id."""
        cdef virtio_desc *desc = self.ring.desc + index
        desc.addr = le64(addr)
        desc.len = le32(length)
        if self.ring.packed:
            self.ring.packed_desc[index].id = le16(<uint16_t>last)
            store_release16(&self.ring.packed_desc[index].flags, le16(<uint16_t>flags))
        else:
            desc.flags = le16(<uint16_t>flags)
            desc.next = le16(<uint16_t>last)

    def table_gpa(self, int head):
        """Where the indirect table of a head lies: table_length entries of 16 bytes."""
        return self.tables_gpa + <uint64_t>head * self.ring.table_length * sizeof(virtio_desc)

    def push(self, int head):
        """Split: puts any value into the next entry of the available ring; publish() shows it.

        What comes back under this head is reported by poll() and frees nothing.
        """
        if self.ring.packed:
            raise ValueError("a packed ring has no available entries to push")
        self.ring.avail[2 + (self.ring.avail_idx & (self.ring.size - 1))] = le16(<uint16_t>head)
        self.ring.avail_idx += 1
        if 0 <= head < <int>self.ring.size:
            self.ring.raw[head] += 1

    def packed_place(self, int slots):
        """Packed: (slot, flags that make it available, id) for each of the next slots, and moves on past them.

        The head's id comes back once; poll() then frees all of them.
        """
        placed = []
        first = self.ring.free_head
        self.ring.free_head = self.ring.next[first]
        self.ring.count[first] = slots
        self.ring.num_free -= slots
        for _ in range(slots):
            bits = VRING_PACKED_DESC_F_AVAIL if self.ring.avail_wrap else VRING_PACKED_DESC_F_USED
            placed.append((self.ring.avail_idx, bits, first))
            self.ring.avail_idx += 1
            if self.ring.avail_idx == self.ring.size:
                self.ring.avail_idx = 0
                self.ring.avail_wrap = not self.ring.avail_wrap
        self.ring.unkicked += slots
        return placed

    @property
    def avail_idx(self):
        """Split: the index that the device reads; the setter writes it, and the driver's own record stays."""
        return le16(self.ring.avail[1]) if not self.ring.packed else self.ring.avail_idx

    @avail_idx.setter
    def avail_idx(self, int value):
        store_release16(self.ring.avail + 1, le16(<uint16_t>value))

    @property
    def used_idx(self):
        """Split: the index that the device has written; packed: the next slot to be looked at."""
        return le16(load_acquire16(self.ring.used_head + 1)) if not self.ring.packed else self.ring.last_used

    @used_idx.setter
    def used_idx(self, int value):
        store_release16(self.ring.used_head + 1, le16(<uint16_t>value))

    @property
    def suppression(self):
        """What the device says of kicks. Split: (flags, avail_event); packed: (flags, off_wrap)."""
        if self.ring.packed:
            return le16(self.ring.device_event.flags), le16(self.ring.device_event.off_wrap)
        return le16(self.ring.used_head[0]), le16(self.ring.avail_event[0])

    def set_used_event(self, int value):
        """Split: the used index after which a call is wanted. Packed: off_wrap; the flags stay."""
        if self.ring.packed:
            store_release16(&self.ring.driver_event.off_wrap, le16(<uint16_t>value))
        else:
            store_release16(self.ring.avail + 2 + self.ring.size, le16(<uint16_t>value))

    def set_avail_flags(self, int value):
        """Split: the available ring's flags. Packed: the driver event area's."""
        if self.ring.packed:
            store_release16(&self.ring.driver_event.flags, le16(<uint16_t>value))
        else:
            store_release16(self.ring.avail, le16(<uint16_t>value))
