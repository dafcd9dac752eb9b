/* Where a disk's writes go: from one mode to another, while it is open. */
#ifndef LEAFDISK_DISK_ROUTE_H
#define LEAFDISK_DISK_ROUTE_H

#include "disk/object.h"

/* All with open_lock held, the chain open, and no request in work: behind the
 * gate, or before the first open returns. They block. */

/* The leaf has just been opened: its first route. Into writeback where the cache
 * has changes of it. False and ERROR. */
bool route_open(struct disk *disk, GError **error);
/* The leaf is about to be closed: nothing, or nothing more, is written back. */
void route_close(struct disk *disk);
/* Makes the leaf ready to be written in the disk's mode: claimed, its stamp or
 * generation moved, its layer in the cache opened as the mode needs it. Again
 * has no effect. */
bool route_begin_writing(struct disk *disk, GError **error);
/* Into writeback, whatever the mode says. False: the disk is as before. */
bool route_enter_writeback(struct disk *disk, GError **error);
/* From what it is to what the mode says; of a disk in writeback nothing is
 * dirty. */
bool route_change(struct disk *disk, GError **error);
/* Out of it, to what the mode says; nothing is dirty. */
bool route_leave_writeback(struct disk *disk, GError **error);
/* Out of it as the cache fails: it gives up what it has of the leaf, all of
 * which the pool has. */
bool route_flee_cache(struct disk *disk, const char *reason, GError **error);
/* Nothing goes anywhere any more. LOST: another owns the image. */
void route_fail(struct disk *disk, bool lost);

/* What the cache has of the leaf that the pool has not, of a disk that is not
 * open: blocks and zero ranges. */
uint64_t route_left_in_cache(struct disk *disk);

#endif
