"""What the tests share: running programs, mounts, loop devices, waiting."""
import contextlib
import ctypes
import errno
import faulthandler
import json
import mmap
import os
import re
import select
import signal
import stat
import subprocess
import sys
import threading
import time
import warnings

import cleanup
from stacks import keepers, stacks

TREE = os.path.realpath(os.path.join(os.path.dirname(__file__), ".."))
OWN_MOUNTS = os.path.join(TREE, "test", "own_mounts.sh")
BUILD = os.path.realpath(os.environ.get("LEAFDISK_BUILD", os.path.join(TREE, "build", "check")))
TORTURE = os.environ.get("LEAFDISK_TORTURE") == "1"
SANITIZED = os.path.basename(BUILD) in ("asan", "tsan", "ubsan")
# Seconds. What comes about at all does so long before, on a machine that has much else to do too.
PATIENCE = 300
MOUNT_VARIABLE = "LEAFDISK_TEST_MOUNT"
CRASH_STATUS = 77
CONTROL = ".leafdisk"

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
BLOCK = 4096

# A leaking daemon fails its test as a crashing one does.
os.environ.setdefault("ASAN_OPTIONS", "abort_on_error=0:exitcode=99:detect_leaks=1")
os.environ.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
os.environ.setdefault("TSAN_OPTIONS", f"exitcode=99:suppressions={os.path.join(TREE, 'test', 'tsan', 'suppressions')}")
if os.path.basename(BUILD) == "tsan":
    # Memory that glib keeps for itself goes from thread to thread unseen.
    os.environ.setdefault("G_SLICE", "always-malloc")

ALLOCATE_KEEP_SIZE = 1
ALLOCATE_PUNCH_HOLE = 2
ALLOCATE_ZERO_RANGE = 16

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def scaled(normal, torture):
    """A number of operations: NORMAL, or TORTURE in `make torture`."""
    return torture if TORTURE else normal


