/* A cache without a mount: what leafctl cache does, with what the pool adds.
 * cache_read_info() and cache_check() serve as they are. All of it blocks. */
#ifndef LEAFDISK_OFFLINE_CACHE_H
#define LEAFDISK_OFFLINE_CACHE_H

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
 * is a hole. FINDING as for cache_dump(). GO_ON is asked as it goes: false stops it, and the file that is being
 * made is removed. */
struct offline_dump_options {
	const char *layer; /* NULL: all */
	const char *directory;
	void (*finding)(void *opaque, const char *sentence);
	bool (*go_on)(void *opaque, uint64_t done_bytes, uint64_t total_bytes);
	void *opaque;
	bool wants_total; /* it takes another look at the cache; otherwise TOTAL_BYTES is 0 */
};
bool offline_cache_dump(const char *path, const struct offline_dump_options *options, GError **error);

/* Writes what is dirty in the cache back to the images of its pool, as a mount
 * would: until nothing is dirty, or GO_ON (NULL: yes), which is asked with the
 * dirty bytes left several times a second, returns false. What has been written
 * back by then stays so, and the rest stays in the cache. A cache that cannot be
 * written is only read, and *KEPT is true: it does not know what the images have
 * now. LAYERS: where parents may be besides the pool, or NULL. False and ERROR: how much
 * of what stays, and why. */
bool offline_cache_drain(const char *cache_path, const char *layers, bool (*go_on)(void *opaque, uint64_t dirty_bytes),
			 void *opaque, bool *kept, GError **error);

/* Writes the changes of a layer that no mount writes back, an orphan or one in doubt, to
 * its image in the pool of the cache, and forgets them. NAME: the layer's, its last part,
 * or its number. Refused where the image was written since, or that cannot be told, and where
 * the log has lost some of them, unless FORCE; FINDING as for cache_dump(). False and ERROR: it can be run again. */
bool offline_cache_adopt(const char *cache_path, const char *name, bool force,
			 void (*finding)(void *opaque, const char *sentence), void *opaque, GError **error);
/* Forgets the changes of an orphan; with FORCE those of any layer. */
bool offline_cache_purge(const char *cache_path, const char *name, bool force, GError **error);

#endif
