/* What images of a pool, and sealed layers that are not complete, remember of their children. All of it blocks. */
#ifndef LEAFDISK_POOL_CHILDREN_H
#define LEAFDISK_POOL_CHILDREN_H

#include "internal.h"

/* The image of PARENT, which LAYER (NULL: not open) is of, remembers the child UUID at PATH. False and ERROR. */
bool pool_add_child(struct layer *layer, const struct chain_link *parent, const uint8_t uuid[IMAGE_UUID_BYTES],
		    const char *path, GError **error);

/* The image of PARENT does not remember the child UUID any more, which is gone. Where that cannot be noted it does. */
void pool_forget_child(struct disk_pool *pool, const struct chain_link *parent, const uint8_t uuid[IMAGE_UUID_BYTES]);

#endif
