"""Blocks that say which block and version they are, for crash tests.

A writer stamps each block it writes with a new version. What an fsync that
returned 0 covers must be there after a crash, or a newer version; older
versions, other blocks' data and mixtures must not be."""
import os
import struct
import threading

from harness import BLOCK, Aligned, discard, opened, process_ended, wait_until, write_all

STAMP = struct.Struct("<QQ")
SECTOR = 512
RUN_MAX = 24
FLUSH_EVERY = 8
ZEROS = bytes(BLOCK)


def stamp(block, version):
    return STAMP.pack(block + 1, version) * (BLOCK // STAMP.size)


class Ledger:
    """What each block may be: its states since the last one that is durable.

    A state is a version, negative when the block was discarded by it; 0 is
    zeros, the state of a fresh disk. The first state of a block is durable."""

    def __init__(self, blocks):
        self.blocks = blocks
        self.states = [[0] for _ in range(blocks)]
        self.version = 0

    def next_version(self):
        self.version += 1
        return self.version

    def begin(self, block, version):
        """To be called before the write or discard is issued."""
        self.states[block].append(version)

    def durable(self, block, version):
        """VERSION was complete when an fsync began that succeeded."""
        states = self.states[block]
        if version in states:
            del states[:states.index(version)]

    def explain(self, block, content):
        """The state that CONTENT is, or None when it must not be there."""
        first, version = STAMP.unpack_from(content)
        if first == 0:
            if content != ZEROS:
                return None
            return next((state for state in reversed(self.states[block]) if state <= 0), None)
        if version not in self.states[block] or content != stamp(block, version):
            return None
        return version

    def allowed_sector(self, block, sector):
        """Whether SECTOR may be part of BLOCK when a loss of power tore it."""
        return any(sector == bytes(SECTOR) if state <= 0 else sector == stamp(block, state)[:SECTOR]
                   for state in self.states[block])

    def is_torn_as_allowed(self, block, content):
        return all(self.allowed_sector(block, content[at:at + SECTOR]) for at in range(0, BLOCK, SECTOR))

    def settle_all(self, content, what, torn=False):
        """Every block is as it may be, and from now on what was found. TORN:
        power was lost, and a block that was being overwritten in place may be
        made of sectors of several of its states."""
        assert len(content) == self.blocks * BLOCK
        view = memoryview(content)
        for block in range(self.blocks):
            found = bytes(view[block * BLOCK:(block + 1) * BLOCK])
            state = self.explain(block, found)
            if state is not None:
                self.states[block] = [state]
            elif not torn or not self.is_torn_as_allowed(block, found):
                raise AssertionError(f"{what}: block {block} holds {describe(found)}, "
                                     f"expected one of {self.states[block]}")


def describe(content):
    first, version = STAMP.unpack_from(content)
    if first == 0:
        return "zeros" if content == bytes(BLOCK) else "zeros and something else"
    whole = "" if content == stamp(first - 1, version) else ", torn"
    return f"block {first - 1} version {version}{whole}"


class Writer:
    """Stamps its own blocks, every COUNT-th run of the disk, until it is told
    to stop or the disk goes away."""

    def __init__(self, ledger, path, rng, number=0, count=1, lock=None):
        self.ledger = ledger
        self.path = path
        self.rng = rng
        self.lock = lock or threading.Lock()
        self.own_first = ledger.blocks * number // count
        self.own_end = ledger.blocks * (number + 1) // count
        self.completed = {}
        self.errors = []
        self.on_durable = lambda completed: None

    def pick(self):
        length = self.rng.randint(1, self.rng.choice([1, 2, RUN_MAX]))
        first = self.rng.randrange(self.own_first, self.own_end)
        return range(first, min(first + length, self.own_end))

    def begin(self, blocks, sign):
        with self.lock:
            version = self.ledger.next_version()
            for block in blocks:
                self.ledger.begin(block, sign * version)
        return version

    def write(self, fd, memory):
        blocks = self.pick()
        version = self.begin(blocks, 1)
        data = b"".join(stamp(block, version) for block in blocks)
        if memory:
            memory.write(fd, data, blocks[0] * BLOCK)
        else:
            write_all(fd, data, blocks[0] * BLOCK)
        self.completed.update(dict.fromkeys(blocks, version))

    def discard(self, fd):
        blocks = self.pick()
        version = self.begin(blocks, -1)
        discard(fd, blocks[0] * BLOCK, len(blocks) * BLOCK)
        self.completed.update(dict.fromkeys(blocks, -version))

    def flush(self, fd):
        os.fsync(fd)
        self.all_durable()

    def all_durable(self):
        """What is complete can no longer be lost."""
        with self.lock:
            for block, version in self.completed.items():
                self.ledger.durable(block, version)
            self.on_durable(self.completed)
        self.completed = {}

    def step(self, fd, memory):
        chance = self.rng.random()
        if chance < 0.12:
            self.flush(fd)
        elif chance < 0.22:
            self.discard(fd)
        else:
            self.write(fd, memory)

    def run(self, stop, steps=None, direct=False):
        """Works until STOP is set, STEPS are done or an error comes. Counted
        steps are few: whatever the seed, every few of them are flushed."""
        flags = os.O_RDWR | (os.O_DIRECT if direct else 0)
        memory = Aligned(RUN_MAX * BLOCK) if direct else None
        try:
            with opened(self.path, flags) as fd:
                while not stop.is_set() and steps != 0:
                    self.step(fd, memory)
                    steps = steps and steps - 1
                    if steps and steps % FLUSH_EVERY == 0:
                        self.flush(fd)
        except OSError as error:
            self.errors.append(error)


def load(path, ledger, rng, count=3):
    """Starts writers; returns what stops them and waits."""
    stop, lock = threading.Event(), threading.Lock()
    writers = [Writer(ledger, path, type(rng)(rng.random()), number, count, lock) for number in range(count)]
    threads = [threading.Thread(target=writer.run, args=(stop,), kwargs={"direct": number % 2 == 1})
               for number, writer in enumerate(writers)]
    for thread in threads:
        thread.start()

    def finish():
        stop.set()
        for thread in threads:
            thread.join()
        return writers

    return finish


def await_random_moment(live, ledger, rng, seconds, least):
    """For nothing but time, and until the writers have made LEAST versions in all."""
    process_ended(live.pid, rng.uniform(0.01, seconds))
    wait_until(lambda: ledger.version > least or live.has_ended(), "the writers to write")
    assert not live.has_ended(), f"the daemon ended by itself\n{live.messages()}"


def read_disk(path, blocks):
    with open(path, "rb", buffering=0) as file:
        data = bytearray(blocks * BLOCK)
        view = memoryview(data)
        done = 0
        while done < len(data):
            count = file.readinto(view[done:])
            assert count, f"{path} ends after {done} bytes"
            done += count
    return data
