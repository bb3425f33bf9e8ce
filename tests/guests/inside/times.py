"""What POSIX and Linux promise about times and attributes, whoever serves the files."""

import ctypes
import os
import subprocess
import time

import linux
from linux import Skipped, Statx, opened, write

SECOND = 10**9


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
