"""Runs a shell script in a Linux guest against a daemon, and ends with the script's output and exit status.

  python -m guest [--daemon 'CMD' --share DIR] [OPTIONS] -- 'shell script'

The share is mounted at /mnt, which is the script's working directory. CMD is started with
`--socket-path PATH --shared-dir DIR` appended, and `--tag TAG` where the guest learns the tag from it (--kernel uml,
--dax); where {socket}, {share} or {tag} stand in it, nothing is appended. Statuses of our own: 124 the script ran
past --timeout; 125 no guest, no mount, or a daemon has died.

  python -m guest --daemon .venv/bin/virtiofsd --share /srv -- 'ls -l; echo hello > new'
  python -m guest --daemon .venv/bin/virtiofsd --kernel uml -- true              the newest client; an empty share
  python -m guest --daemon .venv/bin/virtiofsd --root -- fio --version           a Debian root, by a daemon of its own
  python -m guest --shell                                                        no share: a look around
"""

import argparse
import contextlib
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from guest import boot, fetch, root
from guest.process import Process, wait_for_socket

TIMED_OUT, FAILED = 124, 125


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m guest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--daemon", metavar="CMD", help="the daemon's command line; without it and --socket: no share")
    add("--socket", type=Path, metavar="PATH", help="a daemon that listens already, instead of --daemon")
    add("--share", type=Path, metavar="DIR", help="the shared folder (default: an empty one)")
    add("--tag", default="myfs")
    add("--extra-share", action="append", default=[], metavar="TAG=DIR",
        help="one more share, by a daemon of its own (the same CMD); the script mounts it")  # fmt: skip
    add("--mount-options", default="rw", metavar="OPTIONS")
    add("--root", nargs="?", type=Path, const=Path(), metavar="DIR",
        help="the guest's root is DIR, by a daemon of its own (default: that of `python -m guest.root`)")  # fmt: skip
    add("--root-daemon", metavar="CMD", help="the daemon of the root (default: the same CMD)")
    add("--root-options", default="rw", metavar="OPTIONS")
    add("--no-initramfs", action="store_true", help="the kernel itself mounts the root")
    add("--kernel", choices=get_args(boot.Kernel), default="qemu",
        help="Linux 6.12 in the machine's QEMU or in the newest, or the newest kernel as User-Mode Linux")  # fmt: skip
    add("--vmlinuz", type=Path, metavar="FILE", help="another kernel for QEMU")
    add("--accel", choices=get_args(boot.Accelerator), default="tcg")
    add("--cpus", type=int)
    add("--memory", type=int, default=512, metavar="MIB")
    add("--queues", type=int, metavar="N", help="request queues")
    add("--queue-size", type=int, metavar="N")
    add("--packed", action="store_true", help="packed virtqueues")
    add("--dax", action="store_true", help="a device whose DAX window the daemon owns, mounted with dax=always")
    add("--device", action="append", default=[], metavar="KEY=VALUE", help="more properties of QEMU's device")
    add("--qemu-argument", action="append", default=[], metavar="WORD", help="more arguments of QEMU")
    add("--kernel-arguments", default="", metavar="WORDS")
    add("--timeout", type=float, default=120, metavar="SECONDS", help="of the script")
    add("--keep", type=Path, metavar="DIR", help="keeps console, logs and command lines there")
    add("--quiet", action="store_true", help="no console and no logs on failure")
    add("--shell", action="store_true", help="an interactive shell in the guest, after the script if there is one")
    add("script", nargs="*")
    options = parser.parse_args(arguments)
    if not options.script and not options.shell:
        parser.error("there is no script (and no --shell)")
    if (options.extra_share or options.root is not None) and not (options.daemon or options.root_daemon):
        parser.error("--root and --extra-share need a --daemon")
    if any("=" not in pair for pair in options.device + options.extra_share):
        parser.error("--device and --extra-share take KEY=VALUE")
    if options.dax:
        options.kernel = "qemu-sid"
        options.mount_options += ",dax=always"
    return options


