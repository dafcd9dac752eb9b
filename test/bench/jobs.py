"""The jobs: what is measured, on which stage, and in which figures."""
import contextlib
import os
import statistics
import time
from dataclasses import dataclass, replace

import accounting
import fio
import source_tree
import served as served_disks
from programs import Broken, run
from stages import (CACHED, CLONE, EIGHT, EIGHT_WRITTEN, FRESH, OUTRUN, TREE, WRITTEN, Stage,
                    small_cache_bytes)

MIB = 1 << 20
UNPACKED = "unpacked"
WORK_SECONDS = 600
SETTLE_SECONDS = 1
BLOCK = 4096
DELAYS_MS = (1, 10)
CLONES = 20
UNTAR_DELAY_MS = 10
SERIES_MS = 100
SUSTAINED = 4   # times the small cache, once it is full
BURST = 2
LAYERS = 16  # of a long chain
DISKS = 2000  # of a large pool
FEW_DISKS = 10
NEW_DISKS = 20  # in a sample
PARTS = 8   # of the size: over a slow store it would take long to make all of it warm


@dataclass(frozen=True)
class Figure:
    unit: str
    heading: str
    better: str


FIGURES = {
    "iops": Figure("iops", "operations per second", "more"),
    "mib_s": Figure("MiB/s", "throughput, MiB/s", "more"),
    "kept": Figure("times", "rate kept while others are in trouble, times that alone", "more"),
    "stall": Figure("ms", "longest time without a completed write, ms", "less"),
    "seconds": Figure("s", "seconds", "less"),
    "cpu": Figure("s/GiB", "CPU seconds of the daemon per GiB", "less"),
    "listed": Figure("s", "seconds until ls shows all disks", "less"),
    "kib_shown": Figure("KiB", "memory for each disk that is shown, KiB (RSS)", "less"),
    "kib_opened": Figure("KiB", "and more for each that is open, KiB (RSS)", "less"),
    "pss": Figure("MiB", "memory of the daemon, MiB (PSS)", "less"),
    "rss": Figure("MiB", "memory of the daemon, MiB (RSS)", "less"),
    "first": Figure("s", "seconds for the first clone", "less"),
    "others": Figure("s", "seconds for each other clone, median", "less"),
    "gain": Figure("times", "the first clone's time over that of the others", "more"),
    "pause": Figure("ms", "longest write during a snapshot, ms, median of the tries", "less"),
    "pause_p99": Figure("ms", "longest write during a snapshot, ms, 99th percentile", "less"),
    "usual": Figure("ms", "longest write in 10 ms without one, ms, median", "less"),
    "verb": Figure("ms", "time of the command, ms, median", "less"),
    "ms": Figure("ms", "milliseconds, median", "less"),
    "ms_last": Figure("ms", "milliseconds, the last one", "less"),
    "wakeups": Figure("1/s", "wake-ups of the daemon per second, idle", "less"),
}


@dataclass(frozen=True)
class Job:
    name: str
    title: str
    stage: Stage
    loop: bool = False          # through a loop device on the disk
    on_overlay: bool = False    # overlayfs can do the same
    flushes: bool = False       # means nothing where a flush promises nothing
    daemon: bool = False        # is about the daemon, where there is one
    long: bool = False          # not with --quick
    over_store: bool = False    # is about a slow store, with it or for comparison
    with_cache: bool = False    # is also for what has a cache of its own
    quick_cache: bool = False   # with --quick too
    writeback: bool = False     # is also for writeback mode
    peers: bool = True          # is for every other system that can do it
    only_cache: bool = False    # means nothing without a cache
    ours: bool = False          # is for leafdisk's modes alone
    live: bool = False          # has a disk sealed while it runs

    def writes(self):
        return False


