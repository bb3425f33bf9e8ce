"""What a hostile front-end may say: it is refused, or its connection is closed with one line; the daemon lives on,
nothing of it stays open, and the next front-end is served.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from frontend.vhost_user import ClosedError, Connection, RefusedError
from tests.daemon.support import (
    ALL,
    CLOSED,
    answered,
    ask,
    closed,
    closing_lines,
    dismissed,
    eventfds,
    idle_files,
    memory_file,
    region,
    visiting,
    was_read,
)
from tests.running import Daemon
from virtiofsd import vhost_user_abi as abi
from virtiofsd.channel import Channel, ProtocolError
from virtiofsd.vhost_user_abi import FrontRequest

VERSION, NEED_REPLY = abi.VHOST_USER_VERSION, abi.FLAG_NEED_REPLY
FDS_MAX = 253
LINGER_SECONDS = 3600
SIZES = {
    FrontRequest.GET_FEATURES: 0, FrontRequest.SET_FEATURES: 8, FrontRequest.SET_OWNER: 0, FrontRequest.RESET_OWNER: 0,
    FrontRequest.SET_MEM_TABLE: 8, FrontRequest.SET_VRING_NUM: 8, FrontRequest.SET_VRING_ADDR: 40,
    FrontRequest.SET_VRING_BASE: 8, FrontRequest.GET_VRING_BASE: 8, FrontRequest.SET_VRING_KICK: 8,
    FrontRequest.SET_VRING_CALL: 8, FrontRequest.SET_VRING_ERR: 8, FrontRequest.GET_PROTOCOL_FEATURES: 0,
    FrontRequest.SET_PROTOCOL_FEATURES: 8, FrontRequest.GET_QUEUE_NUM: 0, FrontRequest.SET_VRING_ENABLE: 8,
    FrontRequest.SET_BACKEND_REQ_FD: 0, FrontRequest.GET_CONFIG: 12, FrontRequest.SET_CONFIG: 12,
    FrontRequest.RESET_DEVICE: 0, FrontRequest.VRING_KICK: 8, FrontRequest.GET_MAX_MEM_SLOTS: 0,
    FrontRequest.ADD_MEM_REG: 40, FrontRequest.REM_MEM_REG: 40, FrontRequest.SET_STATUS: 8,
    FrontRequest.GET_STATUS: 0,
}
REPLIES = {request for request in SIZES if request.name.startswith("GET_")}
UNKNOWN = [0, 19, 46, 47, 1000, (1 << 31) + 1, (1 << 32) - 1,
           *(request for request in FrontRequest if request not in SIZES)]
SOME_DESCRIPTORS = {FrontRequest.SET_VRING_KICK: 1, FrontRequest.SET_VRING_CALL: 1, FrontRequest.SET_VRING_ERR: 1,
                    FrontRequest.SET_BACKEND_REQ_FD: 1, FrontRequest.ADD_MEM_REG: 1, FrontRequest.REM_MEM_REG: 1}


@pytest.fixture
def patient(daemon: Daemon) -> Iterator[Daemon]:
    """A daemon that may log errors of connections; at the end it must have nothing open that it had not before."""
    daemon.expected = [CLOSED, "failed: ", "GET_CONFIG of"]
    before = idle_files(daemon)
    yield daemon
    assert idle_files(daemon) == before


def refused(connection: Connection, request: int, payload: bytes = b"", fds: tuple[int, ...] | list[int] = ()) -> None:
    with pytest.raises(RefusedError):
        connection.order(request, payload, fds, ack=True)


# Acknowledgements

def test_a_message_is_acknowledged_once_where_that_was_asked_for(patient: Daemon) -> None:
    with visiting(patient) as connection:
        connection.order(FrontRequest.SET_OWNER, ack=True)
        connection.order(FrontRequest.SET_OWNER, ack=False)
        connection.send(FrontRequest.GET_FEATURES, flags=VERSION | NEED_REPLY)
        assert connection.answer(FrontRequest.GET_FEATURES).value == ALL
        connection.set_vring_enable(0, True, ack=True)
        assert connection.get_vring_base(0) == 0
        assert connection.get_features() == ALL     # which is the next that comes: there was no further reply


def test_acknowledgements_are_not_sent_where_they_were_not_negotiated(patient: Daemon) -> None:
    with visiting(patient, acks=False) as connection:
        for _ in range(3):
            connection.send(FrontRequest.SET_OWNER, flags=VERSION | NEED_REPLY)
        assert connection.get_features() == ALL


def test_the_message_that_negotiates_acknowledgements_may_ask_for_one(patient: Daemon) -> None:
    with Connection.connect(patient.socket) as connection:
        features = connection.get_protocol_features()
        connection.order(FrontRequest.SET_PROTOCOL_FEATURES, features.to_bytes(8, "little"), ack=True)
        dismissed(connection)


def test_an_error_is_acknowledged_and_the_connection_goes_on(patient: Daemon) -> None:
    with visiting(patient) as connection:
        for number in (0, 3, 65536, (1 << 32) - 1):
            with pytest.raises(RefusedError):
                connection.set_vring_num(0, number, ack=True)
        connection.set_vring_num(0, 128, ack=True)
    assert closing_lines(patient) == []


def test_an_error_that_cannot_be_told_ends_the_connection(patient: Daemon) -> None:
    for acks in (True, False):
        with visiting(patient, acks=acks) as connection:
            connection.set_vring_num(0, 3, ack=False)
            assert closed(connection)
    assert closing_lines(patient) == ["SET_VRING_NUM: vring 0: a size of 3 is no power of 2 up to 32768"] * 2


# Every message, wrong in each way

def test_unknown_messages_are_refused(patient: Daemon) -> None:
    with visiting(patient) as connection:
        for request in UNKNOWN:
            refused(connection, request, bytes(16))
        assert connection.get_features() == ALL
    for request in UNKNOWN[:3]:
        with visiting(patient) as connection:
            connection.send(request)
            assert closed(connection)
        assert closing_lines(patient)[-1] == f"message {request}: it is unknown"


def test_no_message_is_taken_with_a_wrong_size(patient: Daemon) -> None:
    wrong = [(request, number) for request, size in SIZES.items() for number in {0, 1, size - 1, size + 1, 4000}
             if number >= 0 and number != size and not (request == FrontRequest.GET_CONFIG and number > size)]
    with visiting(patient) as connection:
        for request, size in wrong:
            if request not in REPLIES:
                refused(connection, request, bytes(size))
    for request, size in wrong:
        if request in REPLIES:
            with visiting(patient) as connection:
                connection.send(request, bytes(size), flags=VERSION | NEED_REPLY)
                assert closed(connection), (request, size)


def test_a_message_that_claims_too_much_is_not_waited_for(patient: Daemon) -> None:
    for size in (16385, 1 << 20, (1 << 32) - 1):
        with visiting(patient) as connection:
            connection.send(FrontRequest.SET_FEATURES, bytes(8), size=size)
            assert closed(connection)
        assert closing_lines(patient)[-1] == f"message 2 claims {size} bytes"


def test_descriptors_that_do_not_belong_to_a_message_are_refused_and_closed(patient: Daemon) -> None:
    wrong = [(request, count) for request in SIZES if request != FrontRequest.SET_MEM_TABLE
             for count in (SOME_DESCRIPTORS.get(request, 0) + 1, FDS_MAX)]
    with open(os.devnull) as file:
        with visiting(patient) as connection:
            before = patient.open_files()
            for request, count in wrong:
                if request not in REPLIES:
                    refused(connection, request, bytes(SIZES[request]), [file.fileno()] * count)
            assert patient.open_files() == before
        for request, count in wrong:
            if request in REPLIES:
                with visiting(patient) as connection:
                    connection.send(request, bytes(SIZES[request]), [file.fileno()] * count)
                    assert closed(connection), request


def test_a_connection_that_lingers_keeps_nobody_waiting(daemon: Daemon) -> None:
    """Closing the last descriptor of it waits until all that was sent has been received: by a descriptor that the
    daemon holds as well.
    """
    daemon.expected = [CLOSED]
    message = abi.HEADER.pack(request=FrontRequest.SET_OWNER, flags=VERSION, size=0)
    with socket.create_server(("127.0.0.1", 0)) as server, visiting(daemon) as connection:
        theirs = socket.create_connection(server.getsockname())
        ours = server.accept()[0]
        with theirs, ours:
            ours.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    ours.send(bytes(65536))
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER_SECONDS))
            socket.send_fds(connection.socket, [message[:4]], [theirs.fileno(), ours.fileno()])
            was_read(connection)
        connection.socket.sendall(message[4:])
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        answered(fuse, [ask(fuse)])


def test_more_descriptors_than_any_message_has_end_the_connection(patient: Daemon) -> None:
    """A message in pieces, with descriptors at each: they would have no end."""
    with open(os.devnull) as file, visiting(patient) as connection:
        for _ in range(3):
            connection.send_bytes(b"\x01", [file.fileno()] * FDS_MAX)
            was_read(connection)
        assert closed(connection)
    assert closing_lines(patient) == [f"a message has more than {FDS_MAX} file descriptors"]


def test_wrong_flags_end_the_connection(patient: Daemon) -> None:
    for flags in (0, 2, 3, VERSION | abi.FLAG_REPLY, VERSION | abi.FLAG_REPLY | NEED_REPLY):
        with visiting(patient) as connection:
            connection.send(FrontRequest.GET_FEATURES, flags=flags)
            assert closed(connection)
        assert closing_lines(patient)[-1] == f"message 1 has flags {flags:#x}"


def test_a_message_may_end_before_it_is_whole(patient: Daemon) -> None:
    with eventfds() as fds:
        message = abi.HEADER.pack(request=FrontRequest.SET_VRING_CALL, flags=VERSION, size=8) + bytes(8)
        for size in range(1, len(message)):
            with visiting(patient) as connection:
                connection.send_bytes(message[:size], fds)
                was_read(connection)
                connection.socket.shutdown(socket.SHUT_WR)
                assert closed(connection)
    lines = closing_lines(patient)
    assert len(lines) == len(message) - 1
    assert all(line.startswith("it ended inside") for line in lines)


def test_a_message_may_come_in_any_pieces(patient: Daemon) -> None:
    with visiting(patient) as connection, memory_file(1 << 20) as fd:
        table = abi.MEMORY_HEADER.pack(count=2) + connection.region(region(0, 4096, fd)) + connection.region(
            region(8192, 4096, fd))
        message = abi.HEADER.pack(request=FrontRequest.SET_MEM_TABLE, flags=VERSION | NEED_REPLY, size=len(table))
        message += table
        for cut in range(1, len(message)):
            connection.send_bytes(message[:cut], [fd, fd])
            was_read(connection)
            connection.send_bytes(message[cut:])
            assert connection.answer(FrontRequest.SET_MEM_TABLE).value == 0
        for byte in range(len(message)):
            connection.send_bytes(message[byte:byte + 1], [] if byte else [fd, fd])
            was_read(connection)
        assert connection.answer(FrontRequest.SET_MEM_TABLE).value == 0


def test_messages_may_come_many_at_a_time(patient: Daemon) -> None:
    with visiting(patient) as connection:
        message = abi.HEADER.pack(request=FrontRequest.GET_FEATURES, flags=VERSION)
        connection.send_bytes(message * 100)
        assert [connection.answer(FrontRequest.GET_FEATURES).value for _ in range(100)] == [ALL] * 100


# Messages out of order, and of rings that do not exist

def test_rings_that_do_not_exist_are_refused(patient: Daemon) -> None:
    for index in (256, 1 << 31, (1 << 32) - 1):
        with visiting(patient) as connection:
            for request in (FrontRequest.SET_VRING_NUM, FrontRequest.SET_VRING_BASE, FrontRequest.SET_VRING_ENABLE,
                            FrontRequest.VRING_KICK):
                refused(connection, request, abi.VRING_STATE.pack(index=index, num=1))
            refused(connection, FrontRequest.SET_VRING_ADDR, abi.VRING_ADDR.pack(index=index))
            connection.send(FrontRequest.GET_VRING_BASE, abi.VRING_STATE.pack(index=index))
            assert closed(connection)


def test_a_ring_with_and_without_a_descriptor_must_say_so(patient: Daemon) -> None:
    with visiting(patient) as connection, eventfds() as fds:
        for request in (FrontRequest.SET_VRING_KICK, FrontRequest.SET_VRING_CALL, FrontRequest.SET_VRING_ERR):
            refused(connection, request, (1).to_bytes(8, "little"))
            refused(connection, request, (1 | 1 << 8).to_bytes(8, "little"), fds)


def test_a_ring_is_not_started_before_it_is_set_up(patient: Daemon) -> None:
    with VirtioFs(patient.socket, start=False) as device, eventfds() as fds:
        device.negotiate()
        connection = device.connection

        def cannot_start() -> None:
            before = patient.open_files()
            with pytest.raises(RefusedError):
                connection.set_vring_kick(1, fds[0], ack=True)
            assert patient.open_files() == before
            with pytest.raises(RefusedError):
                connection.vring_kick(1, ack=True)
            assert patient.open_files() == before

        cannot_start()
        device.ring_num(1)
        cannot_start()
        device.ring_addr(1)
        cannot_start()    # without memory
        device.set_features()
        device.set_memory(slots=True)
        device.ring_enable(1, True)
        connection.set_vring_addr(1, 1 << 60, 1 << 60, 1 << 60, ack=True)
        cannot_start()
        device.ring_addr(1)
        device.ring_kick(1)
        FuseClient(device).init()
        dismissed(connection)


def test_a_ring_that_was_never_started_has_a_base(patient: Daemon) -> None:
    with Connection.connect(patient.socket) as connection:
        assert connection.get_vring_base(200) == 0
        connection.set_vring_base(3, 77)
        assert connection.get_vring_base(3) == 77
        assert connection.get_vring_base(3) == 77
        dismissed(connection)


def test_rings_may_be_enabled_before_anything_else(patient: Daemon) -> None:
    with VirtioFs(patient.socket, start=False) as device:
        for index in (0, 1, 255):
            device.connection.set_vring_enable(index, True)
        device.negotiate()
        device.start()
        FuseClient(device).init()
        dismissed(device.connection)


def test_a_ring_is_enabled_or_not_and_nothing_else(patient: Daemon) -> None:
    with visiting(patient) as connection:
        for value in (2, 255, (1 << 32) - 1):
            refused(connection, FrontRequest.SET_VRING_ENABLE, abi.VRING_STATE.pack(index=0, num=value))


def test_size_and_base_of_a_ring_that_runs_cannot_be_set(patient: Daemon) -> None:
    with VirtioFs(patient.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        with pytest.raises(RefusedError):
            device.connection.set_vring_num(1, 64, ack=True)
        with pytest.raises(RefusedError):
            device.connection.set_vring_base(1, 0, ack=True)
        answered(fuse, [ask(fuse)])
        dismissed(device.connection)


# The channel by itself

def test_a_channel_that_has_failed_reads_nothing_more() -> None:
    """Also where messages wait already: the peer could keep it busy with them."""
    ours, theirs = socket.socketpair()

    async def fail_and_receive() -> None:
        channel = Channel(ours)
        channel.fail(ProtocolError("enough"))
        with pytest.raises(ProtocolError, match="enough"):
            await channel.receive()

    with ours, theirs:
        ours.setblocking(False)
        theirs.send(abi.HEADER.pack(request=FrontRequest.GET_FEATURES, flags=VERSION))
        asyncio.run(fail_and_receive())
        assert len(ours.recv(100)) == abi.HEADER.size


# Anything at all

messages = st.tuples(
    st.sampled_from([*FrontRequest, 0, 46]),
    st.one_of(
        st.binary(max_size=48),
        st.builds(lambda index, number: abi.VRING_STATE.pack(index=index, num=number),
                  st.integers(0, 3), st.sampled_from([0, 1, 2, 128, 65535])),
        st.builds(lambda word: word.to_bytes(8, "little"), st.sampled_from([0, 1, 256, 257, 1 << 30, 1 << 32])),
        st.builds(lambda address, size, offset: bytes(8) + abi.MEMORY_REGION.pack(
            guest_addr=address, size=size, user_addr=address, mmap_offset=offset),
            st.sampled_from([0, 4096, 8192, 1 << 63, (1 << 64) - 1]), st.sampled_from([0, 1, 4096, 1 << 20, 1 << 63]),
            st.sampled_from([0, 1, 4096, (1 << 64) - 4096])),
        st.builds(lambda desc, avail, used: abi.VRING_ADDR.pack(index=1, desc=desc, avail=avail, used=used),
                  *[st.sampled_from([0, 1, 4096, 8192, (1 << 64) - 1])] * 3)),
    st.lists(st.integers(0, 4), max_size=3),
    st.booleans())


def test_no_series_of_messages_ends_the_daemon_or_stays_open(patient: Daemon) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, memory_file(1 << 16) as memory, eventfds(2) as events, open(os.devnull) as null:
        choice = [memory, *events, theirs.fileno(), null.fileno()]
        before = idle_files(patient)

        @settings(max_examples=150, deadline=None, database=None,
                  suppress_health_check=[HealthCheck.function_scoped_fixture])
        @given(st.lists(messages, max_size=12))
        def say(series: list[tuple[int, bytes, list[int], bool]]) -> None:
            with visiting(patient) as connection, contextlib.suppress(ClosedError):
                for request, payload, numbers, ack in series:
                    connection.send(request, payload, [choice[number] for number in numbers],
                                    flags=VERSION | (NEED_REPLY if ack else 0))

        say()
        assert idle_files(patient) == before
