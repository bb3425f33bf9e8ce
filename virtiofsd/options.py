"""The one table of options: parsing, help and checks come from it."""

import argparse
import os
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from virtiofsd import __version__
from virtiofsd.log import LEVELS
from virtiofsd.virtio_abi import VIRTIO_FS_TAG_SIZE

VRINGS_MAX = 256  # a vring's index has 8 bits
NOFILE_LEAST = 256  # file descriptors: with fewer no guest can do anything
SOCKET_PATH_MAX = 107  # bytes: sun_path, and its NUL


class OptionError(Exception):
    """A user's mistake on the command line: one line that names the option and the value."""


class StartError(Exception):
    """Why the daemon cannot start, though its command line makes sense: one line."""


def reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)


def shown(word: str) -> str:
    """A word of the user's as one line can show it."""
    return word if word.isprintable() and word else repr(word)


class Option(NamedTuple):
    """A row: `parse` turns the word into the value and raises ValueError with the reason; None: it takes no word."""

    name: str
    metavar: str | None
    parse: Callable[[str], Any] | None
    default: Any
    help: str


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
    if not 0 < value < 1e9:
        raise ValueError("it is not a time that can be waited for")
    return value


def choice(*words: str) -> Callable[[str], str]:
    def parse(word: str) -> str:
        if word not in words:
            raise ValueError(f"it is one of {', '.join(words)}")
        return word

    return parse


def sandbox(word: str) -> str:
    if word in ("namespace", "chroot"):
        raise ValueError("this version has no sandbox yet, only none")
    return choice("none")(word)


OPTIONS = (
    Option("--socket-path", "PATH", text, None, "UNIX socket to listen on for the vhost-user front-end (the VMM)"),
    Option("--fd", "FD", number(0, 1 << 30), None, "listening socket that was opened by who starts the daemon"),
    Option("--shared-dir", "DIR", text, None, "directory to share"),
    Option("--tag", "TAG", tag, None,
           "name by which guests mount the share, for front-ends that ask the daemon for it (User-Mode Linux, crosvm); "
           "QEMU and Cloud Hypervisor have an option of their own, and QEMU before 8.1 cannot stand this one"),
    Option("--sandbox", "MODE", sandbox, "none", "isolation of the daemon: none"),
    Option("--num-request-queues", "N", number(1, VRINGS_MAX - 1), None,
           "most request queues that a front-end may use (default: as many as it likes, up to 255, and crosvm then makes "
           "them all), and the number that a guest is told where the front-end leaves that to the daemon (default: the "
           "host's CPUs)"),
    Option("--readonly", None, None, False, "refuse every change of the share with EROFS"),
    Option("--rlimit-nofile", "N", number(0, 1 << 30), None,
           "most file descriptors of the daemon, from 256 (default: 1000000 or what the system allows, 0: leave the "
           "limit as it is)"),
    Option("--drain-timeout", "SECONDS", seconds, 60.0,
           "how long a stop of the device waits for requests that hang in the host's file system, before the "
           "connection is closed (default: 60)"),
    Option("--log-level", "LEVEL", choice(*LEVELS), "info", f"{', '.join(LEVELS)} (default: info)"),
)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OptionError(shown(message))


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="virtiofsd", allow_abbrev=False, add_help=False,
                    description="Shares a directory with a virtual machine: the back-end of a virtio-fs device.")
    for option in OPTIONS:
        if option.parse is None:
            parser.add_argument(option.name, action="store_true", help=option.help)
        else:
            parser.add_argument(option.name, metavar=option.metavar, help=option.help.replace("%", "%%"))
    parser.add_argument("-h", "--help", action="store_true", help="print this help and exit")
    parser.add_argument("-V", "--version", action="store_true", help="print the version and exit")
    return parser


def parse(words: list[str]) -> argparse.Namespace | str:
    """The options' values by their names, or a text to print instead of starting. Raises OptionError."""
    parser = make_parser()
    given = parser.parse_args(words)
    if given.help:
        return parser.format_help()
    if given.version:
        return f"virtiofsd {__version__}\n"
    values = argparse.Namespace()
    for option in OPTIONS:
        name = option.name[2:].replace("-", "_")
        word = getattr(given, name)
        if word is None or word is False:
            value = option.default
        elif option.parse is None:
            value = True
        else:
            try:
                value = option.parse(word)
            except ValueError as error:
                raise OptionError(f"{option.name} {shown(word)}: {error}") from None
        setattr(values, name, value)
    check(values)
    return values


def check(values: argparse.Namespace) -> None:
    """What concerns more than one option, or the machine."""
    if (values.socket_path is None) == (values.fd is None):
        raise OptionError("one of --socket-path and --fd is needed" if values.fd is None
                          else "--socket-path and --fd exclude each other")
    if values.shared_dir is None:
        raise OptionError("--shared-dir is needed")
    if values.rlimit_nofile is not None and 0 < values.rlimit_nofile < NOFILE_LEAST:
        raise OptionError(f"--rlimit-nofile {values.rlimit_nofile}: fewer than {NOFILE_LEAST} serve no guest")
    path = values.socket_path
    if path is not None and len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise OptionError(f"--socket-path {shown(path)}: a socket's path has {SOCKET_PATH_MAX} bytes at most")
