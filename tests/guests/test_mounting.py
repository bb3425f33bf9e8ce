"""Guests mount a share: with every emulator and kernel at hand, with many queues and few, and with mount options."""

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

from guest.boot import Kernel
from tests.guests.conftest import needs
from tests.guests.support import INSIDE, Place, Scene, python
from tests.guests.test_sharing import manifest

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]


@pytest.mark.parametrize("kernel", ["qemu", "qemu-sid", "uml"])
def test_a_guest_mounts_lists_reads_and_writes(scene: Scene, kernel: Kernel) -> None:
    needs(kernel)
    share = scene.share("myfs", tell_tag=kernel == "uml")
    host = scene.daemons["myfs"].share
    (host / "folder").mkdir()
    (host / "file").write_text("of the host\n")
    (host / "large").write_bytes(os.urandom(5 << 20))
    guest = scene.guest(share, kernel=kernel)
    result = guest.run("ls; cat file; echo of the guest >folder/new; cp large copy; cmp large copy; mv file folder; "
                       "grep -c ' /mnt virtiofs ' /proc/mounts", folder="/mnt", check=True)
    assert result.stdout == "file\nfolder\nlarge\nof the host\n1\n"
    assert (host / "folder/new").read_text() == "of the guest\n"
    assert (host / "copy").read_bytes() == (host / "large").read_bytes()
    assert sorted(os.listdir(host / "folder")) == ["file", "new"]
    scene.power_off(guest)


QUEUES = [pytest.param(1, 2, 128, id="one-of-128"), pytest.param(4, 4, 1024, id="four-of-1024"),
          pytest.param(4, 2, 256, id="four-for-two-CPUs")]


@pytest.mark.parametrize(("queues", "cpus", "size"), QUEUES)
def test_requests_come_on_every_queue_that_a_cpu_has(scene: Scene, queues: int, cpus: int, size: int) -> None:
    needs("qemu")
    share = scene.share("myfs", queues=queues, queue_size=size)
    host = scene.daemons["myfs"].share
    data = os.urandom(3 << 20)
    (host / "file").write_bytes(data)
    guest = scene.guest(share, cpus=cpus)
    # Each CPU reads the whole file past the cache, and writes one of its own in large pieces.
    guest.run(f"""
        for cpu in $(seq 0 {cpus - 1}); do
          (
            mask=$(printf %x $((1 << cpu)))
            taskset $mask sh -c "dd if=file bs=1M iflag=direct 2>/dev/null | dd of=copy$cpu bs=1M 2>/dev/null"
            for turn in $(seq 30); do taskset $mask stat file$cpu-$turn >/dev/null 2>&1; done
          ) &
        done
        wait
    """, folder="/mnt", check=True)
    for cpu in range(cpus):
        assert (host / f"copy{cpu}").read_bytes() == data
    numbers = scene.daemons["myfs"].statistics()
    used = [number for number in range(1, 256) if numbers.get(f"queue{number}_requests", 0) > 20]
    assert used == list(range(1, min(queues, cpus) + 1)), numbers


def test_what_one_queue_holds_bounds_a_request(scene: Scene) -> None:
    """Requests are as large as a guest's queue allows, and no larger: a queue of 1024 takes a mebibyte at once."""
    needs("qemu")
    seen = {}
    for size in (128, 1024):
        share = scene.share("myfs", queue_size=size, name=f"myfs{size}")
        host = scene.daemons[f"myfs{size}"].share
        guest = scene.guest(share)
        before = scene.daemons[f"myfs{size}"].statistics()["requests"]
        guest.run("dd if=/dev/zero of=file bs=8M count=1 2>/dev/null", folder="/mnt", check=True)
        seen[size] = scene.daemons[f"myfs{size}"].statistics()["requests"] - before
        assert (host / "file").stat().st_size == 8 << 20
        scene.power_off(guest)
    assert seen[1024] < 8 + 12, seen
    assert seen[1024] < seen[128] < 17 + 12, seen


# Mount options: the share `spare` of a laboratory is mounted by the tests alone.

