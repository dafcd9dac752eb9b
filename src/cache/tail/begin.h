/* Where a batch ends, and that the log says so. */
#ifndef LEAFDISK_CACHE_TAIL_BEGIN_H
#define LEAFDISK_CACHE_TAIL_BEGIN_H

#include "cache/internal.h"
#include "cache/writeback.h"

struct epoch_range {
	struct epoch_place end;
	uint64_t put; /* epochs.put at END */
	bool durable; /* the log says so, also after a crash */
	/* What the image may have had before this batch: epochs.begun then. */
	bool bound;
	struct epoch_place bound_place;
};

/* In blocks from the tail on: what is before PLACE has a smaller number. */
static inline uint64_t place_distance_locked(const struct cache *cache, struct epoch_place place)
{
	uint64_t tail = cache->tail_segment * CACHE_SEGMENT_BLOCKS;

	cache_assert_locked(cache);
	return cache_slot_distance(tail, place.slot, cache->ring_segments) + 1 + place.blocks;
}
static inline uint64_t slot_distance_locked(const struct cache *cache, uint32_t slot)
{
	cache_assert_locked(cache);
	return cache_slot_distance(cache->tail_segment * CACHE_SEGMENT_BLOCKS, slot, cache->ring_segments);
}

/* RANGE is LAYER's next batch: durably begun, and nothing in it is being copied. False: no
 * epoch is complete, there is no room, or the layer was given up. */
bool begin_batch_relock(struct cache_layer *layer, const struct cache_batch_limits *limits, struct epoch_range *range);
/* The image does not have RANGE: the next batch is the smallest that there is. False:
 * RANGE is that, or there is no room. */
bool begin_smaller_locked(struct cache_layer *layer, const struct epoch_range *range);

#endif
