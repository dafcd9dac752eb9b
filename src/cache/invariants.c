/* Whether the cache in memory is as internal.h says. The numbers are those there. */
#include "invariants.h"

#ifdef LEAFDISK_FAULTS

#include "cache/format/format.h"
#include "cache/log/log.h"
#include "core/list.h"

/* A ring of so many segments at most is looked at as a whole, once in so many calls. */
#define WHOLE_SEGMENTS_MAX 64
#define WHOLE_CALLS 64
/* Slots of a segment whose data is compared: a checksum costs more than all else. */
#define DATA_STRIDE 32

static struct log_record *record_of(struct list *node)
{
	return container_of(node, struct log_record, link);
}

/* Segments from the tail on, in ring order. */
static uint64_t distance_locked(const struct cache *cache, uint64_t segment)
{
	cache_assert_locked(cache);
	return (segment + cache->ring_segments - cache->tail_segment) % cache->ring_segments;
}

/* ---- Records and buffers (2, 3) ------------------------------------------ */

/* What a walk over the records, the oldest first, has met. */
struct records {
	const struct log_record *last;
	unsigned references[CACHE_BUFFERS_MAX];
	unsigned copies;
};

static const char *check_record_locked(struct cache *cache, struct records *records, const struct log_record *record)
{
	uint64_t expected = records->last ? records->last->sequence + 1 : cache->log.durable + 1;
	const struct cache_buffer *buffer = record->buffer;

	cache_assert_locked(cache);
	if (record->sequence != expected)
		return "3: the records are not in the order of their sequence";
	if (records->last &&
	    record->slot != cache_next_record_slot(records->last->slot, records->last->blocks, cache->ring_segments))
		return "3: a record is not behind the one before";
	if (cache->segments[segment_of(record->slot)].buffer != buffer || buffer->segment != segment_of(record->slot))
		return "2: a record that is not durable has no buffer bound to its segment";
	if (block_in_segment(record->slot) < buffer->first)
		return "2: a record that is not durable begins before its buffer";
	records->references[buffer - cache->log.buffers]++;
	records->copies += record->copies;
	records->last = record;
	return NULL;
}

static const char *check_list_locked(struct cache *cache, struct list *list, bool sealed, struct records *records)
{
	cache_assert_locked(cache);
	list_foreach(node, list)
	{
		const char *breach = check_record_locked(cache, records, record_of(node));

		if (breach)
			return breach;
		if (sealed && record_of(node)->copies > 0)
			return "3: a record is sealed while it is being filled";
	}
	return NULL;
}

static const char *check_buffer_locked(const struct cache *cache, const struct cache_buffer *buffer, unsigned needed)
{
	const struct cache_segment *segment = &cache->segments[buffer->segment];

	cache_assert_locked(cache);
	if (buffer->references > 0 && segment->buffer != buffer)
		return "2: a buffer that is in use is not bound to its segment";
	if (buffer->references > 0 && buffer->segment == segment_of(cache->log.head_slot))
		needed++;
	return buffer->references < needed ? "2: a buffer has fewer references than it needs" : NULL;
}

static const char *check_buffers_locked(const struct cache *cache, const struct records *records)
{
	const struct log *log = &cache->log;
	unsigned unused = 0;

	cache_assert_locked(cache);
	for (unsigned i = 0; i < log->buffer_count; i++) {
		const char *breach = check_buffer_locked(cache, &log->buffers[i], records->references[i]);

		if (breach)
			return breach;
		if (log->buffers[i].references == 0)
			unused++;
	}
	return unused != log->free_buffer_count ? "2: a buffer without references is not free" : NULL;
}

static const char *check_records_locked(struct cache *cache, struct records *records)
{
	struct log *log = &cache->log;
	const char *breach;

	cache_assert_locked(cache);
	breach = check_list_locked(cache, &log->sealed, true, records);
	if (!breach)
		breach = check_list_locked(cache, &log->building, false, records);
	if (breach)
		return breach;
	if ((records->last ? records->last->sequence : log->durable) != log->next_sequence - 1)
		return "3: the last record has not the last sequence";
	if (log->open && log->open != records->last)
		return "3: the open record is not the last one";
	return check_buffers_locked(cache, records);
}

/* ---- The ring (4) -------------------------------------------------------- */

static const char *check_ring_locked(const struct cache *cache)
{
	uint64_t head = segment_of(cache->log.head_slot);
	uint64_t super_tail = le64_get(cache->super.tail_segment);

	cache_assert_locked(cache);
	if (cache->ring_segments > cache->segment_count || head >= cache->ring_segments ||
	    cache->tail_segment >= cache->ring_segments || cache->reclaim.segment >= cache->ring_segments)
		return "4: the log is not in the ring";
	if (distance_locked(cache, cache->reclaim.segment) > distance_locked(cache, head))
		return "4: a segment is emptied that is not between tail and head";
	if (distance_locked(cache, super_tail) > distance_locked(cache, cache->reclaim.segment))
		return "4: the tail is not where the superblock has it, or before";
	return NULL;
}