def numbers(each, most=100_000):
    """1, 2, 3, ... with growing steps once the first EACH are done."""
    number = 1
    while number <= most:
        yield number
        number += 1 if number < scaled(each, most) else max(number * 4 // each, 1)


def program(name):
    return os.path.join(BUILD, name)


def run(*command, timeout=PATIENCE, check=True, env=None, **options):
    """Runs a program to its end; its output is in the result as text."""
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    result = subprocess.run([str(word) for word in command], timeout=timeout, check=False, text=True,
                            errors="replace", env={**os.environ, **env} if env else None, **options)
    note_report(command, f"{result.stdout}{result.stderr}")
    if check and result.returncode != 0:
        raise AssertionError(f"{command}: exit status {result.returncode}\n{result.stdout}{result.stderr}")
    return result


# How a report of a sanitizer begins, or of the filter of system calls, of a program that may be killed or refuse to
# run all the same.
REPORT = re.compile(r"ERROR: (?:Address|Leak)Sanitizer|WARNING: ThreadSanitizer|: runtime error: |the system call \w+ ")
# Those that the present test has met.
reports = []


def note_report(who, messages):
    found = REPORT.search(messages)
    if found:
        reports.append(f"{who}:\n{messages[found.start():][:20000]}")


def leafctl(*arguments, **options):
    return run(program("leafctl"), *arguments, **options)


def unmount(path, patience=30):
    """fusermount3 -u. Programs that have nothing to do with a mount are in it for a moment all the
    same, such as one that syncs each file system of the machine."""
    end = time.monotonic() + patience
    while True:
        result = run("fusermount3", "-u", path, check=False)
        if result.returncode == 0:
            return
        assert "busy" in result.stderr and time.monotonic() < end, f"{result.stderr}used by:\n{users_of(path)}"
        time.sleep(0.1)


def apart(directory):
    """Before a command: in a mount namespace of its own."""
    return ["unshare", "--mount", "--propagation", "private", OWN_MOUNTS, directory]


def check_clean(*images):
    for image in images:
        leafctl("check", image)


def wait_until(condition, what, timeout=PATIENCE, interval=0.005):
    """Waits for CONDITION to be true and returns its value. WHAT may be a function that says it."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {timeout} s for {what() if callable(what) else what}"
        time.sleep(interval)


def fallocate(fd, mode, offset, length):
    if _libc.fallocate(fd, mode, offset, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def discard(fd, offset, length):
    fallocate(fd, ALLOCATE_PUNCH_HOLE | ALLOCATE_KEEP_SIZE, offset, length)


def zero_range(fd, offset, length):
    fallocate(fd, ALLOCATE_ZERO_RANGE | ALLOCATE_KEEP_SIZE, offset, length)


def write_all(fd, data, offset):
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        offset += written
        view = view[written:]


def read_all(fd, length, offset):
    """LENGTH bytes, or fewer at the end of the file."""
    parts = []
    while length:
        data = os.pread(fd, length, offset)
        if not data:
            break
        parts.append(data)
        offset += len(data)
        length -= len(data)
    return b"".join(parts)


def size_of(path):
    """Of a device too."""
    with opened(path, os.O_RDONLY) as fd:
        return os.lseek(fd, 0, os.SEEK_END)


def pieces_of(path):
    """(offset, bytes) of what a file has between its holes."""
    end, offset = size_of(path), 0
    with opened(path, os.O_RDONLY) as fd:
        while offset < end:
            try:
                start = os.lseek(fd, offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                raise
            offset = os.lseek(fd, start, os.SEEK_HOLE)
            yield start, read_all(fd, offset - start, start)


def make_of_pieces(path, size, pieces):
    """The file, which keeps its inode, has nothing else, and holes between them; a device has
    what it had between them."""
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.ftruncate(fd, size)
        for offset, data in pieces:
            write_all(fd, data, offset)


def copy_file(source, target):
    """Images are large and nearly empty: what is a hole stays one."""
    make_of_pieces(target, size_of(source), pieces_of(source))


@contextlib.contextmanager
def opened(path, flags=os.O_RDWR):
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


class Aligned:
    """Memory that O_DIRECT takes."""

    def __init__(self, size):
        self.memory = mmap.mmap(-1, size)

    def write(self, fd, data, offset):
        self.memory[: len(data)] = data
        with memoryview(self.memory)[: len(data)] as view:
            done = 0
            while done < len(data):
                done += os.pwritev(fd, [view[done:]], offset + done)

    def read(self, fd, length, offset):
        with memoryview(self.memory)[:length] as view:
            done = 0
            while done < length:
                count = os.preadv(fd, [view[done:]], offset + done)
                if count == 0:
                    break
                done += count
        return self.memory[:done]


def file_bytes(path):
    with open(path, "rb") as file:
        return file.read()


def first_difference(left, right):
    """Where two byte strings part, for a message; None when they are equal."""
    if left == right:
        return None
    shorter = min(len(left), len(right))
    step = 64 * KIB
    for start in range(0, shorter, step):
        if left[start:start + step] != right[start:start + step]:
            for index in range(start, min(start + step, shorter)):
                if left[index] != right[index]:
                    return index
    return shorter


def assert_same(found, expected, what):
    if found != expected:
        where = first_difference(found, expected)
        raise AssertionError(f"{what}: {len(found)} and {len(expected)} bytes, first difference at {where}: "
                             f"{bytes(found[where:where + 16]).hex()}, expected "
                             f"{bytes(expected[where:where + 16]).hex()}")


def process_ended(pid, timeout):
    """Waits for any process, not only a child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], timeout)[0])
    finally:
        os.close(descriptor)


def thread_states(pid):
    """A letter each, of proc(5)."""
    states = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/stat", encoding="utf-8") as file:
            states.append(file.read().rpartition(") ")[2][0])
    return states


