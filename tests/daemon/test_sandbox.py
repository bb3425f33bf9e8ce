"""The sandbox, from inside: what code that has taken the daemon over could reach; and from outside: two processes."""

import ctypes
import os
import pathlib
import re
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from frontend.device import VirtioFs
from frontend.fuse import FuseClient
from tests.conftest import program
from tests.daemon.sandboxed import (
    PROBE,
    SUB_IDS,
    Sandboxed,
    given_ids,
    needs_root,
    nobodys_folder,
    nobodys_python,
    probing,
    public_folder,
    user_namespaces,
)
from tests.daemon.support import answered, ask, wait_for_line, wait_until
from tests.running import SECONDS
from virtiofsd import capabilities, seccomp

Start = Callable[..., Sandboxed]

SIGSYS = 128 + signal.SIGSYS
USUAL = capabilities.kept((), "prefer")
WITHOUT_IDS = USUAL & ~(capabilities.bit("setuid") | capabilities.bit("setgid"))
# The sandboxes: of root with namespaces or chroot, and of a user without rights.
MODES = ["namespace", "chroot", "user"]


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(mode: str, tmp_path: pathlib.Path) -> Iterator[Start]:
    """Starts a probed daemon in the mode, with further options, through another program where that is given.

    It is checked when the test is over.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can make this sandbox, or become another user")
    started: list[Sandboxed] = []

    def begin(*options: str, through: Sequence[str] = (), bounded: bool = True) -> Sandboxed:
        if mode == "user":
            if not user_namespaces():
                pytest.skip("users without rights can make no user namespaces here")
            daemon = Sandboxed([*through, *nobodys_python(bounded), PROBE], nobodys_folder(public), options)
        else:
            daemon = Sandboxed([*through, *probing()], tmp_path / f"daemon{len(started)}",
                               ["--sandbox", mode, *options])
        started.append(daemon)
        return daemon

    with public_folder() as public:
        yield begin
        problems = [problem for daemon in started for problem in daemon.finish()]
    if problems:
        pytest.fail("\n".join(problems))


@pytest.fixture
def sandboxed(start: Start) -> Sandboxed:
    return start()


# Files

def test_no_path_leads_out(sandboxed: Sandboxed, tmp_path: pathlib.Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("secret")
    assert sandboxed.ask("ways_out", targets=["/etc/passwd", "/etc/hostname", str(outside)]) == {}
    assert sandboxed.ask("ways_out", thread=True, targets=["/etc/passwd", str(outside)]) == {}


def test_the_root_has_the_share_and_what_is_needed_of_proc(sandboxed: Sandboxed, mode: str) -> None:
    (sandboxed.share / "file").touch()
    found = sandboxed.ask("listing")
    if mode == "chroot":
        assert found == {"/": ["file", "probe"], "proc_fd/..": ["fd", "task"], "proc_fd/../..": ["fd", "task"]}
    else:
        assert list(found.values()) == [["fd", "share", "task"]] * 3


def test_no_descriptor_leads_out(start: Start, tmp_path: pathlib.Path) -> None:
    """Whatever it was started with is closed. What is left: the log, the lock of the socket's path, and its own."""
    (tmp_path / "input").touch()
    daemon = start(through=["sh", "-c", f'exec <{tmp_path}/input 5</ 9<{tmp_path} "$@"', "sh"])
    found = daemon.ask("descriptors")
    log = re.escape(f"100000 {daemon.log_path}")
    allowed = [r"20000 /dev/null", log, re.escape(f"100000 {daemon.socket}.pid"), r"0 anon_inode:.*",
               r"10000 pipe:.*", r"140000 socket:.*", r"40000 /(share|fd)?", re.escape(f"40000 {daemon.share}")]
    for what in found.values():
        assert any(re.fullmatch(pattern, what) for pattern in allowed), found
    assert found["0"] == "20000 /dev/null"


