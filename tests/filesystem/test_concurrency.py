"""Several queues at once on the same names: nothing is answered wrong, counted wrong, or left over."""

import errno
import functools
import os
import pathlib
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest

from frontend import fuse_abi as abi
from frontend.fuse import FuseClient, FuseError
from frontend.fuse_abi import Opcode
from tests.filesystem.conftest import Connect
from tests.filesystem.support import (
    ROOT,
    Guest,
    LockedMemory,
    Mounts,
    at_once,
    client,
    forget,
    give_back,
    needs_root,
)

QUEUES = 4

# What can happen to one who is overtaken by others.
OVERTAKEN = {errno.ENOENT, errno.EEXIST, errno.ESTALE, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ENXIO,
             errno.EINVAL, errno.EPERM}


def others(guest: Guest) -> list[str]:
    """The daemon's descriptors but for its threads' and the shared directory's, by which handles are opened."""
    return [name for name in guest.daemon.open_files()
            if name != str(guest.share) and f"/proc/{guest.daemon.process.pid}/task" not in name]


@pytest.fixture
def guest(connect: Connect) -> Iterator[Guest]:
    guest = connect(num_queues=QUEUES, memory=LockedMemory(64))
    guest.fuse.getattr(ROOT)
    before = others(guest)
    yield guest
    give_back(guest.fuse)
    guest.daemon.wait_for(inodes=0, inodes_closing=0, files_open=0, descriptors_cached=0)
    assert others(guest) == before


def hammer(guest: Guest, queue: int, rounds: int, names: Sequence[str]) -> None:
    """Does anything with any of the names, and gives back what it looked up."""
    fuse = client(guest, queue)
    chosen = random.Random(queue)
    handles: list[tuple[int, int]] = []
    parents = [ROOT]

    def look_up() -> int:
        return int(fuse.lookup(chosen.choice(parents), chosen.choice(names)).nodeid)

    def open_file() -> None:
        node = look_up()
        handles.append((node, fuse.open(node, os.O_RDWR).fh))

    def create() -> None:
        entry, opened = fuse.create(chosen.choice(parents), chosen.choice(names))
        handles.append((entry.nodeid, opened.fh))

    def make_folder() -> None:
        parents.append(fuse.mkdir(chosen.choice(parents), chosen.choice(names)).nodeid)

    def use_handle() -> None:
        if handles:
            node, fh = chosen.choice(handles)
            fuse.write(node, fh, chosen.randrange(100), b"data")
            fuse.read(node, fh, 0, 100)

    def release() -> None:
        if handles:
            fuse.release(*handles.pop(chosen.randrange(len(handles))))

    def forget_one() -> None:
        free = [node for node in fuse.lookups if node not in parents and node not in {node for node, _ in handles}]
        if free:
            forget(fuse, chosen.choice(free))

    def list_all() -> None:
        parent = chosen.choice(parents)
        fh = fuse.opendir(parent).fh
        try:
            fuse.readdirplus(parent, fh)
        finally:
            fuse.releasedir(parent, fh)

    def rename() -> None:
        fuse.rename2(chosen.choice(parents), chosen.choice(names), chosen.choice(parents), chosen.choice(names),
                     chosen.choice((0, 0, 1, 2)))

    actions: list[Callable[[], object]] = [
        look_up, look_up, open_file, create, create, make_folder, use_handle, use_handle, release, release, forget_one,
        forget_one, list_all, rename, rename,
        lambda: fuse.unlink(chosen.choice(parents), chosen.choice(names)),
        lambda: fuse.unlink(chosen.choice(parents), chosen.choice(names)),
        lambda: fuse.rmdir(chosen.choice(parents), chosen.choice(names)),
        lambda: fuse.link(look_up(), chosen.choice(parents), chosen.choice(names)),
        lambda: fuse.getattr(look_up()),
        lambda: fuse.setattr(look_up(), mtime=1.0),
        lambda: fuse.lookup(chosen.choice(parents), ".."),
    ]
    for _ in range(rounds):
        try:
            chosen.choice(actions)()
        except FuseError as error:
            if error.errno not in OVERTAKEN:
                raise
        if len(parents) > 3:
            parents.pop(1)
    for handle in handles:
        fuse.release(*handle)
    for node, count in list(fuse.lookups.items()):
        if node != ROOT:
            forget(fuse, node, count)


NAMES = [f"name{number}" for number in range(6)]


