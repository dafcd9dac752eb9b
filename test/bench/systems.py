"""The systems under test. Each knows how to make the images of a stage, how to
show them, and which jobs it cannot do.

A new mode of leafdisk is one more entry in SYSTEMS; another system is one more
class with make_images() and start().
"""
import contextlib
import functools
import json
import os
import shutil
import socket
import sys

import store
from programs import Broken, run
from served import Served
from stages import NO_STORE, small_cache_bytes

TREE = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.realpath(os.environ.get("LEAFDISK_BUILD", os.path.join(TREE, "build")))
# Another build, which is measured beside this one.
BASELINE = os.environ.get("LEAFDISK_BASELINE")
OURS, BEFORE = "leafdisk", "baseline"
RAW, STORAGE_DAEMON = "raw", "qemu-storage-daemon"
MIB = 1 << 20
POOL_BYTES = 128 * MIB  # of a file system, besides its files
ROOMY = 4   # times the size of a disk: more than is written in a sample
KEPT_BACK = ("migrate_threshold=100", "migrate_idle_ms=60000", "max_dirty_age=86400")
UPPER_BYTES = 64 * MIB  # of an overlay that nothing is written to
EXPORTS = 1000  # libfuse takes one thread key of the 1024 of a process for each mount
COPY_SECONDS = 600
DRAIN_SECONDS = 900
WRITE_UNITS = os.path.join(os.path.dirname(os.path.realpath(__file__)), "write_units.py")


def numbered(directory, count, suffix):
    return [os.path.join(directory, f"disk{number}{suffix}") for number in range(count)]


def qmp(path, command, arguments):
    """One command of QEMU's monitor at PATH."""
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rw") as file:
        connection.settimeout(COPY_SECONDS)
        connection.connect(path)
        file.readline()
        for name, words in (("qmp_capabilities", {}), (command, arguments)):
            file.write(json.dumps({"execute": name, "arguments": words}) + "\n")
            file.flush()
            answer = json.loads(file.readline())
            while "event" in answer:
                answer = json.loads(file.readline())
            if "error" in answer:
                raise Broken(f"{command}: {answer['error']['desc']}")


def copy(source, target):
    """All blocks written, holes of the source too."""
    run("cp", "--sparse=never", "--reflink=never", source, target, timeout=COPY_SECONDS)


class System:
    programs = ()           # without them it is left out
    versions = ()           # commands whose first line of output says the version
    cached = False          # has a cache of its own in front of the images
    over_store = False      # can be put over a slow store
    peer = False            # does what writeback mode is compared in
    loops = True            # its disks are also measured through a loop device
    on_request = False      # only when --systems names it
    ours = False            # is leafdisk
    live = False            # can seal a disk that runs: has snapshot()

    def missing(self):
        absent = [program for program in self.programs if not shutil.which(program)]
        return f"{', '.join(absent)} not installed" if absent else None

    def refuses(self, job):
        """Why it cannot do the job, or None."""
        if job.loop and not self.loops:
            return "the 4 KiB jobs through a loop device are for raw, leafdisk and qemu-storage-daemon"
        if job.over_store and not self.over_store:
            return "the jobs about a slow store are for the store itself and leafdisk"
        if job.ours and not self.ours:
            return "it is measured against itself, in other circumstances"
        if job.live and not self.live:
            return "it seals no disk that runs"
        if job.only_cache and not self.cached:
            return "it has no cache"
        if not job.peers and not self.peer:
            return "what outruns a cache is for raw, leafdisk writeback and qemu-storage-daemon"
        return None

    def is_quick(self, _job):
        """Can do the job with --quick."""
        return True

    def serve(self, stage, storage, images, directory):
        served = Served(directory)
        try:
            served.size = storage.size
            served.images = [*storage.files(stage), *images]
            self.start(served, stage, images)
        except BaseException:
            served.close()
            raise
        return served


