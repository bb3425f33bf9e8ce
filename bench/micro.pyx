"""What is inside the daemon's process, called in a loop without Python: chains, addresses, inodes, replies."""

import os

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from virtiofsd._ring.chain cimport CHAIN_OK, chain_collect, chain_let_go
from virtiofsd._ring.descriptors cimport Descriptors, descriptors_init, descriptors_open
from virtiofsd._ring.fuse_abi cimport fuse_attr_out, fuse_in_header
from virtiofsd._ring.inode_lifetime cimport inode_acquire, inode_release
from virtiofsd._ring.inode_table cimport Inode, InodeTable
from virtiofsd._ring.handles cimport (
    Handle, HandleTable, handle_acquire, handle_close, handle_new, handle_publish, handle_release, handles_create,
    handles_destroy)
from virtiofsd._ring.inodes cimport inode_add, inode_count_lookup, inodes_create, inodes_destroy, mount_of
from virtiofsd._ring.kept cimport KeptFiles
from virtiofsd._ring.linux cimport AT_EMPTY_PATH, STATX_BASIC_STATS, STATX_BTIME, STATX_MNT_ID, linux_statx, sys_statx
from virtiofsd._ring.memory cimport MemoryMap, Region, map_create, map_find, map_free
from virtiofsd._ring.request cimport Request, reply, request_create, request_destroy, request_open
from virtiofsd._ring.virtio_abi cimport VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, virtio_desc
from virtiofsd._ring.virtqueue cimport Virtqueue, ring_place

cdef enum:
    PAGE = 4096
    RING = 128
    REGION_MAX = 512
    HEADER = sizeof(fuse_in_header)


cdef inline uint64_t scatter(uint64_t number) noexcept nogil:
    """Numbers in no order that a processor would foresee."""
    return number * <uint64_t>0x9e3779b97f4a7c15 >> 20


