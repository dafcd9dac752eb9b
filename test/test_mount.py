"""The mount as a user sees it: names, rules, refusals, start and end."""
import errno
import os
import pwd
import shutil
import signal
import threading

import pytest

import cleanup
import leaf_format
from harness import (KIB, MIB, MOUNT_VARIABLE, MountError, assert_same, check_clean, control_values, expect_errno,
                     file_bytes, leafctl, make_image, make_raw, opened, process_ended, program, read_all, run, scaled,
                     unmount, wait_until, write_all, write_conf)
from model import in_threads


@pytest.fixture
def base(pool, rng):
    return make_raw(os.path.join(pool, "base.raw"), rng.randbytes(2 * MIB))


@pytest.fixture
def web1(pool, base):
    return make_image(os.path.join(pool, "web1.leaf"), parent=base)


def refused(mount, *options, **settings):
    """The sentence that leafdisk says no with; nothing is mounted then."""
    with pytest.raises(MountError) as caught:
        mount(*options, **settings)
    assert caught.value.status in (1, 2), caught.value
    assert caught.value.messages.count("\n") <= 2, "one sentence is enough"
    return caught.value.messages


# ---- Names -------------------------------------------------------------------


def test_names(mount, pool, web1):
    make_image(os.path.join(pool, "two words.leaf"), "1M")
    make_image(os.path.join(pool, "dotted.name.leaf"), "1M")
    os.mkdir(os.path.join(pool, "bases"))
    make_image(os.path.join(pool, "bases", "hidden.leaf"), "1M")
    with open(os.path.join(pool, "notes.txt"), "w", encoding="ascii") as file:
        file.write("no image\n")
    with mount() as live:
        assert live.names() == ["base.img", "dotted.name.img", "two words.img", "web1.img"]
        assert os.stat(live.file("web1.img")).st_size == 2 * MIB
        expect_errno(errno.ENOENT, os.stat, live.file("notes.txt"))
        expect_errno(errno.ENOENT, os.stat, live.file("web1.leaf"))


def test_colliding_stems_keep_their_names(mount, pool):
    make_raw(os.path.join(pool, "web.raw"), b"r" * 4096)
    make_image(os.path.join(pool, "web.leaf"), "8K")
    with mount() as live:
        assert live.names() == ["web.leaf.img", "web.raw.img"]
        assert os.stat(live.file("web.raw.img")).st_size == 4096
        assert os.stat(live.file("web.leaf.img")).st_size == 8192
        assert "web.leaf" in live.messages() and "web.raw" in live.messages()


def test_a_raw_file_is_raw_whatever_it_holds(mount, pool, work):
    """A guest writes a leaf header into its raw disk: still a raw disk."""
    header = file_bytes(make_image(os.path.join(work, "evil.leaf"), "1M"))
    make_raw(os.path.join(pool, "guest.raw"), header)
    make_raw(os.path.join(pool, "other.img"), header)
    with mount() as live:
        assert_same(file_bytes(live.file("guest.img")), header, "guest.raw")
        assert_same(file_bytes(live.file("other.img")), header, "other.img")


def test_glob_of_disks(mount, pool, web1, base):
    make_image(os.path.join(pool, "db.leaf"), "1M")
    with mount("disks=web*") as live:
        assert live.names() == ["web1.img"]
        assert_same(file_bytes(live.file("web1.img")), file_bytes(base), "web1")


def test_owner_and_mode(mount, pool, web1):
    nobody = pwd.getpwnam("nobody")
    os.chown(pool, nobody.pw_uid, nobody.pw_gid)
    with mount() as live:
        state = os.stat(live.file("web1.img"))
        assert (state.st_uid, state.st_gid, state.st_mode & 0o777) == (nobody.pw_uid, nobody.pw_gid, 0o600)
    with mount("uid=7", "gid=8", "umask=027") as live:
        state = os.stat(live.file("web1.img"))
        assert (state.st_uid, state.st_gid, state.st_mode & 0o777) == (7, 8, 0o640)


