"""Lives of a disk in which one operation fails, once, and all works again after that.

Whatever was flushed is there in the end, in the mount and after an orderly end in the
image alone; nothing is older than that; and the disk beside it is served all the time. A
few lives of each kind here, all of them with LEAFDISK_TORTURE."""
import contextlib
import os
import random
import shutil
import subprocess

import pytest

from harness import (BLOCK, MIB, TORTURE, Aligned, Deadline, Mount, MountError, check_clean, converted, discard, faults,
                     leafctl, make_image, make_raw, opened, read_all, unmount)

SIZE = 2 * MIB
BLOCKS = SIZE // BLOCK
LIFE_SECONDS = 120
SAMPLE = 4  # lives of each kind

MODES = ["direct", "persistent", "writeback", "ephemeral"]
ENDS = ["kill", "stop"]
READING = ["EIO", "ETIMEDOUT", "ESTALE", "ENOMEM", "EMFILE"]
WRITING = ["EIO", "ENOSPC", "EDQUOT", "EROFS", "ESTALE", "ENOMEM"]
OPENING = ["EIO", "EMFILE", "ENOENT", "ESTALE", "EACCES", "ENOMEM"]
IMAGE, CACHE, RECORD, ANY = "image", "cache", "record", None
POINTS = [
    ("aio.read", IMAGE, READING), ("aio.write", IMAGE, [*WRITING, "short"]), ("aio.datasync", IMAGE, WRITING),
    ("aio.read", CACHE, READING), ("aio.write", CACHE, [*WRITING, "short"]), ("aio.datasync", CACHE, WRITING),
    ("aio.submit", ANY, ["EAGAIN", "EIO", "short"]),
    ("image.open", IMAGE, OPENING), ("image.read", IMAGE, READING), ("image.write", IMAGE, WRITING),
    ("image.sync", IMAGE, WRITING), ("image.extend", IMAGE, WRITING), ("image.rewrite", IMAGE, WRITING),
    ("image.stamp", IMAGE, READING),
    ("cache.read", CACHE, READING), ("cache.super", CACHE, WRITING),
    ("owner.read", RECORD, READING), ("owner.write", RECORD, WRITING), ("owner.rename", RECORD, WRITING),
    ("place.open", ANY, OPENING), ("thread.spawn", ANY, ["EAGAIN"]),
]
OCCURRENCES = 60


class Block:
    """What a block may read as: what was flushed, or what somebody tried to write since."""

    def __init__(self):
        self.values = [bytes(BLOCK)]
        self.acknowledged = 0  # of them, the last one

    def write(self, value):
        self.values.append(value)

    def acknowledge(self):
        self.acknowledged = len(self.values) - 1

    def flush(self):
        """What was refused may be there all the same."""
        del self.values[:self.acknowledged]
        self.acknowledged = 0

    def doubt(self):
        """After an error a flush that succeeds speaks for what is written from then on."""
        self.acknowledged = 0

    def settle(self, value):
        """It was read: whatever it was, it stays."""
        self.values, self.acknowledged = [value], 0


