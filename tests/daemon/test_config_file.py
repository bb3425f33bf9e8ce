"""--config FILE: the options of one share in TOML."""

import pathlib
import subprocess
from typing import Any

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient, FuseError
from tests.conftest import program
from tests.daemon.support import wait_until
from tests.running import SECONDS
from virtiofsd.command_line import parse
from virtiofsd.errors import OptionError, StartError
from virtiofsd.options import BY_NAME, OPTIONS

BASE = 'socket-path = "/some/socket"\nshared-dir = "/some/where"\n'
# What a file says and the words that mean the same; for the others that take a word it is a 3.
SAMPLES: dict[str, tuple[str, list[str]]] = {
    "--shared-dir": ('"/other place"', ["/other place"]),
    "--tag": ('"myfs"', ["myfs"]),
    "--inode-file-handles": ('"mandatory"', ["mandatory"]),
    "--cache": ('"always"', ["always"]),
    "--entry-timeout": ("0.5", ["0.5"]),
    "--attr-timeout": ("0", ["0"]),
    "--negative-timeout": ('"7"', ["7"]),
    "--xattrmap": ('":map::user.virtiofs.:"', [":map::user.virtiofs.:"]),
    "--posix-acl": ('"auto"', ["auto"]),
    "--security-label": ("true", ["always"]),
    "--translate-uid": ('["guest:0:1000:1", "host:5:6:1"]', ["guest:0:1000:1", "host:5:6:1"]),
    "--translate-gid": ('"map:0:0:10"', ["map:0:0:10"]),
    "--max-locks": ("7", ["7"]),
    "--max-blocked-locks": ("7", ["7"]),
    "--thread-pool-size": ("7", ["7"]),
    "--num-request-queues": ("4", ["4"]),
    "--poll-us": ('"auto"', ["auto"]),
    "--max-requests": ("100", ["100"]),
    "--rlimit-nofile": ("4096", ["4096"]),
    "--socket-path": ('"/other/socket"', ["/other/socket"]),
    "--socket-group": ('"kvm"', ["kvm"]),
    "--sandbox": ('"namespace"', ["namespace"]),
    "--seccomp": ('"log"', ["log"]),
    "--modcaps": ('"+sys_admin"', ["+sys_admin"]),
    "--uid-map": ('[":0:1000:1:", ":1:100000:65536:"]', [":0:1000:1:", ":1:100000:65536:"]),
    "--gid-map": ('[":0:1000:1:"]', [":0:1000:1:"]),
    "--drain-timeout": ("1.5", ["1.5"]),
    "--migration-mode": ('"find-paths"', ["find-paths"]),
    "--migration-on-error": ('"abort"', ["abort"]),
    "--log-level": ('"warn,virtiofsd.vrings=debug"', ["warn,virtiofsd.vrings=debug"]),
}


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "share.toml"


def values(*words: str | pathlib.Path) -> dict[str, Any]:
    options = parse([str(word) for word in words])
    assert not isinstance(options, str)
    return {key: value for key, value in vars(options).items() if key != "config"}


def complaint(file: pathlib.Path, text: str) -> str:
    file.write_text(BASE + text)
    with pytest.raises(OptionError) as caught:
        values("--config", file)
    message = str(caught.value)
    assert message.isprintable(), "not one line"
    assert message.startswith(f"--config {file}: ")
    return message.removeprefix(f"--config {file}: ")


@pytest.mark.parametrize("name", [option.name for option in OPTIONS if option.in_file])
def test_every_option_of_a_share_can_stand_in_a_file(file: pathlib.Path, name: str) -> None:
    key = name.removeprefix("--")
    base = "\n".join(line for line in BASE.splitlines() if not line.startswith(key))
    if name == "--fd":
        base, line, words = 'shared-dir = "/some/where"', "fd = 7", ["--fd", "7"]
    elif BY_NAME[name].parse is not None:
        value, of_option = SAMPLES.get(name, ("3", ["3"]))
        line, words = f"{key} = {value}", [f"{name}={word}" for word in of_option]
    else:
        line, words = f"{key} = true", [name]
    file.write_text(f"{base}\n{line}\n")
    socket = [] if name == "--fd" else ["--socket-path=/some/socket"]
    assert values("--config", file) == values(*socket, "--shared-dir=/some/where", *words)


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.in_file and option.parse is None],
                         ids=lambda option: option.name)