def test_df_shows_the_pools_file_system(mount, pool, web1):
    with mount() as live:
        shown, real = os.statvfs(live.path), os.statvfs(pool)
        assert shown.f_blocks * shown.f_frsize == real.f_blocks * real.f_frsize


# ---- What may be written -----------------------------------------------------


def test_a_parent_is_read_only(mount, pool, base, web1):
    before = file_bytes(base)
    with mount() as live:
        assert_same(file_bytes(live.file("base.img")), before, "base.img")
        expect_errno(errno.EROFS, os.open, live.file("base.img"), os.O_RDWR)
        expect_errno(errno.EROFS, os.truncate, live.file("base.img"), 4 * MIB)
        with opened(live.file("web1.img")) as fd:
            write_all(fd, b"x", 0)
    assert_same(file_bytes(base), before, "the base")


def test_a_base_without_children_is_writable(mount, base):
    with mount() as live, opened(live.file("base.img")) as fd:
        write_all(fd, b"hello", 1000)
        os.fsync(fd)
        assert file_bytes(base)[1000:1005] == b"hello"


def test_read_only_mount(mount, web1):
    before = file_bytes(web1)
    with mount("ro") as live:
        expect_errno(errno.EROFS, os.open, live.file("web1.img"), os.O_RDWR)
        read_all_of = file_bytes(live.file("web1.img"))
        assert len(read_all_of) == 2 * MIB
    assert_same(file_bytes(web1), before, "the image")


def test_ends_of_a_disk(mount, pool):
    size = 1 * MIB + 100
    make_image(os.path.join(pool, "d.leaf"), size)
    with mount() as live, opened(live.file("d.img")) as fd:
        assert read_all(fd, 4096, size) == b""
        assert read_all(fd, 4096, size - 10) == bytes(10)
        expect_errno(errno.ENOSPC, os.pwrite, fd, b"x", size)
        expect_errno(errno.ENOSPC, os.pwrite, fd, b"x", size + 8192)
        assert os.pwrite(fd, b"y" * 64, size - 10) == 10, "the write is cut at the end"
        assert os.fstat(fd).st_size == size
        assert read_all(fd, 4096, size - 10) == b"y" * 10


ACCIDENTS = (["truncate", "-s", "100"], ["truncate", "-s", "0"], ["cp", "/etc/hostname"],
             ["dd", "if=/dev/null", "bs=512", "seek=1", "of="], ["sh", "-c", ': > "$0"'])


def test_a_disk_is_made_smaller_by_command_only(mount, pool):
    make_image(os.path.join(pool, "d.leaf"), "2M")
    with mount() as live:
        path = live.file("d.img")
        with opened(path) as fd:
            write_all(fd, b"z" * MIB, MIB)
            expect_errno(errno.EPERM, os.ftruncate, fd, MIB)
            result = leafctl("resize", "--shrink", path, "1M", check=False)
            assert result.returncode == 1 and "is open elsewhere" in result.stderr, result
        for words in ACCIDENTS:
            words = words[:-1] + [words[-1] + path] if words[0] == "dd" else [*words, path]
            assert "Operation not permitted" in run(*words, check=False).stderr, words
        assert os.stat(path).st_size == 2 * MIB
        assert f"make it smaller with: leafctl resize --shrink '{path}' 100" in live.messages()
        assert "dd conv=notrunc" in file_bytes(live.control("disks", "d.img", "last_error")).decode()
        with opened(path, os.O_RDONLY) as fd:
            read_all(fd, 2 * MIB, 0)
        for words in ([path, "3"], ["--shrink", path, "3"]):
            result = leafctl("resize", *words, check=False)
            assert result.returncode == 1 and "a disk has at least 512 bytes" in result.stderr, result
        result = leafctl("resize", path, "1000", check=False)
        assert result.returncode == 1 and "smaller, 1000 bytes, loses data" in result.stderr, result
        leafctl("resize", "--shrink", path, str(MIB + 10))
        assert os.stat(path).st_size == MIB + 10
        os.truncate(path, 2 * MIB)
        assert file_bytes(path) == bytes(MIB) + b"z" * 10 + bytes(MIB - 10)
    check_clean(os.path.join(pool, "d.leaf"))


