"""Writeback mode: what fails, and what an administrator does meanwhile."""
import contextlib
import errno
import functools
import json
import os
import signal
import subprocess
import threading
import time

import pytest

from harness import (BLOCK, GIB, KIB, MIB, PATIENCE, Aligned, Gate, Loop, assert_same, check_clean, control_values,
                     converted, discard, expect_errno, faults, file_bytes, halt, leafctl, make_image, make_raw, opened,
                     process_ended, program, read_all, read_file, run, scaled, shrink, state_of, stats, thread_names,
                     wait_until, write_all, write_conf, zero_range)
from model import in_threads
from stamps import Ledger, Writer, read_disk
from test_owner import record_of, refusal, wait_released, write_record, write_text

BLOCKS = 8 * MIB // BLOCK
# Nothing is written back unless somebody asks for it.
HELD = ["max_dirty_age=86400", "migrate_idle_ms=60000", "migrate_threshold=100"]
STORE = ("aio.write", "aio.datasync", "image.write", "image.sync")


@pytest.fixture
def writeback(mount, cache):
    return functools.partial(mount, f"cache={cache}", "mode=writeback", "cache_size=16M", "read_run_bypass=1G")


@pytest.fixture
def held(writeback):
    return functools.partial(writeback, *HELD)


@pytest.fixture
def web1(pool):
    return make_image(os.path.join(pool, "web1.leaf"), BLOCKS * BLOCK, chunk="256K")


def dirty_of(live, name="web1.img"):
    return int(state_of(live, name)["dirty_bytes"])


def wait_clean(live, name="web1.img"):
    wait_until(lambda: dirty_of(live, name) == 0, "everything to be in the pool")


def wait_state(live, state):
    wait_until(lambda: state_of(live)["state"] == state, lambda: f"the disk to be {state}, not {state_of(live)}")


def lines_with(live, words):
    return [line for line in live.messages().splitlines() if words in line]


def tune(live, **values):
    """No program does it: its copy of an open file would be closed, which is a barrier."""
    for key, value in values.items():
        with open(live.control("tunables", key), "w", encoding="ascii") as file:
            file.write(str(value))


def write_random(fd, expected, rng, count=1, length=64 * KIB):
    """Each write is flushed."""
    for _ in range(count):
        data = rng.randbytes(length)
        offset = rng.randrange(len(expected) - length)
        write_all(fd, data, offset)
        os.fsync(fd)
        expected[offset:offset + length] = data


def failing(image, gate, points=STORE):
    return faults(*(f"{point}/{os.path.basename(image)}:EIO" for point in points), gate=gate.path)


def end(live):
    """SIGTERM, with whatever is open; the exit status."""
    os.kill(live.pid, signal.SIGTERM)
    status = live.wait()
    live.finalise()
    return status


@contextlib.contextmanager
def left_open(path):
    """Of a mount that goes away meanwhile."""
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


