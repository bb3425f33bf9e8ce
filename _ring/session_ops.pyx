"""INIT and DESTROY, FORGET, and what concerns the file system as a whole."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from .atomics cimport load_acquire32, load_relaxed32, store_release32
from .chain cimport chain_take
from .entries cimport open_inode
from .fuse_abi cimport (
    FUSE_ALLOW_IDMAP, FUSE_ASYNC_DIO, FUSE_ASYNC_READ, FUSE_ATOMIC_O_TRUNC, FUSE_AUTO_INVAL_DATA, FUSE_BIG_WRITES,
    FUSE_CACHE_SYMLINKS, FUSE_CREATE_SUPP_GROUP, FUSE_DIRECT_IO_ALLOW_MMAP, FUSE_DO_READDIRPLUS, FUSE_DONT_MASK,
    FUSE_EXPLICIT_INVAL_DATA, FUSE_EXPORT_SUPPORT, FUSE_FLOCK_LOCKS, FUSE_HANDLE_KILLPRIV_V2, FUSE_HAS_IOCTL_DIR,
    FUSE_INIT_EXT, FUSE_KERNEL_MINOR_VERSION, FUSE_KERNEL_VERSION, FUSE_MAX_PAGES, FUSE_NO_OPENDIR_SUPPORT,
    FUSE_NO_OPEN_SUPPORT, FUSE_PARALLEL_DIROPS, FUSE_POSIX_ACL, FUSE_POSIX_LOCKS, FUSE_READDIRPLUS_AUTO,
    FUSE_SECURITY_CTX, FUSE_SETXATTR_EXT, FUSE_SUBMOUNTS, FUSE_WRITEBACK_CACHE, fuse_batch_forget_in, fuse_forget_in,
    fuse_forget_one, fuse_init_in, fuse_init_in_compat, fuse_init_out, fuse_interrupt_in, fuse_kstatfs)
from .handles cimport handles_close_all
from .inode_cache cimport inode_fd
from .inode_identity cimport mounts_close
from .inode_lifetime cimport inode_acquire, inode_release, inodes_close_pending
from .inode_table cimport INODE_ROOT, Inode, InodeTable, fetch_slot
from .inodes cimport inode_forget, inodes_forget_all, inodes_next
from .kept cimport kept_close
from .linux cimport EPROTO, ESTALE, O_RDONLY, memcpy, memset, statfs, sys_close, sys_fstatfs, sys_syncfs
from .lock_owners cimport cancel_all, cancel_request, owners_drop_all
from .request cimport NO_REPLY, Request, next_bytes, reply
from .share cimport ALWAYS, CACHE_ALWAYS, CACHE_METADATA, CACHE_NEVER, NEVER, Context, Options, Share

cdef enum:
    MINOR_MIN = 27              # older ones predate virtio-fs
    PAGE = 4096                 # what the protocol counts max_pages in where the guest's is not larger
    PAGES_MIN = 256
    HEADER_DESCRIPTORS = 4      # of a READ or WRITE, besides its pages
    BACKGROUND = 1024           # asynchronous requests in flight, guest-wide
    FORGETS = 256               # taken at a time
    AHEAD = 4                   # of the records that are fetched from memory
    FORGET_ONE = sizeof(fuse_forget_one)


cdef uint64_t wanted_flags(const Context *ctx) noexcept nogil:
    """The INIT flags that this daemon honours; what each does is listed in docs/fuse.md."""
    cdef uint64_t flags = (
        FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_HAS_IOCTL_DIR
        | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES | FUSE_SETXATTR_EXT | FUSE_INIT_EXT
        | FUSE_CREATE_SUPP_GROUP | FUSE_EXPORT_SUPPORT)
    cdef const Options *options = &ctx.share.options
    cdef bint cached
    # With the share to itself the guest need not look for changes by others.
    flags |= FUSE_EXPLICIT_INVAL_DATA if options.cache == CACHE_ALWAYS else FUSE_AUTO_INVAL_DATA
    if options.cache != CACHE_NEVER:
        flags |= FUSE_CACHE_SYMLINKS
    if options.own_umask:
        flags |= FUSE_DONT_MASK
    if options.readdirplus:
        flags |= FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO
    if options.writeback:
        flags |= FUSE_WRITEBACK_CACHE
    cached = options.cache != CACHE_NEVER and options.cache != CACHE_METADATA
    if options.allow_mmap or cached and options.allow_direct_io:
        flags |= FUSE_DIRECT_IO_ALLOW_MMAP
    if options.announce_submounts:
        flags |= FUSE_SUBMOUNTS
    if options.killpriv_v2:
        flags |= FUSE_HANDLE_KILLPRIV_V2
    if options.idmapped_mounts:
        flags |= FUSE_ALLOW_IDMAP
    if options.posix_acl != NEVER:
        flags |= FUSE_POSIX_ACL
    if options.security_label != NEVER:
        flags |= FUSE_SECURITY_CTX
    if options.posix_lock:
        flags |= FUSE_POSIX_LOCKS
    if options.flock:
        flags |= FUSE_FLOCK_LOCKS
    # What nobody changes need not be opened to be looked at again. A guest that removes what it lists needs its
    # directory open: where cookies are positions, another descriptor would leave out as many names as are gone by then.
    if options.cache == CACHE_ALWAYS and options.readonly:
        flags |= FUSE_NO_OPENDIR_SUPPORT
        if not options.posix_lock and not options.flock:
            flags |= FUSE_NO_OPEN_SUPPORT
    return flags


cdef bint refused(const Context *ctx, uint64_t flags) noexcept nogil:
    """Whether the guest lacks what the command line insists on."""
    if ctx.share.options.posix_acl == ALWAYS and not flags & FUSE_POSIX_ACL:
        return True
    return ctx.share.options.security_label == ALWAYS and not flags & FUSE_SECURITY_CTX


cdef void end_session(Share *share) noexcept nogil:
    """The guest knows no inode, has no file open and no lock any more. May take long."""
    store_release32(&share.session, 0)
    owners_drop_all(&share.locks)
    handles_close_all(&share.handles)
    cancel_all(&share.locks)
    kept_close(&share.kept, True)
    inodes_forget_all(&share.inodes)
    while load_relaxed32(&share.inodes.to_close):
        inodes_close_pending(&share.inodes)
    mounts_close(&share.inodes)


cdef int op_init(Context *ctx, Request *request) noexcept nogil:
    """Starts a session; an earlier one ends (a guest that was reset says no DESTROY)."""
    cdef fuse_init_in given
    cdef fuse_init_out out
    cdef uint64_t offered, flags
    cdef uint32_t pages
    cdef const fuse_init_in_compat *short_form = <const fuse_init_in_compat *> next_bytes(
        request, sizeof(fuse_init_in_compat))
    memset(&given, 0, sizeof(given))
    memset(&out, 0, sizeof(out))
    memcpy(&given, short_form, sizeof(fuse_init_in_compat))
    if request.args_size >= sizeof(fuse_init_in):
        memcpy(&given, request.args, sizeof(given))
    out.major = FUSE_KERNEL_VERSION
    out.minor = FUSE_KERNEL_MINOR_VERSION
    if given.major < FUSE_KERNEL_VERSION or (given.major == FUSE_KERNEL_VERSION and given.minor < MINOR_MIN):
        return -EPROTO
    if given.major > FUSE_KERNEL_VERSION:
        # It asks again with this major.
        return reply(request, &out, sizeof(out))
    end_session(ctx.share)
    offered = given.flags
    if offered & FUSE_INIT_EXT:
        offered |= <uint64_t> given.flags2 << 32
    flags = offered & wanted_flags(ctx)
    if not flags & FUSE_DONT_MASK:
        flags &= ~<uint64_t> FUSE_POSIX_ACL   # default ACLs and a umask that was applied before do not go together
    if not flags & FUSE_HANDLE_KILLPRIV_V2:
        flags &= ~<uint64_t> FUSE_ATOMIC_O_TRUNC   # which would not say whether set-id bits have to go
    if refused(ctx, flags):
        return -EPROTO
    pages = PAGES_MIN
    if request.queue.size > PAGES_MIN + HEADER_DESCRIPTORS:
        pages = request.queue.size - HEADER_DESCRIPTORS
    out.max_readahead = given.max_readahead
    out.flags = <uint32_t> flags
    out.flags2 = <uint32_t> (flags >> 32)
    out.max_background = BACKGROUND
    out.congestion_threshold = BACKGROUND / 4 * 3
    out.max_write = pages * PAGE
    out.max_pages = <uint16_t> pages
    out.time_gran = 1
    ctx.share.flags = flags
    ctx.share.xattrs.hide_acls = not flags & FUSE_POSIX_ACL
    store_release32(&ctx.share.session, 1)
    return reply(request, &out, sizeof(out))


cdef int op_destroy(Context *ctx, Request *request) noexcept nogil:
    end_session(ctx.share)
    return reply(request, NULL, 0)


cdef int op_forget(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_forget_in *args = <const fuse_forget_in *> next_bytes(request, sizeof(fuse_forget_in))
    inode_forget(&ctx.share.inodes, request.header.nodeid, args.nlookup)
    return NO_REPLY


cdef int op_batch_forget(Context *ctx, Request *request) noexcept nogil:
    cdef const fuse_batch_forget_in *args = <const fuse_batch_forget_in *> next_bytes(
        request, sizeof(fuse_batch_forget_in))
    cdef fuse_forget_one *entries = <fuse_forget_one *> ctx.scratch
    cdef uint32_t left = args.count
    cdef uint32_t i, here
    # As many as are there: the count is the guest's word.
    while left:
        here = left if left < FORGETS else FORGETS
        here = <uint32_t> (chain_take(&request.chain, entries, here * FORGET_ONE) / FORGET_ONE)
        if not here:
            break
        for i in range(here):
            if i + AHEAD < here:
                fetch_slot(&ctx.share.inodes, <uint32_t> entries[i + AHEAD].nodeid)
            inode_forget(&ctx.share.inodes, entries[i].nodeid, entries[i].nlookup)
        left -= here
    return NO_REPLY


cdef int op_interrupt(Context *ctx, Request *request) noexcept nogil:
    """Cuts a lock's wait short; nothing else waits without bound."""
    cdef const fuse_interrupt_in *args = <const fuse_interrupt_in *> next_bytes(request, sizeof(fuse_interrupt_in))
    cancel_request(&ctx.share.locks, args.unique)
    return NO_REPLY


