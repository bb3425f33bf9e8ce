"""What a malicious guest may try, all of it, again and again: frontend.hostile has the catalogue.

HOSTILE_TRIES is how often each is tried; LONG=1: thousands of times. `make sanitize` runs this on a daemon with
AddressSanitizer and UndefinedBehaviorSanitizer.
"""

import os
import pathlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from frontend.device import REQUEST, VirtioFs
from frontend.fuse import ROOT, FuseClient
from frontend.fuse_abi import ATTR_OUT, GETATTR_IN, Opcode
from frontend.hostile import CATALOGUE, Bench, layout, names
from tests.conftest import program
from tests.filesystem.support import tree
from tests.running import LONG, Daemon

TRIES = int(os.environ.get("HOSTILE_TRIES", 3000 if LONG else 24))
ENOUGH = 120.0 if LONG else 1.0     # seconds for one of them: what breaks a queue is waited for long, to be sure of it
OTHER = REQUEST + 1         # a queue on which nobody misbehaves
PATIENCE = 10.0


class Attacked(Bench):
    """A bench that sees to it, whenever its own queue may be broken, that the other one goes on."""

    def reset(self) -> None:
        self.others_go_on()
        super().reset()

    def others_go_on(self) -> None:
        """Any answer will do: there may be no session at the moment."""
        ticket = self.fuse.submit(Opcode.GETATTR, ROOT, GETATTR_IN.pack(), out_size=ATTR_OUT.size, queue=OTHER)
        self.fuse.complete(ticket, PATIENCE)


class Target:
    """A daemon, its share with ways out of it, and what is outside."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.outside = folder / "outside"
        self.outside.mkdir(parents=True)
        (self.outside / "secret").write_bytes(b"secret")
        (self.outside / "folder").mkdir()
        self.daemon = Daemon(program(), folder / "daemon", ["--posix-lock", "--flock"])
        # A queue that was broken, and a chain that could not be followed, are told of.
        self.daemon.expected = [r" WARN .*(chain|queue|ring)", r" ERROR .*(chain|queue|ring)"]
        for name, path in (("up", "../.."), ("outside", self.outside), ("secret", self.outside / "secret")):
            (self.daemon.share / name).symlink_to(path)
        self.daemon.wait_until_it_listens()
        self.device = VirtioFs(self.daemon.socket, num_queues=2, memory=layout())
        Attacked(self.device).reset()
        self.before = self.around(), self.at_rest()

    def around(self) -> list[object]:
        """All that a guest must not change."""
        beside = [path for path in self.daemon.share.parent.iterdir() if path.name != "log"]
        return [tree(self.outside), sorted(beside)]

    def at_rest(self) -> list[str]:
        """The daemon's descriptors, when no guest uses it. Each thread has one of its own, and they come and go."""
        FuseClient(self.device).destroy()
        self.daemon.wait_for(inodes=0, inodes_closing=0, files_open=0, descriptors_cached=0, lock_owners=0,
                             lock_waits=0, session=0)
        return [path for path in self.daemon.open_files() if not re.search(r"/task/\d+/", path)]

    def end(self) -> list[str]:
        """What was wrong with it."""
        self.device.close()
        deadline = time.monotonic() + PATIENCE
        while self.daemon.alive and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.daemon.finish()


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Target]]:
    """Gives out the target of all tests, or the next one where that has fallen."""
    made: list[Target] = []

    def get() -> Target:
        if not made or not made[-1].daemon.alive:
            made.append(Target(tmp_path_factory.mktemp("target")))
        return made[-1]

    yield get
    problems = [problem for target in made for problem in target.end()]
    if problems:
        pytest.fail("\n".join(problems))


@pytest.mark.timeout(3600 if LONG else 120)
@pytest.mark.parametrize("name", list(names()))
def test_nothing_that_a_guest_does_wrong_succeeds_or_hurts(targets: Callable[[], Target], name: str) -> None:
    """Each try ends as it may, the daemon and its other queue go on; at last no descriptor is lost, nothing touched."""
    target = targets()
    bench = Attacked(target.device)
    deadline = time.monotonic() + ENOUGH
    for seed in range(TRIES):
        outcome = bench.run(name, seed)
        assert outcome in CATALOGUE[name], f"try {seed}: {outcome} {outcome.detail}"
        bench.others_go_on()
        if time.monotonic() > deadline:
            break
    bench.reset()
    assert target.daemon.alive
    around, files = target.before
    assert target.around() == around
    assert Counter(target.at_rest()) == Counter(files)
