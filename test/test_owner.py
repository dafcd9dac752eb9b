"""Ownership of writable disks: who may write an image, and who is told what."""
import errno
import fcntl
import functools
import os
import re
import socket
import stat
import struct
import time

import pytest

from harness import (BLOCK, CRASH_STATUS, MIB, Gate, Loop, check_clean, expect_errno, faults, file_bytes, leafctl,
                     make_image, make_raw, opened, read_all, run, state_of, unmount, wait_until, write_all, write_conf)

NO_ID = "0" * 32
OTHER_ID = "0123456789abcdef" * 2
KEYS = {"host", "boot_id", "machine_id", "pid", "pid_start", "pid_namespace", "mount_id", "cache_id", "cache_path",
        "cache_generation", "generation", "nonce", "ended", "inode", "born", "unmarked", "mode", "clean", "since"}


@pytest.fixture
def web1(pool):
    return make_image(os.path.join(pool, "web1.leaf"), 2 * MIB)


def directory_of(pool):
    return os.path.join(pool, ".leafdisk", "owners")


def record_path(pool, name="web1.leaf"):
    return os.path.join(directory_of(pool), name)


def record_of(pool, name="web1.leaf"):
    with open(record_path(pool, name), encoding="ascii") as file:
        head, *lines = file.read().splitlines()
    assert head == "[owner]"
    return dict(line.split("=", 1) for line in lines)


def write_text(pool, content, name="web1.leaf"):
    os.makedirs(directory_of(pool), mode=0o700, exist_ok=True)
    with open(record_path(pool, name), "wb") as file:
        file.write(content)


def write_record(pool, name="web1.leaf", **fields):
    """By default what a daemon of another host leaves, killed in direct mode."""
    record = {"host": "elsewhere", "boot_id": "another-boot", "pid": "77", "mount_id": OTHER_ID, "cache_id": NO_ID,
              "cache_path": "", "generation": "5", "mode": "direct", "clean": "false",
              "since": "2026-01-02T03:04:05Z", **fields}
    text = "\n".join(["[owner]", *(f"{key}={value}" for key, value in record.items()), ""])
    write_text(pool, text.encode(), name)
    return record


def in_a_cache(pool, **fields):
    return write_record(pool, mode="writeback", cache_id=OTHER_ID, cache_path="/ssd/other.cache", **fields)


def boot_id():
    return file_bytes("/proc/sys/kernel/random/boot_id").decode().strip()


def info_of(live, name="web1.img"):
    with open(live.control("disks", name, "info"), encoding="utf-8") as file:
        return file.read()


def owner_line(live, name="web1.img"):
    return re.search(r"^owner: (.*)$", info_of(live, name), re.M).group(1)


def use(live, name="web1.img", data=b"x" * BLOCK):
    with opened(live.file(name)) as fd:
        write_all(fd, data, 0)


def refusal(live, name="web1.img", flags=os.O_RDWR):
    """What the daemon says when it does not open a disk."""
    expect_errno(errno.EBUSY, os.open, live.file(name), flags)
    return live.messages().splitlines()[-1]


def refused(*words):
    result = leafctl(*words, check=False)
    assert result.returncode == 1, result.stdout + result.stderr
    return result.stderr


def wait_released(pool, name="web1.leaf"):
    """The kernel closes a file after close() has returned."""
    wait_until(lambda: record_of(pool, name)["clean"] == "true", "the release")


# ---- While all goes well ------------------------------------------------------


