"""Capabilities by name, and which of them the daemon keeps."""

import pathlib
import re

import pytest

from virtiofsd.capabilities import NAMES, USUAL, bit, kept, parse_changes


def names(mask: int) -> set[str]:
    return {name for name in NAMES if mask & bit(name)}


def test_names_and_numbers_are_the_kernels() -> None:
    try:
        header = pathlib.Path("/usr/include/linux/capability.h").read_text()
    except FileNotFoundError:
        pytest.skip("/usr/include/linux/capability.h is not installed (linux-libc-dev)")
    found = {name.lower(): int(number) for name, number in re.findall(r"#define CAP_(\w+)\s+(\d+)\n", header)}
    assert len(found) > 38
    assert {name: NAMES.index(name) for name in found} == found


def test_what_is_kept_is_what_the_documents_say() -> None:
    assert names(kept((), "prefer")) == {"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "setgid",
                                         "setuid", "mknod", "setfcap"} == set(USUAL)
    document = (pathlib.Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()
    text = document.partition("\n## Capabilities\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(USUAL)


def test_without_file_handles_files_are_not_found_by_them() -> None:
    assert names(kept((), "never")) == set(USUAL) - {"dac_read_search"}
    assert names(kept((("dac_read_search", True),), "never")) == set(USUAL)


def test_changes_count_in_their_order() -> None:
    assert parse_changes("+sys_admin:-chown") == (("sys_admin", True), ("chown", False))
    assert names(kept(parse_changes("+sys_admin:-chown"), "prefer")) == {*USUAL, "sys_admin"} - {"chown"}
    assert names(kept(parse_changes("+sys_admin:-sys_admin"), "prefer")) == set(USUAL)
    assert names(kept(parse_changes("-chown:+chown"), "prefer")) == set(USUAL)


def test_names_may_be_written_as_in_the_manual() -> None:
    assert parse_changes("+CAP_SYS_ADMIN:-cap_chown:+Mknod") == parse_changes("+sys_admin:-chown:+mknod")


@pytest.mark.parametrize("text, why", [
    ("sys_admin", "'sys_admin' begins with neither + nor -"), ("", "'' begins with neither + nor -"),
    ("+sys_admin:", "'' begins with neither + nor -"), ("+sysadmin", "'sysadmin' is no capability"),
    ("+", "'' is no capability"), ("+all", "'all' is no capability")])
def test_what_is_no_change_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parse_changes(text)


def test_what_is_needed_cannot_be_given_up() -> None:
    with pytest.raises(ValueError, match="dac_read_search is needed with --inode-file-handles mandatory"):
        kept(parse_changes("-dac_read_search"), "mandatory")
