"""Which extended attributes pass between guest and host, and under which names (the rules of --xattrmap)."""

from libc.stdint cimport uint32_t

from .linux cimport EOPNOTSUPP, EPERM, ERANGE, memcpy, strcmp, strlen, strncmp


cdef inline bint keeps_ownership(const XattrNames *names, const char *name) noexcept nogil:
    """Whether the host's attribute of this name is none of the guest's, by whatever name."""
    return names.hide_override and strcmp(name, OVERRIDE_XATTR) == 0


cdef bint blocked(const XattrNames *names, const char *name) noexcept nogil:
    if names.hide_acls and strncmp(name, "system.posix_acl_", 17) == 0:
        return True
    return keeps_ownership(names, name)


cdef int xattr_to_host(const XattrNames *names, const char *name, char *out) noexcept nogil:
    """The host's name for one of the guest's, into XATTR_NAME_MAX + 1 bytes. 0, -EPERM, -EOPNOTSUPP or -ERANGE."""
    cdef uint32_t size = <uint32_t> strlen(name)
    cdef uint32_t before = 0
    cdef uint32_t i
    cdef const XattrRule *rule
    if blocked(names, name):
        return -EOPNOTSUPP
    for i in range(names.count):
        rule = names.rules + i
        if not rule.client or strncmp(name, rule.key, rule.key_size) != 0:
            continue
        if rule.kind == XATTR_BAD:
            return -EPERM
        if rule.kind == XATTR_UNSUPPORTED:
            return -EOPNOTSUPP
        if rule.kind == XATTR_PREFIX:
            before = rule.prepend_size
            if before <= XATTR_NAME_MAX:
                memcpy(out, rule.prepend, before)
        break
    else:
        if names.count:
            return -EPERM   # the rules were checked to end in one that matches all; never pass by accident
    if before + size > XATTR_NAME_MAX:
        return -ERANGE
    memcpy(out + before, name, size + 1)
    return -EOPNOTSUPP if keeps_ownership(names, out) else 0


cdef const char *xattr_to_guest(const XattrNames *names, const char *name) noexcept nogil:
    """The guest's name for one that the host has, a part of the same string; NULL: it is not shown."""
    cdef const XattrRule *rule
    cdef uint32_t i
    if keeps_ownership(names, name):
        return NULL
    for i in range(names.count):
        rule = names.rules + i
        if not rule.server or strncmp(name, rule.prepend, rule.prepend_size) != 0:
            continue
        if rule.kind == XATTR_BAD or rule.kind == XATTR_UNSUPPORTED:
            return NULL
        if rule.kind == XATTR_PREFIX:
            name += rule.prepend_size
        break
    else:
        if names.count:
            return NULL
    if name[0] == 0 or blocked(names, name):
        return NULL
    return name
