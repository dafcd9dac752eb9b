"""One disk's image is on a store of its own, which answers no more: all other disks go on.

The other store's file comes into the pool by a mount: nothing outside of a pool is
written."""
import contextlib
import os
import signal
import subprocess
import threading
import time

import pytest

from harness import (BLOCK, MIB, Aligned, MountError, faults, file_system, halt, leafctl, make_image, make_raw, opened,
                     program, read_file, run, state_of, stats, thread_names, wait_until)
from test_writeback_faults import HELD, end

LIMIT = 20  # seconds, for what does not wait
ATTRIBUTES = 1.5  # seconds: what the kernel knows of a file is asked for again by then


def hangs_by_freezing(work, stack, _mount):
    """Writes hang where no signal reaches them, reads do not."""
    where = stack.enter_context(file_system(work, "other", "48M"))
    make_raw(os.path.join(where, "web2.raw"), b"2" * 8 * MIB)

    def hang(on):
        run("fsfreeze", "-f" if on else "-u", where, check=on)
    return os.path.join(where, "web2.raw"), hang


def hangs_by_stopping(work, _stack, mount):
    """A FUSE server that is stopped, as NFS that does not answer: stat(2) hangs as well."""
    where = os.path.join(work, "other")
    os.mkdir(where)
    make_raw(os.path.join(where, "web2.raw"), b"2" * 8 * MIB)
    server = mount(pool=where)

    def hang(on):
        if on:
            halt(server.pid)
        else:
            os.kill(server.pid, signal.SIGCONT)
    return server.file("web2.img"), hang


@pytest.fixture(params=[hangs_by_freezing, hangs_by_stopping], ids=["frozen", "stopped"])
def other_store(request, work, pool, mount):
    """What makes the store of web2 in the pool hang, or answer again."""
    with contextlib.ExitStack() as stack:
        path, hang = request.param(work, stack, mount)
        place = make_raw(os.path.join(pool, "web2.raw"), b"")
        run("mount", "--bind", path, place)
        stack.callback(run, "umount", "-l", place)
        stack.callback(hang, False)
        yield hang


