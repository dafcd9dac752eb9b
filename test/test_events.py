"""Events: what has happened in a mount, to whom, how bad it is; who reads on, who waits, who comes too late."""
import contextlib
import errno
import os
import re
import signal
import subprocess
import threading
import time

import pytest

from harness import (BLOCK, MIB, Aligned, Loop, expect_errno, faults, file_bytes, halt, leafctl, make_image, make_raw,
                     opened, program, run, wait_until, write_all)
from test_control import command, errno_of

LINE = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z (info|warning|error) (\S+) (.+)")
KEPT = 256


@pytest.fixture
def web1(pool):
    return make_image(os.path.join(pool, "web1.leaf"), "4M")


def parsed(text):
    """(severity, disk, message) of each line."""
    assert text == "" or text.endswith("\n")
    matches = [LINE.fullmatch(line) for line in text.splitlines()]
    assert all(matches), text
    return [match.groups() for match in matches]


def events_of(live, disk=None):
    found = parsed(file_bytes(live.control("events")).decode())
    return [event for event in found if disk in (None, event[1])]


def set_age(live, number):
    command(live.control("tunables", "max_dirty_age"), str(number).encode())


def age_event(number):
    return "info", "-", f"max_dirty_age is {number} now"


# ---- What is one -------------------------------------------------------------------


def test_modes_sizes_and_refusals(mount, cache, pool, web1):
    make_image(os.path.join(pool, "a b.leaf"), "1M")
    with mount(f"cache={cache}", "cache_size=16M", "mode=direct") as live:
        leafctl("mode", live.file("web1.img"), "writeback")
        leafctl("resize", live.file("web1.img"), "8M")
        leafctl("mode", live.file("a b.img"), "persistent")
        assert events_of(live, "web1.img") == [("info", "web1.img", "mode writeback now, was direct"),
                                               ("info", "web1.img", f"has {8 * MIB} bytes now")]
        assert events_of(live, "a\\040b.img") == [("info", "a\\040b.img", "mode persistent now, was direct")]


def test_an_open_that_is_refused(mount, web1):
    with mount() as other, mount() as live, opened(other.file("web1.img")) as fd:
        write_all(fd, b"x", 0)
        with pytest.raises(OSError):
            os.close(os.open(live.file("web1.img"), os.O_RDWR))
        (severity, _, message), = events_of(live, "web1.img")
        assert severity == "warning" and "in use" in message


def test_a_size_that_a_program_sets(mount, web1):
    with mount() as live:
        os.truncate(live.file("web1.img"), 6 * MIB)
        assert events_of(live, "web1.img") == [("info", "web1.img", f"has {6 * MIB} bytes now")]


# ---- States ---------------------------------------------------------------------------


def states_of(live):
    """What the disk's states were told to be, one after the other."""
    return [(severity, message.split(" ")[0]) for severity, _, message in events_of(live, "web1.img") if " now, was " in message and "mode" not in message]


def test_a_store_that_fails(mount, web1, gate):
    """Nobody asks for the state; it is told when it has changed, and again when it is well for a while."""
    live = mount(env=faults("aio.write/web1.leaf:EIO", gate=gate.path))
    with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        memory = Aligned(BLOCK)
        memory.write(fd, b"1" * BLOCK, 0)
        gate.open()
        expect_errno(errno.EIO, memory.write, fd, b"2" * BLOCK, 0)
        wait_until(lambda: states_of(live) == [("warning", "failing")], "the event")
        gate.close()
        memory.write(fd, b"3" * BLOCK, 0)
        back = time.monotonic()
        wait_until(lambda: states_of(live) == [("warning", "failing"), ("info", "active")], "the event")
        assert time.monotonic() - back > 3
        said = events_of(live, "web1.img")[-1][2]
        assert said == "active now, was failing"
    live.stop()


