"""A FUSE file system of the test's own, whose operations hang as long as the test likes: an NFS server that is away."""

import contextlib
import ctypes
import errno
import fcntl
import os
import pathlib
import stat
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import pytest

from frontend import fuse_abi as abi
from frontend.fuse_abi import IN_HEADER, OUT_HEADER, Opcode

SECONDS = 10.0
MAX_WRITE = 1 << 17
SILENT = {Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT}


class HangingMount:
    """One directory with files that exist from the start. Unmounted at the end, with all that still hangs answered."""

    def __init__(self, path: pathlib.Path, files: dict[str, bytes]) -> None:
        self.path = path
        self.names = [name.encode() for name in files]
        self.contents = [bytearray(content) for content in files.values()]
        self.changed = threading.Condition()
        self.hanging: set[int] = set()
        self.seconds: dict[int, float] = {}     # that requests of a kind take
        self.locked = False                     # somebody has all locks
        self.held: list[tuple[int, int, int, bytes]] = []    # opcode, unique, nodeid, arguments
        path.mkdir()
        self.fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"fd={self.fd},rootmode=40000,user_id=0,group_id=0,allow_other"
        if libc.mount(b"hanging", os.fsencode(path), b"fuse", 0, options.encode()):
            number = ctypes.get_errno()
            os.close(self.fd)
            raise OSError(number, os.strerror(number))
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    @contextlib.contextmanager
    def hang(self, *opcodes: Opcode) -> Iterator[None]:
        """Inside, requests of these kinds are not answered; at the end they all are."""
        with self.changed:
            self.hanging = set(opcodes)
        try:
            yield
        finally:
            self.let_go()

    def let_go(self) -> None:
        with self.changed:
            self.hanging = set()
            while self.held:
                self._answer(*self.held.pop(0))

    def wait_for_held(self, count: int = 1) -> None:
        """Waits until so many requests hang."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.held) >= count, SECONDS), f"only {len(self.held)} hang"

    # The file system

    def _serve(self) -> None:
        while True:
            try:
                message = os.read(self.fd, MAX_WRITE + 4096)
            except OSError as error:
                if error.errno == errno.ENOENT:  # interrupted before it was read
                    continue
                return
            header = IN_HEADER.unpack(message)
            request = header.opcode, header.unique, header.nodeid, message[IN_HEADER.size:]
            with self.changed:
                if header.opcode in self.hanging:
                    self.held.append(request)
                    self.changed.notify_all()
                else:
                    self._answer(*request)

    def _answer(self, opcode: int, unique: int, nodeid: int, body: bytes) -> None:
        if opcode in SILENT:
            return
        time.sleep(self.seconds.get(opcode, 0))
        try:
            data, error = self._reply(opcode, nodeid, body), 0
        except OSError as failure:
            data, error = b"", -(failure.errno or errno.EIO)
        with contextlib.suppress(OSError):  # nobody waits any more
            os.write(self.fd, OUT_HEADER.pack(len=OUT_HEADER.size + len(data), error=error, unique=unique) + data)

    def _reply(self, opcode: int, nodeid: int, body: bytes) -> bytes:
        match opcode:
            case Opcode.INIT:
                return abi.INIT_OUT.pack(major=7, minor=31, max_write=MAX_WRITE, max_readahead=65536,
                                         flags=abi.FUSE_POSIX_LOCKS)
            case Opcode.LOOKUP:
                name = body.rstrip(b"\0")
                if name not in self.names:
                    raise OSError(errno.ENOENT, "no such file")
                number = self.names.index(name) + 2
                return abi.ENTRY_OUT.pack(nodeid=number, generation=1, **self._attributes(number))
            case Opcode.GETATTR:
                return abi.ATTR_OUT.pack(**self._attributes(nodeid))
            case Opcode.OPEN:
                return abi.OPEN_OUT.pack(open_flags=abi.FOPEN_DIRECT_IO)
            case Opcode.OPENDIR:
                return abi.OPEN_OUT.pack()
            case Opcode.READ:
                asked = abi.READ_IN.unpack(body)
                return bytes(self.contents[nodeid - 2][asked.offset:asked.offset + asked.size])
            case Opcode.WRITE:
                asked = abi.WRITE_IN.unpack(body)
                self.contents[nodeid - 2][asked.offset:asked.offset + asked.size] = body[abi.WRITE_IN.size:]
                return abi.WRITE_OUT.pack(size=asked.size)
            case Opcode.STATFS:
                return abi.STATFS_OUT.pack()
            case Opcode.SETLK if self.locked and abi.LK_IN.unpack(body).lk_type != fcntl.F_UNLCK:
                raise OSError(errno.EAGAIN, "somebody has a lock")
            case Opcode.SETLK | Opcode.SETLKW:
                return b""
            case Opcode.FSYNC | Opcode.FLUSH | Opcode.RELEASE | Opcode.RELEASEDIR | Opcode.FALLOCATE | Opcode.DESTROY:
                return b""
            case _:
                raise OSError(errno.ENOSYS, "no such operation")

    def _attributes(self, nodeid: int) -> dict[str, int]:
        if nodeid == abi.FUSE_ROOT_ID:
            return {"attr_ino": 1, "attr_mode": stat.S_IFDIR | 0o755, "attr_nlink": 2}
        return {"attr_ino": nodeid, "attr_mode": stat.S_IFREG | 0o644, "attr_nlink": 1,
                "attr_size": len(self.contents[nodeid - 2])}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        ctypes.CDLL(None).umount2(os.fsencode(self.path), 2)     # MNT_DETACH
        fd, self.fd = self.fd, -1
        os.close(fd)


def hanging_mount(path: pathlib.Path, files: dict[str, bytes]) -> HangingMount:
    """Skips the test where there can be none."""
    try:
        return HangingMount(path, files)
    except OSError as error:
        pytest.skip(f"no FUSE file system can be mounted to make operations hang: {error}")


@pytest.fixture
def hanging(tmp_path: pathlib.Path) -> Iterator[HangingMount]:
    """A mount with "file" and "other" in it, 64 KiB each. Asked for before the daemon, so that it outlives it."""
    with hanging_mount(tmp_path / "hanging", {"file": b"\x07" * 65536, "other": b"\x09" * 65536}) as mount:
        yield mount
