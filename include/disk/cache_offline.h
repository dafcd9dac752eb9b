/* A cache without a mount: what leafctl cache does, with what the pool adds.
 * cache_read_info() and cache_check() serve as they are. All of it blocks. */
#ifndef LEAFDISK_DISK_CACHE_OFFLINE_H
#define LEAFDISK_DISK_CACHE_OFFLINE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "cache/offline.h"

struct offline_cache_options {
	const char *path;
	const char *pool;    /* the directory whose cache it will be */
	uint64_t size_bytes; /* 0: as cache_create() chooses */
	bool force;
	bool preallocate;
};
/* Gives the pool its identity when it has none. */
bool offline_cache_create(const struct offline_cache_options *options, GError **error);

/* Writes DIRECTORY/NAME, a new sparse raw file, for each layer of the cache
 * that holds something, or for those called LAYER. What the cache does not have
 * is a hole. FINDING as for cache_dump(). */
bool offline_cache_dump(const char *path, const char *layer, const char *directory,
			void (*finding)(void *opaque, const char *sentence), void *opaque, GError **error);

#endif
