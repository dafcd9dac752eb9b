"""The clients that use a disk's file: qemu, dd, cp, fallocate, fio, mmap."""
import contextlib
import errno
import mmap
import os
import shutil
import subprocess

import pytest

from harness import (BLOCK, KIB, MIB, Aligned, Loop, assert_same, check_clean, converted, discard, expect_errno, faults,
                     file_bytes, leafctl, make_image, make_raw, opened, read_all, run, scaled, stats, wait_until,
                     write_all)

SIZE = 24 * MIB


@pytest.fixture
def base(pool, rng):
    """A base with data, holes and more data."""
    content = rng.randbytes(4 * MIB) + bytes(4 * MIB) + rng.randbytes(3 * MIB + 1000) + bytes(SIZE - 11 * MIB - 1000)
    path = os.path.join(pool, "base.raw")
    with open(path, "wb") as file:
        file.truncate(SIZE)
        file.write(content[:4 * MIB])
        file.seek(8 * MIB)
        file.write(content[8 * MIB:11 * MIB + 1000])
    return content


@pytest.fixture
def image(pool, base):
    assert len(base) == SIZE
    return make_image(os.path.join(pool, "web1.leaf"), parent=os.path.join(pool, "base.raw"))


def test_qemu_io_verifies_patterns(mount, image):
    with mount() as live:
        path = live.file("web1.img")
        commands = []
        for number, (offset, length) in enumerate([("0", "64k"), ("1000k", "5000"), ("4000000", "2M"), ("23M", "1M")]):
            commands += ["-c", f"write -P {number + 1} {offset} {length}"]
        commands += ["-c", "discard 4M 1M", "-c", "write -z 5M 4k", "-c", "flush", "-c", "aio_flush"]
        run("qemu-io", "-f", "raw", "-d", "unmap", *commands, path)
        result = run("qemu-io", "-f", "raw", "-t", "none", "-n", "-c", "read -P 1 0 64k", "-c", "read -P 2 1000k 4608",
                     "-c", "read -P 3 4000256 194048", "-c", "read -P 0 4M 1M", "-c", "read -P 0 5M 4k",
                     "-c", "read -P 4 23M 1M", path)
        assert "verification failed" not in result.stdout
        assert result.stdout.count("read ") == 6
    check_clean(image)


def test_qemu_img_sees_the_content(mount, image, pool, work, base):
    with mount() as live:
        path = live.file("web1.img")
        with opened(path) as fd:
            write_all(fd, b"changed" * 1000, 5 * MIB - 3)
            os.fsync(fd)
        copy = os.path.join(work, "copy.qcow2")
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", path, copy)
        assert "identical" in run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", path, copy).stdout
        differs = run("qemu-img", "compare", "-f", "raw", "-F", "raw", path, live.file("base.img"), check=False)
        assert differs.returncode == 1
        run("qemu-img", "convert", "-n", "-t", "none", "-f", "raw", "-O", "raw", live.file("base.img"), path)
        assert_same(file_bytes(path), base, "after qemu-img convert wrote the base into it")
    assert_same(converted(image, work), base, "leafctl convert")
    assert_same(file_bytes(os.path.join(pool, "base.raw")), base, "the base")


def test_cp_keeps_holes(mount, image, work, base):
    with mount() as live:
        copy = os.path.join(work, "copy.raw")
        run("cp", "--sparse=auto", live.file("web1.img"), copy)
        assert_same(file_bytes(copy), base, "cp")
        assert os.stat(copy).st_blocks * 512 < 9 * MIB, "cp wrote the holes"
        run("cp", "--sparse=always", live.file("web1.img"), copy)
        assert_same(file_bytes(copy), base, "cp --sparse=always")


