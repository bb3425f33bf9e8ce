"""What people do with files: git, tar, fio, SQLite and stress-ng in guests, judged by the host."""

import io
import os
import random
import sqlite3
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest

from guest.boot import Kernel
from tests.guests.conftest import GetPlace
from tests.guests.support import SLOW, Place, python
from tests.running import LONG

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900)]

TWICE = range(2)


@pytest.fixture(params=["uml", pytest.param("qemu", marks=pytest.mark.skipif(not LONG, reason="long, with LONG=1"))])
def place(places: GetPlace, request: pytest.FixtureRequest) -> Place:
    """This test's place in the usual laboratory of the faster guest; with LONG=1 of the other, too."""
    kernel: Kernel = request.param
    return places(kernel)


# git

MAKE_REPOSITORY = """
git init -q -b main source
cd source
git config user.name nobody
git config user.email nobody@example.org
mkdir -p one/two "with space"
for number in $(seq 60); do echo "text of file $number" >one/two/file$number; done
cp /usr/bin/git "with space/large"
ln -s one/two/file1 link
chmod 755 one/two/file2
git add .
git commit -q -m first
for number in $(seq 4); do echo $number >>one/two/file$number; git mv one/two/file$number$number one; done
git commit -q -a -m second
git branch side HEAD~1
git gc -q
"""


def test_a_repository_is_cloned_from_share_to_share(place: Place) -> None:
    place.host("exact")
    other = f"/run/exact/{place.name}"
    place.run(MAKE_REPOSITORY, timeout=4 * SLOW)
    for turn in TWICE:
        found = place.run(f"""
            set -e
            git clone -q file://$PWD/source {other}/clone{turn}
            git clone -q source linked{turn}
            for clone in {other}/clone{turn} linked{turn}; do
              git -C $clone fsck --full --strict --no-progress
              git -C $clone status --porcelain
              git -C $clone checkout -q origin/side
              git -C $clone checkout -q main
              git -C $clone diff --stat
              git -C $clone rev-parse HEAD origin/side
            done
        """, timeout=8 * SLOW).splitlines()
        assert found[:2] == found[2:] != []
        if turn == 0:
            first = found
        assert found == first
    for clone in (place.host("exact") / "clone1", place.host() / "linked1"):
        same = subprocess.run(["diff", "-r", "--no-dereference", "-x", ".git", place.host() / "source", clone],
                              stdout=subprocess.PIPE, text=True)
        assert (same.returncode, same.stdout) == (0, "")
        assert os.access(clone / "one/two/file2", os.X_OK)


# tar

def test_five_thousand_files_are_unpacked_and_packed(place: Place) -> None:
    generator = random.Random(7)
    contents = {f"folder{number % 50}/below{number % 7}/file{number}": generator.randbytes(generator.randrange(6000))
                for number in range(5000)}
    host = place.host()
    with tarfile.open(host / "archive.tar", "w") as archive:
        for number, (name, data) in enumerate(contents.items()):
            member = tarfile.TarInfo(f"tree/{name}")
            member.size, member.mtime, member.mode = len(data), 10**9 + number, 0o600 + number % 64
            member.uid, member.gid = number % 3000, number % 1000
            archive.addfile(member, io.BytesIO(data))
    place.run("tar -xf archive.tar --numeric-owner", timeout=8 * SLOW)
    for number, (name, data) in enumerate(contents.items()):
        path = host / "tree" / name
        info = path.stat()
        assert path.read_bytes() == data, name
        assert (info.st_mode & 0o7777, info.st_uid, info.st_gid, info.st_mtime) == \
            (0o600 + number % 64, number % 3000, number % 1000, 10**9 + number), name
    place.run("tar -df archive.tar --numeric-owner && rm -r tree", timeout=8 * SLOW)
    assert [path.name for path in host.iterdir()] == ["archive.tar"]


# fio

FIO = {
    "plain": "--ioengine=psync --bsrange=4k-64k --fsync=64",
    "exact": "--ioengine=mmap --bs=4k",
    "never": "--ioengine=psync --bsrange=512-64k",
    "writeback": "--ioengine=psync --bsrange=1k-64k --end_fsync=1",
    "direct": "--ioengine=libaio --iodepth=16 --direct=1 --bsrange=4k-64k",
}
"""How each share is written."""


@pytest.mark.parametrize("tag", FIO)
def test_random_writes_are_read_back(places: GetPlace, kernel: Kernel, tag: str) -> None:
    place = places(kernel)
    for turn in TWICE:
        place.run(f"fio --name=job --rw=randwrite --size=6m --numjobs=2 --randseed={turn + 1} --verify=crc32c "
                  f"--verify_fatal=1 --output=/tmp/fio.log {FIO[tag]} || {{ cat /tmp/fio.log >&2; exit 1; }}", tag,
                  timeout=8 * SLOW)
    assert {(path.name, path.stat().st_size) for path in place.host(tag).glob("job.*")} == \
        {("job.0.0", 6 << 20), ("job.1.0", 6 << 20)}


