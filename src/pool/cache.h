/* What the disks of a pool share to use its cache. */
#ifndef LEAFDISK_POOL_CACHE_H
#define LEAFDISK_POOL_CACHE_H

#include "disk/object.h"

struct pool_cache_options {
	const struct place *pool; /* borrowed */
	const char *cache;	  /* NULL: an unlinked file */
	uint64_t cache_size;
	bool keep;		   /* the cache's file is not written */
	struct tunables *tunables; /* borrowed */
};
/* Opens the cache and starts its threads. NULL and ERROR. Blocks. */
struct pool_cache *pool_cache_new(const struct pool_cache_options *options, GError **error);
/* The tunables have changed. */
void pool_cache_tune(struct pool_cache *pool_cache);
/* What pool_cache_free() would wait for. False: what stays in the cache is not durable. */
bool pool_cache_stop(struct pool_cache *pool_cache);
/* Closes the cache; every disk that used it is gone. NULL is allowed. Blocks. */
void pool_cache_free(struct pool_cache *pool_cache);

#endif