def test_create_rename_unlink(mount, pool, base, web1):
    with mount("manage") as live:
        run("truncate", "-s", "3M", live.file("new.img"))
        assert os.stat(live.file("new.img")).st_size == 3 * MIB
        with opened(live.file("new.img")) as fd:
            write_all(fd, b"new disk", 2 * MIB)
        os.rename(live.file("new.img"), live.file("renamed.img"))
        assert live.names() == ["base.img", "renamed.img", "web1.img"]
        assert sorted(name for name in os.listdir(pool) if name[0] != ".") == ["base.raw", "renamed.leaf", "web1.leaf"]
        assert file_bytes(live.file("renamed.img"))[2 * MIB:2 * MIB + 8] == b"new disk"
        # What another image depends on stays where it is.
        expect_errno(errno.EBUSY, os.unlink, live.file("base.img"))
        expect_errno(errno.EBUSY, os.rename, live.file("base.img"), live.file("other.img"))
        expect_errno(errno.EBUSY, os.rename, live.file("web1.img"), live.file("base.img"))
        os.unlink(live.file("renamed.img"))
        os.unlink(live.file("web1.img"))
        assert live.names() == ["base.img"]
    assert [name for name in os.listdir(pool) if name[0] != "."] == ["base.raw"]


def test_new_names_beside_listings(mount, pool, base):
    """Whoever made or renamed a disk has it at once, whatever others list meanwhile."""
    done = threading.Event()
    with mount("manage") as live:

        def change_names():
            for number in range(scaled(100, 3000)):
                os.close(os.open(live.file(f"a{number}.img"), os.O_CREAT | os.O_EXCL | os.O_RDWR))
                os.close(os.open(live.file(f"a{number}.img"), os.O_RDWR))
                wait_until(lambda: succeeds(os.rename, live.file(f"a{number}.img"), live.file(f"b{number}.img")),
                           "the last close to arrive")
                os.close(os.open(live.file(f"b{number}.img"), os.O_RDWR))
                wait_until(lambda: succeeds(os.unlink, live.file(f"b{number}.img")), "the last close to arrive")

        def work(number):
            try:
                if number == 0:
                    change_names()
                while number != 0 and not done.is_set():
                    os.listdir(live.path)
                    os.listdir(live.control("disks"))
            finally:
                done.set()

        in_threads(4, work)
        assert live.names() == ["base.img"]


def succeeds(operation, *arguments):
    """False while the disk is busy."""
    try:
        operation(*arguments)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def test_names_change_in_a_managed_pool_only(mount, pool, web1):
    """`mv big.raw MNT/web1.img` removes the target before it finds that it cannot make it."""
    before = sorted(os.listdir(pool))
    with mount() as live:
        for done, operation in (("created", lambda: os.open(live.file("new.img"), os.O_RDWR | os.O_CREAT)),
                                ("removed", lambda: os.unlink(live.file("web1.img"))),
                                ("renamed", lambda: os.rename(live.file("web1.img"), live.file("web2.img")))):
            expect_errno(errno.EPERM, operation)
            assert f"not {done}: the mount does not manage its pool; mount {pool} with -o manage" in live.messages()
        assert live.names() == ["base.img", "web1.img"]
    with mount("manage", "ro") as live:
        expect_errno(errno.EROFS, os.unlink, live.file("web1.img"))
    assert [name for name in sorted(os.listdir(pool)) if name[0] != "."] == before


