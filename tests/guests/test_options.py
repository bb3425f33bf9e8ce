"""What options of the daemon do for guests: names of attributes, ids, fake root, access times, few descriptors."""

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest.boot import Kernel
from tests.guests.conftest import GetPlace, needs
from tests.guests.support import SLOW, USER, Place, Scene
from tests.running import LONG, SECONDS

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]

NOBODY = 12345


@pytest.fixture(params=["uml", pytest.param("qemu", marks=pytest.mark.skipif(not LONG, reason="long, with LONG=1"))])
def special(places: GetPlace, request: pytest.FixtureRequest) -> Place:
    """This test's place in the special laboratory of the faster guest; with LONG=1 of the other, too."""
    kernel: Kernel = request.param
    return places(kernel, "special")


def owner(path: Path) -> tuple[int, int]:
    return path.lstat().st_uid, path.lstat().st_gid


# Names of attributes

def test_attributes_have_other_names_on_the_host(special: Place) -> None:
    host = special.host("mapped")
    assert special.python("""
        import os
        os.close(os.open("file", os.O_CREAT))
        for name in ("user.one", "trusted.two", "security.three"):
            os.setxattr("file", name, name.encode())
        os.removexattr("file", "trusted.two")
        os.setxattr("file", "trusted.two", b"again", os.XATTR_CREATE)
        print(sorted(os.listxattr("file")), os.getxattr("file", "trusted.two"), os.getxattr("file", "security.three"))
    """, "mapped") == "['security.three', 'trusted.two', 'user.one'] b'again' b'security.three'\n"
    assert {name: os.getxattr(host / "file", name) for name in os.listxattr(host / "file")} == {
        "user.guest.user.one": b"user.one", "user.guest.trusted.two": b"again",
        "user.guest.security.three": b"security.three"}


def test_without_the_option_there_are_no_attributes(special: Place) -> None:
    os.close(os.open(special.host("bare") / "file", os.O_CREAT))
    assert "not supported" in special.fails("setfattr -n user.name -v value file", "bare")
    assert special.run("getfattr -d file; cp -a file copy; ls", "bare") == "copy\nfile\n"


LABEL = "security.selinux"


def test_new_files_have_the_label_that_the_guest_gives_them(scene: Scene) -> None:
    """SELinux without a policy gives every file the same one."""
    needs("qemu")
    with_labels = scene.share("with", "--security-label", "--modcaps=+sys_admin", mount="/run/with", tell_tag=False)
    without = scene.share("without", "--xattr", "--modcaps=+sys_admin", mount="/run/without", tell_tag=False)
    guest = scene.guest(with_labels, without, kernel_arguments="lsm=selinux")
    for tag in ("with", "without"):
        guest.run("echo text >file; mkdir folder; ln -s nowhere link; mkfifo fifo; mknod device c 1 3; ln file second",
                  folder=f"/run/{tag}", check=True)
        host = scene.daemons[tag].share
        assert len(list(host.iterdir())) == 6
        for path in host.iterdir():
            labels = [os.getxattr(path, name, follow_symlinks=False).rstrip(b"\0")
                      for name in os.listxattr(path, follow_symlinks=False) if name == LABEL]
            assert labels == ([b"unlabeled"] if tag == "with" else []), (path, labels)
    assert (scene.daemons["with"].share / "file").read_text() == "text\n"


# Ids

