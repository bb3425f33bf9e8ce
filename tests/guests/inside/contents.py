"""What POSIX and Linux promise about reading, writing, holes, mappings and copies, whoever serves the files."""

import ctypes
import errno
import mmap
import os
import random
import resource
import signal
import subprocess
import time

import linux
from linux import Skipped, child, done, fails, mode_of, opened, read, write


def reads_and_writes_of_every_size_and_place() -> None:
    generator = random.Random(1)
    expected = bytearray()
    with opened("file", os.O_RDWR | os.O_CREAT) as file:
        for _ in range(120):
            size = generator.choice([1, 7, 511, 4095, 4096, 4097, 65536, 131072 + 13, 1 << 20])
            offset = generator.randrange(0, 3 << 20)
            data = generator.randbytes(size)
            if generator.random() < 0.5:
                expected.extend(bytes(max(0, offset + size - len(expected))))
                expected[offset:offset + size] = data
                assert os.pwritev(file, [data[:5], data[5:]], offset) == size
            else:
                buffers = [bytearray(3), bytearray(size)]
                count = os.preadv(file, buffers, offset)
                assert b"".join(buffers)[:count] == expected[offset:offset + size + 3]
    assert read("file") == expected


def files_beyond_four_gibibytes() -> None:
    with opened("file", os.O_RDWR | os.O_CREAT) as file:
        try:
            os.pwrite(file, b"far", 5 << 30)
        except OSError as error:
            if error.errno == errno.EFBIG:
                raise Skipped("the file system has no large files") from error
            raise
        os.pwrite(file, b"border", (4 << 30) - 3)
        assert os.fstat(file).st_size == (5 << 30) + 3
        assert os.fstat(file).st_blocks < 2000
        assert os.pread(file, 10, 5 << 30) == b"far"
        assert os.pread(file, 10, (4 << 30) - 5) == b"\0\0border\0\0"
        os.ftruncate(file, (4 << 30) + 1)
        assert os.stat("file").st_size == (4 << 30) + 1
        assert os.pread(file, 10, 4 << 30) == b"d"


def truncation_leaves_zeros_and_no_old_data() -> None:
    write("file", b"x" * 10000)
    os.truncate("file", 5000)
    os.truncate("file", 20000)
    assert read("file") == b"x" * 5000 + bytes(15000)
    os.truncate("file", 0)
    os.truncate("file", 100)
    assert read("file") == bytes(100)
    with fails(errno.EINVAL):
        os.truncate("file", -1)
    with fails(errno.EISDIR):
        os.truncate(".", 0)


def _write_between_holes(file: int, mebi: int) -> None:
    os.pwrite(file, b"x" * mebi, 8 * mebi)
    os.ftruncate(file, 20 * mebi)
    os.fsync(file)
    if os.fstat(file).st_blocks * 512 >= 20 * mebi:
        raise Skipped("the file system has no holes")


