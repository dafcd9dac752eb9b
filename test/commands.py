"""Commands to running disks, at random, and what each of them must have left."""
import contextlib
import errno
import itertools
import math
import os
import time

from cuts import Part, expect_cut, expect_known
from harness import BLOCK, control_values, file_bytes, leafctl, opened, write_all

# Refusals that say to try again: a disk grows meanwhile or is paused, or the machine has much else to do.
TRY_AGAIN = ("its size was changed meanwhile; try again", "requests that are in work have no answer yet", "is paused",
             "cannot resize")
DONE, REFUSED, UNKNOWN = "done", "refused", "unknown"
# A write that waits for room in the cache goes back before the gate, and what it has put already is sealed.
WHOLE = False


class Seal:
    """A snapshot of DISKS, called TAG, or disks that are to be called NAMES, forked from one of them."""

    def __init__(self, world, disks, tag=None, names=()):
        self.world, self.disks, self.tag, self.names = world, disks, tag, list(names)
        self.histories = [disk.history for disk in disks]
        self.floors = [history.durable for history in self.histories]
        self.sent, self.answered = world.clock.now(), math.inf
        self.state = UNKNOWN
        self.below = None  # the image that the forks stand on
        self.used = []  # of NAMES: written since

    def answer(self, result):
        """What was sealed is durable."""
        answered = self.world.clock.now()
        self.state = DONE if result.returncode == 0 else UNKNOWN if self.world.dying else REFUSED
        if self.state == DONE:
            self.answered = answered
            self.floors = [self.sent] * len(self.disks)
            for disk, history in zip(self.disks, self.histories):
                history.make_durable(self.sent)
                disk.depth += 1

    # ---- What it left -------------------------------------------------------------

    @staticmethod
    def image_of_fork(pool, name):
        return os.path.join(pool, f"{name.removesuffix('.img')}.leaf")

    def sealed(self, pool, disk):
        paths = [os.path.join(pool, "snapshots", f"{disk.stem}@{self.tag}{suffix}") for suffix in (".leaf", ".raw")]
        return next((path for path in paths if os.path.exists(path)), paths[0])

    def images(self, pool):
        if self.names:
            return [self.image_of_fork(pool, name) for name in self.names]
        return [self.sealed(pool, disk) for disk in self.disks]

    def expect_all_or_nothing(self, pool):
        images = self.images(pool)
        there = [image for image in images if os.path.exists(image)]
        allowed = {DONE: [len(images)], REFUSED: [0], UNKNOWN: [0, len(images)]}
        assert len(there) in allowed[self.state], f"{self}: there is {there} of {images}"
        if self.state == UNKNOWN:
            self.state = DONE if there else REFUSED

    def expect(self, values):
        """What the disks have there. One that was not answered has at least what was durable."""
        parts = [Part(f"{disk.name}, {self}", history, found, floor)
                 for disk, history, found, floor in zip(self.disks, self.histories, values, self.floors)]
        if math.isinf(self.answered):
            for part in parts:
                expect_known(part)
        else:
            expect_cut(parts, self.answered, WHOLE)
        for part, history in zip(parts, self.histories):
            if history.left:
                part.expect_not_after(history.left)

    def verify(self, pool):
        """When all is in the pool."""
        if self.state != DONE:
            return
        if not self.names:
            self.expect([disk.read_image(self.sealed(pool, disk), str(self)) for disk in self.disks])
            return
        below = [self.below] if self.below else []
        for image in [*below, *(self.image_of_fork(pool, name) for name in self.names if name not in self.used)]:
            self.expect([self.disks[0].read_image(image, str(self))])

    def __str__(self):
        names = " ".join(disk.name for disk in self.disks)
        what = f"fork {names} {' '.join(self.names)}" if self.names else f"snapshot {names} {self.tag}"
        return f"{what} ({self.state}, {self.sent} to {self.answered})"


class Limits:
    """Of one pool: how long chains get, how many disks are in use, how many file systems are looked at."""

    def __init__(self, depth, blocks, files, looks):
        self.depth, self.most, self.looks = depth, {"blocks": blocks, "files": files}, looks


