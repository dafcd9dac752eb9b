/* Where a batch ends, and how the log comes to say so.
 *
 * What the log needs of a batch never depends on room in it: the reserve (log/space.c)
 * would not last for a record or two of each of thousands of layers that have a block
 * each in the oldest segments, before the first of these is empty. So where room is
 * scarce the layers share records: who begins a batch fills the record up with
 *   - MIGRATED of the batches that are done (content/dirty.c), and
 *   - the end of the next batch of as many other layers, those with blocks in the
 *     oldest segment first; their batches then begin without a word.
 * One that is refused ends sooner, and so do those that were begun ahead: the next
 * images are likely to refuse theirs as well, where the pool is full.
 * That is some 50 layers a record, in whichever order they migrate. */
#include "begin.h"

#include "cache/content/dirty.h"
#include "cache/log/entry.h"
#include "cache/log/log.h"
#include "cache/log/space.h"

/* Of a record: LAST, a BARRIER and a MIGRATE, in words of one entry. */
#define BEGIN_WORDS 4

/* ---- Where a batch ends --------------------------------------------------- */

static bool is_due(const struct epochs *epochs, const struct epoch_event *event)
{
	return epochs->begun && event->place.order <= epochs->begun_place.order;
}

/* A later end would be another word of the log. */
static bool keeps_end_locked(const struct cache *cache, const struct epochs *epochs)
{
	cache_assert_locked(cache);
	return epochs->begun && epochs->begun_logged && space_is_scarce_locked(cache);
}

static bool choose_end_locked(const struct cache_layer *layer, const struct cache_batch_limits *limits,
			      struct epoch_range *range)
{
	const struct epochs *epochs = layer->epochs;
	bool found = epochs->begun, keeps = keeps_end_locked(layer->cache, epochs);
	unsigned zeros = 0;

	cache_assert_locked(layer->cache);
	*range = (struct epoch_range){
		.end = epochs->begun_place,
		.put = epochs->done,
		.bound = epochs->begun && !epochs->begun_ahead,
		.bound_place = epochs->begun_place,
	};
	for (unsigned i = 0; i < epochs_length(epochs); i++) {
		const struct epoch_event *event = epochs_get(epochs, i);
		bool due = is_due(epochs, event);

		if (!epoch_event_is_barrier(event)) {
			zeros++;
			continue;
		}
		if (found && !due &&
		    (keeps || event->put - epochs->done > limits->data_blocks || zeros > limits->extents / 2))
			break;
		range->put = event->put;
		if (!due)
			range->end = event->place;
		found = true;
	}
	return found;
}

/* ---- What the log says ---------------------------------------------------- */

/* A batch that is tried again, however often, takes no more of the log. */
static bool log_begin_locked(struct cache_layer *layer, struct epoch_place end)
{
	struct epochs *epochs = layer->epochs;
	struct cache *cache = layer->cache;
	bool active = cache->state == CACHE_ACTIVE;

	cache_assert_locked(layer->cache);
	if (epochs->begun && epochs->begun_logged && epoch_place_equal(epochs->begun_place, end))
		return true;
	if (active && !log_migrate_locked(layer, LOG_BATCH, CACHE_ENTRY_MIGRATE, end))
		return false;
	epochs->begun = true;
	epochs->begun_logged = active;
	epochs->begun_place = end;
	layer->reached = MAX(layer->reached, end.order);
	return true;
}

/* A barrier that it ends an epoch with is in the open record: see cache_dirty_cut_locked(). */
static bool begin_locked(struct cache_layer *layer, const struct cache_batch_limits *limits, struct epoch_range *range)
{
	cache_assert_locked(layer->cache);
	if (!choose_end_locked(layer, limits, range) &&
	    (!limits->cut || !cache_dirty_cut_locked(layer, LOG_BATCH) || !choose_end_locked(layer, limits, range)))
		return false;
	return log_begin_locked(layer, range->end);
}

/* ---- Smaller -------------------------------------------------------------- */

static const struct cache_batch_limits smallest = {0};

/* The image has nothing of the batch that was begun: it may end sooner, but not before
 * BOUND_PLACE. */
