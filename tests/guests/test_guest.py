"""The guest machinery itself, without any share: boots, scripts, time-outs, ends."""

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest

from guest.boot import Guest, GuestError, Kernel, ScriptTimeoutError, Share

pytestmark = pytest.mark.guest


def test_output_errors_and_status_arrive_separately(guest: Guest) -> None:
    result = guest.run("echo out; echo err >&2; exit 3")
    assert (result.status, result.stdout, result.stderr) == (3, "out\n", "err\n")


def test_each_script_has_a_fresh_shell(guest: Guest) -> None:
    guest.run("cd /tmp; VARIABLE=set; export VARIABLE")
    assert guest.run("echo $PWD $VARIABLE").stdout == "/\n"
    assert guest.run("echo $PWD", folder="/tmp").stdout == "/tmp\n"


def test_output_is_kept_byte_for_byte(guest: Guest) -> None:
    result = guest.run(r"printf 'no newline \377\000\r'")
    assert result.stdout.encode(errors="surrogateescape") == b"no newline \xff\0\r"


def test_megabytes_of_output_arrive_whole(guest: Guest) -> None:
    result = guest.run("seq 300000; seq 300000 >&2")
    numbers = "".join(f"{number}\n" for number in range(1, 300_001))
    assert result.stdout == numbers
    assert result.stderr == numbers


def test_a_script_may_be_longer_than_any_buffer_on_its_way(guest: Guest) -> None:
    assert guest.run("# a comment\n" * 3000 + "echo end").stdout == "end\n"
    assert guest.run("").status == 0


def test_output_is_copied_as_it_comes(guest: Guest) -> None:
    copy = io.BytesIO()
    guest.run("echo out; echo err >&2", stdout=copy)
    assert copy.getvalue() == b"out\n"


def test_check_raises_on_failure(guest: Guest) -> None:
    with pytest.raises(GuestError, match="status 5") as caught:
        guest.run("echo some output; exit 5", check=True)
    assert caught.value.stdout == "some output\n"


def test_a_script_can_be_interrupted_and_terminated(guest: Guest) -> None:
    assert guest.run("kill -INT $$").status == 130
    assert guest.run("trap 'kill 0' EXIT; sleep 60 & true").status == 143


def test_a_script_out_of_time_is_killed_with_its_children(guest: Guest) -> None:
    begin = time.monotonic()
    with pytest.raises(ScriptTimeoutError) as caught:
        guest.run("echo begun; sleep 1234 & wait; echo not reached", timeout=1)
    assert time.monotonic() - begin < 5
    assert caught.value.stdout == "begun\n"
    assert "1234" not in guest.run("ps").stdout


def test_what_an_earlier_script_left_in_the_background_does_not_mix_in(guest: Guest) -> None:
    guest.run("(sleep 0.3; echo late) & echo first")
    time.sleep(0.6)
    assert guest.run("echo second").stdout == "second\n"


def test_scripts_see_no_terminal_and_can_reopen_their_output(guest: Guest) -> None:
    assert guest.run("test -t 0 || test -t 1 || test -t 2; echo $?; echo again > /dev/stderr").stdout == "1\n"


def test_a_guest_that_dies_is_an_error_that_shows_its_console(kernel: Kernel) -> None:
    with pytest.raises(GuestError, match="the guest has ended") as caught, Guest(kernel=kernel) as guest:
        guest.run("echo last words; sleep 0.2; echo c > /proc/sysrq-trigger; sleep 60")
    assert caught.value.stdout == "last words\n"
    assert "sysrq triggered crash" in caught.value.console
    assert "GUEST_CHANNELS" in str(caught.value)
    assert not guest.alive


def test_a_guest_can_be_powered_off_and_killed(kernel: Kernel) -> None:
    with Guest(kernel=kernel) as guest:
        guest.poweroff()
        assert not guest.alive
    with Guest(kernel=kernel) as guest:
        guest.kill()
        assert not guest.alive
        with pytest.raises(GuestError, match="not running"):
            guest.run("true")


def test_a_guest_whose_daemon_dies_does_not_wait_for_the_time_out(kernel: Kernel) -> None:
    complaints: list[str] = []
    with (
        pytest.raises(GuestError, match="the daemon has gone"),
        Guest(kernel=kernel, watch=lambda: next(iter(complaints), None)) as guest,
    ):
        complaints.append("the daemon has gone")
        guest.run("sleep 60")


def test_a_guest_ends_with_the_process_that_started_it(kernel: Kernel, tmp_path: Path) -> None:
    program = (
        "from pathlib import Path\n"
        "from guest.boot import Guest\n"
        f"with Guest(kernel={kernel!r}, folder=Path({str(tmp_path)!r})) as guest:\n"
        "    print(guest.pid, flush=True)\n"
        "    guest.run('sleep 60')\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout
        pid = int(starter.stdout.readline())
        starter.kill()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_guest_without_its_share_does_not_come_up(tmp_path: Path) -> None:
    with pytest.raises(GuestError, match="did not come up"), Guest(Share("myfs", tmp_path / "none", mount="/mnt")):
        pass


def test_options_that_cannot_be_met_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="User-Mode Linux"):
        Guest(Share("myfs", tmp_path / "socket", queues=2), kernel="uml")
    with pytest.raises(ValueError, match="User-Mode Linux"):
        Guest(kernel="uml", cpus=2)
    with pytest.raises(ValueError, match="initramfs"):
        Guest(initramfs=False)
    with pytest.raises(ValueError, match="qemu-sid"):
        Guest(Share("myfs", tmp_path / "socket", dax=True))
