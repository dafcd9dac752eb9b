/* The reclaim thread: empties the oldest segments and moves the tail. */
#ifndef LEAFDISK_CACHE_TAIL_RECLAIM_H
#define LEAFDISK_CACHE_TAIL_RECLAIM_H

#include "cache/internal.h"

bool reclaim_start(struct cache *cache, GError **error);
/* Ends the thread; what it has begun is left for the next mount. */
void reclaim_stop(struct cache *cache);

#endif
