"""Snapshots that a crash has interrupted, on a store that does not tell how far they are: nothing is guessed, and nothing
is lost."""
import contextlib
import fcntl
import os
import struct
import threading
import time

import pytest

from harness import (BLOCK, CRASH_STATUS, MIB, Gate, MountError, check_clean, control_values, converted, faults, leafctl, make_image, make_raw, numbers,
                     opened, read_file, scaled, unmount, wait_until, write_all)
from test_slow_store import Store
from test_snapshots import command, images, marks, options_of, sealed
from test_writeback_faults import HELD, left_open

SIZE = 2 * MIB
F_OFD_SETLK = 37
STEMS = {"web1": ".leaf", "web2": ".raw"}
CRASHES = ["snapshot.opened@1", "snapshot.link@2", "snapshot.exchange@1", "snapshot.exchange@2", "place.rename/web2.leaf@1",
           "place.unlink/web2.raw@1"]
POINTS = ["place.look", "place.open", "place.rename", "place.unlink", "snapshot.marks", "snapshot.link", "snapshot.exchange",
          "image.open", "image.read", "owner.read", "owner.write"]


def interrupt(mount, pool, work, mode, rng, crash):
    """The contents at the instant."""
    for name in images(pool):
        os.unlink(os.path.join(pool, name))
    contents = {stem: rng.randbytes(SIZE) for stem in STEMS}
    make_image(os.path.join(pool, "web1.leaf"), SIZE)
    make_raw(os.path.join(pool, "web2.raw"), bytes(SIZE))
    point, nth = crash.split("@")
    live = mount(*options_of(work, mode), env=faults(f"{point}:crash@{nth}"))
    for stem, content in contents.items():
        with opened(live.file(f"{stem}.img")) as fd:
            write_all(fd, content, 0)
            os.fsync(fd)
    with contextlib.suppress(OSError):
        command(live.control("snapshots"), "create one web1.img web2.img")
    assert live.wait() == CRASH_STATUS, live.messages()
    live.finalise()
    return contents


def use(live, now):
    """Whatever is shown is what it was; what can be written is."""
    for stem, content in now.items():
        with contextlib.suppress(OSError), opened(live.file(f"{stem}.img")) as fd:
            assert os.pread(fd, SIZE, 0) == content, f"{stem} is shown, and is not what it was"
            data = os.urandom(BLOCK)
            write_all(fd, data, 0)
            os.fsync(fd)
            now[stem] = data + content[BLOCK:]


def verify_settled(pool, work, then, now):
    assert marks(pool) == []
    assert not [name for name in os.listdir(pool) if name.startswith(".") and name != ".leafdisk"]
    made = {os.path.exists(sealed(pool, "one", stem, ending)) for stem, ending in STEMS.items()}
    assert len(made) == 1, "one of the two was sealed, and the other was not"
    for stem, ending in STEMS.items():
        if made == {True}:
            assert converted(sealed(pool, "one", stem, ending), work) == then[stem]
        image = os.path.join(pool, f"{stem}.leaf" if made == {True} else f"{stem}{ending}")
        assert converted(image, work) == now[stem]
        if image.endswith(".leaf"):
            check_clean(image)
    assert images(pool) == (["snapshots/web1@one.leaf", "snapshots/web2@one.raw", "web1.leaf", "web2.leaf"] if made == {True}
                            else ["web1.leaf", "web2.raw"])


@pytest.mark.parametrize("mode", ["direct", "writeback"])
@pytest.mark.parametrize("crash", CRASHES)
def test_a_store_that_does_not_tell(mount, pool, work, rng, mode, crash):
    cases = [(point, nth, times) for point in POINTS for nth in range(1, 9) for times in (1, 50)]
    for point, nth, times in cases if scaled(False, True) else [("owner.write", 2, 50), *rng.sample(cases, 4)]:
        then = interrupt(mount, pool, work, mode, rng, crash)
        now = dict(then)
        with contextlib.suppress(MountError):
            live = mount(*options_of(work, mode), env=faults(f"{point}:EIO@{nth}x{times}"))
            use(live, now)
            unmount(live.path)
            live.wait()
            live.finalise()
        with mount(*options_of(work, mode)) as live:
            assert live.names() == ["web1.img", "web2.img"], (point, nth, times)
            for stem, content in now.items():
                assert read_file(live.file(f"{stem}.img"), SIZE) == content, (point, nth, times)
            leafctl("drain", live.path)
        verify_settled(pool, work, then, now)


