/* The disks of a pool as of a look at its directory. `scanning` is held for all of these. */
#ifndef LEAFDISK_POOL_REFRESH_H
#define LEAFDISK_POOL_REFRESH_H

#include "internal.h"

/* Whether a look at so much may find anything new; counts as one. False with ERROR: that cannot be
 * told. Blocks on the store. */
bool pool_look_is_due_locked(struct disk_pool *pool, enum scan_extent extent, GError **error);
/* Looks, and shows what is there, whatever the directory's time says. False with ERROR: as it was.
 * Blocks on the store. */
bool pool_look_locked(struct disk_pool *pool, enum scan_extent extent, GError **error);
/* What is to be shown once the files CHANGED (NULL-terminated) are as they are now;
 * NULL: that cannot be told, and the next look finds it. Blocks on the store. */
struct scan_result *pool_look_at_locked(struct disk_pool *pool, const char *const *changed);
/* Shows RESULT, and frees it. */
void pool_show_locked(struct disk_pool *pool, struct scan_result *result);

#endif
