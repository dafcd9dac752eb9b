/* Reading from one layer. */
#include "layer/read.h"

#include <errno.h>
#include <string.h>

#include "core/counters.h"
#include "layer/pool_cache.h"

static void set_transfer(struct layer_io *io, struct image *image, uint64_t block, uint64_t blocks, uint8_t *buffer,
			 void (*done)(struct image_io *image_io, int result))
{
	io->image = (struct image_io){
		.queue = io->queue,
		.image = image,
		.offset = block << BLOCK_SHIFT,
		.length = (uint32_t)(blocks << BLOCK_SHIFT),
		.buffer = buffer,
		.done = done,
	};
}

static void transfer_done(struct image_io *image_io, int result)
{
	struct layer_io *io = container_of(image_io, struct layer_io, image);

	io->done(io, result);
}

static void note_io(const struct layer *layer)
{
	if (layer->pool_cache)
		pool_cache_note_io(layer->pool_cache);
}

struct image_extent layer_read_image(struct layer_io *io, struct layer *layer, uint64_t block, uint64_t limit,
				     uint8_t *buffer)
{
	note_io(layer);
	set_transfer(io, layer->image ? layer->image : layer->overflow, block, limit, buffer, transfer_done);
	return image_read(&io->image);
}

/* ---- From the cache ------------------------------------------------------- */

static void read_instead(struct layer_io *io);

static void read_instead_done(struct image_io *image_io, int result)
{
	struct layer_io *io = container_of(image_io, struct layer_io, image);
	uint64_t blocks = io->image.length >> BLOCK_SHIFT;

	if (result < 0) {
		io->done(io, result);
		return;
	}
	io->block += blocks;
	io->blocks -= blocks;
	io->buffer += blocks << BLOCK_SHIFT;
	read_instead(io);
}

/* What is left of IO, from the image. Blocks that were discarded meanwhile read as
 * zeros. */
static void read_instead(struct layer_io *io)
{
	while (io->blocks > 0) {
		struct image_extent extent;

		set_transfer(io, io->layer->image, io->block, io->blocks, io->buffer, read_instead_done);
		extent = image_read(&io->image);
		if (extent.state == EXTENT_DATA) {
			io->image.length = (uint32_t)(extent.blocks << BLOCK_SHIFT);
			return;
		}
		memset(io->buffer, 0, extent.blocks << BLOCK_SHIFT);
		io->block += extent.blocks;
		io->blocks -= extent.blocks;
		io->buffer += extent.blocks << BLOCK_SHIFT;
	}
	io->done(io, 0);
}

static void cached_done(struct cache_io *cached, int result)
{
	struct layer_io *io = container_of(cached, struct layer_io, cached);

	if (result == -EAGAIN && io->layer->image) {
		read_instead(io);
		return;
	}
	if (result == 0 && io->layer->image)
		counter_add(cache_saved_bytes, io->blocks << BLOCK_SHIFT);
	io->done(io, result == -EAGAIN ? -EIO : result);
}

/* Zeros that the cache has are in memory. */
static enum layer_source source_of(const struct layer_io *io, enum cache_answer answer)
{
	if (answer == CACHE_MISS)
		return LAYER_FROM_IMAGE;
	return answer == CACHE_ZERO || io->cached.buffered ? LAYER_FROM_BUFFER : LAYER_FROM_LOG;
}

struct cache_extent layer_read_cached(struct layer_io *io, struct layer *layer, uint64_t block, uint64_t limit,
				      uint8_t *buffer)
{
	struct cache_extent extent;

	io->layer = layer;
	io->block = block;
	io->buffer = buffer;
	io->cached = (struct cache_io){
		.queue = io->queue,
		.layer = layer->cached,
		.block = block,
		.blocks = limit,
		.buffer = buffer,
		.done = cached_done,
	};
	extent = cache_read(&io->cached);
	io->blocks = extent.blocks;
	io->source = source_of(io, extent.answer);
	return extent;
}

/* What is in the cache is newer than the image, or there is none. */
static bool is_newer(const struct layer *layer)
{
	return layer->cached && (layer->sealed || !layer->image);
}

/* Of an image, or of an overflow layer, that is there. */
static struct image_extent extent_behind(const struct layer *layer, uint64_t block, uint64_t blocks)
{
	struct image *image = layer->image ? layer->image : layer->overflow;

	return image ? image_extent(image, block, blocks) : (struct image_extent){EXTENT_ABSENT, blocks};
}

/* Between the look at the cache and that at the image a block can only go from the one to the
 * other. */
struct image_extent layer_extent(struct layer *layer, uint64_t block, uint64_t blocks)
{
	struct cache_extent cached;

	if (!is_newer(layer))
		return image_extent(layer->image, block, blocks);
	cached = cache_lookup(layer->cached, block, blocks);
	return cached.answer != CACHE_MISS ? layer_extent_of(cached) : extent_behind(layer, block, cached.blocks);
}

struct image_extent layer_extent_blocking(struct layer *layer, uint64_t block, uint64_t blocks)
{
	struct cache_extent cached;