@pytest.mark.parametrize("crash", CRASHES[1:])
def test_it_is_asked_again(mount, pool, work, rng, crash):
    """Until the store tells, the disks are not shown, and the mount says why; then they are."""
    then = interrupt(mount, pool, work, "direct", rng, crash)
    with mount(env=faults("image.read/.leaf:EIO@1", gate=os.path.join(work, "gate"))) as live:
        pass
    verify_settled(pool, work, then, then)
    then = interrupt(mount, pool, work, "direct", rng, crash)
    gate = os.path.join(work, "gate")
    with open(gate, "w", encoding="ascii"):
        pass
    with mount(env=faults("place.look:EIO@1x1000000", gate=gate)) as live:
        assert live.names() == []
        assert "cannot be finished or taken back now" in live.messages()
        os.unlink(gate)
        wait_until(lambda: live.names() == ["web1.img", "web2.img"], "the disks to be shown")
        for stem, content in then.items():
            assert read_file(live.file(f"{stem}.img"), SIZE) == content
    verify_settled(pool, work, then, then)


@contextlib.contextmanager
def read_by_another(path):
    """As QEMU holds an image that nobody is to write meanwhile."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.fcntl(fd, F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, 201, 1, 0))
        yield
    finally:
        os.close(fd)


@pytest.mark.parametrize("mode", ["direct", "writeback"])
@pytest.mark.parametrize("held", ["web1.leaf", "web2.raw"])
def test_another_program_has_one_of_them(mount, pool, work, rng, mode, held):
    """Neither goes without the other, in whichever order they are found."""
    for _ in range(3):
        then = interrupt(mount, pool, work, mode, rng, "snapshot.exchange@1")
        now = dict(then)
        with read_by_another(os.path.join(pool, held)):
            live = mount(*options_of(work, mode))
            assert live.names() == []
            assert "cannot be finished or taken back now" in live.messages()
        wait_until(lambda live=live: live.names() == ["web1.img", "web2.img"], "the disks to be shown")
        use(live, now)
        unmount(live.path)
        live.wait()
        live.finalise()
        with mount(*options_of(work, mode)) as live:
            leafctl("drain", live.path)
        verify_settled(pool, work, then, now)


@pytest.mark.parametrize("name, tag", [(b"caf\xe9", b"one"), (b"web1", b"\xff\xfe"), (b" a\nb\\c ", b" [t]=; ")])
@pytest.mark.parametrize("ending", [b".leaf", b".raw"])
def test_names_that_are_no_text(mount, pool, rng, name, tag, ending):
    image = os.fsdecode(os.path.join(os.fsencode(pool), name + ending))
    if ending == b".raw":
        make_raw(image, bytes(SIZE))
    else:
        make_image(image, SIZE)
    live = mount(env=faults("snapshot.exchange:crash@1"))
    disk, content = live.file(os.fsdecode(name) + ".img"), rng.randbytes(SIZE)
    with opened(disk) as fd:
        write_all(fd, content, 0)
    with contextlib.suppress(OSError), opened(live.control("snapshots"), os.O_WRONLY) as fd:
        os.write(fd, b"create '" + tag + b"' '" + name + b".img'")
    assert live.wait() == CRASH_STATUS, live.messages()
    live.finalise()
    with mount() as live:
        assert live.names() == [os.fsdecode(name) + ".img"]
        assert read_file(live.file(live.names()[0]), SIZE) == content
    assert marks(pool) == []
    assert images(pool) == sorted([os.fsdecode(name) + ".leaf", os.fsdecode(b"snapshots/" + name + b"@" + tag + ending)])


def test_the_marks_cannot_be_read(mount, pool, work, rng):
    """Nobody knows of which disks: the mount is refused."""
    then = interrupt(mount, pool, work, "direct", rng, "snapshot.exchange@2")
    with pytest.raises(MountError, match=r"\.leafdisk/changes/.*cannot be read"):
        mount(env=faults("snapshot.marks:EIO@1x1"))
    with mount() as live:
        assert live.names() == ["web1.img", "web2.img"]
    verify_settled(pool, work, then, then)


@pytest.mark.parametrize("delay", ["0", "2"])
def test_claims_that_come_late(mount, pool, work, rng, delay):
    """A leaf's claim is recorded by its first batch, which a snapshot of it does not race."""
    store = Store(pool, work)
    web1 = make_image(os.path.join(pool, "web1.leaf"), SIZE)
    store.gate.open()
    live = mount(*options_of(work, "writeback", "migrate_idle_ms=1", "max_dirty_age=1"), env={**store.env, "SLOW_MS": delay})
    end, content = threading.Event(), bytearray(SIZE)

    def write():
        with opened(live.file("web1.img")) as fd:
            while not end.is_set():
                offset = rng.randrange(SIZE // BLOCK) * BLOCK
                content[offset:offset + BLOCK] = os.urandom(BLOCK)
                write_all(fd, content[offset:offset + BLOCK], offset)
                os.fsync(fd)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(scaled(20, 200)):
            command(live.control("snapshots"), f"create s{number} web1.img")
            time.sleep(rng.random() / 20)
    finally:
        end.set()
        thread.join()
    store.gate.close()
    assert control_values(live, "disks", "web1.img", "state")["state"] == "active"
    live.stop()
    assert converted(web1, work) == bytes(content)


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("point", ["image.write", "image.sync", "snapshot.fork"])
def test_a_fork_is_killed(mount, pool, work, point, beside):
    """Of a disk that has changes of its own, and of one that stands where it stood: all of the new ones are there, or none."""
    for nth in numbers(3, 60):
        for name in images(pool):
            os.unlink(os.path.join(pool, name))
        make_image(os.path.join(pool, "web1.leaf"), parent=make_raw(os.path.join(pool, "base.raw"), b"b" * SIZE))
        gate = Gate(work)
        live = mount(env=faults(f"{point}:crash@{nth}", gate=gate.path))
        with left_open(live.file("web1.img")) as fd:
            if not beside:
                write_all(fd, b"x" * BLOCK, 0)
                os.fsync(fd)
            gate.open()
            crashed = leafctl("fork", live.file("web1.img"), "a", "b", "c", check=False).returncode != 0
        with contextlib.suppress(FileNotFoundError):
            gate.close()
        if crashed:
            assert live.wait() == CRASH_STATUS, live.messages()
            live.finalise()
        else:
            live.stop()
        with mount() as live:
            made = [name for name in ("a.img", "b.img", "c.img") if name in live.names()]
            assert len(made) in ((0, 3) if crashed else (3,)), (nth, made)
            for name in made:
                assert read_file(live.file(name), SIZE) == (b"b" if beside else b"x") * BLOCK + b"b" * (SIZE - BLOCK), (nth, name)
        assert marks(pool) == []
        assert not [name for name in os.listdir(pool) if name.startswith(".") and name != ".leafdisk"]
        leafctl("check", pool)
        if not crashed:
            return
    raise AssertionError("the point is met each time")


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("beside", [False, True])
def test_a_fork_with_two_names(mount, pool, work, nth, beside):
    """Where a store cannot rename without replacing, a crash leaves both."""
    make_image(os.path.join(pool, "web1.leaf"), parent=make_raw(os.path.join(pool, "base.raw"), b"b" * SIZE))
    gate = Gate(work)
    rules = [f"place.rename/{name}.leaf:EINVAL" for name in "abc"]
    live = mount(env=faults(*rules, f"place.unlink/fork.leaf:crash@{nth}", gate=gate.path))
    with left_open(live.file("web1.img")) as fd:
        if not beside:
            write_all(fd, b"x" * BLOCK, 0)
            os.fsync(fd)
        gate.open()
        assert leafctl("fork", live.file("web1.img"), "a", "b", "c", check=False).returncode != 0
    assert live.wait() == CRASH_STATUS, live.messages()
    live.finalise()
    with mount() as live:
        assert [name for name in ("a.img", "b.img", "c.img") if name in live.names()] == ["a.img", "b.img", "c.img"]
        assert "exists meanwhile" not in live.messages()
        for name in ("a.img", "b.img", "c.img"):
            assert read_file(live.file(name), SIZE) == (b"b" if beside else b"x") * BLOCK + b"b" * (SIZE - BLOCK)
    assert marks(pool) == []
    assert not [name for name in os.listdir(pool) if name.startswith(".") and name != ".leafdisk"]


@pytest.mark.parametrize("point", ["snapshot.opened", "snapshot.link", "snapshot.exchange"])
def test_one_that_is_begun_on_one_without_a_record(mount, pool, work, rng, point):
    """Nothing was written back of the first, whose claim is not in the owner record yet, when the daemon dies in the second."""
    make_image(os.path.join(pool, "web1.leaf"), SIZE)
    gate, content = Gate(work), bytearray(SIZE)
    live = mount(*options_of(work, "writeback", *HELD), env=faults(f"{point}:crash", gate=gate.path))
    with left_open(live.file("web1.img")) as fd:
        for number in range(2):
            data = rng.randbytes(BLOCK)
            write_all(fd, data, number * BLOCK)
            os.fsync(fd)
            content[number * BLOCK:(number + 1) * BLOCK] = data
            if number == 0:
                command(live.control("snapshots"), "create one web1.img")
        gate.open()
        with contextlib.suppress(OSError):
            command(live.control("snapshots"), "create two web1.img")
    assert live.wait() == CRASH_STATUS
    live.finalise()
    for _ in range(2):
        with mount(*options_of(work, "writeback")) as live:
            assert read_file(live.file("web1.img"), SIZE) == bytes(content)
            leafctl("drain", live.path)
        assert marks(pool) == []
    assert converted(os.path.join(pool, "web1.leaf"), work) == bytes(content)
