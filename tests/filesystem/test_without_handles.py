"""Few file descriptors and no file handles: files are found again by directory and name."""

import errno
import os
import pathlib
import random
import shutil
from collections import deque

import pytest

from frontend.fuse import FuseClient
from frontend.fuse_abi import ATTR_OUT, GETATTR_IN, Opcode
from tests.conftest import program
from tests.filesystem.conftest import Connect
from tests.filesystem.support import (
    ROOT,
    Guest,
    Mounts,
    connected,
    during,
    needs_root,
    push_out,
    refused,
    rename_exchange,
)
from tests.running import Daemon
from virtiofsd.vhost_user_abi import FrontRequest

pytestmark = needs_root         # only root may mount file systems

LIMIT = 512
MANY = 5000
KINDS = ("ext4", "old_ext4", "overlay")
"""File systems whose clocks tell one moment from the next, that count seconds, and of which nobody knows."""
NAMES = ("stays", "renamed", "swapped", "other", "deleted", "replaced", "linked", "moved")


@pytest.fixture(params=KINDS)
def share(request: pytest.FixtureRequest, mounts: Mounts) -> pathlib.Path:
    folder: pathlib.Path = getattr(mounts, request.param)()
    return folder


@pytest.fixture
def few(connect: Connect, share: pathlib.Path) -> Guest:
    """A guest of a daemon with few descriptors."""
    return connect("--rlimit-nofile", str(LIMIT), "--inode-file-handles", "never", share=share)


@pytest.fixture
def fewest(connect: Connect, share: pathlib.Path) -> Guest:
    """A guest of a daemon with as few descriptors as it can be given."""
    return connect("--rlimit-nofile", "256", "--inode-file-handles", "never", num_queues=4, share=share)


@pytest.fixture
def many(connect: Connect, share: pathlib.Path) -> Guest:
    """A guest of a daemon with thousands of descriptors."""
    return connect("--rlimit-nofile", "4096", "--inode-file-handles", "never", share=share)


def look_at_many(guest: Guest) -> None:
    for number in range(2 * LIMIT):
        (guest.share / f"file{number}").write_text(str(number))
    entries = [guest.fuse.lookup(ROOT, f"file{number}") for number in range(2 * LIMIT)]
    for number, entry in enumerate(entries):
        attr = guest.fuse.getattr(entry.nodeid)
        assert (attr.attr_ino, attr.attr_size) == (entry.attr_ino, len(str(number)))
    assert len({entry.nodeid for entry in entries}) == 2 * LIMIT
    assert guest.daemon.statistics()["errors"] == 0


def test_many_new_files_are_all_found(few: Guest) -> None:
    """However slowly: the descriptor of a file is closed only when no other can have its birth time."""
    look_at_many(few)


def test_a_reset_closes_folders_too_that_are_known_only_for_what_is_in_them(connect: Connect,
                                                                          tmp_path: pathlib.Path) -> None:
    """More of them than are closed in one go, and nobody asks for anything any more."""
    share = tmp_path / "share"
    for number in range(MANY):
        (share / f"folder{number}").mkdir(parents=True)
        (share / f"folder{number}/file").touch()
    guest = connect("--inode-file-handles", "never", share=share)
    for number in range(MANY):
        guest.fuse.lookup(guest.fuse.lookup(ROOT, f"folder{number}").nodeid, "file")
    assert guest.daemon.statistics()["descriptors_cached"] == 2 * MANY
    guest.device.stop()
    guest.device.connection.order(FrontRequest.RESET_DEVICE, ack=True)
    guest.daemon.wait_for(inodes=0, inodes_closing=0, descriptors_cached=0)
    guest.device.start()
    guest.fuse.init()
    guest.fuse.lookups.clear()


def test_many_files_can_be_made(few: Guest) -> None:
    for number in range(2 * LIMIT):
        entry, opened = few.fuse.create(ROOT, f"own{number}")
        few.fuse.write(entry.nodeid, opened.fh, 0, str(number).encode())
        few.fuse.release(entry.nodeid, opened.fh)
    for number in range(2 * LIMIT):
        assert (few.share / f"own{number}").read_text() == str(number)


def test_many_files_for_a_daemon_that_may_not_open_handles(tmp_path: pathlib.Path) -> None:
    """Without CAP_DAC_READ_SEARCH, as a daemon that is not root is."""
    if not shutil.which("setpriv"):
        pytest.skip("there is no setpriv to take a capability away with")
    command = ["setpriv", "--bounding-set", "-dac_read_search", "--inh-caps", "-all"]
    (tmp_path / "share").mkdir()
    daemon = Daemon([*command, *program()], tmp_path / "daemon", ["--rlimit-nofile", str(LIMIT)], tmp_path / "share")
    try:
        daemon.wait_until_it_listens()
        with connected(daemon) as guest:
            look_at_many(guest)
    finally:
        daemon.stop()


