"""Changes files that others change, too, each under a lock of its own, and looks whether all of it is of the last one.

    python3 hammer.py flock|lockf TURNS SEED     in a folder with files 0 to 3, locks and logs that `begin` made

A file holds its version, the checksum of what follows, and that. Its log has a line for each version.
"""

import fcntl
import hashlib
import os
import random
import sys

FILES = 4


def content(version: int, data: bytes) -> bytes:
    return f"{version} {hashlib.sha256(data).hexdigest()}\n".encode() + data


def begin() -> None:
    for number in range(FILES):
        for name, text in (("file", content(0, b"")), ("lock", b""), ("log", b"")):
            with open(f"{name}{number}", "wb") as file:
                file.write(text)


def check(number: int) -> int:
    """The version of a file, all of which must fit together."""
    with open(f"file{number}", "rb") as file:
        head, _, data = file.read().partition(b"\n")
        size = os.fstat(file.fileno()).st_size
    version, digest = head.decode().split()
    assert size == len(head) + 1 + len(data), f"file{number}: {size} bytes, of which {len(head) + 1 + len(data)} came"
    assert digest == hashlib.sha256(data).hexdigest(), f"file{number}: version {version} has other contents"
    with open(f"log{number}", encoding="ascii") as file:
        lines = file.read().splitlines()
    assert len(lines) == int(version), f"file{number}: version {version}, and {len(lines)} lines of log"
    return int(version)


def change(generator: random.Random, number: int, version: int) -> None:
    data = generator.randbytes(generator.choice([0, 10, 4000, 4096, 20000]))
    name = f"file{number}"
    match generator.randrange(3):
        case 0:  # the same file anew
            with open(name, "wb") as file:
                file.write(content(version, data))
        case 1:  # another file of the name
            with open(f"{name}.new", "xb") as file:
                file.write(content(version, data))
            os.rename(f"{name}.new", name)
        case 2:  # over what is there, and cut off
            with open(name, "r+b") as file:
                file.write(content(version, data))
                file.truncate()
    with open(f"log{number}", "a", encoding="ascii") as file:
        file.write(f"{version}\n")


def main() -> None:
    lock = {"flock": fcntl.flock, "lockf": fcntl.lockf}[sys.argv[1]]
    generator = random.Random(sys.argv[3])
    for _ in range(int(sys.argv[2])):
        number = generator.randrange(FILES)
        with open(f"lock{number}", "r+b") as held:
            lock(held, fcntl.LOCK_EX)
            change(generator, number, check(number) + 1)
            check(number)


if __name__ == "__main__":
    main()
