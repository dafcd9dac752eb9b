/* Batches: whole epochs of one layer, on their way to its image.
 *
 * The order that a crash needs:
 *   1. the end of the batch is in the log as MIGRATE, durable, and with it all
 *      the batch's blocks;
 *   2. the image gets the batch, all or none;
 *   3. MIGRATED is in the log.
 * Found without MIGRATED after a crash, nobody knows whether the image has the
 * batch. It may have; so the next batch ends there or later, and leaves the
 * image as that one did or newer: never as it was at an older barrier. Whoever
 * knows that the image does not have it may have it refused: then a MIGRATE of
 * the smallest batch follows in the log, and counts instead.
 *
 * A batch has the versions of blocks that its epochs have, not newer ones. What is in it
 * is told by its order, wherever in the log it is; while it is read, it stays there
 * (invariant 5), and after that it may be moved. */
#include <errno.h>

#include "cache/writeback.h"
#include "batch_data.h"
#include "begin.h"
#include "cache/content/dirty.h"
#include "cache/content/layer.h"
#include "cache/log/wake.h"

struct collection {
	struct batch_source source;
	uint64_t end;	     /* order */
	GArray *items;	     /* struct batch_item */
	GArray *zero_events; /* struct epoch_event, those of the batch */
	GArray *held;	     /* uint64_t: segments that are being read */
	struct intervals *zeros;
};

/* ---- What is in it -------------------------------------------------------- */

static void copy_zero_events_locked(struct collection *collection, const struct cache_layer *layer)
{
	cache_assert_locked(collection->source.cache);
	for (unsigned i = 0; i < epochs_length(layer->epochs); i++) {
		const struct epoch_event *event = epochs_get(layer->epochs, i);

		if (!epoch_event_is_barrier(event) && event->place.order <= collection->end)
			g_array_append_vals(collection->zero_events, event, 1);
	}
}

/* As if it were read from the file: it is not cleared. */
static void hold_segment_locked(struct collection *collection, uint64_t segment)
{
	GArray *held = collection->held;

	cache_assert_locked(collection->source.cache);
	if (held->len && g_array_index(held, uint64_t, held->len - 1) == segment)
		return;
	collection->source.cache->segments[segment].readers++;
	g_array_append_val(held, segment);
}

static void release_segments(struct collection *collection)
{
	struct cache *cache = collection->source.cache;

	LOCK_GUARD(&cache->lock);
	for (guint i = 0; i < collection->held->len; i++)
		cache->segments[g_array_index(collection->held, uint64_t, i)].readers--;
	if (cache->reclaim.waiting)
		condition_broadcast(&cache->changed);
}

static void collect_slot(void *opaque, uint32_t slot)
{
	struct collection *collection = opaque;
	struct index_entry entry;
	struct batch_item item;

	index_get(collection->source.cache->index, slot, &entry);
	if (entry.layer != collection->source.layer || !(entry.flags & INDEX_DATA) || !(entry.flags & INDEX_PINNED) ||
	    entry.order > collection->end)
		return;
	item = (struct batch_item){
		.block = entry.block,
		.order = entry.order,
		.slot = slot,
		.checksum = entry.checksum,
		.lost = entry.flags & INDEX_LOST,
	};
	g_array_append_val(collection->items, item);
	hold_segment_locked(collection, segment_of(slot));
}

/* Lets others have the lock. Where the tail passed SLOT meanwhile, which had
 * nothing dirty before it then, the walk goes on from the tail. */
static uint64_t pause_walk_relock(struct cache *cache, uint64_t slot)
{
	uint64_t tail = cache->tail_segment * CACHE_SEGMENT_BLOCKS, now;
	uint64_t distance = cache_slot_distance(tail, slot, cache->ring_segments);

	cache_assert_locked(cache);
	lock_let_go(&cache->lock);
	lock_take(&cache->lock);
	now = cache->tail_segment * CACHE_SEGMENT_BLOCKS;
	return cache_slot_distance(tail, now, cache->ring_segments) > distance ? now : slot;
}

/* Up to where something of RANGE can be, in slots from the tail. What is moved while a
 * walk is under way goes to the head, and is met there. */
static uint64_t end_of_walk_locked(const struct cache_layer *layer, const struct epoch_range *range)
{
	struct cache *cache = layer->cache;
	uint64_t head = segment_of(cache->log.head_slot) * CACHE_SEGMENT_BLOCKS + CACHE_SEGMENT_BLOCKS - 1;
	uint64_t all = slot_distance_locked(cache, (uint32_t)head) + 1;

	cache_assert_locked(cache);
	return layer->epochs->scattered ? all : MIN(place_distance_locked(cache, range->end), all);
}

