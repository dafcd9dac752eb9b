"""Layers on block devices: a raw base, a leaf that fills its device, and the
command that makes the device larger."""
import errno
import json
import os
import stat

import pytest

from harness import (BLOCK, CRASH_STATUS, MIB, Loop, MountError, check_clean, expect_errno, faults, file_bytes,
                     leafctl, make_raw, opened, read_all, run, wait_until, write_all, write_conf)

DEVICE_BYTES = 12 * MIB


@pytest.fixture
def device(work):
    """A loop device on a file of 12 MiB."""
    path = os.path.join(work, "device.bin")
    run("truncate", "-s", str(DEVICE_BYTES), path)
    loop = Loop(path)
    yield loop
    loop.detach()


def conf_of(work, layers, grow_command=None):
    grow = f"grow_command = {grow_command}\n" if grow_command else ""
    return "conf=" + write_conf(work, f"[pool]\nlayers = /dev:{work}\n{grow}[disk big.img]\nlayers = {layers}\n")


def grow_script(work, loop, bytes_each):
    """Makes the file under the device larger, then the device."""
    path = os.path.join(work, "grow.sh")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\necho "$@" >> {work}/grown\n'
                   f"truncate -s +{bytes_each} {loop.path} && exec losetup -c {loop.device}\n")
    os.chmod(path, 0o755)
    return path


def fill(fd, count, rng):
    """Writes COUNT MiB; the contents, or where ENOSPC came."""
    written = []
    for number in range(count):
        data = rng.randbytes(MIB)
        try:
            write_all(fd, data, number * MIB)
        except OSError as error:
            assert error.errno == errno.ENOSPC
            return written
        written.append(data)
    return written


def test_full_device(mount, work, device, rng):
    """ENOSPC at the end of the device; what was written stays."""
    leafctl("create", "--force", device.device, "100M")
    with mount(conf_of(work, device.device)) as live:
        with opened(live.file("big.img"), os.O_RDWR | os.O_SYNC) as fd:
            written = fill(fd, 20, rng)
            assert 5 <= len(written) < 12
            for number, data in enumerate(written):
                assert read_all(fd, MIB, number * MIB) == data
            os.fsync(fd)
    check_clean(device.device)
    with mount(conf_of(work, device.device)) as live:
        with opened(live.file("big.img"), os.O_RDONLY) as fd:
            assert read_all(fd, len(written) * MIB, 0) == b"".join(written)


def test_sparse_device(mount, work, rng):
    """One of 2 TiB that has little in it, after a crash."""
    path = os.path.join(work, "sparse.bin")
    run("truncate", "-s", "2T", path)
    with Loop(path) as device:
        leafctl("create", "--force", device.device, "4T")
        live = mount(conf_of(work, device.device))
        fd = os.open(live.file("big.img"), os.O_RDWR | os.O_SYNC)
        written = rng.randbytes(3 * MIB)
        write_all(fd, written, 1 << 41)
        live.kill9()
        expect_errno(errno.ENOTCONN, os.close, fd)
        check_clean(device.device)
        with mount(conf_of(work, device.device)) as live, opened(live.file("big.img")) as fd:
            assert read_all(fd, 3 * MIB, 1 << 41) == written


def test_grow_command(mount, work, device, rng):
    """The device grows when it is full, off the data path, as often as needed."""
    leafctl("create", "--force", device.device, "100M")
    script = grow_script(work, device, 4 * MIB)
    with mount(conf_of(work, device.device, f"{script} 'one word'")) as live:
        with opened(live.file("big.img"), os.O_RDWR | os.O_SYNC) as fd:
            written = fill(fd, 30, rng)
            assert len(written) == 30
            assert read_all(fd, 30 * MIB, 0) == b"".join(written)
    check_clean(device.device)
    calls = file_bytes(os.path.join(work, "grown")).decode().splitlines()
    assert len(calls) >= 5 and set(calls) == {f"one word {device.device}"}


def test_grow_command_fails(mount, work, device, rng):
    """A command that does not help ends in ENOSPC, said once."""
    leafctl("create", "--force", device.device, "100M")
    with mount(conf_of(work, device.device, "/bin/false")) as live:
        with opened(live.file("big.img"), os.O_RDWR | os.O_SYNC) as fd:
            assert 5 <= len(fill(fd, 20, rng)) < 12
        wait_until(lambda: "grow_command failed" in live.messages(), "the failure to be logged")


@pytest.mark.parametrize("older", [True, False])
@pytest.mark.parametrize("point", ["image.write", "image.sync"])
def test_create_over_a_leaf_crashes(device, older, point):
    """Whatever it dies at, the device has the old image or the new one, whole,
    even where the old one's header has been changed more often."""
    sizes = set()
    for number in range(1, 100):
        leafctl("create", "--force", device.device, "100M")
        if older:
            leafctl("resize", device.device, "101M")
        result = leafctl("create", "--force", device.device, "200M", check=False,
                         env=faults(f"{point}:crash@{number}"))
        check_clean(device.device)
        size = json.loads(leafctl("info", "--json", device.device).stdout)["layers"][0]["size_bytes"]
        assert size in ((101 if older else 100) * MIB, 200 * MIB)
        sizes.add(size)
        if result.returncode == 0:
            break
        assert result.returncode == CRASH_STATUS, result.stderr
    assert size == 200 * MIB and number > 2 and len(sizes) == 2


