"""A guest that goes on for very long, or knows very much, costs no more than it should. LONG=1: very long and much."""

import os
import pathlib
import re

import pytest

from frontend import fuse_abi as abi
from frontend.fuse_abi import Opcode
from frontend.fuse_transport import name
from frontend.load import Generator, run_together
from frontend.operations import HEADER, REQUEST_NODEID, SLOT, SLOT_DIGITS, Op, create_unlink_cycle, request
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, Guest, Mounts, give_back, needs_root
from tests.running import LONG, Daemon

QUEUES, DEPTH = 4, 16
CHURN = 10_000_000 if LONG else 100_000
FILES, LIMIT = (1_000_000, 20_000) if LONG else (200_000, 2_000)
IN_A_FOLDER = 10_000
INODE_BYTES = 128
MIB = 1 << 20


def anonymous_bytes(daemon: Daemon) -> int:
    """The process's own memory: without that of the guest, and without files."""
    status = pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) << 10


def at_rest(guest: Guest) -> tuple[int, list[str]]:
    """The daemon's memory and descriptors when it has nothing to do, knows nothing and has let its threads go."""
    give_back(guest.fuse)
    guest.daemon.wait_for(inodes=0, inodes_closing=0, files_open=0, descriptors_cached=0, lock_owners=0)
    files = [re.sub(r"/task/\d+/", "/task/", path) for path in guest.daemon.open_files()]    # each thread has one
    return anonymous_bytes(guest.daemon), files


def churn_cycle(parent: int, queue: int) -> list[Op]:
    """CREATE, WRITE, RELEASE, RENAME2, LOOKUP, UNLINK and a FORGET of both lookups, with names of the slot's own."""
    old, new = f"q{queue}-{SLOT_DIGITS}-old", f"q{queue}-{SLOT_DIGITS}-new"
    create, write, release, _, _ = create_unlink_cycle(parent, old, 100)
    move = request(Opcode.RENAME2, parent, abi.RENAME2_IN.pack(newdir=parent), name(old), name(new))
    digits = (HEADER + new.index(SLOT_DIGITS), SLOT)
    return [
        create, write, release,
        Op(move, patches=((move.index(name(old)) + old.index(SLOT_DIGITS), SLOT),
                          (move.index(name(new)) + new.index(SLOT_DIGITS), SLOT))),
        Op(request(Opcode.LOOKUP, parent, name(new)), out_args=abi.ENTRY_OUT.size, patches=(digits,)),
        Op(request(Opcode.UNLINK, parent, name(new)), patches=(digits,)),
        Op(request(Opcode.FORGET, 0, abi.FORGET_IN.pack(nlookup=2)), no_reply=True, patches=((REQUEST_NODEID, 1),)),
    ]


def churn(guest: Guest, operations: int) -> None:
    """All queues at once, each with files of its own in one directory; every reply is checked."""
    cycle = [churn_cycle(ROOT, queue) for queue in range(1, QUEUES + 1)]
    generators = [Generator(guest.device.queues[queue], cycle[queue - 1], depth=DEPTH, cycle=len(cycle[queue - 1]))
                  for queue in range(1, QUEUES + 1)]
    for result in run_together(generators, count=operations // QUEUES, timeout=60):
        assert result.good, (f"{result.wrong_error} wrong errors, {result.wrong_length} wrong lengths, stalled: "
                             f"{result.stalled}, ring error: {result.ring_error}")
    for generator in generators:
        generator.close()


@pytest.mark.timeout(7200 if LONG else 120)
def test_churn_leaves_nothing_behind(connect: Connect) -> None:
    """Created, renamed, looked up, removed and forgotten, from several queues: the table of inodes ends empty."""
    guest = connect(num_queues=QUEUES, queue_size=256, memory_mib=128)
    churn(guest, max(CHURN // 10, 50_000))      # threads, chains and tables are nearly as large then as they get
    memory, files = at_rest(guest)
    for _ in range(3):      # what is lost makes a difference each time, threads that begin late only once
        churn(guest, CHURN)
        before, (memory, more_files) = memory, at_rest(guest)
        assert more_files == files
        if memory - before < MIB:
            break
    else:
        pytest.fail(f"{memory - before} bytes more each time")
    assert list(guest.share.iterdir()) == []
    assert guest.daemon.statistics()["errors"] == 0


@needs_root
@pytest.mark.timeout(3600 if LONG else 120)
def test_looked_up_files_take_few_bytes_each_and_give_them_back(connect: Connect, mounts: Mounts) -> None:
    """Far more files than descriptors. What threads and tables begin with is in the MiB that comes on top."""
    share = mounts.ext4(2048 if LONG else 256, "-N", str(FILES + 5_000)) / "share"
    for first in range(0, FILES, IN_A_FOLDER):
        (share / str(first)).mkdir(parents=True)
        for number in range(first, first + IN_A_FOLDER):
            os.close(os.open(share / str(first) / str(number), os.O_CREAT | os.O_WRONLY))
    guest = connect("--rlimit-nofile", str(LIMIT), share=share, queue_size=256)
    folders = {first: guest.fuse.lookup(ROOT, str(first)).nodeid for first in range(0, FILES, IN_A_FOLDER)}
    memory = anonymous_bytes(guest.daemon)
    nodes: list[int] = []
    for first, folder in folders.items():
        found = guest.fuse.listdir(folder, plus=True, size=1 << 16)
        nodes += [entry.entry.nodeid for entry in found if entry.entry and entry.entry.nodeid]
        assert guest.fuse.lookup(folder, str(first)).nodeid in nodes[-IN_A_FOLDER:]
    assert len(set(nodes)) == FILES
    numbers = guest.daemon.statistics()
    assert numbers["errors"] == 0 and numbers["inodes"] == FILES + len(folders)
    assert len(guest.daemon.open_files()) <= LIMIT
    taken = anonymous_bytes(guest.daemon) - memory
    assert taken < FILES * INODE_BYTES + MIB
    for node in nodes[::max(FILES // 5_000, 1)]:
        assert guest.fuse.getattr(node).attr_nlink == 1
    assert guest.daemon.statistics()["errors"] == 0
    give_back(guest.fuse)
    guest.daemon.wait_for(inodes=0, inodes_closing=0, descriptors_cached=0, name_bytes=0)
    left = anonymous_bytes(guest.daemon) - memory
    assert left < taken / 5     # each part of the table keeps something to begin with
