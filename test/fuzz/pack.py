#!/usr/bin/env python3
"""Packs an image or a cache for a fuzz target: its size, then its pages that are not
zero, each as far as it is not zero. Guest data is cut to its first bytes.

usage: test/fuzz/pack.py IMAGE PACKED
"""
import struct
import sys

PAGE = 4096
DATA_BYTES = 16
MAGICS = (b"LEAF", b"LFTP", b"LFZL", b"LFJR", b"LFCR")


def pack(image):
    parts = [struct.pack("<I", len(image))]
    for number in range(-(-len(image) // PAGE)):
        page = image[number * PAGE:(number + 1) * PAGE].rstrip(b"\0")
        if page[:4] not in MAGICS:
            page = page[:DATA_BYTES]
        if page:
            parts.append(struct.pack("<IH", number, len(page)) + page)
    return b"".join(parts)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: test/fuzz/pack.py IMAGE PACKED")
    with open(sys.argv[1], "rb") as source, open(sys.argv[2], "wb") as target:
        target.write(pack(source.read()))


if __name__ == "__main__":
    main()
