"""What can be changed while a mount runs: as mount options, in the control tree,
and by leafctl set, mode and drain."""
import os
import re

import pytest

from harness import (BLOCK, KIB, MIB, MountError, control_values, leafctl, make_image, make_raw, opened, program, run,
                     write_all, write_conf)

# key: default, good values, bad values.
TUNABLES = {
    "copy_on_read": ("yes", ["no", "yes"], ["2", "perhaps"]),
    "read_run_bypass": (str(4 * MIB), ["0", "1048576"], ["-1", "1Q"]),
    "max_dirty": ("0", ["0", "1073741824"], ["-1", "lots", "16E"]),
    "max_dirty_age": ("30", ["1", "86400"], ["0", "86401", "30x"]),
    "migrate_idle_ms": ("200", ["1", "60000"], ["0", "60001", "1.5"]),
    "migrate_threshold": ("50", ["1", "100"], ["0", "101", "50%"]),
    "migrate_batch": ("4096", ["1", "16384"], ["0", "16385", "0x10"]),
    "barrier_deadline_ms": ("0", ["0", "1000"], ["1001", "-1"]),
}
DEFAULTS = {key: default for key, (default, _, _) in TUNABLES.items()}


@pytest.fixture
def web1(pool, rng):
    base = make_raw(os.path.join(pool, "base.raw"), rng.randbytes(MIB))
    return make_image(os.path.join(pool, "web1.leaf"), parent=base)


def text_of(live, *names):
    with open(live.control(*names), encoding="utf-8") as file:
        return file.read()


def tunables_of(live):
    return {key: text_of(live, "tunables", key)[:-1] for key in os.listdir(live.control("tunables"))}


def config_of(live):
    return dict(line.split(": ", 1) for line in text_of(live, "config").splitlines())


def put(live, key, value):
    with open(live.control("tunables", key), "w", encoding="ascii") as file:
        file.write(f"{value}\n")


# ---- As mount options --------------------------------------------------------


def test_defaults(mount, web1):
    with mount() as live:
        assert tunables_of(live) == DEFAULTS
        config = config_of(live)
        assert {key: config[key] for key in TUNABLES} == DEFAULTS
        assert config["drain"] == "yes"


@pytest.mark.parametrize("key", TUNABLES)
def test_each_is_a_mount_option(mount, web1, cache, key):
    for value in TUNABLES[key][1]:
        with mount(f"{key}={value}", f"cache={cache}", "cache_size=16M") as live:
            assert tunables_of(live) == {**DEFAULTS, key: value}
            assert config_of(live)[key] == value


@pytest.mark.parametrize("key", TUNABLES)
def test_a_bad_value_is_refused_before_the_mount(mount, web1, key):
    for value in TUNABLES[key][2]:
        with pytest.raises(MountError) as refused:
            mount(f"{key}={value}")
        assert refused.value.status == 1
        assert re.search(rf'option "{key}": "{re.escape(value)}" is (not (a |yes)|too (small|large), expected is a )', refused.value.messages)


def test_sizes_take_suffixes(mount, web1, cache):
    with mount("max_dirty=2G", "read_run_bypass=64K", f"cache={cache}", "cache_size=16M") as live:
        assert config_of(live)["max_dirty"] == str(2 << 30)
        put(live, "max_dirty", "1T")
        assert config_of(live)["max_dirty"] == text_of(live, "tunables", "max_dirty").strip() == str(1 << 40)


def test_in_the_configuration_file(mount, work, web1, cache):
    conf = write_conf(work, "[pool]\nmax_dirty_age = 7\nmigrate_batch = 9\ndrain = no\n")
    with mount(f"conf={conf}", "migrate_batch=10", f"cache={cache}", "cache_size=16M") as live:
        assert tunables_of(live) == {**DEFAULTS, "max_dirty_age": "7", "migrate_batch": "10"}
        assert config_of(live)["drain"] == "no"


@pytest.mark.parametrize("option,shown", [("nodrain", "no"), ("drain", "yes"), ("drain=no", "no")])
def test_drain_is_an_option(mount, web1, option, shown):
    with mount(option) as live:
        assert config_of(live)["drain"] == shown


def test_help_lists_them():
    said = run(program("leafdisk"), "--help").stdout
    for key in [*TUNABLES, "drain"]:
        assert re.search(rf"^    (\[no\])?{key}(=\S+)?  +\S", said, re.M), key
    assert re.search(r"^    mode=direct\|persistent\|ephemeral\|writeback  ", said, re.M)


