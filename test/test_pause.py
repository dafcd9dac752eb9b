"""A disk that is paused: requests in work finish, those that come wait, and go on when the last holder is gone,
however that ends. Everything but its requests goes on."""
import contextlib
import errno
import mmap
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from harness import (BLOCK, KIB, MIB, PATIENCE, Aligned, Loop, assert_same, control_values, converted, discard,
                     expect_errno, file_bytes, leafctl, make_image, make_raw, opened, program, read_file, run, scaled, state_of, stats,
                     wait_until, write_all)
from test_slow_store import Store
from test_writeback_faults import HELD, failing

SIZE = 32 * MIB
MODES = ["direct", "persistent", "writeback", "ephemeral"]
REFUSED_AFTER = 20  # seconds
LONG = 60  # seconds, for what waits for nobody, on a machine that has much else to do


@pytest.fixture
def web1(pool):
    return make_image(os.path.join(pool, "web1.leaf"), SIZE)


@pytest.fixture
def web2(pool):
    return make_image(os.path.join(pool, "web2.leaf"), SIZE)


@pytest.fixture(params=MODES)
def live(request, mount, cache, web1, web2):
    options = [] if request.param == "direct" else [f"cache={cache}", "cache_size=64M"]
    with mount(f"mode={request.param}", *options) as started:
        yield started


def pause_file(live, name="web1.img"):
    return live.control("disks", name, "pause")


def tell(fd, word):
    assert os.write(fd, word) == len(word)


def snapshot_of(image, work):
    """What a snapshot of the store, taken now, has as the disk."""
    copy = os.path.join(work, "snapshot.leaf")
    shutil.copyfile(image, copy)
    return converted(copy, work)


@contextlib.contextmanager
def paused(live, name="web1.img"):
    """By this process."""
    with opened(pause_file(live, name)) as fd:
        tell(fd, b"pause\n")
        yield fd


def is_paused(live, name="web1.img"):
    return state_of(live, name)["state"] == "paused"


def await_active(live, name="web1.img"):
    wait_until(lambda: state_of(live, name)["state"] == "active", lambda: f"{name} to go on: {state_of(live, name)}")


def holders(live, name="web1.img"):
    """(word, since, pid, program) of each."""
    return [tuple(line.split(" ")) for line in file_bytes(pause_file(live, name)).decode().splitlines()]


