/* A disk's new size. */
#ifndef LEAFDISK_FUSE_RESIZE_H
#define LEAFDISK_FUSE_RESIZE_H

#include "channel.h"

/* Gives DISK, which is open for writing, a size of BYTES, on CHANNEL's loop. 0 or -errno. Blocks:
 * waiters only, and while a request of CHANNEL is in work. */
int resize_open(struct channel *channel, struct disk *disk, uint64_t bytes);

/* Takes the room of DISK's image that it does not need, after it has grown by writes. Errors are logged.
 * As resize_open(). */
void resize_fit(struct channel *channel, struct disk *disk);

/* Gives DISK a size of BYTES, which may be smaller, if nobody has it open once all closes that have
 * begun are over. 0, or -errno with ERROR set. As resize_open(). */
int resize_closed(struct channel *channel, struct disk *disk, uint64_t bytes, GError **error);

#endif
