#!/usr/bin/env python3
"""Gives an empty image of 64 KiB chunks a journal for the fuzzer to start from:
entries that only image_apply writes, and some that should cost more than they do.

usage: test/fuzz/seed_leaf.py IMAGE batch|far|drops|owed
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from leaf_format import APPLY, CHUNK, DATA, DROP, ZERO, ZEROS, add_records  # noqa: E402

MIB = 1 << 20
TIB = 1 << 40
DROPS_PER_PAGE = 168
# name: length of the file, records
SEEDS = {
    "batch": (4 * MIB, [[(DATA, 3, 4, 0), (ZEROS, 9, 2, 0), (DATA, 32, 16, 1), (DROP, 2, 5), (ZERO, 2, 5),
                         (APPLY, 3, 4, 2, 0)]]),
    "far": (8 * TIB, [[(CHUNK, 100_000_000, 0, 1, 0)]]),
    "drops": (TIB, [[(CHUNK, 1_000_000, 0, 1, 0)], *[[(DROP, 1, 15)] * DROPS_PER_PAGE] * 12]),
    "owed": (4 * MIB, [[(DATA, 0, 16, 0), (APPLY, 0, 8, 2, 0), (APPLY, 4, 8, 2, 8), (APPLY, 12, 4, 3, 0)]]),
}


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: test/fuzz/seed_leaf.py IMAGE batch|far|drops|owed")
    length, records = SEEDS[sys.argv[2]]
    add_records(sys.argv[1], *records)
    os.truncate(sys.argv[1], length)


if __name__ == "__main__":
    main()
