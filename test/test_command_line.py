"""What is typed wrong is answered with what was meant."""
import grp
import os
import pwd
import re
import signal
import unicodedata

import pytest

from harness import MIB, halt, leafctl, make_image, opened, program, run, write_all

USAGE = 2

MEANT = [
    (("inof", "x"), 'there is no verb "inof"; did you mean "info"?'),
    (("cache", "inf", "x"), 'there is no verb "cache inf"; did you mean "cache info"?'),
    (("snip",), 'there is no verb "snip"; leafctl help lists them'),
    (("help", "lst"), 'there is no verb "lst"; did you mean "list"?'),
    (("list", "--jsno", "x"), 'option "--jsno" is not known here; did you mean "--json"?'),
    (("list", "--json=1", "x"), 'option "--json" takes no value'),
    (("create", "x.raw", "16E"), '"16E" is too large for a size (like 10G)'),
    (("create", "x.raw", "10 G"), '"10 G" is not a size above 0 (like 10G)'),
    (("resize", "x.raw", "+1e9"), '"+1e9" is not a size above 0 (like 10G, +1G or -1G)'),
    (("create", "-c", "99999999T", "x.leaf", "1G"), 'option --chunk: "99999999T" is too large for a size'),
    (("ls", "pool"), 'there is no verb "ls"; did you mean "list"?'),
    (("rollback", "web1.img"), 'there is no verb "rollback"; did you mean "revert"?'),
    (("grow", "web1.img", "+1G"), 'there is no verb "grow"; did you mean "resize"?'),
    (("mv", "web1.img", "www.img"), 'there is no verb "mv"; mv(1) renames an image'),
    (("mount", "pool", "mnt"), 'there is no verb "mount"; a pool is mounted by: leafdisk POOL MOUNTPOINT'),
    (("list", "-x", "x"), 'option "-x" is not known here ('),
]


@pytest.mark.parametrize("words,answer", MEANT)
def test_leafctl_knows_what_was_meant(words, answer):
    result = leafctl(*words, check=False)
    assert result.returncode == USAGE and answer in result.stderr and result.stdout == ""


@pytest.mark.parametrize("words,status,answer", [
    (("-o", "cahce=/ssd/x"), 1, 'unknown mount option "cahce=/ssd/x"; did you mean "cache"?'),
    (("-o", "alow_other"), 1, 'unknown mount option "alow_other"; did you mean "allow_other"?'),
    (("-o", "rootcontxt=x"), 1, 'did you mean "rootcontext="?'),
    (("-o", 'rootcontxt="x:c1,c2",ro'), 1, 'unknown mount option "rootcontxt="x:c1\\,c2""; did you mean "rootcontext="?'),
    (("-o", "quick"), 1, 'unknown mount option "quick"; leafdisk --help lists'),
    (("-o", "cache_size=99999999T"), 1, '"99999999T" is too large, expected is a size of 8 MiB or more'),
    (("-o", "io_timeout=2d"), 1, '"2d" is too large, expected is a time from 1s to 1d (like 30s or 5m'),
    (("-o", "uid=nobody-here"), 1, '"nobody-here" is not the name of a user of this host, or a number'),
    (("--cache=/ssd/x",), USAGE, '"--cache=/ssd/x" is a mount option: write -o cache=/ssd/x'),
    (("--mode", "direct"), USAGE, '"--mode" is a mount option: write -o mode=VALUE'),
    (("mode=direct",), USAGE, ': a pool and a mountpoint are needed, and nothing else; mount options are written -o'),
    (("--ro",), USAGE, '"--ro" is a mount option: write -o ro'),
])
def test_leafdisk_knows_what_was_meant(pool, work, words, status, answer):
    result = run(program("leafdisk"), *words, pool, work, check=False)
    assert result.returncode == status and answer in result.stderr, result


def test_a_key_of_the_configuration(pool, work):
    path = os.path.join(work, "conf")
    with open(path, "w", encoding="ascii") as file:
        file.write("[pool]\nthread = 2\n")
    result = run(program("leafdisk"), pool, work, "-o", f"conf={path}", check=False)
    assert result.returncode == 1 and 'unknown option "thread"; did you mean "threads"?' in result.stderr


@pytest.mark.parametrize("group,has_mountpoint", [("pool", False), ("pool /", True)])
def test_keys_that_a_group_may_have(pool, work, group, has_mountpoint):
    """What is called known is taken there."""
    path = os.path.join(work, "conf")
    group += pool.lstrip("/") if has_mountpoint else ""
    with open(path, "w", encoding="ascii") as file:
        file.write(f"[{group}]\nquick_and_dirty = 1\n")
    said = run(program("leafdisk"), pool, work, "-o", f"conf={path}", check=False).stderr
    known = said.split("; known are: ")[1].strip().split(", ")
    assert "threads" in known and "conf" not in known and ("mountpoint" in known) == has_mountpoint, said


