"""Every file of the control tree: what it says, what it refuses, what a command does, and that it is its owner's.

The files are those that include/control/tree.h lists: one that is new there has no row in FILES, and its tests fail.
"""
import dataclasses
import errno
import os
import re
import threading
import typing

import pytest

from harness import (BLOCK, CONTROL, MIB, expect_errno, file_bytes, make_image, make_raw, opened, stats, wait_until,
                     write_all)
from test_control import COMMAND_BYTES_MAX, as_nobody, command, errno_of, try_open
from test_docs import below, listed_entries
from test_writeback_faults import HELD

SIZE = 2 * MIB
TUNABLE = "max_dirty_age"


@pytest.fixture
def live(mount, pool, cache):
    """Two disks on a base, with a block each that only the cache has, in a mount that all users may use."""
    base = make_raw(os.path.join(pool, "base.raw"), bytes(SIZE))
    for name in ("web1", "web2"):
        make_image(os.path.join(pool, f"{name}.leaf"), parent=base)
    started = mount(f"cache={cache}", "cache_size=16M", "mode=writeback", "nodrain", *HELD, "allow_other", "umask=0")
    for name in ("web1.img", "web2.img"):
        with opened(started.file(name)) as fd:
            write_all(fd, b"x" * BLOCK, 0)
            os.fsync(fd)
        wait_until(lambda name=name: "opens: 0\n" in text_of(started, f"disks/{name}/info"), "the close")
    return started


def path_of(live, entry):
    return live.control(*entry.replace("NAME", "web1.img").replace("*", TUNABLE).split("/"))


def text_of(live, entry):
    return file_bytes(path_of(live, entry)).decode()


# ---- What a command does -------------------------------------------------------


def drain(live):
    command(live.control("drain"), b"1\n")
    assert text_of(live, "drain") == text_of(live, "disks/NAME/drain") == "0\n"


def drain_disk(live):
    command(path_of(live, "disks/NAME/drain"), b"1\n")
    assert (text_of(live, "disks/NAME/drain"), text_of(live, "drain")) == ("0\n", f"{BLOCK}\n")


def set_mode(live):
    command(path_of(live, "disks/NAME/mode"), b"direct\n")
    assert (text_of(live, "disks/NAME/mode"), text_of(live, "disks/web2.img/mode")) == ("direct\n", "writeback\n")
    assert text_of(live, "disks/NAME/drain") == "0\n"


def pause(live):
    with opened(path_of(live, "disks/NAME/pause")) as fd:
        os.write(fd, b"pause\n")
        assert re.fullmatch(rf"held \S+Z {os.getpid()} \S+\n", text_of(live, "disks/NAME/pause"))
        os.write(fd, b"resume\n")
        assert text_of(live, "disks/NAME/pause") == ""


def set_size(live):
    command(path_of(live, "disks/NAME/size"), b"3M\n")
    assert text_of(live, "disks/NAME/size") == f"{3 * MIB}\n"
    wait_until(lambda: os.path.getsize(live.file("web1.img")) == 3 * MIB, "the new size")


def snapshot(live):
    command(live.control("snapshots"), b"create monday web1.img web2.img\n")
    assert sorted(line.split(" ")[:2] for line in text_of(live, "snapshots").splitlines()) == [
        ["web1.img", "monday"], ["web2.img", "monday"]]


def snapshot_of_a_disk(live):
    command(path_of(live, "disks/NAME/snapshots"), b"create monday\n")
    image = os.path.join(live.pool, "snapshots", "web1@monday.leaf")
    assert re.fullmatch(rf"web1\.img monday {SIZE} \d+ \d+ \d+ yes {re.escape(image)}\n",
                        text_of(live, "disks/NAME/snapshots"))
    command(path_of(live, "disks/NAME/snapshots"), b"fork web3.img\n")
    assert live.names() == ["base.img", "web1.img", "web2.img", "web3.img"]
    assert text_of(live, "disks/web2.img/snapshots") == ""
    command(path_of(live, "disks/NAME/snapshots"), b"create tuesday\n")
    command(path_of(live, "disks/NAME/snapshots"), b"revert monday\n")
    command(path_of(live, "disks/NAME/snapshots"), b"delete tuesday\n")
    assert text_of(live, "disks/NAME/snapshots").split(" ")[1] == "monday"
    with open(live.file("web1.img"), "rb"):
        command(path_of(live, "disks/NAME/snapshots"), b"revert-live\n")


def reset(live):
    command(live.control("stats"), b"reset\n")
    assert stats(live)["write_requests"] == 0
    assert '"write_requests": 0,\n' in text_of(live, "disks/NAME/stats")


def reset_a_disk(live):
    command(path_of(live, "disks/NAME/stats"), b"reset\n")
    assert '"write_requests": 0,\n' in text_of(live, "disks/NAME/stats")
    assert '"write_requests": 1,\n' in text_of(live, "disks/web2.img/stats")
    assert stats(live)["write_requests"] == 2