def test_mode_writeback(mount, work, web1):
    with mount("mode=writeback", f"cache={work}/cache", "cache_size=8M") as live:
        assert leafctl("mode", live.file("web1.img")).stdout == "writeback\n"
        with opened(live.file("web1.img")) as fd:
            write_all(fd, b"x" * 5000, 100)
            os.fsync(fd)
        leafctl("drain", live.path)
        assert text_of(live, "drain") == text_of(live, "disks", "web1.img", "drain") == "0\n"
    with pytest.raises(MountError) as refused:
        mount("mode=writeback")
    assert refused.value.status == 1 and "cache" in refused.value.messages


# ---- While the mount runs ----------------------------------------------------


@pytest.mark.parametrize("key", TUNABLES)
def test_each_can_be_changed(mount, web1, key):
    with mount() as live:
        for value in TUNABLES[key][1]:
            put(live, key, value)
            assert tunables_of(live) == {**DEFAULTS, key: value}
            assert config_of(live)[key] == value
            assert f"{key} is {value} now" in text_of(live, "events")
        good = config_of(live)
        for value in TUNABLES[key][2]:
            with pytest.raises(OSError, match=r"Errno 22\b"):
                put(live, key, value)
            assert re.match(rf'option "{key}": "{re.escape(value)}" is (not (a |yes)|too (small|large), expected is a )', text_of(live, "last_error"))
        assert config_of(live) == good


def test_a_change_ends_with_the_mount(mount, web1):
    with mount() as live:
        put(live, "max_dirty_age", 5)
    with mount() as live:
        assert tunables_of(live) == DEFAULTS


def test_set(mount, web1):
    with mount() as live:
        listed = leafctl("set", live.path).stdout.splitlines()
        assert listed == sorted(f"{key}={value}" for key, value in DEFAULTS.items())
        assert leafctl("set", live.path, "max_dirty=1G", "max_dirty_age=5").stdout == ""
        changed = {**DEFAULTS, "max_dirty": str(1 << 30), "max_dirty_age": "5"}
        assert tunables_of(live) == changed
        assert leafctl("set", live.path, *listed).stdout == ""
        assert tunables_of(live) == DEFAULTS


def refused(words, status, sentence):
    result = leafctl(*words, check=False)
    assert (result.returncode, result.stdout) == (status, ""), result
    assert sentence in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_set_refuses(mount, pool, web1):
    with mount() as live:
        refused(["set", live.path, "max_dirty_age=0"], 1, 'option "max_dirty_age": "0" is too small, expected is a time from 1s to 1d')
        refused(["set", live.path, "max_dirty_age="], 1, 'option "max_dirty_age": "" is not')
        refused(["set", live.path, "max_dirty_age=5\n6"], 1, "is not")
        refused(["set", live.path, "max_dirty_age=" + "5" * 5000], 1, "expected up to 4096")
        refused(["set", live.path, "threads=2"], 1, '"threads" cannot be set; known are: barrier_deadline_ms, ')
        refused(["set", live.path, "../drain=1"], 1, '"../drain" cannot be set')
        refused(["set", live.path, "=1"], 1, '"" cannot be set')
        refused(["set", live.path, "max_dirty_age"], 2, '"max_dirty_age" is not KEY=VALUE')
        refused(["set", live.file("web1.img"), "max_dirty_age=5"], 1, f"expected the mount itself, {live.path}")
        refused(["set", pool, "max_dirty_age=5"], 1, f"is a pool; its mount is {live.path}")
        assert tunables_of(live) == DEFAULTS
        refused(["set", live.path, "max_dirty_age=5", "migrate_batch=0", "migrate_idle_ms=7"], 1, "migrate_batch")
        assert tunables_of(live) == {**DEFAULTS, "max_dirty_age": "5"}
    refused(["set"], 2, "expected: leafctl set")


# ---- Modes and draining ------------------------------------------------------


