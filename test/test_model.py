"""Random requests on a mounted disk against a byte-exact model."""
import os
import threading

import pytest

from harness import (BLOCK, KIB, MIB, Aligned, assert_same, check_clean, converted, discard, make_image, make_raw,
                     opened, read_all, run, scaled, write_all, zero_range)

SECTOR = 512
LENGTH_MAX = 4 * MIB

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


class Model:
    """What a disk must read as."""

    def __init__(self, content):
        self.content = bytearray(content)

    def __len__(self):
        return len(self.content)

    def write(self, offset, data):
        self.content[offset:offset + len(data)] = data

    def zero(self, offset, length):
        end = min(offset + length, len(self.content))
        self.content[offset:end] = bytes(end - offset)

    def resize(self, size):
        self.content.extend(bytes(size - len(self.content)))

    def read(self, offset, length):
        return self.content[offset:offset + length]


class Disk:
    """A mounted disk, its model, and one file descriptor of each kind."""

    def __init__(self, mount, pool, name, content, rng):
        self.mount_pool = mount
        self.image = os.path.join(pool, name + ".leaf")
        self.name = name + ".img"
        self.model = Model(content)
        self.rng = rng
        self.noise = rng.randbytes(8 * MIB)
        self.memory = Aligned(LENGTH_MAX)
        self.size_max = len(content) + 8 * MIB
        self.open()

    def open(self):
        self.mount = self.mount_pool()
        self.path = self.mount.file(self.name)
        self.buffered = os.open(self.path, os.O_RDWR)
        self.direct = os.open(self.path, os.O_RDWR | os.O_DIRECT)

    def close(self):
        os.close(self.buffered)
        os.close(self.direct)
        self.mount.stop()

    def data(self, length):
        start = self.rng.randrange(len(self.noise) - length + 1)
        return self.noise[start:start + length]

    def range(self, align=1):
        """Any offset and length inside the disk: small ones as likely as large
        ones, edges of blocks and chunks and the end of the disk often."""
        size = len(self.model) // align * align
        length = self.rng.randint(1, 2 ** self.rng.randrange(23))
        offset = self.rng.randrange(size)
        edge = self.rng.choice([1, 1, SECTOR, BLOCK, 64 * KIB, MIB])
        offset = offset // edge * edge
        if self.rng.random() < 0.3:
            length = max(length // BLOCK, 1) * BLOCK
        if self.rng.random() < 0.05:
            offset = size - min(length, size)
        offset = offset // align * align
        length = min(-(-length // align) * align, size - offset, LENGTH_MAX)
        return offset, length

    # One method per operation.

    def read_buffered(self):
        offset, length = self.range()
        self.compare(read_all(self.buffered, length, offset), offset, length)

    def read_direct(self):
        offset, length = self.range(SECTOR)
        self.compare(self.memory.read(self.direct, length, offset), offset, length)

    def write_buffered(self):
        offset, length = self.range()
        data = self.data(length)
        write_all(self.buffered, data, offset)
        self.model.write(offset, data)

    def write_direct(self):
        offset, length = self.range(SECTOR)
        data = self.data(length)
        self.memory.write(self.direct, data, offset)
        self.model.write(offset, data)

    def write_zeros(self):
        offset, length = self.range()
        write_all(self.buffered, bytes(length), offset)
        self.model.zero(offset, length)

    def discard(self):
        offset, length = self.range()
        discard(self.buffered, offset, length)
        self.model.zero(offset, length)

    def zero_range(self):
        offset, length = self.range()
        zero_range(self.buffered, offset, length)
        self.model.zero(offset, length)

    def flush(self):
        os.fsync(self.buffered)

    def grow(self):
        size = len(self.model) + self.rng.randint(1, 256 * KIB)
        if size <= self.size_max:
            os.truncate(self.path, size)
            self.model.resize(size)

    def remount(self):
        self.close()
        check_clean(self.image)
        self.open()
        self.compare_all()

    def compare(self, found, offset, length):
        assert_same(found, self.model.read(offset, length), f"{length} bytes at {offset}")

    def compare_all(self):
        size = os.stat(self.path).st_size
        assert size == len(self.model)
        self.compare(read_all(self.buffered, size + 1, 0), 0, size + 1)

    def step(self):
        weights = {
            self.read_buffered: 18, self.read_direct: 14, self.write_buffered: 18, self.write_direct: 16,
            self.write_zeros: 3, self.discard: 12, self.zero_range: 8, self.flush: 8, self.grow: 2, self.remount: 1,
        }
        self.rng.choices(list(weights), list(weights.values()))[0]()


def patchwork(content, rng):
    """Changes some of CONTENT: the ranges and their new bytes."""
    for _ in range(6):
        length = rng.choice([rng.randint(1, 8000), BLOCK, 64 * KIB, 300_000])
        offset = rng.randrange(len(content))
        data = rng.randbytes(min(length, len(content) - offset))
        content[offset:offset + len(data)] = data
        yield offset, data


def build_chain(mount, pool, layers, chunk, size, rng):
    """A chain whose every layer holds data of its own, and an empty leaf."""
    if layers == 1:
        make_image(os.path.join(pool, "leaf.leaf"), size, chunk=chunk)
        return bytearray(size)
    content = bytearray(size)
    for _ in patchwork(content, rng):
        pass
    parent = make_raw(os.path.join(pool, "base.raw"), content)
    for number in range(1, layers - 1):
        parent = make_image(os.path.join(pool, f"layer{number}.leaf"), parent=parent, chunk=chunk)
        with mount() as live, opened(live.file(f"layer{number}.img")) as fd:
            for offset, data in patchwork(content, rng):
                write_all(fd, data, offset)
            offset = rng.randrange(size)
            discard(fd, offset, min(100_000, size - offset))
            content[offset:offset + 100_000] = bytes(min(100_000, size - offset))
    make_image(os.path.join(pool, "leaf.leaf"), parent=parent, chunk=chunk)
    return content


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


def in_threads(count, work):
    """Runs WORK(number) in COUNT threads; the first failure is raised."""
    failures = []

    def guarded(number):
        try:
            work(number)
        except BaseException as failure:  # handed to the test's thread
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


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
