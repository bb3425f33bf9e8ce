# Guest memory: regions that the front-end shares, and the map from guest addresses to them.

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef struct Region:
    uint64_t guest_addr
    uint64_t size          # bytes
    uint64_t user_addr     # where the front-end has it: ring addresses are given so
    uint8_t *host          # where we have it
    void *mapping          # what munmap gets: the region and what alignment added before it
    size_t mapping_size
    void *fault            # its entry among the addresses whose SIGBUS is survived


# Never changed once workers can see it: another one takes its place. The regions outlive it.
cdef struct MemoryMap:
    uint32_t count
    Region **regions       # in order of guest_addr


cdef int region_map(Region *region, int fd, uint64_t offset, uint32_t *fault_flag) noexcept nogil
cdef void region_unmap(Region *region) noexcept nogil
cdef int map_create(Region **regions, uint32_t count, MemoryMap **created) noexcept nogil
cdef void map_free(MemoryMap *map) noexcept nogil
cdef Region *map_find(const MemoryMap *map, uint64_t guest_addr) noexcept nogil
cdef uint8_t *map_guest(const MemoryMap *map, uint64_t guest_addr, uint64_t size) noexcept nogil
cdef uint8_t *map_user(const MemoryMap *map, uint64_t user_addr, uint64_t size) noexcept nogil
