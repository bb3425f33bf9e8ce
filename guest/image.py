"""The initramfs of a guest: static busybox, init.sh, agent.sh, and modules where the kernel needs them."""

import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDERS = ("bin", "dev", "etc", "guest", "mnt", "newroot", "proc", "root", "run", "sys", "tmp")
USERS = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
GROUPS = b"root:x:0:\nnogroup:x:65534:\n"


def guest_files(busybox: Path) -> dict[str, bytes]:
    """What a guest needs in /guest, be that in the initramfs or in a root tree; all are programs."""
    return {
        "busybox": busybox.read_bytes(),
        "init": (HERE / "init.sh").read_bytes(),
        "agent": (HERE / "agent.sh").read_bytes(),
    }


def initramfs(busybox: Path, modules: Iterable[Path] = ()) -> bytes:
    """The whole archive. It is not compressed: the guest would take longer to unpack it than we save by its size."""
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()

    def entries() -> Iterator[tuple[str, int, bytes]]:
        for name in FOLDERS:
            yield name, stat.S_IFDIR | 0o755, b""
        for name, content in guest_files(busybox).items():
            yield f"guest/{name}", stat.S_IFREG | 0o755, content
        yield "guest/modules", stat.S_IFDIR | 0o755, b""
        for number, module in enumerate(modules):  # they are loaded in the order of their names
            yield f"guest/modules/{number}-{module.name}", stat.S_IFREG | 0o644, module.read_bytes()
        yield "etc/passwd", stat.S_IFREG | 0o644, USERS
        yield "etc/group", stat.S_IFREG | 0o644, GROUPS
        yield "init", stat.S_IFLNK | 0o777, b"guest/init"
        for applet in applets:
            yield f"bin/{applet}", stat.S_IFLNK | 0o777, b"/guest/busybox"

    return cpio(entries())


def cpio(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """An archive of (name, mode, content) in cpio's "newc" format, the one that the kernel reads."""
    archive = bytearray()
    for inode, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        path = name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, 2 x device of the file, 2 x device it is, length of the name, check
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        archive += b"070701" + b"".join(b"%08x" % field for field in fields) + path
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)
