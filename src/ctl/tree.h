/* Who stands on whom. */
#ifndef LEAFDISK_CTL_TREE_H
#define LEAFDISK_CTL_TREE_H

#include <glib.h>

/* Prints the images that DISKS (struct disk) are made of, each below its parent; files of the directory POOL without
 * it. LAYERS as for offline_info(). An enum ctl_exit. */
int print_tree(const char *pool, const GPtrArray *disks, const char *layers);

#endif