/* A walk has been through the ring where the head's segment is the last before the tail. */
static bool has_come_round_locked(const struct cache *cache, uint64_t slot)
{
	cache_assert_locked(cache);
	return slot == cache->tail_segment * CACHE_SEGMENT_BLOCKS;
}

/* EACH slot that may be in RANGE, but for segments without a dirty one; the lock is let
 * go between segments. Ends early where LAYER is given up meanwhile. */
static void walk_range_relock(struct cache_layer *layer, const struct epoch_range *range,
			      void (*each)(void *opaque, uint32_t slot), void *opaque)
{
	struct cache *cache = layer->cache;
	uint64_t slot = layer->epochs->first;
	uint32_t id = layer->id;

	cache_assert_locked(cache);
	while (layer->id == id && layer->epochs &&
	       slot_distance_locked(cache, (uint32_t)slot) < end_of_walk_locked(layer, range)) {
		if (cache->segments[segment_of(slot)].dirty == 0)
			slot |= CACHE_SEGMENT_BLOCKS - 1;
		else
			each(opaque, (uint32_t)slot);
		slot = (slot + 1) % (cache->ring_segments * CACHE_SEGMENT_BLOCKS);
		if (has_come_round_locked(cache, slot))
			return;
		if (slot % CACHE_SEGMENT_BLOCKS == 0)
			slot = pause_walk_relock(cache, slot);
	}
}

/* Nothing that is held is before the tail by now. */
static void measure_distances_locked(struct collection *collection)
{
	cache_assert_locked(collection->source.cache);
	for (guint i = 0; i < collection->items->len; i++) {
		struct batch_item *item = &g_array_index(collection->items, struct batch_item, i);

		item->distance = (uint32_t)slot_distance_locked(collection->source.cache, item->slot);
	}
}

/* ---- What of it is newest -------------------------------------------------- */

/* Of a record's versions of a block the last one is the newest; what was moved of it is
 * that one, and further on in the log. */
static int compare_ages(const void *left, const void *right)
{
	const struct batch_item *a = left, *b = right;

	if (a->order != b->order)
		return a->order < b->order ? -1 : 1;
	return a->distance < b->distance ? -1 : 1;
}

static int compare_blocks(const void *left, const void *right)
{
	const struct batch_item *a = left, *b = right;

	if (a->block != b->block)
		return a->block < b->block ? -1 : 1;
	return compare_ages(left, right);
}

static int compare_slots(const void *left, const void *right)
{
	const struct batch_item *a = left, *b = right;

	return a->slot < b->slot ? -1 : 1;
}

/* By their order; of one order what was moved first. */
static int compare_zeros(const void *left, const void *right)
{
	const struct epoch_event *a = left, *b = right;

	if (a->place.order != b->place.order)
		return a->place.order < b->place.order ? -1 : 1;
	return b->moved - a->moved;
}

/* In one record as they stand there; what was moved of a record is only what was not
 * zero at its end. */
static bool is_zero_before(const struct epoch_event *zero, const struct batch_item *item)
{
	if (zero->place.order != item->order)
		return zero->place.order < item->order;
	return zero->moved || segment_of(zero->place.slot) != segment_of(item->slot) ||
	       zero->place.slot + zero->place.blocks < item->slot;
}

/* What is zero at the end: ITEMS by their age. */
static void apply_zeros(struct collection *collection)
{
	GArray *events = collection->zero_events;
	guint next = 0;

	if (events->len == 0)
		return;
	collection->zeros = intervals_new();
	g_array_sort(events, compare_zeros);
	for (guint i = 0; i <= collection->items->len; i++) {
		const struct batch_item *item =
			i < collection->items->len ? &g_array_index(collection->items, struct batch_item, i) : NULL;

		for (; next < events->len; next++) {
			const struct epoch_event *event = &g_array_index(events, struct epoch_event, next);

			if (item && !is_zero_before(event, item))
				break;
			intervals_add(collection->zeros, event->block, event->blocks);
		}
		if (item)
			intervals_remove(collection->zeros, item->block, 1);
	}
}

