#!/usr/bin/env python3
"""Speed of a mounted disk against the raw file below it and against QEMU's
storage daemon on qcow2: fio on each in turn, medians over the rounds.

The raw file is what the storage can do here and now, so the ratios are the
result, not the numbers.
"""
import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

TREE = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.environ.get("LEAFDISK_BUILD", os.path.join(TREE, "build"))
WORKLOADS = {
    "read, depth 1": ("randread", 1),
    "read, depth 32": ("randread", 32),
    "write, depth 1": ("randwrite", 1),
    "write, depth 32": ("randwrite", 32),
}
REFERENCE = "raw file"


def run(*command, timeout=300):
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if result.returncode != 0:
        raise SystemExit(f"bench: {' '.join(command)}: {result.stderr.strip()}")
    return result.stdout


def fill(path, size):
    """Written blocks, not holes: a hole reads faster than any disk."""
    run("fio", "--name=fill", f"--filename={path}", "--rw=write", "--bs=1M", f"--size={size}", "--direct=1",
        "--ioengine=libaio", "--iodepth=8", "--end_fsync=1", "--overwrite=0")


def wait_until(condition, what, timeout=20):
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"bench: waited {timeout} s for {what}")
        time.sleep(0.02)


def is_mount(path):
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        return any(line.split()[4] == path for line in file)


class Raw:
    name = REFERENCE

    def __init__(self, work, size):
        self.path = os.path.join(work, "raw.raw")
        fill(self.path, size)

    def is_live(self):
        return os.path.exists(self.path)

    def close(self):
        pass


class Leafdisk:
    """A leaf on a raw base, both written."""

    name = "leafdisk"

    def __init__(self, work, size):
        pool, self.mount = os.path.join(work, "pool"), os.path.join(work, "mnt")
        os.mkdir(pool)
        os.mkdir(self.mount)
        base = os.path.join(pool, "base.raw")
        fill(base, size)
        run(os.path.join(BUILD, "leafctl"), "clone", base, os.path.join(pool, "disk.leaf"))
        run(os.path.join(BUILD, "leafdisk"), pool, self.mount)
        self.path = os.path.join(self.mount, "disk.img")
        fill(self.path, size)

    def is_live(self):
        return is_mount(self.mount) and os.path.exists(self.path)

    def close(self):
        run("fusermount3", "-u", self.mount)


class StorageDaemon:
    """A qcow2 clone of a raw base behind qemu-storage-daemon's FUSE export."""

    name = "qemu-storage-daemon"

    def __init__(self, work, size):
        base, image = os.path.join(work, "qemu-base.raw"), os.path.join(work, "qemu.qcow2")
        self.path = os.path.join(work, "qemu.img")
        fill(base, size)
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", image)
        with open(self.path, "wb"):
            pass
        self.process = subprocess.Popen([
            "qemu-storage-daemon",
            "--blockdev", f"driver=file,node-name=file,filename={image},cache.direct=on,aio=native",
            "--blockdev", "driver=qcow2,node-name=disk,file=file",
            "--export", f"type=fuse,id=export,node-name=disk,mountpoint={self.path},writable=on"])
        wait_until(self.is_live, "qemu-storage-daemon's export")
        fill(self.path, size)

    def is_live(self):
        return self.process.poll() is None and is_mount(self.path)

    def close(self):
        self.process.terminate()
        self.process.wait(20)


def measure(target, workload, size, seconds):
    """Operations per second."""
    if not target.is_live():
        raise SystemExit(f"bench: {target.name} is not live; nothing is measured")
    mode, depth = WORKLOADS[workload]
    output = run("fio", "--name=bench", f"--filename={target.path}", f"--rw={mode}", "--bs=4k", f"--size={size}",
                 "--direct=1", "--ioengine=libaio", f"--iodepth={depth}", "--time_based", f"--runtime={seconds}",
                 "--ramp_time=0.3", "--randrepeat=0", "--output-format=json")
    job = json.loads(output)["jobs"][0]
    return job["read" if mode == "randread" else "write"]["iops"]


def progress(text):
    if sys.stderr.isatty():
        print(f"\r{text:70}\r", end="", file=sys.stderr, flush=True)


def measure_all(targets, rounds, size, seconds):
    """samples[workload][target], one number for each round, interleaved."""
    samples = {workload: {target.name: [] for target in targets} for workload in WORKLOADS}
    for number in range(rounds):
        for workload in WORKLOADS:
            for target in targets:
                progress(f"round {number + 1} of {rounds}: {workload}, {target.name}")
                samples[workload][target.name].append(measure(target, workload, size, seconds))
    progress("")
    return samples


def report(samples):
    names = list(next(iter(samples.values())))
    print(f"4 KiB random, operations per second (and as a multiple of the {REFERENCE})")
    print(f"{'':18}" + "".join(f"{name:>24}" for name in names))
    for workload, rows in samples.items():
        medians = {name: statistics.median(values) for name, values in rows.items()}
        cells = [f"{medians[name]:>15.0f} ({medians[name] / medians[REFERENCE]:5.2f})" for name in names]
        print(f"{workload:18}" + "".join(f"{cell:>24}" for cell in cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller and shorter, for a first look")
    parser.add_argument("--output", help="JSON file for every sample")
    parser.add_argument("--directory", default="/var/tmp", help="where the images are made (a local disk)")
    arguments = parser.parse_args()
    size, seconds, rounds = ("128M", 1, 1) if arguments.quick else ("1G", 5, 3)
    work = os.path.realpath(tempfile.mkdtemp(prefix="leafdisk-bench.", dir=arguments.directory))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        targets = []
        for kind in (Raw, Leafdisk, StorageDaemon):
            if kind is StorageDaemon and not shutil.which("qemu-storage-daemon"):
                print("bench: qemu-storage-daemon is not here and is left out", file=sys.stderr)
                continue
            targets.append(kind(work, size))
            stack.callback(targets[-1].close)
        samples = measure_all(targets, rounds, size, seconds)
    report(samples)
    if arguments.output:
        with open(arguments.output, "w", encoding="ascii") as file:
            json.dump({"size": size, "seconds": seconds, "rounds": rounds, "iops": samples}, file, indent=1)


if __name__ == "__main__":
    main()
