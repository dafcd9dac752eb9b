"""The control tree of a mount, and leafctl status, which reads it."""
import concurrent.futures
import contextlib
import errno
import json
import mmap
import os
import pwd
import re
import shutil
import signal
import stat
import threading

import pytest

from harness import (BLOCK, CONTROL, KIB, MIB, Aligned, discard, expect_errno, file_bytes, leafctl, make_image,
                     make_raw, opened, program, read_all, run, scaled, wait_until, write_all, write_conf)

TOP_FILES = ["config", "drain", "events", "last_error", "metrics", "pid", "snapshots", "stats", "version"]
TOP = sorted([*TOP_FILES, "disks", "tunables"])
DISK_FILES = ["chain", "drain", "info", "last_error", "latency", "mode", "pause", "requests", "size", "snapshots", "state",
              "stats"]
SETTINGS = ["drain", "mode", "pause", "size", "snapshots"]  # what is read is good as a command; and everything in tunables
WRITABLE = [*SETTINGS, "events", "stats"]
EMPTY = ["last_error", "pause", "snapshots"]  # while there is nothing to say; and no command
COMMAND_BYTES_MAX = 4096
ALL_WELL = {"state": "active", "dirty_bytes": "0", "dirty_age_ms": "0"}
KNOWN_LAST = {"size_bytes", "allocated_bytes", "opens", "layers", "owner"}
READERS = 8
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def base(pool, rng):
    return make_raw(os.path.join(pool, "base.raw"), rng.randbytes(2 * MIB))


@pytest.fixture
def web1(pool, base):
    return make_image(os.path.join(pool, "web1.leaf"), parent=base)


def text_of(live, *names):
    with open(live.control(*names), encoding="utf-8") as file:
        return file.read()


def unescaped(text):
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def values_of(live, *names):
    """The lines of a file as a dictionary; no line is anything else."""
    pairs = [line.split(": ", 1) for line in text_of(live, *names).splitlines()]
    assert len({key for key, _ in pairs}) == len(pairs)
    return {key: unescaped(value) for key, value in pairs}


def state_without_sizes(live, name):
    state = values_of(live, "disks", name, "state")
    assert KNOWN_LAST <= set(state)
    return {key: state[key] for key in state if key not in KNOWN_LAST}


def counters_of(live):
    return json.loads(text_of(live, "stats"))


# ---- What is there -----------------------------------------------------------


def test_the_tree(mount, web1):
    with mount() as live:
        assert sorted(os.listdir(live.control())) == TOP
        assert sorted(os.listdir(live.control("disks"))) == ["base.img", "web1.img"]
        assert sorted(os.listdir(live.control("disks", "web1.img"))) == DISK_FILES
        expect_errno(errno.ENOENT, os.stat, live.control("disks", "web2.img"))
        expect_errno(errno.ENOENT, os.stat, live.control("nothing"))
        expect_errno(errno.ENOENT, os.stat, live.control("disks", "web1.img", "nothing"))
        expect_errno(errno.ENOENT, os.stat, live.control("info"))
        expect_errno(errno.ENOTDIR, os.stat, live.control("stats", "info"))
        expect_errno(errno.ENAMETOOLONG, os.stat, live.control("n" * 256))


def test_modes_and_kinds(mount, web1):
    with mount("uid=7", "umask=0", "allow_other") as live:
        for parent, directories, files in os.walk(live.control()):
            for name in directories + files:
                found = os.lstat(os.path.join(parent, name))
                writable = name in WRITABLE or os.path.basename(parent) == "tunables"
                size = COMMAND_BYTES_MAX if writable else 0
                assert (found.st_uid, found.st_gid, found.st_size) == (os.geteuid(), os.getegid(), size)
                assert stat.S_IMODE(found.st_mode) == (0o500 if name in directories else 0o600 if writable else 0o400)
        kinds = {entry.name: entry.is_dir(follow_symlinks=False) for entry in os.scandir(live.path)}
        assert kinds == {CONTROL: True, "base.img": False, "web1.img": False}


def test_numbers_agree_and_stay(mount, web1):
    """What a listing says is what stat says, also when it is asked again."""
    with mount() as live:
        for _ in range(2):
            for parent, _, _ in os.walk(live.path):
                for entry in os.scandir(parent):
                    assert entry.inode() == os.stat(entry.path).st_ino, entry.path
        numbers = [os.stat(os.path.join(parent, name)).st_ino for parent, directories, files in os.walk(live.path)
                   for name in directories + files]
        assert len(set(numbers)) == len(numbers)


def test_it_is_not_seen_as_a_disk(mount, pool, web1, work):
    with mount() as live:
        assert run("ls", live.path).stdout.split() == ["base.img", "web1.img"]
        assert CONTROL in run("ls", "-a", live.path).stdout.split()
        copies = os.path.join(work, "copies")
        os.mkdir(copies)
        run("sh", "-c", f"cp -a {live.path}/*.img {copies}")
        assert sorted(os.listdir(copies)) == ["base.img", "web1.img"]
        listed = json.loads(leafctl("list", "--json", live.path).stdout)
        assert [disk["name"] for disk in listed["disks"]] == ["base.img", "web1.img"]


