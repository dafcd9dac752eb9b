"""What whoever owns a pool cannot make a daemon with root's rights do: links,
exchanged while it looks and opens, and other things that are no images."""
import contextlib
import ctypes
import errno
import os
import pwd
import signal
import stat
import time
import uuid

import pytest

from harness import (BLOCK, KIB, MIB, Aligned, Gate, Loop, assert_same, expect_errno, faults, file_bytes, leafctl,
                     make_image, make_raw, opened, read_all, read_file, run, scaled, wait_until, write_all, write_conf)

NOBODY = pwd.getpwnam("nobody")
OPENS = scaled(30, 5000)
SIZE = 64 * KIB
OWN = b"o" * SIZE
SECRET = b"S" * SIZE
# A kernel that has openat2(), and one that has not.
KERNELS = [pytest.param({}, id="openat2"), pytest.param(faults("place.openat2:ENOSYS"), id="steps")]
RENAME_EXCHANGE = 2

_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def secret(work):
    """A directory that only root can look into, with a file of root's."""
    path = os.path.join(work, "secret")
    os.mkdir(path, 0o700)
    make_raw(os.path.join(path, "base.raw"), SECRET)
    return path


@pytest.fixture
def theirs(pool):
    """The pool belongs to an ordinary user."""
    os.chown(pool, NOBODY.pw_uid, NOBODY.pw_gid)
    return pool


def give(*paths):
    for path in paths:
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid, follow_symlinks=False)


@contextlib.contextmanager
def exchanged(directory, first, second):
    """The pool's owner exchanges two names all the time."""
    with opened(directory, os.O_RDONLY | os.O_DIRECTORY) as fd:
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setgid(NOBODY.pw_gid)
                os.setuid(NOBODY.pw_uid)
                while _libc.renameat2(fd, first.encode(), fd, second.encode(), RENAME_EXCHANGE) == 0:
                    pass
            finally:
                os._exit(1)
        try:
            yield
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "the names could not be exchanged"
        finally:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def use(path, flags):
    """What is read first, not from the page cache, before a write where FLAGS allow
    one; None: refused."""
    memory = Aligned(BLOCK)
    try:
        with opened(path, flags | os.O_DIRECT) as fd:
            found = bytes(memory.read(fd, BLOCK, 0))
            if flags & os.O_RDWR:
                memory.write(fd, b"W" * BLOCK, BLOCK)
            return found
    except OSError:
        return None


def open_often(live, name, flags):
    """Opens NAME until it has been OPENS times; sometimes it is refused."""
    good = 0
    for _ in range(100 * OPENS):
        found = use(live.file(name), flags)
        if found is not None:
            assert found == OWN[:BLOCK]
            good += 1
        if good == OPENS:
            break
    assert good, "not one open met the image"


def assert_untouched(secret):
    assert os.listdir(secret) == ["base.raw"]
    assert_same(file_bytes(os.path.join(secret, "base.raw")), SECRET, "the secret file")


# ---- Exchanged while the daemon looks ------------------------------------------

@pytest.mark.parametrize("kernel", KERNELS)
def test_an_image_and_a_link_are_exchanged(mount, theirs, secret, kernel):
    make_raw(os.path.join(theirs, "x.raw"), OWN)
    os.symlink(os.path.join(secret, "base.raw"), os.path.join(theirs, ".swap"))
    give(os.path.join(theirs, "x.raw"), os.path.join(theirs, ".swap"))
    with mount(env=kernel) as live:
        with exchanged(theirs, "x.raw", ".swap"):
            open_often(live, "x.img", os.O_RDWR)
    assert_untouched(secret)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_directory_of_parents_and_a_link_are_exchanged(mount, theirs, secret, kernel):
    """The parent has the same size there; a raw one has nothing else to be told by."""
    os.mkdir(os.path.join(theirs, "sub"))
    make_raw(os.path.join(theirs, "sub", "base.raw"), OWN)
    make_image(os.path.join(theirs, "x.leaf"), parent=os.path.join(theirs, "sub", "base.raw"))
    os.symlink(secret, os.path.join(theirs, "swap"))
    give(*(os.path.join(theirs, name) for name in ("sub", "sub/base.raw", "x.leaf", "swap")))
    with mount(env=kernel) as live:
        with exchanged(theirs, "sub", "swap"):
            open_often(live, "x.img", os.O_RDONLY)
    assert_untouched(secret)