class Raw(System):
    """A file on the file system that all the others keep their images on, or the
    file that is the slow store."""

    name = RAW
    over_store = True
    peer = True

    def refuses(self, job):
        if job.stage.delay_ms and job.writes():
            return "nothing writes the shared store"
        if job.stage.pool_delay_ms != NO_STORE:
            return "it has no pool"
        return "there is nothing to mount and no daemon" if job.daemon else super().refuses(job)

    def make_images(self, stage, storage, directory):
        images = numbered(directory, stage.disks, ".raw")
        for image in images:
            if stage.delay_ms:
                os.symlink(storage.base(stage), image)
            elif stage.tree:
                copy(storage.base(stage), image)
            elif stage.fresh or stage.written:
                run("truncate", f"--size={storage.size}", image)
            else:
                self.make_readable(stage, storage, image)
        return images

    def make_readable(self, stage, storage, image):
        """One disk is the base itself, whatever the depth: nothing writes it."""
        if stage.disks == 1:
            os.symlink(storage.base(stage), image)
        else:
            run("dd", "status=none", "bs=1M", f"count={stage.length(storage.size) // MIB}", f"if={storage.base(stage)}",
                f"of={image}", timeout=COPY_SECONDS)

    def start(self, served, _stage, images):
        served.disks = [os.path.realpath(image) for image in images]


class Layered(System):
    """What the systems with chains of images have in common."""

    suffix = None

    def make_images(self, stage, storage, directory):
        parent = self.make_chain(stage, storage, directory)
        images = numbered(directory, stage.disks, self.suffix)
        self.clone(parent, images)
        return images

    def make_chain(self, stage, storage, directory):
        """Layer k of n holds the units of 64 KiB whose hash is k modulo n; the
        base answers for those of 0, the top one is left empty."""
        parent = storage.base(stage)
        for layer in range(1, stage.depth):
            image = os.path.join(directory, f"layer{layer}{self.suffix}")
            self.clone(parent, [image])
            with Served(os.path.dirname(directory)) as served:
                self.start(served, stage, [image])
                served.check_live()
                run(sys.executable, WRITE_UNITS, served.disks[0], storage.size, stage.depth, layer,
                    timeout=COPY_SECONDS)
            parent = image
        return parent


class Leafdisk(Layered):
    """With its leaf and the base in the pool, and no cache."""

    suffix = ".leaf"
    over_store = True
    writes_leaf = True
    ours = True

    def __init__(self, mode, name=OURS, build=BUILD):
        self.name = f"{name} {mode}"
        self.live = name == OURS and mode != "ephemeral"
        self.options = (f"mode={mode}",)
        self.programs = (os.path.join(build, "leafdisk"), os.path.join(build, "leafctl"))
        self.versions = ((self.programs[0], "--version"),)

    def refuses(self, job):
        if job.stage.delay_ms and job.writes() and self.writes_leaf:
            return "the leaf is on the local disk: first-write-1 is the same job"
        return super().refuses(job)

    def is_quick(self, job):
        return job.stage.pool_delay_ms == NO_STORE

    def make_images(self, stage, storage, directory):
        if stage.pool_delay_ms == NO_STORE:
            return super().make_images(stage, storage, directory)
        return [self.make_pool(storage, directory)]

    def make_pool(self, storage, directory):
        """A file system with all of the pool in it."""
        pool, image = os.path.join(directory, "pool"), os.path.join(directory, "pool.raw")
        base = os.path.join(pool, "bases", "base.raw")
        os.makedirs(os.path.dirname(base))
        copy(storage.tree, base)
        self.clone(base, numbered(pool, 1, self.suffix))
        storage.make_file_system(image, 3 * os.path.getsize(base) + POOL_BYTES, "-d", pool)
        shutil.rmtree(pool)
        return image

    def clone(self, parent, images):
        run(self.programs[1], "clone", f"--layers={self.layers(images)}", parent, *images, timeout=COPY_SECONDS)

    @staticmethod
    def layers(images):
        """The base is two levels above the directory of the images, their pool."""
        return os.path.normpath(os.path.join(images[0], "..", "..", ".."))

    def start(self, served, stage, images):
        pool, leaves = os.path.dirname(images[0]), images
        if stage.pool_delay_ms != NO_STORE:
            pool = self.mount_pool(served, stage, images[0])
            leaves = numbered(pool, 1, self.suffix)
        point = os.path.join(served.directory, "mnt")
        os.makedirs(point, exist_ok=True)
        options = ",".join((*self.options, *self.more_options(served, stage, pool), f"layers={self.layers(images)}"))
        served.start(self.programs[0], pool, point, "-f", "-o", options)
        served.wait_for_mounts(point)
        served.disks = [os.path.join(point, os.path.basename(leaf).replace(self.suffix, ".img")) for leaf in leaves]

    @staticmethod
    def mount_pool(served, stage, image):
        directory = os.path.join(served.directory, "store")
        shown = served.stack.enter_context(store.show(image, stage.pool_delay_ms, directory, writable=True))
        return served.mount(served.loop(shown.disks[0]), os.path.join(served.directory, "pool"), "ext4")

    def more_options(self, _served, _stage, _pool):
        return ()

    def drain(self, served):
        run(self.programs[1], "drain", served.disks[0], timeout=DRAIN_SECONDS)

    def snapshot(self, served, number):
        run(self.programs[1], "snapshot", served.disks[0], f"s{number}")

    def fork(self, served, name):
        """Where it is shown."""
        run(self.programs[1], "fork", served.disks[0], name)
        return os.path.join(os.path.dirname(served.disks[0]), f"{name}.img")


