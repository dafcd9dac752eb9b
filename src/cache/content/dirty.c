/* Dirty blocks: counting them, ends of epochs, and what the log owes of them. */
#include "dirty.h"

#include "cache/writeback.h"
#include "cache/log/entry.h"
#include "cache/log/log.h"
#include "cache/log/space.h"
#include "cache/log/wake.h"

/* An epoch without a guest's barrier is cut there: what it was at a moment is
 * as good as a guest that asks for nothing can expect. */
#define EPOCH_BLOCKS_MAX 4096

/* ---- Counting ------------------------------------------------------------ */

void cache_dirty_reserve_locked(struct cache_layer *layer, uint32_t slot, unsigned blocks)
{
	struct cache *cache = layer->cache;
	bool first = epochs_is_empty(layer->epochs);

	cache_assert_locked(layer->cache);
	cache->segments[segment_of(slot)].dirty += blocks;
	cache->dirty_slots += blocks;
	epochs_add_blocks(layer->epochs, slot, blocks, loop_now_ns());
	if (first)
		wake_migration_locked(cache);
}

void cache_dirty_zero_locked(struct cache_layer *layer, struct epoch_place place, uint64_t block, uint64_t blocks)
{
	struct cache *cache = layer->cache;
	bool first = epochs_is_empty(layer->epochs);

	cache_assert_locked(layer->cache);
	cache->segments[segment_of(place.slot)].dirty++;
	cache->dirty_zeros++;
	epochs_add_zero(layer->epochs, place, block, blocks, loop_now_ns());
	if (first)
		wake_migration_locked(cache);
}

void cache_dirty_cancel_locked(struct cache_layer *layer, uint32_t slot, unsigned blocks)
{
	cache_assert_locked(layer->cache);
	layer->cache->segments[segment_of(slot)].dirty -= blocks;
	if (layer->epochs) {
		layer->cache->dirty_slots -= blocks;
		layer->epochs->dirty -= blocks;
	}
}

/* A suspended log takes no entries: the epoch ends in memory, for the batches
 * that empty the cache then, and later in the next record, before all else. */
static bool place_barrier_locked(struct cache_layer *layer, enum log_purpose purpose, struct epoch_place *place)
{
	struct cache *cache = layer->cache;

	cache_assert_locked(layer->cache);
	if (cache->state == CACHE_ACTIVE)
		return log_barrier_locked(layer, purpose, place);
	log_close_record_locked(cache);
	*place = (struct epoch_place){.slot = (uint32_t)cache->log.head_slot, .order = cache->log.next_sequence};
	layer->epochs->owes_barrier = true;
	cache->owes_barriers = true;
	cache->owes = true;
	return true;
}

void cache_dirty_move_locked(struct cache_layer *layer, uint32_t slot, uint32_t to, uint64_t order)
{
	struct cache *cache = layer->cache;

	cache_assert_locked(cache);
	cache->segments[segment_of(slot)].dirty--;
	cache->segments[segment_of(to)].dirty++;
	epochs_scatter(layer->epochs, order);
}

void cache_dirty_drop_locked(struct cache_layer *layer, uint32_t slot)
{
	struct cache *cache = layer->cache;

	cache_assert_locked(cache);
	index_set_flags(cache->index, slot, 0, INDEX_PINNED);
	cache->segments[segment_of(slot)].dirty--;
	cache->dirty_slots--;
	layer->epochs->dirty--;
}

void cache_dirty_release_locked(struct cache_layer *layer)
{
	struct cache *cache = layer->cache;
	uint64_t slots = cache->ring_segments * CACHE_SEGMENT_BLOCKS, left;

	cache_assert_locked(layer->cache);
	if (!layer->epochs)
		return;
	left = layer->epochs->dirty;
	for (uint64_t slot = 0; slot < slots && left > 0; slot++) {
		struct index_entry entry;

		index_get(cache->index, (uint32_t)slot, &entry);
		if (entry.layer == layer->id && (entry.flags & INDEX_DATA) && (entry.flags & INDEX_PINNED)) {
			cache->segments[segment_of(slot)].dirty--;
			left--;
		}
	}
	for (unsigned i = 0; i < epochs_length(layer->epochs); i++) {
		const struct epoch_event *event = epochs_get(layer->epochs, i);

		if (epoch_event_is_barrier(event))
			continue;
		cache->segments[segment_of(event->place.slot)].dirty--;
		cache->dirty_zeros--;
	}
	cache->dirty_slots -= layer->epochs->dirty;
	g_clear_pointer(&layer->epochs, epochs_free);
	wake_waiters_locked(cache);
}

bool cache_dirty_cut_locked(struct cache_layer *layer, enum log_purpose purpose)
{
	bool first = !epochs_has_barrier(layer->epochs);
	struct epoch_place place;

	cache_assert_locked(layer->cache);
	if (!epochs_is_open(layer->epochs))
		return true;
	if (!place_barrier_locked(layer, purpose, &place))
		return false;
	if (first)
		wake_migration_locked(layer->cache);
	layer->barrier_sequence = layer->cache->log.next_sequence - 1;
	epochs_add_barrier(layer->epochs, place, loop_now_ns());
	return true;
}

bool cache_dirty_barrier_locked(struct cache_layer *layer, enum log_purpose purpose)
{
	cache_assert_locked(layer->cache);
	if (!epochs_is_open(layer->epochs))
		return true;
	if (!cache_dirty_cut_locked(layer, purpose))
		return false;
	log_close_record_locked(layer->cache);
	return true;
}

void cache_dirty_bound_epoch_locked(struct cache_layer *layer)
{
	uint64_t max = MIN(EPOCH_BLOCKS_MAX, space_log_blocks_locked(layer->cache) / 4);

	cache_assert_locked(layer->cache);
	if (epochs_open_blocks(layer->epochs) >= max)
		(void)cache_dirty_barrier_locked(layer, LOG_PUT);
}