@pytest.mark.parametrize("mode", ["direct", "persistent"])
def test_record_of_a_disk_in_use(mount, pool, work, web1, mode):
    cache = os.path.join(work, "pool.cache")
    options = [f"cache={cache}", "cache_size=8M"] if mode == "persistent" else []
    with mount(*options) as live:
        with opened(live.file("web1.img"), os.O_RDONLY) as fd:
            read_all(fd, BLOCK, 0)
            assert not os.path.exists(os.path.join(pool, ".leafdisk")), "nothing was opened for writing"
        with opened(live.file("web1.img")):
            record = record_of(pool)
            assert set(record) == KEYS
            assert (record["host"], record["boot_id"]) == (socket.gethostname(), boot_id())
            assert (record["pid"], record["mode"], record["clean"]) == (str(live.pid), mode, "false")
            assert re.fullmatch("[0-9a-f]{32}", record["mount_id"]) and record["mount_id"] != NO_ID
            assert record["cache_path"] == (cache if mode == "persistent" else "")
            assert (record["cache_id"] != NO_ID) == (mode == "persistent")
            assert abs(time.time() - time.mktime(time.strptime(record["since"], "%Y-%m-%dT%H:%M:%SZ"))
                       + time.timezone) < 300
            assert owner_line(live) == "this mount"
            assert os.listdir(directory_of(pool)) == ["web1.leaf"]
            assert stat.S_IMODE(os.stat(record_path(pool)).st_mode) == 0o600
            for directory in (directory_of(pool), os.path.dirname(directory_of(pool))):
                assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
        wait_released(pool)
        assert owner_line(live) == "none"
        use(live)
    after = record_of(pool)
    changed = {key: after[key] for key in ("generation", "since", "nonce")}
    assert after == {**record, "clean": "true", "ended": record["nonce"], **changed}
    assert after["nonce"] not in (record["nonce"], NO_ID), "each claim has its own"
    assert int(after["generation"]) > int(record["generation"])
    if mode == "persistent":
        uuid = re.search(r"uuid:\s+(\S+)", leafctl("cache", "info", cache).stdout).group(1)
        assert uuid.replace("-", "") == record["cache_id"]
    check_clean(web1)


def test_each_claim_raises_the_generation(mount, pool, web1):
    """Above the image's, and above a record's that is ahead of it."""
    seen = []
    for _ in range(3):
        with mount() as live:
            use(live)
        seen.append(int(record_of(pool)["generation"]))
        image = int(re.search(r"generation:\s+(\d+)", leafctl("info", web1).stdout).group(1))
        assert seen[-1] >= image
    assert seen == sorted(set(seen))
    write_record(pool, generation="1000000", clean="true")
    with mount() as live:
        use(live)
    assert record_of(pool)["generation"] == "1000001"


def test_killed_and_mounted_again(mount, pool, web1):
    live = mount()
    fd = os.open(live.file("web1.img"), os.O_RDWR)
    write_all(fd, b"a" * BLOCK, 0)
    os.fsync(fd)
    live.kill9()
    expect_errno(errno.ENOTCONN, os.close, fd)
    left = record_of(pool)
    assert left["clean"] == "false"
    with mount() as live:
        assert owner_line(live) == f"host {left['host']} pid {left['pid']} since {left['since']}"
        use(live)
    after = record_of(pool)
    assert after["clean"] == "true" and after["mount_id"] != left["mount_id"]
    assert int(after["generation"]) > int(left["generation"])


def test_after_a_restart_of_the_host(mount, pool, web1):
    """The number of the process that owned it may be in use again."""
    write_record(pool, host=socket.gethostname(), pid=str(os.getpid()))
    with mount() as live:
        use(live)
    assert record_of(pool)["clean"] == "true"


def test_two_daemons_with_a_disk_each(mount, pool, web1):
    make_image(os.path.join(pool, "web2.leaf"), MIB)
    with mount() as first, mount() as second:
        with opened(first.file("web1.img")) as one, opened(second.file("web2.img")) as two:
            write_all(one, b"1" * BLOCK, 0)
            write_all(two, b"2" * BLOCK, 0)
            assert record_of(pool)["pid"] == str(first.pid)
            assert record_of(pool, "web2.leaf")["pid"] == str(second.pid)
            assert owner_line(second).startswith(f"host {socket.gethostname()} pid {first.pid} since ")


