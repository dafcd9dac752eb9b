/* Putting a batch from the cache onto its image. */
#ifndef LEAFDISK_DISK_APPLY_H
#define LEAFDISK_DISK_APPLY_H

#include <glib.h>

#include "aio/queue.h"
#include "cache/cache.h"
#include "image/image.h"

/* One thread's. */
struct applier;
struct applier *applier_new(GError **error);
void applier_free(struct applier *applier); /* NULL is allowed */

/* All of BATCH or none, also across a crash, where the image can promise that
 * (image_apply), and durable. 0 or -errno; then nobody knows what the image has
 * of it, and the same batch can be tried again. Blocks. */
int applier_run(struct applier *applier, struct image *image, const struct cache_batch *batch);

#endif
