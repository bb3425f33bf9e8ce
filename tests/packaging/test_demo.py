"""make demo, beyond its installing: it runs through, and shows both sides what the other has done."""

import os
import pathlib
import subprocess
import sys
import sysconfig

import pytest

from guest.fetch import busybox, kernel
from tests.guests.conftest import needs

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.guest


def test_the_demo_shows_each_side_what_the_other_has_written(tmp_path: pathlib.Path) -> None:
    needs("qemu")
    kernel(), busybox()  # which tell what they download
    (tmp_path / "of mine").write_text("untouched\n")
    program = f"{sysconfig.get_path('scripts')}/virtiofsd"
    result = subprocess.run([sys.executable, "-m", "guest.demo", str(tmp_path)], capture_output=True, text=True,
                            stdin=subprocess.DEVNULL, cwd=ROOT, env={**os.environ, "VIRTIOFSD": program})
    assert (result.returncode, result.stderr) == (0, "")
    shown = "".join(line.strip() + "\n" for line in result.stdout.splitlines())
    assert "cat virtiofsd-demo/note\nWritten in the guest.\nhost $" in shown
    assert "cat virtiofsd-demo/note\nWritten in the guest.\nAdded on the host.\n" in shown
    assert "67108864" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["of mine"]
