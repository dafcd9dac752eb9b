"""What the daemon may do while it serves, and who starts what it may not start itself."""
import errno
import os
import pwd
import re
import signal

import pytest

import cleanup
import harness
from harness import (BUILD, MIB, MOUNT_VARIABLE, PATIENCE, SANITIZED, TREE, Loop, Stopwatch, assert_same, converted,
                     expect_errno, file_bytes, leafctl, make_image, name_of, opened, process_ended, program, read_all, run,
                     wait_until, write_all)

NOBODY = pwd.getpwnam("nobody")
SECCOMP_FILTER = "2"
NEEDED = sum(1 << number for number in (1, 2, 3, 21, 24))


@pytest.fixture
def web1(pool):
    return make_image(os.path.join(pool, "web1.leaf"), "4M")


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def assert_limited(pid, capabilities=NEEDED):
    """Each thread."""
    threads = os.listdir(f"/proc/{pid}/task")
    assert threads
    for thread in threads:
        status = status_of(f"{pid}/task/{thread}")
        for kind in ("CapPrm", "CapEff", "CapInh"):
            assert int(status[kind], 16) & ~capabilities == 0, (thread, kind)
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == SECCOMP_FILTER, status["Name"]


def use(live):
    with opened(live.file("web1.img")) as fd:
        write_all(fd, b"used" * 1024, 0)
        os.fsync(fd)
        os.posix_fallocate(fd, 0, 4096)
    live.names()
    leafctl("status", live.path)


# ---- What it may do ------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["grow_command=/bin/true"], ["mode=writeback", "threads=4"]],
                         ids=["plain", "grow", "cache"])
@pytest.mark.parametrize("foreground", [True, False])
def test_what_no_mount_needs_is_given_up(mount, web1, cache, options, foreground):
    """DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, SYS_ADMIN and SYS_RESOURCE stay; in each thread."""
    if not foreground and os.path.basename(BUILD) == "tsan":
        pytest.skip("ThreadSanitizer has a thread of its own in a child of fork(), from before anything is given up")
    named = [f"cache={cache}"] if "mode=writeback" in options else []
    with mount(*options, *named, foreground=foreground) as live:
        assert_limited(live.pid)
        use(live)
        assert_limited(live.pid)


@pytest.fixture(scope="session")
def forbidden(run_directory):
    library = os.path.join(run_directory, "forbidden.so")
    run("cc", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-fPIC", "-shared", "-o", library,
        os.path.join(TREE, "test", "forbidden.c"))
    return library


def test_what_no_mount_needs_is_refused(mount, work, gate, web1, forbidden):
    """With EPERM, and named in the log, each once; the disks go on. A sanitizer needs more calls."""
    tried = os.path.join(work, "tried")
    env = {"LD_PRELOAD": forbidden, "FORBIDDEN_GATE": gate.path, "FORBIDDEN_RESULT": tried,
           "ASAN_OPTIONS": os.environ["ASAN_OPTIONS"] + ":verify_asan_link_order=0"}
    with mount(env=env) as live:
        gate.open()
        wait_until(lambda: b"mprotect" in file_bytes(tried), "all to be tried")
        use(live)
        outcome = dict(line.split() for line in file_bytes(tried).decode().splitlines())
        assert len(outcome) == 18
        if not SANITIZED:
            assert set(outcome.values()) == {str(errno.EPERM)}, outcome
        wait_until(lambda: "system call setuid (" in live.messages(), "the log")
        named = re.findall(r"the system call (\w+) \(\d+\) was refused", live.messages())
        assert len(named) == len(set(named)) and set(named) == {name for name in outcome if outcome[name] == "1"}
    harness.reports.clear()


# ---- Programs ------------------------------------------------------------------


