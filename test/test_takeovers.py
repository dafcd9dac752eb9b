"""Two hosts and one image, which the second takes over from the first, in every order of what happens: that it does,
that the first is away and returns, and that the second is. Each writes whenever it may.

The image has one host's history. What the other had flushed besides is set aside: it can be dumped, and adopted where
nothing was written since."""
import contextlib
import itertools
import json
import os
import signal
import subprocess

import pytest

from harness import (BLOCK, MIB, TORTURE, check_clean, converted, file_bytes, halt, leafctl, make_image, make_raw,
                     read_all, read_file, run, write_all)
from test_two_hosts import hosts  # noqa: F401 pylint: disable=unused-import

SIZE = MIB
BLOCKS = SIZE // BLOCK
TAKEN, GOES, RETURNS, OTHER_GOES = range(4)
EVENTS = ["the second takes it over", "the first goes", "the first returns", "the second goes"]
ORDERS = [order for order in itertools.permutations(range(4))
          if order.index(GOES) < order.index(RETURNS) and order.index(TAKEN) < order.index(OTHER_GOES)]
# How they are away, whether the second writes, and what the image is.
ALL = list(itertools.product(["cut off", "killed"], [True, False], ["web1.leaf", "web1.raw"]))


def block_of(content, number):
    return content[number * BLOCK:(number + 1) * BLOCK]


def describe(content):
    return {number: block_of(content, number)[:4] for number in range(BLOCKS) if any(block_of(content, number))}


class Party:
    """A host, and what its disk is. STATES has all that the disk ever was, on either."""

    def __init__(self, host, letter, away, states):
        self.host, self.letter, self.away, self.states = host, letter, away, states
        self.cache = os.path.join(host.work, "leaf.cache")
        self.live, self.fd, self.here = host.mount("writeback"), None, True
        self.state = None  # as it was flushed last
        self.lost = []  # states that were flushed here, and that the disk has not gone on from
        self.count = 0
        self.flushed = False  # ever
        self.holder = None

    def open(self):
        self.fd = os.open(self.live.file("web1.img"), os.O_RDWR)
        found = read_all(self.fd, SIZE, 0)
        assert found in self.states, f"{self.letter} has {describe(found)}"
        if self.state not in (None, found):
            self.lost.append(self.state)
        self.state = found

    def close(self):
        with contextlib.suppress(OSError):
            if self.fd is not None:
                os.close(self.fd)
        self.fd = None

    def write(self):
        """Two blocks, of which one is the other host's too. Whether they were flushed."""
        self.count += 1
        with contextlib.suppress(OSError):
            if self.fd is None:
                self.open()
            data = f"{self.letter}{self.count:03}".encode() * (BLOCK // 4)
            content = bytearray(self.state)
            for number in (0, self.count + (BLOCKS // 2 if self.letter == "b" else 0)):
                content[number * BLOCK:(number + 1) * BLOCK] = data
                self.states.append(bytes(content))
                write_all(self.fd, data, number * BLOCK)
            self.states.remove(self.states[-2])
            os.fsync(self.fd)
            self.state, self.flushed = bytes(content), True
            return True
        self.close()
        return False

    def drain(self):
        leafctl("drain", self.live.path, check=False, timeout=120)

    def leave_open(self):
        """To a process that does nothing with it: each one that is started has to close a copy of a file, which waits
        for a daemon that stands still."""
        if self.fd is not None:
            self.holder = subprocess.Popen(["sleep", "3600"], pass_fds=[self.fd])
            self.close()

    def go(self):
        if self.away == "killed":
            self.live.kill9()
            self.close()
        elif self.host.locks:
            self.leave_open()
            halt(self.live.pid)
        else:
            self.host.cut_off()
            if self.fd is not None:
                assert self.write(), "what is cut off from the pool has its cache"
        self.here = False

    def come_back(self):
        if self.here:
            return
        self.here = True
        if self.away == "killed":
            self.live = self.host.mount("writeback")
        elif self.host.locks:
            os.kill(self.live.pid, signal.SIGCONT)
            if self.holder:
                self.holder.kill()
                self.holder.wait()
                self.holder = None
        else:
            self.host.come_back()

    def end(self):
        self.close()
        run("umount", "-l", self.live.path)
        self.live.wait()
        self.live.finalise()

    def dumped(self):
        target = os.path.join(self.host.work, "dumped")
        os.makedirs(target)
        leafctl("cache", "dump", "-d", target, self.cache)
        return [file_bytes(os.path.join(target, name)) for name in os.listdir(target)]


def play(order, first, second, take_over, second_writes):
    """Whether the second has written it, or the first what it had found anew."""
    wrote = False
    for event in order:
        print(EVENTS[event])
        (take_over, first.go, first.come_back, second.go)[event]()
        if first.here:
            wrote |= first.write() and bool(first.lost)
        if second.here and second_writes:
            wrote |= second.write()
        if event == RETURNS:
            first.drain()
        if second.here:
            second.drain()
    second.come_back()
    for party in (first, second):
        party.drain()
        party.end()
    return wrote


def expect_set_aside(party, content):
    """In its cache, and all of it an orphan."""
    layers = json.loads(leafctl("cache", "info", "--json", party.cache).stdout)["layers"]
    assert all(layer["orphan"] for layer in layers if layer["dirty_blocks"]), layers
    saved = party.dumped()
    for state in party.lost:
        for number in range(BLOCKS):
            block = block_of(state, number)
            if block != block_of(content, number) and block.startswith(party.letter.encode()):
                assert block in [block_of(dump, number) for dump in saved], (describe(state), number)


@pytest.mark.parametrize("combination", ALL if TORTURE else range(2), ids=str)
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "".join(str(event) for event in order))
def test_in_every_order(hosts, work, pool, order, combination):  # noqa: F811 pylint: disable=redefined-outer-name
    """In `make check` two of the combinations with each order and kind of store."""
    number = 2 * ORDERS.index(order) + hosts[0].locks
    away, second_writes, name = combination if TORTURE else ALL[(number + 5 * combination) % len(ALL)]
    print(away, second_writes, name)
    path = os.path.join(pool, name)
    if name.endswith(".raw"):
        make_raw(path, bytes(SIZE))
    else:
        make_image(path, SIZE, chunk="64K")
    states = [bytes(SIZE)]
    first, second = (Party(host, letter, away, states) for host, letter in zip(hosts, "ab"))
    assert first.write()
    first.drain()
    assert first.write()
    wrote = play(order, first, second, lambda: second.host.leafctl("unlock", "--force", pool, name), second_writes)
    content = converted(path, work)
    check_clean(*([path] if name.endswith(".leaf") else []))
    assert content in states, describe(content)
    if second.flushed:
        assert content == second.state, describe(content)
    if content != first.state:
        first.lost.append(first.state)
    for party in (second, first):
        with party.host.mount("writeback") as live:
            assert read_file(live.file("web1.img"), SIZE) == content
    expect_set_aside(first, content)
    if not first.lost:
        return
    adopted = first.host.leafctl("cache", "adopt", first.cache, name, check=False)
    if wrote:
        assert adopted.returncode == 1 and "--force" in adopted.stderr, adopted
    else:
        assert adopted.returncode == 0, adopted.stderr
        assert converted(path, work) == first.lost[-1]
    check_clean(*([path] if name.endswith(".leaf") else []))
