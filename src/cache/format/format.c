/* Building, sealing and validating the cache's records.
 *
 * While a record is built its mount_sequence holds the offset of its last entry,
 * so that a block which continues it is found at once; sealing sets it. */
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
	return (uint32_t)le64_get(record->mount_sequence);
}

static void last_entry_set(struct cache_record_ondisk *record, uint32_t offset)
{
	record->mount_sequence = le64_of(offset);
}

bool cache_kind_has_data(unsigned kind)
{
	return kind == CACHE_ENTRY_CLEAN || kind == CACHE_ENTRY_DIRTY || kind == CACHE_ENTRY_MOVED;
}

/* Words before the checksums. */
static unsigned data_head(unsigned kind)
{
	return kind == CACHE_ENTRY_MOVED ? 1 : 0;
}

static void count_data(struct cache_record_ondisk *record, unsigned kind, unsigned blocks)
{
	if (cache_kind_has_data(kind))
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
	count_data(record, kind, words - data_head(kind));
	record->entries_bytes = le32_of(offset + (uint32_t)(sizeof(*entry) + words * sizeof(le64)));
	return (le64 *)(entry + 1);
}

/* Whether LAST, the last entry, goes on with BLOCK. */
static bool is_continued(const struct cache_record_ondisk *record, const struct cache_entry_ondisk *last,
			 uint32_t layer, enum cache_entry_kind kind, uint64_t block)
{
	unsigned blocks = le16_get(last->words) - data_head(kind);

	return le32_get(record->entries_bytes) && le32_get(last->layer) == layer && le16_get(last->kind) == kind &&
	       le64_get(last->block) + blocks == block;
}

/* The word of one more block of LAST; NULL when it does not fit. */
static le64 *extend(struct cache_record_ondisk *record, struct cache_entry_ondisk *last)
{
	uint32_t used = le32_get(record->entries_bytes);
	unsigned words = le16_get(last->words);

	if (used + sizeof(le64) > CACHE_RECORD_BODY_BYTES)
		return NULL;
	last->words = le16_of((uint16_t)(words + 1));
	count_data(record, le16_get(last->kind), 1);
	record->entries_bytes = le32_of(used + (uint32_t)sizeof(le64));
	return (le64 *)(last + 1) + words;
}

le64 *cache_record_add_block(struct cache_record_ondisk *record, uint32_t layer, enum cache_entry_kind kind,
			     uint64_t block)
{
	struct cache_entry_ondisk *last = entry_at(record, last_entry_get(record));

	if (is_continued(record, last, layer, kind, block))
		return extend(record, last);
	return cache_record_add(record, layer, kind, block, 1);
}

le64 *cache_record_add_moved(struct cache_record_ondisk *record, uint32_t layer, uint64_t block, uint64_t order)
{
	struct cache_entry_ondisk *last = entry_at(record, last_entry_get(record));
	le64 *words = (le64 *)(last + 1);

	if (is_continued(record, last, layer, CACHE_ENTRY_MOVED, block) && le64_get(words[0]) == order)
		return extend(record, last);
	words = cache_record_add(record, layer, CACHE_ENTRY_MOVED, block, 2);
	if (words)
		words[0] = le64_of(order);
	return words ? words + 1 : NULL;
}

void cache_record_seal(struct cache_record_ondisk *record, const struct cache_record_place *place, uint64_t durable)
{
	record->magic = le32_of(CACHE_RECORD_MAGIC);
	record->position = le64_of(place->position);
	record->cache_id = le64_of(place->cache_id);
	record->generation = le64_of(place->generation);
	record->sequence = le64_of(place->sequence);
	record->previous = le64_of(place->previous);
	record->durable = le64_of(durable);
	record->mount_sequence = le64_of(place->mount_sequence);
	record->checksum = le64_of(record_checksum(record));
}

/* ---- Validating and reading a record ------------------------------------- */

static bool range_is_valid(uint64_t block, uint64_t blocks)
{
	return blocks > 0 && block < CACHE_BLOCK_END && blocks <= CACHE_BLOCK_END - block;
}

static size_t layer_bytes(const struct cache_entry *entry)
{
	return entry->version_1 ? CACHE_LAYER_BYTES_1 : sizeof(struct cache_layer_ondisk);
}

/* A name that a message or a file can bear, then zeros to the last word. */
static bool layer_is_valid(const struct cache_entry *entry)
{
	const struct cache_layer_ondisk *layer = (const struct cache_layer_ondisk *)entry->words;
	size_t fixed = layer_bytes(entry), bytes = entry->word_count * sizeof(le64), name_bytes;
	const char *name = (const char *)entry->words + fixed;

	if (entry->block != 0 || bytes < fixed)
		return false;
	name_bytes = le32_get(layer->name_bytes);
	return name_bytes < CACHE_LAYER_NAME_BYTES && bytes == fixed + round_up(name_bytes, sizeof(le64)) &&
	       strnlen(name, name_bytes) == name_bytes && buffer_is_zero(name + name_bytes, bytes - fixed - name_bytes);
}

char *cache_entry_layer(const struct cache_entry *entry, struct cache_layer_ondisk *layer)
{
	size_t fixed = layer_bytes(entry);

	memset(layer, 0, sizeof(*layer));
	memcpy(layer, entry->words, fixed);
	return g_strndup((const char *)entry->words + fixed, le32_get(layer->name_bytes));
}

/* A slot that can exist, and a number of blocks that fits behind it. */
static bool barrier_is_valid(const le64 *words)
{
	uint64_t slot = le64_get(words[0]);

	return slot < CACHE_SEGMENTS_MAX * CACHE_SEGMENT_BLOCKS &&
	       le64_get(words[1]) < CACHE_SEGMENT_BLOCKS - slot % CACHE_SEGMENT_BLOCKS;
}

