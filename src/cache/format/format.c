/* Building, sealing and validating the cache's records.
 *
 * While a record is built its reserved bytes hold the offset of its last entry,
 * so that a block which continues it is found at once; sealing clears them. */
#include "format.h"

#include <string.h>
#include <xxhash.h>

/* The field that holds the checksum is taken as zero. */
static uint64_t record_checksum(const struct cache_record_ondisk *record)
{
	struct cache_record_ondisk copy = *record;

	copy.checksum = le64_of(0);
	return XXH64(&copy, sizeof(copy), 0);
}

uint64_t cache_data_checksum(const void *data)
{
	return XXH64(data, BLOCK_SIZE, 0);
}

/* ---- Building a record --------------------------------------------------- */

static struct cache_entry_ondisk *entry_at(struct cache_record_ondisk *record, uint32_t offset)
{
	return (struct cache_entry_ondisk *)(record->body + offset);
}

static uint32_t last_entry_get(const struct cache_record_ondisk *record)
{
	le32 offset;

	memcpy(&offset, record->reserved1, sizeof(offset));
	return le32_get(offset);
}

static void last_entry_set(struct cache_record_ondisk *record, uint32_t offset)
{
	le32 value = le32_of(offset);

	memcpy(record->reserved1, &value, sizeof(value));
}

static bool kind_has_data(unsigned kind)
{
	return kind == CACHE_ENTRY_CLEAN || kind == CACHE_ENTRY_DIRTY;
}

static void count_data(struct cache_record_ondisk *record, unsigned kind, unsigned blocks)
{
	if (kind_has_data(kind))
		record->blocks = le32_of(le32_get(record->blocks) + blocks);
}

void cache_record_begin(struct cache_record_ondisk *record)
{
	memset(record, 0, sizeof(*record));
}

int cache_record_room(const struct cache_record_ondisk *record)
{
	size_t used = le32_get(record->entries_bytes) + sizeof(struct cache_entry_ondisk);

	return used > CACHE_RECORD_BODY_BYTES ? -1 : (int)((CACHE_RECORD_BODY_BYTES - used) / sizeof(le64));
}

le64 *cache_record_add(struct cache_record_ondisk *record, uint32_t layer, enum cache_entry_kind kind, uint64_t block,
		       unsigned words)
{
	uint32_t offset = le32_get(record->entries_bytes);
	struct cache_entry_ondisk *entry = entry_at(record, offset);

	if (cache_record_room(record) < (int)words)
		return NULL;
	*entry = (struct cache_entry_ondisk){
		.layer = le32_of(layer),
		.kind = le16_of((uint16_t)kind),
		.words = le16_of((uint16_t)words),
		.block = le64_of(block),
	};
	last_entry_set(record, offset);
	count_data(record, kind, words);
	record->entries_bytes = le32_of(offset + (uint32_t)(sizeof(*entry) + words * sizeof(le64)));
	return (le64 *)(entry + 1);
}

le64 *cache_record_add_block(struct cache_record_ondisk *record, uint32_t layer, enum cache_entry_kind kind,
			     uint64_t block)
{
	uint32_t used = le32_get(record->entries_bytes);
	struct cache_entry_ondisk *last = entry_at(record, last_entry_get(record));
	unsigned words = le16_get(last->words);

	if (!used || le32_get(last->layer) != layer || le16_get(last->kind) != kind ||
	    le64_get(last->block) + words != block)
		return cache_record_add(record, layer, kind, block, 1);
	if (used + sizeof(le64) > CACHE_RECORD_BODY_BYTES)
		return NULL;
	last->words = le16_of((uint16_t)(words + 1));
	count_data(record, kind, 1);
	record->entries_bytes = le32_of(used + (uint32_t)sizeof(le64));
	return (le64 *)(last + 1) + words;
}

