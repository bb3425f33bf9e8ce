"""What is done with open files: READ, WRITE and the others. Handles themselves: test_handles.py."""

import contextlib
import ctypes
import errno
import mmap
import os
import pathlib
import random
import stat
import threading
from typing import BinaryIO

import pytest

from frontend import fuse_abi as abi
from frontend.fuse import FuseClient, FuseError
from frontend.fuse_abi import Opcode
from tests.daemon.hanging import HangingMount
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, Guest, Mounts, needs_root, opened, refused

MIB, PAGE = 1 << 20, mmap.PAGESIZE
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_COLLAPSE_RANGE, FALLOC_ZERO_RANGE = 1, 2, 8, 0x10
HEADER, READ_ARGS, WRITE_ARGS, REPLY = abi.IN_HEADER.size, abi.READ_IN.size, abi.WRITE_IN.size, abi.OUT_HEADER.size


# Sizes and framings

@pytest.mark.parametrize("size", [0, 1, 15, 4095, 4096, 4097, 65_536, MIB])
def test_all_sizes_are_written_and_read(fuse: FuseClient, share: pathlib.Path, size: int) -> None:
    entry, handle = fuse.create(ROOT, "file")
    content = os.urandom(size)
    assert fuse.write(entry.nodeid, handle.fh, 0, content) == size
    assert (share / "file").read_bytes() == content
    assert fuse.read(entry.nodeid, handle.fh, 0, size) == content
    assert fuse.read(entry.nodeid, handle.fh, 0, size + 10) == content


@pytest.mark.parametrize("offset", [0, 1, 4095, 4096, 10_001, 5 << 30])
def test_offsets_are_bytes(fuse: FuseClient, share: pathlib.Path, offset: int) -> None:
    entry, handle = fuse.create(ROOT, "file")
    assert fuse.write(entry.nodeid, handle.fh, offset, b"some data") == 9
    assert fuse.read(entry.nodeid, handle.fh, offset + 5, 100) == b"data"
    if offset:
        assert fuse.read(entry.nodeid, handle.fh, offset - 1, 5) == b"\0some"
    assert (share / "file").stat().st_size == offset + 9


READ_FRAMINGS = {
    "one piece": [HEADER + READ_ARGS],
    "header and arguments": [HEADER, READ_ARGS],
    "single bytes": [1] * (HEADER + READ_ARGS),
    "cut in the header": [7, 1, 20],
    "cut in the arguments": [HEADER + 3, 1, 1],
    "empty pieces between": [0, HEADER, 0, 0, READ_ARGS, 0],
}
REPLY_FRAMINGS = {
    "one piece": [],
    "header and data": [REPLY],
    "single bytes for the header": [1] * REPLY,
    "cut in the header": [3, 9],
    "header and a byte of data": [REPLY + 1],
    "odd pieces of data": [REPLY, 1, 4095, 4097, 3, 13],
    "empty pieces between": [0, REPLY, 0, 100, 0],
    "single bytes": [1] * 60,
}


@pytest.mark.parametrize("reply_framing", REPLY_FRAMINGS.values(), ids=REPLY_FRAMINGS)
def test_a_read_may_be_framed_in_any_way(fuse: FuseClient, file: tuple[int, int], data: bytes,
                                         reply_framing: list[int]) -> None:
    for framing in READ_FRAMINGS.values():
        for offset, size in ((0, len(data)), (5, 9000), (100, 0), (len(data) - 3, 100)):
            found = fuse.read(*file, offset, size, framing=framing, reply_framing=reply_framing)
            assert found == data[offset:offset + size], framing


WRITE_FRAMINGS = {
    "one piece": [],
    "header and the rest": [HEADER],
    "header, arguments, data": [HEADER, WRITE_ARGS],
    "arguments with the data": [HEADER, WRITE_ARGS + 1],
    "single bytes": [1] * (HEADER + WRITE_ARGS + 5),
    "odd pieces of data": [HEADER, WRITE_ARGS, 1, 4095, 4097, 3, 13],
    "empty pieces between": [0, HEADER, 0, WRITE_ARGS, 0, 0, 77, 0],
}


