/* A block device that has no room left may be made larger. */
#ifndef LEAFDISK_IMAGE_LEAF_GROW_H
#define LEAFDISK_IMAGE_LEAF_GROW_H

#include "leaf.h"

/* -EAGAIN when the device may grow (and starts that), else -ENOSPC. */
int leaf_no_room_locked(struct leaf *leaf);
/* The leaf is closed, whatever the command does. */
void leaf_grow_detach(struct leaf *leaf);

#endif
