"""A pool on a file system that is full: errors that say so, nothing lost."""
import errno
import os
import re

import pytest

from harness import (MIB, NO_JOURNAL, check_clean, faults, file_bytes, file_system, make_image, opened, read_all,
                     state_of, wait_until, write_all)


@pytest.fixture
def small(work):
    """A file system of 24 MiB with a pool, and 4 MiB that can be freed."""
    with file_system(work, "small", "24M", *NO_JOURNAL) as place:
        with open(os.path.join(place, "ballast"), "wb") as file:
            file.write(os.urandom(4 * MIB))
        pool = os.path.join(place, "pool")
        os.mkdir(pool)
        yield pool


def write_until_full(fd, rng, durable):
    """MiB by MiB, each flushed; DURABLE keeps what a flush covers."""
    for number in range(64):
        data = rng.randbytes(MIB)
        try:
            write_all(fd, data, number * MIB)
            os.fsync(fd)
        except OSError as error:
            return error.errno, number
        durable.append(data)
    return 0, 64


def assert_durable(fd, durable):
    for number, data in enumerate(durable):
        assert read_all(fd, MIB, number * MIB) == data


def test_full_file_system(mount, small, rng):
    image = make_image(os.path.join(small, "web1.leaf"), 64 * MIB)
    make_image(os.path.join(small, "web2.leaf"), 64 * MIB)
    durable = []
    with mount(pool=small) as live:
        with opened(live.file("web1.img")) as fd:
            assert write_until_full(fd, rng, durable)[0] == errno.ENOSPC
            assert len(durable) > 8
            assert_durable(fd, durable)
    check_clean(image)
    with mount(pool=small) as live:
        # Full as it is, every disk can be read, one that was never written too.
        with opened(live.file("web2.img"), os.O_RDONLY) as fd:
            assert read_all(fd, MIB, 0) == bytes(MIB)
        with opened(live.file("web1.img")) as fd:
            assert_durable(fd, durable)
            # Room that comes back is used without a remount.
            os.unlink(os.path.join(small, "..", "ballast"))
            number = len(durable)
            data = rng.randbytes(MIB)
            write_all(fd, data, number * MIB)
            os.fsync(fd)
            durable.append(data)
            assert_durable(fd, durable)
    check_clean(image)


def test_create_without_room(mount, small, rng):
    """A disk that finds no room is not left behind half made."""
    image = make_image(os.path.join(small, "web1.leaf"), 64 * MIB)
    with mount("manage", pool=small) as live:
        with opened(live.file("web1.img")) as fd:
            write_until_full(fd, rng, [])
        with open(os.path.join(small, "filler"), "wb", buffering=0) as filler:
            with pytest.raises(OSError):
                while True:
                    filler.write(bytes(1024))
        with pytest.raises(OSError) as failed:
            os.close(os.open(live.file("new.img"), os.O_CREAT | os.O_RDWR, 0o600))
        assert failed.value.errno == errno.ENOSPC
        assert "new.img" not in live.names()
        assert not os.path.exists(os.path.join(small, "new.leaf"))
    check_clean(image)


# ---- What is said of it ----------------------------------------------------------


def fill_up(pool, percent):
    """So much of the file system is used then, and the next time something less."""
    fs = os.statvfs(pool)
    usable = fs.f_blocks - fs.f_bfree + fs.f_bavail
    more = usable * percent // 100 - (fs.f_blocks - fs.f_bfree)
    path = os.path.join(pool, "..", "filler")
    with open(path, "wb") as file:
        file.write(os.urandom(more * fs.f_frsize))
        os.fsync(file.fileno())
    return path


def metric(live, name):
    found = re.search(rf'^leafdisk_{name}{{mount="{re.escape(live.path)}"}} (\d+)$',
                      file_bytes(live.control("metrics")).decode(), re.M)
    return int(found.group(1)) if found else None


def test_a_pool_that_is_nearly_full_is_said(mount, small):
    """Once, and when it has room again; in the log, the events and the metrics."""
    make_image(os.path.join(small, "web1.leaf"), 64 * MIB)
    filler = fill_up(small, 95)
    with mount(pool=small) as live:
        said = re.compile(rf"warning(?:: | - )the pool {re.escape(small)} is (\d+) % full, ([\d.]+) [KM]iB are free; leafdisk\(7\)")
        wait_until(lambda: said.search(live.messages()), "the warning")
        assert 94 <= int(said.search(live.messages()).group(1)) <= 97
        assert said.search(file_bytes(live.control("events")).decode())
        fs = os.statvfs(small)
        assert metric(live, "pool_free_bytes") == fs.f_bavail * fs.f_frsize
        assert metric(live, "pool_size_bytes") == (fs.f_blocks - fs.f_bfree + fs.f_bavail) * fs.f_frsize
        os.unlink(filler)
        wait_until(lambda: metric(live, "pool_free_bytes") > fs.f_bavail * fs.f_frsize, "the next look", interval=0.1)
        wait_until(lambda: f"the pool {small} has room again" in live.messages(), "the other message")
        assert len(said.findall(live.messages())) == 1
    with mount(pool=small) as live:
        wait_until(lambda: metric(live, "pool_free_bytes"), "a look")
        assert " % full" not in live.messages()


def test_a_disk_without_room_says_so(mount, small, rng):
    """In its state, until a write finds room; the pool is looked at."""
    make_image(os.path.join(small, "web1.leaf"), 64 * MIB)
    make_image(os.path.join(small, "web2.leaf"), 64 * MIB)
    with mount(pool=small) as live, opened(live.file("web1.img")) as fd, opened(live.file("web2.img")):
        assert state_of(live)["state"] == "active"
        assert write_until_full(fd, rng, [])[0] == errno.ENOSPC
        state = state_of(live)
        assert state["state"] == "failing" and "since" in state
        assert f"No space left on device; make room in {small}" in state["reason"]
        assert state_of(live, "web2.img")["state"] == "active"
        wait_until(lambda: f"the pool {small} is " in live.messages(), "the warning")
        os.unlink(os.path.join(small, "..", "ballast"))
        write_all(fd, rng.randbytes(MIB), 63 * MIB)
        assert state_of(live)["state"] == "active"


def test_a_pool_whose_room_nobody_can_tell(mount, pool):
    make_image(os.path.join(pool, "web1.leaf"), MIB)
    with mount("debug=disk", env=faults("pool.statvfs:EIO")) as live:
        wait_until(lambda: "how full it is cannot be told" in live.messages(), "a look")
        assert metric(live, "pool_free_bytes") is None
        assert " % full" not in live.messages()
