"""INIT and DESTROY, what holds without a session, and what holds for every request and reply."""

import errno
import os
import pathlib
import stat

import pytest

from frontend import fuse_abi as abi
from frontend.device import HIPRIO, REQUEST, VirtioFs
from frontend.fuse import LINUX_FLAGS, FuseClient, Reply
from frontend.fuse_abi import Opcode
from tests.conftest import StartDaemon
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, error_of, refused
from tests.running import Daemon

WANTED = (
    abi.FUSE_ASYNC_READ | abi.FUSE_ATOMIC_O_TRUNC | abi.FUSE_BIG_WRITES | abi.FUSE_DONT_MASK | abi.FUSE_HAS_IOCTL_DIR
    | abi.FUSE_AUTO_INVAL_DATA | abi.FUSE_ASYNC_DIO | abi.FUSE_PARALLEL_DIROPS | abi.FUSE_MAX_PAGES
    | abi.FUSE_CACHE_SYMLINKS | abi.FUSE_SETXATTR_EXT | abi.FUSE_INIT_EXT | abi.FUSE_CREATE_SUPP_GROUP
    | abi.FUSE_DO_READDIRPLUS | abi.FUSE_READDIRPLUS_AUTO | abi.FUSE_EXPORT_SUPPORT | abi.FUSE_SUBMOUNTS
    | abi.FUSE_HANDLE_KILLPRIV_V2 | abi.FUSE_ALLOW_IDMAP)


def works(fuse: FuseClient, share: pathlib.Path) -> None:
    assert fuse.getattr(ROOT).attr_ino == share.stat().st_ino


# INIT

def test_init_takes_what_it_is_offered_and_wants(device: VirtioFs, share: pathlib.Path) -> None:
    fuse = FuseClient(device)
    out = fuse.init()
    assert (out.major, out.minor, out.length) == (7, abi.FUSE_KERNEL_MINOR_VERSION, 64)
    assert fuse.flags == WANTED
    assert out.max_readahead == 131_072
    assert out.max_pages == device.queues[REQUEST].size - 4 and out.max_write == out.max_pages * 4096
    assert 0 < out.congestion_threshold <= out.max_background
    assert (out.time_gran, out.map_alignment, out.request_timeout) == (1, 0, 0)
    assert out.unused == bytes(22)
    works(fuse, share)


@pytest.mark.parametrize("flags", [0, abi.FUSE_BIG_WRITES, abi.FUSE_INIT_EXT, LINUX_FLAGS & 0xffffffff,
                                   LINUX_FLAGS & ~abi.FUSE_INIT_EXT, (1 << 64) - 1])
def test_init_agrees_to_nothing_that_was_not_offered(device: VirtioFs, share: pathlib.Path, flags: int) -> None:
    fuse = FuseClient(device)
    fuse.init(flags)
    high = flags >> 32 if flags & abi.FUSE_INIT_EXT else 0      # without this flag the rest is not there
    assert fuse.flags == WANTED & (flags & 0xffffffff | high << 32)
    works(fuse, share)


def test_an_open_does_not_cut_where_it_cannot_say_that_set_id_bits_have_to_go(device: VirtioFs,
                                                                             connect: Connect) -> None:
    fuse = FuseClient(device)
    fuse.init(LINUX_FLAGS & ~abi.FUSE_HANDLE_KILLPRIV_V2)
    assert fuse.flags == WANTED & ~(abi.FUSE_HANDLE_KILLPRIV_V2 | abi.FUSE_ATOMIC_O_TRUNC)
    assert not connect("--no-killpriv-v2").fuse.flags & abi.FUSE_ATOMIC_O_TRUNC


@pytest.mark.parametrize("size", [16, 24, 63])
def test_a_short_init_has_no_more_flags(device: VirtioFs, share: pathlib.Path, size: int) -> None:
    """As kernels before 5.17 send it; what is missing is zero."""
    fuse = FuseClient(device)
    out = fuse.init(size=size)
    assert out.length == 64 and out.flags2 == 0
    works(fuse, share)


