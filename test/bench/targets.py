"""What the project set itself to reach, and whether a run reached it.

Each target is a median of ratios that were formed within one round, of one of
leafdisk's modes to another system, in the same job or another.
"""
from dataclasses import dataclass

import isolation
import live
from jobs import DISKS, FEW_DISKS, JOBS, FioJob
from systems import RAW, STORAGE_DAEMON

SUBJECT = "leafdisk direct"
WRITEBACK = "leafdisk writeback"
STALL_MS = 1000
PAUSE_MS = 100
SNAPSHOT_MS, SNAPSHOT_P99_MS = 5, 20
FORK_MS = 30
NEW_DISK_TIMES = 1.3    # in a large pool, of what it takes in a small one
CACHED = ("leafdisk persistent", "leafdisk ephemeral")


@dataclass(frozen=True)
class Target:
    job: str
    figure: str
    limit: float
    system: str = SUBJECT       # compared with this system
    other_job: str = ""         # in this job; without one, in the same
    at_most: bool = False
    absolute: bool = False      # the figure itself, no ratio
    subject: str = SUBJECT      # whose figure it is

    def text(self):
        bound = "at most" if self.at_most else "at least"
        if self.absolute:
            return f"{bound} {self.limit:g}"
        where = f" in {self.other_job}" if self.other_job else ""
        return f"{bound} {self.limit:g} times {self.system}{where}"

    def measured(self, results):
        if self.absolute:
            return results.median(self.job, self.figure, self.subject)
        return results.ratio(self.job, self.figure, self.subject, self.system, self.other_job or self.job)

    def verdict(self, value):
        if value is None:
            return "not measured"
        if value <= self.limit if self.at_most else value >= self.limit:
            return "met"
        if not self.limit:
            return f"missed by {value:g}"
        return f"missed by {abs(value - self.limit) / self.limit * 100:.0f} %"


def both(job, times_storage_daemon, times_raw, figure="iops"):
    return (Target(job, figure, times_storage_daemon, STORAGE_DAEMON), Target(job, figure, times_raw, RAW))


def warm_targets():
    """A warm cache over a store with 1 ms added: against what the store gives a
    guest that waits for each read, and against direct mode with the base on the
    local disk."""
    for subject in CACHED:
        yield Target("store-1-warm-32", "iops", 50, RAW, other_job="store-1-warm-1", subject=subject)
        for depth in (1, 32):
            yield Target(f"store-1-warm-{depth}", "iops", 0.9, other_job=f"near-{depth}", subject=subject)


def writeback_targets():
    """While the log has room, and when it has not; and what that hides of a slow
    pool."""
    for job in ("overwrite", "first-write"):
        yield Target(f"{job}-32", "iops", 4, RAW, subject=WRITEBACK)
        yield Target(f"{job}-32", "iops", 6, STORAGE_DAEMON, subject=WRITEBACK)
        yield Target(f"{job}-1", "iops", 2, RAW, subject=WRITEBACK)
    yield Target("fsync", "iops", 1.0, RAW, subject=WRITEBACK)
    yield Target("fsync", "iops", 2, STORAGE_DAEMON, subject=WRITEBACK)
    yield Target("sustained-write-32", "iops", 1.0, RAW, subject=WRITEBACK)
    yield Target("burst", "stall", STALL_MS, at_most=True, absolute=True, subject=WRITEBACK)
    yield Target("store-10-untar", "seconds", 1.5, other_job="untar", at_most=True, subject=WRITEBACK)


def isolation_targets():
    """The rate, against that without others in trouble, and the longest pause."""
    for job in isolation.JOBS:
        for subject in (SUBJECT, *CACHED, WRITEBACK):
            if job.others:
                yield Target(job.name, "kept", 0.9, absolute=True, subject=subject)
            yield Target(job.name, "stall", PAUSE_MS, at_most=True, absolute=True, subject=subject)


def live_targets():
    """What a guest sees of a snapshot; and a fork, also in a large pool."""
    for job in live.JOBS:
        for subject in (SUBJECT, "leafdisk persistent", WRITEBACK):
            if isinstance(job, live.ForkJob):
                yield Target(job.name, "ms", FORK_MS, at_most=True, absolute=True, subject=subject)
            elif subject == WRITEBACK:
                yield Target(job.name, "pause", SNAPSHOT_MS, at_most=True, absolute=True, subject=subject)
                yield Target(job.name, "pause_p99", SNAPSHOT_P99_MS, at_most=True, absolute=True, subject=subject)


def cpu_targets():
    for job in JOBS:
        if isinstance(job, FioJob) and job.counts_cpu():
            yield Target(job.name, "cpu", 1.0, STORAGE_DAEMON, at_most=True)


TARGETS = (
    *both("read-32", 2.0, 0.6),
    Target("chain-16", "iops", 3.5, STORAGE_DAEMON),
    Target("chain-16", "iops", 0.95, other_job="chain-1"),
    Target("cached-read-32", "iops", 1.2, RAW),
    *both("read-1", 1.3, 0.75),
    *both("overwrite-32", 1.25, 0.85),
    Target("first-write-32", "iops", 2.0, STORAGE_DAEMON),
    *both("fsync", 1.3, 0.7),
    *both("sequential-read", 1.7, 0.8, "mib_s"),
    *both("sequential-write", 1.7, 0.8, "mib_s"),
    Target("reread", "mib_s", 0.95, RAW),
    Target(f"new-disk-{DISKS}", "seconds", NEW_DISK_TIMES, SUBJECT, other_job=f"new-disk-{FEW_DISKS}", at_most=True),
    Target("idle", "wakeups", 0, at_most=True, absolute=True),
    *warm_targets(),
    *writeback_targets(),
    *isolation_targets(),
    *live_targets(),
    *cpu_targets(),
)
