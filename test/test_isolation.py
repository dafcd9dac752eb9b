"""One disk that fails stops no other: what cannot be written back has its share of the cache, moves out of the way of
the others, and is written back by itself once that can be done."""
import contextlib
import errno
import fcntl
import functools
import os
import re
import shlex
import signal
import threading
import time

import pytest

from harness import (BLOCK, KIB, MIB, PATIENCE, Aligned, Loop, assert_same, control_values, converted, expect_errno,
                     faults, file_bytes, halt, leafctl, make_image, make_raw, opened, read_file, state_of, stats,
                     wait_until, write_all, write_conf, zero_range)
from test_writeback_faults import HELD, STORE, dirty_of, end, failing, left_open, lines_with, wait_clean

BLOCKS = 8 * MIB // BLOCK
DIRTY = 2 * MIB
# Through a cache of 16 MiB.
LOAD = 48
# What a disk that is well may take for one MiB, however slow the machine is.
STANDSTILL = 60


@pytest.fixture
def writeback(mount, cache):
    return functools.partial(mount, f"cache={cache}", "mode=writeback", "cache_size=16M", "migrate_idle_ms=1")


@pytest.fixture
def pair(pool):
    """Two images; the first is the one in trouble."""
    return [make_image(os.path.join(pool, f"web{number}.leaf"), BLOCKS * BLOCK, chunk="256K") for number in (1, 2)]


def leave_dirty(mount, cache, image, gate, rng):
    """A mount ends with DIRTY bytes of IMAGE's disk in the cache alone: what is there."""
    content = rng.randbytes(DIRTY)
    live = mount(f"cache={cache}", "mode=writeback", "cache_size=16M", "nodrain", *HELD, env=failing(image, gate))
    with left_open(live.file("web1.img")) as fd:
        gate.open()
        for offset in range(0, DIRTY, 64 * KIB):
            write_all(fd, content[offset:offset + 64 * KIB], offset)
            os.fsync(fd)
        assert end(live) == 0
    gate.close()
    return content


def load(live, name, mib=LOAD, flush=True):
    """MIB are written to the disk, each flushed, none of which takes for ever."""
    done = []

    def work():
        with left_open(live.file(name)) as fd:
            memory = Aligned(MIB)
            for number in range(mib):
                memory.write(fd, os.urandom(MIB), number % 8 * MIB)
                if flush:
                    os.fsync(fd)
                done.append(time.monotonic())

    thread = threading.Thread(target=work, daemon=True)
    begun = time.monotonic()
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
        last = done[-1] if done else begun
        assert time.monotonic() < last + STANDSTILL, f"{name} stands still after {len(done)} of {mib} MiB: {state_of(live, name)}"
    assert len(done) == mib