@pytest.fixture
def spare(place: Place) -> Any:
    """Mounts the spare share with options, at /tmp/spare; it is unmounted when the test is over."""
    place.host("spare")

    def mount(options: str = "rw", script: str = "true") -> str:
        return place.laboratory.run(f"mkdir -p /tmp/spare; mount -t virtiofs -o {options} spare /tmp/spare && "
                                    f"cd /tmp/spare/{place.name} && {{ {script}\n}}", ".", check=False).stdout

    yield mount
    place.laboratory.run("cd /; while umount /tmp/spare 2>/dev/null; do :; done", ".")


def test_a_mount_can_be_read_only_and_become_writable(place: Place, spare: Any) -> None:
    out = spare("ro", """
        echo text >file 2>/dev/null && echo written
        mount -o remount,rw /tmp/spare && echo text >file && echo written again
        mount -o remount,ro /tmp/spare && { echo more >file; } 2>&1 | grep -o Read-only
        cat file
        grep -o 'virtiofs ro' /proc/mounts | tail -n 1
    """)
    assert out == "written again\nRead-only\ntext\nvirtiofs ro\n"
    assert (place.host("spare") / "file").read_text() == "text\n"


@pytest.mark.parametrize("option", ["noatime", "strictatime", "relatime", "nodiratime"])
def test_access_times_are_the_hosts_whatever_is_asked_for(place: Place, spare: Any, option: str) -> None:
    host = place.host("spare")

    def touched(path: Path) -> bool:
        return path.stat().st_atime_ns != 10**9

    for name in ("control", "file"):
        (host / name).write_text("text")
        os.utime(host / name, ns=(10**9, time.time_ns()))
    (host / "control").read_text()
    assert spare(option, "cat file; stat -c ' %X' file").startswith("text ")
    assert touched(host / "file") == touched(host / "control")
    os.utime(host / "file", ns=(10**18, 10**18))
    time.sleep(1.1)
    assert place.laboratory.run(f"stat -c %X /tmp/spare/{place.name}/file", ".").stdout == f"{10**9}\n"


@pytest.mark.parametrize("options", ["nonsense", "rw,nonsense=1", "cache=none", "dax=always"])
def test_unknown_mount_options_fail_and_leave_the_device_usable(place: Place, spare: Any, options: str) -> None:
    script = f"mount -t virtiofs -o {options} spare /tmp/spare"
    result = place.laboratory.run(f"mkdir -p /tmp/spare; {script}", ".", check=False)
    assert result.status == 32
    assert "wrong fs type" in result.stderr or "bad" in result.stderr or "unknown" in result.stderr, result.stderr
    assert spare("rw", "echo works >file; cat file") == "works\n"


def test_a_security_context_is_refused_by_kernels_without_such_a_module(place: Place, spare: Any) -> None:
    """By mount(2): mount(8) leaves the option out there."""
    script = """mkdir -p /tmp/spare; python3 -c '
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
failed = libc.mount(b"spare", b"/tmp/spare", b"virtiofs", 0, b"context=system_u:object_r:tmp_t:s0")
raise SystemExit(ctypes.get_errno() if failed else 0)'"""
    assert place.laboratory.run(script, ".", check=False).status == errno.EINVAL
    assert spare("rw", "echo works >file; cat file") == "works\n"


def test_an_unknown_tag_cannot_be_mounted(place: Place) -> None:
    result = place.laboratory.run("mkdir -p /tmp/other; mount -t virtiofs no-such-tag /tmp/other", ".", check=False)
    assert result.status == 32
    assert "wrong fs type" in result.stderr or "bad" in result.stderr or "missing" in result.stderr, result.stderr


def test_a_share_can_be_unmounted_and_mounted_again(place: Place, spare: Any) -> None:
    host = place.host("spare")
    for turn in range(4):
        assert spare("rw", f"echo {turn} >>file; cat file; cd /; umount /tmp/spare && echo gone").endswith("gone\n")
    assert (host / "file").read_text() == "0\n1\n2\n3\n"
    numbers = place.scene.daemons["spare"].statistics()
    assert numbers["inodes"] == numbers["files_open"] == 0, numbers


def test_a_mount_in_use_stays(place: Place, spare: Any) -> None:
    out = spare("rw", "exec 3>file; umount /tmp/spare 2>&1 | grep -o busy; echo text >&3; exec 3>&-; cat file; "
                      f"mount -t virtiofs spare /mnt; cat /mnt/{place.name}/file; umount /mnt")
    assert out == "busy\ntext\ntext\n"


