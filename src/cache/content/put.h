/* Filling and publishing of reserved slots. */
#ifndef LEAFDISK_CACHE_CONTENT_PUT_H
#define LEAFDISK_CACHE_CONTENT_PUT_H

#include "cache/log/data.h"

/* Copies the grant's blocks from DATA and sets their checksums. No lock. */
void content_copy(const struct log_grant *grant, const uint8_t *data);
/* Block AT of GRANT becomes its block's LIVE slot. */
void content_publish_locked(struct cache *cache, struct cache_layer *layer, const struct log_grant *grant, unsigned at,
			    unsigned flags);

#endif
