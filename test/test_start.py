"""What a mount says at its start, where it begins, and who wins."""
import contextlib
import ctypes
import fcntl
import os
import select
import struct
import subprocess

import pytest

import cleanup
from harness import (MIB, MOUNT_VARIABLE, MountError, leafctl, make_image, opened, program, run, state_of, unmount,
                     wait_until, write_all, write_conf)

HELD = ["migrate_idle_ms=60000", "max_dirty_age=86400"]


@pytest.fixture
def web1(pool):
    return make_image(os.path.join(pool, "web1.leaf"), "4M")


def events_of(live):
    with open(live.control("events"), encoding="utf-8") as file:
        return file.read()


def refused(mount, *options, **settings):
    with pytest.raises(MountError) as caught:
        mount(*options, **settings)
    return caught.value.messages


# ---- Warnings ------------------------------------------------------------------


def test_an_empty_pool_is_said(mount, pool):
    with mount() as live:
        assert f"warning: {pool}: no disk is shown, as the pool has no image" in live.messages()
        assert "no disk is shown" in events_of(live)


def test_what_names_no_disk_is_said(mount, work, web1):
    conf = write_conf(work, "[disk web9.img]\nmode = direct\n")
    with mount(f"conf={conf}", "disks=web[1-2].img") as live:
        assert "[disk web9.img]: no disk of that name" in live.messages()
        assert "disks=" not in live.messages()
    with mount("disks=db*") as live:
        assert "disks=db*: no disk of the pool" in live.messages()


def test_images_of_other_formats_are_said(mount, pool, web1):
    run("qemu-img", "create", "-f", "qcow2", os.path.join(pool, "cloud.qcow2"), "1M")
    run("qemu-img", "create", "-f", "qcow2", os.path.join(pool, "named.img"), "1M")
    with mount() as live:
        for name in ("cloud.qcow2", "named.img"):
            assert any(name in line and "qcow2" in line and "warning" in line
                       for line in live.messages().splitlines()), live.messages()


def test_a_cache_in_the_pool_and_one_without_room_are_said(mount, pool, work, web1):
    small = os.path.join(work, "small")
    os.mkdir(small)
    run("mount", "-t", "tmpfs", "-o", "size=32M", "none", small)
    try:
        with mount(f"cache={small}/cache", "cache_size=1G") as live:
            assert f"cache {small}/cache: may grow by" in live.messages()
            assert "MiB free" in live.messages()
    finally:
        run("umount", small)
    with mount(f"cache={pool}/my.cache", "cache_size=16M") as live:
        assert f"cache {pool}/my.cache: is in the pool" in live.messages()
        assert "may grow" not in live.messages()


def test_a_mountpoint_that_holds_something(mount, pool, work, web1):
    """Swapped arguments are refused; anything else is warned of."""
    empty = os.path.join(work, "empty")
    os.mkdir(empty)
    result = run(program("leafdisk"), empty, pool, check=False)
    assert result.returncode == 1 and "holds disk images (web1.leaf)" in result.stderr
    assert cleanup.mounts_below(work) == []
    with open(os.path.join(empty, "note"), "w", encoding="ascii"):
        pass
    result = run(program("leafdisk"), pool, empty, env={MOUNT_VARIABLE: empty})
    assert f"mountpoint {empty} is not empty" in result.stderr
    unmount(empty)
    wait_until(lambda: not cleanup.processes_with(MOUNT_VARIABLE, empty), "the daemon's end")


@pytest.mark.parametrize("options", [["cache_size=64M"], ["max_dirty=1G"], ["nocopy_on_read"]])
def test_an_option_without_effect_is_refused(mount, work, web1, cache, options):
    assert "is about a cache, and this mount has none" in refused(mount, *options)
    conf = write_conf(work, "[pool]\nmax_dirty = 1G\n")
    mount(f"conf={conf}").stop()
    mount(*options, f"cache={cache}", "mode=direct").stop()


def test_remount_says_what_can_be_changed(mount, web1):
    said = refused(mount, "remount", "ro")
    assert "leafctl set" in said and "max_dirty_age" in said and "unmount it" in said


def test_newer_content_in_another_cache_is_said(mount, web1, cache):
    """At the mount, in the state of the disk; and no more once that cache has been drained."""
    live = mount("mode=writeback", f"cache={cache}", "cache_size=16M", *HELD)
    with opened(live.file("web1.img")) as fd:
        write_all(fd, b"newest", 0)
        os.fsync(fd)
    live.kill9()
    assert f"{web1}: newer content may be in the cache {cache}" in leafctl("list", os.path.dirname(web1)).stderr
    with mount() as live:
        assert leafctl("list", live.path).stderr == ""
        assert f"web1.img: {web1}: its newest changes may be only in the cache {cache}" in live.messages()
        state = state_of(live)
        assert state["state"] == "degraded" and "newest changes" in state["reason"]
        with pytest.raises(OSError):
            os.close(os.open(live.file("web1.img"), os.O_RDONLY))
        assert "newest changes" in leafctl("status", live.path).stdout
        leafctl("cache", "drain", cache)
        with open(live.file("web1.img"), "rb") as file:
            assert file.read(6) == b"newest"
            assert state_of(live)["state"] == "active"