def test_a_comment_behind_a_value(mount, pool, work):
    path = os.path.join(work, "conf")
    cache = os.path.join(work, "leaf.cache")
    for text, said in ((" # fast", "a comment has a line of its own"), ("\t#fast", "a comment has a line of its own"),
                       ("\\s#fast", "")):
        with open(path, "w", encoding="ascii") as file:
            file.write(f"[pool]\ncache = {cache}{text}\ncache_size = 8M\n")
        result = run(program("leafdisk"), pool, work, "-o", f"conf={path}", check=False)
        assert result.returncode == 1 and said in result.stderr and os.listdir(work).count("leaf.cache") == 0
    with mount(f"conf={path}"):
        assert os.path.exists(f"{cache} #fast")


def test_a_pool_for_its_mount(mount, pool):
    with mount() as live:
        for verb in ("status", "drain", "umount", "set"):
            result = leafctl(verb, pool, check=False)
            assert result.returncode == 1 and f"{pool} is a pool; its mount is {live.path}\n" in result.stderr
    assert "is neither a leafdisk mount" in leafctl("status", pool, check=False).stderr


def test_what_is_no_disk_has_no_snapshots(mount, pool):
    make_image(os.path.join(pool, "web1.leaf"), "1M")
    with mount() as live:
        for words in (["snapshots", live.control("stats")], ["snapshot", live.control("stats"), "monday"],
                      ["fork", live.path, "web2.img"]):
            done = leafctl(*words, check=False)
            assert (done.returncode, done.stdout) == (1, "") and "is no disk; expected a" in done.stderr, done
        done = leafctl("fork", live.file("web1.img"), live.control("web2.img"), check=False)
        assert done.returncode == 1 and f"expected the mount itself, {live.path}" in done.stderr, done
        assert live.names() == ["web1.img"]


def refused(*words):
    done = leafctl(*words, check=False)
    assert done.returncode != 0 and done.stdout == "", done
    return done.stderr


def test_a_name_that_is_not_there(mount, pool, work, cache):
    """Of a disk, an image, a pool, a mount, a snapshot: with the one that was meant, as it is to be typed."""
    image = make_image(os.path.join(pool, "web1.leaf"), MIB)
    wrong = os.path.join(pool, "wbe1.leaf")
    missing = os.path.join(work, "p0ol")
    with mount(f"cache={cache}") as live:
        disk = live.file("web1.img")
        leafctl("snapshot", disk, "monday")
        for words in (["status", live.file("wbe1.img")], ["status", live.file("web1")], ["mode", live.file("wbe1.img")],
                      ["info", live.file("wbe1.img")], ["resize", live.file("wbe1.img"), "+1M"],
                      ["snapshot", live.file("wbe1.img"), "tuesday"], ["convert", live.file("wbe1.img"), "x.raw"]):
            assert f'; did you mean "{disk}"?\n' in refused(*words), words
        for verb in ("delete", "revert"):
            assert 'web1.img: has no snapshot mondya; did you mean "monday"?' in refused(verb, disk, "mondya")
        assert "did you mean" not in refused("delete", disk, "easter")
        assert f'did you mean "{live.path}"?' in refused("drain", live.path + "x")
    for words in (["info", wrong], ["map", wrong], ["check", wrong], ["resize", wrong, "+1M"], ["rebase", "--accept", wrong],
                  ["clone", wrong, os.path.join(pool, "x.leaf")], ["info", wrong[:-5]]):
        assert f'; did you mean "{image}"?\n' in refused(*words), words
    for name in ("wbe1", "wbe1.img", "wbe1.leaf"):
        assert '; did you mean "web1.leaf"?' in refused("unlock", pool, name)
    assert f'; did you mean "{cache}"?' in refused("cache", "info", cache + "e")
    assert f'; did you mean "{pool}"?' in refused("list", missing)
    assert "did you mean" not in refused("list", os.path.join(pool, "nothing", "near"))
    for words, meant in (([missing, work], pool), ([pool, live.path + "x"], live.path)):
        said = run(program("leafdisk"), *words, check=False)
        assert said.returncode == 1 and f'cannot be used: No such file or directory; did you mean "{meant}"?' in said.stderr


