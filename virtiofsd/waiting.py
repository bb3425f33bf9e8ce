"""Waiting for the data plane: for requests in flight to end, without holding up anything else."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from virtiofsd._ring.device import Device

log = logging.getLogger(__name__)

REMIND = 10.0  # seconds between the lines that say what is waited for
LOOK = 0.01  # seconds after which the condition is looked at though nothing was heard


class DrainTimeoutError(Exception):
    """Requests still hang in the host's file system after all the time that there was for them."""


class PeerLeftError(Exception):
    """Nobody waits for the answer any more."""


class Waiter:
    """Waits for conditions of one device. `heard` is called whenever its event descriptor was signalled."""

    def __init__(self, device: Device, timeout: float, peer_has_left: Callable[[], bool]) -> None:
        self.device = device
        self.timeout = timeout  # seconds
        self.peer_has_left = peer_has_left
        self._heard = asyncio.Event()
        self._waiting = 0

    def heard(self) -> None:
        """Something may have come true: whoever waits looks again."""
        self._heard.set()

    async def until(self, condition: Callable[[], bool], what: str, vring: int | None = None) -> None:
        """Returns once the condition holds; raises DrainTimeoutError, PeerLeftError. `what` names the wait in the log.

        `vring`: the one whose requests are waited for; None: it could be any.
        """
        if condition():
            return
        loop = asyncio.get_running_loop()
        start = loop.time()
        reminder = start + REMIND
        self._waiting += 1
        self.device.watch_requests(True)
        try:
            while not condition():
                waited = loop.time() - start
                if self.peer_has_left():
                    raise PeerLeftError
                if waited > self.timeout:
                    raise DrainTimeoutError(f"{what}: {self._busy(vring)} not ended after {waited:.1f} s")
                if loop.time() > reminder:
                    log.warning("%s: %s not ended for %.0f s", what, self._busy(vring), waited)
                    reminder += REMIND
                self._heard.clear()
                if not condition():
                    with contextlib.suppress(TimeoutError):
                        # Not wait_for(), by which Python 3.11 may lose a cancellation.
                        async with asyncio.timeout(LOOK):
                            await self._heard.wait()
        finally:
            self._waiting -= 1
            self.device.watch_requests(self._waiting > 0)

    def _busy(self, vring: int | None) -> str:
        busy = {f"{name} on vring {queue}" for queue, name in self.device.busy_requests() if vring in (None, queue)}
        return f"{', '.join(sorted(busy))} {'have' if len(busy) > 1 else 'has'}" if busy else "threads have"