/* ---- Counts (8) ---------------------------------------------------------- */

struct sums {
	uint64_t live, pinned, dirty, dirty_slots, zeros;
	unsigned degraded;
};

static void add_layer(void *opaque, struct cache_layer *layer)
{
	struct sums *sums = opaque;

	sums->live += layer->live_blocks;
	if (layer->epochs) {
		sums->dirty += layer->pinned_blocks;
		sums->dirty_slots += layer->epochs->dirty;
		sums->zeros += layer->epochs->zeros;
	} else {
		sums->pinned += layer->pinned_blocks;
	}
	if (layer->status.state == CACHE_LAYER_DEGRADED)
		sums->degraded++;
}

static bool equals_locked(const struct cache *cache, const struct sums *sums)
{
	cache_assert_locked(cache);
	return sums->live == cache->live_blocks && sums->pinned == cache->pinned_blocks &&
	       sums->dirty == cache->dirty_blocks;
}

static const char *check_counts_locked(struct cache *cache)
{
	struct sums sums = {0};

	cache_assert_locked(cache);
	layers_foreach(cache->layers, add_layer, &sums);
	if (!equals_locked(cache, &sums) || sums.zeros != cache->dirty_zeros ||
	    sums.dirty_slots != cache->dirty_slots || sums.degraded != cache->degraded_layers)
		return "8: what is counted of the cache is not the sum of its layers";
	return NULL;
}

/* ---- Slots (1, 4, 5, 6, 7) ----------------------------------------------- */

struct slots {
	struct cache *cache;
	const struct records *records;
	struct sums sums;
	uint32_t dirty; /* of the segment */
};

/* Behind what the log has reserved. */
static bool is_ahead_locked(const struct cache *cache, uint32_t slot)
{
	const struct log_record *open = cache->log.open;
	unsigned end = block_in_segment(cache->log.head_slot) + (open ? 1 + open->blocks : 0);

	cache_assert_locked(cache);
	return segment_of(slot) == segment_of(cache->log.head_slot) && block_in_segment(slot) >= end;
}

static bool is_in_buffer_locked(const struct cache *cache, uint32_t slot)
{
	const struct cache_buffer *buffer = cache->segments[segment_of(slot)].buffer;

	cache_assert_locked(cache);
	return buffer && block_in_segment(slot) >= buffer->first;
}

/* Of a slot that nobody fills at the moment. */
static bool has_its_data_locked(const struct cache *cache, uint32_t slot, const struct index_entry *entry)
{
	const uint8_t *data = slot_data(cache->segments[segment_of(slot)].buffer->data, slot);

	cache_assert_locked(cache);
	return cache_checksum_short(cache_data_checksum(data)) == entry->checksum;
}

static const char *check_live_locked(struct slots *slots, uint32_t slot, const struct index_entry *entry,
				     const struct cache_layer *layer)
{
	struct cache *cache = slots->cache;

	cache_assert_locked(cache);
	slots->sums.live++;
	if ((entry->flags & INDEX_PINNED) && layer->epochs)
		slots->sums.dirty++;
	else if (entry->flags & INDEX_PINNED)
		slots->sums.pinned++;
	if ((entry->flags & INDEX_BUSY) && slots->records->copies == 0)
		return "7: a slot is to be superseded, and no put is under way";
	if (!(entry->flags & (INDEX_BUSY | INDEX_LOST)) && (slot + cache->checks) % DATA_STRIDE == 0 &&
	    is_in_buffer_locked(cache, slot) && !has_its_data_locked(cache, slot, entry))
		return "1: a LIVE slot has other data in its buffer";
	return NULL;
}

/* SLOT has newer content than its block's LIVE slot. Of clean blocks, which several
 * may put at the same time, the image has the same. */
static bool is_newer_than_live_locked(const struct cache *cache, uint32_t slot, const struct index_entry *entry,
				      const struct cache_layer *layer)
{
	uint32_t live = index_find(cache->index, entry->layer, entry->block);
	uint64_t tail = cache->tail_segment * CACHE_SEGMENT_BLOCKS;
	struct index_entry present;

	cache_assert_locked(cache);
	if (!(entry->flags & INDEX_PINNED) || live == INDEX_NO_SLOT)
		return false;
	index_get(cache->index, live, &present);
	if (layer->epochs || layer->orphan)
		return entry->order > present.order;
	return cache_slot_distance(tail, slot, cache->ring_segments) >
	       cache_slot_distance(tail, live, cache->ring_segments);
}

