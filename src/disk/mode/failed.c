/* Failed: the disk is not what it was, for as long as it is open. */
#include <errno.h>

#include "disk/object.h"
#include "disk/route.h"

static enum step phase_fail(struct disk_io *io)
{
	io->result = -EIO;
	return STEP_NEXT;
}

static bool takes_writes(const struct disk *disk)
{
	return disk->writable;
}

const struct route route_failed = {
	.name = "failed",
	.takes_writes = takes_writes,
	.phases =
		{
			[DISK_READ] = PHASES(phase_fail),
			[DISK_WRITE] = PHASES(phase_fail),
			[DISK_DISCARD] = PHASES(phase_fail),
			[DISK_ZERO] = PHASES(phase_fail),
			[DISK_FLUSH] = PHASES(phase_fail),
			[DISK_RESIZE] = PHASES(phase_fail),
			[DISK_GROW] = PHASES(phase_fail),
		},
};