def test_ids_are_translated(special: Place) -> None:
    host = special.host("translated")
    for name, ids in (("mine", (100007, 200008)), ("roots", (100000, 200000)), ("free", (70000, 70001))):
        (host / name).touch()
        os.chown(host / name, *ids)
    os.chown(host, 100000, 200000)
    assert special.run("stat -c '%n %u %g' . mine roots free", "translated") == \
        ". 0 0\nmine 7 8\nroots 0 0\nfree 70000 70001\n"
    special.python(f"""
        import os
        os.umask(0)
        os.mkdir("open", 0o777)
        os.chown("mine", 17, 18)
        os.chown("roots", -1, 19)
        os.setgroups([{NOBODY + 1}])
        os.setgid({NOBODY})
        os.setuid({NOBODY})
        os.close(os.open("open/file", os.O_CREAT | os.O_WRONLY, 0o600))
        os.mkdir("open/folder")
        os.symlink("nowhere", "open/link")
        os.chown("open/file", -1, {NOBODY + 1})
        try:
            open("mine", "w")
        except PermissionError:
            pass
        else:
            raise AssertionError
    """, "translated")
    assert owner(host / "mine") == (100017, 200018)
    assert owner(host / "roots") == (100000, 200019)
    assert owner(host / "open/file") == (100000 + NOBODY, 200000 + NOBODY + 1)
    for name in ("folder", "link"):
        assert owner(host / "open" / name) == (100000 + NOBODY, 200000 + NOBODY)


def test_all_ids_can_be_one(special: Place) -> None:
    host = special.host("squashed")
    host.chmod(0o777)
    (host / "theirs").touch()
    os.chown(host / "theirs", 55, 66)
    special.python("import os\nos.setgid(5)\nos.setuid(7)\nos.mkdir('folder')\nopen('file', 'w')", "squashed")
    assert owner(host / "file") == owner(host / "folder") == (0, 0)
    assert special.run("stat -c '%n %u %g' theirs file", "squashed") == "theirs 7 8\nfile 7 8\n"


MAPPED_MOUNT = """
    import ctypes, os, struct, sys
    sys.path.append("/run/inside")
    import linux
    OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
    AT_EMPTY_PATH, CLONE, IDMAP, CLONE_NEWUSER = 0x1000, 1, 0x100000, 0x10000000
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        linux.call("unshare", CLONE_NEWUSER)
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    for kind in ("uid", "gid"):
        with open(f"/proc/{child}/{kind}_map", "w") as file:
            file.write("0 50000 1000")
    namespace = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
    tree = linux.call("syscall", OPEN_TREE, linux.AT_FDCWD, os.getcwd().encode(), CLONE)
    attributes = struct.pack("QQQQ", IDMAP, 0, 0, namespace)
    linux.call("syscall", MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, attributes, len(attributes))
    os.makedirs("/tmp/mapped", exist_ok=True)
    linux.call("syscall", MOVE_MOUNT, tree, b"", linux.AT_FDCWD, b"/tmp/mapped", 4)
    os.write(go[1], b"x")
    try:
        os.umask(0)
        info = os.stat("/tmp/mapped/theirs")
        print(info.st_uid, info.st_gid)
        os.chown("/tmp/mapped/theirs", 50004, 50005)
        os.chmod("/tmp/mapped", 0o777)
        def make():
            open("/tmp/mapped/file", "w").write("text")
            os.mkdir("/tmp/mapped/folder")
            os.symlink("nowhere", "/tmp/mapped/link")
        linux.done(linux.child(make, 50006, 50007))
        print(os.stat("/tmp/mapped/file").st_uid, os.stat("file").st_uid)
        with linux.fails(linux.errno.EOVERFLOW):
            os.mkdir("/tmp/mapped/new")  # root has no id there
    finally:
        linux.call("umount2", b"/tmp/mapped", 2)
"""


def test_a_guest_can_mount_the_share_with_ids_mapped(place: Place) -> None:
    host = place.host()
    (host / "theirs").touch()
    os.chown(host / "theirs", 2, 3)
    assert place.python(MAPPED_MOUNT) == "50002 50003\n50006 6\n"
    assert owner(host / "theirs") == (4, 5)
    assert owner(host / "file") == owner(host / "folder") == owner(host / "link") == (6, 7)


# Daemons without privileges

