"""What the options say about a share, as the data plane takes it."""

import argparse

from virtiofsd import idmap
from virtiofsd._ring.settings import Settings

SECOND = 1_000_000_000
LONG = 86_400.0  # seconds: as good as for ever, for a share that nobody else changes
TIMEOUTS = {"never": 0.0, "auto": 1.0, "metadata": LONG, "always": LONG}


def settings_of(options: argparse.Namespace, own_umask: bool) -> Settings:
    """Settings of the one share. Contradictions were refused, or taken back, when options were checked."""
    usual = TIMEOUTS[options.cache]

    def nanoseconds(given: float | None) -> int:
        return round((usual if given is None else given) * SECOND)

    uids, gids = idmap.combine(options.translate_uid), idmap.combine(options.translate_gid)
    return Settings(
        readonly=options.readonly,
        cache=options.cache,
        entry_timeout=nanoseconds(options.entry_timeout),
        attr_timeout=nanoseconds(options.attr_timeout),
        negative_timeout=nanoseconds(options.negative_timeout),
        readdirplus=not options.no_readdirplus,
        writeback=options.writeback,
        allow_direct_io=options.allow_direct_io,
        allow_mmap=options.allow_mmap,
        announce_submounts=options.announce_submounts,
        xattr=(options.xattr or options.xattrmap != () or options.posix_acl != "never"
               or options.security_label != "never"),
        posix_acl=options.posix_acl,
        security_label=options.security_label,
        killpriv_v2=options.killpriv_v2 and not options.override_stat,  # the host clears no bits of the attribute
        idmapped_mounts=options.idmapped_mounts,
        own_umask=own_umask,
        posix_lock=options.posix_lock,
        flock=options.flock,
        locks=options.max_locks,
        blocked_locks=options.max_blocked_locks,
        preserve_noatime=options.preserve_noatime,
        override_stat=options.override_stat,
        file_handles=options.inode_file_handles,
        nfs_export=options.nfs_export,
        uids_to_host=uids.to_host,
        uids_to_guest=uids.to_guest,
        gids_to_host=gids.to_host,
        gids_to_guest=gids.to_guest,
        xattr_rules=options.xattrmap,
    )
