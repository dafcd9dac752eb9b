"""Image, cache and owner record from different moments: never a mixture without a word.

What an administrator restores from a backup, or copies, is whole in itself and older than
what is beside it. A disk then shows one moment of its history, or is refused with a
sentence that says what to type, or says what it has lost."""
import contextlib
import fcntl
import itertools
import json
import os
import shutil

import pytest

from harness import (BLOCK, MIB, TORTURE, Mount, MountError, check_clean, faults, file_bytes, leafctl, make_image,
                     make_raw, opened, read_all, read_file, state_of, unmount, write_all)
from test_writeback_faults import HELD, left_open, lines_with

SIZE = MIB
MOMENTS = [1, 2, 3]
ENDS = ["stop", "kill"]


def block_of(number, moment):
    return bytes([number, moment]) * (BLOCK // 2)


def contents_at(moment):
    """At each moment block 0 is written anew, and one more than before."""
    content = bytearray(SIZE)
    for past in range(1, moment + 1):
        for number in (0, past):
            content[number * BLOCK:(number + 1) * BLOCK] = block_of(number, past)
    return bytes(content)


class History:
    """A disk that was in three mounts, and copies of all that it had after each."""

    def __init__(self, work, mode, image, ends):
        self.work, self.mode = work, mode
        self.pool, self.cache = os.path.join(work, "pool"), os.path.join(work, "leaf.cache")
        os.makedirs(self.pool)
        self.image = os.path.join(self.pool, image)
        if image.endswith(".raw"):
            make_raw(self.image, bytes(SIZE))
        else:
            make_image(self.image, SIZE, chunk="64K")
        self.record = os.path.join(self.pool, ".leafdisk", "owners", image)
        self.parts = {"image": self.image, "cache": self.cache, "record": self.record}
        for moment, end in zip(MOMENTS, ends):
            self.write(moment, end)
            self.keep(moment)

    def begin(self):
        options = [f"mode={self.mode}", f"cache={self.cache}", "cache_size=8M", *HELD]
        return Mount(self.pool, self.work, options).start()

    def write(self, moment, end):
        live = self.begin()
        with opened(live.file("web1.img")) as fd:
            for number in (0, moment):
                write_all(fd, block_of(number, moment), number * BLOCK)
            os.fsync(fd)
        if end == "kill":
            live.kill9()
        else:
            live.stop()

    def copy_of(self, part, moment):
        return os.path.join(self.work, f"{part}.{moment}")

    def keep(self, moment):
        for part, path in self.parts.items():
            # With what belongs to the file besides its bytes, as cp -a does.
            shutil.copy2(path, self.copy_of(part, moment))

    def restore(self, moments):
        for part, moment in zip(self.parts, moments):
            shutil.copy2(self.copy_of(part, moment), self.parts[part])


def use_disk(history, end, written=None):
    """(What it shows, what was said); None: it is refused, or not shown. Its first block is WRITTEN anew."""
    live = history.begin()
    try:
        with left_open(live.file("web1.img")) as fd:
            content = read_all(fd, SIZE, 0)
            write_all(fd, written or content[:BLOCK], 0)
            os.fsync(fd)
            if end == "kill":
                live.kill9()
    except OSError:
        content = None
    if end == "stop" or content is None:
        unmount(live.path)
        live.wait()
        live.finalise()
    return content, "\n".join(line for line in live.messages().splitlines() if "warning: " in line or "error: " in line)


def describe(content):
    return [content[number * BLOCK + 1] for number in range(4)]


def check(history, moments, end):
    """An image without the cache that had its newest changes is as it was before these. What is shown stays so, as it
    was written since, whatever the end of the mount that showed it."""
    content, said = use_disk(history, end, block_of(0, max(MOMENTS) + 1))
    if content is not None:
        after, why = use_disk(history, "stop")
        assert after == block_of(0, max(MOMENTS) + 1) + content[BLOCK:], f"{moments}: {after and describe(after)} {why}"
    if content is None:
        assert "leafctl" in said, f"{moments}: refused without a command: {said}"
        return
    states = [contents_at(moment) for moment in (0, *MOMENTS)]
    assert content in states or said, f"{moments}: {describe(content)} and not a word"
    if content in states:
        assert states.index(content) <= max(moments), f"{moments}: shows moment {states.index(content)}"


HISTORIES = list(itertools.product(ENDS, ENDS, ENDS)) if TORTURE else [("stop", "kill", "stop"), ("kill", "stop", "kill")]


@pytest.mark.parametrize("ends", HISTORIES, ids="-".join)
@pytest.mark.parametrize("image", ["web1.leaf", "web1.raw"])
@pytest.mark.parametrize("mode", ["writeback", "persistent"])
def test_parts_of_different_moments(work, mode, image, ends):
    history = History(os.path.join(work, "host"), mode, image, ends)
    for number, moments in enumerate(itertools.product(MOMENTS, MOMENTS, MOMENTS)):
        for end in ENDS if TORTURE else [ENDS[number % 2]]:
            history.restore(moments)
            check(history, moments, end)


# ---- Copies from within a claim ------------------------------------------------------------

BLOCKS = 8 * MIB // BLOCK
OLDER = "its image has newer changes than the log"


class Claim:
    """A disk in writeback, one claim for all that happens to it."""

    def __init__(self, mount, pool, cache, image):
        self.mount, self.cache, self.image = mount, cache, os.path.join(pool, image)
        if image.endswith(".raw"):
            make_raw(self.image, bytes(BLOCKS * BLOCK))
        else:
            make_image(self.image, BLOCKS * BLOCK, chunk="64K")

    def begin(self, *options, **settings):
        return self.mount(f"cache={self.cache}", "mode=writeback", "cache_size=16M", *HELD, *options, **settings)

    def write(self, fd, *contents):
        """One block each, from the first on, and flushed."""
        for number, content in enumerate(contents):
            if content:
                write_all(fd, content * BLOCK, number * BLOCK)
        os.fsync(fd)

    def set_mode(self, live, mode):
        with open(live.control("disks", "web1.img", "mode"), "w", encoding="ascii") as file:
            file.write(mode)

    def keep_cache(self):
        shutil.copy2(self.cache, self.cache + ".copy")

    def put_back(self):
        shutil.copy2(self.cache + ".copy", self.cache)

    def orphans(self):
        layers = json.loads(leafctl("cache", "info", "--json", self.cache).stdout)["layers"]
        return [layer for layer in layers if layer["orphan"]]

    def progress(self):
        return json.loads(leafctl("info", "--json", self.image).stdout)["layers"][0]["progress"]


@pytest.fixture(params=["web1.leaf", "web1.raw"])
def claim(request, mount, pool, cache):
    return Claim(mount, pool, cache, request.param)


@contextlib.contextmanager
def locked(path):
    """By another program, as long as a backup of the image takes."""
    with opened(path) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0, 0)
        yield


