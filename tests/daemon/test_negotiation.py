"""Features, the configuration space, status: what is offered, and to whom."""

import os
import socket

import pytest

from frontend.device import POLLING, VirtioFs
from frontend.fuse import FuseClient
from frontend.profiles import PROFILES
from frontend.vhost_user import Connection, RefusedError
from tests.conftest import StartDaemon
from tests.daemon.support import answered, ask, closed, not_answered, talking_to
from tests.running import Daemon
from virtiofsd import vhost_user_abi as abi
from virtiofsd.vhost_user_abi import FrontRequest

TAG = "shared"
CONFIG = abi.VHOST_USER_PROTOCOL_F_CONFIG
MQ, REPLY_ACK, BACKEND_REQ, RESET_DEVICE, INBAND, MEM_SLOTS, STATUS = (1 << bit for bit in (0, 3, 5, 13, 14, 15, 16))


@pytest.fixture
def tagged(start_daemon: StartDaemon) -> Daemon:
    return start_daemon("--tag", TAG, "--num-request-queues", "3")


def test_the_features_are_these_and_no_others(daemon: Daemon) -> None:
    with Connection.connect(daemon.socket) as connection:
        assert connection.get_features() == 1 << 32 | 1 << 30 | 1 << 29 | 1 << 28
        assert connection.get_protocol_features() == (
            MQ | REPLY_ACK | BACKEND_REQ | RESET_DEVICE | INBAND | MEM_SLOTS | STATUS)


def test_a_configuration_is_offered_only_where_there_is_a_tag_to_tell(tagged: Daemon) -> None:
    with Connection.connect(tagged.socket) as connection:
        assert connection.get_protocol_features() & CONFIG


def test_features_may_be_asked_for_at_any_time(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket) as device:
        for _ in range(50):
            assert device.connection.get_features() == device.offered_features
        assert device.connection.get_protocol_features() == device.offered_protocol


def test_features_that_were_not_offered_are_refused(daemon: Daemon) -> None:
    daemon.expected = ["SET_FEATURES failed: features 0x[0-9a-f]+ were not offered"]
    with talking_to(daemon) as connection:
        for features in (1 << 26, 1 << 34, 1 << 63, 1):
            with pytest.raises(RefusedError):
                connection.set_features(1 << 32 | features, ack=True)
            connection.set_features(1 << 32, ack=True)


def test_protocol_features_that_were_not_offered_are_refused(daemon: Daemon) -> None:
    daemon.expected = ["protocol features 0x[0-9a-f]+ were not offered"]
    for features in (CONFIG, abi.VHOST_USER_PROTOCOL_F_XEN_MMAP, 1 << 63):
        with Connection.connect(daemon.socket) as connection:
            connection.set_protocol_features(connection.get_protocol_features() | features)
            assert closed(connection)


def test_there_may_be_256_queues_unless_told_otherwise(daemon: Daemon) -> None:
    with talking_to(daemon) as connection:
        assert connection.get_queue_num() == 256
        connection.set_vring_enable(255, True, ack=True)
        assert connection.get_vring_base(255) == 0


def test_the_number_of_queues_is_what_was_asked_for_and_one(tagged: Daemon) -> None:
    tagged.expected = ["vring 4 of 4"]
    with talking_to(tagged) as connection:
        assert connection.get_queue_num() == 4
        connection.set_vring_enable(3, True, ack=True)
        with pytest.raises(RefusedError):
            connection.set_vring_enable(4, True, ack=True)


def test_there_are_slots_for_as_many_memory_regions_as_any_front_end_has(daemon: Daemon) -> None:
    with talking_to(daemon) as connection:
        assert connection.get_max_mem_slots() >= 509


# The configuration space