def test_no_disk_has_its_name(mount, pool, base):
    for name in (".leafdisk.raw", ".leafdisk", ".leafdisk.img"):
        shutil.copyfile(base, os.path.join(pool, name))
    with mount("manage") as live:
        assert os.listdir(live.control("disks")) == ["base.img"]
        assert live.names() == ["base.img"]
        assert os.path.isdir(live.control())
        with pytest.raises(OSError):
            os.close(os.open(live.control(), os.O_RDWR | os.O_CREAT))
        expect_errno(errno.EISDIR, os.rename, live.file("base.img"), live.control())


# ---- What the files say ------------------------------------------------------


def test_version(mount, web1):
    with mount() as live:
        assert text_of(live, "version") == run(program("leafdisk"), "--version").stdout


def test_config_has_every_option(mount, pool, web1):
    options = set(re.findall(r"^    (?:\[no\])?([a-z_]+)(?:=\S+)?  ", run(program("leafdisk"), "--help").stdout, re.M))
    with mount("threads=2", "umask=027", "manage", "disks=web*") as live:
        config = values_of(live, "config")
    assert set(config) == options
    owner = os.stat(pool)
    expected = {"mode": "direct", "threads": "2", "umask": "27", "manage": "yes", "ro": "no", "disks": "web*",
                "queue_depth": "128", "layers": "", "uid": str(owner.st_uid), "gid": str(owner.st_gid)}
    assert {key: config[key] for key in expected} == expected


def test_config_shows_what_the_file_says(mount, work, web1):
    conf = write_conf(work, "[pool]\nio_timeout = 7\nqueue_depth = 9\n")
    with mount(f"conf={conf}", "queue_depth=10") as live:
        config = values_of(live, "config")
    assert (config["conf"], config["io_timeout"], config["queue_depth"]) == (conf, "7", "10")


LABELS = r'\w+="(?:[^"\\\n]|\\[\\"n])*"'


def parsed_metrics(text):
    """name -> (type, {labels: value}); every line must be what the format allows, all of a name together. The samples
    of a histogram have what is behind its name before their labels."""
    kinds, values, name = {}, {}, None
    assert text.endswith("\n")
    lines = iter(text.splitlines())
    for line in lines:
        if match := re.fullmatch(r"# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)", line):
            name = match.group(1)
            assert name not in kinds
            kinds[name] = re.fullmatch(rf"# TYPE {name} (counter|gauge|histogram)", next(lines)).group(1)
            values[name] = {}
        else:
            suffix, labels, value = re.fullmatch(
                rf"{name}(_bucket|_sum|_count|){{({LABELS}(?:,{LABELS})*)}} (\d+(?:\.\d+)?)", line).groups()
            assert bool(suffix) == (kinds[name] == "histogram")
            labels = f"{suffix}{{{labels}}}" if suffix else labels
            assert labels not in values[name]
            values[name][labels] = float(value) if "." in value else int(value)
    return {name: (kinds[name], values[name]) for name in kinds}


def test_metrics_are_the_counters(mount, web1):
    with mount() as live:
        with opened(live.file("web1.img")) as fd:
            write_all(fd, b"x" * 5000, 100)
            os.fsync(fd)
            counters = counters_of(live)
            allocated = [int(values_of(live, "disks", "web1.img", "state")["allocated_bytes"])]
            metrics = parsed_metrics(text_of(live, "metrics"))
            allocated.append(int(values_of(live, "disks", "web1.img", "state")["allocated_bytes"]))
        place = f'mount="{live.path}"'
    assert metrics.pop("leafdisk_dirty_bytes") == ("gauge", {place: 0}) and counters.pop("dirty_bytes") == 0
    assert metrics.pop("leafdisk_build_info")[1].keys() == {f'{place},version="0.1.0"'}
    # These are there once somebody has looked at the pool.
    assert {metrics.pop(f"leafdisk_pool_{name}", ("gauge",))[0] for name in ("size_bytes", "free_bytes")} == {"gauge"}
    gauges = {name: metrics.pop(f"leafdisk_disk_{name}") for name in ("size_bytes", "used_bytes", "dirty_bytes", "opens")}
    assert {kind for kind, _ in gauges.values()} == {"gauge"}
    found = {name: values[f'{place},disk="web1.img"'] for name, (_, values) in gauges.items()}
    # A store that is slow to tell how much it is has told what it was.
    assert allocated[0] <= found.pop("used_bytes") <= allocated[1]
    assert found == {"size_bytes": 2 * MIB, "dirty_bytes": 0, "opens": 1}
    assert set(gauges["opens"][1]) == {f'{place},disk="{name}"' for name in ("base.img", "web1.img")}
    metrics = {name: found for name, found in metrics.items() if not name.startswith("leafdisk_disk_")}
    assert set(metrics) == {f"leafdisk_{name}_total" for name in counters}
    assert {kind for kind, _ in metrics.values()} == {"counter"}
    for name in ("write_bytes", "write_requests", "flush_requests"):
        assert metrics[f"leafdisk_{name}_total"][1] == {place: counters[name]} and counters[name] > 0


def used_bytes(live, name):
    metrics = parsed_metrics(text_of(live, "metrics"))
    _, used = metrics["leafdisk_disk_used_bytes"]
    told = int(values_of(live, "disks", name, "state")["allocated_bytes"])
    assert used[f'mount="{live.path}",disk="{name}"'] == told
    return told