def test_false_takes_a_switch_back(file: pathlib.Path, option: Any) -> None:
    file.write_text(f"{BASE}{option.name[2:]} = false\n")
    assert values("--config", file)[option.key] is False


def test_the_command_line_counts_more_and_ranges_add_up(file: pathlib.Path) -> None:
    file.write_text(f'{BASE}cache = "never"\nreadonly = true\nkillpriv-v2 = false\nuid-map = ":0:1000:1:"\n')
    for words in (["--config", file, "--cache", "always", "--killpriv-v2", "--uid-map", ":1:2000:1:"],
                  ["--cache", "always", "--killpriv-v2", "--uid-map", ":1:2000:1:", f"--config={file}"]):
        options = values(*words)
        assert (options["cache"], options["readonly"], options["killpriv_v2"]) == ("always", True, True)
        assert options["uid_map"] == [(0, 1000, 1), (1, 2000, 1)]


@pytest.mark.parametrize(("text", "why"), [
    ("bogus = 1", "bogus: there is no such option for a file"),
    ('socket = "/x"', "socket: there is no such option for a file; socket-path is perhaps meant"),
    ('config = "/x"', "config: there is no such option for a file"),
    ("print-capabilities = true", "print-capabilities: there is no such option for a file"),
    ("help = true", "help: there is no such option for a file; helpers is perhaps meant"),
    ("thread_pool_size = 1", "thread_pool_size: there is no such option for a file; thread-pool-size is perhaps meant"),
    ("readonly = 1", "readonly: it is true or false"),
    ('readonly = "yes"', "readonly: it is true or false"),
    ("no-announce-submounts = true", "no-announce-submounts: it is announce-submounts = false here"),
    ('cache = ["auto"]', "cache: it is not a list"),
    ("cache = true", "cache: it is a text or a number"),
    ("posix-acl = [false]", "posix-acl: it is not a list"),
    ("uid-map = [1979-05-27]", "uid-map: it is a text or a number"),
    ('[share]\ntag = "a"', "share: a file with a list of shares is not served: it has the options of one share"),
    ('[[share]]\ntag = "a"\n[[share]]\ntag = "b"',
     "share: a file with a list of shares is not served: it has the options of one share"),
])
def test_what_makes_no_sense_is_named_with_its_file(file: pathlib.Path, text: str, why: str) -> None:
    assert complaint(file, text) == why


def test_bad_values_are_named_as_those_of_a_command_line_are(file: pathlib.Path) -> None:
    for line, why in (('cache = "sometimes"', "--cache sometimes: "), ("tag = ''", "--tag '': "),
                      ("max-requests = 1.5", "--max-requests 1.5: ")):
        assert complaint(file, line).startswith(why)
    for line, wanted in (("posix-acl = true", "always"), ("posix-acl = false", "never")):
        file.write_text(BASE + line)
        assert values("--config", file)["posix_acl"] == wanted


def test_a_file_that_is_no_toml_is_named_in_one_line(file: pathlib.Path) -> None:
    assert "(at line 3, column " in complaint(file, "tag myfs\n")
    file.write_bytes(b"tag = '\xff'\n")
    with pytest.raises(OptionError, match="codec can't decode byte 0xff"):
        values("--config", file)


def test_a_file_that_cannot_be_read_is_named(file: pathlib.Path) -> None:
    for path, why in ((file, "No such file or directory"), (file.parent, "Is a directory")):
        with pytest.raises(StartError) as caught:
            values("--config", path)
        assert str(caught.value) == f"--config {path}: {why}"
    result = subprocess.run([*program(), "--config", file], capture_output=True, text=True, timeout=20)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"virtiofsd: --config {file}: No such file or directory\n"


def test_a_daemon_serves_what_its_file_says(file: pathlib.Path) -> None:
    socket, share = file.parent / "socket", file.parent / "share"
    share.mkdir()
    file.write_text(f'socket-path = "{socket}"\nshared-dir = "{share}"\nreadonly = true\nsandbox = "none"\n')
    daemon = subprocess.Popen([*program(), "--config", file], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: socket.exists() or daemon.poll() is not None, "the socket")
        with VirtioFs(socket) as device:
            fuse = FuseClient(device)
            fuse.init()
            with pytest.raises(FuseError, match="EROFS"):
                fuse.mkdir(1, "new")
        assert daemon.wait(SECONDS) == 0
    finally:
        daemon.kill()
        daemon.wait()
