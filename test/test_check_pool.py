"""leafctl check of a pool and its verdicts; a map at a glance."""
import json
import os
import re
import shutil

import pytest

import leaf_format
from harness import CRASH_STATUS, MIB, faults, leafctl, make_image, make_raw, opened, program, run, write_all
from test_control import NOBODY, passable

DAMAGED = 3


def spoil(image, *places):
    with open(image, "r+b") as file:
        for place in places:
            file.seek(place)
            file.write(b"spoilt")


def test_check_of_a_pool(mount, pool):
    """Each image has a verdict, and all of them; what is broken is damaged."""
    base = make_raw(os.path.join(pool, "base.raw"), bytes(MIB))
    images = [make_image(os.path.join(pool, f"web{i}.leaf"), parent=base) for i in range(3)]
    well = leafctl("check", pool)
    assert well.stdout.splitlines() == ["base.raw: no damage", *(f"web{i}.leaf: no damage" for i in range(3)),
                                        "verdict: 4 images, no damage"]
    with mount() as live:
        assert leafctl("check", live.path).stdout == well.stdout
        with opened(live.file("web0.img")) as fd:
            write_all(fd, b"x" * MIB, 0)
    spoil(images[1], 0, leaf_format.PAGE)
    alone = leafctl("check", images[1], check=False)
    assert alone.returncode == DAMAGED and "both copies of its header are gone" in alone.stdout
    assert alone.stdout.splitlines()[-1] == "verdict:  1 damage, 0 repaired"
    result = leafctl("check", pool, check=False)
    assert result.returncode == DAMAGED and result.stdout.splitlines()[-1] == "verdict: 4 images, 1 damaged"
    assert "broken:" in result.stderr and images[1] in result.stderr
    found = json.loads(leafctl("check", "--json", pool, check=False).stdout)
    assert found["damaged"] == 1 and found["not_checked"] == 0 and len(found["images"]) == 3
    os.unlink(images[1])
    assert leafctl("check", "--repair", pool).stdout.splitlines()[-1] == "verdict: 3 images, no damage"


def test_check_of_sealed_images(mount, pool):
    """One whose header is gone, and that no disk stands on, is damaged; so is a disk whose snapshots have no directory."""
    make_image(os.path.join(pool, "web1.leaf"), "1M")
    with mount() as live:
        for name in ("monday", "tuesday"):
            leafctl("snapshot", live.file("web1.img"), name)
    sealed = os.path.join(pool, "snapshots")
    with open(os.path.join(sealed, "notes.txt"), "wb") as file:
        file.write(b"no image")
    os.symlink("nowhere", os.path.join(sealed, "nothing"))
    assert leafctl("check", pool).stdout.splitlines() == ["web1.leaf: no damage", "web1@monday.leaf: no damage",
                                                          "web1@tuesday.leaf: no damage", "verdict: 3 images, no damage"]
    old = os.path.join(sealed, "web0@sunday.leaf")
    make_image(old, "1M")
    spoil(old, 0, leaf_format.PAGE)
    result = leafctl("check", pool, check=False)
    assert result.returncode == DAMAGED and result.stdout.splitlines()[-1] == "verdict: 4 images, 1 damaged"
    assert "both copies of its header are gone" in result.stdout
    shutil.rmtree(sealed)
    with open(sealed, "wb"):
        result = leafctl("check", pool, check=False)
    assert result.returncode == DAMAGED and "web1@tuesday.leaf: cannot be found: Not a directory" in result.stdout + result.stderr


def test_a_header_that_is_mended(pool):
    image = make_image(os.path.join(pool, "web1.leaf"), "1M")
    spoil(image, leaf_format.PAGE)
    assert "is damaged (no damage: the next writable open mends it)" in leafctl("check", image).stdout
    assert "was damaged (no damage), and is mended" in leafctl("check", "--repair", image).stdout
    assert "header:" not in leafctl("check", image).stdout


def test_a_map_at_a_glance(mount, pool):
    base = make_image(os.path.join(pool, "base.leaf"), "128M")
    with mount() as live, opened(live.file("base.img")) as fd:
        write_all(fd, b"b" * 2 * MIB, 64 * MIB)
    image = make_image(os.path.join(pool, "web1.leaf"), parent=base)
    with mount() as live, opened(live.file("web1.img")) as fd:
        write_all(fd, b"x" * MIB, 65 * MIB)
    said = leafctl("map", "--summary", image).stdout
    assert re.search(rf"^ +0 +1 MiB +0 B +1 +{image}$", said, re.M) and re.search(rf"^ +1 +1 MiB +0 B +1 +{base}$", said, re.M)
    (line,) = [line for line in said.splitlines() if line.startswith("    64 MiB  ")]
    assert "each sign is 128 KiB" in said and line.split()[2] == "1" * 8 + "0" * 8 + "." * 48
    assert "1 MiB" in leafctl("map", image).stdout


