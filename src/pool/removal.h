/* Sealed images that are removed. All of it blocks. */
#ifndef LEAFDISK_POOL_REMOVAL_H
#define LEAFDISK_POOL_REMOVAL_H

#include "succession_mark.h"

/* That the sealed image NAME, with IDENTITY, of the disk whose image is OF, is to be removed: REMOVAL, which is empty,
 * and its mark. False and ERROR. */
bool removal_begin(struct disk_pool *pool, const char *of, const char *name, const uint8_t identity[CACHE_ID_BYTES],
		   struct succession *removal, GError **error);
/* The sealed image that REMOVAL says, or, where that is empty, NAME of the disk whose image is OF, is removed, with
 * what the cache has of it. Nobody stands on it, as far as the caller knows. GO_ON: see disk_discard(). False and
 * ERROR: it is as it was, and has no mark, or is removed later, which the sentence says. */
bool removal_run_locked(struct disk_pool *pool, const char *of, const char *name, struct succession *removal,
			bool (*go_on)(void *opaque), void *opaque, GError **error);
/* What of REMOVAL is not done yet. False and ERROR. */
bool removal_finish(struct disk_pool *pool, struct succession *removal, GError **error);
/* Whether the sealed image NAME, of which something may be gone, is to be removed yet. */
bool removal_awaits(const struct disk_pool *pool, const char *name);

#endif
