"""A store that is slow or hangs: loops never wait for it, and another disk's users do not.

slow_store.c, preloaded into the daemon, delays its calls on files of the pool,
and writes down which thread made each."""
import contextlib
import errno
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from glob import glob

import pytest

from harness import (ALLOCATE_ZERO_RANGE, BLOCK, BUILD, KIB, MIB, TREE, Aligned, Gate, Mount, MountError,
                     control_values, converted, discard, expect_errno, fallocate, leafctl, make_image, make_raw, opened,
                     program, read_file, run, state_of, stats, unmount, wait_until, write_all, zero_range)

SLOW_MS = 5
PATIENCE_OF_A_LOOK = 2  # seconds for an image that hangs
RUNTIMES = {"asan": "libasan.so", "tsan": "libtsan.so", "ubsan": "libubsan.so"}


def preloads(library):
    """A sanitizer's runtime must come first."""
    runtime = RUNTIMES.get(os.path.basename(BUILD))
    return [run("cc", f"-print-file-name={runtime}").stdout.strip()] * bool(runtime) + [library]


class Store:
    """How the pool's store is, for a daemon that has its environment."""

    def __init__(self, pool, work):
        library = os.path.join(work, "slow_store.so")
        run("cc", "-shared", "-fPIC", "-O1", "-o", library, os.path.join(TREE, "test", "slow_store.c"), "-ldl")
        self.gate = Gate(work, "slow")
        self.log = os.path.join(work, "calls")
        self.env = {"LD_PRELOAD": ":".join(preloads(library)), "SLOW_POOL": pool, "SLOW_GATE": self.gate.path,
                    "SLOW_LOG": self.log}

    def calls(self):
        """(thread is a loop's, name of the call) of each."""
        for thread, process, name, call, _ in self.lines():
            yield thread == process or name == "leafdisk-loop", call

    def calls_on(self, part):
        """Of files with PART in their path: how many times each call."""
        return Counter(call for _, _, _, call, path in self.lines() if part in path)

    def lines(self):
        with open(self.log, encoding="utf-8") as file:
            for line in file:
                yield line.split(" ", 4)


@pytest.fixture
def store(pool, work):
    return Store(pool, work)


def ask(fd, *words):
    """stat(1) of an open file; the kernel has to ask the daemon."""
    return run("stat", "-L", "--cached=never", *words, f"/proc/self/fd/{fd}", pass_fds=[fd]).stdout.strip()


def use_everything(live, memory):
    """Every operation on web1, and on names beside it."""
    path = live.file("web1.img")
    with opened(path) as fd:
        for offset in range(0, 3 * MIB, MIB):
            write_all(fd, b"a" * 64 * KIB, offset)
        os.fsync(fd)
        discard(fd, 0, 128 * KIB)
        zero_range(fd, MIB, 128 * KIB)
        os.lseek(fd, 0, os.SEEK_DATA)
        ask(fd)
        os.ftruncate(fd, 65 * MIB)
    with opened(path, os.O_RDWR | os.O_DIRECT) as fd:
        memory.write(fd, b"b" * 64 * KIB, 2 * MIB)
        memory.read(fd, 64 * KIB, 2 * MIB)
        discard(fd, 2 * MIB, 64 * KIB)
    os.stat(path)
    os.statvfs(path)
    os.listdir(live.path)
    state_of(live)
    control_values(live, "disks", "web1.img", "info")
    leafctl("mode", path, "direct")
    make_new(live)
    os.rename(live.file("new.img"), live.file("newer.img"))
    os.unlink(live.file("newer.img"))


def make_new(live):
    with opened(live.file("new.img"), os.O_RDWR | os.O_CREAT) as fd:
        os.ftruncate(fd, MIB)


