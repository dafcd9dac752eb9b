"""A slow shared store: the base behind an NBD server that takes its time, shown
as a file, which is what an image on a network file system looks like.

One store for each delay serves all systems until the run ends, and nothing
writes it. What is written has one of its own.
"""
import os
import shutil

from served import Served

PROGRAMS = ("nbdkit", "nbdfuse")


def missing():
    absent = [program for program in PROGRAMS if not shutil.which(program)]
    return f"{', '.join(absent)} not installed" if absent else None


def show(source, delay_ms, directory, writable=False):
    """SOURCE as the one disk of what is returned. The daemons run in the
    directory, as a socket's path must be short; the pid file appears when
    connections are taken."""
    served = Served(directory)
    point = os.path.join(directory, "mnt")
    os.makedirs(point)
    read_only = [] if writable else ["-r"]
    try:
        served.start("nbdkit", "-f", *read_only, "-U", "socket", "-P", "ready", "--filter=delay", "file", source,
                     "cache=none", f"rdelay={delay_ms}ms", f"wdelay={delay_ms}ms")
        served.wait(lambda: os.path.exists(os.path.join(directory, "ready")), "nbdkit")
        served.disks = [os.path.join(point, os.path.basename(source))]
        served.start("nbdfuse", *read_only, served.disks[0], "nbd+unix:///?socket=socket")
        served.wait_for_mounts(point)
        served.check_live()
    except BaseException:
        served.close()
        raise
    return served
