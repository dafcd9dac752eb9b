"""leafctl cache: caches made, shown, checked and dumped without a mount. The
caches that are read here are written by test/cache_format.py, from the manual
page alone."""
import json
import os
import re
import struct
import subprocess

import pytest

import cache_format as form
from harness import BLOCK, MIB, file_bytes, leafctl, make_image, make_raw, opened, run, scaled, write_all

DAMAGED = 3
USAGE = 2
TIMEOUT = 100
IDENTITY = bytes(range(100, 116))
STAMP = 0x1234567890
SIZE = 100 * BLOCK - 100


def pattern(*numbers):
    return [bytes([number]) * BLOCK for number in numbers]


def declared(layer=1, name="base.raw", stamp=STAMP, identity=IDENTITY, size=SIZE):
    return form.layer_entry(layer, identity, stamp, size, name)


def sample():
    """Clean, dirty and zero blocks of two layers, and some that are forgotten."""
    cache = form.Cache()
    cache.append(declared(), declared(2, "web1.leaf", identity=IDENTITY[::-1]))
    cache.append(form.data_entry(1, form.CLEAN, 10, pattern(1, 2, 3)), form.data_entry(2, form.DIRTY, 5, pattern(4)))
    cache.append(form.range_entry(2, form.ZERO, 20, 10), form.range_entry(1, form.FORGET, 11, 1))
    cache.durable = 3
    cache.append(form.data_entry(2, form.CLEAN, 25, pattern(5, 6)))
    return cache


def orphaned(layer=2, name="web1.leaf", identity=IDENTITY[::-1]):
    return form.layer_entry(layer, identity, 0, SIZE, name, generation=4, flags=1)


def written_back():
    """Four epochs of one layer, of which the image has one and may have two, and an orphan of the same image."""
    cache = form.Cache()
    cache.append(form.layer_entry(1, IDENTITY, 0, SIZE, "web1.leaf", generation=5), orphaned(2, identity=IDENTITY))
    cache.append(form.data_entry(2, form.DIRTY, 3, pattern(9)), form.range_entry(2, form.ZERO, 50, 5))
    cache.append(form.data_entry(1, form.DIRTY, 0, pattern(1, 2)), form.range_entry(1, form.ZERO, 20, 10),
                 form.barrier_entry(1))
    first = cache.sequence - 1
    cache.append(form.migrate_entry(1, form.MIGRATE, first))
    cache.append(form.data_entry(1, form.DIRTY, 1, pattern(3)), form.barrier_entry(1))
    second = cache.sequence - 1
    cache.append(form.migrate_entry(1, form.MIGRATED, first), form.migrate_entry(1, form.MIGRATE, second))
    cache.append(form.range_entry(1, form.ZERO, 40, 1), form.data_entry(1, form.DIRTY, 41, pattern(4)),
                 form.barrier_entry(1))
    cache.append(form.data_entry(1, form.DIRTY, 42, pattern(5)))
    return cache, first, second


CONTENTS = {"base.raw": {10: 1, 12: 3}, "web1.leaf": {5: 4, 25: 5, 26: 6}}


def info(path):
    return json.loads(leafctl("cache", "info", "--json", path).stdout)


def check(path):
    """(exit status, findings); never a crash."""
    result = leafctl("cache", "check", "--json", path, check=False, timeout=TIMEOUT)
    assert result.returncode in (0, 1, DAMAGED), result.stderr
    findings = json.loads(result.stdout)["findings"] if result.returncode != 1 else []
    assert bool(findings) == (result.returncode == DAMAGED)
    return result.returncode, findings


