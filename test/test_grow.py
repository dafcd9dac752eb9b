"""A disk that grows while it is in use: whoever has it open sees it, the loop device and QEMU too."""
import errno
import json
import os
import subprocess
import threading

import pytest

from harness import (BLOCK, MIB, Aligned, Loop, assert_same, check_clean, converted, expect_errno, leafctl, make_image,
                     make_raw, opened, read_all, read_file, run, size_of, write_all)

SIZE = 16 * MIB
LARGER = 40 * MIB + 512
MODES = ["direct", "persistent", "writeback", "ephemeral"]
GROW = {
    "truncate": os.truncate,
    "resize": lambda path, size: leafctl("resize", path, str(size)),
}


@pytest.fixture(params=["web1.leaf", "web1.raw"])
def image(request, pool):
    """A disk of either format, empty."""
    path = os.path.join(pool, request.param)
    return make_raw(path, bytes(SIZE)) if path.endswith(".raw") else make_image(path, SIZE)


@pytest.fixture
def start(mount, work):
    return lambda mode: mount(f"mode={mode}", *([] if mode == "direct" else [f"cache={work}/cache", "cache_size=128M"]))


def end_of(fd):
    return os.lseek(fd, 0, os.SEEK_END)


@pytest.mark.parametrize("how", GROW)
@pytest.mark.parametrize("mode", MODES)
def test_who_has_it_open_sees_it(start, image, work, rng, mode, how):
    """At once: its size, zeros, and room."""
    data = rng.randbytes(MIB)
    memory = Aligned(MIB)
    with start(mode) as live:
        path = live.file("web1.img")
        with opened(path) as fd, opened(path, os.O_RDWR | os.O_DIRECT) as direct, opened(path, os.O_RDONLY) as reader:
            write_all(fd, data, SIZE - MIB)
            expect_errno(errno.ENOSPC, os.pwrite, fd, b"x", SIZE)
            GROW[how](path, LARGER)
            for each in (fd, direct, reader):
                assert os.fstat(each).st_size == end_of(each) == LARGER
            assert os.stat(path).st_size == LARGER
            assert_same(read_all(reader, LARGER, SIZE - MIB), data + bytes(LARGER - SIZE), "what is read behind the end")
            memory.write(direct, data, LARGER - 512 - MIB)
            write_all(fd, data[:512], LARGER - 512)
            expect_errno(errno.ENOSPC, os.pwrite, fd, b"x", LARGER)
            os.fsync(fd)
            assert_same(read_all(reader, LARGER, LARGER - 512 - MIB), data + data[:512], "what is written there")
    if mode != "ephemeral":
        expected = bytes(SIZE - MIB) + data + bytes(LARGER - 512 - MIB - SIZE) + data + data[:512]
        assert_same(converted(image, work), expected, "the image")


