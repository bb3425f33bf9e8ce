"""RENAME, RENAME2, UNLINK and RMDIR."""

import errno
import os
import pathlib
import stat
from collections.abc import Callable

import pytest

from frontend.fuse import FuseClient
from tests.filesystem.conftest import Connect
from tests.filesystem.support import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    ROOT,
    Mounts,
    as_guest,
    as_host,
    needs_root,
    refused,
    tree,
)
from tests.running import Daemon

Rename = Callable[[FuseClient, int, str, int, str], None]


def rename(fuse: FuseClient, parent: int, name: str, new_parent: int, new: str) -> None:
    fuse.rename(parent, name, new_parent, new)


def rename2(fuse: FuseClient, parent: int, name: str, new_parent: int, new: str) -> None:
    fuse.rename2(parent, name, new_parent, new)


both = pytest.mark.parametrize("run", [rename, rename2])


@pytest.fixture
def files(share: pathlib.Path) -> None:
    """A few files of every kind."""
    (share / "file").write_bytes(b"data of file")
    (share / "other").write_bytes(b"data of other")
    (share / "empty").mkdir()
    (share / "folder/sub").mkdir(parents=True)
    (share / "folder/inner").write_bytes(b"data of inner")
    (share / "link").symlink_to("file")
    (share / "dangling").symlink_to("nowhere")
    os.mkfifo(share / "fifo")


# RENAME

@both
@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("name", ["file", "folder", "empty", "link", "dangling", "fifo"])
def test_everything_is_renamed_and_stays_the_same_node(fuse: FuseClient, share: pathlib.Path, run: Rename,
                                                      name: str) -> None:
    node, folder = fuse.lookup(ROOT, name).nodeid, fuse.walk("folder/sub").nodeid
    number = (share / name).lstat().st_ino
    run(fuse, ROOT, name, ROOT, "new")
    assert (share / "new").lstat().st_ino == number and not os.path.lexists(share / name)
    if name != "folder":
        run(fuse, ROOT, "new", folder, name)        # into another directory
        assert (share / "folder/sub" / name).lstat().st_ino == number
        run(fuse, folder, name, ROOT, "new")
    assert fuse.lookup(ROOT, "new").nodeid == node
    assert as_guest(fuse.getattr(node)) == as_host(share / "new")


@both
@pytest.mark.usefixtures("files")
def test_a_file_takes_the_place_of_another(fuse: FuseClient, share: pathlib.Path, run: Rename) -> None:
    file, other = fuse.lookup(ROOT, "file").nodeid, fuse.lookup(ROOT, "other").nodeid
    fh = fuse.open(other).fh
    run(fuse, ROOT, "file", ROOT, "other")
    assert (share / "other").read_bytes() == b"data of file"
    assert fuse.lookup(ROOT, "other").nodeid == file
    assert fuse.getattr(other).attr_nlink == 0
    assert fuse.read(other, fh, 0, 100) == b"data of other"


@both
@pytest.mark.usefixtures("files")
def test_a_link_is_renamed_and_replaced_itself(fuse: FuseClient, share: pathlib.Path, run: Rename) -> None:
    run(fuse, ROOT, "link", ROOT, "renamed")
    assert (share / "renamed").is_symlink() and (share / "file").read_bytes() == b"data of file"
    run(fuse, ROOT, "other", ROOT, "renamed")
    assert not (share / "renamed").is_symlink()
    assert (share / "renamed").read_bytes() == b"data of other"
    assert (share / "file").read_bytes() == b"data of file"


@both
@pytest.mark.usefixtures("files")
def test_a_directory_takes_the_place_of_an_empty_one(fuse: FuseClient, share: pathlib.Path, run: Rename) -> None:
    run(fuse, ROOT, "folder", ROOT, "empty")
    assert sorted(os.listdir(share / "empty")) == ["inner", "sub"] and not (share / "folder").exists()


IMPOSSIBLE = {
    "onto a directory with something in it": ("empty", "folder", errno.ENOTEMPTY),
    "a file onto a directory": ("file", "empty", errno.EISDIR),
    "a directory onto a file": ("empty", "file", errno.ENOTDIR),
    "a directory onto a link": ("empty", "link", errno.ENOTDIR),
    "what is not there": ("missing", "new", errno.ENOENT),
    "what is not there onto something": ("missing", "file", errno.ENOENT),
}


