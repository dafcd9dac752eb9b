/* Encoding and validation of the leaf format's blocks.
 *
 * One validator per block type; no field of a block is used before it. */
#include "format.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "core/error.h"

/* The checksum field must hold zero. */
static le64 checksum_of(const void *block, size_t bytes)
{
	return le64_of(XXH64(block, bytes, 0));
}

static bool checksum_holds(const void *block, size_t bytes, size_t field)
{
	static const uint8_t zeros[sizeof(le64)];
	const uint8_t *p = block;
	XXH64_state_t *state = XXH64_createState();
	le64 stored;
	uint64_t found;

	memcpy(&stored, p + field, sizeof(stored));
	XXH64_reset(state, 0);
	XXH64_update(state, p, field);
	XXH64_update(state, zeros, sizeof(zeros));
	XXH64_update(state, p + field + sizeof(le64), bytes - field - sizeof(le64));
	found = XXH64_digest(state);
	XXH64_freeState(state);
	return found == le64_get(stored);
}

void leaf_header_seal(struct leaf_header_ondisk *header, unsigned copy)
{
	memcpy(header->magic, LEAF_MAGIC, sizeof(header->magic));
	header->version = le32_of(LEAF_VERSION);
	header->header_bytes = le32_of(LEAF_HEADER_BYTES);
	header->position = le64_of((uint64_t)copy * LEAF_HEADER_BYTES);
	header->checksum = le64_of(0);
	header->checksum = checksum_of(header, sizeof(*header));
}

const char *leaf_header_damage(const struct leaf_header_ondisk *header, unsigned copy)
{
	if (memcmp(header->magic, LEAF_MAGIC, sizeof(header->magic)) != 0)
		return "has no leaf magic";
	if (!checksum_holds(header, sizeof(*header), offsetof(struct leaf_header_ondisk, checksum)))
		return "does not match its checksum";
	if (le64_get(header->position) != (uint64_t)copy * LEAF_HEADER_BYTES)
		return "belongs to another place";
	return NULL;
}

static bool geometry_usable(const struct leaf_header_ondisk *h, const char *path, GError **error)
{
	uint32_t chunk = le32_get(h->chunk_bytes);
	uint64_t size = le64_get(h->size_bytes);
	uint64_t journal = le64_get(h->journal_offset), bytes = le64_get(h->journal_bytes);
	uint64_t data = le64_get(h->data_offset);

	if (!is_power_of_two(chunk) || chunk < LEAF_CHUNK_BYTES_MIN || chunk > LEAF_CHUNK_BYTES_MAX)
		return error_set(error, EINVAL, "%s: its chunk size %u is no power of two from 64 KiB to 16 MiB", path,
				 chunk);
	if (size > LEAF_SIZE_MAX(chunk))
		return error_set(error, EFBIG,
				 "%s: its size %" G_GUINT64_FORMAT " is above the limit %" G_GUINT64_FORMAT, path, size,
				 LEAF_SIZE_MAX((uint64_t)chunk));
	if (!is_aligned(journal | bytes, LEAF_PAGE_BYTES) || journal < LEAF_HEADER_COPIES * LEAF_HEADER_BYTES ||
	    journal > LEAF_JOURNAL_BYTES_MAX || bytes < LEAF_JOURNAL_BYTES_MIN || bytes > LEAF_JOURNAL_BYTES_MAX)
		return error_set(error, EINVAL,
				 "%s: its journal (%" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT
				 ") is out of range",
				 path, bytes, journal);
	if (data != round_up(journal + bytes, chunk))
		return error_set(error, EINVAL,
				 "%s: its data begins at %" G_GUINT64_FORMAT ", expected %" G_GUINT64_FORMAT, path,
				 data, round_up(journal + bytes, chunk));
	return true;
}

static bool parent_usable(const struct leaf_header_ondisk *h, const char *path, GError **error)
{
	uint32_t format = le32_get(h->parent_format), bytes = le32_get(h->parent_path_bytes);

	if (format == LEAF_PARENT_NONE)
		return true;
	if (format != LEAF_PARENT_RAW && format != LEAF_PARENT_LEAF)
		return error_set(error, EINVAL, "%s: names a parent of unknown format %u", path, format);
	if (bytes == 0 || bytes >= LEAF_PARENT_PATH_BYTES || strnlen(h->parent_path, LEAF_PARENT_PATH_BYTES) != bytes)
		return error_set(error, EINVAL, "%s: the path of its parent is malformed", path);
	return true;
}