def set_tunable(live):
    command(path_of(live, "tunables/*"), b"77\n")
    assert text_of(live, "tunables/*") == "77\n" and f"{TUNABLE}: 77\n" in text_of(live, "config")


def wait_for_an_event(live):
    with opened(live.control("events")) as fd:
        while os.read(fd, MIB):
            pass
        waiter = threading.Thread(target=os.write, args=[fd, b"wait\n"])
        waiter.start()
        set_tunable(live)
        waiter.join()
        assert re.fullmatch(rf"\S+Z info - {TUNABLE} is 77 now\n", os.read(fd, MIB).decode())


# ---- The rows --------------------------------------------------------------------


@dataclasses.dataclass
class File:
    says: str                               # all of it, as a regular expression, with {pool} and {mount}
    does: typing.Callable | None = None     # gives a good command, and looks at what that does; None: it takes none
    refuses: dict = dataclasses.field(default_factory=dict)  # command: its errno, and words of the sentence


def bad(words, *commands, number=errno.EINVAL):
    return {text: (number, words) for text in commands}


EVENT = r"20\S+Z (info|warning|error) \S+ .+\n"
LATENCY = r"requests=\d+( (mean|p50|p90|p99|p999|max)_us=\d+){{6}}\n"
BUCKETS = r"(-|((\d+|inf)=\d+ ?)+)\n"
NO_COMMANDS = {**bad("zero byte", b"1\0"),
               **bad(str(COMMAND_BYTES_MAX), b"x" * (COMMAND_BYTES_MAX + 1), number=errno.EMSGSIZE)}
BAD_SNAPSHOTS = bad("no command", b"monday", b"create", b"revert a b", b"create 'monday")
FILES = {
    "cache/info": File(r"state: active\n(\w+: \S+\n)+"),
    "config": File(r"mode: writeback\ncache: \S+/leaf\.cache\n(\w+: .*\n)+"),
    "disks/NAME/chain": File(rf"{{pool}}/web1\.leaf leaf {SIZE}\n{{pool}}/base\.raw raw {SIZE}\n"),
    "disks/NAME/drain": File(rf"{BLOCK}\n", drain_disk),
    "disks/NAME/info": File(rf"image: {{pool}}/web1\.leaf\nformat: leaf\nsize_bytes: {SIZE}\nallocated_bytes: \d+\n"
                            r"writable: yes\nopens: 0\nlayers: 2\nowner: \S.*\n"),
    "disks/NAME/last_error": File(""),
    "disks/NAME/latency": File("since: .+Z\n" + "".join(rf"{kind}: {LATENCY}{kind}_buckets: {BUCKETS}" for kind in (
        "read", "write", "flush", "discard"))),
    "disks/NAME/mode": File(r"writeback\n", set_mode, bad("is no mode", b"fast", b"DIRECT", b"direct\n\n")),
    "disks/NAME/pause": File("", pause, bad("expected one of: pause, resume", b"stop", b"pause pause")),
    "disks/NAME/requests": File(r"in_work: 0\nwaiting: 0\nbytes: 0\noldest_ms: 0\n"),
    "disks/NAME/size": File(rf"{SIZE}\n", set_size, bad("is no size", b"large", b"-1", b"16E")),
    "disks/NAME/snapshots": File("", snapshot_of_a_disk, {
        **BAD_SNAPSHOTS, **bad("no command", b"create a b", b"fork", b"delete a b"), **bad("no snapshot", b"revert sunday", b"delete sunday",
                                                                      number=errno.ENOENT), **bad("a/b", b"create a/b"),
        **bad("is an image of the pool", b"delete"), **bad("web2", b"fork web2.img", number=errno.EEXIST)}),
    "disks/NAME/state": File(rf"state: active\n(reason: .+\n)?(since: .+Z\n)?dirty_bytes: {BLOCK}\ndirty_age_ms: \d+\n"
                             rf"size_bytes: {SIZE}\nallocated_bytes: \d+\nopens: 0\nlayers: 2\nowner: \S.*\n"),
    "disks/NAME/stats": File(r'{{\n  "since": \d+,\n(  "\w+": \d+,\n)+  "\w+": \d+\n}}\n', reset_a_disk, bad(
        "expected: reset", b"rest", b"reset reset")),
    "drain": File(rf"{2 * BLOCK}\n", drain),
    "events": File(rf"20\S+Z info - {{pool}} mounted on {{mount}}\n({EVENT})*", wait_for_an_event, bad(
        "expected: wait", b"wait wait", b"WAIT")),
    "last_error": File(""),
    "metrics": File(r"# HELP leafdisk_build_info .+\n# TYPE leafdisk_build_info gauge\n(.+\n)+"),
    "pid": File(r"{pid}\n"),
    "snapshots": File("", snapshot, {
        **BAD_SNAPSHOTS, **bad("no command", b"create monday", b"fork web3.img"), **bad("a/b", b"create a/b web1.img"),
        **bad("web9.img", b"create monday web9.img", number=errno.ENOENT)}),
    "stats": File(r'{{\n(  "\w+": \d+,\n)+  "dirty_bytes": ' + str(2 * BLOCK) + r"\n}}\n", reset, bad(
        "expected: reset", b"rest", b"reset reset")),
    "tunables/*": File(r"86400\n", set_tunable, {**bad("is too small", b"0"), **bad("is not", b"often", b" 1")}),
    "version": File(r"leafdisk \S+\nlibfuse \S+\n?"),
}
LISTED = listed_entries().values()
ENTRIES = [entry for entry in LISTED if not any(other.startswith(f"{entry}/") for other in LISTED) and entry]
COMMANDED = [entry for entry in ENTRIES if entry not in FILES or FILES[entry].does]