def halt(pid):
    """SIGSTOP. A thread goes on until it has a processor, and learns of it: until then it may answer."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: set(thread_states(pid)) == {"T"}, lambda: f"{pid} to stand still, not {thread_states(pid)}")


def users_of(directory):
    """A line for each thing below DIRECTORY that a process has open or works in."""
    lines = []
    for pid in (name for name in os.listdir("/proc") if name.isdigit()):
        with contextlib.suppress(OSError):
            links = [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
            for link in [f"/proc/{pid}/cwd", f"/proc/{pid}/root", *links]:
                with contextlib.suppress(OSError):
                    if cleanup.is_below(os.readlink(link), directory):
                        command = file_bytes(f"/proc/{pid}/cmdline").replace(b"\0", b" ")
                        lines.append(f"{link} of {os.fsdecode(command)}: {os.readlink(link)}")
    return "\n".join(lines)


def name_of(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8") as file:
        return file.read().strip()
    return None


def thread_names(pid):
    """Of the threads of a process."""
    names = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/comm", encoding="utf-8") as file:
            names.append(file.read().strip())
    return names


class Stopwatch:
    """How long something takes, without the time that this process and another
    stood in line for a processor: others use the machine too."""

    def __init__(self):
        self.begun = time.monotonic() - self.stood_in_line("self")

    @staticmethod
    def stood_in_line(pid):
        with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) / 1e9

    def seconds(self, pid):
        """PID has lived since the watch was started, or less long."""
        return time.monotonic() - self.begun - self.stood_in_line("self") - self.stood_in_line(pid)


# What finalise_all() and a Deadline end.
_live_mounts = []
_live_loops = []


def finalise_all():
    for loop in list(reversed(_live_loops)):
        loop.finalise()
    for live in list(_live_mounts):
        live.finalise()


class Deadline:
    """Raises TimeoutError in the main thread after SECONDS.

    A system call on a mount whose daemon does not answer cannot be
    interrupted, so the daemons are killed first: then it returns."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.timer = threading.Timer(seconds, self._expired)
        self.timer.daemon = True

    def _expired(self):
        faulthandler.dump_traceback(sys.__stderr__)
        for live in list(_live_mounts):
            live.kill()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

    def _raise(self, _number, _frame):
        raise TimeoutError(f"the test took more than {self.seconds} s")

    def __enter__(self):
        self.previous = signal.signal(signal.SIGALRM, self._raise)
        self.timer.start()

    def __exit__(self, *_):
        self.timer.cancel()
        signal.signal(signal.SIGALRM, self.previous)