class Operator:
    """Whoever types commands; several do at once."""

    numbers = itertools.count(1).__next__

    def __init__(self, world, live, pool, limits, pause):
        self.world, self.live, self.pool, self.limits, self.pause = world, live, pool, limits, pause
        self.rng = world.rng()
        self.modes = ["direct", "persistent", "writeback"] if "cache" in " ".join(live.options) else []
        self.counts = dict.fromkeys((kind.__name__ for kind in self.weights()), 0)

    def weights(self):
        weights = {self.snapshot: 6, self.group: 6, self.fork: 3, self.rewind: 2, self.grow: 2, self.drain: 1,
                   self.hold: 1, self.look: 1}
        if self.modes:
            weights.update({self.mode: 3, self.tune: 1})
        return weights

    def run(self):
        """Each kind once, and then at random."""
        weights = self.weights()
        first = self.rng.sample(list(weights), len(weights))
        while not self.world.stop.is_set():
            kind = first.pop() if first else self.rng.choices(list(weights), list(weights.values()))[0]
            if kind():
                self.counts[kind.__name__] += 1
            time.sleep(self.rng.uniform(0, self.pause))

    # ---- One of them ---------------------------------------------------------------

    def disks(self, kinds=("blocks", "files")):
        """Those that may be sealed once more."""
        if self.limits.looks <= 0:
            kinds = ("blocks",)
        return [disk for disk in self.world.disks if disk.depth < self.limits.depth and disk.kind in kinds]

    def sent(self):
        """For whoever wants to kill the daemon meanwhile."""
        self.world.sending.set()

    def command(self, *words):
        """Done, or refused with good reason."""
        self.sent()
        result = leafctl(*words, check=False)
        if result.returncode != 0 and not self.world.dying and not any(text in result.stderr for text in TRY_AGAIN):
            raise AssertionError(f"leafctl {' '.join(words)}: {result.stderr}")
        return result

    def seal(self, seal, *words):
        self.world.seals.append(seal)
        self.limits.looks -= sum(disk.kind == "files" for disk in seal.disks)
        seal.answer(self.command(*words))
        if seal.state == REFUSED:
            seal.expect_all_or_nothing(self.pool)
        return seal.state == DONE

    def snapshot(self):
        disks = self.disks()
        return bool(disks) and self.take([self.rng.choice(disks)])

    def group(self):
        disks = self.disks()
        return len(disks) > 1 and self.take(self.rng.sample(disks, self.rng.randint(2, len(disks))))

    def take(self, disks):
        tag = f"s{self.numbers()}"
        return self.seal(Seal(self.world, disks, tag), "snapshot", *(disk.path for disk in disks), tag)

    def fork(self):
        disks = self.disks()
        if not disks:
            return False
        disk = self.rng.choice(disks)
        names = [f"c{self.numbers()}.img" for _ in range(self.rng.randint(1, 2))]
        seal = Seal(self.world, [disk], names=names)
        if not self.seal(seal, "fork", disk.path, *names):
            return False
        chain = file_bytes(self.live.control("disks", names[0], "chain")).decode().splitlines()
        seal.below = chain[1].split()[0]
        if sum(other.kind == disk.kind for other in self.world.disks) < self.limits.most[disk.kind]:
            self.use(seal, disk, names[0])
        return True

    def use(self, seal, source, name):
        """A guest of the fork's own, which goes on from what it has."""
        seal.used.append(name)
        disk = source.another(name)
        try:
            values = disk.enter(self.live)
            seal.expect([values])
            disk.begin_history(values)
            disk.begin()
        except BaseException:
            disk.abandon()
            raise
        disk.depth = source.depth
        self.world.disks.append(disk)

    def rewind(self):
        """A fork that only this operator uses: there and back between two snapshots, of which the later one is deleted
        in the end."""
        disks = self.disks(("blocks",))
        if not disks:
            return False
        disk, name = self.rng.choice(disks), f"r{self.numbers()}.img"
        disk.depth += 1
        try:
            return self.command("fork", disk.path, name).returncode == 0 and self.go_round(self.live.file(name))
        except OSError:
            if not self.world.dying:
                raise
            return False

    def go_round(self, path):
        contents = {}
        for tag in ("a", "b"):
            contents[tag] = self.scribble(path)
            if self.command("snapshot", path, tag).returncode != 0:
                return False
        for tag in ("a", "b", "a"):
            self.scribble(path)
            if self.command("revert", path, tag).returncode != 0:
                return False
            assert file_bytes(path) == contents[tag], f"{path} was reverted to {tag}"
        deleted = self.command("delete", path, "b").returncode == 0
        assert file_bytes(path) == contents["a"], f"{path} when a later snapshot was deleted"
        return deleted

    def scribble(self, path):
        """Its content then."""
        size = os.stat(path).st_size
        with opened(path) as fd:
            for _ in range(3):
                offset = self.rng.randrange(size // BLOCK) * BLOCK
                write_all(fd, self.rng.randbytes(BLOCK), offset)
        return file_bytes(path)

    def mode(self):
        disk = self.rng.choice(self.world.disks)
        return self.command("mode", disk.path, self.rng.choice(self.modes)).returncode == 0

    def grow(self):
        def by_truncate(path, size):
            try:
                os.truncate(path, size)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                return False
            return True

        def by_leafctl(path, size):
            return self.command("resize", path, str(size)).returncode == 0

        self.sent()
        return self.rng.choice(self.world.disks).grow(self.rng, self.rng.choice([by_truncate, by_leafctl]))

    def drain(self):
        path = self.rng.choice([self.live.path, self.rng.choice(self.world.disks).path])
        return self.command("drain", path).returncode == 0

    def hold(self):
        return self.command("pause", self.rng.choice(self.world.disks).path, "sleep", "0.02").returncode == 0

    def tune(self):
        return self.command("set", self.live.path, f"migrate_idle_ms={self.rng.choice([1, 50, 60000])}",
                            f"max_dirty_age={self.rng.choice([1, 86400])}").returncode == 0

    def look(self):
        """All that were taken are listed."""
        taken = [seal for seal in self.world.seals if seal.state == DONE and seal.tag]
        listed = self.command("snapshots", self.live.path)
        if listed.returncode == 0:
            rows = {tuple(line.split()[:2]) for line in listed.stdout.splitlines()}
            for seal in taken:
                for disk in seal.disks:
                    assert (disk.name, seal.tag) in rows, f"{seal} is not listed:\n{listed.stdout}"
        for disk in self.world.disks:
            with contextlib.suppress(OSError):
                control_values(self.live, "disks", disk.name, "state")
        return listed.returncode == 0
