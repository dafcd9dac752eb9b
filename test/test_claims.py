"""Claims in doubt: what cannot be told loses nothing, and is settled by command."""
import errno
import fcntl
import json
import os
import re
import shutil
import subprocess

import pytest

from harness import (BLOCK, CRASH_STATUS, KIB, MIB, PATIENCE, TREE, assert_same, check_clean, converted, expect_errno,
                     faults, file_bytes, file_system, leafctl, make_image, make_raw, opened, read_all, read_file, run,
                     state_of, wait_until, write_all, write_conf)
from test_owner import directory_of, record_of, record_path, refusal, write_text
from test_writeback_faults import (BLOCKS, HELD, end, held, left_open,  # noqa: F401 pylint: disable=unused-import
                                   lines_with, wait_state, web1, writeback)


def crash_dirty(held, rng, name="web1.img", length=256 * KIB):
    """Acknowledged and flushed, and only in the cache; the content."""
    live = held()
    content = rng.randbytes(length)
    with left_open(live.file(name)) as fd:
        write_all(fd, content, 0)
        os.fsync(fd)
        live.kill9()
    return content


def layers(cache):
    return leafctl("cache", "info", cache).stdout


def orphans(cache):
    return layers(cache).count("an orphan")


def alter(pool, name="web1.leaf", **fields):
    record = {**record_of(pool, name), **fields}
    write_text(pool, "\n".join(["[owner]", *(f"{key}={value}" for key, value in record.items()), ""]).encode(), name)


# ---- A record that cannot be read now ---------------------------------------------

@pytest.mark.parametrize("error", ["EIO", "ENOENT", "EMFILE", "ESTALE", "EACCES"])
@pytest.mark.parametrize("mode", ["writeback", "persistent", "direct"])
def test_an_error_of_a_record(mount, held, pool, web1, work, cache, rng, error, mode):
    """At each look at it in turn, at the mount, the open and before batches: the disk is refused or waits, and what
    is dirty stays."""
    content = crash_dirty(held, rng)
    files = {name: file_bytes(name) for name in (web1, cache, record_path(pool))}
    said = ""
    for number in range(1, 7):
        for name, data in files.items():
            with open(name, "wb") as file:
                file.write(data)
        live = mount(f"cache={cache}", f"mode={mode}", *HELD, env=faults(f"owner.read:{error}@{number}x1"))
        leafctl("drain", live.path, check=False)
        said += live.messages()
        live.kill9()
        assert orphans(cache) == 0, number
        with mount(f"cache={cache}", f"mode={mode}") as live:
            assert read_file(live.file("web1.img"), len(content)) == content
            leafctl("drain", live.path)
        assert_same(converted(web1, work)[:len(content)], content, "the image alone")
    assert "web1.leaf" in said


@pytest.mark.parametrize("how", ["moved", "no directory", "damaged"])
def test_a_record_that_is_away_while_it_is_in_use(held, web1, pool, work, cache, rng, how):
    """Nobody has taken the image over for that: it is tried again, and says so."""
    owners, away = directory_of(pool), os.path.join(work, "away")
    live = held()
    content = rng.randbytes(256 * KIB)
    with left_open(live.file("web1.img")) as fd:
        write_all(fd, content, 0)
        os.fsync(fd)
        os.rename(owners, away)
        if how == "no directory":
            write_text(pool, b"", "web2.leaf")
            shutil.rmtree(owners)
            with open(owners, "w", encoding="ascii"):
                pass
        elif how == "damaged":
            write_text(pool, b"[owner]\nhost=", "web1.leaf")
        result = leafctl("drain", live.path, check=False)
        assert result.returncode == 1 and "web1" in result.stderr
        state = state_of(live)
        assert state["state"] == "degraded" and "still ours" in state["reason"], state
        assert read_file(live.file("web1.img"), len(content)) == content
        if how == "damaged":
            shutil.rmtree(owners)
        elif how == "no directory":
            os.unlink(owners)
        os.rename(away, owners)
        leafctl("drain", live.path)
        wait_state(live, "active")
        assert end(live) == 0
    assert_same(converted(web1, work)[:len(content)], content, "the image alone")
    check_clean(web1)


# ---- What no record proves --------------------------------------------------------

def settle(pool, mount, web1, cache, content):
    """The command that the refusal names sets the changes aside; the image goes on without them."""
    leafctl("unlock", "--force", pool, "web1.leaf")
    with mount(f"cache={cache}", "mode=writeback") as live:
        assert read_file(live.file("web1.img"), len(content)) == bytes(len(content))
    assert orphans(cache) == 1
    target = os.path.join(os.path.dirname(cache), "saved")
    os.mkdir(target)
    leafctl("cache", "dump", "-d", target, cache)
    saved, = os.listdir(target)
    assert_same(file_bytes(os.path.join(target, saved))[:len(content)], content, "the dump")
    check_clean(web1)


