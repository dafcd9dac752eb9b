"""Persistent and ephemeral mode: the local leaf in front of the shared one."""
import contextlib
import errno
import functools
import os

import pytest

from harness import (BLOCK, KIB, MIB, NO_JOURNAL, SANITIZED, Aligned, Loop, MountError, assert_same, check_clean,
                     control_values, converted, discard, expect_errno, faults, file_bytes, file_system, leafctl,
                     make_image, make_raw, opened, read_all, read_file, run, scaled, state_of, stats, wait_until,
                     write_all)
from model import Disk, Model, build_chain, in_threads
from stamps import Ledger, await_random_moment, load, read_disk

CHAINS = [(1, "64K", 20 * MIB + 1), (2, "1M", 24 * MIB + 512), (8, "64K", 12 * MIB + 513)]
OPERATIONS = 4000
KILLS = scaled(20 if SANITIZED else 67, 500)
BLOCKS = 16 * MIB // BLOCK


@pytest.fixture
def persistent(mount, cache):
    return functools.partial(mount, f"cache={cache}", "mode=persistent", "cache_size=8M", "read_run_bypass=1G")


@pytest.fixture
def ephemeral(mount, cache):
    return functools.partial(mount, f"cache={cache}", "mode=ephemeral", "cache_size=8M", "read_run_bypass=1G")


def pool_images(pool):
    return {name: (file_bytes(os.path.join(pool, name)), os.stat(os.path.join(pool, name)).st_mtime_ns)
            for name in os.listdir(pool) if not name.startswith(".")}


# ---- The model, a cache far smaller than the working set ----------------------

