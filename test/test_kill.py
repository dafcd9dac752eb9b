"""The daemon is killed, or fails at every one of its operations in turn."""
import contextlib
import errno
import os
import threading

import pytest

import leaf_format

from harness import (BLOCK, CRASH_STATUS, KIB, MIB, SANITIZED, MountError, check_clean, faults, leafctl, make_image,
                     make_raw, numbers, scaled)
from stamps import Ledger, Writer, await_random_moment, load, read_disk

BLOCKS = 16 * MIB // BLOCK
KILLS = scaled(20 if SANITIZED else 50, 500)


def verify(live, ledger, name, what):
    ledger.settle_all(read_disk(live.file(name), ledger.blocks), what)


# Four times KILLS kills: over chunk sizes, parents and loops.
@pytest.mark.slow
@pytest.mark.parametrize("chunk,parent,options", [
    ("64K", False, []), ("1M", False, []), ("64K", True, []), ("256K", True, ["threads=2"]),
])
def test_killed_at_random_moments(mount, pool, rng, chunk, parent, options):
    base = os.path.join(pool, "base.raw")
    if parent:
        make_raw(base, bytes(BLOCKS * BLOCK))
    image = make_image(os.path.join(pool, "web1.leaf"), BLOCKS * BLOCK, parent=base if parent else None, chunk=chunk)
    ledger = Ledger(BLOCKS)
    for kill in range(KILLS):
        live = mount(*options)
        verify(live, ledger, "web1.img", f"after kill {kill}")
        finish = load(live.file("web1.img"), ledger, rng)
        # The moment is what is random here.
        await_random_moment(live, ledger, rng, 0.25, 10 * (kill + 1))
        live.kill9()
        finish()
        check_clean(image)
    assert ledger.version > 10 * KILLS, "the writers hardly wrote"
    with mount() as live:
        verify(live, ledger, "web1.img", "after the last kill")


SMALL_BLOCKS = 2 * MIB // BLOCK
SMALL_STEPS = 40


def small_load(path, ledger, seed, rng_class):
    """The same few operations each time; the writer, with what it met."""
    writer = Writer(ledger, path, rng_class(seed))
    writer.run(threading.Event(), steps=SMALL_STEPS)
    return writer


def stop_quietly(live):
    """Ends a daemon that may have failed, and says how it ended."""
    with contextlib.suppress(AssertionError):
        live.stop()
    live.finalise()
    return live.status