	if (!is_newer(layer))
		return image_extent_blocking(layer->image, block, blocks);
	cached = cache_lookup_far(layer->cached, block, blocks);
	if (cached.answer != CACHE_MISS)
		return layer_extent_of(cached);
	return layer->image ? image_extent_blocking(layer->image, block, cached.blocks)
			    : extent_behind(layer, block, cached.blocks);
}

/* ---- A copy on its way ---------------------------------------------------- */

static void fetched(struct image_io *image_io, int result)
{
	struct layer_io *io = container_of(image_io, struct layer_io, image);

	fetch_end(&io->layer->pool_cache->fetches, &io->fetch, result == 0 ? image_io->buffer : NULL);
	io->done(io, result);
}

static void fetch_ended(struct loop_task *task)
{
	struct layer_io *io = container_of(task, struct layer_io, fetch.ended);

	io->done(io, 0);
}

/* What another fetch has just brought; from the image where it is gone again. */
static struct image_extent read_fetched(struct layer_io *io, struct layer *layer, uint64_t block, uint64_t limit,
					uint8_t *buffer)
{
	struct cache_extent cached = layer_read_cached(io, layer, block, limit, buffer);

	if (cached.answer == CACHE_HIT)
		return (struct image_extent){EXTENT_DATA, cached.blocks};
	return layer_read_image(io, layer, block, cached.blocks, buffer);
}

/* No blocks: somebody else fetches the first one, and IO comes back when that is over.
 * A fetch may have ended between the caller's look at the cache and this one's
 * beginning: then it is there. */
static struct image_extent fetch(struct layer_io *io, struct layer *layer, uint64_t block, uint64_t limit,
				 uint8_t *buffer)
{
	struct fetches *fetches = &layer->pool_cache->fetches;
	struct image_extent extent;
	struct cache_extent cached;

	io->layer = layer;
	io->fetch.layer = layer->cached;
	io->fetch.block = block;
	io->fetch.blocks = limit;
	io->fetch.loop = io->loop;
	io->fetch.ended.run = fetch_ended;
	if (!fetch_begin(fetches, &io->fetch))
		return (struct image_extent){EXTENT_DATA, 0};
	cached = cache_lookup(layer->cached, block, io->fetch.blocks);
	if (cached.answer != CACHE_MISS) {
		fetch_end(fetches, &io->fetch, NULL);
		return read_fetched(io, layer, block, cached.blocks, buffer);
	}
	fetch_shorten(fetches, &io->fetch, cached.blocks);
	note_io(layer);
	set_transfer(io, layer->image, block, cached.blocks, buffer, fetched);
	extent = image_read(&io->image);
	if (extent.state != EXTENT_DATA)
		fetch_end(fetches, &io->fetch, NULL);
	else
		fetch_shorten(fetches, &io->fetch, extent.blocks);
	return extent;
}

static bool copies(const struct layer_io *io, const struct layer *layer)
{
	if (!layer->pool_cache->copy_on_read)
		return false;
	if (io->bypass)
		counter_add(cache_bypasses, 1);
	return !io->bypass;
}

struct image_extent layer_read_missed(struct layer_io *io, struct layer *layer, uint64_t block, uint64_t limit,
				      uint8_t *buffer)
{
	counter_add(cache_misses, limit);
	if (!copies(io, layer))
		return layer_read_image(io, layer, block, limit, buffer);
	return fetch(io, layer, block, limit, buffer);
}

struct image_extent layer_read_newer(struct layer_io *io, struct layer *layer, uint64_t block, uint64_t limit,
				     uint8_t *buffer)
{
	struct cache_extent cached = layer_read_cached(io, layer, block, limit, buffer);
	struct image_extent extent;

	if (cached.answer != CACHE_MISS)
		return layer_extent_of(cached);
	extent = image_extent(layer->image, block, cached.blocks);
	if (extent.state != EXTENT_DATA)
		return extent;
	return layer_read_missed(io, layer, block, extent.blocks, buffer);
}

/* What is absent from both is so for good. */
static struct image_extent read_log(struct layer_io *io, struct layer *layer, uint64_t block, uint64_t limit,
				    uint8_t *buffer)
{
	struct cache_extent cached = layer_read_cached(io, layer, block, limit, buffer);

	if (cached.answer != CACHE_MISS)
		return layer_extent_of(cached);
	return layer->overflow ? layer_read_image(io, layer, block, cached.blocks, buffer)
			       : (struct image_extent){EXTENT_ABSENT, cached.blocks};
}

struct image_extent layer_read(struct layer_io *io, struct layer *layer, uint64_t block, uint64_t limit,
			       uint8_t *buffer)
{
	struct image_extent extent;
	struct cache_extent cached;

	if (!layer->image)
		return read_log(io, layer, block, limit, buffer);
	if (!layer->cached)
		return layer_read_image(io, layer, block, limit, buffer);
	if (layer->sealed)
		return layer_read_newer(io, layer, block, limit, buffer);
	extent = image_extent(layer->image, block, limit);
	if (extent.state != EXTENT_DATA)
		return extent;
	cached = layer_read_cached(io, layer, block, extent.blocks, buffer);
	if (cached.answer != CACHE_MISS)
		return layer_extent_of(cached);
	return layer_read_missed(io, layer, block, cached.blocks, buffer);
}