FAKE = """
    import os, socket, stat
    os.umask(0)
    open("file", "w").write("text")
    os.chown("file", 5, 6)
    os.chmod("file", 0o4711)
    os.mkdir("folder", 0o1750)
    os.chown("folder", 7, 8)
    os.mknod("null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod("disk", 0o640 | stat.S_IFBLK, os.makedev(259, 70000))
    os.mkfifo("fifo", 0o622)
    socket.socket(socket.AF_UNIX).bind("socket")
    os.symlink("nowhere", "link")
    open("secret", "w").write("secret")
    os.chmod("secret", 0)
    assert open("secret").read() == "secret"
    assert os.read(os.open("null", os.O_RDONLY), 1) == b""
"""
FAKED = """disk 640 0 0 block special file 259 70000
fifo 622 0 0 fifo 0 0
file 4711 5 6 regular file 0 0
folder 1750 7 8 directory 0 0
null 600 0 0 character special file 1 3
secret 0 0 0 regular file 0 0
socket 777 0 0 socket 0 0
"""
OVERRIDDEN = {"disk": b"0:0:0640:block-259-70000", "fifo": b"0:0:0622:pipe", "file": b"5:6:4711:file",
              "folder": b"7:8:1750:dir", "null": b"0:0:0600:char-1-3", "secret": b"0:0:0000:file",
              "socket": b"0:0:0777:socket"}


def test_root_of_a_guest_is_fake_where_the_daemon_has_no_privileges(special: Place) -> None:
    host = special.host("faked")
    os.chown(host, USER, USER)
    special.python(FAKE, "faked")
    look = "for name in disk fifo file folder null secret socket; do "
    assert special.run(f"{look} stat -c '%n %a %u %g %F' $name | tr '\\n' ' '; "
                       "echo $((0x$(stat -c %t $name))) $((0x$(stat -c %T $name))); done", "faked") == FAKED
    assert {path.name: os.getxattr(path, "user.containers.override_stat") for path in host.iterdir()
            if not path.is_symlink()} == OVERRIDDEN
    for path in host.iterdir():
        assert owner(path) == (USER, USER)
        assert path.is_symlink() or stat.S_IFMT(path.stat().st_mode) == (
            stat.S_IFDIR if path.name == "folder" else stat.S_IFREG)
        assert not path.lstat().st_mode & 0o7000
    # The guest knows nothing of it but what it shows.
    assert special.run("getfattr -d -m - file folder", "faked") == ""
    special.python("""
        import os, sys
        sys.path.append("/run/inside")
        import errno, linux
        def theirs():
            with linux.fails(errno.EACCES):
                open("secret")
            with linux.fails(errno.EACCES):
                os.listdir("folder")
        linux.as_nobody(theirs)
        linux.done(linux.child(lambda: os.listdir("folder"), 7, 9))
        os.rename("null", "folder/null")
        os.link("file", "second")
        assert os.stat("second").st_uid == 5
        os.unlink("file")
    """, "faked")
    assert os.getxattr(host / "folder/null", "user.containers.override_stat") == b"0:0:0600:char-1-3"


def test_a_daemon_in_a_user_namespace_has_one_id(special: Place) -> None:
    host = special.host("confined")
    os.chown(host, USER, USER)
    special.python(f"""
        import errno, os, stat, sys
        sys.path.append("/run/inside")
        import linux
        os.umask(0)
        os.mkdir("folder", 0o777)
        open("folder/file", "w").write("text" * 10000)
        os.symlink("file", "folder/link")
        os.link("folder/file", "folder/second")
        os.rename("folder/second", "folder/other")
        os.mkfifo("fifo")
        os.chmod("folder/file", 0o4755)
        assert (os.stat("folder/file").st_uid, os.stat(".").st_gid) == ({USER}, {USER})
        assert open("folder/other").read() == "text" * 10000
        with linux.fails(errno.EPERM, errno.EINVAL, errno.EOVERFLOW):
            os.chown("folder/file", {NOBODY}, {NOBODY})
        with linux.fails(errno.EPERM):
            os.mknod("device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        def theirs():
            assert open("folder/file").read(4) == "text"
            with linux.fails(errno.EPERM, errno.EINVAL, errno.EOVERFLOW):
                open("folder/new", "w")
        linux.as_nobody(theirs)
        assert sorted(os.listdir("folder")) == ["file", "link", "other"]
    """, "confined")
    for path in (host / "folder", host / "folder/file", host / "folder/link", host / "fifo"):
        assert owner(path) == (USER, USER)


