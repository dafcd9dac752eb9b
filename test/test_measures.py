"""What a disk does and has done: its files stats, latency and requests, their reset, and the histograms of the metrics."""
import contextlib
import errno
import json
import os
import re
import signal
import threading

import pytest

from harness import (BLOCK, KIB, MIB, Aligned, Loop, control_values, discard, expect_errno, faults, file_bytes, halt,
                     make_image, make_raw, opened, stats, wait_until, write_all, zero_range)
from test_control import errno_of, parsed_metrics

KINDS = ("read", "write", "flush", "discard")
CLASSES = [f"{op}{part}_{place}" for op in ("read", "write") for part in ("", "_part")
           for place in ("misses", "hits", "buffer_hits")]
# More than the cache keeps in memory.
MUCH = 24 * MIB
CACHED = ("cache_size=64M", "migrate_idle_ms=60000", "max_dirty_age=86400", "read_run_bypass=1G")


@pytest.fixture
def web1(pool):
    return make_image(os.path.join(pool, "web1.leaf"), "64M")


def disk_stats(live, name="web1.img"):
    with open(live.control("disks", name, "stats"), encoding="ascii") as file:
        return json.load(file)


def moved(before, after):
    return {key: after[key] - before[key] for key in after if after[key] != before[key] and not key.endswith("_ns")}


def latency_of(live, name="web1.img"):
    """kind -> {requests, mean_us, ...}, kind -> {end of bucket: requests}"""
    values = control_values(live, "disks", name, "latency")
    values.pop("since", None)
    summaries = {kind: {key: int(number) for key, number in re.findall(r"(\w+)=(\d+)", values.pop(kind))}
                 for kind in KINDS}
    buckets = {kind: {float(end): int(count) for end, count in re.findall(r"(\w+)=(\d+)", values.pop(f"{kind}_buckets"))}
               for kind in KINDS}
    assert not values
    return summaries, buckets


# ---- Counters ---------------------------------------------------------------------


def test_a_disk_that_was_never_open(mount, web1):
    with mount() as live:
        counted = disk_stats(live)
        assert set(counted) == {"since", "read_bytes", "write_bytes", "discard_bytes", "errors", *CLASSES,
                                *(f"{kind}_requests" for kind in KINDS), *(f"{kind}_ns" for kind in KINDS)}
        assert set(counted.values()) == {0}
        summaries, buckets = latency_of(live)
        assert all(set(summary.values()) == {0} for summary in summaries.values())
        assert all(bucket == {} for bucket in buckets.values())
        assert "since" not in control_values(live, "disks", "web1.img", "latency")
        assert control_values(live, "disks", "web1.img", "requests") == {
            "in_work": "0", "waiting": "0", "bytes": "0", "oldest_ms": "0"}


def test_counters_of_a_disk(mount, pool, web1):
    make_image(os.path.join(pool, "web2.leaf"), "64M")
    memory = Aligned(64 * KIB)
    with mount() as live, opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        before = disk_stats(live)
        assert before["since"] > 0
        for block in range(5):
            memory.write(fd, b"w" * BLOCK, 8 * block * BLOCK)
        memory.read(fd, 64 * KIB, 0)
        os.fsync(fd)
        discard(fd, MIB, MIB)
        zero_range(fd, 2 * MIB, BLOCK)
        expect_errno(errno.ENOSPC, memory.write, fd, b"w" * BLOCK, 64 * MIB)
        after = disk_stats(live)
        # What no layer has is no miss: 5 of the 16 blocks are there.
        assert moved(before, after) == {
            "read_requests": 1, "read_bytes": 64 * KIB, "write_requests": 6, "write_bytes": 5 * BLOCK,
            "flush_requests": 1, "discard_requests": 2, "discard_bytes": MIB + BLOCK, "errors": 1,
            "read_misses": 2, "write_misses": 5}
        assert all(after[f"{kind}_ns"] > before[f"{kind}_ns"] for kind in KINDS)
        assert disk_stats(live, "web2.img")["write_requests"] == 0


def test_counters_stay_when_the_disk_is_closed(mount, web1):
    with mount() as live:
        with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
            Aligned(BLOCK).write(fd, b"w" * BLOCK, 0)
        wait_until(lambda: control_values(live, "disks", "web1.img", "state")["opens"] == "0", "the close")
        assert disk_stats(live)["write_requests"] == 1
        with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
            Aligned(BLOCK).write(fd, b"w" * BLOCK, 0)
            assert disk_stats(live)["write_requests"] == 2


