"""Where it is measured: a journaled file system for the share, and the files in it."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence

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


def write_patterns(descriptors: Sequence[int], size: int, *, inverted: bool = False) -> None:
    """Fills files with the pattern, by turns: memory that is taken first is more scattered, and slower to copy to, by a
    tenth, so that none of the files is to have it for itself.
    """
    for at in range(0, size, MIB):
        for fd in descriptors:
            write_pattern(fd, at, min(MIB, size - at), inverted)


def make_pattern_files(paths: Iterable[pathlib.Path], size: int) -> None:
    with contextlib.ExitStack() as stack:
        write_patterns([stack.enter_context(path.open("wb")).fileno() for path in paths], size)


def read_whole(path: pathlib.Path) -> None:
    """Has a file in the page cache, as some hosts take back what nobody has used for a minute."""
    with path.open("rb", buffering=0) as file:
        while file.read(MIB):
            pass


def dirty(paths: Iterable[pathlib.Path]) -> None:
    """Has pattern files of one size, that are going to be written, in the page cache with what is not to be in them
    then; changed just now, so that nothing is written back meanwhile.
    """
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("r+b", buffering=0)) for path in paths]
        for file in files:
            os.fsync(file.fileno())
        write_patterns([file.fileno() for file in files], os.fstat(files[0].fileno()).st_size, inverted=True)


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
    make_pattern_files([folder / "data"], data_mib * MIB)
    make_files(folder / "known", KNOWN_FILES)
    make_files(folder / "listed", LISTED_FILES)
    for number in range(COLD_FOLDERS):
        make_files(folder / f"cold/{number:02}", COLD_FILES, 0)
    for number in range(SOURCE_FOLDERS):
        make_files(folder / f"source/part-{number:02}", SOURCE_FILES, 4000)
    for contestant in contestants:
        own = folder / contestant
        own.mkdir()
        make_files(own / "known", KNOWN_FILES)
        (own / "created").mkdir()
    make_pattern_files([folder / contestant / "data" for contestant in contestants], data_mib * MIB)


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