# Access times

@pytest.mark.parametrize(("laboratory", "tag", "kept"), [("special", "access", True), ("usual", "plain", False)])
def test_a_guest_can_leave_access_times_alone(places: GetPlace, laboratory: str, tag: str, kept: bool) -> None:
    place = places("uml", laboratory)
    host = place.host(tag)
    for name in ("control", "read", "left"):
        (host / name).write_text("text")
        os.utime(host / name, ns=(10**9, time.time_ns()))
    (host / "control").read_text()
    moves = (host / "control").stat().st_atime_ns != 10**9  # unless the host's file system is mounted without
    place.python("""
        import os
        for name, flag in (("read", 0), ("left", os.O_NOATIME)):
            assert os.read(os.open(name, os.O_RDONLY | flag), 4) == b"text"
    """, tag)
    assert ((host / "read").stat().st_atime_ns != 10**9) == moves
    assert ((host / "left").stat().st_atime_ns != 10**9) == (moves and not kept)


# Few descriptors

@pytest.fixture(params=["nameless", "named"])
def scarce(special: Place, request: pytest.FixtureRequest) -> Iterator[tuple[Place, str]]:
    """A share whose daemon may have 300 files open, itself included; files are found again by handle or by name."""
    tag: str = request.param
    yield special, tag
    special.scene.daemons[tag].wait_for(files_open=0)


def fill(folder: Path, folders: int = 50, files: int = 100) -> set[str]:
    """Makes a tree, and waits until nothing in it is so new that it could be replaced unnoticed; the paths in it."""
    found = set()
    for number in range(folders):
        (folder / f"folder{number}").mkdir()
        for name in range(files):
            (folder / f"folder{number}/file{name}").write_text(f"{number}/{name}")
            found.add(f"./folder{number}/file{name}")
    time.sleep(3.1)
    return found


def test_few_descriptors_reach_for_many_files(scarce: tuple[Place, str]) -> None:
    place, tag = scarce
    expected = fill(place.host(tag))
    for _ in range(2):
        found = place.run("find . -type f", tag, timeout=4 * SLOW).splitlines()
        assert len(found) == len(expected)
        assert set(found) == expected
    place.python("""
        import os
        for number in range(50):
            for name in range(0, 100, 7):
                path = f"folder{number}/file{name}"
                assert open(path).read() == f"{number}/{name}"
                os.rename(path, path + "~")
                os.chmod(path + "~", 0o600)
            os.rename(f"folder{number}", f"moved{number}")
        for number in range(50):
            for name in range(0, 100, 7):
                assert open(f"moved{number}/file{name}~").read() == f"{number}/{name}"
            assert len(os.listdir(f"moved{number}")) == 100
    """, tag, timeout=4 * SLOW)


def test_few_descriptors_are_shared_out(scarce: tuple[Place, str]) -> None:
    """A guest that opens all it can gets ENFILE, and neither its open files nor any other file suffer from it."""
    place, tag = scarce
    expected = fill(place.host(tag), 20, 20)
    place.python("""
        import errno, os, resource, sys
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
        files = {}
        for number in range(20):
            for name in range(20):
                path = f"folder{number}/file{name}"
                try:
                    files[path] = os.open(path, os.O_RDWR)
                except OSError as error:
                    assert error.errno == errno.ENFILE, error
        assert 50 < len(files) < 300, len(files)
        for _ in range(9):  # listings need some
            os.close(files.popitem()[1])
        for path, file in files.items():
            number, name = path[6:].split("/file")
            assert os.pread(file, 10, 0) == f"{number}/{name}".encode()
        gone = list(files)[:10]
        for path in gone:
            os.unlink(path)
        for _ in range(2):
            with open("/proc/sys/vm/drop_caches", "w") as caches:
                caches.write("3")
            count = sum(os.lstat(os.path.join(folder, name)).st_size > 2 for folder, _, names in os.walk(".")
                        for name in names)
            assert count == 390, count
        os.mkdir("new")
        for path, file in files.items():
            assert os.fstat(file).st_nlink == (path not in gone)
            os.pwrite(file, b"end", 5)
            assert os.pread(file, 10, 5) == b"end"
            os.close(file)
        open("new/file", "w").write("text")
    """, tag, timeout=4 * SLOW)
    left = {f"./{path.relative_to(place.host(tag))}" for path in place.host(tag).rglob("file*") if path.is_file()}
    assert left - {"./new/file"} < expected


