"""What POSIX and Linux promise about who may do what, and set-id bits, whoever serves the files."""

import errno
import functools
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable

import linux
from linux import GROUP, NOBODY, OTHER_GROUP, as_nobody, fails, mode_of, opened, read, write


def chmod_changes_all_twelve_bits() -> None:
    write("file")
    os.mkdir("folder")
    for path in ("file", "folder"):
        for mode in (0o7777, 0o4711, 0o2755, 0o1777, 0o640, 0o000):
            os.chmod(path, mode)
            assert mode_of(path) == mode, oct(mode)
    with opened("file") as file:
        os.fchmod(file, 0o604)
    assert mode_of("file") == 0o604


def chown_changes_owner_and_group_one_by_one() -> None:
    write("file")
    os.chown("file", NOBODY, -1)
    os.chown("file", -1, GROUP)
    assert (os.stat("file").st_uid, os.stat("file").st_gid) == (NOBODY, GROUP)
    os.symlink("file", "link")
    os.lchown("link", 7, 8)
    assert (os.lstat("link").st_uid, os.lstat("link").st_gid) == (7, 8)
    assert os.stat("file").st_uid == NOBODY


def chown_takes_set_id_bits_away() -> None:
    write("program", mode=0o6755)
    os.chown("program", NOBODY, GROUP)
    assert mode_of("program") == 0o755
    os.chmod("program", 0o6755)
    before = os.stat("program").st_ctime_ns
    time.sleep(0.03)
    os.chown("program", -1, -1)
    assert mode_of("program") == 0o755
    assert os.stat("program").st_ctime_ns > before
    os.mkdir("folder")
    os.chmod("folder", 0o2755)
    os.chown("folder", NOBODY, GROUP)
    assert mode_of("folder") == 0o2755


def only_the_owner_changes_a_mode_and_only_root_gives_files_away() -> None:
    write("roots")
    write("theirs", mode=0o600)
    os.chown("theirs", NOBODY, GROUP)

    def try_it() -> None:
        with fails(errno.EPERM):
            os.chmod("roots", 0o777)
        with fails(errno.EPERM):
            os.chown("theirs", 0, -1)
        with fails(errno.EPERM):
            os.chown("theirs", -1, 4242)
        os.chown("theirs", -1, OTHER_GROUP)
        os.chmod("theirs", 0o644)

    as_nobody(try_it, groups=(OTHER_GROUP,))
    assert os.stat("theirs").st_gid == OTHER_GROUP


def _takes_set_id_bits_away(change: Callable[[int], object], *, of_root_too: bool = False) -> None:
    """What a plain user changes, set-id bits vanish from; where root changes it, they stay, or may vanish, too."""
    def poke(path: str) -> None:
        with opened(path) as file:
            change(file)

    write("theirs", b"four", mode=0o6777)
    as_nobody(lambda: poke("theirs"))
    assert mode_of("theirs") == 0o777, oct(mode_of("theirs"))
    write("roots", b"four", mode=0o6777)
    poke("roots")
    assert mode_of("roots") == 0o6777 or (of_root_too and mode_of("roots") == 0o777), oct(mode_of("roots"))


def a_write_of_a_plain_user_takes_set_id_bits_away() -> None:
    _takes_set_id_bits_away(lambda file: os.write(file, b"x"))


def a_truncation_of_a_plain_user_takes_set_id_bits_away() -> None:
    _takes_set_id_bits_away(lambda file: os.ftruncate(file, 1))


def an_open_that_cuts_of_a_plain_user_takes_set_id_bits_away() -> None:
    for flags in (os.O_TRUNC, os.O_TRUNC | os.O_CREAT):
        write("theirs", b"four", mode=0o6777)
        as_nobody(functools.partial(os.open, "theirs", os.O_WRONLY | flags))
        assert (mode_of("theirs"), os.stat("theirs").st_size) == (0o777, 0)


def a_member_of_the_group_leaves_its_set_group_id_bit_where_the_group_may_not_execute() -> None:
    def allocate() -> None:
        with opened("theirs", os.O_WRONLY) as file:
            linux.fallocate(file, 0, 0, 10_000)

    for change in (lambda: write("theirs", b"x"), lambda: os.truncate("theirs", 2), allocate):
        write("theirs", b"four")
        os.chown("theirs", -1, OTHER_GROUP)
        os.chmod("theirs", 0o6766)
        as_nobody(change, groups=(OTHER_GROUP,))
        assert mode_of("theirs") == 0o2766, oct(mode_of("theirs"))


def nothing_is_executed_with_set_id_bits_that_are_gone() -> None:
    """At once, whatever the guest still knows."""
    shutil.copy("/usr/bin/id", "program")
    def write_something() -> None:
        with opened("program", os.O_WRONLY | os.O_APPEND) as file:
            os.write(file, b"x")

    for change in (write_something, lambda: os.truncate("program", os.stat("program").st_size + 1)):
        os.chmod("program", 0o6777)
        assert mode_of("program") == 0o6777

        def try_it(change: Callable[[], object] = change) -> None:
            change()
            found = subprocess.run(["./program"], stdout=subprocess.PIPE, text=True, check=True).stdout
            assert "euid=" not in found and "egid=" not in found, found

        as_nobody(try_it)
        assert mode_of("program") == 0o777


def an_allocation_of_a_plain_user_takes_set_id_bits_away() -> None:
    # Guests that can make idmapped mounts do not say who allocates.
    _takes_set_id_bits_away(lambda file: linux.fallocate(file, 0, 0, 4096), of_root_too=True)


