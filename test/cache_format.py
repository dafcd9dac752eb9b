"""The cache's bytes, written and read from what leafdisk-cache(5) says alone."""
import struct

import xxhash

BLOCK = 4096
SEGMENT_BLOCKS = 256
SEGMENTS_OFFSET = 1 << 20
SUPER_PLACES = (0, 65536)
SUPER_CHECKSUM = 24
RECORD_CHECKSUM = 16
BODY_OFFSET = 80
BODY_BYTES = BLOCK - BODY_OFFSET
CLEAN, DIRTY, ZERO, FORGET, LAYER, DROP, BARRIER, MIGRATE, MIGRATED = range(1, 10)

SUPER = struct.Struct("<8sIIQQQQQQ16s16sIIQQQQQQI100x2048s1792x")
RECORD = struct.Struct("<IIQQQQQQQII8x")
ENTRY = struct.Struct("<IHHQ")
DECLARATION = struct.Struct("<16sQQQII")


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


def layer_entry(layer, identity, stamp, size, name, generation=0, flags=0):
    name = name.encode()
    padded = name + bytes(-len(name) % 8)
    body = DECLARATION.pack(identity, stamp, size, generation, len(name), flags) + padded
    return ENTRY.pack(layer, LAYER, len(body) // 8, 0) + body, []


def drop_entry(layer):
    return ENTRY.pack(layer, DROP, 0, 0), []


def barrier_entry(layer):
    return ENTRY.pack(layer, BARRIER, 0, 0), []


def migrate_entry(layer, kind, slot, blocks):
    """KIND is MIGRATE or MIGRATED: up to the barrier in the record at SLOT, behind BLOCKS data blocks of it."""
    return ENTRY.pack(layer, kind, 2, 0) + struct.pack("<QQ", slot, blocks), []


class Cache:
    """A cache that grows in memory, record by record."""

    def __init__(self, segments=7, uuid=bytes(range(1, 17)), pool_id=bytes(16), pool="/pool", ring=None):
        self.segments = segments
        self.ring = ring or segments
        self.uuid = uuid
        self.pool_id = pool_id
        self.pool = pool.encode()
        self.image = self.blank(SEGMENTS_OFFSET + segments * SEGMENT_BLOCKS * BLOCK)
        self.generation = 1
        self.tail = (0, 1, 0)
        self.super_sequence = 0
        self.slot = 0
        self.sequence = 1
        self.previous = 0
        self.durable = 0
        self.records = []  # slot of each
        self.write_super()

    def blank(self, size):
        return bytearray(size)

    def super_block(self, sequence):
        place = SUPER_PLACES[sequence % 2]
        tail_segment, tail_sequence, tail_previous = self.tail
        return place, sealed(SUPER.pack(
            b"LEAFCACH", 1, BLOCK, place, 0, sequence, 0, 0, 0, self.uuid, self.pool_id, SEGMENT_BLOCKS * BLOCK, 0,
            self.segments, self.ring, self.generation, tail_segment, tail_sequence, tail_previous, len(self.pool),
            self.pool), SUPER_CHECKSUM)

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

    def record(self, entries, fields):
        """The next record's header and data."""
        body = b"".join(entry for entry, _ in entries)
        data = b"".join(content for _, contents in entries for content in contents)
        values = {
            "magic": 0x5243464c, "blocks": len(data) // BLOCK, "position": slot_offset(self.slot), "checksum": 0,
            "cache_id": struct.unpack_from("<Q", self.uuid)[0], "generation": self.generation,
            "sequence": self.sequence, "previous": self.previous, "durable": self.durable, "reserved": 0,
            "entries_bytes": len(body), **fields}
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

    def __init__(self, file, *arguments, **settings):
        self.file = file
        super().__init__(*arguments, **settings)

    def blank(self, size):
        self.file.truncate(size)

    def place(self, offset, header, _data):
        self.file.seek(offset)
        self.file.write(header)
