"""What a file is created as, and that nothing else is ever done as anybody but the daemon itself."""

import contextlib
import errno
import os
import pathlib
import shutil
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from frontend import fuse_abi as abi
from frontend.fuse import FuseClient, FuseError
from frontend.fuse_abi import Opcode
from frontend.fuse_transport import groups_block, secctx_block
from tests.conftest import program
from tests.filesystem.conftest import Connect
from tests.filesystem.support import ROOT, Guest, connected, error_of, refused
from tests.filesystem.test_creating import CREATORS, Creator, create, mkdir, mknod
from tests.running import Daemon

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")

IDS = [(1000, 1000), (1000, 0), (0, 1000), (0, 0), (4_000_000_000, 4_100_000_000)]
FILE_MODES = [create, mknod]
CAP_FSETID = 4


def owner(path: pathlib.Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid


def thread_credentials(daemon: Daemon) -> set[tuple[object, ...]]:
    """User ids, group ids, groups and capabilities of all threads: one set, if none has been left behind.

    But for CAP_FSETID: a thread has it or not as the last request that it matters to had it, until the next.
    """
    found = set()
    for task in pathlib.Path(f"/proc/{daemon.process.pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):    # it has ended
            lines = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
            words = [" ".join(lines[key].split()) for key in ("Uid", "Gid", "Groups", "CapPrm")]
            found.add((*words, int(lines["CapEff"], 16) | 1 << CAP_FSETID))
    return found


@pytest.fixture
def unchanged(daemon: Daemon, fuse: FuseClient) -> Iterator[None]:  # noqa: ARG001 - the session starts the threads
    """Whatever the test does, all of the daemon's threads have their old credentials afterwards."""
    before = thread_credentials(daemon)
    assert {(ids[0], ids[1]) for ids in before} == {("0 0 0 0", "0 0 0 0")}
    yield
    # The main thread keeps the groups that it was started with; the others have none.
    assert thread_credentials(daemon) == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("uid, gid", IDS)
@pytest.mark.parametrize("creator", CREATORS)
def test_what_is_created_belongs_to_the_caller(fuse: FuseClient, share: pathlib.Path, creator: Creator, uid: int,
                                              gid: int) -> None:
    entry = creator(fuse, ROOT, "new", uid=uid, gid=gid)
    assert owner(share / "new") == (entry.attr_uid, entry.attr_gid) == (uid, gid)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("creator", CREATORS)
def test_the_guest_has_decided_where_its_users_may_create(fuse: FuseClient, share: pathlib.Path,
                                                         creator: Creator) -> None:
    """It knows the caller's groups and capabilities, the daemon does not: a second check could only be wrong."""
    (share / "folder").mkdir(mode=0o700)
    creator(fuse, fuse.lookup(ROOT, "folder").nodeid, "new", uid=1000, gid=1000)
    assert owner(share / "folder/new") == (1000, 1000)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("creator", CREATORS)
def test_the_daemon_is_itself_again_after_a_creation(fuse: FuseClient, share: pathlib.Path, creator: Creator) -> None:
    (share / "secret").mkdir(mode=0o700)
    (share / "secret/file").touch(mode=0o600)
    creator(fuse, ROOT, "new", uid=1000, gid=1000)
    file = fuse.walk("secret/file").nodeid
    fuse.setattr(file, owner=5, group=6)            # only root may
    fuse.release(file, fuse.open(file, os.O_RDWR).fh)
    creator(fuse, ROOT, "of-root")
    assert owner(share / "of-root") == (0, 0)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("creator", CREATORS)
def test_the_daemon_is_itself_again_after_a_creation_that_failed(fuse: FuseClient, share: pathlib.Path,
                                                                creator: Creator) -> None:
    (share / "file").touch(mode=0o600)
    (share / "gone").mkdir()
    gone = fuse.lookup(ROOT, "gone").nodeid
    (share / "gone").rmdir()
    file = fuse.lookup(ROOT, "file").nodeid
    for number in range(3):
        with refused(errno.ENOENT):
            creator(fuse, gone, "new", uid=1000, gid=1000, groups=[2000])
        with refused(errno.ENAMETOOLONG):
            creator(fuse, ROOT, "n" * 256, uid=1000, gid=1000)
        fuse.setattr(file, owner=number, group=number)
        assert owner(share / "file") == (number, number)


def test_the_umask_of_the_process_is_left_alone(daemon: Daemon, fuse: FuseClient) -> None:
    def umask() -> str:
        status = pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text()
        return next(line for line in status.splitlines() if line.startswith("Umask"))

    before = umask()
    for creator in CREATORS:
        creator(fuse, ROOT, creator.__name__, 0o777, umask=0o777)
    assert umask() == before


def test_users_on_two_queues_never_get_each_others_files(connect: Connect) -> None:
    guest = connect(num_queues=2)
    mistakes: list[str] = []

    def run(uid: int, queue: int) -> None:
        fuse = FuseClient(guest.device, uid, uid + 1)
        fuse.queue, fuse.unique, fuse.flags = queue, queue << 40, guest.fuse.flags
        for number in range(300):
            name = f"{uid}-{number}"
            with lock:
                ticket = fuse.submit(Opcode.MKDIR, ROOT, abi.MKDIR_IN.pack(mode=0o755), name.encode() + b"\0",
                                     out_size=abi.ENTRY_OUT.size)
            with lock:
                reply = fuse.complete(ticket)
            entry = abi.ENTRY_OUT.unpack(reply.data)
            guest.fuse.lookups[entry.nodeid] += 1
            if (entry.attr_uid, entry.attr_gid) != (uid, uid + 1):
                mistakes.append(f"{name} belongs to {entry.attr_uid}")

    lock = threading.Lock()         # the guest's memory is not made for two threads; the daemon's are at it meanwhile
    threads = [threading.Thread(target=run, args=(uid, queue)) for uid, queue in ((1000, 1), (2000, 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mistakes == []
    assert len(os.listdir(guest.share)) == 600
    assert {owner(path) for path in guest.share.glob("1000-*")} == {(1000, 1001)}


# Groups

@pytest.fixture
def team(share: pathlib.Path) -> pathlib.Path:
    """A set-group-id directory of group 2000."""
    (share / "team").mkdir()
    os.chown(share / "team", 0, 2000)
    (share / "team").chmod(0o2775)
    return share / "team"


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("creator", CREATORS)
def test_a_set_group_id_directory_gives_its_group(fuse: FuseClient, team: pathlib.Path, creator: Creator) -> None:
    entry = creator(fuse, fuse.lookup(ROOT, "team").nodeid, "new", uid=1000, gid=1000)
    assert owner(team / "new") == (entry.attr_uid, entry.attr_gid) == (1000, 2000)
    if creator is mkdir:
        assert (team / "new").stat().st_mode & stat.S_ISGID


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("creator", FILE_MODES)
@pytest.mark.parametrize("groups, kept", [(None, False), ([], False), ([3000], False), ([2000], True),
                                          ([5, 2000, 6], True), (list(range(1970, 2002)), True)])
def test_a_supplementary_group_counts_where_the_guest_names_it(
        fuse: FuseClient, team: pathlib.Path, creator: Creator, groups: list[int] | None, kept: bool) -> None:
    """Only a member of the directory's group may create a set-group-id program of it."""
    how: dict[str, Any] = {} if groups is None else {"groups": groups}
    creator(fuse, fuse.lookup(ROOT, "team").nodeid, "new", 0o2775, uid=1000, gid=1000, **how)
    assert owner(team / "new") == (1000, 2000)
    assert bool((team / "new").stat().st_mode & stat.S_ISGID) is kept


@pytest.mark.usefixtures("unchanged")
def test_groups_of_one_creation_are_not_those_of_the_next(fuse: FuseClient, team: pathlib.Path) -> None:
    parent = fuse.lookup(ROOT, "team").nodeid
    create(fuse, parent, "member", 0o2775, uid=1000, gid=1000, groups=[2000])
    create(fuse, parent, "stranger", 0o2775, uid=1001, gid=1001)
    create(fuse, parent, "other", 0o2775, uid=1001, gid=1001, groups=[7])
    assert (team / "member").stat().st_mode & stat.S_ISGID
    assert not (team / "stranger").stat().st_mode & stat.S_ISGID
    assert not (team / "other").stat().st_mode & stat.S_ISGID


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("order", [1, -1], ids=["context first", "groups first"])
def test_groups_are_found_beside_a_security_context(fuse: FuseClient, team: pathlib.Path, order: int) -> None:
    blocks = [secctx_block([("security.selinux", b"label\0"), ("security.x", b"")]), groups_block([2000])]
    create(fuse, fuse.lookup(ROOT, "team").nodeid, "new", 0o2775, uid=1000, gid=1000, ext=b"".join(blocks[::order]))
    assert (team / "new").stat().st_mode & stat.S_ISGID


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("creator", CREATORS)
def test_extensions_stand_right_behind_a_name_of_any_length(fuse: FuseClient, team: pathlib.Path,
                                                           creator: Creator) -> None:
    ext = secctx_block([]) + groups_block([2000])
    for name in ("n", "na", "nam", "name", "longer-name"):
        creator(fuse, fuse.lookup(ROOT, "team").nodeid, name, uid=1000, gid=1000, ext=ext)
        assert owner(team / name) == (1000, 2000)


def block(size: int, kind: int, body: bytes = b"") -> bytes:
    return struct.pack("=II", size, kind) + body


BAD_EXTENSIONS = {
    "a block of no size": block(0, abi.FUSE_EXT_GROUPS),
    "a block smaller than its header": block(7, abi.FUSE_EXT_GROUPS),
    "a block larger than all": block(24, abi.FUSE_EXT_GROUPS, struct.pack("=II", 1, 5)),
    "a block larger than 4 GiB": block(0xffffffff, abi.FUSE_EXT_GROUPS, struct.pack("=II", 1, 5)),
    "a rest too small for a block": block(12, abi.FUSE_EXT_GROUPS, struct.pack("=I", 0)) + bytes(4),
    "a second block that is too large": groups_block([5]) + block(16, abi.FUSE_EXT_GROUPS),
    "a block of groups without their number": block(8, abi.FUSE_EXT_GROUPS),
    "more groups than are there": block(16, abi.FUSE_EXT_GROUPS, struct.pack("=II", 2, 5)),
    "very many more groups than are there": block(16, abi.FUSE_EXT_GROUPS, struct.pack("=II", 0xffffffff, 5)),
    "groups whose bytes overflow": block(16, abi.FUSE_EXT_GROUPS, struct.pack("=II", 0x40000001, 5)),
    "more groups than a caller has": groups_block(list(range(33))),
    "a type that nobody knows": block(16, 33, bytes(8)),
    "a type with all bits": block(16, 0xffffffff, bytes(8)),
}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("ext", BAD_EXTENSIONS.values(), ids=BAD_EXTENSIONS)
def test_bad_extensions_are_refused_and_nothing_is_created(fuse: FuseClient, share: pathlib.Path, ext: bytes) -> None:
    for creator in CREATORS:
        with refused(errno.EINVAL):
            creator(fuse, ROOT, "new", uid=1000, gid=1000, ext=ext)
        assert not (share / "new").is_symlink() and not (share / "new").exists()
        creator(fuse, ROOT, creator.__name__, uid=1000, gid=1000, groups=[5])
        assert owner(share / creator.__name__) == (1000, 1000)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("creator", CREATORS)
def test_extensions_longer_than_the_message_are_refused(fuse: FuseClient, share: pathlib.Path,
                                                       creator: Creator) -> None:
    for words in (1, 2, 5, 0xffff):
        with refused(errno.EINVAL):
            creator(fuse, ROOT, "new", uid=1000, gid=1000, header={"total_extlen": words})
    assert os.listdir(share) == []


def test_extensions_do_not_hide_a_name(fuse: FuseClient, share: pathlib.Path) -> None:
    """A name that would end in the extensions does not end at all."""
    reply = fuse.call(Opcode.MKDIR, ROOT, abi.MKDIR_IN.pack(mode=0o755), b"name", ext=block(8, 0),
                      out_size=abi.ENTRY_OUT.size, check=False)
    assert error_of(reply) == "EINVAL"
    assert os.listdir(share) == []


@pytest.mark.parametrize("request_of", [
    lambda fuse, how: fuse.lookup(ROOT, "file", **how), lambda fuse, how: fuse.unlink(ROOT, "file", **how),
    lambda fuse, how: fuse.rename(ROOT, "file", ROOT, "new", **how), lambda fuse, how: fuse.getattr(ROOT, **how),
    lambda fuse, how: fuse.statfs(**how)], ids=["LOOKUP", "UNLINK", "RENAME", "GETATTR", "STATFS"])
def test_only_creations_have_extensions(fuse: FuseClient, share: pathlib.Path,
                                        request_of: Callable[[FuseClient, dict[str, Any]], object]) -> None:
    (share / "file").touch()
    with refused(errno.EINVAL):
        request_of(fuse, {"groups": [5]})
    assert os.listdir(share) == ["file"]


# Ids that are none

@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("creator", CREATORS)
@pytest.mark.parametrize("uid, gid", [(0xffffffff, 0xffffffff), (0xffffffff, 1000), (1000, 0xffffffff)])
def test_a_caller_without_a_valid_id_creates_nothing_of_anybody_elses(
        fuse: FuseClient, share: pathlib.Path, creator: Creator, uid: int, gid: int) -> None:
    """Linux sends no such ids with a creation. Refused, or the daemon's own: never half of each."""
    try:
        creator(fuse, ROOT, "new", uid=uid, gid=gid)
    except OSError as error:
        assert error.errno in (errno.EINVAL, errno.EOVERFLOW, errno.EPERM)
        assert os.listdir(share) == []
    else:
        assert owner(share / "new") == (0, 0)


# Devices and what takes a capability

@pytest.mark.usefixtures("unchanged")
def test_devices_are_made_by_the_guests_root_only(fuse: FuseClient, share: pathlib.Path) -> None:
    with refused(errno.EPERM):
        fuse.mknod(ROOT, "device", stat.S_IFBLK | 0o666, 0x801, uid=1000, gid=1000)
    assert os.listdir(share) == []
    fuse.mknod(ROOT, "device", stat.S_IFBLK | 0o666, 0x801)


# Daemons that are not root

@contextlib.contextmanager
def served_as(tmp_path: pathlib.Path, uid: int, *capabilities: str) -> Iterator[Guest]:
    """A session with a daemon of another user, with some capabilities; DAC_READ_SEARCH lets it find its program."""
    if not shutil.which("setpriv"):
        pytest.skip("there is no setpriv to start a daemon as another user with")
    for parent in tmp_path.parents:
        if parent.name.startswith("pytest"):
            parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o711)
    folder = tmp_path / f"of-{uid}"
    (folder / "share").mkdir(parents=True)
    for path in (folder, folder / "share"):
        os.chown(path, uid, uid)
    given = ",".join(f"+{name}" for name in ("dac_read_search", *capabilities))
    command = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", "--inh-caps", given,
               "--ambient-caps", given]
    daemon = Daemon([*command, *program()], folder)
    try:
        daemon.wait_until_it_listens()
        with connected(daemon) as guest:
            yield guest
    finally:
        problems = daemon.finish()
    assert problems == []


def test_a_daemon_that_is_not_root_creates_for_itself(tmp_path: pathlib.Path) -> None:
    with served_as(tmp_path, 1000) as guest:
        for number, (uid, gid) in enumerate([(0, 0), (1000, 1000)]):
            for creator in CREATORS:
                creator(guest.fuse, ROOT, f"{creator.__name__}{number}", uid=uid, gid=gid)
        assert {owner(path) for path in guest.share.iterdir()} == {(1000, 1000)}
        assert len(os.listdir(guest.share)) == 2 * len(CREATORS)


def test_a_daemon_that_is_not_root_refuses_to_create_for_others(tmp_path: pathlib.Path) -> None:
    with served_as(tmp_path, 1000) as guest:
        for creator in CREATORS:
            with refused(errno.EPERM):
                creator(guest.fuse, ROOT, "new", uid=1001, gid=1001)
            creator(guest.fuse, ROOT, creator.__name__)
        assert len(os.listdir(guest.share)) == len(CREATORS)


@pytest.mark.parametrize("uid, groups", [(1001, [2000]), (0, [])], ids=["a user with groups", "root"])
def test_a_daemon_with_only_the_capabilities_for_it_survives_creating_for_others(tmp_path: pathlib.Path, uid: int,
                                                                                groups: list[int]) -> None:
    """It creates as the caller, or refuses to; it never ends because it could not become itself again."""
    with served_as(tmp_path, 1000, "setuid", "setgid", "dac_override", "chown") as guest:
        before = thread_credentials(guest.daemon)
        for creator in CREATORS:
            name = creator.__name__
            try:
                creator(guest.fuse, ROOT, name, uid=uid, gid=uid, **({"groups": groups} if groups else {}))
            except FuseError as error:
                assert error.errno == errno.EPERM
            else:
                assert owner(guest.share / name) in ((uid, uid), (1000, 1000) if uid == 0 else (uid, uid))
        assert thread_credentials(guest.daemon) == before


def test_a_daemon_with_only_the_capabilities_for_it_creates_for_other_users(tmp_path: pathlib.Path) -> None:
    with served_as(tmp_path, 1000, "setuid", "setgid", "dac_override", "chown") as guest:
        before = thread_credentials(guest.daemon)
        for creator in CREATORS:
            creator(guest.fuse, ROOT, creator.__name__, uid=1001, gid=1002)
        assert {owner(path) for path in guest.share.iterdir()} == {(1001, 1002)}
        assert thread_credentials(guest.daemon) == before


def test_a_daemon_that_may_list_a_directory_but_not_search_it_lists_it(tmp_path: pathlib.Path) -> None:
    """Without capabilities it has no more rights than the directory's mode gives to its owner."""
    if not shutil.which("setpriv"):
        pytest.skip("there is no setpriv to take capabilities away with")
    command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all"]
    folder = tmp_path / "share/folder"
    folder.mkdir(parents=True)
    (folder / "file").touch()
    folder.chmod(0o400)
    daemon = Daemon([*command, *program()], tmp_path / "daemon", share=tmp_path / "share")
    try:
        daemon.wait_until_it_listens()
        with connected(daemon) as guest:
            node = guest.fuse.lookup(ROOT, "folder").nodeid
            with refused(errno.EACCES):
                guest.fuse.lookup(node, "file")
            fh = guest.fuse.opendir(node).fh
            assert b"file" in {entry.name for entry in guest.fuse.readdir(node, fh, 0, 4096)}
            guest.fuse.releasedir(node, fh)
    finally:
        problems = daemon.finish()
    assert problems == []