/* By block, only what is the newest of its block and not zero by now. */
static void reduce(struct collection *collection)
{
	GArray *items = collection->items;
	guint kept = 0;

	g_array_sort(items, compare_ages);
	apply_zeros(collection);
	g_array_sort(items, compare_blocks);
	for (guint i = 0; i < items->len; i++) {
		struct batch_item *item = &g_array_index(items, struct batch_item, i);

		if (i + 1 < items->len && g_array_index(items, struct batch_item, i + 1).block == item->block)
			continue;
		if (collection->zeros && intervals_contains(collection->zeros, item->block, 1, NULL))
			continue;
		item->place = kept;
		g_array_index(items, struct batch_item, kept++) = *item;
	}
	g_array_set_size(items, kept);
}

/* ---- Extents --------------------------------------------------------------- */

static void add_extent(GArray *extents, uint64_t block, uint64_t blocks, uint8_t *data)
{
	struct cache_batch_extent *last =
		extents->len ? &g_array_index(extents, struct cache_batch_extent, extents->len - 1) : NULL;
	struct cache_batch_extent extent = {block, blocks, data};

	if (last && last->block + last->blocks == block && !last->data == !data)
		last->blocks += blocks;
	else
		g_array_append_val(extents, extent);
}

/* Items are sorted by block; they and the zeros do not overlap. */
static void build_extents(struct cache_batch *batch, const struct collection *collection)
{
	GArray *extents = g_array_new(FALSE, FALSE, sizeof(struct cache_batch_extent));
	unsigned zero = 0, zeros = collection->zeros ? intervals_length(collection->zeros) : 0;

	for (guint i = 0; i <= collection->items->len; i++) {
		const struct batch_item *item =
			i < collection->items->len ? &g_array_index(collection->items, struct batch_item, i) : NULL;

		for (; zero < zeros; zero++) {
			struct interval interval = intervals_get(collection->zeros, zero);

			if (item && interval.first > item->block)
				break;
			add_extent(extents, interval.first, interval.count, NULL);
		}
		if (item)
			add_extent(extents, item->block, 1, batch->data + ((size_t)item->place << BLOCK_SHIFT));
	}
	batch->extent_count = extents->len;
	batch->extents = (struct cache_batch_extent *)(void *)g_array_free(extents, FALSE);
}

/* ---- Life of a batch ------------------------------------------------------- */

static int fill(struct cache_batch *batch, struct collection *collection, const struct cache_batch_limits *limits)
{
	size_t bytes;
	int result;

	reduce(collection);
	batch->data_blocks = collection->items->len;
	if (limits->has_memory && !limits->has_memory(collection->source.opaque, batch->data_blocks))
		return -EAGAIN;
	bytes = MAX(batch->data_blocks, 1) << BLOCK_SHIFT;
	batch->data = memory_spare_map(&collection->source.cache->batch_spare, bytes);
	if (!batch->data)
		return -ENOMEM;
	g_array_sort(collection->items, compare_slots);
	result = batch_read(&collection->source, collection->items, batch->data);
	g_array_sort(collection->items, compare_blocks);
	build_extents(batch, collection);
	return result;
}

static struct cache_batch *batch_new(struct cache_layer *layer, const struct epoch_range *range)
{
	struct cache_batch *batch = g_new0(struct cache_batch, 1);

	batch->layer = layer;
	batch->layer_id = layer->id;
	batch->range = g_memdup2(range, sizeof(*range));
	batch->order = range->durable ? range->end.order : 0;
	return batch;
}

int cache_batch_take(struct cache_layer *layer, const struct cache_batch_limits *limits, struct cache_batch **batch,
		     void (*lost)(void *opaque, uint64_t block), void *opaque)
{
	g_autoptr(GArray) items = g_array_new(FALSE, FALSE, sizeof(struct batch_item));
	g_autoptr(GArray) zero_events = g_array_new(FALSE, FALSE, sizeof(struct epoch_event));
	g_autoptr(GArray) held = g_array_new(FALSE, FALSE, sizeof(uint64_t));
	struct collection collection = {
		.source = {.cache = layer->cache, .layer = layer->id, .lost = lost, .opaque = opaque},
		.items = items,
		.zero_events = zero_events,
		.held = held,
	};
	struct epoch_range range;
	int result;

	*batch = NULL;
	lock_take(&layer->cache->lock);
	if (begin_batch_relock(layer, limits, &range)) {
		*batch = batch_new(layer, &range);
		collection.end = range.end.order;
		copy_zero_events_locked(&collection, layer);
		walk_range_relock(layer, &range, collect_slot, &collection);
		measure_distances_locked(&collection);
	}
	lock_let_go(&layer->cache->lock);
	if (!*batch)
		return 0;
	result = fill(*batch, &collection, limits);
	release_segments(&collection);
	intervals_free(collection.zeros);
	if (result < 0)
		g_clear_pointer(batch, cache_batch_free);
	return result;
}

