"""States that a loss of power can leave on the storage, made from a trace of
the daemon's writes: a write is sure once a datasync that began after it has
finished; any later one is there, missing or torn between sectors."""
import contextlib
import os
import struct
import threading

import pytest

import leaf_format

from harness import (BLOCK, BUILD, MIB, SANITIZED, Loop, assert_same, check_clean, converted, copy_file, faults,
                     file_bytes, leafctl, make_image, make_of_pieces, make_raw, pieces_of, run, scaled, size_of, stats,
                     write_conf)
from rounds import Guest, rounds_of
from stamps import SECTOR, Ledger, Writer, read_disk

RECORD = struct.Struct("<c3xIQII")
BLOCKS = 8 * MIB // BLOCK
STATES = scaled(20 if SANITIZED else 60, 1000)


def read_trace(path, name):
    """(position in the trace after the record, type, offset, data)."""
    records = []
    with open(path, "rb") as file:
        data = file.read()
    at = 0
    while at + RECORD.size <= len(data):
        kind, name_bytes, offset, length, _ = RECORD.unpack_from(data, at)
        end = at + RECORD.size + name_bytes + length
        if end > len(data):
            break
        file_name = data[at + RECORD.size:at + RECORD.size + name_bytes].decode()
        if os.path.basename(file_name) == name:
            records.append((end, kind, offset, data[end - length:end]))
        at = end
    return records


def sure_before(records, cut):
    """How many of the first CUT records' writes are sure: those before the
    begin of the last datasync that finished. Where several were under way the
    earliest is taken for the one that finished, which promises less."""
    begun, sure = [], 0
    for index in range(cut):
        kind = records[index][1]
        if kind == b"B":
            begun.append(index)
        elif kind == b"F":
            sure = begun.pop(0)
    return sure


def tear(rng, offset, data):
    """Some of the write's sectors."""
    for start in range(0, len(data), SECTOR):
        if rng.random() < 0.5:
            yield offset + start, data[start:start + SECTOR]


def written_at(rng, records, cut):
    """(offset, bytes) of what the file has of the writes after a loss of power at record CUT."""
    sure = sure_before(records, cut)
    kept = rng.choice([0, 0.5, 0.9, 1])
    for index, (_, kind, offset, data) in enumerate(records[:cut]):
        if kind != b"W":
            continue
        if index < sure or rng.random() < kept:
            yield offset, data
        elif rng.random() < 0.5:
            yield from tear(rng, offset, data)


class History:
    """What was durable when: at which length of the trace which versions."""

    def __init__(self, trace):
        self.trace = trace
        self.entries = []
        with open(trace, "wb"):
            pass

    def note(self, completed):
        self.entries.append((os.stat(self.trace).st_size, dict(completed)))

    def ledger_at(self, issued, position):
        """The ledger as of POSITION; any version issued may be there too."""
        ledger = Ledger(len(issued))
        ledger.states = [list(states) for states in issued]
        for end, completed in self.entries:
            if end <= position:
                for block, version in completed.items():
                    ledger.durable(block, version)
        return ledger


class Recorder(Ledger):
    """A ledger that forgets nothing: the history says what is durable when."""

    def durable(self, block, version):
        pass


