"""What the tests of the file system have in common: sessions that leave nothing behind, mounts, and comparisons."""

import contextlib
import ctypes
import errno
import os
import pathlib
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from frontend import fuse_abi as abi
from frontend.device import VirtioFs
from frontend.fuse import FuseClient, FuseError, Reply
from frontend.memory import GuestMemory, RegionSpec
from tests.daemon.support import wait_until
from tests.running import SECONDS, Daemon

ROOT = abi.FUSE_ROOT_ID
U32 = struct.Struct("=I")
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users and devices")


# Sessions

@dataclass
class Guest:
    """A session with its daemon, its device, and the share as the host sees it."""

    daemon: Daemon
    device: VirtioFs
    fuse: FuseClient

    @property
    def share(self) -> pathlib.Path:
        return self.daemon.share


@contextlib.contextmanager
def session(daemon: Daemon, device: VirtioFs) -> Iterator[FuseClient]:
    """A session on the share. When it gives back all that it looked up, the daemon must not know a single inode any
    more.
    """
    fuse = FuseClient(device)
    fuse.init()
    yield fuse
    give_back(fuse)
    daemon.wait_for(inodes=0)
    fuse.destroy()


@contextlib.contextmanager
def connected(daemon: Daemon, **how: Any) -> Iterator[Guest]:
    """A device on the daemon with a session; `how` are the device's options. At the end no file may be open."""
    with VirtioFs(daemon.socket, **how) as device:
        with session(daemon, device) as fuse:
            yield Guest(daemon, device, fuse)
        gone = {} if daemon.statistics()["inodes_remembered"] else {"descriptors_cached": 0}
        daemon.wait_for(inodes_closing=0, files_open=0, **gone)


def give_back(fuse: FuseClient) -> None:
    """Forgets everything, many at a time."""
    nodes = list(fuse.lookups.items())
    for start in range(0, len(nodes), 1000):
        fuse.batch_forget(nodes[start:start + 1000])


def opened(fuse: FuseClient, name: str, flags: int = os.O_RDWR) -> tuple[int, int]:
    """Node and handle of a file in the root."""
    nodeid = fuse.lookup(ROOT, name).nodeid
    return nodeid, fuse.open(nodeid, flags).fh


def cached(daemon: Daemon, path: pathlib.Path) -> bool:
    """Whether the daemon has the file, under the name that it has now, open."""
    return any(name in (str(path), f"{path} (deleted)") for name in daemon.open_files())


def settle(seconds: float = 0.05) -> None:
    """A change so recent that another could have the same time counts as a change."""
    time.sleep(seconds)


@contextlib.contextmanager
def refused(*numbers: int) -> Iterator[None]:
    """What is done inside must be answered with (one of) these errors."""
    with pytest.raises(FuseError) as caught:
        yield
    found = errno.errorcode.get(caught.value.errno or 0)
    assert caught.value.errno in numbers, f"{found}, not {', '.join(errno.errorcode[number] for number in numbers)}"


@contextlib.contextmanager
def during(what: str) -> Iterator[None]:
    """Says of a failure in which of many cases it was."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in the case: {what}")
        raise


def error_of(reply: Reply) -> str:
    """The name of the error in a reply, "" for none: what a failed comparison shows."""
    return errno.errorcode.get(-reply.error, str(reply.error)) if reply.error else ""


# Several queues at once

class LockedMemory(GuestMemory):
    """Guest memory that several threads may allocate from."""

    def __init__(self, mib: int) -> None:
        self._lock = threading.RLock()
        super().__init__([RegionSpec(0, mib << 20)])

    def alloc(self, length: int, align: int = 16) -> int:
        with self._lock:
            return super().alloc(length, align)

    def alloc_pages(self, count: int, scattered: bool = False) -> list[int]:
        with self._lock:
            return super().alloc_pages(count, scattered)

    def free(self, addresses: int | Sequence[int]) -> None:
        with self._lock:
            super().free(addresses)


def client(guest: Guest, queue: int) -> FuseClient:
    """One more client of the same session, for a thread of its own and on a queue of its own."""
    fuse = FuseClient(guest.device)
    fuse.queue, fuse.unique, fuse.flags = queue, queue << 40, guest.fuse.flags
    return fuse


def at_once(runs: Sequence[Callable[[], None]]) -> None:
    """Runs all in threads that begin together; what one raises is raised."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(len(runs))

    def guarded(run: Callable[[], None]) -> None:
        barrier.wait()
        try:
            run()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def forget(fuse: FuseClient, nodeid: int, count: int = 1) -> None:
    fuse.forget(nodeid, count, queue=fuse.queue)