def test_a_grow_command_has_what_root_has(mount, work):
    """It is started by a process beside the daemon, which ends with it, be it killed."""
    status, script = os.path.join(work, "status"), os.path.join(work, "grow")
    with open(script, "w", encoding="ascii") as file:
        file.write(f"#!/bin/sh\ncat /proc/self/status /proc/self/oom_score_adj >{status}.new; mv {status}.new {status}\n")
    os.chmod(script, 0o755)
    conf = os.path.join(work, "leafdisk.conf")
    path = os.path.join(work, "device")
    run("truncate", "-s", "8M", path)
    with Loop(path) as loop:
        leafctl("create", "--force", loop.device, "64M")
        with open(conf, "w", encoding="ascii") as file:
            file.write(f"[pool]\nlayers = /dev\ngrow_command = {script}\n[disk big.img]\nlayers = {loop.device}\n")
        live = mount(f"conf={conf}")
        with opened(live.file("big.img")) as fd:
            with pytest.raises(OSError, match="No space left"):
                for number in range(16):
                    write_all(fd, os.urandom(MIB), number * MIB)
        found = status_of_text(file_bytes(status).decode())
        own = status_of("self")
        assert (found["CapEff"], found["NoNewPrivs"], found["Seccomp"]) == (own["CapEff"], "0", own["Seccomp"])
        assert found["SigBlk"] == "0" * 16
        assert_limited(live.pid)
        starter = starter_of(live)
        live.kill9()
        assert process_ended(starter, PATIENCE)


def status_of_text(text):
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def starter_of(live):
    found = [pid for pid in cleanup.processes_with(MOUNT_VARIABLE, live.path) if name_of(pid) == "leafdisk-start"]
    assert len(found) == 1
    return found[0]


def test_a_starter_that_is_gone_is_said(mount, work):
    path, conf = os.path.join(work, "device"), os.path.join(work, "leafdisk.conf")
    run("truncate", "-s", "8M", path)
    with Loop(path) as loop:
        leafctl("create", "--force", loop.device, "64M")
        with open(conf, "w", encoding="ascii") as file:
            file.write(f"[pool]\nlayers = /dev\ngrow_command = /bin/true\n[disk big.img]\nlayers = {loop.device}\n")
        with mount(f"conf={conf}") as live:
            os.kill(starter_of(live), signal.SIGKILL)
            with opened(live.file("big.img")) as fd, pytest.raises(OSError, match="No space left"):
                for number in range(16):
                    write_all(fd, os.urandom(MIB), number * MIB)
            assert "grow_command failed: the process that starts programs is gone" in live.messages()


# ---- A user's mount ------------------------------------------------------------

# In mounts of its own, where everybody may use /dev/fuse, as elsewhere. PROGRAMS WORK USER GROUP HOW.
USER_MOUNT = """
programs=$1 work=$2 user=$3 group=$4 how=$5
as() { setpriv --reuid=$user --regid=$group --clear-groups "$@"; }
mknod -m 666 $work/fuse c 10 229
mount --bind $work/fuse /dev/fuse
as $programs/leafdisk $work/pool $work/mnt
pid=$(as cat $work/mnt/.leafdisk/pid)
as dd if=/dev/zero of=$work/mnt/web1.img bs=4k count=16 conv=notrunc,fsync status=none
for thread in /proc/$pid/task/*; do
	grep -qx 'Seccomp:.2' $thread/status
	grep -qx 'NoNewPrivs:.1' $thread/status
	grep -qx 'CapEff:.0*' $thread/status
done
if [ $how = signal ]; then kill -TERM $pid; else as fusermount3 -u $work/mnt; fi
for try in $(seq 600); do [ -e /proc/$pid ] || break; sleep 0.1; done
[ ! -e /proc/$pid ]
! grep -q " $work/mnt " /proc/self/mountinfo
! pgrep -f "^$programs/leafdisk $work/pool " >/dev/null
"""


@pytest.fixture
def of_nobody(work, pool, web1):
    """What a user's mount needs, where that user gets at it."""
    point, programs = os.path.join(work, "mnt"), os.path.join(work, "programs")
    for path in (point, programs):
        os.mkdir(path)
    run("cp", program("leafdisk"), program("leafctl"), programs)
    for path in (pool, web1, point):
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    modes = {}
    for path in (work, os.path.dirname(work)):
        modes[path] = os.stat(path).st_mode
        os.chmod(path, 0o711)
    yield programs
    for path, mode in modes.items():
        os.chmod(path, mode)


