"""The one table of operations: what it says of each holds on the wire."""

import errno
import os
import stat
from collections.abc import Callable

import pytest

from frontend import fuse_abi as abi
from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from frontend.fuse_abi import Opcode
from frontend.fuse_transport import groups_block
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, during, error_of, refused, tree
from tests.running import Daemon
from virtiofsd._ring.operations import operations

TABLE = {opcode: (name, flags) for opcode, name, flags in operations()}

# What the protocol has and this daemon answers with ENOSYS, after which Linux does without it.
NOT_OFFERED = {
    Opcode.BMAP,                                    # for swap files on block devices
    Opcode.POLL,                                    # files are always ready
    Opcode.NOTIFY_REPLY,                            # nothing is ever asked of the guest
    Opcode.SETUPMAPPING, Opcode.REMOVEMAPPING,      # no DAX window
}

# The size of what is fixed in each request, and of a fixed reply, as the protocol has them.
SIZES: dict[Opcode, tuple[int, int]] = {
    Opcode.LOOKUP: (0, 128), Opcode.FORGET: (8, 0), Opcode.GETATTR: (16, 104), Opcode.SETATTR: (88, 104),
    Opcode.READLINK: (0, 0), Opcode.SYMLINK: (0, 128), Opcode.MKNOD: (16, 128), Opcode.MKDIR: (8, 128),
    Opcode.UNLINK: (0, 0), Opcode.RMDIR: (0, 0), Opcode.RENAME: (8, 0), Opcode.LINK: (8, 128), Opcode.OPEN: (8, 16),
    Opcode.READ: (40, 0), Opcode.WRITE: (40, 8), Opcode.STATFS: (0, 80), Opcode.RELEASE: (24, 0),
    Opcode.FSYNC: (16, 0), Opcode.SETXATTR: (8, 0), Opcode.GETXATTR: (8, 0), Opcode.LISTXATTR: (8, 0),
    Opcode.REMOVEXATTR: (0, 0), Opcode.FLUSH: (24, 0), Opcode.INIT: (16, 64), Opcode.OPENDIR: (8, 16),
    Opcode.READDIR: (40, 0), Opcode.RELEASEDIR: (24, 0), Opcode.FSYNCDIR: (16, 0), Opcode.ACCESS: (8, 0),
    Opcode.CREATE: (16, 144), Opcode.INTERRUPT: (8, 0), Opcode.DESTROY: (0, 0), Opcode.BATCH_FORGET: (8, 0),
    Opcode.FALLOCATE: (32, 0), Opcode.READDIRPLUS: (40, 0), Opcode.RENAME2: (16, 0), Opcode.LSEEK: (24, 8),
    Opcode.COPY_FILE_RANGE: (56, 8), Opcode.SYNCFS: (8, 0), Opcode.TMPFILE: (16, 144), Opcode.STATX: (24, 288),
    Opcode.COPY_FILE_RANGE_64: (56, 8), Opcode.GETLK: (48, 24), Opcode.SETLK: (48, 0), Opcode.SETLKW: (48, 0),
    Opcode.IOCTL: (32, 16),
}

def modifying(fuse: FuseClient, node: int, fh: int) -> dict[Opcode, Callable[[], object]]:
    """A request for every row that modifies, that would succeed, by the node and a handle of `file`."""
    return {
        Opcode.SETATTR: lambda: fuse.setattr(node, mode=0o600),
        Opcode.SYMLINK: lambda: fuse.symlink(ROOT, "new", "target"),
        Opcode.MKNOD: lambda: fuse.mknod(ROOT, "new", stat.S_IFREG | 0o644),
        Opcode.MKDIR: lambda: fuse.mkdir(ROOT, "new"),
        Opcode.UNLINK: lambda: fuse.unlink(ROOT, "file"),
        Opcode.RMDIR: lambda: fuse.rmdir(ROOT, "folder"),
        Opcode.RENAME: lambda: fuse.rename(ROOT, "file", ROOT, "new"),
        Opcode.LINK: lambda: fuse.link(node, ROOT, "new"),
        Opcode.WRITE: lambda: fuse.write(node, fh, 0, b"new"),
        Opcode.SETXATTR: lambda: fuse.setxattr(node, "user.new", b"value"),
        Opcode.REMOVEXATTR: lambda: fuse.removexattr(node, "user.name"),
        Opcode.CREATE: lambda: fuse.create(ROOT, "new"),
        Opcode.FALLOCATE: lambda: fuse.fallocate(node, fh, 0, 100_000),
        Opcode.RENAME2: lambda: fuse.rename2(ROOT, "file", ROOT, "new"),
        Opcode.COPY_FILE_RANGE: lambda: fuse.copy_file_range(node, fh, 0, node, fh, 5, 4),
        Opcode.COPY_FILE_RANGE_64: lambda: fuse.copy_file_range(node, fh, 0, node, fh, 5, 4, wide=True),
        Opcode.TMPFILE: lambda: fuse.link(fuse.tmpfile(ROOT)[0].nodeid, ROOT, "new"),
    }


