/* Where a read finds its blocks.
 *
 * In this order: what the leaf has, as the route says, then the layer that the
 * merged map names. A layer that is cached is asked through the cache: what it
 * does not have is fetched and, as it passes by, copied there.
 *
 * A block that the cache lost between lookup and read is read from its image
 * instead. Only what nobody else has is an error then. */
#include "read.h"

#include <errno.h>
#include <string.h>

#include "core/counters.h"
#include "step.h"

static void run_set_transfer(struct run *run, struct image *image, uint64_t block, uint64_t blocks, uint8_t *buffer)
{
	run->io = (struct image_io){
		.queue = run->owner->context->queue,
		.image = image,
		.offset = block << BLOCK_SHIFT,
		.length = (uint32_t)(blocks << BLOCK_SHIFT),
		.buffer = buffer,
		.done = io_transfer_done,
	};
}

struct image_extent io_read_image(struct run *run, struct image *image, uint64_t block, uint64_t limit, uint8_t *buffer)
{
	run_set_transfer(run, image, block, limit, buffer);
	if (run->owner->disk->pool_cache)
		migrate_note_io(run->owner->disk->pool_cache);
	return image_read(&run->io);
}

/* ---- A copy on its way ---------------------------------------------------- */

static void fetched(struct image_io *image_io, int result)
{
	struct run *run = container_of(image_io, struct run, io);

	fetch_end(&run->owner->disk->pool_cache->fetches, &run->fetch, result == 0 ? image_io->buffer : NULL);
	io_run_finished(run, result);
}

static void fetch_ended(struct loop_task *task)
{
	io_run_finished(container_of(task, struct run, fetch.ended), 0);
}

/* ---- From the cache ------------------------------------------------------- */

static void read_instead(struct run *run);

static void read_instead_done(struct image_io *image_io, int result)
{
	struct run *run = container_of(image_io, struct run, io);
	uint64_t blocks = run->io.length >> BLOCK_SHIFT;

	if (result < 0) {
		io_run_finished(run, result);
		return;
	}
	run->block += blocks;
	run->blocks -= blocks;
	run->buffer += blocks << BLOCK_SHIFT;
	read_instead(run);
}

/* What is left of RUN, from its image. Blocks that were discarded meanwhile
 * read as zeros. */
static void read_instead(struct run *run)
{
	while (run->blocks > 0) {
		struct image_extent extent;

		run_set_transfer(run, run->image, run->block, run->blocks, run->buffer);
		run->io.done = read_instead_done;
		extent = image_read(&run->io);
		if (extent.state == EXTENT_DATA) {
			run->io.length = (uint32_t)(extent.blocks << BLOCK_SHIFT);
			return;
		}
		memset(run->buffer, 0, extent.blocks << BLOCK_SHIFT);
		run->block += extent.blocks;
		run->blocks -= extent.blocks;
		run->buffer += extent.blocks << BLOCK_SHIFT;
	}
	io_run_finished(run, 0);
}

static void cached_done(struct cache_io *cached, int result)
{
	struct run *run = container_of(cached, struct run, cached);

	if (result == -EAGAIN && run->image) {
		read_instead(run);
		return;
	}
	if (result == 0 && run->image)
		counter_add(cache_saved_bytes, run->blocks << BLOCK_SHIFT);
	io_run_finished(run, result == -EAGAIN ? -EIO : result);
}

/* IMAGE has the same blocks; NULL: nobody has. */
struct cache_extent io_read_cached(struct run *run, struct cache_layer *layer, struct image *image, uint64_t block,
				   uint64_t limit, uint8_t *buffer)
{
	struct cache_extent extent;

	run->image = image;
	run->block = block;
	run->buffer = buffer;
	run->cached = (struct cache_io){
		.queue = run->owner->context->queue,
		.layer = layer,
		.block = block,
		.blocks = limit,
		.buffer = buffer,
		.done = cached_done,
	};
	extent = cache_read(&run->cached);
	run->blocks = extent.blocks;
	return extent;
}

struct image_extent io_extent_of(struct cache_extent cached)
{
	return (struct image_extent){cached.answer == CACHE_HIT ? EXTENT_DATA : EXTENT_ZERO, cached.blocks};
}

/* ---- A layer -------------------------------------------------------------- */

static bool copies(const struct disk_io *io)
{
	if (!io->disk->pool_cache->copy_on_read)
		return false;
	if (io->bypass)
		counter_add(cache_bypasses, 1);
	return !io->bypass;
}

