"""Parents know that they are parents; children know theirs."""
import errno
import json
import os
import shutil
import subprocess

import pytest

import leaf_format
from harness import (KIB, MIB, Gate, assert_same, check_clean, expect_errno, faults, file_bytes, leafctl, make_image,
                     make_raw, opened, read_all, run, wait_until, write_all)

ATTRIBUTE = "user.leafdisk.children"
SIZE = 2 * MIB
CACHED = ["persistent", "writeback"]


@pytest.fixture(params=["raw", "leaf"])
def base(request, pool, rng):
    return new_base(os.path.join(pool, f"base.{request.param}"), rng)


def new_base(path, rng):
    if path.endswith(".raw"):
        return make_raw(path, rng.randbytes(SIZE))
    return make_image(path, SIZE)


def children(image):
    return json.loads(leafctl("info", "--json", image).stdout)["layers"][0]["children"]


def unmark(parent):
    """As it was made by a version without marks."""
    if parent.endswith(".raw"):
        os.removexattr(parent, ATTRIBUTE)
        return
    with open(parent, "rb") as file:
        image = file.read(4 * leaf_format.PAGE)
    with open(parent, "r+b") as file:
        file.write(leaf_format.forge(image, features_read_only=0, children=b""))


def options_of(mode, work):
    if mode == "direct":
        return ["mode=direct"]
    return [f"mode={mode}", f"cache={os.path.join(work, 'cache')}", "cache_size=16M"]


def accept(child):
    """The kernel tells of a close after it, and a daemon has the image until then."""
    def done():
        result = leafctl("rebase", "--accept", child, check=False)
        assert result.returncode == 0 or "in use" in result.stderr, result
        return result.returncode == 0
    wait_until(done, "the child to accept its parent")


# ---- The mark ----------------------------------------------------------------


def test_a_parent_names_its_children(pool, base):
    assert children(base) is None
    first = os.path.join(pool, "a.leaf")
    said = leafctl("clone", base, first, os.path.join(pool, "b.leaf")).stderr
    assert said == f"leafctl: note: {base} is read-only from now on, as {first} stands on it\n"
    assert children(base) == f"{pool}/a.leaf, {pool}/b.leaf"
    assert f"{pool}/a.leaf" in leafctl("info", base).stdout
    for number in range(40):
        assert leafctl("create", "-b", base, os.path.join(pool, f"{number}.leaf")).stderr == ""
    assert f"{pool}/0.leaf" in children(base) and children(base).endswith(" and others")
    check_clean(*([base] if base.endswith(".leaf") else []))


def lose(child, how, work):
    if how == "gone":
        os.unlink(child)
    elif how == "broken":
        with opened(child) as fd:
            write_all(fd, bytes(16 * KIB), 0)
    elif how == "elsewhere":
        shutil.move(child, os.path.join(work, "elsewhere.leaf"))


@pytest.mark.parametrize("how", ["there", "gone", "broken", "elsewhere"])
def test_nothing_writes_a_parent_offline(pool, work, base, how):
    child = os.path.join(pool, "a.leaf")
    leafctl("clone", base, child)
    lose(child, how, work)
    before = file_bytes(base)
    for command in ("resize", base, "+1M"), ("check", "--repair", base):
        if command[0] == "check" and base.endswith(".raw"):
            continue
        result = leafctl(*command, check=False)
        assert result.returncode == 1 and child in result.stderr and "forget-child" in result.stderr, result
    assert_same(file_bytes(base), before, "the parent")


@pytest.mark.parametrize("mode", ["direct", "persistent", "writeback", "ephemeral"])
@pytest.mark.parametrize("how", ["there", "gone", "broken", "elsewhere"])
def test_nothing_changes_a_parent_in_a_mount(mount, pool, work, base, how, mode):
    child = os.path.join(pool, "a.leaf")
    leafctl("clone", base, child)
    lose(child, how, work)
    before = file_bytes(base)
    with mount("manage", *options_of(mode, work)) as live:
        shown = live.file("base.img")
        if mode == "ephemeral":
            result = leafctl("mode", shown, "direct", check=False)
            assert result.returncode == 1
        else:
            expect_errno(errno.EROFS, os.open, shown, os.O_RDWR)
            expect_errno(errno.EROFS, os.truncate, shown, 2 * SIZE)
        expect_errno(errno.EBUSY, os.unlink, shown)
        expect_errno(errno.EBUSY, os.rename, shown, live.file("other.img"))
        file_bytes(shown)
    assert_same(file_bytes(base), before, "the parent")


