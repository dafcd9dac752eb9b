"""A guest's file system on a clone, through a loop device with direct I/O."""
import hashlib
import os
import shutil

import pytest

from harness import KIB, MIB, Loop, check_clean, leafctl, run, scaled

TREES = ("/usr/include", "/usr/share/doc", "/usr/share", "/usr/lib")
# What a leaf takes besides its data: both headers, the journal and the pages
# of the chunk table, each in two places.
METADATA_BYTES = 1 * MIB + 256 * KIB


def collect_tree(target, limit):
    """Copies real files until there are LIMIT bytes; their relative paths."""
    copied, total = [], 0
    for top in TREES:
        for directory, subdirectories, names in os.walk(top):
            subdirectories.sort()
            for name in sorted(names):
                source = os.path.join(directory, name)
                if total >= limit:
                    return copied
                if os.path.islink(source) or not os.path.isfile(source):
                    continue
                relative = os.path.relpath(source, "/usr")
                os.makedirs(os.path.dirname(os.path.join(target, relative)), exist_ok=True)
                shutil.copyfile(source, os.path.join(target, relative))
                total += os.path.getsize(source)
                copied.append(relative)
    return copied


def digest(path):
    with open(path, "rb") as file:
        return hashlib.blake2b(file.read()).hexdigest()


def digests(directory):
    found = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            found[os.path.relpath(path, directory)] = digest(path)
    return found


@pytest.fixture
def tree(work):
    path = os.path.join(work, "tree")
    os.mkdir(path)
    collect_tree(path, scaled(50, 100) * MIB)
    return path


@pytest.fixture
def base(pool, tree):
    path = os.path.join(pool, "base.raw")
    run("mke2fs", "-q", "-t", "ext4", "-d", tree, path, "320M")
    os.chmod(path, 0o600)
    return path


def work_in_guest(guest, tree, tag):
    """Unpacks, deletes, overwrites and trims; what the files must then be."""
    shutil.copytree(tree, os.path.join(guest, tag))
    for number, relative in enumerate(sorted(digests(os.path.join(guest, tag)))):
        path = os.path.join(guest, tag, relative)
        if number % 3 == 0:
            os.unlink(path)
        elif number % 7 == 0:
            with open(path, "r+b") as file:
                file.write(b"overwritten")
    run("sync", "-f", guest)
    run("fstrim", guest)
    shutil.copytree(os.path.join(tree, "include"), os.path.join(guest, tag + "-again"))
    run("sync", "-f", guest)
    return digests(guest)


@pytest.mark.slow
def test_clone_is_a_disk(mount, pool, work, tree, base):
    base_digest = digest(base)
    clones = [os.path.join(pool, name) for name in ("web1.leaf", "web2.leaf")]
    leafctl("clone", base, *clones)
    expected, written = {}, {}
    with mount() as live:
        for clone in clones:
            name = os.path.basename(clone).replace(".leaf", ".img")
            with Loop(live.file(name)) as loop:
                guest = loop.mount(os.path.join(work, "guest"))
                expected[name] = work_in_guest(guest, tree, name)
                loop.unmount()
                run("blockdev", "--flushbufs", loop.device)
                written[clone] = loop.sectors_written() * 512
    check_clean(*clones)
    # No more space than was written, and two in a hundred.
    for clone in clones:
        used = os.stat(clone).st_blocks * 512
        assert used <= written[clone] * 1.02 + METADATA_BYTES, f"{used} bytes for {written[clone]} written"
    with mount() as live:
        for name, files in expected.items():
            run("e2fsck", "-fn", live.file(name))
            with Loop(live.file(name)) as loop:
                guest = loop.mount(os.path.join(work, "guest"), "-o", "ro")
                assert digests(guest) == files
    assert digest(base) == base_digest, "the base was written"
    run("e2fsck", "-fn", base)


def test_trimmed_file_system_takes_little(mount, pool, work, tree, base):
    """Space that the guest gives back comes back to the pool."""
    clone = os.path.join(pool, "web1.leaf")
    leafctl("clone", base, clone)
    with mount() as live, Loop(live.file("web1.img")) as loop:
        guest = loop.mount(os.path.join(work, "guest"))
        shutil.copytree(tree, os.path.join(guest, "copy"))
        run("sync", "-f", guest)
        full = os.stat(clone).st_blocks * 512
        shutil.rmtree(os.path.join(guest, "copy"))
        run("sync", "-f", guest)
        run("fstrim", guest)
        run("sync", "-f", guest)
    left = os.stat(clone).st_blocks * 512
    assert full > 40 * MIB
    assert left < full / 3, f"{left} of {full} bytes are left after the trim"
    check_clean(clone)


def test_daemon_killed_under_a_file_system(mount, pool, work, tree, base):
    """After a kill the guest's journal brings back a sound file system with
    all that was synced."""
    clone = os.path.join(pool, "web1.leaf")
    leafctl("clone", base, clone)
    live = mount()
    loop = Loop(live.file("web1.img"))
    guest = loop.mount(os.path.join(work, "guest"))
    shutil.copytree(os.path.join(tree, "include"), os.path.join(guest, "synced"))
    run("sync", "-f", guest)
    expected = digests(os.path.join(guest, "synced"))
    shutil.copytree(os.path.join(tree, "include"), os.path.join(guest, "not-synced"))
    live.kill()
    run("umount", "-l", guest)
    loop.mounted = None
    loop.finalise()
    live.kill9()
    check_clean(clone)
    with mount() as live:
        run("e2fsck", "-fp", live.file("web1.img"), check=False)
        run("e2fsck", "-fn", live.file("web1.img"))
        with Loop(live.file("web1.img")) as loop:
            guest = loop.mount(os.path.join(work, "guest"))
            assert digests(os.path.join(guest, "synced")) == expected
