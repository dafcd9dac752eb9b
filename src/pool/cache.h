/* What the disks of a pool share to use its cache. */
#ifndef LEAFDISK_POOL_CACHE_H
#define LEAFDISK_POOL_CACHE_H

#include "disk/object.h"

struct local_options {
	const struct place *pool; /* borrowed */
	const char *cache;	  /* NULL: an unlinked file */
	uint64_t cache_size;
	struct tunables *tunables; /* borrowed */
};
/* Opens the cache and starts its threads. NULL and ERROR. Blocks. */
struct local *local_new(const struct local_options *options, GError **error);
/* The tunables have changed. */
void local_tune(struct local *local);
/* What local_free() would wait for. False: what stays in the cache is not durable. */
bool local_stop(struct local *local);
/* Closes the cache; every disk that used it is gone. NULL is allowed. Blocks. */
void local_free(struct local *local);

#endif
