"""The one table of options: parsing, help and checks come from it."""

import argparse
import os
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from virtiofsd import __version__, idmap
from virtiofsd.errors import OptionError, shown
from virtiofsd.log import LEVELS
from virtiofsd.virtio_abi import VIRTIO_FS_TAG_SIZE

VRINGS_MAX = 256  # a vring's index has 8 bits
NOFILE_LEAST = 256  # file descriptors: with fewer no guest can do anything
SOCKET_PATH_MAX = 107  # bytes: sun_path, and its NUL


class Option(NamedTuple):
    """A row: `parse` turns the word into the value and raises ValueError with the reason; None: it takes no word.

    `bare` is the value of an option whose word may be left out (it then needs `=`); `repeats` collects the values of an
    option that is given several times, of which else the last one counts; `opposite` is the name that takes it back.
    """

    name: str
    metavar: str | None
    parse: Callable[[str], Any] | None
    default: Any
    help: str
    bare: Any = None
    repeats: bool = False
    opposite: str | None = None

    @property
    def key(self) -> str:
        return self.name[2:].replace("-", "_")


def text(word: str) -> str:
    if not word:
        raise ValueError("it is empty")
    return word


def tag(word: str) -> str:
    try:
        size = len(word.encode())
    except UnicodeEncodeError:
        raise ValueError("a tag is UTF-8") from None
    if not 1 <= size <= VIRTIO_FS_TAG_SIZE:
        raise ValueError(f"a tag has 1 to {VIRTIO_FS_TAG_SIZE} bytes, not {size}")
    if "\n" in word or "\0" in word:
        raise ValueError("a tag has no newline and no NUL, or no guest can mount it")
    return word


def number(low: int, high: int) -> Callable[[str], int]:
    def parse(word: str) -> int:
        if not word.isascii() or not word.isdigit():
            raise ValueError("it is not a number")
        if not low <= int(word) <= high:
            raise ValueError(f"it is not between {low} and {high}")
        return int(word)

    return parse


