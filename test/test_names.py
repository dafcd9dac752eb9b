"""Shown names: given once, kept by who has them, and never another image's file."""
import contextlib
import ctypes
import errno
import itertools
import os
import subprocess
import threading

import pytest

from harness import (KIB, MIB, Gate, assert_same, expect_errno, faults, file_bytes, leafctl, make_image, make_raw,
                     opened, read_all, read_file, run, unmount, wait_until, write_all, write_conf)

AT_FDCWD = -100
RENAME_NOREPLACE = 1


def sizes(live):
    return {name: os.stat(live.file(name)).st_size for name in live.names()}


def rescan(pool, live):
    """The directory has changed."""
    path = os.path.join(pool, "notes.txt")
    with open(path, "w", encoding="ascii") as file:
        file.write("no image\n")
    names = live.names()
    os.unlink(path)
    assert live.names() == names
    return names


# ---- Collisions ----------------------------------------------------------------

@pytest.mark.parametrize("order", itertools.permutations(["a.leaf", "a.raw", "a.leaf.raw"]))
def test_a_whole_name_that_is_anothers_short_one(mount, pool, order):
    """All are shown, each as itself, in whatever order they were made."""
    bytes_of = {"a.leaf": MIB, "a.raw": 2 * MIB, "a.leaf.raw": 3 * MIB}
    for name in order:
        make_image(os.path.join(pool, name), bytes_of[name])
    with mount() as live:
        shown = {f"{name}.img": size for name, size in bytes_of.items()}
        for _ in range(3):
            assert sizes(live) == shown
            rescan(pool, live)
        with opened(live.file("a.leaf.img")) as fd:
            write_all(fd, b"leaf", 0)
            rescan(pool, live)
            assert read_all(fd, 4, 0) == b"leaf"
        for name in order:
            os.unlink(os.path.join(pool, name))
            assert name + ".img" not in live.names()


def test_a_chain_of_collisions(mount, pool):
    """A whole name pushes the next one out of its short name, and so on."""
    names = ["b.leaf", "b.raw", "b.raw.raw", "b.raw.raw.raw", "c.raw"]
    for number, name in enumerate(names):
        make_image(os.path.join(pool, name), (number + 1) * MIB)
    with mount() as live:
        assert sizes(live) == {"b.leaf.img": MIB, "b.raw.img": 2 * MIB, "b.raw.raw.img": 3 * MIB,
                               "b.raw.raw.raw.img": 4 * MIB, "c.img": 5 * MIB}


def test_who_has_a_name_keeps_it(mount, pool):
    """A running disk is not renamed by what appears beside it, nor later."""
    leaf = make_image(os.path.join(pool, "web1.leaf"), "1M")
    with mount() as live:
        with opened(live.file("web1.img")) as fd:
            make_raw(os.path.join(pool, "web1.raw"), bytes(2 * MIB))
            assert sizes(live) == {"web1.img": MIB, "web1.raw.img": 2 * MIB}
            assert "web1.raw: another image has the name web1.img too" in live.messages()
            write_all(fd, b"first", 0)
            assert read_file(live.file("web1.img"), 5) == b"first"
        assert rescan(pool, live) == ["web1.img", "web1.raw.img"]
        os.unlink(leaf)
        assert sizes(live) == {"web1.raw.img": 2 * MIB}
        make_image(leaf, "3M")
        # The kernel may know the name, and whose it was, for another second.
        wait_until(lambda: sizes(live) == {"web1.img": 3 * MIB, "web1.raw.img": 2 * MIB}, "the new image to be shown")
        assert live.messages().count("another image has the name") == 1
    with mount() as live:
        assert live.names() == ["web1.leaf.img", "web1.raw.img"]


def test_a_newcomer_without_a_name(mount, pool):
    """Both its names are others': it is not shown, and says why."""
    make_image(os.path.join(pool, "web1.leaf"), "1M")
    make_image(os.path.join(pool, "web1.raw.leaf"), "2M")
    with mount() as live:
        before = {"web1.img": MIB, "web1.raw.img": 2 * MIB}
        assert sizes(live) == before
        make_raw(os.path.join(pool, "web1.raw"), bytes(3 * MIB))
        for _ in range(2):
            assert sizes(live) == before
        said = "web1.raw: other images have the names web1.img and web1.raw.img"
        assert live.messages().count(said) == 1
        os.unlink(os.path.join(pool, "web1.raw.leaf"))
        # The kernel may know the name for another second.
        wait_until(lambda: sizes(live) == {"web1.img": MIB, "web1.raw.img": 3 * MIB}, "web1.raw to have a name")