@pytest.mark.parametrize("kernel", KERNELS)
def test_links_that_stay_inside(mount, pool, rng, kernel):
    """Relative, absolute, to a directory, and a parent named through one."""
    content = rng.randbytes(SIZE)
    os.makedirs(os.path.join(pool, "deep", "er"))
    make_raw(os.path.join(pool, "deep", "er", "base.raw"), content)
    os.symlink(os.path.join(pool, "deep", "er"), os.path.join(pool, "short"))
    make_image(os.path.join(pool, "child.leaf"), parent=os.path.join(pool, "short", "base.raw"))
    make_raw(os.path.join(pool, "deep", "disk.raw"), content)
    os.symlink("deep/disk.raw", os.path.join(pool, "relative.raw"))
    os.symlink(os.path.join("..", os.path.basename(pool), "deep", "disk.raw"), os.path.join(pool, "round.raw"))
    os.symlink("nowhere", os.path.join(pool, "dangling.raw"))
    with mount(env=kernel) as live:
        assert live.names() == ["child.img", "relative.img", "round.img"]
        for name in live.names():
            assert_same(read_file(live.file(name), SIZE), content, name)
        with opened(live.file("relative.img")) as fd:
            write_all(fd, b"new", 0)
    assert file_bytes(os.path.join(pool, "deep", "disk.raw"))[:3] == b"new"


@pytest.mark.parametrize("named_by", ["header", "configuration"])
def test_a_link_to_a_parent_that_is_turned(mount, pool, work, named_by):
    """The image that it leads to now is the parent: whoever writes it would change the child."""
    path = {name: os.path.join(pool, f"{name}.raw") for name in ("base", "one", "two")}
    make_raw(path["base"], OWN)
    leaf = make_image(os.path.join(pool, "child.leaf"), parent=path["base"])
    conf = write_conf(work, "")
    if named_by == "configuration":
        os.unlink(leaf)
        make_image(leaf, SIZE)
        write_conf(work, "[disk child.img]\nlayers = base.raw; child.leaf\n")
    os.rename(path["base"], path["one"])
    os.symlink("one.raw", path["base"])
    make_raw(path["two"], b"2" * SIZE)
    with mount(f"conf={conf}") as live:
        assert stat.S_IMODE(os.stat(live.file("one.img")).st_mode) == 0o400
        assert stat.S_IMODE(os.stat(live.file("two.img")).st_mode) == 0o600
        os.symlink("two.raw", os.path.join(pool, ".turned"))
        # What was looked at just now is looked at again in any case.
        wait_until(lambda: time.time() - os.stat(path["two"]).st_ctime > 1, "the images to be old")
        assert "child.img" in live.names()
        os.rename(os.path.join(pool, ".turned"), path["base"])
        assert "child.img" in live.names()
        wait_until(lambda: stat.S_IMODE(os.stat(live.file("two.img")).st_mode) == 0o400, "two.img to be read-only",
                   timeout=20)
        expect_errno(errno.EROFS, os.open, live.file("two.img"), os.O_RDWR)
        if named_by == "header":
            assert "rebase --accept" in live.messages()
            leafctl("rebase", "--accept", leaf)
            wait_until(lambda: "child.img" in live.names(), "the child to be shown")
        assert read_file(live.file("child.img"), 1) == b"2"


# ---- Nothing outside the pool is written ---------------------------------------

