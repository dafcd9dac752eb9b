"""Running disks that go back to snapshots, and snapshots that are deleted: what came since is gone, and nothing else is."""
import contextlib
import errno
import json
import os
import signal
import threading

import pytest

from harness import (BLOCK, CRASH_STATUS, MIB, Gate, Loop, check_clean, converted, expect_errno, faults, halt, leafctl, make_image,
                     make_raw, numbers, opened, read_file, run, stats, wait_until, write_all)
from test_snapshots import HELD, MODES, Guest, command, images, marks, options_of, sealed, take
from test_writeback_faults import left_open

SIZE = 4 * MIB
COMMANDS_OF_A_DISK = [["snapshot", "two"], ["revert"], ["revert", "--live"]]


def options_for(work, mode, held=True):
    return options_of(work, mode, *(HELD if held and mode != "direct" else []))


def revert(live, *tag, name="web1.img"):
    command(live.control("disks", name, "snapshots"), " ".join(["revert", *tag]))


def delete(live, tag, name="web1.img"):
    command(live.control("disks", name, "snapshots"), f"delete {tag}")


def dirty_bytes(live):
    """Of all that the cache has."""
    with open(live.control("stats"), encoding="utf-8") as file:
        return json.load(file)["dirty_bytes"]


def go_back(guest, tag):
    revert(guest.live, tag)
    guest.model = type(guest.model)(guest.snapshots[tag])


def nothing_is_left(pool):
    assert marks(pool) == []
    assert not [name for name in os.listdir(pool) if name.startswith(".") and name != ".leafdisk"]
    leafctl("check", pool)


def make_disk(pool, kind, rng):
    content = rng.randbytes(SIZE)
    if kind == "raw":
        make_raw(os.path.join(pool, "web1.raw"), content)
        return content
    make_image(os.path.join(pool, "web1.leaf"), parent=make_raw(os.path.join(pool, "base.raw"), content))
    return content


