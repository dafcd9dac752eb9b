/* What must hold before anything is mounted. */
#ifndef LEAFDISK_FUSE_CHECKS_H
#define LEAFDISK_FUSE_CHECKS_H

#include <glib.h>
#include <stdbool.h>

#include "options.h"

/* Checks the pool, the mountpoint and the layers' directories, and makes their
 * paths in OPTIONS absolute and free of links. Blocks. */
bool checks_run(struct mount_options *options, GError **error);

#endif