def test_a_long_init_is_read_as_far_as_it_is_known(device: VirtioFs, share: pathlib.Path) -> None:
    fuse = FuseClient(device)
    assert fuse.init(size=200).length == 64 and fuse.flags == WANTED
    works(fuse, share)


@pytest.mark.parametrize("size", [0, 4, 15])
def test_an_init_that_is_too_short_is_refused(device: VirtioFs, size: int) -> None:
    with refused(errno.EINVAL):
        FuseClient(device).init(size=size)


@pytest.mark.parametrize("minor", [27, 31, 36, 45, 46, 1000])
def test_init_of_every_minor_version_since_virtio_fs(device: VirtioFs, share: pathlib.Path, minor: int) -> None:
    fuse = FuseClient(device)
    out = fuse.init(minor=minor)
    assert (out.major, out.minor, out.length) == (7, abi.FUSE_KERNEL_MINOR_VERSION, 64)
    works(fuse, share)


@pytest.mark.parametrize("major, minor", [(7, 26), (7, 0), (6, 45), (0, 0)])
def test_init_of_a_version_before_virtio_fs_is_refused(device: VirtioFs, daemon: Daemon, major: int,
                                                      minor: int) -> None:
    fuse = FuseClient(device)
    with refused(errno.EPROTO):
        fuse.init(major=major, minor=minor)
    assert daemon.statistics()["session"] == 0
    with refused(errno.EIO):
        fuse.getattr(ROOT)


@pytest.mark.parametrize("major", [8, 9, 0xffffffff])
def test_init_of_a_later_major_version_is_asked_to_come_again(device: VirtioFs, share: pathlib.Path, daemon: Daemon,
                                                             major: int) -> None:
    fuse = FuseClient(device)
    out = fuse.init(major=major, minor=3)
    assert (out.major, out.minor, out.flags, out.max_write) == (7, abi.FUSE_KERNEL_MINOR_VERSION, 0, 0)
    assert daemon.statistics()["session"] == 0
    with refused(errno.EIO):
        fuse.getattr(ROOT)
    fuse.init()
    works(fuse, share)


@pytest.mark.parametrize("readahead", [0, 4096, 131_072, 0xffffffff])
def test_init_leaves_the_guests_readahead_alone(device: VirtioFs, readahead: int) -> None:
    assert FuseClient(device).init(max_readahead=readahead).max_readahead == readahead


@pytest.mark.parametrize("size", [64, 128, 512, 1024])
def test_requests_may_be_as_large_as_the_queue_takes(connect: Connect, size: int) -> None:
    guest = connect(queue_size=size)
    out = guest.fuse.init()
    assert out.max_pages == max(256, size - 4) and out.max_write == out.max_pages * 4096


def test_init_is_served_on_every_request_queue(connect: Connect) -> None:
    guest = connect(num_queues=3)
    for queue in (2, 3, 1):
        guest.fuse.init(queue=queue)
        for other in (1, 2, 3):
            guest.fuse.getattr(ROOT, queue=other)


@pytest.mark.parametrize("room", [0, 8, 24, 63])
def test_an_init_with_too_little_room_for_its_reply_starts_nothing(device: VirtioFs, daemon: Daemon,
                                                                  room: int) -> None:
    fuse = FuseClient(device)
    body = abi.INIT_IN.pack(major=7, minor=45, flags=LINUX_FLAGS & 0xffffffff)
    assert error_of(fuse.call(Opcode.INIT, 0, body, out_size=room, check=False)) == "EINVAL"
    assert daemon.statistics()["session"] == 0


# Sessions that follow each other

def test_a_second_init_drops_what_the_first_session_had(fuse: FuseClient, share: pathlib.Path, daemon: Daemon) -> None:
    """A guest that was reset says no DESTROY."""
    for name in ("file", "other"):
        (share / name).write_bytes(b"data")
    file, other = fuse.lookup(ROOT, "file").nodeid, fuse.lookup(ROOT, "other").nodeid
    fh, folder_fh = fuse.open(file).fh, fuse.opendir(ROOT).fh
    fuse.init()
    daemon.wait_for(inodes=0, inodes_closing=0, files_open=0, descriptors_cached=0)
    for node in (file, other):
        with refused(errno.ESTALE):
            fuse.getattr(node)
    for run in (lambda: fuse.read(file, fh, 0, 4), lambda: fuse.readdir(ROOT, folder_fh)):
        with refused(errno.EBADF):
            run()
    again = fuse.lookup(ROOT, "file").nodeid
    assert again not in (file, other)
    with refused(errno.EBADF):
        fuse.read(again, fh, 0, 4)


