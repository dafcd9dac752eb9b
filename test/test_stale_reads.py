"""Disks whose newest changes are elsewhere: nobody reads what is old without having asked for that."""
import os
import re
import shlex
import shutil

import pytest

from harness import (BLOCK, MIB, assert_same, check_clean, converted, file_bytes, file_system, leafctl, make_image,
                     make_raw, opened, read_all, read_file, state_of, wait_until, write_all, write_conf)
from test_owner import directory_of, record_path, refusal, write_text
from test_writeback_faults import HELD, left_open

SIZE = MIB
OLD, NEW = b"1" * BLOCK, b"2" * BLOCK
ASKED = "stale_reads"
SAYS_OLD = "web1.img: shows old content: "


def first_block(live, name="web1.img"):
    return read_file(live.file(name), BLOCK)


class Elsewhere:
    """web1 has NEW in a cache, and OLD in the pool."""

    def __init__(self, mount, pool, work, kind):
        self.mount, self.pool, self.work, self.kind = mount, pool, work, kind
        self.image = os.path.join(pool, f"web1.{kind}")
        self.name, self.file = "web1.img", os.path.basename(self.image)
        self.cache, self.other = os.path.join(work, "leaf.cache"), os.path.join(work, "other.cache")
        if kind == "raw":
            make_raw(self.image, bytes(SIZE))
        else:
            make_image(self.image, SIZE, chunk="64K")
        with self.owner() as live, opened(live.file("web1.img")) as fd:
            write_all(fd, OLD, 0)
        self.copy = os.path.join(work, "copy.cache")
        shutil.copy2(self.cache, self.copy)
        live = self.owner()
        with left_open(live.file("web1.img")) as fd:
            write_all(fd, NEW, 0)
            os.fsync(fd)
            live.kill9()

    def owner(self):
        return self.mount(f"cache={self.cache}", "mode=writeback", "cache_size=8M", *HELD)

    def reader(self, mode, *options):
        """A mount that has not that cache."""
        own = [] if mode in ("direct", "ro") else [f"cache={self.other}", "cache_size=8M"]
        return self.mount("ro" if mode == "ro" else f"mode={mode}", *own, *options)

    # ---- How it comes about -------------------------------------------------------

    def not_given(self):
        pass

    def lost(self):
        os.unlink(self.cache)
        self.other = self.cache

    def older_copy(self):
        shutil.copy2(self.copy, self.other)

    def damaged_record(self):
        write_text(self.pool, b"[owner]\nhost=", self.file)

    def renamed(self):
        os.rename(self.image, os.path.join(self.pool, f"web2.{self.kind}"))
        self.image, self.name = os.path.join(self.pool, f"web2.{self.kind}"), "web2.img"


@pytest.fixture(params=["leaf", "raw"])
def web1(request, mount, pool, work):
    return Elsewhere(mount, pool, work, request.param)