static bool shrink_locked(struct cache_layer *layer, bool bound, struct epoch_place bound_place)
{
	struct epochs *epochs = layer->epochs;
	struct epoch_place end = epochs->begun_place;
	struct epoch_range next;

	cache_assert_locked(layer->cache);
	epochs->begun = bound;
	epochs->begun_place = bound_place;
	if (layer->cache->state == CACHE_ACTIVE && choose_end_locked(layer, &smallest, &next) &&
	    !epoch_place_equal(next.end, end) && log_migrate_locked(layer, LOG_BATCH, CACHE_ENTRY_MIGRATE, next.end)) {
		epochs->begun = epochs->begun_logged = true;
		epochs->begun_place = next.end;
		return true;
	}
	epochs->begun = true;
	epochs->begun_place = end;
	return false;
}

/* ---- Ahead ---------------------------------------------------------------- */

struct ahead {
	const struct cache_batch_limits *limits;
	const struct log_record *record;
	bool oldest; /* only who has blocks in the oldest segment */
};

static bool fits_locked(const struct cache *cache, const struct log_record *record)
{
	cache_assert_locked(cache);
	return record && cache->log.open == record && cache_record_room(log_header_of(record)) >= BEGIN_WORDS;
}

static bool is_oldest_locked(const struct cache *cache, const struct epochs *epochs)
{
	uint32_t end = (uint32_t)(cache->reclaim.segment * CACHE_SEGMENT_BLOCKS + CACHE_SEGMENT_BLOCKS - 1);

	cache_assert_locked(cache);
	return slot_distance_locked(cache, epochs->first) <= slot_distance_locked(cache, end);
}

static void begin_ahead(void *opaque, struct cache_layer *layer)
{
	const struct ahead *ahead = opaque;
	struct epochs *epochs = layer->epochs;
	struct epoch_range range;

	if (layer->opens == 0 || !epochs || epochs_is_empty(epochs) || epochs->owes_barrier ||
	    !fits_locked(layer->cache, ahead->record) || (ahead->oldest && !is_oldest_locked(layer->cache, epochs)))
		return;
	if (!epochs->begun)
		epochs->begun_ahead = begin_locked(layer, ahead->limits, &range);
	else if (epochs->begun_ahead && ahead->limits == &smallest)
		(void)shrink_locked(layer, false, epochs->begun_place);
}

static void fill_record_locked(struct cache *cache, const struct cache_batch_limits *limits)
{
	struct ahead ahead = {.limits = limits, .oldest = true};

	cache_assert_locked(cache);
	if (!cache->log.open)
		return;
	cache_dirty_pay_locked(cache, LOG_BATCH);
	ahead.record = cache->log.open;
	layers_foreach(cache->layers, begin_ahead, &ahead);
	ahead.oldest = false;
	if (fits_locked(cache, ahead.record))
		layers_foreach(cache->layers, begin_ahead, &ahead);
}

/* ---- A batch begins ------------------------------------------------------- */

/* Nothing that is in the batch is being copied any more, and what can be is
 * durable; a suspended cache has it in memory, and the answer is false. */
static bool settle_relock(struct cache *cache, uint64_t sequence)
{
	struct list *node;
	bool durable;

	cache_assert_locked(cache);
	log_flush_locked(cache);
	durable = log_wait_durable_relock(cache, sequence) == 0;
	cache->log.settling++;
	while ((node = list_first(&cache->log.building)) &&
	       container_of(node, struct log_record, link)->sequence <= sequence)
		lock_wait(&cache->lock, &cache->changed);
	cache->log.settling--;
	return durable;
}

bool begin_batch_relock(struct cache_layer *layer, const struct cache_batch_limits *limits, struct epoch_range *range)
{
	struct cache *cache = layer->cache;
	struct epochs *epochs = layer->epochs;
	bool begun;

	cache_assert_locked(layer->cache);
	if (!epochs || epochs_is_empty(epochs))
		return false;
	begun = begin_locked(layer, limits, range);
	if (begun && space_is_scarce_locked(cache))
		fill_record_locked(cache, limits);
	log_close_record_locked(cache);
	if (!begun)
		return false;
	epochs->begun_ahead = false;
	range->durable = settle_relock(cache, cache->log.next_sequence - 1) && epochs->begun_logged;
	return layer->epochs == epochs && epochs->begun;
}

bool begin_smaller_locked(struct cache_layer *layer, const struct epoch_range *range)
{
	cache_assert_locked(layer->cache);
	layer->epochs->begun_ahead = false;
	layer->epochs->begun_place = range->end;
	if (!shrink_locked(layer, range->bound, range->bound_place))
		return false;
	if (space_is_scarce_locked(layer->cache))
		fill_record_locked(layer->cache, &smallest);
	return true;
}