@pytest.mark.parametrize("framing", WRITE_FRAMINGS.values(), ids=WRITE_FRAMINGS)
def test_a_write_may_be_framed_in_any_way(fuse: FuseClient, share: pathlib.Path, file: tuple[int, int], data: bytes,
                                          framing: list[int]) -> None:
    expected = bytearray(data)
    for reply_framing in ([], [1] * 24, [5, 14]):
        for offset, size in ((0, len(data)), (5, 9000), (100, 0), (len(data) - 3, 100)):
            content = os.urandom(size)
            assert fuse.write(*file, offset, content, framing=framing, reply_framing=reply_framing) == size
            if size:
                expected[offset:offset + size] = content
            assert (share / "file").read_bytes() == expected


@pytest.fixture
def large(connect: Connect) -> Guest:
    """A guest whose queues take requests of many pieces, and an empty file."""
    guest = connect(queue_size=4096, indirect=False, memory_mib=256)
    (guest.share / "file").touch()
    return guest


@pytest.mark.parametrize("pieces", [256, 1023, 1024, 1025, 2000, 4000])
def test_requests_of_very_many_pages(large: Guest, pieces: int) -> None:
    """More than a system call takes (IOV_MAX, 1024)."""
    content = os.urandom(pieces * 4096)
    file = opened(large.fuse, "file")
    assert large.fuse.write(*file, 0, content) == len(content)
    assert (large.share / "file").read_bytes() == content
    assert large.fuse.read(*file, 0, len(content)) == content


@pytest.mark.parametrize("pieces", [1024, 1025, 3000])
def test_writes_of_very_many_odd_pieces(large: Guest, pieces: int) -> None:
    content = os.urandom(pieces * 7)
    file = opened(large.fuse, "file")
    assert large.fuse.write(*file, 3, content, framing=[HEADER, WRITE_ARGS, *[7] * (pieces - 1)]) == len(content)
    assert (large.share / "file").read_bytes() == bytes(3) + content


@pytest.mark.parametrize("offset, piece, pieces", [
    (0, 7, 1024),
    (0, 7, 3000),
    (100, 4096, 2000),
])
def test_reads_of_very_many_odd_pieces(large: Guest, offset: int, piece: int, pieces: int) -> None:
    """A short reply would be the end of the file to the guest, and it would cut it there."""
    content = os.urandom(offset + pieces * piece)
    (large.share / "file").write_bytes(content)
    file = opened(large.fuse, "file")
    found = large.fuse.read(*file, offset, pieces * piece, reply_framing=[REPLY, *[piece] * (pieces - 1)])
    assert len(found) == pieces * piece and found == content[offset:]


def test_a_reply_touches_no_more_than_its_own_bytes(fuse: FuseClient, file: tuple[int, int], data: bytes) -> None:
    """The guest's buffer may be larger than what it asked for, and what was there behind the data stays."""
    for size in (0, 100, 4096, 5000):
        body = abi.READ_IN.pack(fh=file[1], offset=0, size=size)
        ticket = fuse.submit(Opcode.READ, file[0], body, out_pages=12_000, publish=False)
        for address, length in ticket.writable:
            fuse.device.memory.fill(address, length, 0xa5)
        fuse.device.queues[1].publish()
        fuse.device.kick(1)
        while ticket.used_len is None:
            fuse.returned(1)
        written = b"".join(fuse.device.memory.read(address, length) for address, length in ticket.writable)
        assert fuse.reply(ticket).data == data[:size]
        assert written[REPLY + size:] == b"\xa5" * (12_000 - size)


# What a read finds

def test_nothing_is_read_at_and_behind_the_end(fuse: FuseClient, file: tuple[int, int], data: bytes) -> None:
    assert fuse.read(*file, len(data) - 1, 4096) == data[-1:]
    for offset in (len(data), len(data) + 1, 1 << 40, (1 << 63) - 5000):
        assert fuse.read(*file, offset, 4096) == b""


def test_holes_read_as_zeros(fuse: FuseClient, share: pathlib.Path) -> None:
    with (share / "file").open("wb") as sparse:
        sparse.seek(MIB)
        sparse.write(b"data")
        sparse.truncate(2 * MIB)
    file = opened(fuse, "file")
    assert fuse.read(*file, 0, MIB) == bytes(MIB)
    assert fuse.read(*file, MIB - 5, 100) == b"\0" * 5 + b"data" + bytes(91)
    assert fuse.read(*file, 2 * MIB - 10, 100) == bytes(10)


