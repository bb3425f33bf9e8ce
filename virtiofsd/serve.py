"""The main loop: front-ends are accepted one after the other and served."""

import argparse
import asyncio
import json
import os
import signal
import socket

import uvloop

from virtiofsd.backend import Backend
from virtiofsd.channel import Channel, ProtocolError
from virtiofsd.log import log

EXIT_HUNG = 1


async def accept(listener: socket.socket) -> socket.socket:
    connection, _ = await asyncio.get_running_loop().sock_accept(listener)
    connection.setblocking(False)
    return connection


async def serve(options: argparse.Namespace, listener: socket.socket, root_fd: int, proc_fd: int,
                descriptors: int) -> int:
    """Serves until a front-end has come and gone, or a signal says stop. The exit status."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    listener.setblocking(False)
    log.info("waiting for a front-end")
    try:
        while True:
            connection = await accept(listener)
            log.info("a front-end has connected")
            if await serve_one(options, connection, root_fd, proc_fd, descriptors):
                log.info("the front-end has disconnected")
                return 0
    except asyncio.CancelledError:
        log.info("asked to end")
        return 0


async def serve_one(options: argparse.Namespace, connection: socket.socket, root_fd: int, proc_fd: int,
                    descriptors: int) -> bool:
    """One front-end, to its end. False where it was closed because of what it said: another may come."""
    channel = Channel(connection)
    backend = Backend(options, channel, root_fd, proc_fd, descriptors)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, log_statistics, backend)
    try:
        await backend.run()
    except ProtocolError as error:
        log.error("the connection is closed: %s", error)
        return False
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)
        channel.close()
        if not await asyncio.shield(backend.close()):
            log.error("requests hang in the host's file system: the process ends without them")
            os._exit(EXIT_HUNG)
    return True


def log_statistics(backend: Backend) -> None:
    """SIGUSR1: the device's numbers, as one line of JSON."""
    log.info("statistics: %s", json.dumps(backend.device.statistics()))


def serve_until_done(options: argparse.Namespace, listener: socket.socket, root_fd: int, proc_fd: int,
                     descriptors: int) -> int:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(options, listener, root_fd, proc_fd, descriptors))
