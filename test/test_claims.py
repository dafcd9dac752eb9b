"""Claims in doubt: what cannot be told loses nothing, and is settled by command."""
import os
import shutil

import pytest

from harness import (BLOCK, KIB, MIB, assert_same, check_clean, converted, faults, file_bytes, leafctl, make_image,
                     read_file, state_of, wait_until, write_all)
from test_owner import directory_of, record_of, record_path, refusal, write_text
from test_writeback_faults import (BLOCKS, HELD, cache, end, gate, held, left_open,  # noqa: F401 pylint: disable=unused-import
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
    for number in range(1, 5):
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


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("how", ["gone", "clean", "older", "newer"])
def test_changes_that_no_record_proves(held, mount, web1, pool, work, cache, rng, how, settled):
    """Refused, in a sentence with the command that settles it; with the record as it was they are there again."""
    content = crash_dirty(held, rng)
    saved = file_bytes(record_path(pool))
    if how == "gone":
        os.unlink(record_path(pool))
    elif how == "clean":
        alter(pool, clean="true")
    elif how == "older":
        alter(pool, generation="0")
    else:
        alter(pool, generation="77")
    for mode in ("writeback", "persistent", "direct"):
        live = mount(f"cache={cache}", f"mode={mode}")
        said = refusal(live, flags=os.O_RDONLY)
        assert "256 KiB of changes" in said and f"leafctl unlock --force {pool} web1.leaf" in said, said
        assert end(live) == 1
    assert orphans(cache) == 0
    if settled:
        settle(pool, mount, web1, cache, content)
        return
    write_text(pool, saved)
    with mount(f"cache={cache}", "mode=writeback") as live:
        assert read_file(live.file("web1.img"), len(content)) == content
    assert_same(converted(web1, work)[:len(content)], content, "the image alone")


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
    with mount(f"cache={second}", "mode=writeback") as live:
        said = refusal(live)
        assert "older copy" in said and f"leafctl unlock --force {pool} web1.leaf" in said, said
    with mount(f"cache={first}", "mode=writeback") as live:
        assert read_file(live.file("web1.img"), len(content)) == content
    assert_same(converted(web1, work)[:len(content)], content, "the image alone")


# ---- Below a leaf -----------------------------------------------------------------

def test_a_layer_whose_changes_are_in_the_cache(held, mount, web1, pool, work, cache, rng):
    """A disk on it is refused until they are in the pool."""
    content = crash_dirty(held, rng)
    make_image(os.path.join(pool, "top.leaf"), BLOCKS * BLOCK)
    conf = os.path.join(work, "conf")
    with open(conf, "w", encoding="ascii") as file:
        file.write("[disk top.img]\nlayers = web1.leaf; top.leaf\n")
    live = mount(f"cache={cache}", "mode=writeback", f"conf={conf}")
    assert "leafctl cache drain" in refusal(live, "top.img", os.O_RDONLY)
    assert end(live) == 1
    leafctl("cache", "drain", cache)
    with mount(f"cache={cache}", "mode=writeback", f"conf={conf}") as live:
        assert read_file(live.file("top.img"), len(content)) == content