def test_a_write_behind_the_end_leaves_a_hole(fuse: FuseClient, share: pathlib.Path, file: tuple[int, int],
                                             data: bytes) -> None:
    fuse.write(*file, 50_000, b"end")
    assert (share / "file").read_bytes() == data.ljust(50_000, b"\0") + b"end"


def test_a_file_that_shrinks_while_it_is_read_is_read_short(fuse: FuseClient, share: pathlib.Path,
                                                           file: tuple[int, int], data: bytes) -> None:
    os.truncate(share / "file", 5000)
    assert fuse.read(*file, 4000, 4096) == data[4000:5000]
    assert fuse.read(*file, 6000, 4096) == b""
    os.truncate(share / "file", 0)
    assert fuse.read(*file, 0, 4096) == b""


def test_a_host_that_shrinks_and_extends_a_file_all_the_time(fuse: FuseClient, share: pathlib.Path) -> None:
    content = b"\x5a" * 300_000
    (share / "file").write_bytes(content)
    file = opened(fuse, "file")
    ended = threading.Event()

    def change() -> None:
        while not ended.is_set():
            os.truncate(share / "file", 10_000)
            (share / "file").write_bytes(content)

    host = threading.Thread(target=change)
    host.start()
    try:
        for _ in range(300):
            # Zeros are what a host's own reader finds, too, of a page that is being cut.
            assert set(fuse.read(*file, 0, 300_000)) <= {0x5a, 0}
    finally:
        ended.set()
        host.join()
    assert fuse.read(*file, 0, 300_000) == content


def test_a_write_goes_where_it_says_whatever_the_open_flags(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "file").write_bytes(b"0123456789")
    file = opened(fuse, "file", os.O_RDWR | os.O_APPEND)
    fuse.write(*file, 2, b"ab", flags=os.O_RDWR | os.O_APPEND)
    assert (share / "file").read_bytes() == b"01ab456789"


@pytest.mark.parametrize("flags", [os.O_RDWR | os.O_SYNC, os.O_RDWR | os.O_DSYNC, os.O_RDWR | os.O_DIRECT,
                                   os.O_RDWR | os.O_NOATIME, os.O_RDWR | os.O_NONBLOCK, os.O_RDWR | os.O_NOFOLLOW])
def test_flags_of_open_change_no_contents(fuse: FuseClient, share: pathlib.Path, flags: int) -> None:
    (share / "file").write_bytes(b"0123456789")
    file = opened(fuse, "file", flags)
    assert fuse.write(*file, 1, b"abc") == 3
    assert fuse.read(*file, 0, 100) == b"0abc456789"


@needs_root
def test_what_does_not_go_by_o_direct_may_have_any_size(connect: Connect, mounts: Mounts) -> None:
    """A guest writes its page cache by any handle of the file, and programs take the flag back."""
    guest = connect("--allow-direct-io", share=mounts.ext4())
    fuse, path = guest.fuse, guest.share / "file"
    path.write_bytes(b"0123456789" * 1000)
    flags = os.O_RDWR | os.O_DIRECT
    direct = opened(fuse, "file", flags)
    assert fuse.write(*direct, 4096, b"x" * 1000, write_flags=abi.FUSE_WRITE_CACHE, flags=flags) == 1000
    assert fuse.write(*direct, 6000, b"y" * 10, flags=os.O_RDWR) == 10
    assert fuse.read(*direct, 5, 10, flags=os.O_RDWR) == b"5678901234"
    data = bytearray(b"0123456789" * 1000)
    data[4096:5096], data[6000:6010] = b"x" * 1000, b"y" * 10
    assert path.read_bytes() == data
    assert fuse.read(*direct, 4096, 4096, flags=flags) == data[4096:8192]
    for size in (10, 1000):     # what does is refused as on the host
        with refused(errno.EINVAL):
            fuse.write(*direct, 3, b"z" * size, flags=flags)
        with refused(errno.EINVAL):
            fuse.read(*direct, 3, size, flags=flags)
    assert path.read_bytes() == data


# Bad numbers

@pytest.mark.parametrize("offset, size", [(1 << 63, 10), ((1 << 64) - 1, 10), ((1 << 64) - 5, 10),
                                          ((1 << 63) - 5, 10)])
def test_offsets_that_are_none_are_refused(fuse: FuseClient, share: pathlib.Path, file: tuple[int, int], data: bytes,
                                           offset: int, size: int) -> None:
    with refused(errno.EINVAL, errno.EOVERFLOW):
        fuse.read(*file, offset, size)
    with refused(errno.EINVAL, errno.EFBIG):
        fuse.write(*file, offset, b"x" * size)
    assert (share / "file").read_bytes() == data