def test_a_mount_that_has_not_looked_since(mount, pool, base):
    """The children come while the mount runs, and nobody lists it."""
    with mount("manage") as live:
        shown = live.file("base.img")
        assert os.stat(shown).st_mode & 0o200
        leafctl("clone", base, os.path.join(pool, "a.leaf"))
        expect_errno(errno.EROFS, os.open, shown, os.O_RDWR)
    with mount("manage", "mode=ephemeral") as live:
        expect_errno(errno.EBUSY, os.unlink, live.file("base.img"))
    os.unlink(os.path.join(pool, "a.leaf"))
    leafctl("forget-child", base)
    with mount("manage") as live:
        assert os.stat(live.file("base.img")).st_mode & 0o200
        leafctl("clone", base, os.path.join(pool, "a.leaf"))
        expect_errno(errno.EBUSY, os.unlink, live.file("base.img"))
    assert os.path.exists(base)


def test_a_disk_that_is_written_has_no_child_made(mount, pool, base):
    child = os.path.join(pool, "a.leaf")
    with mount() as live:
        with opened(live.file("base.img")) as fd:
            write_all(fd, b"x", 0)
            result = leafctl("clone", base, child, check=False)
            assert result.returncode == 1 and "writes it" in result.stderr, result
            assert not os.path.exists(child)
        with opened(live.file("base.img"), os.O_RDONLY):
            result = leafctl("clone", base, child, check=False)
            assert result.returncode == 1 and "close it there" in result.stderr, result
            assert not os.path.exists(child)
    assert children(base) is None


def test_a_child_whose_store_does_not_answer(mount, pool, work, base):
    leafctl("clone", base, os.path.join(pool, "a.leaf"))
    with mount(env=faults("place.open/a.leaf:EIO")) as live:
        assert live.names() == ["base.img"]
        expect_errno(errno.EROFS, os.open, live.file("base.img"), os.O_RDWR)


def test_a_child_in_another_pool(mount, pool, work, base):
    other = os.path.join(work, "other")
    os.mkdir(other)
    leafctl("clone", "--layers", pool, base, os.path.join(other, "a.leaf"))
    with mount() as live:
        expect_errno(errno.EROFS, os.open, live.file("base.img"), os.O_RDWR)
    assert children(base) == os.path.join(other, "a.leaf")


@pytest.mark.alone
def test_a_parent_whose_store_is_read_only(pool, work, base):
    layers, child = os.path.join(work, "layers"), os.path.join(pool, "a.leaf")
    os.mkdir(layers)
    shutil.move(base, layers)
    base = os.path.join(layers, os.path.basename(base))
    run("mount", "--bind", layers, layers)
    try:
        run("mount", "-o", "remount,bind,ro", layers)
        result = leafctl("clone", "--layers", layers, base, child)
        assert "nothing there tells that it is a parent" in result.stderr
    finally:
        run("umount", layers)
    assert children(base) is None and os.path.exists(child)


@pytest.mark.parametrize("action", ["EIO", "crash"])
def test_each_write_of_a_clone(pool, base, action):
    """There is no child whose parent does not know it."""
    for point in "image.write", "image.sync", "image.children":
        for number in range(1, 20):
            child = os.path.join(pool, f"{point}{number}.leaf")
            result = leafctl("clone", base, child, check=False, env=faults(f"{point}:{action}@{number}x1"))
            if base.endswith(".leaf"):
                check_clean(base)
            if os.path.exists(child) and leafctl("info", child, check=False).returncode == 0:
                assert child in children(base) or "others" in children(base), (point, number)
            if result.returncode == 0:
                break
            assert action == "crash" or not os.path.exists(child)
        assert number < 19


