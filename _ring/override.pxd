# Ownership and modes kept in an extended attribute, for a daemon that may not change the real ones (fake root).

from libc.stdint cimport uint32_t

from .fuse_abi cimport fuse_attr
from .share cimport Context


cdef void override_show(Context *ctx, int fd, fuse_attr *attr) noexcept nogil
cdef int override_set(Context *ctx, int fd, uint32_t uid, uint32_t gid, uint32_t mode, uint32_t rdev) noexcept nogil
cdef int override_change(Context *ctx, int fd, fuse_attr *attr, uint32_t uid, uint32_t gid,
                         uint32_t mode) noexcept nogil
cdef uint32_t override_host_mode(uint32_t mode) noexcept nogil
