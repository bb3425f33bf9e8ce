"""What Linux promises about extended attributes, POSIX access control lists, and flags of files."""

import errno
import fcntl
import os
import stat
import subprocess

import linux
from linux import GROUP, NOBODY, OTHER_GROUP, Skipped, as_nobody, fails, mode_of, opened, read, write


def _run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def attributes_can_be_set_read_listed_and_removed() -> None:
    write("file")
    os.mkdir("folder")
    for path in ("file", "folder"):
        os.setxattr(path, "user.one", b"1")
        os.setxattr(path, "user.two", b"\0binary\xff")
        os.setxattr(path, "user.empty", b"")
        assert sorted(name for name in os.listxattr(path) if name.startswith("user.")) == \
            ["user.empty", "user.one", "user.two"]
        assert os.getxattr(path, "user.two") == b"\0binary\xff"
        os.setxattr(path, "user.one", b"another", os.XATTR_REPLACE)
        assert os.getxattr(path, "user.one") == b"another"
        with fails(errno.EEXIST):
            os.setxattr(path, "user.one", b"x", os.XATTR_CREATE)
        with fails(errno.ENODATA):
            os.setxattr(path, "user.three", b"x", os.XATTR_REPLACE)
        os.removexattr(path, "user.one")
        with fails(errno.ENODATA):
            os.getxattr(path, "user.one")
        with fails(errno.ENODATA):
            os.removexattr(path, "user.one")


def attributes_belong_to_open_files_too() -> None:
    write("file")
    with opened("file") as file:
        os.setxattr(file, "user.name", b"value")
        os.unlink("file")
        assert os.getxattr(file, "user.name") == b"value"


def attributes_have_their_sizes() -> None:
    write("file")
    os.setxattr("file", "user.large", b"x" * 3000)
    assert os.getxattr("file", "user.large") == b"x" * 3000
    with fails(errno.ERANGE):
        os.setxattr("file", "user." + "n" * 251, b"x")
    os.setxattr("file", "user." + "n" * 250, b"x")
    with fails(errno.E2BIG):
        os.setxattr("file", "user.huge", b"x" * 65537)
    with fails(errno.EOPNOTSUPP):
        os.setxattr("file", "nonsense.name", b"x")


def attributes_follow_permissions() -> None:
    write("file", mode=0o644)
    os.setxattr("file", "user.name", b"value")
    os.setxattr("file", "trusted.name", b"secret")
    os.symlink("file", "link")
    with fails(errno.EPERM):
        os.setxattr("link", "user.name", b"x", follow_symlinks=False)

    def try_it() -> None:
        assert os.getxattr("file", "user.name") == b"value"
        with fails(errno.EACCES):
            os.setxattr("file", "user.name", b"x")
        with fails(errno.ENODATA, errno.EPERM):
            os.getxattr("file", "trusted.name")

    as_nobody(try_it)
    assert os.getxattr("file", "trusted.name") == b"secret"


def an_access_list_grants_and_denies() -> None:
    write("file", b"text", mode=0o600)
    _run("setfacl", "-m", f"u:{NOBODY}:rw,g:{OTHER_GROUP}:r", "file")

    def theirs() -> None:
        assert read("file") == b"text"
        write("file", b"more")

    as_nobody(theirs)
    _run("setfacl", "-m", f"u:{NOBODY}:-", "file")

    def denied() -> None:
        with fails(errno.EACCES):
            read("file")

    as_nobody(denied)
    as_nobody(denied, groups=(OTHER_GROUP,))
    _run("setfacl", "-x", f"u:{NOBODY}", "file")
    as_nobody(lambda: read("file"), groups=(OTHER_GROUP,))
    assert f"group:{OTHER_GROUP}:r--" in _run("getfacl", "-n", "file")
    _run("setfacl", "-b", "file")
    as_nobody(denied, groups=(OTHER_GROUP,))


def mode_and_access_list_are_one() -> None:
    write("file", mode=0o640)
    _run("setfacl", "-m", f"u:{NOBODY}:rwx", "file")
    assert mode_of("file") == 0o670
    os.chmod("file", 0o640)
    assert "mask::r--" in _run("getfacl", "-n", "file")
    assert f"user:{NOBODY}:rwx" in _run("getfacl", "-n", "file")
    _run("setfacl", "-m", "u::rwx,o::x", "file")
    assert mode_of("file") & 0o707 == 0o701


