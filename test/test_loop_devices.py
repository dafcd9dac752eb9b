"""A loop device on an image's own file takes no lock: it is looked for, and named."""
import errno
import os
import pwd
import shutil

import pytest

from harness import MIB, Loop, expect_errno, file_bytes, leafctl, make_image, make_raw, opened, program, read_file, run
from test_control import passable


@pytest.fixture
def image(pool):
    return make_raw(os.path.join(pool, "base.raw"), b"b" * MIB)


def last_error(live):
    with open(live.control("disks", "base.img", "last_error"), encoding="utf-8") as file:
        return file.read()


def refused(*words):
    result = leafctl(*words, check=False)
    assert result.returncode == 1, result
    return result.stderr


def test_an_image_with_a_loop_device_is_not_taken(mount, pool, work, image):
    """By no tool and by no mount; and all of them take it when the device is gone."""
    commands = (["clone", image, os.path.join(pool, "c.leaf")], ["convert", image, os.path.join(work, "copy.raw")],
                ["resize", image, "2M"])
    with mount("manage") as live:
        with Loop(image) as loop:
            said = f"{image}: {loop.device} is set up on it; losetup -d {loop.device}"
            for words in commands:
                assert said in refused(*words), words
            for flags in (os.O_RDWR, os.O_RDONLY):
                expect_errno(errno.EBUSY, os.open, live.file("base.img"), flags)
            assert said in live.messages() and said in last_error(live)
            expect_errno(errno.EBUSY, os.unlink, live.file("base.img"))
            expect_errno(errno.EBUSY, os.rename, live.file("base.img"), live.file("other.img"))
            assert "base.img: not removed: " in live.messages() and "base.img: not renamed: " in live.messages()
        assert os.listdir(pool) == ["base.raw"] and not os.path.exists(os.path.join(work, "copy.raw"))
        assert file_bytes(live.file("base.img")) == b"b" * MIB
        for words in reversed(commands):
            leafctl(*words)


def test_where_the_loop_device_is_mounted(work, pool):
    image = os.path.join(pool, "base.raw")
    run("mke2fs", "-q", "-t", "ext4", image, "8M")
    with Loop(image) as loop:
        point = loop.mount(os.path.join(work, "guest point"))
        said = refused("clone", image, os.path.join(pool, "c.leaf"))
        assert f"{loop.device} is set up on it, and mounted on {point}; umount that" in said


def test_a_loop_device_that_only_reads(mount, pool, image):
    """It is in the way of who writes, and of nobody who reads."""
    child = os.path.join(pool, "c.leaf")
    with Loop(image, "-r") as loop:
        assert f"{loop.device} is set up on it" in refused("resize", image, "2M")
        with mount() as live:
            expect_errno(errno.EBUSY, os.open, live.file("base.img"), os.O_RDWR)
        leafctl("clone", image, child)
        with mount() as live, opened(live.file("c.img")):
            assert read_file(live.file("c.img"), MIB) == b"b" * MIB


NAMES = {"another name": os.link, "a symbolic link": os.symlink}


@pytest.mark.parametrize("how", NAMES)
def test_a_loop_device_on_another_name_of_the_file(pool, work, image, how):
    other = os.path.join(work, "other")
    NAMES[how](image, other)
    with Loop(other) as loop:
        assert f"{loop.device} is set up on it" in refused("clone", image, os.path.join(pool, "c.leaf"))


def test_a_loop_device_on_a_file_that_is_only_called_so(pool, work, image):
    other = make_raw(os.path.join(work, os.path.basename(image)), bytes(MIB))
    with Loop(other):
        leafctl("clone", image, os.path.join(pool, "c.leaf"))
        leafctl("convert", image, os.path.join(work, "copy.raw"))


def test_a_loop_device_where_it_belongs(mount, pool):
    """On the file in the mount, which has the name of the image here: the mount is not asked for its own disk."""
    image = make_raw(os.path.join(pool, "base.img"), b"b" * MIB)
    make_image(os.path.join(pool, "c.leaf"), parent=image)
    with mount() as live, Loop(live.file("base.img"), "-r") as loop:
        assert read_file(live.file("c.img"), MIB) == b"b" * MIB
        with opened(live.file("c.img")):
            assert read_file(loop.device, MIB) == b"b" * MIB
        leafctl("clone", image, os.path.join(pool, "d.leaf"))
        assert read_file(live.file("d.img"), MIB) == b"b" * MIB


def test_whoever_may_not_ask_a_loop_device_goes_by_the_path(pool, work, image):
    user = pwd.getpwnam("nobody")
    tool = shutil.copy(program("leafctl"), work)
    copies = os.path.join(work, "copies")
    os.mkdir(copies)
    os.chown(copies, user.pw_uid, user.pw_gid)
    os.chmod(image, 0o644)
    as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", tool, "convert"]
    with passable(pool):
        with Loop(image) as loop:
            result = run(*as_user, image, os.path.join(copies, "1.raw"), check=False)
            assert result.returncode == 1 and f"{loop.device} is set up on it" in result.stderr, result
        with Loop(make_raw(os.path.join(work, "base.raw"), bytes(MIB))):
            run(*as_user, image, os.path.join(copies, "2.raw"))
