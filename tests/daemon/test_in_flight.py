"""Requests in flight have a bound: more wait in their queue, which goes on when one of them has ended."""

import time

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from frontend.fuse_abi import FSYNC_IN, Opcode
from tests.conftest import StartDaemon
from tests.daemon.hanging import HangingMount
from tests.daemon.support import answered, ask, wait_until

LIMIT = 64
THREADS = 2 * LIMIT     # some are left over, should the pool learn meanwhile that GETATTR is slow


@pytest.mark.parametrize("seconds", [0, 0.004], ids=["quick", "slow"])
def test_more_requests_than_may_be_in_flight_wait_in_their_queue_and_hold_nobody_else_up(
        hanging: HangingMount, start_daemon: StartDaemon, seconds: float) -> None:
    """Also where those of the other queue go to the pool: each queue has at least one in flight."""
    hanging.seconds[Opcode.GETATTR] = seconds
    daemon = start_daemon("--max-requests", str(LIMIT), "--thread-pool-size", str(THREADS), share=hanging.path)
    with VirtioFs(daemon.socket, num_queues=2, queue_size=512) as device:
        fuse = FuseClient(device)
        fuse.init()
        node = fuse.lookup(1, "file").nodeid
        body = FSYNC_IN.pack(fh=fuse.open(node).fh)
        answered(fuse, [ask(fuse, queue=2)])
        with hanging.hang(Opcode.FSYNC):
            tickets = [fuse.submit(Opcode.FSYNC, node, body) for _ in range(3 * LIMIT)]
            taken = f"queue{fuse.queue}_requests"
            wait_until(lambda: daemon.statistics()[taken] >= LIMIT - 10, "requests in flight")
            time.sleep(0.2)
            assert daemon.statistics()[taken] <= LIMIT + 10
            answered(fuse, [ask(fuse, queue=2) for _ in range(10)])
            time.sleep(0.2)
            before = daemon.statistics()
            assert before[taken] <= LIMIT + 10
            time.sleep(1)
            after = daemon.statistics()
            assert after[taken] == before[taken]
            assert after["wakeups"] - before["wakeups"] < 5_000     # it looks, and does not spin
            hanging.let_go()
        for ticket in tickets:
            assert not fuse.complete(ticket).error
        answered(fuse, [ask(fuse)])
