"""Which worker of the data plane serves which vring, and moves where load has become uneven."""

import logging
import os
from collections import defaultdict
from typing import Protocol

HIPRIO = 0
WORTH_WHILE = 0.8  # a move leaves the busier of two workers with at most so much of what it has had
HELPERS = 3
LEAST = 1000  # requests between two looks: with fewer nothing is crowded

CPUS = os.cpu_count() or 1  # of the machine; asked before a sandbox hides it

log = logging.getLogger(__name__)


def pollers() -> int:
    """How many workers may look for requests at once without sleeping. That takes a CPU whole, and the guest needs
    some: half of those that the daemon may use. With a single one it may if the machine has others, for the guest.
    """
    ours = len(os.sched_getaffinity(0))
    return ours // 2 or int(CPUS > 1)


def helpers() -> int:
    """How many threads may help workers at once, if nothing else is said. Beyond a few, memory is what is short."""
    return min(len(os.sched_getaffinity(0)) // 2, HELPERS)


class Workers(Protocol):
    """What is used of a `virtiofsd._ring.device.Device`."""

    def attach(self, index: int, number: int) -> None: ...
    def detach(self, index: int) -> None: ...
    def watch_load(self, watching: bool) -> None: ...
    def requests_taken(self, index: int) -> int: ...


class Placement:
    """Vring 0 (hiprio) has worker 0 to itself, so that nothing waits for another request there; the request queues
    share workers 1 to `workers`. While there are more queues than those, a look now and then moves one from a worker
    that has much to do to one that has less. The data plane says when it has been busy: nobody looks at an idle
    guest.
    """

    def __init__(self, device: Workers, workers: int) -> None:
        self.device, self.workers = device, workers
        self.served_by: dict[int, int] = {}
        self.seen: dict[int, int] = {}

    def add(self, index: int) -> None:
        """A vring is started: it goes to the worker with the fewest. OSError: no thread can be had."""
        self._place(index, HIPRIO if index == HIPRIO else min(range(1, self.workers + 1), key=self._count))
        self._watch()

    def remove(self, index: int) -> None:
        self.device.detach(index)
        self.served_by.pop(index, None)
        self.seen.pop(index, None)
        fullest = max(range(1, self.workers + 1), key=self._count)
        emptiest = min(range(1, self.workers + 1), key=self._count)
        if self._count(fullest) - self._count(emptiest) > 1:
            self._move(next(queue for queue, worker in self.served_by.items() if worker == fullest), emptiest)
        self._watch()

    def look(self) -> None:
        """Moves one queue from the busiest worker to the least busy, if that makes the busier of the two less busy."""
        load: dict[int, list[tuple[int, int]]] = defaultdict(list)  # by worker: requests since the last look, vring
        for index, worker in self.served_by.items():
            if index != HIPRIO:
                taken = self.device.requests_taken(index)
                load[worker].append((taken - self.seen.get(index, taken), index))
                self.seen[index] = taken
        totals = {worker: sum(requests for requests, _ in load[worker]) for worker in range(1, self.workers + 1)}
        busiest, calmest = max(totals, key=totals.__getitem__), min(totals, key=totals.__getitem__)
        if totals[busiest] < LEAST:
            return
        requests, index = min(load[busiest], key=lambda one: abs(totals[busiest] - totals[calmest] - 2 * one[0]))
        if max(totals[busiest] - requests, totals[calmest] + requests) <= WORTH_WHILE * totals[busiest]:
            self._move(index, calmest)

    def _count(self, worker: int) -> int:
        return sum(served_by == worker for served_by in self.served_by.values())

    def _move(self, index: int, worker: int) -> None:
        log.debug("vring %d moves from worker %d to %d", index, self.served_by[index], worker)
        try:
            self._place(index, worker)
        except OSError as error:
            log.warning("vring %d stays with worker %d: %s", index, self.served_by[index], error)

    def _place(self, index: int, worker: int) -> None:
        self.device.attach(index, worker)
        self.served_by[index] = worker

    def _watch(self) -> None:
        self.device.watch_load(len(self.served_by) - (HIPRIO in self.served_by) > self.workers)
