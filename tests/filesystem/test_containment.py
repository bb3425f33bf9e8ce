"""Nothing outside the share is ever read, created or changed, whatever the guest asks for and the host moves."""

import errno
import itertools
import os
import pathlib
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest

from frontend.fuse import FuseClient, FuseError
from tests.filesystem.conftest import Connect
from tests.filesystem.support import (
    ROOT,
    Mounts,
    as_guest,
    as_host,
    during,
    needs_root,
    refused,
    rename_exchange,
    tree,
)
from tests.running import Daemon

SECRET = b"what the guest must never see"


@pytest.fixture
def outside(share: pathlib.Path) -> Iterator[pathlib.Path]:
    """A directory beside the share, that must be afterwards what it was."""
    outside = share.parent / "outside"
    (outside / "folder/sub").mkdir(parents=True)
    (outside / "secret").write_bytes(SECRET)
    (outside / "folder/secret").write_bytes(SECRET)
    os.mkfifo(outside / "fifo")
    before = tree(outside), as_host(outside, access=False)
    yield outside
    assert (tree(outside), as_host(outside, access=False)) == before


@pytest.fixture
def links(share: pathlib.Path, outside: pathlib.Path) -> list[str]:
    """Names in the share of symbolic links that lead out of it, or in it."""
    (share / "folder").mkdir()
    (share / "file").write_bytes(b"inside")
    targets: dict[str, str | pathlib.Path] = {
        "absolute": outside / "secret", "relative": "../outside/secret", "to-folder": outside / "folder",
        "up": "../outside", "to-new": outside / "new", "proc": "/proc/self/cwd", "fd": "/proc/self/fd/3",
        "inside": "file", "inside-folder": "folder", "root": "/", "parent": "..", "loop": "loop",
    }
    for name, target in targets.items():
        (share / name).symlink_to(target)
    return list(targets)


def operations(fuse: FuseClient, parent: int, name: str, node: int) -> dict[str, Callable[[], object]]:
    """What could follow a link: by its name, beneath it, and by its node."""
    return {
        "OPEN": lambda: fuse.open(node, os.O_RDWR),
        "OPEN with O_TRUNC": lambda: fuse.open(node, os.O_WRONLY | os.O_TRUNC),
        "OPENDIR": lambda: fuse.opendir(node),
        "CREATE": lambda: fuse.create(parent, name),
        "CREATE with O_TRUNC": lambda: fuse.create(parent, name, flags=os.O_RDWR | os.O_TRUNC),
        "CREATE with O_EXCL": lambda: fuse.create(parent, name, flags=os.O_RDWR | os.O_EXCL),
        "MKDIR": lambda: fuse.mkdir(parent, name),
        "MKNOD": lambda: fuse.mknod(parent, name, stat.S_IFREG | 0o644),
        "SYMLINK": lambda: fuse.symlink(parent, name, "target"),
        "LINK": lambda: fuse.link(fuse.lookup(ROOT, "file").nodeid, parent, name),
        "RMDIR": lambda: fuse.rmdir(parent, name),
        "LOOKUP beneath": lambda: fuse.lookup(node, "secret"),
        "LOOKUP of .. beneath": lambda: fuse.lookup(node, ".."),
        "CREATE beneath": lambda: fuse.create(node, "new"),
        "MKDIR beneath": lambda: fuse.mkdir(node, "new"),
        "MKNOD beneath": lambda: fuse.mknod(node, "new", stat.S_IFREG | 0o644),
        "SYMLINK beneath": lambda: fuse.symlink(node, "new", "target"),
        "LINK beneath": lambda: fuse.link(fuse.lookup(ROOT, "file").nodeid, node, "new"),
        "UNLINK beneath": lambda: fuse.unlink(node, "secret"),
        "RMDIR beneath": lambda: fuse.rmdir(node, "sub"),
        "RENAME from beneath": lambda: fuse.rename(node, "secret", ROOT, "stolen"),
        "RENAME to beneath": lambda: fuse.rename(ROOT, "file", node, "given"),
        "SETATTR of a size": lambda: fuse.setattr(node, size=0),
        "SETATTR of a mode": lambda: fuse.setattr(node, mode=0o777),
        "SETXATTR": lambda: fuse.setxattr(node, "user.name", b"value"),
        "GETXATTR": lambda: fuse.getxattr(node, "user.name"),
        "SYNCFS": lambda: fuse.syncfs(node),
    }