@pytest.mark.parametrize("how", ["gone", "generation"])
def test_changes_that_log_and_image_prove(held, mount, web1, pool, work, cache, rng, how):
    """Both have the nonce of their claim."""
    content = crash_dirty(held, rng)
    if how == "gone":
        os.unlink(record_path(pool))
    else:
        alter(pool, generation="77")
    with mount(f"cache={cache}", "mode=writeback") as live:
        assert read_file(live.file("web1.img"), len(content)) == content
    assert_same(converted(web1, work)[:len(content)], content, "the image alone")


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("how", ["clean", "another claim"])
def test_changes_that_no_record_proves(held, mount, web1, pool, work, cache, rng, how, settled):
    """Refused, in a sentence with the command that settles it; with the record as it was they are there again."""
    content = crash_dirty(held, rng)
    saved = file_bytes(record_path(pool))
    if how == "clean":
        alter(pool, clean="true")
    else:
        alter(pool, nonce="1" * 32)
    for mode in ("writeback", "persistent", "direct"):
        live = mount(f"cache={cache}", f"mode={mode}")
        said = refusal(live, flags=os.O_RDONLY)
        assert "256 KiB of changes" in said and f"leafctl unlock --force {pool} web1.leaf" in said, said
        assert f"leafctl unlock --force {pool} web1.leaf" in state_of(live)["reason"]
        assert end(live) == 1
    assert orphans(cache) == 0
    if settled:
        settle(pool, mount, web1, cache, content)
        return
    write_text(pool, saved)
    with mount(f"cache={cache}", "mode=writeback") as live:
        assert read_file(live.file("web1.img"), len(content)) == content
    assert_same(converted(web1, work)[:len(content)], content, "the image alone")


@pytest.mark.slow
def test_flight_from_a_cache_without_a_record(held, writeback, web1, work, cache, gate, rng):
    """While the record says that the cache has newer, nothing is written past it."""
    live = held(env=faults("aio.write/leaf.cache:EIO", "owner.write/web1.leaf:ENOSPC", gate=gate.path))
    with left_open(live.file("web1.img")) as fd:
        write_all(fd, b"1" * BLOCK, 0)
        os.fsync(fd)
        gate.open()
        wait_until(lambda: lines_with(live, "cannot be written"), "the flight to be tried")
        assert not lines_with(live, "goes on without the cache")
        gate.close()
        write_all(fd, b"3" * BLOCK, 0)
        os.fsync(fd)
        live.kill9()
    with writeback() as live:
        assert read_file(live.file("web1.img"), 1) == b"3"


# ---- Copies of a cache ------------------------------------------------------------

def test_a_copy_of_a_cache(mount, pool, web1, work, rng):
    """From a template: the one that has the changes keeps them, and the other is refused."""
    first, second = os.path.join(work, "a.cache"), os.path.join(work, "b.cache")
    leafctl("cache", "create", "--size", "16M", "--pool", pool, first)
    shutil.copy(first, second)
    live = mount(f"cache={first}", "mode=writeback", *HELD)
    content = rng.randbytes(MIB)
    with left_open(live.file("web1.img")) as fd:
        write_all(fd, content, 0)
        os.fsync(fd)
        live.kill9()
    # Each mount raises its generation as well.
    for _ in range(3):
        with mount(f"cache={second}", "mode=writeback") as live:
            said = refusal(live)
            assert "older copy" in said and f"leafctl unlock --force {pool} web1.leaf" in said, said
    with mount(f"cache={first}", "mode=writeback") as live:
        assert read_file(live.file("web1.img"), len(content)) == content
    assert_same(converted(web1, work)[:len(content)], content, "the image alone")


def test_what_was_cached_of_an_image_that_was_taken_over(mount, pool, cache):
    """By a host that our lock does not reach: our copies are not taken for good when the disk is closed."""
    path = make_raw(os.path.join(pool, "web1.raw"), b"0" * (BLOCKS * BLOCK))
    options = [f"cache={cache}", "mode=persistent", "cache_size=16M", "read_run_bypass=1G"]
    live = mount(*options)
    with opened(live.file("web1.img")) as fd:
        write_all(fd, b"1" * BLOCK, 0)
        os.fsync(fd)
        leafctl("unlock", "--force", pool, "web1.raw")
        with opened(path) as other:
            write_all(other, b"2" * BLOCK, 0)
            os.fsync(other)
    wait_until(lambda: lines_with(live, "was taken over"), "the last close")
    live.stop()
    with mount(*options) as live:
        assert read_file(live.file("web1.img"), BLOCK) == b"2" * BLOCK


# ---- Below a leaf -----------------------------------------------------------------

def test_a_layer_whose_changes_are_in_the_cache(held, mount, web1, pool, work, cache, rng):
    """A disk on it is refused until they are in the pool."""
    content = crash_dirty(held, rng)
    make_image(os.path.join(pool, "top.leaf"), BLOCKS * BLOCK)
    conf = write_conf(work, "[disk top.img]\nlayers = web1.leaf; top.leaf\n")
    live = mount(f"cache={cache}", "mode=writeback", f"conf={conf}")
    assert "leafctl cache drain" in refusal(live, "top.img", os.O_RDONLY)
    assert end(live) == 1
    leafctl("cache", "drain", cache)
    with mount(f"cache={cache}", "mode=writeback", f"conf={conf}") as live:
        assert read_file(live.file("top.img"), len(content)) == content


# ---- By which name -----------------------------------------------------------------

def exchange(one, other):
    os.rename(one, one + ".x")
    os.rename(other, one)
    os.rename(one + ".x", other)


