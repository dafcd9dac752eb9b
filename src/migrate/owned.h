/* Whether a disk's image is still ours to write. */
#ifndef LEAFDISK_MIGRATE_OWNED_H
#define LEAFDISK_MIGRATE_OWNED_H

#include "disk/object.h"

/* Before each batch; reads the owner record where that is due. False: the image is
 * another's, or nobody can tell for now; either is noted. Blocks. */
bool owned_check(struct disk *disk);

#endif