# A share that nobody may change

def test_a_read_only_share_refuses_every_change(place: Place) -> None:
    host = place.host("readonly")
    (host / "folder").mkdir()
    (host / "file").write_text("text")
    (host / "program").write_text("#!/bin/sh\necho it runs\n")
    (host / "program").chmod(0o755)
    before = manifest(host)
    place.python("""
        import errno, os, stat, sys
        sys.path.append("/run/inside")
        import linux
        file = os.open("file", os.O_RDONLY)
        changes = {
            "open": lambda: os.open("file", os.O_WRONLY), "truncating open": lambda: os.open("file", os.O_TRUNC),
            "create": lambda: os.open("new", os.O_CREAT | os.O_RDWR),
            "mkdir": lambda: os.mkdir("new"), "fifo": lambda: os.mkfifo("new"),
            "device": lambda: os.mknod("new", stat.S_IFCHR, os.makedev(1, 3)),
            "symlink": lambda: os.symlink("x", "new"), "link": lambda: os.link("file", "new"),
            "rename": lambda: os.rename("file", "new"), "replace": lambda: os.rename("file", "program"),
            "exchange": lambda: linux.rename("file", "program", linux.RENAME_EXCHANGE),
            "unlink": lambda: os.unlink("file"), "rmdir": lambda: os.rmdir("folder"),
            "chmod": lambda: os.chmod("file", 0o600), "chown": lambda: os.chown("file", 1, 1),
            "fchmod": lambda: os.fchmod(file, 0o600), "truncate": lambda: os.truncate("file", 0),
            "utime": lambda: os.utime("file", (1, 1)),
            "unnamed": lambda: os.open(".", os.O_TMPFILE | os.O_RDWR),
        }
        for name, change in changes.items():
            try:
                change()
            except OSError as error:
                assert error.errno == errno.EROFS, f"{name}: {error}"
            else:
                raise AssertionError(f"{name} succeeded")
        assert os.read(file, 10) == b"text"
        os.fsync(file)
        assert os.statvfs(".").f_blocks
    """, "readonly")
    assert place.run("./program; ls; [ -w file ] && echo writable; cat file", "readonly") == \
        "it runs\nfile\nfolder\nprogram\nwritable\ntext"
    assert manifest(host) == before


# Mount points in the share

def test_mount_points_in_the_share_are_file_systems_of_their_own(scene: Scene, kernel: Kernel, tmp_path: Path,
                                                                 mounts: Any) -> None:
    host, other = tmp_path / "share", tmp_path / "other"
    for folder in (host, host / "tmpfs", host / "bound", other, host / "plain"):
        folder.mkdir()
    mounts.tmpfs(host / "tmpfs")
    mounts.bind(other, host / "bound")
    (host / "tmpfs/below").mkdir()
    for folder in (host, host / "tmpfs", host / "tmpfs/below", host / "bound", host / "plain"):
        (folder / "file").write_text(f"in {folder.name}")
    guest = scene.guest(scene.share("myfs", folder=host, tell_tag=kernel == "uml"), kernel=kernel)

    def run(script: str) -> list[str]:
        return guest.run(script, folder="/mnt", check=True).stdout.split("\n")[:-1]

    # A guest mounts what is announced when something walks into it; stat of the place itself does not.
    root, plain, tmpfs, below, bound = run("stat -c %d . plain tmpfs/. tmpfs/below bound/.")
    assert root == plain
    assert tmpfs == below
    assert len({root, tmpfs, bound}) == 3
    assert run("cat file plain/file tmpfs/file tmpfs/below/file bound/file; echo") == \
        ["in sharein plainin tmpfsin belowin bound"]
    assert sorted(run("find . -xdev -type f")) == ["./file", "./plain/file"]
    assert len(run("find . -type f")) == 5
    assert run("stat -c %i tmpfs/.. bound/.. .; stat -c %i tmpfs/below/.. tmpfs")[:3] == run("stat -c %i . . .")
    assert run("ln file tmpfs/link 2>&1 | grep -ic cross-device; df -k tmpfs | tail -n 1 | grep -o ' 262144 '; "
               "mv plain/file tmpfs/moved; cat tmpfs/moved; echo") == ["1", " 262144 ", "in plain"]
    assert (host / "tmpfs/moved").read_text() == "in plain"
    run("echo new >tmpfs/below/new; echo new >bound/new; rm tmpfs/file; sync")
    assert (other / "new").read_text() == (host / "tmpfs/below/new").read_text() == "new\n"
    assert not (host / "tmpfs/file").exists()
    run("cd /; umount /mnt/tmpfs /mnt/bound; umount /mnt; mount -t virtiofs myfs /mnt; cat /mnt/bound/new")
    scene.power_off(guest)


