"""What the process may have, and what it makes of it: descriptors, sizes, memory, threads."""
import errno
import os
import re

import pytest

import leaf_format
from harness import (BLOCK, MIB, MountError, SANITIZED, Aligned, check_clean, faults, file_bytes, leafctl, make_image,
                     make_raw, opened, program, run, state_of, stats, wait_until)
from test_writeback_faults import HELD

FILES = 256
DISKS = 60
# Chunks: some 60 MiB of memory.
LARGE_TABLE = 300000


def limited(*limits):
    return ["prlimit", *(f"--{limit}" for limit in limits), "--"]


def limits_of(pid, name):
    with open(f"/proc/{pid}/limits", encoding="ascii") as file:
        line = next(line for line in file if line.startswith(name))
    return re.sub(r"\s\s+", "  ", line).split("  ")[1:3]


def make_disks(pool, count=DISKS):
    for index in range(count):
        make_raw(os.path.join(pool, f"d{index}.raw"), bytes(MIB))


@pytest.mark.parametrize("closed", ["0", "1", "2", "01", "12", "02", "012"])
def test_closed_standard_files(pool, work, mount, closed):
    """The command ends when the mount is there, and no file of a disk gets their numbers."""
    make_disks(pool, 1)
    redirections = " ".join({"0": "<&-", "1": ">&-", "2": "2>&-"}[digit] for digit in closed)
    live = mount(foreground=False, wrapper=["sh", "-c", f'exec "$@" {redirections}', "sh"])
    with opened(live.file("d0.img")) as fd:
        os.pwrite(fd, b"x" * BLOCK, 0)
        os.fsync(fd)
        assert [os.readlink(f"/proc/{live.pid}/fd/{number}") for number in range(3)] == ["/dev/null"] * 3
    live.stop()
    assert file_bytes(os.path.join(pool, "d0.raw")) == b"x" * BLOCK + bytes(MIB - BLOCK)


def test_closed_standard_files_of_the_tool(work):
    """What it prints does not become a part of an image."""
    image = os.path.join(work, "one.leaf")
    for arguments in (["create", image, "1M"], ["info", image], ["check", image], ["resize", image, "2M"]):
        run("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", program("leafctl"), *arguments, check=False)
    assert "2 MiB" in leafctl("info", image).stdout
    check_clean(image)


def test_as_many_files_as_are_allowed(mount, pool):
    make_disks(pool)
    live = mount(wrapper=limited(f"nofile={FILES}:4096"))
    assert limits_of(live.pid, "Max open files") == ["4096", "4096"]
    fds = [os.open(live.file(f"d{index}.img"), os.O_RDWR) for index in range(DISKS)]
    for fd in fds:
        os.pwrite(fd, b"x", 0)
        os.fsync(fd)
        os.close(fd)
    live.stop()


@pytest.mark.parametrize("mode", ["direct", "persistent", "ephemeral", "writeback"])
def test_more_disks_than_files(mount, pool, work, mode):
    """Those that are open go on, and are closed well; another is refused with a
    sentence, which the log has once, until there is room again."""
    make_disks(pool)
    options = [f"mode={mode}"]
    if mode in ("persistent", "writeback"):
        options += [f"cache={os.path.join(work, 'cache')}", "cache_size=32M"]
    live = mount(*options, wrapper=limited(f"nofile={FILES}:{FILES}"))
    fds = []
    refused = 0
    for index in range(DISKS):
        try:
            fds.append(os.open(live.file(f"d{index}.img"), os.O_RDWR))
        except OSError as error:
            assert error.errno == errno.EMFILE
            refused += 1
    assert len(fds) >= 5 and refused >= (0 if mode == "ephemeral" else 5)
    for fd in fds:
        os.pwrite(fd, b"x" * BLOCK, 0)
        os.fsync(fd)
    assert len(live.names()) == DISKS
    for fd in fds:
        os.close(fd)
    live_messages = live.messages()
    assert live_messages.count("no other disk can be opened") == (refused > 0)
    assert f"this process may have {FILES} files open at once" in live_messages or not refused
    wait_until(lambda: opens(live.file(f"d{DISKS - 1}.img")), "the last disk to be opened")
    live.stop()
    others = [line for line in live.messages().splitlines() if "no other disk can be opened" not in line]
    assert not any("Too many open files" in line for line in others), live.messages()


def opens(path):
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError as error:
        assert error.errno in (errno.EMFILE, errno.ENOMEM)
        return False
    return True


@pytest.mark.parametrize("mode", ["direct", "persistent", "ephemeral"])
def test_a_limit_for_the_size_of_files(mount, pool, work, mode):
    """A write that goes past it is one that finds no room."""
    leafctl("create", os.path.join(pool, "d.raw"), "64M")
    options = [f"mode={mode}"]
    if mode != "direct":
        options += [f"cache={os.path.join(work, 'cache')}", "cache_size=16M"]
    live = mount(*options, wrapper=limited(f"fsize={32 * MIB}"))
    memory = Aligned(MIB)
    written = 0
    with pytest.raises(OSError) as failed:
        with opened(live.file("d.img"), os.O_RDWR | os.O_DIRECT) as fd:
            while written < 64 * MIB:
                memory.write(fd, b"x" * MIB, written)
                written += MIB
    assert failed.value.errno in (errno.EFBIG, errno.ENOSPC)
    assert written >= 8 * MIB
    with opened(live.file("d.img"), os.O_RDWR) as fd:
        os.pwrite(fd, b"y" * MIB, 0)
        os.fsync(fd)
    assert stats(live)["flush_requests"] >= 1
    live.stop()


