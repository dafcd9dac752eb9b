/* Whether the cache's file still has a name. */
#ifndef LEAFDISK_CACHE_REMOVED_H
#define LEAFDISK_CACHE_REMOVED_H

#include "internal.h"

/* When the file is to be looked at; UINT64_MAX: not any more. */
uint64_t removed_next_ns_locked(const struct cache *cache);
/* The reclaim thread, when that has come. */
void removed_look_relock(struct cache *cache);

#endif
