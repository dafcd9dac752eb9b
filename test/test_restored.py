"""Image, cache and owner record from different moments: never a mixture without a word.

What an administrator restores from a backup, or copies, is whole in itself and older than
what is beside it. A disk then shows one moment of its history, or is refused with a
sentence that says what to type, or says what it has lost."""
import itertools
import os
import shutil

import pytest

from harness import BLOCK, MIB, TORTURE, Mount, make_image, make_raw, opened, read_all, unmount, write_all

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
        held = ["max_dirty_age=86400", "migrate_idle_ms=60000", "migrate_threshold=100"]
        return Mount(self.pool, self.work, [f"mode={self.mode}", f"cache={self.cache}", "cache_size=8M", *held]).start()

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


def read_disk(history):
    """(What it shows, what was said); None: it is refused, or not shown."""
    live = history.begin()
    try:
        with opened(live.file("web1.img"), os.O_RDWR) as fd:
            content = read_all(fd, SIZE, 0)
            write_all(fd, content[:BLOCK], 0)
            os.fsync(fd)
    except OSError:
        content = None
    unmount(live.path)
    live.wait()
    live.finalise()
    return content, "\n".join(line for line in live.messages().splitlines() if "warning: " in line or "error: " in line)


def describe(content):
    return [content[number * BLOCK + 1] for number in range(4)]


def check(history, moments):
    """An image without the cache that had its newest changes is as it was before these."""
    content, said = read_disk(history)
    if content is None:
        assert "leafctl" in said, f"{moments}: refused without a command: {said}"
        return
    states = [contents_at(moment) for moment in (0, *MOMENTS)]
    assert content in states or said, f"{moments}: {describe(content)} and not a word"
    if content in states:
        assert states.index(content) <= max(moments), f"{moments}: shows moment {states.index(content)}"


def is_told(ends, moments):
    """A claim that a crash left goes on in the next mount, which writes the image under the
    same nonce: so a later image beside cache and record of that crash looks like theirs."""
    image, cache, record = moments
    return not (cache == record < image and ends[cache - 1] == "kill")


HISTORIES = list(itertools.product(ENDS, ENDS, ENDS)) if TORTURE else [("stop", "kill", "stop"), ("kill", "stop", "kill")]


@pytest.mark.parametrize("ends", HISTORIES, ids="-".join)
@pytest.mark.parametrize("image", ["web1.leaf", "web1.raw"])
@pytest.mark.parametrize("mode", ["writeback", "persistent"])
def test_parts_of_different_moments(work, mode, image, ends):
    history = History(os.path.join(work, "host"), mode, image, ends)
    for moments in itertools.product(MOMENTS, MOMENTS, MOMENTS):
        if is_told(ends, moments):
            history.restore(moments)
            check(history, moments)
