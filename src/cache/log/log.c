/* The head of the log: buffers and records.
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

#include "core/error.h"
#include "core/memory.h"
#include "space.h"
#include "wake.h"

/* A LAST entry, in words of the next one. */
#define LAST_WORDS 2
/* More than these would cost more time than they are worth. */
#define WITNESSES_MAX 64

/* ---- Buffers ------------------------------------------------------------- */

bool log_init(struct cache *cache, GError **error)
{
	struct log *log = &cache->log;

	list_init(&log->free);
	list_init(&log->building);
	list_init(&log->sealed);
	list_init(&log->free_buffers);
	list_init(&log->changed);
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

	cache_assert_locked(cache);
	if (segment->buffer)
		return true;
	node = list_pop(&cache->log.free_buffers);
	if (!node)
		return false;
	buffer = container_of(node, struct cache_buffer, link);
	buffer->segment = segment_of(cache->log.head_slot);
	buffer->first = block_in_segment(cache->log.head_slot);
	buffer->references = 1; /* the head's */
	segment->written = true;
	segment->buffer = buffer;
	cache->log.free_buffer_count--;
	return true;
}

void log_put_buffer_locked(struct cache *cache, struct cache_buffer *buffer)
{
	cache_assert_locked(cache);
	if (--buffer->references > 0)
		return;
	cache->segments[buffer->segment].buffer = NULL;
	list_prepend(&cache->log.free_buffers, &buffer->link);
	cache->log.free_buffer_count++;
	condition_broadcast(&cache->changed);
	wake_waiters_locked(cache);
}

/* ---- Records ------------------------------------------------------------- */

unsigned log_blocks_left(const struct log_record *record)
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
		.mount_sequence = log->mount_sequence,
	};

	cache_assert_locked(cache);
	if (block_in_segment(record->slot) == 0) {
		segment->sequence = place.sequence;
		segment->previous = place.previous;
		wake_reclaim_locked(cache);
	}
	cache_record_seal(log_header_of(record), &place, log->durable);
	log->previous = le64_get(log_header_of(record)->checksum);
	record->state = RECORD_UNWRITTEN;
	list_append(&log->sealed, &record->link);
}

static void seal_ready_locked(struct cache *cache)
{
	struct list *node;

	cache_assert_locked(cache);
	while ((node = list_first(&cache->log.building))) {
		struct log_record *record = container_of(node, struct log_record, link);

		if (record == cache->log.open || record->copies > 0)
			return;
		list_remove(node);
		seal_locked(cache, record);
		wake_writer_locked(cache);
		if (cache->log.settling)
			condition_broadcast(&cache->changed);
	}
}

/* ---- Which record changed what --------------------------------------------- */

static bool add_last_locked(struct log_record *record, const struct cache_layer *layer)
{
	cache_assert_locked(layer->cache);
	return cache_record_add(log_header_of(record), layer->id, CACHE_ENTRY_LAST, layer->last_change, 0);
}

bool log_change_locked(struct cache *cache, struct log_record *record, struct cache_layer *layer, unsigned words)
{
	int room = cache_record_room(log_header_of(record));

	cache_assert_locked(cache);
	if (layer->is_volatile || layer->last_change == record->sequence)
		return room >= (int)words;
	if (room < (int)(words + LAST_WORDS) || !add_last_locked(record, layer))
		return false;
	layer->last_change = record->sequence;
	list_remove(&layer->changed);
	list_prepend(&cache->log.changed, &layer->changed);
	return true;
}

/* One record that is damaged must not leave dirty blocks of nobody knows whom: the next one that
 * changes the layer anyway says it again. */
static void declare_again_locked(struct log_record *record, struct cache_layer *layer)
{
	struct layer_words words;
	unsigned count = layer_get_words(layer, &words);
	le64 *place;

	cache_assert_locked(layer->cache);
	if (!layer->declared_once || layer->declared_sequence == record->sequence || layer->outdated)
		return;
	place = cache_record_add(log_header_of(record), layer->id, CACHE_ENTRY_LAYER, 0, count);
	if (!place)
		return;
	memcpy(place, &words, count * sizeof(*place));
	layer->declared_once = false;
}

/* What RECORD has room for of the layers that were changed before it, the last ones
 * first: where one of those records is missing, this one knows whose changes are. */
static void add_witnesses_locked(struct cache *cache, struct log_record *record)
{
	struct cache_record_ondisk *header = log_header_of(record);
	unsigned count = 0;

	cache_assert_locked(cache);
	header->depth = le32_of(UINT32_MAX);
	list_foreach(node, &cache->log.changed)
	{
		struct cache_layer *layer = container_of(node, struct cache_layer, changed);

		if (layer->last_change == record->sequence) {
			declare_again_locked(record, layer);
			continue;
		}
		if (count++ < WITNESSES_MAX && add_last_locked(record, layer))
			continue;
		header->depth = le32_of((uint32_t)MIN(record->sequence - 1 - layer->last_change, UINT32_MAX));
		return;
	}
}

/* ---- Open and closed ------------------------------------------------------- */

void log_close_record_locked(struct cache *cache)
{
	struct log_record *record = cache->log.open;
	uint64_t next;

	cache_assert_locked(cache);
	if (!record)
		return;
	add_witnesses_locked(cache, record);
	cache->log.open = NULL;
	next = cache_next_record_slot(record->slot, record->blocks, cache->ring_segments);
	cache->log.head_slot = next;
	if (segment_of(next) != segment_of(record->slot)) {
		log_put_buffer_locked(cache, record->buffer);
		wake_reclaim_locked(cache);
	}
	seal_ready_locked(cache);
}

struct log_record *log_open_record_locked(struct cache *cache, enum log_purpose purpose)
{
	struct log *log = &cache->log;
	struct log_record *record;

	cache_assert_locked(cache);
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
	cache_record_begin(log_header_of(record));
	list_append(&log->building, &record->link);
	log->open = record;
	wake_to_seal_locked(cache);
	return record;
}

void log_release_record_locked(struct cache *cache, struct log_record *record)
{
	cache_assert_locked(cache);
	list_remove(&record->link);
	list_prepend(&cache->log.free, &record->link);
	cache->log.free_records++;
	log_put_buffer_locked(cache, record->buffer);
}

void log_close_if_full_locked(struct cache *cache, struct log_record *record)
{
	cache_assert_locked(cache);
	if (log_blocks_left(record) == 0 || cache_record_room(log_header_of(record)) < 1)
		log_close_record_locked(cache);
}

void log_copied_locked(struct cache *cache, struct log_record *record)
{
	cache_assert_locked(cache);
	if (--record->copies == 0 && record != cache->log.open)
		seal_ready_locked(cache);
}

/* ---- Durability ---------------------------------------------------------- */

uint64_t log_flush_locked(struct cache *cache)
{
	cache_assert_locked(cache);
	log_close_record_locked(cache);
	wake_to_sync_locked(cache, cache->log.next_sequence - 1);
	return cache->log.next_sequence - 1;
}

int log_wait_durable_relock(struct cache *cache, uint64_t sequence)
{
	cache_assert_locked(cache);
	while (cache->log.durable < sequence) {
		if (cache->state != CACHE_ACTIVE)
			return cache->failure;
		lock_wait(&cache->lock, &cache->changed);
	}
	return 0;
}
