"""Everything that a daemon does in its life, in a sandbox where a wrong system call is its end."""

import contextlib
import errno
import fcntl
import os
import pathlib
import signal
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, Unpack

import pytest

from frontend import fuse_abi as abi
from frontend.device import VirtioFs
from frontend.fuse import FuseClient, FuseError
from frontend.fuse_abi import Opcode
from frontend.fuse_transport import How, Ticket, groups_block, secctx_block
from frontend.memory import RegionSpec
from tests.conftest import program
from tests.daemon.sandboxed import Sandboxed, needs_root, nobodys_folder, nobodys_python, public_folder, user_namespaces
from tests.daemon.support import answered, ask, closed, wait_until
from tests.running import SECONDS
from virtiofsd._ring.operations import operations

ROOT = abi.FUSE_ROOT_ID
WRITE, FREE = fcntl.F_WRLCK, fcntl.F_UNLCK
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x80086601, 0x40086602, 0x801C581F, 0x401C5820
FS_IOC_ENABLE_VERITY = 0x40806685

LOCKS = ("--posix-lock", "--flock")
# The default options, and what else has the daemon make other system calls.
VARIANTS = {
    "default": (),
    "everything": (*LOCKS, "--xattr", "--posix-acl=auto", "--security-label=auto", "--preserve-noatime",
                   "--allow-direct-io", "--allow-mmap", "--modcaps", "+sys_admin"),
    "override": (*LOCKS, "--override-stat", "--cache", "never"),
    "translated": ("--translate-uid", "map:0:100000:65536", "--translate-gid", "map:0:100000:65536", "--xattr"),
    "without handles": ("--inode-file-handles", "never", "--cache", "always", "--writeback", "--no-readdirplus"),
    "mandatory handles": ("--inode-file-handles", "mandatory", "--cache", "metadata", "--rlimit-nofile", "300"),
    "readonly": ("--readonly", "--xattr", "--no-announce-submounts", *LOCKS),
    "mapped": ("--xattrmap", ":map::user.virtiofs.:", "--no-killpriv-v2", "--no-idmapped-mounts", "--poll-us", "0"),
}


# What a daemon that may do everything answers to the parts that make no sense: a file that is not open for it, links
# and directories without a size or user attributes, commands of terminals, and what only some file systems have.
REASONABLE = {
    ("copy_file_range", "EBADF"), ("fallocate", "EBADF"), ("read", "EBADF"), ("write", "EBADF"), ("ioctl", "EBADF"),
    ("setattr", "EINVAL"), ("setattr", "EISDIR"), ("setxattr", "EPERM"), ("removexattr", "EPERM"),
    ("getxattr", "ENODATA"), ("getxattr_size", "ENODATA"), ("rename2", "ENOENT"), ("ioctl", "ENOTTY"),
    ("lseek", "EINVAL"), ("lseek", "ENXIO"), ("fallocate", "ENOTSUP"), ("setattr", "ENOTSUP"), ("ioctl", "ENOTSUP"),
}


class Noting(FuseClient):
    """A client that knows what it has asked for, and what came of it."""

    def __init__(self, device: VirtioFs) -> None:
        super().__init__(device)
        self.asked: set[int] = set()
        self.errors: list[tuple[str, str]] = []

    def submit(self, opcode: int, *parts: object, **how: object) -> Ticket:
        self.asked.add(opcode)
        return super().submit(opcode, *parts, **how)    # type: ignore[arg-type]

    def drop(self, opcode: int, nodeid: int, *parts: bytes, **how: Unpack[How]) -> None:
        self.asked.add(opcode)
        super().drop(opcode, nodeid, *parts, **how)

    def attempt(self, run: Callable[..., object], *arguments: Any, **how: Any) -> None:
        with self.noting(run.__name__):
            run(*arguments, **how)

    @contextlib.contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """What is done inside may fail, with an answer."""
        try:
            yield
        except FuseError as error:
            self.errors.append((what, errno.errorcode[error.errno or 0]))


