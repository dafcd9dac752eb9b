/* Changes of a pool's directory: what is created, renamed, removed. */
#ifndef LEAFDISK_POOL_CHANGE_H
#define LEAFDISK_POOL_CHANGE_H

#include "pool/pool.h"

struct disk_pool_change;

/* Creates an empty disk shown as NAME ("x.img" makes x.leaf) of size 0, to be
 * given its size by DISK_RESIZE. A reference, or NULL with ERROR. */
struct disk *disk_pool_create(struct disk_pool *pool, const char *name, GError **error);

/* A rename, or a removal, in three steps by one thread. The first does it on the
 * store, and blocks there; NULL with ERROR: nothing has changed (-EBUSY: open, or
 * another image depends on it). Until the third nobody else looks at the directory. */
struct disk_pool_change *disk_pool_rename(struct disk_pool *pool, const char *name, const char *new_name, bool replace,
					  GError **error);
struct disk_pool_change *disk_pool_remove(struct disk_pool *pool, const char *name, GError **error);
/* The disk that it is about; and the one that gives way to it, or NULL. Borrowed. */
struct disk *disk_pool_change_disk(const struct disk_pool_change *change);
struct disk *disk_pool_change_replaced(const struct disk_pool_change *change);
/* The second, once: from now on the pool shows it. The disk under the new name with
 * a reference; NULL: there is none. Does not block. */
struct disk *disk_pool_change_show(struct disk_pool_change *change);
/* The third. False with ERROR: it is done, and may not be durable. */
bool disk_pool_change_end(struct disk_pool_change *change, GError **error);

#endif
