"""The wheel of this checkout, and an environment in which nothing but it is installed."""

import os
import pathlib
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TOOLS = ("cc", "gcc", "c99", "clang", "ld", "as", "cython", "cythonize")


@pytest.fixture(scope="session")
def wheel() -> pathlib.Path:
    """That of make wheels, which is made here where it is missing or older than its sources."""
    made = subprocess.run([sys.executable, ROOT / "tools/make_wheels.py", "--if-changed"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    assert made.returncode == 0, made.stdout
    [wheel] = (ROOT / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def path_without_compilers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with every program of the real one except those that compile."""
    folder = tmp_path_factory.mktemp("bin")
    for place in os.environ["PATH"].split(os.pathsep):
        for program in pathlib.Path(place).glob("*"):
            if not program.name.startswith(TOOLS) and not (folder / program.name).is_symlink():
                (folder / program.name).symlink_to(program)
    assert not any(shutil.which(tool, path=str(folder)) for tool in TOOLS)
    return str(folder)


@pytest.fixture(scope="session")
def installed(wheel: pathlib.Path, path_without_compilers: str,
              tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """A fresh virtual environment in which pip has installed the wheel, without a compiler."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=True)
    # What the wheel depends on is kept, so that tests can be repeated without a network.
    kept = ROOT / "build/wheelhouse"
    pip = [folder / "bin/python", "-m", "pip", "--disable-pip-version-check"]
    if not list(kept.glob(f"uvloop-*-cp3{sys.version_info.minor}-*.whl")):
        subprocess.run([*pip, "download", "--only-binary=:all:", "--dest", kept, "uvloop>=0.19"], check=True,
                       stdout=subprocess.DEVNULL)
    result = subprocess.run([*pip, "install", "--no-index", "--find-links", kept, wheel], capture_output=True,
                            text=True, env={"PATH": path_without_compilers, "HOME": str(folder)}, cwd=folder)
    assert result.returncode == 0, result.stderr
    yield folder
    shutil.rmtree(folder)
