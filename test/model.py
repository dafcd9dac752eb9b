"""A mounted disk with a byte-exact model beside it, and chains to try it on."""
import errno
import os
import threading

from harness import (BLOCK, KIB, MIB, Aligned, assert_same, check_clean, discard, make_image, make_raw, opened,
                     read_all, shrink, wait_until, write_all, zero_range)

SECTOR = 512
LENGTH_MAX = 4 * MIB


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
        del self.content[size:]
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
        self.open_files()

    def open_files(self):
        self.buffered = os.open(self.path, os.O_RDWR)
        self.direct = os.open(self.path, os.O_RDWR | os.O_DIRECT)

    def close_files(self):
        os.close(self.buffered)
        os.close(self.direct)

    def close(self):
        self.close_files()
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

    def truncate(self, size):
        """False while the kernel has not told of a last close yet."""
        try:
            shrink(self.mount, self.name, size)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        return True

    def shrink(self):
        """What is cut off does not come back when the disk grows again."""
        size = len(self.model) - self.rng.randint(1, 64 * KIB)
        self.close_files()
        wait_until(lambda: self.truncate(size), "the disk to be closed")
        self.model.resize(size)
        if self.rng.random() < 0.5:
            os.truncate(self.path, size + 96 * KIB)
            self.model.resize(size + 96 * KIB)
        self.open_files()

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
            self.write_zeros: 3, self.discard: 12, self.zero_range: 8, self.flush: 8, self.grow: 2, self.shrink: 1,
            self.remount: 1,
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
