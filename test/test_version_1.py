"""A leaf and its cache as version 0.1.0 left them in a crash: read, written and adopted today.

The leaf has the blocks 0 to 7; the cache has the blocks 16 to 23 and a discard of block 3."""
import os
import tarfile

import pytest

from harness import (BLOCK, CRASH_STATUS, MIB, assert_same, check_clean, converted, faults, file_bytes, leafctl,
                     opened, read_file, write_all)
from test_cache_damage import HERE, move_to_pool
from test_owner import record_of

SAMPLE = os.path.join(HERE, "samples", "pool-1.tar.xz")
SIZE = 2 * MIB


def block_of(number):
    return bytes([number + 1]) * BLOCK


def content(blocks):
    return b"".join(block_of(block) if block in blocks else bytes(BLOCK) for block in range(SIZE // BLOCK))


OLD = content(range(8))
NEW = content([0, 1, 2, *range(4, 8), *range(16, 24)])


@pytest.fixture
def web1(pool, work):
    with tarfile.open(SAMPLE) as sample:
        sample.extractall(work)
    cache = os.path.join(work, "cache")
    log = bytearray(file_bytes(cache))
    move_to_pool(log, pool)
    with open(cache, "wb") as file:
        file.write(log)
    return os.path.join(pool, "web1.leaf")


def test_the_leaf_alone(mount, web1, pool, work):
    check_clean(web1)
    assert_same(converted(web1, work), OLD, "what it has")
    leafctl("unlock", "--force", pool, "web1.leaf")
    with mount() as live, opened(live.file("web1.img")) as fd:
        write_all(fd, block_of(99), 99 * BLOCK)
        os.fsync(fd)
    assert_same(converted(web1, work), content([*range(8), 99]), "what it has after a write")
    check_clean(web1)


@pytest.mark.parametrize("how", ["mount", "drain"])
def test_what_was_only_in_the_cache(mount, web1, work, how):
    cache = os.path.join(work, "cache")
    if how == "drain":
        leafctl("cache", "drain", cache)
    else:
        with mount(f"cache={cache}", "mode=writeback") as live:
            assert_same(read_file(live.file("web1.img"), SIZE), NEW, "the disk")
            leafctl("drain", live.path)
    assert_same(converted(web1, work), NEW, "the image alone")
    check_clean(web1)


@pytest.mark.parametrize("point", ["owner.write:crash@1", "image.write:crash@1", "cache.super:crash@1"])
def test_an_adoption_that_is_interrupted(web1, pool, work, point):
    """Its cache does not know its mounts: the command is run again all the same, until it is through."""
    cache = os.path.join(work, "cache")
    leafctl("unlock", "--force", pool, "web1.leaf")
    for _ in range(2):
        crashed = leafctl("cache", "adopt", "--force", cache, "web1.leaf", check=False, env=faults(point))
        assert crashed.returncode == CRASH_STATUS, crashed.stderr
    leafctl("cache", "adopt", "--force", cache, "web1.leaf")
    assert_same(converted(web1, work), NEW, "the image alone")
    check_clean(web1)
    assert record_of(pool)["clean"] == "true"
