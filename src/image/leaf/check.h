/* Checking a leaf, and mending what can be mended. */
#ifndef LEAFDISK_IMAGE_LEAF_CHECK_H
#define LEAFDISK_IMAGE_LEAF_CHECK_H

#include "leaf.h"

bool leaf_check(const char *path, bool repair, image_finding finding, void *opaque, struct image_check_result *result,
		GError **error);

#endif