/* What another fetch has just brought; from the image where it is gone again. */
static struct image_extent read_fetched(struct run *run, struct image *image, struct cache_layer *layer, uint64_t block,
					uint64_t limit, uint8_t *buffer)
{
	struct cache_extent cached = io_read_cached(run, layer, image, block, limit, buffer);

	if (cached.answer == CACHE_HIT)
		return (struct image_extent){EXTENT_DATA, cached.blocks};
	return io_read_image(run, image, block, cached.blocks, buffer);
}

/* What is not in the cache. No blocks: somebody else fetches the first one, and
 * the run comes back when that is over. A fetch may have ended between the
 * caller's look at the cache and this one's beginning: then it is there. */
static struct image_extent fetch(struct run *run, struct image *image, struct cache_layer *layer, uint64_t block,
				 uint64_t limit, uint8_t *buffer)
{
	struct fetches *fetches = &run->owner->disk->pool_cache->fetches;
	struct image_extent extent;
	struct cache_extent cached;

	run->fetch.layer = layer;
	run->fetch.block = block;
	run->fetch.blocks = limit;
	run->fetch.loop = run->owner->context->loop;
	run->fetch.ended.run = fetch_ended;
	if (!fetch_begin(fetches, &run->fetch))
		return (struct image_extent){EXTENT_DATA, 0};
	cached = cache_lookup(layer, block, run->fetch.blocks);
	if (cached.answer != CACHE_MISS) {
		fetch_end(fetches, &run->fetch, NULL);
		return read_fetched(run, image, layer, block, cached.blocks, buffer);
	}
	fetch_shorten(fetches, &run->fetch, cached.blocks);
	migrate_note_io(run->owner->disk->pool_cache);
	run_set_transfer(run, image, block, cached.blocks, buffer);
	run->io.done = fetched;
	extent = image_read(&run->io);
	if (extent.state != EXTENT_DATA)
		fetch_end(fetches, &run->fetch, NULL);
	else
		fetch_shorten(fetches, &run->fetch, extent.blocks);
	return extent;
}

/* IMAGE has the blocks and LAYER, which is IMAGE in the cache, has not. */
struct image_extent io_read_missed(struct run *run, struct image *image, struct cache_layer *layer, uint64_t block,
				   uint64_t limit, uint8_t *buffer)
{
	counter_add(cache_misses, limit);
	if (!copies(run->owner))
		return io_read_image(run, image, block, limit, buffer);
	return fetch(run, image, layer, block, limit, buffer);
}

/* LAYER is IMAGE in the cache, or NULL. */
struct image_extent io_read_layer(struct run *run, struct image *image, struct cache_layer *layer, uint64_t block,
				  uint64_t limit, uint8_t *buffer)
{
	struct image_extent extent;
	struct cache_extent cached;

	if (!layer)
		return io_read_image(run, image, block, limit, buffer);
	extent = image_extent(image, block, limit);
	if (extent.state != EXTENT_DATA)
		return extent;
	cached = io_read_cached(run, layer, image, block, extent.blocks, buffer);
	if (cached.answer != CACHE_MISS)
		return io_extent_of(cached);
	return io_read_missed(run, image, layer, block, cached.blocks, buffer);
}

/* What the leaf does not have. */
static struct image_extent read_below(struct run *run, struct stack *stack, uint64_t block, uint64_t limit,
				      uint8_t *buffer)
{
	struct image_extent extent = {EXTENT_ZERO, limit};
	unsigned layer;

	if (!stack)
		return extent;
	layer = stack_lookup(stack, block, limit, &extent.blocks);
	if (layer == STACK_NO_LAYER)
		return extent;
	return io_read_layer(run, stack_layer(stack, layer), stack_cached(stack, layer), block, extent.blocks, buffer);
}

uint64_t io_read_blocks(struct disk_io *io, uint64_t block, uint64_t limit, uint8_t *buffer)
{
	struct run *run = context_get_run(io->context, io);
	struct image_extent extent;

	if (!run)
		return 0;
	extent = io->disk->route->read(run, block, limit, buffer);
	if (extent.state == EXTENT_ABSENT)
		extent = read_below(run, io->disk->stack, block, extent.blocks, buffer);
	if (extent.state == EXTENT_DATA) {
		io->pending++;
	} else {
		memset(buffer, 0, extent.blocks << BLOCK_SHIFT);
		context_put_run(io->context, run);
	}
	return extent.blocks;
}
