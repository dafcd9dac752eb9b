/* image_resize. */
#ifndef LEAFDISK_IMAGE_LEAF_RESIZE_OP_H
#define LEAFDISK_IMAGE_LEAF_RESIZE_OP_H

#include "leaf.h"

void leaf_resize(struct image *image, struct image_op *op);

#endif