@pytest.mark.parametrize("share", ["ext4"], indirect=True)
def test_a_file_that_is_found_by_its_name_is_never_taken_for_another(fewest: Guest) -> None:
    """What was renamed in its directory is found; what is gone is stale, and so is what has another in its place."""
    fuse, share = fewest.fuse, fewest.share
    (share / "folder").mkdir()
    for name in NAMES:
        (share / "folder" / name).write_text(name)
    nodes = {name: fuse.walk(f"folder/{name}").nodeid for name in NAMES}
    folder = fuse.walk("folder").nodeid
    numbers = {name: fuse.getattr(node).attr_ino for name, node in nodes.items()}
    push_out(fewest, *(share / "folder" / name for name in NAMES))
    (share / "folder/renamed").rename(share / "folder/new name")
    rename_exchange(share / "folder/swapped", share / "folder/other")
    (share / "folder/deleted").unlink()
    (share / "folder/fresh").write_text("fresh")
    (share / "folder/fresh").rename(share / "folder/replaced")
    (share / "folder/linked").unlink()
    (share / "folder/linked").hardlink_to(share / "folder/stays")
    fuse.rename(folder, "moved", ROOT, "moved")         # what the guest itself moves it finds anywhere
    for name in ("stays", "renamed", "swapped", "other", "moved"):
        with during(name):
            attr = fuse.getattr(nodes[name])
            assert (attr.attr_ino, attr.attr_size) == (numbers[name], len(name))
            fh = fuse.open(nodes[name]).fh
            assert fuse.read(nodes[name], fh, 0, 100) == name.encode()
    for name in ("deleted", "replaced", "linked"):
        with during(name), refused(errno.ESTALE):
            fuse.getattr(nodes[name])
    assert fuse.lookup(folder, "linked").nodeid == nodes["stays"]
    assert fuse.lookup(folder, "replaced").nodeid != nodes["replaced"]


def test_what_the_guest_itself_changes_is_found_again(fewest: Guest) -> None:
    """Also where the time of the last change is all that tells one file from another."""
    fuse, share = fewest.fuse, fewest.share
    (share / "to").mkdir()
    for name in ("folder", "swapped", "other"):
        (share / name).mkdir()
        (share / name / "inner").write_text(name)
    for name in ("file", "linked", "replaced", "new"):
        (share / name).write_text(name)
    for name in ("linked", "replaced"):
        (share / f"{name} too").hardlink_to(share / name)
    nodes = {path: fuse.walk(path).nodeid for path in ("file", "linked", "replaced", "new", "folder", "folder/inner",
                                                       "swapped", "swapped/inner", "other", "other/inner")}
    target = fuse.lookup(ROOT, "to").nodeid
    numbers = {path: (share / path).stat().st_ino for path in nodes}
    push_out(fewest, *(share / path for path in nodes))
    fuse.rename(ROOT, "file", target, "file")
    fuse.rename(ROOT, "folder", target, "folder")
    fuse.rename2(ROOT, "swapped", target, "folder", 2)      # RENAME_EXCHANGE
    fuse.rename2(ROOT, "swapped", ROOT, "other", 2)
    fuse.unlink(ROOT, "linked")
    fuse.rename(ROOT, "new", ROOT, "replaced")
    for name in ("linked", "replaced"):
        assert fuse.lookup(ROOT, f"{name} too").nodeid == nodes[name]
    push_out(fewest, *(path for path in share.rglob("*") if "crowd" not in path.parts))
    for path, node in nodes.items():
        with during(path):
            assert fuse.getattr(node).attr_ino == numbers[path]
    for name in ("folder", "swapped", "other"):
        assert fuse.lookup(nodes[name], "inner").nodeid == nodes[f"{name}/inner"]


@pytest.mark.parametrize("how", ["UNLINK", "RENAME"])
def test_a_file_is_found_by_the_names_that_it_has_left(fewest: Guest, how: str) -> None:
    """Though the one that is removed is where it was seen last."""
    fuse, share = fewest.fuse, fewest.share
    (share / "first").write_text("text")
    (share / "folder").mkdir()
    (share / "other").touch()
    node = fuse.lookup(ROOT, "first").nodeid
    folder = fuse.lookup(ROOT, "folder").nodeid
    fuse.link(node, folder, "second")
    push_out(fewest, share / "first", share / "folder/second")
    if how == "UNLINK":
        fuse.unlink(folder, "second")
    else:
        fuse.rename(ROOT, "other", folder, "second")
    assert fuse.getattr(node).attr_nlink == 1
    fuse.lookup(ROOT, "first")
    push_out(fewest, share / "first")
    assert fuse.getattr(node).attr_size == 4


