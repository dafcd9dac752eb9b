"""Random requests on a mounted disk against a byte-exact model."""
import os

import pytest

from harness import (BLOCK, KIB, MIB, Aligned, assert_same, check_clean, converted, discard, make_image, make_raw,
                     opened, read_all, run, scaled, write_all, zero_range)
from model import Disk, build_chain, in_threads

# layers, chunk, size: ten thousand operations over all of them.
CHAINS = [
    (1, "64K", 20 * MIB + 1),
    (1, "1M", 33 * MIB),
    (2, "64K", 16 * MIB + 4095),
    (2, "1M", 24 * MIB + 512),
    (8, "64K", 12 * MIB + 513),
    (8, "1M", 20 * MIB + 3),
    (64, "64K", 10 * MIB + 4097),
    (64, "1M", 16 * MIB),
]
OPERATIONS = 10_000


@pytest.mark.slow
@pytest.mark.parametrize("layers,chunk,size", CHAINS)
def test_random_requests(mount, pool, work, rng, layers, chunk, size):
    content = build_chain(mount, pool, layers, chunk, size, rng)
    sealed = {name: os.stat(os.path.join(pool, name)).st_mtime_ns for name in os.listdir(pool) if name != "leaf.leaf"}
    disk = Disk(mount, pool, "leaf", content, rng)
    disk.compare_all()
    for _ in range(scaled(OPERATIONS, 20 * OPERATIONS) // len(CHAINS)):
        disk.step()
    disk.remount()
    disk.close()
    assert_same(converted(disk.image, work), disk.model.content, "leafctl convert")
    for name, modified in sealed.items():
        assert os.stat(os.path.join(pool, name)).st_mtime_ns == modified, f"{name} was written"


@pytest.mark.parametrize("edge", [1, 511, 512, 513, 4095, 4096, 4097, 65535, 65537])
def test_every_tail(mount, pool, work, rng, edge):
    """Write, discard and zero with each end a little off a block and a chunk."""
    size = 1 * MIB + edge
    base = rng.randbytes(size)
    make_raw(os.path.join(pool, "base.raw"), base)
    make_image(os.path.join(pool, "leaf.leaf"), parent=os.path.join(pool, "base.raw"), chunk="64K")
    disk = Disk(mount, pool, "leaf", base, rng)
    for start in (0, 64 * KIB - edge % BLOCK, 128 * KIB, 4 * 64 * KIB + edge % BLOCK, size - edge):
        length = min(edge, size - start)
        for change in (discard, zero_range):
            data = disk.data(length)
            write_all(disk.buffered, data, start)
            disk.model.write(start, data)
            part = max(length // 2, 1)
            change(disk.buffered, start + length - part, part)
            disk.model.zero(start + length - part, part)
            disk.compare_all()
    disk.remount()
    disk.close()
    assert_same(converted(disk.image, work), disk.model.content, "leafctl convert")


@pytest.mark.parametrize("options", [[], ["threads=2"]])
def test_writers_side_by_side(mount, pool, rng, options):
    """Each writer owns every fourth piece of 3,000 bytes, so that neighbours
    share blocks and chunks all the time."""
    writers, piece, size = 4, 3000, 9 * MIB + 77
    make_image(os.path.join(pool, "leaf.leaf"), size, chunk="64K")
    with mount(*options) as live:
        path = live.file("leaf.img")
        content = bytearray(size)
        seeds = [rng.random() for _ in range(writers)]

        def work(number):
            own = type(rng)(seeds[number])
            with opened(path) as fd:
                for index in own.sample(range(size // piece), scaled(400, 3000)):
                    if index % writers != number:
                        continue
                    offset = index * piece
                    if own.random() < 0.2:
                        discard(fd, offset, piece)
                        content[offset:offset + piece] = bytes(piece)
                    else:
                        data = own.randbytes(piece)
                        write_all(fd, data, offset)
                        content[offset:offset + piece] = data
                    assert_same(read_all(fd, piece, offset), content[offset:offset + piece], f"piece {index}")

        in_threads(writers, work)
        with opened(path) as fd:
            assert_same(read_all(fd, size, 0), content, "all pieces")
    check_clean(os.path.join(pool, "leaf.leaf"))
    with mount() as live, opened(live.file("leaf.img")) as fd:
        assert_same(read_all(fd, size, 0), content, "all pieces after a remount")


def test_writers_on_the_same_blocks(mount, pool, rng):
    """A block written by several at once is one writer's, whole."""
    writers, blocks = 4, 256
    make_image(os.path.join(pool, "leaf.leaf"), blocks * BLOCK, chunk="64K")
    with mount("threads=2") as live:
        path = live.file("leaf.img")
        orders = [rng.sample(range(blocks), blocks) for _ in range(writers)]

        def work(number):
            stamp = bytes([number + 1]) * BLOCK
            memory = Aligned(BLOCK)
            with opened(path, os.O_RDWR | os.O_DIRECT) as fd:
                for block in orders[number]:
                    memory.write(fd, stamp, block * BLOCK)

        in_threads(writers, work)
    with mount() as live, opened(live.file("leaf.img")) as fd:
        content = read_all(fd, blocks * BLOCK, 0)
    for block in range(blocks):
        found = content[block * BLOCK:(block + 1) * BLOCK]
        assert found[0] in range(1, writers + 1) and found == found[:1] * BLOCK, f"block {block} is torn"


@pytest.mark.parametrize("kind", ["leaf", "raw"])
def test_files_opened_and_closed_side_by_side(mount, pool, rng, kind):
    """Two loops: one is told of a file's opening, its use, or its end after the
    other had to do with it."""
    users, size = 4, 256 * KIB
    for number in range(users):
        path = os.path.join(pool, f"web{number}.{kind}")
        if kind == "leaf":
            make_image(path, size, chunk="64K")
        else:
            make_raw(path, bytes(size))
    seeds = [rng.random() for _ in range(users)]
    with mount("threads=2") as live:
        def work(number):
            own, content = type(rng)(seeds[number]), bytearray(size)
            for _ in range(scaled(100, 1000)):
                offset, data = own.randrange(size - 5000), own.randbytes(own.randrange(1, 5000))
                with opened(live.file(f"web{number}.img")) as fd:
                    write_all(fd, data, offset)
                    content[offset:offset + len(data)] = data
                with opened(live.file(f"web{number}.img"), os.O_RDONLY) as fd:
                    assert_same(read_all(fd, size, 0), content, f"web{number}.img")

        in_threads(users, work)


@pytest.mark.parametrize("size", [512, 513, 4095, 4096, 65536 + 1])
def test_small_disks(mount, pool, work, rng, size):
    """The smallest sizes, read and written whole."""
    data = rng.randbytes(size)
    image = make_image(os.path.join(pool, "leaf.leaf"), size)
    with mount() as live, opened(live.file("leaf.img")) as fd:
        assert read_all(fd, size + 1, 0) == bytes(size)
        write_all(fd, data, 0)
        os.fsync(fd)
        assert_same(read_all(fd, size + 1, 0), data, "the disk")
    assert_same(converted(image, work), data, "leafctl convert")


def test_leaf_larger_than_its_parent(mount, pool, work, rng):
    """What lies past the parent's end reads as zeros, to the byte."""
    base = rng.randbytes(100_001)
    make_raw(os.path.join(pool, "base.raw"), base)
    image = make_image(os.path.join(pool, "leaf.leaf"), 300_007, parent=os.path.join(pool, "base.raw"))
    expected = bytearray(base + bytes(300_007 - len(base)))
    with mount() as live, opened(live.file("leaf.img")) as fd:
        assert_same(read_all(fd, 400_000, 0), expected, "before a write")
        write_all(fd, b"x", 100_001)
        expected[100_001] = ord("x")
        assert_same(read_all(fd, 400_000, 0), expected, "after a write")
    assert_same(converted(image, work), expected, "leafctl convert")


def test_growth_reads_as_zeros(mount, pool, rng):
    """A disk that grows shows nothing of what a smaller one had written or of
    what its parent holds past the old end."""
    make_raw(os.path.join(pool, "base.raw"), rng.randbytes(200_000))
    image = make_image(os.path.join(pool, "leaf.leaf"), 50_001, parent=os.path.join(pool, "base.raw"), chunk="64K")
    with mount() as live:
        with opened(live.file("leaf.img")) as fd:
            write_all(fd, b"y" * 50_001, 0)
        os.truncate(live.file("leaf.img"), 150_000)
        with opened(live.file("leaf.img")) as fd:
            assert_same(read_all(fd, 150_000, 0), b"y" * 50_001 + bytes(99_999), "after growth")
    run("sync", image)
    check_clean(image)
