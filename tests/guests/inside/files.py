"""What POSIX and Linux promise about files and directories, whoever serves them."""

import ctypes
import errno
import fcntl
import mmap
import os
import random
import resource
import select
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator

import linux
from linux import GROUP, NOBODY, OTHER_GROUP, Skipped, Statx, as_nobody, child, done, fails, opened, read, write

SECOND = 10**9


def _mode(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


# Modes, owners, permissions

def chmod_changes_all_twelve_bits() -> None:
    write("file")
    os.mkdir("folder")
    for path in ("file", "folder"):
        for mode in (0o7777, 0o4711, 0o2755, 0o1777, 0o640, 0o000):
            os.chmod(path, mode)
            assert _mode(path) == mode, oct(mode)
    with opened("file") as file:
        os.fchmod(file, 0o604)
    assert _mode("file") == 0o604


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
    assert _mode("program") == 0o755
    os.mkdir("folder")
    os.chmod("folder", 0o2755)
    os.chown("folder", NOBODY, GROUP)
    assert _mode("folder") == 0o2755


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


def _takes_set_id_bits_away(change: Callable[[int], object]) -> None:
    """What a plain user changes, set-id bits vanish from; where root changes it, they stay."""
    def poke(path: str) -> None:
        with opened(path) as file:
            change(file)

    write("theirs", b"four", mode=0o6777)
    as_nobody(lambda: poke("theirs"))
    assert _mode("theirs") == 0o777, oct(_mode("theirs"))
    write("roots", b"four", mode=0o6777)
    poke("roots")
    assert _mode("roots") == 0o6777, oct(_mode("roots"))


def a_write_of_a_plain_user_takes_set_id_bits_away() -> None:
    _takes_set_id_bits_away(lambda file: os.write(file, b"x"))


def a_truncation_of_a_plain_user_takes_set_id_bits_away() -> None:
    _takes_set_id_bits_away(lambda file: os.ftruncate(file, 1))


def an_allocation_of_a_plain_user_takes_set_id_bits_away() -> None:
    _takes_set_id_bits_away(lambda file: linux.fallocate(file, 0, 0, 4096))


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
    assert _mode("folder/folder") & stat.S_ISGID
    assert not _mode("folder/file") & stat.S_ISGID


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
    assert _mode("file") == 0o6750, oct(_mode("file"))
    assert _mode("folder") == 0o1750
    assert _mode("fifo") == 0o640
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


# Names and links

def hard_links_are_one_file() -> None:
    os.mkdir("folder")
    write("one", b"text")
    os.link("one", "folder/two")
    one, two = os.stat("one"), os.stat("folder/two")
    assert (one.st_ino, one.st_dev, one.st_nlink) == (two.st_ino, two.st_dev, 2)
    write("folder/two", b"other text")
    assert read("one") == b"other text"
    os.chmod("one", 0o604)
    assert _mode("folder/two") == 0o604
    os.unlink("one")
    assert os.stat("folder/two").st_nlink == 1
    assert read("folder/two") == b"other text"


def links_to_symbolic_links_and_none_to_folders() -> None:
    os.symlink("target", "link")
    os.link("link", "second", follow_symlinks=False)
    assert os.readlink("second") == "target"
    assert os.lstat("second").st_ino == os.lstat("link").st_ino
    os.mkdir("folder")
    with fails(errno.EPERM):
        os.link("folder", "other")
    write("file")
    with fails(errno.EEXIST):
        os.link("file", "link")


def hundreds_of_links() -> None:
    write("file", b"x")
    for number in range(500):
        os.link("file", f"link{number}")
    assert os.stat("link499").st_nlink == 501
    for number in range(500):
        os.unlink(f"link{number}")
    assert os.stat("file").st_nlink == 1


def rename_over_an_open_file_leaves_it_readable() -> None:
    write("old", b"old text")
    write("new", b"new text")
    with opened("old") as file:
        os.rename("new", "old")
        assert os.read(file, 100) == b"old text"
        os.pwrite(file, b"OLD", 0)
        assert os.pread(file, 100, 0) == b"OLD text"
        assert os.fstat(file).st_nlink == 0
    assert read("old") == b"new text"
    assert os.listdir() == ["old"]


def rename_obeys_its_rules() -> None:
    for folder in ("empty", "full", "source"):
        os.mkdir(folder)
    write("full/file")
    write("file")
    with fails(errno.ENOTEMPTY, errno.EEXIST):
        os.rename("source", "full")
    with fails(errno.EINVAL):
        os.rename("source", "source/below")
    with fails(errno.ENOTDIR):
        os.rename("source", "file")
    with fails(errno.EISDIR):
        os.rename("file", "empty")
    with fails(errno.ENOENT):
        os.rename("nothing", "something")
    os.rename("source", "empty")
    assert sorted(os.listdir()) == ["empty", "file", "full"]
    os.link("file", "same")
    os.rename("file", "same")  # two names of one file: nothing happens
    assert sorted(os.listdir()) == ["empty", "file", "full", "same"]
    os.rename("full", "empty/moved")
    assert os.listdir("empty/moved") == ["file"]
    assert os.stat("empty/moved/..").st_ino == os.stat("empty").st_ino


def rename_can_refuse_to_replace_and_exchange() -> None:
    write("one", b"1")
    os.mkdir("two")
    with fails(errno.EEXIST):
        linux.rename("one", "two", linux.RENAME_NOREPLACE)
    linux.rename("one", "three", linux.RENAME_NOREPLACE)
    linux.rename("three", "two", linux.RENAME_EXCHANGE)
    assert read("two") == b"1"
    assert os.listdir("three") == []
    with fails(errno.ENOENT):
        linux.rename("two", "nothing", linux.RENAME_EXCHANGE)


def rename_can_leave_a_whiteout() -> None:
    write("one", b"1")
    try:
        linux.rename("one", "two", linux.RENAME_WHITEOUT)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EPERM):
            raise Skipped("the file system has no whiteouts") from error
        raise
    info = os.lstat("one")
    assert stat.S_ISCHR(info.st_mode)
    assert info.st_rdev == 0
    assert read("two") == b"1"