def a_default_list_is_handed_down_and_the_umask_is_not_used() -> None:
    os.mkdir("folder")
    os.chmod("folder", 0o777)
    _run("setfacl", "-d", "-m", f"u::rwx,g::rx,o::r,u:{NOBODY}:rwx,m::rwx", "folder")

    def make() -> None:
        os.umask(0o077)
        os.close(os.open("folder/file", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir("folder/below", 0o777)
        os.mkfifo("folder/fifo", 0o660)

    as_nobody(make)
    assert mode_of("folder/file") == 0o664
    assert f"user:{NOBODY}:rwx" in _run("getfacl", "-n", "folder/file")
    assert mode_of("folder/fifo") == 0o660
    below = _run("getfacl", "-n", "folder/below")
    assert f"default:user:{NOBODY}:rwx" in below
    assert f"\nuser:{NOBODY}:rwx" in below
    assert mode_of("folder/below") == 0o774


def setting_a_list_can_take_the_set_gid_bit_away() -> None:
    write("file", mode=0o2755)
    os.chown("file", NOBODY, OTHER_GROUP)
    os.chmod("file", 0o2755)
    as_nobody(lambda: _run("setfacl", "-m", f"u:{GROUP}:r", "file") and None)
    assert not os.stat("file").st_mode & stat.S_ISGID


def copies_keep_attributes_and_lists() -> None:
    write("file", b"text", mode=0o640)
    os.setxattr("file", "user.name", b"value")
    _run("setfacl", "-m", f"u:{NOBODY}:rw", "file")
    _run("cp", "-a", "file", "copy")
    assert os.getxattr("copy", "user.name") == b"value"
    assert _run("getfacl", "-nc", "copy") == _run("getfacl", "-nc", "file")
    os.mkdir("unpacked")
    _run("tar", "--xattrs", "--acls", "-cf", "archive", "file")
    _run("tar", "--xattrs", "--acls", "-xf", "archive", "-C", "unpacked")
    assert os.getxattr("unpacked/file", "user.name") == b"value"
    assert _run("getfacl", "-nc", "unpacked/file") == _run("getfacl", "-nc", "file")


def file_flags_can_be_seen_and_set() -> None:
    write("file", b"x")
    with opened("file", os.O_RDONLY) as file:
        try:
            before = int.from_bytes(fcntl.ioctl(file, linux.FS_IOC_GETFLAGS, bytes(8))[:4], "little")
            fcntl.ioctl(file, linux.FS_IOC_SETFLAGS, (before | linux.FS_NODUMP).to_bytes(8, "little"))
        except OSError as error:
            raise Skipped(f"the file system has no flags: {error}") from error
        found = int.from_bytes(fcntl.ioctl(file, linux.FS_IOC_GETFLAGS, bytes(8))[:4], "little")
        assert found & linux.FS_NODUMP
        assert len(fcntl.ioctl(file, linux.FS_IOC_FSGETXATTR, bytes(28))) == 28
    assert b"d" in subprocess.run(["lsattr", "file"], capture_output=True, check=True).stdout.split()[0]
    subprocess.run(["chattr", "+i", "file"], check=True)
    try:
        with fails(errno.EPERM):
            os.open("file", os.O_WRONLY)
        with fails(errno.EPERM):
            os.unlink("file")
        with fails(errno.EPERM):
            os.rename("file", "other")
    finally:
        subprocess.run(["chattr", "-i", "file"], check=True)
    with opened(".", os.O_RDONLY) as folder, fails(errno.ENOTTY):
        fcntl.ioctl(folder, 0x80086633, bytes(8))


def an_append_only_file_can_be_appended_to() -> None:
    write("file", b"x")
    if subprocess.run(["chattr", "+a", "file"], check=False).returncode:
        raise Skipped("the file system has no flags")
    try:
        with fails(errno.EPERM):
            os.truncate("file", 0)
        with fails(errno.EPERM):
            os.open("file", os.O_WRONLY)
        with opened("file", os.O_WRONLY | os.O_APPEND) as file:
            os.write(file, b"y")
        assert read("file") == b"xy"
    finally:
        subprocess.run(["chattr", "-a", "file"], check=True)


def _with_capabilities(name: str) -> None:
    write(name, mode=0o755)
    try:
        os.setxattr(name, "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    except OSError as error:
        raise Skipped(f"no file capabilities: {error}") from error


def a_write_takes_capabilities_away() -> None:
    _with_capabilities("program")
    with opened("program") as file:
        os.write(file, b"x")
    with fails(errno.ENODATA):
        os.getxattr("program", "security.capability")


def an_allocation_takes_capabilities_away() -> None:
    _with_capabilities("program")
    with opened("program") as file:
        linux.fallocate(file, 0, 0, 8192)
    with fails(errno.ENODATA):
        os.getxattr("program", "security.capability")
