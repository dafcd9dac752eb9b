"""A mount that lives on in another mount namespace after its unmount here."""
import contextlib
import os
import signal
import subprocess

import pytest

from harness import PATIENCE, make_image, opened, run, unmount, wait_until, write_all


@pytest.fixture
def web1(pool):
    return make_image(os.path.join(pool, "web1.leaf"), "4M")


@contextlib.contextmanager
def namespace():
    """Yields the number of a process that has got all mounts of now."""
    with subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sleep", "3600"]) as process:
        try:
            own = os.readlink("/proc/self/ns/mnt")
            wait_until(lambda: os.readlink(f"/proc/{process.pid}/ns/mnt") != own, "the namespace")
            wait_until(lambda: b"sleep" in open(f"/proc/{process.pid}/cmdline", "rb").read(), "sleep")
            yield process
        finally:
            process.kill()


def device_of(path):
    number = os.stat(path).st_dev
    return f"{os.major(number)}:{os.minor(number)}"


def test_the_log_says_that_it_lives_on(mount, web1):
    """And how to find who has it; it ends when nobody has."""
    live = mount()
    device = device_of(live.path)
    with namespace() as other:
        unmount(live.path)
        said = f"{live.path} is unmounted here, and lives on"
        wait_until(lambda: said in live.messages(), "the message")
        assert not live.has_ended()
        typed = live.messages().split("that is over; ")[1].split(" tells who")[0]
        assert device in typed
        found = run("sh", "-c", typed, check=False).stdout.split()
        assert f"/proc/{other.pid}/mountinfo" in found
        inside = f"/proc/{other.pid}/root{live.path}/web1.img"
        with opened(inside) as fd:
            write_all(fd, b"inside", 0)
            os.fsync(fd)
    assert live.wait() == 0
    assert live.messages().count(said) == 1
    live.finalise()


def test_a_signal_ends_it_everywhere(mount, web1):
    live = mount()
    with namespace():
        unmount(live.path)
        wait_until(lambda: "lives on" in live.messages(), "the message")
        os.kill(live.pid, signal.SIGTERM)
        assert live.wait(PATIENCE) == 0
    live.finalise()


def test_a_mount_that_is_lazily_unmounted_and_in_use(mount, web1):
    live = mount()
    with opened(live.file("web1.img")) as fd:
        run("fusermount3", "-uz", live.path)
        wait_until(lambda: "a file of it is open" in live.messages(), "the message")
        write_all(fd, b"still", 0)
        os.fsync(fd)
    assert live.wait() == 0
    live.finalise()


def test_other_mounts_and_a_move_say_nothing(mount, work, web1):
    """Nor does what becomes of mounts that are none of its."""
    moved, below = os.path.join(work, "moved"), os.path.join(work, "below")
    os.mkdir(moved)
    os.mkdir(below)
    live = mount("debug=fuse")
    run("mount", "--bind", live.path, below)
    unmount(live.path)
    run("mount", "-t", "tmpfs", "none", moved)
    run("umount", moved)
    with opened(os.path.join(below, "web1.img")) as fd:
        write_all(fd, b"still", 0)
    wait_until(lambda: "it may be mounted still" in live.messages(), "a look at the table")
    assert not live.has_ended()
    run("umount", below)
    assert live.wait() == 0
    assert "lives on" not in live.messages()
    live.finalise()
