/* The local leaf: what the modes with a cache add to a request's phases. */
#ifndef LEAFDISK_DISK_MODE_EPHEMERAL_H
#define LEAFDISK_DISK_MODE_EPHEMERAL_H

#include "disk/io/io.h"

/* Until the cache may take what it had no room for; DIRTY: for migration's sake. */
enum step local_wait_for_room(struct disk_io *io, bool dirty);

/* Persistent, after the shared leaf: the cache gets the same, or forgets. */
enum step phase_mirror(struct disk_io *io);
enum step phase_forget(struct disk_io *io);

/* Ephemeral. As io_write_blocks(). */
uint64_t local_write_blocks(struct disk_io *io, uint64_t block, uint64_t limit, uint8_t *buffer);
enum step phase_zero_local(struct disk_io *io);
enum step phase_resize_local(struct disk_io *io);

#endif
