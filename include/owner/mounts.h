/* The mounts of a cache, by which its copies are told apart. */
#ifndef LEAFDISK_OWNER_MOUNTS_H
#define LEAFDISK_OWNER_MOUNTS_H

#include "owner/owner.h"

/* The cache's log has GENERATION, and its mounts these numbers (OWNER_MOUNTS of them): this one has that of GENERATION,
 * where it is known. */
void owner_self_set_mounts(struct owner_self *self, uint64_t generation, const uint8_t *mounts);

#endif
