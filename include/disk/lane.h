/* A disk's lane on a loop: how many of its requests are in work there.
 *
 * Each disk has its own, so requests that a store does not answer, or that wait for
 * room or before a closed gate, take no place from those of other disks. On the
 * context's loop only. */
#ifndef LEAFDISK_DISK_LANE_H
#define LEAFDISK_DISK_LANE_H

#include <stdbool.h>

#include "core/list.h"
#include "core/loop.h"

/* Loops that may serve disks at a time. */
#define LANES 32

struct lane {
	unsigned in_work;
	struct list waiting; /* disk_io by link, in order of arrival */
};

struct disk_io;

/* LANES of them. g_free. */
struct lane *lanes_new(void);
/* False: IO waits, and is submitted again when it is its turn. */
bool lane_enter(struct disk_io *io, void (*submit)(struct loop_task *task));
/* IO is over. */
void lane_leave(struct disk_io *io);

#endif