class Life:
    """Two disks, of which the first is written in several mounts, and what is known of it."""

    def __init__(self, work, mode, image, rng):
        self.work, self.mode, self.rng = work, mode, rng
        self.pool = os.path.join(work, "pool")
        os.makedirs(self.pool)
        self.images = [os.path.join(self.pool, name) for name in (image, image.replace("web1", "web2"))]
        for path in self.images:
            if path.endswith(".raw"):
                make_raw(path, bytes(SIZE))
            else:
                make_image(path, SIZE, chunk="64K")
        self.blocks = [Block() for _ in range(BLOCKS)]
        self.count = 0
        self.memory = Aligned(BLOCK)
        self.fired = os.path.join(work, "fired")

    def begin(self, env):
        options = ["io_timeout=1", f"mode={self.mode}"]
        if self.mode != "direct":
            options += [f"cache={os.path.join(self.work, 'leaf.cache')}", "cache_size=8M", "migrate_idle_ms=20"]
        return Mount(self.pool, self.work, options, env=env).start()

    def value(self):
        self.count += 1
        return self.count.to_bytes(8, "big") * (BLOCK // 8)

    def write_some(self, fd):
        number = self.rng.randrange(BLOCKS)
        value = self.value()
        self.blocks[number].write(value)
        self.memory.write(fd, value, number * BLOCK)
        self.blocks[number].acknowledge()

    def discard_some(self, fd):
        number = self.rng.randrange(BLOCKS - 4)
        for block in self.blocks[number:number + 4]:
            block.write(bytes(BLOCK))
        discard(fd, number * BLOCK, 4 * BLOCK)
        for block in self.blocks[number:number + 4]:
            block.acknowledge()

    def flush(self, fd):
        os.fsync(fd)
        for block in self.blocks:
            block.flush()

    def use(self, live):
        """What fails here may: that is the fault's doing."""
        for action in (self.write_some, self.write_some, self.flush, self.discard_some, self.write_some, self.flush,
                       self.write_some):
            try:
                with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
                    action(fd)
                    self.write_some(fd)
                    self.flush(fd)
            except OSError:
                for block in self.blocks:
                    block.doubt()

    def read_some(self, live):
        with contextlib.suppress(OSError), opened(live.file("web1.img"), os.O_RDONLY | os.O_DIRECT) as fd:
            for number in self.rng.sample(range(BLOCKS), 16):
                self.expect(number, self.memory.read(fd, BLOCK, number * BLOCK), "a read beside the fault")

    def use_other(self, live):
        """It may have an error of what is common to both; it is answered."""
        with contextlib.suppress(OSError), opened(live.file("web2.img"), os.O_RDWR | os.O_DIRECT) as fd:
            Aligned(BLOCK).write(fd, b"2" * BLOCK, 0)
            os.fsync(fd)

    def expect(self, number, found, what):
        if found not in self.blocks[number].values:
            raise AssertionError(f"{what}: block {number} is {found[:8].hex()}, not one of "
                                 f"{[value[:8].hex() for value in self.blocks[number].values]}")

    def expect_all(self, content, what):
        for number, block in enumerate(self.blocks):
            found = content[number * BLOCK:(number + 1) * BLOCK]
            self.expect(number, found, what)
            block.settle(found)

    def forget_all(self):
        """An ephemeral mount has ended."""
        if self.mode == "ephemeral":
            self.blocks = [Block() for _ in range(BLOCKS)]

    def spend(self, end, fault=None):
        """One mount, from its begin to its END."""
        env = {**faults(fault), "LEAFDISK_FAULTS_FIRED": self.fired} if fault else None
        try:
            live = self.begin(env)
        except MountError:
            assert fault, "a mount without a fault"
            return
        self.read_some(live)
        self.use(live)
        self.use_other(live)
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            if self.rng.random() < 0.5:
                leafctl("drain", live.path, check=False)
        self.use(live)
        self.end(live, end)
        self.forget_all()

    def end(self, live, end):
        if end == "kill":
            live.kill9()
            return
        unmount(live.path)
        status = live.wait()
        live.finalise()
        if status == 0:
            self.expect_image("an orderly end says that all is in the image")

    def tell(self):
        for name in sorted(os.listdir(self.work)):
            if name.endswith(".log"):
                with open(os.path.join(self.work, name), encoding="utf-8", errors="replace") as file:
                    print(f"--- {name}\n{file.read()}")

    def expect_image(self, what):
        if self.mode != "ephemeral":
            content = converted(self.images[0], self.work)
            for number in range(BLOCKS):
                self.expect(number, content[number * BLOCK:(number + 1) * BLOCK], what)

    def last(self):
        """Nothing fails any more."""
        live = self.begin(None)
        with opened(live.file("web1.img")) as fd:
            self.expect_all(read_all(fd, SIZE, 0), "in the end")
            self.write_some(fd)
            self.flush(fd)
            self.expect_all(read_all(fd, SIZE, 0), "what was written then")
        self.use_other(live)
        live.stop()
        self.expect_image("the last image")
        check_clean(*self.images)


def fault_of(point, kind, image, error, nth):
    subject = {IMAGE: f"/{image}", CACHE: "/leaf.cache", RECORD: f"/{image}", ANY: ""}[kind]
    return f"{point}{subject}:{error}@{nth}x1"


def live(work, mode, image, end, stage, fault, seed):
    """Whether the fault was met."""
    life = Life(work, mode, image, random.Random(seed))
    try:
        with Deadline(LIFE_SECONDS):
            life.spend(end, fault if stage == 0 else None)
            life.spend("stop", fault if stage == 1 else None)
            life.last()
    except Exception:
        life.tell()
        raise
    return os.path.exists(life.fired)


KINDS = [(end, stage, *point) for end in ENDS for stage in (0, 1) for point in POINTS]


class Lives:
    """Many, each in a pool of its own."""

    def __init__(self, work, mode, image):
        self.work, self.mode, self.image = work, mode, image
        self.met = self.lived = 0

    def live(self, end, stage, fault, seed):
        """Whether the fault was met."""
        inner = os.path.join(self.work, str(self.lived))
        self.lived += 1
        print(f"{self.mode} {self.image}: {fault} in mount {stage}, which ends by {end}; seed {seed}")
        met = live(inner, self.mode, self.image, end, stage, fault, seed)
        shutil.rmtree(inner)
        self.met += met
        return met

    def live_until_not_met(self, end, stage, point, kind, errors):
        for error in errors:
            for nth in range(1, OCCURRENCES):
                if not self.live(end, stage, fault_of(point, kind, self.image, error, nth), nth):
                    break

    def live_some(self, rng, kinds):
        for end, stage, point, kind, errors in kinds:
            fault = fault_of(point, kind, self.image, rng.choice(errors), rng.randint(1, 8))
            self.live(end, stage, fault, rng.randrange(1 << 32))


@pytest.mark.parametrize("image", ["web1.leaf", "web1.raw"])
@pytest.mark.parametrize("mode", MODES)
def test_one_operation_fails(work, mode, image, seed):
    rng = random.Random(seed)
    lives = Lives(work, mode, image)
    if TORTURE:
        for kind in KINDS:
            lives.live_until_not_met(*kind)
    else:
        lives.live_some(rng, rng.sample(KINDS, SAMPLE))
    print(f"{lives.lived} lives, {lives.met} with their fault")
