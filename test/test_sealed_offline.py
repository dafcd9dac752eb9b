"""What leafctl does without a mount with images that were sealed, in the pool's directory snapshots."""
import json
import os
import re
import shlex
import shutil
import signal
import threading

import pytest

from harness import (BLOCK, MIB, check_clean, converted, file_bytes, halt, leafctl, make_image, make_raw, opened,
                     read_file, run, state_of, write_all)

SIZE = 4 * MIB


@pytest.fixture(params=["raw", "leaf"])
def base(request, pool):
    path = os.path.join(pool, f"base.{request.param}")
    return make_raw(path, b"base" * (SIZE // 4)) if request.param == "raw" else make_image(path, SIZE)


@pytest.fixture
def web1(pool, base):
    path = os.path.join(pool, "web1.leaf")
    leafctl("clone", base, path)
    return path


def sealed(pool, tag):
    return os.path.join(pool, "snapshots", f"web1@{tag}.leaf")


def change(live, number, name="web1.img"):
    with opened(live.file(name)) as fd:
        write_all(fd, bytes([number]) * BLOCK, number * BLOCK)


def take(live, *tags, name="web1.img"):
    """One after the other, with something new in each, and after the last."""
    for number, tag in enumerate(tags, 1):
        change(live, number, name)
        leafctl("snapshot", live.file(name), tag)
    change(live, len(tags) + 1, name)


def refused(*words):
    result = leafctl(*words, check=False)
    assert result.returncode == 1, result
    return result.stderr


# ---- Children that were sealed --------------------------------------------------


def test_a_child_that_was_sealed_still_stands_on_it(mount, pool, work, base, web1):
    with mount() as live:
        take(live, "mon", "tue")
        assert f"{sealed(pool, 'mon')} still stands on it" in refused("forget-child", base)
    content = converted(web1, work)
    for parent, child in (base, "mon"), (sealed(pool, "mon"), "tue"):
        for words in (), ("web1.leaf",), (web1,):
            assert f"{sealed(pool, child)} still stands on it" in refused("forget-child", parent, *words)
        assert "forget-child" in refused("resize", parent, "+1M")
    assert f"{web1} still stands on it" in refused("forget-child", sealed(pool, "tue"))
    assert converted(web1, work) == content
    check_clean(web1, sealed(pool, "mon"), sealed(pool, "tue"))


def test_the_disk_of_a_sealed_child_is_removed(mount, pool, base, web1):
    with mount("manage") as live:
        take(live, "mon")
        assert "still stands on it" in refused("forget-child", base)
        os.unlink(live.file("web1.img"))
    assert "still stands on it" in refused("forget-child", base)
    with mount() as live:
        assert os.stat(live.file("base.img")).st_mode & 0o222 == 0
    os.unlink(sealed(pool, "mon"))
    leafctl("forget-child", base)
    with mount() as live:
        assert os.stat(live.file("base.img")).st_mode & 0o200


def test_a_sealed_child_of_a_pool_that_was_renamed(mount, pool, work, base, web1):
    with mount() as live:
        take(live, "mon")
    renamed = os.path.join(work, "renamed")
    os.rename(pool, renamed)
    base = os.path.join(renamed, os.path.basename(base))
    assert f"{sealed(renamed, 'mon')} still stands on it" in refused("forget-child", base)
    os.rename(renamed, pool)


def test_a_sealed_child_in_another_pool(mount, pool, work, base):
    other = os.path.join(work, "other")
    os.mkdir(other)
    leafctl("clone", f"--layers={pool}", base, os.path.join(other, "web1.leaf"))
    with mount(f"layers={pool}", pool=other) as live:
        take(live, "mon")
    for words in (), ("web1.leaf",):
        assert f"{sealed(other, 'mon')} still stands on it" in refused("forget-child", base, *words)


def test_sealed_images_that_cannot_be_listed(mount, pool, base, web1):
    """Cannot tell is not no."""
    with mount() as live:
        take(live, "mon")
    os.unlink(web1)
    os.rename(os.path.join(pool, "snapshots"), os.path.join(pool, "elsewhere"))
    os.symlink("snapshots", os.path.join(pool, "snapshots"))
    assert "snapshots: cannot be listed" in refused("forget-child", base)
    os.unlink(os.path.join(pool, "snapshots"))
    os.rename(os.path.join(pool, "elsewhere"), os.path.join(pool, "snapshots"))
    os.unlink(sealed(pool, "mon"))
    leafctl("forget-child", base, "web1.leaf")


def test_a_file_named_as_the_directory_of_sealed_images(pool, base, web1):
    make_raw(os.path.join(pool, "snapshots"), b"of somebody")
    assert f"{web1} still stands on it" in refused("forget-child", base)
    os.unlink(web1)
    leafctl("forget-child", base)


# ---- A parent that has changed --------------------------------------------------


def commands_in(text):
    """Those that messages name, each once."""
    return sorted(set(re.findall(r"leafctl (rebase --accept .*)$", text, re.M)))


@pytest.mark.usefixtures("web1")
def test_a_pool_that_was_restored_without_its_times(mount, pool, work, rng):
    """The commands that are named mend it, down to the base."""
    with mount("manage") as live:
        take(live, "mon", "tue")
        leafctl("fork", live.file("web1.img"), "web2")
        content = read_file(live.file("web1.img"), SIZE)
    base, = (name for name in os.listdir(pool) if name.startswith("base."))
    before = os.path.join(work, "before")
    os.rename(pool, before)
    run("cp", "-r", before, pool)
    if base.endswith(".raw"):
        os.utime(os.path.join(pool, base))
    else:
        leafctl("forget-child", "--force", os.path.join(pool, base))
        leafctl("resize", os.path.join(pool, base), "+1M")
    found = leafctl("check", pool, check=False)
    commands = commands_in(found.stdout + found.stderr)
    assert commands, found
    for command in commands:
        assert shlex.split(command)[2] == sealed(pool, "mon")
        leafctl(*shlex.split(command))
    assert "no damage" in leafctl("check", pool).stdout.splitlines()[-1]
    with mount() as live:
        assert read_file(live.file("web1.img"), SIZE) == content == read_file(live.file("web2.img"), SIZE)
    assert "still stands on it" in refused("forget-child", os.path.join(pool, base))


def test_the_parent_of_a_sealed_image_is_found_from_wherever_it_is_named(mount, pool, base, web1, monkeypatch):
    with mount() as live:
        take(live, "mon")
    monkeypatch.chdir(os.path.dirname(sealed(pool, "mon")))
    for directory, name in (pool, "snapshots/web1@mon.leaf"), (os.path.join(pool, "snapshots"), "web1@mon.leaf"):
        monkeypatch.chdir(directory)
        leafctl("rebase", "--accept", name)
        leafctl("rebase", "--accept", os.path.join(pool, "web1.leaf"))
    check_clean(web1)


# ---- What only a cache has of them ----------------------------------------------

HELD = ["mode=writeback", "cache_size=32M", "max_dirty_age=86400", "migrate_idle_ms=60000", "migrate_threshold=100"]


@pytest.fixture(params=["child", "leaf", "raw"])
def disk(request, pool):
    """The image of web1.img."""
    path = os.path.join(pool, f"web1.{'raw' if request.param == 'raw' else 'leaf'}")
    if request.param == "raw":
        return make_raw(path, bytes(SIZE))
    if request.param == "child":
        return make_image(path, SIZE, parent=make_raw(os.path.join(pool, "base.raw"), bytes(SIZE)))
    return make_image(path, SIZE)


def name_of(disk, tag):
    stem, ending = os.path.splitext(os.path.basename(disk))
    return f"{stem}@{tag}{ending}"


def kill_with_a_dirty_snapshot(mount, cache):
    """What was dirty of the disk is dirty of the sealed layer, and there is more. What the disk was."""
    live = mount(*HELD, f"cache={cache}")
    take(live, "mon")
    assert int(state_of(live)["dirty_bytes"]) > 0
    content = read_file(live.file("web1.img"), SIZE)
    live.kill9()
    live.finalise()
    return content


def dirty_of(cache, name):
    layers = json.loads(leafctl("cache", "info", "--json", cache).stdout)["layers"]
    return sum(layer["dirty_blocks"] for layer in layers if os.path.basename(layer["name"]) == name)


@pytest.mark.parametrize("mounted", [False, True])
def test_what_was_given_up_of_a_sealed_layer_is_adopted(mount, pool, work, disk, mounted):
    cache, name = os.path.join(work, "cache"), name_of(disk, "mon")
    image = os.path.join(pool, "snapshots", name)
    content = kill_with_a_dirty_snapshot(mount, cache)
    assert dirty_of(cache, name) > 0
    leafctl("unlock", "--force", os.path.join(pool, "snapshots"), name)
    if mounted:
        with mount(*HELD, f"cache={cache}") as live:
            assert read_file(live.file("web1.img"), SIZE) != content
            assert "cache adopt" in live.messages()
    leafctl("cache", "adopt", cache, name)
    assert dirty_of(cache, name) == 0
    assert "web1.leaf" in refused("resize", image, "+1M"), "it does not know of its child"
    check_clean(*([image] if image.endswith(".leaf") else []))
    for number in range(2):
        with mount("mode=writeback", f"cache={cache}") as live:
            assert read_file(live.file("web1.img"), SIZE) == content
            leafctl("drain", live.path)
            change(live, 2)
    was = bytearray(content)
    was[2 * BLOCK:3 * BLOCK] = bytes(BLOCK)
    assert converted(image, work) == bytes(was)
    assert "no damage" in leafctl("check", pool).stdout.splitlines()[-1]


def test_a_copy_of_a_sealed_image_does_not_get_what_was_given_up(mount, pool, work):
    make_image(os.path.join(pool, "web1.leaf"), SIZE)
    cache, copy = os.path.join(work, "cache"), os.path.join(pool, "copy.leaf")
    content = kill_with_a_dirty_snapshot(mount, cache)
    leafctl("unlock", "--force", pool, "web1@mon.leaf")
    shutil.copy2(sealed(pool, "mon"), copy)
    before = file_bytes(copy)
    leafctl("cache", "adopt", cache, "web1@mon.leaf")
    assert file_bytes(copy) == before
    os.unlink(copy)
    with mount("mode=writeback", f"cache={cache}") as live:
        assert read_file(live.file("web1.img"), SIZE) == content


def test_a_sealed_image_is_unlocked_by_its_name_in_the_pool(mount, pool, work, disk):
    name = name_of(disk, "mon")
    kill_with_a_dirty_snapshot(mount, os.path.join(work, "cache"))
    image = os.path.join(pool, "snapshots", name)
    ways = (pool, name), (pool, f"snapshots/{name}"), (os.path.join(pool, "snapshots"), name)
    for words in ways:
        assert image in refused("unlock", *words)
    for words in ways:
        said = leafctl("unlock", "--force", *words).stdout
        assert said.startswith(f"{image}: has no owner"), said
    for wrong in "web1@tue.leaf", "snapshots/web1@tue.leaf", "snapshots/web1.leaf":
        assert "has no disk or image" in refused("unlock", pool, wrong)
    for wrong in "other/web1.leaf", "snapshots/../web1.leaf", "snapshots/", "snapshots/.leafdisk":
        assert "is no name of a disk" in refused("unlock", pool, wrong)


# ---- What a snapshot is about to name -------------------------------------------


def staged(pool):
    return [name for name in os.listdir(pool) if re.match(r"\.[0-9a-f]{8}-", name)]


def halt_in(work, live, pool):
    """The hidden files that the mount is at work on; none: it was too quick. And what waits for its end."""
    thread = threading.Thread(target=work)
    thread.start()
    while not staged(pool) and thread.is_alive():
        pass
    halt(live.pid)

    def go_on():
        os.kill(live.pid, signal.SIGCONT)
        thread.join()

    return staged(pool), go_on


def test_what_a_snapshot_is_at_work_on_is_not_taken_for_left(mount, pool, work):
    make_image(os.path.join(pool, "web1.leaf"), SIZE)
    left = os.path.join(pool, ".01234567-web9.leaf")
    file_of_nobody = os.path.join(pool, ".89abcdef-new.leaf")
    met = 0
    with mount("mode=writeback", f"cache={work}/cache", "cache_size=32M") as live:
        for number in range(200):
            change(live, number % 200)
            content = read_file(live.file("web1.img"), SIZE)
            files, go_on = halt_in(lambda: leafctl("fork", live.file("web1.img"), f"f{number}"), live, pool)
            for path in left, file_of_nobody:
                make_raw(path, b"")
            said = leafctl("list", pool).stderr
            for word in "new", "fork":
                leafctl("create", os.path.join(pool, f"{word}.leaf"), "1M")
            after = staged(pool)
            go_on()
            assert f"{left}: was left" in said and not [name for name in files if f"{pool}/{name}: was left" in said], said
            assert set(files) <= set(after) and not os.path.exists(file_of_nobody)
            assert read_file(live.file(f"f{number}.img"), SIZE) == content
            for name in "new.leaf", "fork.leaf", left:
                os.unlink(os.path.join(pool, name))
            met += bool(files)
            if met == 5:
                break
    assert met == 5
    assert staged(pool) == []


def test_a_new_disk_that_a_mount_is_making_is_not_taken_for_left(mount, pool):
    met = 0
    with mount("manage") as live:
        for number in range(200):
            path = live.file(f"web{number}.img")
            files, go_on = halt_in(lambda: open(path, "xb").close(), live, pool)
            said = leafctl("list", pool).stderr
            leafctl("create", os.path.join(pool, "new.leaf"), "1M")
            after = staged(pool)
            go_on()
            assert "was left" not in said and after == files
            assert os.path.exists(path) and staged(pool) == []
            os.unlink(os.path.join(pool, "new.leaf"))
            met += bool(files)
            if met == 5:
                break
    assert met == 5


def test_what_is_not_seen_of_a_layer_below_is_said(mount, pool, work, disk):
    """By who copies a disk, checks or lists it, and by a mount without the cache."""
    cache, name = os.path.join(work, "cache"), name_of(disk, "mon")
    kill_with_a_dirty_snapshot(mount, cache)
    image = os.path.join(pool, "web1.leaf")
    said = f"{name}: newer content may be in the cache {cache}"
    for words in (["convert", image, os.path.join(work, "copy.raw")], ["check", image], ["info", image],
                  ["map", "--summary", image], ["list", pool]):
        result = leafctl(*words, check=False)
        assert said in result.stderr and f"leafctl cache drain {cache}" in result.stderr, (words, result.stderr)
    leafctl("unlock", "--force", pool, "web1.leaf")
    with mount("mode=direct") as live:
        assert name in live.messages() and "leafctl cache drain" in live.messages()
        assert state_of(live)["state"] != "active"
    leafctl("cache", "drain", cache)
    for words in (["check", image], ["list", pool]):
        assert "newer content" not in leafctl(*words).stderr