def test_mode(mount, work, web1):
    with mount("mode=persistent", f"cache={work}/cache", "cache_size=8M") as live, opened(live.file("web1.img")) as fd:
        disk = live.file("web1.img")
        for mode in ("writeback", "direct", "persistent", "persistent"):
            assert leafctl("mode", disk, mode).stdout == ""
            assert leafctl("mode", disk).stdout == text_of(live, "disks", "web1.img", "mode") == f"{mode}\n"
            write_all(fd, mode.encode(), 5000)
            os.fsync(fd)
            assert os.pread(fd, len(mode), 5000) == mode.encode()
        assert [line.split(" ", 1)[1] for line in text_of(live, "events").splitlines() if "web1.img mode" in line] == [
            "info web1.img mode writeback now, was persistent", "info web1.img mode direct now, was writeback",
            "info web1.img mode persistent now, was direct"]


@pytest.mark.parametrize("mode", ["direct", "persistent", "ephemeral", "writeback"])
def test_mode_that_it_has_already(mount, work, web1, mode):
    """No change, for a disk in use as for any other, with a cache or without."""
    options = ["mode=" + mode, f"cache={work}/cache", "cache_size=8M"] if mode != "direct" else []
    with mount(*options) as live, opened(live.file("web1.img")) as fd:
        write_all(fd, b"still there", 5000)
        assert leafctl("mode", live.file("web1.img"), mode).stdout == ""
        assert leafctl("mode", live.file("web1.img")).stdout == f"{mode}\n"
        assert os.pread(fd, 11, 5000) == b"still there"
        write_all(fd, b"and goes on", 5000)


def test_mode_refuses(mount, pool, web1):
    with mount() as live:
        disk = live.file("web1.img")
        refused(["mode", disk, "fast"], 1,
                '"fast" is no mode; expected one of: direct, persistent, ephemeral, writeback')
        refused(["mode", disk, ""], 1, '"" is no mode')
        refused(["mode", disk, "persistent"], 1, "needs a cache: mount the pool with -o cache=FILE")
        refused(["mode", disk, "ephemeral"], 1, "needs a cache: mount the pool with -o mode=ephemeral, which makes one for "
                "itself, or with -o cache=FILE")
        refused(["mode", live.path], 1, "is no disk")
        refused(["mode", live.control("stats"), "direct"], 1, "is no disk")
        refused(["mode", web1], 1, "neither")
        refused(["mode", os.path.join(pool, "nowhere.img")], 1, "No such file")
        assert leafctl("mode", disk).stdout == "direct\n"
    refused(["mode"], 2, "expected: leafctl mode")
    refused(["mode", "a", "b", "c"], 2, "expected: leafctl mode")


def test_drain_refuses(mount, pool, web1):
    with mount() as live:
        for path in (live.path, live.file("web1.img")):
            assert (leafctl("drain", path).stdout, leafctl("drain", path).stderr) == ("", "")
        refused(["drain", live.control("stats")], 1, "is no disk")
        refused(["drain", pool], 1, f"is a pool; its mount is {live.path}")
        refused(["drain", live.file("nowhere.img")], 1, "No such file")
        refused(["drain", live.path, live.path], 2, "expected: leafctl drain")
    refused(["drain"], 2, "expected: leafctl drain")
    refused(["drain", live.path], 1, "neither")


def test_verbs_on_a_read_only_mount(mount, web1):
    with mount("ro") as live:
        assert leafctl("set", live.path).stdout.startswith("barrier_deadline_ms=0\n")
        refused(["set", live.path, "max_dirty_age=5"], 1, "Read-only file system")


def test_cache_drain_refuses(work):
    refused(["cache", "drain"], 2, "expected: leafctl cache drain [--layers DIR[:DIR]] CACHE")
    refused(["cache", "drain", "a", "b"], 2, "expected: leafctl cache drain [--layers DIR[:DIR]] CACHE")
    refused(["cache", "drain", os.path.join(work, "nowhere")], 1, "nowhere")


def test_less_than_a_block_may_be_dirty(mount, pool, work):
    """It is rounded up, not down to what means no limit."""
    make_raw(os.path.join(pool, "web1.raw"), bytes(MIB))
    options = [f"cache={os.path.join(work, 'leaf.cache')}", "mode=writeback", "cache_size=16M"]
    with mount(*options, "max_dirty=2K") as live:
        assert control_values(live, "cache", "info")["dirty_bytes_max"] == str(BLOCK)
        leafctl("set", live.path, "max_dirty=1")
        assert control_values(live, "cache", "info")["dirty_bytes_max"] == str(BLOCK)
        with opened(live.file("web1.img")) as fd:
            write_all(fd, b"x" * 64 * KIB, 0)
            os.fsync(fd)