# ---- Hit classes --------------------------------------------------------------------


class Counted:
    """A disk whose hit classes are looked at step by step."""

    def __init__(self, live, fd):
        self.live = live
        self.fd = fd
        self.memory = Aligned(MIB)
        self.before = disk_stats(live)
        self.of_all = stats(live)

    def classes(self):
        """What has moved since this was asked; the mount's moved alike."""
        after, of_all = disk_stats(self.live), stats(self.live)
        classes = {key: value for key, value in moved(self.before, after).items() if key in CLASSES}
        assert classes == {key: value for key, value in moved(self.of_all, of_all).items() if key in CLASSES}
        self.before, self.of_all = after, of_all
        return classes

    def write(self, length, offset):
        if (length | offset) % BLOCK == 0:
            self.memory.write(self.fd, b"w" * length, offset)
        else:
            write_all(self.fd, b"p" * length, offset)
        return self.classes()

    def read(self, length, offset):
        self.memory.read(self.fd, length, offset)
        return self.classes()

    def push_out(self):
        """What is in the cache's memory goes."""
        for offset in range(32 * MIB, 32 * MIB + MUCH, MIB):
            self.memory.write(self.fd, os.urandom(MIB), offset)
            os.fsync(self.fd)
        self.classes()


@pytest.fixture
def counted(mount, cache, web1):
    """counted(mode): a disk, open for direct I/O."""
    with contextlib.ExitStack() as stack:
        def begin(mode):
            live = stack.enter_context(mount(f"cache={cache}", f"mode={mode}", *CACHED))
            return Counted(live, stack.enter_context(opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT)))

        yield begin


@pytest.mark.parametrize("mode", ["writeback", "ephemeral"])
def test_hit_classes_of_whole_blocks(counted, mode):
    disk = counted(mode)
    assert disk.write(8 * BLOCK, 0) == {"write_misses": 8}
    assert disk.read(8 * BLOCK, 0) == {"read_buffer_hits": 8}
    assert disk.write(4 * BLOCK, 2 * BLOCK) == {"write_buffer_hits": 4}
    assert disk.write(4 * BLOCK, 6 * BLOCK) == {"write_buffer_hits": 2, "write_misses": 2}
    disk.push_out()
    assert disk.read(8 * BLOCK, 0) == {"read_hits": 8}
    assert disk.write(2 * BLOCK, 0) == {"write_hits": 2}
    assert disk.read(10 * BLOCK, 0) == {"read_buffer_hits": 2, "read_hits": 8}


@pytest.mark.parametrize("mode", ["writeback", "ephemeral"])
def test_hit_classes_of_parts(counted, mode):
    """The first and the last block of a request may be touched in part, and only these."""
    disk = counted(mode)
    assert disk.write(100, 5000) == {"write_part_misses": 1}
    assert disk.write(100, 5000) == {"write_part_buffer_hits": 1}
    assert disk.write(3 * BLOCK, 100) == {"write_part_misses": 2, "write_buffer_hits": 1, "write_misses": 1}
    assert disk.read(100, 5000) == {"read_part_buffer_hits": 1}
    assert disk.read(3 * BLOCK, 100) == {"read_part_buffer_hits": 2, "read_buffer_hits": 2}
    disk.push_out()
    assert disk.read(2 * BLOCK, 100) == {"read_part_hits": 2, "read_hits": 1}
    assert disk.write(BLOCK, 100) == {"write_part_hits": 2}


def test_hit_classes_without_a_cache(mount, web1):
    with mount() as live, opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        disk = Counted(live, fd)
        assert disk.write(8 * BLOCK, 0) == {"write_misses": 8}
        assert disk.write(8 * BLOCK, 0) == {"write_misses": 8}
        assert disk.write(BLOCK, 100) == {"write_part_misses": 2}
        assert disk.read(8 * BLOCK, 0) == {"read_misses": 8}
        assert disk.read(8 * BLOCK, MIB) == {}