def test_no_operation_follows_a_link(fuse: FuseClient, share: pathlib.Path, links: list[str]) -> None:
    before = tree(share)
    for link in links:
        entry = fuse.lookup(ROOT, link)
        assert as_guest(entry) == as_host(share / link) and stat.S_ISLNK(entry.attr_mode)
        for operation, run in operations(fuse, ROOT, link, entry.nodeid).items():
            with during(f"{operation}, {link}"), pytest.raises(FuseError):
                run()
    assert tree(share) == before


@needs_root
def test_what_is_done_to_a_link_is_done_to_the_link(fuse: FuseClient, share: pathlib.Path, links: list[str]) -> None:
    for link in links:
        node = fuse.lookup(ROOT, link).nodeid
        fuse.setattr(node, owner=5, group=6, mtime=7.0)
        fuse.setxattr(node, "trusted.name", b"value")
        assert fuse.getxattr(node, "trusted.name") == b"value"
        found = (share / link).lstat()
        assert (found.st_uid, found.st_gid, found.st_mtime) == (5, 6, 7.0)
        fuse.link(node, ROOT, f"{link}-linked")
        fuse.rename(ROOT, link, ROOT, f"{link}-renamed")
        fuse.unlink(ROOT, f"{link}-renamed")
        fuse.unlink(ROOT, f"{link}-linked")
    assert sorted(os.listdir(share)) == ["file", "folder"]
    assert (share / "file").stat().st_uid == 0


def test_names_do_not_lead_out(fuse: FuseClient, share: pathlib.Path, outside: pathlib.Path) -> None:
    (share / "file").write_bytes(b"inside")
    for name in ("..", "../outside", "../outside/secret", str(outside / "secret"), "file/../../outside/secret",
                 "./../outside", "/proc/self/root"):
        for operation, run in operations(fuse, ROOT, name, ROOT).items():
            if operation in ("CREATE", "CREATE with O_TRUNC", "CREATE with O_EXCL", "MKDIR", "MKNOD", "SYMLINK", "LINK",
                             "RMDIR"):
                with during(f"{operation}, {name}"), refused(errno.EINVAL):
                    run()
        with refused(errno.EINVAL):
            fuse.rename(ROOT, "file", ROOT, name)
    assert os.listdir(share) == ["file"]


def test_dotdot_at_the_root_and_from_everywhere_below_ends_at_the_root(fuse: FuseClient, share: pathlib.Path) -> None:
    (share / "a/b/c").mkdir(parents=True)
    node = fuse.walk("a/b/c").nodeid
    for _ in range(10):
        node = fuse.lookup(node, "..").nodeid
    assert node == ROOT
    assert as_guest(fuse.getattr(node)) == as_host(share)


# What the host changes at the worst moment

def swapping(pairs: Sequence[tuple[pathlib.Path, pathlib.Path]], ended: threading.Event) -> threading.Thread:
    """A thread of the host's that swaps two names all the time, of each pair in turn."""
    def swap() -> None:
        for one, other in itertools.cycle(pairs):
            if ended.is_set():
                break
            rename_exchange(one, other)

    thread = threading.Thread(target=swap)
    thread.start()
    return thread


ROUNDS = 2000
WANTED = 100     # of each outcome, before a race counts as one that took place


