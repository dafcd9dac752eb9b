"""Snapshots and forks of ephemeral disks: they stay in the log, cost the pool no file, and are gone with the mount."""
import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from guests import FS_LOAD
from harness import (BLOCK, MIB, TORTURE, Aligned, Gate, Loop, check_clean, control_values, converted, discard, expect_errno,
                     faults, leafctl, make_image, make_raw, numbers, opened, pieces_of, read_file, run, state_of, wait_until,
                     write_all)
from test_revert import nothing_is_left
from test_slow_store import Store
from test_snapshots import Guest, command, images, marks, take

SIZE = 4 * MIB
ROOMS = ["64M", "8M"]
SECONDS = int(os.environ.get("LEAFDISK_TORTURE_SECONDS", 60)) if TORTURE else 0


def start(mount, work, room="64M", *more, **settings):
    return mount(f"cache={work}/c", f"cache_size={room}", "mode=ephemeral", *more, **settings)


def make_disk(pool, kind, rng):
    content = rng.randbytes(SIZE)
    if kind == "raw":
        make_raw(os.path.join(pool, "web1.raw"), content)
    else:
        make_image(os.path.join(pool, "web1.leaf"), parent=make_raw(os.path.join(pool, "base.raw"), content))
    return content


def fork(live, *names, name="web1.img"):
    command(live.control("disks", name, "snapshots"), " ".join(["fork", *names]))


def revert(live, *words, name="web1.img"):
    command(live.control("disks", name, "snapshots"), " ".join(["revert", *words]))


def delete(live, *words, name="web1.img"):
    command(live.control("disks", name, "snapshots"), " ".join(["delete", *words]))


def content_of(live, name="web1.img"):
    return read_file(live.file(name), 64 * MIB)


def write(live, data, offset, name="web1.img"):
    with opened(live.file(name)) as fd:
        write_all(fd, data, offset)


@pytest.fixture
def unchanged(pool):
    """The pool has the same files in the end, with the same content."""
    def state():
        return {name: read_file(os.path.join(pool, name), 64 * MIB) for name in images(pool)}

    before = []
    yield lambda: before.append(state())
    assert before[-1] == state() and marks(pool) == []