def test_two_daemons_on_one_disk(mount, pool, web1):
    with mount() as first, mount() as second:
        with opened(first.file("web1.img")) as fd:
            said = refusal(second)
            assert f"(pid {first.pid}, mode direct, since 20" in said and "unmount that one first" in said
            # What only reads would see what is being written.
            assert f"pid {first.pid}" in refusal(second, flags=os.O_RDONLY)
            write_all(fd, b"1" * BLOCK, 0)
        wait_released(pool)
        use(second)
        assert record_of(pool)["pid"] == str(second.pid)


def test_a_lock_of_another_program_is_not_blamed_on_a_dead_owner(mount, pool, web1):
    write_record(pool, host=socket.gethostname())
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
    with opened(web1) as fd, mount() as live:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
        said = refusal(live)
        assert "in use by another program" in said and "pid" not in said


# ---- Others' records ----------------------------------------------------------


@pytest.mark.parametrize("mode", ["direct", "persistent"])
def test_another_hosts_disk(mount, pool, web1, mode):
    record = write_record(pool, mode=mode)
    before = file_bytes(web1)
    with mount() as live:
        said = refusal(live)
        for words in (web1, "host elsewhere", "pid 77", f"mode {mode}", record["since"],
                      f"leafctl unlock {pool} web1.leaf"):
            assert words in said, said
        assert owner_line(live) == f"host elsewhere pid 77 since {record['since']}"
        with opened(live.file("web1.img"), os.O_RDONLY) as fd:
            assert read_all(fd, BLOCK, 0) == bytes(BLOCK)
            expect_errno(errno.EROFS, os.open, live.file("web1.img"), os.O_RDWR)
        wait_until(lambda: "opens: 0" in info_of(live), "the close")
        assert record_of(pool) == record
        # The command that was named helps; the mount need not end for it.
        said = leafctl("unlock", pool, "web1.leaf").stdout
        assert "has no owner now" in said and "host elsewhere" in said
        freed = record_of(pool)
        assert (freed["clean"], freed["mode"], freed["pid"], freed["generation"]) == ("true", "none", "0", "6")
        assert file_bytes(web1) == before, "unlock wrote the image"
        use(live)
    assert int(record_of(pool)["generation"]) > 6


def test_a_disk_whose_changes_are_in_another_cache(mount, pool, work, web1):
    """On whatever host it was: this one, restarted, too."""
    for host in ("elsewhere", socket.gethostname()):
        record = in_a_cache(pool, host=host)
        with mount(f"cache={os.path.join(work, 'c')}", "cache_size=8M") as live:
            said = refusal(live)
        for words in ("/ssd/other.cache", f"host {host}", record["since"], "cache=/ssd/other.cache",
                      f"leafctl unlock --force {pool} web1.leaf"):
            assert words in said, said
        assert record_of(pool) == record


def test_names_that_a_shell_would_split(mount, pool):
    make_image(os.path.join(pool, "my disk.leaf"), MIB)
    write_record(pool, "my disk.leaf")
    with mount() as live:
        assert f"leafctl unlock {pool} 'my disk.leaf'" in refusal(live, "my disk.img")
    leafctl("unlock", pool, "my disk.img")
    assert record_of(pool, "my disk.leaf")["clean"] == "true"


GOOD = "".join(f"{line}\n" for line in (
    "[owner]", "host=elsewhere", "boot_id=b", "pid=77", f"mount_id={OTHER_ID}", f"cache_id={NO_ID}", "cache_path=",
    "generation=5", "mode=direct", "clean=true", "since=2026-01-02T03:04:05Z"))
BAD = {
    "empty": b"",
    "binary": bytes(range(256)) * 2,
    "huge": b"#" * (8 * MIB),
    "missing key": GOOD.replace("generation=5\n", "").encode(),
    "negative pid": GOOD.replace("pid=77", "pid=-77").encode(),
    "negative generation": GOOD.replace("generation=5", "generation=-5").encode(),
    "unknown mode": GOOD.replace("mode=direct", "mode=turbo").encode(),
}


