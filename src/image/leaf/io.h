/* Reads and writes of blocks. */
#ifndef LEAFDISK_IMAGE_LEAF_IO_H
#define LEAFDISK_IMAGE_LEAF_IO_H

#include "leaf.h"

struct image_extent leaf_extent(struct image *image, uint64_t block, uint64_t blocks, bool may_block);
struct image_extent leaf_read(struct image_io *io);
int64_t leaf_write(struct image_io *io);

#endif