/* SLOT was put before the first record of its segment, so it was moved there. */
static bool is_scattered_locked(const struct cache *cache, uint32_t slot, const struct index_entry *entry)
{
	cache_assert_locked(cache);
	return entry->order < cache->segments[segment_of(slot)].sequence;
}

static const char *check_slot_locked(struct slots *slots, uint32_t slot)
{
	struct cache *cache = slots->cache;
	const struct cache_layer *layer;
	struct index_entry entry;

	cache_assert_locked(cache);
	index_get(cache->index, slot, &entry);
	layer = entry.flags & INDEX_DATA ? layers_by_id(cache->layers, entry.layer) : NULL;
	if (!layer)
		return NULL;
	if (is_ahead_locked(cache, slot))
		return "1: a slot has a block, and the log has not come there yet";
	if ((entry.flags & INDEX_PINNED) && layer->epochs) {
		slots->dirty++;
		if (is_scattered_locked(cache, slot, &entry) && entry.order > layer->epochs->scattered)
			return "9: a dirty block is not in its order, and its layer does not know";
	}
	if (is_newer_than_live_locked(cache, slot, &entry, layer))
		return "7: a block's LIVE slot is older than another one that is pinned";
	return entry.flags & INDEX_LIVE ? check_live_locked(slots, slot, &entry, layer) : NULL;
}

/* SEGMENT is in use; where all its records are sealed it says so. */
static const char *check_used_locked(struct slots *slots, uint64_t segment)
{
	struct cache *cache = slots->cache;
	uint64_t first = segment * CACHE_SEGMENT_BLOCKS;
	const char *breach = NULL;

	cache_assert_locked(cache);
	if (cache->segments[segment].sequence == 0 && list_is_empty(&cache->log.building) &&
	    first != cache->log.head_slot)
		return "4: a segment is in use and has no first record";
	slots->dirty = 0;
	for (unsigned i = 0; i < CACHE_SEGMENT_BLOCKS && !breach; i++)
		breach = check_slot_locked(slots, (uint32_t)first + i);
	if (!breach && slots->dirty > cache->segments[segment].dirty)
		breach = "6: a segment has more dirty slots than it counts";
	return breach;
}

/* Not yet in use, or emptied. */
static const char *check_empty_locked(const struct cache *cache, uint64_t segment)
{
	const struct cache_segment *state = &cache->segments[segment];

	cache_assert_locked(cache);
	if (state->dirty > 0)
		return "6: a segment with dirty blocks was reclaimed";
	if (state->buffer || state->readers > 0)
		return "5: a segment was cleared that has a buffer or readers";
	for (unsigned i = 0; i < CACHE_SEGMENT_BLOCKS; i++) {
		struct index_entry entry;

		index_get(cache->index, (uint32_t)(segment * CACHE_SEGMENT_BLOCKS) + i, &entry);
		if (entry.flags & INDEX_DATA)
			return "5: a segment was cleared and has a slot that is not empty";
	}
	return NULL;
}

static const char *check_segment_locked(struct slots *slots, uint64_t segment)
{
	const struct cache *cache = slots->cache;
	uint64_t distance = distance_locked(cache, segment);
	bool used = distance <= distance_locked(cache, segment_of(cache->log.head_slot));

	cache_assert_locked(cache);
	if (!used && cache->segments[segment].sequence != 0)
		return "4: a segment is free and has records";
	if (!used || distance < distance_locked(cache, cache->reclaim.segment))
		return check_empty_locked(cache, segment);
	return check_used_locked(slots, segment);
}

/* ---- All of it ----------------------------------------------------------- */

const char *cache_find_breach_locked(struct cache *cache, uint64_t first, uint64_t segments)
{
	struct records records = {0};
	struct slots slots = {.cache = cache, .records = &records};
	const char *breach;

	cache_assert_locked(cache);
	breach = check_ring_locked(cache);
	if (!breach)
		breach = check_records_locked(cache, &records);
	if (!breach)
		breach = check_counts_locked(cache);
	for (uint64_t i = 0; i < segments && !breach; i++)
		breach = check_segment_locked(&slots, (first + i) % cache->ring_segments);
	if (!breach && segments == cache->ring_segments && !equals_locked(cache, &slots.sums))
		breach = "8: what is counted of the cache is not what its slots have";
	return breach;
}

void cache_check_locked(struct cache *cache)
{
	uint64_t call = cache->checks++;
	bool whole = cache->ring_segments <= WHOLE_SEGMENTS_MAX && call % WHOLE_CALLS == 0;
	const char *breach;

	cache_assert_locked(cache);
	breach = cache_find_breach_locked(cache, call, whole ? cache->ring_segments : 1);
	if (breach)
		g_error("cache %s, segments %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT ": invariant %s",
			cache->storage.path, cache->tail_segment, segment_of(cache->log.head_slot), breach);
}

#endif
