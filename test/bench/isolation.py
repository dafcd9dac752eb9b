"""Isolation: how a disk fares whose image is well, while others of its mount are in trouble.

The others are raw files of a second daemon, so their store can be stopped or ended. Each writes as fast as it can from before
the trouble, and goes on until it has its share; in ephemeral mode, where no store of theirs is ever in trouble, it writes
all of itself once, and keeps what it has of the cache.
"""
import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass

import fio
import served as served_disks
from jobs import BLOCK, MIB, PARTS, STEADY, FioJob, longest_gap
from programs import Broken, run
from served import Served
from stages import Stage

OTHER_BYTES = 64 * MIB
FULL_BYTES = 24 * MIB
WRITERS_SECONDS = 3600
SETTLE_SECONDS = 5
BEGIN_SECONDS = 120
PRELOAD_BLOCKS = 16
KINDS = {"fail": "fail", "hang": "hang", "full": "have a full store", "absent": "are gone, dirty"}
MANY = 50
ALONE = "isolation"
CACHE_TIMES = 8     # what the disk writes: what the others leave of it is enough for that
HELD = ("migrate_threshold=100", "migrate_idle_ms=60000", "max_dirty_age=86400")


@dataclass(frozen=True)
class IsolationJob(FioJob):
    kind: str = ""
    others: int = 0

    def measure(self, rig, system):
        """Alone first, on images of the same kind made a moment before: what the machine does in an hour is in neither."""
        alone = self.measure_among(rig, system, others=False)
        if not self.others:
            return alone
        sample = self.measure_among(rig, system, others=True)
        return {**sample, "kept": sample["iops"] / alone["iops"]}

    def measure_among(self, rig, system, others):
        with rig.stages.fresh_images(system, self.stage) as (images, directory), contextlib.ExitStack() as stack:
            trouble = Trouble(self, system, images, directory, self.stage.length(rig.size), stack)
            if others:
                trouble.prepare(rig)
            with trouble.shown() as live:
                if others:
                    trouble.begin(live)
                return self.sample(rig, live)

    def sample(self, rig, live):
        prefix = os.path.join(live.directory, "isolation")
        live.remove("isolation_bw.log")  # fio would add to it
        fio.fill(live.disks, self.stage.length(rig.size))
        options = (*self.fio_options(), f"--write_bw_log={prefix}", "--per_job_logs=0")
        result = fio.measure(live.disks, self.stage.length(rig.size), rig.seconds, options)
        return {"iops": result["iops"], "stall": longest_gap(fio.completions(f"{prefix}_bw.log"))}

    def counts_cpu(self):
        return False    # the others have the daemon work too