def test_what_is_in_layers_is_read_only(mount, pool, work, rng):
    content = rng.randbytes(SIZE)
    layers = os.path.join(work, "layers")
    os.mkdir(layers)
    golden = make_raw(os.path.join(layers, "golden.raw"), content)
    leaf = make_image(os.path.join(layers, "golden.leaf"), SIZE)
    leaf_before = file_bytes(leaf)
    os.symlink(golden, os.path.join(pool, "x.raw"))
    os.symlink(leaf, os.path.join(pool, "y.leaf"))
    with mount(f"layers={layers}") as live:
        assert_same(read_file(live.file("x.img"), SIZE), content, "x.img")
        for name in ("x.img", "y.img"):
            assert stat.S_IMODE(os.stat(live.file(name)).st_mode) == 0o400
            expect_errno(errno.EROFS, os.open, live.file(name), os.O_RDWR)
            expect_errno(errno.EROFS, os.truncate, live.file(name), 2 * SIZE)
    assert_same(file_bytes(golden), content, "golden.raw")
    assert_same(file_bytes(leaf), leaf_before, "golden.leaf")
    assert sorted(os.listdir(layers)) == ["golden.leaf", "golden.raw"]


def test_a_link_that_the_configuration_names(mount, pool, work):
    """The configuration's own word counts; a link of the pool is not its word."""
    layers = os.path.join(work, "layers")
    os.mkdir(layers)
    far = make_image(os.path.join(layers, "far.leaf"), SIZE)
    os.symlink(far, os.path.join(pool, "link.leaf"))
    for spelled, rights in ((far, 0o600), ("link.leaf", 0o400), (os.path.join(pool, "link.leaf"), 0o400)):
        conf = write_conf(work, f"[disk vm.img]\nlayers = {spelled}\n")
        with mount(f"conf={conf}", f"layers={layers}") as live:
            assert stat.S_IMODE(os.stat(live.file("vm.img")).st_mode) == rights, spelled


# ---- What is no image of the pool's owner --------------------------------------

def test_a_file_brought_by_a_hard_link(mount, theirs, work):
    """Root's file under a second name in a user's directory; the user's own is fine."""
    make_raw(os.path.join(work, "shadow"), SECRET)
    os.link(os.path.join(work, "shadow"), os.path.join(theirs, "brought.raw"))
    make_raw(os.path.join(work, "own"), OWN)
    give(os.path.join(work, "own"))
    os.link(os.path.join(work, "own"), os.path.join(theirs, "own.raw"))
    make_raw(os.path.join(theirs, "roots.raw"), OWN)
    with mount() as live:
        assert live.names() == ["own.img", "roots.img"]
        assert "brought.raw: has another name elsewhere" in live.messages()
        assert use(live.file("own.img"), os.O_RDWR) == OWN[:BLOCK]
    os.chown(theirs, 0, 0)
    os.chmod(theirs, 0o755)
    with mount() as live:
        assert live.names() == ["brought.img", "own.img", "roots.img"]


def test_what_is_neither_file_nor_link(mount, pool, work):
    """Nothing is opened that has an effect when it is, or that never ends."""
    os.mkfifo(os.path.join(pool, "fifo.raw"))
    os.mknod(os.path.join(pool, "zero.raw"), stat.S_IFCHR | 0o600, os.makedev(1, 5))
    os.symlink("/proc/self/environ", os.path.join(pool, "environ.raw"))
    os.symlink("/proc/self/root/etc/passwd", os.path.join(pool, "passwd.raw"))
    os.symlink("loop.raw", os.path.join(pool, "loop.raw"))
    for number, name in enumerate(("fifo.raw", "zero.raw", "../secret/base.raw", "../pool/../secret/base.raw")):
        base = make_raw(os.path.join(pool, "placeholder.raw"), bytes(SIZE))
        leaf = make_image(os.path.join(pool, f"child{number}.leaf"), parent=base)
        with opened(leaf) as fd:
            for copy in range(2):
                header = bytearray(read_all(fd, BLOCK, copy * BLOCK))
                assert b"placeholder.raw" in header
        os.unlink(base)
        os.symlink(name, base) if "/" in name else os.link(os.path.join(pool, name), base)
        with mount() as live:
            assert f"child{number}.img" not in live.names()
            assert f"child{number}.leaf" in live.messages()
        os.unlink(base)
        os.unlink(leaf)
    with mount() as live:
        assert live.names() == []
        assert "/etc/passwd" in live.messages()