def test_a_write_larger_than_any_file_is_refused(fuse: FuseClient, share: pathlib.Path, file: tuple[int, int],
                                                data: bytes) -> None:
    with (share / "model").open("wb") as model:
        try:
            os.pwrite(model.fileno(), b"x", (1 << 63) - 5000)
        except OSError:
            pass
        else:
            pytest.skip("this file system has files as large as can be said")
    with refused(errno.EFBIG):
        fuse.write(*file, (1 << 63) - 5000, b"data")
    assert (share / "file").read_bytes() == data


@pytest.mark.parametrize("size", [4097, 5000, 1 << 20, 0x7fffffff, 0x80000000, 0xffffffff])
def test_a_read_of_more_than_the_reply_has_room_for_is_refused(fuse: FuseClient, file: tuple[int, int],
                                                              size: int) -> None:
    with refused(errno.EINVAL):
        fuse.read(*file, 0, size, room=4096)


@pytest.mark.parametrize("size", [101, 4096, 1 << 20, 0x7fffffff, 0x80000000, 0xffffffff])
def test_a_write_of_more_than_was_sent_is_refused(fuse: FuseClient, share: pathlib.Path, file: tuple[int, int],
                                                 data: bytes, size: int) -> None:
    with refused(errno.EINVAL):
        fuse.write(*file, 0, b"x" * 100, size=size)
    with refused(errno.EINVAL):
        fuse.write(*file, 0, b"", size=size)
    assert (share / "file").read_bytes() == data


def test_a_write_of_less_than_was_sent_writes_no_more(fuse: FuseClient, share: pathlib.Path, file: tuple[int, int],
                                                     data: bytes) -> None:
    assert fuse.write(*file, 0, b"x" * 5000, size=10) == 10
    assert fuse.write(*file, 20, b"x" * 5000, size=0) == 0
    assert (share / "file").read_bytes() == b"x" * 10 + data[10:]


# The other operations

def test_flush_and_fsync_of_every_handle(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "file").write_bytes(b"data")
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        file = opened(fuse, "file", flags)
        fuse.flush(*file, lock_owner=77)
        fuse.fsync(*file)
        fuse.fsync(*file, datasync=True)
        fuse.call(Opcode.FSYNC, file[0], abi.FSYNC_IN.pack(fh=file[1], fsync_flags=0xffffffff))
        fuse.flush(*file)
        fuse.release(*file)


@pytest.fixture
def sparse(fuse: FuseClient, share: pathlib.Path) -> tuple[int, int]:
    """A file with data from 64 KiB to 128 KiB and in its last byte, at 1 MiB."""
    with (share / "file").open("wb") as sparse:
        os.pwrite(sparse.fileno(), b"x" * 65_536, 65_536)
        os.pwrite(sparse.fileno(), b"x", MIB)
    return opened(fuse, "file")


@pytest.mark.parametrize("whence", [os.SEEK_DATA, os.SEEK_HOLE])
def test_lseek_finds_data_and_holes_as_on_the_host(fuse: FuseClient, share: pathlib.Path, sparse: tuple[int, int],
                                                  whence: int) -> None:
    with (share / "file").open("rb") as file:
        for offset in (0, 1, 65_535, 65_536, 100_000, 131_071, 131_072, MIB - 1, MIB, MIB + 1, MIB + 2, 1 << 40):
            try:
                expected = os.lseek(file.fileno(), offset, whence)
            except OSError as error:
                with refused(error.errno or 0):
                    fuse.lseek(*sparse, offset, whence)
            else:
                assert fuse.lseek(*sparse, offset, whence) == expected


def test_lseek_is_left_to_a_guest_that_writes_back(connect: Connect) -> None:
    """It has data that the host's file does not, and asks before it has written them."""
    guest = connect("--writeback")
    (guest.share / "file").write_bytes(b"x")
    with refused(errno.ENOSYS):
        guest.fuse.lseek(*opened(guest.fuse, "file"), 0, os.SEEK_DATA)


