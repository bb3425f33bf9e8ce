"""Settings of the control plane, put into a share before any thread uses it."""

from libc.stdint cimport uint32_t

from .failures cimport failed
from .ids cimport ID_FORBID, ID_SHIFT, ID_SQUASH, IdMap, IdSpan
from .linux cimport ENOMEM, calloc, free, malloc, memcpy
from .share cimport ALWAYS, AUTO, CACHE_ALWAYS, CACHE_AUTO, CACHE_METADATA, CACHE_NEVER, NEVER, Share
from .xattr_names cimport (
    XATTR_BAD, XATTR_NAME_MAX, XATTR_OK, XATTR_PREFIX, XATTR_UNSUPPORTED, XattrNames, XattrRule, xattr_to_host)

CACHES = {"never": CACHE_NEVER, "metadata": CACHE_METADATA, "auto": CACHE_AUTO, "always": CACHE_ALWAYS}
WANTED = {"never": NEVER, "auto": AUTO, "always": ALWAYS}
KINDS = {"prefix": XATTR_PREFIX, "ok": XATTR_OK, "bad": XATTR_BAD, "unsupported": XATTR_UNSUPPORTED}


cdef int fill_ids(IdMap *map, tuple ranges) except -1:
    cdef IdSpan *span
    map.count = 0
    map.spans = <IdSpan *> calloc(len(ranges) + 1, sizeof(IdSpan))
    if map.spans == NULL:
        failed(-ENOMEM, "settings")
    for source, target, count, squash in ranges:
        span = map.spans + map.count
        span.source = source
        span.last = source + count - 1
        span.kind = ID_FORBID if target is None else ID_SQUASH if squash else ID_SHIFT
        span.target = target or 0
        map.count += 1
    return 0


cdef const char *copy(bytes text) except NULL:
    cdef char *copied = <char *> malloc(len(text) + 1)
    if copied == NULL:
        failed(-ENOMEM, "settings")
    memcpy(copied, <const char *> text, len(text) + 1)
    return copied


cdef int fill_names(XattrNames *names, tuple rules) except -1:
    cdef XattrRule *rule
    cdef char capability[XATTR_NAME_MAX + 1]
    names.rules = <XattrRule *> calloc(len(rules) + 1, sizeof(XattrRule))
    if names.rules == NULL:
        failed(-ENOMEM, "settings")
    for kind, client, server, key, prepend in rules:
        rule = names.rules + names.count
        rule.kind = KINDS[kind]
        rule.client = client
        rule.server = server
        rule.key = copy(key)
        rule.key_size = len(key)
        rule.prepend = copy(prepend)
        rule.prepend_size = len(prepend)
        names.count += 1
    if names.count and xattr_to_host(names, "security.capability", capability) == 0 and \
            (<bytes> capability) != b"security.capability":
        memcpy(names.capability, capability, sizeof(capability))
    return 0


cdef int share_configure(Share *share, object settings) except -1:
    """Takes a Settings over. OSError; whatever was taken is freed by share_free_settings."""
    options = &share.options
    options.readonly = settings.readonly
    options.cache = CACHES[settings.cache]
    options.readdirplus = settings.readdirplus
    options.writeback = settings.writeback
    options.allow_direct_io = settings.allow_direct_io
    options.allow_mmap = settings.allow_mmap
    options.announce_submounts = settings.announce_submounts
    options.xattr = settings.xattr
    options.posix_acl = WANTED[settings.posix_acl]
    options.security_label = WANTED[settings.security_label]
    options.killpriv_v2 = settings.killpriv_v2
    options.idmapped_mounts = settings.idmapped_mounts
    options.own_umask = settings.own_umask
    options.posix_lock = settings.posix_lock
    options.flock = settings.flock
    options.preserve_noatime = settings.preserve_noatime
    options.override_stat = settings.override_stat
    options.entry_timeout = settings.entry_timeout
    options.attr_timeout = settings.attr_timeout
    options.negative_timeout = settings.negative_timeout
    share.locks.limit = settings.blocked_locks
    share.locks.ranges_max = settings.locks
    share.locks.account = &share.descriptors
    share.inodes.no_handles = settings.file_handles == "never"
    share.inodes.remembers = settings.nfs_export
    share.xattrs.hide_override = settings.override_stat
    fill_ids(&share.uids_to_host, settings.uids_to_host)
    fill_ids(&share.uids_to_guest, settings.uids_to_guest)
    fill_ids(&share.gids_to_host, settings.gids_to_host)
    fill_ids(&share.gids_to_guest, settings.gids_to_guest)
    fill_names(&share.xattrs, settings.xattr_rules)
    return 0


cdef void share_free_settings(Share *share) noexcept:
    cdef uint32_t i
    for i in range(share.xattrs.count):
        free(<void *> share.xattrs.rules[i].key)
        free(<void *> share.xattrs.rules[i].prepend)
    free(share.xattrs.rules)
    free(share.uids_to_host.spans)
    free(share.uids_to_guest.spans)
    free(share.gids_to_host.spans)
    free(share.gids_to_guest.spans)
