"""Two hosts and one pool: their names, boots and machine ids differ, and each has its own
view of the pool, on a store with locks that both see, and on one where each sees its own."""
import contextlib
import errno
import os
import re
import signal
import subprocess

import pytest

from harness import (BLOCK, MIB, OWN_MOUNTS, Mount, check_clean, converted, halt, leafctl, make_image, make_raw,
                     opened, program, read_all, read_file, run, state_of, wait_until, write_all)
from test_writeback_faults import left_open

SIZE = MIB
BECOME = """
mount --make-private / && mount --make-rprivate /proc &&
mount --bind "$1/boot_id" /proc/sys/kernel/random/boot_id &&
mount --bind "$1/machine-id" /etc/machine-id && hostname "$2" || exit 1
work=$1 own_mounts=$3
shift 3
exec "$own_mounts" "$(dirname "$work")" "$@"
"""


class Host:
    """A machine of its own, as far as a daemon can tell."""

    def __init__(self, work, name, shared, locks):
        self.work = os.path.join(work, name)
        self.name, self.locks = name, locks
        self.pool = os.path.join(self.work, "pool")
        os.makedirs(self.pool)
        for file, text in (("boot_id", f"{name}-boot"), ("machine-id", name.encode().hex().ljust(32, "0"))):
            with open(os.path.join(self.work, file), "w", encoding="ascii") as out:
                out.write(text + "\n")
        self.view = None
        if locks:
            run("mount", "--bind", shared, self.pool)
        else:
            self.view = subprocess.Popen(["bindfs", "-f", shared, self.pool])
            wait_until(lambda: os.path.ismount(self.pool), "the view of the pool")

    def become(self):
        return ["unshare", "-u", "-m", "--propagation", "unchanged", "sh", "-c", BECOME, "sh", self.work, self.name, OWN_MOUNTS]

    def mount(self, mode, *options):
        words = [f"mode={mode}", *options]
        if mode != "direct":
            words += [f"cache={os.path.join(self.work, 'leaf.cache')}", "cache_size=8M", "max_dirty_age=86400",
                      "migrate_idle_ms=60000", "migrate_threshold=100"]
        return Mount(self.pool, self.work, words, wrapper=self.become()).start()

    def leafctl(self, *words, **settings):
        return run(*self.become(), program("leafctl"), *words, **settings)

    def cut_off(self):
        halt(self.view.pid)

    def come_back(self):
        os.kill(self.view.pid, signal.SIGCONT)

    def close(self):
        if self.view:
            self.come_back()
        run("umount", "-l", self.pool, check=False)
        if self.view:
            self.view.terminate()
            self.view.wait(30)


@pytest.fixture(params=[True, False], ids=["locks", "no-locks"])
def hosts(request, work, pool):
    base = os.path.join(work, "hosts")
    os.mkdir(base)
    run("mount", "--bind", base, base)
    # What a daemon mounts in its own name space shows here.
    run("mount", "--make-shared", base)
    with contextlib.ExitStack() as stack:
        stack.callback(run, "umount", "-l", base)
        yield [stack.enter_context(contextlib.closing(Host(base, name, pool, request.param)))
               for name in ("alpha", "beta")]


@pytest.fixture(params=["web1.leaf", "web1.raw"])
def image(request, pool):
    path = os.path.join(pool, request.param)
    return make_raw(path, bytes(SIZE)) if path.endswith(".raw") else make_image(path, SIZE, chunk="64K")


def write_block(live, number, byte):
    with opened(live.file("web1.img")) as fd:
        write_all(fd, byte * BLOCK, number * BLOCK)
        os.fsync(fd)


def blocks_of(content, count):
    return [content[number * BLOCK:number * BLOCK + 1] for number in range(count)]


def shows(live, count):
    with opened(live.file("web1.img"), os.O_RDONLY) as fd:
        return blocks_of(read_all(fd, SIZE, 0), count)


def shown_owner(live):
    """What the table of leafctl status has of web1.img."""
    (row,) = [line for line in leafctl("status", live.path).stdout.splitlines() if line.startswith("web1.img ")]
    return re.split("  +", row)[6]


MODES = pytest.mark.parametrize("mode", ["direct", "persistent", "writeback"])


@MODES
def test_both_alive(hosts, image, work, mode):
    """Whoever comes second is refused, and told who has it."""
    alpha, beta = hosts
    with alpha.mount(mode) as first, opened(first.file("web1.img")) as fd:
        write_all(fd, b"a" * BLOCK, 0)
        os.fsync(fd)
        with beta.mount(mode) as second:
            with pytest.raises(OSError):
                write_block(second, 1, b"b")
            assert "alpha" in second.messages()
            assert (shown_owner(first), shown_owner(second)) == ("here", "alpha")
    assert blocks_of(converted(image, work), 2) == [b"a", bytes(1)]
    check_clean(image)


@MODES
def test_whose_an_image_is_is_shown(hosts, image, mode):
    """As long as it is anybody's, to whoever has looked."""
    alpha, beta = hosts
    with alpha.mount(mode) as first, beta.mount(mode) as second:
        assert (shown_owner(first), shown_owner(second)) == ("none", "none")
        write_block(first, 0, b"a")
        leafctl("drain", first.path)
        wait_until(lambda: shown_owner(first) == "none", "the first's claim to end")
        write_block(second, 1, b"b")
        leafctl("drain", second.path)
        with opened(second.file("web1.img")):
            assert shown_owner(second) == "here"
            with pytest.raises(OSError):
                write_block(first, 1, b"a")
            assert shown_owner(first) == "beta"
        wait_until(lambda: shown_owner(second) == "none", "the second's claim to end")
        assert shows(first, 2) == [b"a", b"b"] and shown_owner(first) == "none"