def disk_of(pool, kind):
    path = os.path.join(pool, f"web1.{kind}")
    if kind == "leaf":
        return make_image(path, BLOCKS * BLOCK, chunk="256K")
    return make_raw(path, bytes(BLOCKS * BLOCK))


@pytest.mark.parametrize("record", ["there", "gone"])
@pytest.mark.parametrize("kind", ["leaf", "raw"])
def test_renamed_by_hand(held, mount, pool, work, cache, rng, kind, record):
    """Its changes follow it, and so does its record."""
    path = disk_of(pool, kind)
    content = crash_dirty(held, rng)
    renamed = os.path.join(pool, f"web2.{kind}")
    os.rename(path, renamed)
    if record == "gone":
        shutil.rmtree(directory_of(pool))
    live = mount(f"cache={cache}", "mode=writeback")
    assert live.names() == ["web2.img"]
    assert read_file(live.file("web2.img"), len(content)) == content
    assert end(live) == 0
    assert_same(converted(renamed, work)[:len(content)], content, "the image alone")
    assert record_of(pool, f"web2.{kind}")["clean"] == "true"
    assert os.listdir(directory_of(pool)) == [f"web2.{kind}"]


@pytest.mark.parametrize("how", ["renamed", "another under the former name", "two names"])
@pytest.mark.parametrize("kind", ["leaf", "raw"])
def test_renamed_by_hand_and_mounted_elsewhere(held, mount, pool, cache, work, rng, kind, how):
    """A host without the cache is told of the record that has the former name."""
    path, renamed = disk_of(pool, kind), os.path.join(pool, f"web2.{kind}")
    content = crash_dirty(held, rng)
    if how == "two names":
        os.link(path, renamed)
    else:
        os.rename(path, renamed)
    if how == "another under the former name":
        disk_of(pool, kind)
    for options in ([], [f"cache={os.path.join(work, 'other.cache')}", "cache_size=16M", "mode=writeback"]):
        with mount(*options) as live:
            said = refusal(live, "web2.img")
            assert cache in said and f"leafctl unlock --force {pool} web1.{kind}" in said, said
    live = mount(f"cache={cache}", "mode=writeback")
    with opened(live.file("web2.img")) as fd:
        assert read_all(fd, len(content), 0) == content
        leafctl("drain", live.path)
    assert end(live) == 0
    assert_same(converted(renamed, work)[:len(content)], content, "the image alone")
    if how == "another under the former name":
        assert not any(converted(path, work)[:len(content)])


@pytest.mark.parametrize("how", ["renamed", "two names"])
def test_renamed_by_hand_and_its_record_damaged(held, mount, pool, web1, work, cache, rng, how):
    """The record with the former name may be the image's: nobody opens it until a command has settled that."""
    content = crash_dirty(held, rng)
    renamed = os.path.join(pool, "web2.leaf")
    (os.rename if how == "renamed" else os.link)(web1, renamed)
    write_text(pool, b"[owner]\nhost=")
    before = file_bytes(renamed)
    for options, left in (([], 0), ([f"cache={os.path.join(work, 'other.cache')}", "cache_size=16M"], 0),
                          ([f"cache={cache}", "mode=writeback"], 1)):
        live = mount(*options)
        said = refusal(live, "web2.img")
        assert f"leafctl unlock --force {pool} web1.leaf" in said and "web2.leaf" in said, said
        assert end(live) == left, "what the cache has stays there, and is said"
    assert file_bytes(renamed) == before and orphans(cache) == 0
    leafctl("unlock", "--force", pool, "web1.leaf")
    with mount(f"cache={cache}", "mode=writeback") as live:
        found = read_file(live.file("web2.img"), len(content))
    # The command gives up what is of the image with that name, which is set aside; it is the other's no more.
    expected, aside = (content, 0) if how == "renamed" else (bytes(len(content)), 1)
    assert found == expected and orphans(cache) == aside
    assert_same(converted(renamed, work)[:len(content)], expected, "the image alone")


def test_the_damaged_record_of_another_disk(mount, pool, web1):
    """It is that one's, whose file is there: who has lost his own record is not refused for it."""
    make_image(os.path.join(pool, "other.leaf"), "1M")
    with mount() as live:
        with opened(live.file("web1.img")) as fd:
            write_all(fd, b"1" * BLOCK, 0)
    os.unlink(record_path(pool))
    os.rename(web1, os.path.join(pool, "web2.leaf"))
    write_text(pool, b"[owner]\nhost=", "other.leaf")
    with mount() as live:
        assert f"leafctl unlock --force {pool} other.leaf" in refusal(live, "other.img")
        with opened(live.file("web2.img")) as fd:
            write_all(fd, b"2" * BLOCK, 0)


def test_records_that_cannot_all_be_listed(held, mount, pool, web1, cache, rng):
    """What was not listed may be the record of an image that was renamed."""
    content = crash_dirty(held, rng)
    os.rename(web1, os.path.join(pool, "web2.leaf"))
    with mount(env=faults("owner.list:EIO@1x1")) as live:
        expect_errno(errno.EIO, os.open, live.file("web2.img"), os.O_RDWR)
        assert cache in refusal(live, "web2.img")
    with mount(f"cache={cache}", "mode=writeback") as live:
        assert read_file(live.file("web2.img"), len(content)) == content