cdef class Guest:
    """Memory in so many regions of 2 MiB with holes between them, and a ring with one chain in it.

    The chain is a header, `readable` bytes and `writable` bytes as Linux frames them: small ones together, bulk data in
    pages, of which no two are adjacent.
    """

    cdef Region regions[REGION_MAX]
    cdef MemoryMap *map
    cdef uint8_t *host
    cdef Virtqueue queue
    cdef Request *request
    cdef uint32_t count
    cdef uint64_t region_size
    cdef uint64_t next_page

    def __cinit__(self, uint32_t regions, uint32_t readable, uint32_t writable):
        cdef Region *pointers[REGION_MAX]
        cdef uint32_t i
        if not 0 < regions <= REGION_MAX:
            raise ValueError(f"{regions} regions")
        self.region_size, self.count = 2 << 20, regions
        self.host = <uint8_t *>calloc(regions, self.region_size)
        self.request = request_create()
        if self.host == NULL or self.request == NULL:
            raise MemoryError
        for i in range(regions):
            self.regions[i].guest_addr = 2 * i * self.region_size
            self.regions[i].size = self.region_size
            self.regions[i].host = self.host + i * self.region_size
            pointers[i] = &self.regions[i]
        if map_create(pointers, regions, &self.map) < 0:
            raise ValueError("no map of the regions")
        self.queue.size, self.queue.indirect = RING, 1
        if not ring_place(&self.queue, <virtio_desc *>self.host, <uint16_t *>(self.host + PAGE),
                          <uint16_t *>(self.host + 2 * PAGE)):
            raise ValueError("the ring is not aligned")
        self.next_page = 16
        self.make_chain(readable, writable)

    def __dealloc__(self):
        if self.map != NULL:
            map_free(self.map)
        if self.request != NULL:
            request_destroy(self.request)
        free(self.host)

    cdef uint64_t page(self):
        """The guest address of an unused page, each in the next region."""
        cdef uint64_t region = self.next_page % self.count, page = 16 + self.next_page // self.count * 2
        self.next_page += 1
        return 2 * region * self.region_size + page % (self.region_size // PAGE) * PAGE

    cdef make_chain(self, uint32_t readable, uint32_t writable):
        """An indirect table in the fourth page, and its descriptor."""
        cdef virtio_desc *table = <virtio_desc *>(self.host + 4 * PAGE)
        cdef virtio_desc *desc = table
        pieces = [(HEADER, 0), *self.parts(readable, 0), (16, VRING_DESC_F_WRITE),
                  *self.parts(writable, VRING_DESC_F_WRITE)]
        for number, (length, flags) in enumerate(pieces):
            desc.addr, desc.len = self.page(), length
            desc.flags, desc.next = flags | VRING_DESC_F_NEXT, number + 1
            desc += 1
        (desc - 1).flags &= <uint16_t>~VRING_DESC_F_NEXT
        self.queue.desc[0].addr, self.queue.desc[0].len = 4 * PAGE, <uint32_t>(len(pieces) * sizeof(virtio_desc))
        self.queue.desc[0].flags = VRING_DESC_F_INDIRECT

    def parts(self, size, flags):
        if size < PAGE:
            return [(size, flags)] if size else []
        return [(PAGE, flags)] * (size // PAGE)

    def walk(self, int64_t count):
        """The chain as iovecs, and let go."""
        cdef int error = CHAIN_OK
        cdef int64_t _i
        with nogil:
            for _i in range(count):
                error |= chain_collect(&self.request.chain, &self.queue, self.map, self.queue.desc)
                chain_let_go(&self.request.chain)
        if error != CHAIN_OK:
            raise ValueError(f"the chain is bad: {error}")

    def translate(self, int64_t count):
        """Addresses all over the guest's memory, each found in the map of regions."""
        cdef uint64_t missed = 0
        cdef int64_t i
        cdef uint64_t number
        with nogil:
            for i in range(count):
                number = scatter(<uint64_t>i)
                missed += map_find(self.map, 2 * (number % self.count) * self.region_size + number % PAGE) == NULL
        if missed:
            raise ValueError(f"{missed} addresses were not found")

    def answer(self, int64_t count):
        """Attributes as a reply, into a chain that has been walked and whose header has been taken."""
        cdef fuse_attr_out out
        cdef int error
        cdef int64_t _i
        memset(&out, 0, sizeof(out))
        with nogil:
            error = chain_collect(&self.request.chain, &self.queue, self.map, self.queue.desc)
            if error == CHAIN_OK:
                request_open(self.request)
                for _i in range(count):
                    error |= reply(self.request, &out, sizeof(out))
            chain_let_go(&self.request.chain)
        if error:
            raise ValueError(f"no reply: {error}")


cdef class Inodes:
    """A table of so many known inodes. They have invented numbers, and one file's descriptors."""

    cdef InodeTable table
    cdef Descriptors account
    cdef HandleTable files
    cdef KeptFiles kept
    cdef linux_statx stat
    cdef uint64_t *nodeids
    cdef uint32_t mount
    cdef uint64_t count
    cdef bint made

    def __cinit__(self, path, uint64_t count):
        cdef uint64_t i
        cdef bint known = False
        cdef int error, proc = os.open("/proc/self/fd", os.O_PATH)
        descriptors_init(&self.account, 1 << 20)
        error = inodes_create(&self.table, &self.account, &self.files, &self.kept, os.open(path, os.O_PATH), proc, 1)
        self.made, self.count = True, count
        self.nodeids = <uint64_t *>calloc(count, sizeof(uint64_t))
        if error < 0 or self.nodeids == NULL:
            raise OSError(-error, "no inode table")
        if sys_statx(self.table.root_fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID,
                     &self.stat) < 0:
            raise OSError(f"cannot stat {path}")
        self.mount = <uint32_t>mount_of(&self.table, &self.stat)
        for i in range(count):
            self.stat.stx_ino = self.number(i)
            if inode_add(&self.table, self.mount, &self.stat, os.open(path, os.O_PATH), False, NULL, NULL,
                         &self.nodeids[i], &known) < 0:
                raise MemoryError

    def __dealloc__(self):
        if self.made:
            os.close(self.table.proc_fd)
            inodes_destroy(&self.table)
        free(self.nodeids)

    cdef inline uint64_t number(self, uint64_t index) noexcept nogil:
        return (<uint64_t>1 << 40) + index

    def find_nodes(self, int64_t count, uint64_t first=0):
        """Nodeids to records, pinned and let go: what every request begins with. Threads differ by `first`."""
        cdef uint64_t missed = 0
        cdef int64_t i
        cdef Inode *inode
        with nogil:
            for i in range(count):
                inode = inode_acquire(&self.table, self.nodeids[scatter(first + <uint64_t>i) % self.count])
                if inode == NULL:
                    missed += 1
                else:
                    inode_release(&self.table, inode)
        if missed:
            raise ValueError(f"{missed} nodes were not found")

    def find_numbers(self, int64_t count, uint64_t first=0):
        """Inode numbers to nodeids, with one more reference: a LOOKUP of what is known. Threads differ by `first`."""
        cdef linux_statx stat = self.stat
        cdef uint64_t missed = 0
        cdef int64_t i
        with nogil:
            for i in range(count):
                stat.stx_ino = self.number(scatter(first + <uint64_t>i) % self.count)
                missed += inode_count_lookup(&self.table, self.mount, &stat) == 0
        if missed:
            raise ValueError(f"{missed} inodes were not found")


cdef class Handles:
    """A table of open files, which have no descriptors."""

    cdef HandleTable table
    cdef Descriptors account
    cdef KeptFiles kept

    def __cinit__(self):
        descriptors_init(&self.account, 1 << 20)
        if handles_create(&self.table, &self.account, &self.kept) < 0:
            raise MemoryError

    def __dealloc__(self):
        handles_destroy(&self.table)

    def open_and_release(self, int64_t count, uint64_t first=0):
        """What OPEN and RELEASE do with the table, for one node after the other. Threads differ by `first`."""
        cdef uint64_t fh = 0, missed = 0
        cdef int64_t i
        cdef Handle *handle
        with nogil:
            for i in range(count):
                descriptors_open(&self.account)
                handle = handle_new(&self.table, -1, first + <uint64_t>i, 0, 0, False, False, &fh)
                if handle != NULL:
                    handle_publish(handle, fh)
                handle = handle_acquire(&self.table, fh, first + <uint64_t>i, False)
                if handle == NULL:
                    missed += 1
                else:
                    handle_close(&self.table, handle)
                    handle_release(&self.table, handle)
        if missed:
            raise ValueError(f"{missed} handles were not found")
