/* Which slot is next, and the reserve of slots for the zero list. */
#ifndef LEAFDISK_IMAGE_LEAF_SPARE_H
#define LEAFDISK_IMAGE_LEAF_SPARE_H

#include "leaf.h"

/* A slot of the file for INDEX, without putting the chunk in the hash. NULL with
 * *ERRNUM as for leaf_chunk_allocate_locked(). */
struct chunk *leaf_slot_take_locked(struct leaf *leaf, uint64_t index, int *errnum);
/* The reserve has slots for a zero list of so many intervals MORE. Errors as
 * above. */
int leaf_spare_reserve_locked(struct leaf *leaf, unsigned more);
/* One of the reserve, for a checkpoint: NULL and -ENOSPC where there is none,
 * -EAGAIN when the file has to be extended. */
struct chunk *leaf_spare_take_locked(struct leaf *leaf, uint64_t index, int *errnum);
/* CHUNK goes, and nothing on disk names its slot. */
void leaf_spare_return_locked(struct leaf *leaf, struct chunk *chunk);
/* The reserve is no larger than it need be. */
void leaf_spare_trim_locked(struct leaf *leaf);

#endif
