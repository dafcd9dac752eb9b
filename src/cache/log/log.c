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

void log_close_record_locked(struct cache *cache)
{
	struct log_record *record = cache->log.open;
	uint64_t next;

	cache_assert_locked(cache);
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
