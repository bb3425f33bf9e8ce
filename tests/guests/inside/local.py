"""What POSIX and Linux promise about what a guest does itself: FIFOs, sockets, devices, and its processes' locks."""

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import stat
import struct
import time

import linux
from linux import as_nobody, child, done, fails, opened, read, write


def fifos_connect_processes() -> None:
    os.mkfifo("fifo", 0o600)
    assert stat.S_ISFIFO(os.lstat("fifo").st_mode)
    process = child(lambda: write("fifo", b"through the fifo"))
    assert read("fifo") == b"through the fifo"
    done(process)
    with fails(errno.ENXIO):
        os.open("fifo", os.O_WRONLY | os.O_NONBLOCK)


def sockets_connect_processes() -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        server.listen()
        assert stat.S_ISSOCK(os.lstat("socket").st_mode)

        def talk() -> None:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect("socket")
                client.sendall(b"hello")

        process = child(talk)
        connection, _ = server.accept()
        with connection:
            assert connection.recv(100) == b"hello"
        done(process)
    with fails(errno.ENXIO):
        os.open("socket", os.O_RDWR)
    with fails(errno.ECONNREFUSED), socket.socket(socket.AF_UNIX) as client:
        client.connect("socket")


def device_nodes_are_devices() -> None:
    os.mknod("null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod("zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    os.mknod("big", 0o600 | stat.S_IFBLK, os.makedev(259, 70000))
    assert os.stat("null").st_rdev == os.makedev(1, 3)
    assert os.stat("big").st_rdev == os.makedev(259, 70000)
    with opened("null") as null:
        assert os.write(null, b"gone") == 4
        assert os.read(null, 10) == b""
    with opened("zero") as zero:
        assert os.read(zero, 10) == bytes(10)

    def try_it() -> None:
        with fails(errno.EPERM):
            os.mknod("mine", 0o666 | stat.S_IFCHR, os.makedev(1, 3))

    as_nobody(try_it)


def watchers_are_told_of_changes() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    watcher = libc.inotify_init1(0)
    assert libc.inotify_add_watch(watcher, b".", 0x100 | 0x200 | 0x80) > 0
    write("file")
    os.rename("file", "other")
    os.unlink("other")
    assert select.select([watcher], [], [], 10)[0]
    events = b""
    while select.select([watcher], [], [], 0.2)[0]:
        events += os.read(watcher, 65536)
    assert events.count(b"other") == 2
    assert events.count(b"file") == 1


def files_can_be_opened_by_handle() -> None:
    os.mkdir("folder")
    write("folder/file", b"text")
    handle = ctypes.create_string_buffer(136)
    handle[:4] = (128).to_bytes(4, "little")
    mount = ctypes.c_int()
    with opened(".", os.O_RDONLY | os.O_DIRECTORY) as here:
        with opened("folder/file"):     # what a guest does not know it forgets, and without --nfs-export for good
            linux.call("name_to_handle_at", linux.AT_FDCWD, b"folder/file", handle, ctypes.byref(mount), 0)
            file = linux.call("open_by_handle_at", here, handle, os.O_RDONLY)
        assert os.read(file, 10) == b"text"
        os.close(file)
        os.unlink("folder/file")
        with fails(errno.ESTALE):
            linux.call("open_by_handle_at", here, handle, os.O_RDONLY)


def flock_excludes_other_processes() -> None:
    write("file")
    with opened("file") as one, opened("file") as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        with fails(errno.EWOULDBLOCK):
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(one, fcntl.LOCK_SH)
        fcntl.flock(two, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(one, fcntl.LOCK_UN)
        fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)


def posix_locks_exclude_other_processes() -> None:
    write("file", bytes(100))
    with opened("file") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 10, 20)

        def try_it() -> None:
            with opened("file") as other:
                with fails(errno.EAGAIN, errno.EACCES):
                    fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 29)
                fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 30)
                fcntl.lockf(other, fcntl.LOCK_SH | fcntl.LOCK_NB, 10, 0)

        done(child(try_it))
        os.close(os.open("file", os.O_RDONLY))  # which gives all locks of this process up
        done(child(lambda: fcntl.lockf(os.open("file", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)))


def a_waiting_lock_is_granted_when_its_holder_is_killed() -> None:
    write("file")
    for lock in (fcntl.flock, fcntl.lockf):
        ready, holding = os.pipe()

        def hold(lock=lock, holding=holding) -> None:
            file = os.open("file", os.O_RDWR)
            lock(file, fcntl.LOCK_EX)
            os.write(holding, b"x")
            time.sleep(600)

        holder = child(hold)
        os.read(ready, 1)
        waiter = child(lambda lock=lock: lock(os.open("file", os.O_RDWR), fcntl.LOCK_EX))
        time.sleep(0.3)
        assert os.waitpid(waiter, os.WNOHANG) == (0, 0)
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        done(waiter)


def a_wait_for_a_lock_that_would_never_end_is_refused() -> None:
    """Two processes have what the other wants: one of them is told."""
    write("file", bytes(100))
    ready, holding = os.pipe()

    def hold(mine: int, wanted: int) -> None:
        with opened("file") as file:
            fcntl.lockf(file, fcntl.LOCK_EX, 1, mine)
            os.write(holding, b"x")
            time.sleep(1)
            try:
                fcntl.lockf(file, fcntl.LOCK_EX, 1, wanted)
            except OSError as error:
                assert error.errno == errno.EDEADLK, error
                os.write(holding, b"deadlock")

    processes = [child(lambda: hold(1, 2)), child(lambda: hold(2, 1))]
    done(*processes)
    os.close(holding)
    assert os.read(ready, 100) == b"xxdeadlock"


def who_has_a_lock_is_told() -> None:
    write("file", bytes(100))
    flock = struct.Struct("hhqqi4x")
    ready, holding = os.pipe()

    def hold() -> None:
        with opened("file") as file:
            fcntl.lockf(file, fcntl.LOCK_SH, 10, 20)
            os.write(holding, b"x")
            time.sleep(600)

    holder = child(hold)
    os.read(ready, 1)
    with opened("file") as file:
        asked = fcntl.fcntl(file, fcntl.F_GETLK, flock.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    assert flock.unpack(asked) == (fcntl.F_RDLCK, os.SEEK_SET, 20, 10, holder)
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)


def the_locks_of_an_open_file_description_end_with_it() -> None:
    write("file", bytes(100))
    flock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 10, 0)
    first, second = os.open("file", os.O_RDWR), os.open("file", os.O_RDWR)
    copy = os.dup(first)
    fcntl.fcntl(first, fcntl.F_OFD_SETLK, flock)
    os.close(first)
    with fails(errno.EAGAIN):
        fcntl.fcntl(second, fcntl.F_OFD_SETLK, flock)
    os.close(copy)
    for _ in range(100):    # a close is not waited for in a share
        with contextlib.suppress(BlockingIOError):
            fcntl.fcntl(second, fcntl.F_OFD_SETLK, flock)
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the lock is still there")
    os.close(second)


def counters_under_a_lock_lose_nothing() -> None:
    write("counter", b"0")

    def count() -> None:
        for _ in range(60):
            with opened("counter") as file:
                fcntl.lockf(file, fcntl.LOCK_EX)
                value = int(os.pread(file, 20, 0))
                os.pwrite(file, b"%d" % (value + 1), 0)

    done(*[child(count) for _ in range(4)])
    assert read("counter") == b"240"