def test_a_device_that_a_header_names(mount, pool, work):
    """A device node in a shared pool may be another machine's number for ours."""
    make_raw(os.path.join(work, "device.bin"), SECRET)
    base = make_raw(os.path.join(pool, "base.raw"), bytes(SIZE))
    make_image(os.path.join(pool, "child.leaf"), parent=base)
    os.unlink(base)
    with Loop(os.path.join(work, "device.bin")) as loop:
        os.mknod(base, stat.S_IFBLK | 0o600, os.stat(loop.device).st_rdev)
        with mount() as live:
            assert live.names() == []
            assert "only the configuration may name" in live.messages()


# ---- Overflow layers -----------------------------------------------------------

def overflow_of(pool):
    return os.path.join(pool, ".leafdisk", "overflow")


def content_of(directory):
    return {name: file_bytes(os.path.join(directory, name)) for name in os.listdir(directory)}


@pytest.mark.parametrize("linked", ["overflow", ".leafdisk"])
def test_overflow_as_a_link(mount, theirs, work, linked):
    """Neither swept nor used: the images there stay as they are."""
    other = os.path.join(work, "other")
    inner = other if linked == "overflow" else os.path.join(other, "overflow")
    os.makedirs(inner, 0o700)
    make_image(os.path.join(inner, f"db.img-{uuid.uuid4()}.leaf"), "8M")
    make_image(os.path.join(inner, "db1.leaf"), "8M")
    before = content_of(inner)
    if linked == "overflow":
        os.mkdir(os.path.dirname(overflow_of(theirs)))
        give(os.path.dirname(overflow_of(theirs)))
        os.symlink(other, overflow_of(theirs))
    else:
        os.symlink(other, os.path.join(theirs, ".leafdisk"))
    make_raw(os.path.join(theirs, "web1.raw"), bytes(64 * MIB))
    options = [f"cache={work}/leaf.cache", "mode=ephemeral", "cache_size=8M"]
    if linked == ".leafdisk":
        # Nor does anybody know from there whether a cache has newer changes.
        with mount(*options) as live:
            expect_errno(errno.EBUSY, os.open, live.file("web1.img"), os.O_RDONLY)
        options.append("stale_reads")
    with mount(*options) as live:
        with opened(live.file("web1.img"), os.O_RDWR | os.O_SYNC) as fd:
            with pytest.raises(OSError):
                write_all(fd, os.urandom(48 * MIB), 0)
    assert content_of(inner) == before


def test_overflow_of_another_user(mount, pool, work):
    os.makedirs(overflow_of(pool))
    give(overflow_of(pool))
    left = make_image(os.path.join(overflow_of(pool), f"web1.img-{uuid.uuid4()}.leaf"), "8M")
    with mount(f"cache={work}/leaf.cache", "mode=ephemeral", "cache_size=8M") as live:
        assert "left alone" in live.messages()
    assert os.path.exists(left)


def test_only_overflow_layers_are_swept(mount, pool, work):
    """By name, kind, owner, magic and lock; nothing else of the directory is touched."""
    directory = overflow_of(pool)
    os.makedirs(directory, 0o700)

    def name():
        return os.path.join(directory, f"web1.img-{uuid.uuid4()}.leaf")

    left, used = make_image(name(), "8M"), make_image(name(), "8M")
    kept = {make_image(os.path.join(directory, "web1.leaf"), "8M"), make_raw(name(), b"no image" * 512),
            make_raw(os.path.join(directory, ".nfs0000000000000001"), b"in use"), used}
    theirs = make_image(name(), "8M")
    give(theirs)
    outside = make_image(os.path.join(work, "outside.leaf"), "8M")
    link = name()
    os.symlink(outside, link)
    double = name()
    os.link(make_image(os.path.join(work, "double.leaf"), "8M"), double)
    fifo = name()
    os.mkfifo(fifo)
    kept |= {theirs, link, double, fifo}
    images = [path for path in kept if stat.S_ISREG(os.lstat(path).st_mode)] + [outside]
    before = {path: (file_bytes(path), os.stat(path).st_mtime_ns) for path in images}
    with opened(used) as fd:
        lock(fd)
        with mount(f"cache={work}/leaf.cache", "mode=ephemeral", "cache_size=8M"):
            pass
    assert not os.path.exists(left)
    assert {os.path.join(directory, entry) for entry in os.listdir(directory)} == kept
    assert {path: (file_bytes(path), os.stat(path).st_mtime_ns) for path in images} == before


