/* What a pool's directory lists. */
#ifndef LEAFDISK_POOL_LISTING_H
#define LEAFDISK_POOL_LISTING_H

#include <stdbool.h>
#include <sys/types.h>

#include "core/place.h"

/* INODE is of the name itself, which may be a link's. */
typedef void listing_each_fn(void *opaque, const char *name, ino_t inode);

/* Calls EACH for all names but hidden ones, in no order. *DEVICE, set before, is the directory's: an inode is
 * of a file there, unless something is mounted on that. Blocks. */
bool listing_read(const struct place *directory, dev_t *device, listing_each_fn *each, void *opaque, GError **error);

#endif