void cache_record_seal(struct cache_record_ondisk *record, const struct cache_record_place *place, uint64_t durable)
{
	memset(record->reserved1, 0, sizeof(record->reserved1));
	record->magic = le32_of(CACHE_RECORD_MAGIC);
	record->position = le64_of(place->position);
	record->cache_id = le64_of(place->cache_id);
	record->generation = le64_of(place->generation);
	record->sequence = le64_of(place->sequence);
	record->previous = le64_of(place->previous);
	record->durable = le64_of(durable);
	record->checksum = le64_of(record_checksum(record));
}

/* ---- Validating and reading a record ------------------------------------- */

static bool range_is_valid(uint64_t block, uint64_t blocks)
{
	return blocks > 0 && block < CACHE_BLOCK_END && blocks <= CACHE_BLOCK_END - block;
}

/* A name that a message or a file can bear, then zeros to the last word. */
static bool layer_is_valid(const struct cache_entry *entry)
{
	const struct cache_layer_ondisk *layer = (const struct cache_layer_ondisk *)entry->words;
	const char *name = (const char *)(layer + 1);
	size_t bytes = entry->word_count * sizeof(le64), name_bytes;

	if (entry->block != 0 || bytes < sizeof(*layer))
		return false;
	name_bytes = le32_get(layer->name_bytes);
	return name_bytes < CACHE_LAYER_NAME_BYTES && bytes == sizeof(*layer) + round_up(name_bytes, sizeof(le64)) &&
	       strnlen(name, name_bytes) == name_bytes &&
	       buffer_is_zero(name + name_bytes, bytes - sizeof(*layer) - name_bytes);
}

/* A slot that can exist, and a number of blocks that fits behind it. */
static bool barrier_is_valid(const le64 *words)
{
	uint64_t slot = le64_get(words[0]);

	return slot < CACHE_SEGMENTS_MAX * CACHE_SEGMENT_BLOCKS &&
	       le64_get(words[1]) < CACHE_SEGMENT_BLOCKS - slot % CACHE_SEGMENT_BLOCKS;
}

static bool entry_is_valid(const struct cache_entry *entry)
{
	if (entry->layer == 0 || entry->layer > CACHE_LAYER_MAX)
		return false;
	switch (entry->kind) {
	case CACHE_ENTRY_CLEAN:
	case CACHE_ENTRY_DIRTY:
		return range_is_valid(entry->block, entry->blocks);
	case CACHE_ENTRY_ZERO:
	case CACHE_ENTRY_FORGET:
		return entry->word_count == 1 && range_is_valid(entry->block, entry->blocks);
	case CACHE_ENTRY_LAYER:
		return layer_is_valid(entry);
	case CACHE_ENTRY_DROP:
	case CACHE_ENTRY_BARRIER:
		return entry->word_count == 0 && entry->block == 0;
	case CACHE_ENTRY_MIGRATE:
	case CACHE_ENTRY_MIGRATED:
		return entry->word_count == 2 && entry->block == 0 && barrier_is_valid(entry->words);
	}
	return false;
}

/* False where the entry does not end inside the entries. */
static bool entry_read(const struct cache_record_ondisk *record, struct cache_cursor *cursor, struct cache_entry *entry)
{
	unsigned end = le32_get(record->entries_bytes);
	const struct cache_entry_ondisk *ondisk = (const struct cache_entry_ondisk *)(record->body + cursor->offset);

	if (end - cursor->offset < sizeof(*ondisk) ||
	    end - cursor->offset - sizeof(*ondisk) < le16_get(ondisk->words) * sizeof(le64))
		return false;
	*entry = (struct cache_entry){
		.layer = le32_get(ondisk->layer),
		.kind = (enum cache_entry_kind)le16_get(ondisk->kind),
		.block = le64_get(ondisk->block),
		.words = (const le64 *)(ondisk + 1),
		.word_count = le16_get(ondisk->words),
	};
	if (kind_has_data(entry->kind)) {
		entry->blocks = entry->word_count;
		entry->first_data = cursor->data;
		cursor->data += entry->word_count;
	} else if (entry->word_count == 1) {
		entry->blocks = le64_get(entry->words[0]);
	}
	cursor->offset += (unsigned)(sizeof(*ondisk) + entry->word_count * sizeof(le64));
	return true;
}

