"""Facts about the machine, the storage and the programs, for the report."""
import os
import platform
import re

from programs import run


def first_match(path, pattern):
    with open(path, encoding="utf-8", errors="replace") as file:
        found = re.search(pattern, file.read(), re.M)
    return found.group(1) if found else "unknown"


def machine():
    memory = int(first_match("/proc/meminfo", r"^MemTotal:\s+(\d+) kB")) / (1 << 20)
    model = first_match("/proc/cpuinfo", r"^model name\s*: (.*)$")
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.1f} GiB"


def storage(directory):
    source, kind, options = run("findmnt", "-no", "SOURCE,FSTYPE,OPTIONS", "-T", directory).split(maxsplit=2)
    return f"{kind} on {source} ({options.strip()}), {directory}"


def versions(systems):
    """The first line of what each program says."""
    commands = [("fio", "--version"), ("losetup", "--version"), ("git", "--version")]
    for system in systems:
        commands += [command for command in system.versions if command not in commands]
    return "; ".join(run(*command).splitlines()[0].strip() for command in commands)


def facts(directory, systems):
    return {"machine": machine(), "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
            "storage": storage(directory), "programs": versions(systems),
            "pinning": "none: fio and the daemons share the cores"}
