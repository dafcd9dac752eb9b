"""leafctl top: what the disks of a mount do, in tables."""
import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
import time

import pytest

from harness import (BLOCK, MIB, Aligned, faults, leafctl, make_image, make_raw, opened, program, state_of, wait_until,
                     write_all)

COLUMNS = ["name", "r/s", "w/s", "rMB/s", "wMB/s", "r ms", "w ms", "hit", "dirty", "state"]


@pytest.fixture
def web1(pool):
    return make_image(os.path.join(pool, "web1.leaf"), "64M")


def rows_of(text):
    """name -> what its line has behind it."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if re.match(r"\S+\.img ", line)}


@contextlib.contextmanager
def load(fd, work):
    """WORK is done again and again meanwhile."""
    stop = threading.Event()

    def body():
        memory = Aligned(MIB)
        while not stop.is_set():
            work(memory, fd)

    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def top(live, *options):
    return leafctl("top", "--batch", "--interval=1", "--count=1", *options, live.path).stdout


def test_nothing_is_done(mount, pool, web1):
    with mount() as live:
        said = top(live)
        assert re.fullmatch(rf"\d\d:\d\d:\d\d {live.path}: 0 of 1 disks, 0 r/s, 0 w/s, 0\.0 and 0\.0 MB/s, hit -, "
                            r"dirty 0 B\n\n", said), said
        with opened(live.file("web1.img")):
            said = top(live)
            assert said.splitlines()[1].split() == " ".join(COLUMNS).split()
            assert rows_of(said) == {"web1.img": ["0", "0", "0.0", "0.0", "-", "-", "-", "-", "active"]}


def test_what_is_done(mount, pool, web1):
    """Two disks are busy, the busiest comes first; a third is idle and not shown."""
    base = make_raw(os.path.join(pool, "base.raw"), os.urandom(MIB))
    for name in ("web2", "idle"):
        make_image(os.path.join(pool, f"{name}.leaf"), parent=base)
    with mount() as live, opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as writes, \
            opened(live.file("web2.img"), os.O_RDONLY | os.O_DIRECT) as reads:
        def write(memory, fd):
            memory.write(fd, b"w" * BLOCK, 0)

        def read(memory, fd):
            memory.read(fd, 4 * BLOCK, 0)
            time.sleep(0.05)

        with load(writes, write), load(reads, read):
            said = top(live)
    rows = rows_of(said)
    assert list(rows) == ["web1.img", "web2.img"], said
    web = [float(cell) for cell in rows["web1.img"][:4]]
    assert web[0] == 0 and web[1] > 20 and abs(web[3] - web[1] * BLOCK / 1e6) <= 0.1
    assert float(rows["web1.img"][5]) > 0 and rows["web1.img"][4] == "-"
    web = [float(cell) for cell in rows["web2.img"][:4]]
    assert 1 < web[0] <= 20 and web[1] == 0 and rows["web2.img"][6] == "0%" and rows["web2.img"][-1] == "active"
    assert "2 of 4 disks" in said.splitlines()[0]


def test_hits_dirty_and_state(mount, cache, web1, gate):
    live = mount(f"cache={cache}", "cache_size=64M", "mode=writeback", "migrate_idle_ms=1",
                 env=faults("aio.write/web1.leaf:EIO", "image.write/web1.leaf:EIO", gate=gate.path))
    with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        gate.open()
        Aligned(MIB).write(fd, b"d" * MIB, 0)
        os.fsync(fd)
        wait_until(lambda: state_of(live)["state"] == "degraded", "the disk to be degraded")
        with load(fd, lambda memory, fd: memory.read(fd, MIB, 0)):
            said = top(live)
        row = rows_of(said)["web1.img"]
        assert row[6] == "100%" and " ".join(row[7:]) == "1 MiB degraded", said
        assert "hit 100%, dirty 1 MiB" in said.splitlines()[0]
        gate.close()
    live.stop()


def test_counts_that_begin_anew(mount, web1):
    with mount() as live, opened(live.file("web1.img")) as fd:
        for _ in range(2000):
            write_all(fd, b"x" * BLOCK, 0)
        with subprocess.Popen([program("leafctl"), "top", "-b", "-n1", "-d2", live.path], stdout=subprocess.PIPE,
                              text=True) as child:
            time.sleep(1)
            with opened(live.control("stats"), os.O_WRONLY) as stats:
                os.write(stats, b"reset")
            write_all(fd, b"x" * BLOCK, 0)
            said = child.communicate(timeout=60)[0]
        assert float(rows_of(said)["web1.img"][1]) <= 1


def test_names_that_are_escaped(mount, pool):
    make_image(os.path.join(pool, 'a "b\\c\n.leaf'), "1M")
    with mount() as live, opened(live.file('a "b\\c\n.img')) as fd:
        write_all(fd, b"x", 0)
        line, = [line for line in top(live).splitlines() if "active" in line]
        assert line.startswith('a "b\\c?.img ')


def test_tables_follow_each_other_until_it_is_interrupted(mount, web1):
    with mount() as live, opened(live.file("web1.img")):
        said = leafctl("top", "-b", "-d1", "-n3", live.path).stdout
        assert len(re.findall(r"^\d\d:\d\d:\d\d ", said, re.M)) == said.count("web1.img") == 3
        with subprocess.Popen([program("leafctl"), "top", "-d1", live.path], stdout=subprocess.PIPE, text=True) as child:
            assert "of 1 disks" in child.stdout.readline()
            child.send_signal(signal.SIGINT)
            assert child.wait(30) == 0


def test_the_end_of_the_mount_is_its_end(mount, web1):
    live = mount()
    with subprocess.Popen([program("leafctl"), "top", "-d1", live.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as child:
        assert "of 1 disks" in child.stdout.readline()
        live.stop()
        assert child.wait(30) == 1 and child.stderr.read().count("\n") == 1


def test_a_terminal_is_filled_and_no_more(mount, pool):
    """24 lines of 80 columns: the tables are one above the other, and none runs out of the screen."""
    names = [make_image(os.path.join(pool, f"web{number:03}.leaf"), "1M") and f"web{number:03}.img" for number in range(40)]
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with mount() as live, contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(opened(live.file(name)))
        with subprocess.Popen([program("leafctl"), "top", "-n2", "-d1", live.path], stdout=terminal) as child:
            os.close(terminal)
            said = b""
            while select.select([main], [], [], 60)[0]:
                try:
                    said += os.read(main, 65536)
                except OSError:
                    break
            assert child.wait(60) == 0
        os.close(main)
    screens = said.decode().split("\033[H\033[J")[1:]
    assert len(screens) == 2
    for screen in screens:
        lines = screen.splitlines()
        assert len(lines) <= 23 and len([line for line in lines if line.startswith("web")]) == 21
        assert all(len(line) <= 80 for line in lines[1:]), lines


def test_what_is_refused(mount, pool, web1):
    with mount() as live:
        for words in (["-n0", live.path], ["-nx", live.path], ["-d-1", live.path], ["-d", "1.5", live.path],
                      ["--count=1000001", live.path], [], [live.path, live.path]):
            assert leafctl("top", *words, check=False).returncode == 2, words
        for path in (live.file("web1.img"), pool):
            refused = leafctl("top", path, check=False)
            assert refused.returncode == 1 and refused.stderr.count("\n") == 1
