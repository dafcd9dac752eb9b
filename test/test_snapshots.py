"""Snapshots of running disks: what was sealed stays what it was, in each mode and whatever is dirty."""
import contextlib
import errno
import os
import shlex
import threading

import pytest

from harness import (BLOCK, CRASH_STATUS, MIB, Aligned, Gate, check_clean, control_values, converted, discard, expect_errno, faults, file_bytes, leafctl,
                     make_image, make_raw, numbers, opened, read_file, scaled, state_of, wait_until, write_all)
from model import Model

SIZE = 8 * MIB
HELD = ["max_dirty_age=86400", "migrate_idle_ms=60000", "migrate_threshold=100"]
MODES = ["direct", "persistent", "writeback"]


def options_of(work, mode, *more):
    cache = [] if mode == "direct" else [f"cache={work}/leaf.cache", "cache_size=32M"]
    return [f"mode={mode}", *cache, *more]


def command(path, text):
    """Once: a buffer of Python's would write it again after a failure."""
    with opened(path, os.O_WRONLY) as fd:
        os.write(fd, text.encode())


def take(live, tag, name="web1.img"):
    command(live.control("disks", name, "snapshots"), f"create {shlex.quote(tag)}")


def refusal(live, *names):
    with open(live.control(*names, "last_error"), encoding="utf-8") as file:
        return file.read()


def expect_refusal(number, live, tag, *parts, name="web1.img"):
    expect_errno(number, take, live, tag, name)
    text = refusal(live, "disks", name)
    for part in parts:
        assert part in text, text


def sealed(pool, tag, stem="web1", suffix=".leaf"):
    return os.path.join(pool, "snapshots", f"{stem}@{tag}{suffix}")


def marks(pool):
    """Not the one that was being written, which a mount removes when nobody can be at it any more."""
    directory = os.path.join(pool, ".leafdisk", "changes")
    return [name for name in os.listdir(directory) if not name.startswith(".new-")] if os.path.isdir(directory) else []


def images(pool):
    """The files that are images, or what was left of making one."""
    found = [name for name in os.listdir(pool) if os.path.isfile(os.path.join(pool, name))]
    directory = os.path.join(pool, "snapshots")
    if os.path.isdir(directory):
        found += [f"snapshots/{name}" for name in os.listdir(directory) if name != ".leafdisk"]
    return sorted(found)