def holes_are_holes() -> None:
    mebi = 1 << 20
    with opened("file", os.O_RDWR | os.O_CREAT) as file:
        _write_between_holes(file, mebi)
        linux.fallocate(file, linux.FALLOC_PUNCH_HOLE | linux.FALLOC_KEEP_SIZE, 8 * mebi, mebi // 2)
        assert os.pread(file, 4, 8 * mebi) == bytes(4)
        assert os.fstat(file).st_size == 20 * mebi
    subprocess.run(["cp", "--sparse=always", "file", "copy"], check=True)
    assert os.stat("copy").st_blocks * 512 <= mebi
    subprocess.run(["cmp", "file", "copy"], check=True)


def holes_can_be_sought() -> None:
    mebi = 1 << 20
    with opened("file", os.O_RDWR | os.O_CREAT) as file:
        _write_between_holes(file, mebi)
        assert os.lseek(file, 0, os.SEEK_DATA) == 8 * mebi
        assert os.lseek(file, 8 * mebi, os.SEEK_HOLE) == 9 * mebi
        assert os.lseek(file, 0, os.SEEK_HOLE) == 0
        assert os.lseek(file, 10 * mebi, os.SEEK_HOLE) == 10 * mebi
        with fails(errno.ENXIO):
            os.lseek(file, 10 * mebi, os.SEEK_DATA)
        with fails(errno.ENXIO):
            os.lseek(file, 21 * mebi, os.SEEK_HOLE)
        linux.fallocate(file, linux.FALLOC_PUNCH_HOLE | linux.FALLOC_KEEP_SIZE, 8 * mebi, mebi // 2)
        os.fsync(file)
        assert os.lseek(file, 0, os.SEEK_DATA) == 8 * mebi + mebi // 2


def what_was_just_written_is_no_hole() -> None:
    with opened("file", os.O_RDWR | os.O_CREAT) as file, opened("file", os.O_RDONLY) as other:
        os.ftruncate(file, 1 << 20)
        os.pwrite(file, b"x" * 4096, 65536)
        for reader in (file, other):
            assert os.lseek(reader, 0, os.SEEK_DATA) <= 65536
            assert os.lseek(reader, 65536, os.SEEK_DATA) == 65536
            assert os.lseek(reader, 65536, os.SEEK_HOLE) >= 65536 + 4096
        subprocess.run(["cp", "file", "copy"], check=True)
        assert read("copy") == bytes(65536) + b"x" * 4096 + bytes((1 << 20) - 65536 - 4096)


def space_can_be_allocated() -> None:
    with opened("file", os.O_RDWR | os.O_CREAT) as file:
        linux.fallocate(file, 0, 0, 1 << 20)
        assert os.fstat(file).st_size == 1 << 20
        linux.fallocate(file, linux.FALLOC_KEEP_SIZE, 1 << 20, 1 << 20)
        info = os.fstat(file)
        assert info.st_size == 1 << 20
        assert info.st_blocks * 512 >= 2 << 20
        os.pwrite(file, b"x" * 8192, 0)
        try:
            linux.fallocate(file, linux.FALLOC_ZERO_RANGE, 1000, 5000)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
        else:
            assert os.pread(file, 8192, 0) == b"x" * 1000 + bytes(5000) + b"x" * 2192
        for mode in (linux.FALLOC_COLLAPSE_RANGE, linux.FALLOC_INSERT_RANGE):
            with fails(errno.EOPNOTSUPP, errno.EINVAL):
                linux.fallocate(file, mode, 100, 100)


def files_without_a_name_can_get_one() -> None:
    try:
        file = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise Skipped("the file system has no O_TMPFILE") from error
        raise
    os.write(file, b"text")
    assert os.listdir() == []
    assert os.fstat(file).st_nlink == 0
    linux.link_open(file, "named")
    os.close(file)
    assert read("named") == b"text"
    assert mode_of("named") == 0o640
    assert os.stat("named").st_nlink == 1
    with opened(".", os.O_TMPFILE | os.O_RDWR | os.O_EXCL) as never, fails(errno.ENOENT):
        linux.link_open(never, "second")


def shared_mappings_are_the_file() -> None:
    try:
        write("file", b"x" * 10000)
        with opened("file") as file:
            one = mmap.mmap(file, 10000)
            two = mmap.mmap(file, 10000)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise Skipped("no shared mappings here") from error
        raise
    one[5000:5004] = b"text"
    assert two[4999:5005] == b"xtextx"
    with opened("file") as file:
        assert os.pread(file, 6, 4999) == b"xtextx"
        os.pwrite(file, b"TEXT", 5000)
        assert one[4999:5005] == b"xTEXTx"
    one[0:3] = b"end"
    one.flush()
    os.unlink("file")
    one[9997:] = b"fin"
    assert two[9997:] == b"fin"
    one.close()
    two.close()


def what_a_mapping_wrote_is_in_the_file_when_it_is_gone() -> None:
    write("file", bytes(100_000))
    try:
        with opened("file") as file, mmap.mmap(file, 100_000) as mapping:
            for position in range(0, 100_000, 1000):
                mapping[position] = 1 + position // 1000
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise Skipped("no shared mappings here") from error
        raise
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
        file.write("3")
    found = read("file")
    assert all(found[position] == 1 + position // 1000 for position in range(0, 100_000, 1000))


def private_mappings_are_not_the_file() -> None:
    write("file", b"x" * 5000)
    with opened("file", os.O_RDONLY) as file:
        mapping = mmap.mmap(file, 5000, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    mapping[0:4] = b"mine"
    assert read("file") == b"x" * 5000
    assert mapping[:6] == b"minexx"


def reading_a_mapping_beyond_the_end_is_a_bus_error() -> None:
    write("file", b"x" * 100)
    with opened("file", os.O_RDONLY) as file:
        mapping = mmap.mmap(file, 0, mmap.MAP_PRIVATE, mmap.PROT_READ)
        longer = ctypes.CDLL(None, use_errno=True)
        longer.mmap.restype = ctypes.c_void_p
        address = longer.mmap(None, ctypes.c_size_t(8192), 1, 2, file, ctypes.c_long(0))
    assert mapping[:] == b"x" * 100
    assert ctypes.string_at(address, 110) == b"x" * 100 + bytes(10)
    process = os.fork()
    if process == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.string_at(address + 4096, 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGBUS


def programs_run_and_cannot_be_written_meanwhile() -> None:
    subprocess.run(["cp", "/bin/sleep", "program"], check=True)
    write("script", b"#!/bin/sh\necho $0 $1\n", mode=0o755)
    assert subprocess.run(["./script", "word"], capture_output=True, check=True).stdout == b"./script word\n"
    process = subprocess.Popen(["./program", "60"])
    try:
        deadline = time.monotonic() + 30
        while not os.readlink(f"/proc/{process.pid}/exe").endswith("/program"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with fails(errno.ETXTBSY):
            os.open("program", os.O_WRONLY)
    finally:
        process.kill()
        process.wait()


def copies_within_the_kernel() -> None:
    data = random.Random(2).randbytes(3 << 20)
    write("source", data)
    with opened("source", os.O_RDONLY) as source, opened("copy", os.O_RDWR | os.O_CREAT) as target:
        left = len(data)
        while left:
            count = os.copy_file_range(source, target, left)
            assert count > 0
            left -= count
        assert os.copy_file_range(source, target, 10) == 0
        assert os.copy_file_range(source, target, 5, 1, 0) == 5
    assert read("copy") == data[1:6] + data[5:]
    with opened("source", os.O_RDONLY) as source, opened("sent", os.O_WRONLY | os.O_CREAT) as target:
        while os.sendfile(target, source, None, 1 << 20):
            pass
    assert read("sent") == data
    with opened("source", os.O_RDONLY) as source, opened("spliced", os.O_WRONLY | os.O_CREAT) as target:
        reader, writer = os.pipe()
        while count := os.splice(source, writer, 65536):
            while count:
                count -= os.splice(reader, target, count)
    assert read("spliced") == data


def appenders_do_not_overwrite_each_other() -> None:
    def append(letter: bytes) -> None:
        with opened("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
            for number in range(200):
                os.write(file, letter * (20 + number % 7) + b"\n")

    done(*[child(lambda letter=letter: append(letter)) for letter in (b"a", b"b", b"c", b"d")])
    lines = read("log").splitlines()
    assert len(lines) == 800
    assert all(len(set(line)) == 1 for line in lines)
    for letter in b"abcd":
        assert [len(line) for line in lines if line[0] == letter] == [20 + number % 7 for number in range(200)]


def one_of_many_creates_exclusively() -> None:
    def create() -> None:
        wins = 0
        for number in range(100):
            try:
                os.close(os.open(f"lock{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                wins += 1
            except FileExistsError:
                pass
        with opened("wins", os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
            os.write(file, f"{wins}\n".encode())

    done(*[child(create) for _ in range(6)])
    assert sum(map(int, read("wins").split())) == 100


def many_processes_in_one_folder() -> None:
    def churn(letter: str) -> None:
        generator = random.Random(letter)
        mine: dict[str, bytes] = {}
        for step in range(150):
            name = f"{letter}{generator.randrange(20)}"
            match generator.randrange(4):
                case 0 | 1:
                    mine[name] = f"{letter} {step}".encode()
                    write(name, mine[name])
                case 2 if name in mine:
                    other = f"{letter}{generator.randrange(20)}"
                    os.rename(name, other)
                    mine[other] = mine.pop(name)
                case 3 if name in mine:
                    os.unlink(name)
                    mine.pop(name)
        assert {name for name in os.listdir() if name[0] == letter} == set(mine)
        for name, content in mine.items():
            assert read(name) == content

    done(*[child(lambda letter=letter: churn(letter)) for letter in "abcdef"])


def a_thousand_files_open_at_once() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    count = min(1000, hard - 50)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    files = [os.open(f"file{number}", os.O_RDWR | os.O_CREAT) for number in range(count)]
    for number, file in enumerate(files):
        os.write(file, f"{number}".encode())
    for number, file in enumerate(files):
        assert os.pread(file, 100, 0) == f"{number}".encode()
        os.close(file)
    for number in range(count):
        os.unlink(f"file{number}")


def what_the_cache_forgets_is_still_there() -> None:
    os.mkdir("folder")
    for number in range(200):
        write(f"folder/file{number}", f"{number}")
    os.mkdir("folder/below")
    with opened("folder/file7") as file, opened("folder/below", os.O_RDONLY) as below:
        os.unlink("folder/file7")
        for _ in range(3):
            with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as caches:
                caches.write("3")
            assert os.pread(file, 10, 0) == b"7"
            assert os.stat("..", dir_fd=below).st_ino == os.stat("folder").st_ino
            for number in range(8, 200, 20):
                assert read(f"folder/file{number}") == f"{number}".encode()
        os.pwrite(file, b"8", 0)
        assert os.pread(file, 10, 0) == b"8"


def syncing_succeeds_on_files_and_folders() -> None:
    with opened("file", os.O_RDWR | os.O_CREAT) as file:
        os.write(file, b"text")
        os.fdatasync(file)
        os.fsync(file)
        linux.syncfs(file)
    with opened(".", os.O_RDONLY) as folder:
        os.fsync(folder)
        linux.syncfs(folder)
    with opened("synced", os.O_WRONLY | os.O_CREAT | os.O_SYNC) as file:
        os.write(file, b"text")
    os.sync()
