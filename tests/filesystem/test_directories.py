"""OPENDIR, READDIR, READDIRPLUS and RELEASEDIR."""

import errno
import os
import pathlib
import random
import stat
import threading
from collections import Counter

import pytest

from frontend import fuse_abi as abi
from frontend.fuse import DirEntry, FuseClient
from frontend.fuse_abi import Opcode
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, Mounts, as_guest, as_host, needs_root, refused
from tests.running import Daemon

DOTS = (b".", b"..")
plain_and_plus = pytest.mark.parametrize("plus", [False, True], ids=["READDIR", "READDIRPLUS"])


def names_in(entries: list[DirEntry]) -> list[bytes]:
    """The names but for dot and dotdot."""
    return [entry.name for entry in entries if entry.name not in DOTS]


def listed(fuse: FuseClient, fh: int, plus: bool = False, size: int = 32_768) -> list[DirEntry]:
    """All of the root, from its beginning, by an open handle."""
    found: list[DirEntry] = []
    while entries := fuse.readdir(ROOT, fh, found[-1].offset if found else 0, size, plus):
        found += entries
    return found


@pytest.fixture
def names(share: pathlib.Path) -> list[bytes]:
    """The names of 300 files in the root, of all lengths."""
    chosen = random.Random(7)
    names = [(f"{number}-".encode() + bytes(chosen.choices(range(128, 256), k=255)))[:chosen.randint(4, 255)]
             for number in range(298)]
    names += [b"n" * 255, b"x"]
    for name in names:
        (share / os.fsdecode(name)).touch()
    return sorted(names)


# What is listed

@plain_and_plus
@pytest.mark.parametrize("size", [440, 512, 1000, 4096, 32_768, 131_072])
def test_every_name_is_listed_once_whatever_the_buffer(fuse: FuseClient, names: list[bytes], plus: bool,
                                                      size: int) -> None:
    entries = fuse.listdir(plus=plus, size=size)
    assert sorted(names_in(entries)) == names
    assert [entry.name for entry in entries if entry.name in DOTS] in ([b".", b".."], [b"..", b"."])


@plain_and_plus
def test_the_smallest_buffer_that_holds_the_longest_name_does(fuse: FuseClient, names: list[bytes],
                                                             plus: bool) -> None:
    entries = fuse.listdir(plus=plus, size=24 + 256 + (128 if plus else 0))
    assert sorted(names_in(entries)) == names


@needs_root
@plain_and_plus
def test_ten_thousand_names(connect: Connect, file_system: pathlib.Path, plus: bool) -> None:
    names = [f"a name like many others {number}".encode() for number in range(10_000)]
    for name in names:
        (file_system / os.fsdecode(name)).touch()
    guest = connect(share=file_system)
    entries = guest.fuse.listdir(plus=plus, size=65_536)
    assert sorted(names_in(entries)) == sorted(names)
    assert guest.daemon.statistics()["inodes"] == (10_000 if plus else 0)


@plain_and_plus
def test_kinds_and_numbers_are_those_of_the_host(fuse: FuseClient, share: pathlib.Path, plus: bool) -> None:
    (share / "file").touch()
    (share / "folder").mkdir()
    (share / "link").symlink_to("folder")
    os.mkfifo(share / "fifo")
    os.mknod(share / "socket", stat.S_IFSOCK | 0o600)
    entries = {os.fsdecode(entry.name): entry for entry in fuse.listdir(plus=plus)}
    for name in ("file", "folder", "link", "fifo", "socket"):
        found = (share / name).lstat()
        assert (entries[name].ino, entries[name].kind) == (found.st_ino, stat.S_IFMT(found.st_mode) >> 12)


@plain_and_plus
def test_dot_and_dotdot_tell_nothing_of_what_is_above_the_share(fuse: FuseClient, share: pathlib.Path,
                                                               plus: bool) -> None:
    (share / "folder").mkdir()
    root = share.stat().st_ino
    for nodeid, own in ((ROOT, root), (fuse.lookup(ROOT, "folder").nodeid, (share / "folder").stat().st_ino)):
        dots = {entry.name: entry for entry in fuse.listdir(nodeid, plus=plus) if entry.name in DOTS}
        assert {name: entry.ino for name, entry in dots.items()} == {b".": own, b"..": root}
        assert {entry.kind for entry in dots.values()} == {stat.S_IFDIR >> 12}
        assert not plus or {entry.entry.nodeid for entry in dots.values() if entry.entry} == {0}


