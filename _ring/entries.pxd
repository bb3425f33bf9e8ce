# What the guest is told about a file: attributes and directory entries.

from libc.stdint cimport uint32_t, uint64_t

from .fuse_abi cimport fuse_attr, fuse_attr_out, fuse_entry_out
from .inode_table cimport Inode
from .linux cimport linux_statx
from .share cimport Context


cdef int check_name(const char *name) noexcept nogil
cdef bint is_dot(const char *name) noexcept nogil
cdef bint is_dotdot(const char *name) noexcept nogil
cdef void fill_attr(Context *ctx, int fd, const linux_statx *stat, fuse_attr *attr) noexcept nogil
cdef void fill_attr_valid(const Context *ctx, uint32_t mode, uint64_t *seconds, uint32_t *nanoseconds) noexcept nogil
cdef int fill_attr_out(Context *ctx, int fd, fuse_attr_out *out) noexcept nogil
cdef int lookup_name(Context *ctx, Inode *parent, int parent_fd, const char *name, fuse_entry_out *out) noexcept nogil
cdef int enter_file(Context *ctx, int fd, Inode *parent, const char *name, fuse_entry_out *out) noexcept nogil
cdef int enter_created(Context *ctx, int fd, bint described, Inode *parent, const char *name,
                       fuse_entry_out *out) noexcept nogil
cdef int enter_linked(Context *ctx, int fd, Inode *parent, const char *name, fuse_entry_out *out) noexcept nogil
cdef bint cuts_much(int fd, uint64_t size) noexcept nogil
cdef int change_host_mode(Context *ctx, int fd, uint32_t mode) noexcept nogil
cdef int open_inode(Context *ctx, Inode *inode, int flags) noexcept nogil
