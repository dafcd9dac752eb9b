/* Overflow layers: what an ephemeral disk writes and the cache does not take.
 *
 * A leaf image in POOL/.leafdisk/overflow, whose name is removed as soon as it
 * is open: it goes with the process. */
#ifndef LEAFDISK_DISK_OVERFLOW_H
#define LEAFDISK_DISK_OVERFLOW_H

#include "disk/object.h"

/* Makes disk->overflow if there is none: RUN, of a request in work, is finished
 * with 0, or -errno which has been logged. One makes it for all who ask
 * meanwhile. On the request's loop; does not block. */
void overflow_make(struct run *run);
void overflow_free(struct disk *disk);

/* Removes what a crash between making and opening one left, and the directory
 * when it is empty. Blocks. */
void overflow_sweep(const struct place *pool);

#endif
