"""The cache's file is removed under a live mount: nothing fails, so it is said, and brought to the pool at the end."""
import os
import re
import signal
import subprocess

import pytest

from harness import (MIB, PATIENCE, assert_same, converted, leafctl, make_image, opened, program, state_of,
                     wait_until, write_all)
from test_drain import HELD, SLOW, await_progress, make_dirty, web1, writeback  # noqa: F401  pylint: disable=unused-import
from test_events import events_of

SAID = "was removed, and is in use: what it alone has is lost should the daemon or this host fail; leafctl drain"
LOST = "the cache's file was removed: what it alone has is lost"


def cache_state(live):
    with open(live.control("cache", "info"), encoding="utf-8") as file:
        return file.read().split("\n", 1)[0]


def dirty(live, content):
    with opened(live.file("web1.img")) as fd:
        write_all(fd, content, 0)
        os.fsync(fd)


def remove(path):
    os.unlink(path)


def replace(path):
    with open(path + ".new", "wb") as file:
        file.truncate(64 * MIB)
    os.rename(path + ".new", path)


@pytest.mark.parametrize("how", [remove, replace])
def test_it_is_said_once(mount, pool, work, cache, how):
    """In the log, as an event, in the state of the cache and of the disks in writeback."""
    make_image(os.path.join(pool, "web1.leaf"), 4 * MIB)
    make_image(os.path.join(pool, "web2.leaf"), 4 * MIB)
    with mount("mode=writeback", f"cache={cache}", "cache_size=64M", *HELD) as live:
        leafctl("mode", live.file("web2.img"), "persistent")
        with opened(live.file("web1.img")) as fd, opened(live.file("web2.img")):
            write_all(fd, b"only here", 0)
            os.fsync(fd)
            assert cache_state(live) == "state: active" and state_of(live)["state"] == "active"
            how(cache)
            wait_until(lambda: cache_state(live) == "state: removed", "it to be noticed")
            state = state_of(live)
            assert state["state"] == "degraded" and state["reason"].startswith(LOST) and state["since"], state
            assert state_of(live, "web2.img")["state"] == "active"
            said = leafctl("status", live.path).stdout
            assert re.search(r"^ +its file was removed: what it alone has is lost", said, re.M) and LOST in said
            assert LOST in leafctl("status", live.file("web1.img")).stdout
            wait_until(lambda: "warning" in [event[0] for event in events_of(live, "web1.img")], "the event")
            for _ in range(5):
                cache_state(live)
            leafctl("drain", live.path)
            write_all(fd, b"and here", MIB)
        told = [event for event in events_of(live) if SAID in event[2]]
        assert len(told) == 1 and told[0][:2] == ("warning", "-"), told
        assert live.messages().count(SAID) == 1 and f"{cache} was removed" in live.messages()
    content = converted(os.path.join(pool, "web1.leaf"), work)
    assert content[:9] == b"only here" and content[MIB:MIB + 8] == b"and here"


@pytest.mark.slow
def test_it_is_noticed_when_nobody_asks(mount, pool, cache):
    make_image(os.path.join(pool, "web1.leaf"), MIB)
    with mount("mode=writeback", f"cache={cache}", "cache_size=64M", *HELD) as live:
        os.unlink(cache)
        wait_until(lambda: SAID in live.messages(), "it to be noticed")


def test_one_that_never_had_a_name(mount, pool):
    make_image(os.path.join(pool, "web1.leaf"), MIB)
    with mount("mode=ephemeral") as live:
        dirty(live, b"x")
        for _ in range(3):
            assert cache_state(live) == "state: active"
        assert "was removed" not in live.messages()


def test_the_end_leaves_nothing_in_it(mount, pool, work, cache, rng):
    """With nodrain neither: no other mount goes on with it."""
    image, content = make_image(os.path.join(pool, "web1.leaf"), 4 * MIB), rng.randbytes(MIB)
    live = mount("mode=writeback", f"cache={cache}", "cache_size=64M", "nodrain", *HELD)
    dirty(live, content)
    os.unlink(cache)
    live.stop()
    assert "stay in the cache" not in live.messages() and "all changes are in the pool" in live.messages()
    assert_same(converted(image, work)[:MIB], content, "the image")
    mount("mode=writeback", f"cache={cache}", "cache_size=64M", *HELD).stop()


def test_a_drain_that_is_given_up_says_what_that_means(writeback, rng, work):  # noqa: F811
    live = writeback(*SLOW)
    make_dirty(live, rng)
    os.unlink(os.path.join(work, "cache"))
    with subprocess.Popen([program("leafctl"), "drain", live.path], stderr=subprocess.PIPE, text=True) as child:
        await_progress(live)
        child.send_signal(signal.SIGINT)
        said = child.communicate(timeout=PATIENCE)[1]
    assert child.returncode == 1 and "of changes stay in the cache, whose file was removed, and end with this mount: " in said
    leafctl("set", live.path, "migrate_batch=16384")
    live.stop()