# Comparisons

def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def guest_device(number: int) -> int:
    """A device number as the protocol has it."""
    major, minor = os.major(number), os.minor(number)
    return (minor & 0xff) | major << 8 | (minor & ~0xff) << 12


def as_guest(attr: SimpleNamespace, access: bool = True) -> dict[str, int]:
    """The attributes of an entry or of GETATTR. Without `access`, all but the time of the last access."""
    found = {field: getattr(attr, f"attr_{field}")
             for field in ("ino", "size", "blocks", "mode", "nlink", "uid", "gid", "rdev", "blksize")}
    for stamp in ("atime", "mtime", "ctime") if access else ("mtime", "ctime"):
        found[stamp] = signed(getattr(attr, f"attr_{stamp}")) * 10**9 + getattr(attr, f"attr_{stamp}nsec")
    return found


def as_host(file: pathlib.Path | os.stat_result, access: bool = True) -> dict[str, int]:
    """The same of a file of the host, symbolic links not followed."""
    stat = file if isinstance(file, os.stat_result) else file.lstat()
    found = {"ino": stat.st_ino, "size": stat.st_size, "blocks": stat.st_blocks, "mode": stat.st_mode,
             "nlink": stat.st_nlink, "uid": stat.st_uid, "gid": stat.st_gid, "rdev": guest_device(stat.st_rdev),
             "blksize": stat.st_blksize}
    if access:
        found["atime"] = stat.st_atime_ns
    return found | {"mtime": stat.st_mtime_ns, "ctime": stat.st_ctime_ns}