def files(fuse: Noting, share: pathlib.Path) -> None:
    """All operations on files and directories, each in the ways that make different system calls."""
    node = fuse.lookup(ROOT, "file").nodeid
    folder = fuse.lookup(ROOT, "folder").nodeid

    fuse.attempt(fuse.statfs, ROOT)
    fuse.attempt(fuse.syncfs, ROOT)
    for uid, groups in ((0, ()), (1000, (1000, 2000))):
        how = How(uid=uid, gid=uid, ext=groups_block(groups)) if groups else How()
        for umask in (0, 0o77):
            name = f"new-{uid}-{umask}"
            fuse.attempt(fuse.mkdir, folder, f"{name}-d", umask=umask, **how)
            fuse.attempt(fuse.mknod, folder, f"{name}-f", stat.S_IFREG | 0o644, umask=umask, **how)
            fuse.attempt(fuse.symlink, folder, f"{name}-l", "target", **how)

            with fuse.noting("create"):
                entry, opened = fuse.create(folder, f"{name}-c", umask=umask, **how)
                fuse.write(entry.nodeid, opened.fh, 0, b"data", write_flags=abi.FUSE_WRITE_KILL_SUIDGID)
                fuse.release(entry.nodeid, opened.fh)
    fuse.attempt(fuse.mkdir, folder, "labelled", ext=secctx_block([("user.label", b"x")]))
    for kind in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK):
        fuse.attempt(fuse.mknod, folder, f"kind{kind}", kind | 0o600, 0x103)
    fuse.attempt(fuse.link, node, folder, "linked")
    fuse.attempt(fuse.rename, folder, "linked", folder, "renamed")
    for flags in (1, 2, 4):
        fuse.attempt(fuse.rename2, folder, "renamed", ROOT, "new" if flags == 1 else "file2", flags)

    with fuse.noting("tmpfile"):
        entry, opened = fuse.tmpfile(folder)
        fuse.link(entry.nodeid, folder, "was-temporary")
        fuse.release(entry.nodeid, opened.fh)
    fuse.attempt(fuse.readlink, fuse.lookup(ROOT, "link").nodeid)
    for mask in (0, 1, 2, 4, 7):
        fuse.attempt(fuse.access, node, mask)

    # Attributes
    fuse.attempt(fuse.getattr, node)
    fuse.attempt(fuse.statx, node)
    for changes in ({"mode": 0o4755}, {"owner": 0, "group": 0}, {"size": 10}, {"atime": 1.5, "mtime": "now"},
                    {"atime": "now", "mtime": 2.5, "ctime": 3.0}, {"size": 0}):
        for which in (node, fuse.lookup(ROOT, "link").nodeid, folder):
            fuse.attempt(fuse.setattr, which, **changes)
    for which in (node, folder, fuse.lookup(ROOT, "link").nodeid):
        fuse.attempt(fuse.setxattr, which, "user.name", b"value")
        fuse.attempt(fuse.setxattr, which, "security.name", b"value")
        fuse.attempt(fuse.setxattr, which, "trusted.name", b"value")
        fuse.attempt(fuse.getxattr, which, "user.name")
        fuse.attempt(fuse.getxattr_size, which, "user.name")
        fuse.attempt(fuse.listxattr, which)
        fuse.attempt(fuse.removexattr, which, "user.name")
    acl = struct.pack("=I", 2) + b"".join(struct.pack("=HHI", tag, 6, 0xffffffff) for tag in (1, 4, 32))
    fuse.attempt(fuse.setxattr, folder, "system.posix_acl_default", acl)
    fuse.attempt(fuse.setxattr, node, "system.posix_acl_access", acl, setxattr_flags=1)

    # Open files
    for flags in (os.O_RDWR, os.O_RDONLY, os.O_WRONLY | os.O_TRUNC, os.O_RDONLY | os.O_DIRECT,
                  os.O_RDONLY | os.O_NOATIME, os.O_RDWR | os.O_APPEND):
        with fuse.noting("open"):
            opened_file(fuse, node, fuse.open(node, flags).fh)

    # Directories
    fh = 0      # for daemons whose directories need not be opened
    with fuse.noting("opendir"):
        fh = fuse.opendir(folder).fh
    for plus in (False, True):
        fuse.attempt(fuse.readdir, folder, fh, plus=plus)
    for datasync in (False, True):
        fuse.attempt(fuse.fsyncdir, folder, fh, datasync=datasync)
    fuse.attempt(fuse.releasedir, folder, fh)
    fuse.attempt(fuse.lookup, fuse.lookup(ROOT, "below").nodeid, "file")
    fuse.attempt(fuse.lookup, folder, "..")
    fuse.attempt(fuse.unlink, folder, "was-temporary")
    fuse.attempt(fuse.rmdir, folder, "new-0-0-d")
    many_files(fuse, share)


