"""Stages: what must stand before a job can run, whichever system shows it.

A stage is a number of disks on a common base. Which systems can set which
stage, and how, is theirs to know (systems.py).
"""
import contextlib
import os
import shutil
from dataclasses import dataclass

import fio
import pagecache
from programs import Broken, run

NO_STORE = -1
SMALL_CACHE_PARTS = 4
SYNC_SECONDS = 300
WARM_PASSES = 20


@dataclass(frozen=True)
class Stage:
    depth: int = 1          # copy-on-write layers above the base, the top one empty
    disks: int = 1
    parts: int = 1          # of the size: each disk is used up to the end of the first one
    written: bool = False   # every block is in the top layer
    fresh: bool = False     # made anew for each sample
    cached: bool = False    # the base is in the page cache, and may be read from there
    unused: bool = False    # shown and ended again, nothing is read or written
    tree: bool = False      # the base is an ext4 file system with a source tree
    delay_ms: int = 0       # the base is in a slow store, which adds this to each request
    pool_delay_ms: int = NO_STORE   # the pool is a file system in a store of its own, which adds this
    small_cache: bool = False   # one that is written past its end, and mounted with the usual options

    def length(self, size):
        return size // self.parts

    def stores(self):
        return self.delay_ms > 0 or self.pool_delay_ms != NO_STORE


def small_cache_bytes(size):
    return size // SMALL_CACHE_PARTS


CLONE = Stage()
CACHED = Stage(cached=True)
FRESH = Stage(fresh=True)
WRITTEN = Stage(written=True)
EIGHT = Stage(disks=8, parts=8)
EIGHT_WRITTEN = Stage(disks=8, parts=8, written=True)
OUTRUN = Stage(written=True, small_cache=True)
TREE = Stage(tree=True, fresh=True)


class Stages:
    """Images and served disks of the stages, made when first asked for."""

    def __init__(self, storage):
        self.storage = storage
        self.count = 0
        self.kept_images = {}   # (system, stage): (images, their directory)
        self.kept = {}          # (system, stage): what is served

    def new_directory(self, system):
        self.count += 1
        path = os.path.join(self.storage.directory, f"{self.count}-{system.name.replace(' ', '-')}")
        os.mkdir(path)
        return path

    def images(self, system, stage):
        """Made once: the images of the stage and the directory they are in."""
        key = (system.name, stage)
        if key not in self.kept_images:
            self.kept_images[key] = self.make_images(system, stage)
        return self.kept_images[key]

    def make_images(self, system, stage):
        directory = self.new_directory(system)
        place = os.path.join(directory, "images")
        os.mkdir(place)
        return system.make_images(stage, self.storage, place), directory

    def serve(self, system, stage, images, directory):
        served = system.serve(stage, self.storage, images, directory)
        try:
            served.check_live()
            self.touch(served, stage)
        except BaseException:
            served.close()
            raise
        return served

    def touch(self, served, stage):
        length = stage.length(self.storage.size)
        if stage.written:
            fio.fill(served.disks, length)
        elif not stage.fresh and not served.root:
            self.read_through(served, length)

    @staticmethod
    def read_through(served, length):
        """Tables are in memory then; and a cache, which does not keep what comes
        faster than it can write, is read through until nothing is left to fetch."""
        fetched = None
        for _ in range(WARM_PASSES):
            fio.read_through(served.disks, length)
            before, fetched = fetched, served.counters().get("cache_fetched_blocks", 0)
            if fetched in (0, before):
                return
        raise Broken(f"the cache of {served.directory} does not get warm in {WARM_PASSES} passes")

    @contextlib.contextmanager
    def ready(self, system, stage):
        """The stage, live, with its pages where the stage says; looked at again
        when the sample is done."""
        with self.fresh(system, stage) if stage.fresh else self.lasting(system, stage) as served:
            with self.sampled(served, stage):
                yield served

    @contextlib.contextmanager
    def sampled(self, served, stage):
        with served.around_sample():
            for image in dict.fromkeys(served.images):
                (pagecache.make_warm if stage.cached else pagecache.make_cold)(image)
            self.settle()
            self.check_live(served, stage)
            yield
            self.check_live(served, stage)

    def check_live(self, served, stage):
        self.storage.check_live(stage)
        served.check_live()

    def settle(self):
        """What the file system puts off, such as the discards of removed files,
        is done before a sample and not during one."""
        run("sync", "--file-system", self.storage.directory, timeout=SYNC_SECONDS)

    @contextlib.contextmanager
    def fresh_images(self, system, stage):
        images, directory = self.make_images(system, stage)
        yield images, directory
        shutil.rmtree(directory)

    @contextlib.contextmanager
    def fresh(self, system, stage):
        with self.fresh_images(system, stage) as (images, directory):
            with self.serve(system, stage, images, directory) as served:
                yield served

    @contextlib.contextmanager
    def lasting(self, system, stage):
        """Kept for the next sample, unless this one breaks."""
        key = (system.name, stage)
        if key not in self.kept:
            self.kept[key] = self.serve(system, stage, *self.images(system, stage))
        try:
            yield self.kept[key]
        except (Broken, OSError):
            self.kept.pop(key).close()
            self.kept_images.pop(key)
            raise

    def close(self):
        """What does not end in order is left to the clean-up of the run."""
        while self.kept:
            with contextlib.suppress(Broken, OSError):
                self.kept.popitem()[1].close()