def test_lseek_to_positions_is_the_guests_own_business(fuse: FuseClient, sparse: tuple[int, int]) -> None:
    for whence in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, 5, 0xffffffff):
        with refused(errno.EINVAL):
            fuse.lseek(*sparse, 0, whence)
    for offset in (1 << 63, (1 << 64) - 1):
        with refused(errno.ENXIO):
            fuse.lseek(*sparse, offset, os.SEEK_DATA)


def test_fallocate_extends_or_keeps_the_size(fuse: FuseClient, share: pathlib.Path, file: tuple[int, int],
                                             data: bytes) -> None:
    fuse.fallocate(*file, 0, 100_000, FALLOC_KEEP_SIZE)
    found = (share / "file").stat()
    assert found.st_size == len(data) and found.st_blocks * 512 >= 100_000
    fuse.fallocate(*file, 50_000, 100_000)
    assert (share / "file").stat().st_size == 150_000
    assert (share / "file").read_bytes() == data.ljust(150_000, b"\0")


def test_fallocate_makes_holes_and_zeros(fuse: FuseClient, share: pathlib.Path, file: tuple[int, int],
                                         data: bytes) -> None:
    fuse.fallocate(*file, 4096, 4096, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE)
    expected = data[:4096] + bytes(4096) + data[8192:]
    assert (share / "file").read_bytes() == expected
    try:
        fuse.fallocate(*file, 100, 50, FALLOC_ZERO_RANGE)
    except FuseError as error:
        assert error.errno == errno.EOPNOTSUPP
    else:
        assert (share / "file").read_bytes() == expected[:100] + bytes(50) + expected[150:]


@pytest.mark.parametrize("offset, length, error", [
    (0, 0, errno.EINVAL), (1 << 63, 10, errno.EINVAL), (0, 1 << 63, errno.EINVAL), (0, (1 << 64) - 1, errno.EINVAL),
    ((1 << 63) - 5, 10, errno.EFBIG), ((1 << 63) - 1, (1 << 63) - 1, errno.EFBIG)])
def test_fallocate_of_impossible_ranges_is_refused(fuse: FuseClient, share: pathlib.Path, file: tuple[int, int],
                                                   data: bytes, offset: int, length: int, error: int) -> None:
    with refused(error):
        fuse.fallocate(*file, offset, length)
    assert (share / "file").read_bytes() == data


@pytest.mark.parametrize("mode", [
    FALLOC_PUNCH_HOLE, 0x100, 0x80000000, 0xffffffff])
def test_fallocate_in_other_ways_is_not_supported(fuse: FuseClient, share: pathlib.Path, file: tuple[int, int],
                                                 data: bytes, mode: int) -> None:
    with refused(errno.EOPNOTSUPP):
        fuse.fallocate(*file, 0, 4096, mode)
    assert (share / "file").read_bytes() == data


def test_copies_are_made_between_files_and_within_one(fuse: FuseClient, share: pathlib.Path, file: tuple[int, int],
                                                     data: bytes) -> None:
    entry, other = fuse.create(ROOT, "other")
    assert fuse.copy_file_range(*file, 10, entry.nodeid, other.fh, 5, 1000) == 1000
    assert (share / "other").read_bytes() == bytes(5) + data[10:1010]
    assert fuse.copy_file_range(*file, 0, *file, 20_000, 100) == 100
    assert (share / "file").read_bytes() == data.ljust(20_000, b"\0") + data[:100]
    assert fuse.copy_file_range(entry.nodeid, other.fh, 1000, *file, 0, 0xfffff000) == 5
    assert fuse.copy_file_range(entry.nodeid, other.fh, 1005, *file, 0, 100) == 0
    assert fuse.copy_file_range(entry.nodeid, other.fh, 0, *file, 0, 0) == 0


@pytest.mark.parametrize("offset, offset_out, length, flags", [
    (1 << 63, 0, 10, 0), (0, 1 << 63, 10, 0), ((1 << 64) - 1, 0, 10, 0), (0, 0, 10, 1), (0, 0, 10, 1 << 63),
    (0, 5, 100, 0)], ids=["offset", "other offset", "offset of -1", "a flag", "the last flag", "overlap"])
def test_impossible_copies_are_refused(fuse: FuseClient, share: pathlib.Path, file: tuple[int, int], data: bytes,
                                       offset: int, offset_out: int, length: int, flags: int) -> None:
    with refused(errno.EINVAL):
        fuse.copy_file_range(*file, offset, *file, offset_out, length, flags)
    assert (share / "file").read_bytes() == data


