"""Disks that are sealed, forked, grown and given other modes at random while guests use them.

No guest has an error, and what was sealed is what the disks were at one moment of the command: also when the daemon is
killed meanwhile, where each command has done all or nothing. In `make torture` LEAFDISK_TORTURE_SECONDS (600) for each
test."""
import os
import shutil
import time

import pytest

from commands import Limits, Operator
from cuts import History, Part, expect_cut, expect_known
from guests import WRITERS, BlockDisk, FileDisk, World, Writer
from harness import TORTURE, Mount, leafctl, process_ended, scaled, wait_until

SECONDS = int(os.environ.get("LEAFDISK_TORTURE_SECONDS", 600)) if TORTURE else 0
MODES = ["direct", "persistent", "writeback"]
KINDS = ["leaf", "raw", "child"]
OPERATORS = 2


class Pool:
    """Disks with their guests."""

    def __init__(self, work, rng, mode, blocks, files):
        self.work, self.rng, self.mode = work, rng, mode
        os.mkdir(work)
        self.path = os.path.join(work, "pool")
        os.mkdir(self.path)
        self.world = World(work, rng)
        kinds = rng.sample(KINDS, len(KINDS))
        for number in range(blocks):
            self.world.disks.append(BlockDisk.make(self.world, self.path, f"web{number}", kinds[number % len(kinds)],
                                                   256, 512))
        for number in range(files):
            self.world.disks.append(FileDisk.make(self.world, self.path, f"fs{number}", kinds[-1 - number], "24M"))

    def start(self, mode=None):
        options = ["manage", f"threads={self.rng.choice([1, 2])}", f"mode={mode or self.mode}"]
        if self.mode != "direct":
            options += [f"cache={self.work}/leaf.cache", f"cache_size={self.rng.choice(['8M', '16M', '64M'])}",
                        f"migrate_idle_ms={self.rng.choice([1, 20, 60000])}",
                        f"max_dirty_age={self.rng.choice([1, 86400])}"]
        print(f"mount with {' '.join(options)}")
        return Mount(self.path, self.work, options).start()

    def enter(self, live, expect):
        """All disks are what EXPECT(disk, values) says, and their guests begin."""
        for disk in self.world.disks:
            values = disk.enter(live)
            expect(disk, values)
            disk.history.left = values
            disk.begin_history(values)
        self.world.stop.clear()
        for disk in self.world.disks:
            disk.begin()

    def work_on(self, live, limits, pause):
        """Threads, which end when the world stops, and the operators among them."""
        writers = [Writer(self.world, number) for number in range(WRITERS)]
        operators = [Operator(self.world, live, self.path, limits, pause) for _ in range(OPERATORS)]
        return [self.world.thread(f"{type(one).__name__} {number}", one.run)
                for number, one in enumerate([*writers, *operators])], operators, writers

    def make_temporaries_old(self):
        """Those of owner records, which the next mount removes if nobody can be writing them any more."""
        for directory, _, names in os.walk(self.path):
            for name in names:
                if name.startswith(".new-"):
                    os.utime(os.path.join(directory, name), (0, 0))

    def expect_nothing_left(self):
        """Nothing besides images and what belongs to them."""
        changes = os.path.join(self.path, ".leafdisk", "changes")
        left = [os.path.join(changes, name) for name in (os.listdir(changes) if os.path.isdir(changes) else [])]
        for directory, directories, names in os.walk(self.path):
            left += [os.path.join(directory, name) for name in [*names, *directories]
                     if name.startswith(".") and name != ".leafdisk"]
        assert not left, left

    def verify_images(self):
        """All is in the pool."""
        said = leafctl("check", self.path, check=False)
        assert said.returncode == 0, f"{said.stdout}{said.stderr}"
        if self.mode != "direct":
            leafctl("cache", "check", os.path.join(self.work, "leaf.cache"))
        self.expect_nothing_left()
        for seal in self.world.seals:
            seal.expect_all_or_nothing(self.path)
            seal.verify(self.path)


def two_histories():
    """Of two disks with two cells each: one request after the other, a larger one, and one without an answer."""
    histories = [History([0, 0]), History([0, 0])]
    for order, (disk, cells, value) in enumerate([(0, [0], 1), (1, [0], 2), (0, [0, 1], 3), (1, [0], 0), (1, [0], 4)]):
        change = histories[disk].begin(cells, value, 10 * order + 10)
        change.answered = 10 * order + 15
    histories[1].begin([1], 5, 60)
    return histories


@pytest.mark.parametrize("first,second,good", [
    ([0, 0], [0, 0], True), ([1, 0], [0, 0], True), ([1, 0], [2, 0], True), ([3, 3], [2, 0], True),
    ([3, 3], [0, 0], True), ([3, 3], [4, 0], True), ([3, 3], [4, 5], True), ([3, 3], [0, 5], False),
    ([0, 0], [2, 0], False), ([3, 0], [2, 0], False), ([1, 0], [4, 0], False), ([1, 0], [2, 5], False),
    ([7, 0], [0, 0], False), ([3, 3], [2, 2], False)])
def test_what_is_no_cut_is_found(first, second, good):
    parts = [Part(name, history, values, 0)
             for name, history, values in zip(("one", "two"), two_histories(), (first, second))]
    if good:
        expect_cut(parts, 100)
    else:
        with pytest.raises(AssertionError):
            expect_cut(parts, 100)