WAYS = ["not_given", "lost", "older_copy", "damaged_record", "renamed"]
MODES = ["direct", "persistent", "writeback", "ephemeral", "ro"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", WAYS)
def test_it_is_refused(web1, way, mode):
    """With what to type; and that helps."""
    getattr(web1, way)()
    before = file_bytes(web1.image)
    with web1.reader(mode) as live:
        if mode != "ro":
            assert f"leafctl unlock --force {web1.pool} {web1.file}" in refusal(live, web1.name)
        said = refusal(live, web1.name, os.O_RDONLY)
        assert f"leafctl unlock --force {web1.pool} {web1.file}" in said and ASKED in said, said
        state = state_of(live, web1.name)
        assert state["state"] == "degraded" and ASKED in state["reason"] and "unlock --force" in state["reason"], state
        assert file_bytes(web1.image) == before
        command, = re.findall(r"(leafctl unlock --force \S+ [^\s;]+)", said)
        leafctl(*shlex.split(command)[1:])
        assert first_block(live, web1.name) == OLD
        assert state_of(live, web1.name)["state"] == "active"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", WAYS)
def test_it_is_read_by_who_asks_for_it(web1, work, way, mode):
    """State and log say so; nothing is given up for it, and nothing is written."""
    getattr(web1, way)()
    before = file_bytes(web1.image), file_bytes(record_path(web1.pool, web1.file))
    with web1.reader(mode, ASKED) as live:
        with opened(live.file(web1.name), os.O_RDONLY) as fd:
            assert read_all(fd, BLOCK, 0) == OLD
            state = state_of(live, web1.name)
            words = "nobody can tell" if way == "damaged_record" else "shows old content: "
            assert state["state"] == "degraded" and words in state["reason"], state
            assert f"{web1.name}: {words}" in live.messages()
            if mode != "ephemeral":
                with pytest.raises(OSError):
                    os.close(os.open(live.file(web1.name), os.O_RDWR))
        if mode == "ephemeral":
            with opened(live.file(web1.name)) as fd:
                write_all(fd, b"3" * BLOCK, 0)
    assert (file_bytes(web1.image), file_bytes(record_path(web1.pool, web1.file))) == before
    if way == "damaged_record":
        os.unlink(record_path(web1.pool, web1.file))
    if way != "lost":
        with web1.owner() as live:
            assert first_block(live, web1.name) == NEW
        assert converted(web1.image, work)[:BLOCK] == NEW


@pytest.mark.parametrize("mode", ["direct", "persistent"])
def test_the_newest_is_shown_once_it_is_there(web1, mode):
    """Whoever had read the old content gets no page and no block of it then."""
    with web1.reader(mode, ASKED, *(["read_run_bypass=1G"] if mode == "persistent" else [])) as live:
        assert first_block(live) == OLD
        # The kernel tells of a close after it, and the image is read until then.
        wait_until(lambda: leafctl("cache", "drain", web1.cache, check=False).returncode == 0, "the image to be free")
        wait_until(lambda: first_block(live) == NEW, "what was brought to the pool")
        assert state_of(live)["state"] == "active"
        with opened(live.file("web1.img")) as fd:
            write_all(fd, b"3" * BLOCK, 0)
    check_clean(*([web1.image] if web1.kind == "leaf" else []))


def test_a_record_that_cannot_be_read(web1, mount):
    """For want of rights, or as its store fails: nobody can tell, until it can be read."""
    write_text(web1.pool, b"[owner]\nhost=", web1.file)
    with mount() as live:
        assert "nobody knows who owns" in refusal(live, flags=os.O_RDONLY)
    shutil.rmtree(directory_of(web1.pool))
    with open(directory_of(web1.pool), "w", encoding="ascii"):
        pass
    with mount() as live:
        with pytest.raises(OSError):
            os.close(os.open(live.file("web1.img"), os.O_RDONLY))
        assert "nobody can tell" in state_of(live)["reason"] and ASKED in state_of(live)["reason"]
    with mount(ASKED) as live:
        assert first_block(live) == OLD
        assert "nobody can tell" in live.messages()


# ---- Below a leaf -----------------------------------------------------------------


def spelled(web1, top="top"):
    make_image(os.path.join(web1.pool, f"{top}.leaf"), SIZE)
    return write_conf(web1.work, f"[disk {top}.img]\nlayers = {web1.file}; {top}.leaf\n")


@pytest.mark.parametrize("mode", MODES)
def test_a_disk_on_it(web1, mode):
    """That the configuration puts together: what it would show, and what is written to it, stands on what is old."""
    conf = f"conf={spelled(web1)}"
    before = file_bytes(os.path.join(web1.pool, "top.leaf"))
    with web1.reader(mode, conf) as live:
        assert f"unlock --force {web1.pool} {web1.file}" in refusal(live, "top.img", os.O_RDONLY)
        assert ASKED in state_of(live, "top.img")["reason"]
    with web1.reader(mode, conf, ASKED) as live:
        with opened(live.file("top.img"), os.O_RDONLY) as fd:
            assert read_all(fd, BLOCK, 0) == OLD
            assert "shows old content: " in state_of(live, "top.img")["reason"]
            assert "top.img: shows old content: " in live.messages()
            if mode != "ephemeral":
                with pytest.raises(OSError):
                    os.close(os.open(live.file("top.img"), os.O_RDWR))
    assert file_bytes(os.path.join(web1.pool, "top.leaf")) == before


def die_after_a_snapshot(web1):
    """What was sealed has changes in the cache, and the leaf on it none."""
    live = web1.owner()
    with left_open(live.file("web1.img")) as fd:
        write_all(fd, b"3" * BLOCK, 0)
        os.fsync(fd)
        with opened(live.control("snapshots"), os.O_WRONLY) as control:
            os.write(control, b"create monday web1.img")
        live.kill9()


@pytest.mark.parametrize("mode", MODES)
def test_a_disk_on_what_was_sealed(web1, mode, work):
    """Its snapshot has changes in the cache, and the leaf none: by any name it is read as it was before both."""
    with web1.owner() as live:
        assert first_block(live) == NEW
    die_after_a_snapshot(web1)
    with web1.reader(mode) as reader:
        assert ASKED in refusal(reader, flags=os.O_RDONLY)
    with web1.reader(mode, ASKED) as reader:
        assert first_block(reader) == NEW
        assert SAYS_OLD in reader.messages()
        if mode != "ephemeral":
            with pytest.raises(OSError):
                os.close(os.open(reader.file("web1.img"), os.O_RDWR))
    with web1.owner() as live:
        assert first_block(live) == b"3" * BLOCK
    assert_same(converted(os.path.join(web1.pool, "web1.leaf"), work)[:BLOCK], b"3" * BLOCK, "the images alone")


def test_what_is_given_up_right_after_a_snapshot(web1):
    """By its names, while the cache is gone: no record says afterwards that the disk is anybody's."""
    die_after_a_snapshot(web1)
    web1.lost()
    for name in (f"web1@monday.{web1.kind}", "web1.leaf"):
        leafctl("unlock", "--force", web1.pool, name)
    with web1.owner() as live:
        with opened(live.file("web1.img")) as fd:
            assert read_all(fd, BLOCK, 0) == NEW
            write_all(fd, b"4" * BLOCK, 0)
        leafctl("drain", live.path)
    check_clean(os.path.join(web1.pool, "web1.leaf"))


def test_a_parent_is_not_asked_for_records(mount, pool, work, rng):
    """Others' records may be unreadable where a base is: what was written to it would show at the child."""
    with file_system(work, "bases", "48M") as bases:
        content = rng.randbytes(SIZE)
        base = make_raw(os.path.join(bases, "base.raw"), content)
        leafctl("clone", "--layers", bases, base, os.path.join(pool, "a.leaf"))
        write_text(bases, b"[owner]\nhost=", "base.raw")
        with mount(f"layers={bases}") as live, opened(live.file("a.img")) as fd:
            assert_same(read_all(fd, SIZE, 0), content, "the clone")
