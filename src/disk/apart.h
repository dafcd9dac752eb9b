/* What goes on with a disk in the background, and nobody waits for. */
#ifndef LEAFDISK_DISK_APART_H
#define LEAFDISK_DISK_APART_H

#include "disk/object.h"

/* Until the end is told DISK is there, and so is its pool: see disk_await_disposals(). Any thread. */
void disk_begin_apart(struct disk *disk);
void disk_end_apart(struct disk *disk);

#endif
