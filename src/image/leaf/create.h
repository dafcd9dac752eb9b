/* Creating a leaf, naming its parent, and reading its header alone. */
#ifndef LEAFDISK_IMAGE_LEAF_CREATE_H
#define LEAFDISK_IMAGE_LEAF_CREATE_H

#include "leaf.h"

bool leaf_create(int directory, const char *path, const struct image_create_options *options, GError **error);
bool leaf_set_parent(const char *path, const struct image_parent *parent, GError **error);
bool leaf_read_info(int fd, const char *path, struct image_info *info, GError **error);

#endif