@pytest.mark.parametrize("options", [[], ["manage"]])
def test_what_is_no_disk_is_refused_with_a_sentence(mount, web1, options):
    """The kernel has an errno for it only."""
    with mount(*options) as live:
        disk = live.file("web1.img")
        for operation, said in ((lambda: os.mkdir(live.file("d")), "d: not made: a mount shows disks, and no directories"),
                                (lambda: os.mkfifo(live.file("p")), "p: not made: a mount shows disks, and no devices or pipes"),
                                (lambda: os.symlink(disk, live.file("s")), "s: not made: a disk has one name in a mount"),
                                (lambda: os.link(disk, live.file("l.img")), "l.img: not made: a disk has one name in a mount")):
            expect_errno(errno.EPERM, operation)
            assert said in live.messages() and said in file_bytes(live.control("events")).decode()
        for operation in (lambda: os.chown(disk, 1, 1), lambda: os.chmod(disk, 0o400)):
            expect_errno(errno.EPERM, operation)
        said = "web1.img: owner and mode stay as they are: those of all files are the mount's, by its options uid=, gid="
        assert said in live.messages() and said in file_bytes(live.control("disks", "web1.img", "last_error")).decode()
        assert said.split(": ", 1)[1] in file_bytes(live.control("events")).decode()
        expect_errno(errno.EPERM, os.chown, live.path, 1, 1)
        assert f"{live.path}: owner and mode stay as they are" in live.messages()
        expect_errno(errno.EPERM, os.rmdir, live.control())
        assert live.names() == ["base.img", "web1.img"]


# ---- Images that come, go and are broken -------------------------------------


def test_an_image_that_appears_becomes_a_disk(mount, pool, base, work):
    with mount() as live:
        assert live.names() == ["base.img"]
        shutil.copyfile(base, os.path.join(pool, "copy.raw"))
        assert os.stat(live.file("copy.img")).st_size == 2 * MIB
        leafctl("clone", base, os.path.join(pool, "late.leaf"))
        assert live.names() == ["base.img", "copy.img", "late.img"]
        assert_same(file_bytes(live.file("late.img")), file_bytes(base), "late.img")
        os.unlink(os.path.join(pool, "copy.raw"))
        assert live.names() == ["base.img", "late.img"]


def test_a_broken_image_is_left_out_with_a_message(mount, pool, web1):
    broken = make_image(os.path.join(pool, "broken.leaf"), "1M")
    with opened(broken) as fd:
        write_all(fd, bytes(16 * KIB), 0)
        write_all(fd, b"LEAFDISK" + bytes(4088), 0)
    with mount() as live:
        assert live.names() == ["base.img", "web1.img"]
        assert "broken.leaf" in live.messages()


def test_missing_parent(mount, pool, base, web1):
    os.rename(base, os.path.join(pool, "..", "away.raw"))
    result = leafctl("info", web1, check=False)
    assert result.returncode == 1 and "base.raw" in result.stderr
    result = leafctl("check", web1, check=False)
    assert result.returncode == 3 and "base.raw" in result.stdout + result.stderr
    os.rename(os.path.join(pool, "..", "away.raw"), os.path.join(pool, "moved.raw"))
    os.symlink("moved.raw", base)
    leafctl("info", web1)
    with mount() as live:
        assert_same(file_bytes(live.file("web1.img")), file_bytes(base), "web1, whose parent a link leads to")
    os.unlink(base)
    os.rename(os.path.join(pool, "moved.raw"), os.path.join(pool, "..", "away.raw"))
    make_image(os.path.join(pool, "good.leaf"), "1M")
    with mount() as live:
        assert "good.img" in live.names()
        if "web1.img" in live.names():
            with pytest.raises(OSError):
                os.open(live.file("web1.img"), os.O_RDONLY)
        wait_until(lambda: "web1.leaf" in live.messages(), "a message about web1.leaf")
    os.rename(os.path.join(pool, "..", "away.raw"), base)
    with mount() as live:
        assert_same(file_bytes(live.file("web1.img")), file_bytes(base), "web1")


