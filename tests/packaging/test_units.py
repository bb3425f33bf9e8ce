"""The systemd units of a share: systemd understands them, and what they take away the daemon does not need."""

import os
import pathlib
import shutil
import stat
import subprocess

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from frontend.fuse_abi import FUSE_ROOT_ID
from tests.conftest import program
from tests.guests.support import PlainDaemon

UNITS = pathlib.Path(__file__).parents[2] / "share/virtiofsd/systemd"


def values(key: str) -> list[str]:
    """What the service's unit says, lines of one key together."""
    lines = (UNITS / "virtiofsd@.service").read_text().splitlines()
    return " ".join(line.partition("=")[2] for line in lines if line.startswith(f"{key}=")).split()


def test_systemd_understands_the_units(tmp_path: pathlib.Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd-analyze")
    for path in UNITS.iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace("ExecStart=virtiofsd ", "ExecStart=/bin/true "))
    names = [tmp_path / "virtiofsd@data.service", tmp_path / "virtiofsd@data.socket"]
    result = subprocess.run(["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to give up")
@pytest.mark.parametrize("sandbox", ["namespace", "chroot", "none"])
def test_the_daemon_needs_no_capability_that_the_unit_takes_away(sandbox: str, tmp_path: pathlib.Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    left = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in values("CapabilityBoundingSet"))
    assert values("NoNewPrivileges") == ["yes"]
    bounded = ["setpriv", f"--bounding-set=-all,{left}", "--inh-caps=-all", "--no-new-privs", *program()]
    monkeypatch.setenv("VIRTIOFSD", " ".join(bounded))
    daemon = PlainDaemon(tmp_path / "daemon", ["--sandbox", sandbox, "--inode-file-handles", "mandatory"], None)
    daemon.wait_until_it_listens()
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        fuse.mknod(FUSE_ROOT_ID, "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        made = fuse.mknod(FUSE_ROOT_ID, "set-id", stat.S_IFREG | 0o6755, uid=0, gid=0)
        assert fuse.setattr(made.nodeid, owner=1234, group=1234).attr_uid == 1234
        assert fuse.mkdir(FUSE_ROOT_ID, "of another", uid=4321, gid=4321).attr_gid == 4321
    assert stat.S_ISCHR((daemon.share / "device").stat().st_mode)
    assert daemon.finish() == []
