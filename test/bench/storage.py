"""The directory of a run and the two bases in it that every system shares."""
import os
import shutil

import fio
import source_tree
from programs import Broken, run

MKFS_SECONDS = 120
ROOM = 24   # times the size: the disks of all stages and systems together


class Storage:
    def __init__(self, directory, size, tree_files):
        self.directory = directory
        self.size = size
        self.tree_files = tree_files
        self.data = os.path.join(directory, "base.raw")
        self.tree = os.path.join(directory, "tree.raw")
        self.archive = os.path.join(directory, "tree.tar")

    def base(self, stage):
        return self.tree if stage.tree else self.data

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