# SQLite

WRITER = """
import sqlite3, sys
base = sqlite3.connect("base", timeout=120, isolation_level=None)
for number in range(TURNS):
    base.execute("begin immediate")
    count, = base.execute("select count(*) from rows").fetchone()
    base.execute("insert into rows values (?, ?, ?)", (WHO, count, "x" * (count * 37 % 3000)))
    base.execute("update counter set value = value + 1")
    base.execute("rollback" if number % 10 == 9 else "commit")
"""


def new_base(folder: Path, journal: str) -> None:
    base = sqlite3.connect(folder / "base")
    assert base.execute(f"pragma journal_mode={journal}").fetchone() == (journal,)
    base.executescript("create table rows (who, number, text); create unique index one on rows (number);"
                       "create table counter (value); insert into counter values (0);")
    base.close()


def check_base(folder: Path, rows: int) -> None:
    base = sqlite3.connect(folder / "base")
    assert base.execute("pragma integrity_check").fetchall() == [("ok",)]
    assert base.execute("select count(*), max(number) from rows").fetchone() == (rows, rows - 1)
    assert base.execute("select value from counter").fetchone() == (rows,)
    base.close()


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_database_of_several_processes_of_a_guest(place: Place, journal: str) -> None:
    new_base(place.host(), journal)
    for turn in TWICE:
        writers = "".join(f"python3 writer{who} & pids=\"$pids $!\"\n" for who in range(3))
        for who in range(3):
            program = WRITER.replace("TURNS", "20").replace("WHO", f"{who + 10 * turn}")
            (place.host() / f"writer{who}").write_text(program)
        place.run(f"{writers} for pid in $pids; do wait $pid || exit 1; done", timeout=8 * SLOW)
        check_base(place.host(), 54 * (turn + 1))
    assert [path.name for path in place.host().glob("base*")] == ["base"]


def test_a_database_of_two_guests_and_the_host(places: GetPlace) -> None:
    """With a rollback journal, and locks that reach the host."""
    host = places("qemu").host("locks")
    new_base(host, "delete")
    turns = {"qemu": 20, "uml": 20, "host": 60}
    failures: list[BaseException] = []

    def write(name: str) -> None:
        program = WRITER.replace("TURNS", str(turns[name])).replace("WHO", repr(name))
        try:
            if name == "host":
                subprocess.run(["python3", "-c", program], cwd=host, check=True)
            else:
                places(name).run(python(program), "locks", timeout=8 * SLOW)  # type: ignore[arg-type]
        except BaseException as error:
            failures.append(error)

    for name in ("qemu", "uml"):
        places(name)  # type: ignore[arg-type]
    threads = [threading.Thread(target=write, args=(name,)) for name in turns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    check_base(host, sum(turns.values()) * 9 // 10)


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_database_survives_a_writer_that_is_killed(place: Place, journal: str) -> None:
    new_base(place.host(), journal)
    (place.host() / "writer").write_text(WRITER.replace("TURNS", "100000").replace("WHO", "1"))
    place.run("""
        python3 writer & pid=$!
        while [ $(stat -c %s base base-wal 2>/dev/null | sort -n | tail -n 1) -lt 150000 ]; do sleep 0.1; done
        kill -KILL $pid
        python3 - <<'END'
import sqlite3
base = sqlite3.connect("base", timeout=60)
assert base.execute("pragma integrity_check").fetchall() == [("ok",)]
rows, = base.execute("select count(*) from rows").fetchone()
assert base.execute("select value from counter").fetchone() == (rows,)
base.execute("update counter set value = value + 0")
base.commit()
END
    """, timeout=4 * SLOW)
    base = sqlite3.connect(place.host() / "base")
    assert base.execute("pragma integrity_check").fetchall() == [("ok",)]
    assert base.execute("select count(*) - (select value from counter) from rows").fetchone() == (0,)


# stress-ng

@pytest.mark.skipif(not LONG, reason="minutes, with LONG=1")
def test_every_stress_of_the_file_system_class(place: Place) -> None:
    """But for binderfs, which is none of ours. Status 3 means that one had not what it needs."""
    found = place.run("""
        stress-ng --class filesystem --exclude binderfs --seq 1 --timeout 2 --temp-path . --verify 2>&1
        echo status $?
    """, "rich", timeout=20 * SLOW).splitlines()
    assert found[-1] == "status 0", "\n".join(line for line in found if "info" not in line or "skip" in line)
    assert not [line for line in found if "fail:" in line or "error:" in line]
    assert list(place.host("rich").iterdir()) == []