@pytest.mark.skipif(SANITIZED, reason="a sanitizer needs address space of its own")
@pytest.mark.parametrize("mode", ["direct", "writeback"])
def test_a_limit_for_memory(mount, pool, work, mode):
    """With every amount it works, or says why not, and does not end by a signal."""
    make_image(os.path.join(pool, "d.leaf"), "64M")
    options = [f"mode={mode}", "threads=1"]
    if mode != "direct":
        options += [f"cache={os.path.join(work, 'cache')}", "cache_size=64M"]
    results = set()
    for mib in [32, 64, 100, *range(200, 1000, 40)]:
        try:
            live = mount(*options, wrapper=limited(f"as={mib * MIB}"))
        except MountError as error:
            assert error.status in (1, 127), f"{mib} MiB: {error}"
            assert re.search("memory|temporarily", error.messages) or error.status == 127, error
            results.add("refused")
            continue
        use_with_little_memory(live)
        live.stop()
        results.add("works")
    assert results == {"refused", "works"}


@pytest.mark.skipif(SANITIZED, reason="a sanitizer needs address space of its own")
@pytest.mark.parametrize("command", ["check", "map"])
def test_a_large_table_and_a_limit_for_memory(work, command):
    """It is read, or refused with a sentence, and no amount ends the program by a signal."""
    image = os.path.join(work, "d.leaf")
    leafctl("create", "--chunk=64K", image, f"{LARGE_TABLE * 64 // 1024}M")
    leaf_format.fill_table(image, LARGE_TABLE)
    results = set()
    for mib in [*range(40, 320, 12), 1024]:
        done = run(*limited(f"as={mib * MIB}"), program("leafctl"), command, image, check=False)
        assert done.returncode in (0, 1, 127), f"{mib} MiB: {done}"
        assert done.returncode != 1 or "d.leaf: its chunk table cannot be held: Cannot allocate memory" in done.stderr
        results.add(done.returncode)
    assert results >= {0, 1}


def mount_with(mount, mib, *options):
    """None: there is too little memory for it, or to open the disk."""
    try:
        live = mount(*options, wrapper=limited(f"as={mib * MIB}"))
    except MountError:
        return None
    if opens(live.file("d.img")):
        return live
    live.stop()
    return None


def mount_with_the_least(mount, *options):
    """And a little more: what one mount takes another does not to the byte."""
    few, enough = 100, 1000
    while enough - few > 1:
        middle = (few + enough) // 2
        live = mount_with(mount, middle, *options)
        if live:
            live.stop()
        few, enough = (few, middle) if live else (middle, enough)
    return next(filter(None, (mount_with(mount, enough + more, *options) for more in (8, 12, 16))))


@pytest.mark.skipif(SANITIZED, reason="a sanitizer needs address space of its own")
@pytest.mark.parametrize("name", ["d.raw", "d.leaf"])
def test_the_least_memory_that_is_enough(mount, pool, work, name):
    """What a mount has begun to take with it, it can write back."""
    leafctl("create", os.path.join(pool, name), "64M")
    live = mount_with_the_least(mount, "mode=writeback", "threads=1", f"cache={os.path.join(work, 'cache')}",
                                "cache_size=128M", "migrate_batch=16384", *HELD)
    with opened(live.file("d.img")) as fd:
        for offset in range(0, 48 * MIB, MIB):
            os.pwrite(fd, b"x" * MIB, offset)
        os.fsync(fd)
        leafctl("set", live.path, "migrate_idle_ms=1", "max_dirty_age=1")
        wait_until(lambda: state_of(live, "d.img")["dirty_bytes"] == "0", "the changes to be in the pool", 30)
    live.stop()


def use_with_little_memory(live):
    try:
        with opened(live.file("d.img")) as fd:
            for offset in range(0, 64 * MIB, 16 * MIB):
                os.pwrite(fd, b"x" * MIB, offset)
            os.fsync(fd)
    except OSError as error:
        assert error.errno == errno.ENOMEM, error


@pytest.mark.parametrize("mode", ["direct", "writeback"])
def test_a_limit_for_threads(mount, pool, work, mode):
    """Whichever does not start: the mount has fewer, or is refused with a sentence."""
    make_image(os.path.join(pool, "d.leaf"), "64M")
    options = [f"mode={mode}", "threads=3"]
    if mode != "direct":
        options += [f"cache={os.path.join(work, 'cache')}", "cache_size=16M"]
    works = 0
    for number in range(1, 9):
        try:
            live = mount(*options, env=faults(f"thread.spawn:EAGAIN@{number}x1"))
        except MountError as error:
            assert error.status == 1 and "thread" in error.messages, error
            continue
        with opened(live.file("d.img")) as fd:
            os.pwrite(fd, b"x" * MIB, 0)
            os.fsync(fd)
            assert os.pread(fd, MIB, 0) == b"x" * MIB
        live.stop()
        works += 1
    assert works >= 3
    live = mount(*options, env=faults("thread.spawn/leafdisk-cmd:EAGAIN"))
    assert leafctl("drain", live.path, check=False).returncode == 1
    assert "a command is refused, as no thread can be started for it" in live.messages()
    live.stop()
    live = mount(*options, env=faults("thread.spawn/leafdisk-loop:EAGAIN", "thread.spawn/leafdisk-step:EAGAIN@2",
                                      "thread.spawn/leafdisk-wait:EAGAIN@2"))
    with opened(live.file("d.img")) as fd:
        os.pwrite(fd, b"y" * MIB, 0)
        os.fsync(fd)
    live.stop()