def test_a_cut_at_another_time_is_found():
    """Before the command was sent, or after it was answered."""
    for values, floor, ceiling, good in (([1, 0], 20, 100, True), ([1, 0], 36, 100, False), ([3, 3], 36, 31, True),
                                         ([3, 3], 36, 30, False)):
        part = Part("one", two_histories()[0], values, floor)
        if good:
            expect_cut([part], ceiling)
        else:
            with pytest.raises(AssertionError):
                expect_cut([part], ceiling)


def expect_last(disk, values):
    disk.expect_last(values, "after a mount")


def counted(operators):
    return {kind: sum(operator.counts[kind] for operator in operators) for kind in operators[0].counts}


def live_once(pool, limits, seconds, pause):
    """One mount, without a failure."""
    world = pool.world
    with pool.start() as live:
        try:
            pool.enter(live, expect_last)
            threads, operators, writers = pool.work_on(live, limits, pause)
            world.stop.wait(seconds)
            wait_until(lambda: world.stop.is_set() or all(counted(operators).values()),
                       lambda: f"each kind of command, not {counted(operators)}")
            world.stop.set()
            for thread in threads:
                thread.join()
            world.expect_no_errors(live)
            for disk in world.disks:
                disk.end()
            world.expect_no_errors(live)
        except BaseException:
            print(f"the daemon says:\n{live.messages()[-4000:]}")
            world.dying = True
            world.stop.set()
            live.kill()
            for disk in world.disks:
                disk.abandon()
            raise
    print(f"{counted(operators)}; {world.numbers()} writes, the slowest {max(w.slowest for w in writers):.2f} s")
    return operators


def in_time(seconds):
    """Numbers, until SECONDS are over; at least one."""
    end, number = time.monotonic() + seconds, 0
    while number == 0 or time.monotonic() < end:
        yield number
        number += 1


@pytest.mark.parametrize("mode", MODES)
def test_changed_at_random(work, rng, mode):
    """While nothing fails."""
    for number in in_time(SECONDS):
        pool = Pool(os.path.join(work, f"round{number}"), rng, mode, scaled(2, 3), scaled(1, 2))
        limits = Limits(scaled(20, 120), scaled(4, 6), scaled(2, 4), scaled(3, 40))
        live_once(pool, limits, scaled(1, rng.uniform(5, 30)), scaled(0.02, rng.choice([0.02, 0.2])))
        pool.verify_images()
        with pool.start() as live:
            for disk in pool.world.disks:
                disk.expect_last(disk.enter(live), "after a mount")
                disk.leave()
        shutil.rmtree(pool.work)


def expect_after_crash(disk, values):
    """The kernel may call good what it was asked to flush when the daemon was gone."""
    floor = min(disk.history.durable, disk.world.killed)
    expect_known(Part(f"{disk.name}, after a crash", disk.history, values, floor))


def crash(world, live, threads, rng):
    """At a moment of its own, or while a command is under way."""
    process_ended(live.pid, rng.uniform(0.02, scaled(0.3, 1)))
    if rng.random() < 0.7:
        world.sending.clear()
        world.sending.wait(1)
        process_ended(live.pid, rng.uniform(0, rng.choice([0.005, 0.03])))
    world.dying = not live.has_ended()
    world.killed = world.clock.now()
    live.kill()
    world.stop.set()
    for thread in threads:
        thread.join()


def live_and_die(pool, limits, pause):
    world, rng = pool.world, pool.rng
    live = pool.start(rng.choice(MODES) if pool.mode != "direct" and rng.random() < 0.2 else None)
    try:
        for seal in world.seals:
            seal.expect_all_or_nothing(pool.path)
        pool.enter(live, expect_after_crash)
        threads, operators, _ = pool.work_on(live, limits, pause)
        crash(world, live, threads, rng)
    except BaseException:
        print(f"the daemon says:\n{live.messages()[-4000:]}")
        world.dying = True
        world.stop.set()
        raise
    finally:
        live.kill()
        for disk in world.disks:
            disk.abandon()
        live.kill9()
    world.expect_no_errors(live)
    world.dying = False
    print(f"killed after {world.clock.now()}: {counted(operators)}; the daemon said:\n{live.messages()}")


@pytest.mark.parametrize("mode", MODES)
def test_killed_at_random(work, rng, mode):
    """The daemon: what was flushed is there, and each command has done all that it was to do, or nothing."""
    for number in in_time(SECONDS):
        pool = Pool(os.path.join(work, f"round{number}"), rng, mode, scaled(2, 3), scaled(0, 1))
        limits = Limits(scaled(20, 120), scaled(4, 6), scaled(0, 2), scaled(3, 20))
        for _ in range(scaled(5, rng.randint(5, 20))):
            live_and_die(pool, limits, scaled(0.02, rng.choice([0.005, 0.02, 0.2])))
        pool.make_temporaries_old()
        with pool.start() as live:
            pool.enter(live, expect_after_crash)
            pool.world.stop.set()
            for disk in pool.world.disks:
                disk.end()
            leafctl("drain", live.path)
        pool.verify_images()
        shutil.rmtree(pool.work)
