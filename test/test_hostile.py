"""Images that are damaged, cut off or forged: refused with a sentence, or
harmless. Nothing crashes, hangs, or writes to what it refused."""
import errno
import os
import re
import resource

import pytest

import leaf_format
from harness import (BLOCK, GIB, KIB, MIB, SANITIZED, discard, expect_errno, faults, file_bytes, leafctl, make_image,
                     make_raw, opened, run, scaled, write_all)

DAMAGED = 3
TIMEOUT = 100
SIZE = 3 * MIB + 513
CHUNK_BYTES = 64 * KIB
TIB = 1 << 40
# What looking at a small file may take, whatever it says.
COST_BYTES = 512 * MIB
COST_SECONDS = 60 if SANITIZED else 10
EDGES = [0, 1, 511, 4095, 4097, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 32) + 1, 1 << 48, (1 << 62) + 4096,
         (1 << 63) - 4096, (1 << 63) - 1, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1]


@pytest.fixture
def sample(mount, pool, rng):
    """An image in the middle of its life, as a kill left it: chunks, zeros and
    journal records. Its bytes, and its content."""
    make_raw(os.path.join(pool, "base.raw"), rng.randbytes(SIZE))
    image = make_image(os.path.join(pool, "web1.leaf"), parent=os.path.join(pool, "base.raw"), chunk=CHUNK_BYTES)
    with mount() as live, opened(live.file("web1.img")) as fd:
        write_all(fd, rng.randbytes(700_000), 100_000)
        discard(fd, 64 * KIB, 256 * KIB)
    live = mount()
    fd = os.open(live.file("web1.img"), os.O_RDWR)
    for number in range(5):
        write_all(fd, rng.randbytes(20_000), 1_000_000 + number * 300_000)
        discard(fd, 2 * MIB + number * 128 * KIB, 64 * KIB)
        os.fsync(fd)
    live.kill9()
    expect_errno(errno.ENOTCONN, os.close, fd)
    return trimmed(image)


def trimmed(image):
    """Without most of the empty slots at the end, which no chunk uses: a sound
    image that can be copied quickly."""
    content = file_bytes(image).rstrip(b"\0")
    content += bytes(2 * CHUNK_BYTES - len(content) % leaf_format.PAGE)
    with opened(image) as fd:
        os.ftruncate(fd, len(content))
    leafctl("check", image)
    return content


def content_of(pool, path):
    """(exit status, bytes or None) of leafctl convert."""
    target = os.path.join(pool, "..", "content.raw")
    if os.path.exists(target):
        os.unlink(target)
    result = leafctl("convert", path, target, check=False, timeout=TIMEOUT)
    no_crash(result, path)
    if result.returncode != 0:
        assert not os.path.exists(target), "a convert that failed left its target"
        return result.returncode, None
    return 0, file_bytes(target)


def no_crash(result, path):
    """An end of its own, and a sentence that says what is wrong and where: in
    this file, or in the one that it names as its parent."""
    assert result.returncode in (0, 1, DAMAGED), f"{path}: {result.args[1]}: {result.returncode}\n{result.stderr}"
    if result.returncode == 1:
        assert os.path.dirname(path) in result.stderr, result
    if result.returncode == DAMAGED:
        assert "damage: " in result.stdout, result


def probe(path):
    """Everything that only looks; the status of check. What check calls clean
    the others can read."""
    before = os.stat(path)
    status = {}
    for verb in ("info", "map", "check"):
        result = leafctl(verb, path, check=False, timeout=TIMEOUT)
        no_crash(result, path)
        status[verb] = result.returncode
    assert status["check"] != 0 or set(status.values()) == {0}, f"{path}: {status}"
    after = os.stat(path)
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size), f"{path} was written"
    return status["check"]