@pytest.mark.parametrize("kind", ["leaf", "raw"])
@pytest.mark.parametrize("room", ROOMS)
def test_there_and_back(mount, pool, work, rng, kind, room, unchanged):
    """What is saved is what the disk was, with what the cache had no room for; the disk goes to each as often as wanted."""
    contents = {"": make_disk(pool, kind, rng)}
    unchanged()
    live = start(mount, work, room)
    for number in range(4):
        content = bytearray(contents[str(number - 1)] if number else contents[""])
        for _ in range(40):
            at, data = rng.randrange(SIZE // BLOCK - 8) * BLOCK, rng.randbytes(rng.choice([512, BLOCK, 8 * BLOCK]))
            write(live, data, at)
            content[at:at + len(data)] = data
        if number == 2:
            write(live, big := rng.randbytes(SIZE), 0)
            content[:] = big
        contents[str(number)] = bytes(content)
        take(live, str(number))
        assert content_of(live) == content
    for tag in ["0", "3", "1", "1", "2", ""]:
        revert(live, *([tag] if tag else []))
        assert content_of(live) == contents[tag], tag
        write(live, b"x" * MIB, MIB)
    revert(live, "1")
    for tag in ["0", "2"]:
        delete(live, tag)
        expect_errno(errno.ENOENT, revert, live, tag)
        expect_errno(errno.ENOENT, delete, live, tag)
    assert content_of(live) == contents["1"]
    revert(live, "3")
    assert content_of(live) == contents["3"]
    live.stop()
    live = start(mount, work, room)
    assert content_of(live) == contents[""]
    expect_errno(errno.ENOENT, revert, live, "1")


@pytest.mark.parametrize("room", ROOMS)
def test_forks(mount, pool, work, rng, room, unchanged):
    """Each goes its own way from the instant of the fork, closed or open, and can be forked, saved and removed itself."""
    make_disk(pool, "leaf", rng)
    unchanged()
    live = start(mount, work, room)
    write(live, rng.randbytes(MIB), MIB)
    at_fork = content_of(live)
    fork(live, "web2.img", "web3.img")
    write(live, b"1" * BLOCK, 0)
    write(live, b"2" * BLOCK, MIB, "web2.img")
    fork(live, "web4.img", name="web2.img")
    write(live, b"4" * BLOCK, 2 * MIB, "web4.img")
    expected = {
        "web1.img": b"1" * BLOCK + at_fork[BLOCK:],
        "web2.img": at_fork[:MIB] + b"2" * BLOCK + at_fork[MIB + BLOCK:],
        "web3.img": at_fork,
        "web4.img": at_fork[:MIB] + b"2" * BLOCK + at_fork[MIB + BLOCK:2 * MIB] + b"4" * BLOCK + at_fork[2 * MIB + BLOCK:],
    }
    for _ in range(2):
        assert {name: content_of(live, name) for name in expected} == expected
        assert sorted(name for name in os.listdir(live.path) if name.startswith("web")) == sorted(expected)
    revert(live)
    delete(live, name="web2.img")
    os.unlink(live.file("web3.img"))
    assert sorted(name for name in os.listdir(live.path) if name.startswith("web")) == ["web1.img", "web4.img"]
    assert content_of(live, "web4.img") == expected["web4.img"]
    fork(live, "web2.img")
    assert content_of(live, "web2.img") == content_of(live)


def test_one_instant(mount, pool, work, rng, unchanged):
    """Of several disks no one has a write that was sent after another's answered later one."""
    for number in range(1, 4):
        make_raw(os.path.join(pool, f"web{number}.raw"), bytes(MIB))
    unchanged()
    live = start(mount, work)
    names = [f"web{number}.img" for number in range(1, 4)]
    files = [os.open(live.file(name), os.O_RDWR) for name in names]
    stop = threading.Event()

    def count():
        number = 0
        while not stop.is_set():
            number += 1
            for fd in files:
                os.pwrite(fd, number.to_bytes(8, "little"), 0)

    writer = threading.Thread(target=count)
    writer.start()
    for tag in range(10):
        leafctl("snapshot", *[live.file(name) for name in names], str(tag))
    stop.set()
    writer.join()
    for fd in files:
        os.close(fd)
    for tag in range(10):
        for name in names:
            revert(live, str(tag), name=name)
        seen = [int.from_bytes(content_of(live, name)[:8], "little") for name in names]
        assert seen == sorted(seen, reverse=True) and seen[0] - seen[-1] <= 1, (tag, seen)


def test_while_it_is_used(mount, pool, work, rng):
    """Under a guest that goes on, every snapshot and fork is what its disk was between two of its writes."""
    content = make_disk(pool, "raw", rng)
    live = start(mount, work, "16M")
    guest = Guest(live, rng, content)
    for number in range(12):
        guest.change()
        take(live, str(number))
        guest.snapshots[str(number)] = bytes(guest.model.content)
        fork(live, f"fork{number}.img")
    for number in range(12):
        assert content_of(live, f"fork{number}.img") == guest.snapshots[str(number)], number
    guest.verify()


def test_sizes(mount, pool, work, rng, unchanged):
    """A snapshot has the size that the disk had; behind its end there is nothing of before."""
    content = make_disk(pool, "raw", rng)
    unchanged()
    live = start(mount, work, "64M", "manage")
    path = live.file("web1.img")
    write(live, b"x" * MIB, SIZE - MIB)
    take(live, "small")
    leafctl("resize", path, str(SIZE + MIB))
    write(live, b"y" * BLOCK, SIZE)
    take(live, "large")
    fork(live, "fork.img")
    revert(live, "small")
    assert content_of(live) == content[:-MIB] + b"x" * MIB
    leafctl("resize", path, str(SIZE + MIB))
    assert content_of(live) == content[:-MIB] + b"x" * MIB + bytes(MIB)
    revert(live, "large")
    large = content[:-MIB] + b"x" * MIB + b"y" * BLOCK + bytes(MIB - BLOCK)
    assert content_of(live) == large and content_of(live, "fork.img") == large
    leafctl("resize", "--shrink", path, str(MIB + 100))
    take(live, "shrunk")
    leafctl("resize", path, str(2 * MIB))
    assert content_of(live) == content[:MIB + 100] + bytes(MIB - 100)
    fork(live, "after.img")
    assert content_of(live, "after.img") == content_of(live)
    with opened(path):
        expect_errno(errno.EBUSY, revert, live, "large")


def test_holes(mount, pool, work, rng):
    """Zeros above data are zeros below another layer too, and holes are what they were."""
    content = make_disk(pool, "raw", rng)
    live = start(mount, work)
    path = live.file("web1.img")
    with opened(path) as fd:
        discard(fd, MIB, MIB)
        write_all(fd, b"x" * BLOCK, MIB + BLOCK)
    pieces = [(0, content[:MIB]), (MIB + BLOCK, b"x" * BLOCK), (2 * MIB, content[2 * MIB:])]
    assert list(pieces_of(path)) == pieces
    take(live, "one")
    assert list(pieces_of(path)) == pieces
    revert(live, "one")
    assert list(pieces_of(path)) == pieces


def test_what_is_told(mount, pool, work, rng):
    make_disk(pool, "leaf", rng)
    live = start(mount, work)
    take(live, "empty")
    write(live, rng.randbytes(MIB), 0)
    take(live, "one")
    fork(live, "web2.img")
    rows = [line.split() for line in leafctl("snapshots", live.file("web1.img")).stdout.splitlines()]
    assert [row[:2] for row in rows[1:]] == [["web1.img", "one"], ["web1.img", "empty"]]
    assert rows[1][2:8] == ["4", "MiB", "0", "B", "1", "MiB"] and rows[1][-1] == "yes"
    assert leafctl("snapshots", live.file("web2.img")).stdout.splitlines()[1:] == []
    revert(live, "empty")
    rows = [line.split() for line in leafctl("snapshots", live.file("web1.img")).stdout.splitlines()]
    assert [row[-1] for row in rows[1:]] == ["no", "yes"]
    assert state_of(live, "web2.img")["state"] == "active"
    said = leafctl("info", live.file("web2.img"), check=False)
    assert said.returncode != 0 and "a fork" in said.stderr


def test_the_size_that_is_told(mount, pool, work, rng):
    """Of a disk that is closed, and what its image is again."""
    make_disk(pool, "raw", rng)
    live = start(mount, work)
    leafctl("resize", live.file("web1.img"), str(2 * SIZE))
    assert state_of(live)["size_bytes"] == str(2 * SIZE)
    revert(live)
    assert state_of(live)["size_bytes"] == str(SIZE)
    assert os.stat(live.file("web1.img")).st_size == SIZE


def test_a_store_that_fails_below(mount, pool, work, rng, gate):
    """What a snapshot has in the pool is told of as what the disk itself has there."""
    make_disk(pool, "raw", rng)
    live = start(mount, work, "8M", env=faults("image.read:EIO", "aio.read/.leaf:EIO", gate=gate.path))
    for _ in range(3):
        write(live, rng.randbytes(SIZE), 0)
    take(live, "one")
    memory = Aligned(SIZE)
    with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        gate.open()
        with pytest.raises(OSError):
            memory.read(fd, SIZE, 0)
        state = state_of(live)
        assert state["state"] == "failing" and "overflow" in state["reason"]
        gate.close()
        memory.read(fd, SIZE, 0)
        assert state_of(live)["state"] == "active"


def test_a_store_that_hangs_below(mount, pool, work, rng):
    """A disk that is open goes back, and is sealed, without it."""
    make_image(os.path.join(pool, "web1.leaf"), SIZE)
    with mount("mode=direct") as live:
        write(live, b"i" * MIB, 0)
        take(live, "image")
    store = Store(pool, work)
    live = start(mount, work, env={**store.env, "SLOW_HANG": "/"})
    with opened(live.file("web1.img")) as fd:
        write_all(fd, b"1" * MIB, 0)
        take(live, "one")
        write_all(fd, b"2" * MIB, 0)
        store.gate.open()
        changes = threading.Thread(target=go_back_and_on, args=[live], daemon=True)
        changes.start()
        changes.join(60)
        hung = changes.is_alive()
        store.gate.close()
        changes.join()
        assert not hung
    assert content_of(live)[:MIB] == b"1" * MIB


def go_back_and_on(live):
    command(live.control("disks", "web1.img", "snapshots"), "revert-live one")
    take(live, "two")
    fork(live, "web2.img")


def test_what_cannot_be(mount, pool, work, rng, unchanged):
    make_disk(pool, "raw", rng)
    make_raw(os.path.join(pool, "other.raw"), bytes(MIB))
    config = os.path.join(work, "conf")
    with open(config, "w", encoding="utf-8") as file:
        file.write("[disk other.img]\nmode=direct\n")
    unchanged()
    live = start(mount, work, "64M", "manage", f"conf={config}")
    fork(live, "web2.img")
    take(live, "one")
    expect_errno(errno.EEXIST, take, live, "one")
    expect_errno(errno.EEXIST, fork, live, "web2.img")
    expect_errno(errno.EEXIST, fork, live, "other.img")
    expect_errno(errno.EEXIST, fork, live, "new.img", "new.img")
    expect_errno(errno.EPERM, fork, live, "new")
    expect_errno(errno.EOPNOTSUPP, command, live.control("snapshots"), "create two web1.img other.img")
    expect_errno(errno.EINVAL, delete, live)
    expect_errno(errno.EBUSY, os.rename, live.file("web2.img"), live.file("web3.img"))
    expect_errno(errno.EBUSY, os.unlink, live.file("web1.img"))
    expect_errno(errno.EBUSY, os.rename, live.file("web1.img"), live.file("web3.img"))
    said = leafctl("mode", live.file("web2.img"), "direct", check=False)
    assert said.returncode != 0 and "another disk's" in said.stderr
    with opened(live.file("web2.img")) as fd:
        expect_errno(errno.EBUSY, command, live.control("disks", "web2.img", "snapshots"), "delete")
        write_all(fd, b"x" * BLOCK, 0)
    delete(live, name="web2.img")
    expect_errno(errno.ENOENT, os.stat, live.file("web2.img"))
    assert "new.img" not in os.listdir(live.path)


def test_a_fork_that_has_nothing(mount, pool, work, rng, unchanged):
    """It stands on another disk's image all the same, and never writes it."""
    content = make_disk(pool, "raw", rng)
    unchanged()
    live = start(mount, work)
    write(live, b"x" * BLOCK, 0)
    fork(live, "web2.img")
    revert(live, name="web2.img")
    for mode in ["direct", "persistent", "writeback"]:
        said = leafctl("mode", live.file("web2.img"), mode, check=False)
        assert said.returncode != 0 and "another disk's" in said.stderr
    write(live, b"2" * BLOCK, 0, "web2.img")
    assert content_of(live, "web2.img") == b"2" * BLOCK + content[BLOCK:]


def test_an_image_with_forks_is_not_written(mount, pool, work, rng):
    """By the disk whose image it is, in another mode, once it has no changes itself."""
    make_disk(pool, "raw", rng)
    live = start(mount, work)
    write(live, b"x" * BLOCK, 0)
    fork(live, "web2.img")
    revert(live)
    expected = content_of(live, "web2.img")
    said = leafctl("mode", live.file("web1.img"), "direct", check=False)
    assert said.returncode != 0 and "web2.img is a fork of it" in said.stderr
    write(live, b"y" * BLOCK, 0)
    assert content_of(live, "web2.img") == expected
    revert(live)
    delete(live, name="web2.img")
    leafctl("mode", live.file("web1.img"), "direct")


@pytest.mark.parametrize("mode", ["direct", "persistent", "writeback", "keep"])
def test_whose_it_is_afterwards(mount, pool, work, rng, mode):
    """Whoever writes an image owns it, also where the disk was taken back, or sealed, before it had one."""
    make_disk(pool, "leaf", rng)
    live = start(mount, work)
    write(live, b"x" * BLOCK, 0)
    if mode == "keep":
        take(live, "one")
        leafctl("keep", live.file("web1.img"), "kept")
    else:
        revert(live)
        leafctl("mode", live.file("web1.img"), mode)
    with opened(live.file("web1.img")) as fd:
        write_all(fd, b"y" * BLOCK, BLOCK)
        assert state_of(live)["owner"] == "here"
    assert content_of(live)[BLOCK:2 * BLOCK] == b"y" * BLOCK
    live.stop()


def test_a_disk_with_snapshots_keeps_its_name(mount, pool, work, rng):
    """Also where it is what its image is: under another name it would have none."""
    make_disk(pool, "raw", rng)
    live = start(mount, work, "64M", "manage")
    write(live, b"x" * BLOCK, 0)
    take(live, "one")
    revert(live)
    expect_errno(errno.EBUSY, os.rename, live.file("web1.img"), live.file("web3.img"))
    revert(live, "one")
    assert content_of(live)[:BLOCK] == b"x" * BLOCK
    revert(live)
    delete(live, "one")
    os.rename(live.file("web1.img"), live.file("web3.img"))


def test_names_of_forks(mount, pool, work, rng):
    """As long as a name can be, and none that the configuration has given to a disk that cannot be shown now."""
    make_disk(pool, "raw", rng)
    base = os.path.join(pool, "later.raw")
    config = os.path.join(work, "conf")
    with open(config, "w", encoding="utf-8") as file:
        file.write(f"[disk spelled.img]\nlayers={base}\n")
    live = start(mount, work, "64M", "manage", f"conf={config}")
    write(live, b"x" * BLOCK, 0)
    for length in [256, 300, 1100]:
        expect_errno(errno.ENAMETOOLONG, fork, live, "n" * (length - 4) + ".img")
    fork(live, longest := "n" * 251 + ".img")
    assert content_of(live, longest) == content_of(live)
    expect_errno(errno.EEXIST, fork, live, "spelled.img")
    expect_errno(errno.EEXIST, os.open, live.file("spelled.img"), os.O_RDWR | os.O_CREAT)
    make_raw(base, b"l" * MIB)
    wait_until(lambda: "spelled.img" in os.listdir(live.path), "the disk", 20)
    assert content_of(live, "spelled.img") == b"l" * MIB
    fork(live, "other.img", name="spelled.img")
    expect_errno(errno.EBUSY, os.rename, live.file("other.img"), live.file("another.img"))
    assert "other.img: not renamed: is a fork" in live.messages()
    assert leafctl("status", live.path).returncode == 0


def test_an_image_of_that_name_appears(mount, pool, work, rng):
    """The fork keeps its name, and its content."""
    make_disk(pool, "raw", rng)
    live = start(mount, work)
    write(live, b"x" * BLOCK, 0)
    fork(live, "web2.img")
    expected = content_of(live)
    make_raw(os.path.join(pool, "web2.raw"), b"n" * MIB)
    wait_until(lambda: "web2.raw.img" in os.listdir(live.path), "the image", 20)
    assert content_of(live, "web2.img") == expected and content_of(live, "web2.raw.img") == b"n" * MIB


def test_the_image_is_replaced(mount, pool, work, rng):
    """What was made on the old one is refused, with a sentence, and nothing is mixed."""
    make_disk(pool, "raw", rng)
    live = start(mount, work)
    write(live, b"x" * BLOCK, 0)
    take(live, "one")
    fork(live, "web2.img")
    new = rng.randbytes(SIZE)
    make_raw(os.path.join(pool, "new"), new)
    os.rename(os.path.join(pool, "new"), os.path.join(pool, "web1.raw"))
    expect_errno(errno.ESTALE, content_of, live, "web2.img")
    expect_errno(errno.ESTALE, content_of, live)
    revert(live)
    assert content_of(live) == new
    with opened(live.file("web1.img")):
        expect_errno(errno.ESTALE, command, live.control("disks", "web1.img", "snapshots"), "revert-live one")


def test_room_comes_back(mount, pool, work, rng):
    """What nobody stands on any more is nothing in the cache."""
    make_disk(pool, "raw", rng)
    live = start(mount, work)

    def held():
        return int(control_values(live, "cache", "info")["pinned_bytes"])

    for number in range(3):
        write(live, rng.randbytes(MIB), number * MIB)
        take(live, str(number))
        fork(live, f"fork{number}.img")
    assert held() >= 3 * MIB
    for number in range(3):
        delete(live, str(number))
        delete(live, name=f"fork{number}.img")
    assert held() >= 3 * MIB
    revert(live)
    assert held() == 0
    fork(live, "fork.img")
    write(live, rng.randbytes(MIB), 0, "fork.img")
    take(live, "one", "fork.img")
    write(live, rng.randbytes(MIB), 0, "fork.img")
    assert held() == 2 * MIB
    delete(live, name="fork.img")
    assert held() == 0


def test_many(mount, pool, work, rng):
    """Rewound again and again: the layers do not grow; and no more are put on one another than there can be, where
    there is something to put."""
    make_disk(pool, "raw", rng)
    live = start(mount, work)
    write(live, b"x" * BLOCK, 0)
    take(live, "start")
    for number in range(300):
        write(live, number.to_bytes(4, "little"), BLOCK)
        revert(live, "start")
    refused = 0
    for number in range(300):
        write(live, number.to_bytes(4, "little"), BLOCK)
        try:
            take(live, str(number))
        except OSError as error:
            assert error.errno == errno.EMLINK
            refused += 1
    assert 40 < refused < 60
    assert content_of(live)[BLOCK:BLOCK + 4] == (299).to_bytes(4, "little")
    revert(live, str(299 - refused))
    fork(live, "fork.img")
    assert content_of(live, "fork.img") == content_of(live)
    take(live, "same", "fork.img")
    write(live, b"new", 0, "fork.img")
    expect_errno(errno.EMLINK, take, live, "more", "fork.img")
    revert(live, "start")
    take(live, "again")


@pytest.mark.parametrize("room", ROOMS)
def test_under_a_file_system(mount, pool, work, rng, room):
    """What was synced before is in each fork and each snapshot, and their file systems are whole."""
    run("mke2fs", "-q", "-t", "ext4", os.path.join(pool, "web1.raw"), "24M")
    live = start(mount, work, room)
    directory = os.path.join(work, "guest")
    forks, tags, until = [], [], time.monotonic() + SECONDS
    with Loop(live.file("web1.img")) as loop:
        loop.mount(directory)
        load = subprocess.Popen([sys.executable, FS_LOAD, os.path.join(directory, "load"), str(rng.randrange(1 << 30)), "0"],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            while len(forks) < 8 or time.monotonic() < until:
                number = len(forks)
                with open(os.path.join(directory, f"synced{number}"), "w", encoding="ascii") as file:
                    file.write(str(number))
                    file.flush()
                    os.fsync(file.fileno())
                if number % 3 == 2:
                    take(live, f"s{number}")
                    tags.append((f"s{number}", number))
                fork(live, f"fork{number}.img", name=f"fork{rng.choice(forks)}.img" if number % 5 == 4 else "web1.img")
                forks.append(number)
                assert load.poll() is None, load.stdout.read()
                if len(forks) > 150:
                    break
        finally:
            load.terminate()
            said = load.communicate(timeout=60)[0]
        assert load.returncode in (0, -signal.SIGTERM), said
    for number in forks:
        expect_whole(live, f"fork{number}.img", work, None if number % 5 == 4 else number)
    for tag, number in tags:
        revert(live, tag)
        expect_whole(live, "web1.img", work, number)


def expect_whole(live, name, work, number):
    """A guest that was cut off there comes up."""
    with Loop(live.file(name)) as loop:
        directory = loop.mount(os.path.join(work, "look"))
        for each in range(number + 1 if number is not None else 0):
            with open(os.path.join(directory, f"synced{each}"), encoding="ascii") as file:
                assert file.read() == str(each), (name, each)
        loop.unmount()
        run("e2fsck", "-fn", loop.device)


# ---- Kept -----------------------------------------------------------------------


def keep(live, *image, name="web1.img"):
    command(live.control("disks", name, "snapshots"), " ".join(["keep", *image]))


def mode_of(live, name):
    with open(live.control("disks", name, "mode"), encoding="ascii") as file:
        return file.read().strip()


def kept(work, image):
    check_clean(image)
    return converted(image, work)


@pytest.mark.parametrize("kind", ["leaf", "raw"])
@pytest.mark.parametrize("room", ROOMS)
def test_a_fork_is_kept(mount, pool, work, rng, kind, room):
    """It has all that it had, is written in the pool, and is a disk of the next mount; its parent knows it."""
    make_disk(pool, kind, rng)
    live = start(mount, work, room)
    for number in range(3):
        with opened(live.file("web1.img")) as fd:
            write_all(fd, rng.randbytes(SIZE // 2), rng.randrange(SIZE // 2 // BLOCK) * BLOCK)
            discard(fd, rng.randrange(SIZE // BLOCK // 2) * BLOCK, 16 * BLOCK)
        take(live, str(number))
    fork(live, "web2.img", "web3.img")
    write(live, b"2" * MIB, MIB, "web2.img")
    expected = content_of(live, "web2.img")
    other = content_of(live)
    keep(live, name="web2.img")
    assert mode_of(live, "web2.img") == "persistent" and content_of(live, "web2.img") == expected
    assert content_of(live) == content_of(live, "web3.img") == other
    image = os.path.join(pool, "web2.leaf")
    write(live, b"k" * BLOCK, 0, "web2.img")
    expected = b"k" * BLOCK + expected[BLOCK:]
    take(live, "after", "web2.img")
    write(live, b"m" * BLOCK, BLOCK, "web2.img")
    revert(live, "1")
    revert(live, "after", name="web2.img")
    assert content_of(live, "web2.img") == expected
    live.stop()
    assert kept(work, image) == expected
    leafctl("check", pool)
    with mount("mode=direct") as live:
        assert content_of(live, "web2.img") == expected
        expect_errno(errno.EROFS, os.open, live.file("web1.img"), os.O_RDWR)


def test_a_disk_is_kept(mount, pool, work, rng):
    """Under the name that it has; the image that it was shown from is there as it was, under another."""
    content = make_disk(pool, "raw", rng)
    live = start(mount, work)
    write(live, b"1" * MIB, MIB)
    expect_errno(errno.EINVAL, keep, live)
    with opened(live.file("web1.img")) as fd:
        keep(live, "kept")
        write_all(fd, b"2" * BLOCK, 0)
        os.fsync(fd)
    expected = b"2" * BLOCK + content[BLOCK:MIB] + b"1" * MIB + content[2 * MIB:]
    assert content_of(live) == expected
    wait_until(lambda: "web1.raw.img" in os.listdir(live.path), "the image by itself", 20)
    assert content_of(live, "web1.raw.img") == content and "kept.img" not in os.listdir(live.path)
    live.stop()
    assert kept(work, os.path.join(pool, "kept.leaf")) == expected
    live = start(mount, work)
    assert content_of(live, "kept.img") == expected and content_of(live) == content


def test_kept_while_it_is_used(mount, pool, work, rng):
    """A file system that is written all the while is whole, and has what was synced before and since."""
    run("mke2fs", "-q", "-t", "ext4", os.path.join(pool, "web1.raw"), "24M")
    live = start(mount, work)
    fork(live, "web2.img")
    directory = os.path.join(work, "guest")
    with Loop(live.file("web2.img")) as loop:
        loop.mount(directory)
        load = subprocess.Popen([sys.executable, FS_LOAD, os.path.join(directory, "load"), str(rng.randrange(1 << 30)), "5"],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            keep(live, name="web2.img")
            with open(os.path.join(directory, "since"), "w", encoding="ascii") as file:
                file.write("since")
            run("sync", "-f", directory)
        finally:
            load.terminate()
            said = load.communicate(timeout=60)[0]
        assert load.returncode in (0, -signal.SIGTERM), said
        digest = run("sh", "-c", f"cd {directory} && find . -type f | sort | xargs md5sum").stdout
    live.kill9()
    live = mount("mode=direct")
    with Loop(live.file("web2.img")) as loop:
        loop.mount(directory)
        assert run("sh", "-c", f"cd {directory} && find . -type f | sort | xargs md5sum").stdout == digest
        loop.unmount()
        run("e2fsck", "-fn", loop.device)


def test_sizes_are_kept(mount, pool, work, rng):
    content = make_disk(pool, "raw", rng)
    live = start(mount, work, "64M", "manage")
    for name, steps in [("a", [2 * SIZE]), ("b", [MIB + 512]), ("c", [MIB + 512, SIZE]), ("d", [2 * SIZE, SIZE // 2, 3 * SIZE])]:
        fork(live, f"{name}.img")
        expected = content
        for size in steps:
            leafctl("resize", "--shrink", live.file(f"{name}.img"), str(size))
            expected = (expected + bytes(size))[:size]
            take(live, str(size), f"{name}.img")
        keep(live, name=f"{name}.img")
        assert content_of(live, f"{name}.img") == expected
    live.stop()
    live = mount("mode=direct")
    assert os.path.getsize(live.file("b.img")) == MIB + 512 and content_of(live, "d.img") == expected


KEEP_POINTS = ["image.create", "image.write", "image.sync", "image.open", "keep.closed", "keep.placed", "place.rename",
               "owner.write", "owner.read", "place.look", "snapshot.exchange"]


@pytest.mark.parametrize("point", KEEP_POINTS)
def test_what_fails_leaves_the_disk_as_it_was(mount, pool, work, rng, point):
    """Whatever it is, and nothing of it stays; the next try succeeds."""
    make_disk(pool, "leaf", rng)
    for number in numbers(3, 60):
        gate = Gate(work)
        live = start_with(mount, work, faults(f"{point}:EIO@{number}x1", gate=gate.path))
        write(live, rng.randbytes(MIB), MIB)
        fork(live, "web2.img")
        write(live, rng.randbytes(MIB), 2 * MIB, "web2.img")
        expected = content_of(live, "web2.img")
        gate.open()
        try:
            keep(live, name="web2.img")
            failed = False
        except OSError:
            failed = True
        gate.close()
        assert content_of(live, "web2.img") == expected
        if failed:
            assert mode_of(live, "web2.img") == "ephemeral" and images(pool) == ["base.raw", "web1.leaf"]
            keep(live, name="web2.img")
            assert content_of(live, "web2.img") == expected
        live.stop()
        assert kept(work, os.path.join(pool, "web2.leaf")) == expected
        nothing_is_left(pool)
        os.unlink(os.path.join(pool, "web2.leaf"))
        if not failed:
            return


def start_with(mount, work, env, room="64M"):
    return mount(f"cache={work}/c", f"cache_size={room}", "mode=ephemeral", env=env)


@pytest.mark.parametrize("point", ["keep.closed", "keep.placed", "image.write", "image.sync", "place.rename", "owner.write"])
def test_a_crash_while_it_is_kept(mount, pool, work, rng, point):
    """There is an image with all of it, or none."""
    make_disk(pool, "leaf", rng)
    for number in numbers(3, 60):
        gate = Gate(work)
        live = start_with(mount, work, faults(f"{point}:crash@{number}", gate=gate.path))
        fork(live, "web2.img")
        write(live, rng.randbytes(MIB), 2 * MIB, "web2.img")
        expected = content_of(live, "web2.img")
        gate.open()
        crashed = True
        with contextlib.suppress(OSError):
            keep(live, name="web2.img")
            crashed = False
        gate.close()
        if crashed:
            live.kill9()
        else:
            live.stop()
        image = os.path.join(pool, "web2.leaf")
        if os.path.exists(image):
            assert kept(work, image) == expected
            os.unlink(image)
        with mount("mode=direct") as other:
            content_of(other)
        make_image(image, parent=os.path.join(pool, "web1.leaf"))
        nothing_is_left(pool)
        os.unlink(image)
        if not crashed:
            return


# ---- Kept, and others meanwhile --------------------------------------------------


def is_being_copied(pool, least=MIB):
    """The image that a disk is kept in has so much of it, and no name yet."""
    found = [name for name in os.listdir(pool) if name.startswith(".") and name.endswith(".leaf")]
    with contextlib.suppress(FileNotFoundError):
        return any(os.stat(os.path.join(pool, name)).st_blocks * 512 >= least for name in found)
    return False


@contextlib.contextmanager
def keeping(live, *image, name="web1.img"):
    """leafctl keep, while the rest goes on; [what it came to] in the end."""
    outcome = []
    keeper = threading.Thread(target=lambda: outcome.append(leafctl("keep", live.file(name), *image, check=False)))
    keeper.start()
    try:
        yield outcome
    finally:
        keeper.join()


def is_parent_of(image, child):
    return f"{os.sep}{child}" in leafctl("info", image).stdout


@pytest.mark.parametrize("mode", ["direct", "persistent", "writeback"])
def test_a_fork_is_kept_among_others(mount, pool, work, rng, mode):
    """Where disks have another mode than the one that it was forked from, it is the same disk all the same."""
    make_disk(pool, "leaf", rng)
    config = os.path.join(work, "conf")
    with open(config, "w", encoding="utf-8") as file:
        file.write("[disk web1.img]\nmode=ephemeral\n")
    live = mount(f"cache={work}/c", "cache_size=64M", f"mode={mode}", f"conf={config}")
    write(live, rng.randbytes(MIB), 0)
    fork(live, "web2.img")
    with opened(live.file("web2.img")) as fd:
        keep(live, name="web2.img")
        for number in range(3):
            write(live, number.to_bytes(4, "little") * (BLOCK // 4), 0, "web2.img")
            assert os.pread(fd, 4, 0) == number.to_bytes(4, "little")
            assert mode_of(live, "web2.img") == "persistent"
            make_raw(os.path.join(pool, f"other{number}.raw"), bytes(MIB))
            assert f"other{number}.img" in live.names()


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_kept_one_is_renamed(mount, pool, work, rng, by_hand):
    """It goes on being written to its image."""
    make_disk(pool, "leaf", rng)
    live = start(mount, work, "64M", "manage")
    fork(live, "web2.img")
    keep(live, name="web2.img")
    image = os.path.join(pool, "web9.leaf")
    if by_hand:
        os.rename(os.path.join(pool, "web2.leaf"), image)
        wait_until(lambda: "web9.img" in live.names(), "the new name", 20)
    else:
        os.rename(live.file("web2.img"), live.file("web9.img"))
    assert mode_of(live, "web9.img") == "persistent"
    write(live, b"x" * MIB, MIB, "web9.img")
    expected = content_of(live, "web9.img")
    live.stop()
    assert kept(work, image) == expected


def test_its_snapshots_are_gone(mount, pool, work, rng):
    """And with them what the cache had of them."""
    make_disk(pool, "leaf", rng)
    live = start(mount, work)
    for number in range(3):
        write(live, rng.randbytes(MIB), number * MIB)
        take(live, str(number))
    keep(live, "kept")
    assert int(control_values(live, "cache", "info")["pinned_bytes"]) == 0


def test_two_at_once(mount, pool, work, rng, other_store):
    """One of them is it; of the other nothing is left, also not at the parent."""
    make_disk(pool, "leaf", rng)
    live = start_with(mount, work, other_store.slow(pool))
    write(live, rng.randbytes(2 * MIB), 0)
    expected = content_of(live)
    with keeping(live, "one") as first, keeping(live, "two") as second:
        pass
    done = {"one": first[0].returncode, "two": second[0].returncode}
    assert sorted(done.values()) == [0, 1], (first, second)
    assert content_of(live) == expected
    live.stop()
    for name, status in done.items():
        assert os.path.exists(os.path.join(pool, f"{name}.leaf")) == (status == 0)
        assert is_parent_of(os.path.join(pool, "web1.leaf"), f"{name}.leaf") == (status == 0)


def test_the_name_of_another(mount, pool, work, rng):
    """Where two images had one name in the next mount, none of them would have it: it is not taken."""
    make_disk(pool, "raw", rng)
    make_raw(os.path.join(pool, "other.raw"), bytes(MIB))
    live = start(mount, work)
    write(live, rng.randbytes(MIB), 0)
    fork(live, "web2.img")
    for name, image in [("web1.img", "other"), ("web1.img", "web1"), ("web1.img", "web2"), ("web2.img", "other.img")]:
        expect_errno(errno.EEXIST, lambda name=name, image=image: keep(live, image, name=name))
    assert images(pool) == ["other.raw", "web1.raw"]
    keep(live, name="web2.img")
    keep(live, "web3")
    live.stop()
    live = start(mount, work)
    assert live.names() == ["other.img", "web1.img", "web2.img", "web3.img"]


def test_another_has_its_name_meanwhile(mount, pool, work, rng, other_store):
    """A disk that is shown no more, as its image's name is gone, has no name that the kept one could have."""
    make_disk(pool, "raw", rng)
    os.makedirs(os.path.join(pool, "bases"))
    os.rename(os.path.join(pool, "web1.raw"), os.path.join(pool, "bases", "base.raw"))
    os.symlink("bases/base.raw", os.path.join(pool, "web1.raw"))
    os.truncate(os.path.join(pool, "bases", "base.raw"), 32 * MIB)
    live = start_with(mount, work, other_store.slow(pool, 60))
    with opened(live.file("web1.img")) as fd:
        write_all(fd, rng.randbytes(32 * MIB), 0)
        with keeping(live, "kept") as outcome:
            wait_until(lambda: is_being_copied(pool), "the copy", 30)
            os.unlink(os.path.join(pool, "web1.raw"))
            make_image(os.path.join(pool, "web1.leaf"), size="1M")
            assert "web1.img" in live.names() and os.path.getsize(live.file("web1.img")) == MIB
            assert not outcome, "it was kept before"
        assert outcome[0].returncode == 1 and "Stale" in outcome[0].stderr
        assert os.path.getsize(live.file("web1.img")) == MIB
        assert "kept.leaf" not in images(pool)


def overflow_layers(live):
    found = set()
    for fd in os.listdir(f"/proc/{live.pid}/fd"):
        with contextlib.suppress(OSError):
            path = os.readlink(f"/proc/{live.pid}/fd/{fd}")
            found.update([path] if "/overflow/" in path else [])
    return len(found)


def test_what_the_cache_has_no_room_for(mount, pool, work, rng, other_store):
    """Is copied before guests wait as well: it is sealed, and what is written then is in another layer."""
    make_disk(pool, "raw", rng)
    os.truncate(os.path.join(pool, "web1.raw"), 128 * MIB)
    live = start_with(mount, work, {**other_store.slow(pool), **faults("keep.closed:EIO@1x1")}, "8M")
    with opened(live.file("web1.img")) as fd:
        write_all(fd, rng.randbytes(32 * MIB), 0)
        assert overflow_layers(live) == 1
        with keeping(live, "kept") as outcome:
            wait_until(lambda: is_being_copied(pool), "the copy", 30)
            write_all(fd, rng.randbytes(24 * MIB), 64 * MIB)
            assert not outcome, "it was copied before"
        assert "cannot be made" in outcome[0].stderr, outcome[0]
        write_all(fd, rng.randbytes(8 * MIB), 96 * MIB)
        assert overflow_layers(live) == 3


def test_a_full_chain_is_kept(mount, pool, work, rng):
    """That no more layers are put on it is no reason to lose it."""
    make_disk(pool, "raw", rng)
    live = start(mount, work)
    write(live, b"x" * BLOCK, 0)
    for number in range(260):
        write(live, number.to_bytes(4, "little"), BLOCK)
        with contextlib.suppress(OSError):
            take(live, str(number))
    expect_errno(errno.EMLINK, take, live, "more")
    expected = content_of(live)
    keep(live, "kept")
    assert content_of(live) == expected
    take(live, "more")


def test_nobody_sees_what_came_to_nothing(mount, pool, work, rng):
    """An image that had its name already, and is taken back."""
    make_disk(pool, "leaf", rng)
    live = start_with(mount, work, faults("keep.placed:EIO@1x80"))
    fork(live, "web2.img")
    write(live, b"2" * MIB, MIB, "web2.img")
    over = threading.Event()

    def look():
        while not over.is_set():
            live.names()

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    for _ in range(80):
        expect_errno(errno.EIO, lambda: keep(live, name="web2.img"))
    over.set()
    for looker in lookers:
        looker.join()
    assert "web2.leaf" not in live.messages().replace("web2.leaf: cannot be opened", "")


def test_those_below_know_their_children(mount, pool, work, rng):
    """Also one that has lost its mark, as a backup brought it back."""
    make_disk(pool, "leaf", rng)
    base = os.path.join(pool, "base.raw")
    run("cp", "--preserve=timestamps", base, base + ".new")
    os.rename(base + ".new", base)
    assert not is_parent_of(base, "web1.leaf")
    live = start(mount, work)
    fork(live, "web2.img")
    write(live, b"2" * MIB, MIB, "web2.img")
    with opened(live.file("web2.img")):
        keep(live, name="web2.img")
        assert is_parent_of(base, "web1.leaf") and is_parent_of(os.path.join(pool, "web1.leaf"), "web2.leaf")
