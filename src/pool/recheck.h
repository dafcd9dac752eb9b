/* Looks at what is known of a pool's images, for those at what is new alone. */
#ifndef LEAFDISK_POOL_RECHECK_H
#define LEAFDISK_POOL_RECHECK_H

#include "internal.h"

/* After a look. `scanning` is held. Does not block. */
void pool_recheck_locked(struct disk_pool *pool);
/* Waits until no thread does that any more. */
void pool_stop_rechecking(struct disk_pool *pool);

#endif