def place(pool, name, image):
    """Writes IMAGE with its zeros as holes: most of it is."""
    path = os.path.join(pool, name)
    with open(path, "wb") as file:
        file.truncate(len(image))
        for offset in range(0, len(image), 64 * KIB):
            piece = image[offset:offset + 64 * KIB]
            if piece.count(0) != len(piece):
                file.seek(offset)
                file.write(piece)
    return path


def mounted_with(mount, pool, expected):
    """A pool full of such images mounts; its good disk and the ones that open
    can be read, and the daemon ends in order."""
    with mount() as live:
        assert "base.img" in live.names()
        for name in live.names():
            try:
                with opened(live.file(name), os.O_RDONLY) as fd:
                    os.pread(fd, MIB, 0)
                    os.lseek(fd, 0, os.SEEK_HOLE)
            except OSError:
                pass
        assert file_bytes(live.file("base.img")) == expected


def header_values(image, name, rng):
    _, form = leaf_format.HEADER_FIELDS[name]
    if form.endswith("s"):
        length = int(form[:-1])
        return [bytes(length), b"\xff" * length, rng.randbytes(length), b"../" * (length // 3), b"/etc/passwd",
                b"%s%n", b"base.raw\0x"]
    limit = (1 << 32) if form == "<I" else (1 << 64)
    value = leaf_format.field(image, name)
    near = [value - 1, value + 1, value * 2, value // 2, value ^ 4096]
    return sorted({number for number in [*EDGES, *near] if 0 <= number < limit and number != value})


@pytest.mark.parametrize("name", list(leaf_format.HEADER_FIELDS))
def test_forged_header_fields(mount, pool, sample, rng, name):
    """Every field of the header with values that a test of one's own would
    not think of, and the checksum right."""
    for number, value in enumerate(header_values(sample, name, rng)):
        probe(place(pool, f"forged{number}.leaf", leaf_format.forge(sample, **{name: value})))
    mounted_with(mount, pool, file_bytes(os.path.join(pool, "base.raw")))


def test_header_copies(pool, sample, rng):
    """Either copy is enough; without both the image is refused."""
    places = leaf_format.header_places(sample)
    assert len(places) == 2
    _, expected = content_of(pool, os.path.join(pool, "web1.leaf"))
    for spoilt in places:
        for _ in range(scaled(20, 200)):
            image = bytearray(sample)
            image[spoilt + rng.randrange(leaf_format.PAGE)] ^= 1 << rng.randrange(8)
            path = place(pool, "one.leaf", image)
            probe(path)
            assert content_of(pool, path) == (0, expected)
    for _ in range(scaled(20, 200)):
        image = bytearray(sample)
        for spoilt in places:
            image[spoilt + rng.randrange(leaf_format.PAGE)] ^= 1 << rng.randrange(8)
        path = place(pool, "both.leaf", image)
        assert probe(path) in (1, DAMAGED)
        assert content_of(pool, path)[0] == 1


def metadata_spots(sample):
    """Every byte of the metadata but those of the journal's last record: what
    is wrong there cannot be told from a write that a crash cut off."""
    places = dict(leaf_format.metadata_places(sample))
    last = max((leaf_format.record_order(sample, offset), offset) for offset in places
               if sample[offset:offset + 4] == leaf_format.RECORD_MAGIC)[1]
    del places[last]
    return [offset + byte for offset, length in places.items() for byte in range(length)]


def test_flipped_bits_in_the_metadata(mount, pool, sample, rng):
    """A flip is found, or changes nothing of the disk's content."""
    _, expected = content_of(pool, os.path.join(pool, "web1.leaf"))
    spots = metadata_spots(sample)
    for number in range(scaled(40 if SANITIZED else 150, 2000)):
        image = bytearray(sample)
        flips = rng.sample(spots, rng.choice([1, 1, 2, 16]))
        for spot in flips:
            image[spot] ^= 1 << rng.randrange(8)
        path = place(pool, f"flipped{number % 50}.leaf", image)
        status = probe(path)
        converted, content = content_of(pool, path)
        assert status != 0 or converted == 0 and content == expected, f"{flips}: neither found nor harmless"
    mounted_with(mount, pool, file_bytes(os.path.join(pool, "base.raw")))


@pytest.mark.slow
def test_forged_metadata(mount, pool, sample, rng):
    """Pages and records with wild numbers in them and right checksums."""
    places = list(leaf_format.metadata_places(sample))
    assert places
    for number in range(scaled(60 if SANITIZED else 250, 4000)):
        image = bytearray(sample)
        for _ in range(rng.choice([1, 1, 3])):
            offset, length = rng.choice(places)
            for _ in range(rng.choice([1, 2, 8])):
                at = offset + rng.randrange(0, min(length, rng.choice([64, 128, length])), 4)
                wild = rng.choice([rng.choice(EDGES), rng.randrange(1 << 64), rng.randrange(64)])
                image[at:at + 8] = wild.to_bytes(8, "little")
            leaf_format.seal(image, offset, min(length, len(image) - offset), leaf_format.PAGE_CHECKSUM)
        path = place(pool, f"wild{number % 50}.leaf", image[:len(sample)])
        status = probe(path)
        converted, _ = content_of(pool, path)
        assert converted == 0 or status != 0, "check calls it clean, and it cannot be read"
    mounted_with(mount, pool, file_bytes(os.path.join(pool, "base.raw")))


def test_repair_ends_in_a_clean_image(pool, sample, rng):
    """What --repair says it mended is mended; what it cannot mend it says."""
    spots = metadata_spots(sample)
    for _ in range(scaled(20 if SANITIZED else 60, 600)):
        image = bytearray(sample)
        image[rng.choice(spots)] ^= 1 << rng.randrange(8)
        path = place(pool, "mended.leaf", image)
        result = leafctl("check", "--repair", path, check=False)
        no_crash(result, path)
        if result.returncode == 0:
            leafctl("check", path)
            assert content_of(pool, path)[0] == 0


def test_cut_off_anywhere(mount, pool, sample, rng):
    cuts = {0, 1, 511, 512, 4095, 4096, 4097, 8192, 65535, 65536, 65537, len(sample) - 1, len(sample) - 4096}
    cuts |= {offset + step for offset, _ in leaf_format.metadata_places(sample) for step in (0, 64, 4096)}
    cuts |= {rng.randrange(len(sample)) for _ in range(20)}
    _, expected = content_of(pool, os.path.join(pool, "web1.leaf"))
    for number, cut in enumerate(sorted(cut for cut in cuts if cut < len(sample))):
        path = place(pool, f"cut{number}.leaf", sample[:cut])
        status = probe(path)
        converted, content = content_of(pool, path)
        assert status != 0 or converted == 0 and content == expected, f"cut at {cut}: neither found nor harmless"
    mounted_with(mount, pool, file_bytes(os.path.join(pool, "base.raw")))


def test_noise(pool, rng):
    """Bytes of no meaning behind a good magic, and none."""
    for number in range(scaled(30, 500)):
        noise = bytearray(rng.randbytes(rng.choice([100, 4096, 70_000, 1_200_000])))
        if number % 2:
            noise[:8] = leaf_format.HEADER_MAGIC
        path = place(pool, "noise.leaf", noise)
        assert probe(path) in (1, DAMAGED)


@pytest.mark.parametrize("size", ["0", "1", "511", "9223372036854775807", "9223372036853727233",
                                  "18446744073709551615", "16E", "-1", "1x", ""])
def test_impossible_sizes_are_refused(pool, size):
    path = os.path.join(pool, "x.leaf")
    result = leafctl("create", path, size, check=False)
    assert result.returncode in (1, 2) and result.stderr
    assert not os.path.exists(path)


@pytest.mark.parametrize("verb", ["create", "clone", "convert"])
def test_no_image_of_another_format_is_made(work, verb):
    """What is called web.qcow2 is taken for one."""
    parent, path = make_image(os.path.join(work, "web1.leaf"), "1M"), os.path.join(work, "web.qcow2")
    words = {"create": (path, "1M"), "clone": (parent, path), "convert": (parent, path)}[verb]
    result = leafctl(verb, *words, check=False)
    assert result.returncode == 1 and "not made here" in result.stderr, result
    assert not os.path.exists(path)
    assert "children" not in leafctl("info", parent).stdout


def test_the_largest_size(mount, pool):
    """Close to 2^63 bytes: shown, written at both ends, read back, checked."""
    size = (1 << 63) - (1 << 20)
    image = make_image(os.path.join(pool, "huge.leaf"), str(size))
    assert str(size) in leafctl("info", image).stdout
    with mount() as live, opened(live.file("huge.img")) as fd:
        assert os.fstat(fd).st_size == size
        for offset in (0, 1 << 40, size - 4096):
            write_all(fd, b"far out!", offset)
        os.fsync(fd)
    leafctl("check", image)
    with mount() as live, opened(live.file("huge.img")) as fd:
        for offset in (0, 1 << 40, size - 4096):
            assert os.pread(fd, 8, offset) == b"far out!"
    leafctl("map", image, timeout=TIMEOUT)
    assert os.stat(image).st_blocks * 512 < 64 * MIB


def limit_costs():
    resource.setrlimit(resource.RLIMIT_CPU, (COST_SECONDS, COST_SECONDS))
    if not SANITIZED:
        resource.setrlimit(resource.RLIMIT_AS, (COST_BYTES, COST_BYTES))


def cheaply(verb, path, *options, env=None):
    """Runs leafctl VERB, which ends in good order and soon, and is small."""
    result = leafctl(verb, *options, path, check=False, timeout=TIMEOUT, preexec_fn=limit_costs, env=env)
    no_crash(result, path)
    return result


def small_daemon(live):
    with open(f"/proc/{live.pid}/status", encoding="utf-8") as file:
        peak = int(re.search(r"VmHWM:\s+(\d+) kB", file.read())[1]) * KIB
    return SANITIZED or peak < COST_BYTES


def forged_journal(pool, length, *records, chunk=CHUNK_BYTES):
    """An image of nothing but a journal, in a sparse file of that length, beside a
    good disk."""
    make_raw(os.path.join(pool, "base.raw"), bytes(2 * MIB))
    path = make_image(os.path.join(pool, "evil.leaf"), "2T", chunk=chunk)
    leaf_format.add_records(path, *records)
    os.truncate(path, length)
    assert os.stat(path).st_blocks * 512 < 4 * MIB
    return path


def refused_cheaply(mount, pool, path, why):
    """By all that opens it; a repair leaves out what is wrong."""
    for verb, status in (("map", 1), ("check", DAMAGED)):
        result = cheaply(verb, path)
        assert result.returncode == status and why in result.stdout + result.stderr
    with mount() as live:
        with opened(live.file("base.img"), os.O_RDONLY) as fd:
            expect_errno(errno.EIO, os.open, live.file("evil.img"), os.O_RDWR)
            assert os.pread(fd, BLOCK, MIB) == bytes(BLOCK)
        assert why in live.messages()
        assert small_daemon(live)
    cheaply("check", path, "--repair")
    assert cheaply("map", path).returncode == 0


@pytest.mark.parametrize("slot", [2_000_000, 100_000_000])
def test_far_slot_of_a_sparse_file(mount, pool, slot):
    """A few KiB do not take memory for all slots that the file could have."""
    path = forged_journal(pool, 8 * TIB, [(leaf_format.CHUNK, slot, 0, 1, 0)])
    refused_cheaply(mount, pool, path, "contradicts the chunk table")


def test_many_drops(mount, pool):
    """An entry costs what it names, not a walk through all slots."""
    path = forged_journal(pool, TIB, [(leaf_format.CHUNK, 1_000_000, 0, 1, 0)],
                          [(leaf_format.DROP, 1, 20_000_000)] * 43_000)
    for verb in ("map", "check"):
        assert cheaply(verb, path).returncode == 0
    with mount() as live:
        with opened(live.file("evil.img")) as fd:
            assert os.pread(fd, BLOCK, MIB) == bytes(BLOCK)
        assert small_daemon(live)


@pytest.mark.parametrize("copies", [
    [(0, 8, 2, 0), (4, 8, 2, 8)],
    [(0, 8, 2, 0), (0, 8, 3, 0)],
    [(4, 2, 2, 0), (3, 2, 2, 2), (8, 2, 2, 4)],
])
def test_two_copies_owed_to_a_block(mount, pool, copies):
    owed = [(leaf_format.APPLY, *copy) for copy in copies]
    path = forged_journal(pool, 4 * MIB, [(leaf_format.DATA, 0, 16, 0), *owed])
    refused_cheaply(mount, pool, path, "two copies are owed")


def test_more_owed_than_a_batch_holds(mount, pool):
    """A few KiB do not make a writable open copy for hours."""
    blocks, slots = 4096, 10_000
    path = forged_journal(pool, TIB, [(leaf_format.DATA, number * blocks, blocks, number) for number in range(slots)],
                          [(leaf_format.APPLY, number * blocks, blocks, slots, 0) for number in range(slots)],
                          chunk=16 * MIB)
    for verb in ("map", "check"):
        result = cheaply(verb, path)
        assert result.returncode in (1, DAMAGED) and "more than a batch holds" in result.stdout + result.stderr
    with mount() as live:
        expect_errno(errno.EIO, os.open, live.file("evil.img"), os.O_RDWR)


def test_load_that_takes_too_long(mount, pool, sample):
    """It is given up, by check too; the other disks go on. Nothing is wrong with
    this one but the time."""
    path = os.path.join(pool, "web1.leaf")
    for nth in (1, 3, 5):
        env = faults(f"leaf.load_time/web1.leaf:EIO@{nth}")
        for verb in ("map", "check"):
            result = cheaply(verb, path, env=env)
            assert result.returncode == 1 and "of a processor" in result.stderr
    with mount(env=env) as live:
        expect_errno(errno.EIO, os.open, live.file("web1.img"), os.O_RDWR)
        assert "of a processor" in live.messages()
        assert file_bytes(live.file("base.img")) == file_bytes(os.path.join(pool, "base.raw"))
    assert file_bytes(path).startswith(sample)
    leafctl("check", path)


def test_sparse_images_are_sound(mount, pool, rng):
    """Zeros written as data become holes in a copy, and a file may be much longer
    than what is in it: after a crash each is opened and has what it had."""
    image = make_image(os.path.join(pool, "web1.leaf"), "16T", chunk=CHUNK_BYTES)
    pieces = {0: bytes(300 * KIB), 8 * TIB: rng.randbytes(100_000), 16 * TIB - MIB: bytes(MIB)}
    with mount() as live, opened(live.file("web1.img")) as fd:
        write_all(fd, bytes(2 * MIB), 4 * TIB)
        os.fsync(fd)
    live = mount()
    fd = os.open(live.file("web1.img"), os.O_RDWR)
    for offset, data in pieces.items():
        write_all(fd, data, offset)
        os.fsync(fd)
    live.kill9()
    expect_errno(errno.ENOTCONN, os.close, fd)
    run("cp", "--sparse=always", image, os.path.join(pool, "copy.leaf"))
    run("cp", "--sparse=always", image, os.path.join(pool, "long.leaf"))
    os.truncate(os.path.join(pool, "long.leaf"), 8 * TIB)
    for name in ("copy", "long"):
        assert cheaply("check", os.path.join(pool, f"{name}.leaf")).returncode == 0
        with mount() as live, opened(live.file(f"{name}.img")) as fd:
            for offset, data in pieces.items():
                assert os.pread(fd, len(data), offset) == data
        assert cheaply("check", os.path.join(pool, f"{name}.leaf")).returncode == 0