def an_unlinked_open_file_stays_a_file() -> None:
    write("file", b"text")
    with opened("file") as file, opened("file", os.O_RDONLY) as second:
        os.unlink("file")
        assert os.listdir() == []
        assert os.fstat(file).st_nlink == 0
        os.pwrite(file, b"more", 4)
        os.ftruncate(file, 6)
        os.fchmod(file, 0o600)
        os.fchown(file, NOBODY, GROUP)
        os.utime(file, ns=(SECOND, 2 * SECOND))
        assert os.pread(second, 100, 0) == b"textmo"
        info = os.fstat(second)
        assert (info.st_size, info.st_uid, stat.S_IMODE(info.st_mode)) == (6, NOBODY, 0o600)
        assert info.st_mtime_ns == 2 * SECOND
        with opened(f"/proc/self/fd/{file}", os.O_RDONLY) as third:
            assert os.read(third, 100) == b"textmo"
        with fails(errno.ENOENT):
            os.stat("file")
        write("file", b"another")
        assert os.pread(file, 100, 0) == b"textmo"


def a_removed_folder_that_is_open_stays_empty() -> None:
    os.mkdir("folder")
    home = os.open(".", os.O_RDONLY)
    os.chdir("folder")
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir("../folder")
    assert os.listdir(folder) == []
    with fails(errno.ENOENT):
        write("file")
    with fails(errno.ENOENT):
        os.mkdir("below")
    os.fchdir(home)


def removing_obeys_its_rules() -> None:
    os.mkdir("folder")
    write("folder/file")
    with fails(errno.ENOTEMPTY, errno.EEXIST):
        os.rmdir("folder")
    with fails(errno.EISDIR, errno.EPERM):
        os.unlink("folder")
    with fails(errno.ENOTDIR):
        os.rmdir("folder/file")
    with fails(errno.EINVAL):
        os.rmdir("folder/.")
    with fails(errno.ENOENT):
        os.unlink("nothing")
    with fails(errno.ENOTDIR):
        os.stat("folder/file/below")


def opening_obeys_its_flags() -> None:
    write("file", b"text")
    os.mkdir("folder")
    os.symlink("file", "link")
    with fails(errno.EEXIST):
        os.open("file", os.O_CREAT | os.O_EXCL)
    with fails(errno.EEXIST):
        os.open("link", os.O_CREAT | os.O_EXCL)
    with fails(errno.ELOOP):
        os.open("link", os.O_NOFOLLOW)
    with fails(errno.ENOTDIR):
        os.open("file", os.O_DIRECTORY)
    with fails(errno.EISDIR):
        os.open("folder", os.O_WRONLY)
    with fails(errno.ENOENT):
        os.open("nothing", os.O_RDONLY)
    with opened("file", os.O_RDONLY) as file, fails(errno.EBADF):
        os.write(file, b"x")
    with opened("file", os.O_WRONLY) as file, fails(errno.EBADF):
        os.read(file, 1)
    with opened("file", os.O_PATH) as file:
        assert os.fstat(file).st_size == 4
        with fails(errno.EBADF):
            os.read(file, 1)
    with opened("link", os.O_WRONLY | os.O_TRUNC):
        pass
    assert read("file") == b""
    with opened("file", os.O_RDWR | os.O_APPEND) as file:
        os.write(file, b"one")
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, b"two")
        assert os.pread(file, 100, 0) == b"onetwo"