@pytest.mark.parametrize("layers,chunk,size", CHAINS)
def test_model_persistent(mount, persistent, pool, work, rng, layers, chunk, size):
    content = build_chain(mount, pool, layers, chunk, size, rng)
    disk = Disk(persistent, pool, "leaf", content, rng)
    disk.compare_all()
    for _ in range(scaled(OPERATIONS, 20 * OPERATIONS) // len(CHAINS)):
        disk.step()
    disk.remount()
    disk.close()
    assert_same(converted(disk.image, work), disk.model.content, "the shared leaf alone")


class EphemeralDisk(Disk):
    """After a remount it is what it was at first."""

    def open(self):
        super().open()
        self.first = getattr(self, "first", None) or bytes(self.model.content)

    def remount(self):
        self.close()
        self.model = Model(self.first)
        self.open()
        self.compare_all()


@pytest.mark.parametrize("layers,chunk,size", CHAINS)
def test_model_ephemeral(mount, ephemeral, pool, rng, layers, chunk, size):
    content = build_chain(mount, pool, layers, chunk, size, rng)
    before, names = pool_images(pool), sorted(os.listdir(pool))
    disk = EphemeralDisk(ephemeral, pool, "leaf", content, rng)
    disk.compare_all()
    for _ in range(scaled(OPERATIONS, 20 * OPERATIONS) // len(CHAINS)):
        disk.step()
    disk.close()
    assert pool_images(pool) == before
    assert sorted(os.listdir(pool)) == names, "something was left in the pool"


@pytest.mark.parametrize("mode", ["persistent", "ephemeral", "writeback"])
@pytest.mark.parametrize("threads", [1, 2])
def test_clones_side_by_side(mount, pool, cache, rng, mode, threads):
    """Four clones of one base, each with a writer and a reader on the same
    blocks: a block is one of its writer's versions, whole."""
    blocks = 512
    base = make_raw(os.path.join(pool, "base.raw"), rng.randbytes(blocks * BLOCK))
    for number in range(4):
        make_image(os.path.join(pool, f"web{number}.leaf"), parent=base)
    original = file_bytes(base)
    rounds = scaled(300, 3000)
    with mount(f"cache={cache}", f"mode={mode}", "cache_size=8M", f"threads={threads}") as live:
        def work(number):
            own = type(rng)(number)
            path = live.file(f"web{number // 2}.img")
            memory = Aligned(4 * BLOCK)
            with opened(path, os.O_RDWR | os.O_DIRECT) as fd:
                for step in range(rounds):
                    block = own.randrange(blocks - 4)
                    count = own.randint(1, 4)
                    if number % 2 == 0:
                        memory.write(fd, bytes([step % 255 + 1]) * (count * BLOCK), block * BLOCK)
                        continue
                    data = memory.read(fd, count * BLOCK, block * BLOCK)
                    for index in range(count):
                        part = data[index * BLOCK:(index + 1) * BLOCK]
                        at = (block + index) * BLOCK
                        assert part == part[:1] * BLOCK or part == original[at:at + BLOCK], f"block {block + index}"

        in_threads(8, work)
    assert file_bytes(base) == original


# ---- Persistent ----------------------------------------------------------------

# Three times KILLS kills.
@pytest.mark.slow
@pytest.mark.parametrize("leaf,parent", [("web1.leaf", False), ("web1.leaf", True), ("web1.raw", False)])
def test_persistent_killed_at_random_moments(mount, persistent, pool, cache, rng, leaf, parent):
    """Every fsynced write is there, and in the shared leaf alone too."""
    image = os.path.join(pool, leaf)
    if leaf.endswith(".raw"):
        make_raw(image, bytes(BLOCKS * BLOCK))
    else:
        base = make_raw(os.path.join(pool, "base.raw"), bytes(BLOCKS * BLOCK)) if parent else None
        make_image(image, BLOCKS * BLOCK, parent=base, chunk="256K")
    ledger = Ledger(BLOCKS)
    for kill in range(KILLS):
        live = persistent()
        ledger.settle_all(read_disk(live.file("web1.img"), BLOCKS), f"after kill {kill}")
        finish = load(live.file("web1.img"), ledger, rng)
        # The moment is what is random here.
        await_random_moment(live, ledger, rng, 0.25, 10 * (kill + 1))
        live.kill9()
        finish()
        check_clean(image)
        leafctl("cache", "check", cache)
        if kill % 3 == 0:
            with mount() as alone:
                ledger.settle_all(read_disk(alone.file("web1.img"), BLOCKS), f"the shared leaf alone, kill {kill}")
    assert ledger.version > 10 * KILLS, "the writers hardly wrote"


def test_warm_cache_survives_a_restart(mount, pool, cache, rng):
    """After a remount the same reads do not touch the shared store at all."""
    persistent = functools.partial(mount, f"cache={cache}", "cache_size=32M")
    base = make_raw(os.path.join(pool, "base.raw"), rng.randbytes(3 * MIB))
    make_image(os.path.join(pool, "web1.leaf"), parent=base)
    expected = bytearray(file_bytes(base))
    with persistent() as live, opened(live.file("web1.img")) as fd:
        for offset in range(0, 3 * MIB, 192 * KIB):
            data = rng.randbytes(9 * KIB)
            write_all(fd, data, offset)
            expected[offset:offset + len(data)] = data
        os.fsync(fd)
        assert_same(read_all(fd, 3 * MIB, 0), expected, "the first read")
    with persistent(env=faults("aio.read/base.raw:EIO", "aio.read/web1.leaf:EIO")) as live:
        assert_same(read_file(live.file("web1.img"), 3 * MIB), expected, "the warm read")
        assert stats(live)["cache_fetched_blocks"] == 0


@pytest.mark.parametrize("change", ["write", "direct mount", "replace", "restore"])
def test_restart_serves_nothing_stale(mount, persistent, pool, rng, change):
    """The image was changed while the cache was not looking."""
    image = make_raw(os.path.join(pool, "web1.raw"), rng.randbytes(MIB))
    backup = file_bytes(image)
    with persistent() as live, opened(live.file("web1.img")) as fd:
        write_all(fd, rng.randbytes(64 * KIB), 0)
        read_all(fd, MIB, 0)
    expected = rng.randbytes(MIB)
    if change == "write":
        with opened(image) as fd:
            write_all(fd, expected, 0)
    elif change == "direct mount":
        with mount() as live, opened(live.file("web1.img")) as fd:
            write_all(fd, expected, 0)
    elif change == "replace":
        make_raw(image + ".new", expected)
        os.rename(image + ".new", image)
    else:
        times = os.stat(image)
        expected = backup
        with opened(image) as fd:
            write_all(fd, expected, 0)
        os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    with persistent() as live:
        assert_same(read_file(live.file("web1.img"), MIB), expected, f"after {change}")


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_failing_cache_degrades(persistent, pool, work, cache, rng, error):
    """The guest sees no error, the state says so, nothing stale comes back, and
    the cache returns when its file works again."""
    gate = os.path.join(work, "gate")
    image = make_image(os.path.join(pool, "web1.leaf"), 8 * MIB)
    expected = bytearray(8 * MIB)
    with persistent(env=faults(f"aio.write/leaf.cache:{error}", gate=gate)) as live:
        with opened(live.file("web1.img")) as fd:
            for number in range(64):
                if number == 16:
                    os.close(os.open(gate, os.O_CREAT | os.O_WRONLY))
                data = rng.randbytes(64 * KIB)
                offset = rng.randrange(8 * MIB - len(data))
                write_all(fd, data, offset)
                os.fsync(fd)
                expected[offset:offset + len(data)] = data
            wait_until(lambda: state_of(live)["state"] == "degraded", "the disk to be degraded")
            state = state_of(live)
            assert os.strerror(getattr(errno, error)) in state["reason"] and state["since"], state
            assert_same(read_all(fd, 8 * MIB, 0), expected, "while degraded")
            os.unlink(gate)
            wait_until(lambda: state_of(live)["state"] == "active", "the cache to come back")
            write_all(fd, b"back" * KIB, 0)
            expected[:4 * KIB] = b"back" * KIB
            os.fsync(fd)
            hits = stats(live)["cache_hits"]
            with opened(live.file("web1.img"), os.O_RDONLY | os.O_DIRECT) as direct:
                assert Aligned(4 * KIB).read(direct, 4 * KIB, 0) == b"back" * KIB
            assert stats(live)["cache_hits"] > hits
    with persistent() as live:
        assert_same(read_file(live.file("web1.img"), 8 * MIB), expected, "after a restart")
    assert_same(converted(image, work), expected, "the shared leaf alone")


def test_degraded_is_remembered(persistent, pool, work, rng):
    """Killed while degraded: the cache has older versions, and serves none."""
    gate = os.path.join(work, "gate")
    make_raw(os.path.join(pool, "web1.raw"), rng.randbytes(4 * MIB))
    with persistent() as live, opened(live.file("web1.img")) as fd:
        read_all(fd, 4 * MIB, 0)
    live = persistent(env=faults("aio.write/leaf.cache:EIO", gate=gate))
    os.close(os.open(gate, os.O_CREAT | os.O_WRONLY))
    expected = rng.randbytes(4 * MIB)
    with opened(live.file("web1.img")) as fd:
        write_all(fd, expected, 0)
        os.fsync(fd)
    live.kill9()
    with persistent() as live:
        assert_same(read_file(live.file("web1.img"), 4 * MIB), expected, "after the kill")


def test_cache_on_a_full_file_system(persistent, mount, pool, work, rng):
    make_image(os.path.join(pool, "web1.leaf"), 32 * MIB)
    expected = bytearray()
    with file_system(work, "small", "12M", *NO_JOURNAL) as where:
        options = [f"cache={where}/leaf.cache", "cache_size=64M"]
        with mount(*options) as live, opened(live.file("web1.img")) as fd:
            for number in range(32):
                data = rng.randbytes(MIB)
                write_all(fd, data, number * MIB)
                os.fsync(fd)
                expected += data
            wait_until(lambda: state_of(live)["state"] == "degraded", "the disk to be degraded")
            assert_same(read_all(fd, 32 * MIB, 0), expected, "while degraded")
        with mount(*options) as live:
            assert_same(read_file(live.file("web1.img"), 32 * MIB), expected, "after a restart")


@pytest.mark.parametrize("point", ["aio.write", "aio.read"])
def test_shared_failure_reaches_the_guest(mount, persistent, pool, work, rng, point):
    """The cache's success hides nothing, and what was acknowledged stays."""
    gate = os.path.join(work, "gate")
    make_raw(os.path.join(pool, "web1.raw"), rng.randbytes(2 * MIB))
    kept = rng.randbytes(MIB)
    with persistent("nocopy_on_read", env=faults(f"{point}/web1.raw:EIO", gate=gate)) as live:
        with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
            memory = Aligned(MIB)
            memory.write(fd, kept, 0)
            os.fsync(fd)
            os.close(os.open(gate, os.O_CREAT | os.O_WRONLY))
            if point == "aio.read":
                expect_errno(errno.EIO, memory.read, fd, BLOCK, MIB + BLOCK)
                assert_same(memory.read(fd, MIB, 0), kept, "what the cache has")
            else:
                expect_errno(errno.EIO, memory.write, fd, bytes(BLOCK), MIB)
            os.unlink(gate)
    with mount() as live:
        assert_same(read_file(live.file("web1.img"), MIB), kept, "what was acknowledged")


def test_shared_flush_failure_reaches_the_guest(mount, persistent, pool, work, rng):
    """As in direct mode: the fsync fails, so does the close, and so the daemon."""
    gate = os.path.join(work, "gate")
    make_raw(os.path.join(pool, "web1.raw"), rng.randbytes(2 * MIB))
    kept = rng.randbytes(MIB)
    live = persistent(env=faults("aio.datasync/web1.raw:EIO", gate=gate))
    fd = os.open(live.file("web1.img"), os.O_RDWR)
    write_all(fd, kept, 0)
    os.fsync(fd)
    os.close(os.open(gate, os.O_CREAT | os.O_WRONLY))
    write_all(fd, bytes(BLOCK), MIB)
    expect_errno(errno.EIO, os.fsync, fd)
    expect_errno(errno.EIO, os.close, fd)
    live.finalise()
    assert live.status == 0
    with persistent() as live:
        assert_same(read_file(live.file("web1.img"), MIB), kept, "what was acknowledged")


def test_failed_write_leaves_no_old_copy(persistent, pool, work, rng):
    """A write that failed on the shared leaf: reads show what is there, not what
    the cache had before or would have had."""
    gate = os.path.join(work, "gate")
    image = make_raw(os.path.join(pool, "web1.raw"), rng.randbytes(MIB))
    with persistent(env=faults("aio.write/web1.raw:EIO", gate=gate)) as live:
        with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
            memory = Aligned(MIB)
            memory.read(fd, MIB, 0)
            os.close(os.open(gate, os.O_CREAT | os.O_WRONLY))
            expect_errno(errno.EIO, memory.write, fd, b"n" * (64 * KIB), 0)
            os.unlink(gate)
            assert_same(memory.read(fd, MIB, 0), file_bytes(image), "after the failed write")


# ---- Ephemeral -----------------------------------------------------------------

@pytest.mark.parametrize("named", [True, False])
def test_ephemeral_overflows(mount, pool, work, cache, rng, named):
    """A cache of 64 MiB takes 1 GiB of writes, and it all reads back."""
    size, piece = 1024 * MIB, 4 * MIB
    base = make_raw(os.path.join(pool, "base.raw"), rng.randbytes(MIB))
    make_image(os.path.join(pool, "web1.leaf"), size, parent=base)
    before = pool_images(pool)
    options = ["mode=ephemeral", "cache_size=64M"] + ([f"cache={cache}"] if named else [])
    pieces = [rng.randbytes(piece) for _ in range(7)]
    with mount(*options) as live:
        with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
            memory = Aligned(piece)
            for offset in range(0, size, piece):
                memory.write(fd, pieces[offset // piece % 7], offset)
            os.fsync(fd)
            for offset in range(0, size, piece):
                assert_same(memory.read(fd, piece, offset), pieces[offset // piece % 7], f"at {offset}")
            discard(fd, 0, size // 2)
            assert memory.read(fd, piece, size // 4) == bytes(piece)
    assert pool_images(pool) == before
    assert sorted(os.listdir(pool)) == sorted(before)
    with mount(*options) as live:
        assert_same(read_file(live.file("web1.img"), 2 * MIB), file_bytes(base) + bytes(MIB), "after a remount")


def test_ephemeral_leaves_nothing_after_a_kill(ephemeral, pool, rng):
    make_image(os.path.join(pool, "web1.leaf"), 64 * MIB)
    before = pool_images(pool)
    live = ephemeral()
    with opened(live.file("web1.img")) as fd:
        for offset in range(0, 32 * MIB, MIB):
            write_all(fd, rng.randbytes(MIB), offset)
        os.fsync(fd)
    live.kill9()
    with ephemeral() as live:
        assert read_file(live.file("web1.img"), 64 * MIB) == bytes(64 * MIB)
    assert pool_images(pool) == before
    assert sorted(os.listdir(pool)) == sorted(before)


@pytest.mark.parametrize("fault", ["image.write", "image.sync", "aio.write/.leaf", "aio.datasync/.leaf"])
def test_ephemeral_overflow_on_a_store_that_fails_for_a_while(ephemeral, pool, gate, rng, fault):
    """Nothing of the overflow layer is read again: what it was not told durably fails nobody afterwards."""
    make_image(os.path.join(pool, "web1.leaf"), 64 * MIB)
    pieces = [rng.randbytes(MIB) for _ in range(64)]
    with ephemeral(env=faults(f"{fault}:EIO", gate=gate.path)) as live:
        with opened(live.file("web1.img")) as fd:
            for number in range(48):
                write_all(fd, pieces[number], number * MIB)
            os.fsync(fd)
            gate.open()
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 80 * MIB)
            with contextlib.suppress(OSError):
                discard(fd, 40 * MIB, 4 * MIB)
            with contextlib.suppress(OSError):
                os.pwrite(fd, pieces[0], 44 * MIB)
                os.fsync(fd)
            gate.close()
        with opened(live.file("web1.img")) as fd:
            for number in range(64):
                write_all(fd, pieces[number], number * MIB)
            os.fsync(fd)
            os.ftruncate(fd, 96 * MIB)
        assert_same(read_file(live.file("web1.img"), 97 * MIB), b"".join(pieces) + bytes(32 * MIB), "afterwards")


def test_ephemeral_on_a_read_only_directory(mount, pool, work, rng):
    """Raw and native images on a file system that takes no write."""
    disk = os.path.join(work, "ro.ext4")
    run("truncate", "-s", "64M", disk)
    run("mke2fs", "-q", "-t", "ext4", disk)
    content = rng.randbytes(4 * MIB)
    with Loop(disk) as loop:
        where = loop.mount(os.path.join(work, "ro"))
        make_image(os.path.join(where, "web1.leaf"), parent=make_raw(os.path.join(where, "base.raw"), content))
        run("mount", "-o", "remount,ro", where)
        with mount("mode=ephemeral", "cache_size=16M", pool=where) as live:
            for name in ("base.img", "web1.img"):
                with opened(live.file(name)) as fd:
                    write_all(fd, b"x" * BLOCK, MIB)
                    os.fsync(fd)
                    assert_same(read_all(fd, 4 * MIB, 0), content[:MIB] + b"x" * BLOCK + content[MIB + BLOCK:], name)
            # There is nowhere to overflow to: that is said, and nothing is lost.
            with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
                memory = Aligned(MIB)
                with opened(live.file("base.img"), os.O_RDWR | os.O_DIRECT) as other:
                    for number in range(8):
                        try:
                            memory.write(fd, bytes([number + 1]) * MIB, number % 4 * MIB)
                            memory.write(other, bytes([number + 1]) * MIB, number % 4 * MIB)
                        except OSError as error:
                            assert error.errno == errno.ENOSPC


def test_ephemeral_keeps_what_was_written_until_the_unmount(ephemeral, pool, rng):
    make_image(os.path.join(pool, "web1.leaf"), 4 * MIB)
    data = rng.randbytes(MIB)
    with ephemeral() as live:
        with opened(live.file("web1.img")) as fd:
            write_all(fd, data, MIB)
        os.truncate(live.file("web1.img"), 5 * MIB + 7)
        assert os.stat(live.file("web1.img")).st_size == 5 * MIB + 7
        assert_same(read_file(live.file("web1.img"), 6 * MIB), bytes(MIB) + data + bytes(3 * MIB + 7), "opened again")


# ---- Fetching -------------------------------------------------------------------

def test_base_is_fetched_once_for_all_clones(mount, pool, cache, rng):
    """Twenty clones read one after the other, then another twenty at once."""
    size = 4 * MIB
    base = make_raw(os.path.join(pool, "base.raw"), rng.randbytes(size))
    content = file_bytes(base)
    for number in range(20):
        make_image(os.path.join(pool, f"web{number}.leaf"), parent=base)
    options = [f"cache={cache}", "mode=ephemeral", "cache_size=32M", "read_run_bypass=1G"]
    with mount(*options) as live:
        for number in range(20):
            assert_same(read_file(live.file(f"web{number}.img"), size), content, f"clone {number}")
            assert stats(live)["cache_fetched_blocks"] == size // BLOCK, f"clone {number} read the base again"
        assert int(control_values(live, "cache", "info")["cached_bytes"]) == size
    os.unlink(cache)
    with mount(*options, "threads=2", env=faults()) as live:
        in_threads(20, lambda number: assert_same(read_file(live.file(f"web{number}.img"), size), content, "a clone"))
        assert stats(live)["cache_fetched_blocks"] == size // BLOCK, "a block was fetched twice"


def test_long_sequential_reads_pass_by(mount, pool, cache, rng):
    size = 16 * MIB
    make_raw(os.path.join(pool, "base.raw"), rng.randbytes(size))
    with mount(f"cache={cache}", "mode=ephemeral", "cache_size=64M", "read_run_bypass=1M") as live:
        read_file(live.file("base.img"), size)
        counted = stats(live)
        assert counted["cache_bypasses"] > 0
        assert counted["cache_fetched_blocks"] <= 2 * MIB // BLOCK


# ---- Mistakes -------------------------------------------------------------------

@pytest.mark.parametrize("options,sentence", [
    (["mode=persistent"], "needs a cache"),
    (["mode=writeback"], "needs a cache"),
    (["cache_size=16M"], "this mount has none"),
    (["cache={cache}", "cache_size=1M"], "cache_size"),
    (["cache=/nowhere/x"], "/nowhere"),
    (["mode=quick"], "direct, persistent, ephemeral"),
])
def test_refused_before_the_mount(mount, pool, cache, options, sentence):
    with pytest.raises(MountError) as refusal:
        mount(*[option.format(cache=cache) for option in options])
    assert sentence in str(refusal.value)
    assert not os.path.exists(cache)


def test_foreign_cache_is_refused(mount, work, pool, cache, rng):
    """Another pool's, or something else: refused with the command that resets it."""
    other = os.path.join(work, "other")
    os.mkdir(other)
    make_raw(os.path.join(pool, "web1.raw"), bytes(MIB))
    with mount(f"cache={cache}"):
        pass
    with pytest.raises(MountError, match="leafctl cache create --force") as refusal:
        mount(f"cache={cache}", pool=other)
    assert pool in str(refusal.value)
    make_raw(cache, rng.randbytes(8 * MIB))
    with pytest.raises(MountError, match="leafctl cache create --force"):
        mount(f"cache={cache}")
    leafctl("cache", "create", "--force", "--pool", pool, cache)
    with mount(f"cache={cache}"):
        pass


def test_cache_in_use_is_refused(mount, pool, cache):
    make_raw(os.path.join(pool, "web1.raw"), bytes(MIB))
    with mount(f"cache={cache}"):
        with pytest.raises(MountError, match="in use"):
            mount(f"cache={cache}")


def test_flipped_bits_are_never_served(mount, persistent, pool, cache, rng):
    """Bits flipped anywhere in a closed cache: found, or harmless."""
    base = make_raw(os.path.join(pool, "base.raw"), rng.randbytes(MIB))
    image = make_image(os.path.join(pool, "web1.leaf"), parent=base)
    expected = bytearray(file_bytes(base))
    with persistent() as live, opened(live.file("web1.img")) as fd:
        data = rng.randbytes(100 * KIB)
        write_all(fd, data, 50 * KIB)
        expected[50 * KIB:150 * KIB] = data
        read_all(fd, MIB, 0)
    original = file_bytes(cache)
    for _ in range(scaled(40, 2000)):
        damaged = bytearray(original)
        for _ in range(rng.choice([1, 1, 8, 64])):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        damaged[rng.choice([0, 64 * KIB, MIB, MIB + BLOCK]) + rng.randrange(BLOCK)] ^= 1 << rng.randrange(8)
        make_raw(cache, damaged)
        try:
            with persistent() as live:
                assert_same(read_file(live.file("web1.img"), MIB), expected, "with a damaged cache")
        except MountError as refusal:
            assert "leafctl cache create --force" in str(refusal), refusal
    check_clean(image)


@pytest.mark.parametrize("mode", ["direct", "persistent", "ephemeral", "writeback"])
def test_layers_that_end_within_a_block(mount, pool, work, cache, rng, mode):
    """Past its end a layer is zero, to the byte, whatever is below it."""
    sizes = {"base.raw": 6 * BLOCK, "one.leaf": 4 * BLOCK + 512, "two.leaf": 2 * BLOCK + 1024, "top.leaf": 6 * BLOCK}
    expected = bytearray(rng.randbytes(sizes["base.raw"]))
    below = make_raw(os.path.join(pool, "base.raw"), bytes(expected))
    for name in ("one.leaf", "two.leaf", "top.leaf"):
        below = make_image(os.path.join(pool, name), sizes[name], parent=below)
        expected[sizes[name]:] = bytes(len(expected[sizes[name]:]))
    assert_same(converted(below, work), expected, "converted")
    with mount(f"cache={cache}", f"mode={mode}", "cache_size=16M") as live:
        for _ in range(2):  # from the images, then from the cache
            with opened(live.file("top.img"), os.O_RDONLY | os.O_DIRECT) as fd:
                assert_same(Aligned(len(expected)).read(fd, len(expected), 0), expected, mode)
        with opened(live.file("top.img")) as fd:
            write_all(fd, b"w" * 100, 2 * BLOCK + 2000)  # the rest of that block is copied up
        expected[2 * BLOCK + 2000:2 * BLOCK + 2100] = b"w" * 100
        assert_same(read_file(live.file("top.img"), len(expected)), expected, "written in part")
    if mode != "ephemeral":
        assert_same(converted(below, work), expected, "the images alone")