def dumped(path, work, *options):
    """name: {block: byte} of what a dump writes, with its exit status."""
    target = os.path.join(work, "dumped")
    os.makedirs(target)
    result = leafctl("cache", "dump", "-d", target, *options, path, check=False, timeout=TIMEOUT)
    layers = {}
    for name in os.listdir(target):
        content = file_bytes(os.path.join(target, name))
        blocks = {at // BLOCK: content[at] for at in range(0, len(content), BLOCK) if content[at]}
        for block, byte in blocks.items():
            assert set(content[block * BLOCK:(block + 1) * BLOCK]) == {byte}
        layers[name] = blocks
        os.unlink(os.path.join(target, name))
    os.rmdir(target)
    assert result.returncode in (0, 1, DAMAGED), result.stderr
    return result.returncode, layers


# ---- create ------------------------------------------------------------------

def create(path, pool, *options, **settings):
    return leafctl("cache", "create", "--pool", pool, *options, path, **settings)


@pytest.fixture
def cache_path(work):
    return os.path.join(work, "cache")


def test_create(cache_path, pool):
    create(cache_path, pool, "--size", "8M")
    found = info(cache_path)
    assert found["pool"] == os.path.realpath(pool)
    assert found["segments"] == 7 and found["size_bytes"] == 8 * MIB and found["layers"] == []
    assert found["records"] == 0 and found["generation"] == 0
    assert check(cache_path) == (0, [])
    assert os.stat(cache_path).st_mode & 0o777 == 0o600
    assert os.stat(cache_path).st_blocks * 512 < MIB


def test_create_follows_the_manual(cache_path, pool):
    """The same bytes as the manual page's writer makes."""
    create(cache_path, pool, "--size", "8M")
    found = info(cache_path)
    cache = form.Cache(uuid=bytes.fromhex(found["uuid"].replace("-", "")), pool=found["pool"],
                       pool_id=bytes.fromhex(found["pool_id"].replace("-", "")))
    cache.generation = 0
    cache.super_sequence = 0
    cache.end_sequence = 1
    cache.write_super()
    assert file_bytes(cache_path) == cache.image


def test_create_preallocated(cache_path, pool):
    create(cache_path, pool, "--size", "16M", "--preallocate")
    assert os.stat(cache_path).st_blocks * 512 >= 15 * MIB
    assert check(cache_path) == (0, [])


@pytest.mark.parametrize("size,words", [("1M", "not possible"), ("8191K", "not possible"), ("17T", "not possible"),
                                        ("nonsense", "not a size")])
def test_create_refuses_a_size(cache_path, pool, size, words):
    result = create(cache_path, pool, "--size", size, check=False)
    assert result.returncode in (1, USAGE) and words in result.stderr
    assert not os.path.exists(cache_path)


def test_create_keeps_what_is_there(cache_path, pool):
    create(cache_path, pool, "--size", "8M")
    before = info(cache_path)["uuid"]
    result = create(cache_path, pool, check=False)
    assert result.returncode == 1 and "--force" in result.stderr and pool in result.stderr
    assert info(cache_path)["uuid"] == before
    create(cache_path, pool, "--force")
    after = info(cache_path)
    assert after["uuid"] != before and after["size_bytes"] == 8 * MIB


def test_create_over_something_else(cache_path, pool):
    content = b"somebody's text\n" * 1000
    with open(cache_path, "wb") as file:
        file.write(content)
    assert create(cache_path, pool, "--size", "8M", check=False).returncode == 1
    assert file_bytes(cache_path) == content
    create(cache_path, pool, "--size", "8M", "--force")
    assert check(cache_path) == (0, [])


def test_create_leaves_a_leaf_image(cache_path, pool):
    """By force, too: it may be a disk of a pool that nobody has mounted."""
    make_image(cache_path + ".leaf", "8M")
    os.rename(cache_path + ".leaf", cache_path)
    before = file_bytes(cache_path)
    for options in (), ("--force",):
        result = create(cache_path, pool, *options, check=False)
        assert result.returncode == 1 and "is a leaf image" in result.stderr, result
    assert file_bytes(cache_path) == before


@pytest.mark.parametrize("name", ["web1.raw", "web1.img", "web1"])
def test_create_leaves_other_images(pool, name):
    path = os.path.join(pool, name)
    if name == "web1":
        run("qemu-img", "create", "-q", "-f", "qcow2", path, "16M")
    else:
        make_raw(path, bytes(16 * MIB))
    before = file_bytes(path)
    for options in (), ("--force",):
        result = create(path, pool, *options, check=False)
        assert result.returncode == 1 and "image" in result.stderr and "stays one" in result.stderr, result
    assert file_bytes(path) == before


def test_create_over_an_empty_file(cache_path, pool):
    with open(cache_path, "wb"):
        pass
    create(cache_path, pool, "--size", "8M")


def test_create_forgets_the_old_log(cache_path, pool):
    sample().write(cache_path)
    create(cache_path, pool, "--force")
    assert info(cache_path)["records"] == 0
    assert check(cache_path) == (0, [])


def test_create_resets_a_damaged_cache(cache_path, pool):
    cache = sample()
    for place in form.SUPER_PLACES:
        cache.image[place + 50] ^= 1
    cache.write(cache_path)
    result = leafctl("cache", "info", cache_path, check=False)
    assert result.returncode == 1 and "leafctl cache create --force --pool" in result.stderr
    create(cache_path, pool, "--force")
    assert check(cache_path) == (0, [])


def test_create_needs_a_pool(cache_path, work):
    result = leafctl("cache", "create", cache_path, check=False)
    assert result.returncode == USAGE and "--pool" in result.stderr
    result = create(cache_path, os.path.join(work, "missing"), check=False)
    assert result.returncode == 1 and "no pool" in result.stderr
    assert not os.path.exists(cache_path)


def test_create_on_a_full_file_system(pool, full_disk):
    path = os.path.join(full_disk, "cache")
    result = create(path, pool, "--size", "64M", "--preallocate", check=False)
    assert result.returncode == 1 and "No space left" in result.stderr
    assert not os.path.exists(path)


@pytest.fixture
def full_disk(work):
    directory = os.path.join(work, "small")
    os.mkdir(directory)
    run("mount", "-t", "tmpfs", "-o", "size=16M", "tmpfs", directory)
    yield directory
    run("umount", directory)


def test_create_on_a_device(work, pool):
    backing = os.path.join(work, "backing")
    with opened(backing, os.O_RDWR | os.O_CREAT) as fd:
        os.ftruncate(fd, 9 * MIB)
    device = run("losetup", "--show", "-f", backing).stdout.strip()
    try:
        result = create(device, pool, "--size", "10M", check=False)
        assert result.returncode == 1 and "too few" in result.stderr
        create(device, pool)
        assert info(device)["segments"] == 8
        refused = leafctl("create", device, "8M", check=False)
        assert refused.returncode == 1 and f"is the cache of the pool {pool}; it is overwritten only" in refused.stderr
        assert create(device, pool, check=False).returncode == 1
        create(device, pool, "--force", "--size", "8M")
        assert info(device)["segments"] == 7 and check(device) == (0, [])
        run("mke2fs", "-q", "-t", "ext4", "-F", device)
        result = create(device, pool, check=False)
        assert result.returncode == 1 and "has a file system (ext4); it is overwritten only with --force" in result.stderr
        create(device, pool, "--force")
    finally:
        run("losetup", "-d", device)


# ---- the pool's identity -----------------------------------------------------

def test_pool_identity(work, pool):
    """Two caches of one pool agree, two pools do not, and nothing is written."""
    other = os.path.join(work, "other")
    os.mkdir(other)
    paths = [os.path.join(work, name) for name in ("one", "two", "three")]
    for path, owner in zip(paths, (pool, os.path.join(pool, "..", "pool"), other)):
        create(path, owner, "--size", "8M")
    ids = [info(path)["pool_id"] for path in paths]
    assert ids[0] == ids[1] != ids[2]
    assert os.listdir(pool) == []


# ---- info, check, dump -------------------------------------------------------

def test_info(cache_path):
    sample().write(cache_path)
    found = info(cache_path)
    layers = {layer["name"]: layer for layer in found["layers"]}
    assert found["records"] == 4 and found["first_sequence"] == 1 and found["last_sequence"] == 4
    assert [layers["base.raw"][key] for key in ("id", "clean_blocks", "dirty_blocks", "zero_blocks")] == [1, 2, 0, 0]
    assert [layers["web1.leaf"][key] for key in ("id", "clean_blocks", "dirty_blocks", "zero_blocks")] == [2, 2, 1, 8]
    assert layers["base.raw"]["stamp"] == hex(STAMP) and layers["base.raw"]["size_bytes"] == SIZE
    assert layers["base.raw"]["identity"].replace("-", "") == IDENTITY.hex()
    text = leafctl("cache", "info", cache_path).stdout
    assert "base.raw" in text and "web1.leaf" in text


def test_info_of_what_is_written_back(cache_path, work):
    cache, _, _ = written_back()
    cache.write(cache_path)
    assert check(cache_path) == (0, [])
    layer, orphan = info(cache_path)["layers"]
    assert [layer[key] for key in ("generation", "orphan", "epochs")] == [5, False, 3]
    assert [layer[key] for key in ("clean_blocks", "dirty_blocks", "zero_blocks")] == [1, 3, 1]
    assert [orphan[key] for key in ("generation", "orphan", "epochs")] == [4, True, 0]
    assert [orphan[key] for key in ("clean_blocks", "dirty_blocks", "zero_blocks")] == [0, 1, 5]
    text = leafctl("cache", "info", cache_path).stdout
    assert re.search(r"^ +1 +\S+ KiB +4 KiB +12 KiB +4 KiB +3  web1.leaf$", text, re.M) and "an orphan since" in text, text
    assert dumped(cache_path, work) == (0, {"web1.leaf": {0: 1, 1: 3, 41: 4, 42: 5}, "web1.leaf.2": {3: 9}})


@pytest.mark.parametrize("kind", [form.MIGRATE, form.MIGRATED])
def test_migration_never_goes_back(cache_path, kind):
    """Behind what the image has; before that an image may have had no room."""
    cache, first, second = written_back()
    cache.append(form.migrate_entry(1, form.MIGRATE, second))
    cache.append(form.migrate_entry(1, form.MIGRATE, first))
    cache.append(form.migrate_entry(1, form.MIGRATED, second))
    cache.write(cache_path)
    assert check(cache_path) == (0, [])
    cache.append(form.migrate_entry(1, kind, first))
    cache.write(cache_path)
    status, findings = check(cache_path)
    assert status == DAMAGED and len(findings) == 1 and "earlier place" in findings[0]


def test_migration_begins_with_its_barrier(cache_path):
    """One record says of several layers where they end, and that this is migrated."""
    cache, _, second = written_back()
    here = cache.sequence
    cache.append(
        form.migrate_entry(1, form.MIGRATED, second),
        form.barrier_entry(1),
        form.migrate_entry(1, form.MIGRATE, here),
        form.migrate_entry(1, form.MIGRATED, here),
    )
    cache.write(cache_path)
    assert check(cache_path) == (0, [])


def test_migration_behind_the_tail(cache_path):
    """What names a place that the tail has passed says nothing."""
    cache, first, _ = written_back()
    cache.slot = form.SEGMENT_BLOCKS
    cache.tail = (1, cache.sequence, cache.previous)
    cache.write_super()
    cache.append(form.migrate_entry(1, form.MIGRATED, first), form.migrate_entry(1, form.MIGRATE, 3))
    cache.write(cache_path)
    assert check(cache_path) == (0, [])


def test_check(cache_path):
    sample().write(cache_path)
    assert check(cache_path) == (0, [])
    assert "4 records, 6 blocks" in leafctl("cache", "check", cache_path).stdout


def test_dump(cache_path, work):
    sample().write(cache_path)
    assert dumped(cache_path, work) == (0, CONTENTS)
    assert dumped(cache_path, work, "--layer", "web1.leaf") == (0, {"web1.leaf": CONTENTS["web1.leaf"]})
    assert dumped(cache_path, work, "--layer", "other") == (1, {})


def test_dump_is_of_the_layer_size(cache_path, work):
    cache = sample()
    cache.append(form.data_entry(1, form.CLEAN, 99, pattern(7)))
    cache.write(cache_path)
    leafctl("cache", "dump", "-d", work, "--layer", "base.raw", cache_path)
    target = os.path.join(work, "base.raw")
    assert os.stat(target).st_size == SIZE
    assert os.stat(target).st_blocks * 512 < SIZE // 2
    assert file_bytes(target)[-1] == 7
    result = leafctl("cache", "dump", cache_path, check=False)
    assert result.returncode == USAGE


def test_dump_leaves_damaged_blocks_out(cache_path, work):
    cache = sample()
    cache.image[form.slot_offset(cache.records[1] + 1) + 7] ^= 1
    cache.write(cache_path)
    expected = {"base.raw": {12: 3}, "web1.leaf": CONTENTS["web1.leaf"]}
    assert dumped(cache_path, work) == (DAMAGED, expected)


def test_dump_names(cache_path, work):
    """A name from the cache makes a file in the directory, whatever it is."""
    cache = form.Cache()
    names = ["../../escape", "..", "", "same", "same", "/etc/passwd", "tab\tname"]
    for number, name in enumerate(names, 1):
        cache.append(declared(number, name, identity=bytes([number]) * 16),
                     form.data_entry(number, form.CLEAN, 0, pattern(number)))
    cache.write(cache_path)
    status, layers = dumped(cache_path, work)
    assert status == 0
    assert layers == {"_._.._escape": {0: 1}, "_.": {0: 2}, "layer-3": {0: 3}, "same": {0: 4}, "same.5": {0: 5},
                      "_etc_passwd": {0: 6}, "tab_name": {0: 7}}


def test_dump_of_impossible_sizes(cache_path, work):
    for size in (0, 1, BLOCK, 1 << 63, (1 << 64) - 1):
        cache = form.Cache()
        cache.append(declared(size=size), form.data_entry(1, form.CLEAN, 1 << 50, pattern(1)))
        cache.write(cache_path)
        assert dumped(cache_path, work)[0] in (1, DAMAGED)


def test_what_is_no_cache(cache_path, work):
    for content in (b"", bytes(MIB), b"x" * 100, b"LEAFCACH" * 20000):
        with open(cache_path, "wb") as file:
            file.write(content)
        for verb in ("info", "check", "dump"):
            options = ("-d", work) if verb == "dump" else ()
            result = leafctl("cache", verb, *options, cache_path, check=False)
            assert result.returncode == (DAMAGED if verb == "check" and any(content) else 1), result.stderr
    assert leafctl("cache", "info", os.path.join(work, "missing"), check=False).returncode == 1
    assert leafctl("cache", "check", work, check=False).returncode == 1


LOCK_TAKER = """
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR)
lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
fcntl.fcntl(fd, 37, lock)
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_live_cache_is_left_alone(cache_path, pool, work):
    sample().write(cache_path)
    before = file_bytes(cache_path)
    holder = subprocess.Popen(["/usr/bin/python3", "-c", LOCK_TAKER, cache_path], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"locked\n"
        for words in (("info",), ("check",), ("dump", "-d", work), ("create", "--force", "--pool", pool)):
            result = leafctl("cache", *words, cache_path, check=False)
            assert result.returncode == 1
            assert "unmount" in result.stderr or "in use" in result.stderr
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.wait(TIMEOUT)
    assert file_bytes(cache_path) == before


# ---- damage ------------------------------------------------------------------

def test_one_superblock_copy(cache_path):
    for copy, place in enumerate(form.SUPER_PLACES):
        cache = sample()
        cache.image[place:place + BLOCK] = bytes(BLOCK) if copy else b"\xff" * BLOCK
        cache.write(cache_path)
        assert check(cache_path) == (0, [])
        result = json.loads(leafctl("cache", "check", "--json", cache_path).stdout)
        assert result["bad_super_copies"] == 1 and result["records"] == 4


def test_an_unfinished_superblock_write(cache_path):
    """Only the first of two copies was written: the other still counts when it
    is damaged, and is the one that a next write hits first."""
    cache = sample()
    cache.generation = 9
    place, block = cache.super_block(cache.super_sequence + 1)
    cache.image[place:place + BLOCK] = block
    cache.write(cache_path)
    assert info(cache_path)["generation"] == 9
    cache.image[place + 1000] ^= 1
    cache.write(cache_path)
    assert info(cache_path)["generation"] == 1


def test_lost_record(cache_path):
    cache = sample()
    cache.image[form.slot_offset(cache.records[1]) + 60] ^= 1
    cache.write(cache_path)
    status, findings = check(cache_path)
    assert status == DAMAGED and "record 2" in findings[0]


@pytest.mark.parametrize("fields", [{"generation": 2}, {"generation": 0}, {"sequence": 6}, {"previous": 1},
                                    {"position": form.SEGMENTS_OFFSET}, {"cache_id": 1}, {"blocks": 0},
                                    {"blocks": 300}, {"blocks": 0xffffffff}, {"entries_bytes": 8},
                                    {"entries_bytes": 0xffffffff}, {"magic": 0}, {"durable": 5},
                                    {"durable": (1 << 64) - 1}, {"generation": (1 << 64) - 1}])
def test_forged_record(cache_path, fields):
    """Under a right checksum: the record is not taken, or the check tells."""
    cache = sample()
    cache.append(form.data_entry(1, form.CLEAN, 50, pattern(9)), **fields)
    cache.write(cache_path)
    status, _ = check(cache_path)
    assert status == DAMAGED or info(cache_path)["records"] == 4


@pytest.mark.parametrize("field, number", [("generation", (1 << 64) - 1), ("end_sequence", 1 << 45),
                                           ("tail", (0, 1 << 45, 0)), ("tail", (0, (1 << 64) - 1, 0))])
def test_numbers_at_their_end(cache_path, field, number):
    """No mount could go on from them, and what it wrote would not be found again."""
    cache = form.Cache()
    setattr(cache, field, number)
    cache.write_super()
    cache.write(cache_path)
    status, findings = check(cache_path)
    assert status == DAMAGED and "left for another" in findings[0]


@pytest.mark.parametrize("entry", [
    form.range_entry(0, form.ZERO, 0, 1), form.range_entry(1 << 24, form.ZERO, 0, 1),
    form.range_entry(1, form.ZERO, 0, 0), form.range_entry(1, form.ZERO, 1 << 51, 1),
    form.range_entry(1, form.FORGET, 1, (1 << 64) - 1), form.range_entry(1, form.FORGET, (1 << 64) - 1, 2),
    form.range_entry(1, 0, 0, 1), form.range_entry(1, 7, 0, 1), form.range_entry(1, form.DROP, 0, 1),
    form.data_entry(1, form.CLEAN, (1 << 51) - 1, pattern(1, 2)), form.data_entry(1, form.DIRTY, 0, []),
    (form.layer_entry(1, IDENTITY, 1, 1, "name")[0][:-1] + b"x", []),
    form.layer_entry(1, IDENTITY, 1, 1, "na\0me"), form.layer_entry(1, IDENTITY, 1, 1, "n" * 256),
])
def test_forged_entry(cache_path, entry):
    cache = sample()
    cache.append(entry)
    cache.write(cache_path)
    assert info(cache_path)["records"] == 4


@pytest.mark.parametrize("entries,words", [
    ([form.drop_entry(1), form.data_entry(1, form.CLEAN, 0, pattern(1))], "dropped before"),
    ([declared(identity=bytes(16))], "without an identity"),
    ([declared(identity=b"a" * 16)], "second image"),
    ([form.barrier_entry(2), form.data_entry(2, form.DIRTY, 0, pattern(1))], "behind the end of its epoch"),
    ([form.barrier_entry(2), form.barrier_entry(2)], "behind the end of its epoch"),
    ([form.migrate_entry(2, form.MIGRATE, 4)], "where no epoch"),
    ([form.barrier_entry(1), form.migrate_entry(2, form.MIGRATED, 5)], "where no epoch"),
    ([form.migrate_entry(2, form.MIGRATE, form.SUPERSEDED >> 19)], "where no epoch"),
    ([orphaned(), form.barrier_entry(2)], "writes back layer 2, an orphan"),
    ([orphaned(), declared(2, "web1.leaf", identity=IDENTITY[::-1])], "for an owner"),
])
def test_records_that_contradict(cache_path, entries, words):
    cache = sample()
    cache.append(*entries)
    cache.write(cache_path)
    status, findings = check(cache_path)
    assert status == DAMAGED and any(words in finding for finding in findings)


def metadata_and_data(cache):
    """(offset, bytes) of all that means something."""
    for place in form.SUPER_PLACES:
        yield place, BLOCK
    for slot in cache.records:
        blocks = struct.unpack_from("<I", cache.image, form.slot_offset(slot) + 4)[0]
        yield form.slot_offset(slot), (1 + blocks) * BLOCK


def served(path, work, original):
    """What a dump shows must be what one of the logs' prefixes holds."""
    status, layers = dumped(path, work)
    if status == 1:
        return
    for name, blocks in layers.items():
        for block, byte in blocks.items():
            assert byte in original.get(name, {}).get(block, ()), (name, block, byte)


HISTORY = {"base.raw": {10: [1], 11: [2], 12: [3]}, "web1.leaf": {5: [4], 25: [5], 26: [6]}}


@pytest.mark.slow
def test_every_bit(cache_path, work, rng):
    """Flipped, each is found or harmless, and nothing false is ever shown. A
    part of them here; the unit tests do more."""
    cache = sample()
    cache.write(cache_path)
    bits = [(offset + at // 8, at % 8) for offset, length in metadata_and_data(cache) for at in range(length * 8)]
    with opened(cache_path) as fd:
        for offset, bit in rng.sample(bits, scaled(400, len(bits))):
            byte = cache.image[offset]
            write_all(fd, bytes([byte ^ (1 << bit)]), offset)
            status, _ = check(cache_path)
            if status == 0:
                found = info(cache_path)
                assert found["records"] >= 3
            served(cache_path, work, HISTORY)
            write_all(fd, bytes([byte]), offset)
    assert check(cache_path) == (0, [])


def test_random_damage(cache_path, work, rng):
    cache = sample()
    for _ in range(scaled(60, 2000)):
        image = bytearray(cache.image)
        for _ in range(rng.randrange(1, 20)):
            offset, length = rng.choice(list(metadata_and_data(cache)))
            at = offset + rng.randrange(length)
            image[at:at + 8] = rng.randbytes(8)
        damaged = form.Cache()
        damaged.image = image
        damaged.write(cache_path)
        check(cache_path)
        leafctl("cache", "info", cache_path, check=False, timeout=TIMEOUT)
        served(cache_path, work, HISTORY)


def test_cut_off(cache_path):
    cache = sample()
    for length in (1, BLOCK - 1, BLOCK, 65536, MIB, len(cache.image) - 1):
        cache.write(cache_path)
        os.truncate(cache_path, length)
        status, findings = check(cache_path)
        assert status == DAMAGED, length
        assert length < BLOCK or "it is cut off" in findings[0]
