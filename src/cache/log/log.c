/* The head of the log: buffers, records, entries.
 *
 * A record is open while it takes entries. It is closed when it or its segment
 * is full, when somebody wants it durable, or a short time after it was begun,
 * and then sealed as soon as its data is in place and its predecessor is
 * sealed, because it names that one's checksum (invariant 3).
 *
 * A buffer is bound to a segment when the head enters it; the head, each record
 * that is not durable, and each reader hold a reference. */
#include "log.h"

#include <errno.h>
#include <string.h>

#include "core/counters.h"
#include "core/error.h"
#include "core/memory.h"
#include "space.h"
#include "wake.h"

/* ---- Buffers ------------------------------------------------------------- */

bool log_init(struct cache *cache, GError **error)
{
	struct log *log = &cache->log;

	list_init(&log->free);
	list_init(&log->building);
	list_init(&log->sealed);
	list_init(&log->free_buffers);
	for (unsigned i = 0; i < CACHE_RECORDS; i++) {
		log->records[i].cache = cache;
		list_append(&log->free, &log->records[i].link);
	}
	log->free_records = CACHE_RECORDS;
	log->buffer_count = (unsigned)MIN(CACHE_BUFFERS_MAX, cache->segment_count);
	log->memory = memory_map(log_memory_bytes(cache));
	if (!log->memory)
		return error_set_errno(error, errno, "no memory for %u buffers of the cache", log->buffer_count);
	for (unsigned i = 0; i < log->buffer_count; i++) {
		log->buffers[i].data = (uint8_t *)log->memory + (size_t)i * CACHE_SEGMENT_BYTES;
		list_append(&log->free_buffers, &log->buffers[i].link);
	}
	log->free_buffer_count = log->buffer_count;
	return true;
}

void log_clear(struct cache *cache)
{
	memory_unmap(cache->log.memory, log_memory_bytes(cache));
	cache->log.memory = NULL;
}

uint64_t log_memory_bytes(const struct cache *cache)
{
	return (uint64_t)cache->log.buffer_count * CACHE_SEGMENT_BYTES;
}

static bool bind_buffer_locked(struct cache *cache)
{
	struct cache_segment *segment = &cache->segments[segment_of(cache->log.head_slot)];
	struct cache_buffer *buffer;
	struct list *node;

	if (segment->buffer)
		return true;
	node = list_pop(&cache->log.free_buffers);
	if (!node)
		return false;
	buffer = container_of(node, struct cache_buffer, link);
	buffer->segment = segment_of(cache->log.head_slot);
	buffer->first = block_in_segment(cache->log.head_slot);
	buffer->references = 1; /* the head's */
	segment->buffer = buffer;
	cache->log.free_buffer_count--;
	return true;
}

void log_put_buffer_locked(struct cache *cache, struct cache_buffer *buffer)
{
	if (--buffer->references > 0)
		return;
	cache->segments[buffer->segment].buffer = NULL;
	list_prepend(&cache->log.free_buffers, &buffer->link);
	cache->log.free_buffer_count++;
	pthread_cond_broadcast(&cache->changed);
	wake_waiters_locked(cache);
}

/* ---- Records ------------------------------------------------------------- */

static struct cache_record_ondisk *header_of(const struct log_record *record)
{
	return (struct cache_record_ondisk *)slot_data(record->buffer->data, record->slot);
}

static unsigned data_blocks_left(const struct log_record *record)
{
	return SEGMENT_DATA_BLOCKS - block_in_segment(record->slot) - record->blocks;
}

static void seal_locked(struct cache *cache, struct log_record *record)
{
	struct cache_segment *segment = &cache->segments[segment_of(record->slot)];
	struct log *log = &cache->log;
	struct cache_record_place place = {
		.position = cache_slot_offset(record->slot),
		.cache_id = log->cache_id,
		.generation = log->generation,
		.sequence = record->sequence,
		.previous = log->previous,
	};

	if (block_in_segment(record->slot) == 0) {
		segment->sequence = place.sequence;
		segment->previous = place.previous;
		wake_reclaim_locked(cache);
	}
	cache_record_seal(header_of(record), &place, log->durable);
	log->previous = le64_get(header_of(record)->checksum);
	record->state = RECORD_UNWRITTEN;
	list_append(&log->sealed, &record->link);
}

static void seal_ready_locked(struct cache *cache)
{
	struct list *node;

	while ((node = list_first(&cache->log.building))) {
		struct log_record *record = container_of(node, struct log_record, link);

		if (record == cache->log.open || record->copies > 0)
			return;
		list_remove(node);
		seal_locked(cache, record);
		wake_writer_locked(cache);
	}
}

void log_close_record_locked(struct cache *cache)
{
	struct log_record *record = cache->log.open;
	uint64_t next;

	if (!record)
		return;
	cache->log.open = NULL;
	next = cache_next_record_slot(record->slot, record->blocks, cache->ring_segments);
	cache->log.head_slot = next;
	if (segment_of(next) != segment_of(record->slot)) {
		log_put_buffer_locked(cache, record->buffer);
		wake_reclaim_locked(cache);
	}
	seal_ready_locked(cache);
}