def test_copies_of_both_sizes_are_the_same(fuse: FuseClient, share: pathlib.Path, file: tuple[int, int],
                                           data: bytes) -> None:
    entry, other = fuse.create(ROOT, "other")
    for wide in (False, True):
        for length in (1 << 20, 0xfffff000) + ((1 << 40, (1 << 64) - 1) if wide else ()):
            assert fuse.copy_file_range(*file, 0, entry.nodeid, other.fh, 0, length, wide=wide) == len(data)
            assert (share / "other").read_bytes() == data
            fuse.setattr(entry.nodeid, size=0)
        assert fuse.copy_file_range(*file, len(data), entry.nodeid, other.fh, 0, 10, wide=wide) == 0
        with refused(errno.EBADF):
            fuse.copy_file_range(*file, 0, entry.nodeid, other.fh + 1, 0, 10, wide=wide)
        with refused(errno.EINVAL):
            fuse.copy_file_range(*file, 0, entry.nodeid, other.fh, 1 << 63, 10, wide=wide)


# Set-id bits

def mode_of(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@needs_root
def test_a_write_clears_set_id_bits_where_the_guest_asks_for_it(fuse: FuseClient, share: pathlib.Path,
                                                               file: tuple[int, int]) -> None:
    """The guest knows whether the caller may keep them; the thread that serves it does not remember."""
    for flags, expected in ((0, 0o6755), (abi.FUSE_WRITE_KILL_SUIDGID, 0o755)) * 3:
        (share / "file").chmod(0o6755)
        fuse.write(*file, 0, b"data", write_flags=flags)
        assert mode_of(share / "file") == expected


@needs_root
@pytest.mark.parametrize("group", [0, 4242])
@pytest.mark.parametrize("operation", ["WRITE", "SETATTR", "OPEN", "FALLOCATE", "COPY_FILE_RANGE", "chown"])
def test_a_set_group_id_bit_that_nobody_executes_by_is_kept(fuse: FuseClient, share: pathlib.Path, operation: str,
                                                           group: int) -> None:
    """As FUSE has it, whoever writes: only the guest's kernel knows who is in the file's group."""
    for before, after in ((0o6664, 0o2664), (0o6674, 0o674), (0o2664, 0o2664), (0o664, 0o664)):
        name = f"file{before:o}"
        (share / name).write_bytes(b"data")
        os.chown(share / name, 1000, group)
        (share / name).chmod(before)
        nodeid = fuse.lookup(ROOT, name).nodeid
        if operation == "WRITE":
            fuse.write(nodeid, fuse.open(nodeid, os.O_RDWR).fh, 0, b"x", write_flags=abi.FUSE_WRITE_KILL_SUIDGID)
        elif operation == "SETATTR":
            fuse.setattr(nodeid, size=2, valid=abi.FATTR_KILL_SUIDGID)
        elif operation == "FALLOCATE":
            fuse.fallocate(nodeid, fuse.open(nodeid, os.O_RDWR).fh, 0, 10_000, uid=1000)
        elif operation == "COPY_FILE_RANGE":
            fh = fuse.open(nodeid, os.O_RDWR).fh
            fuse.copy_file_range(nodeid, fh, 0, nodeid, fh, 5000, 4, uid=1000)
        elif operation == "chown":      # to nobody, after a request that took the bits away
            (share / "victim").touch()
            victim = fuse.lookup(ROOT, "victim").nodeid
            fuse.write(victim, fuse.open(victim, os.O_RDWR).fh, 0, b"x", write_flags=abi.FUSE_WRITE_KILL_SUIDGID)
            fuse.setattr(nodeid)
        else:
            fuse.open(nodeid, os.O_RDWR | os.O_TRUNC, abi.FUSE_OPEN_KILL_SUIDGID)
        assert oct(mode_of(share / name)) == oct(after)
    (share / "roots").touch()       # the thread is itself again
    fuse.create(ROOT, "another")
    assert (share / "another").stat().st_gid == (share / "roots").stat().st_gid


@needs_root
@pytest.mark.parametrize("operation", ["OPEN", "CREATE"])
def test_an_open_that_cuts_clears_set_id_bits_where_the_guest_asks_for_it(fuse: FuseClient, share: pathlib.Path,
                                                                         operation: str) -> None:
    flags = os.O_RDWR | os.O_TRUNC
    for open_flags, expected in ((0, 0o6755), (abi.FUSE_OPEN_KILL_SUIDGID, 0o755)) * 3:
        (share / "file").write_bytes(b"data")
        (share / "file").chmod(0o6755)
        if operation == "OPEN":
            fuse.open(fuse.lookup(ROOT, "file").nodeid, flags, open_flags)
        else:
            fuse.create(ROOT, "file", flags=flags, open_flags=open_flags)
        assert ((share / "file").read_bytes(), mode_of(share / "file")) == (b"", expected)


@needs_root
@pytest.mark.parametrize(("uid", "mode"), [(0, 0o6755), (1000, 0o755)])
@pytest.mark.parametrize("operation", ["FALLOCATE", "COPY_FILE_RANGE"])
def test_what_cannot_ask_for_it_clears_set_id_bits_for_users_and_not_for_root(
        fuse: FuseClient, share: pathlib.Path, operation: str, uid: int, mode: int) -> None:
    """Whatever the thread that serves it did before: a cut of much, that clears them, is served by the same ones."""
    (share / "program").write_bytes(b"data")
    program, large = opened(fuse, "program"), fuse.create(ROOT, "large")
    chosen = random.Random(1)
    for _ in range(200):
        for _ in range(chosen.randint(1, 4)):       # they take turns
            os.truncate(share / "large", 8 * MIB)
            fuse.setattr(large[0].nodeid, size=0, valid=abi.FATTR_KILL_SUIDGID)
        (share / "program").chmod(0o6755)
        if operation == "FALLOCATE":
            fuse.fallocate(*program, 0, 10_000, uid=uid)
        else:
            fuse.copy_file_range(*program, 0, *program, 5_000, 4, uid=uid)
        assert mode_of(share / "program") == mode


# What the host has of a file in its memory

@needs_root
def test_files_of_which_the_host_has_only_parts_in_memory_are_read_whole(connect: Connect, mounts: Mounts) -> None:
    """A queue reads what is there, and the rest is read elsewhere: the reply is one."""
    guest = connect(share=mounts.ext4(), queue_size=512)
    content = os.urandom(4 * MIB)
    (guest.share / "file").write_bytes(content)
    chosen = random.Random(5)
    file = opened(guest.fuse, "file")
    with (guest.share / "file").open("rb") as host:
        os.fsync(host.fileno())
        for _ in range(60):
            for _ in range(5):
                offset, size = chosen.randrange(4 * MIB), chosen.randrange(MIB)
                os.posix_fadvise(host.fileno(), offset, size, os.POSIX_FADV_DONTNEED)
            offset, size = chosen.randrange(4 * MIB), chosen.randrange(MIB)
            found = guest.fuse.read(*file, offset, size, reply_framing=chosen.choice((None, [REPLY, 5000, 1, 70_000])))
            assert found == content[offset:offset + size]
            # A second reader at the same place, and one at the end.
            assert guest.fuse.read(*file, offset, 5) == content[offset:offset + 5]
            assert guest.fuse.read(*file, 4 * MIB - 3, 4096) == content[-3:]


def in_memory(file: BinaryIO) -> list[bool]:
    """Which pages of a file the host has in its memory."""
    pages = os.fstat(file.fileno()).st_size // PAGE
    found = ctypes.create_string_buffer(pages)
    with mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE) as mapped:
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(mapped)), found) == 0
    return [bool(byte & 1) for byte in found.raw]