@pytest.mark.parametrize("how", GROW)
@pytest.mark.parametrize("mode", MODES)
def test_a_file_system_on_a_loop_device(start, image, work, rng, mode, how):
    content = rng.randbytes(20 * MIB)
    with start(mode) as live:
        path = live.file("web1.img")
        run("mke2fs", "-q", "-t", "ext4", path)
        with Loop(path) as loop:
            root = loop.mount(os.path.join(work, "root"))
            make_raw(os.path.join(root, "before"), content[:MIB])
            for size in (LARGER // 2, LARGER):
                GROW[how](path, size)
                run("losetup", "-c", loop.device)
                assert size_of(loop.device) == size // 512 * 512
            loop.unmount()
            run("e2fsck", "-fp", loop.device)
            run("resize2fs", loop.device)   # of a mounted one is for those who may exceed limits alone
            loop.mount(root)
            make_raw(os.path.join(root, "after"), content)
        run("e2fsck", "-fn", path)
        with Loop(path) as loop:
            root = loop.mount(os.path.join(work, "root"), "-o", "ro")
            assert_same(read_file(os.path.join(root, "before"), MIB), content[:MIB], "before")
            assert_same(read_file(os.path.join(root, "after"), 20 * MIB), content, "after")
    if mode != "ephemeral" and image.endswith(".leaf"):
        check_clean(image)


class StorageDaemon:
    """QEMU's block layer with the disk open, as for a guest; commands by QMP. What is read and written goes through an
    export that is there for that only: one over NBD does not let a disk grow."""

    def __init__(self, path, work):
        self.socket = os.path.join(work, "nbd")
        self.events = []
        self.child = subprocess.Popen(
            ["qemu-storage-daemon", "--chardev", "stdio,id=qmp", "--monitor", "chardev=qmp",
             "--blockdev", f"driver=file,node-name=file,filename={path},cache.direct=on,aio=native",
             "--blockdev", "driver=raw,node-name=disk,file=file",
             "--nbd-server", f"addr.type=unix,addr.path={self.socket}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert "QMP" in json.loads(self.child.stdout.readline())
        self.command("qmp_capabilities")

    def next_line(self):
        """An answer; None: an event, which has been noted."""
        line = json.loads(self.child.stdout.readline())
        assert "error" not in line, line
        if "event" in line:
            self.events.append(line["event"])
        return line if "return" in line else None

    def command(self, execute, **arguments):
        self.child.stdin.write(json.dumps({"execute": execute, "arguments": arguments}) + "\n")
        self.child.stdin.flush()
        while not (line := self.next_line()):
            pass
        return line["return"]

    def size(self):
        return next(node["image"]["virtual-size"] for node in self.command("query-named-block-nodes")
                    if node["node-name"] == "disk")

    def io(self, *commands):
        words = [word for command in commands for word in ("-c", command)]
        self.command("block-export-add", type="nbd", id="export", name="disk", writable=True, **{"node-name": "disk"})
        said = run("qemu-io", "-f", "raw", *words, f"nbd+unix:///disk?socket={self.socket}").stdout
        self.command("block-export-del", id="export", mode="hard")
        while "BLOCK_EXPORT_DELETED" not in self.events:
            self.next_line()
        self.events.clear()
        return said

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.communicate()


@pytest.mark.parametrize("by", ["QEMU", *GROW])
@pytest.mark.parametrize("mode", ["direct", "writeback"])
def test_block_resize(start, image, work, mode, by):
    """By QEMU alone, which has the file made larger; or first here, and then told to QEMU."""
    size = LARGER // BLOCK * BLOCK
    with start(mode) as live:
        path = live.file("web1.img")
        with StorageDaemon(path, work) as daemon:
            daemon.io(f"write -P 1 0 {MIB}", f"write -P 2 {SIZE - MIB} {MIB}")
            if by in GROW:
                GROW[by](path, size)
            daemon.command("block_resize", **{"node-name": "disk", "size": size})
            assert os.stat(path).st_size == daemon.size() == size
            said = daemon.io(f"read -P 0 {SIZE} {size - SIZE}", f"write -P 3 {size - MIB} {MIB}", "flush",
                             f"read -P 3 {size - MIB} {MIB}", f"read -P 2 {SIZE - MIB} {MIB}")
            assert said.count("bytes at offset") == 4 and "failed" not in said, said
    expected = b"\1" * MIB + bytes(SIZE - 2 * MIB) + b"\2" * MIB + bytes(size - SIZE - MIB) + b"\3" * MIB
    assert_same(converted(image, work), expected, "the image")


@pytest.mark.parametrize("mode", MODES)
def test_growing_while_it_is_written(start, image, rng, mode):
    """No request fails, and none is lost."""
    data, stop, failures = rng.randbytes(MIB), threading.Event(), []

    def write(fd):
        try:
            while not stop.is_set():
                write_all(fd, data, SIZE - MIB)
                assert read_all(fd, MIB, SIZE - MIB) == data
        except (AssertionError, OSError) as error:
            failures.append(error)

    with start(mode) as live, opened(live.file("web1.img")) as fd:
        writer = threading.Thread(target=write, args=[fd])
        writer.start()
        for number in range(1, 33):
            size = SIZE + number * (MIB // 2)
            os.truncate(live.file("web1.img"), size)
            assert os.fstat(fd).st_size == size
            write_all(fd, data[:512], size - 512)
        stop.set()
        writer.join()
        assert not failures
        assert_same(read_all(fd, size, SIZE - MIB)[:MIB], data, "what was written meanwhile")
        for number in range(1, 33):
            assert read_all(fd, 512, SIZE + number * (MIB // 2) - 512) == data[:512]
