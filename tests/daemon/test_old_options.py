"""The -o dialect of the first virtiofsd: what each word sets, and what is refused."""

from typing import Any

import pytest

from tests.conftest import StartDaemon
from tests.daemon.support import wait_for_line
from virtiofsd import old_options
from virtiofsd.command_line import parse
from virtiofsd.errors import OptionError

SOCKET = ["--socket-path", "/some/socket"]


def values(*words: str) -> dict[str, Any]:
    options = parse([*SOCKET, *words])
    assert not isinstance(options, str)
    return vars(options)


def changed(text: str) -> dict[str, Any]:
    """What -o TEXT changes, besides the share."""
    before, after = values("--shared-dir", "/share"), values("-o", f"source=/share,{text}")
    return {key: value for key, value in after.items() if value != before[key] and key not in ("o", "notes")}


def complaint(text: str) -> str:
    with pytest.raises(OptionError) as caught:
        values("-o", text)
    message = str(caught.value)
    assert message.isprintable(), "not one line"
    return message


@pytest.mark.parametrize(("text", "expected"), [
    ("cache=auto", {}),
    ("cache=always", {"cache": "always"}),
    ("cache=none", {"cache": "never"}),
    ("cache=metadata", {"cache": "metadata"}),
    ("sandbox=chroot", {"sandbox": "chroot"}),
    ("sandbox=namespace", {}),
    ("loglevel=err", {"log_level": (("virtiofsd", "error"),)}),
    ("loglevel=debug", {"log_level": (("virtiofsd", "debug"),)}),
    ("modcaps=+sys_admin:-chown", {"modcaps": (("sys_admin", True), ("chown", False))}),
    ("xattr", {"xattr": True}),
    ("readdirplus", {}),
    ("no_readdirplus", {"no_readdirplus": True}),
    ("writeback", {"writeback": True}),
    ("allow_direct_io", {"allow_direct_io": True}),
    ("announce_submounts", {}),
    ("no_announce_submounts", {"announce_submounts": False}),
    ("killpriv_v2", {}),
    ("no_killpriv_v2", {"killpriv_v2": False}),
    ("posix_acl", {"posix_acl": "always"}),
    ("no_posix_acl", {}),
    ("security_label", {"security_label": "always"}),
    ("no_security_label", {}),
    ("posix_lock,flock", {"posix_lock": True, "flock": True}),
    ("no_posix_lock,no_flock", {}),
    ("xattr,no_xattr,writeback,no_writeback,allow_direct_io,no_allow_direct_io", {}),
])
def test_a_word_means_what_its_option_does(text: str, expected: dict[str, Any]) -> None:
    assert changed(text) == expected


def test_the_rules_of_xattrmap_keep_their_separators_equal_signs_and_commas() -> None:
    for rules in (":map::user.virtiofs.:", "/prefix/all//user./ /ok/all///", "=map==user.=", ",map,,user.,"):
        wanted = values("--shared-dir", "/share", "--xattrmap", rules)["xattrmap"]
        escaped = rules.replace(",", "\\,")
        assert values("-o", f"source=/share,xattrmap={escaped},xattr")["xattrmap"] == wanted


def test_a_comma_in_a_word_is_doubled_or_has_a_backslash_before_it() -> None:
    for text, share in (("source=/a,,b", "/a,b"), ("source=/a\\,b", "/a,b"), ("source=/a,,,,b,,", "/a,,b,"),
                        ("source=/a\\b\\", "/a\\b\\"), ("source=/a=b", "/a=b")):
        assert values("-o", text)["shared_dir"] == share
    assert old_options.split("a,,b,c\\,d,e") == ["a,b", "c,d", "e"]


def test_it_may_be_given_several_times_and_the_last_word_counts() -> None:
    options = values("-o", "source=/one,cache=none", "-osource=/two", "-o=xattr,no_xattr,xattr")
    assert (options["shared_dir"], options["cache"], options["xattr"]) == ("/two", "never", True)


def test_it_counts_more_than_other_options_wherever_it_stands() -> None:
    """As in the reference daemon."""
    for words in (["-o", "source=/old,cache=none", "--cache", "always", "--shared-dir", "/new"],
                  ["--cache", "always", "--shared-dir", "/new", "-o", "source=/old,cache=none"]):
        options = values(*words)
        assert (options["shared_dir"], options["cache"]) == ("/old", "never")


@pytest.mark.parametrize("text", ["bogus", "bogus=1", "cache", "xattr=on", "source", "no_source=/x", "no_cache", "",
                                  "xattr,", ",xattr", "no_no_xattr"])
def test_an_unknown_word_is_named(text: str) -> None:
    unknown = next(word for word in text.split(",") if word != "xattr")
    assert complaint(text) == f"-o {unknown or repr('')}: it is unknown" or text == ""


@pytest.mark.parametrize(("text", "allowed"), [
    ("cache=never", "none, auto, always, metadata"), ("cache=", "none, auto, always, metadata"),
    ("sandbox=none", "namespace, chroot"), ("loglevel=trace", "err, warn, info, debug"),
])
def test_a_word_of_the_new_dialect_is_refused_in_the_old(text: str, allowed: str) -> None:
    name, _, value = text.partition("=")
    assert complaint(text) == f"-o {name}={value or repr('')}: it is one of {allowed}"


def test_other_bad_values_are_named_with_their_reason() -> None:
    assert complaint("source=").startswith("-o source='': ")
    assert complaint("modcaps=chown").startswith("-o modcaps=chown: ")
    assert complaint("xattrmap=:bogus:").startswith("-o xattrmap=:bogus:: ")
    assert complaint("a\nb") == r"-o 'a\nb': it is unknown"


def test_the_share_is_needed_all_the_same() -> None:
    assert complaint("xattr") == "--shared-dir is needed"


def test_who_uses_old_names_is_told_once(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("-o", "xattr", "-o", "writeback", "-f", "-d", "-f")
    daemon.expected = ["is deprecated: "]
    wait_for_line(daemon, "Waiting for vhost-user socket connection")
    lines = [line.rpartition("] ")[2].partition(":")[0] for line in daemon.log.splitlines() if " WARN " in line]
    assert lines == ["-o is deprecated", "-f is deprecated", "-d is deprecated"]


def test_the_old_name_of_the_socket_and_of_debug() -> None:
    options = parse(["--socket", "/old", "--shared-dir", "/share", "-fd"])
    assert not isinstance(options, str)
    assert (options.socket_path, options.log_level) == ("/old", (("virtiofsd", "debug"),))
    assert [note.partition(" ")[0] for note in options.notes] == ["--socket", "-f", "-d"]
