"""What an error of a store means: nothing is given away before there is another, nothing waits for ever."""
import contextlib
import errno
import fcntl
import os
import signal
import struct
import threading

import pytest

import cleanup
from harness import (BLOCK, KIB, MIB, NO_JOURNAL, Aligned, Loop, assert_same, check_clean, control_values, converted,
                     discard, faults, file_system, halt, leafctl, make_image, make_raw, opened, process_ended,
                     read_all, run, state_of, stats, wait_until, write_all, write_conf)
from test_writeback_faults import HELD, in_background, left_open, lines_with

BLOCKS = 8 * MIB // BLOCK
F_OFD_SETLK = 37


# ---- A leaf that failed ----------------------------------------------------------


def take_lock(fd):
    """As another program would, for writing."""
    try:
        fcntl.fcntl(fd, F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
    except OSError:
        return False
    return True


@pytest.fixture
def device(work):
    """A leaf on a device, as a disk that is spelled out: its options and the loop."""
    path = os.path.join(work, "device.raw")
    make_raw(path, bytes(16 * MIB))
    with Loop(path) as loop:
        leafctl("create", "--force", loop.device, BLOCKS * BLOCK)
        conf = write_conf(work, f"[pool]\nlayers = /dev\n[disk web1.img]\nlayers = {loop.device}\n")
        yield f"conf={conf}", loop


def test_a_failed_leaf_stays_until_there_is_another(mount, work, cache, gate, device):
    """Its flush failed, and it cannot be opened for writing for a while: the
    disk goes on from the cache, others can open it, and nobody gets its lock."""
    conf, loop = device
    points = (f"{point}/{os.path.basename(loop.device)}:EIO" for point in ("aio.datasync", "image.sync"))
    live = mount(conf, f"cache={cache}", "mode=writeback", "cache_size=16M", "migrate_idle_ms=1",
                 env=faults(*points, gate=gate.path))
    memory, taken = Aligned(BLOCK), []

    def try_lock(stop):
        with opened(loop.device) as other:
            while not stop.is_set() and not taken:
                if take_lock(other):
                    taken.append(True)

    with left_open(live.file("web1.img")) as fd, opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as direct:
        memory.write(direct, b"1" * BLOCK, 0)
        os.fsync(fd)
        leafctl("drain", live.path)
        with in_background(try_lock):
            gate.open()
            memory.write(direct, b"2" * BLOCK, 0)
            os.fsync(fd)
            wait_until(lambda: state_of(live)["state"] == "degraded", "the disk to be degraded")
            run("blockdev", "--setro", loop.device)
            gate.close()
            try:
                # It is refused only after several tries.
                refused = leafctl("drain", live.path, check=False)
                assert refused.returncode == 1 and loop.device in refused.stderr, refused.stderr
                assert memory.read(direct, BLOCK, 0) == b"2" * BLOCK
                memory.write(direct, b"3" * BLOCK, BLOCK)
                with opened(live.file("web1.img")) as second:
                    os.fsync(second)
                assert not process_ended(live.pid, 0)
                assert state_of(live)["state"] == "degraded" and "reason" in state_of(live)
            finally:
                run("blockdev", "--setrw", loop.device)
            leafctl("drain", live.path)
        assert not taken, "another program got the lock"
        assert state_of(live)["state"] == "active" and lines_with(live, "takes its changes again")
    live.stop()
    found = converted(loop.device, work)
    assert_same(found, b"2" * BLOCK + b"3" * BLOCK + bytes((BLOCKS - 2) * BLOCK), "the image alone")


# ---- A full store ------------------------------------------------------------------


def fill_up(directory, left):
    """All the room that there is, but LEFT bytes."""
    with open(os.path.join(directory, "filler"), "wb", buffering=0) as file:
        for size in (MIB, 64 * KIB, BLOCK):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
        file.truncate(file.tell() - left)


@pytest.fixture
def small(work):
    """A pool that is full soon."""
    with file_system(work, "small", "40M", *NO_JOURNAL) as pool:
        yield pool


@pytest.mark.parametrize("name,left", [("web1.leaf", 512 * KIB), ("web1.raw", 0)])
def test_full_store_takes_what_it_can(mount, small, work, cache, rng, name, left):
    """Overwrites of what is allocated go, whatever their epoch, and discards; what
    finds no room waits, and the room that a later discard makes is enough. A
    leaf needs some to write a piece of a batch aside first."""
    image = os.path.join(small, name)
    leafctl("create", *(["-c", "64K"] if name.endswith("leaf") else []), image, 64 * MIB)
    options = [f"cache={cache}", "mode=writeback", "cache_size=64M", "migrate_idle_ms=1", "max_dirty_age=1"]
    expected = bytearray(64 * MIB)

    def write(fd, offset, length):
        data = rng.randbytes(length)
        write_all(fd, data, offset)
        os.fsync(fd)
        expected[offset:offset + length] = data

    live = mount(*options, pool=small)
    with left_open(live.file("web1.img")) as fd:
        write(fd, 0, 8 * MIB)
        leafctl("drain", live.path)
        fill_up(small, left)
        write(fd, 0, 4 * MIB)
        for offset in range(0, 4 * MIB, 256 * KIB):
            write(fd, offset, 64 * KIB)
        leafctl("drain", live.path)
        write(fd, 16 * MIB, MIB)
        refused = leafctl("drain", live.path, check=False)
        assert refused.returncode == 1 and os.strerror(errno.ENOSPC) in refused.stderr, refused.stderr
        write(fd, 0, 64 * KIB)
        discard(fd, 4 * MIB, 4 * MIB)
        os.fsync(fd)
        expected[4 * MIB:8 * MIB] = bytes(4 * MIB)
        wait_until(lambda: state_of(live)["dirty_bytes"] == "0", "all to be in the pool")
    live.stop()
    check_clean(image)
    assert_same(converted(image, work), bytes(expected), "the image alone")


# ---- A cache that does not answer --------------------------------------------------


@pytest.fixture
def silent(mount, work):
    """A cache's file on a mount of its own, and the process to stop."""
    where = os.path.join(work, "remote")
    os.mkdir(where)
    make_raw(os.path.join(where, "cache.raw"), bytes(32 * MIB))
    store = mount(pool=where)
    yield store.file("cache.img"), store.pid
    os.kill(store.pid, signal.SIGCONT)


def cache_state(live):
    return control_values(live, "cache", "info")


def reads_file(live, fd, memory):
    """A block that the cache has costs a request to its file."""
    before = stats(live)["aio_requests"]
    memory.read(fd, BLOCK, 64 * BLOCK)
    return stats(live)["aio_requests"] > before


@pytest.mark.slow
@pytest.mark.parametrize("what", ["flush", "read"])
def test_silent_cache_is_noticed(mount, pool, work, silent, rng, what):
    """By whatever meets it, and alone: it is suspended, and what the images have
    is read from there. When it answers again nothing is lost."""
    path, pid = silent
    os.mkdir(os.path.join(pool, "bases"))
    content = rng.randbytes(2 * MIB)
    make_image(os.path.join(pool, "web1.leaf"), parent=make_raw(os.path.join(pool, "bases", "base.raw"), content))
    live = mount(f"cache={path}", "mode=writeback", "read_run_bypass=1G", *HELD)
    memory = Aligned(BLOCK)
    with left_open(live.file("web1.img")) as fd, opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as direct:
        for block in range(len(content) // BLOCK):
            memory.read(direct, BLOCK, block * BLOCK)
        write_all(fd, b"1" * BLOCK, 0)
        os.fsync(fd)
        # Nothing is under way any more, and what was read is in the file only.
        wait_until(lambda: reads_file(live, direct, memory), "the cache's buffers to be let go", 30, 0.2)
        memory.write(direct, b"2" * BLOCK, 0)
        halt(pid)
        done = []

        def meet(_stop):
            done.append(os.fsync(direct) if what == "flush" else Aligned(BLOCK).read(direct, BLOCK, 64 * BLOCK))

        with in_background(meet):
            try:
                wait_until(lambda: cache_state(live)["state"] == "suspended", "the cache to be suspended", 40, 0.1)
                assert "does not answer" in cache_state(live)["reason"], cache_state(live)
                assert state_of(live)["state"] == "degraded" and "since" in state_of(live)
                for block in (1, 100, 300):
                    found = memory.read(direct, BLOCK, block * BLOCK)
                    assert_same(found, content[block * BLOCK:(block + 1) * BLOCK], f"block {block}")
            finally:
                os.kill(pid, signal.SIGCONT)
        assert done in ([None], [content[64 * BLOCK:65 * BLOCK]])
        wait_until(lambda: cache_state(live)["state"] == "active", "the cache to work again", 60, 0.1)
        os.fsync(direct)
        assert_same(memory.read(direct, BLOCK, 0), b"2" * BLOCK, "what was written")
    live.stop()


# ---- The end of a mount whose stores do not answer ------------------------------------


@pytest.fixture
def frozen(work):
    """A pool on a file system that can be frozen: writes to it hang, where no signal reaches them."""
    thawed = [True]

    def freeze(frozen):
        if thawed[0] == frozen:
            run("fsfreeze", "-f" if frozen else "-u", where)
            thawed[0] = not frozen

    with file_system(work, "frozen", "48M") as where:
        yield where, freeze
        freeze(False)


@pytest.mark.parametrize("mode", ["direct", "persistent"])
def test_a_pool_that_is_frozen(mount, work, frozen, cache, mode):
    """Only what needs the pool's file system waits, and it has its answer in the end."""
    where, freeze = frozen
    make_raw(os.path.join(where, "web1.raw"), bytes(8 * MIB))
    make_raw(os.path.join(where, "web2.raw"), b"2" * 8 * MIB)
    live = mount(f"cache={cache}", f"mode={mode}", "cache_size=32M", "threads=1", pool=where)
    direct = os.O_RDWR | os.O_DIRECT
    with opened(live.file("web1.img"), direct) as first, opened(live.file("web2.img"), direct) as second:
        Aligned(BLOCK).write(first, b"1" * BLOCK, 0)
        os.fsync(first)
        Aligned(BLOCK).read(second, BLOCK, 0)
        freeze(True)
        writers = [threading.Thread(target=Aligned(BLOCK).write, args=[first, b"1" * BLOCK, number * BLOCK])
                   for number in range(16)]
        for thread in writers:
            thread.start()
        wait_until(lambda: lines_with(live, "is long in taking requests"), "the submission to be given up")
        for number in range(64):
            assert Aligned(BLOCK).read(second, BLOCK, number * BLOCK) == b"2" * BLOCK
        assert live.names() == ["web1.img", "web2.img"]
        assert state_of(live, "web2.img")["state"] == "active"
        assert any(thread.is_alive() for thread in writers)
        freeze(False)
        for thread in writers:
            thread.join(60)
            assert not thread.is_alive()
        for number in range(16):
            assert Aligned(BLOCK).read(first, BLOCK, number * BLOCK) == b"1" * BLOCK
    assert live.stop() == 0


@pytest.mark.parametrize("mode", ["persistent", "writeback"])
def test_a_cache_that_is_frozen(mount, pool, frozen, mode):
    """It is one that does not answer: the disks go on without it."""
    where, freeze = frozen
    make_image(os.path.join(pool, "web1.leaf"), "64M")
    live = mount(f"cache={os.path.join(where, 'cache')}", f"mode={mode}", "cache_size=16M", "threads=1")
    memory = Aligned(MIB)
    with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        memory.write(fd, b"1" * MIB, 0)
        os.fsync(fd)
        if mode == "writeback":
            leafctl("drain", live.path)
        freeze(True)

        def write():
            for number in range(40):
                memory.write(fd, b"2" * MIB, number % 20 * MIB)
            os.fsync(fd)
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        writer.join(60)
        waits = writer.is_alive()
        freeze(False)
        writer.join(60)
        assert not waits and not writer.is_alive()
        assert lines_with(live, "does not answer")
        assert_same(memory.read(fd, MIB, 0), b"2" * MIB, "what was written")
    assert live.stop() == 0


def is_mounted(live):
    return any(point == live.path for point, _, _ in cleanup.mounts_below(live.path))


@pytest.mark.slow
@pytest.mark.parametrize("mode,option", [("writeback", "nodrain"), ("writeback", "drain"), ("direct", "drain")])
def test_end_of_a_mount_with_a_hung_pool(mount, work, frozen, cache, mode, option):
    """After a second signal, and with nodrain after the first, neither the mount nor the
    cache is kept; what was flushed is in the pool or the cache, and it is said."""
    where, freeze = frozen
    make_raw(os.path.join(where, "web1.raw"), bytes(8 * MIB))
    options = [f"cache={cache}", f"mode={mode}", "cache_size=16M", "migrate_idle_ms=1"]
    live = mount(*options, *(["nodrain"] if option == "nodrain" else []), pool=where)
    with left_open(live.file("web1.img")) as fd:
        write_all(fd, b"1" * BLOCK, 0)
        os.fsync(fd)
        freeze(True)
        if mode == "writeback":
            write_all(fd, b"2" * BLOCK, 0)
            os.fsync(fd)
        else:
            thread = threading.Thread(target=fails_in_the_end, args=(live.file("web1.img"),), daemon=True)
            thread.start()
        os.kill(live.pid, signal.SIGTERM)
        if option == "drain":
            wait_until(lambda: lines_with(live, "after another signal it waits"), "the end to say what it waits for",
                       60, 0.1)
            assert not process_ended(live.pid, 1)
            os.kill(live.pid, signal.SIGTERM)
        wait_until(lambda: lines_with(live, "a store does not answer"), "the daemon to leave", 60, 0.1)
        assert not is_mounted(live) and os.listdir(live.path) == []
        said, = lines_with(live, "a store does not answer")
        if mode == "writeback":
            assert "4 KiB of changes stay in the cache" in said
        else:
            thread.join(30)
            assert not thread.is_alive(), "who wrote is kept"
        assert leafctl("cache", "check", cache).returncode == 0
    freeze(False)
    assert live.wait(60) == 1
    assert len(lines_with(live, "has ended")) == 1
    live.finalise()
    with mount(*options, pool=where) as again, opened(again.file("web1.img")) as fd:
        assert read_all(fd, BLOCK, 0) == (b"2" if mode == "writeback" else b"1") * BLOCK


def fails_in_the_end(path):
    with contextlib.suppress(OSError):
        with opened(path, os.O_RDWR | os.O_DIRECT) as fd:
            Aligned(BLOCK).write(fd, b"3" * BLOCK, BLOCK)


def test_end_of_a_mount_with_a_silent_cache(mount, pool, work, silent):
    """The second signal is enough; what was flushed before is found again."""
    path, pid = silent
    image = make_raw(os.path.join(pool, "web1.raw"), bytes(8 * MIB))
    live = mount(f"cache={path}", "mode=writeback", *HELD)
    with left_open(live.file("web1.img")) as fd:
        write_all(fd, b"1" * BLOCK, 0)
        os.fsync(fd)
        halt(pid)
        write_all(fd, b"2" * BLOCK, BLOCK)
        os.kill(live.pid, signal.SIGTERM)
        wait_until(lambda: lines_with(live, "ending the mount"), "the end to begin")
        os.kill(live.pid, signal.SIGTERM)
        wait_until(lambda: not is_mounted(live), "the mount to be free", 60, 0.1)
    os.kill(pid, signal.SIGCONT)
    live.wait(60)
    live.finalise()
    with mount(f"cache={path}", "mode=writeback") as again, opened(again.file("web1.img")) as fd:
        assert read_all(fd, BLOCK, 0) == b"1" * BLOCK
    with open(image, "rb") as file:
        assert file.read(BLOCK) == b"1" * BLOCK


# ---- What is said of it ---------------------------------------------------------------


def test_a_hung_store_is_told_once(mount, work):
    """However many requests wait; the state says so while it is so, and so does the log
    when it is over."""
    where = os.path.join(work, "slow")
    os.mkdir(where)
    make_raw(os.path.join(where, "device.raw"), bytes(16 * MIB))
    slow = mount(pool=where)
    with Loop(slow.file("device.img")) as loop:
        conf = write_conf(work, f"[pool]\nlayers = /dev\n[disk web1.img]\nlayers = raw:{loop.device}\n")
        with mount(f"conf={conf}") as live, opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
            Aligned(BLOCK).write(fd, b"1" * BLOCK, 0)
            halt(slow.pid)
            try:
                with contextlib.ExitStack() as stack:
                    for block in range(8):
                        stack.enter_context(in_background(
                            lambda _stop, block=block: Aligned(BLOCK).write(fd, b"2" * BLOCK, 2 * block * BLOCK)))
                    wait_until(lambda: state_of(live)["state"] == "waiting", "the disk to be waiting", 40, 0.1)
                    state = state_of(live)
                    assert loop.device in state["reason"] and "since" in state, state
                    os.kill(slow.pid, signal.SIGCONT)
            finally:
                os.kill(slow.pid, signal.SIGCONT)
            wait_until(lambda: state_of(live)["state"] == "active", "the disk to be active")
            assert len(lines_with(live, "has been waiting")) == 1
            assert len(lines_with(live, "answers again")) == 1


def failing_state(live, path):
    state = state_of(live)
    assert state["state"] == "failing" and "since" in state, state
    assert state["reason"] == f"{path}: {os.strerror(errno.EIO)}", state


@pytest.mark.parametrize("point", ["image.write", "image.sync"])
def test_the_state_tells_of_a_checkpoint_that_fails(mount, pool, gate, point):
    """A resize is one: its pages and its flush are written by the thread that waits for them."""
    path = make_image(os.path.join(pool, "web1.leaf"), 16 * MIB)
    live = mount("mode=direct", env=faults(f"{point}/web1.leaf:EIO", gate=gate.path))
    with opened(live.file("web1.img")) as fd:
        write_all(fd, b"1" * BLOCK, 0)
        os.fsync(fd)
        assert state_of(live)["state"] == "active"
        gate.open()
        with pytest.raises(OSError):
            os.ftruncate(fd, 32 * MIB)
        failing_state(live, path)
        gate.close()
    live.kill9()
    check_clean(path)


def test_the_state_tells_of_a_discard_that_fails(mount, pool, gate):
    """Until something succeeds."""
    path = make_image(os.path.join(pool, "web1.leaf"), 16 * MIB)
    with mount("mode=direct", env=faults("image.punch/web1.leaf:EIO", gate=gate.path)) as live:
        with opened(live.file("web1.img")) as fd:
            write_all(fd, b"1" * MIB, 0)
            os.fsync(fd)
            gate.open()
            with pytest.raises(OSError):
                discard(fd, 0, MIB)
            failing_state(live, path)
            gate.close()
            write_all(fd, b"2" * MIB, 0)
            os.fsync(fd)
            assert state_of(live)["state"] == "active"
    check_clean(path)


@pytest.mark.parametrize("depth", [1, 2])
def test_the_state_tells_of_a_parent_that_fails(mount, pool, gate, depth):
    """Of whichever layer it is, and of the leaf's own reads."""
    paths = [make_raw(os.path.join(pool, "layer0.raw"), b"0" * (16 * MIB))]
    for number in range(1, 3):
        paths.append(make_image(os.path.join(pool, f"layer{number}.leaf"), parent=paths[-1]))
    leaf = make_image(os.path.join(pool, "web1.leaf"), parent=paths[depth])
    failing = paths[0] if depth == 1 else leaf
    live = mount("mode=direct", env=faults(f"aio.read/{os.path.basename(failing)}:EIO", gate=gate.path))
    with live, opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        memory = Aligned(BLOCK)
        memory.write(fd, b"1" * BLOCK, 0)
        os.fsync(fd)
        offset = 8 * MIB if failing == paths[0] else 0
        assert state_of(live)["state"] == "active"
        gate.open()
        with pytest.raises(OSError) as refused:
            memory.read(fd, BLOCK, offset)
        assert refused.value.errno == errno.EIO
        failing_state(live, failing)
        gate.close()
        memory.read(fd, BLOCK, offset)
        assert state_of(live)["state"] == "active"
