"""What host processes store in shared mappings, as docs/consistency.md has it."""

import mmap
import os
import time

import pytest

from tests.guests.support import Place

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]

TIMEOUT = 1.0  # seconds for which a guest may know attributes


def test_stores_of_the_host_are_seen_when_times_have_changed(place: Place) -> None:
    path = place.host() / "file"
    path.write_bytes(b"x" * mmap.PAGESIZE)
    os.sync()

    def seen() -> str:
        time.sleep(TIMEOUT + 0.1)
        return place.run("head -c 3 file")

    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        assert seen() == "xxx"
        mapping[0:1] = b"A"     # the page was clean: the host's kernel sets mtime
        assert [seen() for _ in range(3)] == ["Axx"] * 3
        before = path.stat().st_mtime_ns
        mapping[1:2] = b"B"     # it is not any more, unless the host has written it to its disk meanwhile
        expected = "Axx" if path.stat().st_mtime_ns == before else "ABx"
        assert seen() == expected
        mapping.flush()
        assert seen() == expected
        os.utime(path)
        assert seen() == "ABx"


def test_without_a_cache_stores_of_the_host_are_seen_at_once(place: Place) -> None:
    path = place.host("never") / "file"
    path.write_bytes(b"x" * mmap.PAGESIZE)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        for turn in range(3):
            mapping[turn:turn + 1] = b"A"
            assert place.run("head -c 3 file", "never") == "A" * (turn + 1) + "x" * (2 - turn)