@pytest.mark.parametrize("leaf", ["web1.leaf", "web1.raw"])
@pytest.mark.parametrize("mode", ["direct", "writeback"])
def test_no_call_from_a_loop(pool, work, mount, store, mode, leaf):
    if leaf.endswith(".raw"):
        make_raw(os.path.join(pool, leaf), bytes(64 * MIB))
    else:
        make_image(os.path.join(pool, leaf), "64M")
    live = mount("manage", f"mode={mode}", f"cache={os.path.join(work, 'cache')}", "cache_size=64M",
                 env={**store.env, "SLOW_MS": str(SLOW_MS)})
    store.gate.open()
    use_everything(live, Aligned(MIB))
    store.gate.close()
    calls = list(store.calls())
    assert {"open", "stat", "close"} <= {call for _, call in calls}
    # A loop is relayed when a submission takes long: below.
    assert {call for by_loop, call in calls if by_loop} <= {"submit"}
    live.stop()


def test_a_change_of_names_reads_no_other_image(pool, mount, store):
    """Others are compared with what is known of them, once for each name that was not known."""
    others = 30
    for number in range(others):
        make_image(os.path.join(pool, f"other{number}.leaf"), "1M")
    time.sleep(0.1)  # a younger file may change without another time
    live = mount("manage", env=store.env)
    assert len(live.names()) == others
    store.gate.open()
    make_new(live)
    os.rename(live.file("new.img"), live.file("newer.img"))
    os.unlink(live.file("newer.img"))
    store.gate.close()
    assert store.calls_on("new")
    calls = store.calls_on("/other")
    assert set(calls) <= {"stat"} and calls["stat"] <= 4 * others


def test_a_broken_image_costs_no_look_at_the_others(pool, mount, work, store):
    """It alone is looked at again when somebody asks for a name that there is not, until it is whole."""
    make_image(os.path.join(pool, "other.leaf"), MIB)
    good = make_image(os.path.join(work, "good.leaf"), MIB)
    broken = os.path.join(pool, "broken.leaf")
    make_raw(broken, bytes(os.path.getsize(good)))
    live = mount(env=store.env)
    wait_until(lambda: live.names() == ["other.img"] and time.time() > os.stat(pool).st_mtime + 2, "a pool that is old")
    live.names()
    store.gate.open()
    for number in range(5):
        assert not os.path.exists(live.file(f"nothing{number}.img"))
    store.gate.close()
    assert store.calls_on("broken.leaf")
    assert not store.calls_on("other.leaf")
    run("dd", f"if={good}", f"of={broken}", "conv=notrunc,fsync", "status=none")
    wait_until(lambda: live.names() == ["broken.img", "other.img"], "the image that is whole now to be shown")


def test_a_known_disk_is_found_while_the_pool_cannot_be_looked_at(pool, mount, store):
    for name in ("web1", "web2", "web3"):
        make_image(os.path.join(pool, f"{name}.leaf"), "1M")
    live = mount(env={**store.env, "SLOW_HANG": "web1.leaf"})
    live.names()
    make_image(os.path.join(pool, "web4.leaf"), "1M")
    listing = threading.Thread(target=os.listdir, args=[live.path])
    store.gate.open()
    listing.start()
    wait_until(lambda: os.path.exists(store.log) and store.calls_on("web1.leaf"), "the listing looks at web1")
    with opened(live.file("web2.img")) as fd:
        write_all(fd, b"b" * BLOCK, 0)
        os.fsync(fd)
    assert os.stat(live.file("web3.img")).st_size == MIB
    store.gate.close()
    listing.join(30)
    assert not listing.is_alive() and "web4.img" in live.names()


@pytest.mark.parametrize("hanging", ["base.raw", "web0.leaf"])
def test_names_beside_an_image_that_hangs(pool, mount, store, hanging):
    """It is waited for a moment, once, by whoever lists or changes names; and then it is
    as it was. What is new below a base that hangs is shown when that answers."""
    make_raw(os.path.join(pool, "base.raw"), bytes(MIB))
    for number in range(8):
        make_image(os.path.join(pool, f"web{number}.leaf"), parent=os.path.join(pool, "base.raw"))
    live = mount("manage", env={**store.env, "SLOW_HANG": hanging})
    names = live.names()
    make_image(os.path.join(pool, "late.leaf"), parent=os.path.join(pool, "base.raw"))
    store.gate.open()
    known = {name for name in live.names() if name != "late.img"}
    assert known == set(names)
    make_new(live)
    os.rename(live.file("new.img"), live.file("newer.img"))
    assert "newer.img" in live.names()
    os.unlink(live.file("newer.img"))
    assert "its store does not answer" in live.messages()
    assert ("late.img" in live.names()) == (hanging != "base.raw")
    store.gate.close()
    wait_until(lambda: live.names() == sorted([*names, "late.img"]), "the store answers")