def test_the_space_that_a_disk_uses_is_told_as_it_is(mount, web1):
    """Nobody has looked at the file since; open, and after that."""
    with mount() as live:
        with opened(live.file("web1.img")) as fd:
            for number in (1, 2):
                write_all(fd, os.urandom(MIB), (number - 1) * MIB)
                os.fsync(fd)
                assert used_bytes(live, "web1.img") == os.stat(web1).st_blocks * 512 >= number * MIB
            write_all(fd, b"x", 0)
        assert used_bytes(live, "web1.img") == os.stat(web1).st_blocks * 512


def change(before, after):
    return {name: after[name] - before[name] for name in after if after[name] != before[name]}


def test_counters_move_by_what_is_done(mount, web1):
    memory = Aligned(64 * KIB)
    with mount() as live, opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        before = counters_of(live)
        for block in range(5):
            memory.write(fd, b"w" * BLOCK, block * 8 * BLOCK)
        memory.read(fd, 64 * KIB, MIB)
        memory.read(fd, BLOCK, MIB)
        after = counters_of(live)
        moved = change(before, after)
        assert (moved["write_requests"], moved["write_bytes"]) == (5, 5 * BLOCK)
        assert (moved["read_requests"], moved["read_bytes"]) == (2, 68 * KIB)
        assert "flush_requests" not in moved and "discard_requests" not in moved and "errors" not in moved
        os.fsync(fd)
        discard(fd, MIB, BLOCK)
        with pytest.raises(OSError):
            os.pwritev(fd, [mmap.mmap(-1, BLOCK)], 2 * MIB)
        moved = change(after, counters_of(live))
        assert (moved["flush_requests"], moved["discard_requests"], moved["errors"]) == (1, 1, 1)


def evict(path):
    with opened(path) as fd:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def test_a_cached_base_is_read_from_memory(mount, base, web1):
    content = file_bytes(base)
    memory = Aligned(2 * MIB)
    with mount() as live, opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
        before = counters_of(live)
        assert memory.read(fd, 2 * MIB, 0) == content
        moved = change(before, counters_of(live))
        assert moved["aio_cached"] >= 2 and "aio_cache_misses" not in moved and "aio_submits" not in moved
        memory.write(fd, b"w" * BLOCK, MIB)
        content = content[:MIB] + b"w" * BLOCK + content[MIB + BLOCK:]
        for offset in (0, MIB, MIB + BLOCK, 2 * MIB - BLOCK):
            evict(base)
            assert memory.read(fd, BLOCK, offset) == content[offset:offset + BLOCK]
        evict(base)
        assert memory.read(fd, 2 * MIB, 0) == content


def test_what_is_written_is_not_read_from_memory(mount, pool, base):
    content = file_bytes(base)
    memory = Aligned(BLOCK)
    with mount() as live, opened(live.file("base.img"), os.O_RDWR | os.O_DIRECT) as fd:
        before = counters_of(live)
        assert memory.read(fd, BLOCK, 0) == content[:BLOCK]
        assert "aio_cached" not in change(before, counters_of(live))


def test_pages_are_kept_from_one_reader_to_the_next(mount, web1):
    with mount() as live:
        disk = live.file("web1.img")
        content, modified = file_bytes(disk), os.stat(disk).st_mtime_ns
        before = counters_of(live)
        assert file_bytes(disk) == content
        assert os.stat(disk).st_mtime_ns == modified
        assert "read_requests" not in change(before, counters_of(live))


def test_pages_go_when_somebody_changes_the_image(mount, web1):
    with mount() as live:
        disk = live.file("web1.img")
        content = file_bytes(disk)
        with opened(disk, os.O_RDWR) as fd:
            write_all(fd, b"here", 0)
        content = b"here" + content[4:]
        assert file_bytes(disk) == content
        with mount() as other, opened(other.file("web1.img"), os.O_RDWR) as fd:
            write_all(fd, b"else", 0)
        assert file_bytes(disk) == b"else" + content[4:]


def test_the_tree_itself_counts_nothing(mount, web1):
    with mount() as live:
        before = counters_of(live)
        for parent, _, files in os.walk(live.control()):
            for name in files:
                file_bytes(os.path.join(parent, name))
        moved = change(before, counters_of(live))
        assert not {name for name in moved if name.endswith(("_requests", "_bytes")) and name[:3] != "aio"}


def test_info_of_a_disk(mount, pool, base, web1):
    with mount() as live:
        info = values_of(live, "disks", "web1.img", "info")
        assert (info["image"], info["format"], info["layers"]) == (web1, "leaf", "2")
        assert (info["size_bytes"], info["writable"], info["opens"]) == (str(2 * MIB), "yes", "0")
        info = values_of(live, "disks", "base.img", "info")
        assert (info["image"], info["format"], info["layers"]) == (base, "raw", "1")
        assert (info["size_bytes"], info["writable"]) == (str(2 * MIB), "no")
        with opened(live.file("web1.img")) as fd:
            before = int(values_of(live, "disks", "web1.img", "info")["allocated_bytes"])
            write_all(fd, b"a" * MIB, 0)
            os.fsync(fd)
            os.truncate(live.file("web1.img"), 3 * MIB)
            info = values_of(live, "disks", "web1.img", "info")
            assert (info["opens"], info["size_bytes"]) == ("1", str(3 * MIB))
            assert int(info["allocated_bytes"]) >= before + MIB
            assert text_of(live, "disks", "web1.img", "chain").splitlines()[0] == f"{web1} leaf {3 * MIB}"
        wait_until(lambda: values_of(live, "disks", "web1.img", "info")["opens"] == "0", "the close")
        assert values_of(live, "disks", "web1.img", "info")["size_bytes"] == str(3 * MIB)


