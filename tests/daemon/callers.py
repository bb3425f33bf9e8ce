"""Who starts a virtiofsd, and with which words: libvirt, Kata Containers and others, each word for word."""

import contextlib
import grp
import os
import pathlib
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.conftest import program
from tests.daemon.sandboxed import NO_ADMIN, NOBODY, SUB_IDS, given_ids

ROOT = os.geteuid() == 0
WAITS = "Waiting for vhost-user socket connection..."


class Place(NamedTuple):
    """What a caller has made: the share, the path for the socket, and a socket that listens there, or -1."""

    share: pathlib.Path
    socket: pathlib.Path
    fd: int
    plain: bool = False  # the daemon is that of a user without rights


class Caller(NamedTuple):
    words: Callable[[Place], list[str]]
    hands_over: bool = False  # it makes the socket itself
    plain: bool = False  # it runs the daemon as a plain user
    fakes_root: bool = False  # in a user namespace
    environment: tuple[tuple[str, str], ...] = ()
    relative: bool = False  # the socket's path is relative to the working directory
    share: str = "a share"
    prefix: tuple[str, ...] = ()


def libvirt_old(place: Place) -> list[str]:
    source = str(place.share).replace(",", ",,")
    return [f"--fd={place.fd}", "-o", f"source={source},cache=always,sandbox=namespace,xattr,no_flock,no_posix_lock",
            "--thread-pool-size=16", "-d"]


def libvirt_old_locks(place: Place) -> list[str]:
    return [f"--fd={place.fd}", "-o", f"source={place.share},cache=none,sandbox=chroot,no_xattr,flock,posix_lock"]


def libvirt(place: Place) -> list[str]:
    return [f"--fd={place.fd}", "--shared-dir", str(place.share), "--cache", "never", "--sandbox", "namespace",
            "--xattr", "--thread-pool-size=16", "--rlimit-nofile=4096", "--log-level", "debug"]


def libvirt_session(place: Place) -> list[str]:
    assert place.plain
    return [f"--fd={place.fd}", "--shared-dir", str(place.share),
            *(f"--{kind}-map=:{inside}:{outside}:{count}:" for kind in ("uid", "gid")
              for inside, outside, count in ((0, NOBODY, 1), (1, *SUB_IDS)))]


def kata_go(place: Place) -> list[str]:
    return ["--syslog", "--cache=auto", f"--shared-dir={place.share}", f"--fd={place.fd}",
            "--inode-file-handles=prefer", "--thread-pool-size=1", "--announce-submounts"]


def kata_go_old(place: Place) -> list[str]:
    return ["--syslog", "--cache=auto", f"--shared-dir={place.share}", f"--fd={place.fd}",
            "--thread-pool-size=1", "-o", "announce_submounts"]


def kata_rust(place: Place) -> list[str]:
    return ["--socket-path", str(place.socket), "--shared-dir", str(place.share), "--cache", "auto",
            "--sandbox", "none", "--seccomp", "none", "--inode-file-handles", "prefer",
            "--thread-pool-size=1", "--announce-submounts", "--xattr"]


def incus(place: Place) -> list[str]:
    words = [f"--fd={place.fd}", "--cache=metadata", f"--shared-dir={place.share}"]
    for kind in ("uid", "gid"):
        words += [f"--translate-{kind}=map:0:1000000:1000000000", f"--translate-{kind}=forbid-guest:0:0"]
    return [*words, "--translate-uid=forbid-guest:1000000000:3294967295",
            "--translate-gid=forbid-guest:1000000000:3294967295"]


def incus_without_map(place: Place) -> list[str]:
    # It asks for posix-acl-negotiation-mode among the capabilities.
    return [f"--fd={place.fd}", "--cache=never", f"--shared-dir={place.share}", "--posix-acl=auto"]


def cloud_hypervisor(place: Place) -> list[str]:
    return ["--log-level", "debug", f"--socket-path={place.socket}", f"--shared-dir={place.share}", "--cache=never",
            "--thread-pool-size=4"]


def cloud_hypervisor_ci(place: Place) -> list[str]:
    return ["--shared-dir", str(place.share), "--socket-path", str(place.socket), "--cache", "never", "--tag", "myfs"]


def cloud_hypervisor_old(place: Place) -> list[str]:
    return [f"--socket-path={place.socket}", "-o", f"source={place.share}", "-o", "cache=none"]


def virtme_ng(place: Place) -> list[str]:
    return ["--syslog", "--no-announce-submounts", "--socket-path", str(place.socket), "--shared-dir", str(place.share),
            "--sandbox", "none"]


def microvm_nix(place: Place) -> list[str]:
    files = min(1048576, resource.getrlimit(resource.RLIMIT_NOFILE)[1])  # more could only be had by who may raise it
    return [f"--socket-path={place.socket}", f"--socket-group={grp.getgrgid(os.getegid()).gr_name}",
            f"--shared-dir={place.share}", "--rlimit-nofile", str(files), "--thread-pool-size", "2", "--posix-acl",
            "--xattr", "--inode-file-handles=prefer"]


def mkosi(place: Place) -> list[str]:
    return ["--shared-dir", str(place.share), "--xattr", "--no-announce-submounts", "--sandbox=chroot",
            f"--inode-file-handles={'never' if place.plain else 'prefer'}", "--fd", str(place.fd)]


