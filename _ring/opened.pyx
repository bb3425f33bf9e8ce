"""A guest that was told so (ENOSYS to its first OPEN or OPENDIR) sends requests with the handle 0: what they are about
is opened for as long as each of them takes. That pays where the guest's caches answer nearly everything.
"""

from libc.stdint cimport uint64_t

from .descriptors cimport descriptors_close
from .entries cimport open_inode
from .fuse_abi cimport FUSE_NO_OPENDIR_SUPPORT, FUSE_NO_OPEN_SUPPORT
from .inode_eviction cimport open_counted
from .handles cimport Handle, handle_acquire, handle_borrow
from .inode_lifetime cimport inode_acquire, inode_release
from .inode_table cimport Inode
from .linux cimport EBADF, O_RDONLY, S_IFDIR
from .share cimport Context


cdef bint opens_nothing(const Context *ctx, bint directory) noexcept nogil:
    """Whether this guest does without OPEN (or OPENDIR) and RELEASE."""
    return (ctx.share.flags & (FUSE_NO_OPENDIR_SUPPORT if directory else FUSE_NO_OPEN_SUPPORT)) != 0


cdef Handle *open_for_request(Context *ctx, uint64_t nodeid, bint directory, int *error) noexcept nogil:
    cdef Inode *inode = inode_acquire(&ctx.share.inodes, nodeid)
    cdef Handle *handle = NULL
    error[0] = -EBADF
    if inode == NULL:
        return NULL
    if (inode.kind == S_IFDIR) == directory:
        error[0] = open_counted(&ctx.share.inodes)
        if error[0] == 0:
            error[0] = open_inode(ctx, inode, O_RDONLY)
            if error[0] < 0:
                descriptors_close(&ctx.share.descriptors)
            else:
                handle = handle_borrow(&ctx.handle, error[0], nodeid, inode.mount, directory)
    inode_release(&ctx.share.inodes, inode)
    return handle


cdef Handle *handle_of(Context *ctx, uint64_t fh, uint64_t nodeid, bint directory, int *error) noexcept nogil:
    """What the guest has open as `fh`, pinned: handle_release gives it back. NULL and -errno where it is not there."""
    cdef Handle *handle = handle_acquire(&ctx.share.handles, fh, nodeid, directory)
    error[0] = -EBADF
    if handle == NULL and fh == 0 and opens_nothing(ctx, directory):
        return open_for_request(ctx, nodeid, directory, error)
    return handle


cdef Handle *any_handle_of(Context *ctx, uint64_t fh, uint64_t nodeid, int *error) noexcept nogil:
    """handle_of, for what may be a file or a directory."""
    cdef Handle *handle = handle_of(ctx, fh, nodeid, False, error)
    return handle if handle != NULL else handle_of(ctx, fh, nodeid, True, error)
