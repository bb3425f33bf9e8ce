"""The command line: what it takes, and one line that names option and value for what it does not."""

import os
import pathlib
import subprocess
import sys

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from tests.conftest import StartDaemon, program
from virtiofsd import __version__, log
from virtiofsd.command_line import parse
from virtiofsd.errors import OptionError
from virtiofsd.log import LOGGERS
from virtiofsd.options import OPTIONS

SHARE = ["--shared-dir", "/some/where"]
GOOD = ["--socket-path", "/some/socket", *SHARE]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*program(), *words], capture_output=True, text=True, timeout=20)


def complaint(*words: str) -> str:
    with pytest.raises(OptionError) as caught:
        parse(list(words))
    message = str(caught.value)
    assert message.isprintable(), "not one line"
    return message


def test_help_names_every_option_and_its_default_and_starts_nothing() -> None:
    result = run("--help")
    assert (result.returncode, result.stderr) == (0, "")
    for option in (option for option in OPTIONS if not option.ineffective):
        assert f"{option.name} " in result.stdout or f"{option.name}\n" in result.stdout
    assert run("-h").stdout == result.stdout
    assert run(*GOOD, "--help", "--tag", "x").returncode == 0


def test_version() -> None:
    for word in ("--version", "-V"):
        result = run(word)
        assert (result.returncode, result.stdout, result.stderr) == (0, f"virtiofsd {__version__}\n", "")


def test_a_usage_error_is_one_line_and_status_2() -> None:
    for words in ([], ["--bogus"], [*GOOD, "--tag", "x" * 37]):
        result = run(*words)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith("virtiofsd: ")
        assert result.stderr.count("\n") == 1


def test_help_and_version_and_usage_errors_need_no_event_loop_and_no_data_plane() -> None:
    code = """
import sys
from virtiofsd.cli import main
main()
print([name for name in sys.modules if name.startswith(("uvloop", "asyncio", "virtiofsd._ring."))
       and name != "virtiofsd._ring.settings"], file=sys.stderr)
"""
    for words in (["--help"], ["--version"], ["--bogus"]):
        result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=20)
        assert result.stderr.splitlines()[-1] == "[]"


def test_what_is_not_given_has_its_default() -> None:
    options = parse(GOOD)
    assert not isinstance(options, str)
    assert vars(options).items() >= {
        "socket_path": "/some/socket", "fd": None, "shared_dir": "/some/where", "tag": None, "num_request_queues": None,
        "readonly": False, "rlimit_nofile": None, "drain_timeout": 60.0, "log_level": (("virtiofsd", "info"),),
        "notes": []}.items()


def test_what_is_given_is_taken() -> None:
    options = parse(["--fd", "7", *SHARE, "--tag", "käse", "--num-request-queues", "255", "--readonly",
                     "--rlimit-nofile", "256", "--drain-timeout", "0.5", "--log-level", "trace"])
    assert not isinstance(options, str)
    assert (options.fd, options.tag, options.num_request_queues, options.readonly, options.rlimit_nofile,
            options.drain_timeout, options.log_level) == (7, "käse", 255, True, 256, 0.5, (("virtiofsd", "trace"),))


@pytest.mark.parametrize(("option", "words"), [
    ("--fd", ["-1", "x", "", "1.5", "٣", "99999999999", "+1", "0x3"]),
    ("--tag", ["", "x" * 37, "ß" * 19, "two\nlines", "\udcff"]),
    ("--num-request-queues", ["0", "256", "-3", "many", ""]),
    ("--rlimit-nofile", ["255", "1", "-1", "x"]),
    ("--drain-timeout", ["0", "-1", "x", "nan", "inf", ""]),
    ("--log-level", ["loud", "", "a\nb", "info,", "info,debug", "info,nothing=debug", "info,virtiofsd.vrings=loud",
                     "info,virtiofsd.words=debug"]),
    ("--sandbox", ["nowhere", "yes", ""]),
    ("--shared-dir", [""]),
    ("--cache", ["", "sometimes", "none"]),
    ("--entry-timeout", ["-1", "x", "nan", ""]),
    ("--xattrmap", [":", ":bogus:all:::", "x"]),
    ("--posix-acl", ["", "sometimes"]),
    ("--translate-uid", ["", "guest:1:2", "map:a:b:c", "guest:0:1:2:3"]),
])
def test_a_bad_value_is_named_with_its_option(option: str, words: list[str]) -> None:
    for word in words:
        given = GOOD if option != "--fd" else SHARE
        message = complaint(*given, f"{option}={word}")
        assert option in message
        assert word in message or repr(word) in message or repr(word)[1:-1] in message


