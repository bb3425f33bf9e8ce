"""Where it is measured: a journaled file system for the share, and the files in it."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

from bench.host import write_pattern
from bench.machine import CHECKOUT, read
from frontend.operations import PATTERN_ADDEND, PATTERN_FACTOR

MIB = 1 << 20
IMAGE_MIB = 4096
BYTES_PER_INODE = 3072                      # so that a million files fit into that
KNOWN_FILES = 1000
LISTED_FILES = 1000
COLD_FOLDERS, COLD_FILES = 20, 1000         # each
SOURCE_FOLDERS, SOURCE_FILES = 64, 24       # each
EDGE_PAGES = 8                              # as in frontend/load.pyx


class SetupError(Exception):
    """Something cannot be measured here; the message says why."""


def run(*command: str | pathlib.Path) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        raise SetupError(f"{command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise SetupError(f"{command[0]} failed: {error.stderr.strip()}") from None


def file_system(folder: pathlib.Path) -> str:
    """Its type as results name it, such as "ext4 with a journal"."""
    source, kind = run("findmnt", "-n", "-o", "SOURCE,FSTYPE", "-T", folder).splitlines()[0].split()
    if kind == "ext4":
        device = pathlib.Path(source).resolve().name
        journals = list(pathlib.Path("/proc/fs/jbd2").glob(f"{device}-*"))
        return "ext4 with a journal" if journals else "ext4 without a journal"
    return kind


def journaled(kind: str) -> bool:
    return kind in ("ext4 with a journal", "xfs")


@contextlib.contextmanager
def work_folder() -> Iterator[pathlib.Path]:
    """A folder for everything that is made here, on the checkout's disk; removed at the end."""
    base = CHECKOUT / ".cache/bench"
    base.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def loop_mount(image: pathlib.Path, mib: int, target: pathlib.Path, *, direct: bool = False) -> Iterator[str]:
    """A new ext4 in a sparse file, mounted; yields the device. Raises SetupError, for all but root too."""
    if os.geteuid():
        raise SetupError("a file system of our own takes root")
    with image.open("wb") as file:
        file.truncate(mib * MIB)
    run("mkfs.ext4", "-q", "-F", "-i", str(BYTES_PER_INODE), "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
    target.mkdir(exist_ok=True)
    device = run("losetup", "--find", "--show", f"--direct-io={'on' if direct else 'off'}", image)
    try:
        run("mount", device, target)
        try:
            yield device
        finally:
            run("umount", "--lazy", target)
    finally:
        run("losetup", "--detach", device)
        image.unlink()


@contextlib.contextmanager
def share(work: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
    """The directory to share and its file system: where there is no journal, a loop mount has one, if it can be had."""
    folder = work / "share"
    kind = file_system(work)
    if journaled(kind):
        folder.mkdir()
        yield folder, kind
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(loop_mount(work / "share.img", IMAGE_MIB, folder))
            kind = "ext4 with a journal, loop-mounted"
        except SetupError as error:
            folder.mkdir(exist_ok=True)
            kind = f"{kind} ({error})"
        yield folder, kind


def make_files(folder: pathlib.Path, count: int, size: int = 64) -> list[str]:
    """Small files; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"file-{number:04}.c" for number in range(count)]
    for name in names:
        (folder / name).write_bytes(b"x" * size)
    return names


def make_pattern_file(path: pathlib.Path, size: int) -> None:
    with path.open("wb") as file:
        write_pattern(file.fileno(), size)


def warm_up(path: pathlib.Path, writing: bool) -> None:
    """Has a pattern file in the page cache, as some hosts take back what nobody has used for a minute; where it is
    going to be written with what is not to be in it then, changed just now so that nothing is written back meanwhile.
    """
    with path.open("r+b" if writing else "rb", buffering=0) as file:
        if writing:
            os.fsync(file.fileno())
            write_pattern(file.fileno(), path.stat().st_size, inverted=True)
        else:
            while file.read(MIB):
                pass


def wrong_edges(path: pathlib.Path, size: int, length: int) -> int:
    """How many WRITEs of `length` bytes over the whole file have not left the pattern where the generator puts it."""
    pages = -(-length // 4096)
    step = -(-pages // EDGE_PAGES)
    wrong = 0
    with path.open("rb") as file:
        for offset in range(0, size - length + 1, length):
            for page in range(offset // length % step, pages, step):
                for at in (offset + 4096 * page, offset + (min(4096 * (page + 1), length) - 8) // 8 * 8):
                    word = (at * PATTERN_FACTOR + PATTERN_ADDEND) % (1 << 64)
                    wrong += os.pread(file.fileno(), 8, at) != word.to_bytes(8, "little")
    return wrong


def make_tree(folder: pathlib.Path, contestants: list[str], data_mib: int) -> None:
    """Everything that the rows work on; what they change, each contestant has for itself."""
    make_pattern_file(folder / "data", data_mib * MIB)
    make_files(folder / "known", KNOWN_FILES)
    make_files(folder / "listed", LISTED_FILES)
    for number in range(COLD_FOLDERS):
        make_files(folder / f"cold/{number:02}", COLD_FILES, 0)
    for number in range(SOURCE_FOLDERS):
        make_files(folder / f"source/part-{number:02}", SOURCE_FILES, 4000)
    for contestant in contestants:
        own = folder / contestant
        own.mkdir()
        make_pattern_file(own / "data", data_mib * MIB)
        make_files(own / "known", KNOWN_FILES)
        (own / "created").mkdir()


def drop_caches() -> bool:
    """Drops clean page cache, dentries and inodes; False where that takes root."""
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def bdi(device: str) -> pathlib.Path:
    """The sysfs folder of a block device's write-back settings."""
    return pathlib.Path("/sys/class/bdi") / read(f"/sys/class/block/{pathlib.Path(device).name}/dev")