def seconds(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise ValueError("it is not a number of seconds") from None
    if not 0 <= value < 1e9:
        raise ValueError("it is not a time that can be waited for")
    return value


def some_seconds(word: str) -> float:
    value = seconds(word)
    if not value:
        raise ValueError("it is no time at all")
    return value


def poll_time(word: str) -> int | None:
    return None if word == "auto" else number(0, 10_000)(word)


class Choice:
    """One of these words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, word: str) -> str:
        if word not in self.words:
            raise ValueError(f"it is one of {', '.join(self.words)}")
        return word


def xattrmap(word: str) -> Any:
    from virtiofsd import xattrmap as language

    return language.parse(word)


def translation(word: str) -> Any:
    return idmap.parse(word)


def id_range(word: str) -> tuple[int, int, int]:
    """`:inside:outside:count:`, with any separator."""
    fields = word[1:].split(word[0]) if word else []
    if len(fields) != 4 or fields[3] or not all(field.isascii() and field.isdigit() for field in fields[:3]):
        raise ValueError("it is :INSIDE:OUTSIDE:COUNT:, in numbers")
    inside, outside, count = (int(field) for field in fields[:3])
    if not count or max(inside, outside) + count > (1 << 32) - 1:
        raise ValueError("it goes beyond the last id" if count else "it has no ids")
    return inside, outside, count


def modcaps(word: str) -> Any:
    from virtiofsd import capabilities

    return capabilities.parse_changes(word)


WANTED = Choice("never", "auto", "always")

OPTIONS = (
    Option("--socket-path", "PATH", text, None, "UNIX socket to listen on for the vhost-user front-end (the VMM)"),
    Option("--fd", "FD", number(0, 1 << 30), None, "listening socket that was opened by who starts the daemon"),
    Option("--shared-dir", "DIR", text, None, "directory to share"),
    Option("--tag", "TAG", tag, None,
           "name by which guests mount the share, for front-ends that ask the daemon for it (User-Mode Linux, crosvm); "
           "QEMU and Cloud Hypervisor have an option of their own, and QEMU before 8.1 cannot stand this one"),
    Option("--sandbox", "MODE", Choice("namespace", "chroot", "none"), "namespace",
           "isolation of the daemon: namespace (default), with only the shared directory in its file system, no "
           "network and no other process; chroot; none"),
    Option("--seccomp", "ACTION", Choice("kill", "trap", "log", "none"), "kill",
           "what happens at a system call that the daemon should never make: kill (default), trap, log, or none"),
    Option("--modcaps", "CHANGES", modcaps, (), "capabilities that the daemon keeps besides the usual ones, or not: "
           "+sys_admin:-chown"),
    Option("--uid-map", "RANGE", id_range, [], "user ids of the user namespace that a daemon without privileges makes: "
           ":INSIDE:OUTSIDE:COUNT:; may be repeated (default: only its own)", repeats=True),
    Option("--gid-map", "RANGE", id_range, [], "the same for group ids", repeats=True),
    Option("--num-request-queues", "N", number(1, VRINGS_MAX - 1), None,
           "most request queues that a front-end may use (default: as many as it likes, up to 255; crosvm makes them "
           "all), and the number that a guest is told where the front-end leaves that to the daemon (default: the "
           "host's CPUs)"),
    Option("--readonly", None, None, False, "refuse every change of the share with EROFS"),
    Option("--cache", "POLICY", Choice("never", "metadata", "auto", "always"), "auto",
           "what guests may cache: never anything; metadata, with every read and write going to the host; auto "
           "(default), for a second, and data over an open where the file has not changed; always, for shares that "
           "nobody else changes"),
    Option("--entry-timeout", "SECONDS", seconds, None, "how long a guest may know a name (default: by --cache, 0, 1 "
           "or 86400)"),
    Option("--attr-timeout", "SECONDS", seconds, None, "how long a guest may know attributes (default: by --cache); 0 "
           "makes close-to-open consistency exact"),
    Option("--negative-timeout", "SECONDS", seconds, None, "how long a guest may know that a name does not exist "
           "(default: by --cache)"),
    Option("--writeback", None, None, False, "let guests delay writes in their page cache; for shares that nobody else "
           "changes"),
    Option("--allow-direct-io", None, None, False, "pass O_DIRECT of guests on to the host"),
    Option("--allow-mmap", None, None, False, "allow shared mappings with --cache never and metadata"),
    Option("--no-readdirplus", None, None, False, "no attributes with directory entries"),
    Option("--announce-submounts", None, None, True, "tell guests which directories are mount points (default)",
           opposite="--no-announce-submounts"),
    Option("--inode-file-handles", "WHEN", Choice("never", "prefer", "mandatory", "fallback"), "prefer",
           "find files again by file handle when their descriptor was closed: never (by name), prefer (default), "
           "mandatory; fallback is an old word for prefer"),
    Option("--xattr", None, None, False, "extended attributes"),
    Option("--xattrmap", "RULES", xattrmap, (), "rules for the names of extended attributes (implies --xattr), such as "
           ":map::user.virtiofs.:"),
    Option("--posix-acl", "WANTED", WANTED, "never", "POSIX ACLs (implies --xattr): never (default), auto, where the "
           "guest has them, or always, else no guest", bare="always"),
    Option("--security-label", "WANTED", WANTED, "never", "security labels of new files (implies --xattr): never "
           "(default), auto or always", bare="always"),
    Option("--killpriv-v2", None, None, True, "clear set-id bits when the guest asks for it (default)",
           opposite="--no-killpriv-v2"),
    Option("--idmapped-mounts", None, None, True, "let guests make idmapped mounts of the share (default). They do "
           "not say then who asks for what is no creation: fallocate clears set-id bits for root, too, and fs-verity "
           "is only for files that nobody but their owner may read", opposite="--no-idmapped-mounts"),
    Option("--posix-lock", None, None, False, "POSIX locks reach the host, and exclude other guests and host "
           "processes"),
    Option("--flock", None, None, False, "BSD locks reach the host"),
    Option("--max-blocked-locks", "N", number(1, 1 << 20), 1024, "how many requests may wait for a lock; more get "
           "ENOLCK (default: 1024)"),
    Option("--preserve-noatime", None, None, False, "pass O_NOATIME of guests on to the host"),
    Option("--translate-uid", "RANGE", translation, [], "translate user ids between guest and host: "
           "guest|host|map|squash-guest|squash-host:SOURCE:TARGET:COUNT or forbid-guest:BASE:COUNT; may be repeated",
           repeats=True),
    Option("--translate-gid", "RANGE", translation, [], "the same for group ids", repeats=True),
    Option("--override-stat", None, None, False, "fake root: keep owners, modes and device nodes of guests in the "
           "extended attribute user.containers.override_stat, for a daemon that may not set the real ones"),
    Option("--thread-pool-size", "N", number(0, 4096), 0, "most threads for requests that sleep (default: 0, as many "
           "as are needed, up to 64; fewer than 4 become 4, lest small requests wait for slow ones)"),
    Option("--poll-us", "N", poll_time, None, "how many microseconds a thread looks for new requests at most before it "
           "sleeps: 0 for not at all, or auto (default), for up to 50 where that pays and there are CPUs to spare"),
    Option("--max-requests", "N", number(64, 1 << 20), 16384, "most requests in flight; more wait in their queues "
           "(default: 16384)"),
    Option("--rlimit-nofile", "N", number(0, 1 << 30), None,
           "most file descriptors of the daemon, from 256 (default: 1000000 or what the system allows, 0: leave the "
           "limit as it is)"),
    Option("--drain-timeout", "SECONDS", some_seconds, 60.0,
           "how long a stop of the device waits for requests that hang in the host's file system, before the "
           "connection is closed (default: 60)"),
    Option("--log-level", "LEVEL", Choice(*LEVELS), "info", f"{', '.join(LEVELS)} (default: info)"),
)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OptionError(shown(message))


class Collect(argparse.Action):
    """Notes (option, word) in the order of the command line; the word of an option without one is None."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,  # noqa: ARG002
                 option_string: str | None = None) -> None:
        namespace.given.append((option_string, None if values == [] else values))


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="virtiofsd", allow_abbrev=False, add_help=False,
                    description="Shares a directory with a virtual machine: the back-end of a virtio-fs device.")
    for option in OPTIONS:
        text_of_help = option.help.replace("%", "%%")
        if option.parse is None:
            parser.add_argument(option.name, action=Collect, nargs=0, help=text_of_help)
        else:
            parser.add_argument(option.name, action=Collect, metavar=option.metavar, help=text_of_help)
        if option.opposite:
            parser.add_argument(option.opposite, action=Collect, nargs=0, help=f"take back {option.name}")
    parser.add_argument("-h", "--help", action="store_true", help="print this help and exit")
    parser.add_argument("-V", "--version", action="store_true", help="print the version and exit")
    return parser