def test_a_device_node_in_the_share_opens_no_device(start: Start, mode: str, tmp_path: pathlib.Path) -> None:
    """Though the daemon may make device nodes, for guests."""
    daemon = start("--seccomp", "none")
    disk = os.stat(tmp_path).st_dev
    numbers = (os.major(disk), os.minor(disk)) if os.major(disk) else (7, 0)
    found = daemon.ask("device", major=numbers[0], minor=numbers[1])
    if mode == "user":
        assert found["made"] == "EPERM"
    elif mode == "namespace" and "device nodes of the share are not barred" not in daemon.log:
        assert found == {"made": None, "opened": "EACCES"}
    else:
        assert found["made"] is None    # a chroot has the host's mounts


def test_without_file_handles_no_other_file_of_the_file_system_is_found(start: Start, mode: str,
                                                                        tmp_path: pathlib.Path) -> None:
    """By a handle any of them could be opened, which is the price of finding files again by it."""
    (tmp_path / "outside").write_text("secret")
    kind, handle = handle_of(tmp_path / "outside")
    found = {when: start("--inode-file-handles", when).ask("by_handle", kind=kind, handle=handle.hex())
             for when in ("never", "prefer")}
    assert found == {"never": "EPERM", "prefer": "EPERM" if mode == "user" else None}


def handle_of(path: pathlib.Path) -> tuple[int, bytes]:
    libc = ctypes.CDLL(None, use_errno=True)
    data = (ctypes.c_ubyte * 136)()
    size = ctypes.cast(data, ctypes.POINTER(ctypes.c_uint32))
    size[0] = 128
    mount_id = ctypes.c_int()
    if libc.name_to_handle_at(-100, os.fsencode(path), data, ctypes.byref(mount_id), 0):
        pytest.skip(f"this file system has no file handles: {os.strerror(ctypes.get_errno())}")
    return size[1], bytes(data[8:8 + size[0]])