def lock(fd):
    """As a daemon that uses the image has it."""
    code = ("import fcntl, struct; fcntl.fcntl(0, 37, struct.pack('hhqqi', fcntl.F_WRLCK, 0, 0, 1, 0))")
    run("python3", "-c", code, stdin=fd)


@pytest.mark.parametrize("name", ["x" * 250, "\N{SNOWMAN}" * 83])
def test_overflow_of_a_disk_with_a_long_name(mount, pool, work, name):
    make_raw(os.path.join(pool, f"{name}.raw"), bytes(32 * MIB))
    content = os.urandom(24 * MIB)
    with mount(f"cache={work}/leaf.cache", "mode=ephemeral", "cache_size=8M") as live:
        with opened(live.file(f"{name}.img")) as fd:
            write_all(fd, content, 0)
            assert_same(read_all(fd, len(content), 0), content, "the disk")
    assert os.listdir(pool) == [f"{name}.raw"]


# ---- No descriptors left -------------------------------------------------------

def descriptors(live):
    """Those that are open on the pool and on what it holds."""
    found = 0
    for number in os.listdir(f"/proc/{live.pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(f"/proc/{live.pid}/fd/{number}").startswith(live.pool)
    return found


@pytest.mark.parametrize("point", ["place.open", "image.open"])
def test_no_descriptors_for_a_scan(mount, pool, work, point):
    """What was known stays known; afterwards all is as it was."""
    base = make_raw(os.path.join(pool, "base.raw"), OWN)
    make_image(os.path.join(pool, "web1.leaf"), parent=base)
    gate = Gate(work)
    with mount(env=faults(f"{point}:EMFILE", gate=gate.path)) as live:
        names = live.names()
        before = descriptors(live)
        make_image(os.path.join(pool, "late.leaf"), parent=base)
        gate.open()
        assert live.names() == names == ["base.img", "web1.img"]
        expect_errno(errno.EMFILE, os.open, live.file("web1.img"), os.O_RDONLY)
        gate.close()
        assert live.names() == ["base.img", "late.img", "web1.img"]
        assert use(live.file("web1.img"), os.O_RDWR) == OWN[:BLOCK]
        wait_until(lambda: descriptors(live) == before, "the descriptors to be closed")


@pytest.mark.parametrize("point", ["place.open", "image.open"])
def test_no_descriptor_at_any_open(mount, pool, work, point):
    """The Nth open of a chain fails, for each N: a clean refusal, and none is kept."""
    base = make_raw(os.path.join(pool, "base.raw"), OWN)
    middle = make_image(os.path.join(pool, "middle.leaf"), parent=base)
    make_image(os.path.join(pool, "web1.leaf"), parent=middle)
    refused = 0
    for number in range(1, 100):
        gate = Gate(work)
        with mount(env=faults(f"{point}:EMFILE@{number}x1", gate=gate.path)) as live:
            os.stat(live.file("web1.img"))
            before = descriptors(live)
            gate.open()
            try:
                with opened(live.file("web1.img")) as fd:
                    assert read_all(fd, BLOCK, 0) == OWN[:BLOCK]
                    os.pwrite(fd, b"W" * BLOCK, BLOCK)
                good = True
            except OSError as error:
                assert error.errno == errno.EMFILE
                good = False
                refused += 1
            gate.close()
            assert use(live.file("web1.img"), os.O_RDWR) == OWN[:BLOCK]
            wait_until(lambda: descriptors(live) == before, "the descriptors to be closed")
        if good and number > 12:
            break
    assert refused
