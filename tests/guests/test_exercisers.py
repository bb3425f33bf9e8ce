"""Random operations, for long: on one file against what its bytes must be, and on a tree against what must be in it.

The exercisers (tests/guests/inside/one_file.py, one_tree.py) run on the host as well, which proves that what they
expect is right. EXERCISE_SEED repeats a run that has failed, EXERCISE_SECONDS says for how long each runs.
"""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from guest.boot import Kernel
from tests.guests.conftest import GetLaboratory, GetPlace
from tests.guests.support import INSIDE, SLOW, Place
from tests.guests.test_sharing import manifest
from tests.running import LONG

SEED = os.environ.get("EXERCISE_SEED") or secrets.token_hex(4)
SECONDS = float(os.environ.get("EXERCISE_SECONDS", 1800 if LONG else 8))
SHORT = float(os.environ.get("EXERCISE_SECONDS", 60 if LONG else 8))
PROCESSES = 3

pytestmark = [pytest.mark.guest, pytest.mark.timeout(2 * SECONDS + 900)]


def command(exerciser: str, seconds: float, user: str) -> list[str]:
    return [f"{exerciser}.py", str(seconds), f"{SEED}/{exerciser}/{user}", str(PROCESSES), user]


def exercise(place: Place, tag: str, exerciser: str, user: str, seconds: float) -> Any:
    """Exercises a share; at the end the host must see what the guest sees."""
    host = place.host(tag)
    host.chmod(0o777)
    found = json.loads(place.run(f"python3 /run/inside/{' '.join(command(exerciser, seconds, user))} && sync", tag,
                                 timeout=2 * seconds + 4 * SLOW))
    print(json.dumps(found))
    in_guest = json.loads(place.run("python3 /run/inside/manifest.py", tag, timeout=4 * SLOW))
    on_host = manifest(host)
    for described in (*in_guest.values(), *on_host.values()):
        del described["blocks"]  # the host's file system may change its mind about them at any time
    assert in_guest == on_host
    assert sum(found["operations"].values()) > 20 * seconds
    return found


@pytest.mark.parametrize("user", ["root", "nobody"])
@pytest.mark.parametrize("exerciser", ["one_file"])
def test_the_host_itself_passes(tmp_path: Path, exerciser: str, user: str) -> None:
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o777 if parent == tmp_path else 0o755)
    done = subprocess.run([sys.executable, "-B", INSIDE / command(exerciser, 1, user)[0],
                           *command(exerciser, 3, user)[1:]],
                          cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("tag", ["plain", "writeback", "always", "never", "never-mmap", "direct"])
def test_one_file(places: GetPlace, kernel: Kernel, tag: str) -> None:
    exercise(places(kernel), tag, "one_file", "root", SECONDS if (kernel, tag) == ("uml", "plain") else SHORT)


@pytest.mark.parametrize("tag", ["ext4", "xfs", "btrfs", "tmpfs"])
def test_one_file_on(laboratories: GetLaboratory, places: GetPlace, tag: str) -> None:
    if not (laboratories("uml", "backing").folder / tag).is_dir():
        pytest.skip(f"this machine cannot mount a {tag} of its own")
    exercise(places("uml", "backing"), tag, "one_file", "nobody", SHORT)
