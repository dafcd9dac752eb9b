"""Writeback mode: what the cache has is not lost, and the shared leaf alone is
at every moment what the disk was at some barrier."""
import contextlib
import functools
import os
import shutil
import signal
import threading

import pytest

import cache_format

from harness import (BLOCK, CRASH_STATUS, MIB, PATIENCE, SANITIZED, Aligned, MountError, assert_same, check_clean,
                     converted, copy_file, faults, file_bytes, halt, leafctl, make_image, make_of_pieces, make_raw,
                     numbers, opened, pieces_of, process_ended, run, scaled, size_of, stats, wait_until)
from model import Disk, build_chain, patchwork
from rounds import Guest, difference, rounds_of
from stamps import Ledger, await_random_moment, load, read_disk, stamp

RECORD_MAGIC = cache_format.RECORD_MAGIC[2]
NEVER = ["migrate_idle_ms=60000", "max_dirty_age=86400", "migrate_threshold=100"]


@pytest.fixture
def writeback(mount, cache):
    """A mount in mode writeback; cache_size and what else is given come last."""
    return functools.partial(mount, f"cache={cache}", "mode=writeback", "read_run_bypass=1G")


def drain(live):
    with open(live.control("drain"), "w", encoding="ascii") as file:
        file.write("1\n")


def dirty_bytes(live):
    with open(live.control("drain"), encoding="ascii") as file:
        return int(file.read())


def close_lost(fd):
    """Whether or not there is a daemon behind it."""
    with contextlib.suppress(OSError):
        os.close(fd)


def make_disk(pool, leaf, blocks, parent=False, chunk="64K"):
    """An image of zeros; LEAF's suffix says which kind."""
    image = os.path.join(pool, leaf)
    if leaf.endswith(".raw"):
        return make_raw(image, bytes(blocks * BLOCK))
    base = make_raw(os.path.join(pool, "base.raw"), bytes(blocks * BLOCK)) if parent else None
    return make_image(image, blocks * BLOCK, parent=base, chunk=chunk)


# ---- The model, a cache far smaller than the working set ----------------------

OPERATIONS = 3000
MODELS = [
    (1, "64K", 20 * MIB + 1, ["cache_size=8M", "migrate_batch=1"]),
    (2, "1M", 24 * MIB + 512, ["cache_size=8M", "migrate_batch=64", "migrate_idle_ms=1"]),
    (8, "64K", 12 * MIB + 513, ["cache_size=9M", "migrate_batch=16384", "max_dirty=2M", "threads=2"]),
    (0, "", 16 * MIB + 4097, ["cache_size=8M", "migrate_batch=16384"]),
]


class WritebackDisk(Disk):
    """The shared leaf alone is the model after each unmount, and after a drain
    with nothing but a kill behind it."""

    def compare_alone(self, what):
        check_clean(self.image)
        assert_same(converted(self.image, os.path.dirname(self.mount.path)), self.model.content, what)

    def remount(self):
        if self.rng.random() < 0.5:
            self.close()
            self.compare_alone("the shared leaf after an unmount")
        else:
            leafctl("drain", self.mount.path)
            assert dirty_bytes(self.mount) == 0
            self.close_files()
            self.mount.kill9()
            self.compare_alone("the shared leaf after a drain")
        self.open()
        self.compare_all()


def build_disk(mount, pool, layers, chunk, size, rng):
    """A chain; no layers: a raw image."""
    if layers:
        return os.path.join(pool, "leaf.leaf"), build_chain(mount, pool, layers, chunk, size, rng)
    content = bytearray(size)
    for _ in patchwork(content, rng):
        pass
    return make_raw(os.path.join(pool, "leaf.raw"), content), content


