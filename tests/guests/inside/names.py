"""What POSIX and Linux promise about names, links, renaming, removing and listing, whoever serves the files."""

import ctypes
import errno
import os
import stat
import subprocess
from collections.abc import Iterator

import linux
from linux import GROUP, NOBODY, Skipped, fails, mode_of, opened, read, write

SECOND = 10**9


def hard_links_are_one_file() -> None:
    os.mkdir("folder")
    write("one", b"text")
    os.link("one", "folder/two")
    one, two = os.stat("one"), os.stat("folder/two")
    assert (one.st_ino, one.st_dev, one.st_nlink) == (two.st_ino, two.st_dev, 2)
    write("folder/two", b"other text")
    assert read("one") == b"other text"
    os.chmod("one", 0o604)
    assert mode_of("folder/two") == 0o604
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
