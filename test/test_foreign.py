"""Images of other formats are named, with what makes a disk of them."""
import json
import lzma
import os

import pytest

from harness import MIB, leafctl, make_raw, run

QEMU = {"qcow2": "qcow2", "vmdk": "vmdk", "vhdx": "vhdx", "vdi": "vdi", "vpc": "vhd", "qed": "qed"}


@pytest.fixture
def content(rng):
    return rng.randbytes(MIB)


@pytest.fixture
def raw(work, content):
    return make_raw(os.path.join(work, "content"), content)


def converted(raw, path, qemu_format, *options):
    run("qemu-img", "convert", "-f", "raw", "-O", qemu_format, *options, raw, path)
    return path


def typed(sentence):
    """The command in it."""
    return sentence.split('"')[1]


def foreign(pool):
    found = json.loads(leafctl("list", "--json", pool).stdout)
    return {line.split(": ")[0]: line for line in found["foreign"]}, {disk["name"] for disk in found["disks"]}


@pytest.mark.parametrize("qemu_format", QEMU)
def test_the_command_makes_a_disk(pool, raw, content, qemu_format):
    path = converted(raw, os.path.join(pool, f"a disk.{QEMU[qemu_format]}"), qemu_format)
    lines, disks = foreign(pool)
    assert disks == set() and f"is {QEMU[qemu_format]}, which is not opened here" in lines[path]
    refused = leafctl("info", path, check=False)
    assert refused.returncode == 1 and lines[path] in refused.stderr
    assert f"warning: {lines[path]}" in leafctl("list", pool).stderr
    run("sh", "-ec", typed(lines[path]))
    with open(os.path.join(pool, "a disk.raw"), "rb") as file:
        assert file.read(MIB) == content
    assert foreign(pool)[1] == {"a disk.img"}


def test_what_is_packed_or_named_otherwise(pool, raw, content):
    packed = os.path.join(pool, "b.raw.xz")
    with open(packed, "wb") as file:
        file.write(lzma.compress(content))
    iso = make_raw(os.path.join(pool, "c.iso"), bytes(32769) + b"CD001" + bytes(MIB))
    fixed = converted(raw, os.path.join(pool, "d.vhd"), "vpc", "-o", "subformat=fixed")
    lines, disks = foreign(pool)
    assert set(lines) == {packed, iso, fixed} and not disks
    for line in lines.values():
        run("sh", "-ec", typed(line))
    assert foreign(pool)[1] == {"b.img", "c.img", "d.img"}


def test_one_that_is_named_like_a_raw_disk(pool, raw, mount):
    """Raw it is; whoever thinks otherwise is told."""
    path = converted(raw, os.path.join(pool, "cloud.img"), "qcow2")
    iso = make_raw(os.path.join(pool, "cd.img"), bytes(32769) + b"CD001" + bytes(MIB))
    lines, disks = foreign(pool)
    assert set(lines) == {path} and disks == {"cloud.img", "cd.img"} and iso not in lines
    assert "is taken for a raw disk, as its name says, and looks like qcow2" in lines[path]
    assert typed(lines[path]).endswith("cloud.raw")
    with mount() as live:
        assert os.path.getsize(live.file("cloud.img")) == os.path.getsize(path)


@pytest.mark.parametrize("qemu_format", QEMU)
def test_a_mount_says_what_to_type(pool, raw, content, mount, qemu_format):
    """Of an image that is named like a raw disk, in whatever format: in the log and the events."""
    path = converted(raw, os.path.join(pool, "named.img"), qemu_format)
    with mount() as live:
        lines = [line for line in live.messages().splitlines() if path in line]
        assert len(lines) == 1, lines
        assert f"warning: {path}: is taken for a raw disk, as its name says, and looks like {QEMU[qemu_format]}" in lines[0]
        with open(live.control("events"), encoding="utf-8") as file:
            assert lines[0].split("warning: ")[1] in file.read()
        run("sh", "-ec", typed(lines[0]))
        with open(os.path.join(pool, "named.raw"), "rb") as file:
            assert file.read(MIB) == content
