"""fio: filling disks, reading them through once, and measuring."""
import json

from programs import Broken, run

GIB = 1 << 30
DIRECT = ("--ioengine=libaio", "--direct=1")
START_SECONDS = 60
FILL_SECONDS = 900
WRITE_SECONDS = 600


def each(paths):
    """One job for each path, after the options that they share."""
    return [word for number, path in enumerate(paths) for word in (f"--name=job{number}", f"--filename={path}")]


def sweep(paths, length, direction, *options):
    run("fio", "--name=global", f"--rw={direction}", "--bs=1M", "--iodepth=8", f"--size={length}", *DIRECT, "--thread",
        *options, *each(paths), timeout=FILL_SECONDS)


def fill(paths, length):
    """Random data in every block: a hole, or what compresses, can be faster
    than any disk. Existing blocks are overwritten."""
    sweep(paths, length, "write", "--refill_buffers", "--randrepeat=0", "--end_fsync=1")


def read_through(paths, length):
    """So that the tables which a system reads once have been read."""
    sweep(paths, length, "read")


def measure(paths, length, seconds, options):
    """One fio job on each path, all at once; their sums."""
    output = run("fio", "--output-format=json", "--name=global", "--thread", "--group_reporting", "--randrepeat=0",
                 f"--runtime={int(seconds * 1000)}ms", f"--size={length}", *options, *each(paths),
                 timeout=seconds + START_SECONDS)
    try:
        job = json.loads(output[output.index("{"):])["jobs"][0]
    except (ValueError, LookupError):
        raise Broken(f"fio said {output.strip()[-300:]}") from None
    return totals(job)


def measure_written(path, length, count, options):
    """COUNT bytes and no deadline of their own."""
    result = measure([path], length, WRITE_SECONDS, (*options, f"--io_size={count}"))
    if round(result["gib"] * GIB) < count:
        raise Broken(f"{result['gib']:.3g} GiB were written in {WRITE_SECONDS} s, and not {count / GIB:.3g}")
    return result


def completions(log):
    """[(ms since the start, bytes)] of a log in which fio has told each of them."""
    with open(log, encoding="ascii") as file:
        rows = [line.split(",") for line in file]
    return sorted((int(row[0]), int(row[3])) for row in rows)


def totals(job):
    both = [job["read"], job["write"]]
    moved = sum(direction["io_bytes"] for direction in both)
    if job["error"] or not moved:
        raise Broken(f"fio: error {job['error']}, {moved} bytes moved")
    return {"iops": sum(direction["iops"] for direction in both),
            "mib_s": sum(direction["bw_bytes"] for direction in both) / (1 << 20),
            "gib": moved / GIB}