def assert_says(live, entry):
    names = {"pool": re.escape(live.pool), "mount": re.escape(live.path), "pid": live.pid}
    assert re.fullmatch(FILES[entry].says.format(**names), text_of(live, entry)), text_of(live, entry)


def test_every_file_has_a_row(live):
    """Those that are listed, and those that are there: a file for each tunable, and those of three disks."""
    assert sorted(FILES) == sorted(ENTRIES)
    there = {entry for entry in below(live.control()) if not os.path.isdir(live.control(entry))}
    disks = ("base.img", "web1.img", "web2.img")
    shown = {entry.replace("NAME", disk) for entry in FILES for disk in disks} - {"tunables/*"}
    assert there == shown | {f"tunables/{name}" for name in os.listdir(live.control("tunables"))}


@pytest.mark.parametrize("entry", ENTRIES)
def test_reading(live, entry):
    """All of it, the same by parts, and once more."""
    assert_says(live, entry)
    with opened(path_of(live, entry), os.O_RDONLY) as fd:
        whole = os.pread(fd, MIB, 0)
        assert b"".join(os.pread(fd, 7, at) for at in range(0, len(whole), 7)) == whole
        assert os.pread(fd, 7, len(whole)) == b""
    assert_says(live, entry)


def refusal_of(live, entry):
    """The sentence, which only whom it concerns has."""
    names = ["disks/NAME/last_error", "last_error"]
    mine, other = names if entry.startswith("disks/") else reversed(names)
    assert text_of(live, other) == ""
    sentence = text_of(live, mine)
    assert sentence.endswith("\n") and sentence[:-1].isprintable()
    return sentence


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_is_refused(live, entry):
    """A bad command has an errno and a sentence, and changes nothing; a file that takes none is not opened for one."""
    path, file = path_of(live, entry), FILES[entry]
    if not file.does:
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDONLY | os.O_TRUNC, os.O_RDWR | os.O_CREAT,
                      os.O_WRONLY | os.O_APPEND):
            expect_errno(errno.EACCES, try_open, path, flags)
        expect_errno(errno.EACCES, os.truncate, path, 0)
        return
    for text, (number, words) in {**file.refuses, **NO_COMMANDS}.items():
        assert errno_of(command, path, text) == number, text
        assert words in refusal_of(live, entry), text
    assert_says(live, entry)
    assert live.names() == ["base.img", "web1.img", "web2.img"] and "snapshots" not in os.listdir(live.pool)


@pytest.mark.parametrize("entry", COMMANDED)
def test_a_good_command(live, entry):
    FILES[entry].does(live)
    assert text_of(live, "last_error") == text_of(live, "disks/NAME/last_error") == ""


def test_other_users_are_refused(live):
    """Whatever there is, file or directory; the disks beside it they may use. What the kernel has learnt of the tree
    from its owner changes nothing."""
    paths = [os.path.join(CONTROL, entry) for entry in below(live.control())]
    with opened(live.path, os.O_RDONLY | os.O_DIRECTORY) as top:
        def open_below(path, flags):
            return errno_of(lambda: os.close(os.open(path, flags, dir_fd=top)))

        def attempts():
            found = {path: [errno_of(os.stat, path, dir_fd=top), *(open_below(path, flags) for flags in (
                os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC)),
                errno_of(os.truncate, f"/proc/self/fd/{top}/{path}", 0)] for path in paths}
            return {"web1.img": [open_below("web1.img", os.O_RDWR)],
                    CONTROL: [open_below(CONTROL, os.O_RDONLY)], **found}
        assert all(numbers[:2] in ([0], [0, 0]) for numbers in attempts().values())
        for _ in range(2):
            assert as_nobody(attempts) == {"web1.img": [0], CONTROL: [errno.EACCES],
                                           **{path: [errno.EACCES] * 6 for path in paths}}
