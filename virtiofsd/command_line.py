"""From the words of a command line to the values of options, which are checked against each other."""

import argparse
import os
import re
from typing import Any, NoReturn

from virtiofsd import __version__, idmap
from virtiofsd.errors import OptionError, shown, suggestion
from virtiofsd.options import BY_NAME, GROUPS, INFORMATION, NOFILE_LEAST, OPTIONS, Option

SOCKET_PATH_MAX = 107  # bytes: sun_path, and its NUL
OPPOSITES = {option.opposite: option for option in OPTIONS if option.opposite}


# What argparse says of options, and what is said instead.
WORDINGS = (
    (r"argument (\S+): expected one argument", r"\1: its value is missing; one that begins with - is given as \1=-..."),
    (r"argument (\S+): ignored explicit argument .*", r"\1: it takes no value"),
)
UNKNOWN = "unrecognized arguments: "


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        for pattern, wording in WORDINGS:
            if match := re.fullmatch(pattern, message, re.DOTALL):
                raise OptionError(shown(match.expand(wording)))
        if message.startswith(UNKNOWN):
            words = message.removeprefix(UNKNOWN)
            message = f"there is no such option: {words}{suggestion(words, BY_NAME)}"
        raise OptionError(shown(message))


class Collect(argparse.Action):
    """Notes (option, word) in the order of the command line; the word of an option without one is None."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,  # noqa: ARG002
                 option_string: str | None = None) -> None:
        namespace.given.append((option_string, None if values == [] else values))


def help_of(option: Option) -> str:
    if option.ineffective:  # callers look here for what they may ask for
        return argparse.SUPPRESS
    default = f" [default: {option.default_text}]" if option.default_text else ""
    return (option.help + default).replace("%", "%%")


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="virtiofsd", allow_abbrev=False, add_help=False, usage="virtiofsd --shared-dir DIR "
                    "--socket-path PATH [OPTION ...]",
                    description="Shares a directory with a virtual machine: the back-end of a virtio-fs device.")
    groups = {name: parser.add_argument_group(name) for name in GROUPS}
    for option in OPTIONS:
        group = groups[option.group]
        if option.parse is None:
            group.add_argument(option.name, action=Collect, nargs=0, help=help_of(option))
        else:
            group.add_argument(option.name, action=Collect, metavar=option.metavar, help=help_of(option),
                               nargs=None if option.bare is None else "?", const=option.bare)
        if option.opposite:
            group.add_argument(option.opposite, action=Collect, nargs=0, help=f"take back {option.name}")
    groups[INFORMATION].add_argument("-h", "--help", action="store_true", help="print this help and exit")
    groups[INFORMATION].add_argument("-V", "--version", action="store_true", help="print the version and exit")
    return parser


def parse(words: list[str]) -> argparse.Namespace | str:
    """The options' values by their keys, or a text to print instead of starting. Raises OptionError, StartError.

    `notes` has what the user should hear once there is a log.
    """
    parser = make_parser()
    parsed = parser.parse_args(words, argparse.Namespace(given=[]))
    given: list[tuple[str, str | None]] = parsed.given
    if parsed.help:
        return parser.format_help()
    if parsed.version:
        return f"virtiofsd {__version__}\n"
    if ("--print-capabilities", None) in given:
        from virtiofsd import discovery

        return discovery.capabilities()
    values = argparse.Namespace(
        notes=[], **{option.key: list(option.default) if option.repeats else option.default for option in OPTIONS})
    for path in [word for name, word in given if name == "--config" and word][-1:]:
        from virtiofsd import config_file

        for name, word in config_file.read(path):
            try:
                take(values, name, word)
            except OptionError as error:
                raise OptionError(f"--config {shown(path)}: {error}") from None
    for name, word in given:
        take(values, name, word)
    if values.d:
        values.log_level = value_of(BY_NAME["--log-level"], "debug")
    for text in values.o:  # behind all others, wherever they stand, as the reference daemon has them
        from virtiofsd import old_options

        for key, value in old_options.parse(text):
            setattr(values, key, value)
    check(values)
    return values


def take(values: argparse.Namespace, name: str, word: str | None) -> None:
    """One option as it was given."""
    option = BY_NAME.get(name) or OPPOSITES[name]
    if option.ineffective:
        note(values, f"{name} has no effect: {option.ineffective}")
    if option.advice:
        note(values, f"{name} is deprecated: {option.advice}")
    target = BY_NAME[option.stands_for] if option.stands_for else option
    if word is None:
        setattr(values, target.key, name == option.name)
    elif option.repeats:
        getattr(values, target.key).append(value_of(option, word))
    else:
        setattr(values, target.key, value_of(option, word))


def note(values: argparse.Namespace, text: str) -> None:
    if text not in values.notes:
        values.notes.append(text)


def value_of(option: Option, word: str) -> Any:
    assert option.parse is not None
    try:
        return option.parse(word)
    except ValueError as error:
        raise OptionError(f"{option.name} {shown(word)}: {error}") from None


def check(values: argparse.Namespace) -> None:
    """What concerns more than one option, or the machine."""
    check_socket(values)
    if values.shared_dir is None:
        raise OptionError("--shared-dir is needed")
    if values.rlimit_nofile is not None and 0 < values.rlimit_nofile < NOFILE_LEAST:
        raise OptionError(f"--rlimit-nofile {values.rlimit_nofile}: fewer than {NOFILE_LEAST} serve no guest")
    if (values.uid_map or values.gid_map) and values.sandbox != "namespace":
        raise OptionError(f"--uid-map and --gid-map need --sandbox namespace, not {values.sandbox}")
    if os.geteuid() and not idmap.maps_root(values.uid_map, values.gid_map) and not (
            idmap.has_outside(values.uid_map, os.geteuid()) and idmap.has_outside(values.gid_map, os.getegid())):
        raise OptionError("--uid-map and --gid-map: both must have an id 0 inside, or both have outside those of who "
                          f"starts the daemon ({os.geteuid()} and {os.getegid()})")
    if values.modcaps:
        from virtiofsd import capabilities

        try:
            capabilities.kept(values.modcaps, values.inode_file_handles)
        except ValueError as error:
            raise OptionError(f"--modcaps: {error}") from None
    for name in ("translate_uid", "translate_gid"):
        try:
            idmap.combine(getattr(values, name))
        except ValueError as error:
            raise OptionError(f"--{name.replace('_', '-')}: {error}") from None
    if (values.translate_uid or values.translate_gid) and values.posix_acl != "never":
        raise OptionError("--posix-acl and --translate-uid or --translate-gid exclude each other: ids in ACLs would "
                          "not be translated")
    if values.override_stat and values.posix_acl != "never":
        raise OptionError("--override-stat and --posix-acl exclude each other: the modes that are kept would not "
                          "follow ACLs")
    if values.override_stat and (values.translate_uid or values.translate_gid):
        raise OptionError("--override-stat and --translate-uid or --translate-gid exclude each other")
    if values.writeback and values.cache in ("never", "metadata"):
        note(values, f"--writeback has no effect with --cache {values.cache}: there is no cache to write back")
        values.writeback = False


def check_socket(values: argparse.Namespace) -> None:
    """Where to listen; a socket that a service manager hands over is taken where nothing else is said."""
    if values.socket_path is None and values.fd is None:
        from virtiofsd import service_manager

        try:
            values.fd = service_manager.socket_handed_over()
        except ValueError as error:
            raise OptionError(str(error)) from None
    if (values.socket_path is None) == (values.fd is None):
        raise OptionError("one of --socket-path and --fd is needed" if values.fd is None
                          else "--socket-path and --fd exclude each other")
    path = values.socket_path
    if path is not None and len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise OptionError(f"--socket-path {shown(path)}: a socket's path has {SOCKET_PATH_MAX} bytes at most")
    if values.socket_group is not None and path is None:
        raise OptionError("--socket-group is for a socket that --socket-path makes")
