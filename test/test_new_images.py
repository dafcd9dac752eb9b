"""Images that appear in a pool, or are changed there by hand, and a mount that nobody lists.

A look for a name that is not known asks the store about what is new in the directory. What it took over of all
else is checked soon after, in nobody's way."""
import contextlib
import ctypes
import os
import stat
import threading
import time

import pytest

from harness import (BLOCK, MIB, Stopwatch, copy_file, leafctl, make_image, make_raw, opened, read_file, run,
                     unmount, wait_until)
from test_slow_store import PATIENCE_OF_A_LOOK, store  # noqa: F401 pylint: disable=unused-import

OTHERS = 30
QUICK = 0.5         # seconds, less than the time before a check
SETTLED = 0.1       # seconds, more than the grain of a file's times
AT_FDCWD = -100
RENAME_EXCHANGE = 2

_numbers = iter(range(1 << 20))


@pytest.fixture(params=["local", "fuse"])
def files(request, pool, work):
    """The pool, on a local file system or on one that tells nothing of what others do there."""
    if request.param == "local":
        yield pool
        return
    directory = os.path.join(work, "store")
    os.mkdir(directory)
    run("bindfs", directory, pool)
    yield pool
    unmount(pool)


@pytest.fixture
def start(mount):
    """A mount of the pool, whose images are no newer than they look."""
    def started(*options, **settings):
        time.sleep(SETTLED)
        live = mount(*options, **settings)
        live.names()
        return live
    return started


def look_for_new(live):
    """Somebody asks for a name that the mount does not know yet."""
    name = f"new{next(_numbers)}"
    make_image(os.path.join(live.pool, f"{name}.leaf"), MIB)
    assert os.stat(live.file(f"{name}.img")).st_size == MIB


def mode(live, name):
    return stat.S_IMODE(os.stat(live.file(name)).st_mode)


def is_shown(live, name):
    return os.path.exists(live.file(name))


# ---- What it costs -------------------------------------------------------------

def fill(pool):
    """A base, a middle layer of each kind, and clones of both."""
    base = make_raw(os.path.join(pool, "base.raw"), os.urandom(MIB))
    middle = make_image(os.path.join(pool, "middle.leaf"), parent=base)
    for parent, name in ((base, "other"), (middle, "other-of-middle")):
        leafctl("clone", parent, *[os.path.join(pool, f"{name}{number}.leaf") for number in range(OTHERS)])
    return base, middle


def await_check(store):  # noqa: F811
    """Of all the others, once each; how many of which calls that took."""
    wait_until(lambda: store.calls_on("/other")["stat"] >= 2 * OTHERS, "the others to be checked")
    return store.calls_on("/other")


def calls_for_new(live, store, parent):  # noqa: F811
    """What a clone of PARENT, from its first lookup to its first byte, asks of the other images; and what the check
    asks that follows."""
    for number in range(100):
        leafctl("clone", parent, os.path.join(live.pool, f"late{number}.leaf"))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(store.log)
        store.gate.open()
        begun = time.monotonic()
        assert len(read_file(live.file(f"late{number}.img"), 1)) == 1
        seconds = time.monotonic() - begun
        calls = store.calls_on("/other")
        assert store.calls_on("late")
        check = await_check(store)
        store.gate.close()
        if seconds < QUICK:
            return calls, check
    raise AssertionError("the machine is too slow to tell a look from the check behind it")


@pytest.mark.parametrize("which", ["base", "middle"])
def test_a_clone_asks_nothing_of_the_others(pool, start, store, which):  # noqa: F811
    """Neither of those that have the same parent, though a mark has changed that."""
    parent = fill(pool)[which == "middle"]
    live = start(env=store.env)
    calls, check = calls_for_new(live, store, parent)
    assert calls == {}
    assert set(check) == {"stat"} and check["stat"] <= 3 * 2 * OTHERS, check


def test_an_image_that_hangs_holds_up_no_new_one(pool, start, store):  # noqa: F811
    """Nor while the known ones are checked."""
    fill(pool)
    live = start(env={**store.env, "SLOW_HANG": "other7.leaf"})
    late = [make_image(os.path.join(pool, f"late{number}.leaf"), MIB) for number in range(3)]
    store.gate.open()
    look_for_new(live)
    wait_until(lambda: store.calls_on("other7.leaf"), "the check to hang")
    watch = Stopwatch()
    for image in late:
        os.rename(image, image.replace("late", "later"))
        assert is_shown(live, os.path.basename(image).replace("late", "later").replace(".leaf", ".img"))
    assert watch.seconds(live.pid) < PATIENCE_OF_A_LOOK / 2
    store.gate.close()


# ---- What is seen all the same -------------------------------------------------

def test_a_file_in_the_place_of_another(files, start):
    make_raw(os.path.join(files, "a.raw"), bytes(MIB))
    live = start()
    make_raw(os.path.join(files, ".new"), bytes(2 * MIB))
    os.rename(os.path.join(files, ".new"), os.path.join(files, "a.raw"))
    look_for_new(live)
    wait_until(lambda: os.stat(live.file("a.img")).st_size == 2 * MIB, "the new file to be shown")