@both
@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("old, new, error", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_renames_change_nothing(fuse: FuseClient, share: pathlib.Path, run: Rename, old: str, new: str,
                                           error: int) -> None:
    before = tree(share)
    with refused(error, *([errno.EEXIST] if error == errno.ENOTEMPTY else [])):
        run(fuse, ROOT, old, ROOT, new)
    assert tree(share) == before


@both
@pytest.mark.usefixtures("files")
def test_a_directory_cannot_move_into_itself(fuse: FuseClient, share: pathlib.Path, run: Rename) -> None:
    folder, sub = fuse.walk("folder").nodeid, fuse.walk("folder/sub").nodeid
    for parent in (folder, sub):
        with refused(errno.EINVAL):
            run(fuse, ROOT, "folder", parent, "new")
    with refused(errno.ENOTEMPTY, errno.EEXIST):
        run(fuse, folder, "sub", ROOT, "folder")
    assert sorted(os.listdir(share / "folder")) == ["inner", "sub"]


@both
@pytest.mark.usefixtures("files")
def test_names_in_what_is_no_directory_are_refused(fuse: FuseClient, share: pathlib.Path, run: Rename) -> None:
    before = tree(share)
    for name in ("file", "link", "fifo"):
        node = fuse.lookup(ROOT, name).nodeid
        with refused(errno.ENOTDIR):
            run(fuse, ROOT, "other", node, "new")
        with refused(errno.ENOTDIR):
            run(fuse, node, "other", ROOT, "new")
    assert tree(share) == before


@both
@pytest.mark.usefixtures("files")
def test_a_rename_between_two_names_of_one_file_changes_nothing(fuse: FuseClient, share: pathlib.Path,
                                                               run: Rename) -> None:
    (share / "again").hardlink_to(share / "file")
    run(fuse, ROOT, "file", ROOT, "again")
    run(fuse, ROOT, "file", ROOT, "file")
    assert (share / "file").samefile(share / "again")


@both
@needs_root
@pytest.mark.usefixtures("files")
def test_a_rename_does_not_cross_mounts(fuse: FuseClient, share: pathlib.Path, mounts: Mounts, run: Rename) -> None:
    mounts.tmpfs(share / "mounted")
    mounts.bind(share / "folder", share / "bound")
    for parent in ("mounted", "bound"):
        with refused(errno.EXDEV):
            run(fuse, ROOT, "file", fuse.lookup(ROOT, parent).nodeid, "file")
    with refused(errno.EXDEV, errno.EBUSY):
        run(fuse, ROOT, "mounted", ROOT, "elsewhere")
    assert (share / "file").exists()


@both
def test_a_name_of_255_bytes_can_be_given_and_taken(fuse: FuseClient, share: pathlib.Path, run: Rename) -> None:
    (share / "file").touch()
    run(fuse, ROOT, "file", ROOT, "n" * 255)
    assert os.listdir(share) == ["n" * 255]
    run(fuse, ROOT, "n" * 255, ROOT, "m" * 255)
    assert os.listdir(share) == ["m" * 255]


@pytest.mark.usefixtures("files")
def test_a_known_directory_is_found_at_its_new_place(fuse: FuseClient, share: pathlib.Path) -> None:
    sub, empty = fuse.walk("folder/sub").nodeid, fuse.walk("empty").nodeid
    fuse.rename(fuse.walk("folder").nodeid, "sub", empty, "moved")
    fuse.create(sub, "in it")
    assert (share / "empty/moved/in it").exists()
    assert fuse.lookup(sub, "..").nodeid == empty


# RENAME2

@pytest.mark.usefixtures("files")
def test_noreplace_replaces_nothing(fuse: FuseClient, share: pathlib.Path) -> None:
    before = tree(share)
    for new in ("other", "empty", "folder", "link", "dangling", "fifo", "file"):
        with refused(errno.EEXIST):
            fuse.rename2(ROOT, "file", ROOT, new, RENAME_NOREPLACE)
    assert tree(share) == before
    fuse.rename2(ROOT, "file", ROOT, "new", RENAME_NOREPLACE)
    assert (share / "new").read_bytes() == b"data of file" and not (share / "file").exists()


@pytest.mark.usefixtures("files")
def test_exchange_swaps_two_names_of_any_kind(fuse: FuseClient, share: pathlib.Path) -> None:
    nodes = {name: fuse.lookup(ROOT, name).nodeid for name in ("file", "folder", "link")}
    inner = fuse.walk("folder").nodeid
    fuse.rename2(ROOT, "file", ROOT, "folder", RENAME_EXCHANGE)
    assert (share / "folder").read_bytes() == b"data of file"
    assert sorted(os.listdir(share / "file")) == ["inner", "sub"]
    assert fuse.lookup(ROOT, "file").nodeid == nodes["folder"]
    assert fuse.lookup(ROOT, "folder").nodeid == nodes["file"]
    fuse.rename2(inner, "inner", ROOT, "link", RENAME_EXCHANGE)
    assert (share / "file/inner").is_symlink() and (share / "link").read_bytes() == b"data of inner"
    assert fuse.lookup(inner, "inner").nodeid == nodes["link"]


@pytest.mark.usefixtures("files")
def test_exchange_with_what_is_not_there_is_refused(fuse: FuseClient, share: pathlib.Path) -> None:
    before = tree(share)
    for old, new in (("file", "missing"), ("missing", "file")):
        with refused(errno.ENOENT):
            fuse.rename2(ROOT, old, ROOT, new, RENAME_EXCHANGE)
    assert tree(share) == before


@needs_root
def test_whiteout_leaves_one_behind(connect: Connect, file_system: pathlib.Path) -> None:
    guest = connect(share=file_system)
    (guest.share / "file").write_bytes(b"data")
    (guest.share / "other").write_bytes(b"other")
    guest.fuse.rename2(ROOT, "file", ROOT, "new", RENAME_WHITEOUT)
    left = guest.fuse.lookup(ROOT, "file")
    assert stat.S_ISCHR(left.attr_mode) and left.attr_rdev == 0
    assert as_guest(left) == as_host(guest.share / "file")
    with refused(errno.EEXIST):
        guest.fuse.rename2(ROOT, "new", ROOT, "other", RENAME_WHITEOUT | RENAME_NOREPLACE)
    assert sorted(os.listdir(guest.share)) == ["file", "new", "other"]


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("flags", [8, 16, 0x80000000, 0xffffffff, RENAME_NOREPLACE | 8,
                                   RENAME_NOREPLACE | RENAME_EXCHANGE, RENAME_WHITEOUT | RENAME_EXCHANGE])
def test_unknown_and_contradictory_flags_change_nothing(fuse: FuseClient, share: pathlib.Path, flags: int) -> None:
    before = tree(share)
    for new in ("other", "new"):
        with refused(errno.EINVAL):
            fuse.rename2(ROOT, "file", ROOT, new, flags)
    assert tree(share) == before


# UNLINK and RMDIR

@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("name", ["file", "link", "dangling", "fifo"])
def test_unlink_removes_the_name_and_never_what_it_points_to(fuse: FuseClient, share: pathlib.Path,
                                                            name: str) -> None:
    (share / "kept").hardlink_to(share / "file")
    node = fuse.lookup(ROOT, name).nodeid
    before = sorted(os.listdir(share))
    fuse.unlink(ROOT, name)
    assert sorted(os.listdir(share)) == [other for other in before if other != name]
    with refused(errno.ENOENT):
        fuse.lookup(ROOT, name)
    assert fuse.getattr(node).attr_nlink == (1 if name == "file" else 0)
    with refused(errno.ENOENT):
        fuse.unlink(ROOT, name)


@pytest.mark.usefixtures("files")
def test_unlink_of_a_directory_and_rmdir_of_a_file_are_refused(fuse: FuseClient, share: pathlib.Path) -> None:
    before = tree(share)
    for name in ("folder", "empty"):
        with refused(errno.EISDIR):
            fuse.unlink(ROOT, name)
    for name in ("file", "link", "dangling", "fifo"):
        with refused(errno.ENOTDIR):
            fuse.rmdir(ROOT, name)
    assert tree(share) == before


@pytest.mark.usefixtures("files")
def test_rmdir_removes_only_what_is_empty(fuse: FuseClient, share: pathlib.Path) -> None:
    folder = fuse.lookup(ROOT, "folder").nodeid
    with refused(errno.ENOTEMPTY):
        fuse.rmdir(ROOT, "folder")
    fuse.unlink(folder, "inner")
    fuse.rmdir(folder, "sub")
    fuse.rmdir(ROOT, "folder")
    assert not (share / "folder").exists()
    assert fuse.getattr(folder).attr_nlink == 0
    with refused(errno.ENOENT):
        fuse.rmdir(ROOT, "folder")


@pytest.mark.usefixtures("files")
def test_names_in_what_is_no_directory_are_not_removed(fuse: FuseClient) -> None:
    for name in ("file", "link", "fifo"):
        node = fuse.lookup(ROOT, name).nodeid
        for remove in (fuse.unlink, fuse.rmdir):
            with refused(errno.ENOTDIR):
                remove(node, "name")


@needs_root
def test_a_mount_point_is_not_removed(fuse: FuseClient, share: pathlib.Path, mounts: Mounts) -> None:
    mounts.tmpfs(share / "mounted")
    with refused(errno.EBUSY):
        fuse.rmdir(ROOT, "mounted")
    assert (share / "mounted").is_mount()


@pytest.mark.parametrize("removal", ["guest", "host"])
def test_a_deleted_file_is_gone_when_the_guest_forgets_it(fuse: FuseClient, share: pathlib.Path, daemon: Daemon,
                                                         removal: str) -> None:
    """No descriptor of the daemon's keeps the space of a file on the host."""
    (share / "file").write_bytes(b"data")
    node = fuse.lookup(ROOT, "file").nodeid
    if removal == "guest":
        fuse.unlink(ROOT, "file")
    else:
        (share / "file").unlink()
    assert fuse.getattr(node).attr_size == 4
    fuse.forget(node)
    daemon.wait_for(inodes=0, inodes_closing=0)
    assert not any(name.startswith(str(share / "file")) for name in daemon.open_files())