def test_mount_points_that_are_not_announced_are_plain_folders(scene: Scene, tmp_path: Path, mounts: Any) -> None:
    host = tmp_path / "share"
    (host / "tmpfs").mkdir(parents=True)
    mounts.tmpfs(host / "tmpfs")
    (host / "tmpfs/file").write_text("text")
    guest = scene.guest(scene.share("myfs", "--no-announce-submounts", folder=host), kernel="uml")
    assert guest.run("stat -c %d . tmpfs tmpfs/file | uniq | wc -l; cat tmpfs/file", folder="/mnt").stdout == "1\ntext"
    scene.power_off(guest)


# File handles

HANDLES = """
    import ctypes, errno, os, subprocess, sys, time
    sys.path.append("/run/inside")
    import linux
    def forget():
        os.sync()
        with open("/proc/sys/vm/drop_caches", "w") as caches:
            caches.write("3")
        time.sleep(0.1)
    def handle_of(path):
        handle = ctypes.create_string_buffer(136)
        handle[:4] = (128).to_bytes(4, "little")
        linux.call("name_to_handle_at", linux.AT_FDCWD, os.fsencode(path), handle, ctypes.byref(ctypes.c_int()), 0)
        return handle
    def read(handle):
        with linux.opened(".", os.O_RDONLY | os.O_DIRECTORY) as here:
            file = linux.call("open_by_handle_at", here, handle, os.O_RDONLY)
        with open(file) as opened:
            return opened.read()
    os.chdir("/mnt")
"""


@pytest.mark.parametrize("kernel", ["qemu", "uml"])
def test_file_handles_outlive_the_guests_caches_and_its_mount(scene: Scene, kernel: Kernel) -> None:
    """With --nfs-export, as an NFS server in the guest needs it."""
    needs(kernel)
    inside = scene.share("inside", "--readonly", folder=INSIDE, mount="/run/inside")
    share = scene.share("myfs", "--nfs-export", tell_tag=kernel == "uml")
    host = scene.daemons["myfs"].share
    guest = scene.guest(scene.debian(), inside, share, kernel=kernel)
    guest.run(python(HANDLES + """
    paths = [f"folder{number // 10}/file{number}" for number in range(100)]
    for path in paths:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(path)
    handles = {path: handle_of(path) for path in paths}
    for mounts_again in (False, False, True):
        forget()
        if mounts_again:
            os.chdir("/")
            subprocess.run("umount /mnt && mount -t virtiofs myfs /mnt", shell=True, check=True)
            os.chdir("/mnt")
        for path, handle in handles.items():
            assert read(handle) == path
    for path in paths[::2]:
        os.unlink(path)
    forget()
    for path, handle in handles.items():
        if path in paths[::2]:
            with linux.fails(errno.ESTALE):
                read(handle)
        else:
            assert read(handle) == path
    """), check=True)
    assert len(list(host.glob("folder*/*"))) == 50
    scene.power_off(guest)


def test_file_handles_end_with_the_guests_caches_without_the_option(scene: Scene) -> None:
    inside = scene.share("inside", "--readonly", folder=INSIDE, mount="/run/inside")
    guest = scene.guest(scene.debian(), inside, scene.share("myfs"), kernel="uml")
    guest.run(python(HANDLES + """
    linux.write("file", "text")
    handle = handle_of("file")
    assert read(handle) == "text"
    forget()
    with linux.fails(errno.ESTALE):
        read(handle)
    assert open("file").read() == read(handle_of("file")) == "text"
    """), check=True)
    scene.power_off(guest)
