"""Guests that have their root on a share: one of their own, one for two under overlays, one that a guest installs."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from guest import mirror, root
from guest.boot import Guest, Kernel
from guest.fetch import FetchError, debian_release
from tests.guests.conftest import needs
from tests.guests.support import SLOW, Scene, debian
from tests.guests.test_sharing import manifest
from tests.running import LONG

KERNELS: tuple[Kernel, ...] = ("qemu", "uml")
pytestmark = [pytest.mark.guest, pytest.mark.timeout(900)]

PROGRAM = r"""
#include <stdio.h>
#include <sys/utsname.h>

int main(int argc, char **argv)
{
    struct utsname name;

    uname(&name);
    printf("%s says %s\n", name.nodename, argc > 1 ? argv[1] : "nothing");
    return 7;
}
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A Debian tree that a guest may write to."""
    debian()
    return root.copy(tmp_path / "root")


def package(folder: Path) -> Path:
    """A package of our own, with a command, a configuration file, and scripts that run when it is installed."""
    contents = folder / "hello"
    for name, mode, text in (
            ("usr/bin/hello-share", 0o755, "#!/bin/sh\ncat /etc/hello-share.conf\n"),
            ("etc/hello-share.conf", 0o640, "hello from a package\n"),
            ("DEBIAN/postinst", 0o755, "#!/bin/sh\nset -e\nchown daemon:mail /etc/hello-share.conf\n"
                                       "echo $1 >/var/lib/hello-share\n"),
            ("DEBIAN/postrm", 0o755, "#!/bin/sh\nrm -f /var/lib/hello-share\n"),
            ("DEBIAN/conffiles", 0o644, "/etc/hello-share.conf\n"),
            ("DEBIAN/control", 0o644, "Package: hello-share\nVersion: 1.0\nArchitecture: all\nDepends: libc6\n"
                                      "Maintainer: nobody <nobody@example.org>\nDescription: a test\n")):
        path = contents / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    deb = folder / "hello-share.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", contents, deb], stdout=subprocess.DEVNULL, check=True)
    return deb


def test_a_guest_lives_on_a_root_of_its_own(scene: Scene, kernel: Kernel, tree: Path, tmp_path: Path) -> None:
    """QEMU's kernel mounts it itself: rootfstype=virtiofs root=TAG rw. User-Mode Linux needs modules, from an
    initramfs.
    """
    shutil.copy(package(tmp_path), tree / "root")
    (tree / "root/program.c").write_text(PROGRAM)
    share = scene.share("system", "--xattr", folder=tree, mount="/", tell_tag=kernel == "uml")
    guest = scene.guest(share, kernel=kernel, initramfs=kernel == "uml")
    assert guest.run("grep -o '^system / virtiofs rw' /proc/mounts", check=True).stdout == "system / virtiofs rw\n"
    words = guest.run("cat /proc/cmdline").stdout.split()
    assert kernel == "uml" or {"root=system", "rootfstype=virtiofs", "rw"} < set(words)

    guest.run("DEBIAN_FRONTEND=noninteractive apt-get -qq install ./hello-share.deb", folder="/root", check=True,
              timeout=4 * SLOW)
    assert guest.run("hello-share; cat /var/lib/hello-share; dpkg --verify hello-share", check=True).stdout == \
        "hello from a package\nconfigure\n"
    assert guest.run("dpkg-query -W hello-share").stdout == "hello-share\t1.0\n"
    assert guest.run("stat -c '%U %G %a' /etc/hello-share.conf").stdout == "daemon mail 640\n"

    result = guest.run("gcc -O1 -Wall program.c -o program && ./program 'it runs'", folder="/root", timeout=4 * SLOW)
    assert (result.status, result.stdout, result.stderr) == (7, "guest says it runs\n", "")

    guest.run("apt-get -qq purge hello-share", check=True, timeout=4 * SLOW)
    scene.power_off(guest)
    assert not (tree / "usr/bin/hello-share").exists()
    assert not (tree / "var/lib/hello-share").exists()
    assert (tree / "root/program").stat().st_mode & 0o111
    status = subprocess.run(["dpkg", f"--root={tree}", "--audit"], capture_output=True, text=True)
    assert (status.returncode, status.stdout) == (0, "")


# One root for two guests: each has its changes in an upper layer of its own.

CHANGE = """
set -e
cd /etc
echo mine >new
rm hostname                                  # leaves a whiteout
mv passwd moved                              # copies it up, and leaves a whiteout
chmod 600 group                              # copies it up
chown 5:6 shells
rm -r apt; mkdir apt; echo again >apt/file   # an opaque folder
mv init.d elsewhere                          # of the lower layer: a copy, or a redirect
ln shells link
mkfifo fifo
setfattr -n user.name -v value group
mknod null c 1 3
ln -s nowhere symbolic
"""
SEEN = """
cd /etc
cat new apt/file; ls apt hostname passwd init.d 2>&1 | grep -c 'No such'; grep -c root moved
stat -c '%n %a %u %g %h %F' group shells fifo null symbolic; ls elsewhere | grep -c procps
getfattr --only-values -n user.name group; echo
"""
LOOKS = """mine
again
3
1
group 600 0 0 1 regular file
shells 644 5 6 2 regular file
fifo 644 0 0 1 fifo
null 644 0 0 1 character special file
symbolic 777 0 0 1 symbolic link
1
value
"""


def check_of_layers(guest: Guest) -> None:
    """What overlayfs found lacking in the share of an upper layer it told at the mount."""
    told = [line for line in guest.run("dmesg | grep -i overlayfs").stdout.splitlines() if "upper" in line]
    assert told == [], told


def test_two_guests_have_one_root_and_changes_in_memory(scene: Scene) -> None:
    tree = debian()
    before = manifest(tree / "etc")
    guests = {}
    for kernel in KERNELS:
        needs(kernel)
        share = scene.share("root", "--readonly", "--xattr", "--cache", "always", folder=tree, mount="/",
                            options="ro", name=f"root-of-{kernel}")
        guests[kernel] = scene.guest(share, kernel=kernel, overlay="tmpfs")
    for kernel, guest in guests.items():
        guest.run(f"{CHANGE} echo {kernel} >which", check=True, timeout=2 * SLOW)
    for kernel, guest in guests.items():
        assert guest.run(SEEN, check=True).stdout == LOOKS
        assert guest.run("cat /etc/which").stdout == f"{kernel}\n"
        scene.power_off(guest)
    assert manifest(tree / "etc") == before


UPPER = {"qemu": ("--xattr", "--modcaps=+sys_admin"), "uml": ("--xattrmap=:map:trusted.:user.virtiofs.:",)}
"""Who may set trusted attributes, and who keeps them under other names."""


def test_two_guests_have_one_root_and_changes_on_shares(scene: Scene, tmp_path: Path) -> None:
    tree = debian()
    before = manifest(tree / "etc")

    def boot(kernel: Kernel, turn: int) -> Guest:
        needs(kernel)
        below = scene.share("root", "--readonly", "--xattr", "--cache", "always", folder=tree, mount="/",
                            options="ro", name=f"root-of-{kernel}-{turn}")
        upper = tmp_path / kernel
        upper.mkdir(exist_ok=True)
        over = scene.share("over", *UPPER[kernel], folder=upper, mount=None, name=f"over-of-{kernel}-{turn}")
        guest = scene.guest(below, over, kernel=kernel, overlay="over")
        check_of_layers(guest)
        return guest

    guests = {kernel: boot(kernel, 0) for kernel in KERNELS}
    for kernel, guest in guests.items():
        guest.run(f"{CHANGE} echo {kernel} >which", check=True, timeout=2 * SLOW)
        assert guest.run(SEEN, check=True).stdout == LOOKS
    for guest in guests.values():
        scene.power_off(guest)
    for kernel in KERNELS:
        upper = tmp_path / kernel / "upper/etc"
        whiteout = (upper / "hostname").lstat()
        assert (stat.S_IFMT(whiteout.st_mode), whiteout.st_rdev) == (stat.S_IFCHR, 0)
        opaque = "trusted.overlay.opaque" if kernel == "qemu" else "user.virtiofs.trusted.overlay.opaque"
        assert os.getxattr(upper / "apt", opaque) == b"y"
    assert manifest(tree / "etc") == before

    for kernel in KERNELS:  # what they changed is still there when they come back
        guest = boot(kernel, 1)
        assert guest.run(f"{SEEN} cat which", check=True).stdout == f"{LOOKS}{kernel}\n"
        scene.power_off(guest)


# A guest that installs a Debian, from one share onto another.

INSTALL = """
debootstrap --no-check-gpg --variant=minbase RELEASE /run/target file:///run/mirror >/tmp/log 2>&1 ||
  { tail -n 30 /tmp/log; exit 1; }
