"""What snapshots are called, and what people do with the names."""
import errno
import os
import shutil

import pytest

from harness import (BLOCK, MIB, Gate, check_clean, converted, expect_errno, faults, leafctl, make_image, make_raw, opened, read_file, run, unmount, wait_until,
                     write_all)
from test_snapshots import command, expect_refusal, fork, images, marks, options_of, refusal, sealed, take
from test_writeback_faults import HELD

SIZE = 2 * MIB


def put(live, name, value, offset=0):
    with opened(live.file(name)) as fd:
        write_all(fd, bytes([value]) * BLOCK, offset)
        os.fsync(fd)


def listed(live, *names):
    """(snapshot, whether the disk is on it), as leafctl shows them."""
    lines = leafctl("snapshots", *[live.file(name) for name in names]).stdout.splitlines()[1:]
    return [(line.split()[1], line.split()[-1]) for line in lines]


@pytest.mark.parametrize("mode", ["direct", "writeback"])
@pytest.mark.parametrize("away", [os.unlink, lambda path: os.rename(path, path + ".old")])
def test_a_name_in_the_chain_is_not_free(mount, pool, work, mode, away):
    """A new layer of that name would be its own ancestor."""
    make_image(os.path.join(pool, "web1.leaf"), SIZE)
    with mount(*options_of(work, mode)) as live:
        put(live, "web1.img", 1)
        with opened(live.file("web1.img")) as fd:
            take(live, "mon")
            leafctl("drain", live.path)
            expect_refusal(errno.EEXIST, live, "mon", "stands on", "name the snapshot otherwise")
            away(sealed(pool, "mon"))
            expect_refusal(errno.EEXIST, live, "mon", "stands on", "name the snapshot otherwise")
            take(live, "other")
            assert os.pread(fd, BLOCK, 0) == bytes([1]) * BLOCK
        if os.path.exists(sealed(pool, "mon") + ".old"):
            os.rename(sealed(pool, "mon") + ".old", sealed(pool, "mon"))
    if os.path.exists(sealed(pool, "mon")):
        with mount(*options_of(work, mode)) as live:
            assert read_file(live.file("web1.img"), BLOCK) == bytes([1]) * BLOCK


@pytest.mark.parametrize("mode", ["direct", "writeback"])
def test_a_raw_disk_after_its_snapshot(mount, pool, work, mode):
    """Its image is a leaf now, and is renamed and removed as one."""
    for name in ("a", "b"):
        make_raw(os.path.join(pool, f"{name}.raw"), bytes(SIZE))
    with mount(*options_of(work, mode, "manage")) as live:
        put(live, "a.img", 1)
        command(live.control("snapshots"), "create one a.img b.img")
        os.rename(live.file("a.img"), live.file("c.img"))
        os.unlink(live.file("b.img"))
        assert live.names() == ["c.img"]
        assert read_file(live.file("c.img"), SIZE) == bytes([1]) * BLOCK + bytes(SIZE - BLOCK)
        assert sorted(name for name in os.listdir(pool) if name.endswith((".leaf", ".raw"))) == ["c.leaf"]
        assert listed(live, "c.img") == [("a@one", "yes")]


def test_whose_they_are_and_in_which_order(mount, pool, work):
    make_image(os.path.join(pool, "web1.leaf"), SIZE)
    make_image(os.path.join(pool, "web1@x.leaf"), SIZE)
    with mount(*options_of(work, "writeback", *HELD, "manage")) as live:
        for number in range(5):
            put(live, "web1.img", number + 1)
            take(live, f"s{number}")
        take(live, "y", "web1@x.img")
        fork(live, "web2.img")
        put(live, "web2.img", 9)
        take(live, "s0", "web2.img")
        assert listed(live, "web1.img") == [(name, "yes") for name in ("s4", "s3", "s2", "s1", "s0")]
        assert listed(live, "web2.img") == [("s0", "yes")] + [(f"web1@s{number}", "yes") for number in range(4, -1, -1)]
        assert listed(live, "web1@x.img") == [("y", "yes")]
        leafctl("drain", live.path)
        os.utime(sealed(pool, "s1"))
        assert listed(live, "web1.img") == [(name, "yes") for name in ("s4", "s3", "s2", "s1", "s0")]
        os.rename(live.file("web1.img"), live.file("web9.img"))
        make_image(os.path.join(pool, "web1.leaf"), SIZE)
        wait_until(lambda: "web1.img" in live.names(), "the new disk")
        assert listed(live, "web9.img") == [(f"web1@s{number}", "yes") for number in range(4, -1, -1)]
        assert listed(live, "web1.img") == []
        os.unlink(live.file("web9.img"))
        os.unlink(live.file("web2.img"))
        assert sorted(listed(live, "web1.img")) == [(f"s{number}", "no") for number in range(5)]


def test_names_of_forks_are_looked_at_first(mount, pool, work):
    make_image(os.path.join(pool, "web1.leaf"), SIZE)
    with mount(*options_of(work, "direct")) as live:
        put(live, "web1.img", 1)
        for names, number in (("a.img a.img", errno.EINVAL), (f"a.img {'x' * 251}.img", errno.ENAMETOOLONG),
                              ("a.img web1.img", errno.EEXIST)):
            expect_errno(number, command, live.control("disks", "web1.img", "snapshots"), f"fork {names}")
            assert refusal(live, "disks", "web1.img")
            assert live.names() == ["web1.img"]
    assert marks(pool) == [] and images(pool) == ["web1.leaf"]


