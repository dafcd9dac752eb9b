#!/usr/bin/env python3
"""Writes one layer's share of a chain to a disk: random data in every unit of
64 KiB whose hash is LAYER modulo DEPTH.

A unit is QEMU's cluster. Were the shares of single blocks, the first write to
a cluster would copy the rest of it from below, and the layers that are deep
down would answer for next to nothing.

usage: write_units.py DISK SIZE DEPTH LAYER
"""
import hashlib
import os
import sys

UNIT = 64 << 10


def layer_of(unit, depth):
    return int.from_bytes(hashlib.blake2b(unit.to_bytes(8, "little"), digest_size=8).digest(), "little") % depth


def main():
    disk, (size, depth, layer) = sys.argv[1], map(int, sys.argv[2:])
    fd = os.open(disk, os.O_WRONLY)
    for unit in range(size // UNIT):
        if layer_of(unit, depth) == layer and os.pwrite(fd, os.urandom(UNIT), unit * UNIT) != UNIT:
            sys.exit(f"{disk}: short write")
    os.fsync(fd)
    os.close(fd)


if __name__ == "__main__":
    main()
