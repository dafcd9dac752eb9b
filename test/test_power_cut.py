"""A loss of power under pool and cache together while snapshots and forks are made.

Both lie on an ext4 on a disk of another mount, whose trace has every sector that the file system wrote, and every
flush. So each state that the storage can have been in is one of the file system, its journal and names among it."""
import contextlib
import os
import struct

import pytest

from harness import (BLOCK, MIB, SANITIZED, Loop, check_clean, converted, leafctl, make_image, make_raw, opened, read_file, run,
                     scaled, write_all)
from test_powerloss import Traced
from test_snapshots import command, marks, options_of, sealed

SIZE = MIB
STORE = 96 * MIB
STEMS = {"web1": ".leaf", "web2": ".raw"}
STEPS = scaled(24, 120)
STATES = scaled(4 if SANITIZED else 8, 300)
STAMP = struct.Struct("<QQ")


def stamped(block, version):
    return STAMP.pack(block, version) * (BLOCK // STAMP.size)


class Disk:
    """What its one guest has written: the version of each block, and what was durable at which length of the trace."""

    def __init__(self, name):
        self.name, self.versions, self.durable = name, [0] * (SIZE // BLOCK), [(0, [0] * (SIZE // BLOCK))]
        self.version = 0

    def change(self, live, rng, length_of_trace):
        with opened(live.file(self.name)) as fd:
            for _ in range(rng.randrange(1, 12)):
                block = rng.randrange(len(self.versions))
                self.version += 1
                write_all(fd, stamped(block, self.version), block * BLOCK)
                self.versions[block] = self.version
            if rng.random() < 0.7:
                os.fsync(fd)
                self.durable.append((length_of_trace(), list(self.versions)))

    def least(self, position):
        return [versions for length, versions in self.durable if length <= position][-1]


def versions_of(content):
    """Of each block; it is one write's, whole."""
    versions = []
    for block in range(SIZE // BLOCK):
        data = content[block * BLOCK:(block + 1) * BLOCK]
        version = STAMP.unpack_from(data)[1]
        assert data == (stamped(block, version) if version else bytes(BLOCK)), f"block {block} is mixed"
        versions.append(version)
    return versions


class Machine:
    """The file system that pool and cache are on, and the mount that shows its disk."""

    def __init__(self, mount, work):
        self.mount, self.work = mount, work
        self.place = os.path.join(work, "store")
        self.path = os.path.join(self.place, "store.raw")
        self.fs = os.path.join(work, "fs")
        self.pool = os.path.join(self.fs, "pool")
        os.makedirs(self.place)

    @contextlib.contextmanager
    def up(self, trace=None):
        with self.mount(pool=self.place, env={"LEAFDISK_TRACE": trace} if trace else None) as outer:
            loop = Loop(outer.file("store.img"))
            if not os.path.exists(self.fs):
                run("mke2fs", "-q", "-t", "ext4", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", loop.device)
            loop.mount(self.fs, "-o", "nodiscard")
            # Zeros that the device is asked for are in no trace.
            with open(f"/sys/fs/ext4/{os.path.basename(loop.device)}/extent_max_zeroout_kb", "w", encoding="ascii") as file:
                file.write("0")
            try:
                yield
            finally:
                loop.detach()

    def options(self, mode):
        return options_of(self.fs, mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["writeback", "persistent", "direct"])
def test_snapshots_and_forks(mount, work, rng, mode):
    machine = Machine(mount, work)
    make_raw(machine.path, bytes(STORE))
    with machine.up():
        os.makedirs(machine.pool)
        make_image(os.path.join(machine.pool, "web1.leaf"), SIZE)
        make_raw(os.path.join(machine.pool, "web2.raw"), bytes(SIZE))
    trace = os.path.join(work, "trace.bin")
    traced = Traced(machine.path, trace, "store.raw")
    disks = [Disk(f"{stem}.img") for stem in STEMS]
    taken, forked = [], []  # (trace before, trace after, name, versions of each disk)

    def length():
        return os.stat(trace).st_size

    with machine.up(work), mount(*machine.options(mode), pool=machine.pool) as live:
        for step in range(STEPS):
            for disk in disks:
                disk.change(live, rng, length)
            before = length()
            if step % 4 == 1:
                command(live.control("snapshots"), f"create s{step} web1.img web2.img")
                taken.append((before, length(), f"s{step}", [list(disk.versions) for disk in disks]))
            if step % 4 == 3:
                command(live.control("disks", "web2.img", "snapshots"), f"fork f{step}.img")
                forked.append((before, length(), f"f{step}.img", list(disks[1].versions)))
    traced.load()
    for _ in range(STATES):
        # Most of the states are in the middle of a snapshot or a fork, or when it has just been answered.
        begin, end, *_ = rng.choice(taken + forked)
        position = rng.choice([rng.randrange(os.stat(trace).st_size), rng.randrange(begin, end + 1), end, end])
        traced.write_state_at(rng, position)
        with machine.up():
            verify(machine, mount, mode, position, disks, taken, forked)


def verify(machine, mount, mode, position, disks, taken, forked):
    pool, what = machine.pool, f"power lost at {position}"
    with mount(*machine.options(mode), pool=pool) as live:
        for disk in disks:
            found = versions_of(read_file(live.file(disk.name), SIZE))
            for block, (version, least) in enumerate(zip(found, disk.least(position))):
                assert version >= least, f"{what}: {disk.name} has version {version} of block {block}, not {least}"
        for begin, end, name, versions in forked:
            if name in live.names():
                assert begin <= position, f"{what}: {name} was not asked for yet"
                assert versions_of(read_file(live.file(name), SIZE)) == versions, f"{what}: {name}"
            else:
                assert position < end, f"{what}: {name} is gone"
        leafctl("drain", live.path)
    assert marks(pool) == [], what
    assert not [name for name in os.listdir(pool) if name.startswith(".") and name != ".leafdisk"], what
    leafctl("check", pool)
    for begin, end, name, versions in taken:
        made = [image for stem in STEMS for image in sealed_as(pool, name, stem)]
        assert len(made) in (0, 2), f"{what}: one disk of {name}, and not the other"
        assert made or position < end, f"{what}: {name} is gone"
        assert not made or begin <= position, f"{what}: {name} was not asked for yet"
        for image, expected in zip(made, versions):
            check_clean(image)
            assert versions_of(converted(image, machine.work)) == expected, f"{what}: {image}"


def sealed_as(pool, tag, stem):
    return [path for path in (sealed(pool, tag, stem, suffix) for suffix in (".leaf", ".raw")) if os.path.exists(path)]
