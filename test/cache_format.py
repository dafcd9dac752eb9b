"""The cache's bytes, written and read from what leafdisk-cache(5) says alone."""
import struct

import xxhash

BLOCK = 4096
SEGMENT_BLOCKS = 256
SEGMENTS_OFFSET = 1 << 20
SUPER_PLACES = (0, 65536)
SUPER_CHECKSUM = 24
RECORD_CHECKSUM = 16
RECORD_MAGIC = {1: 0x5243464c, 2: 0x3252464c}
BODY_OFFSET = 80
BODY_BYTES = BLOCK - BODY_OFFSET
(CLEAN, DIRTY, ZERO, FORGET, LAYER, DROP, BARRIER, MIGRATE, MIGRATED, LAST, MOVED, MOVED_ZERO,
 MOVED_BARRIER) = range(1, 14)
SUPERSEDED = 1 << 63
ALL = 0xffffffff  # records before one, of which it names every layer that they have changed

SUPER = struct.Struct("<8sIIQQQQQQ16s16sIIQQQQQQI4xQQ80x2048s1792x")
RECORD = struct.Struct("<IIQQQQQQQIIQ")
ENTRY = struct.Struct("<IHHQ")
DECLARATION = {1: struct.Struct("<16sQQQII"), 2: struct.Struct("<16sQQQII16sI4xQ")}


def checksum(data):
    return xxhash.xxh64_intdigest(bytes(data))


def sealed(block, where):
    """BLOCK, whose checksum field is zero, with its checksum."""
    block = bytearray(block)
    assert len(block) == BLOCK
    struct.pack_into("<Q", block, where, checksum(block))
    return bytes(block)


def slot_offset(slot):
    return SEGMENTS_OFFSET + slot * BLOCK


def data_entry(layer, kind, block, contents):
    """BLOCK on are CONTENTS, one byte string of 4096 each."""
    words = [checksum(data) for data in contents]
    return ENTRY.pack(layer, kind, len(words), block) + struct.pack(f"<{len(words)}Q", *words), contents


def zeros_entry(layer, kind, block, blocks):
    """Data blocks of zeros."""
    return data_entry(layer, kind, block, [bytes(BLOCK)] * blocks)


def range_entry(layer, kind, block, blocks):
    return ENTRY.pack(layer, kind, 1, block) + struct.pack("<Q", blocks), []


def moved_entry(layer, block, contents, order):
    """DIRTY that had ORDER, with SUPERSEDED or not, at its first place."""
    entry, _ = data_entry(layer, MOVED, block, contents)
    return ENTRY.pack(layer, MOVED, len(contents) + 1, block) + struct.pack("<Q", order) + entry[16:], contents


def moved_zero_entry(layer, block, blocks, order):
    return ENTRY.pack(layer, MOVED_ZERO, 2, block) + struct.pack("<QQ", blocks, order), []


def moved_barrier_entry(layer, order):
    return ENTRY.pack(layer, MOVED_BARRIER, 0, order), []


