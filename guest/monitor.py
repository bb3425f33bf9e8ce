"""QEMU's monitor: what the owner of a machine does to it, such as plugging in memory or pressing the reset button."""

import json
import socket
import time
from collections.abc import Mapping
from typing import Any


class MonitorError(Exception):
    """QEMU refused a command, or an event did not come."""


class Monitor:
    """One connection, that speaks QMP. Arguments with a hyphen are given with an underscore: qom_type."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._pending = b""
        self._events: list[Mapping[str, Any]] = []
        self._greeted = False

    def execute(self, command: str, timeout: float = 30, **arguments: object) -> Any:
        """What QEMU returns."""
        deadline = time.monotonic() + timeout
        if not self._greeted:
            self._greeted = True
            self._receive(deadline)
            self.execute("qmp_capabilities", timeout)
        message: dict[str, object] = {"execute": command}
        if arguments:
            message["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._connection.sendall(json.dumps(message).encode() + b"\n")
        while True:
            answer = self._receive(deadline)
            if "event" in answer:
                self._events.append(answer)
            elif "error" in answer:
                raise MonitorError(f"{command}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def wait_for(self, event: str, timeout: float = 30) -> Mapping[str, Any]:
        """The data of the next event of that name, be it here already or yet to come."""
        deadline = time.monotonic() + timeout
        while True:
            for number, answer in enumerate(self._events):
                if answer["event"] == event:
                    data: Mapping[str, Any] = self._events.pop(number).get("data", {})
                    return data
            answer = self._receive(deadline)
            if "event" in answer:
                self._events.append(answer)

    def _receive(self, deadline: float) -> Mapping[str, Any]:
        while b"\n" not in self._pending:
            self._connection.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                data = self._connection.recv(65536)
            except TimeoutError:
                raise MonitorError("QEMU's monitor says nothing") from None
            if not data:
                raise MonitorError("QEMU has ended")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        answer: Mapping[str, Any] = json.loads(line)
        return answer
