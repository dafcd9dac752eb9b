"""New disks that other programs make in a mount: they grow as they are written, until their first close."""
import contextlib
import errno
import os
import tarfile

import pytest

from harness import (CRASH_STATUS, MIB, assert_same, check_clean, control_values, expect_errno, faults, file_bytes,
                     leafctl, numbers, opened, read_file, run, write_all)
from test_full_storage import small  # noqa: F401 pylint: disable=unused-import

SIZE = 5 * MIB + 12345  # the last block and the last write are short


@pytest.fixture
def source(work, rng):
    """A file with a hole in it."""
    path = os.path.join(work, "source")
    with open(path, "wb") as file:
        file.write(rng.randbytes(MIB))
        file.seek(3 * MIB)
        file.write(rng.randbytes(SIZE - 3 * MIB))
    return path


def tar(source, target):
    name = os.path.basename(target)
    archive = source + ".tar"
    with tarfile.open(archive, "w") as file:
        file.add(source, name)
    run("tar", "-C", os.path.dirname(target), "-xSf", archive)


PROGRAMS = {
    "cp": lambda source, target: run("cp", "--sparse=never", source, target),
    "cp-a": lambda source, target: run("cp", "-a", "--sparse=always", source, target),
    "dd": lambda source, target: run("dd", f"if={source}", f"of={target}", "bs=77k"),
    "dd-direct": lambda source, target: run("dd", f"if={source}", f"of={target}", "bs=64k", "oflag=direct"),
    "tar": tar,
    "rsync": lambda source, target: run("rsync", "-aS", "--inplace", source, target),
    "qemu-img": lambda source, target: run("qemu-img", "convert", "-f", "raw", "-O", "raw", source, target),
}


@pytest.mark.parametrize("point", ["image.write", "image.sync", "place.rename"])
def test_a_new_disk_is_whole_or_not_there(mount, pool, gate, point):
    """Wherever the daemon dies while it makes one."""
    made = False
    for number in numbers(10):
        live = mount("manage", env=faults(f"{point}:crash@{number}", gate=gate.path))
        gate.open()
        with contextlib.suppress(OSError):
            os.close(os.open(live.file("new.img"), os.O_RDWR | os.O_CREAT))
            made = True
        gate.close()
        live.kill9()
        assert number > 1 or live.status == CRASH_STATUS
        leafctl("check", pool)
        with mount() as live:
            assert live.names() == (["new.img"] if os.path.exists(os.path.join(pool, "new.leaf")) else [])
        if made:
            return
    pytest.fail("it was never made")


@pytest.mark.parametrize("mode", ["direct", "persistent", "writeback", "ephemeral"])
def test_programs_make_disks(mount, pool, work, source, mode):
    content = file_bytes(source)
    cache = [] if mode == "direct" else [f"cache={work}/cache", "cache_size=64M"]
    with mount("manage", f"mode={mode}", *cache) as live:
        for name, make in PROGRAMS.items():
            path = live.file(f"{name}.img")
            make(source, path)
            length = -(-SIZE // 512) * 512 if name == "qemu-img" else SIZE
            assert os.stat(path).st_size == length, name
            assert_same(read_file(path, length), content + bytes(length - SIZE), name)
        with opened(live.file("cp.img")) as fd:
            expect_errno(errno.ENOSPC, os.pwrite, fd, b"x", SIZE)
    if mode == "ephemeral":
        return
    for name in PROGRAMS:
        image = os.path.join(pool, f"{name}.leaf")
        check_clean(image)
        assert SIZE <= leaf_size(image) < SIZE + 512, name


def leaf_size(image):
    return next(int(line.split("(")[1].split()[0]) for line in leafctl("info", image).stdout.splitlines()
                if line.lstrip().startswith("size:"))


def test_rsync_by_a_hidden_name(mount, source):
    """It is refused, a disk that was there stays as it was, and the log says what to type; that is typed."""
    with mount("manage") as live:
        path = live.file("new.img")
        for there in (False, True):
            result = run("rsync", "-a", "--ignore-times", source, path, check=False)
            assert result.returncode and "Operation not permitted" in result.stderr, result
            assert ".new.img." in live.messages() and "rsync needs --inplace" in live.messages()
            assert live.names() == (["new.img"] if there else [])
            run("rsync", "-a", "--inplace", source, path)
            assert_same(read_file(path, SIZE), file_bytes(source), "new.img")


def test_a_disk_that_two_make(mount, pool):
    """Neither cuts off what the other wrote."""
    with mount("manage") as live:
        path = live.file("new.img")
        with opened(path, os.O_RDWR | os.O_CREAT) as first, opened(path) as second:
            write_all(first, b"a" * MIB, 0)
            write_all(second, b"b" * MIB, 3 * MIB)
            assert control_values(live, "disks", "new.img", "info")["size_bytes"] == str(4 * MIB)
            write_all(first, b"c" * 7, 4 * MIB)
        assert_same(read_file(path, 5 * MIB), b"a" * MIB + bytes(2 * MIB) + b"b" * MIB + b"c" * 7, "new.img")
    check_clean(os.path.join(pool, "new.leaf"))


def test_a_store_without_room_for_a_new_disk(mount, small):  # noqa: F811
    with mount("manage", pool=small) as live:
        result = run("dd", "if=/dev/urandom", f"of={live.file('new.img')}", "bs=1M", "count=64", check=False)
        assert result.returncode == 1 and "No space left on device" in result.stderr, result
        assert os.stat(live.file("new.img")).st_size >= MIB
        os.unlink(live.file("new.img"))