class Trouble:
    """The others of one sample, from the beginning to the end."""

    def __init__(self, job, system, images, directory, length, stack):
        self.job, self.system, self.directory, self.stack = job, system, directory, stack
        self.pool = os.path.dirname(images[0])
        self.layers = system.layers(images)
        self.store = None
        self.others = [os.path.join(self.pool, f"other{number}.raw") for number in range(job.others)]
        self.cache = os.path.join(directory, "cache")
        self.ephemeral = "ephemeral" in system.name
        self.made_ns = 0
        self.cache_bytes = CACHE_TIMES * length

    # ---- Their store -------------------------------------------------------

    def prepare(self, rig):
        place = os.path.join(self.directory, "others")
        os.mkdir(place)
        if self.job.kind == "full":
            place = self.small_file_system(rig, place)
        for number in range(self.job.others):
            run("truncate", f"--size={OTHER_BYTES}", os.path.join(place, f"other{number}.raw"))
        shown = self.serve_store(place)
        for number, path in enumerate(self.others):
            self.put_into_pool(os.path.join(shown, f"other{number}.img"), path)
        self.made_ns = time.time_ns()
        if self.job.kind == "absent":
            self.leave_dirty()

    def put_into_pool(self, source, path):
        """A file that a link leads to, out of the pool, would be read-only."""
        with open(path, "wb"):
            run("mount", "--bind", source, path)
        self.stack.callback(self.take_from_pool, path)

    @staticmethod
    def take_from_pool(path):
        with contextlib.suppress(Broken):  # it is gone already
            run("umount", "--lazy", path)

    def small_file_system(self, rig, place):
        """Which has little room left."""
        image = f"{place}.raw"
        rig.storage.make_file_system(image, FULL_BYTES)
        device = self.stack.enter_context(served_disks.loop_device(image))
        return self.stack.enter_context(served_disks.mounted(device, place, "ext4"))

    def serve_store(self, place):
        where = f"{place}-store"
        point = os.path.join(where, "mnt")
        os.makedirs(point)
        self.store = self.stack.enter_context(Served(where))
        self.store.start(self.system.programs[0], place, point, "-f", "-o", "mode=direct")
        self.store.wait_for_mounts(point)
        return point

    def leave_dirty(self):
        """A mount ends whose changes of the others stay in the cache; then they are gone."""
        with self.shown(*(HELD if self.system.cached else ())) as live:
            for path in self.others:
                run("dd", "status=none", "if=/dev/urandom", f"of={self.disk(live, path)}", f"bs={BLOCK}",
                    f"count={PRELOAD_BLOCKS}", "oflag=direct", "conv=notrunc")
        for path in self.others:
            run("umount", "--lazy", path)
            os.unlink(path)

    # ---- Their mount -------------------------------------------------------

    @staticmethod
    def disk(live, path):
        return os.path.join(os.path.dirname(live.disks[0]), os.path.basename(path).replace(".raw", ".img"))

    @contextlib.contextmanager
    def shown(self, *options):
        point = os.path.join(self.directory, "mnt")
        os.makedirs(point, exist_ok=True)
        cached = (f"cache={self.cache}", f"cache_size={self.cache_bytes}", "nodrain")
        words = (*self.system.options, *(cached if self.system.cached else ()), *options,
                 f"layers={self.layers}:{self.store.directory if self.store else self.layers}")
        with Served(self.directory) as live:
            live.start(self.system.programs[0], self.pool, point, "-f", "-o", ",".join(words))
            live.wait_for_mounts(point)
            live.disks = [os.path.join(point, "disk0.img")]
            yield live

    def begin(self, live):
        if self.job.kind == "absent":
            return
        writers = self.write(live)
        self.wait_for_writers(live, writers)
        pid = self.store.daemons[0].pid
        if self.job.kind == "fail":
            os.kill(pid, signal.SIGKILL)
        elif self.job.kind == "hang":
            os.kill(pid, signal.SIGSTOP)
            live.stack.callback(os.kill, pid, signal.SIGCONT)
        time.sleep(SETTLE_SECONDS)

    def write(self, live):
        """Until the mount ends: what waits for a store cannot be ended before."""
        paths = [self.disk(live, path) for path in self.others]
        ends = () if self.ephemeral else ("--time_based", f"--runtime={WRITERS_SECONDS}")
        command = ["fio", "--name=global", "--rw=randwrite", "--bs=64k", "--thread", "--continue_on_error=all", *ends,
                   f"--size={OTHER_BYTES}", *fio.DIRECT, "--iodepth=4", *fio.each(paths)]
        writers = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)
        self.stack.callback(writers.wait, 60)
        self.stack.callback(writers.kill)
        return writers

    def wait_for_writers(self, live, writers):
        """Each other has been written; what its store does then it does to one in use."""
        if self.ephemeral:
            writers.wait(WRITERS_SECONDS)
            return
        begun = time.monotonic()
        while any(os.stat(self.disk(live, path)).st_mtime_ns <= self.made_ns for path in self.others):
            if writers.poll() is not None or time.monotonic() > begun + BEGIN_SECONDS:
                raise Broken("the others are not written")
            time.sleep(0.1)


def isolation_jobs():
    options = {"stage": Stage(parts=PARTS, fresh=True), "with_cache": True, "writeback": True, "ours": True, "long": True,
               "pattern": "randwrite", "depth": 4, "options": (*STEADY, "--fsync=16")}
    yield IsolationJob(ALONE, "4 KiB overwrite, depth 4, flushed", **options)
    for kind, words in KINDS.items():
        for others in (1, MANY):
            yield IsolationJob(f"{ALONE}-{kind}-{others}", f"the same while {others} {words}", kind=kind, others=others,
                               **options)


JOBS = tuple(isolation_jobs())