def test_a_copy_of_what_was_sealed_since(mount, pool, work):
    """It is not what the cache's changes are of, although it has the name that the image had: those go where they belong."""
    web1, backup = os.path.join(pool, "web1.leaf"), os.path.join(work, "backup")
    make_image(web1, SIZE)
    live = mount(*options_of(work, "writeback", *HELD))
    put(live, "web1.img", 1)
    leafctl("drain", live.path)
    shutil.copy2(web1, backup)
    put(live, "web1.img", 2, BLOCK)
    take(live, "mon")
    live.kill9()
    os.rename(backup, web1)
    with mount(*options_of(work, "writeback")) as live:
        leafctl("drain", live.path)
    check_clean(sealed(pool, "mon"))
    assert converted(sealed(pool, "mon"), work)[:2 * BLOCK] == bytes([1]) * BLOCK + bytes([2]) * BLOCK


def test_a_mount_that_only_reads(mount, pool, work):
    """Does not say that the image is missing, nor to forget what is dirty of it."""
    make_image(os.path.join(pool, "web1.leaf"), SIZE)
    live = mount(*options_of(work, "writeback", *HELD))
    put(live, "web1.img", 1)
    take(live, "mon")
    live.kill9()
    live = mount(*options_of(work, "writeback", "ro"))
    said = live.messages() + leafctl("status", live.path).stdout
    assert "put its image in place" not in said and "purge" not in said
    assert "not read-only" in said
    try:
        assert read_file(live.file("web1.img"), BLOCK) == bytes([1]) * BLOCK
    except OSError as error:
        assert error.errno == errno.EBUSY and refusal(live, "disks", "web1.img")
    unmount(live.path)
    live.wait()
    live.finalise()
    with mount(*options_of(work, "writeback")) as live:
        leafctl("drain", live.path)
        assert read_file(live.file("web1.img"), BLOCK) == bytes([1]) * BLOCK


@pytest.mark.parametrize("mode", ["direct", "writeback"])
def test_a_pool_that_has_the_name(mount, work, mode):
    """Its images are no sealed ones for that."""
    pool = os.path.join(work, "snapshots")
    os.mkdir(pool)
    base = make_raw(os.path.join(pool, "base.raw"), b"b" * SIZE)
    make_image(os.path.join(pool, "web1.leaf"), parent=base)
    with mount(*options_of(work, mode), pool=pool) as live:
        put(live, "web1.img", 1)
        take(live, "mon")
        put(live, "web1.img", 2, BLOCK)
        assert live.names() == ["base.img", "web1.img"]
    leafctl("check", pool)
    with mount(*options_of(work, mode), pool=pool) as live:
        assert read_file(live.file("web1.img"), SIZE) == bytes([1]) * BLOCK + bytes([2]) * BLOCK + b"b" * (SIZE - 2 * BLOCK)
        assert listed(live, "web1.img") == [("mon", "yes")]


@pytest.mark.parametrize("kind", ["leaf", "raw"])
def test_a_store_that_does_not_tell_of_the_new_leaf(mount, pool, work, kind):
    """The disk is shown, and is the one that guests have."""
    path, gate = os.path.join(pool, f"web1.{kind}"), Gate(work)
    make_image(path, SIZE) if kind == "leaf" else make_raw(path, bytes(SIZE))
    with mount(*options_of(work, "writeback"), env=faults("place.open/web1.leaf:EIO@1x1000000", "place.open/web1.raw:EIO@1x1000000",
                                                          gate=gate.path)) as live:
        with opened(live.file("web1.img")) as fd:
            write_all(fd, bytes([1]) * BLOCK, 0)
            before = os.stat(fd).st_ino
            gate.open()
            take(live, "mon")
            assert live.names() == ["web1.img"]
            write_all(fd, bytes([2]) * BLOCK, BLOCK)
            os.fsync(fd)
            gate.close()
            assert live.names() == ["web1.img"] and os.stat(live.file("web1.img")).st_ino == before
        assert read_file(live.file("web1.img"), SIZE) == bytes([1]) * BLOCK + bytes([2]) * BLOCK + bytes(SIZE - 2 * BLOCK)


def test_no_place_for_what_is_sealed(mount, pool, work):
    make_image(os.path.join(pool, "web1.leaf"), SIZE)
    directory = os.path.join(pool, "snapshots")
    with mount() as live:
        put(live, "web1.img", 1)
        for make in (lambda: open(directory, "w", encoding="ascii").close(), lambda: os.symlink(work, directory)):
            make()
            for _ in range(2):
                with pytest.raises(OSError):
                    take(live, "mon")
                assert "snapshots: is no directory" in refusal(live, "disks", "web1.img")
            os.unlink(directory)
        os.mkdir(directory)
        run("mount", "-t", "tmpfs", "none", directory)
        try:
            expect_refusal(errno.EXDEV, live, "mon", "another file system")
        finally:
            run("umount", directory)
        take(live, "mon")
    assert marks(pool) == [] and images(pool) == ["snapshots/web1@mon.leaf", "web1.leaf"]
