"""Ids: translations between guest and host (--translate-uid, --translate-gid), and what user namespaces map."""

from collections.abc import Sequence
from typing import NamedTuple

from virtiofsd._ring.settings import IdRange

Ranges = Sequence[tuple[int, int, int]]  # of a user namespace: inside, outside, count

IDS = 1 << 32  # the last one means no id


class Translation(NamedTuple):
    """One option: ranges for either direction."""

    text: str
    to_host: tuple[IdRange, ...]
    to_guest: tuple[IdRange, ...]


class IdMaps(NamedTuple):
    """All options together; ranges of one direction do not overlap."""

    to_host: tuple[IdRange, ...]
    to_guest: tuple[IdRange, ...]


def maps_root(uids: Ranges, gids: Ranges) -> bool:
    """Whether both have an id 0 inside; what --uid-map and --gid-map say."""
    return all(any(inside == 0 for inside, _, _ in ranges) for ranges in (uids, gids))


def has_outside(ranges: Ranges, number: int) -> bool:
    """Whether the id has one inside. Without any range only the daemon's own has."""
    return not ranges or any(outside <= number < outside + count for _, outside, count in ranges)


def numbers(words: list[str], what: str) -> list[int]:
    """The words as ids. ValueError; `what` says how it should look."""
    for word in words:
        if not word.isascii() or not word.isdigit():
            raise ValueError(f"{word!r} is not a number; it is {what}")
        if int(word) >= IDS:
            raise ValueError(f"{word} is not an id")
    return [int(word) for word in words]


def span(base: int, count: int) -> int:
    """The base of so many ids. ValueError where they go beyond the last."""
    if base + count > IDS - 1:
        raise ValueError(f"{count} ids from {base} go beyond {IDS - 2}")
    return base


def parse(text: str) -> Translation:
    """`guest|host|map|squash-guest|squash-host:SOURCE:TARGET:COUNT` or `forbid-guest:BASE:COUNT`. ValueError."""
    kind, *words = text.split(":")
    if kind == "forbid-guest":
        shape = "forbid-guest:BASE:COUNT"
        if len(words) != 2:
            raise ValueError(f"it is {shape}")
        base, count = numbers(words, shape)
        count = min(count, IDS - 1 - base)
        return Translation(text, (IdRange(span(base, count), None, count),) if count else (), ())
    if kind not in ("guest", "host", "map", "squash-guest", "squash-host"):
        raise ValueError(f"{kind!r} is none of guest, host, map, squash-guest, squash-host, forbid-guest")
    shape = f"{kind}:SOURCE:TARGET:COUNT"
    if len(words) != 3:
        raise ValueError(f"it is {shape}")
    source, target, count = numbers(words, shape)
    squash = kind.startswith("squash")
    span(source, count)
    span(target, 1 if squash else count)
    there = (IdRange(source, target, count, squash),) if count else ()
    back = (IdRange(target, source, count),) if count else ()
    if kind == "map":
        return Translation(text, there, back)
    return Translation(text, there, ()) if kind.endswith("guest") else Translation(text, (), there)


def combine(translations: list[Translation]) -> IdMaps:
    """All options together. ValueError where two of them speak of the same id."""
    maps = []
    for side in ("to_host", "to_guest"):
        ranges: list[tuple[IdRange, str]] = []
        for translation in translations:
            for new in getattr(translation, side):
                for known, text in ranges:
                    if new.source < known.source + known.size and known.source < new.source + new.size:
                        raise ValueError(f"{translation.text} and {text} speak of the same ids")
                ranges.append((new, translation.text))
        maps.append(tuple(found for found, _ in ranges))
    return IdMaps(*maps)
