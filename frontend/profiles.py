"""How the front-ends that exist start and stop a device: the same messages in other orders, other features, other
acknowledgements. Each profile's functions take the device and call its steps.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from frontend.vhost_user import EVERY_REQUEST
from virtiofsd import vhost_user_abi as abi
from virtiofsd import virtio_abi as virtio
from virtiofsd.vhost_user_abi import FrontRequest

if TYPE_CHECKING:
    from frontend.device import VirtioFs

CONFIG_SIZE = virtio.FS_CONFIG.size - 4      # without notify_buf_size
OLD_ACKS = frozenset({FrontRequest.SET_MEM_TABLE, FrontRequest.ADD_MEM_REG, FrontRequest.REM_MEM_REG,
                      FrontRequest.SET_BACKEND_REQ_FD, FrontRequest.SET_CONFIG})
QEMU_ACKS = OLD_ACKS | {FrontRequest.SET_VRING_KICK, FrontRequest.SET_VRING_CALL, FrontRequest.SET_VRING_ERR,
                        FrontRequest.SET_VRING_ENABLE, FrontRequest.POSTCOPY_LISTEN, FrontRequest.POSTCOPY_END}
HAS_REPLY = frozenset({
    FrontRequest.GET_FEATURES, FrontRequest.GET_VRING_BASE, FrontRequest.GET_PROTOCOL_FEATURES,
    FrontRequest.GET_QUEUE_NUM, FrontRequest.GET_CONFIG, FrontRequest.GET_INFLIGHT_FD, FrontRequest.GET_MAX_MEM_SLOTS,
    FrontRequest.GET_STATUS, FrontRequest.SET_DEVICE_STATE_FD, FrontRequest.CHECK_DEVICE_STATE,
    FrontRequest.GET_SHMEM_CONFIG, FrontRequest.SET_LOG_BASE})


def bits(*names: str) -> int:
    """A mask of protocol features by name."""
    mask: int = sum(getattr(abi, f"VHOST_USER_PROTOCOL_F_{name}") for name in names)
    return mask


@dataclass(frozen=True)
class Profile:
    """`protocol_features` are those it acknowledges where the back-end offers them."""

    name: str
    protocol_features: int
    acknowledged: frozenset[FrontRequest]
    negotiate: "Callable[[VirtioFs], None]"
    start: "Callable[[VirtioFs], None]"
    stop: "Callable[[VirtioFs], None]"
    user_addr: str | None = None


def _features(device: "VirtioFs") -> None:
    device.get_features()
    device.negotiate_protocol()


def _memory_slots(device: "VirtioFs") -> None:
    if device.has("CONFIGURE_MEM_SLOTS"):
        device.max_mem_slots = device.connection.get_max_mem_slots()


# QEMU: vhost-user-fs-pci as seen on the wire. KICK comes before ENABLE, and calls are set again at the end.

def _qemu_negotiate(device: "VirtioFs") -> None:
    _features(device)
    device.check_queue_num()
    _memory_slots(device)
    device.offer_channel()
    device.connection.set_owner()
    device.get_features()
    if device.has("CONFIG"):                 # only the test device asks for it
        device.read_config(CONFIG_SIZE)
    if device.shmem and device.has("SHMEM"):
        device.shmem.sizes = device.connection.get_shmem_config()
    for index in range(len(device.queues)):
        device.ring_call(index)
        device.ring_err(index)


def _qemu_start(device: "VirtioFs") -> None:
    for index in device.configured:
        device.ring_call(index)
    device.set_features()
    if device.has("STATUS"):
        device.connection.get_status()
        device.connection.set_status(virtio.VIRTIO_STATUS_FEATURES_OK)
    device.set_memory(slots=device.has("CONFIGURE_MEM_SLOTS"))
    for index in device.configured:
        device.ring_num(index)
        device.ring_base(index)
        device.ring_addr(index)
        device.ring_kick(index)
    for index in range(len(device.queues)):
        device.ring_enable(index, True)
    if not device.has("REPLY_ACK"):
        device.get_features()                # the barrier
    for index in range(len(device.queues)):
        device.ring_call(index)


def _qemu_stop(device: "VirtioFs") -> None:
    for index in range(len(device.queues)):
        device.ring_enable(index, False)
    for index in device.configured:
        device.ring_stop(index)
    for index in device.configured:
        device.ring_call(index)


# Cloud Hypervisor

def _cloud_negotiate(device: "VirtioFs") -> None:
    device.connection.set_owner()
    _features(device)
    device.check_queue_num()


def _cloud_start(device: "VirtioFs") -> None:
    device.set_features()
    device.set_memory(slots=False)
    for index in device.configured:
        device.ring_num(index)
    if device.has("INFLIGHT_SHMFD"):
        device.share_inflight()
    for index in device.configured:
        device.ring_addr(index)
        device.ring_base(index)
        device.ring_call(index)
        device.ring_kick(index)
    for index in device.configured:
        device.ring_enable(index, True)


def _plain_stop(device: "VirtioFs") -> None:
    for index in device.configured:
        device.ring_enable(index, False)
        device.ring_stop(index)


# crosvm

def _crosvm_negotiate(device: "VirtioFs") -> None:
    device.connection.set_owner()
    _features(device)
    device.offer_channel()
    device.check_queue_num()
    if device.has("CONFIG"):
        device.read_config(CONFIG_SIZE, flags=1)
    if device.shmem and device.has("SHMEM"):
        device.shmem.sizes = device.connection.get_shmem_config()


def _crosvm_start(device: "VirtioFs") -> None:
    device.set_features()
    device.set_memory(slots=False)
    for index in device.configured:
        device.ring_num(index)
        device.ring_addr(index)
        device.ring_base(index)
        device.ring_call(index)
        device.ring_kick(index)
        device.ring_enable(index, True)


# User-Mode Linux: in-band notifications where offered, else one end of a socket pair for calls; never GET_VRING_BASE.

def _uml_negotiate(device: "VirtioFs") -> None:
    device.connection.set_owner()
    _features(device)
    device.offer_channel()
    device.check_queue_num()
    if device.has("CONFIG"):
        for end in (virtio.VIRTIO_FS_TAG_SIZE, CONFIG_SIZE):
            device.read_config(end)


def _uml_start(device: "VirtioFs") -> None:
    inband = device.has("INBAND_NOTIFICATIONS")
    device.set_features()
    device.set_memory(slots=False)
    for index in device.configured:
        if inband:
            device.use_inband(index)
        else:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            device.keep.append(ours)
            device.queues[index].call_fd = ours.fileno()
            device.connection.set_vring_call(index, theirs.fileno())
            theirs.close()
        device.ring_num(index)
        device.bases[index] = 0
        device.ring_base(index)
        device.ring_addr(index, log=(1 << 64) - 1)
        if not inband:
            device.ring_kick(index)
        device.ring_enable(index, True)


def _uml_stop(device: "VirtioFs") -> None:
    for index in reversed(device.configured):
        device.ring_enable(index, False)
    device.get_features()
    for index in device.configured:
        device.queues[index].reset()


QEMU = Profile(
    "qemu", 0x7fffff & ~bits("CONFIG", "GET_VRING_BASE_INFLIGHT"), QEMU_ACKS, _qemu_negotiate, _qemu_start, _qemu_stop)
QEMU_OLD = Profile(
    "qemu-7.2", 0x1ffff & ~bits("CONFIG"), OLD_ACKS, _qemu_negotiate, _qemu_start, _qemu_stop)
QEMU_TEST_DEVICE = Profile(
    "qemu-test-device", 0x7fffff & ~bits("GET_VRING_BASE_INFLIGHT"), QEMU_ACKS, _qemu_negotiate, _qemu_start,
    _qemu_stop)
CLOUD_HYPERVISOR = Profile(
    "cloud-hypervisor", bits("MQ", "CONFIGURE_MEM_SLOTS", "REPLY_ACK", "INFLIGHT_SHMFD", "LOG_SHMFD", "DEVICE_STATE"),
    EVERY_REQUEST, _cloud_negotiate, _cloud_start, _plain_stop)
CROSVM = Profile(
    "crosvm", bits("CONFIG", "MQ", "BACKEND_REQ", "DEVICE_STATE", "SHMEM", "REPLY_ACK"), frozenset(),
    _crosvm_negotiate, _crosvm_start, _plain_stop)
UML = Profile(
    "uml", bits("MQ", "REPLY_ACK", "BACKEND_REQ", "CONFIG", "INBAND_NOTIFICATIONS"), EVERY_REQUEST - HAS_REPLY,
    _uml_negotiate, _uml_start, _uml_stop, user_addr="gpa")
PROFILES = {profile.name: profile for profile in (QEMU, QEMU_OLD, QEMU_TEST_DEVICE, CLOUD_HYPERVISOR, CROSVM, UML)}
