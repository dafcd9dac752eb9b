/* Disks whose newest changes are elsewhere: whether they may be opened all the same. */
#ifndef LEAFDISK_DISK_ELSEWHERE_H
#define LEAFDISK_DISK_ELSEWHERE_H

#include "disk/object.h"

/* DISK's chain is being opened, and is to be written with WRITE. The functions below follow, with open_lock held, and
 * block. False and ERROR: it is not to be opened, as what would be read is old, or nobody can tell. */
void elsewhere_begin(struct disk *disk, bool write);
/* Of the leaf, by its name. */
bool elsewhere_allows(struct disk *disk, GError **error);
/* Of LINK's image, which is to be below the leaf. */
bool elsewhere_allows_below(struct disk *disk, const struct chain_link *link, GError **error);
/* Of the leaf that IMAGE is open on, by what that says of itself. */
bool elsewhere_allows_image(struct disk *disk, const struct image *image, GError **error);

#endif
