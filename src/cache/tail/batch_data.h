/* The content of a batch: out of the buffers of the log, or out of its file. */
#ifndef LEAFDISK_CACHE_TAIL_BATCH_DATA_H
#define LEAFDISK_CACHE_TAIL_BATCH_DATA_H

#include <glib.h>

#include "cache/internal.h"

struct batch_item {
	uint64_t block;
	uint32_t slot;
	uint32_t order; /* in the log */
	uint32_t checksum;
	uint32_t place; /* in the batch's data, in blocks */
	bool lost;
};

/* Whose content it is, and who hears of blocks that cannot be read. */
struct batch_source {
	struct cache *cache;
	uint32_t layer;
	void (*lost)(void *opaque, uint64_t block); /* NULL: nobody */
	void *opaque;
};

/* Puts the content of ITEMS, which are in the order of the log, each at its
 * place of DATA. -EIO when some cannot be read or are damaged: LOST was told of
 * each, and readers of the cache will hear of it too. Blocks; the slots stay as
 * they are meanwhile. */
int batch_read(const struct batch_source *source, const GArray *items, uint8_t *data);

#endif
