/* What must always be so: checked in debug and sanitizer builds (VIRTIOFSD_BUILD). A violation ends the daemon. */
#ifndef VIRTIOFSD_INVARIANTS_H
#define VIRTIOFSD_INVARIANTS_H

#ifdef VIRTIOFSD_DEBUG
#include <stdio.h>
#include <stdlib.h>
static inline void invariant(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "virtiofsd: it is not so that %s\n", what);
        abort();
    }
}
#else
#define invariant(holds, what) do { if (0) { (void)(holds); (void)(what); } } while (0)
#endif

#endif
