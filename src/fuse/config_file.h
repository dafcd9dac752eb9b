/* The configuration file, and which of its groups are of the pool that is mounted. */
#ifndef LEAFDISK_FUSE_CONFIG_FILE_H
#define LEAFDISK_FUSE_CONFIG_FILE_H

#include "options.h"

/* Reads the file that OPTIONS names, or the default one if there is one, and takes over
 * what it says of all pools and, above that, of this one. In OPTIONS->config are then
 * the groups [disk NAME] of this pool. Relative paths in ERROR are as they were given. */
bool config_file_load(struct mount_options *options, GError **error);

#endif