cdef int op_statfs(Context *ctx, Request *request) noexcept nogil:
    cdef Inode *inode = inode_acquire(&ctx.share.inodes, request.header.nodeid)
    cdef fuse_kstatfs out
    cdef statfs stat
    cdef int error
    if inode == NULL:
        return -ESTALE
    error = inode_fd(&ctx.share.inodes, inode)
    if error >= 0:
        error = sys_fstatfs(error, &stat)
    inode_release(&ctx.share.inodes, inode)
    if error < 0:
        return error
    memset(&out, 0, sizeof(out))
    out.blocks = stat.f_blocks
    out.bfree = stat.f_bfree
    out.bavail = stat.f_bavail
    out.files = stat.f_files
    out.ffree = stat.f_ffree
    out.bsize = <uint32_t> stat.f_bsize
    out.namelen = <uint32_t> stat.f_namelen
    out.frsize = <uint32_t> stat.f_frsize
    return reply(request, &out, sizeof(out))


cdef int sync_by(Context *ctx, Inode *inode, bint *opened) noexcept nogil:
    """The file system of a pinned inode. 0 or -errno, which is not syncfs's where the inode could not be opened."""
    cdef int fd = open_inode(ctx, inode, O_RDONLY)
    cdef int error
    opened[0] = fd >= 0
    if fd < 0:
        return fd
    error = sys_syncfs(fd)
    sys_close(fd)
    return error


