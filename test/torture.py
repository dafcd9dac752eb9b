"""Many processes that do everything to a mount at once, and who watches them.

The processes are torture/load.c; what they are doing, and since when, is in a
file that they share with the watchdog here. An operation that takes longer than
its deadline fails the test, and is named, with all stacks there are."""
import mmap
import os
import re
import struct
import subprocess
import time

from harness import SANITIZED, TREE, faults, leafctl, make_image, note_report, program, run
from stacks import kernel_stacks, stacks, text_of
from store import FLAGS

SOURCES = os.path.join(TREE, "test", "torture")
WORKERS = 64
SLOTS_OFFSET = 4096
SLOT = struct.Struct("<QQQ104s")
KILLING_OFFSET = 20
DEADLINE = float(os.environ.get("LEAFDISK_TORTURE_DEADLINE", 0))
MODES = ("direct", "persistent", "writeback", "ephemeral")
STORES = ("normal", "slow", "erring")
SLOW_MS = 20
# The kernel lets one process at a time change a directory, and a slow store takes a second for each
# name: with more of them all processes would soon stand there, and none would read or write.
SLOW_MAKERS = 4
# A line of the load's; leafctl writes to its log too.
COUNTS = re.compile(r"(\w+) (\d+) (\d+) (\d+)")
# One system call on an erring store in so many fails, besides the fault points.
ODDS = 97


def built(work):
    """The program that makes the load."""
    target = os.path.join(work, "load")
    run("cc", *FLAGS, "-o", target, *(os.path.join(SOURCES, name) for name in sorted(os.listdir(SOURCES))
                                      if name.endswith(".c")))
    return target


class Slots:
    """What each process of the load does now."""

    def __init__(self, path):
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)

    def overdue(self, seconds):
        """(process, what, since how many seconds) of each that has not ended in time."""
        now = time.monotonic_ns()
        for index in range(WORKERS + 1):
            pid, began, _, what = SLOT.unpack_from(self.memory, SLOTS_OFFSET + index * SLOT.size)
            if began and now > began + seconds * 1e9:
                yield pid, what.split(b"\0")[0].decode(), (now - began) / 1e9

    def done(self):
        return sum(SLOT.unpack_from(self.memory, SLOTS_OFFSET + index * SLOT.size)[2] for index in range(WORKERS + 1))

    def say_killing(self):
        self.memory[KILLING_OFFSET] = 1


class Load:
    """The processes on one mount, with a watchdog."""

    def __init__(self, binary, state, live, deadline, *options):
        self.state = state
        self.live = live
        self.deadline = deadline
        self.slots = Slots(state)
        self.command = [binary, "run", state, live.path, f"leafctl={program('leafctl')}", *options]
        self.log = os.path.join(os.path.dirname(state), "load.log")

    def start(self):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        return self

    def watch(self, seconds=None):
        """To the end of the load, or so long."""
        end = time.monotonic() + seconds if seconds else None
        while self.process.poll() is None and (end is None or time.monotonic() < end):
            late = list(self.slots.overdue(self.deadline))
            if late:
                self.give_up(late)
            time.sleep(0.1)

    def give_up(self, late):
        words = [f"{len(late)} operations take longer than {self.deadline:.0f} s"]
        words += [f"process {pid}, for {since:.0f} s: {what}" for pid, what, since in late]
        words += ["the daemon:", stacks(self.live.pid), "the processes:"]
        words += [kernel_stacks(pid) for pid, _, _ in late[:8]]
        self.end()
        raise AssertionError("\n".join(words) + f"\n{self.messages()}")

    def end(self):
        """The processes end with their parent; what waits for the daemon, with that."""
        self.process.kill()
        self.live.kill()
        self.live.finalise()
        self.process.wait(60)

    def result(self):
        """kind -> (succeeded, refused, failed)."""
        self.watch()
        note_report(self.log, self.messages())
        assert self.process.returncode == 0, self.failure()
        rows = (COUNTS.fullmatch(line) for line in self.messages().splitlines())
        return {row[1]: tuple(int(count) for count in row.groups()[1:]) for row in rows if row}

    def kill_daemon(self):
        """A crash of the daemon under load, and nothing of the mount is left."""
        self.slots.say_killing()
        self.live.kill9()
        self.watch()
        note_report(self.log, self.messages())
        assert self.process.returncode == 0, self.messages()

    def failure(self):
        ended = f"it ended with {self.live.status}" if self.live.has_ended() else "it runs"
        return f"{self.messages()}\nthe daemon ({ended}) says:\n{self.live.messages()[-6000:]}"

    def messages(self):
        return text_of(self.log)


