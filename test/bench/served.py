"""Disks that one system shows at the moment: the files to measure, and the
daemons, mounts and loop devices behind them.

Everything started here is ended by close(), the newest first; leaving a `with`
block by an exception does the same, keep() makes it stay.
"""
import contextlib
import json
import os
import sys

import cleanup
from programs import Broken, Daemon, run, wait_until

STAT_SECONDS = 20
HOLD_SECONDS = 900
OPEN_SECONDS = 300
HOLD_OPEN = os.path.join(os.path.dirname(os.path.realpath(__file__)), "hold_open.py")


def mount_table():
    """{mount point: (device number, type)}; of mounts on one point the newest."""
    table = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            left, right = line.split(" - ", 1)
            fields = left.split(" ")
            major, minor = fields[2].split(":")
            table[cleanup.unescape(fields[4])] = (os.makedev(int(major), int(minor)), right.split(" ")[0])
    return table


def covering_mount(path, table):
    while path not in table:
        path = os.path.dirname(path)
    return path


def stat_devices(paths):
    """The device number of each file, asked of whoever serves it."""
    return [int(word) for word in run("stat", "--format=%d", *paths, timeout=STAT_SECONDS).split()]


@contextlib.contextmanager
def loop_device(path, *options):
    """Direct I/O on the file below: no second page cache."""
    device = run("losetup", "--direct-io=on", "--show", "-f", *options, path).strip()
    state = f"/sys/block/{os.path.basename(device)}/loop"
    try:
        with open(f"{state}/dio", encoding="ascii") as dio, open(f"{state}/backing_file", encoding="utf-8") as file:
            if dio.read().strip() != "1" or file.read().strip() != path:
                raise Broken(f"{device} does not do direct I/O on {path}")
        yield device
    finally:
        run("losetup", "-d", device)
        wait_until(lambda: not os.path.exists(f"{state}/backing_file"), f"{device} to let go of {path}")


@contextlib.contextmanager
def mounted(source, point, kind, options="defaults"):
    os.makedirs(point, exist_ok=True)
    run("mount", "-t", kind, "-o", options, source, point)
    try:
        yield point
    finally:
        run("umount", point)


class Served:
    def __init__(self, directory):
        self.directory = directory
        self.disks = []     # files to measure
        self.images = []    # files whose pages in the page cache matter
        self.size = 0       # of a disk
        self.daemons = []
        self.mounts = {}    # mount point: type
        self.fronts = set()  # those of the mounts that show the disks
        self.root = None    # where the system shows a file system itself
        self.around_sample = contextlib.nullcontext     # what has to be done before and after a sample
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        try:
            self.stack.close()
        finally:
            for point in self.mounts.keys() & mount_table().keys():
                cleanup.unmount(point, self.mounts[point])

    @property
    def pids(self):
        return [daemon.pid for daemon in self.daemons]

    def start(self, *command, env=None):
        daemon = Daemon(command, os.path.join(self.directory, f"{os.path.basename(command[0])}.log"),
                        cwd=self.directory, env=env)
        self.stack.callback(daemon.end)
        self.daemons.append(daemon)
        return daemon

    def remove(self, name):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.directory, name))

    def wait(self, condition, what, timeout=120):
        """For something that the daemons bring about."""
        def ready():
            for daemon in self.daemons:
                daemon.check_running()
            return condition()
        wait_until(ready, what, timeout)

    def list_disks(self):
        """Until `ls` shows them all, where they are in one directory of the mount."""
        places = {os.path.dirname(disk) for disk in self.disks}
        if len(places) != 1 or not places <= self.fronts:
            return False
        names = {os.path.basename(disk) for disk in self.disks}
        self.wait(lambda: names <= set(run("ls", *places).split("\n")), f"{names.pop()} and others to be listed")
        return True

    def counters(self):
        """What leafdisk has counted; nothing for another system."""
        for point in self.fronts:
            if os.path.isdir(f"{point}/.leafdisk"):
                with open(f"{point}/.leafdisk/stats", encoding="ascii") as file:
                    return json.load(file)
        return {}

    def wait_for_mounts(self, *points):
        """FUSE mounts, which a daemon that is killed leaves behind."""
        self.mounts.update(dict.fromkeys(points, "fuse"))
        self.fronts.update(points)
        self.wait(lambda: mount_table().keys() >= set(points), f"{points[0]} to be mounted")

    def loop(self, path, *options):
        return self.stack.enter_context(loop_device(path, *options))

    def mount(self, source, point, kind, options="defaults"):
        self.stack.enter_context(mounted(source, point, kind, options))
        self.mounts[point] = kind
        return point

    def file_system(self):
        """The root of the file system on the disk, through a loop device."""
        if not self.root:
            self.root = self.mount(self.loop(self.disks[0]), os.path.join(self.directory, "root"), "ext4")
        return self.root

    @contextlib.contextmanager
    def held_open(self, disks=1):
        """As guests do it, the first so many. The program ends with the bench, and
        by itself."""
        log = os.path.join(self.directory, "holder.log")
        with open(log, "wb"):
            pass
        holder = Daemon([sys.executable, HOLD_OPEN, HOLD_SECONDS, *self.disks[:disks]], log)
        try:
            wait_until(lambda: os.path.getsize(log) > 0, f"{self.disks[0]} to be opened", OPEN_SECONDS)
            yield
            holder.check_running()
        finally:
            holder.end()

    @contextlib.contextmanager
    def file_system_for_now(self):
        """The same file system, taken down in order and before the disk."""
        with loop_device(self.disks[0]) as device:
            with mounted(device, os.path.join(self.directory, "root"), "ext4") as root:
                yield root

    def check_live(self):
        """Every daemon runs, every mount is there, and each disk is on the one
        that should show it and answers."""
        for daemon in self.daemons:
            daemon.check_running()
        table = mount_table()
        for point, kind in self.mounts.items():
            if table.get(point, (0, ""))[1].split(".")[0] != kind:
                raise Broken(f"{point} is not a live mount of type {kind}; nothing is measured")
        for path, device in zip(self.shown(), stat_devices(self.shown())):
            self.check_place(path, device, table)

    def shown(self):
        """The disks, or the root of an overlay: its files keep the device number
        of the layer that they are in."""
        return [self.root] if self.root in self.fronts else self.disks

    def check_place(self, path, device, table):
        point = covering_mount(path, table)
        if device != table[point][0] or bool(self.fronts) != (point in self.fronts):
            raise Broken(f"{path} is not on the mount that it should be on; nothing is measured")
