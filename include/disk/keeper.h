/* Keepers: disks that nobody sees, each with a leaf that is sealed and not all on its image yet.
 *
 * What a mount, the migrator and a drain do for the leaf of a disk they do for that of its keeper:
 * batches, tries after an outage, the claim, the end. The layer is in the stacks of those on it
 * as well, so its image and its share stay open when the keeper is closed, until the last of
 * them is. A keeper is made when a leaf is sealed (disk/change.h), and where a disk is opened on
 * a sealed layer of which an earlier mount left something dirty.
 *
 * A cache has a list of its keepers, with a reference each, under the backlogs' lock. All of it
 * blocks, on threads that may wait. */
#ifndef LEAFDISK_DISK_KEEPER_H
#define LEAFDISK_DISK_KEEPER_H

#include <glib.h>

#include "disk/object.h"

/* A keeper for the first of LINKS, which are taken over, in a pool that is not read-only; not open. */
struct disk *keeper_new(GPtrArray *links, enum disk_mode mode, struct pool_cache *pool_cache,
			const struct owner_self *owner);
/* The same for the one at FIRST in LINKS, which stay the caller's, and with DISK's cache and owner. */
struct disk *keeper_new_at(const struct disk *disk, const GPtrArray *links, guint first, enum disk_mode mode);
/* On the list. False: one of its image is there already, and open; one that is being opened or closed was waited
 * for. */
bool keeper_enter(struct disk *keeper);
/* It is open, or could not be opened and is to be forgotten. */
void keeper_tell(struct disk *keeper);
/* It is closed: off the list. True: it was there, and the list's reference is the caller's. */
bool keeper_take_off(struct disk *keeper);
/* The first one, and the list's reference to it; NULL: none is left. */
struct disk *keeper_take_first(struct pool_cache *pool_cache);
/* One that keeps what is dirty of the image of LINK, with a reference; NULL: none does. */
struct disk *keeper_find(struct pool_cache *pool_cache, const struct chain_link *link);

#endif