def assert_unusable(mount, image, *words):
    """leafctl and the mount refuse the chain and say why; neither crashes."""
    result = leafctl("map", image, check=False)
    assert result.returncode == 1, result
    for word in words:
        assert word in result.stderr, result.stderr
    name = os.path.basename(image).rsplit(".", 1)[0] + ".img"
    with mount() as live:
        if name in live.names():
            with pytest.raises(OSError):
                os.open(live.file(name), os.O_RDWR)
        wait_until(lambda: os.path.basename(image) in live.messages(), f"a message about {image}")


def test_parent_of_another_size(mount, base, web1):
    with open(base, "ab") as file:
        file.write(b"grown")
    assert_unusable(mount, web1, "base.raw")


def test_parent_that_was_replaced(mount, pool, base, work):
    middle = make_image(os.path.join(pool, "middle.leaf"), parent=base)
    top = make_image(os.path.join(pool, "top.leaf"), parent=middle)
    os.rename(middle, os.path.join(work, "old.leaf"))
    make_image(middle, parent=base)
    assert_unusable(mount, top, "middle.leaf")


def test_parents_in_a_circle(mount, pool):
    """Two images that name each other."""
    first = make_image(os.path.join(pool, "a.leaf"), "1M")
    second = make_image(os.path.join(pool, "b.leaf"), parent=first)
    leaf_format.set_parent(first, second)
    assert_unusable(mount, second)
    assert_unusable(mount, first)


def test_own_parent(mount, pool):
    image = make_image(os.path.join(pool, "a.leaf"), "1M")
    leaf_format.set_parent(image, image)
    assert_unusable(mount, image)


DEPTH_MAX = 255


def test_a_chain_that_is_too_deep(mount, pool):
    parent = make_image(os.path.join(pool, "l0.leaf"), "1M", chunk="64K")
    for depth in range(1, 2 * DEPTH_MAX):
        path = os.path.join(pool, f"l{depth}.leaf")
        result = leafctl("create", "-b", parent, "-c", "64K", path, check=False)
        if result.returncode != 0:
            break
        parent = path
    assert result.returncode == 1 and str(DEPTH_MAX) in result.stderr, result.stderr
    assert depth == DEPTH_MAX, f"a chain of {depth + 1} was refused"
    assert not os.path.exists(path)
    with mount() as live, opened(live.file(f"l{depth - 1}.img")) as fd:
        write_all(fd, b"deep", 4096)
        assert read_all(fd, 4, 4096) == b"deep"


def test_a_parent_outside_the_pool(mount, pool, work, rng):
    outside = os.path.join(work, "outside")
    os.mkdir(outside)
    content = rng.randbytes(MIB)
    base = make_raw(os.path.join(outside, "base.raw"), content)
    leaf = os.path.join(pool, "web1.leaf")
    leafctl("create", "--layers", outside, "-b", base, leaf)
    make_image(os.path.join(pool, "good.leaf"), "1M")
    assert_unusable(mount, leaf, "base.raw")
    with mount(f"layers={outside}") as live:
        assert_same(file_bytes(live.file("web1.img")), content, "web1")
    result = leafctl("create", "-b", base, os.path.join(pool, "web2.leaf"), check=False)
    assert result.returncode == 1 and "base.raw" in result.stderr


def test_a_link_out_of_the_pool_is_no_way_out(mount, pool, work, rng):
    secret = make_raw(os.path.join(work, "secret.raw"), rng.randbytes(MIB))
    inside = make_raw(os.path.join(pool, "base.raw"), rng.randbytes(MIB))
    leaf = make_image(os.path.join(pool, "web1.leaf"), parent=inside)
    os.unlink(inside)
    os.symlink(secret, inside)
    assert_unusable(mount, leaf)