@needs_root
@pytest.mark.parametrize("extent", [PAGE, 4 * PAGE, 16 * PAGE, MIB // 4])
def test_files_of_which_every_second_extent_is_in_memory_are_read_whole(connect: Connect, mounts: Mounts,
                                                                       extent: int) -> None:
    """A READ that may not wait gets what comes before the first gap: that is neither its end nor the file's."""
    guest = connect(share=mounts.ext4(), queue_size=512)
    content = os.urandom(2 * MIB)
    (guest.share / "file").write_bytes(content)
    file = opened(guest.fuse, "file")
    for first in (0, extent):
        with (guest.share / "file").open("rb") as host:
            os.fsync(host.fileno())
            os.posix_fadvise(host.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            os.posix_fadvise(host.fileno(), 0, 0, os.POSIX_FADV_RANDOM)     # nothing is read ahead
            for offset in range(first, 2 * MIB, 2 * extent):
                os.pread(host.fileno(), extent, offset)
            there = in_memory(host)
        pages = extent // PAGE
        assert there == [(number // pages % 2 == 0) == (first == 0) for number in range(2 * MIB // PAGE)]
        assert guest.fuse.read(*file, 0, MIB) == content[:MIB]
        assert guest.fuse.read(*file, MIB, MIB) == content[MIB:]


# Writes that are to be durable

@needs_root
@pytest.mark.parametrize(("opened", "flags", "options"), [
    (0, os.O_DSYNC, []),                                            # RWF_DSYNC
    (0, os.O_SYNC, ["--cache", "never"]),                           # mount -o sync
    (os.O_DSYNC, os.O_SYNC, []),
    (os.O_DIRECT, os.O_DIRECT | os.O_DSYNC, ["--allow-direct-io"]),
    (os.O_DIRECT | os.O_DSYNC, os.O_DSYNC, ["--allow-direct-io"]),  # O_DIRECT was taken back
], ids=["one-write", "the-mount", "more", "direct", "not-direct-any-more"])
def test_a_write_that_is_to_be_durable_is_answered_once_it_is(
        hanging: HangingMount, connect: Connect, opened: int, flags: int, options: list[str]) -> None:
    """Linux sends no FSYNC after what it writes past its page cache: the flags of the WRITE say it all."""
    guest = connect(*options, share=hanging.path)
    node = guest.fuse.lookup(ROOT, "file").nodeid
    fh = guest.fuse.open(node, os.O_RDWR | opened).fh
    with hanging.hang(Opcode.FSYNC):
        body = abi.WRITE_IN.pack(fh=fh, offset=0, size=4096, flags=os.O_RDWR | flags)
        ticket = guest.fuse.submit(Opcode.WRITE, node, body, data=bytes(4096), out_size=abi.WRITE_OUT.size)
        hanging.wait_for_held()
        assert ticket.used_len is None
    assert abi.WRITE_OUT.unpack(guest.fuse.complete(ticket).data).size == 4096


# Full disks

@needs_root
def test_a_write_that_fills_the_disk_says_how_much_it_wrote(connect: Connect, mounts: Mounts) -> None:
    guest = connect(share=mounts.tmpfs(options="size=1m"), queue_size=512)
    fuse = guest.fuse
    entry, handle = fuse.create(ROOT, "file")
    content = os.urandom(MIB)
    done = fuse.write(entry.nodeid, handle.fh, 100, content)
    assert 0 < done < MIB
    with refused(errno.ENOSPC):
        fuse.write(entry.nodeid, handle.fh, 100 + done, content[done:])
    assert (guest.share / "file").read_bytes() == bytes(100) + content[:done]
    fuse.setattr(entry.nodeid, size=0)
    assert fuse.write(entry.nodeid, handle.fh, 0, b"data") == 4


@needs_root
def test_what_the_guest_has_just_forgotten_makes_room_for_what_it_writes(connect: Connect, mounts: Mounts) -> None:
    """Its space is free once its descriptor is closed, which comes after the FORGET and may take a while."""
    guest = connect(share=mounts.tmpfs(options="size=256m"), memory_mib=64, queue_size=1024)
    piece = b"n" * (1 << 20)
    entry, handle = guest.fuse.create(ROOT, "new", 0o600)
    for number in range(3):
        with (guest.share / "big").open("wb") as big, contextlib.suppress(OSError):
            while True:
                big.write(piece)
        node = guest.fuse.lookup(ROOT, "big").nodeid
        guest.fuse.unlink(ROOT, "big")
        guest.fuse.forget(node)
        assert guest.fuse.write(entry.nodeid, handle.fh, number << 20, piece) == 1 << 20


@needs_root
def test_a_write_of_cached_pages_for_which_there_is_no_room_fails_as_a_whole(connect: Connect, mounts: Mounts) -> None:
    """The guest looks at the error alone, and would take all of its pages for written. A program gets what there is."""
    guest = connect(share=mounts.tmpfs(options="size=256k"))
    entry, handle = guest.fuse.create(ROOT, "file")
    (guest.share / "filler").write_bytes(bytes(200 << 10))
    with refused(errno.ENOSPC):
        guest.fuse.write(entry.nodeid, handle.fh, 0, bytes(128 << 10), write_flags=abi.FUSE_WRITE_CACHE)
    assert 0 < guest.fuse.write(entry.nodeid, handle.fh, 0, bytes(128 << 10)) < 128 << 10