@pytest.mark.parametrize("how", ["signal", "unmount"])
def test_a_users_mount(work, of_nobody, how):
    """It ends by a signal too, though the daemon starts no program then."""
    result = run("unshare", "--mount", "--propagation", "private", "bash", "-exc", USER_MOUNT, "bash", of_nobody, work,
                 NOBODY.pw_uid, NOBODY.pw_gid, how, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


# ---- mount(8) hands over what it has mounted -----------------------------------


class HandedOver:
    def __init__(self, work, pool, *options):
        self.path = os.path.join(work, "handed")
        os.makedirs(self.path, exist_ok=True)
        self.result = run("mount.fuse3", pool, self.path, "-t", "fuse.leafdisk", "-o", ",".join(["drop_privileges", *options]),
                          check=False, env={"PATH": f"{BUILD}:{os.environ['PATH']}", MOUNT_VARIABLE: self.path})

    def file(self, *names):
        return os.path.join(self.path, *names)

    def pid(self):
        return int(file_bytes(self.file(".leafdisk", "pid")))

    def is_mounted(self):
        return any(point == self.path for point, _, _ in cleanup.mounts_below(self.path))

    def take_down(self):
        run("umount", self.path)
        wait_until(lambda: not cleanup.processes_with(MOUNT_VARIABLE, self.path), "the daemon's end")


@pytest.mark.parametrize("options", [[], ["threads=3", "ro"], ["allow_other", "default_permissions"]])
def test_a_mount_that_was_handed_over(work, pool, web1, options):
    """The daemon has no privileges at all."""
    live = HandedOver(work, pool, *options)
    assert live.result.returncode == 0, live.result.stderr
    assert_limited(live.pid(), 0)
    if "ro" in options:
        expect_errno(errno.EROFS, os.open, live.file("web1.img"), os.O_RDWR)
        live.take_down()
        return
    with opened(live.file("web1.img")) as fd:
        write_all(fd, b"x" * MIB, MIB)
        os.fsync(fd)
        assert read_all(fd, MIB, MIB) == b"x" * MIB
    assert f'mount="{live.path}"' in file_bytes(live.file(".leafdisk", "metrics")).decode()
    said = leafctl("status", live.path).stdout
    assert "web1.img" in said
    live.take_down()
    assert_same(converted(web1, work)[MIB:2 * MIB], b"x" * MIB, "the image")


def test_a_handed_over_mount_that_a_signal_ends(work, pool, web1, cache):
    """Nobody waits at it; it stays, as the daemon cannot take it down, and the log says who can."""
    live = HandedOver(work, pool, "mode=writeback", f"cache={cache}", "cache_size=16M", "migrate_idle_ms=60000")
    with opened(live.file("web1.img")) as fd:
        write_all(fd, b"y" * MIB, 0)
        os.fsync(fd)
    pid = live.pid()
    os.kill(pid, signal.SIGTERM)
    assert process_ended(pid, PATIENCE)
    assert live.is_mounted()
    expect_errno(errno.ENOTCONN, os.listdir, live.path)
    live.take_down()
    assert_same(converted(web1, work)[:MIB], b"y" * MIB, "the image")


@pytest.mark.parametrize("option,sentence", [
    ("thread=3", 'unknown mount option "thread=3"'),
    ("allow_other", 'option "allow_other" needs "default_permissions" beside it'),
    ("mode=writeback", "mode writeback needs a cache"),
])
def test_a_handed_over_mount_that_is_refused(work, pool, web1, option, sentence):
    live = HandedOver(work, pool, option)
    assert live.result.returncode == 1
    assert sentence in live.result.stderr
    assert f"{live.path} stays mounted, with nothing behind it: umount {live.path}" in live.result.stderr
    assert live.is_mounted()
    live.take_down()


def test_a_handed_over_mount_does_not_hide_its_pool(work):
    pool = os.path.join(work, "handed", "pool")
    os.makedirs(pool)
    watch = Stopwatch()
    live = HandedOver(work, pool)
    assert live.result.returncode == 1 and f"would hide the pool {pool}" in live.result.stderr
    assert watch.seconds("self") < 60
    live.take_down()
