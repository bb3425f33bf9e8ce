"""Work that may hang in the host's file system: in a thread of its own, which nobody has to wait for."""

import asyncio
import contextlib
import errno
import signal
import threading
from collections.abc import Callable
from typing import TypeVar

from virtiofsd.signals import SENT

T = TypeVar("T")

# They are the main thread's: when it holds them back at the end, no other may be found that takes them, and ends the
# process.
HELD_BACK = SENT | {signal.SIGALRM, signal.SIGCHLD}


def in_background(work: Callable[[], T]) -> asyncio.Future[T]:
    """What the work returns or raises, once it is done. OSError where no thread can be had.

    The thread does not keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # which is a T then

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is gone if nobody could wait so long
            loop.call_soon_threadsafe(tell, result, error)

    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        threading.Thread(target=run, daemon=True).start()
    except RuntimeError as raised:
        raise OSError(errno.EAGAIN, "no thread can be started") from raised
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return future