def test_a_leaf_is_no_raw_parent(pool):
    leaf = make_image(os.path.join(pool, "e.leaf"), "1M")
    refused = leafctl("create", "-b", leaf, "-F", "raw", os.path.join(pool, "f.leaf"), check=False)
    assert refused.returncode == 1 and "is a leaf image, not a raw one; leave -F raw out" in refused.stderr


def test_unlock_takes_the_stem(mount, pool):
    make_image(os.path.join(pool, "web1.leaf"), "1M")
    said = [leafctl("unlock", pool, name).stdout for name in ("web1.img", "web1.leaf", "web1")]
    assert len(set(said)) == 1 and "has no owner" in said[0]
    assert leafctl("unlock", pool, "web2", check=False).returncode == 1


@pytest.fixture
def as_nobody(work, pool):
    tool = shutil.copy(program("leafctl"), os.path.join(work, "leafctl"))
    with passable(pool):
        yield lambda *words: run("setpriv", f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups", tool,
                                 *words, check=False)


def test_what_cannot_be_read_is_no_damage(mount, pool, as_nobody):
    base = make_raw(os.path.join(pool, "base.raw"), bytes(MIB))
    image = make_image(os.path.join(pool, "web1.leaf"), parent=base)
    other = make_image(os.path.join(pool, "web2.leaf"), "1M")
    with mount() as live:
        leafctl("snapshot", live.file("web2.img"), "mon")
    snapshots = os.path.join(pool, "snapshots")
    os.chmod(pool, 0o755)
    os.chmod(snapshots, 0o755)
    for path in base, image, other, os.path.join(snapshots, "web2@mon.leaf"):
        os.chmod(path, 0o600)
    result = as_nobody("check", pool)
    assert result.returncode == 1, result
    assert result.stdout.splitlines()[-1] == "verdict: 4 images, 0 damaged, 4 could not be checked"
    assert result.stderr.count("Permission denied") == 4 and "broken" not in result.stderr
    found = json.loads(as_nobody("check", "--json", pool).stdout)
    assert found["damaged"] == 0 and found["not_checked"] == 4
    # Images on one that cannot be read, and a directory of sealed ones that cannot be listed.
    os.chmod(image, 0o644)
    os.chmod(other, 0o644)
    os.chmod(snapshots, 0o700)
    result = as_nobody("check", pool)
    assert result.returncode == 1 and ": 3 images, 0 damaged, 4 could not be checked" in result.stdout, result
    assert "snapshots: cannot be listed" in result.stderr
    alone = as_nobody("check", image)
    assert alone.returncode == 1 and "Permission denied" in alone.stderr and "damage" not in alone.stdout, alone
    # Damage that is found is damage, whatever else cannot be told.
    spoil(other, 0, leaf_format.PAGE)
    result = as_nobody("check", pool)
    assert result.returncode == DAMAGED and ": 3 images, 1 damaged, 3 could not be checked" in result.stdout, result
    result = leafctl("check", pool, check=False)
    assert result.returncode == DAMAGED and result.stdout.splitlines()[-1] == "verdict: 4 images, 1 damaged", result


def test_a_list_only_looks(mount, pool, as_nobody):
    """Who may read the images sees them; what a crash left is a mount's to settle."""
    make_image(os.path.join(pool, "web1.leaf"), "1M")
    live = mount(env=faults("snapshot.exchange:crash"))
    leafctl("snapshot", live.file("web1.img"), "mon", check=False)
    assert live.wait() == CRASH_STATUS
    live.finalise()
    left = sorted(os.listdir(pool))
    os.chmod(pool, 0o755)
    os.chmod(os.path.join(pool, "web1.leaf"), 0o644)
    for said in (leafctl("list", pool), as_nobody("list", pool)):
        assert said.returncode == 0 and "web1.img" in said.stdout
    assert sorted(os.listdir(pool)) == left
    with mount() as live:
        assert live.names() == ["web1.img"] and "was finished" in live.messages()


def test_damage_of_an_image_that_is_not_shown(mount, pool):
    """Also where only its name is in the way, and where its sealed layer has no header any more."""
    make_image(os.path.join(pool, "web1.leaf"), "1M")
    with mount() as live:
        leafctl("snapshot", live.file("web1.img"), "mon")
    both = make_image(os.path.join(pool, "l" * 248 + ".leaf"), "1M"), make_raw(os.path.join(pool, "l" * 248 + ".raw"), b"")
    result = leafctl("check", pool)
    assert "verdict: 4 images, no damage" in result.stdout and result.stderr.count("not shown: ") == 2, result
    for path in both:
        os.unlink(path)
    spoil(os.path.join(pool, "snapshots", "web1@mon.leaf"), 0, leaf_format.PAGE)
    result = leafctl("check", pool, check=False)
    assert result.returncode == DAMAGED and result.stdout.splitlines()[-1] == "verdict: 2 images, 2 damaged", result
    assert "web1@mon.leaf: damage: is named .leaf, and both copies of its header are gone" in result.stdout