def test_a_parent_that_hangs_while_its_child_is_renamed(pool, mount, store):
    """It stays read-only by the child's word."""
    base = make_image(os.path.join(pool, "base.leaf"), "1M")
    make_image(os.path.join(pool, "web1.leaf"), parent=base)
    live = mount("manage", env={**store.env, "SLOW_HANG": "base.leaf"})
    live.names()
    time.sleep(0.1)
    live.names()
    store.gate.open()
    os.rename(live.file("web1.img"), live.file("web2.img"))
    store.gate.close()
    expect_errno(errno.EROFS, os.open, live.file("base.img"), os.O_RDWR)
    wait_until(lambda: live.names() == ["base.img", "web2.img"], "the store answers")


def test_a_mount_begins_beside_an_image_that_hangs(pool, mount, store):
    for name in ("web1", "web2"):
        make_image(os.path.join(pool, f"{name}.leaf"), "1M")
    store.gate.open()
    live = mount(env={**store.env, "SLOW_HANG": "web1.leaf"})
    assert live.names() == ["web2.img"]
    with opened(live.file("web2.img")) as fd:
        write_all(fd, b"b" * BLOCK, 0)
    store.gate.close()
    wait_until(lambda: live.names() == ["web1.img", "web2.img"], "the store answers")


def test_a_mount_begins_beside_many_images_that_hang(pool, mount, store):
    """They are not waited for one after the other."""
    count = 40
    for number in range(count):
        make_image(os.path.join(pool, f"hung{number}.leaf"), "1M")
    make_image(os.path.join(pool, "web1.leaf"), "1M")
    store.gate.open()
    begun = time.monotonic()
    live = mount(env={**store.env, "SLOW_HANG": "/hung"})
    assert time.monotonic() - begun < count * PATIENCE_OF_A_LOOK / 2
    assert live.names() == ["web1.img"]
    store.gate.close()
    wait_until(lambda: len(live.names()) == count + 1, "the store answers")


def test_a_drained_disk_is_renamed_while_it_is_being_closed(pool, work, mount, store):
    make_image(os.path.join(pool, "web1.leaf"), "1M")
    live = mount("manage", "mode=writeback", f"cache={os.path.join(work, 'cache')}", "cache_size=64M",
                 env={**store.env, "SLOW_MS": "100"})
    with opened(live.file("web1.img")) as fd:
        write_all(fd, b"a" * BLOCK, 0)
        os.fsync(fd)
    store.gate.open()
    leafctl("drain", live.file("web1.img"))
    os.rename(live.file("web1.img"), live.file("web2.img"))
    store.gate.close()
    with opened(live.file("web2.img")) as fd:
        assert os.pread(fd, BLOCK, 0) == b"a" * BLOCK
    live.stop()


@pytest.mark.parametrize("skipped", [0, 6])
def test_a_base_that_hangs_holds_up_no_open_of_another_chain(pool, mount, store, skipped):
    """When it is looked for, and when it is opened."""
    for number in (1, 2):
        base = make_raw(os.path.join(pool, f"base{number}.raw"), bytes(MIB))
        for clone in "ab":
            make_image(os.path.join(pool, f"web{number}{clone}.leaf"), parent=base)
    live = mount(env={**store.env, "SLOW_HANG": "base1.raw", "SLOW_SKIP": str(skipped)})
    live.names()
    store.gate.open()
    hanging = [threading.Thread(target=read_file, args=[live.file(f"web1{clone}.img"), BLOCK]) for clone in "ab"]
    for thread in hanging:
        thread.start()
    wait_until(lambda: os.path.exists(store.log) and store.calls_on("base1.raw"), "an open to hang")
    for clone in "ab":
        assert read_file(live.file(f"web2{clone}.img"), BLOCK) == bytes(BLOCK)
    assert all(thread.is_alive() for thread in hanging)
    store.gate.close()
    for thread in hanging:
        thread.join(60)
        assert not thread.is_alive()