def symbolic_links_hold_any_target() -> None:
    for number, target in enumerate(["file", "/", "../..", "nowhere/at all", "x" * 4095, "sp ace\n", b"\xff\xfe"]):
        os.symlink(target, f"link{number}" if isinstance(target, str) else f"link{number}".encode())
        found = os.readlink(os.fsencode(f"link{number}"))
        assert found == os.fsencode(target)
        assert os.lstat(f"link{number}").st_size == len(found)
    os.symlink("loop2", "loop1")
    os.symlink("loop1", "loop2")
    with fails(errno.ELOOP):
        os.stat("loop1")
    with fails(errno.EINVAL):
        write("file")
        os.readlink("file")
    with fails(errno.ENOENT):
        os.symlink("", "empty")
    write("link0", b"through the link")
    assert read("file") == b"through the link"


def names_are_any_bytes_but_slash_and_nul() -> None:
    names = [bytes([byte]) * 4 for byte in range(1, 256) if byte != ord("/")]
    names += [b"...", b" ", b"-rf", b"\n", b"a\tb", b"\xff\xfe\xfd", "ÄÖÜ🦀".encode(), b"x" * 255, b"a:b", b"%s"]
    for name in names:
        write(name, name)
    assert sorted(os.listdir(b".")) == sorted(names)
    for name in names:
        assert read(name) == name
        os.rename(name, name[:-1] + b"~")
        os.rename(name[:-1] + b"~", name)
    with fails(errno.ENAMETOOLONG):
        write(b"x" * 256)
    with fails(errno.ENAMETOOLONG):
        os.stat(b"y" * 256)
    for name in names:
        os.unlink(name)
    assert os.listdir() == []


def folders_can_be_deep() -> None:
    depth = 300
    for _ in range(depth):
        os.mkdir("a-folder-with-a-name-of-some-length")
        os.chdir("a-folder-with-a-name-of-some-length")
    write("bottom", b"text")
    assert read("bottom") == b"text"
    for _ in range(depth):
        os.chdir("..")
    assert os.listdir() == ["a-folder-with-a-name-of-some-length"]
    count = sum(len(files) for _, _, files, _ in os.fwalk("."))
    assert count == 1
    subprocess.run(["rm", "-r", "a-folder-with-a-name-of-some-length"], check=True)


def a_thousand_names_in_a_folder() -> None:
    os.mkdir("folder")
    names = {f"file number {number}" for number in range(1000)}
    for name in names:
        os.close(os.open(f"folder/{name}", os.O_CREAT | os.O_WRONLY))
    found = os.listdir("folder")
    assert len(found) == len(set(found))
    assert set(found) == names
    with os.scandir("folder") as entries:
        assert sum(entry.is_file(follow_symlinks=False) for entry in entries) == 1000
    # What is removed while a listing goes on takes nothing else out of it.
    seen = set()
    with os.scandir("folder") as entries:
        for count, entry in enumerate(entries):
            seen.add(entry.name)
            if count % 3 == 0:
                os.unlink(f"folder/{entry.name}")
    assert seen == names
    assert len(os.listdir("folder")) == 1000 - 334
    subprocess.run(["rm", "-r", "folder"], check=True)


def listings_tell_types_and_inodes() -> None:
    write("file")
    os.mkdir("folder")
    os.symlink("file", "link")
    os.mkfifo("fifo")
    with os.scandir() as entries:
        found = {entry.name: entry for entry in entries}
    assert set(found) == {"file", "folder", "link", "fifo"}
    assert found["file"].is_file(follow_symlinks=False)
    assert found["folder"].is_dir(follow_symlinks=False)
    assert found["link"].is_symlink()
    for name, entry in found.items():
        assert entry.inode() == os.lstat(name).st_ino, name