def test_a_store_without_attributes(mount, pool, rng):
    """What a parent remembers is in a record beside it."""
    base, child = new_base(os.path.join(pool, "base.raw"), rng), os.path.join(pool, "a.leaf")
    none = faults("image.children:EOPNOTSUPP")
    result = leafctl("clone", base, child, env=none)
    assert "warning" not in result.stderr and children(base) is None
    os.unlink(child)
    assert child in leafctl("info", base, env=none).stdout
    with mount("manage", env=none) as live:
        expect_errno(errno.EROFS, os.open, live.file("base.img"), os.O_RDWR)
        expect_errno(errno.EBUSY, os.unlink, live.file("base.img"))
    leafctl("forget-child", base, env=none)
    with mount("manage", env=none) as live, opened(live.file("base.img")) as fd:
        write_all(fd, b"free", 0)


# ---- Settling ----------------------------------------------------------------


def test_forget_child(mount, pool, base):
    first, second = (os.path.join(pool, f"{name}.leaf") for name in "ab")
    leafctl("clone", base, first, second)
    for arguments in (), (first,), ("b.leaf",):
        result = leafctl("forget-child", base, *arguments, check=False)
        assert result.returncode == 1 and "still stands on it" in result.stderr, result
    assert "does not remember" in leafctl("forget-child", base, "c.leaf", check=False).stderr
    os.unlink(first)
    leafctl("forget-child", base, "a.leaf")
    assert children(base) == second
    with opened(second) as fd:
        write_all(fd, bytes(8 * KIB), 0)
    result = leafctl("forget-child", base, check=False)
    assert result.returncode == 1 and "--force" in result.stderr, result
    with mount() as live:
        expect_errno(errno.EROFS, os.open, live.file("base.img"), os.O_RDWR)
        leafctl("forget-child", "--force", live.file("base.img"))
        wait_until(lambda: os.stat(live.file(live.names()[0])).st_mode & 0o200, "the parent to be free")
        with opened(live.file("base.img")) as fd:
            write_all(fd, b"free", 0)
    assert children(base) is None
    assert leafctl("forget-child", base, check=False).returncode == 1


@pytest.mark.parametrize("arguments", [[], ["a.leaf"]], ids=["all", "one"])
@pytest.mark.parametrize("where", ["beside", "below", "named anew", "mount"])
def test_a_child_that_was_renamed_is_not_forgotten(mount, pool, base, where, arguments):
    child, renamed = os.path.join(pool, "a.leaf"), os.path.join(pool, "b.leaf")
    if where == "below":
        os.mkdir(os.path.join(pool, "below"))
        child, renamed = (os.path.join(pool, "below", name) for name in ("a.leaf", "b"))
    leafctl("clone", "--layers", pool, base, child)
    if where == "mount":
        with mount("manage") as live:
            os.rename(live.file("a.img"), live.file("b.img"))
    else:
        os.rename(child, renamed)
    if where == "named anew":
        make_image(child, SIZE)
    result = leafctl("forget-child", base, *arguments, check=False)
    assert result.returncode == 1 and f"{renamed} still stands on it" in result.stderr, result
    os.unlink(renamed)
    leafctl("forget-child", base, *arguments)
    assert children(base) is None


def test_a_child_whose_path_is_too_long_for_the_mark(pool, base):
    directory = os.path.join(pool, *["d" * 200] * 3)
    os.makedirs(directory)
    leafctl("clone", "--layers", pool, base, os.path.join(directory, "a.leaf"))
    for arguments in [], ["a.leaf"]:
        result = leafctl("forget-child", base, *arguments, check=False)
        assert result.returncode == 1 and "--force" in result.stderr, result
    leafctl("forget-child", "--force", base)
    assert children(base) is None


@pytest.mark.parametrize("through_the_mount", [False, True])
def test_a_parent_is_free_at_once(mount, pool, base, through_the_mount):
    """For who opens it: nobody has to list the pool before."""
    leafctl("clone", base, os.path.join(pool, "a.leaf"))
    with mount("manage") as live:
        expect_errno(errno.EROFS, os.open, live.file("base.img"), os.O_RDWR)
        os.unlink(live.file("a.img") if through_the_mount else os.path.join(pool, "a.leaf"))
        leafctl("forget-child", base)
        with opened(live.file("base.img")) as fd:
            write_all(fd, b"free", 0)


