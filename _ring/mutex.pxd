# A mutex of one 32-bit word: 0 free, 1 held, 2 held and somebody waits. Zeroed memory is a free lock.
# Held for a few instructions, but for the few that ARCHITECTURE.md names ("Mutexes and their order").

from libc.stdint cimport uint32_t

from .atomics cimport compare_exchange32, exchange32
from .invariants cimport invariant


cdef void lock_wait(uint32_t *word) noexcept nogil
cdef void lock_wake(uint32_t *word) noexcept nogil


cdef inline void lock(uint32_t *word) noexcept nogil:
    cdef uint32_t free = 0
    if not compare_exchange32(word, &free, 1):
        lock_wait(word)


cdef inline void unlock(uint32_t *word) noexcept nogil:
    cdef uint32_t before = exchange32(word, 0)
    invariant(before != 0, "an unlocked mutex was locked")
    if before == 2:
        lock_wake(word)