def test_layers_in_sub_directories(mount, pool, rng):
    os.mkdir(os.path.join(pool, "bases"))
    content = rng.randbytes(MIB)
    base = make_raw(os.path.join(pool, "bases", "b.raw"), content)
    make_image(os.path.join(pool, "web1.leaf"), parent=base)
    with mount() as live:
        assert live.names() == ["web1.img"]
        assert_same(file_bytes(live.file("web1.img")), content, "web1")


def test_two_writers_are_refused(mount, pool, work, web1):
    """A second daemon on the same pool cannot write what the first has open."""
    with mount() as first, opened(first.file("web1.img")) as fd:
        write_all(fd, b"first", 0)
        with mount() as second:
            with pytest.raises(OSError):
                os.open(second.file("web1.img"), os.O_RDWR)
            wait_until(lambda: "web1.leaf" in second.messages(), "a message about web1.leaf")
        result = leafctl("resize", web1, "4M", check=False)
        assert result.returncode == 1 and "web1.leaf" in result.stderr
    check_clean(web1)


# ---- The configuration file --------------------------------------------------


def test_configuration_file(mount, work, pool, web1):
    conf = write_conf(work, "[pool]\numask = 022\nthreads = 2\n")
    with mount(f"conf={conf}") as live:
        assert os.stat(live.file("web1.img")).st_mode & 0o777 == 0o644
    with mount(f"conf={conf}", "umask=077") as live:
        assert os.stat(live.file("web1.img")).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text,words", [
    ("[pool]\nspeed = 7\n", ["speed"]),
    ("[disks]\nro = 1\n", ["disks"]),
    ("[pool]\nthreads = many\n", ["threads", "many"]),
    ("[disk web1.img]\ncolour = red\n", ["colour"]),
    ("no group\n", ["leafdisk.conf"]),
    ("[pool srv]\nro = yes\n", ["[pool srv]", "[pool /PATH]"]),
    ("[disk srv/web1.img]\nmode = direct\n", ["[disk srv/web1.img]", "[disk /PATH/NAME]"]),
    ("[pool]\nmountpoint = /mnt\n", ["mountpoint", "[pool /PATH]"]),
    ("[pool /elsewhere]\nconf = /etc/other\n", ["conf", "mount option only"]),
])
def test_a_wrong_configuration_is_refused(mount, work, web1, text, words):
    said = refused(mount, f"conf={write_conf(work, text)}")
    for word in words:
        assert word in said


def test_configuration_of_several_pools(mount, work, pool, web1):
    """What is said of one pool counts before what is said of all, for that one alone."""
    link = os.path.join(work, "link")
    os.symlink(pool, link)
    conf = write_conf(work, f"[pool {work}/other]\nno_such_key = 1\n"
                            f"[pool {pool}/]\numask = 022\n[pool]\numask = 027\nthreads = 2\n"
                            f"[disk web1.img]\nmode = writeback\n[disk {pool}/web1.img]\nmode = ephemeral\n"
                            f"[disk {work}/other/web1.img]\nmode = persistent\n")
    for path in (pool, link):
        with mount(f"conf={conf}", pool=path) as live:
            assert os.stat(live.file("web1.img")).st_mode & 0o777 == 0o644
            assert control_values(live, "config")["threads"] == "2"
            assert file_bytes(live.control("disks", "web1.img", "mode")) == b"ephemeral\n"


def run_and_unmount(point, *command):
    """A daemon that puts itself into the background; it has ended when this returns."""
    run(*command, env={MOUNT_VARIABLE: point})
    mode = os.stat(os.path.join(point, "web1.img")).st_mode & 0o777
    unmount(point)
    wait_until(lambda: not cleanup.processes_with(MOUNT_VARIABLE, point), f"the daemon of {point} to end")
    return mode