def test_dd_and_fallocate(mount, image, work, base):
    expected = bytearray(base)
    piece = os.path.join(work, "piece")
    with open(piece, "wb") as file:
        file.write(b"0123456789abcdef" * 8192)
    with mount() as live:
        path = live.file("web1.img")
        run("dd", f"if={piece}", f"of={path}", "bs=4k", "seek=100", "conv=notrunc,fsync")
        run("dd", f"if={piece}", f"of={path}", "bs=64k", "seek=3", "conv=notrunc", "oflag=direct")
        run("dd", f"if={piece}", f"of={path}", "bs=777", "seek=1001", "conv=notrunc")
        for offset in (100 * BLOCK, 3 * 64 * KIB, 777 * 1001):
            expected[offset:offset + 131072] = b"0123456789abcdef" * 8192
        run("fallocate", "-p", "-o", "1000", "-l", "123456", path)
        expected[1000:124456] = bytes(123456)
        run("fallocate", "-z", "-n", "-o", "200001", "-l", "99", path)
        expected[200001:200100] = bytes(99)
        assert_same(file_bytes(path), expected, "while mounted")
    assert_same(converted(image, work), expected, "leafctl convert")


def data_ranges(fd, size):
    """What SEEK_DATA and SEEK_HOLE say is data."""
    ranges, offset = [], 0
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:
            break
        offset = os.lseek(fd, start, os.SEEK_HOLE)
        assert start < offset <= size
        ranges.append((start, offset))
    return ranges


def test_holes_are_told(mount, image, base):
    with mount() as live, opened(live.file("web1.img")) as fd:
        write_all(fd, b"z" * 5000, 16 * MIB)
        discard(fd, 1 * MIB, 1 * MIB)
        ranges = data_ranges(fd, SIZE)
        told = sum(end - start for start, end in ranges)
        assert ranges[0] == (0, 1 * MIB)
        assert any(start <= 16 * MIB < end for start, end in ranges)
        assert told < 9 * MIB, f"{told} bytes are called data"
        expected = bytearray(base)
        expected[16 * MIB:16 * MIB + 5000] = b"z" * 5000
        expected[1 * MIB:2 * MIB] = bytes(1 * MIB)
        end = 0
        for start, stop in [*ranges, (SIZE, SIZE)]:
            assert not any(expected[end:start]), f"{end} to {start} is called a hole"
            end = stop