@pytest.mark.parametrize("share", ["ext4"], indirect=True)
def test_what_the_host_has_renamed_makes_room_all_the_same(many: Guest) -> None:
    """Not one has the name that the guest knows, and it opens more than there is room for beside them."""
    fuse, share = many.fuse, many.share
    for number in range(MANY):
        (share / f"file{number}").touch()
    nodes = [fuse.lookup(ROOT, f"file{number}").nodeid for number in range(MANY)]
    for number in range(MANY):
        (share / f"file{number}").rename(share / f"file{number} (deleted)")
    for node in nodes[:1000]:
        fuse.open(node)


@pytest.mark.parametrize("share", ["ext4"], indirect=True)
def test_the_one_descriptor_that_may_be_closed_is_found_among_thousands(many: Guest) -> None:
    """The guest knows so many deleted files that there is room for hardly anything else."""
    fuse, share = many.fuse, many.share
    names = [f"kept{number}" for number in range(20)]
    for name in names:
        (share / name).touch()
    kept = [fuse.lookup(ROOT, name).nodeid for name in names]
    deleted = []
    with refused(errno.ENFILE):
        for _ in range(MANY):
            (share / "file").touch()
            deleted.append(fuse.lookup(ROOT, "file").nodeid)
            (share / "file").unlink()
    before = many.daemon.statistics()["inodes"]
    for node in deleted[:132]:      # a quarter of the reserve is for what is looked up, but not for what is opened
        fuse.forget(node)
    many.daemon.wait_for(inodes=before - 132, inodes_closing=0)
    for node in kept:
        fuse.release(node, fuse.open(node).fh)


@pytest.mark.parametrize("share", ["ext4"], indirect=True)
def test_deep_folders_are_found_while_their_descriptors_come_and_go(fewest: Guest) -> None:
    """By several threads at once, each of which closes what the others have opened."""
    fuse, share = fewest.fuse, fewest.share
    paths = [f"{number}/in/of/inner" for number in range(300)]
    for path in paths:
        (share / path).mkdir(parents=True)
    nodes = {node: (share / path).stat().st_ino for path in paths for node in [fuse.walk(path).nodeid]}
    chosen = random.Random(7)
    flying: deque[tuple[object, int]] = deque()
    for number in range(20000):
        node = chosen.choice(list(nodes)) if number % 100 else ROOT
        ticket = fuse.submit(Opcode.GETATTR, node, GETATTR_IN.pack(), out_size=ATTR_OUT.size, queue=number % 4 + 1)
        flying.append((ticket, node))
        if len(flying) > 24:
            ticket, node = flying.popleft()
            reply = fuse.complete(ticket)
            assert reply.error == 0, os.strerror(-reply.error)
            assert node == ROOT or ATTR_OUT.unpack(reply.data).attr_ino == nodes[node]
    while flying:
        assert fuse.complete(flying.popleft()[0]).error == 0


@pytest.mark.parametrize("share", ["ext4"], indirect=True)
def test_a_path_may_have_more_folders_than_there_are_descriptors(fewest: Guest) -> None:
    nodes = [ROOT]
    for number in range(1300):
        nodes.append(fewest.fuse.mkdir(nodes[-1], f"folder{number}").nodeid)
    for node in (nodes[-1], nodes[700], nodes[-1], *nodes[::130]):
        fewest.fuse.getattr(node)
    push_out(fewest)
    assert fewest.fuse.lookup(nodes[-1], "..").nodeid == nodes[-2]


def test_where_nothing_can_be_closed_a_guest_is_told_that_there_is_no_more_room(connect: Connect,
                                                                                mounts: Mounts) -> None:
    """ENFILE, and never EMFILE, which is about one process: and what it forgets makes room again."""
    guest = connect("--rlimit-nofile", str(LIMIT), share=mounts.overlay())
    known: list[int] = []
    for number in range(1000):
        file = guest.share / f"file{number}"
        file.touch()
        reply = guest.fuse.call(Opcode.LOOKUP, ROOT, f"{file.name}\0".encode(), out_size=128, check=False)
        assert reply.error in (0, -errno.ENFILE)
        if not reply.error:
            known.append(guest.fuse.lookup(ROOT, file.name).nodeid)
            guest.fuse.lookups[known[-1]] += 1
        file.unlink()
    assert LIMIT // 2 < len(known) < LIMIT
    for node in known[:100]:
        guest.fuse.forget(node, 2)
    guest.daemon.wait_for(inodes=len(known) - 100, inodes_closing=0)
    (guest.share / "another").touch()
    guest.fuse.lookup(ROOT, "another")


def test_forgetting_is_possible_with_no_descriptor_left(connect: Connect, mounts: Mounts) -> None:
    guest = connect("--rlimit-nofile", str(LIMIT), share=mounts.overlay())
    client: FuseClient = guest.fuse
    for number in range(1000):
        (guest.share / f"file{number}").touch()
    for number in range(1000):
        client.call(Opcode.LOOKUP, ROOT, f"file{number}\0".encode(), out_size=128, check=False)
    client.init()
    guest.daemon.wait_for(inodes=0, inodes_closing=0, descriptors_cached=0)
    client.lookup(ROOT, "file999")