def test_queues_that_work_on_the_same_names(guest: Guest) -> None:
    at_once([lambda queue=queue: hammer(guest, queue, 3000, NAMES) for queue in range(1, QUEUES + 1)])
    assert guest.daemon.wait_for(inodes=0)["session"] == 1


def test_queues_and_the_host_that_work_on_the_same_names(guest: Guest) -> None:
    ended = threading.Event()

    def host() -> None:
        chosen = random.Random(9)
        while not ended.is_set():
            path = guest.share / chosen.choice(NAMES)
            try:
                match chosen.randrange(6):
                    case 0:
                        path.write_bytes(b"x" * chosen.randrange(100))
                    case 1:
                        path.unlink()
                    case 2:
                        path.mkdir()
                    case 3:
                        path.rename(guest.share / chosen.choice(NAMES))
                    case 4:
                        path.symlink_to(chosen.choice(NAMES))
                    case _:
                        path.rmdir()
            except OSError:
                continue

    thread = threading.Thread(target=host)
    thread.start()
    try:
        at_once([lambda queue=queue: hammer(guest, queue, 2000, NAMES) for queue in range(1, QUEUES + 1)])
    finally:
        ended.set()
        thread.join()
    guest.daemon.wait_for(inodes=0)


def test_queues_that_look_up_one_file_get_one_node_and_count_together(guest: Guest) -> None:
    """Entered by all at the same moment, again and again: one node, and as many references as there were lookups."""
    names = [f"file{number}" for number in range(300)]
    for name in names:
        (guest.share / name).touch()
    clients = [client(guest, queue) for queue in range(1, QUEUES + 1)]
    found: list[dict[str, int]] = [{} for _ in clients]

    def look(number: int) -> None:
        for name in names:
            found[number][name] = clients[number].lookup(ROOT, name).nodeid

    at_once([lambda number=number: look(number) for number in range(QUEUES)])
    assert all(other == found[0] for other in found)
    assert guest.daemon.statistics()["inodes"] == len(names)
    for fuse in clients[1:]:
        give_back(fuse)
    assert guest.daemon.statistics()["inodes"] == len(names)
    for node in found[0].values():
        guest.fuse.getattr(node)
    give_back(clients[0])
    assert guest.daemon.statistics()["inodes"] == 0


def test_lookups_and_forgets_that_chase_each_other(guest: Guest) -> None:
    """The last reference goes while another queue takes a new one: the node is never half there."""
    (guest.share / "file").write_bytes(b"data")
    number = (guest.share / "file").stat().st_ino
    seen: Counter[int] = Counter()

    def chase(queue: int) -> None:
        fuse = client(guest, queue)
        for _ in range(1500):
            node = fuse.lookup(ROOT, "file").nodeid
            attr = fuse.getattr(node)
            assert (attr.attr_ino, attr.attr_size) == (number, 4)
            forget(fuse, node)
            seen[node] += 1

    at_once([lambda queue=queue: chase(queue) for queue in range(1, QUEUES + 1)])
    assert sum(seen.values()) == 1500 * QUEUES
    assert guest.daemon.statistics()["inodes"] == 0


def test_one_directory_handle_read_by_several_queues(guest: Guest) -> None:
    names = {f"a name like others {number}".encode() for number in range(400)}
    for name in names:
        (guest.share / os.fsdecode(name)).touch()
    fh = guest.fuse.opendir(ROOT).fh

    def read(queue: int) -> None:
        fuse = client(guest, queue)
        for _ in range(5):
            found = []
            offset = 0
            while entries := fuse.readdir(ROOT, fh, offset, 1500, plus=queue % 2 == 0):
                found += [entry.name for entry in entries if entry.name not in (b".", b"..")]
                offset = entries[-1].offset
            assert len(found) == len(names) and set(found) == names
        give_back_on(fuse)

    def give_back_on(fuse: FuseClient) -> None:
        for node, count in list(fuse.lookups.items()):
            forget(fuse, node, count)

    at_once([lambda queue=queue: read(queue) for queue in range(1, QUEUES + 1)])
    guest.fuse.releasedir(ROOT, fh)


