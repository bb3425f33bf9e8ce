# A virtqueue that Python owns; native code works on its `ring`.

from libc.stdint cimport uint32_t, uint64_t

from frontend.ring cimport piece_t, ring_t

cdef class Virtqueue:
    cdef ring_t ring
    cdef piece_t *pieces
    cdef uint32_t max_pieces
    cdef readonly object memory
    cdef readonly bint indirect
    cdef readonly uint64_t desc_gpa, avail_gpa, used_gpa, tables_gpa
    cdef public object on_kick
    cdef list eventfds

    cdef _map(self)