def test_a_disk_by_its_name_alone(mount, pool):
    make_image(os.path.join(pool, "only-here-1.leaf"), MIB)
    with mount() as live:
        for words in (["snapshot", "only-here-1", "monday"], ["snapshots", "only-here-1.img"], ["status", "only-here-1"]):
            assert f'is no file here; did you mean "{live.file("only-here-1.img")}"?' in refused(*words), words
        assert '"mode" is each disk\'s own: leafctl mode FILE MODE' in refused("set", live.path, "mode=direct")
    assert "cannot be looked at: No such file or directory" in refused("status", "only-here-1")


def test_a_disk_that_several_mounts_have(mount, pool):
    """None is guessed at, and one whose daemon hangs holds up nobody."""
    make_image(os.path.join(pool, "not-only-here.leaf"), MIB)
    with mount() as live, mount() as other:
        assert "did you mean" not in refused("status", "not-only-here.img")
        halt(other.pid)
        try:
            refused("status", "not-only-here.img")
            leafctl("snapshot", live.file("not-only-here.img"), "monday", timeout=60)
        finally:
            os.kill(other.pid, signal.SIGCONT)


def test_what_a_cache_has_by_a_wrong_name(mount, pool, cache):
    make_image(os.path.join(pool, "web1.leaf"), MIB)
    live = mount(f"cache={cache}", "mode=writeback", "migrate_idle_ms=60000", "max_dirty_age=86400")
    with opened(live.file("web1.img")) as fd:
        write_all(fd, b"dirty", 0)
        os.fsync(fd)
    live.kill9()
    for verb in ("adopt", "purge"):
        assert 'has no changes of a layer "wbe1.leaf"; did you mean "web1.leaf"?' in refused("cache", verb, cache, "wbe1.leaf")
        assert 'of a layer "base"; leafctl cache info lists them' in refused("cache", verb, cache, "base")


def test_names_in_another_order(mount, pool, work):
    """Where it cannot be right; nothing is done, and the command that was meant is shown."""
    base = make_image(os.path.join(pool, "base.raw"), MIB)
    make_image(os.path.join(pool, "web1.leaf"), MIB)
    make_image(os.path.join(pool, "web2.leaf"), MIB)
    new = os.path.join(pool, "new.leaf")
    with mount() as live:
        disks = [live.file("web1.img"), live.file("web2.img")]
        for words, meant in ((["snapshot", "monday", disks[0]], ["snapshot", disks[0], "monday"]),
                             (["snapshot", disks[0], "monday", disks[1]], ["snapshot", *disks, "monday"]),
                             (["snapshot", *disks], ["snapshot", *disks, "NAME"]),
                             (["revert", "monday", disks[0]], ["revert", disks[0], "monday"]),
                             (["delete", "a day", disks[0]], ["delete", disks[0], "'a day'"]),
                             (["fork", "web3", "web4", disks[1]], ["fork", disks[1], "web3", "web4"]),
                             (["mode", "direct", disks[0]], ["mode", disks[0], "direct"]),
                             (["clone", new, base], ["clone", base, new]),
                             (["convert", new, base], ["convert", base, new]),
                             (["unlock", "web1.img", pool], ["unlock", pool, "web1.img"])):
            done = leafctl(*words, check=False)
            assert done.returncode == USAGE and f'; did you mean "leafctl {" ".join(meant)}"?' in done.stderr, done
        assert leafctl("snapshots", live.path).stdout == "" and live.names() == ["base.img", "web1.img", "web2.img"]
        assert sorted(name for name in os.listdir(pool) if name[0] != ".") == ["base.raw", "web1.leaf", "web2.leaf"]


def test_a_resize_that_is_refused_says_why(mount, pool):
    """Of a disk that another mount has open."""
    make_image(os.path.join(pool, "web1.leaf"), MIB)
    with mount() as live:
        with mount() as other, opened(other.file("web1.img")):
            result = leafctl("resize", live.file("web1.img"), "+1M", check=False)
            assert result.returncode == 1 and f"(pid {other.pid}" in result.stderr
        leafctl("resize", live.file("web1.img"), "+1M")
        assert os.path.getsize(live.file("web1.img")) == 2 * MIB


def test_a_cache_of_no_possible_size(pool, work):
    result = leafctl("cache", "create", "--pool", pool, "--size", "1M", os.path.join(work, "x"), check=False)
    assert result.returncode == 1 and "a cache of 1 MiB is not possible, only of 8 MiB to 16 TiB" in result.stderr