class Guest:
    """A disk with its model, and the models of its snapshots."""

    def __init__(self, live, rng, content, name="web1.img"):
        self.live, self.rng, self.name = live, rng, name
        self.model = Model(content)
        self.snapshots = {}

    @property
    def path(self):
        return self.live.file(self.name)

    def change(self, steps=20):
        with opened(self.path) as fd:
            for _ in range(steps):
                offset = self.rng.randrange(len(self.model) // BLOCK - 64) * BLOCK
                length = self.rng.randrange(1, 64) * BLOCK
                if self.rng.random() < 0.2:
                    discard(fd, offset, length)
                    self.model.zero(offset, length)
                else:
                    data = self.rng.randbytes(length)
                    write_all(fd, data, offset)
                    self.model.write(offset, data)
            os.fsync(fd)

    def resize(self, size):
        os.truncate(self.path, size)
        self.model.resize(size)

    def take(self, tag):
        take(self.live, tag, self.name)
        self.snapshots[tag] = bytes(self.model.content)

    def verify(self):
        assert read_file(self.path, len(self.model) + 1) == bytes(self.model.content), "the disk"

    def verify_images(self, pool, work, suffix=".leaf"):
        """All is in the pool."""
        stem = self.name.removesuffix(".img")
        for tag, content in self.snapshots.items():
            image = sealed(pool, tag, stem, suffix if tag == next(iter(self.snapshots)) else ".leaf")
            check_clean(image)
            assert converted(image, work) == content, f"snapshot {tag}"
        image = os.path.join(pool, f"{stem}.leaf")
        check_clean(image)
        assert converted(image, work) == bytes(self.model.content), "the image"


def make_disk(pool, kind, rng):
    """Its content, and the ending of its image."""
    content = rng.randbytes(SIZE // 2) + bytes(SIZE // 2)
    if kind == "raw":
        make_raw(os.path.join(pool, "web1.raw"), content)
        return content, ".raw"
    if kind == "child":
        make_image(os.path.join(pool, "web1.leaf"), parent=make_raw(os.path.join(pool, "base.raw"), content))
        return content, ".leaf"
    make_image(os.path.join(pool, "web1.leaf"), SIZE)
    return bytes(SIZE), ".leaf"


@pytest.mark.parametrize("kind", ["leaf", "child", "raw"])
@pytest.mark.parametrize("mode", MODES)
def test_what_was_sealed_stays_what_it_was(mount, pool, work, rng, mode, kind):
    content, suffix = make_disk(pool, kind, rng)
    with mount(*options_of(work, mode)) as live:
        guest = Guest(live, rng, content)
        for tag in ("one", "two", "three"):
            guest.change()
            guest.take(tag)
            guest.verify()
        guest.resize(SIZE + MIB)
        guest.change()
        guest.take("four")
        guest.change()
        guest.verify()
    assert marks(pool) == []
    guest.verify_images(pool, work, suffix)
    with mount(*options_of(work, mode)) as live:
        guest.live = live
        guest.verify()
        guest.change()
        guest.take("five")
    guest.verify_images(pool, work, suffix)
    assert f"{7 if kind == 'child' else 6} images, no damage" in leafctl("check", pool).stdout
    with opened(sealed(pool, "two")) as fd:
        write_all(fd, bytes(2 * BLOCK), 0)
    assert "web1@two.leaf" in leafctl("check", pool, check=False).stderr


@pytest.mark.parametrize("kind", ["leaf", "child", "raw"])
def test_sealed_while_it_is_dirty(mount, pool, work, rng, kind):
    """The daemon is killed: what is dirty of each layer is that layer's."""
    content, suffix = make_disk(pool, kind, rng)
    live = mount(*options_of(work, "writeback", *HELD))
    guest = Guest(live, rng, content)
    for tag in ("one", "two", "three"):
        guest.change()
        guest.take(tag)
        guest.verify()
    guest.change()
    assert int(state_of(live)["dirty_bytes"]) > 0
    live.kill9()
    guest.live = mount(*options_of(work, "writeback", *HELD))
    guest.verify()
    guest.change()
    guest.live.kill9()
    with mount(*options_of(work, "writeback")) as live:
        guest.live = live
        guest.verify()
        leafctl("drain", live.path)
        guest.verify()
    guest.verify_images(pool, work, suffix)
    assert marks(pool) == []


def test_left_by_an_earlier_mount(mount, pool, work, rng):
    """What is dirty of a sealed layer goes to its image although nobody opens a disk on it."""
    make_disk(pool, "child", rng)
    live = mount(*options_of(work, "writeback", *HELD))
    guest = Guest(live, rng, read_file(live.file("web1.img"), SIZE))
    for tag in ("one", "two"):
        guest.change()
        guest.take(tag)
    lines = file_bytes(live.control("disks", "web1.img", "snapshots")).decode().splitlines()
    assert [line.split()[1] for line in lines] == ["two", "one"]
    assert all(int(line.split()[4]) > 0 for line in lines), lines
    live.kill9()
    live = mount(*options_of(work, "writeback"))
    leafctl("drain", live.path)
    lines = file_bytes(live.control("snapshots")).decode().splitlines()
    assert [int(line.split()[4]) for line in lines] == [0, 0]
    assert "not among the disks" not in live.messages()
    live.stop()
    guest.verify_images(pool, work)


@pytest.mark.parametrize("mode", MODES)
def test_under_load(mount, pool, work, rng, mode):
    """Each snapshot is what the guest's disk was at one moment: a counter that is written to two places in turn
    differs by one at most."""
    make_image(os.path.join(pool, "web1.leaf"), SIZE)
    live = mount(*options_of(work, mode))
    end = threading.Event()
    failed = []

    def count():
        number = 0
        with opened(live.file("web1.img"), os.O_RDWR | os.O_DSYNC) as fd:
            while not end.is_set():
                number += 1
                for place in (0, SIZE // 2):
                    try:
                        write_all(fd, number.to_bytes(8, "little") * (BLOCK // 8), place)
                    except OSError as error:
                        failed.append(error)
                        return

    thread = threading.Thread(target=count)
    thread.start()
    taken = scaled(20, 150)
    for number in range(taken):
        take(live, f"s{number}")
    end.set()
    thread.join()
    assert not failed, failed
    live.stop()
    counts = []
    for number in range(taken):
        content = converted(sealed(pool, f"s{number}"), work)
        first, second = (int.from_bytes(content[place:place + 8], "little") for place in (0, SIZE // 2))
        assert second <= first <= second + 1, f"snapshot {number}: {first}, {second}"
        counts.append(first)
    assert counts == sorted(counts)
    assert counts[-1] > 0, "nothing was written meanwhile"


@pytest.mark.parametrize("mode", ["direct", "writeback"])
def test_several_at_one_instant(mount, pool, work, mode):
    """A guest that writes to one disk, and then to the other: no snapshot has the second without the first."""
    for name in ("web1", "web2"):
        make_image(os.path.join(pool, f"{name}.leaf"), SIZE)
    live = mount(*options_of(work, mode))
    end = threading.Event()

    def count():
        number = 0
        with opened(live.file("web1.img"), os.O_RDWR | os.O_DSYNC) as one, \
                opened(live.file("web2.img"), os.O_RDWR | os.O_DSYNC) as two:
            while not end.is_set():
                number += 1
                for fd in (one, two):
                    write_all(fd, number.to_bytes(8, "little") * (BLOCK // 8), 0)

    thread = threading.Thread(target=count)
    thread.start()
    taken = scaled(20, 150)
    for number in range(taken):
        command(live.control("snapshots"), f"create s{number} web2.img web1.img")
    end.set()
    thread.join()
    live.stop()
    for number in range(taken):
        first, second = (int.from_bytes(converted(sealed(pool, f"s{number}", stem), work)[:8], "little")
                         for stem in ("web1", "web2"))
        assert second <= first <= second + 1, f"snapshot {number}: {first}, {second}"


@pytest.mark.parametrize("point", ["aio.datasync", "aio.write", "image.sync", "image.write"])
def test_the_image_of_a_sealed_layer_fails(mount, pool, work, rng, point):
    """It is opened anew and gets what is dirty, while guests read through it."""
    make_disk(pool, "leaf", rng)
    gate = Gate(work)
    live = mount(*options_of(work, "writeback", *HELD), env=faults(f"{point}/.leaf:EIO@1x3", gate=gate.path))
    guest = Guest(live, rng, bytes(SIZE))
    guest.change(60)
    guest.take("one")
    fork(live, "other.img")
    guest.change(10)
    end, wrong = threading.Event(), []

    def read(name, content):
        with opened(live.file(name), os.O_RDONLY | os.O_DIRECT) as fd:
            memory = Aligned(SIZE)
            while not end.is_set():
                if bytes(memory.read(fd, SIZE, 0)) != content:
                    wrong.append(name)

    readers = [threading.Thread(target=read, args=arguments) for arguments in
               (("other.img", guest.snapshots["one"]), ("web1.img", bytes(guest.model.content)))]
    for reader in readers:
        reader.start()
    gate.open()
    leafctl("drain", live.path, check=False)
    gate.close()
    leafctl("drain", live.path)
    end.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert point == "image.sync" or "takes its changes again" in live.messages(), "nothing failed"
    live.stop()
    guest.verify_images(pool, work)


@pytest.mark.parametrize("between", [0, 3])
@pytest.mark.parametrize("remount", [False, True])
def test_what_is_on_a_sealed_layer_goes_after_it(mount, pool, work, rng, between, remount):
    """Also when one between them had nothing, and is done."""
    content, _ = make_disk(pool, "raw", rng)
    gate, urge = Gate(work), ["max_dirty_age=1", "migrate_idle_ms=1"]
    rules = [f"{point}/{name}.raw:EIO" for point in ("image.write", "aio.write") for name in ("web1", "@one")]
    live = mount(*options_of(work, "writeback", *HELD), env=faults(*rules, gate=gate.path))
    guest = Guest(live, rng, content)
    guest.change(30)
    guest.take("one")
    if between:
        guest.change(between)
    guest.take("two")
    guest.change(10)
    gate.open()
    if remount:
        live.kill9()
        live = guest.live = mount(*options_of(work, "writeback", *urge), env=faults(*rules, gate=gate.path))
        guest.verify()
    else:
        leafctl("set", live.path, *urge)
    leafctl("drain", live.path, check=False)
    dirty = {line.split()[1]: int(line.split()[4]) for line in text_of_snapshots(live)}
    assert dirty["one"] > 0
    assert int(control_values(live, "disks", "web1.img", "state")["dirty_bytes"]) > 0, "the leaf went before what it stands on"
    gate.close()
    leafctl("drain", live.path)
    guest.verify()
    live.stop()
    guest.verify_images(pool, work, ".raw")


def text_of_snapshots(live, name="web1.img"):
    return file_bytes(live.control("disks", name, "snapshots")).decode().splitlines()


def fork(live, *names, name="web1.img"):
    command(live.control("disks", name, "snapshots"), "fork " + " ".join(names))


@pytest.mark.parametrize("kind", ["leaf", "child", "raw"])
@pytest.mark.parametrize("mode", MODES)
def test_forks(mount, pool, work, rng, mode, kind):
    """Each goes on for itself from what the disk was, at once, whatever is dirty."""
    content, _suffix = make_disk(pool, kind, rng)
    with mount(*options_of(work, mode, *(HELD if mode == "writeback" else []))) as live:
        guests = [Guest(live, rng, content)]
        for number in range(3):
            guests[0].change()
            name = f"fork{number}.img"
            fork(live, name)
            guests.append(Guest(live, rng, bytes(guests[0].model.content), name))
            for guest in guests:
                guest.change(5)
                guest.verify()
        fork(live, "a.img", "b.img", name="fork1.img")
        for name in ("a.img", "b.img"):
            guests.append(Guest(live, rng, bytes(guests[2].model.content), name))
        for guest in guests:
            guest.verify()
        leafctl("fork", live.file("fork2.img"), "c", live.file("d.img"))
        for name in ("c.img", "d.img"):
            guests.append(Guest(live, rng, bytes(guests[3].model.content), name))
        for guest in guests:
            guest.change(5)
            guest.verify()
    assert marks(pool) == []
    with mount(*options_of(work, mode)) as live:
        for guest in guests:
            guest.live = live
            guest.verify()
    for guest in guests:
        guest.verify_images(pool, work)


def test_a_fork_of_what_does_not_change_makes_no_chain_longer(mount, pool, work, rng):
    content, _suffix = make_disk(pool, "child", rng)
    count = scaled(30, 300)
    with mount(*options_of(work, "writeback")) as live:
        guest = Guest(live, rng, content)
        for number in range(count):
            fork(live, f"n{number}.img")
        assert len(live.names()) == count + 2
        assert "snapshots" not in os.listdir(pool)
        guest.change()
        fork(live, "late.img")
        fork(live, "later.img", name="late.img")
        assert read_file(live.file("later.img"), SIZE) == bytes(guest.model.content)
        assert read_file(live.file("n7.img"), SIZE) == content
        chain = file_bytes(live.control("disks", "later.img", "chain")).decode().splitlines()
        assert [line.split()[0].rsplit("/", 1)[1] for line in chain] == ["later.leaf", "web1@fork1.leaf", "base.raw"]
    refused = leafctl("resize", os.path.join(pool, "base.raw"), "16M", check=False)
    assert refused.returncode == 1 and "n7.leaf" in refused.stderr, "the parent does not know of its children"


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_fork_that_is_interrupted(mount, pool, work, rng, crash, nth):
    make_disk(pool, "leaf", rng)
    gate = Gate(work)
    live = mount(*options_of(work, "writeback", *HELD), env=faults(f"snapshot.fork:{'crash' if crash else 'EIO'}@{nth}x1",
                                                                     gate=gate.path))
    guest = Guest(live, rng, bytes(SIZE))
    guest.change()
    gate.open()
    expect_errno(errno.ENOTCONN if crash else errno.EIO, fork, live, "a.img", "b.img", "c.img")
    if crash:
        assert live.wait() == CRASH_STATUS
        live.finalise()
        guest.live = live = mount(*options_of(work, "writeback"))
    guest.verify()
    made = [name for name in ("a.img", "b.img", "c.img") if name in live.names()]
    assert len(made) == (3 if crash else 2)
    for name in made:
        assert read_file(live.file(name), SIZE) == bytes(guest.model.content)
    live.stop()
    assert marks(pool) == []
    assert not [name for name in os.listdir(pool) if name.startswith(".") and name != ".leafdisk"]


def test_refusals(mount, pool, work, rng):
    make_disk(pool, "leaf", rng)
    os.symlink(make_image(os.path.join(work, "far.leaf"), SIZE), os.path.join(pool, "linked.leaf"))
    with mount(*options_of(work, "writeback", f"layers={work}")) as live:
        take(live, "there")
        expect_refusal(errno.EEXIST, live, "there", "stands on")
        for bad in ("a/b", ".hidden", "a@b", "x" * 200):
            expect_refusal(errno.EINVAL, live, bad, "cannot name a snapshot")
        expect_errno(errno.EINVAL, command, live.control("snapshots"), "create alone")
        expect_errno(errno.ENOENT, command, live.control("snapshots"), "create s no.img")
        expect_errno(errno.EINVAL, command, live.control("snapshots"), "create s web1.img web1.img")
        assert "named twice" in refusal(live)
    assert images(pool) == ["linked.leaf", "snapshots/web1@there.leaf", "web1.leaf"]
    with mount(*options_of(work, "writeback", "ro")) as live:
        expect_errno(errno.EROFS, take, live, "new")
    assert marks(pool) == []


POINTS = ["snapshot.mark", "snapshot.opened", "snapshot.link", "snapshot.exchange", "owner.read", "owner.write",
          "owner.rename", "image.write", "image.sync", "image.open", "image.read", "place.open", "place.look", "place.rename",
          "place.unlink"]


def settled(pool, tag):
    """Before, or after; nothing in between, and nothing besides."""
    assert marks(pool) == [], "a mark stays"
    assert images(pool) in (["web1.leaf"], [f"snapshots/web1@{tag}.leaf", "web1.leaf"])


def begin(mount, pool, work, rng, kind, options, *rules):
    """(who uses the only disk of the pool, the gate behind which RULES are)"""
    for name in images(pool):
        os.unlink(os.path.join(pool, name))
    content, _ = make_disk(pool, kind, rng)
    gate = Gate(work)
    guest = Guest(mount(*options, env=faults(*rules, gate=gate.path)), rng, content)
    guest.change()
    return guest, gate


def try_to_take(guest, gate):
    """Whether the snapshot "one" was taken, with what is behind the gate."""
    gate.open()
    try:
        guest.take("one")
        return True
    except OSError:
        return False


def end_crashed(guest, gate, taken):
    """Whether the daemon was killed by a fault; if not it is killed now."""
    with contextlib.suppress(FileNotFoundError):
        gate.close()
    crashed = guest.live.has_ended() or not taken
    if not crashed:
        guest.live.kill9()
    else:
        assert guest.live.wait() == CRASH_STATUS, guest.live.messages()
        guest.live.finalise()
    return crashed


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_each_step(mount, pool, work, rng, mode, point):
    for nth in numbers(4, 200):
        guest, gate = begin(mount, pool, work, rng, "leaf", options_of(work, mode, *(HELD if mode == "writeback" else [])),
                            f"{point}:crash@{nth}")
        crashed = end_crashed(guest, gate, try_to_take(guest, gate))
        with mount(*options_of(work, mode)) as live:
            guest.live = live
            guest.verify()
            leafctl("drain", live.path)
        settled(pool, "one")
        if os.path.exists(sealed(pool, "one")):
            guest.snapshots["one"] = bytes(guest.model.content)
        guest.verify_images(pool, work)
        if not crashed:
            return
    raise AssertionError("the point is met each time")


def start_and_fail(mount, pool, work, rng, mode, kind, rule):
    """Who uses the disk, and whether the snapshot "one" was taken nevertheless."""
    guest, gate = begin(mount, pool, work, rng, kind, options_of(work, mode), rule)
    taken = try_to_take(guest, gate)
    assert taken or refusal(guest.live, "disks", "web1.img")
    gate.close()
    return guest, taken


@pytest.mark.parametrize("kind", ["leaf", "raw"])
@pytest.mark.parametrize("point", ["snapshot.link", "snapshot.exchange", "place.rename", "place.unlink", "owner.write"])
def test_a_store_without_links(mount, pool, work, rng, point, kind):
    """The image is renamed, and for a moment only the mark tells where it is."""
    mode, ending, without = rng.choice(MODES), ".raw" if kind == "raw" else ".leaf", "place.link:EPERM@1x1000000"
    for nth in numbers(4, 200):
        guest, gate = begin(mount, pool, work, rng, kind, options_of(work, mode), f"{point}:crash@{nth}", without)
        crashed = end_crashed(guest, gate, try_to_take(guest, gate))
        with mount(*options_of(work, mode), env=faults(without)) as guest.live:
            guest.verify()
            leafctl("drain", guest.live.path)
        assert marks(pool) == []
        taken = os.path.exists(sealed(pool, "one", suffix=ending))
        assert images(pool) == ([f"snapshots/web1@one{ending}", "web1.leaf"] if taken else [f"web1{ending}"])
        image = os.path.join(pool, "web1.leaf" if taken else f"web1{ending}")
        assert converted(image, work) == bytes(guest.model.content)
        if not crashed:
            assert taken
            return
    raise AssertionError("the point is met each time")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("error", scaled(["EIO"], ["EIO", "ENOSPC", "EACCES"]))
@pytest.mark.parametrize("point", POINTS)
def test_what_fails_leaves_the_disk_as_it_was(mount, pool, work, rng, mode, point, error):
    for nth in numbers(2, 200):
        guest, taken = start_and_fail(mount, pool, work, rng, mode, "leaf", f"{point}:{error}@{nth}x1")
        guest.verify()
        guest.change()
        guest.take("two")
        guest.change()
        guest.verify()
        guest.live.stop()
        assert marks(pool) == []
        assert os.path.exists(sealed(pool, "one")) == taken
        guest.verify_images(pool, work)
        if taken:
            return
    raise AssertionError("the point is met each time")


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("kind", ["leaf", "raw"])
@pytest.mark.parametrize("point", ["snapshot.exchange", "place.rename", "place.unlink", "place.look", "owner.write"])
def test_what_can_be_taken_back_later_only(mount, pool, work, rng, point, kind, crash):
    """The store fails on: the disk goes on, and the next snapshot or mount takes back what there is."""
    mode, ending = rng.choice(MODES), ".raw" if kind == "raw" else ".leaf"
    for nth in numbers(4, 200):
        guest, taken = start_and_fail(mount, pool, work, rng, mode, kind, f"{point}:EIO@{nth}x1000000")
        guest.verify()
        guest.change()
        if crash:
            guest.live.kill9()
            guest.live = mount(*options_of(work, mode))
            guest.verify()
        guest.take("two")
        guest.change()
        guest.verify()
        guest.live.stop()
        assert marks(pool) == []
        assert not [name for name in os.listdir(pool) if name.startswith(".") and name != ".leafdisk"]
        made = os.path.exists(sealed(pool, "one", suffix=ending))
        assert made == taken or crash
        guest.verify_images(pool, work, ending if made == taken else ".leaf")
        if taken:
            return
    raise AssertionError("the point is met each time")


def can_be_opened(path):
    with contextlib.suppress(OSError), opened(path):
        return True
    return False


@pytest.mark.parametrize("kind", ["leaf", "raw"])
@pytest.mark.parametrize("mode", ["direct", "writeback"])
def test_closed_before_it_is_taken_back(mount, pool, work, rng, mode, kind):
    """Of two disks one has its new leaf when the store fails: who opens that one again has the disk's image, and not the leaf
    that is to go."""
    gate = Gate(work)
    content, ending = make_disk(pool, kind, rng)
    make_image(os.path.join(pool, "web2.leaf"), SIZE)
    live = mount(*options_of(work, mode), env=faults("snapshot.exchange/web2.leaf:EIO@1x1", "place.rename:EIO@2x1000000", gate=gate.path))
    guest = Guest(live, rng, content)
    with opened(guest.path):
        guest.change()
        gate.open()
        expect_errno(errno.EIO, command, live.control("snapshots"), "create one web1.img web2.img")
        assert "is not all removed yet" in live.messages()
        guest.verify()
        guest.change()
    leafctl("drain", live.path)
    wait_until(lambda: not can_be_opened(guest.path), "the disk to be closed")
    assert live.names() == ["web1.img", "web2.img"]
    gate.close()
    wait_until(lambda: live.names() and can_be_opened(guest.path), "its image to be back")
    guest.verify()
    guest.change()
    take(live, "two", "web2.img")
    guest.verify()
    guest.take("two")
    guest.change()
    guest.verify()
    live.stop()
    assert marks(pool) == []
    assert images(pool) == [f"snapshots/web1@two{ending}", "snapshots/web2@two.leaf", "web1.leaf", "web2.leaf"]
    guest.verify_images(pool, work, ending)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("crash", [None, "snapshot.exchange@1", "place.unlink/web1.raw@1"])
def test_the_name_that_a_raw_image_had_is_nobodys(mount, pool, work, rng, mode, crash):
    """What was recorded of it is not said of the next image of that name."""
    content, _ = make_disk(pool, "raw", rng)
    live = mount(*options_of(work, mode), env=faults(f"{crash.replace('@', ':crash@')}") if crash else {})
    guest = Guest(live, rng, content)
    guest.change()
    with contextlib.suppress(OSError):
        guest.take("one")
    if crash:
        assert live.wait() == CRASH_STATUS
        live.finalise()
        guest.live = live = mount(*options_of(work, mode))
    guest.change()
    guest.verify()
    leafctl("drain", live.path)
    live.stop()
    assert os.listdir(os.path.join(pool, ".leafdisk", "owners")) == ["web1.leaf"]
    os.rename(os.path.join(pool, "web1.leaf"), os.path.join(pool, "web2.leaf"))
    make_raw(os.path.join(pool, "web1.raw"), content)
    with mount() as live, opened(live.file("web1.img")) as fd:
        write_all(fd, b"1" * BLOCK, 0)


def test_an_image_remembers_where_its_forks_are(mount, pool, rng):
    """Of a disk that has changed and of one that has not: one that is gone can be forgotten."""
    make_disk(pool, "leaf", rng)
    with mount("mode=direct") as live:
        with opened(live.file("web1.img")) as fd:
            write_all(fd, b"1" * BLOCK, 0)
        fork(live, "changed.img")
        fork(live, "unchanged.img")
    image = sealed(pool, "fork1")
    for name in ("changed", "unchanged"):
        child = os.path.join(pool, f"{name}.leaf")
        os.unlink(child)
        leafctl("forget-child", image, child)


def test_renamed_before_it_is_taken_back(mount, pool, work, rng):
    """Its image's other name is removed before it has another: who came later would find it under two."""
    gate = Gate(work)
    make_disk(pool, "leaf", rng)
    live = mount("mode=direct", "manage", env=faults("snapshot.exchange:EIO@1x1", "place.unlink:EIO@1x1000000", gate=gate.path))
    gate.open()
    expect_errno(errno.EIO, take, live, "one")
    assert "is not all removed yet" in live.messages() and os.path.exists(sealed(pool, "one"))
    expect_errno(errno.EBUSY, os.rename, live.file("web1.img"), live.file("web2.img"))
    expect_errno(errno.EBUSY, os.unlink, live.file("web1.img"))
    gate.close()
    os.rename(live.file("web1.img"), live.file("web2.img"))
    assert images(pool) == ["web2.leaf"] and marks(pool) == []
    live.stop()
