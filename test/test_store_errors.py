"""What an error of a store means: nothing is given away before there is another, nothing waits for ever."""
import fcntl
import os
import struct

import pytest

from harness import (BLOCK, MIB, Aligned, Gate, Loop, assert_same, converted, faults, leafctl, make_raw, opened,
                     process_ended, run, wait_until)
from test_writeback_faults import in_background, left_open, lines_with, state_of

pytestmark = pytest.mark.timeout(60)

BLOCKS = 8 * MIB // BLOCK
F_OFD_SETLK = 37


@pytest.fixture
def cache(work):
    return os.path.join(work, "leaf.cache")


@pytest.fixture
def gate(work):
    return Gate(work)


# ---- A leaf that failed ----------------------------------------------------------


def take_lock(fd):
    """As another program would, for writing."""
    try:
        fcntl.fcntl(fd, F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
    except OSError:
        return False
    return True


@pytest.fixture
def device(work):
    """A leaf on a device, as a disk that is spelled out: its options and the loop."""
    path = os.path.join(work, "device.raw")
    make_raw(path, bytes(16 * MIB))
    conf = os.path.join(work, "leafdisk.conf")
    with Loop(path) as loop:
        leafctl("create", "--force", loop.device, BLOCKS * BLOCK)
        with open(conf, "w", encoding="utf-8") as file:
            file.write(f"[pool]\nlayers = /dev\n[disk web1.img]\nlayers = {loop.device}\n")
        yield f"conf={conf}", loop


def test_a_failed_leaf_stays_until_there_is_another(mount, work, cache, gate, device):
    """Its flush failed, and it cannot be opened for writing for a while: the
    disk goes on from the cache, others can open it, and nobody gets its lock."""
    conf, loop = device
    points = (f"{point}/{os.path.basename(loop.device)}:EIO" for point in ("aio.datasync", "image.sync"))
    live = mount(conf, f"cache={cache}", "mode=writeback", "cache_size=16M", "migrate_idle_ms=1",
                 env=faults(*points, gate=gate.path))
    memory, taken = Aligned(BLOCK), []

    def try_lock(stop):
        with opened(loop.device) as other:
            while not stop.is_set() and not taken:
                if take_lock(other):
                    taken.append(True)

    with left_open(live.file("web1.img")) as fd, opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as direct:
        memory.write(direct, b"1" * BLOCK, 0)
        os.fsync(fd)
        leafctl("drain", live.path)
        with in_background(try_lock):
            gate.open()
            memory.write(direct, b"2" * BLOCK, 0)
            os.fsync(fd)
            wait_until(lambda: state_of(live)["state"] == "degraded", "the disk to be degraded")
            run("blockdev", "--setro", loop.device)
            gate.close()
            try:
                # It is refused only after several tries.
                refused = leafctl("drain", live.path, check=False)
                assert refused.returncode == 1 and loop.device in refused.stderr, refused.stderr
                assert memory.read(direct, BLOCK, 0) == b"2" * BLOCK
                memory.write(direct, b"3" * BLOCK, BLOCK)
                with opened(live.file("web1.img")) as second:
                    os.fsync(second)
                assert not process_ended(live.pid, 0)
                assert state_of(live)["state"] == "degraded" and "reason" in state_of(live)
            finally:
                run("blockdev", "--setrw", loop.device)
            leafctl("drain", live.path)
        assert not taken, "another program got the lock"
        assert state_of(live)["state"] == "active" and lines_with(live, "takes its changes again")
    live.stop()
    found = converted(loop.device, work)
    assert_same(found, b"2" * BLOCK + b"3" * BLOCK + bytes((BLOCKS - 2) * BLOCK), "the image alone")
