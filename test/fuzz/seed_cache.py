#!/usr/bin/env python3
"""Writes small caches to begin fuzzing with.

usage: test/fuzz/seed_cache.py DIRECTORY
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import cache_format as form  # noqa: E402

DATA = [bytes([number]) * form.BLOCK for number in range(1, 4)]


def layers():
    cache = form.Cache()
    cache.append(form.layer_entry(1, bytes(range(1, 17)), 7, 1 << 20, "base.raw"),
                 form.layer_entry(2, bytes(range(2, 18)), 0, 1 << 20, "web1.leaf"))
    cache.append(form.data_entry(1, form.CLEAN, 10, DATA), form.data_entry(2, form.DIRTY, 5, DATA[:1]))
    cache.durable = 2
    cache.append(form.range_entry(2, form.ZERO, 4, 100), form.range_entry(1, form.FORGET, 11, 1))
    cache.append(form.drop_entry(2))
    return cache


def written_back():
    """Epochs, of which one is migrated and one may be, and an orphan."""
    cache = form.Cache()
    cache.append(form.layer_entry(1, bytes(range(1, 17)), 0, 1 << 20, "web1.leaf", generation=5),
                 form.layer_entry(2, bytes(range(1, 17)), 0, 1 << 20, "web1.leaf", generation=3, flags=1),
                 form.data_entry(2, form.DIRTY, 7, DATA), form.range_entry(2, form.ZERO, 20, 5))
    cache.append(form.data_entry(1, form.DIRTY, 0, DATA), form.range_entry(1, form.ZERO, 1, 9), form.barrier_entry(1))
    first = cache.sequence - 1
    cache.append(form.migrate_entry(1, form.MIGRATE, first))
    cache.durable = cache.sequence - 1
    cache.append(form.data_entry(1, form.DIRTY, 1, DATA), form.range_entry(1, form.ZERO, 3, 2), form.barrier_entry(1))
    second = cache.sequence - 1
    cache.append(form.migrate_entry(1, form.MIGRATED, first), form.migrate_entry(1, form.MIGRATE, second))
    cache.append(form.data_entry(1, form.DIRTY, 2, DATA))
    return cache


def migrated_round_the_ring():
    """What MIGRATE names is before the tail."""
    cache = wrapped()
    cache.append(form.data_entry(1, form.DIRTY, 0, DATA), form.barrier_entry(1))
    cache.append(form.migrate_entry(1, form.MIGRATED, cache.sequence - 1),
                 form.migrate_entry(1, form.MIGRATE, 3))
    return cache


def moved():
    """Blocks and zeros at a later place, in their old order."""
    cache = written_back()
    cache.append(form.moved_entry(1, 0, DATA, 2), form.moved_entry(1, 5, DATA, 2 | form.SUPERSEDED),
                 form.moved_zero_entry(1, 1, 9, 2), form.moved_zero_entry(1, 0, 2, 4))
    return cache


def version_1():
    cache = form.Cache(version=1)
    cache.append(form.layer_entry(1, bytes(range(1, 17)), 0, 1 << 20, "web1.leaf", generation=5, version=1))
    cache.append(form.data_entry(1, form.DIRTY, 0, DATA), form.range_entry(1, form.ZERO, 1, 9), form.barrier_entry(1))
    cache.append(form.migrate_entry_1(1, form.MIGRATE, cache.records[-1], 3))
    cache.append(form.data_entry(1, form.DIRTY, 2, DATA))
    return cache


def wrapped():
    """Round the ring: the tail is behind the head."""
    cache = form.Cache()
    cache.slot = 6 * form.SEGMENT_BLOCKS
    cache.tail = (6, 1, 0)
    cache.write_super()
    for number in range(20):
        cache.append(form.layer_entry(1, bytes(range(1, 17)), 7, 1 << 20, "base.raw"),
                     form.data_entry(1, form.CLEAN, number * 5, DATA * 5))
        cache.durable = number
    return cache


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: test/fuzz/seed_cache.py DIRECTORY")
    for make in (form.Cache, layers, written_back, migrated_round_the_ring, moved, version_1, wrapped):
        make().write(os.path.join(sys.argv[1], f"{make.__name__.lower()}.cache"))


if __name__ == "__main__":
    main()