/* Whose dirty blocks are whose hangs on it; for what is clean the image's stamp does. */
bool cache_layer_is_change(const struct cache_layer_ondisk *layer)
{
	return le64_get(layer->generation) != 0 || le32_get(layer->flags) != 0 ||
	       !buffer_is_zero(layer->nonce, sizeof(layer->nonce));
}

bool cache_entry_is_change(const struct cache_entry *entry)
{
	struct cache_layer_ondisk layer;

	if (entry->kind != CACHE_ENTRY_LAYER)
		return entry->kind != CACHE_ENTRY_CLEAN && entry->kind != CACHE_ENTRY_DROP &&
		       entry->kind != CACHE_ENTRY_LAST;
	g_free(cache_entry_layer(entry, &layer));
	return cache_layer_is_change(&layer);
}

static bool order_is_valid(uint64_t order)
{
	return order > 0 && order < CACHE_ORDER_END;
}

/* By the barrier's place in version 1, by its order since. */
static bool migration_is_valid(const struct cache_entry *entry)
{
	if (entry->version_1)
		return entry->word_count == 2 && entry->block == 0 && barrier_is_valid(entry->words);
	return entry->word_count == 0 && order_is_valid(entry->block);
}

static bool moved_is_valid(const struct cache_entry *entry)
{
	if (entry->kind == CACHE_ENTRY_MOVED_ZERO && entry->word_count != 2)
		return false;
	return !entry->version_1 && order_is_valid(entry->order) && range_is_valid(entry->block, entry->blocks);
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
		return migration_is_valid(entry);
	case CACHE_ENTRY_LAST:
		return !entry->version_1 && entry->word_count == 0;
	case CACHE_ENTRY_MOVED:
	case CACHE_ENTRY_MOVED_ZERO:
		return moved_is_valid(entry);
	case CACHE_ENTRY_MOVED_BARRIER:
		return !entry->version_1 && entry->word_count == 0 && order_is_valid(entry->block);
	}
	return false;
}

static bool data_read(struct cache_entry *entry, struct cache_cursor *cursor)
{
	unsigned head = data_head(entry->kind);

	if (entry->word_count < head)
		return false;
	entry->blocks = entry->word_count - head;
	entry->checksums = entry->words + head;
	entry->first_data = cursor->data;
	cursor->data += (unsigned)entry->blocks;
	return true;
}

static void order_read(const struct cache_record_ondisk *record, struct cache_entry *entry)
{
	entry->order = le64_get(record->sequence);
	if (entry->kind == CACHE_ENTRY_MOVED) {
		entry->order = le64_get(entry->words[0]) & ~(CACHE_ORDER_SUPERSEDED | CACHE_ORDER_DAMAGED);
		entry->superseded = le64_get(entry->words[0]) & CACHE_ORDER_SUPERSEDED;
		entry->damaged = le64_get(entry->words[0]) & CACHE_ORDER_DAMAGED;
	} else if (entry->kind == CACHE_ENTRY_MOVED_ZERO && entry->word_count == 2) {
		entry->order = le64_get(entry->words[1]);
	} else if (entry->kind == CACHE_ENTRY_MIGRATE || entry->kind == CACHE_ENTRY_MIGRATED ||
		   entry->kind == CACHE_ENTRY_MOVED_BARRIER) {
		entry->order = entry->block;
	}
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
		.version_1 = le32_get(record->magic) == CACHE_RECORD_MAGIC_1,
	};
	if (cache_kind_has_data(entry->kind) && !data_read(entry, cursor))
		return false;
	if (!cache_kind_has_data(entry->kind) && (entry->word_count == 1 || entry->word_count == 2))
		entry->blocks = le64_get(entry->words[0]);
	order_read(record, entry);
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
	       place->sequence < CACHE_ORDER_END && le64_get(record->generation) >= place->generation &&
	       le64_get(record->generation) < UINT64_MAX && le64_get(record->durable) < place->sequence &&
	       le64_get(record->mount_sequence) <= place->sequence;
}

static bool fits_in_segment(const struct cache_record_ondisk *record)
{
	uint64_t slot = (le64_get(record->position) - CACHE_SEGMENTS_OFFSET) >> BLOCK_SHIFT;

	return le32_get(record->blocks) < CACHE_SEGMENT_BLOCKS - slot % CACHE_SEGMENT_BLOCKS;
}

bool cache_record_is_intact(const struct cache_record_ondisk *record, uint64_t position, uint64_t cache_id)
{
	uint32_t magic = le32_get(record->magic);

	return (magic == CACHE_RECORD_MAGIC || magic == CACHE_RECORD_MAGIC_1) &&
	       le64_get(record->position) == position && le64_get(record->cache_id) == cache_id &&
	       le64_get(record->checksum) == record_checksum(record);
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
		if (!cache_kind_has_data(entry.kind) || index - entry.first_data >= entry.blocks)
			continue;
		*blocks = (unsigned)entry.blocks - (index - entry.first_data);
		return (le64 *)(record->body + ((const uint8_t *)entry.checksums - record->body)) +
		       (index - entry.first_data);
	}
	return NULL;
}

bool cache_record_check_data(const struct cache_record_ondisk *record, unsigned index, const void *data)
{
	struct cache_cursor cursor = {0};
	struct cache_entry entry;

	while (cache_record_next(record, &cursor, &entry))
		if (cache_kind_has_data(entry.kind) && index - entry.first_data < entry.blocks)
			return le64_get(entry.checksums[index - entry.first_data]) == cache_data_checksum(data);
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