/* The open record, or a new one. NULL: no room. */
static struct log_record *open_record_locked(struct cache *cache, enum log_purpose purpose)
{
	struct log *log = &cache->log;
	struct log_record *record;

	if (!space_has_room_locked(cache, purpose) || !bind_buffer_locked(cache))
		return NULL;
	if (log->open)
		return log->open;
	record = container_of(list_pop(&log->free), struct log_record, link);
	log->free_records--;
	record->buffer = cache->segments[segment_of(log->head_slot)].buffer;
	record->buffer->references++;
	record->slot = log->head_slot;
	record->sequence = log->next_sequence++;
	record->blocks = 0;
	record->copies = 0;
	cache_record_begin(header_of(record));
	list_append(&log->building, &record->link);
	log->open = record;
	wake_to_seal_locked(cache);
	return record;
}

void log_release_record_locked(struct cache *cache, struct log_record *record)
{
	list_remove(&record->link);
	list_prepend(&cache->log.free, &record->link);
	cache->log.free_records++;
	log_put_buffer_locked(cache, record->buffer);
}

static void close_if_full_locked(struct cache *cache, struct log_record *record)
{
	if (data_blocks_left(record) == 0 || cache_record_room(header_of(record)) < 1)
		log_close_record_locked(cache);
}

/* ---- Entries ------------------------------------------------------------- */

/* The record that the entry went to, NULL: no room. */
static struct log_record *append_locked(struct cache *cache, enum log_purpose purpose, uint32_t layer,
					enum cache_entry_kind kind, uint64_t block, const le64 *words, unsigned count)
{
	for (int tries = 0; tries < 2; tries++) {
		struct log_record *record = open_record_locked(cache, purpose);
		le64 *place = record ? cache_record_add(header_of(record), layer, kind, block, count) : NULL;

		if (!record)
			return NULL;
		if (place) {
			if (count)
				memcpy(place, words, count * sizeof(*words));
			close_if_full_locked(cache, record);
			return record;
		}
		log_close_record_locked(cache);
	}
	return NULL;
}

bool log_declare_locked(struct cache *cache, enum log_purpose purpose, struct cache_layer *layer)
{
	struct {
		struct cache_layer_ondisk fixed;
		char name[CACHE_LAYER_NAME_BYTES];
	} ondisk = {0};
	size_t name_bytes = strnlen(layer->name, CACHE_LAYER_NAME_BYTES - 1);
	size_t words = (sizeof(ondisk.fixed) + round_up(name_bytes, sizeof(le64))) / sizeof(le64);
	struct log_record *record;

	memcpy(ondisk.fixed.identity, layer->identity, CACHE_ID_BYTES);
	ondisk.fixed.stamp = le64_of(layer->stamp);
	ondisk.fixed.size_bytes = le64_of(layer->size_bytes);
	ondisk.fixed.generation = le64_of(layer->generation);
	ondisk.fixed.flags = le32_of(layer->orphan ? CACHE_LAYER_ORPHAN : 0);
	ondisk.fixed.name_bytes = le32_of((uint32_t)name_bytes);
	memcpy(ondisk.name, layer->name, name_bytes);
	record = append_locked(cache, purpose, layer->id, CACHE_ENTRY_LAYER, 0, (const le64 *)&ondisk, (unsigned)words);
	if (!record)
		return false;
	layer->declared = true;
	layer->declared_segment = segment_of(record->slot);
	return true;
}

/* Only where no LIVE block hides them: it would be removed at the next mount. */
static bool log_zeros_locked(struct cache *cache, enum log_purpose purpose, const struct cache_layer *layer,
			     struct interval zeros)
{
	uint64_t end = zeros.first + zeros.count;

	for (uint64_t block = zeros.first; block < end;) {
		uint64_t gap = index_gap(cache->index, layer->id, block, end - block);
		le64 word = le64_of(gap);

		if (gap > 0 && !append_locked(cache, purpose, layer->id, CACHE_ENTRY_ZERO, block, &word, 1))
			return false;
		block += MAX(gap, 1);
	}
	return true;
}

bool log_declare_orphan_locked(struct cache *cache, enum log_purpose purpose, struct cache_layer *layer)
{
	uint64_t before = layer->declared_segment;
	bool logged = log_declare_locked(cache, purpose, layer);

	for (unsigned i = 0; logged && layer->zeros && i < intervals_length(layer->zeros); i++)
		logged = log_zeros_locked(cache, purpose, layer, intervals_get(layer->zeros, i));
	if (!logged)
		layer->declared_segment = before;
	return logged;
}

bool log_forget_locked(struct cache *cache, uint32_t layer, uint64_t block, uint64_t blocks)
{
	le64 word = le64_of(blocks);

	return append_locked(cache, LOG_ENTRY, layer, CACHE_ENTRY_FORGET, block, &word, 1);
}