@contextlib.contextmanager
def locked(path):
    with open(path, "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 1, 0, 0)
        yield


# ---- Dirty blocks that stay -----------------------------------------------------------


class Trouble:
    """What is the matter with web1 from the mount on, and how it ends."""

    def __init__(self, work, cache, image, gate):
        self.work, self.cache, self.image, self.gate = work, cache, image, gate
        self.options, self.env = [], None
        self.stack = contextlib.ExitStack()

    def begin(self, how):
        getattr(self, how)()

    def deleted(self):
        away = os.path.join(self.work, "away.leaf")
        os.rename(self.image, away)
        self.stack.callback(os.rename, away, self.image)

    def hidden(self):
        self.options = ["disks=web2*"]

    def locked(self):
        self.stack.enter_context(locked(self.image))

    def failing(self):
        self.gate.open()
        self.env = failing(self.image, self.gate)
        self.stack.callback(self.gate.close)

    def damaged(self):
        data = file_bytes(self.cache)
        with opened(self.cache) as fd:
            write_all(fd, bytes(64), data.index(self.content[DIRTY // 2:DIRTY // 2 + BLOCK]))

    def end(self):
        self.stack.close()


@pytest.mark.parametrize("how", ["deleted", "hidden", "locked", "failing", "damaged"])
@pytest.mark.parametrize("mode", ["writeback", "persistent", "ephemeral"])
def test_dirty_blocks_that_stay(mount, writeback, pair, work, cache, gate, rng, how, mode):
    """Three laps of the log and more go past them."""
    trouble = Trouble(work, cache, pair[0], gate)
    trouble.content = leave_dirty(mount, cache, pair[0], gate, rng)
    conf = write_conf(work, f"[disk web2.img]\nmode = {mode}\n")
    trouble.begin(how)
    live = writeback(f"conf={conf}", "nodrain", *trouble.options, env=trouble.env)
    load(live, "web2.img")
    assert mode == "ephemeral" or not lines_with(live, "web2.img: "), live.messages()
    if how == "damaged":
        assert state_of(live)["state"] == "failed"
        assert end(live) == 0
        return
    assert control_values(live, "cache", "info")["left" if how != "failing" else "state"]
    trouble.end()
    if how == "hidden":
        assert end(live) == 0
        live = writeback(f"conf={conf}")
    else:
        os.listdir(live.path)
    wait_until(lambda: os.path.exists(live.file("web1.img")) and dirty_of(live) == 0
               and state_of(live)["state"] == "active", lambda: f"web1 to be written back: {live.messages()}")
    assert_same(read_file(live.file("web1.img"), DIRTY), trouble.content, "through the mount")
    assert end(live) == 0
    assert_same(converted(pair[0], work)[:DIRTY], trouble.content, "the image alone")


def test_a_hanging_image(mount, pool, work, cache, rng):
    """Its store answers nothing while the other goes round the log; then it does."""
    where = os.path.join(work, "slow")
    os.mkdir(where)
    make_raw(os.path.join(where, "device.raw"), bytes(16 * MIB))
    make_image(os.path.join(pool, "web2.leaf"), BLOCKS * BLOCK, chunk="256K")
    slow = mount(pool=where)
    content = rng.randbytes(4 * MIB)
    with Loop(slow.file("device.img")) as loop, contextlib.ExitStack() as stack:
        leafctl("create", "--force", loop.device, 8 * MIB)
        conf = write_conf(work, f"[pool]\nlayers = /dev\n[disk big.img]\nlayers = {loop.device}\n")
        live = mount(f"cache={cache}", "mode=writeback", "cache_size=16M", "migrate_idle_ms=1", f"conf={conf}")
        stack.callback(os.kill, slow.pid, signal.SIGCONT)
        with left_open(live.file("big.img")) as fd:
            write_all(fd, content[:BLOCK], 0)
            os.fsync(fd)
            wait_clean(live, "big.img")
            halt(slow.pid)
            for offset in range(0, len(content), 64 * KIB):
                write_all(fd, content[offset:offset + 64 * KIB], offset)
                os.fsync(fd)
            load(live, "web2.img")
            assert dirty_of(live, "big.img") > 0
            os.kill(slow.pid, signal.SIGCONT)
            wait_clean(live, "big.img")
            assert_same(read_file(live.file("big.img"), len(content)), content, "afterwards")
        live.stop()


def test_many_that_fail(writeback, pool, gate, rng):
    """All write as fast as they may; what is left is the other's."""
    count = 12
    for number in range(count):
        make_image(os.path.join(pool, f"bad{number}.leaf"), BLOCKS * BLOCK, chunk="256K")
    make_image(os.path.join(pool, "web2.leaf"), BLOCKS * BLOCK, chunk="256K")
    rules = faults(*(f"{point}/bad{number}.leaf:EIO" for point in STORE for number in range(count)), gate=gate.path)
    live = writeback("nodrain", env=rules)
    written = [bytearray(BLOCKS * BLOCK) for _ in range(count)]

    def write(number, fd, stop):
        random = type(rng)(number)
        with contextlib.suppress(OSError):
            for block in range(0, BLOCKS, 16):
                if stop.is_set():
                    break
                data = random.randbytes(64 * KIB)
                written[number][block * BLOCK:block * BLOCK + 64 * KIB] = data
                write_all(fd, data, block * BLOCK)
                os.fsync(fd)

    with contextlib.ExitStack() as stack:
        fds = [stack.enter_context(left_open(live.file(f"bad{number}.img"))) for number in range(count)]
        gate.open()
        stop = threading.Event()
        threads = [threading.Thread(target=write, args=(number, fd, stop), daemon=True) for number, fd in enumerate(fds)]
        for thread in threads:
            thread.start()
        wait_until(lambda: stats(live)["cache_waits"] >= count // 2, "some of them to wait")
        load(live, "web2.img")
        stop.set()
        gate.close()
        for thread in threads:
            thread.join(PATIENCE)
        for number in range(count):
            wait_clean(live, f"bad{number}.img")
            assert_same(read_file(live.file(f"bad{number}.img"), BLOCKS * BLOCK), written[number], f"disk {number}")
    assert end(live) == 0


# ---- Shares -------------------------------------------------------------------------


def test_a_share_of_max_dirty(writeback, pair, gate):
    live = writeback("max_dirty=2M", "nodrain", env=failing(pair[0], gate))

    def write(fd):
        with contextlib.suppress(OSError):
            for number in range(8):
                write_all(fd, os.urandom(MIB), number * MIB)

    with left_open(live.file("web1.img")) as fd:
        gate.open()
        thread = threading.Thread(target=write, args=(fd,), daemon=True)
        thread.start()
        wait_until(lambda: stats(live)["cache_waits"] and dirty_of(live) > MIB // 2, "the writer to wait")
        load(live, "web2.img", 8)
        assert thread.is_alive()
        gate.close()
        thread.join(PATIENCE)
    wait_clean(live)
    assert end(live) == 0


def test_a_share_of_zero_ranges(writeback, pool, pair, gate):
    """As of an fstrim while the image fails."""
    count = 33000
    path = make_image(os.path.join(pool, "big.leaf"), 2 * count * BLOCK)
    live = writeback("cache_size=32M", "nodrain", env=failing(path, gate, ["aio.datasync", "image.sync"]))

    def trim(_stop):
        with contextlib.suppress(OSError), left_open(live.file("big.img")) as fd:
            zero_range(fd, 0, BLOCK)
            gate.open()
            for block in range(0, 2 * count, 2):
                zero_range(fd, block * BLOCK, BLOCK)

    thread = threading.Thread(target=trim, args=(None,), daemon=True)
    thread.start()
    wait_until(lambda: stats(live)["cache_waits"] > 0, "the trim to wait")
    load(live, "web2.img", 8)
    with opened(live.file("web2.img")) as fd:
        for block in range(0, 200, 2):
            zero_range(fd, block * BLOCK, BLOCK)
        os.fsync(fd)
    gate.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert end(live) == 0


# ---- A cache that fails ---------------------------------------------------------------


@pytest.mark.parametrize("mode", ["writeback", "persistent", "ephemeral"])
def test_a_disk_is_opened_while_the_cache_fails(mount, pair, work, cache, gate, rng, mode):
    """It goes without the cache, says so, and uses it again by itself."""
    content = rng.randbytes(MIB)
    live = mount(f"cache={cache}", f"mode={mode}", "migrate_idle_ms=1",
                 env=faults("aio.write/leaf.cache:ENOSPC", gate=gate.path))
    with opened(live.file("web2.img")) as other:
        gate.open()
        write_all(other, rng.randbytes(MIB), 0)
        wait_until(lambda: control_values(live, "cache", "info")["state"] == "suspended", "the cache to fail")
        with opened(live.file("web1.img")) as fd:
            write_all(fd, content, 0)
            os.fsync(fd)
            state = state_of(live)
            assert state["state"] == "degraded" and cache in state["reason"], state
            gate.close()
            wait_until(lambda: state_of(live)["state"] == "active", lambda: f"the cache to be used: {state_of(live)}")
            assert_same(read_file(live.file("web1.img"), MIB), content, "with the cache")
            content = rng.randbytes(MIB)
            write_all(fd, content, 0)
            os.fsync(fd)
            assert_same(read_file(live.file("web1.img"), MIB), content, "written with the cache")
    if mode == "writeback":
        assert len(lines_with(live, "web1.img: uses the cache again")) == 1
    assert end(live) == 0
    if mode != "ephemeral":
        assert_same(converted(pair[0], work)[:MIB], content, "the image alone")


def test_a_disk_whose_changes_are_in_the_cache_that_fails(mount, pair, work, cache, gate, rng):
    """It is not opened as if they were not there."""
    content = leave_dirty(mount, cache, pair[0], gate, rng)
    live = mount(f"cache={cache}", "mode=writeback", "nodrain", *HELD, env=faults("aio.write/leaf.cache:EIO", gate=gate.path))
    with opened(live.file("web2.img")) as other:
        gate.open()
        write_all(other, rng.randbytes(MIB), 0)
        assert_same(read_file(live.file("web1.img"), DIRTY), content, "while it fails")
        gate.close()
    with opened(live.file("web1.img")) as fd:
        wait_until(lambda: control_values(live, "cache", "info")["state"] == "active", "the cache to work")
        write_all(fd, content, 0)
    assert end(live) == 0
    with mount(f"cache={cache}", "mode=writeback") as live:
        assert_same(read_file(live.file("web1.img"), DIRTY), content, "in the next mount")


def test_a_cache_that_was_away(mount, pair, work, cache, gate, rng):
    """It can neither be read nor written for a while, and has what no image has; nothing failed."""
    content = rng.randbytes(24 * MIB)
    path = make_image(os.path.join(os.path.dirname(pair[0]), "big.leaf"), 24 * MIB)
    live = mount(f"cache={cache}", "mode=writeback", "cache_size=64M", "nodrain", *HELD,
                 env=faults("aio.write/leaf.cache:EIO", "aio.read/leaf.cache:EIO", "aio.datasync/leaf.cache:EIO",
                            gate=gate.path))
    with opened(live.file("big.img")) as fd:
        for offset in range(0, len(content), MIB):
            write_all(fd, content[offset:offset + MIB], offset)
        os.fsync(fd)
        gate.open()
        with opened(live.file("web2.img")) as other:
            write_all(other, b"x" * BLOCK, 0)
        wait_until(lambda: control_values(live, "cache", "info")["state"] == "suspended", "the cache to fail")
        wait_until(lambda: state_of(live, "big.img")["state"] == "degraded"
                   and "cannot be read" in state_of(live, "big.img").get("reason", ""), "its blocks to be wanted")
        gate.close()
        wait_until(lambda: state_of(live, "big.img")["state"] == "active", lambda: f"it to be back: {live.messages()}")
        assert_same(read_file(live.file("big.img"), len(content)), content, "afterwards")
        assert len(lines_with(live, "cannot be read, which alone")) == 1
    leafctl("drain", live.path)
    assert end(live) == 0
    assert_same(converted(path, work), content, "the image alone")


# ---- Tried again -----------------------------------------------------------------------


def test_it_is_tried_again(mount, writeback, pair, work, cache, gate, rng):
    """An image that is locked when the mount begins gets its blocks once it is free, and its state says why not."""
    content = leave_dirty(mount, cache, pair[0], gate, rng)
    with locked(pair[0]):
        live = writeback()
        state = state_of(live)
        assert state["state"] == "degraded" and state["since"], state
        assert "when it can be opened for writing (leafctl drain tries it): " in state["reason"], state
        assert pair[0] in state["reason"], state
        left = control_values(live, "cache", "info")["left"]
        assert left.startswith(f"2 MiB of {pair[0]}: "), left
        time.sleep(4)
        assert len(lines_with(live, "it is tried again")) == 1, live.messages()
    wait_clean(live)
    wait_until(lambda: state_of(live)["state"] == "active", "all to be well")
    assert "left" not in control_values(live, "cache", "info")
    assert end(live) == 0
    assert_same(converted(pair[0], work)[:DIRTY], content, "the image alone")


def test_a_mount_ends_while_it_is_tried(mount, writeback, pair, cache, gate, rng):
    leave_dirty(mount, cache, pair[0], gate, rng)
    with locked(pair[0]):
        live = writeback("nodrain")
        begun = time.monotonic()
        assert end(live) == 0
        assert time.monotonic() < begun + 10


def test_an_image_that_was_made_anew(mount, writeback, pair, cache, gate, rng):
    """The blocks are of the one that was there: a drain says that they stay, and until that
    is settled the new one is neither read nor written."""
    leave_dirty(mount, cache, pair[0], gate, rng)
    os.unlink(pair[0])
    make_image(pair[0], BLOCKS * BLOCK, chunk="256K")
    live = writeback()
    for flags in (os.O_RDONLY, os.O_RDWR):
        expect_errno(errno.EBUSY, os.open, live.file("web1.img"), flags)
    drained = leafctl("drain", live.path, check=False)
    assert drained.returncode == 1 and f"{pair[0]}: is not among the disks of this mount" in drained.stderr, drained
    assert control_values(live, "cache", "info")["left"].startswith(f"2 MiB of {pair[0]}: is not among")
    assert end(live) == 1
    saved = os.path.join(os.path.dirname(cache), "saved")
    os.mkdir(saved)
    for command in re.findall(r"\((leafctl cache [^)]*)\)", drained.stderr):
        leafctl(*shlex.split(command.replace("DIR", saved))[1:])
    dumped, = os.listdir(saved)
    assert os.path.getsize(os.path.join(saved, dumped)) == BLOCKS * BLOCK
    live = writeback()
    assert read_file(live.file("web1.img"), DIRTY) == bytes(DIRTY)
    assert end(live) == 0