class CachedLeafdisk(Leafdisk):
    """With a local leaf: a cache file on the same disk, twice the size of a disk.
    Sequential reads fill it too, as that is how a stage warms it."""

    cached = True

    def refuses(self, job):
        if not job.with_cache:
            return "the modes with a cache do the 4 KiB and the sequential jobs, idle, and those over a slow store"
        return super().refuses(job)

    def is_quick(self, job):
        return job.quick_cache

    def more_options(self, served, _stage, _pool):
        cache = os.path.join(served.directory, "cache")
        served.images.append(cache)
        return f"cache={cache}", f"cache_size={2 * served.size}", f"read_run_bypass={2 * served.size}"


class Ephemeral(CachedLeafdisk):
    """Writes stay in the cache, and are forgotten at the end."""

    writes_leaf = False

    def refuses(self, job):
        return "its fsync promises nothing" if job.flushes else super().refuses(job)


class Writeback(Leafdisk):
    """With a cache on the same disk, all of it written once. It has room for all
    that a sample writes, and options that leave that there until the sample is
    done; or it is small, and the options are what they are by default."""

    cached = True
    peer = True

    def refuses(self, job):
        if not job.writeback:
            return "writeback mode does the 4 KiB writes, what outruns its cache, and a pool in a slow store"
        return super().refuses(job)

    def is_quick(self, job):
        return True

    def more_options(self, served, stage, pool):
        cache = os.path.join(served.directory, "cache")
        size = small_cache_bytes(served.size) if stage.small_cache else served.size * (1 if stage.tree else ROOMY)
        run(self.programs[1], "cache", "create", f"--pool={pool}", f"--size={size}", "--preallocate", cache,
            timeout=COPY_SECONDS)
        served.images.append(cache)
        if not stage.tree:
            served.around_sample = functools.partial(self.around_sample, served, stage)
        usual = stage.small_cache or stage.tree
        return f"cache={cache}", f"cache_size={size}", "nodrain", *(() if usual else KEPT_BACK)

    @contextlib.contextmanager
    def around_sample(self, served, stage):
        """Nothing is dirty before it. It must not be open for the last time in
        it, as that has all written back; and afterwards that is not to fall into
        the samples of others."""
        self.drain(served)
        with served.held_open():
            before = served.counters()["migrate_blocks"]
            yield
            count = served.counters()["migrate_blocks"] - before
        if count and not stage.small_cache:
            raise Broken(f"{count} blocks were written back in a sample that is about the cache alone")
        if not stage.fresh:
            self.drain(served)


