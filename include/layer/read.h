/* Reading from one layer: from the cache what it has, and the rest from its image,
 * copied into the cache as it passes by.
 *
 * A block that the cache lost between lookup and read is read from the image instead;
 * only what nobody else has is an error then. */
#ifndef LEAFDISK_LAYER_READ_H
#define LEAFDISK_LAYER_READ_H

#include "cache/block.h"
#include "image/image.h"
#include "layer/fetch.h"
#include "layer/layer.h"

enum layer_source { LAYER_FROM_IMAGE, LAYER_FROM_LOG, LAYER_FROM_BUFFER };

struct layer_io {
	/* The caller's, of the loop on which DONE is called with 0 or -errno. */
	struct aio_queue *queue;
	struct loop *loop;
	bool bypass; /* what is read from the image is not kept in the cache */
	void (*done)(struct layer_io *io, int result);

	/* Where what is read, or was found to be zeros, comes from: an image unless it is set. */
	enum layer_source source;

	struct layer *layer;
	union {
		struct image_io image;
		struct cache_io cached;
	};
	struct fetch fetch;
	/* What is still to be read. */
	uint64_t block;
	uint64_t blocks;
	uint8_t *buffer;
};

/* What LAYER has of up to BLOCKS at BLOCK: of a sealed one what the cache has is newer than
 * its image. Any thread; does not block. */
struct image_extent layer_extent(struct layer *layer, uint64_t block, uint64_t blocks);
/* The same, but a hole of a raw file counts as zero; may block. */
struct image_extent layer_extent_blocking(struct layer *layer, uint64_t block, uint64_t blocks);

/* Up to LIMIT blocks at BLOCK of LAYER into BUFFER. EXTENT_DATA: IO is on its way, or,
 * with no blocks, another fetches the first one, and DONE is called when that is over;
 * otherwise nothing has begun. On IO's loop; does not block. */
struct image_extent layer_read(struct layer_io *io, struct layer *layer, uint64_t block, uint64_t limit,
			       uint8_t *buffer);

/* The same, in parts. */

/* What the image has; of a log layer, its overflow layer. */
struct image_extent layer_read_image(struct layer_io *io, struct layer *layer, uint64_t block, uint64_t limit,
				     uint8_t *buffer);
/* What the cache has; of a miss nothing has begun. */
struct cache_extent layer_read_cached(struct layer_io *io, struct layer *layer, uint64_t block, uint64_t limit,
				      uint8_t *buffer);
/* What the cache does not have, and the image does. */
struct image_extent layer_read_missed(struct layer_io *io, struct layer *layer, uint64_t block, uint64_t limit,
				      uint8_t *buffer);
/* Where the cache has what is newer than the image, or may have. */
struct image_extent layer_read_newer(struct layer_io *io, struct layer *layer, uint64_t block, uint64_t limit,
				     uint8_t *buffer);
/* Of a hit or zeros. */
static inline struct image_extent layer_extent_of(struct cache_extent cached)
{
	return (struct image_extent){cached.answer == CACHE_HIT ? EXTENT_DATA : EXTENT_ZERO, cached.blocks};
}

#endif