def listings_can_be_left_and_resumed() -> None:
    for number in range(1000):
        os.mknod(f"file{number}")
    libc = ctypes.CDLL(None, use_errno=True)
    for function in (libc.opendir, libc.readdir):
        function.restype = ctypes.c_void_p
    libc.telldir.restype = ctypes.c_long
    folder = ctypes.c_void_p(libc.opendir(b"."))

    def rest() -> Iterator[tuple[int, bytes]]:
        while True:
            position = libc.telldir(folder)
            entry = libc.readdir(folder)
            if not entry:
                return
            yield position, ctypes.string_at(entry + 19)

    everything = list(rest())
    assert len(everything) == 1002
    for start in (900, 3, 777, 1001):
        libc.seekdir(folder, ctypes.c_long(everything[start][0]))
        assert [name for _, name in rest()] == [name for _, name in everything[start:]]
    libc.rewinddir(folder)
    assert len(list(rest())) == 1002
    libc.closedir(folder)


# Contents

def reads_and_writes_of_every_size_and_place() -> None:
    generator = random.Random(1)
    expected = bytearray()
    with opened("file", os.O_RDWR | os.O_CREAT) as file:
        for _ in range(120):
            size = generator.choice([1, 7, 511, 4095, 4096, 4097, 65536, 131072 + 13, 1 << 20])
            offset = generator.randrange(0, 3 << 20)
            data = generator.randbytes(size)
            if generator.random() < 0.5:
                expected.extend(bytes(max(0, offset + size - len(expected))))
                expected[offset:offset + size] = data
                assert os.pwritev(file, [data[:5], data[5:]], offset) == size
            else:
                buffers = [bytearray(3), bytearray(size)]
                count = os.preadv(file, buffers, offset)
                assert b"".join(buffers)[:count] == expected[offset:offset + size + 3]
    assert read("file") == expected


def files_beyond_four_gibibytes() -> None:
    with opened("file", os.O_RDWR | os.O_CREAT) as file:
        try:
            os.pwrite(file, b"far", 5 << 30)
        except OSError as error:
            if error.errno == errno.EFBIG:
                raise Skipped("the file system has no large files") from error
            raise
        os.pwrite(file, b"border", (4 << 30) - 3)
        assert os.fstat(file).st_size == (5 << 30) + 3
        assert os.fstat(file).st_blocks < 2000
        assert os.pread(file, 10, 5 << 30) == b"far"
        assert os.pread(file, 10, (4 << 30) - 5) == b"\0\0border\0\0"
        os.ftruncate(file, (4 << 30) + 1)
        assert os.stat("file").st_size == (4 << 30) + 1
        assert os.pread(file, 10, 4 << 30) == b"d"


def truncation_leaves_zeros_and_no_old_data() -> None:
    write("file", b"x" * 10000)
    os.truncate("file", 5000)
    os.truncate("file", 20000)
    assert read("file") == b"x" * 5000 + bytes(15000)
    os.truncate("file", 0)
    os.truncate("file", 100)
    assert read("file") == bytes(100)
    with fails(errno.EINVAL):
        os.truncate("file", -1)
    with fails(errno.EISDIR):
        os.truncate(".", 0)


