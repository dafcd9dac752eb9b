#!/usr/bin/env python3
"""Speed of leafdisk against its peers, on the same storage in the same run:
round by round, job by job, system by system. test/bench/README has the method.
"""
import argparse
import contextlib
import fnmatch
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass

sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), ".."))

import cleanup
import host
import isolation
import live
import report
import store
from jobs import JOBS as SPEED_JOBS
from programs import Broken
from results import Results
from stages import Stages
from storage import Storage
from systems import SYSTEMS

MIB = 1 << 20
JOBS = (*SPEED_JOBS, *isolation.JOBS, *live.JOBS)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
UNITS = {"M": MIB, "G": MIB << 10}
SIZE_STEP = 16 * MIB


@dataclass(frozen=True)
class Lengths:
    """How long and how large; what --quick shortens."""
    rounds: int = 3
    seconds: float = 5
    size: int = 1024 * MIB
    idle_seconds: float = 5
    tree_files: int = 6000


QUICK = Lengths(rounds=1, seconds=0.25, size=64 * MIB, idle_seconds=1, tree_files=1000)


@dataclass(frozen=True)
class Rig:
    """What a job measures with."""
    lengths: Lengths
    storage: Storage
    stages: Stages

    @property
    def size(self):
        return self.lengths.size

    @property
    def seconds(self):
        return self.lengths.seconds

    @property
    def idle_seconds(self):
        return self.lengths.idle_seconds


def size_argument(text):
    found = re.fullmatch(r"(\d+)([MG])", text)
    size = int(found.group(1)) * UNITS[found.group(2)] if found else 0
    if size < 4 * SIZE_STEP or size % SIZE_STEP:
        raise argparse.ArgumentTypeError("a multiple of 16M, at least 64M, such as 128M or 1G")
    return size


def positive(kind):
    def parse(text):
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError("more than 0")
        return value
    return parse


def parse_arguments():
    parser = argparse.ArgumentParser(description="Speed of leafdisk against its peers.")
    parser.add_argument("--rounds", type=positive(int), help="samples of each figure, 3 by default")
    parser.add_argument("--seconds", type=positive(float), help="of each fio sample, 5 by default")
    parser.add_argument("--size", type=size_argument, help="of a disk, 1G by default")
    parser.add_argument("--jobs", metavar="GLOB", action="append", help="only these; can be given more than once")
    parser.add_argument("--systems", metavar="GLOB", action="append", help="only these, the same way")
    parser.add_argument("--quick", action="store_true", help="one short round on small disks, for a first look")
    parser.add_argument("--output", metavar="FILE", help="every sample, as JSON")
    parser.add_argument("--directory", default="/var/tmp", help="where the images are made: a local file system")
    parser.add_argument("--list", action="store_true", help="list the jobs and the systems")
    return parser.parse_args()


def lengths_of(arguments):
    lengths = vars(QUICK if arguments.quick else Lengths()).copy()
    for name in ("rounds", "seconds", "size"):
        if getattr(arguments, name):
            lengths[name] = getattr(arguments, name)
    return Lengths(**lengths)


def chosen(things, globs, what):
    if not globs:
        return [thing for thing in things if not getattr(thing, "on_request", False)]
    found = [thing for thing in things if any(fnmatch.fnmatchcase(thing.name, glob) for glob in globs)]
    if not found:
        raise SystemExit(f"bench: no {what} is named {' or '.join(globs)}; --list shows the names")
    return found


def possible(jobs):
    why = store.missing()
    if why and any(job.stage.stores() for job in jobs):
        print(f"bench: the jobs over a slow store are left out: {why}", file=sys.stderr)
    return [job for job in jobs if not (why and job.stage.stores())]


def present(systems):
    for system in systems:
        why = system.missing()
        if why:
            print(f"bench: {system.name} is left out: {why}", file=sys.stderr)
        else:
            yield system


def progress(text):
    if sys.stderr.isatty():
        print(f"\r{text[:100]:100}\r", end="", file=sys.stderr, flush=True)


def refusal(job, system, quick):
    why = system.refuses(job)
    return why or ("not with --quick" if quick and not system.is_quick(job) else None)


def sample(rig, number, job, system, results):
    """A measurement that breaks is reported, and the others go on."""
    progress(f"round {number} of {rig.lengths.rounds}: {job.name}, {system.name}")
    try:
        results.add(number, job.name, system.name, job.measure(rig, system))
    except (Broken, OSError) as error:
        print(f"bench: {job.name}, {system.name}: {error}", file=sys.stderr)
        results.broken.append({"round": number, "job": job.name, "system": system.name, "why": str(error)})


def measure_all(rig, jobs, systems, results, quick):
    """Each round begins with another system, so that none is always the first."""
    for number in range(1, rig.lengths.rounds + 1):
        first = (number - 1) % len(systems)
        for job in jobs:
            for system in systems[first:] + systems[:first]:
                why = refusal(job, system, quick)
                if why:
                    results.left_out[job.name, system.name] = why
                else:
                    sample(rig, number, job, system, results)
    progress("")


def end_by_signal(number, _frame):
    raise SystemExit(128 + number)


def clean_up(directory):
    """Whatever state the run ended in: what it started is known by its
    environment, its mounts and loop devices by the directory."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    for line in cleanup.clean(directory):
        print(f"bench: ended by force: {line}", file=sys.stderr)
    if not cleanup.mounts_below(directory):
        shutil.rmtree(directory, ignore_errors=True)
    if os.path.exists(directory):
        print(f"bench: {directory} could not be removed", file=sys.stderr)


@contextlib.contextmanager
def run_directory(parent):
    parent = os.path.realpath(parent)
    if not re.fullmatch(r"[\w/.+-]+", parent):
        raise SystemExit(f"bench: {parent}: only letters, digits and / . + - _ may be in the directory's name")
    directory = tempfile.mkdtemp(prefix="leafdisk-bench.", dir=parent)
    os.environ[cleanup.RUN_VARIABLE] = directory
    try:
        yield directory
    finally:
        clean_up(directory)


def run_bench(arguments, results):
    lengths = lengths_of(arguments)
    jobs = possible([job for job in chosen(JOBS, arguments.jobs, "job") if not (arguments.quick and job.long)])
    systems = list(present(chosen(SYSTEMS, arguments.systems, "system")))
    with run_directory(arguments.directory) as directory:
        facts = host.facts(os.path.dirname(directory), systems)
        facts["lengths"] = ", ".join(f"{name} {value}" for name, value in vars(lengths).items())
        storage = Storage(directory, lengths.size, lengths.tree_files)
        storage.check_room()
        progress("making the bases")
        storage.make(any(job.stage.tree for job in jobs))
        with contextlib.closing(storage), contextlib.closing(Stages(storage)) as stages:
            measure_all(Rig(lengths, storage, stages), jobs, systems, results, arguments.quick)
    print(report.text(facts, jobs, results))
    if arguments.output:
        report.write_json(arguments.output, facts, jobs, results)


def main():
    arguments = parse_arguments()
    if arguments.list:
        print("\n".join(f"{thing.name:24}{getattr(thing, 'title', '')}".rstrip() for thing in (*JOBS, *SYSTEMS)))
        return 0
    if os.geteuid() != 0:
        raise SystemExit("bench: loop devices and mounts need root")
    for number in SIGNALS:
        signal.signal(number, end_by_signal)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    results = Results()
    try:
        run_bench(arguments, results)
    except Broken as error:
        raise SystemExit(f"bench: {error}") from None
    return 1 if results.broken else 0


if __name__ == "__main__":
    sys.exit(main())
