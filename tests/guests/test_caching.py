"""What guests may cache: changes of the host are seen when the share's options say so, and never later."""

import os
import pathlib
import subprocess
import time

import pytest

from tests.guests.support import Place, children

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]

TIMEOUT = 1.0  # seconds for which a guest may know things, unless options say otherwise


def replace(path: pathlib.Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.rename(path)


# The usual policy

def test_changes_of_the_host_are_seen_within_the_timeout(place: Place) -> None:
    host = place.host()
    (host / "file").write_text("old")
    (host / "replaced").write_text("old")
    (host / "removed").touch()
    assert place.run("cat file replaced removed; ls missing 2>/dev/null || true") == "oldold"
    (host / "file").write_text("new text")
    replace(host / "replaced", "other")
    (host / "removed").unlink()
    (host / "missing").write_text("here")
    time.sleep(TIMEOUT + 0.1)
    assert place.run("cat file replaced missing; ls") == "new textotherherefile\nmissing\nreplaced\n"


def test_an_open_that_finds_the_file_unchanged_keeps_its_pages(place: Place) -> None:
    (place.host() / "file").write_bytes(os.urandom(1 << 20))
    place.run("cat file >/dev/null; sleep 1.5; cat file >/dev/null")  # a change just before would count as one later
    session = place.session()
    session.do("file = os.open('file', os.O_RDONLY)")
    cached = session.do("linux.resident(file, 1 << 20)")
    assert cached == 256, f"{cached} of 256 pages are in the guest's cache after an open"
    with (place.host() / "file").open("r+b") as file:
        file.write(b"changed")
    time.sleep(TIMEOUT + 0.1)
    assert place.run("head -c 7 file") == "changed"


def test_a_file_that_a_guest_takes_for_new_is_opened_for_those_alone_who_may(place: Place) -> None:
    """It knows that the names are free, and goes by that for a while; the host has made the files meanwhile."""
    host = place.host("metadata")
    session = place.session("metadata")
    session.do("os.chmod('.', 0o777)")
    for name, mode in (("secret", 0o600), ("public", 0o666)):
        assert session.do(f"os.stat({name!r})") == "ENOENT"
        (host / name).write_text("text")
        (host / name).chmod(mode)
    session.do("def content(path, user):\n os.setegid(user)\n os.seteuid(user)\n try:\n"
               "  return os.pread(os.open(path, os.O_RDWR | os.O_CREAT), 10, 0)\n"
               " finally:\n  os.seteuid(0)\n  os.setegid(0)")
    assert session.do("content('secret', 1000)") == "EACCES"
    assert session.do("content('public', 1000)") == b"text"
    assert session.do("content('secret', 0)") == b"text"


# Exact close-to-open

def test_without_timeouts_every_open_sees_the_last_close(place: Place) -> None:
    host = place.host("exact")
    session = place.session("exact")
    session.do("def content():\n with open('file', 'rb') as file:\n  return file.read()")
    for turn in range(12):
        text = b"%d" % (turn % 10)  # of one size, and often within one tick of the host's clock
        (host / "file").write_bytes(text)
        assert session.do("content()") == text, f"turn {turn}"
    for turn in range(5):
        replace(host / "file", f"replaced {turn}")
        assert session.do("content()") == f"replaced {turn}".encode()
    (host / "file").unlink()
    assert session.do("content()") == "ENOENT"
    (host / "file").write_text("again")
    assert session.do("content()") == b"again"


def test_without_timeouts_attributes_are_of_now(place: Place) -> None:
    host = place.host("exact")
    (host / "file").write_text("x")
    session = place.session("exact")
    for turn in range(1, 6):
        os.truncate(host / "file", turn * 100)
        (host / "file").chmod(0o600 + turn)
        assert session.do("(os.stat('file').st_size, os.stat('file').st_mode & 0o777)") == (turn * 100, 0o600 + turn)


# No cache

@pytest.mark.parametrize("tag", ["never", "never-mmap"])
def test_without_a_cache_an_open_file_is_the_hosts(place: Place, tag: str) -> None:
    host = place.host(tag)
    (host / "file").write_text("old text")
    session = place.session(tag)
    session.do("file = os.open('file', os.O_RDWR)")
    assert session.do("os.pread(file, 100, 0)") == b"old text"
    (host / "file").write_text("new")
    assert session.do("os.pread(file, 100, 0)") == b"new"
    assert session.do("os.fstat(file).st_size") == 3
    session.do("os.pwrite(file, b'guest', 3)")
    assert (host / "file").read_text() == "newguest"
    with (host / "file").open("a") as file:
        file.write(" and host")
    assert session.do("os.pread(file, 100, 0)") == b"newguest and host"
    (host / "another").touch()
    assert session.do("sorted(os.listdir())") == ["another", "file"]
    (host / "another").unlink()
    assert session.do("os.stat('another')") == "ENOENT"


def test_without_a_cache_a_shared_mapping_needs_an_option(place: Place) -> None:
    for tag in ("never", "never-mmap", "metadata"):
        (place.host(tag) / "file").write_bytes(b"x" * 8192)
    program = ("import mmap\nwith open('file', 'r+b') as file:\n with mmap.mmap(file.fileno(), 8192) as mapping:\n"
               "  mapping[4096:4100] = b'text'\n")
    for tag in ("never", "metadata"):
        assert "No such device" in place.fails(f'python3 -c "{program}"', tag)
    place.python(program, "never-mmap")
    assert (place.host("never-mmap") / "file").read_bytes() == b"x" * 4096 + b"text" + b"x" * 4092


# Some things cached, and everything

def test_with_metadata_alone_contents_are_the_hosts(place: Place) -> None:
    host = place.host("metadata")
    (host / "file").write_text("old text")
    session = place.session("metadata")
    session.do("file = os.open('file', os.O_RDWR)")
    assert session.do("os.pread(file, 100, 0)") == b"old text"
    with (host / "file").open("r+") as file:
        file.write("NEW")
    assert session.do("os.pread(file, 100, 0)") == b"NEW text"
    mode = session.do("os.stat('file').st_mode")
    os.chmod(host / "file", 0o604)
    time.sleep(TIMEOUT + 0.1)
    assert session.do("os.stat('file').st_mode") == mode
    session.do("os.pwrite(file, b'guest', 0)")
    assert (host / "file").read_text() == "guestext"


def test_with_everything_cached_nothing_is_asked_twice(place: Place) -> None:
    host = place.host("always")
    (host / "file").write_text("old text")
    session = place.session("always")
    for _ in range(2):  # a listing that came from the host makes the guest ask for the folder's attributes once more
        assert session.do("(os.listdir(), open('file').read(), os.stat('file').st_size)") == (["file"], "old text", 8)
    with (host / "file").open("r+") as file:
        file.write("NEW")
    (host / "another").touch()
    time.sleep(TIMEOUT + 0.1)
    assert session.do("(os.listdir(), open('file').read())") == (["file"], "old text")
    # What the guest itself changes it sees of course.
    session.do("open('file', 'r+').write('guest')")
    assert session.do("open('file').read()") == "guestext"
    assert (host / "file").read_text() == "guestext"


# Writes that are delayed

def test_delayed_writes_are_at_the_host_after_fsync_and_close(place: Place) -> None:
    host = place.host("writeback")
    session = place.session("writeback")
    session.do("file = os.open('file', os.O_RDWR | os.O_CREAT)")
    session.do("for number in range(1000): os.write(file, b'%07d\\n' % number)")
    expected = b"".join(b"%07d\n" % number for number in range(1000))
    session.do("os.fsync(file)")
    assert (host / "file").read_bytes() == expected
    session.do("os.pwrite(file, b'X', 4000)")
    assert session.do("os.pread(file, 3, 3999)") == b"\nX0"
    session.do("os.close(file)")
    assert (host / "file").read_bytes() == expected[:4000] + b"X" + expected[4001:]
    assert session.do("os.stat('file').st_size") == 8000


def test_delayed_writes_need_no_right_to_read(place: Place) -> None:
    host = place.host("writeback")
    (host / "log").write_bytes(b"x" * 5000)
    (host / "log").chmod(0o222)
    host.chmod(0o777)
    place.python("""
        import os
        from pathlib import Path
        os.setgid(12345)
        os.setuid(12345)
        file = os.open("log", os.O_WRONLY)
        os.pwrite(file, b"part of a page", 100)
        os.close(file)
        file = os.open("log", os.O_WRONLY | os.O_APPEND)
        os.write(file, b"the end")
        os.close(file)
    """, "writeback")
    assert (host / "log").read_bytes() == b"x" * 100 + b"part of a page" + b"x" * 4886 + b"the end"


def test_delayed_writes_come_through_mappings_truncation_and_removal(place: Place) -> None:
    host = place.host("writeback")
    place.python("""
        import mmap, os
        with open("file", "w+b") as file:
            file.write(b"x" * 100_000)
            file.flush()
            with mmap.mmap(file.fileno(), 100_000) as mapping:
                mapping[50_000:50_004] = b"text"
                os.ftruncate(file.fileno(), 60_000)
        with open("gone", "wb") as file:
            file.write(b"y" * 1_000_000)
            file.flush()
            os.unlink("gone")
        os.utime("file", (1, 2))
        os.sync()
    """, "writeback")
    assert (host / "file").read_bytes() == b"x" * 50_000 + b"text" + b"x" * 9_996
    assert (host / "file").stat().st_mtime == 2
    assert os.listdir(host) == ["file"]


# Direct I/O

@pytest.mark.parametrize(("tag", "reaches_the_host"), [("direct", True), ("plain", False)])
def test_direct_io_reaches_the_host_where_it_is_allowed(place: Place, tag: str, reaches_the_host: bool) -> None:
    host = place.host(tag)
    data = os.urandom(1 << 20)
    (host / "file").write_bytes(data)
    session = place.session(tag)
    session.do("buffer = mmap.mmap(-1, 1 << 20)")
    session.do("file = os.open('file', os.O_RDWR | os.O_DIRECT)")
    assert session.do("os.preadv(file, [buffer], 0)") == 1 << 20
    assert session.do("buffer[4090:4100]") == data[4090:4100]
    session.do("buffer[0:4] = b'text'")
    assert session.do("os.pwritev(file, [memoryview(buffer)[0:4096]], 8192)") == 4096
    assert (host / "file").read_bytes() == data[:8192] + b"text" + data[4:4096] + data[12288:]
    flags = [flags_of(link) for pid in children(place.scene.daemons[tag].process.pid)
             for link in pathlib.Path(f"/proc/{pid}/fd").iterdir() if os.readlink(link).endswith(f"{place.name}/file")]
    assert any(flag & os.O_DIRECT for flag in flags) == reaches_the_host, flags


@pytest.mark.parametrize("tag", ["direct", "never-mmap"])
def test_a_file_with_o_direct_can_be_mapped_and_written_in_any_other_way(place: Place, tag: str) -> None:
    """None of which needs to know of blocks: what the guest's page cache has it writes by any descriptor."""
    host = place.host(tag)
    for name in ("mapped", "beside"):
        (host / name).write_bytes(b"x" * 1000)
    place.python("""
        import fcntl, mmap, os
        for name, other in (("mapped", os.O_DIRECT), ("beside", 0)):
            direct = os.open(name, os.O_RDWR | os.O_DIRECT)
            file = os.open(name, os.O_RDWR | other)
            with mmap.mmap(file, 1000) as mapping:
                mapping[0:4] = mapping[996:1000] = b"text"
                mapping.flush()
            fcntl.fcntl(direct, fcntl.F_SETFL, fcntl.fcntl(direct, fcntl.F_GETFL) & ~os.O_DIRECT)
            assert os.pread(direct, 10, 990) == b"xxxxxxtext"
            assert os.pwrite(direct, b"end", 5) == 3
    """, tag)
    for name in ("mapped", "beside"):
        assert (host / name).read_bytes() == b"text" + b"xendx".ljust(992, b"x") + b"text"


def flags_of(link: pathlib.Path) -> int:
    info = (link.parent.parent / "fdinfo" / link.name).read_text()
    return int(dict(line.split(":", 1) for line in info.splitlines())["flags"], 8)


# Every policy serves every file

@pytest.mark.parametrize("tag", ["exact", "never", "metadata", "always", "writeback", "direct"])
def test_a_tree_of_files_is_the_same_for_both(place: Place, tag: str) -> None:
    """Files of many sizes, written by the guest in pieces and by the host at once, have the same checksums in both."""
    host = place.host(tag)
    (host / "host").mkdir()
    for number, size in enumerate([0, 1, 4095, 4096, 4097, 131072, 1_000_003]):
        (host / "host" / f"{number}").write_bytes(os.urandom(size))
    place.python("""
        import os, random
        os.mkdir("guest")
        generator = random.Random(3)
        for number, size in enumerate([0, 1, 4095, 4096, 4097, 131072, 1_000_003]):
            with open(f"guest/{number}", "wb", buffering=0) as file:
                data = generator.randbytes(size)
                while data:
                    file.write(data[:7001])
                    data = data[7001:]
    """, tag)
    sums = place.run("find host guest -type f | sort | xargs sha256sum", tag)
    there = subprocess.run("find host guest -type f | sort | xargs sha256sum", shell=True, cwd=host, text=True,
                           stdout=subprocess.PIPE, check=True)
    assert sums == there.stdout
    assert sums.count("\n") == 14
