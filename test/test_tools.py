"""What surrounds the programs: the demonstration, installing, cleaning up."""
import os
import re
import signal
import subprocess
import sys

import pytest

import cleanup
import harness
from harness import (MIB, PATIENCE, TREE, Deadline, Loop, apart, halt, loop_attachment, make_raw, process_ended, run,
                     wait_until)


def test_demo_runs_twice_and_leaves_nothing(work):
    demo = os.path.join(work, "demo")
    script = os.path.join(TREE, "test", "demo.sh")
    env = {"LEAFDISK_DEMO": demo}
    try:
        for _ in range(2):
            said = run(script, "start", env=env).stdout
            assert "+ build/leafdisk" in said and "make demo-stop" in said
            assert re.search(r"^web1\.img +installed +256 MiB ", said, re.M) and re.search(r"^web3\.img +256 MiB +3 ", said, re.M)
            points = [point for point, _, _ in cleanup.mounts_below(demo)]
            assert sorted(points) == [os.path.join(demo, "guest"), os.path.join(demo, "mnt")]
            assert os.path.exists(os.path.join(demo, "guest", "test"))
    finally:
        run(script, "stop", env=env)
    assert cleanup.mounts_below(demo) == []
    assert cleanup.loops_below(demo) == []
    assert not os.path.exists(demo)
    run(script, "stop", env=env)


def files_below(directory):
    return sorted(os.path.relpath(os.path.join(parent, name), directory)
                  for parent, _, names in os.walk(directory) for name in names)


def text_of(*names):
    with open(os.path.join(*names), encoding="utf-8") as file:
        return file.read()


# The make that runs the tests hands its job slots on; they are not for these.
NO_JOBSERVER = {"MAKEFLAGS": ""}


def test_install_and_uninstall(work):
    make = ["make", "-C", TREE, f"DESTDIR={work}/root", "PREFIX=/opt/leafdisk"]
    run(*make, "install", env=NO_JOBSERVER)
    installed = files_below(os.path.join(work, "root"))
    for name in ("bin/leafdisk", "bin/leafctl", "share/man/man8/leafdisk.8", "share/doc/leafdisk/leafdisk.conf",
                 "lib/systemd/system/leafdisk@.service", "lib/tmpfiles.d/leafdisk.conf",
                 "share/bash-completion/completions/leafctl", "share/bash-completion/completions/leafdisk"):
        assert f"opt/leafdisk/{name}" in installed
    assert os.readlink(os.path.join(work, "root/opt/leafdisk/sbin/mount.leafdisk")) == "/opt/leafdisk/bin/leafdisk"
    assert "ExecStart=/opt/leafdisk/bin/leafdisk" in text_of(work, "root/opt/leafdisk/lib/systemd/system/leafdisk@.service")
    run(os.path.join(work, "root/opt/leafdisk/bin/leafctl"), "--version")
    run(*make, "uninstall", env=NO_JOBSERVER)
    assert files_below(os.path.join(work, "root")) == []


@pytest.fixture
def stranger():
    """A process that belongs to no run."""
    env = {key: value for key, value in os.environ.items() if key != cleanup.RUN_VARIABLE}
    process = subprocess.Popen(["sleep", "1000"], env=env)
    yield process
    process.kill()
    process.wait()


def test_cleanup_ends_what_belongs_to_the_run(work, stranger):
    """Another run's directory, with everything left behind in it."""
    other = os.path.join(work, "other-run")
    os.mkdir(other)
    process = subprocess.Popen(["sleep", "1000"], env={**os.environ, cleanup.RUN_VARIABLE: other})
    run("truncate", "-s", "16M", os.path.join(other, "disk"))
    run("mke2fs", "-q", os.path.join(other, "disk"))
    loop = Loop(os.path.join(other, "disk"))
    loop.mount(os.path.join(other, "guest"))
    wait_until(lambda: cleanup.processes_of_run(other), "the process")
    run(sys.executable, os.path.join(TREE, "test", "cleanup.py"), other)
    assert process.wait(PATIENCE) == -signal.SIGKILL
    assert cleanup.mounts_below(other) == []
    wait_until(lambda: not loop.is_attached(), "the loop device to go")
    loop.mounted = None
    assert stranger.poll() is None, "a process of no run was killed"
    assert cleanup.clean(other) == []


# A disk in a mount that nobody else sees, and that is gone with whoever did.
HIDDEN = """
"$leafdisk" "$pool" "$point"
losetup --show -f "$point/base.img" >"$said.new" && mv "$said.new" "$said"
exec sleep 1000
"""