def opened_file(fuse: Noting, node: int, fh: int) -> None:
    fuse.attempt(fuse.write, node, fh, 0, b"x" * 4096)
    fuse.attempt(fuse.write, node, fh, 4096, b"x" * 4096, flags=os.O_RDWR | os.O_SYNC)
    fuse.attempt(fuse.read, node, fh, 0, 4096)
    fuse.attempt(fuse.flush, node, fh, lock_owner=7)
    fuse.attempt(fuse.fsync, node, fh)
    fuse.attempt(fuse.fsync, node, fh, datasync=True)
    fuse.attempt(fuse.setattr, node, size=8192, fh=fh)
    fuse.attempt(fuse.getattr, node, fh=fh)
    for mode in (0, 1, 3, 8, 16):
        fuse.attempt(fuse.fallocate, node, fh, 0, 4096, mode)
    for whence in (os.SEEK_DATA, os.SEEK_HOLE, os.SEEK_END):
        fuse.attempt(fuse.lseek, node, fh, 0, whence)
    fuse.attempt(fuse.copy_file_range, node, fh, 0, node, fh, 65536, 4096)
    fuse.attempt(fuse.copy_file_range, node, fh, 0, node, fh, 65536, 4096, wide=True)
    for command, data, size in ((FS_IOC_GETFLAGS, b"", 8), (FS_IOC_SETFLAGS, bytes(8), 0), (FS_IOC_FSGETXATTR, b"", 28),
                                (FS_IOC_FSSETXATTR, bytes(28), 0), (FS_IOC_ENABLE_VERITY, bytes(128), 0),
                                (0x5412, b"x", 0)):
        fuse.attempt(fuse.ioctl, node, fh, command, data, size)
    locks(fuse, node, fh)
    fuse.release(node, fh, release_flags=abi.FUSE_RELEASE_FLUSH | abi.FUSE_RELEASE_FLOCK_UNLOCK, lock_owner=7)


def locks(fuse: Noting, node: int, fh: int) -> None:
    """Taken, waited for and interrupted, for the guest and for the host."""
    with fuse.noting("getlk"):
        fuse.getlk(node, fh, 7, WRITE)
    for flock in (False, True):
        with fuse.noting("setlk"):
            fuse.setlk(node, fh, 7, WRITE, flock=flock)
            other = fuse.open(node, os.O_RDWR).fh
            ticket = fuse.submit(Opcode.SETLKW, node, fuse.lock_body(other, 8, WRITE, 0, 1 << 62, 1, flock))
            while ticket.used_len is None:
                fuse.interrupt(ticket.unique)   # which only finds who waits already
                fuse.returned(fuse.queue, 0.01)
            assert fuse.reply(ticket).error == -errno.EINTR
            ticket = fuse.submit(Opcode.SETLKW, node, fuse.lock_body(other, 8, WRITE, 0, 1 << 62, 1, flock))
            fuse.setlk(node, fh, 7, FREE, flock=flock)
            assert fuse.complete(ticket).error == 0
            fuse.flush(node, other, lock_owner=8)
            fuse.release(node, other, release_flags=abi.FUSE_RELEASE_FLOCK_UNLOCK, lock_owner=8)
    if (Opcode.SETLKW.value not in fuse.asked) or (Opcode.INTERRUPT.value not in fuse.asked):
        with fuse.noting("setlkw"):
            fuse.setlk(node, fh, 7, WRITE, wait=True)
        fuse.interrupt(1)


def many_files(fuse: Noting, share: pathlib.Path) -> None:
    """More than there may be descriptors: files are closed, and found again by handle or by name."""
    nodes = [fuse.lookup(ROOT, f"many{number}").nodeid for number in range(400)]
    for node in nodes:
        fuse.getattr(node)
        fuse.release(node, fuse.open(node).fh)
    (share / "many0").unlink()
    with fuse.noting("stale"):
        fuse.open(nodes[0])
    fuse.forget(nodes[0])
    fuse.batch_forget([(node, 1) for node in nodes[1:]])


