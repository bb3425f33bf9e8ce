"""System calls of the bare host: the words of the programs that bench/host.pyx runs."""

import os
import stat
from enum import IntEnum
from typing import NamedTuple

AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR = 0x1000, 0x100, 0x200
OPENED = -1         # instead of a descriptor: what the last OPEN gave


class Kind(IntEnum):
    """In the order of bench/host.pyx."""

    STAT = 0
    OPEN = 1
    CLOSE = 2
    READ = 3
    WRITE = 4
    LIST = 5
    LIST_STAT = 6
    MKDIR = 7
    UNLINK = 8
    CHMOD = 9
    TIMES = 10


class Call(NamedTuple):
    """One system call. `size` bytes are moved, or so many entries listed; `error` is the errno that it must give."""

    kind: Kind
    fd: int = OPENED
    name: str = ""
    size: int = 0
    offset: int = 0
    flags: int = 0
    error: int = 0


def stat_fd(fd: int) -> Call:
    return Call(Kind.STAT, fd, flags=AT_EMPTY_PATH)


def stat_name(folder: int, name: str, error: int = 0) -> Call:
    return Call(Kind.STAT, folder, name, flags=AT_SYMLINK_NOFOLLOW, error=error)


def open_file(folder: int, name: str, flags: int = os.O_RDONLY) -> Call:
    return Call(Kind.OPEN, folder, name, flags=flags | os.O_NOFOLLOW)


def close_file() -> Call:
    return Call(Kind.CLOSE)


def list_folder(folder: int, entries: int, with_attributes: bool) -> list[Call]:
    kind = Kind.LIST_STAT if with_attributes else Kind.LIST
    return [Call(Kind.OPEN, folder, ".", flags=os.O_RDONLY | os.O_DIRECTORY), Call(kind, size=entries), close_file()]


def change_mode(folder: int, name: str, mode: int) -> Call:
    return Call(Kind.CHMOD, folder, name, flags=stat.S_IMODE(mode))