def layer_entry(layer, identity, stamp, size, name, generation=0, flags=0, nonce=bytes(16), orphan=(0, 0), version=2):
    """ORPHAN: the reason and the time."""
    name = name.encode()
    padded = name + bytes(-len(name) % 8)
    fields = (identity, stamp, size, generation, len(name), flags, nonce, *orphan)
    body = DECLARATION[version].pack(*(fields if version > 1 else fields[:6])) + padded
    return ENTRY.pack(layer, LAYER, len(body) // 8, 0) + body, []


def drop_entry(layer):
    return ENTRY.pack(layer, DROP, 0, 0), []


def barrier_entry(layer):
    return ENTRY.pack(layer, BARRIER, 0, 0), []


def migrate_entry(layer, kind, order):
    """KIND is MIGRATE or MIGRATED: up to the barrier in the record with the sequence ORDER."""
    return ENTRY.pack(layer, kind, 0, order), []


def migrate_entry_1(layer, kind, slot, blocks):
    """Version 1: up to the barrier in the record at SLOT, behind BLOCKS data blocks of it."""
    return ENTRY.pack(layer, kind, 2, 0) + struct.pack("<QQ", slot, blocks), []


def is_plain_layer(kind, entry):
    """LAYER without generation, flags and nonce: it changes nothing."""
    return kind == LAYER and not any(DECLARATION[2].unpack_from(entry, ENTRY.size)[i] for i in (3, 5)) and \
        not any(entry[ENTRY.size + 48:ENTRY.size + 64])


def last_entry(layer, sequence):
    return ENTRY.pack(layer, LAST, 0, sequence), []


class Cache:
    """A cache that grows in memory, record by record."""

    witnesses = True

    def __init__(self, segments=7, uuid=bytes(range(1, 17)), pool_id=bytes(16), pool="/pool", ring=None, version=2):
        self.version = version
        self.segments = segments
        self.ring = ring or segments
        self.uuid = uuid
        self.pool_id = pool_id
        self.pool = pool.encode()
        self.image = self.blank(SEGMENTS_OFFSET + segments * SEGMENT_BLOCKS * BLOCK)
        self.generation = 1
        self.tail = (0, 1, 0)
        self.end_sequence = 0
        self.lost_generation = 0
        self.super_sequence = 0
        self.slot = 0
        self.sequence = 1
        self.previous = 0
        self.durable = 0
        self.mount_sequence = 1 if version > 1 else 0
        self.last = {}  # layer: the sequence of the last record that changed it
        self.records = []  # slot of each
        self.write_super()

    def blank(self, size):
        return bytearray(size)

    def super_block(self, sequence):
        place = SUPER_PLACES[sequence % 2]
        tail_segment, tail_sequence, tail_previous = self.tail
        return place, sealed(SUPER.pack(
            b"LEAFCACH", self.version, BLOCK, place, 0, sequence, 0, 0, 0, self.uuid, self.pool_id, SEGMENT_BLOCKS * BLOCK, 0,
            self.segments, self.ring, self.generation, tail_segment, tail_sequence, tail_previous, len(self.pool),
            self.end_sequence, self.lost_generation, self.pool), SUPER_CHECKSUM)

    def write_super(self):
        for _ in SUPER_PLACES:
            self.super_sequence += 1
            place, block = self.super_block(self.super_sequence)
            self.place(place, block, b"")

    def next_slot(self, blocks):
        following = self.slot + 1 + blocks
        if SEGMENT_BLOCKS - following % SEGMENT_BLOCKS < 2:
            following = following - following % SEGMENT_BLOCKS + SEGMENT_BLOCKS
        return following % (self.ring * SEGMENT_BLOCKS)

    def append(self, *entries, **fields):
        """One record; FIELDS replace what belongs there."""
        self.place(slot_offset(self.slot), *self.record(entries, fields))

    def place(self, offset, header, data):
        self.image[offset:offset + BLOCK + len(data)] = header + data

    def lasts(self, entries):
        """LAST for each layer that ENTRIES change, and then for those that they do not."""
        changed = {}
        if self.version == 1:
            return [], changed
        for entry, _ in entries:
            layer, kind, _, _ = ENTRY.unpack_from(entry)
            if kind not in (CLEAN, DROP, LAST) and not is_plain_layer(kind, entry):
                changed[layer] = self.last.get(layer, 0)
        return [last_entry(layer, last) for layer, last in (changed | self.last).items()], changed

    def record(self, entries, fields):
        """The next record's header and data."""
        lasts, changed = self.lasts(entries) if self.witnesses else ([], {})
        entries = [*lasts, *entries]
        self.last.update((layer, self.sequence) for layer in changed)
        body = b"".join(entry for entry, _ in entries)
        data = b"".join(content for _, contents in entries for content in contents)
        values = {
            "magic": RECORD_MAGIC[self.version], "blocks": len(data) // BLOCK, "position": slot_offset(self.slot), "checksum": 0,
            "cache_id": struct.unpack_from("<Q", self.uuid)[0], "generation": self.generation,
            "sequence": self.sequence, "previous": self.previous, "durable": self.durable,
            "depth": ALL if self.version > 1 else 0, "entries_bytes": len(body),
            "mount_sequence": self.mount_sequence, **fields}
        header = sealed(RECORD.pack(*values.values()) + body.ljust(BODY_BYTES, b"\0"), RECORD_CHECKSUM)
        self.records.append(self.slot)
        self.slot = self.next_slot(len(data) // BLOCK)
        self.sequence += 1
        self.previous = struct.unpack_from("<Q", header, RECORD_CHECKSUM)[0]
        return header, data

    def write(self, path):
        with open(path, "wb") as file:
            file.truncate(len(self.image))
            for offset in range(0, len(self.image), BLOCK):
                block = self.image[offset:offset + BLOCK]
                if any(block):
                    file.seek(offset)
                    file.write(block)
        return path


class SparseCache(Cache):
    """A cache in FILE, whose data blocks are all zeros and left out."""

    witnesses = False

    def __init__(self, file, *arguments, **settings):
        self.file = file
        super().__init__(*arguments, **settings)

    def blank(self, size):
        self.file.truncate(size)

    def place(self, offset, header, _data):
        self.file.seek(offset)
        self.file.write(header)