def test_every_part_of_the_configuration_can_be_read(tagged: Daemon) -> None:
    whole = TAG.encode().ljust(36, b"\0") + (3).to_bytes(4, "little") + bytes(4)
    qemu = [(0, 40, 0), (0, 44, 0)]
    uml = [(0, 1, 0), (0, 36, 0), (0, 40, 0)]     # from the start to the end of what it wants
    crosvm = [(36, 4, 1), (0, 36, 1), (35, 2, 1), (43, 1, 1)]     # what the guest reads
    with talking_to(tagged) as connection:
        for offset, size, flags in [*qemu, *uml, *crosvm, (44, 0, 0)]:
            assert connection.get_config(offset, size, flags) == whole[offset:offset + size]


def test_what_lies_beyond_the_configuration_is_refused_by_an_empty_answer(tagged: Daemon) -> None:
    tagged.expected = ["GET_CONFIG of"]
    with talking_to(tagged) as connection:
        for offset, size in [(0, 45), (44, 1), (40, 8), (0, 256), (1 << 31, 4), ((1 << 32) - 1, 1)]:
            header = abi.CONFIG_HEADER.pack(offset=offset, size=size)
            assert connection.ask(FrontRequest.GET_CONFIG, header + bytes(size)).payload == b""
        assert len(connection.get_config(0, 40)) == 40


def test_a_configuration_request_that_lies_about_its_size_is_refused(tagged: Daemon) -> None:
    tagged.expected = ["GET_CONFIG of"]
    with talking_to(tagged) as connection:
        for size in ((1 << 32) - 1, 4, 41):
            payload = abi.CONFIG_HEADER.pack(size=size) + bytes(40)
            assert connection.ask(FrontRequest.GET_CONFIG, payload).payload == b""


def test_the_number_of_request_queues_is_that_of_the_cpus_unless_told_otherwise(start_daemon: StartDaemon) -> None:
    with talking_to(start_daemon("--tag", TAG)) as connection:
        assert int.from_bytes(connection.get_config(36, 4), "little") == min(os.cpu_count() or 1, 255)


def test_a_tag_may_fill_its_field(start_daemon: StartDaemon) -> None:
    tag = "ß" * 18
    with talking_to(start_daemon("--tag", tag)) as connection:
        assert connection.get_config(0, 36) == tag.encode()


def test_the_configuration_cannot_be_written(tagged: Daemon) -> None:
    tagged.expected = ["SET_CONFIG failed: .* read-only", "closed: SET_CONFIG: .* read-only"]
    with talking_to(tagged) as connection:
        for flags in (0, 1):
            with pytest.raises(RefusedError):
                connection.set_config(0, b"other", flags, ack=True)
        assert connection.get_config(0, 6) == TAG.encode()
        connection.set_config(0, b"other", ack=False)
        assert closed(connection)


# Status

def test_the_status_is_what_was_set_last(daemon: Daemon) -> None:
    with talking_to(daemon) as connection:
        assert connection.get_status() == 0
        for status in (1, 8, 15, 0xff, 0):
            connection.set_status(status)
            assert connection.get_status() == status


def test_requests_are_served_whatever_the_status(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket) as device:
        device.connection.set_status(0)
        FuseClient(device).init()


# Front-ends

@pytest.mark.parametrize("profile", PROFILES)
def test_every_front_end_starts_works_stops_and_starts_again(tagged: Daemon, profile: str) -> None:
    (tagged.share / "file").write_bytes(b"content")
    with VirtioFs(tagged.socket, profile=profile, num_queues=2) as device:
        fuse = FuseClient(device)
        fuse.init()
        for _ in range(3):
            node = fuse.lookup(1, "file").nodeid
            fh = fuse.open(node).fh
            answered(fuse, [ask(fuse, queue=1 + number % 2) for number in range(8)])
            assert fuse.read(node, fh, 0, 100, queue=2) == b"content"
            fuse.release(node, fh)
            fuse.forget_all()
            device.stop()
            waiting = ask(fuse, kick=False)
            not_answered(fuse)
            if profile == "uml":    # which empties its rings when it sets them up again
                device.queues[1].reset()
                device.memory.free(waiting.taken)
            device.start()
            if profile != "uml":
                answered(fuse, [waiting])
        assert (device.config != b"") == device.has("CONFIG")
        if device.config:
            assert device.tag == TAG


