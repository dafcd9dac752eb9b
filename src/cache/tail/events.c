/* What of a segment is dirty besides its blocks, and whose that is.
 *
 * A layer is stuck while its image does not take what is dirty, as its user says, and
 * when nobody has had it open for AWAY_NS, in which who mounts opens what there is: it is
 * deleted, hidden, locked, or cannot be opened. What it has in the oldest segment moves to the head. So does what the
 * log says besides blocks: the zero ranges, the barriers between epochs, and that the image may have a batch. */
#include "events.h"

#include "cache/content/dirty.h"
#include "cache/log/entry.h"
#include "cache/log/log.h"
#include "cache/log/space.h"
#include "cache/log/wake.h"
#include "core/loop.h"
#include "core/time.h"

#define AWAY_NS NS_PER_S

static bool is_stuck(const struct cache_layer *layer)
{
	return layer->stuck || (layer->opens == 0 && (layer->orphan || loop_now_ns() - layer->closed_ns >= AWAY_NS));
}

/* ---- Whose it is ------------------------------------------------------------ */

struct count {
	uint64_t segment;
	uint32_t dirty; /* of stuck layers in it */
	uint64_t stuck; /* slots, in all segments */
};

static void count_layer(void *opaque, struct cache_layer *layer)
{
	struct count *count = opaque;

	if (!layer->epochs || !is_stuck(layer))
		return;
	count->stuck += layer->epochs->dirty;
	for (unsigned i = 0; layer->epochs->zeros > 0 && i < epochs_length(layer->epochs); i++) {
		const struct epoch_event *event = epochs_get(layer->epochs, i);

		if (!epoch_event_is_barrier(event) && segment_of(event->place.slot) == count->segment)
			count->dirty++;
	}
}

static void count_slots_locked(struct cache *cache, struct count *count)
{
	uint32_t first = (uint32_t)(count->segment * CACHE_SEGMENT_BLOCKS);

	cache_assert_locked(cache);
	for (uint32_t slot = first; slot < first + CACHE_SEGMENT_BLOCKS; slot++) {
		const struct cache_layer *layer;
		struct index_entry entry;

		index_get(cache->index, slot, &entry);
		if (!(entry.flags & INDEX_DATA) || !(entry.flags & INDEX_PINNED))
			continue;
		layer = layers_by_id(cache->layers, entry.layer);
		if (layer && layer->epochs && is_stuck(layer))
			count->dirty++;
	}
}

/* What is reserved and not put yet has no layer: it counts as another's. */
bool events_segment_is_stuck_locked(struct cache *cache, uint64_t segment)
{
	struct count count = {.segment = segment};

	cache_assert_locked(cache);
	layers_foreach(cache->layers, count_layer, &count);
	if (count.stuck == 0 && count.dirty == 0)
		return false;
	count_slots_locked(cache, &count);
	return count.dirty == cache->segments[segment].dirty && space_frees_locked(cache, count.stuck);
}

/* ---- Moving ----------------------------------------------------------------- */

struct moving {
	uint64_t segment;
	bool failed;
};

static bool move_event_locked(struct cache_layer *layer, struct epoch_event *event)
{
	uint32_t slot;

	cache_assert_locked(layer->cache);
	if (!log_event_moved_locked(layer, event, &slot))
		return false;
	if (epoch_event_is_barrier(event))
		epochs_scatter(layer->epochs, event->place.order);
	else
		cache_dirty_move_locked(layer, event->place.slot, slot, event->place.order);
	event->place.slot = slot;
	event->moved = true;
	return true;
}

static bool move_events_locked(struct cache_layer *layer, uint64_t segment)
{
	struct epochs *epochs = layer->epochs;
	unsigned count = epochs_length(epochs) - (epochs->owes_barrier ? 1 : 0);

	cache_assert_locked(layer->cache);
	for (unsigned i = 0; i < count; i++) {
		struct epoch_event *event = epochs_at(epochs, i);

		if (segment_of(event->place.slot) == segment && !move_event_locked(layer, event))
			return false;
	}
	return true;
}

/* Until a batch is known to be on the image the next one may not end before it. */
static bool begin_again_locked(struct cache_layer *layer, uint64_t segment)
{
	const struct epochs *epochs = layer->epochs;

	cache_assert_locked(layer->cache);
	return !epochs->begun || !epochs->begun_logged || epochs->begun_segment != segment ||
	       log_migrate_locked(layer, LOG_MOVE, CACHE_ENTRY_MIGRATE, epochs->begun_place);
}

static void move_layer(void *opaque, struct cache_layer *layer)
{
	struct moving *moving = opaque;

	if (moving->failed || !layer->epochs || epochs_is_empty(layer->epochs))
		return;
	moving->failed = !move_events_locked(layer, moving->segment) || !begin_again_locked(layer, moving->segment);
}

bool events_move_relock(struct cache *cache, uint64_t segment)
{
	cache_assert_locked(cache);
	for (;;) {
		struct moving moving = {.segment = segment};

		layers_foreach(cache->layers, move_layer, &moving);
		if (!moving.failed)
			return true;
		if (!space_has_segments_locked(cache, LOG_MOVE) || !wake_wait_reclaim_relock(cache))
			return false;
	}
}

bool events_zero_in_record(const struct epochs *epochs, uint32_t slot, uint64_t block, uint64_t order)
{
	for (unsigned i = epochs_find(epochs, order); i < epochs_length(epochs); i++) {
		const struct epoch_event *event = epochs_get(epochs, i);

		if (event->place.order != order)
			return false;
		if (!epoch_event_is_barrier(event) && !event->moved && block - event->block < event->blocks &&
		    segment_of(event->place.slot) == segment_of(slot) &&
		    event->place.slot + event->place.blocks >= slot)
			return true;
	}
	return false;
}