def test_a_configured_name_is_nobody_elses(mount, pool, work):
    make_image(os.path.join(pool, "vm.leaf"), "1M")
    os.mkdir(os.path.join(pool, "parts"))
    make_image(os.path.join(pool, "parts", "w.leaf"), "2M")
    conf = write_conf(work, "[disk vm.img]\nlayers = parts/w.leaf\n")
    with mount(f"conf={conf}") as live:
        assert sizes(live) == {"vm.img": 2 * MIB, "vm.leaf.img": MIB}


# ---- Length --------------------------------------------------------------------

def test_names_that_are_too_long(mount, pool):
    """Not shown where no program could open them; said in the log and by list."""
    collide, alone, most = "x" * 250, "y" * 251, "z" * 250
    for name in (f"{collide}.leaf", f"{collide}.raw", f"{most}.leaf", f"{alone}.raw"):
        make_image(os.path.join(pool, name), MIB)
    make_raw(os.path.join(pool, "w" * 252 + ".r"), bytes(KIB))
    listed = leafctl("list", pool)
    with mount() as live:
        assert sizes(live) == {f"{most}.img": MIB, f"{alone}.img": MIB}
        for name, length in ((f"{collide}.leaf", 259), (f"{collide}.raw", 258)):
            said = f"{name}: would be shown under a name of {length} bytes"
            assert said in live.messages() and said in listed.stderr


def test_a_long_name_in_the_configuration(mount, pool, work):
    make_image(os.path.join(pool, "w.leaf"), "1M")
    conf = write_conf(work, f"[disk {'n' * 252}.img]\nlayers = w.leaf\n")
    result = leafctl("list", pool)
    assert result.returncode == 0
    with pytest.raises(Exception, match="255 bytes"):
        mount(f"conf={conf}")


# ---- What is not shown is not replaced -----------------------------------------

def assert_not_moved(live, pool, new_name, **before):
    """`mv a.img NEW_NAME` is refused, and every file is what it was."""
    inodes = {name: os.stat(os.path.join(pool, name)).st_ino for name in os.listdir(pool) if name[0] != "."}
    expect_errno(errno.EEXIST, os.rename, live.file("a.img"), live.file(new_name))
    assert {name: os.stat(os.path.join(pool, name)).st_ino for name in os.listdir(pool)
            if name[0] != "."} == inodes


def test_rename_over_one_that_is_shown_whole(mount, pool):
    for name in ("a.leaf", "b.leaf", "b.raw"):
        make_image(os.path.join(pool, name), "1M")
    with mount("manage") as live, opened(live.file("b.leaf.img")) as fd:
        write_all(fd, b"precious", 0)
        assert_not_moved(live, pool, "b.img")
        assert read_all(fd, 8, 0) == b"precious"


def test_rename_that_leaves_what_is_there(mount, pool, work):
    """Also where the pool's store knows no such rename."""
    store = os.path.join(work, "store")
    os.mkdir(store)
    make_image(os.path.join(store, "a.leaf"), "1M")
    make_image(os.path.join(store, "b.leaf"), "1M")
    run("bindfs", store, pool)
    try:
        with mount("manage") as live:
            assert rename_new(live.file("a.img"), live.file("b.img")) == errno.EEXIST
            assert rename_new(live.file("a.img"), live.file("c.img")) == 0
            assert live.names() == ["b.img", "c.img"]
    finally:
        unmount(pool)


def test_rename_whose_former_name_stays(mount, pool):
    """The store has given the new name and fails to remove the other: the disk has moved, and its record with it."""
    make_image(os.path.join(pool, "a.leaf"), "1M")
    with mount() as live, opened(live.file("a.img")) as fd:
        write_all(fd, b"content", 0)
    with mount("manage", env=faults("place.rename:EINVAL; place.unlink/a.leaf:EIO@1x1")) as live:
        assert rename_new(live.file("a.img"), live.file("c.img")) == 0
        assert "a.leaf: is called c.leaf now" in live.messages()
        assert file_bytes(live.file("c.img"))[:7] == b"content"
    assert os.path.samefile(os.path.join(pool, "a.leaf"), os.path.join(pool, "c.leaf"))
    assert os.listdir(os.path.join(pool, ".leafdisk", "owners")) == ["c.leaf"]