def test_each_release_closes_one_handle_once(guest: Guest) -> None:
    """Several queues release the same handles at the same moment: one of them does it."""
    (guest.share / "file").touch()
    node = guest.fuse.lookup(ROOT, "file").nodeid
    clients = [client(guest, queue) for queue in range(1, QUEUES + 1)]
    for _ in range(12):
        handles = [guest.fuse.open(node).fh for _ in range(100)]
        tickets = [(fuse, fh, fuse.submit(Opcode.RELEASE, node, abi.RELEASE_IN.pack(fh=fh), queue=fuse.queue,
                                          publish=False)) for fuse in clients for fh in handles]
        for fuse in clients:
            guest.device.queues[fuse.queue].publish()
        for fuse in clients:
            guest.device.kick(fuse.queue)
        released: Counter[int] = Counter()
        for fuse, fh, ticket in tickets:
            reply = fuse.complete(ticket)
            assert reply.error in (0, -errno.EBADF)
            released[fh] += not reply.error
        assert released == Counter(handles)
        assert guest.daemon.statistics()["files_open"] == 0


@needs_root
def test_queues_that_know_more_files_than_there_are_descriptors(connect: Connect, file_system: pathlib.Path) -> None:
    """Each pushes out what the others use."""
    for number in range(1000):
        (file_system / str(number)).write_text(str(number))
    guest = connect("--rlimit-nofile", "256", share=file_system, num_queues=QUEUES, memory=LockedMemory(64))

    def look(queue: int) -> None:
        fuse = client(guest, queue)
        chosen = random.Random(queue)
        for _ in range(1500):
            number = chosen.randrange(1000)
            entry = fuse.lookup(ROOT, str(number))
            attr = fuse.getattr(entry.nodeid)
            assert (attr.attr_ino, attr.attr_size) == (entry.attr_ino, len(str(number)))
            if chosen.random() < 0.3:
                fh = fuse.open(entry.nodeid).fh
                assert fuse.read(entry.nodeid, fh, 0, 10) == str(number).encode()
                fuse.release(entry.nodeid, fh)
            if chosen.random() < 0.5:
                forget(fuse, entry.nodeid)
        for node, count in list(fuse.lookups.items()):
            forget(fuse, node, count)

    at_once([lambda queue=queue: look(queue) for queue in range(1, QUEUES + 1)])
    numbers = guest.daemon.wait_for(inodes=0, inodes_closing=0, files_open=0)
    assert numbers["errors"] == 0
    assert len(guest.daemon.open_files()) <= 256


def test_a_new_session_in_the_middle_of_requests(guest: Guest) -> None:
    """As after a reset, when rings still hold what the old guest asked for."""
    for number in range(20):
        (guest.share / str(number)).write_bytes(b"data")
    ended = threading.Event()

    def use(queue: int) -> None:
        fuse = client(guest, queue)
        chosen = random.Random(queue)
        while not ended.is_set():
            try:
                node = fuse.lookup(ROOT, str(chosen.randrange(20))).nodeid
                fh = fuse.open(node, os.O_RDWR).fh
                assert fuse.read(node, fh, 0, 10) == b"data"
                fuse.listdir(plus=True)
                fuse.release(node, fh)
            except FuseError as error:
                assert error.errno in (errno.EIO, errno.ESTALE, errno.EBADF, errno.ENOENT)

    def restart() -> None:
        fuse = client(guest, 1)
        try:
            for _ in range(60):
                fuse.init()
                fuse.destroy()
                fuse.init()
        finally:
            ended.set()

    at_once([restart, *(lambda queue=queue: use(queue) for queue in range(2, QUEUES + 1))])
    guest.fuse.init()
    guest.daemon.wait_for(inodes=0, inodes_closing=0, files_open=0, descriptors_cached=0)


@needs_root
def test_threads_that_find_a_mount_while_others_forget_it_lose_no_file(connect: Connect, mounts: Mounts) -> None:
    guest = connect("--rlimit-nofile", "512", num_queues=QUEUES, memory=LockedMemory(64))
    inner = mounts.tmpfs(guest.share / "mounted")
    (inner / "file").write_bytes(b"data")

    def use(queue: int) -> None:
        fuse = client(guest, queue)
        for _ in range(500):
            parent = fuse.lookup(ROOT, "mounted").nodeid
            node = fuse.lookup(parent, "file").nodeid
            opened = fuse.open(node)
            assert fuse.read(node, opened.fh, 0, 10) == b"data"
            fuse.release(node, opened.fh)
            fuse.forget(node, queue=queue)
            fuse.forget(parent, queue=queue)

    at_once([functools.partial(use, queue) for queue in range(1, QUEUES + 1)])
    guest.daemon.wait_for(inodes=0, inodes_closing=0, files_kept=0)
    mounts.unmount_unused(inner)
