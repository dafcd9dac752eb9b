/* What snapshots of this mount that failed have left. */
#ifndef LEAFDISK_POOL_SUCCESSION_FAILED_H
#define LEAFDISK_POOL_SUCCESSION_FAILED_H

#include "succession_mark.h"

/* SUCCESSION, of DISK, could not be undone now; it is taken over. */
void pool_keep_failed_locked(struct disk_pool *pool, const struct disk *disk, struct succession *succession);
/* They are undone, where that can be done now. Blocks. */
void pool_take_back_failed_locked(struct disk_pool *pool);
/* One of DISK is not undone. */
bool pool_has_failed_locked(struct disk_pool *pool, const struct disk *disk);

#endif
