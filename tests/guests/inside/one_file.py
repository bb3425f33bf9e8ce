"""Does random things to one file for each process, and holds what comes of them against what its bytes must be then.

See exercise.py for how it is run.
"""

import errno
import mmap
import os
from typing import ClassVar

import exercise
import linux

MAXIMUM = 300_000
BLOCK = 4096
FALLOC = {
    "allocate": 0,
    "allocate_keep": linux.FALLOC_KEEP_SIZE,
    "punch": linux.FALLOC_PUNCH_HOLE | linux.FALLOC_KEEP_SIZE,
    "zero": linux.FALLOC_ZERO_RANGE,
    "zero_keep": linux.FALLOC_ZERO_RANGE | linux.FALLOC_KEEP_SIZE,
    "collapse": linux.FALLOC_COLLAPSE_RANGE,
    "insert": linux.FALLOC_INSERT_RANGE,
}
WAYS = {
    "usual": os.O_RDWR,
    "appending": os.O_RDWR | os.O_APPEND,
    "direct": os.O_RDWR | os.O_DIRECT,
    "synchronous": os.O_RDWR | os.O_DSYNC,
    "reading": os.O_RDONLY,
}


class OneFile(exercise.Exerciser):
    OPERATIONS: ClassVar = {
        "read": 12, "read_vectors": 3, "read_direct": 4, "read_mapping": 6, "read_private_mapping": 2, "read_all": 1,
        "write": 12, "write_vectors": 3, "write_direct": 4, "append": 3, "store": 8,
        "truncate": 6, "truncate_path": 2, "open_truncating": 1,
        "allocate": 2, "allocate_keep": 2, "punch": 4, "zero": 3, "zero_keep": 2, "collapse": 2, "insert": 2,
        "copy": 6, "sync": 2, "seek": 3, "size": 4, "reopen": 3, "reopen_all": 1, "map": 2, "unmap": 1, "forget": 1,
    }

    def __init__(self, seed: str, number: int) -> None:
        super().__init__(seed)
        self.path = f"file{number}"
        self.data = bytearray(b"x")
        self.files: dict[str, int] = {}
        self.mapping: mmap.mmap | None = None
        self.buffer = mmap.mmap(-1, MAXIMUM + 2 * BLOCK)  # lies on pages, as O_DIRECT has it
        linux.write(self.path, self.data)
        for way in WAYS:
            self.open(way)
        self.map()

    def open(self, way: str) -> None:
        try:
            self.files[way] = os.open(self.path, WAYS[way])
        except OSError as error:
            if way != "direct" or error.errno != errno.EINVAL:
                raise
            self.refused |= {"read_direct", "write_direct"}

    # What is done it to

    def file(self, *ways: str) -> int:
        return self.files[self.random.choice(ways)]

    def offset(self, limit: int) -> int:
        """Often a block's border, or close to one, or close to the end."""
        match self.random.randrange(4):
            case 0:
                place = self.random.randrange(limit + 1) // BLOCK * BLOCK
            case 1:
                place = self.random.randrange(limit + 1) // BLOCK * BLOCK + self.random.randrange(-2, 3)
            case 2:
                place = len(self.data) + self.random.randrange(-3, 4)
            case _:
                place = self.random.randrange(limit + 1)
        return min(max(place, 0), limit)

    def length(self) -> int:
        return self.random.choice((1, self.random.randrange(1, 100), self.random.randrange(1, 2 * BLOCK), BLOCK,
                                   self.random.randrange(1, 70_000)))

    def place(self) -> tuple[int, int]:
        """Offset and length of something in the file, if it isn't empty."""
        offset = self.offset(max(len(self.data) - 1, 0))
        return offset, min(self.length(), len(self.data) - offset)

    def blocks(self) -> tuple[int, int]:
        offset = self.random.randrange(MAXIMUM // BLOCK) * BLOCK
        return offset, min(self.random.randrange(1, 20) * BLOCK, MAXIMUM // BLOCK * BLOCK - offset)

    def some(self, length: int) -> bytes:
        """Never zeros, so that what should be a hole and is none is seen."""
        start = self.random.randrange(1, 200)
        return (bytes(range(start, 256)) * (length // (256 - start) + 1))[:length]

    def split(self, length: int) -> list[int]:
        cuts = sorted(self.random.randrange(length + 1) for _ in range(self.random.randrange(1, 6)))
        return [end - begin for begin, end in zip([0, *cuts], [*cuts, length], strict=True)]

    # What comes of it

    def extend(self, size: int) -> None:
        self.data.extend(bytes(max(0, size - len(self.data))))

    def put(self, offset: int, data: bytes) -> None:
        self.extend(offset)
        self.data[offset:offset + len(data)] = data

    def same(self, found: bytes, offset: int, length: int) -> None:
        expected = self.data[offset:offset + length]
        if found == expected:
            return
        assert len(found) == len(expected), f"{len(found)} bytes at {offset:#x}, not {len(expected)} of {length}"
        wrong = [place for place, (one, other) in enumerate(zip(found, expected, strict=True)) if one != other]
        first, last = wrong[0], wrong[-1]
        raise AssertionError(
            f"{len(wrong)} bytes from {offset + first:#x} to {offset + last:#x} are wrong, of {len(self.data):#x}: "
            f"{found[first:first + 16].hex()}, not {bytes(expected[first:first + 16]).hex()}")

    def wrote(self, count: int, length: int) -> None:
        assert count == length, f"{count} bytes of {length} were written"

    # Reading

    def read(self) -> None:
        offset, length = self.offset(MAXIMUM), self.length()
        self.note(f"read {offset:#x}+{length:#x}")
        self.same(os.pread(self.file("usual", "appending", "synchronous", "reading"), length, offset), offset, length)

    def read_vectors(self) -> None:
        offset, length = self.offset(len(self.data)), self.length()
        buffers = [bytearray(part) for part in self.split(length)]
        self.note(f"read {offset:#x}+{length:#x} in {len(buffers)} parts")
        count = os.preadv(self.file("usual", "reading"), buffers, offset)
        self.same(b"".join(buffers)[:count], offset, length)

    def read_direct(self) -> None:
        offset, length = self.blocks()
        self.note(f"read_direct {offset:#x}+{length:#x}")
        with memoryview(self.buffer) as view:
            count = os.preadv(self.files["direct"], [view[:length]], offset)
            self.same(bytes(view[:count]), offset, length)

    def read_mapping(self) -> None:
        """With what is behind the end in its page: zeros, whatever was there before."""
        offset, length = self.place()
        self.note(f"read_mapping {offset:#x}+{length:#x} of {len(self.data):#x}")
        with Mapped(self) as mapping:
            if mapping:
                self.same(mapping[offset:offset + length], offset, min(length, max(len(mapping) - offset, 0)))
                size = len(self.data)
                assert not any(mapping[size:-(-size // BLOCK) * BLOCK]), f"something is behind the end, {size:#x}"

    def read_private_mapping(self) -> None:
        if not self.data:
            return
        self.note("read_private_mapping")
        with mmap.mmap(self.files["reading"], 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as mapping:
            self.same(mapping[:], 0, len(self.data))

    def read_all(self) -> None:
        self.check()

    def check(self) -> None:
        self.note("check all")
        with open(self.path, "rb") as file:
            self.same(file.read(), 0, MAXIMUM)
        self.size()

    def size(self) -> None:
        sizes = {os.stat(self.path).st_size, *(os.fstat(file).st_size for file in self.files.values()),
                 os.lseek(self.file("usual", "reading"), 0, os.SEEK_END)}
        assert sizes == {len(self.data)}, f"sizes {sizes}, not {len(self.data)}"

    # Writing

    def write(self) -> None:
        length = self.length()
        offset = self.offset(MAXIMUM - length)
        self.note(f"write {offset:#x}+{length:#x}")
        data = self.some(length)
        self.wrote(os.pwrite(self.file("usual", "usual", "synchronous"), data, offset), length)
        self.put(offset, data)

    def write_vectors(self) -> None:
        length = self.length()
        offset = self.offset(MAXIMUM - length)
        data = self.some(length)
        parts, start = [], 0
        for part in self.split(length):
            parts.append(data[start:start + part])
            start += part
        self.note(f"write {offset:#x}+{length:#x} in {len(parts)} parts")
        self.wrote(os.pwritev(self.files["usual"], parts, offset), length)
        self.put(offset, data)

    def write_direct(self) -> None:
        offset, length = self.blocks()
        self.note(f"write_direct {offset:#x}+{length:#x}")
        data = self.some(length)
        with memoryview(self.buffer) as view:
            view[:length] = data
            self.wrote(os.pwritev(self.files["direct"], [view[:length]], offset), length)
        self.put(offset, data)

    def append(self) -> None:
        length = self.length()
        if len(self.data) + length > MAXIMUM:
            return
        self.note(f"append {length:#x} at {len(self.data):#x}")
        data = self.some(length)
        self.wrote(os.write(self.files["appending"], data), length)
        self.put(len(self.data), data)

    def truncate(self) -> None:
        size = self.offset(MAXIMUM)
        self.note(f"truncate {len(self.data):#x} to {size:#x}")
        os.ftruncate(self.file("usual", "appending"), size)
        self.resize(size)

    def truncate_path(self) -> None:
        size = self.offset(MAXIMUM)
        self.note(f"truncate {len(self.data):#x} to {size:#x} by path")
        os.truncate(self.path, size)
        self.resize(size)

    def resize(self, size: int) -> None:
        del self.data[size:]
        self.extend(size)

    def open_truncating(self) -> None:
        self.note("open_truncating")
        os.close(os.open(self.path, os.O_WRONLY | os.O_TRUNC))
        self.data.clear()

    # Mappings

    def store(self) -> None:
        offset, length = self.place()
        with Mapped(self) as mapping:
            if not mapping or offset >= len(mapping):
                return
            data = self.some(min(length, len(mapping) - offset))
            synced = self.random.randrange(4) == 0
            self.note(f"store {offset:#x}+{len(data):#x}{' and msync' if synced else ''}")
            mapping[offset:offset + len(data)] = data
            if synced:
                mapping.flush()
        self.put(offset, data)

    def map(self) -> None:
        self.unmap()
        if self.data and "map" not in self.refused:
            self.note("map")
            try:
                self.mapping = mmap.mmap(self.files["usual"], 0)
            except OSError as error:
                if error.errno != errno.ENODEV:  # as without a cache
                    raise
                self.refused |= {"map", "unmap", "store", "read_mapping"}

    def unmap(self) -> None:
        if self.mapping is not None:
            self.note("unmap")
            self.mapping.close()
            self.mapping = None

    # Ranges

    def change_range(self, kind: str, offset: int, length: int) -> bool:
        """Whether it could be done."""
        self.note(f"{kind} {offset:#x}+{length:#x} of {len(self.data):#x}")
        with self.perhaps(kind):
            linux.fallocate(self.files["usual"], FALLOC[kind], offset, length)
        return kind not in self.refused

    def range(self) -> tuple[int, int]:
        length = self.length()
        return self.offset(MAXIMUM - length), length

    def allocate(self) -> None:
        offset, length = self.range()
        if self.change_range("allocate", offset, length):
            self.extend(offset + length)

    def allocate_keep(self) -> None:
        self.change_range("allocate_keep", *self.range())

    def clear(self, kind: str) -> None:
        offset, length = self.range()
        if self.change_range(kind, offset, length):
            if kind == "zero":
                self.extend(offset + length)
            within = max(min(length, len(self.data) - offset), 0)
            self.data[offset:offset + within] = bytes(within)

    def punch(self) -> None:
        self.clear("punch")

    def zero(self) -> None:
        self.clear("zero")

    def zero_keep(self) -> None:
        self.clear("zero_keep")

    def collapse(self) -> None:
        offset, length = self.blocks()
        if offset + length < len(self.data) and self.change_range("collapse", offset, length):
            del self.data[offset:offset + length]

    def insert(self) -> None:
        offset, length = self.blocks()
        if offset < len(self.data) and len(self.data) + length <= MAXIMUM \
                and self.change_range("insert", offset, length):
            self.data[offset:offset] = bytes(length)

    def copy(self) -> None:
        """It may stop short; ranges must not overlap."""
        source, length = self.place()
        target = self.offset(MAXIMUM - length)
        self.note(f"copy {source:#x}+{length:#x} to {target:#x} of {len(self.data):#x}")
        if length and source < target + length and target < source + length:
            with linux.fails(errno.EINVAL):
                os.copy_file_range(self.files["reading"], self.files["usual"], length, source, target)
            return
        while length:
            count = os.copy_file_range(self.files["reading"], self.files["usual"], length, source, target)
            assert 0 < count <= length, f"{count} bytes of {length} were copied"
            self.put(target, self.data[source:source + count])
            source, target, length = source + count, target + count, length - count

    def seek(self) -> None:
        """What is no data is zeros. What is not written back yet a FUSE client does not know of, hence the sync."""
        self.note("seek")
        file = self.file("usual", "reading")
        os.fsync(self.files["usual"])
        place = 0
        while place < len(self.data):
            try:
                data = os.lseek(file, place, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                data = len(self.data)
            assert place <= data <= len(self.data), f"data after {place:#x} at {data:#x}"
            assert not any(self.data[place:data]), f"no data from {place:#x} to {data:#x}, and there are some"
            if data < len(self.data):
                place = os.lseek(file, data, os.SEEK_HOLE)
                assert data < place <= len(self.data), f"a hole after {data:#x} at {place:#x}"
            else:
                place = data
        with linux.fails(errno.ENXIO):
            os.lseek(file, len(self.data), self.random.choice((os.SEEK_DATA, os.SEEK_HOLE)))

    # The rest

    def sync(self) -> None:
        self.note("sync")
        self.random.choice((os.fsync, os.fdatasync))(self.file("usual", "reading"))

    def reopen(self) -> None:
        way = self.random.choice(list(self.files))
        self.note(f"reopen {way}")
        os.close(self.files[way])
        self.open(way)

    def reopen_all(self) -> None:
        """Now and then nobody has it open, or mapped."""
        self.note("reopen_all")
        self.unmap()
        for file in self.files.values():
            os.close(file)
        for way in list(self.files):
            self.open(way)

    def forget(self) -> None:
        """The pages that are clean, so that what follows is read from where they came from."""
        offset, length = self.range()
        self.note(f"forget {offset:#x}+{length:#x}")
        os.posix_fadvise(self.files["usual"], offset, length, os.POSIX_FADV_DONTNEED)


class Mapped:
    """The mapping that stays, or a new one that does not; none of an empty file, and none where there can be none.

    That which stays is as long as the file was: what lies behind the end's page now must not be touched.
    """

    def __init__(self, one: OneFile) -> None:
        self.one = one
        self.own: mmap.mmap | None = None

    def __enter__(self) -> mmap.mmap | None:
        if not self.one.data:
            return None
        if self.one.mapping is not None:
            return self.one.mapping
        if "map" in self.one.refused:
            return None
        self.own = mmap.mmap(self.one.files["usual"], 0)
        return self.own

    def __exit__(self, *_: object) -> None:
        if self.own is not None:
            self.own.close()


if __name__ == "__main__":
    exercise.main(OneFile)