def test_mountpoint_of_the_configuration(work, pool, web1):
    points = [os.path.join(work, name) for name in ("given", "configured")]
    conf = write_conf(work, f"[pool {pool}]\nmountpoint = {points[1]}\n")
    for operands in ([pool, points[0]], [pool]):
        os.mkdir(points[len(operands) % 2])
        run_and_unmount(points[len(operands) % 2], program("leafdisk"), *operands, "-o", f"conf={conf}")
    other = run(program("leafdisk"), work, "-o", f"conf={conf}", check=False)
    assert other.returncode == 2 and f"[pool {work}]" in other.stderr


def test_mount_helper(work, pool, web1):
    """As mount(8) runs it for -t leafdisk; with -f nothing is mounted, but refused what would be."""
    helper, point = os.path.join(work, "mount.leafdisk"), os.path.join(work, "mnt")
    os.symlink(program("leafdisk"), helper)
    os.mkdir(point)
    run(helper, pool, point, "-fnv", "-o", "rw")
    assert os.listdir(point) == []
    assert "speed" in run(helper, pool, point, "-f", "-o", "rw,speed", check=False).stderr
    options = ("-snv", "-t", "leafdisk", "-o", "rw,noauto,umask=022")
    assert run_and_unmount(point, helper, pool, point, *options) == 0o644


def test_a_stack_spelled_out(mount, pool, work, rng):
    """dm-cow's way: base first, at an offset of its file."""
    content = rng.randbytes(MIB)
    os.mkdir(os.path.join(pool, "parts"))
    make_raw(os.path.join(pool, "parts", "base.raw"), rng.randbytes(64 * KIB) + content)
    make_image(os.path.join(pool, "parts", "w.leaf"), MIB)
    conf = write_conf(work, "[disk stack.img]\nlayers = parts/base.raw@65536; parts/w.leaf\n")
    with mount(f"conf={conf}") as live:
        with opened(live.file("stack.img")) as fd:
            assert_same(read_all(fd, MIB, 0), content, "stack.img")
            write_all(fd, b"top", 5000)
        assert file_bytes(live.file("stack.img"))[5000:5003] == b"top"


# ---- Options and refusals ----------------------------------------------------


@pytest.mark.parametrize("option,words", [
    ("threads=0", ["threads"]),
    ("threads=two", ["threads"]),
    ("umask=9", ["umask"]),
    ("mode=fast", ["mode", "direct"]),
    ("nosuchoption", ["nosuchoption"]),
    ("queue_depth=-1", ["queue_depth"]),
    ("layers=/nonexistent", ["/nonexistent"]),
    ("conf=/nonexistent.conf", ["/nonexistent.conf"]),
    ("uid=4294967296", ["uid"]),
])
@pytest.mark.parametrize("foreground", [True, False])
def test_bad_options_are_refused(mount, web1, option, words, foreground):
    said = refused(mount, option, foreground=foreground)
    for word in words:
        assert word in said


def test_bad_pools_are_refused(mount, work, web1):
    assert "nowhere" in refused(mount, pool=os.path.join(work, "nowhere"))
    assert "web1.leaf" in refused(mount, pool=web1)


def test_mountpoint_in_the_pool_is_refused(pool, web1):
    os.mkdir(os.path.join(pool, "mnt"))
    result = run(program("leafdisk"), pool, os.path.join(pool, "mnt"), check=False)
    assert result.returncode != 0 and "mnt" in result.stderr
    assert cleanup.mounts_below(pool) == []


def test_usage():
    for words in ([], ["only-one"], ["a", "b", "c"], ["--nonsense"]):
        result = run(program("leafdisk"), *words, check=False)
        assert result.returncode == 2 and result.stderr
    assert "-o" in run(program("leafdisk"), "--help").stdout
    assert "0." in run(program("leafdisk"), "--version").stdout