@pytest.mark.parametrize("how", [*BAD, "link", "directory", "fifo", "linked directory"])
def test_damaged_records(mount, pool, work, web1, how):
    os.makedirs(os.path.join(pool, ".leafdisk"))
    if how == "linked directory":
        os.mkdir(os.path.join(work, "other"))
        os.symlink(os.path.join(work, "other"), directory_of(pool))
    else:
        os.mkdir(directory_of(pool))
    if how in BAD:
        write_text(pool, BAD[how])
    elif how == "link":
        write_text(pool, GOOD.encode(), "good")
        os.symlink("good", record_path(pool))
    elif how == "directory":
        os.mkdir(record_path(pool))
    elif how == "fifo":
        os.mkfifo(record_path(pool))
    with mount() as live:
        said = refusal(live)
        assert "is no owner record" in said and f"leafctl unlock --force {pool} web1.leaf" in said
        assert "is no owner record" in owner_line(live)
        state = state_of(live)
        assert state["state"] == "degraded" and "nobody can tell" in state["reason"], state
        assert "web1.img: nobody can tell" in live.messages()
        assert "--force" in refused("clone", web1, os.path.join(pool, "child.leaf"))
        assert not os.path.exists(os.path.join(pool, "child.leaf"))
        assert "nobody can tell" in leafctl("map", web1).stderr
        assert "--force" in refused("unlock", pool, "web1.img")
        if how in ("directory", "linked directory"):
            assert "directory" in refused("unlock", "--force", pool, "web1.img")
            return
        assert "could not be read" in leafctl("unlock", "--force", pool, "web1.img").stdout
        assert stat.S_ISREG(os.lstat(record_path(pool)).st_mode)
        use(live)
        wait_until(lambda: state_of(live)["state"] == "active", "the state to be well")
    assert record_of(pool)["clean"] == "true"
    if how == "link":
        assert file_bytes(record_path(pool, "good")) == GOOD.encode()


def test_a_record_that_cannot_be_read_for_once(mount, pool, web1):
    """Nobody knows then what is newer than the image; the next opening knows."""
    write_record(pool, clean="true")
    with mount("ro", env=faults("owner.read/web1.leaf:EIO@1x2")) as live:
        state = state_of(live)
        assert state["state"] == "degraded" and "nobody can tell" in state["reason"], state
        assert "shows old content" not in live.messages()
        with opened(live.file("web1.img"), os.O_RDONLY) as fd:
            assert read_all(fd, BLOCK, 0) == bytes(BLOCK)
            assert state_of(live)["state"] == "active"


def test_a_record_with_no_generation_left(mount, pool, web1):
    write_record(pool, generation=str(2**64 - 1), clean="true")
    with mount() as live:
        expect_errno(errno.EOVERFLOW, os.open, live.file("web1.img"), os.O_RDWR)
        assert "no generation is left" in live.messages()


# ---- Pools that are not written ----------------------------------------------


def test_a_read_only_mount_writes_nothing(mount, pool, web1):
    in_a_cache(pool)
    before = sorted(os.listdir(pool)), file_bytes(record_path(pool)), os.stat(directory_of(pool)).st_mtime_ns
    for options in ([], ["stale_reads"]):
        with mount("ro", *options) as live:
            expect_errno(errno.EROFS, os.open, live.file("web1.img"), os.O_RDWR)
            if not options:
                assert "stale_reads" in refusal(live, flags=os.O_RDONLY)
                continue
            with opened(live.file("web1.img"), os.O_RDONLY) as fd:
                assert read_all(fd, BLOCK, 0) == bytes(BLOCK)
    assert (sorted(os.listdir(pool)), file_bytes(record_path(pool)), os.stat(directory_of(pool)).st_mtime_ns) == before