"""


@pytest.mark.skipif(not LONG, reason="minutes, with LONG=1")
@pytest.mark.timeout(3600)
def test_a_guest_installs_a_root_for_another(scene: Scene, tmp_path: Path) -> None:
    needs("uml")  # of emulated guests the faster one
    needs("qemu")
    target = tmp_path / "target"
    target.mkdir()
    try:
        packages = mirror.mirror()
    except FetchError as error:
        pytest.skip(str(error))
    guest = scene.guest(scene.debian(), scene.share("mirror", "--readonly", folder=packages, mount="/run/mirror"),
                        scene.share("target", "--xattr", folder=target, mount="/run/target"), kernel="uml")
    guest.run(INSTALL.replace("RELEASE", debian_release()), check=True, timeout=40 * SLOW)
    scene.power_off(guest)
    assert subprocess.run(["dpkg", f"--root={target}", "--audit"], stdout=subprocess.PIPE, check=True).stdout == b""
    assert (target / "usr/bin/su").stat().st_mode & 0o7000 == 0o4000

    for name in ("busybox", "init", "agent"):
        (target / "guest").mkdir(exist_ok=True)
        shutil.copy(debian() / "guest" / name, target / "guest")
    share = scene.share("installed", "--xattr", folder=target, mount="/")
    guest = scene.guest(share, initramfs=False)
    assert guest.run("dpkg --verify; cat /etc/hostname; getent passwd root", check=True).stdout.endswith("bash\n")
    scene.power_off(guest)
