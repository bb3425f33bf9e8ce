"""Waiting for the data plane: for requests in flight to end, without holding up anything else."""

import asyncio
from collections.abc import Callable

from virtiofsd._ring.device import Device
from virtiofsd.log import log

REMIND = 10.0  # seconds between the lines that say what is waited for
LOOK = 0.05  # seconds after which the condition is looked at though nothing was heard


class DrainTimeoutError(Exception):
    """Requests still hang in the host's file system after all the time that there was for them."""


class Waiter:
    """Waits for conditions of one device. `heard` is called whenever its event descriptor was signalled."""

    def __init__(self, device: Device, timeout: float) -> None:
        self.device = device
        self.timeout = timeout  # seconds
        self._heard = asyncio.Event()
        self._waiting = 0

    def heard(self) -> None:
        self._heard.set()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Returns once the condition holds. Raises DrainTimeoutError; the log says what is waited for, and how long."""
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
                if waited > self.timeout:
                    raise DrainTimeoutError(f"{what}: {self._busy()} after {waited:.0f} s")
                if loop.time() > reminder:
                    log.warning("%s: waiting for %s for %.0f s", what, self._busy(), waited)
                    reminder += REMIND
                self._heard.clear()
                if not condition():
                    try:
                        await asyncio.wait_for(self._heard.wait(), LOOK)
                    except TimeoutError:
                        continue
        finally:
            self._waiting -= 1
            self.device.watch_requests(self._waiting > 0)

    def _busy(self) -> str:
        busy = [f"{name} on vring {queue}" for queue, name in self.device.busy_requests()]
        return ", ".join(sorted(set(busy))) or "threads"
