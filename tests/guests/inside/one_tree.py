"""Does random things to names, attributes and contents in a tree, from several processes at once.

Each process has a folder of its own, of which it knows exactly what must be in it and how each operation must end; and
all have a common one, where a race may decide, and where names that nobody touches must always be listed. See
exercise.py for how it is run.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import ClassVar

import exercise
import linux

NAMES = ("a", "b", "c", "d", "a name with spaces", "ä", "n" * 255)
TOO_LONG = "n" * 256
DEEPEST = 5
LINKS_FOLLOWED = 40
OPEN_FILES = 6
LARGEST = 40_000
XATTRS = ("user.one", "user.two", "user." + "x" * 100)
STABLE = 30  # names in the common folder that nobody touches
RACES = frozenset({errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ELOOP, errno.EINVAL,
                   errno.EPERM, errno.ENXIO, errno.ENODATA})


class Node:
    """What is known of a file of whatever kind."""

    def __init__(self, kind: int, mode: int, uid: int, gid: int, target: str = "") -> None:
        self.kind, self.mode, self.uid, self.gid, self.target = kind, mode, uid, gid, target
        self.links = 2 if kind == stat.S_IFDIR else 1
        self.names: dict[str, Node] = {}
        self.data = bytearray()
        self.xattrs: dict[str, bytes] = {}
        self.inode: int | None = None  # once it was seen
        self.mtime: int | None = None  # while it is what was set

    @property
    def is_folder(self) -> bool:
        return self.kind == stat.S_IFDIR

    @property
    def is_file(self) -> bool:
        return self.kind == stat.S_IFREG

    def below(self) -> Iterator["Node"]:
        yield self
        for node in self.names.values():
            yield from node.below()

    def __contains__(self, node: "Node") -> bool:
        return any(found is node for found in self.below())


def refuse(number: int) -> None:
    raise OSError(number, os.strerror(number))


class OneTree(exercise.Exerciser):
    OPERATIONS: ClassVar = {
        "create": 10, "mkdir": 10, "symlink": 5, "mknod": 3, "link": 6, "rename": 10, "unlink": 6, "rmdir": 4,
        "chmod": 5, "chown": 3, "utime": 3, "set_xattr": 5, "get_xattr": 2, "remove_xattr": 2,
        "stat": 8, "read_link": 2, "list": 4, "read": 5, "write": 8, "truncate": 3,
        "open": 4, "close": 3, "read_open": 4, "write_open": 5, "change_open": 2, "tmpfile": 2, "allocate": 2,
        "copy": 3, "give": 1, "clear": 1, "race": 40, "list_common": 3, "sync": 1,
    }

    def __init__(self, seed: str, number: int) -> None:
        super().__init__(seed)
        self.number = number
        self.uid, self.gid = os.getuid(), os.getgid()
        self.privileged = self.uid == 0
        self.top = f"own{number}"
        os.mkdir(self.top, 0o755)
        self.root = Node(stat.S_IFDIR, 0o755, self.uid, self.gid)
        self.opened: list[tuple[int, Node]] = []
        self.counts_folders, self.not_empty = self.find_out()
        self.given = 0
        with self.perhaps("set_xattr"):
            os.setxattr(self.top, XATTRS[0], b"")
            os.removexattr(self.top, XATTRS[0])
        if "set_xattr" in self.refused:
            self.refused |= {"get_xattr", "remove_xattr"}

    def find_out(self) -> tuple[bool, int]:
        """What is not the same on all file systems: whether a folder has a link for each folder in it, and what a
        rename onto a folder says that is not empty, ENOTEMPTY or EEXIST.
        """
        before = os.stat(self.top).st_nlink
        os.makedirs(f"{self.top}/a/b")
        os.mkdir(f"{self.top}/c")
        after = os.stat(self.top).st_nlink
        try:
            os.rename(f"{self.top}/c", f"{self.top}/a")
        except OSError as error:
            refusal = error.errno or 0
        for name in ("a/b", "a", "c"):
            os.rmdir(f"{self.top}/{name}")
        assert refusal in (errno.ENOTEMPTY, errno.EEXIST)
        return after > before, refusal

    # Names

    def path(self, existing: float = 0.8) -> str:
        """A path in the own folder, without that: likely one that is there, and any name else."""
        node, names = self.root, []
        while len(names) < DEEPEST:
            known = list(node.names)
            if known and self.random.random() < existing:
                name = self.random.choice(known)
            else:
                name = self.random.choice((*NAMES, *NAMES, *NAMES, TOO_LONG))
            names.append(name)
            found = node.names.get(name)
            if found is not None and found.kind == stat.S_IFLNK and self.random.random() < 0.3:
                found = self.found("/".join(names))
            if found is None or self.random.random() < (0.4 if found.is_folder else 0.9):
                break
            node = found
        return "/".join(names)

    def real(self, path: str) -> str:
        return f"{self.top}/{path}" if path else self.top

    def found(self, path: str, follow: bool = True) -> Node | None:
        with contextlib.suppress(OSError):
            return self.existing(path, follow)
        return None

    def walk(self, path: str, follow: bool) -> tuple[Node, str, Node | None]:
        """Folder, name and node of a path, as the kernel finds them."""
        folder, name, node = self.root, "", None
        rest, followed = path.split("/"), 0
        while rest:
            name, *rest = rest
            if not folder.is_folder:
                refuse(errno.ENOTDIR)
            if len(os.fsencode(name)) > 255:
                refuse(errno.ENAMETOOLONG)
            node = folder.names.get(name)
            if node is None:
                if rest:
                    refuse(errno.ENOENT)
                break
            if node.kind == stat.S_IFLNK and (rest or follow):
                followed += 1
                if followed > LINKS_FOLLOWED:
                    refuse(errno.ELOOP)
                rest = node.target.split("/") + rest
            elif rest:
                folder = node
        return folder, name, node

    def existing(self, path: str, follow: bool = True) -> Node:
        node = self.walk(path, follow)[2]
        if node is None:
            refuse(errno.ENOENT)
        assert node is not None
        return node

    def missing(self, path: str, follow: bool = False) -> tuple[Node, str]:
        folder, name, node = self.walk(path, follow)
        if node is not None:
            refuse(errno.EEXIST)
        return folder, name

    # Expectations

    def same_end(self, text: str, model: Callable[[], object], real: Callable[[], object]) -> object:
        """Does it in the model, then really; both must end alike. It returns what the real one did, None for an error.
        """
        expected = 0
        try:
            model()
        except OSError as error:
            expected = error.errno or 0
        self.note(f"{text}{' -> ' + errno.errorcode[expected] if expected else ''}")
        try:
            result = real()
            number = 0
        except OSError as error:
            result, number = None, error.errno or 0
        assert number == expected, f"{errno.errorcode.get(number, 'success')}, " \
                                   f"not {errno.errorcode.get(expected, 'success')}: {text}"
        return result

    def same_attributes(self, info: os.stat_result, node: Node, text: str) -> None:
        found: dict[str, object] = {"kind": stat.S_IFMT(info.st_mode), "mode": oct(stat.S_IMODE(info.st_mode)),
                                    "owner": (info.st_uid, info.st_gid)}
        expected: dict[str, object] = {"kind": node.kind, "mode": oct(node.mode), "owner": (node.uid, node.gid)}
        if node.inode is None:
            node.inode = info.st_ino
        found["inode"], expected["inode"] = info.st_ino, node.inode
        if not node.is_folder or self.counts_folders:
            found["links"], expected["links"] = info.st_nlink, node.links
        if node.kind == stat.S_IFLNK:
            found["size"], expected["size"] = info.st_size, len(os.fsencode(node.target))
        if node.is_file:
            found["size"], expected["size"] = info.st_size, len(node.data)
        if node.mtime is not None:
            found["mtime"], expected["mtime"] = info.st_mtime_ns, node.mtime
        assert found == expected, f"{found}, not {expected}: {text}"

    def check(self) -> None:
        self.note("check all")
        self.check_below(self.root, self.top)
        for file, node in self.opened:
            self.same_attributes(os.fstat(file), node, "an open file")
            self.same_data(os.pread(file, LARGEST * 2, 0), node, "an open file")

    def check_below(self, node: Node, path: str) -> None:
        self.same_attributes(os.lstat(path), node, path)
        if node.kind == stat.S_IFLNK:
            assert os.readlink(path) == node.target, path
        if node.is_file:
            self.same_data(linux.read(path), node, path)
        if node.is_file or node.is_folder:
            self.same_xattrs(path, node)
        if node.is_folder:
            with os.scandir(path) as entries:
                found = {entry.name: (entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in entries}
            expected = {name: (child.is_folder, child.kind == stat.S_IFLNK) for name, child in node.names.items()}
            assert found == expected, f"{path}: {found}, not {expected}"
            for name, child in node.names.items():
                self.check_below(child, f"{path}/{name}")

    def same_data(self, found: bytes, node: Node, text: str) -> None:
        assert found == node.data, f"{len(found)} bytes are not the {len(node.data)} that were written: {text}"

    def same_xattrs(self, path: str, node: Node) -> None:
        if "set_xattr" not in self.refused:
            found = {name: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith("user.")}
            assert found == node.xattrs, f"{found}, not {node.xattrs}: {path}"

    # What changes on the way

    def owner_of_new(self, folder: Node) -> int:
        return folder.gid if folder.mode & stat.S_ISGID else self.gid

    def changed(self, node: Node) -> None:
        """Contents were changed, by whom it may be that must not leave set-id bits behind."""
        node.mtime = None
        if not self.privileged:
            self.drop_privileges(node)

    def allocated_or_copied(self, node: Node, file: int) -> None:
        """After an allocation or a copy, which may or may not take set-id bits away: a daemon is not always told that
        it was root's, and some file systems let them be where there is nothing to do.
        """
        node.mtime = None
        if stat.S_IMODE(os.fstat(file).st_mode) != node.mode:
            self.drop_privileges(node)

    def drop_privileges(self, node: Node) -> None:
        if not node.is_folder:
            node.mode &= ~stat.S_ISUID
            if node.mode & stat.S_IXGRP:
                node.mode &= ~stat.S_ISGID

    def gone(self, folder: Node, name: str) -> None:
        node = folder.names.pop(name)
        if node.is_folder:
            node.links = 0
            folder.links -= 1
        else:
            node.links -= 1

    def add(self, folder: Node, name: str, node: Node) -> Node:
        folder.names[name] = node
        if node.is_folder:
            folder.links += 1
        return node

    def put(self, node: Node, offset: int, data: bytes) -> None:
        if data:
            node.data.extend(bytes(max(0, offset - len(node.data))))
            node.data[offset:offset + len(data)] = data
            self.changed(node)

    def some(self) -> bytes:
        return self.random.randbytes(self.random.choice((1, 10, 4096, self.random.randrange(1, 9000))))

    def new_file(self, path: str, mode: int) -> Node:
        folder, name = self.missing(path, follow=True)
        return self.add(folder, name, Node(stat.S_IFREG, mode, self.uid, self.owner_of_new(folder)))

    # Making

    def create(self) -> None:
        path, mode = self.path(0.4), 0o600 | self.random.randrange(0o200)
        exclusive, truncate = self.random.random() < 0.3, self.random.random() < 0.3
        data = self.some()

        def model() -> None:
            if exclusive:
                self.missing(path)
            _, _, node = self.walk(path, follow=True)
            if node is None:
                node = self.new_file(path, mode)
            elif node.is_folder:
                refuse(errno.EISDIR)
            elif not node.is_file:
                refuse(errno.ENXIO)
            elif truncate:
                node.data.clear()
                self.changed(node)
            self.put(node, 0, data)

        def real() -> None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK
            flags |= (os.O_EXCL if exclusive else 0) | (os.O_TRUNC if truncate else 0)
            with linux.opened(self.real(path), flags, mode) as file:
                assert os.write(file, data) == len(data)

        self.same_end(f"create {path}{' exclusively' * exclusive}{' truncating' * truncate} {oct(mode)} +{len(data)}",
                      model, real)

    def mkdir(self) -> None:
        path, mode = self.path(0.5), 0o700 | self.random.randrange(0o100)

        def model() -> None:
            folder, name = self.missing(path)
            self.add(folder, name, Node(stat.S_IFDIR, mode | folder.mode & stat.S_ISGID, self.uid,
                                        self.owner_of_new(folder)))

        self.same_end(f"mkdir {path} {oct(mode)}", model, lambda: os.mkdir(self.real(path), mode))

    def symlink(self) -> None:
        path = self.path(0.4)
        target = self.random.choice((*NAMES, "a/b", "b/a", "c/d", "missing", "m" * 200 + "/" + "m" * 200))

        def model() -> None:
            folder, name = self.missing(path)
            self.add(folder, name, Node(stat.S_IFLNK, 0o777, self.uid, self.owner_of_new(folder), target))

        self.same_end(f"symlink {path} to {target}", model, lambda: os.symlink(target, self.real(path)))

    def mknod(self) -> None:
        path, kind = self.path(0.4), self.random.choice((stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG))

        def model() -> None:
            folder, name = self.missing(path)
            self.add(folder, name, Node(kind, 0o640, self.uid, self.owner_of_new(folder)))

        self.same_end(f"mknod {path} {oct(kind)}", model, lambda: os.mknod(self.real(path), kind | 0o640))

    def tmpfile(self) -> None:
        """A file without a name, which gets one."""
        path, data = self.path(0.4), self.some()
        try:
            file = os.open(self.top, os.O_TMPFILE | os.O_RDWR, 0o640)
        except OSError as error:
            if error.errno not in (*exercise.UNSUPPORTED, errno.EISDIR):
                raise
            self.refused.add("tmpfile")
            return
        node = Node(stat.S_IFREG, 0o640, self.uid, self.owner_of_new(self.root))
        node.links = 0
        os.write(file, data)
        self.put(node, 0, data)
        self.same_attributes(os.fstat(file), node, "a file without a name")

        def model() -> None:
            folder, name = self.missing(path)
            self.add(folder, name, node)
            node.links = 1

        self.same_end(f"tmpfile gets the name {path}", model, lambda: linux.link_open(file, self.real(path)))
        os.close(file)

    def link(self) -> None:
        old, new = self.path(0.9), self.path(0.4)

        def model() -> None:
            node = self.existing(old, follow=False)
            folder, name = self.missing(new)
            if node.is_folder:
                refuse(errno.EPERM)
            self.add(folder, name, node)
            node.links += 1

        self.same_end(f"link {old} to {new}", model,
                      lambda: os.link(self.real(old), self.real(new), follow_symlinks=False))

    # Renaming and removing

    def rename(self) -> None:
        old, new = self.path(0.9), self.path(0.5)
        flags = self.random.choice((0, 0, 0, linux.RENAME_NOREPLACE, linux.RENAME_EXCHANGE))

        def model() -> None:
            # In the kernel's order: both folders, the old name, the new one.
            old_folder, old_name = self.folder_of(old)
            new_folder, new_name = self.folder_of(new)
            if old_name == TOO_LONG:
                refuse(errno.ENAMETOOLONG)
            node, there = old_folder.names.get(old_name), new_folder.names.get(new_name)
            if node is None:
                refuse(errno.ENOENT)
            assert node is not None
            if new_name == TOO_LONG:
                refuse(errno.ENAMETOOLONG)
            if flags == linux.RENAME_NOREPLACE and there is not None:
                refuse(errno.EEXIST)
            if flags == linux.RENAME_EXCHANGE and there is None:
                refuse(errno.ENOENT)
            if new_folder in node:
                refuse(errno.EINVAL)
            if there is not None and old_folder in there:
                refuse(errno.EINVAL if flags == linux.RENAME_EXCHANGE else errno.ENOTEMPTY)
            if there is node:
                return
            if there is not None and flags != linux.RENAME_EXCHANGE:
                if node.is_folder and not there.is_folder:
                    refuse(errno.ENOTDIR)
                if there.is_folder and not node.is_folder:
                    refuse(errno.EISDIR)
                if there.names:
                    refuse(self.not_empty)
                self.gone(new_folder, new_name)
            del old_folder.names[old_name]
            old_folder.links -= node.is_folder
            if flags == linux.RENAME_EXCHANGE:
                assert there is not None
                new_folder.names.pop(new_name)
                new_folder.links -= there.is_folder
                self.add(old_folder, old_name, there)
            self.add(new_folder, new_name, node)

        self.same_end(f"rename {old} to {new} with {flags}", model,
                      lambda: linux.rename(self.real(old), self.real(new), flags))

    def folder_of(self, path: str) -> tuple[Node, str]:
        """Where the last name of a path is looked for, whatever it is."""
        above, _, name = path.rpartition("/")
        folder = self.existing(above) if above else self.root
        if not folder.is_folder:
            refuse(errno.ENOTDIR)
        return folder, name

    def unlink(self) -> None:
        path = self.path(0.9)

        def model() -> None:
            folder, name, node = self.walk(path, follow=False)
            if node is None:
                refuse(errno.ENOENT)
            elif node.is_folder:
                refuse(errno.EISDIR)
            self.gone(folder, name)

        self.same_end(f"unlink {path}", model, lambda: os.unlink(self.real(path)))

    def rmdir(self) -> None:
        path = self.path(0.9)

        def model() -> None:
            folder, name, node = self.walk(path, follow=False)
            if node is None:
                refuse(errno.ENOENT)
            elif not node.is_folder:
                refuse(errno.ENOTDIR)
            elif node.names:
                refuse(errno.ENOTEMPTY)
            self.gone(folder, name)

        self.same_end(f"rmdir {path}", model, lambda: os.rmdir(self.real(path)))

    def clear(self) -> None:
        """A folder with all that is in it, where there are enough."""
        if sum(1 for _ in self.root.below()) < 60:
            return
        name = self.random.choice(list(self.root.names))
        self.note(f"clear {name}")
        self.remove(self.root, name, self.real(name))

    def remove(self, folder: Node, name: str, path: str) -> None:
        node = folder.names[name]
        for below in list(node.names):
            self.remove(node, below, f"{path}/{below}")
        (os.rmdir if node.is_folder else os.unlink)(path)
        self.gone(folder, name)

    def give(self) -> None:
        """Moves something into the common folder, where nothing is known of it any more."""
        names = [name for name, node in self.root.names.items()
                 if all(below.is_folder or (below.links == 1 and all(below is not held for _, held in self.opened))
                        for below in node.below())]
        if names:
            name = self.random.choice(names)
            self.given += 1
            self.note(f"give {name}")
            os.rename(self.real(name), f"common/given{self.number}-{self.given}")
            self.gone(self.root, name)

    # Attributes

    def chmod(self) -> None:
        """A set-group-id bit with the group's execute bit alone: without it what a user's write leaves of it depends
        on the groups of who writes, which a daemon is not told. Nor is a sticky folder for others to write in: systems
        may protect these (fs.protected_symlinks and the like).
        """
        path, special = self.path(0.95), self.random.choice((0, 0, 0, 0o1000, 0o2010, 0o4000, 0o6010))
        mode = special | 0o700 | self.random.randrange(0o100)
        if special == 0o1000:
            mode &= ~0o22

        def model() -> None:
            self.existing(path).mode = mode

        self.same_end(f"chmod {path} {oct(mode)}", model, lambda: os.chmod(self.real(path), mode))

    def chown(self) -> None:
        """Of the owner and group that it has, for a user; root may say any."""
        path = self.path(0.95)
        uid, gid = self.uid, self.gid
        if self.privileged:
            uid, gid = self.random.choice((0, 77)), self.random.choice((0, 88))

        def model() -> None:
            node = self.existing(path, follow=False)
            node.uid, node.gid = uid, gid
            self.drop_privileges(node)

        self.same_end(f"chown {path} {uid}:{gid}", model, lambda: os.lchown(self.real(path), uid, gid))

    def utime(self) -> None:
        path, mtime = self.path(0.95), self.random.randrange(2 * 10**9) * 10**9 + self.random.randrange(10**9)

        def model() -> None:
            node = self.existing(path)
            if not node.is_folder:
                node.mtime = mtime

        self.same_end(f"utime {path} {mtime}", model, lambda: os.utime(self.real(path), ns=(mtime, mtime)))

    def set_xattr(self) -> None:
        path, name = self.path(0.95), self.random.choice(XATTRS)
        value = self.random.randbytes(self.random.randrange(40))
        flags = self.random.choice((0, os.XATTR_CREATE, os.XATTR_REPLACE))

        def model() -> None:
            node = self.existing(path)
            if not node.is_file and not node.is_folder:
                refuse(errno.EPERM)
            if flags == os.XATTR_CREATE and name in node.xattrs:
                refuse(errno.EEXIST)
            if flags == os.XATTR_REPLACE and name not in node.xattrs:
                refuse(errno.ENODATA)
            node.xattrs[name] = value

        self.same_end(f"set_xattr {path} {name[:20]} with {flags}", model,
                      lambda: os.setxattr(self.real(path), name, value, flags))

    def get_xattr(self) -> None:
        path, name = self.path(0.95), self.random.choice(XATTRS)
        expected = b""

        def model() -> None:
            nonlocal expected
            expected = self.xattrs_of(path, name)[name]

        found = self.same_end(f"get_xattr {path} {name[:20]}", model, lambda: os.getxattr(self.real(path), name))
        assert found is None or found == expected, f"{found!r}, not {expected!r}"

    def xattrs_of(self, path: str, name: str, missing: int = errno.ENODATA) -> dict[str, bytes]:
        node = self.existing(path)
        if not node.is_file and not node.is_folder:
            refuse(missing)
        if name not in node.xattrs:
            refuse(errno.ENODATA)
        return node.xattrs

    def remove_xattr(self) -> None:
        path, name = self.path(0.95), self.random.choice(XATTRS)

        def model() -> None:
            del self.xattrs_of(path, name, errno.EPERM)[name]

        self.same_end(f"remove_xattr {path} {name[:20]}", model, lambda: os.removexattr(self.real(path), name))

    # Looking

    def stat(self) -> None:
        path, follow = self.path(), self.random.random() < 0.5
        node: list[Node] = []
        info = self.same_end(f"stat {path}{' followed' * follow}", lambda: node.append(self.existing(path, follow)),
                             lambda: os.stat(self.real(path), follow_symlinks=follow))
        if isinstance(info, os.stat_result):
            self.same_attributes(info, node[0], path)

    def read_link(self) -> None:
        path = self.path(0.95)
        target = ""

        def model() -> None:
            nonlocal target
            node = self.existing(path, follow=False)
            if node.kind != stat.S_IFLNK:
                refuse(errno.EINVAL)
            target = node.target

        found = self.same_end(f"read_link {path}", model, lambda: os.readlink(self.real(path)))
        assert found is None or found == target, f"{found!r}, not {target!r}"

    def list(self) -> None:
        path = self.path(0.95)
        names: list[str] = []

        def model() -> None:
            node = self.existing(path)
            if not node.is_folder:
                refuse(errno.ENOTDIR)
            names.extend(node.names)

        found = self.same_end(f"list {path}", model, lambda: os.listdir(self.real(path)))
        if isinstance(found, list):
            assert sorted(found) == sorted(names), f"{sorted(found)}, not {sorted(names)}"

    # Contents

    def file_at(self, path: str, otherwise: int = errno.ENXIO) -> Node:
        """A regular file; FIFOs and sockets are opened without waiting, and refused."""
        node = self.existing(path)
        if node.is_folder:
            refuse(errno.EISDIR)
        if not node.is_file:
            refuse(otherwise)
        return node

    def random_file(self) -> str:
        """A path that is no FIFO's: to open one for reading would do, and tell nothing."""
        while True:
            path = self.path(0.95)
            node = self.found(path)
            if node is None or node.kind != stat.S_IFIFO:
                return path

    def read(self) -> None:
        path = self.random_file()
        node: list[Node] = []

        def real() -> bytes:
            with linux.opened(self.real(path), os.O_RDONLY | os.O_NONBLOCK) as file:
                return os.read(file, 2 * LARGEST)

        found = self.same_end(f"read {path}", lambda: node.append(self.file_at(path)), real)
        if isinstance(found, bytes):
            self.same_data(found, node[0], path)

    def write(self) -> None:
        path, data, offset = self.random_file(), self.some(), self.random.randrange(LARGEST - 9000)
        append = self.random.random() < 0.3

        def model() -> None:
            node = self.file_at(path)
            if append and len(node.data) + len(data) > LARGEST:
                refuse(errno.EFBIG)
            self.put(node, len(node.data) if append else offset, data)

        def real() -> None:
            with linux.opened(self.real(path), os.O_WRONLY | os.O_NONBLOCK | (os.O_APPEND if append else 0)) as file:
                if append and os.fstat(file).st_size + len(data) > LARGEST:
                    refuse(errno.EFBIG)  # by us: it is large enough
                count = os.write(file, data) if append else os.pwrite(file, data, offset)
                assert count == len(data)

        self.same_end(f"{'append' if append else f'write {offset}'}+{len(data)} {path}", model, real)

    def truncate(self) -> None:
        path, size = self.path(0.95), self.random.randrange(LARGEST)

        def model() -> None:
            self.resize(self.file_at(path, errno.EINVAL), size)

        self.same_end(f"truncate {path} to {size}", model, lambda: os.truncate(self.real(path), size))

    def resize(self, node: Node, size: int) -> None:
        del node.data[size:]
        node.data.extend(bytes(size - len(node.data)))
        self.changed(node)

    def copy(self) -> None:
        source, target = self.random_file(), self.random_file()
        one, other = self.found(source), self.found(target)
        if one is None or other is None or not one.is_file or not other.is_file or one is other or not one.data:
            return
        start = self.random.randrange(len(one.data))
        length = self.random.randrange(1, 9000)
        to = self.random.randrange(LARGEST - 9000)
        self.note(f"copy {source} {start}+{length} to {target} {to}")
        with linux.opened(self.real(source), os.O_RDONLY) as file, linux.opened(self.real(target), os.O_WRONLY) as into:
            count = os.copy_file_range(file, into, length, start, to)
            expected = min(length, len(one.data) - start)
            assert 0 < count <= expected, f"{count} bytes of {expected} were copied"
            mode = other.mode
            self.put(other, to, bytes(one.data[start:start + count]))
            other.mode = mode
            self.allocated_or_copied(other, into)

    # Open files, which may have lost their names

    def open(self) -> None:
        path = self.path(0.95)
        node = self.found(path)
        if node is not None and node.is_file and len(self.opened) < OPEN_FILES:
            self.note(f"open {path}")
            self.opened.append((os.open(self.real(path), os.O_RDWR), node))

    def close(self) -> None:
        if self.opened:
            self.note("close")
            os.close(self.opened.pop(self.random.randrange(len(self.opened)))[0])

    def read_open(self) -> None:
        if self.opened:
            file, node = self.random.choice(self.opened)
            self.note(f"read_open {file} with {node.links} links")
            self.same_attributes(os.fstat(file), node, "an open file")
            offset = self.random.randrange(LARGEST)
            assert os.pread(file, 5000, offset) == node.data[offset:offset + 5000], f"at {offset}"

    def write_open(self) -> None:
        if self.opened:
            file, node = self.random.choice(self.opened)
            data, offset = self.some(), self.random.randrange(LARGEST - 9000)
            self.note(f"write_open {file} {offset}+{len(data)} with {node.links} links")
            assert os.pwrite(file, data, offset) == len(data)
            self.put(node, offset, data)

    def change_open(self) -> None:
        if not self.opened:
            return
        file, node = self.random.choice(self.opened)
        self.note(f"change_open {file} with {node.links} links")
        match self.random.randrange(3):
            case 0:
                size = self.random.randrange(LARGEST)
                os.ftruncate(file, size)
                self.resize(node, size)
            case 1:
                node.mode = 0o600 | self.random.randrange(0o200)
                os.fchmod(file, node.mode)
            case 2:
                node.mtime = self.random.randrange(10**18)
                os.utime(file, ns=(5, node.mtime))

    def allocate(self) -> None:
        if not self.opened:
            return
        file, node = self.random.choice(self.opened)
        offset, length = self.random.randrange(LARGEST - 9000), self.random.randrange(1, 9000)
        if self.random.random() < 0.5:
            self.note(f"allocate {file} {offset}+{length}")
            linux.fallocate(file, 0, offset, length)
            node.data.extend(bytes(max(0, offset + length - len(node.data))))
        else:
            self.note(f"punch {file} {offset}+{length}")
            linux.fallocate(file, linux.FALLOC_PUNCH_HOLE | linux.FALLOC_KEEP_SIZE, offset, length)
            within = max(min(length, len(node.data) - offset), 0)
            node.data[offset:offset + within] = bytes(within)
        self.allocated_or_copied(node, file)

    def sync(self) -> None:
        self.note("sync")
        with linux.opened(self.top, os.O_RDONLY | os.O_DIRECTORY) as folder:
            os.fsync(folder)

    # The common folder

    def common(self) -> str:
        names = [self.random.choice(NAMES[:4]) for _ in range(self.random.choice((1, 1, 1, 2, 2, 3)))]
        return "/".join(["common", *names])

    def race(self) -> None:
        """Anything may come of it that the kernel says of names that are there, or not, or of another kind."""
        one, other = self.common(), self.common()
        what = self.random.choice(RACING)
        self.note(f"{what.__name__} {one} {other}")
        try:
            what(one, other)
        except OSError as error:
            if error.errno not in RACES:
                raise

    def list_common(self) -> None:
        """What is there all the while is listed once."""
        self.note("list_common")
        names = os.listdir("common")
        stable = sorted(name for name in names if name.startswith("stable"))
        assert stable == STABLE_NAMES, f"{len(stable)} names of {STABLE}: {set(STABLE_NAMES) ^ set(stable)}"


