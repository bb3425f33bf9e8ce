"""A guest with a share of each caller of virtiofsd: whatever words the daemon was started with, it can be used."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest.boot import Guest, Share
from tests.daemon.callers import CALLERS, MAY_WARN, ROOT, Place, started_by
from tests.daemon.support import wait_until
from tests.guests.conftest import needs
from tests.guests.support import SLOW
from tests.running import BAD_LINE

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600),
              pytest.mark.skipif(not ROOT, reason="the callers run as root, or become somebody else")]
NAMES = list(CALLERS)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user reaches, which those of tests are not."""
    made = Path(tempfile.mkdtemp(prefix="virtiofsd-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("names", [NAMES[::2], NAMES[1::2]], ids=["one-half", "other-half"])
def test_a_guest_uses_the_share_of_every_caller(names: list[str], folder: Path) -> None:
    needs("qemu")
    with contextlib.ExitStack() as stack:
        places: dict[str, Place] = {}
        daemons: dict[str, subprocess.Popen[bytes]] = {}
        for number, name in enumerate(names):
            (folder / f"share{number}").mkdir()
            places[name], daemons[name] = stack.enter_context(started_by(CALLERS[name], folder / f"share{number}"))
        for name, place in places.items():
            wait_until(lambda name=name, place=place: place.socket.exists() or daemons[name].poll() is not None, name)
        shares = [Share(f"share{number}", places[name].socket) for number, name in enumerate(names)]
        with Guest(*shares, memory_mib=768, boot_timeout=4 * SLOW) as guest:
            for number, name in enumerate(names):
                result = guest.run(f"""
                    mkdir -p /tmp/here && mount -t virtiofs share{number} /tmp/here && cd /tmp/here &&
                    cat file && echo " of the guest" >new && mkdir folder && mv new folder && ls -A &&
                    cd / && umount /tmp/here
                """, timeout=2 * SLOW)
                log = (folder / f"share{number}/log").read_text()
                assert (result.status, result.stdout) == (0, "hellofile\nfolder\n"), f"{name}: {result.stderr}\n{log}"
                assert (places[name].share / "folder/new").read_text() == " of the guest\n", name
        for number, (name, daemon) in enumerate(daemons.items()):
            assert daemon.wait(SLOW) == 0, name
            bad = [line for line in (folder / f"share{number}/log").read_text().splitlines()
                   if BAD_LINE.search(line) and not any(word in line for word in MAY_WARN)]
            assert bad == [], name
