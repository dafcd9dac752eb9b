"""Many disks and long chains cost what they should."""
import os
import re
import resource

import pytest

from harness import (BLOCK, KIB, MIB, SANITIZED, Aligned, Stopwatch, leafctl, make_image, make_raw, opened, program,
                     run, write_all)
from test_writeback_faults import HELD

DISKS = 2000
MOUNT_SECONDS = 2.0
DISK_BYTES = 64 * KIB

not_under_sanitizers = pytest.mark.skipif(SANITIZED, reason="sanitizers change what is measured here")


def fill_pool(pool, disks):
    base = make_raw(os.path.join(pool, "base.raw"), os.urandom(MIB))
    leafctl("clone", base, *[os.path.join(pool, f"web{number}.leaf") for number in range(disks)])


def resident_bytes(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return int(re.search(r"^Rss:\s+(\d+) kB", file.read(), re.M).group(1)) * KIB


def list_all(live):
    """As ls -l does; the number of disks."""
    return sum(entry.stat().st_size > 0 for entry in os.scandir(live.path) if entry.name.endswith(".img"))


@pytest.mark.alone
@not_under_sanitizers
def test_two_thousand_disks_mount_in_two_seconds(mount, pool):
    fill_pool(pool, DISKS)
    seconds = []
    for _ in range(3):
        watch = Stopwatch()
        with mount() as live:
            seconds.append(watch.seconds(live.pid))
            assert list_all(live) == DISKS + 1
        if min(seconds) < MOUNT_SECONDS:
            break
    assert min(seconds) < MOUNT_SECONDS, f"{DISKS} disks took {seconds} s"


def idle_bytes(mount, pool, disks):
    """Resident memory of a daemon that has listed DISKS disks, that holds them
    open, and that has closed them again."""
    with mount(pool=pool) as live:
        assert list_all(live) == disks + 1
        listed = resident_bytes(live.pid)
        fds = [os.open(live.file(f"web{number}.img"), os.O_RDWR) for number in range(disks)]
        for fd in fds:
            assert len(os.pread(fd, BLOCK, 0)) == BLOCK
        held = resident_bytes(live.pid)
        for fd in fds:
            os.close(fd)
        return listed, held


@pytest.mark.slow
@not_under_sanitizers
def test_an_idle_disk_takes_little_memory(mount, work, request):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard[1], hard[1]))
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, hard))
    measured = {}
    for disks in (1, DISKS):
        pool = os.path.join(work, f"pool{disks}")
        os.mkdir(pool)
        fill_pool(pool, disks)
        measured[disks] = idle_bytes(mount, pool, disks)
    for state, few, many in zip(("listed", "open"), measured[1], measured[DISKS]):
        cost = (many - few) / (DISKS - 1)
        assert cost < DISK_BYTES, f"a disk that is {state} takes {cost / KIB:.1f} KiB"


CHAIN_BYTES = 16 * MIB


def build_chain(pool, layers, mount):
    """The lowest layer holds all; each one above has one block of its own."""
    parent = make_image(os.path.join(pool, "l0.leaf"), CHAIN_BYTES)
    with mount(pool=pool) as live, opened(live.file("l0.img")) as fd:
        write_all(fd, os.urandom(CHAIN_BYTES), 0)
    for number in range(1, layers):
        parent = make_image(os.path.join(pool, f"l{number}.leaf"), parent=parent)
        with mount(pool=pool) as live, opened(live.file(f"l{number}.img")) as fd:
            write_all(fd, os.urandom(BLOCK), number * 37 * BLOCK)
    return f"l{layers - 1}.img"


# From a read's beginning to its submission, and from its data to the reply. The
# turns of the loop that find nothing depend on time, and are left out; so is what
# libfuse does before, whose memory costs what the state of the heap makes it cost.
COUNTED = ("op_read", "transfer_done")


def instructions_of_reads(mount, pool, work, name, reads):
    """Instructions that the daemon spends in READS reads of 4 KiB."""
    output = os.path.join(work, f"callgrind.{os.path.basename(pool)}.{reads}")
    wrapper = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={output}",
               *(f"--toggle-collect={name}" for name in COUNTED)]
    memory = Aligned(BLOCK)
    with mount(pool=pool, wrapper=wrapper) as live:
        with opened(live.file(name), os.O_RDONLY | os.O_DIRECT) as fd:
            for number in range(reads):
                block = number * 7919 % (CHAIN_BYTES // BLOCK)
                assert len(memory.read(fd, BLOCK, block * BLOCK)) == BLOCK
    with open(output, encoding="utf-8", errors="replace") as file:
        return int(re.search(r"^(?:totals|summary): (\d+)", file.read(), re.M).group(1))


@pytest.mark.alone
@not_under_sanitizers
def test_a_long_chain_reads_like_a_short_one(mount, work):
    """64 layers and one on a base: at most five in a hundred more instructions
    for a read that the base answers."""
    cost = {}
    for layers in (2, 64):
        pool = os.path.join(work, f"pool{layers}")
        os.mkdir(pool)
        name = build_chain(pool, layers, mount)
        few, many = (instructions_of_reads(mount, pool, work, name, reads) for reads in (500, 3500))
        cost[layers] = (many - few) / 3000
    assert cost[64] <= cost[2] * 1.05, f"instructions a read: {cost}"


def processor_ns(pid):
    spent = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as file:
            spent += int(file.read().split()[0])
    return spent


def cost_of_telling_what_is_dirty(mount, pool, disks):
    """For the daemon, while the cache has changes of DISKS disks."""
    os.mkdir(pool)
    for number in range(disks):
        make_raw(os.path.join(pool, f"web{number}.raw"), bytes(BLOCK))
    live = mount(f"cache={pool}.cache", "cache_size=64M", "mode=writeback", *HELD, pool=pool)
    for number in range(disks):
        with opened(live.file(f"web{number}.img")) as fd:
            write_all(fd, b"1" * BLOCK, 0)
    before = processor_ns(live.pid)
    for _ in range(20):
        with open(live.control("drain"), encoding="ascii") as file:
            assert int(file.read()) == disks * BLOCK
    spent = processor_ns(live.pid) - before
    live.kill9()
    return spent


@pytest.mark.alone
@not_under_sanitizers
def test_telling_what_is_dirty_costs_each_disk_the_same(mount, work):
    """A drain asks ten times a second."""
    few, many = (cost_of_telling_what_is_dirty(mount, os.path.join(work, f"pool{disks}"), disks) for disks in (200, 800))
    assert many < 7 * few, f"{few} ns for 200 disks, {many} ns for 800"


@pytest.mark.alone
def test_help_starts_at_once():
    """No verb pays for what it does not use."""
    seconds = []
    for _ in range(5):
        before = os.times()
        run(program("leafctl"), "--version")
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(seconds) < 0.5
