/* What of a segment is dirty besides its blocks, and whose that is. */
#ifndef LEAFDISK_CACHE_TAIL_EVENTS_H
#define LEAFDISK_CACHE_TAIL_EVENTS_H

#include "cache/internal.h"

/* All that is dirty in SEGMENT is of layers whose images do not take it: it is moved, as
 * nobody else makes room there. */
bool events_segment_is_stuck_locked(struct cache *cache, uint64_t segment);
/* Zero ranges and barriers, and what is said of batches that may be on their images, go
 * from SEGMENT to the head. False: no room, or the reclaim thread is to end. */
bool events_move_relock(struct cache *cache, uint64_t segment);
/* BLOCK, of ORDER in SLOT, is zero at the end of its record. */
bool events_zero_in_record(const struct epochs *epochs, uint32_t slot, uint64_t block, uint64_t order);

#endif
