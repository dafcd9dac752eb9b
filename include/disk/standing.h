/* Which disks stand on a sealed layer that is not complete: its image, where that has failed, is exchanged behind the
 * gates of all of them.
 *
 * The list is under the backlogs' lock. All of it blocks, on threads that may wait. */
#ifndef LEAFDISK_DISK_STANDING_H
#define LEAFDISK_DISK_STANDING_H

#include <glib.h>

#include "disk/object.h"

/* DISK has a stack: it is on the lists of the sealed layers in it. Waits while the image of one is being exchanged. */
void standing_begin(struct disk *disk);
/* Before it has none any more, or another. */
void standing_end(struct disk *disk);

/* The gates of all disks on LAYER, if they close within PATIENCE_US each; none comes until they are opened. DISKS,
 * which is empty, has them then, with a reference each, in either case. False: they do not, and are open. */
bool standing_close(struct layer *layer, int64_t patience_us, GPtrArray *disks);
void standing_open(struct layer *layer, GPtrArray *disks);

#endif
