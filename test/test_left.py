"""What the cache has of a disk that could not be opened to get it, and that is renamed or removed."""
import errno
import json
import os
import shutil

import pytest

from harness import (BLOCK, KIB, MountError, assert_same, check_clean, converted, expect_errno, faults, leafctl, make_image,
                     make_raw, read_file, state_of, wait_until, write_all)
from test_claims import crash_dirty
from test_owner import record_of
from test_restored import locked
from test_writeback_faults import (BLOCKS, held, left_open, lines_with,  # noqa: F401 pylint: disable=unused-import
                                   writeback)

LENGTH = 256 * KIB


@pytest.fixture(params=["leaf", "raw"])
def image(request, pool):
    path = os.path.join(pool, f"web1.{request.param}")
    if request.param == "raw":
        return make_raw(path, bytes(BLOCKS * BLOCK))
    return make_image(path, BLOCKS * BLOCK, chunk="256K")


@pytest.fixture
def left(held, image, rng):  # pylint: disable=unused-argument
    return crash_dirty(held, rng, length=LENGTH)


def orphans(cache):
    return [layer for layer in json.loads(leafctl("cache", "info", "--json", cache).stdout)["layers"] if layer["orphan"]]


def mount_without(image, mount, cache, *options, **settings):
    """The image is locked as long as the mount begins."""
    with locked(image):
        return mount(f"cache={cache}", "mode=writeback", "manage", *options, **settings)


def assert_refused(live, image, operation):
    expect_errno(errno.EBUSY, operation)
    said = lines_with(live, "would be nobody's")[-1]
    assert "leafctl drain" in said and f"leafctl unlock --force {os.path.dirname(image)} {os.path.basename(image)}" in said


def test_removing_it_is_refused(left, image, mount, cache, work):
    with mount_without(image, mount, cache) as live:
        state = state_of(live)
        assert int(state["dirty_bytes"]) == LENGTH and "leafctl drain" in state["reason"], state
        assert_refused(live, image, lambda: os.unlink(live.file("web1.img")))
        leafctl("drain", live.path)
        assert_same(converted(image, work)[:LENGTH], left, "the image alone")
        os.unlink(live.file("web1.img"))
    assert not os.path.exists(image) and orphans(cache) == []


def test_without_a_thread_to_try_again(left, image, mount, cache, work):
    """No mount that would leave it there for good; where there is no thread for each try, one makes them all."""
    with pytest.raises(MountError, match="cannot start the thread that has written back"):
        mount_without(image, mount, cache, env=faults("thread.spawn/leafdisk-resume:EAGAIN"))
    with mount_without(image, mount, cache, env=faults("thread.spawn/leafdisk-try:EAGAIN")) as live:
        wait_until(lambda: state_of(live)["dirty_bytes"] == "0", "it to be written back")
    assert_same(converted(image, work)[:LENGTH], left, "the image alone")


def test_renamed_it_takes_them_along(left, image, mount, cache, pool, work):
    renamed = image.replace("web1", "web2")
    with mount_without(image, mount, cache) as live:
        os.rename(live.file("web1.img"), live.file("web2.img"))
        assert read_file(live.file("web2.img"), LENGTH) == left
        leafctl("drain", live.path)
        assert_same(converted(renamed, work)[:LENGTH], left, "the image alone")
    assert record_of(pool, os.path.basename(renamed))["clean"] == "true"
    check_clean(renamed)


def test_another_is_not_renamed_over_it(left, image, mount, cache, pool):
    other = image.replace("web1", "web2")
    shutil.copyfile(image, other) if image.endswith(".raw") else make_image(other, BLOCKS * BLOCK)
    with mount_without(image, mount, cache) as live:
        assert_refused(live, image, lambda: os.rename(live.file("web2.img"), live.file("web1.img")))
        assert sorted(live.names()) == ["web1.img", "web2.img"]
        assert read_file(live.file("web1.img"), LENGTH) == left
    assert os.path.exists(other)


@pytest.mark.parametrize("how", ["unlink", "rename"])
@pytest.mark.parametrize("damaged", [False, True], ids=["locked", "damaged"])
def test_it_goes_once_they_are_given_up(left, image, mount, cache, pool, how, damaged):
    """Also one that can never be opened again."""
    if damaged and image.endswith(".raw"):
        pytest.skip("any bytes are a raw image")
    other = image.replace("web1", "web2")
    shutil.copyfile(image, other) if image.endswith(".raw") else make_image(other, BLOCKS * BLOCK, chunk="256K")
    if damaged:
        os.truncate(image, 128 * KIB)
    with mount_without(image, mount, cache) as live:
        if damaged:
            assert_refused(live, image, lambda: os.unlink(live.file("web1.img")))
        leafctl("unlock", "--force", pool, os.path.basename(image))
        if how == "unlink":
            os.unlink(live.file("web1.img"))
            assert live.names() == ["web2.img"]
        else:
            os.rename(live.file("web2.img"), live.file("web1.img"))
            assert live.names() == ["web1.img"]
            assert read_file(live.file("web1.img"), LENGTH) == bytes(LENGTH)
    orphan, = orphans(cache)
    assert orphan["orphan_reason"] == "given up by leafctl unlock --force"
    assert orphan["dirty_blocks"] == LENGTH // BLOCK and len(left) == LENGTH


@pytest.mark.usefixtures("left")
def test_a_copy_of_it_may_go(image, mount, cache, pool):
    copy = os.path.join(pool, "backup" + os.path.splitext(image)[1])
    shutil.copy2(image, copy)
    with mount_without(image, mount, cache) as live:
        os.unlink(live.file("backup.img"))
        assert live.names() == ["web1.img"]


def test_one_that_is_known_by_its_path(held, mount, cache, pool, rng):
    """Under another name nobody would know what the cache has of it."""
    image = make_raw(os.path.join(pool, "web1.raw"), bytes(BLOCKS * BLOCK))
    env = faults("image.identity:EOPNOTSUPP")
    live = held("manage", env=env)
    content = rng.randbytes(LENGTH)
    with left_open(live.file("web1.img")) as fd:
        write_all(fd, content, 0)
        os.fsync(fd)
        live.kill9()
    with mount_without(image, mount, cache, env=env) as live:
        assert_refused(live, image, lambda: os.rename(live.file("web1.img"), live.file("web2.img")))
        assert read_file(live.file("web1.img"), LENGTH) == content