def test_create_names_what_is_there(device, work, pool):
    run("mke2fs", "-q", "-t", "ext4", "-F", device.device)
    refused = leafctl("create", device.device, "8M", check=False)
    assert refused.returncode == 1 and "has a file system (ext4); it is overwritten only with --force" in refused.stderr
    refused = leafctl("create", "--force", "-O", "raw", device.device, "1G", check=False)
    assert refused.returncode == 1 and "too few" in refused.stderr
    run("e2fsck", "-fn", device.device)
    leafctl("create", "--force", device.device, "8M")
    refused = leafctl("create", device.device, "8M", check=False)
    assert refused.returncode == 1 and "is a leaf image; it is overwritten only with --force" in refused.stderr
    leafctl("clone", "--layers", "/dev", device.device, os.path.join(pool, "web1.leaf"))
    refused = leafctl("create", "--force", device.device, "8M", check=False)
    assert refused.returncode == 1 and "other images stand on it" in refused.stderr


def test_raw_device_as_base(mount, pool, work, device, rng):
    """A raw device at an offset below a leaf of the pool; it is not written."""
    content = rng.randbytes(DEVICE_BYTES)
    with open(device.path, "r+b") as file:
        file.write(content)
    leafctl("create", os.path.join(pool, "w.leaf"), str(DEVICE_BYTES - MIB))
    assert stat.S_ISBLK(os.stat(device.device).st_mode)
    with mount(conf_of(work, f"raw:{device.device}@1M; w.leaf")) as live:
        assert live.names() == ["big.img"]
        with opened(live.file("big.img")) as fd:
            assert read_all(fd, DEVICE_BYTES - MIB, 0) == content[MIB:]
            write_all(fd, b"x" * BLOCK, 3 * BLOCK)
            assert read_all(fd, 5 * BLOCK, 2 * BLOCK)[BLOCK:2 * BLOCK] == b"x" * BLOCK
    assert file_bytes(device.path) == content


def test_device_needs_a_format(mount, work, device):
    """A device whose bytes could be anything is not guessed to be raw."""
    with mount(conf_of(work, device.device)) as live:
        assert live.names() == []
        assert f"raw:{device.device}" in live.messages()


def test_link_out_of_the_pool(mount, pool, work):
    """A link in the pool counts when what it names is allowed."""
    outside = os.path.join(work, "outside")
    os.mkdir(outside)
    run("truncate", "-s", "1M", os.path.join(outside, "far.raw"))
    os.symlink(os.path.join(outside, "far.raw"), os.path.join(pool, "near.raw"))
    with mount() as live:
        assert live.names() == []
        assert "near.raw: leads to" in live.messages()
    with mount(f"layers={outside}") as live:
        assert live.names() == ["near.img"]


def other_node(work, device):
    """The same device under another name, and behind another inode: a lock does not reach it."""
    node = os.path.join(work, "node")
    os.mknod(node, 0o600 | stat.S_IFBLK, os.stat(device).st_rdev)
    return node


def test_one_device_is_no_cache_of_two_mounts(mount, work, pool, device):
    make_raw(os.path.join(pool, "web1.raw"), bytes(MIB))
    node = other_node(work, device.device)
    with mount(f"cache={device.device}", "mode=writeback"):
        with pytest.raises(MountError, match="is in use by another program"):
            mount(f"cache={node}", "mode=writeback")
    with mount(f"cache={node}", "mode=writeback") as live, opened(live.file("web1.img")) as fd:
        write_all(fd, b"x" * BLOCK, 0)


def test_a_mounted_file_system_is_no_cache(mount, work, pool, device):
    make_raw(os.path.join(pool, "web1.raw"), bytes(MIB))
    where = os.path.join(work, "mounted")
    os.mkdir(where)
    run("mke2fs", "-q", "-t", "ext4", "-F", device.device)
    run("mount", device.device, where)
    try:
        with pytest.raises(MountError, match=f"{device.device}: has a file system that is mounted on {where}"):
            mount(f"cache={device.device}", "mode=persistent")
        for command in (("create", "--force", device.device, "8M"), ("create", "-O", "raw", "--force", device.device, "8M"),
                        ("cache", "create", "--force", "--pool", pool, device.device)):
            refused = leafctl(*command, check=False)
            assert refused.returncode == 1 and f"is mounted on {where}" in refused.stderr, refused
        run("e2fsck", "-fn", device.device)
    finally:
        run("umount", where)


def test_one_device_is_no_leaf_of_two_mounts(mount, work, device):
    """Nor of a tool that writes; a mount that was killed holds nothing."""
    leafctl("create", "--force", device.device, "8M")
    node = other_node(work, device.device)
    live = mount(conf_of(work, device.device))
    fd = os.open(live.file("big.img"), os.O_RDWR)
    write_all(fd, b"a" * BLOCK, 0)
    with mount(conf_of(work, node)) as second:
        expect_errno(errno.EBUSY, os.open, second.file("big.img"), os.O_RDWR)
    refused = leafctl("check", "--repair", node, check=False)
    assert refused.returncode == 1 and "in use by another program" in refused.stderr, refused
    os.fsync(fd)
    live.kill9()
    with pytest.raises(OSError, match="not connected"):
        os.close(fd)
    with mount(conf_of(work, node)) as live:
        assert file_bytes(live.file("big.img"))[:BLOCK] == b"a" * BLOCK