@dataclass(frozen=True)
class FioJob(Job):
    pattern: str = "randread"
    block: str = "4k"
    depth: int = 1
    figure: str = "iops"
    options: tuple = ()

    def fio_options(self):
        return (f"--rw={self.pattern}", f"--bs={self.block}", f"--iodepth={self.depth}", *fio.DIRECT,
                *self.options)

    def measure(self, rig, system):
        with rig.stages.ready(system, self.stage) as served:
            if not self.loop:
                return self.measure_paths(rig, served, served.disks)
            with served_disks.loop_device(served.disks[0]) as device:
                return self.measure_paths(rig, served, [device])

    def measure_paths(self, rig, served, paths):
        before = accounting.cpu_seconds(served.pids)
        result = fio.measure(paths, self.stage.length(rig.size), rig.seconds, self.fio_options())
        used = accounting.cpu_seconds(served.pids) - before
        figures = {self.figure: result[self.figure]}
        if served.pids and self.counts_cpu():
            figures["cpu"] = used / result["gib"]
        return figures

    def counts_cpu(self):
        return True

    def writes(self):
        return "read" not in self.pattern


@dataclass(frozen=True)
class CacheReadJob(FioJob):
    """Random reads of a disk, or a part of it. Either all of it is in the cache, and
    the sample counts only if nothing came from the layers; or nothing is, as the
    cache is new and no block is read twice."""

    def measure_paths(self, rig, served, paths):
        before = served.counters()
        figures = super().measure_paths(rig, served, paths)
        after = served.counters()
        which = "cache_hits" if self.stage.fresh else "cache_fetched_blocks"
        if after.get(which, 0) != before.get(which, 0):
            raise Broken(f"the cache is not {'cold' if self.stage.fresh else 'warm'}: {which} went from "
                         f"{before[which]} to {after[which]}")
        return figures


@dataclass(frozen=True)
class ClonesJob(Job):
    """Clones of one base, read one after the other. With a cache each block of
    the base is fetched once."""

    def measure(self, rig, system):
        with rig.stages.ready(system, self.stage) as served:
            length = self.stage.length(rig.size)
            seconds = [self.read(disk, length) for disk in served.disks]
            if system.cached and served.counters()["cache_fetched_blocks"] != length // BLOCK:
                raise Broken(f"{served.counters()['cache_fetched_blocks']} blocks were fetched for {length // BLOCK}")
            others = statistics.median(seconds[1:])
            return {"first": seconds[0], "others": others, "gain": seconds[0] / others}

    @staticmethod
    def read(disk, length):
        begin = time.monotonic()
        run("dd", "status=none", "iflag=direct", "bs=1M", f"count={length // MIB}", f"if={disk}", "of=/dev/null",
            timeout=WORK_SECONDS)
        return time.monotonic() - begin


@dataclass(frozen=True)
class RereadJob(FioJob):
    """From the page cache of the mount, which a first reading has filled."""

    def fio_options(self):
        return (f"--rw={self.pattern}", f"--bs={self.block}", "--ioengine=psync", "--invalidate=0", *self.options)

    def measure_paths(self, rig, served, paths):
        for path in paths:
            run("dd", "status=none", "bs=1M", f"if={path}", "of=/dev/null", timeout=WORK_SECONDS)
        return super().measure_paths(rig, served, paths)

    def counts_cpu(self):
        return False    # what is measured does not reach the daemon


@dataclass(frozen=True)
class SustainedJob(FioJob):
    """Writes that go on after a cache is full of them: as many bytes as it has are
    written first, and what comes then is measured."""

    def measure_paths(self, rig, served, paths):
        count, length = small_cache_bytes(rig.size), self.stage.length(rig.size)
        fio.measure_written(paths[0], length, count, self.fio_options())
        return {self.figure: fio.measure_written(paths[0], length, SUSTAINED * count, self.fio_options())[self.figure]}

    def counts_cpu(self):
        return False    # of what is written, a part is still to be written back


@dataclass(frozen=True)
class BurstJob(SustainedJob):
    """Writes until a cache is full, and goes on; how evenly they complete."""

    def measure_paths(self, rig, served, paths):
        prefix = os.path.join(served.directory, "burst")
        served.remove("burst_bw.log")   # fio would add to it
        options = (*self.fio_options(), f"--write_bw_log={prefix}", "--per_job_logs=0")
        count = BURST * small_cache_bytes(rig.size)
        result = fio.measure_written(paths[0], self.stage.length(rig.size), count, options)
        completions = fio.completions(f"{prefix}_bw.log")
        if sum(size for _, size in completions) != count:
            raise Broken(f"{prefix}_bw.log does not have all the {count} bytes that were written")
        return {"mib_s": result["mib_s"], "stall": longest_gap(completions),
                f"bytes in each {SERIES_MS} ms": in_intervals(completions)}