def control_plane(device: VirtioFs, daemon: Sandboxed) -> None:
    """What a front-end may ask for while it is connected."""
    for number in range(3):
        device.remove_memory(device.add_memory(RegionSpec((1 << 32) + (number << 21), 1 << 21)))
    for queue in range(1, 3):
        device.ring_call(queue)
        device.ring_err(queue)
    device.stop()
    device.start()
    device.reset()
    device.start()
    before = daemon.log.count("statistics: ")
    daemon.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: daemon.log.count("statistics: ") > before, "statistics")
    daemon.process.send_signal(signal.SIGHUP)


def live(daemon: Sandboxed) -> Noting:
    """A front-end that comes, does everything, is wrong once, and leaves. What it has asked for."""
    share = daemon.share
    for name in ("file", "file2"):
        (share / name).write_bytes(b"content" * 100)
    (share / "folder").mkdir(exist_ok=True)
    (share / "below").mkdir(exist_ok=True)
    (share / "link").symlink_to("file")
    for number in range(400):
        (share / f"many{number}").touch()
    for path in share.iterdir():
        if not path.is_symlink():
            path.chmod(0o777)
    daemon.expected = ["the connection is closed", "a request came back empty"]
    with VirtioFs(daemon.socket, num_queues=2, profile="uml") as device:
        device.connection.send_bytes(b"\xff" * 12)
        assert closed(device.connection)
    with VirtioFs(daemon.socket, num_queues=2) as device:
        fuse = Noting(device)
        fuse.init()
        files(fuse, share)
        control_plane(device, daemon)
        fuse.init()
        answered(fuse, [ask(fuse, queue=queue) for queue in (1, 2)])
        fuse.destroy()
        fuse.init()
        answered(fuse, [ask(fuse)])
    return fuse


def asks_for_all(fuse: Noting) -> None:
    assert {name for number, name, _ in operations() if number not in fuse.asked} == set()


@pytest.fixture
def mounted(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A share with a file system of its own, and another in it."""
    share = tmp_path / "share"
    with (tmp_path / "image").open("wb") as image:
        image.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image.name], check=True)     # before Linux 6.6 tmpfs has few attributes
    tmpfs = ["-t", "tmpfs", "-o", "size=64m", "tmpfs"]
    for path, how in ((share, ["-o", "loop", image.name]), (share / "below", tmpfs)):
        path.mkdir()
        subprocess.run(["mount", *how, path], check=True)
    (share / "below" / "file").touch()
    yield share
    subprocess.run(["umount", "-R", "-l", share], check=True)


def ends(daemon: Sandboxed) -> None:
    """By a signal, orderly."""
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(SECONDS) == 0
    assert daemon.finish() == []


@needs_root
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_operation_makes_a_forbidden_call(tmp_path: pathlib.Path, mounted: pathlib.Path, variant: str) -> None:
    daemon = Sandboxed(program(), tmp_path / "daemon",
                       ["--sandbox", "namespace", "--seccomp", "kill", "--keep-listening", *VARIANTS[variant]], mounted)
    try:
        fuse = live(daemon)
    finally:
        problems = [] if daemon.alive else daemon.finish()
    assert problems == []
    asks_for_all(fuse)
    ends(daemon)
    if variant == "everything":
        assert set(fuse.errors) <= REASONABLE


@needs_root
def test_nor_does_any_in_a_chroot(tmp_path: pathlib.Path, mounted: pathlib.Path) -> None:
    daemon = Sandboxed(program(), tmp_path / "daemon",
                       ["--sandbox", "chroot", "--keep-listening", *VARIANTS["everything"]], mounted)
    asks_for_all(live(daemon))
    ends(daemon)


@needs_root
def test_nor_does_any_of_a_user_without_rights() -> None:
    if not user_namespaces():
        pytest.skip("users without rights can make no user namespaces here")
    with public_folder() as public:
        daemon = Sandboxed([*nobodys_python(), "-m", "virtiofsd"], nobodys_folder(public),
                           ["--keep-listening", *LOCKS, "--xattr", "--posix-acl=auto"])
        asks_for_all(live(daemon))
        ends(daemon)
