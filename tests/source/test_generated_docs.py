"""The man page, the completions and the pages of options are what the table of options says, and do their work."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from virtiofsd import discovery
from virtiofsd.options import OPTIONS

ROOT = pathlib.Path(__file__).parents[2]
SHARE = ROOT / "share"
FLAGS = [name for option in OPTIONS for name in (option.name, option.opposite) if name]


def check(root: pathlib.Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(root / "tools/generate_docs.py"), "--check"], capture_output=True,
                          text=True)


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def test_generated_files_are_what_the_options_say() -> None:
    result = check(ROOT)
    assert result.returncode == 0, result.stderr


def test_a_file_that_was_changed_by_hand_is_named(tmp_path: pathlib.Path) -> None:
    for folder in ("tools", "docs", "share", "virtiofsd"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    assert check(tmp_path).returncode == 0
    page = tmp_path / "docs/options.md"
    page.write_text(page.read_text().replace("--shared-dir", "--shared"))
    (tmp_path / "share/man/man1/virtiofsd.1").unlink()
    result = check(tmp_path)
    assert result.returncode == 1
    assert "docs/options.md" in result.stderr and "virtiofsd.1" in result.stderr
    assert "differences.md" not in result.stderr


@pytest.mark.parametrize("name", ["docs/options.md", "share/man/man1/virtiofsd.1"])
def test_every_option_is_told(name: str) -> None:
    text = text_of(name).replace("\\-", "-")
    assert [flag for flag in FLAGS if not re.search(rf"{flag}(?![\w-])", text)] == []


def test_every_option_of_the_reference_daemon_is_known() -> None:
    assert set(text_of("tools/docs/reference_options.txt").split()) - {*FLAGS, "--help", "--version"} == set()


def test_the_man_page_is_good_roff() -> None:
    if not shutil.which("groff"):
        pytest.skip("there is no groff to read man pages with")
    page = SHARE / "man/man1/virtiofsd.1"
    result = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", page], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


# Completions

def bash_proposes(*words: str, folder: pathlib.Path = ROOT) -> list[str]:
    """What bash proposes for the last word."""
    script = (f'source "{SHARE}/bash-completion/completions/virtiofsd"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
              'compopt() { :; }; _virtiofsd; printf "%s\\n" "${COMPREPLY[@]}"')
    result = subprocess.run(["bash", "-euc", script, "bash", "virtiofsd", *words], capture_output=True, text=True,
                            cwd=folder, check=True)
    assert result.stderr == ""
    return result.stdout.split("\n")[:-1]


def test_bash_proposes_options_and_what_they_may_be_given(tmp_path: pathlib.Path) -> None:
    assert bash_proposes("--sh") == ["--shared-dir"]
    assert bash_proposes("--cache", "a") == ["auto", "always"]
    assert bash_proposes("--readonly", "--sandbox", "=") == ["namespace", "chroot", "none"]
    assert bash_proposes("--sandbox", "=", "ch") == ["chroot"]
    assert bash_proposes("--posix-acl", "=", "al") == ["always"]
    assert bash_proposes("--posix-acl", "--read") == ["--readonly"], "its word needs ="
    assert bash_proposes("--tag", "") == [""], "nobody knows"
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a file").touch()
    assert bash_proposes("--shared-dir", "a", folder=tmp_path) == ["a folder"]
    assert sorted(bash_proposes("--socket-path", "=", "a", folder=tmp_path)) == ["a file", "a folder"]
    assert "--migration-mode" not in bash_proposes("--"), "it has no effect"


@pytest.mark.parametrize(("shell", "name"), [
    ("bash", "bash-completion/completions/virtiofsd"), ("zsh", "zsh/site-functions/_virtiofsd"),
    ("fish", "fish/vendor_completions.d/virtiofsd.fish")])
def test_shells_can_read_their_completions(shell: str, name: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell}")
    result = subprocess.run([shell, "-n", SHARE / name], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


# Discovery

def test_the_discovery_file_is_as_its_schema_wants_it() -> None:
    found = json.loads(text_of("share/qemu/vhost-user/50-virtiofsd.json"))
    assert found.keys() == {"description", "type", "binary", "features"}
    assert (found["type"], found["binary"]) == ("fs", "/usr/bin/virtiofsd")
    assert found["features"] == json.loads(discovery.capabilities())["features"]


def test_the_discovery_file_of_another_place_can_be_asked_for(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "virtiofsd"
    program.touch()
    command = [sys.executable, "-m", "virtiofsd.discovery"]
    result = subprocess.run([*command, "virtiofsd"], capture_output=True, text=True, check=True, cwd=tmp_path,
                            env={"PYTHONPATH": str(ROOT)})
    assert json.loads(result.stdout)["binary"] == str(program)
    result = subprocess.run([*command, str(tmp_path / "another")], capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stdout) == (1, "")
    assert "another: there is no such program" in result.stderr