def test_a_file_system_that_takes_no_writes(mount, work, rng):
    disk = os.path.join(work, "ro.ext4")
    run("truncate", "-s", "32M", disk)
    run("mke2fs", "-q", "-t", "ext4", disk)
    with Loop(disk) as loop:
        where = loop.mount(os.path.join(work, "ro"))
        make_image(os.path.join(where, "web1.leaf"), MIB)
        loop.unmount()
        loop.mount(where, "-o", "ro")
        with mount(pool=where) as live:
            expect_errno(errno.EROFS, os.open, live.file("web1.img"), os.O_RDWR)
            with opened(live.file("web1.img"), os.O_RDONLY) as fd:
                assert read_all(fd, BLOCK, 0) == bytes(BLOCK)
        assert ".leafdisk" not in os.listdir(where)
        loop.unmount()


def test_ephemeral_disks_have_no_owner(mount, pool, work, web1):
    """Another's record keeps them from being written only where it says that what is below them is old."""
    before = file_bytes(web1), os.stat(pool).st_mtime_ns
    with mount("mode=ephemeral", f"cache={os.path.join(work, 'c')}", "cache_size=8M") as live:
        use(live)
        assert owner_line(live) == "none"
    assert (file_bytes(web1), os.stat(pool).st_mtime_ns) == before
    assert os.listdir(pool) == ["web1.leaf"]
    for record, options in ((write_record(pool), []), (in_a_cache(pool), ["stale_reads"])):
        write_record(pool, **record)
        with mount("mode=ephemeral", f"cache={os.path.join(work, 'c')}", "cache_size=8M", *options) as live:
            use(live)
        assert record_of(pool) == record
    with mount("mode=ephemeral", f"cache={os.path.join(work, 'c')}", "cache_size=8M") as live:
        assert "/ssd/other.cache" in refusal(live)


# ---- Failures -----------------------------------------------------------------


def test_a_crash_while_a_record_is_replaced(mount, pool, web1):
    """The old record stays, and what is left over is swept when it is old."""
    with mount() as live:
        use(live)
    before = record_of(pool)
    live = mount(env=faults("owner.rename:crash"))
    with pytest.raises(OSError):
        os.close(os.open(live.file("web1.img"), os.O_RDWR))
    assert live.wait() == CRASH_STATUS
    live.finalise()
    assert record_of(pool) == before
    left, = [name for name in os.listdir(directory_of(pool)) if name != "web1.leaf"]
    assert left.startswith(".new-")
    with mount() as live:
        use(live)
        assert left in os.listdir(directory_of(pool)), "it could be in use"
    os.utime(record_path(pool, left), (time.time() - 3600,) * 2)
    with mount():
        assert os.listdir(directory_of(pool)) == ["web1.leaf"]


@pytest.mark.parametrize("fault", ["owner.write:ENOSPC", "owner.rename:EDQUOT", "owner.write:ENOSYS",
                                   "owner.rename:EOPNOTSUPP"])
def test_a_pool_that_takes_no_records_can_be_written(mount, pool, web1, fault):
    """One that is full, whose guests must be able to discard, or whose store makes no files. The lock still keeps
    others out."""
    with mount(env=faults(fault)) as live, mount() as second:
        with opened(live.file("web1.img")) as fd:
            write_all(fd, b"y" * BLOCK, 0)
            assert "cannot be written" in live.messages()
            assert "is in use by another program" in refusal(second)
    assert os.listdir(directory_of(pool)) == []
    check_clean(web1)


def test_another_error_refuses(mount, pool, web1):
    with mount(env=faults("owner.write:EIO@1x1")) as live:
        expect_errno(errno.EIO, os.open, live.file("web1.img"), os.O_RDWR)
        assert os.listdir(directory_of(pool)) == []
        use(live)
    assert record_of(pool)["clean"] == "true"


def test_a_disk_that_cannot_be_opened_is_not_made(mount, pool):
    with mount("manage", env=faults("owner.write:EIO@1x1")) as live:
        new = live.file("new.img")
        expect_errno(errno.EIO, os.open, new, os.O_CREAT | os.O_RDWR)
        assert live.names() == [] and not [name for name in os.listdir(pool) if name.endswith(".leaf")]
        os.close(os.open(new, os.O_CREAT | os.O_RDWR))
        assert live.names() == ["new.img"]