def rename_new(old, new):
    """0 or the errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.renameat2(AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), RENAME_NOREPLACE)
    return ctypes.get_errno() if result < 0 else 0


def test_rename_over_one_that_is_hidden(mount, pool):
    """By disks=GLOB, in its own format or in another; create() makes none there."""
    for name in ("a.leaf", "b.leaf", "c.raw"):
        make_image(os.path.join(pool, name), "1M")
    files = sorted(os.listdir(pool))
    with mount("disks=a*", "manage") as live:
        assert_not_moved(live, pool, "b.img")
        assert_not_moved(live, pool, "c.img")
        for name in ("b.img", "c.img", "d.img"):
            with pytest.raises(OSError):
                os.close(os.open(live.file(name), os.O_CREAT | os.O_WRONLY))
        assert live.names() == ["a.img"]
    assert sorted(name for name in os.listdir(pool) if name[0] != ".") == files


def test_rename_over_one_that_cannot_be_opened(mount, pool):
    base = make_raw(os.path.join(pool, "base.raw"), bytes(MIB))
    make_image(os.path.join(pool, "b.leaf"), parent=base)
    make_image(os.path.join(pool, "a.leaf"), "1M")
    os.rename(base, os.path.join(pool, ".away"))
    with mount("manage") as live:
        assert live.names() == ["a.img"]
        assert_not_moved(live, pool, "b.img")
        os.rename(os.path.join(pool, ".away"), base)
        assert live.names() == ["a.img", "b.img", "base.img"]


def test_rename_over_the_leaf_of_a_configured_stack(mount, pool, work):
    for name in ("a.leaf", "w.leaf"):
        make_image(os.path.join(pool, name), "1M")
    conf = write_conf(work, "[disk vm.img]\nlayers = w.leaf\n")
    with mount("manage", f"conf={conf}") as live, opened(live.file("vm.img")):
        assert_not_moved(live, pool, "w.img")


def test_rename_over_a_free_disk(mount, pool):
    """What mv has always done; of another format only after a removal."""
    make_raw(os.path.join(pool, "a.raw"), b"a" * MIB)
    make_raw(os.path.join(pool, "b.raw"), b"b" * MIB)
    make_image(os.path.join(pool, "c.leaf"), "1M")
    with mount("manage") as live:
        os.rename(live.file("a.img"), live.file("b.img"))
        assert live.names() == ["b.img", "c.img"]
        assert_same(file_bytes(live.file("b.img")), b"a" * MIB, "b.img")
        expect_errno(errno.EEXIST, os.rename, live.file("b.img"), live.file("c.img"))
        expect_errno(errno.EPERM, os.rename, live.file("b.img"), live.file("d"))
        os.unlink(live.file("c.img"))
        os.rename(live.file("b.img"), live.file("c.img"))
        assert_same(file_bytes(live.file("c.img")), b"a" * MIB, "c.img")
    assert [name for name in os.listdir(pool) if name[0] != "."] == ["c.raw"]


@contextlib.contextmanager
def locked(image):
    """Another program has the image's lock, as a daemon on another pool would."""
    code = ("import fcntl, struct, sys; file = open(sys.argv[1], 'r+b'); "
            "fcntl.fcntl(file, 37, struct.pack('hhqqi', fcntl.F_WRLCK, 0, 0, 1, 0)); print('has it', flush=True); "
            "sys.stdin.read()")
    with subprocess.Popen(["python3", "-c", code, image], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"has it\n"
        yield
        other.stdin.close()


def test_what_another_program_has_open_stays(mount, pool):
    """Neither moved, replaced nor removed; names of others go on meanwhile."""
    image = make_image(os.path.join(pool, "a.leaf"), "1M")
    make_image(os.path.join(pool, "b.leaf"), "1M")
    with mount("manage") as live:
        assert live.names() == ["a.img", "b.img"]
        with opened(live.file("a.img")):
            expect_errno(errno.EBUSY, os.unlink, live.file("a.img"))
            expect_errno(errno.EBUSY, os.rename, live.file("a.img"), live.file("c.img"))
            assert "a.img: not removed: is open" in live.messages() and "a.img: not renamed: is open" in live.messages()
        with locked(image):
            expect_errno(errno.EBUSY, os.unlink, live.file("a.img"))
            expect_errno(errno.EBUSY, os.rename, live.file("a.img"), live.file("c.img"))
            expect_errno(errno.EBUSY, os.rename, live.file("b.img"), live.file("a.img"))
        os.unlink(live.file("a.img"))
        wait_until(lambda: live.names() == ["b.img"], "a.img to go")


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_an_image_that_goes_while_its_lock_is_waited_for(mount, pool, how):
    """A guest's writes do not go to a file that nobody will find."""
    image = make_image(os.path.join(pool, "a.leaf"), "1M")
    opens = []

    def open_disk(path):
        try:
            opens.append(os.open(path, os.O_RDWR))
        except OSError as error:
            opens.append(error)

    def is_looked_at():
        for number in os.listdir(f"/proc/{live.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"/proc/{live.pid}/fd/{number}") == image:
                    return True
        return opens

    with mount() as live:
        assert live.names() == ["a.img"]
        with locked(image):
            guest = threading.Thread(target=open_disk, args=(live.file("a.img"),))
            guest.start()
            wait_until(is_looked_at, "the daemon to wait for the lock")
            if how == "removed":
                os.unlink(image)
            else:
                os.rename(image, os.path.join(pool, "b.leaf"))
        guest.join()
        assert isinstance(opens[0], OSError)


def test_a_file_in_the_place_of_a_known_one(mount, pool):
    """It is another disk, of the same name."""
    make_raw(os.path.join(pool, "a.raw"), b"a" * MIB)
    with mount() as live:
        assert_same(file_bytes(live.file("a.img")), b"a" * MIB, "a.img")
        make_raw(os.path.join(pool, ".new"), b"b" * MIB)
        os.rename(os.path.join(pool, ".new"), os.path.join(pool, "a.raw"))
        wait_until(lambda: file_bytes(live.file("a.img")) == b"b" * MIB, "the new file to be seen")


def test_an_ephemeral_disk_keeps_its_name_with_what_it_was_given(mount, pool):
    """Under another name it would be as its image is, so it is not renamed."""
    for name in "ab":
        make_raw(os.path.join(pool, f"{name}.raw"), b"image" + bytes(MIB - 5))
    with mount("mode=ephemeral", "manage") as live:
        os.rename(live.file("b.img"), live.file("c.img"))
        with opened(live.file("a.img")) as fd:
            write_all(fd, b"given", 0)
        expect_errno(errno.EBUSY, os.rename, live.file("a.img"), live.file("d.img"))
        assert read_file(live.file("a.img"), 5) == b"given"
        assert read_file(live.file("c.img"), 5) == b"image"
    assert {"a.raw", "c.raw"} <= set(os.listdir(pool))


@pytest.mark.parametrize("mode", ["direct", "ephemeral"])
def test_an_image_that_cannot_be_read_for_a_moment_stays_a_disk(mount, pool, work, mode):
    """So what is below it stays read-only, and what an ephemeral disk was given is there."""
    gate = Gate(work)
    make_image(os.path.join(pool, "base.leaf"), MIB)
    leafctl("clone", os.path.join(pool, "base.leaf"), os.path.join(pool, "a.leaf"))
    with mount(f"mode={mode}", env=faults("place.open/a.leaf:EIO", gate=gate.path)) as live:
        with opened(live.file("a.img")) as fd:
            write_all(fd, b"given", 0)
            os.fsync(fd)
        before = os.stat(live.file("a.img")).st_ino, os.stat(live.file("base.img")).st_mode
        gate.open()
        with open(os.path.join(pool, "notes.txt"), "w", encoding="ascii") as file:
            file.write("no image\n")
        assert {"a.img", "base.img"} <= set(live.names())
        assert os.stat(live.file("base.img")).st_mode == before[1]
        gate.close()
        wait_until(lambda: os.path.exists(live.file("a.img")), "the disk to be found")
        assert os.stat(live.file("a.img")).st_ino == before[0]
        assert read_file(live.file("a.img"), 5) == b"given"


def test_an_image_whose_chain_is_broken_and_that_cannot_be_read(mount, pool, work):
    """What it was found to be made from stays read-only until it says otherwise."""
    gate = Gate(work)
    base, middle, leaf = (os.path.join(pool, f"{name}.leaf") for name in ("base", "middle", "a"))
    make_image(base, MIB)
    leafctl("clone", base, middle)
    leafctl("clone", middle, leaf)
    with mount(env=faults("place.open/a.leaf:EIO", gate=gate.path)) as live:
        os.rename(base, os.path.join(pool, ".base"))
        assert live.names() == []
        gate.open()
        os.rename(os.path.join(pool, ".base"), base)
        assert live.names() == ["base.img", "middle.img"]
        expect_errno(errno.EROFS, os.open, live.file("middle.img"), os.O_RDWR)
        gate.close()
        assert live.names() == ["a.img", "base.img", "middle.img"]
        expect_errno(errno.EROFS, os.open, live.file("middle.img"), os.O_RDWR)


@pytest.mark.parametrize("how", ["renamed", "cloned"])
def test_a_parent_that_cannot_be_read_while_its_child_is_new(mount, pool, work, how):
    """Nobody can tell that it is one, but by the child's word; so it stays read-only."""
    gate = Gate(work)
    base, leaf = (os.path.join(pool, f"{name}.leaf") for name in ("base", "a"))
    make_image(base, MIB)
    if how == "renamed":
        leafctl("clone", base, leaf)
    with mount("manage", env=faults("place.open/base.leaf:EIO", gate=gate.path)) as live:
        live.names()
        gate.open()
        if how == "renamed":
            os.rename(live.file("a.img"), live.file("b.img"))
        else:
            leafctl("clone", base, leaf)
            assert "base.img" in live.names()
        gate.close()
        expect_errno(errno.EROFS, os.open, live.file("base.img"), os.O_RDWR)
        assert len(live.names()) == 2
        expect_errno(errno.EROFS, os.open, live.file("base.img"), os.O_RDWR)
