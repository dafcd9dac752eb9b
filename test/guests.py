"""Guests of running disks that know what they have sent, and in which order: to blocks, or to files of an ext4.

cuts.py says whether what is found of a disk then, in a snapshot or after a crash, is as it may be."""
import contextlib
import ctypes
import itertools
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time

from cuts import Clock, History
from harness import (BLOCK, TREE, Aligned, Loop, discard, file_bytes, leafctl, make_image, make_raw, opened, run,
                     zero_range)
from stamps import STAMP, ZEROS, describe, stamp

FS_LOAD = os.path.join(TREE, "test", "fs_load.py")
RUN_MAX = 16  # blocks of one request; so many in a row are one writer's
WRITERS = 3
STEPPERS = 2
SLOTS = 6  # of each stepper
FILE_MAX = 40_000
HEAD = struct.Struct("<QQ")
libc = ctypes.CDLL(None, use_errno=True)


class World:
    """What all guests of a pool share."""

    def __init__(self, work, rng):
        self.work = work
        self.clock = Clock()
        self.numbers = itertools.count(2).__next__  # 1: what a base has
        self.seeds = itertools.count(rng.randrange(1 << 40)).__next__
        self.disks = []
        self.seals = []
        self.sending = threading.Event()
        self.stop = threading.Event()
        self.dying = False
        self.killed = 0
        self.errors = []

    def rng(self):
        """For another thread."""
        return random.Random(self.seeds())

    def fail(self, who, error):
        """When the daemon was killed it is none."""
        if not self.dying:
            self.errors.append(f"{who}: {type(error).__name__}: {error}")
            self.stop.set()

    @contextlib.contextmanager
    def guarded(self, who):
        try:
            yield
        except Exception as error:  # told by the test's thread
            self.fail(who, error)

    def thread(self, who, target):
        def work():
            with self.guarded(who):
                target()

        thread = threading.Thread(target=work, name=who)
        thread.start()
        return thread

    def expect_no_errors(self, live):
        assert not self.errors, "\n".join(self.errors) + f"\nthe daemon says:\n{live.messages()[-4000:]}"


class Disk:
    """A disk of a mount with what was sent to it."""

    def __init__(self, world, name, values):
        self.world, self.name = world, name
        self.stem = name.removesuffix(".img")
        self.depth = 0
        self.growing = threading.Lock()
        self.live = None
        self.begin_history(values)

    def begin_history(self, values):
        self.history = History(values)

    @property
    def path(self):
        return self.live.file(self.name)

    def expect_last(self, values, what):
        """All has been answered."""
        for cell, value in enumerate(values):
            assert value == self.history.last(cell), \
                f"{self.name}, {what}: cell {cell} has {value}, expected {self.history.last(cell)}"


# ---- Blocks --------------------------------------------------------------------------