def test_a_release_that_fails(mount, pool, web1):
    """The daemon goes on with the disk; the next one takes it when the lock is free."""
    with mount(env=faults("owner.write:EIO@2x1")) as live:
        use(live)
        wait_until(lambda: "cannot be written" in live.messages(), "the failed release")
        assert record_of(pool)["clean"] == "false"
        with mount() as second:
            use(second)
            assert record_of(pool)["pid"] == str(second.pid)
        use(live)
    assert record_of(pool)["clean"] == "true"


def test_taken_over_meanwhile(mount, pool, web1):
    """The last close leaves the new owner's record alone."""
    with mount() as live:
        with opened(live.file("web1.img")):
            record = write_record(pool)
        wait_until(lambda: "was taken over" in live.messages(), "the last close")
    assert record_of(pool) == record


def test_a_flush_that_fails_leaves_it_unclean(mount, pool, web1):
    live = mount(env=faults("aio.datasync/web1.leaf:EIO"))
    fd = os.open(live.file("web1.img"), os.O_RDWR)
    write_all(fd, b"z" * BLOCK, 0)
    expect_errno(errno.EIO, os.fsync, fd)
    expect_errno(errno.EIO, os.close, fd)
    unmount(live.path)
    live.wait()
    live.finalise()
    assert record_of(pool)["clean"] == "false"


# ---- Rename and remove --------------------------------------------------------


def test_the_record_follows_the_disk(mount, pool, web1):
    make_image(os.path.join(pool, "web2.leaf"), MIB)
    with mount("manage") as live:
        use(live)
        use(live, "web2.img")
        wait_released(pool)
        wait_released(pool, "web2.leaf")
        before = record_of(pool)
        os.rename(live.file("web1.img"), live.file("db.img"))
        assert sorted(os.listdir(directory_of(pool))) == ["db.leaf", "web2.leaf"]
        assert record_of(pool, "db.leaf") == before
        os.rename(live.file("web2.img"), live.file("db.img"))
        assert os.listdir(directory_of(pool)) == ["db.leaf"]
        assert int(record_of(pool, "db.leaf")["generation"]) >= int(before["generation"])
        os.unlink(live.file("db.img"))
        assert os.listdir(directory_of(pool)) == []


def test_others_disks_are_neither_moved_nor_removed(mount, pool, web1):
    mine = make_image(os.path.join(pool, "mine.leaf"), MIB)
    for make_record in (in_a_cache, write_record):
        record = make_record(pool)
        with mount("manage") as live:
            for change in ((os.unlink, live.file("web1.img")), (os.rename, live.file("web1.img"), live.file("x.img")),
                           (os.rename, live.file("mine.img"), live.file("web1.img"))):
                expect_errno(errno.EBUSY, *change)
                assert "leafctl unlock " in live.messages()
            assert live.names() == ["mine.img", "web1.img"]
        assert record_of(pool) == record
        assert os.listdir(directory_of(pool)) == ["web1.leaf"]
    assert os.path.exists(web1) and os.path.exists(mine)


def test_a_new_image_of_an_owned_name(mount, pool, web1):
    """What the record of a removed image says is not forgotten by a rename."""
    in_a_cache(pool)
    os.rename(web1, os.path.join(pool, "mine.leaf"))
    with mount("manage") as live:
        expect_errno(errno.EBUSY, os.rename, live.file("mine.img"), live.file("web1.img"))


# ---- leafctl ------------------------------------------------------------------


def test_unlock_of_what_nobody_owns(mount, pool, web1):
    assert "has no owner" in leafctl("unlock", pool, "web1.img").stdout
    assert not os.path.exists(os.path.join(pool, ".leafdisk"))
    with mount() as live:
        use(live)
        wait_released(pool)
        before = record_of(pool)
        assert "has no owner" in leafctl("unlock", live.path, "web1.img").stdout
    assert record_of(pool) == before
    assert "has no owner" in leafctl("unlock", "--force", pool, "web1.leaf").stdout
    assert record_of(pool)["mode"] == "none", "what a cache may have of it is nobody's"


