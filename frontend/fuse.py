"""The FUSE client: one method for every operation; each checks its reply and raises FuseError for an error."""

import os
import stat
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple, Unpack

from frontend import fuse_abi as abi
from frontend.device import VirtioFs
from frontend.fuse_abi import Opcode
from frontend.fuse_transport import Fields, FuseError, FuseTransport, How, Reply, ReplyError, Ticket, name

__all__ = ["LINUX_FLAGS", "DirEntry", "FuseClient", "FuseError", "Reply", "ReplyError", "Ticket"]

ROOT = abi.FUSE_ROOT_ID
# What Linux 7.2 offers without a DAX window.
LINUX_FLAGS = 0x7bfffffb | 0x5ff << 32
NO_FH = (1 << 64) - 1
Name = str | bytes


class DirEntry(NamedTuple):
    """One entry of a directory; `entry` is the lookup's result in READDIRPLUS."""

    name: bytes
    ino: int
    offset: int
    kind: int
    entry: Fields | None = None


class FuseClient(FuseTransport):
    """A FUSE session. `flags` are the negotiated ones after init(); `lookups` counts what the server must hold."""

    def __init__(self, device: VirtioFs, uid: int = 0, gid: int = 0, pid: int = 1) -> None:
        super().__init__(device, uid, gid, pid)
        self.flags = 0
        self.max_write = 4096
        self.lookups: Counter[int] = Counter()

    # Session

    def init(self, flags: int = LINUX_FLAGS, *, major: int = abi.FUSE_KERNEL_VERSION,
             minor: int = abi.FUSE_KERNEL_MINOR_VERSION, max_readahead: int = 131072, size: int | None = None,
             **how: Unpack[How]) -> Fields:
        """INIT; `size` cuts or pads the request's body. Returns init_out, zeros where the reply was shorter."""
        body = abi.INIT_IN.pack(major=major, minor=minor, max_readahead=max_readahead, flags=flags & 0xffffffff,
                                flags2=flags >> 32)
        if size is not None:
            body = body[:size].ljust(size, b"\0")
        reply = self.call(Opcode.INIT, 0, body, out_size=abi.INIT_OUT.size, **how)
        out = abi.INIT_OUT.unpack(reply.data.ljust(abi.INIT_OUT.size, b"\0"))
        out.length = len(reply.data)
        self.flags = out.flags | (out.flags2 << 32 if out.flags & abi.FUSE_INIT_EXT else 0)
        self.max_write = max(out.max_write, 4096)
        self.lookups.clear()
        if self.flags & ~flags:
            raise ReplyError(f"INIT: the reply has flags {self.flags & ~flags:#x} that were not offered")
        return out

    def destroy(self, **how: Unpack[How]) -> None:
        """DESTROY: the server drops every inode, handle and lock of the session."""
        self.tell(Opcode.DESTROY, 0, **how)
        self.lookups.clear()

    def interrupt(self, unique: int, **how: Unpack[How]) -> None:
        """INTERRUPT of the request of this unique; there is no reply."""
        self.drop(Opcode.INTERRUPT, 0, abi.INTERRUPT_IN.pack(unique=unique), **how)

    def statfs(self, nodeid: int = ROOT, **how: Unpack[How]) -> Fields:
        """kstatfs: blocks in units of `frsize` bytes."""
        return abi.KSTATFS.unpack(self.ask(Opcode.STATFS, nodeid, abi.STATFS_OUT.size, **how))

    def syncfs(self, nodeid: int = ROOT, **how: Unpack[How]) -> None:
        """SYNCFS of the file system that the node is on."""
        self.tell(Opcode.SYNCFS, nodeid, abi.SYNCFS_IN.pack(), **how)

    # Names

    def _entry(self, data: bytes, root: bool = False) -> Fields:
        """`root`: it may be the root itself, which Linux takes only where it asks for "." or ".."."""
        entry = abi.ENTRY_OUT.unpack(data)
        if entry.nodeid:
            if not stat.S_IFMT(entry.attr_mode) or entry.attr_size >> 63 or (entry.nodeid == ROOT and not root):
                raise ReplyError(f"an entry that Linux would refuse: {entry}")
            self.lookups[entry.nodeid] += 1
        return entry

    def _creation(self, how: How) -> How:
        """As Linux: a security context block, empty or not, in every creation once it is negotiated."""
        if self.flags & abi.FUSE_SECURITY_CTX and "ext" not in how:
            how.setdefault("secctx", [])
        return how

    def lookup(self, parent: int, child: Name, **how: Unpack[How]) -> Fields:
        """The entry, counted in `lookups`; its nodeid is 0 where the guest may know that there is none."""
        body = name(child)
        return self._entry(self.ask(Opcode.LOOKUP, parent, abi.ENTRY_OUT.size, body, **how), body in (b".\0", b"..\0"))

    def walk(self, path: str, **how: Unpack[How]) -> Fields:
        """Looks up every component from the root. For the root itself, only nodeid."""
        entry = Fields(nodeid=ROOT, generation=0)
        for part in path.split("/"):
            if part:
                entry = self.lookup(entry.nodeid, part, **how)
        return entry

    def forget(self, nodeid: int, count: int = 1, **how: Unpack[How]) -> None:
        """FORGET of `count` lookups; there is no reply."""
        self.drop(Opcode.FORGET, nodeid, abi.FORGET_IN.pack(nlookup=count), **how)
        self._forgotten(nodeid, count)

    def batch_forget(self, nodes: Iterable[tuple[int, int]], **how: Unpack[How]) -> None:
        """BATCH_FORGET of (nodeid, lookups); there is no reply."""
        pairs = list(nodes)
        body = b"".join(abi.FORGET_ONE.pack(nodeid=nodeid, nlookup=count) for nodeid, count in pairs)
        self.drop(Opcode.BATCH_FORGET, 0, abi.BATCH_FORGET_IN.pack(count=len(pairs)), body, **how)
        for nodeid, count in pairs:
            self._forgotten(nodeid, count)

    def _forgotten(self, nodeid: int, count: int) -> None:
        self.lookups[nodeid] -= count
        if self.lookups[nodeid] <= 0:
            del self.lookups[nodeid]

    def forget_all(self, **how: Unpack[How]) -> None:
        """Gives back every lookup."""
        for nodeid, count in list(self.lookups.items()):
            self.forget(nodeid, count, **how)

    def readlink(self, nodeid: int, **how: Unpack[How]) -> bytes:
        """The target, as it is on the wire: without a NUL."""
        return self.call(Opcode.READLINK, nodeid, out_pages=4095, **how).data

    def symlink(self, parent: int, child: Name, target: Name, **how: Unpack[How]) -> Fields:
        return self._entry(self.ask(Opcode.SYMLINK, parent, abi.ENTRY_OUT.size, name(child), name(target),
                                    **self._creation(how)))

    def mknod(self, parent: int, child: Name, mode: int, rdev: int = 0, umask: int = 0, **how: Unpack[How]) -> Fields:
        body = abi.MKNOD_IN.pack(mode=mode, rdev=rdev, umask=umask)
        return self._entry(self.ask(Opcode.MKNOD, parent, abi.ENTRY_OUT.size, body, name(child),
                                    **self._creation(how)))

    def mkdir(self, parent: int, child: Name, mode: int = 0o755, umask: int = 0, **how: Unpack[How]) -> Fields:
        body = abi.MKDIR_IN.pack(mode=mode, umask=umask)
        return self._entry(self.ask(Opcode.MKDIR, parent, abi.ENTRY_OUT.size, body, name(child),
                                    **self._creation(how)))

    def unlink(self, parent: int, child: Name, **how: Unpack[How]) -> None:
        self.tell(Opcode.UNLINK, parent, name(child), **how)

    def rmdir(self, parent: int, child: Name, **how: Unpack[How]) -> None:
        self.tell(Opcode.RMDIR, parent, name(child), **how)

    def rename(self, parent: int, child: Name, new_parent: int, new: Name, **how: Unpack[How]) -> None:
        self.tell(Opcode.RENAME, parent, abi.RENAME_IN.pack(newdir=new_parent), name(child), name(new), **how)

    def rename2(self, parent: int, child: Name, new_parent: int, new: Name, flags: int = 0,
                **how: Unpack[How]) -> None:
        """`flags` are RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT of renameat2(2)."""
        body = abi.RENAME2_IN.pack(newdir=new_parent, flags=flags)
        self.tell(Opcode.RENAME2, parent, body, name(child), name(new), **how)

    def link(self, nodeid: int, new_parent: int, new: Name, **how: Unpack[How]) -> Fields:
        """Another name `child` in `parent` for the node; its entry, which counts as a lookup."""
        body = abi.LINK_IN.pack(oldnodeid=nodeid)
        return self._entry(self.ask(Opcode.LINK, new_parent, abi.ENTRY_OUT.size, body, name(new), **how))

    # Attributes

    def _attr(self, data: bytes) -> Fields:
        attr = abi.ATTR_OUT.unpack(data)
        if not stat.S_IFMT(attr.attr_mode) or attr.attr_size >> 63:
            raise ReplyError(f"attributes that Linux would refuse: {attr}")
        return attr

    def getattr(self, nodeid: int, fh: int | None = None, **how: Unpack[How]) -> Fields:
        """attr_out; ReplyError for attributes that Linux would refuse."""
        body = abi.GETATTR_IN.pack(getattr_flags=0 if fh is None else abi.FUSE_GETATTR_FH, fh=fh or 0)
        return self._attr(self.ask(Opcode.GETATTR, nodeid, abi.ATTR_OUT.size, body, **how))

    def setattr(self, nodeid: int, *, mode: int | None = None, owner: int | None = None, group: int | None = None,
                size: int | None = None, atime: float | str | None = None, mtime: float | str | None = None,
                ctime: float | None = None, fh: int | None = None, lock_owner: int | None = None, valid: int = 0,
                **how: Unpack[How]) -> Fields:
        """Sets what is given; a time is seconds or "now". `valid` adds bits."""
        values: dict[str, int] = {}
        for field, value, bit in (("mode", mode, abi.FATTR_MODE), ("uid", owner, abi.FATTR_UID),
                                  ("gid", group, abi.FATTR_GID), ("size", size, abi.FATTR_SIZE),
                                  ("fh", fh, abi.FATTR_FH), ("lock_owner", lock_owner, abi.FATTR_LOCKOWNER)):
            if value is not None:
                values[field], valid = value, valid | bit
        for field, time, bit, now in (("atime", atime, abi.FATTR_ATIME, abi.FATTR_ATIME_NOW),
                                      ("mtime", mtime, abi.FATTR_MTIME, abi.FATTR_MTIME_NOW),
                                      ("ctime", ctime, abi.FATTR_CTIME, 0)):
            if time == "now":
                valid |= bit | now
            elif time is not None:
                nanoseconds = round(float(time) * 1e9)
                values[field], values[f"{field}nsec"] = nanoseconds // 10**9 % (1 << 64), nanoseconds % 10**9
                valid |= bit
        body = abi.SETATTR_IN.pack(valid=valid, **values)
        return self._attr(self.ask(Opcode.SETATTR, nodeid, abi.ATTR_OUT.size, body, **how))

    def statx(self, nodeid: int, mask: int = 0xfff, sx_flags: int = 0, fh: int | None = None,
              **how: Unpack[How]) -> Fields:
        """statx_out; `mask` are STATX_ bits, `sx_flags` AT_STATX_ bits of statx(2)."""
        body = abi.STATX_IN.pack(getattr_flags=0 if fh is None else abi.FUSE_GETATTR_FH, fh=fh or 0,
                                 sx_flags=sx_flags, sx_mask=mask)
        return abi.STATX_OUT.unpack(self.ask(Opcode.STATX, nodeid, abi.STATX_OUT.size, body, **how))

    def access(self, nodeid: int, mask: int, **how: Unpack[How]) -> None:
        """`mask` is of access(2): R_OK, W_OK, X_OK."""
        self.tell(Opcode.ACCESS, nodeid, abi.ACCESS_IN.pack(mask=mask), **how)

    # Extended attributes

    def setxattr(self, nodeid: int, attribute: Name, value: bytes, flags: int = 0, setxattr_flags: int = 0,
                 size: int | None = None, **how: Unpack[How]) -> None:
        """`size` lies about the value's length."""
        length = len(value) if size is None else size
        if self.flags & abi.FUSE_SETXATTR_EXT:
            body = abi.SETXATTR_IN.pack(size=length, flags=flags, setxattr_flags=setxattr_flags)
        else:
            body = abi.SETXATTR_IN_COMPAT.pack(size=length, flags=flags)
        self.tell(Opcode.SETXATTR, nodeid, body, name(attribute), value, **how)

    def _xattr_size(self, data: bytes) -> int:
        return int(abi.GETXATTR_OUT.unpack(data).size)

    def getxattr_size(self, nodeid: int, attribute: Name, **how: Unpack[How]) -> int:
        """Bytes of the value: a request with room for nothing."""
        body = abi.GETXATTR_IN.pack(size=0)
        return self._xattr_size(self.ask(Opcode.GETXATTR, nodeid, abi.GETXATTR_OUT.size, body, name(attribute), **how))

    def getxattr(self, nodeid: int, attribute: Name, size: int = 65536, **how: Unpack[How]) -> bytes:
        """The value, for which the reply has room for `size` bytes; ERANGE where it has more."""
        body = abi.GETXATTR_IN.pack(size=size)
        return self.call(Opcode.GETXATTR, nodeid, body, name(attribute), out_pages=size, **how).data

    def listxattr_size(self, nodeid: int, **how: Unpack[How]) -> int:
        """Bytes of the list, with a NUL behind each name."""
        return self._xattr_size(self.ask(Opcode.LISTXATTR, nodeid, abi.GETXATTR_OUT.size,
                                         abi.GETXATTR_IN.pack(size=0), **how))

    def listxattr(self, nodeid: int, size: int = 65536, **how: Unpack[How]) -> list[bytes]:
        """The names; ReplyError where the list does not end in a NUL."""
        data = self.call(Opcode.LISTXATTR, nodeid, abi.GETXATTR_IN.pack(size=size), out_pages=size, **how).data
        if data and not data.endswith(b"\0"):
            raise ReplyError("LISTXATTR: the last name has no NUL")
        return data.split(b"\0")[:-1]

    def removexattr(self, nodeid: int, attribute: Name, **how: Unpack[How]) -> None:
        self.tell(Opcode.REMOVEXATTR, nodeid, name(attribute), **how)

    # Files

    def open(self, nodeid: int, flags: int = os.O_RDONLY, open_flags: int = 0, **how: Unpack[How]) -> Fields:
        """open_out: the handle and FOPEN_ flags. `open_flags` 1 is KILL_SUIDGID."""
        body = abi.OPEN_IN.pack(flags=flags, open_flags=open_flags)
        return abi.OPEN_OUT.unpack(self.ask(Opcode.OPEN, nodeid, abi.OPEN_OUT.size, body, **how))

    def create(self, parent: int, child: Name, mode: int = 0o644, flags: int = os.O_RDWR, umask: int = 0,
               open_flags: int = 0, **how: Unpack[How]) -> tuple[Fields, Fields]:
        """The entry and the open file."""
        return self._created(Opcode.CREATE, parent, child, mode, flags | os.O_CREAT, umask, open_flags, how)

    def tmpfile(self, parent: int, mode: int = 0o600, flags: int = os.O_RDWR, umask: int = 0,
                **how: Unpack[How]) -> tuple[Fields, Fields]:
        """The entry and the open file, as create(); it has no name."""
        return self._created(Opcode.TMPFILE, parent, "/", mode, flags, umask, 0, how)

    def _created(self, opcode: Opcode, parent: int, child: Name, mode: int, flags: int, umask: int, open_flags: int,
                 how: How) -> tuple[Fields, Fields]:
        body = abi.CREATE_IN.pack(flags=flags, mode=mode | stat.S_IFREG, umask=umask, open_flags=open_flags)
        data = self.ask(opcode, parent, abi.ENTRY_OUT.size + abi.OPEN_OUT.size, body, name(child),
                        **self._creation(how))
        return self._entry(data), abi.OPEN_OUT.unpack(data, abi.ENTRY_OUT.size)

    def read(self, nodeid: int, fh: int, offset: int, size: int, flags: int = 0, read_flags: int = 0,
             lock_owner: int = 0, room: int | None = None, **how: Unpack[How]) -> bytes:
        """`room` is how much the reply has, where that is not `size`."""
        body = abi.READ_IN.pack(fh=fh, offset=offset, size=size, read_flags=read_flags, lock_owner=lock_owner,
                                flags=flags)
        return self.call(Opcode.READ, nodeid, body, out_pages=size if room is None else room, **how).data

    def write(self, nodeid: int, fh: int, offset: int, data: bytes, write_flags: int = 0, flags: int = os.O_RDWR,
              lock_owner: int = 0, size: int | None = None, **how: Unpack[How]) -> int:
        """`size` lies about the data's length."""
        body = abi.WRITE_IN.pack(fh=fh, offset=offset, size=len(data) if size is None else size,
                                 write_flags=write_flags, lock_owner=lock_owner, flags=flags)
        reply = self.call(Opcode.WRITE, nodeid, body, data=data, out_size=abi.WRITE_OUT.size, exact=True, **how)
        return int(abi.WRITE_OUT.unpack(reply.data).size)

    def flush(self, nodeid: int, fh: int, lock_owner: int = 0, **how: Unpack[How]) -> None:
        """FLUSH, as at each close(2) of a descriptor of the handle."""
        self.tell(Opcode.FLUSH, nodeid, abi.FLUSH_IN.pack(fh=fh, lock_owner=lock_owner), **how)

    def release(self, nodeid: int, fh: int, flags: int = 0, release_flags: int = 0, lock_owner: int = 0,
                **how: Unpack[How]) -> None:
        """RELEASE, as at the last close; `release_flags` 1 is FLUSH, 2 FLOCK_UNLOCK."""
        body = abi.RELEASE_IN.pack(fh=fh, flags=flags, release_flags=release_flags, lock_owner=lock_owner)
        self.tell(Opcode.RELEASE, nodeid, body, **how)

    def fsync(self, nodeid: int, fh: int, datasync: bool = False, **how: Unpack[How]) -> None:
        body = abi.FSYNC_IN.pack(fh=fh, fsync_flags=abi.FUSE_FSYNC_FDATASYNC if datasync else 0)
        self.tell(Opcode.FSYNC, nodeid, body, **how)

    def fallocate(self, nodeid: int, fh: int, offset: int, length: int, mode: int = 0, **how: Unpack[How]) -> None:
        """Bytes; `mode` is of fallocate(2)."""
        body = abi.FALLOCATE_IN.pack(fh=fh, offset=offset, length=length, mode=mode)
        self.tell(Opcode.FALLOCATE, nodeid, body, **how)

    def lseek(self, nodeid: int, fh: int, offset: int, whence: int, **how: Unpack[How]) -> int:
        """The offset found, in bytes; `whence` is SEEK_DATA or SEEK_HOLE."""
        body = abi.LSEEK_IN.pack(fh=fh, offset=offset, whence=whence)
        return int(abi.LSEEK_OUT.unpack(self.ask(Opcode.LSEEK, nodeid, abi.LSEEK_OUT.size, body, **how)).offset)

    def copy_file_range(self, nodeid: int, fh: int, offset: int, nodeid_out: int, fh_out: int, offset_out: int,
                        length: int, flags: int = 0, wide: bool = False, **how: Unpack[How]) -> int:
        """COPY_FILE_RANGE, or COPY_FILE_RANGE_64 where `wide`."""
        body = abi.COPY_FILE_RANGE_IN.pack(fh_in=fh, off_in=offset, nodeid_out=nodeid_out, fh_out=fh_out,
                                           off_out=offset_out, len=length, flags=flags)
        if wide:
            data = self.ask(Opcode.COPY_FILE_RANGE_64, nodeid, abi.COPY_FILE_RANGE_OUT.size, body, **how)
            return int(abi.COPY_FILE_RANGE_OUT.unpack(data).bytes_copied)
        return int(abi.WRITE_OUT.unpack(self.ask(Opcode.COPY_FILE_RANGE, nodeid, abi.WRITE_OUT.size, body,
                                                 **how)).size)

    def ioctl(self, nodeid: int, fh: int, command: int, data: bytes = b"", out_size: int = 0, flags: int = 0,
              arg: int = 0, **how: Unpack[How]) -> tuple[int, bytes]:
        """The ioctl's result and its output."""
        body = abi.IOCTL_IN.pack(fh=fh, flags=flags, cmd=command, arg=arg, in_size=len(data), out_size=out_size)
        reply = self.call(Opcode.IOCTL, nodeid, body, data=data, out_size=abi.IOCTL_OUT.size,
                          out_pages=max(out_size, 4096), **how)
        out = abi.IOCTL_OUT.unpack(reply.data)
        if len(reply.data) - abi.IOCTL_OUT.size > out_size:
            raise ReplyError(f"IOCTL: {len(reply.data) - abi.IOCTL_OUT.size} bytes of output, room for {out_size}")
        return out.result, reply.data[abi.IOCTL_OUT.size:]

    def poll(self, nodeid: int, fh: int, events: int, kh: int = 0, flags: int = 0, **how: Unpack[How]) -> int:
        """The events that hold now, as poll(2) has them."""
        body = abi.POLL_IN.pack(fh=fh, kh=kh, flags=flags, events=events)
        return int(abi.POLL_OUT.unpack(self.ask(Opcode.POLL, nodeid, abi.POLL_OUT.size, body, **how)).revents)

    # Locks

    def lock_body(self, fh: int, owner: int, kind: int, start: int, end: int, pid: int, flock: bool) -> bytes:
        """lk_in: `kind` is F_RDLCK, F_WRLCK or F_UNLCK, `end` the last byte, inclusive."""
        return abi.LK_IN.pack(fh=fh, owner=owner, lk_start=start, lk_end=end, lk_type=kind, lk_pid=pid,
                              lk_flags=abi.FUSE_LK_FLOCK if flock else 0)

    def getlk(self, nodeid: int, fh: int, owner: int, kind: int, start: int = 0, end: int = (1 << 63) - 1,
              **how: Unpack[How]) -> Fields:
        """The lock in the way, or one of kind F_UNLCK."""
        body = self.lock_body(fh, owner, kind, start, end, 0, False)
        return abi.FILE_LOCK.unpack(self.ask(Opcode.GETLK, nodeid, abi.LK_OUT.size, body, **how))

    def setlk(self, nodeid: int, fh: int, owner: int, kind: int, start: int = 0, end: int = (1 << 63) - 1,
              lock_pid: int = 1, flock: bool = False, wait: bool = False, **how: Unpack[How]) -> None:
        """SETLK, or SETLKW where `wait`; to go on meanwhile, submit it with lock_body()."""
        body = self.lock_body(fh, owner, kind, start, end, lock_pid, flock)
        self.tell(Opcode.SETLKW if wait else Opcode.SETLK, nodeid, body, **how)

    # Directories

    def opendir(self, nodeid: int, flags: int = os.O_RDONLY | os.O_DIRECTORY, **how: Unpack[How]) -> Fields:
        """open_out: the handle and FOPEN_ flags."""
        body = abi.OPEN_IN.pack(flags=flags)
        return abi.OPEN_OUT.unpack(self.ask(Opcode.OPENDIR, nodeid, abi.OPEN_OUT.size, body, **how))

    def dirents(self, data: bytes, plus: bool) -> list[DirEntry]:
        """The entries in the data of a reply, checked as Linux does."""
        entries, at = [], 0
        while at < len(data):
            entry = None
            start = at
            if plus:
                entry = abi.ENTRY_OUT.unpack(data, at)
                at += abi.ENTRY_OUT.size
            dirent = abi.DIRENT.unpack(data, at)
            at += abi.DIRENT.size
            child = data[at:at + dirent.namelen]
            if len(child) != dirent.namelen or not 0 < dirent.namelen <= 4095 or b"/" in child or b"\0" in child:
                raise ReplyError(f"a directory entry that Linux would refuse: {dirent}, {child!r}")
            at = start + -(-(at + dirent.namelen - start) // 8) * 8
            if entry and entry.nodeid and child not in (b".", b".."):
                self.lookups[entry.nodeid] += 1
            entries.append(DirEntry(child, dirent.ino, dirent.off, dirent.type, entry))
        if at != len(data):
            raise ReplyError(f"a directory listing ends {at - len(data)} bytes before its last record does")
        return entries

    def readdir(self, nodeid: int, fh: int, offset: int = 0, size: int = 32768, plus: bool = False,
                **how: Unpack[How]) -> list[DirEntry]:
        """The entries of one reply; empty at the end."""
        body = abi.READ_IN.pack(fh=fh, offset=offset, size=size)
        opcode = Opcode.READDIRPLUS if plus else Opcode.READDIR
        return self.dirents(self.call(opcode, nodeid, body, out_pages=size, **how).data, plus)

    def readdirplus(self, nodeid: int, fh: int, offset: int = 0, size: int = 32768,
                    **how: Unpack[How]) -> list[DirEntry]:
        """readdir() with a lookup of each entry, which counts."""
        return self.readdir(nodeid, fh, offset, size, True, **how)

    def listdir(self, nodeid: int = ROOT, plus: bool = False, size: int = 32768, **how: Unpack[How]) -> list[DirEntry]:
        """The whole directory, opened and closed."""
        fh = self.opendir(nodeid, **how).fh
        found: list[DirEntry] = []
        try:
            while entries := self.readdir(nodeid, fh, found[-1].offset if found else 0, size, plus, **how):
                found += entries
        finally:
            self.releasedir(nodeid, fh, **how)
        return found

    def releasedir(self, nodeid: int, fh: int, **how: Unpack[How]) -> None:
        self.tell(Opcode.RELEASEDIR, nodeid, abi.RELEASE_IN.pack(fh=fh), **how)

    def fsyncdir(self, nodeid: int, fh: int, datasync: bool = False, **how: Unpack[How]) -> None:
        body = abi.FSYNC_IN.pack(fh=fh, fsync_flags=abi.FUSE_FSYNC_FDATASYNC if datasync else 0)
        self.tell(Opcode.FSYNCDIR, nodeid, body, **how)

    # DAX

    def setupmapping(self, nodeid: int, offset: int, length: int, moffset: int, flags: int,
                     fh: int = NO_FH, **how: Unpack[How]) -> None:
        """Maps bytes of the file at `moffset` of the DAX window; `flags` 1 is write, 2 read."""
        body = abi.SETUPMAPPING_IN.pack(fh=fh, foffset=offset, len=length, flags=flags, moffset=moffset)
        self.tell(Opcode.SETUPMAPPING, nodeid, body, **how)