def test_a_store_that_hangs(mount, work):
    where = os.path.join(work, "slow")
    os.mkdir(where)
    make_raw(os.path.join(where, "device.raw"), bytes(16 * MIB))
    slow = mount(pool=where)
    conf = os.path.join(work, "leafdisk.conf")
    with Loop(slow.file("device.img")) as loop:
        with open(conf, "w", encoding="utf-8") as file:
            file.write(f"[pool]\nlayers = /dev\n[disk web1.img]\nlayers = raw:{loop.device}\n")
        with mount(f"conf={conf}") as live, opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
            Aligned(BLOCK).write(fd, b"1" * BLOCK, 0)
            halt(slow.pid)
            thread = threading.Thread(target=lambda: Aligned(BLOCK).write(fd, b"2" * BLOCK, BLOCK))
            thread.start()
            try:
                wait_until(lambda: states_of(live) == [("warning", "waiting")], "the event", 60, 0.1)
                assert any(loop.device in message for _, _, message in events_of(live, "web1.img"))
            finally:
                os.kill(slow.pid, signal.SIGCONT)
                thread.join()
            wait_until(lambda: states_of(live)[-1] == ("info", "active"), "the event", 60, 0.1)


def test_a_cache_that_fails(mount, cache, web1, gate):
    live = mount(f"cache={cache}", "mode=writeback", "cache_size=16M", "migrate_idle_ms=1",
                 env=faults(f"aio.write/{os.path.basename(cache)}:EIO", gate=gate.path))
    with opened(live.file("web1.img")) as fd:
        write_all(fd, b"1" * BLOCK, 0)
        os.fsync(fd)
        gate.open()
        write_all(fd, b"2" * BLOCK, 0)
        os.fsync(fd)
        wait_until(lambda: states_of(live)[:1] == [("warning", "degraded")], "the event", 60, 0.1)
        gate.close()
        wait_until(lambda: states_of(live)[-1] == ("info", "active"), "the event", 120, 0.1)
    live.stop()


def test_an_idle_mount_looks_at_nothing(mount, web1):
    """All is well, a disk is open: the watch sleeps."""
    def switches(pid):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/status", encoding="ascii") as file:
                status = file.read()
            if "leafdisk-watch" in status:
                return int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.M).group(1))
        return None

    with mount() as live, opened(live.file("web1.img")):
        wait_until(lambda: switches(live.pid) is not None, "the watch")
        time.sleep(5)  # what the open has stirred is over
        before = switches(live.pid)
        time.sleep(5)
        assert switches(live.pid) == before


# ---- Reading on and waiting -----------------------------------------------------------


def test_reading_on(mount, web1):
    with mount() as live, opened(live.control("events"), os.O_RDONLY) as fd:
        assert parsed(os.read(fd, MIB).decode())[-1][2].endswith(f"mounted on {live.path}")
        assert os.read(fd, MIB) == b""
        for number in (7, 8):
            set_age(live, number)
        assert parsed(os.read(fd, MIB).decode()) == [age_event(7), age_event(8)]
        assert os.read(fd, MIB) == b""
        set_age(live, 9)
        parts = b""
        while part := os.read(fd, 5):
            parts += part
        assert parsed(parts.decode()) == [age_event(9)]


def test_a_reader_that_falls_behind(mount, web1):
    with mount() as live, opened(live.control("events"), os.O_RDONLY) as fd:
        os.read(fd, MIB)
        for number in range(1, KEPT + 12):
            set_age(live, number)
        text = b""
        while part := os.read(fd, MIB):
            text += part
        lines = parsed(text.decode())
        assert lines[0] == ("warning", "-", "11 events before this were missed")
        assert lines[1:] == [age_event(number) for number in range(12, KEPT + 12)]