def a_set_uid_program_runs_as_its_owner() -> None:
    subprocess.run(["cp", "/usr/bin/id", "id"], check=True)
    os.chown("id", NOBODY, GROUP)
    os.chmod("id", 0o6755)
    found = subprocess.run(["./id", "-u"], capture_output=True, text=True, check=True).stdout
    assert found == f"{NOBODY}\n"
    found = subprocess.run(["./id", "-g"], capture_output=True, text=True, check=True).stdout
    assert found == f"{GROUP}\n"


def a_set_gid_folder_hands_its_group_down() -> None:
    os.mkdir("folder")
    os.chown("folder", 0, OTHER_GROUP)
    os.chmod("folder", 0o2777)

    def fill() -> None:
        write("folder/file")
        os.mkdir("folder/folder")
        os.symlink("nowhere", "folder/link")

    as_nobody(fill)
    for name in ("file", "folder", "link"):
        info = os.lstat(f"folder/{name}")
        assert (info.st_uid, info.st_gid) == (NOBODY, OTHER_GROUP), name
    assert mode_of("folder/folder") & stat.S_ISGID
    assert not mode_of("folder/file") & stat.S_ISGID


def members_of_a_group_share_a_set_gid_folder() -> None:
    os.mkdir("folder")
    os.chown("folder", 0, OTHER_GROUP)
    os.chmod("folder", 0o2770)

    def fill() -> None:
        os.umask(0)
        with opened("folder/file", os.O_CREAT | os.O_RDWR, 0o2775):
            pass
        os.mkdir("folder/folder", 0o770)
        os.mkfifo("folder/fifo", 0o660)
        os.symlink("nowhere", "folder/link")
        os.link("folder/file", "folder/second")
        try:
            with opened("folder", os.O_TMPFILE | os.O_RDWR, 0o660) as file:
                linux.link_open(file, "folder/unnamed")
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
        os.rename("folder/second", "folder/other")

    def denied() -> None:
        with fails(errno.EACCES):
            write("folder/new")

    as_nobody(fill, groups=(7, 8, OTHER_GROUP))
    as_nobody(denied, groups=(7, 8))
    for name in os.listdir("folder"):
        info = os.lstat(f"folder/{name}")
        assert (info.st_uid, info.st_gid) == (NOBODY, OTHER_GROUP), name
    assert mode_of("folder/file") == 0o2775  # who is in the group may hand its identity on
    assert mode_of("folder/folder") == 0o2770
    os.chmod("folder", 0o2777)
    as_nobody(lambda: os.close(os.open("folder/strangers", os.O_CREAT | os.O_WRONLY, 0o2755)), groups=(7, 8))
    assert mode_of("folder/strangers") == 0o755


def only_owners_remove_from_a_sticky_folder() -> None:
    os.mkdir("folder")
    os.chmod("folder", 0o1777)
    write("folder/roots", mode=0o666)

    def try_it() -> None:
        write("folder/own")
        os.unlink("folder/own")
        with fails(errno.EPERM, errno.EACCES):
            os.unlink("folder/roots")
        with fails(errno.EPERM, errno.EACCES):
            os.rename("folder/roots", "folder/mine")

    as_nobody(try_it)


def new_files_get_the_callers_owner_and_umask() -> None:
    def make() -> None:
        os.umask(0o027)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o6777))
        os.mkdir("folder", 0o1777)
        os.mkfifo("fifo", 0o666)
        os.symlink("target", "link")

    as_nobody(make)
    assert mode_of("file") == 0o6750, oct(mode_of("file"))
    assert mode_of("folder") == 0o1750
    assert mode_of("fifo") == 0o640
    for name in ("file", "folder", "fifo", "link"):
        assert (os.lstat(name).st_uid, os.lstat(name).st_gid) == (NOBODY, GROUP), name


def permissions_are_checked() -> None:
    write("secret", mode=0o600)
    os.mkdir("closed", 0o700)
    write("closed/file")
    os.mkdir("unsearchable")
    write("unsearchable/file")
    os.chmod("unsearchable", 0o644)
    os.mkdir("readable", 0o755)
    os.chmod("readable", 0o755)
    write("readable/file", mode=0o644)
    write("program", b"#!/bin/true\n", mode=0o744)

    def try_it() -> None:
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
            with fails(errno.EACCES):
                os.open("secret", flags)
        with fails(errno.EACCES):
            os.listdir("closed")
        with fails(errno.EACCES):
            os.stat("closed/file")
        assert os.listdir("unsearchable") == ["file"]
        with fails(errno.EACCES):
            os.stat("unsearchable/file")
        assert read("readable/file") == b""
        for change in (lambda: write("readable/new"), lambda: os.unlink("readable/file"),
                       lambda: os.truncate("readable/file", 1), lambda: os.utime("readable/file", (1, 1))):
            with fails(errno.EACCES, errno.EPERM):
                change()
        with fails(errno.EACCES):
            os.execv("program", ["program"])
        assert not os.access("secret", os.R_OK)
        assert os.access("readable/file", os.R_OK)
        assert not os.access("readable/file", os.W_OK)

    as_nobody(try_it)


def groups_grant_and_deny() -> None:
    write("file", b"text", mode=0o040)
    os.chown("file", 0, OTHER_GROUP)
    as_nobody(lambda: read("file"), groups=(1, 2, OTHER_GROUP))

    def denied() -> None:
        with fails(errno.EACCES):
            read("file")

    as_nobody(denied, groups=(1, 2))
    os.chmod("file", 0o704)  # the group has less than others have
    as_nobody(denied, groups=(OTHER_GROUP,))