MODIFYING = {
    Opcode.SETATTR, Opcode.SYMLINK, Opcode.MKNOD, Opcode.MKDIR, Opcode.UNLINK, Opcode.RMDIR, Opcode.RENAME, Opcode.LINK,
    Opcode.WRITE, Opcode.SETXATTR, Opcode.REMOVEXATTR, Opcode.CREATE, Opcode.FALLOCATE, Opcode.RENAME2,
    Opcode.COPY_FILE_RANGE, Opcode.COPY_FILE_RANGE_64, Opcode.TMPFILE,
}


def flagged(flag: str) -> set[Opcode]:
    return {Opcode(opcode) for opcode, (_, flags) in TABLE.items() if flag in flags}


def test_every_operation_of_the_protocol_is_served_or_knowingly_not() -> None:
    served = {Opcode(opcode) for opcode in TABLE}
    assert not served & NOT_OFFERED
    assert served | NOT_OFFERED == set(Opcode)
    assert served == set(SIZES)


def test_rows_are_named_as_the_protocol_names_them() -> None:
    assert {opcode: name for opcode, (name, _) in TABLE.items()} == {
        opcode.value: opcode.name for opcode in Opcode if opcode.value in TABLE}


def test_rows_come_in_order_and_with_known_flags() -> None:
    assert [opcode for opcode, _, _ in operations()] == sorted(TABLE)
    assert set().union(*(flags for _, flags in TABLE.values())) <= {
        "modifies", "as-caller", "sleeps", "silent", "sessionless", "streams"}


def test_flags_are_what_the_protocol_asks_for() -> None:
    assert flagged("silent") == {Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT}
    assert flagged("sessionless") == {Opcode.INIT, Opcode.DESTROY}
    assert flagged("as-caller") == {Opcode.SYMLINK, Opcode.MKNOD, Opcode.MKDIR, Opcode.CREATE, Opcode.TMPFILE}
    assert flagged("modifies") == MODIFYING
    assert {Opcode.FSYNC, Opcode.FSYNCDIR, Opcode.SYNCFS, Opcode.FALLOCATE, Opcode.COPY_FILE_RANGE,
            Opcode.COPY_FILE_RANGE_64, Opcode.SETLKW} <= flagged("sleeps")


def test_what_is_not_offered_is_unknown(fuse: FuseClient) -> None:
    for opcode in NOT_OFFERED:
        assert error_of(fuse.call(opcode, ROOT, bytes(200), out_size=300, check=False)) == "ENOSYS", opcode.name


@pytest.mark.parametrize("opcode", MODIFYING, ids=lambda opcode: opcode.name)
def test_every_modifying_row_modifies_and_is_refused_on_a_read_only_share(connect: Connect, opcode: Opcode) -> None:
    """The same request to two daemons: one does it, and the other says EROFS."""
    for options in ((), ("--readonly",)):
        guest = connect(*options)
        (guest.share / "file").write_bytes(b"0123456789")
        (guest.share / "folder").mkdir()
        try:
            os.setxattr(guest.share / "file", "user.name", b"value")
        except OSError as error:
            if "XATTR" in opcode.name:
                pytest.skip(f"this file system has no extended attributes: {error}")
        before = tree(guest.share)
        node = guest.fuse.lookup(ROOT, "file").nodeid
        fh = guest.fuse.open(node, os.O_RDONLY if options else os.O_RDWR).fh
        run = modifying(guest.fuse, node, fh)[opcode]
        if options:
            with refused(errno.EROFS):
                run()
            assert tree(guest.share) == before
        else:
            run()
            assert tree(guest.share) != before