def test_a_second_init_settles_the_flags_anew(fuse: FuseClient, share: pathlib.Path) -> None:
    fuse.init(0)
    fuse.mkdir(ROOT, "one", 0o777, umask=0o077)
    fuse.init()
    fuse.mkdir(ROOT, "other", 0o777, umask=0o077)
    assert [stat.S_IMODE((share / name).stat().st_mode) for name in ("one", "other")] == [0o777, 0o700]


def test_destroy_drops_everything_and_ends_the_session(fuse: FuseClient, share: pathlib.Path, daemon: Daemon) -> None:
    (share / "file").write_bytes(b"data")
    node = fuse.lookup(ROOT, "file").nodeid
    fuse.open(node)
    fuse.opendir(ROOT)
    fuse.destroy()
    daemon.wait_for(inodes=0, inodes_closing=0, files_open=0, descriptors_cached=0, session=0)
    assert not any(name.startswith(str(share / "file")) for name in daemon.open_files())
    with refused(errno.EIO):
        fuse.getattr(ROOT)
    fuse.destroy()      # without a session it is no mistake
    fuse.init()
    with refused(errno.ESTALE):
        fuse.getattr(node)
    works(fuse, share)


def test_many_sessions_leave_nothing(fuse: FuseClient, share: pathlib.Path, daemon: Daemon) -> None:
    (share / "file").touch()
    before = len(daemon.open_files())
    seen = set()
    for number in range(50):
        node = fuse.lookup(ROOT, "file").nodeid
        assert node not in seen
        seen.add(node)
        fuse.open(node)
        if number % 2:
            fuse.destroy()
        fuse.init()
    daemon.wait_for(inodes=0, inodes_closing=0, files_open=0, descriptors_cached=0)
    assert len(daemon.open_files()) == before


# Without a session

def test_before_any_init_requests_are_refused_and_forgets_and_interrupts_ignored(start_daemon: StartDaemon) -> None:
    daemon = start_daemon()
    (daemon.share / "file").touch()
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        for run in (lambda: fuse.getattr(ROOT), lambda: fuse.lookup(ROOT, "file"), lambda: fuse.mkdir(ROOT, "new"),
                    lambda: fuse.opendir(ROOT), fuse.statfs, lambda: fuse.unlink(ROOT, "file"), fuse.syncfs):
            with refused(errno.EIO):
                run()
        assert os.listdir(daemon.share) == ["file"]
        fuse.forget(ROOT)
        fuse.forget(1 << 32 | 2, 5)
        fuse.batch_forget([(ROOT, 1), (77, 1)])
        fuse.interrupt(2)
        assert daemon.statistics()["inodes"] == 0
        fuse.init()
        works(fuse, daemon.share)


# Unknown and silent requests

@pytest.mark.parametrize("opcode", [0, 7, 19, 54, 63, 64, 65, 1000, 4096, 436_207_616, 0x7fffffff, 0x80000000,
                                    0xffffffff])
def test_unknown_operations_are_said_to_be_unknown(fuse: FuseClient, share: pathlib.Path, opcode: int) -> None:
    for body in (b"", bytes(8), bytes(200)):
        reply = fuse.call(opcode, ROOT, body, out_size=200, check=False)
        assert error_of(reply) == "ENOSYS"
    works(fuse, share)


def test_unknown_operations_without_room_for_a_reply_get_none(fuse: FuseClient, share: pathlib.Path) -> None:
    fuse.drop(1000, ROOT, bytes(50))
    fuse.drop(Opcode.NOTIFY_REPLY, ROOT, bytes(50), queue=REQUEST)
    works(fuse, share)