@pytest.mark.parametrize("mode", ["user"], indirect=True)
def test_a_container_that_hides_parts_of_proc_is_no_hindrance(start: Start) -> None:
    """There nobody may mount another /proc."""
    daemon = start(through=["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /proc/sys && exec "$@"', "sh"])
    assert daemon.ask("ways_out", targets=["/etc/passwd"]) == {}
    assert list(daemon.ask("listing").values()) == [["fd", "share", "task"]] * 3
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        entry, opened = fuse.create(1, "file")
        fuse.setattr(entry.nodeid, mode=0o600)
        fuse.release(entry.nodeid, fuse.open(entry.nodeid).fh)
        fuse.release(entry.nodeid, opened.fh)


# Network, and other processes

@pytest.mark.parametrize("action", ["kill", "none"])
def test_nothing_of_the_network_is_reached(start: Start, mode: str, action: str) -> None:
    """By namespace, and by what sockets there may be; a chroot has only the latter."""
    name = f"virtiofsd-test-{os.getpid()}"
    with socket.socket() as inet, socket.socket(socket.AF_UNIX) as abstract:
        inet.bind(("127.0.0.1", 0))
        abstract.bind(f"\0{name}")
        for listener in (inet, abstract):
            listener.listen()
        found = start("--seccomp", action).ask("network", port=inet.getsockname()[1], name=name)
    if action == "kill":
        assert {found[family] for family in ("inet", "inet6", "packet", "netlink")} == {"EAFNOSUPPORT"}
    if mode != "chroot":
        assert found["abstract"] == "ECONNREFUSED"
        if action == "none":
            assert found["inet"] == "ENETUNREACH"
            assert found["inet6"] in ("EADDRNOTAVAIL", "ENETUNREACH", "EAFNOSUPPORT")
            assert found["packet"] == "EPERM"


def test_no_other_process_is_seen(start: Start, mode: str) -> None:
    """Neither a process of the host nor the daemon's own parent."""
    daemon = start("--seccomp", "none")
    found = daemon.ask("processes", pids=[os.getpid(), daemon.process.pid, daemon.pid])
    if mode == "chroot":
        assert found["pid"] == daemon.pid
        assert found["traced"][:2] == ["EPERM", "EPERM"]
    else:
        assert (found["pid"], found["parent"], found["session"], found["others"]) == (1, 0, 1, [])
        assert found["asked"] == found["traced"] == ["ESRCH"] * 3


def test_another_process_is_sent_no_signal(start: Start) -> None:
    """Not even asked for: in a chroot it might be of the same user."""
    daemon = start()
    daemon.exit_status = SIGSYS
    daemon.expected = ["was ended by signal 31"]
    assert daemon.ask("processes", pids=[os.getpid()]) is None


def check_root_shared(daemon: subprocess.Popen[bytes], path: pathlib.Path) -> None:
    """A guest finds the host's root in the share, and the daemon ends well."""
    try:
        with VirtioFs(path) as device:
            fuse = FuseClient(device)
            fuse.init()
            assert fuse.lookup(fuse.lookup(1, "etc").nodeid, "passwd").attr_size == os.stat("/etc/passwd").st_size
        assert daemon.wait(SECONDS) == 0
    finally:
        daemon.kill()
        daemon.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make this sandbox")
@pytest.mark.parametrize("sandbox", ["namespace", "chroot"])
def test_the_whole_root_can_be_shared(tmp_path: pathlib.Path, sandbox: str) -> None:
    before = set(os.listdir("/"))
    path = tmp_path / "socket"
    check_root_shared(
        subprocess.Popen([*program(), "--socket-path", path, "--shared-dir", "/", "--sandbox", sandbox]), path)
    assert set(os.listdir("/")) <= before, "nothing is made in it"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make this sandbox")
@pytest.mark.parametrize("sandbox", ["namespace", "chroot"])
def test_a_bind_mount_of_the_root_can_be_shared(tmp_path: pathlib.Path, sandbox: str) -> None:
    """It is the same directory as the root, and another mount."""
    path, bound = tmp_path / "socket", tmp_path / "bound"
    bound.mkdir()
    mounted = ["unshare", "--mount", "sh", "-c", 'mount --bind / "$0" && exec "$@"', bound]
    check_root_shared(subprocess.Popen(
        [*mounted, *program(), "--socket-path", path, "--shared-dir", bound, "--sandbox", sandbox]), path)


# Privileges

@pytest.mark.parametrize("thread", [False, True], ids=["Python", "data plane"])
def test_privileges_are_those_documented(sandboxed: Sandboxed, mode: str, thread: bool) -> None:
    kept = WITHOUT_IDS if mode == "user" else USUAL
    found = sandboxed.ask("privileges", thread=thread)
    assert [found.pop(name) for name in ("effective", "permitted", "bounding", "ambient")] == [kept, kept, kept, 0]
    assert found.pop("death_signal") == (0 if thread else signal.SIGKILL)
    assert found == {"no_new_privs": 1, "dumpable": 0, "umask": 0, "groups": [],
                     "ids": [65534 if mode == "user" else 0] * 6}
    assert int(sandboxed.status()["CapInh"], 16) == 0


def test_the_threads_of_a_device_have_the_same_privileges_and_a_filter_more(sandboxed: Sandboxed, mode: str) -> None:
    kept = f"{WITHOUT_IDS if mode == 'user' else USUAL:016x}"
    with VirtioFs(sandboxed.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        answered(fuse, [ask(fuse)])
        filters = {}
        for task in pathlib.Path(f"/proc/{sandboxed.pid}/task").iterdir():
            found = sandboxed.status(int(task.name))
            assert {found[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {kept}
            assert (found["CapInh"], found["CapAmb"]) == ("0" * 16, "0" * 16)
            assert (found["NoNewPrivs"], found["Umask"], found["Seccomp"]) == ("1", "0000", "2")
            filters[int(task.name)] = int(found["Seccomp_filters"])
    assert filters.pop(sandboxed.pid) == 1
    assert len([tid for tid, count in filters.items() if count == 2]) >= 2, filters


def test_capabilities_can_be_chosen(start: Start, mode: str) -> None:
    found = start("--modcaps", "+sys_admin:-mknod").ask("privileges")
    wanted = (WITHOUT_IDS if mode == "user" else USUAL) | capabilities.bit("sys_admin")
    assert found["effective"] == found["bounding"] == wanted & ~capabilities.bit("mknod")


def test_the_process_outside_keeps_nearly_nothing(sandboxed: Sandboxed) -> None:
    """What it takes to signal the child and to remove the socket."""
    sandboxed.wait_until_it_serves()
    status = pathlib.Path(f"/proc/{sandboxed.process.pid}/status")
    wanted = capabilities.bit("kill") | capabilities.bit("dac_override")
    # The child may serve before.
    wait_until(lambda: f"CapEff:\t{wanted:016x}" in status.read_text(), "the process outside has dropped the others")
    assert f"CapPrm:\t{wanted:016x}" in status.read_text()


@pytest.mark.parametrize("mode", ["user"], indirect=True)
def test_a_user_with_a_range_of_ids_is_root_of_it(start: Start, tmp_path: pathlib.Path) -> None:
    first, count = SUB_IDS
    mapping = f":0:{first}:{count}:"
    daemon = start("--uid-map", mapping, "--gid-map", mapping, "--keep-listening", through=given_ids(tmp_path),
                   bounded=False)
    daemon.share.chmod(0o777)
    daemon.share.parent.chmod(0o711)
    found = daemon.ask("privileges")
    assert (found["effective"], found["bounding"], found["ids"]) == (USUAL, USUAL, [0] * 6)
    assert found["death_signal"] == signal.SIGKILL
    with VirtioFs(daemon.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        for uid in (0, 1000):
            fuse.mkdir(1, f"of-{uid}", uid=uid, gid=uid)
    assert [(daemon.share / f"of-{uid}").stat().st_uid - first for uid in (0, 1000)] == [0, 1000]
    # The process outside is still the user's, and the child another's: it can signal it all the same, and clean up.
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(SECONDS) == 0
    assert not daemon.socket.exists()


def start_as_nobody(tmp_path: pathlib.Path, folder: pathlib.Path, mapping: str) -> subprocess.CompletedProcess[str]:
    """Tries to start a daemon with these ids in both maps."""
    return subprocess.run([*given_ids(tmp_path), *nobodys_python(bounded=False), "-m", "virtiofsd",
                           "--socket-path", folder / "socket", "--shared-dir", folder / "share",
                           "--uid-map", mapping, "--gid-map", mapping], capture_output=True, text=True)


@pytest.mark.parametrize("mode", ["user"], indirect=True)
def test_ids_that_a_user_may_not_use_are_refused(mode: str, tmp_path: pathlib.Path) -> None:  # noqa: ARG001
    with public_folder() as public:
        folder = nobodys_folder(public)
        result = start_as_nobody(tmp_path, folder, ":0:1:10:")
        assert result.returncode == 1
        assert result.stderr.startswith("virtiofsd: newuidmap 0 1 10: ")
        assert not (folder / "socket").exists()


@pytest.mark.parametrize("mode", ["user"], indirect=True)
def test_a_share_that_is_out_of_reach_for_the_ids_is_named(mode: str, tmp_path: pathlib.Path) -> None:  # noqa: ARG001
    with public_folder() as public:
        folder = nobodys_folder(public)
        folder.chmod(0o700)
        result = start_as_nobody(tmp_path, folder, ":0:{}:{}:".format(*SUB_IDS))
        why = f"--shared-dir {folder / 'share'}: Permission denied, for the daemon in its sandbox"
        assert (result.returncode, result.stderr) == (1, f"virtiofsd: {why}\n")


@pytest.mark.parametrize("mode", ["user"], indirect=True)
def test_a_share_that_the_user_may_not_list_is_told(mode: str, start: Start) -> None:  # noqa: ARG001
    with public_folder() as public:
        share = public / "roots"
        share.mkdir(mode=0o700)
        daemon = start("--shared-dir", str(share))
        daemon.expected = [f"--shared-dir {share}: user 65534 may not list it"]
        wait_for_line(daemon, daemon.expected[0])
        wait_for_line(daemon, "Waiting")


# Forbidden system calls

def ended_by(daemon: Sandboxed, name: str, arguments: list[int], *, thread: bool) -> None:
    """The daemon makes a forbidden call, and is no more."""
    daemon.exit_status = SIGSYS
    daemon.expected = ["the daemon was ended by signal 31: it made a system call that --seccomp forbids"]
    assert daemon.ask("forbidden", thread=thread, name=name, arguments=arguments) is None
    assert daemon.process.wait(SECONDS) == SIGSYS
    assert not daemon.socket.exists()


@pytest.mark.parametrize("thread", [False, True], ids=["Python", "data plane"])
def test_who_starts_a_program_ends(sandboxed: Sandboxed, thread: bool) -> None:
    ended_by(sandboxed, "execve", [0, 0, 0], thread=thread)


@pytest.mark.parametrize("mode", ["namespace"], indirect=True)
@pytest.mark.parametrize("name, arguments", [
    ("ptrace", [0, 0, 0, 0]), ("mount", [0, 0, 0, 0, 0]), ("setns", [0, 0]),
    ("unshare", [1 << 28]), ("clone", [17, 0, 0, 0, 0]), ("chroot", [0]), ("bpf", [0, 0, 0]), ("keyctl", [0]),
    ("process_vm_readv", [1, 0, 0, 0, 0, 0])], ids=lambda value: value if isinstance(value, str) else "")
def test_a_forbidden_call_ends_the_daemon(sandboxed: Sandboxed, name: str, arguments: list[int]) -> None:
    ended_by(sandboxed, name, arguments, thread=False)


@pytest.mark.parametrize("name, arguments", [("socket", [1, 1, 0]), ("kill", [1, 0]), ("epoll_create1", [0]),
                                             ("recvmsg", [0, 0, 0])])
@pytest.mark.parametrize("mode", ["namespace"], indirect=True)
def test_threads_of_the_data_plane_may_do_less(sandboxed: Sandboxed, name: str, arguments: list[int]) -> None:
    assert sandboxed.ask("forbidden", name=name, arguments=arguments) is not None
    ended_by(sandboxed, name, arguments, thread=True)


@pytest.mark.parametrize("mode", ["namespace"], indirect=True)
def test_threads_of_a_device_have_the_filter_that_was_meant(sandboxed: Sandboxed,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from the kernel, instruction by instruction."""
    monkeypatch.setattr("os.getpid", lambda: 1)
    wanted = seccomp.filters("kill")
    with VirtioFs(sandboxed.socket) as device:
        fuse = FuseClient(device)
        fuse.init()
        answered(fuse, [ask(fuse)])
        tasks = sorted(int(task.name) for task in pathlib.Path(f"/proc/{sandboxed.pid}/task").iterdir())
        found = {tid: filters_of(tid) for tid in tasks}
    assert found.pop(sandboxed.pid) == [wanted[1]]
    assert all(filters in ([wanted[1]], [wanted[1], wanted[0]]) for filters in found.values()), list(found.values())
    assert list(found.values()).count([wanted[1], wanted[0]]) >= 2


def filters_of(tid: int) -> list[bytes]:
    """A thread's seccomp filters, the oldest first."""
    attach, detach, get_filter = 16, 17, 0x420C
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(attach, tid, None, None):
        pytest.skip(f"threads cannot be traced here: {os.strerror(ctypes.get_errno())}")
    try:
        os.waitpid(tid, 0x40000000)     # __WALL
        found: list[bytes] = []
        while (length := libc.ptrace(get_filter, tid, len(found), None)) > 0:
            code = ctypes.create_string_buffer(length * 8)
            libc.ptrace(get_filter, tid, len(found), code)
            found.append(code.raw)
        return found
    finally:
        libc.ptrace(detach, tid, None, None)


@pytest.mark.parametrize("mode", ["namespace"], indirect=True)
def test_trap_ends_the_daemon_too(start: Start) -> None:
    ended_by(start("--seccomp", "trap"), "chroot", [0], thread=False)


@pytest.mark.parametrize("action", ["log", "none"])
@pytest.mark.parametrize("mode", ["namespace"], indirect=True)
def test_log_and_none_let_it_happen(start: Start, action: str) -> None:
    daemon = start("--seccomp", action)
    for thread in (False, True):
        assert daemon.ask("forbidden", thread=thread, name="chroot", arguments=[0]) in ("EFAULT", "EPERM")
    assert daemon.status()["Seccomp"] == ("2" if action == "log" else "0")


# Python in the sandbox

def test_faults_are_logged_and_need_no_file(sandboxed: Sandboxed) -> None:
    sandboxed.expected = ["Traceback", "ERROR virtiofsd"]
    before = set(sandboxed.ask("modules"))
    sandboxed.ask("broken")
    for part in ("KeyError: '∅'", "a note", "During handling of the above", "ValueError: groß wie 1", "sandbox_probe",
                 "ExceptionGroup: several (2 sub-exceptions)", "FileNotFoundError: [Errno 2] absent",
                 "RuntimeError: unexpected"):
        assert part in sandboxed.log, part
    assert set(sandboxed.ask("modules")) == before


@pytest.mark.parametrize("mode", ["namespace"], indirect=True)
def test_nothing_is_imported_later(start: Start) -> None:
    """From the first front-end to the last, whatever it does wrong."""
    daemon = start("--keep-listening")
    daemon.expected = ["the connection is closed"]
    before = set(daemon.ask("modules"))
    for wrong in (False, True):
        with VirtioFs(daemon.socket, num_queues=2) as device:
            fuse = FuseClient(device)
            fuse.init()
            answered(fuse, [ask(fuse)])
            device.stop()
            device.start()
            daemon.process.send_signal(signal.SIGHUP)
            if wrong:
                device.connection.send_bytes(b"\xff" * 12)
                wait_until(lambda: "the connection is closed" in daemon.log, "a closed connection")
    assert set(daemon.ask("modules")) == before


def test_threads_can_be_ended_from_outside(sandboxed: Sandboxed) -> None:
    """For which the C library would look for another library."""
    assert sandboxed.ask("end_thread") is True


# Two processes

def gone(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_who_kills_the_parent_kills_the_child(sandboxed: Sandboxed) -> None:
    sandboxed.wait_until_it_serves()
    child = sandboxed.pid
    with VirtioFs(sandboxed.socket) as device:
        FuseClient(device).init()
        sandboxed.process.kill()
        wait_until(lambda: gone(child), "the child's end")
    sandboxed.process.wait()
    sandboxed.exit_status = -signal.SIGKILL


@pytest.mark.parametrize("milliseconds", [0, 2, 5, 10, 20])
def test_a_parent_that_dies_at_any_time_leaves_no_child(start: Start, milliseconds: int) -> None:
    """Also while the child is on its way into the sandbox, and before it has asked to be told."""
    daemon = start()
    child = daemon.pid
    time.sleep(milliseconds / 1000)
    daemon.process.kill()
    wait_until(lambda: gone(child), "the child's end")
    daemon.process.wait()
    daemon.exit_status = -signal.SIGKILL


def test_who_kills_the_child_ends_the_parent(sandboxed: Sandboxed) -> None:
    sandboxed.wait_until_it_serves()
    sandboxed.exit_status = 128 + signal.SIGKILL
    sandboxed.expected = ["the daemon was ended by signal 9"]
    os.kill(sandboxed.pid, signal.SIGKILL)
    assert sandboxed.process.wait(SECONDS) == 128 + signal.SIGKILL
    assert not sandboxed.socket.exists()


def test_a_daemon_that_aborts_ends(sandboxed: Sandboxed) -> None:
    """As the first process of a namespace it could not be ended by the signal alone."""
    assert sandboxed.ask("abort") is None
    sandboxed.exit_status = sandboxed.process.wait(SECONDS)
    # Where the signal is ignored the C library comes to an instruction that no program may execute, or a breakpoint.
    assert sandboxed.exit_status in (128 + signal.SIGABRT, 128 + signal.SIGSEGV, 128 + signal.SIGTRAP)
    sandboxed.expected = ["the daemon was ended by signal"]


@pytest.mark.parametrize("whom", ["parent", "child"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_either_process_can_be_told_to_end(sandboxed: Sandboxed, whom: str, number: signal.Signals) -> None:
    sandboxed.wait_until_it_serves()
    os.kill(sandboxed.process.pid if whom == "parent" else sandboxed.pid, number)
    assert sandboxed.process.wait(SECONDS) == 0
    assert not sandboxed.socket.exists()


@pytest.mark.parametrize("mode", ["namespace"], indirect=True)
def test_orphans_in_the_namespace_are_reaped(sandboxed: Sandboxed) -> None:
    """Whoever looks around in there with nsenter leaves some."""
    sandboxed.wait_until_it_serves()
    result = subprocess.run(["nsenter", "--target", str(sandboxed.pid), "--pid", "sh", "-c", "sleep 0.05 & exit 0"])
    assert result.returncode == 0
    children = pathlib.Path(f"/proc/{sandboxed.pid}/task/{sandboxed.pid}/children")
    time.sleep(0.2)
    wait_until(lambda: children.read_text() == "", "the orphan's end")


def test_the_child_has_no_terminal(sandboxed: Sandboxed) -> None:
    sandboxed.wait_until_it_serves()
    fields = pathlib.Path(f"/proc/{sandboxed.pid}/stat").read_text().rpartition(")")[2].split()
    session, terminal = int(fields[3]), int(fields[4])
    assert (session, terminal) == (sandboxed.pid, 0)


def test_a_socket_in_the_folder_of_another_is_removed(mode: str, tmp_path: pathlib.Path) -> None:
    """Management software starts the daemon as root, with a socket in a folder of the emulator's."""
    if mode == "user" or os.geteuid():
        pytest.skip("only root has sockets in folders of others")
    folder = tmp_path / "of-another"
    folder.mkdir()
    daemon = Sandboxed(probing(), folder, ["--sandbox", mode])
    os.chown(folder, 1000, 1000)
    folder.chmod(0o700)
    assert daemon.finish() == []
    assert not daemon.socket.exists()


# Mounts

@needs_root
def test_mounts_that_come_later_are_seen_and_none_goes_back(tmp_path: pathlib.Path) -> None:
    """Into the sandbox what the host mounts comes, and out of it nothing."""
    share = tmp_path / "mounted"
    share.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", share], check=True)
    try:
        subprocess.run(["mount", "--make-shared", share], check=True)
        (share / "below").mkdir()
        daemon = Sandboxed(probing(), tmp_path / "daemon", [], share)
        try:
            daemon.wait_until_it_serves()
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", share / "below"], check=True)
            (share / "below" / "file").touch()
            with VirtioFs(daemon.socket) as device:
                fuse = FuseClient(device)
                fuse.init()
                assert stat.S_ISREG(fuse.lookup(fuse.lookup(1, "below").nodeid, "file").attr_mode)
            mounts = pathlib.Path("/proc/self/mountinfo").read_text()
            assert [line for line in mounts.splitlines() if f" {share}" in line and "proc" in line] == []
        finally:
            assert daemon.finish() == []
    finally:
        subprocess.run(["umount", "-R", "-l", share], check=True)
