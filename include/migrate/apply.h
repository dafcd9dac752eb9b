/* Putting a batch from the cache onto its image. */
#ifndef LEAFDISK_MIGRATE_APPLY_H
#define LEAFDISK_MIGRATE_APPLY_H

#include "cache/writeback.h"
#include "image/image.h"

/* All of BATCH or none, also across a crash, where the image can promise that
 * (image_apply), and durable. 0 or -errno; then nobody knows what the image has
 * of it, and the same batch can be tried again. Blocks. */
int batch_apply(struct image *image, const struct cache_batch *batch);

/* What RESULT says of the store: it is full, for us. */
bool apply_found_no_room(int result);
/* The same for a store that has no room for all of BATCH at once: in pieces, as
 * many as find room; an error if one does not. Durable. */
int batch_apply_in_pieces(struct image *image, const struct cache_batch *batch);

#endif
