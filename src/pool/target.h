/* The snapshot that a disk goes back to. All of it blocks. */
#ifndef LEAFDISK_POOL_TARGET_H
#define LEAFDISK_POOL_TARGET_H

#include "internal.h"

struct target {
	GPtrArray *links;	    /* its image, and what that stands on */
	struct image_parent parent; /* what a leaf on it holds it to */
	struct stack *stack;	    /* of all these; NULL: not open */
};

/* The snapshot TAG of DISK (NULL: the newest that it stands on), which the disk stands on, or nobody does. The disk's
 * open_lock is held. False and ERROR. */
bool target_find(struct disk_pool *pool, struct disk *disk, const char *tag, struct target *target, GError **error);
/* Opened as DISK's, and told of its new child UUID at PATH. False and ERROR. */
bool target_open(struct target *target, struct disk *disk, const uint8_t uuid[IMAGE_UUID_BYTES], const char *path,
		 GError **error);
uint64_t target_size_bytes(const struct target *target);
void target_clear(struct target *target);

#endif