def shown(live, blocks=4):
    content = read_file(live.file("web1.img"), blocks * BLOCK)
    return [content[number * BLOCK:number * BLOCK + 1] for number in range(blocks)]


def copy_and_go_on(claim, how):
    """The cache's copy has 1 1, the image 2 1 3, and the cache that is gone 4 besides."""
    live = claim.begin()
    with left_open(live.file("web1.img")) as fd:
        claim.write(fd, b"1", b"1")
        claim.keep_cache()
        claim.write(fd, b"2", None, b"3")
        leafctl("drain", live.path)
        if how == "kill":
            claim.write(fd, None, None, None, b"4")
            live.kill9()
    if how == "stop":
        live.stop()
    claim.put_back()


@pytest.mark.parametrize("how", ENDS)
def test_a_copy_of_the_cache_from_within_a_claim(claim, how):
    copy_and_go_on(claim, how)
    assert claim.progress() > 0
    live = claim.begin()
    assert shown(live) == [b"2", b"1", b"3", b"\0"], live.messages()
    said, = lines_with(live, "older than what its image has")
    assert "leafctl cache dump" in said and "web1.img" in said
    state = state_of(live)
    assert state["state"] == "active" and OLDER in state["reason"] and "leafctl cache info" in state["reason"], state
    with opened(live.control("events"), os.O_RDONLY) as fd:
        assert b"older than what its image has" in os.read(fd, 65536)
    with opened(live.file("web1.img")) as fd:
        claim.write(fd, b"5")
    live.stop()
    orphan, = claim.orphans()
    assert OLDER in orphan["orphan_reason"] and orphan["dirty_blocks"] == 2
    assert "damages:  0" in leafctl("cache", "check", claim.cache).stdout
    check_clean(claim.image)
    with claim.begin() as live:
        assert lines_with(live, OLDER)
        assert shown(live) == [b"5", b"1", b"3", b"\0"]


def test_what_an_older_copy_had_is_saved_and_brought_back_by_force_only(claim, work):
    copy_and_go_on(claim, "kill")
    with claim.begin() as live:
        assert shown(live)[0] == b"2"
    before = file_bytes(claim.image)
    refused = leafctl("cache", "adopt", claim.cache, os.path.basename(claim.image), check=False)
    assert refused.returncode == 1 and "--force" in refused.stderr, refused.stderr
    assert file_bytes(claim.image) == before
    saved = os.path.join(work, "saved")
    os.mkdir(saved)
    leafctl("cache", "dump", "-d", saved, claim.cache)
    assert b"1" * (2 * BLOCK) in [file_bytes(os.path.join(saved, name))[:2 * BLOCK] for name in os.listdir(saved)]
    leafctl("cache", "adopt", "--force", claim.cache, os.path.basename(claim.image))
    assert claim.orphans() == []
    with claim.begin() as live:
        assert shown(live) == [b"1", b"1", b"3", b"\0"]


