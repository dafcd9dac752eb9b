/* What "full" means. Nothing here changes anything. */
#include "space.h"

#define LOW_WATER_MIN 5
#define LOW_WATER_MAX 64
#define LOW_WATER_SHARE 16

/* Free segments that must be left over. */
static const uint64_t reserved_segments[] = {[LOG_PUT] = 3, [LOG_ENTRY] = 2, [LOG_CLAIM] = 1, [LOG_MOVE] = 0};

/* ---- Limits -------------------------------------------------------------- */

uint64_t space_free_segments_locked(const struct cache *cache)
{
	uint64_t ring = cache->ring_segments;

	cache_assert_locked(cache);
	return (cache->tail_segment + ring - segment_of(cache->log.head_slot) - 1) % ring;
}

uint64_t space_log_blocks_locked(const struct cache *cache)
{
	cache_assert_locked(cache);
	return (cache->ring_segments - 4) * SEGMENT_DATA_BLOCKS;
}

uint64_t space_pinned_max_locked(const struct cache *cache)
{
	cache_assert_locked(cache);
	return (cache->ring_segments - 4) * SEGMENT_DATA_BLOCKS * 3 / 4;
}

uint64_t space_dirty_max_locked(const struct cache *cache)
{
	cache_assert_locked(cache);
	return cache->dirty_max ? cache->dirty_max : space_log_blocks_locked(cache);
}

bool space_takes_dirty_locked(const struct cache *cache)
{
	cache_assert_locked(cache);
	return (!cache->dirty_max || cache->dirty_blocks < cache->dirty_max) &&
	       cache->dirty_zeros < LAYER_ZERO_RANGES_MAX;
}

/* ---- Room to append ------------------------------------------------------ */

bool space_has_segments_locked(const struct cache *cache, enum log_purpose purpose)
{
	cache_assert_locked(cache);
	return space_free_segments_locked(cache) > reserved_segments[purpose];
}

bool space_is_scarce_locked(const struct cache *cache)
{
	cache_assert_locked(cache);
	return !space_has_segments_locked(cache, LOG_ENTRY);
}

bool space_has_room_locked(const struct cache *cache, enum log_purpose purpose)
{
	const struct log *log = &cache->log;
	bool bound = cache->segments[segment_of(log->head_slot)].buffer;

	cache_assert_locked(cache);
	if (cache->state != CACHE_ACTIVE || !space_has_segments_locked(cache, purpose) ||
	    (cache->owes && purpose < LOG_CLAIM))
		return false;
	if (log->open)
		return true;
	if (cache->growing && segment_of(log->head_slot) == cache->ring_segments - 1)
		return false;
	return log->free_records > 0 && (bound || log->free_buffer_count > 0);
}

/* ---- Reclaim ------------------------------------------------------------- */

uint64_t space_low_water_locked(const struct cache *cache)
{
	cache_assert_locked(cache);
	return CLAMP(cache->ring_segments / LOW_WATER_SHARE, LOW_WATER_MIN, LOW_WATER_MAX);
}

/* Segments in use and not emptied, without the head. */
static uint64_t full_segments_locked(const struct cache *cache)
{
	uint64_t ring = cache->ring_segments;

	cache_assert_locked(cache);
	return (segment_of(cache->log.head_slot) + ring - cache->reclaim.segment) % ring;
}

bool space_has_victim_locked(const struct cache *cache)
{
	uint64_t next = (cache->reclaim.segment + 1) % cache->ring_segments;

	cache_assert_locked(cache);
	return full_segments_locked(cache) > 0 && cache->segments[next].sequence != 0 &&
	       cache->segments[cache->reclaim.segment].dirty == 0;
}

bool space_is_blocked_locked(const struct cache *cache)
{
	cache_assert_locked(cache);
	return space_free_segments_locked(cache) < 2 * space_low_water_locked(cache) &&
	       full_segments_locked(cache) > 0 && cache->segments[cache->reclaim.segment].dirty > 0;
}

/* Moving them would free next to nothing. */
static bool fills_log_locked(const struct cache *cache)
{
	cache_assert_locked(cache);
	return cache->pinned_blocks > full_segments_locked(cache) * SEGMENT_DATA_BLOCKS * 3 / 4;
}

/* Segments that are emptied will be free. */
bool space_is_hopeless_locked(const struct cache *cache)
{
	cache_assert_locked(cache);
	return !space_has_segments_locked(cache, LOG_PUT) && cache->reclaim.segment == cache->tail_segment &&
	       fills_log_locked(cache) && cache->dirty_blocks == 0 && cache->dirty_zeros == 0;
}

bool space_wants_reclaim_locked(const struct cache *cache)
{
	cache_assert_locked(cache);
	return cache->state == CACHE_ACTIVE && space_free_segments_locked(cache) < space_low_water_locked(cache) &&
	       !fills_log_locked(cache) && space_has_victim_locked(cache);
}
