"""The directory of a run and the bases in it that every system shares: one with
data, the same in slow stores, and one with a file system."""
import contextlib
import os
import shutil

import fio
import source_tree
import store
from programs import Broken, run

MKFS_SECONDS = 120
ROOM = 48   # times the size: the disks of all stages and systems together


class Storage:
    def __init__(self, directory, size, tree_files):
        self.directory = directory
        self.size = size
        self.tree_files = tree_files
        self.data = os.path.join(directory, "base.raw")
        self.tree = os.path.join(directory, "tree.raw")
        self.archive = os.path.join(directory, "tree.tar")
        self.archive_digest = ""
        self.stores = {}    # delay: what shows the base with it

    def base(self, stage):
        if stage.delay_ms:
            return self.store(stage.delay_ms).disks[0]
        return self.tree if stage.tree else self.data

    def files(self, stage):
        """The base, and what is behind it: pages of both can be in memory."""
        return [self.base(stage), self.data] if stage.delay_ms else [self.base(stage)]

    def store(self, delay_ms):
        """Started when first asked for, and anew when it has died."""
        if delay_ms not in self.stores:
            directory = os.path.join(self.directory, f"store-{delay_ms}ms")
            shutil.rmtree(directory, ignore_errors=True)
            self.stores[delay_ms] = store.show(self.data, delay_ms, directory)
        return self.stores[delay_ms]

    def check_live(self, stage):
        if stage.delay_ms:
            try:
                self.store(stage.delay_ms).check_live()
            except (Broken, OSError):
                self.stores.pop(stage.delay_ms).close()
                raise

    def close(self):
        """What does not end in order is left to the clean-up of the run."""
        while self.stores:
            with contextlib.suppress(Broken, OSError):
                self.stores.popitem()[1].close()

    def check_room(self):
        free = shutil.disk_usage(self.directory).free
        if free < ROOM * self.size:
            raise Broken(f"{self.directory} has {free >> 20} MiB free, {ROOM * self.size >> 20} MiB are needed: "
                         "choose another --directory or a smaller --size")

    def make(self, with_tree):
        fio.fill([self.data], self.size)
        if with_tree:
            self.make_tree()

    def make_tree(self):
        """An ext4 image with the repository in it, and an archive of its files."""
        root = os.path.join(self.directory, "tree")
        repository = os.path.join(root, source_tree.NAME)
        source_tree.make(repository, self.tree_files)
        self.archive_digest = source_tree.digest(repository)
        source_tree.archive(repository, self.archive)
        bytes_used = sum(int(word) for word in run("du", "-s", "-B1", root).split()[:1])
        sparse = os.path.join(self.directory, "tree.sparse")
        self.make_file_system(sparse, 4 * bytes_used + (64 << 20), "-d", root)
        run("cp", "--sparse=never", "--reflink=never", sparse, self.tree, timeout=MKFS_SECONDS)
        os.unlink(sparse)
        shutil.rmtree(root)

    @staticmethod
    def make_file_system(image, size, *options):
        """Nothing is left for the kernel to initialise later."""
        run("truncate", f"--size={(size + 4095) // 4096 * 4096}", image)
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", *options, image,
            timeout=MKFS_SECONDS)