def shorten_journal(image):
    """The least journal that the format allows: a checkpoint every few flushes."""
    with open(image, "rb") as file:
        data = file.read()
    chunk, start, length = leaf_format.field(data, "chunk_bytes"), leaf_format.field(data, "journal_offset"), 64 << 10
    with open(image, "wb") as file:
        file.write(leaf_format.forge(data, journal_bytes=length, data_offset=-(-(start + length) // chunk) * chunk))


def killed_between_copies(mount, image, issued, history, rng):
    """What a first daemon leaves that is killed in a checkpoint, when the first
    copy of the header is written. How many flushes come before depends on what
    is done at opening: the copies tell whether it was there."""
    def sequences():
        with open(image, "rb") as file:
            copies = file.read(2 * leaf_format.PAGE)
        return [leaf_format.field(copies, "sequence", place) for place in leaf_format.header_places(copies)]

    for number in range(1, 20):
        live = mount(env=faults(f"image.sync/web1.leaf:crash@{number}"))
        writer = Writer(issued, live.file("web1.img"), rng)
        writer.on_durable = history.note
        writer.run(threading.Event(), 200)
        with contextlib.suppress(AssertionError):
            live.stop()
        live.finalise()
        first, second = sequences()
        if first == second + 1 and writer.completed:
            return
    raise AssertionError("no daemon was killed between the copies after it had written")


@pytest.fixture(params=["64K", "1M", "64K killed"])
def traced(request, mount, pool, work, rng):
    """A traced run: the image before, its end, the records and the history."""
    chunk, *killed = request.param.split()
    image = make_image(os.path.join(pool, "web1.leaf"), BLOCKS * BLOCK, chunk=chunk)
    shorten_journal(image)
    trace = os.path.join(work, "trace.bin")
    issued, history, lock = Recorder(BLOCKS), History(trace), threading.Lock()
    if killed:
        killed_between_copies(mount, image, issued, history, rng)
    os.sync()
    before = os.path.join(work, "before.leaf")
    copy_file(image, before)
    with mount(env={"LEAFDISK_TRACE": work}) as live:
        writers = [Writer(issued, live.file("web1.img"), type(rng)(rng.random()), number, 2, lock)
                   for number in range(2)]
        threads = []
        for writer in writers:
            writer.on_durable = history.note
            threads.append(threading.Thread(target=writer.run, args=(threading.Event(), scaled(300, 1500))))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [error for writer in writers for error in writer.errors] == []
    records = read_trace(trace, "web1.leaf")
    assert sum(kind == b"F" for _, kind, _, _ in records) > 20, "the trace has hardly a flush"
    headers = sum(kind == b"W" and offset == 0 for _, kind, offset, _ in records)
    assert headers > 2, "the trace has hardly a checkpoint"
    return list(pieces_of(before)), os.stat(image).st_size, records, issued.states, history


@pytest.mark.slow
def test_every_state_recovers(traced, mount, pool, work, rng):
    initial, final_size, records, issued, history = traced
    path = os.path.join(pool, "web1.leaf")
    for number in range(STATES):
        # The first writes are few, and the header's are among them.
        cut = rng.randrange(len(records) + 1 if number % 2 else 12)
        make_of_pieces(path, final_size, [*initial, *written_at(rng, records, cut)])
        ledger = history.ledger_at(issued, records[cut - 1][0] if cut else 0)
        what = f"power lost after record {cut} of {len(records)}"
        check_clean(path)
        ledger.settle_all(converted(path, work), what, torn=True)
        if number % 5 == 0:
            recover_and_go_on(mount, path, work, ledger, rng, what)


def recover_and_go_on(mount, path, work, ledger, rng, what):
    """The recovered disk takes writes; a second crash and it is still sound."""
    with mount() as live:
        # What is written now must be newer than all that the first run issued.
        ledger.version = 1 << 40
        writer = Writer(ledger, live.file("web1.img"), rng)
        writer.run(threading.Event(), steps=20)
        assert writer.errors == []
    check_clean(path)
    ledger.settle_all(converted(path, work), f"{what}, then written again", torn=True)


# ---- A batch --------------------------------------------------------------------

BATCH_STATES = scaled(40 if SANITIZED else 120, 2000)


def act(name, image, **env):
    """Part of the unit test of image_apply, in a process of its own."""
    run(os.path.join(BUILD, "unit", "test_leaf_apply"), "--act", image, "", name, env=env)


@pytest.mark.slow
def test_batch_is_all_or_nothing(pool, work, rng):
    """Data and zeros, over what is there, is absent or zero."""
    image = make_image(os.path.join(pool, "web1.leaf"), 128 * BLOCK, chunk="64K")
    trace = os.path.join(work, "trace.bin")
    act("prepare", image)
    initial = list(pieces_of(image))
    before = converted(image, work)
    act("apply", image, LEAFDISK_TRACE=work)
    records = read_trace(trace, "web1.leaf")
    final_size, after = os.stat(image).st_size, converted(image, work)
    assert before != after
    seen = set()
    for number in range(BATCH_STATES):
        cut = len(records) if number == 0 else rng.randrange(len(records) + 1)
        make_of_pieces(image, final_size, [*initial, *written_at(rng, records, cut)])
        leafctl("check", "--repair", image)
        check_clean(image)
        content = converted(image, work)
        assert content in (before, after), f"power lost after record {cut} of {len(records)}: a part of the batch"
        assert content == after or number > 0, "the batch was acknowledged and is not there"
        seen.add(content == after)
    assert seen == {False, True}


# ---- The cache ------------------------------------------------------------------

MOUNTS = 3
SESSIONS = 2
CACHE_STATES = scaled(10 if SANITIZED else 24, 600)


class Traced:
    """A file, as it was first, and what a trace says of it."""

    def __init__(self, path, trace, name):
        self.path = path
        self.initial = list(pieces_of(path))
        self.size = size_of(path)
        self.trace = trace
        self.name = name
        self.records = []

    def load(self):
        self.records = read_trace(self.trace, self.name)

    def write_state_at(self, rng, position):
        """The loss of power was when the trace had this length."""
        cut = sum(end <= position for end, _, _, _ in self.records)
        written = written_at(rng, self.records, cut)
        make_of_pieces(self.path, self.size, [*self.initial, *((offset, data[:max(self.size - offset, 0)])
                                                               for offset, data in written)])


def use_disk(live, rng, ledger):
    """A session: what is read is cached, what is written too, now and then more
    than the cache holds."""
    path = live.file("web1.img")
    writer = Writer(ledger, path, rng)
    read_disk(path, BLOCKS)
    writer.run(threading.Event(), scaled(60, 300), direct=True)
    assert writer.errors == []


@pytest.mark.slow
def test_cache_has_nothing_that_the_leaf_has_not(mount, pool, work, rng):
    """The power goes for both the leaf and the cache, and each loses other
    writes. The leaf is on a device, where nothing but its generation tells the
    cache whether it was changed. What is read is what the leaf alone has."""
    device, cache, trace = (os.path.join(work, name) for name in ("web1.bin", "leaf.cache", "trace.bin"))
    run("truncate", "-s", 3 * BLOCKS * BLOCK, device)
    with Loop(device) as loop:
        conf = write_conf(work, f"[pool]\nlayers = /dev\n[disk web1.img]\nlayers = {loop.device}\n")
        leafctl("create", "--force", "-c", "64K", loop.device, BLOCKS * BLOCK)
        leafctl("cache", "create", "--pool", pool, "--size", "8M", cache)
        os.sync()
        traced = [Traced(device, trace, os.path.basename(loop.device)), Traced(cache, trace, "leaf.cache")]
        options = [f"conf={conf}", f"cache={cache}", "mode=persistent", "read_run_bypass=1G"]
        ledger, unmounts = Recorder(BLOCKS), []
        for _ in range(MOUNTS):
            with mount(*options, env={"LEAFDISK_TRACE": work}) as live:
                for _ in range(SESSIONS):
                    use_disk(live, rng, ledger)
            unmounts.append(os.stat(trace).st_size)
        for one in traced:
            one.load()
            assert sum(kind == b"F" for _, kind, _, _ in one.records) > MOUNTS * SESSIONS
        hits = 0
        near = [rng.choice(unmounts) + rng.randint(-MIB, 64 * BLOCK) for _ in range(CACHE_STATES // 2)]
        anywhere = [rng.randrange(unmounts[-1]) for _ in range(CACHE_STATES // 2)]
        for position in [unmounts[-1], *near, *anywhere]:
            for one in traced:
                one.write_state_at(rng, position)
            run("blockdev", "--flushbufs", loop.device)
            check_clean(loop.device)
            leafctl("cache", "check", cache)
            alone = converted(loop.device, work)
            with mount(*options) as live:
                assert_same(read_disk(live.file("web1.img"), BLOCKS), alone, f"power lost at byte {position}")
                hits += stats(live)["cache_hits"]
        assert hits > 0, "nothing was ever found in the cache"


# ---- Writeback -------------------------------------------------------------------

WRITEBACK_BLOCKS = 257
WRITEBACK_STATES = scaled(12 if SANITIZED else 24, 1000)


def play_traced(live, guest, trace):
    """Rounds, and at which length of the trace which of them were flushed, and
    which written back."""
    history, rounds = [], scaled(120, 600)

    def note():
        if len(history) % 12 == 11:
            leafctl("drain", live.path)
            guest.written_back()
        history.append((os.stat(trace).st_size, guest.durable, guest.floor))

    guest.run(live.file("web1.img"), threading.Event(), rounds, note)
    assert guest.errors == [] and len(history) == rounds
    return history


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 64])
def test_writeback_loses_no_round_and_mixes_none(mount, pool, work, rng, batch):
    """The power goes for the leaf and the cache at once. The leaf alone is as at
    a barrier; with the cache everything that was flushed is there."""
    image = make_image(os.path.join(pool, "web1.leaf"), WRITEBACK_BLOCKS * BLOCK, chunk="64K")
    cache, trace = os.path.join(work, "leaf.cache"), os.path.join(work, "trace.bin")
    options = [f"cache={cache}", "mode=writeback", f"migrate_batch={batch}", "migrate_idle_ms=1", "max_dirty_age=86400"]
    leafctl("cache", "create", "--pool", pool, "--size", "16M", cache)
    os.sync()
    guest = Guest(WRITEBACK_BLOCKS, rng)
    traced = [Traced(image, trace, "web1.leaf"), Traced(cache, trace, "leaf.cache")]
    live = mount(*options, env={"LEAFDISK_TRACE": work})
    history = play_traced(live, guest, trace)
    live.kill9()
    owner = os.path.join(pool, ".leafdisk", "owners", "web1.leaf")
    claim = file_bytes(owner)
    for one in traced:
        one.load()
        one.size = size_of(one.path)
        assert sum(kind == b"F" for _, kind, _, _ in one.records) > 20, f"{one.name} was hardly flushed"
    met = set()
    for _ in range(WRITEBACK_STATES):
        begin = rng.randrange(len(history) - 1)
        position = rng.randrange(history[begin][0], history[begin + 1][0] + 1)
        what = f"power lost at byte {position}, after round {begin + 1}"
        for one in traced:
            one.write_state_at(rng, position)
        make_raw(owner, claim)
        met.add(check_alone(guest, image, work, history[begin], what))
        leafctl("cache", "check", cache)
        with mount(*options) as live:
            check_with_cache(guest, live, history[begin], what)
    assert len(met) > WRITEBACK_STATES // 8, f"{len(met)} states met"


def check_alone(guest, image, work, moment, what):
    """In a copy, so that the cache finds what the loss of power left."""
    copy = os.path.join(work, "alone.leaf")
    copy_file(image, copy)
    check_clean(copy)
    return guest.check_leaf(converted(copy, work), (moment[2], len(guest.states)), what)


def check_with_cache(guest, live, moment, what):
    """Block 0 is the last of its round: what came later than the round that was
    flushed is not older than it in any block."""
    found = rounds_of(read_disk(live.file("web1.img"), WRITEBACK_BLOCKS), what)
    states = [state for state in guest.states if state[0] in (found[0], found[0] + 1)]
    assert found[0] >= moment[1][0], f"{what}: round {moment[1][0]} was flushed, {found[0]} is there"
    assert all(number in {state[block] for state in states} for block, number in enumerate(found)), what