@contextlib.contextmanager
def in_background(work):
    """WORK(STOP) in a thread; what it raises is raised here."""
    stop, failed = threading.Event(), []

    def run_work():
        try:
            work(stop)
        except BaseException as error:  # pylint: disable=broad-except
            failed.append(error)

    thread = threading.Thread(target=run_work, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert not thread.is_alive(), "the thread hangs"
    if failed:
        raise failed[0]


@contextlib.contextmanager
def under_load(live, rng, blocks=BLOCKS):
    """Two writers stamp the disk; afterwards it reads as they wrote it."""
    ledger, lock = Ledger(blocks), threading.Lock()
    writers = [Writer(ledger, live.file("web1.img"), type(rng)(rng.random()), number, 2, lock) for number in range(2)]
    with contextlib.ExitStack() as stack:
        for number, writer in enumerate(writers):
            stack.enter_context(in_background(functools.partial(writer.run, direct=number == 1)))
        yield ledger
    assert [writer.errors for writer in writers] == [[], []]
    for writer in writers:
        writer.all_durable()
    ledger.settle_all(read_disk(live.file("web1.img"), blocks), "after the load")


# ---- The shared store is gone for a while ----------------------------------------


@pytest.mark.parametrize("image,points", [("web1.leaf", ["aio.write"]), ("web1.leaf", ["aio.datasync"]),
                                          ("web1.leaf", STORE), ("web1.raw", STORE)])
def test_store_gone_and_back(writeback, pool, work, gate, rng, image, points):
    """The guest notices nothing; the state, the log and the image do."""
    path = os.path.join(pool, image)
    make_image(path, BLOCKS * BLOCK, chunk="256K") if image.endswith("leaf") else make_raw(path, bytes(BLOCKS * BLOCK))
    expected = bytearray(BLOCKS * BLOCK)
    with writeback("migrate_idle_ms=1", "max_dirty_age=1", "debug=disk", env=failing(path, gate, points)) as live:
        with opened(live.file("web1.img")) as fd:
            write_random(fd, expected, rng, 8)
            wait_clean(live)
            gate.open()
            begun = time.monotonic()
            write_random(fd, expected, rng, 8)
            wait_state(live, "degraded")
            state = state_of(live)
            assert path in state["reason"] and os.strerror(errno.EIO) in state["reason"] and state["since"], state
            write_random(fd, expected, rng, 24)
            assert_same(read_file(live.file("web1.img"), len(expected)), expected, "meanwhile")
            assert state_of(live)["reason"] == state["reason"] and state_of(live)["since"] == state["since"]
            assert len(lines_with(live, "it is tried again")) == 1
            wait_until(lambda: len(lines_with(live, "another try")) > 2, "several tries")
            gate.close()
            lasted = time.monotonic() - begun
            wait_clean(live)
            wait_state(live, "active")
            assert "reason" not in state_of(live)
            said = [line for line in lines_with(live, path) if "warning: " in line]
            assert len(said) <= 3 and len(lines_with(live, "it is tried again")) == 1, said
            tries = int(said[-1].split("takes its changes again, after ")[1].split()[0])
            assert tries > 2, said
            assert 0.075 * (2 ** (tries - 1) - 1) <= lasted, f"{tries} tries in {lasted} s"
        assert_same(read_file(live.file("web1.img"), len(expected)), expected, "afterwards")
    check_clean(path)
    assert_same(converted(path, work), expected, "the image alone")


@pytest.mark.parametrize("points", [["aio.write"], ["aio.datasync"]])
def test_writers_stop_at_max_dirty(writeback, web1, work, gate, rng, points):
    """At the share of it that a disk has whose image fails. They go on without an error when the store is back;
    meanwhile the disk can be read, opened, and made larger."""
    expected = rng.randbytes(4 * MIB)
    with writeback("max_dirty=1M", "migrate_idle_ms=1", env=failing(web1, gate, points)) as live:
        with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
            gate.open()

            def write(_stop):
                memory = Aligned(64 * KIB)
                for offset in range(0, len(expected), 64 * KIB):
                    memory.write(fd, expected[offset:offset + 64 * KIB], offset)
                os.fsync(fd)

            with in_background(write) as thread:
                wait_state(live, "degraded")
                wait_until(lambda: dirty_of(live) > 400 * KIB, "the writer to stop")
                waits = wait_until(lambda: stats(live)["cache_waits"], "the writer to wait")
                memory = Aligned(BLOCK)
                with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as other:
                    for block in range(8):
                        assert memory.read(other, BLOCK, block * BLOCK) == expected[block * BLOCK:(block + 1) * BLOCK]
                assert thread.is_alive() and dirty_of(live) <= MIB and waits
                with in_background(lambda _stop: os.truncate(live.file("web1.img"), 9 * MIB)):
                    gate.close()
                thread.join(PATIENCE)
            wait_clean(live)
            assert os.fstat(fd).st_size == 9 * MIB
    assert_same(converted(web1, work), expected + bytes(5 * MIB), "the image alone")


def test_drain_after_an_outage(held, web1, work, gate, rng):
    """It tries at once, however long the pause had become."""
    expected = bytearray(BLOCKS * BLOCK)
    with held(env=failing(web1, gate)) as live, opened(live.file("web1.img")) as fd:
        gate.open()
        write_random(fd, expected, rng, 4)
        for _ in range(3):
            refused = leafctl("drain", live.path, check=False)
            assert refused.returncode == 1
            assert "stay in the cache" in refused.stderr and os.strerror(errno.EIO) in refused.stderr, refused.stderr
        gate.close()
        leafctl("drain", live.path)
        assert dirty_of(live) == 0 and state_of(live)["state"] == "active"
    assert_same(converted(web1, work), expected, "the image alone")


# ---- The cache fails ---------------------------------------------------------------


@pytest.mark.parametrize("point", ["aio.write", "aio.datasync"])
def test_cache_failing_and_back(writeback, web1, work, gate, rng, point):
    """What is dirty goes to the pool, the disk goes on without the cache, and
    uses it again when it works."""
    expected = bytearray(BLOCKS * BLOCK)
    with writeback(env=faults(f"{point}/leaf.cache:EIO", gate=gate.path)) as live:
        with opened(live.file("web1.img")) as fd:
            write_random(fd, expected, rng, 16)
            gate.open()
            write_random(fd, expected, rng, 16)
            wait_until(lambda: lines_with(live, "goes on without the cache"), "the disk to leave the cache")
            state = state_of(live)
            assert state["state"] == "degraded" and "leaf.cache" in state["reason"] and state["since"], state
            assert state["dirty_bytes"] == "0"
            write_random(fd, expected, rng, 8)
            assert_same(read_file(live.file("web1.img"), len(expected)), expected, "without the cache")
            assert record_of(os.path.dirname(web1))["mode"] == "direct"
            gate.close()
            wait_state(live, "active")
            assert lines_with(live, "uses the cache again")
            assert record_of(os.path.dirname(web1))["mode"] == "writeback"
            put = stats(live)["cache_put_blocks"]
            write_random(fd, expected, rng, 8)
            assert stats(live)["cache_put_blocks"] > put
            assert_same(read_file(live.file("web1.img"), len(expected)), expected, "with the cache again")
    check_clean(web1)
    assert_same(converted(web1, work), expected, "the image alone")


@pytest.mark.parametrize("mode", ["direct", "persistent"])
def test_mode_of_a_disk_that_has_left_the_cache(writeback, web1, work, gate, rng, mode):
    """It does not go back to writeback when the cache works."""
    expected = bytearray(BLOCKS * BLOCK)
    with writeback(env=faults("aio.write/leaf.cache:EIO", gate=gate.path)) as live:
        with opened(live.file("web1.img")) as fd:
            write_random(fd, expected, rng, 8)
            gate.open()
            write_random(fd, expected, rng, 8)
            wait_until(lambda: lines_with(live, "goes on without the cache"), "the disk to leave the cache")
            leafctl("mode", live.file("web1.img"), mode)
            assert state_of(live)["state"] == ("active" if mode == "direct" else "degraded")
            write_random(fd, expected, rng, 8)
            gate.close()
            wait_until(lambda: lines_with(live, "leaf.cache works again"), "the cache to work")
            wait_state(live, "active")
            write_random(fd, expected, rng, 8)
            leafctl("drain", live.path)
            assert not lines_with(live, "uses the cache again")
            assert record_of(os.path.dirname(web1))["mode"] == mode
            leafctl("mode", live.file("web1.img"), "writeback")
            write_random(fd, expected, rng, 8)
            assert_same(read_file(live.file("web1.img"), len(expected)), expected, "in writeback again")
    check_clean(web1)
    assert_same(converted(web1, work), expected, "the image alone")


def test_a_reason_is_said_once(writeback, web1, gate, rng):
    """The disk would leave the cache, and its record cannot be written."""
    expected = bytearray(BLOCKS * BLOCK)
    points = ("aio.write/leaf.cache:EIO", "owner.write:EIO")
    with writeback(env=faults(*points, gate=gate.path)) as live, opened(live.file("web1.img")) as fd:
        write_random(fd, expected, rng)
        gate.open()
        with in_background(lambda _stop: write_random(fd, expected, rng)):
            try:
                wait_until(lambda: lines_with(live, "and it is tried again"), "the disk to stay")
            finally:
                gate.close()
        for line in lines_with(live, "and it is tried again"):
            assert line.count(os.strerror(errno.EIO)) == 1 and line.count(os.path.basename(web1)) == 1, line
        wait_state(live, "active")


@pytest.mark.parametrize("point", ["aio.write", "aio.datasync"])
@pytest.mark.parametrize("when", ["at once", "without the cache", "back"])
def test_killed_while_the_cache_fails(held, writeback, web1, work, cache, gate, rng, point, when):
    """What was fsynced is there, and nothing older."""
    expected = bytearray(BLOCKS * BLOCK)
    live = held(env=faults(f"{point}/leaf.cache:EIO", gate=gate.path))
    with left_open(live.file("web1.img")) as fd:
        write_random(fd, expected, rng, 16)
        gate.open()
        write_random(fd, expected, rng, 8)
        if when != "at once":
            wait_until(lambda: lines_with(live, "goes on without the cache"), "the disk to leave the cache")
            write_random(fd, expected, rng, 8)
        if when == "back":
            gate.close()
            wait_state(live, "active")
            write_random(fd, expected, rng, 8)
        live.kill9()
    check_clean(web1)
    with writeback() as live:
        assert_same(read_file(live.file("web1.img"), len(expected)), expected, "after the kill")
    leafctl("cache", "check", cache)
    assert_same(converted(web1, work), expected, "the image alone")


def test_cache_cannot_read_a_dirty_block(held, writeback, pool, web1, work, cache, gate, rng):
    """The disk fails and says which blocks; the rest can be saved."""
    content = rng.randbytes(MIB)
    bad = [3, 77]
    live = held("nodrain", env=failing(web1, gate))
    with left_open(live.file("web1.img")) as fd:
        gate.open()
        write_all(fd, content, 0)
        os.fsync(fd)
        assert end(live) == 0
    image = converted(web1, work)
    with opened(cache) as fd:
        log = file_bytes(cache)
        for block in bad:
            at = log.index(content[block * BLOCK:(block + 1) * BLOCK])
            write_all(fd, b"bad", at + 100)
    live = writeback()
    wait_state(live, "failed")
    reason = state_of(live)["reason"]
    assert "2 of its blocks" in reason and "4 KiB blocks 3, 77" in reason and "leafctl cache dump" in reason, reason
    with left_open(live.file("web1.img")) as fd:
        expect_errno(errno.EIO, os.pread, fd, BLOCK, 0)
        expect_errno(errno.EIO, Aligned(BLOCK).write, fd, bytes(BLOCK), 0)
        assert end(live) == 1
    assert "stay in the cache" in live.messages()
    assert converted(web1, work) == image, "something was written back"
    target = os.path.join(work, "saved")
    os.mkdir(target)
    assert leafctl("cache", "dump", "-d", target, cache, check=False).returncode == 3
    saved, = (file_bytes(os.path.join(target, name)) for name in os.listdir(target))
    for block in range(MIB // BLOCK):
        found = saved[block * BLOCK:(block + 1) * BLOCK]
        assert found == (bytes(BLOCK) if block in bad else content[block * BLOCK:(block + 1) * BLOCK]), block


@pytest.fixture
def remote(mount, work):
    """A cache on a mount of its own, which a gate of its own makes fail: its writes, for an image
    whose flush failed takes nothing more."""
    where = os.path.join(work, "remote")
    os.mkdir(where)
    make_raw(os.path.join(where, "cache.raw"), bytes(16 * MIB))
    gate = Gate(work, "cache-gate")
    live = mount(pool=where, env=faults("aio.write/cache.raw:EIO", gate=gate.path))
    return live.file("cache.img"), gate


@pytest.mark.parametrize("back", ["store", "cache", "killed", "ended"])
def test_both_failing(mount, web1, work, remote, gate, rng, back):
    """Writers wait; nothing that was fsynced is lost, and nothing hangs."""
    path, cache_gate = remote
    options = [f"cache={path}", "mode=writeback", "migrate_idle_ms=1"]
    expected = bytearray(BLOCKS * BLOCK)
    live = mount(*options, env=failing(web1, gate))
    with left_open(live.file("web1.img")) as fd:
        gate.open()
        write_random(fd, expected, rng, 8)
        wait_state(live, "degraded")
        cache_gate.open()
        last = rng.randbytes(64 * KIB)

        def write(_stop):
            try:
                write_all(fd, last, 0)
                os.fsync(fd)
            except OSError:
                assert back in ("killed", "ended")

        with in_background(write) as thread:
            wait_until(lambda: control_values(live, "cache", "info")["state"] == "suspended", "the cache to fail")
            with opened(live.file("web1.img"), os.O_RDONLY | os.O_DIRECT) as direct:
                assert_same(Aligned(MIB).read(direct, MIB, MIB), expected[MIB:2 * MIB], "meanwhile")
            if back == "killed":
                live.kill9()
            elif back == "ended":
                assert end(live) == 1
                assert "stay in the cache" in live.messages()
            else:
                (gate if back == "store" else cache_gate).close()
            thread.join(PATIENCE)
            assert not thread.is_alive()
        if back in ("store", "cache"):
            expected[:len(last)] = last
            assert_same(read_file(live.file("web1.img"), len(expected)), expected, "after one is back")
            (cache_gate if back == "store" else gate).close()
            wait_state(live, "active")
            wait_clean(live)
    if back in ("killed", "ended"):
        cache_gate.close()
    else:
        live.stop()
    with mount(*options) as live:
        found = read_file(live.file("web1.img"), len(expected))
        assert_same(found[len(last):], expected[len(last):], "after a restart")
        assert found[:len(last)] in (last, expected[:len(last)])
    check_clean(web1)
    assert_same(converted(web1, work), found, "the image alone")


# ---- Draining ------------------------------------------------------------------------


def leave_dirty(held, gate, image, rng, *options):
    """Ends a mount whose cache then has all that was written: 4 MiB."""
    content = rng.randbytes(4 * MIB)
    live = held("nodrain", *options, env=failing(image, gate))
    with left_open(live.file("web1.img")) as fd:
        gate.open()
        for offset in range(0, len(content), 64 * KIB):
            write_all(fd, content[offset:offset + 64 * KIB], offset)
            os.fsync(fd)
        assert end(live) == 0
    gate.close()
    return content + bytes(BLOCKS * BLOCK - len(content))


def test_the_end_of_a_mount_drains(held, web1, work, rng):
    expected = bytearray(BLOCKS * BLOCK)
    live = held()
    with left_open(live.file("web1.img")) as fd:
        write_random(fd, expected, rng, 8)
        assert dirty_of(live) > 0
        assert end(live) == 0
    assert len(lines_with(live, "all changes are in the pool")) == 1
    assert record_of(os.path.dirname(web1))["clean"] == "true"
    assert_same(converted(web1, work), expected, "the image alone")


def test_the_end_of_a_mount_without_the_store(held, writeback, web1, work, gate, rng):
    """Exit status 1, and how much of what is left; the next mount goes on."""
    expected = bytearray(BLOCKS * BLOCK)
    live = held(env=failing(web1, gate))
    with left_open(live.file("web1.img")) as fd:
        gate.open()
        write_all(fd, rng.randbytes(MIB), 0)
        os.fsync(fd)
        expected = bytearray(read_all(fd, len(expected), 0))
        assert end(live) == 1
    said, = lines_with(live, "of changes stay in the cache")
    assert "1 MiB" in said and "web1.img: its changes stay in the cache" in said and web1 in said, said
    with writeback() as live:
        wait_clean(live)
    assert_same(converted(web1, work), expected, "the image alone")


@pytest.mark.parametrize("mode", ["writeback", "persistent", "direct"])
def test_the_next_mount_goes_on(held, mount, pool, web1, work, cache, gate, other_store, rng, mode):
    """In any mode, with nobody asking for it; the state says so meanwhile, which is
    long on a slow store with a thousand batches."""
    expected = leave_dirty(held, gate, web1, rng)
    gate.open()
    options = [f"cache={cache}", f"mode={mode}", "migrate_batch=1", "read_run_bypass=1G"]
    env = {**failing(web1, gate, ["aio.write"]), **other_store.slow(pool)}
    with mount(*options, env=env) as live:
        wait_state(live, "degraded")
        assert dirty_of(live) == 4 * MIB and leafctl("mode", live.file("web1.img")).stdout == f"{mode}\n"
        with opened(live.file("web1.img"), os.O_RDONLY) as fd:
            assert_same(read_all(fd, len(expected), 0), expected, "before it is written back")
            gate.close()
            if mode != "writeback":
                wait_state(live, "draining")
            tune(live, migrate_batch=16384)
            wait_clean(live)
        wait_state(live, "active")
        with opened(live.file("web1.img")) as fd:
            record = record_of(os.path.dirname(web1))
            assert (record["mode"], record["clean"]) == (mode, "false")
            write_all(fd, b"n" * BLOCK, 0)
            os.fsync(fd)
            expected = b"n" * BLOCK + expected[BLOCK:]
            if mode == "direct":
                assert dirty_of(live) == 0
    assert_same(converted(web1, work), expected, "the image alone")


def generation_of(image):
    return json.loads(leafctl("info", "--json", image).stdout)["layers"][0]["generation"]


def opens(path):
    try:
        with opened(path, os.O_RDONLY):
            return True
    except OSError:
        return False


def forget_log(pool):
    """The record as earlier versions left it: whether the cache is as new cannot be told, so that the log has to say
    whose the dirty blocks are."""
    record = record_of(pool)
    record.pop("cache_generation", None)
    write_text(pool, "\n".join(["[owner]", *(f"{key}={value}" for key, value in record.items()), ""]).encode())


CLAIM = ["owner.write", "owner.rename", "image.write/web1.leaf", "image.sync/web1.leaf", "aio.write/leaf.cache",
         "aio.datasync/leaf.cache"]


@pytest.mark.parametrize("mode", ["writeback", "persistent", "direct"])
@pytest.mark.parametrize("point", CLAIM)
def test_an_error_while_dirty_blocks_are_claimed(mount, held, web1, work, cache, gate, rng, point, mode):
    """One error of the record, the image's header or the log, of each that the claim writes: the
    disk is refused until the next try, and what is dirty stays its own, the record unclean."""
    expected = leave_dirty(held, gate, web1, rng)
    options = [f"cache={cache}", f"mode={mode}", "read_run_bypass=1G", *HELD]
    refusals = 0
    for number in range(1, 5):
        forget_log(os.path.dirname(web1))
        live = mount(*options, env=faults(f"{point}:EIO@{number}x1", "aio.write/web1.leaf:EIO"))
        refusals += len(lines_with(live, "of changes that stay there for now: "))
        assert dirty_of(live) == 4 * MIB and record_of(os.path.dirname(web1))["clean"] == "false"
        if number % 2:
            wait_until(lambda path=live.file("web1.img"): opens(path), "the disk to be opened")
            assert_same(read_file(live.file("web1.img"), len(expected)), expected, "in the same mount")
        assert not lines_with(live, "another owner")
        live.kill9()
    assert refusals > 0
    with mount(*options) as live:
        leafctl("drain", live.path)
        assert not lines_with(live, "another owner")
    assert_same(converted(web1, work), expected, "the image alone")


def test_an_error_while_dirty_blocks_of_a_reopened_image_are_claimed(mount, held, web1, work, cache, gate, rng):
    """Each time that it was opened again in an outage its generation went up, and the record's did not."""
    expected = leave_dirty(held, gate, web1, rng)
    options = [f"cache={cache}", "mode=writeback", *HELD]
    live = mount(*options, env=faults("aio.datasync/web1.leaf:EIO"))
    claimed = int(record_of(os.path.dirname(web1))["generation"])
    wait_until(lambda: generation_of(web1) > claimed + 1, "the image to be opened again")
    live.kill9()
    live = mount(*options, env=faults("owner.write:EIO@1x1"))
    assert lines_with(live, "of changes that stay there for now: ")
    live.kill9()
    with mount(*options) as live:
        leafctl("drain", live.path)
        assert not lines_with(live, "another owner")
    assert_same(converted(web1, work), expected, "the image alone")


def test_left_in_the_cache_and_mounted_otherwise(held, mount, pool, web1, work, cache, gate, rng):
    """Ephemeral, and without the cache: refused, with what to do."""
    expected = leave_dirty(held, gate, web1, rng)
    image = converted(web1, work)
    live = mount(f"cache={cache}", "mode=ephemeral")
    said = refusal(live)
    assert "changes of it that are not in the pool yet" in said and "leafctl cache drain" in said, said
    assert end(live) == 1
    with mount() as live:
        said = refusal(live)
        assert cache in said and f"-o cache={cache},mode=writeback" in said, said
        assert f"leafctl unlock --force {pool} web1.leaf" in said and f"leafctl cache drain {cache}" in said
    assert converted(web1, work) == image
    leafctl("cache", "drain", cache)
    assert_same(converted(web1, work), expected, "the image alone")


def test_a_tool_on_an_image_whose_changes_a_mount_has(held, web1, rng):
    """Its mount gets them, where it is; nobody is told to give them up."""
    live = held()
    with opened(live.file("web1.img")) as fd:
        write_all(fd, rng.randbytes(MIB), 0)
    for words in (["resize", web1, "64M"], ["clone", web1, web1 + ".leaf"]):
        said = leafctl(*words, check=False).stderr
        assert "which is mounted: leafctl drain" in said and f"pid {live.pid}" in said and "--force" not in said, said
    leafctl("drain", live.path)
    wait_until(lambda: state_of(live)["owner"] == "none", "the claim to end")
    leafctl("resize", web1, "64M")
    assert end(live) == 0


def test_a_mount_that_was_killed_has_no_changes_any_more(held, web1, cache, rng):
    """Also before anybody has asked how it ended: the cache is named, and not a mount that would have them."""
    live = held()
    with opened(live.file("web1.img")) as fd:
        write_all(fd, rng.randbytes(MIB), 0)
    live.kill()
    assert process_ended(live.pid, PATIENCE)
    said = leafctl("resize", web1, "64M", check=False).stderr
    assert f"leafctl cache drain {cache}" in said and "which is mounted" not in said, said
    live.kill9()


def interrupted(command, line, image, gate):
    """Of leafctl, once it has said LINE: exit status and what it said."""
    gate.open()
    child = subprocess.Popen([program("leafctl"), *command], stderr=subprocess.PIPE, text=True,
                             env={**os.environ, **failing(image, gate, ["aio.write"])})
    said = child.stderr.readline()
    while said and line not in said:
        said = child.stderr.readline()
    child.send_signal(signal.SIGINT)
    said = child.stderr.read()
    gate.close()
    return child.wait(PATIENCE), said


def test_cache_drain(held, mount, web1, work, cache, gate, rng):
    """Offline: fails, is interrupted, and is run again."""
    expected = leave_dirty(held, gate, web1, rng)
    gate.open()
    refused = leafctl("cache", "drain", cache, check=False, env=failing(web1, gate))
    assert refused.returncode == 1 and "4 MiB of changes stay in the cache: web1.img" in refused.stderr, refused.stderr
    gate.close()
    status, said = interrupted(["cache", "drain", cache], "it is tried again", web1, gate)
    assert status == 1 and "4 MiB of changes stay in the cache" in said, said
    for _ in range(2):
        assert leafctl("cache", "drain", cache).stderr == ""
        assert_same(converted(web1, work), expected, "the image alone")
    with mount() as live:
        assert_same(read_file(live.file("web1.img"), len(expected)), expected, "without the cache")


def test_cache_drain_of_a_pool_with_parents_elsewhere(mount, pool, work, cache, rng):
    """It is told where, by the option that the refusal names."""
    elsewhere = os.path.join(work, "bases")
    os.mkdir(elsewhere)
    base = make_raw(os.path.join(elsewhere, "base.raw"), bytes(BLOCKS * BLOCK))
    image = os.path.join(pool, "web2.leaf")
    leafctl("clone", "--layers", elsewhere, base, image)
    content = rng.randbytes(MIB)
    live = mount(f"cache={cache}", "mode=writeback", f"layers={elsewhere}", *HELD)
    with left_open(live.file("web2.img")) as fd:
        write_all(fd, content, 0)
        os.fsync(fd)
        live.kill9()
    refused = leafctl("cache", "drain", cache, check=False)
    assert refused.returncode == 1 and "(leafctl: --layers)" in refused.stderr, refused.stderr
    assert leafctl("cache", "drain", "--layers", elsewhere, cache).stderr == ""
    assert_same(converted(image, work, "--layers", elsewhere)[:MIB], content, "the image alone")


@pytest.mark.parametrize("what", ["file", "mount"])
def test_drain_of_a_mount(held, web1, work, gate, rng, what):
    """Fails without the store; later everything goes, while the disk is in use."""
    expected = bytearray(BLOCKS * BLOCK)
    with held(env=failing(web1, gate)) as live, opened(live.file("web1.img")) as fd:
        target = live.path if what == "mount" else live.file("web1.img")
        write_random(fd, expected, rng, 8)
        assert dirty_of(live) > 0
        gate.open()
        refused = leafctl("drain", target, check=False)
        assert refused.returncode == 1 and "web1.img: its changes stay in the cache" in refused.stderr, refused.stderr
        gate.close()
        leafctl("drain", target)
        assert dirty_of(live) == 0
        assert leafctl("drain", target).stderr == ""
        write_random(fd, expected, rng)
    assert_same(converted(web1, work), expected, "the image alone")


@pytest.fixture
def hanging(mount, work):
    """A disk on a device that answers nothing while its daemon is stopped."""
    where = os.path.join(work, "slow")
    os.mkdir(where)
    make_raw(os.path.join(where, "device.raw"), bytes(16 * MIB))
    slow = mount(pool=where)
    with Loop(slow.file("device.img")) as loop:
        leafctl("create", "--force", loop.device, 8 * MIB)
        conf = write_conf(work, f"[pool]\nlayers = /dev\n[disk big.img]\nlayers = {loop.device}\n")
        yield f"conf={conf}", slow.pid
        os.kill(slow.pid, signal.SIGCONT)


@pytest.mark.parametrize("command", ["drain FILE", "drain MOUNT", "mode FILE direct"])
def test_interrupted_commands(held, hanging, rng, command):
    """SIGINT ends it at once, however long the store does not answer."""
    conf, pid = hanging
    expected = bytearray(8 * MIB)
    with held(conf) as live, opened(live.file("big.img")) as fd:
        words = [live.file("big.img") if word == "FILE" else live.path if word == "MOUNT" else word
                 for word in command.split()]
        write_random(fd, expected, rng, 8)
        halt(pid)
        child = subprocess.Popen([program("leafctl"), *words], stderr=subprocess.PIPE, text=True)
        write_random(fd, expected, rng, 2)
        wait_until(lambda: "leafdisk-cmd" in thread_names(live.pid), "the command to be under way")
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=PATIENCE)
        assert child.returncode == 1 and "in the cache" in said, said
        write_random(fd, expected, rng, 2)
        assert dirty_of(live, "big.img") > 0
        assert leafctl("mode", live.file("big.img")).stdout == "writeback\n"
        os.kill(pid, signal.SIGCONT)
        leafctl(*words)
        assert dirty_of(live, "big.img") == 0
        assert_same(read_file(live.file("big.img"), len(expected)), expected, "afterwards")


@pytest.mark.parametrize("mode", ["direct", "persistent"])
def test_a_mode_of_a_disk_without_dirty_blocks_waits_for_a_request(mount, cache, hanging, rng, mode):
    """Nothing of it is in the migrator's hands; given up all the same."""
    conf, pid = hanging
    with mount(conf) as live, opened(live.file("big.img")) as fd:
        write_all(fd, rng.randbytes(8 * MIB), 0)
    live = mount(conf, f"cache={cache}", f"mode={mode}", "cache_size=16M")
    with left_open(live.file("big.img")) as fd:
        before = stats(live)["read_requests"]
        halt(pid)
        reader = threading.Thread(target=os.pread, args=(fd, BLOCK, 7 * MIB), daemon=True)
        reader.start()
        wait_until(lambda: stats(live)["read_requests"] > before, "the read to be in work")
        child = subprocess.Popen([program("leafctl"), "mode", live.file("big.img"), "writeback"],
                                 stderr=subprocess.PIPE, text=True)
        wait_until(lambda: "leafdisk-cmd" in thread_names(live.pid), "the command to be under way")
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
        os.kill(pid, signal.SIGCONT)
        assert f"no answer yet; its mode stays {mode}" in said, said
        reader.join(PATIENCE)
    live.stop()


@pytest.mark.parametrize("how", ["interrupted", "ended"])
def test_a_mode_that_waits_for_a_request(held, mount, hanging, rng, how):
    """Of a store that does not answer: given up with the client or the mount, and the disk goes on as it was."""
    conf, pid = hanging
    expected = bytearray(rng.randbytes(8 * MIB))
    with mount(conf) as live, opened(live.file("big.img")) as fd:
        write_all(fd, expected, 0)
    live = held(conf)
    with left_open(live.file("big.img")) as fd:
        before = stats(live)["read_requests"]
        halt(pid)
        reader = threading.Thread(target=os.pread, args=(fd, BLOCK, 7 * MIB), daemon=True)
        reader.start()
        wait_until(lambda: stats(live)["read_requests"] > before, "the read to be in work")
        child = subprocess.Popen([program("leafctl"), "mode", live.file("big.img"), "direct"], stderr=subprocess.PIPE,
                                 text=True)
        wait_until(lambda: "leafdisk-cmd" in thread_names(live.pid), "the command to be under way")
        if how == "ended":
            os.kill(live.pid, signal.SIGTERM)
        else:
            child.send_signal(signal.SIGINT)
        wait_until(lambda: "leafdisk-cmd" not in thread_names(live.pid), "the command to be given up", timeout=60)
        if how == "interrupted":
            _, said = child.communicate(timeout=60)
            assert "no answer yet; its mode stays writeback" in said, said
            write_all(fd, b"n" * BLOCK, 0)
            os.fsync(fd)
            expected[:BLOCK] = b"n" * BLOCK
        assert reader.is_alive()
        os.kill(pid, signal.SIGCONT)
        child.communicate(timeout=PATIENCE)
        assert child.returncode == 1
        reader.join(PATIENCE)
        assert (end(live) if how == "interrupted" else live.wait()) == 0
    with held(conf) as live:
        assert_same(read_file(live.file("big.img"), len(expected)), expected, "afterwards")


# ---- Modes -----------------------------------------------------------------------------


@pytest.mark.parametrize("begin", ["direct", "persistent", "writeback"])
def test_modes_change_under_load(mount, web1, work, cache, rng, begin):
    """Every mode after every other, twice."""
    order = ["direct", "persistent", "direct", "writeback", "persistent", "writeback", "direct"]
    with mount(f"cache={cache}", f"mode={begin}", "cache_size=16M") as live:
        disk = live.file("web1.img")
        with opened(disk) as fd, under_load(live, rng) as ledger:
            for mode in 2 * order:
                version = ledger.version
                wait_until(lambda: ledger.version > version + 10, "the load to go on")
                leafctl("mode", disk, mode)
                assert leafctl("mode", disk).stdout == f"{mode}\n"
                assert mode == "writeback" or dirty_of(live) == 0
                assert state_of(live)["state"] == "active"
                assert record_of(os.path.dirname(web1))["mode"] == mode
            os.fsync(fd)
        found = read_disk(disk, BLOCKS)
    check_clean(web1)
    leafctl("cache", "check", cache)
    assert_same(converted(web1, work), bytes(found), "the image alone")


def test_mode_does_not_change_without_the_store(held, web1, work, gate, rng):
    expected = bytearray(BLOCKS * BLOCK)
    with held(env=failing(web1, gate)) as live, opened(live.file("web1.img")) as fd:
        write_random(fd, expected, rng, 4)
        gate.open()
        refused = leafctl("mode", live.file("web1.img"), "direct", check=False)
        assert refused.returncode == 1 and "stay in the cache" in refused.stderr, refused.stderr
        assert leafctl("mode", live.file("web1.img")).stdout == "writeback\n"
        write_random(fd, expected, rng, 4)
        gate.close()
        leafctl("mode", live.file("web1.img"), "direct")
        write_random(fd, expected, rng, 4)
        assert dirty_of(live) == 0
    assert_same(converted(web1, work), expected, "the image alone")


@pytest.mark.parametrize("mode", ["direct", "persistent", "writeback"])
def test_ephemeral_and_others(mount, web1, work, cache, mode):
    """Entered and left before the first use, and at no other time."""
    before = file_bytes(web1)
    with mount(f"cache={cache}", f"mode={mode}", "cache_size=16M") as live:
        disk = live.file("web1.img")
        leafctl("mode", disk, "ephemeral")
        leafctl("mode", disk, mode)
        leafctl("mode", disk, "ephemeral")
        with opened(disk) as fd:
            write_all(fd, b"e" * BLOCK, 0)
            assert leafctl("mode", disk, mode, check=False).returncode == 1
        refused = leafctl("mode", disk, mode, check=False)
        assert refused.returncode == 1 and "before its first use" in refused.stderr
    assert file_bytes(web1) == before
    with mount(f"cache={cache}", f"mode={mode}", "cache_size=16M") as live:
        with opened(live.file("web1.img")) as fd:
            write_all(fd, b"w" * BLOCK, 0)
            refused = leafctl("mode", live.file("web1.img"), "ephemeral", check=False)
            assert refused.returncode == 1 and "before its first use" in refused.stderr
    assert converted(web1, work)[:BLOCK] == b"w" * BLOCK


def test_a_mode_is_changed_while_its_image_fails(writeback, web1, gate, rng):
    """It waits for all to be written, with the disk closed to others: an image that fails then is
    opened anew all the same."""
    live = writeback(env=faults("aio.datasync/web1.leaf:EIO%3", gate=gate.path))
    changed = 0

    def write(stop):
        while not stop.is_set():
            with contextlib.suppress(OSError), left_open(live.file("web1.img")) as fd:
                write_all(fd, rng.randbytes(64 * KIB), rng.randrange(BLOCKS - 16) * BLOCK)

    gate.open()
    with in_background(write):
        for _ in range(scaled(12, 60)):
            for mode in ("persistent", "writeback"):
                done = leafctl("mode", live.file("web1.img"), mode, check=False, timeout=120)
                changed += done.returncode == 0
    gate.close()
    assert changed > 2
    leafctl("mode", live.file("web1.img"), "writeback")
    leafctl("drain", live.path)
    assert dirty_of(live) == 0
    live.stop()
    check_clean(web1)


# ---- Ownership -------------------------------------------------------------------------


def test_taken_over(held, writeback, mount, pool, web1, work, cache, gate, rng):
    """The first host's changes never reach the image, it says so, and they can
    be dumped; the second host has the image as the pool had it."""
    make_image(os.path.join(pool, "web2.leaf"), MIB)
    other = [f"cache={os.path.join(work, 'other.cache')}", "mode=writeback", "cache_size=16M"]
    expected, lost = bytearray(BLOCKS * BLOCK), rng.randbytes(MIB)
    first, second = held(), mount(*other)
    with left_open(first.file("web1.img")) as fd:
        write_random(fd, expected, rng, 8)
        leafctl("drain", first.path)
        write_all(fd, lost, 0)
        os.fsync(fd)
        said = refusal(second)
        assert f"pid {first.pid}" in said, said
        with opened(second.file("web2.img")) as two:
            write_all(two, b"2" * BLOCK, 0)
            os.fsync(two)
        said = leafctl("unlock", pool, "web1.leaf", check=False)
        assert said.returncode == 1 and f"pid {first.pid}" in said.stderr
        said = leafctl("unlock", "--force", pool, "web1.leaf").stdout
        assert cache in said and "are given up" in said, said
        refused = leafctl("drain", first.path, check=False)
        assert refused.returncode == 1 and "taken" in refused.stderr, refused.stderr
        state = state_of(first)
        assert state["state"] == "failed" and "leafctl cache dump" in state["reason"] and state["since"], state
        assert len(lines_with(first, "another has taken its image over")) >= 1
        expect_errno(errno.EIO, os.fsync, fd)
        with opened(first.file("web1.img"), os.O_RDONLY | os.O_DIRECT) as direct:
            expect_errno(errno.EIO, Aligned(BLOCK).read, direct, BLOCK, 0)
        assert end(first) == 1
    with opened(second.file("web1.img")) as fd:
        assert_same(read_all(fd, len(expected), 0), expected, "at the second host")
        write_random(fd, expected, rng, 8)
    second.stop()
    with writeback() as again:
        assert lines_with(again, "another has claimed its image"), again.messages()
        assert_same(read_file(again.file("web1.img"), len(expected)), expected, "at the first host again")
        with opened(again.file("web1.img")) as fd:
            write_random(fd, expected, rng, 4)
        wait_clean(again)
    assert_same(converted(web1, work), expected, "the image alone")
    target = os.path.join(work, "saved")
    os.mkdir(target)
    leafctl("cache", "dump", "-d", target, cache)
    assert any(file_bytes(os.path.join(target, name))[:MIB] == lost for name in os.listdir(target))


def test_a_record_that_cannot_be_read_for_a_moment(held, web1, work, gate, rng):
    """Nobody can tell whose the image is: its changes wait, and the disk goes on."""
    expected, live = bytearray(BLOCKS * BLOCK), held(env=faults("place.open/owners:EIO", gate=gate.path))
    with left_open(live.file("web1.img")) as fd:
        write_random(fd, expected, rng, 8)
        gate.open()
        refused = leafctl("drain", live.path, check=False)
        assert refused.returncode == 1 and "Input/output error" in refused.stderr, refused.stderr
        state = state_of(live)
        assert state["state"] != "failed" and "owners/web1.leaf: cannot be read" in state["reason"], state
        said, = lines_with(live, "cannot be read")
        assert os.path.basename(web1) in said and os.strerror(errno.EIO) in said, said
        write_random(fd, expected, rng, 8)
        assert_same(read_file(live.file("web1.img"), len(expected)), expected, "meanwhile")
        gate.close()
        leafctl("drain", live.path)
        assert dirty_of(live) == 0 and not lines_with(live, "another")
    live.stop()
    assert_same(converted(web1, work), expected, "the image alone")


@pytest.mark.usefixtures("web1")
def test_taken_over_while_its_store_hangs(held, mount, hanging, pool, rng):
    """A request without an answer holds up what the disk lets go of, and neither the disk's other
    requests nor the other disks."""
    conf, pid = hanging
    content, answered = rng.randbytes(8 * MIB), []
    with mount(conf) as live, opened(live.file("big.img")) as fd:
        write_all(fd, content, 0)
    live = held(conf)
    with left_open(live.file("web1.img")) as other, left_open(live.file("big.img")) as fd:
        for each in (fd, other):
            write_all(each, b"n" * BLOCK, 0)
            os.fsync(each)
        before = stats(live)["read_requests"]
        halt(pid)
        reader = threading.Thread(target=lambda: answered.append(os.pread(fd, BLOCK, 7 * MIB)), daemon=True)
        reader.start()
        wait_until(lambda: stats(live)["read_requests"] > before, "the read to be in work")
        write_record(pool, "big.img@device")
        refused = leafctl("drain", live.file("big.img"), check=False, timeout=60)
        assert refused.returncode == 1 and "another has taken its image over" in refused.stderr, refused.stderr
        assert state_of(live, "big.img")["state"] == "failed"
        expect_errno(errno.EIO, os.fsync, fd)
        leafctl("drain", live.file("web1.img"), timeout=60)
        assert dirty_of(live) == 0 and reader.is_alive()
        os.kill(pid, signal.SIGCONT)
        reader.join(PATIENCE)
        assert_same(b"".join(answered), content[7 * MIB:7 * MIB + BLOCK], "what was in work")
        assert end(live) == 1
    with mount(conf) as live:
        assert_same(read_file(live.file("web1.img"), BLOCK), b"n" * BLOCK, "the other disk")


def test_taken_over_while_writers_wait(writeback, pool, web1, gate, rng):
    """They wait for room that nobody will make: EIO."""
    live = writeback("max_dirty=1M", env=failing(web1, gate, ["aio.write"]))
    errors = []

    def write(_stop):
        memory = Aligned(64 * KIB)
        try:
            with left_open(live.file("web1.img")) as fd:
                gate.open()
                for offset in range(0, 4 * MIB, 64 * KIB):
                    memory.write(fd, rng.randbytes(64 * KIB), offset)
        except OSError as error:
            errors.append(error.errno)

    with left_open(live.file("web1.img")), in_background(write) as thread:
        wait_until(lambda: dirty_of(live) > 400 * KIB and stats(live)["cache_waits"], "the writer to wait")
        leafctl("unlock", "--force", pool, "web1.leaf")
        gate.close()
        wait_state(live, "failed")
        thread.join(PATIENCE)
    assert errors == [errno.EIO]
    assert end(live) == 1


# ---- Tunables --------------------------------------------------------------------------


def test_migrate_idle_ms(held, web1, rng):
    with held() as live, opened(live.file("web1.img")) as fd:
        write_random(fd, bytearray(BLOCKS * BLOCK), rng, 4)
        assert dirty_of(live) > 0
        tune(live, migrate_idle_ms=1)
        wait_clean(live)


def test_max_dirty_age(held, web1, rng):
    """Also what no barrier has ended."""
    with held() as live, opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        Aligned(MIB).write(fd, rng.randbytes(MIB), 0)
        tune(live, migrate_idle_ms=1)
        assert dirty_of(live) == MIB
        tune(live, max_dirty_age=1)
        wait_clean(live)


def test_migrate_threshold(held, web1, rng):
    """Past it everything that is complete goes, as a new share of max_dirty too."""
    with held("max_dirty=4M") as live, opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        memory = Aligned(MIB)
        memory.write(fd, rng.randbytes(MIB), 0)
        os.fsync(fd)
        assert dirty_of(live) == MIB and stats(live)["migrate_batches"] == 0
        tune(live, migrate_threshold=50)
        assert dirty_of(live) == MIB
        memory.write(fd, rng.randbytes(MIB), MIB)
        os.fsync(fd)
        wait_until(lambda: dirty_of(live) < 2 * MIB, "the threshold to be noticed")
        tune(live, migrate_threshold=1)
        wait_clean(live)


def test_max_dirty(held, web1, rng):
    """A larger one lets a waiting writer go on."""
    with held("max_dirty=1M", "migrate_threshold=100") as live:
        with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
            Aligned(MIB).write(fd, rng.randbytes(MIB // 2), 0)
            tune(live, max_dirty="8M")
            batches = stats(live)["migrate_batches"]
            Aligned(4 * MIB).write(fd, rng.randbytes(4 * MIB), 2 * MIB)
            assert dirty_of(live) >= 4 * MIB and stats(live)["migrate_batches"] == batches


@pytest.mark.parametrize("batch", [64, 16384])
def test_migrate_batch(held, web1, rng, batch):
    with held(f"migrate_batch={batch}") as live, opened(live.file("web1.img")) as fd:
        for number in range(16):
            write_all(fd, rng.randbytes(256 * KIB), number * 256 * KIB)
            os.fsync(fd)
        leafctl("drain", live.path)
        found = stats(live)
        assert found["migrate_blocks"] == 1024
        assert found["migrate_batches"] == 16 if batch == 64 else found["migrate_batches"] <= 2


def test_barrier_deadline_ms(held, web1):
    """Flushes of several users share one of the cache's: of forty at least two come
    within the tenth of a second that the first of them waits."""
    rounds = 10
    counted = {}
    with held() as live:
        for deadline in (0, 100):
            tune(live, barrier_deadline_ms=deadline)
            before, begun = stats(live)["cache_syncs"], time.monotonic()

            def work(number):
                with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
                    for _ in range(rounds):
                        Aligned(BLOCK).write(fd, bytes([number + 1]) * BLOCK, number * BLOCK)
                        os.fsync(fd)

            in_threads(4, work)
            counted[deadline] = stats(live)["cache_syncs"] - before, time.monotonic() - begun
    assert counted[100][0] < 4 * rounds, counted
    assert counted[100][1] >= rounds * 0.075, counted


# ---- Discards --------------------------------------------------------------------------


def test_discard_of_a_large_disk(held, pool, work):
    """1 TiB at once: it completes, is written back, and reads zeros."""
    size = 1024 * GIB
    path = make_image(os.path.join(pool, "web1.leaf"), size)
    places = [0, 17 * MIB, size // 2, size - MIB]
    with held() as live:
        with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
            memory = Aligned(MIB)
            for place in places:
                memory.write(fd, b"d" * MIB, place)
            leafctl("drain", live.path)
            memory.write(fd, b"e" * MIB, places[1])
            discard(fd, 0, size)
            assert all(memory.read(fd, MIB, place) == bytes(MIB) for place in places)
            os.fsync(fd)
            leafctl("drain", live.path)
            assert all(memory.read(fd, MIB, place) == bytes(MIB) for place in places)
            memory.write(fd, b"f" * MIB, places[2])
        with Loop(live.file("web1.img")) as loop:
            run("blkdiscard", loop.device)
            with opened(loop.device) as fd:
                assert read_all(fd, MIB, places[2]) == bytes(MIB)
    check_clean(path)
    said = run(program("leafctl"), "map", path).stdout
    assert " data " not in said, said[:1000]


def test_many_zero_ranges(writeback, web1, pool):
    """More than are kept: writers wait, none gets an error."""
    count = 33000
    path = make_image(os.path.join(pool, "web2.leaf"), 2 * count * BLOCK)
    with writeback(*HELD) as live, opened(live.file("web2.img")) as fd:
        for block in range(0, 2 * count, 2):
            zero_range(fd, block * BLOCK, BLOCK)
        os.fsync(fd)
        assert stats(live)["errors"] == 0
    check_clean(path)


# ---- Close, remove, resize ---------------------------------------------------------------


def test_last_close_writes_back(writeback, pool, web1, work, rng):
    expected = bytearray(BLOCKS * BLOCK)
    with writeback("migrate_idle_ms=1000") as live:
        with opened(live.file("web1.img")) as fd:
            write_random(fd, expected, rng, 8)
            assert dirty_of(live) > 0 and record_of(pool)["clean"] == "false"
        wait_released(pool)
        assert dirty_of(live) == 0
        assert_same(converted(web1, work), expected, "the image, which nobody has open")


def test_remove_and_rename_wait_for_what_is_dirty(writeback, pool, web1, work, gate, rng):
    expected = bytearray(BLOCKS * BLOCK)
    with writeback("manage", env=failing(web1, gate)) as live:
        with opened(live.file("web1.img")) as fd:
            gate.open()
            write_random(fd, expected, rng, 4)
        wait_state(live, "degraded")
        for operation in (lambda: os.unlink(live.file("web1.img")),
                          lambda: os.rename(live.file("web1.img"), live.file("web2.img"))):
            expect_errno(errno.EBUSY, operation)
            assert lines_with(live, "has changes in the cache that are being written back")
        gate.close()
        wait_released(pool)
        os.rename(live.file("web1.img"), live.file("web2.img"))
        assert_same(read_file(live.file("web2.img"), len(expected)), expected, "under its new name")
        os.unlink(live.file("web2.img"))
    assert not [name for name in os.listdir(pool) if name.endswith(".leaf")]


@pytest.mark.parametrize("size", [6 * MIB + 512, 10 * MIB + 512])
def test_resize_with_dirty_blocks(held, web1, work, rng, size):
    content = rng.randbytes(BLOCKS * BLOCK)
    with held("cache_size=64M") as live:
        with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
            Aligned(len(content)).write(fd, content, 0)
            assert dirty_of(live) == len(content)
            if size > len(content):
                os.ftruncate(fd, size)
        if size < len(content):
            tune(live, migrate_idle_ms=1)
            wait_released(os.path.dirname(web1))
            shrink(live, "web1.img", size)
            os.truncate(live.file("web1.img"), 10 * MIB + 512)
        expected = content[:size] + bytes(10 * MIB + 512 - min(size, len(content)))
        assert_same(read_file(live.file("web1.img"), 11 * MIB), expected, "in the mount")
    assert_same(converted(web1, work), expected, "the image alone")


def test_mounts_that_end_before_anything_goes(mount, pool, cache, gate):
    """What a mount says of the disks that it finds dirty does not use up a full log, however often it is killed."""
    names = [f"d{i}" for i in range(250)]
    for name in names:
        make_raw(os.path.join(pool, f"{name}.raw"), bytes(BLOCK))
    options = [f"cache={cache}", "mode=writeback", "cache_size=8M"]
    broken = faults(*(f"{point}/.raw:EIO" for point in ("aio.write", "aio.datasync")), gate=gate.path)
    live = mount(*options, *HELD, env=broken)
    gate.open()
    for i, name in enumerate(names):
        with opened(live.file(f"{name}.img")) as fd:
            write_all(fd, bytes([1 + i % 255]) * BLOCK, 0)
            os.fsync(fd)
    live.kill9()
    for _ in range(5):
        live = mount(*options, *HELD, env=broken)
        assert not lines_with(live, "stay there")
        live.kill9()
    gate.close()
    live = mount(*options, "migrate_idle_ms=1")
    leafctl("drain", live.path)
    live.kill9()
    for i, name in enumerate(names):
        assert_same(file_bytes(os.path.join(pool, f"{name}.raw")), bytes([1 + i % 255]) * BLOCK, name)