def tree(folder: pathlib.Path) -> dict[str, tuple[object, ...]]:
    """All that is below a folder, with contents and attributes except access times: equal if nothing has changed."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        content: object = None
        if path.is_symlink():
            content = path.readlink()
        elif path.is_file():
            content = path.read_bytes()
        xattrs = [(name, os.getxattr(path, name, follow_symlinks=False))
                  for name in os.listxattr(path, follow_symlinks=False)]
        found[str(path.relative_to(folder))] = (content, as_host(path, access=False), xattrs)
    return found


# The host's side

def rename_exchange(one: pathlib.Path, other: pathlib.Path) -> None:
    """Swaps two names at once."""
    libc = ctypes.CDLL(None, use_errno=True)
    at_fdcwd = -100
    if libc.renameat2(at_fdcwd, os.fsencode(one), at_fdcwd, os.fsencode(other), RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), f"cannot exchange {one} and {other}")


def access_list(*entries: tuple[int, int, int]) -> bytes:
    """A POSIX access control list as an extended attribute has it: (tag, permissions, id) each."""
    return U32.pack(2) + b"".join(struct.pack("=HHI", *entry) for entry in entries)


# Where files can be opened by handle, and where they cannot, or where nobody can rely on it.
WITH_HANDLES = ("ext4", "old_ext4", "xfs", "btrfs", "tmpfs")
FILE_SYSTEMS = (*WITH_HANDLES, "overlay", "fuse")


class Mounts:
    """File systems of the test's own. Each test that needs one it may not have is skipped."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.mounted: list[pathlib.Path] = []

    def mount(self, at: pathlib.Path, *words: str | pathlib.Path) -> pathlib.Path:
        at.mkdir(parents=True, exist_ok=True)
        result = subprocess.run(["mount", *map(str, words), str(at)], capture_output=True, text=True)
        if result.returncode:
            pytest.skip(f"cannot mount: {result.stderr.strip()}")
        self.mounted.append(at)
        return at

    def unmount_unused(self, at: pathlib.Path) -> None:
        """Not by force: nobody may use it any more. What is let go of just now may take a moment."""
        wait_until(lambda: subprocess.run(["umount", str(at)], stderr=subprocess.DEVNULL).returncode == 0,
                   f"unmounting {at}")
        self.mounted.remove(at)

    def tmpfs(self, at: pathlib.Path | None = None, options: str = "size=256m") -> pathlib.Path:
        return self.mount(at or self.folder / "tmpfs", "-t", "tmpfs", "-o", options, "tmpfs")

    def image(self, kind: str, mib: int, *options: str, name: str = "") -> pathlib.Path:
        """A new file system of this kind in a file beside it."""
        name = name or kind
        file = self.folder / f"{name}.img"
        file.touch()
        os.truncate(file, mib << 20)
        try:
            result = subprocess.run([f"mkfs.{kind}", "-q", *options, str(file)], capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip(f"there is no mkfs.{kind}")
        if result.returncode:
            pytest.skip(f"cannot make a file system: {result.stderr.strip()}")
        return self.mount(self.folder / name, "-o", "loop", file)

    def ext4(self, mib: int = 64, *options: str) -> pathlib.Path:
        return self.image("ext4", mib, "-E", "lazy_itable_init=1,lazy_journal_init=1", *options)

    def old_ext4(self) -> pathlib.Path:
        """With inodes as small as they once were: no times of birth, and all times in whole seconds."""
        return self.image("ext4", 64, "-I", "128", name="old_ext4")

    def xfs(self) -> pathlib.Path:
        return self.image("xfs", 320)

    def btrfs(self) -> pathlib.Path:
        return self.image("btrfs", 128)

    def fuse(self) -> pathlib.Path:
        """A directory of the host's by way of a FUSE server, which knows nothing of file handles."""
        behind, at = self.folder / "behind-fuse", self.folder / "fuse"
        for folder in (behind, at):
            folder.mkdir()
        if not shutil.which("bindfs"):
            pytest.skip("there is no bindfs to mount a FUSE file system with")
        command = ["bindfs", "-o", "attr_timeout=0,entry_timeout=0", str(behind), str(at)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            pytest.skip(f"cannot mount: {result.stderr.strip()}")
        self.mounted.append(at)
        return at

    def of(self, kind: str) -> pathlib.Path:
        """A new file system of a kind in FILE_SYSTEMS."""
        made: pathlib.Path = getattr(self, kind)()
        return made

    def bind(self, source: pathlib.Path, at: pathlib.Path) -> pathlib.Path:
        if source.is_dir():
            return self.mount(at, "--bind", source)
        at.touch()
        result = subprocess.run(["mount", "--bind", str(source), str(at)], capture_output=True, text=True)
        if result.returncode:
            pytest.skip(f"cannot mount: {result.stderr.strip()}")
        self.mounted.append(at)
        return at

    def overlay(self) -> pathlib.Path:
        parts = [self.folder / f"overlay-{name}" for name in ("lower", "upper", "work")]
        for part in parts:
            part.mkdir()
        options = ",".join(f"{name}dir={part}" for name, part in zip(("lower", "upper", "work"), parts, strict=True))
        return self.mount(self.folder / "overlay", "-t", "overlay", "-o", options, "overlay")

    def unmount(self, at: pathlib.Path) -> None:
        self.mounted.remove(at)
        subprocess.run(["umount", "-l", str(at)], check=True)

    def close(self) -> None:
        for at in reversed(self.mounted.copy()):
            self.unmount(at)


FileSystem = Callable[[], pathlib.Path]


CROWD = 700


def push_out(guest: Guest, *paths: pathlib.Path) -> None:
    """Looks at so many other files that the daemon closes these."""
    crowd = guest.share / "crowd"
    if not crowd.exists():
        crowd.mkdir()
        for number in range(CROWD):
            (crowd / str(number)).touch()
    parent = guest.fuse.lookup(ROOT, "crowd").nodeid
    # Least recently used first, but only as far as the table's parts can tell, and nothing that is too new to be known.
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        for number in range(CROWD):
            guest.fuse.lookup(parent, str(number))
        if not any(cached(guest.daemon, path) for path in paths):
            return
    kept = [path for path in paths if cached(guest.daemon, path)]
    pytest.fail(f"{len(kept)} kept their descriptors: {kept[:10]}")