static void batch_free(struct cache_batch *batch)
{
	memory_spare_unmap(&batch->layer->cache->batch_spare, batch->data, MAX(batch->data_blocks, 1) << BLOCK_SHIFT);
	g_free(batch->extents);
	g_free(batch->range);
	g_free(batch);
}

void cache_batch_free(struct cache_batch *batch)
{
	if (batch)
		batch_free(batch);
}

/* ---- Refused --------------------------------------------------------------- */

bool cache_batch_refuse(struct cache_batch *batch)
{
	struct cache_layer *layer = batch->layer;
	bool smaller;

	lock_take(&layer->cache->lock);
	smaller = layer->id == batch->layer_id && layer->epochs && begin_smaller_locked(layer, batch->range);
	lock_let_go(&layer->cache->lock);
	if (smaller)
		cache_batch_free(batch);
	return smaller;
}

/* ---- Done ------------------------------------------------------------------ */

struct cleaning {
	struct cache_layer *layer;
	uint64_t end; /* order */
	uint64_t slots;
};

static void clean_slot(void *opaque, uint32_t slot)
{
	struct cleaning *cleaning = opaque;
	struct cache *cache = cleaning->layer->cache;
	struct index_entry entry;

	index_get(cache->index, slot, &entry);
	if (entry.layer != cleaning->layer->id || !(entry.flags & INDEX_DATA) || !(entry.flags & INDEX_PINNED) ||
	    entry.order > cleaning->end)
		return;
	index_set_flags(cache->index, slot, 0, INDEX_PINNED);
	cache->segments[segment_of(slot)].dirty--;
	cleaning->slots++;
	if (!(entry.flags & INDEX_LIVE))
		return;
	cache_layer_account_locked(cleaning->layer, entry.flags, -1);
	cache_layer_account_locked(cleaning->layer, entry.flags & ~(unsigned)INDEX_PINNED, 1);
}

/* The events up to END; the segments of the zero ranges have one reason less. */
static unsigned clean_events_locked(struct cache_layer *layer, struct epoch_place end)
{
	unsigned count = 0;

	cache_assert_locked(layer->cache);
	for (; count < epochs_length(layer->epochs); count++) {
		const struct epoch_event *event = epochs_get(layer->epochs, count);

		if (event->place.order > end.order)
			break;
		if (epoch_event_is_barrier(event))
			continue;
		layer->cache->segments[segment_of(event->place.slot)].dirty--;
		layer->cache->dirty_zeros--;
	}
	return count;
}

/* Where what is dirty begins, once RANGE is not: behind its end, where that is in the log
 * still, and what stands before it is older. */
static uint32_t first_left_locked(const struct cache_layer *layer, const struct epoch_range *range)
{
	const struct cache *cache = layer->cache;
	uint64_t head = slot_distance_locked(cache, (uint32_t)cache->log.head_slot);

	cache_assert_locked(cache);
	if (layer->epochs->scattered || slot_distance_locked(cache, range->end.slot) > head)
		return (uint32_t)(cache->tail_segment * CACHE_SEGMENT_BLOCKS);
	return range->end.slot;
}

static void done_relock(struct cache_layer *layer, const struct epoch_range *range)
{
	struct cleaning cleaning = {.layer = layer, .end = range->end.order};
	struct cache *cache = layer->cache;
	uint64_t zeros = layer->epochs->zeros;
	uint32_t id = layer->id, first;
	unsigned events;

	cache_assert_locked(layer->cache);
	walk_range_relock(layer, range, clean_slot, &cleaning);
	if (layer->id != id || !layer->epochs)
		return;
	events = clean_events_locked(layer, range->end);
	cache->dirty_slots -= cleaning.slots;
	first = first_left_locked(layer, range);
	layer->epochs->migrated_scattered |= layer->epochs->scattered != 0;
	epochs_remove(layer->epochs, events, cleaning.slots, range->end, range->put);
	layer->epochs->first = first;
	if (zeros > 0)
		layer->zeros = epochs_keep_zeros(layer->epochs, layer->zeros);
	cache_dirty_migrated_locked(layer, range->end);
	wake_reclaim_locked(cache);
	wake_waiters_locked(cache);
}

void cache_batch_done(struct cache_batch *batch)
{
	struct cache_layer *layer = batch->layer;

	lock_take(&layer->cache->lock);
	if (layer->id == batch->layer_id && layer->epochs)
		done_relock(layer, batch->range);
	wake_reclaim_locked(layer->cache);
	lock_let_go(&layer->cache->lock);
	batch_free(batch);
}
