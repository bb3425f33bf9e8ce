"""Guest memory: mapping the front-end's regions, and finding addresses in them."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from .linux cimport (
    EINVAL, ENOMEM, MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, calloc, free, mmap, munmap, sys_errno, sys_mappable)

cdef extern from "faults.h" nogil:
    struct fault_slot:
        pass
    int faults_install()
    fault_slot *faults_watch(void *start, size_t size, uint32_t *flag)
    void faults_forget(fault_slot *slot)


cdef int region_map(Region *region, int fd, uint64_t offset, uint32_t *fault_flag) noexcept nogil:
    """Maps region.size bytes from `offset` of the file. 0, or -EINVAL for a range that the file has not, -EOPNOTSUPP
    for a file of a FUSE file system, -ENOMEM, ...

    The mapping starts at a page of the file (2 MiB and more on hugetlbfs), so it may begin before the region.
    """
    cdef uint64_t page = 0
    cdef uint64_t before
    cdef void *mapping
    cdef int error
    if region.size == 0 or offset + region.size < offset:
        return -EINVAL
    error = sys_mappable(fd, offset + region.size, &page)
    if error < 0:
        return error
    before = offset & (page - 1)
    region.mapping_size = <size_t> ((region.size + before + page - 1) & ~(page - 1))
    mapping = mmap(NULL, region.mapping_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset - before)
    if mapping == MAP_FAILED:
        return sys_errno()
    region.mapping = mapping
    region.host = <uint8_t *> mapping + before
    error = faults_install()
    if error == 0:
        region.fault = faults_watch(mapping, region.mapping_size, fault_flag)
        if region.fault == NULL:
            error = -ENOMEM
    if error < 0:
        munmap(mapping, region.mapping_size)
        region.mapping = NULL
    return error


cdef void region_unmap(Region *region) noexcept nogil:
    faults_forget(<fault_slot *> region.fault)
    munmap(region.mapping, region.mapping_size)
    region.mapping = NULL
    region.host = NULL


cdef int map_create(Region **regions, uint32_t count, MemoryMap **created) noexcept nogil:
    """A map of the regions. 0, -ENOMEM, or -EINVAL where they overlap in guest addresses."""
    cdef MemoryMap *map = <MemoryMap *> calloc(1, sizeof(MemoryMap) + count * sizeof(Region *))
    cdef uint32_t at, i
    if map == NULL:
        return -ENOMEM
    map.regions = <Region **> (map + 1)
    for i in range(count):
        at = map.count
        while at > 0 and map.regions[at - 1].guest_addr > regions[i].guest_addr:
            map.regions[at] = map.regions[at - 1]
            at -= 1
        map.regions[at] = regions[i]
        map.count += 1
    for i in range(1, count):
        if map.regions[i].guest_addr - map.regions[i - 1].guest_addr < map.regions[i - 1].size:
            free(map)
            return -EINVAL
    created[0] = map
    return 0


cdef void map_free(MemoryMap *map) noexcept nogil:
    free(map)


cdef Region *map_find(const MemoryMap *map, uint64_t guest_addr) noexcept nogil:
    """The region that has the address, or NULL."""
    cdef uint32_t low = 0
    cdef uint32_t high = map.count
    cdef uint32_t middle
    cdef Region *region
    while low < high:
        middle = (low + high) >> 1
        region = map.regions[middle]
        if guest_addr < region.guest_addr:
            high = middle
        elif guest_addr - region.guest_addr >= region.size:
            low = middle + 1
        else:
            return region
    return NULL


cdef uint8_t *map_guest(const MemoryMap *map, uint64_t guest_addr, uint64_t size) noexcept nogil:
    """Where the `size` bytes at the guest's address are, all in one region; NULL where they are not."""
    cdef Region *region = map_find(map, guest_addr)
    if region == NULL or size > region.size - (guest_addr - region.guest_addr):
        return NULL
    return region.host + (guest_addr - region.guest_addr)


cdef uint8_t *map_user(const MemoryMap *map, uint64_t user_addr, uint64_t size) noexcept nogil:
    """Where the `size` bytes at the front-end's address are, all in one region; NULL where they are not."""
    cdef uint32_t i
    cdef Region *region
    cdef uint64_t offset
    for i in range(map.count):
        region = map.regions[i]
        offset = user_addr - region.user_addr
        if user_addr >= region.user_addr and offset < region.size and size <= region.size - offset:
            return region.host + offset
    return NULL
