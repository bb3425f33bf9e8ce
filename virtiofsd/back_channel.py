"""The back-end channel: the socket on which the daemon tells the front-end something of its own accord."""

import asyncio
import os
import socket

from virtiofsd import vhost_user_abi as abi
from virtiofsd._ring.device import Device
from virtiofsd.vhost_user_abi import BackRequest


class BackChannel:
    """The socket of SET_BACKEND_REQ_FD. Calls of rings go into it from the data plane, each with a descriptor of it."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._socket: socket.socket | None = None

    def __bool__(self) -> bool:
        return self._socket is not None

    def open(self, fd: int) -> None:
        """Takes the socket, which may replace an earlier one. OSError: it is closed."""
        self.close()
        try:
            self._socket = socket.socket(fileno=fd)
        except OSError:
            os.close(fd)
            raise

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_writer(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def descriptor(self) -> int:
        """Another descriptor of the socket, which the caller owns."""
        assert self._socket is not None
        return os.dup(self._socket.fileno())

    def send_error(self, index: int) -> None:
        """The in-band error of a vring. Lost where the front-end has not read for long, as it is in the log too."""
        assert self._socket is not None
        payload = abi.VRING_STATE.pack(index=index)
        header = abi.HEADER.pack(request=BackRequest.VRING_ERR, flags=abi.VHOST_USER_VERSION, size=len(payload))
        try:
            self._socket.send(header + payload, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            return

    def send_lost_calls(self) -> None:
        """In-band calls that found the socket full are sent when the front-end has read from it."""
        if self._socket is None:
            return
        loop = asyncio.get_running_loop()
        if self.device.send_lost_calls():
            loop.remove_writer(self._socket.fileno())
        else:
            loop.add_writer(self._socket.fileno(), self.send_lost_calls)