def test_chain_of_a_disk(mount, pool, base, web1):
    top = make_image(os.path.join(pool, "top.leaf"), "4M", parent=web1)
    expected = [f"{top} leaf {4 * MIB}", f"{web1} leaf {2 * MIB}", f"{base} raw {2 * MIB}"]
    with mount() as live:
        assert text_of(live, "disks", "top.img", "chain").splitlines() == expected
        with opened(live.file("top.img")):
            assert text_of(live, "disks", "top.img", "chain").splitlines() == expected
        assert values_of(live, "disks", "top.img", "info")["layers"] == "3"


def test_chain_of_a_stack_spelled_out(mount, pool, work, rng):
    os.mkdir(os.path.join(pool, "parts"))
    raw = make_raw(os.path.join(pool, "parts", "base.raw"), rng.randbytes(64 * KIB + MIB))
    leaf = make_image(os.path.join(pool, "parts", "w.leaf"), MIB)
    conf = write_conf(work, "[disk stack.img]\nlayers = parts/base.raw@65536; parts/w.leaf\n")
    with mount(f"conf={conf}") as live:
        assert text_of(live, "disks", "stack.img", "chain").splitlines() == [f"{leaf} leaf {MIB}", f"{raw} raw {MIB}"]


def test_state_and_mode(mount, web1):
    with mount() as live:
        assert state_without_sizes(live, "web1.img") == ALL_WELL
        assert text_of(live, "disks", "web1.img", "mode") == "direct\n"


SPECIAL = ["two words", "new\nstate: failed\nline", "back\\slash", "tab\there", "quote'\"", "umlaut-\u00e4\u00f6",
           "-dash", "%s%n", "*?[a]"]


@pytest.mark.parametrize("stem", SPECIAL)
def test_names_with_special_characters(mount, pool, base, stem):
    image = make_image(os.path.join(pool, f"{stem}.leaf"), parent=base)
    name = f"{stem}.img"
    with mount() as live:
        assert sorted(os.listdir(live.control("disks"))) == sorted(["base.img", name])
        info = values_of(live, "disks", name, "info")
        assert (info["image"], info["layers"]) == (image, "2")
        lines = text_of(live, "disks", name, "chain").splitlines()
        assert [unescaped(line.split(" ")[0]) for line in lines] == [image, base]
        assert all(len(line.split(" ")) == 3 for line in lines)
        assert state_without_sizes(live, name) == ALL_WELL
        assert values_of(live, "disks", name, "state")["layers"] == "2"
        assert len(parsed_metrics(text_of(live, "metrics"))["leafdisk_disk_opens"][1]) == 2
        status = json.loads(leafctl("status", "--json", live.file(name)).stdout)
        assert (status["name"], status["image"], status["state"]) == (name, image, "active")
        for path in (live.path, live.file(name)):
            said = leafctl("status", path).stdout
            assert "\t" not in said and "\nstate: failed" not in said and "\nline" not in said


# ---- Reading -----------------------------------------------------------------


def test_partial_reads_fit_together(mount, web1):
    with mount() as live, opened(live.control("metrics"), os.O_RDONLY) as fd:
        whole = read_all(fd, MIB, 0)
        assert len(whole) > 1000
        for step in (1, 7, 100, 4096):
            assert b"".join(os.pread(fd, step, at) for at in range(0, len(whole), step)) == whole
        assert os.pread(fd, 10, len(whole)) == b""
        assert os.pread(fd, 10, len(whole) + MIB) == b""
        assert os.pread(fd, 10, len(whole) - 3) == whole[-3:]
        assert os.lseek(fd, 5, os.SEEK_SET) == 5 and os.read(fd, 5) == whole[5:10]


def test_tools_can_read_it(mount, web1, work):
    with mount() as live:
        path = live.control("version")
        whole = file_bytes(path).decode()
        assert run("cat", path).stdout == whole
        assert run("head", "-c1", path).stdout == whole[0]
        assert run("tail", "-n1", path).stdout == whole.splitlines(True)[-1]
        assert run("dd", f"if={path}", "bs=3", "skip=2", "count=2", "status=none").stdout == whole[6:12]
        assert run("dd", f"if={path}", "bs=4096", "iflag=direct", "status=none").stdout == whole
        run("cp", path, os.path.join(work, "copy"))
        assert file_bytes(os.path.join(work, "copy")).decode() == whole
        run("sync", path)


def test_an_open_file_is_a_snapshot(mount, web1):
    with mount() as live, opened(live.control("stats"), os.O_RDONLY) as fd:
        before = os.pread(fd, MIB, 0)
        with opened(live.file("web1.img")) as disk:
            write_all(disk, b"x", 0)
            os.fsync(disk)
        assert os.pread(fd, MIB, 0) == before
        assert json.loads(before)["write_requests"] < counters_of(live)["write_requests"]


def test_an_open_file_holds_no_disk(mount, pool, web1):
    with mount("manage") as live, opened(live.control("disks", "web1.img", "info"), os.O_RDONLY) as fd:
        assert values_of(live, "disks", "web1.img", "info")["opens"] == "0"
        os.rename(live.file("web1.img"), live.file("web2.img"))
        os.unlink(live.file("web2.img"))
        assert not os.path.exists(web1)
        assert b"opens: 0\n" in os.pread(fd, MIB, 0)