@pytest.mark.parametrize("kind", ["leaf", "raw"])
def test_two_disks_change_names(held, mount, pool, work, cache, rng, kind):
    """By hand, both with changes in the cache."""
    paths = [os.path.join(pool, f"web{i}.{kind}") for i in (1, 2)]
    disk_of(pool, kind)
    if kind == "leaf":
        make_image(paths[1], BLOCKS * BLOCK, chunk="256K")
    else:
        make_raw(paths[1], bytes(BLOCKS * BLOCK))
    contents = [crash_dirty(held, rng), None]
    live = held()
    contents[1] = rng.randbytes(64 * KIB)
    with left_open(live.file("web2.img")) as fd:
        write_all(fd, contents[1], 0)
        os.fsync(fd)
        live.kill9()
    exchange(*paths)
    live = mount(f"cache={cache}", "mode=writeback")
    for name in ("web1.img", "web2.img"):
        expected = contents[1] if name == "web1.img" else contents[0]
        try:
            found = read_file(live.file(name), len(expected))
        except OSError:
            assert lines_with(live, "leafctl")
            continue
        assert found in (expected,), name
    end(live)
    exchange(*paths)
    with mount(f"cache={cache}", "mode=writeback") as live:
        leafctl("drain", live.path, check=False)
    for path, expected in zip(paths, contents):
        found = converted(path, work)[:len(expected)]
        assert found in (expected, bytes(len(expected))), "another disk's changes"


@pytest.mark.parametrize("kind", ["leaf", "raw"])
def test_a_copy_of_the_image(held, mount, pool, work, cache, rng, kind):
    """The copy has what the image says of itself, and no part in what is dirty."""
    path = disk_of(pool, kind)
    content = crash_dirty(held, rng)
    run("cp", "-a", path, os.path.join(pool, f"backup.{kind}"))
    with opened(path) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0, 0)
        live = mount(f"cache={cache}", "mode=writeback")
    said = refusal(live, "backup.img", os.O_RDONLY)
    assert "copy" in said and path in said, said
    assert read_file(live.file("web1.img"), len(content)) == content
    leafctl("drain", live.path)
    assert end(live) == 0
    live = mount(f"cache={cache}", "mode=writeback")
    with opened(live.file("backup.img")) as fd:
        assert read_all(fd, BLOCK, 0) == bytes(BLOCK)
        write_all(fd, b"b" * BLOCK, 0)
        os.fsync(fd)
    assert end(live) == 0
    assert_same(converted(path, work)[:len(content)], content, "the image alone")
    assert converted(os.path.join(pool, f"backup.{kind}"), work, "-f", kind)[:BLOCK] == b"b" * BLOCK


@pytest.mark.parametrize("kind", ["leaf", "raw"])
def test_a_copy_is_not_dirty_with_what_is_in_use(held, pool, rng, kind):
    """What is dirty is counted once, for the disk that has it open."""
    path = disk_of(pool, kind)
    with held() as live, opened(live.file("web1.img")) as fd:
        write_all(fd, b"a" * BLOCK, 0)
    run("cp", "-a", path, os.path.join(pool, f"backup.{kind}"))
    with held() as live, opened(live.file("web1.img")) as fd:
        write_all(fd, rng.randbytes(MIB), 0)
        os.fsync(fd)
        assert state_of(live)["dirty_bytes"] == str(MIB)
        copy = state_of(live, "backup.img")
        assert copy["dirty_bytes"] == "0" and copy["state"] == "active", copy
        disks = json.loads(leafctl("status", "--json", live.path).stdout)["disks"]
        assert sum(disk["dirty_bytes"] for disk in disks) == MIB


def test_a_copy_where_names_are_cut_off(mount, work, cache, rng):
    """The cache does not keep enough of a long path to tell one image from another."""
    pool = os.path.join(work, "p" * 100, "q" * 150)
    os.makedirs(pool)
    path = disk_of(pool, "leaf")
    content = crash_dirty(lambda: mount(f"cache={cache}", "mode=writeback", *HELD, pool=pool), rng)
    shutil.copy(path, os.path.join(pool, "backup.leaf"))
    with opened(path) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0, 0)
        live = mount(f"cache={cache}", "mode=writeback", pool=pool)
    assert "which image they are of cannot be told" in refusal(live, "backup.img")
    with opened(live.file("web1.img")) as fd:
        assert read_all(fd, len(content), 0) == content
        leafctl("drain", live.path)
    end(live)
    assert_same(converted(path, work)[:len(content)], content, "the image alone")
    assert not any(converted(os.path.join(pool, "backup.leaf"), work))


# ---- Replaced and restored ----------------------------------------------------------

