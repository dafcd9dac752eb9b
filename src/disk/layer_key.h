/* How the cache knows an image again. */
#ifndef LEAFDISK_DISK_LAYER_KEY_H
#define LEAFDISK_DISK_LAYER_KEY_H

#include "cache/cache.h"
#include "chain.h"

/* KEY of LINK's image as it is now; NAME borrowed from LINK. False when it
 * cannot be looked at, or when nothing would show that it was changed by other
 * hands (a raw block device): such an image is not to be found again. Blocks. */
bool layer_key_of(const struct chain_link *link, struct cache_layer_key *key);

#endif
