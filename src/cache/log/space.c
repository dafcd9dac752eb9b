/* What "full" means. Nothing here changes anything.
 *
 * What is dirty is bounded for all layers together: blocks, by max_dirty; slots of the
 * log; and zero ranges. What is dirty goes to the images when room gets short, so one
 * layer may have seven times what it leaves, of all but a part that is kept back. Of one
 * whose image does not take it nothing goes: such layers share by the rule of
 * core/shares.h, which leaves something to others however many they are, and so does
 * everybody what is kept back. Of the log they have less than of the rest, as reclaim
 * moves what they have there out of its way, again and again. */
#include "space.h"

#include "core/shares.h"

#define LOW_WATER_MIN 5
#define LOW_WATER_MAX 64
#define LOW_WATER_SHARE 16

/* Free segments that must be left over, apart from room_to_move_locked(). The last one is for
 * moves alone: a batch is one of many, and each move is needed. */
static const uint64_t reserved_segments[] = {[LOG_PUT] = 3, [LOG_ENTRY] = 2, [LOG_CLAIM] = 1, [LOG_BATCH] = 1};

/* A full segment has up to so many slots more where it is moved to: each block has a word more
 * in its record, and records begin anew in each segment. */
#define MOVE_SLOTS_MORE 4

/* ---- Limits -------------------------------------------------------------- */

uint64_t space_free_segments_locked(const struct cache *cache)
{
	uint64_t ring = cache->ring_segments;

	cache_assert_locked(cache);
	return (cache->tail_segment + ring - segment_of(cache->log.head_slot) - 1) % ring;
}

/* All but the head and what puts leave over when these are full. */
uint64_t space_log_blocks_locked(const struct cache *cache)
{
	uint64_t segments = cache->ring_segments - 4;

	cache_assert_locked(cache);
	return (segments - segments * MOVE_SLOTS_MORE / CACHE_SEGMENT_BLOCKS) * SEGMENT_DATA_BLOCKS;
}

uint64_t space_pinned_max_locked(const struct cache *cache)
{
	cache_assert_locked(cache);
	return space_log_blocks_locked(cache) * 3 / 4;
}

uint64_t space_dirty_max_locked(const struct cache *cache)
{
	cache_assert_locked(cache);
	return cache->dirty_max ? cache->dirty_max : space_log_blocks_locked(cache);
}

/* ---- Shares -------------------------------------------------------------- */

/* Of what a layer leaves it may have so many times as much. */
#define SHARE_OF_LEFT 7
/* A part in so many is kept back. */
#define KEPT_BACK 16

/* Something that all layers use: what one has of it, and all together. */
struct use {
	uint64_t held, taken, limit;
};

static struct use use_of_blocks_locked(const struct cache_layer *layer)
{
	const struct cache *cache = layer->cache;
	uint64_t limit = MIN(space_dirty_max_locked(cache), space_log_blocks_locked(cache));

	cache_assert_locked(cache);
	return cache->dirty_max ? (struct use){layer->pinned_blocks, cache->dirty_blocks, limit}
				: (struct use){0, 0, limit};
}

static struct use use_of_slots_locked(const struct cache_layer *layer)
{
	const struct cache *cache = layer->cache;
	uint64_t pinned = cache->pinned_blocks + cache->pinned_pending;
	uint64_t blocks = space_log_blocks_locked(cache);

	cache_assert_locked(cache);
	return (struct use){layer->epochs->dirty, cache->dirty_slots + pinned, layer->stuck ? blocks / 4 * 3 : blocks};
}

static struct use use_of_zeros_locked(const struct cache_layer *layer)
{
	cache_assert_locked(layer->cache);
	return (struct use){layer->epochs->zeros, layer->cache->dirty_zeros, LAYER_ZERO_RANGES_MAX};
}

static bool allows(struct use use, bool stuck)
{
	uint64_t limit = use.limit - use.limit / KEPT_BACK;

	return shares_allow(use.held, use.taken, use.limit) ||
	       (!stuck && use.taken < limit && use.held <= SHARE_OF_LEFT * (limit - use.taken));
}

