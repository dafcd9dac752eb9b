/* Reading: where blocks are found, and how they are brought. */
#ifndef LEAFDISK_DISK_IO_READ_H
#define LEAFDISK_DISK_IO_READ_H

#include "disk/object.h"

/* Reads up to LIMIT blocks at BLOCK into BUFFER. Returns how many are read or
 * being read, 0 when IO is starved. */
uint64_t io_read_blocks(struct disk_io *io, uint64_t block, uint64_t limit, uint8_t *buffer);

/* For a route's read. EXTENT_DATA: RUN is on its way, or, with no blocks, comes back
 * when another's fetch is over; otherwise nothing has begun. */
struct image_extent io_read_image(struct run *run, struct image *image, uint64_t block, uint64_t limit,
				  uint8_t *buffer);
/* IMAGE has the same blocks; NULL: nobody has. */
struct cache_extent io_read_cached(struct run *run, struct cache_layer *layer, struct image *image, uint64_t block,
				   uint64_t limit, uint8_t *buffer);
/* Of a hit or zeros. */
struct image_extent io_extent_of(struct cache_extent cached);
/* IMAGE has the blocks and LAYER, which is IMAGE in the cache, has not. */
struct image_extent io_read_missed(struct run *run, struct image *image, struct cache_layer *layer, uint64_t block,
				   uint64_t limit, uint8_t *buffer);
/* LAYER is IMAGE in the cache, or NULL. */
struct image_extent io_read_layer(struct run *run, struct image *image, struct cache_layer *layer, uint64_t block,
				  uint64_t limit, uint8_t *buffer);

#endif
