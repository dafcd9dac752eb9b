/* The requests that a disk has and has not answered yet. */
#ifndef LEAFDISK_DISK_REQUESTS_H
#define LEAFDISK_DISK_REQUESTS_H

#include <glib.h>

#include "disk/disk.h"

struct disk_request {
	enum disk_op op;
	uint64_t offset; /* bytes; 0 of a flush */
	uint64_t length;
	uint64_t age_ns;
	const char *phase; /* that it is in; NULL: it has not begun */
	enum disk_wait wait;
};

/* All of them (GArray of struct disk_request), the oldest first. Any thread; does not block. */
GArray *disk_get_requests(struct disk *disk);
const char *disk_op_name(enum disk_op op);

#endif
