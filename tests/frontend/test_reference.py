"""The whole front-end against a back-end that others wrote."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator

import pytest

from frontend.back_end import BackEnd
from frontend.device import VirtioFs
from frontend.fuse import FuseClient, FuseError
from frontend.memory import RegionSpec
from frontend.profiles import PROFILES
from virtiofsd import virtio_abi as virtio


@pytest.fixture
def client(reference: BackEnd) -> Iterator[FuseClient]:
    with VirtioFs(reference.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        yield fuse


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_starts_stops_and_starts_again(start_reference: Callable[..., BackEnd], profile: str) -> None:
    back_end = start_reference("--tag", "shared")
    with VirtioFs(back_end.socket, profile=profile) as device:
        fuse = FuseClient(device)
        fuse.init()
        assert fuse.getattr(1).attr_ino == back_end.share.stat().st_ino
        if device.has("CONFIG"):
            assert device.tag == "shared"
        device.stop()
        device.start()
        assert fuse.getattr(1).attr_ino == back_end.share.stat().st_ino


@pytest.mark.parametrize("event_idx", [False, True])
@pytest.mark.parametrize("indirect", [False, True])
def test_rings_with_and_without_their_features(reference: BackEnd, event_idx: bool, indirect: bool) -> None:
    with VirtioFs(reference.socket, event_idx=event_idx, indirect=indirect, queue_size=16) as device:
        fuse = FuseClient(device)
        fuse.init()
        for _ in range(100):
            fuse.getattr(1)
        assert len(device.queues[1].in_flight) == 0
        assert device.queues[1].num_free == 16


def test_scattered_memory_regions(reference: BackEnd) -> None:
    regions = [RegionSpec(0x10000, 16 << 20), RegionSpec(0x10000 + (16 << 20), 1 << 20),
               RegionSpec(1 << 32, 16 << 20, mmap_offset=1 << 20)]
    with VirtioFs(reference.socket, memory=regions, profile="qemu-7.2") as device:
        fuse = FuseClient(device)
        fuse.init()
        extra = device.add_memory(RegionSpec(1 << 33, 2 << 20))
        (reference.share / "f").write_bytes(b"x" * 100)
        node = fuse.lookup(1, "f").nodeid
        fh = fuse.open(node).fh
        assert fuse.read(node, fh, 0, 4096) == b"x" * 100
        device.remove_memory(extra)
        assert fuse.read(node, fh, 50, 4096) == b"x" * 50


def test_files(client: FuseClient, reference: BackEnd) -> None:
    reference.share.chmod(0o777)
    entry, opened = client.create(1, "new", 0o640, uid=1000, gid=1000)
    found = (reference.share / "new").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1000, 1000, 0o640)
    data = os.urandom(300_000)
    assert client.write(entry.nodeid, opened.fh, 0, data) == len(data)
    assert client.read(entry.nodeid, opened.fh, 0, len(data)) == data
    assert (reference.share / "new").read_bytes() == data
    client.fsync(entry.nodeid, opened.fh)
    client.flush(entry.nodeid, opened.fh)
    assert client.lseek(entry.nodeid, opened.fh, 0, os.SEEK_HOLE) == len(data)
    client.fallocate(entry.nodeid, opened.fh, 0, 400_000)
    assert client.getattr(entry.nodeid).attr_size == 400_000
    assert client.setattr(entry.nodeid, size=10, mode=0o600, mtime=12.5).attr_mtimensec == 500_000_000
    assert client.copy_file_range(entry.nodeid, opened.fh, 0, entry.nodeid, opened.fh, 100, 5) == 5
    client.setxattr(entry.nodeid, "user.a", b"value")
    assert client.getxattr(entry.nodeid, "user.a") == b"value"
    assert client.getxattr_size(entry.nodeid, "user.a") == 5
    assert client.listxattr(entry.nodeid) == [b"user.a"]
    client.removexattr(entry.nodeid, "user.a")
    with contextlib.suppress(FuseError):        # the reference has no locks
        client.setlk(entry.nodeid, opened.fh, 7, fcntl.F_WRLCK)
    client.release(entry.nodeid, opened.fh)
    client.forget_all()
    assert client.lookups == {}


def test_names(client: FuseClient) -> None:
    folder = client.mkdir(1, "d").nodeid
    client.symlink(folder, "s", "somewhere")
    assert client.readlink(client.lookup(folder, "s").nodeid) == b"somewhere"
    client.mknod(folder, "f", 0o100644)
    client.link(client.walk("d/f").nodeid, 1, "g")
    client.rename(folder, "f", 1, "h")
    client.rename2(1, "h", folder, "f", 1)
    assert {entry.name for entry in client.listdir(folder)} == {b".", b"..", b"s", b"f"}
    plus = {entry.name: entry.entry for entry in client.listdir(plus=True)}
    assert plus[b"g"] is not None and plus[b"g"].attr_nlink == 2
    client.unlink(folder, "f")
    client.unlink(folder, "s")
    client.rmdir(1, "d")
    with pytest.raises(FuseError) as failed:
        client.lookup(1, "d")
    assert failed.value.errno == errno.ENOENT
    assert client.statfs().bsize > 0


@pytest.mark.parametrize("framing", [[1] * 12, [0, 40], [39, 1, 4], [20, 20, 16], [100]])
def test_any_framing_of_a_request(client: FuseClient, framing: list[int]) -> None:
    assert client.getattr(1, framing=framing).attr_nlink >= 2


def test_several_requests_in_flight(client: FuseClient) -> None:
    tickets = [client.submit(3, 1, bytes(16), out_size=104, publish=False) for _ in range(20)]
    queue = client.device.queues[1]
    queue.publish()
    queue.kick()
    assert [client.complete(ticket, 5, 104).error for ticket in tickets] == [0] * 20


def test_migration(start_reference: Callable[..., BackEnd]) -> None:
    source, target = start_reference(), start_reference()
    (source.share / "f").write_bytes(b"x" * 5000)
    (target.share / "f").write_bytes(b"y" * 5000)
    with VirtioFs(source.socket) as device:
        if not (device.has("DEVICE_STATE") and device.has("LOG_SHMFD")):
            pytest.skip("this back-end cannot be migrated")
        fuse = FuseClient(device)
        fuse.init()
        node = fuse.lookup(1, "f").nodeid
        fh = fuse.open(node).fh
        device.start_log()
        device.dirty_pages()
        assert fuse.read(node, fh, 0, 5000) == b"x" * 5000
        assert len(device.dirty_pages()) >= 3       # two pages of data, and the header's
        device.stop_log()
        device.stop()
        state = device.save_state()
        device.reconnect(target.socket, state)
        assert fuse.read(node, fh, 0, 5000) == b"y" * 5000


def test_a_dead_back_end_is_noticed_at_once(client: FuseClient, reference: BackEnd) -> None:
    reference.process.kill()
    with pytest.raises(ConnectionError):
        client.getattr(1, timeout=30)


def test_features_that_the_back_end_lacks_are_refused(start_reference: Callable[..., BackEnd]) -> None:
    back_end = start_reference()
    with pytest.raises(Exception, match="does not offer"):
        VirtioFs(back_end.socket, extra_features=virtio.VIRTIO_F_RING_RESET)
