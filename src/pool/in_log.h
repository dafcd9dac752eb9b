/* Snapshots and forks of ephemeral disks: nothing in the pool changes. */
#ifndef LEAFDISK_POOL_IN_LOG_H
#define LEAFDISK_POOL_IN_LOG_H

#include "internal.h"

/* *IN_LOG: the disks shown as NAMES are ephemeral. False and ERROR: some are, and others are not. */
bool pool_are_in_log(struct disk_pool *pool, const char *const *names, bool *in_log, GError **error);
/* As disk_pool_snapshot() and disk_pool_fork(), of ephemeral disks. */
bool pool_save(struct disk_pool *pool, const char *const *names, const char *tag, bool (*go_on)(void *opaque),
	       void *opaque, GError **error);
bool pool_fork_in_log(struct disk_pool *pool, const char *name, const char *const *forks, bool (*go_on)(void *opaque),
		      void *opaque, GError **error);
/* What has been saved of DISK, as disk_pool_snapshots() tells it. */
GPtrArray *pool_list_saved(struct disk *disk, GDestroyNotify free_snapshot);

#endif