@pytest.mark.parametrize("profile", PROFILES)
def test_every_front_end_can_poll_both_ways(tagged: Daemon, profile: str) -> None:
    with VirtioFs(tagged.socket, profile=profile, notify=POLLING) as device:
        fuse = FuseClient(device)
        fuse.init()
        answered(fuse, [ask(fuse) for _ in range(20)])


def test_the_driver_need_not_use_every_queue_of_the_device(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket, num_queues=4, driver_queues=2) as device:
        fuse = FuseClient(device)
        fuse.init()
        answered(fuse, [ask(fuse, queue=2)])
        device.stop()
        device.start()
        answered(fuse, [ask(fuse, queue=1)])


def test_a_front_end_without_any_protocol_feature_is_served(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket, protocol_features=0) as device:
        fuse = FuseClient(device)
        fuse.init()
        device.stop()
        device.start()
        answered(fuse, [ask(fuse)])


def test_rings_are_enabled_from_the_start_where_the_front_end_knows_no_protocol_features(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket, start=False) as device:
        connection = device.connection
        device.features = connection.get_features() & ~abi.VHOST_USER_F_PROTOCOL_FEATURES
        connection.set_owner()
        connection.set_features(device.features)
        device.set_memory()
        for index in range(2):
            device.ring_num(index)
            device.ring_base(index)
            device.ring_addr(index)
            device.ring_call(index)
            device.ring_kick(index)
        FuseClient(device).init()


def test_features_given_again_while_rings_run_change_nothing(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        for _ in range(5):
            device.set_features()
            answered(fuse, [ask(fuse)])


def test_the_owner_may_be_set_late_and_twice(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        device.connection.set_owner()
        device.connection.set_owner()
        answered(fuse, [ask(fuse)])


def test_the_owner_given_up_leaves_the_session_and_disables_the_rings(daemon: Daemon) -> None:
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        device.connection.reset_owner()
        device.get_features()    # the barrier
        ticket = ask(fuse)
        not_answered(fuse)
        device.ring_enable(1, True)
        answered(fuse, [ticket])


def test_the_channel_of_the_back_end_must_be_a_socket(daemon: Daemon) -> None:
    daemon.expected = ["SET_BACKEND_REQ_FD failed"]
    with talking_to(daemon) as connection, open(os.devnull) as file:
        for fds in ([file.fileno()], []):
            with pytest.raises(RefusedError):
                connection.order(FrontRequest.SET_BACKEND_REQ_FD, b"", fds, ack=True)
        for _ in range(3):
            ours, theirs = socket.socketpair()
            connection.order(FrontRequest.SET_BACKEND_REQ_FD, b"", [theirs.fileno()], ack=True)
            theirs.close()
            ours.close()


def test_messages_of_features_that_were_not_negotiated_are_refused(tagged: Daemon) -> None:
    tagged.expected = ["its protocol feature was not negotiated"]
    for request, payload in [(FrontRequest.GET_STATUS, b""), (FrontRequest.GET_CONFIG, bytes(12)),
                             (FrontRequest.GET_QUEUE_NUM, b""), (FrontRequest.GET_MAX_MEM_SLOTS, b"")]:
        with talking_to(tagged, protocol_features=REPLY_ACK) as connection:
            connection.send(request, payload)
            assert closed(connection)
    with talking_to(tagged, protocol_features=REPLY_ACK) as connection:
        for request, payload in [
                (FrontRequest.SET_STATUS, bytes(8)), (FrontRequest.SET_CONFIG, bytes(12)),
                (FrontRequest.RESET_DEVICE, b""), (FrontRequest.VRING_KICK, bytes(8)),
                (FrontRequest.ADD_MEM_REG, bytes(40)), (FrontRequest.REM_MEM_REG, bytes(40)),
                (FrontRequest.SET_BACKEND_REQ_FD, b"")]:
            with pytest.raises(RefusedError):
                connection.order(request, payload, ack=True)