def test_no_other_row_is_refused_on_a_read_only_share(connect: Connect) -> None:
    guest = connect("--readonly")
    for opcode in set(SIZES) - MODIFYING - flagged("silent") - flagged("sessionless"):
        with during(opcode.name):
            reply = guest.fuse.call(opcode, ROOT, bytes(SIZES[opcode][0]), b"name\0", out_size=300, check=False)
            if opcode in (Opcode.GETLK, Opcode.SETLK, Opcode.SETLKW):
                assert error_of(reply) == "ENOSYS"      # without an option locks stay in the guest
            else:
                assert error_of(reply) not in ("EROFS", "ENOSYS")


def test_a_request_shorter_than_its_fixed_arguments_is_refused(fuse: FuseClient) -> None:
    for opcode, (size, _) in SIZES.items():
        for less in {0, size // 2, size - 1} if size else ():
            with during(f"{opcode.name}, {less} bytes"):
                if opcode in flagged("silent"):
                    fuse.drop(opcode, ROOT, bytes(less))
                else:
                    assert error_of(fuse.call(opcode, ROOT, bytes(less), out_size=300, check=False)) == "EINVAL"
    fuse.getattr(ROOT)


def test_a_request_without_room_for_its_fixed_reply_is_refused_and_not_done(fuse: FuseClient, daemon: Daemon) -> None:
    for opcode, (size, reply_size) in SIZES.items():
        body = abi.INIT_IN.pack(major=7, minor=45) if opcode == Opcode.INIT else bytes(size)
        for room in (0, reply_size - 1) if reply_size else ():
            with during(f"{opcode.name}, {room} bytes"):
                reply = fuse.call(opcode, ROOT, body, b"name\0", b"target\0", out_size=room, check=False)
                assert error_of(reply) == "EINVAL"
    assert os.listdir(daemon.share) == []
    numbers = daemon.statistics()
    assert (numbers["session"], numbers["files_open"], numbers["inodes"]) == (1, 0, 0)


def test_a_request_longer_than_any_is_refused(fuse: FuseClient) -> None:
    """But for what streams, whose fixed arguments come first, and which has as much data as it says."""
    for opcode in set(SIZES) - flagged("silent") - flagged("streams"):
        with during(opcode.name):
            assert error_of(fuse.call(opcode, ROOT, data=bytes(75_000), out_size=300, check=False)) == "EINVAL"


def test_only_what_acts_as_the_caller_has_extensions(fuse: FuseClient, daemon: Daemon) -> None:
    for opcode, (size, _) in SIZES.items():
        if opcode in flagged("silent"):
            continue
        with during(opcode.name):
            name = opcode.name.encode() + b"\0"
            fixed = abi.CREATE_IN.pack(flags=os.O_RDWR, mode=0o644) if opcode == Opcode.TMPFILE else bytes(size)
            body = fixed + name + (b"target\0" if opcode == Opcode.SYMLINK else b"")
            reply = fuse.call(opcode, ROOT, body, ext=groups_block([5]), out_size=300, check=False)
            if opcode in flagged("as-caller"):
                assert not reply.error
                fuse.lookups[abi.ENTRY_OUT.unpack(reply.data).nodeid] += 1
            else:
                assert error_of(reply) == "EINVAL"
    named = flagged("as-caller") - {Opcode.TMPFILE}
    assert sorted(os.listdir(daemon.share)) == sorted(opcode.name for opcode in named)


def test_without_a_session_nothing_else_is_served(device: VirtioFs, daemon: Daemon) -> None:
    fuse = FuseClient(device)
    for opcode, (size, _) in SIZES.items():
        body = bytes(size) + b"name\0target\0"
        with during(opcode.name):
            if opcode in flagged("silent"):
                fuse.drop(opcode, ROOT, body)
                continue
            reply = fuse.call(opcode, ROOT, body, out_size=300, check=False)
            if opcode in flagged("sessionless"):
                assert error_of(reply) == ("EPROTO" if opcode == Opcode.INIT else "")
            else:
                assert error_of(reply) == "EIO"
    assert os.listdir(daemon.share) == []
