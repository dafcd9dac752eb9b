#!/usr/bin/env python3
"""Packs an image or a cache for a fuzz target: its size in le64, then its pages that
are not zero, each as far as it is not zero. Guest data is cut to its first bytes.

usage: test/fuzz/pack.py IMAGE PACKED
"""
import os
import struct
import sys

PAGE = 4096
DATA_BYTES = 16
MAGICS = (b"LEAF", b"LFTP", b"LFZL", b"LFJR", b"LFCR", b"LFR2")


def pages(file, size):
    """Numbers and bytes of the pages that have data: the file may be much longer."""
    end = 0
    while end < size:
        try:
            start = os.lseek(file.fileno(), end, os.SEEK_DATA) // PAGE
        except OSError:
            return
        end = os.lseek(file.fileno(), start * PAGE, os.SEEK_HOLE)
        for number in range(start, -(-end // PAGE)):
            yield number, os.pread(file.fileno(), PAGE, number * PAGE)


def pack(file):
    size = os.fstat(file.fileno()).st_size
    parts = [struct.pack("<Q", size)]
    for number, page in pages(file, size):
        page = page.rstrip(b"\0")
        if page[:4] not in MAGICS:
            page = page[:DATA_BYTES]
        if page:
            parts.append(struct.pack("<IH", number, len(page)) + page)
    return b"".join(parts)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: test/fuzz/pack.py IMAGE PACKED")
    with open(sys.argv[1], "rb") as source, open(sys.argv[2], "wb") as target:
        target.write(pack(source))


if __name__ == "__main__":
    main()