def errno_of(function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
    return 0


def last_error(live, name="web1.img"):
    return file_bytes(live.control("disks", name, "last_error")).decode()


class Waiting:
    """FUNCTION in a thread of its own."""

    def __init__(self, function, *arguments):
        self.results, self.errors = [], []
        self.thread = threading.Thread(target=self.main, args=[function, *arguments], daemon=True)
        self.thread.start()

    def main(self, function, *arguments):
        try:
            self.results.append(function(*arguments))
        except OSError as error:
            self.errors.append(error)

    def is_over(self):
        return not self.thread.is_alive()

    def result(self, seconds=PATIENCE):
        self.thread.join(seconds)
        assert self.is_over(), f"it still waits after {seconds} s"
        if self.errors:
            raise self.errors[0]
        return self.results[0]


def requests_of(live):
    counters = stats(live)
    return sum(counters[name] for name in counters if name.endswith("_requests") and not name.startswith("aio"))


def block_of(byte):
    """Aligned."""
    block = mmap.mmap(-1, BLOCK)
    block[:] = byte * BLOCK
    return block


def waiting(live, function, *arguments):
    """FUNCTION, once its request has come to the daemon."""
    before = requests_of(live)
    started = Waiting(function, *arguments)
    wait_until(lambda: requests_of(live) > before, "the request to come")
    return started


# ---- What waits, and what does not ----------------------------------------------------


REQUESTS = {
    "write": lambda fd: Aligned(BLOCK).write(fd, b"n" * BLOCK, 0),
    "read": lambda fd: Aligned(BLOCK).read(fd, BLOCK, 0),
    "flush": os.fsync,
    "durable": lambda fd: os.pwritev(fd, [block_of(b"n")], 0, os.RWF_DSYNC),
    "discard": lambda fd: discard(fd, 0, BLOCK),
    "seek": lambda fd: os.lseek(fd, 0, os.SEEK_HOLE),
}


@pytest.mark.parametrize("request_name", REQUESTS)
def test_requests_wait(live, request_name):
    with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd, opened(live.file("web2.img")) as other:
        Aligned(BLOCK).write(fd, b"o" * BLOCK, 0)
        with paused(live):
            assert is_paused(live)
            before = requests_of(live)
            started = Waiting(REQUESTS[request_name], fd)
            if request_name != "seek":
                wait_until(lambda: requests_of(live) > before, "the request to come")
            # Those of the other disk come later, and are done.
            for number in range(8):
                write_all(other, b"o" * BLOCK, number * MIB)
                os.fsync(other)
            assert not started.is_over()
            assert is_paused(live) and not is_paused(live, "web2.img")
        started.result()
        expected = {"write": b"n", "durable": b"n", "discard": b"\0"}.get(request_name, b"o")
        assert Aligned(BLOCK).read(fd, BLOCK, 0) == expected * BLOCK
    await_active(live)


@pytest.mark.parametrize("what", ["read", "write"])
def test_the_rest_goes_on(live, what):
    """Whoever opens, closes, lists or asks waits for nothing; but the kernel has an open without O_DIRECT wait for a
    write with it."""
    with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd, paused(live):
        started = waiting(live, REQUESTS[what], fd)

        def look():
            for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
                for direct in (os.O_DIRECT, 0) if what == "read" else (os.O_DIRECT,):
                    os.close(os.open(live.file("web1.img"), flags | direct))
            assert os.fstat(fd).st_size == os.stat(live.file("web1.img")).st_size == SIZE
            assert live.names() == ["web1.img", "web2.img"]
            for name in os.listdir(live.control("disks", "web1.img")):
                file_bytes(live.control("disks", "web1.img", name))
            for name in ("config", "drain", "events", "metrics", "stats"):
                file_bytes(live.control(name))
            return leafctl("status", live.path).stdout + leafctl("status", live.file("web1.img")).stdout

        assert "paused" in Waiting(look).result(LONG)
        assert not started.is_over()
    started.result()


def test_a_disk_that_nobody_has_open(live):
    """It is opened for the first time, and its requests wait."""
    with paused(live):
        with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
            write = waiting(live, Aligned(BLOCK).write, fd, b"n" * BLOCK, 0)
            with opened(live.file("web2.img")) as other:
                write_all(other, b"o" * BLOCK, 0)
                os.fsync(other)
            assert not write.is_over()
            leafctl("resume", live.file("web1.img"))
            write.result()
    await_active(live)


@pytest.mark.parametrize("threads", [1, 3])
def test_under_load(mount, web1, work, threads):
    """Each pause lets what is in work finish, and nothing more is answered until its end: by a close, a kill or a
    resume. What was written is there."""
    rounds = scaled(12, 100)
    load = ["fio", "--name=verify", "--rw=randwrite", "--bsrange=4k-64k", "--size=24M", "--ioengine=libaio", "--direct=1",
            "--iodepth=32", "--verify=crc32c", "--verify_backlog=64", "--verify_fatal=1", "--fsync=100", "--time_based",
            "--runtime=3600", f"--aux-path={work}"]
    with mount(f"threads={threads}") as live:
        fio = subprocess.Popen([*load, f"--filename={live.file('web1.img')}"], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
        try:
            for number in range(rounds):
                before = answered(live)
                wait_until(lambda: answered(live) != before or fio.poll() is not None, "fio to write")
                assert fio.poll() is None, fio.communicate()[0]
                stand_still(live, number % 3)
            await_active(live)
        finally:
            os.kill(fio.pid, signal.SIGINT)
            said = fio.communicate(timeout=PATIENCE)[0]
        assert "err= 0" in said and not re.search(r"verify: bad|error=", said), said
        assert stats(live)["errors"] == 0
    leafctl("check", web1)


def answered(live):
    counters = stats(live)
    return counters["read_bytes"], counters["write_bytes"], counters["errors"]


def stand_still(live, how):
    client = subprocess.Popen([program("leafctl"), "pause", live.file("web1.img")], stdout=subprocess.PIPE, text=True)
    assert "paused" in client.stdout.readline()
    wait_until(lambda: answered(live) == answered(live), "the last answers to be counted")
    before = answered(live)
    assert [answered(live) for _ in range(20)] == [before] * 20 and is_paused(live)
    if how == 0:
        leafctl("resume", live.file("web1.img"))
    else:
        client.send_signal(signal.SIGKILL if how == 1 else signal.SIGTERM)
    assert client.wait(PATIENCE) == (-signal.SIGKILL if how == 1 else 0)
    await_active(live)


def test_all_disks(mount, pool):
    """One after the other, under load; then they go on."""
    names = [f"d{number}.img" for number in range(6)]
    for name in names:
        make_image(os.path.join(pool, name.replace(".img", ".leaf")), SIZE)
    done = threading.Event()

    def write(live, name):
        with opened(live.file(name), os.O_RDWR | os.O_DIRECT) as fd:
            memory, number = Aligned(64 * KIB), 0
            while not done.is_set():
                memory.write(fd, bytes([number % 256]) * 64 * KIB, number % 16 * 64 * KIB)
                number += 1
            return number

    with mount("threads=2") as live:
        writers = [Waiting(write, live, name) for name in names]
        with contextlib.ExitStack() as stack:
            for name in names:
                stack.enter_context(paused(live, name))
            wait_until(lambda: answered(live) == answered(live), "the last answers to be counted")
            before = answered(live)
            # No program is started here: it would close the files of the writers, which waits for a disk that is paused.
            assert all(is_paused(live, name) for name in names)
            assert answered(live) == before
        wait_until(lambda: answered(live)[1] >= before[1] + 12 * 64 * KIB, "them to go on")
        done.set()
        assert all(writer.result() > 0 for writer in writers)


def test_a_file_system(mount, web1, work):
    """On a loop device: nobody sees an error."""
    with mount() as live, Loop(live.file("web1.img")) as loop:
        run("mkfs.ext4", "-q", loop.device)
        where = loop.mount(os.path.join(work, "fs"))
        copy = Waiting(run, "sh", "-c", f"for i in $(seq 40); do dd if=/dev/urandom of={where}/f$i bs=64k count=4 "
                                        f"conv=fsync status=none || exit 1; done")
        for _ in range(scaled(5, 50)):
            with paused(live):
                assert is_paused(live)
        copy.result()
        loop.unmount()
        run("fsck.ext4", "-fn", loop.device)


# ---- Holders --------------------------------------------------------------------------


def test_several_holders(mount, web1):
    with mount() as live, opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        with paused(live):
            with paused(live):
                write = waiting(live, Aligned(BLOCK).write, fd, b"n" * BLOCK, 0)
                assert [(word, pid) for word, _, pid, _ in holders(live)] == [("held", str(os.getpid()))] * 2
                assert "and 1 more hold them back" in state_of(live)["reason"]
            wait_until(lambda: len(holders(live)) == 1, "one to be gone")
            assert is_paused(live) and not write.is_over()
        write.result()
        assert holders(live) == []


def test_who_and_since_when(mount, web1):
    """Of a command: its process, whichever thread of it has written."""
    with mount() as live:
        assert file_bytes(pause_file(live)) == b""
        with paused(live):
            ((word, since, pid, name),) = holders(live)
            assert (word, pid) == ("held", str(os.getpid())) and re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", since)
            with open("/proc/self/comm", encoding="utf-8") as comm:
                assert name == comm.read().strip().replace(" ", r"\040")
            state = state_of(live)
            assert state["since"] == since and f"(pid {os.getpid()})" in state["reason"]
            assert "leafctl resume" in state["reason"]
        client = subprocess.Popen([program("leafctl"), "pause", live.file("web1.img")], stdout=subprocess.PIPE, text=True)
        assert client.stdout.readline().startswith("web1.img is paused")
        assert [holder[2:] for holder in holders(live)] == [(str(client.pid), "leafctl")]
        client.terminate()
        assert client.wait(PATIENCE) == 0
        await_active(live)
        events = file_bytes(live.control("events")).decode()
        for sentence in (f"info web1.img paused by leafctl (pid {client.pid})",
                         f"info web1.img no longer paused by leafctl (pid {client.pid})"):
            assert sentence in events


def test_a_client_that_is_killed(mount, web1):
    with mount() as live, opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        client = subprocess.Popen([program("leafctl"), "pause", live.file("web1.img")], stdout=subprocess.PIPE, text=True)
        assert client.stdout.readline()
        write = waiting(live, Aligned(BLOCK).write, fd, b"n" * BLOCK, 0)
        assert is_paused(live)
        client.kill()
        client.wait(PATIENCE)
        write.result()
        await_active(live)


def test_the_file_holds_it(mount, web1):
    """A second command on it changes nothing; a child that has it open holds it as well."""
    with mount() as live:
        with paused(live) as fd:
            tell(fd, b"pause")
            assert len(holders(live)) == 1
            child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[fd])
        assert is_paused(live)
        child.communicate(timeout=PATIENCE)
        await_active(live)


def has_lost(fd):
    """A holder, its pause."""
    line = os.pread(fd, 1000, 0).decode()
    assert line == "" or re.fullmatch(rf"held \S+ {os.getpid()} \S+\n", line)
    return line == ""


def test_a_resume_ends_them_all(mount, web1):
    with mount() as live, opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        with paused(live) as first, paused(live) as second:
            write = waiting(live, Aligned(BLOCK).write, fd, b"n" * BLOCK, 0)
            assert not has_lost(first) and not has_lost(second) and not write.is_over()
            leafctl("resume", live.file("web1.img"))
            write.result()
            assert has_lost(first) and has_lost(second) and holders(live) == []
            assert state_of(live)["state"] == "active"
            # Their end ends nothing more, and the file can hold another.
            with paused(live):
                os.close(os.dup(second))
                tell(first, b"pause\n")
                assert not has_lost(first) and has_lost(second) and len(holders(live)) == 2
        await_active(live)
        for _ in range(2):
            leafctl("resume", live.file("web1.img"))
        assert re.search(r"info web1.img resumed by leafctl \(pid \d+\)", file_bytes(live.control("events")).decode())


def test_what_a_holder_reads(mount, web1):
    """Its own line, at any offset."""
    with mount() as live, opened(pause_file(live)) as fd, paused(live):
        assert os.pread(fd, 100, 0) == b""  # as it was when it was opened
        tell(fd, b"pause")
        line = os.pread(fd, 1000, 0)
        assert line.startswith(b"held ") and line.count(b"\n") == 1 and len(holders(live)) == 2
        assert os.pread(fd, 3, 2) == line[2:5] and os.pread(fd, 10, len(line)) == os.pread(fd, 10, MIB) == b""
        tell(fd, b"resume")
        assert os.pread(fd, 1000, 0) == b""


@pytest.mark.parametrize("text", [b"", b"\n", b"Pause", b"pause ", b" pause", b"pauseresume", b"pause\nresume", b"stop", b"1",
                                  b"\0pause", b"pause\0", b"\xff", b"x" * 4096],
                         ids=lambda text: repr(text[:12]))
def test_bad_commands(mount, web1, text):
    with mount() as live, opened(pause_file(live), os.O_WRONLY) as fd:
        if text:
            assert errno_of(os.write, fd, text) == errno.EINVAL
            assert "expected one of: pause, resume" in last_error(live) or b"\0" in text
        assert holders(live) == [] and state_of(live)["state"] == "active"


# ---- With other commands ----------------------------------------------------------------


def test_a_drain_of_a_paused_disk(mount, cache, web1, work, rng):
    content = rng.randbytes(4 * MIB)
    with mount("mode=writeback", f"cache={cache}", "cache_size=64M", *HELD) as live:
        with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
            Aligned(4 * MIB).write(fd, content, 0)
            os.fsync(fd)
            with paused(live):
                write = waiting(live, Aligned(BLOCK).write, fd, b"n" * BLOCK, 8 * MIB)
                assert int(state_of(live)["dirty_bytes"]) == len(content)
                leafctl("drain", live.file("web1.img"))
                assert state_of(live)["dirty_bytes"] == "0" and is_paused(live) and not write.is_over()
                assert_same(snapshot_of(web1, work)[:4 * MIB], content, "the image meanwhile")
            write.result()


def test_a_mode_that_changes_meanwhile(mount, cache, web1, work):
    """To each and back; what waits goes where it says then."""
    with mount("mode=writeback", f"cache={cache}", "cache_size=64M", *HELD) as live:
        with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
            for number, mode in enumerate(["direct", "persistent", "writeback", "direct"]):
                Aligned(BLOCK).write(fd, b"b" * BLOCK, number * MIB)
                os.fsync(fd)  # what is not flushed is at the end of a descriptor, of a child that is started too
                with paused(live):
                    write = waiting(live, Aligned(BLOCK).write, fd, b"n" * BLOCK, number * MIB + BLOCK)
                    leafctl("mode", live.file("web1.img"), mode)
                    assert not write.is_over() and is_paused(live)
                write.result()
                assert (state_of(live)["dirty_bytes"] != "0") == (mode == "writeback")
            os.fsync(fd)
            found = snapshot_of(web1, work)
            assert [found[number * MIB:number * MIB + 2 * BLOCK] for number in range(4)] == [b"b" * BLOCK + b"n" * BLOCK] * 4


@pytest.mark.parametrize("mode", ["direct", "writeback"])
def test_a_snapshot_meanwhile(mount, cache, pool, web1, web2, work, mode):
    """Gates nest: the disks are sealed at once, and stay paused."""
    options = [] if mode == "direct" else [f"cache={cache}", "cache_size=64M"]
    with mount("manage", f"mode={mode}", *options) as live:
        with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd, opened(live.file("web2.img")) as other:
            Aligned(BLOCK).write(fd, b"b" * BLOCK, 0)
            os.fsync(fd)
            with paused(live):
                write = waiting(live, Aligned(BLOCK).write, fd, b"n" * BLOCK, 0)
                leafctl("snapshot", live.file("web1.img"), live.file("web2.img"), "then", timeout=LONG)
                assert is_paused(live) and not write.is_over()
                write_all(other, b"o" * BLOCK, 0)
                os.fsync(other)
            write.result()
            assert Aligned(BLOCK).read(fd, BLOCK, 0) == b"n" * BLOCK
    assert converted(os.path.join(pool, "snapshots", "web1@then.leaf"), work)[:BLOCK] == b"b" * BLOCK
    assert converted(web1, work)[:BLOCK] == b"n" * BLOCK


def test_what_would_wait_is_refused(mount, web1, web2):
    """A change of its name or size that nobody could interrupt."""
    with mount("manage") as live:
        with paused(live):
            expect_errno(errno.EBUSY, os.unlink, live.file("web1.img"))
            expect_errno(errno.EBUSY, os.rename, live.file("web1.img"), live.file("web3.img"))
            expect_errno(errno.EBUSY, os.rename, live.file("web2.img"), live.file("web1.img"))
            expect_errno(errno.EBUSY, os.truncate, live.file("web1.img"), SIZE + MIB)
            sentence = last_error(live)
            assert re.fullmatch(r"web1.img: is paused by \S+ \(pid \d+\); leafctl resume ends that\n", sentence)
            assert sentence in live.messages()
            assert leafctl("resize", live.file("web1.img"), "+1M", check=False).returncode == 1
            result = leafctl("resize", "--shrink", live.file("web1.img"), "1M", check=False)
            assert result.returncode == 1 and sentence in result.stderr
        await_active(live)
        leafctl("resize", live.file("web1.img"), "+1M")
        os.rename(live.file("web1.img"), live.file("web3.img"))
        os.unlink(live.file("web3.img"))


def test_a_new_disk_that_is_closed_meanwhile(mount, pool, web2):
    """Its close waits; what asks for its name does not."""
    with mount("manage") as live:
        fd = os.open(live.file("new.img"), os.O_RDWR | os.O_CREAT)
        write_all(fd, b"n" * MIB, 0)
        os.fsync(fd)
        with paused(live, "new.img"):
            Waiting(os.close, fd).result(LONG)
            expect_errno(errno.EBUSY, os.unlink, live.file("new.img"))
            assert live.names() == ["new.img", "web2.img"]
            with opened(live.file("web2.img")) as other:
                write_all(other, b"o" * BLOCK, 0)
        wait_until(lambda: state_of(live, "new.img")["opens"] == "0", "the close")
        assert os.stat(live.file("new.img")).st_size == MIB
        os.unlink(live.file("new.img"))


def test_an_image_that_is_removed_meanwhile(mount, pool, web1, web2):
    """By hand: the disk is gone, and so is what was to be told of it."""
    with mount() as live:
        with paused(live) as fd:
            os.unlink(web1)
            assert live.names() == ["web2.img"]
            assert errno_of(os.write, fd, b"resume") in (0, errno.ESTALE)
            make_image(web1, SIZE)
            assert live.names() == ["web1.img", "web2.img"]
            with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as disk:
                Aligned(BLOCK).write(disk, b"n" * BLOCK, 0)


def test_a_disk_that_is_degraded_besides(mount, cache, web1, gate):
    live = mount("mode=writeback", f"cache={cache}", "cache_size=64M", "migrate_idle_ms=1", env=failing(web1, gate))
    with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        Aligned(BLOCK).write(fd, b"a" * BLOCK, 0)
        os.fsync(fd)
        wait_until(lambda: state_of(live)["dirty_bytes"] == "0", "it to be clean")
        gate.open()
        Aligned(BLOCK).write(fd, b"b" * BLOCK, 0)
        os.fsync(fd)
        wait_until(lambda: state_of(live)["state"] == "degraded", "the write-back to fail")
        with paused(live):
            state = state_of(live)
            assert state["state"] == "paused" and "besides it is degraded: " in state["reason"]
            assert "Input/output error" in state["reason"]
        wait_until(lambda: state_of(live)["state"] == "degraded", "the end of the pause")
        gate.close()
        wait_until(lambda: state_of(live)["dirty_bytes"] == "0", "it to be clean")
    live.stop()


# ---- A store that does not answer ----------------------------------------------------------


@pytest.fixture
def hung(pool, work, mount, web2):
    """A discard of web1 has no answer; its reads have. Its writes the kernel has wait."""
    content = os.urandom(MIB)
    image = make_raw(os.path.join(pool, "web1.raw"), content)
    store = Store(pool, work)
    live = mount(env={**store.env, "SLOW_HANG": os.path.basename(image), "SLOW_CALLS": "fallocate"})
    with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        store.gate.open()
        hanging = Waiting(discard, fd, 0, BLOCK)
        live.read = lambda: Aligned(BLOCK).read(fd, BLOCK, BLOCK) == content[BLOCK:2 * BLOCK]
        try:
            wait_until(lambda: os.path.exists(store.log) and store.calls_on("web1.raw")["fallocate"], "the discard to hang")
            yield live
            assert not hanging.is_over()
        finally:
            store.gate.close()
            hanging.thread.join(PATIENCE)
        hanging.result()
        assert Aligned(BLOCK).read(fd, BLOCK, 0) == bytes(BLOCK)
    live.stop()


def still_runs(live):
    """As before: what does not hang is served."""
    assert holders(live) == [] and state_of(live)["state"] in ("active", "waiting")
    assert Waiting(live.read).result(LONG)


def test_a_store_that_does_not_answer(hung):
    """Refused after a while; what came meanwhile is served then. Another disk is paused at once."""
    live = hung
    with opened(pause_file(live), os.O_WRONLY) as fd:
        pause = Waiting(os.write, fd, b"pause")
        client = Waiting(lambda: leafctl("pause", live.file("web1.img"), "true", check=False))
        wait_until(lambda: [holder[0] for holder in holders(live)] == ["closing"] * 2, "them to be closing")
        read = waiting(live, live.read)
        assert not read.is_over() and not is_paused(live)
        with paused(live, "web2.img"):
            assert is_paused(live, "web2.img")
        with pytest.raises(OSError) as refused:
            pause.result()
        assert refused.value.errno == errno.ETIMEDOUT
        assert read.result()
        assert f"web1.img: not paused, it goes on as before: 1 of its requests had no answer for {REFUSED_AFTER} s" in last_error(live)
        assert client.result().returncode == 1
        assert "web1.img: not paused" in client.result().stderr and "had no answer for" in client.result().stderr
        still_runs(live)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_pause_that_is_given_up(hung, number):
    live = hung
    client = subprocess.Popen([program("leafctl"), "pause", live.file("web1.img"), "touch", live.path + ".ran"],
                              stderr=subprocess.PIPE, text=True)
    wait_until(lambda: holders(live), "it to be closing")
    read = waiting(live, live.read)
    client.send_signal(number)
    _, said = client.communicate(timeout=LONG)
    assert client.returncode == (-number if number == signal.SIGKILL else 1)
    assert number == signal.SIGKILL or ("given up" in said and f"signal {number}" in said)
    assert read.result(LONG)
    wait_until(lambda: holders(live) == [], "the end of the command")
    still_runs(live)
    assert not os.path.exists(live.path + ".ran")


def test_a_resume_while_it_is_closing(hung):
    live = hung
    with opened(pause_file(live), os.O_WRONLY) as fd:
        pause = Waiting(os.write, fd, b"pause")
        wait_until(lambda: holders(live), "it to be closing")
        leafctl("resume", live.file("web1.img"), timeout=LONG)
        with pytest.raises(OSError) as refused:
            pause.result(LONG)
        assert refused.value.errno == errno.ECANCELED and "it was resumed" in last_error(live)
        still_runs(live)


# ---- The end of a mount ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_the_end_of_a_mount(mount, cache, web1, work, mode):
    """By a signal: what waits is done, and nothing hangs. Whoever holds the pause is told."""
    options = [] if mode == "direct" else [f"cache={cache}", "cache_size=64M"]
    live = mount(f"mode={mode}", *options)
    client = subprocess.Popen([program("leafctl"), "pause", live.file("web1.img")], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
    assert client.stdout.readline()
    fd = os.open(live.file("web1.img"), os.O_RDWR | os.O_DIRECT)
    writes = [waiting(live, Aligned(BLOCK).write, fd, b"n" * BLOCK, number * MIB) for number in range(4)]
    os.kill(live.pid, signal.SIGTERM)
    assert live.wait() == 0, live.messages()
    for write in writes:
        write.result()
    with contextlib.suppress(OSError):
        os.close(fd)
    _, said = client.communicate(timeout=PATIENCE)
    assert client.returncode == 1 and "web1.img is no longer paused: its mount has ended" in said
    if mode != "ephemeral":
        found = converted(web1, work)
        assert [found[number * MIB:number * MIB + BLOCK] for number in range(4)] == [b"n" * BLOCK] * 4


def test_an_unmount(mount, web1):
    """Refused while somebody holds a pause; a lazy one waits for the end of that, as for that of any file."""
    live = mount()
    client = subprocess.Popen([program("leafctl"), "pause", live.file("web1.img")], stdout=subprocess.PIPE, text=True)
    assert client.stdout.readline()
    result = run("fusermount3", "-u", live.path, check=False, timeout=LONG)
    assert result.returncode != 0 and "busy" in result.stderr
    refused = leafctl("umount", live.path, check=False, timeout=LONG)
    assert refused.returncode == 1 and f"leafctl (pid {client.pid}) uses " in refused.stderr
    fd = os.open(live.file("web1.img"), os.O_RDWR | os.O_DIRECT)
    write = waiting(live, Aligned(BLOCK).write, fd, b"n" * BLOCK, 0)
    run("fusermount3", "-uz", live.path)
    assert not write.is_over() and not live.has_ended()
    client.kill()
    client.wait(PATIENCE)
    write.result()
    os.close(fd)
    assert live.wait() == 0
    live.finalise()


def test_the_daemon_is_killed(mount, web1):
    live = mount()
    client = subprocess.Popen([program("leafctl"), "pause", live.file("web1.img"), "sleep", "60"], stderr=subprocess.PIPE,
                              text=True)
    wait_until(lambda: is_paused(live), "the pause")
    live.kill9()
    client.terminate()
    _, said = client.communicate(timeout=PATIENCE)
    assert client.returncode == 128 + signal.SIGTERM and "its mount has ended" in said


def test_a_pause_comes_while_the_mount_ends(mount, web1, web2):
    """Whichever is first: the daemon ends."""
    for _ in range(scaled(5, 50)):
        live = mount()
        clients = [subprocess.Popen([program("leafctl"), "pause", live.file(name)], stdout=subprocess.DEVNULL,
                                    stderr=subprocess.DEVNULL) for name in ("web1.img", "web2.img") for _ in range(3)]
        os.kill(live.pid, signal.SIGTERM)
        assert live.wait(PATIENCE) == 0
        live.finalise()
        for client in clients:
            assert client.wait(PATIENCE) == 1


# ---- leafctl ----------------------------------------------------------------------------------


def test_a_command(mount, web1, work):
    """It runs while the disk is paused, as it would run without; the exit status is its."""
    with mount() as live:
        disk = live.file("web1.img")
        shown = leafctl("pause", disk, "cat", live.control("disks", "web1.img", "state")).stdout
        assert shown.startswith("state: paused\n")
        await_active(live)
        for status in (0, 1, 3, 77):
            assert leafctl("pause", disk, "sh", "-c", f"exit {status}", check=False).returncode == status
        assert leafctl("pause", disk, "sh", "-c", "kill -TERM $$", check=False).returncode == 128 + signal.SIGTERM
        assert leafctl("pause", disk, "ls", "-1", "--", live.path).stdout == "web1.img\n"
        assert leafctl("pause", disk, "--", "printf", "%s", "--help").stdout == "--help"
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        asked = ["sh", "-c", "ulimit -S -n; grep Sig[IB] /proc/self/status; ls /proc/self/fd"]
        assert leafctl("pause", disk, *asked).stdout == run(*asked).stdout and soft > 0
        assert holders(live) == [] or await_active(live) is None


def test_a_command_that_cannot_be_run(mount, web1, work):
    with mount() as live:
        disk, script = live.file("web1.img"), os.path.join(work, "script")
        before = file_bytes(live.control("events"))
        for words in (["surely-no-such-program", "-x"], [script]):
            result = leafctl("pause", disk, *words, check=False)
            assert result.returncode == 127 and f"{words[0]} is no program that can be run; web1.img is not paused" in result.stderr
        assert file_bytes(live.control("events")) == before
        with open(script, "w", encoding="ascii") as file:
            file.write("#!/surely/no/such/interpreter\n")
        os.chmod(script, 0o755)
        result = leafctl("pause", disk, script, check=False)
        assert result.returncode == 127 and "cannot be run: No such file" in result.stderr
        await_active(live)


def test_what_is_no_disk(mount, pool, web1):
    with mount() as live:
        for verb in ("pause", "resume"):
            for path, word in ((live.path, "is no disk"), (pool, "is a pool; its mount is"), (web1, "neither"),
                               (live.file("web9.img"), "is no disk of the mount"), (live.control("stats"), "is no disk")):
                result = leafctl(verb, path, check=False)
                assert (result.returncode, result.stdout) == (1, "") and word in result.stderr, result
            assert leafctl(verb, check=False).returncode == 2
        assert leafctl("resume", live.file("web1.img"), "more", check=False).returncode == 2
        assert leafctl("pause", live.file("web1.img"), "-x", check=False).returncode == 2
    with mount("ro") as live:
        result = leafctl("pause", live.file("web1.img"), "true", check=False)
        assert result.returncode == 1 and "Read-only" in result.stderr


def test_a_pause_that_ends_before_its_command(mount, web1, work):
    """The command did not have what it was run for: that is no success."""
    with mount() as live:
        disk = live.file("web1.img")
        result = leafctl("pause", disk, program("leafctl"), "resume", disk, check=False)
        assert result.returncode == 1
        assert "web1.img was not paused until" in result.stderr and "resumed by another" in result.stderr
        result = leafctl("pause", disk, "sh", "-c", f"{program('leafctl')} resume {disk}; exit 9", check=False)
        assert result.returncode == 9 and "resumed by another" in result.stderr
        client = subprocess.Popen([program("leafctl"), "pause", disk], stdout=subprocess.PIPE, text=True)
        assert client.stdout.readline()
        leafctl("resume", disk)
        assert client.wait(PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_waits_for_its_own_disk(mount, web1, number):
    """It cannot be killed while it does: a signal lets the disk go on first."""
    with mount() as live:
        command = ["dd", f"if={live.file('web1.img')}", "of=/dev/null", "bs=1M", "iflag=direct", "status=none"]
        client = subprocess.Popen([program("leafctl"), "pause", live.file("web1.img"), *command])
        wait_until(lambda: stats(live)["read_requests"] > 0, "the command to read")
        assert is_paused(live) and client.poll() is None
        client.send_signal(number)
        assert client.wait(LONG) in (0, 128 + number)
        await_active(live)


COUNTS_SIGNALS = """
import signal, sys, time
got = []
signal.signal(signal.SIGINT, lambda number, frame: got.append(number))
print("ready", flush=True)
while not got:
    time.sleep(0.05)
time.sleep(0.3)
print("got", len(got), flush=True)
sys.exit(5)
"""


def test_a_signal_of_the_terminal(mount, web1, work):
    """Comes to the command from there, once."""
    script = os.path.join(work, "count.py")
    with open(script, "w", encoding="ascii") as file:
        file.write(COUNTS_SIGNALS)
    with mount() as live:
        words = [program("leafctl"), "pause", live.file("web1.img"), sys.executable, script]
        # In place of the shell, which would die of the signal.
        client = subprocess.Popen([shutil.which("script"), "-qec", "exec " + shlex.join(words), "/dev/null"], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE)
        line = b""
        while b"ready" not in line:
            line = client.stdout.readline()
            assert line, "the command did not begin"
        assert is_paused(live)
        client.stdin.write(b"\x03")
        client.stdin.flush()
        said = client.stdout.read()
        assert (client.wait(PATIENCE), b"got 1" in said) == (5, True), said
        await_active(live)


def test_status_shows_it(mount, web1, web2):
    with mount() as live, paused(live):
        said = leafctl("status", live.path).stdout
        assert re.search(r"^web1\.img .* direct +paused ", said, re.M) and re.search(r"^web2\.img .* direct +active ", said, re.M)
        assert f"(pid {os.getpid()})" in said
        fields = dict(re.split(r":\s+", line, maxsplit=1) for line in leafctl("status", live.file("web1.img")).stdout.splitlines())
        assert fields["state"] == "paused" and fields["since"] == control_values(live, "disks", "web1.img", "state")["since"]


def test_nothing_is_left(mount, web1):
    """Descriptors and threads of the daemon, after many."""
    def used(live):
        return len(os.listdir(f"/proc/{live.pid}/fd"))

    with mount() as live:
        read_file(live.file("web1.img"), BLOCK)
        wait_until(lambda: state_of(live)["opens"] == "0", "the close")
        before = used(live)
        for _ in range(scaled(100, 2000)):
            with paused(live) as fd:
                assert not has_lost(fd)
                tell(fd, b"resume")
                assert has_lost(fd)
        await_active(live)
        assert used(live) <= before + 2