def test_forget_looks_at_what_the_mark_does_not_name(pool, base):
    for number in range(40):
        leafctl("create", "-b", base, os.path.join(pool, f"{number}.leaf"))
    for number in range(39):
        os.unlink(os.path.join(pool, f"{number}.leaf"))
    result = leafctl("forget-child", base, check=False)
    assert result.returncode == 1 and "39.leaf still stands on it" in result.stderr, result
    os.unlink(os.path.join(pool, "39.leaf"))
    leafctl("forget-child", base)
    assert children(base) is None


# ---- Images from before -------------------------------------------------------


@pytest.mark.parametrize("how", ["opened", "repaired"])
def test_a_child_from_before_marks_its_parent(mount, pool, base, how):
    middle, child = os.path.join(pool, "middle.leaf"), os.path.join(pool, "a.leaf")
    leafctl("clone", base, middle)
    leafctl("clone", middle, child)
    unmark(base)
    unmark(middle)
    assert children(base) is None
    with mount() as live:
        expect_errno(errno.EROFS, os.open, live.file("base.img"), os.O_RDWR)
        assert children(base) is None
        if how == "opened":
            with opened(live.file("a.img")) as fd:
                write_all(fd, b"x", 0)
    if how == "repaired":
        leafctl("check", "--repair", child)
    assert (children(base), children(middle)) == (middle, child)


# ---- A mark that is lost --------------------------------------------------------


def lose_mark(base, how, work):
    """By what an administrator does: its content stays, and the time when it was written."""
    if how == "copied":
        run("cp", "--preserve=timestamps", base, base + ".new")
        if base.endswith(".leaf"):
            unmark(base + ".new")
        os.rename(base + ".new", base)
    else:
        os.unlink(base)
        run("cp", "-a", os.path.join(work, "backup"), base)
    assert children(base) is None


@pytest.fixture(params=["copied", "restored"])
def unmarked(request, pool, work, base):
    """unmarked(CHILD): that is made, and its parent loses its mark."""
    other = os.path.join(work, "other")
    os.mkdir(other)
    run("cp", "-a", base, os.path.join(work, "backup"))
    return lambda child: (leafctl("clone", "--layers", pool, base, child), lose_mark(base, request.param, work))


def test_a_child_beside_a_parent_without_its_mark(mount, pool, base, unmarked):
    """The pool's mount sees it, and protects the parent as before."""
    unmarked(os.path.join(pool, "a.leaf"))
    with mount("manage") as live:
        expect_errno(errno.EROFS, os.open, live.file("base.img"), os.O_RDWR)
        expect_errno(errno.EROFS, os.truncate, live.file("base.img"), 2 * SIZE)
        expect_errno(errno.EBUSY, os.unlink, live.file("base.img"))
        with opened(live.file("a.img")) as fd:
            write_all(fd, b"own", 0)
    assert children(base) == os.path.join(pool, "a.leaf"), "its child has marked it again"


def test_a_child_elsewhere_marks_its_parent_by_command(mount, pool, work, base, unmarked):
    """Its mount writes nothing outside its pool."""
    child = os.path.join(work, "other", "a.leaf")
    unmarked(child)
    leafctl("rebase", "--accept", "--layers", pool, child)
    assert children(base) == child
    with mount() as live:
        expect_errno(errno.EROFS, os.open, live.file("base.img"), os.O_RDWR)


def test_a_child_elsewhere_of_a_parent_that_was_written(mount, pool, work, base, unmarked):
    """As it had lost its mark: nobody gets a mixture, and the parent as it was brings all back."""
    child, other = os.path.join(work, "other", "a.leaf"), os.path.join(work, "other")
    unmarked(child)
    content = file_bytes(base)
    with mount() as live, opened(live.file("base.img")) as fd:
        write_all(fd, b"x", 0)
    result = leafctl("map", "--layers", pool, child, check=False)
    assert result.returncode == 1 and "rebase --accept" in result.stderr, result
    with mount(f"layers={pool}", pool=other) as live:
        with pytest.raises(OSError):
            file_bytes(live.file("a.img"))
        assert "rebase --accept" in live.messages()
    os.unlink(base)
    run("cp", "-a", os.path.join(work, "backup"), base)
    assert file_bytes(base) == content or base.endswith(".leaf")
    leafctl("map", "--layers", pool, child)