def container(place: Place) -> list[str]:
    return [f"--socket-path={place.socket}", f"--shared-dir={place.share}", "--sandbox=chroot"]


def vmspawn(place: Place) -> list[str]:
    return ["--shared-dir", str(place.share), "--xattr", "--fd", str(place.fd), "--no-announce-submounts"]


def proxmox(place: Place) -> list[str]:
    return [f"--fd={place.fd}", f"--shared-dir={place.share}", "--xattr", "--posix-acl", "--announce-submounts",
            "--allow-direct-io", "--cache=always", "--syslog"]


def kubevirt(place: Place) -> list[str]:
    return [f"--socket-path={place.socket}", f"--shared-dir={place.share}", "--sandbox=none", "--cache=auto",
            "--migration-on-error=guest-error", "--migration-mode=find-paths"]


def kubevirt_dispatcher(place: Place) -> list[str]:
    return [f"--socket-path={place.socket}", f"--shared-dir={place.share}", "--sandbox=chroot", "--cache=auto",
            "--xattr", "--migration-mode=file-handles", "--migration-on-error=guest-error"]


CALLERS = {
    "libvirt with -o": Caller(libvirt_old, hands_over=True, share="a share, with a comma"),
    "libvirt with -o and locks": Caller(libvirt_old_locks, hands_over=True),
    "libvirt": Caller(libvirt, hands_over=True),
    "libvirt session": Caller(libvirt_session, hands_over=True, plain=True),
    "kata": Caller(kata_go, hands_over=True),
    "kata with -o": Caller(kata_go_old, hands_over=True),
    "kata runtime-rs": Caller(kata_rust),
    "kata runtime-rs rootless": Caller(kata_rust, plain=True, relative=True),
    "incus": Caller(incus, hands_over=True),
    "incus without a map": Caller(incus_without_map, hands_over=True),
    "cloud hypervisor": Caller(cloud_hypervisor),
    "cloud hypervisor's CI": Caller(cloud_hypervisor_ci),
    "cloud hypervisor with -o": Caller(cloud_hypervisor_old),
    "virtme-ng": Caller(virtme_ng, plain=True),
    "microvm.nix": Caller(microvm_nix),
    "mkosi": Caller(mkosi, hands_over=True),
    "mkosi as a plain user": Caller(mkosi, hands_over=True, plain=True, fakes_root=True),
    # As root, but without the right to make namespaces or to mount.
    "in a container": Caller(container, prefix=NO_ADMIN),
    "systemd-vmspawn": Caller(vmspawn, hands_over=True, environment=(("LISTEN_FDS", "1"), ("LISTEN_PID", "1"))),
    "proxmox": Caller(proxmox, hands_over=True),
    "kubevirt": Caller(kubevirt, plain=True),
    "kubevirt's dispatcher": Caller(kubevirt_dispatcher),
}
MAY_WARN = ("is deprecated: ", "--syslog: /dev/log: ", "has no effect: live migration")


@contextlib.contextmanager
def listening(path: pathlib.Path) -> Iterator[int]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
        made.listen(1)
        yield made.fileno()


# Gives up being root once all is loaded that a plain user may not be able to read, such as Python in somebody's home.
BECOME = """
import ctypes, encodings.ascii, os, subprocess, sys
from virtiofsd import capabilities, cli, daemon, discovery, old_options, sandbox, seccomp, serve, xattrmap
uid, gid, fakes_root = (int(sys.argv.pop(1)) for _ in range(3))
sandbox.load_what_comes_later()
libc = ctypes.CDLL(None)
os.setgroups([])
os.setresgid(gid, gid, gid)
os.setresuid(uid, uid, uid)
libc.prctl(4, 1, 0, 0, 0)       # PR_SET_DUMPABLE, as it is after exec
if fakes_root:
    assert libc.unshare(0x10000000) == 0        # CLONE_NEWUSER
    for name, text in ("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1"):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
sys.exit(cli.main())
"""


def run_by(plain: bool, fakes_root: bool, folder: pathlib.Path) -> list[str]:
    if not plain:
        return program()
    return [*given_ids(folder), sys.executable, "-c", BECOME, str(NOBODY), str(NOBODY), str(int(fakes_root))]


@contextlib.contextmanager
def started_by(caller: Caller, folder: pathlib.Path) -> Iterator[tuple[Place, subprocess.Popen[bytes]]]:
    plain = caller.plain and ROOT
    share, path = folder / caller.share, folder / "socket"
    share.mkdir()
    (share / "file").write_text("hello")
    if plain:
        for made in (folder, share, share / "file"):
            os.chown(made, NOBODY, NOBODY)
    with contextlib.ExitStack() as stack:
        fd = stack.enter_context(listening(path)) if caller.hands_over else -1
        place = Place(share, pathlib.Path("socket") if caller.relative else path, fd, plain)
        with (folder / "log").open("wb") as log:
            daemon = subprocess.Popen(
                [*caller.prefix, *run_by(plain, caller.fakes_root, folder), *caller.words(place)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[fd] if caller.hands_over else [],
                env=environment(caller), cwd=folder)
        try:
            yield place._replace(socket=path), daemon
        finally:
            daemon.kill()
            daemon.wait()


def environment(caller: Caller) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(pathlib.Path(__file__).parents[2]),
                                                                     os.environ.get("PYTHONPATH")])),
            **dict(caller.environment)}
