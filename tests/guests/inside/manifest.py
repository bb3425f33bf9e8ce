"""Prints all that can be told of the tree in the current folder, as JSON: equal for two that are to be the same."""

import errno
import hashlib
import json
import os
import stat


def describe(path: bytes) -> dict[str, object]:
    info = os.lstat(path)
    told: dict[str, object] = {
        "mode": oct(info.st_mode), "uid": info.st_uid, "gid": info.st_gid, "links": info.st_nlink, "inode": info.st_ino,
        "size": info.st_size, "blocks": info.st_blocks, "mtime": info.st_mtime_ns, "ctime": info.st_ctime_ns}
    if stat.S_ISREG(info.st_mode):
        with open(path, "rb") as file:
            told["content"] = hashlib.sha256(file.read()).hexdigest()
    elif stat.S_ISLNK(info.st_mode):
        told["target"] = repr(os.readlink(path))
    elif stat.S_ISBLK(info.st_mode) or stat.S_ISCHR(info.st_mode):
        told["device"] = info.st_rdev
    elif stat.S_ISDIR(info.st_mode):
        told["names"] = sorted(map(repr, os.listdir(path)))
    if not stat.S_ISLNK(info.st_mode):
        told["attributes"] = {name: os.getxattr(path, name).hex() for name in user_attributes(path)}
    return told


def user_attributes(path: bytes) -> list[str]:
    """None where attributes are not shared."""
    try:
        return sorted(name for name in os.listxattr(path) if name.startswith("user."))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return []


def main() -> None:
    paths = [os.path.join(folder, name) for folder, folders, files in os.walk(b".") for name in folders + files]
    print(json.dumps({repr(path): describe(path) for path in sorted(paths)}))


if __name__ == "__main__":
    main()
