"""Who waits for whom: nothing waits for itself, and no disk for another's store.

Many clients do at once what needs background work that needs background work.
A daemon in which something stands still shows all its stacks."""
import contextlib
import itertools
import os
import threading

import pytest

import harness
from harness import (BLOCK, KIB, MIB, Aligned, Mount, discard, faults, leafctl, make_image, opened, wait_until,
                     write_all)
from stacks import stacks

# Nothing takes as long on a machine that is merely busy.
STANDSTILL_SECONDS = 60
CLIENTS = 24

REFUSED = faults("aio.setup:EAGAIN")
contexts = pytest.mark.parametrize("env", [{}, REFUSED], ids=["aio", "no-aio"])


class Clients:
    """Threads that each do something again and again, until enough of it is
    done. None may stand still."""

    def __init__(self, live):
        self.live = live
        self.threads = []
        self.stop = threading.Event()
        self.counts = {}
        self.errors = []

    def add(self, function, *arguments):
        number = len(self.threads)
        self.counts[number] = 0

        def body():
            try:
                while not self.stop.is_set():
                    function(*arguments)
                    self.counts[number] += 1
            except Exception as error:  # pylint: disable=broad-except
                self.errors.append(error)
                self.stop.set()

        self.threads.append(threading.Thread(target=body, daemon=True))

    def guard(self, condition, what):
        try:
            wait_until(condition, what, timeout=STANDSTILL_SECONDS)
        except AssertionError:
            print(stacks(self.live.pid))
            self.live.kill()
            raise

    def is_done(self, before, each):
        return self.stop.is_set() or min(self.counts.values()) >= each or sum(self.counts.values()) > before

    def run(self, each):
        """Until every one has done its work EACH times."""
        for thread in self.threads:
            thread.start()
        while not self.stop.is_set() and min(self.counts.values()) < each:
            before = sum(self.counts.values())
            self.guard(lambda: self.is_done(before, each), f"any of the clients to go on: {self.counts}")
        self.stop.set()
        for thread in self.threads:
            self.guard(lambda: not thread.is_alive(), "a client to end")
        assert not self.errors, self.errors


def make_disks(pool, count):
    return [make_image(os.path.join(pool, f"web{number}.leaf"), "64M") and f"web{number}.img"
            for number in range(count)]


@contexts
def test_resizes(pool, mount, env):
    """Each resize ends in a checkpoint, which needs a thread of its own."""
    names = make_disks(pool, CLIENTS)
    live = mount(env=env)
    clients = Clients(live)
    sizes = {name: itertools.count(64 * MIB + BLOCK, BLOCK) for name in names}
    for name in names:
        clients.add(lambda name=name: os.truncate(live.file(name), next(sizes[name])))
    clients.run(3)
    live.stop()


@contexts
def test_opens_and_discards(pool, mount, env):
    """An open for writing waits for the discards under way, which need threads."""
    make_image(os.path.join(pool, "web1.leaf"), "1G")
    live = mount(env=env)
    clients = Clients(live)

    def use(places):
        with opened(live.file("web1.img")) as fd:
            for _ in range(3):
                offset = next(places) % 1024 * MIB
                write_all(fd, b"y" * 8 * KIB, offset)
                discard(fd, offset, 64 * KIB)

    for number in range(CLIENTS):
        clients.add(use, itertools.count(number, CLIENTS))
    clients.run(4)
    live.stop()


def test_overflow_while_opened(pool, work, mount):
    """The write that needs the overflow layer first is one that an open waits for."""
    make_image(os.path.join(pool, "web1.leaf"), "1G")
    live = mount("mode=ephemeral", f"cache={os.path.join(work, 'cache')}", "cache_size=16M")
    clients = Clients(live)
    offsets = itertools.count(0, MIB)
    memory = Aligned(MIB)
    writer = os.open(live.file("web1.img"), os.O_RDWR | os.O_DIRECT)

    def use():
        with opened(live.file("web1.img")):
            pass

    clients.add(lambda: memory.write(writer, b"q" * MIB, next(offsets)))
    for _ in range(4):
        clients.add(use)
    clients.run(48)
    os.close(writer)
    assert "takes no more of it; the rest goes to the pool" in live.messages()
    live.stop()


@contexts
def test_seeks_while_modes_change(pool, work, mount, env):
    """Seeks wait before the closed gate, and the batches behind it need threads."""
    make_image(os.path.join(pool, "web1.leaf"), "64M")
    live = mount("mode=writeback", f"cache={os.path.join(work, 'cache')}", "cache_size=64M", env=env)
    clients = Clients(live)
    modes = itertools.cycle(["direct", "writeback"])
    offsets = itertools.count(0, 64 * KIB)
    fd = os.open(live.file("web1.img"), os.O_RDWR)

    def seek():
        with contextlib.suppress(OSError):
            os.lseek(fd, 0, os.SEEK_DATA)

    clients.add(lambda: leafctl("mode", live.file("web1.img"), next(modes)))
    clients.add(lambda: write_all(fd, b"x" * BLOCK, next(offsets) % (64 * MIB)))
    for _ in range(CLIENTS):
        clients.add(seek)
    clients.run(6)
    os.close(fd)
    live.stop()


