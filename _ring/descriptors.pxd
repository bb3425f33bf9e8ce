# The account of file descriptors: what the control plane may always have, what the guest has open, what is only cached.

from libc.stdint cimport uint32_t

cdef struct Descriptors:
    uint32_t limit      # RLIMIT_NOFILE
    uint32_t reserve    # for the control plane: sockets, eventfds, memory regions, /proc, the interpreter
    uint32_t queues     # of the limit, for eventfds and workers of queues
    uint32_t open_max   # the most that the guest may have open
    uint32_t opened     # files and directories that the guest has open
    uint32_t cached     # O_PATH descriptors of known inodes
    uint32_t kept       # files that the guest has closed


cdef void descriptors_init(Descriptors *account, uint32_t limit) noexcept nogil
cdef void descriptors_for_queues(Descriptors *account, uint32_t queues) noexcept nogil
cdef int descriptors_open(Descriptors *account) noexcept nogil
cdef void descriptors_close(Descriptors *account) noexcept nogil
cdef uint32_t descriptors_over_budget(const Descriptors *account) noexcept nogil
