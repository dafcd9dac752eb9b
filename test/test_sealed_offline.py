"""What leafctl does without a mount with images that were sealed, in the pool's directory snapshots."""
import os
import re
import shlex

import pytest

from harness import (BLOCK, MIB, check_clean, converted, leafctl, make_image, make_raw, opened, read_file, run,
                     write_all)

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
