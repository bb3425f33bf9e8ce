"""A root tree for guests: the machine's own Debian release, with the tools that tests and benchmarks run in it.

    python -m guest.root          makes it (as root; 650 MB, a minute) and prints where it is

A guest boots with it when a daemon shares it: Share("root", socket, mount="/"). The tree in the cache stays pristine:
share it read-only, or share a copy.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from guest import fetch, image

PACKAGES = (
    "acl",
    "attr",
    "busybox-static",
    "debootstrap",
    "e2fsprogs",
    "fio",
    "gcc",
    "git",
    "libc6-dev",
    "make",
    "procps",
    "psmisc",
    "python3-minimal",
    "sqlite3",
    "strace",
    "stress-ng",
    "xfsprogs",
)


def tree() -> Path:
    """The pristine tree; makes it when it is not there yet."""
    folder = fetch.item("root", _make)
    for name, content in image.guest_files(fetch.busybox()).items():  # of now, not of when the tree was made
        path = folder / "guest" / name
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
            path.chmod(0o755)
    return folder


def copy(to: Path) -> Path:
    """A tree to write to, at `to`, which must not exist yet; on btrfs and xfs it costs no space."""
    subprocess.run(["cp", "-a", "--reflink=auto", tree(), to], check=True)
    return to


def install(root: Path, deb: Path) -> None:
    """Installs a package file into a copy of the tree; what it depends on must be there."""
    shutil.copy(deb, root / "tmp")
    try:
        subprocess.run(["chroot", root, "dpkg", "--install", f"/tmp/{deb.name}"], check=True)
    finally:
        (root / "tmp" / deb.name).unlink()


def debootstrap(*arguments: str | Path) -> None:
    """Runs it as root; what it says is in root.log of the cache."""
    if os.geteuid() or not shutil.which("debootstrap"):
        raise fetch.FetchError("a Debian for guests is made by root, with the package debootstrap")
    log = fetch.cache() / "root.log"
    with log.open("w") as file:
        # In a mount namespace: if it is killed, the /proc that it has mounted does not stay where something removes it.
        done = subprocess.run(["unshare", "--mount", "debootstrap", *arguments], stdout=file, stderr=file, check=False)
    if done.returncode:
        tail = "\n".join(log.read_text().splitlines()[-20:])
        raise fetch.FetchError(f"debootstrap failed; the end of {log}:\n{tail}")


def _make(folder: Path) -> None:
    release, mirror = fetch.debian_release(), fetch.debian_mirror()
    fetch.say(f"installing Debian {release} for guests, from {mirror}: 150 MB, a minute or two")
    debootstrap("--variant=minbase", f"--include={','.join(PACKAGES)}", release, folder, mirror)
    for deb in (folder / "var/cache/apt/archives").glob("*.deb"):
        deb.unlink()
    (folder / "etc/hostname").write_text("guest\n")
    (folder / "etc/hosts").write_text("127.0.0.1 localhost guest\n")
    (folder / "guest").mkdir()


if __name__ == "__main__":
    try:
        print(tree())
    except fetch.FetchError as error:
        sys.exit(f"root: {error}")