def test_help(pool):
    everything = leafctl("help").stdout
    assert leafctl("--help").stdout == everything and "    cache info    " in everything
    of_list = leafctl("list", "--help").stdout
    assert leafctl("help", "list").stdout == leafctl("-h", "list").stdout == of_list
    assert leafctl("help", "cache", "info").stdout == leafctl("cache", "info", "-h").stdout
    group = leafctl("help", "cache").stdout
    assert leafctl("cache", "--help").stdout == group and "cache adopt" in group and "resize" not in group
    alone = leafctl("cache", check=False)
    assert alone.returncode == USAGE and alone.stderr == group
    assert leafctl("--json", "list", pool).stdout == leafctl("list", "--json", pool).stdout


def test_sizes_times_and_users(mount, pool):
    """As they are typed elsewhere."""
    image = os.path.join(pool, "web1.raw")
    leafctl("create", image, "1.5M")
    assert os.path.getsize(image) == 3 << 19
    assert "not the last 65 bytes of" in leafctl("create", os.path.join(pool, "odd.raw"), "1000001").stderr
    with mount("uid=daemon", "gid=daemon", "io_timeout=5m") as live:
        user = pwd.getpwnam("daemon")
        found = os.stat(live.file("web1.img"))
        assert (found.st_uid, found.st_gid) == (user.pw_uid, grp.getgrnam("daemon").gr_gid)
        with open(live.control("config"), encoding="utf-8") as file:
            assert "io_timeout: 300\n" in file.read()
        leafctl("set", live.path, "max_dirty_age=2m")
        assert "max_dirty_age=120\n" in leafctl("set", live.path).stdout


def width(text):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def test_tables_are_as_wide_as_they_need_be(mount, pool, cache):
    base = make_image(os.path.join(pool, "base.leaf"), "1M")
    for name in ("gr\u00f6\u00dfe.leaf", "\u65e5\u672c.leaf"):
        make_image(os.path.join(pool, name), parent=base)
    make_image(os.path.join(pool, "z.leaf"), parent=os.path.join(pool, "\u65e5\u672c.leaf"))
    listed = leafctl("list", pool).stdout.splitlines()
    last = listed[0].index("parent")
    for line in listed[1:]:
        name, parent = line.split()[0], line.split()[-1]
        assert width(line) == last + width(parent) and width(line) <= 80, line
        assert parent == {"base.img": "-", "z.img": "\u65e5\u672c.leaf"}.get(name, "base.leaf")
    with mount(f"cache={cache}", "cache_size=16M", "mode=writeback", "max_dirty_age=86400", "migrate_idle_ms=60000") as live:
        with opened(live.file("z.img")) as fd:
            write_all(fd, b"x" * MIB, 0)
            os.fsync(fd)
            said = leafctl("status", live.path).stdout
            watched = run("timeout", "-s", "INT", "0.5", program("leafctl"), "status", "--watch", live.path, check=False)
    assert re.search(rf"^cache: +{re.escape(cache)}, 16 MiB, \d+ % used, 1 MiB dirty", said, re.M), said
    (z,) = [line for line in said.splitlines() if line.startswith("z.img")]
    cells = re.split("  +", z)
    assert cells[1] == "1 MiB" and cells[5:7] == ["1", "here"] and cells[7].startswith("1 MiB, "), z
    assert max(width(line) for line in said.splitlines() if "/" not in line) <= 80
    assert "z.img" in watched.stdout


def test_tree(pool):
    base = make_image(os.path.join(pool, "base.leaf"), "1M")
    a = make_image(os.path.join(pool, "a.leaf"), parent=base)
    make_image(os.path.join(pool, "a1.leaf"), parent=a)
    make_image(os.path.join(pool, "b.leaf"), parent=base)
    make_image(os.path.join(pool, "lone.leaf"), "1M")
    lines = leafctl("list", "--tree", pool).stdout.splitlines()[1:]
    assert [re.split("  +", line.replace("\u2502  ", "|"))[0].rstrip() for line in lines] == [
        "base.leaf", "\u251c\u2500 a.leaf", "|\u2514\u2500 a1.leaf", "\u2514\u2500 b.leaf", "lone.leaf"]


def test_a_broken_image_is_named(pool):
    """Also where what is wrong is further down."""
    base = make_image(os.path.join(pool, "base.leaf"), "1M")
    middle = make_image(os.path.join(pool, "middle.leaf"), parent=base)
    for name in ("a.leaf", "b.leaf"):
        make_image(os.path.join(pool, name), parent=middle)
    os.rename(base, os.path.join(pool, ".away"))
    said = leafctl("list", pool).stderr.splitlines()
    trouble = (f"{middle}: its parent {base}: cannot be found: No such file or directory; bring it back to that path, or "
               "make a link there that leads to it")
    assert sorted(said) == [f"leafctl: not shown: {line}" for line in (trouble, f"a.leaf: {trouble}", f"b.leaf: {trouble}")]
