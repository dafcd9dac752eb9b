"""A pool on a file system that is full: errors that say so, nothing lost."""
import errno
import os

import pytest

from harness import MIB, Loop, check_clean, make_image, opened, read_all, run, write_all


@pytest.fixture
def small(work):
    """A file system of 24 MiB with a pool, and 4 MiB that can be freed."""
    path = os.path.join(work, "small.ext4")
    run("truncate", "-s", "24M", path)
    run("mke2fs", "-q", "-m", "0", "-t", "ext4", "-O", "^has_journal", path)
    loop = Loop(path)
    pool = os.path.join(loop.mount(os.path.join(work, "small")), "pool")
    os.mkdir(pool)
    with open(os.path.join(work, "small", "ballast"), "wb") as file:
        file.write(os.urandom(4 * MIB))
    yield pool
    loop.detach()


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