class Mount:
    """A pool mounted by a daemon of the build under test.

    In the foreground the daemon is a child of the test; otherwise it puts
    itself into the background as it does for a user."""

    count = 0

    def __init__(self, pool, work, options=(), foreground=True, env=None, wrapper=()):
        Mount.count += 1
        self.pool = pool
        self.path = os.path.join(work, f"mnt{Mount.count}")
        self.log_path = os.path.join(work, f"daemon{Mount.count}.log")
        self.options = list(options)
        self.foreground = foreground
        self.env = {**os.environ, **(env or {}), MOUNT_VARIABLE: self.path}
        self.wrapper = list(wrapper)
        self.pid = None
        self.child = None
        self.status = None

    def command(self):
        words = [*self.wrapper, program("leafdisk"), self.pool, self.path]
        if self.foreground:
            words.append("-f")
        for option in self.options:
            words += ["-o", option]
        return words

    def start(self, timeout=PATIENCE):
        os.makedirs(self.path, exist_ok=True)
        _live_mounts.append(self)
        with open(self.log_path, "wb") as log:
            self.child = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          env=self.env)
        if self.foreground:
            self.pid = self.child.pid
            wait_until(lambda: self.is_live() or self.has_ended(), f"{self.path} to be live", timeout)
        else:
            self.status = self.child.wait(timeout)
            self.pid = self.find_daemon()
        if not self.is_live():
            status = self.status
            self.finalise()
            raise MountError(status, self.messages())
        return self

    def find_daemon(self):
        """Beside it may be the process that starts its programs."""
        pids = [pid for pid in cleanup.processes_with(MOUNT_VARIABLE, self.path) if name_of(pid) != "leafdisk-start"]
        assert len(pids) <= 1, f"{len(pids)} daemons serve {self.path}"
        return pids[0] if pids else None

    def is_live(self):
        """The kernel has the mount and the daemon answers on it."""
        if not any(point == self.path for point, _, _ in cleanup.mounts_below(self.path)):
            return False
        try:
            return os.stat(self.path).st_dev != os.stat(os.path.dirname(self.path)).st_dev
        except OSError:
            return False

    def has_ended(self):
        if self.foreground and self.status is None:
            self.status = self.child.poll()
        return self.status is not None if self.foreground else process_ended(self.pid, 0)

    def wait(self, timeout=PATIENCE):
        """Waits for the daemon to end; its exit status where it is a child."""
        assert process_ended(self.pid, timeout), self.goes_on(timeout)
        self.status = self.child.wait() if self.foreground else None
        return self.status

    def goes_on(self, timeout):
        """A sentence, and what shows why."""
        return (f"the daemon of {self.path} did not end within {timeout} s\n{keepers(self.path)}\n{stacks(self.pid)}\n"
                f"{self.messages()}")

    def stop(self, timeout=PATIENCE):
        """An orderly unmount: the daemon ends with 0 and reports nothing bad."""
        try:
            unmount(self.path)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.messages()}") from None
        status = self.wait(timeout)
        self.finalise()
        assert status in (0, None), f"the daemon ended with {status}\n{self.messages()}"
        return status

    def kill(self):
        if self.pid and not self.has_ended():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def kill9(self):
        """What a crash of the daemon leaves behind, and nothing of the mount."""
        self.kill()
        self.wait()
        self.finalise()

    def finalise(self):
        """Nothing stays, whatever state the mount is in."""
        if self in _live_mounts:
            _live_mounts.remove(self)
        while any(point == self.path for point, _, _ in cleanup.mounts_below(self.path)):
            if not cleanup.quietly("fusermount3", "-uz", self.path):
                cleanup.quietly("umount", "-l", self.path)
        patience = 60 if self.status is None else 0
        if self.pid and not process_ended(self.pid, patience):
            warnings.warn(self.goes_on(patience))
            self.kill()
        if self.child:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(60)
            if self.foreground:
                self.status = self.child.returncode
        note_report(self.log_path, self.messages())

    def messages(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def file(self, name):
        return os.path.join(self.path, name)

    def control(self, *names):
        """A path in the control tree."""
        return os.path.join(self.path, CONTROL, *names)

    def names(self):
        return sorted(name for name in os.listdir(self.path) if name != CONTROL)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        else:
            self.finalise()


def stats(live):
    """A mount's counters."""
    with open(live.control("stats"), encoding="ascii") as file:
        return json.load(file)


def control_values(live, *names):
    """The lines of a control file, as a dictionary."""
    with open(live.control(*names), encoding="utf-8") as file:
        return dict(line.split(": ", 1) for line in file.read().splitlines())


def state_of(live, name="web1.img"):
    return control_values(live, "disks", name, "state")


def read_file(path, size):
    with opened(path, os.O_RDONLY) as fd:
        return read_all(fd, size, 0)


class Gate:
    """Fault points fire while it stands open; see faults()."""

    def __init__(self, directory, name="gate"):
        self.path = os.path.join(directory, name)

    def open(self):
        os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY))

    def close(self):
        os.unlink(self.path)


class MountError(Exception):
    """leafdisk refused: its exit status and what it said."""

    def __init__(self, status, messages):
        super().__init__(f"exit status {status}: {messages}")
        self.status = status
        self.messages = messages


