"""Linux capabilities by their names (capabilities(7)), and which of them the daemon keeps."""

NAMES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
)

# What serving a file system as root takes: other users' files, set-id bits, device nodes, file capabilities; and
# dac_read_search, by which files are found again by handle.
USUAL = ("chown", "dac_override", "dac_read_search", "fowner", "fsetid", "setgid", "setuid", "mknod", "setfcap")


def bit(name: str) -> int:
    """The capability's bit in a set. ValueError for a name that is none."""
    return 1 << NAMES.index(name)


def parse_changes(text: str) -> tuple[tuple[str, bool], ...]:
    """`+sys_admin:-chown` as (name, added) in order. ValueError."""
    changes = []
    for word in text.split(":"):
        name = word[1:].lower().removeprefix("cap_")
        if word[:1] not in ("+", "-"):
            raise ValueError(f"{word!r} begins with neither + nor -")
        if name not in NAMES:
            raise ValueError(f"{name!r} is no capability")
        changes.append((name, word[0] == "+"))
    return tuple(changes)


def kept(changes: tuple[tuple[str, bool], ...], file_handles: str) -> int:
    """The capabilities that the daemon keeps, a bit each. ValueError for changes that leave too few."""
    names = {*USUAL}
    if file_handles == "never":
        names.discard("dac_read_search")
    for name, added in changes:
        if added:
            names.add(name)
        else:
            names.discard(name)
    if file_handles == "mandatory" and "dac_read_search" not in names:
        raise ValueError("dac_read_search is needed with --inode-file-handles mandatory")
    return sum(bit(name) for name in names)
