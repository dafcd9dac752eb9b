/* Disks that a command has open to change what they are made of. */
#ifndef LEAFDISK_POOL_CHANGERS_H
#define LEAFDISK_POOL_CHANGERS_H

#include "internal.h"

/* The disks shown as NAMES (NULL-terminated), opened for writing, in an array with room for them. All or none: false
 * and ERROR. Blocks. */
bool pool_open_to_change(struct disk_pool *pool, const char *const *names, struct disk **disks, GError **error);
void pool_close_changed(struct disk **disks, unsigned count);

#endif
