# What must always be so (invariants.h). Nothing is evaluated in a release build.

cdef extern from "invariants.h" nogil:
    void invariant(bint holds, const char *what)