def parse(words: list[str]) -> argparse.Namespace | str:
    """The options' values by their names, or a text to print instead of starting. Raises OptionError."""
    parser = make_parser()
    bare = {option.name: f"{option.name}={option.bare}" for option in OPTIONS if option.bare is not None}
    given = parser.parse_args([bare.get(word, word) for word in words], argparse.Namespace(given=[]))
    if given.help:
        return parser.format_help()
    if given.version:
        return f"virtiofsd {__version__}\n"
    values = argparse.Namespace(
        **{option.key: list(option.default) if option.repeats else option.default for option in OPTIONS})
    by_name = {option.name: option for option in OPTIONS}
    opposites = {option.opposite: option for option in OPTIONS if option.opposite}
    for name, word in given.given:
        option = by_name.get(name) or opposites[name]
        if option.repeats:
            getattr(values, option.key).append(value_of(option, word))
        else:
            setattr(values, option.key, name == option.name if option.parse is None else value_of(option, word))
    check(values)
    return values


def value_of(option: Option, word: str) -> Any:
    assert option.parse is not None
    try:
        return option.parse(word)
    except ValueError as error:
        raise OptionError(f"{option.name} {shown(word)}: {error}") from None


def check(values: argparse.Namespace) -> None:
    """What concerns more than one option, or the machine."""
    if (values.socket_path is None) == (values.fd is None):
        raise OptionError("one of --socket-path and --fd is needed" if values.fd is None
                          else "--socket-path and --fd exclude each other")
    if values.shared_dir is None:
        raise OptionError("--shared-dir is needed")
    if values.rlimit_nofile is not None and 0 < values.rlimit_nofile < NOFILE_LEAST:
        raise OptionError(f"--rlimit-nofile {values.rlimit_nofile}: fewer than {NOFILE_LEAST} serve no guest")
    if values.inode_file_handles == "fallback":
        values.inode_file_handles = "prefer"
    if (values.uid_map or values.gid_map) and values.sandbox != "namespace":
        raise OptionError(f"--uid-map and --gid-map need --sandbox namespace, not {values.sandbox}")
    for name in ("translate_uid", "translate_gid"):
        try:
            idmap.combine(getattr(values, name))
        except ValueError as error:
            raise OptionError(f"--{name.replace('_', '-')}: {error}") from None
    if (values.translate_uid or values.translate_gid) and values.posix_acl != "never":
        raise OptionError("--posix-acl and --translate-uid or --translate-gid exclude each other: ids in ACLs would "
                          "not be translated")
    if values.override_stat and (values.translate_uid or values.translate_gid):
        raise OptionError("--override-stat and --translate-uid or --translate-gid exclude each other")
    if values.writeback and values.cache in ("never", "metadata"):
        raise OptionError(f"--writeback and --cache {values.cache} exclude each other: there is no cache to write back")
    path = values.socket_path
    if path is not None and len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise OptionError(f"--socket-path {shown(path)}: a socket's path has {SOCKET_PATH_MAX} bytes at most")