@pytest.mark.parametrize(("words", "why"), [
    (["--override-stat", "--translate-uid=map:1000:0:1"],
     "--override-stat and --translate-uid or --translate-gid exclude each other"),
    (["--override-stat", "--translate-gid=map:1000:0:1"],
     "--override-stat and --translate-uid or --translate-gid exclude each other"),
    (["--override-stat", "--posix-acl=auto"],
     "--override-stat and --posix-acl exclude each other: the modes that are kept would not follow ACLs"),
    (["--uid-map=:0:1000:1:", "--sandbox=chroot"], "--uid-map and --gid-map need --sandbox namespace, not chroot"),
    (["--gid-map=:0:1000:1:", "--sandbox=none"], "--uid-map and --gid-map need --sandbox namespace, not none"),
])
def test_options_that_exclude_each_other_are_named(words: list[str], why: str) -> None:
    assert complaint(*GOOD, *words) == why


@pytest.mark.parametrize(("words", "why"), [
    (["--modcaps", "-mknod"], "--modcaps: its value is missing; one that begins with - is given as --modcaps=-..."),
    (["--xattr=true"], "--xattr: it takes no value"),
    (["--cahe", "auto"], "there is no such option: --cahe auto; --cache is perhaps meant"),
    (["--shared_dir=/srv"], "there is no such option: --shared_dir=/srv; --shared-dir is perhaps meant"),
    (["--bogus"], "there is no such option: --bogus"),
    (["--max-requests", "some"], "--max-requests some: it is not a whole number from 64 on"),
    (["--poll-us", "fast"], "--poll-us fast: it is neither auto nor a whole number"),
])
def test_a_mistake_is_told_with_what_was_perhaps_meant(words: list[str], why: str) -> None:
    assert complaint(*GOOD, *words) == why


def test_ranges_of_ids_must_have_whom_the_daemon_becomes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 1000)
    both = "--uid-map and --gid-map: both must have an id 0 inside, or both have outside those of who starts the daemon"
    assert complaint(*GOOD, "--uid-map", ":0:100000:65536:") == f"{both} (1000 and 1000)"
    for words in (["--uid-map=:0:1000:1:"], ["--uid-map=:0:100000:9:", "--gid-map=:0:100000:9:"],
                  ["--gid-map=:1000:1000:1:"]):
        assert not isinstance(parse([*GOOD, *words]), str)


def test_a_capability_that_another_option_needs_cannot_be_given_up() -> None:
    assert complaint(*GOOD, "--modcaps=-dac_read_search", "--inode-file-handles=mandatory") == \
        "--modcaps: dac_read_search is needed with --inode-file-handles mandatory"


def test_levels_are_for_the_modules_that_log() -> None:
    modules = pathlib.Path(log.__file__).parent.glob("*.py")
    assert {f"virtiofsd.{path.stem}" for path in modules if "getLogger(__name__)" in path.read_text()} == set(LOGGERS)


def test_an_option_can_be_taken_back_and_the_last_word_counts() -> None:
    options = parse([*GOOD, "--no-killpriv-v2", "--cache", "never", "--cache=auto", "--posix-acl", "--readonly"])
    assert not isinstance(options, str)
    assert (options.killpriv_v2, options.cache, options.posix_acl, options.readonly) == (False, "auto", "always", True)
    options = parse([*GOOD, "--no-killpriv-v2", "--killpriv-v2", "--posix-acl=auto"])
    assert not isinstance(options, str)
    assert (options.killpriv_v2, options.posix_acl) == (True, "auto")


