"""Start-up, notifications and the shared memory window against a back-end in this process."""

import os
from collections.abc import Callable, Iterator

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient, FuseError
from frontend.profiles import PROFILES, bits
from frontend.shmem import ShmemWindow
from tests.frontend.models import FakeBackEnd
from virtiofsd.vhost_user_abi import FrontRequest

BASIC = bits("MQ", "REPLY_ACK")
Start = Callable[..., tuple[VirtioFs, FakeBackEnd]]


@pytest.fixture
def start() -> Iterator[Start]:
    devices: list[tuple[VirtioFs, FakeBackEnd]] = []

    def make(protocol: int = BASIC, packed: bool = False, file: int = -1,
             **how: object) -> tuple[VirtioFs, FakeBackEnd]:
        back_end = FakeBackEnd(packed, protocol, file)
        device = VirtioFs(back_end.theirs, packed=packed, start=False, timeout=5, memory_mib=8,
                          **how)  # type: ignore[arg-type]
        back_end.queue = device.queues[1]
        back_end.start()
        devices.append((device, back_end))
        device.negotiate()
        device.start()
        return devices[-1]

    yield make
    for device, back_end in devices:
        device.close()
        back_end.join(5)
        assert back_end.failure is None


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_reaches_a_ring(start: Start, profile: str, packed: bool) -> None:
    protocol = BASIC | bits("CONFIG", "CONFIGURE_MEM_SLOTS", "STATUS", "BACKEND_REQ")
    device, back_end = start(protocol, packed, profile=profile)
    fuse = FuseClient(device)
    for _ in range(300):            # more than the ring has
        fuse.statfs()
    assert (FrontRequest.ADD_MEM_REG in back_end.requests) == (profile.startswith("qemu"))


def test_in_band_notifications(start: Start) -> None:
    protocol = BASIC | bits("BACKEND_REQ", "CONFIG", "INBAND_NOTIFICATIONS")
    device, back_end = start(protocol, profile="uml")
    FuseClient(device).statfs()
    assert FrontRequest.VRING_KICK in back_end.requests
    assert FrontRequest.SET_VRING_KICK not in back_end.requests
    assert device.channel
    device.channel.serve(1)             # the reply may have been seen before the call
    assert device.channel.calls[1] >= 1


def test_an_answer_without_bytes_is_no_success(start: Start) -> None:
    fuse = FuseClient(start()[0])
    with pytest.raises(FuseError) as failed:
        fuse.getattr(1)
    assert failed.value.errno == 38


def test_the_window_maps_as_qemu_does(start: Start) -> None:
    file = os.memfd_create("file")
    os.ftruncate(file, 1 << 20)
    os.pwrite(file, b"content", 4096)
    protocol = BASIC | bits("BACKEND_REQ", "BACKEND_SEND_FD", "SHMEM", "CONFIGURE_MEM_SLOTS")
    window = ShmemWindow()
    device, back_end = start(protocol, file=file, shmem=window)
    assert window.sizes[0] == 1 << 30
    fuse = FuseClient(device)
    before = back_end.requests.count(FrontRequest.ADD_MEM_REG)
    fuse.setupmapping(1, 4096, 8192, 0, 3)
    assert window.read(0, 7) == b"content" and window.read(8192, 4) == bytes(4)
    assert back_end.requests.count(FrontRequest.ADD_MEM_REG) == before + 1
    window.write(7, b"!")
    assert os.pread(file, 8, 4096) == b"content!"
    for offset, length, place in ((0, 4096, 4096), (1 << 20, 4096, 1 << 20), (0, 4096, 1 << 30)):
        with pytest.raises(FuseError):          # an overlap, past the file, past the window
            fuse.setupmapping(1, offset, length, place, 3)
    assert window.refused == 3
    os.close(file)
