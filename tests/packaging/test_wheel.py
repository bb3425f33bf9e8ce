"""What make wheels makes is all there, and serves a front-end and a guest from where pip has put it."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from frontend.fuse_abi import FUSE_ROOT_ID
from guest.boot import Guest, Share
from tests.guests.conftest import needs
from tests.guests.support import PlainDaemon
from tools import check_wheel

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(600)  # the first of these tests may have to compile the wheel


@pytest.fixture
def program(installed: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The installed command, which sees nothing of this checkout."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir("/")
    return str(installed / "bin/virtiofsd")


@pytest.fixture
def daemon(program: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlainDaemon]:
    monkeypatch.setenv("VIRTIOFSD", program)
    daemon = PlainDaemon(tmp_path / "daemon", [], None)
    daemon.wait_until_it_listens()
    yield daemon
    assert daemon.finish() == []


def test_the_wheel_has_what_it_must_have_and_nothing_else(wheel: pathlib.Path) -> None:
    assert check_wheel.complaints(wheel) == []


def test_what_is_wrong_with_a_wheel_is_told(wheel: pathlib.Path, tmp_path: pathlib.Path) -> None:
    bad = tmp_path / wheel.name.replace("manylinux", "linux")
    with zipfile.ZipFile(wheel) as good, zipfile.ZipFile(bad, "w") as archive:
        for name in good.namelist():
            if not name.endswith(("/py.typed", "virtiofsd.1")):
                archive.writestr(name, good.read(name))
        archive.writestr("frontend/ring.abi3.so", b".debug_info")
        archive.writestr("virtiofsd/_ring/device.pyx", b"")
    told = "\n".join(check_wheel.complaints(bad))
    for part in ("neither manylinux", "virtiofsd/py.typed is missing", "share/man/man1/virtiofsd.1 is missing",
                 "frontend/ring.abi3.so does not belong", "frontend/ring.abi3.so has symbols",
                 "virtiofsd/_ring/device.pyx is a source"):
        assert part in told


def test_the_sdist_has_all_sources_and_nothing_that_was_built(wheel: pathlib.Path) -> None:
    [sdist] = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    wanted = {"setup.py", "pyproject.toml", "LICENSE", "README.md"}
    wanted |= {f"virtiofsd/_ring/{path.name}" for pattern in ("*.py*", "*.pxd", "*.h")
               for path in (ROOT / "_ring").glob(pattern)}
    wanted |= {str(path.relative_to(ROOT)) for folder in ("share", "docs") for path in (ROOT / folder).rglob("*")
               if path.is_file()}
    assert wanted - names == set()
    assert [name for name in names if name.endswith((".so", ".c", ".pyc"))] == []
    assert {name.split("/")[0] for name in names} & {"tests", "bench", "guest", "frontend", "_ring"} == set()


def test_what_is_below_share_is_installed(installed: pathlib.Path) -> None:
    for name in check_wheel.shared():
        assert (installed / name).read_bytes() == (ROOT / name).read_bytes()


def test_the_installed_command_tells_its_version_and_where_it_is(program: str, installed: pathlib.Path) -> None:
    from virtiofsd import __version__

    result = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"virtiofsd {__version__}\n"
    result = subprocess.run([installed / "bin/python", "-m", "virtiofsd.discovery"], capture_output=True, text=True,
                            check=True)
    assert json.loads(result.stdout)["binary"] == program


def test_the_installed_daemon_serves_a_front_end(daemon: PlainDaemon) -> None:
    (daemon.share / "file").write_bytes(b"of the host")
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        assert fuse.lookup(FUSE_ROOT_ID, "file").attr_size == 11


@pytest.mark.guest
def test_the_installed_daemon_serves_a_guest(daemon: PlainDaemon) -> None:
    needs("qemu")
    (daemon.share / "from-host").write_text("hello\n")
    with Guest(Share("share", daemon.socket, mount="/mnt")) as guest:
        assert guest.run("cat /mnt/from-host; echo hello too > /mnt/from-guest", check=True).stdout == "hello\n"
        guest.poweroff()
    assert (daemon.share / "from-guest").read_text() == "hello too\n"


def test_pip_installs_from_a_checkout_and_nothing_that_was_left_in_it(tmp_path: pathlib.Path) -> None:
    """The other ways are tried elsewhere: by an sdist the wheel was made, and in place a checkout is set up."""
    checkout, target = tmp_path / "checkout", tmp_path / "installed"
    for name in ("virtiofsd", "_ring", "frontend", "bench", "share", "docs", "build/cython"):
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=shutil.ignore_patterns("*.so", "results"))
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md"):
        shutil.copy2(ROOT / name, checkout)
    left = checkout / "build" / f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    for name in ("frontend/ring.abi3.so", "virtiofsd/_ring/of_old.abi3.so"):
        (left / name).parent.mkdir(parents=True)
        (left / name).touch()
    config = tmp_path / "build.cfg"
    config.write_text(f"[build_ext]\nparallel = {os.cpu_count()}\n")
    result = subprocess.run([sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps",
                             "--no-build-isolation", "--target", target, checkout], capture_output=True, text=True,
                            env={**os.environ, "VIRTIOFSD_FRONTEND": "0", "VIRTIOFSD_BUILD": "debug",
                                 "DIST_EXTRA_CONFIG": str(config)})
    assert result.returncode == 0, result.stdout + result.stderr
    assert {path.name for path in target.iterdir() if not path.name.endswith(".dist-info")} == {
        "virtiofsd", "share", "bin"}
    assert not (target / "virtiofsd/_ring/of_old.abi3.so").exists()
    said = subprocess.run([sys.executable, "-c", "import virtiofsd.serve; print(virtiofsd.__file__)"],
                          capture_output=True, text=True, cwd="/", env={**os.environ, "PYTHONPATH": str(target)})
    assert (said.stdout, said.stderr) == (f"{target}/virtiofsd/__init__.py\n", "")
