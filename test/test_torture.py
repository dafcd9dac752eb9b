"""Sixty-four processes that do everything at once: nothing hangs, nothing is lost.

In `make torture` LEAFDISK_TORTURE_SECONDS (600) for each mode, all its stores and
numbers of disks together; LEAFDISK_TORTURE_DEADLINE is the longest that one operation
may take."""
import os

import pytest

from harness import MIB, TORTURE
from torture import MODES, STORES, Torture

SECONDS = int(os.environ.get("LEAFDISK_TORTURE_SECONDS", 600))
ROUND_SECONDS = 15
SMOKE = [("direct", "normal", 8), ("persistent", "normal", 8), ("writeback", "normal", 1), ("ephemeral", "normal", 8)]
CASES = [(mode, store, disks) for mode in MODES for store in STORES for disks in (8, 1)]


def play(torture, rng, *options):
    """One mount's load, and an orderly end."""
    with torture.mount() as live:
        return torture.load(live, rng.randrange(1 << 32), *options).result()


def assert_all_kinds(counts, mode):
    """What an ephemeral disk was given would be lost by a rename, which is refused."""
    missing = [kind for kind, (succeeded, _, _) in counts.items()
               if succeeded == 0 and (kind, mode) != ("rename", "ephemeral")]
    assert counts and not missing, f"no {missing} succeeded: {counts}"


@pytest.mark.skipif(TORTURE, reason="the long ones have all of this")
@pytest.mark.parametrize("mode,store,disks", SMOKE)
def test_everything_at_once_for_a_moment(mount, pool, work, rng, other_store, mode, store, disks):
    torture = Torture(mount, pool, work, rng, other_store, mode, store, disks, 8 * MIB)
    assert_all_kinds(play(torture, rng, "operations=60"), mode)
    torture.verify_all()


def crash(torture, rng):
    live = torture.mount()
    load = torture.load(live, rng.randrange(1 << 32))
    load.watch(rng.uniform(0.5, ROUND_SECONDS))
    assert load.process.poll() is None, load.failure()
    load.kill_daemon()


@pytest.mark.skipif(not TORTURE, reason="make torture")
@pytest.mark.parametrize("mode,store,disks", CASES)
def test_everything_at_once(mount, pool, work, rng, other_store, mode, store, disks):
    torture = Torture(mount, pool, work, rng, other_store, mode, store, disks, 16 * MIB)
    seconds = SECONDS // (len(CASES) // len(MODES))
    rounds = max(seconds // ROUND_SECONDS, 1)
    for number in range(rounds):
        if store == "normal" and mode != "ephemeral" and number % 3 == 2:
            crash(torture, rng)
            torture.verify_all("durable")
            continue
        counts = play(torture, rng, f"seconds={seconds / rounds:.0f}")
        print(f"round {number}: {counts}")
        torture.verify_all()
