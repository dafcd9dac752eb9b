#!/usr/bin/env python3
"""Gives an empty image a journal record with a batch in it, for the fuzzer to
start from: the entries that only image_apply writes.

usage: test/fuzz/seed_leaf.py IMAGE
"""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import leaf_format  # noqa: E402

ZERO, APPLY, DATA, ZEROS, DROP = 3, 5, 7, 8, 9
ENTRIES = [
    (DATA, 3, 4, 0),
    (ZEROS, 9, 2, 0),
    (DATA, 32, 16, 1),
    (DROP, 2, 5),
    (ZERO, 2, 5),
    (APPLY, 3, 4, 2, 0),
]


def record(image):
    entries = b"".join(struct.pack(f"<II{len(values)}Q", kind, 8 + 8 * len(values), *values)
                       for kind, *values in ENTRIES)
    header = leaf_format.RECORD_MAGIC + struct.pack(
        "<IQQQQ8sIIQ", leaf_format.PAGE, leaf_format.field(image, "journal_offset"), 0, leaf_format.field(image, "epoch"),
        1, leaf_format.field(image, "uuid")[:8], len(ENTRIES), 0, 3)
    page = bytearray((header + entries).ljust(leaf_format.PAGE, b"\0"))
    leaf_format.seal(page, 0, checksum=leaf_format.PAGE_CHECKSUM)
    return page


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: test/fuzz/seed_leaf.py IMAGE")
    with open(sys.argv[1], "r+b") as file:
        image = file.read()
        file.seek(leaf_format.field(image, "journal_offset"))
        file.write(record(image))
        file.seek(0, os.SEEK_END)
        file.truncate(file.tell() + (1 << 20))


if __name__ == "__main__":
    main()