def device_attribute(device, name):
    with open(f"/sys/block/{os.path.basename(device)}/{name}", encoding="utf-8") as file:
        return file.read()


def loop_attachment(device):
    """Another one for each file that DEVICE is given; None when it has none. The
    file itself tells nothing when its daemon was killed, nor does its path once
    that is unmounted lazily."""
    try:
        return device_attribute(device, "loop/backing_file") and device_attribute(device, "diskseq")
    except OSError:
        return None


class Loop:
    """A loop device on a file, with direct I/O."""

    def __init__(self, path, *options):
        self.path = path
        self.device = run("losetup", "--direct-io=on", *options, "--show", "-f", path).stdout.strip()
        if not options:
            # A program that was killed may have left the device read-only, which outlasts its file.
            run("blockdev", "--setrw", self.device)
        self.attachment = loop_attachment(self.device)
        _live_loops.append(self)
        self.mounted = None

    def sectors_written(self):
        return int(device_attribute(self.device, "stat").split()[6])

    def mount(self, directory, *options):
        os.makedirs(directory, exist_ok=True)
        run("mount", *options, self.device, directory)
        self.mounted = directory
        return directory

    def unmount(self):
        run("umount", self.mounted)
        self.mounted = None

    def detach(self):
        """The device is gone from the file when this returns."""
        if self.mounted:
            self.unmount()
        run("losetup", "-d", self.device)
        wait_until(lambda: not self.is_attached(), f"{self.device} to let go of {self.path}")
        _live_loops.remove(self)

    def is_attached(self):
        return loop_attachment(self.device) == self.attachment

    def finalise(self):
        if self in _live_loops:
            _live_loops.remove(self)
        if self.mounted:
            cleanup.quietly("umount", "-l", self.mounted)
        if self.is_attached():
            cleanup.quietly("losetup", "-d", self.device)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.detach()
        elif self in _live_loops:
            self.finalise()


@contextlib.contextmanager
def file_system(work, name, size, *options):
    """A directory that is an ext4 of its own, which is full soon and can be frozen; OPTIONS are mke2fs's."""
    path = os.path.join(work, f"{name}.ext4")
    run("truncate", "-s", size, path)
    run("mke2fs", "-q", "-t", "ext4", "-m", "0", *options, path)
    with Loop(path) as loop:
        yield loop.mount(os.path.join(work, name))


NO_JOURNAL = ["-O", "^has_journal"]


def write_conf(work, text):
    """A configuration file: its path."""
    path = os.path.join(work, "leafdisk.conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def faults(*rules, gate=None):
    """The environment that arms fault points; see include/core/fault.h."""
    env = {"LEAFDISK_FAULTS": ";".join(rules)}
    if gate:
        env["LEAFDISK_FAULTS_GATE"] = gate
    return env


def shrink(live, name, size):
    """What `leafctl resize --shrink` does."""
    with open(live.control("disks", name, "size"), "w", encoding="ascii") as file:
        file.write(str(size))


def make_image(path, size=None, parent=None, chunk=None):
    """leafctl create."""
    words = ["create"]
    if parent:
        words += ["-b", parent]
    if chunk:
        words += ["-c", chunk]
    leafctl(*words, path, *([size] if size is not None else []))
    return path


def make_raw(path, content):
    with open(path, "wb") as file:
        file.write(content)
    return path


def converted(image, work, *options):
    """The disk's content as leafctl convert tells it."""
    target = os.path.join(work, "converted.raw")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)
    leafctl("convert", *options, image, target)
    return file_bytes(target)


def expect_errno(number, function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        assert error.errno == number, f"{errno.errorcode[error.errno]}, expected {errno.errorcode[number]}"
        return
    raise AssertionError(f"{function.__name__} succeeded, expected {errno.errorcode[number]}")