@pytest.mark.parametrize("how", ["another", "older"])
@pytest.mark.parametrize("kind", ["leaf", "raw"])
def test_an_image_that_was_replaced(held, writeback, mount, pool, work, cache, rng, kind, how):
    """Neither what is dirty nor what was cached of the one is shown as the other's."""
    path = disk_of(pool, kind)
    with writeback() as live, opened(live.file("web1.img")) as fd:
        write_all(fd, b"A" * MIB, 0)
    run("cp", "-a", path, os.path.join(work, "older"))
    live = held()
    with left_open(live.file("web1.img")) as fd:
        write_all(fd, b"B" * MIB, 0)
        os.fsync(fd)
        leafctl("drain", live.path)
        write_all(fd, b"C" * BLOCK, 0)
        os.fsync(fd)
        live.kill9()
    os.rename(path, os.path.join(work, "kept"))
    if how == "older":
        run("cp", "-a", os.path.join(work, "older"), path)
    elif kind == "leaf":
        make_image(path, BLOCKS * BLOCK, chunk="256K")
    else:
        make_raw(path, bytes(BLOCKS * BLOCK))
    before = converted(path, work)
    for mode in ("writeback", "persistent", "direct"):
        live = mount(f"cache={cache}", f"mode={mode}")
        for flags in (os.O_RDWR, os.O_RDONLY):
            said = refusal(live, flags=flags)
            assert "4 KiB of changes" in said and f"leafctl unlock --force {pool} web1.{kind}" in said, said
        end(live)
    assert converted(path, work) == before
    leafctl("unlock", "--force", pool, f"web1.{kind}")
    live = mount(f"cache={cache}", "mode=writeback")
    assert read_file(live.file("web1.img"), MIB) == before[:MIB]
    leafctl("drain", live.path, check=False)
    end(live)
    assert converted(path, work) == before
    assert b"C" * BLOCK in saved(cache)


def test_an_image_that_was_moved_to_a_store_without_attributes(mount, work, cache, rng):
    """It has lost its identity there: what is dirty of it is not forgotten for that."""
    pool, before, store = (os.path.join(work, name) for name in ("moved", "before", "store"))
    for path in (pool, store):
        os.mkdir(path)
    disk_of(pool, "raw")
    content = crash_dirty(lambda: mount(f"cache={cache}", "mode=writeback", *HELD, pool=pool), rng)
    os.rename(pool, before)
    os.mkdir(pool)
    run("bindfs", "--xattr-none", store, pool)
    try:
        run("cp", "-r", f"{before}/.", pool)
        for flags in (os.O_RDWR, os.O_RDONLY):
            live = mount(f"cache={cache}", "mode=writeback", pool=pool)
            said = refusal(live, flags=flags)
            assert "256 KiB of changes" in said and f"leafctl unlock --force {pool} web1.raw" in said, said
            assert end(live) == 1
    finally:
        run("fusermount3", "-uz", pool)
    assert orphans(cache) == 0 and content[:BLOCK] in saved(cache)


def test_a_raw_image_without_room_for_a_claim(held, mount, pool, cache, rng):
    """It has an identity, and the file that was claimed is known by its record."""
    path = disk_of(pool, "raw")
    content = crash_dirty(held, rng)
    os.removexattr(path, "user.leafdisk.claim")
    with mount(f"cache={cache}", "mode=writeback") as live, opened(live.file("web1.img")) as fd:
        assert read_all(fd, len(content), 0) == content
        assert os.getxattr(path, "user.leafdisk.claim").decode() == record_of(pool, "web1.raw")["nonce"]
        leafctl("drain", live.path)


@pytest.fixture
def crowded(work):
    """A pool with a raw image that has no room for an attribute more."""
    with file_system(work, "crowded", "48M") as pool:
        image = disk_of(pool, "raw")
        for size in (3072, 256, 32, 1):
            fill(image, size)
        expect_errno(errno.ENOSPC, os.setxattr, image, "user.leafdisk.uuid", b"0" * 32)
        yield pool


def fill(path, size):
    for number in range(32):
        try:
            os.setxattr(path, f"user.fill.{size}.{number}", b"x" * size)
        except OSError as error:
            assert error.errno == errno.ENOSPC
            return


def make_room(path):
    for name in os.listxattr(path):
        os.removexattr(path, name)


def replace(path, backup):
    """Its inode is that of the file that was removed."""
    before = os.stat(path).st_ino
    os.unlink(path)
    run("cp", backup, path)
    assert os.stat(path).st_ino == before


@pytest.mark.parametrize("since", ["nothing", "room", "copy", "backup"])
def test_a_raw_image_without_room_for_a_mark(mount, crowded, cache, rng, work, since):
    """It has neither an identity nor a claim: the file that was claimed is known by its record, as that says."""
    path, backup = os.path.join(crowded, "web1.raw"), os.path.join(work, "backup")
    run("cp", path, backup)
    content = crash_dirty(lambda: mount(f"cache={cache}", "mode=writeback", *HELD, pool=crowded), rng)
    assert record_of(crowded, "web1.raw")["unmarked"] == "1"
    if since == "room":
        make_room(path)
    if since == "copy":
        run("cp", path, path + ".new")
        os.rename(path + ".new", path)
    if since == "backup":
        replace(path, backup)
    live = mount(f"cache={cache}", "mode=writeback", pool=crowded)
    if since in ("copy", "backup"):
        said = refusal(live)
        assert "256 KiB of changes" in said and f"leafctl unlock --force {crowded} web1.raw" in said, said
        assert end(live) == 1
        return
    assert read_file(live.file("web1.img"), len(content)) == content
    with opened(live.file("web1.img")) as fd:
        assert read_all(fd, len(content), 0) == content
        leafctl("drain", live.path)
    assert end(live) == 0
    assert_same(file_bytes(path)[:len(content)], content, "the image alone")