def test_the_end_of_a_mount_with_open_files(mount, web1):
    live = mount()
    files = [os.open(live.control("stats"), os.O_RDONLY) for _ in range(3)]
    os.kill(live.pid, signal.SIGTERM)
    assert live.wait() == 0
    for fd in files:
        with pytest.raises(OSError):
            os.pread(fd, 10, 0)
        with contextlib.suppress(OSError):
            os.close(fd)


# ---- What can be changed, and what cannot ------------------------------------


def try_open(path, flags):
    os.close(os.open(path, flags))


def test_a_file_is_as_it_is(mount, web1):
    with mount() as live:
        for path in (live.control("stats"), live.control("drain"), live.control("tunables", "max_dirty")):
            expect_errno(errno.EPERM, os.chmod, path, 0o666)
            expect_errno(errno.EPERM, os.chown, path, 7, 7)
            expect_errno(errno.EPERM, os.utime, path)
            with pytest.raises(OSError), opened(path, os.O_RDONLY) as fd:
                discard(fd, 0, BLOCK)


def command(path, text):
    """Writes TEXT as one command."""
    with opened(path, os.O_WRONLY) as fd:
        return os.write(fd, text)


def writable_files(live):
    yield live.control("drain")
    for name in os.listdir(live.control("tunables")):
        yield live.control("tunables", name)
    for name in SETTINGS:
        yield live.control("disks", "web1.img", name)


def test_what_is_read_can_be_written(mount, web1):
    """Each value is good as a command, however a program opens and writes it."""
    with mount() as live:
        for path in writable_files(live):
            if os.path.basename(path) in EMPTY:
                continue  # what is read is a list, what is written changes it
            value = file_bytes(path)
            assert value.endswith(b"\n") and value.count(b"\n") == 1, path
            for text in (value, value[:-1]):
                assert command(path, text) == len(text)
            for flags in (os.O_TRUNC, os.O_APPEND, os.O_CREAT | os.O_TRUNC, os.O_DIRECT):
                with opened(path, os.O_WRONLY | flags) as fd:
                    assert os.write(fd, value) == len(value)
                    assert os.write(fd, value) == len(value)
            run("sh", "-c", 'set -e; echo "$1" >"$2"; echo "$1" >>"$2"; echo "$1" | tee "$2"; echo "$1" | dd of="$2"',
                "sh", value.decode().strip(), path)
            with opened(path, os.O_RDWR) as fd:
                assert os.pread(fd, 100, 0) == value
                assert os.pwrite(fd, value, 100000) == len(value)
            assert file_bytes(path) == value
            assert os.truncate(path, 0) is None
            expect_errno(errno.EINVAL, os.truncate, path, 7)
        assert text_of(live, "last_error") == text_of(live, "disks", "web1.img", "last_error") == ""


def last_error_of(live, path):
    names = ["disks", "web1.img"] if "web1.img" in path else []
    sentence = text_of(live, *names, "last_error")
    assert sentence.endswith("\n") and sentence.count("\n") == 1 and sentence.isprintable() == (sentence == "")
    return sentence[:-1]


HOSTILE = [
    (b"\n", errno.EINVAL),
    (b"\n\n", errno.EINVAL),
    (b"nonsense", errno.EINVAL),
    (b"\0", errno.EINVAL),
    (b"direct\0", errno.EINVAL),
    (b"1\0 2\n", errno.EINVAL),
    (b"-1", errno.EINVAL),
    (b" 1", errno.EINVAL),
    (b"1 ", errno.EINVAL),
    (b"direct\n\n", errno.EINVAL),
    (b"DIRECT", errno.EINVAL),
    (b"99999999999999999999999999", errno.EINVAL),
    (b"\xff\xfe\x80\x1b[31m\r\t\\", errno.EINVAL),
    (b"%s%n%n%s", errno.EINVAL),
    (b"x" * COMMAND_BYTES_MAX, errno.EINVAL),
    (b"x" * (COMMAND_BYTES_MAX + 1), errno.EMSGSIZE),
    (b"x" * MIB, errno.EMSGSIZE),
    (b"\0" * (3 * MIB), errno.EMSGSIZE),
]


@pytest.mark.parametrize("text,number", HOSTILE, ids=[repr(text[:20]) + str(len(text)) for text, _ in HOSTILE])
def test_hostile_commands(mount, web1, text, number):
    """Refused with a sentence, and everything is as before."""
    with mount() as live:
        before = values_of(live, "config")
        for path in writable_files(live):
            if path.endswith("drain") and number != errno.EMSGSIZE and b"\0" not in text:
                continue
            assert errno_of(command, path, text) == number, path
            sentence = last_error_of(live, path)
            if number == errno.EMSGSIZE:
                assert str(COMMAND_BYTES_MAX) in sentence
            elif b"\0" in text:
                assert "zero byte" in sentence
            else:
                assert ("is no mode" if path.endswith("mode") else os.path.basename(path)) in sentence
            assert not re.search(r"[\0-\x1f\x7f]", sentence)
        assert values_of(live, "config") == before
        assert text_of(live, "disks", "web1.img", "mode") == "direct\n"
        assert command(live.control("tunables", "max_dirty_age"), b"77") == 2