@contextlib.contextmanager
def hanging_open(live, store, hangs):
    """web1.img is being opened, which waits for the file HANGS."""
    thread = threading.Thread(target=read_file, args=[live.file("web1.img"), BLOCK])
    store.gate.open()
    thread.start()
    try:
        wait_until(lambda: os.path.exists(store.log) and store.calls_on(hangs), "an open to hang")
        yield
        assert thread.is_alive()
    finally:
        store.gate.close()
        thread.join(60)
    assert not thread.is_alive()


def told_by(*command):
    """By a thread of its own: a process whose read is not answered cannot be killed."""
    text = []
    thread = threading.Thread(target=lambda: text.append(run(*command, timeout=None).stdout), daemon=True)
    thread.start()
    thread.join(60)
    assert text, f"{command} hangs"
    return text[0]


def read_control(live, *names):
    return told_by("cat", live.control(*names))


@pytest.mark.parametrize("mode", ["persistent", "writeback"])
def test_the_state_while_an_open_hangs(pool, work, mount, store, mode):
    """Of the disk, and what the mount tells of all."""
    base = make_raw(os.path.join(pool, "base.raw"), bytes(MIB))
    make_image(os.path.join(pool, "web1.leaf"), parent=base)
    make_image(os.path.join(pool, "web2.leaf"), "1M")
    live = mount(f"mode={mode}", f"cache={os.path.join(work, 'cache')}", "cache_size=64M",
                 env={**store.env, "SLOW_HANG": "base.raw"})
    live.names()
    with hanging_open(live, store, "base.raw"):
        assert read_control(live, "disks", "web1.img", "state").startswith("state: active\n")
        assert read_control(live, "disks", "web1.img", "mode") == f"{mode}\n"
        for name in ("stats", "metrics", "drain"):
            assert read_control(live, name)
        assert "web1.img" in told_by(program("leafctl"), "status", live.path)


def test_what_is_dirty_beside_a_closed_disk_that_hangs(pool, work, mount, store):
    for name in ("web1", "web2"):
        make_image(os.path.join(pool, f"{name}.leaf"), "1M")
    live = mount("mode=writeback", f"cache={os.path.join(work, 'cache')}", "cache_size=64M", "migrate_idle_ms=60000",
                 env={**store.env, "SLOW_HANG": "web1.leaf"})
    live.names()
    with opened(live.file("web2.img")) as fd:
        write_all(fd, b"b" * BLOCK, 0)
        os.fsync(fd)
        store.gate.open()
        try:
            assert f'"dirty_bytes": {BLOCK}\n' in read_control(live, "stats")
            assert "dirty_bytes: 0\n" in read_control(live, "disks", "web1.img", "state")
            assert "web1.img" in told_by(program("leafctl"), "status", live.path)
            leafctl("drain", live.path, timeout=60)
            assert state_of(live, "web2.img")["dirty_bytes"] == "0"
        finally:
            store.gate.close()


def test_the_state_while_the_whole_pool_hangs(pool, work, mount, store):
    """Of all that is known, each time; and what is new is told when the pool answers."""
    for name in ("web1", "web2"):
        make_image(os.path.join(pool, f"{name}.leaf"), "1M")
    live = mount("mode=writeback", f"cache={os.path.join(work, 'cache')}", "cache_size=64M", "migrate_idle_ms=60000",
                 env={**store.env, "SLOW_HANG": pool})
    live.names()
    with opened(live.file("web1.img")) as fd:
        write_all(fd, b"b" * BLOCK, 0)
        os.fsync(fd)
        make_image(os.path.join(pool, "web3.leaf"), "1M")
        store.gate.open()
        try:
            for _ in range(2):
                told = told_by(program("leafctl"), "status", live.path)
                assert "web1.img" in told and "web2.img" in told and "web3.img" not in told
        finally:
            store.gate.close()
        assert "web3.img" in told_by(program("leafctl"), "status", live.path)