def test_options_that_are_missing_or_exclude_each_other_are_named() -> None:
    assert complaint(*SHARE) == "one of --socket-path and --fd is needed"
    assert complaint(*GOOD, "--fd", "3") == "--socket-path and --fd exclude each other"
    assert complaint("--fd", "3") == "--shared-dir is needed"
    assert complaint("--fd", "3", *SHARE, "--socket-group", "kvm") == "--socket-group is for a socket that " \
        "--socket-path makes"
    assert "--socket-path" in complaint("--socket-path", "", *SHARE)
    assert "--tag" in complaint(*GOOD, "--tag")
    assert "--bogus" in complaint(*GOOD, "--bogus")
    assert "extra" in complaint(*GOOD, "extra")
    assert "--tags" in complaint(*GOOD, "--tags", "x")
    assert "--read" in complaint(*GOOD, "--read")     # an abbreviation may mean another option tomorrow


def test_a_path_that_no_socket_can_have_is_named(tmp_path: pathlib.Path) -> None:
    for path in (str(tmp_path / ("x" * 107)), "ß" * 54):
        why = "a socket's path has 107 bytes at most"
        assert complaint("--socket-path", path, *SHARE) == f"--socket-path {path}: {why}"
    assert parse(["--socket-path", "/" + "x" * 106, *SHARE])


def test_what_is_asked_for_a_migration_is_taken_and_said_to_have_no_effect() -> None:
    """KubeVirt says such words to every daemon; the VMM would refuse the migration."""
    words = {"--migration-mode": "find-paths", "--migration-on-error": "guest-error"}
    for option in (option for option in OPTIONS if option.ineffective):
        options = parse([*GOOD, option.name, *([] if option.parse is None else [words[option.name]])])
        assert not isinstance(options, str)
        assert options.notes == [f"{option.name} has no effect: live migration is not served yet, and the VMM refuses "
                                 "to begin one"]
    assert complaint(*GOOD, "--migration-mode=sometimes").startswith("--migration-mode sometimes: ")


def test_the_help_offers_nothing_that_has_no_effect() -> None:
    """Some callers look there for what they may ask for."""
    text = parse(["--help"])
    assert isinstance(text, str)
    assert "--inode-file-handles" in text
    assert "--migration" not in text


def test_a_cache_that_is_not_there_is_not_written_back_and_that_is_said() -> None:
    for policy in ("never", "metadata"):
        options = parse([*GOOD, "--writeback", "--cache", policy])
        assert not isinstance(options, str)
        assert not options.writeback
        assert options.notes == [
            f"--writeback has no effect with --cache {policy}: there is no cache to write back"]
    options = parse([*GOOD, "--writeback", "--cache", "never", "--cache", "auto"])
    assert not isinstance(options, str)
    assert (options.writeback, options.notes) == (True, [])


def test_words_may_be_in_capitals() -> None:
    options = parse([*GOOD, "--cache=Never", "--log-level=WARN", "--sandbox=CHROOT", "--posix-acl=AUTO"])
    assert not isinstance(options, str)
    assert (options.cache, options.log_level, options.sandbox, options.posix_acl) == (
        "never", (("virtiofsd", "warn"),), "chroot", "auto")


def test_a_default_that_is_not_the_reference_daemon_s_has_a_reason() -> None:
    """For the page that lists them: what differs is said of every option that the reference has, or that is implied."""
    differing = {option.name for option in OPTIONS if option.differs}
    assert {"--killpriv-v2", "--thread-pool-size"} <= differing
    for option in OPTIONS:
        if option.differs:
            assert option.differs.reference
            assert option.differs.reason
            assert option.differs.reference != option.default_text


def test_a_small_pool_is_made_large_enough_and_that_is_said(start_daemon: StartDaemon) -> None:
    for size, said in (("1", True), ("0", False), ("64", False)):
        daemon = start_daemon("--thread-pool-size", size)
        with VirtioFs(daemon.socket) as device:
            FuseClient(device).init()
        assert ("4 are taken, so that small requests need not wait for slow ones" in daemon.log) == said
        assert " INFO " in daemon.log