@pytest.mark.parametrize("kind", ["leaf", "raw"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("held", [False, True])
def test_there_and_back(mount, pool, work, rng, mode, kind, held):
    """To the newest, to an older one, forward again, and on from there, dirty or not; then in another mount."""
    options = options_for(work, mode, held)
    with mount(*options) as live:
        guest = Guest(live, rng, make_disk(pool, kind, rng))
        for tag in ("one", "two"):
            guest.change()
            guest.take(tag)
        guest.change()
        revert(live)
        guest.model = type(guest.model)(guest.snapshots["two"])
        guest.verify()
        for tag in ("one", "two", "one", "one"):
            guest.change()
            go_back(guest, tag)
            guest.verify()
        guest.change()
        guest.take("three")
        guest.change()
        guest.verify()
    with mount(*options) as live:
        guest.live = live
        guest.verify()
        go_back(guest, "two")
        guest.verify()
        guest.change()
        guest.verify()
        leafctl("drain", live.path)
    suffix = ".raw" if kind == "raw" else ".leaf"
    for tag, content in guest.snapshots.items():
        assert converted(sealed(pool, tag, suffix=suffix if tag == "one" else ".leaf"), work) == content
    assert converted(os.path.join(pool, "web1.leaf"), work) == bytes(guest.model.content)
    base = [] if kind == "raw" else ["base.raw"]
    assert images(pool) == sorted([*base, f"snapshots/web1@one{suffix}", "snapshots/web1@three.leaf",
                                   "snapshots/web1@two.leaf", "web1.leaf"])
    nothing_is_left(pool)


def test_what_was_dirty_is_dropped(mount, pool, work, rng):
    """In the cache too, durably: neither this mount nor the next writes it back or asks for its image."""
    make_disk(pool, "leaf", rng)
    options = options_for(work, "writeback")
    live = mount(*options)
    guest = Guest(live, rng, read_file(live.file("web1.img"), SIZE))
    guest.take("one")
    with opened(live.file("web1.img")) as fd:
        write_all(fd, rng.randbytes(2 * MIB), 0)
    assert dirty_bytes(live) >= 2 * MIB
    go_back(guest, "one")
    assert dirty_bytes(live) == 0
    live.kill9()
    with mount(*options) as live:
        guest.live = live
        guest.verify()
        assert "stay" not in live.messages()
    nothing_is_left(pool)


@pytest.mark.parametrize("mode", MODES)
def test_while_it_is_open(mount, pool, work, rng, mode):
    """Refused, unless the guest is said to know; then it reads and writes what is there now, whatever the kernel had."""
    content = make_disk(pool, "leaf", rng)
    with mount(*options_of(work, mode)) as live:
        take(live, "one")
        with opened(live.file("web1.img")) as fd:
            write_all(fd, b"x" * MIB, 0)
            assert os.pread(fd, MIB, 0) == b"x" * MIB
            expect_errno(errno.EBUSY, revert, live, "one")
            refused = leafctl("revert", live.file("web1.img"), "one", check=False)
            assert refused.returncode == 1 and "--live" in refused.stderr
            user = f"(pid {os.getpid()}) uses {live.file('web1.img')}"
            assert user in refused.stderr and user in leafctl("status", live.file("web1.img")).stdout
            assert user not in leafctl("status", live.file("base.img")).stdout
            assert os.pread(fd, MIB, 0) == b"x" * MIB
            leafctl("revert", "--live", live.file("web1.img"), "one")
            assert os.pread(fd, SIZE, 0) == content
            write_all(fd, b"y" * BLOCK, 0)
        assert read_file(live.file("web1.img"), SIZE) == b"y" * BLOCK + content[BLOCK:]
    assert converted(os.path.join(pool, "web1.leaf"), work) == b"y" * BLOCK + content[BLOCK:]


def test_the_size_it_had(mount, pool, rng):
    """Comes back with the content, but never under a guest."""
    content = make_disk(pool, "leaf", rng)
    with mount() as live:
        path = live.file("web1.img")
        take(live, "one")
        os.truncate(path, SIZE + MIB)
        with opened(path):
            expect_errno(errno.EBUSY, command, live.control("disks", "web1.img", "snapshots"), "revert-live one")
        assert os.path.getsize(path) == SIZE + MIB
        revert(live, "one")
        assert os.path.getsize(path) == SIZE and read_file(path, SIZE + 1) == content


def test_what_cannot_be(mount, pool, work, rng):
    make_disk(pool, "leaf", rng)
    with mount("mode=direct") as live:
        expect_errno(errno.ENOENT, revert, live)
        expect_errno(errno.ENOENT, revert, live, "one")
        take(live, "one")
        for tag in ("two", "../web1", "'web1@two'", "''"):
            expect_errno(errno.ENOENT, revert, live, tag)
            expect_errno(errno.ENOENT, delete, live, tag)
        expect_errno(errno.EBUSY, delete, live, "one")
        leafctl("fork", live.file("web1.img"), "web2")
    with mount("mode=direct", "ro") as live:
        expect_errno(errno.EROFS, revert, live, "one")
        expect_errno(errno.EROFS, delete, live, "one")
    with mount(f"cache={work}/c", "cache_size=32M", "mode=ephemeral") as live:
        expect_errno(errno.ENOENT, revert, live, "one")
    nothing_is_left(pool)


@pytest.mark.parametrize("kind", ["leaf", "raw"])
@pytest.mark.parametrize("room", ["32M", "8M"])
def test_an_ephemeral_one(mount, pool, work, rng, kind, room):
    """Is what its image is, be it open or closed, while another runs on; what the cache did not take is dropped too."""
    content = make_disk(pool, kind, rng)
    make_raw(os.path.join(pool, "web2.raw"), content)
    with mount(f"cache={work}/c", f"cache_size={room}", "mode=ephemeral", "manage") as live:
        path, other = live.file("web1.img"), live.file("web2.img")
        for file in (path, other):
            with opened(file) as fd:
                write_all(fd, b"x" * SIZE, 0)
        leafctl("revert", path)
        assert read_file(path, SIZE + 1) == content and read_file(other, SIZE) == b"x" * SIZE
        with opened(path) as fd:
            write_all(fd, b"y" * MIB, 0)
            expect_errno(errno.EBUSY, revert, live)
            assert os.pread(fd, SIZE, 0) == b"y" * MIB + content[MIB:]
            leafctl("revert", "--live", path)
            assert os.pread(fd, SIZE, 0) == content
            write_all(fd, b"z" * BLOCK, 0)
        assert read_file(path, SIZE) == b"z" * BLOCK + content[BLOCK:]
        os.truncate(path, SIZE + MIB)
        with opened(path):
            expect_errno(errno.EBUSY, command, live.control("disks", "web1.img", "snapshots"), "revert-live")
        revert(live)
        assert os.path.getsize(path) == SIZE and read_file(path, SIZE + 1) == content
        revert(live)
    assert images(pool) == sorted(["web2.raw", *(["web1.raw"] if kind == "raw" else ["base.raw", "web1.leaf"])])


def test_an_ephemeral_one_whose_image_was_replaced(mount, pool, work, rng):
    """Can be used again without a new mount."""
    make_disk(pool, "raw", rng)
    with mount(f"cache={work}/c", "cache_size=32M", "mode=ephemeral") as live:
        path = live.file("web1.img")
        with opened(path) as fd:
            write_all(fd, b"x" * BLOCK, 0)
        content = rng.randbytes(SIZE)
        make_raw(os.path.join(pool, "new"), content)
        os.rename(os.path.join(pool, "new"), os.path.join(pool, "web1.raw"))
        expect_errno(errno.ESTALE, read_file, path, SIZE)
        revert(live)
        assert read_file(path, SIZE + 1) == content


@pytest.fixture
def slow_base(mount, pool, work, rng):
    """A disk on a base whose store answers nothing while the process of this id is stopped; options of a mount."""
    where = os.path.join(work, "slow")
    os.mkdir(where)
    make_raw(os.path.join(where, "store.raw"), bytes(32 * MIB))
    slow = mount(pool=where)
    with Loop(slow.file("store.img")) as loop:
        run("mke2fs", "-q", "-t", "ext4", loop.device)
        base = make_raw(os.path.join(loop.mount(os.path.join(work, "fs")), "base.raw"), rng.randbytes(SIZE))
        leafctl("create", "--layers", loop.mounted, "-b", base, os.path.join(pool, "web1.leaf"))
        with opened(base) as fd:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        yield f"layers={loop.mounted}", slow.pid
        os.kill(slow.pid, signal.SIGCONT)


@pytest.mark.parametrize("words", COMMANDS_OF_A_DISK)
def test_a_store_that_hangs_under_a_read(mount, rng, slow_base, words):
    """The read waits, and nobody else for it: the command says so, and the disk goes on."""
    option, pid = slow_base
    with mount("mode=direct", option) as live, opened(live.file("web1.img")) as fd:
        take(live, "one")
        write_all(fd, rng.randbytes(BLOCK), 0)
        halt(pid)
        reader = threading.Thread(target=os.pread, args=(fd, BLOCK, MIB), daemon=True)
        before = stats(live)["read_requests"]
        reader.start()
        wait_until(lambda: stats(live)["read_requests"] > before, "the read to be in work", 20)
        verb, *more = words
        said = leafctl(verb, live.file("web1.img"), *more, check=False, timeout=60).stderr
        assert "no answer yet" in said or "say --live" in said, said
        write_all(fd, rng.randbytes(BLOCK), 0)
        os.kill(pid, signal.SIGCONT)
        reader.join(60)


def test_a_failed_revert_leaves_its_snapshot_alone(mount, pool, work, rng):
    """What was to stand on it does not."""
    live, gate, guest = begin(mount, pool, work, rng, options_for(work, "direct"), "snapshot.exchange:EIO")
    with live:
        go_back(guest, "one")
        gate.open()
        expect_errno(errno.EIO, revert, live, "two")
        gate.close()
        guest.verify()
        delete(live, "two")
    nothing_is_left(pool)


def test_a_disk_with_as_many_layers_as_there_can_be(mount, pool, work, rng):
    """Has no snapshots any more, and can be taken back to those that it has."""
    make_disk(pool, "raw", rng)
    with mount("mode=direct") as live:
        for number in range(254):
            take(live, f"s{number}")
        expect_errno(errno.EMLINK, take, live, "more")
        with opened(live.file("web1.img")) as fd:
            write_all(fd, b"x" * BLOCK, 0)
        revert(live, "s253")
        expect_errno(errno.EMLINK, take, live, "more")
        revert(live, "s252")
        take(live, "more")


def test_a_disk_that_was_renamed(mount, pool, rng):
    """Goes back to what it was under its former name too, and never to what another disk was."""
    make_disk(pool, "leaf", rng)
    make_image(os.path.join(pool, "other.leaf"), SIZE)
    with mount("manage") as live:
        guest = Guest(live, rng, read_file(live.file("web1.img"), SIZE))
        for tag in ("one", "two"):
            guest.change(5)
            guest.take(tag)
        go_back(guest, "one")
        take(live, "theirs", "other.img")
        os.rename(live.file("web1.img"), live.file("web2.img"))
        guest.name = "web2.img"
        for tag in ("two", "one", "two"):
            revert(live, f"web1@{tag}", name="web2.img")
            guest.model = type(guest.model)(guest.snapshots[tag])
            guest.verify()
        expect_errno(errno.EINVAL, command, live.control("disks", "web2.img", "snapshots"), "revert other@theirs")
        expect_errno(errno.EBUSY, delete, live, "web1@two", "web2.img")
        guest.verify()
        revert(live, "web1@one", name="web2.img")
        delete(live, "web1@two", "web2.img")
    nothing_is_left(pool)


def test_one_name_whatever_the_ending(mount, pool, rng):
    """A disk that was made anew, in another format, finds the names of the former one's snapshots taken."""
    make_disk(pool, "raw", rng)
    with mount("manage") as live:
        take(live, "one")
        os.unlink(live.file("web1.img"))
    make_image(os.path.join(pool, "web1.leaf"), SIZE)
    with mount() as live:
        expect_errno(errno.EEXIST, take, live, "one")
        take(live, "two")


# ---- Deleting ---------------------------------------------------------------------

def test_nobody_stands_on_what_is_deleted(mount, pool, work, rng):
    """Neither a disk, nor a fork, nor a snapshot beside, nor an image that no mount shows, nor a program that has it."""
    make_disk(pool, "leaf", rng)
    with mount(*options_of(work, "writeback", *HELD)) as live:
        guest = Guest(live, rng, read_file(live.file("web1.img"), SIZE))
        for tag in ("one", "two"):
            guest.change()
            guest.take(tag)
        leafctl("fork", live.file("web1.img"), "web2")
        expect_errno(errno.EBUSY, delete, live, "two")
        go_back(guest, "one")
        expect_errno(errno.EBUSY, delete, live, "two")
        expect_errno(errno.EBUSY, delete, live, "one")
        assert "leafctl convert" in leafctl("delete", live.file("web1.img"), "one", check=False).stderr
        guest.change()
        guest.take("three")
        go_back(guest, "one")
        leafctl("drain", live.path)
        child = make_image(os.path.join(work, "child.leaf"), parent=sealed(pool, "three"))
        expect_errno(errno.EBUSY, delete, live, "three")
        os.unlink(child)
        leafctl("forget-child", "--force", sealed(pool, "three"), child)
        with left_open(sealed(pool, "three")):
            delete(live, "three")
        assert not os.path.exists(sealed(pool, "three"))
        guest.verify()
    nothing_is_left(pool)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("held", [False, True])
def test_deleted_one_by_one(mount, pool, work, rng, mode, held):
    """From the end: each makes the one before free, and all takes no room any more."""
    make_disk(pool, "leaf", rng)
    with mount(*options_for(work, mode, held)) as live:
        guest = Guest(live, rng, read_file(live.file("web1.img"), SIZE))
        for tag in ("zero", "one", "two", "three"):
            guest.change()
            guest.take(tag)
        go_back(guest, "zero")
        for tag in ("one", "two"):
            expect_errno(errno.EBUSY, delete, live, tag)
        for tag in ("three", "two", "one"):
            leafctl("delete", live.file("web1.img"), tag)
        guest.verify()
    assert images(pool) == ["base.raw", "snapshots/web1@zero.leaf", "web1.leaf"]
    assert os.listdir(os.path.join(pool, "snapshots", ".leafdisk", "owners")) == ["web1@zero.leaf"]
    nothing_is_left(pool)


# ---- The other path -----------------------------------------------------------------

POINTS = ["snapshot.mark", "snapshot.opened", "snapshot.link", "snapshot.exchange", "delete.cache", "delete.unlink", "owner.write", "owner.read",
          "place.look", "place.open", "place.rename", "place.unlink", "image.open", "image.read", "image.write", "image.sync",
          "image.children"]


def has_crashed(live):
    """It is seen at once, other than the end of its process."""
    try:
        os.listdir(live.path)
        return False
    except OSError:
        return True


def three_contents(live, rng):
    """Of snapshot one, of snapshot two, on which the disk stands, and of the disk."""
    guest = Guest(live, rng, read_file(live.file("web1.img"), SIZE))
    for tag in ("one", "two"):
        guest.change(5)
        guest.take(tag)
    guest.change(5)
    return guest


def begin(mount, pool, work, rng, options, rule):
    """A disk with two snapshots, and the fault when the gate is open."""
    for name in images(pool):
        os.unlink(os.path.join(pool, name))
    make_disk(pool, "leaf", rng)
    gate = Gate(work)
    live = mount(*options, env=faults(rule, gate=gate.path))
    return live, gate, three_contents(live, rng)


def expect_either(guest, pool, work, options, mount, before, after):
    """As before, or as after; both snapshots are what they were, and nothing stays that nobody names."""
    with mount(*options) as live:
        content = read_file(live.file("web1.img"), SIZE)
        assert content in (before, after)
        leafctl("drain", live.path)
    for tag, was in guest.snapshots.items():
        assert converted(sealed(pool, tag), work) == was, tag
    check_clean(os.path.join(pool, "web1.leaf"))
    assert converted(os.path.join(pool, "web1.leaf"), work) == content
    nothing_is_left(pool)
    return content


@pytest.mark.parametrize("mode", ["direct", "writeback"])
@pytest.mark.parametrize("point", POINTS)
def test_an_error_in_a_revert(mount, pool, work, rng, mode, point):
    """The disk runs on, as before or as after; so does the next mount."""
    options = options_for(work, mode)
    for nth in numbers(2, 40):
        live, gate, guest = begin(mount, pool, work, rng, options, f"{point}:EIO@{nth}x{1 + nth % 2 * 2}")
        before, after = bytes(guest.model.content), guest.snapshots["one"]
        gate.open()
        said = leafctl("revert", live.file("web1.img"), "one", check=False).stderr
        gate.close()
        content = read_file(live.file("web1.img"), SIZE)
        assert content in (before, after)
        with opened(live.file("web1.img")) as fd:
            write_all(fd, b"x" * BLOCK, 0)
            os.fsync(fd)
        now = b"x" * BLOCK + content[BLOCK:]
        live.stop()
        expect_either(guest, pool, work, options, mount, now, now)
        left = [name for name in images(pool) if "reverted" in name]
        assert not left or "is reverted, but what it was is not removed, see leafctl snapshots" in said


@pytest.mark.parametrize("mode", ["direct", "writeback"])
def test_one_that_failed_is_forgotten(mount, pool, work, rng, mode):
    """What it was to go back to has no child of it."""
    live, gate, guest = begin(mount, pool, work, rng, options_for(work, mode), "snapshot.exchange:EIO")
    go_back(guest, "one")
    gate.open()
    expect_errno(errno.EIO, revert, live, "two")
    gate.close()
    delete(live, "two")
    guest.verify()
    live.stop()
    nothing_is_left(pool)


@pytest.mark.parametrize("mode", ["direct", "writeback"])
@pytest.mark.parametrize("point", POINTS)
def test_killed_in_a_revert(mount, pool, work, rng, mode, point):
    options = options_for(work, mode)
    for nth in numbers(3, 60):
        live, gate, guest = begin(mount, pool, work, rng, options, f"{point}:crash@{nth}")
        before, after = bytes(guest.model.content), guest.snapshots["one"]
        gate.open()
        with contextlib.suppress(OSError):
            revert(live, "one")
        with contextlib.suppress(FileNotFoundError):
            gate.close()
        if not has_crashed(live):
            live.stop()
            expect_either(guest, pool, work, options, mount, after, after)
            return
        assert live.wait() == CRASH_STATUS, live.messages()
        live.finalise()
        expect_either(guest, pool, work, options, mount, before, after)
        assert images(pool) == ["base.raw", "snapshots/web1@one.leaf", "snapshots/web1@two.leaf", "web1.leaf"]


@pytest.mark.parametrize("mode", ["direct", "writeback"])
@pytest.mark.parametrize("point", ["snapshot.mark", "delete.cache", "delete.unlink", "place.unlink", "place.look", "owner.read", "image.read"])
@pytest.mark.parametrize("what", ["EIO", "crash"])
def test_a_deletion_is_interrupted(mount, pool, work, rng, mode, point, what):
    """It is there as it was, or it is gone, and the next mount has no more to do."""
    options = options_for(work, mode)
    for nth in numbers(3, 40):
        live, gate, guest = begin(mount, pool, work, rng, options, f"{point}:{what}@{nth}")
        go_back(guest, "one")
        gate.open()
        with contextlib.suppress(OSError):
            delete(live, "two")
        with contextlib.suppress(FileNotFoundError):
            gate.close()
        if has_crashed(live):
            assert what == "crash" and live.wait() == CRASH_STATUS, live.messages()
            live.finalise()
        else:
            live.stop()
        with mount(*options) as live:
            guest.live = live
            guest.verify()
            leafctl("drain", live.path)
        if os.path.exists(sealed(pool, "two")):
            assert converted(sealed(pool, "two"), work) == guest.snapshots["two"]
        assert converted(sealed(pool, "one"), work) == guest.snapshots["one"]
        nothing_is_left(pool)


@pytest.mark.parametrize("mode", ["direct", "writeback"])
def test_nobody_goes_back_to_what_is_half_deleted(mount, pool, work, rng, mode):
    """It has lost what the cache had of it; it goes as soon as that can be."""
    live, gate, guest = begin(mount, pool, work, rng, options_for(work, mode), "delete.unlink:EIO")
    with live:
        go_back(guest, "one")
        gate.open()
        said = leafctl("delete", live.file("web1.img"), "two", check=False).stderr
        assert "is removed when that can be" in said
        expect_errno(errno.EBUSY, revert, live, "two")
        guest.verify()
        gate.close()
        with contextlib.suppress(OSError):
            delete(live, "two")
        assert not os.path.exists(sealed(pool, "two"))
        guest.change()
        guest.take("two")
        guest.change()
    with mount(*options_for(work, mode)) as live:
        guest.live = live
        guest.verify()
        go_back(guest, "two")
        guest.verify()
    nothing_is_left(pool)


@pytest.mark.parametrize("point", ["image.read", "image.open", "place.open"])
def test_back_to_what_could_not_be_removed(mount, pool, work, rng, point):
    """It is a snapshot as any other, also of the next mount."""
    options, stays = options_for(work, "writeback"), False
    for nth in range(1, 80):
        live, gate, guest = begin(mount, pool, work, rng, options, f"{point}:EIO@{nth}x1")
        gate.open()
        said = leafctl("revert", live.file("web1.img"), "one", check=False).stderr
        gate.close()
        stays = "is not removed" in said and "is removed when" not in said
        if stays:
            break
        live.stop()
    assert stays
    revert(live, "reverted1")
    guest.change()
    live.kill9()
    with mount(*options) as live:
        guest.live = live
        guest.verify()


def test_a_parent_forgets_what_the_next_mount_removes(mount, pool, work, rng):
    options = options_for(work, "direct")
    live, gate, guest = begin(mount, pool, work, rng, options, "delete.unlink:crash")
    gate.open()
    with contextlib.suppress(OSError):
        revert(live, "one")
    gate.close()
    assert live.wait() == CRASH_STATUS, live.messages()
    live.finalise()
    with mount(*options) as live:
        delete(live, "two")
        assert read_file(live.file("web1.img"), SIZE) == guest.snapshots["one"]
    assert images(pool) == ["base.raw", "snapshots/web1@one.leaf", "web1.leaf"]
    nothing_is_left(pool)


def test_a_raw_one_that_a_crash_left_sealed(mount, pool, work, rng):
    """It has no identity of its own, and is removed all the same."""
    gate = Gate(work)
    old = make_disk(pool, "raw", rng)
    live = mount("mode=direct", "manage", env=faults("place.unlink:crash", gate=gate.path))
    take(live, "one")
    os.unlink(live.file("web1.img"))
    make_disk(pool, "raw", rng)
    wait_until(lambda: os.listdir(live.path) and os.path.exists(live.file("web1.img")), "the new disk to be shown")
    with opened(live.file("web1.img")) as fd:
        write_all(fd, b"x" * BLOCK, 0)
    gate.open()
    with contextlib.suppress(OSError):
        revert(live, "one")
    gate.close()
    assert live.wait() == CRASH_STATUS, live.messages()
    live.finalise()
    with mount("mode=direct") as live:
        assert read_file(live.file("web1.img"), SIZE) == old
    assert images(pool) == ["snapshots/web1@one.raw", "web1.leaf"]
    nothing_is_left(pool)