# ---- Where it begins -----------------------------------------------------------


libc = ctypes.CDLL(None, use_errno=True)
AUTOFS_READY = 0x9360
AUTOFS_PACKET_BYTES = 304


@contextlib.contextmanager
def automounter(point):
    """Yields a function that waits for somebody at POINT and lets him in, or not, by what a command says."""
    request, kernel = os.pipe()
    options = f"fd={kernel},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
    assert libc.mount(b"test", point.encode(), b"autofs", 0, options.encode()) == 0, os.strerror(ctypes.get_errno())
    os.close(kernel)

    def serve(*command):
        assert select.select([request], [], [], 60)[0]
        _, _, token = struct.unpack_from("iiI", os.read(request, AUTOFS_PACKET_BYTES))
        run(*command, env={MOUNT_VARIABLE: point}, timeout=60)
        fcntl.ioctl(control, AUTOFS_READY, token)

    with opened(point, os.O_RDONLY | os.O_DIRECTORY) as control:
        try:
            yield serve
        finally:
            cleanup.quietly("umount", "-l", point)
            os.close(request)


def test_an_automounter_mounts_it(pool, work, web1):
    """It lets its own process group through to the mountpoint: the daemon mounts while it is in that."""
    point = os.path.join(work, "mnt")
    os.mkdir(point)
    with automounter(point) as serve:
        visitor = subprocess.Popen(["ls", point], stdout=subprocess.PIPE, start_new_session=True)
        try:
            serve(program("leafdisk"), pool, point)
            assert visitor.communicate(timeout=60)[0] == b"web1.img\n"
        finally:
            visitor.kill()
            cleanup.quietly("umount", point)
    wait_until(lambda: not cleanup.processes_with(MOUNT_VARIABLE, point), "the daemon's end")


def test_two_at_once_on_one_mountpoint(pool, work, web1):
    point = os.path.join(work, "mnt")
    os.mkdir(point)
    for _ in range(5):
        both = [subprocess.Popen([program("leafdisk"), pool, point], env={**os.environ, MOUNT_VARIABLE: point},
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                for _ in range(2)]
        said = [process.communicate()[1] for process in both]
        assert sorted(process.returncode for process in both) == [0, 1], said
        assert sum(path == point for path, _, _ in cleanup.mounts_below(work)) == 1
        unmount(point)
        wait_until(lambda: not cleanup.processes_with(MOUNT_VARIABLE, point), "the daemon's end")


def test_a_mountpoint_whose_daemon_is_gone_is_taken_over(mount, pool, web1):
    dead = mount()
    dead.kill()
    dead.wait()
    for path in (dead.path, dead.file("web1.img")):
        said = leafctl("status", path, check=False).stderr
        assert "the daemon that served it is gone: take the mount down (fusermount3 -u), and mount it again" in said
    result = run(program("leafdisk"), pool, dead.path, env={MOUNT_VARIABLE: dead.path})
    assert f"the mount of {pool} there has lost its daemon" in result.stderr
    assert os.path.getsize(dead.file("web1.img")) == 4 * MIB
    result = run(program("leafdisk"), pool, dead.path, check=False)
    assert result.returncode == 1 and f"is a leafdisk mount (of {pool}) already" in result.stderr
    unmount(dead.path)
    wait_until(lambda: not cleanup.processes_with(MOUNT_VARIABLE, dead.path), "the daemon's end")


# ---- Refusals and failures --------------------------------------------------------


def test_a_refused_open_and_a_full_pool_are_in_last_error(mount, work):
    """In the log, the events and the disk's last_error, whoever gets the errno."""
    small = os.path.join(work, "small")
    os.mkdir(small)
    run("mount", "-t", "tmpfs", "-o", "size=8M", "none", small)
    try:
        make_image(os.path.join(small, "web1.leaf"), "64M")
        with mount(pool=small) as live, opened(live.file("web1.img")) as fd:
            with pytest.raises(OSError, match="No space left"):
                for number in range(16):
                    os.pwrite(fd, os.urandom(MIB), number * MIB)
                    os.fsync(fd)
            failed = f"a write failed: No space left on device; make room in {small}"
            for said in (live.messages(), last_error(live)):
                assert f"web1.img: {failed}" in said
            assert f" web1.img {failed}" in events_of(live), events_of(live)
            with mount(pool=small) as second:
                with pytest.raises(OSError):
                    os.open(second.file("web1.img"), os.O_RDWR)
                assert "web1.leaf" in last_error(second) and f"pid {live.pid}" in last_error(second)
    finally:
        run("umount", small)


def last_error(live):
    with open(live.control("disks", "web1.img", "last_error"), encoding="utf-8") as file:
        return file.read()
