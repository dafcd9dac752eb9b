/* The cache as a mirror of the shared leaf. */
#ifndef LEAFDISK_DISK_MODE_PERSISTENT_H
#define LEAFDISK_DISK_MODE_PERSISTENT_H

#include "disk/io/step.h"

/* The cache forgets the range, or what a change of size was about. */
enum step phase_forget(struct disk_io *io);

#endif