def test_a_mode_of_an_image_without_room_for_a_mark(mount, crowded, cache, rng):
    """What its record says of it stays so at each claim of an opening."""
    live = mount(f"cache={cache}", "mode=persistent", *HELD, pool=crowded)
    content = rng.randbytes(256 * KIB)
    with left_open(live.file("web1.img")) as fd:
        write_all(fd, bytes(BLOCK), 0)
        leafctl("mode", live.file("web1.img"), "writeback")
        write_all(fd, content, 0)
        os.fsync(fd)
        live.kill9()
    with mount(f"cache={cache}", "mode=writeback", pool=crowded) as live, opened(live.file("web1.img")) as fd:
        assert read_all(fd, len(content), 0) == content


def test_what_was_given_up_before_there_was_room_for_a_mark(mount, crowded, cache, rng):
    """The image has an identity since: by force it is taken for what stands at its path."""
    path = os.path.join(crowded, "web1.raw")
    content = crash_dirty(lambda: mount(f"cache={cache}", "mode=writeback", *HELD, pool=crowded), rng)
    make_room(path)
    leafctl("unlock", "--force", crowded, "web1.raw")
    with mount(f"cache={cache}", "mode=writeback", pool=crowded) as live:
        with opened(live.file("web1.img")) as fd:
            write_all(fd, b"x" * BLOCK, MIB)
        leafctl("drain", live.path)
    result = leafctl("cache", "adopt", cache, "web1.raw", check=False)
    assert result.returncode == 1 and "is not in the pool" in result.stderr, result
    leafctl("cache", "adopt", "--force", cache, "web1.raw")
    assert_same(file_bytes(path)[:len(content)], content, "the image alone")


@pytest.mark.parametrize("kind", ["leaf", "raw"])
def test_out_of_writeback_and_into_it_again(held, writeback, pool, work, cache, kind):
    """Of what was written meanwhile the image alone knows, and the log may not know yet that it has all before."""
    path = disk_of(pool, kind)
    live = held()
    with left_open(live.file("web1.img")) as fd:
        write_all(fd, b"1" * MIB, 0)
        os.fsync(fd)
        leafctl("drain", live.path)
        with left_open(live.control("disks", "web1.img", "mode")) as mode:
            os.write(mode, b"direct")
            write_all(fd, b"2" * MIB, 0)
            os.fsync(fd)
            os.write(mode, b"writeback")
            live.kill()
        live.kill9()
    live = writeback()
    assert read_file(live.file("web1.img"), MIB) == b"2" * MIB
    leafctl("drain", live.path)
    assert end(live) == 0
    assert converted(path, work)[:MIB] == b"2" * MIB
    assert orphans(cache) == 0


def test_a_record_of_an_earlier_version(held, mount, pool, web1, cache):  # pylint: disable=unused-argument
    """It does not say how far the cache was then: which says nothing of what the cache has lost."""
    live = held()
    with left_open(live.file("web1.img")) as fd:
        write_all(fd, b"1" * MIB, 0)
        os.fsync(fd)
        leafctl("drain", live.path)
        os.fsync(fd)
        live.kill9()
    alter(pool, cache_generation=0)
    with mount(f"cache={cache}", "mode=writeback") as live, opened(live.file("web1.img")) as fd:
        assert read_all(fd, MIB, 0) == b"1" * MIB
        write_all(fd, b"2" * BLOCK, 0)


def saved(cache):
    """All that leafctl cache dump gets out of it."""
    target = os.path.join(os.path.dirname(cache), f"saved{len(os.listdir(os.path.dirname(cache)))}")
    os.mkdir(target)
    leafctl("cache", "dump", "-d", target, cache)
    return b"".join(file_bytes(os.path.join(target, name)) for name in os.listdir(target))


def test_a_backup_that_is_written_into_the_image(held, mount, pool, cache, rng):
    """In place nothing tells that; given up before, the cache's changes are not written over it."""
    path = disk_of(pool, "raw")
    crash_dirty(held, rng)
    backup = rng.randbytes(BLOCKS * BLOCK)
    leafctl("unlock", "--force", pool, "web1.raw")
    with open(path, "r+b") as file:
        file.write(backup)
    with mount(f"cache={cache}", "mode=writeback") as live:
        assert_same(read_file(live.file("web1.img"), len(backup)), backup, "the disk")
        leafctl("drain", live.path)
    assert_same(file_bytes(path), backup, "the image")
    assert orphans(cache) == 1


# ---- Orphans ------------------------------------------------------------------------

def orphan_of(cache):
    found = [layer for layer in json.loads(leafctl("cache", "info", "--json", cache).stdout)["layers"]
             if layer["orphan"]]
    assert len(found) == 1
    return found[0]


@pytest.fixture
def orphan(held, pool, web1, rng):  # pylint: disable=unused-argument
    """What was fsynced, and set aside by command."""
    content = crash_dirty(held, rng)
    leafctl("unlock", "--force", pool, "web1.leaf")
    return content


def test_an_orphan_is_adopted(orphan, mount, pool, web1, work, cache):
    with mount(f"cache={cache}", "mode=writeback") as live:
        assert read_file(live.file("web1.img"), len(orphan)) == bytes(len(orphan))
    info = orphan_of(cache)
    assert info["orphan_reason"] == "given up by leafctl unlock --force"
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", info["orphan_since"])
    leafctl("cache", "adopt", cache, "web1.leaf")
    assert orphans(cache) == 0
    assert_same(converted(web1, work)[:len(orphan)], orphan, "the image alone")
    check_clean(web1)
    assert record_of(pool)["clean"] == "true"
    with mount(f"cache={cache}", "mode=writeback") as live:
        assert read_file(live.file("web1.img"), len(orphan)) == orphan