# ---- A parent that has changed ------------------------------------------------


def change(base, content, how, work):
    """CONTENT in the place of what is there."""
    new = os.path.join(work, "new.raw")
    make_raw(new, content)
    if how == "mv":
        os.rename(new, base)
    elif how == "cp":
        run("cp", new, base)
    elif how == "restored":
        os.unlink(base)
        shutil.copy2(new, base)


@pytest.mark.parametrize("how", ["mv", "cp", "restored"])
def test_a_raw_parent_that_has_changed(mount, pool, work, rng, how):
    base = new_base(os.path.join(pool, "base.raw"), rng)
    child, content = os.path.join(pool, "a.leaf"), rng.randbytes(SIZE)
    leafctl("clone", base, child)
    shutil.copy2(base, os.path.join(work, "backup.raw"))
    change(base, content, how, work)
    for command in "map", "check":
        result = leafctl(command, child, check=False)
        assert result.returncode != 0 and "rebase --accept" in result.stdout + result.stderr, result
    with mount() as live:
        with pytest.raises(OSError):
            file_bytes(live.file("a.img"))
        assert "rebase --accept" in live.messages()
        accept(child)
        wait_until(lambda: "a.img" in live.names(), "the disk to be shown")
        assert_same(file_bytes(live.file("a.img")), content, "the child")
    assert child in children(base)
    # The one that it was made of has come back: another one than it was told to accept.
    shutil.copy2(os.path.join(work, "backup.raw"), base)
    assert "rebase --accept" in leafctl("map", child, check=False).stderr


def test_a_parent_that_is_restored_as_it_was(pool, work, rng):
    base = new_base(os.path.join(pool, "base.raw"), rng)
    child, backup = os.path.join(pool, "a.leaf"), os.path.join(work, "backup.raw")
    leafctl("clone", base, child)
    shutil.copy2(base, backup)
    os.unlink(base)
    shutil.copy2(backup, base)
    leafctl("map", child)


def test_a_leaf_parent_that_has_changed(mount, pool):
    base, child = (os.path.join(pool, f"{name}.leaf") for name in ("base", "a"))
    make_image(base, SIZE)
    leafctl("clone", base, child)
    leafctl("forget-child", "--force", base)
    leafctl("resize", base, "+1M")
    result = leafctl("map", child, check=False)
    assert result.returncode == 1 and "rebase --accept" in result.stderr
    assert leafctl("rebase", child, check=False).returncode == 2
    accept(child)
    leafctl("map", child)
    assert children(base) == child
    assert "has no parent" in leafctl("rebase", "--accept", base, check=False).stderr


# ---- A lower layer that is replaced -------------------------------------------


def is_refused(path, number):
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        assert error.errno == number, error
        return True
    return False


@pytest.mark.parametrize("how", ["mv", "cp", "restored"])
@pytest.mark.parametrize("mode", ["direct"] + CACHED)
def test_a_layer_that_is_replaced_while_nothing_has_it_open(mount, pool, work, rng, mode, how):
    """Neither the kernel's pages nor cached blocks of the old one are shown."""
    base, child = new_base(os.path.join(pool, "base.raw"), rng), os.path.join(pool, "a.leaf")
    leafctl("clone", base, child)
    options = options_of(mode, work)
    if mode != "direct":
        options.append("read_run_bypass=1G")
    with mount(*options) as live:
        shown = live.file("a.img")
        with opened(shown) as fd:
            write_all(fd, b"own" * 4096, 0)
            os.fsync(fd)
        file_bytes(shown)
        for _ in range(2):
            content = rng.randbytes(SIZE)
            leafctl("drain", live.path) if mode == "writeback" else None
            change(base, content, how, work)
            accept(child)
            wait_until(lambda: "a.img" in live.names(), "the disk to be shown")
            expected = (b"own" * 4096) + content[12288:]
            assert_same(file_bytes(shown), expected, "through the page cache")
            result = subprocess.run(["dd", f"if={shown}", "bs=1M", "iflag=direct", "status=none"], check=True,
                                    stdout=subprocess.PIPE, timeout=60)
            assert_same(result.stdout, expected, "with O_DIRECT")
    with mount(*options_of(mode, work)) as live:
        assert_same(file_bytes(live.file("a.img")), expected, "after another mount")


