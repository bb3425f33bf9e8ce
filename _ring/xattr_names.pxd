# Which extended attributes pass between guest and host, and under which names.

from libc.stdint cimport uint32_t

cdef extern from *:
    """
    #define OVERRIDE_XATTR "user.containers.override_stat"
    """
    const char *OVERRIDE_XATTR    # in which override.pyx keeps ownership

cdef enum:
    XATTR_NAME_MAX = 255


cdef enum XattrKind:
    XATTR_PREFIX
    XATTR_OK
    XATTR_BAD
    XATTR_UNSUPPORTED


cdef struct XattrRule:
    uint32_t kind            # an XattrKind
    uint32_t client          # it is for names that the guest gives
    uint32_t server          # it is for names that the host has
    uint32_t key_size
    uint32_t prepend_size
    const char *key
    const char *prepend


cdef struct XattrNames:
    XattrRule *rules         # the first that matches decides
    uint32_t count           # 0: all names pass
    uint32_t hide_acls       # POSIX ACLs are not for a guest that does not know them
    uint32_t hide_override   # the attribute in which ownership is kept
    char capability[256]     # what security.capability is on the host, if it is not that; empty: it is


cdef int xattr_to_host(const XattrNames *names, const char *name, char *out) noexcept nogil
cdef const char *xattr_to_guest(const XattrNames *names, const char *name) noexcept nogil
