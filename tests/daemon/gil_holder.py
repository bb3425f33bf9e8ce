"""The daemon with one thread more, which holds the GIL when it is told to: python -m tests.daemon.gil_holder SOCKET ...

Who listens at the socket sends a number of seconds, gets "<" when they have begun and ">" when they are over. Between
the two no other Python runs in the process: not the control plane, and no handler of a signal.
"""

import ctypes
import socket
import sys
import threading
from typing import Any
from unittest import mock

from virtiofsd import serve
from virtiofsd.cli import main

with_the_gil = ctypes.PyDLL(None)      # a call by it keeps the GIL, unlike those by CDLL and by Python's own modules


def obey(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as orders:
        orders.connect(path)
        while seconds := orders.recv(100):
            with_the_gil.write(orders.fileno(), b"<", 1)
            with_the_gil.usleep(int(float(seconds) * 1e6))
            with_the_gil.write(orders.fileno(), b">", 1)


if __name__ == "__main__":
    at, serve_until_done = sys.argv.pop(1), serve.serve_until_done

    def and_obey(*how: Any) -> int:
        """The thread begins when the start-up is over, which leaves no descriptor open that it does not know."""
        threading.Thread(target=obey, args=(at,), daemon=True).start()
        return serve_until_done(*how)

    sys.setswitchinterval(1000)        # who has the GIL is not asked to hand it over between two lines
    with mock.patch.object(serve, "serve_until_done", and_obey):
        sys.exit(main())
