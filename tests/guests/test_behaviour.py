"""Files behave in a guest as they do on the host: each behaviour in tests/guests/inside, on the host and in guests.

On the host it proves that what we expect is right.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.guests.conftest import REPORTERS
from tests.guests.support import INSIDE, SLOW, Laboratory

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900)]

Outcome = Mapping[str, Any]
Laboratories = Callable[[Any], Laboratory]
Results = Callable[[str, str, str], Mapping[str, Outcome]]
PLACES = ("host", "qemu", "uml")
MODULES = {"permissions": "plain", "names": "plain", "contents": "plain", "times": "plain", "local": "plain",
           "attributes": "rich"}
"""Where behaviours are, and the share of the laboratory that they are for."""

KNOWN: Mapping[str, str] = {
    "an_allocation_of_a_plain_user_takes_set_id_bits_away":
        "FALLOCATE is done with all capabilities: the host leaves set-id bits on the file",
    "an_append_only_file_can_be_appended_to":
        "OPEN takes O_APPEND away, and an append-only file cannot be opened for writing without it",
}
"""What is wrong in guests at present: the behaviour, and the reason."""


def behaviours(module: str) -> list[str]:
    functions = [node for node in ast.parse((INSIDE / f"{module}.py").read_text()).body
                 if isinstance(node, ast.FunctionDef)]
    return [function.name for function in functions if not function.name.startswith("_")]


@pytest.fixture(scope="session")
def results(laboratories: Laboratories, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Runs a module's behaviours in a place, all in one go, the first time that one of them is asked for."""
    known: dict[tuple[str, str, str], Mapping[str, Outcome]] = {}

    def run(place: str, module: str, tag: str) -> str:
        name = f"behaviour-{module}-{place}"
        if place == "host":
            folder = tmp_path_factory.mktemp(name)
            command = [sys.executable, "-B", str(INSIDE / "behave.py"), module]
            return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True).stdout
        laboratory = laboratories(place)
        (laboratory.folder / tag / name).mkdir()
        script = f"python3 /run/inside/behave.py {module}"
        return laboratory.run(script, f"{tag}/{name}", timeout=20 * SLOW).stdout

    def get(place: str, module: str, tag: str) -> Mapping[str, Outcome]:
        key = (place, module, tag)
        if key not in known:
            lines = map(json.loads, run(*key).splitlines())
            known[key] = {line["name"]: line for line in lines}
        return known[key]

    return get


@pytest.fixture
def judge(request: pytest.FixtureRequest, results: Results, laboratories: Laboratories) -> Callable[..., None]:
    """Makes an outcome the test's own."""

    def judge(module: str, tag: str, behaviour: str, place: str) -> None:
        if place != "host":
            scene = laboratories(place).scene
            request.node.stash[REPORTERS] = [lambda: scene.report([tag])]
            if behaviour in KNOWN:
                request.applymarker(pytest.mark.xfail(strict=True, reason=KNOWN[behaviour]))
        outcome = results(place, module, tag)[behaviour]
        if outcome["skipped"]:
            pytest.skip(outcome["skipped"])
        if outcome["error"]:
            pytest.fail(outcome["error"], pytrace=False)

    return judge


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("module", "behaviour"), [(module, name) for module in MODULES for name in behaviours(module)])
def test_behaviour(judge: Callable[..., None], module: str, behaviour: str, place: str) -> None:
    judge(module, MODULES[module], behaviour, place)