def test_what_the_host_moves_stays_what_it_is(scarce: tuple[Place, str]) -> None:
    """A folder and files that the guest has in use, evicted meanwhile: by handle they are found wherever they are."""
    place, tag = scarce
    host = place.host(tag)
    fill(host, 30, 20)
    session = place.session(tag)
    session.do("os.chdir('folder1')")
    session.do("below = os.open('../folder2', os.O_PATH)")
    session.do("file = os.open('file3', os.O_RDWR)")
    place.run("find . -type f | xargs stat -c %i | wc -l", tag)
    (host / "folder1").rename(host / "elsewhere")
    (host / "folder2").rename(host / "folder3/deep")
    (host / "folder2").mkdir()
    (host / "folder2/file5").write_text("another")
    time.sleep(1.1)
    assert session.do("os.pread(file, 10, 0)") == b"1/3"
    open_below = "os.read(os.open('file5', os.O_RDONLY, dir_fd=below), 10)"
    if tag == "nameless":
        assert session.do("open('file5').read()") == "1/5"
        assert session.do("sorted(os.listdir())") == sorted(f"file{number}" for number in range(20))
        assert session.do(open_below) == b"2/5"
    else:
        assert session.do("open('file5').read()") in ("1/5", "ESTALE")
        assert session.do(open_below) in (b"2/5", "ESTALE")
    assert place.run("cat elsewhere/file5 folder3/deep/file5 folder2/file5", tag) == "1/52/5another"
    session.kill()


def test_what_the_host_deletes_leaves_its_disk_though_the_guest_knows_it(special: Place) -> None:
    """But not what the guest has open."""
    host = special.host("bare")
    for name in ("known", "open"):
        (host / name).write_text(name)
    process = special.session("bare")
    process.do("file = open('open', 'r+')")
    assert special.run("stat -c %n known open", "bare") == "known\nopen\n"
    for name in ("known", "open"):
        (host / name).unlink()
    daemon = special.scene.daemons["bare"]
    deadline = time.monotonic() + SECONDS
    while f"{host}/known (deleted)" in (files := daemon.open_files()):
        assert time.monotonic() < deadline, files
        time.sleep(0.1)
    assert process.do("file.write(' still'), file.seek(0), file.read()") == (6, 0, " still")
    assert process.do("os.fstat(file.fileno()).st_nlink") == 0
    assert "No such file" in special.fails("cat known", "bare")


def test_few_descriptors_reach_for_many_new_files(scene: Scene) -> None:
    """Files that have no handles."""
    share = scene.share("myfs", "--inode-file-handles=never", "--rlimit-nofile=300")
    host = scene.daemons["myfs"].share
    guest = scene.guest(share, kernel="uml")
    for number in range(1000):
        (host / f"file{number}").touch()
    assert guest.run("ls -l /mnt | wc -l; find /mnt -type f | wc -l", timeout=4 * SLOW).stdout == "1001\n1000\n"
    guest.run("cd /mnt; for n in `seq 1000`; do echo $n > new$n || exit; done", timeout=4 * SLOW, check=True)
    assert sorted(int(file.read_text()) for file in host.glob("new*")) == list(range(1, 1001))
