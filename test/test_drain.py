"""What is dirty is written back: by commands, and at the end of a mount; and it
can be given up at any time.

Dirty data is many small epochs here, one for each fsync, that are held back by
the tunables and, where it is to take a while, written back one by one to a store
that takes its time."""
import contextlib
import glob
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

import cleanup
from harness import (BLOCK, MIB, MOUNT_VARIABLE, PATIENCE, Loop, MountError, apart, assert_same, converted,
                     file_bytes, leafctl, make_image, opened, process_ended, program, run, scaled, unmount, wait_until, write_all)
from test_slow_store import Store

HELD = ["migrate_idle_ms=60000", "max_dirty_age=86400", "migrate_threshold=100"]
SLOW = [*HELD, "migrate_batch=1"]
EPOCHS = scaled(250, 1000)
EPOCH_BLOCKS = 64  # fewer could be written back together
DISK_BYTES = 16 * MIB


@pytest.fixture
def web1(pool):
    return make_image(os.path.join(pool, "web1.leaf"), DISK_BYTES)


@pytest.fixture
def writeback(mount, pool, work, web1, other_store):
    """On a slow store where the options are those that want one."""
    return lambda *options: mount("mode=writeback", f"cache={work}/cache", "cache_size=256M", *options,
                                  env=other_store.slow(pool) if set(SLOW) <= set(options) else None)


