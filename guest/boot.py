"""Starts a Linux guest, runs scripts in it, and ends it.

    from guest.boot import Guest, Share

    with Guest(Share("myfs", socket, mount="/mnt")) as guest:
        result = guest.run("ls -l /mnt; echo hello > /mnt/new", timeout=60)
        assert result.status == 0

The guest has busybox for its root, or a share (mount="/"). Its scripts run one after the other, each in a fresh
shell. There is no network, and no KVM unless asked for: guests are emulated, and up in three seconds (uml: one).
"""

import contextlib
import math
import os
import secrets
import selectors
import shlex
import shutil
import socket
import tempfile
import termios
import time
import tty
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

from guest import fetch, image
from guest.monitor import Monitor
from guest.process import Process

Kernel = Literal["qemu", "qemu-sid", "uml"]
Accelerator = Literal["tcg", "kvm"]
BOX = "/run/guest/busybox"
LEAVE = b"\x1d"  # Ctrl-]
PIECE = 2048  # bytes of a script that the agent takes at once
POWERED_OFF = "reboot: Power down"  # the kernel's last line, when its devices are shut down
LOOK = 0.1  # seconds between looks at what it has said
LAST = 5  # seconds from that line to the end of a process that has no device to give back
GRACE = 10  # seconds in which a guest must answer that a script was out of time, and has been killed


@dataclass(frozen=True)
class Share:
    """A virtio-fs device, whose back-end listens at `socket`."""

    tag: str
    socket: Path
    mount: str | None = None
    """Where the guest mounts it: "/" makes it the guest's root; None leaves it to the scripts."""
    options: str = "rw"
    """Mount options."""

    # What follows is for QEMU; of User-Mode Linux the back-end decides all of it.
    queues: int | None = None
    """Request queues."""
    queue_size: int | None = None
    packed: bool = False
    """Packed virtqueues; a guest that doesn't get them is an error."""
    dax: bool = False
    """The generic device of the kernel "qemu-sid": tag and DAX window come from the back-end. See `options` too."""
    properties: Mapping[str, str] = field(default_factory=dict)
    """More properties of QEMU's device."""


@dataclass(frozen=True)
class Result:
    """What a script left. The status is the shell's: 128 + N when signal N ended it."""

    status: int
    stdout: str
    stderr: str


class GuestError(Exception):
    """The guest, or a script in it, did not do what it should. All that helps to find out why is in the message."""

    def __init__(self, message: str, guest: "Guest", stdout: str = "", stderr: str = "") -> None:
        self.reason = message
        self.stdout, self.stderr, self.console, self.command = stdout, stderr, guest.console, guest.command
        parts = {"stdout": stdout, "stderr": stderr, "console": self.console, "command": shlex.join(self.command)}
        for name, text in parts.items():
            if text.strip():
                message += f"\n--- {name}\n" + "\n".join(text.replace("\r", "").rstrip().splitlines()[-40:])
        super().__init__(message)


class ScriptTimeoutError(GuestError):
    """A script was out of time, and has been killed with all its process group; the guest goes on."""