bool leaf_header_usable(const struct leaf_header_ondisk *h, const char *path, bool *read_only, GError **error)
{
	uint64_t unknown = le64_get(h->features_incompatible) & ~LEAF_FEATURES_INCOMPATIBLE;

	if (le32_get(h->version) != LEAF_VERSION || le32_get(h->header_bytes) != LEAF_HEADER_BYTES)
		return error_set(error, ENOTSUP, "%s: has format version %u; this program reads version %u", path,
				 le32_get(h->version), LEAF_VERSION);
	if (unknown)
		return error_set(error, ENOTSUP,
				 "%s: needs features that this version does not know (0x%" G_GINT64_MODIFIER "x)", path,
				 unknown);
	*read_only = le64_get(h->features_read_only) & ~LEAF_FEATURES_READ_ONLY;
	return geometry_usable(h, path, error) && parent_usable(h, path, error);
}

void leaf_page_seal(struct leaf_page_ondisk *page, uint32_t magic, uint64_t position, uint64_t epoch, uint64_t first,
		    uint64_t image_id)
{
	page->magic = le32_of(magic);
	page->position = le64_of(position);
	page->epoch = le64_of(epoch);
	page->first = le64_of(first);
	page->image_id = le64_of(image_id);
	page->checksum = le64_of(0);
	page->checksum = checksum_of(page, sizeof(*page));
}

bool leaf_page_is_valid(const struct leaf_page_ondisk *page, uint32_t magic, uint64_t position, uint64_t max_epoch,
			uint64_t first, uint64_t image_id)
{
	return le32_get(page->magic) == magic && le64_get(page->position) == position &&
	       le64_get(page->epoch) <= max_epoch && le64_get(page->first) == first &&
	       le64_get(page->image_id) == image_id &&
	       checksum_holds(page, sizeof(*page), offsetof(struct leaf_page_ondisk, checksum));
}

uint64_t leaf_page_digest(uint64_t page, uint64_t epoch)
{
	le64 pair[] = {le64_of(page), le64_of(epoch)};

	return epoch ? XXH64(pair, sizeof(pair), 0) : 0;
}

void leaf_record_seal(void *data, uint32_t bytes, uint64_t position, uint64_t epoch, uint64_t sequence,
		      uint64_t image_id, uint32_t entries, uint64_t slot_count)
{
	struct leaf_record_ondisk *record = data;

	*record = (struct leaf_record_ondisk){
		.magic = le32_of(LEAF_RECORD_MAGIC),
		.bytes = le32_of(bytes),
		.position = le64_of(position),
		.epoch = le64_of(epoch),
		.sequence = le64_of(sequence),
		.image_id = le64_of(image_id),
		.entries = le32_of(entries),
		.slot_count = le64_of(slot_count),
	};
	record->checksum = checksum_of(data, bytes);
}

uint32_t leaf_record_validate(const void *data, uint64_t available, uint64_t position, uint64_t epoch,
			      uint64_t sequence, uint64_t image_id)
{
	const struct leaf_record_ondisk *record = data;
	uint32_t bytes;

	if (available < LEAF_PAGE_BYTES || le32_get(record->magic) != LEAF_RECORD_MAGIC)
		return 0;
	bytes = le32_get(record->bytes);
	if (bytes == 0 || bytes > available || !is_aligned(bytes, LEAF_PAGE_BYTES) ||
	    le64_get(record->position) != position || le64_get(record->epoch) != epoch ||
	    le64_get(record->sequence) != sequence || le64_get(record->image_id) != image_id)
		return 0;
	return checksum_holds(data, bytes, offsetof(struct leaf_record_ondisk, checksum)) ? bytes : 0;
}

void leaf_entry_encode(const struct leaf *leaf, struct chunk *chunk, le64 *out)
{
	uint32_t words = 2 * leaf->geometry.words;

	out[0] = le64_of(chunk->index);
	for (uint32_t i = 0; i < words; i++)
		out[1 + i] = le64_of(chunk->bits[i]);
}
