"""What the words of options mean: each function takes one and returns a value, or raises ValueError with the reason."""

from collections.abc import Callable
from typing import Any

from virtiofsd import idmap
from virtiofsd.log import LEVELS, LOGGERS, ROOT
from virtiofsd.virtio_abi import VIRTIO_FS_TAG_SIZE


def text(word: str) -> str:
    """Any word that can be handed to the kernel."""
    if not word:
        raise ValueError("it is empty")
    if "\0" in word:
        raise ValueError("it has a NUL in it")
    return word


def tag(word: str) -> str:
    """A name to mount by (virtio 1.3, 5.11.4)."""
    try:
        size = len(word.encode())
    except UnicodeEncodeError:
        raise ValueError("a tag is UTF-8") from None
    if not 1 <= size <= VIRTIO_FS_TAG_SIZE:
        raise ValueError(f"a tag has 1 to {VIRTIO_FS_TAG_SIZE} bytes, not {size}")
    if "\n" in word or "\0" in word:
        raise ValueError("a tag has no newline and no NUL, or no guest can mount it")
    return word


def is_whole(word: str) -> bool:
    """Whether it is a number in plain digits."""
    return word.isascii() and word.isdigit()


def number(low: int, high: int) -> Callable[[str], int]:
    """Whole numbers from `low` to `high`."""

    def parse(word: str) -> int:
        if not is_whole(word):
            raise ValueError(f"it is not a whole number from {low} on")
        if not low <= int(word) <= high:
            raise ValueError(f"it is not between {low} and {high}")
        return int(word)

    return parse


def seconds(word: str) -> float:
    """A time, which may be 0."""
    try:
        value = float(word)
    except ValueError:
        raise ValueError("it is not a number of seconds") from None
    if not 0 <= value < 1e9:
        raise ValueError("it is not a time that can be waited for")
    return value


def some_seconds(word: str) -> float:
    """A time of more than 0."""
    value = seconds(word)
    if not value:
        raise ValueError("it is no time at all")
    return value


def poll_time(word: str) -> int | None:
    """Microseconds; None: as the daemon likes."""
    if word == "auto":
        return None
    if not is_whole(word):
        raise ValueError("it is neither auto nor a whole number")
    return number(0, 10_000)(word)


class Choice:
    """One of these words, in any case; `others` are old names of some of them."""

    def __init__(self, *words: str, **others: str) -> None:
        self.words, self.others = words, others

    def __call__(self, word: str) -> str:
        found = self.others.get(word.lower(), word.lower())
        if found not in self.words:
            raise ValueError(f"it is one of {', '.join(self.words)}")
        return found


def xattrmap(word: str) -> Any:
    """Rules for names of extended attributes."""
    from virtiofsd import xattrmap as language

    return language.parse(word)


def translation(word: str) -> Any:
    """A rule for user or group ids."""
    return idmap.parse(word)


def id_range(word: str) -> tuple[int, int, int]:
    """`:inside:outside:count:`, with any separator."""
    fields = word[1:].split(word[0]) if word else []
    if len(fields) != 4 or fields[3] or not all(map(is_whole, fields[:3])):
        raise ValueError("it is :INSIDE:OUTSIDE:COUNT:, in numbers")
    inside, outside, count = (int(field) for field in fields[:3])
    if not count or max(inside, outside) + count > (1 << 32) - 1:
        raise ValueError("it goes beyond the last id" if count else "it has no ids")
    return inside, outside, count


def modcaps(word: str) -> Any:
    """Changes to the capabilities that are kept, as (name, added)."""
    from virtiofsd import capabilities

    return capabilities.parse_changes(word)


class LogLevels:
    """`LEVEL`, or `LEVEL,MODULE=LEVEL,...`: the level of all, and of single modules, by their loggers' names."""

    def __call__(self, word: str) -> tuple[tuple[str, str], ...]:
        level = Choice(*LEVELS)
        first, *rest = word.split(",")
        levels = [(ROOT, level(first))]
        for entry in rest:
            module, found, name = entry.partition("=")
            if not found:
                raise ValueError(f"{entry!r} is not MODULE=LEVEL")
            if module not in LOGGERS:
                raise ValueError(f"{module!r} is none of {', '.join(LOGGERS)}")
            levels.append((module, level(name)))
        return tuple(levels)
