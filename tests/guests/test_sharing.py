"""Two guests of different kernels and the host work in one directory."""

import contextlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.guests.conftest import GetPlace
from tests.guests.support import INSIDE, SLOW, Place

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]

MAKE = r"""
import os, stat
os.umask(0)
def make(path, mode=0o644, uid=0, gid=0, data=b""):
    with open(path, "wb") as file:
        file.write(data)
    os.chown(path, uid, gid)
    os.chmod(path, mode)
os.mkdir("folder"); os.chown("folder", 1234, 2345); os.chmod("folder", 0o3771)
for number, mode in enumerate([0o000, 0o444, 0o640, 0o777, 0o4755, 0o2750, 0o1600]):
    make(f"folder/mode{number}", mode, number * 1000, number * 2000, b"x" * number * 1111)
make(b"name \xff\n\t'\"\\", data=b"odd")
make("Großer Käse ☃", data="ünï".encode())
os.link("folder/mode3", "folder/second name")
os.symlink("../nowhere", "folder/symbolic link")
os.lchown("folder/symbolic link", 7, 8)
os.mkfifo("fifo", 0o622)
os.mknod("device", 0o640 | stat.S_IFBLK, os.makedev(8, 17))
os.mknod("terminal", 0o620 | stat.S_IFCHR, os.makedev(4, 300))
with open("sparse", "wb") as file:
    file.seek(1 << 20); file.write(b"data"); file.truncate(3 << 20)
for path, ns in [("folder/mode1", (1, 2)), ("folder", (10**18 + 123456789, 10**18 + 987654321)), ("fifo", (5, 6))]:
    os.utime(path, ns=ns)
os.makedirs("a/b/c/d/e/f")
for number in range(300):
    os.mknod(f"a/b/c/{number:04d}" + "n" * (number % 200), 0o600 | stat.S_IFREG)
"""


def manifest(folder: Path) -> Any:
    command = [sys.executable, "-B", INSIDE / "manifest.py"]
    return json.loads(subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True).stdout)


def test_the_host_sees_what_a_guest_has_made(place: Place) -> None:
    place.python(MAKE)
    in_guest = json.loads(place.run("python3 /run/inside/manifest.py"))
    on_host = manifest(place.host())
    assert in_guest == on_host
    assert len(on_host) > 320


def test_a_guest_sees_what_the_host_has_made(place: Place) -> None:
    subprocess.run([sys.executable, "-c", MAKE], cwd=place.host(), check=True)
    on_host = manifest(place.host())
    assert json.loads(place.run("python3 /run/inside/manifest.py")) == on_host
    assert len(on_host) > 320


def test_a_guest_lists_ten_thousand_names(place: Place) -> None:
    names = {f"file number {number}" for number in range(10_000)}
    folder = place.host() / "folder"
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    found = place.run("ls -1U folder").splitlines()
    assert len(found) == len(names)
    assert set(found) == names
    assert place.run("find folder -type f -size 0 | wc -l; ls -l folder | wc -l").split() == ["10000", "10001"]
    place.run("rm -r folder", timeout=4 * SLOW)
    assert os.listdir(place.host()) == []


def test_each_sees_what_the_others_do(places: GetPlace) -> None:
    """One change after the other, by one of three, which the other two must see at once: there are no timeouts."""
    host = places("qemu").host("exact")
    generator = random.Random(5)
    sessions = {name: places(name).session("exact") for name in ("qemu", "uml")}
    expected: dict[str, str] = {}
    for session in sessions.values():
        session.do("def show():\n return {name: open(name).read() for name in os.listdir()}")
        session.do("def put(name, text):\n with open(name, 'w') as file:\n  file.write(text)")
    for turn in range(25):
        who = generator.choice(["qemu", "uml", "host"])
        name = f"file{generator.randrange(6)}"
        match generator.randrange(3):
            case 0 if name in expected:
                other = f"file{generator.randrange(6)}"
                expected[other] = expected.pop(name)
                change = f"os.rename({name!r}, {other!r})"
            case 1 if name in expected:
                del expected[name]
                change = f"os.unlink({name!r})"
            case _:
                expected[name] = f"{turn} of {who}"
                change = f"put({name!r}, {expected[name]!r})"
        if who == "host":
            with contextlib.chdir(host):
                exec(change, {"os": os, "put": lambda name, text: Path(name).write_text(text)})
        else:
            assert sessions[who].do(change) is None
        for other, session in sessions.items():
            assert session.do("show()") == expected, f"turn {turn}: {who} did {change}, and {other} does not see it"
        assert {path.name: path.read_text() for path in host.iterdir()} == expected


def test_what_one_guest_has_open_another_can_replace_and_remove(places: GetPlace) -> None:
    host = places("qemu").host("exact")
    (host / "file").write_text("first")
    one, two = places("qemu").session("exact"), places("uml").session("exact")
    one.do("file = os.open('file', os.O_RDWR)")
    two.do("os.rename('file', 'moved')")
    two.do("open('file', 'w').write('second')")
    assert one.do("(os.pread(file, 10, 0), open('file').read())") == (b"first", "second")
    two.do("os.unlink('moved')")
    two.do("os.unlink('file')")
    assert one.do("os.pwrite(file, b'FIRST', 0)") == 5
    assert one.do("(os.pread(file, 10, 0), os.fstat(file).st_nlink)") == (b"FIRST", 0)
    assert one.do("os.listdir()") == []
    two.do("os.mkdir('folder')")
    one.do("os.chdir('folder')")
    two.do("os.rename('folder', 'other')")
    one.do("open('file', 'w').write('text')")
    assert (host / "other/file").read_text() == "text"
    (host / "other/file").unlink()
    (host / "other").rmdir()
    assert one.do("os.listdir('.')") == []
    assert one.do("open('file', 'w')") in ("ENOENT", "ESTALE")