def test_hit_classes_of_a_mirror_and_of_a_base(mount, pool, cache, rng):
    """The blocks of a base are in the cache once they were read; those of the leaf when they are written."""
    base = make_raw(os.path.join(pool, "base.raw"), rng.randbytes(MIB))
    make_image(os.path.join(pool, "web1.leaf"), parent=base)
    with mount(f"cache={cache}", "mode=persistent", *CACHED) as live, \
            opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        disk = Counted(live, fd)
        assert disk.read(16 * BLOCK, 0) == {"read_misses": 16}
        assert disk.read(16 * BLOCK, 0) == {"read_buffer_hits": 16}
        assert disk.write(4 * BLOCK, 0) == {"write_misses": 4}
        assert disk.write(8 * BLOCK, 0) == {"write_buffer_hits": 4, "write_misses": 4}
        assert disk.read(20 * BLOCK, 0) == {"read_buffer_hits": 16, "read_misses": 4}


def test_zeros_that_the_cache_has_are_hits(counted):
    disk = counted("writeback")
    discard(disk.fd, 0, MIB)
    assert disk.classes() == {}
    assert disk.read(4 * BLOCK, 0) == {"read_buffer_hits": 4}


def test_the_end_of_a_disk_is_no_part(mount, pool):
    make_image(os.path.join(pool, "web1.leaf"), 10 * BLOCK + 512)
    with mount() as live, opened(live.file("web1.img"), os.O_RDWR) as fd:
        before = disk_stats(live)
        write_all(fd, b"x" * (BLOCK + 512), 9 * BLOCK)
        assert moved(before, disk_stats(live)) == {"write_requests": 1, "write_bytes": BLOCK + 512, "write_misses": 2}


# ---- Reset -----------------------------------------------------------------------------


def command(path, text):
    with opened(path, os.O_WRONLY) as fd:
        os.write(fd, text)


def text_of(live, *names):
    return file_bytes(live.control(*names)).decode()


def test_reset_of_a_disk(mount, pool, web1):
    make_image(os.path.join(pool, "web2.leaf"), "1M")
    with mount() as live, opened(live.file("web1.img")) as fd, opened(live.file("web2.img")) as other:
        for target in (fd, other):
            write_all(target, b"x" * BLOCK, 0)
        path = live.control("disks", "web1.img", "stats")
        for bad in (b"rest", b"reset reset", b"RESET", b"0"):
            expect_errno(errno.EINVAL, command, path, bad)
            assert text_of(live, "disks", "web1.img", "last_error").endswith("expected: reset\n")
        assert disk_stats(live)["write_requests"] == 1
        command(path, b"reset\n")
        counted = disk_stats(live)
        assert counted.pop("since") > 0 and set(counted.values()) == {0}
        assert latency_of(live)[0]["write"]["requests"] == latency_of(live)[0]["write"]["max_us"] == 0
        assert disk_stats(live, "web2.img")["write_requests"] == 1 and stats(live)["write_requests"] == 2
        write_all(fd, b"x" * BLOCK, 0)
        assert disk_stats(live)["write_requests"] == latency_of(live)[0]["write"]["requests"] == 1


def test_reset_of_all(mount, web1):
    with mount() as live, opened(live.file("web1.img")) as fd:
        write_all(fd, b"x" * BLOCK, 0)
        expect_errno(errno.EINVAL, command, live.control("stats"), b"no")
        assert "expected: reset" in text_of(live, "last_error") and stats(live)["write_requests"] == 1
        command(live.control("stats"), b"reset")
        assert stats(live)["write_requests"] == disk_stats(live)["write_requests"] == 0
        write_all(fd, b"x" * BLOCK, 0)
        assert stats(live)["write_requests"] == disk_stats(live)["write_requests"] == 1


def test_reset_while_the_disk_is_used(mount, web1):
    """Nothing is counted twice, or less than nothing."""
    stop = threading.Event()
    with mount("threads=2") as live, opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        def use():
            memory = Aligned(BLOCK)
            while not stop.is_set():
                memory.write(fd, b"w" * BLOCK, 0)

        users = [threading.Thread(target=use) for _ in range(3)]
        for user in users:
            user.start()
        try:
            for _ in range(50):
                command(live.control("disks", "web1.img", "stats"), b"reset")
                counted = disk_stats(live)
                assert all(0 <= value < 1 << 50 for value in counted.values()), counted
        finally:
            stop.set()
            for user in users:
                user.join()