class StorageDaemon(Layered):
    """QEMU's block layer with a FUSE export for each qcow2 image."""

    name = STORAGE_DAEMON
    peer = True
    suffix = ".qcow2"
    programs = ("qemu-storage-daemon", "qemu-img")
    versions = (("qemu-storage-daemon", "--version"),)
    live = True

    def __init__(self):
        self.parents = {}

    def clone(self, parent, images):
        kind = "qcow2" if parent.endswith(self.suffix) else "raw"
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", parent, "-F", kind, images[0])
        for image in images:
            self.parents[image] = parent
            if image != images[0]:
                shutil.copyfile(images[0], image)

    def chain(self, image):
        while image:
            yield image
            image = self.parents.get(image)

    def nodes(self, images, cached):
        """Every image of the chains once, parents before children. Each is named
        here, as the options of a node do not reach a parent that it opens itself."""
        files = list(dict.fromkeys(file for image in images for file in reversed(list(self.chain(image)))))
        for number, file in enumerate(files):
            writable = file in images
            access = "cache.direct=off,aio=threads" if cached and not writable else "cache.direct=on,aio=native"
            read_only = f"read-only={'off' if writable else 'on'}"
            parent = self.parents.get(file)
            layer = f"driver=qcow2,backing=n{files.index(parent)}" if parent else "driver=raw"
            yield "--blockdev", f"driver=file,node-name=f{number},filename={file},{access},{read_only}"
            yield "--blockdev", f"{layer},node-name=n{number},file=f{number},{read_only}"
            if writable:
                yield "--export", self.export(number, file)

    def export(self, number, file):
        return f"type=fuse,id=e{number},node-name=n{number},mountpoint={self.point(file)},writable=on"

    @staticmethod
    def point(image):
        """The export is mounted over a regular file, which must be there."""
        path = f"{image}.img"
        with open(path, "ab"):
            return path

    def start(self, served, stage, images):
        served.disks, served.disk_images = [self.point(image) for image in images], images
        for first in range(0, len(images), EXPORTS):
            nodes = self.nodes(images[first:first + EXPORTS], stage.cached)
            monitor = () if first else ("--chardev", f"socket,id=m,path={self.monitor(served)},server=on,wait=off",
                                        "--monitor", "chardev=m")
            served.start("qemu-storage-daemon", *monitor, *(word for node in nodes for word in node))
        served.wait_for_mounts(*served.disks)

    @staticmethod
    def monitor(served):
        return os.path.join(served.directory, "qmp")

    def snapshot(self, served, number):
        """Of the first disk, by another file on top of it."""
        top = f"s{number - 1}" if number else next(
            word.split("node-name=")[1].split(",")[0] for name, word in self.nodes(served.disk_images, False)
            if name == "--export")
        qmp(self.monitor(served), "blockdev-snapshot-sync", {
            "node-name": top, "snapshot-node-name": f"s{number}", "format": "qcow2",
            "snapshot-file": os.path.join(served.directory, f"s{number}{self.suffix}")})


class StorageDaemonByName(StorageDaemon):
    """The same with the parents opened as the images name them, which is what
    two --blockdev options give: they do not get the options of the image above,
    and are read through the page cache."""

    name = "qemu by name"
    on_request = True

    def nodes(self, images, _cached):
        for number, file in enumerate(images):
            yield "--blockdev", f"driver=file,node-name=f{number},filename={file},cache.direct=on,aio=native"
            yield "--blockdev", f"driver=qcow2,node-name=n{number},file=f{number}"
            yield "--export", self.export(number, file)