@plain_and_plus
def test_an_empty_directory_has_only_dots(fuse: FuseClient, share: pathlib.Path, plus: bool) -> None:
    (share / "folder").mkdir()
    entries = fuse.listdir(fuse.lookup(ROOT, "folder").nodeid, plus=plus)
    assert sorted(entry.name for entry in entries) == [b".", b".."]


@plain_and_plus
def test_a_removed_directory_has_nothing(fuse: FuseClient, share: pathlib.Path, plus: bool) -> None:
    (share / "folder").mkdir()
    nodeid = fuse.lookup(ROOT, "folder").nodeid
    fh = fuse.opendir(nodeid).fh
    (share / "folder").rmdir()
    with refused(errno.ENOENT):     # as on the host: the guest's C library takes it for the end
        fuse.readdir(nodeid, fh, plus=plus)
    fuse.releasedir(nodeid, fh)


@plain_and_plus
def test_the_end_is_an_empty_reply_again_and_again(fuse: FuseClient, names: list[bytes], plus: bool) -> None:
    fh = fuse.opendir(ROOT).fh
    last = listed(fuse, fh, plus)[-1].offset
    for _ in range(3):
        assert fuse.readdir(ROOT, fh, last, plus=plus) == []
    assert sorted(names_in(listed(fuse, fh, plus))) == names


# Cookies

@plain_and_plus
def test_from_every_cookie_the_listing_goes_on_where_it_was(fuse: FuseClient, names: list[bytes],
                                                           plus: bool) -> None:
    fh = fuse.opendir(ROOT).fh
    entries = fuse.listdir(plus=plus)
    order = list(range(len(entries)))
    random.Random(3).shuffle(order)
    assert len(names_in(entries)) == len(names)
    fuse.readdir(ROOT, fh, 0, 1000)     # ext4 itself finds nothing any more where the first thing read was the end
    for index in order:
        found = fuse.readdir(ROOT, fh, entries[index].offset, 1000, plus)
        following = entries[index + 1:index + 1 + len(found)]
        assert [(entry.name, entry.offset) for entry in found] == [(entry.name, entry.offset) for entry in following]
        assert found or index == len(entries) - 1


@plain_and_plus
def test_rewinding_starts_over_and_sees_what_is_new(fuse: FuseClient, share: pathlib.Path, names: list[bytes],
                                                   plus: bool) -> None:
    fh = fuse.opendir(ROOT).fh
    fuse.readdir(ROOT, fh, 0, 4096, plus)
    (share / "new").touch()
    assert sorted(names_in(listed(fuse, fh, plus))) == sorted([*names, b"new"])


@plain_and_plus
def test_two_readers_on_one_handle_do_not_disturb_each_other(fuse: FuseClient, names: list[bytes],
                                                            plus: bool) -> None:
    fh = fuse.opendir(ROOT).fh
    readers: list[list[DirEntry]] = [[], [], []]
    more = True
    while more:
        more = False
        for found, size in zip(readers, (700, 1000, 3000), strict=True):
            entries = fuse.readdir(ROOT, fh, found[-1].offset if found else 0, size, plus)
            found += entries
            more |= bool(entries)
    for found in readers:
        assert sorted(names_in(found)) == names


def test_two_handles_are_independent(fuse: FuseClient, names: list[bytes]) -> None:
    one, other = fuse.opendir(ROOT).fh, fuse.opendir(ROOT).fh
    assert one != other
    first = fuse.readdir(ROOT, one, 0, 4096)
    assert fuse.readdir(ROOT, other, 0, 4096) == first
    assert fuse.readdir(ROOT, one, first[-1].offset, 4096)[0].name not in {entry.name for entry in first}
    fuse.releasedir(ROOT, one)
    assert len(names_in(fuse.readdir(ROOT, other, 0, 131_072))) == len(names)


@plain_and_plus
def test_plain_and_plus_share_their_cookies(fuse: FuseClient, names: list[bytes], plus: bool) -> None:
    fh = fuse.opendir(ROOT).fh
    found: list[DirEntry] = []
    while entries := fuse.readdir(ROOT, fh, found[-1].offset if found else 0, 2000, plus):
        found += entries
        plus = not plus
    assert sorted(names_in(found)) == names