@pytest.mark.parametrize("mode", ["direct"] + CACHED)
def test_a_layer_that_is_written_while_it_is_open(mount, pool, work, rng, mode):
    """Nobody else gets a mixture of what it was and what it is."""
    base, content = new_base(os.path.join(pool, "base.raw"), rng), rng.randbytes(SIZE)
    first, second = (os.path.join(pool, f"{name}.leaf") for name in "ab")
    leafctl("clone", base, first, second)
    with mount(*options_of(mode, work)) as live:
        with opened(live.file("a.img"), os.O_RDONLY) as fd:
            read_all(fd, SIZE // 2, 0)
            change(base, content, "cp", work)
            accept(second)
            expect_errno(errno.ESTALE, os.open, live.file("b.img"), os.O_RDONLY)
            assert "close them first" in live.messages()
        wait_until(lambda: not is_refused(live.file("b.img"), errno.ESTALE), "the other one to be closed")
        assert_same(file_bytes(live.file("b.img")), content, "once the other is closed")
        with opened(live.file("b.img"), os.O_RDONLY):
            leafctl("clone", base, os.path.join(pool, "c.leaf"))
            assert_same(file_bytes(live.file("c.img")), content, "a mark is no change")


def test_changes_of_an_ephemeral_disk_on_another_base(mount, pool, rng, work):
    base, child = new_base(os.path.join(pool, "base.raw"), rng), os.path.join(pool, "a.leaf")
    leafctl("clone", base, child)
    with mount(*options_of("ephemeral", work)) as live:
        with opened(live.file("a.img")) as fd:
            write_all(fd, b"own", 0)
        leafctl("clone", base, os.path.join(pool, "b.leaf"))
        assert file_bytes(live.file("a.img"))[:3] == b"own", "a mark is no change"
        change(base, rng.randbytes(SIZE), "mv", work)
        accept(child)
        wait_until(lambda: "a.img" in live.names(), "the disk to be shown")
        expect_errno(errno.ESTALE, os.open, live.file("a.img"), os.O_RDONLY)
        assert "only this mount has" in live.messages()
    with mount(*options_of("ephemeral", work)) as live:
        assert_same(file_bytes(live.file("a.img")), file_bytes(base), "in the next mount")


@pytest.mark.parametrize("mode", ["direct", "ephemeral"] + CACHED)
def test_a_layer_that_is_replaced_while_it_is_open(mount, pool, work, rng, mode):
    """Who has it open goes on with the old one; who opens it is refused, or has the new one."""
    base = new_base(os.path.join(pool, "base.raw"), rng)
    old, content = file_bytes(base), rng.randbytes(SIZE)
    first, second = (os.path.join(pool, f"{name}.leaf") for name in "ab")
    leafctl("clone", base, first, second)
    with mount(*options_of(mode, work)) as live:
        file_bytes(live.file("b.img"))
        with opened(live.file("a.img"), os.O_RDONLY) as fd:
            read_all(fd, SIZE // 2, 0)
            change(base, content, "mv", work)
            with pytest.raises(OSError):
                file_bytes(live.file("b.img"))
            accept(second)
            wait_until(lambda: "b.img" in live.names(), "the disk to be shown")
            assert_same(file_bytes(live.file("b.img")), content, "the one that is opened")
            assert_same(read_all(fd, SIZE, 0), old, "the one that was open")
        # The kernel tells of a close after it.
        wait_until(lambda: is_refused(live.file("a.img"), errno.ESTALE), "the one that was open to be refused")
    accept(first)
    with mount(*options_of(mode, work)) as live:
        assert_same(file_bytes(live.file("a.img")), content, "afterwards")
