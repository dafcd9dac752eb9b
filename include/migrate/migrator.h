/* The migrator: writes what is dirty in the cache back to the pool. */
#ifndef LEAFDISK_MIGRATE_MIGRATOR_H
#define LEAFDISK_MIGRATE_MIGRATOR_H

#include <glib.h>

struct pool_cache;
struct migrator;

/* Starts its thread. NULL and ERROR. */
struct migrator *migrator_new(struct pool_cache *pool_cache, GError **error);
/* Ends the thread, when its batch is done. NULL is allowed. */
void migrator_free(struct migrator *migrator);
/* Whoever waits, for room, for a drain or before a gate, looks again. Does not block
 * for long. */
void migrator_look_again(struct pool_cache *pool_cache);

#endif