@plain_and_plus
@pytest.mark.parametrize("offset", [1, 12_345, (1 << 31) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_invented_cookies_do_no_harm(fuse: FuseClient, names: list[bytes], plus: bool, offset: int) -> None:
    fh = fuse.opendir(ROOT).fh
    fuse.readdir(ROOT, fh, 0, 1000)
    reply = fuse.call(Opcode.READDIRPLUS if plus else Opcode.READDIR, ROOT,
                      abi.READ_IN.pack(fh=fh, offset=offset, size=4096), out_pages=4096, check=False)
    assert reply.error in (0, -errno.EINVAL)
    if plus and not reply.error:
        fuse.dirents(reply.data, True)
    assert sorted(names_in(listed(fuse, fh, plus))) == names


# Changes meanwhile

@plain_and_plus
def test_names_that_stay_are_listed_once_while_others_come_and_go(fuse: FuseClient, share: pathlib.Path,
                                                                 names: list[bytes], plus: bool) -> None:
    fh = fuse.opendir(ROOT).fh
    found: list[DirEntry] = []
    gone: set[bytes] = set()
    count = 0
    while entries := fuse.readdir(ROOT, fh, found[-1].offset if found else 0, 2000, plus):
        found += entries
        victim = names[(count * 37) % len(names)]
        if victim not in gone:
            (share / os.fsdecode(victim)).unlink()
            gone.add(victim)
        (share / f"new {count}").touch()
        count += 1
    times = Counter(names_in(found))
    assert count > 10
    assert all(times[name] == 1 for name in names if name not in gone)
    assert max(times.values()) == 1


def test_plus_leaves_out_what_is_gone_before_it_is_looked_up(fuse: FuseClient, share: pathlib.Path,
                                                            daemon: Daemon) -> None:
    """The host removes and creates all the time; what is listed is right, and what is counted is what was listed."""
    for number in range(50):
        (share / f"stays {number}").touch()
    ended = threading.Event()

    def change() -> None:
        while not ended.is_set():
            for number in range(20):
                (share / f"goes {number}").touch()
            for number in range(20):
                (share / f"goes {number}").unlink()

    host = threading.Thread(target=change)
    host.start()
    try:
        for _ in range(60):
            found = names_in(fuse.listdir(plus=True))
            assert {name for name in found if name.startswith(b"stays")} == {
                b"stays %d" % number for number in range(50)}
    finally:
        ended.set()
        host.join()
    assert daemon.statistics()["inodes"] == len(fuse.lookups)


# Buffers that are too small

@pytest.mark.parametrize("plus, sizes", [(False, (0, 1, 16, 24, 31)), (True, (0, 24, 128, 152, 159))],
                         ids=["READDIR", "READDIRPLUS"])
def test_a_buffer_too_small_for_one_entry_is_refused(fuse: FuseClient, names: list[bytes], plus: bool,
                                                    sizes: tuple[int, ...]) -> None:
    fh = fuse.opendir(ROOT).fh
    for size in sizes:
        with refused(errno.EINVAL):
            fuse.readdir(ROOT, fh, 0, size, plus)
    # Nothing has moved by that, and nothing was counted.
    assert sorted(names_in(listed(fuse, fh, plus))) == names


@plain_and_plus
def test_a_buffer_too_small_for_the_next_entry_is_refused_there(fuse: FuseClient, share: pathlib.Path, daemon: Daemon,
                                                               plus: bool) -> None:
    (share / ("n" * 200)).touch()
    fh = fuse.opendir(ROOT).fh
    size = 128 * plus + 32
    found: list[DirEntry] = []
    with refused(errno.EINVAL):
        while True:
            entries = fuse.readdir(ROOT, fh, found[-1].offset if found else 0, size, plus)
            assert len(entries) == 1
            found += entries
    assert {entry.name for entry in found} <= {b".", b".."} and daemon.statistics()["inodes"] == 0
    assert len(fuse.readdir(ROOT, fh, found[-1].offset if found else 0, 4096, plus)) == 3 - len(found)


@plain_and_plus
def test_less_room_than_was_asked_for_is_all_that_is_filled(fuse: FuseClient, names: list[bytes],
                                                           plus: bool) -> None:
    """The reply's room is the bound, where the size says more."""
    fh = fuse.opendir(ROOT).fh
    reply = fuse.call(Opcode.READDIRPLUS if plus else Opcode.READDIR, ROOT, abi.READ_IN.pack(fh=fh, size=65_536),
                      out_pages=2000, check=False)
    entries = [] if reply.error else fuse.dirents(reply.data, plus)
    assert reply.error == -errno.EINVAL or (entries and len(reply.data) <= 2000)
    assert set(names_in(entries)) <= set(names)


# READDIRPLUS and LOOKUP

@needs_root
def test_entries_of_plus_are_those_of_lookup(fuse: FuseClient, share: pathlib.Path, mounts: Mounts) -> None:
    (share / "file").write_bytes(b"data")
    (share / "again").hardlink_to(share / "file")
    (share / "folder").mkdir()
    (share / "link").symlink_to("file")
    (share / "dangling").symlink_to("nowhere")
    os.mkfifo(share / "fifo")
    os.mknod(share / "device", stat.S_IFCHR | 0o600, os.makedev(7, 300))
    mounts.tmpfs(share / "mounted")
    found = {entry.name: entry for entry in fuse.listdir(plus=True) if entry.name not in DOTS}
    assert len(found) == 8
    for name, entry in found.items():
        assert entry.entry == fuse.lookup(ROOT, name)
        assert entry.entry and as_guest(entry.entry) == as_host(share / os.fsdecode(name))
    same = [entry.entry.nodeid for name, entry in found.items() if name in (b"file", b"again") and entry.entry]
    assert len(set(same)) == 1


@pytest.mark.parametrize("size", [600, 4096, 32_768])
def test_plus_counts_one_for_each_entry_that_it_lists(fuse: FuseClient, daemon: Daemon, names: list[bytes],
                                                     size: int) -> None:
    """What the client counts, entry by entry, must be what the daemon waits for: one less, and the nodes stay; one
    more, and they are gone too early."""
    found = [entry.entry.nodeid for _ in range(3) for entry in fuse.listdir(plus=True, size=size)
             if entry.entry and entry.entry.nodeid]
    assert len(found) == 3 * len(names) and set(Counter(found).values()) == {3}
    nodes = set(found)
    fuse.batch_forget([(nodeid, 2) for nodeid in nodes])
    assert daemon.statistics()["inodes"] == len(names)
    for nodeid in nodes:
        fuse.getattr(nodeid)
    fuse.batch_forget([(nodeid, 1) for nodeid in nodes])
    assert daemon.statistics()["inodes"] == 0


def test_plus_counts_nothing_for_what_it_had_no_room_for(fuse: FuseClient, daemon: Daemon, names: list[bytes]) -> None:
    fh = fuse.opendir(ROOT).fh
    count = len(names_in(fuse.readdirplus(ROOT, fh, 0, 4096)))
    assert 0 < count < len(names)
    assert daemon.statistics()["inodes"] == count


# Handles

def test_releasedir_closes_and_a_second_one_is_refused(fuse: FuseClient, daemon: Daemon) -> None:
    fh = fuse.opendir(ROOT).fh
    fuse.fsyncdir(ROOT, fh)
    fuse.fsyncdir(ROOT, fh, datasync=True)
    assert daemon.statistics()["files_open"] == 1
    fuse.releasedir(ROOT, fh)
    assert daemon.statistics()["files_open"] == 0
    for run in (lambda: fuse.releasedir(ROOT, fh), lambda: fuse.readdir(ROOT, fh), lambda: fuse.readdirplus(ROOT, fh),
                lambda: fuse.fsyncdir(ROOT, fh)):
        with refused(errno.EBADF):
            run()


def test_handles_of_another_directory_and_invented_ones_are_refused(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "folder").mkdir()
    folder = fuse.lookup(ROOT, "folder").nodeid
    root_fh, folder_fh = fuse.opendir(ROOT).fh, fuse.opendir(folder).fh
    for nodeid, fh in ((ROOT, folder_fh), (folder, root_fh), (ROOT, root_fh + (1 << 32)), (ROOT, 0),
                       (ROOT, (1 << 64) - 1)):
        with refused(errno.EBADF):
            fuse.readdir(nodeid, fh)
        with refused(errno.EBADF):
            fuse.releasedir(nodeid, fh)
    assert fuse.readdir(ROOT, root_fh) and fuse.readdir(folder, folder_fh)


def test_only_directories_are_opened_as_such(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "file").touch()
    (share / "folder").mkdir()
    (share / "link").symlink_to("folder")
    for name in ("file", "link"):
        with refused(errno.ENOTDIR):
            fuse.opendir(fuse.lookup(ROOT, name).nodeid)


@pytest.mark.parametrize("flags", [os.O_RDWR | os.O_DIRECTORY, os.O_WRONLY, os.O_TRUNC, 0xffffffff])
def test_flags_of_opendir_do_not_matter(fuse: FuseClient, names: list[bytes], flags: int) -> None:
    fh = fuse.opendir(ROOT, flags).fh
    assert sorted(names_in(fuse.readdir(ROOT, fh, 0, 131_072))) == names