@contexts
def test_closes_that_write_checkpoints(pool, mount, env):
    names = make_disks(pool, CLIENTS)
    live = mount(env=env)
    clients = Clients(live)

    def use(name, sizes):
        with opened(live.file(name)) as fd:
            write_all(fd, b"z" * 4 * KIB, 0)
            os.ftruncate(fd, next(sizes))
            write_all(fd, b"z" * 4 * KIB, MIB)

    for name in names:
        clients.add(use, name, itertools.count(64 * MIB + BLOCK, BLOCK))
    clients.run(3)
    live.stop()


@pytest.mark.parametrize("kind", ["leafdisk-wait", "leafdisk-step"])
def test_no_more_threads(pool, mount, kind):
    """The kernel gives one thread of a kind: it does the work in its order."""
    make_image(os.path.join(pool, "web1.leaf"), "64M")
    live = mount("manage", env=faults(f"workers.thread/{kind}:EAGAIN@2"))
    clients = Clients(live)

    def use():
        with opened(live.file("web1.img")) as fd:
            write_all(fd, b"y" * 8 * KIB, 0)
            discard(fd, 0, 64 * KIB)

    def create_and_remove(name):
        with opened(os.path.join(pool, name), os.O_CREAT | os.O_RDWR) as fd:
            os.ftruncate(fd, MIB)
        with opened(live.file(name)) as fd:
            write_all(fd, b"y" * BLOCK, 0)
        os.unlink(live.file(name))  # which waits for the close

    for _ in range(4):
        clients.add(use)
    for number in range(4):
        clients.add(create_and_remove, f"new{number}.img")
    clients.run(4)
    live.stop()


def test_no_thread_at_all(pool, work):
    """No mount that could not serve."""
    make_image(os.path.join(pool, "web1.leaf"), "64M")
    with pytest.raises(harness.MountError, match="cannot start a background thread"):
        Mount(pool, work, env=faults("workers.thread:EAGAIN")).start()


# ---- A disk whose requests wait ----------------------------------------------------

WRITERS = 1000


class Writers:
    """Threads that each write one block of a disk, directly, and wait for the answer."""

    def __init__(self, path, count, size=BLOCK):
        self.fd = os.open(path, os.O_RDWR | os.O_DIRECT)
        self.answered = 0
        self.errors = []
        self.size = size
        self.threads = [threading.Thread(target=self.write, args=[number], daemon=True) for number in range(count)]
        for thread in self.threads:
            thread.start()

    def write(self, number):
        memory = Aligned(self.size)
        try:
            memory.write(self.fd, bytes([number % 251 + 1]) * self.size, number * self.size)
            self.answered += 1
        except OSError as error:
            self.errors.append(error)

    def finish(self):
        for thread in self.threads:
            thread.join(STANDSTILL_SECONDS)
        assert not any(thread.is_alive() for thread in self.threads)
        os.close(self.fd)


def use_another(live, pool):
    """Everything there is to another disk, and beside it."""
    memory = Aligned(64 * KIB)
    with opened(live.file("web2.img"), os.O_RDWR | os.O_DIRECT) as fd:
        for number in range(20):
            memory.write(fd, bytes([number + 1]) * 64 * KIB, number * 64 * KIB)
            assert memory.read(fd, 64 * KIB, number * 64 * KIB) == bytes([number + 1]) * 64 * KIB
        os.fsync(fd)
        discard(fd, 0, 64 * KIB)
    with opened(live.file("web2.img")) as fd:
        write_all(fd, b"x" * 1000, 123)
        os.fsync(fd)
        assert os.pread(fd, 1000, 123) == b"x" * 1000
    make_image(os.path.join(pool, "late.leaf"), "1M")
    assert "late.img" in live.names()
    with open(live.control("disks", "web1.img", "state"), encoding="ascii") as file:
        assert file.read()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [BLOCK, BLOCK // 8], ids=["blocks", "parts"])
def test_writers_of_a_disk_that_waits_take_nothing_from_another(mount, pool, work, threads, size):
    """Its image gives an error that is tried again for as long as io_timeout says."""
    gate = harness.Gate(work)
    for name in ("web1", "web2"):
        make_image(os.path.join(pool, f"{name}.leaf"), "64M")
    live = mount(f"threads={threads}", "io_timeout=600",
                 env=faults("aio.write/web1.leaf:EAGAIN", "aio.read/web1.leaf:EAGAIN", gate=gate.path))
    gate.open()
    writers = Writers(live.file("web1.img"), WRITERS, size)
    wait_until(lambda: harness.state_of(live)["state"] != "active", "the disk to wait")
    user = threading.Thread(target=use_another, args=[live, pool], daemon=True)
    user.start()
    user.join(STANDSTILL_SECONDS)
    stood_still = user.is_alive()
    answered = writers.answered
    gate.close()
    writers.finish()
    user.join(STANDSTILL_SECONDS)
    assert not stood_still
    assert answered < WRITERS and writers.answered == WRITERS and not writers.errors
    live.stop()
    leafctl("check", os.path.join(pool, "web1.leaf"))