@MODES
def test_the_first_dies_and_returns(hosts, image, pool, work, mode):
    """The second has it by command, and what the first had not written back stays in its
    cache: the image is the second's history from then on."""
    alpha, beta = hosts
    live = alpha.mount(mode)
    write_block(live, 0, b"a")
    write_block(live, 1, b"a")
    with left_open(live.file("web1.img")) as fd:
        write_all(fd, b"A" * BLOCK, 2 * BLOCK)
        os.fsync(fd)
        live.kill9()
    with beta.mount(mode) as second:
        with pytest.raises(OSError):
            write_block(second, 1, b"b")
        assert "leafctl unlock" in second.messages() and "alpha" in second.messages()
        beta.leafctl("unlock", *(["--force"] if mode == "writeback" else []), pool, os.path.basename(image))
        write_block(second, 1, b"b")
        before = shows(second, 3)
    assert before == ([bytes(1), b"b", bytes(1)] if mode == "writeback" else [b"a", b"b", b"A"])
    with alpha.mount(mode) as again:
        assert shows(again, 3) == before
    assert blocks_of(converted(image, work), 3) == before
    check_clean(image)
    if mode == "writeback":
        cache = os.path.join(alpha.work, "leaf.cache")
        dumped = os.path.join(work, "dumped")
        os.mkdir(dumped)
        leafctl("cache", "dump", "-d", dumped, cache)
        assert os.listdir(dumped)


def test_a_fence(hosts, image, pool, work):
    """The first is cut off with what is dirty; it is given away meanwhile. When it is back it
    writes nothing, and says so."""
    alpha, beta = hosts
    if alpha.locks:
        pytest.skip("a lock that reaches is better than any fence: test_both_alive")
    first = alpha.mount("writeback")
    fd = os.open(first.file("web1.img"), os.O_RDWR)
    write_all(fd, b"a" * BLOCK, 0)
    os.fsync(fd)
    alpha.cut_off()
    with beta.mount("writeback") as second:
        beta.leafctl("unlock", "--force", pool, os.path.basename(image))
        write_block(second, 1, b"b")
        alpha.come_back()
        leafctl("drain", first.path, check=False, timeout=60)
        wait_until(lambda: state_of(first)["state"] == "failed", lambda: f"the first to know: {state_of(first)}")
        with contextlib.suppress(OSError):
            os.close(fd)
        assert shows(second, 2) == [bytes(1), b"b"]
    assert "another has taken its image over" in first.messages()
    run("umount", "-l", first.path)
    first.wait()
    first.finalise()
    assert blocks_of(converted(image, work), 2) == [bytes(1), b"b"]
    check_clean(image)


def test_what_is_sealed_is_refused_until_it_is_complete(image, hosts, pool, rng):
    """A disk stands on a layer of which the first host's cache has changes: nobody else shows it without them."""
    first, second = hosts
    written = rng.randbytes(16 * BLOCK)  # the cache of a host is small: more would go to the pool to make room
    content = written + bytes(SIZE - len(written))
    one = first.mount("writeback")
    with opened(one.file("web1.img")) as fd:
        write_all(fd, written, 0)
        os.fsync(fd)
    first.leafctl("snapshot", one.file("web1.img"), "monday")
    first.leafctl("fork", one.file("web1.img"), "web2")
    two = second.mount("direct")
    for name in ("web1.img", "web2.img"):
        with pytest.raises(OSError) as refused:
            os.close(os.open(two.file(name), os.O_RDONLY))
        assert refused.value.errno == errno.EBUSY, name
    assert "web1@monday" in two.messages() and "alpha" in two.messages()
    assert read_file(one.file("web2.img"), SIZE) == content
    first.leafctl("drain", one.path)
    assert read_file(two.file("web2.img"), SIZE) == content
    one.stop()
    for name in ("web1.img", "web2.img"):
        assert read_file(two.file(name), SIZE) == content
    with opened(two.file("web1.img")) as fd:
        write_all(fd, b"x" * BLOCK, 0)
        os.fsync(fd)
    two.stop()
    sealed = image.replace("web1.", "snapshots/web1@monday.")
    check_clean(os.path.join(pool, "web1.leaf"), os.path.join(pool, "web2.leaf"), sealed)


@pytest.mark.parametrize("ended", [False, True], ids=["goes-on", "killed"])
@pytest.mark.parametrize("hosts", [False], indirect=True, ids=["no-locks"])
def test_a_snapshots_leaf_is_known_as_its_mounts(hosts, pool, image, work, ended):
    """Also before its first batch, and where the leaf has a name of its own: the other host finds whose it is."""
    alpha, beta = hosts
    first = alpha.mount("writeback")
    write_block(first, 0, b"a")
    leafctl("drain", first.path)
    with contextlib.suppress(OSError), opened(first.file("web1.img")) as fd:
        with opened(first.control("snapshots"), os.O_WRONLY) as control:
            os.write(control, b"create one web1.img")
        write_all(fd, b"b" * BLOCK, BLOCK)
        os.fsync(fd)
        if ended:
            first.kill9()
        with beta.mount("writeback") as second:
            with pytest.raises(OSError):
                write_block(second, 2, b"c")
            assert "alpha" in second.messages()
    if not ended:
        leafctl("drain", first.path)
        first.stop()
    with alpha.mount("writeback") as first:
        assert shows(first, 3) == [b"a", b"b", bytes(1)]
        leafctl("drain", first.path)
    image = os.path.join(pool, "web1.leaf")
    assert blocks_of(converted(image, work), 3) == [b"a", b"b", bytes(1)]
