#!/usr/bin/env python3
"""Opens disks as guests do, reads a block of each, says so, and holds them.

It ends by itself, after SECONDS, should nobody end it.

usage: hold_open.py SECONDS DISK...
"""
import os
import sys
import time

BLOCK = 4096


def main():
    for disk in sys.argv[2:]:
        if len(os.pread(os.open(disk, os.O_RDONLY), BLOCK, 0)) != BLOCK:
            sys.exit(f"{disk}: short read")
    print("open", flush=True)
    time.sleep(float(sys.argv[1]))


if __name__ == "__main__":
    main()
