"""Bringing the pages of an image into the kernel's page cache, and out of it."""
import os

from programs import Broken, run

MIB = 1 << 20
COLD, WARM = 0.01, 0.99
TRIES = 3


def evict(path):
    """Dirty pages cannot be dropped, so they are written first."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def warm(path):
    with open(path, "rb", buffering=0) as file:
        while file.read(MIB):
            pass


def share_cached(path):
    """How much of the file is in the page cache, from 0 to 1."""
    cached = int(run("fincore", "--bytes", "--noheadings", "--output", "RES", path))
    return cached / max(os.path.getsize(path), 1)


def make_cold(path):
    evict(path)
    if share_cached(path) > COLD:
        raise Broken(f"{path}: its pages stay in the page cache")


def make_warm(path):
    """Somebody else on the machine may drop what was just read: tried again."""
    for _ in range(TRIES):
        if share_cached(path) >= WARM:
            return
        warm(path)
    if share_cached(path) < WARM:
        raise Broken(f"{path}: the page cache does not keep it; is there memory for it?")
