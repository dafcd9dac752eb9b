"""Where a process stands that does not go on."""
import contextlib
import os
import subprocess


def text_of(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError as error:
        return str(error)


def kernel_stacks(pid):
    """Of its threads, as far as /proc tells."""
    lines = []
    with contextlib.suppress(OSError):
        for task in sorted(os.listdir(f"/proc/{pid}/task"), key=int):
            facts = {name: text_of(f"/proc/{pid}/task/{task}/{name}") for name in ("comm", "wchan", "syscall", "stack")}
            lines.append(f"{pid}/{task} {facts['comm']}: wchan {facts['wchan']}, syscall {facts['syscall']}\n"
                         f"{facts['stack']}")
    return "\n".join(lines)


def stacks(pid):
    """Of its threads, in the kernel and in the program."""
    words = ["gdb", "-p", str(pid), "-batch", "-ex", "set pagination off", "-ex", "thread apply all bt"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=100, check=False).stdout
    except subprocess.TimeoutExpired:
        said = "gdb cannot stop it"
    return f"{kernel_stacks(pid)}\n{said}"


def keepers(path):
    """A line for each process that has the mount at PATH in a mount namespace other than this one."""
    here, lines = os.readlink("/proc/self/ns/mnt"), []
    for pid in (name for name in os.listdir("/proc") if name.isdigit()):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/ns/mnt") != here and f" {path} " in text_of(f"/proc/{pid}/mountinfo"):
                command = text_of(f"/proc/{pid}/cmdline").replace("\0", " ")
                lines.append(f"{path} is mounted where {pid} runs, {command}")
    return "\n".join(lines)