def test_one_disk_hangs(pool, mount, store):
    """Many opens of it wait; who has another disk open goes on."""
    for name in ("web1", "web2"):
        make_image(os.path.join(pool, f"{name}.leaf"), "64M")
    live = mount(env={**store.env, "SLOW_HANG": "web1.leaf"})
    os.listdir(live.path)
    hanging = [threading.Thread(target=lambda: os.close(os.open(live.file("web1.img"), os.O_RDWR)))
               for _ in range(12)]
    with opened(live.file("web2.img")) as other:
        write_all(other, b"b" * 64 * KIB, 0)
        os.fsync(other)
        store.gate.open()
        for thread in hanging:
            thread.start()
        wait_until(lambda: os.path.exists(store.log), "an open to hang")
        discard(other, 0, BLOCK)
        os.fsync(other)
        ask(other)
        os.lseek(other, 0, os.SEEK_DATA)
        assert os.pread(other, 2, 32 * KIB) == b"bb"
        assert all(thread.is_alive() for thread in hanging)
    store.gate.close()
    for thread in hanging:
        thread.join()
    live.stop()


def make_two(pool, kind):
    for name in ("web1", "web2"):
        if kind == "raw":
            make_raw(os.path.join(pool, f"{name}.raw"), b"1" * 64 * MIB)
        else:
            make_image(os.path.join(pool, f"{name}.leaf"), "64M")


def use_disk(fd):
    memory = Aligned(BLOCK)
    for number in range(4):
        memory.write(fd, b"b" * BLOCK, number * MIB)
        memory.read(fd, BLOCK, number * MIB)
        os.fsync(fd)
        discard(fd, number * MIB, BLOCK)
        memory.read(fd, BLOCK, number * MIB + BLOCK)