static bool entries_are_valid(const struct cache_record_ondisk *record)
{
	struct cache_cursor cursor = {0};
	struct cache_entry entry;

	if (le32_get(record->entries_bytes) > CACHE_RECORD_BODY_BYTES)
		return false;
	while (cursor.offset < le32_get(record->entries_bytes))
		if (!entry_read(record, &cursor, &entry) || !entry_is_valid(&entry))
			return false;
	return cursor.data == le32_get(record->blocks);
}

static bool place_is_right(const struct cache_record_ondisk *record, const struct cache_record_place *place)
{
	return le64_get(record->position) == place->position && le64_get(record->cache_id) == place->cache_id &&
	       le64_get(record->sequence) == place->sequence && le64_get(record->previous) == place->previous &&
	       le64_get(record->generation) >= place->generation && le64_get(record->durable) < place->sequence;
}

static bool fits_in_segment(const struct cache_record_ondisk *record)
{
	uint64_t slot = (le64_get(record->position) - CACHE_SEGMENTS_OFFSET) >> BLOCK_SHIFT;

	return le32_get(record->blocks) < CACHE_SEGMENT_BLOCKS - slot % CACHE_SEGMENT_BLOCKS;
}

bool cache_record_is_intact(const struct cache_record_ondisk *record, uint64_t position, uint64_t cache_id)
{
	return le32_get(record->magic) == CACHE_RECORD_MAGIC && le64_get(record->position) == position &&
	       le64_get(record->cache_id) == cache_id && le64_get(record->checksum) == record_checksum(record);
}

bool cache_record_validate(const struct cache_record_ondisk *record, const struct cache_record_place *place)
{
	return place_is_right(record, place) && cache_record_is_intact(record, place->position, place->cache_id) &&
	       fits_in_segment(record) && entries_are_valid(record);
}

bool cache_record_next(const struct cache_record_ondisk *record, struct cache_cursor *cursor, struct cache_entry *entry)
{
	return cursor->offset < le32_get(record->entries_bytes) && entry_read(record, cursor, entry);
}

le64 *cache_record_words(struct cache_record_ondisk *record, unsigned index, unsigned *blocks)
{
	struct cache_cursor cursor = {0};
	struct cache_entry entry;

	while (cache_record_next(record, &cursor, &entry)) {
		if (!kind_has_data(entry.kind) || index - entry.first_data >= entry.blocks)
			continue;
		*blocks = entry.word_count - (index - entry.first_data);
		return (le64 *)(record->body + ((const uint8_t *)entry.words - record->body)) +
		       (index - entry.first_data);
	}
	return NULL;
}

bool cache_record_check_data(const struct cache_record_ondisk *record, unsigned index, const void *data)
{
	struct cache_cursor cursor = {0};
	struct cache_entry entry;

	while (cache_record_next(record, &cursor, &entry))
		if (kind_has_data(entry.kind) && index - entry.first_data < entry.blocks)
			return le64_get(entry.words[index - entry.first_data]) == cache_data_checksum(data);
	return false;
}

uint64_t cache_next_record_slot(uint64_t slot, unsigned blocks, uint64_t ring_segments)
{
	uint64_t next = slot + 1 + blocks;
	uint64_t segment = next / CACHE_SEGMENT_BLOCKS;

	if (CACHE_SEGMENT_BLOCKS - next % CACHE_SEGMENT_BLOCKS >= 2)
		return next - segment * CACHE_SEGMENT_BLOCKS + segment % ring_segments * CACHE_SEGMENT_BLOCKS;
	return (segment + 1) % ring_segments * CACHE_SEGMENT_BLOCKS;
}
