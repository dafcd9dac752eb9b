/* Which disk's it is what is dirty of a pool. */
#ifndef LEAFDISK_POOL_DIRTY_H
#define LEAFDISK_POOL_DIRTY_H

#include "internal.h"

/* Of DISKS, the one whose image DIRTY is of; of copies that with its name; or NULL. */
struct disk *pool_find_dirty(GPtrArray *disks, const struct cache_layer_dirty *dirty);
/* The same, or of the sealed image that it is of a keeper. disk_unref. Blocks. */
struct disk *pool_find_or_keep(struct disk_pool *pool, GPtrArray *disks, const struct cache_layer_dirty *dirty);
/* Why what is DIRTY of no disk of POOL stays in the cache, and what is to be done. g_free. */
char *pool_nameless_text(struct disk_pool *pool, const struct cache_layer_dirty *dirty);

#endif