@pytest.mark.parametrize("name", ["none.img", "../web1.leaf", "", ".leafdisk", "a/b"])
def test_unlock_of_no_disk(pool, web1, name):
    refused("unlock", pool, name)
    assert os.listdir(pool) == ["web1.leaf"]


def test_unlock_of_an_image_that_is_gone(pool):
    write_record(pool, "gone.leaf")
    leafctl("unlock", pool, "gone.leaf")
    assert record_of(pool, "gone.leaf")["clean"] == "true"


def test_unlock_while_it_is_in_use(mount, pool, web1):
    with mount() as live:
        with opened(live.file("web1.img")) as fd:
            said = refused("unlock", pool, "web1.img")
            assert f"pid {live.pid}" in said and "mode direct" in said
            before = record_of(pool)
            assert before["clean"] == "false"
            # Whatever is lost: the daemon has to notice by itself.
            assert "may lose" in leafctl("unlock", "--force", pool, "web1.img").stdout
            freed = record_of(pool)
            assert freed["clean"] == "true" and freed["mount_id"] == NO_ID
            assert int(freed["generation"]) == int(before["generation"]) + 1
            write_all(fd, b"w" * BLOCK, 0)
        wait_until(lambda: "was taken over" in live.messages(), "the last close")
    assert record_of(pool) == freed


def test_unlock_and_changes_in_a_cache(mount, pool, web1):
    record = in_a_cache(pool)
    said = refused("unlock", pool, "web1.leaf")
    assert "/ssd/other.cache" in said and f"leafctl unlock --force {pool} web1.leaf" in said
    assert record_of(pool) == record
    said = leafctl("unlock", "--force", pool, "web1.leaf").stdout
    assert "given up" in said and "/ssd/other.cache" in said
    assert (record_of(pool)["clean"], record_of(pool)["generation"]) == ("true", "6")
    with mount() as live:
        use(live)


def test_verbs_that_write_heed_the_owner(pool, work, web1):
    for make_record in (in_a_cache, write_record):
        record = make_record(pool)
        before = file_bytes(web1)
        for words in (["resize", web1, "4M"], ["check", "--repair", web1]):
            assert f"{pool} web1.leaf" in refused(*words)
        assert file_bytes(web1) == before and record_of(pool) == record
    in_a_cache(pool)
    assert "/ssd/other.cache" in refused("clone", web1, os.path.join(pool, "child.leaf"))
    assert not os.path.exists(os.path.join(pool, "child.leaf"))
    leafctl("unlock", "--force", pool, "web1.leaf")
    leafctl("resize", web1, "4M")
    leafctl("check", "--repair", web1)


def test_verbs_that_read_warn(pool, work, web1):
    verbs = (["info", "--json", web1], ["map", "--json", web1], ["check", "--json", web1],
             ["convert", web1, os.path.join(work, "copy.raw")])
    calm = [leafctl(*words) for words in verbs]
    os.unlink(os.path.join(work, "copy.raw"))
    in_a_cache(pool)
    for words, before in zip(verbs, calm):
        result = leafctl(*words)
        assert result.stdout == before.stdout and before.stderr == ""
        assert "warning" in result.stderr and "/ssd/other.cache" in result.stderr
    for words in (["list", pool], ["list", "--json", pool]):
        assert f"warning: {web1}: newer content may be in the cache /ssd/other.cache" in leafctl(*words).stderr
    in_a_cache(pool, clean="true")
    for words in (["info", web1], ["list", pool]):
        assert leafctl(*words).stderr == ""


