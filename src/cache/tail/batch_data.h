/* The content of a batch: out of the buffers of the log, or out of its file. */
#ifndef LEAFDISK_CACHE_TAIL_BATCH_DATA_H
#define LEAFDISK_CACHE_TAIL_BATCH_DATA_H

#include <glib.h>

#include "cache/internal.h"

struct batch_item {
	uint64_t block;
	uint64_t order;
	uint32_t slot;
	uint32_t distance; /* of the slot from the log's tail */
	uint32_t checksum;
	uint32_t place; /* in the batch's data, in blocks */
	bool lost;
};

/* Whose content it is, and who hears of blocks that are not what was put. */
struct batch_source {
	struct cache *cache;
	uint32_t layer;
	void (*lost)(void *opaque, uint64_t block); /* that is damaged; NULL: nobody */
	void *opaque;
};

/* Memory for one batch, however little of it is left later. False and ERROR: there is none. */
bool batch_init(struct cache *cache, GError **error);

/* Puts the content of ITEMS, which are in the order of their slots, each at its
 * place of DATA. -EIO when some cannot be read now, or are damaged: LOST was told of
 * each of these, and readers of the cache will hear of it too. -ENOMEM. Blocks; the slots stay as
 * they are meanwhile. */
int batch_read(const struct batch_source *source, const GArray *items, uint8_t *data);

#endif