/* ---- What the log owes ---------------------------------------------------- */

static void log_migrated_locked(struct cache_layer *layer, enum log_purpose purpose)
{
	struct cache *cache = layer->cache;
	struct epochs *epochs = layer->epochs;

	cache_assert_locked(layer->cache);
	epochs->owes_migrated = cache->state != CACHE_ACTIVE || epochs->owes_barrier ||
				!log_migrate_locked(layer, purpose, CACHE_ENTRY_MIGRATED, epochs->migrated_place);
	epochs->migrated_scattered &= epochs->owes_migrated;
	cache->owes |= epochs->owes_migrated;
}

/* Where room is scarce no record is begun for it: it goes with the next one. Before
 * it is in the log nothing but what makes room is. */
void cache_dirty_migrated_locked(struct cache_layer *layer, struct epoch_place end)
{
	cache_assert_locked(layer->cache);
	layer->epochs->migrated_place = end;
	layer->epochs->owes_migrated = space_is_scarce_locked(layer->cache);
	layer->cache->owes |= layer->epochs->owes_migrated;
	if (!layer->epochs->owes_migrated)
		log_migrated_locked(layer, LOG_BATCH);
}

static void catch_up_barrier(void *opaque, struct cache_layer *layer)
{
	enum log_purpose *purpose = opaque;
	struct epoch_place place;

	if (layer->epochs && layer->epochs->owes_barrier) {
		layer->epochs->owes_barrier = !log_barrier_locked(layer, *purpose, &place);
		layer->cache->owes_barriers |= layer->epochs->owes_barrier;
	}
}

static void catch_up_migrated(void *opaque, struct cache_layer *layer)
{
	enum log_purpose *purpose = opaque;

	if (layer->epochs && layer->epochs->owes_migrated)
		log_migrated_locked(layer, *purpose);
}

static void catch_up_barriers_locked(struct cache *cache, enum log_purpose purpose)
{
	cache_assert_locked(cache);
	if (!cache->owes_barriers)
		return;
	cache->owes_barriers = false;
	layers_foreach(cache->layers, catch_up_barrier, &purpose);
	log_close_record_locked(cache);
}

void cache_dirty_pay_locked(struct cache *cache, enum log_purpose purpose)
{
	cache_assert_locked(cache);
	if (!cache->owes || cache->state != CACHE_ACTIVE)
		return;
	catch_up_barriers_locked(cache, purpose);
	cache->owes = cache->owes_barriers;
	layers_foreach(cache->layers, catch_up_migrated, &purpose);
	if (cache->owes)
		return;
	condition_broadcast(&cache->changed);
	wake_waiters_locked(cache);
	wake_migration_locked(cache);
}

static void look_for_scattered(void *opaque, struct cache_layer *layer)
{
	bool *passes = opaque;

	*passes &= !layer->epochs || !layer->epochs->owes_migrated || !layer->epochs->migrated_scattered;
}

bool cache_dirty_may_pass_locked(struct cache *cache)
{
	bool passes = true;

	cache_assert_locked(cache);
	cache_dirty_pay_locked(cache, LOG_MOVE);
	if (cache->owes)
		layers_foreach(cache->layers, look_for_scattered, &passes);
	return passes;
}

void cache_dirty_catch_up_locked(struct cache *cache)
{
	cache_assert_locked(cache);
	if (cache->state != CACHE_ACTIVE)
		return;
	catch_up_barriers_locked(cache, LOG_BATCH);
	if (!space_is_scarce_locked(cache))
		cache_dirty_pay_locked(cache, LOG_BATCH);
}

void cache_end_epoch(struct cache_layer *layer)
{
	LOCK_GUARD(&layer->cache->lock);
	if (layer->epochs && layer->status.state == CACHE_LAYER_ACTIVE)
		(void)cache_dirty_barrier_locked(layer, LOG_ENTRY);
}

/* ---- For the layer's users ------------------------------------------------ */

void cache_set_limits(struct cache *cache, uint64_t dirty_max_blocks, uint64_t barrier_deadline_ns)
{
	LOCK_GUARD(&cache->lock);
	cache->dirty_max = dirty_max_blocks;
	cache->barrier_deadline_ns = barrier_deadline_ns;
	wake_waiters_locked(cache);
}

void cache_layer_set_stuck(struct cache_layer *layer, bool stuck)
{
	struct cache *cache = layer->cache;

	LOCK_GUARD(&cache->lock);
	if (layer->stuck == stuck)
		return;
	layer->stuck = stuck;
	wake_reclaim_locked(cache);
	wake_waiters_locked(cache);
}

void cache_layer_get_dirty(struct cache_layer *layer, struct cache_dirty *dirty)
{
	struct cache *cache = layer->cache;
	const struct epochs *epochs;
	uint64_t tail;

	*dirty = (struct cache_dirty){0};
	LOCK_GUARD(&cache->lock);
	epochs = layer->epochs;
	dirty->owed = epochs && epochs->owes_migrated;
	dirty->stuck = layer->stuck;
	if (epochs && !epochs_is_empty(epochs)) {
		dirty->share_percent = space_share_percent_locked(layer);
		tail = cache->tail_segment * CACHE_SEGMENT_BLOCKS;
		dirty->blocks = layer->pinned_blocks;
		dirty->slots = epochs->dirty;
		dirty->zeros = epochs->zeros;
		dirty->oldest_ns = epochs->oldest_ns;
		dirty->distance = cache_slot_distance(tail, epochs->first, cache->ring_segments);
		dirty->has_barrier = epochs_has_barrier(epochs);
	}
}
