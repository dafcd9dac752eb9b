#!/usr/bin/env python3
"""Does everything that programs do to a file system, at random, until it is told to stop.

An error that says that the store failed ends it with 1; SIGTERM, with 0.

usage: test/fs_load.py DIRECTORY SEED MILLISECONDS
"""
import ctypes
import errno
import mmap
import os
import random
import signal
import sys
import time

DIRECTORIES, FILES = 5, 30
LENGTH_MAX = 192 << 10
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, COLLAPSE = 1, 2, 16, 8
# What comes of a name that is another thing than was thought, or of a file system that is full.
EXPECTED = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR, errno.ENOSPC, errno.EINVAL,
            errno.ELOOP, errno.EMLINK, errno.ENODATA, errno.EOPNOTSUPP, errno.EPERM, errno.EBUSY, errno.ETXTBSY}

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Load:
    def __init__(self, top, seed):
        self.top, self.rng = top, random.Random(seed)
        os.makedirs(top, exist_ok=True)

    def directory(self):
        return os.path.join(self.top, f"d{self.rng.randrange(DIRECTORIES)}")

    def name(self):
        return os.path.join(self.rng.choice([self.top, self.directory()]), f"f{self.rng.randrange(FILES)}")

    def range(self):
        return self.rng.randrange(LENGTH_MAX), self.rng.randint(1, self.rng.choice([100, 4096, LENGTH_MAX // 4]))

    def with_file(self, use, flags=os.O_RDWR):
        fd = os.open(self.name(), flags | os.O_NOFOLLOW, 0o644)
        try:
            use(fd)
            if self.rng.random() < 0.1:
                self.rng.choice([os.fsync, os.fdatasync])(fd)
        finally:
            os.close(fd)

    # One method for each operation.

    def write(self):
        offset, length = self.range()
        self.with_file(lambda fd: os.pwrite(fd, self.rng.randbytes(length), offset), os.O_RDWR | os.O_CREAT)

    def read(self):
        offset, length = self.range()
        self.with_file(lambda fd: os.pread(fd, length, offset))

    def map(self):
        def use(fd):
            size = os.fstat(fd).st_size
            if size:
                with mmap.mmap(fd, size) as memory:
                    memory[self.rng.randrange(size)] = self.rng.randrange(256)
                    memory.flush()
        self.with_file(use)

    def allocate(self):
        offset, length = self.range()
        kind = self.rng.choice([0, KEEP_SIZE, KEEP_SIZE | PUNCH_HOLE, ZERO_RANGE, COLLAPSE])
        if kind == COLLAPSE:
            offset, length = offset & ~4095, 4096

        def use(fd):
            if libc.fallocate(fd, kind, offset, length) != 0:
                raise OSError(ctypes.get_errno(), "fallocate")
        self.with_file(use)

    def truncate(self):
        os.truncate(self.name(), self.range()[0])

    def rename(self):
        os.rename(self.name(), self.name())

    def rename_directory(self):
        os.rename(self.directory(), self.directory())

    def unlink(self):
        os.unlink(self.name())

    def link(self):
        os.link(self.name(), self.name(), follow_symlinks=False)

    def symlink(self):
        os.symlink("x" * self.rng.randint(1, 100), self.name())

    def make_directory(self):
        os.mkdir(self.directory())

    def remove_directory(self):
        os.rmdir(self.directory())

    def attribute(self):
        os.setxattr(self.name(), "user.tag", self.rng.randbytes(self.rng.randrange(200)), follow_symlinks=False)

    def list(self):
        for entry in os.scandir(self.directory()):
            entry.stat(follow_symlinks=False)

    def step(self):
        weights = {self.write: 30, self.read: 10, self.map: 6, self.allocate: 10, self.truncate: 5, self.rename: 8,
                   self.rename_directory: 2, self.unlink: 8, self.link: 4, self.symlink: 3, self.make_directory: 4,
                   self.remove_directory: 1, self.attribute: 4, self.list: 3}
        operation = self.rng.choices(list(weights), list(weights.values()))[0]
        try:
            operation()
        except OSError as error:
            if error.errno not in EXPECTED:
                raise SystemExit(f"{self.top}: {operation.__name__}: {error}") from None


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    load = Load(sys.argv[1], int(sys.argv[2]))
    while True:
        load.step()
        time.sleep(float(sys.argv[3]) / 1000)


if __name__ == "__main__":
    main()