@pytest.mark.parametrize("queue", [HIPRIO, REQUEST])
def test_interrupts_are_ignored(fuse: FuseClient, share: pathlib.Path, queue: int) -> None:
    for unique in (0, 1, 2, fuse.unique, (1 << 64) - 1):
        fuse.interrupt(unique, queue=queue)
    works(fuse, share)


@pytest.mark.parametrize("opcode, body", [
    (Opcode.FORGET, b""), (Opcode.FORGET, bytes(7)), (Opcode.INTERRUPT, bytes(7)), (Opcode.BATCH_FORGET, bytes(7)),
    (Opcode.FORGET, bytes(100)), (Opcode.INTERRUPT, bytes(100))])
def test_bad_silent_requests_stay_silent(fuse: FuseClient, share: pathlib.Path, opcode: Opcode, body: bytes) -> None:
    fuse.drop(opcode, ROOT, body)
    ticket = fuse.submit(opcode, ROOT, body, out_size=100)
    fuse.returned(ticket.queue)
    assert ticket.used_len == 0     # where there is room for a reply, too
    works(fuse, share)


def test_requests_are_served_on_the_hiprio_queue_too(fuse: FuseClient, share: pathlib.Path) -> None:
    assert fuse.getattr(ROOT, queue=HIPRIO).attr_ino == share.stat().st_ino
    fuse.mkdir(ROOT, "new", queue=HIPRIO)
    assert os.listdir(share) == ["new"]


# Requests and replies

def test_the_unique_is_echoed_whatever_it_is(fuse: FuseClient) -> None:
    for unique in (0, 1, 2, 1 << 63, (1 << 64) - 1, 0x0123456789abcdef):
        ticket = fuse.submit(Opcode.GETATTR, ROOT, abi.GETATTR_IN.pack(), out_size=abi.ATTR_OUT.size,
                             header={"unique": unique})
        ticket.unique = unique
        assert not fuse.complete(ticket).error
        ticket = fuse.submit(1000, ROOT, header={"unique": unique})
        ticket.unique = unique
        assert error_of(fuse.complete(ticket)) == "ENOSYS"


def test_replies_belong_to_their_requests(connect: Connect) -> None:
    """Many in flight, slow ones among them: each comes back once, with its own answer."""
    guest = connect(queue_size=256)
    fuse = guest.fuse
    (guest.share / "file").write_bytes(bytes(range(256)))
    node = fuse.lookup(ROOT, "file").nodeid
    fh = fuse.open(node, os.O_RDWR).fh
    tickets = []
    for number in range(100):
        if number % 10 == 9:
            tickets.append((number, fuse.submit(Opcode.FSYNC, node, abi.FSYNC_IN.pack(fh=fh))))
        else:
            tickets.append((number, fuse.submit(Opcode.READ, node, abi.READ_IN.pack(fh=fh, offset=number, size=1),
                                                out_pages=1)))
    for number, ticket in tickets:
        reply = fuse.complete(ticket)
        assert reply.error == 0 and reply.data == (b"" if number % 10 == 9 else bytes([number]))
    assert guest.device.queues[REQUEST].in_flight == []


def lying(fuse: FuseClient, length: int, body: bytes = b"file\0", opcode: Opcode = Opcode.LOOKUP) -> Reply:
    return fuse.call(opcode, ROOT, body, out_size=abi.ENTRY_OUT.size, header={"len": length}, check=False)


def test_a_length_that_is_not_the_messages_is_refused(fuse: FuseClient, share: pathlib.Path, daemon: Daemon) -> None:
    """Less than a header, or more than was sent."""
    (share / "file").touch()
    size = abi.IN_HEADER.size + len(b"file\0")
    for length in (0, 1, 16, abi.IN_HEADER.size - 1, size + 1, 4096, 0x7fffffff, 0x80000000, 0xffffffff):
        assert error_of(lying(fuse, length)) == "EINVAL"
    assert daemon.statistics()["inodes"] == 0


