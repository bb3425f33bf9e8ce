"""The one table of options: parsing, checks, help and the documentation come from it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from virtiofsd.words import (
    Choice,
    LogLevels,
    id_range,
    modcaps,
    number,
    poll_time,
    seconds,
    some_seconds,
    tag,
    text,
    translation,
    xattrmap,
)

VRINGS_MAX = 256  # a vring's index has 8 bits
NOFILE_LEAST = 256  # file descriptors: with fewer no guest can do anything

# Groups, in the order of the help.
SHARE, CACHE, IDS, PROCESS, LOCKS = "Share", "Caching", "Ids and attributes", "Process and sandbox", "Locks"
PERFORMANCE, LOG, MIGRATION, INFORMATION, OLD = "Performance", "Log", "Migration", "Information", "Old names"
GROUPS = (SHARE, CACHE, IDS, LOCKS, PERFORMANCE, PROCESS, LOG, MIGRATION, INFORMATION, OLD)


class Difference(NamedTuple):
    """From the reference daemon, the Rust virtiofsd 1.14: its default, and the reason for another."""

    reference: str
    reason: str


class Option(NamedTuple):
    """A row: `parse` turns the word into the value and raises ValueError with the reason; None: it takes no word.

    `bare` is the value of an option whose word may be left out; `repeats` collects the values of an option that is
    given several times, of which else the last one counts; `opposite` is the name that takes it back.
    """

    name: str
    metavar: str | None
    parse: Callable[[str], Any] | None
    default: Any
    help: str
    group: str
    usual: str = ""  # the default in words, where the value does not say it
    bare: Any = None
    repeats: bool = False
    opposite: str | None = None
    differs: Difference | None = None
    stands_for: str = ""  # a deprecated option: the one that it is an old name of
    advice: str = ""  # a deprecated option: what to do instead
    ineffective: str = ""  # why it changes nothing

    @property
    def key(self) -> str:
        return self.name.lstrip("-").replace("-", "_")

    @property
    def default_text(self) -> str:
        """What counts where the option is not given; empty: nothing that could be said."""
        if self.usual or self.default in (None, (), []):
            return self.usual
        if isinstance(self.default, bool):
            return "on" if self.default else ""
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    @property
    def in_file(self) -> bool:
        """Whether a configuration file may have it."""
        return self.group not in (INFORMATION, OLD)


WANTED = Choice("never", "auto", "always")
LEVELS = LogLevels()
NO_MIGRATION = "live migration is not served yet, and the VMM refuses to begin one"

OPTIONS = (
    Option("--shared-dir", "DIR", text, None, "directory to share", SHARE),
    Option("--tag", "TAG", tag, None,
           "name by which guests mount the share, for front-ends that ask the daemon for it (User-Mode Linux, crosvm); "
           "QEMU and Cloud Hypervisor have an option of their own, and QEMU before 8.1 cannot stand this one", SHARE),
    Option("--readonly", None, None, False, "refuse every change of the share with EROFS", SHARE),
    Option("--announce-submounts", None, None, True, "tell guests which directories are mount points", SHARE,
           opposite="--no-announce-submounts"),
    Option("--inode-file-handles", "WHEN", Choice("never", "prefer", "mandatory", fallback="prefer"), "prefer",
           "find files again by file handle when their descriptor was closed: never (by name then), prefer, or "
           "mandatory; fallback is an old word for prefer", SHARE),

    Option("--cache", "POLICY", Choice("never", "metadata", "auto", "always"), "auto",
           "what guests may cache: never anything; metadata, with every read and write going to the host; auto, for a "
           "second, and data over an open where the file has not changed; always, for shares that nobody else changes",
           CACHE),
    Option("--entry-timeout", "SECONDS", seconds, None, "how long a guest may know a name", CACHE,
           usual="by --cache: 0 for never, 1 for auto, else 86400"),
    Option("--attr-timeout", "SECONDS", seconds, None, "how long a guest may know attributes; 0 makes close-to-open "
           "consistency exact", CACHE, usual="by --cache"),
    Option("--negative-timeout", "SECONDS", seconds, None, "how long a guest may know that a name does not exist",
           CACHE, usual="by --cache", differs=Difference(
               "0", "a guest that looks for what does not exist asks once a second instead of each time; 0 has each "
               "name that another creates seen at once")),
    Option("--writeback", None, None, False, "let guests delay writes in their page cache; for shares that nobody else "
           "changes", CACHE),
    Option("--allow-direct-io", None, None, False, "pass O_DIRECT of guests on to the host", CACHE),
    Option("--allow-mmap", None, None, False, "allow shared mappings with --cache never and metadata", CACHE),
    Option("--no-readdirplus", None, None, False, "no attributes with directory entries", CACHE),
    Option("--nfs-export", None, None, False, "file handles that guests make of files (for NFS, or name_to_handle_at) "
           "stay good when the guest has dropped the files from its caches; takes 120 bytes for every file that was "
           "ever looked at and not deleted", CACHE),

    Option("--xattr", None, None, False, "extended attributes", IDS),
    Option("--xattrmap", "RULES", xattrmap, (), "rules for the names of extended attributes (implies --xattr), such as "
           ":map::user.virtiofs.:", IDS),
    Option("--posix-acl", "WANTED", WANTED, "never", "POSIX ACLs (implies --xattr): never, auto, where the guest has "
           "them, or always, else no guest", IDS, bare="always"),
    Option("--security-label", "WANTED", WANTED, "never", "security labels of new files (implies --xattr): never, auto "
           "or always", IDS, bare="always"),
    Option("--killpriv-v2", None, None, True, "clear set-id bits when the guest asks for it", IDS,
           opposite="--no-killpriv-v2", differs=Difference(
               "off", "without it a guest asks for file capabilities before every write, and sends a SETATTR for each "
               "set-id bit; the daemon clears them in the same request instead")),
    Option("--idmapped-mounts", None, None, True, "let guests make idmapped mounts of the share. They do not say then "
           "who asks for what is no creation: fallocate clears set-id bits for root, too, and fs-verity is only for "
           "files that nobody but their owner may read", IDS, opposite="--no-idmapped-mounts"),
    Option("--preserve-noatime", None, None, False, "pass O_NOATIME of guests on to the host", IDS),
    Option("--translate-uid", "RANGE", translation, [], "translate user ids between guest and host: "
           "guest|host|map|squash-guest|squash-host:SOURCE:TARGET:COUNT or forbid-guest:BASE:COUNT; may be repeated",
           IDS, repeats=True),
    Option("--translate-gid", "RANGE", translation, [], "the same for group ids", IDS, repeats=True),
    Option("--override-stat", None, None, False, "fake root: keep owners, modes and device nodes of guests in the "
           "extended attribute user.containers.override_stat, for a daemon that may not set the real ones. Symbolic "
           "links can have no such attribute, and are root's. Not with --posix-acl, as ACLs and the modes that are "
           "kept would contradict each other", IDS),

    Option("--posix-lock", None, None, False, "POSIX locks reach the host, and exclude other guests and host "
           "processes", LOCKS),
    Option("--flock", None, None, False, "BSD locks reach the host", LOCKS),
    Option("--max-locks", "N", number(1, 1 << 30), 1 << 16, "how many byte ranges of files the guest may have locked "
           "at a time, by POSIX locks; more get ENOLCK", LOCKS),
    Option("--max-blocked-locks", "N", number(1, 1 << 20), 1024, "how many requests may wait for a lock; more get "
           "ENOLCK", LOCKS),

    Option("--thread-pool-size", "N", number(0, 4096), 0, "most threads for requests that sleep; fewer than 4 become "
           "4, lest small requests wait for slow ones", PERFORMANCE, usual="0: as many as are needed, up to 64",
           differs=Difference("0: none, every request is served where it arrives",
                              "one slow request must not hold up the queue behind it; small requests do without the "
                              "pool all the same")),
    Option("--num-request-queues", "N", number(1, VRINGS_MAX - 1), None,
           "most request queues that a front-end may use, and the number that a guest is told where the front-end "
           "leaves that to the daemon (crosvm makes them all)", PERFORMANCE,
           usual="up to 255, and guests are told the number of the host's CPUs",
           differs=Difference("1", "queues are served side by side; a front-end that wants one uses one")),
    Option("--workers", "N", number(1, VRINGS_MAX - 1), None, "how many threads serve request queues side by side; "
           "where there are more queues, they share", PERFORMANCE, usual="the CPUs that the daemon may use"),
    Option("--poll-us", "N", poll_time, None, "how many microseconds a thread looks for new requests at most before it "
           "sleeps; 0: not at all", PERFORMANCE, usual="auto: up to 50 where that pays and there are CPUs to spare",
           differs=Difference("never", "waking a thread takes longer than most requests do")),
    Option("--helpers", "N", number(0, VRINGS_MAX - 1), None, "how many threads at once may help another that serves "
           "a queue, where several large reads wait in it; 0: none", PERFORMANCE,
           usual="half of the CPUs that the daemon may use, up to 3, while one of them is free"),
    Option("--max-requests", "N", number(64, 1 << 20), 16384, "most requests in flight; more wait in their queues",
           PERFORMANCE),
    Option("--descriptor-timeout", "SECONDS", seconds, 30.0, "how long the descriptor of a file that the guest has "
           "not opened stays cached without being used; 0: as long as there is room", PERFORMANCE),
    Option("--close-delay", "SECONDS", seconds, 1.0, "how long a file that the guest had open for reading alone stays "
           "open after its last close, for the next open; 0: not at all", PERFORMANCE),
    Option("--rlimit-nofile", "N", number(0, 1 << 30), None, "most file descriptors of the daemon, from 256; 0: leave "
           "the limit as it is", PERFORMANCE, usual="1000000, or what the system allows"),

    Option("--socket-path", "PATH", text, None, "UNIX socket to listen on for the vhost-user front-end (the VMM); "
           "PATH.pid beside it has the daemon's process id and is locked", PROCESS),
    Option("--socket-group", "GROUP", text, None, "group that may connect to the socket, too", PROCESS),
    Option("--fd", "FD", number(0, 1 << 30), None, "listening socket that was opened by who starts the daemon",
           PROCESS, usual="the one of systemd's socket activation"),
    Option("--keep-listening", None, None, False, "when a front-end disconnects, wait for the next", PROCESS),
    Option("--sandbox", "MODE", Choice("namespace", "chroot", "none"), "namespace",
           "isolation of the daemon: namespace, with only the shared directory in its file system, no network and no "
           "other process; chroot; none", PROCESS),
    Option("--seccomp", "ACTION", Choice("kill", "trap", "log", "none"), "kill",
           "what happens at a system call that the daemon should never make: kill, trap, log, or none", PROCESS),
    Option("--modcaps", "CHANGES", modcaps, (), "capabilities that the daemon keeps besides the usual ones, or not: "
           "+sys_admin:-chown", PROCESS),
    Option("--uid-map", "RANGE", id_range, [], "user ids of the user namespace that a daemon without privileges makes: "
           ":INSIDE:OUTSIDE:COUNT:; may be repeated", PROCESS, usual="only its own", repeats=True),
    Option("--gid-map", "RANGE", id_range, [], "the same for group ids", PROCESS, repeats=True),
    Option("--drain-timeout", "SECONDS", some_seconds, 60.0,
           "how long a stop of the device waits for requests that hang in the host's file system, before the "
           "connection is closed", PROCESS),

    Option("--log-level", "LEVELS", LEVELS, LEVELS("info"), "what is logged: off, error, warn, info, debug or trace; "
           "MODULE=LEVEL behind commas is for single modules: info,virtiofsd.placement=debug", LOG, usual="info"),
    Option("--syslog", None, None, False, "log to syslog", LOG, usual="to standard error, for the journal in its form"),

    Option("--migration-mode", "MODE", Choice("find-paths", "file-handles"), None,
           "how inodes would be found again: find-paths or file-handles", MIGRATION, ineffective=NO_MIGRATION),
    Option("--migration-on-error", "ACTION", Choice("abort", "guest-error"), None,
           "what would become of inodes that are not found: abort or guest-error", MIGRATION, ineffective=NO_MIGRATION),
    Option("--migration-verify-handles", None, None, False, "compare inodes by file handle", MIGRATION,
           ineffective=NO_MIGRATION),
    Option("--migration-confirm-paths", None, None, False, "look at all paths again at the end", MIGRATION,
           ineffective=NO_MIGRATION),

    Option("--config", "FILE", text, None, "TOML file with options of one share, named as here without the dashes; "
           "those of the command line count more", INFORMATION),
    Option("--print-capabilities", None, None, False, "print what callers such as libvirt want to know, and exit",
           INFORMATION),

    Option("--socket", "PATH", text, None, "the same as --socket-path", OLD, stands_for="--socket-path",
           advice="use --socket-path"),
    Option("-o", "OPTIONS", text, [], "options in the form of the first virtiofsd, such as source=DIR,cache=none",
           OLD, repeats=True, advice="use options of their own, as --cache for cache="),
    Option("-d", None, None, False, "the same as --log-level debug", OLD, advice="use --log-level debug"),
    Option("-f", None, None, False, "stay in the foreground, where the daemon always is", OLD,
           advice="it may be left out, since the daemon always stays in the foreground"),
)
BY_NAME = {option.name: option for option in OPTIONS}