def hang_on(fd, number):
    """What one user of a disk whose store hangs waits for: the kernel sends reads and
    writes of one file beside each other."""
    if number % 2 == 0:
        Aligned(BLOCK).write(fd, b"a" * BLOCK, number * MIB // 4)
    else:
        Aligned(BLOCK).read(fd, BLOCK, number * MIB // 4)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("mode", ["direct", "persistent"])
@pytest.mark.parametrize("kind", ["raw", "leaf"])
def test_a_submission_that_stands(pool, work, mount, store, mode, kind, threads):
    """io_submit() of one disk does not return: all others are served, and what was handed
    over has its answer when it does."""
    make_two(pool, kind)
    live = mount(f"threads={threads}", f"mode={mode}", f"cache={os.path.join(work, 'cache')}", "cache_size=64M",
                 env={**store.env, "SLOW_HANG": "web1.", "SLOW_CALLS": "submit"})
    with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as first, \
            opened(live.file("web2.img"), os.O_RDWR | os.O_DIRECT) as second:
        Aligned(BLOCK).write(first, b"1" * BLOCK, 0)
        use_disk(second)
        hanging = [threading.Thread(target=hang_on, args=[first, number]) for number in range(0, 40, 2)]
        other = threading.Thread(target=use_disk, args=[second])
        store.gate.open()
        try:
            for thread in hanging:
                thread.start()
            wait_until(lambda: "is long in taking requests" in live.messages(), "the submission to be given up")
            other.start()
            other.join(30)
            answered = not other.is_alive()
            assert live.names() == ["web1.img", "web2.img"]
            state_of(live, "web2.img")
        finally:
            store.gate.close()
        for thread in [*hanging, other]:
            thread.join(60)
        assert answered
        assert not any(thread.is_alive() for thread in hanging)
        for number in range(0, 40, 2):
            assert Aligned(BLOCK).read(first, BLOCK, number * MIB // 4) == b"a" * BLOCK
    assert live.stop() == 0


@pytest.mark.parametrize("kind", ["raw", "leaf"])
def test_many_requests_of_one_disk_hang(pool, mount, store, kind):
    """They take neither the calls nor the threads that another disk needs."""
    make_two(pool, kind)
    live = mount("threads=1", env={**store.env, "SLOW_HANG": "web1.",
                                   "LEAFDISK_FAULTS": "aio.setup:EAGAIN"})
    direct = os.O_RDWR | os.O_DIRECT
    with opened(live.file("web1.img"), direct) as first, opened(live.file("web2.img"), direct) as second:
        for number in range(90):
            Aligned(BLOCK).write(first, b"1" * BLOCK, number * MIB // 4)
        hanging = [threading.Thread(target=hang_on, args=[first, number]) for number in range(90)]
        other = threading.Thread(target=use_disk, args=[second])
        store.gate.open()
        try:
            for thread in hanging:
                thread.start()
            wait_until(lambda: os.path.exists(store.log) and store.calls_on("web1").total() >= 8, "steps to hang")
            other.start()
            other.join(30)
            answered = not other.is_alive()
        finally:
            store.gate.close()
        for thread in [*hanging, other]:
            thread.join(60)
    assert answered
    assert not any(thread.is_alive() for thread in hanging)
    live.stop()


def test_attributes_while_the_store_hangs(pool, work, mount, store):
    """Whoever reads what is in the cache is not made to wait by questions for attributes."""
    make_image(os.path.join(pool, "web1.leaf"), "64M")
    live = mount("mode=writeback", f"cache={os.path.join(work, 'cache')}", "cache_size=64M", "max_dirty_age=3600",
                 "migrate_idle_ms=60000", env={**store.env, "SLOW_HANG": "web1.leaf"})
    with opened(live.file("web1.img")) as fd:
        write_all(fd, b"x" * 8 * KIB, 0)
        os.fsync(fd)
        store.gate.open()
        for _ in range(12):
            assert ask(fd, "-c", "%s") == str(64 * MIB)
        assert os.pread(fd, 2, 0) == b"xx"
        discard(fd, 0, BLOCK)
        assert os.pread(fd, 2, 0) == bytes(2)
        store.gate.close()
    live.stop()


def test_image_cannot_be_looked_at(pool, work, mount):
    """For a moment: an open disk is what it was."""
    image = os.path.join(pool, "web1.leaf")
    make_image(image, "64M")
    live = mount("mode=writeback", f"cache={os.path.join(work, 'cache')}", "cache_size=64M", "max_dirty_age=3600",
                 "migrate_idle_ms=60000")
    with opened(live.file("web1.img")) as fd:
        write_all(fd, b"x" * 8 * KIB, 0)
        os.fsync(fd)
        os.rename(image, f"{image}.away")
        assert ask(fd, "-c", "%s") == str(64 * MIB)
        assert os.pread(fd, 2, 0) == b"xx"
        discard(fd, 0, BLOCK)
        expect_errno(errno.ENOSPC, fallocate, fd, ALLOCATE_ZERO_RANGE, 64 * MIB - BLOCK, 2 * BLOCK)
        os.rename(f"{image}.away", image)
    live.stop()


# ---- A signal is heard while the store hangs ---------------------------------------


def comm(task):
    with contextlib.suppress(OSError), open(f"{task}/comm", encoding="utf-8") as file:
        return file.read().strip()


def end_by_two_signals(live):
    for _ in range(2):
        os.kill(live.pid, signal.SIGTERM)
        time.sleep(0.5)
    wait_until(live.has_ended, "the daemon to leave")


@pytest.mark.slow
def test_a_start_that_hangs_is_given_up(pool, work, store):
    make_image(os.path.join(pool, "web1.leaf"), "8M")
    os.mkdir(os.path.join(pool, ".leafdisk"))
    live = Mount(pool, work, env={**store.env, "SLOW_HANG": ".leafdisk"})
    store.gate.open()

    def start():
        with contextlib.suppress(MountError):
            live.start()

    thread = threading.Thread(target=start)
    thread.start()
    wait_until(lambda: live.pid and any(comm(task) == "leafdisk-end" for task in glob(f"/proc/{live.pid}/task/*")),
               "the daemon to start")
    end_by_two_signals(live)
    thread.join()
    assert live.status == 1 and not live.is_live()
    assert "is not mounted on" in live.messages()


@pytest.mark.parametrize("mode", ["direct", "persistent"])
def test_an_end_that_hangs_is_given_up(mount, pool, work, store, mode):
    """Nobody has a disk open: what is left to do at the end hangs as well."""
    make_image(os.path.join(pool, "web1.leaf"), "8M")
    options = [] if mode == "direct" else [f"cache={os.path.join(work, 'cache')}", "mode=persistent", "cache_size=16M"]
    live = mount(*options, "nodrain", env={**store.env, "SLOW_HANG": "/"})
    with opened(live.file("web1.img")) as fd:
        write_all(fd, b"1" * BLOCK, 0)
        os.fsync(fd)
    wait_until(lambda: control_values(live, "disks/web1.img/info")["opens"] == "0", "the disk to be closed")
    store.gate.open()
    end_by_two_signals(live)
    assert not live.is_live()


# ---- What is dirty, while an image's store hangs -----------------------------------

# Nothing is written back unless somebody asks for it.
HELD = ["max_dirty_age=86400", "migrate_idle_ms=60000", "migrate_threshold=100"]


@pytest.fixture
def dirty_disks(pool, work, mount, store):
    """A mount with disks of these names, each with a dirty block that is its name's. What
    writes to those that are called `hung` hangs."""
    def begin(*names, options=(*HELD,), **env):
        for name in names:
            make_image(os.path.join(pool, f"{name}.leaf"), "64M")
        live = mount("mode=writeback", f"cache={os.path.join(work, 'cache')}", "cache_size=128M", *options,
                     env={**store.env, "SLOW_HANG": os.path.join(pool, "hung"), "SLOW_CALLS": "write fsync", **env})
        for name in names:
            make_dirty(live, name)
        return live
    return begin


def block_of(name):
    return name.encode().ljust(BLOCK, b".")


def make_dirty(live, name, offset=0):
    with opened(live.file(f"{name}.img")) as fd:
        write_all(fd, block_of(name), offset)
        os.fsync(fd)


def dirty_of(live, name):
    return int(state_of(live, f"{name}.img")["dirty_bytes"])


class Drain(threading.Thread):
    """leafctl drain of a disk, beside what the test does."""

    def __init__(self, live, name):
        super().__init__(daemon=True)
        self.path, self.status = live.file(f"{name}.img"), None
        self.start()

    def run(self):
        self.status = leafctl("drain", self.path, check=False, timeout=240).returncode

    def has_ended_well(self):
        self.join(120)
        return self.status == 0


def await_hang(store, name):
    wait_until(lambda: os.path.exists(store.log) and store.calls_on(f"{name}.leaf")["write"] +
               store.calls_on(f"{name}.leaf")["fsync"] > 0, f"the batch of {name} to hang")


def assert_in_pool(pool, work, *names):
    for name in names:
        content = converted(os.path.join(pool, f"{name}.leaf"), work)
        assert content[:BLOCK] == block_of(name), name


def test_a_disk_whose_batch_hangs(pool, work, store, dirty_disks):
    """It holds up no other's: drains, changes of mode, closes, and what goes by itself."""
    names = ["hung", "web1", "web2", "web3"]
    live = dirty_disks(*names)
    store.gate.open()
    first = Drain(live, "hung")
    await_hang(store, "hung")
    leafctl("drain", live.file("web1.img"), timeout=60)
    assert dirty_of(live, "web1") == 0
    wait_until(lambda: control_values(live, "disks", "web1.img", "info")["opens"] == "0", "web1 to be closed")
    leafctl("mode", live.file("web2.img"), "direct", timeout=60)
    make_dirty(live, "web2", MIB)
    with open(live.control("tunables", "migrate_idle_ms"), "w", encoding="ascii") as file:
        file.write("1")
    wait_until(lambda: dirty_of(live, "web3") == 0, "what goes by itself")
    assert first.is_alive() and dirty_of(live, "hung") > 0
    store.gate.close()
    assert first.has_ended_well()
    assert dirty_of(live, "hung") == 0
    live.stop()
    assert_in_pool(pool, work, *names)


def test_many_disks_whose_batches_hang(pool, work, store, dirty_disks):
    """More than are written back at once."""
    hung = [f"hung{number}" for number in range(7)]
    live = dirty_disks(*hung, "web1", "web2")
    store.gate.open()
    drains = [Drain(live, name) for name in hung]
    for name in hung:
        await_hang(store, name)
    leafctl("drain", live.file("web1.img"), timeout=60)
    leafctl("mode", live.file("web2.img"), "direct", timeout=60)
    assert all(drain.is_alive() for drain in drains)
    store.gate.close()
    assert all(drain.has_ended_well() for drain in drains)
    live.stop()
    assert_in_pool(pool, work, *hung, "web1", "web2")


def test_many_disks_whose_large_batches_hang(pool, work, store, dirty_disks):
    """What they may take of memory is not all that there is: others have theirs."""
    hung = [f"hung{number}" for number in range(6)]
    live = dirty_disks(*hung, "web1", options=(*HELD, "migrate_batch=16384"), SLOW_HANG="owners/hung",
                       SLOW_CALLS="open")
    store.gate.open()
    drains = [Drain(live, name) for name in hung]
    try:
        for name in hung:
            wait_until(lambda hung=name: os.path.exists(store.log) and store.calls_on(f"owners/{hung}.leaf")["open"],
                       f"the batch of {name} to hang", timeout=60)
        leafctl("drain", live.file("web1.img"), timeout=60)
        assert all(drain.is_alive() for drain in drains)
    finally:
        store.gate.close()
    assert all(drain.has_ended_well() for drain in drains)
    live.stop()
    assert_in_pool(pool, work, *hung, "web1")


def test_a_drain_beside_an_image_that_is_gone_and_hangs(pool, work, store, dirty_disks):
    """Nobody can tell for now that its file has no name any more: the others are written back, and who waits can
    give up."""
    live = dirty_disks("hung", "web1", SLOW_CALLS="stat")
    os.unlink(os.path.join(pool, "hung.leaf"))
    assert live.names() == ["web1.img"]
    store.gate.open()
    with subprocess.Popen([program("leafctl"), "drain", live.path], stderr=subprocess.PIPE, text=True) as drain:
        try:
            wait_until(lambda: dirty_of(live, "web1") == 0, "web1 to be written back")
            assert drain.poll() is None
            drain.send_signal(signal.SIGINT)
            assert drain.wait(60) == 1
        finally:
            store.gate.close()
    refused = leafctl("drain", live.path, check=False)
    assert refused.returncode == 1 and "hung.leaf: was removed" in refused.stderr, refused.stderr
    unmount(live.path)
    assert live.wait() == 1
    live.finalise()
    assert_in_pool(pool, work, "web1")


def test_an_end_while_a_batch_hangs(pool, work, mount, store, dirty_disks):
    """Given up, it leaves; the others' changes are in the pool, the hanging one's in the cache."""
    live = dirty_disks("hung", "web1")
    store.gate.open()
    drain = Drain(live, "hung")
    await_hang(store, "hung")
    end_by_two_signals(live)
    store.gate.close()
    drain.join(60)
    assert not drain.is_alive() and drain.status != 0
    live.finalise()
    assert_in_pool(pool, work, "web1")
    with mount("mode=writeback", f"cache={os.path.join(work, 'cache')}", "cache_size=128M") as again:
        leafctl("drain", again.path)
    assert_in_pool(pool, work, "hung")


def test_owner_records_are_not_read_for_each_batch(store, dirty_disks):
    live = dirty_disks("web1", options=(*HELD, "migrate_batch=1"))
    batches = 100
    with opened(live.file("web1.img"), os.O_RDWR) as fd:
        for number in range(batches):
            write_all(fd, block_of("web1") * 16, number * 64 * KIB)
            os.fsync(fd)
    store.gate.open()
    start = time.monotonic()
    leafctl("drain", live.file("web1.img"))
    seconds = time.monotonic() - start
    store.gate.close()
    assert stats(live)["migrate_batches"] >= batches / 4
    reads = sum(1 for _, _, _, call, path in store.lines() if call == "open" and "owners/web1.leaf" in path)
    assert 1 <= reads <= 3 + seconds / 2
    live.stop()
