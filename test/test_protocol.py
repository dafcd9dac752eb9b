"""What the kernel and programs rely on: errnos, durable writes, lookups side by side."""
import contextlib
import ctypes
import errno
import fcntl
import os
import re
import signal
import subprocess

import pytest

from harness import (ALLOCATE_KEEP_SIZE, ALLOCATE_PUNCH_HOLE, ALLOCATE_ZERO_RANGE, BLOCK, MIB, PATIENCE, TREE, Aligned,
                     Gate, discard, fallocate, faults, file_bytes, halt, make_image, make_raw, opened, run, stats,
                     wait_until)

AT_FDCWD = -100
AT_STATX_FORCE_SYNC = 0x2000

# All that have a name, what the kernel keeps for itself, and what is no errno.
LAST_ERRNO = 600
LAST_KNOWN = 133

_libc = ctypes.CDLL(None, use_errno=True)


def getattr_of(path):
    """Asks the daemon, whatever the kernel has kept."""
    if _libc.statx(AT_FDCWD, os.fsencode(path), AT_STATX_FORCE_SYNC, 0x7FF, ctypes.create_string_buffer(256)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def open_and_close(path, flags, mode=0o600):
    os.close(os.open(path, flags, mode))


def read_direct(live):
    with opened(live.file("a.img"), os.O_RDONLY | os.O_DIRECT) as fd:
        memory = Aligned(BLOCK)
        yield lambda: memory.read(fd, BLOCK, 0)


def write_direct(live):
    with opened(live.file("a.img"), os.O_RDWR | os.O_DIRECT) as fd:
        memory = Aligned(BLOCK)
        yield lambda: memory.write(fd, b"x" * BLOCK, 0)


def fsync_file(live):
    with opened(live.file("a.img")) as fd:
        yield lambda: os.fsync(fd)


def close_written(live):
    """close(2) itself fails, and closes. The disk stays open all the while."""
    path = live.file("a.img")
    memory = Aligned(BLOCK)

    def once():
        fd = os.open(path, os.O_RDWR | os.O_DIRECT)
        memory.write(fd, b"x" * BLOCK, 0)
        os.close(fd)

    with opened(path):
        yield once


def changed(mode):
    def operation(live):
        with opened(live.file("a.img")) as fd:
            yield lambda: fallocate(fd, mode, 0, MIB)
    return operation


def seek(live):
    with opened(live.file("a.img")) as fd:
        yield lambda: os.lseek(fd, 0, os.SEEK_DATA)


def on_path(function, *arguments):
    def operation(live):
        yield lambda: function(live.file("a.img"), *arguments)
    return operation


def grow(live):
    """Each time to another size, as the error comes when all has been done."""
    sizes = iter(range(9 * MIB, 1 << 30, BLOCK))
    with opened(live.file("a.img")) as fd:
        yield lambda: os.ftruncate(fd, next(sizes))


def lookup(live):
    names = iter(range(1 << 30))
    yield lambda: os.stat(live.file(f"none{next(names)}.img"))


def rename(live):
    yield lambda: os.rename(live.file("a.img"), live.file("c.img"))


def create(live):
    names = iter(range(1 << 30))
    yield lambda: open_and_close(live.file(f"new{next(names)}.img"), os.O_RDWR | os.O_CREAT)


def command(live):
    yield lambda: write_command(live.control("tunables", "max_dirty"))


def write_command(path):
    with opened(path, os.O_WRONLY) as fd:
        os.write(fd, b"1G")


def on_mount(function):
    def operation(live):
        yield lambda: function(live.path)
    return operation


OPERATIONS = {
    "read": ("disk.read", read_direct),
    "write": ("disk.write", write_direct),
    "fsync": ("disk.flush", fsync_file),
    "flush": ("disk.flush", close_written),
    "punch": ("disk.discard", changed(ALLOCATE_PUNCH_HOLE | ALLOCATE_KEEP_SIZE)),
    "zero": ("disk.zero", changed(ALLOCATE_ZERO_RANGE | ALLOCATE_KEEP_SIZE)),
    "truncate": ("disk.resize", grow),
    "lseek": ("request/LSEEK", seek),
    "open": ("request/OPEN", on_path(open_and_close, os.O_RDWR)),
    "create": ("request/CREATE", create),
    "getattr": ("request/GETATTR", on_path(getattr_of)),
    "setattr": ("request/SETATTR", on_path(os.truncate, 9 * MIB)),
    "lookup": ("request/LOOKUP", lookup),
    "unlink": ("request/UNLINK", on_path(os.unlink)),
    "rename": ("request/RENAME", rename),
    "opendir": ("request/OPENDIR", on_mount(os.listdir)),
    "statfs": ("request/STATFS", on_mount(os.statvfs)),
    "command": ("request/COMMAND", command),
}


@pytest.fixture
def two_disks(pool):
    make_raw(os.path.join(pool, "a.raw"), b"A" * (8 * MIB))
    make_image(os.path.join(pool, "b.leaf"), "8M")


def assert_all_of_it_works(live):
    """No operation of the mount has been switched off in the kernel."""
    path = live.file("b.img")
    memory = Aligned(BLOCK)
    before = stats(live)
    with opened(path, os.O_RDWR | os.O_DIRECT) as fd:
        memory.write(fd, b"b" * BLOCK, BLOCK)
        os.fsync(fd)
        memory.write(fd, b"c" * BLOCK, 3 * BLOCK)
        fallocate(fd, ALLOCATE_PUNCH_HOLE | ALLOCATE_KEEP_SIZE, BLOCK, BLOCK)
        assert os.lseek(fd, 0, os.SEEK_DATA) == 3 * BLOCK
        assert os.lseek(fd, 3 * BLOCK, os.SEEK_HOLE) == 4 * BLOCK
    after = stats(live)
    assert after["flush_requests"] - before["flush_requests"] == 2, "fsync and close"
    assert after["discard_requests"] - before["discard_requests"] == 1
    with opened(path) as fd:
        assert os.pread(fd, 4 * BLOCK, 0) == bytes(3 * BLOCK) + b"c" * BLOCK
    open_and_close(live.file("made.img"), os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.rename(live.file("made.img"), live.file("moved.img"))
    os.unlink(live.file("moved.img"))
    assert live.names() == ["a.img", "b.img"]
    assert os.statvfs(live.path).f_bsize == BLOCK
    assert os.stat(path).st_size == 8 * MIB


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_errno_of_every_operation(mount, work, two_disks, name):
    """It reaches whoever called as an error, and does nothing else. For ESTALE the
    kernel walks the path once more, and meets the next one."""
    point, operation = OPERATIONS[name]
    gate = Gate(work)
    live = mount("manage", "threads=2", env=faults(f"{point}:sweepx{LAST_ERRNO + 1}", gate=gate.path))
    with contextlib.contextmanager(operation)(live) as attempt:
        gate.open()
        for number in range(1, LAST_ERRNO + 1):
            with pytest.raises(OSError) as failed:
                attempt()
            assert failed.value.errno not in (errno.ENOSYS, errno.EAGAIN, errno.ECHILD), f"errno {number}"
            assert failed.value.errno <= LAST_KNOWN, f"errno {number}"
        gate.close()
    with contextlib.suppress(FileNotFoundError):
        os.rename(live.file("c.img"), live.file("a.img"))
    assert_all_of_it_works(live)
    live.stop()


def test_every_errno_of_a_release(mount, work, two_disks):
    gate = Gate(work)
    live = mount("manage", env=faults(f"handle.close:sweepx{LAST_ERRNO}", gate=gate.path))
    gate.open()
    for _ in range(LAST_ERRNO):
        open_and_close(live.file("a.img"), os.O_RDONLY)
    os.truncate(live.file("a.img"), 9 * MIB)
    os.truncate(live.file("a.img"), 10 * MIB)
    gate.close()
    assert_all_of_it_works(live)
    live.stop()


def test_a_file_without_a_handle(mount, work, two_disks):
    """The kernel has none once it believes that there is no OPEN."""
    gate = Gate(work)
    live = mount(env=faults("request/OPEN:EIOx1", "reply.raw:ENOSYSx1", gate=gate.path))
    path = live.file("a.img")
    os.stat(path)
    gate.open()
    with opened(path) as fd:
        gate.close()
        for attempt in (lambda: os.pwrite(fd, b"x", 0), lambda: os.pread(fd, 1, 0),
                        lambda: fallocate(fd, ALLOCATE_ZERO_RANGE | ALLOCATE_KEEP_SIZE, 0, BLOCK),
                        lambda: os.lseek(fd, 0, os.SEEK_HOLE)):
            with pytest.raises(OSError):
                attempt()
        os.fsync(fd)
    with opened(live.control("version"), os.O_RDONLY) as fd:
        assert os.read(fd, 1) == b""
    wait_until(lambda: os.stat(path).st_size == 8 * MIB, "the daemon to live")
    live.stop()


def test_one_function_answers_with_an_errno():
    folder = os.path.join(TREE, "src", "fuse")
    callers = [name for name in sorted(os.listdir(folder)) if name.endswith(".c")
               and re.search(r"fuse_reply_err\s*\(", open(os.path.join(folder, name), encoding="utf-8").read())]
    assert callers == ["reply.c"]


# ---- Durable writes --------------------------------------------------------------

# Flags of open(2), flags of the write.
DURABLE = [(os.O_DSYNC, 0), (os.O_SYNC, 0), (0, os.RWF_DSYNC), (0, os.RWF_SYNC)]


def flushes(live):
    return stats(live)["flush_requests"]


@pytest.mark.parametrize("mode", ["direct", "persistent", "writeback"])
def test_a_durable_write_survives_a_kill(mount, pool, work, mode):
    """Acknowledged is durable, in each way to ask for it, and flushed once."""
    options = [f"mode={mode}"]
    if mode != "direct":
        options += [f"cache={os.path.join(work, 'cache')}", "cache_size=32M"]
    if mode == "writeback":
        options += ["migrate_idle_ms=60000", "max_dirty_age=3600"]
    make_image(os.path.join(pool, "b.leaf"), "8M")
    live = mount(*options)
    memory = Aligned(BLOCK)
    memory.memory[:] = b"d" * BLOCK
    fds = []
    for index, (flags, write_flags) in enumerate(DURABLE * 2):
        direct = os.O_DIRECT if index < len(DURABLE) else 0
        fds.append(os.open(live.file("b.img"), os.O_RDWR | flags | direct))
        before = flushes(live)
        assert os.pwritev(fds[-1], [memory.memory], index * MIB, write_flags) == BLOCK
        assert flushes(live) - before == 1
    live.kill9()
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
    live = mount(*options)
    with opened(live.file("b.img"), os.O_RDONLY) as fd:
        for index in range(len(fds)):
            assert os.pread(fd, BLOCK, index * MIB) == b"d" * BLOCK, index
    live.stop()


class Iocb(ctypes.Structure):
    """struct iocb of linux/aio_abi.h."""
    _fields_ = [("data", ctypes.c_uint64), ("key", ctypes.c_uint32), ("rw_flags", ctypes.c_uint32),
                ("opcode", ctypes.c_uint16), ("priority", ctypes.c_int16), ("fd", ctypes.c_uint32),
                ("buffer", ctypes.c_uint64), ("bytes", ctypes.c_uint64), ("offset", ctypes.c_int64),
                ("reserved", ctypes.c_uint64), ("flags", ctypes.c_uint32), ("result_fd", ctypes.c_uint32)]


def write_asynchronously(fd, memory, offset):
    """One write by io_submit(2), waited for; what it returned."""
    aio = ctypes.CDLL("libaio.so.1")
    context = ctypes.c_void_p(0)
    request = Iocb(opcode=1, fd=fd, buffer=ctypes.addressof(ctypes.c_char.from_buffer(memory)), bytes=len(memory),
                   offset=offset)
    event = (ctypes.c_int64 * 4)()
    assert aio.io_setup(1, ctypes.byref(context)) == 0
    try:
        assert aio.io_submit(context, ctypes.c_long(1), ctypes.byref(ctypes.pointer(request))) == 1
        assert aio.io_getevents(context, ctypes.c_long(1), ctypes.c_long(1), event, None) == 1
    finally:
        aio.io_destroy(context)
    return event[2]


@pytest.mark.parametrize("how", ["fcntl", "create"])
def test_a_durable_write_of_a_file_that_is_direct_later(mount, pool, how):
    """The kernel sends no fsync behind an asynchronous direct write, whatever the
    file was opened as."""
    make_image(os.path.join(pool, "b.leaf"), "8M")
    live = mount("manage")
    memory = Aligned(BLOCK)
    memory.memory[:] = b"d" * BLOCK
    name = "b.img" if how == "fcntl" else "new.img"
    fd = os.open(live.file(name), os.O_RDWR | os.O_DSYNC | (os.O_CREAT | os.O_DIRECT if how == "create" else 0))
    if how == "create":
        os.ftruncate(fd, 8 * MIB)
    else:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
    assert write_asynchronously(fd, memory.memory, MIB) == BLOCK
    live.kill9()
    with contextlib.suppress(OSError):
        os.close(fd)
    live = mount()
    with opened(live.file(name), os.O_RDONLY) as fd:
        assert os.pread(fd, BLOCK, MIB) == b"d" * BLOCK
    live.stop()


def test_a_durable_file_punches_durably(mount, pool):
    make_image(os.path.join(pool, "b.leaf"), "8M")
    live = mount()
    for flags, count in ((os.O_DSYNC | os.O_DIRECT, 1), (os.O_DIRECT, 0)):
        with opened(live.file("b.img"), os.O_RDWR | flags) as fd:
            before = flushes(live)
            fallocate(fd, ALLOCATE_PUNCH_HOLE | ALLOCATE_KEEP_SIZE, 0, MIB)
            assert flushes(live) - before == count
    live.stop()


def test_a_durable_write_that_cannot_be_flushed_fails(mount, pool, work):
    """And the change is not forgotten: the next flush is one."""
    gate = Gate(work)
    make_image(os.path.join(pool, "b.leaf"), "8M")
    live = mount(env=faults("disk.flush:ENOSPCx1", gate=gate.path))
    memory = Aligned(BLOCK)
    fd = os.open(live.file("b.img"), os.O_RDWR | os.O_DIRECT | os.O_DSYNC)
    gate.open()
    with pytest.raises(OSError) as failed:
        memory.write(fd, b"d" * BLOCK, 0)
    assert failed.value.errno == errno.ENOSPC
    before = flushes(live)
    os.close(fd)
    assert flushes(live) - before == 1
    live.stop()


# ---- Lookups -----------------------------------------------------------------------

@contextlib.contextmanager
def fuse_connections(work):
    """What the kernel says of its FUSE connections."""
    path = os.path.join(work, "connections")
    os.mkdir(path)
    run("mount", "-t", "fusectl", "none", path)
    try:
        yield path
    finally:
        run("umount", path)


def test_lookups_are_sent_side_by_side(mount, work, two_disks):
    """While the daemon answers none of them the others are on their way too."""
    live = mount()
    device = os.stat(live.path).st_dev
    with fuse_connections(work) as connections:
        waiting = os.path.join(connections, str(device), "waiting")
        halt(live.pid)
        try:
            askers = [subprocess.Popen(["stat", live.file(f"none{index}.img")], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL) for index in range(4)]
            wait_until(lambda: int(file_bytes(waiting)) == len(askers), "all lookups to be sent")
        finally:
            os.kill(live.pid, signal.SIGCONT)
        assert [asker.wait(PATIENCE) for asker in askers] == [1] * len(askers)
    live.stop()


# ---- Seeks -------------------------------------------------------------------------

EIB = 1 << 60


@pytest.mark.timeout(100)
@pytest.mark.parametrize("mode", ["direct", "persistent", "ephemeral", "writeback"])
def test_a_seek_costs_what_is_there(mount, pool, work, mode):
    """Not what the disk could hold: with steps of a size it takes minutes."""
    make_image(os.path.join(pool, "b.leaf"), EIB)
    options = [f"mode={mode}"]
    if mode in ("persistent", "writeback"):
        options += [f"cache={os.path.join(work, 'cache')}", "cache_size=32M"]
    live = mount(*options)
    with opened(live.file("b.img")) as fd:
        for offset in (EIB // 2, EIB - MIB):
            os.pwrite(fd, b"x" * BLOCK, offset)
        for offset in (0, EIB // 3, EIB // 2):
            assert os.lseek(fd, offset, os.SEEK_DATA) == EIB // 2
        assert os.lseek(fd, EIB // 2, os.SEEK_HOLE) == EIB // 2 + BLOCK
        assert os.lseek(fd, EIB // 2 + BLOCK, os.SEEK_DATA) == EIB - MIB
        discard(fd, 0, EIB // 4)
        assert os.lseek(fd, 0, os.SEEK_DATA) == EIB // 2
        with pytest.raises(OSError) as failed:
            os.lseek(fd, EIB - MIB + BLOCK, os.SEEK_DATA)
        assert failed.value.errno == errno.ENXIO
    live.stop()


def start_seek(path):
    return subprocess.Popen(["python3", "-c", "import os, sys; os.lseek(os.open(sys.argv[1], os.O_RDONLY), 0, "
                             "os.SEEK_DATA)", path], stderr=subprocess.DEVNULL)


@pytest.mark.timeout(100)
def test_a_seek_can_be_interrupted(mount, pool, work):
    """By a signal to whoever seeks, and by the end of the mount."""
    gate = Gate(work)
    make_image(os.path.join(pool, "b.leaf"), "8M")
    live = mount(env=faults("disk.seek:short", gate=gate.path))
    gate.open()
    for end in (lambda seeker: seeker.terminate(), lambda _: os.kill(live.pid, signal.SIGTERM)):
        seeker = start_seek(live.file("b.img"))
        wait_until(lambda: is_seeking(seeker.pid), "a seek to be under way")
        end(seeker)
        assert seeker.wait(60) != 0
    assert live.wait() == 0
    live.finalise()


def is_seeking(pid):
    """Its number on x86-64 and on the others."""
    with contextlib.suppress(OSError):
        return file_bytes(f"/proc/{pid}/syscall").split()[:1] in ([b"8"], [b"62"])
    return False