bool log_drop_locked(struct cache *cache, uint32_t layer)
{
	return append_locked(cache, LOG_ENTRY, layer, CACHE_ENTRY_DROP, 0, NULL, 0);
}

static struct epoch_place place_of(const struct log_record *record)
{
	return (struct epoch_place){(uint32_t)record->slot, record->blocks};
}

bool log_zero_locked(struct cache *cache, uint32_t layer, uint64_t block, uint64_t blocks, struct epoch_place *place)
{
	le64 word = le64_of(blocks);
	struct log_record *record = append_locked(cache, LOG_PUT, layer, CACHE_ENTRY_ZERO, block, &word, 1);

	if (record)
		*place = place_of(record);
	return record;
}

bool log_barrier_locked(struct cache *cache, enum log_purpose purpose, uint32_t layer, struct epoch_place *place)
{
	struct log_record *record = append_locked(cache, purpose, layer, CACHE_ENTRY_BARRIER, 0, NULL, 0);

	if (record)
		*place = place_of(record);
	return record;
}

bool log_migrate_locked(struct cache *cache, enum cache_entry_kind kind, uint32_t layer, struct epoch_place place)
{
	le64 words[2] = {le64_of(place.slot), le64_of(place.blocks)};

	return append_locked(cache, LOG_MOVE, layer, kind, 0, words, 2);
}

/* ---- Data ---------------------------------------------------------------- */

/* Adds blocks to the open RECORD. They extend one entry, so their words are
 * consecutive. */
static bool add_run(struct log_record *record, enum cache_entry_kind kind, uint64_t limit, struct log_grant *grant)
{
	struct cache_record_ondisk *header = header_of(record);
	uint64_t most = MIN(limit, data_blocks_left(record));

	grant->words = cache_record_add_block(header, grant->layer, kind, grant->block);
	if (!grant->words)
		return false;
	grant->blocks = 1;
	while (grant->blocks < most && cache_record_add_block(header, grant->layer, kind, grant->block + grant->blocks))
		grant->blocks++;
	grant->record = record;
	grant->slot = (uint32_t)(record->slot + 1 + record->blocks);
	grant->data = slot_data(record->buffer->data, grant->slot);
	record->blocks += grant->blocks;
	record->copies++;
	return true;
}

bool log_reserve_locked(struct cache *cache, enum log_purpose purpose, struct cache_layer *layer,
			enum cache_entry_kind kind, uint64_t block, uint64_t limit, struct log_grant *grant)
{
	*grant = (struct log_grant){.layer = layer->id, .block = block};
	if (!layer->is_volatile && !layer->declared && !log_declare_locked(cache, purpose, layer))
		return false;
	for (int tries = 0; tries < 2; tries++) {
		struct log_record *record = open_record_locked(cache, purpose);

		if (!record)
			return false;
		if (add_run(record, kind, limit, grant)) {
			close_if_full_locked(cache, record);
			return true;
		}
		log_close_record_locked(cache);
	}
	return false;
}

/* Behind the open record's header there is nothing else in its segment. */
bool log_overwrite_locked(struct cache *cache, struct cache_layer *layer, uint64_t block, uint64_t limit,
			  struct log_grant *grant)
{
	struct log_record *record = cache->log.open;
	uint32_t slot = record ? index_find(cache->index, layer->id, block) : INDEX_NO_SLOT;
	struct index_entry entry;
	unsigned run;

	if (slot == INDEX_NO_SLOT || slot <= record->slot || segment_of(slot) != segment_of(record->slot))
		return false;
	index_get(cache->index, slot, &entry);
	if (!(entry.flags & INDEX_PINNED) || (entry.flags & INDEX_BUSY))
		return false;
	*grant = (struct log_grant){.record = record, .layer = layer->id, .block = block, .slot = slot};
	grant->words = cache_record_words(header_of(record), slot - (uint32_t)record->slot - 1, &run);
	if (!grant->words)
		return false;
	grant->blocks = (unsigned)index_run(cache->index, slot, layer->id, block, MIN(limit, run));
	grant->data = slot_data(record->buffer->data, slot);
	record->copies++;
	return true;
}

void log_copied_locked(struct cache *cache, struct log_record *record)
{
	if (--record->copies == 0 && record != cache->log.open)
		seal_ready_locked(cache);
}

/* ---- Durability ---------------------------------------------------------- */

uint64_t log_flush_locked(struct cache *cache)
{
	log_close_record_locked(cache);
	wake_to_sync_locked(cache, cache->log.next_sequence - 1);
	return cache->log.next_sequence - 1;
}

int log_wait_durable_locked(struct cache *cache, uint64_t sequence)
{
	while (cache->log.durable < sequence) {
		if (cache->state != CACHE_ACTIVE)
			return cache->failure;
		pthread_cond_wait(&cache->changed, &cache->lock);
	}
	return 0;
}
