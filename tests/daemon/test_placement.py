"""Request queues share workers, and move between them as load changes."""

import itertools
from collections import Counter

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from tests.conftest import StartDaemon
from tests.daemon.support import wait_until
from virtiofsd.placement import LEAST, Placement


class FakeWorkers:
    def __init__(self) -> None:
        self.served_by: dict[int, int] = {}
        self.taken: Counter[int] = Counter()
        self.watching = False
        self.full = False

    def attach(self, index: int, number: int) -> None:
        if self.full:
            raise OSError("no thread")
        self.served_by[index] = number

    def detach(self, index: int) -> None:
        self.served_by.pop(index, None)

    def watch_load(self, watching: bool) -> None:
        self.watching = watching

    def requests_taken(self, index: int) -> int:
        return self.taken[index]


def placed(workers: int, queues: int) -> tuple[FakeWorkers, Placement]:
    device = FakeWorkers()
    placement = Placement(device, workers)
    for index in range(queues + 1):
        placement.add(index)
    placement.look()
    return device, placement


def test_hiprio_has_a_worker_of_its_own() -> None:
    for workers, queues in itertools.product((1, 2, 8), (1, 5, 255)):
        device, _ = placed(workers, queues)
        assert [index for index, worker in device.served_by.items() if worker == 0] == [0]


def test_queues_are_spread_evenly() -> None:
    device, _ = placed(3, 7)
    assert sorted(Counter(device.served_by.values()).values()) == [1, 2, 2, 3]


def test_what_is_left_is_spread_evenly_when_queues_stop() -> None:
    device, placement = placed(2, 6)
    for index in [index for index, worker in device.served_by.items() if worker == 1]:
        placement.remove(index)
    assert Counter(device.served_by.values()) in ({0: 1, 1: 1, 2: 2}, {0: 1, 1: 2, 2: 1})


def test_load_is_looked_at_only_where_queues_share_workers() -> None:
    device, placement = placed(2, 2)
    assert not device.watching
    placement.add(3)
    assert device.watching
    placement.remove(3)
    assert not device.watching


def test_two_busy_queues_do_not_stay_with_one_worker() -> None:
    device, placement = placed(2, 4)
    busy = [index for index, worker in device.served_by.items() if worker == 1]
    device.taken.update(dict.fromkeys(busy, 10 * LEAST))
    placement.look()
    assert {device.served_by[index] for index in busy} == {1, 2}


def test_a_queue_that_is_all_the_load_stays() -> None:
    device, placement = placed(2, 4)
    before = dict(device.served_by)
    for _ in range(5):
        device.taken[1] += 100 * LEAST
        placement.look()
    assert device.served_by == before


def test_even_load_moves_nothing() -> None:
    device, placement = placed(3, 9)
    before = dict(device.served_by)
    for _ in range(5):
        device.taken.update(dict.fromkeys(range(1, 10), 5 * LEAST))
        placement.look()
    assert device.served_by == before


def test_a_queue_that_cannot_move_is_served_where_it_was() -> None:
    device, placement = placed(2, 4)
    before = dict(device.served_by)
    device.taken.update({index: 10 * LEAST for index, worker in before.items() if worker == 1})
    device.full = True
    placement.look()
    assert device.served_by == placement.served_by == before


@pytest.mark.parametrize("event_idx", [True, False])
def test_busy_queues_move_apart_and_answer_all_the_while(start_daemon: StartDaemon, event_idx: bool) -> None:
    daemon = start_daemon("--workers", "2")
    with VirtioFs(daemon.socket, num_queues=4, event_idx=event_idx) as device:
        fuse = FuseClient(device)
        fuse.init()
        workers = {queue: daemon.statistics()[f"queue{queue}_worker"] for queue in range(1, 5)
                   if fuse.getattr(1, queue=queue)}
        assert sorted(workers.values()) == [1, 1, 2, 2]
        busy = [queue for queue, worker in workers.items() if worker == workers[1]]

        def apart() -> bool:
            for _ in range(2000):
                for queue in busy:
                    assert fuse.getattr(1, queue=queue)
            now = daemon.statistics()
            return now[f"queue{busy[0]}_worker"] != now[f"queue{busy[1]}_worker"]

        wait_until(apart, "a move")
        for queue in range(1, 5):
            assert fuse.getattr(1, queue=queue)
