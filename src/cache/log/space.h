/* What "full" means: pure predicates on the log's room, for whoever appends, waits or
 * reclaims. The lock is held. */
#ifndef LEAFDISK_CACHE_LOG_SPACE_H
#define LEAFDISK_CACHE_LOG_SPACE_H

#include "cache/internal.h"

/* Segments that the log has not entered (invariant 4). */
uint64_t space_free_segments_locked(const struct cache *cache);
/* What puts may fill, in blocks; the log keeps some more for itself. */
uint64_t space_log_blocks_locked(const struct cache *cache);
/* The most blocks that may be pinned, and dirty. */
uint64_t space_pinned_max_locked(const struct cache *cache);
uint64_t space_dirty_max_locked(const struct cache *cache);
/* One more dirty block, or zero range, of LAYER is within the limits of all layers, and
 * leaves others what is theirs. */
bool space_takes_dirty_locked(const struct cache_layer *layer);
/* How much LAYER, which is written back, has of what it may have. */
unsigned space_share_percent_locked(const struct cache_layer *layer);

/* Enough segments are free for PURPOSE. */
bool space_has_segments_locked(const struct cache *cache, enum log_purpose purpose);
/* What is left is for what makes room, and none of that is to be wasted. */
bool space_is_scarce_locked(const struct cache *cache);
/* A reservation for PURPOSE might succeed. */
bool space_has_room_locked(const struct cache *cache, enum log_purpose purpose);

/* Fewer free segments than this are to be made more. */
uint64_t space_low_water_locked(const struct cache *cache);
/* The oldest segment may be emptied: nothing in it is dirty, and where the tail
 * would then be is known. */
bool space_has_victim_locked(const struct cache *cache);
/* The reclaim thread has something to do. */
bool space_wants_reclaim_locked(const struct cache *cache);
/* Emptying segments frees something where STUCK slots of dirty blocks move as well as
 * what is pinned. */
bool space_frees_locked(const struct cache *cache, uint64_t stuck);
/* The reclaim thread might make room by moving what is dirty in the oldest segment. */
bool space_may_move_dirty_locked(const struct cache *cache);
/* Room gets short, and what is dirty in the oldest segment keeps it. */
bool space_is_blocked_locked(const struct cache *cache);
/* There is no room and never will be: pinned blocks fill the log, orphans. */
bool space_is_hopeless_locked(const struct cache *cache);

#endif