# ---- Latency -----------------------------------------------------------------------------


def test_latency_is_that_of_the_store(mount, pool, web1, other_store):
    """A store that takes 20 ms for each write: nothing is faster, and the buckets say so too."""
    memory = Aligned(BLOCK)
    with mount(env=other_store.slow(pool, 20)) as live, opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        for block in range(10):
            memory.write(fd, b"w" * BLOCK, block * BLOCK)
        command(live.control("disks", "web1.img", "stats"), b"reset")
        for block in range(10):
            memory.write(fd, b"w" * BLOCK, block * BLOCK)
        summaries, buckets = latency_of(live)
        write = summaries["write"]
        assert write["requests"] == 10 and write["p50_us"] >= 20000 and write["mean_us"] >= 20000, write
        assert write["p50_us"] <= write["p90_us"] <= write["p99_us"] <= write["p999_us"] <= write["max_us"], write
        assert sum(buckets["write"].values()) == 10 and min(buckets["write"]) > 20000
        assert summaries["read"]["requests"] == 0
        assert disk_stats(live)["write_ns"] >= 10 * 20_000_000
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", control_values(live, "disks", "web1.img", "latency")["since"])


def test_histograms_of_the_metrics(mount, pool, web1):
    make_image(os.path.join(pool, "idle.leaf"), "1M")
    with mount() as live, opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        memory = Aligned(BLOCK)
        for block in range(20):
            memory.write(fd, b"w" * BLOCK, block * BLOCK)
        os.fsync(fd)
        kinds, values = zip(*[parsed_metrics(text_of(live, "metrics"))[f"leafdisk_disk_{name}"]
                              for name in ("latency_seconds", "write_bytes_total", "write_misses_total", "state")])
        buckets = latency_of(live)[1]["write"]
        seconds = disk_stats(live)["write_ns"] / 1e9
        place = f'mount="{live.path}",disk="web1.img"'
    assert kinds == ("histogram", "counter", "counter", "gauge")
    assert values[1] == {place: 20 * BLOCK} and values[2] == {place: 20}
    assert values[3] == {f'mount="{live.path}",disk="{name}.img",state="active"': 1 for name in ("idle", "web1")}
    histogram = values[0]
    assert histogram[f'_count{{{place},op="write"}}'] == 20 and histogram[f'_count{{{place},op="flush"}}'] == 1
    assert abs(histogram[f'_sum{{{place},op="write"}}'] - seconds) < 1e-6
    assert not [labels for labels in histogram if "idle.img" in labels or 'op="read"' in labels]
    found = {float(le): count for labels, count in histogram.items()
             for le in re.findall(rf'^_bucket{{{re.escape(place)},op="write",le="(.*)"}}$', labels)}
    assert len(found) == 13 and max(found) == float("inf") and found[float("inf")] == 20
    for le, count in found.items():
        assert count == sum(number for end, number in buckets.items() if end / 1e6 <= le + 1e-12), le


# ---- Requests --------------------------------------------------------------------------------


def requests_of(live, name="web1.img"):
    """The numbers, and (op, offset, length, wait, phase) of each request, the oldest first."""
    numbers, requests, ages = {}, [], []
    for line in text_of(live, "disks", name, "requests").splitlines():
        key, value = line.split(": ", 1)
        if key != "request":
            numbers[key] = int(value)
            continue
        op, offset, length, age, phase, wait = value.split(" ")
        requests.append((op, int(offset), int(length), phase, wait))
        ages.append(int(age))
    assert ages == sorted(ages, reverse=True) and numbers["in_work"] + numbers["waiting"] == len(requests)
    assert numbers["oldest_ms"] >= max(ages, default=0)
    return numbers, requests


class Hung:
    """A disk on a store that has stopped, and requests to it from threads."""

    def __init__(self, live, store):
        self.live = live
        self.store = store
        self.threads = []
        halt(store.pid)

    def begin(self, function):
        """Its request is there when this returns."""
        before = len(requests_of(self.live)[1])
        self.threads.append(threading.Thread(target=function))
        self.threads[-1].start()
        wait_until(lambda: len(requests_of(self.live)[1]) > before, "the request")

    def end(self):
        os.kill(self.store.pid, signal.SIGCONT)
        while self.threads:
            self.threads.pop().join()