def test_cleanup_finds_loop_devices_in_hidden_mounts(work, pool):
    other, said = os.path.join(work, "other-run"), os.path.join(work, "said")
    point = os.path.join(other, "mnt")
    os.makedirs(point)
    make_raw(os.path.join(pool, "base.raw"), bytes(1 << 20))
    env = {**os.environ, cleanup.RUN_VARIABLE: other, "leafdisk": harness.program("leafdisk"), "pool": pool, "point": point,
           "said": said}
    process = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-ec", HIDDEN], env=env)
    wait_until(lambda: os.path.exists(said) or process.poll() is not None, "the loop device")
    device = text_of(said).strip()
    attachment = loop_attachment(device)
    assert attachment and cleanup.mounts_below(other) == []
    assert f"loop device {device}" in cleanup.clean(other)
    wait_until(lambda: loop_attachment(device) != attachment, "the loop device to go")
    assert process.wait(PATIENCE) == -signal.SIGKILL
    assert cleanup.clean(other) == []


# What a run is told by whose it is; its daemons inherit it.
OWNER = "LEAFDISK_TEST_OWNER"
LONG_TESTS = "test_killed_at_random_moments or test_clone_is_a_disk"


def run_of(owner):
    """The directory of the run that belongs to OWNER; None while it has none."""
    prefix = b"LEAFDISK_TEST_DIR="
    for pid in cleanup.processes_with(OWNER, owner):
        for entry in cleanup.environment_of(pid):
            if entry.startswith(prefix):
                return os.fsdecode(entry[len(prefix):])
    return None


def workers_with_mounts(directory):
    return {os.path.relpath(point, directory).split(os.sep)[0] for point, _, _ in cleanup.mounts_below(directory)}


def loops_of(directory):
    """(device, which of its attachments) of the loop devices on files below DIRECTORY."""
    return {(device, loop_attachment(device)) for device in cleanup.loops_below(directory)}


@pytest.mark.slow
@pytest.mark.skipif(harness.SANITIZED, reason="`make check` would build another variant")
def test_a_run_that_is_killed_leaves_nothing(work):
    """.ci/run ends in the midst of two workers' tests, one with a loop device."""
    env = {key: value for key, value in os.environ.items() if key != "LEAFDISK_TEST_DIR"}
    env |= {**NO_JOBSERVER, OWNER: work, "PYTEST_FLAGS": f"-n2 -k '{LONG_TESTS}'"}
    with open(os.path.join(work, "log"), "wb") as log:
        process = subprocess.Popen([os.path.join(TREE, ".ci", "run")], env=env, stdout=log, stderr=log)
    try:
        directory = wait_until(lambda: run_of(work), "the run's directory")
        devices = wait_until(lambda: len(workers_with_mounts(directory)) > 1 and loops_of(directory),
                             "two workers with mounts and a loop device")
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert cleanup.mounts_below(directory) == []
    assert not devices & loops_of("/"), "a loop device is left"
    assert not os.path.exists(directory)
    wait_until(lambda: not cleanup.processes_with(OWNER, work), "the last process to end")


def test_a_hanging_test_fails(mount, pool):
    """A daemon that stops answering: the deadline frees the test."""
    make_raw(os.path.join(pool, "base.raw"), bytes(4096))
    live = mount()
    halt(live.pid)
    with pytest.raises(TimeoutError):
        with Deadline(2):
            with pytest.raises(OSError):
                os.stat(live.file("unknown.img"))
            signal.pause()
    assert process_ended(live.pid, 10)


def test_what_runs_apart_keeps_no_mount_of_others(mount, pool, work):
    """Nor a file system on a loop device that is in one."""
    make_raw(os.path.join(pool, "base.raw"), bytes(16 * MIB))
    own = os.path.join(work, "own")
    os.mkdir(own)
    live = mount()
    run("mke2fs", "-q", "-t", "ext4", live.file("base.img"))
    loop = Loop(live.file("base.img"))
    loop.mount(os.path.join(work, "point"))
    command = [*apart(own), "sh", "-c", "echo ready; read -r line"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        loop.detach()
        live.stop(timeout=60)
        assert child.poll() is None
        child.stdin.close()


def test_wait_until_gives_up():
    with pytest.raises(AssertionError, match="for the impossible"):
        wait_until(lambda: False, "the impossible", timeout=0.05)


def test_a_refused_mount_is_told(mount, work):
    with pytest.raises(harness.MountError):
        mount(pool=os.path.join(work, "nowhere"))


def test_packages_are_listed_once():
    """Each list names packages, one a line, and no place to get them from."""
    directory = os.path.join(TREE, "test", "deps")
    for name in os.listdir(directory):
        with open(os.path.join(directory, name), encoding="ascii") as file:
            lines = file.read().splitlines()
        assert len(lines) == len(set(lines)) and all(line.replace("-", "").replace(".", "").isalnum() for line in lines)


@pytest.mark.parametrize("report", ["==1==ERROR: AddressSanitizer: heap-use-after-free", "WARNING: ThreadSanitizer: data race",
                                    "==1==ERROR: LeakSanitizer: detected memory leaks",
                                    "src/a.c:1:2: runtime error: signed integer overflow"])
def test_a_report_of_a_sanitizer_is_noted(report):
    """Also of a program that was to fail."""
    harness.run("sh", "-c", 'echo "$1" >&2; exit 1', "sh", report, check=False)
    (noted,) = harness.reports
    harness.reports.clear()
    assert report.split("==")[-1] in noted