def test_what_stands_behind_the_length_is_not_read(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "file").touch()
    size = abi.IN_HEADER.size + len(b"file\0")
    assert error_of(lying(fuse, size, b"file\0 and more")) == ""
    fuse.lookups[fuse.lookup(ROOT, "file").nodeid] += 1
    assert error_of(lying(fuse, size - 1)) == "EINVAL"      # a name without its end
    assert error_of(lying(fuse, abi.IN_HEADER.size)) == "EINVAL"
    assert error_of(lying(fuse, abi.IN_HEADER.size + 7, abi.MKDIR_IN.pack(mode=0o755) + b"n\0", Opcode.MKDIR)) == \
        "EINVAL"


def test_data_behind_the_length_is_not_written(fuse: FuseClient, share: pathlib.Path) -> None:
    entry, opened = fuse.create(ROOT, "file")
    body = abi.WRITE_IN.pack(fh=opened.fh, size=100)
    for behind in (0, 99):
        reply = fuse.call(Opcode.WRITE, entry.nodeid, body, bytes(100), out_size=abi.WRITE_OUT.size, check=False,
                          header={"len": abi.IN_HEADER.size + abi.WRITE_IN.size + behind})
        assert error_of(reply) == "EINVAL"
    assert (share / "file").read_bytes() == b""


def test_forgets_behind_the_length_are_not_done(fuse: FuseClient, share: pathlib.Path) -> None:
    nodes = []
    for name in ("one", "other"):
        (share / name).touch()
        nodes.append(fuse.lookup(ROOT, name).nodeid)
    body = abi.BATCH_FORGET_IN.pack(count=2) + b"".join(abi.FORGET_ONE.pack(nodeid=node, nlookup=1) for node in nodes)
    fuse.drop(Opcode.BATCH_FORGET, 0, body, header={"len": abi.IN_HEADER.size + len(body) - 1})
    fuse.lookups[nodes[0]] -= 1
    with refused(errno.ESTALE):
        fuse.getattr(nodes[0])
    fuse.getattr(nodes[1])


@pytest.mark.parametrize("size", [0, 1, 39])
def test_less_than_a_header_comes_back_empty(fuse: FuseClient, share: pathlib.Path, size: int) -> None:
    """There is no unique to answer to."""
    memory = fuse.device.memory
    queue = fuse.device.queues[REQUEST]
    request, reply = memory.alloc(4096), memory.alloc(4096)
    head = queue.add([(request, size, False), (reply, 100, True)])
    queue.publish()
    fuse.device.kick(REQUEST)
    assert fuse.device.wait(REQUEST) == [(head, 0)]
    works(fuse, share)


@pytest.mark.parametrize("room", [1, 8, 15])
def test_a_reply_without_room_for_its_header_is_none_and_nothing_is_done(fuse: FuseClient, share: pathlib.Path,
                                                                        room: int) -> None:
    memory, queue = fuse.device.memory, fuse.device.queues[REQUEST]
    body = fuse.message(Opcode.MKDIR, ROOT, abi.MKDIR_IN.pack(mode=0o755) + b"new\0", {})
    request, reply = memory.alloc(4096), memory.alloc(4096)
    memory.write(request, body)
    head = queue.add([(request, len(body), False), (reply, room, True)])
    queue.publish()
    fuse.device.kick(REQUEST)
    assert fuse.device.wait(REQUEST) == [(head, 0)]
    assert os.listdir(share) == []


@pytest.mark.parametrize("queue_size, indirect, event_idx", [(4, True, True), (16, False, True), (256, False, False),
                                                             (8, True, False)])
def test_replies_are_right_on_every_kind_of_ring(connect: Connect, queue_size: int, indirect: bool,
                                                 event_idx: bool) -> None:
    guest = connect(queue_size=queue_size, indirect=indirect, event_idx=event_idx)
    fuse = guest.fuse
    (guest.share / "file").write_bytes(b"data")
    for _ in range(3 * queue_size):
        node = fuse.lookup(ROOT, "file").nodeid
        fh = fuse.open(node).fh
        assert fuse.read(node, fh, 0, 100) == b"data"
        fuse.release(node, fh)
    assert guest.device.queues[REQUEST].in_flight == []
