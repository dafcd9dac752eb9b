#!/usr/bin/env python3
"""Ends what a test run left behind: processes, loop devices and mounts.

A run is known by its directory. Its processes carry that directory, or one
below it where the run has several workers, in the environment variable
LEAFDISK_TEST_RUN; its mounts and the files behind its loop devices are below
the directory. Nothing else is touched.

usage: test/cleanup.py DIRECTORY
"""
import json
import os
import select
import signal
import subprocess
import sys

RUN_VARIABLE = "LEAFDISK_TEST_RUN"
COMMAND_TIMEOUT = 30


def quietly(*command):
    """Runs a command that may fail; says whether it succeeded."""
    try:
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              timeout=COMMAND_TIMEOUT).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def is_below(path, directory):
    return path == directory or path.startswith(f"{directory}/")


def environment_of(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def processes_with(variable, value):
    """Ids of the processes that were started with VARIABLE=VALUE."""
    wanted = f"{variable}={value}".encode()
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if pid != os.getpid() and wanted in environment_of(pid)]


def is_of_run(pid, directory):
    """The process was started by the run in DIRECTORY or by a worker of it."""
    prefix = f"{RUN_VARIABLE}=".encode()
    return any(is_below(os.fsdecode(entry[len(prefix):]), directory)
               for entry in environment_of(pid) if entry.startswith(prefix))


def processes_of_run(directory):
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if pid != os.getpid() and is_of_run(pid, directory)]


def kill_and_wait(pid, directory, timeout=10):
    """Kills PID if it is still a process of the run in DIRECTORY."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if is_of_run(pid, directory):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            select.select([descriptor], [], [], timeout)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


def mounts_below(directory):
    """(mount point, source, type), newest first."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            left, right = line.rstrip("\n").split(" - ", 1)
            point = unescape(left.split(" ")[4])
            kind, source = right.split(" ")[:2]
            if is_below(point, directory):
                found.append((point, unescape(source), kind))
    return found[::-1]


def unescape(text):
    if "\\" not in text:
        return text
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, character)
    return text


def loops_below(directory):
    try:
        output = subprocess.run(["losetup", "-l", "-J", "-O", "NAME,BACK-FILE"], capture_output=True, text=True,
                                timeout=COMMAND_TIMEOUT, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    devices = json.loads(output)["loopdevices"] if output.strip() else []
    return [device["name"] for device in devices if is_below(device["back-file"] or "", directory)]


def unmount(point, kind):
    if kind.startswith("fuse") and quietly("fusermount3", "-uz", point):
        return
    quietly("umount", "-l", point)


def clean(directory):
    """Returns a line for each thing that was left behind."""
    directory = os.path.realpath(directory)
    report = []
    pids = processes_of_run(directory)
    # Of a file in a mount that only they see nobody knows the path when they have ended.
    loops = loops_below(directory)
    # One may wait for another, in a system call that only its end interrupts: all
    # are told before any is waited for.
    for pid in pids:
        report.append(f"process {pid}")
        kill_and_wait(pid, directory, 0)
    for pid in pids:
        kill_and_wait(pid, directory)
    # File systems on loop devices first, then the devices, then their files.
    for point, source, kind in mounts_below(directory):
        if source.startswith("/dev/"):
            report.append(f"mount {point}")
            unmount(point, kind)
    for device in sorted({*loops, *loops_below(directory)}):
        report.append(f"loop device {device}")
        quietly("losetup", "-d", device)
    for point, _, kind in mounts_below(directory):
        report.append(f"mount {point}")
        unmount(point, kind)
    return report


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: test/cleanup.py DIRECTORY")
    for line in clean(sys.argv[1]):
        print(f"cleanup: left behind: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
