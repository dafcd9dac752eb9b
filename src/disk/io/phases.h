/* The phases that all modes have. */
#ifndef LEAFDISK_DISK_IO_PHASES_H
#define LEAFDISK_DISK_IO_PHASES_H

#include "disk/route.h"

enum step phase_read(struct disk_io *io);
/* The range, against other writers. Always the first phase. */
enum step phase_lock(struct disk_io *io);
enum step phase_write(struct disk_io *io);

/* edges.c: blocks that are touched in part. */
enum step phase_write_edges_read(struct disk_io *io);
enum step phase_zero_edges_read(struct disk_io *io);
enum step phase_zero_edges_write(struct disk_io *io);

#endif