class Daemons:
    """The daemons of this run: started one by one, watched together, ended together."""

    def __init__(self, folder: Path, with_tags: bool) -> None:
        self.folder = folder
        self.with_tags = with_tags
        self.all: dict[str, Process] = {}

    def start(self, tag: str, command: str, share: Path) -> Path:
        """Returns the socket at which it listens."""
        socket = self.folder / f"{tag}.sock"
        values = {"{socket}": str(socket), "{share}": str(share.resolve()), "{tag}": tag}
        if not any(key in command for key in values):
            command += " --socket-path {socket} --shared-dir {share}" + " --tag {tag}" * self.with_tags
        words = shlex.split(command)
        for key, value in values.items():
            words = [word.replace(key, value) for word in words]
        self.all[tag] = Process(words, self.folder / f"{tag}.log")
        wait_for_socket(socket, self.all[tag])
        return socket

    def complaint(self) -> str | None:
        """Says which of them has ended."""
        ended = (tag for tag, daemon in self.all.items() if daemon.status is not None)
        return next((f"the daemon of {tag} has ended (status {self.all[tag].status})" for tag in ended), None)

    def end(self) -> str | None:
        """Ends them all, and says which of them did not end well."""
        statuses = {tag: daemon.wait(0.5) or daemon.end(5) for tag, daemon in self.all.items()}
        fine = (0, -signal.SIGTERM, 128 + signal.SIGTERM)
        bad = (tag for tag, status in statuses.items() if status not in fine)
        return next((f"the daemon of {tag} has ended with status {statuses[tag]}" for tag in bad), None)

    def logs(self) -> str:
        parts = ((tag, daemon.text().splitlines()[-40:]) for tag, daemon in self.all.items())
        return "\n".join(line for tag, lines in parts if lines for line in (f"--- daemon of {tag}", *lines))


def shares(options: argparse.Namespace, daemons: Daemons, folder: Path) -> list[boot.Share]:
    """Starts the daemons that the options ask for."""
    found = []
    if options.root is not None:
        tree = root.tree() if options.root == Path() else options.root
        socket = daemons.start("root", options.root_daemon or options.daemon, tree)
        found.append(boot.Share("root", socket, mount="/", options=options.root_options))
    if options.daemon or options.socket:
        share = options.share or folder / "share"
        if not options.share:
            share.mkdir()
        socket = options.socket.resolve() if options.socket else daemons.start(options.tag, options.daemon, share)
        found.append(
            boot.Share(
                options.tag,
                socket,
                mount="/mnt",
                options=options.mount_options,
                queues=options.queues,
                queue_size=options.queue_size,
                packed=options.packed,
                dax=options.dax,
                properties=dict(pair.split("=", 1) for pair in options.device),
            )
        )
    for tag, path in (pair.split("=", 1) for pair in options.extra_share):
        found.append(boot.Share(tag, daemons.start(tag, options.daemon, Path(path))))
    return found


def run(options: argparse.Namespace, daemons: Daemons, folder: Path) -> int:
    guest = boot.Guest(
        *shares(options, daemons, folder),
        kernel=options.kernel,
        initramfs=not options.no_initramfs,
        memory_mib=options.memory,
        cpus=options.cpus,
        accel=options.accel,
        kernel_arguments=options.kernel_arguments,
        qemu_arguments=options.qemu_argument,
        vmlinuz=options.vmlinuz,
        watch=daemons.complaint,
        folder=folder / "guest",
    )
    status = 0
    with guest:
        if options.script:
            out, err = sys.stdout.buffer, sys.stderr.buffer
            script = " ".join(options.script)
            status = guest.run(script, timeout=options.timeout, folder="/mnt", stdout=out, stderr=err).status
        if options.shell:
            print("A shell in the guest. To leave: exit, or Ctrl-] to kill the guest.", flush=True)
            guest.shell()
    if status and not options.quiet:
        print(f"--- console\n{guest.console}", file=sys.stderr)
    return status


def main() -> int:
    options = parse(sys.argv[1:])
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="guest-")))
        folder.mkdir(parents=True, exist_ok=True)
        daemons = Daemons(folder.resolve(), with_tags=options.kernel == "uml" or options.dax)
        stack.callback(daemons.end)
        try:
            status = run(options, daemons, folder.resolve())
            complaint = daemons.end()
            if complaint:
                status = FAILED
        except boot.GuestError as error:
            status = TIMED_OUT if isinstance(error, boot.ScriptTimeoutError) else FAILED
            complaint = error.reason if options.quiet else f"{error.reason}\n--- console\n{error.console}"
        except (fetch.FetchError, OSError, RuntimeError, ValueError) as error:
            status, complaint = FAILED, str(error)
        if complaint:
            print(f"guest: {complaint}", file=sys.stderr)
        if status and not options.quiet:
            print(daemons.logs(), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
