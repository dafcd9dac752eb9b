"""A guest that works in rounds, with a barrier behind each, and knows what its
disk was at every one: for crash tests of what is written back later.

Each block is stamped with the round that wrote it. Block 0 is written last, in
every round, so no state is like another: what is found after a crash is one of
them, whole, or it is a mixture."""
import itertools
import os
import threading

from harness import BLOCK, Aligned, discard, opened
from stamps import STAMP, ZEROS, describe, stamp

RUN_MAX = 10
RUNS_MAX = 5
# A round has fewer blocks than this.
ROUND_MAX = RUN_MAX * RUNS_MAX + 1


def rounds_of(content, what):
    """The round that each block is of; 0: zeros."""
    found = []
    for block in range(len(content) // BLOCK):
        data = bytes(content[block * BLOCK:(block + 1) * BLOCK])
        first, number = STAMP.unpack_from(data)
        number = number if first else 0
        if data != (stamp(block, number) if first else ZEROS):
            raise AssertionError(f"{what}: block {block} holds {describe(data)}")
        found.append(number)
    return tuple(found)


def difference(found, state):
    """For a message."""
    blocks = [block for block, pair in enumerate(zip(found, state)) if pair[0] != pair[1]]
    return ", ".join(f"{block}: {found[block]} for {state[block]}" for block in blocks[:8])


class Guest:
    """EXACT: the shared leaf is at a barrier of the guest's and nowhere else.
    Otherwise an epoch may be ended for it at any moment, as it is when room is
    short: then it is what the disk was at that moment."""

    def __init__(self, blocks, rng, exact=True):
        self.rng = rng
        self.exact = exact
        self.number = 0
        self.now = [0] * blocks
        self.states = [tuple(self.now)]
        self.durable = self.states[0]
        self.changes = []  # (block, round) since then, in order
        self.floor = 0  # the shared leaf has this state or a later one
        self.each_block = not exact
        self.lock = threading.Lock()
        # Held during a round. A program that is started meanwhile closes its
        # copy of the guest's descriptor, and a close is a barrier.
        self.round = threading.Lock()
        self.errors = []

    # ---- Its work --------------------------------------------------------

    def begin(self, blocks, number):
        """Before a request: its changes may be met from now on, in this order."""
        with self.lock:
            for block in blocks:
                self.changes.append((block, number))
                self.now[block] = number
                if self.each_block:
                    self.states.append(tuple(self.now))

    def change(self, fd, memory, blocks, zeros):
        self.begin(blocks, 0 if zeros else self.number)
        if zeros:
            discard(fd, blocks[0] * BLOCK, len(blocks) * BLOCK)
        else:
            memory.write(fd, b"".join(stamp(block, self.number) for block in blocks), blocks[0] * BLOCK)

    def choose(self):
        """Runs of blocks that do not overlap: their order says how far a round got."""
        taken = set()
        for _ in range(self.rng.randint(1, RUNS_MAX)):
            first = self.rng.randrange(1, len(self.now))
            run = range(first, min(first + self.rng.randint(1, RUN_MAX), len(self.now)))
            if taken.isdisjoint(run):
                taken.update(run)
                yield run

    def play_round(self, fd, memory):
        self.number += 1
        for run in self.choose():
            self.change(fd, memory, run, zeros=self.rng.random() < 0.15)
        self.change(fd, memory, range(1), zeros=False)
        with self.lock:
            self.states.append(tuple(self.now))
        os.fsync(fd)
        with self.lock:
            self.durable = tuple(self.now)
            self.changes = []
            self.each_block = not self.exact

    def written_back(self):
        """Somebody was told that nothing is dirty, and nothing came since."""
        self.floor = len(self.states) - 1

    def run(self, path, stop, rounds=None, after=lambda: None):
        """Rounds until STOP is set, ROUNDS are done or the disk goes away; AFTER
        each of them."""
        memory = Aligned(RUN_MAX * BLOCK)
        try:
            with opened(path, os.O_RDWR | os.O_DIRECT) as fd:
                for done in itertools.count():
                    if stop.is_set() or done == rounds:
                        break
                    with self.round:
                        self.play_round(fd, memory)
                    after()
        except OSError as error:
            self.errors.append(error)

    # ---- What is found ---------------------------------------------------

    def moment(self):
        """The states that a crash now may leave on the shared leaf."""
        with self.lock:
            return self.floor, len(self.states)

    def check_leaf(self, content, moment, what):
        """The shared leaf alone; the state that it has."""
        found = rounds_of(content, what)
        for index in range(moment[1] - 1, moment[0] - 1, -1):
            if self.states[index] == found:
                return index
        for index in range(moment[0] - 1, -1, -1):
            assert self.states[index] != found, f"{what}: round {found[0]} was written back, a later one before it"
        likely = next((state for state in self.states if state[0] == found[0]), self.states[0])
        raise AssertionError(f"{what}: no state of the disk, near round {found[0]}: {difference(found, likely)}")

    def settle(self, content, what):
        """With the cache: all that was flushed is there, then what came until
        some moment; from now on the disk is what was found."""
        found = rounds_of(content, what)
        state = list(self.durable)
        for block, number in [(0, state[0]), *self.changes]:
            state[block] = number
            if tuple(state) == found:
                break
        else:
            raise AssertionError(f"{what}: neither round {self.durable[0]} nor a beginning of the next: "
                                 f"{difference(found, self.durable)}")
        self.now = list(found)
        self.states.append(found)
        self.durable = found
        self.changes = []
        # The next mount may end the epoch that was cut off wherever it begins its work.
        self.each_block = True
