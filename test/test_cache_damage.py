"""A cache that is damaged, cannot be read in some place, is read-only, of an older version, or no cache
at all: what is lost is said and nothing else is lost with it."""
import contextlib
import functools
import json
import lzma
import os
import struct
import time

import pytest
import xxhash

import cache_format
import store
from harness import (BLOCK, MIB, Loop, MountError, converted, faults, file_bytes, leafctl, make_image, make_raw, opened,
                     read_file, run, state_of, unmount, write_all)

HELD = ["migrate_idle_ms=60000", "max_dirty_age=86400", "migrate_threshold=100", "cache_size=16M"]
DISKS = ("web1", "web2")
BLOCKS = 32
DAMAGED = 3
HERE = os.path.dirname(os.path.realpath(__file__))


@pytest.fixture
def cache(work):
    return os.path.join(work, "local.cache")


@pytest.fixture
def writeback(mount, cache):
    return functools.partial(mount, f"cache={cache}", "mode=writeback")


@pytest.fixture
def images(pool):
    return [make_image(os.path.join(pool, f"{name}.leaf"), BLOCKS * BLOCK, chunk="64K") for name in DISKS]


def content(disk, block):
    return bytes([65 + 32 * disk + block]) * BLOCK


def write_turns(live, count=8):
    """Each block of the one and the other disk in turn is flushed."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(opened(live.file(f"{name}.img"))) for name in DISKS]
        for block in range(count):
            for disk, fd in enumerate(files):
                write_all(fd, content(disk, block), block * BLOCK)
                os.fsync(fd)


def records(cache):
    """(slot, sequence, layers that it has data of) of each record, in order."""
    log = file_bytes(cache)
    found = []
    for offset in range(cache_format.SEGMENTS_OFFSET, len(log), BLOCK):
        fields = cache_format.RECORD.unpack_from(log, offset)
        if fields[0] != cache_format.RECORD_MAGIC[2]:
            continue
        layers, at, end = set(), offset + cache_format.BODY_OFFSET, offset + cache_format.BODY_OFFSET + fields[10]
        while at < end:
            layer, kind, words, _ = cache_format.ENTRY.unpack_from(log, at)
            at += cache_format.ENTRY.size + 8 * words
            if kind == cache_format.DIRTY:
                layers.add(layer)
        found.append(((offset - cache_format.SEGMENTS_OFFSET) // BLOCK, fields[6], layers))
    return sorted(found, key=lambda record: record[1])


def spoil(cache, offset):
    with opened(cache) as fd:
        byte = os.pread(fd, 1, offset)
        write_all(fd, bytes([byte[0] ^ 0x10]), offset)


def layers_of(cache):
    return {layer["id"]: layer for layer in cache_info(cache)["layers"]}


def cache_info(cache, **options):
    return json.loads(leafctl("cache", "info", "--json", cache, **options).stdout)


def is_right(live, disk, count=8):
    found = read_file(live.file(f"{DISKS[disk]}.img"), count * BLOCK)
    return found == b"".join(content(disk, block) for block in range(count))


def assert_lost(live, disk):
    """It is failed, says why, and gives nobody anything."""
    name = f"{DISKS[disk]}.img"
    state = state_of(live, name)
    assert state["state"] == "failed" and "lost changes of it" in state["reason"], state
    assert "leafctl cache dump" in state["reason"]
    for flags in (os.O_RDONLY, os.O_RDWR):
        with pytest.raises(OSError):
            os.close(os.open(live.file(name), flags))
    assert f"{DISKS[disk]}.leaf: the cache's log is damaged, and has lost changes of it" in live.messages()


def saved(cache, work, env=None):
    target = os.path.join(work, "saved")
    os.makedirs(target, exist_ok=True)
    result = leafctl("cache", "dump", "-d", target, cache, check=False, env=env)
    return result.returncode, {name: file_bytes(os.path.join(target, name)) for name in os.listdir(target)}


# ---- A record in the middle ---------------------------------------------------------------

@pytest.mark.parametrize("crash", [False, True], ids=["unmounted", "crashed"])
@pytest.mark.parametrize("how", ["bit", "zeros"])
def test_a_record_is_damaged(writeback, images, cache, work, how, crash):
    """Whose changes were in it is failed, the other disk goes on, the end of the mount says so,
    and the check does before."""
    live = writeback("nodrain", *HELD)
    write_turns(live)
    if crash:
        live.kill9()
    else:
        live.stop()
    slot, _, layers = [record for record in records(cache) if record[2]][6]
    lost = next(disk for disk in range(2) if layers_of(cache)[min(layers)]["name"] == images[disk])
    assert leafctl("cache", "check", cache).returncode == 0
    offset = cache_format.slot_offset(slot)
    if how == "bit":
        spoil(cache, offset + 200)
    else:
        with opened(cache) as fd:
            write_all(fd, bytes(BLOCK), offset)
    checked = leafctl("cache", "check", cache, check=False)
    assert checked.returncode == DAMAGED and "lost changes of it" in checked.stdout
    assert [layer["name"] for layer in cache_info(cache)["layers"] if "loss" in layer] == [images[lost]]
    before = file_bytes(images[lost])
    refused = leafctl("cache", "adopt", cache, os.path.basename(images[lost]), check=False)
    assert refused.returncode == 1 and "lost changes of it" in refused.stderr and "--force" in refused.stderr
    assert file_bytes(images[lost]) == before
    for again in range(2):
        live = writeback("nodrain", *HELD)
        assert_lost(live, lost)
        assert is_right(live, 1 - lost)
        if again:
            live.kill9()
        else:
            live.stop()
    live = writeback()
    assert_lost(live, lost)
    unmount(live.path)
    assert live.wait() not in (0, None), "something stayed behind"
    assert converted(images[1 - lost], work)[:8 * BLOCK] == b"".join(content(1 - lost, block) for block in range(8))
    status, layers = saved(cache, work)
    assert status == DAMAGED and len(layers) == 2


def test_what_is_lost_is_given_up(writeback, images, cache, pool, work):
    """By a command: then the disk is as the pool has it, and what the cache has stays aside."""
    live = writeback("nodrain", *HELD)
    write_turns(live)
    live.stop()
    spoil(cache, cache_format.slot_offset([record for record in records(cache) if record[2]][6][0]) + 200)
    with writeback("nodrain", *HELD) as live:
        lost = next(disk for disk in range(2) if state_of(live, f"{DISKS[disk]}.img")["state"] == "failed")
    leafctl("unlock", "--force", pool, f"{DISKS[lost]}.leaf")
    with writeback("nodrain", *HELD) as live:
        assert read_file(live.file(f"{DISKS[lost]}.img"), 8 * BLOCK) == bytes(8 * BLOCK)
        with opened(live.file(f"{DISKS[lost]}.img")) as fd:
            write_all(fd, content(lost, 3), 0)
        assert is_right(live, 1 - lost)
    assert saved(cache, work)[0] == DAMAGED
    leafctl("cache", "drain", cache)
    number, = [layer["id"] for layer in cache_info(cache)["layers"] if "loss" in layer]
    refused = leafctl("cache", "adopt", cache, number, check=False)
    assert refused.returncode == 1 and "lost changes of it" in refused.stderr, refused.stderr
    assert leafctl("cache", "adopt", "--force", cache, number, check=False).returncode == DAMAGED
    found = converted(images[lost], work)
    whole = [block for block in range(8) if found[block * BLOCK:(block + 1) * BLOCK] == content(lost, block)]
    assert len(whole) == 7, whole


def test_all_is_lost(writeback, images, cache, pool):
    """Nothing but the superblock is left: whoever had changes there is refused, also for reading."""
    live = writeback("nodrain", *HELD)
    write_turns(live)
    live.stop()
    os.truncate(cache, MIB)
    for _ in range(2):
        live = writeback("nodrain", *HELD)
        for name in DISKS:
            with pytest.raises(OSError):
                os.close(os.open(live.file(f"{name}.img"), os.O_RDONLY))
        assert "may have lost all changes of it" in live.messages()
        live.stop()
    leafctl("unlock", "--force", pool, "web1.leaf")
    with writeback("nodrain", *HELD) as live:
        assert read_file(live.file("web1.img"), BLOCK) == bytes(BLOCK)


@pytest.mark.parametrize("crash", [False, True], ids=["unmounted", "crashed"])
def test_damage_of_what_the_pool_has(mount, images, cache, crash):
    """Of blocks that are mirrored one record is gone: older copies of them in the cache are not shown, the mount
    says that its log is damaged, and every disk is well."""
    options = [f"cache={cache}", "mode=persistent", "cache_size=16M", "read_run_bypass=1G"]
    live = mount(*options)
    with opened(live.file("web1.img")) as one, opened(live.file("web2.img")) as two:
        for turn in range(4):
            for disk, fd in enumerate((one, two)):
                write_all(fd, b"".join(content(disk, block + turn) for block in range(4)), 0)
                os.fsync(fd)
                time.sleep(0.3)  # the cache's record is closed
    if crash:
        live.kill9()
    else:
        live.stop()
    found = records(cache)
    spoil(cache, cache_format.slot_offset(found[len(found) - 4][0]) + 200)
    # After a crash it is the end: nothing shows that it was durable, and nobody was promised that.
    assert leafctl("cache", "check", cache, check=False).returncode == (0 if crash else DAMAGED)
    for mode in ("persistent", "ephemeral", "writeback"):
        with mount(*options, f"mode={mode}") as live:
            for disk, name in enumerate(DISKS):
                assert state_of(live, f"{name}.img")["state"] == "active"
                assert read_file(live.file(f"{name}.img"), 4 * BLOCK) == b"".join(
                    content(disk, block + 3) for block in range(4))
            assert crash or "in its log record" in live.messages()


# ---- A block that cannot be read ------------------------------------------------------------

@pytest.fixture(scope="session")
def bad_block(run_directory):
    """bad_block(FILE, OFFSET): what to start a program with that cannot read there."""
    library = os.path.join(run_directory, "bad_block.so")
    run("cc", *store.FLAGS, "-fPIC", "-shared", "-o", library, os.path.join(HERE, "bad_block.c"))

    def environment(path, offset):
        return {"LD_PRELOAD": library, "BAD_FILE": os.path.realpath(path), "BAD_OFFSET": str(offset),
                "ASAN_OPTIONS": os.environ["ASAN_OPTIONS"] + ":verify_asan_link_order=0"}
    return environment


@pytest.mark.parametrize("what", ["header", "data", "behind the end", "superblock"])
def test_a_block_cannot_be_read(writeback, images, cache, work, bad_block, what):
    """It is a hole, and no more than that: everything is said of the rest, shown, dumped, drained."""
    live = writeback("nodrain", *HELD)
    write_turns(live)
    live.stop()
    found = [record for record in records(cache) if record[2]]
    slot = {"header": found[5][0], "data": found[5][0] + 1, "behind the end": records(cache)[-1][0] + 40,
            "superblock": None}[what]
    env = bad_block(cache, cache_format.SUPER_PLACES[1] if slot is None else cache_format.slot_offset(slot))
    harmless = what in ("behind the end", "superblock")
    assert len(cache_info(cache, env=env)["layers"]) == 2
    assert leafctl("cache", "check", cache, check=False, env=env).returncode == (0 if harmless else DAMAGED)
    status, layers = saved(cache, work, env)
    assert status == (0 if harmless else DAMAGED) and len(layers) == 2
    lost = next(disk for disk in range(2) if layers_of(cache)[min(found[5][2])]["name"] == images[disk])
    live = writeback("nodrain", *HELD, env=env)
    if what == "header":
        assert_lost(live, lost)
    elif harmless:
        assert is_right(live, lost)
    assert is_right(live, 1 - lost)
    live.stop()
    drained = leafctl("cache", "drain", cache, check=False, env=env)
    assert drained.returncode == (1 if what == "header" else 0), drained.stderr
    assert "create --force" not in drained.stderr
    assert converted(images[1 - lost], work)[:8 * BLOCK] == b"".join(content(1 - lost, block) for block in range(8))


# ---- A device that is read-only ---------------------------------------------------------------

def test_drain_from_a_read_only_device(mount, images, pool, work):
    """What is dirty goes to the pool, and what cannot be recorded is said."""
    with Loop(make_raw(os.path.join(work, "device"), bytes(16 * MIB))) as loop:
        live = mount(f"cache={loop.device}", "mode=writeback", "nodrain", *HELD[:3])
        write_turns(live)
        live.kill9()
        run("blockdev", "--setro", loop.device)
        try:
            before = run("sha256sum", loop.device).stdout
            assert len(cache_info(loop.device)["layers"]) == 2
            assert leafctl("cache", "check", loop.device).returncode == 0
            with pytest.raises(MountError) as refused:
                mount(f"cache={loop.device}", "mode=writeback")
            assert "leafctl cache drain" in refused.value.messages
            assert "create --force" not in refused.value.messages
            drained = leafctl("cache", "drain", loop.device)
            assert "cannot be written" in drained.stderr
            assert run("sha256sum", loop.device).stdout == before
        finally:
            run("blockdev", "--setrw", loop.device)
    for disk, image in enumerate(images):
        assert converted(image, work)[:8 * BLOCK] == b"".join(content(disk, block) for block in range(8))


@pytest.mark.parametrize("fails", [False, True])
def test_drain_from_a_dying_device(writeback, images, cache, work, fails):
    """It takes no superblock any more. Nobody is told to make it anew while something is nowhere else."""
    live = writeback("nodrain", *HELD)
    write_turns(live)
    live.kill9()
    before = file_bytes(cache)
    rules = ["cache.super/local.cache:EIO@1x1", *(["image.sync/web1.leaf:EIO"] if fails else [])]
    drained = leafctl("cache", "drain", cache, env=faults(*rules), check=False)
    assert drained.returncode == fails and "cannot be written" in drained.stderr, drained
    assert ("keep it" in drained.stderr) == fails, drained
    again = f"leafctl cache create --force --pool '{os.path.dirname(images[0])}' '{cache}'"
    assert (again in drained.stderr) != fails, drained
    assert file_bytes(cache) == before
    for disk, image in list(enumerate(images))[fails:]:
        assert converted(image, work)[:8 * BLOCK] == b"".join(content(disk, block) for block in range(8))


# ---- What is no cache -----------------------------------------------------------------------------

def zeros(path):
    return make_raw(path, bytes(16 * MIB))


def ext4(path):
    make_raw(path, bytes(16 * MIB))
    run("mke2fs", "-q", "-t", "ext4", path)
    return path


def qcow2(path):
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "16M")
    return path


def late_data(path):
    make_raw(path, bytes(16 * MIB))
    with opened(path) as fd:
        write_all(fd, b"late", 9 * MIB + 5)
    return path


@pytest.mark.parametrize("name,make,words", [
    ("web9.raw", zeros, "is named like an image"), ("local.raw", late_data, "has data that is no cache"),
    ("local.cache", late_data, "has data that is no cache"), ("local.cache", ext4, "ext4"),
    ("local.cache", qcow2, "is a disk image (qcow2)"),
    ("local.cache", lambda path: make_image(path, 16 * MIB), "is a leaf image"),
])
@pytest.mark.parametrize("mode", ["persistent", "writeback", "ephemeral"])
def test_an_image_is_no_cache(mount, images, work, mode, name, make, words):
    path = make(os.path.join(work, name))
    before = file_bytes(path)
    with pytest.raises(MountError) as refused:
        mount(f"cache={path}", f"mode={mode}", "cache_size=16M")
    assert words in refused.value.messages
    assert ("create --force" in refused.value.messages) == (words == "has data that is no cache")
    assert file_bytes(path) == before


def test_a_directory_is_no_cache(mount, images, work):
    with pytest.raises(MountError) as refused:
        mount(f"cache={work}", "mode=persistent")
    assert "directory" in refused.value.messages and "cache drain" not in refused.value.messages


@pytest.mark.parametrize("name", ["cache.raw", "cache.img", "cache.leaf", "cache"])
def test_a_cache_is_no_disk(mount, images, pool, name):
    """Whatever it is called, in the pool or not."""
    path = os.path.join(pool, name)
    for _ in range(2):
        with mount(f"cache={path}", "mode=writeback", "cache_size=16M") as live:
            assert sorted(live.names()) == ["web1.img", "web2.img"]
            assert "is the cache of this mount, and no image" in live.messages()


# ---- Version 1 ------------------------------------------------------------------------------------

SAMPLE = os.path.join(HERE, "samples", "cache-1.xz")


def version_of(cache):
    log = file_bytes(cache)
    return {struct.unpack_from("<I", log, place + 8)[0] for place in cache_format.SUPER_PLACES}.pop()


def move_to_pool(log, pool):
    for place in cache_format.SUPER_PLACES:
        path = os.path.realpath(pool).encode()
        struct.pack_into("<16s", log, place + 80, xxhash.xxh3_128_digest(path))
        struct.pack_into("<I", log, place + 152, len(path))
        struct.pack_into("<2048s", log, place + 256, path)
        struct.pack_into("<Q", log, place + cache_format.SUPER_CHECKSUM, 0)
        struct.pack_into("<Q", log, place + cache_format.SUPER_CHECKSUM,
                         cache_format.checksum(log[place:place + BLOCK]))


@pytest.fixture
def version_1(cache, images, pool):
    """A cache that version 0.1.0 left in a crash, as if it were of this pool: each disk has the blocks 0 to 7, a
    discard of block 9, and of web1 block 0 is older in the pool."""
    log = bytearray(lzma.decompress(open(SAMPLE, "rb").read()))
    move_to_pool(log, pool)
    with open(cache, "wb") as file:
        file.write(log)
    return cache


def test_version_1_is_read(version_1, work):
    assert leafctl("cache", "check", version_1).returncode == 0
    layers = cache_info(version_1)["layers"]
    assert [layer["dirty_blocks"] for layer in layers] == [8, 8]
    status, dumped = saved(version_1, work)
    assert status == 0
    assert sorted(found[:8 * BLOCK] for found in dumped.values()) == sorted(
        b"".join(content(disk, block) for block in range(8)) for disk in range(2))


def test_version_1_is_damaged(version_1):
    """Nothing there says whose changes a record had: nobody who is written back is believed to be whole."""
    with opened(version_1) as fd:
        heads = [offset for offset in range(MIB, 2 * MIB, BLOCK) if os.pread(fd, 4, offset) == b"LFCR"]
    spoil(version_1, heads[8] + 200)
    assert leafctl("cache", "check", version_1, check=False).returncode == DAMAGED
    assert all("may have lost changes" in layer["loss"] for layer in cache_info(version_1)["layers"])


def test_version_1_goes_on(version_1, writeback, images, work):
    """A mount makes it version 2, behind what it has of version 1."""
    assert version_of(version_1) == 1
    live = writeback("nodrain", *HELD[:3])
    write_turns(live)
    live.stop()
    assert version_of(version_1) == 2
    assert leafctl("cache", "check", version_1).returncode == 0
    assert sorted(layer["dirty_blocks"] for layer in cache_info(version_1)["layers"]) == [8, 8, 8, 8]
    assert leafctl("cache", "drain", version_1, check=False).returncode == 1, "the images of version 1 are not there"
    for disk, image in enumerate(images):
        assert converted(image, work)[:8 * BLOCK] == b"".join(content(disk, block) for block in range(8))