class BlockDisk(Disk):
    """A cell for each block that there can be, and one for the size."""

    kind = "blocks"

    @staticmethod
    def make(world, pool, name, kind, blocks, blocks_max):
        """An empty leaf, a raw image, or a leaf on one, in which every other block has a number."""
        path = os.path.join(pool, name)
        values = [0] * blocks_max + [blocks * BLOCK]
        if kind == "leaf":
            make_image(f"{path}.leaf", blocks * BLOCK, chunk="64K")
            return BlockDisk(world, f"{name}.img", values)
        for block in range(0, blocks, 2):
            values[block] = 1
        content = b"".join(stamp(block, 1) if values[block] else ZEROS for block in range(blocks))
        if kind == "raw":
            make_raw(f"{path}.raw", content)
        else:
            make_image(f"{path}.leaf", parent=make_raw(os.path.join(pool, f"base-{name}.raw"), content))
        return BlockDisk(world, f"{name}.img", values)

    def another(self, name):
        return BlockDisk(self.world, name, [0] * len(self.history.cells))

    @property
    def blocks_max(self):
        return len(self.history.cells) - 1

    def size(self):
        """That which was answered last."""
        return next(change.value for change in reversed(self.history.cells[-1]) if change.answered < float("inf"))

    def grow(self, rng, resize):
        with self.growing:
            most = self.blocks_max * BLOCK
            size = min(self.size() + rng.randint(1, 64) * BLOCK, most)
            if size == self.size():
                return False
            change = self.history.begin([self.blocks_max], size, self.world.clock.now())
            done = resize(self.path, size)
            if done:
                change.answered = self.world.clock.now()
            elif not self.world.dying:
                self.history.cells[-1].pop()
            return done

    def values_of(self, content, what):
        values = [0] * self.blocks_max + [len(content)]
        assert len(content) <= self.blocks_max * BLOCK, f"{self.name}, {what}: {len(content)} bytes"
        for block in range(len(content) // BLOCK):
            data = content[block * BLOCK:(block + 1) * BLOCK]
            first, number = STAMP.unpack_from(data)
            if data != (stamp(block, number) if first else ZEROS):
                raise AssertionError(f"{self.name}, {what}: block {block} has {describe(data)}")
            values[block] = number if first else 0
        return values

    def read_image(self, image, what):
        """IMAGE has all there is."""
        with as_raw(self.world, image) as path:
            return self.values_of(file_bytes(path), what)

    def enter(self, live):
        """What it has."""
        self.live = live
        with opened(self.path, os.O_RDONLY | os.O_DIRECT) as fd:
            size = os.fstat(fd).st_size
            return self.values_of(Aligned(size).read(fd, size, 0), "in the mount")

    def begin(self):
        """Writers are of all disks."""

    def end(self):
        self.expect_last(self.enter(self.live), "at the end")

    def leave(self):
        """Entered, and no more."""

    def abandon(self):
        """The daemon has ended."""


@contextlib.contextmanager
def as_raw(world, image):
    """A copy of what the chain of IMAGE shows."""
    path = os.path.join(world.work, f"{threading.get_ident()}.raw")
    leafctl("convert", image, path)
    yield path
    os.unlink(path)


class Writer:
    """Every request to another disk: what is on one was sent after what is on the others was answered."""

    def __init__(self, world, number):
        self.world, self.number, self.rng = world, number, world.rng()
        self.memory = Aligned(RUN_MAX * BLOCK)
        self.files = {}
        self.slowest = 0.0

    def run(self):
        try:
            while not self.world.stop.is_set():
                disk = self.rng.choice([disk for disk in self.world.disks if disk.kind == "blocks"])
                self.step(disk, self.file_of(disk))
        finally:
            for fd in self.files.values():
                with contextlib.suppress(OSError):
                    os.close(fd)

    def file_of(self, disk):
        if disk not in self.files:
            self.files[disk] = os.open(disk.path, os.O_RDWR | os.O_DIRECT)
        return self.files[disk]

    def pick(self, disk):
        """Blocks in a row that are this writer's."""
        blocks = disk.size() // BLOCK
        stripe = self.rng.randrange(blocks // RUN_MAX // WRITERS) * WRITERS + self.number
        first = self.rng.randrange(RUN_MAX)
        length = min(self.rng.choice([1, 1, 2, RUN_MAX]), RUN_MAX - first)
        start = stripe * RUN_MAX + first
        return range(start, start + length)

    def change(self, disk, fd, how):
        """HOW(blocks, number)."""
        blocks = self.pick(disk)
        number = self.world.numbers() if how == self.write else 0
        began = time.monotonic()
        change = disk.history.begin(blocks, number, self.world.clock.now())
        how(fd, blocks, number)
        change.answered = self.world.clock.now()
        self.slowest = max(self.slowest, time.monotonic() - began)

    def write(self, fd, blocks, number):
        self.memory.write(fd, b"".join(stamp(block, number) for block in blocks), blocks[0] * BLOCK)

    @staticmethod
    def discard(fd, blocks, _number):
        discard(fd, blocks[0] * BLOCK, len(blocks) * BLOCK)

    @staticmethod
    def zero(fd, blocks, _number):
        zero_range(fd, blocks[0] * BLOCK, len(blocks) * BLOCK)

    def flush(self, disk, fd):
        order = self.world.clock.now()
        os.fsync(fd)
        disk.history.make_durable(order)

    def verify(self, disk, fd):
        """Nobody else writes there."""
        blocks = self.pick(disk)
        data = self.memory.read(fd, len(blocks) * BLOCK, blocks[0] * BLOCK)
        for index, block in enumerate(blocks):
            found, number = data[index * BLOCK:(index + 1) * BLOCK], disk.history.last(block)
            assert found == (stamp(block, number) if number else ZEROS), \
                f"{disk.name}: block {block} has {describe(found)}, expected {number}"

    def step(self, disk, fd):
        chance = self.rng.random()
        if chance < 0.70:
            self.change(disk, fd, self.write)
        elif chance < 0.77:
            self.change(disk, fd, self.discard)
        elif chance < 0.80:
            self.change(disk, fd, self.zero)
        elif chance < 0.92:
            self.verify(disk, fd)
        elif chance < 0.98:
            self.flush(disk, fd)
        else:
            os.close(self.files.pop(disk))


# ---- Files ---------------------------------------------------------------------------

def file_content(slot, number):
    rng = random.Random(f"{slot} {number}")
    return HEAD.pack(slot, number) + rng.randbytes(rng.randrange(FILE_MAX))


def read_slot(root, slot, what):
    try:
        content = file_bytes(os.path.join(root, f"slot{slot}"))
    except FileNotFoundError:
        return 0
    assert len(content) >= HEAD.size, f"{what}: slot {slot} has {len(content)} bytes"
    found, number = HEAD.unpack_from(content)
    assert found == slot and content == file_content(slot, number), f"{what}: slot {slot} has not all of {number}"
    return number


def read_slots(root, what):
    return [read_slot(root, slot, what) for slot in range(STEPPERS * SLOTS)]


class FileDisk(Disk):
    """A cell for each of some files; what else is in the file system is a load for its journal."""

    kind = "files"

    def __init__(self, world, name, values=(0,) * (STEPPERS * SLOTS)):
        super().__init__(world, name, values)
        self.loop = self.load = self.fd = None
        self.threads = []

    @staticmethod
    def make(world, pool, name, kind, size):
        """As blocks are made."""
        path = os.path.join(pool, name)
        base = f"{path}.raw" if kind == "raw" else os.path.join(pool, f"base-{name}.raw")
        run("mke2fs", "-q", "-t", "ext4", base, size)
        os.chmod(base, 0o600)
        if kind != "raw":
            make_image(f"{path}.leaf", parent=base, chunk="64K")
        return FileDisk(world, f"{name}.img")

    def another(self, name):
        return FileDisk(self.world, name)

    @property
    def root(self):
        return os.path.join(self.world.work, f"root-{self.stem}")

    def enter(self, live):
        """What it has when the journal has brought back what was cut off."""
        self.live = live
        self.loop = Loop(self.path)
        self.loop.mount(self.root)
        return read_slots(self.root, f"{self.name}, in the mount")

    def begin(self):
        self.fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        self.load = subprocess.Popen([sys.executable, FS_LOAD, os.path.join(self.root, "load"),
                                      str(self.world.seeds()), "2"], stderr=subprocess.PIPE, text=True)
        self.threads = [self.world.thread(f"{self.name} {number}", lambda number=number: self.step_on(number))
                        for number in range(STEPPERS)]

    def step_on(self, stepper):
        rng = self.world.rng()
        while not self.world.stop.is_set():
            self.step(rng.randrange(SLOTS) * STEPPERS + stepper, rng)

    def step(self, slot, rng):
        """What was answered is durable."""
        number = self.world.numbers() if rng.random() < 0.85 else 0
        path = os.path.join(self.root, f"slot{slot}")
        change = self.history.begin([slot], number, self.world.clock.now())
        if number:
            with open(f"{path}.new", "wb") as file:
                file.write(file_content(slot, number))
                file.flush()
                os.fsync(file.fileno())
            os.rename(f"{path}.new", path)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        os.fsync(self.fd)
        change.answered = self.world.clock.now()
        self.history.make_durable(self.world.clock.now())

    def grow(self, rng, resize):
        """The device; the file system is made larger where one that is mounted may be."""
        with self.growing:
            size = os.stat(self.path).st_size + rng.randint(1, 64) * BLOCK
            if not resize(self.path, size):
                return False
            run("losetup", "-c", self.loop.device)
            result = run("resize2fs", self.loop.device, check=False)
            assert result.returncode == 0 or "Permission denied" in result.stderr, result.stderr
            return True

    def end_load(self):
        if self.load:
            self.load.terminate()
            said = self.load.communicate(timeout=60)[1]
            assert self.load.returncode in (0, -signal.SIGTERM) or self.world.dying, said
        self.load = None
        for thread in self.threads:
            thread.join()
        self.threads = []

    def end(self):
        """No write has failed, be it one that nobody waited for."""
        self.end_load()
        if libc.syncfs(self.fd) != 0:
            raise AssertionError(f"{self.name}: syncfs: {os.strerror(ctypes.get_errno())}")
        self.close()
        name = os.path.basename(self.loop.device)
        assert file_bytes(f"/sys/fs/ext4/{name}/errors_count") == b"0\n", f"{self.name}: ext4 has met errors"
        self.expect_last(read_slots(self.root, self.name), "at the end")
        self.leave()
        run("e2fsck", "-fn", self.path)

    def leave(self):
        self.loop.detach()
        self.loop = None

    def close(self):
        if self.fd is not None:
            os.close(self.fd)
        self.fd = None

    def abandon(self):
        self.end_load()
        self.close()
        if self.loop:
            self.loop.finalise()
            self.loop = None

    def values_of(self, path, what):
        """PATH, a disk that was cut off: the journal brings it back."""
        with Loop(path) as loop:
            root = loop.mount(f"{self.root}-{threading.get_ident()}")
            values = read_slots(root, f"{self.name}, {what}")
        result = run("e2fsck", "-fn", path, check=False)
        assert result.returncode == 0, f"{self.name}, {what}: {result.stdout}"
        return values

    def read_image(self, image, what):
        with as_raw(self.world, image) as path:
            return self.values_of(path, what)