STABLE_NAMES = sorted(f"stable{number}{'x' * (5 * number)}" for number in range(STABLE))


def race_create(one: str, _: str) -> None:
    with linux.opened(one, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK) as file:
        os.pwrite(file, b"raced", os.fstat(file).st_size % 5000)


def race_create_exclusively(one: str, _: str) -> None:
    os.close(os.open(one, os.O_RDWR | os.O_CREAT | os.O_EXCL))


def race_mkdir(one: str, _: str) -> None:
    os.mkdir(one)


def race_rename(one: str, other: str) -> None:
    os.rename(one, other)


def race_exchange(one: str, other: str) -> None:
    linux.rename(one, other, linux.RENAME_EXCHANGE)


def race_link(one: str, other: str) -> None:
    os.link(one, other, follow_symlinks=False)


def race_symlink(one: str, other: str) -> None:
    os.symlink(os.path.basename(other), one)


def race_unlink(one: str, _: str) -> None:
    os.unlink(one)


def race_rmdir(one: str, _: str) -> None:
    os.rmdir(one)


def race_stat(one: str, _: str) -> None:
    os.stat(one)


def race_chmod(one: str, _: str) -> None:
    os.chmod(one, 0o777)


def race_truncate(one: str, _: str) -> None:
    os.truncate(one, 3000)


def race_list(one: str, _: str) -> None:
    with os.scandir(one) as entries:
        for entry in entries:
            entry.stat(follow_symlinks=False)


RACING = (race_create, race_create, race_create_exclusively, race_mkdir, race_mkdir, race_rename, race_rename,
          race_exchange, race_link, race_symlink, race_unlink, race_unlink, race_rmdir, race_stat, race_stat,
          race_chmod, race_truncate, race_list)


def prepare(_: int) -> None:
    os.mkdir("common", 0o777)
    for name in STABLE_NAMES:
        linux.write(f"common/{name}")


if __name__ == "__main__":
    exercise.main(OneTree, prepare)