def test_an_orphan_whose_image_was_written_since(orphan, mount, web1, work, cache):
    with mount(f"cache={cache}", "mode=writeback") as live, opened(live.file("web1.img")) as fd:
        write_all(fd, b"n" * BLOCK, len(orphan))
    before = file_bytes(web1)
    result = leafctl("cache", "adopt", cache, "web1.leaf", check=False)
    assert result.returncode == 1 and "was written since" in result.stderr and "--force" in result.stderr
    assert file_bytes(web1) == before and orphans(cache) == 1
    leafctl("cache", "adopt", "--force", cache, "web1.leaf")
    assert converted(web1, work)[:len(orphan) + BLOCK] == orphan + b"n" * BLOCK
    assert orphans(cache) == 0


def test_an_orphan_is_purged(orphan, mount, web1, cache):
    with mount(f"cache={cache}", "mode=writeback") as live:
        read_file(live.file("web1.img"), BLOCK)
    assert orphans(cache) == 1
    leafctl("cache", "purge", cache, web1)
    assert "layer" not in layers(cache)
    assert leafctl("cache", "purge", cache, web1, check=False).returncode == 1
    assert "damages:  0" in leafctl("cache", "check", cache).stdout


def test_what_is_dirty_is_purged_by_force_only(held, mount, web1, cache, rng):
    content = crash_dirty(held, rng)
    result = leafctl("cache", "purge", cache, "web1.leaf", check=False)
    assert result.returncode == 1 and "--force" in result.stderr
    leafctl("cache", "purge", "--force", cache, "web1.leaf")
    with mount(f"cache={cache}", "mode=writeback") as live:
        assert read_file(live.file("web1.img"), len(content)) == bytes(len(content))


def test_changes_in_doubt_are_adopted(held, mount, pool, web1, work, cache, rng):
    """Those that no record proves; nothing was written to the image since."""
    content = crash_dirty(held, rng)
    alter(pool, nonce="1" * 32)
    live = mount(f"cache={cache}", "mode=writeback")
    assert "leafctl" in refusal(live)
    assert end(live) == 1
    leafctl("cache", "adopt", cache, "web1.leaf")
    assert_same(converted(web1, work)[:len(content)], content, "the image alone")


ADOPTION_POINTS = ["owner.write:crash@1", "image.write:crash@1", "image.sync:crash@2", "aio.write/web1.leaf:crash@1",
                   "cache.super:crash@1", "owner.write:crash@2"]


def test_half_of_an_adoption(held, mount, pool, cache, rng):
    """A raw image takes it in pieces: nobody is shown some of them."""
    disk_of(pool, "raw")
    content = crash_dirty(held, rng, length=2 * MIB)
    leafctl("unlock", "--force", pool, "web1.raw")
    with mount(f"cache={cache}", "mode=writeback") as live:
        read_file(live.file("web1.img"), BLOCK)
    result = leafctl("cache", "adopt", cache, "web1.raw", check=False, env=faults("aio.write/web1.raw:crash@2"))
    assert result.returncode == CRASH_STATUS, result.stderr
    for _ in range(2):
        with mount(f"cache={cache}", "mode=writeback") as live:
            for flags in (os.O_RDONLY, os.O_RDWR):
                assert f"leafctl cache adopt {cache}" in refusal(live, flags=flags)
    leafctl("cache", "adopt", cache, "web1.raw")
    with mount() as live:
        assert read_file(live.file("web1.img"), len(content)) == content


def test_an_adoption_that_is_interrupted(orphan, mount, web1, work, cache):
    """At each of its steps it can be run again, and no mount shows half of it."""
    with mount(f"cache={cache}", "mode=writeback") as live:
        read_file(live.file("web1.img"), BLOCK)
    for point in ADOPTION_POINTS:
        result = leafctl("cache", "adopt", cache, "web1.leaf", check=False, env=faults(point))
        assert result.returncode == CRASH_STATUS, result.stderr
        with mount(f"cache={cache}", "mode=writeback") as live:
            try:
                found = read_file(live.file("web1.img"), len(orphan))
                assert found in (orphan, bytes(len(orphan))), point
            except OSError:
                assert lines_with(live, "leafctl cache adopt")
    leafctl("cache", "adopt", cache, "web1.leaf", check=False)
    assert_same(converted(web1, work)[:len(orphan)], orphan, "the image alone")
    check_clean(web1)


@pytest.mark.parametrize("mounted", [False, True])
@pytest.mark.parametrize("point", ADOPTION_POINTS[:-1])
def test_an_adoption_is_gone_on_with_at_once(orphan, mount, pool, web1, work, cache, point, mounted):
    """By the same command, whether a mount has seen in between that it is an orphan or not."""
    if mounted:
        with mount(f"cache={cache}", "mode=writeback") as live:
            read_file(live.file("web1.img"), BLOCK)
    for _ in range(3):
        crashed = leafctl("cache", "adopt", cache, "web1.leaf", check=False, env=faults(point))
        assert crashed.returncode == CRASH_STATUS, crashed.stderr
    leafctl("cache", "adopt", cache, "web1.leaf")
    assert_same(converted(web1, work)[:len(orphan)], orphan, "the image alone")
    check_clean(web1)
    assert record_of(pool)["clean"] == "true"