@pytest.mark.parametrize("command", [["cache", "adopt"], ["unlock", "--force"]])
def test_commands_see_an_older_copy_before_a_mount_does(claim, pool, command):
    copy_and_go_on(claim, "kill")
    name = os.path.basename(claim.image)
    result = leafctl(*command, claim.cache if command[0] == "cache" else pool, name, check=False)
    if command[0] == "cache":
        assert result.returncode == 1 and "newer changes" in result.stderr and "--force" in result.stderr, result.stderr
    with claim.begin() as live:
        assert shown(live)[:3] == [b"2", b"1", b"3"]
    refused = leafctl("cache", "adopt", claim.cache, name, check=False)
    assert refused.returncode == 1 and "--force" in refused.stderr
    assert claim.orphans()[0]["dirty_blocks"] == 2


def test_an_older_copy_is_one_however_long_its_log_has_become(claim, pool, rng):
    """While its image cannot be opened another disk uses the log, and what is dirty moves to its head."""
    make_image(os.path.join(pool, "web2.leaf"), BLOCKS * BLOCK)
    copy_and_go_on(claim, "kill")
    with locked(claim.image):
        live = claim.begin("migrate_idle_ms=1")
        with left_open(live.file("web2.img")) as fd:
            for number in range(48):
                write_all(fd, rng.randbytes(MIB), number % 8 * MIB)
                os.fsync(fd)
            live.kill9()
    with claim.begin() as live:
        assert shown(live) == [b"2", b"1", b"3", b"\0"], live.messages()
        assert OLDER in state_of(live)["reason"]


def test_a_copy_of_the_cache_that_the_image_is_not_beyond(claim):
    """Nothing has come to the image since: it goes on as the copy has it."""
    live = claim.begin()
    with left_open(live.file("web1.img")) as fd:
        claim.write(fd, b"1", b"1")
        leafctl("drain", live.path)
        claim.write(fd, b"2")
        claim.keep_cache()
        claim.write(fd, None, b"3")
        live.kill9()
    claim.put_back()
    with claim.begin() as live:
        assert shown(live)[:2] == [b"2", b"1"]
        leafctl("drain", live.path)
    assert claim.orphans() == []


@pytest.mark.parametrize("point", ["aio.write/IMAGE", "aio.datasync/IMAGE", "aio.write/leaf.cache", "aio.datasync/leaf.cache",
                                   "image.identity/IMAGE"])
def test_the_cache_itself_is_never_taken_for_a_copy(claim, point):
    """A crash at each of the first steps of what goes to the image, and the mount that repeats it."""
    point = point.replace("IMAGE", os.path.basename(claim.image))
    allowed = {b"\0"}
    for number in range(1, 12):
        live = None
        with contextlib.suppress(OSError, AssertionError, MountError):
            live = claim.begin("migrate_idle_ms=1", env=faults(f"{point}:crash@{number}"))
            with left_open(live.file("web1.img")) as fd:
                for content in (b"1", b"2", b"3"):
                    allowed.add(content)
                    claim.write(fd, content, content)
                    allowed = {content}
                    leafctl("drain", live.path)
        if live:
            live.kill9()
        with claim.begin() as live:
            found = shown(live, 2)
            assert found[0] == found[1] and found[0] in allowed, (number, found, allowed)
            leafctl("drain", live.path)
        allowed = {found[0]}
        assert claim.orphans() == [], number


@pytest.mark.parametrize("copied", [False, True], ids=["cache", "copy"])
@pytest.mark.parametrize("between", ["direct", "persistent"])
def test_a_mode_that_comes_back_after_another(claim, between, copied):
    """What the image got in another mode meanwhile is newer than all that the log had before."""
    live = claim.begin()
    with left_open(live.file("web1.img")) as fd:
        claim.write(fd, b"1", b"1")
        claim.set_mode(live, between)
        claim.keep_cache()
        claim.write(fd, b"2")
        claim.set_mode(live, "writeback")
        live.kill9()
    if copied:
        claim.put_back()
    with claim.begin() as live:
        assert shown(live)[:2] == [b"2", b"1"]
        leafctl("drain", live.path)
    assert len(claim.orphans()) == int(copied)


@pytest.mark.parametrize("between", ["direct", "persistent"])
def test_what_follows_a_mode_that_comes_back(claim, between):
    """Few blocks, right after it, are not taken for older than the image."""
    live = claim.begin()
    with left_open(live.file("web1.img")) as fd:
        for content in (b"1", b"2", b"3"):
            claim.write(fd, content)
            claim.set_mode(live, between)
            claim.write(fd, None, content)
            claim.set_mode(live, "writeback")
            claim.write(fd, b"x", b"x")
        live.kill9()
    with claim.begin() as live:
        assert shown(live)[:2] == [b"x", b"x"]
        leafctl("drain", live.path)
    assert claim.orphans() == []
