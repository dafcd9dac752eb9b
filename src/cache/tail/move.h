/* Emptying one segment; reclaim.c decides when. */
#ifndef LEAFDISK_CACHE_TAIL_MOVE_H
#define LEAFDISK_CACHE_TAIL_MOVE_H

#include "cache/internal.h"

/* Moves what is worth it out of SEGMENT and empties it. The number of blocks moved is
 * added to *MOVED. False: not finished (no room to move to, or the thread is to end). */
bool move_out_of_segment(struct cache *cache, uint64_t segment, unsigned *moved);

#endif
