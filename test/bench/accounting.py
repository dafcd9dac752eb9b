"""What the kernel says that processes have used."""
import os
import re
import time

KIB = 1 << 10
CPU_CLOCK = 2


def cpu_seconds(pids):
    """User and system time of all threads, ended ones too: what utime and
    stime in /proc/PID/stat count in ticks, from the process's CPU clock."""
    return sum(time.clock_gettime(~pid << 3 | CPU_CLOCK) for pid in pids)


def memory_bytes(pids, kind):
    """KIND is Pss, where a page that n processes share counts as 1/n, or Rss."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            total += int(re.search(rf"^{kind}:\s+(\d+) kB", file.read(), re.M).group(1)) * KIB
    return total


def wakeups(pids):
    """How often the threads of these processes have gone to sleep, and so were
    woken, since they began."""
    count = 0
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/status", encoding="utf-8", errors="replace") as file:
                count += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", file.read(), re.M).group(1))
    return count
