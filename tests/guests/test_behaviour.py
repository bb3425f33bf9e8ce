"""Files behave in a guest as they do on the host: each behaviour in tests/guests/inside, on the host and in guests.

On the host it proves that what we expect is right. In guests it is so for every kind of daemon that serves files in a
way of its own, and for every file system that a share may lie on.
"""

import ast
import functools
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.guests.conftest import REPORTERS, GetLaboratory
from tests.guests.support import INSIDE, LABORATORIES, SLOW
from tests.running import LONG

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900)]

Outcome = Mapping[str, Any]
EVERYTHING = ("permissions", "names", "contents", "times", "local", "attributes")
BY_OPTIONS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "usual": {
        "writeback": ("permissions", "names", "contents", "times", "local"),
        "never": ("names", "contents", "times", "local"),
        "always": ("permissions", "names", "contents", "times", "local"),
        "direct": ("contents",),
        "locks": ("contents", "local"),
        "exported": ("names", "contents", "local"),
    },
    "special": {
        "translated": ("permissions", "names"),
        "faked": ("permissions", "names", "times"),
        "bare": ("permissions", "names"),
        "nameless": ("names", "contents", "times", "local"),
        "unhandled": ("names", "contents", "times", "local"),
    },
}
"""The shares whose daemons do things in another way, and the modules that would tell."""


class Run(NamedTuple):
    """A module's behaviours, all in one go; the place is the host, or a guest's kernel."""

    place: str
    laboratory: str
    tag: str
    module: str


def runs() -> list[Run]:
    found = [Run(place, "usual", "rich" if module == "attributes" else "plain", module)
             for module in EVERYTHING for place in ("host", "qemu", "uml")]
    kernels = ("qemu", "uml") if LONG else ("uml",)  # it is the faster one
    found += [Run(kernel, laboratory, tag, module) for kernel in kernels for laboratory, tags in BY_OPTIONS.items()
              for tag, modules in tags.items() for module in modules]
    found += [Run(kernel, "backing", tag, module)
              for kernel in kernels for tag in LABORATORIES["backing"] for module in EVERYTHING]
    return found


FEW = "a guest may not have that many files open at once: the daemon has 300 descriptors"
OF_LINKS = "a symbolic link has no attribute that could hold its fake owner"
KNOWN: Mapping[tuple[str, str], str] = {
    ("nameless", "folders_can_be_deep"): FEW,
    ("nameless", "a_thousand_files_open_at_once"): FEW,
    ("writeback", "holes_can_be_sought"): "the guest does not say what it has yet to write, so nothing is a hole to it",
    ("faked", "chown_changes_owner_and_group_one_by_one"): OF_LINKS,
    ("faked", "a_set_gid_folder_hands_its_group_down"): OF_LINKS,
    ("faked", "members_of_a_group_share_a_set_gid_folder"): OF_LINKS,
    ("faked", "new_files_get_the_callers_owner_and_umask"): OF_LINKS,
    ("fuse", "hard_links_are_one_file"): "bindfs knows files by their names: a descriptor goes with the name it is of",
}
"""What is not so on a share, and why."""


@functools.cache
def behaviours(module: str) -> Sequence[str]:
    functions = [node for node in ast.parse((INSIDE / f"{module}.py").read_text()).body
                 if isinstance(node, ast.FunctionDef)]
    return [function.name for function in functions if not function.name.startswith("_")]


def on_host(folder: Path, *words: str) -> Mapping[str, Outcome]:
    """Runs behaviours in a new folder of the host's."""
    folder.mkdir()
    command = [sys.executable, "-B", str(INSIDE / "behave.py"), *words]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return outcomes(done.stdout)


def outcomes(output: str) -> Mapping[str, Outcome]:
    return {line["name"]: line for line in map(json.loads, output.splitlines())}


@pytest.fixture(scope="session")
def results(laboratories: GetLaboratory, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Run], Any]:
    """What came of a run, which is done the first time that one of its behaviours is asked for."""
    host = tmp_path_factory.mktemp("behaviour")

    @functools.cache
    def get(run: Run) -> Mapping[str, Outcome]:
        """Where a guest did not get through with a run, its later behaviours have no outcome."""
        name = f"behaviour-{run.module}-{run.place}"
        if run.place == "host":
            return on_host(host / name, run.module)
        laboratory = laboratories(run.place, run.laboratory)
        if not (laboratory.folder / run.tag).is_dir():
            pytest.skip(f"this machine cannot mount a {run.tag} of its own")
        script = f"mkdir {name}; cd {name} && python3 /run/inside/behave.py {run.module}"
        done = laboratory.run(script, run.tag, timeout=20 * SLOW, check=False)
        found = outcomes(done.stdout)
        left = {"error": f"the run ended with status {done.status}: {done.stderr}", "skipped": None}
        return {behaviour: found.get(behaviour, left) for behaviour in behaviours(run.module)}

    return get


CASES = [pytest.param(run, behaviour, id="-".join([*run, behaviour])) for run in runs()
         for behaviour in behaviours(run.module)]


@pytest.mark.parametrize(("run", "behaviour"), CASES)
def test_behaviour(request: pytest.FixtureRequest, results: Callable[[Run], Any], laboratories: GetLaboratory,
                   run: Run, behaviour: str) -> None:
    if run.place != "host":
        laboratory = laboratories(run.place, run.laboratory)
        request.node.stash[REPORTERS] = [lambda: laboratory.scene.report([run.tag])]
        if (run.tag, behaviour) in KNOWN:
            request.applymarker(pytest.mark.xfail(strict=True, reason=KNOWN[run.tag, behaviour]))
    outcome = results(run)[behaviour]
    if outcome["skipped"]:
        pytest.skip(outcome["skipped"])
    if outcome["error"]:
        if run.laboratory == "backing":
            there = laboratory.folder / run.tag / f"host-{run.place}-{behaviour}"
            if on_host(there, run.module, behaviour)[behaviour]["error"]:
                pytest.skip(f"it is not so on the host's {run.tag} either")
        pytest.fail(outcome["error"], pytrace=False)