# ---- Start and end -----------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["threads=2"]])
def test_ready_before_the_parent_exits(mount, web1, options):
    """start() demands that the mount answers once the command has returned."""
    live = mount(*options, foreground=False)
    assert live.status == 0
    with opened(live.file("web1.img")) as fd:
        write_all(fd, b"background", 0)
    live.stop()
    with mount() as live:
        assert file_bytes(live.file("web1.img"))[:10] == b"background"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("foreground", [True, False])
def test_a_signal_is_an_orderly_stop(mount, web1, number, foreground):
    live = mount(foreground=foreground)
    with opened(live.file("web1.img")) as fd:
        write_all(fd, b"signal", 0)
    os.kill(live.pid, number)
    assert live.wait() in (0, None)
    assert cleanup.mounts_below(live.path) == []
    check_clean(web1)
    with mount() as live:
        assert file_bytes(live.file("web1.img"))[:6] == b"signal"


def test_a_busy_mount_is_not_taken_away(mount, web1):
    live = mount()
    with opened(live.file("web1.img")) as fd:
        assert run("fusermount3", "-u", live.path, check=False).returncode != 0
        write_all(fd, b"busy", 0)
    live.stop()


# As after `make install`, in a mount namespace where nothing is really
# installed. What it starts ends with its last command.
MOUNT_COMMAND = """
set -e
mount --make-rprivate /
mount -t tmpfs none /usr/local/bin
cp "$program" /usr/local/bin/leafdisk
mount -t fuse.leafdisk "$pool" "$point" -o rw,umask=022,nodev,nosuid,_netdev
findmnt -n -o SOURCE,FSTYPE "$point"
ls "$point"
printf mounted | dd of="$point/web1.img" conv=notrunc,fsync status=none
umount "$point"
"""


@pytest.mark.alone
def test_mount_command(mount, pool, work, web1):
    """mount(8) finds leafdisk as an fstab line would."""
    point = os.path.join(work, "mnt")
    os.mkdir(point)
    said = run("unshare", "-m", "sh", "-c", MOUNT_COMMAND,
               env={"program": program("leafdisk"), "pool": pool, "point": point, MOUNT_VARIABLE: point}).stdout
    assert said.split() == [pool, "fuse.leafdisk", "base.img", "web1.img"]
    wait_until(lambda: not cleanup.processes_with(MOUNT_VARIABLE, point), "the daemon's end")
    with mount() as live:
        assert file_bytes(live.file("web1.img"))[:7] == b"mounted"
    check_clean(web1)


def test_the_daemon_leaves_the_terminal(pool, work, web1):
    """In the background it holds neither the directory nor the output."""
    point = os.path.join(work, "mnt")
    os.mkdir(point)
    # Returns only when the pipes are closed.
    run(program("leafdisk"), pool, point, cwd=work, env={MOUNT_VARIABLE: point})
    pid, = cleanup.processes_with(MOUNT_VARIABLE, point)
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getsid(pid) != os.getsid(0)
    unmount(point)
    assert process_ended(pid, 30)


def test_list_of_a_pool_and_of_a_mount(mount, pool, web1):
    listed = leafctl("list", pool).stdout
    assert "web1" in listed and "base" in listed
    with mount() as live:
        listed = leafctl("list", live.path).stdout
        assert "web1" in listed and "base" in listed


def test_no_memory_of_a_test_run(mount, pool, web1):
    """Two mounts of one pool, one after the other, leave the pool as it was."""
    before = sorted(os.listdir(pool))
    for _ in range(2):
        with mount() as live:
            live.names()
    assert [name for name in sorted(os.listdir(pool)) if name != ".leafdisk"] == before


def test_end_with_a_listing_open(mount, web1):
    """Nothing leaks; the sanitized build says so with its exit status."""
    live = mount()
    fd = os.open(live.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert set(os.listdir(fd)) == {"base.img", "web1.img", ".leafdisk"}
        os.kill(live.pid, signal.SIGTERM)
        assert live.wait() == 0, live.messages()
    finally:
        os.close(fd)
        live.finalise()