def make_dirty(live, rng):
    """Returns what the disk holds then."""
    content = bytearray(DISK_BYTES)
    with opened(live.file("web1.img")) as fd:
        for _ in range(EPOCHS):
            for block in rng.sample(range(DISK_BYTES // BLOCK), EPOCH_BLOCKS):
                place = block * BLOCK
                content[place:place + BLOCK] = rng.randbytes(BLOCK)
                write_all(fd, content[place:place + BLOCK], place)
            os.fsync(fd)
    return bytes(content)


def text_of(live, *names):
    with open(live.control(*names), encoding="utf-8") as file:
        return file.read()


def dirty_bytes(live):
    return int(text_of(live, "drain"))


def in_the_pool(web1, work):
    return converted(web1, work)


def start_drain(path):
    return subprocess.Popen([program("leafctl"), "drain", path], stderr=subprocess.PIPE, text=True)


def await_progress(live):
    before = dirty_bytes(live)
    wait_until(lambda: dirty_bytes(live) < before, "something to be written back")


def path_of(live, what):
    return live.path if what == "mount" else live.file("web1.img")


# ---- By a command ------------------------------------------------------------


@pytest.mark.parametrize("what", ["mount", "file"])
def test_drain(writeback, web1, work, rng, what):
    live = writeback(*HELD, "nodrain")
    content = make_dirty(live, rng)
    dirty = dirty_bytes(live)
    assert dirty >= MIB and dirty == int(text_of(live, "disks", "web1.img", "drain"))
    status = json.loads(leafctl("status", "--json", live.file("web1.img")).stdout)
    assert status["dirty_bytes"] == dirty and status["dirty_age_ms"] > 0
    assert re.search(r"^web1\.img .* writeback +active +[0-9]+ +here +[0-9.]+ MiB, [0-9]+\.[0-9] s",
                     leafctl("status", live.path).stdout, re.M)
    assert json.loads(text_of(live, "stats"))["dirty_bytes"] == dirty
    assert f'leafdisk_dirty_bytes{{mount="{live.path}"}} {dirty}\n' in text_of(live, "metrics")
    for _ in range(2):
        assert leafctl("drain", path_of(live, what)).stderr == ""
        assert dirty_bytes(live) == 0
    live.stop()
    assert in_the_pool(web1, work) == content


def test_a_disk_that_is_renamed_meanwhile_is_no_business_of_a_drain(writeback, pool, rng):
    make_image(os.path.join(pool, "web2.leaf"), MIB)
    live = writeback("manage", *SLOW)
    make_dirty(live, rng)
    drain = start_drain(live.path)
    await_progress(live)
    os.rename(live.file("web2.img"), live.file("web3.img"))
    with opened(live.file("web3.img")) as fd:
        write_all(fd, b"n" * BLOCK, 0)
        os.fsync(fd)
    assert drain.poll() is None, "the drain was over before"
    with open(live.control("tunables", "migrate_batch"), "w", encoding="ascii") as file:
        file.write("4096\n")
    _, messages = drain.communicate(timeout=PATIENCE)
    assert drain.returncode == 0, messages
    assert dirty_bytes(live) >= BLOCK
    live.stop()


@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
def test_an_image_that_goes_while_it_is_open(writeback, web1, work, rng, how):
    """A drain, and the end of the mount, know of its changes: a file that was moved gets them, and
    they are not written to one that is gone."""
    other = shutil.copy(web1, os.path.join(work, "other.leaf"))
    live = writeback(*HELD)
    with opened(live.file("web1.img")):
        content = make_dirty(live, rng)
        dirty = dirty_bytes(live)
        if how == "moved":
            os.rename(web1, other)
        elif how == "removed":
            os.unlink(web1)
        else:
            os.replace(other, web1)
        live.names()
        assert dirty_bytes(live) >= dirty
        drained = leafctl("drain", live.path, check=False)
    unmount(live.path)
    assert live.wait() == drained.returncode == (how != "moved"), drained
    if how == "moved":
        assert in_the_pool(other, work) == content
    else:
        said = f"{web1}: was removed, or another file put in its place, while it was open"
        assert said in drained.stderr and said in live.messages()
    live.finalise()


@pytest.mark.parametrize("what", ["mount", "file"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_drain_is_given_up(writeback, rng, what, number):
    """By everyone who waits for it, and none has to wait for another."""
    live = writeback(*SLOW, "nodrain")
    make_dirty(live, rng)
    children = [start_drain(path_of(live, what)) for _ in range(2)]
    await_progress(live)
    for child in children:
        child.send_signal(number)
        assert child.wait(PATIENCE) == 1
        said = child.stderr.read()
        left = r"\S+ .iB of changes stay in the cache: web1\.img" if what == "mount" else \
            r"web1\.img: given up; what is left stays in the cache"
        assert re.fullmatch(rf"leafctl: stopped by signal {number.value}: {left}; the command can be run again\n", said), said
    assert dirty_bytes(live) > 0
    leafctl("set", live.path, "migrate_batch=16384")
    leafctl("drain", live.path)
    assert dirty_bytes(live) == 0
    live.stop()


def test_a_shell_that_is_killed_gives_up(writeback, rng):
    live = writeback(*SLOW, "nodrain")
    make_dirty(live, rng)
    with subprocess.Popen(["sh", "-c", 'echo 1 >"$1"', "sh", live.control("drain")]) as child:
        await_progress(live)
        child.kill()
        assert child.wait(PATIENCE) == -signal.SIGKILL
    assert dirty_bytes(live) > 0
    live.stop()


def test_the_end_of_the_mount_gives_up_a_drain(writeback, rng):
    live = writeback(*SLOW, "nodrain")
    make_dirty(live, rng)
    child = start_drain(live.path)
    await_progress(live)
    os.kill(live.pid, signal.SIGTERM)
    assert live.wait() == 0
    assert child.wait(PATIENCE) == 1 and child.stderr.read().startswith("leafctl: ")


def test_leaving_writeback_drains(writeback, web1, work, rng):
    live = writeback(*HELD, "nodrain")
    content = make_dirty(live, rng)
    leafctl("mode", live.file("web1.img"), "direct")
    assert dirty_bytes(live) == 0 and text_of(live, "disks", "web1.img", "mode") == "direct\n"
    live.stop()
    assert in_the_pool(web1, work) == content


def test_leaving_writeback_is_given_up(writeback, rng):
    live = writeback(*SLOW, "nodrain")
    make_dirty(live, rng)
    child = subprocess.Popen([program("leafctl"), "mode", live.file("web1.img"), "direct"], stderr=subprocess.PIPE)
    await_progress(live)
    child.send_signal(signal.SIGINT)
    assert child.wait(PATIENCE) == 1
    assert text_of(live, "disks", "web1.img", "mode") == "writeback\n"
    live.stop()


# ---- At the end --------------------------------------------------------------


def end(live, how):
    if how == "signal":
        os.kill(live.pid, signal.SIGTERM)
    elif how == "unmount":
        unmount(live.path)
    else:
        run(*{"lazy": ["fusermount3", "-uz"], "force": ["umount", "-f"]}[how], live.path, check=False)


@pytest.mark.parametrize("how,is_open", [("unmount", False), ("lazy", False), ("force", True), ("signal", True)])
def test_the_end_drains(writeback, web1, work, rng, how, is_open):
    live = writeback(*HELD)
    content = make_dirty(live, rng)
    fd = os.open(live.file("web1.img"), os.O_RDWR) if is_open else None
    end(live, how)
    assert live.wait() == 0
    assert "leafdisk: all changes are in the pool\n" in live.messages()
    if is_open:
        with contextlib.suppress(OSError):
            os.close(fd)
    assert in_the_pool(web1, work) == content
    with writeback(*HELD) as live:
        pass
    assert "all changes" not in live.messages()


def test_nobody_waits_at_a_mount_that_drains(writeback, rng):
    live = writeback(*SLOW)
    make_dirty(live, rng)
    fd = os.open(live.control("version"), os.O_RDONLY)
    os.kill(live.pid, signal.SIGTERM)
    wait_until(lambda: not live.is_live(), "the mount to go")
    with pytest.raises(OSError):
        os.pread(fd, 1, 0)
    with contextlib.suppress(OSError):
        os.close(fd)
    assert not live.has_ended()
    os.kill(live.pid, signal.SIGTERM)
    assert live.wait() == 1


def has_noticed_its_end(live):
    """As it tells its successor."""
    for fd in os.listdir(f"/proc/{live.pid}/fd"):
        path = f"/proc/{live.pid}/fd/{fd}"
        with contextlib.suppress(OSError):
            if os.readlink(path) == "/memfd:leafdisk-rest (deleted)":
                return file_bytes(path).startswith(b"ended ")
    return False


def test_the_end_is_given_up(writeback, web1, work, rng):
    """What stays behind is there for the next mount."""
    live = writeback(*SLOW)
    content = make_dirty(live, rng)
    unmount(live.path)
    wait_until(lambda: has_noticed_its_end(live), "the end")
    os.kill(live.pid, signal.SIGINT)
    assert live.wait() == 1
    said = live.messages()
    assert "signal INT" in said and "leafdisk: error: " in said and "all changes" not in said
    with writeback(*HELD) as live:
        assert dirty_bytes(live) > 0
    assert "all changes are in the pool" in live.messages()
    assert in_the_pool(web1, work) == content


def test_umount(writeback, web1, work, rng):
    """Who uses the mount is named; then the pool has everything, and the daemon has ended."""
    content = rng.randbytes(MIB)
    live = writeback(*HELD, "nodrain")
    with opened(live.file("web1.img")) as fd:
        write_all(fd, content, 0)
        os.fsync(fd)
        said = leafctl("umount", live.path, check=False)
        assert said.returncode == 1 and f"(pid {os.getpid()}) uses {live.file('web1.img')}" in said.stderr
    with Loop(live.file("web1.img")) as loop:
        said = leafctl("umount", live.path, check=False)
        assert said.returncode == 1 and f"{loop.device} (losetup -d {loop.device}) uses" in said.stderr
    leafctl("umount", live.path)
    assert live.has_ended() and live.status == 0
    live.finalise()
    assert "stay in the cache" not in live.messages()
    assert_same(converted(web1, work)[:MIB], content, "the image")


def test_umount_says_what_frees_a_loop_device(writeback, web1, work):
    """While it is mounted losetup does not, and says nothing."""
    live = writeback(*HELD)
    with Loop(live.file("web1.img")) as loop:
        run("mkfs.ext4", "-q", loop.device)
        guest = loop.mount(os.path.join(work, "a guest"))
        said = leafctl("umount", live.path, check=False)
        assert said.returncode == 1 and f"{loop.device} (umount {guest}, losetup -d {loop.device}) uses" in said.stderr
    leafctl("umount", live.path)
    live.finalise()


ELSEWHERE = "echo ready; read -r line"
# The path is another thing's there.
HIDDEN = 'umount "$0" && mount -t tmpfs none "$0" && cd "$0" && ' + ELSEWHERE


@contextlib.contextmanager
def in_a_namespace(script, live):
    with subprocess.Popen([*apart(os.path.dirname(live.path)), "bash", "-c", script, live.path],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        yield child
        child.stdin.close()


def test_umount_of_what_is_also_mounted_elsewhere(writeback, web1, work):
    """Who has it is told, and its end is waited for. What has only the path of it is nobody who uses it."""
    live = writeback(*HELD)
    with in_a_namespace(HIDDEN, live), in_a_namespace(ELSEWHERE, live) as holder:
        log = os.path.join(work, "said")
        with open(log, "w", encoding="utf-8") as said:
            umount = subprocess.Popen([program("leafctl"), "umount", "."], cwd=live.path, stderr=said)
        wait_until(lambda: os.path.getsize(log), "leafctl to say what it waits for")
        with open(log, encoding="utf-8") as said:
            assert re.search(rf"until it is unmounted elsewhere too:.* \(pid {holder.pid}\) has it at {live.path}, in a "
                             "mount namespace", said.read())
        assert umount.poll() is None and not live.has_ended()
    assert umount.wait(PATIENCE) == 0 and live.has_ended()
    live.finalise()


def give_up_once_said(live, work, words):
    """By a thread, as whoever waits for LIVE says so in a log of WORK."""
    def wait_and_signal():
        wait_until(lambda: any(words in file_bytes(path) for path in glob.glob(os.path.join(work, "daemon*.log"))), words)
        os.kill(live.pid, signal.SIGTERM)
    threading.Thread(target=wait_and_signal).start()


def test_the_next_mount_waits_for_the_end_of_the_last(writeback, web1, work, rng):
    """It says for whom, and begins when that one has ended, be it that it gave up."""
    live = writeback(*SLOW)
    make_dirty(live, rng)
    unmount(live.path)
    give_up_once_said(live, work, b"still writes back")
    following = writeback(*HELD)
    said = re.search(rf"\(pid {live.pid}\) still writes back ([\d.]+ [KM]iB) of changes; this one begins when",
                     following.messages())
    assert said, following.messages()
    assert "in use by another program" not in following.messages()
    assert live.wait() == 1
    live.finalise()
    following.stop()


def test_a_mount_that_begins_is_none_that_has_ended(mount, pool, work, web1):
    """Of two that begin at once one is refused: it does not wait for the end of the other."""
    options = ["mode=writeback", f"cache={work}/cache", "cache_size=16M"]
    store = Store(pool, work)
    store.gate.open()
    begun = []
    first = threading.Thread(target=lambda: begun.append(mount(
        *options, env={**store.env, "SLOW_HANG": os.path.basename(web1)})))
    first.start()
    try:
        wait_until(lambda: os.path.exists(store.log) and store.calls_on(os.path.basename(web1)), "it to list the pool")
        with pytest.raises(MountError, match="has the cache") as refused:
            mount(*options)
        assert "still writes back" not in refused.value.messages
    finally:
        store.gate.close()
        first.join()
    begun[0].stop()


def test_the_service_manager_gives_a_mount_that_waits_more_time(writeback, pool, work, rng):
    """And shows how far the one before is."""
    live = writeback(*SLOW)
    make_dirty(live, rng)
    unmount(live.path)
    name = "leafdisk-test-" + os.path.basename(work)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        manager.settimeout(PATIENCE)
        point = os.path.join(work, "notified")
        os.mkdir(point)
        with subprocess.Popen([program("leafdisk"), pool, point, "-f", "-o", ",".join([*live.options[:3], *HELD])],
                              env={**os.environ, "NOTIFY_SOCKET": "@" + name},
                              stderr=subprocess.DEVNULL) as following:
            said = manager.recv(4096).decode()
            assert re.fullmatch(rf"STATUS=the mount before \(pid {live.pid}\): [0-9.]+ [KM]iB left to write back, .*\n"
                                "EXTEND_TIMEOUT_USEC=60000000", said), said
            os.kill(live.pid, signal.SIGTERM)
            while (said := manager.recv(4096)) != b"READY=1":
                assert said.startswith(b"STATUS=the mount before")
            unmount(point)
            assert following.wait(PATIENCE) == 0
    assert live.wait() == 1
    live.finalise()


def test_the_next_mount_says_how_far_the_last_is(writeback, pool, work, rng):
    """On the terminal of a mount that goes into the background, too."""
    live = writeback(*SLOW)
    make_dirty(live, rng)
    options = ",".join([*live.options[:3], *HELD])
    unmount(live.path)
    point = os.path.join(work, "terminal")
    os.mkdir(point)
    shown = rf"the mount before \(pid {live.pid}\): [0-9.]+ [KM]iB left to write back, [0-9.]+ [KM]?i?B/s(?:, [0-9]+ (?:s|min|h) to go)?"
    status, said = on_terminal([program("leafdisk"), pool, point, "-o", options], b" to go",
                               lambda _: os.kill(live.pid, signal.SIGTERM), env={MOUNT_VARIABLE: point})
    assert status == 0 and re.search(rb"\r\x1b\[K" + shown.encode() + rb"\r\x1b\[K", said), said
    assert live.wait() == 1
    live.finalise()
    unmount(point)
    wait_until(lambda: not cleanup.processes_with(MOUNT_VARIABLE, point), "the daemon's end")


def test_the_next_mount_finds_one_that_mount_made(writeback, pool, work, rng):
    """mount(8) runs mount.leafdisk, which is leafdisk by another name."""
    helper = os.path.join(work, "mount.leafdisk")
    os.symlink(program("leafdisk"), helper)
    live = writeback(*HELD)
    options = ",".join([*live.options[:3], *SLOW])
    live.stop()
    point = os.path.join(work, "helped")
    os.mkdir(point)
    run(helper, pool, point, "-o", options, env={MOUNT_VARIABLE: point})
    with opened(os.path.join(point, "web1.img")) as fd:
        for block in range(512):
            write_all(fd, rng.randbytes(BLOCK), block * 8 * BLOCK)
            os.fsync(fd)
    pid = int(text_in(point, "pid"))
    busy = writeback_refused(writeback)
    assert f"the leafdisk with pid {pid} has the cache" in busy
    unmount(point)
    following = writeback(*HELD)
    assert process_ended(pid, 0)
    following.stop()


def writeback_refused(writeback):
    with pytest.raises(MountError) as caught:
        writeback(*HELD)
    return caught.value.messages


def text_in(point, *names):
    with open(os.path.join(point, ".leafdisk", *names), encoding="utf-8") as file:
        return file.read()


def test_nodrain(writeback, web1, work, rng):
    live = writeback(*HELD, "nodrain")
    content = make_dirty(live, rng)
    dirty = dirty_bytes(live)
    live.stop()
    assert "all changes" not in live.messages() and "left to write back" not in live.messages()
    assert "of changes stay in the cache (nodrain)" in live.messages()
    with writeback(*HELD) as live:
        assert dirty_bytes(live) == dirty
    assert in_the_pool(web1, work) == content


# ---- On a terminal -----------------------------------------------------------


def on_terminal(command, words, action, env=None):
    """Runs COMMAND; ACTION, once the terminal shows one of WORDS. Its exit
    status and all that was shown."""
    leader, follower = pty.openpty()
    said = b""
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
                          env={**os.environ, **env} if env else None) as child:
        os.close(follower)
        with contextlib.suppress(OSError):
            while data := os.read(leader, 4096):
                said += data
                if words and words in said:
                    words = None
                    action(child)
        os.close(leader)
        return child.wait(PATIENCE), said


PROGRESS = rb"\r\x1b\[K[0-9.]+ [KM]iB left to write back, [0-9.]+ [KM]?i?B/s(?:, [0-9]+ (?:s|min|h) to go)?\r\x1b\[K"


def test_drain_on_a_terminal(writeback, rng):
    live = writeback(*SLOW, "nodrain")
    make_dirty(live, rng)
    status, said = on_terminal([program("leafctl"), "drain", live.path], b"left to write back",
                               lambda child: child.send_signal(signal.SIGINT))
    assert status == 1 and re.search(PROGRESS + rb"leafctl: stopped by signal 2", said), said
    live.stop()


def test_umount_is_given_up(writeback, web1, work, rng):
    """By ^C at the terminal that shows how far it has come: the mount is as it was."""
    live = writeback(*SLOW)
    content = make_dirty(live, rng)
    status, said = on_terminal([program("leafctl"), "umount", live.path], b"left to write back",
                               lambda child: os.killpg(child.pid, signal.SIGINT))
    assert status == 1 and re.search(PROGRESS + rb"leafctl: stopped by signal 2", said), said
    assert live.is_live() and not live.has_ended() and dirty_bytes(live) > 0
    with opened(live.file("web1.img")) as fd:
        assert_same(os.pread(fd, DISK_BYTES, 0), content, "the disk")
        write_all(fd, b"after" * 100, 0)
    leafctl("set", live.path, "migrate_batch=16384")
    leafctl("umount", live.path)
    assert live.has_ended() and live.status == 0
    live.finalise()
    assert_same(in_the_pool(web1, work), b"after" * 100 + content[500:], "the image")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_umount_that_is_given_up_at_any_time(writeback, number):
    """The mount is there, with all that it was, or it is not, and has ended in order."""
    for delay_ms in range(0, 40, 4):
        live = writeback(*HELD)
        with opened(live.file("web1.img")) as fd:
            write_all(fd, b"x" * BLOCK, 0)
            os.fsync(fd)
        with subprocess.Popen([program("leafctl"), "umount", live.path], stderr=subprocess.PIPE, text=True) as child:
            time.sleep(delay_ms / 1000)
            child.send_signal(number)
            said = child.communicate(timeout=PATIENCE)[1]
        if live.is_live():
            assert child.returncode == -number or "stays mounted" in said or "run again" in said, said
            live.stop()
        else:
            assert child.returncode == 0 or "is unmounted, and its daemon" in said, said
            assert live.wait() == 0
            live.finalise()


def test_the_end_on_a_terminal(writeback, pool, work, rng):
    live = writeback(*HELD, "nodrain")
    make_dirty(live, rng)
    options = live.options
    live.stop()
    point = os.path.join(work, "terminal")
    os.mkdir(point)
    status, said = on_terminal([program("leafdisk"), pool, point, "-f", "-o", ",".join([*options[:3], *SLOW])],
                               b"mounted on", lambda child: unmount(point))
    assert status == 0 and re.search(PROGRESS, said) and b"leafdisk: all changes are in the pool\r\n" in said, said
