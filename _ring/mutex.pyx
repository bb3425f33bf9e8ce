"""The slow half of the one-word lock."""

from libc.stdint cimport uint32_t

from .atomics cimport compare_exchange32, cpu_relax, exchange32
from .linux cimport sys_futex_wait, sys_futex_wake

cdef enum:
    SPINS = 40  # about as long as a critical section lasts


cdef void lock_wait(uint32_t *word) noexcept nogil:
    cdef uint32_t free
    cdef int _spin
    for _spin in range(SPINS):
        cpu_relax()
        free = 0
        if compare_exchange32(word, &free, 1):
            return
    # The word says 2 while anybody may sleep, so that the holder wakes one.
    while exchange32(word, 2) != 0:
        sys_futex_wait(word, 2, -1)


cdef void lock_wake(uint32_t *word) noexcept nogil:
    sys_futex_wake(word, 1)