def holes_are_holes() -> None:
    mebi = 1 << 20
    with opened("file", os.O_RDWR | os.O_CREAT) as file:
        os.pwrite(file, b"x" * mebi, 8 * mebi)
        os.ftruncate(file, 20 * mebi)
        os.fsync(file)
        if os.fstat(file).st_blocks * 512 >= 20 * mebi:
            raise Skipped("the file system has no holes")
        assert os.lseek(file, 0, os.SEEK_DATA) == 8 * mebi
        assert os.lseek(file, 8 * mebi, os.SEEK_HOLE) == 9 * mebi
        assert os.lseek(file, 0, os.SEEK_HOLE) == 0
        assert os.lseek(file, 10 * mebi, os.SEEK_HOLE) == 10 * mebi
        with fails(errno.ENXIO):
            os.lseek(file, 10 * mebi, os.SEEK_DATA)
        with fails(errno.ENXIO):
            os.lseek(file, 21 * mebi, os.SEEK_HOLE)
        linux.fallocate(file, linux.FALLOC_PUNCH_HOLE | linux.FALLOC_KEEP_SIZE, 8 * mebi, mebi // 2)
        os.fsync(file)
        assert os.lseek(file, 0, os.SEEK_DATA) == 8 * mebi + mebi // 2
        assert os.pread(file, 4, 8 * mebi) == bytes(4)
        assert os.fstat(file).st_size == 20 * mebi
    subprocess.run(["cp", "--sparse=always", "file", "copy"], check=True)
    assert os.stat("copy").st_blocks * 512 <= mebi
    subprocess.run(["cmp", "file", "copy"], check=True)


def space_can_be_allocated() -> None:
    with opened("file", os.O_RDWR | os.O_CREAT) as file:
        linux.fallocate(file, 0, 0, 1 << 20)
        assert os.fstat(file).st_size == 1 << 20
        linux.fallocate(file, linux.FALLOC_KEEP_SIZE, 1 << 20, 1 << 20)
        info = os.fstat(file)
        assert info.st_size == 1 << 20
        assert info.st_blocks * 512 >= 2 << 20
        os.pwrite(file, b"x" * 8192, 0)
        try:
            linux.fallocate(file, linux.FALLOC_ZERO_RANGE, 1000, 5000)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
        else:
            assert os.pread(file, 8192, 0) == b"x" * 1000 + bytes(5000) + b"x" * 2192
        for mode in (linux.FALLOC_COLLAPSE_RANGE, linux.FALLOC_INSERT_RANGE):
            with fails(errno.EOPNOTSUPP, errno.EINVAL):
                linux.fallocate(file, mode, 100, 100)


def files_without_a_name_can_get_one() -> None:
    try:
        file = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise Skipped("the file system has no O_TMPFILE") from error
        raise
    os.write(file, b"text")
    assert os.listdir() == []
    assert os.fstat(file).st_nlink == 0
    linux.link_open(file, "named")
    os.close(file)
    assert read("named") == b"text"
    assert _mode("named") == 0o640
    assert os.stat("named").st_nlink == 1
    with opened(".", os.O_TMPFILE | os.O_RDWR | os.O_EXCL) as never, fails(errno.ENOENT):
        linux.link_open(never, "second")


def shared_mappings_are_the_file() -> None:
    try:
        write("file", b"x" * 10000)
        with opened("file") as file:
            one = mmap.mmap(file, 10000)
            two = mmap.mmap(file, 10000)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise Skipped("no shared mappings here") from error
        raise
    one[5000:5004] = b"text"
    assert two[4999:5005] == b"xtextx"
    with opened("file") as file:
        assert os.pread(file, 6, 4999) == b"xtextx"
        os.pwrite(file, b"TEXT", 5000)
        assert one[4999:5005] == b"xTEXTx"
    one[0:3] = b"end"
    one.flush()
    os.unlink("file")
    one[9997:] = b"fin"
    assert two[9997:] == b"fin"
    one.close()
    two.close()


def what_a_mapping_wrote_is_in_the_file_when_it_is_gone() -> None:
    write("file", bytes(100_000))
    try:
        with opened("file") as file, mmap.mmap(file, 100_000) as mapping:
            for position in range(0, 100_000, 1000):
                mapping[position] = 1 + position // 1000
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise Skipped("no shared mappings here") from error
        raise
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3")
    found = read("file")
    assert all(found[position] == 1 + position // 1000 for position in range(0, 100_000, 1000))


def private_mappings_are_not_the_file() -> None:
    write("file", b"x" * 5000)
    with opened("file", os.O_RDONLY) as file:
        mapping = mmap.mmap(file, 5000, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    mapping[0:4] = b"mine"
    assert read("file") == b"x" * 5000
    assert mapping[:6] == b"minexx"


def reading_a_mapping_beyond_the_end_is_a_bus_error() -> None:
    write("file", b"x" * 100)
    with opened("file", os.O_RDONLY) as file:
        mapping = mmap.mmap(file, 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
        longer = ctypes.CDLL(None, use_errno=True)
        longer.mmap.restype = ctypes.c_void_p
        address = longer.mmap(None, ctypes.c_size_t(8192), 1, 2, file, ctypes.c_long(0))
    assert mapping[:] == b"x" * 100
    assert ctypes.string_at(address, 110) == b"x" * 100 + bytes(10)
    process = os.fork()
    if process == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.string_at(address + 4096, 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGBUS


def programs_run_and_cannot_be_written_meanwhile() -> None:
    subprocess.run(["cp", "/bin/sleep", "program"], check=True)
    write("script", b"#!/bin/sh\necho $0 $1\n", mode=0o755)
    assert subprocess.run(["./script", "word"], capture_output=True, check=True).stdout == b"./script word\n"
    process = subprocess.Popen(["./program", "60"])
    try:
        deadline = time.monotonic() + 30
        while not os.readlink(f"/proc/{process.pid}/exe").endswith("/program"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with fails(errno.ETXTBSY):
            os.open("program", os.O_WRONLY)
    finally:
        process.kill()
        process.wait()


def copies_within_the_kernel() -> None:
    data = random.Random(2).randbytes(3 << 20)
    write("source", data)
    with opened("source", os.O_RDONLY) as source, opened("copy", os.O_RDWR | os.O_CREAT) as target:
        left = len(data)
        while left:
            count = os.copy_file_range(source, target, left)
            assert count > 0
            left -= count
        assert os.copy_file_range(source, target, 10) == 0
        assert os.copy_file_range(source, target, 5, 1, 0) == 5
    assert read("copy") == data[1:6] + data[5:]
    with opened("source", os.O_RDONLY) as source, opened("sent", os.O_WRONLY | os.O_CREAT) as target:
        while os.sendfile(target, source, None, 1 << 20):
            pass
    assert read("sent") == data
    with opened("source", os.O_RDONLY) as source, opened("spliced", os.O_WRONLY | os.O_CREAT) as target:
        reader, writer = os.pipe()
        while count := os.splice(source, writer, 65536):
            while count:
                count -= os.splice(reader, target, count)
    assert read("spliced") == data


def appenders_do_not_overwrite_each_other() -> None:
    def append(letter: bytes) -> None:
        with opened("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
            for number in range(200):
                os.write(file, letter * (20 + number % 7) + b"\n")

    done(*[child(lambda letter=letter: append(letter)) for letter in (b"a", b"b", b"c", b"d")])
    lines = read("log").splitlines()
    assert len(lines) == 800
    assert all(len(set(line)) == 1 for line in lines)
    for letter in b"abcd":
        assert [len(line) for line in lines if line[0] == letter] == [20 + number % 7 for number in range(200)]


def one_of_many_creates_exclusively() -> None:
    def create() -> None:
        wins = 0
        for number in range(100):
            try:
                os.close(os.open(f"lock{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                wins += 1
            except FileExistsError:
                pass
        with opened("wins", os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
            os.write(file, f"{wins}\n".encode())

    done(*[child(create) for _ in range(6)])
    assert sum(map(int, read("wins").split())) == 100


def many_processes_in_one_folder() -> None:
    def churn(letter: str) -> None:
        generator = random.Random(letter)
        mine: dict[str, bytes] = {}
        for step in range(150):
            name = f"{letter}{generator.randrange(20)}"
            match generator.randrange(4):
                case 0 | 1:
                    mine[name] = f"{letter} {step}".encode()
                    write(name, mine[name])
                case 2 if name in mine:
                    other = f"{letter}{generator.randrange(20)}"
                    os.rename(name, other)
                    mine[other] = mine.pop(name)
                case 3 if name in mine:
                    os.unlink(name)
                    mine.pop(name)
        assert {name for name in os.listdir() if name[0] == letter} == set(mine)
        for name, content in mine.items():
            assert read(name) == content

    done(*[child(lambda letter=letter: churn(letter)) for letter in "abcdef"])


def a_thousand_files_open_at_once() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    count = min(1000, hard - 50)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    files = [os.open(f"file{number}", os.O_RDWR | os.O_CREAT) for number in range(count)]
    for number, file in enumerate(files):
        os.write(file, f"{number}".encode())
    for number, file in enumerate(files):
        assert os.pread(file, 100, 0) == f"{number}".encode()
        os.close(file)
    for number in range(count):
        os.unlink(f"file{number}")


def what_the_cache_forgets_is_still_there() -> None:
    os.mkdir("folder")
    for number in range(200):
        write(f"folder/file{number}", f"{number}")
    os.mkdir("folder/below")
    with opened("folder/file7") as file, opened("folder/below", os.O_RDONLY) as below:
        os.unlink("folder/file7")
        for _ in range(3):
            with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as caches:
                caches.write("3")
            assert os.pread(file, 10, 0) == b"7"
            assert os.stat("..", dir_fd=below).st_ino == os.stat("folder").st_ino
            for number in range(8, 200, 20):
                assert read(f"folder/file{number}") == f"{number}".encode()
        os.pwrite(file, b"8", 0)
        assert os.pread(file, 10, 0) == b"8"


def syncing_succeeds_on_files_and_folders() -> None:
    with opened("file", os.O_RDWR | os.O_CREAT) as file:
        os.write(file, b"text")
        os.fdatasync(file)
        os.fsync(file)
        linux.syncfs(file)
    with opened(".", os.O_RDONLY) as folder:
        os.fsync(folder)
        linux.syncfs(folder)
    with opened("synced", os.O_WRONLY | os.O_CREAT | os.O_SYNC) as file:
        os.write(file, b"text")
    os.sync()


# Times and other attributes

def times_are_kept_to_the_nanosecond() -> None:
    write("file")
    os.mkdir("folder")
    os.symlink("file", "link")
    for path in ("file", "folder", "link"):
        for atime, mtime in ((1, 2), (SECOND + 123456789, 2**31 * SECOND + 987654321), (0, SECOND * 4_000_000_000 + 1)):
            os.utime(path, ns=(atime, mtime), follow_symlinks=False)
            info = os.lstat(path)
            assert (info.st_atime_ns, info.st_mtime_ns) == (atime, mtime), path
    os.utime("file", ns=(-5 * SECOND + 1, -SECOND))
    assert (os.stat("file").st_atime_ns, os.stat("file").st_mtime_ns) == (-5 * SECOND + 1, -SECOND)
    os.utime("file")
    assert abs(os.stat("file").st_mtime - time.time()) < 60


def times_can_be_set_one_by_one() -> None:
    omit, now = (1 << 30) - 2, (1 << 30) - 1

    def utimens(atime: tuple[int, int], mtime: tuple[int, int]) -> None:
        linux.call("utimensat", linux.AT_FDCWD, b"file", (ctypes.c_long * 4)(*atime, *mtime), 0)

    write("file")
    os.utime("file", ns=(SECOND, SECOND))
    utimens((0, omit), (7, 8))
    assert (os.stat("file").st_atime_ns, os.stat("file").st_mtime_ns) == (SECOND, 7 * SECOND + 8)
    utimens((3, 4), (0, omit))
    assert (os.stat("file").st_atime_ns, os.stat("file").st_mtime_ns) == (3 * SECOND + 4, 7 * SECOND + 8)
    utimens((0, now), (0, omit))
    assert os.stat("file").st_mtime_ns == 7 * SECOND + 8
    assert abs(os.stat("file").st_atime - time.time()) < 60


def times_move_when_something_changes() -> None:
    os.mkdir("folder")
    write("folder/file", b"x")

    def moved(path: str, what: str) -> bool:
        return bool(getattr(os.stat(path), f"st_{what}_ns") > 10 * SECOND)

    def reset() -> None:
        for path in ("folder/file", "folder"):
            os.utime(path, ns=(SECOND, SECOND))
        time.sleep(0.02)

    reset()
    with opened("folder/file") as file:
        os.write(file, b"y")
        assert moved("folder/file", "mtime")
    assert not moved("folder", "mtime")
    reset()
    os.truncate("folder/file", 10)
    assert moved("folder/file", "mtime")
    reset()
    before = os.stat("folder/file").st_ctime_ns
    os.chmod("folder/file", 0o600)
    assert os.stat("folder/file").st_ctime_ns > before
    assert not moved("folder/file", "mtime")
    for change in (lambda: write("folder/new"), lambda: os.rename("folder/new", "folder/other"),
                   lambda: os.unlink("folder/other"), lambda: os.mkdir("folder/below")):
        reset()
        change()
        assert moved("folder", "mtime")
    assert os.stat("folder").st_nlink in (1, 3)


def birth_times_are_told() -> None:
    write("file", b"x")
    first = Statx("file")
    if not first.mask & linux.STATX_BTIME:
        raise Skipped("the file system keeps no birth times")
    assert abs(first.btime / SECOND - time.time()) < 60
    time.sleep(0.02)
    write("file", b"y")
    os.chmod("file", 0o600)
    second = Statx("file")
    assert second.btime == first.btime
    assert second.ctime > first.ctime
    with opened("file") as file:
        assert Statx("", descriptor=file).btime == first.btime
    assert Statx("file", linux.STATX_BASIC).size == 1
    assert subprocess.run(["stat", "-c", "%W", "file"], capture_output=True, check=True).stdout.strip() != b"0"


def stat_and_statx_agree() -> None:
    write("file", b"x" * 5000, mode=0o640)
    os.chown("file", 5, 6)
    one, two = os.stat("file"), Statx("file")
    for field in ("ino", "mode", "nlink", "uid", "gid", "size", "blocks"):
        assert getattr(one, f"st_{field}") == getattr(two, field), field
    assert (one.st_atime_ns, one.st_mtime_ns, one.st_ctime_ns) == (two.atime, two.mtime, two.ctime)


def the_file_system_tells_its_size() -> None:
    info = os.statvfs(".")
    assert info.f_blocks > info.f_bfree > 0
    assert info.f_namemax == 255
    assert info.f_files == 0 or info.f_ffree > 0
    with opened(".", os.O_RDONLY) as folder:
        assert os.fstatvfs(folder).f_blocks == info.f_blocks


# What lives in the guest alone

def fifos_connect_processes() -> None:
    os.mkfifo("fifo", 0o600)
    assert stat.S_ISFIFO(os.lstat("fifo").st_mode)
    process = child(lambda: write("fifo", b"through the fifo"))
    assert read("fifo") == b"through the fifo"
    done(process)
    with fails(errno.ENXIO):
        os.open("fifo", os.O_WRONLY | os.O_NONBLOCK)


def sockets_connect_processes() -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        server.listen()
        assert stat.S_ISSOCK(os.lstat("socket").st_mode)

        def talk() -> None:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect("socket")
                client.sendall(b"hello")

        process = child(talk)
        connection, _ = server.accept()
        with connection:
            assert connection.recv(100) == b"hello"
        done(process)
    with fails(errno.ENXIO):
        os.open("socket", os.O_RDWR)
    with fails(errno.ECONNREFUSED), socket.socket(socket.AF_UNIX) as client:
        client.connect("socket")


def device_nodes_are_devices() -> None:
    os.mknod("null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod("zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    os.mknod("big", 0o600 | stat.S_IFBLK, os.makedev(259, 70000))
    assert os.stat("null").st_rdev == os.makedev(1, 3)
    assert os.stat("big").st_rdev == os.makedev(259, 70000)
    with opened("null") as null:
        assert os.write(null, b"gone") == 4
        assert os.read(null, 10) == b""
    with opened("zero") as zero:
        assert os.read(zero, 10) == bytes(10)

    def try_it() -> None:
        with fails(errno.EPERM):
            os.mknod("mine", 0o666 | stat.S_IFCHR, os.makedev(1, 3))

    as_nobody(try_it)


def watchers_are_told_of_changes() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    watcher = libc.inotify_init1(0)
    assert libc.inotify_add_watch(watcher, b".", 0x100 | 0x200 | 0x80) > 0
    write("file")
    os.rename("file", "other")
    os.unlink("other")
    assert select.select([watcher], [], [], 10)[0]
    events = b""
    while select.select([watcher], [], [], 0.2)[0]:
        events += os.read(watcher, 65536)
    assert events.count(b"other") == 2
    assert events.count(b"file") == 1


def files_can_be_opened_by_handle() -> None:
    os.mkdir("folder")
    write("folder/file", b"text")
    handle = ctypes.create_string_buffer(136)
    handle[:4] = (128).to_bytes(4, "little")
    mount = ctypes.c_int()
    linux.call("name_to_handle_at", linux.AT_FDCWD, b"folder/file", handle, ctypes.byref(mount), 0)
    with opened(".", os.O_RDONLY | os.O_DIRECTORY) as here:
        file = linux.call("open_by_handle_at", here, handle, os.O_RDONLY)
        assert os.read(file, 10) == b"text"
        os.close(file)
        os.unlink("folder/file")
        with fails(errno.ESTALE):
            linux.call("open_by_handle_at", here, handle, os.O_RDONLY)


# Locks among the processes of one guest

def flock_excludes_other_processes() -> None:
    write("file")
    with opened("file") as one, opened("file") as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        with fails(errno.EWOULDBLOCK):
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(one, fcntl.LOCK_SH)
        fcntl.flock(two, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(one, fcntl.LOCK_UN)
        fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)


def posix_locks_exclude_other_processes() -> None:
    write("file", bytes(100))
    with opened("file") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 10, 20)

        def try_it() -> None:
            with opened("file") as other:
                with fails(errno.EAGAIN, errno.EACCES):
                    fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 29)
                fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 30)
                fcntl.lockf(other, fcntl.LOCK_SH | fcntl.LOCK_NB, 10, 0)

        done(child(try_it))
        os.close(os.open("file", os.O_RDONLY))  # which gives all locks of this process up
        done(child(lambda: fcntl.lockf(os.open("file", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)))


def a_waiting_lock_is_granted_when_its_holder_is_killed() -> None:
    write("file")
    for lock in (fcntl.flock, fcntl.lockf):
        ready, holding = os.pipe()

        def hold(lock=lock, holding=holding) -> None:
            file = os.open("file", os.O_RDWR)
            lock(file, fcntl.LOCK_EX)
            os.write(holding, b"x")
            time.sleep(600)

        holder = child(hold)
        os.read(ready, 1)
        waiter = child(lambda lock=lock: lock(os.open("file", os.O_RDWR), fcntl.LOCK_EX))
        time.sleep(0.3)
        assert os.waitpid(waiter, os.WNOHANG) == (0, 0)
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        done(waiter)


def counters_under_a_lock_lose_nothing() -> None:
    write("counter", b"0")

    def count() -> None:
        for _ in range(60):
            with opened("counter") as file:
                fcntl.lockf(file, fcntl.LOCK_EX)
                value = int(os.pread(file, 20, 0))
                os.pwrite(file, b"%d" % (value + 1), 0)

    done(*[child(count) for _ in range(4)])
    assert read("counter") == b"240"
