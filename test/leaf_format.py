"""The native image's bytes, for tests that damage or forge them; see
include/format/leaf.h and leafdisk-layer(5)."""
import struct

import xxhash

PAGE = 4096
HEADER_MAGIC = b"LEAFDISK"
TABLE_MAGIC = b"LFTP"
ZERO_MAGIC = b"LFZL"
RECORD_MAGIC = b"LFJR"
# Journal entries.
CHUNK, FREE, ZERO, UNZERO, APPLY, APPLIED, DATA, ZEROS, DROP, PROGRESS = range(1, 11)

# name: offset, format
HEADER_FIELDS = {
    "magic": (0, "8s"), "version": (8, "<I"), "header_bytes": (12, "<I"), "position": (16, "<Q"),
    "sequence": (32, "<Q"), "features_compatible": (40, "<Q"), "features_read_only": (48, "<Q"),
    "features_incompatible": (56, "<Q"), "uuid": (64, "16s"), "size_bytes": (80, "<Q"), "chunk_bytes": (88, "<I"),
    "reserved0": (92, "<I"), "journal_offset": (96, "<Q"), "journal_bytes": (104, "<Q"), "data_offset": (112, "<Q"),
    "epoch": (120, "<Q"), "journal_sequence": (128, "<Q"), "slot_count": (136, "<Q"), "zero_list_slots": (144, "<Q"),
    "generation": (152, "<Q"), "parent_format": (160, "<I"), "parent_path_bytes": (164, "<I"),
    "parent_size_bytes": (168, "<Q"), "parent_uuid": (176, "16s"), "parent_generation": (192, "<Q"),
    "table_digest": (200, "<Q"), "claim": (208, "16s"),
    "parent_stamp": (224, "<Q"), "progress": (232, "<Q"), "parent_path": (256, "2048s"), "children": (2304, "1792s"),
}
# Where the checksum is, in a header and in pages and records.
HEADER_CHECKSUM = 24
PAGE_CHECKSUM = 16


def header_places(image):
    """Offsets of the header's copies in the bytes of an image."""
    return [offset for offset in range(0, 16 * PAGE, PAGE) if image[offset:offset + 8] == HEADER_MAGIC]


def metadata_places(image):
    """(offset, bytes) of each page of the table and of each journal record."""
    for offset in range(16 * PAGE, len(image), PAGE):
        magic = bytes(image[offset:offset + 4])
        if magic in (TABLE_MAGIC, ZERO_MAGIC):
            yield offset, PAGE
        elif magic == RECORD_MAGIC:
            yield offset, max(struct.unpack_from("<I", image, offset + 4)[0], 64)


def record_order(image, offset):
    """(epoch, sequence) of a journal record."""
    return struct.unpack_from("<QQ", image, offset + 24)


def field(image, name, place=0):
    offset, form = HEADER_FIELDS[name]
    return struct.unpack_from(form, image, place + offset)[0]


def set_field(image, name, value, place):
    offset, form = HEADER_FIELDS[name]
    struct.pack_into(form, image, place + offset, value)


def seal(image, place, length=PAGE, checksum=HEADER_CHECKSUM):
    """Makes the checksum right for what is there."""
    struct.pack_into("<Q", image, place + checksum, 0)
    struct.pack_into("<Q", image, place + checksum, xxhash.xxh64_intdigest(bytes(image[place:place + length])))


def forge(image, **values):
    """A copy of IMAGE with these fields in every copy of the header, sealed."""
    forged = bytearray(image)
    for place in header_places(image):
        for name, value in values.items():
            set_field(forged, name, value, place)
        seal(forged, place)
    return forged


def record(image, entries, position=None, number=0):
    """The bytes of a journal record with ENTRIES (type, values ...), at POSITION
    in the file, NUMBER records behind the first."""
    position = field(image, "journal_offset") if position is None else position
    body = b"".join(struct.pack(f"<II{len(values)}Q", kind, 8 + 8 * len(values), *values) for kind, *values in entries)
    length = -(-(64 + len(body)) // PAGE) * PAGE
    header = RECORD_MAGIC + struct.pack(
        "<IQQQQ8sIIQ", length, position, 0, field(image, "epoch"), field(image, "journal_sequence") + number,
        field(image, "uuid")[:8], len(entries), 0, 0)
    sealed = bytearray((header + body).ljust(length, b"\0"))
    seal(sealed, 0, length, PAGE_CHECKSUM)
    return bytes(sealed)


def add_records(path, *records):
    """Fills the journal of an image that has none with these, each a list of
    entries."""
    with open(path, "r+b") as file:
        image = file.read(16 * PAGE)
        position = field(image, "journal_offset")
        for number, entries in enumerate(records):
            file.seek(position)
            position += file.write(record(image, entries, position, number))


def set_parent(path, parent):
    """Makes PATH a child of PARENT, a native image beside it."""
    with open(path, "rb") as file:
        image = file.read()
    with open(parent, "rb") as file:
        above = file.read()
    name = parent.rsplit("/", 1)[1].encode()
    forged = forge(image, parent_format=2, parent_path=name, parent_path_bytes=len(name),
                   parent_size_bytes=field(above, "size_bytes"), parent_uuid=field(above, "uuid"),
                   parent_generation=field(above, "generation"))
    with open(path, "r+b") as file:
        file.write(forged)


def fill_table(path, chunks):
    """The new image at PATH has CHUNKS chunks, all present and of holes: a table that is
    as large as that of an image full of data."""
    with open(path, "r+b") as file:
        image = bytearray(file.read(16 * PAGE))
        chunk_bytes, data_offset = field(image, "chunk_bytes"), field(image, "data_offset")
        words = -(-(chunk_bytes // PAGE) // 64)
        per_page = (PAGE - 64) // (8 + 16 * words)
        pages_per_group = chunk_bytes // (2 * PAGE)
        group_bytes = (pages_per_group * per_page + 1) * chunk_bytes
        present = (1 << chunk_bytes // PAGE) - 1
        entry_tail = present.to_bytes(8 * words, "little") + bytes(8 * words)
        digest = 0
        for page in range(-(-chunks // per_page)):
            first = page * per_page
            body = b"".join(struct.pack("<Q", chunk) + entry_tail
                            for chunk in range(first, min(first + per_page, chunks)))
            position = data_offset + page // pages_per_group * group_bytes + page % pages_per_group * 2 * PAGE
            sealed = bytearray((TABLE_MAGIC + struct.pack("<IQQQQ8sI12x", 0, position, 0, 1, first,
                                                          field(image, "uuid")[:8], 0) + body).ljust(PAGE, b"\0"))
            seal(sealed, 0, PAGE, PAGE_CHECKSUM)
            file.seek(position)
            file.write(sealed)
            digest += xxhash.xxh64_intdigest(struct.pack("<QQ", page, 1))
        file.truncate(data_offset + (chunks // (pages_per_group * per_page) + 1) * group_bytes)
        file.seek(0)
        file.write(forge(image, slot_count=chunks, table_digest=digest % (1 << 64)))