class Torture:
    """A pool of disks with their model, and a store of a kind below them."""

    def __init__(self, mount, pool, work, rng, other_store, mode, store, disks, base_bytes):
        self.start_mount = mount
        self.pool = pool
        self.work = work
        self.rng = rng
        self.mode = mode
        self.store = store
        self.disks = disks
        self.base_bytes = base_bytes
        self.binary = built(work)
        self.other_store = other_store
        self.state = os.path.join(work, "state")
        self.cache = os.path.join(work, "leaf.cache")
        self.gate = os.path.join(work, "gate")
        self.new_model()
        self.make_disks()

    def new_model(self):
        run(self.binary, "init", self.state, WORKERS, self.disks, self.base_bytes)

    def make_disks(self):
        """In turn: a leaf on a base, a raw image, a leaf on a leaf on a base."""
        os.mkdir(os.path.join(self.pool, "bases"))
        kind = self.rng.randrange(3)
        for number in range(self.disks):
            name = f"web{number + 1}"
            kind = (kind + 1) % 3
            base = os.path.join(self.pool, f"{name}.raw") if kind == 1 else self.below(f"{name}.raw")
            run(self.binary, "image", self.state, number, base)
            if kind == 2:
                base = make_image(self.below(f"{name}.leaf"), parent=base, chunk="64K")
            if kind != 1:
                make_image(os.path.join(self.pool, f"{name}.leaf"), parent=base, chunk=self.rng.choice(["64K", "1M"]))

    def below(self, name):
        return os.path.join(self.pool, "bases", name)

    # ---- The mount -----------------------------------------------------------

    def options(self):
        words = ["manage", f"threads={self.rng.choice([1, 2])}", "io_timeout=2"]
        if self.mode != "direct":
            words += [f"mode={self.mode}", f"cache={self.cache}", "cache_size=32M", "migrate_idle_ms=20",
                      "max_dirty_age=1"]
        return words

    def rules(self):
        """What fails now and then in an erring store, besides its system calls."""
        rules = []
        for point in ("aio.read", "aio.write", "aio.datasync"):
            for suffix in (".leaf", ".raw"):
                rules += [f"{point}/{suffix}:EIO%97", f"{point}/{suffix}:ENOSPC%197", f"{point}/{suffix}:EINTR%61"]
        rules += [f"image.{point}:EIO%53" for point in ("read", "write", "sync", "extend", "punch")]
        rules += ["owner.write:EIO%11", "owner.rename:ENOSPC%11", "image.extend:ENOSPC%23"]
        if self.mode == "persistent":
            rules += ["aio.write/leaf.cache:EIO%97", "aio.datasync/leaf.cache:EIO%97"]
        return rules

    def environment(self):
        if self.store == "slow":
            return self.other_store.slow(self.pool, SLOW_MS)
        if self.store == "erring":
            return {**faults(*self.rules(), gate=self.gate), **self.other_store.erring(self.pool, ODDS, self.gate)}
        return {}

    def mount(self):
        return self.start_mount(*self.options(), env=self.environment())

    def deadline(self):
        return DEADLINE or 60 * (1 if self.store == "normal" else 3) * (3 if SANITIZED else 1)

    def load(self, live, seed, *options):
        # Without a cache there is one mode, and an ephemeral disk in use keeps its own.
        modes = ["direct", "persistent", "writeback"] if self.mode in ("persistent", "writeback") else [self.mode]
        words = [f"seed={seed}", f"mode={self.mode}", f"modes={':'.join(modes)}",
                 f"makers={SLOW_MAKERS if self.store == 'slow' else WORKERS}", *options]
        if self.store == "erring":
            words.append(f"gate={self.gate}")
        return Load(self.binary, self.state, live, self.deadline(), *words).start()

    # ---- What is left --------------------------------------------------------

    def images(self):
        """Not what has a hidden name: a store that failed may have left that of an image that was not made."""
        for directory in (self.pool, self.below("")):
            yield from (os.path.join(directory, name) for name in os.listdir(directory)
                        if name.endswith((".leaf", ".raw")) and not name.startswith("."))

    def check(self):
        """The images and the cache are whole."""
        for image in self.images():
            leafctl("check", image)
        if self.mode != "direct":
            leafctl("cache", "check", self.cache)

    def verify(self, live, *words):
        result = run(self.binary, "verify", self.state, live.path, *words, check=False, timeout=300)
        assert result.returncode == 0, f"{result.stderr}\nthe daemon says:\n{live.messages()[-4000:]}"

    def verify_all(self, *words):
        """With the cache, and then the shared images alone."""
        if self.mode == "ephemeral":
            self.new_model()
        with self.start_mount(*self.options()) as live:
            self.verify(live, *words)
        self.check()
        with self.start_mount() as live:
            self.verify(live)
