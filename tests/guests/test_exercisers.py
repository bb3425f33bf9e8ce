"""Random operations, for long: on one file against what its bytes must be, and on a tree against what must be in it.

The exercisers (tests/guests/inside/one_file.py, one_tree.py) run on the host as well, which proves that what they
expect is right. LONG=1: for half an hour each, in both guests together, besides a minute for each kind of share.
EXERCISE_SEED repeats a run that has failed, EXERCISE_SECONDS says for how long each runs.
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from guest.boot import Kernel
from tests.guests.conftest import GetPlace
from tests.guests.support import INSIDE, SLOW, Place, let_through
from tests.guests.test_sharing import manifest
from tests.running import LONG

SEED = os.environ.get("EXERCISE_SEED") or secrets.token_hex(4)
SECONDS = float(os.environ.get("EXERCISE_SECONDS", 60 if LONG else 4))
LONGEST = float(os.environ.get("EXERCISE_SECONDS", 900 if LONG else 4))
PROCESSES = 3
SLOWEST = 5  # operations a second, of all processes together: a run that did less has told nothing

pytestmark = [pytest.mark.guest, pytest.mark.timeout(2 * LONGEST + 900)]


def words(exerciser: str, user: str, seconds: float) -> Sequence[str]:
    return [f"{exerciser}.py", str(seconds), f"{SEED}/{exerciser}/{user}", str(PROCESSES), user]


def exercise(place: Place, tag: str, exerciser: str, user: str, seconds: float = SECONDS) -> None:
    """Exercises a share; at the end the host must see what the guest sees."""
    if not (place.laboratory.folder / tag).is_dir():
        pytest.skip(f"this machine cannot mount a {tag} of its own")
    host = place.host(tag)
    host.chmod(0o777)
    # Times of what a guest writes back are its own until it forgets them, and the host's are a little later.
    settled = "sync && echo 3 >/proc/sys/vm/drop_caches" if tag == "writeback" else "sync"
    said = place.run(f"python3 /run/inside/{' '.join(words(exerciser, user, seconds))} && {settled}", tag,
                     timeout=2 * seconds + 4 * SLOW)
    print(said)
    in_guest = json.loads(place.run("python3 /run/inside/manifest.py", tag, timeout=4 * SLOW))
    on_host = manifest(host)
    for described in (*in_guest.values(), *on_host.values()):
        del described["blocks"]  # about which the host's file system may change its mind at any time
    assert in_guest == on_host
    assert sum(json.loads(said)["operations"].values()) > SLOWEST * seconds


only_long = pytest.mark.skipif(not LONG, reason="long, with LONG=1")


@pytest.fixture(params=["uml", pytest.param("qemu", marks=only_long)])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """The faster guest; with LONG=1 the other, too."""
    kernel: Kernel = request.param
    return kernel


@pytest.mark.parametrize("user", ["root", "nobody"])
@pytest.mark.parametrize("exerciser", ["one_file", "one_tree"])
def test_what_exercisers_expect_is_so_on_the_host(tmp_path: Path, exerciser: str, user: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o777)
    let_through(folder)
    script, *rest = words(exerciser, user, SECONDS / 2)
    done = subprocess.run([sys.executable, "-B", str(INSIDE / script), *rest], cwd=folder, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("exerciser", ["one_file", "one_tree"])
def test_an_exerciser_runs_for_long(places: GetPlace, kernel: Kernel, exerciser: str) -> None:
    exercise(places(kernel), "plain", exerciser, "root", LONGEST)


@pytest.mark.parametrize("tag", ["exact", "writeback", "always", "never", "never-mmap", "direct"])
def test_the_bytes_of_a_file_are_right_with_each_policy(places: GetPlace, kernel: Kernel, tag: str) -> None:
    exercise(places(kernel), tag, "one_file", "nobody")


@pytest.mark.parametrize("tag", ["rich", "exact", "writeback", "always", "never", "metadata"])
def test_a_tree_is_right_with_each_policy(places: GetPlace, kernel: Kernel, tag: str) -> None:
    exercise(places(kernel), tag, "one_tree", "nobody")


@pytest.mark.parametrize("tag", ["ext4", "xfs", "btrfs", "tmpfs", "overlay"])
@pytest.mark.parametrize(("exerciser", "user"), [("one_file", "nobody"), ("one_tree", "nobody"),
                                                  pytest.param("one_tree", "root", marks=only_long)])
def test_it_is_right_on_each_file_system(places: GetPlace, kernel: Kernel, exerciser: str, user: str,
                                         tag: str) -> None:
    exercise(places(kernel, "backing"), tag, exerciser, user)


@pytest.mark.parametrize("tag", ["nameless", "unhandled", "bare"])
def test_a_tree_is_right_however_inodes_are_found_again(places: GetPlace, kernel: Kernel, tag: str) -> None:
    exercise(places(kernel, "special"), tag, "one_tree", "root")