def test_waiting(mount, web1):
    with mount() as live, opened(live.control("events")) as fd:
        assert os.write(fd, b"wait") == 4  # nothing has been read yet
        while os.read(fd, MIB):
            pass
        done = []
        waiter = threading.Thread(target=lambda: done.append(os.write(fd, b"wait\n")))
        waiter.start()
        time.sleep(1)
        assert not done
        set_age(live, 7)
        waiter.join(10)
        assert done == [5] and parsed(os.read(fd, MIB).decode()) == [age_event(7)]
        for bad in (b"wait wait", b"WAIT", b"x"):
            expect_errno(errno.EINVAL, os.write, fd, bad)
        assert "expected: wait" in file_bytes(live.control("last_error")).decode()


STOPPED = """
import os, signal, sys
signal.signal(signal.SIGALRM, lambda *_: sys.exit(9))
signal.alarm(1)
os.write(int(sys.argv[1]), b"wait")
"""


def test_a_wait_is_given_up(mount, web1):
    """By a signal to the writer, and by the end of the mount, which is an event too."""
    live = mount()
    fd = os.open(live.control("events"), os.O_RDWR)
    while os.read(fd, MIB):
        pass
    result = run("python3", "-c", STOPPED, fd, pass_fds=[fd], check=False)
    assert result.returncode == 9, result.stderr
    results = []
    waiter = threading.Thread(target=lambda: results.append(errno_of(os.write, fd, b"wait")))
    waiter.start()
    time.sleep(0.5)
    os.kill(live.pid, signal.SIGTERM)
    waiter.join(60)
    assert results and results[0] in (0, errno.EINTR, errno.ENOTCONN, errno.ECONNABORTED)
    with contextlib.suppress(OSError):
        os.close(fd)
    assert live.wait() == 0


# ---- leafctl events --------------------------------------------------------------------


def test_leafctl_events(mount, cache, pool, web1):
    make_image(os.path.join(pool, "a b.leaf"), "1M")
    with mount(f"cache={cache}", "cache_size=16M", "mode=direct") as live:
        leafctl("mode", live.file("web1.img"), "writeback")
        leafctl("mode", live.file("a b.img"), "writeback")
        assert parsed(leafctl("events", live.path).stdout) == events_of(live)
        assert parsed(leafctl("events", live.file("web1.img")).stdout) == events_of(live, "web1.img") != []
        assert parsed(leafctl("events", live.file("a b.img")).stdout) == events_of(live, "a\\040b.img") != []
        refused = leafctl("events", live.control("stats"), check=False)
        assert refused.returncode == 1 and "is no disk" in refused.stderr
    assert leafctl("events", pool, check=False).returncode == 1


@contextlib.contextmanager
def following(*arguments):
    """leafctl events --follow, and a function that gives the lines so far."""
    with subprocess.Popen([program("leafctl"), "events", "--follow", *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as child:
        lines = []

        def read():
            for line in child.stdout:
                lines.append(line)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield child, lambda: parsed("".join(lines))
        finally:
            child.kill()
            reader.join()


@pytest.mark.parametrize("options", [(), ("ro",)], ids=["waits", "ro"])
def test_leafctl_follows(mount, work, pool, web1, options):
    """It shows what happens when it happens; a mount that takes no commands is looked at."""
    with mount(*options) as live, following(live.path) as (child, lines):
        wait_until(lambda: len(lines()) == 1, "the first event")
        if options:
            make_raw(os.path.join(pool, "broken.leaf"), b"no image")
            assert os.listdir(live.path)
            wait_until(lambda: "broken.leaf" in lines()[-1][2], "the next one")
        else:
            for number in (7, 8):
                set_age(live, number)
                wait_until(lambda: lines()[-1] == age_event(number), "the next one")
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 0


def test_leafctl_follows_one_disk_to_the_end(mount, cache, web1):
    live = mount(f"cache={cache}", "cache_size=16M", "mode=direct")
    with following(live.file("web1.img")) as (child, lines):
        set_age(live, 7)
        leafctl("mode", live.file("web1.img"), "persistent")
        wait_until(lambda: lines() == [("info", "web1.img", "mode persistent now, was direct")], "the event")
        os.kill(live.pid, signal.SIGTERM)
        assert child.wait(60) in (0, 1)
    live.wait()
    live.finalise()
