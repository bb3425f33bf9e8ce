"""What the control plane decides about a share, before a guest comes."""

from typing import NamedTuple


class IdRange(NamedTuple):
    """Ids `source` to `source + size - 1` become `target` and up, or all `target` where it is squashed.

    `target` None: the guest may not use them.
    """

    source: int
    target: int | None
    size: int
    squash: bool = False


class XattrRule(NamedTuple):
    """A rule for names: `kind` is prefix, ok, bad or unsupported, for names from the client, the server or both."""

    kind: str
    client: bool
    server: bool
    key: bytes
    prepend: bytes


class Settings(NamedTuple):
    """Times are nanoseconds. Three-valued settings are never, auto and always."""

    readonly: bool = False
    cache: str = "auto"  # never, metadata, auto, always
    entry_timeout: int = 1_000_000_000
    attr_timeout: int = 1_000_000_000
    negative_timeout: int = 1_000_000_000
    readdirplus: bool = True
    writeback: bool = False
    allow_direct_io: bool = False
    allow_mmap: bool = False
    announce_submounts: bool = True
    xattr: bool = True
    posix_acl: str = "never"
    security_label: str = "never"
    killpriv_v2: bool = True
    idmapped_mounts: bool = True
    own_umask: bool = True  # each thread may have one
    posix_lock: bool = False
    flock: bool = False
    locks: int = 1 << 16  # the most byte ranges that are locked at a time
    blocked_locks: int = 1024  # the most that wait
    preserve_noatime: bool = False
    override_stat: bool = False
    file_handles: str = "prefer"  # never, prefer, mandatory
    nfs_export: bool = False
    uids_to_host: tuple[IdRange, ...] = ()
    uids_to_guest: tuple[IdRange, ...] = ()
    gids_to_host: tuple[IdRange, ...] = ()
    gids_to_guest: tuple[IdRange, ...] = ()
    xattr_rules: tuple[XattrRule, ...] = ()