bool space_takes_dirty_locked(const struct cache_layer *layer)
{
	cache_assert_locked(layer->cache);
	return !layer->epochs ||
	       (allows(use_of_blocks_locked(layer), layer->stuck) && allows(use_of_slots_locked(layer), layer->stuck) &&
		allows(use_of_zeros_locked(layer), layer->stuck));
}

unsigned space_share_percent_locked(const struct cache_layer *layer)
{
	struct use use = use_of_blocks_locked(layer);
	uint64_t left = use.limit - MIN(use.taken - use.held, use.limit);

	cache_assert_locked(layer->cache);
	if (!space_takes_dirty_locked(layer))
		return 100;
	return (unsigned)(use.held * 100 / MAX(left * SHARE_OF_LEFT / (SHARE_OF_LEFT + 1), 1));
}

/* ---- Room to append ------------------------------------------------------ */

/* Segments that moving all that moves takes more than it frees: what can be freed may stand
 * behind it. */
static uint64_t room_to_move_locked(const struct cache *cache)
{
	uint64_t moves = cache->dirty_slots + cache->pinned_blocks + cache->pinned_pending;

	cache_assert_locked(cache);
	return moves / SEGMENT_DATA_BLOCKS * MOVE_SLOTS_MORE / CACHE_SEGMENT_BLOCKS;
}

/* A block more, and another record: the head does not leave its segment. */
static bool head_has_room_locked(const struct cache *cache)
{
	const struct log_record *record = cache->log.open;
	unsigned used = block_in_segment(cache->log.head_slot) + (record ? record->blocks : 0);

	cache_assert_locked(cache);
	return used + 3 <= SEGMENT_DATA_BLOCKS;
}

bool space_has_segments_locked(const struct cache *cache, enum log_purpose purpose)
{
	uint64_t free = space_free_segments_locked(cache);

	cache_assert_locked(cache);
	if (purpose == LOG_MOVE)
		return free > 0 || head_has_room_locked(cache);
	return free > reserved_segments[purpose] + room_to_move_locked(cache);
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
	return CLAMP(cache->ring_segments / LOW_WATER_SHARE, LOW_WATER_MIN, LOW_WATER_MAX) + room_to_move_locked(cache);
}

/* Segments in use and not emptied, without the head. */
static uint64_t full_segments_locked(const struct cache *cache)
{
	uint64_t ring = cache->ring_segments;

	cache_assert_locked(cache);
	return (segment_of(cache->log.head_slot) + ring - cache->reclaim.segment) % ring;
}

static bool has_oldest_locked(const struct cache *cache)
{
	uint64_t next = (cache->reclaim.segment + 1) % cache->ring_segments;

	cache_assert_locked(cache);
	return full_segments_locked(cache) > 0 && cache->segments[next].sequence != 0;
}

bool space_has_victim_locked(const struct cache *cache)
{
	cache_assert_locked(cache);
	return has_oldest_locked(cache) && cache->segments[cache->reclaim.segment].dirty == 0;
}

bool space_may_move_dirty_locked(const struct cache *cache)
{
	cache_assert_locked(cache);
	return cache->state == CACHE_ACTIVE && space_free_segments_locked(cache) < space_low_water_locked(cache) &&
	       has_oldest_locked(cache) && cache->segments[cache->reclaim.segment].dirty > 0;
}

bool space_is_blocked_locked(const struct cache *cache)
{
	cache_assert_locked(cache);
	return space_free_segments_locked(cache) < 2 * space_low_water_locked(cache) &&
	       full_segments_locked(cache) > 0 && cache->segments[cache->reclaim.segment].dirty > 0;
}

bool space_frees_locked(const struct cache *cache, uint64_t stuck)
{
	uint64_t segments = full_segments_locked(cache);

	cache_assert_locked(cache);
	return cache->pinned_blocks + stuck <= segments * (SEGMENT_DATA_BLOCKS - MOVE_SLOTS_MORE - 1);
}

/* Moving them would free next to nothing. */
static bool fills_log_locked(const struct cache *cache)
{
	cache_assert_locked(cache);
	return !space_frees_locked(cache, 0);
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
