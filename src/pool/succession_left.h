/* What crashes left of successions (succession.h). */
#ifndef LEAFDISK_POOL_SUCCESSION_LEFT_H
#define LEAFDISK_POOL_SUCCESSION_LEFT_H

#include "internal.h"

/* At the beginning of a mount. False and ERROR: nobody can tell what there is. */
bool pool_read_left(struct disk_pool *pool, GError **error);
/* It is finished or taken back, where that can be told; the images of the rest are withheld. */
void pool_settle_left_locked(struct disk_pool *pool);

#endif