def in_time(what, function):
    """It is over soon; what it returns."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive(), f"{what} waits for another disk's store"
    assert results, f"{what} failed"
    return results[0]


def write_and_flush(fd, byte, offset):
    Aligned(BLOCK).write(fd, byte * BLOCK, offset)
    os.fsync(fd)
    return Aligned(BLOCK).read(fd, BLOCK, offset)


def use_web1(live, fd, mode):
    for number in range(8):
        assert in_time("a write", lambda: write_and_flush(fd, b"4", number * BLOCK)) == b"4" * BLOCK
    for what, function in (("a stat", lambda: os.stat(live.file("web1.img")).st_size),
                           ("an open", lambda: os.close(os.open(live.file("web1.img"), os.O_RDWR)) is None),
                           ("a listing", lambda: os.listdir(live.path)),
                           ("the counters", lambda: stats(live)),
                           ("a drain", lambda: leafctl("drain", live.file("web1.img")))):
        in_time(what, function)
    for number in range(24):
        assert in_time("a write", lambda: write_and_flush(fd, b"5", number % 8 * MIB)) == b"5" * BLOCK
    if mode == "writeback":
        wait_until(lambda: state_of(live)["dirty_bytes"] == "0", "web1's changes to be in the pool")


@pytest.mark.parametrize("mode", ["direct", "persistent", "writeback"])
def test_other_disks_go_on(pool, mount, work, other_store, mode):
    make_image(os.path.join(pool, "web1.leaf"), "8M")
    live = mount(f"cache={os.path.join(work, 'cache')}", "cache_size=16M", "migrate_idle_ms=1", f"mode={mode}")
    direct = os.O_RDWR | os.O_DIRECT
    with opened(live.file("web1.img"), direct) as first, opened(live.file("web2.img"), direct) as second:
        for fd in (first, second):
            write_and_flush(fd, b"1", 0)
        if mode == "writeback":
            leafctl("drain", live.path)
        other_store(True)
        hanging = [threading.Thread(target=write_and_flush, args=[second, b"3", number * BLOCK], daemon=True)
                   for number in range(16)]
        for thread in hanging:
            thread.start()
        use_web1(live, first, mode)
        other_store(False)
        for number, thread in enumerate(hanging):
            thread.join(60)
            assert not thread.is_alive()
            assert Aligned(BLOCK).read(second, BLOCK, number * BLOCK) == b"3" * BLOCK
    assert live.stop() == 0


@pytest.mark.parametrize("threads", [None, "thread.spawn/leafdisk-try:EAGAIN@1x1"], ids=["", "no thread"])
def test_a_mount_begins_meanwhile(pool, mount, work, other_store, threads):
    """The cache has changes of the disk whose store hangs. Where there is no thread to open it the mount does not
    wait for it itself."""
    make_image(os.path.join(pool, "web1.leaf"), "8M")
    options = [f"cache={os.path.join(work, 'cache')}", "cache_size=16M", "mode=writeback", "migrate_idle_ms=1"]
    live = mount(*options, "nodrain", *HELD)
    with opened(live.file("web2.img")) as fd:
        os.pwrite(fd, b"3" * BLOCK, 0)
        os.fsync(fd)
    assert end(live) == 0
    other_store(True)
    live = in_time("a mount", lambda: mount(*options, env=faults(threads) if threads else {}))
    with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        use_web1(live, fd, "writeback")
    other_store(False)
    wait_until(lambda: "web2.img" in live.names() and state_of(live, "web2.img")["dirty_bytes"] == "0",
               "the changes to be in the pool")
    assert read_file(live.file("web2.img"), BLOCK) == b"3" * BLOCK
    assert live.stop() == 0


@contextlib.contextmanager
def many_disks(pool, mount, work, count, size=MIB):
    """Of another store: the server that it hangs with, which goes on in the end."""
    where = os.path.join(work, "other")
    os.mkdir(where)
    for number in range(count):
        make_raw(os.path.join(where, f"bad{number}.raw"), bytes(size))
    server = mount(pool=where)
    with contextlib.ExitStack() as stack:
        for number in range(count):
            place = make_raw(os.path.join(pool, f"bad{number}.raw"), b"")
            run("mount", "--bind", server.file(f"bad{number}.img"), place)
            stack.callback(run, "umount", "-l", place)
        stack.callback(os.kill, server.pid, signal.SIGCONT)
        yield server
    for number in range(count):
        with open(os.path.join(where, f"bad{number}.raw"), "rb") as file:
            assert file.read(BLOCK) == b"2" * BLOCK


def open_many(live, count):
    fds = [os.open(live.file(f"bad{number}.img"), os.O_RDWR) for number in range(count)]
    for fd in fds:
        os.pwrite(fd, b"1" * BLOCK, 0)
        os.fsync(fd)
    return fds


def use_web1_and_go_on(live, server, bad):
    """Of the disks that hang with their server, BAD are the open files. All goes to their store in the end."""
    with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        use_web1(live, fd, "writeback")
    os.kill(server.pid, signal.SIGCONT)
    leafctl("drain", live.path)
    for fd in bad:
        os.close(fd)
    assert live.stop() == 0


@pytest.mark.slow
def test_many_disks_of_the_other_store(pool, mount, work):
    """So many hang there that they could keep all threads which write back."""
    count, threads = 70, 64
    make_image(os.path.join(pool, "web1.leaf"), "8M")
    with many_disks(pool, mount, work, count) as server:
        live = mount(f"cache={os.path.join(work, 'cache')}", "cache_size=64M", "migrate_idle_ms=1", "max_dirty_age=1",
                     "mode=writeback")
        bad = open_many(live, count)
        leafctl("drain", live.path)
        halt(server.pid)
        for fd in bad:
            os.pwrite(fd, b"2" * BLOCK, 0)
            os.fsync(fd)
        wait_until(lambda: thread_names(live.pid).count("leafdisk-move") >= threads, "them to hang")
        use_web1_and_go_on(live, server, bad)


def resident_bytes(live):
    with open(f"/proc/{live.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:")) * 1024


@pytest.mark.slow
def test_large_batches_of_the_other_store(pool, mount, work):
    """What hangs on their way to it takes no more of memory than its share."""
    count, epoch = 24, 16 * MIB
    make_image(os.path.join(pool, "web1.leaf"), "8M")
    with many_disks(pool, mount, work, count, epoch) as server:
        live = mount(f"cache={os.path.join(work, 'cache')}", "cache_size=768M", "mode=writeback", *HELD)
        bad = open_many(live, count)
        leafctl("drain", live.path)
        before = resident_bytes(live)
        for fd in bad:
            for offset in range(0, epoch, MIB):
                os.pwrite(fd, b"2" * MIB, offset)
            os.fsync(fd)
        halt(server.pid)
        leafctl("set", live.path, "migrate_idle_ms=1", "max_dirty_age=1")
        largest, until = 0, time.monotonic() + 20
        while time.monotonic() < until:
            largest = max(largest, resident_bytes(live))
            time.sleep(0.1)
        assert 64 * MIB < largest - before < 200 * MIB, largest - before
        use_web1_and_go_on(live, server, bad)


def test_more_disks_of_the_other_store_than_calls(pool, mount, work):
    """Each with one write."""
    count = 300
    make_image(os.path.join(pool, "web1.leaf"), "8M")
    with many_disks(pool, mount, work, count) as server:
        live = mount("mode=direct")
        bad = open_many(live, count)
        assert len(live.names()) == count + 1
        halt(server.pid)
        hanging = [threading.Thread(target=os.pwrite, args=[fd, b"2" * BLOCK, 0], daemon=True) for fd in bad]
        before = stats(live)["write_requests"]
        for thread in hanging:
            thread.start()
        wait_until(lambda: stats(live)["write_requests"] == before + count, "them to hang")
        with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
            use_web1(live, fd, "direct")
        os.kill(server.pid, signal.SIGCONT)
        for thread, fd in zip(hanging, bad):
            thread.join(60)
            assert not thread.is_alive()
            os.close(fd)
        assert live.stop() == 0


@pytest.mark.parametrize("words", [("drain",), ("mode", "direct")])
def test_who_waits_for_such_a_disk_can_give_up(mount, work, other_store, words):
    """The command is the daemon's to take: nobody looks at the disk itself."""
    live = mount(f"cache={os.path.join(work, 'cache')}", "cache_size=16M", "mode=writeback", "migrate_idle_ms=60000",
                 "max_dirty_age=86400")
    path = live.file("web2.img")
    with opened(path, os.O_RDWR | os.O_DIRECT) as fd:
        write_and_flush(fd, b"1", 0)
        other_store(True)
        with subprocess.Popen([program("leafctl"), words[0], path, *words[1:]], stderr=subprocess.PIPE,
                              text=True) as child:
            try:
                wait_until(lambda: "leafctl-write" in thread_names(child.pid), "the command to be given", LIMIT)
                child.send_signal(signal.SIGINT)
                assert child.wait(LIMIT) == 1
                assert "stopped by signal 2" in child.stderr.read()
            finally:
                other_store(False)
    assert live.stop() == 0


