/* image_apply. */
#ifndef LEAFDISK_IMAGE_LEAF_APPLY_H
#define LEAFDISK_IMAGE_LEAF_APPLY_H

#include "leaf.h"

void leaf_apply(struct image *image, struct image_op *op);

#endif
