"""Gets what guests need from Debian, once, into a cache; the system and its package lists stay as they are.

    python -m guest.fetch [ITEM...]     fetches the items (all, if none is named) and prints where they are

Packages come from the machine's own Debian mirror, but from suites of our choice, by apt with a configuration of its
own: so it is the same kernel on Debian 12 and 13, apt checks the signatures, and root is not needed.

The cache is .cache/guest in the checkout, or $VIRTIOFSD_GUEST_CACHE. An item appears there under its name when it is
whole, and not before; whoever asks for an item that another process is fetching waits for it.
"""

import contextlib
import fcntl
import lzma
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

KERNEL_SUITE = "trixie"  # its kernel is 6.12
NEWEST_SUITE = "sid"
MODULES = ("overlay",)  # of either kernel, for guests that ask for it
FALLBACK_MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class FetchError(Exception):
    """Something could not be fetched; the message says what to do about it where we know."""


def say(text: str) -> None:
    print(f"fetch: {text}", file=sys.stderr, flush=True)


# The cache


def cache() -> Path:
    """The folder of everything fetched or made for guests."""
    configured = os.environ.get("VIRTIOFSD_GUEST_CACHE")
    folder = Path(configured).absolute() if configured else Path(__file__).resolve().parent.parent / ".cache/guest"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Holds the cache's lock of that name; processes and threads alike wait for each other."""
    with (cache() / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def item(name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache; `make` fills it, in a temporary place, when it is not there yet."""
    folder = cache() / name
    if folder.is_dir():
        return folder
    with locked(name):
        if folder.is_dir():
            return folder
        started = time.monotonic()
        for left in cache().glob(f"{name}.new-*"):  # by one that was killed; we hold the lock
            shutil.rmtree(left, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix=f"{name}.new-", dir=cache()))
        try:
            make(new)
            new.chmod(0o755)
            new.rename(folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        say(f"{name} is in {folder} ({time.monotonic() - started:.1f} s)")
    return folder


# Debian


def debian_mirror() -> str:
    """The mirror that this machine's own apt takes its release from."""
    return next(_debian_sources(), FALLBACK_MIRROR)


def debian_release() -> str:
    """The code name of this machine's Debian release."""
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    raise FetchError("no release of Debian in /etc/os-release")


def _debian_sources() -> Iterator[str]:
    release = debian_release()
    suites = {release, "stable", "oldstable", "testing", "unstable"}
    etc = Path("/etc/apt")
    for path in sorted(etc.glob("sources.list.d/*.sources")):
        for stanza in path.read_text().split("\n\n"):
            fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", stanza, re.MULTILINE))
            words = {name: str(value).split() for name, value in fields.items()}
            if suites & {*words.get("Suites", ())} and "main" in words.get("Components", ()):
                yield from map(_plain_mirror, words.get("URIs", ()))
    for path in [etc / "sources.list", *sorted(etc.glob("sources.list.d/*.list"))]:
        for line in path.read_text().splitlines() if path.exists() else ():
            match = re.match(r"deb\s+(?:\[.*?\]\s+)?(\S+)\s+(\S+)\s(.*)", line)
            if match and match[2] in suites and "main" in match[3].split():
                yield _plain_mirror(match[1])


def _plain_mirror(uri: str) -> str:
    """Cloud images name a file that lists their mirrors; debootstrap doesn't know such addresses."""
    scheme, _, path = uri.partition(":")
    if scheme != "mirror+file":
        return uri
    return Path("/" + path.lstrip("/")).read_text().split()[0]


class Suite:
    """One Debian suite, seen through an apt that knows nothing else and believes that nothing is installed."""

    def __init__(self, name: str) -> None:
        if not shutil.which("apt-get") or not KEYRING.exists():
            raise FetchError("guests are made of Debian packages: this needs apt-get and debian-archive-keyring")
        if os.uname().machine != "x86_64":
            raise FetchError(f"guests are for x86_64 only, not {os.uname().machine}")
        self.name = name
        self.folder = cache() / "apt" / name
        self.options = [
            "-oDir::Etc::SourceList=/dev/null",
            f"-oDir::Etc::SourceParts={self.folder}/sources",
            f"-oDir::State::Lists={self.folder}/lists",
            f"-oDir::State::status={self.folder}/status",
            f"-oDir::Cache={self.folder}",
            "-oAPT::Sandbox::User=",
            "-oAcquire::Languages=none",
            "-oAcquire::Check-Valid-Until=false",  # the mirror may be a snapshot; signatures are still checked
        ]

    @contextlib.contextmanager
    def updated(self) -> Iterator[None]:
        """Holds the suite's lock, with its package list up to date."""
        with locked(f"apt-{self.name}"):
            for folder in ("sources", "lists/partial", "archives/partial"):
                (self.folder / folder).mkdir(parents=True, exist_ok=True)
            (self.folder / "status").touch()
            fresh = self.folder / "updated"
            if not fresh.exists() or time.time() - fresh.stat().st_mtime > 600:
                mirror = debian_mirror()
                source = f"deb [signed-by={KEYRING}] {mirror} {self.name} main\n"
                (self.folder / "sources/debian.list").write_text(source)
                say(f"the package list of Debian {self.name}, from {mirror}: 10 MB if it has changed")
                self._apt("apt-get", "-qq", "update")
                fresh.touch()
            yield

    def package(self, name: str, folder: Path) -> Path:
        """Downloads one package, without what it depends on."""
        with self.updated():
            if name.startswith("linux-image-"):  # an empty package that depends on the kernel
                depends = self._apt("apt-cache", "depends", "--important", name)
                name = re.findall(r"Depends: (linux-image-\d\S+)", depends)[0]
            _say_sizes(self._apt("apt-get", "-qq", "--print-uris", "download", name))
            self._apt("apt-get", "-qq", "download", name, cwd=folder)
        return next(folder.glob(f"{name}_*.deb"))

    def tree(self, packages: Sequence[str], folder: Path) -> None:
        """Unpacks packages and all that they depend on. No installation: nothing of it is configured or run."""
        with self.updated():
            install = ["apt-get", "-qq", "-y", "--no-install-recommends"]
            _say_sizes(self._apt(*install, "--print-uris", "install", *packages))
            self._apt(*install, "--download-only", "install", *packages)
            archives = self.folder / "archives"
            try:
                for deb in archives.glob("*.deb"):
                    subprocess.run(["dpkg-deb", "--extract", deb, folder], check=True)
            finally:
                for deb in archives.glob("*.deb"):
                    deb.unlink()
        for useless in ("doc", "locale", "man"):
            shutil.rmtree(folder / "usr/share" / useless, ignore_errors=True)

    def _apt(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        command = [program, *self.options, *arguments]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        if done.returncode:
            raise FetchError(f"{program} {arguments[-1]} ({self.name}) failed:\n{done.stderr.strip()}")
        return done.stdout


def _say_sizes(print_uris: str) -> None:
    found = re.findall(r"^'\S+' ([^\s_]+)\S* (\d+)", print_uris, re.MULTILINE)
    sizes = {name: int(size) for name, size in found}
    names = sorted(sizes, key=lambda name: -sizes[name])
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    say(f"downloading {', '.join(names[:2])}{more}: {sum(sizes.values()) / 1e6:.1f} MB")


# The items


def kernel() -> Path:
    """A stock Linux 6.12 for QEMU, with its `modules` beside it.

    virtio-pci, FUSE and virtio-fs are built in, so most guests need no module.
    """

    def make(folder: Path) -> None:
        deb = Suite(KERNEL_SUITE).package("linux-image-cloud-amd64", folder)
        wanted = ["./boot/vmlinuz-*", "./boot/config-*", *(f"*/{module}.ko.xz" for module in MODULES)]
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as contents:
            unpack = ["tar", "-x", "--transform=s,.*/,,", "--wildcards", *wanted]
            subprocess.run(unpack, stdin=contents.stdout, cwd=folder, check=True)
        deb.unlink()
        next(folder.glob("vmlinuz-*")).rename(folder / "vmlinuz")
        (folder / "modules").mkdir()
        for module in MODULES:
            packed = folder / f"{module}.ko.xz"
            (folder / "modules" / packed.stem).write_bytes(lzma.decompress(packed.read_bytes()))
            packed.unlink()

    return item("linux", make) / "vmlinuz"


def busybox() -> Path:
    """A static busybox: all the programs of a guest that has no other root."""

    def make(folder: Path) -> None:
        deb = Suite(KERNEL_SUITE).package("busybox-static", folder)
        subprocess.run(["dpkg-deb", "--extract", deb, folder / "tree"], check=True)
        (folder / "tree/usr/bin/busybox").rename(folder / "busybox")
        shutil.rmtree(folder / "tree")
        deb.unlink()

    return item("busybox", make) / "busybox"


def uml() -> Path:
    """A folder with User-Mode Linux, the newest FUSE client at hand: `linux`, and its `modules`.

    One CPU; system calls of the guest's processes are slow, so it tests behaviour and not speed.
    """

    def make(folder: Path) -> None:
        if not shutil.which("patchelf"):
            raise FetchError("User-Mode Linux needs patchelf: apt-get install patchelf")
        Suite(NEWEST_SUITE).tree(["user-mode-linux"], folder)
        (folder / "modules").mkdir()
        for module in ("fuse", "virtiofs", *MODULES):
            next((folder / "usr/lib/uml/modules").rglob(f"{module}.ko")).rename(folder / "modules" / f"{module}.ko")
        (folder / "usr/bin/linux.uml").rename(folder / "linux")
        shutil.rmtree(folder / "usr/lib/uml")
        # The kernel executes itself anew while it starts, so a wrapper that calls the loader won't do.
        libraries = cache() / "linux-uml" / LIBRARIES
        patch = ["patchelf", "--set-interpreter", f"{libraries}/{LOADER}", "--set-rpath", str(libraries)]
        subprocess.run([*patch, folder / "linux"], check=True)

    return item("linux-uml", make)


def qemu_sid() -> Path:
    """The newest QEMU. What Debian 12's has not: vhost-user-test-device-pci, whose DAX window the back-end owns."""

    def make(folder: Path) -> None:
        Suite(NEWEST_SUITE).tree(["qemu-system-x86"], folder)
        arguments = '-L "$here/usr/share/qemu" -L "$here/usr/share/seabios"'
        _wrap(folder, "usr/bin/qemu-system-x86_64", arguments, {"QEMU_MODULE_DIR": f"$here/{LIBRARIES}/qemu"})

    return item("qemu-sid", make) / "qemu-system-x86_64"


def reference_daemon() -> Path:
    """The newest release of the Rust virtiofsd, to compare with."""

    def make(folder: Path) -> None:
        Suite(NEWEST_SUITE).tree(["virtiofsd"], folder)
        _wrap(folder, "usr/libexec/virtiofsd")

    return item("reference", make) / "virtiofsd"


LIBRARIES = "usr/lib/x86_64-linux-gnu"
LOADER = "ld-linux-x86-64.so.2"


def _wrap(tree: Path, program: str, arguments: str = "", environment: Mapping[str, str] | None = None) -> None:
    """A command in the tree that runs one of its programs with the tree's own C library, outside of a chroot."""
    exports = "".join(f'export {name}="{value}"\n' for name, value in (environment or {}).items())
    wrapper = tree / Path(program).name
    wrapper.write_text(
        f'#!/bin/sh\nhere=$(dirname "$(readlink -f "$0")")\n{exports}'
        f'exec "$here/{LIBRARIES}/{LOADER}" --library-path "$here/{LIBRARIES}" "$here/{program}" {arguments} "$@"\n'
    )
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


ITEMS: Mapping[str, Callable[[], Path]] = {
    "kernel": kernel,
    "busybox": busybox,
    "uml": uml,
    "qemu-sid": qemu_sid,
    "reference": reference_daemon,
}


def main() -> None:
    names = sys.argv[1:] or list(ITEMS)
    unknown = [name for name in names if name not in ITEMS]
    if unknown:
        raise SystemExit(f"{__doc__}\nItems: {', '.join(ITEMS)}")
    try:
        for name in names:
            print(ITEMS[name]())
    except FetchError as error:
        raise SystemExit(f"fetch: {error}") from None


if __name__ == "__main__":
    main()