def test_an_adoption_goes_on_with_the_same_image(held, mount, pool, web1, work, cache, rng):
    """Not with another that was put in its place while the first try was interrupted."""
    backup = file_bytes(web1)
    content = crash_dirty(held, rng)
    leafctl("unlock", "--force", pool, "web1.leaf")
    with mount(f"cache={cache}", "mode=writeback") as live:
        read_file(live.file("web1.img"), BLOCK)
    assert orphans(cache) == 1
    crashed = leafctl("cache", "adopt", cache, "web1.leaf", check=False, env=faults("aio.write/web1.leaf:crash@1"))
    assert crashed.returncode == CRASH_STATUS, crashed.stderr
    with open(web1, "wb") as file:
        file.write(backup)
    refused = leafctl("cache", "adopt", cache, "web1.leaf", check=False)
    assert refused.returncode == 1 and "is another than it was" in refused.stderr, refused.stderr
    assert file_bytes(web1) == backup
    leafctl("cache", "adopt", "--force", cache, "web1.leaf")
    assert_same(converted(web1, work)[:len(content)], content, "the image alone")


# ---- Who it is --------------------------------------------------------------------------

@pytest.fixture
def views(work):
    """Two views of one directory, whose locks do not reach each other."""
    source = os.path.join(work, "source")
    binary = os.path.join(work, "view")
    os.mkdir(source)
    flags = run("pkg-config", "--cflags", "--libs", "fuse3").stdout.split()
    run("cc", "-Wall", "-Wextra", "-o", binary, os.path.join(TREE, "test", "view.c"), *flags)
    paths, children = [os.path.join(work, name) for name in ("one", "two")], []
    try:
        for path in paths:
            os.mkdir(path)
            children.append(subprocess.Popen([binary, source, path, "-f"]))
            wait_until(lambda path=path: os.path.ismount(path), "the view")
        yield source, *paths
    finally:
        for path in paths:
            run("fusermount3", "-uz", path, check=False)
        for child in children:
            child.terminate()
            child.wait(PATIENCE)


@pytest.fixture
def other_machine(work):
    """What to start a daemon with that finds itself there; None: as it is here."""
    library = os.path.join(work, "other_host.so")
    run("cc", "-Wall", "-Wextra", "-fPIC", "-shared", "-o", library, os.path.join(TREE, "test", "other_host.c"))

    def start_there(machine="other", boot="b" * 36, host="elsewhere"):
        env = {"LD_PRELOAD": library, "ASAN_OPTIONS": os.environ["ASAN_OPTIONS"] + ":verify_asan_link_order=0"}
        for name, text in (("LEAFDISK_MACHINE_ID", machine), ("LEAFDISK_BOOT_ID", boot)):
            if text:
                env[name] = os.path.join(work, name)
                with open(env[name], "w", encoding="ascii") as file:
                    file.write(text + "\n")
        wrapper = ["unshare", "--uts", "sh", "-c", f'hostname {host} && exec "$@"', "sh"] if host else []
        return {"env": env, "wrapper": wrapper}
    return start_there


def test_a_lock_that_does_not_reach(mount, views):
    """The process that owns the image runs: its lock is not seen, and its number is."""
    source, first, second = views
    make_image(os.path.join(source, "web1.leaf"), 8 * MIB)
    with mount(pool=first) as one, mount(pool=second) as two, opened(one.file("web1.img")) as fd:
        write_all(fd, b"1" * BLOCK, 0)
        assert f"(pid {one.pid}, mode direct" in refusal(two)
        os.fsync(fd)
    check_clean(os.path.join(source, "web1.leaf"))


def left_unclean(mount, pool, **options):
    live = mount(pool=pool, **options)
    with left_open(live.file("web1.img")) as fd:
        write_all(fd, b"1" * BLOCK, 0)
        os.fsync(fd)
        live.kill9()


@pytest.mark.parametrize("who, reaching, allowed", [
    ({"machine": None, "boot": None, "host": "renamed"}, False, True),
    ({"machine": None, "boot": None, "host": "renamed"}, True, True),
    ({"machine": None, "host": "renamed"}, True, True),
    ({"machine": None, "host": None}, False, False),
    ({}, True, False),
    ({"host": None}, True, False),
])
def test_who_comes_after_a_crash(mount, pool, views, other_machine, who, reaching, allowed):
    """The same machine under a new name, or started again where a lock that reaches says that nobody else has the
    image; one that was copied with its machine-id, where no lock does; another one of the same name."""
    source, first, second = views
    place = pool if reaching else source
    make_image(os.path.join(place, "web1.leaf"), 8 * MIB)
    left_unclean(mount, pool if reaching else first)
    with mount(pool=pool if reaching else second, **other_machine(**who)) as live:
        if not allowed:
            assert "leafctl unlock " in refusal(live)
            return
        with opened(live.file("web1.img")) as fd:
            write_all(fd, b"2" * BLOCK, 0)
    check_clean(os.path.join(place, "web1.leaf"))
