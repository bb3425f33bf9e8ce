"""What exercisers have in common: processes that do random things for a while, and tell their last ones of a failure.

    python3 one_file.py|one_tree.py SECONDS SEED [PROCESSES [root|nobody]]      in an empty folder

The same seed does the same things in the same order, for as long as the time allows. What was done is printed as JSON.
In a guest root drops its caches now and then, so that what it knows must come from the daemon again.
"""

import abc
import collections
import contextlib
import errno
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import ClassVar

import linux

LAST = 25  # operations that a failure shows
INSIDE = "/run/inside"
DROP_CACHES = "/proc/sys/vm/drop_caches"
UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS)


class Exerciser(abc.ABC):
    """One process's operations: each has a weight, and is a method that says what it does before it does it."""

    OPERATIONS: ClassVar[dict[str, int]]

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.done: collections.Counter[str] = collections.Counter()
        self.worked: set[str] = set()  # what is supported here,
        self.refused: set[str] = set()  # and what is not
        self.last: collections.deque[str] = collections.deque(maxlen=LAST)

    def note(self, text: str) -> None:
        self.last.append(f"{self.done.total()}: {text}")

    @contextlib.contextmanager
    def perhaps(self, what: str) -> Iterator[None]:
        """What is done inside may be refused by the kind of file system, then and ever after."""
        try:
            yield
        except OSError as error:
            if error.errno not in UNSUPPORTED or what in self.worked:
                raise
            self.refused.add(what)
            self.note(f"{what} is not supported")
        else:
            self.worked.add(what)

    def step(self) -> None:
        name, = self.random.choices(list(self.OPERATIONS), self.OPERATIONS.values())
        if name not in self.refused:
            getattr(self, name)()
            self.done[name] += 1

    @abc.abstractmethod
    def check(self) -> None:
        """Compares all there is with the model."""

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(self.random.randrange(20, 400)):
                self.step()
                if time.monotonic() > end:
                    break
            self.check()


def work(exerciser: Exerciser, seconds: float, pipe: int) -> None:
    try:
        exerciser.run(seconds)
    except BaseException:
        print(f"seed {exerciser.seed!r}; the last operations:", *exerciser.last, sep="\n", file=sys.stderr)
        raise
    os.write(pipe, json.dumps({"operations": exerciser.done, "refused": sorted(exerciser.refused)}).encode() + b"\n")


def drop_caches() -> None:
    """In a guest, where this lies on a share of its own: a host has better things to do."""
    if os.path.dirname(__file__) == INSIDE:
        with open(DROP_CACHES, "w", encoding="ascii") as file:
            file.write("3")


def main(make: Callable[[str, int], Exerciser], prepare: Callable[[int], None] = lambda _: None) -> None:
    seconds, seed = float(sys.argv[1]), sys.argv[2]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    user, group = (linux.NOBODY, linux.GROUP) if sys.argv[4:] == ["nobody"] else (0, 0)
    os.umask(0)
    prepare(count)
    reader, writer = os.pipe()
    left = {linux.child(lambda number=number: work(make(f"{seed}/{number}", number), seconds, writer), user, group)
            for number in range(count)}
    os.close(writer)
    failed = False
    while left:
        time.sleep(0.5)
        drop_caches()
        ended = {child: status for child, status in ((child, os.waitpid(child, os.WNOHANG)) for child in left)
                 if status[0]}
        left -= ended.keys()
        if not failed and any(status for _, status in ended.values()):
            failed = True
            for child in left:  # what they go on to do would only hide how it came to that
                os.kill(child, signal.SIGKILL)
    if failed:
        sys.exit(1)
    with open(reader, encoding="ascii") as pipe:
        results = [json.loads(line) for line in pipe]
    total: collections.Counter[str] = collections.Counter()
    for result in results:
        total.update(result["operations"])
    print(json.dumps({"operations": total, "refused": sorted({name for result in results
                                                              for name in result["refused"]})}))
