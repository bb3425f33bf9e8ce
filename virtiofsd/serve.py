"""The main loop: front-ends are accepted one after the other and served."""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import uvloop

from virtiofsd import __version__
from virtiofsd import log as logs
from virtiofsd._ring.device import Device
from virtiofsd.backend import CLOSE_SECONDS, Backend, DeviceError, new_device
from virtiofsd.channel import Channel, ProtocolError
from virtiofsd.errors import EXIT_FAILURE, shown
from virtiofsd.listener import Listener
from virtiofsd.sandbox import Inside
from virtiofsd.service_manager import ServiceManager

T = TypeVar("T")

ACCEPT_PAUSE = 1.0  # seconds
HUNG_LOOK = 0.2  # seconds between looks whether what hangs has come back

log = logging.getLogger(__name__)


class Server:
    """Serves until a front-end has come and gone, or, with --keep-listening, a signal says stop."""

    def __init__(self, options: argparse.Namespace, listener: Listener, inside: Inside, descriptors: int,
                 manager: ServiceManager) -> None:
        self.options, self.listener, self.inside, self.descriptors = options, listener, inside, descriptors
        self.manager = manager
        self.backend: Backend | None = None
        self.hung: dict[Backend, asyncio.Task[None]] = {}  # their requests hang in the host's file system
        self.unmade: asyncio.Future[Device] | None = None  # the file system hung at the start already
        self.stopping = False
        self._work: asyncio.Task[Any] | None = None

    async def run(self) -> int:
        """The exit status."""
        with self._signals():
            try:
                return await self._serve_all()
            finally:
                if self.hung:
                    await asyncio.wait(self.hung.values(), timeout=3 * HUNG_LOOK)  # some may be about to end

    async def _serve_all(self) -> int:
        where = f"--fd {self.options.fd}" if self.options.socket_path is None else shown(self.options.socket_path)
        log.info("virtiofsd %s shares %s at %s", __version__, shown(self.options.shared_dir), where)
        self.listener.socket.setblocking(False)
        self.manager.ready()
        while connection := await self._unless_stopped(self._accept()):
            try:
                with contextlib.closing(Channel(connection)) as channel:
                    served = await self._serve(channel)
                if served:
                    log.info("the front-end has disconnected")
                    if not self.options.keep_listening:
                        return 0
            except (DeviceError, OSError, MemoryError) as error:
                log.error("a front-end cannot be served: %s", error or "out of memory")
                if not self.options.keep_listening:
                    return EXIT_FAILURE
        if not self.stopping:
            log.error("the listening socket was shut down: nobody can connect any more")
            return EXIT_FAILURE
        log.info("asked to end")
        return 0

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Handles signals, which before and after this are held back: they have nothing to end in an orderly way."""
        loop = asyncio.get_running_loop()
        handlers = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop, signal.SIGHUP: self._reopen_log,
                    signal.SIGUSR1: self._log_statistics}
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, handlers)

    def _stop(self) -> None:
        self.stopping = True
        self.manager.stopping()
        if self._work is not None:
            self._work.cancel()

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What the work returns; None where a signal has cut it short."""
        if self.stopping:
            work.close()
            return None
        task: asyncio.Task[T] = asyncio.ensure_future(work)
        self._work = task
        try:
            return await task
        except asyncio.CancelledError:
            return None
        finally:
            self._work = None

    async def _accept(self) -> socket.socket | None:
        """The next front-end; None where nobody can connect any more, as who has handed over the socket has shut it."""
        # Kata Containers' runtime waits for these words.
        log.info("Waiting for vhost-user socket connection...")
        while True:
            await self._somebody_waits()
            try:
                connection, _ = self.listener.socket.accept()
                return connection
            except BlockingIOError:
                if self.listener.shut:
                    return None
            except OSError as error:
                log.error("a front-end cannot be accepted: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE)

    async def _somebody_waits(self) -> None:
        # Not sock_accept(), which tries for ever where the socket is shut.
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self.listener.socket, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self.listener.socket)

    async def _serve(self, channel: Channel) -> bool:
        """One front-end, to its end. False: the next one is to be waited for."""
        log.info("a front-end has connected")
        making = new_device(self.options, self.inside, self.descriptors)
        await self._unless_stopped(asyncio.wait([making]))
        if not making.done():  # a signal has come
            await asyncio.wait([making], timeout=CLOSE_SECONDS)
        if not making.done():
            self.unmade = making
            return False
        device = making.result()
        try:
            backend = self.backend = Backend(self.options, channel, device, self.inside.proc_fd)
        except BaseException:
            device.stop()
            raise
        try:
            # Who looks whether somebody listens here says nothing, and is no front-end.
            return bool(await self._unless_stopped(backend.run()))
        except ProtocolError as error:
            log.error("the connection is closed: %s", error)
            return False
        finally:
            if not self.stopping:  # else the last requests are answered to somebody who listens
                channel.close()
            if not await backend.close():
                self.hung[backend] = asyncio.create_task(self._free_later(backend))
            self.backend = None

    async def _free_later(self, backend: Backend) -> None:
        while not backend.free():
            await asyncio.sleep(HUNG_LOOK)
        del self.hung[backend]
        log.info("what hung in the host's file system has come to its end")

    def _log_statistics(self) -> None:
        """SIGUSR1: the device's numbers, as one line of JSON."""
        numbers = self.backend.device.statistics() if self.backend else {}
        log.info("statistics: %s", json.dumps(numbers), extra=logs.ASKED_FOR)

    def _reopen_log(self) -> None:
        """SIGHUP: whatever the log goes to may be another by now."""
        logs.reopen()
        log.info("the log goes on", extra=logs.ASKED_FOR)


def serve_until_done(options: argparse.Namespace, listener: Listener, inside: Inside, descriptors: int,
                     manager: ServiceManager) -> int:
    """The exit status."""
    server = Server(options, listener, inside, descriptors, manager)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(server.run())
    if server.hung or server.unmade:
        listener.close()
        log.error("requests hang in the host's file system: the process ends without them")
        os._exit(EXIT_FAILURE)  # an orderly end would free what their threads still use
    return status
