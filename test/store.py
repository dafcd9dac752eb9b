"""A store that is slow or gives errors, below a pool: test/torture/store/store.c,
loaded into a daemon before everything else."""
import os

from harness import TREE, run

SOURCE = os.path.join(TREE, "test", "torture", "store", "store.c")
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wstrict-prototypes", "-Wmissing-prototypes", "-O2", "-g"]


class Store:
    """What to start a daemon with whose pool is to be on such a store."""

    def __init__(self, directory):
        self.library = os.path.join(directory, "store.so")
        run("cc", *FLAGS, "-fPIC", "-shared", "-o", self.library, SOURCE)

    def environment(self, pool):
        return {"LD_PRELOAD": self.library, "LEAFDISK_STORE": os.path.realpath(pool),
                "ASAN_OPTIONS": os.environ["ASAN_OPTIONS"] + ":verify_asan_link_order=0"}

    def slow(self, pool, milliseconds=20):
        """Each call takes so much longer, and so does each asynchronous I/O."""
        return {**self.environment(pool), "LEAFDISK_STORE_MS": str(milliseconds)}

    def erring(self, pool, odds, gate):
        """One call in ODDS fails with EIO, while the file GATE is there."""
        return {**self.environment(pool), "LEAFDISK_STORE_ODDS": str(odds), "LEAFDISK_STORE_GATE": gate}