def test_last_error_is_of_whom_it_concerns(mount, pool, base, web1):
    make_image(os.path.join(pool, "web2.leaf"), parent=base)
    with mount("manage") as live:
        assert errno_of(command, live.control("disks", "web1.img", "mode"), b"fast") == errno.EINVAL
        assert "fast" in text_of(live, "disks", "web1.img", "last_error")
        assert text_of(live, "disks", "web2.img", "last_error") == text_of(live, "last_error") == ""
        assert errno_of(command, live.control("tunables", "migrate_batch"), b"slow") == errno.EINVAL
        assert "slow" in text_of(live, "last_error") and "fast" in text_of(live, "disks", "web1.img", "last_error")
        command(live.control("disks", "web1.img", "mode"), b"direct")
        assert "fast" in text_of(live, "disks", "web1.img", "last_error")
        os.rename(live.file("web1.img"), live.file("web3.img"))
        make_image(os.path.join(pool, "web1.leaf"), parent=base)
        assert text_of(live, "disks", "web1.img", "last_error") == ""


def test_a_command_to_a_disk_that_is_gone(mount, web1):
    with mount("manage") as live, opened(live.control("disks", "web1.img", "mode"), os.O_WRONLY) as fd:
        os.unlink(live.file("web1.img"))
        assert os.listdir(live.control("disks")) == ["base.img"]
        assert errno_of(os.write, fd, b"direct") in (0, errno.ESTALE)
        assert text_of(live, "last_error") == ""


def test_a_read_only_mount_takes_no_commands(mount, web1):
    with mount("ro") as live:
        for path in writable_files(live):
            assert file_bytes(path) or os.path.basename(path) in EMPTY
            expect_errno(errno.EROFS, command, path, b"1")


def test_a_drain_with_nothing_dirty(mount, web1):
    with mount() as live:
        with opened(live.file("web1.img")) as fd:
            write_all(fd, b"x" * MIB, 0)
        for names in (["drain"], ["disks", "web1.img", "drain"]):
            for text in (b"1", b"\n", b"anything at all\n"):
                assert command(live.control(*names), text) == len(text)
            assert text_of(live, *names) == "0\n"
    assert "all changes" not in live.messages() and "left to write back" not in live.messages()


