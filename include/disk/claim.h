/* A disk's claim of its image, by its owner record. All of it blocks, and is called
 * under the disk's open_lock. */
#ifndef LEAFDISK_DISK_CLAIM_H
#define LEAFDISK_DISK_CLAIM_H

#include "disk/object.h"
#include "owner/owner.h"

/* As owner_allows(), for a disk that can be written: before its leaf is opened
 * so that it may be, and in the hope of the lock. */
bool owner_allows_disk(struct disk *disk, GError **error);
/* With the leaf open. PREPARE: see struct owner_want, called with DISK. */
bool owner_claim_disk(struct disk *disk, enum disk_mode mode,
		      bool (*prepare)(void *opaque, uint64_t owned, uint64_t generation, GError **error),
		      GError **error);
/* As owner_check(), of DISK's claim. */
int owner_check_disk(struct disk *disk, bool *stands);
/* When all is in the image, before its lock is let go. */
void owner_release_disk(struct disk *disk);
/* ERROR says that DISK's leaf is locked: adds by whom. */
void owner_explain_disk_lock(struct disk *disk, GError **error);

#endif