class NbdFuse(System):
    """nbdkit's cow filter over its file plugin, and nbdfuse in front of it: two
    daemons for each disk. What is written goes to an unlinked temporary file."""

    name = "nbdfuse"
    programs = ("nbdfuse", "nbdkit")
    versions = (("nbdfuse", "--version"), ("nbdkit", "--version"))
    loops = False

    def refuses(self, job):
        if job.stage.depth > 1:
            return "the cow filter has one layer above the base"
        if job.flushes:
            return "the cow filter ignores flushes, its fsync promises nothing"
        if job.stage.disks > 100:
            return "two processes and a mount for each disk"
        return super().refuses(job)

    def make_images(self, stage, storage, directory):
        """Nothing to make: each disk is named by what its overlay is put on."""
        return [storage.base(stage)] * stage.disks

    def start(self, served, stage, images):
        points = [os.path.join(served.directory, f"mnt{number}") for number in range(len(images))]
        for number, (point, image) in enumerate(zip(points, images)):
            os.makedirs(point, exist_ok=True)
            self.start_pair(served, number, point, image, "default" if stage.cached else "none")
        served.wait_for_mounts(*points)
        served.disks = [os.path.join(point, "disk.img") for point in points]

    @staticmethod
    def start_pair(served, number, point, image, cache):
        """The daemons run in the stage's directory, as a socket's path must be
        short. The pid file appears when connections are taken."""
        socket, ready = f"socket{number}", f"ready{number}"
        for name in (socket, ready):
            served.stack.callback(served.remove, name)
        served.start("nbdkit", "-f", "-U", socket, "-P", ready, "--filter=cow", "file", image, f"cache={cache}",
                     env={"TMPDIR": served.directory})
        served.wait(lambda: os.path.exists(os.path.join(served.directory, ready)), "nbdkit")
        served.start("nbdfuse", f"{point}/disk.img", f"nbd+unix:///?socket={socket}")


class OverlayOnLoop(System):
    """Two ext4 file systems on loop devices, one read-only below, one above."""

    name = "overlayfs"
    loops = False

    def refuses(self, job):
        if job.on_overlay:
            return None
        return "it copies a whole file at its first write and has no block device: not the same job"

    def make_images(self, stage, storage, directory):
        """The lower file system, when it is not the base itself, and the upper."""
        lower = storage.base(stage)
        if not stage.tree:
            lower = os.path.join(directory, "lower.raw")
            storage.make_file_system(lower, storage.size + storage.size // 8 + 64 * MIB)
            with Served(os.path.dirname(directory)) as served:
                copy(storage.base(stage), os.path.join(self.mount(served, lower, "filling"), "disk.img"))
        upper = os.path.join(directory, "upper.raw")
        storage.make_file_system(upper, os.path.getsize(lower) if stage.tree else UPPER_BYTES)
        return [lower, upper]

    @staticmethod
    def mount(served, image, name, *access):
        device = served.loop(image, *(["--read-only"] if access else []))
        return served.mount(device, os.path.join(served.directory, name), "ext4", *access)

    def start(self, served, stage, images):
        lower = self.mount(served, images[0], "lower", "ro,noload")
        upper = self.mount(served, images[1], "upper")
        for name in ("data", "work"):
            os.makedirs(os.path.join(upper, name), exist_ok=True)
        served.root = served.mount("overlay", os.path.join(served.directory, "merged"), "overlay",
                                   f"lowerdir={lower},upperdir={upper}/data,workdir={upper}/work")
        served.fronts.add(served.root)
        served.disks = [] if stage.tree else [os.path.join(served.root, "disk.img")]


def modes(*words):
    return (Leafdisk("direct", *words), CachedLeafdisk("persistent", *words), Ephemeral("ephemeral", *words),
            Writeback("writeback", *words))


SYSTEMS = (Raw(), *modes(), *(modes(BEFORE, os.path.realpath(BASELINE)) if BASELINE else ()), StorageDaemon(),
           StorageDaemonByName(), NbdFuse(), OverlayOnLoop())