def test_every_way_to_read_agrees(mount, image, base):
    with mount() as live:
        path = live.file("web1.img")
        memory = Aligned(1 * MIB)
        with opened(path) as fd, opened(path, os.O_RDWR | os.O_DIRECT) as direct:
            expected = bytearray(base)
            with mmap.mmap(fd, SIZE, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
                assert_same(mapped[:], expected, "mmap before")
                for offset in (0, 3 * MIB, 8 * MIB + 4096):
                    data = os.urandom(64 * KIB)
                    memory.write(direct, data, offset)
                    expected[offset:offset + len(data)] = data
                    write_all(fd, b"buffered", offset + 100_001)
                    expected[offset + 100_001:offset + 100_009] = b"buffered"
                assert_same(mapped[:], expected, "mmap after")
            for offset in range(0, SIZE, MIB):
                assert_same(memory.read(direct, MIB, offset), expected[offset:offset + MIB], f"O_DIRECT at {offset}")
            assert_same(read_all(fd, SIZE, 0), expected, "read")


def test_written_through_a_mapping(mount, image, work, base):
    """A shared, writable mapping, as a VM's memory-backed disk would use."""
    expected = bytearray(base)
    with mount() as live, opened(live.file("web1.img")) as fd:
        with mmap.mmap(fd, SIZE) as mapped:
            for offset in (10, 5 * MIB, SIZE - 7):
                mapped[offset:offset + 7] = b"mapping"
                expected[offset:offset + 7] = b"mapping"
            mapped.flush()
        os.fsync(fd)
        assert_same(read_all(fd, SIZE, 0), expected, "read")
    assert_same(converted(image, work), expected, "leafctl convert")


def test_loop_device_discards(mount, image, work, base):
    expected = bytearray(base)
    with mount() as live:
        with Loop(live.file("web1.img")) as loop:
            assert_same(file_bytes(loop.device), base, "the loop device")
            run("blkdiscard", "-o", str(1 * MIB), "-l", str(2 * MIB), loop.device)
            expected[1 * MIB:3 * MIB] = bytes(2 * MIB)
            run("blkdiscard", "-z", "-o", "65536", "-l", "4096", loop.device)
            expected[65536:65536 + 4096] = bytes(4096)
            run("dd", "if=/dev/zero", f"of={loop.device}", "bs=1M", "seek=9", "count=1", "conv=notrunc", "oflag=direct")
            expected[9 * MIB:10 * MIB] = bytes(MIB)
            assert_same(file_bytes(loop.device), expected, "the loop device after")
    assert_same(converted(image, work), expected, "leafctl convert")


def test_discard_gives_space_back(mount, image, pool):
    path = os.path.join(pool, "web1.leaf")
    before = os.stat(path).st_blocks * 512
    with mount() as live, opened(live.file("web1.img")) as fd:
        write_all(fd, os.urandom(8 * MIB), 12 * MIB)
        os.fsync(fd)
        full = os.stat(path).st_blocks * 512
        assert full >= before + 8 * MIB
        discard(fd, 12 * MIB, 8 * MIB)
        os.fsync(fd)
    assert os.stat(path).st_blocks * 512 <= full - 7 * MIB
    check_clean(image)


@pytest.mark.parametrize("engine,direct", [("libaio", 1), ("psync", 0)])
def test_fio_verifies(mount, image, work, engine, direct):
    assert shutil.which("fio")
    with mount() as live:
        run("fio", "--name=verify", f"--filename={live.file('web1.img')}", "--rw=randwrite", "--bsrange=4k-128k",
            f"--size={SIZE}", f"--io_size={scaled(32, 512)}m", f"--ioengine={engine}", f"--direct={direct}",
            "--iodepth=16", "--verify=crc32c", "--verify_fatal=1", "--fsync=64", "--randrepeat=0",
            "--do_verify=1", cwd=work)
    check_clean(image)


FUSE_POLL = 40


def test_io_uring_asks_nothing_before_each_request(mount, image, work):
    """It would poll a file whose file system takes that."""
    with mount("debug=fuse=2") as live:
        result = run("fio", "--name=uring", f"--filename={live.file('web1.img')}", "--rw=randwrite", "--bs=4k", "--size=1m",
                     "--ioengine=io_uring", "--direct=1", "--iodepth=8", cwd=work, check=False)
        if "Operation not permitted" in result.stderr or "Function not implemented" in result.stderr:
            pytest.skip(f"io_uring is not to be had: {result.stderr}")
        assert result.returncode == 0, result.stderr
        wait_until(lambda: stats(live)["write_requests"] >= 256, "all writes")
        assert live.messages().count(f"opcode {FUSE_POLL},") <= 1


@pytest.mark.parametrize("ending", ["leaf", "raw"])
def test_a_conversion_that_is_killed(pool, image, work, ending):
    """Its destination is whole, or not there; the same command does it then."""
    target = os.path.join(pool, f"copy.{ending}")
    shown = leafctl("list", pool).stdout
    for point in ("aio.write:crash@2", "aio.datasync:crash"):
        result = leafctl("convert", image, target, env=faults(point), check=False)
        assert result.returncode == 77, result
        assert not os.path.exists(target)
        assert leafctl("list", pool).stdout == shown
    leafctl("convert", image, target)
    assert_same(converted(target, work), converted(image, work), "the copy")
    result = leafctl("convert", image, target, check=False)
    assert result.returncode == 1 and f"{target}: cannot be created: File exists" in result.stderr, result


# ---- QEMU's image locks ----------------------------------------------------------


@contextlib.contextmanager
def qemu_has(path, *options):
    """Until it is told to end; qemu-io has an image for as long as it reads commands."""
    with subprocess.Popen(["qemu-io", "-f", "raw", *options, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:
        process.stdin.write("read 0 512\n")
        process.stdin.flush()
        assert "read 512/512" in process.stdout.readline() + process.stdout.readline()
        yield
        process.stdin.close()
        process.stdout.read()


def test_an_image_that_qemu_writes_is_not_taken(mount, pool):
    image = make_raw(os.path.join(pool, "a.raw"), bytes(MIB))
    refusal = f"{image}: is open in QEMU"
    with mount() as live:
        with qemu_has(image):
            expect_errno(errno.EBUSY, os.open, live.file("a.img"), os.O_RDWR)
            assert refusal in live.messages()
            expect_errno(errno.EBUSY, os.open, live.file("a.img"), os.O_RDONLY)
            for words in (["resize", image, "2M"], ["clone", image, os.path.join(pool, "c.leaf")],
                          ["convert", image, os.path.join(pool, "d.raw")]):
                result = leafctl(*words, check=False)
                assert result.returncode == 1 and refusal in result.stderr, result
        with qemu_has(image, "-r"), opened(live.file("a.img"), os.O_RDONLY) as fd:
            assert read_all(fd, 1, 0) == b"\0"


def test_qemu_does_not_write_an_image_in_use(mount, pool):
    base = make_raw(os.path.join(pool, "base.raw"), bytes(MIB))
    images = [base, make_image(os.path.join(pool, "c.leaf"), parent=base)]
    with mount() as live, opened(live.file("c.img")):
        for image in images:
            result = run("qemu-io", "-f", "raw", "-c", "write 0 512", image, check=False)
            assert result.returncode == 1 and 'Failed to get "write" lock' in result.stderr, result
        run("qemu-img", "info", "-f", "raw", base)
    run("qemu-io", "-f", "raw", "-c", "write 0 512", base)


# ---- What backups go by --------------------------------------------------------


@pytest.mark.parametrize("mode", ["direct", "persistent", "writeback", "ephemeral"])
def test_a_backup_sees_that_a_disk_is_written(mount, pool, work, mode):
    """By its time, by blocks where there is content, and while the kernel keeps its pages."""
    make_raw(os.path.join(pool, "a.raw"), b"")
    os.truncate(os.path.join(pool, "a.raw"), 4 * MIB)
    cache = [] if mode == "direct" else [f"cache={work}/cache", "cache_size=64M", "migrate_idle_ms=60000"]
    with mount(f"mode={mode}", *cache) as live:
        path = live.file("a.img")
        with opened(path) as fd:
            write_all(fd, b"one", MIB)
            first = os.stat(path)
            assert first.st_blocks > 0
            file_bytes(path)
            reads = stats(live)["read_requests"]
            wait_until(lambda: writes_later(fd, path, first), "the time to move")
            assert read_all(fd, 3, MIB) == b"one"
            assert stats(live)["read_requests"] == reads, "the pages went with the time"
        assert os.stat(path).st_mtime_ns >= first.st_mtime_ns
        run("tar", "-C", live.path, "-cSf", os.path.join(work, "a.tar"), "a.img")
        run("tar", "-C", work, "-xf", os.path.join(work, "a.tar"))
        assert_same(file_bytes(os.path.join(work, "a.img")), file_bytes(path), "tar -S")


def writes_later(fd, path, before):
    """A write moves the time."""
    write_all(fd, b"two", 2 * MIB)
    return os.stat(path).st_mtime_ns > before.st_mtime_ns


def test_pages_of_an_open_disk_go_when_its_image_is_changed(mount, pool):
    image = make_raw(os.path.join(pool, "a.raw"), b"a" * MIB)
    with mount() as live, opened(live.file("a.img"), os.O_RDONLY) as fd:
        assert read_all(fd, MIB, 0) == b"a" * MIB
        with opened(image) as changed:
            write_all(changed, b"b" * MIB, 0)
        wait_until(lambda: os.stat(live.file("a.img")) and os.pread(fd, 1, 0) == b"b", "the pages to go")