def longest_gap(completions):
    """In ms. The first one is waited for, too."""
    times = [0, *(at for at, _ in completions)]
    return max(after - before for before, after in zip(times, times[1:]))


def in_intervals(completions):
    sums = [0] * (completions[-1][0] // SERIES_MS + 1)
    for at, size in completions:
        sums[at // SERIES_MS] += size
    return sums


@dataclass(frozen=True)
class UntarJob(Job):
    """Until it is all on the disk, on a fresh clone."""

    def measure(self, rig, system):
        with rig.stages.ready(system, self.stage) as served:
            return {"seconds": self.unpack(rig, served.file_system())}

    @staticmethod
    def unpack(rig, root):
        target = os.path.join(root, UNPACKED)
        os.mkdir(target)
        begin = time.monotonic()
        run("tar", "-C", target, "-xf", rig.storage.archive, timeout=WORK_SECONDS)
        run("sync", "-f", target, timeout=WORK_SECONDS)
        return time.monotonic() - begin


@dataclass(frozen=True)
class StoreUntarJob(UntarJob):
    """The same in a pool that is slow; and what is in the pool once it is drained
    must be what was unpacked. The second mount has a cache that is empty, and the
    pool without the delay."""

    def measure(self, rig, system):
        with rig.stages.fresh_images(system, self.stage) as (images, directory):
            with rig.stages.serve(system, self.stage, images, directory) as served:
                with rig.stages.sampled(served, self.stage), served.file_system_for_now() as root:
                    seconds = self.unpack(rig, root)
                    self.check_tree(rig, root, "the mount that unpacked it")
                system.drain(served)
            self.check_pool(rig, system, images, directory)
        return {"seconds": seconds}

    def check_pool(self, rig, system, images, directory):
        place = os.path.join(directory, "again")
        os.mkdir(place)
        with system.serve(replace(self.stage, pool_delay_ms=0), rig.storage, images, place) as served:
            served.check_live()
            with served.file_system_for_now() as root:
                self.check_tree(rig, root, "a second mount with another cache")

    @staticmethod
    def check_tree(rig, root, where):
        found = source_tree.digest(os.path.join(root, UNPACKED, source_tree.NAME))
        if found != rig.storage.archive_digest:
            raise Broken(f"{where} does not show what the archive has: the tree's digest is {found}, "
                         f"and not {rig.storage.archive_digest}")


@dataclass(frozen=True)
class GitStatusJob(Job):
    """With no page of the file system or of the images in memory."""

    def measure(self, rig, system):
        with rig.stages.ready(system, self.stage) as served:
            repository = os.path.join(served.file_system(), source_tree.NAME)
            begin = time.monotonic()
            changes = source_tree.git(repository, "status", "--porcelain")
            seconds = time.monotonic() - begin
            if changes:
                raise Broken(f"git status finds changes where there are none: {changes[:100]}")
            return {"seconds": seconds}


@dataclass(frozen=True)
class MountJob(Job):
    """From the daemon's start until its mount lists all disks, and until each has
    been looked at with stat."""

    def measure(self, rig, system):
        images, directory = rig.stages.images(system, self.stage)
        begin = time.monotonic()
        with system.serve(self.stage, rig.storage, images, directory) as served:
            figures = {"listed": time.monotonic() - begin} if served.list_disks() else {}
            served.check_live()
            figures["seconds"] = time.monotonic() - begin
            return {**figures, "pss": accounting.memory_bytes(served.pids, "Pss") / MIB,
                    "rss": accounting.memory_bytes(served.pids, "Rss") / MIB}


@dataclass(frozen=True)
class NewDiskJob(Job):
    """From the start of `leafctl clone` until the first byte of the new disk has been read at the mount."""

    def measure(self, rig, system):
        images, directory = rig.stages.images(system, self.stage)
        with system.serve(self.stage, rig.storage, images, directory) as served:
            served.check_live()
            return {"seconds": statistics.median(self.make(rig, system, served, images, number)
                                                 for number in range(NEW_DISKS))}

    def make(self, rig, system, served, images, number):
        name = f"new{number}"
        image = os.path.join(os.path.dirname(images[0]), name + system.suffix)
        begin = time.monotonic()
        system.clone(rig.storage.base(self.stage), [image])
        with open(os.path.join(os.path.dirname(served.disks[0]), f"{name}.img"), "rb", buffering=0) as file:
            count = len(file.read(1))
        seconds = time.monotonic() - begin
        os.unlink(image)
        if count != 1:
            raise Broken(f"{name} has not one byte")
        return seconds


@dataclass(frozen=True)
class MemoryJob(Job):
    """What a disk adds to the daemon: to the memory with one disk when it is shown,
    and to that when it is opened and read from."""

    def measure(self, rig, system):
        with self.shown(rig, system, replace(self.stage, disks=1)) as served:
            one = self.resident(served)
        with self.shown(rig, system, self.stage) as served:
            idle = self.resident(served)
            with served.held_open(self.stage.disks):
                opened = self.resident(served)
        return {"kib_shown": (idle - one) / (self.stage.disks - 1), "kib_opened": (opened - idle) / self.stage.disks}

    @staticmethod
    @contextlib.contextmanager
    def shown(rig, system, stage):
        images, directory = rig.stages.images(system, stage)
        with system.serve(stage, rig.storage, images, directory) as served:
            served.check_live()
            yield served

    @staticmethod
    def resident(served):
        return accounting.memory_bytes(served.pids, "Rss") / accounting.KIB


@dataclass(frozen=True)
class IdleJob(Job):
    """With the disk open and read from once, as an idle guest has it."""

    def measure(self, rig, system):
        with rig.stages.ready(system, self.stage) as served:
            with served.held_open():
                time.sleep(SETTLE_SECONDS)
                before = accounting.wakeups(served.pids)
                time.sleep(rig.idle_seconds)
                count = accounting.wakeups(served.pids) - before
            return {"wakeups": count / rig.idle_seconds}


STEADY = ("--time_based", "--norandommap")


def four_kib_jobs():
    """What is measured on a file and again through a loop device."""
    for depth in (1, 32):
        yield FioJob(f"read-{depth}", f"4 KiB random read, depth {depth}", CLONE, with_cache=True, depth=depth,
                     options=STEADY)
    for depth in (1, 32):
        yield FioJob(f"first-write-{depth}", f"4 KiB first write, depth {depth}", FRESH, with_cache=True,
                     writeback=True, pattern="randwrite", depth=depth)
    for depth in (1, 32):
        yield FioJob(f"overwrite-{depth}", f"4 KiB random overwrite, depth {depth}", WRITTEN, with_cache=True,
                     writeback=True, pattern="randwrite", depth=depth, options=STEADY)
    yield FioJob("fsync", "4 KiB overwrite, fsync after each", WRITTEN, with_cache=True, writeback=True,
                 pattern="randwrite", flushes=True, options=(*STEADY, "--fsync=1"))


def warm_jobs():
    for depth in (1, 32):
        yield CacheReadJob(f"warm-{depth}", f"4 KiB random read, depth {depth}, all cached", CLONE, with_cache=True,
                           only_cache=True, depth=depth, options=STEADY)


def outrun_jobs():
    """More than a cache holds."""
    options = {"writeback": True, "peers": False, "pattern": "randwrite", "depth": 32, "options": ("--norandommap",)}
    yield SustainedJob("sustained-write-32", "4 KiB overwrite, depth 32, cache full", OUTRUN, **options)
    yield BurstJob("burst", "4 KiB overwrite, depth 32, cache filling", OUTRUN, **options)


def cached_jobs():
    for depth in (1, 32):
        yield FioJob(f"cached-read-{depth}", f"4 KiB read, depth {depth}, base in page cache", CACHED, depth=depth,
                     options=STEADY)


def large_jobs():
    yield FioJob("mixed", "64 KiB 70/30, depth 16", WRITTEN, pattern="randrw", block="64k", depth=16,
                 options=(*STEADY, "--rwmixread=70"))
    yield FioJob("sequential-read", "1 MiB sequential read, depth 4", CLONE, with_cache=True, pattern="read",
                 block="1M", depth=4, figure="mib_s", options=("--time_based",))
    yield FioJob("sequential-write", "1 MiB sequential write, depth 4", WRITTEN, with_cache=True, pattern="write",
                 block="1M", depth=4, figure="mib_s", options=("--time_based",))
    yield RereadJob("reread", "buffered re-read, 1 MiB", CLONE, on_overlay=True, pattern="read", block="1M",
                    figure="mib_s", options=("--time_based",))


def chain_jobs():
    yield FioJob(f"chain-{LAYERS}-1", f"4 KiB read, depth 1, chain of {LAYERS}", Stage(depth=LAYERS),
                 options=STEADY)
    for layers in (1, 4, LAYERS, 64):
        yield FioJob(f"chain-{layers}", f"4 KiB read, depth 32, chain of {layers}", Stage(depth=layers), depth=32,
                     options=STEADY, long=layers > LAYERS)


def eight_jobs():
    yield FioJob("eight-read", "eight files, 4 KiB read, depth 4 each", EIGHT, depth=4, options=STEADY)
    yield FioJob("eight-overwrite", "eight files, 4 KiB overwrite, depth 4", EIGHT_WRITTEN, pattern="randwrite",
                 depth=4, options=STEADY)


def loop_jobs():
    for job in four_kib_jobs():
        yield replace(job, name=f"loop-{job.name}", title=f"loop: {job.title}", loop=True, writeback=False)


def store_jobs():
    """The same reads of a base on the local disk stand next to those of the
    store, so that both are measured within seconds."""
    for depth in (1, 32):
        yield CacheReadJob(f"near-{depth}", f"an eighth of it: 4 KiB read, depth {depth}", Stage(parts=PARTS),
                           over_store=True, with_cache=True, quick_cache=depth > 1, long=depth == 1, depth=depth,
                           options=STEADY)
        for delay in DELAYS_MS:
            quick = depth > 1 and delay == DELAYS_MS[0]
            yield CacheReadJob(f"store-{delay}-warm-{depth}", f"store + {delay} ms: warm read, depth {depth}",
                               Stage(parts=PARTS, delay_ms=delay), over_store=True, with_cache=True,
                               quick_cache=quick, long=not quick, depth=depth, options=STEADY)
            yield CacheReadJob(f"store-{delay}-cold-{depth}", f"store + {delay} ms: cold read, depth {depth}",
                               Stage(parts=PARTS, delay_ms=delay, fresh=True), over_store=True, with_cache=True,
                               long=True, depth=depth)
    for delay in DELAYS_MS:
        stage = Stage(parts=PARTS, delay_ms=delay, fresh=True)
        yield FioJob(f"store-{delay}-write", f"store + {delay} ms: 4 KiB write, depth 1", stage, over_store=True,
                     with_cache=True, long=True, pattern="randwrite")
        yield ClonesJob(f"store-{delay}-clones", f"store + {delay} ms: {CLONES} clones, read in turn",
                        replace(stage, disks=CLONES), over_store=True, with_cache=True, long=True)


def whole_system_jobs():
    yield UntarJob("untar", "untar onto ext4", TREE, on_overlay=True)
    yield StoreUntarJob(f"store-{UNTAR_DELAY_MS}-untar", f"untar, pool in a store + {UNTAR_DELAY_MS} ms",
                        replace(TREE, pool_delay_ms=UNTAR_DELAY_MS), over_store=True, writeback=True)
    yield GitStatusJob("git-status", "git status on ext4, cold", TREE, on_overlay=True)
    for disks in (1, 100, DISKS):
        yield MountJob(f"mount-{disks}", f"mount, number of disks: {disks}", Stage(disks=disks, unused=True),
                       daemon=True, long=disks > 100)
    for disks in (FEW_DISKS, DISKS):
        yield NewDiskJob(f"new-disk-{disks}", f"clone to first byte, disks beside it: {disks}",
                         Stage(disks=disks, unused=True), daemon=True, ours=True, long=disks > FEW_DISKS)
    yield MemoryJob("memory", f"memory for each of {DISKS} disks", Stage(disks=DISKS, unused=True), daemon=True,
                    with_cache=True, long=True)
    yield IdleJob("idle", "disk open, no I/O", CLONE, daemon=True, with_cache=True)


JOBS = (*four_kib_jobs(), *warm_jobs(), *outrun_jobs(), *cached_jobs(), *large_jobs(), *chain_jobs(), *eight_jobs(), *loop_jobs(),
        *store_jobs(), *whole_system_jobs())