@pytest.fixture
def hung(mount, work):
    """hung(options...): a disk web1.img on a device that has stopped, and a file descriptor."""
    where = os.path.join(work, "store")
    os.mkdir(where)
    make_raw(os.path.join(where, "device.raw"), bytes(64 * MIB))
    conf = os.path.join(work, "leafdisk.conf")
    with contextlib.ExitStack() as stack:
        def begin(*options):
            store = mount(pool=where)
            loop = stack.enter_context(Loop(store.file("device.img")))
            with open(conf, "w", encoding="utf-8") as file:
                file.write(f"[pool]\nlayers = /dev\n[disk web1.img]\nlayers = raw:{loop.device}\n")
            live = stack.enter_context(mount(f"conf={conf}", *options))
            fd = stack.enter_context(opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT))
            Aligned(BLOCK).write(fd, b"1" * BLOCK, 0)
            hung = Hung(live, store)
            stack.callback(hung.end)
            return hung, fd

        yield begin


def writer(fd, length, offset):
    return lambda: Aligned(length).write(fd, b"2" * length, offset)


def test_requests_that_hang(hung):
    disk, fd = hung()
    disk.begin(writer(fd, 2 * BLOCK, BLOCK))
    disk.begin(writer(fd, BLOCK, 2 * BLOCK))
    disk.begin(lambda: Aligned(4 * BLOCK).read(fd, 4 * BLOCK, MIB))
    numbers, requests = requests_of(disk.live)
    assert requests == [("write", BLOCK, 2 * BLOCK, "write", "store"), ("write", 2 * BLOCK, BLOCK, "lock", "range"),
                        ("read", MIB, 4 * BLOCK, "read", "store")]
    assert (numbers["in_work"], numbers["waiting"], numbers["bytes"]) == (3, 0, 7 * BLOCK)
    wait_until(lambda: requests_of(disk.live)[0]["oldest_ms"] >= 1000, "a second", 30)
    disk.end()
    assert requests_of(disk.live) == ({"in_work": 0, "waiting": 0, "bytes": 0, "oldest_ms": 0}, [])
    assert latency_of(disk.live)[0]["write"]["max_us"] >= 1000_000


def test_requests_that_wait_for_their_turn(hung):
    disk, fd = hung("queue_depth=2", "threads=1")
    for block in range(4):
        disk.begin(writer(fd, BLOCK, 2 * block * BLOCK))
    numbers, requests = requests_of(disk.live)
    assert [request[3:] for request in requests] == [("write", "store")] * 2 + [("-", "turn")] * 2
    assert (numbers["in_work"], numbers["waiting"]) == (2, 2)


def test_requests_before_a_closed_gate(hung, work):
    """A change of the mode waits for what is in work, and what comes waits for it."""
    disk, fd = hung(f"cache={work}/cache", "cache_size=16M", "mode=direct")
    disk.begin(writer(fd, BLOCK, 0))
    path = disk.live.control("disks", "web1.img", "mode")
    change = threading.Thread(target=errno_of, args=(command, path, b"persistent"))
    change.start()
    disk.threads.append(change)

    def is_closed():
        disk.begin(writer(fd, BLOCK, MIB + len(disk.threads) * BLOCK))
        return requests_of(disk.live)[1][-1][3:] == ("-", "gate")

    wait_until(is_closed, "a request before the gate", 60, 0.2)
    assert requests_of(disk.live)[0]["waiting"] == 1
    disk.end()
    assert file_bytes(path) == b"persistent\n"


def test_requests_that_wait_for_migration(mount, cache, web1, gate):
    """What may be dirty is dirty, and the image takes nothing."""
    live = mount(f"cache={cache}", "mode=writeback", "cache_size=16M", "max_dirty=1M", "migrate_idle_ms=1",
                 env=faults("aio.write/web1.leaf:EIO", "image.write/web1.leaf:EIO", gate=gate.path))
    with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        gate.open()
        memory = Aligned(64 * KIB)

        def fill():
            for number in range(64):
                memory.write(fd, b"d" * 64 * KIB, number * 64 * KIB)

        thread = threading.Thread(target=fill)
        thread.start()
        try:
            wait_until(lambda: [request[3:] for request in requests_of(live)[1]] == [("write", "migration")],
                       "the write to wait")
        finally:
            gate.close()
            thread.join()
    live.stop()
