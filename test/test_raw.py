"""Raw images on stores that cannot do everything."""
import os

import pytest

from harness import (BLOCK, MIB, Gate, assert_same, discard, expect_errno, faults, file_bytes, file_system, make_raw,
                     opened, read_all, stats, write_all, zero_range)


def allocated(path):
    return os.stat(path).st_blocks * 512


# ---- The times ---------------------------------------------------------------------

# Times cannot be set; they do not move; nor do they move when something is written.
STORES = {
    "sets": ([], True),
    "refuses": (["image.stamp:EPERM"], True),
    "knows none": (["image.stamp:ENOSYS", "image.rewrite:short"], False),
    "ignores": (["image.stamp:short", "image.rewrite:short"], False),
    "cannot be rewritten": (["image.stamp:EOPNOTSUPP", "image.rewrite:EIO"], False),
}


@pytest.mark.parametrize("store", STORES)
def test_a_store_without_times_can_be_written(mount, pool, work, rng, store):
    """What the cache has of the image survives where its times tell of changes."""
    rules, survives = STORES[store]
    content = rng.randbytes(4 * MIB)
    image = make_raw(os.path.join(pool, "web1.raw"), content)
    options = ["mode=persistent", f"cache={os.path.join(work, 'cache')}", "cache_size=16M"]
    live = mount(*options, env=faults(*rules))
    new = rng.randbytes(MIB)
    with opened(live.file("web1.img")) as fd:
        write_all(fd, new, MIB)
        os.fsync(fd)
    live.stop()
    assert file_bytes(image) == content[:MIB] + new + content[2 * MIB:]
    live = mount(*options)
    with opened(live.file("web1.img"), os.O_RDONLY) as fd:
        assert read_all(fd, MIB, MIB) == new
    assert (stats(live)["cache_hits"] > 0) == survives
    live.stop()


@pytest.mark.parametrize("mode", ["direct", "writeback", "ephemeral"])
def test_every_mode_without_times(mount, pool, work, rng, mode):
    image = make_raw(os.path.join(pool, "web1.raw"), bytes(4 * MIB))
    options = [f"mode={mode}"]
    if mode == "writeback":
        options += [f"cache={os.path.join(work, 'cache')}", "cache_size=16M"]
    live = mount(*options, env=faults("image.stamp:ENOSYS", "image.rewrite:ENOSYS"))
    new = rng.randbytes(MIB)
    with opened(live.file("web1.img")) as fd:
        write_all(fd, new, MIB)
        os.fsync(fd)
        assert read_all(fd, MIB, MIB) == new
    live.stop()
    assert (file_bytes(image)[MIB:2 * MIB] == new) == (mode != "ephemeral")


# ---- Zeros -------------------------------------------------------------------------

@pytest.fixture
def small(work):
    """A pool of 48 MiB."""
    with file_system(work, "small", "48M") as pool:
        yield pool


def make_thin(path, size):
    with open(path, "wb") as file:
        file.truncate(size)
    return path


@pytest.mark.parametrize("mode", ["direct", "persistent"])
def test_zeros_do_not_fill_the_pool(mount, small, work, rng, mode):
    """A thin image stays thin, and what is allocated of it stays allocated."""
    thin = make_thin(os.path.join(small, "thin.raw"), 1 << 30)
    make_thin(os.path.join(small, "other.raw"), 16 * MIB)
    options = [f"mode={mode}"]
    if mode != "direct":
        options += [f"cache={os.path.join(work, 'cache')}", "cache_size=16M"]
    live = mount(*options, pool=small)
    with opened(live.file("thin.img"), os.O_RDWR | os.O_DSYNC) as fd:
        write_all(fd, rng.randbytes(MIB), 512 * MIB)
        before = allocated(thin)
        assert before >= MIB
        zero_range(fd, 0, 1 << 30)
        assert before <= allocated(thin) <= before + MIB
        assert read_all(fd, MIB, 512 * MIB) == bytes(MIB)
    with opened(live.file("other.img")) as fd:
        write_all(fd, rng.randbytes(16 * MIB), 0)
        os.fsync(fd)
    live.stop()


# The store refuses the first way, and the second.
WAYS = {"keeps": [], "punches": ["image.zero:EOPNOTSUPPx1"], "punches when full": ["image.zero:ENOSPCx1"],
        "writes": ["image.zero:EOPNOTSUPPx2"]}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_zero(mount, pool, rng, way):
    size = 64 * MIB
    thin = make_thin(os.path.join(pool, "thin.raw"), size + 4321)
    live = mount(env=faults(*WAYS[way]))
    with opened(live.file("thin.img"), os.O_RDWR | os.O_DSYNC) as fd:
        for offset, length in ((0, BLOCK), (5 * MIB, 9 * MIB), (size - BLOCK, BLOCK + 4321)):
            write_all(fd, rng.randbytes(length), offset)
        before = allocated(thin)
        zero_range(fd, BLOCK, size - BLOCK + 4321)
        assert_same(read_all(fd, size + MIB, BLOCK), bytes(size - BLOCK + 4321), way)
        assert read_all(fd, BLOCK, 0) != bytes(BLOCK)
    live.stop()
    after = allocated(thin)
    assert after <= MIB if way.startswith("punches") else before - MIB <= after <= before + MIB
    assert os.stat(thin).st_size == size + 4321


def test_a_store_that_cannot_punch(mount, pool, rng):
    """Zeros are written where there is data, and nowhere else."""
    thin = make_thin(os.path.join(pool, "thin.raw"), 1 << 40)
    live = mount(env=faults("image.zero:EOPNOTSUPP"))
    with opened(live.file("thin.img"), os.O_RDWR | os.O_DSYNC) as fd:
        write_all(fd, rng.randbytes(12 * MIB), 1 << 39)
        discard(fd, 0, 1 << 40)
        assert read_all(fd, 12 * MIB, 1 << 39) == bytes(12 * MIB)
    live.stop()
    assert allocated(thin) <= 13 * MIB


def test_zeros_that_cannot_be_written(mount, pool, work, rng):
    gate = Gate(work)
    make_raw(os.path.join(pool, "web1.raw"), rng.randbytes(MIB))
    live = mount(env=faults("image.zero:EIOx1", gate=gate.path))
    with opened(live.file("web1.img")) as fd:
        gate.open()
        expect_errno(5, zero_range, fd, 0, MIB)
        zero_range(fd, 0, MIB)
        assert read_all(fd, MIB, 0) == bytes(MIB)
    live.stop()
