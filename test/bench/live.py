"""Live operations: what a guest sees of a snapshot, and how soon a fork is there.

A snapshot is taken again and again while a guest writes; each try is the longest time that one of its writes took which
was under way during the command. Chains get as long as there are tries.
"""
import contextlib
import os
import statistics
import subprocess
import time
from dataclasses import dataclass

import fio
from jobs import DISKS, FEW_DISKS, STEADY, FioJob, Job
from programs import Broken
from stages import Stage

TRIES = 20      # in a sample
APART_SECONDS = 0.05
START_SECONDS = 0.5
MARGIN_MS = 2   # of the log's clock
P99 = 0.99


def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


@contextlib.contextmanager
def shown(rig, system, stage):
    with rig.stages.fresh(system, stage) as served:
        rig.stages.settle()
        rig.stages.check_live(served, stage)
        yield served
        rig.stages.check_live(served, stage)


class Guest:
    """fio writes until it is ended, and tells the latency of each write."""

    def __init__(self, served, length, options):
        self.prefix = os.path.join(served.directory, "guest")
        self.log = f"{self.prefix}_clat.log"
        served.remove("guest_clat.log")  # fio would add to it
        command = ["fio", "--name=guest", f"--filename={served.disks[0]}", f"--size={length}", f"--write_lat_log={self.prefix}",
                   "--per_job_logs=0", "--log_unix_epoch=1", "--runtime=600", "--thread", *options]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True)

    def check_running(self):
        if self.process.poll() is not None:
            raise Broken(f"fio has ended: {self.process.stdout.read()[-300:]}")

    def end(self):
        """[(the ms when it was answered, how many it took)] of all writes."""
        self.check_running()
        self.process.terminate()
        self.process.communicate(timeout=60)
        with open(self.log, encoding="ascii") as file:
            rows = [line.split(",") for line in file]
        return [(int(row[0]), int(row[1]) / 1e6) for row in rows]

    def abandon(self):
        self.process.kill()
        self.process.communicate()


def longest_between(writes, begin, end):
    """Of those that were under way then."""
    found = [took for at, took in writes if at + MARGIN_MS >= begin and at - took - MARGIN_MS <= end]
    if not found:
        raise Broken("no write was under way while a snapshot was taken")
    return max(found)


@dataclass(frozen=True)
class SnapshotJob(FioJob):
    dirty: bool = False     # all of it, before the first try

    def measure(self, rig, system):
        with shown(rig, system, self.stage) as served:
            if self.dirty:
                fio.fill(served.disks[:1], rig.size)
            return self.figures(*self.take(rig, system, served))

    def take(self, rig, system, served):
        guest = Guest(served, rig.size, self.fio_options())
        tries = []
        try:
            time.sleep(START_SECONDS)
            for number in range(TRIES):
                guest.check_running()
                begin = time.time() * 1000
                system.snapshot(served, number)
                tries.append((begin, time.time() * 1000))
                time.sleep(APART_SECONDS)
            return guest.end(), tries
        except BaseException:
            guest.abandon()
            raise

    @staticmethod
    def figures(writes, tries):
        pauses = [longest_between(writes, begin, end) for begin, end in tries]
        between = [longest_between(writes, end + MARGIN_MS, end + MARGIN_MS + 10) for _, end in tries]
        return {"pause": statistics.median(pauses), "pause_p99": quantile(pauses, P99), "usual": statistics.median(between),
                "verb": statistics.median(end - begin for begin, end in tries)}


@dataclass(frozen=True)
class ForkJob(Job):
    """From the start of `leafctl fork` until the first byte of the new disk has been read, of a disk that is written between
    one and the next."""

    def measure(self, rig, system):
        with shown(rig, system, self.stage) as served, served.held_open():
            times = [self.fork(system, served, number) for number in range(TRIES)]
            return {"ms": statistics.median(times), "ms_last": times[-1]}

    @staticmethod
    def fork(system, served, number):
        with open(served.disks[0], "r+b", buffering=0) as file:
            file.write(os.urandom(4096))
            os.fsync(file.fileno())
        begin = time.monotonic()
        path = system.fork(served, f"fork{number}")
        with open(path, "rb", buffering=0) as file:
            count = len(file.read(1))
        if count != 1:
            raise Broken(f"{path} has not one byte")
        return (time.monotonic() - begin) * 1000


def live_jobs():
    """Where there are many disks, of leafdisk alone: others serve some hundred with one process."""
    for disks in (FEW_DISKS, DISKS):
        options = {"stage": Stage(disks=disks, fresh=True), "with_cache": True, "writeback": True, "live": True,
                   "ours": disks > FEW_DISKS, "long": disks > FEW_DISKS}
        for dirty in (False, True):
            yield SnapshotJob(f"snapshot-{disks}{'-dirty' if dirty else ''}",
                              f"snapshot among {disks} disks{', all dirty' if dirty else ''}", dirty=dirty,
                              pattern="randwrite", depth=32, options=STEADY, **options)
        yield ForkJob(f"fork-{disks}", f"fork to first byte among {disks} disks", **{**options, "ours": True})


JOBS = tuple(live_jobs())