def test_two_files_that_are_exchanged(pool, start):
    make_raw(os.path.join(pool, "a.raw"), bytes(MIB))
    make_raw(os.path.join(pool, "b.raw"), bytes(2 * MIB))
    live = start()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.renameat2(AT_FDCWD, os.path.join(pool, "a.raw").encode(), AT_FDCWD,
                          os.path.join(pool, "b.raw").encode(), RENAME_EXCHANGE) == 0
    look_for_new(live)
    wait_until(lambda: [os.stat(live.file(name)).st_size for name in ("a.img", "b.img")] == [2 * MIB, MIB],
               "each to have the other's name")


def test_a_file_that_is_renamed_or_removed(files, start):
    for name in ("a.leaf", "b.leaf"):
        make_image(os.path.join(files, name), MIB)
    live = start()
    os.rename(os.path.join(files, "a.leaf"), os.path.join(files, "c.leaf"))
    os.unlink(os.path.join(files, "b.leaf"))
    assert os.stat(live.file("c.img")).st_size == MIB
    wait_until(lambda: not is_shown(live, "a.img") and not is_shown(live, "b.img"), "the old names to go")


def test_a_link_that_is_turned(files, start):
    for name, size in (("one", 1), ("two", 2)):
        make_raw(os.path.join(files, f"{name}.raw"), bytes(size * MIB))
    os.symlink("one.raw", os.path.join(files, "link.raw"))
    live = start()
    os.symlink("two.raw", os.path.join(files, ".turned"))
    os.rename(os.path.join(files, ".turned"), os.path.join(files, "link.raw"))
    look_for_new(live)
    wait_until(lambda: os.stat(live.file("link.img")).st_size == 2 * MIB, "the link's new target to be shown")


def test_a_parent_of_a_new_image(files, start):
    """It is read-only from then on; and again a disk like others when the child is forgotten."""
    base = make_image(os.path.join(files, "base.leaf"), MIB)
    live = start()
    assert mode(live, "base.img") == 0o600
    child = os.path.join(files, "child.leaf")
    leafctl("clone", base, child)
    assert is_shown(live, "child.img")
    wait_until(lambda: mode(live, "base.img") == 0o400, "the parent to be read-only")
    os.unlink(child)
    look_for_new(live)
    assert mode(live, "base.img") == 0o400
    leafctl("forget-child", base)
    look_for_new(live)
    wait_until(lambda: mode(live, "base.img") == 0o600, "the parent to be a disk like others")


@pytest.mark.parametrize("how", ["removed", "replaced", "written"])
def test_a_parent_that_is_not_what_it_was(files, start, how):
    """It is said of each of its children; without it they are no disks."""
    base = make_raw(os.path.join(files, "base.raw"), bytes(MIB))
    child = make_image(os.path.join(files, "child.leaf"), parent=base)
    grandchild = make_image(os.path.join(files, "grandchild.leaf"), parent=child)
    live = start()
    if how == "removed":
        os.unlink(base)
    elif how == "replaced":
        os.rename(make_raw(os.path.join(files, ".other"), b"x" * MIB), base)
    else:
        with opened(base) as fd:
            os.pwrite(fd, b"x" * BLOCK, 0)
    look_for_new(live)
    wait_until(lambda: f"{child}: its parent {base}" in live.messages(), "the child to be looked at")
    assert f"leafdisk: warning: {child}: " in live.messages()
    for name in ("child.img", "grandchild.img"):
        wait_until(lambda name=name: how != "removed" or not is_shown(live, name), f"{name} to go")
        with pytest.raises(OSError):
            os.open(live.file(name), os.O_RDONLY)
    assert os.path.exists(grandchild)


def test_an_image_that_is_another_in_place(files, start):
    """The name and the number are the same, as of a file that has both of one that was removed. The check sees its
    parent, which has no mark."""
    base = make_raw(os.path.join(files, "base.raw"), bytes(MIB))
    child = make_image(os.path.join(files, "child.leaf"), MIB)
    other = make_image(os.path.join(files, ".other"), parent=base)
    os.removexattr(base, "user.leafdisk.children")
    live = start()
    assert mode(live, "base.img") == 0o600
    copy_file(other, child)
    look_for_new(live)
    wait_until(lambda: mode(live, "base.img") == 0o400, "the parent to be read-only")


def test_many_at_once(files, start):
    """Each is a disk when its name is asked for, whoever else asks."""
    base = make_raw(os.path.join(files, "base.raw"), os.urandom(MIB))
    live = start()
    names = [f"web{number}" for number in range(60)]
    found = []
    leafctl("clone", base, *[os.path.join(files, f"{name}.leaf") for name in names])
    threads = [threading.Thread(target=lambda name=name: found.append(read_file(live.file(f"{name}.img"), MIB)))
               for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with open(base, "rb") as file:
        assert found == [file.read()] * len(names)


def test_a_check_is_no_reason_for_a_mount_to_last(pool, mount):
    make_image(os.path.join(pool, "a.leaf"), MIB)
    for _ in range(5):
        with mount() as live:
            look_for_new(live)