def race(run: Callable[[int], str], one: pathlib.Path, other: pathlib.Path, *outcomes: str,
         more: Sequence[tuple[pathlib.Path, pathlib.Path]] = ()) -> None:
    """Runs until each outcome has come often, while the host swaps the names, and those of `more` pairs."""
    seen: Counter[str] = Counter()
    ended = threading.Event()
    host = swapping([(one, other), *more], ended)
    try:
        for number in range(40 * ROUNDS):
            seen[run(number)] += 1
            if number >= ROUNDS and all(seen[outcome] >= WANTED for outcome in outcomes):
                break
    finally:
        ended.set()
        host.join()
    assert set(seen) <= {*outcomes, "overtaken"}, seen
    assert all(seen[outcome] for outcome in outcomes), f"there was no race: {seen}"


@pytest.fixture
def swapped(share: pathlib.Path, outside: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """A directory in the share, and a link to one outside with the same names in it."""
    (share / "folder/sub").mkdir(parents=True)
    (share / "folder/secret").write_bytes(b"inside")
    (share / "link").symlink_to(outside / "folder")
    return share / "folder", share / "link"


@pytest.mark.parametrize("operation", ["lookup", "create", "mkdir", "unlink", "opendir"])
def test_a_directory_swapped_with_a_link_never_leads_out(fuse: FuseClient, share: pathlib.Path, daemon: Daemon,
                                                        swapped: tuple[pathlib.Path, pathlib.Path],
                                                        operation: str) -> None:
    """The guest looks it up and works beneath: in the directory that it was, or not at all."""
    inner = (share / "folder/secret").stat().st_ino

    def run(number: int) -> str:
        entry = fuse.lookup(ROOT, "folder")
        try:
            if operation == "lookup":
                found = fuse.lookup(entry.nodeid, "secret")
                assert found.attr_ino == inner
                fuse.forget(found.nodeid)
            elif operation == "create":
                found, opened = fuse.create(entry.nodeid, f"new{number}")
                fuse.write(found.nodeid, opened.fh, 0, b"data")
                fuse.release(found.nodeid, opened.fh)
            elif operation == "mkdir":
                fuse.mkdir(entry.nodeid, f"new{number}")
            elif operation == "unlink":
                fuse.link(fuse.lookup(entry.nodeid, "secret").nodeid, entry.nodeid, "again")
                fuse.unlink(entry.nodeid, "again")
            else:
                fuse.releasedir(entry.nodeid, fuse.opendir(entry.nodeid).fh)
        except FuseError as error:
            assert error.errno == errno.ENOTDIR and stat.S_ISLNK(entry.attr_mode)
            return "link"
        assert stat.S_ISDIR(entry.attr_mode)
        return "folder"

    race(run, *swapped, "folder", "link")
    assert daemon.alive


@pytest.mark.parametrize("operation", ["open", "create", "truncate", "xattr"])
def test_a_file_swapped_with_a_link_never_leads_out(fuse: FuseClient, share: pathlib.Path, outside: pathlib.Path,
                                                   operation: str) -> None:
    (share / "file").write_bytes(b"inside")
    (share / "link").symlink_to(outside / "secret")

    def run(_: int) -> str:
        try:
            if operation == "create":
                entry, opened = fuse.create(ROOT, "file")
                assert fuse.read(entry.nodeid, opened.fh, 0, 100) == b"inside"
                fuse.release(entry.nodeid, opened.fh)
                return "file"
            entry = fuse.lookup(ROOT, "file")
            if operation == "open":
                fh = fuse.open(entry.nodeid, os.O_RDWR).fh
                assert fuse.read(entry.nodeid, fh, 0, 100) == b"inside"
                fuse.release(entry.nodeid, fh)
            elif operation == "truncate":
                fuse.setattr(entry.nodeid, size=6)
            else:
                fuse.setattr(entry.nodeid, mode=0o640)
        except FuseError as error:
            assert error.errno in (errno.ENXIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ESTALE)
            return "link"
        return "file"

    race(run, share / "file", share / "link", "file", "link")
    assert (share / "file").is_symlink() or (share / "file").read_bytes() == b"inside"


@pytest.mark.parametrize("operation", ["rename into", "rename out of", "link into", "symlink", "mknod", "rmdir",
                                       "setxattr"])
def test_what_is_moved_beneath_a_swapped_directory_stays_in_the_share(fuse: FuseClient, share: pathlib.Path,
                                                                     swapped: tuple[pathlib.Path, pathlib.Path],
                                                                     operation: str) -> None:
    (share / "file").write_bytes(b"inside")
    (share / "other").mkdir()
    node, other = fuse.lookup(ROOT, "file").nodeid, fuse.lookup(ROOT, "other").nodeid

    def run(number: int) -> str:
        entry = fuse.lookup(ROOT, "folder")
        folder, name = entry.nodeid, f"new{number}"
        try:
            if operation == "rename into":
                fuse.link(node, ROOT, name)
                try:
                    fuse.rename(ROOT, name, folder, name)
                except FuseError:
                    fuse.unlink(ROOT, name)
                    raise
            elif operation == "rename out of":
                fuse.rename(folder, "secret", other, "secret")
                fuse.rename(other, "secret", folder, "secret")
            elif operation == "link into":
                fuse.link(node, folder, name)
            elif operation == "symlink":
                fuse.symlink(folder, name, "target")
            elif operation == "mknod":
                fuse.mknod(folder, name, stat.S_IFREG | 0o644)
            elif operation == "rmdir":
                fuse.mkdir(folder, name)
                fuse.rmdir(folder, name)
            else:
                fuse.setattr(folder, mode=0o750)
                fuse.setxattr(folder, "user.name", b"value")
        except FuseError as error:
            assert error.errno in (errno.ENOTDIR, errno.EPERM, errno.EOPNOTSUPP) and stat.S_ISLNK(entry.attr_mode)
            return "link"
        assert stat.S_ISDIR(entry.attr_mode)
        return "folder"

    race(run, *swapped, "folder", "link")


FILES = 300     # more than there are descriptors, so that each is found anew when its turn comes


@pytest.mark.parametrize("handles", ["never", "prefer"])
def test_files_that_are_found_again_are_the_same_or_none(connect: Connect, handles: str) -> None:
    """By name or by handle, while the host swaps them with links to others outside."""
    guest = connect("--inode-file-handles", handles, "--rlimit-nofile", "256")
    share, fuse = guest.share, guest.fuse
    folder, outside = share / "folder", share.parent / "outside"
    for path, content in ((folder, b"inside"), (outside, SECRET)):
        path.mkdir()
        for number in range(FILES):
            (path / f"file{number}").write_bytes(content)
    pairs = [(folder / f"file{number}", folder / f"link{number}") for number in range(FILES)]
    for file, link in pairs:
        link.symlink_to(outside / file.name)
    time.sleep(4.1)     # files that were born just now stay open
    parent = fuse.lookup(ROOT, "folder").nodeid
    nodes = [fuse.lookup(parent, f"file{number}").nodeid for number in range(FILES)]

    def run(number: int) -> str:
        node = nodes[number % FILES]
        try:
            fh = fuse.open(node, os.O_RDWR).fh
            assert fuse.read(node, fh, 0, 100) == b"inside"
            fuse.write(node, fh, 0, b"inside")
            fuse.release(node, fh)
            fuse.setattr(node, mode=0o600)
        except FuseError as error:
            assert error.errno in (errno.ESTALE, errno.ENOENT)
            return "overtaken"
        return "found"

    race(run, share / "folder/file0", share / "folder/link0", "found", more=pairs[1:])
    assert {(path.read_bytes(), path.stat().st_mode & 0o777) for path in outside.iterdir()} == {(SECRET, 0o644)}


def test_a_directory_that_the_host_mounts_over_is_the_one_or_the_other(connect: Connect, mounts: Mounts) -> None:
    guest = connect()
    share, fuse = guest.share, guest.fuse
    for name in ("below", "over"):
        (share / name).mkdir()
        (share / name / name).touch()
    ended = threading.Event()

    def mount() -> None:
        while not ended.is_set():
            mounts.unmount(mounts.bind(share / "over", share / "below"))

    host = threading.Thread(target=mount)
    mounts.unmount(mounts.bind(share / "over", share / "below"))     # where that is not allowed, the test ends here
    host.start()
    seen: Counter[str] = Counter()
    try:
        while len(seen) < 2 or seen.total() < ROUNDS:
            node = fuse.lookup(ROOT, "below").nodeid
            names = set()
            for name in ("below", "over", ".."):
                try:
                    entry = fuse.lookup(node, name)
                except FuseError as error:
                    assert error.errno in (errno.ENOENT, errno.ESTALE)
                    continue
                if name == "..":
                    assert entry.nodeid == ROOT
                else:
                    names.add(name)
            assert len(names) <= 1
            seen.update(names)
    finally:
        ended.set()
        host.join()
    assert guest.daemon.alive


def test_listing_while_names_are_swapped_tells_nothing_of_the_outside(fuse: FuseClient, share: pathlib.Path,
                                                                     outside: pathlib.Path,
                                                                     swapped: tuple[pathlib.Path, pathlib.Path]
                                                                     ) -> None:
    inside = {path.lstat().st_ino for path in (share, *share.rglob("*"))}
    forbidden = {path.lstat().st_ino for path in (outside, *outside.rglob("*"))}

    def run(_: int) -> str:
        kind = ""
        for entry in fuse.listdir(plus=True):
            assert entry.entry
            if entry.entry.nodeid:
                assert entry.entry.attr_ino in inside and entry.entry.attr_ino not in forbidden
                if entry.name == b"folder":
                    kind = "link" if stat.S_ISLNK(entry.entry.attr_mode) else "folder"
        return kind or "overtaken"

    race(run, *swapped, "folder", "link")


def test_a_directory_that_goes_out_and_back_never_shows_its_parent_there(fuse: FuseClient, share: pathlib.Path,
                                                                       tmp_path: pathlib.Path) -> None:
    """The guest asks for "..", while the host swaps the directory with one outside."""
    away = tmp_path / "away"
    (away / "moved/b").mkdir(parents=True)
    (share / "a/b").mkdir(parents=True)
    (share / "stays").mkdir()
    a = fuse.lookup(ROOT, "a").nodeid
    b = fuse.lookup(a, "b").nodeid
    inside = {path.stat().st_ino for path in (share, share / "a", share / "a/b")}
    seen: Counter[str] = Counter()

    def run(number: int) -> str:
        try:
            entry = fuse.lookup((a, b)[number % 2], "..")
        except FuseError as error:
            assert error.errno in (errno.ESTALE, errno.ENOENT)
            return "refused"
        assert entry.attr_ino in inside
        seen[str(entry.nodeid)] += 1
        return "found"

    race(run, share / "a", away / "moved", "found", "refused")
    assert set(seen) == {str(ROOT), str(a)}


def test_a_share_that_the_host_moves_stays_the_same(connect: Connect) -> None:
    """What is shared is a directory, not a path: what takes its place is not shared."""
    guest = connect()
    share, moved = guest.share, guest.share.parent / "moved"
    (share / "file").write_bytes(b"inside")
    share.rename(moved)
    share.mkdir()
    (share / "stranger").touch()
    assert {entry.name for entry in guest.fuse.listdir()} == {b".", b"..", b"file"}
    with refused(errno.ENOENT):
        guest.fuse.lookup(ROOT, "stranger")
    guest.fuse.mkdir(ROOT, "new")
    assert (moved / "new").is_dir() and os.listdir(share) == ["stranger"]
    assert guest.fuse.lookup(ROOT, "..").nodeid == ROOT