def small_image(pool, name="web1.leaf"):
    path = os.path.join(pool, name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return make_image(path, SMALL_BLOCKS * BLOCK, chunk="64K")


def run_with_faults(mount, pool, seed, rng_class, env):
    """One small run; what it left is checked and read back. Returns the
    daemon's exit status and the errors that the guest met."""
    image = small_image(pool)
    ledger = Ledger(SMALL_BLOCKS)
    errors = []
    try:
        live = mount(env=env)
    except MountError as refusal:
        status = refusal.status
    else:
        writer = small_load(live.file("web1.img"), ledger, seed, rng_class)
        status, errors = stop_quietly(live), writer.errors
        if status == 0 and not errors:
            writer.all_durable()
    check_clean(image)
    with mount() as live:
        verify(live, ledger, "web1.img", str(env))
    return status, errors


@pytest.mark.parametrize("point", ["aio.write", "aio.datasync", "image.write", "image.sync"])
def test_crash_at_every_operation(mount, pool, rng, point):
    """The process ends at the Nth operation, for every N until none is met."""
    seed = rng.random()
    crashes = 0
    for number in numbers(50):
        status, _ = run_with_faults(mount, pool, seed, type(rng), faults(f"{point}:crash@{number}"))
        if status == 0:
            break
        assert status == CRASH_STATUS, f"{point} {number}: the daemon ended with {status}"
        crashes += 1
    assert status == 0, "every run met a crash"
    assert crashes > 0 or point.startswith("image."), f"{point} was never met"


@pytest.mark.slow
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("point", ["aio.write", "aio.datasync"])
def test_error_at_every_operation(mount, pool, rng, point, error):
    """From the Nth operation on all fail, then the Nth alone: the guest is told
    by this request or by its next flush, what was durable stays, and nothing
    is damaged."""
    seed = rng.random()
    failures = []
    for number in numbers(50):
        rule = f"{point}/web1.leaf:{error}@{number}"
        status, errors = run_with_faults(mount, pool, seed, type(rng), faults(rule))
        if status == 0 and not errors:
            break
        if errors:
            assert errors[0].errno in (errno.EIO, errno.ENOSPC), errors
            failures.append(number)
        alone, _ = run_with_faults(mount, pool, seed, type(rng), faults(rule + "x1"))
        assert alone in (0, 1), f"{rule}x1: the daemon ended with {alone}"
    assert status == 0 and not errors, "every run met an error"
    assert len(failures) >= 3, f"{point} was hardly met: {failures}"


def test_reads_fail_and_recover(mount, pool, rng, work):
    """A read that fails is an error for its request and for nothing else."""
    content = rng.randbytes(MIB)
    make_raw(os.path.join(pool, "base.raw"), content)
    make_image(os.path.join(pool, "web1.leaf"), parent=os.path.join(pool, "base.raw"))
    gate = os.path.join(work, "gate")
    with mount(env=faults("aio.read/base.raw:EIOx3", gate=gate)) as live:
        with open(gate, "w", encoding="ascii"), open(live.file("web1.img"), "rb", buffering=0) as file:
            met = 0
            for _ in range(10):
                try:
                    assert os.pread(file.fileno(), 64 * KIB, 128 * KIB) == content[128 * KIB:192 * KIB]
                    break
                except OSError as failure:
                    assert failure.errno == errno.EIO
                    met += 1
            assert 1 <= met <= 3, f"{met} errors"


@pytest.mark.parametrize("error,count", [("EAGAIN", 3), ("EINTR", 2), ("short", 5)])
def test_transient_errors_are_retried(mount, pool, rng, error, count):
    """What passes by itself never reaches the guest."""
    image = small_image(pool)
    ledger = Ledger(SMALL_BLOCKS)
    live = mount(env=faults(f"aio.write/web1.leaf:{error}@4x{count}", f"aio.read/web1.leaf:{error}@2x{count}"))
    writer = small_load(live.file("web1.img"), ledger, rng.random(), type(rng))
    assert writer.errors == []
    live.stop()
    check_clean(image)
    with mount() as again:
        verify(again, ledger, "web1.img", error)


def crash_between_header_copies(mount, ledger, rng):
    """Opens the disk for writing; dies when the first copy is written."""
    live = mount(env=faults("image.sync/web1.leaf:crash@2"))
    writer = small_load(live.file("web1.img"), ledger, rng.random(), type(rng))
    assert writer.errors
    assert stop_quietly(live) == CRASH_STATUS


@pytest.mark.parametrize("command", ["resize", "check"])
@pytest.mark.parametrize("point", ["image.write", "image.sync"])
def test_tools_crash_after_a_crash(mount, pool, rng, command, point):
    """The header's second copy lags, twice in a row; then a tool dies at each of
    its writes, twice. At the end all is as it was."""
    for number in numbers(50, 1000):
        image, ledger = small_image(pool), Ledger(SMALL_BLOCKS)
        for _ in range(2):
            crash_between_header_copies(mount, ledger, rng)
            check_clean(image)
        if command == "check":
            spoil_second_copy(image)
        arguments = ["resize", image, "3M"] if command == "resize" else ["check", "--repair", image]
        statuses = []
        for _ in range(2):
            result = leafctl(*arguments, check=False, env=faults(f"{point}:crash@{number}"))
            assert result.returncode in (0, CRASH_STATUS), result.stderr
            statuses.append(result.returncode)
            check_clean(image)
        with mount() as live:
            verify(live, ledger, "web1.img", f"{command}, {point} {number}")
        if statuses[0] == 0:
            break
    assert number > 2


def spoil_second_copy(image):
    with open(image, "r+b") as file:
        file.seek(leaf_format.PAGE + 100)
        file.write(b"spoilt")


def test_resize_crashes_at_every_write(pool, work):
    """leafctl resize is done or not done, whatever it dies at."""
    for point in ("image.write", "image.sync", "aio.write", "aio.datasync"):
        for number in numbers(50, 1000):
            image = small_image(pool)
            result = leafctl("resize", image, "3M", check=False, env=faults(f"{point}:crash@{number}"))
            assert result.returncode in (0, CRASH_STATUS), result.stderr
            check_clean(image)
            info = leafctl("info", image).stdout
            old, new = str(2 * MIB) in info, str(3 * MIB) in info
            assert old != new, f"{point} {number}: neither the old nor the new size\n{info}"
            if result.returncode == 0:
                assert new
                break
    assert os.listdir(work) == ["pool"]