@pytest.mark.slow
@pytest.mark.parametrize("layers,chunk,size,options", MODELS)
def test_model(mount, writeback, pool, rng, layers, chunk, size, options):
    image, content = build_disk(mount, pool, layers, chunk, size, rng)
    disk = WritebackDisk(functools.partial(writeback, *options), pool, "leaf", content, rng)
    disk.image = image
    disk.compare_all()
    for _ in range(scaled(OPERATIONS, 20 * OPERATIONS) // len(MODELS)):
        disk.step()
    disk.remount()
    disk.close()
    disk.compare_alone("the shared leaf alone")


# ---- Killed, with the cache intact ----------------------------------------------

KILL_BLOCKS = 16 * MIB // BLOCK
KILLS = scaled(20 if SANITIZED else 50, 500)


# Four times KILLS kills.
@pytest.mark.slow
@pytest.mark.parametrize("leaf,parent,options", [
    ("web1.leaf", False, ["cache_size=8M", "migrate_idle_ms=1"]),
    ("web1.leaf", True, ["cache_size=8M", "migrate_batch=64", "threads=2"]),
    ("web1.leaf", True, ["cache_size=24M", "migrate_idle_ms=5", "max_dirty=4M"]),
    ("web1.raw", False, ["cache_size=8M", "migrate_batch=1", "migrate_idle_ms=1"]),
])
def test_killed_at_random_moments(writeback, pool, cache, rng, leaf, parent, options):
    """Nothing that was flushed is missing."""
    image = make_disk(pool, leaf, KILL_BLOCKS, parent, "256K")
    ledger = Ledger(KILL_BLOCKS)
    for kill in range(KILLS):
        live = writeback(*options)
        ledger.settle_all(read_disk(live.file("web1.img"), KILL_BLOCKS), f"after kill {kill}")
        finish = load(live.file("web1.img"), ledger, rng)
        # The moment is what is random here.
        await_random_moment(live, ledger, rng, 0.15, 10 * (kill + 1))
        live.kill9()
        finish()
        check_clean(image)
        leafctl("cache", "check", cache)
    assert ledger.version > 10 * KILLS, "the writers hardly wrote"
    with writeback(*options) as live:
        ledger.settle_all(read_disk(live.file("web1.img"), KILL_BLOCKS), "after the last kill")
    ledger.settle_all(converted(image, os.path.dirname(cache)), "the shared leaf alone")


# ---- The shared leaf alone ------------------------------------------------------

ROUND_BLOCKS = 257
# Times as many looks at the shared leaf as LOOKS says, the last one of each after a kill.
CYCLES = scaled(5 if SANITIZED else 10, 60)
LOOKS = 8


class Alone:
    """The shared leaf as it would be if cache and host were gone: a copy."""

    def __init__(self, image, work):
        self.image = image
        self.work = work
        self.directory = os.path.join(work, "alone")
        os.makedirs(self.directory, exist_ok=True)
        self.copy = os.path.join(self.directory, os.path.basename(image))
        base = os.path.join(os.path.dirname(image), "base.raw")
        if os.path.exists(base):
            # With its times, which tell that nobody has written it.
            shutil.copy2(base, os.path.join(self.directory, "base.raw"))

    def take(self):
        copy_file(self.image, self.copy)

    def content(self):
        check_clean(self.copy)
        return converted(self.copy, self.work)


def look(live, guest, alone, what):
    """The daemon stands still: what its storage has now is what a kill at this
    moment would leave. What is under way there may still arrive, or not."""
    floor, _ = guest.moment()
    try:
        halt(live.pid)
        moment = (floor, guest.moment()[1])
        alone.take()
    finally:
        os.kill(live.pid, signal.SIGCONT)
    with guest.round:
        content = alone.content()
    return guest.check_leaf(content, moment, what)


def drain_sometimes(live, guest, rng):
    """After a round: what was told of the way back to the pool holds."""
    if rng.random() < 0.03:
        drain(live)
        guest.written_back()
    elif rng.random() < 0.1 and dirty_bytes(live) == 0:
        guest.written_back()


def work_and_look(live, guest, alone, rng, met, least, what):
    """Rounds with looks between them, and a kill when LEAST batches have been migrated
    or later. How many were."""
    stop = threading.Event()
    after = functools.partial(drain_sometimes, live, guest, rng)
    thread = threading.Thread(target=guest.run, args=(live.file("web1.img"), stop), kwargs={"after": after})
    thread.start()
    try:
        for number in range(LOOKS - 1):
            # The moment is what is random here: a wait for nothing but time.
            process_ended(live.pid, rng.uniform(0.002, 0.03))
            met.add(look(live, guest, alone, f"{what}, look {number}"))
        process_ended(live.pid, rng.uniform(0.002, 0.05))
        wait_until(lambda: live.has_ended() or stats(live)["migrate_batches"] >= least, "a batch to be migrated")
        assert not live.has_ended(), f"the daemon ended by itself\n{live.messages()}"
        return stats(live)["migrate_batches"]
    finally:
        live.kill9()
        stop.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("parent,chunk,exact,options", [
    (False, "64K", True, ["cache_size=32M", "max_dirty=2M", "migrate_idle_ms=1", "migrate_batch=1"]),
    (True, "64K", True, ["cache_size=32M", "max_dirty=2M", "migrate_threshold=40", "migrate_batch=64"]),
    (True, "1M", True, ["cache_size=32M", "max_dirty=2M", "migrate_idle_ms=2", "migrate_batch=16384", "threads=2"]),
    (False, "64K", False, ["cache_size=8M", "max_dirty_age=1", "migrate_idle_ms=1", "migrate_batch=128"]),
])
def test_shared_leaf_is_at_a_barrier(writeback, pool, work, cache, rng, parent, chunk, exact, options):
    image = make_disk(pool, "web1.leaf", ROUND_BLOCKS, parent, chunk)
    alone, guest = Alone(image, work), Guest(ROUND_BLOCKS, rng, exact)
    met, batches = set(), 0
    if exact:
        options = [*options, "max_dirty_age=86400"]
    for cycle in range(CYCLES):
        live = writeback(*options)
        # Of a disk that nobody has open an epoch may be ended anywhere.
        held = os.open(live.file("web1.img"), os.O_RDWR)
        try:
            guest.settle(read_disk(live.file("web1.img"), ROUND_BLOCKS), f"after kill {cycle}")
            batches += work_and_look(live, guest, alone, rng, met, cycle + 2 - batches, f"cycle {cycle}")
        finally:
            close_lost(held)
        alone.take()
        met.add(guest.check_leaf(alone.content(), guest.moment(), f"kill {cycle}"))
        leafctl("cache", "check", cache)
    assert len(met) > CYCLES and batches > CYCLES, f"{len(met)} states met after {batches} batches: hardly a migration"
    with writeback(*options) as live:
        guest.settle(read_disk(live.file("web1.img"), ROUND_BLOCKS), "after the last kill")
    guest.written_back()
    guest.check_leaf(converted(image, work), guest.moment(), "after the last unmount")


# ---- Death at every operation of a drain -----------------------------------------

DRAIN_BLOCKS = 401
DIRTY_LEAST = 300  # blocks: epochs that follow each other closely are written back as one
CRASH_POINTS = ["aio.write", "aio.datasync", "image.write", "image.sync", "image.extend", "image.punch", "cache.super",
                "owner.write", "owner.rename"]
FINAL_ROUNDS = 14


class Left:
    """A pool and a cache as a kill has left them, again and again. They keep
    their inodes: those are how the cache knows a raw image."""

    def __init__(self, *files):
        self.files = {path: (size_of(path), list(pieces_of(path))) for path in files}

    def restore(self):
        for path, (size, pieces) in self.files.items():
            make_of_pieces(path, size, pieces)


def leave_dirty(writeback, pool, cache, image, guest):
    """An image with something in it, a cache with epochs that follow, and a kill."""
    live = writeback("cache_size=16M", *NEVER)
    guest.run(live.file("web1.img"), threading.Event(), FINAL_ROUNDS)
    drain(live)
    guest.written_back()
    before = stats(live)["cache_put_blocks"]
    while guest.errors == [] and stats(live)["cache_put_blocks"] - before < DIRTY_LEAST:
        guest.run(live.file("web1.img"), threading.Event(), FINAL_ROUNDS)
    assert guest.errors == [] and dirty_bytes(live) > 0
    live.kill9()
    return Left(image, cache, os.path.join(pool, ".leafdisk", "owners", os.path.basename(image)))


def drain_with_faults(writeback, options, env):
    """A mount that has nothing to do but to write back what it finds. Its status."""
    try:
        live = writeback(*options, env=env)
    except MountError as refusal:
        return refusal.status
    wait_until(lambda: live.has_ended() or dirty_is_gone(live), "the drain to end or to die")
    if live.has_ended():
        live.finalise()
        return live.status
    run("fusermount3", "-u", live.path, check=False)
    status = live.wait()
    live.finalise()
    return status


def dirty_is_gone(live):
    try:
        return dirty_bytes(live) == 0
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("leaf,batch,points", [
    ("web1.leaf", 1, CRASH_POINTS), ("web1.leaf", 16384, CRASH_POINTS[:4]), ("web1.raw", 1, CRASH_POINTS),
], ids=["one epoch", "all epochs", "raw"])
def test_crash_at_every_operation_of_a_drain(writeback, pool, work, cache, rng, leaf, batch, points):
    """A leaf alone is as at a barrier; a raw image may be torn. With the cache
    nothing is missing, whichever it is."""
    image = make_disk(pool, leaf, DRAIN_BLOCKS)
    alone, guest = Alone(image, work), Guest(DRAIN_BLOCKS, rng)
    left = leave_dirty(writeback, pool, cache, image, guest)
    options = ["cache_size=16M", f"migrate_batch={batch}"]
    crashes = dict.fromkeys(points, 0)
    met = set()
    for point in points:
        for number in numbers(3):
            left.restore()
            status = drain_with_faults(writeback, options, faults(f"{point}:crash@{number}"))
            what = f"{point} {number}"
            assert status in (0, CRASH_STATUS), f"{what}: the daemon ended with {status}"
            if leaf.endswith(".leaf"):
                alone.take()
                met.add(guest.check_leaf(alone.content(), guest.moment(), what))
            leafctl("cache", "check", cache)
            with writeback(*options) as live:
                assert_rounds(live, guest, what)
            assert rounds_of(converted(image, work), what) == guest.durable, f"{what}: the drain left something"
            if status == 0:
                break
            crashes[point] += 1
    assert crashes["aio.write"] > 3 and crashes["aio.datasync"] > 2, crashes
    assert len(met) > 1 or leaf.endswith(".raw"), "the drain was one batch"


def assert_rounds(live, guest, what):
    found = rounds_of(read_disk(live.file("web1.img"), len(guest.now)), what)
    assert found == guest.durable, f"{what}: {difference(found, guest.durable)}"


# ---- What the ancestor's log got wrong --------------------------------------------

def records_of(cache):
    """slot: (sequence, durable, data blocks) of what looks like a record."""
    found = {}
    content = file_bytes(cache)
    for offset in range(cache_format.SEGMENTS_OFFSET, len(content) - BLOCK + 1, BLOCK):
        fields = cache_format.RECORD.unpack_from(content, offset)
        if fields[0] == RECORD_MAGIC and fields[2] == offset:
            slot = (offset - cache_format.SEGMENTS_OFFSET) // BLOCK
            found[slot] = (fields[6], fields[8], fields[1])
    return found


def newest(cache):
    return max(records_of(cache).items(), key=lambda record: record[1][0])


def write_unflushed(fd, cache, blocks, version):
    """A record of its own in the file, which nobody flushes: its slot, sequence
    and the last sequence that it knows to be durable."""
    before = newest(cache)[1][0]
    memory = Aligned(len(blocks) * BLOCK)
    memory.write(fd, b"".join(stamp(block, version) for block in blocks), blocks[0] * BLOCK)
    wait_until(lambda: newest(cache)[1][0] > before, "the record to be written")
    slot, (sequence, durable, data_blocks) = newest(cache)
    assert data_blocks == len(blocks)
    return slot, sequence, durable


@pytest.mark.parametrize("torn_blocks", [12, 13, 16])
def test_torn_record_hides_the_intact_one_behind_it(writeback, pool, cache, torn_blocks):
    """Crashed twice: the new log ends just where the old record begins, which
    the first crash left whole behind a torn one. It must not come back."""
    options = ["cache_size=8M", *NEVER]
    make_disk(pool, "web1.leaf", DRAIN_BLOCKS)
    state = crash_twice(writeback, options, cache, torn_blocks)
    with writeback(*options) as live:
        assert rounds_of(read_disk(live.file("web1.img"), DRAIN_BLOCKS), "after the second crash") == state


def crash_twice(writeback, options, cache, torn_blocks):
    """What the disk is then."""
    live = writeback(*options)
    held = os.open(live.file("web1.img"), os.O_RDWR | os.O_DIRECT)
    Aligned(BLOCK).write(held, stamp(0, 1), 0)
    os.fsync(held)
    torn_slot, torn_sequence, _ = write_unflushed(held, cache, range(10, 10 + torn_blocks), 2)
    intact_slot, intact_sequence, durable = write_unflushed(held, cache, range(40, 41), 3)
    live.kill9()
    close_lost(held)
    assert intact_slot == torn_slot + 1 + torn_blocks
    assert durable < torn_sequence, "the record was flushed, no crash could tear it"
    with opened(cache) as fd:
        os.pwrite(fd, bytes(BLOCK // 2), cache_format.slot_offset(torn_slot + 1))
    state = crash_again(writeback, options, cache, torn_slot, intact_slot)
    assert records_of(cache)[intact_slot][0] == intact_sequence, "the old record is gone: this tests nothing"
    return state


def crash_again(writeback, options, cache, slot, end):
    """The log goes on from SLOT; the block of before is brought to the image. Then
    a record of blocks and one of their barrier, flushed, end at END, and the daemon
    is killed there. What the disk is then."""
    live = writeback(*options)
    wait_until(lambda: dirty_is_gone(live), "the first block to be in the image")
    held = os.open(live.file("web1.img"), os.O_RDWR | os.O_DIRECT)
    state = [1] + [0] * (DRAIN_BLOCKS - 1)
    Aligned(BLOCK).write(held, stamp(29, 4), 29 * BLOCK)
    os.fsync(held)
    slot = behind(cache, slot)
    room = end - slot - 2
    assert room > 0, "the log has passed the record"
    memory = Aligned(room * BLOCK)
    memory.write(held, b"".join(stamp(block, 4) for block in range(30, 30 + room)), 30 * BLOCK)
    wait_until(lambda: behind(cache, slot) == end - 1, "the record to be written")
    state[29:30 + room] = [4] * (room + 1)
    os.fsync(held)
    live.kill9()
    close_lost(held)
    return tuple(state)


def behind(cache, slot):
    """Where the records that begin at SLOT end."""
    records = records_of(cache)
    while slot in records:
        slot += 1 + records[slot][2]
    return slot


def test_successor_that_was_only_in_ram(writeback, pool, work, cache, rng):
    """A block was flushed, and overwritten since: the daemon dies when it writes
    that. The old one is there, for it was dirty until then."""
    image = make_disk(pool, "web1.leaf", DRAIN_BLOCKS)
    gate = os.path.join(work, "gate")
    options = ["cache_size=8M"]
    live = writeback(*options, *NEVER, env=faults("aio.write/leaf.cache:crash", gate=gate))
    memory = Aligned(64 * BLOCK)
    data = [b"".join(stamp(block, version) for block in range(64)) for version in (1, 2)]
    flushed = False
    with contextlib.suppress(OSError), opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        memory.write(fd, data[0], 0)
        os.fsync(fd)
        os.close(os.open(gate, os.O_CREAT | os.O_WRONLY))
        flushed = True
        memory.write(fd, data[1], 0)
        os.fsync(fd)
    assert flushed and process_ended(live.pid, PATIENCE), "the crash was not met"
    live.finalise()
    assert live.status == CRASH_STATUS
    with writeback(*options) as live:
        assert read_disk(live.file("web1.img"), 64) == data[0]
    assert converted(image, work)[:64 * BLOCK] == data[0]
