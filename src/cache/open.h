/* Opening a cache, in this order; each false with ERROR. */
#ifndef LEAFDISK_CACHE_OPEN_H
#define LEAFDISK_CACHE_OPEN_H

#include "internal.h"

/* The storage is open: cache->super is what is in it, or what is to be in a
 * blank one. */
bool open_super(struct cache *cache, const struct cache_options *options, GError **error);
/* Memory, and in it what the log holds. */
bool open_log(struct cache *cache, GError **error);
/* The file has its size, and a durable superblock with a higher generation. */
bool open_generation(struct cache *cache, GError **error);

#endif
