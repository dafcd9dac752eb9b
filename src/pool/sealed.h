/* Sealed layers of which an earlier mount left something in the cache. */
#ifndef LEAFDISK_POOL_SEALED_H
#define LEAFDISK_POOL_SEALED_H

#include "internal.h"

/* A new keeper of the sealed layer that DIRTY is of; NULL: the pool has none. Blocks. */
struct disk *pool_find_sealed(struct disk_pool *pool, const struct cache_layer_dirty *dirty);

#endif