cdef int sync_others(Context *ctx, uint32_t roots) noexcept nogil:
    """The mounts other than the root's, by whatever the guest knows on each. 0, or the first -errno of syncfs.

    Most guests take a directory with a mount for a file system of its own, for which they ask by themselves. To sync
    that once more costs little; a file that is mounted by itself, and the mounts of all other guests, come here alone.
    """
    cdef InodeTable *table = &ctx.share.inodes
    cdef uint32_t mounts = load_acquire32(&table.mount_count)
    cdef uint8_t *wanted = ctx.scratch
    cdef uint32_t left = 0
    cdef uint32_t slot = 0
    cdef uint32_t i
    cdef Inode *inode
    cdef bint opened
    cdef int error
    cdef int first = 0
    for i in range(mounts):
        wanted[i] = i != roots and load_relaxed32(&table.mounts[i].inodes) != 0
        left += wanted[i]
    while left:
        inode = inodes_next(table, &slot)
        if inode == NULL:
            break
        if inode.mount < mounts and wanted[inode.mount]:
            error = sync_by(ctx, inode, &opened)
            if opened:
                wanted[inode.mount] = 0
                left -= 1
                first = first if first else error
        inode_release(table, inode)
    return first


cdef int op_syncfs(Context *ctx, Request *request) noexcept nogil:
    cdef Inode *inode = inode_acquire(&ctx.share.inodes, request.header.nodeid)
    cdef bint opened
    cdef int error, others
    if inode == NULL:
        return -ESTALE
    error = sync_by(ctx, inode, &opened)
    if inode.flags & INODE_ROOT:
        others = sync_others(ctx, inode.mount)
        error = error if error < 0 else others
    inode_release(&ctx.share.inodes, inode)
    return error if error < 0 else reply(request, NULL, 0)