def in_layers(pool, work, mount):
    """The pool has web1, and web2 by a link to another store's file: that one's server, and the option for it."""
    where = os.path.join(work, "other")
    os.mkdir(where)
    make_raw(os.path.join(where, "web2.raw"), b"2" * MIB)
    server = mount(pool=where)
    make_image(os.path.join(pool, "web1.leaf"), "8M")
    os.symlink(server.file("web2.img"), os.path.join(pool, "web2.raw"))
    return server, f"layers={server.path}"


def has_2(live):
    with contextlib.suppress(OSError):
        return read_file(live.file("web2.img"), BLOCK) == b"2" * BLOCK
    return False


def lists(live):
    return in_time("a listing", lambda: os.listdir(live.path))


def test_a_directory_of_layers_that_hangs(pool, mount, work):
    """Nobody asks it but for the disk that has its image there."""
    server, option = in_layers(pool, work, mount)
    live = mount(option, "manage")
    assert live.names() == ["web1.img", "web2.img"]
    halt(server.pid)
    try:
        time.sleep(ATTRIBUTES)
        with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
            use_web1(live, fd, "direct")
        in_time("a look-up", lambda: os.path.exists(live.file("none.img")))
        in_time("a new disk", lambda: make_raw(live.file("web3.img"), bytes(MIB)))
        assert {"web1.img", "web3.img"} <= set(lists(live))
    finally:
        os.kill(server.pid, signal.SIGCONT)
    wait_until(lambda: "web2.img" in lists(live), "web2 to be there again")
    assert has_2(live)
    assert live.stop() == 0


def test_a_mount_with_a_directory_of_layers_that_hangs(pool, mount, work):
    server, option = in_layers(pool, work, mount)
    halt(server.pid)
    try:
        with pytest.raises(MountError) as refused:
            mount(option)
        assert refused.value.status == 1
        assert f"layers directory {server.path} does not answer" in refused.value.messages
    finally:
        os.kill(server.pid, signal.SIGCONT)
    with mount(option) as live:
        assert live.names() == ["web1.img", "web2.img"]


def test_a_directory_of_layers_that_is_mounted_again(pool, mount, work):
    """What the mount has open of it is of no use any more."""
    server, option = in_layers(pool, work, mount)
    live = mount(option)
    assert has_2(live)
    server.kill9()
    server.status = None
    server.start()
    wait_until(lambda: "web2.img" in lists(live) and has_2(live), "web2 to be there again")
    assert live.stop() == 0