def test_events(mount, pool, web1):
    with mount() as live:
        command(live.control("tunables", "max_dirty_age"), b"7\n")
        with open(os.path.join(pool, "broken\nthing.leaf"), "wb") as file:
            file.write(b"no image")
        assert os.listdir(live.control("disks"))
        lines = text_of(live, "events").splitlines()
        assert all(re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z \S", line) for line in lines)
        messages = [line.split(" ", 1)[1] for line in lines]
        assert messages[:2] == [f"info - {pool} mounted on {live.path}", "info - max_dirty_age is 7 now"]
        for number in range(1, 301):
            command(live.control("tunables", "max_dirty_age"), str(number).encode())
        lines = text_of(live, "events").splitlines()
        assert len(lines) == 256
        assert [line.split(" ", 1)[1] for line in lines] == [f"info - max_dirty_age is {number} now"
                                                             for number in range(45, 301)]
        assert sorted(lines, key=lambda line: line.split(" ")[0]) == lines


def test_names_stay_as_they_are(mount, web1):
    with mount("manage") as live:
        inside = live.control("stats")
        for directory in (live.control(), live.control("disks"), live.control("disks", "web1.img")):
            new = os.path.join(directory, "new.img")
            expect_errno(errno.EPERM, os.mkdir, new)
            expect_errno(errno.EPERM, os.mknod, new)
            expect_errno(errno.EPERM, os.symlink, "target", new)
            expect_errno(errno.EPERM, os.link, live.control("version"), new)
            expect_errno(errno.EPERM, try_open, new, os.O_RDWR | os.O_CREAT)
            expect_errno(errno.EPERM, os.rename, live.file("web1.img"), new)
            expect_errno(errno.EPERM, os.rmdir, directory)
            expect_errno(errno.EPERM, os.rename, directory, live.file("new.img"))
        expect_errno(errno.EPERM, os.unlink, inside)
        expect_errno(errno.EPERM, os.rename, inside, live.file("new.img"))
        expect_errno(errno.EPERM, os.rename, inside, live.file("web1.img"))
        assert live.names() == ["base.img", "web1.img"]
        assert sorted(os.listdir(live.control())) == TOP


# ---- Whose it is -------------------------------------------------------------


def as_nobody(function):
    """What FUNCTION returns in a process of the user nobody."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY.pw_gid)
            os.setuid(NOBODY.pw_uid)
            os.write(writer, json.dumps(function()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return json.loads(said)


def errno_of(function, *arguments, **settings):
    try:
        function(*arguments, **settings)
    except OSError as error:
        return error.errno
    return 0


@contextlib.contextmanager
def passable(path):
    """Lets every user go to PATH."""
    modes = {}
    while path != "/":
        modes[path] = stat.S_IMODE(os.stat(path).st_mode)
        os.chmod(path, modes[path] | 0o011)
        path = os.path.dirname(path)
    try:
        yield
    finally:
        for name, mode in modes.items():
            os.chmod(name, mode)


def test_status_tells_other_users_why(mount, work, web1):
    tool = shutil.copy(program("leafctl"), os.path.join(work, "leafctl"))
    nobody = ["setpriv", f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups"]
    with mount("allow_other", "umask=0") as live, passable(work):
        size = os.path.getsize(live.file("web1.img"))
        run(*nobody, tool, "resize", live.file("web1.img"), "+1M")
        assert os.path.getsize(live.file("web1.img")) == size + MIB
        for path in (live.path, live.file("web1.img")):
            result = run(*nobody, tool, "status", path, check=False)
            assert result.returncode == 1 and result.stdout == ""
            assert "only the user who mounted it" in result.stderr and result.stderr.count("\n") == 1


def test_list_as_another_user(mount, work, pool, web1):
    """An image that one may not read is not broken."""
    tool = shutil.copy(program("leafctl"), os.path.join(work, "leafctl"))
    with mount("allow_other", "umask=0") as live, passable(pool):
        result = run("setpriv", f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups",
                     tool, "list", live.path)
    assert re.search(r"you may not look at: \S+/web1\.leaf: .*: Permission denied", result.stderr), result
    assert "broken" not in result.stderr and "not shown" not in result.stderr


# ---- Disks that come and go --------------------------------------------------


def test_an_image_that_appears_and_goes(mount, pool, base):
    with mount() as live:
        assert os.listdir(live.control("disks")) == ["base.img"]
        expect_errno(errno.ENOENT, os.stat, live.control("disks", "late.img"))
        late = make_image(os.path.join(pool, "late.leaf"), parent=base)
        assert values_of(live, "disks", "late.img", "info")["image"] == late
        assert sorted(os.listdir(live.control("disks"))) == ["base.img", "late.img"]
        with opened(live.control("disks", "late.img"), os.O_RDONLY | os.O_DIRECTORY) as directory:
            os.unlink(late)
            assert os.listdir(live.control("disks")) == ["base.img"]
            expect_errno(errno.ENOENT, os.stat, live.control("disks", "late.img", "info"))
            for name in DISK_FILES:
                assert errno_of(os.open, name, os.O_RDONLY, dir_fd=directory) in (errno.ENOENT, errno.ESTALE)
            # The number is not another disk's by now.
            make_image(late, parent=base)
            assert sorted(os.listdir(live.control("disks"))) == ["base.img", "late.img"]
            assert errno_of(os.open, "info", os.O_RDONLY, dir_fd=directory) in (errno.ENOENT, errno.ESTALE)
        assert values_of(live, "disks", "late.img", "info")["image"] == late


def test_a_renamed_disk(mount, pool, web1):
    with mount("manage") as live:
        number = os.stat(live.control("disks", "web1.img", "info")).st_ino
        os.rename(live.file("web1.img"), live.file("web2.img"))
        expect_errno(errno.ENOENT, os.stat, live.control("disks", "web1.img"))
        assert values_of(live, "disks", "web2.img", "info")["image"] == os.path.join(pool, "web2.leaf")
        assert os.stat(live.control("disks", "web2.img", "info")).st_ino == number


def test_a_chain_that_broke(mount, pool, base, web1):
    """Its state can still be asked, and there is a message about the rest."""
    with mount() as live, opened(live.control("disks", "web1.img"), os.O_RDONLY | os.O_DIRECTORY) as directory:
        os.rename(base, os.path.join(pool, "..", "away.raw"))
        assert errno_of(os.open, "chain", os.O_RDONLY, dir_fd=directory) in (errno.ENOENT, errno.ESTALE)
        wait_until(lambda: "base.raw" in live.messages(), "a message about base.raw")


# ---- All at once -------------------------------------------------------------


def read_some(live, rng, seconds_end):
    """Reads files at random; what is not there is no error, anything else is."""
    count = 0
    while not seconds_end.is_set():
        names = rng.choice([[rng.choice(TOP_FILES)],
                            ["disks", f"d{rng.randrange(6)}.img", rng.choice(DISK_FILES)]])
        try:
            assert file_bytes(live.control(*names)) or names[-1] in EMPTY, names
            if names[-1] == "drain":
                command(live.control(*names), b"1")
            count += 1
        except OSError as error:
            assert error.errno in (errno.ENOENT, errno.ESTALE), error
        if count % 16 == 0:
            with contextlib.suppress(FileNotFoundError):
                os.listdir(live.control("disks", "d0.img"))
            os.listdir(live.control("disks"))
    return count


def disturb(live, pool, base, rng, rounds):
    """Opens, writes and closes disks, and makes and removes images."""
    for _ in range(rounds):
        with opened(live.file(f"d{rng.randrange(4)}.img")) as fd:
            write_all(fd, b"x" * 100, rng.randrange(MIB))
        image = os.path.join(pool, f"d{rng.randrange(4, 6)}.leaf")
        if os.path.exists(image):
            os.unlink(image)
        else:
            make_image(image, parent=base)


@pytest.mark.parametrize("threads", [1, 3])
def test_many_at_once(mount, pool, base, rng, threads):
    for number in range(4):
        make_image(os.path.join(pool, f"d{number}.leaf"), parent=base)
    done = threading.Event()
    with mount(f"threads={threads}") as live, concurrent.futures.ThreadPoolExecutor(READERS) as executor:
        readers = [executor.submit(read_some, live, type(rng)(rng.random()), done) for _ in range(READERS)]
        try:
            disturb(live, pool, base, rng, scaled(60, 1000))
        finally:
            done.set()
        assert all(reader.result(60) > 0 for reader in readers)
        wait_until(lambda: all(values_of(live, "disks", f"d{number}.img", "info")["opens"] == "0"
                               for number in range(4)), "the closes")


def test_many_open_at_once(mount, web1):
    with mount() as live:
        files = [os.open(live.control("stats"), os.O_RDONLY) for _ in range(500)]
        assert all(json.loads(os.pread(fd, MIB, 0)) for fd in files)
        for fd in files:
            os.close(fd)


# ---- leafctl status ----------------------------------------------------------


def test_status_of_a_mount(mount, pool, web1):
    with mount() as live:
        with opened(live.file("web1.img"), os.O_RDWR | os.O_DIRECT) as fd:
            Aligned(BLOCK).write(fd, b"x" * BLOCK, 0)
        said = leafctl("status", live.path).stdout
        for words in (["version:", "leafdisk"], ["pool:", pool], ["mount:", live.path], ["web1.img", "2 MiB"],
                      ["write_bytes", str(BLOCK)], ["write_requests", "1"]):
            assert re.search(r"^" + r"\s+".join(map(re.escape, words)) + r"\b", said, re.M), (words, said)
        status = json.loads(leafctl("status", "--json", live.path).stdout)
        assert (status["pool"], status["mount"]) == (pool, live.path)
        assert status["version"] == text_of(live, "version").splitlines()[0]
        used = {disk["name"]: disk.pop("allocated_bytes") for disk in status["disks"]}
        assert status["disks"] == [{"name": name, "mode": "direct", "state": "active", "reason": None, "since": None,
                                    "dirty_bytes": 0, "dirty_age_ms": 0, "size_bytes": 2 * MIB, "opens": 0,
                                    "layers": layers, "owner": "none"}
                                   for name, layers in (("base.img", 1), ("web1.img", 2))]
        assert used["base.img"] >= 2 * MIB and used["web1.img"] > 0
        assert set(status["counters"]) == set(counters_of(live))
        assert status["counters"]["write_bytes"] == BLOCK


def test_status_of_a_file(mount, pool, web1):
    with mount() as live:
        said = leafctl("status", live.file("web1.img")).stdout
        fields = dict(re.split(r":\s+", line, maxsplit=1) for line in said.splitlines())
        info = values_of(live, "disks", "web1.img", "info")
        assert fields == {"disk": "web1.img", "mode": "direct", **ALL_WELL, **info}
        status = json.loads(leafctl("status", "--json", live.file("web1.img")).stdout)
        assert status == {"name": "web1.img", "mode": "direct", "state": "active", "reason": None, "since": None,
                          "dirty_bytes": 0, "dirty_age_ms": 0, "image": web1, "format": "leaf",
                          "size_bytes": 2 * MIB, "writable": True, "opens": 0,
                          "layers": 2, "owner": "none", "allocated_bytes": int(info["allocated_bytes"])}


def test_status_refuses_what_is_no_mount(mount, pool, work, web1):
    with mount() as live:
        for path, word in ((pool, "its mount is"), (web1, "neither"), (os.path.join(work, "nowhere"), "No such file"),
                           (live.file("nowhere.img"), "No such file"), (live.control(), "no disk"),
                           (live.control("stats"), "no disk")):
            result = leafctl("status", path, check=False)
            assert result.returncode == 1 and result.stdout == "" and word in result.stderr, result
        assert leafctl("status", check=False).returncode == 2
    assert leafctl("status", live.path, check=False).returncode == 1


# In a mount namespace of its own, where everything else ends with it.
BOUND = """
set -e
mount --make-rprivate /
touch "$work/bound"
mount --bind "$file" "$work/bound"
"$leafctl" status --json "$work/bound"
umount "$point"
! "$leafctl" status "$work/bound"
"""


@pytest.mark.alone
def test_status_of_a_file_that_is_bound_elsewhere(mount, work, web1):
    with mount() as live:
        result = run("unshare", "-m", "sh", "-c", BOUND,
                     env={"work": work, "file": live.file("web1.img"), "point": live.path,
                          "leafctl": program("leafctl")})
        assert json.loads(result.stdout)["name"] == "web1.img"
        assert "in part only" in result.stderr


def test_status_is_a_screen_wide(mount, pool, work):
    """A disk in writeback, open, dirty, with hits, on another."""
    base = make_raw(os.path.join(pool, "base.raw"), os.urandom(MIB))
    make_image(os.path.join(pool, "web17.leaf"), parent=base)
    with mount("mode=writeback", f"cache={work}/leaf.cache", "cache_size=32M", "max_dirty_age=86400", "migrate_threshold=100") as live:
        with opened(live.file("web17.img"), os.O_RDWR | os.O_DIRECT) as fd:
            memory = Aligned(MIB)
            for _ in range(2):
                memory.read(fd, MIB, 0)
            memory.write(fd, bytes(4 * KIB), 0)
            head, row = [line for line in leafctl("status", live.path).stdout.splitlines() if "chain" in line or "web17" in line]
            assert head.split() == ["name", "size", "chain", "mode", "state", "opens", "owner", "dirty", "hits"]
            assert re.fullmatch(r"web17\.img +1 MiB +2 +writeback +active +1 +here +4 KiB, [0-9.]+ m?s +50%", row), row
            assert len(row) <= 80