class Guest:
    """A guest, from the `with` statement's begin to its end; it is powered off, or killed if there was an exception.

    kernel            "qemu": Linux 6.12 in the machine's QEMU; "qemu-sid": in the newest QEMU; "uml": User-Mode Linux,
                      the newest kernel
    initramfs         False: no initramfs; the kernel itself mounts the root share, which must have /guest (root.py)
    overlay           the root is an overlay over the root share; its upper layer is on the share of this tag, or
                      "tmpfs"
    cpus              2 unless said otherwise; User-Mode Linux has one
    kernel_arguments  are added to the kernel's command line, and qemu_arguments to QEMU's
    vmlinuz           another kernel for QEMU
    reboots           reboot() is wanted, which otherwise ends the guest (QEMU only)
    watch             is called often; what it returns, if anything, is the reason why the guest cannot go on: a daemon
                      has died, say. Without it a script waits for its time-out
    folder            where console, command line and the like are kept; by default they go with the guest
    """

    def __init__(
        self,
        *shares: Share,
        kernel: Kernel = "qemu",
        initramfs: bool = True,
        overlay: str | None = None,
        memory_mib: int = 512,
        cpus: int | None = None,
        accel: Accelerator = "tcg",
        kernel_arguments: str = "",
        qemu_arguments: Sequence[str] = (),
        vmlinuz: Path | None = None,
        reboots: bool = False,
        boot_timeout: float = 60,
        watch: Callable[[], str | None] = lambda: None,
        folder: Path | None = None,
    ) -> None:
        self.shares = shares
        self.kernel = kernel
        self.memory_mib = memory_mib
        self.cpus = cpus or (1 if kernel == "uml" else 2)
        self.command: list[str] = []
        self._root = next((share for share in shares if share.mount == "/"), None)
        self._initramfs = initramfs
        self._overlay = overlay
        self._accel = accel
        self._kernel_arguments = kernel_arguments
        self._qemu_arguments = qemu_arguments
        self._vmlinuz = vmlinuz
        self._reboots = reboots
        self._boot_timeout = boot_timeout
        self._watch = watch
        self._cleanup = contextlib.ExitStack()
        self._folder = folder
        self._process: Process | None = None
        self._monitor: Monitor | None = None
        self._console = ""
        self._check()

    def _check(self) -> None:
        """Nothing that was asked for is silently left out."""
        if not self._initramfs and (self._root is None or self.kernel == "uml"):
            raise ValueError("without initramfs there must be a root share and QEMU; fuse is a module in uml")
        if self._overlay and (self._root is None or not self._initramfs):
            raise ValueError("an overlay needs a root share below it, and an initramfs that mounts both")
        if any(share.dax for share in self.shares) and self.kernel != "qemu-sid":
            raise ValueError('dax needs the kernel "qemu-sid"')
        if any(share.dax and share.packed for share in self.shares):
            raise ValueError("the generic device takes packed queues from the back-end alone")
        if self.kernel == "uml":
            for_device = any(s.queues or s.queue_size or s.packed or s.properties for s in self.shares)
            for_qemu = self._accel != "tcg" or self._qemu_arguments or self._vmlinuz or self._reboots
            if for_device or for_qemu or self.cpus != 1:
                raise ValueError("User-Mode Linux has one CPU, its own kernel, and no QEMU that could take options")

    # Start and end

    def __enter__(self) -> Self:
        try:
            self._start()
            self.wait_until_up()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.alive:
                self.poweroff()
        finally:
            self.kill()

    def _start(self) -> None:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="guest-"))
            self._cleanup.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        # Our end and the guest's of each channel; the last is for a person.
        names = ("control", "out", "err", "terminal", *(() if self.kernel == "uml" else ("monitor",)))
        pairs = {name: socket.socketpair() for name in names}
        ours = {name: pair[0] for name, pair in pairs.items()}
        theirs = {name: pair[1] for name, pair in pairs.items()}
        for end in ours.values():
            self._cleanup.callback(end.close)
        self._control, self._out, self._err, self._terminal, *monitor = ours.values()
        descriptors = {name: end.fileno() for name, end in theirs.items()}
        try:
            build = self._uml_command if self.kernel == "uml" else self._qemu_command
            self.command = build(self._folder, descriptors)
            (self._folder / "command").write_text(shlex.join(self.command) + "\n")
            self._process = Process(
                self.command,
                self._folder / "log",
                inherit=list(descriptors.values()),
                environment={"TMPDIR": str(_memory_folder(self.memory_mib, self._folder))},
            )
            self._monitor = Monitor(monitor[0]) if monitor else None
        finally:
            for end in theirs.values():
                end.close()

    def wait_until_up(self) -> None:
        """Waits for the agent, then mounts the shares: at the start, and when the machine was reset."""
        try:
            self._serve({self._control.fileno(): _Line().feed}, self._boot_timeout, complain=self._panic)
        except _Stopped as stop:
            raise GuestError(f"the guest did not come up: {stop}", self) from None
        if self._monitor and not self._reboots:
            self._monitor.execute("set-action", reboot="shutdown")
        packed = sum(share.packed for share in self.shares)
        if packed:
            # Feature 34 is character 35, as cut counts. Which device is which share's cannot be told: compare numbers.
            features = "/sys/bus/virtio/drivers/virtiofs/virtio*/features"
            if self.run(f"{BOX} cut -c 35 {features}", check=True).stdout.split().count("1") < packed:
                raise GuestError("the back-end took no packed virtqueues", self)
        for share in self.shares:
            if share.mount and share is not self._root:
                where, options, tag = map(shlex.quote, (share.mount, share.options, share.tag))
                mount = f"{BOX} mkdir -p {where} && {BOX} mount -t virtiofs -o {options} {tag} {where}"
                try:
                    self.run(mount, timeout=self._boot_timeout, check=True)
                except GuestError as error:
                    raise GuestError(f"the guest cannot mount {share.tag}: {error.stderr.strip()}", self) from error

    def _panic(self) -> str | None:
        """Says why a guest that starts is given up.

        One boot in a hundred of QEMU 7.2, emulated with two CPUs, ends in a breakpoint that the kernel had set to
        change its own code, and had removed again. Such a guest is left to reset itself.
        """
        panics, excused = (self.console.count(text) for text in ("Kernel panic", "Oops: int3"))
        return "the kernel panicked" if panics > min(excused, 3) else None

    def poweroff(self, timeout: float = 20) -> None:
        """Unmounts the shares and powers the guest off."""
        points = [share.mount for share in reversed(self.shares) if share.mount and share is not self._root]
        script = "".join(f"{BOX} umount {shlex.quote(point)}\n" for point in points)
        script += f"{BOX} mount -o remount,ro /\n" if self._root else ""
        with contextlib.suppress(_Stopped):
            self._send("poweroff", f"{script}{BOX} sync\n{BOX} poweroff -f\n", 0, "/")
        deadline = time.monotonic() + timeout
        while self._running.wait(LOOK) is None and POWERED_OFF not in self.console:
            if time.monotonic() > deadline:
                raise GuestError(f"the guest has not powered off after {timeout:g} s\n{self._running.state()}", self)
        left = LAST if self.kernel == "uml" else max(LAST, deadline - time.monotonic())
        if self._running.wait(left) is not None:
            return
        # User-Mode Linux, once in some thousand times: the kernel is through, shares included, and its process stays.
        warnings.warn(f"the guest has powered off, but not its process\n{self._running.state()}", stacklevel=2)
        self._running.end()

    def reboot(self) -> None:
        """The guest restarts, and mounts its shares again; see `reboots`."""
        with contextlib.suppress(_Stopped):
            self._send("reboot", f"{BOX} sync\n{BOX} reboot -f\n", 0, "/")
        self.wait_until_up()

    def kill(self) -> None:
        """Ends the guest at once, as if its plug were pulled."""
        if self._process:
            self._process.end()
            self._console = self.console
            self._process = None
        self._cleanup.close()

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.status is None

    @property
    def console(self) -> str:
        """What the kernel and the emulator have said so far; still there when the guest has ended."""
        if self._process is None or self._folder is None:
            return self._console
        logs = (self._folder / "log", self._folder / "console")
        return "".join(log.read_text(errors="replace") for log in logs if log.exists())

    @property
    def pid(self) -> int:
        """The emulator's process: to stop it, to measure it."""
        return self._running.pid

    @property
    def monitor(self) -> Monitor:
        """QEMU's monitor."""
        if self._monitor is None:
            raise GuestError("the guest has no monitor", self)
        return self._monitor

    @property
    def _running(self) -> Process:
        if self._process is None:
            raise GuestError("the guest is not running", self)
        return self._process

    # Scripts

    def run(
        self,
        script: str,
        *,
        timeout: float | None = 60,
        folder: str = "/",
        check: bool = False,
        stdout: BinaryIO | None = None,
        stderr: BinaryIO | None = None,
    ) -> Result:
        """Runs a shell script in `folder` of the guest. What it writes is also copied to stdout and stderr as it comes.

        `check` makes any status but 0 a GuestError. What the script leaves in the background goes on running.
        """
        return self._run(script, timeout, folder, check, stdout, stderr, {})

    def shell(self, folder: str = "/root", keyboard: int = 0, screen: int = 1) -> None:
        """An interactive shell for the person at a terminal, until they leave it; Ctrl-] kills the guest."""
        size = shutil.get_terminal_size()
        device = "/dev/ttyS4" if self.kernel == "uml" else "/dev/hvc0"
        script = (
            f"export TERM={shlex.quote(os.environ.get('TERM', 'linux'))} PS1='guest:\\w# '\n"
            f"stty -F {device} sane rows {size.lines} cols {size.columns}\n"
            f"setsid -c /bin/sh -i <>{device} >&0 2>&1\n"
        )

        def typed(data: bytes) -> bool:
            if LEAVE in data:
                raise _Stopped("left")
            self._terminal.sendall(data)
            return True

        def shown(data: bytes) -> bool:
            os.write(screen, data)
            return True

        before = termios.tcgetattr(keyboard)
        try:
            tty.setraw(keyboard)
            self._run(script, None, folder, False, None, None, {self._terminal.fileno(): shown, keyboard: typed})
        except GuestError:
            if self.alive:
                self.kill()
        finally:
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)

    def _run(
        self,
        script: str,
        timeout: float | None,
        folder: str,
        check: bool,
        stdout: BinaryIO | None,
        stderr: BinaryIO | None,
        pumps: "Readers",
    ) -> Result:
        mark, limit = secrets.token_hex(16), math.ceil(timeout or 0)
        answer, out, err = _Line(), _Stream(mark.encode(), stdout), _Stream(mark.encode(), stderr)
        readers = {self._control.fileno(): answer.feed, self._out.fileno(): out.feed, self._err.fileno(): err.feed}
        try:
            self._send(mark, script, limit, folder)
            self._serve(readers, limit + GRACE if limit else None, pumps)
        except _Stopped as stop:
            raise GuestError(f"the script did not end: {stop}", self, out.text, err.text) from None
        _, status, *late = answer.text.split()
        if late:
            raise ScriptTimeoutError(f"the script was not done after {limit} s", self, out.text, err.text)
        if check and status != "0":
            raise GuestError(f"the script ended with status {status}", self, out.text, err.text)
        return Result(int(status), out.text, err.text)

    def _send(self, mark: str, script: str, limit: int, folder: str) -> None:
        """Gives the agent a script; agent.sh says how."""
        data = script.encode(errors="surrogateescape")
        head = f"{mark} {limit} {len(data)} {folder}\n".encode()
        for begin in range(0, max(1, len(data)), PIECE):
            if begin:
                self._serve({self._control.fileno(): _Line().feed}, GRACE)
            try:
                self._control.sendall(head + data[begin : begin + PIECE])
            except OSError:
                raise _Stopped(f"the guest has ended (status {self._running.wait(5)})") from None
            head = b""

    def _serve(
        self,
        readers: "Readers",
        timeout: float | None,
        pumps: "Readers | None" = None,
        complain: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Feeds the readers with what the guest sends until each has said that it has enough; pumps never have."""
        deadline = time.monotonic() + timeout if timeout else math.inf
        waiting = dict(readers)
        with selectors.DefaultSelector() as selector:
            for descriptor, reader in [*readers.items(), *(pumps or {}).items()]:
                selector.register(descriptor, selectors.EVENT_READ, reader)
            while waiting:
                ready = selector.select(min(0.25, max(0, deadline - time.monotonic())))
                for key, _ in ready:
                    data = os.read(key.fd, 65536)
                    if not data:
                        raise _Stopped(f"the guest has ended (status {self._running.wait(5)})")
                    if not key.data(data):
                        selector.unregister(key.fd)
                        waiting.pop(key.fd)
                if ready:
                    continue
                if self._running.status is not None:
                    raise _Stopped(f"the guest has ended (status {self._running.status})")
                if complaint := self._watch() or complain():
                    raise _Stopped(complaint)
                if time.monotonic() > deadline:
                    raise _Stopped(f"no answer after {timeout:g} s")

    # Command lines

    def _settings(self, console: str, channels: Sequence[str]) -> list[str]:
        """The kernel's command line. init.sh gets what is in capital letters as environment variables."""
        words = [f"console={console}", "quiet", "panic=-1", f"GUEST_CHANNELS={','.join(channels)}"]
        if self._root and self._initramfs:
            words += [f"GUEST_ROOT={self._root.tag}", f"GUEST_ROOT_OPTIONS={self._root.options}"]
            words += [f"GUEST_OVERLAY={self._overlay}"] if self._overlay else []
        elif self._root:
            options = self._root.options.split(",")  # the kernel has words of its own for two of them
            words += [f"root={self._root.tag}", "rootfstype=virtiofs", "ro" if "ro" in options else "rw"]
            words += [f"rootflags={','.join(option for option in options if option not in ('ro', 'rw'))}"]
            words += ["init=/guest/init"]
        return [*words, *shlex.split(self._kernel_arguments)]

    def _modules(self, folder: Path, *names: str) -> list[Path]:
        return [folder / f"{name}.ko" for name in (*names, *(["overlay"] if self._overlay else []))]

    def _qemu_command(self, folder: Path, channels: Mapping[str, int]) -> list[str]:
        program = str(fetch.qemu_sid()) if self.kernel == "qemu-sid" else "qemu-system-x86_64"
        if not shutil.which(program):
            raise fetch.FetchError("there is no qemu-system-x86_64: apt-get install qemu-system-x86")
        command = [program, "-nodefaults", "-no-user-config", "-display", "none"]
        command += ["-accel", "tcg,thread=multi", "-cpu", "max"] if self._accel == "tcg" else []
        command += ["-accel", "kvm", "-cpu", "host"] if self._accel == "kvm" else []
        command += ["-machine", "q35,memory-backend=memory", "-smp", str(self.cpus), "-m", str(self.memory_mib)]
        command += ["-object", f"memory-backend-memfd,id=memory,size={self.memory_mib}M,share=on"]
        command += ["-serial", f"file:{folder}/console", "-device", "virtio-serial-pci"]
        for number, (name, descriptor) in enumerate(channels.items(), 1):
            command += ["-chardev", f"socket,id={name},fd={descriptor}"]
            if name == "monitor":
                command += ["-mon", "chardev=monitor,mode=control"]
                continue
            port = f"virtserialport,nr={number}" if name != "terminal" else "virtconsole,nr=0"
            command += ["-device", f"{port},chardev={name}"]
        for share in self.shares:
            command += ["-chardev", f"socket,id=fs-{share.tag},path={share.socket}"]
            command += ["-device", _qemu_device(share)]
        settings = self._settings("ttyS0", ("vport0p1", "vport0p2", "vport0p3"))
        command += ["-kernel", str(self._vmlinuz or fetch.kernel()), "-append", shlex.join(settings)]
        if self._initramfs:
            modules = fetch.kernel().parent / "modules"
            (folder / "initramfs").write_bytes(image.initramfs(fetch.busybox(), self._modules(modules)))
            command += ["-initrd", str(folder / "initramfs")]
        return [*command, *self._qemu_arguments]

    def _uml_command(self, folder: Path, channels: Mapping[str, int]) -> list[str]:
        uml = fetch.uml()
        modules = self._modules(uml / "modules", "fuse", "virtiofs")
        (folder / "initramfs").write_bytes(image.initramfs(fetch.busybox(), modules))
        command = [str(uml / "linux"), f"mem={self.memory_mib}M", f"initrd={folder}/initramfs", "noreboot"]
        command += [f"uml_dir={folder}/", "umid=guest", "seccomp=auto", "con=null", "con0=null,fd:1"]
        command += [f"ssl{number}=fd:{descriptor}" for number, descriptor in enumerate(channels.values(), 1)]
        command += [f"virtio_uml.device={share.socket}:26" for share in self.shares]
        return command + self._settings("tty0", ("ttyS1", "ttyS2", "ttyS3"))


def _qemu_device(share: Share) -> str:
    if share.dax:
        words = ["vhost-user-test-device-pci", "virtio-id=26", f"num_vqs={(share.queues or 1) + 1}", "config_size=44"]
        words += [f"vq_size={share.queue_size}"] if share.queue_size else []
    else:
        words = ["vhost-user-fs-pci", f"tag={share.tag}"]
        words += [f"num-request-queues={share.queues}"] if share.queues else []
        words += [f"queue-size={share.queue_size}"] if share.queue_size else []
        words += ["packed=on"] if share.packed else []
    return ",".join([*words, f"chardev=fs-{share.tag}", *(f"{key}={value}" for key, value in share.properties.items())])


def _memory_folder(memory_mib: int, otherwise: Path) -> Path:
    """Where User-Mode Linux keeps the guest's memory, a file: in RAM if there is room."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > memory_mib << 20 else otherwise


class _Stopped(Exception):  # noqa: N818 (it becomes a GuestError, with all that is known, where that is known)
    """The guest will not send what we wait for."""


Readers = Mapping[int, Callable[[bytes], bool]]
"""What takes the data that comes from a descriptor, and says whether it wants more."""


class _Line:
    """One line from the agent."""

    def __init__(self) -> None:
        self.text = ""

    def feed(self, data: bytes) -> bool:
        self.text += data.decode()
        return not self.text.endswith("\n")


class _Stream:
    """What a script writes: the bytes between two marks. Those before are some earlier script's, in the background."""

    def __init__(self, mark: bytes, copy: BinaryIO | None) -> None:
        self._mark, self._copy = mark, copy
        self._pending = b""
        self._begun = False
        self._seen = bytearray()

    def feed(self, data: bytes) -> bool:
        self._pending += data
        if not self._begun:
            _, mark, rest = self._pending.partition(self._mark)
            if not mark:
                return True
            self._begun, self._pending = True, rest
        seen, end, _ = self._pending.partition(self._mark)
        if not end:
            # Keep what may be the begin of the mark.
            held = next(n for n in range(len(self._mark), -1, -1) if self._pending.endswith(self._mark[:n]))
            seen, self._pending = self._pending[: len(self._pending) - held], self._pending[len(self._pending) - held :]
        self._seen += seen
        if self._copy and seen:
            self._copy.write(seen)
            self._copy.flush()
        return not end

    @property
    def text(self) -> str:
        return self._seen.decode(errors="surrogateescape")