def test_a_tool_says_who_has_the_image(mount, pool, web1):
    with mount() as live, opened(live.file("web1.img")):
        for words in (["resize", web1, "4M"], ["check", "--repair", web1]):
            assert f"pid {live.pid}" in refused(*words)


def test_an_image_that_a_link_leads_to(mount, pool):
    """Its record lies beside it, where every pool that shows it looks."""
    store = os.path.join(pool, "store")
    os.mkdir(store)
    make_raw(os.path.join(store, "real.raw"), bytes(MIB))
    os.symlink(os.path.join(store, "real.raw"), os.path.join(pool, "linked.raw"))
    with mount() as live:
        with opened(live.file("linked.img")):
            assert record_of(store, "real.raw")["clean"] == "false"
    assert record_of(store, "real.raw")["clean"] == "true"
    assert sorted(os.listdir(pool)) == ["linked.raw", "store"]
    write_record(store, "real.raw")
    with mount() as live:
        assert f"leafctl unlock {store} real.raw" in refusal(live, "linked.img")


def test_a_block_device(mount, pool, work):
    """Its own directory is no pool: the record is in the pool, by the disk's name."""
    make_raw(os.path.join(work, "backing"), bytes(2 * MIB))
    with Loop(os.path.join(work, "backing")) as loop:
        conf = write_conf(work, f"[disk blk.img]\nlayers = raw:{loop.device}\n")
        with mount(f"conf={conf}", "layers=/dev") as live:
            use(live, "blk.img")
        assert record_of(pool, "blk.img@device")["clean"] == "true"
        assert not os.path.exists("/dev/.leafdisk")
        write_record(pool, "blk.img@device")
        with mount(f"conf={conf}", "layers=/dev") as live:
            assert f"leafctl unlock {pool} blk.img@device" in refusal(live, "blk.img")
            leafctl("unlock", pool, "blk.img@device")
            use(live, "blk.img")


# ---- The order of a clean end ------------------------------------------------

@pytest.fixture
def written_back(mount, pool, work):
    """A raw disk in writeback mode, whose migration follows at once."""
    make_raw(os.path.join(pool, "web1.raw"), bytes(4 * BLOCK))
    cache = os.path.join(work, "leaf.cache")
    return functools.partial(mount, f"cache={cache}", "mode=writeback", "cache_size=16M", "migrate_idle_ms=1")


def test_what_is_said_to_be_whole_is_not_written_again(written_back, pool):
    """As soon as the record is clean the cache knows it too, whatever happens then."""
    path = os.path.join(pool, "web1.raw")
    for value in (b"a", b"c", b"e"):
        live = written_back()
        use(live, data=value * BLOCK)
        wait_released(pool, "web1.raw")
        live.kill9()
        assert file_bytes(path)[:BLOCK] == value * BLOCK
        with opened(path) as fd:  # by hand: the record says that nobody has newer
            write_all(fd, b"x" * BLOCK, 0)
            os.fsync(fd)
        with written_back() as live:
            assert file_bytes(live.file("web1.img"))[:BLOCK] == b"x" * BLOCK


def test_a_cache_that_cannot_say_so_keeps_the_disk(written_back, pool, work):
    """What it has is in the pool, but a crash would show it again: nobody else is let in."""
    gate = Gate(work, "gate")
    live = written_back(env=faults("aio.datasync/leaf.cache:EIO", "aio.write/leaf.cache:EIO", gate=gate.path))
    with opened(live.file("web1.img")) as fd:
        write_all(fd, b"a" * BLOCK, 0)
        os.fsync(fd)
        wait_until(lambda: state_of(live)["dirty_bytes"] == "0", "it to be in the pool")
        gate.open()
    wait_until(lambda: "stays owned by this cache" in live.messages(), "the last close")
    assert record_of(pool, "web1.raw")["clean"] == "false"
    gate.close()
    live.stop()
    with written_back() as live:
        assert file_bytes(live.file("web1.img"))[:BLOCK] == b"a" * BLOCK
        use(live)
    assert record_of(pool, "web1.raw")["clean"] == "true"
