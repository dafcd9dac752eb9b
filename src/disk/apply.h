/* Putting a batch from the cache onto its image. */
#ifndef LEAFDISK_DISK_APPLY_H
#define LEAFDISK_DISK_APPLY_H

#include "cache/cache.h"
#include "image/image.h"

/* All of BATCH or none, also across a crash, where the image can promise that
 * (image_apply), and durable. 0 or -errno; then nobody knows what the image has
 * of it, and the same batch can be tried again. Blocks. */
int batch_apply(struct image *image, const struct cache_batch *batch);

#endif
