/* Range lock: one writer at a time on any block of a disk.
 *
 * Serves read-modify-write, allocation, discards and resizing. Reads do not
 * take it. First come, first served among those that overlap. Not locked: the
 * disk's mutex is held. */
#ifndef LEAFDISK_DISK_RANGE_LOCK_H
#define LEAFDISK_DISK_RANGE_LOCK_H

#include <stdbool.h>

#include "disk/disk.h"

struct range_lock {
	struct list held;    /* disk_io by range_link */
	struct list waiting; /* in order of arrival */
};

void range_lock_init(struct range_lock *lock);
/* Takes [io->first_block, + io->blocks). False: IO waits, and comes out of
 * range_unlock() later. */
bool range_lock_take(struct range_lock *lock, struct disk_io *io);
/* Gives IO's range back and moves those that can go on now to GRANTED. */
void range_unlock(struct range_lock *lock, struct disk_io *io, struct list *granted);

#endif
